"""Listings: brings the index in step with one batch of a bucket's listing, in one transaction.

The rules for a batch: new objects are added; changed ones (etag or size differs) lose what was derived of them; ghosts
that are back lose their flag; what was deleted here on purpose stays deleted; what the batch's range should hold and
does not becomes a candidate, looked at only when every shard has been listed to its proven end. Unchanged rows are not
written.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString, Self

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from headwater.catalog import events, quotas
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.folders import ensure_folders, folder_of
from headwater.catalog.quotas import Room
from headwater.catalog.sync.scans import WINDOW_S, Scan
from headwater.catalog.sync.seen import Seen
from headwater.catalog.sync.shards import Superseded
from headwater.errors import QuotaExceeded
from headwater.mime_types import guess_mime_type

SKIPPED_EXAMPLES = 10

# Texts travel as one parameter, joined: psycopg turns lists into arrays element by element, which costs as much as
# the whole merge of an unchanged batch. Keys hold any character but NUL, so a batch with this one goes the slow way.
_SEPARATOR = "\x1f"

# Every path begins with a slash, so it lies between these; an "or no bound" in SQL would cost the index.
BEFORE_ALL, AFTER_ALL = "", "0"


@dataclass(slots=True)
class Listed:
    """Some consecutive objects of a listing as parallel lists, and the range of paths they prove.

    `after` is not in the range; `through` is its last path, None for the end of the shard's bucket.
    """

    paths: list[str]
    sizes: list[int]
    etags: list[str]
    modified: list[str]
    after: str | None
    through: str | None
    skipped: int = 0
    skipped_examples: Sequence[tuple[str, str]] = ()
    key_pages: Sequence[Sequence[str]] = ()  # all keys the store listed, items or not; none of the pages is empty
    beyond: str | None = None  # what it listed first behind the shard's end

    @property
    def first_seen(self) -> str | None:
        """The path that the store listed first, item or not."""
        return "/" + self.key_pages[0][0] if self.key_pages else None

    def first_behind(self, path: str) -> str | None:
        """The first path behind this one that the store listed, item or not; the batch must be ordered."""
        for keys in self.key_pages:
            if keys[-1] > path[1:]:
                return "/" + keys[bisect_right(keys, path[1:])]
        return None

    def until(self, path: str) -> Self:
        """What lies in a range that ends with this path."""
        return replace(self._through(path, bisect_right(self.paths, path)), beyond=self.first_behind(path))

    def first_objects(self, number: int) -> Self:
        """The first objects, at least one, and the range they prove."""
        return self._through(self.paths[number - 1], number)

    def _through(self, path: str, number: int) -> Self:
        """Only what lies in the range that ends with this path: so many objects, and what was skipped in it."""
        skipped = [(name, why) for name, why in self.skipped_examples if "/" + name <= path]
        return replace(
            self,
            paths=self.paths[:number],
            sizes=self.sizes[:number],
            etags=self.etags[:number],
            modified=self.modified[:number],
            through=path,
            skipped=len(skipped),
            skipped_examples=skipped,
        )


@dataclass(frozen=True, slots=True)
class Merged:
    created: int = 0
    changed: int = 0
    returned: int = 0
    kept_deleted: int = 0
    gone: int = 0
    refused: QuotaExceeded | None = None  # from the first new object on that there was no room for, nothing was merged


async def merge_listing(conn: AsyncConnection[Any], scan: Scan, shard: int, listed: Listed, *, is_last: bool) -> Merged:
    """Bring the index in step with one batch, move the shard's cursor, count. Safe to repeat.

    The batch must be ordered. Events of new and changed items go into the same transaction.
    """
    difference, kept_deleted = await _compare(conn, scan, listed)
    if difference.new:
        room = await quotas.lock_room(conn, scan.dataset_id)
        if room is not None:
            if len(difference.new) > room.left:
                return await _merge_what_fits(conn, scan, shard, listed, room, is_last=is_last)
            await quotas.take_room(conn, room, len(difference.new))
    change = CounterChange()
    if difference.new:
        await add_items(conn, scan, listed, difference.new, change)
    changed = returned = 0
    if difference.changed:
        changed = await refresh_items(conn, scan, listed, difference.changed, change)
    if difference.returned:
        returned = await welcome_back(conn, scan, difference.returned, change)
    if difference.gone:
        await _record_candidates(conn, scan, shard, listed)
    merged = Merged(
        created=change.items,
        changed=changed,
        returned=returned,
        kept_deleted=kept_deleted,
        gone=difference.gone,
    )
    await _advance(conn, scan, shard, listed, merged, is_last=is_last)
    await count(conn, scan.dataset_id, change)
    return merged


async def _merge_what_fits(
    conn: AsyncConnection[Any], scan: Scan, shard: int, listed: Listed, room: Room, *, is_last: bool
) -> Merged:
    """The batch up to the first new object that there is no room for. Nobody else adds meanwhile."""
    difference, _ = await _compare(conn, scan, listed)  # what others added before it was our turn is new no more
    excess = len(difference.new) - room.left
    if excess <= 0:
        return await merge_listing(conn, scan, shard, listed, is_last=is_last)
    first_refused = difference.new[room.left]
    merged = Merged()
    if first_refused:
        merged = await merge_listing(conn, scan, shard, listed.first_objects(first_refused), is_last=False)
    full = replace(room, used=room.used + merged.created)
    return replace(merged, refused=full.exceeded(excess, at_least=not is_last))


@dataclass(slots=True)
class _Differences:
    new: list[int]  # positions in the batch, from 0
    changed: list[tuple[int, int]]  # (item id, position)
    returned: list[int]  # item ids
    gone: int


def _column(name: str, texts: Sequence[str]) -> tuple[LiteralString, dict[str, Any]]:
    """SQL of a text[] parameter called `paths`, `etags`, `modified` or `mime_types`, and its value."""
    joined = _SEPARATOR.join(texts)
    if joined and joined.count(_SEPARATOR) == len(texts) - 1:  # PostgreSQL splits '' into nothing, not into ['']
        return _JOINED[name], {name: joined}
    return _LISTED[name], {name: list(texts)}


_JOINED: dict[str, LiteralString] = {
    "paths": "string_to_array(%(paths)s, %(separator)s)",
    "etags": "string_to_array(%(etags)s, %(separator)s)",
    "modified": "string_to_array(%(modified)s, %(separator)s)",
    "mime_types": "string_to_array(%(mime_types)s, %(separator)s)",
}
_LISTED: dict[str, LiteralString] = {
    "paths": "%(paths)s::text[]",
    "etags": "%(etags)s::text[]",
    "modified": "%(modified)s::text[]",
    "mime_types": "%(mime_types)s::text[]",
}


def _batch_parameters(scan: Scan, listed: Listed) -> dict[str, Any]:
    return {
        "dataset_id": scan.dataset_id,
        "after": listed.after or BEFORE_ALL,
        "through": listed.through or AFTER_ALL,
        "started_at": scan.started_at,
    }


async def _compare(conn: AsyncConnection[Any], scan: Scan, listed: Listed) -> tuple[_Differences, int]:
    """What the batch changes, and how many of its objects stay deleted."""
    difference = await _differences(conn, scan, listed)
    return difference, await _drop_deleted(conn, scan, listed, difference)


async def _differences(conn: AsyncConnection[Any], scan: Scan, listed: Listed) -> _Differences:
    """Everything in the batch's range that is not the same on both sides.

    A row written since the scan began may be younger than the listing: it is left alone.
    """
    (paths_sql, paths), (etags_sql, etags) = _column("paths", listed.paths), _column("etags", listed.etags)
    parameters = _batch_parameters(scan, listed) | paths | etags
    parameters |= {"sizes": _array(listed.sizes), "separator": _SEPARATOR}
    cursor = await conn.execute(
        """
        WITH listed AS MATERIALIZED (
            SELECT path COLLATE "C" AS path, etag COLLATE "C" AS etag, size_bytes, n - 1 AS n
            FROM unnest("""
        + paths_sql
        + ", "
        + etags_sql
        + """, %(sizes)s::bigint[]) WITH ORDINALITY AS batch (path, etag, size_bytes, n)
        ), present AS MATERIALIZED (
            SELECT id, path, etag, size_bytes, missing_since, changed_at
            FROM item
            WHERE dataset_id = %(dataset_id)s
                AND path > %(after)s AND path <= %(through)s
        ), compared AS (
            SELECT
                listed.n, present.id, present.missing_since IS NOT NULL AS is_missing,
                listed.etag <> present.etag OR listed.size_bytes <> present.size_bytes AS is_changed,
                present.changed_at < %(started_at)s AS is_older,
                present.path LIKE '/.dataloop/%%' AS is_ours
            FROM listed
            FULL JOIN present ON present.path = listed.path
        )
        SELECT
            array_agg(n ORDER BY n) FILTER (WHERE id IS NULL),
            array_agg(id ORDER BY n) FILTER (WHERE is_changed AND is_older),
            array_agg(n ORDER BY n) FILTER (WHERE is_changed AND is_older),
            array_agg(id) FILTER (WHERE NOT is_changed AND is_missing AND is_older),
            count(*) FILTER (WHERE n IS NULL AND NOT is_missing AND is_older AND NOT is_ours)
        FROM compared
        WHERE id IS NULL OR n IS NULL OR is_changed OR is_missing
        """,
        parameters,
    )
    row = await cursor.fetchone()
    assert row is not None
    new, changed_ids, changed_at, returned, gone = row
    return _Differences(new or [], list(zip(changed_ids or [], changed_at or [], strict=True)), returned or [], gone)


async def _drop_deleted(conn: AsyncConnection[Any], scan: Scan, listed: Listed, difference: _Differences) -> int:
    """Take what was deleted here on purpose out of what is new. Returns how many were."""
    if not difference.new:
        return 0
    cursor = await conn.execute(
        """
        SELECT path
        FROM tombstone
        WHERE dataset_id = %(dataset_id)s
            AND path > %(after)s AND path <= %(through)s
            AND (object_deleted_at IS NULL OR object_deleted_at >= %(started_at)s)
        """,
        _batch_parameters(scan, listed),
    )
    deleted = {path for (path,) in await cursor.fetchall()}
    if not deleted:
        return 0
    new = [position for position in difference.new if listed.paths[position] not in deleted]
    kept_deleted = len(difference.new) - len(new)
    difference.new = new
    return kept_deleted


async def add_items(
    conn: AsyncConnection[Any], seen: Seen, listed: Listed, positions: list[int], change: CounterChange
) -> None:
    """Insert what is new, with its folders and its Created events; an upload that was quicker keeps its row."""
    paths = [listed.paths[position] for position in positions]
    folders = [folder_of(path) for path in paths]
    folder_ids = await ensure_folders(conn, seen.dataset_id, folders)
    texts = {
        "paths": paths,
        "etags": [listed.etags[position] for position in positions],
        "modified": [listed.modified[position] for position in positions],
        "mime_types": [guess_mime_type(path) for path in paths],
    }
    columns = [_column(name, values) for name, values in texts.items()]
    parameters: dict[str, Any] = {
        "dataset_id": seen.dataset_id,
        "folder_ids": _array(folder_ids[folder] for folder in folders),
        "sizes": _array(listed.sizes[position] for position in positions),
        "separator": _SEPARATOR,
        "each": events.ITEMS_PER_EVENT,
    }
    for _, values in columns:
        parameters |= values
    try:
        async with conn.transaction():
            added, added_bytes = await _insert(conn, [sql for sql, _ in columns], parameters, on_conflict="")
    except UniqueViolation:
        skip: LiteralString = "ON CONFLICT (dataset_id, path) DO NOTHING"
        added, added_bytes = await _insert(conn, [sql for sql, _ in columns], parameters, on_conflict=skip)
    change.items += added
    change.bytes += added_bytes
    await events.announce(conn)


async def _insert(
    conn: AsyncConnection[Any],
    columns: Sequence[LiteralString],
    parameters: dict[str, Any],
    *,
    on_conflict: LiteralString,
) -> tuple[int, int]:
    """How many rows were added, and the bytes of their objects.

    `ON CONFLICT` costs a third more for each row, so the first try does without.
    """
    statement: LiteralString = (
        """
        WITH added AS (
            INSERT INTO item (dataset_id, folder_id, path, size_bytes, etag, modified_at, mime_type)
            SELECT %(dataset_id)s, folder_id, path, size_bytes, etag, nullif(modified_at, '')::timestamptz, mime_type
            FROM unnest(%(folder_ids)s::bigint[], %(sizes)s::bigint[], """
        + ", ".join(columns)
        + """) WITH ORDINALITY AS batch (folder_id, size_bytes, path, etag, modified_at, mime_type, n)
            ORDER BY n
            """
        + on_conflict
        + """
            RETURNING id, size_bytes
        ), recorded AS (
            INSERT INTO event (dataset_id, resource, action, item_ids)
            SELECT %(dataset_id)s, 'Item', 'Created', array_agg(id ORDER BY id)
            FROM (SELECT id, (row_number() OVER (ORDER BY id) - 1) / %(each)s AS bundle FROM added) AS numbered
            GROUP BY bundle
        )
        SELECT count(*), coalesce(sum(size_bytes), 0)::bigint FROM added
        """
    )
    cursor = await conn.execute(statement, parameters)
    row = await cursor.fetchone()
    assert row is not None
    return row


def _array(numbers: Any) -> str:
    """Numbers as the text of a PostgreSQL array."""
    return "{" + ",".join(map(str, numbers)) + "}"


async def refresh_items(
    conn: AsyncConnection[Any],
    seen: Seen,
    listed: Listed,
    changed: list[tuple[int, int]],
    change: CounterChange,
) -> int:
    """Give changed items their new content, forget what was derived of the old one, record Updated events.

    Returns how many: an item that was written since it was compared knows better and keeps its row.
    """
    positions = [position for _, position in changed]
    cursor = await conn.execute(
        """
        WITH before AS (
            SELECT id, size_bytes, etl_state, missing_since, trashed_at
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s) AND changed_at < %(started_at)s
            ORDER BY id
            FOR UPDATE
        ), refreshed AS (
            UPDATE item
            SET size_bytes = new.size_bytes, etag = new.etag, modified_at = nullif(new.modified_at, '')::timestamptz,
                mime_type = new.mime_type, width_px = NULL, height_px = NULL, thumbnail_type = NULL, etl_state = 0,
                missing_since = NULL, trashed_at = NULL,
                system_metadata = item.system_metadata - '{exif,channels,etl}'::text[], changed_at = clock_timestamp(),
                updated_at = now()
            FROM unnest(
                %(ids)s::bigint[], %(sizes)s::bigint[], %(etags)s::text[], %(modified)s::text[], %(mime_types)s::text[]
            ) AS new (id, size_bytes, etag, modified_at, mime_type)
            JOIN before ON before.id = new.id
            WHERE item.dataset_id = %(dataset_id)s AND item.id = new.id
            RETURNING item.id, item.size_bytes - before.size_bytes AS more_bytes, before.etl_state,
                before.missing_since IS NOT NULL AS was_missing,
                before.trashed_at IS NOT NULL AS was_trashed
        )
        SELECT
            array_agg(id ORDER BY id), coalesce(sum(more_bytes), 0)::bigint, count(*) FILTER (WHERE etl_state = 1),
            count(*) FILTER (WHERE etl_state = 2), count(*) FILTER (WHERE was_missing),
            count(*) FILTER (WHERE was_trashed)
        FROM refreshed
        """,
        {
            "dataset_id": seen.dataset_id,
            "started_at": seen.started_at,
            "ids": [item_id for item_id, _ in changed],
            "sizes": [listed.sizes[position] for position in positions],
            "etags": [listed.etags[position] for position in positions],
            "modified": [listed.modified[position] for position in positions],
            "mime_types": [guess_mime_type(listed.paths[position]) for position in positions],
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    refreshed = row[0] or []
    change.bytes += row[1]
    change.prepared_items -= row[2]
    change.failed_items -= row[3]
    change.missing_items -= row[4]
    change.trashed_items -= row[5]
    await events.record_items(conn, seen.dataset_id, "Updated", refreshed)
    return len(refreshed)


async def welcome_back(conn: AsyncConnection[Any], seen: Seen, item_ids: list[int], change: CounterChange) -> int:
    """Ghosts whose object is back as it was: nothing is derived anew, unless it was not there to be read.

    Returns how many.
    """
    cursor = await conn.execute(
        """
        WITH before AS (
            SELECT id, etl_state = 2 AND system_metadata #>> '{etl,reason}' = 'object-missing' AS is_unread,
                trashed_at IS NOT NULL AS was_trashed
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s) AND missing_since IS NOT NULL
            ORDER BY id
            FOR UPDATE
        )
        UPDATE item
        SET missing_since = NULL, trashed_at = NULL, updated_at = now(),
            etl_state = CASE WHEN before.is_unread THEN 0 ELSE item.etl_state END
        FROM before
        WHERE item.dataset_id = %(dataset_id)s AND item.id = before.id
        RETURNING item.id, before.is_unread, before.was_trashed
        """,
        {"dataset_id": seen.dataset_id, "ids": item_ids},
    )
    returned = await cursor.fetchall()
    unread = sorted(item_id for item_id, is_unread, _ in returned if is_unread)
    change.missing_items -= len(returned)
    change.trashed_items -= sum(was_trashed for _, _, was_trashed in returned)
    change.failed_items -= len(unread)
    await events.record_items(conn, seen.dataset_id, "Updated", unread)
    return len(returned)


async def _record_candidates(conn: AsyncConnection[Any], scan: Scan, shard: int, listed: Listed) -> None:
    """Note which indexed items of the range the batch did not have, as far as the brake could let them go."""
    paths_sql, paths = _column("paths", listed.paths)
    await conn.execute(
        """
        INSERT INTO scan_candidate (scan_id, shard, item_id)
        SELECT %(scan_id)s, %(shard)s, item.id
        FROM item
        WHERE item.dataset_id = %(dataset_id)s
            AND item.path > %(after)s AND item.path <= %(through)s
            AND item.missing_since IS NULL AND item.changed_at < %(started_at)s
            AND item.path NOT LIKE '/.dataloop/%%'
            AND NOT EXISTS (
                SELECT
                FROM unnest("""
        + paths_sql
        + """) AS listed (path)
                WHERE listed.path COLLATE "C" = item.path
            )
        LIMIT (
            SELECT CASE WHEN %(confirmed)s THEN NULL ELSE greatest(0, %(limit)s - count(*)) END
            FROM scan_candidate
            WHERE scan_id = %(scan_id)s
        )
        ON CONFLICT DO NOTHING
        """,
        _batch_parameters(scan, listed)
        | paths
        | {
            "scan_id": scan.id,
            "shard": shard,
            "separator": _SEPARATOR,
            "confirmed": scan.confirm_missing,
            "limit": scan.rules.brake_limit(scan.present),
        },
    )


async def _advance(
    conn: AsyncConnection[Any], scan: Scan, shard: int, listed: Listed, merged: Merged, *, is_last: bool
) -> None:
    counted = {
        "scan_id": scan.id,
        "listed": len(listed.paths),
        "created": merged.created,
        "changed": merged.changed,
        "returned": merged.returned,
        "kept_deleted": merged.kept_deleted,
        "gone": merged.gone,
        "skipped": listed.skipped,
    }
    await conn.execute(
        """
        UPDATE scan_shard
        SET cursor_path = coalesce(%(through)s, cursor_path), done = %(is_last)s, beyond_path = %(beyond)s,
            first_path = CASE WHEN cursor_path IS NULL THEN %(first)s ELSE first_path END,
            listed = listed + %(listed)s, kept_deleted = kept_deleted + %(kept_deleted)s, gone = gone + %(gone)s,
            skipped = skipped + %(skipped)s
        WHERE scan_id = %(scan_id)s AND number = %(shard)s
        """,
        counted
        | {
            "shard": shard,
            "through": listed.through or (listed.paths[-1] if listed.paths else None),
            "is_last": is_last,
            "first": listed.first_seen,
            "beyond": listed.beyond,
        },
    )
    cursor = await conn.execute(
        """
        UPDATE scan
        SET listed = listed + %(listed)s, shown = greatest(shown, listed + %(listed)s),
            created = created + %(created)s, changed = changed + %(changed)s, returned = returned + %(returned)s,
            kept_deleted = kept_deleted + %(kept_deleted)s, gone = gone + %(gone)s, skipped = skipped + %(skipped)s,
            skipped_examples = CASE
                WHEN jsonb_array_length(skipped_examples) < %(most)s THEN skipped_examples || %(examples)s
                ELSE skipped_examples
            END,
            window_began_at = CASE
                WHEN window_began_at + make_interval(secs => %(window_s)s) > now THEN window_began_at
                ELSE now
            END,
            window_listed = CASE
                WHEN window_began_at + make_interval(secs => %(window_s)s) > now THEN window_listed + %(listed)s
                ELSE 0
            END,
            objects_per_s = CASE
                WHEN window_began_at + make_interval(secs => %(window_s)s) <= now
                THEN (window_listed + %(listed)s) / extract(epoch FROM now - window_began_at)
                ELSE objects_per_s
            END
        FROM clock_timestamp() AS now
        WHERE id = %(scan_id)s AND state = 'running'
        """,
        counted
        | {
            "most": SKIPPED_EXAMPLES,
            "examples": Jsonb([list(example) for example in listed.skipped_examples[:SKIPPED_EXAMPLES]]),
            "window_s": WINDOW_S,
        },
    )
    if not cursor.rowcount:
        raise Superseded
