"""Hooks: the address is the key, what is kept is committed, and nothing that is sent makes them fail."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from headwater.api import hooks
from headwater.app import create_app
from headwater.settings import Settings
from tests.conftest import OWNER, PASSWORD
from tests.google import private_key

ORIGIN = "http://headwater.test"
PUSHER = "pusher@a-project.iam.gserviceaccount.com"


@dataclass
class Clouds:
    """Google's public keys, and the place where subscriptions of SNS are confirmed."""

    url: str = ""
    confirmed: list[str] = field(default_factory=list)
    status: int = 200
    keys: dict[str, str] = field(default_factory=dict)
    asked: int = 0

    async def certs(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response(self.keys)

    async def confirm(self, request: web.Request) -> web.Response:
        self.confirmed.append(request.path_qs)
        return web.Response(status=self.status)


@pytest.fixture(scope="module")
async def clouds() -> AsyncIterator[Clouds]:
    made = Clouds()
    app = web.Application()
    app.router.add_get("/certs", made.certs)
    app.router.add_get("/confirm", made.confirm)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    public = private_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    made.keys = {"key-1": public.decode()}
    yield made
    await runner.cleanup()


@pytest.fixture(scope="module")
async def app(
    new_database: Callable[[], str], settings_for: Callable[..., Settings], clouds: Clouds
) -> AsyncIterator[Any]:
    settings = settings_for(public_url=ORIGIN, google_certs_endpoint=f"{clouds.url}/certs", aws_sns_endpoint=clouds.url)
    made = create_app(settings, new_database())
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture(scope="module")
async def client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Nobody in particular."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=f"{ORIGIN}/api/v1") as made:
        yield made


@dataclass
class Driver:
    app: Any
    client: httpx.AsyncClient
    owner: dict[str, str]
    id: int
    hook: str = ""

    @property
    def url(self) -> str:
        return f"/drivers/{self.id:024x}/events"

    async def change(self, **body: Any) -> dict[str, Any]:
        answer = await self.client.patch(self.url, json=body, headers=self.owner)
        assert answer.status_code == 200, answer.text
        self.hook = answer.json()["hook"] or self.hook
        return answer.json()

    async def send(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.client.post(self.hook, content=content, headers=headers)

    async def inbox(self) -> set[str]:
        return {key for (key,) in await self.execute("SELECT key FROM hint WHERE driver_id = %s", self.id)}

    async def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        async with self.app.state.server.place.pool.connection() as conn:
            cursor = await conn.execute(statement, list(parameters))
            return await cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
async def owner(client: httpx.AsyncClient) -> dict[str, str]:
    answer = await client.post(f"{ORIGIN}/token?default", json={"username": OWNER, "password": PASSWORD})
    return {"authorization": f"Bearer {answer.json()['id_token']}"}


@pytest.fixture
async def driver(app: Any, client: httpx.AsyncClient, owner: dict[str, str]) -> Driver:
    """Its events are on."""
    made = Driver(app, client, owner, 0)
    ((made.id,),) = await made.execute(
        """
        WITH someone AS (
            SELECT account.id AS account_id, member.organization_id
            FROM account JOIN member ON member.account_id = account.id
            WHERE email = %s LIMIT 1
        ), project AS (
            INSERT INTO project (organization_id, name, creator_id)
            SELECT organization_id, gen_random_uuid()::text, account_id FROM someone
            RETURNING id
        ), integration AS (
            INSERT INTO integration (organization_id, name, kind, creator_id)
            SELECT organization_id, gen_random_uuid()::text, 's3', account_id FROM someone
            RETURNING id
        )
        INSERT INTO driver (project_id, integration_id, name, kind, root, prefix, allow_delete, creator_id)
        SELECT project.id, integration.id, 'photos', 's3', 'photos', 'cams/', false, someone.account_id
        FROM someone, project, integration
        RETURNING id
        """,
        OWNER,
    )
    await made.change(on=True)
    return made


def s3(*keys: str, name: str = "ObjectCreated:Put") -> dict[str, Any]:
    records = [
        {"eventName": name, "s3": {"bucket": {"name": "photos"}, "object": {"key": key, "size": 1, "eTag": "e"}}}
        for key in keys
    ]
    return {"Records": records}


async def test_what_is_sent_is_kept_before_the_answer(driver: Driver):
    answer = await driver.send(s3("cams/a+b", "cams/c%2Bd", "other/e"))
    assert (answer.status_code, answer.json()) == (200, {"kept": 2, "ignored": 1})
    assert await driver.inbox() == {"cams/a b", "cams/c+d"}
    assert (await driver.send(s3("cams/a+b"))).status_code == 200
    known = (await driver.client.get(driver.url, headers=driver.owner)).json()
    assert (known["on"], known["received"], known["ignored"], known["waiting"]) == (True, 3, 1, 2)
    assert known["lastEventAt"] is not None


async def test_an_address_that_is_not_right_is_nowhere_whatever_is_wrong_with_it(driver: Driver):
    front, _, secret = driver.hook.rpartition("/")
    wrong = [
        f"{front}/{secret[:-1]}",
        f"{front}/{secret}x",
        f"{front}/{secret.swapcase()}",
        f"{front}/%00",
        f"{front}/%FF",
        f"{front}/ö",
        f"{front.rpartition('/')[0]}/{2**62:024x}/{secret}",
        f"{front.rpartition('/')[0]}/nothing/{secret}",
    ]
    told = set()
    for url in wrong:
        for method in ("POST", "GET", "OPTIONS"):
            answer = await driver.client.request(method, url, content=b"[]" if method == "POST" else None)
            assert answer.status_code == 404, (method, url)
            told.add(answer.json()["message"])
    assert len(told) == 1
    assert await driver.inbox() == set()
    # Another driver's secret opens nothing here, and it is not read from the address of this one.
    assert secret not in (await driver.client.get("/openapi.json")).text


async def test_off_is_nowhere_and_on_again_is_the_same_address(driver: Driver):
    hook = driver.hook
    await driver.send(s3("cams/a"))
    assert (await driver.change(on=False))["hook"] is None
    assert (await driver.send(s3("cams/a"))).status_code == 404
    assert await driver.inbox() == set()
    assert (await driver.change(on=True))["hook"] == hook
    assert (await driver.send(s3("cams/a"))).status_code == 200


async def test_a_rotated_address_ends_the_one_before(driver: Driver):
    before = driver.hook
    await driver.change(rotate=True)
    assert driver.hook != before
    assert (await driver.send(s3("cams/a"))).status_code == 200
    driver.hook = before
    assert (await driver.send(s3("cams/b"))).status_code == 404


async def test_foreign_and_long_bodies_are_refused_with_a_sentence(driver: Driver):
    for body in (b"<xml/>", b"{}", b"[" * 100_000, b"\xff", b'{"Records": [{}]}', b'"a"'):
        answer = await driver.send(body)
        assert answer.status_code == 400
        assert answer.json()["message"].startswith("The body ")
    long = s3(*[f"cams/{'k' * 900}{n}" for n in range(5_000)])
    answer = await driver.send(long)
    assert answer.status_code == 413
    assert "4194304 bytes" in answer.json()["message"]
    assert await driver.inbox() == set()
    assert (await driver.send(s3(*[f"cams/{n}" for n in range(5_000)]))).json() == {"kept": 5_000, "ignored": 0}


async def test_a_key_that_cannot_be_stored_does_not_cost_the_others(driver: Driver):
    answer = await driver.send(s3("cams/a", "cams/%00", "cams/" + "k" * 1_100))
    assert answer.json() == {"kept": 1, "ignored": 2}


async def test_a_value_that_cannot_be_stored_does_not_cost_the_others(driver: Driver):
    sent = s3("cams/a", "cams/b", "cams/c", "cams/d")
    sent["Records"][0]["s3"]["object"]["eTag"] = "a\0b"
    sent["Records"][1]["s3"]["object"]["eTag"] = "\ud800"
    sent["Records"][2]["eventTime"] = "0001-01-01T00:00:00+14:00"
    sent["Records"][3]["s3"]["bucket"]["name"] = "\ud800"
    answer = await driver.send(sent)
    assert (answer.status_code, answer.json()["kept"]) == (200, 4)
    contents = "SELECT content FROM hint WHERE driver_id = %s AND key < 'cams/c'"
    assert await driver.execute(contents, driver.id) == [(None,), (None,)]
    assert (await driver.client.get(driver.url, headers=driver.owner)).json()["lastHappenedAt"] is None
    entry = {"name": "e", "extended": {"Seaweed-X-Amz-ETag": "²"}}
    moved = {"event_type": "create", "key": "/buckets/photos/cams/e", "message": {"new_entry": entry}}
    moved["message"]["new_parent_path"] = "/buckets/photos/cams"
    assert (await driver.send(moved)).json() == {"kept": 1, "ignored": 0}


async def test_events_that_come_with_a_handshake_are_kept(driver: Driver):
    validation = {"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "c-1"}}
    subject = "/blobServices/default/containers/photos/blobs/cams/a"
    created = {"eventType": "Microsoft.Storage.BlobCreated", "subject": subject, "data": {}}
    assert (await driver.send([validation, created])).json() == {"validationResponse": "c-1"}
    assert await driver.inbox() == {"cams/a"}


async def test_a_body_that_comes_too_slowly_keeps_nobody_waiting(driver: Driver, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hooks, "_BODY_S", 0.05)

    async def slowly() -> AsyncIterator[bytes]:
        yield b"["
        await asyncio.Event().wait()

    answer = await driver.client.post(driver.hook, content=slowly())
    assert answer.status_code == 408
    assert "Send them again" in answer.json()["message"]


async def test_who_only_looks_and_who_shakes_hands_hears_that_it_is_right(driver: Driver):
    assert (await driver.client.get(driver.hook)).status_code == 200
    greeting = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
    answer = await driver.client.options(driver.hook, headers=greeting)
    assert answer.status_code == 200
    assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"
    assert answer.headers["WebHook-Allowed-Rate"] == "*"
    validation = {"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": {"validationCode": "c-1"}}
    answer = await driver.send([validation])
    assert (answer.status_code, answer.json()) == (200, {"validationResponse": "c-1"})
    assert (await driver.send(b"")).json() == {"kept": 0, "ignored": 0}


def subscription(url: str) -> dict[str, str]:
    return {"Type": "SubscriptionConfirmation", "TopicArn": "arn:aws:sns:eu-west-1:1:t", "SubscribeURL": url}


async def test_a_subscription_of_sns_is_confirmed_where_it_may_be(driver: Driver, clouds: Clouds):
    clouds.confirmed.clear()
    assert (await driver.send(subscription(f"{clouds.url}/confirm?Token=5"))).status_code == 200
    assert clouds.confirmed == ["/confirm?Token=5"]
    clouds.status = 500
    assert (await driver.send(subscription(f"{clouds.url}/confirm"))).status_code == 503
    clouds.status = 200


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://sns.eu-west-1.amazonaws.com.evil.test/",
        "https://evil.test/sns.eu-west-1.amazonaws.com",
        "https://user@evil.test/",
        "https://[",
        "file:///etc/passwd",
        "",
    ],
)
async def test_no_other_address_is_fetched(driver: Driver, clouds: Clouds, url: str):
    clouds.confirmed.clear()
    answer = await driver.send(subscription(url))
    assert answer.status_code in (200, 400)
    assert clouds.confirmed == []


def pubsub(key: str) -> dict[str, Any]:
    attributes = {"eventType": "OBJECT_FINALIZE", "bucketId": "photos", "objectId": key, "objectGeneration": "1"}
    return {"message": {"attributes": attributes, "data": base64.b64encode(b"{}").decode()}}


def token(*, key: Any = None, kid: str = "key-1", **changed: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": "https://accounts.google.com",
        "aud": ORIGIN,
        "azp": "1",
        "sub": "1",
        "email": PUSHER,
        "email_verified": True,
        "iat": now,
        "exp": now + 3600,
    }
    told = {name: value for name, value in (claims | changed).items() if value is not None}
    return jwt.encode(told, key or private_key(), algorithm="RS256", headers={"kid": kid})


async def test_a_push_of_pubsub_shows_a_token_of_googles(driver: Driver):
    for audience in (ORIGIN, f"{ORIGIN}/api/v1", driver.hook):
        answer = await driver.send(pubsub("cams/a"), authorization=f"Bearer {token(aud=audience)}")
        assert (answer.status_code, answer.json()) == (200, {"kept": 1, "ignored": 0})


def none_of(claims: dict[str, Any]) -> str:
    return jwt.encode(claims, "", algorithm="none", headers={"kid": "key-1"})


WRONG_TOKENS = {
    "none": lambda: "",
    "no token": lambda: "Bearer ",
    "garbage": lambda: "Bearer a.b.c",
    "another kind": lambda: "Basic " + token(),
    "of another receiver": lambda: "Bearer " + token(aud="https://elsewhere.test"),
    "of another issuer": lambda: "Bearer " + token(iss="https://evil.test"),
    "too old": lambda: "Bearer " + token(iat=1, exp=2),
    "for ever": lambda: "Bearer " + token(exp=None),
    "signed by another": lambda: "Bearer " + token(key=private_key("another")),
    "of a key that is not Google's": lambda: "Bearer " + token(kid="key-2"),
    "not signed": lambda: "Bearer " + none_of({"iss": "https://accounts.google.com", "aud": ORIGIN, "email": PUSHER}),
    "without an account": lambda: "Bearer " + token(email=None),
    "of an account that nobody verified": lambda: "Bearer " + token(email_verified=False),
    "of another account": lambda: "Bearer " + token(email="other@a-project.iam.gserviceaccount.com"),
}


@pytest.mark.parametrize("wrong", WRONG_TOKENS)
async def test_a_push_with_a_wrong_token_keeps_nothing(driver: Driver, wrong: str):
    await driver.change(pushAccount=PUSHER)
    answer = await driver.send(pubsub("cams/a"), authorization=WRONG_TOKENS[wrong]())
    assert answer.status_code == 401, answer.text
    assert len(answer.json()["message"].split()) > 5
    assert await driver.inbox() == set()
    answer = await driver.send(pubsub("cams/a"), authorization=f"Bearer {token()}")
    assert answer.status_code == 200
    await driver.change(pushAccount="")
    answer = await driver.send(pubsub("cams/b"), authorization=f"Bearer {token(email='other@x.test')}")
    assert answer.status_code == 200


async def test_googles_keys_are_asked_for_once(driver: Driver, clouds: Clouds):
    before = clouds.asked
    for n in range(5):
        await driver.send(pubsub(f"cams/{n}"), authorization=f"Bearer {token(kid='key-1' if n else 'unknown')}")
    assert clouds.asked - before <= 1


async def test_deliveries_side_by_side_of_the_same_keys_lose_none(driver: Driver):
    keys = [f"cams/{n}" for n in range(200)]
    bodies = [s3(*keys[n:], *keys[:n]) for n in range(0, 200, 20)]
    answers = await asyncio.gather(*[driver.send(body) for body in bodies])
    assert [answer.status_code for answer in answers] == [200] * 10
    assert await driver.inbox() == set(keys)


async def test_too_many_at_once_are_asked_to_come_again(driver: Driver, app: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hooks, "_WAIT_S", 0.01)
    monkeypatch.setattr(app.state.doors, "_slots", asyncio.Semaphore(0))
    answer = await driver.send(s3("cams/a"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")


async def test_the_address_is_in_no_log_and_no_audit_line(driver: Driver, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    secret = driver.hook.rpartition("/")[2]
    await driver.execute("ALTER TABLE driver_events RENAME TO away")
    try:
        answer = await driver.send(s3("cams/a"))
        assert answer.status_code == 500
    finally:
        await driver.execute("ALTER TABLE away RENAME TO driver_events")
    await driver.change(rotate=True)
    new = driver.hook.rpartition("/")[2]
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("httpx")]
    assert any("/hooks/" in line for line in ours)
    assert not [line for line in ours if secret in line or new in line]
    audited = await driver.execute("SELECT details::text FROM audit WHERE action = 'driver.events.changed'")
    assert audited
    assert not [line for (line,) in audited if secret in line or new in line]


async def test_who_may_only_read_does_not_see_the_address(driver: Driver):
    ((project_id,),) = await driver.execute("SELECT project_id FROM driver WHERE id = %s", driver.id)
    email = f"annotator-{driver.id}@headwater.test"
    made = {"email": email, "password": "a long password, really"}
    await driver.client.post("/users", json=made, headers=driver.owner)
    await driver.execute(
        """
        WITH someone AS (
            INSERT INTO account (email) VALUES (%s) ON CONFLICT DO NOTHING RETURNING id
        ), known AS (
            SELECT id FROM someone UNION SELECT id FROM account WHERE email = %s
        )
        INSERT INTO project_member (project_id, account_id, role) SELECT %s, id, 'annotator' FROM known
        """,
        email,
        email,
        project_id,
    )
    ((account_id,),) = await driver.execute("SELECT id FROM account WHERE email = %s", email)
    signed = driver.app.state.server.signer.sign(account_id=account_id, email=email)
    answer = await driver.client.get(driver.url, headers={"authorization": f"Bearer {signed}"})
    assert (answer.status_code, answer.json()["hook"], answer.json()["on"]) == (200, None, True)


async def test_a_dataset_may_be_left_out(driver: Driver):
    ((project_id,),) = await driver.execute("SELECT project_id FROM driver WHERE id = %s", driver.id)
    body = {"name": "d", "projects": [f"{project_id:024x}"], "driver": f"{driver.id:024x}", "sync": False}
    made = (await driver.client.post("/datasets", json=body, headers=driver.owner)).json()
    for on in (False, True):
        answer = await driver.client.put(f"/datasets/{made['id']}/autoSync", json={"on": on}, headers=driver.owner)
        assert answer.json() == {"on": on}
        known = (await driver.client.get(driver.url, headers=driver.owner)).json()
        assert [dataset["id"] for dataset in known["datasets"]] == ([made["id"]] if on else [])
