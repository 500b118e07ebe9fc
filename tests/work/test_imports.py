"""Imports: objects of the bucket become items, by the rules of a sync, and are the same items to the next one."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog import tombstones
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync.rules import SyncRules, save_rules
from headwater.errors import BadRequest, HeadwaterError, NotFound, QuotaExceeded
from headwater.work.imports import Imported, import_objects
from tests.work.quotas import give_to, make_organization
from tests.work.world import World, recount


async def imported(world: World, dataset: Dataset, *storage_ids: str) -> list[Any]:
    """(path, outcome) of each, or its error."""
    done = await import_objects(world.place, dataset, world.owner, storage_ids)
    async with world.connection() as conn:
        await recount(conn, dataset.id)
    return [(one.item.path, one.outcome) if isinstance(one, Imported) else type(one) for one in done]


def write(root: Path, key: str, content: bytes = b"text") -> None:
    file = root / key
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


async def test_an_import_is_idempotent_and_a_sync_after_it_finds_nothing_new(world: World) -> None:
    dataset, root = await world.local_dataset()
    write(root, "a/b/y.jpg")
    write(root, "z.txt")
    assert await imported(world, dataset, "a:b/y.jpg", "z.txt") == [("/a/b/y.jpg", "created"), ("/z.txt", "created")]
    assert await imported(world, dataset, "/a/b/y.jpg") == [("/a/b/y.jpg", "skip")]
    item = await world.item(dataset, "/a/b/y.jpg")
    assert item is not None
    assert item.creator == world.owner.email
    write(root, "a/b/y.jpg", b"longer than before")
    assert await imported(world, dataset, "a/b/y.jpg") == [("/a/b/y.jpg", "overwrite")]
    _, scan = await world.sync(dataset)
    assert (scan.created, scan.changed, scan.marked) == (0, 0, 0)
    assert [action for action, _ in await world.events(dataset)].count("Created") == 2


async def test_an_import_brings_back_what_was_deleted_here(world: World) -> None:
    dataset, root = await world.local_dataset(allow_delete=False)
    write(root, "y.jpg")
    await world.sync(dataset)
    await world.delete(dataset, "/y.jpg")
    await world.sync(dataset)
    assert await world.item(dataset, "/y.jpg") is None
    assert await imported(world, dataset, "y.jpg") == [("/y.jpg", "created")]
    async with world.connection() as conn:
        assert await tombstones.list_tombstones(conn, dataset.id) == []


async def test_what_waits_to_be_deleted_from_the_bucket_and_is_imported_stays(world: World) -> None:
    dataset, root = await world.local_dataset()
    write(root, "y.jpg")
    await world.sync(dataset)
    await world.delete(dataset, "/y.jpg")
    assert await imported(world, dataset, "y.jpg") == [("/y.jpg", "created")]
    await world.run_jobs(dataset)
    assert (root / "y.jpg").exists()
    _, scan = await world.sync(dataset)
    assert scan.marked == 0


async def test_a_ghost_whose_object_is_back_loses_its_flag(world: World) -> None:
    dataset, root = await world.local_dataset()
    for key in ("y.jpg", "other.txt"):
        write(root, key)
    await world.sync(dataset)
    content = (root / "y.jpg").read_bytes()
    (root / "y.jpg").unlink()
    await world.sync(dataset)
    write(root, "y.jpg", content)
    assert (await imported(world, dataset, "y.jpg"))[0][0] == "/y.jpg"
    item = await world.item(dataset, "/y.jpg")
    assert item is not None
    assert item.missing_since is None


async def test_each_that_cannot_be_imported_says_why(world: World) -> None:
    dataset, root = await world.local_dataset()
    for key in ("y.jpg", "left/out.tmp", ".dataloop/thumbnails/x.jpg", "../outside.txt"):
        write(root, key)
    async with world.connection() as conn:
        await save_rules(conn, dataset.id, SyncRules(exclude=("*.tmp",)))
    dataset = replace(dataset, sync_rules={"exclude": ["*.tmp"]})
    asked = ["y.jpg", "none.jpg", "other-bucket:y.jpg", "left/out.tmp", ".dataloop/thumbnails/x.jpg", "../outside.txt"]
    asked += ["a\0b", "x" * 1_200, "\ud800"]
    told = await imported(world, dataset, *asked)
    assert told[:2] == [("/y.jpg", "created"), NotFound]
    assert told[2] is NotFound, "an object of the same name in another bucket is another one"
    assert told[3:5] == [BadRequest, BadRequest]
    assert all(issubclass(one, HeadwaterError) and one.status < 500 for one in told[5:]), told[5:]
    assert set(await world.index(dataset)) == {"/y.jpg"}


async def test_own_storage_and_read_only_datasets_have_nothing_to_import_into(world: World) -> None:
    own, _ = await world.own_dataset()
    bucket, _ = await world.local_dataset()
    clone = replace(bucket, origin={"kind": "clone", "datasets": []})
    for dataset in (own, replace(bucket, readonly=True), clone):
        with pytest.raises(BadRequest, match="Dataset"):
            await import_objects(world.place, dataset, world.owner, ["y.jpg"])


async def test_many_import_the_same_at_once_and_beside_syncs_and_deletions(world: World) -> None:
    dataset, root = await world.local_dataset()
    names = [f"{number}.txt" for number in range(40)]
    for name in names:
        write(root, name)
    runs = [import_objects(world.place, dataset, world.owner, names) for _ in range(5)]
    *done, _ = await asyncio.gather(*runs, world.sync(dataset))
    assert all(isinstance(one, Imported) for each in done for one in each)
    found = await world.index(dataset)
    assert set(found) == {f"/{name}" for name in names}
    created = [action for action, _ in (await world.events(dataset)).elements()]
    assert created == ["Created"] * 40


async def test_a_real_bucket_with_a_folder(world: World, weed: Any) -> None:
    dataset, store = await world.s3_dataset(weed, prefix="in/")
    for key in ("in/a:b ä/y.jpg", "in/x/y.jpg", "in/in/z.txt", "outside.txt", "in_70/n.txt"):
        await store.put(key, b"text", content_type="text/plain")
    told = await imported(
        world, dataset, "in/a:b ä/y.jpg", "in/x/y.jpg", "in/in/z.txt", "outside.txt", "in_70/n.txt", "in/z.txt"
    )
    assert told[0] == ("/a:b ä/y.jpg", "created")
    assert told[1] == ("/x/y.jpg", "created")
    assert told[2] == ("/in/z.txt", "created")
    assert told[3:5] == [NotFound, NotFound]
    assert told[5] == ("/in/z.txt", "created"), "below the driver's folder; the same object is answered alike"
    _, scan = await world.sync(dataset)
    assert (scan.created, scan.changed, scan.marked) == (0, 0, 0)


async def test_as_many_are_imported_as_there_is_room_for(world: World) -> None:
    dataset, root = await world.local_dataset()
    for name in ("a.txt", "b.txt", "c.txt"):
        write(root, name)
    async with world.connection() as conn:
        await give_to(conn, await make_organization(conn, limit=2), dataset)
    told = await imported(world, dataset, "c.txt", "b.txt", "a.txt")
    assert told == [QuotaExceeded, ("/b.txt", "created"), ("/a.txt", "created")]
    assert await imported(world, dataset, "b.txt") == [("/b.txt", "skip")]
