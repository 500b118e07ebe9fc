"""Access tokens of Google Cloud, from endpoints on this machine that verify what they are sent."""

import asyncio
import base64
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from headwater.errors import BadRequest, FailedDependency, StoreDenied, Unavailable
from headwater.net.addresses import AddressRefused, open_connector
from headwater.storage.gcs.credentials import (
    Client,
    impersonated,
    own_identity,
    service_account,
    workload_identity,
)
from headwater.storage.gcs.documents import check_federation, check_service_account
from headwater.storage.opening import open_session
from tests.google import EMAIL, GoogleTokens, google_tokens, key_file, private_key


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def tokens() -> Iterator[GoogleTokens]:
    with google_tokens() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(None) as opened:
        yield opened


def account_of(tokens: GoogleTokens, **arguments: Any):
    content = key_file(token_uri=tokens.token_uri, **arguments)
    return check_service_account(content, allow_private=True)


def federation_of(tokens: GoogleTokens, *, impersonating: bool = False, **source: Any) -> str:
    document: dict[str, Any] = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/o",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{tokens.url}/v1/token",
        "credential_source": {"url": f"{tokens.url}/subject"} | source,
    }
    if impersonating:
        document["service_account_impersonation_url"] = (
            f"{tokens.url}/v1/projects/-/serviceAccounts/{EMAIL}:generateAccessToken"
        )
    return json.dumps(document)


JSON_FORMAT = {"type": "json", "subject_token_field_name": "access_token"}


# Service accounts


async def test_a_service_account_gets_a_token_for_what_it_signed(tokens: GoogleTokens, session: aiohttp.ClientSession):
    credentials = await service_account(account_of(tokens), session)(False)
    assert credentials.access_token == "token-1"
    (asked,) = tokens.asked
    claims = jwt.decode(
        asked.form["assertion"], private_key().public_key(), algorithms=["RS256"], audience=tokens.token_uri
    )
    assert claims["iss"] == EMAIL
    assert claims["scope"] == "https://www.googleapis.com/auth/devstorage.read_write"
    assert claims["exp"] - claims["iat"] == 3600
    assert jwt.get_unverified_header(asked.form["assertion"])["kid"] == "key-1"


async def test_a_token_is_kept_until_five_minutes_before_its_end(tokens: GoogleTokens, session: aiohttp.ClientSession):
    clock = Clock()
    tokens.script = [(200, {"access_token": f"t{n}", "expires_in": 3600}) for n in (1, 2)]
    provide = service_account(account_of(tokens), session, now_s=clock)
    assert (await provide(False)).access_token == "t1"
    clock.now_s += 3299
    assert (await provide(False)).access_token == "t1"
    clock.now_s += 2
    assert (await provide(False)).access_token == "t2"


async def test_a_short_token_is_kept_for_half_its_life(tokens: GoogleTokens, session: aiohttp.ClientSession):
    clock = Clock()
    tokens.script = [(200, {"access_token": f"t{n}", "expires_in": 200}) for n in (1, 2)]
    provide = service_account(account_of(tokens), session, now_s=clock)
    await provide(False)
    clock.now_s += 99
    assert (await provide(False)).access_token == "t1"
    clock.now_s += 2
    assert (await provide(False)).access_token == "t2"


async def test_many_who_ask_cause_one_renewal(tokens: GoogleTokens, session: aiohttp.ClientSession):
    provide = service_account(account_of(tokens), session)
    given = await asyncio.gather(*(provide(False) for _ in range(20)))
    assert ({one.access_token for one in given}, tokens.lent) == ({"token-1"}, 1)
    given = await asyncio.gather(*(provide(True) for _ in range(20)))
    assert ({one.access_token for one in given}, tokens.lent) == ({"token-2"}, 2)


