"""Verifying: compares a dataset's index with its bucket, both ways, and its derived files with its items.

The listing is read in the order of keys beside the index, a batch at a time, so memory does not grow with the dataset.
What seems to differ is looked at again, under the lock of its path, before it is told: listings are older than the
rows they are compared with. A repair only ever adds to the index what a request has just seen in the bucket, has
thumbnails made again, counts anew, and deletes files that are ours and nobody's.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, datasets, items, planned_uploads, quotas, tombstones, uploads, verifying
from headwater.catalog.commands import Command
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import HIDDEN_FOLDER, Item, Written
from headwater.catalog.sharing import Where
from headwater.catalog.sync.listed import Listed
from headwater.catalog.sync.rules import load_rules
from headwater.catalog.verifying import Column, Difference, Thumbnails
from headwater.errors import Conflict, FailedDependency, HeadwaterError, StoreMissing, Unavailable
from headwater.ids import to_wire
from headwater.storage.stores import Doomed, ListingPage, ObjectInfo, Store
from headwater.work import tus
from headwater.work.aborting import Aborted, until_aborted
from headwater.work.deletion import delete_own_unnamed, drop_replaced
from headwater.work.preprocess import TASK as PREPROCESS_TASK
from headwater.work.preprocess import thumbnail_key
from headwater.work.selection import Selection
from headwater.work.sync.batches import KeyRange, Unordered, batches, is_no_item
from headwater.work.upload import planned
from headwater.work.workplace import Workplace

TASK = "verify_dataset"
KIND = "VerifyDataset"

_EXAMPLES = 100
_MOST_LOOKED_AT = 10_000  # of each kind; what is more is counted as it was listed
_AT_ONCE = 6
_BATCH_KEYS = 5_000
_ABORT_POLL_S = 0.3
_OWN_OBJECTS = "objects/"
_THUMBNAILS = f"{HIDDEN_FOLDER[1:]}/thumbnails/"
_THUMBNAIL = re.compile(re.escape(_THUMBNAILS) + r"0{8}([0-9a-f]{16})\.(jpg|webp)")
_TYPES = {"jpg": "image/jpeg", "webp": "image/webp"}
_YOUNG_THUMBNAIL = timedelta(hours=1)  # its row may be about to be written
_YOUNG_OBJECT = timedelta(days=1)  # its upload may be about to end
_LAST_ID = 2**63 - 1

# On the wire as keys of the command's `spec.verify`, and how people say them.
_NAMES: dict[str, str] = {
    "notIndexed": "object(s) without an item",
    "missingObjects": "item(s) without their object",
    "changedObjects": "item(s) whose object is another",
    "returnedGhosts": "item(s) marked missing whose object is there",
    "notListed": "object(s) that the listing left out though they are there",
    "orphanObjects": "object(s) of our own storage without an item",
    "abandonedUploads": "upload(s) that were begun and not ended in time",
    "missingThumbnails": "item(s) without their thumbnail",
    "orphanThumbnails": "thumbnail(s) without an item",
    "forgottenItems": "item(s) that wait to be read by nobody",
    "wrongCounters": "wrong counter(s)",
    "refusedDeletions": "object(s) of deleted items that the store did not let go",
}
_OF_DIFFERENCE: dict[Difference, str] = {
    "unindexed": "notIndexed",
    "missing": "missingObjects",
    "changed": "changedObjects",
    "returned": "returnedGhosts",
}


@dataclass
class _Run:
    place: Workplace
    command: Command
    dataset_id: int
    is_own: bool  # in our own storage
    is_clone: bool  # made of other datasets
    selection: Selection
    repairs: bool
    started_at: datetime
    listed: int = 0
    compared: int = 0
    present: int = 0
    looked_at: int = 0
    unchecked: int = 0  # counted as they were listed
    out_of_room: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    repaired: Counter[str] = field(default_factory=Counter[str])
    suspects: dict[Difference, list[str]] = field(default_factory=dict[Difference, list[str]])

    @property
    def column(self) -> Column:
        return "object_key" if self.is_own else "path"

    def found(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        shown = self.examples.setdefault(kind, [])
        if len(shown) < _EXAMPLES:
            shown.append(example)

    def suspect(self, kind: Difference, keys: Sequence[str]) -> None:
        kept = self.suspects.setdefault(kind, [])
        room = max(0, _MOST_LOOKED_AT - len(kept))
        kept += keys[:room]
        for key in keys[room:]:
            self.unchecked += 1
            self.found(_OF_DIFFERENCE[kind], key)

    def forget(self) -> None:
        """Begin the comparison anew."""
        self.compared = self.unchecked = 0
        self.counts.clear()
        self.examples.clear()
        self.suspects.clear()

    def told(self) -> dict[str, Any]:
        """On the wire as the command's `spec.verify`."""
        return {
            "listed": self.compared,
            "lookedAgain": self.looked_at,
            "repair": self.repairs,
            "clean": not self.counts.total(),
            "objectsCompared": self.is_own or not self.is_clone,
            "counts": {name: self.counts[name] for name in _NAMES},
            "repaired": {name: number for name, number in self.repaired.items() if number},
            "examples": self.examples,
        }


