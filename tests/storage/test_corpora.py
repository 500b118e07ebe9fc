"""The corpora of keys are listed exactly, on every store that can hold them."""

from collections.abc import Callable
from typing import Any

import pytest

from headwater.errors import HeadwaterError
from headwater.storage.stores import LARGEST_KEY_BYTES, Store
from tests.storage.conftest import Place
from tests.storage.corpora import CORPORA, Corpus
from tests.storage.deviations import CANNOT_HOLD_OF_CORPORA, held_of
from tests.storage.test_stores import bytes_of, fill, keys_of

each_corpus = pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)


def test_the_corpora_are_what_they_say():
    assert len({corpus.name for corpus in CORPORA}) == len(CORPORA) >= 30
    for corpus in CORPORA:
        assert corpus.sentence.endswith(".")
        assert len(set(corpus.keys)) == len(corpus.keys)
        assert all(1 <= len(key.encode()) <= LARGEST_KEY_BYTES for key in corpus.keys)
    assert max(len(key.encode()) for corpus in CORPORA for key in corpus.keys) == LARGEST_KEY_BYTES
    everything = {key for corpus in CORPORA for key in corpus.keys}
    assert all(cannot.keys() <= everything for cannot in CANNOT_HOLD_OF_CORPORA.values())


ORDERS: dict[str, Callable[[str], Any]] = {
    "azurite": lambda key: key.encode("utf-16-be"),
    "seaweedfs": lambda key: [name.encode() for name in key.split("/")],  # folder by folder
}


def in_order_of(kind: str, keys: list[str]) -> list[str]:
    return sorted(keys, key=ORDERS.get(kind, str.encode))


def is_after(kind: str, key: str, start: str) -> bool:
    return key != start and in_order_of(kind, [start, key]) == [start, key]


@each_corpus
async def test_a_corpus_is_listed_whole_at_any_page_size(place: Place, corpus: Corpus):
    keys = held_of(place.kind, corpus)
    await fill(place.store(), keys)
    for page_keys in (1, 2, 3, max(1, len(keys) - 1), max(1, len(keys)), len(keys) + 1, 1000):
        assert await keys_of(place.store(page_keys=page_keys)) == in_order_of(place.kind, keys)
    for key in keys:
        assert await bytes_of(place.store(), key) == key.encode()


@each_corpus
async def test_a_corpus_is_listed_by_any_prefix(place: Place, corpus: Corpus):
    keys = held_of(place.kind, corpus)
    store = place.store()
    await fill(store, keys)
    for prefix in corpus.prefixes:
        assert await keys_of(store, prefix=prefix) == [
            key for key in in_order_of(place.kind, keys) if key.startswith(prefix)
        ]


@each_corpus
async def test_a_corpus_is_listed_from_any_start(place: Place, corpus: Corpus):
    keys = in_order_of(place.kind, held_of(place.kind, corpus))
    store = place.store(page_keys=10)
    await fill(store, keys)
    starts = [key for key in keys if key.isprintable() or place.kind != "moto"]  # moto cannot say where it began
    for start in {*corpus.starts, *starts[:: max(1, len(starts) // 20)]}:
        assert await keys_of(store, start_after=start) == [key for key in keys if is_after(place.kind, key, start)]
        first = await store.first_key_after(start)
        assert first is None or (first in keys and first.encode() > start.encode())


async def is_held(store: Store, others: list[str], key: str) -> bool:
    await fill(store, others)
    try:
        await fill(store, [key])
        listed = await keys_of(store)
        return sorted(listed) == sorted([*others, key]) and all(
            [await bytes_of(store, held) == held.encode() for held in listed]
        )
    except HeadwaterError:
        return False


async def test_what_a_store_cannot_hold_of_the_corpora_it_cannot(place: Place):
    """One that it can hold by now leaves the table."""
    number = 0
    for corpus in CORPORA:
        for key in corpus.keys:
            if key in CANNOT_HOLD_OF_CORPORA[place.kind]:
                number += 1
                store = await place.empty_store(f"p{number}")
                assert not await is_held(store, held_of(place.kind, corpus), key), key
