"""Signatures of Azure beside those of Microsoft's library, and credentials of every kind on a real Azurite."""

import asyncio
import base64
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import jwt
import pytest
from aiohttp import web
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.pipeline.transport import HttpRequest
from azure.storage.blob import ContainerClient, ContentSettings, generate_container_sas
from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from headwater.errors import BadRequest, FailedDependency, HeadwaterError, StoreDenied, Unavailable
from headwater.storage.azure.credentials import check_options, kind_of_secret, provider_of
from headwater.storage.azure.requests import Container
from headwater.storage.azure.signing import AccessToken, AccountKey, SharedAccessSignature, signed
from headwater.storage.opening import open_azure
from headwater.storage.requests import Request
from headwater.storage.stores import Store
from tests import servers
from tests.storage.conftest import azure_place, make_container
from tests.storage.scripted import Scripted

KEY = base64.b64encode(b"k" * 64).decode()
CLIENT_ID, TENANT_ID = "11111111-2222-3333-4444-555555555555", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
CLIENT_SECRET = "the~client.secret-value&="
PRINCIPAL = {"key": "cameras", "secret": CLIENT_SECRET, "clientId": CLIENT_ID, "tenantId": TENANT_ID}


# Where requests go


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (None, "https://cameras.blob.core.windows.net/cams"),
        ("https://cameras.blob.core.chinacloudapi.cn/", "https://cameras.blob.core.chinacloudapi.cn/cams"),
        ("https://cameras.z1.blob.storage.azure.net", "https://cameras.z1.blob.storage.azure.net/cams"),
        ("https://cameras.dfs.core.windows.net", "https://cameras.blob.core.windows.net/cams"),
        ("http://127.0.0.1:10000", "http://127.0.0.1:10000/cameras/cams"),
        ("https://camerasandmore.example.com", "https://camerasandmore.example.com/cameras/cams"),
    ],
)
def test_the_account_is_in_the_host_where_it_can_be(endpoint: str | None, url: str):
    assert Container("cameras", "cams", "", endpoint).url == url


@pytest.mark.parametrize("account", ["", "ab", "Cameras", "evil.example.com/", "a#b", "x" * 25, "cameras\n"])
def test_an_account_that_is_no_name_goes_into_no_host(account: str):
    with pytest.raises(BadRequest, match="3 to 24 lower-case"):
        Container(account, "cams", "", None)


@pytest.mark.parametrize(
    "container", ["", "ab", "Cams", "cams/folder", "a--b", "-ab", "ab-", "x" * 64, "a?b", "cams\n"]
)
def test_a_container_that_is_no_name_is_refused(container: str):
    with pytest.raises(BadRequest, match="not the name of a container"):
        Container("cameras", container, "", None)


# Signatures


keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\"), min_size=1, max_size=20)
queries = st.dictionaries(
    st.sampled_from(["comp", "restype", "prefix", "marker", "startFrom", "maxresults", "blockid"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10),
)
headers = st.dictionaries(
    st.sampled_from(["If-Match", "x-ms-range", "x-ms-blob-type", "x-ms-blob-content-type", "x-ms-access-tier"]),
    st.text("abc/-;= \"'0x", min_size=1, max_size=10).map(str.strip).filter(bool),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "DELETE", "POST"]),
    key=st.none() | keys,
    query=queries,
    given_headers=headers,
    body=st.binary(max_size=20),
    endpoint=st.sampled_from([None, "http://127.0.0.1:10000"]),
)
def test_requests_are_signed_as_the_library_signs_them(
    method: str, key: str | None, query: dict, given_headers: dict, body: bytes, endpoint: str | None
):
    container = Container("cameras", "cams", "d/", endpoint)
    request = Request("Any", method, key, {**query} if query.get("restype") != "service" else {}, given_headers, body)
    url, sent = signed(container, request, AccountKey(KEY))
    ours = sent.pop("Authorization")
    length = {"Content-Length": str(len(body))} if body else {}
    theirs = PipelineRequest(HttpRequest(method, url, headers=sent | length), context=PipelineContext(None))
    SharedKeyCredentialPolicy("cameras", KEY).on_request(theirs)
    assert ours == theirs.http_request.headers["Authorization"]