async def request_verify(conn: AsyncConnection[Any], dataset: Dataset, *, caller_id: int, repair: bool) -> int:
    """Start one, or return the one that runs: the id of its command. Its job commits with it.

    Raises Conflict when one is to repair while one runs that does not.
    """
    running = await verifying.running_command(conn, dataset.id, KIND)
    if running is not None:
        if repair and not (await commands.load_command(conn, running)).spec["repair"]:
            raise Conflict(
                f"A verification of dataset {dataset.name!r} runs that repairs nothing. Wait for its end, or abort it: "
                f"headwater abort {to_wire(running)}"
            )
        return running
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=KIND,
        spec={"datasetId": to_wire(dataset.id), "repair": repair},
        creator_id=caller_id,
    )
    await queue.defer(conn, TASK, lock=f"verify:{dataset.id}", command_id=command_id)
    return command_id


async def verify_dataset(place: Workplace, command_id: int, *, is_last_try: bool = False) -> None:
    """To the end of the command; it begins anew when it is repeated, which is harmless.

    Raises Unavailable when the store does not answer and another try may help; every other end is written down.
    """
    async with place.pool.connection() as conn:
        command = await commands.load_command(conn, command_id)
        if command.has_ended or command.dataset_id is None:
            return
        run = await _begin(conn, place, command, command.dataset_id)
    try:
        await until_aborted(_verify(run), _abort_requested(run))
    except Aborted:
        await _end(run, "aborted", error="The verification was aborted. What it had repaired stays repaired.")
    except HeadwaterError as error:
        if isinstance(error, Unavailable) and not is_last_try:
            raise
        await _end(run, "failed", error=f"It could not be verified. {error}")
    else:
        await _end(run, "success", warning=_warning(run))


async def give_up(place: Workplace, command_id: int) -> None:
    """After a defect of ours."""
    async with place.pool.connection() as conn:
        await verifying.clear_stage(conn, command_id)
        await commands.end_command(
            conn, command_id, "failed", error="Headwater failed in this verification; its log says where."
        )


async def _begin(conn: AsyncConnection[Any], place: Workplace, command: Command, dataset_id: int) -> _Run:
    """Raises NotFound for a dataset that is no more."""
    is_own = await datasets.driver_of(conn, dataset_id) is None
    started_at, present = await verifying.standing(conn, dataset_id)
    return _Run(
        place=place,
        command=command,
        dataset_id=dataset_id,
        is_own=is_own,
        is_clone=await datasets.is_made_of_others(conn, dataset_id),
        selection=Selection.of(await load_rules(conn, dataset_id)),
        repairs=bool(command.spec.get("repair")),
        started_at=started_at,
        present=present,
    )


async def _end(run: _Run, status: str, *, error: str | None = None, warning: str | None = None) -> None:
    async with run.place.pool.connection() as conn:
        await verifying.clear_stage(conn, run.command.id)
        spec = {"verify": run.told()} if status == "success" else {}
        await commands.end_command(conn, run.command.id, status, spec=spec, error=error, warning=warning)