async def test_a_token_lasts_through_a_short_outage_of_its_endpoint(
    tokens: GoogleTokens, session: aiohttp.ClientSession
):
    clock = Clock()
    provide = service_account(account_of(tokens), session, now_s=clock, backoff_s=0.001)
    tokens.script = [(200, {"access_token": "t1", "expires_in": 3600}), *[(503, {})] * 15]
    await provide(False)
    clock.now_s += 3400
    assert (await provide(False)).access_token == "t1"
    with pytest.raises(Unavailable):
        await provide(True)
    clock.now_s += 300
    with pytest.raises(Unavailable, match=r"busy or failing \(503 for the service account\)"):
        await provide(False)


async def test_a_failure_that_passes_is_not_seen(tokens: GoogleTokens, session: aiohttp.ClientSession):
    tokens.script = [(503, {}), (429, {"error": "rate_limit"})]
    provide = service_account(account_of(tokens), session, backoff_s=0.001)
    assert (await provide(False)).access_token == "token-3"


async def test_a_key_of_another_is_named(tokens: GoogleTokens, session: aiohttp.ClientSession):
    provide = service_account(account_of(tokens, key=private_key("another")), session)
    with pytest.raises(StoreDenied, match=r"does not know the service account's key .*invalid_grant.*Make a new key"):
        await provide(False)


async def test_a_deleted_account_is_named(tokens: GoogleTokens, session: aiohttp.ClientSession):
    tokens.accounts.clear()
    with pytest.raises(StoreDenied, match="was deleted or disabled"):
        await service_account(account_of(tokens), session)(False)


async def test_a_wrong_clock_is_named(tokens: GoogleTokens, session: aiohttp.ClientSession):
    clock = Clock()
    clock.now_s = 1_500_000_000.0
    with pytest.raises(FailedDependency, match="clock and ours differ too much") as raised:
        await service_account(account_of(tokens), session, now_s=clock)(False)
    assert not isinstance(raised.value, StoreDenied)


@pytest.mark.parametrize(
    "answer",
    ["", "<html>", "{}", "[]", '{"access_token": 5}', '{"access_token": ""}', '{"access_token": "a\\r\\nb"}'],
)
async def test_an_answer_without_a_token_is_no_token(tokens: GoogleTokens, session: aiohttp.ClientSession, answer: str):
    tokens.script = [answer]
    with pytest.raises(Unavailable, match="without an access token"):
        await service_account(account_of(tokens), session)(False)


async def test_an_answer_without_end_is_cut_off(tokens: GoogleTokens, session: aiohttp.ClientSession):
    tokens.script = ["x" * 1_000_000]
    with pytest.raises(Unavailable, match="too large for a token"):
        await service_account(account_of(tokens), session)(False)


async def test_an_endpoint_that_is_away_is_unavailable(session: aiohttp.ClientSession):
    account = check_service_account(key_file(token_uri="http://127.0.0.1:1/token"), allow_private=True)
    with pytest.raises(Unavailable, match="token endpoint of the service account"):
        await service_account(account, session, backoff_s=0.001)(False)


async def test_an_inner_token_endpoint_is_not_connected_to(tokens: GoogleTokens):
    async with open_connector(allow_private=False) as connector, open_session(connector) as session:
        with pytest.raises(AddressRefused, match="inner address"):
            await service_account(account_of(tokens), session)(False)
    assert tokens.asked == []


async def test_no_redirect_is_followed(tokens: GoogleTokens, session: aiohttp.ClientSession):
    tokens.script = [(307, {})]
    with pytest.raises(StoreDenied, match="sends us elsewhere"):
        await service_account(account_of(tokens), session)(False)
    assert tokens.lent == 1


# What people paste


def changed(**changes: Any) -> str:
    return json.dumps(json.loads(key_file()) | changes)


