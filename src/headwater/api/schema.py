"""The schema of a dataset's metadata, and which of it is searched."""

import asyncio

from fastapi import APIRouter

from headwater import ids
from headwater.api.caller import Base, Caller, Connection, DatasetId, ServerDep, needs
from headwater.catalog import commands, datasets, projects, schema, searchable
from headwater.wire import commands as wire_commands
from headwater.wire import schema as wire

router = APIRouter(prefix="/datasets", tags=["datasets"])

_KIND = "ChangeUnsearchablePaths"


@router.get("/{dataset_id}/schema", openapi_extra=needs("read"))
async def read_schema(dataset_id: DatasetId, caller: Caller, server: ServerDep) -> wire.SchemaJson:
    """Paths of metadata with their types, how often they occur, and examples, from a sample of the items.

    What the column index covers is told of all items.
    """
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id)
        sample = await schema.draw_sample(conn, dataset)
        covered, indexed_items = await schema.covered_paths(conn, dataset.id)
    return await asyncio.to_thread(wire.schema, dataset, sample, covered, indexed_items)


@router.post("/{dataset_id}/schema/items", openapi_extra=needs("manage_datasets"))
async def change_schema(
    dataset_id: DatasetId, body: wire.SchemaBody, caller: Caller, conn: Connection, base: Base
) -> wire_commands.CommandJson:
    """Take paths of metadata, with all that is below them, out of searching, or back into it.

    Filters and sorts that name one are refused then, and no index covers it. The command has ended already.
    """
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    change = body.unsearchable_paths
    paths = await searchable.change_unsearchable(conn, dataset.id, add=change.add, remove=change.remove)
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=_KIND,
        spec={"datasetId": ids.to_wire(dataset.id), "unsearchablePaths": paths},
        creator_id=None,  # nobody waits for it to end, so nobody is told
    )
    told = {"id": ids.to_wire(dataset.id), "unsearchable": paths}
    await projects.record(conn, caller, dataset.project_id, "dataset.searchable_changed", dataset.name, **told)
    await commands.end_command(conn, command_id, "success")
    return wire_commands.command(await commands.load_command(conn, command_id), base)
