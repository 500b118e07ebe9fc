"""Every way in and around once, on each kind of store: what lies there afterwards is what the index says."""

import base64
import io
import json
from collections.abc import Callable

import pytest
from PIL import Image

from headwater.catalog import datasets, items
from headwater.catalog.links import Link
from headwater.storage.stores import Store
from headwater.wire.links import link_body
from headwater.work.imports import import_objects
from headwater.work.preprocess import thumbnail_key
from tests.work.csv_corpus import table
from tests.work.csv_files import imported
from tests.work.test_cloning import clone
from tests.work.test_planned_uploads import azure_dataset, gcs_dataset
from tests.work.test_sidecars import switch
from tests.work.test_verify import differences
from tests.work.world import World, recount

URL = "https://images.example.com/17.jpg"


@pytest.fixture(params=["local", "seaweedfs", "azurite", "gcs"])
async def bucket(request: pytest.FixtureRequest, world: World):
    """A dataset on a store that may delete, and the store."""
    if request.param == "local":
        dataset, _ = await world.local_dataset()
        async with world.place.places.of_dataset(dataset.id) as store:
            return dataset, store
    if request.param == "seaweedfs":
        return await world.s3_dataset(request.getfixturevalue("weed"))
    make: Callable = {"azurite": azure_dataset, "gcs": gcs_dataset}[request.param]
    return await make(world, request.getfixturevalue(request.param))


def photo() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(file, "JPEG")
    return file.getvalue()


async def keys_of(store: Store) -> set[str]:
    found = {key async for page in store.list_pages() for key in page.keys}
    return {key for key in found if not key.startswith(".dataloop/")}


async def is_in_step(world: World, dataset) -> None:
    """A sync finds nothing, and a verification neither."""
    _, scan = await world.sync(dataset)
    assert (scan.created, scan.changed, scan.gone) == (0, 0, 0)
    assert await differences(world, dataset) == {}
    async with world.connection() as conn:
        await recount(conn, dataset.id)


async def test_uploads_links_and_rows_of_csv_files_lie_in_the_bucket(world: World, bucket):
    dataset, store = bucket
    await world.upload(dataset, "/a/one.jpg", photo())
    await world.upload(dataset, "/a/one_link.json", link_body(Link("url", URL, "image/jpeg")))
    encoded = base64.b64encode(photo()).decode()
    rows = table(f"1,{URL},,one", f"2,,{encoded},two", header="ID,URL,image_bytes,item_description")
    done = await imported(world, dataset, rows)
    assert [outcome for _, outcome, _ in done.outcomes] == ["created", "created"]
    assert await keys_of(store) == {"a/one.jpg", "a/one_link.json", "photos/1.jpg_link.json", "photos/2.jpg"}
    async with store.get("photos/2.jpg") as reader:
        assert await reader.read() == photo()
    link = await world.item(dataset, "/photos/1.jpg_link.json")
    assert (link.link["ref"], link.description) == (URL, "one")
    again = await imported(world, dataset, rows)
    assert [outcome for _, outcome, _ in again.outcomes] == ["skipped", "skipped"]
    await is_in_step(world, dataset)


async def test_objects_are_imported_and_given_metadata_by_files_beside_them(world: World, bucket):
    dataset, store = bucket
    await switch(world, dataset, on=True)
    await store.put("in/two.jpg", photo(), content_type="image/jpeg")
    await store.put("in/two.jpg.json", json.dumps({"camera": 3}).encode(), content_type="application/json")
    (found,) = await import_objects(world.place, dataset, world.owner, ["in/two.jpg"])
    assert (found.item.path, found.outcome) == ("/in/two.jpg", "created")
    await world.sync(dataset)
    await world.preprocess(dataset)
    item = await world.item(dataset, "/in/two.jpg")
    assert (item.user_metadata, item.width_px) == ({"camera": 3}, 40)
    assert (await world.item(dataset, "/in/two.jpg.json")).hidden
    await is_in_step(world, dataset)


async def test_clones_keep_objects_that_are_deleted_and_cost_the_store_nothing(world: World, bucket):
    dataset, store = bucket
    for name in ("a", "b"):
        await world.upload(dataset, f"/{name}.jpg", photo())
    await world.preprocess(dataset)
    before = await keys_of(store)
    target, _ = await clone(world, dataset)
    assert await keys_of(store) == before
    async with world.connection() as conn:
        cloned = await items.find_item_at(conn, target.id, "/a.jpg")
    async with world.place.places.of_item(cloned) as opened, opened.get(cloned.key) as reader:
        assert await reader.read() == photo()
    async with world.place.places.of_thumbnail(cloned) as opened:
        assert (await opened.head(thumbnail_of(cloned))).size_bytes > 0
    await world.delete(dataset, "/a.jpg")
    await world.run_jobs(dataset)
    assert await keys_of(store) == before  # the clone uses it
    await world.delete(target, "/a.jpg")
    await world.delete(target, "/b.jpg")
    await world.run_jobs(target)
    assert await keys_of(store) == before  # who deletes a clone deletes nothing
    await world.delete(dataset, "/b.jpg")
    await world.run_jobs(dataset)
    assert await keys_of(store) == before - {"b.jpg"}
    async with world.connection() as conn:
        assert (await datasets.load_dataset(conn, target.id)).items == 0
    _, scan = await world.sync(dataset)
    assert scan.created == 0


def thumbnail_of(item) -> str:
    return thumbnail_key(item.thumbnail_id or item.id, item.thumbnail_type)
