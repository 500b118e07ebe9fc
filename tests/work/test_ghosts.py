"""Rules of a sync at work: globs, the trash and its end, commands over many ghosts, and moves on a real store."""

import json
from pathlib import Path

import pytest
from procrastinate import App, PsycopgConnector

from headwater.catalog import commands, datasets, items
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync import ghosts as catalog
from headwater.catalog.sync.ghosts import Choice
from headwater.catalog.sync.rules import SyncRules, save_rules
from headwater.errors import BadRequest
from headwater.work import ghosts, previews, tasks
from headwater.work.preprocess import thumbnail_key
from tests import samples
from tests.work.world import World, present
from tests.work.world import ghosts as ghosts_of


async def set_rules(world: World, dataset: Dataset, **rules) -> Dataset:
    async with world.connection() as conn:
        await save_rules(conn, dataset.id, SyncRules(**rules))
        return await datasets.load_dataset(conn, dataset.id)


async def request(world: World, dataset: Dataset, action: ghosts.Action, wanted: dict) -> int | None:
    """As the route does it."""
    async with world.connection() as conn:
        number = await catalog.count_ghosts(conn, dataset.id, ghosts.choice_of(action, wanted))
        return await ghosts.request(conn, dataset, action, wanted, number, caller_id=world.owner.id)


async def job_of(world: World, command_id: int) -> dict:
    """Takes the command's job from the queue."""
    async with world.connection() as conn:
        cursor = await conn.execute(
            "DELETE FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s RETURNING args",
            [ghosts.TASK, str(command_id)],
        )
        (arguments,) = await cursor.fetchone()
    return json.loads(arguments) if isinstance(arguments, str) else arguments


async def command(world: World, command_id: int) -> commands.Command:
    async with world.connection() as conn:
        return await commands.load_command(conn, command_id)


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


async def test_what_the_globs_leave_out_goes_and_returns(world: World):
    dataset, root = await world.local_dataset()
    write(root, "a.jpg", "b.txt", "raw/c.jpg")
    await set_rules(world, dataset, include=("*.jpg",))
    await world.sync(dataset)
    assert present(await world.index(dataset)) == {"/a.jpg", "/raw/c.jpg"}
    await set_rules(world, dataset, include=("*.jpg",), exclude=("raw/",))
    found, _ = await world.sync(dataset)
    assert found.warning is None
    assert ghosts_of(await world.index(dataset)) == {"/raw/c.jpg"}
    before = await world.item(dataset, "/raw/c.jpg")
    await set_rules(world, dataset)
    await world.sync(dataset)
    assert present(await world.index(dataset)) == {"/a.jpg", "/b.txt", "/raw/c.jpg"}
    assert (await world.item(dataset, "/raw/c.jpg")).id == before.id


async def test_the_brake_guards_globs_that_leave_out_much(world: World):
    dataset, root = await world.local_dataset()
    write(root, *(f"{n}.jpg" for n in range(5)))
    await world.sync(dataset)
    await set_rules(world, dataset, exclude=("*.jpg",), brake_items=2, brake_share=0.1)
    found, scan = await world.sync(dataset)
    assert scan.state == "held"
    assert "confirm" in found.warning
    assert len(present(await world.index(dataset))) == 5


async def test_an_upload_that_the_globs_leave_out_is_refused_before_a_byte_is_written(world: World):
    dataset, root = await world.local_dataset()
    dataset = await set_rules(world, dataset, include=("*.jpg",))
    with pytest.raises(BadRequest, match=r"/a\.txt is left out by the sync rules"):
        await world.upload(dataset, "/a.txt", b"x")
    assert list(root.rglob("*")) == []
    await world.upload(dataset, "/a.jpg", b"x")
    assert present(await world.index(dataset)) == {"/a.jpg"}


