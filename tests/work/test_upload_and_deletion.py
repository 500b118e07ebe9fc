"""Writing and deleting items: what becomes of the row and of the object, whoever else is at work."""

import asyncio
import os
import threading
from pathlib import Path

import pytest

from headwater.catalog import datasets, items, preparing, removals
from headwater.errors import BadRequest, StoreDenied
from headwater.storage.local.store import LocalStore, LocalUpload
from headwater.storage.opening import open_local
from headwater.work import deletion, sync, upload
from tests.work.scripted import Crash, Fault, FaultyCursor, ScriptedStore
from tests.work.world import ghosts, present, somebody_waits_for


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, unfinished uploads as well."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def purge(world, dataset) -> None:
    async with world.connection() as conn:
        await datasets.delete_dataset(conn, dataset)
    await deletion.purge_dataset(world.place, dataset.id)


async def rows_of(world, dataset_id: int) -> dict[str, int]:
    async with world.connection() as conn:
        found = {}
        for table in ("item", "folder", "tombstone", "event", "scan", "command", "dataset_counter"):
            cursor = await conn.execute(f"SELECT count(*) FROM {table} WHERE dataset_id = %s", [dataset_id])
            found[table] = (await cursor.fetchone())[0]
        return {table: count for table, count in found.items() if count}


@pytest.fixture(params=["own storage", "folder", "seaweedfs"])
async def dataset(request: pytest.FixtureRequest, world):
    if request.param == "own storage":
        return (await world.own_dataset())[0]
    if request.param == "folder":
        return (await world.local_dataset())[0]
    return (await world.s3_dataset(request.getfixturevalue("weed")))[0]


async def read(world, item) -> bytes:
    async with world.place.places.of_dataset(item.dataset_id) as store, store.get(item.key) as reader:
        return await reader.read()


async def test_created_overwrite_skip(world, dataset):
    first = await world.upload(dataset, "/a/b.txt", b"one" * 1000, description="d", user_metadata={"k": 1})
    assert (first.outcome, first.received_bytes, first.item.size_bytes) == ("created", 3000, 3000)
    assert (first.item.creator, first.item.description, first.item.user_metadata) == (world.owner.email, "d", {"k": 1})
    kept = await world.upload(dataset, "/a/b.txt", b"two", mode="skip")
    assert (kept.outcome, kept.item.id, kept.item.etag, kept.received_bytes) == (
        "skip",
        first.item.id,
        first.item.etag,
        3,
    )
    assert await read(world, kept.item) == b"one" * 1000
    over = await world.upload(dataset, "/a/b.txt", b"three", mode="overwrite")
    assert (over.outcome, over.item.id, over.item.size_bytes) == ("overwrite", first.item.id, 5)
    assert (over.item.description, over.item.user_metadata) == ("d", {"k": 1})
    assert await read(world, over.item) == b"three"
    assert dict(await world.events(dataset)) == {("Created", first.item.id): 1, ("Updated", first.item.id): 1}
    await world.index(dataset)  # counts


@pytest.mark.parametrize("dataset", ["folder", "seaweedfs"], indirect=True)
async def test_a_sync_finds_nothing_new_in_what_was_uploaded(world, dataset):
    await world.upload(dataset, "/a/b.txt", b"one")
    await world.upload(dataset, "/.dataloop/ours.txt", b"hidden")
    _, scan = await world.sync(dataset)
    assert (scan.listed, scan.created, scan.changed, scan.gone) == (1, 0, 0, 0)
    assert present(await world.index(dataset)) == {"/a/b.txt", "/.dataloop/ours.txt"}


@pytest.mark.parametrize("path", [
    "", "/", "/a//b", "/./a", "/a/../b", "/a/", "/a\0b", "/a\nb", "/a\x7f", "/a\x85", "/\udcff", "/" + "é" * 513,
    "/.dataloop/thumbnails/x.webp",
    "/.dataloop/permission-test",
    "/.dataloop/permission-test-0123",
])  # fmt: skip
def test_paths_that_are_refused(path):
    with pytest.raises(BadRequest):
        upload.checked_path(path)


