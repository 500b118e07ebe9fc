"""Histories: whatever may happen to a dataset and its bucket, in any order, with faults in between.

The reference model is two dicts: the bucket, and what was deleted here on purpose. What the index must be follows from
them; how it came to be so is checked by the ledger.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headwater.work import sync
from tests.torture.bucket import Bucket
from tests.torture.ledger import Ledger
from tests.work.faults import KINDS, Lane
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
        self.deleted: dict[str, bool] = {}  # here on purpose -> its object is gone as well
        self.waiting: list[str] = []  # jobs of deletion
        self.began_at = datetime.now(UTC)
        self.tally["histories"] += 1

    @initialize(allow_delete=st.booleans())
    def begin(self, allow_delete: bool) -> None:
        self.allow_delete = allow_delete
        self.dataset = self.run(self.world.dataset(self.bucket, allow_delete=allow_delete))
        self.ledger = Ledger(self.world, self.dataset.id, self.bucket.was_absent)

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
        if key in NOT_UPLOADED:
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
        if await self.world.item(self.dataset, "/" + key) is not None:
            self.ledger.asked_away.add("/" + key)
            self.deleted[key] = False
            self.waiting.append(key)
            await self.world.delete(self.dataset, "/" + key)

    @rule()
    def jobs(self) -> None:
        self._begin("job runs")
        self._run_jobs()

    def _run_jobs(self) -> None:
        wanted = [key for key in self.waiting if self.allow_delete and self.deleted.get(key) is False]
        self.waiting.clear()
        self.bucket.deleted.clear()
        self.run(self.world.run_jobs(self.dataset))
        assert set(self.bucket.deleted) == set(wanted), "what was deleted is not what was asked for"
        for key in wanted:
            self.deleted[key] = True

    # Syncs.

    @rule(confirm=st.booleans(), death=maybe_deaths)
    def sync(self, confirm: bool, death: tuple[str, int] | None) -> None:
        """While nothing else happens: exact, however often its worker dies."""
        self._begin("scans")
        self._exact_sync(confirm, death)

    def _exact_sync(self, confirm: bool, death: tuple[str, int] | None = None) -> None:
        scan_id = self._request(confirm)
        self._run_lane(scan_id, death)
        scan = self._finish(scan_id)
        found = self.run(self.world.index(self.dataset))
        present = {path[1:]: etag for path, (etag, _, missing) in found.items() if not missing}
        wanted = self._wanted()
        gone = present.keys() - wanted.keys()
        assert {key: present[key] for key in present.keys() - gone} == wanted
        if scan.state == "done":
            assert not gone
        else:
            assert scan.state == "held"
            assert not confirm
            assert len(gone) > BRAKE_ITEMS or not self.bucket.objects

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
        self._run_lane(scan_id, death)
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

    @rule(at=st.integers(1, 30))
    def abort(self, at: int) -> None:
        """Whoever aborts keeps what was found."""
        self._begin("aborts")
        scan_id = self._request(confirm=False)
        self._run_lane(scan_id, ("commit unheard", at))
        self.run(self._ask_to_abort(scan_id))
        scan = self._finish(scan_id)
        assert scan.state in ("stopped", "done", "held")

    async def _ask_to_abort(self, scan_id: int) -> None:
        async with self.world.connection() as conn:
            await conn.execute(
                "UPDATE command SET abort_requested = true WHERE id = (SELECT command_id FROM scan WHERE id = %s)",
                [scan_id],
            )

    def _request(self, confirm: bool) -> int:
        return self.run(self.world.request(self.dataset, confirm=confirm))[1]

    def _run_lane(self, scan_id: int, death: tuple[str, int] | None) -> None:
        lane = Lane(*(death or ("none", 0)))
        if not self.run(lane.live(sync.run_scan(self.lanes.place, scan_id))):
            self.tally["faults"] += 1

    def _finish(self, scan_id: int) -> Any:
        """By a worker that lives on."""
        self.run(sync.run_scan(self.world.place, scan_id))
        command, scan = self.run(self.world.ended(self.dataset))
        assert command.has_ended
        assert scan.id == scan_id
        self.deleted = {key: is_gone for key, is_gone in self.deleted.items() if not is_gone}
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
            if (content or key[-1] != "/") and self.deleted.get(key) is not False
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
