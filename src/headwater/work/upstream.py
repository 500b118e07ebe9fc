"""Automatic upstream: looks at the keys that buckets told of, and brings the index in step with what is there.

Hints are taken in bundles, one bundle of a driver at a time in each worker. A hint that tells of what the index knows
already is done with; for the others one HEAD a key decides. All keys of a dataset are then applied in one transaction.
A store that does not answer, or a dataset without room, loses nothing: the hints wait, longer and longer.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from psycopg import AsyncConnection, OperationalError
from psycopg_pool import PoolTimeout

from headwater.catalog import datasets, notices
from headwater.catalog.items import HIDDEN_FOLDER
from headwater.catalog.sync import changes, claims, hints, upstream
from headwater.catalog.sync.changes import Applied, Looked
from headwater.catalog.sync.claims import Bundle, Taken
from headwater.catalog.sync.upstream import Follower
from headwater.errors import HeadwaterError, NotFound, StoreMissing, Unavailable
from headwater.storage.stores import ObjectInfo, Store
from headwater.work.selection import Selection
from headwater.work.sync import request_sync
from headwater.work.workplace import Workplace

BUNDLE_KEYS = 500
_DRIVERS_AT_ONCE = 16  # most of the time they wait for stores, some of which do not answer
_BUNDLES_A_TURN = 8  # of one driver, while others wait
_HEADS_AT_ONCE = 32
_FEW_KEYS = 10  # may be refused by themselves; when more are, and nothing else is answered, it is the store
_LEASE_S = 120.0
_LOOK_WITHIN_S = 60.0  # at a bundle; less than the lease
_LOOK_ANYWAY_S = 5.0  # a notification can be lost, a row cannot
_BUSY_PAUSE_S = 0.2  # somebody writes at a path just now
_AFTER_TROUBLE_S = 1.0  # with the database
_BUSY_TRIES = 25  # then as if it had failed
_ROOM_PAUSE_S = 30.0
_FAILURES_TO_TELL = 5
_CLEAN_EVERY_S = 300.0

_log = logging.getLogger(__name__)


async def follow_forever(place: Workplace) -> None:
    """Until cancelled. A database that goes away and comes back is waited for."""
    while True:
        try:
            async with place.pool.connection() as listener:
                await listener.set_autocommit(True)
                await listener.execute("LISTEN " + hints.CHANNEL)
                try:
                    await _Following(place, listener).run()
                finally:
                    await listener.execute("UNLISTEN *")
                    await listener.set_autocommit(False)
        except (OperationalError, PoolTimeout):
            await asyncio.sleep(_LOOK_ANYWAY_S)
        except Exception:  # noqa: BLE001 - a defect of ours here stops no other work
            _log.exception("Following events failed")
            await asyncio.sleep(_LOOK_ANYWAY_S)


@dataclass(slots=True)
class _Following:
    place: Workplace
    listener: AsyncConnection[Any]
    busy: dict[int, asyncio.Task[None]] = field(default_factory=dict)  # drivers
    began_at: dict[int, float] = field(default_factory=dict)  # their last turns
    clean_at: float = 0.0

    async def run(self) -> None:
        try:
            while True:
                pause_s = await self._begin_what_is_due()
                async for _ in self.listener.notifies(timeout=pause_s, stop_after=1):
                    pass
        finally:
            for task in self.busy.values():
                task.cancel()
            await asyncio.gather(*self.busy.values(), return_exceptions=True)

    async def _begin_what_is_due(self) -> float:
        """Returns when to look again, at the latest."""
        self.busy = {driver_id: task for driver_id, task in self.busy.items() if not task.done()}
        async with self.place.pool.connection() as conn:
            if self.clean_at < time.monotonic():
                await claims.drop_oldest(conn)
                self.clean_at = time.monotonic() + _CLEAN_EVERY_S
            await start_wanted_scans(conn)
            due = await claims.due_drivers(conn)
            next_s = await claims.next_due_in_s(conn)
        for driver_id in sorted(due, key=lambda driver_id: self.began_at.get(driver_id, 0)):
            if driver_id not in self.busy and len(self.busy) < _DRIVERS_AT_ONCE:
                self.began_at[driver_id] = time.monotonic()
                self.busy[driver_id] = asyncio.create_task(_follow_driver(self.place, driver_id))
        return _LOOK_ANYWAY_S if next_s is None else min(max(next_s, 0.05), _LOOK_ANYWAY_S)


async def _follow_driver(place: Workplace, driver_id: int) -> None:
    """One turn: some bundles, if there are so many."""
    try:
        for _ in range(_BUNDLES_A_TURN):
            if not await apply_bundle(place, driver_id):
                break
    except (OperationalError, PoolTimeout):
        pass  # its hints are taken again, when our claim has ended at the latest
    except Exception:  # noqa: BLE001 - a defect of ours at one driver stops no other
        _log.exception("Applying events of driver %s failed", driver_id)
        with suppress(OperationalError, PoolTimeout):
            async with place.pool.connection() as conn:
                await claims.leave_alone(conn, driver_id, "Headwater failed at applying events; its log says where.")


async def start_wanted_scans(conn: AsyncConnection[Any]) -> None:
    """Where something happened that hints do not tell, or more is gone than is believed without a scan."""
    for dataset_id in await upstream.take_wanted_scans(conn):
        with suppress(NotFound):  # it went with its project
            await request_sync(conn, await datasets.load_dataset(conn, dataset_id), caller_id=None)


async def apply_bundle(place: Workplace, driver_id: int) -> bool:
    """Look into some hints of a driver. Safe to repeat and side by side. False when there was none to look into."""
    async with place.pool.connection() as conn:
        bundle = await claims.take(conn, driver_id, limit=BUNDLE_KEYS, lease_s=_LEASE_S)
    if not bundle.taken:
        return False
    try:
        await _look_into(place, driver_id, bundle)
    except asyncio.CancelledError:  # our worker ends: another one may go on
        await _give_back(place, driver_id, bundle, after_s=0)
        raise
    except OperationalError:
        await _give_back(place, driver_id, bundle, after_s=_AFTER_TROUBLE_S)
        raise
    return True


async def _give_back(place: Workplace, driver_id: int, bundle: Bundle, *, after_s: float) -> None:
    """Let others take it before the claim ends, if the database can be told."""
    with suppress(OperationalError, PoolTimeout):
        async with place.pool.connection() as conn:
            await claims.put_off(conn, driver_id, bundle.taken, pause_s=after_s, error=None)


async def _look_into(place: Workplace, driver_id: int, bundle: Bundle) -> None:
    async with place.pool.connection() as conn:
        followers = await upstream.followers_of(conn, driver_id)
        wanted = [await _wanted(conn, bundle, follower) for follower in followers]
    keys = sorted({key for each in wanted for key in each.keys})
    looks = await _look(place, followers[0].dataset_id, keys) if keys else _Looks()
    waits = _waits_of(looks, set(keys))
    for each in wanted:
        applied = await _apply(place, driver_id, bundle, each, looks)
        waits |= dict.fromkeys((path[1:] for path in applied.without_room), _Wait("room", str(applied.refused)))
        waits |= dict.fromkeys((path[1:] for path in applied.unsettled), _Wait("busy"))
    await _settle(place, driver_id, bundle, looks, waits, followers)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Keys, below the driver's prefix, that have to be looked at for one dataset."""

    follower: Follower
    keys: set[str]


