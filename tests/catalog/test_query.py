"""Filters in PostgreSQL against the same filters in plain Python.

The matcher in this file follows docs/reference/queries.md, not the code: it walks JSON and compares.
"""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from headwater.catalog.fields import ANNOTATION_FIELDS, DIR_FIELDS, ITEM_FIELDS
from headwater.catalog.query import (
    EVERYTHING,
    And,
    Condition,
    ElementMatch,
    Not,
    Or,
    Page,
    compile_filter,
    compile_page,
)
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.wire.query import parse_annotations_query, parse_items_query, whole_filter
from tests.catalog.matching import (
    ANNOTATIONS,
    CREATED,
    DATASET,
    OTHER_DATASET,
    Document,
    annotation,
    annotation_queries,
    document,
    documents,
    examples,
    filters,
    insert,
    leaves,
    matches,
    matches_query,
    milliseconds,
    path_patterns,
    paths,
    queries,
    small_conditions,
    small_documents,
    values_at,
)

SDK_QUERIES: dict[str, Any] = json.loads((Path(__file__).parents[1] / "wire/sdk_queries.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def database(new_database: Callable[[], str]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(new_database(), autocommit=True) as conn:
        conn.execute("INSERT INTO account (email) VALUES ('ann@x.org'), ('bob@x.org')")
        yield conn


@pytest.fixture
def db(database: psycopg.Connection) -> Iterator[psycopg.Connection]:
    with database.transaction(force_rollback=True):
        yield database


def found(conn: psycopg.Connection, conditions: Any) -> list[str]:
    """Paths of the items in DATASET, in order of their ids."""
    return files_of(conn, {"filter": conditions})


def files_of(conn: psycopg.Connection, body: Any) -> list[str]:
    query = parse_items_query(body)
    if query.files is None:
        return []
    where, params = compile_filter(query.files, dataset_id=DATASET)
    order, page = compile_page(query.page)
    statement = sql.SQL("SELECT item.path FROM item WHERE {} {}").format(where, order)
    return [row[0] for row in conn.execute(statement, {**params, **page}).fetchall()]


def annotations_of(conn: psycopg.Connection, body: Any) -> list[str]:
    """Ids of the annotations in DATASET, in their order unless the body has one."""
    query = parse_annotations_query({"resource": "annotations", **body})
    where, params = compile_filter(query.tree, dataset_id=DATASET, fields=ANNOTATION_FIELDS)
    order, page = compile_page(query.page, ANNOTATION_FIELDS)
    statement = sql.SQL("SELECT annotation.id FROM annotation WHERE {} {}").format(where, order)
    return [to_wire(row[0]) for row in conn.execute(statement, {**params, **page}).fetchall()]


def dirs_of(conn: psycopg.Connection, body: Any) -> list[str]:
    query = parse_items_query(body)
    if query.dirs is None:
        return []
    where, params = compile_filter(query.dirs, dataset_id=DATASET, fields=DIR_FIELDS)
    order, page = compile_page(query.page, DIR_FIELDS)
    statement = sql.SQL("SELECT folder.path FROM folder WHERE {} {}").format(where, order)
    return [row[0] for row in conn.execute(statement, {**params, **page}).fetchall()]


# Any items, any filter: PostgreSQL finds what the matcher finds.


@examples(50)
@given(items=documents(), conditions=st.lists(filters, min_size=6, max_size=10))
def test_finds_what_the_matcher_finds(database: psycopg.Connection, items, conditions):
    with database.transaction(force_rollback=True):
        folders = insert(database, items)
        for condition in conditions:
            expected = [item["filename"] for item in items if matches(condition, item)]
            assert found(database, condition) == expected, json.dumps(condition)
            if '"type"' in json.dumps(condition):
                query = parse_items_query({"filter": condition})
                wanted = [folder["filename"] for folder in folders if matches(condition, folder)]
                assert (query.dirs is None and not wanted) or dirs_of(database, {"filter": condition}) == wanted


@examples(60)
@given(items=documents(), bodies=st.lists(queries, min_size=6, max_size=10))
def test_finds_by_joins_and_sets_what_the_matcher_finds(database: psycopg.Connection, items, bodies):
    with database.transaction(force_rollback=True):
        insert(database, items)
        for body in bodies:
            expected = [item["filename"] for item in items if matches_query(body, item)]
            assert files_of(database, body) == expected, json.dumps(body)
            kept = {"filter": whole_filter(body)}
            assert files_of(database, kept) == expected, json.dumps(kept)


@examples(60)
@given(items=documents(), bodies=st.lists(annotation_queries, min_size=6, max_size=10))
def test_finds_annotations_that_the_matcher_finds(database: psycopg.Connection, items, bodies):
    every = [found for item in items for found in item[ANNOTATIONS]]
    with database.transaction(force_rollback=True):
        insert(database, items)
        for body in bodies:
            expected = [found["id"] for found in every if matches_query(body, found)]
            assert annotations_of(database, body) == expected, json.dumps(body)


@examples(40)
@given(
    users=st.lists(small_documents, min_size=4, max_size=8),
    conditions=st.lists(small_conditions, min_size=12, max_size=20),
)
def test_finds_what_lies_in_documents(database: psycopg.Connection, users, conditions):
    items = [document(f"/{number}", number, user=user) for number, user in enumerate(users, 1)]
    with database.transaction(force_rollback=True):
        insert(database, items)
        for inner in conditions:
            for condition in ({"metadata": {"user": inner}}, {"metadata.user.k": {"$match": inner}}):
                expected = [item["filename"] for item in items if matches(condition, item)]
                assert found(database, condition) == expected, json.dumps(condition)


# Values that lie in the document are met often; random ones seldom are.


@examples(50)
@given(items=documents(), data=st.data())
def test_finds_values_that_are_there(database: psycopg.Connection, items, data):
    with database.transaction(force_rollback=True):
        insert(database, items)
        for _ in range(6):
            item = data.draw(st.sampled_from(items))
            name, value = data.draw(st.sampled_from(list(leaves("", item))))
            operator = data.draw(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in"]))
            if isinstance(value, datetime):
                value = milliseconds(value).isoformat()
            if name == "label":
                value = data.draw(st.sampled_from(value))
            if name in ("hidden", "annotated", "metadata.system.missing"):  # these have no order
                operator = "$eq"
            condition = {name: {operator: [value] if operator == "$in" else value}}
            expected = [item["filename"] for item in items if matches(condition, item)]
            assert found(database, condition) == expected, json.dumps(condition)


def _starred(draw: st.DrawFn, path: str) -> str:
    """A pattern made of a path: pieces of it give way to wildcards."""
    pieces = re.split("(/)", path)
    for at, piece in enumerate(pieces):
        wild = [piece + "*", "*" + piece, "*", "**", "", "***"] if piece != "/" else ["*", "**", "/**/", "/*", "*/"]
        if draw(st.booleans()):
            pieces[at] = draw(st.sampled_from(wild))
    return "".join(pieces)


@st.composite
def paths_and_patterns(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    every = draw(st.lists(paths, unique=True, min_size=3, max_size=12))
    patterns = draw(st.lists(path_patterns, max_size=2))
    return every, patterns + [_starred(draw, path) for path in every for _ in range(2)]


@examples(40)
@given(paths_and_patterns())
def test_finds_paths_by_any_pattern(database: psycopg.Connection, paths_and_patterns):
    every, patterns = paths_and_patterns
    items = [document(path, number) for number, path in enumerate(every, 1)]
    with database.transaction(force_rollback=True):
        folders = insert(database, items)
        for pattern in patterns:
            for name in ("filename", "dir"):
                both = {name: pattern, "type": {"$in": ["file", "dir"]}}
                wanted = [item["filename"] for item in folders if matches(both, item)]
                assert found(database, both) == [item["filename"] for item in items if matches(both, item)], both
                assert dirs_of(database, {"filter": both}) == wanted, both


@examples(40)
@given(
    items=documents(),
    sort=st.lists(
        st.tuples(
            st.sampled_from(
                [
                    "id",
                    "name",
                    "filename",
                    "dir",
                    "createdAt",
                    "creator",
                    "description",
                    "hidden",
                    "metadata.system.size",
                    "metadata.system.width",
                    "metadata.system.mimetype",
                ]
            ),
            st.booleans(),
        ),
        max_size=3,
        unique_by=lambda key: key[0],
    ),
)
def test_sorts_as_python_does(database: psycopg.Connection, items, sort):
    expected = list(items)
    for name, descending in reversed([*sort, ("id", bool(sort) and sort[-1][1])]):
        has = [item for item in expected if values_at(item, name.split("."))]
        has_not = [item for item in expected if not values_at(item, name.split("."))]
        has.sort(key=lambda item, name=name: values_at(item, name.split("."))[0], reverse=descending)
        expected = has + has_not
    with database.transaction(force_rollback=True):
        insert(database, items)
        order, params = compile_page(Page(tuple(sort), 0, 1000))
        statement = sql.SQL("SELECT item.path FROM item WHERE item.dataset_id = 7 {}").format(order)
        assert [row[0] for row in database.execute(statement, params).fetchall()] == [
            item["filename"] for item in expected
        ]


# One dataset that a person can read.


@pytest.fixture
def dataset(db: psycopg.Connection) -> psycopg.Connection:
    march = datetime(2024, 3, 5, tzinfo=UTC)
    refs = [{"id": "t1", "type": "task", "metadata": {"status": "done"}}, {"id": "t2", "type": "task"}]
    insert(
        db,
        [
            document("/a/b/one.jpg", 1, mimetype="image/jpeg", user={"n": 1, "states": ["completed", "approved"]}),
            document("/a/b/c/two.png", 2, mimetype="image/png", user={"n": 2, "states": ["completed"]}),
            document("/a/three.mp4", 3, mimetype="video/mp4", created=march, system={"refs": refs}),
            document("/x/noext", 4, created=datetime(2023, 1, 1, tzinfo=UTC), system={"refs": refs[1:]}),
            document("/four.jpg", 5, mimetype="image/jpeg", hidden=True),
            document("/ab/five.jpg", 6, user={"n": "1"}),
        ],
    )
    return db


ONE, TWO, THREE, NOEXT, FOUR, FIVE = (
    "/a/b/one.jpg",
    "/a/b/c/two.png",
    "/a/three.mp4",
    "/x/noext",
    "/four.jpg",
    "/ab/five.jpg",
)
SHOWN = [ONE, TWO, THREE, NOEXT, FIVE]


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("default", SHOWN),
        ("no_defaults", [ONE, TWO, THREE, NOEXT, FOUR, FIVE]),
        ("folder by filename", [ONE, TWO]),
        ("folder with a slash", [ONE, TWO]),
        ("file without extension", [NOEXT]),
        ("file with extension", [ONE]),
        ("filename star", [ONE, TWO, THREE]),
        ("filename jpg", [ONE, FIVE]),
        ("get by path", [NOEXT]),
        ("get dir", []),
        ("filenames in", [ONE, TWO]),
        ("list of dirs", []),
        ("files and dirs", SHOWN),
        ("folder download", [ONE, TWO, THREE]),
        ("folder download with defaults", [ONE, TWO, THREE]),
        ("mimetype", [ONE, TWO]),
        ("created wildcard", [ONE, TWO, THREE, FIVE]),
        ("created between", [ONE, TWO, THREE, FIVE]),
        ("whole list", [ONE]),
        ("exists", [ONE, TWO, FIVE]),
        ("not exists", [THREE, NOEXT]),
        ("not equal", [TWO, THREE, NOEXT, FIVE]),
        ("nin", [THREE, NOEXT, FIVE]),
        ("refs match", [THREE]),
        ("next page", [THREE, NOEXT, FIVE]),
        ("next page by createdAt", [NOEXT, THREE, TWO, ONE]),
        ("update", SHOWN),
        ("delete", [ONE, TWO, THREE]),
        ("custom bare", [ONE, TWO]),
        ("custom with join", SHOWN),
        ("custom empty", [ONE, TWO, THREE, NOEXT, FOUR, FIVE]),
        ("export split", [NOEXT]),
        ("context", SHOWN),
    ],
)
def test_the_filters_of_the_sdk(dataset: psycopg.Connection, name, files):
    assert files_of(dataset, SDK_QUERIES[name]) == files


def test_the_folders_of_the_sdk(dataset: psycopg.Connection):
    assert dirs_of(dataset, SDK_QUERIES["get dir"]) == ["/a/b"]
    assert sorted(dirs_of(dataset, SDK_QUERIES["list of dirs"])) == ["/a", "/a/b", "/a/b/c", "/ab", "/x"]
    assert dirs_of(dataset, SDK_QUERIES["default"]) == []
    below = {"filter": {"type": "dir", "dir": "/a/*"}, "sort": {"name": "descending"}}
    assert dirs_of(dataset, below) == ["/a/b/c", "/a/b"]
    assert dirs_of(dataset, {"filter": {"type": "dir", "filename": "/"}}) == []


def test_the_hidden_folder_is_hidden(db: psycopg.Connection):
    insert(db, [document("/.dataloop/x.json", 1), document("/.dataloop2/x.json", 2)])
    assert dirs_of(db, {"filter": {"type": "dir", "hidden": False}}) == ["/.dataloop2"]


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("/a/b/**", ["/a/b/c", "/a/b/c/d", "/a/b"]),
        ("/a/b/*", ["/a/b/c", "/a/b/c/d"]),
        ("/a/b*", ["/a/b/c", "/a/b/c/d", "/a/b", "/a/bc"]),
        ("/a/*/d", []),
        ("/a/*/c", ["/a/b/c"]),
        ("/a/**/d", ["/a/b/c/d", "/a/d"]),
        ("/a/**d", ["/a/b/c/d", "/a/d"]),
        ("*/d", ["/a/b/c/d", "/a/d"]),
        ("*", ["/a/b/c", "/a/b/c/d", "/a/b", "/a/bc", "/a/d", "/A/b", "/a%b", "/a\\b"]),
        ("/**", ["/a/b/c", "/a/b/c/d", "/a/b", "/a/bc", "/a/d", "/A/b", "/a%b", "/a\\b"]),
        ("/a%b", ["/a%b"]),
        ("/a\\b", ["/a\\b"]),
        ("/a_b*", []),
        ("/a%*", ["/a%b"]),
        ("/a\\*", ["/a\\b"]),
        ("/A/*", ["/A/b"]),
        ("a/*", []),
    ],
)
def test_wildcards_in_paths(db: psycopg.Connection, pattern, paths):
    every = ["/a/b/c", "/a/b/c/d", "/a/b", "/a/bc", "/a/d", "/A/b", "/a%b", "/a\\b"]
    insert(db, [document(path, number) for number, path in enumerate(every, 1)])
    assert found(db, {"filename": pattern}) == paths


