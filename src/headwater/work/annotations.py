"""Many annotations at once, chosen by a filter: deleted or changed as a command that goes piece by piece."""

from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import annotations, commands
from headwater.catalog.annotations import Summary
from headwater.catalog.datasets import Dataset
from headwater.catalog.query import Tree
from headwater.ids import to_wire
from headwater.wire.annotations import ChangeJson
from headwater.wire.query import parse_filter
from headwater.work.workplace import Workplace

TASK = "change_annotations"
DELETE_KIND, UPDATE_KIND = "DeleteAnnotations", "UpdateAnnotations"
PIECE = 2_000  # annotations of one transaction


def tree_of(conditions: Mapping[str, Any]) -> Tree:
    """Raises BadRequest."""
    return parse_filter(conditions, resource="annotations")


async def request_change(
    conn: AsyncConnection[Any],
    dataset: Dataset,
    conditions: Mapping[str, Any],
    change: ChangeJson | None,
    summary: Summary,
    *,
    caller_id: int,
) -> dict[str, Any]:
    """Start a command that changes what is chosen now, or deletes it without a `change`; its job commits with it.

    Returns what `change_annotations` is called with.
    """
    done = "deleted" if change is None else "changed"
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=DELETE_KIND if change is None else UPDATE_KIND,
        spec={
            "datasetId": to_wire(dataset.id),
            "annotations": {"annotations": summary.number, "done": 0, done: 0},
            "after": 0,
        },
        creator_id=caller_id,
    )
    job: dict[str, Any] = {
        "command_id": command_id,
        "conditions": dict(conditions),
        "change": None if change is None else dict(change),
        "last_id": summary.last_id,
        "caller_id": caller_id,
    }
    await queue.defer(conn, TASK, **job)
    return job


async def change_annotations(
    place: Workplace,
    *,
    command_id: int,
    conditions: Mapping[str, Any],
    change: ChangeJson | None,
    last_id: int,
    caller_id: int,
) -> None:
    """Piece by piece to the end of the command. Safe to repeat, and to run more than once side by side."""
    tree = tree_of(conditions)
    has_ended = False
    while not has_ended:
        async with place.pool.connection() as conn:
            has_ended = await _change_next(conn, command_id, tree, change, last_id, caller_id)


async def _change_next(
    conn: AsyncConnection[Any], command_id: int, tree: Tree, change: ChangeJson | None, last_id: int, caller_id: int
) -> bool:
    """One piece and the command's progress, in one transaction. Returns whether the command has ended."""
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or command.dataset_id is None:
        return True
    told: dict[str, Any] = command.spec["annotations"]
    if await commands.is_abort_requested(conn, command_id):
        error = f"Aborted. {told['done']:,} of {told['annotations']:,} annotations were done, and that stays so."
        await commands.end_command(conn, command_id, "aborted", error=error)
        return True
    chosen = await annotations.next_ids(
        conn, command.dataset_id, tree, after_id=command.spec["after"], last_id=last_id, limit=PIECE
    )
    if not chosen:
        await commands.end_command(conn, command_id, "success")
        return True
    name = "deleted" if change is None else "changed"
    number = await change_piece(conn, command.dataset_id, chosen, change, caller_id=caller_id)
    told |= {"done": told["done"] + len(chosen), name: told[name] + number}
    await commands.note_progress(
        conn,
        command_id,
        progress_percent=min(99.0, 100 * told["done"] / max(1, told["annotations"])),
        spec={"annotations": told, "after": chosen[-1]},
    )
    return False


async def change_piece(
    conn: AsyncConnection[Any], dataset_id: int, chosen: list[int], change: ChangeJson | None, *, caller_id: int
) -> int:
    """Delete or change these in the caller's transaction. Returns how many were deleted or are another now."""
    if change is None:
        return await annotations.delete_annotations(conn, dataset_id, chosen)
    return await annotations.patch_annotations(
        conn,
        dataset_id,
        chosen,
        label=change["label"],
        user=change["user"],
        system=change["system"],
        updated_by_id=caller_id,
    )


async def give_up(place: Workplace, command_id: int, error: str) -> None:
    """What was done stays done."""
    async with place.pool.connection() as conn:
        await commands.end_command(conn, command_id, "failed", error=error)
