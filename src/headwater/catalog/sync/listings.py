"""Listings: brings the index in step with one batch of a bucket's listing, in one transaction.

The rules for a batch: new objects are added; changed ones (etag or size differs) lose what was derived of them; ghosts
that are back lose their flag; what was deleted here on purpose stays deleted; what the batch's range should hold and
does not becomes a candidate, looked at only when every shard has been listed to its proven end. Unchanged rows are not
written.
"""

from dataclasses import dataclass, replace
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from headwater.catalog import quotas
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.quotas import Room
from headwater.catalog.sync import arrivals
from headwater.catalog.sync.listed import SEPARATOR, Listed, array, column
from headwater.catalog.sync.scans import WINDOW_S, Scan
from headwater.catalog.sync.shards import Superseded
from headwater.errors import QuotaExceeded

SKIPPED_EXAMPLES = 10

# Every path begins with a slash, so it lies between these; an "or no bound" in SQL would cost the index.
BEFORE_ALL, AFTER_ALL = "", "0"


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
        await arrivals.add_items(conn, scan, listed, difference.new, change)
    changed = returned = 0
    if difference.changed:
        changed = await arrivals.refresh_items(conn, scan, listed, difference.changed, change)
    if difference.returned:
        returned = await arrivals.welcome_back(conn, scan, difference.returned, change)
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
    (paths_sql, paths), (etags_sql, etags) = column("paths", listed.paths), column("etags", listed.etags)
    parameters = _batch_parameters(scan, listed) | paths | etags
    parameters |= {"sizes": array(listed.sizes), "separator": SEPARATOR}
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


async def _record_candidates(conn: AsyncConnection[Any], scan: Scan, shard: int, listed: Listed) -> None:
    """Note which indexed items of the range the batch did not have, as far as the brake could let them go."""
    paths_sql, paths = column("paths", listed.paths)
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
            "separator": SEPARATOR,
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
