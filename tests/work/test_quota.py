"""Quotas from end to end: syncs that stop and go on, uploads refused in time, and a sum that holds whoever writes."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog import commands, datasets, items, quotas
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync import listings, scans
from headwater.errors import BadRequest, NotFound, QuotaExceeded, Unavailable
from headwater.work import deletion, sync, upload
from tests.catalog.test_scans import listing
from tests.work.quotas import Standing, checked_standing, give_to, make_organization, standing
from tests.work.scripted import Crash, Fault, FaultyCursor, ScriptedStore
from tests.work.world import World, ghosts, present, somebody_waits_for

pytestmark = pytest.mark.usefixtures("small_batches")


class Organization:
    """One of a test's own, in the shared world."""

    def __init__(self, world: World, organization_id: int) -> None:
        self.world = world
        self.id = organization_id

    async def own(self, dataset: Dataset) -> Dataset:
        async with self.world.connection() as conn:
            await give_to(conn, self.id, dataset)
        return dataset

    async def dataset(self, store: ScriptedStore) -> Dataset:
        return await self.own(await self.world.dataset(store))

    async def own_dataset(self) -> tuple[Dataset, Path]:
        dataset, folder = await self.world.own_dataset()
        return await self.own(dataset), folder

    async def limit(self, limit: int | None) -> None:
        async with self.world.connection() as conn:
            await quotas.set_limit(conn, self.id, limit)

    async def standing(self) -> Standing:
        async with self.world.connection() as conn:
            return await checked_standing(conn, self.id)


@pytest.fixture
async def organization(world: World) -> Organization:
    async with world.connection() as conn:
        return Organization(world, await make_organization(conn, 5))


def objects(number: int) -> dict[str, bytes]:
    return {f"{n:02}.txt": str(n).encode() for n in range(number)}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def shuffled(keys: Any) -> list[str]:
    return sorted(keys, key=lambda key: key[::-1])


@pytest.mark.parametrize("order", ["in order", "out of order"])
async def test_a_sync_stops_at_the_limit_and_goes_on_once_there_is_room(world, organization, order):
    store = ScriptedStore(objects(23))
    if order == "out of order":
        store.order = shuffled
    dataset = await organization.dataset(store)
    command, scan = await world.sync(dataset)
    assert (command.status, command.warning, scan.state, scan.created) == ("failed", None, "stopped", 5)
    assert command.error.startswith("This needs at least ")
    assert "0 of 5 of organisation 'org " in command.error
    assert command.error.endswith(" It stopped after '/04.txt'.")
    assert present(await world.index(dataset)) == {f"/{key}" for key in sorted(store.objects)[:5]}
    again, _ = await world.sync(dataset)
    assert (again.status, again.error) == (command.status, command.error)
    await organization.limit(12)
    _, scan = await world.sync(dataset)
    assert (scan.state, scan.created) == ("stopped", 7)
    await organization.limit(23)
    command, scan = await world.sync(dataset)
    assert (command.status, command.error, scan.state, scan.created) == ("success", None, "done", 11)
    assert await organization.standing() == Standing(23, rows=23, held=0)
    assert ghosts(await world.index(dataset)) == set()
    assert Counter((await world.events(dataset)).values()) == {1: 23}


async def test_a_sync_that_stops_at_the_limit_marks_nothing_missing(world, organization):
    store = ScriptedStore(objects(5))
    dataset = await organization.dataset(store)
    await world.sync(dataset)
    store.objects = {"00.txt": b"0", "001.txt": b"new"} | {f"{n:02}.txt": str(n).encode() for n in (2, 3, 4)}
    command, scan = await world.sync(dataset)
    assert (command.status, scan.state, scan.marked) == ("failed", "stopped", 0)
    assert ghosts(await world.index(dataset)) == set()
    await organization.limit(6)
    _, scan = await world.sync(dataset)
    assert (scan.state, scan.marked) == ("done", 1)
    assert ghosts(await world.index(dataset)) == {"/01.txt"}


