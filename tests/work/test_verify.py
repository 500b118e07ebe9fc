"""Verifying: every kind of difference is found, none is made up, and a repair removes nothing."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest

from headwater.catalog import commands, datasets, quotas, tombstones
from headwater.errors import Conflict, StoreDenied, Unavailable
from headwater.work import verify
from tests.work.quotas import give_to, make_organization
from tests.work.scripted import ScriptedStore
from tests.work.world import World, ghosts

OLD = "2020-01-01T00:00:00+00:00"


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Batches of few keys, so that a handful of objects has seams."""
    monkeypatch.setattr("headwater.work.sync.batches.BATCH_KEYS", 4)
    monkeypatch.setattr(verify, "_BATCH_KEYS", 4)


async def verified(world: World, dataset, *, repair: bool = False, is_last_try: bool = True):
    async with world.connection() as conn:
        dataset = await datasets.get_dataset(conn, world.owner, dataset.id)
        command_id = await verify.request_verify(conn, dataset, caller_id=world.owner.id, repair=repair)
    await verify.verify_dataset(world.place, command_id, is_last_try=is_last_try)
    async with world.connection() as conn:
        return await commands.load_command(conn, command_id)


async def differences(world: World, dataset, **given) -> dict[str, list[str]]:
    command = await verified(world, dataset, **given)
    assert (command.status, command.error) == ("success", None)
    told = command.spec["verify"]
    found = {name: sorted(examples) for name, examples in told["examples"].items()}
    assert {name: len(examples) for name, examples in found.items()} == {n: c for n, c in told["counts"].items() if c}
    assert told["clean"] == (not found) == (command.warning is None)
    return found


async def settled(world: World, dataset) -> None:
    """As after preprocessing: nothing waits."""
    async with world.connection() as conn:
        await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
        cursor = await conn.execute(
            "UPDATE item SET etl_state = 1 WHERE dataset_id = %s AND etl_state = 0 AND NOT hidden", [dataset.id]
        )
        await conn.execute(
            "UPDATE dataset_counter SET prepared_items = prepared_items + %s WHERE dataset_id = %s",
            [cursor.rowcount, dataset.id],
        )


async def made(world: World, store: ScriptedStore, **given):
    dataset = await world.dataset(store, **given)
    await world.sync(dataset)
    await settled(world, dataset)
    return dataset


def shuffled(keys) -> list[str]:
    return sorted(keys, key=lambda key: (len(key), key[::-1]))


def bucket() -> dict[str, bytes]:
    return {f"{where}{n}": b"x" for where in ("", "a/", "a b", "é/") for n in range(6)}


@pytest.mark.parametrize("order", ["in order", "out of order"])
@pytest.mark.parametrize("repair", [False, True])
async def test_every_difference_is_found_and_a_repair_only_adds(world, order, repair):
    store = ScriptedStore(bucket() | {"folder/": b"", ".dataloop/x": b"1"})
    dataset = await made(world, store)
    store.objects.pop("3")
    await world.sync(dataset)  # a ghost
    await world.delete(dataset, "/a/5")  # whose object is still to go
    store.objects |= {"3": b"x", "new": b"1", "a/new": b"2", "0": b"changed", ".dataloop/y": b"1", "marker/": b""}
    gone = [store.objects.pop(key) for key in ("1", "é/5")]
    if order == "out of order":
        store.order = shuffled
    before = dict(store.objects)
    expected = {
        "notIndexed": ["/a/new", "/new"],
        "missingObjects": ["/1", "/é/5"],
        "changedObjects": ["/0"],
        "returnedGhosts": ["/3"],
    }
    rows = await world.rows_written(dataset)
    assert await differences(world, dataset, repair=repair) == expected
    assert store.objects == before
    assert ghosts(await world.index(dataset)) == (set() if repair else {"/3"})
    if not repair:
        assert await world.rows_written(dataset) == rows
        return
    assert (await world.index(dataset))["/0"][0] == store.etag_of("0")
    assert {action for action, _ in await world.events(dataset)} == {"Created", "Updated"}
    await settled(world, dataset)
    assert await differences(world, dataset) == {"missingObjects": ["/1", "/é/5"]}
    assert len(gone) == 2


