"""Preprocessing of real files in real stores: facts, thumbnails, reasons, and what a repetition changes."""

import asyncio
import io

import pytest
from PIL import Image

from headwater.catalog import items, preparing
from headwater.errors import FailedDependency, StoreDenied, Unavailable
from headwater.storage.opening import open_local
from headwater.work import preprocess
from headwater.work.dispatch import dispatch
from tests import samples
from tests.work.scripted import ScriptedStore
from tests.work.world import World

FILES = {
    "good.jpg": samples.jpeg(),
    "deep/er/oriented.jpg": samples.oriented_jpeg(6),
    "deep/grey.png": samples.encode(samples.picture("L"), "PNG"),
    "no-suffix": samples.encode(samples.picture(), "PNG"),
    "truncated.jpg": samples.jpeg()[:3000],
    "corrupt.jpg": samples.jpeg_header_and_garbage(),
    "empty.jpg": b"",
    "bomb.png": samples.png_bomb(),
    "lies.jpg": b"I am no picture, whatever my name says.",
    "notes.txt": b"Just text.",
}


@pytest.fixture(params=["folder", "seaweedfs"])
async def synced(request: pytest.FixtureRequest, world: World):
    """A dataset with all the files, and a store of its bucket."""
    if request.param == "folder":
        dataset, root = await world.local_dataset()
        store = open_local(root=root)
    else:
        dataset, store = await world.s3_dataset(request.getfixturevalue("weed"))
    for key, body in FILES.items():
        await store.put(key, body, content_type="application/octet-stream")
    await world.sync(dataset)
    return dataset, store


async def etl(world: World, dataset, path: str) -> tuple[int, str | None]:
    item = await world.item(dataset, path)
    return item.etl_state, item.system_metadata["etl"].get("reason") if item.system_metadata else None


async def thumbnails(store) -> set[str]:
    return {
        key
        async for page in store.list_pages()
        for key in page.keys
        if key.startswith(".dataloop/thumbnails/")
    }  # fmt: skip


async def test_facts_thumbnails_and_reasons(world, synced):
    dataset, store = synced
    await store.delete("notes.txt")
    await world.preprocess(dataset)
    good = await world.item(dataset, "/good.jpg")
    assert (good.width_px, good.height_px, good.mime_type, good.thumbnail_type) == (
        320,
        200,
        "image/jpeg",
        "image/jpeg",
    )
    assert good.system_metadata["channels"] == 3
    assert good.system_metadata["etl"] == {"state": "done"}
    oriented = await world.item(dataset, "/deep/er/oriented.jpg")
    assert (oriented.width_px, oriented.height_px) == (200, 320)
    assert oriented.system_metadata["exif"]["Orientation"] == 6
    assert (await world.item(dataset, "/deep/grey.png")).system_metadata["channels"] == 1
    assert (await world.item(dataset, "/no-suffix")).mime_type == "image/png"
    found = {key: await etl(world, dataset, f"/{key}") for key in FILES}
    assert found == {
        "good.jpg": (1, None),
        "deep/er/oriented.jpg": (1, None),
        "deep/grey.png": (1, None),
        "no-suffix": (1, None),
        "truncated.jpg": (2, "truncated"),
        "corrupt.jpg": (2, "corrupt"),
        "empty.jpg": (2, "empty"),
        "bomb.png": (2, "too-large"),
        "lies.jpg": (1, None),
        "notes.txt": (2, "object-missing"),
    }
    messages = [(await world.item(dataset, f"/{key}")).system_metadata["etl"].get("message") for key in FILES]
    assert all(message is None or message.endswith(".") for message in messages)
    made = [(await world.item(dataset, f"/{key}")) for key in FILES]
    assert await thumbnails(store) == {
        preprocess.thumbnail_key(item.id, item.thumbnail_type) for item in made if item.thumbnail_type is not None
    }
    assert sum(item.thumbnail_type is not None for item in made) == 4
    async with store.get(f".dataloop/thumbnails/{good.id:024x}.jpg") as reader:
        picture = Image.open(io.BytesIO(await reader.read()))
    assert picture.size[0] / picture.size[1] == pytest.approx(320 / 200, rel=0.05)
    await world.index(dataset)  # counters
    async with world.connection() as conn:
        told = await preparing.summarize_etl(conn, dataset.id)
    assert [path for path, _ in told] == ["/bomb.png", "/corrupt.jpg", "/empty.jpg", "/notes.txt", "/truncated.jpg"]