async def test_a_full_organisation_syncs_what_is_not_new_and_writes_no_row_for_nothing(world, organization):
    store = ScriptedStore(objects(5))
    dataset = await organization.dataset(store)
    await world.sync(dataset)
    before = await world.rows_written(dataset)
    command, scan = await world.sync(dataset)
    assert (command.status, scan.unchanged) == ("success", 5)
    assert await world.rows_written(dataset) == before
    gone = store.objects.pop("03.txt")
    await world.sync(dataset)
    assert ghosts(await world.index(dataset)) == {"/03.txt"}
    store.objects |= {"03.txt": gone, "01.txt": b"other"}
    command, scan = await world.sync(dataset)
    assert (command.status, scan.returned, scan.changed) == ("success", 1, 1)


async def test_a_limited_sync_that_dies_at_any_call_ends_as_if_it_had_not(world, faulty, organization):
    for kind in ("statement", "commit lost", "commit unheard"):
        for nth in itertools.count(1):
            async with world.connection() as conn:
                own = Organization(world, await make_organization(conn, 6))
            dataset = await own.dataset(ScriptedStore(objects(11)))
            _, scan_id = await world.request(dataset)
            FaultyCursor.fault = fault = Fault(kind, nth)
            try:
                await sync.run_scan(faulty.place, scan_id)
            except Crash:
                assert fault.has_fired
            finally:
                FaultyCursor.fault = None
            await sync.run_scan(world.place, scan_id)
            command, scan = await world.ended(dataset)
            assert (command.status, scan.created) == ("failed", 6), (kind, nth)
            assert command.error.endswith("It stopped after '/05.txt'.")
            assert await own.standing() == Standing(6, rows=6, held=0)
            await own.limit(11)
            await world.sync(dataset)
            assert await own.standing() == Standing(11, rows=11, held=0)
            if not fault.has_fired:
                break


async def unread() -> AsyncIterator[bytes]:
    raise AssertionError("not a byte is read of what is refused")
    yield b""


@pytest.mark.parametrize("kind", ["own storage", "folder", "seaweedfs"])
async def test_an_upload_without_room_is_refused_before_its_bytes_and_leaves_nothing(
    world, organization, kind, request: pytest.FixtureRequest
):
    await organization.limit(1)
    if kind == "seaweedfs":
        dataset, store = await world.s3_dataset(request.getfixturevalue("weed"))
    else:
        dataset, folder = await (world.own_dataset() if kind == "own storage" else world.local_dataset())
    await organization.own(dataset)
    await world.upload(dataset, "/first", b"first")
    for mode in ("skip", "overwrite"):
        announced = upload.Announced("/second", mode)
        with pytest.raises(QuotaExceeded, match=r"This needs 1 more data point; 0 of 1 of organisation"):
            await upload.upload_file(world.place, dataset, world.owner, announced, unread())
    over = await world.upload(dataset, "/first", b"other")
    kept = await world.upload(dataset, "/first", b"dropped", mode="skip")
    assert (over.outcome, kept.outcome) == ("overwrite", "skip")
    await world.run_jobs(dataset)
    if kind == "seaweedfs":
        assert [page.keys async for page in store.list_pages()] == [["first"]]
    else:
        assert len(files(folder)) == 1
    assert await organization.standing() == Standing(1, rows=1, held=0)


async def test_an_upload_brings_a_ghost_back_without_a_place(world, organization):
    store = ScriptedStore(objects(5))
    dataset = await organization.dataset(store)
    await world.sync(dataset)
    store.objects.pop("03.txt")
    await world.sync(dataset)
    assert (await world.upload(dataset, "/03.txt", b"back", mode="skip")).outcome == "overwrite"
    assert await organization.standing() == Standing(5, rows=5, held=0)


async def test_an_upload_that_was_let_in_keeps_its_place_and_one_that_fails_gives_it_back(world, organization):
    await organization.limit(1)
    dataset, folder = await organization.own_dataset()
    is_sending, ends = asyncio.Event(), asyncio.Event()

    async def slow(*, breaks: bool) -> AsyncIterator[bytes]:
        yield b"first half"
        is_sending.set()
        await ends.wait()
        if breaks:
            raise BadRequest("The upload broke off.")
        yield b"second half"

    for breaks in (True, False):
        is_sending.clear()
        ends.clear()
        announced = upload.Announced("/slow", "skip")
        first = asyncio.create_task(
            upload.upload_file(world.place, dataset, world.owner, announced, slow(breaks=breaks))
        )
        await is_sending.wait()
        assert await organization.standing() == Standing(1, rows=0, held=1)
        with pytest.raises(QuotaExceeded):
            await world.upload(dataset, "/quick", b"x")
        ends.set()
        if breaks:
            with pytest.raises(BadRequest, match="broke off"):
                await first
            assert await organization.standing() == Standing(1, rows=0, held=0)
            assert files(folder) == []
    assert (await first).outcome == "created"
    assert await organization.standing() == Standing(1, rows=1, held=0)


