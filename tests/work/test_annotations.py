"""What becomes of annotations: they stay with their item whatever happens to its object, and go with it alone."""

import asyncio
import json
from typing import Any

import pytest
from procrastinate import App, PsycopgConnector

from headwater.catalog import annotations, commands, datasets, items, verifying
from headwater.catalog.annotations import Content
from headwater.catalog.datasets import Dataset
from headwater.catalog.query import EVERYTHING, Condition
from headwater.catalog.sync import moves
from headwater.catalog.sync.ghosts import count_ghosts
from headwater.catalog.sync.rules import SyncRules, save_rules
from headwater.wire.annotations import ChangeJson
from headwater.work import annotations as work
from headwater.work import cloning, deletion, ghosts, moving, tasks
from headwater.work.cloning import Options
from tests.work.scripted import Crash, Fault, FaultyCursor
from tests.work.test_cloning import clone, request, target_for
from tests.work.world import World


def content(label: str, **given: Any) -> Content:
    facts: dict[str, Any] = {
        "type": "box",
        "label": label,
        "source": "sdk",
        "hash": None,
        "description": None,
        "coordinates": [{"x": 1.5, "y": 2}, {"x": 3, "y": 4}],
        "attributes": {"1": "a"},
        "system_metadata": {},
        "user_metadata": {"kept": [1, None]},
        "extra": None,
    }
    return Content(**facts | given)


async def annotate(world: World, dataset: Dataset, path: str, *contents: Content) -> list[int]:
    item = await world.item(dataset, path)
    async with world.connection() as conn:
        made = await annotations.add_annotations(conn, dataset.id, item.id, contents, creator=world.owner)
    return [one.id for one in made]


async def labels(world: World, dataset: Dataset, path: str) -> list[str]:
    """Of the item's annotations, once all counts are found right."""
    await world.index(dataset)
    item = await world.item(dataset, path)
    async with world.connection() as conn:
        found = await annotations.of_items(conn, dataset.id, [item.id])
    return [one.label for one in found.get(item.id, [])]


async def found_at(world: World, dataset: Dataset, path: str) -> list[annotations.Annotation]:
    item = await world.item(dataset, path)
    async with world.connection() as conn:
        return (await annotations.of_items(conn, dataset.id, [item.id])).get(item.id, [])


async def rows_of(world: World, dataset: Dataset) -> int:
    async with world.connection() as conn:
        return (await annotations.summarize(conn, dataset.id, EVERYTHING)).number


async def settle(world: World, dataset: Dataset, action: ghosts.Action, wanted: dict[str, Any]) -> None:
    """Few are done at once, without a job."""
    async with world.connection() as conn:
        number = await count_ghosts(conn, dataset.id, ghosts.choice_of(action, wanted))
        assert await ghosts.request(conn, dataset, action, wanted, number, caller_id=world.owner.id) is None


async def test_they_stay_whatever_a_sync_finds(world: World):
    dataset, root = await world.local_dataset()
    (root / "a.txt").write_text("1")
    await world.sync(dataset)
    await annotate(world, dataset, "/a.txt", content("cat"), content("dog"))
    (root / "a.txt").write_text("changed in the bucket")
    await world.sync(dataset)
    assert await labels(world, dataset, "/a.txt") == ["cat", "dog"]
    (root / "a.txt").unlink()
    await world.sync(dataset, confirm=True)
    assert (await world.item(dataset, "/a.txt")).missing_since is not None
    assert await labels(world, dataset, "/a.txt") == ["cat", "dog"]
    (root / "a.txt").write_text("back")
    await world.sync(dataset)
    assert (await world.item(dataset, "/a.txt")).missing_since is None
    assert await labels(world, dataset, "/a.txt") == ["cat", "dog"]


