"""Queues at moto and Azurite: received, hidden, deleted; and what each refusal means."""

import base64
from collections.abc import AsyncIterator, Iterator

import pytest

from headwater.errors import BadRequest, HeadwaterError, StoreDenied, StoreMissing, Unavailable
from headwater.storage.azure.signing import AccountKey, AzureCredentials, SharedAccessSignature
from headwater.storage.opening import open_session
from headwater.storage.queues import azure_queue, sqs
from headwater.storage.queues.queues import Queue
from headwater.storage.s3.requests import S3Credentials
from tests import servers
from tests.queues import AzuriteQueue, Sqs, new_azurite_queue, new_sqs


@pytest.fixture(scope="session")
def azurite_queues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.AzureServer]:
    with servers.azurite_queues(tmp_path_factory.mktemp("azurite-queues")) as server:
        yield server


def opened_sqs(url: str, server: servers.S3Server) -> Queue:
    async def provide(_anew: bool) -> S3Credentials:
        return S3Credentials(server.admin.access_key_id, server.admin.secret_access_key)

    address = sqs.SqsAddress.parse(url, servers.REGION)
    return sqs.SqsQueue(address, provide, open_session(None), backoff_s=0.001, attempts=2)


def opened_azure(queue: AzuriteQueue, credentials: AzureCredentials | None = None) -> Queue:
    async def provide(_anew: bool) -> AzureCredentials:
        return credentials or AccountKey(queue.server.key)

    address = azure_queue.AzureQueueAddress(queue.server.account, queue.name, queue.server.endpoint)
    return azure_queue.AzureQueue(address, provide, open_session(None), backoff_s=0.001, attempts=2)


Made = tuple[Sqs | AzuriteQueue, Queue]


@pytest.fixture(params=["sqs", "azure"])
async def made(
    request: pytest.FixtureRequest, moto: servers.S3Server, azurite_queues: servers.AzureServer
) -> AsyncIterator[Made]:
    if request.param == "sqs":
        theirs: Sqs | AzuriteQueue = new_sqs(moto)
        ours = opened_sqs(theirs.url, moto)
    else:
        theirs = new_azurite_queue(azurite_queues)
        ours = opened_azure(theirs)
    yield theirs, ours
    await ours.close()


async def test_what_is_put_is_received_once_until_it_is_deleted(made: Made) -> None:
    theirs, ours = made
    bodies = {f'{{"number": {i}, "text": "ä < & > \\" +"}}' for i in range(12)}
    for body in bodies:
        theirs.put(body)
    received = []
    while found := await ours.receive(wait_s=0):
        received += found
    assert {message.body.decode() for message in received} == bodies
    assert {message.receives for message in received} == {1}
    assert theirs.left() == 12
    await ours.delete(received)
    assert theirs.left() == 0


async def test_what_is_gone_is_deleted_again_without_complaint(made: Made) -> None:
    theirs, ours = made
    theirs.put("{}")
    received = await ours.receive(wait_s=0)
    await ours.delete(received)
    await ours.delete(received)


async def test_a_message_that_comes_while_one_waits_is_received(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure_queue, "_LOOK_EVERY_S", 0.01)
    theirs, ours = made
    assert await ours.receive(wait_s=0) == []
    theirs.put("{}")
    assert len(await ours.receive(wait_s=20)) == 1


async def test_a_message_that_is_not_deleted_comes_again_and_is_counted(moto: servers.S3Server) -> None:
    theirs = new_sqs(moto, VisibilityTimeout="0")
    ours = opened_sqs(theirs.url, moto)
    theirs.put("{}")
    assert [(await ours.receive(wait_s=0))[0].receives for _ in range(3)] == [1, 2, 3]
    await ours.close()


async def test_plain_json_in_an_azure_queue_is_read_too(azurite_queues: servers.AzureServer) -> None:
    theirs = new_azurite_queue(azurite_queues)
    ours = opened_azure(theirs)
    theirs.put('{"a": "<&>"}', is_encoded=False)
    assert [message.body for message in await ours.receive(wait_s=0)] == [b'{"a": "<&>"}']
    await ours.close()


@pytest.mark.parametrize(("text", "body"), [
    (base64.b64encode(b'{"a": 1}').decode(), b'{"a": 1}'),
    (base64.encodebytes(b'{"a": "' + b"x" * 100 + b'"}').decode(), b'{"a": "' + b"x" * 100 + b'"}'),
    ('  [{"a": 1}]', b'  [{"a": 1}]'),
    ("no base64!", b"no base64!"),
    ("", b""),
])  # fmt: skip
def test_messages_are_decoded_where_they_are_encoded(text: str, body: bytes) -> None:
    assert azure_queue.decoded(text) == body


async def refused(ours: Queue) -> HeadwaterError:
    with pytest.raises(HeadwaterError) as raised:
        await ours.receive(wait_s=0)
    await ours.close()
    return raised.value


async def test_a_queue_that_is_not_there_is_named(moto: servers.S3Server, azurite_queues: servers.AzureServer) -> None:
    url = new_sqs(moto).url
    error = await refused(opened_sqs(f"{url}-gone", moto))
    assert isinstance(error, StoreMissing)
    assert f'There is no queue "{url.rpartition("/")[2]}-gone"' in str(error)
    error = await refused(opened_azure(AzuriteQueue("no-such-queue", azurite_queues)))
    assert isinstance(error, StoreMissing)
    assert 'There is no queue "no-such-queue" of storage account "cameras"' in str(error)


