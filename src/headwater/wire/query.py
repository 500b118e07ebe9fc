"""The SDK's query language (DQL), as the body of POST /datasets/{id}/query has it, to our trees.

{"filter": {"$and": [{"hidden": false}, {"type": "file"}, {"metadata.user.n": {"$gt": 5}}]},
 "join": {"on": {"resource": "annotations", "local": "itemId", "forigen": "id"}, "filter": {"label": "cat"}},
 "except": {"query": {"filter": {"dir": "/old"}}},
 "sort": {"id": "ascending"}, "page": 0, "pageSize": 1000, "resource": "items"}

`join`, `intersect` and `except` may stand among the conditions as well: so the SDK sends a saved filter that it loads.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from headwater.catalog.datasets import Dataset
from headwater.catalog.fields import (
    ANNOTATION_FIELDS,
    DEEPEST,
    ITEM_FIELDS,
    LARGEST_ID,
    Field,
    FieldTable,
    id_number,
    type_mismatch,
)
from headwater.catalog.query import (
    EVERYTHING,
    NOTHING,
    And,
    Condition,
    ElementMatch,
    HasAnnotation,
    Not,
    OfItem,
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
_MOST_NODES = 10_000  # of conditions and what holds them together
_DEEPEST_JSON = 4 * DEEPEST  # of a body: two levels for each of a filter, and the value at its end

Resource = Literal["items", "annotations"]

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
_BESIDE = ("join", "intersect", "except")
_MOST_SORTS = 20


@dataclass(frozen=True, slots=True)
class KeysetAfter:
    """The SDK pages through a list by adding `id > the last one seen` (or <) as its last condition."""

    item_id: int  # or an annotation's, in a query of these
    descending: bool


@dataclass(frozen=True, slots=True)
class Context:
    """What a query is confined to, besides its own dataset; None: to nothing."""

    project_ids: frozenset[int] | None = None
    dataset_ids: frozenset[int] | None = None

    def covers(self, project_id: int, dataset_id: int) -> bool:
        return (self.project_ids is None or project_id in self.project_ids) and (
            self.dataset_ids is None or dataset_id in self.dataset_ids
        )


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
    context: Context
    resource: Resource = "items"

    def only_files(self, refusal: str) -> Tree:
        """For what is done with files alone; raises BadRequest, in these words, for a query that asks for folders."""
        if self.files is None and self.dirs is not None:
            raise BadRequest(refusal)
        return self.files or NOTHING


@dataclass(frozen=True, slots=True)
class AnnotationsQuery:
    tree: Tree  # over ANNOTATION_FIELDS
    page: Page
    keyset_after: KeysetAfter | None  # the condition is in the tree as well
    update: Mapping[str, Any] | None
    delete: bool
    system_space: bool
    context: Context
    resource: Resource = "annotations"


def parse_query(body: object) -> ItemsQuery | AnnotationsQuery:
    """Raises BadRequest with the place in the body and what would be right."""
    _check_nesting(body)
    resource = _object(body, "The body").get("resource") or "items"
    return parse_annotations_query(body) if resource == "annotations" else parse_items_query(body)


def parse_items_query(body: object) -> ItemsQuery:
    """Raises BadRequest with the place in the body and what would be right."""
    query = _query_of(body, "items")
    tree = _Reader("items").query(query, "")
    update, delete = _change(query)
    page, keyset_after = _page(query)
    is_default = _is_default(tree)
    return ItemsQuery(
        files=_wanted(tree, "file"),
        dirs=_wanted(tree, "dir") if mentions(tree, "type") else None,
        page=page,
        is_default=is_default,
        keyset_after=keyset_after,
        is_default_without_keyset=is_default
        or (keyset_after is not None and _is_default(_Reader("items").query(_without_last(query), ""))),
        update=update,
        delete=delete,
        system_space=_boolean(query.get("systemSpace"), "systemSpace"),
        context=_context(query.get("context")),
    )


def parse_annotations_query(body: object) -> AnnotationsQuery:
    """Raises BadRequest with the place in the body and what would be right."""
    query = _query_of(body, "annotations")
    tree = _Reader("annotations").query(query, "")
    update, delete = _change(query)
    page, keyset_after = _page(query)
    return AnnotationsQuery(
        tree=tree,
        page=page,
        keyset_after=keyset_after,
        update=update,
        delete=delete,
        system_space=_boolean(query.get("systemSpace"), "systemSpace"),
        context=_context(query.get("context")),
    )


def parse_filter(conditions: object, where: str = "filter", resource: Resource = "items") -> Tree:
    """The `filter` of a query, or of a trigger. Raises BadRequest."""
    _check_nesting(conditions)
    return _Reader(resource).conditions(_object(conditions, where), where, 0)


def whole_filter(query: Mapping[str, Any], resource: Resource = "items") -> dict[str, Any]:
    """The filter of a query with its join and sets among the conditions: what a job keeps of a choice.

    Raises BadRequest for a query of another resource; what the conditions say is not looked at.
    """
    _query_of(query, resource)
    beside = [{key: query[key]} for key in _BESIDE if query.get(key) is not None]
    conditions = dict(_object(query.get("filter"), "filter"))
    return {"$and": [conditions, *beside]} if beside else conditions


def confined(query: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The query without its context: where that leaves the dataset out, one that chooses nothing. Raises BadRequest."""
    rest = {key: value for key, value in query.items() if key != "context"}
    if _context(query.get("context")).covers(dataset.project_id, dataset.id):
        return rest
    return rest | {"filter": {"id": {"$in": []}}}