@pytest.mark.parametrize(("path", "kept"), [
    ("a.txt", "/a.txt"),
    ("//a.txt", "/a.txt"),
    ("/%2F +&?.txt", "/%2F +&?.txt"),
    ("/" + "é" * 512, "/" + "é" * 512),
    ("/👨\u200d👩\u200d👧.png", "/👨\u200d👩\u200d👧.png"),
    ("/Screenshot 2024-05-01 at 9.41.00\u202fAM.png", "/Screenshot 2024-05-01 at 9.41.00\u202fAM.png"),
    ("/..a/b..", "/..a/b.."),
])  # fmt: skip
def test_paths_that_are_taken(path, kept):
    """Phones and Macs write names with joined emoji and narrow spaces."""
    assert upload.checked_path(path) == kept


async def broken_off():
    yield b"some bytes"
    raise BadRequest("The upload broke off.")


@pytest.mark.parametrize("kind", ["own storage", "folder"])
async def test_a_stream_that_breaks_off_leaves_nothing(world, kind):
    dataset, folder = await (world.own_dataset() if kind == "own storage" else world.local_dataset())
    await world.upload(dataset, "/kept", b"kept")
    before, rows = files(folder), await world.rows_written(dataset)
    for path in ("/kept", "/new"):
        with pytest.raises(BadRequest, match="broke off"):
            await upload.upload_file(
                world.place, dataset, world.owner, upload.Announced(path, "overwrite"), broken_off()
            )
    assert files(folder) == before
    assert await world.rows_written(dataset) == rows


async def test_a_stream_that_breaks_off_leaves_nothing_in_a_bucket(world, weed):
    dataset, store = await world.s3_dataset(weed)
    with pytest.raises(BadRequest, match="broke off"):
        await upload.upload_file(world.place, dataset, world.owner, upload.Announced("/a", "skip"), broken_off())
    assert [page.keys async for page in store.list_pages()] == [[]]
    assert await world.index(dataset) == {}


@pytest.mark.parametrize("before", [None, b"old"], ids=["new", "overwrite"])
async def test_own_storage_keeps_exactly_the_objects_of_its_rows_wherever_an_upload_fails(world, faulty, before):
    for kind in ("statement", "commit lost", "commit unheard"):
        for nth in range(1, 100):
            dataset, folder = await world.own_dataset()
            if before:
                await world.upload(dataset, "/a", before)
            FaultyCursor.fault = fault = Fault(kind, nth)
            try:
                await faulty.upload(dataset, "/a", b"new")
            except Crash:
                assert fault.has_fired
            finally:
                FaultyCursor.fault = None
            await world.run_jobs(dataset)
            item = await world.item(dataset, "/a")
            assert list(files(folder)) == ([] if item is None else [item.object_key]), (kind, nth)
            if item is not None:
                assert files(folder)[item.object_key] in (b"new", before)
            await world.index(dataset)
            if not fault.has_fired:
                assert files(folder)[item.object_key] == b"new"
                break


async def test_an_upload_cancelled_while_its_object_becomes_visible_leaves_no_orphan(world, monkeypatch):
    """The thread that moves the file into its place does not hear of the cancellation."""
    dataset, folder = await world.own_dataset()
    await world.upload(dataset, "/other", b"x")
    before = files(folder)
    async with world.place.places.of_dataset(dataset.id) as store:
        pass  # kept open for the next use
    loop, task, cleans_up = asyncio.get_running_loop(), asyncio.current_task(), threading.Event()
    replace, delete, abort = os.replace, LocalStore.delete, LocalUpload.abort

    def replace_slowly(*arguments, **named) -> None:
        loop.call_soon_threadsafe(task.cancel)
        cleans_up.wait(10)
        replace(*arguments, **named)

    async def delete_and_tell(self, key) -> None:
        await delete(self, key)
        cleans_up.set()

    async def tell_and_abort(self) -> None:
        cleans_up.set()
        await abort(self)

    monkeypatch.setattr(os, "replace", replace_slowly)
    monkeypatch.setattr(LocalStore, "delete", delete_and_tell)
    monkeypatch.setattr(LocalUpload, "abort", tell_and_abort)
    assert isinstance(store, LocalStore)
    with pytest.raises(asyncio.CancelledError):
        await world.upload(dataset, "/a", b"never")
    task.uncancel()
    assert files(folder) == before
    assert set(await world.index(dataset)) == {"/other"}


