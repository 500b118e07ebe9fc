"""Cloning and merging datasets: rows that name the objects of others, piece by piece in a command; no byte is copied.

Of both datasets the objects have to lie in the same place: in our own storage, or in the bucket of one driver. Rights
are asked for when a clone is made; from then on it belongs to its dataset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import cloning, commands, datasets, item_collections, quotas
from headwater.catalog.accounts import Account
from headwater.catalog.cloning import Wish
from headwater.catalog.commands import Command
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import HIDDEN_FOLDER, Item
from headwater.catalog.selections import Selection
from headwater.errors import BadRequest, HeadwaterError
from headwater.ids import to_wire
from headwater.wire.query import parse_items_query
from headwater.work.upload.paths import checked_path
from headwater.work.workplace import Workplace

TASK = "clone_items"
CLONE, MERGE, CLONE_ITEM = "CloneDataset", "MergeDatasets", "CloneItem"
_PIECE_ITEMS = 20_000  # of one transaction


@dataclass(frozen=True, slots=True)
class Options:
    folder: str = ""  # of the target, in front of every path
    with_metadata: bool = True
    with_task_status: bool = False
    with_collections: bool = False  # settled when a clone is asked for: the target has those of its one source
    with_annotations: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a clone would come to now. Of several sources, what they clash with each other in is not looked at."""

    items: int = 0
    size_bytes: int = 0
    there_already: int = 0
    renamed: int = 0
    missing: int = 0


def checked_folder(given: str | None) -> str:
    """'' for the root, or `/a/b`. Raises BadRequest."""
    if given is None or not given.strip("/"):
        return ""
    folder = checked_path(given.rstrip("/"))
    if (folder + "/").startswith(HIDDEN_FOLDER + "/"):
        raise BadRequest(f"{folder} is where Headwater keeps its own files. Choose another folder.")
    return folder


def selection_of(wanted: Mapping[str, Any]) -> Selection:
    """From what a job keeps of it: filter, folder. Raises BadRequest."""
    tree = parse_items_query({"filter": wanted.get("filter") or {}}).only_files(
        "filter: it chooses folders, and only files can be cloned. A folder comes with its files."
    )
    return Selection(tree=tree, folder=wanted.get("folder"), is_shown=True)


def check_same_storage(sources: Sequence[Dataset], target: Dataset | None = None) -> None:
    """Raises BadRequest."""
    first, *others = [*sources, *([] if target is None else [target])]
    for other in others:
        if other.driver_id != first.driver_id:
            raise BadRequest(
                f"Dataset {first.name!r} lies in {_kind(first)}, and dataset {other.name!r} in {_kind(other)}. A clone "
                "shares the bytes of its original, so both have to lie in Headwater's own storage, or in the bucket "
                "of the same driver. To have a copy of the bytes, download and upload them."
            )


def _kind(dataset: Dataset) -> str:
    return (
        "Headwater's own storage" if dataset.driver_id is None else f"the bucket of driver {to_wire(dataset.driver_id)}"
    )


async def check_target(conn: AsyncConnection[Any], target: Dataset) -> None:
    """An existing dataset that is to take clones. Raises BadRequest."""
    if target.readonly:
        raise BadRequest(f"Dataset {target.name!r} is read-only.")
    if target.driver_id is not None and target.origin is None and not await cloning.is_untouched(conn, target.id):
        raise BadRequest(
            f"Dataset {target.name!r} is kept in step with its bucket, and a clone has no object of its own there: the "
            "next sync would take it for gone. Clone into a new dataset, into one that is a clone itself, or into one "
            "that has no items and was never synced."
        )


def _wish(
    target_id: int, driver_id: int | None, options: Options, creator_id: int | None, *, is_merge: bool = False
) -> Wish:
    return Wish(
        target_id=target_id,
        driver_id=driver_id,
        folder=options.folder,
        with_metadata=options.with_metadata,
        with_task_status=options.with_task_status,
        with_annotations=options.with_annotations,
        is_merge=is_merge,
        creator_id=creator_id,
        with_collections=options.with_collections,
    )


