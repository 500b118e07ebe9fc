"""On a PostgreSQL of the system, as production brings one."""

import tempfile
from pathlib import Path

from tests import samples
from tests.conftest import stop_server
from tests.serving.postgresql import external_postgresql


def test_a_folder_is_synced_and_preprocessed_on_an_external_postgresql(start, tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(samples.jpeg((40 + number, 30)))
    # pytest's own folders are closed to the account that PostgreSQL runs under.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        with external_postgresql(Path(directory)) as url:
            server = start(HEADWATER_DATABASE_URL=url, HEADWATER_LOCAL_ROOTS=str(tmp_path)).log_in()
            dataset_id = server.folder_dataset(tmp_path)
            server.wait_for_thumbnails(dataset_id)
            sizes = {item["name"]: item["metadata"]["system"].get("width") for item in server.items(dataset_id)}
            thumbnail = server.client.get(server.items(dataset_id)[0]["thumbnail"])
            assert stop_server(server.running, 10) == 0
            assert not (server.running.data_dir / "postgres").exists()
            again = start(server.running.data_dir, HEADWATER_DATABASE_URL=url).log_in()
            assert len(again.items(dataset_id)) == 3
            assert stop_server(again.running, 10) == 0
    assert sizes == {"0.jpg": 40, "1.jpg": 41, "2.jpg": 42}
    assert thumbnail.is_success
