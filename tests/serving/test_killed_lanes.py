"""`kill -9` of a worker and then of PostgreSQL, in the middle of a sync in several ranges."""

import os
from collections import Counter
from pathlib import Path

import psutil
import psycopg
import pytest

from tests.serving.watching import until

FILES = 60_000  # enough for ranges that are shared
# Events go as they are dispatched; these stay. And nothing is preprocessed.
_KEEP_EVENTS = """
CREATE TABLE kept_event AS SELECT * FROM event;
CREATE FUNCTION keep_event() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO kept_event SELECT NEW.*; RETURN NULL; END';
CREATE TRIGGER keep_event AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION keep_event();
UPDATE trigger SET active = false;
"""


def query(data_dir: Path, statement: str) -> list[tuple]:
    """None of it while the database is away."""
    try:
        with psycopg.connect(f"postgresql://postgres@/headwater?host={data_dir / 'postgres'}") as conn:
            cursor = conn.execute(statement)
            return cursor.fetchall() if cursor.description else []
    except psycopg.OperationalError:
        return []


def postmaster(data_dir: Path) -> psutil.Process:
    return psutil.Process(int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0]))


@pytest.mark.timeout(300)
def test_a_sync_in_ranges_ends_as_if_neither_worker_nor_database_had_been_killed(start, tmp_path):
    folder = tmp_path / "bucket"
    folder.mkdir()
    for number in range(FILES):
        os.mknod(folder / f"{number:05}.dat")
    server = start(HEADWATER_LOCAL_ROOTS=str(tmp_path)).log_in()
    data_dir = server.running.data_dir
    query(data_dir, _KEEP_EVENTS)
    server.folder_dataset(folder)

    def listed_at_least(number: int) -> bool:
        found = query(data_dir, f"SELECT listed FROM scan WHERE listed >= {number} AND state = 'running'")
        return bool(found)

    until(lambda: listed_at_least(5_000), "the first batches are committed")
    server.child("worker").kill()
    until(lambda: listed_at_least(25_000), "another worker goes on, and may share")
    killed = postmaster(data_dir)
    killed.kill()
    until(lambda: not killed.is_running(), "the database is gone")
    until(lambda: query(data_dir, "SELECT id FROM command WHERE status = 'success'"), "the sync ends", 120)
    ((error, told),) = query(data_dir, "SELECT error, spec -> 'sync' FROM command")
    assert error is None
    assert {name: told[name] for name in ("listed", "created", "missing", "marked")} == {
        "listed": FILES,
        "created": FILES,
        "missing": 0,
        "marked": 0,
    }
    items = query(data_dir, "SELECT id, path FROM item ORDER BY path")
    assert [path for _, path in items] == [f"/{number:05}.dat" for number in range(FILES)]
    events = query(data_dir, "SELECT action, item_id FROM kept_event, unnest(item_ids) AS item_id")
    assert Counter(events) == Counter(("Created", item_id) for item_id, _ in items)
    assert query(data_dir, "SELECT max(items), max(missing_items) FROM dataset_counter") == [(FILES, 0)]
