"""Syncs from end to end: on folders, on SeaweedFS, and on buckets that misbehave."""

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest

from headwater.catalog import commands, items, preparing
from headwater.catalog.sync import shards, stages
from headwater.errors import StoreDenied, Unavailable
from headwater.storage.opening import open_local
from headwater.storage.stores import Store
from headwater.work import sync
from tests.work.scripted import ScriptedStore
from tests.work.world import World, ghosts, present, somebody_waits_for, wait_for

pytestmark = pytest.mark.usefixtures("small_batches")

OBJECTS = {f"{folder}{number:02}.jpg": f"{folder}{number}".encode() for folder in ("", "a/", "a/b/", "c d/é/", "z%2F/")
           for number in range(5)}  # fmt: skip
PATHS = {"/" + key for key in OBJECTS}


async def fill(store: Store, objects: dict[str, bytes]) -> None:
    for key, body in objects.items():
        await store.put(key, body, content_type="image/jpeg")


@pytest.fixture(params=["folder", "seaweedfs"])
async def bucket(request: pytest.FixtureRequest, world: World):
    """A dataset, and the store of its bucket with 25 objects."""
    if request.param == "folder":
        dataset, root = await world.local_dataset()
        store = open_local(root=root, page_keys=3)
        await world.substitute(dataset, store)
    else:
        dataset, store = await world.s3_dataset(request.getfixturevalue("weed"))
    await fill(store, OBJECTS)
    return dataset, store


async def test_a_bucket_becomes_an_index(world, bucket):
    dataset, _ = bucket
    command, scan = await world.sync(dataset)
    assert (command.status, command.warning, command.error, command.progress_percent) == ("success", None, None, 100)
    assert command.spec["sync"]["created"] == command.spec["sync"]["listed"] == 25
    assert (scan.state, scan.created, scan.listed) == ("done", 25, 25)
    assert present(await world.index(dataset)) == PATHS
    assert Counter((await world.events(dataset)).values()) == {1: 25}
    assert all(size == len(OBJECTS[path[1:]]) for path, (_, size, _) in (await world.index(dataset)).items())


async def test_a_second_sync_of_an_unchanged_bucket_writes_no_row(world, bucket):
    dataset, _ = bucket
    await world.sync(dataset)
    before = await world.rows_written(dataset)
    _, scan = await world.sync(dataset)
    assert (scan.listed, scan.unchanged, scan.created, scan.changed, scan.gone) == (25, 25, 0, 0, 0)
    assert await world.rows_written(dataset) == before


async def test_changes_removals_and_returns_are_followed(world, bucket):
    dataset, store = bucket
    await world.sync(dataset)
    ids = {path: (await world.item(dataset, path)).id for path in ("/a/01.jpg", "/a/b/02.jpg")}
    await store.put("a/01.jpg", b"something longer", content_type="image/jpeg")
    await store.delete("a/b/02.jpg")
    await store.put("new/deep/er.jpg", b"new", content_type="image/jpeg")
    _, scan = await world.sync(dataset)
    assert (scan.created, scan.changed, scan.gone, scan.marked) == (1, 1, 1, 1)
    found = await world.index(dataset)
    assert ghosts(found) == {"/a/b/02.jpg"}
    assert present(found) == PATHS - {"/a/b/02.jpg"} | {"/new/deep/er.jpg"}
    assert found["/a/01.jpg"][1] == len(b"something longer")
    await store.put("a/b/02.jpg", b"it is back", content_type="image/jpeg")
    await world.sync(dataset)
    assert ghosts(await world.index(dataset)) == set()
    assert ids == {path: (await world.item(dataset, path)).id for path in ids}


