"""Random filters over many items, with one to five conditions and a sort, over HTTP: pages, totals, deep pages.

Every answer is a page of 50 items together with the exact total, as the SDK asks; the API and the worker run as
`headwater serve` starts them, and the worker has built the column index by itself. What is answered is compared with
DuckDB's answer over the columns that the items were made of: all of it, or a sample where that takes long. How long
DuckDB needs, with the columns in its own format and no permission, row or JSON to read, is told beside each figure.
"""

import http.client
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import duckdb
import psycopg
import uvloop

from bench.filters import Query, random_queries
from bench.ground import Ground, installed, say, temporary_folder
from bench.made_items import fill, made, own_dataset
from bench.processes import Api, Processors, api, worker
from bench.report import Figure
from headwater.catalog.items import SELECT_ITEM
from headwater.ids import to_wire

_PAGE_ITEMS, _LIST_ITEMS = 50, 1_000
_BUILT_WITHIN_S = 1_800
_KEY_ROUNDS = 100
_LIST_MS = 25
_IDLE_S = 2
_STOPPED = 408
_TOUCHED_MS = 500
_TOUCHED_ITEMS = 10_000


@dataclass(frozen=True, slots=True)
class _Size:
    name: str
    items: int
    queries: int
    checked: int  # of the queries of each figure
    page_ms: float  # at the 95th percentile, as all limits here
    star_ms: float  # with patterns that begin with a star
    count_ms: float
    far_page: int = 10_000


_DEFAULT = _Size("query", 1_000_000, queries=300, checked=300, page_ms=50, star_ms=1_000, count_ms=500)
_LONG = _Size("query_long", 10_000_000, queries=200, checked=60, page_ms=150, star_ms=1_000, count_ms=500)


@dataclass(frozen=True, slots=True)
class _Answer:
    query: Query
    took_ms: float
    total: int
    ids: list[int]
    page: int
    page_size: int

    @property
    def expected(self) -> int:
        """How many items the page has to have."""
        return max(0, min(self.page_size, self.total - self.page * self.page_size))


