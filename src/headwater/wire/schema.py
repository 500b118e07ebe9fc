"""A dataset's schema as it is answered: paths of metadata with types, frequencies and examples."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NotRequired

import orjson
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.datasets import Dataset
from headwater.catalog.schema import Covered, Sample, SampledItem
from headwater.catalog.searchable import is_below
from headwater.ids import to_wire
from headwater.wire import times

MOST_PATHS = 2_000
_MOST_EXAMPLES = 5
_MOST_VALUES = 10_000  # different ones that are counted of one path
_LONGEST_EXAMPLE = 100  # characters of a text
_DEEPEST = 50


class UnsearchablePaths(BaseModel):
    add: list[str] = Field(default_factory=list)
    remove: list[str] = Field(default_factory=list)


class SchemaBody(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    unsearchable_paths: UnsearchablePaths = Field(alias="unsearchablePaths")


class ExampleJson(TypedDict):
    value: Any
    items: int  # of the sample


class PathJson(TypedDict):
    path: str
    items: int  # that have it: of all where `isExact`, or of the sample
    share: float
    isExact: bool
    types: dict[str, int]  # of JSON, with items of the sample
    elementTypes: NotRequired[dict[str, int]]  # of lists
    distinctValues: int
    examples: list[ExampleJson]  # the most frequent first
    minimum: NotRequired[float]
    maximum: NotRequired[float]
    isSearchable: bool
    isIndexed: bool


class SampleJson(TypedDict):
    items: int
    isComplete: bool


class SchemaJson(TypedDict):
    itemsCount: int
    sample: SampleJson
    paths: list[PathJson]
    hasMorePaths: bool
    unsearchablePaths: list[str]


@dataclass(slots=True)
class _Seen:
    items: int = 0
    types: Counter[str] = field(default_factory=Counter[str])
    element_types: Counter[str] = field(default_factory=Counter[str])
    values: Counter[Any] = field(default_factory=Counter[Any])
    minimum: float | None = None
    maximum: float | None = None
    has_dotted_key: bool = False


def schema(dataset: Dataset, sample: Sample, covered: Mapping[str, Covered], indexed_items: int) -> SchemaJson:
    """Takes a moment for thousands of items: not for the event loop."""
    seen: dict[str, _Seen] = {}
    has_more = False
    for item in sample.items:
        has_more |= not _look_at(item, seen)
    for path, known in covered.items():
        if known.items and path.startswith("metadata.") and path not in seen:
            seen[path] = _Seen()
    number = len(sample.items)
    paths = [
        _path_json(path, one, number, covered.get(path), indexed_items, dataset.unsearchable_paths)
        for path, one in sorted(seen.items())
    ]
    return SchemaJson(
        itemsCount=dataset.shown_items,
        sample=SampleJson(items=number, isComplete=sample.is_complete),
        paths=paths,
        hasMorePaths=has_more,
        unsearchablePaths=dataset.unsearchable_paths,
    )


def _path_json(
    path: str, seen: _Seen, sampled: int, known: Covered | None, indexed: int, unsearchable: Sequence[str]
) -> PathJson:
    is_exact = known is not None and indexed > 0
    items, whole = (known.items, indexed) if known is not None and indexed else (seen.items, sampled)
    told = PathJson(
        path=path,
        items=items,
        share=round(items / whole, 6) if whole else 0.0,
        isExact=is_exact,
        types=dict(seen.types.most_common()),
        distinctValues=max(len(seen.values), (known.values or 0) if known is not None else 0),
        examples=[
            ExampleJson(value=value, items=count) for (_, value), count in seen.values.most_common(_MOST_EXAMPLES)
        ],
        isSearchable=not seen.has_dotted_key and not is_below(path, unsearchable),
        isIndexed=known is not None,
    )
    if seen.element_types:
        told["elementTypes"] = dict(seen.element_types.most_common())
    if seen.minimum is not None and seen.maximum is not None:
        told["minimum"], told["maximum"] = seen.minimum, seen.maximum
    return told


def _look_at(item: SampledItem, seen: dict[str, _Seen]) -> bool:
    """False: it has paths for which there is no room."""
    values: dict[str, list[Any]] = {}
    dotted: set[str] = set()
    for root, text in (("metadata.user", item.user), ("metadata.system", item.system)):
        if text is not None:
            for path, value, is_dotted in _leaves(root, orjson.loads(text)):
                if path not in item.typed:
                    values.setdefault(path, []).append(value)
                    if is_dotted:
                        dotted.add(path)
    for path, value in item.typed.items():
        if value is not None:
            values[path] = [_plain(value, path)]
    has_room = True
    for path, found in values.items():
        if path not in seen and len(seen) >= MOST_PATHS:
            has_room = False
            continue
        if (one := seen.get(path)) is None:
            one = seen[path] = _Seen()
        one.items += 1
        one.has_dotted_key |= path in dotted
        _note(one, found)
    return has_room


def _leaves(root: str, document: Any) -> Iterable[tuple[str, Any, bool]]:
    """Path and value of all that filters could name, and whether a key on the way has a dot, so that none can."""
    pending: list[tuple[str, Any, bool, int]] = [(root, document, False, 0)]
    while pending:
        path, value, is_dotted, depth = pending.pop()
        if depth:
            yield path, value, is_dotted
        if depth < _DEEPEST:
            inside = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
            for one in inside:
                if isinstance(one, dict):
                    pending += [(f"{path}.{key}", v, is_dotted or "." in key, depth + 1) for key, v in one.items()]


def _note(seen: _Seen, found: Sequence[Any]) -> None:
    """The values that one item has at a path: several, where the path runs through a list."""
    if len(found) == 1 and not isinstance(found[0], list | dict):  # nearly always
        kind = type_of(found[0])
        seen.types[kind] += 1
        _note_value(seen, kind, found[0])
        return
    seen.types.update({type_of(value) for value in found})
    elements = [element for value in found if isinstance(value, list) for element in value]
    seen.element_types.update({type_of(element) for element in elements})
    plain = [value for value in (*found, *elements) if not isinstance(value, list | dict)]
    for kind, value in {(type_of(value), value) for value in plain}:
        _note_value(seen, kind, value)


def _note_value(seen: _Seen, kind: str, value: Any) -> None:
    """One that is no list and no object, of a further item."""
    if kind in ("integer", "number"):
        if seen.minimum is None or value < seen.minimum:
            seen.minimum = value
        if seen.maximum is None or value > seen.maximum:
            seen.maximum = value
    if kind != "null":
        key = (kind, _shortened(value))
        if key in seen.values or len(seen.values) < _MOST_VALUES:
            seen.values[key] += 1


def _shortened(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _LONGEST_EXAMPLE:
        return value[: _LONGEST_EXAMPLE - 1] + "…"
    return value


_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


def type_of(value: Any) -> str:
    """As JSON names them, with integers told from other numbers."""
    return "null" if value is None else _TYPES[type(value)]


def _plain(value: Any, path: str) -> Any:
    """A column's value as items show it."""
    if isinstance(value, datetime):
        return times.to_wire(value)
    return to_wire(value) if path.endswith("Id") else value
