"""JSON documents of items as columns: what lies at the covered paths of many, and which paths there are.

PostgreSQL's numbers have any number of digits, Python's floats 17. What a float would not say exactly is UNKNOWN.
"""

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from headwater.catalog.columns.encoding import LONGEST_TEXT


class Mark:
    """What stands in a column where there is no value that could be told. No Enum: orjson would write it."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


ABSENT, UNKNOWN = Mark("ABSENT"), Mark("UNKNOWN")
Column = list[Any]  # JSON values and Marks

_LONG_NUMBER = re.compile(rb"[0-9.]{16,}")  # or such a text; of 15 digits every decimal is a float of its own
_LONGEST_PATH = 1_000
_DEEPEST = 20
_MOST_MET = 2_000
_SAMPLE_EVERY = 16  # where nothing new is, one row of so many is searched for paths that lead to objects elsewhere
_EMPTY: dict[str, Any] = {}


def parse(texts: Sequence[str | None]) -> Column:
    """Of jsonb's texts: each an object, or ABSENT; UNKNOWN where one is nested too deeply for us."""
    inexact = _with_inexact_numbers(texts)
    return [
        ABSENT if text is None else _parse_exactly(text) if row in inexact else _parse_quickly(text)
        for row, text in enumerate(texts)
    ]


def _with_inexact_numbers(texts: Sequence[str | None]) -> set[int]:
    """Rows with a number that orjson might not read as it is. Floats of 16 and 17 digits that programs wrote are."""
    data = "\n".join(text or "" for text in texts).encode()  # jsonb writes no line break itself
    letters = np.frombuffer(data, np.uint8)
    numbers = ((_LONG_NUMBER.match(data, at), at) for at in _long_numbers(letters))
    inexact = [at for number, at in numbers if number is not None and not _is_exact(number[0])]
    return set(np.searchsorted(np.flatnonzero(letters == ord("\n")), inexact).tolist())


def _long_numbers(letters: NDArray[np.uint8]) -> list[int]:
    """Where `_LONG_NUMBER` begins. A sixth of the time that the expression takes to look for itself."""
    runs = (letters >= ord("0")) & (letters <= ord("9")) | (letters == ord("."))
    for length in (1, 2, 4, 8):
        runs = runs[:-length] & runs[length:]
    return np.flatnonzero(runs & ~np.concatenate(([False], runs[:-1]))).tolist() if len(runs) else []


def _is_exact(number: bytes) -> bool:
    digits = number.decode()
    whole, point, fraction = digits.partition(".")
    if not point:
        return len(whole) <= 18  # 64 bits
    if "." in fraction:
        return False  # a text
    shortest = f"{whole}.{fraction.rstrip('0') or '0'}"
    return len(shortest) <= 16 or Decimal(repr(float(shortest))) == Decimal(shortest)


