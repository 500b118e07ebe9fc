"""Filters: trees of conditions on known fields, and the SQL they become. Values travel as parameters only.

A condition on what a row does not have is false, and its negation true: SQL's third value never shows.

Trees of items and of annotations have the same nodes, over the fields of a table of their own; HasAnnotation leads from
one to the other, OfItem back. Sets of queries need no node: an intersection is And, a difference And with Not.

operator              a column                    a path in a JSON document (lists: any element)
eq                    =, wildcards in text        @ == $value, wildcards in text, whole lists and objects
in                    = ANY, or a wildcard        = ANY, or a wildcard
gt, gte, lt, lte      same type only              same type only, numbers and text
exists                IS NOT NULL                 the key is there, be it null
ne, nin               the negation of eq, in      the negation of eq, in
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import ge, gt, le, lt
from typing import Any, Literal, LiteralString, assert_never

from psycopg import sql

from headwater.catalog.fields import (
    ANNOTATION_FIELDS,
    CASTS,
    DEEPEST,
    DIR_FIELDS,
    ITEM_FIELDS,
    LARGEST_ID,
    Field,
    FieldTable,
    check_value,
    checked_keys,
    column_value,
    id_number,
    list_of,
    shown,
    truth_of,
)
from headwater.catalog.wildcards import (
    ANY,
    BELOW,
    Parts,
    after_all_with,
    as_like,
    as_regex,
    is_pattern,
    path_parts,
    text_parts,
)
from headwater.errors import BadRequest

Operator = Literal["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists"]


@dataclass(frozen=True, slots=True)
class And:
    parts: "tuple[Tree, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    parts: "tuple[Tree, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    part: "Tree"


@dataclass(frozen=True, slots=True)
class Condition:
    field: str
    operator: Operator
    value: Any  # JSON; strings of eq, ne, in and nin may hold wildcards


@dataclass(frozen=True, slots=True)
class ElementMatch:
    """One element of the list at `field`, or the object there, fulfils `part`, whose fields start in it."""

    field: str
    part: "Tree"


@dataclass(frozen=True, slots=True)
class HasAnnotation:
    """Of items: at least one annotation of the item fulfils `part`, a tree over ANNOTATION_FIELDS.

    Folders have none. Its truth changes with the rows of `annotation`, without a change of the item's own row.
    """

    part: "Tree"


@dataclass(frozen=True, slots=True)
class OfItem:
    """Of annotations: the item they are of fulfils `part`, a tree over ITEM_FIELDS."""

    part: "Tree"


Tree = And | Or | Not | Condition | ElementMatch | HasAnnotation | OfItem

EVERYTHING = And(())
NOTHING = Or(())


@dataclass(frozen=True, slots=True)
class Page:
    sort: tuple[tuple[str, bool], ...]  # field, descending
    page: int  # from 0
    page_size: int  # 0: count only


Compiled = tuple[sql.Composed, dict[str, object]]

_MOST_CONDITIONS = 1_000
_MOST_JOINS = 6


def compile_filter(tree: Tree, *, dataset_id: int, fields: FieldTable = ITEM_FIELDS) -> Compiled:
    """What stands behind WHERE in a query FROM item, and its parameters. Raises BadRequest.

    With DIR_FIELDS in one FROM folder, with ANNOTATION_FIELDS in one FROM annotation. It restricts the rows to the
    dataset.
    """
    compiler = _Compiler(fields)
    where = sql.SQL("{} AND {}").format(sql.SQL(fields.base), compiler.tree(tree))
    return where, {"dataset_id": dataset_id, **compiler.params}


def compile_page(page: Page, fields: FieldTable = ITEM_FIELDS, *, lookahead: int = 0) -> Compiled:
    """ORDER BY, LIMIT and OFFSET. `lookahead`: rows past the page, which tell whether more follow.

    Rows without the field come last in either direction; rows that are equal come by id. Raises BadRequest.
    """
    params: dict[str, object] = {
        "page_limit": page.page_size + lookahead,
        "page_offset": page.page * page.page_size,
    }
    order: list[sql.Composable] = []
    for name, descending in _with_id(page.sort, fields):
        field = fields.find(name)
        expression: sql.Composable = sql.SQL(field.sort_sql or field.sql)
        if field.kind == "json":
            key = f"sort_{len(order)}"
            params[key] = list(checked_keys(field.keys))
            expression = sql.SQL("{} #> {}::text[]").format(expression, sql.Placeholder(key))
        # Not for columns that are never NULL: PostgreSQL would not read their index backwards.
        nulls = sql.SQL(" NULLS LAST" if field.nullable else "")
        direction = sql.SQL(" DESC" if descending else " ASC")
        order.append(sql.SQL("{}{}{}").format(expression, direction, nulls))
    return sql.SQL("ORDER BY {} LIMIT {} OFFSET {}").format(
        sql.SQL(", ").join(order), sql.Placeholder("page_limit"), sql.Placeholder("page_offset")
    ), params


def _with_id(sort: Sequence[tuple[str, bool]], fields: FieldTable) -> Iterable[tuple[str, bool]]:
    """A total order, and no more than it takes."""
    seen: set[str] = set()
    descending = False
    for name, descending in sort:
        if name not in seen:
            seen.add(name)
            yield name, descending
        if fields.find(name).unique:
            return
    yield "id", descending


def fold(tree: Tree, field: str, text: str) -> Tree:
    """What remains to be asked of rows whose `field` is known to be `text`."""
    match tree:
        case Condition() if tree.field == field:
            return EVERYTHING if _holds(tree.operator, tree.value, text) else NOTHING
        case And(parts):
            rest = [part for part in (fold(part, field, text) for part in parts) if part != EVERYTHING]
            return NOTHING if NOTHING in rest else rest[0] if len(rest) == 1 else And(tuple(rest))
        case Or(parts):
            rest = [part for part in (fold(part, field, text) for part in parts) if part != NOTHING]
            return EVERYTHING if EVERYTHING in rest else rest[0] if len(rest) == 1 else Or(tuple(rest))
        case Not(part):
            rest = fold(part, field, text)
            return NOTHING if rest == EVERYTHING else EVERYTHING if rest == NOTHING else Not(rest)
        case _:
            return tree


def mentions(tree: Tree, field: str) -> bool:
    match tree:
        case And(parts) | Or(parts):
            return any(mentions(part, field) for part in parts)
        case Not(part):
            return mentions(part, field)
        case Condition() | ElementMatch():
            return tree.field == field
        case HasAnnotation() | OfItem():  # their fields are of other rows
            return False


def _holds(operator: Operator, value: Any, text: str) -> bool:
    match operator:
        case "eq":
            return isinstance(value, str) and re.fullmatch(_any_run(value), text, re.DOTALL) is not None
        case "in":
            return any(_holds("eq", element, text) for element in list_of(value, operator))
        case "ne":
            return not _holds("eq", value, text)
        case "nin":
            return not _holds("in", value, text)
        case "exists":
            return truth_of(value)
        case "gt" | "gte" | "lt" | "lte":
            return isinstance(value, str) and _ORDERS[operator](text, value)


_ORDERS = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


def _any_run(pattern: str) -> str:
    return ".*".join(re.escape(literal) for literal in re.split(r"\*+", pattern))


_COMPARISONS: dict[str, LiteralString] = {
    "gt": "{} > {}",
    "gte": "{} >= {}",
    "lt": "{} < {}",
    "lte": "{} <= {}",
}
_JSON_COMPARISONS = {"eq": "==", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


class _Sure(sql.Composed):
    """A test that is true or false, never NULL: what is not EXISTS can be an anti-join, what IS NOT TRUE cannot."""


@dataclass(frozen=True, slots=True)
class _Other:
    fields: FieldTable
    rows: LiteralString


_ANNOTATIONS = _Other(ANNOTATION_FIELDS, "SELECT FROM annotation WHERE {} AND annotation.item_id = item.id AND {}")
_ITEMS = _Other(ITEM_FIELDS, "SELECT FROM item WHERE {} AND item.id = annotation.item_id AND {}")

_TRUE = sql.SQL("TRUE")
_FALSE = sql.SQL("FALSE")


class _Compiler:
    """Gathers the parameters while a tree becomes SQL."""

    def __init__(self, fields: FieldTable) -> None:
        self.params: dict[str, object] = {}
        self._fields = fields
        self._conditions = 0
        self._joins = 0
        self._elements = 0

    def tree(  # noqa: PLR0911 - one case a node
        self, tree: Tree, element: sql.Composable | None = None, depth: int = 0
    ) -> sql.Composable:
        """`element`: the JSON value in which the fields of the tree start."""
        if depth > DEEPEST:
            raise BadRequest(f"The filter is nested more than {DEEPEST} levels deep. Write it flatter.")
        match tree:
            case And(parts):
                return _all_of([self.tree(part, element, depth + 1) for part in parts])
            case Or(parts):
                return _any_of([self.tree(part, element, depth + 1) for part in parts])
            case Not(part):
                return _not(self.tree(part, element, depth + 1))
            case Condition():
                return self._condition(tree, element)
            case ElementMatch(name, part):
                document, path = self._document(name, element)
                found = self._new_element()
                inner = self.tree(part, sql.Identifier(found, "value"), depth + 1)
                return self._some_element(document, path, found, inner)
            case HasAnnotation(part):
                return self._in_other(_ANNOTATIONS, ITEM_FIELDS, part, element, depth)
            case OfItem(part):
                return self._in_other(_ITEMS, ANNOTATION_FIELDS, part, element, depth)
            case _:
                assert_never(tree)

    def _in_other(
        self, other: "_Other", own: FieldTable, part: Tree, element: sql.Composable | None, depth: int
    ) -> sql.Composable:
        """Whether some row of another table that belongs to this one fulfils `part`."""
        here = self._fields
        if element is not None or here not in (own, DIR_FIELDS):
            raise BadRequest("join: items are joined with their annotations, and annotations with their items.")
        if here is DIR_FIELDS:
            return _FALSE
        self._fields = other.fields
        inner = self.tree(part, None, depth + 1)
        self._fields = here
        return self._exists(sql.SQL(other.rows).format(sql.SQL(other.fields.base), inner))

    def _exists(self, rows: sql.Composable) -> sql.Composable:
        """Whether there are such rows. The first ones are planned as joins, which of hundreds would take for ever."""
        self._joins += 1
        return _Sure(
            [sql.SQL("EXISTS ({}{})").format(rows, sql.SQL("" if self._joins <= _MOST_JOINS else " OFFSET 0"))]
        )

    def _param(self, value: object, cast: LiteralString) -> sql.Composed:
        name = f"filter_{len(self.params)}"
        self.params[name] = value
        return sql.SQL(cast).format(sql.Placeholder(name))

    def _count(self, conditions: int = 1) -> None:
        self._conditions += conditions
        if self._conditions > _MOST_CONDITIONS:
            raise BadRequest(
                f"The filter has more than {_MOST_CONDITIONS:,} conditions."
                ' Compare with many values in one: {"field": {"$in": […]}}.'
            )

    def _condition(self, condition: Condition, element: sql.Composable | None) -> sql.Composable:
        match condition.operator:
            case "ne":
                return _not(self._condition(replace(condition, operator="eq"), element))
            case "nin":
                return _not(self._condition(replace(condition, operator="in"), element))
            case "exists" if not truth_of(condition.value):
                return _not(self._condition(replace(condition, value=True), element))
            case _:
                pass
        self._count()
        check_value(condition.value)
        field = None if element else self._fields.find(condition.field)
        if field is None or field.kind == "json":
            document, path = self._document(condition.field, element)
            return self._json_condition(document, path, condition.operator, condition.value)
        return self._column_condition(field, condition)

    # Columns.

    def _column_condition(self, field: Field, condition: Condition) -> sql.Composable:
        match condition.operator:
            case "exists":
                return self._present(field)
            case "eq":
                return self._column_equals(field, condition.field, [condition.value])
            case "in":
                return self._column_equals(field, condition.field, list_of(condition.value, "$in"))
            case _:
                return self._column_compares(field, condition)

    def _present(self, field: Field) -> sql.Composable:
        return self._within(field, sql.SQL("{} IS NOT NULL").format(sql.SQL(field.sql)))

    def _column_equals(self, field: Field, name: str, values: list[Any]) -> sql.Composable:
        column = sql.SQL(field.sql)
        if field.folder_itself:
            values = [meant for value in values for meant in _folders_meant(value)]
        has_text = field.kind in ("text", "path", "timestamp")
        patterns = [value for value in values if has_text and is_pattern(value)]
        self._count(len(patterns))
        tests = [self._matches(field, pattern) for pattern in patterns]
        converted = (column_value(field, name, value) for value in values if not (has_text and is_pattern(value)))
        plain = [value for value in converted if value is not None]
        one, many = CASTS[field.kind]
        if len(plain) == 1:
            tests.append(sql.SQL("{} = {}").format(column, self._param(plain[0], one)))
        elif plain:
            tests.append(sql.SQL("{} = ANY ({})").format(column, self._param(plain, many)))
        frame = field.within_one if len(plain) == 1 and not patterns else None
        found = [self._within(field, _any_of(tests), frame)] if tests else []
        if None in values:
            found.append(_not(self._present(field)))
        return _any_of(found)

    def _within(self, field: Field, test: sql.Composable, within_one: LiteralString | None = None) -> sql.Composable:
        if field.within_rows is not None:
            return self._exists(sql.SQL(field.within_rows).format(test))
        return _within(within_one or field.within, test)

    def _column_compares(self, field: Field, condition: Condition) -> sql.Composable:
        value = condition.value
        if field.kind == "id":
            number = id_number(value) if isinstance(value, str) else None
            if number is None:
                raise BadRequest(
                    f"{condition.field}: {shown(value)} is no id. Ids are 24 hexadecimal digits, in quotes."
                )
            if number > LARGEST_ID:
                return _TRUE if condition.operator in ("lt", "lte") else _FALSE
        converted = column_value(field, condition.field, value)
        if converted is None or field.kind == "boolean":
            return _FALSE
        comparison = sql.SQL(_COMPARISONS[condition.operator])
        bound = self._param(converted, CASTS[field.kind][0])
        return self._within(field, comparison.format(sql.SQL(field.sql), bound))

    def _matches(self, field: Field, pattern: str) -> sql.Composable:
        column = sql.SQL(field.sql)
        if field.kind == "path":
            return self._path_matches(column, path_parts(pattern, folder_itself=field.folder_itself))
        if field.kind == "timestamp":
            text = """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
            return self._text_matches(sql.SQL(text).format(column), pattern)
        return self._text_matches(column, pattern)

    def _text_matches(self, text: sql.Composable, pattern: str) -> sql.Composable:
        return sql.SQL("{} LIKE {}").format(text, self._param(as_like(text_parts(pattern)), "{}::text"))

    def _path_matches(self, column: sql.SQL, parts: Parts) -> sql.Composable:
        """As ranges of the index as far as the pattern begins with a literal, for plans that do not know it, too."""
        match parts:
            case [str(folder), mark] if mark is BELOW:
                itself = sql.SQL("{} = {}").format(column, self._param(folder, "{}::text"))
                return _any_of([itself, self._starts_with(column, folder + "/")])
            case [mark] if mark is BELOW:  # every path begins with a slash
                return self._starts_with(column, "/")
            case [str(prefix), mark] if mark is ANY:
                return self._starts_with(column, prefix)
            case _:
                pass
        if all(isinstance(part, str) or part is ANY for part in parts):
            test = sql.SQL("{} LIKE {}").format(column, self._param(as_like(parts), "{}::text"))
        else:
            test = sql.SQL("{} ~ {}").format(column, self._param(as_regex(parts), "{}::text"))
        prefix = parts[0]
        return _all_of([self._starts_with(column, prefix), test]) if isinstance(prefix, str) else test

    def _starts_with(self, column: sql.SQL, prefix: str) -> sql.Composable:
        from_here = sql.SQL("{} >= {}").format(column, self._param(prefix, "{}::text"))
        upper = after_all_with(prefix)
        if upper is None:
            return from_here
        return _all_of([from_here, sql.SQL("{} < {}").format(column, self._param(upper, "{}::text"))])

    # JSON documents. A path goes through lists, as PostgreSQL's JSON paths do in lax mode, and a value that
    # is a list stands for its elements, and for theirs when they are lists.

    def _document(self, name: str, element: sql.Composable | None) -> tuple[sql.Composable, str]:
        """The document in which a field lies, and the JSON path to it."""
        if element is not None:
            document, keys = element, tuple(name.split("."))
        else:
            field = self._fields.find(name)
            if field.kind != "json":
                raise BadRequest(f'{name} is a single value; "$match" looks into lists of objects.')
            document, keys = sql.SQL(field.sql), field.keys
        path = "$" + "".join("." + json.dumps(key, ensure_ascii=False) for key in checked_keys(keys))
        return document, path

    def _new_element(self) -> str:
        self._elements += 1
        return f"element_{self._elements}"

    def _some_element(
        self,
        document: sql.Composable,
        path: str,
        name: str,
        condition: sql.Composable,
        *,
        whole: bool = False,
    ) -> sql.Composable:
        return sql.SQL("EXISTS (SELECT FROM jsonb_path_query({}, {}) AS {} (value) WHERE {})").format(
            document,
            self._param(path if whole else path + "[*][*]", "{}::jsonpath"),
            sql.Identifier(name),
            condition,
        )

    def _path_exists(self, document: sql.Composable, path: str, variables: dict[str, Any]) -> sql.Composable:
        return sql.SQL("jsonb_path_exists({}, {}, {}, TRUE)").format(
            document,
            self._param(path, "{}::jsonpath"),
            self._param(json.dumps(variables, ensure_ascii=False), "{}::jsonb"),
        )

    def _json_condition(self, document: sql.Composable, path: str, operator: Operator, value: Any) -> sql.Composable:
        if operator == "exists":
            return self._path_exists(document, path, {})
        if operator == "in":
            return self._json_in(document, path, list_of(value, "$in"))
        if operator == "eq" and (value is None or isinstance(value, list | dict) or is_pattern(value)):
            return self._json_in(document, path, [value])
        if operator != "eq" and (isinstance(value, bool) or not isinstance(value, str | int | float)):
            return _FALSE
        comparison = f"{path} ? (@ {_JSON_COMPARISONS[operator]} $value)"
        return self._path_exists(document, comparison, {"value": value})

    def _json_in(self, document: sql.Composable, path: str, values: list[Any]) -> sql.Composable:
        name = self._new_element()
        element = sql.Identifier(name, "value")
        patterns = [value for value in values if is_pattern(value)]
        lists = [value for value in values if isinstance(value, list)]
        plain = [value for value in values if not isinstance(value, list) and not is_pattern(value)]
        self._count(len(patterns) + len(lists))
        tests: list[sql.Composable] = []
        if patterns:
            text = sql.SQL("({} #>> '{{}}')").format(element)
            likes = _any_of([self._text_matches(text, pattern) for pattern in patterns])
            tests.append(sql.SQL("jsonb_typeof({}) = 'string' AND {}").format(element, likes))
        if plain:
            tests.append(self._json_equals(element, plain))
        found = [self._some_element(document, path, name, _any_of(tests))] if tests else []
        if lists:
            whole = self._new_element()
            found.append(
                self._some_element(
                    document,
                    path,
                    whole,
                    self._json_equals(sql.Identifier(whole, "value"), lists),
                    whole=True,
                )
            )
        if None in values:
            found.append(_not(self._path_exists(document, path, {})))
        return _any_of(found)

    def _json_equals(self, element: sql.Composable, values: list[Any]) -> sql.Composable:
        texts = [json.dumps(value, ensure_ascii=False) for value in values]
        return sql.SQL("{} = ANY ({})").format(element, self._param(texts, "{}::text[]::jsonb[]"))


def _all_of(parts: Sequence[sql.Composable]) -> sql.Composable:
    if len(parts) < 2:
        return parts[0] if parts else _TRUE
    return sql.SQL("({})").format(sql.SQL(" AND ").join(parts))


def _any_of(parts: Sequence[sql.Composable]) -> sql.Composable:
    if len(parts) < 2:
        return parts[0] if parts else _FALSE
    return sql.SQL("({})").format(sql.SQL(" OR ").join(parts))


def _not(part: sql.Composable) -> sql.Composable:
    return _Sure([sql.SQL("(NOT {})" if isinstance(part, _Sure) else "(({}) IS NOT TRUE)").format(part)])


def _within(frame: LiteralString | None, test: sql.Composable) -> sql.Composable:
    return sql.SQL(frame).format(test) if frame else test


def _folders_meant(value: Any) -> list[Any]:
    """`/a/` is the folder `/a`, unless there is one whose name ends with a slash."""
    if not isinstance(value, str) or not value.endswith("/") or value == "/":
        return [value]
    return [value, value.rstrip("/") or "/"]