async def meanwhile(world: World, dataset: Dataset, path: str, happens: Any) -> upload.Uploaded:
    """An upload during whose bytes something happens."""

    async def chunks() -> AsyncIterator[bytes]:
        yield b"first half"
        await happens()
        yield b"second half"

    return await upload.upload_file(world.place, dataset, world.owner, upload.Announced(path, "skip"), chunks())


@pytest.mark.parametrize("kind", ["own storage", "folder"])
async def test_an_upload_that_lost_its_room_is_refused_before_it_can_be_seen(world, organization, kind):
    """Its place expired and others took it, or the limit came while it was under way."""
    dataset, folder = await (world.own_dataset() if kind == "own storage" else world.local_dataset())
    await organization.own(dataset)
    await organization.limit(1)

    async def somebody_takes_the_place() -> None:
        async with world.connection() as conn:
            await conn.execute("UPDATE quota_hold SET expires_at = now() - interval '1 s'")
        await world.upload(dataset, "/quick", b"x")

    with pytest.raises(QuotaExceeded):
        await meanwhile(world, dataset, "/slow", somebody_takes_the_place)
    assert len(files(folder)) == 1
    await organization.limit(None)
    with pytest.raises(QuotaExceeded):
        await meanwhile(world, dataset, "/slow", lambda: organization.limit(1))
    assert len(files(folder)) == 1
    await organization.limit(None)
    assert (await meanwhile(world, dataset, "/slow", lambda: organization.limit(2))).outcome == "created"
    assert await organization.standing() == Standing(2, rows=2, held=0)


async def test_an_upload_whose_item_came_meanwhile_gives_its_place_back(world, organization):
    dataset, _ = await organization.own_dataset()
    for mode, outcome in (("overwrite", "overwrite"), ("skip", "skip")):
        path = f"/{mode}"

        async def chunks(path: str = path) -> AsyncIterator[bytes]:
            yield b"first half"
            await world.upload(dataset, path, b"was quicker")

        done = await upload.upload_file(world.place, dataset, world.owner, upload.Announced(path, mode), chunks())
        assert done.outcome == outcome
    assert await organization.standing() == Standing(5, rows=2, held=0)


async def test_a_place_that_is_about_to_become_an_item_is_not_given_away(world, organization):
    """Its hour is over while the store still makes the object visible."""
    await organization.limit(1)
    dataset, _ = await organization.own_dataset()
    async with world.connection() as conn:
        hold_id = await quotas.hold_place(conn, dataset.id)
    async with world.connection() as conn:
        await conn.execute("UPDATE quota_hold SET expires_at = now() - interval '1 s' WHERE id = %s", [hold_id])
    async with world.connection() as conn:
        await quotas.use_place(conn, dataset.id, hold_id)
        with pytest.raises(QuotaExceeded):
            await world.upload(dataset, "/other", b"x")


async def test_who_sets_a_limit_waits_for_who_adds_without_one(world, organization):
    await organization.limit(None)
    dataset, _ = await organization.own_dataset()
    async with world.connection() as conn:
        await quotas.use_place(conn, dataset.id, None)
        setting = asyncio.create_task(organization.limit(0))
        await somebody_waits_for(world, conn)
        await items.put_item(
            conn, dataset.id, items.Written("/a", "key", 1, "e", None, None), creator_id=world.owner.id
        )
    await setting
    assert await organization.standing() == Standing(0, rows=1, held=0)


async def test_who_sets_a_limit_does_not_wait_for_ever(world, organization, monkeypatch):
    monkeypatch.setattr(quotas, "_PATIENCE_MS", 10)
    dataset, _ = await organization.own_dataset()
    async with world.connection() as conn:
        assert await quotas.lock_room(conn, dataset.id) is not None
        with pytest.raises(Unavailable, match="Set the quota again"):
            await organization.limit(7)
    await organization.limit(7)
    assert (await organization.standing()).limit == 7