async def test_an_empty_listing_is_taken_for_an_outage_until_somebody_confirms(world, bucket):
    dataset, store = bucket
    await world.sync(dataset)
    for key in OBJECTS:
        await store.delete(key)
    before = await world.rows_written(dataset)
    for _ in range(2):
        command, scan = await world.sync(dataset)
        assert (command.status, scan.state, scan.gone, scan.marked) == ("success", "held", 25, 0)
        assert command.warning.startswith("The bucket's listing came back empty: 25 of 25 items are missing")
        assert "confirmMissing" in command.warning
        assert await world.rows_written(dataset) == before
    command, scan = await world.sync(dataset, confirm=True)
    assert (command.warning, scan.state, scan.marked) == (None, "done", 25)
    assert ghosts(await world.index(dataset)) == PATHS


async def test_our_thumbnails_alone_are_an_empty_bucket(world):
    store = ScriptedStore({"a": b"1", "b": b"2"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.objects = {".dataloop/thumbnails/x.webp": b"x", "folder/": b"", "": b"x"}
    command, scan = await world.sync(dataset)
    assert (scan.state, scan.listed, scan.gone) == ("held", 0, 2)
    assert "came back empty" in command.warning


async def test_an_empty_bucket_gets_a_hint(world):
    command, _ = await world.sync(await world.dataset(ScriptedStore()))
    assert command.warning.startswith("The bucket has no object in the driver's folder")


async def test_more_than_the_brake_lets_go_is_held(world):
    store = ScriptedStore({f"{number:03}": b"x" for number in range(150)}, page_keys=50)
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.objects = {f"{number:03}": b"x" for number in range(49)}
    command, scan = await world.sync(dataset)
    assert (scan.state, scan.gone, scan.marked) == ("held", 101, 0)
    assert "Much of the dataset seems to be gone: 101 of 150" in command.warning
    assert ghosts(await world.index(dataset)) == set()
    store.objects["049"] = b"x"
    _, scan = await world.sync(dataset)
    assert (scan.state, scan.marked, len(ghosts(await world.index(dataset)))) == ("done", 100, 100)


@pytest.mark.parametrize("order", ["backwards", "interleaved"])
async def test_a_store_that_lists_out_of_order_is_staged_and_the_result_exact(world, order):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)
    await world.sync(dataset)
    if order == "backwards":
        store.order = lambda keys: sorted(keys, reverse=True)
    else:  # two rising rows: out of order only from one batch to the next
        store.order = lambda keys: sorted(keys)[::2] + sorted(keys)[1::2]
    del store.objects["a/01.jpg"], store.objects["00.jpg"]
    store.objects |= {"a/02.jpg": b"changed", "new": b"new", "skipped/": b""}
    command, scan = await world.sync(dataset)
    assert (scan.state, scan.listed, scan.created, scan.changed, scan.marked) == ("done", 24, 1, 1, 2)
    assert (scan.unchanged, command.spec["gathered"]) == (22, 24)
    found = await world.index(dataset)
    assert ghosts(found) == {"/a/01.jpg", "/00.jpg"}
    assert present(found) == {"/" + key for key in store.objects if key != "skipped/"}
    before = await world.rows_written(dataset)
    await world.sync(dataset)
    assert await world.rows_written(dataset) == before


async def test_a_store_that_turns_out_to_be_unordered_after_a_crash_is_listed_whole(world):
    """The stage must not begin at the cursor of the part that was in order."""
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)
    await world.sync(dataset)

    async def be_down(number: int) -> None:
        if number == 6:
            raise Unavailable("The store does not answer.")

    store.on_page = be_down
    _, scan_id = await world.request(dataset)
    with pytest.raises(Unavailable):
        await sync.run_scan(world.place, scan_id)
    store.on_page = None
    store.order = lambda keys: sorted(keys, reverse=True)
    await sync.run_scan(world.place, scan_id)
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.listed, scan.unchanged, scan.gone) == ("done", 25, 25, 0)


async def test_a_page_that_comes_twice_does_no_harm(world):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    store.order = lambda keys: [key for key in sorted(keys) for _ in range(2)]
    dataset = await world.dataset(store)
    _, scan = await world.sync(dataset)
    assert (scan.state, scan.created, scan.listed) == ("done", 25, 25)


