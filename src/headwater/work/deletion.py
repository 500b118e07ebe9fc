"""Deletion: rows go at once; their objects only where the driver allows it, by jobs that may be repeated.

What a store refuses to delete is never swallowed: its tombstone says so, the project is told, and it can be tried
again.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import (
    commands,
    datasets,
    drivers,
    folders,
    items,
    notices,
    projects,
    removals,
    selections,
    tombstones,
)
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item
from headwater.catalog.removals import Deleted
from headwater.catalog.selections import Selection, Summary
from headwater.errors import BadRequest, HeadwaterError, NotFound, StoreChanged, Unavailable
from headwater.ids import to_wire
from headwater.storage.stores import Doomed, Store
from headwater.wire.query import parse_items_query
from headwater.work.preprocess import thumbnail_key
from headwater.work.workplace import Workplace

DELETE_OBJECT_TASK = "delete_object"
DELETE_OBJECTS_TASK = "delete_objects"
DELETE_ITEMS_TASK = "delete_items"
PURGE_TASK = "purge_dataset"
KIND = "DeleteItems"
_PIECE_ITEMS = 1_000  # of one transaction, and of one job for their objects
_LOCKED_PATHS = 100  # while their objects are deleted nobody can write there
_LONGEST_DETAIL = 2_000
_PURGE_ROWS = 1_000
_log = logging.getLogger(__name__)


async def delete_item(conn: AsyncConnection[Any], item: Item) -> bool:
    """The row, in the caller's transaction, and a job for what is to go from the store. False: it was gone already."""
    return bool(await _delete_rows(conn, item.dataset_id, [(item.id, item.path)]))


async def _delete_rows(conn: AsyncConnection[Any], dataset_id: int, doomed: Sequence[tuple[int, str]]) -> list[Deleted]:
    """The rows of these (id, path), and one job for what is to go from the store. Returns those that were there."""
    await items.lock_paths(conn, dataset_id, [path for _, path in doomed])  # an upload may be about to replace one
    is_asked = await _may_delete_object(conn, dataset_id)
    deleted = await removals.delete_items(conn, dataset_id, doomed, is_object_asked=is_asked)
    left = [_left_of(gone) for gone in deleted if is_asked or gone.thumbnail_type]
    if left:
        await queue.defer(conn, DELETE_OBJECTS_TASK, dataset_id=dataset_id, doomed=left, delete_object=is_asked)
    return deleted


async def forget_derived(conn: AsyncConnection[Any], dataset_id: int, gone: Iterable[Deleted]) -> None:
    """A job, in the caller's transaction, for what was derived of rows that are no more; their objects stay."""
    left = [_left_of(one) for one in gone if one.thumbnail_type]
    if left:
        await queue.defer(conn, DELETE_OBJECTS_TASK, dataset_id=dataset_id, doomed=left, delete_object=False)


def _left_of(gone: Deleted) -> dict[str, str | None]:
    return {
        "path": gone.path,
        "object_key": gone.object_key,
        "thumbnail": thumbnail_key(gone.id, gone.thumbnail_type) if gone.thumbnail_type else None,
    }


