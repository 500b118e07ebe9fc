"""Webhooks: signed as the standard says, delivered through trouble or given up in words, and never to inner places."""

import asyncio
import base64
import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook as Standard
from standardwebhooks.webhooks import WebhookVerificationError

from headwater import queue
from headwater.catalog import commands, notices, organizations, projects, secrets, webhooks
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.vault.local import sealed_under
from headwater.wire.webhooks import NewWebhookBody, WebhookBody
from headwater.work import secrets as work_secrets
from headwater.work import tasks
from headwater.work import webhooks as work
from tests.work.receiver import receiving
from tests.work.world import make_dataset


class Hooked:
    """A project, a receiver, and what is asked of them."""

    def __init__(self, world, receiver, dataset):
        self.place, self.owner, self.receiver, self.dataset = world.place, world.owner, receiver, dataset
        self.project_id = dataset.project_id

    async def make(self, name="hook", **given):
        body = NewWebhookBody(**{"name": name, "url": f"{self.receiver.url}/in?token=hidden"} | given)
        return await work.create_webhook(self.place, self.owner, self.project_id, body)

    async def tell(self, level="info", title="So it is", **given):
        async with self.place.pool.connection() as conn:
            await notices.tell_project(conn, self.project_id, level, title, "It is so.", **given)

    async def run(self, *, due=True):
        """The jobs of the queue; those that wait for later, too, unless told otherwise."""
        async with self.place.pool.connection() as conn:
            if due:
                await conn.execute("UPDATE procrastinate_jobs SET scheduled_at = NULL WHERE queue_name = 'webhooks'")
        app = queue.worker_app(self.place.pool)
        tasks.register(app, self.place)
        async with app.open_async(self.place.pool):
            await app.run_worker_async(
                queues=["webhooks"], wait=False, install_signal_handlers=False, delete_jobs="successful"
            )

    async def found(self, hook):
        async with self.place.pool.connection() as conn:
            return await webhooks.get_webhook(conn, self.project_id, hook.id)

    async def deliveries(self, hook):
        async with self.place.pool.connection() as conn:
            return await webhooks.list_deliveries(conn, hook)

    async def titles(self):
        async with self.place.pool.connection() as conn:
            choice = notices.Choice(project_id=self.project_id)
            return [notice.title for notice in await notices.list_notices(conn, self.owner, choice)]

    async def execute(self, statement, *given):
        async with self.place.pool.connection() as conn:
            await conn.execute(statement, given)


@pytest.fixture
async def hooked(world):
    async with world.place.pool.connection() as conn:
        dataset = await make_dataset(conn)
    async with receiving() as receiver:
        yield Hooked(world, receiver, dataset)


def verified(secret, received):
    return Standard(secret).verify(received.body, received.headers)


async def test_a_notice_is_delivered_signed_as_the_standard_says(hooked):
    hook, secret = await hooked.make()
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    async with hooked.place.pool.connection() as conn:
        command_id = await commands.start_command(
            conn,
            project_id=hooked.project_id,
            dataset_id=hooked.dataset.id,
            kind="SyncDataset",
            spec={},
            creator_id=hooked.owner.id,
        )
    await hooked.run()
    (received,) = hooked.receiver.received
    assert received.path == "/in?token=hidden"
    told = verified(secret, received)
    assert (told["type"], told["data"]["commandId"]) == ("command.started", f"{command_id:024x}")
    assert told["data"]["link"].endswith(f"/api/v1/commands/{command_id:024x}")
    assert told["timestamp"] == told["data"]["createdAt"]
    with pytest.raises(WebhookVerificationError):
        verified(work.new_secret(), received)
    (delivery,) = await hooked.deliveries(hook)
    assert (delivery.status, delivery.attempts, delivery.http_status, delivery.error) == ("delivered", 1, 200, None)
    assert (await hooked.found(hook)).delivered_at is not None


