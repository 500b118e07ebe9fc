"""What is encoded is decoded to the same, in few bytes."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.columns import encoding
from headwater.catalog.columns.encoding import Codes, Hashes, Integers, Numbers, Paths

INT64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(st.lists(st.integers(0, 65_535)))
def test_codes(codes: list[int]) -> None:
    array = np.array(codes, np.uint16)
    chunk = encoding.decode("codes", encoding.encode(Codes(array)), len(codes))
    assert isinstance(chunk, Codes)
    assert chunk.codes.tolist() == codes


@given(st.lists(st.none() | INT64))
def test_integers(values: list[int | None]) -> None:
    valid = np.array([value is not None for value in values], np.bool_)
    given_values = np.array([value or 0 for value in values], np.int64)
    made = encoding.integers_of(given_values, valid)
    chunk = encoding.decode("integers", encoding.encode(made), len(values))
    assert isinstance(chunk, Integers)
    known = np.ones(len(values), np.bool_) if chunk.valid is None else chunk.valid
    wide = chunk.int64()
    assert [int(wide[row]) if known[row] else None for row in range(len(values))] == values
    assert [chunk.base + int(chunk.deltas[row]) if known[row] else None for row in range(len(values))] == values


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
OTHERS = TEXT | st.booleans() | st.none() | st.lists(st.integers()) | st.integers(10**20, 10**40)


@given(st.lists(st.one_of(st.just("absent"), st.just("unknown"), FLOATS, st.tuples(OTHERS))))
def test_numbers(rows: list[object]) -> None:
    valid = np.array([isinstance(row, float) for row in rows], np.bool_)
    values = np.array([row if isinstance(row, float) else np.nan for row in rows], np.float64)
    exceptions = {number: row[0] for number, row in enumerate(rows) if isinstance(row, tuple)}
    unknown = np.array([number for number, row in enumerate(rows) if row == "unknown"], np.uint16)
    chunk = encoding.decode("numbers", encoding.encode(Numbers(values, valid, exceptions, unknown)), len(rows))
    assert isinstance(chunk, Numbers)
    assert chunk.valid.tolist() == valid.tolist()
    assert chunk.values[valid].tolist() == values[valid].tolist()
    assert np.isnan(chunk.values[~valid]).all()
    assert chunk.exceptions == exceptions
    assert chunk.unknown.tolist() == unknown.tolist()


@given(
    st.lists(st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4), max_size=30),
    st.booleans(),
    st.integers(1, 8),
)
def test_texts(values: list[str | None], others: bool, block: int) -> None:
    rows = len(values)
    values = [*values, None, None]
    exceptions, unknown = ({rows: [1, "a"]}, [rows + 1]) if others else ({}, [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "BLOCK_TEXTS", block)
        data = encoding.encode(encoding.texts_of(values, exceptions, unknown))
        chunk = encoding.decode("texts", data, len(values))
        assert isinstance(chunk, encoding.Texts)
        read = dict(zip(chunk.order.tolist(), chunk.texts.to_pylist(), strict=True))
        assert ([read.get(row) for row in range(len(values))], dict(chunk.exceptions)) == (values, exceptions)
        assert chunk.unknown.tolist() == unknown
        texts = [value for value in values if value is not None]
        assert [values[row] for row in chunk.order] == sorted(texts, key=str.encode)
        by_block = [encoding.decode_block(data[begin:end]) for begin, end in pairwise(chunk.spans.tolist())]
        assert [text for one in by_block for text in list(one)] == sorted(map(str.encode, texts))
        again = [chunk.block(number) for number in range(len(by_block))]
        assert [list(one) for one in again] == [list(one) for one in by_block]


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_hashes(hashes: list[int]) -> None:
    chunk = encoding.decode("hashes", encoding.encode(Hashes(np.array(hashes, np.uint64))), len(hashes))
    assert isinstance(chunk, Hashes)
    assert chunk.hashes.tolist() == hashes


@given(st.lists(TEXT))
def test_paths_and_their_order(texts: list[str]) -> None:
    chunk = encoding.decode("paths", encoding.encode(encoding.paths_of(texts)), len(texts))
    assert isinstance(chunk, Paths)
    assert chunk.texts.to_pylist() == texts
    assert sorted(chunk.order.tolist()) == list(range(len(texts)))
    assert [texts[row] for row in chunk.order] == sorted(texts, key=lambda text: text.encode())


@given(st.sets(st.integers(0, 65_535)))
def test_offsets(offsets: set[int]) -> None:
    rising = np.array(sorted(offsets), np.uint16)
    assert encoding.decode_offsets(encoding.encode_offsets(rising), len(rising)).tolist() == rising.tolist()


@pytest.mark.parametrize("first", [0, 7, 65_535])
def test_offsets_without_holes_take_two_bytes(first: int) -> None:
    rising = np.arange(first, 65_536, dtype=np.uint32).astype(np.uint16)
    data = encoding.encode_offsets(rising)
    assert len(data) == 2
    assert encoding.decode_offsets(data, len(rising)).tolist() == rising.tolist()


SAME = [(1, 1.0), ({"a": 1, "b": [2.0]}, {"b": [2], "a": 1.0}), (10**20, 1e20)]
DIFFERENT = [(1, True), (0, False), (1, "1"), (None, "null"), ([1], [True]), ([1, 2], [2, 1]), (2**63, 2**63 + 1)]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_postgres_takes_for_equal_has_one_form(one: object, other: object) -> None:
    assert encoding.canonical(one) == encoding.canonical(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_postgres_takes_for_different_has_two_forms(one: object, other: object) -> None:
    assert encoding.canonical(one) != encoding.canonical(other)
    assert encoding.hash_value(b"key", one) != encoding.hash_value(b"key", other)


def test_hashes_take_a_key_and_are_no_mark() -> None:
    assert encoding.hash_value(b"one", "x") != encoding.hash_value(b"other", "x")
    assert all(encoding.hash_value(b"key", value) >= encoding.FIRST_CODE for value in range(1000))


def _bytes_a_value(chunk: encoding.Chunk, rows: Sequence[object]) -> float:
    return len(encoding.encode(chunk)) / len(rows)


def test_values_take_few_bytes() -> None:
    rows = range(65_536)
    rng = np.random.default_rng(1)
    assert _bytes_a_value(Codes(rng.integers(0, 200, len(rows)).astype(np.uint16)), rows) <= 1.01
    assert _bytes_a_value(Codes(np.zeros(len(rows), np.uint16)), rows) < 0.001
    times = np.arange(len(rows), dtype=np.int64) * 1000 + 1_700_000_000_000_000
    assert _bytes_a_value(encoding.integers_of(times, np.ones(len(rows), np.bool_)), rows) <= 4.1
    absent = encoding.integers_of(times, np.zeros(len(rows), np.bool_))
    assert _bytes_a_value(absent, rows) < 0.01
