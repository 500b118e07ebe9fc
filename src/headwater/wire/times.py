"""Times on the wire: ISO 8601 in UTC, with milliseconds and a Z."""

from datetime import UTC, datetime


def to_wire(at: datetime) -> str:
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    # Without its zone, which takes longer to write than all the rest.
    return at.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def aware(at: datetime) -> datetime:
    """One that says no zone is in UTC."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def maybe(at: datetime | None) -> str | None:
    return None if at is None else to_wire(at)
