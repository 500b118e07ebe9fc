"""The same items and the same random filters in other databases of one machine: what is asked, and nothing around it.

SQLite keeps each item's metadata as JSON text, as applications do that store what they are given, once without indexes
and once with one on each field and on each column; DuckDB keeps it as JSON too, and once as the typed columns that the
items were made of, which is as fast as columns get and asks that somebody declares them first. Each peer answers as we
do: the exact total, and the first 50 rows with all their metadata. They are called in this process: without HTTP,
rights, and rows that change meanwhile, all of which is in our times.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import uvloop

from bench.filters import Predicate, Query, random_queries
from bench.ground import installed, say, temporary_folder
from bench.made_items import METADATA_JSON, fill, made, own_dataset
from bench.processes import api, worker
from bench.query import Client, percentiles, wait_for_columns
from bench.report import Figure

ITEMS = 1_000_000
_QUERIES, _STARRED = 60, 20
_PAGE_ITEMS = 50
_COLUMNS = ["id", "filename", "dir", "size", "mimetype", "created", "updated", "width", "height"]
_KEYS = {
    **{name: name for name in (
        "split", "site", "camera", "campaign", "customer", "blurry", "reviewed", "speed", "score", "frame", "battery",
        "attempts", "note", "incident", "relabelled", "objects", "external",
    )},
    "captured": "capturedAt", "weather": "weather.kind", "temperature": "weather.temperature",
}  # fmt: skip
# One in a hundred, in the order of paths: a planner that walks the index of paths for it reads them all.
_TRAP = Query((Predicate({"metadata.user.camera": "camera-20"}, "camera = 'camera-20'"),), ("filename", False))

Ask = Callable[[Query], tuple[int, list[int]]]  # total, and ids of the first page


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, made(ITEMS, folder / "made.duckdb") as db:
        queries = [query for query in random_queries(db, _QUERIES * 2, seed=8) if not query.leads_with_star]
        starred = [query for query in random_queries(db, _STARRED * 20, seed=9) if query.leads_with_star]
        asked = {"filters": queries[:_QUERIES], "star": starred[:_STARRED], "trap": [_TRAP] * 5}
        expected: dict[int, tuple[int, list[int]]] = {}
        floors = _time_all("headwater", asked, _ours(folder, db), expected)
        ours = {kind: floors[kind]["p95_ms"] for kind in asked}
        yield _figure("headwater", floors, ours)
        for name, opened in _peers(folder, db):
            yield _figure(name, _time_all(name, asked, opened, expected), ours)


def _figure(name: str, times: dict[str, dict[str, float]], ours: dict[str, float]) -> Figure:
    return Figure(
        f"peers.{name}",
        value=times["filters"]["p95_ms"],
        floor=ours["filters"],
        unit="ms at the 95th percentile, against ours: above 1 is slower than we are",
        target=0,
        details=times,
    )


def _time_all(
    name: str,
    asked: dict[str, Sequence[Query]],
    opened: Iterator[tuple[Ask, dict[str, Any]]],
    expected: dict[int, tuple[int, list[int]]],
) -> dict[str, dict[str, Any]]:
    """Raises AssertionError where a peer finds something else than those before it."""
    ask, details = next(opened)
    times: dict[str, dict[str, Any]] = {}
    for kind, queries in asked.items():
        taken_ms = []
        for query in queries:
            ask(query)  # warm
            began = time.perf_counter()
            found = ask(query)
            taken_ms.append((time.perf_counter() - began) * 1_000)
            before = expected.setdefault(id(query), found)
            assert found == before, f"{name} finds {found[0]}, not {before[0]}: {query.where} {query.order}"
        times[kind] = percentiles(taken_ms)
        say(f"peers.{name}: {kind} {times[kind]}")
    next(opened, None)  # what is open is closed
    return times | {"made": details}


def _ours(folder: Path, db: duckdb.DuckDBPyConnection) -> Iterator[tuple[Ask, dict[str, Any]]]:
    with installed(folder) as ground:
        dataset = uvloop.run(own_dataset(ground, "peers"))
        fill(ground, db, dataset)
        with worker(ground) as worker_pid, api(ground) as served:
            built = wait_for_columns(ground, dataset.id, worker_pid)
            client = Client(served, dataset.id)

            def ask(query: Query) -> tuple[int, list[int]]:
                answer = client.query(query)
                return answer.total, answer.ids

            yield ask, {"columns": built}


def _peers(folder: Path, db: duckdb.DuckDBPyConnection) -> Iterator[tuple[str, Iterator[tuple[Ask, dict[str, Any]]]]]:
    file = folder / "peer.sqlite"
    _fill_sqlite(file, db)
    yield "sqlite", _sqlite(file, has_indexes=False)
    yield "sqlite_indexed", _sqlite(file, has_indexes=True)
    yield "duckdb_json", _duckdb_json(db)
    yield "duckdb_columns", _duckdb_columns(db)


def _fill_sqlite(file: Path, db: duckdb.DuckDBPyConnection) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as conn:
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute(
            "CREATE TABLE item (id INTEGER PRIMARY KEY, filename TEXT UNIQUE, dir TEXT, size INTEGER, mimetype TEXT,"
            " created TEXT, updated TEXT, width INTEGER, height INTEGER, metadata TEXT)"
        )
        columns = ", ".join(
            f"strftime({name}, '%Y-%m-%dT%H:%M:%S.%gZ')" if name in ("created", "updated") else name
            for name in _COLUMNS
        )
        conn.execute("BEGIN")
        rows = db.execute(f"SELECT {columns}, {METADATA_JSON} FROM made ORDER BY n")
        while chunk := rows.fetchmany(50_000):
            conn.executemany(f"INSERT INTO item VALUES ({', '.join('?' * 10)})", chunk)
        conn.execute("COMMIT")
        fields = ", ".join(f"{_extracted(key)} AS {name}" for name, key in _KEYS.items())
        tags = "json_extract(metadata, '$.tags') AS tags"
        conn.execute(f"CREATE VIEW made AS SELECT {', '.join(_COLUMNS)}, {fields}, {tags}, metadata FROM item")


def _extracted(key: str) -> str:
    return f"json_extract(metadata, '$.{key}')"


def _sqlite(file: Path, *, has_indexes: bool) -> Iterator[tuple[Ask, dict[str, Any]]]:
    with closing(sqlite3.connect(file, isolation_level=None)) as conn:
        conn.execute("PRAGMA cache_size = -256000")  # as much memory as our columns have
        began = time.perf_counter()
        if has_indexes:
            for name in _COLUMNS[2:]:
                conn.execute(f"CREATE INDEX item_{name} ON item ({name})")
            for name, key in _KEYS.items():
                conn.execute(f"CREATE INDEX item_{name} ON item ({_extracted(key)})")
            conn.execute("ANALYZE")
        made_s = time.perf_counter() - began

        def ask(query: Query) -> tuple[int, list[int]]:
            where, order = _in_sqlite(query.where), query.order
            (total,) = conn.execute(f"SELECT count(*) FROM made WHERE {where}").fetchone()
            rows = conn.execute(f"SELECT * FROM made WHERE {where} ORDER BY {order} LIMIT {_PAGE_ITEMS}")
            return total, [row[0] for row in rows.fetchall()]

        yield ask, {"indexes_s": made_s, "bytes": file.stat().st_size, "version": sqlite3.sqlite_version}


def _in_sqlite(where: str) -> str:
    """DuckDB's SQL of filters.py, as SQLite has it. The texts hold no character that GLOB takes for more."""
    for pattern, replacement in (
        (r"starts_with\((\w+), '([^']*)'\)", r"\1 GLOB '\2*'"),
        (r"ends_with\((\w+), '([^']*)'\)", r"\1 GLOB '*\2'"),
        (r"list_contains\(tags, ('[^']*')\)", r"EXISTS (SELECT 1 FROM json_each(tags) WHERE value = \1)"),
        (r"(\w+) IS DISTINCT FROM", r"\1 IS NOT"),
        (r"::DOUBLE", ""),
    ):
        where = re.sub(pattern, replacement, where)
    return re.sub(r"TIMESTAMP '([^']*)'", lambda found: f"'{_wire_time(found.group(1))}'", where)


