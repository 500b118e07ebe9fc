"""What a delivery says, and the careful reading of JSON that anybody may have sent."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from headwater.catalog.sync.hints import Action, Hint, is_storable

_MOST_BYTES = 2**63 - 1
_LONGEST_SEQUENCER = 64
_FIRST_YEAR = 1970


class Unreadable(Exception):
    """An event that is not as its kind should be."""


@dataclass(slots=True)
class Parsed:
    """One delivery, which may hold many events; all empty when there was nothing to do, as in a test event."""

    hints: list[Hint] = field(default_factory=list)
    ignored: int = 0  # events of kinds that change no object, or that could not be read
    unreadable: int = 0  # of those, the ones that could not be read
    needs_scan: bool = False  # something happened that hints cannot tell: a whole folder got another name
    is_pubsub: bool = False  # such a push shows a token of Google's
    confirm_url: str | None = None  # to be fetched, so that Amazon SNS delivers from now on
    answer: dict[str, str] | None = None  # what the sender wants to hear, so that Event Grid delivers from now on

    def add(self, other: "Parsed") -> None:
        self.hints += other.hints
        self.ignored += other.ignored
        self.unreadable += other.unreadable
        self.needs_scan |= other.needs_scan
        self.is_pubsub |= other.is_pubsub
        self.confirm_url = self.confirm_url or other.confirm_url
        self.answer = self.answer or other.answer


def hint(
    key: str,
    action: Action,
    *,
    bucket: str | None = None,
    etag: object = None,
    size: object = None,
    sequencer: object = None,
    happened: object = None,
) -> Hint:
    """From values as they came: what is not as it should be counts as not told."""
    return Hint(
        key=key,
        action=action,
        sequencer=_hexadecimal(sequencer),
        happened_at=time_of(happened),
        bucket=bucket,
        etag=(text(etag).strip('"') or None) if action == "written" else None,
        size_bytes=_bytes(size) if action == "written" else None,
    )


def mapping(value: object) -> dict[str, Any]:
    """Empty for anything else."""
    return value if isinstance(value, dict) else {}


def text(value: object) -> str:
    """Empty for anything else, and for what no database and no answer can hold."""
    return value if isinstance(value, str) and is_storable(value) else ""


def needed(value: object) -> str:
    """Raises Unreadable for what is no text, or empty."""
    if not isinstance(value, str) or not value:
        raise Unreadable
    return value


def time_of(value: object) -> datetime | None:
    """ISO 8601, or seconds since 1970; nothing happened before."""
    try:
        if isinstance(value, int | float):
            found = datetime.fromtimestamp(value, UTC)
        else:
            found = datetime.fromisoformat(text(value))
            found = found if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return found if found.year >= _FIRST_YEAR else None


def _hexadecimal(value: object) -> str | None:
    told = text(value)
    if not told or len(told) > _LONGEST_SEQUENCER or not all(char in "0123456789abcdefABCDEF" for char in told):
        return None
    return told


def _bytes(value: object) -> int | None:
    """Ceph gives the number as a text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_BYTES:
        return None
    return value