NAMES = ["plain", "a b/ü+%2B&.jpg", "a//b", "/lead", "trail/", "a#b?c=d", "\N{GRINNING FACE}", "e\u0301", "x" * 1000]


async def test_the_library_and_we_see_the_same_objects(azurite: servers.AzureServer):
    place = azure_place(azurite, f"cams-{secrets.token_hex(6)}")
    store = place.store()
    await make_container(store)
    ours, theirs = NAMES[::2], NAMES[1::2]
    for name in ours:
        await store.put(name, name.encode(), content_type="image/png")
    await asyncio.to_thread(write_with_library, azurite, store.container.name, theirs)
    found = await asyncio.to_thread(read_with_library, azurite, store.container.name)
    assert found == [await facts_of(store, name) for name in sorted(NAMES, key=lambda name: name.encode("utf-16-be"))]
    pages = [page async for page in store.list_pages()]
    listed = [fact for page in pages for fact in zip(page.keys, page.sizes, page.etags, page.modified, strict=True)]
    assert listed == [(name, size, etag, f"{modified:%Y-%m-%dT%H:%M:%SZ}") for name, size, etag, modified, *_ in found]
    await store.close()


def library_on(server: servers.AzureServer, container: str) -> ContainerClient:
    return ContainerClient(f"{server.endpoint}/{server.account}", container, credential=server.key)


def write_with_library(server: servers.AzureServer, container: str, names: list[str]) -> None:
    with library_on(server, container) as client:
        for name in names:
            client.upload_blob(name, name.encode(), content_settings=ContentSettings(content_type="image/png"))


def read_with_library(server: servers.AzureServer, container: str) -> list[tuple]:
    with library_on(server, container) as client:
        return [
            (
                blob.name,
                blob.size,
                blob.etag.strip('"'),
                blob.last_modified,
                blob.content_settings.content_type,
                client.download_blob(blob.name).readall(),
            )
            for blob in client.list_blobs()
        ]


async def facts_of(store: Store, name: str) -> tuple:
    info = await store.head(name)
    async with store.get(name) as reader:
        return (name, info.size_bytes, info.etag, info.modified_at, info.content_type, await reader.read())


# What people paste


def sas(**more: str) -> str:
    parts = {"sv": "2024-11-04", "ss": "b", "srt": "co", "sp": "rl", "se": "2099-01-01T00:00:00Z", "sig": "abc%2B%3D"}
    return "&".join(f"{name}={value}" for name, value in (parts | more).items() if value)


ACCOUNT_KEY, SAS_GIVEN = {"key": "cameras", "secret": KEY}, {"key": "cameras", "secret": sas()}
CONNECTION = f"DefaultEndpointsProtocol=https;AccountName=cameras;AccountKey={KEY};EndpointSuffix=core.windows.net"
BY_SAS = f"BlobEndpoint=https://cameras.blob.core.windows.net/;SharedAccessSignature={sas()}"


async def credentials_of(options: dict[str, str]) -> Any:
    async with aiohttp.ClientSession() as session:
        return await provider_of(options, session)(False)


