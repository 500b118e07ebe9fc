"""100,000 annotations created over HTTP as the SDK creates them: batches of 100, several side by side; then read.

Two in three are boxes, the others polygons of 40 points. The API runs as `headwater serve` starts it, on the same
machine as its callers. The floor is the same rows written by one `COPY` into the same table, in one transaction:
without HTTP, JSON of the SDK, its check, rights, counts of items and datasets, and a commit for each batch. What the
table takes in one bare `INSERT` a batch, each committed, is told as well.
"""

import http.client
import json
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median, quantiles
from typing import Any

import psycopg
import uvloop

from bench.ground import Ground, installed, say, temporary_folder
from bench.made_items import own_dataset
from bench.processes import Api, api
from bench.report import Figure
from headwater.ids import to_wire

ANNOTATIONS, BATCH, ITEMS = 100_000, 100, 2_000
_CALLERS = 4  # of the SDK's threads
_LEAST_PER_S = 5_000
_READS = 200
_PAGE = 1_000
_MOST_PAGE_MS = 25
_COLUMNS = (
    "dataset_id, item_id, creator_id, updated_by_id, type, label, source, coordinates, attributes, system_metadata"
)


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, installed(folder) as ground, api(ground) as served:
        dataset_id, item_ids = uvloop.run(_fill(ground))
        made = _made()
        floor = [_copy(ground, dataset_id + 1_000_000, item_ids, made)]
        inserted = _insert(ground, dataset_id + 2_000_000, item_ids, made)
        took_s, batch_ms = _create(served, item_ids, made)
        floor.append(_copy(ground, dataset_id + 3_000_000, item_ids, made))
        page_ms = _read(ground, served, dataset_id, item_ids[0], made)
    per_s = ANNOTATIONS / took_s
    say(f"annotations: {per_s:,.0f}/s; one COPY {max(floor):,.0f}/s, an INSERT a batch {inserted:,.0f}/s")
    yield Figure(
        "annotations",
        value=per_s,
        floor=max(floor),
        unit="annotations/s",
        target=0.05,
        must_hold=per_s >= _LEAST_PER_S,
        details={
            "took_s": took_s,
            "least_per_s": _LEAST_PER_S,
            "batch_ms": {"median": median(batch_ms), "p95": quantiles(batch_ms, n=20)[-1]},
            "insert_a_batch_per_s": inserted,
        },
    )
    yield Figure(
        "annotations.page",
        value=quantiles(page_ms, n=20)[-1],
        floor=_MOST_PAGE_MS,
        unit="ms",
        target=1,
        is_limit=True,
        details={"annotations": _PAGE, "median_ms": median(page_ms)},
    )


async def _fill(ground: Ground) -> tuple[int, list[int]]:
    dataset = await own_dataset(ground, "annotations")
    async with await psycopg.AsyncConnection.connect(ground.database_url) as conn:
        cursor = await conn.execute(
            """
            WITH root AS (
                INSERT INTO folder (dataset_id, path) VALUES (%(dataset_id)s, '/') RETURNING id
            )
            INSERT INTO item (dataset_id, folder_id, path, object_key, size_bytes, etag, mime_type, user_metadata)
            SELECT %(dataset_id)s, root.id, '/' || n || '.jpg', n::text, n, n::text, 'image/jpeg', '{"camera": 3}'
            FROM root, generate_series(1, %(items)s) AS n
            RETURNING id
            """,
            {"dataset_id": dataset.id, "items": ITEMS},
        )
        return dataset.id, [item_id for (item_id,) in await cursor.fetchall()]


