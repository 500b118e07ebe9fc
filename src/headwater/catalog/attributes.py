"""Attributes: what annotators are asked of a label. Nothing here reads the database."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from headwater.catalog.fields import check_text, shown
from headwater.errors import BadRequest, Conflict, NotFound

Kind = Literal["options", "range", "boolean", "freeText"]  # as the SDK names them

MOST_ATTRIBUTES = 1_000  # of one ontology
_MOST_VALUES = 10_000  # of one attribute
_LONGEST_TEXT = 1_000
_LARGEST_NUMBER = 2**53


@dataclass(frozen=True, slots=True)
class Range:
    min: float
    max: float
    step: float


@dataclass(frozen=True, slots=True)
class Attribute:
    key: str  # unique in its ontology
    title: str
    kind: Kind
    scope: list[str]  # full names of labels, or "*" for all
    is_optional: bool | None = None
    is_multiple: bool | None = None  # of options: whether several may be chosen
    values: list[str] | None = None  # of options
    range: Range | None = None
    extra: dict[str, Any] = field(default_factory=dict[str, Any])  # what else clients keep there


def check(attribute: Attribute) -> None:
    """Raises BadRequest."""
    where = f"The attribute {shown(attribute.key)}"
    for name, text in (("key", attribute.key), ("title", attribute.title)):
        if not text.strip() or len(text) > _LONGEST_TEXT:
            raise BadRequest(f"{where}: its {name} is a text of 1 to {_LONGEST_TEXT} characters.")
    for text in [attribute.key, attribute.title, *attribute.scope, *(attribute.values or [])]:
        check_text(text)
    if attribute.kind not in get_args(Kind):
        raise BadRequest(f"{where}: there is no type {shown(attribute.kind)}. Types: {', '.join(get_args(Kind))}.")
    if not attribute.scope:
        raise BadRequest(f'{where}: its scope is a list of labels, or ["*"] for all of them.')
    if attribute.kind != "options" and attribute.values:
        raise BadRequest(f"{where}: only the type options has values.")
    if attribute.kind != "range" and attribute.range is not None:
        raise BadRequest(f"{where}: only the type range has a range.")
    if attribute.kind == "options":
        _check_values(where, attribute.values or [])
    if attribute.kind == "range":
        _check_range(where, attribute.range)


def _check_values(where: str, values: list[str]) -> None:
    if not values:
        raise BadRequest(f'{where}: the type options needs values, such as ["day", "night"].')
    if len(values) > _MOST_VALUES or any(len(value) > _LONGEST_TEXT for value in values):
        raise BadRequest(f"{where}: at most {_MOST_VALUES:,} values go, each of at most {_LONGEST_TEXT} characters.")
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise BadRequest(f"{where}: the value {shown(twice)} is there twice.")


def _check_range(where: str, given: Range | None) -> None:
    if given is None:
        raise BadRequest(f'{where}: the type range needs a range: {{"min": 0, "max": 10, "step": 1}}.')
    numbers = (given.min, given.max, given.step)
    if not all(math.isfinite(number) and abs(number) <= _LARGEST_NUMBER for number in numbers):
        raise BadRequest(f"{where}: the numbers of its range lie between -2^53 and 2^53.")
    if given.min >= given.max or given.step <= 0 or given.step > given.max - given.min:
        raise BadRequest(
            f"{where}: in its range min is less than max, and step more than 0 and at most their difference."
        )


def check_all(attributes: Sequence[Attribute]) -> None:
    """Raises BadRequest."""
    if len(attributes) > MOST_ATTRIBUTES:
        raise BadRequest(f"An ontology has at most {MOST_ATTRIBUTES:,} attributes.")
    for attribute in attributes:
        check(attribute)
    _check_keys(attributes)


def _check_keys(attributes: Sequence[Attribute]) -> None:
    keys: set[str] = set()
    for attribute in attributes:
        if attribute.key in keys:
            raise BadRequest(f"The key {shown(attribute.key)} is there twice. Every attribute needs one of its own.")
        keys.add(attribute.key)


def changed(before: Sequence[Attribute], given: Sequence[Attribute], *, may_change: bool) -> list[Attribute]:
    """With these put in the place of those with the same key. Raises Conflict, BadRequest."""
    _check_keys(given)
    by_key = {attribute.key: attribute for attribute in before}
    for attribute in given:
        old = by_key.get(attribute.key)
        if old is not None and not may_change:
            raise Conflict(
                f"There is an attribute with the key {shown(attribute.key)} already. To change it, send upsert: true."
            )
        by_key[attribute.key] = attribute if old is None else _over(old, attribute)
    result = list(by_key.values())
    check_all(result)
    return result


def _over(old: Attribute, new: Attribute) -> Attribute:
    """What is not said anew stays, as long as it is of the same type."""
    same = old.kind == new.kind
    return Attribute(
        key=new.key,
        title=new.title,
        kind=new.kind,
        scope=new.scope,
        is_optional=old.is_optional if new.is_optional is None else new.is_optional,
        is_multiple=old.is_multiple if new.is_multiple is None and same else new.is_multiple,
        values=old.values if new.values is None and same else new.values,
        range=old.range if new.range is None and same else new.range,
        extra=old.extra | new.extra,
    )


def without(before: Sequence[Attribute], keys: Sequence[str]) -> list[Attribute]:
    """Raises NotFound."""
    known = {attribute.key for attribute in before}
    for key in keys:
        if key not in known:
            raise NotFound(f"There is no attribute with the key {shown(key)} in this ontology. Nothing was deleted.")
    return [attribute for attribute in before if attribute.key not in set(keys)]


# As they are stored.


def to_json(attributes: Sequence[Attribute]) -> list[dict[str, Any]]:
    return [asdict(attribute) for attribute in attributes]


def from_json(stored: Sequence[dict[str, Any]]) -> list[Attribute]:
    return [_from_json(**one) for one in stored]


def _from_json(*, range: dict[str, Any] | None, **rest: Any) -> Attribute:  # noqa: A002
    return Attribute(range=None if range is None else Range(**range), **rest)
