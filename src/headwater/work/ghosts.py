"""Ghosts on request: back from the trash, into it, or forgotten for good; few at once, many as a command.

No bucket's object is touched. What was derived of a forgotten ghost goes by a job.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync import ghosts
from headwater.catalog.sync.ghosts import Choice, Ghost
from headwater.ids import to_wire
from headwater.work.deletion import forget_derived
from headwater.work.workplace import Workplace

TASK = "settle_ghosts"
FORGET_EXPIRED_TASK = "forget_expired_ghosts"
FORGET_EXPIRED_AT = "23 3 * * *"  # cron, in UTC
PIECE_GHOSTS = 1_000
_log = logging.getLogger(__name__)

Action = Literal["restore", "trash", "forget"]
KINDS: dict[Action, str] = {"restore": "RestoreGhosts", "trash": "TrashGhosts", "forget": "ForgetGhosts"}


def choice_of(action: Action, wanted: Mapping[str, Any]) -> Choice:
    """From what is kept of it in a job: folder, since, until, paths, ids, trash (only what lies there)."""
    where: ghosts.Where | None = "trash" if wanted.get("trash") else None
    since, until = wanted.get("since"), wanted.get("until")
    return Choice(
        where={"restore": "trash", "trash": "flagged", "forget": where}[action],  # pyright: ignore[reportArgumentType]
        folder=wanted.get("folder"),
        since=None if since is None else datetime.fromisoformat(since),
        until=None if until is None else datetime.fromisoformat(until),
        paths=wanted.get("paths"),
        ids=wanted.get("ids"),
    )


async def request(
    conn: AsyncConnection[Any],
    dataset: Dataset,
    action: Action,
    wanted: Mapping[str, Any],
    number: int,
    *,
    caller_id: int,
) -> int | None:
    """Do it, if there are few; otherwise start a command, whose job commits with it: its id.

    What becomes a ghost later, while the command waits or works, is nothing that anybody has seen and asked for.
    """
    wanted = {**wanted, "until": (await ghosts.time_of_request(conn)).isoformat()}
    if number <= PIECE_GHOSTS:
        chosen = await ghosts.list_ghosts(conn, dataset.id, choice_of(action, wanted), limit=PIECE_GHOSTS)
        await _settle(conn, dataset.id, action, chosen)
        return None
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=KINDS[action],
        spec={"datasetId": to_wire(dataset.id), "ghosts": {"action": action, "items": number, "done": 0}, "after": ""},
        creator_id=caller_id,
    )
    await queue.defer(conn, TASK, command_id=command_id, wanted=wanted)
    return command_id


async def settle_ghosts(place: Workplace, *, command_id: int, wanted: Mapping[str, Any]) -> None:
    """Piece by piece to the end of the command. Safe to repeat, and to run more than once side by side."""
    has_ended = False
    while not has_ended:
        async with place.pool.connection() as conn:
            has_ended = await _settle_next(conn, command_id, wanted)


async def _settle_next(conn: AsyncConnection[Any], command_id: int, wanted: Mapping[str, Any]) -> bool:
    """One piece and the command's progress, in one transaction. Returns whether the command has ended.

    The command is locked first, which nobody does who holds anything that a piece waits for.
    """
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or command.dataset_id is None:
        return True
    told: dict[str, Any] = command.spec["ghosts"]
    if await commands.is_abort_requested(conn, command_id):
        error = f"Aborted. What was done with {told['done']:,} of {told['items']:,} ghosts stays so."
        await commands.end_command(conn, command_id, "aborted", error=error)
        return True
    action: Action = told["action"]
    chosen = await ghosts.list_ghosts(
        conn, command.dataset_id, choice_of(action, wanted), after=command.spec["after"], limit=PIECE_GHOSTS
    )
    if not chosen:
        await commands.end_command(conn, command_id, "success")
        return True
    told |= {"done": told["done"] + await _settle(conn, command.dataset_id, action, chosen)}
    await commands.note_progress(
        conn,
        command_id,
        progress_percent=min(99.0, 100 * told["done"] / max(1, told["items"])),
        spec={"ghosts": told, "after": chosen[-1].path},
    )
    await commands.announce_dataset(conn, command.dataset_id)
    return False


async def give_up(place: Workplace, command_id: int, error: str) -> None:
    """What was done stays done."""
    async with place.pool.connection() as conn:
        await commands.end_command(conn, command_id, "failed", error=error)


async def _settle(conn: AsyncConnection[Any], dataset_id: int, action: Action, chosen: Sequence[Ghost]) -> int:
    """Returns how many of them still were where they were found."""
    if action == "forget":
        gone = await ghosts.forget(conn, dataset_id, chosen)
        await forget_derived(conn, dataset_id, gone)
        return len(gone)
    return await ghosts.set_trashed(conn, dataset_id, chosen, trashed=action == "trash")


async def forget_expired(place: Workplace) -> int:
    """What has been in a trash for its 30 days. Safe to repeat. Returns how many."""
    async with place.pool.connection() as conn:
        with_trash = await ghosts.datasets_with_trash(conn)
    forgotten = 0
    for dataset_id in with_trash:
        while True:
            async with place.pool.connection() as conn:
                expired = await ghosts.list_expired(conn, dataset_id, limit=PIECE_GHOSTS)
                await _settle(conn, dataset_id, "forget", expired)
            forgotten += len(expired)
            if len(expired) < PIECE_GHOSTS:
                break
    if forgotten:
        _log.info("%s ghosts were forgotten after their time in the trash", forgotten)
    return forgotten
