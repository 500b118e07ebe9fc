"""Histories: whatever may happen to a dataset and its bucket, in any order, with faults in between.

The reference model is two dicts: the bucket, and what was deleted here on purpose. What the index must be follows from
them; how it came to be so is checked by the ledger.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from psycopg.types.json import Jsonb

from headwater.catalog import commands
from headwater.catalog.sync import hints, scans, upstream
from headwater.catalog.sync.hints import Hint
from headwater.catalog.sync.rules import SyncRules, rules_of
from headwater.work import ghosts, sync, verify
from headwater.work.selection import Selection
from headwater.work.upstream import apply_bundle, start_wanted_scans
from tests.torture.bucket import Bucket
from tests.torture.ledger import Ledger
from tests.work.faults import KINDS, Lane, Turns
from tests.work.world import World

PAGE_KEYS, BATCH_KEYS, BRAKE_ITEMS = 2, 3, 3
# Neighbours in byte order that look alike, folder markers, what no text editor shows.
KEYS = ["a", "a/", "a/b", "a//b", "a/b/c", "/a", "ab", "a\x1fb", "b/1", "b/2", "b/3", "b/4", "c", "é", "\ufffd", "🦊"]
NOT_UPLOADED = {"a/", "a//b", "/a", "a\x1fb"}
CONTENTS = [b"1", b"2", b"22", b""]


@dataclass
class Environment:
    """What all histories of a run share."""

    loop: asyncio.AbstractEventLoop
    world: World
    lanes: World  # the same world, by connections that know their lane
    tally: Counter[str] = field(default_factory=Counter)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)


keys = st.sampled_from(KEYS)
contents = st.sampled_from(CONTENTS)
deaths = st.tuples(st.sampled_from(KINDS), st.integers(1, 60))
maybe_deaths = st.none() | deaths
changes = st.one_of(
    st.tuples(st.just("put"), keys, contents),
    st.tuples(st.just("remove"), keys),
    st.tuples(st.just("upload"), keys, contents),
    st.tuples(st.just("delete"), keys),
)


class Histories(RuleBasedStateMachine):
    environment: ClassVar[Environment]

    def __init__(self) -> None:
        super().__init__()
        self.run = self.environment.run
        self.world, self.lanes, self.tally = self.environment.world, self.environment.lanes, self.environment.tally
        self.bucket = Bucket(page_keys=PAGE_KEYS)
        self.deleted: dict[str, str] = {}  # here on purpose, and its object, of this etag, may still be there
        self.waiting: list[str] = []  # jobs of deletion
        self.selection = Selection.of(SyncRules())
        self.brake_items = BRAKE_ITEMS
        self.began_at = datetime.now(UTC)
        self.tally["histories"] += 1

    @initialize(allow_delete=st.booleans(), kind=st.sampled_from(["sorted", "unsorted", "walked", "skipping"]))
    def begin(self, allow_delete: bool, kind: str) -> None:
        """Most stores list in the order of bytes; some do not, and some skip a folder after its name."""
        self.allow_delete = allow_delete
        if kind == "unsorted":
            self.bucket.order = lambda keys: sorted(keys, reverse=True)
        elif kind == "walked":  # folder by folder: sorted for a while
            self.bucket.order = lambda keys: sorted(keys, key=lambda key: key.split("/"))
        elif kind == "skipping":
            self.bucket.follows = self._skips_folders
        self.dataset = self.run(self.world.dataset(self.bucket, allow_delete=allow_delete))
        self.ledger = Ledger(self.world, self.dataset.id, self._was_away)
        self.run(self._follow())

    async def _follow(self) -> None:
        async with self.world.connection() as conn:
            await upstream.switch(conn, self.dataset.driver_id, on=True)

    def _was_away(self, key: str, since: datetime, until: datetime) -> bool:
        """For the dataset: what its rules leave out is never there."""
        return not self.selection.keeps("/" + key) or self.bucket.was_absent(key, since, until)

    def _skips_folders(self, start: str) -> Callable[[str], bool]:
        """As SeaweedFS 4.48 does it after a text that names a folder and no object."""
        is_object = start in self.bucket.objects
        return lambda key: key.encode() > start.encode() and (is_object or not key.startswith(start + "/"))

    # What others do in the bucket.

    @rule(key=keys, content=contents)
    def others_put(self, key: str, content: bytes) -> None:
        self._begin("bucket changes")
        self.bucket.objects[key] = content

    @rule(key=keys)
    def others_rewrite(self, key: str) -> None:
        self._begin("bucket changes")
        if key in self.bucket.objects:
            self.bucket.objects[key] = self.bucket.objects[key]

    @rule(key=keys)
    def others_remove(self, key: str) -> None:
        self._begin("bucket changes")
        self._remove(key)

    @rule(key=keys, to=keys)
    def others_rename(self, key: str, to: str) -> None:
        self._begin("bucket changes")
        if key in self.bucket.objects and key != to:
            self.bucket.objects[to] = self.bucket.objects[key]
            self.bucket.objects.pop(key)

    @rule(content=contents)
    def others_fill(self, content: bytes) -> None:
        self._begin("bucket changes")
        for key in KEYS:
            self.bucket.objects[key] = content

    @rule()
    def others_empty(self) -> None:
        self._begin("bucket changes")
        for key in list(self.bucket.objects):
            self._remove(key)

    def _remove(self, key: str) -> None:
        if key in self.bucket.objects:
            self.bucket.objects.pop(key)

    # What people do here.

    @rule(key=keys, content=contents, mode=st.sampled_from(["skip", "overwrite"]))
    def upload(self, key: str, content: bytes, mode: str) -> None:
        self._begin("uploads")
        self.run(self._upload(key, content, mode))

    async def _upload(self, key: str, content: bytes, mode: str = "overwrite") -> None:
        if key in NOT_UPLOADED or not self.selection.keeps("/" + key):
            return
        uploaded = await self.world.upload(self.dataset, "/" + key, content, mode=mode)
        if uploaded.outcome == "skip":
            assert mode == "skip"
        else:
            self.deleted.pop(key, None)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self._begin("deletions")
        self.run(self._delete(key))

    async def _delete(self, key: str) -> None:
        if await self.world.item(self.dataset, "/" + key) is None:
            return
        self.ledger.asked_away.add("/" + key)
        await self.world.delete(self.dataset, "/" + key)
        async with self.world.connection() as conn:
            cursor = await conn.execute(
                "SELECT etag FROM tombstone WHERE dataset_id = %s AND path = %s", [self.dataset.id, "/" + key]
            )
            (self.deleted[key],) = await cursor.fetchone()
        self.waiting.append(key)

    @rule()
    def jobs(self) -> None:
        self._begin("job runs")
        self._run_jobs()

    def _run_jobs(self) -> None:
        """What was deleted goes, and nothing else: not what others have put into its place."""
        before = dict(self.bucket.objects)
        wanted = dict(before)
        for key in self.waiting if self.allow_delete else ():
            etag = self.deleted.pop(key, None)
            if etag is not None and key in wanted and self.bucket.etag_of(key) == etag:
                del wanted[key]
        self.waiting.clear()
        self.run(self.world.run_jobs(self.dataset))
        assert self.bucket.objects == wanted, "what was deleted is not what was asked for"

    @rule(
        action=st.sampled_from(["restore", "trash", "forget"]),
        chosen=st.lists(keys, min_size=1, max_size=4, unique=True),
    )
    def settle_ghosts(self, action: ghosts.Action, chosen: list[str]) -> None:
        self._begin("settled ghosts")
        self.run(self._settle_ghosts(action, ["/" + key for key in chosen]))

    async def _settle_ghosts(self, action: ghosts.Action, paths: list[str]) -> None:
        found = await self.world.index(self.dataset)
        if action == "forget":
            self.ledger.asked_away |= {path for path in paths if path in found and found[path][2]}
        wanted = {"paths": [path for path in paths if path[-1] != "/"]}  # those with a slash are whole folders
        async with self.world.connection() as conn:
            await ghosts.request(conn, self.dataset, action, wanted, len(paths), caller_id=self.world.owner.id)

    @rule(
        exclude=st.sampled_from([(), (), ("b/**",), ("a*", "c")]),
        ghost_policy=st.sampled_from(["flag", "trash"]),
        brake_items=st.sampled_from([None, 0, 100]),
    )
    def set_rules(self, exclude: tuple[str, ...], ghost_policy: str, brake_items: int | None) -> None:
        self._begin("rules set")
        stored: dict[str, Any] = {"exclude": list(exclude), "ghosts": ghost_policy, "brake_items": brake_items}
        self.selection = Selection.of(rules_of(stored))
        self.brake_items = BRAKE_ITEMS if brake_items is None else brake_items
        self.run(self._store_rules(stored))

    async def _store_rules(self, stored: dict[str, Any]) -> None:
        async with self.world.connection() as conn:
            await conn.execute("UPDATE dataset SET sync_rules = %s WHERE id = %s", [Jsonb(stored), self.dataset.id])

    @rule(is_repaired=st.booleans())
    def verify(self, is_repaired: bool) -> None:
        self._begin("verifications")
        self.run(self._verify(repair=is_repaired))

    async def _verify(self, *, repair: bool) -> dict[str, Any]:
        async with self.world.connection() as conn:
            command_id = await verify.request_verify(conn, self.dataset, caller_id=self.world.owner.id, repair=repair)
        await verify.verify_dataset(self.world.place, command_id, is_last_try=True)
        async with self.world.connection() as conn:
            command = await commands.load_command(conn, command_id)
        is_empty = command.error is not None and "came back empty" in command.error  # which proves nothing
        assert command.status == "success" or (is_empty and not self._wanted()), command.error
        return command.spec

    # Events: some are lost, others come twice, and in any order.

    @rule(picks=st.lists(st.integers(0, 30), max_size=12), death=maybe_deaths, is_lossy=st.booleans())
    def events_come(self, picks: list[int], death: tuple[str, int] | None, is_lossy: bool) -> None:
        self._begin("events")
        told = self.bucket.told
        came = [told[pick % len(told)] for pick in picks] if is_lossy and told else [*told, *told[::-1]]
        self.tally["hints"] += len(came)
        if is_lossy:
            told.clear()
        self.run(self._take_in(came))
        lane = Lane(*(death or ("none", 0)))
        if not self.run(lane.live(self._apply(self.lanes))):
            self.tally["faults"] += 1
        scan_id = self.run(self._apply_the_rest())
        if scan_id is not None:
            self._finish(scan_id)

    async def _take_in(self, came: list[Hint]) -> None:
        async with self.world.connection() as conn:
            await hints.take_in(conn, self.dataset.driver_id, came)

    async def _apply(self, world: World) -> None:
        while await apply_bundle(world.place, self.dataset.driver_id):
            pass

    async def _apply_the_rest(self) -> int | None:
        """By a worker that lives on, once the claims of the dead one have ended. A scan that this asks for, if any."""
        async with self.world.connection() as conn:
            await conn.execute("UPDATE hint SET not_before = now() WHERE driver_id = %s", [self.dataset.driver_id])
        await self._apply(self.world)
        async with self.world.connection() as conn:
            await start_wanted_scans(conn)
            scan = await scans.last_scan(conn, self.dataset.id)
        return scan.id if scan is not None and scan.state == "running" else None

    # Syncs.

    @rule(confirm=st.booleans(), death=maybe_deaths)
    def sync(self, confirm: bool, death: tuple[str, int] | None) -> None:
        """While nothing else happens: exact, however often its worker dies."""
        self._begin("scans")
        self._exact_sync(confirm, death)

    def _exact_sync(self, confirm: bool, death: tuple[str, int] | None = None) -> None:
        self._exact(self._request(confirm), confirm, [death])

    def _exact(
        self, scan_id: int, confirm: bool, deaths_of_lanes: list[tuple[str, int] | None], holds: Iterable[int] = ()
    ) -> None:
        self._run_lanes(scan_id, deaths_of_lanes, holds)
        scan = self._finish(scan_id)
        found = self.run(self.world.index(self.dataset))
        present = {path[1:]: etag for path, (etag, _, missing) in found.items() if not missing}
        wanted = self._wanted()
        listed = wanted.keys() | self.deleted.keys() & self.bucket.objects.keys()
        gone = present.keys() - wanted.keys()
        kept = {key: present[key] for key in present.keys() - gone}
        assert kept == wanted, f"differ: {kept.items() ^ wanted.items()}"
        if scan.state == "done":
            assert not gone, f"still there: {gone}"
        else:
            assert scan.state == "held"
            assert not confirm
            assert len(gone) > self.brake_items or not listed

    @rule(
        confirm=st.booleans(),
        deaths_of_lanes=st.lists(maybe_deaths, min_size=2, max_size=3),
        holds=st.lists(st.integers(0, 6), max_size=40),
    )
    def sync_in_lanes(self, confirm: bool, deaths_of_lanes: list[tuple[str, int] | None], holds: list[int]) -> None:
        """By several workers at once, whose steps come in any order, and who may die."""
        self._begin("scans in lanes")
        self._exact(self._request(confirm), confirm, deaths_of_lanes, holds)

    @rule(
        confirm=st.booleans(),
        death=maybe_deaths,
        between=st.lists(changes, max_size=4),
        midst=st.dictionaries(st.integers(1, 12), changes, max_size=4),
    )
    def sync_while_all_changes(
        self, confirm: bool, death: tuple[str, int] | None, between: list[Any], midst: dict[int, Any]
    ) -> None:
        """While others are at work, between its pages and between two workers."""
        self._begin("scans")
        scan_id = self._request(confirm)
        pages = 0

        async def on_page(_: int) -> None:
            nonlocal pages
            pages += 1
            if pages in midst:
                await self._change(midst[pages])

        self.bucket.on_page = on_page
        self._run_lanes(scan_id, [death])
        for change in between:
            self.run(self._change(change))
        self._finish(scan_id)
        self.bucket.on_page = None

    async def _change(self, change: tuple[Any, ...]) -> None:
        name, *rest = change
        if name == "put":
            self.bucket.objects[rest[0]] = rest[1]
        elif name == "remove":
            self._remove(*rest)
        elif name == "upload":
            await self._upload(*rest)
        else:
            await self._delete(*rest)

    @rule(at=st.integers(1, 30), between=st.lists(changes, max_size=4), is_resumed=st.booleans())
    def abort(self, at: int, between: list[Any], is_resumed: bool) -> None:
        """Whoever aborts keeps what was found, and may go on with it after others were at work."""
        self._begin("aborts")
        scan_id = self._request(confirm=False)
        self._run_lanes(scan_id, [("commit unheard", at)])
        self.run(self._ask_to_abort(scan_id))
        scan = self._finish(scan_id)
        assert scan.state in ("stopped", "done", "held")
        for change in between:
            self.run(self._change(change))
        if is_resumed:
            self._finish(self._request(confirm=False, resume=True))

    async def _ask_to_abort(self, scan_id: int) -> None:
        async with self.world.connection() as conn:
            await conn.execute(
                "UPDATE command SET abort_requested = true WHERE id = (SELECT command_id FROM scan WHERE id = %s)",
                [scan_id],
            )

    def _request(self, confirm: bool, *, resume: bool = False) -> int:
        return self.run(self._ask_to_sync(confirm, resume))

    async def _ask_to_sync(self, confirm: bool, resume: bool) -> int:
        async with self.world.connection() as conn:
            await sync.request_sync(
                conn, self.dataset, caller_id=self.world.owner.id, confirm_missing=confirm, resume=resume
            )
            scan = await scans.last_scan(conn, self.dataset.id)
        assert scan is not None
        return scan.id

    def _run_lanes(
        self, scan_id: int, deaths_of_lanes: list[tuple[str, int] | None], holds: Iterable[int] = ()
    ) -> None:
        turns = Turns(holds) if len(deaths_of_lanes) > 1 else None
        lanes = [Lane(*(death or ("none", 0)), turns) for death in deaths_of_lanes]

        async def run() -> None:
            work = [lane.live(sync.run_scan(self.lanes.place, scan_id, number)) for number, lane in enumerate(lanes)]
            await asyncio.gather(*work)

        self.run(run())
        self.tally["faults"] += sum(lane.is_dead for lane in lanes)

    def _finish(self, scan_id: int) -> Any:
        """By workers that live on: the jobs of all lanes, each as often as it has to be."""
        for number in itertools.count():
            self.run(sync.run_scan(self.world.place, scan_id, number % sync.requests.LANES))
            command, scan = self.run(self.world.ended(self.dataset))
            if command.has_ended:
                break
            assert number < 2 * sync.requests.LANES, "the sync comes to no end"
        assert scan.id == scan_id
        return scan

    # What must hold.

    def _begin(self, name: str) -> None:
        self.began_at = datetime.now(UTC)
        self.tally["steps"] += 1
        self.tally[name] += 1

    def _wanted(self) -> dict[str, str]:
        """The index as a dict: the bucket, without folder markers and what was deleted here."""
        return {
            key: self.bucket.etag_of_content(content)
            for key, content in self.bucket.objects.items()
            if (content or key[-1] != "/") and key not in self.deleted and self.selection.keeps("/" + key)
        }

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "ledger"):
            self.run(self.ledger.check(self.began_at))

    def teardown(self) -> None:
        """Quiescence: index and bucket are the same, and looking again writes nothing."""
        if not hasattr(self, "ledger"):
            return
        self.began_at = datetime.now(UTC)
        self._run_jobs()
        self._exact_sync(confirm=True)
        self.holds()
        before = self.run(self.world.rows_written(self.dataset))
        self._exact_sync(confirm=False)
        assert self.run(self.world.rows_written(self.dataset)) == before, "a sync without a change wrote rows"
        found = self.run(self._verify(repair=False))["verify"]
        assert found["clean"], f"a verification found {found}"
