"""Events of buckets, applied: what is there decides, nothing is lost, nothing bounces, and no outage is a deletion."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from psycopg.errors import UniqueViolation

from headwater.catalog import items, quotas
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync import claims, hints, upstream
from headwater.catalog.sync.hints import Hint
from headwater.errors import StoreDenied, Unavailable
from headwater.storage.stores import ListingPage, ObjectInfo
from headwater.work import upstream as work
from headwater.work.upstream import apply_bundle
from tests.work.scripted import Crash, Fault, FaultyCursor, ScriptedStore
from tests.work.world import World, ghosts, index, present, wait_for

_numbers = itertools.count(1)


class Bucket(ScriptedStore):
    """Tells what happens in it, as a bucket with events does; refuses or is away when a test says so."""

    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        super().__init__(objects, page_keys=1000)
        self.told: list[Hint] = []
        self.refuses: dict[str, Exception] = {}  # keys that may not be read
        self.away: Exception | None = None
        self.before_head = None  # awaited with the key
        self.after_head = None  # awaited with the key, when its answer is on its way

    async def head(self, key: str) -> ObjectInfo:
        if self.before_head is not None:
            await self.before_head(key)
        self.calls.append(f"head {key}")
        if self.away is not None:
            raise self.away
        if key in self.refuses:
            raise self.refuses[key]
        self.calls.pop()
        info = await super().head(key)
        if (after_head := self.after_head) is not None:
            self.after_head = None
            await after_head(key)
        return info

    async def check_listing(self) -> ListingPage:
        self._called("check")
        if self.away is not None:
            raise self.away
        return self._page(sorted(self.objects)[:20], is_last=True)

    def write(self, key: str, body: bytes) -> Hint:
        self.objects[key] = body
        self.told.append(
            Hint(key, "written", f"{next(_numbers):x}", datetime.now(UTC), None, self.etag_of(key), len(body))
        )
        return self.told[-1]

    def remove(self, key: str) -> Hint:
        self.objects.pop(key, None)
        self.told.append(Hint(key, "removed", f"{next(_numbers):x}", datetime.now(UTC)))
        return self.told[-1]

    @property
    def heads(self) -> list[str]:
        return [call.removeprefix("head ") for call in self.calls if call.startswith("head ")]


@pytest.fixture(scope="module", autouse=True)
async def nobody_elses_hints(world: World) -> None:
    """Other tests leave hints of buckets that are no more, which take their turns."""
    async with world.connection() as conn:
        await conn.execute("DELETE FROM hint")


async def follow(world: World, objects: dict[str, bytes] | None = None, **given) -> tuple[Dataset, Bucket]:
    """A dataset that follows its bucket, in step with it."""
    bucket = Bucket(dict(objects or {}))
    dataset = await world.dataset(bucket, **given)
    async with world.connection() as conn:
        await upstream.switch(conn, dataset.driver_id, on=True)
    if objects:
        await world.sync(dataset)
        async with world.connection() as conn:
            await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    bucket.calls.clear()
    return dataset, bucket


async def deliver(world: World, dataset: Dataset, *told: Hint) -> None:
    async with world.connection() as conn:
        await hints.take_in(conn, dataset.driver_id, told)


async def apply(world: World, dataset: Dataset) -> None:
    """What is due now, to the end."""
    while await apply_bundle(world.place, dataset.driver_id):
        pass


async def make_due(world: World, dataset: Dataset) -> None:
    """As if the pauses had passed."""
    async with world.connection() as conn:
        await conn.execute("UPDATE hint SET not_before = now() WHERE driver_id = %s", [dataset.driver_id])
        await conn.execute(
            "UPDATE driver_events SET not_before = '-infinity' WHERE driver_id = %s", [dataset.driver_id]
        )


async def waiting(world: World, dataset: Dataset) -> dict[str, str | None]:
    """Keys of hints that wait, with what stood in the way."""
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT key, error FROM hint WHERE driver_id = %s", [dataset.driver_id])
        return dict(await cursor.fetchall())


async def state(world: World, dataset: Dataset) -> upstream.DriverEvents:
    async with world.connection() as conn:
        return await upstream.load_events(conn, dataset.driver_id)


async def actions(world: World, dataset: Dataset) -> dict[str, int]:
    found: dict[str, int] = {}
    for (action, _), times in (await world.events(dataset)).items():
        found[action] = found.get(action, 0) + times
    return found


def same(bucket: Bucket) -> dict[str, tuple[str, int, bool]]:
    return {f"/{key}": (bucket.etag_of(key), len(body), False) for key, body in bucket.objects.items()}


async def test_new_changed_and_removed_objects_are_seen_with_one_call_each(world):
    dataset, bucket = await follow(world, {"a/old": b"1", "a/going": b"2", "stays": b"3"})
    told = [bucket.write("a/new", b"4"), bucket.write("a/old", b"changed"), bucket.remove("a/going")]
    await deliver(world, dataset, *told)
    await apply(world, dataset)
    found = await world.index(dataset)
    assert {path: row for path, row in found.items() if path != "/a/going"} == same(bucket)
    assert ghosts(found) == {"/a/going"}
    assert sorted(bucket.calls) == ["head a/going", "head a/new", "head a/old"]
    assert await actions(world, dataset) == {"Created": 1, "Updated": 1}
    assert await waiting(world, dataset) == {}
    now = await state(world, dataset)
    assert (now.received, now.applied, now.looked_at) == (3, 3, 3)


async def test_keys_below_the_drivers_folder_are_the_datasets_paths(world):
    dataset, bucket = await follow(world, prefix="cams/")
    bucket.write("x+ %2F/ö", b"1")
    await deliver(world, dataset, Hint("cams/x+ %2F/ö", "written"), Hint("camserver/y", "written"))
    await apply(world, dataset)
    assert present(await world.index(dataset)) == {"/x+ %2F/ö"}
    assert bucket.heads == ["x+ %2F/ö"]


async def test_what_a_scan_leaves_out_is_left_out_here_as_well(world):
    dataset, bucket = await follow(world)
    async with world.connection() as conn:
        await conn.execute("UPDATE dataset SET sync_rules = %s WHERE id = %s", ['{"exclude": ["*.tmp"]}', dataset.id])
    for key in ("a.jpg", "b.tmp", ".dataloop/thumbnails/1.jpg", "folder/"):
        bucket.write(key, b"" if key.endswith("/") else b"1")
    await deliver(world, dataset, *bucket.told)
    await apply(world, dataset)
    assert present(await world.index(dataset)) == {"/a.jpg"}
    assert set(bucket.heads) == {"a.jpg", "folder/"}
    assert await waiting(world, dataset) == {}


async def test_two_datasets_on_one_driver_cost_one_call_a_key_and_one_that_does_not_follow_stays_as_it_was(world):
    dataset, bucket = await follow(world)
    async with world.connection() as conn:
        others = [
            await conn.execute(
                """
                INSERT INTO dataset (project_id, driver_id, name, creator_id, auto_sync)
                SELECT project_id, driver_id, name || %s, creator_id, %s FROM dataset WHERE id = %s
                RETURNING id
                """,
                [f" {follows}", follows, dataset.id],
            )
            for follows in (True, False)
        ]
        ids = [(await cursor.fetchone())[0] for cursor in others]
        await conn.execute("INSERT INTO dataset_counter (dataset_id) SELECT unnest(%s::bigint[])", [ids])
    await deliver(world, dataset, bucket.write("a", b"1"))
    await apply(world, dataset)
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT dataset_id, path FROM item WHERE dataset_id = ANY(%s) ORDER BY 1", [[dataset.id, *ids]]
        )
        assert await cursor.fetchall() == [(dataset.id, "/a"), (ids[0], "/a")]
    assert bucket.calls == ["head a"]


async def test_an_upload_of_our_own_does_not_bounce(world):
    dataset, bucket = await follow(world)
    await world.upload(dataset, "/a.jpg", b"1")
    before = await world.rows_written(dataset)
    bucket.calls.clear()
    await deliver(world, dataset, bucket.write("a.jpg", b"1"))
    await apply(world, dataset)
    assert (bucket.calls, await waiting(world, dataset)) == ([], {})
    assert await world.rows_written(dataset) == before
    assert await actions(world, dataset) == {"Created": 1}
    # And where the bucket does not say what was written, the HEAD says the same.
    await deliver(world, dataset, Hint("a.jpg", "written"))
    await apply(world, dataset)
    assert await world.rows_written(dataset) == before


async def test_an_event_that_overtakes_the_upload_it_tells_of_waits_for_it(world):
    """The object is there, its row is not committed yet: it must not become an item of the event's."""
    dataset, bucket = await follow(world)
    async with world.connection() as uploading:
        await items.lock_path(uploading, dataset.id, "/a.jpg")
        await deliver(world, dataset, bucket.write("a.jpg", b"1"))
        await apply(world, dataset)
        assert await world.index(dataset) == {}
        assert await waiting(world, dataset) == {"a.jpg": None}
        await items.put_item(
            uploading,
            dataset.id,
            items.Written("/a.jpg", None, 1, bucket.etag_of("a.jpg"), None, None),
            creator_id=world.owner.id,
        )
    await make_due(world, dataset)
    await apply(world, dataset)
    assert await world.index(dataset) == same(bucket)
    assert await actions(world, dataset) == {"Created": 1}
    assert await waiting(world, dataset) == {}


