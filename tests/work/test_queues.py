"""Queues of events, read by workers: every hint is kept before its message is deleted, whatever happens between."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headwater.catalog import datasets, drivers, integrations, organizations
from headwater.catalog.datasets import Dataset
from headwater.catalog.drivers import Driver, NewDriver
from headwater.catalog.sync import event_queues, hints
from headwater.catalog.sync.event_queues import EventQueue, NewQueue
from headwater.errors import Unavailable
from headwater.storage.queues.queues import Queue
from headwater.work import queues
from tests import servers
from tests.buckets import Bucket, new_bucket
from tests.queues import AzuriteQueue, Sqs, new_azurite_queue, new_sqs, s3_event
from tests.work.world import World, make_project, wait_for


@pytest.fixture(scope="module")
def moto() -> Iterator[servers.S3Server]:
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="module")
def azurite_queues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.AzureServer]:
    with servers.azurite_queues(tmp_path_factory.mktemp("azurite-queues")) as server:
        yield server


async def driver_on(
    world: World, *, kind: str, bucket: str, key: str, secret: str, endpoint: str, prefix: str = ""
) -> tuple[Driver, Dataset]:
    """With its events on."""
    async with world.connection() as conn:
        owner, project_id = await make_project(conn)
        organization_id = (await organizations.list_organizations(conn, owner))[0].id
        integration = await integrations.create_integration(
            conn,
            world.vault,
            owner,
            organization_id,
            name=secrets.token_hex(6),
            kind=kind,
            options={"key": key, "secret": secret},
            metadata={},
        )
        new = NewDriver(
            name="cams",
            kind=kind,
            integration_id=integration.id,
            root=bucket,
            prefix=prefix,
            region=servers.REGION,
            storage_class=None,
            endpoint=endpoint,
            allow_delete=False,
        )
        driver = await drivers.create_driver(conn, owner, project_id, new)
        await conn.execute("INSERT INTO driver_events (driver_id, is_on) VALUES (%s, true)", [driver.id])
        dataset = await datasets.create_dataset(conn, owner, project_id=project_id, driver_id=driver.id, name="dataset")
        return driver, dataset


async def s3_driver(world: World, server: servers.S3Server, bucket: str, **given: Any) -> Driver:
    keys = server.admin
    driver, _ = await driver_on(
        world,
        kind="s3",
        bucket=bucket,
        key=keys.access_key_id,
        secret=keys.secret_access_key,
        endpoint=server.endpoint,
        **given,
    )
    return driver


async def read_through(world: World, driver: Driver, new: NewQueue) -> None:
    async with world.connection() as conn:
        await event_queues.set_queue(conn, driver.id, new)


@asynccontextmanager
async def opened(world: World, driver: Driver, reader: str = "me") -> AsyncIterator[tuple[queues._Reading, Queue]]:
    """The driver's queue, leased to us."""
    async with world.connection() as conn:
        (mine,) = [one for one in await event_queues.claim(conn, reader, limit=1000) if one.driver_id == driver.id]
    connector = world.place.places.clouds.new_connector()
    queue = await world.place.places.clouds.open_queue(driver, mine, connector)
    try:
        yield queues._Reading(world.place, reader, mine, connector), queue
    finally:
        await queue.close()
        await connector.close()
        async with world.connection() as conn:
            await event_queues.release(conn, reader, driver.id)


async def read_all(world: World, driver: Driver) -> None:
    async with opened(world, driver) as (reading, queue):
        while (await known(world, driver)).messages < await _read_more(world, driver, reading, queue):
            pass


async def _read_more(world: World, driver: Driver, reading: queues._Reading, queue: Queue) -> int:
    """How many messages there are one reading later; one more than that while there may be others."""
    before = (await known(world, driver)).messages
    assert await reading.read_once(queue, wait_s=0) is not None
    after = (await known(world, driver)).messages
    return after + 1 if after > before else after


