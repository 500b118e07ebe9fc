"""First sync and sync without a change of 100,000 objects, against the rate at which obstore merely lists them.

Ours is the product's own path: `request_sync`, then its jobs as a worker runs them, into the embedded PostgreSQL. Only
these jobs run, so that preprocessing does not take its share. Floor and ours take turns.
"""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

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
from bench.report import Figure
from headwater.catalog.datasets import Dataset
from headwater.work.workplace import Workplace
from headwater.workplace import open_workplace
from tests.servers import S3Server, seaweedfs

OBJECTS = 100_000
_FOLDERS = 100
_ROUNDS = 4
_SYNCS_AGAIN = 2  # a round
_BUCKET = "bench"


@dataclass(slots=True)
class _Times:
    listing_s: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    again_s: list[float] = field(default_factory=list)
    first_pairs: list[float] = field(default_factory=list)  # ratios to the listings before and after
    again_pairs: list[float] = field(default_factory=list)
    written: list[dict[str, int]] = field(default_factory=list)
    wal_bytes: list[int] = field(default_factory=list)


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, seaweedfs(folder / "seaweedfs") as server, installed(folder) as ground:
        yield from uvloop.run(_measure(ground, server))


async def _measure(ground: Ground, server: S3Server) -> list[Figure]:
    await buckets.make_bucket(server, _BUCKET)
    store = buckets.open_store(server, _BUCKET)
    say(f"sync: putting {OBJECTS:,} objects into SeaweedFS")
    await buckets.fill(store, _objects())
    tried = {}
    for variant in buckets.listing_variants() * 2:
        took_s = buckets.time_listing(store, variant, expected=OBJECTS)
        tried[variant] = min(took_s, tried.get(variant, took_s))
    fastest = min(tried, key=lambda variant: tried[variant])
    times = _Times()
    async with (
        open_workplace(ground.settings, ground.database_url, name="bench", max_connections=30) as place,
        sync_jobs(place),
    ):
        for _ in range(_ROUNDS):
            dataset = await make_dataset(ground, server, _BUCKET)
            times.listing_s.append(buckets.time_listing(store, fastest, expected=OBJECTS))
            times.first_s.append(await sync_whole(place, dataset, expected=OBJECTS))
            times.listing_s.append(buckets.time_listing(store, fastest, expected=OBJECTS))
            times.first_pairs.append(sum(times.listing_s[-2:]) / 2 / times.first_s[-1])
            for _ in range(_SYNCS_AGAIN):
                await _sync_again(place, dataset, times)
                times.listing_s.append(buckets.time_listing(store, fastest, expected=OBJECTS))
                times.again_pairs.append(sum(times.listing_s[-2:]) / 2 / times.again_s[-1])
            say(
                f"sync: listing {times.listing_s[-1]:.2f} s, first {times.first_s[-1]:.2f} s, {times.again_s[-1]:.2f} s"
            )
    return _figures(times, {f"{size}{' arrow' * arrow}": s for (size, arrow), s in tried.items()})


def _objects() -> Iterator[tuple[str, bytes]]:
    for number in range(OBJECTS):
        folder, place = divmod(number, OBJECTS // _FOLDERS)
        yield f"site-{folder // 10:02}/camera-{folder % 10}/frame-{place:06}.jpg", b"%d" % number


async def _sync_again(place: Workplace, dataset: Dataset, times: _Times) -> None:
    before, wal_before = await _rows_written(place)
    times.again_s.append(await sync_whole(place, dataset, expected=OBJECTS))
    after, wal_after = await _rows_written(place)
    times.written.append({table: after[table] - before[table] for table in after if after[table] != before[table]})
    times.wal_bytes.append(wal_after - wal_before)


async def _rows_written(place: Workplace) -> tuple[dict[str, int], int]:
    """By table, since the database began, and the position of the write-ahead log."""
    async with AsyncExitStack() as opened:
        for _ in range(place.pool.get_stats()["pool_size"]):  # each backend keeps its last counts for a second
            conn = await opened.enter_async_context(place.pool.connection())
            await conn.execute("SELECT pg_stat_force_next_flush()")
            await conn.commit()
        await conn.execute("SELECT pg_stat_clear_snapshot()")
        cursor = await conn.execute("SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_user_tables")
        written = dict(await cursor.fetchall())
        cursor = await conn.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
        row = await cursor.fetchone()
        assert row is not None
        return written, row[0]


def _figures(times: _Times, tried: dict[str, float]) -> list[Figure]:
    floor = OBJECTS / median(times.listing_s)
    common = {"objects": OBJECTS, "listing_s": times.listing_s, "listing_variants_s": tried}
    of_items = [items_and_books(written)[0] for written in times.written]
    return [
        Figure(
            name="sync.first",
            value=OBJECTS / median(times.first_s),
            floor=floor,
            unit="objects/s",
            target=0.45,
            pairs=times.first_pairs,
            details=common | {"took_s": times.first_s, "best_ratio": _best(times.listing_s, times.first_s)},
        ),
        Figure(
            name="sync.again",
            value=OBJECTS / median(times.again_s),
            floor=floor,
            unit="objects/s",
            target=0.8,
            pairs=times.again_pairs,
            must_hold=not any(of_items),
            details=common
            | {
                "took_s": times.again_s,
                "best_ratio": _best(times.listing_s, times.again_s),
                "rows_written": {"of_items": of_items, "books": items_and_books(times.written[-1])[1]},
                "wal_bytes": median(times.wal_bytes),
            },
        ),
    ]


def _best(floor_s: list[float], ours_s: list[float]) -> float:
    """Of the shortest times, which noise of other programs spoils least."""
    return min(floor_s) / min(ours_s)