async def test_a_deletion_here_is_not_undone_by_late_events(world):
    dataset, bucket = await follow(world, {"a": b"1", "b": b"2"})
    await world.delete(dataset, "/a")  # the object is still there, its job did not run
    await deliver(world, dataset, Hint("a", "written"), Hint("b", "written"))
    await apply(world, dataset)
    assert present(await world.index(dataset)) == {"/b"}
    assert bucket.heads.count("a") == 1


async def test_an_object_written_again_after_its_deletion_here_is_new(world):
    dataset, bucket = await follow(world, {"a": b"1"})
    await world.delete(dataset, "/a")
    await world.run_jobs(dataset)
    assert bucket.objects == {}
    await deliver(world, dataset, bucket.write("a", b"again"))
    await apply(world, dataset)
    assert await world.index(dataset) == same(bucket)
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM tombstone WHERE dataset_id = %s", [dataset.id])
        assert await cursor.fetchone() == (0,)


@pytest.mark.parametrize("policy", ["flag", "trash"])
async def test_a_ghost_keeps_what_is_known_of_it_and_returns(world, policy):
    dataset, bucket = await follow(world, {"a": b"1", "b": b"2"})
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE dataset SET sync_rules = %s WHERE id = %s", [f'{{"ghosts": "{policy}"}}', dataset.id]
        )
        await conn.execute("UPDATE item SET user_metadata = '{\"k\": 1}' WHERE dataset_id = %s", [dataset.id])
    item_id = (await world.item(dataset, "/a")).id
    await deliver(world, dataset, bucket.remove("a"))
    await apply(world, dataset)
    assert ghosts(await world.index(dataset)) == {"/a"}
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT trashed_at IS NOT NULL FROM item WHERE id = %s", [item_id])
        assert await cursor.fetchone() == (policy == "trash",)
    await deliver(world, dataset, bucket.write("a", b"1"))
    await apply(world, dataset)
    back = await world.item(dataset, "/a")
    assert (back.id, back.missing_since, back.user_metadata) == (item_id, None, {"k": 1})
    assert await world.index(dataset) == same(bucket)
    assert await actions(world, dataset) == {}