@pytest.mark.parametrize("last", ["a", "\ud7ff", "\U0010fffe", "\U0010ffff", "\x7f"])
def test_a_range_ends_after_the_last_character_there_is(db: psycopg.Connection, last):
    odd = ["", "a", "b", "{", "\x7f", "\x80", "\ud7ff", "\ue000", "\U0010fffe", "\U0010ffff"]
    every = ["/z" + first + second for first in odd for second in ("", "\1", "\ue000", "\U0010ffff")] + ["/{"]
    insert(db, [document(path, number) for number, path in enumerate(dict.fromkeys(every), 1)])
    wanted = [path for path in dict.fromkeys(every) if path.startswith("/z" + last)]
    assert found(db, {"filename": "/z" + last + "*"}) == wanted


@pytest.mark.parametrize("field", ["name", "description", "metadata.user.text", "metadata.user.list"])
@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a_b*", ["a_b"]),
        ("*%*", ["a%b"]),
        ("a\\*", ["a\\b"]),
        ("*b", ["a_b", "a%b", "a\\b", "axb"]),
        ("a**b", ["a_b", "a%b", "a\\b", "axb"]),
        ("A*", ["A"]),
        ("x", []),
        ("**", ["a_b", "a%b", "a\\b", "axb", "A"]),
    ],
)
def test_wildcards_in_other_texts(db: psycopg.Connection, field, pattern, names):
    every = ["a_b", "a%b", "a\\b", "axb", "A"]
    insert(
        db,
        [
            document("/" + name, number, description=name, user={"text": name, "list": [1, name]})
            for number, name in enumerate(every, 1)
        ],
    )
    assert found(db, {field: pattern}) == ["/" + name for name in names]
    assert found(db, {field: {"$in": [pattern, "no such"]}}) == ["/" + name for name in names]
    assert found(db, {field: {"$ne": pattern}}) == ["/" + name for name in every if name not in names]


