"""Sidecars: name.ext.json gives name.ext its user metadata, in any order of arrival, and a person's edit wins."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog import bulk_metadata, items
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync import changes
from headwater.catalog.sync.changes import Looked, apply_looked
from headwater.catalog.sync.rules import SyncRules, load_rules, save_rules
from headwater.storage.stores import ObjectReader
from headwater.work import sidecars
from tests.work.scripted import ScriptedStore
from tests.work.test_verify import differences
from tests.work.world import World, recount, somebody_waits_for


async def switch(world: World, dataset: Dataset, *, on: bool, **rules: Any) -> None:
    """As the route does it, and the job that follows."""
    async with world.connection() as conn:
        before = await load_rules(conn, dataset.id)
        await save_rules(conn, dataset.id, replace(before, sidecars=on, **rules))
    await sidecars.mark_sidecars(world.place, dataset.id)


async def with_sidecars(world: World) -> tuple[Dataset, Path]:
    dataset, root = await world.local_dataset()
    await switch(world, dataset, on=True)
    return dataset, root


def write(root: Path, name: str, content: Any) -> None:
    """Newer than all that was written before."""
    file = root / name
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    now_ns = time.time_ns()
    os.utime(file, ns=(now_ns, now_ns))


async def settled(world: World, dataset: Dataset) -> None:
    """A sync, and what follows each of its events."""
    await world.sync(dataset)
    await world.preprocess(dataset)
    async with world.connection() as conn:
        await recount(conn, dataset.id)


async def user_metadata(world: World, dataset: Dataset, path: str) -> Any:
    item = await world.item(dataset, path)
    assert item is not None
    return item.user_metadata


async def edit(world: World, dataset: Dataset, path: str, patch: dict[str, Any]) -> None:
    item = await world.item(dataset, path)
    assert item is not None
    async with world.connection() as conn:
        await bulk_metadata.patch_items(
            conn, dataset.id, [item.id], user=patch, system={}, updated_by_id=world.owner.id
        )


@pytest.mark.parametrize("order", [["a.jpg", "a.jpg.json"], ["a.jpg.json", "a.jpg"]])
async def test_either_may_come_first(world: World, order: list[str]) -> None:
    dataset, root = await with_sidecars(world)
    for name in order:
        write(root, name, {"camera": {"id": 3}} if name.endswith(".json") else b"no picture")
        await world.sync(dataset)
        await world.preprocess(dataset, [f"/{name}"])  # the other one has no event
    assert await user_metadata(world, dataset, "/a.jpg") == {"camera": {"id": 3}}
    sidecar = await world.item(dataset, "/a.jpg.json")
    assert sidecar is not None
    assert sidecar.hidden
    assert sidecar.user_metadata is None
    assert sidecar.system_metadata == {"etl": {"state": "done", "sidecarOf": "/a.jpg"}}


async def test_without_the_rule_it_is_an_item_like_others(world: World) -> None:
    dataset, root = await world.local_dataset()
    write(root, "a.jpg", b"no picture")
    write(root, "a.jpg.json", {"camera": 3})
    await settled(world, dataset)
    assert await user_metadata(world, dataset, "/a.jpg") is None
    sidecar = await world.item(dataset, "/a.jpg.json")
    assert sidecar is not None
    assert not sidecar.hidden


async def test_a_change_adds_replaces_and_takes_back(world: World) -> None:
    dataset, root = await with_sidecars(world)
    write(root, "a.jpg", b"no picture")
    write(root, "a.jpg.json", {"camera": 3, "old": {"x": 1, "y": 2}, "gone": 1})
    await settled(world, dataset)
    write(root, "a.jpg.json", {"camera": 4, "old": {"y": 2}, "new": None})
    await settled(world, dataset)
    assert await user_metadata(world, dataset, "/a.jpg") == {"camera": 4, "old": {"y": 2}}


async def test_a_later_edit_of_a_person_wins_and_a_later_sidecar_speaks_again(world: World) -> None:
    dataset, root = await with_sidecars(world)
    write(root, "a.jpg", b"no picture")
    write(root, "a.jpg.json", {"camera": 3, "night": True})
    await settled(world, dataset)
    await edit(world, dataset, "/a.jpg", {"camera": 5, "mine": 1})
    older = (root / "a.jpg.json").stat().st_mtime_ns
    write(root, "a.jpg.json", {"camera": 44})
    os.utime(root / "a.jpg.json", ns=(older, older))
    await settled(world, dataset)
    assert await user_metadata(world, dataset, "/a.jpg") == {"camera": 5, "mine": 1, "night": True}
    write(root, "a.jpg.json", {"camera": 6})
    await settled(world, dataset)
    assert await user_metadata(world, dataset, "/a.jpg") == {"camera": 6, "mine": 1}


async def test_a_sidecar_that_goes_takes_nothing_along(world: World) -> None:
    dataset, root = await with_sidecars(world)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write(root, name, b"no picture")
    write(root, "a.jpg.json", {"camera": 3})
    await settled(world, dataset)
    (root / "a.jpg.json").unlink()
    await settled(world, dataset)
    assert await user_metadata(world, dataset, "/a.jpg") == {"camera": 3}
    write(root, "a.jpg.json", {"other": 1})
    await settled(world, dataset)
    assert await user_metadata(world, dataset, "/a.jpg") == {"other": 1}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"{", "not JSON"),
        (b"[1]", "no JSON object"),
        (b"\xff\xfe{", "not UTF-8"),
        (b"", "empty"),
        (b'{"a": NaN}', "does not know"),
        (b'{"a": "\\u0000"}', "NUL"),
        (b'{"a": "\\ud800"}', "does not know"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested more than"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": "' + b"x" * 1_000_000 + b'"}', "1,000,000"),
    ],
    ids=str,
)
async def test_one_that_cannot_be_read_says_so_on_its_own_item(world: World, content: bytes, told: str) -> None:
    dataset, root = await with_sidecars(world)
    write(root, "a.jpg", b"no picture")
    write(root, "a.jpg.json", {"camera": 3})
    await settled(world, dataset)
    write(root, "a.jpg.json", content)
    write(root, "b.txt", b"its neighbour")
    await settled(world, dataset)
    sidecar, neighbour = await world.item(dataset, "/a.jpg.json"), await world.item(dataset, "/b.txt")
    assert sidecar is not None
    assert neighbour is not None
    assert sidecar.etl_state == items.ETL_FAILED
    assert sidecar.system_metadata["etl"]["reason"] == "sidecar-unreadable"
    assert told in sidecar.system_metadata["etl"]["message"]
    assert neighbour.etl_state == items.ETL_DONE
    assert await user_metadata(world, dataset, "/a.jpg") == {"camera": 3}, "what it gave before stays"


async def test_switching_hides_and_shows_what_is_there_already(world: World) -> None:
    dataset, root = await world.local_dataset()
    for name in ("a.jpg", "deep.json", "b/7.7z"):
        (root / name).parent.mkdir(exist_ok=True)
        write(root, name, b"text")
    write(root, "a.jpg.json", {"camera": 3})
    write(root, "b/7.7z.json", {"camera": 7})
    write(root, "b/2024.01.json", {"no": "sidecar"})
    await settled(world, dataset)
    await switch(world, dataset, on=True)
    async with world.connection() as conn:
        await recount(conn, dataset.id)
        cursor = await conn.execute(
            "SELECT path FROM item WHERE dataset_id = %s AND hidden ORDER BY path", [dataset.id]
        )
        assert await cursor.fetchall() == [("/a.jpg.json",), ("/b/7.7z.json",)]
    await world.preprocess(dataset)
    assert await user_metadata(world, dataset, "/b/7.7z") == {"camera": 7}
    await switch(world, dataset, on=False)
    async with world.connection() as conn:
        await recount(conn, dataset.id)
    sidecar = await world.item(dataset, "/a.jpg.json")
    assert sidecar is not None
    assert not sidecar.hidden
    assert await user_metadata(world, dataset, "/a.jpg") == {"camera": 3}, "what it gave stays"


async def test_in_the_trash_a_sidecar_is_counted_once(world: World) -> None:
    dataset, root = await world.local_dataset()
    await switch(world, dataset, on=True, ghosts="trash")
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write(root, name, b"text")
    write(root, "a.jpg.json", {"camera": 3})
    await settled(world, dataset)
    for name in ("a.jpg", "a.jpg.json"):
        (root / name).unlink()
    await settled(world, dataset)
    async with world.connection() as conn:
        cursor = await conn.execute(
            """
            SELECT items - hidden_items - trashed_items,
                (SELECT count(*) FROM item WHERE dataset_id = %(id)s AND NOT hidden AND trashed_at IS NULL)
            FROM dataset_counter WHERE dataset_id = %(id)s
            """,
            {"id": dataset.id},
        )
        counted, shown = await cursor.fetchone()
        assert counted == shown == 2


async def test_events_of_the_bucket_bring_them_as_a_sync_does(world: World) -> None:
    dataset, root = await with_sidecars(world)
    write(root, "a.jpg", b"no picture")
    await settled(world, dataset)
    write(root, "a.jpg.json", {"camera": 3})
    async with world.connection() as conn:
        (now,) = await (await conn.execute("SELECT clock_timestamp()")).fetchone()
    async with world.place.places.of_dataset(dataset.id) as store:
        info = await store.head("a.jpg.json")
    found = changes.listed(["/a.jpg.json"], [info.size_bytes], [info.etag], [info.modified_at.isoformat()])
    async with world.connection() as conn:
        await apply_looked(conn, Looked(dataset.id, now, found, gone=[]), SyncRules(sidecars=True))
        await recount(conn, dataset.id)
    await world.preprocess(dataset, ["/a.jpg.json"])
    assert await user_metadata(world, dataset, "/a.jpg") == {"camera": 3}


async def test_an_uploaded_sidecar_is_hidden_once_it_is_read_and_stays_so(world: World) -> None:
    dataset, root = await with_sidecars(world)
    write(root, "a.jpg", b"no picture")
    await settled(world, dataset)
    for number in (1, 2):
        await world.upload(dataset, "/a.jpg.json", json.dumps({"camera": number}).encode())
        await world.preprocess(dataset)
        async with world.connection() as conn:
            await recount(conn, dataset.id)
        sidecar = await world.item(dataset, "/a.jpg.json")
        assert sidecar is not None
        assert sidecar.hidden
        assert await user_metadata(world, dataset, "/a.jpg") == {"camera": number}


async def test_a_verification_knows_them(world: World) -> None:
    dataset, root = await with_sidecars(world)
    write(root, "a.jpg", b"text")
    write(root, "a.jpg.json", {"camera": 3})
    await settled(world, dataset)
    async with world.connection() as conn:
        await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    assert await differences(world, dataset) == {}
    write(root, "b.jpg.json", {"camera": 4})
    assert await differences(world, dataset) == {"notIndexed": ["/b.jpg.json"]}


async def test_metadata_that_comes_with_an_upload_is_an_edit_of_a_person(world: World) -> None:
    dataset, root = await with_sidecars(world)
    write(root, "a.txt.json", {"camera": 3, "night": True})
    await settled(world, dataset)
    await world.upload(dataset, "/a.txt", b"text", user_metadata={"camera": 5})
    await settled(world, dataset)
    assert await user_metadata(world, dataset, "/a.txt") == {"camera": 5}
    write(root, "a.txt.json", {"night": False})
    await settled(world, dataset)
    await world.upload(dataset, "/a.txt", b"other text")
    await settled(world, dataset)
    assert await user_metadata(world, dataset, "/a.txt") == {"camera": 5, "night": False}


class _Meeting(ScriptedStore):
    """Answers no read before so many are asked for."""

    def __init__(self, objects: dict[str, bytes], together: int) -> None:
        super().__init__(objects)
        self.barrier = asyncio.Barrier(together)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncIterator[ObjectReader]:
        if key.endswith(".json"):
            await asyncio.wait_for(self.barrier.wait(), 30)
        async with super().get(key, start=start, end=end) as reader:
            yield reader


async def test_many_are_read_at_once(world: World) -> None:
    """One behind the other, a million in a far bucket would take a day."""
    names = [f"{number}.txt" for number in range(16)]
    objects = dict.fromkeys(names, b"text") | {f"{name}.json": b'{"a": 1}' for name in names}
    dataset = await world.dataset(_Meeting(objects, together=16))
    await switch(world, dataset, on=True)
    await settled(world, dataset)
    assert [await user_metadata(world, dataset, f"/{name}") for name in names] == [{"a": 1}] * 16


@pytest.mark.parametrize("held", ["/1.txt.json", "/2.txt"])
async def test_who_waits_for_a_row_holds_no_later_one_and_not_the_counter(world: World, held: str) -> None:
    """Bulk updates lock rows in the order of ids, and uploads the counter after their rows."""
    dataset, root = await with_sidecars(world)
    for number in (1, 2):
        write(root, f"{number}.txt", b"text")
    await settled(world, dataset)
    await world.upload(dataset, "/1.txt.json", b"no JSON")
    await world.upload(dataset, "/2.txt.json", b'{"a": 1}')
    async with world.connection() as conn:
        await conn.execute("SELECT FROM item WHERE dataset_id = %s AND path = %s FOR UPDATE", [dataset.id, held])
        reading = asyncio.create_task(world.preprocess(dataset))
        await somebody_waits_for(world, conn)
        await conn.execute("SELECT FROM item WHERE dataset_id = %s FOR UPDATE NOWAIT", [dataset.id])
        await conn.execute("SELECT FROM dataset_counter WHERE dataset_id = %s FOR UPDATE NOWAIT", [dataset.id])
    await reading
    assert await user_metadata(world, dataset, "/2.txt") == {"a": 1}