async def test_thumbnails_are_no_items_and_a_sync_afterwards_changes_nothing(world, synced):
    dataset, _ = synced
    await world.preprocess(dataset, ["/good.jpg", "/truncated.jpg"])
    before = await world.rows_written(dataset)
    _, scan = await world.sync(dataset)
    assert (scan.listed, scan.unchanged) == (len(FILES), len(FILES))
    assert await world.rows_written(dataset) == before


async def test_a_repetition_changes_nothing(world, synced):
    dataset, store = synced
    await world.preprocess(dataset)
    before = await world.rows_written(dataset)
    kept = await thumbnails(store)
    await world.preprocess(dataset)
    assert await world.rows_written(dataset) == before
    assert await thumbnails(store) == kept


async def test_two_workers_with_the_same_items_count_them_once(world, synced):
    dataset, _ = synced
    await asyncio.gather(*(world.preprocess(dataset, ["/good.jpg", "/empty.jpg", "/lies.jpg"]) for _ in range(3)))
    await world.index(dataset)
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT prepared_items, failed_items FROM dataset_counter WHERE dataset_id = %s", [dataset.id]
        )
        assert await cursor.fetchone() == (2, 1)


async def test_a_bucket_that_we_may_only_read_keeps_its_facts(world, weed):
    dataset, store = await world.s3_dataset(weed, keys=weed.reader)
    await store.put("good.jpg", FILES["good.jpg"], content_type="image/jpeg")
    await world.sync(dataset)
    await world.preprocess(dataset)
    item = await world.item(dataset, "/good.jpg")
    assert (item.width_px, item.thumbnail_type, item.etl_state) == (320, None, items.ETL_DONE)
    assert item.system_metadata["etl"]["state"] == "done"
    assert item.system_metadata["etl"]["thumbnail"]["reason"] == "denied"
    assert "PutObject" in item.system_metadata["etl"]["thumbnail"]["message"]
    assert weed.reader.secret_access_key not in str(item.system_metadata)
    assert await thumbnails(store) == set()
    await world.index(dataset)


async def test_an_object_that_is_another_by_now_is_left_to_its_next_event(world):
    store = ScriptedStore({"a.jpg": samples.jpeg(), "b.jpg": samples.jpeg()})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.objects["a.jpg"] = samples.jpeg((64, 48))
    await world.preprocess(dataset)
    assert (await world.item(dataset, "/a.jpg")).etl_state == items.ETL_WAITING
    assert (await world.item(dataset, "/b.jpg")).etl_state == items.ETL_DONE
    await world.sync(dataset)
    await world.preprocess(dataset)
    assert (await world.item(dataset, "/a.jpg")).width_px == 64


async def test_a_row_that_changed_while_its_old_object_was_read_is_left_alone(world):
    store = ScriptedStore({"a.jpg": samples.jpeg()})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    get = store.get

    def get_and_overwrite(key, **given):
        store.get = get
        return _Then(get(key, **given), lambda: world.upload(dataset, "/a.jpg", samples.jpeg((64, 48))))

    store.get = get_and_overwrite
    await world.preprocess(dataset)
    item = await world.item(dataset, "/a.jpg")
    assert (item.etl_state, item.width_px, item.system_metadata or {}) == (items.ETL_WAITING, None, {})
    await world.preprocess(dataset)
    assert (await world.item(dataset, "/a.jpg")).width_px == 64
    await world.index(dataset)