async def test_only_what_was_chosen_of_this_project_and_after_the_commit_is_delivered(hooked):
    loud, _ = await hooked.make("loud", levels=["error"])
    failures, _ = await hooked.make("failures", kinds=["command.failed"])
    off, _ = await hooked.make("off", active=False)
    await hooked.tell("error", "loud")
    await hooked.tell("info", "quiet", kind="command.failed")
    async with hooked.place.pool.connection() as conn:
        await notices.tell_project(conn, hooked.project_id, "error", "rolled back", "It is not.")
        await conn.rollback()
        other = await make_dataset(conn)
        await notices.tell_project(conn, other.project_id, "error", "of another project", "It is so.")
        project = await projects.get_project(conn, hooked.owner, hooked.project_id)
        await notices.tell_owners(
            conn, project.organization_id, "error", "for owners", "Only.", project_id=hooked.project_id
        )
    await hooked.run()
    assert sorted(json.loads(received.body)["data"]["title"] for received in hooked.receiver.received) == [
        "loud", "quiet"
    ]  # fmt: skip
    titles = [[one.title for one in await hooked.deliveries(hook)] for hook in (loud, failures, off)]
    assert titles == [["loud"], ["quiet"], []]


async def test_what_fails_is_tried_again_with_the_same_id_and_body_later_and_later(hooked):
    hook, secret = await hooked.make()
    hooked.receiver.status = 500
    await hooked.tell()
    for attempt, wait_s in enumerate(webhooks.WAITS_S, 1):
        await hooked.run()
        (delivery,) = await hooked.deliveries(hook)
        assert (delivery.status, delivery.attempts, delivery.http_status) == ("waiting", attempt, 500)
        assert delivery.next_attempt_at - delivery.attempted_at == timedelta(seconds=wait_s)
        assert "500" in delivery.error
        assert "secret inner answer" not in delivery.error
        await hooked.run(due=False)  # nothing is sent before its time
        assert len(hooked.receiver.received) == attempt
    hooked.receiver.status = 204
    await hooked.run()
    assert [one.status for one in await hooked.deliveries(hook)] == ["delivered"]
    for received in hooked.receiver.received:
        assert verified(secret, received)
    assert len({(one.headers["webhook-id"], one.body) for one in hooked.receiver.received}) == 1
    assert timedelta(days=3) < timedelta(seconds=sum(webhooks.WAITS_S)) < timedelta(days=3.5)


async def fail_to_the_end(hooked):
    hooked.receiver.status = 503
    for _ in range(len(webhooks.WAITS_S) + 1):
        await hooked.run()


async def test_after_three_days_it_is_switched_off_and_the_project_is_told(hooked):
    hook, _ = await hooked.make()
    await hooked.tell()
    await fail_to_the_end(hooked)
    assert len(hooked.receiver.received) == len(webhooks.WAITS_S) + 1
    found = await hooked.found(hook)
    assert not found.active
    assert "three days" in found.inactive_reason
    assert [one.status for one in await hooked.deliveries(hook)] == ["failed"]
    assert (await hooked.titles())[0] == "Webhook hook was switched off"
    await hooked.tell()
    await hooked.run()
    assert len(hooked.receiver.received) == len(webhooks.WAITS_S) + 1


async def test_one_message_that_is_refused_while_others_arrive_switches_nothing_off(hooked):
    hook, _ = await hooked.make()
    await hooked.tell()
    hooked.receiver.status = 400
    await hooked.run()
    await hooked.execute("UPDATE webhook SET delivered_at = now() WHERE id = %s", hook.id)
    await fail_to_the_end(hooked)
    assert (await hooked.found(hook)).active
    assert [one.status for one in await hooked.deliveries(hook)] == ["failed"]
    assert "Webhook hook was switched off" not in await hooked.titles()


