"""Linked items by the SDK: `dl.UrlLink` and `dl.ItemLink`, uploaded, listed, streamed and downloaded."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import clips, samples
from tests.conftest import RunningServer, start_server, stop_server

PICTURE = samples.jpeg()


class _Quiet(SimpleHTTPRequestHandler):
    """As Python serves a folder: without ranges."""

    def log_message(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class Linking:
    server: RunningServer
    folder: Path  # what `url` serves
    url: str


@pytest.fixture(scope="module")
def linking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Linking]:
    """A server that may read links to one inner host: a web server of pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    web = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    threading.Thread(target=web.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{web.server_address[1]}"
    running = start_server(
        tmp_path_factory.mktemp("headwater"),
        HEADWATER_LINK_INNER_HOSTS=host,
        HEADWATER_LOCAL_ROOTS=str(tmp_path_factory.getbasetemp()),
    )
    yield Linking(running, folder, f"http://{host}")
    assert stop_server(running) == 0
    web.shutdown()
    web.server_close()


def test_links_to_urls(run_sdk, linking: Linking, tmp_path: Path):
    (linking.folder / "picture.jpg").write_bytes(PICTURE)
    (linking.folder / "film.mp4").write_bytes(clips.clip("mp4", options={"movflags": "faststart"}))
    found = run_sdk(
        """
        import requests
        dataset = dl.projects.create("url links").datasets.create("url links")

        def prepared(item):
            def state():
                return (now := dl.items.get(item_id=item.id)).metadata["system"]["etl"]["state"] != "waiting" and now
            return until(state, "prepared")

        links = [
            dl.UrlLink(ref=f"{web}/picture.jpg", mimetype="image", name="picture"),
            dl.UrlLink(ref=f"{web}/film.mp4", name="film"),
            dl.UrlLink(ref=f"{web}/gone.jpg", mimetype="image/jpeg", name="gone"),
        ]
        sent = [dataset.items.upload(local_path=link, remote_path="/links") for link in links]
        picture, film, gone = [prepared(item) for item in sent]
        head = {"authorization": f"Bearer {dl.token()}", "range": "bytes=10-19"}
        part = requests.get(picture.stream, headers=head)
        dead = requests.get(gone.stream, headers=head)
        listed = dataset.items.list(filters=dl.Filters(field="dir", values="/links"))
        inner = error_of(lambda: dataset.items.upload(local_path=dl.UrlLink(
            ref="http://169.254.169.254/latest/meta-data", mimetype="image/jpeg", name="inner")))
        again = dataset.items.upload(local_path=links[0], remote_path="/links")
        local = picture.download(local_path=folder)
        answer(
            names=sorted(item.name for item in sent), picture=picture.metadata, film=film.metadata,
            gone=gone.metadata["system"], part=[part.status_code, part.content.hex(), part.headers["content-type"],
            part.headers["x-content-type-options"]], dead=[dead.status_code, dead.json()["message"]], inner=inner,
            sizes={item.name: item.system["size"] for item in listed.all()}, local=local, again=again.id == picture.id,
            types=[picture.mimetype, film.mimetype],
        )
        """,
        url=linking.server.url,
        web=linking.url,
        folder=str(tmp_path / "downloaded"),
    )
    assert found["names"] == ["film_link.json", "gone_link.json", "picture_link.json"]
    system = found["picture"]["system"]
    assert system["shebang"] == {
        "dltype": "link",
        "linkInfo": {"type": "url", "ref": f"{linking.url}/picture.jpg", "mimetype": "image"},
    }
    assert (system["width"], system["height"], system["link"]["state"]) == (320, 200, "alive")
    assert system["thumbnailId"]
    assert found["types"] == ["image/jpeg", "video/mp4"]
    assert found["film"]["fps"] == 25.0
    assert found["film"]["system"]["ffmpeg"] | {"nb_frames": 50, "duration": 2.0} == found["film"]["system"]["ffmpeg"]
    assert found["part"] == [206, PICTURE[10:20].hex(), "image/jpeg", "nosniff"]
    assert (found["gone"]["link"]["state"], found["gone"]["link"]["reason"]) == ("dead", "not-found")
    assert found["dead"][0] == 424
    assert "is dead" in found["dead"][1]
    assert found["sizes"]["picture_link.json"] == len(PICTURE)
    assert found["again"]
    assert Path(found["local"]).read_bytes() == PICTURE


def test_links_to_items(run_sdk, linking: Linking, tmp_path: Path):
    (tmp_path / "picture.jpg").write_bytes(PICTURE)
    found = run_sdk(
        """
        dataset = dl.projects.create("item links").datasets.create("item links")
        target = dataset.items.upload(local_path=picture)
        sent = [
            dataset.items.upload(local_path=dl.ItemLink(item=target, name="by item"), remote_path="/a"),
            dataset.items.upload(local_path=dl.ItemLink(ref=target.id, name="by id"), remote_path="/b"),
            dataset.items.upload(local_path=target, remote_path="/c"),
        ]
        downloads = [dl.items.get(item_id=item.id).download(local_path=f"{folder}/{n}") for n, item in enumerate(sent)]
        found = dl.items.get(item_id=sent[0].id)
        missing = error_of(lambda: dataset.items.upload(local_path=dl.ItemLink(ref="0" * 20 + "ffff", name="none")))
        target.delete()
        answer(downloads=downloads, info=found.metadata["system"]["shebang"], size=found.system["size"],
            target=[target.id, target.dataset_id], count=dataset.items.list().items_count, missing=missing)
        """,
        url=linking.server.url,
        picture=str(tmp_path / "picture.jpg"),
        folder=str(tmp_path / "downloaded"),
    )
    assert [Path(path).read_bytes() for path in found["downloads"]] == [PICTURE] * 3
    target_id, dataset_id = found["target"]
    info = {"type": "id", "ref": target_id, "datasetId": dataset_id}
    assert found["info"]["linkInfo"] | info == found["info"]["linkInfo"]
    assert (found["size"], found["count"]) == (len(PICTURE), 3)
