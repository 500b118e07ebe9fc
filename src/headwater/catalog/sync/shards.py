"""Shards: the key ranges of a scan, which lanes claim, list, split for each other, and join where a seam is torn.

A shard is the range `(after_path, until_path]`. Each claim has a number, and who commits holds the row and shows its
number, so a worker that was thought dead commits nothing once another has its shard. The numbers of shards come again
when some were joined, those of their claims never.

Seams prove that ranges that were listed apart are one whole listing: the first path that one range saw behind its end
must be the first that the next one saw at all. That holds for any order a store may list in, and fails where a store
does not begin a listing where it was told to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

LEAST_PIECE = 20_000  # objects; shorter ranges of the scan before are put together
WHOLE = ""  # the path of a row of each stage; where it is gone, PostgreSQL has crashed and the stage is empty
_SPLIT_AGAIN_AFTER_S = 10


@dataclass(frozen=True, slots=True)
class Shard:
    number: int
    after_path: str | None  # None: no bound
    until_path: str | None
    cursor_path: str | None  # the last path that was committed
    staged: bool
    claim: int
    first_path: str | None
    listed: int


_COLUMNS = "number, after_path, until_path, cursor_path, staged, claim, first_path, listed"


class Superseded(Exception):
    """Another worker has the shard, or the scan has ended: what this one found is not wanted any more."""


async def claim_shard(conn: AsyncConnection[Any], scan_id: int, lane: int) -> Shard | None:
    """A shard for this lane alone: the one it had when it died, or one that is nobody's. None: there is none."""
    cursor = conn.cursor(row_factory=class_row(Shard))
    await cursor.execute(
        "UPDATE scan_shard SET claim = claim + 1 WHERE scan_id = %s AND lane = %s AND NOT done RETURNING " + _COLUMNS,
        [scan_id, lane],
    )
    mine = await cursor.fetchone()
    if mine is not None:
        return mine
    await cursor.execute(
        """
        UPDATE scan_shard
        SET claim = claim + 1, lane = %(lane)s
        WHERE scan_id = %(scan_id)s AND number = (
            SELECT number
            FROM scan_shard
            WHERE scan_id = %(scan_id)s AND lane IS NULL AND NOT done
                AND (SELECT state FROM scan WHERE id = %(scan_id)s) = 'running'
            ORDER BY number
            LIMIT 1
            FOR UPDATE SKIP LOCKED
        )
        RETURNING """
        + _COLUMNS,
        {"scan_id": scan_id, "lane": lane},
    )
    return await cursor.fetchone()


async def hold_shard(conn: AsyncConnection[Any], scan_id: int, shard: Shard) -> Shard:
    """As it is now, until this transaction ends. Raises Superseded when the claim counts no more."""
    cursor = conn.cursor(row_factory=class_row(Shard))
    await cursor.execute(
        "SELECT "
        + _COLUMNS
        + " FROM scan_shard WHERE scan_id = %s AND number = %s AND claim = %s AND NOT done FOR UPDATE",
        [scan_id, shard.number, shard.claim],
    )
    now = await cursor.fetchone()
    if now is None:
        raise Superseded
    return now


async def load_shard(conn: AsyncConnection[Any], scan_id: int, number: int) -> Shard | None:
    cursor = conn.cursor(row_factory=class_row(Shard))
    await cursor.execute(
        "SELECT " + _COLUMNS + " FROM scan_shard WHERE scan_id = %s AND number = %s", [scan_id, number]
    )
    return await cursor.fetchone()


