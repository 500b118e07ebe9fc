"""Clones share the bytes of their originals: nothing is copied, nothing is lost, nothing is left."""

import asyncio
import json
import os
import secrets

import pytest

from headwater.catalog import commands, datasets, projects, quotas
from headwater.catalog.sync import schedules, upstream
from headwater.errors import BadRequest, Conflict, QuotaExceeded
from headwater.work import cloning, deletion, verify
from headwater.work.cloning import Options
from tests import samples
from tests.work.scripted import Crash, Fault, FaultyCursor, ScriptedStore
from tests.work.test_deleting import delete_selected
from tests.work.world import World, somebody_waits_for


def photo(width_px: int, height_px: int) -> bytes:
    return samples.encode(samples.picture(size_px=(width_px, height_px)), "JPEG")


async def target_for(world: World, source, name: str | None = None):
    """A new dataset beside the source, as the route makes it."""
    async with world.connection() as conn:
        made = await datasets.create_dataset(
            conn,
            world.owner,
            project_id=source.project_id,
            driver_id=source.driver_id,
            name=name or f"clone {secrets.token_hex(4)}",
        )
        await cloning.cloning.note_origin(conn, made.id, "clone", [source.id])
        return await datasets.load_dataset(conn, made.id)


async def request(world: World, sources, target, wanted=None, **options):
    async with world.connection() as conn:
        asked = await cloning.request_clone(
            conn, world.owner, sources, wanted or {}, target, Options(**options), is_merge=len(sources) > 1
        )
        cursor = await conn.execute(
            "DELETE FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s RETURNING args",
            [cloning.TASK, str(asked.command_id)],
        )
        ((arguments,),) = await cursor.fetchall()
    return json.loads(arguments) if isinstance(arguments, str) else arguments


async def clone(world: World, *sources, into=None, wanted=None, **options):
    """To its end; the target and the command."""
    target = into or await target_for(world, sources[0])
    arguments = await request(world, sources, target, wanted, **options)
    await cloning.clone_items(world.place, **arguments)
    return target, await command_of(world, arguments)


async def command_of(world: World, arguments):
    async with world.connection() as conn:
        return await commands.load_command(conn, arguments["command_id"])


async def contents(world: World, dataset) -> dict[str, bytes]:
    """What each item streams."""
    found = {}
    for path in await world.index(dataset):
        item = await world.item(dataset, path)
        async with world.place.places.of_item(item) as store, store.get(item.key) as reader:
            found[path] = b"".join([chunk async for chunk in reader])
    return found


def objects(folder) -> int:
    return sum(path.is_file() and ".dataloop" not in path.parts for path in folder.rglob("*"))


async def purge(world: World, dataset) -> None:
    async with world.connection() as conn:
        await datasets.delete_dataset(conn, dataset)
    await deletion.purge_dataset(world.place, dataset.id)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(cloning, "_PIECE_ITEMS", 3)


async def test_a_clone_streams_what_its_original_had_and_copies_no_byte(world, small_pieces):
    source, folder = await world.own_dataset()
    bodies = {f"/{n % 3}/{n}.txt": f"{n}".encode() for n in range(10)}
    for path, body in bodies.items():
        await world.upload(source, path, body, user_metadata={"n": body.decode()})
    target, command = await clone(world, source)
    assert (command.status, command.kind, command.warning) == ("success", "CloneDataset", None)
    assert command.spec["returnedModelId"] == f"{target.id:024x}"
    assert command.spec["clone"] | {"bytes": 10} == {
        "items": 10,
        "cloned": 10,
        "bytes": 10,
        "thereAlready": 0,
        "renamed": 0,
        "tooLong": 0,
        "annotations": 0,
        "missing": 0,
    }
    assert await contents(world, target) == bodies
    assert objects(folder) == 10
    for path, body in bodies.items():
        await world.upload(source, path, b"new " + body)
    await world.run_jobs(source)
    assert await contents(world, target) == bodies
    await world.delete(source, "/0/0.txt")
    await world.run_jobs(source)
    assert await contents(world, target) == bodies
    await purge(world, source)
    assert await contents(world, target) == bodies
    assert objects(folder) == 10
    await world.delete(target, "/1/1.txt")
    await world.run_jobs(target)
    assert objects(folder) == 9
    await purge(world, target)
    assert objects(folder) == 0


