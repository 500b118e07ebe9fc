"""Moving and renaming items and folders in our own storage: paths change, no byte is touched.

In a bucket the path of an item is the key of its object, so there nothing is moved from here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, folders, items, moving, selections
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.folders import Folder, name_of
from headwater.catalog.items import HIDDEN_FOLDER, Item
from headwater.catalog.moving import Move
from headwater.catalog.selections import Selection
from headwater.errors import BadRequest, Conflict, HeadwaterError
from headwater.ids import to_wire
from headwater.wire.query import parse_items_query
from headwater.work.upload.paths import checked_path
from headwater.work.workplace import Workplace

TASK = "move_items"
KIND = "MoveItems"
_PIECE_ITEMS = 400  # of one transaction; each has two paths to lock
MOST_AT_ONCE = 400  # items that are moved together or not at all
_EXAMPLES = 5


def check_movable(dataset: Dataset) -> None:
    """Raises BadRequest."""
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    if dataset.driver_id is not None:
        raise BadRequest(
            f"The items of dataset {dataset.name!r} are linked to external storage, where an item's path is the key of "
            "its object: Headwater does not rename objects. Move them in the bucket; the next sync follows, and keeps "
            "the items where the dataset's sync rules say so (headwater sync-rules)."
        )


def checked_target(path: str) -> str:
    """A path that items may be moved to. Raises BadRequest."""
    checked = checked_path(path)
    if (checked + "/").startswith(HIDDEN_FOLDER + "/"):
        raise BadRequest(f"{checked} is where Headwater keeps its own files. Choose another folder.")
    return checked


def checked_folder(path: str) -> str:
    """'' for the root, or `/a/b`. Raises BadRequest."""
    return checked_target(path.rstrip("/")) if path.strip("/") else ""


async def lock_move(conn: AsyncConnection[Any], item: Item, path: str) -> str:
    """The path that `move_locked` then moves it to. Comes before the row's own lock. Raises BadRequest."""
    _check_item(item)
    new_path = checked_target(path)
    await moving.lock_moves(conn, item.dataset_id, [Move(item.id, item.path, new_path)])
    return new_path


def _check_item(item: Item) -> None:
    if item.path.startswith(HIDDEN_FOLDER + "/"):
        raise BadRequest(f"{item.path} is one of Headwater's own files, which stay where they are.")


async def move_locked(conn: AsyncConnection[Any], item: Item, new_path: str, *, caller_id: int) -> None:
    """Raises Conflict when there is another item, or this one has moved meanwhile."""
    if item.path == new_path:
        return
    moved, _ = await moving.move_items(
        conn, item.dataset_id, [Move(item.id, item.path, new_path)], updated_by_id=caller_id
    )
    if not moved:
        raise Conflict(f"{item.path} was not moved: there is another item at {new_path} already.")


async def move_together(
    conn: AsyncConnection[Any], dataset: Dataset, item_ids: Sequence[int], folder: str, *, caller_id: int
) -> int:
    """All of these into a folder, by their names, or none and the reason: Conflict. At most `MOST_AT_ONCE`."""
    check_movable(dataset)
    found = await items.load_items(conn, dataset.id, item_ids)
    for item in found:
        _check_item(item)
    moves = [Move(item.id, item.path, checked_target(f"{folder}/{name_of(item.path)}")) for item in found]
    await moving.lock_moves(conn, dataset.id, moves)
    moved, left = await moving.move_items(conn, dataset.id, moves, updated_by_id=caller_id)
    if left:
        raise Conflict(f"Nothing was moved: {_said([_pair(move) for move in left], len(left))}")
    return moved


def _pair(move: Move) -> list[str]:
    return [move.path, move.new_path]


def _said(examples: Sequence[Sequence[str]], number: int) -> str:
    old, new = examples[0]
    others = f", and {number - 1:,} more" if number > 1 else ""
    return f"there is another item at {new} already, where {old} was to be{others}."


def selection_of(wanted: Mapping[str, Any]) -> Selection:
    """From what a job keeps of it: filter, ids, folder. Raises BadRequest."""
    tree = parse_items_query({"filter": wanted.get("filter") or {}}).only_files(
        "filter: it chooses folders, and only files can be moved so. Name the folder instead."
    )
    return Selection(tree=tree, ids=wanted.get("ids"), folder=wanted.get("folder"), is_shown=True)


def check_not_into_itself(folder: str, to: str) -> None:
    """Raises BadRequest."""
    if not folder.strip("/"):
        raise BadRequest("The root of a dataset cannot be moved. Name a folder in it.")
    if (to + "/").startswith(folder + "/") and to != folder:
        raise BadRequest(f"{folder} cannot be moved into itself, to {to}.")