async def test_a_preview_counts_and_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch):
    dataset, root = await world.local_dataset()
    write(root, "a.jpg", "b.txt", "raw/c.jpg", "raw/d.txt")
    rules = SyncRules(include=("*.jpg",), exclude=("raw/",))
    found = await previews.preview(world.place, dataset.id, rules)
    assert (found.looked, found.kept, found.is_all) == (4, 1, True)
    assert found.kept_examples == ["/a.jpg"]
    assert sorted(found.left_out_examples) == ["/b.txt", "/raw/c.jpg", "/raw/d.txt"]
    assert await world.index(dataset) == {}
    monkeypatch.setattr(previews, "LOOKED_AT", 3)
    found = await previews.preview(world.place, dataset.id, rules)
    assert (found.looked, found.is_all) == (3, False)
    monkeypatch.setattr(previews, "LOOKED_AT", 4)
    assert (await previews.preview(world.place, dataset.id, rules)).is_all
    with pytest.raises(BadRequest, match=r"'\[a'"):
        await previews.preview(world.place, dataset.id, SyncRules(exclude=("[a",)))


async def with_ghosts(world: World, number: int, **rules) -> tuple[Dataset, Path]:
    """A dataset whose files of the folder gone/ have gone."""
    dataset, root = await world.local_dataset()
    write(root, "stays", *(f"gone/{n:03}" for n in range(number)))
    await world.sync(dataset)
    dataset = await set_rules(world, dataset, **rules)
    for path in (root / "gone").iterdir():
        path.unlink()
    await world.sync(dataset, confirm=True)
    return dataset, root


async def test_few_ghosts_are_settled_at_once(world: World):
    dataset, _ = await with_ghosts(world, 3, ghosts="trash")
    assert await request(world, dataset, "restore", {"paths": ["/gone/001"]}) is None
    assert (await world.item(dataset, "/gone/001")).trashed_at is None
    assert await request(world, dataset, "forget", {"trash": True}) is None
    assert set(await world.index(dataset)) == {"/stays", "/gone/001"}
    assert await request(world, dataset, "trash", {}) is None
    assert (await world.item(dataset, "/gone/001")).trashed_at is not None


async def test_many_ghosts_are_settled_by_a_command_in_pieces_that_may_be_repeated(world: World, monkeypatch):
    monkeypatch.setattr(ghosts, "PIECE_GHOSTS", 4)
    dataset, root = await with_ghosts(world, 10)
    command_id = await request(world, dataset, "forget", {})
    arguments = await job_of(world, command_id)
    async with world.connection() as conn:
        assert not await ghosts._settle_next(conn, command_id, arguments["wanted"])
    assert len(await world.index(dataset)) == 7  # and then the worker was killed
    await ghosts.settle_ghosts(world.place, **arguments)
    ended = await command(world, command_id)
    assert (ended.status, ended.kind, ended.spec["ghosts"]["done"]) == ("success", "ForgetGhosts", 10)
    assert set(await world.index(dataset)) == {"/stays"}
    await ghosts.settle_ghosts(world.place, **arguments)
    assert (root / "stays").exists()


async def test_what_becomes_a_ghost_later_is_not_forgotten_with_the_others(world: World, monkeypatch):
    monkeypatch.setattr(ghosts, "PIECE_GHOSTS", 2)
    dataset, root = await with_ghosts(world, 5)
    write(root, "outage")
    await world.sync(dataset)
    command_id = await request(world, dataset, "forget", {"all": True})
    (root / "outage").unlink()
    await world.sync(dataset)
    assert len(ghosts_of(await world.index(dataset))) == 6
    await ghosts.settle_ghosts(world.place, **await job_of(world, command_id))
    assert (await command(world, command_id)).spec["ghosts"]["done"] == 5
    assert set(await world.index(dataset)) == {"/stays", "/outage"}


async def test_a_command_over_ghosts_can_be_aborted(world: World, monkeypatch):
    monkeypatch.setattr(ghosts, "PIECE_GHOSTS", 4)
    dataset, _ = await with_ghosts(world, 10)
    command_id = await request(world, dataset, "trash", {})
    arguments = await job_of(world, command_id)
    async with world.connection() as conn:
        await ghosts._settle_next(conn, command_id, arguments["wanted"])
        await commands.request_abort(conn, command_id)
    await ghosts.settle_ghosts(world.place, **arguments)
    assert (await command(world, command_id)).status == "aborted"
    async with world.connection() as conn:
        assert await catalog.count_ghosts(conn, dataset.id, Choice(where="trash")) == 4