def _parse_quickly(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # 1,000 levels
        return UNKNOWN


def _parse_exactly(text: str) -> Any:
    try:
        return json.loads(text, parse_float=_exact_float, parse_int=_exact_integer)
    except RecursionError:
        return UNKNOWN


def _exact_float(text: str) -> float | Mark:
    number = float(text)
    return number if Decimal(repr(number)) == Decimal(text) else UNKNOWN


def _exact_integer(text: str) -> int | Mark:
    return int(text) if len(text) <= 1_000 else UNKNOWN


@dataclass(frozen=True, slots=True)
class PathTree:
    """The covered paths of documents: `number` is that of the path that ends here."""

    number: int | None = None
    children: dict[str, "PathTree"] = field(default_factory=dict[str, "PathTree"])


def tree_of(paths: Mapping[tuple[str, ...], int]) -> PathTree:
    """From their keys to their numbers."""
    numbers = {keys[0]: number for keys, number in paths.items() if len(keys) == 1}
    below: dict[str, dict[tuple[str, ...], int]] = {key: {} for key in numbers}
    for keys, number in paths.items():
        below.setdefault(keys[0], {})
        if len(keys) > 1:
            below[keys[0]][keys[1:]] = number
    return PathTree(None, {key: PathTree(numbers.get(key), tree_of(rest).children) for key, rest in below.items()})


def columns_of(documents: Column, tree: PathTree) -> Iterator[tuple[int, Column]]:
    """(number, column) of each path of the tree.

    As filters see it: a path goes through lists to what lies in their objects, for which no column is made: UNKNOWN.
    """
    if tree.number is not None:
        yield tree.number, documents
    if not tree.children:
        return
    types = set(map(type, documents))
    objects = documents if types == {dict} else [one if type(one) is dict else _EMPTY for one in documents]
    hidden: Sequence[int] = ()
    if list in types or Mark in types:
        hidden = [row for row, one in enumerate(documents) if type(one) is list or one is UNKNOWN]
    for key, child in tree.children.items():
        column = [one.get(key, ABSENT) for one in objects]
        for row in hidden:
            column[row] = UNKNOWN
        yield from columns_of(column, child)


@dataclass(slots=True)
class Seen:
    """What was met at one path."""

    count: int = 0
    numbers: int = 0
    texts: int = 0  # that are not long
    values: set[Any] = field(default_factory=set[Any])  # numbers and texts

    def add(self, more: "Seen") -> None:
        self.count += more.count
        self.numbers += more.numbers
        self.texts += more.texts
        self.values |= more.values


def find_paths(prefix: str, documents: Iterable[Any], besides: Container[str] = ()) -> dict[str, Seen]:
    """The paths at which there are scalars or lists, as filters name them, and what was found there.

    `besides`: those that are not told.
    """
    found: dict[str, Seen] = {}
    for document in documents:
        if type(document) is dict:
            _find_below(document, prefix, 1, found, besides)
    return found


def _find_below(
    document: Mapping[str, Any], above: str, depth: int, found: dict[str, Seen], besides: Container[str]
) -> None:
    for key, value in document.items():
        path = f"{above}.{key}"
        if "." in key or depth > _DEEPEST or len(path) > _LONGEST_PATH:
            continue  # no filter can name it, or should
        if type(value) is dict:
            _find_below(value, path, depth + 1, found, besides)
        elif path in besides:
            continue
        elif type(value) is not list or not any(type(element) is dict for element in value):
            seen = found.setdefault(path, Seen())
            seen.count += 1
            if type(value) is str or type(value) is int or type(value) is float:
                seen.values.add(value)
                seen.numbers += type(value) is not str
                seen.texts += type(value) is str and len(value) <= LONGEST_TEXT


class TooMany(Exception):
    """There are more paths, or deeper ones, than are kept in mind."""


class Meeting:
    """All paths that documents have, whatever lies there: what is not among `paths`, no filter finds."""

    def __init__(self, covered: Iterable[str]) -> None:
        self.paths: set[str] | None = set()  # None: they could not be told
        self.found: dict[str, Seen] = {}  # as `find_paths` has it, of what is not covered
        self._ends: set[str] = set()  # those behind which nothing comes, and to which no list leads
        self._covered = frozenset(covered)

    def add(self, prefix: str, documents: Column) -> None:
        """The documents of a piece, of which `prefix` is what filters call them."""
        try:
            self._meet(prefix, [one for one in documents if type(one) is dict], 1, in_list=False)
        except TooMany:
            self.paths = None
        if UNKNOWN in documents:
            self.paths = None
        is_new = self.paths is None or not self._ends <= self._covered
        searched = documents if is_new else documents[::_SAMPLE_EVERY]
        for path, seen in find_paths(prefix, searched, self._covered).items():
            self.found.setdefault(path, Seen()).add(seen)

    def _meet(self, above: str, objects: list[dict[str, Any]], depth: int, *, in_list: bool) -> None:
        if self.paths is None:
            return
        keys: set[str] = set().union(*objects)
        self.paths.update(f"{above}.{key}" for key in keys)
        longest = max(map(len, keys), default=0) + len(above)
        if len(self.paths) > _MOST_MET or depth > _DEEPEST or longest >= _LONGEST_PATH:
            raise TooMany
        below: dict[str, list[dict[str, Any]]] = {}
        direct: set[str] = set()  # keys that lead to objects, and not only through lists
        for one in objects:
            for key, value in one.items():
                if type(value) is dict:
                    below.setdefault(key, []).append(value)
                    direct.add(key)
                elif type(value) is list:
                    below.setdefault(key, []).extend(_objects_in(value))
        for key, inner in below.items():
            if any(inner):
                self._meet(f"{above}.{key}", inner, depth + 1, in_list=in_list or key not in direct)
        if not in_list:
            self._ends.update(f"{above}.{key}" for key in keys if not any(below.get(key, ())) and "." not in key)


def _objects_in(values: list[Any]) -> Iterator[dict[str, Any]]:
    for value in values:
        if type(value) is dict:
            yield value
        elif type(value) is list:
            yield from _objects_in(value)
