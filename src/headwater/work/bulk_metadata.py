"""Metadata of many items: a patch over each, or a split into subsets, as a command that goes piece by piece."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import bulk_metadata, commands, selections
from headwater.catalog.bulk_metadata import Patched
from headwater.catalog.datasets import Dataset
from headwater.catalog.selections import Selection, Summary
from headwater.ids import to_wire
from headwater.wire.bulk_metadata import ChangeJson
from headwater.wire.query import parse_items_query
from headwater.work.workplace import Workplace

TASK = "change_items"
UPDATE_KIND, SPLIT_KIND = "UpdateItems", "SplitItems"
_PIECE_ITEMS = 3_000
_SUBSETS = ("train", "validation", "test")


def selection_of(wanted: Mapping[str, Any]) -> Selection:
    """Raises BadRequest."""
    tree = parse_items_query({"filter": wanted["filter"]}).only_files(
        "filter: it chooses folders, and only files have metadata."
    )
    return Selection(tree=tree, ids=wanted.get("ids"), folder=wanted.get("folder"))


async def request_change(
    conn: AsyncConnection[Any],
    dataset: Dataset,
    wanted: Mapping[str, Any],
    change: ChangeJson,
    summary: Summary,
    *,
    caller_id: int,
) -> int:
    """Start a command that changes what is selected now; its job commits with it. Returns the command's id."""
    counts = {"items": summary.items, "done": 0, "changed": 0, "tooLarge": 0}
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=UPDATE_KIND if change["shares"] is None else SPLIT_KIND,
        spec={"datasetId": to_wire(dataset.id), "update": counts, "subsets": {}, "after": 0},
        creator_id=caller_id,
    )
    arguments = job_arguments(command_id, wanted, change, summary, caller_id)
    await queue.defer(conn, TASK, **arguments)
    return command_id


def job_arguments(
    command_id: int, wanted: Mapping[str, Any], change: ChangeJson, summary: Summary, caller_id: int
) -> dict[str, Any]:
    return {
        "command_id": command_id,
        "wanted": dict(wanted),
        "change": dict(change),
        "last_id": summary.last_id,
        "caller_id": caller_id,
    }


async def change_items(
    place: Workplace,
    *,
    command_id: int,
    wanted: Mapping[str, Any],
    change: ChangeJson,
    last_id: int,
    caller_id: int,
) -> None:
    """Piece by piece to the end of the command. Safe to repeat, and to run more than once side by side."""
    selection = selection_of(wanted)
    has_ended = False
    while not has_ended:
        async with place.pool.connection() as conn:
            has_ended = await _change_next(conn, command_id, selection, change, last_id, caller_id)


async def _change_next(
    conn: AsyncConnection[Any], command_id: int, selection: Selection, change: ChangeJson, last_id: int, caller_id: int
) -> bool:
    """One piece and the command's progress, in one transaction. Returns whether the command has ended."""
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or command.dataset_id is None:
        return True
    told: dict[str, Any] = command.spec["update"]
    if await commands.is_abort_requested(conn, command_id):
        error = f"Aborted. {told['done']:,} of {told['items']:,} items were looked at; what was changed stays so."
        await commands.end_command(conn, command_id, "aborted", error=error)
        return True
    chosen = await selections.next_selected(
        conn, command.dataset_id, selection, after_id=command.spec["after"], last_id=last_id, limit=_PIECE_ITEMS
    )
    if not chosen:
        await _end(conn, command_id, told)
        return True
    await bulk_metadata.commit_unawaited(conn)
    ids = [item_id for item_id, _ in chosen]
    subsets: dict[str, int] = command.spec["subsets"]
    if change["shares"] is None:
        patched = await bulk_metadata.patch_items(
            conn, command.dataset_id, ids, user=change["user"], system=change["system"], updated_by_id=caller_id
        )
    else:
        parts = dealt(ids, change["shares"], subsets, seed=command_id)
        patched = await _split(conn, command.dataset_id, parts, caller_id)
        subsets = {name: subsets.get(name, 0) + len(part) for name, part in parts.items()}
    told |= {
        "done": told["done"] + len(chosen),
        "changed": told["changed"] + patched.changed,
        "tooLarge": told["tooLarge"] + patched.too_large,
    }
    await commands.note_progress(
        conn,
        command_id,
        progress_percent=min(99.0, 100 * told["done"] / max(1, told["items"])),
        spec={"update": told, "subsets": subsets, "after": ids[-1]},
    )
    return False


async def _end(conn: AsyncConnection[Any], command_id: int, told: Mapping[str, Any]) -> None:
    warning = None
    if told["tooLarge"]:
        warning = (
            f"{told['tooLarge']:,} items were left as they were: with the change, their metadata would be larger than "
            f"{bulk_metadata.LARGEST_BYTES:,} bytes."
        )
    await commands.end_command(conn, command_id, "success", warning=warning)


async def _split(
    conn: AsyncConnection[Any], dataset_id: int, parts: Mapping[str, Sequence[int]], caller_id: int
) -> Patched:
    """Each item is in its subset, and in none of the others, nor of those that the SDK knows."""
    changed = too_large = 0
    await bulk_metadata.lock_items(conn, dataset_id, [item_id for ids in parts.values() for item_id in ids])
    for name, ids in parts.items():
        tags = {other: True if other == name else None for other in {*parts, *_SUBSETS}}
        patched = await bulk_metadata.patch_items(
            conn, dataset_id, ids, user={}, system={"tags": tags}, updated_by_id=caller_id
        )
        changed, too_large = changed + patched.changed, too_large + patched.too_large
    return Patched(changed, too_large)


def dealt(
    ids: Sequence[int], shares: Mapping[str, int], before: Mapping[str, int], *, seed: int
) -> dict[str, list[int]]:
    """Which items go to which subset: at random, and so that the subsets have their shares of all so far.

    `before` is how many each had from earlier pieces. The same seed deals the same piece alike.
    """
    counts = Counter(before)
    shuffled = list(ids)
    random.Random(f"{seed}:{ids[0]}" if ids else seed).shuffle(shuffled)  # noqa: S311 - nobody is to be kept from guessing
    parts: dict[str, list[int]] = {name: [] for name in shares}
    for item_id in shuffled:
        total = counts.total() + 1
        name = max(shares, key=lambda name: shares[name] * total - 100 * counts[name])
        counts[name] += 1
        parts[name].append(item_id)
    return parts


async def give_up(place: Workplace, command_id: int, error: str) -> None:
    """What was changed stays changed."""
    async with place.pool.connection() as conn:
        await commands.end_command(conn, command_id, "failed", error=error)
