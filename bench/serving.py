"""Thumbnails and streams by the API of `headwater serve`, each asked for with its rights, over 50 connections.

In a bucket both are redirects to signed URLs; in our own storage they are bytes. The floor is a bare application on the
same server, which answers the same status and as many bytes without asking anything. The client of both is ours, and
takes its share of the same processors.
"""

import asyncio
import os
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import httpx
import psutil
import uvloop
from psycopg import AsyncConnection

from bench.bucket import make_bucket
from bench.ground import Ground, installed, make_dataset, say, temporary_folder
from bench.load import Expected, Tally, load
from bench.processes import answering, child, listening, owner_token
from bench.report import Figure
from headwater import children
from headwater.catalog import datasets, items, organizations, projects
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Written
from headwater.ids import to_wire
from headwater.work.places import Places
from headwater.work.preprocess import thumbnail_key
from headwater.workplace import open_workplace
from tests.servers import S3Server, seaweedfs

ITEMS = 400
REQUESTS = 6_000
_ROUNDS = 3
_CONNECTIONS = 50
_STREAM_BYTES = 100_000
_THUMBNAIL_BYTES = 10_000
_TARGET_S = 3_000  # requests, the client included, on two cores that do nothing else
_TARGET_RATIO = 0.1
_LOCATION_BYTES = 420  # of a floor's redirect: about what a signed URL has
_BUCKET = "bench"


@dataclass(frozen=True, slots=True)
class _Case:
    figure: str
    dataset: Dataset
    paths: list[str]
    expected: Expected

    @property
    def where(self) -> str:
        return "bucket" if self.expected.status == 302 else "own"


def measure() -> Iterator[Figure]:
    with (
        temporary_folder() as folder,
        seaweedfs(folder / "seaweedfs") as server,
        installed(folder) as ground,
        listening() as (listener, port),
        child(children.run_api, os.getpid(), ground.settings, ground.database_url, listener) as api,
    ):
        yield from uvloop.run(_measure(ground, server, port, api))


async def _measure(ground: Ground, server: S3Server, port: int, api: int) -> list[Figure]:
    await make_bucket(server, _BUCKET)
    async with open_workplace(ground.settings, ground.database_url, name="bench", max_connections=4) as place:
        in_bucket = await make_dataset(ground, server, _BUCKET)
        own = await _own_dataset(ground)
        cases = []
        for dataset in (in_bucket, own):
            say(f"serving: {ITEMS:,} items for {dataset.name}")
            ids = await _fill(place.places, ground, dataset)
            cases += _cases(dataset, ids, server if dataset is in_bucket else None)
        token = await owner_token(ground)
    await answering(port)
    results: dict[str, list[tuple[_Case, list[Tally], list[Tally]]]] = {}
    for case in cases:
        ours, bare = await _both(case, port, token)
        results.setdefault(case.figure, []).append((case, ours, bare))
    await _look(cases, port, token)
    memory = psutil.Process(api).memory_info().rss
    return [_figure(name, found, memory) for name, found in results.items()]


async def _own_dataset(ground: Ground) -> Dataset:
    async with await AsyncConnection.connect(ground.database_url) as conn:
        owner = await organizations.get_owner(conn)
        project = await projects.create_project(conn, owner, "own storage")
        return await datasets.create_dataset(conn, owner, project_id=project.id, driver_id=None, name="own")


async def _fill(places: Places, ground: Ground, dataset: Dataset) -> list[int]:
    """Objects, their rows and thumbnails, as uploads and preprocessing leave them."""
    content, thumbnail = random.Random(1).randbytes(_STREAM_BYTES), random.Random(2).randbytes(_THUMBNAIL_BYTES)
    slots = asyncio.Semaphore(16)

    async def write(store: Any, key: str, body: bytes) -> Any:
        async with slots:
            return await store.put(key, body, content_type="image/jpeg")

    async with places.of_dataset(dataset.id) as store:
        keys = [f"photo-{number:05d}.jpg" for number in range(ITEMS)]
        infos = await asyncio.gather(*[write(store, key, content) for key in keys])
        async with await AsyncConnection.connect(ground.database_url) as conn:
            ids: list[int] = []
            for key, info in zip(keys, infos, strict=True):
                written = Written(f"/{key}", key if dataset.driver_id is None else None, info.size_bytes, info.etag,
                                  None, "image/jpeg")  # fmt: skip
                item, _ = await items.put_item(conn, dataset.id, written, creator_id=None)
                ids.append(item.id)
            await conn.execute(
                "UPDATE item SET thumbnail_type = 'image/jpeg', etl_state = 1 WHERE dataset_id = %s", [dataset.id]
            )
            await conn.commit()
            await conn.set_autocommit(True)
            await conn.execute("ANALYZE")
        await asyncio.gather(*[write(store, thumbnail_key(number, "image/jpeg"), thumbnail) for number in ids])
    return ids