def test_a_folder_with_a_wildcard_at_its_end_is_that_folder_and_all_below(db: psycopg.Connection):
    insert(db, [document(path, n) for n, path in enumerate(["/a/1", "/a/b/2", "/a/b/c/3", "/ab/4", "/5"], 1)])
    assert found(db, {"dir": "/a"}) == ["/a/1"]
    assert found(db, {"dir": "/"}) == ["/5"]
    assert found(db, {"dir": {"$in": ["/", "/a/b"]}}) == ["/a/b/2", "/5"]
    for pattern in ("/a/*", "/a/**"):
        assert found(db, {"dir": pattern}) == ["/a/1", "/a/b/2", "/a/b/c/3"]
    assert found(db, {"dir": {"$in": ["/", "/a/*"]}}) == ["/a/1", "/a/b/2", "/a/b/c/3", "/5"]
    assert found(db, {"dir": "/a*"}) == ["/a/1", "/a/b/2", "/a/b/c/3", "/ab/4"]
    assert found(db, {"dir": {"$ne": "/a/*"}}) == ["/ab/4", "/5"]


def test_match_asks_one_element_for_everything(db: psycopg.Connection):
    """As the SDK asks for the items of a task: `status` of one element and `id` of another are no match."""
    mixed = [{"id": "t1", "metadata": {}}, {"id": "t2", "metadata": {"status": "done"}}]
    right = [{"id": "t1", "metadata": {"status": "done"}}, {"id": "t2"}]
    insert(db, [document("/1", 1, system={"refs": mixed}), document("/2", 2, system={"refs": right})])
    both = {"id": "t1", "metadata": {"status": {"$exists": True}}}
    assert found(db, {"metadata.system.refs": {"$match": both}}) == ["/2"]
    assert found(db, {"metadata.system.refs.id": "t1", "metadata.system.refs.metadata.status": "done"}) == ["/1", "/2"]


