"""Memory and steadiness of the sync of 1,000,000 objects from a server that makes its listing up as it goes.

The sync runs in a child process, as in a worker; every process of the embedded PostgreSQL is watched with it. What
counts is VmHWM, the peak of resident memory as the kernel keeps it, shared memory included.
"""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import psycopg
import uvloop

from bench import bucket as buckets
from bench.ground import Ground, check_scan, installed, make_dataset, request_scan, say, temporary_folder
from bench.listing_server import listing_server
from bench.report import Figure
from headwater.catalog.datasets import Dataset
from headwater.work.sync import run_scan
from headwater.workplace import open_workplace
from tests.servers import S3Server

OBJECTS = 1_000_000
_STRETCH = 100_000  # objects at the beginning and at the end whose rates are compared
_LIMIT_MIB = 400
_LOOK_EVERY_S = 0.05
_BUCKET = "endless"


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, listing_server(OBJECTS) as server, installed(folder) as ground:
        store = buckets.open_store(server, _BUCKET)
        bare_s = [buckets.time_listing(store, (5_000, False), expected=OBJECTS)]
        say(f"memory: syncing {OBJECTS:,} objects, whose bare listing takes {bare_s[0]:.1f} s")
        peaks, progress = _watch(ground, server)
        bare_s.append(buckets.time_listing(store, (5_000, False), expected=OBJECTS))
        yield _memory(peaks)
        yield _steadiness(progress, bare_s)


def _watch(ground: Ground, server: S3Server) -> tuple[dict[str, int], list[tuple[float, int, float]]]:
    """Peaks by process; and when how many objects were committed, at the cost of how many seconds of processor time."""
    dataset = uvloop.run(make_dataset(ground, server, _BUCKET))
    postmaster = _postmaster(ground)
    child = multiprocessing.get_context("spawn").Process(target=_run_sync, args=(ground, dataset), name="sync")
    child.start()
    peaks: dict[str, int] = {}
    cpu_s: dict[int, float] = {}
    progress: list[tuple[float, int, float]] = []
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        while child.is_alive():
            row = conn.execute("SELECT listed, started_at FROM scan WHERE dataset_id = %s", [dataset.id]).fetchone()
            watched = [psutil.Process(child.pid), postmaster, *postmaster.children(recursive=True)]
            for process in watched:
                _note_peak(peaks, process, "sync" if process.pid == child.pid else None)
                _note_cpu(cpu_s, process)
            if row is not None:
                progress = progress or [(row[1].timestamp(), 0, sum(cpu_s.values()))]
                if row[0] > progress[-1][1]:
                    progress.append((time.time(), row[0], sum(cpu_s.values())))
            time.sleep(_LOOK_EVERY_S)
    child.join()
    assert child.exitcode == 0, f"the sync ended with {child.exitcode}"
    return peaks, progress


def _run_sync(ground: Ground, dataset: Dataset) -> None:
    uvloop.run(_sync(ground, dataset))


async def _sync(ground: Ground, dataset: Dataset) -> None:
    async with open_workplace(ground.settings, ground.database_url, name="bench", max_connections=30) as place:
        async with place.pool.connection() as conn:
            scan_id = await request_scan(conn, dataset)
        await run_scan(place, scan_id)
        async with place.pool.connection() as conn:
            await check_scan(conn, scan_id, listed=OBJECTS)
        await asyncio.sleep(4 * _LOOK_EVERY_S)  # so that the last is seen, too


def _postmaster(ground: Ground) -> psutil.Process:
    file = ground.settings.data_dir / "postgres" / "postmaster.pid"
    return psutil.Process(int(file.read_text().split()[0]))


def _note_cpu(cpu_s: dict[int, float], process: psutil.Process) -> None:
    with suppress(psutil.Error):  # it has ended meanwhile
        times = process.cpu_times()
        cpu_s[process.pid] = times.user + times.system


def _note_peak(peaks: dict[str, int], process: psutil.Process, name: str | None) -> None:
    """KiB, by a name such as `postgres: autovacuum worker 123`."""
    try:
        name = name or (" ".join(process.cmdline()).strip() or process.name())
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (psutil.Error, OSError):
        return  # it has ended meanwhile
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            kind = "postgres: " + " ".join(name.split()[1:3]) if name.startswith("postgres:") else name.split()[0]
            kind = f"{kind} ({process.pid})"
            peaks[kind] = max(peaks.get(kind, 0), int(line.split()[1]))


def _memory(peaks: dict[str, int]) -> Figure:
    largest = sorted(peaks.items(), key=lambda peak: -peak[1])
    return Figure(
        name="memory",
        value=largest[0][1] / 1024,
        floor=_LIMIT_MIB,
        unit="MiB of the largest process",
        target=1.0,
        is_limit=True,
        details={
            "objects": OBJECTS,
            "cores": os.cpu_count(),
            "peak_mib": {name: kib / 1024 for name, kib in largest[:8]},
            "sync_mib": next(kib for name, kib in largest if name.startswith("sync")) / 1024,
        },
    )


def _steadiness(progress: list[tuple[float, int, float]], bare_s: list[float]) -> Figure:
    marks = [_reached(progress, count) for count in range(0, OBJECTS + 1, _STRETCH)]
    each_s = [after[0] - before[0] for before, after in pairwise(marks)]
    each_cpu_s = [after[1] - before[1] for before, after in pairwise(marks)]
    return Figure(
        name="memory.steady",
        value=_STRETCH / each_s[-1],
        floor=_STRETCH / each_s[0],
        unit="objects/s of the last 100,000, against the first",
        target=0.9,
        details={
            "objects": OBJECTS,
            "each_100000_s": each_s,
            "each_100000_cpu_s": each_cpu_s,  # of the sync and PostgreSQL: what other programs hardly change
            "cpu_ratio": each_cpu_s[0] / each_cpu_s[-1],
            "bare_listing_s": bare_s,
        },
    )


def _reached(progress: list[tuple[float, int, float]], count: int) -> tuple[float, float]:
    """When, and after how much processor time. Between two looks it went on evenly."""
    before = max((point for point in progress if point[1] <= count), key=lambda point: point[1])
    after = min((point for point in progress if point[1] >= count), key=lambda point: point[1])
    share = (count - before[1]) / (after[1] - before[1]) if after[1] > before[1] else 0.0
    return before[0] + share * (after[0] - before[0]), before[2] + share * (after[2] - before[2])
