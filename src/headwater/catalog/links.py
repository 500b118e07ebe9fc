"""Links: items whose bytes lie elsewhere, at a URL or in another item, and what was last found there."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, Self

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from headwater.catalog import events, items
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import CounterChange, count, get_dataset
from headwater.catalog.items import ETL_FAILED, Item
from headwater.errors import HeadwaterError
from headwater.ids import from_wire

Kind = Literal["url", "id"]
State = Literal["alive", "dead", "unchecked"]  # the last: this server reads no linked URLs


@dataclass(frozen=True, slots=True)
class Link:
    """What somebody asked for. The row of the item keeps it, with what was found at its end beside it."""

    kind: Kind
    ref: str  # a URL, or the wire id of an item
    mime_type: str | None = None  # as said; what its bytes say is the item's own
    dataset_id: str | None = None  # the wire id of the dataset of a linked item, as said

    @property
    def target_id(self) -> int | None:
        """Of the linked item. Raises NotFound for what is no id."""
        return from_wire(self.ref, "item") if self.kind == "id" else None

    def to_json(self) -> dict[str, Any]:
        """For the column `item.link`."""
        row = {"kind": self.kind, "ref": self.ref, "mime_type": self.mime_type, "dataset_id": self.dataset_id}
        return row if self.kind == "url" else row | {"target_id": self.target_id}

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """From the column `item.link`."""
        return cls(row["kind"], row["ref"], row.get("mime_type"), row.get("dataset_id"))


@dataclass(frozen=True, slots=True)
class Found:
    """How the last look at the end of a link went."""

    state: State
    checked_at: datetime
    size_bytes: int | None = None  # of the target, where it is known
    reason: str | None = None  # of a dead one: a word for programs
    message: str | None = None  # and a sentence for people

    def over(self, row: dict[str, Any]) -> dict[str, Any]:
        """The column `item.link` with this in it; a size that was known once stays known."""
        found = asdict(self) | {"checked_at": self.checked_at.isoformat()}
        if self.size_bytes is None:
            del found["size_bytes"]
        return row | found


@dataclass(frozen=True, slots=True)
class Recognised:
    """An item that is a link file, as its bytes say."""

    item_id: int
    etag: str
    link: Link


async def recognise(conn: AsyncConnection[Any], dataset_id: int, recognised: Sequence[Recognised]) -> None:
    """They are links from now on, to be prepared as such, unless they are other items by now."""
    await conn.execute(
        """
        UPDATE item
        SET link = found.link
        FROM unnest(%s::bigint[], %s::text[], %s::jsonb[]) AS found (id, etag, link)
        WHERE item.dataset_id = %s AND item.id = found.id AND item.etag = found.etag AND item.link IS NULL
        """,
        [
            [one.item_id for one in recognised],
            [one.etag for one in recognised],
            [Jsonb(one.link.to_json()) for one in recognised],
            dataset_id,
        ],
    )


def is_news(item: Item, found: Found) -> bool:
    """Whether the row does not say so already."""
    row = item.link or {}
    if (row.get("state"), row.get("reason")) != (found.state, found.reason):
        return True
    return found.size_bytes is not None and row.get("size_bytes") != found.size_bytes


async def note_found(conn: AsyncConnection[Any], item: Item, found: Found) -> None:
    """Keep it, unless the item is another one by now. A link that came alive again is prepared anew."""
    cursor = await conn.execute(
        """
        SELECT link, etl_state
        FROM item
        WHERE dataset_id = %s AND id = %s AND etag = %s AND link IS NOT NULL
        FOR UPDATE
        """,
        [item.dataset_id, item.id, item.etag],
    )
    row = await cursor.fetchone()
    if row is None:
        return
    link, etl_state = row
    is_back = found.state == "alive" and link.get("state") == "dead" and etl_state == ETL_FAILED
    await conn.execute(
        """
        UPDATE item
        SET link = %(link)s, updated_at = now(), etl_state = CASE WHEN %(is_back)s THEN 0 ELSE etl_state END
        WHERE dataset_id = %(dataset_id)s AND id = %(id)s
        """,
        {"link": Jsonb(found.over(link)), "is_back": is_back, "dataset_id": item.dataset_id, "id": item.id},
    )
    if is_back:
        await events.record_items(conn, item.dataset_id, "Updated", [item.id])
        await count(conn, item.dataset_id, CounterChange(failed_items=-1))


async def has_target(conn: AsyncConnection[Any], item: Item) -> bool:
    """Whether there is the item that an id link leads to, whoever may read it."""
    target_id = Link.of(item.link or {}).target_id
    return target_id is not None and await items.find_item(conn, target_id) is not None


async def find_target(conn: AsyncConnection[Any], reader: Account | None, item: Item) -> Item | None:
    """What an id link leads to; None where that is no more, or the reader may not know of it.

    Without a reader it is for our own work: only what lies in the same project, whose members see both.
    """
    target_id = Link.of(item.link or {}).target_id
    target = None if target_id is None else await items.find_item(conn, target_id)
    if target is None:
        return None
    if reader is None:
        return target if target.project_id == item.project_id else None
    try:
        await get_dataset(conn, reader, target.dataset_id, "read")
    except HeadwaterError:
        return None
    return target