async def test_they_come_back_from_the_trash_and_are_forgotten_with_a_ghost(world: World):
    dataset, root = await world.local_dataset()
    async with world.connection() as conn:
        await save_rules(conn, dataset.id, SyncRules(ghosts="trash"))
    (root / "a.txt").write_text("1")
    (root / "b.txt").write_text("1")
    await world.sync(dataset)
    for name in ("a", "b"):
        await annotate(world, dataset, f"/{name}.txt", content(name))
        (root / f"{name}.txt").unlink()
    await world.sync(dataset, confirm=True)
    assert (await world.item(dataset, "/a.txt")).trashed_at is not None
    await settle(world, dataset, "restore", {"paths": ["/a.txt"]})
    assert await labels(world, dataset, "/a.txt") == ["a"]
    await settle(world, dataset, "forget", {"trash": True})
    assert await world.item(dataset, "/b.txt") is None
    assert await rows_of(world, dataset) == 1
    await world.index(dataset)


async def test_they_stay_with_an_item_that_is_overwritten_or_moved(world: World):
    dataset, _ = await world.own_dataset()
    await world.upload(dataset, "/a.txt", b"1")
    await annotate(world, dataset, "/a.txt", content("cat"))
    await world.upload(dataset, "/a.txt", b"other", mode="overwrite")
    assert await labels(world, dataset, "/a.txt") == ["cat"]
    item = await world.item(dataset, "/a.txt")
    async with world.connection() as conn:
        path = await moving.lock_move(conn, item, "/b/c.txt")
        await moving.move_locked(conn, item, path, caller_id=world.owner.id)
    assert await labels(world, dataset, "/b/c.txt") == ["cat"]


@pytest.mark.parametrize("when", ["never", "before", "after"])
async def test_a_moved_object_keeps_them_and_a_new_item_that_was_annotated_stays(
    world: World, weed: Any, monkeypatch: pytest.MonkeyPatch, when: str
):
    """`when` the new item is annotated: before a sync looks for pairs of old and new, or after it."""
    dataset, store = await world.s3_dataset(weed)
    async with world.connection() as conn:
        await save_rules(conn, dataset.id, SyncRules(follow_moves=True))
    await store.put("a.txt", b"a", content_type="text/plain")
    await store.put("stays.txt", b"stays", content_type="text/plain")
    await world.sync(dataset)
    await annotate(world, dataset, "/a.txt", content("old"))
    await store.delete("a.txt")
    await store.put("moved/a.txt", b"a", content_type="text/plain")
    pair = moves._pair

    async def annotated(conn: Any, scan: Any) -> None:
        if when == "before":
            await annotate(world, dataset, "/moved/a.txt", content("new"))
        await pair(conn, scan)
        if when == "after":
            await annotate(world, dataset, "/moved/a.txt", content("new"))

    monkeypatch.setattr(moves, "_pair", annotated)
    found, _ = await world.sync(dataset, confirm=True)
    if when == "never":
        assert found.spec["sync"]["moved"] == 1
        assert await labels(world, dataset, "/moved/a.txt") == ["old"]
    else:
        assert found.spec["sync"]["moved"] == 0
        assert await labels(world, dataset, "/moved/a.txt") == ["new"]
        assert await labels(world, dataset, "/a.txt") == ["old"]


async def test_they_go_with_their_item(world: World):
    dataset, _ = await world.own_dataset()
    for path in ("/a.txt", "/b.txt", "/c.txt"):
        await world.upload(dataset, path, b"1")
        await annotate(world, dataset, path, content(path), content("more"))
    await world.delete(dataset, "/a.txt")
    assert await rows_of(world, dataset) == 4
    await world.index(dataset)
    await world.upload(dataset, "/a.txt", b"1")
    assert await labels(world, dataset, "/a.txt") == []
    async with world.connection() as conn:
        await datasets.delete_dataset(conn, dataset)
    await deletion.purge_dataset(world.place, dataset.id)
    assert await rows_of(world, dataset) == 0