async def test_what_was_known_of_the_bytes_is_copied_and_the_rest_is_read(world):
    source, folder = await world.own_dataset()
    await world.upload(source, "/a.jpg", photo(40, 30))
    await world.preprocess(source)
    await world.upload(source, "/b.jpg", photo(20, 10))
    target, _ = await clone(world, source)
    known, unread = await world.item(target, "/a.jpg"), await world.item(target, "/b.jpg")
    original = await world.item(source, "/a.jpg")
    assert (known.width_px, known.height_px, known.etl_state) == (40, 30, 1)
    assert (known.thumbnail_type, known.thumbnail_number) == (original.thumbnail_type, original.id)
    assert set(await world.events(target)) == {("Created", unread.id)}
    await world.preprocess(target)
    read = await world.item(target, "/b.jpg")
    assert (read.width_px, read.etl_state) == (20, 1)
    await world.preprocess(source)
    thumbnails = folder / ".dataloop" / "thumbnails"
    assert len(list(thumbnails.iterdir())) == 3  # one is shared; what was not there yet is made for each
    await purge(world, source)
    for item in (known, read):
        async with world.place.places.of_thumbnail(item) as store:
            await store.head(deletion.thumbnail_key(item.thumbnail_number, item.thumbnail_type))
    await purge(world, target)
    assert list(thumbnails.iterdir()) == []


async def test_an_original_that_is_overwritten_gets_another_thumbnail(world):
    source, folder = await world.own_dataset()
    await world.upload(source, "/a.jpg", photo(40, 30))
    await world.preprocess(source)
    target, _ = await clone(world, source)
    thumbnails = folder / ".dataloop" / "thumbnails"
    (first,) = thumbnails.iterdir()
    before = first.read_bytes()
    await world.upload(source, "/a.jpg", photo(30, 40))
    await world.run_jobs(source)
    await world.preprocess(source)
    assert first.read_bytes() == before
    assert len(list(thumbnails.iterdir())) == 2
    await world.upload(target, "/a.jpg", photo(10, 10))  # the clone gives up what it shared
    await world.run_jobs(target)
    assert not first.exists()
    await world.preprocess(target)
    item = await world.item(target, "/a.jpg")
    assert (item.origin_dataset_id, item.width_px) == (None, 10)
    assert objects(folder) == 1


async def test_a_clone_of_a_clone_points_to_the_first_origin(world):
    source, _ = await world.own_dataset()
    await world.upload(source, "/a", b"1")
    first, _ = await clone(world, source)
    second, _ = await clone(world, first, folder="/x/y")
    item = await world.item(second, "/x/y/a")
    assert item.origin_dataset_id == source.id
    await purge(world, first)
    await purge(world, source)
    assert await contents(world, second) == {"/x/y/a": b"1"}


