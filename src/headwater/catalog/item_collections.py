"""Collections: up to ten named sets of items in a dataset. An item says which ones it is in, by their marks.

A mark is `metadata.system.collections.c<slot>`: true. A collection that is deleted keeps its slot and its name until a
command has taken its mark from every item, so that no new collection finds items of the old one in it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from headwater.catalog.names import checked_name
from headwater.catalog.query import Condition
from headwater.errors import BadRequest, Conflict, NotFound

MOST = 10
_LOST_IN_URLS = re.compile(r"[?#]|%[0-9A-Fa-f]{2}|(^|/)\.{1,2}(/|$)|^/|/$|//")


@dataclass(frozen=True, slots=True)
class ItemCollection:
    id: int
    slot: int
    name: str
    deleting_command_id: int | None

    @property
    def key(self) -> str:
        return f"c{self.slot}"

    @property
    def field(self) -> str:
        return f"metadata.system.collections.{self.key}"

    @property
    def members(self) -> Condition:
        """The filter of its items."""
        return Condition(self.field, "exists", value=True)


_SELECT = "SELECT id, slot, name, deleting_command_id FROM item_collection WHERE dataset_id = %s "


async def list_collections(conn: AsyncConnection[Any], dataset_id: int) -> list[ItemCollection]:
    """Those that are not being deleted, by their slots."""
    cursor = conn.cursor(row_factory=class_row(ItemCollection))
    await cursor.execute(_SELECT + "AND deleting_command_id IS NULL ORDER BY slot", [dataset_id])
    return await cursor.fetchall()


async def create(conn: AsyncConnection[Any], dataset_id: int, name: str) -> ItemCollection:
    """In the lowest slot that is free. Any number may try at once. Raises BadRequest, Conflict."""
    name = _checked(name)
    await conn.execute("SELECT FROM dataset WHERE id = %s FOR NO KEY UPDATE", [dataset_id])
    cursor = conn.cursor(row_factory=class_row(ItemCollection))
    await cursor.execute(_SELECT + "ORDER BY slot", [dataset_id])
    there = await cursor.fetchall()
    for one in there:
        if one.name == name:
            raise _taken(one)
    if len(there) >= MOST:
        going = sum(one.deleting_command_id is not None for one in there)
        raise BadRequest(
            f"A dataset has at most {MOST} collections, and this one has {len(there)}"
            + (f", {going} of which are just being deleted. Try again when that has ended." if going else ".")
            + ("" if going else " Delete one first.")
        )
    slot = min(set(range(MOST)) - {one.slot for one in there})
    await cursor.execute(
        """
        INSERT INTO item_collection (dataset_id, slot, name) VALUES (%s, %s, %s)
        RETURNING id, slot, name, deleting_command_id
        """,
        [dataset_id, slot, name],
    )
    made = await cursor.fetchone()
    assert made is not None
    return made


async def ensure(conn: AsyncConnection[Any], dataset_id: int, names: Sequence[str]) -> list[ItemCollection]:
    """Those of these names; what is not there is made. Raises BadRequest, Conflict."""
    wanted = list(dict.fromkeys(name.strip() for name in names))
    there = {one.name: one for one in await list_collections(conn, dataset_id)}
    if not there.keys() >= set(wanted):  # whoever makes one now is waited for
        await conn.execute("SELECT FROM dataset WHERE id = %s FOR NO KEY UPDATE", [dataset_id])
        there = {one.name: one for one in await list_collections(conn, dataset_id)}
    return [there.get(name) or await create(conn, dataset_id, name) for name in wanted]


async def get(conn: AsyncConnection[Any], dataset_id: int, name: str, *, lock: bool = False) -> ItemCollection:
    """Raises NotFound, naming those there are. One that is being deleted is there as well."""
    cursor = conn.cursor(row_factory=class_row(ItemCollection))
    await cursor.execute(_SELECT + "AND name = %s" + (" FOR UPDATE" if lock else ""), [dataset_id, name])
    found = await cursor.fetchone()
    if found is None:
        names = ", ".join(repr(one.name) for one in await list_collections(conn, dataset_id))
        raise NotFound(f"There is no collection {name[:80]!r} in this dataset. Collections: {names or 'none'}.")
    return found


async def rename(conn: AsyncConnection[Any], dataset_id: int, name: str, new_name: str) -> None:
    """Raises NotFound, BadRequest, Conflict."""
    new_name = _checked(new_name)
    found = await get(conn, dataset_id, name, lock=True)
    if found.deleting_command_id is not None:
        raise _taken(found)
    try:
        async with conn.transaction():
            await conn.execute("UPDATE item_collection SET name = %s WHERE id = %s", [new_name, found.id])
    except UniqueViolation:
        raise Conflict(f"There is a collection named {new_name!r} in this dataset already.") from None


async def note_deleting(conn: AsyncConnection[Any], collection_id: int, command_id: int | None) -> None:
    """It is out of sight while the command runs; None: it stays after all."""
    await conn.execute("UPDATE item_collection SET deleting_command_id = %s WHERE id = %s", [command_id, collection_id])


async def hold(conn: AsyncConnection[Any], collection_ids: Sequence[int]) -> list[ItemCollection]:
    """Those of them that are there and stay: till the end of this transaction nobody begins to delete them."""
    cursor = conn.cursor(row_factory=class_row(ItemCollection))
    await cursor.execute(
        """
        SELECT id, slot, name, deleting_command_id
        FROM item_collection
        WHERE id = ANY(%s) AND deleting_command_id IS NULL
        ORDER BY id
        FOR SHARE
        """,
        [list(collection_ids)],
    )
    return await cursor.fetchall()


async def forget(conn: AsyncConnection[Any], collection_id: int) -> None:
    await conn.execute("DELETE FROM item_collection WHERE id = %s", [collection_id])


async def copy_all(conn: AsyncConnection[Any], source_id: int, target_id: int) -> bool:
    """Give a dataset without items or collections those of another. Returns whether both have the same now.

    Not while one of them is being deleted: items of the source may have its mark still.
    """
    parameters = {"source": source_id, "target": target_id}
    await conn.execute(
        """
        INSERT INTO item_collection (dataset_id, slot, name)
        SELECT %(target)s, slot, name
        FROM item_collection
        WHERE dataset_id = %(source)s AND deleting_command_id IS NULL
            AND NOT EXISTS (SELECT FROM item WHERE item.dataset_id = %(target)s)
            AND NOT EXISTS (SELECT FROM item_collection WHERE dataset_id = %(target)s)
        """,
        parameters,
    )
    cursor = await conn.execute(
        """
        SELECT coalesce(bool_and(number = 2 AND going = 0), false)
        FROM (
            SELECT count(*) AS number, count(deleting_command_id) AS going
            FROM item_collection
            WHERE dataset_id IN (%(source)s, %(target)s)
            GROUP BY slot, name
        ) AS held
        """,
        parameters,
    )
    row = await cursor.fetchone()
    assert row is not None
    return source_id == target_id or row[0]


def _checked(name: str) -> str:
    """Raises BadRequest for what clients could not say in a URL, or would say of another collection."""
    name = checked_name(name, "collection")
    if _LOST_IN_URLS.search(name):
        raise BadRequest(
            f"{name[:60]!r} cannot be the name of a collection: it is part of URLs, in which ?, #, %41 and the like, "
            "empty parts, and parts that are . or .. mean something else."
        )
    return name


def _taken(one: ItemCollection) -> Conflict:
    if one.deleting_command_id is None:
        return Conflict(f"There is a collection named {one.name!r} in this dataset already.")
    return Conflict(
        f"Collection {one.name!r} is just being deleted. Try again when that has ended: command "
        f"{one.deleting_command_id:024x}."
    )
