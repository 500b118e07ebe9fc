"""The SDK's query language (DQL), as the body of POST /datasets/{id}/query has it, to our tree.

{"filter": {"$and": [{"hidden": false}, {"type": "file"}, {"metadata.user.n": {"$gt": 5}}]},
 "sort": {"id": "ascending"}, "page": 0, "pageSize": 1000, "resource": "items"}
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from headwater.catalog.fields import DEEPEST, LARGEST_ID, id_number
from headwater.catalog.query import (
    EVERYTHING,
    NOTHING,
    And,
    Condition,
    ElementMatch,
    Not,
    Operator,
    Or,
    Page,
    Tree,
    fold,
    mentions,
)
from headwater.errors import BadRequest

_LARGEST_PAGE_SIZE = 1_000
_LARGEST_PAGE = 1_000_000_000

_COMPARISONS: dict[str, Operator] = {
    "$eq": "eq",
    "$ne": "ne",
    "$in": "in",
    "$nin": "nin",
    "$gt": "gt",
    "$gte": "gte",
    "$lt": "lt",
    "$lte": "lte",
    "$exists": "exists",
}
_OPERATORS = [*_COMPARISONS, "$match", "$not", "$and", "$or"]
_SHORT_NAMES = {f"collections{slot}": f"metadata.system.collections.c{slot}" for slot in range(10)}
_DIRECTIONS = {"ascending": False, "descending": True}


@dataclass(frozen=True, slots=True)
class KeysetAfter:
    """The SDK pages through a list by adding `id > the last one seen` (or <) as its last condition."""

    item_id: int
    descending: bool


@dataclass(frozen=True, slots=True)
class ItemsQuery:
    files: Tree | None  # what to ask of items; None: the query wants no files
    dirs: Tree | None  # what to ask of folders; None, unless the query speaks of type "dir"
    page: Page
    is_default: bool  # exactly: hidden is false and type is file
    keyset_after: KeysetAfter | None  # the condition is in the trees as well
    is_default_without_keyset: bool  # the same, apart from the keyset condition
    update: Mapping[str, Any] | None
    delete: bool
    system_space: bool
    context: Mapping[str, Any]
    resource: str = "items"


def parse_items_query(body: object) -> ItemsQuery:
    """Raises BadRequest with the place in the body and what would be right."""
    query = _object(body, "The body")
    resource = query.get("resource") or "items"
    if resource != "items":
        raise BadRequest(f'resource: {_shown(resource)} cannot be queried here; "items" can.')
    refuse_unsupported(query)
    update, delete = _change(query)
    conditions = _object(query.get("filter"), "filter")
    tree = parse_filter(conditions)
    sort = _sort(query.get("sort"))
    page = _number(query.get("page"), "page", default=0)
    if page > _LARGEST_PAGE:
        raise BadRequest(f"page: {page} is past any list; pages are counted from 0.")
    page_size = _number(query.get("pageSize"), "pageSize", default=_LARGEST_PAGE_SIZE)
    keyset_after = _keyset_after(conditions, sort) if page == 0 else None
    is_default = _is_default(tree)
    return ItemsQuery(
        files=_wanted(tree, "file"),
        dirs=_wanted(tree, "dir") if mentions(tree, "type") else None,
        page=Page(_in_order_of_creation(sort), page, min(page_size, _LARGEST_PAGE_SIZE)),
        is_default=is_default,
        keyset_after=keyset_after,
        is_default_without_keyset=is_default
        or (keyset_after is not None and _is_default(parse_filter(_without_last(conditions)))),
        update=update,
        delete=delete,
        system_space=_boolean(query.get("systemSpace"), "systemSpace"),
        context=_object(query.get("context"), "context"),
    )


def parse_filter(conditions: object, where: str = "filter") -> Tree:
    """The `filter` of a query, or of a trigger. Raises BadRequest."""
    return _conditions(_object(conditions, where), where, 0)


def _wanted(tree: Tree, item_type: str) -> Tree | None:
    rest = fold(tree, "type", item_type)
    return None if rest == NOTHING else rest


def refuse_unsupported(query: Mapping[str, Any]) -> None:
    """Raises BadRequest for what would choose fewer items than the filter alone."""
    join = _object(query.get("join"), "join")
    if parse_filter(join.get("filter"), "join.filter") != EVERYTHING:
        raise BadRequest("join: items cannot be chosen by their annotations yet. Leave the join out.")
    for key in ("intersect", "except"):
        if query.get(key):
            raise BadRequest(f'{key}: sets of queries cannot be combined yet. Use "$and", "$or" and "$not".')
    if query.get("references"):
        raise BadRequest("references: there are no tasks here to add items to. Leave it out.")
    for key in query:
        if key.startswith("$"):
            raise BadRequest(f'{key}: conditions belong under "filter": {{"filter": {{"{key}": …}}}}.')


def _change(query: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    """A change must say of what: without its filter it would take the whole dataset."""
    update = None if query.get("update") is None else _object(query["update"], "update")
    delete = _boolean(query.get("delete"), "delete")
    if update is not None and delete:
        raise BadRequest("update, delete: one query does one of the two.")
    if (update is not None or delete) and query.get("filter") is None:
        raise BadRequest('filter is missing. To change every item, say so: {"filter": {}}.')
    return update, delete


def single_slashed(conditions: Any) -> Any:
    """The conditions with one slash where a `filename` begins with several; the same object where none does.

    Scripts put a slash before what is left of a key without its driver's folder, which begins with one already.
    """
    if isinstance(conditions, list):
        changed: Any = [single_slashed(each) for each in conditions]
    elif isinstance(conditions, dict):
        changed = {
            name: _single_slashed(value) if name == "filename" else single_slashed(value)
            for name, value in conditions.items()
        }
    else:
        return conditions
    return conditions if changed == conditions else changed


def _single_slashed(value: Any) -> Any:
    if isinstance(value, str):
        return "/" + value.lstrip("/") if value.startswith("//") else value
    if isinstance(value, list):
        return [_single_slashed(each) for each in value]
    if isinstance(value, dict):
        return {name: _single_slashed(each) for name, each in value.items()}
    return value


# Conditions.


def _conditions(conditions: Mapping[str, Any], where: str, depth: int) -> Tree:
    if depth > DEEPEST:
        raise BadRequest(f"{where[:200]}…: nested more than {DEEPEST} levels deep. Write it flatter.")
    return _all([_condition(key, value, where, depth) for key, value in conditions.items()])


def _condition(key: str, value: object, where: str, depth: int) -> Tree:
    place = f"{where}.{key[:80]}"
    match key:
        case "$and":
            return _all([_conditions(part, at, depth + 1) for at, part in _objects(value, place)])
        case "$or":
            return Or(tuple(_conditions(part, at, depth + 1) for at, part in _objects(value, place)))
        case "$not":
            return Not(_conditions(_object(value, place), place, depth + 1))
        case _ if key.startswith("$"):
            raise BadRequest(f'{place}: between conditions stand "$and", "$or" and "$not".')
        case _:
            return _field(_SHORT_NAMES.get(key, key), value, place, depth)


def _field(name: str, value: object, where: str, depth: int) -> Tree:
    """`{"a.b": 5}`, `{"a.b": {"$gt": 5, "$lt": 9}}` or, nested, `{"a": {"b": 5}}`."""
    if not isinstance(value, dict):
        return Condition(name, "eq", value)
    if depth > DEEPEST:
        raise BadRequest(f"{where[:200]}…: nested more than {DEEPEST} levels deep. Write it flatter.")
    parts = cast("dict[str, object]", value)
    if not parts:
        raise BadRequest(f'{where}: {{}} says nothing. Use {{"$exists": true}}, or leave it out.')
    operators = [key for key in parts if key.startswith("$")]
    if not operators:
        return _all([_field(f"{name}.{key}", part, f"{where}.{key[:80]}", depth + 1) for key, part in parts.items()])
    if len(operators) < len(parts):
        raise BadRequest(f"{where}: operators and names of fields cannot stand side by side.")
    return _all([_operator(name, key, part, f"{where}.{key[:80]}", depth + 1) for key, part in parts.items()])


def _operator(  # noqa: PLR0911 - one case an operator
    name: str, operator: str, value: object, where: str, depth: int
) -> Tree:
    match operator:
        case "$in" | "$nin":
            return Condition(name, _COMPARISONS[operator], _list(value, where))
        case "$exists":
            if not isinstance(value, bool):
                raise BadRequest(f"{where}: must be true or false, not {_shown(value)}.")
            return Condition(name, "exists", value)
        case "$match" if isinstance(value, dict):
            return ElementMatch(name, _conditions(cast("dict[str, object]", value), where, depth))
        case "$match":
            return Condition(name, "eq", value)
        case "$not":
            return Not(_field(name, value, where, depth))
        case "$and":
            return _all([_field(name, part, at, depth) for at, part in _elements(value, where)])
        case "$or":
            return Or(tuple(_field(name, part, at, depth) for at, part in _elements(value, where)))
        case _ if operator in _COMPARISONS:
            return Condition(name, _COMPARISONS[operator], value)
        case _:
            raise BadRequest(f"{where}: there is no such operator. There are {', '.join(_OPERATORS)}.")


def _all(parts: list[Tree]) -> Tree:
    flat: list[Tree] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, And) else [part])
    return flat[0] if len(flat) == 1 else And(tuple(flat))


def _is_default(tree: Tree) -> bool:
    """Nothing but `hidden: false` and `type: "file"`, each at least once."""
    parts = tree.parts if isinstance(tree, And) else (tree,)
    asked = {
        (part.field, part.operator, json.dumps(part.value)) if isinstance(part, Condition) else None for part in parts
    }
    return asked == {("hidden", "eq", "false"), ("type", "eq", '"file"')}


# Order and page.


def _sort(value: object) -> list[tuple[str, bool]]:
    """Fields and whether they descend. The SDK's older `{"ascending": "ascending"}` means nothing."""
    sort: list[tuple[str, bool]] = []
    for name, direction in _object(value, "sort").items():
        if name in _DIRECTIONS and name == direction:
            continue
        if not isinstance(direction, str) or direction not in _DIRECTIONS:
            raise BadRequest(f'sort.{name}: {_shown(direction)} is no direction. Use "ascending" or "descending".')
        sort.append((name, _DIRECTIONS[direction]))
    return sort


