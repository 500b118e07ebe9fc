"""1,000 scattered changes of a dataset with 1,000,000 objects, seen by their events alone.

The index is filled by a sync of a bucket that exists only as its listing. Then the bucket's server has changed some
objects: it answers a HEAD for each. Deliveries of ten events go to the hook of the API, one after another; a worker's
loop applies them. What counts is the time from a delivery's 2xx to the commit after which the catalogue shows its
objects as they are now. The floor is the bare HEADs, as many at once as the worker makes.
"""

import asyncio
import random
import time
from collections.abc import Iterator
from statistics import quantiles
from urllib.parse import quote_plus

import aiohttp
import httpx
import uvloop
from fastapi import FastAPI

from bench.ground import Ground, installed, make_dataset, say, sync_jobs, sync_whole, temporary_folder
from bench.listing_server import changed_etag, key_of, listing_server
from bench.report import Figure
from headwater.app import create_app
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync import upstream
from headwater.work.upstream import follow_forever
from headwater.work.workplace import Workplace
from headwater.workplace import open_workplace
from tests.servers import S3Server

OBJECTS = 1_000_000
CHANGES = 1_000
_A_DELIVERY = 10
_ROUNDS = 3
_HEADS_AT_ONCE = 32  # as work/upstream.py has it
_BUCKET = "bench"
_SEEN_WITHIN_S = 60
_TARGET_S = 2.0
_TARGET_CALLS = 1.1


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, listing_server(OBJECTS) as server, installed(folder) as ground:
        yield from uvloop.run(_measure(ground, server))


async def _measure(ground: Ground, server: S3Server) -> list[Figure]:
    dataset = await make_dataset(ground, server, _BUCKET)
    async with open_workplace(ground.settings, ground.database_url, name="bench", max_connections=30) as place:
        async with sync_jobs(place):
            say(f"events: syncing {OBJECTS:,} objects")
            await sync_whole(place, dataset, expected=OBJECTS)
        async with place.pool.connection() as conn:
            await upstream.switch(conn, dataset.driver_id or 0, on=True)
        app = create_app(ground.settings, ground.database_url)
        following = asyncio.create_task(follow_forever(place))
        seen_s: list[float] = []
        heads_s: list[float] = []
        try:
            async with app.router.lifespan_context(app):
                for round_ in range(_ROUNDS):
                    numbers = random.Random(round_).sample(range(OBJECTS), CHANGES)
                    heads_s.append(await _bare_heads(server, numbers))
                    seen_s += await _round(app, place, dataset, numbers, round_)
                    say(f"events: bare HEADs {heads_s[-1]:.2f} s, the last seen after {max(seen_s[-CHANGES:]):.2f} s")
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        async with place.pool.connection() as conn:
            known = await upstream.load_events(conn, dataset.driver_id or 0)
    return _figures(seen_s, heads_s, known.looked_at / (CHANGES * _ROUNDS))


async def _bare_heads(server: S3Server, numbers: list[int]) -> float:
    began = time.perf_counter()
    waiting = iter(numbers)
    async with aiohttp.ClientSession(server.endpoint) as client:

        async def look() -> None:
            for number in waiting:
                async with client.head(f"/{_BUCKET}/{key_of(number)}") as answer:
                    assert answer.status == 200

        await asyncio.gather(*[look() for _ in range(_HEADS_AT_ONCE)])
    return time.perf_counter() - began


async def _round(app: FastAPI, place: Workplace, dataset: Dataset, numbers: list[int], round_: int) -> list[float]:
    """Seconds from the 2xx of each change's delivery to its being visible."""
    told: dict[str, float] = {}
    watching = asyncio.create_task(_watch(place, dataset, [f"/{key_of(number)}" for number in numbers]))
    transport = httpx.ASGITransport(app=app)
    server = app.state.server
    hook = f"/api/v1/hooks/{dataset.driver_id:024x}/{server.signer.hook_secret(dataset.driver_id, 1)}"
    async with httpx.AsyncClient(transport=transport, base_url="http://headwater.test") as client:
        for start in range(0, len(numbers), _A_DELIVERY):
            some = [key_of(number) for number in numbers[start : start + _A_DELIVERY]]
            answer = await client.post(hook, json=_events(some, round_))
            assert answer.status_code == 200, answer.text
            told |= dict.fromkeys((f"/{key}" for key in some), time.perf_counter())
    seen = await watching
    return [max(0.0, seen[path] - told[path]) for path in told]


def _events(keys: list[str], round_: int) -> dict[str, object]:
    """As S3 sends them."""
    return {
        "Records": [
            {
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "bucket": {"name": _BUCKET},
                    "object": {
                        "key": quote_plus(key, safe="/"),
                        "size": 1,
                        "eTag": f"{round_:032x}",
                        "sequencer": f"{time.time_ns():x}",
                    },
                },
            }
            for key in keys
        ]
    }


async def _watch(place: Workplace, dataset: Dataset, paths: list[str]) -> dict[str, float]:
    """When the catalogue first had each of them with its new content."""
    seen: dict[str, float] = {}
    waiting = set(paths)
    async with asyncio.timeout(_SEEN_WITHIN_S), place.pool.connection() as conn:
        await conn.set_autocommit(True)
        try:
            while waiting:
                cursor = await conn.execute(
                    "SELECT path FROM item WHERE dataset_id = %s AND path = ANY(%s) AND etag = %s",
                    [dataset.id, list(waiting), changed_etag()],
                )
                now = time.perf_counter()
                fresh = {path for (path,) in await cursor.fetchall()}
                seen |= dict.fromkeys(fresh, now)
                waiting -= fresh
                await asyncio.sleep(0.01)
        finally:
            await conn.set_autocommit(False)
    return seen


def _figures(seen_s: list[float], heads_s: list[float], calls: float) -> list[Figure]:
    p99_s = quantiles(seen_s, n=100)[98]
    common = {"objects": OBJECTS, "changes": CHANGES, "rounds": _ROUNDS, "bare_heads_s": heads_s}
    return [
        Figure(
            name="events.seen",
            value=p99_s,
            floor=_TARGET_S,  # the limit
            unit="s",
            target=1.0,
            is_limit=True,
            details=common | {"median_s": quantiles(seen_s, n=100)[49], "max_s": max(seen_s)},
        ),
        Figure(
            name="events.calls",
            value=calls,
            floor=1.0,  # one look a change
            unit="store calls a change",
            target=_TARGET_CALLS,
            is_limit=True,
            details=common,
        ),
    ]