async def test_a_wrong_key_is_told_and_not_repeated(azurite_queues: servers.AzureServer) -> None:
    theirs = new_azurite_queue(azurite_queues)
    wrong = base64.b64encode(b"not the key of the account").decode()
    error = await refused(opened_azure(theirs, AccountKey(wrong)))
    assert isinstance(error, StoreDenied)
    assert "Storage Queue Data Message Processor" in str(error)
    sas = "sv=2022-11-02&ss=b&srt=sco&sp=rl&se=2099-01-01T00:00:00Z&sig=c2VjcmV0"
    error = await refused(opened_azure(theirs, SharedAccessSignature(sas)))
    assert isinstance(error, StoreDenied)
    assert "c2VjcmV0" not in str(error)
    assert wrong not in repr(error)


async def test_a_server_that_is_no_queue_is_told(moto: servers.S3Server) -> None:
    (port,) = servers.free_ports(1)
    error = await refused(opened_sqs(f"http://127.0.0.1:{port}/123456789012/events", moto))
    assert isinstance(error, Unavailable)
    with pytest.raises(Unavailable, match="does not answer as a queue"):
        azure_queue._parse(b"<html>")
    with pytest.raises(Unavailable, match="does not answer as a queue"):
        azure_queue._parse(b"<a/>")


@pytest.mark.parametrize(("status", "code", "kind", "words"), [
    (400, "com.amazonaws.sqs#AccessDenied", StoreDenied, "sqs:ReceiveMessage, sqs:DeleteMessage"),
    (403, "com.amazon.coral.service#AccessDeniedException", StoreDenied, "arn:aws:sqs:eu-west-1:123456789012:events"),
    (403, "com.amazon.coral.service#InvalidClientTokenId", StoreDenied, "Renew them"),
    (400, "com.amazonaws.sqs#RequestThrottled", Unavailable, "busy"),
    (500, "", Unavailable, "busy"),
    (400, "com.amazonaws.sqs#QueueDoesNotExist", StoreMissing, "Check its URL"),
    (418, "", HeadwaterError, "refused"),
])  # fmt: skip
def test_each_refusal_of_sqs_says_what_to_do(status: int, code: str, kind: type, words: str) -> None:
    from multidict import CIMultiDict, CIMultiDictProxy

    from headwater.storage.requests import Request

    address = sqs.SqsAddress.parse("https://sqs.eu-west-1.amazonaws.com/123456789012/events", "us-east-1")
    dialect = sqs._SqsDialect(address)
    body = f'{{"__type": "{code}", "message": "secret words"}}'.encode()
    read = dialect.read_refusal(status, CIMultiDictProxy(CIMultiDict()), body)
    error = dialect.explain(Request("ReceiveMessage", "POST"), read)
    assert isinstance(error, kind)
    assert words in str(error)
    assert "secret words" not in str(error)


@pytest.mark.parametrize("url", [
    "events",
    "ftp://sqs.eu-west-1.amazonaws.com/123456789012/events",
    "https://sqs.eu-west-1.amazonaws.com/events",
    "https://sqs.eu-west-1.amazonaws.com/123456789012/events?a=b",
    "https://user@sqs.eu-west-1.amazonaws.com/123456789012/events",
    "https://sqs.eu-west-1.amazonaws.com/123456789012/events.fifo",
    "https://sqs.eu-west-1.amazonaws.com/123456789012/a b",
])  # fmt: skip
def test_what_is_no_url_of_a_queue_is_refused(url: str) -> None:
    with pytest.raises(BadRequest):
        sqs.SqsAddress.parse(url, "us-east-1")


@pytest.mark.parametrize(("url", "region", "arn"), [
    ("https://sqs.eu-west-1.amazonaws.com/1/q", "eu-west-1", "arn:aws:sqs:eu-west-1:1:q"),
    ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", "cn-north-1", "arn:aws-cn:sqs:cn-north-1:1:q"),
    ("https://sqs.us-gov-west-1.amazonaws.com/1/q", "us-gov-west-1", "arn:aws-us-gov:sqs:us-gov-west-1:1:q"),
    ("http://127.0.0.1:4566/000000000000/q", "us-east-2", "arn:aws:sqs:us-east-2:000000000000:q"),
])  # fmt: skip
def test_a_url_tells_where_its_queue_is(url: str, region: str, arn: str) -> None:
    address = sqs.SqsAddress.parse(url, "us-east-2")
    assert (address.region, address.arn) == (region, arn)


@pytest.mark.parametrize("name", ["Events", "a", "ends-", "two--hyphens", "x" * 64, "a/b", ""])
def test_what_is_no_name_of_an_azure_queue_is_refused(name: str) -> None:
    with pytest.raises(BadRequest, match="is not the name of a queue"):
        azure_queue.AzureQueueAddress("cameras", name, None)


@pytest.mark.parametrize(("endpoint", "url"), [
    (None, "https://cameras.queue.core.windows.net/events"),
    ("https://cameras.queue.core.chinacloudapi.cn/", "https://cameras.queue.core.chinacloudapi.cn/events"),
    ("http://127.0.0.1:10001", "http://127.0.0.1:10001/cameras/events"),
])  # fmt: skip
def test_an_azure_queue_is_where_its_account_is(endpoint: str | None, url: str) -> None:
    assert azure_queue.AzureQueueAddress("cameras", "events", endpoint).url == url


def test_no_secret_is_in_what_a_message_prints() -> None:
    from headwater.storage.queues.queues import Message

    assert "receipt-of-it" not in repr(Message("id", "receipt-of-it", b"body", 1))