async def test_a_clone_has_them_in_their_order(world: World, monkeypatch):
    monkeypatch.setattr(cloning, "_PIECE_ITEMS", 3)
    monkeypatch.setattr(cloning.cloning, "_MOST_ANNOTATIONS", 4)
    source, _ = await world.own_dataset()
    for number in range(7):
        await world.upload(source, f"/{number}.txt", b"1")
        if number % 3:
            made = [content(f"{number}.{place}") for place in range(number)]
            await annotate(world, source, f"/{number}.txt", *made)
    parent, child = await annotate(
        world, source, "/0.txt", content("parent", type="pose"), content("child", description="d", extra={"z": 1})
    )
    async with world.connection() as conn:
        await annotations.patch_annotations(
            conn,
            source.id,
            [child],
            label=None,
            user={},
            system={"parentId": f"{parent:024x}", "status": "issue"},
            updated_by_id=None,
        )
    target, command = await clone(world, source, folder="/x")
    assert command.status == "success"
    assert command.spec["clone"]["annotations"] == await rows_of(world, source) == await rows_of(world, target)
    for number in range(7):
        assert await labels(world, target, f"/x/{number}.txt") == await labels(world, source, f"/{number}.txt")
    new_parent, new_child = await found_at(world, target, "/x/0.txt")
    _, old_child = await found_at(world, source, "/0.txt")
    assert new_child.system_metadata == {"parentId": f"{new_parent.id:024x}"}
    assert (new_child.description, new_child.extra, new_child.created_at) == ("d", {"z": 1}, old_child.created_at)
    assert (new_child.coordinates, new_child.attributes) == (old_child.coordinates, old_child.attributes)
    assert new_child.user_metadata == old_child.user_metadata
    assert new_child.creator == old_child.creator
    with_status, _ = await clone(world, source, with_task_status=True)
    assert (await found_at(world, with_status, "/0.txt"))[1].system_metadata["status"] == "issue"
    without, command = await clone(world, source, with_annotations=False)
    assert await rows_of(world, without) == command.spec["clone"]["annotations"] == 0
    await world.index(without)


async def test_clones_of_what_is_there_or_gets_a_number_are_counted_right(world: World):
    source, _ = await world.own_dataset()
    for name in ("a", "b"):
        await world.upload(source, f"/{name}.txt", name.encode())
        await annotate(world, source, f"/{name}.txt", content(name))
    target, _ = await clone(world, source, wanted={"filter": {"filename": "/a.txt"}})
    await annotate(world, target, "/a.txt", content("mine"))
    await world.upload(target, "/b.txt", b"another")
    _, command = await clone(world, source, into=target)
    assert (command.spec["clone"]["thereAlready"], command.spec["clone"]["renamed"]) == (1, 1)
    assert await labels(world, target, "/a.txt") == ["a", "mine"]
    assert await labels(world, target, "/b.txt") == []
    assert await labels(world, target, "/b (2).txt") == ["b"]


async def test_a_merge_joins_annotations_of_the_same_object(world: World):
    """Two teams annotate clones of one dataset; what both had before comes once."""
    source, _ = await world.own_dataset()
    for name in ("a", "b", "c"):
        await world.upload(source, f"/{name}.txt", name.encode())
    await annotate(world, source, "/a.txt", content("both"))
    first, _ = await clone(world, source)
    second, _ = await clone(world, source)
    await annotate(world, first, "/a.txt", content("first"))
    await annotate(world, second, "/a.txt", content("second"))
    await annotate(world, second, "/b.txt", content("only second"), content("only second", attributes=None))
    merged, command = await clone(world, first, second)
    assert command.spec["clone"]["thereAlready"] == 3
    assert await labels(world, merged, "/a.txt") == ["both", "first", "second"]
    assert await labels(world, merged, "/b.txt") == ["only second", "only second"]
    assert await labels(world, merged, "/c.txt") == []


async def test_an_item_is_cloned_with_them(world: World):
    source, _ = await world.own_dataset()
    await world.upload(source, "/a.txt", b"1")
    await annotate(world, source, "/a.txt", content("cat"))
    item = await world.item(source, "/a.txt")
    target = await target_for(world, source)
    for path, options in (("/with.txt", Options()), ("/without.txt", Options(with_annotations=False))):
        async with world.connection() as conn:
            await cloning.clone_item(conn, world.owner, item, source, target, path, options, may_be_another=False)
    assert await labels(world, target, "/with.txt") == ["cat"]
    assert await labels(world, target, "/without.txt") == []


