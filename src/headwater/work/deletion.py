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
    annotations,
    commands,
    datasets,
    drivers,
    folders,
    items,
    notices,
    projects,
    removals,
    selections,
    sharing,
    tombstones,
)
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item
from headwater.catalog.removals import Deleted
from headwater.catalog.selections import Selection, Summary
from headwater.catalog.sharing import Where
from headwater.errors import BadRequest, HeadwaterError, NotFound, StoreChanged, Unavailable
from headwater.ids import to_wire
from headwater.storage.stores import Doomed, Store
from headwater.wire.query import parse_items_query
from headwater.work.preprocess import thumbnail_key, thumbnail_number
from headwater.work.workplace import Workplace

DELETE_OBJECT_TASK = "delete_object"
DELETE_OBJECTS_TASK = "delete_objects"
DELETE_ITEMS_TASK = "delete_items"
PURGE_TASK = "purge_dataset"
KIND = "DeleteItems"
_PIECE_ITEMS = 1_000  # of one transaction, and of one job for their objects
_LOCKED_PATHS = 100  # while their objects are deleted nobody can write there
_IMPORTS = "imports/"
_LONGEST_DETAIL = 2_000
_PURGE_ROWS = 1_000
_log = logging.getLogger(__name__)


async def delete_item(conn: AsyncConnection[Any], item: Item) -> bool:
    """The row, in the caller's transaction, and a job for what is to go from the store. False: it was gone already."""
    return bool(await _delete_rows(conn, item.dataset_id, [(item.id, item.path)]))


async def _delete_rows(conn: AsyncConnection[Any], dataset_id: int, doomed: Sequence[tuple[int, str]]) -> list[Deleted]:
    """The rows of these (id, path), and one job for what is to go from the store. Returns those that were there."""
    await items.lock_paths(conn, dataset_id, [path for _, path in doomed])  # an upload may be about to replace one
    driver_id = await datasets.driver_of(conn, dataset_id)
    is_asked = await _may_delete_object(conn, dataset_id)
    deleted = await removals.delete_items(conn, dataset_id, doomed, is_object_asked=is_asked)
    left = [_left_of(gone) for gone in deleted if gone.thumbnail_type or (is_asked and _has_object(gone, driver_id))]
    if left:
        await queue.defer(conn, DELETE_OBJECTS_TASK, dataset_id=dataset_id, doomed=left, delete_object=is_asked)
    return deleted


def _has_object(gone: Deleted, driver_id: int | None) -> bool:
    """Whether an object may go with it: in our own storage links have none, in a bucket clones have none."""
    return gone.object_key is not None if driver_id is None else gone.origin_dataset_id is None


