"""A filter over the columns of one segment: which of its rows fulfil it, and of which the columns cannot tell.

Three values, as Kleene has them: true, false, and unknown, for what a chunk does not say or no column covers. Unknown
rows are asked in SQL; a condition that is false for a row makes a conjunction false whatever the others are.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from headwater.catalog.columns import conditions
from headwater.catalog.columns.cache import Cache
from headwater.catalog.columns.encoding import (
    ABSENT,
    FIRST_CODE,
    UNKNOWN,
    Chunk,
    Codes,
    Hashes,
    Integers,
    Numbers,
    Offsets,
    Paths,
    TextBlock,
    Texts,
    hash_value,
)
from headwater.catalog.columns.fences import Fenced, rank_of
from headwater.catalog.fields import LARGEST_ID
from headwater.catalog.query import Condition, ElementMatch
from headwater.catalog.wildcards import ANY, SEGMENT, Parts, after_all_with, as_like, as_regex, is_pattern, text_parts

Mask = NDArray[np.bool_]
_FEW = 6  # values that are compared one by one
_WIDEST_TABLE = 64_000_000  # numbers that a table of truth values spans
_LARGEST_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Truth:
    true: Mask
    unknown: Mask | None = None  # never true as well; None: nowhere


class View(Protocol):
    """What of one segment is asked. Its methods raise Missing for what is not loaded yet."""

    @property
    def first_id(self) -> int: ...
    @property
    def rows(self) -> int: ...
    def chunk(self, path_number: int) -> Chunk: ...
    def fenced(self, path_number: int) -> Fenced | None: ...  # of a path in texts
    def block(self, path_number: int, number: int) -> TextBlock: ...  # of a path in texts
    def offsets(self) -> Offsets: ...


class Node(Protocol):
    @property
    def key(self) -> Hashable:
        """The same for the same question to the same columns."""
        ...

    @property
    def cost(self) -> int:
        """Cheap ones are asked first: they may leave nothing to ask the others."""
        ...

    def test(self, view: View) -> Truth: ...


@dataclass(frozen=True, slots=True)
class Always:
    value: bool | None  # None: no column says

    @property
    def key(self) -> Hashable:
        return ("always", self.value)

    @property
    def cost(self) -> int:
        return 0 if self.value is False else 1_000 if self.value is None else 999

    def test(self, view: View) -> Truth:
        whole = np.full(view.rows, self.value is True)
        return Truth(whole, np.ones(view.rows, np.bool_) if self.value is None else None)


@dataclass(frozen=True, slots=True)
class AllOf:
    parts: tuple[Node, ...]

    @property
    def key(self) -> Hashable:
        return ("and", *(part.key for part in self.parts))

    @property
    def cost(self) -> int:
        return max((part.cost for part in self.parts), default=0)

    def test(self, view: View) -> Truth:
        found: Truth | None = None
        for part in sorted(self.parts, key=lambda part: part.cost):
            truth = part.test(view)
            found = truth if found is None else _both(found, truth)
            if not found.true.any() and (found.unknown is None or not found.unknown.any()):
                break
        return Truth(np.ones(view.rows, np.bool_)) if found is None else found


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple[Node, ...]

    @property
    def key(self) -> Hashable:
        return ("or", *(part.key for part in self.parts))

    @property
    def cost(self) -> int:
        return sum(part.cost for part in self.parts)

    def test(self, view: View) -> Truth:
        found = Truth(np.zeros(view.rows, np.bool_))
        for part in sorted(self.parts, key=lambda part: part.cost):
            found = _either(found, part.test(view))
            if found.true.all():
                break
        return found


@dataclass(frozen=True, slots=True)
class Complement:
    part: Node

    @property
    def key(self) -> Hashable:
        return ("not", self.part.key)

    @property
    def cost(self) -> int:
        return self.part.cost

    def test(self, view: View) -> Truth:
        truth = self.part.test(view)
        false = ~truth.true if truth.unknown is None else ~(truth.true | truth.unknown)
        return Truth(false, truth.unknown)


def _both(left: Truth, right: Truth) -> Truth:
    true = left.true & right.true
    if left.unknown is None and right.unknown is None:
        return Truth(true)
    possible = _possible(left) & _possible(right)
    return _truth(true, possible & ~true)


def _either(left: Truth, right: Truth) -> Truth:
    true = left.true | right.true
    if left.unknown is None and right.unknown is None:
        return Truth(true)
    return _truth(true, (_possible(left) | _possible(right)) & ~true)


def _possible(truth: Truth) -> Mask:
    return truth.true if truth.unknown is None else truth.true | truth.unknown


def _truth(true: Mask, unknown: Mask) -> Truth:
    return Truth(true, unknown if unknown.any() else None)


# Leaves. What a condition says of JSON values, of whatever encoding.


class JsonTest:
    """eq, in, gt, gte, lt, lte, exists or match of a path in metadata, or of a column of texts or truth values."""

    def __init__(
        self,
        path_number: int,
        part: Condition | ElementMatch,
        *,
        hash_key: bytes,
        values: "Values",
        cache: Cache | None = None,
    ) -> None:
        self._number = path_number
        self._part = part
        self._holds = conditions.of_value(part)
        self._of_absent = conditions.of_nothing(part)
        self._hash_key = hash_key
        self._values = values
        self._cache = cache
        self._key = ("json", path_number, repr(part))
        self._codes: tuple[Mask, list[int], bool] | None = None
        self._text_ranges, self._matchers = _of_texts(part)

    @property
    def key(self) -> Hashable:
        return self._key

    @property
    def cost(self) -> int:
        return 10

    def test(self, view: View) -> Truth:
        if (fenced := view.fenced(self._number)) is not None:
            return self._of_texts(view, fenced)
        match view.chunk(self._number):
            case Codes() as chunk:
                return self._of_codes(view, chunk)
            case Numbers() as chunk:
                return self._of_numbers(chunk)
            case Hashes() as chunk:
                return self._of_hashes(chunk)
            case Integers() | Paths() | Texts():
                return Always(None).test(view)

    def _of_codes(self, view: View, chunk: Codes) -> Truth:
        table, chosen, is_negative = self._table(view)
        codes = chunk.codes
        if len(chosen) <= _FEW:
            true = _is_any(codes, chosen)
            if is_negative:
                np.logical_not(true, out=true)
        else:
            true = table.take(codes)
        unknown = codes == UNKNOWN
        if not unknown.any():
            return Truth(true)
        true &= ~unknown
        return Truth(true, unknown)

    def _table(self, view: View) -> tuple[Mask, list[int], bool]:
        """Which codes fulfil the condition; the few that do, or that do not."""
        if self._codes is None:
            digest = blake2b(repr(self._key).encode(), digest_size=16).digest()
            key = ("table", digest, len(self._values.json))
            table = self._cache.get(key) if self._cache is not None else None
            if table is None:
                table = self._made_table(view)
                if self._cache is not None:
                    self._cache.put(key, table, table.nbytes + 300)
            many = np.count_nonzero(table) > len(table) // 2
            chosen = np.flatnonzero(~table if many else table)[: _FEW + 1].tolist()
            self._codes = (table, chosen, bool(many))
        return self._codes

    def _made_table(self, view: View) -> Mask:
        """Texts are compared all at once, other values one by one."""
        table = np.zeros(FIRST_CODE + len(self._values.json), np.bool_)
        table[ABSENT] = self._of_absent
        texts, places = self._values.texts
        true = np.zeros(len(texts), np.bool_)
        for text_range in self._text_ranges:
            true |= _in_text_range(texts, text_range)
        for matches in self._matchers:
            _ = view.chunk(self._number)  # of a query whose time is over no more patterns are tried
            true |= _as_mask(matches(texts))
        table[FIRST_CODE + places[true]] = True
        for place in self._values.others:
            table[FIRST_CODE + place] = self._holds(self._values.json[place])
        return table

    def _of_numbers(self, chunk: Numbers) -> Truth:
        true = self._of_floats(chunk)
        return self._with_others(true, chunk.valid if self._of_absent else None, chunk.exceptions, chunk.unknown)

    def _with_others(
        self, true: Mask, valid: Mask | None, exceptions: Mapping[int, Any], unknown: NDArray[np.uint16]
    ) -> Truth:
        """`valid`: rows that are neither absent nor among the others, where that is asked for."""
        if valid is not None:
            absent = ~valid
            absent[list(exceptions)] = False
            true |= absent
        for row, value in exceptions.items():
            true[row] = self._holds(conditions.exact(value))
        return _with_unknown(true, unknown)

    def _of_texts(self, view: View, fenced: Fenced) -> Truth:
        """Ranges of their order; only patterns, and many texts at once, look at each of them."""
        order = fenced.order
        true = np.zeros(view.rows, np.bool_)
        for first, end in self._ranks(fenced, lambda number: view.block(self._number, number)):
            true[order[first:end]] = True
        if self._matchers:
            for matches in self._matchers:
                chunk = view.chunk(self._number)  # each time: it raises when the query's time is over
                assert isinstance(chunk, Texts)
                true[order[_as_mask(matches(chunk.texts))]] = True
        valid = None
        if self._of_absent:
            valid = np.zeros(view.rows, np.bool_)
            valid[order] = True
        return self._with_others(true, valid, fenced.exceptions, fenced.unknown)

    def _ranks(self, fenced: Fenced, block: Callable[[int], TextBlock]) -> Iterator[tuple[int, int]]:
        for low, high in self._text_ranges:
            first = 0 if low is None else rank_of(fenced, low.text, block, after=low.after)
            yield first, len(fenced.order) if high is None else rank_of(fenced, high.text, block, after=high.after)

    def _of_floats(self, chunk: Numbers) -> Mask:
        part = self._part
        if isinstance(part, ElementMatch):
            return chunk.valid & self._holds(0)  # numbers have no fields
        match part.operator:
            case "exists":
                return chunk.valid & bool(part.value)
            case "eq" | "in":
                operands = part.value if part.operator == "in" else [part.value]
                wanted = {float(operand) for operand in operands if _is_number(operand) and _float_of(operand)[1] == 0}
                return _is_any(chunk.values, sorted(wanted))
            case "gt" | "gte" | "lt" | "lte":
                if not _is_number(part.value):
                    return np.zeros(len(chunk.values), np.bool_)
                return _compare_floats(chunk.values, part.operator, part.value)
            case "ne" | "nin":
                raise AssertionError("negations are nodes of their own")

    def _of_hashes(self, chunk: Hashes) -> Truth:
        part = self._part
        present = chunk.hashes != ABSENT
        true = ~present if self._of_absent else np.zeros(len(present), np.bool_)
        if isinstance(part, Condition) and part.operator == "exists":
            return _with_unknown(present if part.value else true, np.flatnonzero(chunk.hashes == UNKNOWN))
        operands = _hashable(part)
        if operands is None:
            return _truth(true, present)
        hashes = [np.uint64(hash_value(self._hash_key, operand)) for operand in operands]
        return _with_unknown(true | _is_any(chunk.hashes, hashes), np.flatnonzero(chunk.hashes == UNKNOWN))


class Values:
    """Of a path in codes, from FIRST_CODE up, numbers exact."""

    def __init__(self, json: Sequence[Any]) -> None:
        self.json = json

    @cached_property
    def texts(self) -> tuple[pa.StringArray, NDArray[np.intp]]:
        """Those that are texts, and their places."""
        places = [place for place, value in enumerate(self.json) if isinstance(value, str)]
        array = pa.array([self.json[place] for place in places], pa.string())
        return cast("pa.StringArray", array), np.array(places, np.intp)

    @cached_property
    def others(self) -> list[int]:
        """The places of those that are not."""
        return [place for place, value in enumerate(self.json) if not isinstance(value, str)]

    @property
    def nbytes(self) -> int:
        return 250 * len(self.json)


class Bound(NamedTuple):
    """Before the first of the texts that are equal to this one, or after the last."""

    text: str
    after: bool


TextRange = tuple[Bound | None, Bound | None]  # None: there is no end to it
Matcher = Callable[[pa.StringArray], Any]
_EVERY_TEXT: TextRange = (None, None)


def _of_texts(part: Condition | ElementMatch) -> tuple[list[TextRange], list[Matcher]]:
    """Which texts meet a condition: those of some ranges, and those that some functions find."""
    if isinstance(part, ElementMatch) or part.operator == "exists":
        return ([_EVERY_TEXT] if conditions.of_value(part)("") else []), []
    match part.operator:
        case "eq" | "in":
            operands = part.value if part.operator == "in" else [part.value]
            texts = [operand for operand in operands if isinstance(operand, str)]
            plain = [text for text in texts if not is_pattern(text)]
            patterns = [text_parts(text) for text in texts if is_pattern(text)]
            ranges = [_beginning_with(parts) for parts in patterns if _is_beginning(parts)]
            matchers = [_matcher(parts) for parts in patterns if not _is_beginning(parts)]
            if len(plain) > _FEW:
                return ranges, [*matchers, _among(plain)]
            return [*ranges, *((Bound(text, after=False), Bound(text, after=True)) for text in plain)], matchers
        case "gt" | "gte" if isinstance(part.value, str):
            return [(Bound(part.value, after=part.operator == "gt"), None)], []
        case "lt" | "lte" if isinstance(part.value, str):
            return [(None, Bound(part.value, after=part.operator == "lte"))], []
        case _:
            return [], []


def _in_text_range(texts: pa.StringArray, text_range: TextRange) -> Mask:
    low, high = text_range
    true = np.ones(len(texts), np.bool_)
    if low is not None:
        true &= _as_mask(pc.call_function("greater" if low.after else "greater_equal", [texts, pa.scalar(low.text)]))
    if high is not None:
        true &= _as_mask(pc.call_function("less_equal" if high.after else "less", [texts, pa.scalar(high.text)]))
    return true


def _is_beginning(parts: Parts) -> bool:
    return len(parts) <= 2 and parts[-1] is ANY and parts.count(ANY) == 1


def _beginning_with(parts: Parts) -> TextRange:
    prefix = parts[0] if isinstance(parts[0], str) else ""
    next_text = after_all_with(prefix)
    return Bound(prefix, after=False), None if next_text is None else Bound(next_text, after=False)


def _among(texts: Sequence[str]) -> Matcher:
    options = pc.SetLookupOptions(pa.array(texts, pa.string()))
    return lambda array: pc.call_function("is_in", [array], options)


def _as_mask(found: Any) -> Mask:
    return cast("Mask", found.to_numpy(zero_copy_only=False))


def _hashable(part: Condition | ElementMatch) -> list[Any] | None:
    """Scalars whose hashes tell all of the condition; None: there is something else to it."""
    if isinstance(part, ElementMatch) or part.operator not in ("eq", "in"):
        return None
    operands: list[Any] = part.value if part.operator == "in" else [part.value]
    for operand in operands:
        if isinstance(operand, list | dict) or is_pattern(operand):
            return None
        if _is_number(operand) and abs(operand) >= 2**53:
            return None  # such numbers can be written in several ways
    return operands


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float_of(number: float) -> tuple[float, int]:
    """The nearest float, and whether the number is below it (-1), the same (0) or above (1), as decimals."""
    exact = Decimal(conditions.number_of(number))
    try:
        near = float(exact)
    except OverflowError:
        near = float("inf") if exact > 0 else float("-inf")
    if near in (float("inf"), float("-inf")):
        return near, -1 if near > 0 else 1
    shown = Decimal(repr(near))
    return near, (exact > shown) - (exact < shown)


def _compare_floats(values: NDArray[np.float64], operator: str, operand: float) -> Mask:
    """Floats are in the order of their shortest decimals, which is what JSON says."""
    near, side = _float_of(operand)
    match operator:
        case "gt":
            return values >= near if side < 0 else values > near
        case "gte":
            return values > near if side > 0 else values >= near
        case "lt":
            return values <= near if side > 0 else values < near
        case _:
            return values < near if side < 0 else values <= near


def _is_any(values: NDArray[Any], wanted: Sequence[Any]) -> Mask:
    if len(wanted) > _FEW:
        return np.isin(values, np.array(wanted, values.dtype))
    true = np.zeros(len(values), np.bool_)
    for one in wanted:
        true |= values == one
    return true


def _with_unknown(true: Mask, rows: NDArray[Any]) -> Truth:
    if not len(rows):
        return Truth(true)
    unknown = np.zeros(len(true), np.bool_)
    unknown[rows] = True
    true[rows] = False
    return Truth(true, unknown)


# Integers: counts, times, ids.


class IntegerTest:
    """Whether the number lies in one of some ranges."""

    def __init__(self, path_number: int, ranges: "Sequence[Range]", *, of_absent: bool = False) -> None:
        self._number = path_number
        self._ranges = ranges
        self._of_absent = of_absent
        self.key: Hashable = ("integers", path_number, tuple(ranges), of_absent)
        self.cost = 10 + len(ranges)

    def test(self, view: View) -> Truth:
        chunk = view.chunk(self._number)
        assert isinstance(chunk, Integers)
        true = _in_ranges(chunk.base, chunk.deltas, self._ranges)
        if chunk.valid is not None:
            true &= chunk.valid
            if self._of_absent:
                true |= ~chunk.valid
        return Truth(true)


Range = tuple[int, int]  # both ends are in it


def _in_ranges(base: int, deltas: NDArray[Any], ranges: Sequence[Range]) -> Mask:
    largest = int(np.iinfo(deltas.dtype).max)
    true = np.zeros(len(deltas), np.bool_)
    for low, high in ranges:
        start, end = max(low - base, 0), min(high - base, largest)
        if start > end:
            continue
        if start == end:
            true |= deltas == deltas.dtype.type(start)
        elif start == 0 and end == largest:
            return np.ones(len(deltas), np.bool_)
        elif start == 0:
            true |= deltas <= deltas.dtype.type(end)
        elif end == largest:
            true |= deltas >= deltas.dtype.type(start)
        else:
            true |= (deltas >= deltas.dtype.type(start)) & (deltas <= deltas.dtype.type(end))
    return true


def ranges_of(operator: str, operands: Sequence[Decimal]) -> list[Range]:
    """Of whole numbers that meet a comparison with any of the operands."""
    found: list[Range] = []
    for operand in operands:
        floor = int(operand.to_integral_value(ROUND_FLOOR))
        ceiling = int(operand.to_integral_value(ROUND_CEILING))
        match operator:
            case "eq":
                found += [(floor, floor)] if floor == ceiling else []
            case "gt":
                found.append((floor + 1, _LARGEST_INTEGER))
            case "gte":
                found.append((ceiling, _LARGEST_INTEGER))
            case "lt":
                found.append((-_LARGEST_INTEGER - 1, ceiling - 1))
            case _:
                found.append((-_LARGEST_INTEGER - 1, floor))
    return found


def ranges_of_time(operator: str, operand: datetime) -> Range | None:
    """Of times in µs of which the whole milliseconds meet the comparison."""
    at_us = microseconds(operand)
    floor, ceiling = at_us // 1000 * 1000, -(-at_us // 1000) * 1000
    match operator:
        case "eq":
            return (floor, floor + 999) if floor == ceiling else None
        case "gt":
            return floor + 1000, _LARGEST_INTEGER
        case "gte":
            return ceiling, _LARGEST_INTEGER
        case "lt":
            return -_LARGEST_INTEGER - 1, ceiling - 1
        case _:
            return -_LARGEST_INTEGER - 1, floor + 999


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST_MS = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST_MS = (datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC) - _EPOCH) // _MILLISECOND


def microseconds(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def _shown_time(at_ms: int) -> str:
    text = (_EPOCH + at_ms * _MILLISECOND).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def range_of_prefix(prefix: str) -> Range:
    """The times in µs that begin so when they are written out: their texts are in their order."""
    every = range(_FIRST_MS, _LAST_MS + 1)
    first = bisect_left(every, prefix, key=_shown_time)
    end = bisect_left(every, prefix + "\U0010ffff", key=_shown_time)
    return (_FIRST_MS + first) * 1000, (_FIRST_MS + end) * 1000 - 1


class MemberTest:
    """Whether the number is one of many: the folder of an item, its creator."""

    def __init__(self, path_number: int, members: NDArray[np.int64], *, of_absent: bool = False) -> None:
        self._number = path_number
        self._members = np.unique(members)
        self._of_absent = of_absent
        self.key: Hashable = ("members", path_number, self._members.tobytes(), of_absent)
        self.cost = 12
        self._table: Mask | None = None

    def test(self, view: View) -> Truth:
        chunk = view.chunk(self._number)
        assert isinstance(chunk, Integers)
        true = self._among(chunk)
        if chunk.valid is not None:
            true &= chunk.valid
            if self._of_absent:
                true |= ~chunk.valid
        return Truth(true)

    def _among(self, chunk: Integers) -> Mask:
        members = self._members
        if not len(members):
            return np.zeros(len(chunk.deltas), np.bool_)
        if len(members) <= _FEW:
            return _in_ranges(chunk.base, chunk.deltas, [(int(one), int(one)) for one in members])
        lowest, highest = int(members[0]), int(members[-1])
        numbers = chunk.int64()
        if highest - lowest >= _WIDEST_TABLE:
            return np.isin(numbers, members)
        if self._table is None:
            self._table = np.zeros(highest - lowest + 1, np.bool_)
            self._table[members - lowest] = True
        numbers -= lowest
        inside = (numbers >= 0) & (numbers <= highest - lowest)
        np.clip(numbers, 0, highest - lowest, out=numbers)
        return self._table.take(numbers) & inside


class IdTest:
    """Whether the id of the item lies in one of some ranges."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self._ranges = ranges
        self.key: Hashable = ("ids", tuple(ranges))
        self.cost = 1

    def test(self, view: View) -> Truth:
        last_id = view.first_id + 0xFFFF
        meeting = [(low, high) for low, high in self._ranges if high >= view.first_id and low <= last_id]
        if any(low <= view.first_id and high >= last_id for low, high in meeting):
            return Truth(np.ones(view.rows, np.bool_))
        if not meeting:
            return Truth(np.zeros(view.rows, np.bool_))
        return Truth(_in_ranges(view.first_id, view.offsets(), meeting))


