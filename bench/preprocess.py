"""Preprocessing of 300 photographs, from the event to the committed row, against a bare script on the same cores.

Ours runs in a worker as `headwater serve` starts it. The time begins when the items and their Created event are
committed, and ends when the dataset's counter says that all are prepared. Both sides are warm (processes started,
connections open) and take turns.
"""

import multiprocessing
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import psutil
import psycopg
import uvloop
from psycopg import AsyncConnection

from bench import bucket as buckets
from bench.bare import bare_script, fastest_library
from bench.ground import Ground, installed, make_dataset, say, temporary_folder
from bench.photos import make_photos
from bench.report import Figure
from headwater.children import run_worker
from headwater.work import sync
from tests.servers import S3Server, seaweedfs

PHOTOS = 300
_DISTINCT = 12
_ROUNDS = 3
_BUCKET = "bench"
_WARM, _FOLDER = "warm/", "photos/"
_LOOK_EVERY_S = 0.05
_GIVE_UP_AFTER_S = 600


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, seaweedfs(folder / "seaweedfs") as server, installed(folder) as ground:
        photos = make_photos(_DISTINCT)
        uvloop.run(_fill(server, photos))
        library, tried_ms = fastest_library(photos)
        keys = [f"{_FOLDER}photo-{number:04}.jpg" for number in range(PHOTOS)]
        with _worker(ground):
            took_s, decoders = _prepare(ground, server, _WARM, _DISTINCT)
            say(f"preprocess: the worker is warm ({decoders} decoders, {took_s[0]:.1f} s)")
            processes, threads, tries = _fastest_shape(server, library, keys)
            yield _measure(ground, server, keys, (library, processes, threads), {"ms": tried_ms, "shapes_per_s": tries})


async def _fill(server: S3Server, photos: list[bytes]) -> None:
    say(f"preprocess: putting {PHOTOS} photographs of {len(photos[0]) / 1e6:.1f} MB into SeaweedFS")
    await buckets.make_bucket(server, _BUCKET)
    store = buckets.open_store(server, _BUCKET)
    await buckets.fill(store, ((f"{_FOLDER}photo-{n:04}.jpg", photos[n % _DISTINCT]) for n in range(PHOTOS)))
    await buckets.fill(store, ((f"{_WARM}photo-{n:04}.jpg", photo) for n, photo in enumerate(photos)))


def _fastest_shape(server: S3Server, library: str, keys: list[str]) -> tuple[int, int, dict[str, float]]:
    """How many processes of how many threads, and what each shape did."""
    tries = {}
    for shape in ((2, 1), (2, 2), (3, 1), (1, 3), (2, 3)):
        with bare_script(server, _BUCKET, library=library, processes=shape[0], threads=shape[1]) as run:
            run(keys[:20])
            tries[shape] = max(80 / run(keys[:80]), 80 / run(keys[80:160]))
    processes, threads = max(tries, key=lambda shape: tries[shape])
    return processes, threads, {f"{shape[0]} x {shape[1]}": rate for shape, rate in tries.items()}


def _measure(
    ground: Ground, server: S3Server, keys: list[str], shape: tuple[str, int, int], tried: dict[str, object]
) -> Figure:
    library, processes, threads = shape
    floor_s, ours_s, all_s, pairs = [], [], [], []
    with bare_script(server, _BUCKET, library=library, processes=processes, threads=threads) as run:
        run(keys[:20])
        floor_s.append(run(keys))
        for _ in range(_ROUNDS):
            (took_s, whole_s), _decoders = _prepare(ground, server, _FOLDER, PHOTOS)
            ours_s.append(took_s)
            all_s.append(whole_s)
            floor_s.append(run(keys))
            pairs.append(sum(floor_s[-2:]) / 2 / took_s)
            say(f"preprocess: bare {floor_s[-1]:.2f} s, ours {took_s:.2f} s")
    return Figure(
        name="preprocess",
        value=PHOTOS * len(ours_s) / sum(ours_s),
        floor=PHOTOS * len(floor_s) / sum(floor_s),
        unit="photographs/s",
        target=0.8,
        pairs=pairs,
        details={
            "photographs": PHOTOS,
            "bare_script": f"{library}, {processes} processes x {threads} threads",
            "bare_s": floor_s,
            "ours_s": ours_s,
            "ours_from_request_s": all_s,
            "best_ratio": min(floor_s) / min(ours_s),
            "tried": tried,
        },
    )


@contextmanager
def _worker(ground: Ground) -> Generator[None]:
    """A child process, as the supervisor starts it."""
    child = multiprocessing.get_context("spawn").Process(
        target=run_worker, args=(os.getpid(), ground.settings, ground.database_url), name="worker"
    )
    child.start()
    try:
        yield
    finally:
        child.terminate()
        child.join(30)
        if child.is_alive():
            child.kill()


def _prepare(ground: Ground, server: S3Server, prefix: str, photos: int) -> tuple[tuple[float, float], int]:
    """Seconds since the items were committed and since their sync was requested; and how many decoders there are."""
    dataset = uvloop.run(make_dataset(ground, server, _BUCKET, prefix))
    uvloop.run(_request(ground, dataset))
    began = time.time()
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        while True:
            row = conn.execute(
                "SELECT prepared_items, failed_items FROM dataset_counter WHERE dataset_id = %s", [dataset.id]
            ).fetchone()
            now = time.time()
            assert row is not None
            if row[0] >= photos:
                break
            assert row[1] == 0, f"{row[1]} photographs failed"
            assert now - began < _GIVE_UP_AFTER_S, f"only {row[0]} of {photos} after {_GIVE_UP_AFTER_S} s"
            time.sleep(_LOOK_EVERY_S)
        # The merge's transaction began then: a little before its commit, to our disadvantage.
        found = conn.execute("SELECT max(created_at) FROM item WHERE dataset_id = %s", [dataset.id]).fetchone()
        assert found is not None
    decoders = [
        child for child in psutil.Process().children(recursive=True) if "headwater.media.decoder" in child.cmdline()
    ]
    return (now - found[0].timestamp(), now - began), len(decoders)


async def _request(ground: Ground, dataset) -> None:
    async with await AsyncConnection.connect(ground.database_url) as conn:
        await sync.request_sync(conn, dataset, caller_id=None)