async def test_empty_pages_that_say_that_more_follows(world):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.empty_pages = frozenset([1, 3, 4])
    _, scan = await world.sync(dataset)
    assert (scan.state, scan.listed, scan.gone) == ("done", 25, 0)


@pytest.mark.parametrize("page", [1, 3])
async def test_a_listing_that_ends_without_its_last_page_proves_nothing(world, page):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.ends_before_page = page
    _, scan_id = await world.request(dataset)
    async with asyncio.timeout(5):
        with pytest.raises(Unavailable, match="ended"):
            await sync.run_scan(world.place, scan_id)
    assert ghosts(await world.index(dataset)) == set()
    store.ends_before_page = None
    await sync.run_scan(world.place, scan_id)
    assert (await world.ended(dataset))[1].state == "done"


async def test_an_abort_is_honoured_within_a_second_while_the_store_keeps_a_page(world):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)
    hangs = asyncio.Event()

    async def hang(number: int) -> None:
        if number == 4:
            hangs.set()
            await asyncio.Event().wait()

    store.on_page = hang
    command_id, scan_id = await world.request(dataset)
    running = asyncio.create_task(sync.run_scan(world.place, scan_id))
    await hangs.wait()

    async def some_are_committed() -> bool:
        return len(await world.index(dataset)) > 0

    await wait_for(some_are_committed)
    began = time.monotonic()
    async with world.connection() as conn:
        await commands.request_abort(conn, command_id)
    await running
    assert time.monotonic() - began < 2.5  # a second, and what a busy machine adds
    command, scan = await world.ended(dataset)
    assert (command.status, scan.state) == ("aborted", "stopped")
    assert "aborted" in command.error
    kept = present(await world.index(dataset))
    assert kept < PATHS
    store.on_page = None
    _, scan = await world.sync(dataset)
    assert (scan.state, scan.created) == ("done", 25 - len(kept))


async def test_a_database_that_fails_is_not_an_abort(world, monkeypatch):
    """The watch for aborts lost its connection, and the sync was said to be aborted."""
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)
    waits = asyncio.Event()

    async def wait(_: int) -> None:
        await waits.wait()

    store.on_page = wait

    async def fail(*_) -> bool:
        raise ConnectionError

    monkeypatch.setattr(commands, "is_abort_requested", fail)
    _, scan_id = await world.request(dataset)
    with pytest.raises(ConnectionError):
        await sync.run_scan(world.place, scan_id)
    monkeypatch.undo()
    waits.set()
    assert (await world.ended(dataset))[1].state == "running"
    await sync.run_scan(world.place, scan_id)
    assert (await world.ended(dataset))[0].status == "success"


async def test_a_refusal_half_way_fails_the_command_and_keeps_what_was_found(world):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)

    async def refuse(number: int) -> None:
        if number == 6:
            raise StoreDenied("The credentials may not list (403).")

    store.on_page = refuse
    command, scan = await world.sync(dataset)
    kept = present(await world.index(dataset))
    assert (command.status, scan.state) == ("failed", "stopped")
    assert kept == set(sorted(PATHS)[: len(kept)])
    assert len(kept) >= 12
    assert command.error == f"The credentials may not list (403). It stopped after {max(kept)!r}."
    assert command.progress_percent < 100
    store.on_page = None
    _, scan = await world.sync(dataset)
    assert (scan.state, scan.created, scan.unchanged) == ("done", 25 - len(kept), len(kept))
    assert Counter((await world.events(dataset)).values()) == {1: 25}


async def test_a_folder_that_is_not_there_is_no_empty_folder(world):
    dataset, root = await world.local_dataset()
    (root / "a").write_bytes(b"x")
    await world.sync(dataset)
    root.rename(root.with_name(root.name + " away"))
    command, scan = await world.sync(dataset, confirm=True)
    assert (command.status, scan.state) == ("failed", "stopped")
    assert str(root) in command.error
    assert ghosts(await world.index(dataset)) == set()


