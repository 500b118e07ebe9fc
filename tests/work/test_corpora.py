"""The corpora of keys through a whole sync: what the index has is what the bucket has, byte for byte."""

from collections.abc import Iterator

import pytest

from headwater.catalog.sync import shards
from tests import servers
from tests.storage.corpora import CORPORA, Corpus
from tests.storage.deviations import held_of
from tests.work.test_outages import run
from tests.work.world import World, ghosts, present

pytestmark = pytest.mark.usefixtures("small_batches")


@pytest.fixture(scope="session")
def moto() -> Iterator[servers.S3Server]:
    with servers.moto() as server:
        yield server


SERVERS = {"seaweedfs": "weed", "moto": "moto"}


@pytest.mark.parametrize("kind", list(SERVERS))
@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
async def test_a_corpus_becomes_an_index(request: pytest.FixtureRequest, world: World, kind: str, corpus: Corpus):
    dataset, bucket = await world.s3_dataset(request.getfixturevalue(SERVERS[kind]))
    keys = held_of(kind, corpus)
    for key in keys:
        await bucket.put(key, key.encode() + b".", content_type="text/plain")
    command, scan = await world.sync(dataset)
    assert (command.status, scan.state, scan.listed, scan.created) == ("success", "done", len(keys), len(keys))
    found = await world.index(dataset)
    assert {path: size for path, (_, size, _) in found.items()} == {"/" + key: len(key.encode()) + 1 for key in keys}

    async with world.place.places.of_dataset(dataset.id) as store:
        for key in keys:
            info = await store.head(key)
            async with store.get(key) as reader:
                assert await reader.read() == key.encode() + b"."
            assert found["/" + key] == (info.etag, info.size_bytes, False)

    before = await world.rows_written(dataset)
    _, scan = await world.sync(dataset)
    assert (scan.unchanged, scan.gone) == (len(keys), 0)
    assert await world.rows_written(dataset) == before

    gone = set(keys[::2])
    for key in gone:
        await bucket.delete(key)
    await world.sync(dataset, confirm=True)
    found = await world.index(dataset)
    assert ghosts(found) == {"/" + key for key in gone}
    assert present(found) == {"/" + key for key in keys if key not in gone}


async def test_lanes_on_seaweedfs_find_everything_though_it_lists_folder_by_folder(
    world: World, weed: servers.S3Server, monkeypatch: pytest.MonkeyPatch
):
    """Bounds lie where the order of bytes and that of folders differ, and where a folder is an object, too."""
    bounds = ["/a", "/a-", "/a/3", "/b-x", "/b/c", "/c"]

    async def last_bounds(*_: object) -> list[str]:
        return bounds

    monkeypatch.setattr(shards, "last_bounds", last_bounds)
    dataset, bucket = await world.s3_dataset(weed)
    keys = {f"{folder}{sign}{number}" for folder in "abc" for sign in "-/.0" for number in range(6)}
    keys |= {"a", "b", "b-x", "b/c", "b/c/d", "b/c/d/e", "c", "c/0/x"}
    for key in keys:
        await bucket.put(key, b"1", content_type="text/plain")
    for _ in range(2):
        _, scan = await run(world, dataset, lanes=3)
        assert (scan.state, scan.marked) == ("done", 0)
        found = await world.index(dataset)
        assert (present(found), ghosts(found)) == ({"/" + key for key in keys}, set())
    for key in ("a/3", "b", "b/c/d"):
        await bucket.delete(key)
    await run(world, dataset, lanes=3)
    assert ghosts(await world.index(dataset)) == {"/a/3", "/b", "/b/c/d"}