async def test_names_that_clash_get_a_number_and_the_same_object_comes_once(world, small_pieces):
    first, _ = await world.own_dataset()
    second, _ = await world.own_dataset()
    for path in ("/a.jpg", "/b.jpg", "/c"):
        await world.upload(first, path, b"first " + path.encode())
    for path in ("/a.jpg", "/a (2).jpg", "/c", "/d", "/.env"):
        await world.upload(second, path, b"second " + path.encode())
    copy_of_first, _ = await clone(world, first)
    target = await target_for(world, first)
    merged, command = await clone(world, first, copy_of_first, second, into=target)
    assert (command.kind, command.status) == ("MergeDatasets", "success")
    assert command.spec["mergeDatasetsConfiguration"]["datasetsIds"][0] == f"{first.id:024x}"
    expected = {path: b"first " + path.encode() for path in ("/a.jpg", "/b.jpg", "/c")}
    expected |= {path: b"second " + path.encode() for path in ("/a (2).jpg", "/d", "/.env")}
    found = await contents(world, merged)
    assert {path: found[path] for path in ("/a.jpg", "/b.jpg", "/c", "/d", "/.env")} == {
        path: expected[path] for path in ("/a.jpg", "/b.jpg", "/c", "/d", "/.env")
    }
    assert sorted(found.values()) == sorted([*expected.values(), b"second /a.jpg", b"second /c"])
    assert "/c (2)" in found
    told = command.spec["clone"]
    assert (told["cloned"], told["thereAlready"], told["renamed"]) == (8, 3, told["renamed"])
    assert "got a number behind their name" in command.warning
    _, again = await clone(world, first, copy_of_first, second, into=merged)
    assert again.spec["clone"]["cloned"] == 0
    assert await contents(world, merged) == found


async def test_only_what_is_chosen_and_shown_is_cloned_without_metadata_if_so_wished(world):
    source, _ = await world.own_dataset()
    for path in ("/a/1.txt", "/a/b/2.txt", "/c/3.txt", "/.dataloop/own"):
        await world.upload(
            source,
            path,
            path.encode(),
            user_metadata={"u": 1},
            system_metadata={"tags": {"train": True}, "fps": 3},
            description="what it is",
        )
    target, command = await clone(world, source, wanted={"folder": "/a"}, folder="/to", with_metadata=False)
    assert await contents(world, target) == {"/to/a/1.txt": b"/a/1.txt", "/to/a/b/2.txt": b"/a/b/2.txt"}
    assert command.spec["clone"]["items"] == 2
    item = await world.item(target, "/to/a/1.txt")
    assert (item.user_metadata, item.description, item.system_metadata) == (None, None, {"fps": 3})
    everything, _ = await clone(world, source, wanted={"filter": {"filename": "/*/3.txt"}})
    item = await world.item(everything, "/c/3.txt")
    assert (item.user_metadata, item.description) == ({"u": 1}, "what it is")
    assert item.system_metadata == {"tags": {"train": True}, "fps": 3}
    assert set(await world.index(everything)) == {"/c/3.txt"}


async def test_a_bucket_is_not_touched_and_its_objects_stay_while_clones_name_them(world, small_pieces):
    store = ScriptedStore({f"{n}": f"{n}".encode() for n in range(8)})
    source = await world.dataset(store)
    await world.sync(source)
    store.calls.clear()
    target, command = await clone(world, source, folder="/t")
    assert store.calls == []
    assert command.status == "success"
    assert await contents(world, target) == {f"/t/{n}": f"{n}".encode() for n in range(8)}
    store.calls.clear()
    await world.delete(target, "/t/7")
    await world.run_jobs(target)
    assert "7" in store.objects
    async with world.connection() as conn:
        doomed = [(item.id, item.path) for item in [await world.item(source, f"/{n}") for n in range(8)]]
        await deletion._delete_rows(conn, source.id, doomed)
        assert await deletion.kept_for_clones(conn, source.id, [f"/{n}" for n in range(8)]) == 7
    await world.run_jobs(source)
    assert set(store.objects) == {f"{n}" for n in range(7)}
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT path FROM tombstone WHERE dataset_id = %s AND object_asked_at IS NULL", [source.id]
        )
        assert {path for (path,) in await cursor.fetchall()} == {f"/{n}" for n in range(7)}
    assert len(await contents(world, target)) == 7
    await purge(world, target)
    assert set(store.objects) == {f"{n}" for n in range(7)}