async def known(world: World, driver: Driver) -> EventQueue:
    async with world.connection() as conn:
        return await event_queues.find_queue(conn, driver.id)


async def hinted(world: World, driver: Driver) -> set[str]:
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT key FROM hint WHERE driver_id = %s", [driver.id])
        return {key for (key,) in await cursor.fetchall()}


def sqs_queue(theirs: Sqs, **given: Any) -> NewQueue:
    return NewQueue(kind="sqs", url=theirs.url, name=None, endpoint=None, **given)


async def notices_of(world: World, driver: Driver) -> list[str]:
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT title || ': ' || message FROM notice WHERE project_id = %s ORDER BY id", [driver.project_id]
        )
        return [text for (text,) in await cursor.fetchall()]


@pytest.fixture
async def events(world: World, moto: servers.S3Server) -> tuple[Driver, Sqs, Bucket]:
    """A driver whose bucket puts its events into a queue, as S3 does."""
    bucket, theirs = new_bucket(moto), new_sqs(moto, VisibilityTimeout="0")
    driver = await s3_driver(world, moto, bucket.name)
    await read_through(world, driver, sqs_queue(theirs))
    return driver, theirs, bucket


async def test_what_happens_in_a_bucket_comes_through_its_queue(
    world: World, events: tuple[Driver, Sqs, Bucket]
) -> None:
    driver, theirs, bucket = events
    configuration = {"QueueArn": theirs.arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    bucket.client.put_bucket_notification_configuration(
        Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": [configuration]}
    )
    keys = {"a.txt", "deep/b c+d.txt", "ä/%2F€.txt"} | {f"many/{i}" for i in range(20)}
    for key in keys:
        bucket.put(key, b"abc")
    bucket.delete("a.txt")
    await read_all(world, driver)
    assert await hinted(world, driver) == keys
    assert theirs.left() == 0
    state = await known(world, driver)
    assert state.messages >= 24
    assert (state.unreadable, state.error) == (0, None)
    assert state.received_at is not None


def through_sns(body: str) -> str:
    return json.dumps({"Type": "Notification", "MessageId": "1", "TopicArn": "arn:aws:sns:r:1:t", "Message": body})


def through_eventbridge(bucket: str, key: str) -> str:
    thing = {"key": key, "size": 3, "etag": "abc", "sequencer": "0A"}
    return json.dumps(
        {
            "version": "0",
            "id": "1",
            "detail-type": "Object Created",
            "source": "aws.s3",
            "account": "123456789012",
            "time": "2026-11-22T22:00:00Z",
            "region": servers.REGION,
            "resources": [f"arn:aws:s3:::{bucket}"],
            "detail": {"version": "0", "bucket": {"name": bucket}, "object": thing, "reason": "PutObject"},
        }
    )


async def test_messages_of_sns_and_eventbridge_and_the_test_of_s3_are_read(
    world: World, events: tuple[Driver, Sqs, Bucket]
) -> None:
    driver, theirs, bucket = events
    theirs.put(through_sns(s3_event(bucket.name, "by-sns.txt")))
    theirs.put(through_eventbridge(bucket.name, "by eventbridge.txt"))
    theirs.put(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": bucket.name}))
    await read_all(world, driver)
    assert await hinted(world, driver) == {"by-sns.txt", "by eventbridge.txt"}
    assert theirs.left() == 0
    assert (await known(world, driver)).unreadable == 0


async def azure_driver(world: World, server: servers.AzureServer) -> tuple[Driver, AzuriteQueue]:
    theirs = new_azurite_queue(server)
    driver, _ = await driver_on(
        world, kind="azureblob", bucket="cams", key=server.account, secret=server.key, endpoint=server.endpoint
    )
    await read_through(world, driver, NewQueue(kind="azure", url=None, name=theirs.name, endpoint=server.endpoint))
    return driver, theirs


def grid_event(key: str) -> dict[str, Any]:
    return {
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/cameras",
        "subject": f"/blobServices/default/containers/cams/blobs/{key}",
        "eventType": "Microsoft.Storage.BlobCreated",
        "eventTime": "2026-11-22T22:00:00.000Z",
        "id": "1",
        "data": {
            "api": "PutBlob",
            "eTag": "0x8D",
            "contentLength": 3,
            "blobType": "BlockBlob",
            "url": f"https://cameras.blob.core.windows.net/cams/{key}",
            "sequencer": "0A",
        },
        "dataVersion": "",
        "metadataVersion": "1",
    }


async def test_events_of_azure_come_through_a_storage_queue(world: World, azurite_queues: servers.AzureServer) -> None:
    driver, theirs = await azure_driver(world, azurite_queues)
    theirs.put(json.dumps(grid_event("one.txt")))
    theirs.put(json.dumps([grid_event("deep/two.txt")]), is_encoded=False)
    await read_all(world, driver)
    assert await hinted(world, driver) == {"one.txt", "deep/two.txt"}
    assert theirs.left() == 0


async def test_nothing_is_deleted_that_was_not_kept(
    world: World, events: tuple[Driver, Sqs, Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, theirs, bucket = events
    theirs.put(s3_event(bucket.name, "kept.txt"))

    async def fail(*_: object, **__: object) -> None:
        raise Unavailable("The database went away.")

    async with opened(world, driver) as (reading, queue):
        monkeypatch.setattr(hints, "take_in", fail)
        with pytest.raises(Unavailable):
            await reading.read_once(queue, wait_s=0)
        monkeypatch.undo()
    assert await hinted(world, driver) == set()
    assert (await known(world, driver)).messages == 0
    assert theirs.left() == 1
    await read_all(world, driver)
    assert await hinted(world, driver) == {"kept.txt"}
    assert theirs.left() == 0


async def test_a_worker_that_dies_before_it_deletes_leaves_the_message_to_the_next(
    world: World, events: tuple[Driver, Sqs, Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, theirs, bucket = events
    theirs.put(s3_event(bucket.name, "twice.txt"))
    async with opened(world, driver) as (reading, queue):

        async def die(_messages: object) -> None:
            raise asyncio.CancelledError

        monkeypatch.setattr(queue, "delete", die)
        with pytest.raises(asyncio.CancelledError):
            await reading.read_once(queue, wait_s=0)
    assert await hinted(world, driver) == {"twice.txt"}
    assert theirs.left() == 1
    await read_all(world, driver)
    assert await hinted(world, driver) == {"twice.txt"}
    assert theirs.left() == 0


async def test_a_message_that_says_nothing_is_counted_told_once_and_deleted_at_last(
    world: World, events: tuple[Driver, Sqs, Bucket]
) -> None:
    driver, theirs, bucket = events
    theirs.put("what is this?")
    theirs.put("and that?")
    async with opened(world, driver) as (reading, queue):
        for count in range(1, queues.UNREADABLE_RECEIVES):
            await reading.read_once(queue, wait_s=0)
            assert theirs.left() == 2, count
        theirs.put(s3_event(bucket.name, "good.txt"))
        await reading.read_once(queue, wait_s=0)
        assert theirs.left() == 0
    assert await hinted(world, driver) == {"good.txt"}
    assert (await known(world, driver)).unreadable == 2
    (told,) = await notices_of(world, driver)
    assert "Messages in the queue of driver cams are no events" in told


async def claimed(world: World, reader: str, *drivers_: Driver) -> set[int]:
    async with world.connection() as conn:
        found = await event_queues.claim(conn, reader, limit=1000)
    return {one.driver_id for one in found} & {driver.id for driver in drivers_}


async def read_to_its_end(world: World, driver: Driver) -> None:
    async with world.connection() as conn:
        (mine,) = [one for one in await event_queues.claim(conn, "me", limit=1000) if one.driver_id == driver.id]
    connector = world.place.places.clouds.new_connector()
    await queues._Reading(world.place, "me", mine, connector).until_it_ends()
    await connector.close()


async def may_try_again(world: World, driver: Driver) -> None:
    async with world.connection() as conn:
        await conn.execute("UPDATE event_queue SET try_after = '-infinity' WHERE driver_id = %s", [driver.id])


async def test_a_queue_that_is_not_there_is_told_once_and_tried_later_and_later(
    world: World, moto: servers.S3Server
) -> None:
    driver = await s3_driver(world, moto, "cams")
    theirs = new_sqs(moto)
    await read_through(world, driver, sqs_queue(theirs))
    theirs.client.delete_queue(QueueUrl=theirs.url)
    pauses = []
    for _ in range(4):
        await read_to_its_end(world, driver)
        assert await claimed(world, "another", driver) == set()
        async with world.connection() as conn:
            cursor = await conn.execute(
                "SELECT extract(epoch FROM try_after - clock_timestamp()) FROM event_queue WHERE driver_id = %s",
                [driver.id],
            )
            pauses.append(float((await cursor.fetchone())[0]))
        await may_try_again(world, driver)
    assert pauses == sorted(pauses)
    assert pauses[-1] > 2 * pauses[0]
    state = await known(world, driver)
    assert state.failures == 4
    assert "There is no queue" in state.error
    (told,) = await notices_of(world, driver)
    assert "Events of driver cams are not read: There is no queue" in told
    name = theirs.url.rpartition("/")[2]
    theirs.client.create_queue(QueueName=name)
    await may_try_again(world, driver)
    await read_all(world, driver)
    state = await known(world, driver)
    assert (state.failures, state.error) == (0, None)
    theirs.client.delete_queue(QueueUrl=theirs.url)  # it comes and goes
    await read_to_its_end(world, driver)
    assert (await known(world, driver)).failures == 1
    assert len(await notices_of(world, driver)) == 1


async def test_a_server_that_is_away_is_told_only_when_it_stays_away(world: World, moto: servers.S3Server) -> None:
    (port,) = servers.free_ports(1)
    driver = await s3_driver(world, moto, "cams")
    nowhere = f"http://127.0.0.1:{port}/123456789012/events"
    await read_through(world, driver, NewQueue(kind="sqs", url=nowhere, name=None, endpoint=None))
    for count in range(1, event_queues.FAILURES_TO_TELL + 2):
        async with world.connection() as conn:
            (mine,) = [one for one in await event_queues.claim(conn, "me", limit=1000) if one.driver_id == driver.id]
        reading = queues._Reading(world.place, "me", mine, world.place.places.clouds.new_connector())
        await reading._give_up(Unavailable("The store did not answer."), "The store did not answer.")
        await reading.connector.close()
        await may_try_again(world, driver)
        assert len(await notices_of(world, driver)) == (count >= event_queues.FAILURES_TO_TELL)


async def test_each_queue_has_one_reader_until_its_lease_ends(world: World, moto: servers.S3Server) -> None:
    found = [await s3_driver(world, moto, "cams") for _ in range(6)]
    for driver in found:
        await read_through(world, driver, sqs_queue(new_sqs(moto)))
    async with world.connection() as conn, asyncio.timeout(20):
        begun = await event_queues.claim(conn, "begun", limit=3)
        beside = await asyncio.gather(*(claimed(world, f"reader {i}", *found) for i in range(4)))
    taken = [{one.driver_id for one in begun} & {driver.id for driver in found}, *beside]
    assert sorted(driver_id for some in taken for driver_id in some) == sorted(driver.id for driver in found)
    assert await claimed(world, "late", *found) == set()
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE event_queue SET leased_until = now() - interval '1 second' WHERE driver_id = %s", [found[0].id]
        )
    assert await claimed(world, "late", *found) == {found[0].id}


async def test_who_reads_a_queue_that_was_changed_switched_off_or_taken_over_stops(
    world: World, moto: servers.S3Server
) -> None:
    theirs = new_sqs(moto, VisibilityTimeout="0")
    theirs.put(s3_event("cams", "a.txt"))

    async def change(driver: Driver, statement: str) -> None:
        async with world.connection() as conn:
            await conn.execute(statement, [driver.id])

    async def set_anew(driver: Driver) -> None:
        await read_through(world, driver, sqs_queue(theirs))

    async def set_anew_and_claimed(driver: Driver) -> None:
        await set_anew(driver)
        assert await claimed(world, "me", driver) == {driver.id}

    changes = [
        set_anew,
        set_anew_and_claimed,
        lambda driver: read_through(world, driver, sqs_queue(theirs, active=False)),
        lambda driver: change(driver, "UPDATE driver_events SET is_on = false WHERE driver_id = %s"),
        lambda driver: change(driver, "UPDATE event_queue SET reader = 'another' WHERE driver_id = %s"),
        lambda driver: change(driver, "DELETE FROM event_queue WHERE driver_id = %s"),
    ]
    for happen in changes:
        driver = await s3_driver(world, moto, "cams")
        await read_through(world, driver, sqs_queue(theirs))
        async with opened(world, driver) as (reading, queue):
            await happen(driver)
            assert await reading.read_once(queue, wait_s=0) is None
        assert await hinted(world, driver) == set()
        assert theirs.left() == 1


async def test_queues_whose_events_are_off_are_not_read(world: World, moto: servers.S3Server) -> None:
    driver = await s3_driver(world, moto, "cams")
    await read_through(world, driver, sqs_queue(new_sqs(moto)))
    async with world.connection() as conn:
        await conn.execute("UPDATE driver_events SET is_on = false WHERE driver_id = %s", [driver.id])
    assert await claimed(world, "me", driver) == set()


async def test_workers_read_as_long_as_they_run_and_hand_over_when_they_end(
    world: World, events: tuple[Driver, Sqs, Bucket]
) -> None:
    driver, theirs, bucket = events
    worker = asyncio.create_task(queues.read_forever(world.place))

    async def is_empty() -> bool:
        return await asyncio.to_thread(theirs.left) == 0

    for i in range(3):
        await asyncio.to_thread(theirs.put, s3_event(bucket.name, f"{i}.txt"))
        await wait_for(is_empty, within_s=30)
    assert await hinted(world, driver) == {"0.txt", "1.txt", "2.txt"}
    assert (await known(world, driver)).is_leased
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)
    assert not (await known(world, driver)).is_leased


async def test_a_flood_of_messages_is_read_side_by_side(
    world: World, events: tuple[Driver, Sqs, Bucket], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver, theirs, bucket = events
    keys = [f"many/{i}.txt" for i in range(300)]
    for start in range(0, len(keys), 10):
        entries = [
            {"Id": str(i), "MessageBody": s3_event(bucket.name, key)} for i, key in enumerate(keys[start : start + 10])
        ]
        theirs.client.send_message_batch(QueueUrl=theirs.url, Entries=entries)
    theirs.client.set_queue_attributes(QueueUrl=theirs.url, Attributes={"VisibilityTimeout": "60"})
    async with opened(world, driver) as (reading, queue):
        most = running = 0
        receive = queue.receive

        async def counted(*, wait_s: int) -> object:
            nonlocal most, running
            running += 1
            most = max(most, running)
            try:
                return await receive(wait_s=min(wait_s, 1))
            finally:
                running -= 1

        monkeypatch.setattr(queue, "receive", counted)
        task = asyncio.create_task(reading._read_on(queue))

        async def is_empty() -> bool:
            return await asyncio.to_thread(theirs.left) == 0

        await wait_for(is_empty, within_s=60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert await hinted(world, driver) == set(keys)
    assert 1 < most <= queues._MOST_SIDE_BY_SIDE