class ItemsTest:
    """Whether the item is one of some."""

    def __init__(self, ids: NDArray[np.int64]) -> None:
        self._ids = np.unique(ids)
        self.key: Hashable = ("items", self._ids.tobytes())
        self.cost = 2

    def test(self, view: View) -> Truth:
        true = np.zeros(view.rows, np.bool_)
        start, end = np.searchsorted(self._ids, [view.first_id, view.first_id + 0x10000])
        if start < end:
            true[rows_of(view, self._ids[start:end])] = True
        return Truth(true)


def rows_of(view: View, ids: NDArray[np.int64]) -> NDArray[Any]:
    """The rows of those of the ids, which are of this segment, that there are."""
    offsets = view.offsets()
    wanted = (ids - view.first_id).astype(np.uint16)
    at = np.searchsorted(offsets, wanted)
    at = np.minimum(at, max(len(offsets) - 1, 0))
    return at[offsets[at] == wanted] if len(offsets) else at[:0]


def id_ranges(operator: str, number: int) -> list[Range]:
    match operator:
        case "eq":
            return [(number, number)]
        case "gt":
            return [(number + 1, LARGEST_ID)]
        case "gte":
            return [(number, LARGEST_ID)]
        case "lt":
            return [(0, number - 1)]
        case _:
            return [(0, number)]


