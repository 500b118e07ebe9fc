"""Webhooks: made with a secret of their own, and deliveries signed as Standard Webhooks says.

https://www.standardwebhooks.com: the headers webhook-id, webhook-timestamp and webhook-signature, which is
`v1,base64(HMAC-SHA256(secret, "id.timestamp.body"))`; while two secrets count, two of them with a space between.
No connection is held while the vault is asked or something is sent.
"""

import base64
import hmac
import secrets as randomness
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import aiohttp
import orjson
from psycopg import AsyncConnection
from yarl import URL

from headwater.catalog import projects, secrets, webhooks
from headwater.catalog.accounts import Account
from headwater.catalog.webhooks import Attempt, Delivery, Due, Webhook
from headwater.errors import BadRequest, Conflict
from headwater.net.addresses import AddressRefused
from headwater.net.urls import read_url
from headwater.wire import notices as wire_notices
from headwater.wire import times
from headwater.wire import webhooks as wire
from headwater.work.secrets import destroy_later, reserve
from headwater.work.workplace import Workplace

_PREFIX = "whsec_"
_SECRET_BYTES = 32
_TIMEOUT = aiohttp.ClientTimeout(total=15, sock_connect=5)
_DESTROY_AFTER_S = 60  # who has just read where a secret is may still open it
_MOST_HOURS = 168


def new_secret() -> str:
    return _PREFIX + base64.b64encode(randomness.token_bytes(_SECRET_BYTES)).decode()


async def create_webhook(
    place: Workplace, caller: Account, project_id: int, body: wire.NewWebhookBody
) -> tuple[Webhook, str]:
    """The webhook, and its secret, which is told this once. Raises NotFound, Forbidden, BadRequest, Conflict."""
    name = webhooks.check_name(body.name)
    webhooks.check_choice(body.levels, body.kinds)
    webhooks.check_url(body.url, allow_private=place.allow_private)
    async with place.pool.connection() as conn:
        await projects.get_project(conn, caller, project_id, "manage_project")
        await webhooks.require_room(conn, project_id, name)
        webhook_id = await webhooks.new_id(conn)
        reserved = await reserve(conn, place.vault)
    secret = new_secret()
    kept = await place.vault.keep({"secret": secret}, owner=webhooks.owner_of(webhook_id), place=reserved.place)
    async with place.pool.connection() as conn:
        await projects.get_project(conn, caller, project_id, "manage_project")
        secret_id = await secrets.insert(conn, place.vault.local, reserved, kept)
        made = await webhooks.insert_webhook(
            conn,
            caller,
            project_id,
            webhook_id,
            name=name,
            url=body.url,
            levels=body.levels,
            kinds=body.kinds,
            active=body.active,
            secret_id=secret_id,
        )
        await projects.record(conn, caller, project_id, "webhook.created", made.name, host=made.host)
    return made, secret


async def change_webhook(
    place: Workplace, conn: AsyncConnection, caller: Account, found: Webhook, body: wire.WebhookBody
) -> Webhook:
    """What is not given stays. Raises BadRequest, Conflict."""
    name = found.name if body.name is None else webhooks.check_name(body.name)
    url = found.url if body.url is None else body.url
    levels = found.levels if body.levels is None else body.levels
    kinds = found.kinds if body.kinds is None else body.kinds
    active = found.active if body.active is None else body.active
    webhooks.check_choice(levels, kinds)
    if body.url is not None:
        webhooks.check_url(url, allow_private=place.allow_private)
    changed = await webhooks.change_webhook(conn, found, name=name, url=url, levels=levels, kinds=kinds, active=active)
    await projects.record(
        conn, caller, found.project_id, "webhook.changed", changed.name, host=changed.host, active=changed.active
    )
    return changed


async def rotate_secret(
    place: Workplace, caller: Account, project_id: int, webhook_id: int, *, keep_old_hours: int
) -> tuple[Webhook, str]:
    """The new secret; the old one signs beside it for so long. Raises NotFound, Forbidden, BadRequest, Conflict."""
    if not 0 <= keep_old_hours <= _MOST_HOURS:
        raise BadRequest(f"The old secret can be kept for 0 to {_MOST_HOURS} hours.")
    async with place.pool.connection() as conn:
        await projects.get_project(conn, caller, project_id, "manage_project")
        found = await webhooks.get_webhook(conn, project_id, webhook_id)
        kept = await webhooks.kept_secret(conn, found)
        reserved = await reserve(conn, place.vault)
    old, secret = (await place.vault.open(kept))["secret"], new_secret()
    values = {"secret": secret} | ({"previous": old} if keep_old_hours else {})
    kept = await place.vault.keep(values, owner=webhooks.owner_of(webhook_id), place=reserved.place)
    async with place.pool.connection() as conn:
        await projects.get_project(conn, caller, project_id, "manage_project")
        secret_id = await secrets.insert(conn, place.vault.local, reserved, kept)
        until = datetime.now(UTC) + timedelta(hours=keep_old_hours)
        if not await webhooks.replace_secret(conn, webhook_id, found.secret_id, secret_id, previous_until=until):
            raise Conflict(
                "The secret was changed, or the webhook removed, in this moment. Look at it, then try again."
            )
        await destroy_later(conn, await secrets.delete(conn, found.secret_id), after_s=_DESTROY_AFTER_S)
        await projects.record(conn, caller, project_id, "webhook.rotated", found.name, keep_old_hours=keep_old_hours)
        return await webhooks.get_webhook(conn, project_id, webhook_id), secret


