"""Lanes: the jobs of a scan. Each claims key ranges one after the other, until none is left to list or to share."""

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import commands
from headwater.catalog.sync import listings, scans, shards, stages
from headwater.catalog.sync.lanes import idle_lanes
from headwater.catalog.sync.listed import Listed
from headwater.catalog.sync.scans import Scan
from headwater.catalog.sync.shards import Shard, Superseded
from headwater.errors import HeadwaterError, Unavailable
from headwater.storage.stores import Store
from headwater.work.aborting import Aborted, until_aborted
from headwater.work.selection import Selection
from headwater.work.sync import batches
from headwater.work.sync.batches import KeyRange, Unordered
from headwater.work.sync.ending import end_if_complete
from headwater.work.sync.progress import percent, progress
from headwater.work.sync.requests import LANES, defer_lane
from headwater.work.sync.splitting import find_bounds
from headwater.work.workplace import Workplace

WORTH_SHARING = 20_000  # objects of one range that were listed while more follow
_ABORT_POLL_S = 0.3
_PAUSE_S = 60
_ABORTED = "The sync was aborted. What it had found stays; sync again, or go on where it was: sync with resume."


async def run_scan(
    place: Workplace, scan_id: int, lane: int = 0, *, command_id: int | None = None, is_last_try: bool = False
) -> None:
    """List, merge, share, and judge at the end, as far as there is something to do. Safe to repeat, any number at once.

    Does nothing for a command that the scan no longer runs for. Raises Unavailable when the store does not answer and
    another try may help; every other end is written down.
    """
    async with place.pool.connection() as conn:
        scan = await scans.load_scan(conn, scan_id)
    if scan is None or scan.state != "running" or command_id not in (None, scan.command_id):
        return
    work = _Lane(place, scan, lane)
    try:
        await until_aborted(work.run(), _abort_requested(place, scan.command_id))
    except Superseded:
        return
    except Aborted:
        await _end(work, "aborted", _ABORTED)
    except Unavailable as error:
        if not is_last_try:
            raise
        if work.has_committed:  # a store that throttles for hours, and gives a little each time
            async with place.pool.connection() as conn:
                await defer_lane(conn, scan_id, scan.command_id, lane, after_s=_PAUSE_S)
        else:
            await _end(work, "failed", str(error))
    except HeadwaterError as error:
        await _end(work, "failed", str(error))


async def give_up(place: Workplace, scan_id: int) -> None:
    """After a defect of ours: the command ends, what was committed stays."""
    async with place.pool.connection() as conn:
        scan = await scans.load_scan(conn, scan_id)
        if scan is not None and scan.state == "running":
            await scans.end_scan(conn, scan, "stopped")
            await commands.end_command(
                conn, scan.command_id, "failed", error="Headwater failed in this sync; its log says where."
            )


async def abort_before_it_begins(conn: AsyncConnection[Any], command_id: int) -> None:
    """End a sync that waits for a worker, which may be long in coming. A worker that comes just now stops."""
    scan = await scans.scan_of(conn, command_id)
    if scan is not None:
        await scans.end_scan(conn, scan, "stopped")
        await commands.end_command(conn, command_id, "aborted", error=_ABORTED)


async def _abort_requested(place: Workplace, command_id: int) -> None:
    while True:
        async with place.pool.connection() as conn:
            if await commands.is_abort_requested(conn, command_id):
                return
        await asyncio.sleep(_ABORT_POLL_S)


async def _end(work: "_Lane", status: str, error: str) -> None:
    async with work.place.pool.connection() as conn:
        if status == "failed":
            error += await work.whereabouts(conn)
        await scans.end_scan(conn, work.scan, "stopped")
        await commands.end_command(conn, work.scan.command_id, status, error=error)