async def request_move(
    conn: AsyncConnection[Any], dataset: Dataset, wanted: Mapping[str, Any], to: str, *, caller_id: int
) -> dict[str, Any]:
    """Start a command that moves what is selected now; its job commits with it. Returns what `move_items` is to get.

    A `folder` becomes the folder `to`, with what is in it; what is chosen otherwise comes into `to` by its names.
    """
    check_movable(dataset)
    folder = wanted.get("folder")
    if folder is not None:
        check_not_into_itself(folder, to)
    summary = await selections.summarize(conn, dataset.id, selection_of(wanted), examples=0)
    told = {"items": summary.items, "moved": 0, "conflicts": 0, "examples": []}
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=KIND,
        spec={"datasetId": to_wire(dataset.id), "move": told, "to": to or "/", "after": 0},
        creator_id=caller_id,
    )
    job: dict[str, Any] = {
        "command_id": command_id,
        "wanted": dict(wanted),
        "to": to,
        "last_id": summary.last_id,
        "caller_id": caller_id,
    }
    await queue.defer(conn, TASK, **job)
    return job


async def move_items(
    place: Workplace, *, command_id: int, wanted: Mapping[str, Any], to: str, last_id: int, caller_id: int | None
) -> None:
    """Piece by piece to the end of the command. Safe to repeat, and to run more than once side by side."""
    selection = selection_of(wanted)
    has_ended = False
    while not has_ended:
        async with place.pool.connection() as conn:
            has_ended = await _move_next(conn, command_id, selection, to, last_id, caller_id)


async def _move_next(
    conn: AsyncConnection[Any], command_id: int, selection: Selection, to: str, last_id: int, caller_id: int | None
) -> bool:
    """One piece and the command's progress, in one transaction. Returns whether the command has ended."""
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or command.dataset_id is None:
        return True
    told: dict[str, Any] = command.spec["move"]
    if await commands.is_abort_requested(conn, command_id):
        error = f"It was aborted. {told['moved']:,} of {told['items']:,} items were moved and stay there."
        await commands.end_command(conn, command_id, "aborted", error=error)
        return True
    found = await selections.next_selected(
        conn, command.dataset_id, selection, after_id=command.spec["after"], last_id=last_id, limit=_PIECE_ITEMS
    )
    if not found:
        if selection.folder is not None and not told["conflicts"]:
            await folders.move_made(conn, command.dataset_id, selection.folder, to)
        await commands.end_command(conn, command_id, "success", warning=_warning(told))
        return True
    try:
        moves = [Move(item_id, path, _new_path(path, selection.folder, to)) for item_id, path in found]
    except HeadwaterError as error:
        await commands.end_command(conn, command_id, "failed", error=str(error))
        return True
    await moving.lock_moves(conn, command.dataset_id, moves)
    moved, left = await moving.move_items(conn, command.dataset_id, moves, updated_by_id=caller_id)
    told |= {
        "moved": told["moved"] + moved,
        "conflicts": told["conflicts"] + len(left),
        "examples": [*told["examples"], *map(_pair, left)][:_EXAMPLES],
    }
    await commands.note_progress(
        conn,
        command_id,
        progress_percent=min(99.0, 100 * (told["moved"] + told["conflicts"]) / max(1, told["items"])),
        spec={"move": told, "after": found[-1][0]},
    )
    await commands.announce_dataset(conn, command.dataset_id)
    return False


def _new_path(path: str, folder: str | None, to: str) -> str:
    """Raises BadRequest for one that is too long."""
    return checked_target(f"{to}/{name_of(path)}" if folder is None else to + path[len(folder.rstrip("/")) :])


def _warning(told: Mapping[str, Any]) -> str | None:
    if not told["conflicts"]:
        return None
    return f"{told['conflicts']:,} stayed where they were: {_said(told['examples'], told['conflicts'])}"


async def give_up(place: Workplace, command_id: int, error: str) -> None:
    """What was moved stays there."""
    async with place.pool.connection() as conn:
        await commands.end_command(conn, command_id, "failed", error=error)


async def find_folder(conn: AsyncConnection[Any], dataset_id: int, path: str) -> Folder | None:
    """One that is shown."""
    found = await folders.find_folder_at(conn, dataset_id, path)
    return None if found is None else await folders.find_folder(conn, found.id)


async def make_target(conn: AsyncConnection[Any], dataset: Dataset, to: str, caller: Account) -> None:
    """The folder that things are moved into, as if somebody had made it."""
    if to:
        await folders.make_folder(conn, dataset.id, to, caller.id)