@pytest.mark.parametrize("name", ["id", "filename", "name", "dir", "createdAt", "hidden", "creator"])
@pytest.mark.parametrize("value", [5, 10**30, 0.5, True, "000000000000000000000001", None, ["a"], [5, "a", None]])
def test_values_of_another_type_are_no_error_of_the_database(dataset: psycopg.Connection, name, value):
    for operator in ("$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin"):
        operand = [value] if operator in ("$in", "$nin") else value
        try:
            result = found(dataset, {name: {operator: operand}})
        except BadRequest:
            is_equality = operator in ("$eq", "$ne", "$in", "$nin")
            assert value is not None or (not is_equality and name in ("id", "createdAt", "hidden"))
            assert not isinstance(value, str) or name in ("createdAt", "hidden")
            assert not isinstance(value, bool) or name != "hidden" or not is_equality
        else:
            assert value is None or isinstance(value, bool if name == "hidden" else str)
            assert set(result) <= {ONE, TWO, THREE, NOEXT, FOUR, FIVE}


@pytest.mark.parametrize(
    "value", [10**40, -(10**40), 2**63, 1e300, 5e-324, 10**900, [10**40], "9" * 100, {"a": 10**40}, [[[]]], ""]
)
@pytest.mark.parametrize("name", ["metadata.system.size", "metadata.user.n", "metadata.system.exif.x", "metadata.user"])
def test_large_numbers_and_odd_values_are_compared(dataset: psycopg.Connection, name, value):
    everything = [ONE, TWO, THREE, NOEXT, FOUR, FIVE]
    if name == "metadata.system.size" and not isinstance(value, int | float):
        with pytest.raises(BadRequest, match="is a number, not"):
            found(dataset, {name: {"$eq": value}})
        return
    assert found(dataset, {name: {"$eq": value}}) == []
    assert found(dataset, {name: {"$ne": value}}) == everything
    for operator in ("$gt", "$gte", "$lt", "$lte"):
        found(dataset, {name: {operator: value}})
    assert found(dataset, {"metadata.system.size": {"$lt": 10**900}}) == everything


