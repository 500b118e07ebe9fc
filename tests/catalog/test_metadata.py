"""Metadata in PostgreSQL: merged and taken back as in Python, given by sidecars, patched in bulk."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from headwater.catalog.bulk_metadata import merged_sql
from headwater.wire.items import merged

_KEYS = st.sampled_from(["a", "b", "c", "", "a.b", "ä"])
_LEAVES = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "null"]) | st.lists(st.integers(0, 2))
)
_VALUES = st.recursive(_LEAVES, lambda inner: st.dictionaries(_KEYS, inner, max_size=3), max_leaves=8)
_OBJECTS = st.dictionaries(_KEYS, _VALUES, max_size=4)


def without_nulls(value: Any) -> Any:
    return merged({}, value)


def taken_back(held: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the migration's function says in SQL."""
    rest: dict[str, Any] = {}
    for key, value in held.items():
        if key not in given:
            rest[key] = value
        elif json.dumps(value, sort_keys=True) == json.dumps(given[key], sort_keys=True):  # in Python False is 0
            continue
        elif isinstance(value, dict) and isinstance(given[key], dict):
            if left := taken_back(value, given[key]):
                rest[key] = left
        else:
            rest[key] = value
    return rest


async def ask(conn: AsyncConnection, function: str, *values: Any) -> Any:
    cursor = await conn.execute(f"SELECT {function}(%s, %s)", [None if one is None else Jsonb(one) for one in values])
    (found,) = await cursor.fetchone()
    return found


async def ask_merged(conn: AsyncConnection, before: dict[str, Any], patch: dict[str, Any]) -> Any:
    """As work in bulk has it: small patches without the function."""
    parameters: dict[str, object] = {"before": Jsonb(before)}
    after = merged_sql(Identifier("held"), patch, parameters)
    cursor = await conn.execute(SQL("SELECT {} FROM (SELECT %(before)s) AS one (held)").format(after), parameters)
    (found,) = await cursor.fetchone()
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=_OBJECTS.map(without_nulls), patch=_OBJECTS)
async def test_a_patch_means_the_same_in_postgresql_and_in_python(
    conn: AsyncConnection, before: dict[str, Any], patch: dict[str, Any]
) -> None:
    assert await ask(conn, "jsonb_deep_merge", before, patch) == merged(before, patch)
    assert await ask_merged(conn, before, patch) == merged(before, patch)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(held=_OBJECTS.map(without_nulls), given_before=_OBJECTS.map(without_nulls))
async def test_what_was_given_is_taken_back_and_nothing_else(
    conn: AsyncConnection, held: dict[str, Any], given_before: dict[str, Any]
) -> None:
    assert await ask(conn, "jsonb_take_back", held, given_before) == taken_back(held, given_before)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=_OBJECTS.map(without_nulls))
async def test_what_was_given_to_nothing_leaves_nothing_behind(conn: AsyncConnection, content: dict[str, Any]) -> None:
    held = await ask(conn, "jsonb_deep_merge", None, content)
    assert await ask(conn, "jsonb_take_back", held, content) == {}


@pytest.mark.parametrize(
    "patch",
    [
        {"a%": {"b": {"c": {"d": {"e": {"f": 1}}}}}},
        {f"{n}": {"a": n, "b": None} for n in range(20)},
        {f"{n}": None for n in range(120)} | {"a%": 1},
    ],
    ids=["deep", "objects", "keys"],
)
async def test_a_patch_that_is_deep_or_broad_is_merged_alike(conn: AsyncConnection, patch: dict[str, Any]) -> None:
    before = {"a%": {"b": [1], "x": 1}, "3": {"b": 1, "c": 2}, "4": 4, "%s": {}}
    assert await ask_merged(conn, before, patch) == merged(before, patch)


@pytest.mark.parametrize("number", [20_000])
async def test_a_patch_of_many_keys_is_merged_in_one_go(conn: AsyncConnection, number: int) -> None:
    before = {f"key{n}": n for n in range(number)}
    patch = {f"key{n}": (None if n % 3 == 0 else {"n": n}) for n in range(0, number, 2)}
    assert await ask(conn, "jsonb_deep_merge", before, patch) == merged(before, patch)