def _cases(dataset: Dataset, ids: list[int], server: S3Server | None) -> list[_Case]:
    cases = []
    for noun, size_bytes in (("thumbnail", _THUMBNAIL_BYTES), ("stream", _STREAM_BYTES)):
        expected = Expected(200, size_bytes)
        if server is not None:
            expected = Expected(302, 0, f"\nlocation: {server.endpoint}/{_BUCKET}/".encode())
        paths = [f"/api/v1/items/{to_wire(number)}/{noun}" for number in ids]
        cases.append(_Case(f"serving.{noun}s", dataset, paths, expected))
    return cases


async def _both(case: _Case, port: int, token: str) -> tuple[list[Tally], list[Tally]]:
    """Ours and the bare application take turns."""
    ours, bare = [], []
    with listening() as (listener, bare_port), child(_run_bare, case.expected, listener):
        await answering(bare_port)
        floor = Expected(case.expected.status, case.expected.size_bytes)
        for round_ in range(_ROUNDS + 1):
            asked = {"count": REQUESTS if round_ else ITEMS, "connections": _CONNECTIONS, "token": token}
            taken = [
                (ours, await load(port, case.paths, case.expected, **asked)),
                (bare, await load(bare_port, case.paths, floor, **asked)),
            ]
            for tallies, tally in taken if round_ else []:  # the first round only warms up
                tallies.append(tally)
        say(
            f"{case.figure} ({case.where}): {median(tally.requests_s for tally in ours):,.0f}/s, "
            f"bare {median(tally.requests_s for tally in bare):,.0f}/s"
        )
    return ours, bare


async def _look(cases: list[_Case], port: int, token: str) -> None:
    """That what is answered are the bytes: those of some redirects, too."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", follow_redirects=True) as client:
        for case in cases:
            size_bytes = _THUMBNAIL_BYTES if case.figure.endswith("thumbnails") else _STREAM_BYTES
            for path in case.paths[:3]:
                answer = await client.get(path, headers={"authorization": f"Bearer {token}"})
                assert (answer.status_code, len(answer.content)) == (200, size_bytes), answer


def _figure(name: str, found: list[tuple[_Case, list[Tally], list[Tally]]], memory_bytes: int) -> Figure:
    rates = {case.where: median(tally.requests_s for tally in ours) for case, ours, _ in found}
    floors = {case.where: median(tally.requests_s for tally in bare) for case, _, bare in found}
    latencies = {
        case.where: quantiles([latency for tally in ours for latency in tally.latencies_s], n=100)[98]
        for case, ours, _ in found
    }
    _, slowest, beside = min(found, key=lambda one: median(tally.requests_s for tally in one[1]))
    wrong = [tally.wrong for _, ours, bare in found for tally in (*ours, *bare) if tally.wrong]
    return Figure(
        name=name,
        value=median(tally.requests_s for tally in slowest),
        floor=median(tally.requests_s for tally in beside),
        unit="requests/s",
        target=_TARGET_RATIO,
        must_hold=not wrong and min(rates.values()) >= _TARGET_S,
        pairs=[ours.requests_s / bare.requests_s for ours, bare in zip(slowest, beside, strict=True)],
        details={
            "requests_s": rates,
            "bare_requests_s": floors,
            "latency_p99_s": latencies,
            "connections": _CONNECTIONS,
            "wrong": wrong,
            "api_bytes": memory_bytes,
        },
    )


def _run_bare(expected: Expected, listener: socket.socket) -> None:
    """Answers everything alike, on the server and with the options of `children.run_api`."""
    import uvicorn  # noqa: PLC0415

    body = b"x" * expected.size_bytes
    headers = [(b"content-length", str(len(body)).encode()), (b"content-type", b"image/jpeg")]
    if expected.status == 302:
        headers = [(b"content-length", b"0"), (b"location", b"http://" + b"x" * _LOCATION_BYTES)]

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        status = 200 if _scope["path"] == "/readyz" else expected.status
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(answer, log_level="warning", access_log=False, server_header=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    for figure in measure():
        print(figure.line())
