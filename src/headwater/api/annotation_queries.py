"""Annotations in queries of a dataset: pages of them, and what is done to all that a filter asks for."""

import asyncio
from contextlib import suppress
from typing import Any

from psycopg import AsyncConnection

from headwater import ids
from headwater.api.asking import summing_up
from headwater.api.caller import Server
from headwater.catalog import annotations, commands, datasets, projects
from headwater.catalog.accounts import Account
from headwater.catalog.searchable import require_searchable_items
from headwater.errors import BadRequest
from headwater.wire import annotations as wire
from headwater.wire import commands as wire_commands
from headwater.wire.query import AnnotationsQuery
from headwater.work import annotations as work

_WAIT_FOR_ANSWER_S = 30.0  # the SDK's scripts expect it to be done when they are answered


async def page_of_annotations(
    conn: AsyncConnection[Any], caller: Account, dataset_id: int, asked: AnnotationsQuery, base: str
) -> wire.AnnotationPageJson:
    """The total is that of the query as it was sent, as for items. Raises NotFound, BadRequest."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    require_searchable_items(dataset.unsearchable_paths, asked.tree)
    found = await annotations.find_page(conn, dataset.id, asked.tree, asked.page)
    shaped = [wire.annotation(row, base) for row in found.rows]
    return wire.page(shaped, total=found.total, page_size=asked.page.page_size, has_next=found.has_next)


async def change_annotations(
    server: Server, caller: Account, dataset_id: int, asked: AnnotationsQuery, conditions: dict[str, Any], base: str
) -> wire_commands.CommandJson:
    """Delete or change all that the filter asks for, as the SDK asks for it: answered when it is done.

    What takes very long goes on in the worker after the answer. Raises NotFound, Forbidden, BadRequest.
    """
    change = None if asked.update is None else wire.change(asked.update, system_space=asked.system_space)
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "annotate")
        if dataset.readonly:
            raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
        require_searchable_items(dataset.unsearchable_paths, asked.tree)
        async with summing_up(server, conn):
            summary = await annotations.summarize(conn, dataset.id, work.tree_of(conditions))
        job = await work.request_change(conn, dataset, conditions, change, summary, caller_id=caller.id)
        if change is None:
            named = {"id": ids.to_wire(dataset.id), "annotations": summary.number}
            await projects.record(conn, caller, dataset.project_id, "annotations.deleted", dataset.name, **named)
    with suppress(TimeoutError):  # its job goes on
        await asyncio.wait_for(work.change_annotations(server.place, **job), _WAIT_FOR_ANSWER_S)
    async with server.place.pool.connection() as conn:
        return wire_commands.command(await commands.load_command(conn, job["command_id"]), base)
