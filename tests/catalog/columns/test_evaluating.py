"""What a chunk does not tell is unknown, never true and never false, whatever is made of it."""

import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.columns import conditions, encoding, fences
from headwater.catalog.columns.cache import Cache
from headwater.catalog.columns.encoding import FIRST_CODE, UNKNOWN, Codes, Hashes, Numbers, Texts, texts_of
from headwater.catalog.columns.evaluating import AllOf, AnyOf, Complement, JsonTest, Truth, Values
from headwater.catalog.query import Condition, ElementMatch

ROWS = 4  # there, absent, unknown, an exception where there can be one


class View:
    """A segment with one chunk."""

    first_id, rows = 0, ROWS

    def __init__(self, chunk: Any) -> None:
        self._chunk = chunk

    def chunk(self, path_number: int) -> Any:
        return self._chunk

    def fenced(self, path_number: int) -> Any:
        return fences.fenced(self._chunk) if isinstance(self._chunk, Texts) else None

    def block(self, path_number: int, number: int) -> Any:
        return self._chunk.block(number)

    def offsets(self) -> Any:
        return np.arange(ROWS, dtype=np.uint16)


VALID = np.array([True, False, False, False])
CHUNKS = [
    Codes(np.array([2, 0, UNKNOWN, 3], np.uint8)),
    Numbers(np.array([5, np.nan, np.nan, np.nan]), VALID, {3: "a"}, np.array([2], np.uint16)),
    texts_of(["a", None, None, None], {3: 5}, [2]),
    Hashes(np.array([77, 0, UNKNOWN, 78], np.uint64)),
]


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("operand", [None, 5, "a", "*", "a*", [1], {"b": 1}, True])
@pytest.mark.parametrize("operator", ["eq", "exists", "gt", "gte", "lt", "lte"])
def test_what_is_not_told_is_unknown(chunk, operand, operator):
    value = operator != "exists" or operand is None
    part = Condition("metadata.user.k", operator, value if operator == "exists" else operand)
    node = JsonTest(1, part, hash_key=b"key", values=Values([5, "a"]))
    for asked in (node, Complement(node)):
        truth = asked.test(View(chunk))
        unknown = np.zeros(ROWS, np.bool_) if truth.unknown is None else truth.unknown
        assert not (truth.true & unknown).any()
        assert unknown[2]
        assert not unknown[1]
        assert isinstance(chunk, Hashes) or not unknown[[0, 3]].any()


class Known:
    key, cost = "known", 1

    def __init__(self, values: list[bool | None]) -> None:
        self._values = values

    def test(self, view: Any) -> Truth:
        return Truth(
            np.array([value is True for value in self._values]), np.array([value is None for value in self._values])
        )


def test_three_values_are_joined_as_kleene_does():
    pairs = list(product([True, False, None], repeat=2))
    left, right = Known([one for one, _ in pairs]), Known([other for _, other in pairs])

    def told(node: Any) -> list[bool | None]:
        truth = node.test(View(None))
        unknown = [False] * len(pairs) if truth.unknown is None else truth.unknown.tolist()
        return [None if open_ else bool(true) for true, open_ in zip(truth.true, unknown, strict=True)]

    View.rows = len(pairs)
    try:
        assert told(AllOf((left, right))) == [
            False if False in pair else None if None in pair else True for pair in pairs
        ]
        assert told(AnyOf((left, right))) == [
            True if True in pair else None if None in pair else False for pair in pairs
        ]
        assert told(Complement(left)) == [None if one is None else not one for one, _ in pairs]
    finally:
        View.rows = ROWS


LETTERS = ["", "a", "b", "é", "\uffff", "\U00010000", "😀", "\ud7ff", "%", "_", "\\", '"', "\n", ".", "$", "A"]
texts = st.lists(st.sampled_from(LETTERS), max_size=4).map("".join)
stored = texts | st.lists(st.sampled_from([*LETTERS, "*"]), max_size=4).map("".join)
scalars = st.sampled_from([0, 1, 1.0, 0.1, True, None, "1"])
values = st.lists(stored | stored | scalars | st.lists(stored | scalars, max_size=2) | st.just(...), max_size=40)
operands = texts | st.lists(st.sampled_from([*LETTERS, "*"]), max_size=6).map("".join) | scalars
conditions_of_texts = st.one_of(
    st.builds(Condition, st.just("k"), st.just("eq"), operands | st.lists(operands, max_size=2)),
    st.builds(Condition, st.just("k"), st.just("in"), st.lists(operands, max_size=9)),
    st.builds(Condition, st.just("k"), st.sampled_from(["gt", "gte", "lt", "lte"]), texts | scalars),
    st.builds(Condition, st.just("k"), st.just("exists"), st.just(value=True)),
    st.builds(ElementMatch, st.just("k"), st.builds(Condition, st.just("n"), st.sampled_from(["eq", "ne"]), operands)),
)


@given(values, conditions_of_texts, st.sampled_from([0, 2**24]))
def test_texts_meet_conditions_as_each_of_them_does(kept, condition, cache_bytes):
    with pytest.MonkeyPatch.context() as patch:
        for module, name, rows in (
            (fences, "_BLOCK_ROWS", 2),
            (fences, "BLOCK_TEXTS", 4),
            (encoding, "BLOCK_TEXTS", 4),
        ):
            patch.setattr(module, name, rows)
        holds, of_nothing = conditions.of_value(condition), conditions.of_nothing(condition)
        expected = [of_nothing if value is ... else bool(holds(conditions.exact(value))) for value in kept]
        different = {conditions.frozen(conditions.exact(value)): value for value in kept if value is not ...}
        codes = {key: code for code, key in enumerate(different, FIRST_CODE)}
        as_codes = Codes(
            np.array([0 if one is ... else codes[conditions.frozen(conditions.exact(one))] for one in kept], np.uint16)
        )
        others = {row: value for row, value in enumerate(kept) if value is not ... and not isinstance(value, str)}
        as_texts = texts_of([value if isinstance(value, str) else None for value in kept], others, [])
        cache = Cache(cache_bytes)
        dictionary = [conditions.exact(value) for value in different.values()]
        for chunk in (as_codes, as_texts):
            for _ in range(2):
                node = JsonTest(1, condition, hash_key=b"key", values=Values(dictionary), cache=cache)
                patch.setattr(View, "rows", len(kept))
                assert node.test(View(chunk)).true.tolist() == expected


def test_the_first_pattern_finds_all_that_arrow_imports_when_the_api_has_warmed_up() -> None:
    statement = """
import sys
from headwater.catalog.columns import evaluating
from headwater.catalog.columns.encoding import paths_of
from headwater.catalog.wildcards import ANY, text_parts
evaluating.warm()
before = set(sys.modules)
chunk = paths_of(["/a/b.png", "/c"])
for pattern in ("/a*", "*.png", "*b*", "/*b*g"):
    class View:
        def chunk(self, number):
            return chunk
    assert evaluating.PathTest(1, text_parts(pattern)).test(View()).true[0]
assert set(sys.modules) == before, set(sys.modules) - before
"""
    subprocess.run([sys.executable, "-c", statement], check=True)