async def test_a_store_that_is_down_is_tried_again_from_the_cursor(world):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)

    async def be_down(number: int) -> None:
        if number == 6:
            raise Unavailable("The store does not answer.")

    store.on_page = be_down
    _, scan_id = await world.request(dataset)
    with pytest.raises(Unavailable):
        await sync.run_scan(world.place, scan_id)
    _, scan = await world.ended(dataset)
    assert scan.state == "running"
    async with world.connection() as conn:
        shard = await shards.claim_shard(conn, scan_id, lane=0)
    cursor = shard.cursor_path
    assert cursor == max(present(await world.index(dataset)))
    store.on_page = None
    asked = []
    listing = store.list_pages
    store.list_pages = lambda *, start_after=None, prefix="": (
        asked.append(start_after),
        listing(start_after=start_after),
    )[1]
    await sync.run_scan(world.place, scan_id)
    assert asked == [cursor[1:]]
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.listed, scan.created) == ("done", 25, 25)
    assert Counter((await world.events(dataset)).values()) == {1: 25}


async def test_the_last_try_ends_the_command(world):
    store = ScriptedStore({"a": b"x"})
    dataset = await world.dataset(store)

    async def be_down(_: int) -> None:
        raise Unavailable("The store does not answer.")

    store.on_page = be_down
    _, scan_id = await world.request(dataset)
    await sync.run_scan(world.place, scan_id, is_last_try=True)
    command, scan = await world.ended(dataset)
    assert (command.status, command.error, scan.state) == ("failed", "The store does not answer.", "stopped")


async def test_asking_again_while_one_runs_answers_with_that_one(world):
    dataset = await world.dataset(ScriptedStore({"a": b"x"}))
    command_id, scan_id = await world.request(dataset)
    assert await world.request(dataset) == (command_id, scan_id)

    async def ask() -> int:
        async with world.connection() as conn:
            return await sync.request_sync(conn, dataset, caller_id=None)

    assert set(await asyncio.gather(*(ask() for _ in range(5)))) == {command_id}
    await sync.run_scan(world.place, scan_id)
    assert (await world.request(dataset))[0] != command_id


async def test_five_who_ask_at_once_start_one_scan(world):
    dataset = await world.dataset(ScriptedStore({"a": b"x"}))

    async def ask() -> int:
        async with world.connection() as conn:
            return await sync.request_sync(conn, dataset, caller_id=None)

    assert len(set(await asyncio.gather(*(ask() for _ in range(5))))) == 1
    async with world.connection() as conn:
        cursor = await conn.execute(
            """
            DELETE FROM procrastinate_jobs
            USING scan
            WHERE task_name = 'run_scan' AND scan.dataset_id = %s AND args ->> 'scan_id' = scan.id::text
            """,
            [dataset.id],
        )
    assert cursor.rowcount == 1


@pytest.mark.parametrize("order", ["in order", "out of order"])
async def test_two_workers_with_the_same_scan_do_no_harm(world, order):
    """A worker that was thought dead still runs when another takes its job."""
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)
    await world.sync(dataset)
    if order == "out of order":
        store.order = lambda keys: sorted(keys, reverse=True)
    del store.objects["a/01.jpg"]
    store.objects |= {"a/02.jpg": b"changed", "new": b"new"}

    async def take_turns(_: int) -> None:
        await asyncio.sleep(0)

    store.on_page = take_turns
    _, scan_id = await world.request(dataset)
    await asyncio.gather(*(sync.run_scan(world.place, scan_id) for _ in range(3)))
    command, scan = await world.ended(dataset)
    assert (command.status, scan.state, scan.listed, scan.marked) == ("success", "done", 25, 1)
    found = await world.index(dataset)
    assert ghosts(found) == {"/a/01.jpg"}
    assert present(found) == {"/" + key for key in store.objects}
    assert Counter((await world.events(dataset)).values()) == {1: 27}