@pytest.mark.parametrize(
    ("options", "kind", "credentials"),
    [
        (ACCOUNT_KEY, "account key", AccountKey(KEY)),
        ({"key": "cameras", "secret": f" {KEY} "}, "account key", AccountKey(KEY)),
        ({"key": "cameras", "secret": CONNECTION}, "account key", AccountKey(KEY)),
        (SAS_GIVEN, "SAS", SharedAccessSignature(sas())),
        ({"key": "cameras", "secret": f"?{sas()}"}, "SAS", SharedAccessSignature(sas())),
        ({"key": "cameras", "secret": BY_SAS}, "SAS", SharedAccessSignature(sas())),
        (
            {"key": "cameras", "secret": f"https://cameras.blob.core.windows.net/cams?{sas()}"},
            "SAS",
            SharedAccessSignature(sas()),
        ),
        ({"key": "cameras", "secret": sas(se="", si="policy")}, "SAS", SharedAccessSignature(sas(se="", si="policy"))),
    ],
)
async def test_what_is_pasted_is_understood(options: dict[str, str], kind: str, credentials: Any):
    check_options(options)
    assert kind_of_secret(options) == kind
    assert await credentials_of(options) == credentials


@pytest.mark.parametrize("tenant", [TENANT_ID, "contoso.onmicrosoft.com"])
def test_a_service_principal_is_told_by_its_ids(tenant: str):
    options = PRINCIPAL | {"tenantId": tenant}
    check_options(options)
    assert kind_of_secret(options) == "service principal"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"key": "Cameras", "secret": KEY}, "lower-case"),
        ({"key": "https://cameras.blob.core.windows.net", "secret": KEY}, "name alone"),
        ({"key": "cameras", "secret": "not a key"}, "neither an account key"),
        ({"key": "cameras", "secret": ""}, "neither an account key"),
        ({"key": "cameras", "secret": KEY[:-1]}, "neither an account key"),
        ({"key": "cameras", "secret": CONNECTION.replace("=cameras", "=others")}, "another account"),
        ({"key": "cameras", "secret": CONNECTION.replace("windows.net", "chinacloudapi.cn")}, "another cloud"),
        ({"key": "cameras", "secret": f"{CONNECTION};BlobEndpoint=http://127.0.0.1:10000/cameras"}, "emulator"),
        ({"key": "cameras", "secret": f"https://others.blob.core.windows.net/?{sas()}"}, "another account"),
        ({"key": "cameras", "secret": sas() + "\nHost: x"}, "not whole"),
        ({"key": "cameras", "secret": sas() + " and more"}, "not whole"),
        ({"key": "cameras", "secret": sas() + "&ü=1"}, "not whole"),
        ({"key": "cameras", "secret": sas(se="2020-01-01T00:00:00Z")}, r"expired at 2020-01-01 00:00 UTC"),
        ({"key": "cameras", "secret": sas(se="2020-01-01")}, r"expired at 2020-01-01"),
        ({"key": "cameras", "secret": sas(se="never")}, "does not tell its end"),
        ({"key": "cameras", "secret": sas(sr="b")}, "single blob"),
        (PRINCIPAL | {"tenantId": ""}, "tenantId"),
        (PRINCIPAL | {"clientId": ""}, "clientId"),
        (PRINCIPAL | {"clientId": "my-app"}, "clientId"),
        (PRINCIPAL | {"tenantId": "../../evil"}, "tenantId"),
        (PRINCIPAL | {"tenantId": "evil.com/x?"}, "tenantId"),
        (PRINCIPAL | {"tenantId": TENANT_ID + "\n"}, "tenantId"),
        (PRINCIPAL | {"secret": ""}, "client secret"),
    ],
)
def test_what_cannot_work_is_refused_without_repeating_it(options: dict[str, str], sentence: str):
    with pytest.raises(BadRequest, match=sentence) as raised:
        check_options(options)
    assert len(options["secret"]) < 5 or options["secret"] not in str(raised.value)
    assert KEY not in str(raised.value)
    assert "abc%2B" not in str(raised.value)


# Tokens of a service principal


