"""Quotas: how many data points an organisation may have, and who may add some now.

Every row of `item` is a data point, hidden ones and ghosts as well, until its dataset is deleted; `dataset_counter`
counts them, nothing else does. An upload that was let in holds a place (`quota_hold`) until its row commits, so that it
is refused before its bytes are sent, or never.

Exact beside any number of writers: whoever adds items calls `lock_room` first, in the transaction that adds them.
Where there is a limit they take turns up to their commit, so what is counted in one's turn is all there is. Who makes
use of a place needs no turn: one place less and one item more commit together. Whoever changes the limit waits for
everybody under way.

These locks come before those of folders, items, scans, counters and commands, and after an upload's path.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import LockNotAvailable
from psycopg.rows import class_row

from headwater.catalog import news, notices
from headwater.errors import QuotaExceeded, Unavailable

WARN_PERCENT = (80, 95, 100)
_LIMIT_LOCK_CLASS = 0x9A01  # shared: the limit stays as it is
_TURN_LOCK_CLASS = 0x9A02  # who adds to an organisation with a limit
_PATIENCE_MS = 5_000  # who adds waits behind who sets the limit
_HOLD_S = 3600  # places of uploads that take longer are theirs while nobody else needs them


@dataclass(frozen=True, slots=True)
class Room:
    """How full an organisation with a limit is."""

    organization_id: int
    organization_name: str
    limit: int
    used: int
    held: int  # by uploads under way

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used - self.held)

    def exceeded(self, needs: int, *, at_least: bool = False) -> QuotaExceeded:
        """`at_least`: more may be needed, which was not looked at."""
        points = "data point" if needs == 1 else "data points"
        return QuotaExceeded(
            f"This needs {'at least ' if at_least else ''}{needs:,} more {points}; {self.left:,} of {self.limit:,} of "
            f"organisation {self.organization_name!r} are left. Delete items, or ask the operator for more (headwater "
            f"quota set {shlex.quote(self.organization_name)} NUMBER). Then run the same again: it goes on from there."
        )


async def lock_room(conn: AsyncConnection[Any], dataset_id: int) -> Room | None:
    """How full the dataset's organisation is; None without a limit.

    Until the end of the transaction the limit stays, and where there is one nobody else adds.
    """
    cursor = await conn.execute(
        """
        SELECT project.organization_id, pg_advisory_xact_lock_shared(%s, (project.organization_id %% 2147483647)::int)
        FROM dataset
        JOIN project ON project.id = dataset.project_id
        WHERE dataset.id = %s
        """,
        [_LIMIT_LOCK_CLASS, dataset_id],
    )
    row = await cursor.fetchone()
    if row is None:  # its dataset is being purged
        return None
    cursor = await conn.execute(
        """
        SELECT pg_advisory_xact_lock(%s, (id %% 2147483647)::int)
        FROM organization
        WHERE id = %s AND data_point_limit IS NOT NULL
        """,
        [_TURN_LOCK_CLASS, row[0]],
    )
    if await cursor.fetchone() is None:
        return None
    await _forget_lost_holds(conn, row[0])
    return await _load_room(conn, row[0])


async def _forget_lost_holds(conn: AsyncConnection[Any], organization_id: int) -> None:
    """Places that a crash left. One that is locked is about to become an item: it counts until then."""
    await conn.execute(
        """
        DELETE FROM quota_hold
        WHERE id IN (
            SELECT id FROM quota_hold WHERE organization_id = %s AND expires_at < now() FOR UPDATE SKIP LOCKED
        )
        """,
        [organization_id],
    )


async def _load_room(conn: AsyncConnection[Any], organization_id: int) -> Room | None:
    """In one statement, because a place becomes an item in one commit."""
    cursor = conn.cursor(row_factory=class_row(Room))
    await cursor.execute(
        """
        SELECT
            id AS organization_id, name AS organization_name, data_point_limit AS limit,
            (
                SELECT coalesce(sum(counter.items), 0)::bigint
                FROM project
                JOIN dataset ON dataset.project_id = project.id AND dataset.deleted_at IS NULL
                JOIN dataset_counter AS counter ON counter.dataset_id = dataset.id
                WHERE project.organization_id = organization.id AND project.deleted_at IS NULL
            ) AS used,
            (SELECT count(*) FROM quota_hold WHERE quota_hold.organization_id = organization.id) AS held
        FROM organization
        WHERE id = %s AND data_point_limit IS NOT NULL
        """,
        [organization_id],
    )
    return await cursor.fetchone()


async def take_room(conn: AsyncConnection[Any], room: Room, needs: int) -> None:
    """Let so many items in, which are added in this transaction; listeners are told of a threshold that is crossed.

    Raises QuotaExceeded.
    """
    if needs > room.left:
        raise room.exceeded(needs)
    taken = room.used + room.held
    await _announce_crossing(conn, room.organization_id, (taken, room.limit), (taken + needs, room.limit))


async def hold_place(conn: AsyncConnection[Any], dataset_id: int, *, for_s: int = _HOLD_S) -> int | None:
    """A place for one item to come, once this commits; None where there is no limit. Raises QuotaExceeded."""
    held = await hold_places(conn, dataset_id, 1, for_s=for_s)
    if held.refused is not None:
        raise held.refused
    return held.ids[0]


@dataclass(frozen=True, slots=True)
class Held:
    ids: list[int | None]  # a place for each, None where there is no limit
    refused: QuotaExceeded | None  # for those that there is no place for


async def hold_places(conn: AsyncConnection[Any], dataset_id: int, needs: int, *, for_s: int = _HOLD_S) -> Held:
    """Places for items to come, once this commits: for as many as there is room for."""
    room = await lock_room(conn, dataset_id) if needs else None
    if room is None:
        return Held([None] * needs, None)
    fitting = min(needs, room.left)
    await take_room(conn, room, fitting)
    cursor = await conn.execute(
        """
        INSERT INTO quota_hold (organization_id, expires_at)
        SELECT %s, now() + make_interval(secs => %s) FROM generate_series(1, %s)
        RETURNING id
        """,
        [room.organization_id, for_s, fitting],
    )
    ids = [hold_id for (hold_id,) in await cursor.fetchall()]
    return Held([*ids], room.exceeded(needs) if fitting < needs else None)


async def use_place(conn: AsyncConnection[Any], dataset_id: int, hold_id: int | None) -> None:
    """Make the place an item in this transaction; without one, or when others took it, find room for it.

    Raises QuotaExceeded.
    """
    await use_places(conn, dataset_id, [] if hold_id is None else [hold_id], needs=1)


async def use_places(conn: AsyncConnection[Any], dataset_id: int, hold_ids: Sequence[int], *, needs: int) -> None:
    """Give up the places, and let so many items in, which are added in this transaction. Raises QuotaExceeded."""
    cursor = await conn.execute("SELECT id FROM quota_hold WHERE id = ANY(%s) FOR UPDATE", [list(hold_ids)])
    missing = needs - len(await cursor.fetchall())
    # Before the places go: the items they become are not counted yet.
    if missing > 0 and (room := await lock_room(conn, dataset_id)) is not None:
        await take_room(conn, room, missing)
    await release_places(conn, hold_ids)


async def release_place(conn: AsyncConnection[Any], hold_id: int) -> bool:
    """False when it was gone already."""
    return bool(await release_places(conn, [hold_id]))


async def release_places(conn: AsyncConnection[Any], hold_ids: Sequence[int]) -> int:
    """How many there still were."""
    if not hold_ids:
        return 0
    cursor = await conn.execute("DELETE FROM quota_hold WHERE id = ANY(%s)", [list(hold_ids)])
    return cursor.rowcount


async def set_limit(conn: AsyncConnection[Any], organization_id: int, limit: int | None) -> int | None:
    """None is unlimited; one below what is used deletes nothing. Returns the limit before.

    Raises Unavailable when somebody who adds items does not come to an end.
    """
    await conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{_PATIENCE_MS}ms"])
    try:
        await conn.execute(
            "SELECT pg_advisory_xact_lock(%s, (%s::bigint %% 2147483647)::int)", [_LIMIT_LOCK_CLASS, organization_id]
        )
    except LockNotAvailable:
        raise Unavailable("Items are being added just now, and take their time. Set the quota again.") from None
    before = await _load_room(conn, organization_id)
    await conn.execute(
        "UPDATE organization SET data_point_limit = %s, updated_at = now() WHERE id = %s", [limit, organization_id]
    )
    now = await _load_room(conn, organization_id)
    if now is not None:
        taken = now.used + now.held
        await _announce_crossing(
            conn, organization_id, (taken, None if before is None else before.limit), (taken, now.limit)
        )
    return None if before is None else before.limit


def reached_percent(taken: int, limit: int | None) -> int:
    """The highest threshold that is reached; 0 for none."""
    return 0 if limit is None else max((part for part in WARN_PERCENT if 100 * taken >= part * limit), default=0)


async def _announce_crossing(
    conn: AsyncConnection[Any], organization_id: int, before: tuple[int, int | None], now: tuple[int, int | None]
) -> None:
    """Tell owners, when this transaction commits, that another threshold is reached."""
    percent = reached_percent(*now)
    if percent <= reached_percent(*before):
        return
    taken, limit = now
    await news.announce(conn, "quota", organization_id)
    await notices.tell_owners(
        conn,
        organization_id,
        "warning",
        f"{percent} % of the data points are in use",
        f"{taken:,} of {limit:,}. At the limit, syncs and uploads stop. Which datasets have them: headwater quota",
    )


@dataclass(frozen=True, slots=True)
class DatasetUse:
    id: int
    name: str
    used: int


@dataclass(frozen=True, slots=True)
class ProjectUse:
    id: int
    name: str
    datasets: list[DatasetUse] = field(default_factory=list)

    @property
    def used(self) -> int:
        return sum(dataset.used for dataset in self.datasets)


@dataclass(frozen=True, slots=True)
class Quota:
    limit: int | None
    held: int
    projects: list[ProjectUse]

    @property
    def used(self) -> int:
        return sum(project.used for project in self.projects)

    @property
    def left(self) -> int | None:
        return None if self.limit is None else max(0, self.limit - self.used - self.held)


async def load_quota(conn: AsyncConnection[Any], organization_id: int) -> Quota:
    room = await _load_room(conn, organization_id)
    projects = await _uses(conn, organization_id=organization_id)
    return Quota(room.limit if room else None, room.held if room else 0, projects)


async def load_use(conn: AsyncConnection[Any], project_id: int) -> ProjectUse:
    """Of a project that is there."""
    return (await _uses(conn, project_id=project_id))[0]


async def _uses(
    conn: AsyncConnection[Any], *, organization_id: int | None = None, project_id: int | None = None
) -> list[ProjectUse]:
    """In the order of ids; projects and datasets that have none as well."""
    cursor = await conn.execute(
        """
        SELECT project.id, project.name, dataset.id, dataset.name, counter.items, dataset.is_system
        FROM project
        LEFT JOIN dataset ON dataset.project_id = project.id AND dataset.deleted_at IS NULL
        LEFT JOIN dataset_counter AS counter ON counter.dataset_id = dataset.id
        WHERE project.deleted_at IS NULL AND (project.organization_id = %s OR project.id = %s)
        ORDER BY project.id, dataset.id
        """,
        [organization_id, project_id],
    )
    found: dict[int, ProjectUse] = {}
    for found_id, project_name, dataset_id, dataset_name, used, is_system in await cursor.fetchall():
        project = found.setdefault(found_id, ProjectUse(found_id, project_name))
        if dataset_id is not None and (used or not is_system):
            project.datasets.append(DatasetUse(dataset_id, dataset_name, used))
    return list(found.values())