async def test_a_clone_is_never_synced_and_says_why(world):
    store = ScriptedStore({"a": b"1"})
    source = await world.dataset(store)
    await world.sync(source)
    target, _ = await clone(world, source)
    async with world.connection() as conn:
        with pytest.raises(BadRequest, match="is a clone of other datasets"):
            await datasets.get_syncable(conn, world.owner, target.id)
    with pytest.raises(BadRequest, match="is a clone of datasets in a bucket"):
        await world.upload(target, "/b", b"1")
    assert list(store.objects) == ["a"]


async def test_storages_do_not_mix(world):
    own, _ = await world.own_dataset()
    bucket = await world.dataset(ScriptedStore({"a": b"1"}))
    other = await world.dataset(ScriptedStore({"a": b"1"}))
    await world.sync(bucket)
    await world.sync(other)
    for sources, target in (([own], bucket), ([bucket], own), ([bucket], other), ([own, bucket], own)):
        async with world.connection() as conn:
            with pytest.raises(BadRequest, match="shares the bytes"):
                await cloning.request_clone(conn, world.owner, sources, {}, target, Options())
    async with world.connection() as conn:
        with pytest.raises(BadRequest, match="kept in step with its bucket"):
            await cloning.request_clone(conn, world.owner, [bucket], {}, bucket, Options(folder="/x"))


async def test_ghosts_are_left_out_and_told(world):
    store = ScriptedStore({"a": b"1", "b": b"2", "c": b"3"})
    source = await world.dataset(store)
    await world.sync(source)
    del store.objects["a"]
    await world.sync(source, confirm=True)
    target, command = await clone(world, source)
    assert set(await world.index(target)) == {"/b", "/c"}
    assert command.spec["clone"]["missing"] == 1
    assert "missing from the bucket" in command.warning


@pytest.mark.parametrize("kind", ["statement", "commit lost", "commit unheard"])
async def test_a_clone_that_dies_at_any_call_is_finished_by_the_next(world, faulty, small_pieces, kind):
    source, _ = await world.own_dataset()
    for n in range(7):
        await world.upload(source, f"/{n}", f"{n}".encode())
    taken = await target_for(world, source)
    await world.upload(taken, "/3", b"another")
    number = 0
    while True:
        number += 1 if kind != "statement" else 4
        target = await target_for(world, source)
        await clone(world, taken, into=target)
        arguments = await request(world, [source], target)
        fault = Fault(kind, number)
        FaultyCursor.fault = fault
        try:
            await cloning.clone_items(faulty.place, **arguments)
        except Crash:
            pass
        finally:
            FaultyCursor.fault = None
        await asyncio.gather(*(cloning.clone_items(world.place, **arguments) for _ in range(2)))
        command = await command_of(world, arguments)
        assert command.status == "success"
        assert command.spec["clone"]["cloned"] == 7
        assert len(await contents(world, target)) == 8
        assert (await contents(world, target))["/3 (2)"] == b"3"
        await purge(world, target)
        if not fault.has_fired:
            break
    assert number > (16 if kind == "statement" else 3)


async def test_an_abort_keeps_what_was_cloned_and_says_so(world, small_pieces, monkeypatch):
    source, _ = await world.own_dataset()
    for n in range(9):
        await world.upload(source, f"/{n}", b"x")
    target = await target_for(world, source)
    arguments = await request(world, [source], target)
    real = cloning.cloning.clone_piece

    async def then_abort(conn, *args, **given):
        await commands.request_abort(conn, arguments["command_id"])
        return await real(conn, *args, **given)

    monkeypatch.setattr(cloning.cloning, "clone_piece", then_abort)
    await cloning.clone_items(world.place, **arguments)
    command = await command_of(world, arguments)
    assert command.status == "aborted"
    assert "3 of 9 items were cloned and stay" in command.error
    monkeypatch.undo()
    _, again = await clone(world, source, into=target)
    assert (again.spec["clone"]["cloned"], again.spec["clone"]["thereAlready"]) == (6, 3)
    assert len(await world.index(target)) == 9


