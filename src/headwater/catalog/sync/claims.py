"""Claims: who looks into which hints.

Who takes hints holds a claim on them for a while, and no lock: a hint that comes meanwhile joins its row, which then
stays when the claim is settled. A claim that somebody else took over settles nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 300.0
_KEPT_S = 3 * 24 * 3600  # while they cannot be applied


@dataclass(frozen=True, slots=True)
class Taken:
    """A hint that somebody looks into."""

    key: str
    content: str | None
    attempts: int  # this one included
    version: int
    claim: int


@dataclass(frozen=True, slots=True)
class Bundle:
    taken: list[Taken]
    taken_at: datetime  # by the database's clock: before anybody looked


async def due_drivers(conn: AsyncConnection[Any]) -> list[int]:
    """Whose events are on and who have hints to be looked into now; who waited longest comes first."""
    cursor = await conn.execute(
        """
        SELECT driver_events.driver_id
        FROM driver_events
        CROSS JOIN LATERAL (
            SELECT not_before FROM hint WHERE hint.driver_id = driver_events.driver_id ORDER BY not_before LIMIT 1
        ) AS first
        WHERE driver_events.is_on AND driver_events.not_before <= clock_timestamp()
            AND first.not_before <= clock_timestamp()
        ORDER BY first.not_before
        """
    )
    return [driver_id for (driver_id,) in await cursor.fetchall()]


async def next_due_in_s(conn: AsyncConnection[Any]) -> float | None:
    """When the next hint may be looked into; negative for one that may already. None: there is none."""
    cursor = await conn.execute(
        """
        SELECT extract(epoch FROM min(greatest(driver_events.not_before, first.not_before)) - clock_timestamp())
        FROM driver_events
        CROSS JOIN LATERAL (
            SELECT not_before FROM hint WHERE hint.driver_id = driver_events.driver_id ORDER BY not_before LIMIT 1
        ) AS first
        WHERE driver_events.is_on
        """
    )
    row = await cursor.fetchone()
    return None if row is None or row[0] is None else float(row[0])


async def take(conn: AsyncConnection[Any], driver_id: int, *, limit: int, lease_s: float) -> Bundle:
    """Some hints of a driver, those that waited longest first; nobody else takes them for so long.

    None while its events are off, or its store is left alone.
    """
    cursor = conn.cursor(row_factory=class_row(Taken))
    await cursor.execute(
        """
        UPDATE hint
        SET claim = claim + 1, attempts = attempts + 1,
            not_before = clock_timestamp() + make_interval(secs => %(lease_s)s)
        WHERE driver_id = %(driver_id)s AND key = ANY (ARRAY (
            SELECT key
            FROM hint
            WHERE driver_id = %(driver_id)s AND not_before <= clock_timestamp()
                AND EXISTS (
                    SELECT
                    FROM driver_events
                    WHERE driver_id = %(driver_id)s AND is_on AND not_before <= clock_timestamp()
                )
            ORDER BY not_before
            LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING key, content, attempts, version, claim
        """,
        {"driver_id": driver_id, "limit": limit, "lease_s": lease_s},
    )
    taken = await cursor.fetchall()
    clock = await (await conn.execute("SELECT clock_timestamp()")).fetchone()
    assert clock is not None
    return Bundle(sorted(taken, key=lambda hint: hint.key), clock[0])


async def hold(conn: AsyncConnection[Any], driver_id: int, taken: Sequence[Taken]) -> set[str]:
    """Keys that nobody else took over; until the end of the transaction nobody does. In the order of keys."""
    cursor = await conn.execute(
        """
        SELECT hint.key
        FROM hint
        JOIN unnest(%s::text[], %s::bigint[]) AS ours (key, claim) ON ours.key = hint.key AND ours.claim = hint.claim
        WHERE hint.driver_id = %s
        ORDER BY hint.key
        FOR UPDATE OF hint
        """,
        [[hint.key for hint in taken], [hint.claim for hint in taken], driver_id],
    )
    return {key for (key,) in await cursor.fetchall()}


async def settle(conn: AsyncConnection[Any], driver_id: int, taken: Sequence[Taken], *, looked_at: int) -> None:
    """They are done with. One that was told of again meanwhile stays, to be looked into at once.

    `looked_at`: how many requests to the store the whole bundle took.
    """
    keys = [hint.key for hint in taken]
    cursor = await conn.execute(
        """
        WITH ours AS (
            SELECT hint.key, ours.version = hint.version AS is_done
            FROM hint
            JOIN unnest(%(keys)s::text[], %(claims)s::bigint[], %(versions)s::bigint[]) AS ours (key, claim, version)
                ON ours.key = hint.key AND ours.claim = hint.claim
            WHERE hint.driver_id = %(driver_id)s
            ORDER BY hint.key
            FOR UPDATE OF hint
        ), done AS (
            DELETE FROM hint
            USING ours
            WHERE hint.driver_id = %(driver_id)s AND hint.key = ours.key AND ours.is_done
            RETURNING hint.key
        ), again AS (
            UPDATE hint
            SET not_before = clock_timestamp(), attempts = 0, error = NULL
            FROM ours
            WHERE hint.driver_id = %(driver_id)s AND hint.key = ours.key AND NOT ours.is_done
        )
        SELECT count(*) FROM done
        """,
        {
            "keys": keys,
            "claims": [hint.claim for hint in taken],
            "versions": [hint.version for hint in taken],
            "driver_id": driver_id,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    await conn.execute(
        "UPDATE driver_events SET applied = applied + %s, looked_at = looked_at + %s WHERE driver_id = %s",
        [row[0], looked_at, driver_id],
    )


async def put_off(
    conn: AsyncConnection[Any], driver_id: int, taken: Sequence[Taken], *, pause_s: float, error: str | None
) -> None:
    """Let somebody look into them again after a pause."""
    await conn.execute(
        """
        UPDATE hint
        SET not_before = clock_timestamp() + make_interval(secs => %(pause_s)s), error = %(error)s
        FROM (
            SELECT hint.key
            FROM hint
            JOIN unnest(%(keys)s::text[], %(claims)s::bigint[]) AS given (key, claim)
                ON given.key = hint.key AND given.claim = hint.claim
            WHERE hint.driver_id = %(driver_id)s
            ORDER BY hint.key
            FOR UPDATE OF hint
        ) AS ours
        WHERE hint.driver_id = %(driver_id)s AND hint.key = ours.key
        """,
        {
            "pause_s": pause_s,
            "error": error,
            "keys": [hint.key for hint in taken],
            "claims": [hint.claim for hint in taken],
            "driver_id": driver_id,
        },
    )


async def note_answered(conn: AsyncConnection[Any], driver_id: int) -> None:
    """The driver's store answers: it is no longer left alone."""
    await conn.execute(
        "UPDATE driver_events SET failures = 0, error = NULL WHERE driver_id = %s AND failures > 0", [driver_id]
    )


async def leave_alone(conn: AsyncConnection[Any], driver_id: int, error: str) -> int:
    """The driver's store does not answer: nobody asks it for a while, longer each time. Returns how often in a row."""
    cursor = await conn.execute(
        """
        UPDATE driver_events
        SET failures = failures + 1, error = %(error)s,
            not_before = clock_timestamp() + make_interval(
                secs => least(%(longest_s)s, %(first_s)s * 2 ^ least(failures, 20))
            )
        WHERE driver_id = %(driver_id)s
        RETURNING failures
        """,
        {"driver_id": driver_id, "error": error, "first_s": _FIRST_PAUSE_S, "longest_s": _LONGEST_PAUSE_S},
    )
    row = await cursor.fetchone()
    return 0 if row is None else row[0]


def pause_s(attempts: int) -> float:
    """How long a hint waits that could not be applied so often."""
    return min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(attempts, 20))


async def drop_oldest(conn: AsyncConnection[Any]) -> int:
    """Give up hints that could not be applied for days; a scan finds what they told of. Returns how many."""
    cursor = await conn.execute(
        """
        WITH dropped AS (
            DELETE FROM hint
            WHERE (driver_id, key) IN (
                SELECT driver_id, key
                FROM hint
                WHERE received_at < now() - make_interval(secs => %s) AND attempts > 3
                ORDER BY driver_id, key
                LIMIT 10000
                FOR UPDATE SKIP LOCKED
            )
            RETURNING driver_id
        ), counted AS (
            UPDATE driver_events
            SET dropped = dropped + per_driver.hints
            FROM (SELECT driver_id, count(*) AS hints FROM dropped GROUP BY driver_id) AS per_driver
            WHERE driver_events.driver_id = per_driver.driver_id
        )
        SELECT count(*) FROM dropped
        """,
        [_KEPT_S],
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]