def _warning(run: _Run) -> str | None:
    if not run.counts.total():
        return None
    found = ", ".join(f"{run.counts[name]:,} {words}" for name, words in _NAMES.items() if run.counts[name])
    said = f"Found {found}."
    if run.unchecked:
        said += f" {run.unchecked:,} of them were not looked at a second time; a sync puts most of such things right."
    if run.out_of_room:
        said += f" {run.out_of_room:,} could not be added: the organisation has no room for more items."
    if run.repairs:
        return said + f" Repaired: {run.repaired.total():,}."
    return said + " The guide tells what to do about each; headwater verify DATASET --repair removes nothing."


async def _abort_requested(run: _Run) -> None:
    while True:
        async with run.place.pool.connection() as conn:
            if await commands.is_abort_requested(conn, run.command.id):
                return
        await asyncio.sleep(_ABORT_POLL_S)


async def _verify(run: _Run) -> None:
    places = run.place.places
    # Of clones in a bucket there is no folder to list: whoever verifies the originals looks at their objects.
    if run.is_own or not run.is_clone:
        async with places.of_dataset(run.dataset_id) as store:
            await _compare_objects(run, store)
            await _look_again(run, store)
            await _check_uploads(run, store)
    async with places.of_derived(run.dataset_id) as derived:
        await _compare_thumbnails(run, derived)
    await _check_rows(run)


# Objects.


async def _compare_objects(run: _Run, store: Store) -> None:
    """Raises Unavailable for a listing that proves nothing."""

    def listing(must_be_ordered: bool) -> AsyncIterator[Listed]:
        run.forget()
        if run.is_own:
            return _raw(store, _OWN_OBJECTS, must_be_ordered=must_be_ordered)
        return batches(store, KeyRange(None, None), run.selection, must_be_ordered=must_be_ordered)

    async def take(batch: Listed) -> None:
        run.compared += len(batch.paths)
        async with run.place.pool.connection() as conn:
            found = await verifying.compare(conn, run.dataset_id, batch, run.column)
            new = [key for kind, key in found if kind == "unindexed"]
            new = await verifying.without_tombstoned(conn, run.dataset_id, run.column, new)
            if run.is_own:
                modified = dict(zip(batch.paths, batch.modified, strict=True))
                new = [key for key in new if _is_older(modified[key], _YOUNG_OBJECT)]
            for kind in ("missing", "changed", "returned"):
                run.suspect(kind, [key for one, key in found if one == kind])
            run.suspect("unindexed", new)
            await _tell(conn, run)

    run.listed = await _in_order(run, listing, take)
    if not run.listed and run.suspects.get("missing"):
        raise Unavailable(
            f"The listing came back empty, while {run.present:,} items should have objects. That looks like an outage "
            "or a wrong folder."
        )


async def _in_order(
    run: _Run, listing: Callable[[bool], AsyncIterator[Listed]], take: Callable[[Listed], Awaitable[None]]
) -> int:
    """Every batch in the order of keys; the listing of a store that lists otherwise is kept aside first, whole.

    `listing` is asked again then, so it makes `take` begin anew. Returns how many keys were listed.
    """
    seen = 0
    try:
        async for batch in listing(True):
            seen += sum(map(len, batch.key_pages))
            await take(batch)
    except Unordered:
        seen = 0
    else:
        return seen
    pool, command_id = run.place.pool, run.command.id
    async with pool.connection() as conn:
        await verifying.clear_stage(conn, command_id)
    async for batch in listing(False):
        seen += sum(map(len, batch.key_pages))
        async with pool.connection() as conn:
            await verifying.stage(conn, command_id, batch)
    after, is_last = None, False
    while not is_last:
        async with pool.connection() as conn:
            batch = await verifying.read_stage(conn, command_id, after=after, limit=_BATCH_KEYS)
        await take(batch)
        after, is_last = batch.through, batch.through is None
    return seen