async def _wanted(conn: AsyncConnection[Any], bundle: Bundle, follower: Follower) -> _Wanted:
    """Without what is no item of the dataset, and what its index knows already: mostly our own uploads."""
    selection = Selection.of(follower.rules)
    contents = {
        key: hint.content
        for hint in bundle.taken
        if _may_be_item(key := hint.key[len(follower.prefix) :]) and (selection.keeps_all or selection.keeps(f"/{key}"))
    }
    known = await changes.known_contents(conn, follower.dataset_id, [f"/{key}" for key in contents])
    return _Wanted(
        follower, {key for key, content in contents.items() if content is None or content != known.get(f"/{key}")}
    )


def _may_be_item(key: str) -> bool:
    return bool(key) and not key.startswith(HIDDEN_FOLDER[1:] + "/")


@dataclass(slots=True)
class _Looks:
    """What the store said of each key."""

    found: dict[str, ObjectInfo] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    failed: dict[str, HeadwaterError] = field(default_factory=dict)
    error: HeadwaterError | None = None  # of the store as a whole: what it did not say has to wait
    is_empty: bool = False
    requests: int = 0


async def _look(place: Workplace, dataset_id: int, keys: Sequence[str]) -> _Looks:
    """One HEAD a key. Raises nothing of the store's: what went wrong is part of the answer."""
    looks = _Looks()
    try:
        async with asyncio.timeout(_LOOK_WITHIN_S), place.places.of_dataset(dataset_id) as store:
            await _look_at_each(store, keys, looks)
            if looks.error is None and not looks.found and (looks.gone or looks.failed):
                await _prove_that_it_is_there(store, looks)
    except TimeoutError:
        looks.error = Unavailable(f"The bucket did not answer within {_LOOK_WITHIN_S:.0f} s.")
    except HeadwaterError as error:
        looks.error = error
    if looks.error is not None and not looks.found:
        looks.gone = set()  # nothing proves that the bucket itself was there
    return looks