def _made() -> list[list[dict[str, Any]]]:
    """Batches, as the SDK sends them."""
    numbers = random.Random(11)

    def one() -> dict[str, Any]:
        facts: dict[str, Any] = {
            "id": None, "url": None, "creator": None, "createdAt": None, "updatedBy": None, "updatedAt": None,
            "metadata": {"system": {"automated": True, "attributes": {"1": "front"}}, "user": {}}, "hash": None,
            "label": f"label {numbers.randrange(20)}", "source": "sdk", "attributes": None,
        }  # fmt: skip
        if numbers.random() < 1 / 3:
            ring = [{"x": numbers.uniform(0, 1920), "y": numbers.uniform(0, 1080)} for _ in range(40)]
            return facts | {"type": "segment", "coordinates": [ring]}
        corners = [{"x": numbers.uniform(0, 1920), "y": numbers.uniform(0, 1080), "z": 0} for _ in range(2)]
        return facts | {"type": "box", "coordinates": corners}

    return [[one() for _ in range(BATCH)] for _ in range(ANNOTATIONS // BATCH)]


def _rows(dataset_id: int, item_id: int, batch: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (
            dataset_id, item_id, 1, 1, one["type"], one["label"], one["source"], json.dumps(one["coordinates"]), None,
            json.dumps(one["metadata"]["system"]),
        )
        for one in batch
    ]  # fmt: skip


def _copy(ground: Ground, dataset_id: int, item_ids: list[int], made: list[list[dict[str, Any]]]) -> float:
    """Annotations per second, in one COPY."""
    rows = [row for number, batch in enumerate(made) for row in _rows(dataset_id, item_ids[number % ITEMS], batch)]
    with psycopg.connect(ground.database_url) as conn:
        began = time.perf_counter()
        with conn.cursor().copy(f"COPY annotation ({_COLUMNS}) FROM STDIN") as copy:  # pyright: ignore[reportArgumentType]
            for row in rows:
                copy.write_row(row)
        conn.commit()
        return ANNOTATIONS / (time.perf_counter() - began)


def _insert(ground: Ground, dataset_id: int, item_ids: list[int], made: list[list[dict[str, Any]]]) -> float:
    """Annotations per second, in one INSERT and one commit a batch, by as many connections as callers."""
    batches = [_rows(dataset_id, item_ids[number % ITEMS], batch) for number, batch in enumerate(made)]
    statement = f"""
        INSERT INTO annotation ({_COLUMNS})
        SELECT * FROM unnest(
            %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::jsonb[],
            %s::jsonb[], %s::jsonb[]
        )
    """

    def work(caller: int) -> None:
        with psycopg.connect(ground.database_url) as conn:
            for batch in batches[caller::_CALLERS]:
                conn.execute(statement, [list(column) for column in zip(*batch, strict=True)])  # pyright: ignore[reportArgumentType]
                conn.commit()

    began = time.perf_counter()
    with ThreadPoolExecutor(_CALLERS) as pool:
        list(pool.map(work, range(_CALLERS)))
    return ANNOTATIONS / (time.perf_counter() - began)


def _create(served: Api, item_ids: list[int], made: list[list[dict[str, Any]]]) -> tuple[float, list[float]]:
    """Seconds for all, and milliseconds for each batch. The bodies are written beforehand."""
    headers = {"authorization": f"Bearer {served.token}", "content-type": "application/json"}
    bodies = [json.dumps(batch) for batch in made]

    def work(caller: int) -> list[float]:
        connection = http.client.HTTPConnection("127.0.0.1", served.port)
        took_ms: list[float] = []
        for number in range(caller, len(bodies), _CALLERS):
            began = time.perf_counter()
            path = f"/api/v1/items/{to_wire(item_ids[number % ITEMS])}/annotations"
            connection.request("POST", path, bodies[number], headers)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status == 200, body[:500]
            took_ms.append((time.perf_counter() - began) * 1_000)
        connection.close()
        return took_ms

    began = time.perf_counter()
    with ThreadPoolExecutor(_CALLERS) as pool:
        took_ms = [one for part in pool.map(work, range(_CALLERS)) for one in part]
    return time.perf_counter() - began, took_ms


def _read(ground: Ground, served: Api, dataset_id: int, item_id: int, made: list[list[dict[str, Any]]]) -> list[float]:
    """Milliseconds for each page of 1,000 annotations of one item, as the SDK lists them."""
    headers = {"authorization": f"Bearer {served.token}", "content-type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", served.port)

    def ask(method: str, path: str, body: object) -> dict[str, Any]:
        connection.request(method, path, json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text[:500]
        return json.loads(text)

    with psycopg.connect(ground.database_url) as conn:
        cursor = conn.execute("SELECT annotations_count FROM item WHERE id = %s", [item_id])
        there = (cursor.fetchone() or (0,))[0]
    for number in range(_PAGE // BATCH - there // BATCH):
        ask("POST", f"/api/v1/items/{to_wire(item_id)}/annotations", made[number])
    types = ["box", "segment", "class", "point", "polyline", "ellipse", "binary"]
    conditions = [{"type": {"$in": types}}, {"itemId": to_wire(item_id)}]
    query = {"filter": {"$and": conditions}, "page": 0, "pageSize": _PAGE, "resource": "annotations"}
    took_ms: list[float] = []
    for _ in range(_READS):
        began = time.perf_counter()
        page = ask("POST", f"/api/v1/datasets/{to_wire(dataset_id)}/query", query)
        took_ms.append((time.perf_counter() - began) * 1_000)
        assert len(page["items"]) == _PAGE, page["totalItemsCount"]
    connection.close()
    return took_ms
