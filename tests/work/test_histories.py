"""What a history leaves behind: the index against dicts, and the same history with every single call failing."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog.sync import rules
from headwater.work import deletion, sync
from tests.work.scripted import Crash, Fault, FaultyCursor, ScriptedStore
from tests.work.world import World, ghosts, present

BATCH_KEYS, PAGE_KEYS, BRAKE_ITEMS = 3, 2, 2
KEYS = ["a", "a/", "a/b", "a//b", "a/b/c", "/a", "ab", "a\x1fb", "é", "🦊"]
CONTENTS = [b"1", b"2", b"22"]
FAULTS = ["store", "statement", "commit lost", "commit unheard"]


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """Batches and the brake so small that a handful of keys reaches them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sync.batches, "BATCH_KEYS", BATCH_KEYS)
        patch.setattr(sync.lanes, "_ABORT_POLL_S", 3600)
        patch.setattr(rules, "BRAKE_ITEMS", BRAKE_ITEMS)
        yield


async def crash_and_go_on(world: World, faulty: World, store: ScriptedStore, scan_id: int, fault: Fault) -> None:
    """Run a scan that dies at one call; then, as another worker would, run it to its end."""
    FaultyCursor.fault = store.fault = fault
    try:
        await sync.run_scan(faulty.place, scan_id)
    except Crash:
        assert fault.has_fired
    finally:
        FaultyCursor.fault = store.fault = None
    await sync.run_scan(world.place, scan_id)


@dataclass
class Model:
    """The same rules over dicts: paths are keys here."""

    allow_delete: bool
    bucket: dict[str, bytes] = field(default_factory=dict)
    index: dict[str, bytes] = field(default_factory=dict)  # what the rows tell of
    missing: set[str] = field(default_factory=set)
    deleted: dict[str, bool] = field(default_factory=dict)  # here on purpose -> the object is gone as well
    meant: dict[str, bytes] = field(default_factory=dict)  # what the deleted row told of
    waiting: list[str] = field(default_factory=list)  # jobs of deletion
    told: Counter[tuple[str, str]] = field(default_factory=Counter)

    def delete(self, key: str) -> None:
        self.meant[key] = self.index.pop(key)
        self.missing.discard(key)
        self.deleted[key] = False
        self.waiting.append(key)

    def run_jobs(self) -> None:
        for key in self.waiting:
            if not self.allow_delete or self.deleted.get(key) is not False:
                continue
            if self.bucket.get(key, self.meant[key]) == self.meant[key]:
                self.bucket.pop(key, None)
                self.deleted[key] = True
            else:  # another object than the one that was deleted: the next sync finds it
                del self.deleted[key]
        self.waiting.clear()

    def upload(self, key: str, content: bytes, mode: str) -> str:
        is_known = key in self.index
        if mode == "skip" and is_known and key not in self.missing:
            return "skip"
        self.bucket[key] = self.index[key] = content
        self.missing.discard(key)
        self.deleted.pop(key, None)
        self.told["Updated" if is_known else "Created", key] += 1
        return "overwrite" if is_known else "created"

    def sync(self, *, confirm: bool) -> str:
        was_present = len(self.index) - len(self.missing)
        listed = {key: content for key, content in self.bucket.items() if key[-1:] != "/" or content}
        gone = {key for key in self.index if key not in listed and key not in self.missing}
        for key, content in listed.items():
            if key not in self.index:
                if self.deleted.get(key) is False:
                    continue
                self.told["Created", key] += 1
            elif self.index[key] != content:
                self.told["Updated", key] += 1
            self.index[key] = content
            self.missing.discard(key)
        self.deleted = {key: gone_too for key, gone_too in self.deleted.items() if not gone_too}
        is_held = gone and not confirm and (not listed or len(gone) > max(BRAKE_ITEMS, was_present // 10))
        if not is_held:
            self.missing |= gone
        return "held" if is_held else "done"


key = st.sampled_from(KEYS)
content = st.sampled_from(CONTENTS)
fault = st.none() | st.tuples(st.sampled_from(FAULTS), st.integers(1, 40))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), key, content),
        st.tuples(st.just("remove"), key),
        st.tuples(st.just("delete"), key),
        st.tuples(st.just("jobs")),
        st.tuples(st.just("upload"), key, content, st.sampled_from(["skip", "overwrite"])),
        st.tuples(st.just("sync"), fault, st.booleans()),
        st.tuples(st.just("sync"), fault, st.just(False)),
        st.tuples(st.just("torn sync"), fault, st.sampled_from(["put", "remove", "delete"]), key, content),
    ),
    min_size=4,
    max_size=16,
)


