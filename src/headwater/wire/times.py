"""Times on the wire: ISO 8601 in UTC, with milliseconds and a Z."""

from datetime import UTC, datetime


def to_wire(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")[:-6] + "Z"  # instead of +00:00


def aware(at: datetime) -> datetime:
    """One that says no zone is in UTC."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def maybe(at: datetime | None) -> str | None:
    return None if at is None else to_wire(at)