async def test_a_source_that_is_deleted_meanwhile_leaves_whole_clones(world, small_pieces, monkeypatch):
    source, folder = await world.own_dataset()
    for n in range(9):
        await world.upload(source, f"/{n}", f"{n}".encode())
    target = await target_for(world, source)
    arguments = await request(world, [source], target)
    real = cloning.cloning.clone_piece
    pieces = 0

    async def then_delete(conn, *args, **given):
        nonlocal pieces
        pieces += 1
        if pieces == 2:
            await purge(world, source)
        return await real(conn, *args, **given)

    monkeypatch.setattr(cloning.cloning, "clone_piece", then_delete)
    await cloning.clone_items(world.place, **arguments)
    assert (await command_of(world, arguments)).status in ("failed", "success")
    found = await contents(world, target)
    assert found == {f"/{n}": f"{n}".encode() for n in range(3)}
    assert objects(folder) == 3


async def test_a_target_that_is_purged_meanwhile_waits_for_the_piece_under_way(world, monkeypatch):
    """What the piece adds is purged like all else, and neither waits for the other for ever."""
    source, folder = await world.own_dataset()
    await world.upload(source, "/a", b"1")
    target = await target_for(world, source)
    arguments = await request(world, [source], target)
    real, purging = cloning.cloning.count, []

    async def meanwhile(conn, *args):
        purging.append(asyncio.create_task(purge(world, target)))
        await somebody_waits_for(world, conn)
        await real(conn, *args)

    monkeypatch.setattr(cloning.cloning, "count", meanwhile)
    await cloning.clone_items(world.place, **arguments)
    await purging.pop()
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT FROM item WHERE dataset_id = %s", [target.id])
        assert await cursor.fetchall() == []
    assert objects(folder) == 1


async def test_a_deletion_waits_for_the_clone_that_has_seen_the_row(world):
    """The clone is not yet committed when the last item that names the object is deleted."""
    source, folder = await world.own_dataset()
    item = (await world.upload(source, "/a", b"1")).item
    target = await target_for(world, source)
    async with world.connection() as conn, conn.transaction():
        await cloning.clone_item(conn, world.owner, item, source, target, "/b", Options(), may_be_another=False)
        await world.delete(source, "/a")
        running = asyncio.create_task(world.run_jobs(source))

        await somebody_waits_for(world, conn)
        assert not running.done()
    await running
    assert objects(folder) == 1
    assert await contents(world, target) == {"/b": b"1"}


async def test_one_item_is_cloned_once_unless_many_are_wished(world):
    source, _ = await world.own_dataset()
    item = (await world.upload(source, "/a.txt", b"1")).item
    await world.upload(source, "/b.txt", b"2")

    async def one(path: str, *, many: bool = False) -> int:
        async with world.connection() as conn:
            return await cloning.clone_item(
                conn, world.owner, item, source, source, path, Options(), may_be_another=many
            )

    made = await one("/c/a.txt")
    assert await one("/c/a.txt") == made
    with pytest.raises(Conflict, match=r"another item at /b\.txt"):
        await one("/b.txt")
    assert await one("/c/a.txt", many=True) != made
    assert set(await world.index(source)) == {"/a.txt", "/b.txt", "/c/a.txt", "/c/a (2).txt"}
    with pytest.raises(BadRequest, match="own files"):
        await one("/.dataloop/x")


async def test_there_is_room_for_all_or_nothing_is_cloned(world):
    source, _ = await world.own_dataset()
    for n in range(5):
        await world.upload(source, f"/{n}", b"x")
    target = await target_for(world, source)
    async with world.connection() as conn:
        organization_id = (await projects.get_project(conn, world.owner, source.project_id)).organization_id
        used = (await quotas.load_quota(conn, organization_id)).used
        await quotas.set_limit(conn, organization_id, used + 4)
    try:
        with pytest.raises(QuotaExceeded, match="needs 5 more data points"):
            await request(world, [source], target)
        async with world.connection() as conn:
            await quotas.set_limit(conn, organization_id, used + 5)
        arguments = await request(world, [source], target)
        await world.upload(source, "/late", b"x")  # takes the last place
        await cloning.clone_items(world.place, **arguments)
        command = await command_of(world, arguments)
        assert command.status == "failed"
        assert "0 of 5 items were cloned" in command.error
        assert await world.index(target) == {}
    finally:
        async with world.connection() as conn:
            await quotas.set_limit(conn, organization_id, None)