def _wire_time(text: str) -> str:
    seconds, _, fraction = text.partition(".")
    return f"{seconds}.{fraction[:3]:0<3}Z"


def _duckdb_json(db: duckdb.DuckDBPyConnection) -> Iterator[tuple[Ask, dict[str, Any]]]:
    began = time.perf_counter()
    db.execute(
        f"CREATE TABLE document AS SELECT {', '.join(_COLUMNS)}, {METADATA_JSON} AS metadata FROM made ORDER BY n"
    )
    types = {row[0]: row[1] for row in db.execute("DESCRIBE made").fetchall()}
    fields = ", ".join(
        f"CAST(json_extract_string(metadata, '$.{key}') AS {types[name]}) AS {name}" for name, key in _KEYS.items()
    )
    tags = "CAST(json_extract(metadata, '$.tags') AS VARCHAR[]) AS tags"
    db.execute(f"CREATE VIEW documents AS SELECT {', '.join(_COLUMNS)}, {fields}, {tags}, metadata FROM document")
    yield _duckdb_ask(db, "documents"), {"made_s": time.perf_counter() - began, "version": duckdb.__version__}


def _duckdb_columns(db: duckdb.DuckDBPyConnection) -> Iterator[tuple[Ask, dict[str, Any]]]:
    yield _duckdb_ask(db, "made"), {"version": duckdb.__version__}


def _duckdb_ask(db: duckdb.DuckDBPyConnection, table: str) -> Ask:
    def ask(query: Query) -> tuple[int, list[int]]:
        (total,) = db.execute(f"SELECT count(*) FROM {table} WHERE {query.where}").fetchone() or (0,)
        rows = db.execute(f"SELECT id, * FROM {table} WHERE {query.where} ORDER BY {query.order} LIMIT {_PAGE_ITEMS}")
        return total, [row[0] for row in rows.fetchall()]

    return ask