async def test_hints_lost_doubled_late_and_again_lead_to_what_is_there(world):
    dataset, bucket = await follow(world, {"k": b"1", "other": b"2"})
    told = [bucket.write("k", b"2"), bucket.remove("k"), bucket.write("k", b"3"), bucket.write("k", b"4")]
    told += [bucket.remove("k"), bucket.write("k", b"final")]
    for some in ([told[0], told[5]], [told[4]], [told[1], told[2]], [told[3], told[3]], told[::-1], told, [told[4]]):
        await deliver(world, dataset, *some)
        await apply(world, dataset)
        assert await world.index(dataset) == same(bucket)
    assert await actions(world, dataset) == {"Updated": 1}


async def test_a_hint_that_comes_while_its_key_is_looked_at_is_not_lost(world):
    dataset, bucket = await follow(world, {"k": b"1"})

    async def change(_key: str) -> None:
        await deliver(world, dataset, bucket.write("k", b"3"))

    bucket.after_head = change
    await deliver(world, dataset, bucket.write("k", b"2"))
    await apply(world, dataset)
    assert await world.index(dataset) == same(bucket)
    assert await waiting(world, dataset) == {}
    assert bucket.heads == ["k", "k"]


async def test_a_worker_that_was_thought_dead_applies_nothing_any_more(world):
    """What it saw is no more: another one looked since, and found the index right as it was."""
    dataset, bucket = await follow(world, {"k": b"1"})
    has_looked, may_go_on = asyncio.Event(), asyncio.Event()

    async def stall(_key: str) -> None:
        has_looked.set()
        await may_go_on.wait()

    bucket.after_head = stall
    await deliver(world, dataset, bucket.write("k", b"2"))
    slow = asyncio.create_task(apply_bundle(world.place, dataset.driver_id))
    await has_looked.wait()
    await deliver(world, dataset, bucket.write("k", b"1"))
    await make_due(world, dataset)  # its lease ends
    await apply(world, dataset)
    before = await world.rows_written(dataset)
    may_go_on.set()
    await slow
    assert await world.index(dataset) == same(bucket)
    assert await world.rows_written(dataset) == before
    assert await waiting(world, dataset) == {}


