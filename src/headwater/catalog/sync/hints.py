"""Hints: what buckets say happened to their keys. A durable inbox of "look at this key now", one row a key.

Deliveries come at least once, in any order, again and again; some never come. So a hint says only which key to look at.
What it says of the object is used for nothing but to find that the index knows it already. Who looks: see claims.py.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import AsyncConnection

from headwater.catalog.sync import upstream

CHANNEL = "headwater_hint"
_LARGEST_KEY_BYTES = 1024  # as in storage/stores.py
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")

Action = Literal["written", "removed", "unknown"]


@dataclass(frozen=True, slots=True)
class Hint:
    key: str  # as the bucket has it, decoded, the driver's prefix included
    action: Action
    sequencer: str | None = None  # hexadecimal; grows with the changes of one key
    happened_at: datetime | None = None
    bucket: str | None = None  # where the envelope names it
    etag: str | None = None  # of the object that was written, without quotes
    size_bytes: int | None = None

    @property
    def content(self) -> str | None:
        """What the object was, as it is compared with a row; None when only the bucket can tell."""
        return f"{self.size_bytes}:{self.etag}" if self.etag and self.size_bytes is not None else None


@dataclass(frozen=True, slots=True)
class TakenIn:
    kept: int  # keys to look at
    ignored: int  # of other kinds, buckets or folders, of our own files, or of keys that no index can hold


async def take_in(
    conn: AsyncConnection[Any], driver_id: int, hints: Sequence[Hint], *, ignored: int = 0, needs_scan: bool = False
) -> TakenIn:
    """Keep hints until they are applied; workers wake when this commits. Safe to repeat, and side by side.

    `ignored`: events that the reader left out itself; `needs_scan`: one of them can only be followed by a scan.
    Whether the driver's events are on is the caller's question.
    """
    rows = _collapsed(hint for hint in hints if _is_usable(hint))
    kept = await _keep(conn, driver_id, rows) if rows else 0
    usable = sum(row.hints for row in rows)
    ignored += len(hints) - usable + (len(rows) - kept)
    await conn.execute(
        """
        INSERT INTO driver_events AS known (driver_id, last_event_at, last_happened_at, received, ignored)
        SELECT id, clock_timestamp(), %(happened_at)s, %(kept)s, %(ignored)s
        FROM driver
        WHERE id = %(driver_id)s
        ON CONFLICT (driver_id) DO UPDATE
        SET last_event_at = excluded.last_event_at,
            last_happened_at = greatest(known.last_happened_at, excluded.last_happened_at),
            received = known.received + excluded.received, ignored = known.ignored + excluded.ignored
        """,
        {
            "driver_id": driver_id,
            "happened_at": _newest(hints),
            "kept": kept,
            "ignored": ignored,
        },
    )
    if needs_scan:
        await upstream.want_scans(conn, driver_id)
    if kept or needs_scan:
        await conn.execute("SELECT pg_notify(%s, '')", [CHANNEL])
    return TakenIn(kept, ignored)


def _newest(hints: Sequence[Hint]) -> datetime | None:
    """When the last of them happened; a clock that is ahead counts as ours."""
    now = datetime.now(UTC)
    return max((min(hint.happened_at, now) for hint in hints if hint.happened_at), default=None)


def is_storable(text: str) -> bool:
    """Whether PostgreSQL can hold it: without NUL and lone surrogates."""
    return _UNSTORABLE.search(text) is None


def _is_usable(hint: Hint) -> bool:
    """What can stand in an index, and is not too long."""
    if not hint.key or not is_storable(hint.key) or not is_storable(hint.bucket or ""):
        return False
    return len(hint.key.encode()) <= _LARGEST_KEY_BYTES


@dataclass(slots=True)
class _Row:
    key: str
    bucket: str | None
    content: str | None
    sequencer: str | None
    hints: int = 1

    def join(self, other: "_Row") -> None:
        """The content of the newer one; none where nobody can tell which that is. `_keep` has the same rule."""
        if self.content != other.content:
            if self.sequencer is None or other.sequencer is None or self.sequencer == other.sequencer:
                self.content = None
            elif other.sequencer > self.sequencer:
                self.content = other.content
        both = self.sequencer is not None and other.sequencer is not None
        self.sequencer = max(self.sequencer or "", other.sequencer or "") if both else None
        self.hints += other.hints


def _collapsed(hints: Iterable[Hint]) -> list[_Row]:
    """One a key, in the order of keys: transactions that meet wait for one another, never for ever."""
    rows: dict[tuple[str, str], _Row] = {}
    for hint in hints:
        sequencer = hint.sequencer and hint.sequencer.lower().rjust(64, "0")
        row = _Row(hint.key, hint.bucket, hint.content, sequencer or None)
        if (known := rows.setdefault((hint.key, hint.bucket or ""), row)) is not row:
            known.join(row)
    return [row for _, row in sorted(rows.items())]


async def _keep(conn: AsyncConnection[Any], driver_id: int, rows: Sequence[_Row]) -> int:
    """Returns how many were of the driver's own bucket and folder, and not of our hidden one."""
    cursor = await conn.execute(
        """
        INSERT INTO hint AS known (driver_id, key, content, sequencer)
        SELECT DISTINCT ON (new.key COLLATE "C") driver.id, new.key, new.content, new.sequencer
        FROM driver
        CROSS JOIN unnest(%(keys)s::text[], %(buckets)s::text[], %(contents)s::text[], %(sequencers)s::text[])
            AS new (key, bucket, content, sequencer)
        WHERE driver.id = %(driver_id)s
            AND starts_with(new.key, driver.prefix) AND new.key <> driver.prefix
            AND NOT starts_with(new.key, driver.prefix || '.dataloop/')
            AND (
                coalesce(new.bucket, driver.root) = driver.root
                OR driver.root LIKE 'arn:%%' OR driver.root LIKE '%%-s3alias' -- an access point has another name
            )
        ORDER BY new.key COLLATE "C"
        ON CONFLICT (driver_id, key) DO UPDATE
        SET content = CASE
                WHEN excluded.content = known.content OR excluded.sequencer < known.sequencer THEN known.content
                WHEN excluded.sequencer > known.sequencer THEN excluded.content
            END,
            sequencer = CASE
                WHEN known.sequencer IS NOT NULL AND excluded.sequencer IS NOT NULL
                THEN greatest(known.sequencer, excluded.sequencer)
            END,
            version = known.version + 1
        """,
        {
            "driver_id": driver_id,
            "keys": [row.key for row in rows],
            "buckets": [row.bucket for row in rows],
            "contents": [row.content for row in rows],
            "sequencers": [row.sequencer for row in rows],
        },
    )
    return cursor.rowcount
