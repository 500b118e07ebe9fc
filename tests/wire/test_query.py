"""Bodies of queries: what they mean, and what is said of those that mean nothing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from headwater.catalog.fields import ANNOTATION_FIELDS, ITEM_FIELDS
from headwater.catalog.query import EVERYTHING, And, Condition, ElementMatch, HasAnnotation, Not, OfItem, Or
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.wire.query import (
    AnnotationsQuery,
    Context,
    KeysetAfter,
    parse_annotations_query,
    parse_filter,
    parse_items_query,
    parse_query,
    whole_filter,
)

SDK_QUERIES: dict[str, Any] = json.loads((Path(__file__).parent / "sdk_queries.json").read_text("utf-8"))
DEFAULT = [{"hidden": False}, {"type": "file"}]
SHOWN = Condition("hidden", "eq", value=False)


@pytest.mark.parametrize(
    ("conditions", "tree"),
    [
        ({}, And(())),
        (None, And(())),
        ({"$and": []}, And(())),
        ({"name": "a"}, Condition("name", "eq", "a")),
        ({"a": ["a", "b"]}, Condition("a", "eq", ["a", "b"])),
        ({"name": None}, Condition("name", "eq", None)),
        ({"name": {"$in": ["a"]}}, Condition("name", "in", ["a"])),
        ({"a.b": {"$gt": 1, "$lt": 5}}, And((Condition("a.b", "gt", 1), Condition("a.b", "lt", 5)))),
        ({"a": 1, "b": 2}, And((Condition("a", "eq", 1), Condition("b", "eq", 2)))),
        ({"a": {"b": {"c": {"$ne": 1}}, "d": 2}}, And((Condition("a.b.c", "ne", 1), Condition("a.d", "eq", 2)))),
        ({"a": {"$eq": {"b": 1}}}, Condition("a", "eq", {"b": 1})),
        ({"$or": [{"a": 1}, {"$and": [{"b": 2}]}]}, Or((Condition("a", "eq", 1), Condition("b", "eq", 2)))),
        ({"$and": [{"$or": [{"a": 1}]}]}, Or((Condition("a", "eq", 1),))),
        ({"$not": {"a": 1}}, Not(Condition("a", "eq", 1))),
        ({"a": {"$not": {"$gt": 1}}}, Not(Condition("a", "gt", 1))),
        ({"a": {"$not": "x"}}, Not(Condition("a", "eq", "x"))),
        ({"a": {"$or": [1, {"$gt": 5}]}}, Or((Condition("a", "eq", 1), Condition("a", "gt", 5)))),
        ({"a": {"$and": [{"$gt": 1}, {"$lt": 5}]}}, And((Condition("a", "gt", 1), Condition("a", "lt", 5)))),
        ({"a": {"$match": {"b": 1}}}, ElementMatch("a", Condition("b", "eq", 1))),
        ({"a": {"$match": "x*"}}, Condition("a", "eq", "x*")),
        ({"a": {"$exists": False}}, Condition("a", "exists", value=False)),
    ],
)
def test_conditions(conditions, tree):
    assert parse_filter(conditions) == tree


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ([], r"The body: must be an object"),
        ("text", r"The body: must be an object"),
        ({"filter": []}, r"filter: must be an object"),
        ({"filter": {"$and": {}}}, r"filter\.\$and: must be a list"),
        ({"filter": {"$and": [{"a": 1}, 5]}}, r"filter\.\$and\[1\]: must be an object"),
        ({"filter": {"$or": []}}, r"filter\.\$or: \[\] is no choice"),
        ({"filter": {"$xor": []}}, r"filter\.\$xor: there is no such operator here"),
        ({"filter": {"$gt": 5}}, r"filter\.\$gt: there is no such operator here"),
        ({"filter": {"a": {}}}, r"filter\.a: \{\} says nothing"),
        ({"filter": {"a": {"$gt": 5, "b": 1}}}, r"filter\.a: operators and names"),
        ({"filter": {"a": {"$regex": "x"}}}, r"filter\.a\.\$regex: there is no such operator.*\$match"),
        ({"filter": {"$and": [{"a": {"$in": "x"}}]}}, r"filter\.\$and\[0\]\.a\.\$in: must be a list"),
        ({"filter": {"a": {"$exists": 1}}}, r"filter\.a\.\$exists: must be true or false"),
        ({"sort": []}, r"sort: must be an object"),
        ({"sort": {"id": "up"}}, r"sort\.id: 'up' is no direction"),
        ({"sort": {"id": 1}}, r"sort\.id: 1 is no direction"),
        ({"page": -1}, r"page: must be a whole number"),
        ({"page": "1"}, r"page: must be a whole number"),
        ({"page": True}, r"page: must be a whole number"),
        ({"page": 10**30}, r"page: .* past any list"),
        ({"pageSize": -1}, r"pageSize: must be a whole number"),
        ({"pageSize": 1.5}, r"pageSize: must be a whole number"),
        ({"resource": "annotations"}, r"resource: 'annotations' cannot be queried here"),
        ({"resource": 5}, r"resource: 5 cannot"),
        ({"join": "x"}, r"join: must be an object"),
        ({"join": 0}, r"join: must be an object"),
        ({"join": {"filter": [{"label": "cat"}]}}, r"join\.filter: must be an object"),
        ({"join": {"filter": {"label": {"$is": "cat"}}}}, r"join\.filter\.label\.\$is: there is no such operator"),
        (
            {"join": {"on": {"resource": "items"}}},
            r"join\.on\.resource: 'items' cannot be joined here; \"annotations\"",
        ),
        ({"join": {"on": {"local": "id"}}}, r"join\.on\.local: 'id' cannot be joined here; \"itemId\""),
        ({"intersect": {"filter": {}}}, r"intersect: looks like"),
        ({"intersect": []}, r"intersect: must be an object"),
        ({"except": {"query": []}}, r"except: looks like"),
        ({"except": {"query": {"filter": {"$xor": 1}}}}, r"except\.query\.filter\.\$xor: there is no such operator"),
        ({"except": {"query": {"resource": "annotations"}}}, r"except\.query\.resource: sets are of one resource"),
        ({"except": {"query": {"join": {"on": 5}}}}, r"except\.query\.join\.on: must be an object"),
        ({"filter": {"$and": [{"join": {"filter": 5}}]}}, r"filter\.\$and\[0\]\.join\.filter: must be an object"),
        ({"filter": {"$and": [{}] * 10_001}}, r"filter\.\$and: the filter has more than 10,000 parts"),
        ({"sort": {str(number): "ascending" for number in range(21)}}, r"sort: by 20 fields at most"),
        ({"references": {"operation": "create"}}, r"references: there are no tasks"),
        ({"$and": [{"a": 1}]}, r"\$and: conditions belong under \"filter\""),
        ({"filter": {}, "update": {}, "delete": True}, r"one query does one"),
        ({"delete": True}, r"filter is missing"),
        ({"update": {"metadata": {}}}, r"filter is missing"),
        ({"filter": {}, "delete": 1}, r"delete: must be true or false"),
        ({"filter": {}, "update": []}, r"update: must be an object"),
        ({"systemSpace": "yes"}, r"systemSpace: must be true or false"),
        ({"context": []}, r"context: must be an object"),
        ({"context": {"projects": "x"}}, r"context\.projects: must be a list"),
        ({"context": {"datasets": [5]}}, r"context\.datasets: ids are texts, not 5"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(body, says):
    with pytest.raises(BadRequest, match=says):
        parse_items_query(body)


@pytest.mark.parametrize(
    ("conditions", "says"),
    [
        ({"hidden": "yes"}, "filter.hidden: hidden is true or false, not 'yes'."),
        ({"hidden": {"$ne": 0}}, "filter.hidden.$ne: hidden is true or false, not 0."),
        ({"hidden": {"$gt": True}}, "filter.hidden.$gt: hidden is true or false, and these have no order."),
        ({"hidden": {"$lte": None}}, "filter.hidden.$lte: hidden is true or false, and these have no order."),
        ({"metadata.system.size": {"$gt": "large"}}, "metadata.system.size is a number, not 'large'."),
        (
            {"metadata": {"system": {"width": "wide"}}},
            "filter.metadata.system.width: metadata.system.width is a number",
        ),
        ({"metadata.system.height": True}, "metadata.system.height is a number, not True."),
        ({"annotationsCount": {"$in": [1, "5", "many"]}}, "annotationsCount is a number, not 'many'."),
        ({"createdAt": {"$gt": 5}}, "filter.createdAt.$gt: createdAt is a time in quotes, such as 2024-01-31T00"),
        ({"metadata.system.trashedAt": False}, "metadata.system.trashedAt is a time in quotes"),
        ({"$and": [{"$not": {"name": 5}}]}, "filter.$and[0].$not.name: name is text, not 5."),
        ({"type": 5}, "filter.type: type is text, not 5."),
        ({"name": ["a"]}, """name is text, not ['a']. "$in" compares with several values."""),
        ({"name": {"$not": {"$match": 5}}}, "filter.name.$not.$match: name is text, not 5."),
        ({"filename": {"$nin": ["/a", {"b": 1}]}}, "filter.filename.$nin: filename is text, not {'b': 1}."),
        ({"id": 5}, "filter.id: id is an id, 24 hexadecimal digits in quotes, not 5."),
        ({"join": {"filter": {"label": {"$eq": 5}}}}, "filter.join.filter.label.$eq: label is text, not 5."),
        ({"except": {"query": {"filter": {"annotated": 1}}}}, "annotated is true or false, not 1."),
    ],
)
def test_a_field_of_a_fixed_type_refuses_another(conditions, says):
    with pytest.raises(BadRequest, match=re.escape(says)):
        parse_filter(conditions)


@pytest.mark.parametrize("resource", ["items", "annotations"])
def test_every_field_takes_what_it_can_be_and_null(resource):
    """What the tutorials of the SDK send, too: numbers in quotes, wildcards in times, ids in any case."""
    values: dict[str, list[Any]] = {
        "id": ["0" * 24, "A" * 24, "no id"],
        "text": ["", "a*"],
        "path": ["/a/**", "*"],
        "integer": [5, 0.5, "1024", "-1.5"],
        "timestamp": ["2024-03-*", "2024-03-01"],
        "boolean": [True, False],
        "json": [True, 5, "a*", ["a"], [[{}]]],
    }
    for name, field in (ITEM_FIELDS if resource == "items" else ANNOTATION_FIELDS).named.items():
        for value in [*values[field.kind], None]:
            parse_filter({name: value}, resource=resource)
            parse_filter({name: {"$nin": [value, None]}}, resource=resource)
            if field.kind != "boolean":
                parse_filter({name: {"$gt": value}}, resource=resource)
        parse_filter({name: {"$exists": False}}, resource=resource)
    for value in (5, True, "a", ["a"], {"$gt": True}):  # anybody's own metadata may be anything
        parse_filter({"metadata.user.hidden": value, "metadata.user.a": {"$match": {"hidden": value}}})


@pytest.mark.parametrize(
    "wrap", [lambda inner: {"$and": [inner]}, lambda inner: {"a": inner}, lambda inner: {"$not": inner}]
)
def test_depth_has_an_end(wrap):
    conditions: Any = {"a": 1}
    for _ in range(500):
        conditions = wrap(conditions)
    with pytest.raises(BadRequest, match="levels deep"):
        parse_items_query({"filter": conditions})
    values: Any = {"$not": 5}
    for _ in range(500):
        values = {"$not": values}
    with pytest.raises(BadRequest, match="levels deep"):
        parse_items_query({"filter": {"a": values}})


@pytest.mark.parametrize("name", sorted(SDK_QUERIES))
def test_bodies_of_the_sdk_are_taken(name):
    parse_items_query(SDK_QUERIES[name])


def test_what_the_sdk_sends_and_means_nothing_by():
    for body in ({"join": {}}, {"join": {"on": {"resource": "annotations"}}}, {"sort": {"ascending": "ascending"}}):
        query = parse_items_query({"filter": {"$and": DEFAULT}, **body})
        assert query.files == SHOWN
        assert query.page.sort == ()


def test_pages():
    page = parse_items_query({}).page
    assert (page.sort, page.page, page.page_size) == ((), 0, 1000)
    page = parse_items_query({"sort": {"name": "descending", "id": "ascending"}, "page": 3, "pageSize": 5000}).page
    assert (page.sort, page.page, page.page_size) == ((("name", True), ("id", False)), 3, 1000)
    assert parse_items_query({"pageSize": 0}).page.page_size == 0


def test_by_creation_is_by_id_where_the_sdk_goes_on_by_id():
    def sort(*names: str) -> tuple[tuple[str, bool], ...]:
        return parse_items_query({"sort": dict.fromkeys(names, "descending")}).page.sort

    assert sort("createdAt", "id") == (("id", True),)
    assert sort("createdAt") == (("createdAt", True),)
    mixed = parse_items_query({"sort": {"createdAt": "descending", "id": "ascending"}}).page.sort
    assert mixed == (("createdAt", True), ("id", False))


@pytest.mark.parametrize(
    ("conditions", "files", "dirs"),
    [
        ({}, And(()), None),
        ({"type": "file"}, And(()), None),
        ({"type": "dir"}, None, And(())),
        ({"type": {"$in": ["file", "dir"]}}, And(()), And(())),
        ({"type": {"$ne": "file"}}, None, And(())),
        ({"type": "*"}, And(()), And(())),
        ({"type": "d*"}, None, And(())),
        ({"$and": [{"type": "file"}, {"type": "dir"}]}, None, None),
        ({"$and": [*DEFAULT, {"type": "file"}]}, SHOWN, None),
        ({"$and": [{"hidden": False}, {"type": "dir"}]}, None, SHOWN),
        ({"$or": [{"type": "dir"}, {"hidden": False}]}, SHOWN, And(())),
        ({"$not": {"type": "dir"}}, And(()), None),
        ({"type": None}, None, None),
        ({"type": "db_row"}, None, None),
    ],
)
def test_files_or_folders(conditions, files, dirs):
    query = parse_items_query({"filter": conditions})
    assert (query.files, query.dirs) == (files, dirs)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"$and": DEFAULT}, True),
        ({"$and": [*DEFAULT, *DEFAULT]}, True),
        ({"hidden": False, "type": "file"}, True),
        ({"$and": [{"$and": DEFAULT}]}, True),
        ({"hidden": False, "type": {"$eq": "file"}}, True),
        ({}, False),
        ({"hidden": False}, False),
        ({"type": "file"}, False),
        ({"hidden": None, "type": "file"}, False),
        ({"hidden": False, "type": "dir"}, False),
        ({"hidden": True, "type": "file"}, False),
        ({"$or": DEFAULT}, False),
        ({"$and": [*DEFAULT, {"name": "a"}]}, False),
        ({"$and": [*DEFAULT, {"$or": [{"type": "file"}]}]}, False),
        ({"$and": [*DEFAULT, {"id": {"$gt": to_wire(5)}}]}, False),
    ],
)
def test_the_default_filter_is_known(conditions, expected):
    assert parse_items_query({"filter": conditions}).is_default is expected


@pytest.mark.parametrize(
    ("last", "sort", "expected"),
    [
        ({"id": {"$gt": to_wire(5)}}, {"id": "ascending"}, KeysetAfter(5, descending=False)),
        ({"id": {"$lt": to_wire(5)}}, {"id": "descending"}, KeysetAfter(5, descending=True)),
        (
            {"id": {"$lt": to_wire(5)}},
            {"createdAt": "descending", "id": "descending"},
            KeysetAfter(5, descending=True),
        ),
        ({"id": {"$gt": "f" * 24}}, {"id": "ascending"}, KeysetAfter(2**63 - 1, descending=False)),
        ({"id": {"$lt": to_wire(5)}}, {"id": "ascending"}, None),
        ({"id": {"$gt": to_wire(5)}}, {"name": "ascending", "id": "ascending"}, None),
        ({"id": {"$gt": to_wire(5)}}, {}, None),
        ({"id": {"$gte": to_wire(5)}}, {"id": "ascending"}, None),
        ({"id": {"$gt": to_wire(5), "$lt": to_wire(9)}}, {"id": "ascending"}, None),
        ({"id": {"$gt": "0x" + "0" * 22}}, {"id": "ascending"}, None),
        ({"id": {"$gt": to_wire(5)}, "name": "a"}, {"id": "ascending"}, None),
    ],
)
def test_the_next_page_is_known(last, sort, expected):
    query = parse_items_query({"filter": {"$and": [*DEFAULT, last]}, "sort": sort})
    assert query.keyset_after == expected
    assert query.is_default_without_keyset is (expected is not None)
    assert not query.is_default


def test_a_later_page_by_number_is_no_next_page():
    body = {"filter": {"$and": [*DEFAULT, {"id": {"$gt": to_wire(5)}}]}, "sort": {"id": "ascending"}}
    assert parse_items_query({**body, "page": 1}).keyset_after is None
    alone = parse_items_query({"filter": {"$and": [{"id": {"$gt": to_wire(5)}}]}, "sort": {"id": "ascending"}})
    assert alone.keyset_after == KeysetAfter(5, descending=False)
    assert not alone.is_default_without_keyset


def test_what_is_to_be_done_is_passed_through():
    query = parse_items_query(SDK_QUERIES["system update"])
    assert query.update == {"metadata": {"user": {"k": 1}, "system": {"s": 2}}}
    assert query.system_space
    assert not query.delete
    assert parse_items_query(SDK_QUERIES["delete"]).delete
    assert parse_items_query(SDK_QUERIES["context"]).context == Context(dataset_ids=frozenset({1}))
    assert parse_items_query({}).update is None
    assert parse_items_query({"filter": {}, "update": {}}).update == {}


CAT = Condition("label", "eq", "cat")
ON_ITEMS = {"resource": "annotations", "local": "itemId", "forigen": "id"}


@pytest.mark.parametrize(
    ("body", "tree"),
    [
        ({"join": {"on": ON_ITEMS, "filter": {"$and": [{"label": "cat"}]}}}, HasAnnotation(CAT)),
        ({"join": {"filter": {"label": "cat"}}}, HasAnnotation(CAT)),
        ({"join": {"on": ON_ITEMS, "filter": {"$and": []}}}, EVERYTHING),
        (
            {"filter": {"a": 1}, "join": {"filter": {"label": "cat"}}},
            And((Condition("a", "eq", 1), HasAnnotation(CAT))),
        ),
        (
            {"filter": {"a": 1, "join": {"filter": {"label": "cat"}}}},
            And((Condition("a", "eq", 1), HasAnnotation(CAT))),
        ),
        ({"filter": {"$not": {"join": {"filter": {"label": "cat"}}}}}, Not(HasAnnotation(CAT))),
        ({"intersect": {"query": {"filter": {"a": 1}}}}, Condition("a", "eq", 1)),
        ({"except": {"query": {"filter": {"a": 1}}}}, Not(Condition("a", "eq", 1))),
        ({"except": {"query": {"join": {"filter": {"label": "cat"}}}}}, Not(HasAnnotation(CAT))),
        (
            {"except": {"query": {"filter": {"a": 1}, "except": {"query": {"filter": {"b": 2}}}}}},
            Not(And((Condition("a", "eq", 1), Not(Condition("b", "eq", 2))))),
        ),
    ],
)
def test_joins_and_sets(body, tree):
    assert parse_items_query(body).files == tree
    assert parse_items_query({"filter": whole_filter(body)}).files == tree


def test_what_is_left_without_everything_is_nothing():
    assert parse_items_query({"except": {"query": {}}}).files is None


def test_a_filter_with_a_join_is_not_the_default_and_has_no_kept_total():
    body = {"filter": {"$and": [*DEFAULT]}, "join": {"filter": {"label": "cat"}}, "sort": {"id": "ascending"}}
    assert not parse_items_query(body).is_default
    body["filter"]["$and"].append({"id": {"$gt": to_wire(5)}})
    later = parse_items_query(body)
    assert later.keyset_after == KeysetAfter(5, descending=False)
    assert not later.is_default_without_keyset


def test_annotations_are_asked_for_by_their_own_fields_and_by_their_items():
    on = {"resource": "items", "local": "id", "forigen": "itemId"}
    asked = parse_query(
        {
            "resource": "annotations",
            "filter": {"$and": [{"type": {"$in": ["/box", "point"]}}, {"id": {"$lt": to_wire(9)}}]},
            "join": {"on": on, "filter": {"$and": [{"metadata.system.mimetype": "image*"}]}},
            "sort": {"id": "descending"},
            "delete": True,
        }
    )
    assert isinstance(asked, AnnotationsQuery)
    assert asked.tree == And(
        (
            Condition("type", "in", ["box", "point"]),
            Condition("id", "lt", to_wire(9)),
            OfItem(Condition("metadata.system.mimetype", "eq", "image*")),
        )
    )
    assert asked.keyset_after == KeysetAfter(9, descending=True)
    assert (asked.delete, asked.update) == (True, None)
    with pytest.raises(BadRequest, match=r"join\.on\.resource"):
        parse_annotations_query({"resource": "annotations", "join": {"on": ON_ITEMS}})
    with pytest.raises(BadRequest, match="cannot be queried"):
        parse_query({"resource": "models"})


def test_what_is_nested_in_one_object_is_asked_of_one_object():
    reference = {"metadata.system.refs": {"id": {"$in": ["5"]}, "metadata": {"status": {"$in": ["done"]}}}}
    inside = And((Condition("id", "in", ["5"]), Condition("metadata.status", "in", ["done"])))
    assert parse_filter(reference) == ElementMatch("metadata.system.refs", inside)
    for apart in (
        {"metadata.user.a": {"b": {"$ne": 1}, "c": 2}},  # may be missing
        {"metadata": {"user": {"b": 1, "c": 2}}},  # is no list
        {"metadata.system.etl": {"state": "failed", "b": 1}},  # is a field of ours
    ):
        assert isinstance(parse_filter(apart), And)


def test_a_context_covers_what_it_names():
    assert Context().covers(1, 2)
    assert Context(frozenset({1}), frozenset({2})).covers(1, 2)
    assert not Context(frozenset({1}), frozenset({3})).covers(1, 2)
    assert not Context(frozenset()).covers(1, 2)
    assert parse_items_query({"context": {"projects": [to_wire(1), "no id"]}}).context == Context(frozenset({1}))
