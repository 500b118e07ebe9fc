"""Pages in the order of paths: where in it each block of a segment's rows begins and ends is known, and little else.

The texts of all paths are too many to be kept in memory. Of each segment the order of its rows is, with the first and
the last path of every block of that order: so it is known between which ranks the rows of a block lie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headwater.catalog.columns.encoding import Paths

_BLOCK_ROWS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Fenced:
    """Of one segment."""

    order: NDArray[np.uint16]  # rows, by their paths
    first: Sequence[str]  # path of each block
    last: Sequence[str]

    @property
    def nbytes(self) -> int:
        return self.order.nbytes + sum(100 + len(text) for text in self.first) * 2


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
    before: int  # how many rows come before all of these


def fenced(chunk: Paths) -> Fenced:
    order = chunk.order.copy()  # without the texts behind it
    ends = np.arange(_BLOCK_ROWS - 1, len(order) + _BLOCK_ROWS - 1, _BLOCK_ROWS).clip(max=max(len(order) - 1, 0))
    return Fenced(order, _texts(chunk, order[::_BLOCK_ROWS]), _texts(chunk, order[ends]))


def _texts(chunk: Paths, rows: NDArray[np.uint16]) -> list[str]:
    return cast("list[str]", chunk.texts.take(pa.array(rows)).to_pylist())


def merged(parts: Mapping[int, Fenced]) -> Fences:
    starts: dict[int, int] = {}
    texts: list[str] = []
    for segment, part in parts.items():
        starts[segment] = len(texts)
        texts += part.first
    blocks = len(texts)
    for part in parts.values():
        texts += part.last
    ranks = np.empty(2 * blocks, np.int64)
    ranks[sorted(range(2 * blocks), key=texts.__getitem__)] = np.arange(2 * blocks)
    return Fences(starts, ranks[:blocks], ranks[blocks:])


def near(
    fences: Fences, parts: Mapping[int, Fenced], masks: Mapping[int, NDArray[np.bool_]], first: int, until: int
) -> Near:
    """Those of the masks' rows among which the ones of ranks from `first` up to, but without, `until` are."""
    chosen = {segment: masks[segment].take(part.order) for segment, part in parts.items() if segment in masks}
    counts = np.zeros(len(fences.first), np.int64)
    for segment, rows in chosen.items():
        start = fences.starts[segment]
        sums = np.add.reduceat(rows, np.arange(0, len(rows), _BLOCK_ROWS), dtype=np.int64)
        counts[start : start + len(sums)] = sums
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
    return Near(rows_near, int(counts[most <= first].sum()))
