"""Pages in the order of texts: where in it each block of a segment's rows begins and ends is known, and little else.

The texts of all items, such as their paths, are too many to be kept in memory. Of each segment the order of its rows
is, with the first and the last text of every block of that order: so it is known between which ranks the rows of a
block lie, and in which block a text is to be sought.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.catalog.columns.encoding import BLOCK_TEXTS, Paths, TextBlock, Texts

_BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Fenced:
    """Of one segment."""

    order: NDArray[np.uint16]  # rows, by their texts
    first: Sequence[str]  # text of each block
    last: Sequence[str]
    exceptions: Mapping[int, Any]  # row → JSON value that is no text
    unknown: NDArray[np.uint16]  # rows
    spans: NDArray[np.int64]  # as of the chunk

    @property
    def nbytes(self) -> int:
        letters = sum(100 + len(text) for text in self.first) * 2
        return self.order.nbytes + self.spans.nbytes + letters + 200 * len(self.exceptions)

    def others(self) -> NDArray[np.intp]:
        """Rows with something that is no text, or not known."""
        return np.array([*self.exceptions, *self.unknown.tolist()], np.intp)


@dataclass(frozen=True, slots=True, eq=False)
class Fences:
    """Blocks of all segments, one segment after the other; their ends as ranks among the ends of all."""

    starts: Mapping[int, int]  # by segment: its first block
    first: NDArray[np.int64]
    last: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        return self.first.nbytes + self.last.nbytes


@dataclass(frozen=True, slots=True)
class Near:
    """Rows among which those of certain ranks are."""

    rows: Mapping[int, NDArray[Any]]  # by segment
    before: int  # how many rows come before all that are asked for, and are not among these
    total: int  # how many rows have a text


def fenced(chunk: Paths | Texts) -> Fenced:
    order = chunk.order.copy()  # without the texts behind it
    starts = np.arange(0, len(order), _BLOCK_ROWS)
    ends = np.minimum(starts + _BLOCK_ROWS, len(order)) - 1
    if isinstance(chunk, Texts):
        first, last = _texts(chunk, starts), _texts(chunk, ends)
        return Fenced(order, first, last, chunk.exceptions, chunk.unknown, chunk.spans)
    none = np.zeros(0, np.uint16)
    return Fenced(order, _texts(chunk, order[starts]), _texts(chunk, order[ends]), {}, none, none.astype(np.int64))


def _texts(chunk: Paths | Texts, rows: NDArray[Any]) -> list[str]:
    return cast("list[str]", chunk.texts.take(pa.array(rows)).to_pylist())


def rank_of(fenced: Fenced, text: str, block: Callable[[int], TextBlock], *, after: bool = False) -> int:
    """How many of the segment's texts come before this one; `after`: or are it. `block` gives one of `Texts`."""
    bisect = bisect_right if after else bisect_left
    at = bisect(fenced.first, text) - 1
    if at < 0:
        return 0
    end = min((at + 1) * _BLOCK_ROWS, len(fenced.order))
    if (fenced.last[at] <= text) if after else (fenced.last[at] < text):
        return end
    number = at * _BLOCK_ROWS // BLOCK_TEXTS
    begin = number * BLOCK_TEXTS
    return begin + bisect(block(number), text.encode(), at * _BLOCK_ROWS - begin, end - begin)


def merged(parts: Mapping[int, Fenced]) -> Fences:
    starts: dict[int, int] = {}
    texts: list[str] = []
    for segment, part in parts.items():
        starts[segment] = len(texts)
        texts += part.first
    blocks = len(texts)
    for part in parts.values():
        texts += part.last
    distinct = {text: rank for rank, text in enumerate(sorted(set(texts)))}
    ranks = np.array([distinct[text] for text in texts], np.int64)
    return Fences(starts, ranks[:blocks], ranks[blocks:])


def near(
    fences: Fences,
    parts: Mapping[int, Fenced],
    masks: Mapping[int, NDArray[np.bool_]],
    first: int,
    until: int,
    *,
    descending: bool = False,
) -> Near:
    """Those of the masks' rows among which the ones of ranks from `first` up to, but without, `until` are."""
    chosen = {segment: masks[segment].take(part.order) for segment, part in parts.items() if segment in masks}
    counts = np.zeros(len(fences.first), np.int64)
    for segment, rows in chosen.items():
        start = fences.starts[segment]
        if len(rows):
            sums = np.add.reduceat(rows, np.arange(0, len(rows), _BLOCK_ROWS), dtype=np.int64)
            counts[start : start + len(sums)] = sums
    total = int(counts.sum())
    if descending:
        first, until = total - min(until, total), total - min(first, total)
    # A block's rows are at ranks of at most how many there are in blocks that begin before its end, …
    by_first = np.argsort(fences.first)
    begun = np.concatenate([[0], np.cumsum(counts[by_first])])
    most = begun[np.searchsorted(fences.first[by_first], fences.last, side="right")]
    # … and at least how many there are in blocks that end before its beginning.
    by_last = np.argsort(fences.last)
    ended = np.concatenate([[0], np.cumsum(counts[by_last])])
    least = ended[np.searchsorted(fences.last[by_last], fences.first, side="left")]
    is_near = (most > first) & (least < until) & (counts > 0)
    rows_near: dict[int, NDArray[Any]] = {}
    for segment, rows in chosen.items():
        part, start = parts[segment], fences.starts[segment]
        blocks = is_near[start : start + len(part.first)]
        if blocks.any():
            rows_near[segment] = part.order[rows & np.repeat(blocks, _BLOCK_ROWS)[: len(rows)]]
    left_out = most <= first if not descending else least >= until
    return Near(rows_near, int(counts[left_out].sum()), total)
