"""Syncs of many objects from a server that makes its listing up as it goes: rates, steadiness, memory and log written.

The jobs of the syncs run in a child process, as in a worker; it and every process of the embedded PostgreSQL are
watched from here. What counts as memory is VmHWM, the peak as the kernel keeps it, shared memory included.
"""

import io
import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean

import psutil
import psycopg
import uvloop

from bench import bucket as buckets
from bench.ground import (
    Ground,
    installed,
    items_and_books,
    make_dataset,
    say,
    sync_jobs,
    sync_whole,
    temporary_folder,
)
from bench.listing_server import FOLDER_OBJECTS, key_of, listing_server
from bench.report import Figure
from headwater.catalog.datasets import Dataset
from headwater.workplace import open_workplace

_BUCKET = "endless"
_FLOOR_ROWS = 500_000
_FLOOR_BATCH = 5_000
_LOOK_EVERY_S = 0.1
_LOOK_FOR_PROCESSES_EVERY_S = 0.5
_VACUUM_WITHIN_S = 90
_LOG_BYTES_PER_OBJECT = 50e6 / 10_000_000  # at most, of a sync without a change


@dataclass(frozen=True, slots=True)
class _Size:
    """How many objects, and what their syncs must reach on two cores, whatever the floor does."""

    name: str
    objects: int
    first_per_s: float
    again_per_s: float
    most_mib: int
    must_be_steady: bool


_DEFAULT = _Size("scale", 1_000_000, first_per_s=25_000, again_per_s=60_000, most_mib=400, must_be_steady=True)
# Ten times the data leaves the caches of small machines, so only its whole duration counts: 8 minutes.
_LONG = _Size("long", 10_000_000, first_per_s=10_000_000 / 480, again_per_s=60_000, most_mib=512, must_be_steady=False)


@dataclass(slots=True)
class _Run:
    """One sync as seen from outside."""

    took_s: float = 0.0
    progress: list[tuple[float, int, float]] = field(default_factory=list)  # when, listed, seconds of processor time
    peaks_kib: dict[str, int] = field(default_factory=dict)  # by process
    cpu_s: dict[str, float] = field(default_factory=dict)  # by kind of process


def measure() -> Iterator[Figure]:
    yield from _measure(_DEFAULT)


def measure_long() -> Iterator[Figure]:
    yield from _measure(_LONG)


def _measure(size: _Size) -> Iterator[Figure]:
    with temporary_folder() as folder, listing_server(size.objects) as server, installed(folder) as ground:
        store = buckets.open_store(server, _BUCKET)
        load_per_s = [_time_load(ground)]
        listing_s = [buckets.time_listing(store, (5_000, False), expected=size.objects)]
        dataset = uvloop.run(make_dataset(ground, server, _BUCKET))
        say(f"{size.name}: {size.objects:,} objects; listing alone takes {listing_s[0]:.1f} s")
        first = _watch(ground, dataset, size.objects)
        say(f"{size.name}: the first sync took {first.took_s:.1f} s")
        load_per_s.append(_time_load(ground))
        yield _first(size, first, load_per_s, listing_s)
        yield _steadiness(size, first)
        settled = _settle(ground, size.objects)
        before, log_before = _written(ground)
        again = _watch(ground, dataset, size.objects)
        after, log_after = _written(ground)
        say(f"{size.name}: the sync without a change took {again.took_s:.1f} s")
        listing_s.append(buckets.time_listing(store, (5_000, False), expected=size.objects))
        written = {table: after[table] - before.get(table, 0) for table in after if after[table] != before.get(table)}
        yield _again(size, again, listing_s, written, log_after - log_before, settled)
        yield _memory(size, {**first.peaks_kib, **again.peaks_kib})


def _time_load(ground: Ground) -> float:
    """Rows a second that go into a table like `item`, with all its indexes, by COPY and in committed batches."""
    rows = [
        f"1\t{number}\t{number // FOLDER_OBJECTS}\t{number}\t/{key_of(number)}\t{number:032x}\timage/jpeg\t"
        "2026-03-14T15:09:26.535Z\n"
        for number in range(_FLOOR_ROWS)
    ]
    statement = "COPY floor (dataset_id, id, folder_id, size_bytes, path, etag, mime_type, modified_at) FROM STDIN"
    batches = [io.StringIO("".join(rows[first : first + _FLOOR_BATCH])) for first in range(0, len(rows), _FLOOR_BATCH)]
    with psycopg.connect(ground.database_url) as conn:
        conn.execute("CREATE TABLE floor (LIKE item INCLUDING ALL)")
        began = time.perf_counter()
        for batch in batches:
            with conn.cursor().copy(statement) as copy:
                copy.write(batch.read())
            conn.commit()
        took_s = time.perf_counter() - began
        conn.execute("DROP TABLE floor")
    return len(rows) / took_s