async def test_a_piece_of_a_clone_that_dies_leaves_none(world: World, faulty: World, monkeypatch):
    monkeypatch.setattr(cloning, "_PIECE_ITEMS", 2)
    source, _ = await world.own_dataset()
    for number in range(5):
        await world.upload(source, f"/{number}.txt", b"1")
        await annotate(world, source, f"/{number}.txt", content("cat"), content("dog"))
    target = await target_for(world, source)
    arguments = await request(world, [source], target)
    monkeypatch.setattr(FaultyCursor, "fault", Fault("commit lost", 2))
    with pytest.raises(Crash):
        await cloning.clone_items(faulty.place, **arguments)
    monkeypatch.setattr(FaultyCursor, "fault", None)
    assert await rows_of(world, target) == 4
    await world.index(target)
    await cloning.clone_items(world.place, **arguments)
    await cloning.clone_items(world.place, **arguments)
    assert await rows_of(world, target) == 10
    await world.index(target)


async def command_of(world: World, command_id: int) -> commands.Command:
    async with world.connection() as conn:
        return await commands.load_command(conn, command_id)


async def change(world: World, dataset: Dataset, conditions: dict[str, Any], wish: ChangeJson | None) -> dict[str, Any]:
    """The arguments of the job of a command that was begun and not worked on."""
    async with world.connection() as conn:
        summary = await annotations.summarize(conn, dataset.id, work.tree_of(conditions))
        job = await work.request_change(conn, dataset, conditions, wish, summary, caller_id=world.owner.id)
        await conn.execute("DELETE FROM procrastinate_jobs WHERE task_name = %s", [work.TASK])
    return job