class History:
    """One dataset and its model, step by step."""

    def __init__(self, world: World, faulty: World, model: Model, store: ScriptedStore, dataset) -> None:
        self.world, self.faulty, self.model, self.store, self.dataset = world, faulty, model, store, dataset
        self.paths: dict[int, str] = {}  # of every item there ever was

    async def take(self, step: tuple) -> None:
        name, *rest = step
        await {
            "put": self.put,
            "remove": self.remove,
            "delete": self.delete,
            "jobs": self.jobs,
            "upload": self.upload,
            "sync": self.sync,
            "torn sync": self.torn_sync,
        }[name](*rest)

    async def put(self, key: str, content: bytes) -> None:
        self.model.bucket[key] = self.store.objects[key] = content

    async def remove(self, key: str) -> None:
        self.model.bucket.pop(key, None)
        self.store.objects.pop(key, None)

    async def delete(self, key: str) -> None:
        if key in self.model.index:
            self.model.delete(key)
            await self.world.delete(self.dataset, "/" + key)

    async def jobs(self) -> None:
        self.model.run_jobs()
        await self.world.run_jobs(self.dataset)

    async def upload(self, key: str, content: bytes, mode: str) -> None:
        if key in ("a/", "a//b", "/a", "a\x1fb"):
            return  # what nobody may upload
        expected = self.model.upload(key, content, mode)
        assert (await self.world.upload(self.dataset, "/" + key, content, mode=mode)).outcome == expected

    async def sync(self, fault: tuple[str, int] | None, confirm: bool) -> None:
        expected = self.model.sync(confirm=confirm)
        _, scan_id = await self.world.request(self.dataset, confirm=confirm)
        await crash_and_go_on(self.world, self.faulty, self.store, scan_id, Fault(*(fault or ("none", 0))))
        command, scan = await self.world.ended(self.dataset)
        assert (scan.state, command.status) == (expected, "success")
        assert (command.warning is not None) >= (expected == "held")

    async def torn_sync(self, fault: tuple[str, int] | None, change: str, key: str, content: bytes) -> None:
        """The bucket or the index changes between the crash and the next worker; whatever it makes of that, the next
        whole sync is exact.
        """
        _, scan_id = await self.world.request(self.dataset)
        before = ghosts(await self.world.index(self.dataset))
        FaultyCursor.fault = self.store.fault = Fault(*(fault or ("none", 0)))
        try:
            await sync.run_scan(self.faulty.place, scan_id)
        except Crash:
            pass
        finally:
            FaultyCursor.fault = self.store.fault = None
        await self._change(change, key, content)
        await sync.run_scan(self.world.place, scan_id)
        _, scan = await self.world.ended(self.dataset)
        assert len(ghosts(await self.world.index(self.dataset)) - before) <= max(BRAKE_ITEMS, scan.present // 10)
        await self.jobs()
        await self.world.sync(self.dataset, confirm=True)
        await self._read_back()
        assert self._wanted() == {key: self.model.index[key] for key in self.model.index.keys() - self.model.missing}

    async def _change(self, change: str, key: str, content: bytes) -> None:
        if change == "put":
            await self.put(key, content)
        elif change == "remove":
            await self.remove(key)
        elif (item := await self.world.item(self.dataset, "/" + key)) is not None:
            etags = {self.store.etag_of_content(content): content for content in CONTENTS}
            self.model.index[key] = etags[item.etag]
            self.model.delete(key)
            await self.world.delete(self.dataset, item.path)

    def _wanted(self) -> dict[str, bytes]:
        """After quiescence: the bucket, without folder markers and what was deleted here."""
        deleted = {key for key, is_gone in self.model.deleted.items() if not is_gone}
        return {key: content for key, content in self.model.bucket.items() if key not in deleted}

    async def _read_back(self) -> None:
        """Take the index, and what was told, as they are: the model knows no half syncs."""
        found = await self.world.index(self.dataset)
        etags = {self.store.etag_of_content(content): content for content in CONTENTS}
        self.model.index = {path[1:]: etags[etag] for path, (etag, _, _) in found.items()}
        self.model.missing = {path[1:] for path in ghosts(found)}
        self.model.deleted = {key: gone for key, gone in self.model.deleted.items() if not gone}
        await self._remember()
        told = await self._told()
        # Each item was told to be created exactly once, however often the scan died.
        created = Counter(item_id for action, item_id in await self.world.events(self.dataset) if action == "Created")
        assert set(created.values()) <= {1}
        self.model.told = told

    async def _remember(self) -> None:
        async with self.world.connection() as conn:
            cursor = await conn.execute("SELECT id, path FROM item WHERE dataset_id = %s", [self.dataset.id])
            self.paths |= dict(await cursor.fetchall())

    async def _told(self) -> Counter[tuple[str, str]]:
        told: Counter[tuple[str, str]] = Counter()
        for (action, item_id), times in (await self.world.events(self.dataset)).items():
            told[action, self.paths.get(item_id, "/?")[1:]] += times
        return told

    async def check(self) -> None:
        found = await self.world.index(self.dataset)
        model = self.model
        assert {path[1:]: etag for path, (etag, _, _) in found.items()} == {
            key: self.store.etag_of_content(content) for key, content in model.index.items()
        }
        assert {path[1:] for path in ghosts(found)} == model.missing
        assert self.store.objects == model.bucket
        await self._remember()
        assert await self._told() == model.told


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(history=steps, allow_delete=st.booleans())
async def test_histories(world: World, faulty: World, history, allow_delete):
    store = ScriptedStore(page_keys=PAGE_KEYS)
    dataset = await world.dataset(store, allow_delete=allow_delete)
    run = History(world, faulty, Model(allow_delete), store, dataset)
    for step in history:
        await run.take(step)
        await run.check()
    await run.jobs()
    await run.sync(None, confirm=True)
    await run.check()
    kept = {key: content for key, content in run.model.index.items() if key not in run.model.missing}
    assert kept == run._wanted()


@dataclass
class Scene:
    """A bucket that changed in every way since it was synced last, and what must come of it."""

    is_ordered: bool = True
    before: dict[str, bytes] = field(
        default_factory=lambda: {
            "a": b"1",
            "a//b": b"1",
            "a/b": b"1",
            "b": b"1",
            "c": b"1",
            "d": b"1",
            "e": b"1",
            "f": b"1",
        }
    )
    after: dict[str, bytes] = field(
        default_factory=lambda: {
            "a": b"2",
            "a//b": b"1",
            "b": b"1",
            "c": b"2",
            "d": b"1",
            "e": b"1",
            "g": b"1",
            "🦊": b"1",
        }
    )

    async def build(self, world: World):
        store = ScriptedStore(dict(self.before), page_keys=PAGE_KEYS)
        dataset = await world.dataset(store)
        await world.sync(dataset)
        store.objects.pop("e")
        await world.sync(dataset)  # "e" is a ghost
        await world.delete(dataset, "/d")  # and its object stays
        store.objects = dict(self.after)
        if not self.is_ordered:
            store.order = lambda keys: sorted(keys, reverse=True)
        async with world.connection() as conn:
            await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
        return dataset, store

    async def check(self, world: World, dataset, store: ScriptedStore) -> None:
        found = await world.index(dataset)
        assert present(found) == {"/" + key for key in self.after if key != "d"}
        assert ghosts(found) == {"/a/b", "/f"}
        ids = {path: (await world.item(dataset, path)).id for path in ("/a", "/c", "/g", "/🦊")}
        assert await world.events(dataset) == Counter(
            {
                ("Updated", ids["/a"]): 1,
                ("Updated", ids["/c"]): 1,
                ("Created", ids["/g"]): 1,
                ("Created", ids["/🦊"]): 1,
            }
        )
        command, scan = await world.ended(dataset)
        assert (command.status, scan.state) == ("success", "done")
        assert (scan.listed, scan.created, scan.changed, scan.returned) == (8, 2, 2, 1)
        assert (scan.kept_deleted, scan.gone, scan.marked) == (1, 2, 2)
        assert store.objects == self.after
        async with world.connection() as conn:
            for table in ("scan_candidate", "scan_stage"):
                cursor = await conn.execute(f"SELECT count(*) FROM {table} WHERE scan_id = %s", [scan.id])
                assert await cursor.fetchone() == (0,)


@pytest.mark.parametrize("is_ordered", [True, False], ids=["in order", "out of order"])
@pytest.mark.parametrize("kind", FAULTS)
async def test_a_sync_that_dies_at_any_call_ends_as_if_it_had_not(world, faulty, kind, is_ordered):
    scene = Scene(is_ordered)
    for nth in range(1, 500):
        dataset, store = await scene.build(world)
        _, scan_id = await world.request(dataset)
        fault = Fault(kind, nth)
        await crash_and_go_on(world, faulty, store, scan_id, fault)
        await scene.check(world, dataset, store)
        if not fault.has_fired:
            break
    assert nth > 4


async def test_a_sync_that_dies_again_and_again_comes_to_its_end(world, faulty):
    scene = Scene()
    dataset, store = await scene.build(world)
    _, scan_id = await world.request(dataset)
    deaths = 0
    while (await world.ended(dataset))[1].state == "running":
        # Each worker gets a little further than a batch before it dies.
        FaultyCursor.fault = Fault("commit lost", 12)
        try:
            await sync.run_scan(faulty.place, scan_id)
        except Crash:
            deaths += 1
        finally:
            FaultyCursor.fault = None
        assert deaths < 50
    await scene.check(world, dataset, store)


@pytest.mark.parametrize("kind", ["statement", "commit lost", "commit unheard", "store"])
async def test_a_deletion_that_dies_at_any_call_is_finished_by_the_next_try(world, faulty, kind):
    for nth in range(1, 100):
        store = ScriptedStore({"a": b"1", "b": b"1"}, page_keys=PAGE_KEYS)
        dataset = await world.dataset(store)
        await world.sync(dataset)
        await world.delete(dataset, "/a")
        thumbnail = f".dataloop/thumbnails/{2**60:024x}.webp"
        given = {"dataset_id": dataset.id, "path": "/a", "object_key": None, "thumbnail": thumbnail}
        given |= {"delete_object": True}
        FaultyCursor.fault = store.fault = fault = Fault(kind, nth)
        try:
            await deletion.delete_object(faulty.place, **given)
        except Crash:
            pass
        finally:
            FaultyCursor.fault = store.fault = None
        await deletion.delete_object(world.place, **given)
        assert set(store.objects) == {"b"}
        await world.sync(dataset)
        assert set(await world.index(dataset)) == {"/b"}
        if not fault.has_fired:
            break
    assert nth > 1


async def test_syncs_uploads_and_deletions_side_by_side_end_with_the_bucket(world):
    store = ScriptedStore({f"{n:02}": b"1" for n in range(20)}, page_keys=PAGE_KEYS)
    dataset = await world.dataset(store)
    await world.sync(dataset)

    async def take_turns(_: int) -> None:
        await asyncio.sleep(0)

    async def upload_and_delete(n: int) -> None:
        await world.upload(dataset, f"/{n:02}", b"22")
        await world.upload(dataset, f"/new {n}", b"1")
        await world.delete(dataset, f"/{n + 10:02}")
        await world.run_jobs(dataset)

    store.on_page = take_turns
    for key in ("00", "01"):
        store.objects[key] = b"2"
    await asyncio.gather(world.sync(dataset), *(upload_and_delete(n) for n in range(8)))
    await world.index(dataset)
    _, scan = await world.sync(dataset)
    found = await world.index(dataset)
    assert present(found) == {"/" + key for key in store.objects}
    assert ghosts(found) == set()
    assert {path: etag for path, (etag, _, _) in found.items()} == {"/" + k: store.etag_of(k) for k in store.objects}
    assert scan.gone == 0