def test_ids_past_the_largest_compare_as_numbers_do(dataset: psycopg.Connection):
    """The SDK halves ranges of ids as numbers of twelve bytes."""
    largest, past = to_wire(2**63 - 1), "f" * 24
    everything = [ONE, TWO, THREE, NOEXT, FOUR, FIVE]
    for text in (largest, past, past.upper()):
        assert found(dataset, {"id": {"$lte": text}}) == found(dataset, {"id": {"$lt": text}}) == everything
        assert found(dataset, {"id": {"$gt": text}}) == found(dataset, {"id": {"$gte": text}}) == []
        assert found(dataset, {"id": text}) == []
        assert found(dataset, {"id": {"$nin": [text, to_wire(1)]}}) == everything[1:]


def test_times_compare_as_they_are_shown(db: psycopg.Connection):
    insert(db, [document("/a", 1, created=datetime(2024, 3, 1, 12, 0, 0, 123456, UTC))])
    shown = "2024-03-01T12:00:00.123Z"
    for condition in (shown, {"$gte": shown}, {"$lte": shown}, {"$lt": "2024-03-01T12:00:00.124Z"}, "2024-03-*"):
        assert found(db, {"createdAt": condition}) == ["/a"]
    for condition in ({"$gt": shown}, {"$lt": shown}, {"$ne": shown}, "2024-04-*"):
        assert found(db, {"createdAt": condition}) == []
    assert found(db, {"createdAt": "2024-03-01T14:00:00.123+02:00"}) == ["/a"]
    assert found(db, {"createdAt": {"$gt": "2024-03-01"}}) == ["/a"]


HOSTILE = [
    "'; DROP TABLE item; --",
    '" ? (@ == 1)',
    '"); SELECT 1',
    "%(dataset_id)s",
    "%s",
    "{}",
    "{0}",
    "$value",
    "\\",
    "'",
    '"',
    '."a"',
    "$.*",
    "[*]",
    "",
    " ",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_never_becomes_sql_nor_a_json_path(db: psycopg.Connection, text):
    key = text.replace(".", "")
    insert(db, [document("/" + text.replace("/", ""), 1, user={key: text, "other": 1}, description=text)])
    path = "/" + text.replace("/", "")
    assert found(db, {"metadata": {"user": {"x" + key: text}}}) == []
    for condition in (
        {"metadata.user." + key: text},
        {"metadata.user." + key: {"$in": [text, 5]}},
        {"metadata.user." + key: text + "*"},
        {"metadata.user": {"$match": {"other": 1}}},
        {"metadata.user": {"$eq": {key: text, "other": 1}}},
        {"description": text},
        {"description": "*" + text + "*"},
        {"filename": path},
        {"filename": path + "*"},
        {"filename": {"$gte": path}},
        {"dir": {"$ne": text}},
        {"name": {"$in": [path[1:], "x"]}},
    ):
        assert found(db, condition) == [path], condition
    order, params = compile_page(Page((("metadata.user." + key, True),), 0, 5))
    db.execute(sql.SQL("SELECT FROM item {}").format(order), params)


def test_a_filter_never_leaves_its_dataset(db: psycopg.Connection):
    insert(db, [document("/mine", 1)], DATASET)
    insert(db, [document("/other", 1)], OTHER_DATASET)
    for condition in ({}, {"$or": [{"filename": "*"}, {"hidden": False}]}, {"datasetId": to_wire(OTHER_DATASET)}):
        assert "/other" not in found(db, condition)
    assert found(db, {"dir": {"$exists": True}}) == ["/mine"]


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (Condition("secret", "eq", 1), "Known fields: id, datasetId, filename"),
        (Condition("object_key", "eq", 1), "no field 'object_key'"),
        (Condition("metadata.system", "exists", True), "no field"),
        (Condition("metadata.other.x", "eq", 1), "no field"),
        (Condition("item.etag", "eq", 1), "no field"),
        (Condition("metadata.user." + "a." * 60, "eq", 1), "too deep"),
        (Condition("name", "eq", "a\0b"), "NUL"),
        (Condition("metadata.user.a\0", "exists", True), "NUL"),
        (Condition("metadata.user.a", "eq", {"a": ["\0"]}), "NUL"),
        (Condition("metadata.user.a", "eq", {"\0": 1}), "NUL"),
        (Condition("name", "in", ["\ud800"]), "surrogate"),
        (Condition("metadata.user.\ud800", "eq", 1), "surrogate"),
        (Condition("metadata.user.a", "eq", float("nan")), "no number"),
        (Condition("metadata.system.size", "gt", float("inf")), "no number"),
        (Condition("metadata.user.a", "eq", 10**2000), "1,000 digits"),
        (Condition("id", "gt", "abc"), "24 hexadecimal digits"),
        (Condition("id", "lt", 5), "24 hexadecimal digits"),
        (Condition("createdAt", "gt", "yesterday"), "no time"),
        (Condition("createdAt", "gt", "0001-01-01T00:00:00+10:00"), "no time"),
        (Condition("name", "in", "a"), "list"),
        (Condition("name", "exists", "yes"), "true or false"),
        (Condition("name", "eq", "*a" * 30), "wildcards"),
        (Condition("name", "eq", "a" * 5000 + "*"), "characters"),
        (ElementMatch("name", EVERYTHING), "single value"),
        (And((Condition("name", "eq", "a"),) * 1001), "1,000 conditions"),
        (Condition("name", "in", ["a*"] * 1001), "1,000 conditions"),
        (Condition("name", "in", [1] * 100_001), "100,000"),
    ],
)
def test_what_cannot_be_asked_is_said_in_a_sentence(tree, says):
    with pytest.raises(BadRequest, match=says):
        compile_filter(tree, dataset_id=1)


