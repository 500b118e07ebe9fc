"""Webhooks of a project: where its notices are sent to, and how that went."""

from typing import Annotated

from fastapi import APIRouter, Query

from headwater import ids
from headwater.api.caller import Caller, Connection, ProjectId, ServerDep, needs, wire_id
from headwater.catalog import projects, webhooks
from headwater.catalog.accounts import Account
from headwater.catalog.webhooks import Webhook
from headwater.wire import webhooks as wire
from headwater.work import webhooks as work

router = APIRouter(prefix="/projects/{project_id}/webhooks", tags=["webhooks"])

_NEEDS = needs("manage_project")
WebhookId = Annotated[int, wire_id("webhook")]
DeliveryId = Annotated[int, wire_id("delivery")]


async def _get(conn: Connection, caller: Account, project_id: int, webhook_id: int) -> Webhook:
    """Raises NotFound, Forbidden."""
    await projects.get_project(conn, caller, project_id, "manage_project")
    return await webhooks.get_webhook(conn, project_id, webhook_id)


@router.post("", openapi_extra=_NEEDS)
async def create_webhook(
    project_id: ProjectId, body: wire.NewWebhookBody, caller: Caller, server: ServerDep
) -> wire.WebhookWithSecretJson:
    """The answer has the secret that deliveries are signed with (Standard Webhooks). It is told this once."""
    return wire.webhook_with_secret(*await work.create_webhook(server.place, caller, project_id, body))


@router.get("", openapi_extra=_NEEDS)
async def list_webhooks(project_id: ProjectId, caller: Caller, conn: Connection) -> list[wire.WebhookJson]:
    await projects.get_project(conn, caller, project_id, "manage_project")
    return [wire.webhook(found) for found in await webhooks.list_webhooks(conn, project_id)]


@router.get("/{webhook_id}", openapi_extra=_NEEDS)
async def read_webhook(
    project_id: ProjectId, webhook_id: WebhookId, caller: Caller, conn: Connection
) -> wire.WebhookJson:
    return wire.webhook(await _get(conn, caller, project_id, webhook_id))


@router.patch("/{webhook_id}", openapi_extra=_NEEDS)
async def change_webhook(
    project_id: ProjectId,
    webhook_id: WebhookId,
    body: wire.WebhookBody,
    caller: Caller,
    conn: Connection,
    server: ServerDep,
) -> wire.WebhookJson:
    """What is left out stays. Notices of a time when it was off are not sent later."""
    found = await _get(conn, caller, project_id, webhook_id)
    return wire.webhook(await work.change_webhook(server.place, conn, caller, found, body))


@router.delete("/{webhook_id}", openapi_extra=_NEEDS)
async def delete_webhook(
    project_id: ProjectId, webhook_id: WebhookId, caller: Caller, conn: Connection
) -> dict[str, bool]:
    """With the record of its deliveries."""
    await work.delete_webhook(conn, caller, await _get(conn, caller, project_id, webhook_id))
    return {"success": True}


@router.post("/{webhook_id}/rotate", openapi_extra=_NEEDS)
async def rotate_secret(
    project_id: ProjectId, webhook_id: WebhookId, body: wire.RotateBody, caller: Caller, server: ServerDep
) -> wire.WebhookWithSecretJson:
    """A new secret; for a while deliveries are signed with the old one, too, so that no receiver misses any."""
    rotated = await work.rotate_secret(
        server.place, caller, project_id, webhook_id, keep_old_hours=body.keepOldForHours
    )
    return wire.webhook_with_secret(*rotated)


@router.post("/{webhook_id}/test", openapi_extra=_NEEDS)
async def test_webhook(
    project_id: ProjectId, webhook_id: WebhookId, caller: Caller, server: ServerDep
) -> wire.DeliveryJson:
    """Sends one message of type webhook.test at once, and says how it went."""
    async with server.place.pool.connection() as conn:
        found = await _get(conn, caller, project_id, webhook_id)
    return wire.delivery(await work.send_test(server.place, found))


@router.get("/{webhook_id}/deliveries", openapi_extra=_NEEDS)
async def list_deliveries(
    project_id: ProjectId,
    webhook_id: WebhookId,
    caller: Caller,
    conn: Connection,
    before: Annotated[str | None, Query(description="The id of the last delivery of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[wire.DeliveryJson]:
    """The latest first."""
    found = await _get(conn, caller, project_id, webhook_id)
    before_id = None if before is None else ids.from_wire(before, "delivery")
    return [wire.delivery(one) for one in await webhooks.list_deliveries(conn, found, before_id=before_id, limit=limit)]


@router.post("/{webhook_id}/deliveries/{delivery_id}/redeliver", openapi_extra=_NEEDS)
async def deliver_again(
    project_id: ProjectId, webhook_id: WebhookId, delivery_id: DeliveryId, caller: Caller, conn: Connection
) -> wire.DeliveryJson:
    """The same message with the same id once more, with all its attempts."""
    found = await _get(conn, caller, project_id, webhook_id)
    return wire.delivery(await webhooks.deliver_again(conn, found, delivery_id))
