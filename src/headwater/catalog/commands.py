"""Commands: long work that somebody asked for, as the SDK polls it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog import news, outcomes, rights
from headwater.catalog.accounts import Account
from headwater.errors import NotFound

CHANNEL = news.CHANNEL
_PATIENCE = 10  # so many times longer one may wait for its beginning
ENDED = ("success", "failed", "canceled", "aborted", "timeout")


@dataclass(frozen=True, slots=True)
class Command:
    id: int
    project_id: int
    dataset_id: int | None
    kind: str
    status: str
    progress_percent: float
    spec: dict[str, Any]
    warning: str | None
    error: str | None
    abort_requested: bool
    created_at: datetime
    updated_at: datetime

    @property
    def has_ended(self) -> bool:
        return self.status in ENDED


_COLUMNS = """
    command.id, command.project_id, command.dataset_id, command.kind, command.status, command.progress_percent,
    command.spec, command.warning, command.error, command.abort_requested, command.created_at, command.updated_at
"""

_VISIBLE = (
    "SELECT "
    + _COLUMNS
    + """,
    CASE WHEN member.role IN ('owner', 'admin') THEN 'owner' ELSE project_member.role END AS role
FROM command
JOIN project ON project.id = command.project_id
LEFT JOIN member
    ON member.organization_id = project.organization_id AND member.account_id = %(account_id)s
LEFT JOIN project_member
    ON project_member.project_id = project.id AND project_member.account_id = %(account_id)s
WHERE project.deleted_at IS NULL
    AND (member.role IN ('owner', 'admin') OR project_member.role IS NOT NULL)
"""
)


@dataclass(frozen=True, slots=True)
class VisibleCommand(Command):
    role: rights.Role  # of the account that asked, in the project


async def start_command(
    conn: AsyncConnection[Any],
    *,
    project_id: int,
    dataset_id: int | None,
    kind: str,
    spec: dict[str, Any],
    creator_id: int | None,
) -> int:
    """Its id. Defer its job in the same transaction. Members hear of it, unless it runs by itself (no creator)."""
    cursor = await conn.execute(
        """
        INSERT INTO command (project_id, dataset_id, kind, spec, creator_id)
        VALUES (%s, %s, %s, %s, %s)
        RETURNING id, (SELECT name FROM dataset WHERE dataset.id = command.dataset_id)
        """,
        [project_id, dataset_id, kind, Jsonb(spec), creator_id],
    )
    row = await cursor.fetchone()
    assert row is not None
    await outcomes.tell_started(conn, outcomes.Subject(row[0], project_id, dataset_id, kind, creator_id, row[1]))
    return row[0]


async def get_command(
    conn: AsyncConnection[Any], caller: Account, command_id: int, right: rights.Right = "read"
) -> Command:
    """Raises NotFound, Forbidden."""
    cursor = conn.cursor(row_factory=class_row(VisibleCommand))
    await cursor.execute(
        _VISIBLE + "AND command.id = %(command_id)s", {"account_id": caller.id, "command_id": command_id}
    )
    command = await cursor.fetchone()
    if command is None:
        raise NotFound(f"No command with id {command_id:024x}.")
    rights.require(command.role, right)
    return command


async def list_commands(conn: AsyncConnection[Any], caller: Account, *, limit: int = 100) -> list[VisibleCommand]:
    """The newest first."""
    cursor = conn.cursor(row_factory=class_row(VisibleCommand))
    await cursor.execute(
        _VISIBLE + "ORDER BY command.id DESC LIMIT %(limit)s", {"account_id": caller.id, "limit": limit}
    )
    return await cursor.fetchall()


_RIGHTS_TO_START: dict[str, rights.Right] = {
    "SyncDataset": "sync",
    "VerifyDataset": "sync",
    "CloneDataset": "manage_datasets",
    "MergeDatasets": "manage_datasets",
    "ExportDatasetAsJson": "read",
    "ExportDatasetAsZip": "read",
    "ExportDataset": "read",
}


def right_to_abort(command: Command) -> rights.Right:
    """Who might have started it may end it."""
    return _RIGHTS_TO_START.get(command.kind, "write_items")


async def load_command(conn: AsyncConnection[Any], command_id: int) -> Command:
    """For our own jobs, which act for nobody. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Command))
    await cursor.execute("SELECT " + _COLUMNS + " FROM command WHERE id = %s", [command_id])
    command = await cursor.fetchone()
    if command is None:
        raise NotFound(f"No command with id {command_id:024x}.")
    return command