@pytest.mark.parametrize("mode", ["skip", "overwrite"])
async def test_five_uploads_of_one_path_at_once(world, mode):
    dataset, folder = await world.own_dataset()
    uploaded = await asyncio.gather(*(world.upload(dataset, "/a/b", bytes([n]) * 5_000, mode=mode) for n in range(5)))
    outcomes = sorted(done.outcome for done in uploaded)
    assert outcomes == ["created"] + ["skip" if mode == "skip" else "overwrite"] * 4
    assert len({done.item.id for done in uploaded}) == 1
    assert await world.run_jobs(dataset) == (0 if mode == "skip" else 4)
    item = await world.item(dataset, "/a/b")
    assert list(files(folder)) == [item.object_key]
    if mode == "skip":
        created = next(n for n, done in enumerate(uploaded) if done.outcome == "created")
        assert files(folder)[item.object_key] == bytes([created]) * 5_000
    await world.index(dataset)


async def test_five_uploads_of_one_path_to_a_folder_end_with_the_row_of_the_last_object(world):
    dataset, root = await world.local_dataset()
    await asyncio.gather(*(world.upload(dataset, "/a/b", bytes([n]) * (n + 1)) for n in range(5)))
    info = await open_local(root=root).head("a/b")
    item = await world.item(dataset, "/a/b")
    assert (item.etag, item.size_bytes) == (info.etag, info.size_bytes)
    _, scan = await world.sync(dataset)
    assert (scan.unchanged, scan.changed) == (1, 0)


@pytest.mark.parametrize("allow_delete", [True, False])
async def test_the_object_goes_with_its_item_only_where_the_driver_allows_it(world, allow_delete):
    store = ScriptedStore({"a": b"1", "b": b"2"})
    dataset = await world.dataset(store, allow_delete=allow_delete)
    await world.sync(dataset)
    await world.delete(dataset, "/a")
    assert set(await world.index(dataset)) == {"/b"}
    assert await world.run_jobs(dataset) == allow_delete
    assert set(store.objects) == ({"b"} if allow_delete else {"a", "b"})
    for _ in range(2):
        await world.sync(dataset)
        assert set(await world.index(dataset)) == {"/b"}