@pytest.mark.parametrize("order", ["in order", "out of order"])
@pytest.mark.parametrize("kind", ["bucket", "own storage"])
async def test_what_is_as_it_should_be_is_clean_and_writes_nothing(world, order, kind):
    if kind == "bucket":
        store = ScriptedStore(bucket())
        dataset = await made(world, store)
        if order == "out of order":
            store.order = shuffled
    else:
        dataset, _ = await world.own_dataset()
        for n in range(9):
            await world.upload(dataset, f"/{n}", b"1")
        await settled(world, dataset)
    rows = await world.rows_written(dataset)
    assert await differences(world, dataset, repair=True) == {}
    assert await world.rows_written(dataset) == rows
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM verify_stage")
        assert await cursor.fetchone() == (0,)


class Outage(ScriptedStore):
    """Fails in one way at a time."""

    way = ""

    async def list_pages(self, *, start_after=None, prefix="") -> AsyncIterator:
        async for page in super().list_pages(start_after=start_after, prefix=prefix):
            if self.way == "empty":
                yield self._page([], is_last=True)
                return
            if self.way == "cut off":
                yield page
                return
            if self.way == "denied":
                raise StoreDenied("The credentials may not list.")
            if self.way == "ends early":
                yield self._page(page.keys, is_last=True)
                return
            yield page


@pytest.mark.parametrize("way", ["empty", "cut off", "denied"])
async def test_an_outage_is_not_taken_for_a_difference(world, way):
    store = Outage(bucket())
    dataset = await made(world, store)
    store.way = way
    command = await verified(world, dataset, repair=True)
    assert command.status == "failed"
    assert command.error.startswith("It could not be verified.")
    assert "verify" not in command.spec or "counts" not in command.spec["verify"]
    assert ghosts(await world.index(dataset)) == set()
    with_patience = await world.index(dataset)
    store.way = ""
    assert await differences(world, dataset) == {}
    assert await world.index(dataset) == with_patience


async def test_a_store_that_is_away_is_tried_again(world):
    store = Outage(bucket())
    dataset = await made(world, store)
    store.way = "cut off"
    with pytest.raises(Unavailable):
        await verified(world, dataset, is_last_try=False)
    store.way = ""
    command = await verified(world, dataset)  # the one that runs
    assert (command.status, command.warning) == ("success", None)


async def test_a_listing_that_says_it_is_whole_and_is_not_is_called_that(world):
    """The objects it left out are there when they are asked for."""
    store = Outage(bucket())
    dataset = await made(world, store)
    store.way = "ends early"
    found = await differences(world, dataset, repair=True)
    assert set(found) == {"notListed"}
    assert len(found["notListed"]) == len(store.objects) - store.page_keys


async def test_beside_uploads_deletions_and_jobs_nothing_is_made_up(world):
    store = ScriptedStore(bucket())
    dataset = await made(world, store)

    async def take_turns(_: int) -> None:
        await asyncio.sleep(0)

    store.on_page = take_turns

    async def work(n: int) -> None:
        for turn in range(6):
            await world.upload(dataset, f"/{n}", b"y" * (turn + 1))
            await world.upload(dataset, f"/a/new{n}{turn}", b"z")
            await world.delete(dataset, f"/a/new{n}{turn}")
            await world.run_jobs(dataset)

    async def look() -> list[dict[str, list[str]]]:
        return [await differences(world, dataset) for _ in range(4)]

    found, *_ = await asyncio.gather(look(), *(work(n) for n in range(4)))
    assert all(set(one) <= {"forgottenItems"} for one in found), found


async def test_what_the_rules_leave_out_is_no_difference(world):
    store = ScriptedStore(bucket())
    dataset = await made(world, store)
    store.objects |= {"x.tmp": b"1", "a/y.tmp": b"1", "kept": b"1"}
    async with world.connection() as conn:
        await conn.execute(
            """UPDATE dataset SET sync_rules = '{"exclude": ["*.tmp", "/0"]}' WHERE id = %s""", [dataset.id]
        )
    assert await differences(world, dataset) == {"notIndexed": ["/kept"]}


