"""Items that were touched since their columns were built, as columns in memory: many questions read their rows once.

Notes of what was touched are never changed, and whoever changes an item leaves a new one: what two snapshots see with
the same notes are the same rows.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection

from headwater.catalog.columns import building, encoding
from headwater.catalog.columns.documents import Meeting
from headwater.catalog.columns.encoding import SEGMENT_BITS, Chunk, Codes, Offsets, TextBlock
from headwater.catalog.columns.fences import Fenced
from headwater.catalog.columns.tables import IndexState

MOST_ITEMS = 20_000
_MOST_BYTES = 16 * 1024**2  # of documents as PostgreSQL stores them
_VALUE_BYTES = 100


@dataclass(frozen=True, slots=True, eq=False)
class TouchedRows:
    """Those of one segment: a view of it, of which columns tell everything or that they do not know."""

    first_id: int
    ids: NDArray[np.int64]
    chunks: Mapping[int, Chunk]  # by the numbers of paths
    met_paths: frozenset[str] | None
    sought: Mapping[int, str]  # paths without columns, by the numbers that a reader gives them

    @property
    def rows(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return sum(chunk.nbytes for chunk in self.chunks.values()) + _VALUE_BYTES * len(self.ids)

    def chunk(self, path_number: int) -> Chunk:
        if (found := self.chunks.get(path_number)) is not None:
            return found
        is_absent = self.met_paths is not None and self.sought[path_number] not in self.met_paths
        return Codes(np.full(self.rows, encoding.ABSENT if is_absent else encoding.UNKNOWN, np.uint8))

    def offsets(self) -> Offsets:
        return (self.ids - self.first_id).astype(np.uint16)

    def fenced(self, path_number: int) -> Fenced | None:
        """Texts are among the exceptions of numbers: there are few."""
        del path_number
        return None

    def block(self, path_number: int, number: int) -> TextBlock:
        raise AssertionError((path_number, number))


async def load_touched(conn: AsyncConnection[Any], state: IndexState) -> list[TouchedRows] | None:
    """By segment. None: they are too large to be kept."""
    cursor = await conn.execute(
        """
        SELECT coalesce(sum(coalesce(pg_column_size(user_metadata), 0) + coalesce(pg_column_size(system_metadata), 0)
            + coalesce(pg_column_size(description), 0)), 0)::bigint
        FROM item
        WHERE dataset_id = %s AND id = ANY(%s)
        """,
        [state.dataset_id, state.touched_items.tolist()],
    )
    if (await cursor.fetchone() or (0,))[0] > _MOST_BYTES:
        return None
    # A dictionary is only ever added to by builds: what is said by codes elsewhere is said by itself here.
    paths = [
        path if path.encoding in ("integers", "paths") else replace(path, encoding="numbers")
        for path in state.paths.values()
    ]
    found: list[TouchedRows] = []
    for ids in np.split(state.touched_items, np.flatnonzero(np.diff(state.touched_items >> SEGMENT_BITS)) + 1):
        making = building.Making(paths, state.hash_key, {}, Meeting(state.paths))
        piece = await building.read_piece(
            conn, state.dataset_id, int(ids[0]), int(ids[-1]), making.columns(), ids=ids.tolist()
        )
        if piece is None:  # they are gone
            continue
        await asyncio.to_thread(making.add, *piece)
        met = making.meeting.paths
        first_id = int(ids[0]) >> SEGMENT_BITS << SEGMENT_BITS
        found.append(TouchedRows(first_id, piece[0], making.chunks(), None if met is None else frozenset(met), {}))
    return found