async def test_a_receiver_that_is_gone_is_asked_no_more(hooked):
    hook, _ = await hooked.make()
    hooked.receiver.status = 500
    await hooked.tell(title="first")
    await hooked.run()
    hooked.receiver.status = 410
    await hooked.tell(title="second")
    await hooked.run(due=False)
    found = await hooked.found(hook)
    assert not found.active
    assert "410" in found.inactive_reason
    assert [one.status for one in await hooked.deliveries(hook)] == ["failed", "canceled"]
    await hooked.run()
    assert len(hooked.receiver.received) == 2


async def test_redirects_are_not_followed(hooked):
    hook, _ = await hooked.make()
    async with receiving() as elsewhere:
        hooked.receiver.status, hooked.receiver.location = 307, elsewhere.url
        await hooked.tell()
        await hooked.run()
        assert elsewhere.received == []
    (delivery,) = await hooked.deliveries(hook)
    assert "redirects are not followed" in delivery.error


async def test_inner_addresses_are_refused_unless_the_operator_allows_them(workplace, database_url):
    async with receiving() as receiver, workplace(database_url, allow_private_endpoints=False) as place:
        async with place.pool.connection() as conn:
            dataset = await make_dataset(conn)
            owner = await organizations.get_owner(conn)
        for url in (receiver.url, "http://169.254.169.254/latest", "http://[::1]/", "http://10.0.0.1/hook"):
            with pytest.raises(BadRequest, match="inner address"):
                await work.create_webhook(place, owner, dataset.project_id, NewWebhookBody(name="x", url=url))
        # A name that leads inside is found out when it is connected.
        url = receiver.url.replace("127.0.0.1", "localhost")
        hook, _ = await work.create_webhook(place, owner, dataset.project_id, NewWebhookBody(name="x", url=url))
        delivery = await work.send_test(place, hook)
        assert delivery.status == "failed"
        assert "HEADWATER_ALLOW_PRIVATE_ENDPOINTS" in delivery.error
        assert receiver.received == []


@pytest.mark.parametrize(
    "url", ["", "ftp://a.test", "https://", "https://user:pw@a.test/", "https://a.test/ b", "https://a.test/ä",
            "https://a.test/" + "x" * 2000, "https://a.test:99999/", "http://[::1", "a.test/hook"]
)  # fmt: skip
async def test_urls_that_are_none_are_refused(hooked, url):
    with pytest.raises(BadRequest):
        await hooked.make(url=url)


async def test_after_a_rotation_both_secrets_count_and_later_one(hooked):
    hook, old = await hooked.make()
    rotated, new = await work.rotate_secret(hooked.place, hooked.owner, hooked.project_id, hook.id, keep_old_hours=24)
    assert new != old
    assert timedelta(hours=23) < rotated.previous_until - datetime.now(UTC) <= timedelta(hours=24)
    await hooked.tell()
    await hooked.run()
    for secret in (old, new):
        assert verified(secret, hooked.receiver.received[-1])
    await hooked.execute("UPDATE webhook SET previous_until = now() WHERE id = %s", hook.id)
    await hooked.tell()
    await hooked.run()
    assert verified(new, hooked.receiver.received[-1])
    with pytest.raises(WebhookVerificationError):
        verified(old, hooked.receiver.received[-1])
    _, newest = await work.rotate_secret(hooked.place, hooked.owner, hooked.project_id, hook.id, keep_old_hours=0)
    await hooked.tell()
    await hooked.run()
    assert verified(newest, hooked.receiver.received[-1])
    with pytest.raises(WebhookVerificationError):
        verified(new, hooked.receiver.received[-1])


async def test_the_secret_goes_with_the_webhook_and_survives_a_rotation_of_the_master_key(hooked):
    hook, secret = await hooked.make()
    local = hooked.place.vault.local
    await work_secrets.rotate(hooked.place.pool, local)
    async with hooked.place.pool.connection() as conn:
        kept = await webhooks.kept_secret(conn, hook)
    assert sealed_under(kept.sealed) == local.current_key_id()
    await hooked.tell()
    await hooked.run()
    assert verified(secret, hooked.receiver.received[-1])
    async with hooked.place.pool.connection() as conn:
        before = await secrets.take_stock(conn)
        await work.delete_webhook(conn, hooked.owner, await webhooks.get_webhook(conn, hooked.project_id, hook.id))
        after = await secrets.take_stock(conn)
    assert sum(before.sealed_under.values()) - sum(after.sealed_under.values()) == 1
    with pytest.raises(NotFound):
        await hooked.found(hook)


