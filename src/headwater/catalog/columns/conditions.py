"""One condition of a filter on one JSON value, in plain Python, with the meaning that `query.py` gives it in SQL.

Values come from `load`, which keeps numbers as exact as PostgreSQL does: 0.1 is a Decimal, never a float.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any, assert_never, cast

from headwater.catalog.fields import list_of, truth_of
from headwater.catalog.query import And, Condition, ElementMatch, HasAnnotation, Not, OfItem, Or, Tree
from headwater.catalog.wildcards import Parts, is_pattern, text_parts
from headwater.errors import BadRequest

Predicate = Callable[[Any], bool]

_LONGEST_INT = 4_000  # digits; Python refuses to read longer ones as int
_ORDERS: dict[str, Callable[[Any, Any], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) < _LONGEST_INT else Decimal(digits)


def load(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=_integer)


def number_of(value: float) -> int | Decimal:
    """As PostgreSQL reads the number that JSON writes."""
    return Decimal(repr(value)) if isinstance(value, float) else value


def exact(value: Any) -> Any:
    """The same with numbers as `load` reads them."""
    match value:
        case float():
            return number_of(value)
        case list():
            return [exact(element) for element in cast("list[Any]", value)]
        case dict():
            return {key: exact(inner) for key, inner in cast("dict[str, Any]", value).items()}
        case _:
            return value


def plain(value: Any) -> Any:
    """As JSON libraries write it."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case list():
            return [plain(element) for element in cast("list[Any]", value)]
        case dict():
            return {key: plain(inner) for key, inner in cast("dict[str, Any]", value).items()}
        case _:
            return value


def of_value(part: Condition | ElementMatch) -> Predicate:  # noqa: PLR0911 - one case an operator
    """Says of the value at the field whether it meets the condition. Where there is none, ask `of_nothing`."""
    if isinstance(part, ElementMatch):
        inner = of_document(part.part)
        return lambda value: any(map(inner, elements(value)))
    match part.operator:
        case "ne":
            return _negation(of_value(replace(part, operator="eq")))
        case "nin":
            return _negation(of_value(replace(part, operator="in")))
        case "exists":
            there = truth_of(part.value)
            return lambda _: there
        case "eq":
            return _equals([part.value])
        case "in":
            return _equals(list_of(part.value, "$in"))
        case "gt" | "gte" | "lt" | "lte":
            return _compares(part.operator, part.value)


def of_nothing(part: Condition | ElementMatch) -> bool:  # noqa: PLR0911 - one case an operator
    """Whether the condition holds where the document has nothing at the field."""
    if isinstance(part, ElementMatch):
        return False
    match part.operator:
        case "eq":
            return part.value is None
        case "ne":
            return part.value is not None
        case "in":
            return None in list_of(part.value, "$in")
        case "nin":
            return None not in list_of(part.value, "$nin")
        case "exists":
            return not truth_of(part.value)
        case "gt" | "gte" | "lt" | "lte":
            return False


def of_document(tree: Tree) -> Predicate:
    """Says of a JSON value whether it fulfils a tree whose fields start in it."""
    match tree:
        case And(parts):
            every = [of_document(part) for part in parts]
            return lambda value: all(each(value) for each in every)
        case Or(parts):
            some = [of_document(part) for part in parts]
            return lambda value: any(each(value) for each in some)
        case Not(part):
            return _negation(of_document(part))
        case Condition() | ElementMatch():
            return _at_field(tree)
        case HasAnnotation() | OfItem():
            raise BadRequest("join: items are joined with their annotations, and annotations with their items.")
        case _:
            assert_never(tree)


def _at_field(part: Condition | ElementMatch) -> Predicate:
    keys = part.field.split(".")
    if isinstance(part, Condition) and part.operator in ("ne", "nin"):
        return _negation(_at_field(replace(part, operator="eq" if part.operator == "ne" else "in")))
    of_each, without = of_value(part), of_nothing(part)

    def holds(document: Any) -> bool:
        values = list(values_at(document, keys))
        return any(map(of_each, values)) if values else without

    return holds


def values_at(document: Any, keys: Sequence[str]) -> Iterator[Any]:
    """What a path leads to: it goes through lists, as PostgreSQL's JSON paths do in lax mode."""
    if not keys:
        yield document
        return
    for place in cast("list[Any]", document) if isinstance(document, list) else [document]:
        if isinstance(place, dict) and keys[0] in place:
            yield from values_at(place[keys[0]], keys[1:])


def elements(value: Any) -> Iterable[Any]:
    """A list stands for its elements, and for theirs when they are lists."""
    if not isinstance(value, list):
        return (value,)
    return [
        inner
        for element in cast("list[Any]", value)
        for inner in (cast("list[Any]", element) if isinstance(element, list) else (element,))
    ]


def frozen(value: Any) -> Any:
    """Hashable, and equal where JSON is: true is not 1, 5 is 5.0, keys have no order."""
    match value:
        case bool():
            return (bool, value)
        case float():
            return number_of(value)
        case list():
            return (list, tuple(frozen(element) for element in cast("list[Any]", value)))
        case dict():
            pairs = cast("dict[str, Any]", value)
            return (dict, frozenset((key, frozen(inner)) for key, inner in pairs.items()))
        case _:
            return value


def _negation(predicate: Predicate) -> Predicate:
    return lambda value: not predicate(value)


def _equals(operands: Sequence[Any]) -> Predicate:
    likes = [like(text_parts(operand)) for operand in operands if is_pattern(operand)]
    lists = {frozen(operand) for operand in operands if isinstance(operand, list)}
    plain = {frozen(operand) for operand in operands if not isinstance(operand, list) and not is_pattern(operand)}

    def of_scalar(value: Any) -> bool:
        if isinstance(value, str):
            return value in plain or any(each(value) for each in likes)
        return not isinstance(value, list) and frozen(value) in plain

    def holds(value: Any) -> bool:
        if not isinstance(value, list):
            return of_scalar(value)
        return any(map(of_scalar, elements(value))) or (bool(lists) and frozen(value) in lists)

    return holds


def _compares(operator: str, operand: Any) -> Predicate:
    compare = _ORDERS[operator]
    if isinstance(operand, str):

        def of_text(value: Any) -> bool:
            return isinstance(value, str) and compare(value, operand)

        return _of_any_element(of_text)
    if isinstance(operand, bool) or not isinstance(operand, int | float):
        return lambda _: False
    number = number_of(operand)

    def of_number(value: Any) -> bool:
        return isinstance(value, int | Decimal) and not isinstance(value, bool) and compare(value, number)

    return _of_any_element(of_number)


def _of_any_element(predicate: Predicate) -> Predicate:
    return lambda value: any(map(predicate, elements(value))) if isinstance(value, list) else predicate(value)


def like(parts: Parts) -> Callable[[str], bool]:
    """Of literals and runs of any characters; in time that grows with the text, whatever the pattern."""
    if not parts:
        return lambda text: text == ""
    literals = [part for part in parts if isinstance(part, str)]
    if len(literals) == len(parts):
        whole = "".join(literals)
        return lambda text: text == whole
    first = literals.pop(0) if literals and parts[0] is literals[0] else ""
    last = literals.pop() if literals and parts[-1] is literals[-1] else ""

    def matches(text: str) -> bool:
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return False
        at, end = len(first), len(text) - len(last)
        for literal in literals:
            found = text.find(literal, at, end)
            if found < 0:
                return False
            at = found + len(literal)
        return True

    return matches
