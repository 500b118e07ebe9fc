"""Changes: brings the index in step with single objects that somebody looked at, by the rules of listings.py.

What an index row says is left alone where it was written after the looking began: then somebody looks again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Self

from psycopg import AsyncConnection

from headwater.catalog import items, quotas
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.sync import arrivals, upstream, verdicts
from headwater.catalog.sync.listed import Listed
from headwater.catalog.sync.rules import SyncRules
from headwater.errors import QuotaExceeded


@dataclass(slots=True)
class Looked:
    """What the bucket was found to have, and not to have, since `started_at` by the database's clock."""

    dataset_id: int
    started_at: datetime
    found: Listed
    gone: list[str]  # paths
    is_store_empty: bool = False  # nothing at all is in it

    def only(self, paths: set[str]) -> Self:
        found, kept = self.found, [n for n, path in enumerate(self.found.paths) if path in paths]
        return replace(
            self,
            found=listed(
                [found.paths[n] for n in kept],
                [found.sizes[n] for n in kept],
                [found.etags[n] for n in kept],
                [found.modified[n] for n in kept],
            ),
            gone=[path for path in self.gone if path in paths],
        )


def listed(paths: list[str], sizes: list[int], etags: list[str], modified: list[str]) -> Listed:
    """Objects of any paths; they prove no range."""
    return Listed(paths, sizes, etags, modified, after=None, through=None)


@dataclass(slots=True)
class Applied:
    created: int = 0
    changed: int = 0
    returned: int = 0
    removed: int = 0
    kept_deleted: int = 0
    held: int = 0  # gone, but too many to be believed without a scan: they are as they were
    unsettled: set[str] = field(default_factory=set)  # paths to look at again
    refused: QuotaExceeded | None = None  # there was no room for these:
    without_room: set[str] = field(default_factory=set)


async def apply_looked(conn: AsyncConnection[Any], looked: Looked, rules: SyncRules) -> Applied:
    """In one transaction, with the events of what is new or changed. Safe to repeat.

    A path that somebody writes or deletes at this moment is left unsettled; nobody is waited for.
    """
    applied = Applied()
    paths = [*looked.found.paths, *looked.gone]
    free = await items.try_lock_paths(conn, looked.dataset_id, paths)
    applied.unsettled |= set(paths) - free
    looked = looked.only(free)
    change = CounterChange()
    await _apply_found(conn, looked, applied, change)
    await _apply_gone(conn, looked, rules, applied, change)
    if change != CounterChange():
        await count(conn, looked.dataset_id, change)
    return applied