def _refuse_unsupported(query: Mapping[str, Any]) -> None:
    """Raises BadRequest for what would choose fewer items than is understood here."""
    if query.get("references"):
        raise BadRequest("references: there are no tasks here to add items to. Leave it out.")
    for key in query:
        if key.startswith("$"):
            raise BadRequest(f'{key[:80]}: conditions belong under "filter": {{"filter": {{"{key[:80]}": …}}}}.')


def _query_of(body: object, resource: Resource) -> Mapping[str, Any]:
    _check_nesting(body)
    query = _object(body, "The body")
    given = query.get("resource") or "items"
    if given != resource:
        raise BadRequest(f'resource: {_shown(given)} cannot be queried here; "items" and "annotations" can.')
    _refuse_unsupported(query)
    return query


def _check_nesting(body: object) -> None:
    """Raises BadRequest where reading by recursion would not come back."""
    level, depth = [body], 0
    while level:
        if depth > _DEEPEST_JSON:
            raise BadRequest(f"The body is nested more than {_DEEPEST_JSON} levels deep. Write the filter flatter.")
        level = [part for value in level for part in _parts(value)]
        depth += 1


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _wanted(tree: Tree, item_type: str) -> Tree | None:
    rest = fold(tree, "type", item_type)
    return None if rest == NOTHING else rest