def elliptic_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "not a JSON document"),
        ("hunter2", "not a JSON document"),
        (key_file()[:-40], "not a JSON document"),
        ("[1]", "not a JSON document"),
        ("\udcff", "not a JSON document"),
        (changed(type="authorized_user"), "its type is not service_account"),
        (changed(type=["hunter2"]), "its type is not service_account"),
        (changed(client_email=None), "no client_email"),
        (changed(client_email="hunter2"), "client_email is not an address"),
        (changed(client_email="a/b@hunter2"), "client_email is not an address"),
        (changed(private_key=""), "no private_key"),
        (changed(private_key={"hunter2": 1}), "no private_key"),
        (changed(private_key="hunter2"), "not a whole RSA key"),
        (changed(private_key="-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"), "not a whole RSA"),
        (changed(private_key=elliptic_key()), "not a whole RSA key"),
        (changed(token_uri="http://oauth2.googleapis.com/token"), "https address of Google"),
        (changed(token_uri="https://hunter2.example.com/token"), "https address of Google"),
        (changed(token_uri="https://oauth2.googleapis.com.hunter2.com/token"), "https address of Google"),
        (changed(token_uri="https://hunter2@oauth2.googleapis.com/token"), "https address of Google"),
        (changed(token_uri="https://hunter2.com\\.googleapis.com/token"), "https address of Google"),
        (changed(token_uri="https://hunter2.com#.googleapis.com/token"), "https address of Google"),
        (changed(token_uri="https://oauth2.googleapis.com:8443/token"), "https address of Google"),
        (changed(token_uri="https://127.0.0.1/token"), "https address of Google"),
    ],
)
def test_a_key_file_that_is_wrong_is_refused_without_being_repeated(content: str, sentence: str):
    with pytest.raises(BadRequest, match=sentence) as raised:
        check_service_account(content)
    assert "hunter2" not in f"{raised.value!r} {raised.value.__cause__!r} {raised.value.__context__!r}"


@pytest.mark.parametrize(
    "uri",
    [
        "https://oauth2.googleapis.com/token",
        "https://accounts.google.com/o/oauth2/token",
        "https://www.googleapis.com/oauth2/v4/token",
    ],
)
def test_a_key_file_as_google_gives_it_is_taken(uri: str):
    account = check_service_account(changed(token_uri=uri))
    assert (account.email, account.token_uri) == (EMAIL, uri)


def test_a_key_whose_line_breaks_were_written_out_is_taken():
    pem = json.loads(key_file())["private_key"]
    check_service_account(changed(private_key=pem.replace("\n", "\\n")))


def test_nothing_secret_is_in_the_words_for_an_account():
    account = check_service_account(key_file())
    assert "PRIVATE" not in repr(account)
    assert "signer" not in repr(account)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"type": "service_account"}, "its type is not external_account"),
        ({"audience": ""}, "no audience"),
        ({"subject_token_type": None}, "no subject_token_type"),
        ({"token_url": "https://hunter2.com/v1/token"}, "token_url is not an https address of Google"),
        (
            {"service_account_impersonation_url": "https://hunter2.com/"},
            "service_account_impersonation_url is not an https address of Google",
        ),
        ({"credential_source": None}, "only a credential_source with a url"),
        ({"credential_source": {"file": "/etc/passwd"}}, "only a credential_source with a url"),
        ({"credential_source": {"executable": {"command": "id"}}}, "only a credential_source with a url"),
        ({"credential_source": {"url": "https://a", "executable": {}}}, "only a credential_source with a url"),
        ({"credential_source": {"url": "https://a", "environment_id": "aws1"}}, "only a credential_source with a url"),
        ({"credential_source": {"url": "http://hunter2/"}}, "url is not an https address"),
        ({"credential_source": {"url": "file:///etc/passwd"}}, "url is not an https address"),
        ({"credential_source": {"url": "https://u:hunter2@a/"}}, "url is not an https address"),
        ({"credential_source": {"url": "https://a", "headers": {"x": "hunter2\r\ny: 1"}}}, "headers"),
        ({"credential_source": {"url": "https://a", "headers": ["hunter2"]}}, "headers"),
        ({"credential_source": {"url": "https://a", "format": {"type": "json"}}}, "no subject_token_field_name"),
    ],
)
def test_a_federation_that_is_wrong_is_refused(changes: dict[str, Any], sentence: str):
    document = {
        "type": "external_account",
        "audience": "//iam",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"url": "https://idp.example.com/token"},
    }
    check_federation(json.dumps(document))
    with pytest.raises(BadRequest, match=sentence) as raised:
        check_federation(json.dumps(document | changes))
    assert "hunter2" not in str(raised.value)