# Paths.


class PathTest:
    """Whether the path fits a pattern, or its last part does."""

    def __init__(self, path_number: int, parts: Parts) -> None:
        self._number = path_number
        self._matches = _matcher(parts)
        self.key: Hashable = ("paths", path_number, as_regex(parts))
        self.cost = 100

    def test(self, view: View) -> Truth:
        chunk = view.chunk(self._number)
        assert isinstance(chunk, Paths)
        return Truth(_as_mask(self._matches(chunk.texts)))


def _matcher(parts: Parts) -> Matcher:
    match parts:
        case [mark] if mark is ANY:
            return lambda texts: pa.array(np.ones(len(texts), np.bool_))
        case [str(prefix), mark] if mark is ANY:
            return lambda texts: pc.call_function("starts_with", [texts], pc.MatchSubstringOptions(prefix))
        case [mark, str(suffix)] if mark is ANY:
            return lambda texts: pc.call_function("ends_with", [texts], pc.MatchSubstringOptions(suffix))
        case [mark, str(inner), other] if mark is ANY and other is ANY:
            return lambda texts: pc.call_function("match_substring", [texts], pc.MatchSubstringOptions(inner))
        case _ if all(isinstance(part, str) or part is ANY for part in parts):
            like = as_like(parts)
            return lambda texts: pc.call_function("match_like", [texts], pc.MatchSubstringOptions(like))
        case _:
            regex = "(?s)" + _re2(parts)
            return lambda texts: pc.call_function("match_substring_regex", [texts], pc.MatchSubstringOptions(regex))


def _re2(parts: Parts) -> str:
    """Their `$` is before a line's end, too."""
    return r"\A" + as_regex(parts)[1:-1] + r"\z"


def warm() -> None:
    """What the first pattern would wait for: Arrow imports some of itself, and of what else is installed, when used."""
    texts = cast("pa.StringArray", pa.array(["a"], pa.string()))
    for parts in (["a", ANY], [ANY, "a"], [ANY, "a", ANY], ["a", ANY, "b", ANY], ["a", SEGMENT]):
        _ = _as_mask(_matcher(parts)(texts))