async def _may_delete_object(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Our own storage is ours; in a bucket the driver decides, and before it the organisation."""
    driver_id = await datasets.driver_of(conn, dataset_id)
    return driver_id is None or (await drivers.get_driver(conn, driver_id)).allow_delete


async def delete_object(
    place: Workplace,
    *,
    dataset_id: int,
    path: str,
    object_key: str | None,
    thumbnail: str | None,
    delete_object: bool,
    is_last_try: bool = False,
) -> None:
    """`delete_objects` of one."""
    doomed = [{"path": path, "object_key": object_key, "thumbnail": thumbnail}]
    await delete_objects(
        place, dataset_id=dataset_id, doomed=doomed, delete_object=delete_object, is_last_try=is_last_try
    )


async def delete_objects(
    place: Workplace,
    *,
    dataset_id: int,
    doomed: Sequence[Mapping[str, str | None]],
    delete_object: bool,
    is_last_try: bool = False,
) -> None:
    """Remove the thumbnails of deleted items, and their objects where nothing was written to the path since.

    Safe to repeat. Raises Unavailable while the store is away; with `is_last_try` that is written down as a refusal.
    """
    try:
        if thumbnails := [key for one in doomed if (key := one["thumbnail"]) is not None]:
            async with place.places.of_derived(dataset_id) as derived:
                await _delete_derived(derived, thumbnails)
        if delete_object:
            async with place.places.of_dataset(dataset_id) as store:
                own = {str(one["path"]): key for one in doomed if (key := one["object_key"]) is not None}
                paths = [str(one["path"]) for one in doomed if one["object_key"] is None]
                await _delete_own(place, store, dataset_id, own)
                await _delete_from_bucket(place, store, dataset_id, paths)
    except NotFound:  # the dataset is purged, or its driver is gone
        return
    except Unavailable as error:
        if not is_last_try:
            raise
        await _note_refused(place, dataset_id, dict.fromkeys(_paths_of(doomed), error))
    except HeadwaterError as error:  # the store cannot even be opened
        await _note_refused(place, dataset_id, dict.fromkeys(_paths_of(doomed), error))


def _paths_of(doomed: Iterable[Mapping[str, str | None]]) -> list[str]:
    return [str(one["path"]) for one in doomed]


async def _delete_own(place: Workplace, store: Store, dataset_id: int, keys: Mapping[str, str]) -> None:
    """Objects of our own storage, by path: nobody else writes to their keys."""
    failures = await store.delete_many([Doomed(key) for key in keys.values()])
    gone = [path for path, key in keys.items() if key not in failures]
    async with place.pool.connection() as conn:
        await tombstones.forget_keys(conn, dataset_id, {path: keys[path] for path in gone})
    refused = {path: failures[key] for path, key in keys.items() if key in failures}
    _raise_unavailable(refused.values())
    await _note_refused(place, dataset_id, refused)


async def _delete_from_bucket(place: Workplace, store: Store, dataset_id: int, paths: Sequence[str]) -> None:
    """Pieces of few paths; each is done with before the next, whatever the store says about its objects."""
    away: list[HeadwaterError] = []
    for piece in _pieces(paths, _LOCKED_PATHS):
        async with place.pool.connection() as conn:
            failures = await _delete_piece(conn, store, dataset_id, piece)
        away += [error for error in failures.values() if isinstance(error, Unavailable)]
        refused = {path: error for path, error in failures.items() if not isinstance(error, Unavailable)}
        await _note_refused(place, dataset_id, refused)
    _raise_unavailable(away)


async def _delete_piece(
    conn: AsyncConnection[Any], store: Store, dataset_id: int, paths: Sequence[str]
) -> dict[str, HeadwaterError]:
    """Under the locks of the paths, for an upload may write there. Returns what stood in the way."""
    await items.lock_paths(conn, dataset_id, paths)
    waiting = await tombstones.lock_waiting(conn, dataset_id, paths)
    if not await _may_delete_object(conn, dataset_id):  # it was allowed when it was asked for
        await tombstones.note_objects_kept(conn, dataset_id, list(waiting))
        return {}
    found = await store.delete_many([Doomed(path[1:], etag) for path, etag in waiting.items()])
    failures = {"/" + key: error for key, error in found.items()}
    await tombstones.note_objects_deleted(conn, dataset_id, [path for path in waiting if path not in failures])
    # What was put into its place since is nothing that anybody here has deleted: the next sync makes it an item.
    replaced = [path for path, error in failures.items() if isinstance(error, StoreChanged)]
    await tombstones.forget(conn, dataset_id, replaced)
    return {path: error for path, error in failures.items() if path not in replaced}


def _raise_unavailable(errors: Iterable[HeadwaterError]) -> None:
    for error in errors:
        if isinstance(error, Unavailable):
            raise error


async def _note_refused(place: Workplace, dataset_id: int, errors: Mapping[str, HeadwaterError]) -> None:
    """Keep what the store said with the tombstones, and tell the project once."""
    if not errors:
        return
    async with place.pool.connection() as conn:
        await tombstones.note_refused(conn, dataset_id, {path: str(error) for path, error in errors.items()})
    path, error = next(iter(errors.items()))
    _log.warning("Dataset %024x: %s object(s) were not deleted, the first: %s", dataset_id, len(errors), error)
    async with place.pool.connection() as conn:
        if not await tombstones.tell_refusals(conn, dataset_id):
            return
        project_id, name = await datasets.place_of(conn, dataset_id)
        await notices.tell_project(
            conn,
            project_id,
            "error",
            "Objects could not be deleted",
            f"Items of dataset {name!r} were deleted, but the store did not let their objects go. The first is {path}: "
            f"{error} They stay where they are and no sync brings them back. List them: headwater delete {name} "
            f"--refused. Once the cause is gone, try again: headwater delete {name} --retry",
            dataset_id=dataset_id,
        )


async def _delete_derived(store: Store, keys: Sequence[str]) -> None:
    """A derived file we may not delete is left behind: the user's rights count more than our tidiness.

    Raises Unavailable. `headwater verify` lists what is left behind.
    """
    for piece in _pieces(keys, _PIECE_ITEMS):
        _raise_unavailable((await store.delete_many([Doomed(key) for key in piece])).values())


def _pieces(texts: Sequence[str], size: int) -> Iterable[list[str]]:
    given = iter(texts)
    while piece := list(islice(given, size)):
        yield piece


async def retry_refused(conn: AsyncConnection[Any], dataset: Dataset) -> int:
    """Jobs for the objects that were refused; what each comes to is written down anew. Returns how many.

    Raises BadRequest where objects may not be deleted at all.
    """
    if not await _may_delete_object(conn, dataset.id):
        raise BadRequest(
            f"The driver of dataset {dataset.name!r}, or its organisation, does not allow objects to be deleted. "
            "Allow it first: headwater driver update DRIVER --allow-delete"
        )
    tried, after = 0, ""
    while refused := await tombstones.list_tombstones(
        conn, dataset.id, state="refused", after=after, limit=_PIECE_ITEMS
    ):
        doomed = [{"path": one.path, "object_key": one.object_key, "thumbnail": None} for one in refused]
        await queue.defer(conn, DELETE_OBJECTS_TASK, dataset_id=dataset.id, doomed=doomed, delete_object=True)
        tried, after = tried + len(refused), refused[-1].path
    return tried


# Many at once.


def selection_of(wanted: Mapping[str, Any]) -> Selection:
    """From what is kept of it in a job: filter, ids, folder, missing, missing_until, shown. Raises BadRequest."""
    tree = parse_items_query({"filter": wanted.get("filter") or {}}).files
    if tree is None:
        raise BadRequest("filter: it chooses folders, and only files can be deleted. A folder goes with its files.")
    return Selection(
        tree=tree,
        ids=wanted.get("ids"),
        folder=wanted.get("folder"),
        is_missing=bool(wanted.get("missing")),
        missing_until=datetime.fromisoformat(until) if (until := wanted.get("missing_until")) else None,
        is_shown=bool(wanted.get("shown")),
    )


def described(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """For the audit log, where a long list has no room."""
    told = {name: value for name, value in wanted.items() if value not in (None, False)}
    if "ids" in told:
        told["ids"] = len(told["ids"])
    if len(json.dumps(told)) > _LONGEST_DETAIL:
        told["filter"] = "too long to be kept"
    return told


async def what_of_objects(conn: AsyncConnection[Any], dataset_id: int) -> str:
    """What becomes of the objects of items that are deleted, behind "their objects"."""
    driver_id = await datasets.driver_of(conn, dataset_id)
    if driver_id is None:
        return "are deleted from Headwater's own storage"
    driver = await drivers.get_driver(conn, driver_id)
    return f"{'are deleted from' if driver.allow_delete else 'stay in'} {_url_of(driver)}"


def _url_of(driver: drivers.Driver) -> str:
    schemes = {"s3": "s3://", "gcs": "gs://", "azureblob": "azure://", "azureDatalakeGen2": "azure://"}
    return f"{schemes.get(driver.kind, '')}{driver.root}/{driver.prefix}".rstrip("/")


async def request_deletion(
    conn: AsyncConnection[Any],
    dataset: Dataset,
    wanted: Mapping[str, Any],
    summary: Summary,
    *,
    caller_id: int,
) -> int:
    """Start a command that deletes what is selected now; its job commits with it. Returns the command's id.

    What goes missing later, while the command waits or works, is nothing that anybody has seen and asked for.
    """
    if wanted.get("missing"):
        wanted = {**wanted, "missing_until": summary.asked_at.isoformat()}
    progress = {"items": summary.items, "deleted": 0, "bytes": 0}
    objects = await what_of_objects(conn, dataset.id)
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=KIND,
        spec={"datasetId": to_wire(dataset.id), "deletion": progress | {"objects": objects}, "after": 0},
        creator_id=caller_id,
    )
    await queue.defer(conn, DELETE_ITEMS_TASK, command_id=command_id, wanted=dict(wanted), last_id=summary.last_id)
    return command_id


async def delete_items(place: Workplace, *, command_id: int, wanted: Mapping[str, Any], last_id: int) -> None:
    """Piece by piece to the end of the command. Safe to repeat, and to run more than once side by side."""
    selection = selection_of(wanted)
    has_ended = False
    while not has_ended:
        async with place.pool.connection() as conn:
            has_ended = await _delete_next(conn, command_id, selection, last_id)


async def _delete_next(conn: AsyncConnection[Any], command_id: int, selection: Selection, last_id: int) -> bool:
    """One piece and the command's progress, in one transaction. Returns whether the command has ended.

    The command is locked first, which nobody does who holds anything that a piece waits for.
    """
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or command.dataset_id is None:
        return True
    told: dict[str, Any] = command.spec["deletion"]
    if await commands.is_abort_requested(conn, command_id):
        error = f"The deletion was aborted. {told['deleted']:,} of {told['items']:,} items were deleted and stay so."
        await commands.end_command(conn, command_id, "aborted", error=error)
        return True
    doomed = await selections.next_selected(
        conn, command.dataset_id, selection, after_id=command.spec["after"], last_id=last_id, limit=_PIECE_ITEMS
    )
    if not doomed:
        await commands.end_command(conn, command_id, "success")
        return True
    deleted = await _delete_rows(conn, command.dataset_id, doomed)
    told |= {
        "deleted": told["deleted"] + len(deleted),
        "bytes": told["bytes"] + sum(gone.size_bytes for gone in deleted),
    }
    await commands.note_progress(
        conn,
        command_id,
        progress_percent=min(99.0, 100 * told["deleted"] / max(1, told["items"])),
        spec={"deletion": told, "after": doomed[-1][0]},
    )
    await commands.announce_dataset(conn, command.dataset_id)
    return False


async def give_up(place: Workplace, command_id: int, error: str) -> None:
    """What was deleted stays deleted."""
    async with place.pool.connection() as conn:
        await commands.end_command(conn, command_id, "failed", error=error)


async def purge_dataset(place: Workplace, dataset_id: int) -> None:
    """Remove the rows and derived files of a deleted dataset, in pieces; objects of buckets stay. Safe to repeat."""
    async with place.pool.connection() as conn:
        doomed = await datasets.find_deleted(conn, dataset_id)
    if doomed is None:
        return
    async with place.places.of_derived(dataset_id) as store:
        while True:
            async with place.pool.connection() as conn:
                bundle = await removals.first_keys(conn, dataset_id, limit=_PURGE_ROWS)
            if not bundle:
                break
            await _delete_derived(
                store, [thumbnail_key(row_id, kind) for row_id, kind, _ in bundle if kind is not None]
            )
            if doomed.driver_id is None:
                failures = await store.delete_many([Doomed(key) for _, _, key in bundle if key is not None])
                for error in failures.values():  # or nobody would ever find these objects again
                    raise Unavailable(f"The dataset's own objects cannot be deleted yet. {error}")
            async with place.pool.connection() as conn:
                await removals.purge(conn, dataset_id, [item_id for item_id, _, _ in bundle])
    async with place.pool.connection() as conn:
        await datasets.forget_dataset(conn, dataset_id)  # no scan commits a batch after this
        await removals.purge_rest(conn, dataset_id)
        await folders.purge(conn, dataset_id)
        await projects.forget_project(conn, doomed.project_id)
