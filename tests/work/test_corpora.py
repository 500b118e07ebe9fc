"""The corpora of keys through a whole sync: what the index has is what the bucket has, byte for byte."""

from collections.abc import Iterator

import pytest

from tests import servers
from tests.storage.corpora import CORPORA, Corpus
from tests.storage.deviations import held_of
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