def _watch(ground: Ground, dataset: Dataset, expected: int) -> _Run:
    """A whole sync in a process of its own, which has ended when this returns."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_run_sync, args=(theirs, ground, dataset, expected))
    child.start()
    theirs.close()
    run = _Run()
    cpu_s: dict[tuple[str, int], float] = {}
    processes: list[psutil.Process] = []
    looked_at = 0.0
    is_over = False
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        assert ours.recv() == "ready"
        began_at = time.time()
        ours.send("go")
        while not is_over:
            is_over = ours.poll(_LOOK_EVERY_S)
            if is_over or time.monotonic() > looked_at + _LOOK_FOR_PROCESSES_EVERY_S:
                postmaster = _postmaster(ground)
                processes = [psutil.Process(child.pid), postmaster, *postmaster.children()]
                looked_at = time.monotonic()
                for process in processes:
                    _note_peak(run.peaks_kib, process, is_sync=process.pid == child.pid)
            for process in processes:
                _note_cpu(cpu_s, process, is_sync=process.pid == child.pid)
            row = conn.execute(
                "SELECT listed FROM scan WHERE dataset_id = %s ORDER BY id DESC LIMIT 1", [dataset.id]
            ).fetchone()
            run.progress = run.progress or [(began_at, 0, sum(cpu_s.values()))]
            if row is not None and row[0] > run.progress[-1][1]:
                run.progress.append((time.time(), row[0], sum(cpu_s.values())))
    run.took_s = ours.recv()
    ours.send("end")
    child.join()
    assert child.exitcode == 0, f"the sync ended with {child.exitcode}"
    for (kind, _), seconds in cpu_s.items():
        run.cpu_s[kind] = run.cpu_s.get(kind, 0.0) + seconds
    return run


def _run_sync(parent: Connection, ground: Ground, dataset: Dataset, expected: int) -> None:
    uvloop.run(_sync(parent, ground, dataset, expected))


async def _sync(parent: Connection, ground: Ground, dataset: Dataset, expected: int) -> None:
    async with (
        open_workplace(ground.settings, ground.database_url, name="bench", max_connections=30) as place,
        sync_jobs(place),
    ):
        parent.send("ready")
        parent.recv()
        parent.send(await sync_whole(place, dataset, expected=expected))
        parent.recv()  # so that its peak is seen


def _postmaster(ground: Ground) -> psutil.Process:
    file = ground.settings.data_dir / "postgres" / "postmaster.pid"
    return psutil.Process(int(file.read_text().split()[0]))


def _kind(process: psutil.Process, *, is_sync: bool) -> str:
    """`sync`, `backend`, or what PostgreSQL calls it, such as `autovacuum worker`."""
    if is_sync:
        return "sync"
    title = " ".join(process.cmdline()).strip()
    if not title.startswith("postgres: "):
        return "postmaster"
    words = title.removeprefix("postgres: ").split()
    return " ".join(words[:2]) if words[0] in ("autovacuum", "io", "background", "logical") else words[0]


def _note_cpu(cpu_s: dict[tuple[str, int], float], process: psutil.Process, *, is_sync: bool) -> None:
    with suppress(psutil.Error, OSError):  # it has ended meanwhile
        times = process.cpu_times()
        cpu_s[_kind(process, is_sync=is_sync), process.pid] = times.user + times.system


def _note_peak(peaks_kib: dict[str, int], process: psutil.Process, *, is_sync: bool) -> None:
    with suppress(psutil.Error, OSError):  # it has ended meanwhile
        name = f"{_kind(process, is_sync=is_sync)} ({process.pid})"
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peaks_kib[name] = max(peaks_kib.get(name, 0), int(line.split()[1]))


def _settle(ground: Ground, objects: int) -> dict[str, float]:
    """Let the vacuum that follows a first sync pass, then make every page's next change cost its image in the log.

    So the log of the sync after it holds all that it causes, and nothing that the first one left to be done.
    """
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        began, log_before = time.monotonic(), _log_position(conn)
        while (left := _not_vacuumed(conn)) > objects / 50 and time.monotonic() < began + _VACUUM_WITHIN_S:
            time.sleep(0.5)
        log_bytes = _log_position(conn) - log_before
        conn.execute("TRUNCATE event")  # nothing dispatches them here
        conn.execute("CHECKPOINT")
        return {"waited_s": time.monotonic() - began, "vacuum_log_bytes": log_bytes, "rows_not_vacuumed": left}


def _not_vacuumed(conn: psycopg.Connection) -> int:
    row = conn.execute(
        """
        SELECT n_ins_since_vacuum + 1_000_000_000 * (SELECT count(*) FROM pg_stat_progress_vacuum)
        FROM pg_stat_user_tables
        WHERE relname = 'item'
        """
    ).fetchone()
    assert row is not None
    return row[0]


def _log_position(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return row[0]


def _written(ground: Ground) -> tuple[dict[str, int], int]:
    """Rows by table since the database began, and the position of the log. The workers have left, so all is counted."""
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        rows = conn.execute("SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables").fetchall()
        return dict(rows), _log_position(conn)


def _first(size: _Size, run: _Run, load_per_s: list[float], listing_s: list[float]) -> Figure:
    return Figure(
        name=f"{size.name}.first",
        value=size.objects / run.took_s,
        floor=mean(load_per_s),
        unit="objects/s",
        target=0.2,
        must_hold=size.objects / run.took_s >= size.first_per_s,
        details={
            "objects": size.objects,
            "cores": os.cpu_count(),
            "took_s": run.took_s,
            "at_least_per_s": size.first_per_s,
            "load_per_s": load_per_s,
            "listing_s": listing_s,
            "cpu_s": run.cpu_s,
        },
    )


def _steadiness(size: _Size, run: _Run) -> Figure:
    stretch = size.objects // 10
    marks = [_reached(run.progress, count) for count in range(0, size.objects + 1, stretch)]
    each_s = [after[0] - before[0] for before, after in pairwise(marks)]
    each_cpu_s = [after[1] - before[1] for before, after in pairwise(marks)]
    return Figure(
        name=f"{size.name}.steady",
        value=stretch / each_s[-1],
        floor=stretch / each_s[0],
        unit=f"objects/s of the last {stretch:,}, against the first",
        target=0.9 if size.must_be_steady else 0.0,
        details={
            "each_s": each_s,
            "each_cpu_s": each_cpu_s,  # of the sync and PostgreSQL: what other programs hardly change
            "cpu_ratio": each_cpu_s[0] / each_cpu_s[-1],
        },
    )


def _reached(progress: list[tuple[float, int, float]], count: int) -> tuple[float, float]:
    """When, and after how much processor time. Between two looks it went on evenly."""
    before = max((point for point in progress if point[1] <= count), key=lambda point: point[1])
    after = min((point for point in progress if point[1] >= count), key=lambda point: point[1])
    share = (count - before[1]) / (after[1] - before[1]) if after[1] > before[1] else 0.0
    return before[0] + share * (after[0] - before[0]), before[2] + share * (after[2] - before[2])


def _again(
    size: _Size,
    run: _Run,
    listing_s: list[float],
    written: dict[str, int],
    log_bytes: int,
    settled: dict[str, float],
) -> Figure:
    of_items, books = items_and_books(written)
    per_s = size.objects / run.took_s
    return Figure(
        name=f"{size.name}.again",
        value=per_s,
        floor=2 * size.objects / sum(listing_s),
        unit="objects/s",
        target=0.5,
        must_hold=per_s >= size.again_per_s and not of_items and log_bytes < _LOG_BYTES_PER_OBJECT * size.objects,
        details={
            "took_s": run.took_s,
            "at_least_per_s": size.again_per_s,
            "listing_s": listing_s,
            "rows_written": {"of_items": of_items, "books": books},
            "log_bytes": log_bytes,
            "most_log_bytes": _LOG_BYTES_PER_OBJECT * size.objects,
            "before": settled,
            "cpu_s": run.cpu_s,
        },
    )


def _memory(size: _Size, peaks_kib: dict[str, int]) -> Figure:
    largest = sorted(peaks_kib.items(), key=lambda peak: -peak[1])
    return Figure(
        name=f"{size.name}.memory",
        value=largest[0][1] / 1024,
        floor=size.most_mib,
        unit="MiB of the largest process",
        target=1.0,
        is_limit=True,
        details={
            "peak_mib": {name: kib / 1024 for name, kib in largest[:8]},
            "sync_mib": [kib / 1024 for name, kib in largest if name.startswith("sync")],
        },
    )
