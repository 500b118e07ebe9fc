"""Comparing an index with its bucket."""

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from headwater import ids
from headwater.api.caller import Base, Caller, Connection, DatasetId, needs
from headwater.catalog import commands, datasets, projects
from headwater.wire import commands as wire
from headwater.work import verify

router = APIRouter(prefix="/datasets", tags=["verification"])


class VerifyBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    repair: bool = Field(
        default=False,
        description="Add what is missing from the index, have thumbnails made again, clean up our own files. Nothing "
        "is removed from the index, nothing is marked missing, and no object of yours is touched.",
    )


@router.post("/{dataset_id}/verify", openapi_extra=needs("sync"))
async def verify_dataset(
    dataset_id: DatasetId, caller: Caller, conn: Connection, base: Base, body: VerifyBody | None = None
) -> wire.CommandJson:
    """Answers at once with the command; while one runs, with that one's.

    At its end `spec.verify` holds the counts of all differences and up to 100 examples of each.
    """
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "sync")
    repair = body is not None and body.repair
    command_id = await verify.request_verify(conn, dataset, caller_id=caller.id, repair=repair)
    if repair:
        await projects.record(
            conn, caller, dataset.project_id, "dataset.repaired", dataset.name, id=ids.to_wire(dataset.id)
        )
    return wire.command(await commands.load_command(conn, command_id), base)
