"""Columns that come piece by piece become one chunk: a filler for each encoding of JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headwater.catalog.columns import encoding
from headwater.catalog.columns.documents import ABSENT, UNKNOWN, Column, Mark
from headwater.catalog.columns.encoding import (
    FIRST_CODE,
    LONGEST_TEXT,
    MOST_VALUES,
    Chunk,
    Codes,
    Encoding,
    Hashes,
    Numbers,
    Texts,
    canonical,
    hash_value,
)

LONGEST_VALUE_BYTES = 1_000  # of one in a dictionary
MOSTLY_NUMBERS = 0.9  # of the values: the others are exceptions
_ENOUGH = 1_000  # values of one segment, to judge their path by
MOST_DICTIONARY_BYTES = 8 * 1024**2  # of one path, about

_LARGEST_EXACT = 2**53  # every integer up to it is a float


class Filler(Protocol):
    def add(self, column: Column) -> None: ...

    def chunk(self) -> Chunk: ...


class Dictionary(dict[Any, int]):
    """The codes of a path's values, by `key_of` each. Asked for a value that it does not know, it gives it a code.

    `added` are those that are not in the database yet. Once it is full (`is_full`) new values get no code of their own.
    """

    def __init__(self, values: Sequence[tuple[int, Any]]) -> None:
        super().__init__({ABSENT: encoding.ABSENT, UNKNOWN: encoding.UNKNOWN})
        self.added: list[tuple[int, bytes]] = []
        self.is_full = False
        self._next = FIRST_CODE
        self._bytes = 0
        for code, value in values:
            self[key_of(value)] = code
            self._next = code + 1
            self._bytes += len(canonical(value))

    def __missing__(self, key: Any) -> int:
        text = canonical(key) if type(key) is not bytes else key
        if len(text) > LONGEST_VALUE_BYTES:
            return encoding.UNKNOWN
        if self._next >= MOST_VALUES + FIRST_CODE or self._bytes + len(text) > MOST_DICTIONARY_BYTES:
            self.is_full = True
            return encoding.UNKNOWN
        code = self[key] = self._next
        self.added.append((code, text))
        self._next += 1
        self._bytes += len(text)
        return code

    def next_encoding(self) -> Encoding:
        """What its path goes on as when it is full."""
        numbers = sum(type(key) is int or type(key) is float for key in self)
        texts = sum(type(key) is str and len(key) <= LONGEST_TEXT for key in self)
        return encoding_of(numbers, texts, len(self))


def encoding_of(numbers: int, texts: int, values: int) -> Encoding:
    """Of many values, so many of which are numbers, or texts that are not long."""
    if numbers >= MOSTLY_NUMBERS * values:
        return "numbers"
    return "texts" if texts >= MOSTLY_NUMBERS * values else "hashes"


_PLAIN = frozenset({str, int, float, Mark})


def key_of(value: Any) -> Any:
    """Equal for what PostgreSQL takes for equal, which true and 1 are not."""
    if type(value) in _PLAIN:
        return value
    if type(value) is bool:
        return b"true" if value else b"false"
    return b"null" if value is None else _canonical_or_unknown(value)


def _canonical_or_unknown(value: Any) -> bytes | Mark:
    try:
        return canonical(value)
    except (TypeError, RecursionError):  # there is an UNKNOWN in it, or it is very deep
        return UNKNOWN


class CodesFiller:
    def __init__(self, dictionary: Dictionary) -> None:
        self._dictionary = dictionary
        self._parts: list[NDArray[np.uint16]] = []

    def add(self, column: Column) -> None:
        keys = column if set(map(type, column)) <= _PLAIN else list(map(key_of, column))
        self._parts.append(np.array(list(map(self._dictionary.__getitem__, keys)), np.uint16))

    def chunk(self) -> Codes:
        return Codes(_joined(self._parts, np.uint16))


class NumbersFiller:
    def __init__(self) -> None:
        self._values: list[NDArray[np.float64]] = []
        self._exceptions: dict[int, Any] = {}
        self._unknown: list[int] = []
        self._rows = 0

    def add(self, column: Column) -> None:
        plain = [value if type(value) is float else self._plain(row, value) for row, value in enumerate(column)]
        self._values.append(np.array(plain, np.float64))
        self._rows += len(column)

    def _plain(self, row: int, value: Any) -> float:
        if type(value) is int and -_LARGEST_EXACT <= value <= _LARGEST_EXACT:
            return value
        if value is not ABSENT:
            text = _canonical_or_unknown(value)
            if isinstance(text, Mark) or len(text) > LONGEST_VALUE_BYTES:
                self._unknown.append(self._rows + row)
            else:
                self._exceptions[self._rows + row] = value
        return np.nan

    def chunk(self) -> Numbers:
        values = _joined(self._values, np.float64)
        return Numbers(values, ~np.isnan(values), self._exceptions, np.array(self._unknown, np.uint16))


class TextsFiller:
    def __init__(self) -> None:
        self._texts: list[str | None] = []
        self._exceptions: dict[int, Any] = {}
        self._unknown: list[int] = []

    def add(self, column: Column) -> None:
        self._texts += [
            value if type(value) is str and len(value) <= LONGEST_TEXT else self._other(len(self._texts) + row, value)
            for row, value in enumerate(column)
        ]

    def _other(self, row: int, value: Any) -> None:
        if value is not ABSENT:
            text = _canonical_or_unknown(value)
            if isinstance(text, Mark) or type(value) is str or len(text) > LONGEST_VALUE_BYTES:
                self._unknown.append(row)
            else:
                self._exceptions[row] = value

    def chunk(self) -> Texts:
        return encoding.texts_of(self._texts, self._exceptions, self._unknown)


class HashesFiller:
    def __init__(self, key: bytes) -> None:
        self._key = key
        self._parts: list[NDArray[np.uint64]] = []
        self._texts = self._values = 0

    def add(self, column: Column) -> None:
        self._texts += sum(type(value) is str and len(value) <= LONGEST_TEXT for value in column)
        self._values += sum(value is not ABSENT for value in column)
        self._parts.append(np.fromiter(map(self._hash, column), np.uint64, len(column)))

    def _hash(self, value: Any) -> int:
        if value is ABSENT:
            return encoding.ABSENT
        if value is UNKNOWN or type(value) is list or type(value) is dict:
            return encoding.UNKNOWN
        return hash_value(self._key, value)

    def is_text(self) -> bool:
        """Whether texts would have suited these values."""
        return self._values >= _ENOUGH and encoding_of(0, self._texts, self._values) == "texts"

    def chunk(self) -> Hashes:
        return Hashes(_joined(self._parts, np.uint64))


def _joined(parts: Sequence[NDArray[Any]], kind: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0, kind)


def filler_of(kind: Encoding, dictionary: Dictionary | None, hash_key: bytes) -> Filler:
    match kind:
        case "codes":
            assert dictionary is not None
            return CodesFiller(dictionary)
        case "numbers":
            return NumbersFiller()
        case "texts":
            return TextsFiller()
        case "hashes":
            return HashesFiller(hash_key)
        case _:
            raise AssertionError(f"{kind} is for columns")


def transcode(chunk: Codes, values: Mapping[int, Any], filler: Filler) -> Chunk:
    """The same values in another encoding. `values`: by code."""
    table = [ABSENT, UNKNOWN] + [values.get(code, UNKNOWN) for code in range(FIRST_CODE, max(values, default=1) + 1)]
    filler.add([table[code] for code in chunk.codes.tolist()])
    return filler.chunk()


def present_in(chunk: Chunk) -> int:
    """How many rows have a value."""
    match chunk:
        case Codes():
            return int(np.count_nonzero(chunk.codes))
        case encoding.Integers():
            return len(chunk.deltas) if chunk.valid is None else int(np.count_nonzero(chunk.valid))
        case Numbers():
            return int(np.count_nonzero(chunk.valid)) + len(chunk.exceptions) + len(chunk.unknown)
        case Texts():
            return len(chunk.order) + len(chunk.exceptions) + len(chunk.unknown)
        case Hashes():
            return int(np.count_nonzero(chunk.hashes))
        case encoding.Paths():
            return len(chunk.texts)