def test_trees_and_values_that_are_too_deep_are_refused():
    tree: Any = Condition("name", "eq", "a")
    for _ in range(60):
        tree = Not(tree)
    with pytest.raises(BadRequest, match="50 levels"):
        compile_filter(tree, dataset_id=1)
    value: Any = 1
    for _ in range(60):
        value = [value]
    with pytest.raises(BadRequest, match="50 levels"):
        compile_filter(Condition("metadata.user.a", "eq", value), dataset_id=1)


def test_what_is_known_of_a_file_can_be_asked_as_it_is_shown(db: psycopg.Connection):
    insert(
        db,
        [
            document(f"/{name}", number, system={"originalname": "scan.tif"} if number == 3 else None)
            for number, name in enumerate(["waiting", "done", "failed"], 1)
        ],
    )
    db.execute(
        "UPDATE item SET etl_state = id - 1, thumbnail_type = CASE id WHEN 2 THEN 'image/jpeg' END WHERE dataset_id = 7"
    )
    db.execute("""UPDATE item SET system_metadata = system_metadata || '{"etl": {"state": "failed"}}' WHERE id = 3""")
    assert found(db, {"metadata.system.etl.state": "waiting"}) == ["/waiting"]
    assert found(db, {"metadata.system.etl.state": "fail*"}) == ["/failed"]
    assert found(db, {"metadata.system.etl.state": None}) == ["/done"]
    assert found(db, {"metadata.system.thumbnailId": {"$exists": False}}) == ["/waiting", "/failed"]
    assert found(db, {"metadata.system.thumbnailId": to_wire(2)}) == ["/done"]
    assert found(db, {"metadata.system.originalname": "scan.*"}) == ["/failed"]
    assert found(db, {"metadata.system.originalname": "done"}) == ["/done"]


def test_what_the_tutorials_write_finds_what_they_say(db: psycopg.Connection):
    done = {"id": "5", "metadata": {"status": "done"}}
    insert(
        db,
        [
            document("/a/none.jpg", 1, size=10),
            document("/a/some.jpg", 2, size=6_000_000, user={"k": 1}, system={"refs": [done, {"id": "6"}]}),
            document("/b/other.jpg", 3, size=5, system={"refs": [{"id": "5"}, {**done, "id": "6"}]}),
        ],
    )
    between = {"$and": [{"metadata.system.size": {"$gt": "0"}}, {"metadata.system.size": {"$lt": "5242880"}}]}
    assert found(db, between) == ["/a/none.jpg", "/b/other.jpg"]  # in quotes
    assert found(db, {"metadata.system.size": "10"}) == ["/a/none.jpg"]
    assert found(db, {"metadata.user": {"$exists": True}}) == ["/a/some.jpg"]
    assert found(db, {"metadata.system.refs": []}) == ["/a/none.jpg"]  # unassigned
    assert found(db, {"metadata.system.annotationStatus": []}) == ["/a/none.jpg", "/a/some.jpg", "/b/other.jpg"]
    assert found(db, {"metadata.system.encoding": "7bit"}) == ["/a/none.jpg", "/a/some.jpg", "/b/other.jpg"]
    assert found(db, {"dir": "/a/"}) == ["/a/none.jpg", "/a/some.jpg"]
    one_reference = {"metadata.system.refs": {"id": {"$in": ["5"]}, "metadata": {"status": {"$in": ["done"]}}}}
    assert found(db, one_reference) == ["/a/some.jpg"]
    apart = {"metadata.system.refs.id": "5", "metadata.system.refs.metadata.status": "done"}
    assert found(db, apart) == ["/a/some.jpg", "/b/other.jpg"]