async def known_contents(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> dict[str, str]:
    """SIZE:ETAG of those items that the bucket is believed to have, by path."""
    cursor = await conn.execute(
        """
        SELECT path, size_bytes, etag
        FROM item
        WHERE dataset_id = %s AND path = ANY(%s) AND missing_since IS NULL
        """,
        [dataset_id, list(paths)],
    )
    return {path: f"{size_bytes}:{etag}" for path, size_bytes, etag in await cursor.fetchall()}


async def _apply_found(conn: AsyncConnection[Any], looked: Looked, applied: Applied, change: CounterChange) -> None:
    found = looked.found
    if not found.paths:
        return
    new, changed, returned = await _differences(conn, looked, applied)
    if new:
        new = await _let_in(conn, looked, new, applied)
    if new:
        await arrivals.add_items(conn, looked, found, new, change)
        applied.created = change.items
        await _forget_tombstones(conn, looked, [found.paths[position] for position in new])
        if applied.created < len(new):  # a scan was quicker
            applied.unsettled |= {found.paths[position] for position in new}
    if changed:
        applied.changed = await arrivals.refresh_items(conn, looked, found, changed, change)
        if applied.changed < len(changed):
            applied.unsettled |= {found.paths[position] for _, position in changed}
    if returned:
        applied.returned = await arrivals.welcome_back(conn, looked, returned, change)


async def _differences(
    conn: AsyncConnection[Any], looked: Looked, applied: Applied
) -> tuple[list[int], list[tuple[int, int]], list[int]]:
    """Positions of new objects, (item id, position) of changed ones, ids of ghosts that are back."""
    found = looked.found
    cursor = await conn.execute(
        """
        SELECT
            found.n - 1, item.id, item.missing_since IS NOT NULL,
            item.etag <> found.etag OR item.size_bytes <> found.size_bytes, item.changed_at < %(started_at)s,
            EXISTS (
                SELECT
                FROM tombstone
                WHERE tombstone.dataset_id = %(dataset_id)s AND tombstone.path = found.path
                    AND (object_deleted_at IS NULL OR object_deleted_at >= %(started_at)s)
            )
        FROM unnest(%(paths)s::text[], %(etags)s::text[], %(sizes)s::bigint[])
            WITH ORDINALITY AS found (path, etag, size_bytes, n)
        LEFT JOIN item ON item.dataset_id = %(dataset_id)s AND item.path = found.path
        ORDER BY found.n
        """,
        {
            "dataset_id": looked.dataset_id,
            "started_at": looked.started_at,
            "paths": found.paths,
            "etags": found.etags,
            "sizes": found.sizes,
        },
    )
    new: list[int] = []
    changed: list[tuple[int, int]] = []
    returned: list[int] = []
    for position, item_id, is_missing, is_changed, is_older, is_deleted in await cursor.fetchall():
        if item_id is None:
            applied.kept_deleted += is_deleted
            if not is_deleted:
                new.append(position)
        elif not (is_changed or is_missing):
            continue
        elif not is_older:
            applied.unsettled.add(found.paths[position])
        elif is_changed:
            changed.append((item_id, position))
        else:
            returned.append(item_id)
    return new, changed, returned


async def _let_in(conn: AsyncConnection[Any], looked: Looked, new: list[int], applied: Applied) -> list[int]:
    """As many of the new ones as there is room for, in their order."""
    room = await quotas.lock_room(conn, looked.dataset_id)
    if room is None:
        return new
    let_in, refused = new[: room.left], new[room.left :]
    if let_in:
        await quotas.take_room(conn, room, len(let_in))
    if refused:
        applied.refused = room.exceeded(len(new))
        applied.without_room = {looked.found.paths[position] for position in refused}
    return let_in


async def _forget_tombstones(conn: AsyncConnection[Any], looked: Looked, paths: list[str]) -> None:
    """Of objects that were deleted, and are there again."""
    await conn.execute(
        "DELETE FROM tombstone WHERE dataset_id = %s AND path = ANY(%s) AND object_deleted_at < %s",
        [looked.dataset_id, paths, looked.started_at],
    )


async def _apply_gone(
    conn: AsyncConnection[Any], looked: Looked, rules: SyncRules, applied: Applied, change: CounterChange
) -> None:
    """Make ghosts of items whose object is not there, unless that would be more than is believed by events alone."""
    if not looked.gone:
        return
    await _note_objects_gone(conn, looked)
    cursor = await conn.execute(
        """
        SELECT id, path, changed_at < %s
        FROM item
        WHERE dataset_id = %s AND path = ANY(%s) AND missing_since IS NULL
        """,
        [looked.started_at, looked.dataset_id, looked.gone],
    )
    rows = await cursor.fetchall()
    applied.unsettled |= {path for _, path, is_older in rows if not is_older}
    candidates = [item_id for item_id, _, is_older in rows if is_older]
    if not candidates:
        return
    present, lately = await upstream.lock_removals(conn, looked.dataset_id)
    if looked.is_store_empty or lately + len(candidates) > rules.brake_limit(present + lately):
        applied.held = len(candidates)
        await upstream.want_scan(conn, looked.dataset_id)
        return
    applied.removed = await verdicts.mark_gone(conn, looked, candidates, rules, change)
    await upstream.note_removals(conn, looked.dataset_id, applied.removed)


async def _note_objects_gone(conn: AsyncConnection[Any], looked: Looked) -> None:
    """A scan that runs may have listed them before they went, and must not bring them."""
    await conn.execute(
        """
        INSERT INTO tombstone (dataset_id, path, object_deleted_at)
        SELECT %(dataset_id)s, gone.path, clock_timestamp()
        FROM unnest(%(paths)s::text[]) AS gone (path)
        WHERE EXISTS (SELECT FROM scan WHERE scan.dataset_id = %(dataset_id)s AND scan.state = 'running')
            AND NOT EXISTS (SELECT FROM item WHERE item.dataset_id = %(dataset_id)s AND item.path = gone.path)
        ORDER BY gone.path
        ON CONFLICT (dataset_id, path) DO NOTHING
        """,
        {"dataset_id": looked.dataset_id, "paths": looked.gone},
    )
