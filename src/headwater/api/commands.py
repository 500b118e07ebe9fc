"""Commands: the long work somebody asked for."""

from fastapi import APIRouter

from headwater.api.caller import Base, Caller, CommandId, Connection, needs
from headwater.catalog import commands
from headwater.wire import commands as wire
from headwater.work import sync

router = APIRouter(prefix="/commands", tags=["commands"])


@router.get("", openapi_extra=needs("account"))
async def list_commands(caller: Caller, conn: Connection, base: Base) -> list[wire.CommandJson]:
    """The newest 100."""
    return [wire.command(found, base) for found in await commands.list_commands(conn, caller)]


@router.get("/{command_id}", openapi_extra=needs("read"))
async def read_command(command_id: CommandId, caller: Caller, conn: Connection, base: Base) -> wire.CommandJson:
    return wire.command(await commands.get_command(conn, caller, command_id), base)


@router.post("/{command_id}/abort", openapi_extra=needs("write_items"))
async def abort_command(command_id: CommandId, caller: Caller, conn: Connection, base: Base) -> wire.CommandJson:
    """It stops within a second and keeps what it has committed. A sync is aborted by those who may sync."""
    command = await commands.get_command(conn, caller, command_id)
    command = await commands.get_command(conn, caller, command_id, commands.right_to_abort(command))
    if command.kind == sync.KIND and command.status == "created":
        await sync.abort_before_it_begins(conn, command.id)
    await commands.request_abort(conn, command.id)
    return wire.command(await commands.load_command(conn, command.id), base)