def test_labels_of_an_item_are_those_of_its_annotations(db: psycopg.Connection):
    both = [annotation(1, label="dog"), annotation(2, label="cat")]
    insert(
        db,
        [
            document("/both", 1, annotations=both),
            document("/none", 2),
            document("/dog", 3, annotations=[annotation(3, label="dog")]),
        ],
    )
    assert found(db, {"label": "cat"}) == ["/both"]
    assert found(db, {"label": {"$ne": "cat"}}) == ["/none", "/dog"]
    assert found(db, {"label": {"$exists": False}}) == ["/none"]
    assert found(db, {"label": "d*"}) == ["/both", "/dog"]
    assert files_of(db, {"sort": {"label": "descending"}}) == ["/dog", "/both", "/none"]
    assert found(db, {"annotationsCount": {"$gt": 1}}) == ["/both"]
    assert found(db, {"annotated": True}) == ["/both", "/dog"]
    # A join asks for one annotation that is no cat, a set for items without any.
    assert files_of(db, {"join": {"filter": {"label": {"$ne": "cat"}}}}) == ["/both", "/dog"]
    assert files_of(db, {"except": {"query": {"join": {"filter": {"label": "cat"}}}}}) == ["/none", "/dog"]
    dirs = {"filter": {"type": "dir"}, "except": {"query": {"join": {"filter": {"label": "cat"}}}}}
    assert dirs_of(db, dirs) == []


def test_annotations_sort_by_their_fields(db: psycopg.Connection):
    later = CREATED + timedelta(days=1)
    some = [annotation(1, label="b"), annotation(2, label="a"), annotation(3, label="a", created=later)]
    insert(db, [document("/x", 1, annotations=some)])
    sort = {"label": "ascending", "createdAt": "descending"}
    assert annotations_of(db, {"sort": sort}) == [to_wire(3), to_wire(2), to_wire(1)]
    assert annotations_of(db, {"sort": sort, "page": 1, "pageSize": 2}) == [to_wire(1)]
    assert annotations_of(db, {"pageSize": 0}) == []


def test_the_largest_allowed_filters_run(db: psycopg.Connection):
    insert(db, [document("/a", 1)])
    wide = Or(tuple(Condition("metadata.user.a", "eq", number) for number in range(1000)))
    deep: Any = Condition("name", "eq", "a")
    for number in range(48):
        deep = Not(deep) if number % 2 else And((deep, EVERYTHING))
    long = Condition("filename", "eq", "/" + "(a|b)+" * 600 + "*/*")
    many = Condition("id", "in", [to_wire(number) for number in range(20_000)])
    for tree in (wide, deep, long, many):
        where, params = compile_filter(tree, dataset_id=DATASET)
        db.execute(sql.SQL("SELECT item.id FROM item WHERE {}").format(where), params)


def test_every_field_can_be_sorted_by_and_asked_for(dataset: psycopg.Connection):
    for table, fields in (("item", ITEM_FIELDS), ("folder", DIR_FIELDS), ("annotation", ANNOTATION_FIELDS)):
        for name in [*fields.named, "metadata.user.a", "metadata.system.exif.a"]:
            for descending in (False, True):
                where, params = compile_filter(Condition(name, "exists", value=True), dataset_id=1, fields=fields)
                order, page = compile_page(Page(((name, descending),), 1, 5), fields, lookahead=1)
                statement = sql.SQL("SELECT FROM {} WHERE {} {}").format(sql.Identifier(table), where, order)
                dataset.execute(statement, {**params, **page})


def test_json_sorts_by_value_and_last_without_one(db: psycopg.Connection):
    users = [{"n": 10}, {"n": 9.5}, None, {"n": 9}]
    insert(db, [document(f"/{number}", number, user=user) for number, user in enumerate(users)])
    for direction, expected in (("ascending", ["/3", "/1", "/0", "/2"]), ("descending", ["/0", "/1", "/3", "/2"])):
        assert files_of(db, {"filter": {}, "sort": {"metadata.user.n": direction}}) == expected


