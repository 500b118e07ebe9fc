"""Random histories of uploads, clones, merges, deletions and purges in our own storage.

At every moment each item streams the bytes that it was given, and its thumbnail is of these bytes; once all jobs have
run, no object and no thumbnail is left that no item names.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.errors import ForeignKeyViolation

from headwater.catalog import items, preparing
from headwater.catalog.datasets import Dataset
from headwater.catalog.preparing import PreparedItem
from headwater.errors import HeadwaterError
from headwater.work import cloning, deletion, moving
from headwater.work.cloning import Options
from headwater.work.preprocess import thumbnail_key
from tests.work.test_cloning import clone, contents, purge, target_for
from tests.work.world import World

_PATHS = st.sampled_from(["/a.jpg", "/b.jpg", "/f/a.jpg", "/f/a (2).jpg"])
_WHICH = st.integers(0, 3)  # of the datasets that there are then
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upload"), _WHICH, _PATHS),
        st.tuples(st.just("upload"), _WHICH, _PATHS),
        st.tuples(st.just("prepare"), _WHICH),
        st.tuples(st.just("clone"), _WHICH, st.sampled_from(["", "/f"])),
        st.tuples(st.just("clone into"), _WHICH, _WHICH, st.sampled_from(["", "/f"])),
        st.tuples(st.just("clone one"), _WHICH, _PATHS, _WHICH, _PATHS),
        st.tuples(st.just("merge"), _WHICH, _WHICH),
        st.tuples(st.just("delete"), _WHICH, _PATHS),
        st.tuples(st.just("purge"), _WHICH),
        st.tuples(st.just("jobs")),
    ),
    max_size=14,
)


@dataclass
class History:
    world: World
    made: list[Dataset] = field(default_factory=list[Dataset])  # ever
    alive: list[Dataset] = field(default_factory=list[Dataset])
    expected: dict[int, dict[str, bytes]] = field(default_factory=dict[int, dict[str, bytes]])
    uploads: int = 0

    def add(self, dataset: Dataset) -> None:
        self.made.append(dataset)
        self.alive.append(dataset)
        self.expected[dataset.id] = {}

    async def step(self, name: str, *given: Any) -> None:
        given = tuple(self.alive[one % len(self.alive)] if isinstance(one, int) else one for one in given)
        await getattr(self, name.replace(" ", "_"))(*given)

    async def upload(self, dataset: Dataset, path: str) -> None:
        self.uploads += 1
        body = f"{self.uploads}".encode()
        await self.world.upload(dataset, path, body)
        self.expected[dataset.id][path] = body

    async def prepare(self, dataset: Dataset) -> None:
        """As preprocessing does it: the thumbnail is there before its row."""
        for path, body in self.expected[dataset.id].items():
            item = await self.world.item(dataset, path)
            assert item is not None
            if item.etl_state != items.ETL_WAITING:
                continue
            async with self.world.place.places.of_thumbnail(item) as store:
                key = thumbnail_key(item.thumbnail_number, "image/jpeg")
                await store.put(key, b"thumbnail of " + body, content_type="image/jpeg")
            found = PreparedItem(
                item_id=item.id,
                etag=item.etag,
                etl_state=items.ETL_DONE,
                etl={"state": "done"},
                mime_type="image/jpeg",
                thumbnail_type="image/jpeg",
            )
            async with self.world.connection() as conn:
                assert await preparing.save_prepared(conn, dataset.id, [found]) == 1

    async def clone(self, source: Dataset, folder: str) -> None:
        target = await target_for(self.world, source)
        self.add(target)
        await self.clone_into(source, target, folder)

    async def clone_into(self, source: Dataset, target: Dataset, folder: str) -> None:
        await clone(self.world, source, into=target, folder=folder)
        await self.learn(target, self.expected[source.id].values())

    async def merge(self, first: Dataset, second: Dataset) -> None:
        target = await target_for(self.world, first)
        self.add(target)
        await clone(self.world, first, second, into=target)
        await self.learn(target, [*self.expected[first.id].values(), *self.expected[second.id].values()])

    async def clone_one(self, source: Dataset, path: str, target: Dataset, new_path: str) -> None:
        item = await self.world.item(source, path)
        if item is None:
            return
        async with self.world.connection() as conn:
            await cloning.clone_item(
                conn, self.world.owner, item, source, target, new_path, Options(), may_be_another=True
            )
        await self.learn(target, [self.expected[source.id][path]])

    async def learn(self, target: Dataset, bodies: Any) -> None:
        """What was there is as it was, and each of these bodies is there at some path."""
        found = await contents(self.world, target)
        before = self.expected[target.id]
        assert before.items() <= found.items()
        assert set(bodies) <= set(found.values())
        assert set(found.values()) <= {*before.values(), *bodies}
        self.expected[target.id] = found

    async def delete(self, dataset: Dataset, path: str) -> None:
        if path in self.expected[dataset.id]:
            await self.world.delete(dataset, path)
            del self.expected[dataset.id][path]

    async def purge(self, dataset: Dataset) -> None:
        await purge(self.world, dataset)
        del self.expected[dataset.id]
        self.alive.remove(dataset)
        if not self.alive:
            source, _ = await self.world.own_dataset()
            self.add(source)

    async def jobs(self) -> None:
        for dataset in self.made:
            await self.world.run_jobs(dataset)

    async def check(self) -> None:
        for dataset in self.alive:
            assert await contents(self.world, dataset) == self.expected[dataset.id]
            for path, body in self.expected[dataset.id].items():
                item = await self.world.item(dataset, path)
                assert item is not None
                if item.thumbnail_type is None:
                    continue
                async with (
                    self.world.place.places.of_thumbnail(item) as store,
                    store.get(thumbnail_key(item.thumbnail_number, item.thumbnail_type)) as reader,
                ):
                    assert b"".join([chunk async for chunk in reader]) == b"thumbnail of " + body

    async def check_nothing_is_left_over(self) -> None:
        """Objects and thumbnails of the storage are those that items name."""
        await self.jobs()
        named = set()
        for dataset in self.alive:
            for path in self.expected[dataset.id]:
                item = await self.world.item(dataset, path)
                assert item is not None
                origin_id = item.origin_dataset_id or dataset.id
                named.add((origin_id, item.key))
                if item.thumbnail_type is not None:
                    named.add((origin_id, thumbnail_key(item.thumbnail_number, item.thumbnail_type)))
        assert self.stored() == named

    def stored(self) -> set[tuple[int, str]]:
        found = set()
        for dataset in self.made:
            folder = self.world.place.places._settings.data_dir / "storage" / f"{dataset.id:024x}"
            found |= {(dataset.id, str(file.relative_to(folder))) for file in folder.rglob("*") if file.is_file()}
        return found


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
async def test_shared_objects_go_with_the_last_that_names_them(world, monkeypatch, steps):
    monkeypatch.setattr(cloning, "_PIECE_ITEMS", 2)
    monkeypatch.setattr(deletion, "_PURGE_ROWS", 2)
    history = History(world)
    source, _ = await world.own_dataset()
    history.add(source)
    for step in steps:
        await history.step(*step)
        await history.check()
    await history.check_nothing_is_left_over()
    while history.expected:
        await history.purge(history.alive[0])
        if not history.expected[history.alive[0].id]:
            break
        await history.check()
    for dataset in list(history.alive):
        await purge(world, dataset)
    history.alive.clear()
    history.expected.clear()
    await history.check_nothing_is_left_over()


@pytest.mark.parametrize("seed", range(3))
async def test_side_by_side_nothing_is_lost_or_left_and_nobody_waits_for_ever(world, monkeypatch, seed):
    """Uploads, clones, moves, deletions, purges and their jobs by several at once; a deadlock is an error here."""
    monkeypatch.setattr(cloning, "_PIECE_ITEMS", 3)
    monkeypatch.setattr(moving, "_PIECE_ITEMS", 3)
    monkeypatch.setattr(deletion, "_PURGE_ROWS", 3)
    history, chance = History(world), Random(seed)
    for _ in range(4):
        source, _folder = await world.own_dataset()
        history.add(source)
        for n in range(4):
            await upload_known(history, source, f"/f/{n}")
    await asyncio.gather(*(act(history, Random(chance.random())) for _ in range(5)))
    await history.jobs()
    named = set()
    for dataset in history.alive:
        for path, body in (await contents(world, dataset)).items():
            item = await world.item(dataset, path)
            assert item is not None
            assert body.decode() == (item.user_metadata or {})["body"]
            named.add((item.origin_dataset_id or dataset.id, item.key))
        await world.index(dataset)  # its counters are right
    assert history.stored() == named


async def act(history: History, chance: Random) -> None:
    for _ in range(14):
        source, target = chance.choice(history.alive), chance.choice(history.alive)
        with suppress(HeadwaterError, ForeignKeyViolation):  # somebody has purged it, or took the name
            await chance.choice([act_upload, act_clone, act_clone_one, act_move, act_delete, act_purge])(
                history, chance, source, target
            )
        await history.world.run_jobs(source)


async def upload_known(history: History, dataset: Dataset, path: str) -> None:
    """Its metadata goes with it wherever it goes, and tells what it streams."""
    history.uploads += 1
    body = f"{history.uploads}"
    await history.world.upload(dataset, path, body.encode(), user_metadata={"body": body})


async def act_upload(history: History, chance: Random, source: Dataset, _: Dataset) -> None:
    for _again in range(3):
        await upload_known(history, source, f"/{chance.choice('fg')}/{chance.randrange(6)}")


async def act_clone(history: History, chance: Random, source: Dataset, target: Dataset) -> None:
    await clone(history.world, source, into=target, folder=chance.choice(["", "/g"]))


async def act_clone_one(history: History, chance: Random, source: Dataset, target: Dataset) -> None:
    item = await history.world.item(source, f"/f/{chance.randrange(6)}")
    if item is not None:
        async with history.world.connection() as conn:
            await cloning.clone_item(
                conn, history.world.owner, item, source, target, "/f/1", Options(), may_be_another=True
            )


async def act_move(history: History, chance: Random, source: Dataset, _: Dataset) -> None:
    folder, to = chance.sample(["/f", "/g", "/g/h"], 2)
    if folder == "/g":
        to = "/f"
    world = history.world
    async with world.connection() as conn:
        job = await moving.request_move(conn, source, {"folder": folder}, to, caller_id=world.owner.id)
    await moving.move_items(world.place, **job)


async def act_delete(history: History, chance: Random, source: Dataset, _: Dataset) -> None:
    world = history.world
    paths = [f"/{folder}/{n}" for folder in "fg" for n in chance.sample(range(6), 3)]
    async with world.connection() as conn:
        found = await items.find_items_at(conn, source.id, paths)
        await deletion._delete_rows(conn, source.id, [(item.id, item.path) for item in found.values()])


async def act_purge(history: History, chance: Random, source: Dataset, _: Dataset) -> None:
    if len(history.alive) > 3 and source in history.alive:
        history.alive.remove(source)
        history.add((await history.world.own_dataset())[0])
        await purge(history.world, source)
