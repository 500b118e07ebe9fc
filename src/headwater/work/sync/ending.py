"""The end of a scan: whether its ranges are one whole listing, and what becomes of what is missing."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any, Literal

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, datasets
from headwater.catalog.sync import candidates, scans, shards, verdicts
from headwater.catalog.sync.scans import Scan
from headwater.catalog.sync.verdicts import Verdict
from headwater.errors import StoreDenied, StoreMissing
from headwater.storage.stores import Store
from headwater.work.deletion import forget_derived
from headwater.work.selection import Selection
from headwater.work.sync.batches import is_no_item
from headwater.work.sync.progress import progress
from headwater.work.workplace import Workplace

PROVEN_CANDIDATES = 1_000  # of what seems gone is asked for, one by one: all of it, or so many at random
_HEADS_AT_ONCE = 32
_WORTH_SETTLING = 10_000  # new items
SETTLE_TASK = "settle_items"

_Look = Literal["gone", "left out", "made anew", "denied"]  # "made anew": deleted and written again while it was listed


async def end_if_complete(place: Workplace, store: Store, scan_id: int) -> bool:
    """Judge, once every range was listed to its proven end. Safe to repeat.

    False: the ranges do not fit together, and some or all of them are to be listed anew.
    """
    async with place.pool.connection() as conn:
        scan = await _lock_if_complete(conn, scan_id)
        if scan is None:
            return True
        if await shards.join_torn_seams(conn, scan_id):
            return False
        sample: dict[int, str] = {}
        if not verdicts.is_held(scan, scan.rules):
            sample = await candidates.sample_candidates(conn, scan, limit=PROVEN_CANDIDATES)
    looks = await _look_at(store, sample, scan)
    left_out = [item_id for item_id, look in looks.items() if look == "left out"]
    kept = [item_id for item_id, look in looks.items() if look != "gone"]
    async with place.pool.connection() as conn:
        scan = await _lock_if_complete(conn, scan_id)
        if scan is None:
            return True
        if left_out and await shards.stage_if_cut(conn, scan_id):
            return False
        await candidates.drop_candidates(conn, scan, kept)
        scan = replace(scan, gone=scan.gone - len(kept))
        if left_out and len(sample) == PROVEN_CANDIDATES:
            await _finish(conn, scan, Verdict(marked=0, held=scan.gone), _INCOMPLETE, incomplete=True)
        else:
            verdict = await verdicts.judge_missing(conn, scan, scan.rules)
            await forget_derived(conn, scan.dataset_id, verdict.left_over)
            warning = _warning(scan, verdict) or _doubts(looks)
            found = {"moved": verdict.moved, "missing": scan.gone - verdict.moved}
            await _finish(conn, scan, verdict, warning, **found)
        if scan.created >= _WORTH_SETTLING:
            await queue.defer(conn, SETTLE_TASK, queueing_lock=SETTLE_TASK)
    return True


async def settle_items(place: Workplace) -> None:
    """After many new items, so that the next sync writes nothing to the database's log."""
    async with place.pool.connection() as conn:
        await scans.settle_items(conn)


async def _lock_if_complete(conn: AsyncConnection[Any], scan_id: int) -> Scan | None:
    """None: it has ended, or others are busy with it and will look themselves."""
    scan = await scans.lock_scan(conn, scan_id)
    is_complete = scan is not None and scan.state == "running" and await shards.are_all_done(conn, scan_id)
    return scan if is_complete else None


async def _look_at(store: Store, sample: dict[int, str], scan: Scan) -> dict[int, _Look]:
    """What becomes of these items, by asking for each object: a listing alone is no proof.

    What the rules leave out by now, or is a folder marker by now, was rightly not found.
    """
    slots = asyncio.Semaphore(_HEADS_AT_ONCE)
    selection = Selection.of(scan.rules)

    async def look_at(path: str) -> _Look:
        if not selection.keeps(path):
            return "gone"
        async with slots:
            try:
                found = await store.head(path[1:])
            except StoreMissing:
                return "gone"
            except StoreDenied:
                return "denied"
        if is_no_item(path[1:], found.size_bytes):
            return "gone"
        is_new = found.modified_at is not None and found.modified_at > scan.started_at
        return "made anew" if is_new else "left out"

    asked = [asyncio.create_task(look_at(path)) for path in sample.values()]
    try:
        looks = await asyncio.gather(*asked)
    finally:
        for task in asked:
            task.cancel()
    return dict(zip(sample, looks, strict=True))


async def _finish(conn: AsyncConnection[Any], scan: Scan, verdict: Verdict, warning: str | None, **facts: int) -> None:
    scan = replace(scan, marked=verdict.marked, state="held" if verdict.held else "done")
    await scans.end_scan(conn, scan, scan.state, marked=verdict.marked)
    await datasets.note_synced(conn, scan.dataset_id)
    await commands.end_command(conn, scan.command_id, "success", spec={"sync": progress(scan) | facts}, warning=warning)


_INCOMPLETE = (
    "The bucket's listing left out objects that are there, so nothing was marked as missing. Its server lists "
    "incompletely: sync again later, and look at the server if it stays so."
)


def _doubts(looks: dict[int, _Look]) -> str | None:
    count = Counter(looks.values())
    if count["denied"]:
        return (
            f"{count['denied']} item(s) were not listed and could not be looked at, because the driver's credentials "
            "may not read them. They were not marked as missing. Check the driver: headwater doctor."
        )
    if count["left out"]:
        found = f"The bucket's listing left out {count['left out']} object(s) that are there."
        return f"{found} They were not marked as missing."
    return None


def _warning(scan: Scan, verdict: Verdict) -> str | None:
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