class Authority(Scripted):
    """Gives a numbered token for each request, unless scripted otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.script = [self.token]
        self.life_s = 3600
        self.given = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_asked = asyncio.Event()

    async def token(self, _request: web.Request) -> web.Response:
        self.is_asked.set()
        await self.may_answer.wait()
        self.given += 1
        token = self.make_token(self.given)
        return web.json_response({"token_type": "Bearer", "expires_in": self.life_s, "access_token": token})

    def make_token(self, number: int) -> str:
        return f"token-{number}"

    def provider(self, session: aiohttp.ClientSession) -> Any:
        return provider_of(PRINCIPAL, session, authority=self.url, backoff_s=0.001)


@pytest.fixture
async def authority() -> AsyncIterator[Authority]:
    async with Authority.running() as server:
        yield server


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_token_is_asked_for_as_the_protocol_says(authority: Authority, session: aiohttp.ClientSession):
    assert await authority.provider(session)(False) == AccessToken("token-1")
    (request,), (body,) = authority.requests, authority.bodies
    assert (request.method, request.path) == ("POST", f"/{TENANT_ID}/oauth2/v2.0/token")
    assert request.content_type == "application/x-www-form-urlencoded"
    assert parse_qs(body.decode()) == {
        "grant_type": ["client_credentials"],
        "client_id": [CLIENT_ID],
        "client_secret": [CLIENT_SECRET],
        "scope": ["https://storage.azure.com/.default"],
    }


@pytest.mark.parametrize(("life_s", "given"), [(3600, 1), (360, 1), (300, 3), (60, 3)])
async def test_a_token_is_kept_until_five_minutes_before_its_end(
    authority: Authority, session: aiohttp.ClientSession, life_s: int, given: int
):
    authority.life_s = life_s
    provider = authority.provider(session)
    for _ in range(3):
        await provider(False)
    assert authority.given == given


@pytest.mark.parametrize("anew", [False, True])
async def test_many_who_need_a_token_ask_once(authority: Authority, session: aiohttp.ClientSession, anew: bool):
    provider = authority.provider(session)
    if anew:
        await provider(False)
    before = authority.given
    authority.may_answer.clear()
    authority.is_asked.clear()
    waiting = [asyncio.create_task(provider(anew)) for _ in range(10)]
    await asyncio.wait_for(authority.is_asked.wait(), 5)
    authority.may_answer.set()
    assert {token.token for token in await asyncio.gather(*waiting)} == {f"token-{before + 1}"}


def entra_refusal(code: int) -> web.Response:
    description = f"AADSTS{code}: {CLIENT_SECRET} is no good"
    return web.json_response({"error": "invalid_client", "error_description": description}, status=401)


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (entra_refusal(7000215), StoreDenied, "401 AADSTS7000215 on token.*client secret is wrong"),
        (entra_refusal(7000222), StoreDenied, "client secret has expired"),
        (entra_refusal(700016), StoreDenied, "no application with that clientId"),
        (entra_refusal(90002), StoreDenied, "no such tenant"),
        (entra_refusal(1), StoreDenied, "check tenantId, clientId and secret"),
        (web.Response(status=404), FailedDependency, "refused the request for a token"),
        (web.Response(status=503), Unavailable, "busy or failing"),
        (web.Response(text="<html>"), Unavailable, "without a token"),
        (web.json_response(["token"]), Unavailable, "without a token"),
        (web.json_response({"access_token": "a\r\nb", "expires_in": 3600}), Unavailable, "without a token"),
        (web.json_response({"access_token": "a"}), Unavailable, "without a token"),
    ],
)
async def test_a_principal_that_is_refused_is_told_why(
    authority: Authority,
    session: aiohttp.ClientSession,
    answer: web.Response,
    kind: type[HeadwaterError],
    sentence: str,
):
    authority.script = [answer]
    with pytest.raises(kind, match=sentence) as raised:
        await authority.provider(session)(False)
    assert type(raised.value) is kind
    assert CLIENT_SECRET not in str(raised.value) + repr(raised.value.__cause__)


async def test_an_authority_that_fails_for_a_moment_is_not_seen(authority: Authority, session: aiohttp.ClientSession):
    authority.script = [web.Response(status=503), web.Response(status=500), authority.token]
    assert await authority.provider(session)(False) == AccessToken("token-1")


# The same on Azurite, which speaks OAuth over https alone, and checks times, issuer and audience of tokens


class IssuingAuthority(Authority):
    """Its first tokens have ended already when it gives them."""

    expired = 0

    def make_token(self, number: int) -> str:
        now = int(time.time())
        end = now - 60 if number <= self.expired else now + 3600
        claims = {
            "aud": "https://storage.azure.com",
            "iss": f"https://sts.windows.net/{TENANT_ID}/",
            "iat": now - 3600,
            "nbf": now - 3600,
            "exp": end,
            "oid": CLIENT_ID,
            "tid": TENANT_ID,
        }
        return jwt.encode(claims, "k" * 64, algorithm="HS256")


@pytest.fixture
async def issuing() -> AsyncIterator[IssuingAuthority]:
    async with IssuingAuthority.running() as server:
        yield server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("certificate") / "server.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(built.public_bytes(Encoding.PEM) + private)
    return file


@pytest.fixture(scope="module")
def azurite_over_https(tmp_path_factory: pytest.TempPathFactory, certificate: Path) -> Iterator[servers.AzureServer]:
    with servers.azurite(tmp_path_factory.mktemp("azurite"), certificate=certificate) as server:
        yield server


@pytest.fixture
async def trusting(certificate: Path) -> AsyncIterator[aiohttp.TCPConnector]:
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(certificate)))
    yield connector
    await connector.close()


@pytest.fixture
async def store_of_principal(
    azurite_over_https: servers.AzureServer,
    issuing: IssuingAuthority,
    session: aiohttp.ClientSession,
    trusting: aiohttp.TCPConnector,
) -> AsyncIterator[Store]:
    store = open_azure(
        account=azurite_over_https.account,
        container=f"cams-{secrets.token_hex(6)}",
        endpoint=azurite_over_https.endpoint,
        credentials=issuing.provider(session),
        connector=trusting,
        backoff_s=0.001,
    )
    await make_container(store)
    yield store
    await store.close()


async def test_a_service_principal_reads_and_writes(store_of_principal: Store, issuing: IssuingAuthority):
    await store_of_principal.put("a/ü", b"bytes", content_type="image/png")
    async with store_of_principal.get("a/ü") as reader:
        assert await reader.read() == b"bytes"
    assert [page.keys async for page in store_of_principal.list_pages()] == [["a/ü"]]
    assert issuing.given == 1


async def test_a_token_that_has_ended_is_renewed_and_the_work_goes_on(
    azurite_over_https: servers.AzureServer,
    issuing: IssuingAuthority,
    session: aiohttp.ClientSession,
    trusting: aiohttp.TCPConnector,
    store_of_principal: Store,
):
    await store_of_principal.put("a", b"1", content_type="text/plain")
    issuing.given, issuing.expired = 0, 1
    store = open_azure(
        account=azurite_over_https.account,
        container=store_of_principal.container.name,
        endpoint=azurite_over_https.endpoint,
        credentials=issuing.provider(session),
        connector=trusting,
        backoff_s=0.001,
    )
    assert (await store.head("a")).size_bytes == 1
    assert issuing.given == 2
    await store.close()


async def test_a_service_principal_signs_with_a_key_that_is_lent(
    store_of_principal: Store, certificate: Path, issuing: IssuingAuthority
):
    await store_of_principal.put("a b/ü+%2B&.jpg", b"secret bytes", content_type="image/jpeg")
    urls = [
        str(await store_of_principal.sign_get("a b/ü+%2B&.jpg", expires_s=60, file_name='ü "x".jpg', content_type=kind))
        for kind in ("image/png", "image/gif")
    ]
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with aiohttp.ClientSession() as session:
        async with session.get(URL(urls[0], encoded=True), ssl=trusted) as response:
            assert (response.status, await response.read()) == (200, b"secret bytes")
        async with session.get(URL(urls[1].replace("se=20", "se=21"), encoded=True), ssl=trusted) as response:
            assert response.status == 403
    assert all("skoid=" in url and "spr=https" in url for url in urls)


async def test_a_principal_that_may_not_sign_leaves_it(authority: Authority, session: aiohttp.ClientSession):
    refused = web.Response(status=403, headers={"x-ms-error-code": "AuthorizationPermissionMismatch"})
    async with Scripted.running() as azure:
        azure.script = [refused]
        store = open_azure(
            account="cameras",
            container="cams",
            endpoint=azure.url,
            credentials=authority.provider(session),
            backoff_s=0.001,
        )
        assert [await store.sign_get("a", expires_s=60) for _ in range(3)] == [None] * 3
        await store.close()
        (asked,) = azure.requests
    assert (asked.method, dict(asked.query)) == ("POST", {"restype": "service", "comp": "userdelegationkey"})


def lent_key(ends_at: datetime) -> web.Response:
    parts = {
        "SignedOid": "oid", "SignedTid": "tid", "SignedStart": "2026-01-01T00:00:00Z",
        "SignedExpiry": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}", "SignedService": "b", "SignedVersion": "2023-11-03",
        "Value": "bm90IGEgc2VjcmV0",
    }  # fmt: skip
    content = "".join(f"<{name}>{text}</{name}>" for name, text in parts.items())
    return web.Response(text=f"<UserDelegationKey>{content}</UserDelegationKey>", content_type="application/xml")


@pytest.mark.parametrize(("left_s", "asked_s", "lasts_s"), [(600, 900, 600), (600, 60, 60), (86_400, 900, 900)])
async def test_a_url_ends_no_later_than_the_key_that_was_lent_for_it(
    authority: Authority, session: aiohttp.ClientSession, left_s: int, asked_s: int, lasts_s: int
):
    began = datetime.now(UTC).replace(microsecond=0)
    async with Scripted.running() as azure:
        azure.script = [lent_key(began + timedelta(seconds=left_s))]
        store = open_azure(
            account="cameras",
            container="cams",
            endpoint=azure.url,
            credentials=authority.provider(session),
            backoff_s=0.001,
        )
        url = URL(str(await store.sign_get("a", expires_s=asked_s)))
        await store.close()
    told = datetime.fromisoformat(url.query["se"])
    is_clamped = lasts_s == left_s
    assert told - began >= timedelta(seconds=lasts_s)
    assert told - (began if is_clamped else datetime.now(UTC)) <= timedelta(seconds=lasts_s)


async def test_a_sas_is_used_but_never_handed_out(azurite: servers.AzureServer):
    place = azure_place(azurite, f"cams-{secrets.token_hex(6)}")
    await make_container(place.store())
    await place.store().put("a", b"1", content_type="text/plain")
    end = datetime.now(UTC) + timedelta(hours=1)
    container = place.opened[0].container.name
    token = generate_container_sas(azurite.account, container, azurite.key, permission="racwdl", expiry=end)
    async with aiohttp.ClientSession() as session:
        store = place.store(credentials=provider_of({"key": azurite.account, "secret": token}, session))
        assert (await store.head("a")).size_bytes == 1
        assert await store.sign_get("a", expires_s=60) is None
    await asyncio.gather(*(store.close() for store in place.opened))


async def test_a_sas_that_has_expired_is_refused_by_azurite(azurite: servers.AzureServer):
    place = azure_place(azurite, f"cams-{secrets.token_hex(6)}")
    await make_container(place.store())
    end = datetime.now(UTC) - timedelta(hours=1)
    container = place.opened[0].container.name
    token = generate_container_sas(azurite.account, container, azurite.key, permission="rl", expiry=end)

    async def expired(_anew: bool) -> SharedAccessSignature:
        return SharedAccessSignature(token)

    with pytest.raises(StoreDenied):
        await place.store(credentials=expired).check_listing()
    await asyncio.gather(*(store.close() for store in place.opened))