async def test_what_was_deleted_may_be_uploaded_again_and_stays(world):
    store = ScriptedStore({"a": b"1", "b": b"2"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    await world.delete(dataset, "/a")
    uploaded = await world.upload(dataset, "/a", b"anew", mode="skip")
    assert uploaded.outcome == "created"
    await world.run_jobs(dataset)  # only now does the worker come to it
    assert store.objects["a"] == b"anew"
    _, scan = await world.sync(dataset)
    assert (scan.unchanged, scan.gone, scan.kept_deleted) == (2, 0, 0)


async def test_an_item_that_was_overwritten_since_it_was_looked_at_is_deleted_with_its_new_object(world):
    dataset, folder = await world.own_dataset()
    seen = (await world.upload(dataset, "/a", b"old")).item
    await world.upload(dataset, "/a", b"new")
    async with world.connection() as conn:
        await deletion.delete_item(conn, seen)
    await world.run_jobs(dataset)
    assert files(folder) == {}
    assert await world.index(dataset) == {}


async def test_deleting_twice_is_deleting_once(world):
    dataset, folder = await world.own_dataset()
    seen = (await world.upload(dataset, "/a", b"old")).item
    for _ in range(2):
        async with world.connection() as conn:
            await deletion.delete_item(conn, seen)
    assert await world.run_jobs(dataset) == 1
    assert files(folder) == {}
    assert await world.index(dataset) == {}


async def test_a_job_of_deletion_may_be_repeated(world):
    store = ScriptedStore({"a": b"1", "b": b"2"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    await world.delete(dataset, "/a")
    thumbnail = f".dataloop/thumbnails/{2**60:024x}.webp"
    given = {"dataset_id": dataset.id, "path": "/a", "object_key": None, "thumbnail": thumbnail, "delete_object": True}
    store.fault = Fault("store", 2)
    with pytest.raises(Crash):
        await deletion.delete_object(world.place, **given)
    await deletion.delete_object(world.place, **given)
    store.objects["a"] = b"somebody else's"
    await deletion.delete_object(world.place, **given)
    assert store.objects["a"] == b"somebody else's"


async def test_an_item_deleted_while_a_scan_runs_stays_deleted(world, small_batches):
    store = ScriptedStore({f"{n:02}": b"x" for n in range(20)})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    doomed = ["/00", "/07", "/19"]

    async def delete_meanwhile(number: int) -> None:
        if number == 4:
            for path in doomed:
                await world.delete(dataset, path)
            await world.run_jobs(dataset)

    pages = store._page
    frozen = dict(store.objects)

    def page_of_then(keys, *, is_last):
        now, store.objects = store.objects, frozen
        try:
            return pages(keys, is_last=is_last)
        finally:
            store.objects = now

    store._page = page_of_then  # the listing shows what was there when it began
    store.on_page = delete_meanwhile
    await world.sync(dataset)
    assert set(await world.index(dataset)) == {"/" + key for key in frozen} - set(doomed)
    store.on_page, store._page = None, pages
    _, scan = await world.sync(dataset)
    assert (scan.listed, scan.unchanged) == (17, 17)


async def test_a_purge_takes_rows_and_thumbnails_and_never_an_object_of_a_user(world):
    store = ScriptedStore({f"f{n % 3}/{n}": b"x" for n in range(30)})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    async with world.connection() as conn:
        cursor = await conn.execute(
            """
            UPDATE item
            SET thumbnail_type = 'image/webp'
            WHERE dataset_id = %s AND path LIKE '/f1/%%'
            RETURNING id
            """,
            [dataset.id],
        )
        thumbnails = {f".dataloop/thumbnails/{item_id:024x}.webp": b"t" for (item_id,) in await cursor.fetchall()}
    await world.delete(dataset, "/f0/0")
    others = {".dataloop/thumbnails/other.webp": b"of another dataset"}
    bucket = dict(store.objects)
    store.objects |= thumbnails | others
    other = await world.dataset(ScriptedStore({"a": b"1"}))
    await world.sync(other)
    await purge(world, dataset)
    assert store.objects == bucket | others
    assert await rows_of(world, dataset.id) == {}
    assert set(await world.index(other)) == {"/a"}
    await deletion.purge_dataset(world.place, dataset.id)  # again


async def test_a_purge_of_our_own_storage_takes_the_objects(world):
    dataset, folder = await world.own_dataset()
    for n in range(5):
        await world.upload(dataset, f"/{n}", b"x")
    await purge(world, dataset)
    assert files(folder) == {}
    assert await rows_of(world, dataset.id) == {}


async def test_a_purge_goes_on_where_the_thumbnails_may_not_be_deleted(world):
    store = ScriptedStore({"a": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    async with world.connection() as conn:
        await conn.execute("UPDATE item SET thumbnail_type = 'image/webp' WHERE dataset_id = %s", [dataset.id])
    store.fault = Fault("store", 1, StoreDenied("The credentials may only read."))
    await purge(world, dataset)
    assert store.fault.has_fired
    assert await rows_of(world, dataset.id) == {}


async def test_a_purge_that_dies_is_finished_by_the_next(world, faulty, monkeypatch):
    monkeypatch.setattr(deletion, "_PURGE_ROWS", 2)
    for nth in range(1, 100):
        store = ScriptedStore({str(n): b"x" for n in range(5)})
        dataset = await world.dataset(store)
        await world.sync(dataset)
        async with world.connection() as conn:
            await datasets.delete_dataset(conn, dataset)
        FaultyCursor.fault = fault = Fault("statement", nth)
        try:
            await deletion.purge_dataset(faulty.place, dataset.id)
        except Crash:
            await deletion.purge_dataset(world.place, dataset.id)
        finally:
            FaultyCursor.fault = None
        assert await rows_of(world, dataset.id) == {}, nth
        assert len(store.objects) == 5
        if not fault.has_fired:
            break
    assert nth > 5


async def test_a_purge_leaves_no_row_of_a_scan_that_still_runs(world, small_batches, monkeypatch):
    """Its last batch was committed after the purge had counted no row, and nobody ever removed these."""
    store = ScriptedStore({f"{n:02}": b"x" for n in range(20)})
    dataset = await world.dataset(store)
    _, scan_id = await world.request(dataset)
    goes_on = asyncio.Event()

    async def wait(number: int) -> None:
        if number > 1:
            await goes_on.wait()

    store.on_page = wait
    first_origins = removals.first_origins

    async def then_a_batch_is_committed(conn, dataset_id, **given):
        found = await first_origins(conn, dataset_id, **given)
        if not found[0]:
            async with world.connection() as other:
                await other.execute(
                    """
                    INSERT INTO item (dataset_id, folder_id, path, size_bytes, etag)
                    VALUES (%s, 0, '/late', 1, '')
                    """,
                    [dataset_id],
                )
        return found

    monkeypatch.setattr(removals, "first_origins", then_a_batch_is_committed)
    monkeypatch.setattr(sync.lanes, "_ABORT_POLL_S", 3600)  # it does not hear of the deletion
    running = asyncio.create_task(sync.run_scan(world.place, scan_id))
    await asyncio.sleep(0)
    await purge(world, dataset)
    goes_on.set()
    await asyncio.wait_for(running, 5)
    assert await rows_of(world, dataset.id) == {}


async def test_a_ghost_is_brought_back_by_an_upload_that_would_skip_it(world):
    store = ScriptedStore({"a": b"1", "b": b"2"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    del store.objects["a"]
    await world.sync(dataset)
    assert ghosts(await world.index(dataset)) == {"/a"}
    assert (await world.upload(dataset, "/a", b"anew", mode="skip")).outcome == "overwrite"
    assert ghosts(await world.index(dataset)) == set()
    assert store.objects["a"] == b"anew"


async def test_counters_hold_when_preprocessing_commits_while_an_overwrite_waits(world):
    dataset, _ = await world.own_dataset()
    item = (await world.upload(dataset, "/a", b"1")).item
    prepared = preparing.PreparedItem(item.id, item.etag, items.ETL_DONE, {"state": "done"}, "text/plain")
    async with world.connection() as conn:
        await preparing.save_prepared(conn, dataset.id, [prepared])
        running = asyncio.create_task(world.upload(dataset, "/a", b"22", mode="overwrite"))
        await somebody_waits_for(world, conn)
    assert (await running).item.etl_state == items.ETL_WAITING
    assert (await world.index(dataset))["/a"][1] == 2  # and the counters are true


async def test_a_dataset_that_is_read_only_takes_no_upload(world):
    dataset, _ = await world.own_dataset()
    async with world.connection() as conn:
        await datasets.update_dataset(conn, world.owner, dataset, readonly=True)
        dataset = await datasets.get_dataset(conn, world.owner, dataset.id)
    with pytest.raises(BadRequest, match="read-only"):
        await world.upload(dataset, "/a", b"x")


# What lies in a bucket and has no item is nobody's to replace, unless they say so.


@pytest.fixture(params=["folder", "bucket"])
async def bucket(request, world):
    """A dataset in a bucket, and its store."""
    if request.param == "bucket":
        return await world.s3_dataset(request.getfixturevalue("weed"))
    dataset, root = await world.local_dataset()
    return dataset, open_local(root=root)


async def content_of(store, key: str) -> bytes:
    async with store.get(key) as reader:
        return await reader.read()


async def by_batch(world, dataset, path: str, content: bytes, mode):
    async def files():
        yield upload.batches.Small(upload.Announced(path, mode, user_metadata={"told": 1}), content)

    (done,) = await upload.batches.upload_batch(world.place, dataset, world.owner, files())
    return done.outcome


async def by_stream(world, dataset, path: str, content: bytes, mode):
    async def chunks():
        yield content

    announced = upload.Announced(path, mode, user_metadata={"told": 1})
    return (await upload.upload_file(world.place, dataset, world.owner, announced, chunks())).outcome


@pytest.mark.parametrize("send", [by_stream, by_batch])
async def test_an_object_without_an_item_is_replaced_only_where_that_is_asked_for(world, bucket, send):
    dataset, store = bucket
    for name in ("a", "b", "same"):
        await store.put(name, b"of others", content_type="text/plain")
    assert await send(world, dataset, "/a", b"ours", "skip") == "skip"
    assert await send(world, dataset, "/same", b"of others", "skip") == "skip"
    assert await send(world, dataset, "/b", b"ours", "overwrite") == "created"
    assert [await content_of(store, name) for name in ("a", "b", "same")] == [b"of others", b"ours", b"of others"]
    found = {path: await world.item(dataset, path) for path in ("/a", "/same")}
    assert {path: item.size_bytes for path, item in found.items()} == {"/a": 9, "/same": 9}
    # An upload that died between its object and its row, and was sent again, is what it was meant to be.
    assert {path: item.user_metadata for path, item in found.items()} == {"/a": None, "/same": {"told": 1}}
    _, scan = await world.sync(dataset)
    assert (scan.unchanged, scan.changed) == (3, 0)


@pytest.mark.parametrize("send", [by_stream, by_batch])
async def test_the_object_of_an_item_that_was_deleted_here_is_replaced(world, send):
    store = ScriptedStore({"a": b"1", "b": b"2"})
    dataset = await world.dataset(store, allow_delete=False)
    await world.sync(dataset)
    await world.delete(dataset, "/a")
    assert await send(world, dataset, "/a", b"anew", "skip") == "created"
    assert store.objects["a"] == b"anew"
