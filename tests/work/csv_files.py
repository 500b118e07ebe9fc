"""What tests of CSV imports share: importing bytes as the API and the worker do, and reading the verdicts."""

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from headwater.catalog import commands, csv_imports
from headwater.catalog.commands import Command
from headwater.catalog.datasets import Dataset
from headwater.work import csv_import
from headwater.work.csv_import import NewImport
from tests.work.world import World


@dataclass(frozen=True)
class Imported:
    command: Command
    verdicts: list[dict[str, str]]

    @property
    def told(self) -> dict[str, Any]:
        return self.command.spec["import"]

    @property
    def outcomes(self) -> list[tuple[int, str, str]]:
        """(row, outcome, column)"""
        return [(int(one["row"]), one["outcome"], one["column"]) for one in self.verdicts]

    @property
    def reasons(self) -> dict[int, str]:
        return {int(one["row"]): one["reason"] for one in self.verdicts}


def asked(name: str = "photos.csv", **given: Any) -> NewImport:
    return NewImport(
        **{
            "name": name,
            "folder": "",
            "encoding": None,
            "separator": None,
            "is_dry_run": False,
            "most_bytes": 2**40,
        }
        | given
    )


async def request(world: World, dataset: Dataset, body: bytes, *, piece: int = 65536, **given: Any) -> tuple[int, bool]:
    """The file is taken in; no job is left, so that the caller is the worker."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), piece):
            yield body[start : start + piece]

    asks = asked(**given)
    command_id, is_new = await csv_import.request_import(world.place, dataset, world.owner, asks, chunks())
    await take_jobs(world, command_id)
    return command_id, is_new


async def take_jobs(world: World, command_id: int) -> int:
    async with world.connection() as conn:
        cursor = await conn.execute(
            "DELETE FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s",
            [csv_import.TASK, str(command_id)],
        )
        return cursor.rowcount


async def finish(world: World, command_id: int) -> Imported:
    await csv_import.import_rows(world.place, command_id)
    return await result(world, command_id)


async def result(world: World, command_id: int) -> Imported:
    async with world.connection() as conn:
        command = await commands.load_command(conn, command_id)
        found = await csv_imports.get(conn, command_id)
    body = b"".join([chunk async for chunk in csv_import.open_results(world.place.places, found)])
    verdicts = list(csv.DictReader(io.StringIO(body.decode(), newline="")))
    counts = {
        outcome: sum(one["outcome"] == outcome for one in verdicts) for outcome in ("created", "skipped", "refused")
    }
    told = command.spec["import"]
    assert {name: told[name] for name in counts} == counts
    return Imported(command, verdicts)


async def imported(world: World, dataset: Dataset, body: bytes, **given: Any) -> Imported:
    """To its end, which is a good one."""
    command_id, _ = await request(world, dataset, body, **given)
    done = await finish(world, command_id)
    assert done.command.status == "success", done.command.error
    return done


async def items_of(world: World, dataset: Dataset) -> dict[str, dict[str, Any]]:
    """By path: what a row of a CSV file says of an item."""
    await world.index(dataset)  # and the counters are right
    async with world.connection() as conn:
        cursor = await conn.execute(
            """
            SELECT path, link, object_key, mime_type, description, user_metadata, system_metadata, size_bytes, etag, id
            FROM item
            WHERE dataset_id = %s
            """,
            [dataset.id],
        )
        names = [column.name for column in cursor.description]
        return {row[0]: dict(zip(names, row, strict=True)) for row in await cursor.fetchall()}