async def estimate(
    conn: AsyncConnection[Any],
    sources: Sequence[Dataset],
    wanted: Mapping[str, Any],
    target: Dataset | None,
    options: Options,
) -> Estimate:
    """A dry run. Raises BadRequest where the clone would be refused, too."""
    check_same_storage(sources, target)
    if target is not None:
        await check_target(conn, target)
    selection = selection_of(wanted)
    wish = _wish(0 if target is None else target.id, sources[0].driver_id, options, None)
    found = [await cloning.preview(conn, source.id, selection, wish) for source in sources]
    missing = [await cloning.count_missing(conn, source.id, selection) for source in sources]
    return Estimate(
        items=sum(one.items for one in found),
        size_bytes=sum(one.size_bytes for one in found),
        there_already=sum(one.there_already for one in found),
        renamed=sum(one.renamed for one in found),
        missing=sum(missing),
    )


@dataclass(frozen=True, slots=True)
class Requested:
    items: int
    job: dict[str, Any]  # what `clone_items` is called with

    @property
    def command_id(self) -> int:
        return self.job["command_id"]


async def request_clone(
    conn: AsyncConnection[Any],
    caller: Account,
    sources: Sequence[Dataset],
    wanted: Mapping[str, Any],
    target: Dataset,
    options: Options,
    *,
    is_merge: bool = False,
) -> Requested:
    """Start a command that clones what is selected now into `target`; its job commits with it.

    Raises BadRequest where storages differ, QuotaExceeded when there is no room for all of it: then nothing is cloned.
    """
    check_same_storage(sources, target)
    await check_target(conn, target)
    if target.driver_id is not None:
        await cloning.note_origin(conn, target.id, "clone", [source.id for source in sources])
    selection = selection_of(wanted)
    wish = _wish(target.id, target.driver_id, options, caller.id)
    found = [await cloning.preview(conn, source.id, selection, wish) for source in sources]
    missing = sum([await cloning.count_missing(conn, source.id, selection) for source in sources])
    number = sum(one.items for one in found)
    room = await quotas.lock_room(conn, target.id)
    needs = number - sum(one.there_already for one in found)
    if room is not None and needs > room.left:
        raise room.exceeded(needs)
    told = {"items": number, "cloned": 0, "bytes": 0, "thereAlready": 0, "renamed": 0, "tooLong": 0, "missing": missing}
    told["annotations"] = 0
    spec: dict[str, Any] = {"datasetId": to_wire(target.id), "clone": told, "source": 0, "after": 0}
    if is_merge:
        spec["mergeDatasetsConfiguration"] = {
            "name": target.name,
            "datasetsIds": [to_wire(source.id) for source in sources],
            "targetDatasetId": to_wire(target.id),
        }
    else:
        spec["returnedModelId"] = to_wire(target.id)
    if len(sources) == 1 and options.with_metadata:
        is_same = await item_collections.copy_all(conn, sources[0].id, target.id)
        options = replace(options, with_collections=is_same)
    command_id = await commands.start_command(
        conn,
        project_id=target.project_id,
        dataset_id=target.id,
        kind=MERGE if is_merge else CLONE,
        spec=spec,
        creator_id=caller.id,
    )
    job: dict[str, Any] = {
        "command_id": command_id,
        "sources": [[source.id, one.last_id] for source, one in zip(sources, found, strict=True)],
        "wanted": dict(wanted),
        "options": asdict(options),
        "creator_id": caller.id,
    }
    await queue.defer(conn, TASK, **job)
    return Requested(number, job)


async def clone_items(
    place: Workplace,
    *,
    command_id: int,
    sources: Sequence[Sequence[int]],
    wanted: Mapping[str, Any],
    options: Mapping[str, Any],
    creator_id: int | None,
) -> None:
    """Piece by piece to the end of the command. Safe to repeat, and to run more than once side by side.

    `sources`: (dataset, last item that is cloned of it), in the order in which they are cloned.
    """
    has_ended = False
    while not has_ended:
        async with place.pool.connection() as conn:
            has_ended = await _clone_next(conn, command_id, sources, wanted, Options(**options), creator_id)


