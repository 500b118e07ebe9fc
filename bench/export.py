"""1,000,000 items to Parquet, from the request to the committed end of its command.

The floor is one bare `COPY … TO STDOUT` of the same columns, whose bytes are counted and dropped. The job's process is
this one, so its memory is watched here.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import psutil
import uvloop
from psycopg import AsyncConnection

from bench.ground import Ground, installed, say, temporary_folder
from bench.made_items import fill, made, own_dataset
from bench.report import Figure
from headwater.catalog import commands, exports, organizations
from headwater.catalog.datasets import Dataset, load_dataset
from headwater.wire.exports import ExportBody, read_export
from headwater.work import exporting
from headwater.work.workplace import Workplace
from headwater.workplace import open_workplace

ITEMS = 1_000_000
_LEAST_PER_S = 50_000
_MOST_GROWTH_MIB = 384
_LOOKED_EVERY_S = 0.1


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, installed(folder) as ground:
        dataset = uvloop.run(own_dataset(ground, "exported"))
        with made(ITEMS, folder / "made.duckdb") as db:
            fill(ground, db, dataset)
        yield from uvloop.run(_measure(ground, dataset))


async def _measure(ground: Ground, dataset: Dataset) -> list[Figure]:
    async with open_workplace(ground.settings, ground.database_url, name="bench", max_connections=6) as place:
        floor_s = [await _time_floor(ground, dataset)]
        process = psutil.Process()
        before = process.memory_info().rss
        watching = asyncio.create_task(_peak(process))
        began, cpu_s = time.perf_counter(), sum(process.cpu_times()[:2])
        command_id = await _export(place, dataset)
        took_s = time.perf_counter() - began
        cpu_s = sum(process.cpu_times()[:2]) - cpu_s
        watching.cancel()
        (peak,) = await asyncio.gather(watching, return_exceptions=False)
        floor_s.append(await _time_floor(ground, dataset))
        async with place.pool.connection() as conn:
            command = await commands.load_command(conn, command_id)
            files = await exports.list_files(conn, command_id)
        assert command.status == "success", command.error
        assert sum(file.records for file in files if file.name.startswith("items-")) == ITEMS
    size_bytes = sum(file.size_bytes for file in files)
    say(f"export: {ITEMS:,} items took {took_s:.1f} s, {size_bytes / 2**20:.0f} MiB; bare COPY {floor_s}")
    return [
        Figure(
            "export.parquet",
            value=ITEMS / took_s,
            floor=ITEMS / min(floor_s),
            unit="items/s",
            target=0.4,
            must_hold=ITEMS / took_s >= _LEAST_PER_S,
            details={"took_s": took_s, "floor_s": floor_s, "cpu_s": cpu_s, "least_per_s": _LEAST_PER_S},
        ),
        Figure("export.memory", (peak - before) / 2**20, _MOST_GROWTH_MIB, "MiB", 1, is_limit=True),
    ]


async def _export(place: Workplace, dataset: Dataset) -> int:
    async with place.pool.connection() as conn:
        owner = await organizations.get_owner(conn)
        asked = read_export(ExportBody(format="parquet"), "http://headwater.bench/api/v1", owner.id)
        found = await load_dataset(conn, dataset.id)
        export = await exporting.request_export(conn, owner, found, asked, total=ITEMS)
    await exporting.run_export(place, export.command_id)
    return export.command_id


async def _peak(process: psutil.Process) -> int:
    """The largest resident memory until it is cancelled."""
    peak = 0
    try:
        while True:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(_LOOKED_EVERY_S)
    except asyncio.CancelledError:
        return peak


async def _time_floor(ground: Ground, dataset: Dataset) -> float:
    """Seconds of one statement for all."""
    statement: Any = f"COPY (SELECT {exports.COPIED_ITEM_COLUMNS} {exports.COPIED_ITEM_TABLES} item.dataset_id = "
    statement += f"{dataset.id} ORDER BY item.id) TO STDOUT (FORMAT csv)"
    async with await AsyncConnection.connect(ground.database_url) as conn, conn.cursor() as cursor:
        began = time.perf_counter()
        size_bytes = 0
        async with cursor.copy(statement) as copy:
            async for record in copy:
                size_bytes += len(record)
        return time.perf_counter() - began
