"""Bots: accounts of programs in a project."""

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import BaseModel, Field

from headwater.api.api_keys import DEFAULT_LIFE, check_may_make_keys, make_key
from headwater.api.caller import BearerDep, Caller, Connection, ProjectId, ServerDep, needs
from headwater.catalog import api_keys, bots, projects
from headwater.wire import accounts as wire

router = APIRouter(prefix="/projects/{project_id}/bots", tags=["bots"])


class NewBotBody(BaseModel):
    name: str
    return_credentials: bool = Field(
        default=False,
        alias="returnCredentials",
        description="Make an API key for the bot, and answer it as `password`.",
    )


@router.post("", openapi_extra=needs("manage_bots"))
async def create_bot(
    project_id: ProjectId, body: NewBotBody, caller: Caller, bearer: BearerDep, conn: Connection, server: ServerDep
) -> wire.BotJson:
    """A developer of the project that is no person; the one of that name, if there is one.

    It cannot log in with a password: `password` is a key for `login_api_key`, told once and good for a year.
    """
    project = await projects.get_project(conn, caller, project_id, "manage_bots")
    if body.return_credentials:
        check_may_make_keys(bearer)
    bot = await bots.create_bot(conn, caller, project, body.name)
    if not body.return_credentials:
        return wire.bot(bot)
    holder = await api_keys.find_holder(conn, caller, bot.email)
    expires_at = datetime.now(UTC).replace(microsecond=0) + DEFAULT_LIFE
    _, key = await make_key(conn, server, caller, holder, name="made with the bot", expires_at=expires_at)
    return wire.bot(bot, key=key)


@router.get("", openapi_extra=needs("read"))
async def list_bots(project_id: ProjectId, caller: Caller, conn: Connection) -> list[wire.BotJson]:
    """Those that were made in the project."""
    project = await projects.get_project(conn, caller, project_id)
    return [wire.bot(bot) for bot in await bots.list_bots(conn, project)]


@router.get("/{bot_id}", openapi_extra=needs("read"))
async def read_bot(project_id: ProjectId, bot_id: str, caller: Caller, conn: Connection) -> wire.BotJson:
    """`bot_id` is the bot's e-mail address, as its `id` says."""
    project = await projects.get_project(conn, caller, project_id)
    return wire.bot(await bots.get_bot(conn, project, bot_id))


@router.delete("/{bot_id}", openapi_extra=needs("manage_bots"))
async def delete_bot(project_id: ProjectId, bot_id: str, caller: Caller, conn: Connection) -> dict[str, bool]:
    """Its keys stop at once; what it made stays, under its name."""
    project = await projects.get_project(conn, caller, project_id, "manage_bots")
    await bots.delete_bot(conn, caller, project, await bots.get_bot(conn, project, bot_id))
    return {"success": True}