async def lock_command(conn: AsyncConnection[Any], command_id: int) -> Command | None:
    """As it is now, and nobody else changes it before this transaction ends; for work whose cursor is its `spec`."""
    cursor = conn.cursor(row_factory=class_row(Command))
    await cursor.execute("SELECT " + _COLUMNS + " FROM command WHERE id = %s FOR UPDATE", [command_id])
    return await cursor.fetchone()


async def wait_for_all(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Until what its commands have under way is committed. Of a deleted dataset, none begins anything after."""
    await conn.execute("SELECT FROM command WHERE dataset_id = %s ORDER BY id FOR UPDATE", [dataset_id])


async def note_progress(
    conn: AsyncConnection[Any], command_id: int, *, progress_percent: float, spec: dict[str, Any]
) -> bool:
    """Set what is known now (`spec` is merged) and tell listeners at the commit. Progress never goes back.

    Returns whether somebody asked to abort.
    """
    cursor = await conn.execute(
        """
        UPDATE command
        SET status = 'in-progress', progress_percent = greatest(command.progress_percent, %(percent)s),
            spec = (command.spec || %(spec)s) - 'stalledSince' - 'trouble', updated_at = clock_timestamp()
        FROM (
            SELECT id, spec ? 'stalledSince' AS stalled
            FROM command
            WHERE id = %(id)s AND status IN ('created', 'in-progress')
            FOR UPDATE
        ) AS before
        WHERE command.id = before.id
        RETURNING command.abort_requested, before.stalled
        """,
        {"percent": progress_percent, "spec": Jsonb(spec), "id": command_id},
    )
    abort_requested, was_stalled = await cursor.fetchone() or (True, False)
    if was_stalled:
        await outcomes.tell_resumed(conn, await _subject(conn, command_id))
    await announce(conn, command_id)
    return abort_requested


async def note_trouble(conn: AsyncConnection[Any], command_id: int, trouble: str) -> None:
    """Why it does not go on just now: said when it stalls, and forgotten when it makes progress."""
    await conn.execute(
        "UPDATE command SET spec = spec || %s WHERE id = %s AND status IN ('created', 'in-progress')",
        [Jsonb({"trouble": trouble}), command_id],
    )
    await announce(conn, command_id)


async def mark_stalled(conn: AsyncConnection[Any], *, after: timedelta) -> list[int]:
    """Those that made no progress for `after`: they say since when, and members hear of it. Returns them.

    One that waits for its beginning has more patience. Any number of workers may look at once.
    """
    cursor = await conn.execute(
        """
        UPDATE command
        SET spec = command.spec || jsonb_build_object(
            'stalledSince', to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
        )
        WHERE id IN (
            SELECT id FROM command
            WHERE status IN ('created', 'in-progress') AND NOT spec ? 'stalledSince'
                AND updated_at < now()
                    - CASE WHEN status = 'created' AND NOT spec ? 'trouble' THEN %(patience)s ELSE %(after)s END
            ORDER BY id
            LIMIT 100
            FOR UPDATE SKIP LOCKED
        )
        RETURNING id, status, now() - updated_at, spec ->> 'trouble', (
            SELECT max(scan_shard.cursor_path)
            FROM scan
            JOIN scan_shard ON scan_shard.scan_id = scan.id
            WHERE scan.command_id = command.id
        )
        """,
        {"after": after, "patience": _PATIENCE * after},
    )
    found = sorted(await cursor.fetchall())
    for command_id, status, silent_for, trouble, reached in found:
        message = _stall(status, silent_for, trouble, reached)
        await outcomes.tell_stalled(conn, await _subject(conn, command_id), message)
        await announce(conn, command_id)
    return [row[0] for row in found]


def _stall(status: str, silent_for: timedelta, trouble: str | None, reached: str | None) -> str:
    since = f"{silent_for.total_seconds():.0f} s"
    if trouble is not None:
        return f"Nothing came of it for {since}. It tries again; the last time: {trouble}"
    if status == "created":
        return f"It waits for a worker since {since}: all are busy, or none runs. See: headwater doctor"
    return f"Nothing came of it for {since}." + (f" It had come as far as {reached!r}." if reached else "")


async def _subject(conn: AsyncConnection[Any], command_id: int) -> outcomes.Subject:
    """Of a command that is there."""
    cursor = await conn.execute(
        """
        SELECT command.project_id, command.dataset_id, command.kind, command.creator_id, dataset.name
        FROM command
        LEFT JOIN dataset ON dataset.id = command.dataset_id
        WHERE command.id = %s
        """,
        [command_id],
    )
    row = await cursor.fetchone()
    assert row is not None
    return outcomes.Subject(command_id, *row)


async def end_command(
    conn: AsyncConnection[Any],
    command_id: int,
    status: str,
    *,
    spec: dict[str, Any] | None = None,
    warning: str | None = None,
    error: str | None = None,
) -> None:
    """Members hear of it. Nothing happens to a command that has ended already."""
    cursor = await conn.execute(
        """
        UPDATE command
        SET status = %(status)s, spec = (spec || %(spec)s) - 'stalledSince' - 'trouble',
            warning = %(warning)s, error = %(error)s,
            progress_percent = CASE WHEN %(status)s = 'success' THEN 100 ELSE progress_percent END,
            updated_at = clock_timestamp()
        WHERE id = %(id)s AND status IN ('created', 'in-progress')
        RETURNING spec, updated_at - created_at
        """,
        {"status": status, "spec": Jsonb(spec or {}), "warning": warning, "error": error, "id": command_id},
    )
    row = await cursor.fetchone()
    if row is not None:
        subject = await _subject(conn, command_id)
        await outcomes.tell_ended(conn, subject, status, spec=row[0], warning=warning, error=error, took=row[1])
    await announce(conn, command_id)


async def reopen_command(conn: AsyncConnection[Any], command_id: int) -> None:
    """One that ended before its work did goes on, and members hear of it. Defer its job in the same transaction."""
    cursor = await conn.execute(
        """
        UPDATE command
        SET status = 'created', abort_requested = false, error = NULL, warning = NULL, updated_at = clock_timestamp()
        WHERE id = %s AND status NOT IN ('created', 'in-progress', 'success')
        """,
        [command_id],
    )
    if cursor.rowcount:
        await outcomes.tell_resumed(conn, await _subject(conn, command_id))
        await announce(conn, command_id)


async def request_abort(conn: AsyncConnection[Any], command_id: int) -> None:
    await conn.execute(
        "UPDATE command SET abort_requested = true WHERE id = %s AND status IN ('created', 'in-progress')",
        [command_id],
    )


async def is_abort_requested(conn: AsyncConnection[Any], command_id: int) -> bool:
    """Whoever deletes a dataset wants no more work on it either."""
    cursor = await conn.execute(
        """
        SELECT command.abort_requested OR dataset.deleted_at IS NOT NULL
        FROM command
        LEFT JOIN dataset ON dataset.id = command.dataset_id
        WHERE command.id = %s
        """,
        [command_id],
    )
    row = await cursor.fetchone()
    return row is None or row[0]


async def announce(conn: AsyncConnection[Any], command_id: int) -> None:
    """Tell listeners, when this transaction commits, that the command has news."""
    await news.announce(conn, "command", command_id)


async def announce_dataset(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Tell listeners, when this transaction commits, that the dataset's counters have news."""
    await news.announce(conn, "dataset", dataset_id)