async def test_what_is_forgotten_loses_its_thumbnail_and_no_object(world: World):
    dataset, root = await world.local_dataset()
    photo = samples.jpeg()
    (root / "a.jpg").write_bytes(photo)
    (root / "b.jpg").write_bytes(photo)
    await world.sync(dataset)
    await world.preprocess(dataset)
    kept = await world.item(dataset, "/b.jpg")
    item = await world.item(dataset, "/a.jpg")
    thumbnail = root / thumbnail_key(item.id, item.thumbnail_type)
    assert thumbnail.exists()
    (root / "a.jpg").unlink()
    await world.sync(dataset)
    (root / "a.jpg").write_bytes(photo)  # it is back before it is forgotten, and nobody has noticed
    await request(world, dataset, "forget", {"paths": ["/a.jpg"]})
    assert await world.run_jobs(dataset) == 1
    assert not thumbnail.exists()
    assert (root / "a.jpg").exists()
    assert (root / thumbnail_key(kept.id, kept.thumbnail_type)).exists()
    await world.sync(dataset)
    assert (await world.item(dataset, "/a.jpg")).id > kept.id


async def test_the_trash_is_forgotten_after_its_days(world: World, monkeypatch):
    monkeypatch.setattr(ghosts, "PIECE_GHOSTS", 2)
    dataset, _ = await with_ghosts(world, 7, ghosts="trash")
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE item SET trashed_at = now() - interval '31 days' WHERE dataset_id = %s AND path < '/gone/005'",
            [dataset.id],
        )
    await ghosts.forget_expired(world.place)
    assert set(await world.index(dataset)) == {"/stays", "/gone/005", "/gone/006"}
    await ghosts.forget_expired(world.place)
    assert len(await world.index(dataset)) == 3


async def test_a_file_that_moved_in_a_bucket_stays_the_same_item(world: World, weed):
    dataset, store = await world.s3_dataset(weed)
    photo = samples.jpeg()
    await store.put("old/a.jpg", photo, content_type="image/jpeg")
    await store.put("b.txt", b"b", content_type="text/plain")
    await set_rules(world, dataset, follow_moves=True)
    await world.sync(dataset)
    await world.preprocess(dataset)
    before = await world.item(dataset, "/old/a.jpg")
    assert before.etl_state == items.ETL_DONE
    await store.delete("old/a.jpg")
    await store.put("new/c.jpg", photo, content_type="image/jpeg")
    found, scan = await world.sync(dataset)
    assert scan.marked == 0
    now = await world.item(dataset, "/new/c.jpg")
    assert (now.id, now.width_px, now.thumbnail_type) == (before.id, before.width_px, before.thumbnail_type)
    assert present(await world.index(dataset)) == {"/new/c.jpg", "/b.txt"}
    assert ghosts_of(await world.index(dataset)) == set()
    assert (found.spec["sync"]["moved"], found.spec["sync"]["missing"]) == (1, 0)


async def test_the_trash_is_looked_at_every_day(world: World):
    app = App(connector=PsycopgConnector())
    tasks.register(app, world.place)
    daily = app.periodic_registry.periodic_tasks
    assert [(task.task.name, task.cron) for task in daily.values() if task.task.name == ghosts.FORGET_EXPIRED_TASK] == [
        (ghosts.FORGET_EXPIRED_TASK, ghosts.FORGET_EXPIRED_AT)
    ]
    dataset, _ = await with_ghosts(world, 1, ghosts="trash")
    async with world.connection() as conn:
        await conn.execute("UPDATE item SET trashed_at = '2020-01-01' WHERE trashed_at IS NOT NULL")
    await app.tasks[ghosts.FORGET_EXPIRED_TASK].func(timestamp=0)
    assert set(await world.index(dataset)) == {"/stays"}