async def delete_webhook(conn: AsyncConnection, caller: Account, found: Webhook) -> None:
    await destroy_later(conn, await webhooks.delete_webhook(conn, found))
    await projects.record(conn, caller, found.project_id, "webhook.deleted", found.name, host=found.host)


async def delete_webhooks(conn: AsyncConnection, project_id: int) -> None:
    """Of a project that is deleted."""
    for found in await webhooks.list_webhooks(conn, project_id):
        await destroy_later(conn, await webhooks.delete_webhook(conn, found))


async def send_test(place: Workplace, found: Webhook) -> Delivery:
    """Now, and once; also for a webhook that is switched off."""
    async with place.pool.connection() as conn:
        delivery = await webhooks.new_test(conn, found)
    await deliver(place, delivery.id)
    async with place.pool.connection() as conn:
        return await webhooks.get_delivery(conn, found.id, delivery.id)


async def deliver(place: Workplace, delivery_id: int, number: int | None = None) -> None:
    """One attempt of a delivery that waits; `number` is its round. Safe to repeat. Raises VaultError."""
    async with place.pool.connection() as conn:
        due = await webhooks.find_due(conn, delivery_id, number=number)
    if due is None:
        return
    values = await place.vault.open(due.kept)
    attempt = await _send(place.places.session, due, _body(place, due), _signing(due.webhook, values))
    async with place.pool.connection() as conn:
        await webhooks.note_attempt(conn, due, attempt)


def _signing(found: Webhook, values: dict[str, str]) -> list[str]:
    """The secrets that count now."""
    previous = values.get("previous")
    counts = previous is not None and found.previous_until is not None and found.previous_until > datetime.now(UTC)
    return [values["secret"], *([previous] if counts and previous else [])]


def _body(place: Workplace, due: Due) -> bytes:
    """The same in every attempt."""
    if due.notice is None:
        data: object = {"message": f"A test of the webhook {due.webhook.name}."}
    else:
        data = wire_notices.notice(due.notice, f"{(place.public_url or '').rstrip('/')}/api/v1")
    at = due.delivery.created_at if due.notice is None else due.notice.created_at
    return orjson.dumps({"type": due.delivery.kind, "timestamp": times.to_wire(at), "data": data})


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """As the header has it, for one secret."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return f"v1,{base64.b64encode(digest).decode()}"


async def _send(session: aiohttp.ClientSession, due: Due, body: bytes, signing: Sequence[str]) -> Attempt:
    message_id, timestamp = wire.message_id(due.delivery.id), int(time.time())
    headers = {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signature(secret, message_id, timestamp, body) for secret in signing),
    }
    began = time.monotonic()
    status, error = await post(session, due.webhook.url, body, headers)
    return Attempt(round(1000 * (time.monotonic() - began)), status, error)


async def post(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int | None, str | None]:
    """(status, why it was not taken). What the other side says is of no interest and not read."""
    try:
        read = read_url(url)
    except BadRequest as error:
        return None, str(error)
    try:
        async with session.post(
            URL(str(read), encoded=True), data=body, headers=headers, allow_redirects=False, timeout=_TIMEOUT
        ) as answer:
            return answer.status, _refusal(answer.status, read.host)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as failure:
        return None, _explained(failure, read.host)


def _refusal(status: int, host: str) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"{host} answered {status}: redirects are not followed. Give the URL that it leads to."
    return f"{host} answered {status}."


def _explained(error: Exception, host: str) -> str:
    """Without the URL, which may hold a token."""
    match error:
        case TimeoutError():
            said = f"{host} did not answer within {_TIMEOUT.total:g} s."
        case AddressRefused() | aiohttp.ClientConnectorError(os_error=AddressRefused()):
            said = (
                f"{host} is an inner address. If that is intended, the operator of this server sets "
                "HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true."
            )
        case aiohttp.ClientConnectorCertificateError():
            said = f"The certificate of {host} is not valid for it, has expired, or is of an unknown authority."
        case aiohttp.ClientSSLError():
            said = f"{host} does not speak https."
        case aiohttp.ClientConnectorDNSError():
            said = f"There is no host {host}, or its name cannot be resolved."
        case aiohttp.ClientConnectorError():
            said = f"{host} accepts no connection."
        case _:
            said = f"{host} broke off its answer or does not speak HTTP ({type(error).__name__})."
    return said