async def test_a_row_that_was_written_since_the_look_knows_better(world):
    dataset, bucket = await follow(world, {"k": b"1"})

    async def upload(_key: str) -> None:
        await world.upload(dataset, "/k", b"uploaded meanwhile")

    bucket.after_head = upload
    await deliver(world, dataset, bucket.write("k", b"2"))
    assert await apply_bundle(world.place, dataset.driver_id)
    assert await world.index(dataset) == same(bucket)
    assert await waiting(world, dataset) == {"k": None}
    await make_due(world, dataset)
    await apply(world, dataset)
    assert await world.index(dataset) == same(bucket)
    assert await actions(world, dataset) == {"Updated": 1}


@pytest.mark.parametrize("error", [Unavailable("It is away."), StoreDenied("It says no.")], ids=["down", "denied"])
async def test_a_store_that_says_nothing_loses_nothing_and_is_left_alone(world, error):
    dataset, bucket = await follow(world, {"a": b"1", "b": b"2"})
    bucket.away = error
    told = [bucket.remove("a"), bucket.write("b", b"3"), bucket.write("c", b"4")]
    await deliver(world, dataset, *told)
    before = await world.rows_written(dataset)
    await apply(world, dataset)
    assert await world.rows_written(dataset) == before
    assert set(await waiting(world, dataset)) == {"a", "b", "c"}
    now = await state(world, dataset)
    assert (now.failures, now.error) == (1, str(error))
    async with world.connection() as conn:
        assert dataset.driver_id not in await claims.due_drivers(conn)
    calls = len(bucket.calls)
    for _ in range(5):
        await make_due(world, dataset)
        await apply(world, dataset)
    assert (await state(world, dataset)).failures == 6
    assert len(bucket.calls) - calls <= 5 * 4
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT level, message FROM notice WHERE dataset_id = %s AND kind LIKE 'events.%%'", [dataset.id]
        )
        assert [(level, str(error) in message) for level, message in await cursor.fetchall()] == [("error", True)]
    bucket.away = None
    await make_due(world, dataset)
    await apply(world, dataset)
    found = await world.index(dataset)
    assert (present(found), ghosts(found)) == ({"/b", "/c"}, {"/a"})
    now = await state(world, dataset)
    assert (now.waiting, now.failures, now.error) == (0, 0, None)


async def test_one_key_that_is_denied_does_not_hold_up_the_others(world):
    dataset, bucket = await follow(world)
    bucket.refuses["secret/a"] = StoreDenied("The credentials may not read secret/a.")
    await deliver(world, dataset, bucket.write("secret/a", b"1"), bucket.write("b", b"2"))
    await apply(world, dataset)
    assert present(await world.index(dataset)) == {"/b"}
    assert await waiting(world, dataset) == {"secret/a": "The credentials may not read secret/a."}
    now = await state(world, dataset)
    assert (now.waiting, now.failing, now.failures) == (1, 1, 0)
    bucket.refuses.clear()
    await make_due(world, dataset)
    await apply(world, dataset)
    assert await world.index(dataset) == same(bucket)