async def test_more_than_is_looked_at_again_is_counted_all_the_same(world, monkeypatch):
    monkeypatch.setattr(verify, "_MOST_LOOKED_AT", 2)
    store = ScriptedStore(bucket())
    dataset = await made(world, store)
    store.objects |= {f"new{n}": b"1" for n in range(5)}
    command = await verified(world, dataset)
    assert command.spec["verify"]["counts"]["notIndexed"] == 5
    assert "3 of them were not looked at a second time" in command.warning


async def test_a_repair_adds_no_more_than_there_is_room_for(world):
    async with world.connection() as conn:
        organization_id = await make_organization(conn, 100)
    store = ScriptedStore(bucket())
    dataset = await world.dataset(store)
    async with world.connection() as conn:
        await give_to(conn, organization_id, dataset)
    await world.sync(dataset)
    await settled(world, dataset)
    async with world.connection() as conn:
        await quotas.set_limit(conn, organization_id, len(store.objects) + 1)
    store.objects |= {f"new{n}": b"1" for n in range(3)}
    before = len(await world.index(dataset))
    async with world.connection() as conn:
        loaded = await datasets.load_dataset(conn, dataset.id)
        command_id = await verify.request_verify(conn, loaded, caller_id=world.owner.id, repair=True)
    await verify.verify_dataset(world.place, command_id)
    async with world.connection() as conn:
        command = await commands.load_command(conn, command_id)
    assert "2 could not be added" in command.warning
    assert len(await world.index(dataset)) == before + 1


async def test_counters_that_are_wrong_are_found_and_mended_beside_writers(world):
    dataset, _ = await world.own_dataset()
    for n in range(4):
        await world.upload(dataset, f"/{n}", b"1")
    await settled(world, dataset)
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE dataset_counter SET items = items + 7, bytes = 0 WHERE dataset_id = %s", [dataset.id]
        )
    found = await differences(world, dataset)
    assert found == {"wrongCounters": ["bytes is 0 and should be 4", "items is 11 and should be 4"]}
    await asyncio.gather(
        verified(world, dataset, repair=True), *(world.upload(dataset, f"/later{n}", b"1") for n in range(8))
    )
    assert len(await world.index(dataset)) == 12  # and the counters are true


def thumbnail(item_id: int, kind: str = "webp") -> str:
    return f".dataloop/thumbnails/{item_id:024x}.{kind}"


async def test_thumbnails_are_compared_both_ways(world, monkeypatch):
    store = ScriptedStore(bucket())
    store._page = with_times(store, store._page)
    dataset = await made(world, store)
    other = await made(world, ScriptedStore({"a": b"1"}))
    ids = [(await world.item(dataset, f"/{n}")).id for n in range(6)]
    others_id = (await world.item(other, "/a")).id
    async with world.connection() as conn:
        await conn.execute("UPDATE item SET thumbnail_type = 'image/webp' WHERE id = ANY(%s)", [[*ids[:5], others_id]])
    kept = {thumbnail(item_id): b"t" for item_id in [*ids[:3], others_id]}
    deleted_id = (await world.item(dataset, "/a/0")).id
    await world.delete(dataset, "/a/0")
    await world.run_jobs(dataset)
    mine = {thumbnail(deleted_id): b"t", thumbnail(ids[0], "jpg"): b"t"}
    young = {thumbnail((await world.item(dataset, "/a/1")).id): b"t"}
    strange = {
        ".dataloop/thumbnails/mine.webp": b"u",
        thumbnail(2**62): b"of nobody here yet",
        f".dataloop/thumbnails/{secrets.token_hex(12)}.gif": b"",
    }
    store.young = set(young)
    store.objects |= kept | mine | young | strange
    before = dict(store.objects)
    expected = {
        "missingThumbnails": ["/3", "/4"],
        "orphanThumbnails": sorted(mine),
    }
    assert await differences(world, dataset) == expected
    assert store.objects == before
    assert await differences(world, dataset, repair=True) == expected
    assert store.objects == {key: body for key, body in before.items() if key not in mine}
    assert {action for action, _ in await world.events(dataset)} == {"Updated"}
    assert (await world.item(dataset, "/3")).thumbnail_type is None
    await world.index(dataset)  # the counters are true


