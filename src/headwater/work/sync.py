"""Upstream sync: brings a dataset's index in step with its bucket, exactly, resumably, and never by deleting.

One scan: the store's listing is read ahead of the database, cut into batches, and each batch is merged in one
transaction together with the cursor. After the last proven page the verdict on what is missing is given. A crash
repeats at most one batch.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, datasets
from headwater.catalog.items import HIDDEN_FOLDER
from headwater.catalog.sync import listings, rules, scans, stages, verdicts
from headwater.catalog.sync.listings import Listed
from headwater.catalog.sync.scans import Scan, Shard
from headwater.errors import HeadwaterError, Unavailable
from headwater.storage.stores import ListingPage, Store
from headwater.work.workplace import Workplace

TASK = "run_scan"
KIND = "SyncDataset"
BATCH_KEYS = 5_000
_PAGES_AHEAD = 8  # listed while the database works
_ABORT_POLL_S = 0.3

_HIDDEN_KEYS = HIDDEN_FOLDER[1:] + "/"


class Aborted(Exception):
    """The command's abort was requested."""


class _Unordered(Exception):
    """The store does not list in the order of keys."""


async def request_sync(
    conn: AsyncConnection[Any], dataset: datasets.Dataset, *, caller_id: int | None, confirm_missing: bool = False
) -> int:
    """Start a scan, or return the one that runs: the id of its command. Its job commits with it."""
    running = await scans.running_command(conn, dataset.id)
    if running is not None:
        return running
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=KIND,
        spec={"datasetId": f"{dataset.id:024x}"},
        creator_id=caller_id,
    )
    scan_id = await scans.start_scan(
        conn, dataset_id=dataset.id, command_id=command_id, confirm_missing=confirm_missing
    )
    await queue.defer(conn, TASK, queue="sync", lock=f"scan:{dataset.id}", scan_id=scan_id)
    return command_id


async def run_scan(place: Workplace, scan_id: int, *, is_last_try: bool = False) -> None:
    """List, merge, judge. Safe to repeat: it goes on at the cursors.

    Raises Unavailable when the store does not answer and another try may help; every other end is written down.
    """
    # A worker that was thought dead may still run when another takes its job: that one waits here.
    async with place.pool.connection() as guard, scans.working_on(guard, scan_id):
        scan = await _load(place, scan_id)
        if scan is not None and scan.state == "running":
            await _run(place, scan, is_last_try=is_last_try)


async def _run(place: Workplace, scan: Scan, *, is_last_try: bool) -> None:
    try:
        await _scan_until_aborted(place, scan)
    except Aborted:
        await _end(
            place, scan, "aborted", error="The sync was aborted. What it had found stays; run it again to go on."
        )
    except Unavailable as error:
        if not is_last_try:
            raise
        await _end(place, scan, "failed", error=str(error))
    except HeadwaterError as error:
        await _end(place, scan, "failed", error=str(error))


async def give_up(place: Workplace, scan_id: int) -> None:
    """After a defect of ours: the command ends, what was committed stays."""
    scan = await _load(place, scan_id)
    if scan is not None and scan.state == "running":
        await _end(place, scan, "failed", error="Headwater failed in this sync; its log says where.")


async def _load(place: Workplace, scan_id: int) -> Scan | None:
    async with place.pool.connection() as conn:
        return await scans.load_scan(conn, scan_id)


async def _end(place: Workplace, scan: Scan, status: str, *, error: str) -> None:
    async with place.pool.connection() as conn:
        reached = await scans.reached(conn, scan.id)
        where = f" It stopped after {reached!r}." if reached and status == "failed" else ""
        await scans.end_scan(conn, scan, "stopped")
        await commands.end_command(conn, scan.command_id, status, error=error + where)


async def _scan_until_aborted(place: Workplace, scan: Scan) -> None:
    """Stops within a second of an abort, even while a store keeps a page to itself."""
    work = asyncio.create_task(_scan(place, scan))
    watch = asyncio.create_task(_abort_requested(place, scan.command_id))
    try:
        await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            watch.result()  # raises when it could not watch
            raise Aborted
        await work
    finally:
        for task in (work, watch):
            task.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)