async def test_a_bucket_that_is_missing_makes_no_ghosts(world):
    """Every HEAD says 404, and so does the listing."""
    dataset, bucket = await follow(world, {"a": b"1", "b": b"2"})
    told = [bucket.remove("a"), bucket.remove("b")]

    async def missing() -> ListingPage:
        bucket.calls.append("check")
        raise StoreDenied("There is no bucket.")

    bucket.check_listing = missing
    await deliver(world, dataset, *told)
    await apply(world, dataset)
    assert ghosts(await world.index(dataset)) == set()
    assert set(await waiting(world, dataset)) == {"a", "b"}
    assert bucket.calls[-1] == "check"


async def test_an_empty_bucket_is_not_believed_without_a_scan_that_asks(world):
    """A bucket made anew, or a folder that is not mounted: the keys are gone, and the listing is empty."""
    dataset, bucket = await follow(world, {"a": b"1", "b": b"2"})
    await deliver(world, dataset, bucket.remove("a"))
    bucket.objects.clear()
    await apply(world, dataset)
    assert ghosts(await world.index(dataset)) == set()
    assert await waiting(world, dataset) == {}
    assert await wants_scan(world, dataset)


async def wants_scan(world: World, dataset: Dataset) -> bool:
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT scan_wanted_at FROM dataset WHERE id = %s", [dataset.id])
        return (await cursor.fetchone())[0] is not None


async def test_more_removals_than_the_brake_lets_through_in_an_hour_are_left_to_a_scan(world):
    keys = [f"k{n:03}" for n in range(40)]
    dataset, bucket = await follow(world, dict.fromkeys(keys, b"1"))
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE dataset SET sync_rules = %s WHERE id = %s", ['{"brake_items": 5, "brake_share": 0}', dataset.id]
        )
    for some, gone in ((keys[:3], 3), (keys[3:5], 5), (keys[5:6], 5), (keys[6:20], 5)):
        await deliver(world, dataset, *[bucket.remove(key) for key in some])
        await apply(world, dataset)
        assert len(ghosts(await world.index(dataset))) == gone
        assert await wants_scan(world, dataset) == (gone == 5 and some != keys[3:5])
    assert await waiting(world, dataset) == {}
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT title FROM notice WHERE dataset_id = %s AND kind LIKE 'events.%%'", [dataset.id]
        )
        assert len(await cursor.fetchall()) == 1
        # A scan right after another one waits; then it is asked for once.
        await work.start_wanted_scans(conn)
        cursor = await conn.execute("SELECT count(*) FROM scan WHERE dataset_id = %s", [dataset.id])
        assert await cursor.fetchone() == (1,)
        await conn.execute("UPDATE dataset SET scan_wanted_at = now() WHERE id = %s", [dataset.id])
        for _ in range(2):
            await work.start_wanted_scans(conn)
            cursor = await conn.execute(
                "SELECT count(*), count(*) FILTER (WHERE state = 'running') FROM scan WHERE dataset_id = %s",
                [dataset.id],
            )
            assert await cursor.fetchone() == (2, 1)
    assert not await wants_scan(world, dataset)
    # An hour later events are believed again.
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE upstream_removal SET minute = minute - interval '61 minutes' WHERE dataset_id = %s", [dataset.id]
        )
    await deliver(world, dataset, bucket.remove(keys[21]))
    await apply(world, dataset)
    assert len(ghosts(await world.index(dataset))) == 6


async def test_without_room_new_objects_wait_and_the_others_are_applied(world):
    dataset, bucket = await follow(world, {"a": b"1", "b": b"2"})
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT organization_id FROM project WHERE id = %s", [dataset.project_id])
        (organization_id,) = await cursor.fetchone()
        used = (await quotas.load_quota(conn, organization_id)).used
        await quotas.set_limit(conn, organization_id, used + 1)
    try:
        told = [bucket.write("a", b"changed"), bucket.remove("b"), bucket.write("c", b"3"), bucket.write("d", b"4")]
        await deliver(world, dataset, *told)
        await apply(world, dataset)
        found = await world.index(dataset)
        assert (present(found), ghosts(found)) == ({"/a", "/c"}, {"/b"})
        ((key, error),) = (await waiting(world, dataset)).items()
        assert (key, "data point" in error) == ("d", True)
    finally:
        async with world.connection() as conn:
            await quotas.set_limit(conn, organization_id, None)
    await make_due(world, dataset)
    await apply(world, dataset)
    assert present(await world.index(dataset)) == {"/a", "/c", "/d"}
    assert await waiting(world, dataset) == {}