def with_times(store, page_of):
    """As of years ago, but for those that a test calls young."""
    store.young = set()

    def page(keys, *, is_last):
        made_page = page_of(keys, is_last=is_last)
        made_page.modified[:] = ["" if key in store.young else OLD for key in keys]
        return made_page

    return page


async def test_our_own_storage_is_compared_by_the_keys_of_its_objects(world, monkeypatch):
    dataset, folder = await world.own_dataset()
    for n in range(5):
        await world.upload(dataset, f"/{n}", bytes([65 + n]))
    await settled(world, dataset)
    lost = await world.item(dataset, "/1")
    (folder / lost.object_key).unlink()
    orphan = folder / "objects" / secrets.token_hex(16)
    orphan.write_bytes(b"left by a crash")
    assert await differences(world, dataset, repair=True) == {"missingObjects": ["/1"]}
    monkeypatch.setattr(verify, "_YOUNG_OBJECT", -verify._YOUNG_OBJECT)
    key = f"objects/{orphan.name}"
    await world.delete(dataset, "/2")  # whose object is still to go
    assert await differences(world, dataset) == {"missingObjects": ["/1"], "orphanObjects": [key]}
    assert orphan.exists()
    await differences(world, dataset, repair=True)
    assert not orphan.exists()
    assert await differences(world, dataset) == {"missingObjects": ["/1"]}
    assert set(await world.index(dataset)) == {"/0", "/1", "/3", "/4"}


async def test_what_waits_to_be_read_by_nobody_is_told_again(world):
    store = ScriptedStore(bucket())
    dataset = await world.dataset(store)
    await world.sync(dataset)
    assert await differences(world, dataset) == {}  # its events are there
    async with world.connection() as conn:
        await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    found = await differences(world, dataset, repair=True)
    assert len(found["forgottenItems"]) == len(store.objects)
    assert len(await world.events(dataset)) == len(store.objects)
    assert await differences(world, dataset) == {}


async def test_refused_deletions_are_told(world):
    store = ScriptedStore(bucket())
    dataset = await made(world, store)
    await world.delete(dataset, "/0")
    async with world.connection() as conn:
        await tombstones.note_refused(conn, dataset.id, {"/0": "It is locked."})
    assert await differences(world, dataset) == {"refusedDeletions": ["/0: It is locked."]}


async def test_an_abort_stops_it_while_a_store_keeps_a_page_to_itself(world):
    store = ScriptedStore(bucket())
    dataset = await made(world, store)
    hangs = asyncio.Event()

    async def hang(_: int) -> None:
        hangs.set()
        await asyncio.Event().wait()

    store.on_page = hang
    running = asyncio.create_task(verified(world, dataset))
    await hangs.wait()
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE command SET abort_requested = true WHERE dataset_id = %s AND kind = %s", [dataset.id, verify.KIND]
        )
    command = await asyncio.wait_for(running, 10)
    assert command.status == "aborted"


async def test_a_real_bucket(world, weed):
    """SeaweedFS lists `a/b` before `a b`."""
    dataset, store = await world.s3_dataset(weed)
    for key in bucket():
        await store.put(key, b"x", content_type="text/plain")
    await world.sync(dataset)
    await settled(world, dataset)
    assert await differences(world, dataset) == {}
    await store.put("new", b"1", content_type="text/plain")
    await store.put("a/2", b"changed", content_type="text/plain")
    await store.delete("a b3")
    expected = {"notIndexed": ["/new"], "changedObjects": ["/a/2"], "missingObjects": ["/a b3"]}
    assert await differences(world, dataset, repair=True) == expected
    await settled(world, dataset)
    assert await differences(world, dataset) == {"missingObjects": ["/a b3"]}


async def test_a_repair_is_not_taken_for_the_verification_that_runs(world):
    dataset = await world.dataset(ScriptedStore({}))
    async with world.connection() as conn:
        first = await verify.request_verify(conn, dataset, caller_id=world.owner.id, repair=False)
        assert await verify.request_verify(conn, dataset, caller_id=world.owner.id, repair=False) == first
        with pytest.raises(Conflict, match="repairs nothing"):
            await verify.request_verify(conn, dataset, caller_id=world.owner.id, repair=True)
