"""Automatic upstream of a driver, as it is switched and looked at."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.sync.upstream import DriverEvents, Follower
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.wire import times


class EventsPatch(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    on: bool | None = Field(default=None, description="Whether events are taken in; off forgets those that wait.")
    rotate: bool = Field(default=False, description="Give the hook another address; the one before is refused.")
    push_account: str | None = Field(
        default=None,
        alias="pushAccount",
        max_length=320,
        description="The Google account whose tokens pushes of Pub/Sub have to show; empty: any.",
    )

    def checked_account(self) -> str | None:
        """None for any. Raises BadRequest."""
        account = (self.push_account or "").strip()
        if account and "@" not in account:
            raise BadRequest(f"{account!r} is no account of Google's: name@PROJECT.iam.gserviceaccount.com")
        return account or None


class EventsJson(TypedDict):
    driverId: str
    on: bool
    hook: str | None
    pushAccount: str | None
    lastEventAt: str | None
    lastHappenedAt: str | None
    received: int
    ignored: int
    requests: int
    applied: int
    dropped: int
    waiting: int
    waitingSince: str | None
    failing: int
    failures: int
    nextTryAt: str | None
    error: str | None
    datasets: list[dict[str, Any]]


def events(known: DriverEvents, followers: list[Follower], hook: str | None) -> EventsJson:
    """`hook` is a secret: only for those who may manage the driver."""
    return EventsJson(
        driverId=to_wire(known.driver_id),
        on=known.is_on,
        hook=hook,
        pushAccount=known.push_account,
        lastEventAt=_time(known.last_event_at),
        lastHappenedAt=_time(known.last_happened_at),
        received=known.received,
        ignored=known.ignored,
        requests=known.looked_at,
        applied=known.applied,
        dropped=known.dropped,
        waiting=known.waiting,
        waitingSince=_time(known.waiting_since),
        failing=known.failing,
        failures=known.failures,
        nextTryAt=_time(known.not_before) if known.failures else None,
        error=known.error or known.hint_error,
        datasets=[{"id": to_wire(follower.dataset_id), "name": follower.name} for follower in followers],
    )


def _time(value: Any) -> str | None:
    return None if value is None else times.to_wire(value)


class AutoSyncBody(BaseModel):
    on: bool = Field(description="Whether the dataset follows the events of its driver.")