async def test_a_scan_that_listed_before_knows_no_better_than_an_event(world, small_batches):
    """Behind its back one object goes, one comes, one changes, one goes that was new; the listing is of before."""
    dataset, bucket = await follow(world, {f"k{n}": b"1" for n in range(6)})
    bucket.objects["k9"] = b"new, and gone before it is merged"
    past = Bucket(dict(bucket.objects))
    past.page_keys = 2

    async def meanwhile(number: int) -> None:
        if number < 4:  # the page with k9 is on its way
            return
        told = [bucket.remove("k5"), bucket.write("k4", b"changed"), bucket.write("k0a", b"new"), bucket.remove("k9")]
        await deliver(world, dataset, *told)
        await apply(world, dataset)

    past.on_page = meanwhile
    bucket.list_pages = past.list_pages
    _, scan = await world.sync(dataset)
    assert (scan.state, len(bucket.told)) == ("done", 4)
    found = await world.index(dataset)
    assert ghosts(found) == {"/k5"}
    assert {path: row for path, row in found.items() if path != "/k5"} == same(bucket)


async def test_a_dataset_that_is_deleted_takes_nothing(world):
    dataset, bucket = await follow(world)

    async def delete(_key: str) -> None:
        async with world.connection() as conn:
            await conn.execute("UPDATE dataset SET deleted_at = now() WHERE id = %s", [dataset.id])

    bucket.before_head = delete
    await deliver(world, dataset, bucket.write("a", b"1"))
    await apply(world, dataset)
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM item WHERE dataset_id = %s", [dataset.id])
        assert await cursor.fetchone() == (0,)
    assert await waiting(world, dataset) == {}


async def test_switched_off_nothing_waits(world):
    dataset, bucket = await follow(world)
    await deliver(world, dataset, bucket.write("a", b"1"))
    async with world.connection() as conn:
        await upstream.switch(conn, dataset.driver_id, on=False)
        assert dataset.driver_id not in await claims.due_drivers(conn)
    assert await waiting(world, dataset) == {}


async def test_hints_that_cannot_be_applied_for_days_are_given_up_and_counted(world):
    dataset, bucket = await follow(world)
    bucket.refuses = {"a": StoreDenied("No."), "b": StoreDenied("No.")}
    await deliver(world, dataset, bucket.write("a", b"1"), bucket.write("b", b"1"), bucket.write("c", b"1"))
    for _ in range(4):
        await apply(world, dataset)
        await make_due(world, dataset)
    async with world.connection() as conn:
        await conn.execute("UPDATE hint SET received_at = now() - interval '4 days' WHERE key = 'a'")
        await claims.drop_oldest(conn)
    assert set(await waiting(world, dataset)) == {"b"}
    assert (await state(world, dataset)).dropped == 1


@pytest.mark.parametrize("kind", ["statement", "commit lost", "commit unheard"])
async def test_whatever_call_to_the_database_fails_nothing_is_lost_or_doubled(faulty, world, kind):
    fired = True
    for nth in itertools.count(1):
        if not fired:
            break
        dataset, bucket = await follow(world, {"old": b"1", "going": b"2", "stays": b"3"})
        told = [bucket.write("new", b"4"), bucket.write("old", b"5"), bucket.remove("going")]
        await deliver(world, dataset, *told)
        fault = Fault(kind, nth)
        FaultyCursor.fault = fault
        try:
            await apply(faulty, dataset)
        except Crash:
            pass
        finally:
            FaultyCursor.fault = None
        fired = fault.has_fired
        await make_due(world, dataset)  # the lease of who crashed ends
        await apply(world, dataset)
        found = await world.index(dataset)
        assert {path: row for path, row in found.items() if path != "/going"} == same(bucket)
        assert ghosts(found) == {"/going"}
        assert await actions(world, dataset) == {"Created": 1, "Updated": 1}
        assert await waiting(world, dataset) == {}
    assert nth > 5


async def test_several_workers_share_the_hints_of_a_driver(world):
    dataset, bucket = await follow(world)
    told = [bucket.write(f"k{n:04}", bytes([n % 256])) for n in range(1_200)]
    await deliver(world, dataset, *told)
    await asyncio.gather(*[apply(world, dataset) for _ in range(3)])
    assert await world.index(dataset) == same(bucket)
    assert len(bucket.calls) == 1_200
    assert await actions(world, dataset) == {"Created": 1_200}
    assert await waiting(world, dataset) == {}