# Workload identities


async def test_a_token_of_another_provider_is_exchanged(tokens: GoogleTokens, session: aiohttp.ClientSession):
    content = federation_of(tokens, headers={"Metadata": "True"}, format=JSON_FORMAT)
    provide = workload_identity(check_federation(content, allow_private=True), session)
    credentials = await provide(False)
    assert (credentials.access_token, credentials.url_signer) == ("federated-2", None)
    subject, exchange = tokens.asked
    assert (subject.path, subject.headers["Metadata"]) == ("/subject", "True")
    assert exchange.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/o",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token": "subject-1",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }


async def test_a_token_that_is_the_whole_answer_is_exchanged(tokens: GoogleTokens, session: aiohttp.ClientSession):
    tokens.script = ["a.b.c\n"]
    provide = workload_identity(check_federation(federation_of(tokens), allow_private=True), session)
    await provide(False)
    assert tokens.asked[1].form["subject_token"] == "a.b.c"


async def test_a_client_asks_the_provider_by_its_secret(tokens: GoogleTokens, session: aiohttp.ClientSession):
    federation = check_federation(federation_of(tokens), allow_private=True)
    await workload_identity(federation, session, client=Client("an id", "s:e+c"))(False)
    subject, exchange = tokens.asked
    assert subject.form == {"grant_type": "client_credentials"}
    assert base64.b64decode(subject.headers["Authorization"].removeprefix("Basic ")) == b"an+id:s%3Ae%2Bc"
    assert exchange.form["subject_token"] == "subject-1"


async def test_a_federated_identity_acts_as_a_service_account(tokens: GoogleTokens, session: aiohttp.ClientSession):
    federation = check_federation(federation_of(tokens, impersonating=True, format=JSON_FORMAT), allow_private=True)
    assert (await workload_identity(federation, session)(False)).access_token == "impersonated-3"
    assert tokens.asked[2].headers["Authorization"] == "Bearer federated-2"


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ([(401, {"error": "invalid_client"})], r"identity provider gives no token \(401 invalid_client"),
        (['{"other": "x"}'], "without a token where one was expected"),
        (
            ['{"access_token": "x"}', (400, {"error": "invalid_grant", "error_description": "x rejected"})],
            "does not accept the other identity provider's token",
        ),
        (
            [
                '{"access_token": "x"}',
                '{"access_token": "y", "expires_in": 60}',
                (403, {"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}),
            ],
            r"may not be acted as.*403 PERMISSION_DENIED.*roles/iam.serviceAccountTokenCreator",
        ),
    ],
)
async def test_each_step_of_a_federation_says_what_failed(
    tokens: GoogleTokens, session: aiohttp.ClientSession, script: list[Any], sentence: str
):
    tokens.script = script
    federation = check_federation(federation_of(tokens, impersonating=True, format=JSON_FORMAT), allow_private=True)
    with pytest.raises((StoreDenied, Unavailable), match=sentence):
        await workload_identity(federation, session)(False)


async def test_an_inner_source_of_a_federation_is_not_connected_to(tokens: GoogleTokens):
    async with open_connector(allow_private=False) as connector, open_session(connector) as session:
        federation = check_federation(federation_of(tokens), allow_private=True)
        with pytest.raises(AddressRefused):
            await workload_identity(federation, session)(False)
    assert tokens.asked == []


# Acting as another account