async def test_what_others_added_while_one_waited_for_its_turn_is_counted_once(world, organization):
    """The batch was compared before; by its turn one of it is an item, and the rest has just the room it needs."""
    store = ScriptedStore(objects(3), page_keys=10)
    dataset = await organization.dataset(store)
    await organization.limit(3)
    async with world.connection() as conn:
        await quotas.use_place(conn, dataset.id, None)
        syncing = asyncio.create_task(world.sync(dataset))
        await somebody_waits_for(world, conn)
        written = items.Written("/01.txt", None, 1, store.etag_of("01.txt"), None, None)
        await items.put_item(conn, dataset.id, written, creator_id=world.owner.id)
    command, scan = await syncing
    assert (command.status, command.error, scan.created) == ("success", None, 2)
    assert await organization.standing() == Standing(3, rows=3, held=0)


async def test_an_upload_that_waits_for_the_batch_that_adds_its_item_counts_it_once(world, organization):
    store = ScriptedStore(objects(3), page_keys=10)
    dataset = await organization.dataset(store)
    _, scan_id = await world.request(dataset)
    listed = listing({"/new/a": ("1", 1), "/b": ("1", 1)})
    async with world.connection() as conn:
        scan = await scans.load_scan(conn, scan_id)
        await listings.merge_listing(conn, scan, 0, listed, is_last=True)
        uploading = asyncio.create_task(world.upload(dataset, "/new/a", b"uploaded"))
        await somebody_waits_for(world, conn)
    assert (await uploading).outcome == "overwrite"
    assert await organization.standing() == Standing(5, rows=2, held=0)
    await organization.limit(None)
    async with world.connection() as conn:  # without a limit nobody waits before the row itself
        scan = await scans.load_scan(conn, scan_id)
        await listings.merge_listing(conn, scan, 0, listing({"/new/c": ("1", 1)}), is_last=True)
        uploading = asyncio.create_task(world.upload(dataset, "/new/c", b"uploaded"))
        await somebody_waits_for(world, conn)
    assert (await uploading).outcome == "overwrite"
    assert await organization.standing() == Standing(None, rows=3, held=0)
    await world.index(dataset)  # counts
    assert Counter(action for action, _ in await world.events(dataset)) == {"Created": 3, "Updated": 2}


async def test_a_threshold_is_told_once_each_time_it_is_crossed(world, organization):
    await organization.limit(20)
    dataset, _ = await organization.own_dataset()
    async with world.connection() as conn:
        await conn.set_autocommit(True)
        await conn.execute("LISTEN " + commands.CHANNEL)
        crossed = []
        for number in range(20):
            await world.upload(dataset, f"/{number:02}", b"x")
            crossed += [number + 1] if await _told(conn, organization.id) else []
        with pytest.raises(QuotaExceeded):
            await world.upload(dataset, "/more", b"x")
        assert crossed == [16, 19, 20]
        cursor = await conn.execute(
            "SELECT title FROM notice WHERE organization_id = %s ORDER BY id", [organization.id]
        )
        titles = [title for (title,) in await cursor.fetchall()]
        assert titles == [f"{percent} % of the data points are in use" for percent in (80, 95, 100)]
        assert not await _told(conn, organization.id)
        for change in (lambda: organization.limit(40), lambda: world.delete(dataset, "/00")):
            await change()
            assert not await _told(conn, organization.id)
        await organization.limit(21)
        assert await _told(conn, organization.id)  # from below 80 % to 90 %
        await conn.execute("UNLISTEN *")
        await conn.set_autocommit(False)


async def _told(conn: Any, organization_id: int) -> bool:
    """Whether a notice of the organisation has come with a notification of our own behind it."""
    await conn.execute("SELECT pg_notify(%s, 'so far')", [commands.CHANNEL])
    told = [notification.payload async for notification in conn.notifies(timeout=0)]
    assert told[-1] == "so far"
    assert told.count(f"quota:{organization_id}") <= 1
    return f"quota:{organization_id}" in told


steps = st.lists(
    st.one_of(
        st.tuples(st.just("sync"), st.integers(0, 2)),
        st.tuples(st.just("upload"), st.integers(0, 3), st.integers(0, 11), st.sampled_from(["skip", "overwrite"])),
        st.tuples(st.just("delete"), st.integers(0, 3), st.integers(0, 11)),
        st.tuples(st.just("purge"), st.just(2)),
        st.tuples(st.just("limit"), st.none() | st.integers(0, 40)),
    ),
    min_size=8,
    max_size=40,
)