async def _raw(store: Store, prefix: str, *, must_be_ordered: bool) -> AsyncIterator[Listed]:
    """All keys that begin with `prefix`, as they are. Raises Unordered."""
    empty = Listed(paths=[], sizes=[], etags=[], modified=[], after=None, through=None)
    batch = empty
    async for page in store.list_pages(prefix=prefix):
        if must_be_ordered and not _continues(batch, page):
            raise Unordered
        batch = replace(
            batch,
            paths=batch.paths + page.keys,
            sizes=batch.sizes + page.sizes,
            etags=batch.etags + page.etags,
            modified=batch.modified + page.modified,
            key_pages=[*batch.key_pages, page.keys] if page.keys else batch.key_pages,
        )
        if page.is_last:
            yield batch
            return
        if len(batch.paths) >= _BATCH_KEYS:
            yield replace(batch, through=batch.paths[-1])
            batch = replace(empty, after=batch.paths[-1])
    raise Unavailable("The store's listing ended without its last page. List it again.")


def _continues(batch: Listed, page: ListingPage) -> bool:
    before = batch.paths[-1] if batch.paths else batch.after
    keys = page.keys if before is None else [before, *page.keys]
    return all(first < second for first, second in pairwise(keys))


def _is_older(modified: str, age: timedelta) -> bool:
    """False where the store does not tell."""
    return bool(modified) and datetime.now(UTC) - datetime.fromisoformat(modified) > age


async def _tell(conn: AsyncConnection[Any], run: _Run) -> None:
    percent = 80.0 * run.compared / max(run.present, run.compared + _BATCH_KEYS)
    told = {"verify": {"listed": run.compared}}
    if await commands.note_progress(conn, run.command.id, progress_percent=percent, spec=told):
        raise Aborted


async def _look_again(run: _Run, store: Store) -> None:
    """At everything that seems to differ; by now, what was under way when it was listed has ended."""
    if run.is_own:
        await _drop_orphans(run, store, run.suspects.pop("unindexed", []))
    look = _look_at_own if run.is_own else _look_at
    await _each(
        [(kind, key) for kind, keys in run.suspects.items() for key in keys],
        lambda suspect: look(run, store, *suspect),
    )