class _Lane:
    """What one job does for a scan."""

    def __init__(self, place: Workplace, scan: Scan, number: int) -> None:
        self.place = place
        self.scan = scan
        self._number = number
        self._selection = Selection.of(scan.rules)
        self._shard: Shard | None = None
        self.has_committed = False

    async def whereabouts(self, conn: AsyncConnection[Any]) -> str:
        """As a sentence; nothing before the first batch."""
        shard = None if self._shard is None else await shards.load_shard(conn, self.scan.id, self._shard.number)
        if shard is None or shard.cursor_path is None:
            return ""
        within = "" if shard.until_path is None else f", in the range up to {shard.until_path!r}"
        return f" It stopped after {shard.cursor_path!r}{within}."

    async def run(self) -> None:
        async with self.place.places.of_dataset(self.scan.dataset_id) as store:
            while True:
                while await self._claim():
                    await self._list_shard(store)
                if not await self._share_a_long_shard(store) and await end_if_complete(self.place, store, self.scan.id):
                    return

    async def _claim(self) -> bool:
        """Raises Superseded when the scan has ended, or goes on for another command by now."""
        async with self.place.pool.connection() as conn:
            self._shard = await shards.claim_shard(conn, self.scan.id, self._number)
            if not await scans.is_running_for(conn, self.scan):
                raise Superseded
        return self._shard is not None

    async def _share_a_long_shard(self, store: Store) -> bool:
        """Cut what is left of a range that another lane is busy with. False: there is none that is worth it."""
        async with self.place.pool.connection() as conn:
            found = await shards.find_long_shard(conn, self.scan.id, at_least=WORTH_SHARING)
        if found is None or found.cursor_path is None:
            return False
        high = None if found.until_path is None else found.until_path[1:]
        bounds = await find_bounds(store.first_key_after, found.cursor_path[1:], high)
        async with self.place.pool.connection() as conn:
            pieces = await shards.split_shard(conn, self.scan.id, found.number, ["/" + key for key in bounds])
            if pieces > 1:  # those who came while we looked for bounds have found nothing and gone
                await self._call_for_help(conn)
        return pieces > 0

    async def _list_shard(self, store: Store) -> None:
        assert self._shard is not None
        if not self._shard.staged:
            try:
                await self._merge_as_listed(store, self._shard)
            except Unordered:
                pass
            else:
                return
        await self._merge_staged(store, self._shard)

    async def _merge_as_listed(self, store: Store, shard: Shard) -> None:
        within = KeyRange(shard.cursor_path or shard.after_path, shard.until_path)
        async with aclosing(batches.batches(store, within, self._selection)) as found:
            async for batch in found:
                if await self._merge(batch, within):
                    return

    async def _merge_staged(self, store: Store, shard: Shard) -> None:
        """A store that lists out of order: keep its listing aside, whole, and merge it from there in order."""
        async with self.place.pool.connection() as conn:
            shard = self._shard = await shards.stage_scan(conn, self.scan.id, shard)
        self.has_committed = False  # what it had is begun anew
        whole = KeyRange(None, None)
        gathered, skipped, examples = 0, 0, []
        async with aclosing(batches.batches(store, whole, self._selection, must_be_ordered=False)) as found:
            async for batch in found:
                skipped += batch.skipped
                examples += batch.skipped_examples[: listings.SKIPPED_EXAMPLES - len(examples)]
                async with self.place.pool.connection() as conn:
                    await shards.hold_shard(conn, self.scan.id, shard)
                    await stages.stage(conn, self.scan, batch)
                    gathered += len(batch.paths)
                    if await commands.note_progress(
                        conn, self.scan.command_id, progress_percent=0, spec={"gathered": gathered}
                    ):
                        raise Aborted
        after, is_last = None, False
        while not is_last:
            async with self.place.pool.connection() as conn:
                batch = await stages.read_stage(conn, self.scan, after=after, limit=batches.BATCH_KEYS)
            if batch.through is None:
                batch.skipped, batch.skipped_examples = skipped, examples
            is_last = await self._merge(batch, whole)
            after = batch.through

    async def _merge(self, batch: Listed, within: KeyRange) -> bool:
        """One transaction: what the batch tells, the cursor, the counts. Returns whether the shard is done.

        Raises Superseded, Aborted, QuotaExceeded.
        """
        assert self._shard is not None
        async with self.place.pool.connection() as conn:
            shard = await shards.hold_shard(conn, self.scan.id, self._shard)
            is_last = batch.through is None
            if shard.until_path is not None and (is_last or batch.first_behind(shard.until_path) is not None):
                batch, is_last = batch.until(shard.until_path), True
            merged = await listings.merge_listing(conn, self.scan, shard.number, batch, is_last=is_last)
            now = await scans.load_scan(conn, self.scan.id)
            if now is None:  # its dataset is being purged
                raise Aborted
            listed = shard.listed + len(batch.paths)
            if not is_last and not shard.staged and _doublings(shard.listed) < _doublings(listed):
                await self._call_for_help(conn)
            if await commands.note_progress(
                conn, self.scan.command_id, progress_percent=percent(now), spec={"sync": progress(now)}
            ):
                raise Aborted
        if merged.refused is not None:  # what there was room for is committed
            raise merged.refused
        self.has_committed = True
        within.until = shard.until_path
        self._shard = replace(shard, cursor_path=batch.through or shard.cursor_path, listed=listed)
        return is_last

    async def _call_for_help(self, conn: AsyncConnection[Any]) -> None:
        """A range turned out to be long: lanes that have nothing to do may take a part of it."""
        for lane in await idle_lanes(conn, self.scan.id, LANES):
            if lane != self._number:
                await defer_lane(conn, self.scan.id, self.scan.command_id, lane)


def _doublings(listed: int) -> int:
    """How often a range has shown to be twice as long as was thought."""
    return (listed // WORTH_SHARING).bit_length()