class Client:
    """One keep-alive connection to the API."""

    def __init__(self, served: Api, dataset_id: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=600)
        self._path = f"/api/v1/datasets/{to_wire(dataset_id)}/query"
        self._headers = {"authorization": f"Bearer {served.token}", "content-type": "application/json"}
        self._asked_at = time.monotonic()

    def ask(self, body: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Milliseconds to the last byte, and the answer; one that counts -1 items was stopped because it took long."""
        text = json.dumps(body)
        if time.monotonic() > self._asked_at + _IDLE_S:
            self._connection.close()  # as the server has done by now; the next request opens it again
            self._connection.connect()
        began = time.perf_counter()
        self._connection.request("POST", self._path, text, self._headers)
        answer = self._connection.getresponse()
        content = answer.read()
        took_ms = (time.perf_counter() - began) * 1_000
        self._asked_at = time.monotonic()
        if answer.status == _STOPPED:
            return took_ms, {"totalItemsCount": -1, "items": [], "hasNextPage": False}
        assert answer.status == 200, f"{answer.status} {content[:500]!r} to {text}"
        return took_ms, json.loads(content)

    def query(self, query: Query, *, page: int = 0, page_size: int = _PAGE_ITEMS) -> _Answer:
        took_ms, found = self.ask(query.body(page=page, page_size=page_size))
        ids = [int(item["id"], 16) for item in found["items"]]
        return _Answer(query, took_ms, found["totalItemsCount"], ids, page, page_size)


def measure() -> Iterator[Figure]:
    yield from _measure(_DEFAULT)


def measure_long() -> Iterator[Figure]:
    yield from _measure(_LONG)


def _measure(size: _Size) -> Iterator[Figure]:
    with temporary_folder() as folder, made(size.items, folder / "made.duckdb") as db, installed(folder) as ground:
        dataset = uvloop.run(own_dataset(ground, "bench"))
        fill(ground, db, dataset)
        with worker(ground) as worker_pid, api(ground) as served:
            built = wait_for_columns(ground, dataset.id, worker_pid)
            client = Client(served, dataset.id)
            for query in random_queries(db, size.queries // 2, seed=1):
                client.query(query)
            by_key_ms = _time_keys(ground, dataset.id, size.items)
            yield from _pages(size, client, db, {"rows_by_key_p50_ms": by_key_ms, "columns": built})
            yield _counts(size, client, db)
            yield _far_pages(size, client, db)
            yield _list(size, client, ground, served, min(size.items, 1_000_000))
            yield _touched(size, client, db)


def wait_for_columns(ground: Ground, dataset_id: int, worker_pid: int) -> dict[str, Any]:
    """Until the worker has built the column index; what that took and came to."""
    say("waiting for the column index")
    began, processors = time.monotonic(), Processors(ground, worker=worker_pid)
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        while not _is_built(conn, dataset_id):
            assert time.monotonic() < began + _BUILT_WITHIN_S, "the column index is not built"
            processors.look()
            time.sleep(0.2)
        took_s = time.monotonic() - began
        row = conn.execute(
            """
            SELECT count(*), coalesce(sum(octet_length(data)), 0)::bigint
            FROM column_chunk
            WHERE dataset_id = %s
            """,
            [dataset_id],
        ).fetchone()
    assert row is not None
    say(f"the column index took {took_s:.0f} s")
    status = Path(f"/proc/{worker_pid}/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    return {
        "took_s": took_s,
        "cpu_s": processors.used_s(),
        "chunks": row[0],
        "bytes": row[1],
        "worker_peak_mib": peak_kib / 1024,
    }


def _is_built(conn: psycopg.Connection[Any], dataset_id: int) -> bool:
    row = conn.execute(
        """
        SELECT
            EXISTS (SELECT FROM column_index WHERE dataset_id = %(dataset)s AND ready_at IS NOT NULL)
            AND EXISTS (SELECT FROM column_segment WHERE dataset_id = %(dataset)s)
            AND NOT EXISTS (SELECT FROM column_touched WHERE dataset_id = %(dataset)s)
        """,
        {"dataset": dataset_id},
    ).fetchone()
    return row is not None and row[0]


def _time_keys(ground: Ground, dataset_id: int, items: int) -> float:
    """Milliseconds that PostgreSQL needs for the rows of one page, whose ids are known: the floor of every page."""
    numbers = random.Random(0)
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        row = conn.execute("SELECT min(id) FROM item WHERE dataset_id = %s", [dataset_id]).fetchone()
        assert row is not None
        times_ms = []
        for _ in range(_KEY_ROUNDS):
            ids = [row[0] + numbers.randrange(items) for _ in range(_PAGE_ITEMS)]
            began = time.perf_counter()
            conn.execute(SELECT_ITEM + "WHERE item.dataset_id = %s AND item.id = ANY(%s)", [dataset_id, ids]).fetchall()
            times_ms.append((time.perf_counter() - began) * 1_000)
    return median(times_ms)


def _pages(size: _Size, client: Client, db: duckdb.DuckDBPyConnection, details: dict[str, Any]) -> Iterator[Figure]:
    answers = [client.query(query) for query in random_queries(db, size.queries, seed=2)]
    starred = [query for query in random_queries(db, size.queries * 5, seed=3) if query.leads_with_star]
    with_star = [client.query(query) for query in starred[: size.queries // 3]]
    without = [answer for answer in answers if not answer.query.leads_with_star]
    with_star += [answer for answer in answers if answer.query.leads_with_star]
    yield _figure(f"{size.name}.page", without, size.page_ms, _check(db, without, size.checked), **details)
    yield _figure(f"{size.name}.star", with_star, size.star_ms, _check(db, with_star, size.checked // 3))


def _counts(size: _Size, client: Client, db: duckdb.DuckDBPyConnection) -> Figure:
    queries = [query for query in random_queries(db, size.queries, seed=4) if not query.leads_with_star]
    answers = [client.query(query, page_size=0) for query in queries]
    return _figure(f"{size.name}.count", answers, size.count_ms, _check(db, answers, size.checked))


def _far_pages(size: _Size, client: Client, db: duckdb.DuckDBPyConnection) -> Figure:
    """A page far behind of the queries that have one, and the first page, each asked for after the other."""
    near: list[_Answer] = []
    far: list[_Answer] = []
    for query in random_queries(db, size.queries * 2, seed=5):
        if query.leads_with_star or len(far) == size.queries // 4:
            continue
        first = client.query(query)
        if first.total >= (size.far_page + 1) * _PAGE_ITEMS:
            far.append(client.query(query, page=size.far_page))
            near.append(client.query(query))
    found = _check(db, far, size.checked // 3)
    return Figure(
        f"{size.name}.far",
        value=median(one.took_ms for one in far),
        floor=median(one.took_ms for one in near),
        unit=f"ms, median of pages {size.far_page:,}, against first pages of the same queries",
        target=1.5,
        is_limit=True,
        must_hold=not found["wrong"],
        details={
            "far": percentiles([one.took_ms for one in far]),
            "near": percentiles([one.took_ms for one in near]),
            "by_sort": _by_sort(near, far),
            **found,
        },
    )


def _by_sort(near: Sequence[_Answer], far: Sequence[_Answer]) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds of each pair of pages, by what they are sorted by."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for first, late in zip(near, far, strict=True):
        pairs.setdefault(first.query.sort[0], []).append((first.took_ms, late.took_ms))
    return pairs


def _touched(size: _Size, client: Client, db: duckdb.DuckDBPyConnection) -> Figure:
    """Right after 10,000 scattered items were changed, before any column is built anew."""
    change = {"metadata": {"user": {"battery": 7, "site": "site-changed", "note": None}}}
    below = _TOUCHED_ITEMS * 1_000_000 // size.items  # of a million frames
    took_ms, command = client.ask(
        {"filter": {"metadata.user.frame": {"$lt": below}}, "update": change, "resource": "items"}
    )
    assert command["status"] == "success", command
    db.execute(f"UPDATE made SET battery = 7, site = 'site-changed', note = NULL WHERE frame < {below}")
    queries = [
        query
        for query in random_queries(db, size.queries // 2, seed=6)
        if not query.leads_with_star and "updated" not in query.where  # which the change has set, too
    ]
    answers = [client.query(query) for query in queries]
    return _figure(
        f"{size.name}.touched",
        answers,
        _TOUCHED_MS,
        _check(db, answers, size.checked // 3),
        update_ms=took_ms,
        changed=command["spec"]["update"]["changed"],
    )


def _list(size: _Size, client: Client, ground: Ground, served: Api, items: int) -> Figure:
    """`items.list()` to its end: 1,000 items a page, each page asked for by the last id before it."""
    say(f"listing {items:,} items in pages of {_LIST_ITEMS:,}")
    processors = Processors(ground, api=served.pid)
    after, has_next, times_ms, ids = None, True, [], set[str]()
    while has_next and len(times_ms) < items // _LIST_ITEMS:
        conditions: list[dict[str, Any]] = [{"hidden": False}, {"type": "file"}]
        if after is not None:
            conditions.append({"id": {"$gt": after}})
        body = {"filter": {"$and": conditions}, "sort": {"id": "ascending"}, "page": 0, "pageSize": _LIST_ITEMS}
        took_ms, found = client.ask(body)
        # Of the whole list or of what is left of it: the SDK takes either.
        assert found["totalItemsCount"] in (size.items, size.items - len(ids)), (
            f"{found['totalItemsCount']}, {len(ids)}"
        )
        times_ms.append(took_ms)
        ids |= {item["id"] for item in found["items"]}
        after, has_next = found["items"][-1]["id"], found["hasNextPage"]
        processors.look()
    assert len(ids) == items, f"{len(ids):,} of {items:,} items were listed"
    used_s = processors.used_s()
    return Figure(
        f"{size.name}.list",
        value=mean(times_ms),
        floor=_LIST_MS,
        unit="ms a page of 1,000 items, to its last byte",
        target=1,
        is_limit=True,
        details={
            "pages": len(times_ms),
            "page": percentiles(times_ms),
            "cpu_ms": {kind: 1_000 * seconds / len(times_ms) for kind, seconds in used_s.items()},
        },
    )


def _figure(name: str, answers: Sequence[_Answer], limit_ms: float, found: dict[str, Any], **details: Any) -> Figure:
    times = percentiles([answer.took_ms for answer in answers])
    slowest = sorted(answers, key=lambda answer: -answer.took_ms)[:10]
    say(f"{name}: {times}; {len(found['wrong'])} of {found['checked']} wrong")
    return Figure(
        name,
        value=times["p95_ms"],
        floor=limit_ms,
        unit="ms at the 95th percentile",
        target=1,
        is_limit=True,
        must_hold=not found["wrong"],
        details={**times, **found, **details, "slowest": [_told(answer) for answer in slowest]},
    )


def _told(answer: _Answer) -> dict[str, Any]:
    body = answer.query.body()
    return {"ms": answer.took_ms, "total": answer.total, "filter": body["filter"]["$and"][2:], "sort": body["sort"]}


def percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    cuts = quantiles(times_ms, n=100)
    return {"count": len(times_ms), "p50_ms": cuts[49], "p95_ms": cuts[94], "p99_ms": cuts[98]}


def _check(db: duckdb.DuckDBPyConnection, answers: Sequence[_Answer], most: int) -> dict[str, Any]:
    """What DuckDB answers otherwise, and how long it needs, of so many of the answers."""
    wrong, times_ms = [], []
    chosen = random.Random(7).sample(answers, min(most, len(answers)))
    for answer in chosen:
        began = time.perf_counter()
        total, ids = by_duckdb(db, answer.query, page=answer.page, page_size=answer.page_size)
        times_ms.append((time.perf_counter() - began) * 1_000)
        if total != answer.total or ids != answer.ids or len(answer.ids) != answer.expected:
            wrong.append(_told(answer) | {"duckdb": total, "ids": answer.ids[:5], "duckdb_ids": ids[:5]})
    return {"checked": len(chosen), "wrong": wrong[:10], "duckdb": percentiles(times_ms)}


def by_duckdb(db: duckdb.DuckDBPyConnection, query: Query, *, page: int, page_size: int) -> tuple[int, list[int]]:
    (total,) = db.execute(f"SELECT count(*) FROM made WHERE {query.where}").fetchone() or (0,)
    if not page_size:
        return total, []
    rows = db.execute(
        f"SELECT id FROM made WHERE {query.where} ORDER BY {query.order} LIMIT $size OFFSET $skipped",
        {"size": page_size, "skipped": page * page_size},
    )
    return total, [number for (number,) in rows.fetchall()]
