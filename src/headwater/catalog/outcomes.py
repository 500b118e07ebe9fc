"""Outcomes: what people are told of a command, whichever kind it is: its start, its end, and when it hangs.

Who asked for it is told of both. What runs by itself (on a schedule, or after events) is told of when it changed
something, and when it fails or warns: once, then once a day, and again when it works again.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import notices

# Kinds that nobody is told of. The SDK cuts an export as JSON in many, and waits for each.
SILENT_KINDS: frozenset[str] = frozenset(["CloneItem", "DeleteAnnotations", "ExportDatasetAsJson"])

STARTED = "command.started"
SUCCEEDED = "command.succeeded"
WARNED = "command.warning"
FAILED = "command.failed"
ABORTED = "command.aborted"
STALLED = "command.stalled"
RESUMED = "command.resumed"
KINDS = (STARTED, SUCCEEDED, WARNED, FAILED, ABORTED, STALLED, RESUMED)

_TROUBLE = (WARNED, FAILED)
_REMIND_AFTER = timedelta(days=1)
# Counts of a command's spec that mean that something changed, and how people say it.
_CHANGES = {
    "created": "new",
    "changed": "changed",
    "returned": "back again",
    "moved": "moved",
    "marked": "missing now",
    "imported": "imported",
    "exported": "exported",
    "copied": "copied",
    "cloned": "cloned",
    "deleted": "deleted",
    "refused": "refused",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """The command that is told of."""

    command_id: int
    project_id: int
    dataset_id: int | None
    kind: str
    creator_id: int | None  # None: it runs by itself
    dataset_name: str | None

    @property
    def name(self) -> str:
        """As people say it: `Sync of photos`."""
        verb = re.match(r"[A-Z]?[a-z]+", self.kind)
        noun = (verb[0] if verb else self.kind).capitalize()
        return noun if self.dataset_name is None else f"{noun} of {self.dataset_name}"


async def tell_started(conn: AsyncConnection[Any], subject: Subject) -> None:
    if subject.creator_id is None:
        return
    cursor = await conn.execute("SELECT email FROM account WHERE id = %s", [subject.creator_id])
    row = await cursor.fetchone()
    await _tell(conn, subject, STARTED, "info", "began", f"Started by {row[0]}." if row else "")


async def tell_ended(
    conn: AsyncConnection[Any],
    subject: Subject,
    status: str,
    *,
    spec: dict[str, Any],
    warning: str | None,
    error: str | None,
    took: timedelta,
) -> None:
    changes = _changes(spec)
    if status == "success" and warning is not None:
        kind, words, message = WARNED, "ended with a warning", warning
    elif status == "success":
        kind, words = SUCCEEDED, "has ended"
        message = f"{_said(changes)} It took {_length(took)}."
    elif status in ("aborted", "canceled"):
        kind, words, message = ABORTED, "was aborted", error or ""
    else:
        kind, words, message = FAILED, "failed", error or "Headwater's log says why."
    if subject.creator_id is None and not await _is_worth_it(conn, subject, kind, changes):
        return
    level: notices.Level = {WARNED: "warning", FAILED: "error"}.get(kind, "info")  # pyright: ignore[reportAssignmentType]
    await _tell(conn, subject, kind, level, words, message)


async def tell_stalled(conn: AsyncConnection[Any], subject: Subject, message: str) -> None:
    await _tell(conn, subject, STALLED, "warning", "makes no progress", message)


async def tell_resumed(conn: AsyncConnection[Any], subject: Subject) -> None:
    await _tell(conn, subject, RESUMED, "info", "goes on", "It makes progress again.")


async def _tell(
    conn: AsyncConnection[Any], subject: Subject, kind: str, level: notices.Level, words: str, message: str
) -> None:
    if subject.kind in SILENT_KINDS:
        return
    await notices.tell_project(
        conn,
        subject.project_id,
        level,
        f"{subject.name} {words}",
        message,
        dataset_id=subject.dataset_id,
        command_id=subject.command_id,
        kind=kind,
    )


async def _is_worth_it(conn: AsyncConnection[Any], subject: Subject, kind: str, changes: dict[str, int] | None) -> bool:
    """Whether people want to hear of this end of what runs by itself."""
    cursor = await conn.execute(
        """
        SELECT notice.kind, notice.created_at > now() - %(remind_after)s
        FROM notice
        WHERE dataset_id = %(dataset_id)s AND command_kind = %(command_kind)s AND kind = ANY(%(ends)s)
        ORDER BY id DESC
        LIMIT 1
        """,
        {
            "remind_after": _REMIND_AFTER,
            "dataset_id": subject.dataset_id,
            "command_kind": subject.kind,
            "ends": [SUCCEEDED, WARNED, FAILED],
        },
    )
    before, is_recent = await cursor.fetchone() or (None, False)
    if kind in _TROUBLE:
        return not (before == kind and is_recent)
    return kind == ABORTED or changes is None or any(changes.values()) or before in _TROUBLE


def _changes(spec: dict[str, Any]) -> dict[str, int] | None:
    """None where the command does not say what it changed."""
    found = {name: count for part in _parts(spec) for name, count in part.items() if name in _CHANGES}
    counts = {name: count for name, count in found.items() if isinstance(count, int)}
    return counts or None


def _parts(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield spec
    for value in spec.values():
        if isinstance(value, dict):
            yield value


def _said(changes: dict[str, int] | None) -> str:
    if changes is None:
        return "All is done."
    words = [f"{changes[name]:,} {said}" for name, said in _CHANGES.items() if changes.get(name)]
    return ", ".join(words) + "." if words else "Nothing had changed."


def _length(took: timedelta) -> str:
    seconds = took.total_seconds()
    for unit, length_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"