async def _abort_requested(place: Workplace, command_id: int) -> None:
    while True:
        async with place.pool.connection() as conn:
            if await commands.is_abort_requested(conn, command_id):
                return
        await asyncio.sleep(_ABORT_POLL_S)


async def _scan(place: Workplace, scan: Scan) -> None:
    async with place.pool.connection() as conn:
        shards = await scans.open_shards(conn, scan.id)
    async with place.places.of_dataset(scan.dataset_id) as store:
        for shard in shards:
            await _scan_shard(place, store, scan, shard)
    await _judge(place, scan.id)


async def _scan_shard(place: Workplace, store: Store, scan: Scan, shard: Shard) -> None:
    if not shard.staged:
        try:
            async for batch, is_last in _batches(store, shard):
                _require_order(batch)
                await _merge(place, scan, shard, batch, is_last=is_last)
        except _Unordered:
            pass
        else:
            return
    await _scan_staged(place, store, scan, replace(shard, cursor_path=None))


def _require_order(batch: Listed) -> None:
    if not batch.is_ordered():
        raise _Unordered


async def _merge(place: Workplace, scan: Scan, shard: Shard, batch: Listed, *, is_last: bool) -> None:
    async with place.pool.connection() as conn:
        merged = await listings.merge_listing(conn, scan, shard.number, batch, is_last=is_last)
        now = await scans.load_scan(conn, scan.id)
        if now is None:  # its dataset is being purged
            raise Aborted
        if await commands.note_progress(
            conn, scan.command_id, progress_percent=_percent(now), spec={"sync": progress(now)}
        ):
            raise Aborted
    if merged.refused is not None:  # what there was room for is committed
        raise merged.refused


async def _scan_staged(place: Workplace, store: Store, scan: Scan, shard: Shard) -> None:
    """A store that lists out of order: keep its listing aside, whole, and merge it from there in order."""
    async with place.pool.connection() as conn:
        await stages.stage_shard(conn, scan, shard.number)
    skipped, examples = 0, []
    async for batch, _ in _batches(store, shard):
        skipped += batch.skipped
        examples += batch.skipped_examples
        async with place.pool.connection() as conn:
            await stages.stage(conn, scan, batch)
    after, is_last = shard.after_path, False
    while not is_last:
        async with place.pool.connection() as conn:
            batch = await stages.read_stage(conn, scan, after=after, limit=BATCH_KEYS)
        is_last = batch.through is None
        batch.skipped, batch.skipped_examples = (skipped, examples) if is_last else (0, [])
        await _merge(place, scan, shard, batch, is_last=is_last)
        after = batch.through


async def _batches(store: Store, shard: Shard) -> AsyncIterator[tuple[Listed, bool]]:
    """Batches of about 5,000 keys from the shard's cursor to its end, and which one is the last."""
    after = shard.cursor_path or shard.after_path
    pages = _read_ahead(store.list_pages(start_after=None if after is None else after[1:]))
    try:
        batch = _Batch(after)
        async for page in pages:
            batch.take(page)
            if page.is_last or len(batch.paths) >= BATCH_KEYS:
                yield batch.listed(is_last=page.is_last), page.is_last
                batch = _Batch(batch.paths[-1] if batch.paths else batch.after)
    finally:
        await pages.aclose()


@dataclass(slots=True)
class _Failed:
    error: Exception


async def _read_ahead(pages: AsyncIterator[ListingPage]) -> AsyncGenerator[ListingPage]:
    """The same pages, read while the database is busy with earlier ones; memory is bounded."""
    ahead: asyncio.Queue[ListingPage | _Failed] = asyncio.Queue(_PAGES_AHEAD)

    async def read() -> None:
        try:
            async for page in pages:
                await ahead.put(page)
            await ahead.put(_Failed(Unavailable("The store's listing ended without its last page. List it again.")))
        except Exception as error:  # noqa: BLE001 - raised again below, in its place
            await ahead.put(_Failed(error))

    reader = asyncio.create_task(read())
    try:
        while True:
            page = await ahead.get()
            if isinstance(page, _Failed):
                raise page.error
            yield page
            if page.is_last:
                return
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader


class _Batch:
    """Pages put together, without what is never an item."""

    def __init__(self, after: str | None) -> None:
        self.after = after
        self.paths: list[str] = []
        self.sizes: list[int] = []
        self.etags: list[str] = []
        self.modified: list[str] = []
        self.skipped: list[tuple[str, str]] = []

    def take(self, page: ListingPage) -> None:
        keys, sizes, etags, modified = page.keys, page.sizes, page.etags, page.modified
        if any(map(_is_no_item, keys, sizes)):
            kept = [n for n, key in enumerate(keys) if not _is_no_item(key, sizes[n])]
            keys, sizes = [keys[n] for n in kept], [sizes[n] for n in kept]
            etags, modified = [etags[n] for n in kept], [modified[n] for n in kept]
        self.paths += ["/" + key for key in keys]
        self.sizes += sizes
        self.etags += etags
        self.modified += modified
        self.skipped += page.unindexable

    def listed(self, *, is_last: bool) -> Listed:
        return Listed(
            paths=self.paths,
            sizes=self.sizes,
            etags=self.etags,
            modified=self.modified,
            after=self.after,
            through=None if is_last else (self.paths[-1] if self.paths else self.after),
            skipped=len(self.skipped),
            skipped_examples=self.skipped,
        )


def _is_no_item(key: str, size_bytes: int) -> bool:
    """Folder markers, and our own hidden folder."""
    return not key or (not size_bytes and key[-1] == "/") or key.startswith(_HIDDEN_KEYS)


async def _judge(place: Workplace, scan_id: int) -> None:
    """The end of a scan that listed everything: mark what is missing, unless that is too much to believe."""
    async with place.pool.connection() as conn:
        scan = await scans.lock_scan(conn, scan_id)
        if scan is None:
            raise Aborted
        verdict = await verdicts.judge_missing(conn, scan, await rules.load_rules(conn, scan.dataset_id))
        scan = replace(scan, marked=verdict.marked, state="held" if verdict.held else "done")
        await scans.end_scan(conn, scan, scan.state, marked=verdict.marked)
        await datasets.note_synced(conn, scan.dataset_id)
        await commands.end_command(
            conn,
            scan.command_id,
            "success",
            spec={"sync": progress(scan)},
            warning=_warning(scan, verdict),
        )


def _warning(scan: Scan, verdict: verdicts.Verdict) -> str | None:
    if verdict.held:
        found = "The bucket's listing came back empty" if not scan.listed else "Much of the dataset seems to be gone"
        return (
            f"{found}: {verdict.held} of {scan.present} items are missing from the bucket. Nothing was marked, because "
            "this looks like an outage or a wrong folder. If it is right, confirm it: sync with confirmMissing (CLI: "
            "headwater sync DATASET --confirm-missing)."
        )
    if not scan.listed and not scan.present:
        return "The bucket has no object in the driver's folder. Check the driver's path if you expected some."
    if scan.skipped:
        example = ", ".join(f"{name} ({why})" for name, why in scan.skipped_examples[:3])
        return f"{scan.skipped} object(s) could not be indexed, for example: {example}."
    return None


def progress(scan: Scan) -> dict[str, Any]:
    """What a scan has found so far, counted in committed rows; on the wire as the command's `spec.sync`."""
    return {
        "listed": scan.listed,
        "created": scan.created,
        "changed": scan.changed,
        "unchanged": scan.unchanged,
        "returned": scan.returned,
        "keptDeleted": scan.kept_deleted,
        "skipped": scan.skipped,
        "missing": scan.gone,
        "marked": scan.marked,
        "held": scan.state == "held",
    }


def _percent(scan: Scan) -> float:
    """An estimate: nobody knows how many objects a bucket has before it is listed. Never 100 before the end."""
    if scan.present:
        return min(99.0, 100.0 * scan.listed / scan.present)
    return min(99.0, 100.0 * scan.listed / (scan.listed + 4 * BATCH_KEYS))