async def kept_for_clones(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> int:
    """How many of the objects at these paths stay in the bucket because clones use them."""
    driver_id = await datasets.driver_of(conn, dataset_id)
    if driver_id is None or not await _may_delete_object(conn, dataset_id):
        return 0
    return len(await sharing.named_objects(conn, Where(driver_id, dataset_id), [path[1:] for path in paths]))


async def drop_replaced(conn: AsyncConnection[Any], replaced: Sequence[Item]) -> None:
    """A job, in the caller's transaction, for what `items.put_items` has left of items that it gave new content.

    All of one dataset, as they were before. That is their thumbnails, and in our own storage their objects; in a
    bucket these were replaced themselves.
    """
    left = [found for before in replaced if (found := _left_of_replaced(before)) is not None]
    if left:
        dataset_id = replaced[0].dataset_id
        has_objects = any(one["object_key"] is not None for one in left)
        await queue.defer(conn, DELETE_OBJECTS_TASK, dataset_id=dataset_id, doomed=left, delete_object=has_objects)


def _left_of_replaced(before: Item) -> dict[str, Any] | None:
    kind = before.thumbnail_type
    if before.object_key is None and kind is None:
        return None
    return {
        "path": before.path,
        "object_key": before.object_key,
        "thumbnail": thumbnail_key(before.thumbnail_number, kind) if kind else None,
        "origin": before.origin_dataset_id,
    }


async def forget_derived(conn: AsyncConnection[Any], dataset_id: int, gone: Iterable[Deleted]) -> None:
    """A job, in the caller's transaction, for what was derived of rows that are no more; their objects stay."""
    left = [_left_of(one) for one in gone if one.thumbnail_type]
    if left:
        await queue.defer(conn, DELETE_OBJECTS_TASK, dataset_id=dataset_id, doomed=left, delete_object=False)


def _left_of(gone: Deleted) -> dict[str, Any]:
    """As jobs keep it."""
    kind = gone.thumbnail_type
    return {
        "path": gone.path,
        "object_key": gone.object_key,
        "thumbnail": thumbnail_key(gone.thumbnail_number, kind) if kind else None,
        "origin": gone.origin_dataset_id,
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
    """`delete_objects` of one; jobs of earlier releases ask for it."""
    doomed = [{"path": path, "object_key": object_key, "thumbnail": thumbnail}]
    await delete_objects(
        place, dataset_id=dataset_id, doomed=doomed, delete_object=delete_object, is_last_try=is_last_try
    )


async def delete_objects(
    place: Workplace,
    *,
    dataset_id: int,
    doomed: Sequence[Mapping[str, Any]],
    delete_object: bool,
    is_last_try: bool = False,
) -> None:
    """Remove the thumbnails of deleted items, and their objects where nothing was written to the path since.

    What another item still names stays: the last one takes it along. Safe to repeat. Raises Unavailable while the
    store is away; with `is_last_try` that is written down as a refusal.
    """
    try:
        driver_id = await _driver_of(place, dataset_id, doomed)
        for origin_id, group in _by_origin(doomed).items():
            where = Where(driver_id, origin_id or dataset_id)
            await _delete_thumbnails(place, dataset_id, where, [key for one in group if (key := one["thumbnail"])])
            if delete_object and driver_id is None:
                own = {str(one["path"]): key for one in group if (key := one["object_key"]) is not None}
                await _delete_own(place, where, dataset_id, own)
            elif delete_object and origin_id is None:
                async with place.places.of_dataset(dataset_id) as store:
                    await _delete_from_bucket(place, store, where, [str(one["path"]) for one in group])
    except NotFound:  # the dataset is purged, or its driver is gone
        return
    except Unavailable as error:
        if not is_last_try:
            raise
        await _note_refused(place, dataset_id, dict.fromkeys(_paths_of(doomed), error))
    except HeadwaterError as error:  # the store cannot even be opened
        await _note_refused(place, dataset_id, dict.fromkeys(_paths_of(doomed), error))


def _paths_of(doomed: Iterable[Mapping[str, Any]]) -> list[str]:
    return [str(one["path"]) for one in doomed]


def _by_origin(doomed: Iterable[Mapping[str, Any]]) -> dict[int | None, list[Mapping[str, Any]]]:
    found: dict[int | None, list[Mapping[str, Any]]] = {}
    for one in doomed:
        found.setdefault(one.get("origin"), []).append(one)
    return found


async def _driver_of(place: Workplace, dataset_id: int, doomed: Iterable[Mapping[str, Any]]) -> int | None:
    """None for our own storage, also of a dataset that is purged. Raises NotFound for one in a bucket that is."""
    async with place.pool.connection() as conn:
        try:
            return await datasets.driver_of(conn, dataset_id)
        except NotFound:
            if any(one["object_key"] is not None and one.get("origin") is None for one in doomed):
                return None  # only there keys are not paths
            raise


async def _delete_thumbnails(place: Workplace, dataset_id: int, where: Where, keys: Sequence[str]) -> None:
    """Those that no item has any more. Raises Unavailable, NotFound."""
    if not keys:
        return
    async with (
        place.places.of_thumbnails(dataset_id, where.origin_id)
        if where.driver_id is not None
        else place.places.of_own(where.origin_id) as store,
        place.pool.connection() as conn,
    ):
        await sharing.lock_to_delete(conn, [where])
        await _delete_unnamed_thumbnails(conn, store, keys)


async def _delete_unnamed_thumbnails(conn: AsyncConnection[Any], store: Store, keys: Sequence[str]) -> None:
    named = await sharing.named_thumbnails(conn, {thumbnail_number(key) for key in keys})
    await _delete_derived(store, [key for key in keys if thumbnail_number(key) not in named])


async def delete_own_unnamed(
    conn: AsyncConnection[Any], store: Store, where: Where, keys: Sequence[str]
) -> dict[str, HeadwaterError]:
    """Delete objects of our own storage that no item names, under its lock. Returns what stood in the way, by key."""
    await sharing.lock_to_delete(conn, [where])
    named = await sharing.named_objects(conn, where, keys)
    return await store.delete_many([Doomed(key) for key in keys if key not in named])


async def _delete_own(place: Workplace, where: Where, dataset_id: int, keys: Mapping[str, str]) -> None:
    """Objects of our own storage, by path: nobody else writes to their keys."""
    if not keys:
        return
    async with place.places.of_own(where.origin_id) as store, place.pool.connection() as conn:
        failures = await delete_own_unnamed(conn, store, where, list(keys.values()))
        gone = [path for path, key in keys.items() if key not in failures]
        await tombstones.forget_keys(conn, dataset_id, {path: keys[path] for path in gone})
    refused = {path: failures[key] for path, key in keys.items() if key in failures}
    _raise_unavailable(refused.values())
    await _note_refused(place, dataset_id, refused)


async def _delete_from_bucket(place: Workplace, store: Store, where: Where, paths: Sequence[str]) -> None:
    """Pieces of few paths; each is done with before the next, whatever the store says about its objects."""
    away: list[HeadwaterError] = []
    for piece in _pieces(paths, _LOCKED_PATHS):
        async with place.pool.connection() as conn:
            failures = await _delete_piece(conn, store, where, piece)
        away += [error for error in failures.values() if isinstance(error, Unavailable)]
        refused = {path: error for path, error in failures.items() if not isinstance(error, Unavailable)}
        await _note_refused(place, where.origin_id, refused)
    _raise_unavailable(away)


async def _delete_piece(
    conn: AsyncConnection[Any], store: Store, where: Where, paths: Sequence[str]
) -> dict[str, HeadwaterError]:
    """Under the locks of the paths, for an upload may write there. Returns what stood in the way."""
    dataset_id = where.origin_id
    await items.lock_paths(conn, dataset_id, paths)
    await sharing.lock_to_delete(conn, [where])
    waiting = await tombstones.lock_waiting(conn, dataset_id, paths)
    if not await _may_delete_object(conn, dataset_id):  # it was allowed when it was asked for
        await tombstones.note_objects_kept(conn, dataset_id, list(waiting))
        return {}
    named = await sharing.named_objects(conn, where, [path[1:] for path in waiting])
    kept = [path for path in waiting if path[1:] in named]  # clones use them
    await tombstones.note_objects_kept(conn, dataset_id, kept)
    waiting = {path: etag for path, etag in waiting.items() if path not in kept}
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
    tree = parse_items_query({"filter": wanted.get("filter") or {}}).only_files(
        "filter: it chooses folders, and only files can be deleted. A folder goes with its files."
    )
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
        kept = told.get("keptForClones", 0)
        warning = f"{kept:,} of their objects stay in the bucket, because clones use them." if kept else None
        await commands.end_command(conn, command_id, "success", warning=warning)
        return True
    deleted = await _delete_rows(conn, command.dataset_id, doomed)
    if kept := await kept_for_clones(conn, command.dataset_id, [gone.path for gone in deleted]):
        told["keptForClones"] = told.get("keptForClones", 0) + kept
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
        await commands.wait_for_all(conn, dataset_id)  # a clone may be about to add rows, whose objects go as well
    if doomed is None:
        return
    while True:
        async with place.pool.connection() as conn:
            if not await _purge_next(conn, place, dataset_id, doomed.driver_id):
                break
    while True:
        async with place.pool.connection() as conn:
            if not await annotations.purge(conn, dataset_id, limit=_PURGE_ROWS):
                break
    await _delete_imports(place, dataset_id)
    async with place.pool.connection() as conn:
        await datasets.forget_dataset(conn, dataset_id)  # no scan commits a batch after this
        await removals.purge_rest(conn, dataset_id)
        await folders.purge(conn, dataset_id)
        await projects.forget_project(conn, doomed.project_id)


async def _delete_imports(place: Workplace, dataset_id: int) -> None:
    """CSV files and their verdicts, which lie in our own storage of every dataset."""
    async with place.places.of_own(dataset_id) as store:
        async for page in store.list_pages(prefix=_IMPORTS):
            await _delete_derived(store, page.keys)


async def _purge_next(conn: AsyncConnection[Any], place: Workplace, dataset_id: int, driver_id: int | None) -> bool:
    """Some rows, and of their objects and thumbnails what nobody else names. Returns whether there were any.

    Nobody adds or gives up names meanwhile, so of two purges one finds itself to be the last. Should the transaction
    not commit, the rows are found again, without their objects.
    """
    last_id, origin_ids = await removals.first_origins(conn, dataset_id, limit=_PURGE_ROWS)
    if not last_id:
        return False
    await sharing.lock_to_add(conn, [Where(driver_id, origin_id) for origin_id in origin_ids])
    gone = await removals.purge(conn, dataset_id, last_id)
    for origin_id, group in _by_origin(map(_left_of, gone)).items():
        where = Where(driver_id, origin_id or dataset_id)
        if thumbnails := [key for one in group if (key := one["thumbnail"])]:
            async with place.places.of_thumbnails(dataset_id, origin_id) as store:
                await _delete_unnamed_thumbnails(conn, store, thumbnails)
        keys = [key for one in group if (key := one["object_key"]) is not None]
        if driver_id is None and keys:
            async with place.places.of_own(where.origin_id) as store:
                failures = await delete_own_unnamed(conn, store, where, keys)
            for error in failures.values():  # or nobody would ever find these objects again
                raise Unavailable(f"The dataset's own objects cannot be deleted yet. {error}")
    return True