def test_pages_have_an_order_and_an_end(dataset: psycopg.Connection):
    pages = [files_of(dataset, {"page": page, "pageSize": 4, "sort": {"hidden": "ascending"}}) for page in range(3)]
    assert pages == [[ONE, TWO, THREE, NOEXT], [FIVE, FOUR], []]
    assert files_of(dataset, {"pageSize": 0}) == []
    order, params = compile_page(Page((("id", False),), 1, 2), lookahead=1)
    assert order.as_string() == "ORDER BY item.id ASC LIMIT %(page_limit)s OFFSET %(page_offset)s"
    assert params == {"page_limit": 3, "page_offset": 2}


# Plans.


@pytest.fixture(scope="module")
def large(new_database: Callable[[], str]) -> Iterator[psycopg.Connection]:
    with psycopg.connect(new_database(), autocommit=True) as conn:
        conn.execute(
            """
            INSERT INTO folder (dataset_id, id, path, parent_id)
            SELECT d, 1000000 + n, '/f' || lpad(n::text, 3, '0'), 1000000 FROM generate_series(1, 3) AS d,
                generate_series(1, 100) AS n
            """
        )
        conn.execute(
            """
            INSERT INTO item (dataset_id, id, folder_id, size_bytes, path, etag)
            SELECT d, n, 1000000 + 1 + n % 100, n,
                '/f' || lpad((1 + n % 100)::text, 3, '0') || '/' || n || '.jpg', ''
            FROM generate_series(1, 3) AS d, generate_series(1, 20000) AS n
            """
        )
        conn.execute(
            """
            INSERT INTO annotation (dataset_id, item_id, creator_id, updated_by_id, type, label)
            SELECT 2, n, 1, 1, 'box', CASE n % 1000 WHEN 0 THEN 'rare' ELSE 'common' END
            FROM generate_series(1, 20000) AS n
            """
        )
        conn.execute("ANALYZE folder, item, annotation")
        yield conn


def plan_of(conn: psycopg.Connection, body: Document) -> tuple[str, int]:
    """The plan, and the pages it read."""
    query = parse_items_query(body)
    assert query.files is not None
    where, params = compile_filter(query.files, dataset_id=2)
    order, page = compile_page(query.page, lookahead=1)
    statement = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) SELECT item.id FROM item WHERE {} {}")
    lines = [row[0] for row in conn.execute(statement.format(where, order), {**params, **page}).fetchall()]
    text = "\n".join(lines)
    buffers = re.search(r"Buffers: shared hit=(\d+)", text)
    return text, int(buffers[1]) if buffers else 0


@pytest.mark.parametrize("pattern", ["/f007/**", "/f007/*", "/f007/1*", "/f007/*6.jpg", "/f007/**/106.jpg"])
def test_a_pattern_with_a_beginning_reads_a_range_of_the_index(large: psycopg.Connection, pattern):
    plan, pages = plan_of(large, {"filter": {"hidden": False, "filename": pattern}})
    assert "item_path_unique" in plan
    assert re.search(r"Index Cond: .*path >= '/f007/\S*'::text\) AND \(path < '/f007", plan), plan
    assert pages < 300


@pytest.mark.parametrize(("operator", "direction"), [("$gt", "ascending"), ("$lt", "descending")])
def test_the_next_page_begins_where_the_last_ended(large: psycopg.Connection, operator, direction):
    conditions = [{"hidden": False}, {"type": "file"}, {"id": {operator: to_wire(10_000)}}]
    plan, pages = plan_of(large, {"filter": {"$and": conditions}, "sort": {"id": direction}, "pageSize": 100})
    assert "using item_pkey" in plan
    assert "Sort" not in plan
    assert pages < 30


@pytest.mark.parametrize(
    ("body", "join"),
    [
        ({"join": {"filter": {"label": "rare"}}}, ""),
        ({"except": {"query": {"join": {"filter": {"label": "rare"}}}}}, "Anti Join"),
        ({"filter": {"label": {"$ne": "rare"}}}, "Anti Join"),
    ],
)
def test_items_are_joined_by_the_index_of_labels(large: psycopg.Connection, body, join):
    plan, pages = plan_of(large, {"filter": {"hidden": False}, "sort": {"id": "ascending"}, "pageSize": 20, **body})
    assert "annotation_label" in plan, plan
    assert join in plan
    assert pages < 1_500  # as many as the items have


def test_one_folder_is_read_in_order_from_its_index(large: psycopg.Connection):
    conditions = {"dir": "/f007", "id": {"$gt": to_wire(10_000)}}
    plan, pages = plan_of(large, {"filter": conditions, "sort": {"id": "ascending"}, "pageSize": 20})
    assert "using item_folder" in plan
    assert "Sort" not in plan
    assert pages < 60


def test_a_list_by_path_needs_no_sort(large: psycopg.Connection):
    for direction in ("ascending", "descending"):
        plan, pages = plan_of(large, {"filter": {}, "sort": {"filename": direction}, "pageSize": 50})
        assert "item_path_unique" in plan
        assert "Sort" not in plan
        assert pages < 100
