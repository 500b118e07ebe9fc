"""Webhooks and their deliveries as JSON."""

from typing import Annotated

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from headwater.catalog.webhooks import Delivery, Webhook
from headwater.ids import to_wire
from headwater.wire import times

_Names = Annotated[list[str], Field(max_length=20)]


class NewWebhookBody(BaseModel):
    name: str
    url: str = Field(description="Where notices are posted to.")
    levels: _Names = Field(default=["info", "warning", "error"], description="Which levels.")
    kinds: _Names = Field(default=[], description="Which kinds, for example command.failed; none: all.")
    active: bool = True


class WebhookBody(BaseModel):
    """What is left out stays as it is."""

    name: str | None = None
    url: str | None = None
    levels: _Names | None = None
    kinds: _Names | None = None
    active: bool | None = None


class RotateBody(BaseModel):
    keepOldForHours: Annotated[int, Field(strict=True)] = Field(  # noqa: N815 - as it is on the wire
        default=24, description="How long the old secret signs, too: 0 to 168."
    )


class WebhookJson(TypedDict):
    id: str
    projectId: str
    name: str
    url: str
    levels: list[str]
    kinds: list[str]
    active: bool
    inactiveReason: str | None
    previousSecretUntil: str | None
    lastDeliveredAt: str | None
    creator: str
    createdAt: str
    updatedAt: str


class WebhookWithSecretJson(WebhookJson):
    secret: str


class DeliveryJson(TypedDict):
    id: str
    webhookId: str
    messageId: str
    kind: str
    title: str
    status: str
    attempts: int
    httpStatus: int | None
    error: str | None
    durationMs: int | None
    attemptedAt: str | None
    nextAttemptAt: str | None
    createdAt: str


def message_id(delivery_id: int) -> str:
    """The same in every attempt: receivers that saw it before drop it."""
    return f"msg_{to_wire(delivery_id)}"


def webhook(found: Webhook) -> WebhookJson:
    return WebhookJson(
        id=to_wire(found.id),
        projectId=to_wire(found.project_id),
        name=found.name,
        url=found.url,
        levels=list(found.levels),
        kinds=found.kinds,
        active=found.active,
        inactiveReason=found.inactive_reason,
        previousSecretUntil=times.maybe(found.previous_until),
        lastDeliveredAt=times.maybe(found.delivered_at),
        creator=found.creator,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
    )


def webhook_with_secret(found: Webhook, secret: str) -> WebhookWithSecretJson:
    """For the one answer that tells it."""
    return WebhookWithSecretJson(**webhook(found), secret=secret)


def delivery(found: Delivery) -> DeliveryJson:
    return DeliveryJson(
        id=to_wire(found.id),
        webhookId=to_wire(found.webhook_id),
        messageId=message_id(found.id),
        kind=found.kind,
        title=found.title,
        status=found.status,
        attempts=found.attempts,
        httpStatus=found.http_status,
        error=found.error,
        durationMs=found.duration_ms,
        attemptedAt=times.maybe(found.attempted_at),
        nextAttemptAt=times.maybe(found.next_attempt_at),
        createdAt=times.to_wire(found.created_at),
    )
