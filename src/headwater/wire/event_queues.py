"""The queue that a cloud puts the events of a driver's bucket into."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.drivers import Driver
from headwater.catalog.sync.event_queues import EventQueue, Kind, NewQueue
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.storage.queues.azure_queue import check_name
from headwater.storage.queues.sqs import SqsAddress
from headwater.wire import times

_DEFAULT_REGION = "us-east-1"

State = Literal["none", "off", "failing", "reading", "waiting"]


class QueueBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str | None = Field(default=None, description="Of S3: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME")
    name: str | None = Field(default=None, description="Of Azure: a queue in the storage account of the driver.")
    endpoint: str | None = Field(
        default=None, description="Of Azure: http(s)://host[:port] of queues that are not at Azure itself."
    )
    active: bool = True

    def checked(self, driver: Driver) -> NewQueue:
        """Raises BadRequest for what does not fit the driver."""
        kind = kind_for(driver)
        given = {field for field in ("url", "name", "endpoint") if getattr(self, field) is not None}
        if kind == "sqs":
            if given != {"url"}:
                raise BadRequest(
                    f"Events of {driver.kind} drivers come through a queue of SQS: give its url, and no more."
                )
            SqsAddress.parse(self.url or "", driver.region or _DEFAULT_REGION)
        else:
            if not {"name"} <= given <= {"name", "endpoint"}:
                raise BadRequest(
                    "Events of Azure drivers come through a queue of their storage account: give its name."
                )
            check_name(self.name or "")
        return NewQueue(kind=kind, url=self.url, name=self.name, endpoint=self.endpoint, active=self.active)


def kind_for(driver: Driver) -> Kind:
    """Raises BadRequest for drivers without one."""
    if driver.kind in ("azureblob", "azureDatalakeGen2"):
        return "azure"
    if driver.integration_kind in ("s3", "aws-sts", "aws-cross"):
        return "sqs"
    if driver.kind == "gcs":
        raise BadRequest("Google's Pub/Sub pushes events to the driver's hook; there is no queue to read.")
    raise BadRequest(f"Driver {driver.name!r} is a folder: no cloud has a queue of its events.")


class QueueJson(TypedDict):
    driverId: str
    type: str | None  # sqs, azure; null: there is none
    url: str | None
    name: str | None
    endpoint: str | None
    active: bool
    state: State
    error: str | None
    failures: int
    readAt: str | None
    receivedAt: str | None
    messages: int
    unreadable: int


def queue(driver_id: int, found: EventQueue | None) -> QueueJson:
    return QueueJson(
        driverId=to_wire(driver_id),
        type=found and found.kind,
        url=found and found.url,
        name=found and found.name,
        endpoint=found and found.endpoint,
        active=found is not None and found.active,
        state=_state(found),
        error=found and found.error,
        failures=found.failures if found else 0,
        readAt=times.to_wire(found.read_at) if found and found.read_at else None,
        receivedAt=times.to_wire(found.received_at) if found and found.received_at else None,
        messages=found.messages if found else 0,
        unreadable=found.unreadable if found else 0,
    )


def _state(found: EventQueue | None) -> State:
    if found is None:
        return "none"
    if not found.active:
        return "off"
    if found.error is not None:
        return "failing"
    return "reading" if found.is_leased else "waiting"