async def test_this_server_acts_as_the_account_that_allows_it(tokens: GoogleTokens, session: aiohttp.ClientSession):
    clock = Clock()
    own = own_identity(key_file(token_uri=tokens.token_uri), session, allow_private=True)
    provide = impersonated("them@their-project.iam.gserviceaccount.com", own, session, iam_url=tokens.url, now_s=clock)
    credentials = await provide(False)
    assert (credentials.access_token, credentials.url_signer) == ("impersonated-2", None)
    own_asked, asked = tokens.asked
    claims = jwt.decode(own_asked.form["assertion"], options={"verify_signature": False})
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    assert asked.path == (
        "/v1/projects/-/serviceAccounts/them@their-project.iam.gserviceaccount.com:generateAccessToken"
    )
    assert asked.headers["Authorization"] == "Bearer token-1"
    assert asked.form == {"scope": ["https://www.googleapis.com/auth/devstorage.read_write"], "lifetime": "3600s"}


async def test_a_lent_token_is_renewed_before_the_end_that_google_tells(
    tokens: GoogleTokens, session: aiohttp.ClientSession
):
    clock = Clock()  # 2030-03-17T17:46:40Z
    tokens.script = [
        (200, {"access_token": "own", "expires_in": 36_000}),
        (200, {"accessToken": "a", "expireTime": "2030-03-17T18:46:40Z"}),
        (200, {"accessToken": "b", "expireTime": "2030-03-17T19:46:40Z"}),
    ]
    own = service_account(account_of(tokens), session, now_s=clock)
    provide = impersonated(EMAIL, own, session, iam_url=tokens.url, now_s=clock)
    assert (await provide(False)).access_token == "a"
    clock.now_s += 3299
    assert (await provide(False)).access_token == "a"
    clock.now_s += 2
    assert (await provide(False)).access_token == "b"


@pytest.mark.parametrize("email", ["", "no address", "a/b@c", "a@b/../c", "a@b:c"])
def test_an_email_that_could_lead_elsewhere_is_refused(email: str):
    with pytest.raises(BadRequest, match="not an address"):
        impersonated(email, None, None)  # pyright: ignore[reportArgumentType]


async def test_an_api_that_is_off_is_named(tokens: GoogleTokens, session: aiohttp.ClientSession):
    message = "IAM Service Account Credentials API has not been used in project 1 before or it is disabled."
    tokens.script = [
        (200, {"access_token": "own"}),
        (403, {"error": {"status": "PERMISSION_DENIED", "message": message}}),
    ]
    own = service_account(account_of(tokens), session)
    with pytest.raises(StoreDenied, match="Enable the IAM Service Account Credentials API"):
        await impersonated(EMAIL, own, session, iam_url=tokens.url)(False)


async def test_no_secret_is_in_an_error_or_a_log(
    tokens: GoogleTokens, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    account = account_of(tokens)
    federation = check_federation(federation_of(tokens, impersonating=True), allow_private=True)
    secret = "canary-secret-42"
    words: list[str] = []
    for script in (
        [(400, {"error": "invalid_grant", "error_description": f"{secret} is wrong"})],
        [(400, {"error": secret})],
        [f'{{"access_token": "{secret} "}}'],
        [secret, (400, {"error": {"status": secret, "message": secret}})],
        [secret, f'{{"access_token": "{secret}"}}', (403, {"error": {"message": secret}})],
    ):
        for provide in (
            service_account(account, session, backoff_s=0.001),
            workload_identity(federation, session, client=Client("id", secret), backoff_s=0.001),
            workload_identity(federation, session, backoff_s=0.001),
        ):
            tokens.script = list(script)
            try:
                words.append(repr(await provide(False)))
            except (FailedDependency, Unavailable) as error:
                words += [str(error), repr(error.__cause__)]
    assert len(words) > 20
    assert not [text for text in [*words, caplog.text] if secret in text or "BEGIN" in text]
