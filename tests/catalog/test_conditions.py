"""Conditions on single values: plain Python says what PostgreSQL says."""

import json

import psycopg
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.columns import conditions
from headwater.catalog.query import compile_filter
from headwater.catalog.wildcards import text_parts
from headwater.wire.query import parse_filter
from tests.catalog.matching import (
    DATASET,
    SMALL,
    document,
    document_conditions,
    element_conditions,
    examples,
    glob,
    insert,
    json_values,
    small_conditions,
    text_patterns,
    texts,
)
from tests.catalog.test_query import database as database  # noqa: PLC0414 - a fixture

trees = st.recursive(
    document_conditions | element_conditions,
    lambda inner: st.one_of(
        st.builds(lambda parts: {"$and": parts}, st.lists(inner, max_size=3)),
        st.builds(lambda parts: {"$or": parts}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=3,
)
values = st.dictionaries(st.sampled_from(["k", "n", "a b", "%"]), json_values, max_size=3)
small_trees = small_conditions.map(lambda inner: {"metadata": {"user": inner}}) | small_conditions.map(
    lambda inner: {"metadata.user.k": {"$match": inner}}
)


@examples(60)
@given(
    cases=st.one_of(
        st.tuples(st.lists(values, min_size=4, max_size=8), st.lists(trees, min_size=8, max_size=12)),
        st.tuples(
            st.lists(st.dictionaries(st.sampled_from("kn"), SMALL, max_size=2), min_size=4, max_size=8),
            st.lists(small_trees, min_size=12, max_size=20),
        ),
    )
)
def test_says_what_postgresql_says(database: psycopg.Connection, cases):
    users, asked = cases
    with database.transaction(force_rollback=True):
        insert(database, [document(f"/{n}", n, user=user) for n, user in enumerate(users, 1)])
        rows = database.execute(
            "SELECT item.id, coalesce(user_metadata, '{}')::text FROM item WHERE dataset_id = %s ORDER BY id", [DATASET]
        ).fetchall()
        stored = {row_id: {"metadata": {"user": conditions.load(text)}} for row_id, text in rows}
        for condition in asked:
            tree = parse_filter(condition)
            holds = conditions.of_document(tree)
            if "metadata.system" in json.dumps(condition):
                continue
            where, params = compile_filter(tree, dataset_id=DATASET)
            found = database.execute(b"SELECT item.id FROM item WHERE " + where.as_bytes(database), params).fetchall()
            assert {row_id for row_id, user in stored.items() if holds(user)} == {row_id for (row_id,) in found}, (
                condition
            )


@examples(20)
@given(
    numbers=st.lists(
        st.sampled_from(
            ["0.1", "0.10000000000000000001", "1e400", "5", "5.000", "9007199254740993", "9007199254740992", "-0", "0"]
        ),
        min_size=2,
    ),
    operand=st.sampled_from([0.1, 5, 5.0, 2**53, 2**53 + 1, 2.0**53, 1e300, 0, -0.0, 10**400, 10**500]),
    operator=st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
)
def test_compares_numbers_to_the_last_digit(database: psycopg.Connection, numbers, operand, operator):
    with database.transaction(force_rollback=True):
        insert(database, [document(f"/{n}", n, user={"k": n}) for n in range(1, len(numbers) + 1)])
        for n, number in enumerate(numbers, 1):
            database.execute("UPDATE item SET user_metadata = %s::jsonb WHERE id = %s", [f'{{"k": {number}}}', n])
        tree = parse_filter({"metadata.user.k": {operator: operand}})
        where, params = compile_filter(tree, dataset_id=DATASET)
        found = database.execute(b"SELECT item.id FROM item WHERE " + where.as_bytes(database), params).fetchall()
        holds = conditions.of_value(tree)
        expected = {n for n, number in enumerate(numbers, 1) if holds(conditions.load(number))}
        assert {row_id for (row_id,) in found} == expected


@examples(100)
@given(pattern=text_patterns, text=texts | text_patterns)
def test_matches_as_a_glob_does(pattern, text):
    assert conditions.like(text_parts(pattern))(text) == glob(pattern, text)


def test_patterns_take_time_that_grows_with_the_text():
    matches = conditions.like(text_parts("*" + "a*" * 19 + "b"))
    assert not matches("a" * 100_000)
