"""Roles that STS lends: at moto's STS, and at a server that plays one which minds every word."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import aiohttp
import pytest
from aiohttp import web

from headwater.errors import StoreDenied, Unavailable
from headwater.storage.opening import open_s3
from headwater.storage.s3.credentials import AssumedRole, RoleChain, caller_arn
from headwater.storage.s3.requests import S3Credentials
from tests import servers

ROLE = "arn:aws:iam::123456789012:role/reader"
OTHER_ROLE = "arn:aws:iam::210987654321:role/deep/reader"
BASE = S3Credentials("base-id", "base-secret")


class Sts:
    """Lends numbered credentials for as long as it is told."""

    def __init__(self) -> None:
        self.life_s = 3600.0
        self.refusal: tuple[int, str] | None = None
        self.asked: list[tuple[dict[str, str], str, str | None]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        form = {name: values[0] for name, values in parse_qs((await request.read()).decode()).items()}
        signed_by = request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        self.asked.append((form, signed_by, request.headers.get("X-Amz-Security-Token")))
        if self.refusal is not None:
            status, code = self.refusal
            text = f"<ErrorResponse><Error><Code>{code}</Code><Message>spoken secret</Message></Error></ErrorResponse>"
            return web.Response(status=status, text=text)
        await asyncio.sleep(0)
        number = len(self.asked)
        ends_at = (datetime.now(UTC) + timedelta(seconds=self.life_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return web.Response(
            text=f"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>lent-{number}</AccessKeyId>"
            f"<SecretAccessKey>secret-{number}</SecretAccessKey><SessionToken>{'t' * 2000}{number}</SessionToken>"
            f"<Expiration>{ends_at}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )


@pytest.fixture
async def sts() -> AsyncIterator[Sts]:
    played = Sts()
    app = web.Application()
    app.router.add_post("/", played.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    played.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield played
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def assumed(session: aiohttp.ClientSession, sts: Sts, *arns: str, external_id: str | None = None) -> AssumedRole:
    roles = RoleChain(arns or (ROLE,), external_id)
    return AssumedRole(session, BASE, roles, region="eu-west-1", endpoint=sts.url, backoff_s=0.001)


async def test_a_role_is_assumed_once_for_all_who_ask(session: aiohttp.ClientSession, sts: Sts) -> None:
    provider = assumed(session, sts, external_id="theirs")
    lent = await asyncio.gather(*(provider(False) for _ in range(20)))
    assert {credentials.access_key_id for credentials in lent} == {"lent-1"}
    [(form, signed_by, token)] = sts.asked
    assert (form["Action"], form["RoleArn"], form["ExternalId"]) == ("AssumeRole", ROLE, "theirs")
    assert (signed_by, token) == ("base-id", None)


async def test_without_an_external_id_none_is_sent(session: aiohttp.ClientSession, sts: Sts) -> None:
    await assumed(session, sts)(False)
    assert "ExternalId" not in sts.asked[0][0]


async def test_what_is_lent_is_renewed_before_it_ends(session: aiohttp.ClientSession, sts: Sts) -> None:
    sts.life_s = 299  # less than the five minutes ahead
    provider = assumed(session, sts)
    assert (await provider(False)).access_key_id == "lent-1"
    sts.life_s = 3600
    assert (await provider(False)).access_key_id == "lent-2"
    assert (await provider(False)).access_key_id == "lent-2"


async def test_what_the_store_calls_expired_is_renewed_once_for_all(session: aiohttp.ClientSession, sts: Sts) -> None:
    provider = assumed(session, sts)
    await provider(False)
    lent = await asyncio.gather(*(provider(True) for _ in range(10)))
    assert {credentials.access_key_id for credentials in lent} == {"lent-2"}


async def test_a_chain_of_roles_is_walked_with_what_the_one_before_lent(
    session: aiohttp.ClientSession, sts: Sts
) -> None:
    lent = await assumed(session, sts, ROLE, OTHER_ROLE)(False)
    assert lent.access_key_id == "lent-2"
    assert [(form["RoleArn"], by, token and token[-1]) for form, by, token in sts.asked] == [
        (ROLE, "base-id", None),
        (OTHER_ROLE, "lent-1", "1"),
    ]


@pytest.mark.parametrize(
    ("status", "code", "kind", "words"),
    [
        (403, "AccessDenied", StoreDenied, "external id"),
        (403, "InvalidClientTokenId", StoreDenied, "key"),
        (400, "ExpiredTokenException", StoreDenied, "key"),
        (503, "ServiceUnavailable", Unavailable, "again"),
        (400, "Throttling", Unavailable, "again"),
    ],
)
async def test_a_refusal_says_what_to_do_and_nothing_that_was_answered(
    session: aiohttp.ClientSession, sts: Sts, status: int, code: str, kind: type[Exception], words: str
) -> None:
    sts.refusal = (status, code)
    with pytest.raises(kind, match=words) as told:
        await assumed(session, sts)(False)
    assert code in str(told.value)
    assert "spoken secret" not in str(told.value)


async def test_at_a_real_sts(session: aiohttp.ClientSession, moto: servers.S3Server) -> None:
    key = S3Credentials(moto.admin.access_key_id, moto.admin.secret_access_key)
    assert (await caller_arn(session, key, region=servers.REGION, endpoint=moto.endpoint)).startswith("arn:aws:")
    provider = AssumedRole(session, key, RoleChain([ROLE], "id"), region=servers.REGION, endpoint=moto.endpoint)
    lent = await provider(False)
    assert lent.session_token
    assert lent.ends_at is not None
    assert timedelta(minutes=5) < lent.ends_at - datetime.now(UTC) < timedelta(hours=2)
    store = open_s3(bucket="none", region=servers.REGION, endpoint=moto.endpoint, credentials=provider)
    with pytest.raises(Exception, match="no bucket"):
        await store.check_listing()
    await store.close()