async def _each(things: Iterable[Any], look: Callable[[Any], Awaitable[None]]) -> None:
    """Some at a time; the first error ends it."""
    waiting = iter(things)

    async def work() -> None:
        for thing in waiting:
            await look(thing)

    tasks = [asyncio.create_task(work()) for _ in range(_AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _look_at(run: _Run, store: Store, kind: Difference, path: str) -> None:
    """Under the lock of the path: no upload and no deletion is half-way there."""
    run.looked_at += 1
    async with run.place.pool.connection() as conn:
        await items.lock_path(conn, run.dataset_id, path)
        try:
            info = await _head(store, path[1:])
        except Unavailable:
            raise
        except HeadwaterError:  # it may be listed and not be asked for: the listing counts
            run.found(_OF_DIFFERENCE[kind], path)
            return
        item = await items.find_item_at(conn, run.dataset_id, path)
        is_left_out = not run.selection.keeps(path)
        is_deleted = not await verifying.without_tombstoned(conn, run.dataset_id, "path", [path])
        now = None if is_left_out else _difference(item, info, is_deleted=is_deleted)
        if now is not None:
            run.found(_OF_DIFFERENCE[now], path)
            if run.repairs and info is not None:
                await _add(conn, run, now, path, info)
        elif kind == "missing" and not is_left_out and info and item and item.updated_at < run.started_at:
            run.found("notListed", path)


async def _head(store: Store, key: str) -> ObjectInfo | None:
    try:
        info = await store.head(key)
    except StoreMissing:
        return None
    return None if is_no_item(key, info.size_bytes) else info


def _difference(item: Item | None, info: ObjectInfo | None, *, is_deleted: bool) -> Difference | None:
    if item is None:
        return None if info is None or is_deleted else "unindexed"
    if info is None:
        return None if item.missing_since is not None else "missing"
    if item.missing_since is not None:
        return "returned"
    is_same = info.size_bytes == item.size_bytes and (not info.etag or info.etag == item.etag)
    return None if is_same else "changed"


async def _add(conn: AsyncConnection[Any], run: _Run, kind: Difference, path: str, info: ObjectInfo) -> None:
    """What was seen in the bucket, as a sync would add it; the path is locked."""
    if kind == "unindexed":
        room = await quotas.lock_room(conn, run.dataset_id)
        if room is not None:
            if not room.left:
                run.out_of_room += 1
                return
            await quotas.take_room(conn, room, 1)
    written = Written(
        path=path,
        object_key=None,
        size_bytes=info.size_bytes,
        etag=info.etag,
        modified_at=info.modified_at,
        mime_type=None,
    )
    before = await items.find_item_at(conn, run.dataset_id, path)
    await items.put_item(conn, run.dataset_id, written, creator_id=None)
    await drop_replaced(conn, [] if before is None else [before])
    run.repaired[_OF_DIFFERENCE[kind]] += 1


async def _look_at_own(run: _Run, store: Store, kind: Difference, object_key: str) -> None:
    """The object first, then the row: who replaces or deletes an object gives up its row before."""
    run.looked_at += 1
    try:
        info = await store.head(object_key)
    except StoreMissing:
        info = None
    async with run.place.pool.connection() as conn:
        item = await verifying.item_with_key(conn, run.dataset_id, object_key)
    now = None if item is None else _difference(item, info, is_deleted=False)
    if item is not None and now is not None:
        run.found(_OF_DIFFERENCE[now], item.path)
    elif kind == "missing" and item is not None and item.updated_at < run.started_at:
        run.found("notListed", item.path)


async def _drop_orphans(run: _Run, store: Store, keys: Sequence[str]) -> None:
    """Objects of our own storage that no row and no deletion under way knows, a day after they were written."""
    async with run.place.pool.connection() as conn:
        left = await verifying.without_rows(conn, run.dataset_id, list(keys))
        left = await verifying.without_tombstoned(conn, run.dataset_id, "object_key", left)
    for key in left:
        run.found("orphanObjects", key)
    if run.repairs and left:
        async with run.place.pool.connection() as conn:
            failures = await delete_own_unnamed(conn, store, Where(None, run.dataset_id), left)
        run.repaired["orphanObjects"] += len(left) - len(failures)


async def _check_uploads(run: _Run, store: Store) -> None:
    """Parts of uploads that have ended; in our own storage also those that no upload knows.

    What others have begun in a bucket is theirs.
    """
    async with run.place.pool.connection() as conn:
        known = await uploads.find_states(conn, run.dataset_id)
    for upload in known:
        if upload.is_expired or upload.ended_at is not None:
            run.found("abandonedUploads", upload.path)
            if run.repairs:
                run.repaired["abandonedUploads"] += await tus.drop_abandoned(run.place, upload)
    async with run.place.pool.connection() as conn:
        open_plans = await planned_uploads.find_open(conn, run.dataset_id)
    for plan in open_plans:
        if plan.part_state is not None and plan.expires_at < datetime.now(UTC):
            run.found("abandonedUploads", plan.path)
            if run.repairs:
                run.repaired["abandonedUploads"] += await planned.drop_abandoned(run.place, plan)
    if not run.is_own:
        return
    ours = {state["id"] for upload in known if (state := upload.part_state) is not None}
    async for one in store.list_unfinished():
        if one.state["id"] not in ours and one.began_at < datetime.now(UTC) - _YOUNG_OBJECT:
            run.found("abandonedUploads", one.key)
            if run.repairs:
                await store.abort_parts(one.key, one.state)
                run.repaired["abandonedUploads"] += 1


async def _delete(store: Store, keys: Sequence[str]) -> int:
    """Files of our own. Returns how many went; Raises Unavailable."""
    gone = 0
    for start in range(0, len(keys), 1_000):
        doomed = [Doomed(key) for key in keys[start : start + 1_000]]
        failures = await store.delete_many(doomed)
        for failure in failures.values():
            if isinstance(failure, Unavailable):
                raise failure
        gone += len(doomed) - len(failures)
    return gone


# Derived files.


async def _compare_thumbnails(run: _Run, derived: Store) -> None:
    missing: list[int] = []
    orphans: list[tuple[int, str]] = []
    after_id = 0

    async def take(batch: Listed) -> None:
        nonlocal after_id
        listed, old = _parsed(batch)
        through_id = _LAST_ID if batch.through is None else listed[-1][0] if listed else after_id
        async with run.place.pool.connection() as conn:
            without, nobodys = await verifying.compare_thumbnails(
                conn, run.dataset_id, Thumbnails(listed, after_id, through_id)
            )
        missing.extend(without[: _MOST_LOOKED_AT - len(missing)])
        orphans.extend([one for one in nobodys if one in old][: _MOST_LOOKED_AT - len(orphans)])
        after_id = through_id

    def listing(must_be_ordered: bool) -> AsyncIterator[Listed]:
        nonlocal after_id
        after_id = 0
        missing.clear()
        orphans.clear()
        return _raw(derived, _THUMBNAILS, must_be_ordered=must_be_ordered)

    await _in_order(run, listing, take)
    await _each(missing, lambda item_id: _look_at_thumbnail(run, derived, item_id))
    async with run.place.pool.connection() as conn:
        orphans = await verifying.orphaned(conn, orphans)
    for item_id, kind in orphans:
        run.found("orphanThumbnails", thumbnail_key(item_id, kind))
    if run.repairs:
        run.repaired["orphanThumbnails"] += await _delete(derived, [thumbnail_key(*one) for one in orphans])


def _parsed(batch: Listed) -> tuple[list[tuple[int, str]], set[tuple[int, str]]]:
    """(item id, mime type) of all thumbnails of the batch, and which of them are old enough to be nobody's."""
    listed: list[tuple[int, str]] = []
    old: set[tuple[int, str]] = set()
    for key, modified in zip(batch.paths, batch.modified, strict=True):
        found = _THUMBNAIL.fullmatch(key)
        if found is None or (number := int(found[1], 16)) > _LAST_ID:
            continue  # nothing that we have put there
        listed.append((number, _TYPES[found[2]]))
        if _is_older(modified, _YOUNG_THUMBNAIL):
            old.add(listed[-1])
    return listed, old


async def _look_at_thumbnail(run: _Run, derived: Store, item_id: int) -> None:
    async with run.place.pool.connection() as conn:
        item = await items.find_item(conn, item_id)
    if item is None or item.thumbnail_type is None:
        return
    run.looked_at += 1
    try:
        await derived.head(thumbnail_key(item.thumbnail_number, item.thumbnail_type))
    except StoreMissing:
        pass
    except Unavailable:
        raise
    except FailedDependency:  # what may not be asked for is not known to be missing
        return
    else:
        return
    async with run.place.pool.connection() as conn:
        now = await items.find_item(conn, item_id)
        if now is None or now.thumbnail_type != item.thumbnail_type or now.etag != item.etag:
            return
        run.found("missingThumbnails", item.path)
        if run.repairs:
            run.repaired["missingThumbnails"] += await verifying.prepare_again(conn, run.dataset_id, [item_id])


# Rows.


async def _check_rows(run: _Run) -> None:
    async with run.place.pool.connection() as conn:
        forgotten = await verifying.forgotten_by_preprocessing(
            conn, run.dataset_id, PREPROCESS_TASK, limit=_MOST_LOOKED_AT
        )
        for _, path in forgotten:
            run.found("forgottenItems", path)
        if run.repairs and forgotten:
            await verifying.tell_again(conn, run.dataset_id, [item_id for item_id, _ in forgotten])
            run.repaired["forgottenItems"] += len(forgotten)
        for one in await tombstones.list_tombstones(conn, run.dataset_id, state="refused", limit=_EXAMPLES):
            run.found("refusedDeletions", f"{one.path}: {one.object_delete_error}")
        run.counts["refusedDeletions"] = (await tombstones.count_tombstones(conn, run.dataset_id)).refused
    async with run.place.pool.connection() as conn:
        wrong = await verifying.wrong_counters(conn, run.dataset_id)
        for name, (said, true) in wrong.items():
            run.found("wrongCounters", f"{name} is {said:,} and should be {true:,}")
        if run.repairs and wrong:
            await verifying.mend_counters(conn, run.dataset_id)
            run.repaired["wrongCounters"] += len(wrong)