class Crowd:
    """Three datasets on buckets and one in our own storage, and everything that may happen to them at once."""

    def __init__(self, world: World, own: Organization, made: list[Dataset]) -> None:
        self.world = world
        self.own = own
        self.made = made
        self.is_purged = False
        self.refused: list[str] = []
        self._there = 0  # when the limit was set: that stays, whatever the limit
        self._changing_limit = asyncio.Lock()
        self._asking = asyncio.Lock()  # nobody syncs what is deleted, and nobody deletes it twice

    async def do(self, step: Any) -> None:
        try:
            await getattr(self, step[0])(*step[1:])
        except QuotaExceeded as error:
            self.refused.append(str(error))
        except NotFound:
            if not self.is_purged:
                raise
        await self.look()

    async def look(self) -> None:
        async with self._changing_limit, self.world.connection() as conn:
            now = await standing(conn, self.own.id)
        assert now.limit is None or now.rows + now.held <= max(now.limit, self._there), (now, self._there)

    async def sync(self, number: int) -> None:
        async with self._asking:
            if number == 2 and self.is_purged:
                return
            _, scan_id = await self.world.request(self.made[number])
        await sync.run_scan(self.world.place, scan_id)

    async def upload(self, number: int, name: int, mode: upload.Mode) -> None:
        await self.world.upload(self.made[number], f"/{name:02}.txt", b"uploaded", mode=mode)

    async def delete(self, number: int, name: int) -> None:
        async with self.world.connection() as conn:
            item = await items.find_item_at(conn, self.made[number].id, f"/{name:02}.txt")
            if item is not None:
                await deletion.delete_item(conn, item)

    async def purge(self, number: int) -> None:
        async with self._asking, self.world.connection() as conn:
            if self.is_purged:
                return
            self.is_purged = True
            await datasets.delete_dataset(conn, self.made[number])
        await deletion.purge_dataset(self.world.place, self.made[number].id)

    async def limit(self, limit: int | None) -> None:
        async with self._changing_limit, self.world.connection() as conn:
            await quotas.set_limit(conn, self.own.id, limit)
            now = await standing(conn, self.own.id)  # nobody adds before this commits
            self._there = now.rows + now.held


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=steps, limit=st.integers(0, 40))
async def test_the_sum_never_exceeds_the_limit_and_never_drifts(world, steps, limit):
    """Syncs, uploads, deletions and changes of the limit, all at once; a deadlock would end one with an error."""
    async with world.connection() as conn:
        own = Organization(world, await make_organization(conn, limit))
    stores = [ScriptedStore(objects(12)) for _ in range(3)]
    made = [await own.dataset(store) for store in stores] + [(await own.own_dataset())[0]]
    crowd = Crowd(world, own, made)
    await asyncio.gather(*(crowd.do(step) for step in steps))
    assert (await own.standing()).held == 0
    left = [number for number in range(3) if number != 2 or not crowd.is_purged]
    for dataset in [*(made[number] for number in left), made[3]]:
        await world.index(dataset)  # counters are what the rows say
    await crowd.limit(None)
    for number in left:
        await world.run_jobs(made[number])
        command, _ = await world.sync(made[number])
        assert command.status == "success"
        assert {f"/{key}" for key in stores[number].objects} == present(await world.index(made[number]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(1, 52))
async def test_many_who_add_at_once_end_at_exactly_the_limit(world, limit):
    """Nobody is let in too many, and nobody is refused while there is room."""
    async with world.connection() as conn:
        own = Organization(world, await make_organization(conn, limit))
    made = [await own.dataset(ScriptedStore(objects(12))) for _ in range(3)]
    uploads_to, folder = await own.own_dataset()
    crowd = Crowd(world, own, [*made, uploads_to])
    steps = [("sync", 0), ("sync", 1), ("sync", 2), *(("upload", 3, name, "skip") for name in range(12))]
    await asyncio.gather(*(crowd.do(step) for step in steps))
    assert await own.standing() == Standing(limit, rows=min(limit, 48), held=0)
    assert len(files(folder)) == len(present(await world.index(uploads_to)))