def _in_order_of_creation(sort: list[tuple[str, bool]]) -> tuple[tuple[str, bool], ...]:
    """Ids are given in order of creation, and the SDK pages by id through what it has sorted by createdAt.

    By id alone it loses no item whose transaction began earlier than it got its id.
    """
    match sort:
        case [("createdAt", first), ("id", second)] if first == second:
            return (("id", first),)
        case _:
            return tuple(sort)


def _keyset_after(conditions: Mapping[str, Any], sort: list[tuple[str, bool]]) -> KeysetAfter | None:
    match _in_order_of_creation(sort), conditions.get("$and"):
        case [("id", False)], [*_, {"id": {"$gt": str(text), **others}, **fields}] if not others and not fields:
            descending = False
        case [("id", True)], [*_, {"id": {"$lt": str(text), **others}, **fields}] if not others and not fields:
            descending = True
        case _:
            return None
    number = id_number(text)
    return None if number is None else KeysetAfter(min(number, LARGEST_ID), descending)


def _without_last(conditions: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**conditions, "$and": conditions["$and"][:-1]}


# JSON of the right type, or a sentence.


def _object(value: object, where: str) -> Mapping[str, Any]:
    """Nothing counts as {}."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: must be an object {{…}}, not {_shown(value)}.")
    return cast("dict[str, Any]", value)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadRequest(f"{where}: must be a list […], not {_shown(value)}.")
    return cast("list[Any]", value)


def _elements(value: object, where: str) -> list[tuple[str, Any]]:
    elements = _list(value, where)
    if not elements and where.endswith("$or"):
        raise BadRequest(f"{where}: [] is no choice. Put conditions in, or leave it out.")
    return [(f"{where}[{number}]", element) for number, element in enumerate(elements)]


def _objects(value: object, where: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(at, _object(element, at)) for at, element in _elements(value, where)]


def _number(value: object, where: str, *, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"{where}: must be a whole number from 0 up, not {_shown(value)}.")
    return value


def _boolean(value: object, where: str) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadRequest(f"{where}: must be true or false, not {_shown(value)}.")
    return value


def _shown(value: object) -> str:
    return repr(value)[:80]