async def _look_at_each(store: Store, keys: Sequence[str], looks: _Looks) -> None:
    waiting = iter(keys)

    async def look() -> None:
        for key in waiting:
            if looks.error is not None:
                return
            looks.requests += 1
            try:
                looks.found[key] = await store.head(key)
            except StoreMissing:
                looks.gone.add(key)
            except Unavailable as error:
                looks.error = error
            except HeadwaterError as error:
                looks.failed[key] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(min(_HEADS_AT_ONCE, len(keys))):
            group.create_task(look())
    if len(looks.failed) > _FEW_KEYS and not looks.found and not looks.gone:
        looks.error = next(iter(looks.failed.values()))


async def _prove_that_it_is_there(store: Store, looks: _Looks) -> None:
    """In a bucket that is missing, or a folder that is not mounted, no key is to be found: that proves no deletion.

    Nor do a few keys that are refused prove that the store says no to all. Raises what stands in the way.
    """
    looks.requests += 1
    looks.is_empty = not (await store.check_listing()).keys


async def _apply(place: Workplace, driver_id: int, bundle: Bundle, wanted: _Wanted, looks: _Looks) -> Applied:
    """Bring one dataset in step, in one transaction, with what was found of keys that are still ours to settle."""
    follower = wanted.follower
    hints_of = {hint.key[len(follower.prefix) :]: hint for hint in bundle.taken}
    asked = [hints_of[key] for key in sorted(wanted.keys & (looks.found.keys() | looks.gone))]
    if not asked:
        return Applied()
    async with place.pool.connection() as conn:
        ours = {key[len(follower.prefix) :] for key in await claims.hold(conn, driver_id, asked)}
        if not await upstream.lock_follower(conn, follower.dataset_id):
            return Applied()
        looked = _looked(follower, bundle, ours, looks)
        applied = await changes.apply_looked(conn, looked, follower.rules)
        await _tell(conn, follower, applied)
    return applied


def _looked(follower: Follower, bundle: Bundle, keys: set[str], looks: _Looks) -> Looked:
    """Without markers of folders, which are no items."""
    infos = [looks.found[key] for key in sorted(keys & looks.found.keys())]
    infos = [info for info in infos if info.size_bytes or not info.key.endswith("/")]
    return Looked(
        dataset_id=follower.dataset_id,
        started_at=bundle.taken_at,
        found=changes.listed(
            [f"/{info.key}" for info in infos],
            [info.size_bytes for info in infos],
            [info.etag for info in infos],
            ["" if info.modified_at is None else info.modified_at.isoformat() for info in infos],
        ),
        gone=[f"/{key}" for key in sorted(keys & looks.gone)],
        is_store_empty=looks.is_empty,
    )