async def _clone_next(
    conn: AsyncConnection[Any],
    command_id: int,
    sources: Sequence[Sequence[int]],
    wanted: Mapping[str, Any],
    options: Options,
    creator_id: int | None,
) -> bool:
    """One piece and the command's progress, in one transaction. Returns whether the command has ended.

    The command is locked first, which nobody does who holds anything that a piece waits for.
    """
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or command.dataset_id is None:
        return True
    at = command.spec["source"]
    is_aborted = await commands.is_abort_requested(conn, command_id)
    if is_aborted or at >= len(sources):
        await _end(conn, command, "It was aborted." if is_aborted else None, "aborted")
        return True
    source_id, last_id = sources[at]
    driver_id = await datasets.driver_of(conn, command.dataset_id)
    wish = _wish(command.dataset_id, driver_id, options, creator_id, is_merge=command.kind == MERGE)
    try:
        async with conn.transaction():
            piece = await cloning.clone_piece(
                conn,
                source_id,
                selection_of(wanted),
                wish,
                after_id=command.spec["after"],
                last_id=last_id,
                limit=_PIECE_ITEMS,
            )
    except HeadwaterError as error:
        await _end(conn, command, str(error), "failed")
        return True
    if piece is None:
        await commands.note_progress(
            conn, command_id, progress_percent=command.progress_percent, spec={"source": at + 1, "after": 0}
        )
        return False
    told: dict[str, Any] = command.spec["clone"]
    told |= {
        "cloned": told["cloned"] + piece.cloned,
        "bytes": told["bytes"] + piece.size_bytes,
        "thereAlready": told["thereAlready"] + piece.there_already,
        "renamed": told["renamed"] + piece.renamed,
        "tooLong": told["tooLong"] + piece.too_long,
        "annotations": told.get("annotations", 0) + piece.annotations,
    }
    done = told["cloned"] + told["thereAlready"] + told["tooLong"]
    await commands.note_progress(
        conn,
        command_id,
        progress_percent=min(99.0, 100 * done / max(1, told["items"])),
        spec={"clone": told, "after": piece.last_id},
    )
    await commands.announce_dataset(conn, command.dataset_id)
    return False


async def _end(conn: AsyncConnection[Any], command: Command, error: str | None, status: str) -> None:
    """With success, unless there is an error."""
    if error is None:
        await commands.end_command(conn, command.id, "success", warning=_warning(command))
    else:
        await commands.end_command(conn, command.id, status, error=f"{error} {_what_stays(command)}")


def _what_stays(command: Command) -> str:
    told = command.spec["clone"]
    return (
        f"{told['cloned']:,} of {told['items']:,} items were cloned and stay. Clone into the same dataset again to go "
        "on: what is there already is left as it is."
    )


def _warning(command: Command) -> str | None:
    told = command.spec["clone"]
    said: list[str] = []
    if told["renamed"]:
        said.append(f"{told['renamed']:,} got a number behind their name, because another item had it.")
    if told["missing"]:
        said.append(f"{told['missing']:,} were left out: their objects are missing from the bucket.")
    if told["tooLong"]:
        said.append(f"{told['tooLong']:,} were left out: their paths would be longer than 1,024 bytes.")
    return " ".join(said) or None


async def clone_item(
    conn: AsyncConnection[Any],
    caller: Account,
    item: Item,
    source: Dataset,
    target: Dataset,
    path: str,
    options: Options,
    *,
    may_be_another: bool,
) -> int:
    """The id of the clone. Raises BadRequest, Conflict, NotFound, QuotaExceeded."""
    check_same_storage([source], target)
    await check_target(conn, target)
    if item.missing_since is not None or item.trashed_at is not None:
        raise BadRequest(f"The object of {item.path} is missing from its bucket, so there is nothing to share.")
    if item.hidden:
        raise BadRequest(f"{item.path} is one of Headwater's own files.")
    checked_folder(path.rpartition("/")[0])
    if target.driver_id is not None:
        await cloning.note_origin(conn, target.id, "clone", [source.id])
    wish = _wish(target.id, target.driver_id, options, caller.id)
    return await cloning.clone_one(conn, item, wish, checked_path(path), may_be_another=may_be_another)


async def give_up(place: Workplace, command_id: int, error: str) -> None:
    """What was cloned stays."""
    async with place.pool.connection() as conn:
        await _end(conn, await commands.load_command(conn, command_id), error, "failed")