class _Then:
    """A context manager, and something that happens once it is open."""

    def __init__(self, inner, then) -> None:
        self.inner, self.then = inner, then

    async def __aenter__(self):
        opened = await self.inner.__aenter__()
        await self.then()
        return opened

    async def __aexit__(self, *error):
        return await self.inner.__aexit__(*error)


def failing_get(store: ScriptedStore, errors: dict[str, Exception]):
    get = store.get

    def refuse(key, **given):
        if key in errors:
            raise errors[key]
        return get(key, **given)

    return refuse


async def test_more_items_than_a_bundle_and_one_that_needs_another_try(world):
    store = ScriptedStore({f"{n:02}.txt": b"text" for n in range(60)}, page_keys=1000)
    dataset = await world.dataset(store)
    await world.sync(dataset)
    get = store.get
    store.get = failing_get(store, {"07.txt": Unavailable("The store does not answer."), "41.txt": Unavailable("x")})
    with pytest.raises(Unavailable):
        await world.preprocess(dataset)
    states = {path: (await world.item(dataset, path)).etl_state for path in map("/{:02}.txt".format, range(60))}
    assert [path for path, state in states.items() if state != items.ETL_DONE] == ["/07.txt", "/41.txt"]
    await world.index(dataset)
    store.get = get
    calls = len(store.calls)
    await world.preprocess(dataset)
    assert sorted(store.calls[calls:]) == ["get 07.txt", "get 41.txt"]
    await world.index(dataset)


async def test_one_that_the_store_refuses_or_that_we_stumble_over_does_not_stop_the_others(world):
    """An archived object, or a defect of ours, left all other items of the job waiting for ever."""
    store = ScriptedStore({f"{n:02}.txt": b"text" for n in range(60)}, page_keys=1000)
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.get = failing_get(
        store,
        {
            "00.txt": StoreDenied("May not be read."),
            "01.txt": FailedDependency("It is archived."),
            "02.txt": ZeroDivisionError("a defect"),
        },
    )
    with pytest.raises(ZeroDivisionError):
        await world.preprocess(dataset)
    assert await etl(world, dataset, "/00.txt") == (2, "denied")
    assert await etl(world, dataset, "/01.txt") == (2, "refused")
    states = [(await world.item(dataset, f"/{n:02}.txt")).etl_state for n in range(2, 60)]
    assert states == [items.ETL_WAITING] + [items.ETL_DONE] * 57


async def test_ghosts_hidden_and_deleted_items_are_not_read(world):
    store = ScriptedStore({"a.jpg": samples.jpeg(), "b.jpg": samples.jpeg(), "c.jpg": samples.jpeg()})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    await world.upload(dataset, "/.dataloop/x.jpg", samples.jpeg())
    ids = [(await world.item(dataset, f"/{name}")).id for name in ("a.jpg", "b.jpg", ".dataloop/x.jpg")]
    del store.objects["a.jpg"]
    await world.sync(dataset)
    await world.delete(dataset, "/b.jpg")
    store.calls.clear()
    await preprocess.preprocess_items(world.place, dataset.id, ids)
    assert store.calls == []


async def test_every_event_becomes_jobs_of_at_most_a_hundred_items(world):
    store = ScriptedStore({f"{n:03}": b"x" for n in range(250)}, page_keys=1000)
    dataset = await world.dataset(store)
    await world.sync(dataset)
    while await dispatch(world.place.pool):
        pass
    async with world.connection() as conn:
        cursor = await conn.execute(
            """
            DELETE FROM procrastinate_jobs
            WHERE task_name = %s AND args ->> 'dataset_id' = %s
            RETURNING args
            """,
            [preprocess.TASK, str(dataset.id)],
        )
        jobs = [row[0]["item_ids"] for row in await cursor.fetchall()]
        cursor = await conn.execute("SELECT id FROM item WHERE dataset_id = %s", [dataset.id])
        ids = [item_id for (item_id,) in await cursor.fetchall()]
    assert sorted(map(len, jobs)) == [50, 100, 100]
    assert sorted(item_id for job in jobs for item_id in job) == sorted(ids)
