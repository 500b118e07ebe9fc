"""Items and folders of our own storage get other paths; no byte is touched, nothing is overwritten or lost."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog import commands, folders
from headwater.errors import BadRequest, Conflict
from headwater.work import moving
from tests.work.scripted import Crash, Fault, FaultyCursor, ScriptedStore
from tests.work.test_cloning import clone, contents
from tests.work.world import World


async def filled(world: World, *paths: str):
    dataset, folder = await world.own_dataset()
    for path in paths:
        await world.upload(dataset, path, path.encode())
    return dataset, folder


async def move(world: World, dataset, to: str, *, on: World | None = None, **wanted):
    async with world.connection() as conn:
        job = await moving.request_move(conn, dataset, wanted, to, caller_id=world.owner.id)
    await moving.move_items((on or world).place, **job)
    return await command_of(world, job)


async def command_of(world: World, job):
    async with world.connection() as conn:
        return await commands.load_command(conn, job["command_id"])


async def rename(world: World, dataset, path: str, new_path: str) -> None:
    item = await world.item(dataset, path)
    async with world.connection() as conn:
        new_path = await moving.lock_move(conn, item, new_path)
        await moving.move_locked(conn, item, new_path, caller_id=world.owner.id)


async def tree(world: World, dataset) -> list[str]:
    async with world.connection() as conn:
        return [folder.path for folder in await folders.list_folders(conn, dataset.id)]


def stats(folder) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(moving, "_PIECE_ITEMS", 2)


async def test_a_renamed_item_is_the_same_one_at_another_path(world):
    dataset, folder = await filled(world, "/a/b.txt")
    before, item = stats(folder), await world.item(dataset, "/a/b.txt")
    await world.events(dataset)
    events = await world.events(dataset)
    await rename(world, dataset, "/a/b.txt", "c/d/e.txt")
    moved = await world.item(dataset, "/c/d/e.txt")
    assert (moved.id, moved.object_key, moved.etag) == (item.id, item.object_key, item.etag)
    assert moved.system_metadata == {"originalname": "b.txt"}
    await rename(world, dataset, "/c/d/e.txt", "/f.txt")
    assert (await world.item(dataset, "/f.txt")).system_metadata == {"originalname": "b.txt"}
    assert stats(folder) == before
    assert await world.events(dataset) == events  # its content is the same
    assert await contents(world, dataset) == {"/f.txt": b"/a/b.txt"}
    assert await tree(world, dataset) == ["/"]


async def test_nothing_is_overwritten(world):
    dataset, _ = await filled(world, "/a", "/b")
    with pytest.raises(Conflict, match="another item at /b already"):
        await rename(world, dataset, "/a", "/b")
    assert await contents(world, dataset) == {"/a": b"/a", "/b": b"/b"}


async def test_a_folder_moves_with_all_that_is_in_it(world, small_pieces):
    dataset, folder = await filled(world, "/a/1", "/a/b/2", "/a/b/c/3", "/ab/4", "/x/5")
    async with world.connection() as conn:
        await folders.make_folder(conn, dataset.id, "/a/empty", world.owner.id)
        await folders.make_folder(conn, dataset.id, "/kept", world.owner.id)
        await folders.make_folder(conn, dataset.id, "/a", world.owner.id)
    before = stats(folder)
    command = await move(world, dataset, "/x/new", folder="/a")
    assert (command.status, command.kind, command.warning) == ("success", "MoveItems", None)
    assert command.spec["move"] == {"items": 3, "moved": 3, "conflicts": 0, "examples": []}
    assert set(await world.index(dataset)) == {"/x/new/1", "/x/new/b/2", "/x/new/b/c/3", "/ab/4", "/x/5"}
    assert stats(folder) == before
    assert await tree(world, dataset) == [
        "/",
        "/ab",
        "/kept",
        "/x",
        "/x/new",
        "/x/new/b",
        "/x/new/b/c",
        "/x/new/empty",
    ]
    assert (await move(world, dataset, "", folder="/x/new")).status == "success"
    assert await tree(world, dataset) == ["/", "/ab", "/b", "/b/c", "/empty", "/kept", "/x"]


async def test_what_clashes_stays_and_is_told(world, small_pieces):
    dataset, _ = await filled(world, "/a/1", "/b/1", "/c/1", "/a/2", "/to/2")
    command = await move(world, dataset, "/to", filter={"filename": {"$in": ["/a/1", "/b/1", "/c/1", "/a/2"]}})
    assert command.status == "success"
    assert (command.spec["move"]["moved"], command.spec["move"]["conflicts"]) == (1, 3)
    assert "3 stayed where they were" in command.warning
    assert "/to/1" in command.warning
    assert await contents(world, dataset) == {
        "/to/1": b"/a/1",
        "/b/1": b"/b/1",
        "/c/1": b"/c/1",
        "/a/2": b"/a/2",
        "/to/2": b"/to/2",
    }


async def test_together_or_not_at_all(world):
    dataset, _ = await filled(world, "/a/1", "/a/2", "/to/2")
    ids = [(await world.item(dataset, path)).id for path in ("/a/1", "/a/2")]
    async with world.connection() as conn:
        with pytest.raises(Conflict, match="Nothing was moved: there is another item at /to/2"):
            await moving.move_together(conn, dataset, ids, "/to", caller_id=world.owner.id)
        await conn.rollback()
    assert set(await world.index(dataset)) == {"/a/1", "/a/2", "/to/2"}


@pytest.mark.parametrize(
    ("folder", "to", "words"),
    [("/a", "/a/b", "into itself"), ("/", "/b", "The root"), ("/a", "/.dataloop/x", "own files")],
)
async def test_what_cannot_be_moved_is_refused(world, folder, to, words):
    dataset, _ = await filled(world, "/a/1")
    with pytest.raises(BadRequest, match=words):
        await move(world, dataset, moving.checked_folder(to), folder=folder)
    assert set(await world.index(dataset)) == {"/a/1"}


async def test_items_in_a_bucket_are_not_moved(world):
    store = ScriptedStore({"a": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    with pytest.raises(BadRequest, match="linked to external storage"):
        await move(world, dataset, "/b", filter={})
    copy, _ = await clone(world, dataset)
    with pytest.raises(BadRequest, match="linked to external storage"):
        await move(world, copy, "/b", filter={})
    store.calls.clear()
    assert set(await world.index(dataset)) == {"/a"}


@pytest.mark.parametrize("kind", ["statement", "commit lost", "commit unheard"])
async def test_a_move_that_dies_at_any_call_is_finished_by_the_next(world, faulty, small_pieces, kind):
    dataset, _ = await filled(world, *(f"/0/{n}" for n in range(5)))
    number, here = 1, 0
    while True:
        async with world.connection() as conn:
            job = await moving.request_move(conn, dataset, {"folder": f"/{here}"}, f"/{here + 1}", caller_id=1)
        fault = FaultyCursor.fault = Fault(kind, number)
        try:
            await moving.move_items(faulty.place, **job)
        except Crash:
            pass
        finally:
            FaultyCursor.fault = None
        await asyncio.gather(*(moving.move_items(world.place, **job) for _ in range(2)))
        command = await command_of(world, job)
        assert (command.status, command.spec["move"]["moved"]) == ("success", 5)
        here += 1
        assert await contents(world, dataset) == {f"/{here}/{n}": f"/0/{n}".encode() for n in range(5)}
        if not fault.has_fired:
            break
        number += 1 if kind != "statement" else 3
    assert number > 2


async def test_side_by_side_with_uploads_nothing_is_lost(world, small_pieces):
    dataset, _ = await filled(world, *(f"/a/{n}" for n in range(8)))
    await asyncio.gather(
        move(world, dataset, "/b", folder="/a"),
        *(world.upload(dataset, f"/a/{n}", b"new") for n in range(0, 8, 2)),
        *(world.upload(dataset, f"/b/{n}", b"other") for n in range(1, 8, 2)),
    )
    await world.run_jobs(dataset)
    found = await contents(world, dataset)
    assert {path[3:] for path in found} == {str(n) for n in range(8)}
    bodies = list(found.values())
    assert (bodies.count(b"new"), bodies.count(b"other")) == (4, 4)


async def test_a_folder_is_shown_while_something_is_in_it_or_somebody_made_it(world):
    store = ScriptedStore({"a/b/1": b"1", "c/2": b"2"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    assert await tree(world, dataset) == ["/", "/a", "/a/b", "/c"]
    async with world.connection() as conn:
        made = await folders.make_folder(conn, dataset.id, "/d/e", world.owner.id)
        assert (await folders.make_folder(conn, dataset.id, "/d/e", world.owner.id)).id == made.id
    await world.delete(dataset, "/a/b/1")
    assert await tree(world, dataset) == ["/", "/c", "/d", "/d/e"]
    async with world.connection() as conn:
        await folders.unmake_folder(conn, dataset.id, "/d")
        assert await folders.find_folder(conn, made.id) is None
    assert await tree(world, dataset) == ["/", "/c"]


_FOLDERS = st.sampled_from(["", "/a", "/a/b", "/ab", "/a/b/c"])
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("folder"), _FOLDERS, _FOLDERS),
        st.tuples(st.just("into"), _FOLDERS, _FOLDERS),
        st.tuples(st.just("upload"), _FOLDERS, st.sampled_from("xyz")),
    ),
    max_size=8,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
async def test_whatever_is_moved_every_item_keeps_its_bytes(world, small_pieces, steps):
    dataset, _ = await world.own_dataset()
    bodies: set[bytes] = set()
    for number, (step, first, second) in enumerate(steps):
        if step == "upload":
            path, body = f"{first}/{second}", f"{number}".encode()
            if (await world.upload(dataset, path, body, mode="skip")).outcome == "created":
                bodies.add(body)
        else:
            try:
                if step == "folder":
                    await move(world, dataset, second, folder=first or "/")
                else:
                    await move(world, dataset, second, filter={"dir": first or "/"})
            except BadRequest:
                continue
        found = await contents(world, dataset)
        assert sorted(found.values()) == sorted(bodies)
        lineage = {"/"}
        for path in found:
            parent = folders.folder_of(path)
            while parent not in lineage:
                lineage.add(parent)
                parent = folders.parent_of(parent)
        assert {"/", *await tree(world, dataset)} == lineage