async def shown(world: World, dataset: Dataset) -> set[str]:
    """Paths, while a worker changes them: no counter is held to two statements."""
    async with world.connection() as conn:
        return present(await index(conn, dataset.id))


@asynccontextmanager
async def following(world) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work.follow_forever(world.place))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_hints_are_applied_as_they_come(world):
    dataset, bucket = await follow(world)
    async with following(world):
        for key in ("a", "b", "c"):
            await deliver(world, dataset, bucket.write(key, b"1"))

            async def is_seen() -> bool:
                return await shown(world, dataset) == {f"/{key}" for key in bucket.objects}

            await wait_for(is_seen)


async def test_a_key_that_is_denied_again_and_again_does_not_hold_up_what_comes_later(world):
    dataset, bucket = await follow(world, {"kept": b"1"})
    bucket.refuses["secret"] = StoreDenied("The credentials may not read secret.")
    await deliver(world, dataset, bucket.write("secret", b"1"))
    for _ in range(3):
        await make_due(world, dataset)
        await apply(world, dataset)
    now = await state(world, dataset)
    assert (now.waiting, now.failing, now.failures) == (1, 1, 0)
    await deliver(world, dataset, bucket.write("b", b"2"))
    await apply(world, dataset)  # at once: the store was not left alone
    assert present(await world.index(dataset)) == {"/kept", "/b"}


async def test_many_keys_that_are_denied_are_a_store_that_says_no(world):
    dataset, bucket = await follow(world, {"kept": b"1"})
    told = [bucket.write(f"k{n:02}", b"1") for n in range(30)]
    bucket.refuses |= {hint.key: StoreDenied("No.") for hint in told}
    await deliver(world, dataset, *told)
    await apply(world, dataset)
    assert (await state(world, dataset)).failures == 1


async def test_a_driver_with_endless_events_leaves_the_others_their_turn(world, monkeypatch):
    monkeypatch.setattr(work, "_DRIVERS_AT_ONCE", 1)
    monkeypatch.setattr(work, "_BUNDLES_A_TURN", 1)
    flooded, flood = await follow(world)
    quiet, bucket = await follow(world)
    numbers = itertools.count()

    async def another(_: str) -> None:
        await deliver(world, flooded, flood.write(f"k{next(numbers)}", b"1"))

    flood.before_head = another
    await another("")
    async with following(world):
        async with asyncio.timeout(10):
            while next(numbers) < 5:  # noqa: ASYNC110 - the flood runs
                await asyncio.sleep(0.01)
        await deliver(world, quiet, bucket.write("a", b"1"))

        async def is_seen() -> bool:
            return await shown(world, quiet) == {"/a"}

        await wait_for(is_seen)


async def test_a_worker_that_is_told_to_stop_leaves_its_hints_to_others_at_once(world):
    dataset, bucket = await follow(world)
    looking = asyncio.Event()

    async def never_ends(_: str) -> None:
        looking.set()
        await asyncio.Event().wait()

    bucket.before_head = never_ends
    await deliver(world, dataset, bucket.write("a", b"1"))
    async with following(world):
        await asyncio.wait_for(looking.wait(), 10)
    bucket.before_head = None
    await apply(world, dataset)
    assert present(await world.index(dataset)) == {"/a"}


async def test_a_sync_that_cannot_be_started_ends_no_worker(world, monkeypatch):
    dataset, _ = await follow(world, {"a": b"1"})
    real, calls = work.request_sync, []

    async def taken(*args, **given):
        calls.append(args)
        if len(calls) == 1:
            raise UniqueViolation("Another one began in this moment.")
        return await real(*args, **given)

    monkeypatch.setattr(work, "request_sync", taken)
    monkeypatch.setattr(work, "_LOOK_ANYWAY_S", 0.05)
    async with world.connection() as conn:
        await upstream.want_scan(conn, dataset.id)
        await conn.execute("UPDATE dataset SET scan_wanted_at = now() WHERE id = %s", [dataset.id])
    async with following(world) as task:

        async def is_started() -> bool:
            return task.done() or len(calls) > 1

        await wait_for(is_started)
        assert not task.done()