async def are_all_done(conn: AsyncConnection[Any], scan_id: int) -> bool:
    cursor = await conn.execute("SELECT bool_and(done) FROM scan_shard WHERE scan_id = %s", [scan_id])
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def count_open(conn: AsyncConnection[Any], scan_id: int) -> int:
    cursor = await conn.execute("SELECT count(*) FROM scan_shard WHERE scan_id = %s AND NOT done", [scan_id])
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def find_long_shard(conn: AsyncConnection[Any], scan_id: int, *, at_least: int) -> Shard | None:
    """A shard of which so much was listed already that the rest may be worth sharing; nobody else tries for a while."""
    cursor = conn.cursor(row_factory=class_row(Shard))
    await cursor.execute(
        """
        UPDATE scan_shard
        SET split_after = clock_timestamp() + make_interval(secs => %s)
        WHERE scan_id = %s AND number = (
            SELECT number
            FROM scan_shard
            WHERE scan_id = %s AND NOT done AND NOT staged AND lane IS NOT NULL AND listed >= %s
                AND split_after < clock_timestamp()
            ORDER BY listed DESC
            LIMIT 1
            FOR UPDATE SKIP LOCKED
        )
        RETURNING """
        + _COLUMNS,
        [_SPLIT_AGAIN_AFTER_S, scan_id, scan_id, at_least],
    )
    return await cursor.fetchone()


async def split_shard(conn: AsyncConnection[Any], scan_id: int, number: int, bounds: Sequence[str]) -> int:
    """Cut what is left of a shard at these paths, as far as they still lie in it. Returns how many shards came.

    Every bound must be the path of an object that the store has listed.
    """
    cursor = await conn.execute(
        """
        SELECT coalesce(cursor_path, after_path, ''), until_path
        FROM scan_shard
        WHERE scan_id = %s AND number = %s AND NOT done AND NOT staged
        FOR UPDATE
        """,
        [scan_id, number],
    )
    row = await cursor.fetchone()
    if row is None:
        return 0
    reached, until = row
    inside = sorted({bound for bound in bounds if bound > reached and (until is None or bound < until)})
    if not inside:
        return 0
    cursor = await conn.execute("SELECT FROM scan WHERE id = %s AND state = 'running' FOR UPDATE", [scan_id])
    if await cursor.fetchone() is None:
        return 0
    await conn.execute(
        "UPDATE scan_shard SET until_path = %s WHERE scan_id = %s AND number = %s", [inside[0], scan_id, number]
    )
    await conn.execute(
        """
        INSERT INTO scan_shard (scan_id, number, after_path, until_path, claim)
        SELECT %(scan_id)s, last.number + piece.n, piece.after_path, piece.until_path, last.claim
        FROM unnest(%(after)s::text[], %(until)s::text[]) WITH ORDINALITY AS piece (after_path, until_path, n),
            (SELECT max(number) AS number, max(claim) AS claim FROM scan_shard WHERE scan_id = %(scan_id)s) AS last
        """,
        {"scan_id": scan_id, "after": inside, "until": [*inside[1:], until]},
    )
    return len(inside)


async def join_torn_seams(conn: AsyncConnection[Any], scan_id: int) -> int:
    """Make one shard of each two whose seam does not hold; it is listed anew. Returns how many seams there were.

    Call it with the scan locked, once every shard is done.
    """
    cursor = await conn.execute(
        """
        SELECT number, until_path, beyond_path, first_path
        FROM scan_shard
        WHERE scan_id = %s
        ORDER BY after_path NULLS FIRST
        """,
        [scan_id],
    )
    chain = await cursor.fetchall()
    torn = 0
    kept = chain[0][0]
    for left, right in pairwise(chain):
        if left[2] == right[3]:
            kept = right[0]
            continue
        torn += 1
        await _begin_anew(conn, scan_id, [kept, right[0]])
        await conn.execute(
            """
            UPDATE scan_shard AS kept
            SET lane = NULL, until_path = joined.until_path, claim = greatest(kept.claim, joined.claim)
            FROM scan_shard AS joined
            WHERE kept.scan_id = %(scan_id)s AND kept.number = %(kept)s
                AND joined.scan_id = %(scan_id)s AND joined.number = %(right)s
            """,
            {"scan_id": scan_id, "kept": kept, "right": right[0]},
        )
        await conn.execute("DELETE FROM scan_shard WHERE scan_id = %s AND number = %s", [scan_id, right[0]])
    return torn