async def test_a_second_worker_takes_the_stage_from_the_first(world):
    """It emptied the stage that the first was reading, and everything left seemed gone."""
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    store.order = lambda keys: sorted(keys, reverse=True)
    dataset = await world.dataset(store)
    await world.sync(dataset)
    _, scan_id = await world.request(dataset)
    reads, goes_on = asyncio.Event(), asyncio.Event()

    async def read_slowly(conn, scan, **given):
        reads.set()
        await goes_on.wait()
        return await read_stage(conn, scan, **given)

    async def hang(number: int) -> None:
        if number > 1:
            goes_on.set()
            await first
            store.on_page = None

    read_stage = stages.read_stage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "read_stage", read_slowly)
        first = asyncio.create_task(sync.run_scan(world.place, scan_id))
        await reads.wait()
        store.on_page = hang
        await asyncio.wait_for(sync.run_scan(world.place, scan_id), 5)
    assert first.done()
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.listed, scan.gone, scan.marked) == ("done", 25, 0, 0)


async def test_names_that_cannot_be_indexed_are_told(world):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    make_page = store._page
    store._page = lambda keys, *, is_last: replace(
        make_page(keys, is_last=is_last), unindexable=[("b\\xff", "The name is not UTF-8.")]
    )
    command, scan = await world.sync(await world.dataset(store))
    assert (command.status, scan.skipped, len(scan.skipped_examples) >= 3) == ("success", 9, True)
    assert command.warning.startswith("9 object(s) could not be indexed, for example: b\\xff (The name is not UTF-8.)")


async def test_a_deleted_dataset_is_no_longer_synced(world):
    store = ScriptedStore(dict.fromkeys(OBJECTS, b"x"))
    dataset = await world.dataset(store)
    hangs = asyncio.Event()

    async def hang(number: int) -> None:
        if number == 2:
            hangs.set()
            await asyncio.Event().wait()

    store.on_page = hang
    _, scan_id = await world.request(dataset)
    running = asyncio.create_task(sync.run_scan(world.place, scan_id))
    await hangs.wait()
    async with world.connection() as conn:
        await conn.execute("UPDATE dataset SET deleted_at = now() WHERE id = %s", [dataset.id])
    await asyncio.wait_for(running, 5)
    assert (await world.ended(dataset))[0].status == "aborted"


async def test_a_merge_that_waits_for_an_upload_finds_its_row_younger(world):
    """Two transactions at once: the merge compared the old row, the upload commits, then the merge gets the lock."""
    store = ScriptedStore({"a": b"1", "b": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.objects = {"a": b"22", "b": b"22"}
    _, scan_id = await world.request(dataset)
    written = items.Written("/a", None, 3, "mine", None, None)
    async with world.connection() as conn:
        await conn.execute("SELECT FROM item WHERE dataset_id = %s AND path = '/a' FOR UPDATE", [dataset.id])
        running = asyncio.create_task(sync.run_scan(world.place, scan_id))
        await somebody_waits_for(world, conn)
        uploaded, _ = await items.put_item(conn, dataset.id, written, creator_id=world.owner.id)
    await running
    found = await world.index(dataset)
    assert found["/a"] == ("mine", 3, False)
    assert found["/b"][1] == 2
    assert (await world.events(dataset))["Updated", uploaded.id] == 1


async def test_counters_hold_when_preprocessing_commits_while_a_merge_waits(world):
    store = ScriptedStore({"a": b"1", "b": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    item = await world.item(dataset, "/a")
    prepared = preparing.PreparedItem(item.id, item.etag, items.ETL_DONE, {"state": "done"}, "text/plain")
    store.objects = {"a": b"22", "b": b"1"}
    _, scan_id = await world.request(dataset)
    async with world.connection() as conn:
        await preparing.save_prepared(conn, dataset.id, [prepared])
        running = asyncio.create_task(sync.run_scan(world.place, scan_id))
        await somebody_waits_for(world, conn)
    await running
    assert (await world.index(dataset))["/a"][1] == 2  # and the counters are true
    assert (await world.item(dataset, "/a")).etl_state == items.ETL_WAITING