async def test_a_delivery_can_be_asked_for_again(hooked):
    hook, _ = await hooked.make()
    await hooked.tell()
    await hooked.run()
    (delivery,) = await hooked.deliveries(hook)
    async with hooked.place.pool.connection() as conn:
        again = await webhooks.deliver_again(conn, hook, delivery.id)
    assert (again.status, again.attempts) == ("waiting", 0)
    await hooked.run()
    first, second = hooked.receiver.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    off = await _changed(hooked, hook, active=False)
    async with hooked.place.pool.connection() as conn:
        with pytest.raises(Conflict):
            await webhooks.deliver_again(conn, off, delivery.id)


async def _changed(hooked, hook, **given):
    async with hooked.place.pool.connection() as conn:
        return await work.change_webhook(hooked.place, conn, hooked.owner, hook, WebhookBody(**given))


async def test_a_job_that_runs_twice_delivers_once_and_one_of_an_older_round_nothing(hooked):
    hook, _ = await hooked.make()
    await hooked.tell()
    (delivery,) = await hooked.deliveries(hook)
    await work.deliver(hooked.place, delivery.id, delivery.round - 1)
    assert hooked.receiver.received == []
    for _ in range(2):
        await work.deliver(hooked.place, delivery.id, delivery.round)
    assert len(hooked.receiver.received) == 1


async def test_no_connection_is_held_while_a_receiver_takes_its_time(hooked):
    hook, _ = await hooked.make()
    await hooked.tell()
    (delivery,) = await hooked.deliveries(hook)
    hooked.receiver.held = asyncio.Event()
    before = hooked.place.pool.get_stats()
    sending = asyncio.create_task(work.deliver(hooked.place, delivery.id, delivery.round))
    await hooked.receiver.arrived.wait()
    during = hooked.place.pool.get_stats()
    assert during["pool_size"] - during["pool_available"] == before["pool_size"] - before["pool_available"]
    hooked.receiver.held.set()
    await sending


async def test_a_test_is_sent_at_once_and_once_and_also_when_it_is_off(hooked):
    hook, secret = await hooked.make(active=False)
    delivery = await work.send_test(hooked.place, hook)
    assert (delivery.status, delivery.kind, delivery.attempts) == ("delivered", "webhook.test", 1)
    assert verified(secret, hooked.receiver.received[0])["type"] == "webhook.test"
    hooked.receiver.status = 404
    delivery = await work.send_test(hooked.place, hook)
    assert (delivery.status, delivery.http_status, delivery.next_attempt_at) == ("failed", 404, None)


async def test_nothing_of_a_secret_or_of_the_url_is_logged_or_told(hooked, caplog):
    caplog.set_level(logging.DEBUG)
    hook, secret = await hooked.make()
    hooked.receiver.status = 500
    await hooked.tell()
    await fail_to_the_end(hooked)
    async with hooked.place.pool.connection() as conn:
        cursor = await conn.execute("SELECT row_to_json(audit)::text FROM audit WHERE action LIKE 'webhook.%'")
        told = [row[0] for row in await cursor.fetchall()]
        cursor = await conn.execute("SELECT row_to_json(notice)::text FROM notice")
        told += [row[0] for row in await cursor.fetchall()]
        cursor = await conn.execute("SELECT args::text FROM procrastinate_jobs")
        told += [row[0] for row in await cursor.fetchall()]
    told += [one.error for one in await hooked.deliveries(hook)] + [caplog.text]
    assert not [text for text in told if secret.removeprefix("whsec_") in text or "token=hidden" in text]