async def stage_scan(conn: AsyncConnection[Any], scan_id: int, shard: Shard) -> Shard:
    """Begin the scan anew as one staged shard: its store lists out of order, so what seemed gone was not.

    Raises Superseded.
    """
    numbers = await _lock_all(conn, scan_id)
    await hold_shard(conn, scan_id, shard)
    return await _make_one_staged(conn, scan_id, numbers, shard.number)


async def stage_if_cut(conn: AsyncConnection[Any], scan_id: int) -> bool:
    """The same for a scan whose shards are all done, if it was cut at all; the staged shard is nobody's."""
    numbers = await _lock_all(conn, scan_id)
    if len(numbers) == 1:
        return False
    staged = await _make_one_staged(conn, scan_id, numbers, numbers[0])
    await conn.execute("UPDATE scan_shard SET lane = NULL WHERE scan_id = %s AND number = %s", [scan_id, staged.number])
    return True


async def _lock_all(conn: AsyncConnection[Any], scan_id: int) -> list[int]:
    cursor = await conn.execute(
        "SELECT number FROM scan_shard WHERE scan_id = %s ORDER BY number FOR UPDATE", [scan_id]
    )
    return [number for (number,) in await cursor.fetchall()]


async def _make_one_staged(conn: AsyncConnection[Any], scan_id: int, numbers: list[int], kept: int) -> Shard:
    await _begin_anew(conn, scan_id, numbers)
    await conn.execute("DELETE FROM scan_shard WHERE scan_id = %s AND number <> %s", [scan_id, kept])
    await conn.execute("DELETE FROM scan_stage WHERE scan_id = %s", [scan_id])
    await conn.execute(
        "INSERT INTO scan_stage (scan_id, path, size_bytes, etag) VALUES (%s, %s, 0, '')", [scan_id, WHOLE]
    )
    cursor = conn.cursor(row_factory=class_row(Shard))
    await cursor.execute(
        """
        UPDATE scan_shard
        SET staged = true, after_path = NULL, until_path = NULL
        WHERE scan_id = %s AND number = %s
        RETURNING """
        + _COLUMNS,
        [scan_id, kept],
    )
    staged = await cursor.fetchone()
    assert staged is not None
    return staged


async def _begin_anew(conn: AsyncConnection[Any], scan_id: int, numbers: list[int]) -> None:
    """Take back what these shards counted and what they took for gone; they are at their beginning."""
    await conn.execute("DELETE FROM scan_candidate WHERE scan_id = %s AND shard = ANY(%s)", [scan_id, numbers])
    await conn.execute(
        """
        UPDATE scan
        SET listed = scan.listed - undone.listed, gone = scan.gone - undone.gone,
            kept_deleted = scan.kept_deleted - undone.kept_deleted, skipped = scan.skipped - undone.skipped
        FROM (
            SELECT sum(listed) AS listed, sum(gone) AS gone, sum(kept_deleted) AS kept_deleted, sum(skipped) AS skipped
            FROM scan_shard
            WHERE scan_id = %(scan_id)s AND number = ANY(%(numbers)s)
        ) AS undone
        WHERE scan.id = %(scan_id)s
        """,
        {"scan_id": scan_id, "numbers": numbers},
    )
    await conn.execute(
        """
        UPDATE scan_shard
        SET listed = 0, gone = 0, kept_deleted = 0, skipped = 0, cursor_path = NULL, first_path = NULL,
            beyond_path = NULL, done = false
        WHERE scan_id = %s AND number = ANY(%s)
        """,
        [scan_id, numbers],
    )


async def last_bounds(conn: AsyncConnection[Any], dataset_id: int) -> list[str]:
    """Where the last whole scan of a dataset was cut, without the cuts that made short ranges."""
    cursor = await conn.execute(
        """
        SELECT until_path, listed
        FROM scan_shard
        WHERE scan_id = (SELECT max(id) FROM scan WHERE dataset_id = %s AND state = 'done') AND NOT staged
        ORDER BY after_path NULLS FIRST
        """,
        [dataset_id],
    )
    bounds: list[str] = []
    gathered = 0
    for until, listed in await cursor.fetchall():
        gathered += listed
        if until is not None and gathered >= LEAST_PIECE:
            bounds.append(until)
            gathered = 0
    return bounds
