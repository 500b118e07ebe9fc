"""Columns of documents hold what PostgreSQL holds, or say that they do not."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from headwater.catalog.columns.documents import ABSENT, UNKNOWN, Meeting, columns_of, find_paths, parse, tree_of

NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**25), max_value=10**25, places=20).map(
        lambda number: format(number, "f")
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda number: format(Decimal(repr(number)), "f")),
    st.floats(0, 1).map(lambda number: format(Decimal(repr(number)), "f") + "000"),
)


@given(st.lists(st.tuples(NUMBERS, st.text(st.sampled_from("0123456789./ ax:,"))), max_size=20))
def test_numbers_are_exact_or_unknown(rows: list[tuple[str, str]]) -> None:
    parsed = parse([f'{{"n": {number}, "t": {json.dumps(text)}}}' for number, text in rows])
    for document, (number, text) in zip(parsed, rows, strict=True):
        assert document["t"] == text
        value = document["n"]
        if value is not UNKNOWN:
            assert Decimal(repr(value)) == Decimal(number)
        else:
            assert len(number.replace(".", "").strip("-0")) > 15


@pytest.mark.parametrize(
    "number", ["0.1", "0.30000000000000004", "0.00001234567890123457", "5.00000000000000000000", "1234567890123456789"]
)
def test_numbers_that_programs_write_are_known(number: str) -> None:
    (document,) = parse([f'{{"n": {number}}}'])
    assert document["n"] is not UNKNOWN


def test_integers_of_any_size_are_kept_but_absurd_ones() -> None:
    large, absurd = "9" * 40, "9" * 5_000
    assert parse([f'{{"n": {large}}}', f'{{"n": {absurd}}}']) == [{"n": int(large)}, {"n": UNKNOWN}]


def test_what_is_nested_too_deeply_is_unknown() -> None:
    deep = '{"a":' * 5_000 + "1" + "}" * 5_000
    number = '{"n": 0.12345678901234567890, "d": ' + deep + "}"
    (first, second, third) = parse([deep, number, None])
    assert first is second is UNKNOWN
    assert third is ABSENT
    assert columns([first], "a") == [[UNKNOWN]]


def columns(documents: list[Any], *paths: str) -> list[list[Any]]:
    tree = tree_of({tuple(path.split(".")): number for number, path in enumerate(paths)})
    found = dict(columns_of(documents, tree))
    return [found[number] for number in range(len(paths))]


def test_a_path_through_a_list_is_unknown_and_through_a_scalar_absent() -> None:
    documents = [
        {"a": {"b": 1}},
        {"a": [{"b": 1}]},
        {"a": 3},
        {"a": None},
        {"a": {"b": [1]}},
        {},
        ABSENT,
        {"a": {"b": None}},
    ]
    whole, below, deeper = columns(documents, "a", "a.b", "a.b.c")
    assert whole == [{"b": 1}, [{"b": 1}], 3, None, {"b": [1]}, ABSENT, ABSENT, {"b": None}]
    assert below == [1, UNKNOWN, ABSENT, ABSENT, [1], ABSENT, ABSENT, None]
    assert deeper == [ABSENT, UNKNOWN, ABSENT, ABSENT, UNKNOWN, ABSENT, ABSENT, ABSENT]


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("xy", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=3), min_size=1, max_size=5))
async def test_as_postgres_sees_it(documents: list[dict[str, Any]]) -> None:
    paths = ["a", "a.b", "a.b.c", "b.a", "c"]
    for path, column in zip(paths, columns(documents, *paths), strict=True):
        for document, value in zip(documents, column, strict=True):
            found = _lax(document, path.split("."))
            if value is ABSENT:
                assert found == []
            elif value is not UNKNOWN:
                assert found == [value]


def _lax(value: Any, keys: list[str]) -> list[Any]:
    """What PostgreSQL's jsonb_path_query finds: compared with it in the test below."""
    if not keys:
        return [value]
    objects = value if isinstance(value, list) else [value]
    return [
        found for one in objects if isinstance(one, dict) and keys[0] in one for found in _lax(one[keys[0]], keys[1:])
    ]


async def test_the_model_is_postgres(conn: AsyncConnection) -> None:
    for document in [
        {"a": [{"b": 1}, {"b": 2}, 3]},
        {"a": {"b": [{"c": 1}]}},
        {"a": [[{"b": 1}]]},
        {"a": None},
        {"a": 1},
    ]:
        for path in ["a", "a.b", "a.b.c"]:
            cursor = await conn.execute(
                "SELECT jsonb_path_query(%s::jsonb, %s::jsonpath)",
                [json.dumps(document), "$." + path],
            )
            assert [value for (value,) in await cursor.fetchall()] == _lax(document, path.split("."))


def test_paths_are_found_as_filters_name_them() -> None:
    documents = [
        {"a": 1, "b": {"c": "x", "d": {}}, "e": [1, 2], "f": [{"g": 1}], "with.dot": 1, "": 0, "z": None},
        {"a": 1.5, "b": 3},
        ABSENT,
        UNKNOWN,
    ]
    found = find_paths("metadata.user", documents)
    names = ["a", "b", "b.c", "e", "", "z"]
    assert {path: seen.count for path, seen in found.items()} == {
        f"metadata.user.{name}": 2 if name == "a" else 1 for name in names
    }
    assert found["metadata.user.a"].values == {1, 1.5}
    assert found["metadata.user.a"].numbers == 2


def _anywhere(value: Any, path: str) -> set[str]:
    """Every path of keys in a value, through lists however deep."""
    if isinstance(value, list):
        return set().union(*(_anywhere(element, path) for element in value))
    if not isinstance(value, dict):
        return set()
    return set().union(*({f"{path}.{key}"} | _anywhere(inner, f"{path}.{key}") for key, inner in value.items()))


@given(
    st.lists(st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=40), max_size=3),
    st.sets(st.sampled_from(["m.a", "m.b", "m.a.a", "m.a.b", "m.c.c"])),
)
def test_all_paths_are_met_and_all_that_columns_can_have_are_found(pieces: list[list[Any]], covered: set[str]) -> None:
    meeting = Meeting(covered)
    for piece in pieces:
        meeting.add("m", [*piece, ABSENT])
    documents = [document for piece in pieces for document in piece]
    assert meeting.paths == set().union(*(_anywhere(document, "m") for document in documents))
    in_all = find_paths("m", documents, covered)
    leading = {path for path in in_all if any(met.startswith(f"{path}.") for met in meeting.paths)}
    assert set(in_all) - leading <= set(meeting.found) <= set(in_all)
    assert not set(meeting.found) & covered


def test_paths_that_are_too_many_or_too_deep_are_not_said_to_be_absent() -> None:
    deep: Any = 1
    for _ in range(30):
        deep = {"a": deep}
    for documents in ([{f"k{n}": n for n in range(3_000)}], [deep], [UNKNOWN], [{"k" * 1_000: 1}]):
        meeting = Meeting([])
        meeting.add("metadata.user", documents)
        meeting.add("metadata.user", [{"b": 1}])
        assert meeting.paths is None
        assert "metadata.user.b" in meeting.found