async def verified(world: World, dataset, *, repair: bool = False) -> dict:
    async with world.connection() as conn:
        command_id = await verify.request_verify(conn, dataset, caller_id=world.owner.id, repair=repair)
    await verify.verify_dataset(world.place, command_id)
    async with world.connection() as conn:
        return (await commands.load_command(conn, command_id)).spec["verify"]


async def test_clones_and_their_originals_are_verified_and_repaired_without_harm(world):
    source, folder = await world.own_dataset()
    await world.upload(source, "/a.jpg", photo(40, 30))
    await world.upload(source, "/b.jpg", photo(30, 30))
    await world.preprocess(source)
    target, _ = await clone(world, source)
    await world.upload(source, "/a.jpg", photo(20, 20))
    await world.delete(source, "/b.jpg")
    await world.run_jobs(source)
    await world.preprocess(source)
    age_s = 3 * 86_400
    for path in folder.rglob("*"):
        os.utime(path, (path.stat().st_atime - age_s, path.stat().st_mtime - age_s))
    async with world.connection() as conn:  # the etags of our own storage are made of times
        await conn.execute("UPDATE item SET etag = '' WHERE dataset_id = %s", [source.id])
    before = objects(folder)
    for dataset in (source, target):
        told = await verified(world, dataset, repair=True)
        assert told["counts"]["orphanObjects"] == told["counts"]["orphanThumbnails"] == 0
        assert told["counts"]["missingObjects"] == told["counts"]["missingThumbnails"] == 0
    assert objects(folder) == before == 3
    assert len(await contents(world, target)) == 2


async def test_of_clones_in_a_bucket_no_object_is_compared(world):
    store = ScriptedStore({"a": b"1"})
    source = await world.dataset(store)
    await world.sync(source)
    target, _ = await clone(world, source, folder="/x")
    told = await verified(world, target)
    assert (told["clean"], told["objectsCompared"], told["listed"]) == (True, False, 0)
    assert (await verified(world, source))["objectsCompared"] is True


async def test_events_and_schedules_pass_clones_by(world):
    source = await world.dataset(ScriptedStore({"a": b"1"}))
    await world.sync(source)
    target, _ = await clone(world, source)
    async with world.connection() as conn:
        await conn.execute("UPDATE dataset SET auto_sync = true WHERE id = ANY(%s)", [[source.id, target.id]])
        followers = await upstream.followers_of(conn, source.driver_id)
        assert [follower.dataset_id for follower in followers] == [source.id]
        await conn.execute(
            """
            INSERT INTO schedule (dataset_id, cron, timezone, next_run_at)
            VALUES (%s, '* * * * *', 'UTC', '2000-01-01')
            """,
            [target.id],
        )
        due = await schedules.take_due(conn)
        assert due is None or due.dataset_id != target.id
        await conn.execute("DELETE FROM schedule WHERE dataset_id = %s", [target.id])


async def test_a_deletion_tells_how_many_objects_clones_keep(world):
    store = ScriptedStore({f"{n}": b"1" for n in range(4)})
    source = await world.dataset(store)
    await world.sync(source)
    await clone(world, source, wanted={"filter": {"name": {"$in": ["0", "1"]}}})
    command = await delete_selected(world, source, {"filter": {}})
    assert command.status == "success"
    assert command.warning == "2 of their objects stay in the bucket, because clones use them."
    await world.run_jobs(source)
    assert set(store.objects) == {"0", "1"}
