"""Which rows are on a page: the ones at certain ranks of an order, found without sorting the rest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_FEW = 100_000  # ranks up to here are found by keeping the smallest values only


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one segment that are to be ordered."""

    segment: int
    mask: Mask
    count: int  # of true ones in the mask


# The value of each row of a segment by which it is ordered, ascending; what has none gets the largest there is.
Key = Callable[[int], Array]
Rows = list[tuple[int, Array]]  # segments and positions in them


def part_of(segment: int, mask: Mask) -> Part:
    return Part(segment, mask, int(np.count_nonzero(mask)))


def ranked(
    parts: Sequence[Part],
    keys: Sequence[Key],
    first: int,
    last: int,
    *,
    descending_ids: bool,
    check: Callable[[], None] = lambda: None,
) -> Rows:
    """The rows of ranks from `first` up to, but without, `last`. The parts are in the order of segments.

    Rows that are equal come by id. Reads each key about twice, however deep the page lies.
    """
    last = min(last, sum(part.count for part in parts))
    if first >= last:
        return []
    if not keys:
        return _by_position(parts, first, last, descending=descending_ids)
    key, *rest = keys
    low, high, below = _bounds(parts, key, first, last, check)
    at_low: list[Part] = []
    between: list[Part] = []
    at_high: list[Part] = []
    for part in parts:
        check()
        values = key(part.segment)
        _add(at_low, part, values == low)
        if low != high:
            _add(between, part, (values > low) & (values < high))
            _add(at_high, part, values == high)
    if low == high:
        return ranked(at_low, rest, first - below, last - below, descending_ids=descending_ids, check=check)
    lowest = sum(part.count for part in at_low)
    higher = last - below - lowest - sum(part.count for part in between)
    return [
        *ranked(at_low, rest, first - below, lowest, descending_ids=descending_ids, check=check),
        *_sorted(between, keys, descending_ids=descending_ids),
        *ranked(at_high, rest, 0, higher, descending_ids=descending_ids, check=check),
    ]


def _add(parts: list[Part], part: Part, mask: Mask) -> None:
    """The rows of the part where the mask is true, too, if there are any."""
    narrowed = part_of(part.segment, part.mask & mask)
    if narrowed.count:
        parts.append(narrowed)


def _by_position(parts: Sequence[Part], first: int, last: int, *, descending: bool) -> Rows:
    found: Rows = []
    before = 0
    for part in reversed(parts) if descending else parts:
        start, end = max(first - before, 0), min(last - before, part.count)
        if start < end:
            positions = np.flatnonzero(part.mask)
            found.append((part.segment, (positions[::-1] if descending else positions)[start:end]))
        before += part.count
        if before >= last:
            break
    return found


def _sorted(parts: Sequence[Part], keys: Sequence[Key], *, descending_ids: bool) -> Rows:
    """All rows of the parts, which are few."""
    if not parts:
        return []
    positions = [np.flatnonzero(part.mask) for part in parts]
    segments = np.concatenate([np.full(len(at), part.segment) for part, at in zip(parts, positions, strict=True)])
    columns = [
        np.concatenate([key(part.segment)[at] for part, at in zip(parts, positions, strict=True)]) for key in keys
    ]
    places = np.concatenate(positions)
    by_id = np.arange(len(places))
    order = np.lexsort([-by_id if descending_ids else by_id, *reversed(columns)])
    # Runs of the same segment stay together.
    edges = np.flatnonzero(np.diff(segments[order])) + 1
    return [(int(segments[run[0]]), places[run]) for run in np.split(order, edges)]


def _bounds(parts: Sequence[Part], key: Key, first: int, last: int, check: Callable[[], None]) -> tuple[Any, Any, int]:
    """The values at ranks `first` and `last - 1`, and how many rows are below the first of them."""
    if last <= _FEW:
        smallest = _smallest(parts, key, last, check)
    else:
        every = np.concatenate([_values(part, key, check) for part in parts])
        if every.dtype.kind in "iu" and every.itemsize < 8:
            return _bounds_of_ranks(every, first, last)
        smallest = np.partition(every, [first, last - 1])
    low = smallest[first]
    return low, smallest[last - 1], int(np.count_nonzero(smallest < low))


def _values(part: Part, key: Key, check: Callable[[], None]) -> Array:
    check()
    return key(part.segment)[part.mask]


def _bounds_of_ranks(values: Array, first: int, last: int) -> tuple[Any, Any, int]:
    lowest = values.min()
    counts = np.cumsum(np.bincount(values - lowest))
    low, high = np.searchsorted(counts, [first, last - 1], side="right")
    return lowest + low, lowest + high, int(counts[low - 1]) if low else 0


def _smallest(parts: Sequence[Part], key: Key, number: int, check: Callable[[], None]) -> Array:
    """The smallest values, sorted."""
    kept: list[Array] = []
    size, largest = 0, None
    for part in parts:
        check()
        values = key(part.segment)
        values = values[part.mask] if largest is None else values[part.mask & (values < largest)]
        kept.append(values)
        size += len(values)
        if size > 2 * number + 1_000:
            together = np.partition(np.concatenate(kept), number - 1)[:number]
            kept, size, largest = [together], number, together[number - 1]
    return np.sort(np.concatenate(kept))[:number]