@dataclass(frozen=True, slots=True)
class _Wait:
    """Why a hint is not done with."""

    why: Literal["silence", "failure", "room", "busy"]
    error: str | None = None


def _waits_of(looks: _Looks, keys: set[str]) -> dict[str, _Wait]:
    """Keys that the store said nothing of."""
    unanswered = keys - looks.found.keys() - looks.gone - looks.failed.keys()
    waits = dict.fromkeys(unanswered, _Wait("silence"))
    why = "failure" if looks.error is None else "silence"
    return waits | {key: _Wait(why, str(error)) for key, error in looks.failed.items()}


async def _settle(
    place: Workplace,
    driver_id: int,
    bundle: Bundle,
    looks: _Looks,
    waits: dict[str, _Wait],
    followers: Sequence[Follower],
) -> None:
    prefix = followers[0].prefix if followers else ""
    waiting: dict[tuple[float, str | None], list[Taken]] = {}
    for hint in bundle.taken:
        if (wait := waits.get(hint.key[len(prefix) :])) is not None:
            waiting.setdefault((_pause_s(wait, hint), wait.error), []).append(hint)
    still = {hint.key for put_off in waiting.values() for hint in put_off}
    async with place.pool.connection() as conn:
        done = [hint for hint in bundle.taken if hint.key not in still]
        await claims.settle(conn, driver_id, done, looked_at=looks.requests)
        for (pause_s, error), put_off in waiting.items():
            await claims.put_off(conn, driver_id, put_off, pause_s=pause_s, error=error)
        if looks.error is None:
            await claims.note_answered(conn, driver_id)
        elif await claims.leave_alone(conn, driver_id, str(looks.error)) == _FAILURES_TO_TELL:
            await _tell_of_silence(conn, followers[0], looks.error)


def _pause_s(wait: _Wait, hint: Taken) -> float:
    if wait.why == "silence":
        return 0  # it is the store that is left alone
    if wait.why == "room":
        return _ROOM_PAUSE_S
    if wait.why == "busy" and hint.attempts < _BUSY_TRIES:
        return _BUSY_PAUSE_S
    return claims.pause_s(hint.attempts)


async def _tell(conn: AsyncConnection[Any], follower: Follower, applied: Applied) -> None:
    """Members hear, once in a while, of what does not go by itself."""
    if applied.held and not await upstream.was_told(conn, follower.dataset_id, "events.held"):
        await notices.tell_project(
            conn,
            follower.project_id,
            "warning",
            f"Many objects of dataset {follower.name} seem to be gone",
            "More objects went missing by events than are believed without a look at the whole bucket. Nothing more "
            "was marked; a sync looks, and asks for a confirmation if it finds the same.",
            dataset_id=follower.dataset_id,
            kind="events.held",
        )
    if applied.refused is not None and not await upstream.was_told(conn, follower.dataset_id, "events.refused"):
        await notices.tell_project(
            conn,
            follower.project_id,
            "warning",
            f"New objects of dataset {follower.name} have no room",
            f"{applied.refused} Events that wait are applied by themselves once there is room.",
            dataset_id=follower.dataset_id,
            kind="events.refused",
        )


async def _tell_of_silence(conn: AsyncConnection[Any], follower: Follower, error: HeadwaterError) -> None:
    if await upstream.was_told(conn, follower.dataset_id, "events.waiting"):
        return
    await notices.tell_project(
        conn,
        follower.project_id,
        "error",
        f"Events of dataset {follower.name} cannot be applied",
        f"{error} The events wait, and are applied once the bucket answers.",
        dataset_id=follower.dataset_id,
        kind="events.waiting",
    )