@pytest.fixture
async def annotated(world: World, monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Five items with four annotations each, cat and dog in turn; pieces of three."""
    monkeypatch.setattr(work, "PIECE", 3)
    dataset, _ = await world.own_dataset()
    for number in range(5):
        await world.upload(dataset, f"/{number}.txt", b"1")
        await annotate(world, dataset, f"/{number}.txt", *(content(label) for label in ("cat", "dog") * 2))
    return dataset


async def test_many_are_deleted_piece_by_piece(world: World, annotated: Dataset):
    job = await change(world, annotated, {"label": "cat"}, None)
    await annotate(world, annotated, "/0.txt", content("cat"))  # came later
    await work.change_annotations(world.place, **job)
    done = await command_of(world, job["command_id"])
    assert (done.status, done.spec["annotations"]) == ("success", {"annotations": 10, "done": 10, "deleted": 10})
    assert await labels(world, annotated, "/0.txt") == ["dog", "dog", "cat"]
    assert await labels(world, annotated, "/4.txt") == ["dog", "dog"]
    await work.change_annotations(world.place, **job)
    assert await rows_of(world, annotated) == 11


@pytest.mark.parametrize("is_of_item", [False, True])
async def test_whoever_deletes_waits_for_whoever_changes_in_the_order_of_ids(world: World, is_of_item: bool):
    dataset, _ = await world.own_dataset()
    await world.upload(dataset, "/a.txt", b"1")
    first, second = await annotate(world, dataset, "/a.txt", content("cat"), content("dog"))
    item = await world.item(dataset, "/a.txt")
    async with world.connection() as conn:  # the second one lies in front now
        await conn.execute(
            "UPDATE annotation SET label = 'puma' WHERE dataset_id = %s AND id = %s", [dataset.id, first]
        )

    async def delete() -> None:
        async with world.connection() as conn:
            await conn.execute("SET LOCAL enable_indexscan = off")
            await conn.execute("SET LOCAL application_name = 'deletes'")
            if is_of_item:
                await annotations.delete_of_items(conn, dataset.id, [item.id])
                await conn.rollback()  # nobody has deleted the item
            else:
                await annotations.delete_annotations(conn, dataset.id, [second, first])

    async with asyncio.TaskGroup() as both, world.connection() as conn:
        await annotations.lock_annotation(conn, first)
        both.create_task(delete())
        waiting = "SELECT FROM pg_stat_activity WHERE application_name = 'deletes' AND wait_event_type = 'Lock'"
        while await (await conn.execute(waiting)).fetchone() is None:
            await conn.execute("SELECT pg_stat_clear_snapshot()")
        await conn.execute("SET LOCAL lock_timeout = '2s'")
        await annotations.lock_annotation(conn, second)
    assert await labels(world, dataset, "/a.txt") == (["puma", "dog"] if is_of_item else [])


async def test_many_are_changed_piece_by_piece(world: World, annotated: Dataset):
    wish = ChangeJson(label="tiger", user={"seen": True, "kept": None}, system={"status": "approved"})
    job = await change(world, annotated, {"label": "cat"}, wish)
    await work.change_annotations(world.place, **job)
    done = await command_of(world, job["command_id"])
    assert (done.status, done.spec["annotations"]["changed"]) == ("success", 10)
    one, other, *_ = await found_at(world, annotated, "/2.txt")
    assert (one.label, one.user_metadata, one.system_metadata) == ("tiger", {"seen": True}, {"status": "approved"})
    assert (other.label, other.user_metadata) == ("dog", {"kept": [1, None]})
    async with world.connection() as conn:
        found = await annotations.summarize(conn, annotated.id, Condition("label", "eq", "tiger"))
    assert found.number == 10


async def test_a_change_that_is_aborted_says_what_was_done(world: World, annotated: Dataset):
    job = await change(world, annotated, {}, None)
    async with world.connection() as conn:
        await commands.request_abort(conn, job["command_id"])
    await work.change_annotations(world.place, **job)
    done = await command_of(world, job["command_id"])
    assert (done.status, await rows_of(world, annotated)) == ("aborted", 20)
    assert done.error == "Aborted. 0 of 20 annotations were done, and that stays so."


async def test_the_job_of_a_change_is_known_to_the_queue(world: World, annotated: Dataset):
    app = App(connector=PsycopgConnector())
    tasks.register(app, world.place)
    job = await change(world, annotated, {"label": "dog"}, None)
    await app.tasks[work.TASK].func(**json.loads(json.dumps(job)))
    assert (await command_of(world, job["command_id"])).status == "success"
    broken = await change(world, annotated, {"label": "cat"}, None) | {"conditions": {"$no": 1}}
    await app.tasks[work.TASK].func(**broken)
    assert (await command_of(world, broken["command_id"])).status == "failed"


async def test_an_item_that_is_gone_cannot_be_annotated(world: World):
    dataset, _ = await world.own_dataset()
    await world.upload(dataset, "/a.txt", b"1")
    item = await world.item(dataset, "/a.txt")
    await world.delete(dataset, "/a.txt")
    async with world.connection() as conn:
        with pytest.raises(items.NotFound):
            await annotations.add_annotations(conn, dataset.id, item.id, [content("x")], creator=world.owner)


async def test_wrong_counts_of_a_dataset_are_found_and_mended(world: World):
    dataset, _ = await world.own_dataset()
    await world.upload(dataset, "/a.txt", b"1")
    await annotate(world, dataset, "/a.txt", content("cat"), content("dog"))
    async with world.connection() as conn:
        assert await verifying.wrong_counters(conn, dataset.id) == {}
        await conn.execute(
            "UPDATE dataset_counter SET annotations = 7, annotated_items = 0 WHERE dataset_id = %s", [dataset.id]
        )
        found = await verifying.wrong_counters(conn, dataset.id)
        assert found == {"annotations": (7, 2), "annotated_items": (0, 1)}
        await verifying.mend_counters(conn, dataset.id)
    assert await labels(world, dataset, "/a.txt") == ["cat", "dog"]
