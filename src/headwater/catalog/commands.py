"""Commands: long work that somebody asked for, as the SDK polls it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog import news, rights
from headwater.catalog.accounts import Account
from headwater.errors import NotFound

CHANNEL = news.CHANNEL
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
    """Its id. Defer its job in the same transaction."""
    cursor = await conn.execute(
        """
        INSERT INTO command (project_id, dataset_id, kind, spec, creator_id)
        VALUES (%s, %s, %s, %s, %s)
        RETURNING id
        """,
        [project_id, dataset_id, kind, Jsonb(spec), creator_id],
    )
    row = await cursor.fetchone()
    assert row is not None
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


async def load_command(conn: AsyncConnection[Any], command_id: int) -> Command:
    """For our own jobs, which act for nobody. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Command))
    await cursor.execute("SELECT " + _COLUMNS + " FROM command WHERE id = %s", [command_id])
    command = await cursor.fetchone()
    if command is None:
        raise NotFound(f"No command with id {command_id:024x}.")
    return command


async def note_progress(
    conn: AsyncConnection[Any], command_id: int, *, progress_percent: float, spec: dict[str, Any]
) -> bool:
    """Set what is known now (`spec` is merged) and tell listeners at the commit. Progress never goes back.

    Returns whether somebody asked to abort.
    """
    cursor = await conn.execute(
        """
        UPDATE command
        SET status = 'in-progress', progress_percent = greatest(progress_percent, %s), spec = spec || %s,
            updated_at = clock_timestamp()
        WHERE id = %s AND status IN ('created', 'in-progress')
        RETURNING abort_requested
        """,
        [progress_percent, Jsonb(spec), command_id],
    )
    row = await cursor.fetchone()
    await announce(conn, command_id)
    return row is None or row[0]


async def end_command(
    conn: AsyncConnection[Any],
    command_id: int,
    status: str,
    *,
    spec: dict[str, Any] | None = None,
    warning: str | None = None,
    error: str | None = None,
) -> None:
    """Nothing happens to a command that has ended already."""
    await conn.execute(
        """
        UPDATE command
        SET status = %(status)s, spec = spec || %(spec)s, warning = %(warning)s, error = %(error)s,
            progress_percent = CASE WHEN %(status)s = 'success' THEN 100 ELSE progress_percent END,
            updated_at = clock_timestamp()
        WHERE id = %(id)s AND status IN ('created', 'in-progress')
        """,
        {"status": status, "spec": Jsonb(spec or {}), "warning": warning, "error": error, "id": command_id},
    )
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
