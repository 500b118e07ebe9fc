"""A patch over the metadata of 1,000,000 items by query, while syncs of the same dataset run and people read it.

All goes over HTTP to the API and the worker as `headwater serve` starts them. The bucket is only a listing, and says
what the index knows, so each sync compares every item and changes none; when one has ended, the next is asked for. The
dataset has its column index before, as one that has been there for some time does, and it is kept up meanwhile.

The floor is one bare UPDATE of the same rows with the same patch into a table with the same indexes, which locks all of
it to its end: without pieces, progress, merging, checks and a way to go on after a crash.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any

import duckdb
import httpx
import psycopg
import uvloop

from bench.ground import Ground, installed, make_dataset, say, temporary_folder
from bench.listing_server import FOLDER_OBJECTS, listing_server
from bench.made_items import fill, made
from bench.processes import Processors, api, worker
from bench.query import wait_for_columns
from bench.report import Figure
from headwater.ids import to_wire

ITEMS = 1_000_000
_MOST_S = 60
_LONGEST_READ_S = 0.5  # at the 99th percentile, on two cores that three programs share
_PATCH = {"reviewedBy": "somebody", "weather": {"kind": "unknown"}, "note": None}
_BARE_PATCH = '{"reviewedBy": "somebody"}'
_READ_EVERY_S = 0.02
_LOOK_EVERY_S = 0.2
_GIVE_UP_S = 600


@dataclass(slots=True)
class _Reads:
    page_s: list[float] = field(default_factory=list[float])
    item_s: list[float] = field(default_factory=list[float])


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, listing_server(ITEMS) as server, installed(folder) as ground, made(ITEMS) as db:
        _as_listed(db)
        dataset = uvloop.run(make_dataset(ground, server, "endless"))
        fill(ground, db, dataset)
        floor_s = _time_floor(ground, dataset.id)
        with worker(ground) as worker_pid, api(ground) as served:
            wait_for_columns(ground, dataset.id, worker_pid)
            url = f"http://127.0.0.1:{served.port}/api/v1"
            headers = {"authorization": f"Bearer {served.token}"}
            with httpx.Client(base_url=url, headers=headers, timeout=_GIVE_UP_S) as client:
                yield from _measure(ground, client, to_wire(dataset.id), floor_s, api=served.pid, worker=worker_pid)


def _as_listed(db: duckdb.DuckDBPyConnection) -> None:
    """The items are the objects of the listing."""
    db.execute(
        """
        UPDATE made
        SET folder = n // $folder, dir = '/part-' || lpad((n // $folder)::VARCHAR, 6, '0'),
            filename = '/part-' || lpad((n // $folder)::VARCHAR, 6, '0') || '/image-'
                || lpad((n % $folder)::VARCHAR, 3, '0') || '.jpg',
            etag = lpad(lower(to_hex(n % $folder)), 26, '0') || lpad((n // $folder)::VARCHAR, 6, '0'),
            size = 100000 + n % $folder, mimetype = 'image/jpeg', etl_state = 1
        """,
        {"folder": FOLDER_OBJECTS},
    )


def _measure(ground: Ground, client: httpx.Client, dataset_id: str, floor_s: float, **ours: int) -> Iterator[Figure]:
    alone = _read_for(client, dataset_id, seconds=5)
    syncs = [_sync(client, dataset_id)]
    reads, is_over = _Reads(), threading.Event()
    reader = threading.Thread(target=_read, args=(client, dataset_id, reads, is_over))
    reader.start()
    say(f"metadata: changing {ITEMS:,} items")
    began, processors = time.perf_counter(), Processors(ground, **ours)
    query = {"filter": {"$and": [{"hidden": False}, {"type": "file"}]}, "update": {"metadata": {"user": _PATCH}}}
    command = _got(client.post(f"/datasets/{dataset_id}/query", json=query))
    while (command := _command(client, command["id"]))["status"] in ("created", "in-progress"):
        if _command(client, syncs[-1])["status"] == "success":
            syncs.append(_sync(client, dataset_id))
        processors.look()
        time.sleep(_LOOK_EVERY_S)
    took_s = time.perf_counter() - began
    cpu_s = processors.used_s()
    is_over.set()
    reader.join()
    assert command["status"] == "success", command
    statuses = [_wait(client, sync)["status"] for sync in syncs]
    assert set(statuses) == {"success"}, statuses
    _check(ground, int(dataset_id, 16))
    say(f"metadata: {ITEMS:,} items took {took_s:.1f} s beside {len(syncs)} syncs; a bare UPDATE {floor_s:.1f} s")
    yield Figure(
        "metadata.update",
        value=ITEMS / took_s,
        floor=ITEMS / floor_s,
        unit="items/s",
        target=0.3,
        must_hold=took_s <= _MOST_S,
        details={
            "took_s": took_s,
            "most_s": _MOST_S,
            "floor_s": floor_s,
            "syncs": len(syncs),
            "cpu_s": cpu_s,
        },
    )
    waits = {name: _percentiles(of) for name, of in (("page", reads.page_s), ("item", reads.item_s))}
    yield Figure(
        "metadata.readers",
        value=max(one["p99_s"] for one in waits.values()),
        floor=_LONGEST_READ_S,
        unit="s, 99th percentile of reads meanwhile",
        target=1,
        is_limit=True,
        details={
            "meanwhile": waits,
            "before": {"page": _percentiles(alone.page_s), "item": _percentiles(alone.item_s)},
        },
    )


def _got(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


def _sync(client: httpx.Client, dataset_id: str) -> str:
    return _got(client.post(f"/datasets/{dataset_id}/sync", json={}))["id"]


def _command(client: httpx.Client, command_id: str) -> dict[str, Any]:
    return _got(client.get(f"/commands/{command_id}"))


def _wait(client: httpx.Client, command_id: str) -> dict[str, Any]:
    until = time.monotonic() + _GIVE_UP_S
    while (command := _command(client, command_id))["status"] in ("created", "in-progress"):
        assert time.monotonic() < until, command
        time.sleep(_LOOK_EVERY_S)
    return command


def _read_for(client: httpx.Client, dataset_id: str, *, seconds: float) -> _Reads:
    reads, is_over = _Reads(), threading.Event()
    reader = threading.Thread(target=_read, args=(client, dataset_id, reads, is_over))
    reader.start()
    is_over.wait(seconds)
    is_over.set()
    reader.join()
    return reads


def _read(client: httpx.Client, dataset_id: str, reads: _Reads, is_over: threading.Event) -> None:
    """Pages of the default filter and single items, as somebody who browses asks for them."""
    page = {"filter": {"$and": [{"hidden": False}, {"type": "file"}]}, "sort": {"id": "descending"}, "pageSize": 50}
    number = 0
    while not is_over.is_set():
        began = time.perf_counter()
        found = _got(client.post(f"/datasets/{dataset_id}/query", json=page | {"page": number % 100}))
        reads.page_s.append(time.perf_counter() - began)
        assert (len(found["items"]), found["totalItemsCount"]) == (50, ITEMS), found["totalItemsCount"]
        began = time.perf_counter()
        _got(client.get(f"/items/{found['items'][number % 50]['id']}"))
        reads.item_s.append(time.perf_counter() - began)
        number += 1
        is_over.wait(_READ_EVERY_S)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100)
    return {"count": len(seconds), "p50_s": cuts[49], "p95_s": cuts[94], "p99_s": cuts[98], "longest_s": max(seconds)}


def _check(ground: Ground, dataset_id: int) -> None:
    """Every item has the patch, and what the patch does not name; the syncs found all as it was."""
    with psycopg.connect(ground.database_url) as conn:
        row = conn.execute(
            """
            SELECT count(*)
            FROM item
            WHERE dataset_id = %s AND user_metadata ->> 'reviewedBy' = 'somebody' AND NOT user_metadata ? 'note'
                AND user_metadata #>> '{weather,kind}' = 'unknown' AND user_metadata ? 'external'
            """,
            [dataset_id],
        ).fetchone()
        scans = conn.execute("SELECT state, listed, changed FROM scan WHERE dataset_id = %s", [dataset_id]).fetchall()
    assert row == (ITEMS,), f"{row} of {ITEMS:,} items were changed"
    assert set(scans) == {("done", ITEMS, 0)}, f"syncs that should have compared all and changed nothing: {scans}"


def _time_floor(ground: Ground, dataset_id: int) -> float:
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        conn.execute("CREATE TABLE floor (LIKE item INCLUDING ALL)")
        conn.execute("INSERT INTO floor SELECT * FROM item WHERE dataset_id = %s", [dataset_id])
        conn.execute("VACUUM ANALYZE floor")
        conn.execute("CHECKPOINT")
        began = time.perf_counter()
        conn.execute(
            "UPDATE floor SET user_metadata = user_metadata || %s::jsonb, updated_at = now() WHERE dataset_id = %s",
            [_BARE_PATCH, dataset_id],
        )
        took_s = time.perf_counter() - began
        conn.execute("DROP TABLE floor")
        conn.execute("CHECKPOINT")
    return took_s


if __name__ == "__main__":
    for figure in measure():
        print(figure.line())
