"""Sharing: objects and thumbnails that more than one item names, because some are clones of others.

Who adds names (a clone) holds the lock of where the objects lie alone, who deletes objects holds it together with
others and asks then whether anybody still names them. So no object goes between the look at a row and its clone, and
the last one to give up a name always finds that it was the last.

These locks come behind those of paths, and before everything else that items need.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

_OWN_CLASS = 0xC101  # our own storage of one dataset
_DRIVER_CLASS = 0xC102  # the bucket of one driver


@dataclass(frozen=True, slots=True)
class Where:
    """Where objects lie: in the bucket of a driver, or in our own storage of a dataset that there is, or was."""

    driver_id: int | None
    origin_id: int  # the dataset in whose storage; in a bucket, of whose index

    @property
    def lock(self) -> tuple[int, int]:
        if self.driver_id is not None:
            return _DRIVER_CLASS, self.driver_id % 2_147_483_647
        return _OWN_CLASS, self.origin_id % 2_147_483_647


async def lock_to_add(conn: AsyncConnection[Any], places: Iterable[Where]) -> None:
    """Until the end of the transaction nobody deletes objects there. Call it before the rows are read."""
    for number in sorted({place.lock for place in places}):
        await conn.execute("SELECT pg_advisory_xact_lock(%s, %s)", number)


async def lock_to_delete(conn: AsyncConnection[Any], places: Iterable[Where]) -> None:
    """Until the end of the transaction nobody adds a name of an object there. Call it before names are looked for."""
    for number in sorted({place.lock for place in places}):
        await conn.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", number)


async def named_objects(conn: AsyncConnection[Any], place: Where, keys: Sequence[str]) -> set[str]:
    """Those keys that an item still names; in a bucket: that a clone names, for the others are found by their paths."""
    if place.driver_id is None:
        cursor = await conn.execute(
            """
            SELECT object_key
            FROM item
            WHERE dataset_id = %(origin_id)s AND object_key = ANY(%(keys)s) AND origin_dataset_id IS NULL
            UNION
            SELECT object_key FROM item WHERE origin_dataset_id = %(origin_id)s AND object_key = ANY(%(keys)s)
            """,
            {"origin_id": place.origin_id, "keys": list(keys)},
        )
    else:
        cursor = await conn.execute(
            """
            SELECT DISTINCT item.object_key
            FROM dataset
            JOIN item ON item.dataset_id = dataset.id AND item.object_key = ANY(%s)
            WHERE dataset.driver_id = %s AND dataset.origin IS NOT NULL AND dataset.deleted_at IS NULL
            """,
            [list(keys), place.driver_id],
        )
    return {key for (key,) in await cursor.fetchall()}


async def named_thumbnails(conn: AsyncConnection[Any], numbers: Collection[int]) -> set[int]:
    """Those numbers of thumbnails that an item of any dataset has."""
    cursor = await conn.execute(
        """
        SELECT id FROM item WHERE id = ANY(%(numbers)s) AND thumbnail_id IS NULL
        UNION
        SELECT thumbnail_id FROM item WHERE thumbnail_id = ANY(%(numbers)s)
        """,
        {"numbers": list(numbers)},
    )
    return {number for (number,) in await cursor.fetchall()}
