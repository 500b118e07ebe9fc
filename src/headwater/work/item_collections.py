"""Items into collections and out of them, and the end of a collection: commands that go piece by piece."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import bulk_metadata, commands, item_collections, selections
from headwater.catalog.commands import Command
from headwater.catalog.datasets import Dataset
from headwater.catalog.item_collections import ItemCollection
from headwater.catalog.selections import Selection
from headwater.ids import to_wire
from headwater.work.bulk_metadata import selection_of
from headwater.work.workplace import Workplace

TASK = "mark_items"
_PIECE_ITEMS = 1_000

Doing = Literal["add", "remove", "delete"]
_KINDS: dict[Doing, str] = {"add": "CollectItems", "remove": "UncollectItems", "delete": "DissolveCollection"}


async def request(
    conn: AsyncConnection[Any],
    dataset: Dataset,
    wanted: Mapping[str, Any],
    collections: Sequence[ItemCollection],
    doing: Doing,
    *,
    caller_id: int,
) -> dict[str, Any]:
    """Start a command over what is selected now; its job commits with it. Returns what `mark_items` is called with.

    Raises BadRequest.
    """
    chosen = selection_of(wanted) if doing != "delete" else Selection(tree=collections[0].members)
    summary = await selections.summarize(conn, dataset.id, chosen, examples=0)
    counts = {"items": summary.items, "done": 0, "changed": 0, "tooLarge": 0}
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=_KINDS[doing],
        spec={
            "datasetId": to_wire(dataset.id),
            "collections": [one.name for one in collections],
            "update": counts,
            "after": 0,
        },
        creator_id=caller_id,
    )
    if doing == "delete":
        await item_collections.note_deleting(conn, collections[0].id, command_id)
    job: dict[str, Any] = {
        "command_id": command_id,
        "doing": doing,
        "wanted": dict(wanted),
        "collections": [[one.id, one.slot] for one in collections],
        "last_id": summary.last_id,
        "caller_id": caller_id,
    }
    await queue.defer(conn, TASK, **job)
    return job


async def mark_items(
    place: Workplace,
    *,
    command_id: int,
    doing: Doing,
    wanted: Mapping[str, Any],
    collections: Sequence[Sequence[int]],
    last_id: int,
    caller_id: int,
) -> None:
    """Piece by piece to the end of the command. Safe to repeat, and to run more than once side by side."""
    slots = {one[0]: one[1] for one in collections}
    has_ended = False
    while not has_ended:
        async with place.pool.connection() as conn:
            if doing == "delete":
                ((collection_id, slot),) = slots.items()
                has_ended = await _empty_next(conn, command_id, collection_id, slot, caller_id)
            else:
                has_ended = await _mark_next(conn, command_id, doing == "add", wanted, slots, last_id, caller_id)


async def _mark_next(
    conn: AsyncConnection[Any],
    command_id: int,
    is_added: bool,
    wanted: Mapping[str, Any],
    slots: Mapping[int, int],
    last_id: int,
    caller_id: int,
) -> bool:
    """One piece and the command's progress, in one transaction. Returns whether the command has ended."""
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or command.dataset_id is None:
        return True
    if await _ends_by_abort(conn, command):
        return True
    there = await item_collections.hold(conn, list(slots))
    if len(there) < len(slots):
        error = "A collection was deleted meanwhile. Items that were marked before are in the others."
        await commands.end_command(conn, command_id, "failed", error=error)
        return True
    chosen = await selections.next_selected(
        conn,
        command.dataset_id,
        selection_of(wanted),
        after_id=command.spec["after"],
        last_id=last_id,
        limit=_PIECE_ITEMS,
    )
    if not chosen:
        await _end(conn, command)
        return True
    marks = {one.key: True if is_added else None for one in there}
    await _patch(conn, command, [item_id for item_id, _ in chosen], marks, caller_id)
    return False


async def _empty_next(
    conn: AsyncConnection[Any], command_id: int, collection_id: int, slot: int, caller_id: int
) -> bool:
    """Take its mark from some items that have it. With the last of them, it goes itself."""
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or command.dataset_id is None:
        return True
    if await _ends_by_abort(conn, command):
        await item_collections.note_deleting(conn, collection_id, None)
        return True
    emptied = ItemCollection(collection_id, slot, "", command_id)
    chosen = await selections.next_selected(
        conn,
        command.dataset_id,
        Selection(tree=emptied.members),
        after_id=command.spec["after"],
        last_id=2**63 - 1,  # what was marked since it was asked for goes, too
        limit=_PIECE_ITEMS,
    )
    if not chosen:
        await item_collections.forget(conn, collection_id)
        await _end(conn, command)
        return True
    await _patch(conn, command, [item_id for item_id, _ in chosen], {emptied.key: None}, caller_id)
    return False


async def _patch(
    conn: AsyncConnection[Any],
    command: Command,
    item_ids: Sequence[int],
    marks: Mapping[str, bool | None],
    caller_id: int,
) -> None:
    assert command.dataset_id is not None
    patched = await bulk_metadata.patch_items(
        conn, command.dataset_id, item_ids, user={}, system={"collections": dict(marks)}, updated_by_id=caller_id
    )
    told: dict[str, Any] = command.spec["update"]
    told |= {
        "done": told["done"] + len(item_ids),
        "changed": told["changed"] + patched.changed,
        "tooLarge": told["tooLarge"] + patched.too_large,
    }
    await commands.note_progress(
        conn,
        command.id,
        progress_percent=min(99.0, 100 * told["done"] / max(1, told["items"])),
        spec={"update": told, "after": item_ids[-1]},
    )


async def _ends_by_abort(conn: AsyncConnection[Any], command: Command) -> bool:
    if not await commands.is_abort_requested(conn, command.id):
        return False
    told = command.spec["update"]
    error = f"Aborted. {told['done']:,} of {told['items']:,} items were looked at; what was changed stays so."
    await commands.end_command(conn, command.id, "aborted", error=error)
    return True


async def _end(conn: AsyncConnection[Any], command: Command) -> None:
    too_large = command.spec["update"]["tooLarge"]
    warning = None
    if too_large:
        warning = (
            f"{too_large:,} items were left as they were: with the mark, their metadata would be larger than "
            f"{bulk_metadata.LARGEST_BYTES:,} bytes."
        )
    await commands.end_command(conn, command.id, "success", warning=warning)


async def give_up(
    place: Workplace,
    command_id: int,
    error: str,
    *,
    doing: Doing,
    collections: Sequence[Sequence[int]],
    **_: Any,
) -> None:
    """What was changed stays changed. A collection that was to be deleted stays, with the items that are left in it."""
    async with place.pool.connection() as conn:
        await commands.end_command(conn, command_id, "failed", error=error)
        if doing == "delete":
            await item_collections.note_deleting(conn, collections[0][0], None)