def _change(query: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    """A change must say of what: without its filter it would take the whole dataset."""
    update = None if query.get("update") is None else _object(query["update"], "update")
    delete = _boolean(query.get("delete"), "delete")
    if update is not None and delete:
        raise BadRequest("update, delete: one query does one of the two.")
    if (update is not None or delete) and query.get("filter") is None:
        raise BadRequest('filter is missing. To change all of them, say so: {"filter": {}}.')
    return update, delete


def _context(value: object) -> Context:
    """`{"projects": [id, …], "datasets": [id, …]}`; what is no id is nobody's."""
    context = _object(value, "context")
    return Context(
        project_ids=_ids(context.get("projects"), "context.projects"),
        dataset_ids=_ids(context.get("datasets"), "context.datasets"),
    )


def _ids(value: object, where: str) -> frozenset[int] | None:
    if value is None:
        return None
    ids = _list(value, where)
    for each in ids:
        if not isinstance(each, str):
            raise BadRequest(f"{where}: ids are texts, not {_shown(each)}.")
    return frozenset(number for each in ids if (number := id_number(each)) is not None)


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


@dataclass(slots=True)
class _Size:
    """How much of a query has been read."""

    nodes: int = 0

    def add(self, nodes: int, where: str) -> None:
        self.nodes += nodes
        if self.nodes > _MOST_NODES:
            raise BadRequest(
                f"{where[:200]}: the filter has more than {_MOST_NODES:,} parts."
                ' Compare with many values in one: {"field": {"$in": […]}}.'
            )


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the conditions on rows of one resource; in an element of a list, its keys are fields and nothing else."""

    resource: Resource
    in_element: bool = False
    size: _Size = field(default_factory=_Size)

    @property
    def _fields(self) -> FieldTable:
        return ITEM_FIELDS if self.resource == "items" else ANNOTATION_FIELDS

    def query(self, query: Mapping[str, Any], where: str, depth: int = 0) -> Tree:
        """The filter of a query with its join and sets; `where` is empty, or ends with a dot."""
        parts = [self.conditions(_object(query.get("filter"), f"{where}filter"), f"{where}filter", depth)]
        parts += [self._condition(key, query[key], where, depth) for key in _BESIDE if query.get(key) is not None]
        return _all(parts)

    def conditions(self, conditions: Mapping[str, Any], where: str, depth: int) -> Tree:
        if depth > DEEPEST:
            raise BadRequest(f"{where[:200]}…: nested more than {DEEPEST} levels deep. Write it flatter.")
        return _all([self._condition(key, value, where + ".", depth) for key, value in conditions.items()])

    def _condition(  # noqa: PLR0911 - one case a key
        self, key: str, value: object, where: str, depth: int
    ) -> Tree:
        place = f"{where}{key[:80]}"
        self.size.add(1, place)
        match key:
            case "$and":
                return _all([self.conditions(part, at, depth + 1) for at, part in self._objects(value, place)])
            case "$or":
                return Or(tuple(self.conditions(part, at, depth + 1) for at, part in self._objects(value, place)))
            case "$not":
                return Not(self.conditions(_object(value, place), place, depth + 1))
            case "join" if not self.in_element:
                return self._join(_object(value, place), place, depth + 1)
            case "intersect" if not self.in_element:
                return self._set(value, place, depth + 1)
            case "except" if not self.in_element:
                return Not(self._set(value, place, depth + 1))
            case _ if key.startswith("$"):
                raise BadRequest(
                    f'{place}: there is no such operator here. Between conditions stand "$and", "$or" and "$not".'
                )
            case _:
                return self._field(key if self.in_element else _SHORT_NAMES.get(key, key), value, place, depth)

    def _join(self, join: Mapping[str, Any], where: str, depth: int) -> Tree:
        """Without conditions it asks for nothing: so a filter looks whose join was taken out again."""
        other: Resource = "annotations" if self.resource == "items" else "items"
        _check_join(_object(join.get("on"), f"{where}.on"), f"{where}.on", other)
        reader = replace(self, resource=other)
        tree = reader.conditions(_object(join.get("filter"), f"{where}.filter"), f"{where}.filter", depth)
        if tree == EVERYTHING:
            return EVERYTHING
        return HasAnnotation(tree) if other == "annotations" else OfItem(tree)

    def _set(self, value: object, where: str, depth: int) -> Tree:
        given = _object(value, where)
        if not isinstance(given.get("query"), dict):
            raise BadRequest(f'{where}: looks like {{"query": {{"filter": {{…}}, "join": {{…}}}}}}.')
        query = cast("dict[str, Any]", given["query"])
        if (query.get("resource") or self.resource) != self.resource:
            raise BadRequest(f"{where}.query.resource: sets are of one resource, here {self.resource}.")
        _refuse_unsupported(query)
        return self.query(query, f"{where}.query.", depth)

    def _field(self, name: str, value: object, where: str, depth: int) -> Tree:
        """`{"a.b": 5}`, `{"a.b": {"$gt": 5, "$lt": 9}}` or, nested, `{"a": {"b": 5}}`."""
        self.size.add(1, where)
        if not isinstance(value, dict):
            return Condition(name, "eq", self._value(name, value, where))
        if depth > DEEPEST:
            raise BadRequest(f"{where[:200]}…: nested more than {DEEPEST} levels deep. Write it flatter.")
        parts = cast("dict[str, object]", value)
        if not parts:
            raise BadRequest(f'{where}: {{}} says nothing. Use {{"$exists": true}}, or leave it out.')
        operators = [key for key in parts if key.startswith("$")]
        if not operators:
            inner = [
                self._field(f"{name}.{key}", part, f"{where}.{key[:80]}", depth + 1) for key, part in parts.items()
            ]
            return self._of_one_element(name, _all(inner))
        if len(operators) < len(parts):
            raise BadRequest(f"{where}: operators and names of fields cannot stand side by side.")
        return _all([self._operator(name, key, part, f"{where}.{key[:80]}", depth + 1) for key, part in parts.items()])

    def _operator(  # noqa: PLR0911 - one case an operator
        self, name: str, operator: str, value: object, where: str, depth: int
    ) -> Tree:
        match operator:
            case "$in" | "$nin":
                return Condition(
                    name, _COMPARISONS[operator], [self._value(name, each, where) for each in _list(value, where)]
                )
            case "$exists":
                if not isinstance(value, bool):
                    raise BadRequest(f"{where}: must be true or false, not {_shown(value)}.")
                return Condition(name, "exists", value)
            case "$match" if isinstance(value, dict):
                inside = replace(self, in_element=True)
                return ElementMatch(name, inside.conditions(cast("dict[str, object]", value), where, depth))
            case "$match":
                return Condition(name, "eq", self._value(name, value, where))
            case "$not":
                return Not(self._field(name, value, where, depth))
            case "$and":
                return _all([self._field(name, part, at, depth) for at, part in self._elements(value, where)])
            case "$or":
                return Or(tuple(self._field(name, part, at, depth) for at, part in self._elements(value, where)))
            case _ if operator in _COMPARISONS:
                column = self._column(name)
                if operator not in ("$eq", "$ne") and column is not None and column.kind == "boolean":
                    raise BadRequest(f"{where}: {name} is true or false, and these have no order. Ask for one of them.")
                return Condition(name, _COMPARISONS[operator], self._value(name, value, where))
            case _:
                raise BadRequest(f"{where}: there is no such operator. There are {', '.join(_OPERATORS)}.")

    def _value(self, name: str, value: Any, where: str) -> Any:
        """Raises BadRequest for what the field can never be, which would find nothing, or everything, without a word.

        Types of annotations have no slash in front, which the tutorials of the SDK write.
        """
        if (field := self._column(name)) is None:
            return value
        if (taken := type_mismatch(field, value)) is not None:
            several = ' "$in" compares with several values.' if isinstance(value, list) else ""
            raise BadRequest(f"{where}: {name} is {taken}, not {_shown(value)}.{several}")
        if self.resource == "annotations" and name == "type" and isinstance(value, str):
            return value.removeprefix("/")
        return value

    def _column(self, name: str) -> Field | None:
        """The field, if it is one whose type is known."""
        return None if self.in_element else self._fields.named.get(name)

    def _of_one_element(self, name: str, tree: Tree) -> Tree:
        """Conditions that are nested in one object hold for one object, where there is a list of them.

        Only those that ask for something to be there: what is to be missing may be missing with all that is around it.
        """
        parts = tree.parts if isinstance(tree, And) else (tree,)
        if len(parts) < 2 or not self._may_be_list(name) or not all(map(_asks_for_something, parts)):
            return tree
        named = cast("tuple[Condition | ElementMatch, ...]", parts)
        if not self.in_element and any(part.field in self._fields.named for part in named):
            return tree
        return ElementMatch(name, And(tuple(replace(part, field=part.field[len(name) + 1 :]) for part in named)))

    def _may_be_list(self, name: str) -> bool:
        if self.in_element or name == "coordinates":
            return True
        return any(name.startswith(document + ".") for document in self._fields.documents)

    def _elements(self, value: object, where: str) -> list[tuple[str, Any]]:
        elements = _list(value, where)
        if not elements and where.endswith("$or"):
            raise BadRequest(f"{where}: [] is no choice. Put conditions in, or leave it out.")
        self.size.add(len(elements), where)
        return [(f"{where}[{number}]", element) for number, element in enumerate(elements)]

    def _objects(self, value: object, where: str) -> list[tuple[str, Mapping[str, Any]]]:
        return [(at, _object(element, at)) for at, element in self._elements(value, where)]


def _asks_for_something(part: Tree) -> bool:
    match part:
        case ElementMatch():
            return True
        case Condition(_, "eq", value):
            return value is not None
        case Condition(_, "in", list(values)):
            return None not in values
        case Condition(_, "exists", value):
            return bool(value)
        case Condition(_, operator, _):
            return operator in ("gt", "gte", "lt", "lte")
        case _:
            return False


def _check_join(on: Mapping[str, Any], where: str, other: Resource) -> None:
    """`local` is the key of the resource that is joined, `forigen` that of the one asked for: the SDK spells it so."""
    keys = {"resource": other, "local": "itemId", "forigen": "id"}
    if other == "items":
        keys |= {"local": "id", "forigen": "itemId"}
    for key, right in keys.items():
        if on.get(key, right) != right:
            raise BadRequest(f'{where}.{key}: {_shown(on[key])} cannot be joined here; "{right}" can.')


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


def _page(query: Mapping[str, Any]) -> tuple[Page, KeysetAfter | None]:
    sort = _sort(query.get("sort"))
    page = _number(query.get("page"), "page", default=0)
    if page > _LARGEST_PAGE:
        raise BadRequest("page: that is past any list; pages are counted from 0.")
    page_size = _number(query.get("pageSize"), "pageSize", default=_LARGEST_PAGE_SIZE)
    keyset_after = _keyset_after(_object(query.get("filter"), "filter"), sort) if page == 0 else None
    return Page(_in_order_of_creation(sort), page, min(page_size, _LARGEST_PAGE_SIZE)), keyset_after


def _sort(value: object) -> list[tuple[str, bool]]:
    """Fields and whether they descend. The SDK's older `{"ascending": "ascending"}` means nothing."""
    sort: list[tuple[str, bool]] = []
    if len(_object(value, "sort")) > _MOST_SORTS:
        raise BadRequest(f"sort: by {_MOST_SORTS} fields at most.")
    for name, direction in _object(value, "sort").items():
        if name in _DIRECTIONS and name == direction:
            continue
        if not isinstance(direction, str) or direction not in _DIRECTIONS:
            raise BadRequest(f'sort.{name[:80]}: {_shown(direction)} is no direction. Use "ascending" or "descending".')
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


def _without_last(query: Mapping[str, Any]) -> Mapping[str, Any]:
    conditions = query["filter"]
    return {**query, "filter": {**conditions, "$and": conditions["$and"][:-1]}}


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
