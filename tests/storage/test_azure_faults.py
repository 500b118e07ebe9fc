"""What Azure may do wrong, played by a small server, and what becomes of it; some of it on Azurite, too."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    RangeNotSatisfiable,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage import sending
from headwater.storage.azure.signing import AccessToken, AccountKey, AzureCredentials, SharedAccessSignature
from headwater.storage.azure.uploads import SMALLEST_BLOCK_BYTES, block_bytes, block_id, new_name
from headwater.storage.opening import open_azure
from headwater.storage.requests import Request
from headwater.storage.stores import ListingPage, Store
from tests.storage.scripted import Handler, Scripted, broken_off

SECRETS = ("c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA==", "c2VjcmV0LXNpZ25hdHVyZQ%3D%3D", "secret.access.token")
KEY = AccountKey(SECRETS[0])
SAS = SharedAccessSignature(f"sv=2026-02-06&sp=rl&sig={SECRETS[1]}")
TOKEN = AccessToken(SECRETS[2])


class ScriptedAzure(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.refreshes: list[bool] = []
        self.credentials_given: AzureCredentials = KEY

    async def credentials(self, refresh: bool) -> AzureCredentials:
        self.refreshes.append(refresh)
        return self.credentials_given

    def store(self, **arguments: Any) -> Store:
        given = {"account": "cameras", "container": "cams", "prefix": "d", "endpoint": self.url, "backoff_s": 0.001}
        return open_azure(**(given | {"credentials": self.credentials} | arguments))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedAzure]:
    async with ScriptedAzure.running() as scripted:
        yield scripted


@pytest.fixture
async def store(server: ScriptedAzure) -> AsyncIterator[Store]:
    store = server.store()
    yield store
    await store.close()


def entry(
    name: str,
    *,
    size: str = "1",
    etag: str = "0x8D",
    modified: str = "Fri, 02 Jan 2026 03:04:05 GMT",
    more: str = "",
    metadata: str = "",
) -> str:
    return (
        f"<Blob>{name if name.startswith('<') else f'<Name>{name}</Name>'}<Properties>"
        f"<Last-Modified>{modified}</Last-Modified><Etag>{etag}</Etag><Content-Length>{size}</Content-Length>"
        f"<BlobType>BlockBlob</BlobType>{more}</Properties><Metadata>{metadata}</Metadata></Blob>"
    )


def page(*entries: str, marker: str | None = "") -> str:
    end = "" if marker is None else f"<NextMarker>{marker}</NextMarker>" if marker else "<NextMarker />"
    return (
        '\ufeff<?xml version="1.0" encoding="utf-8"?>'
        '<EnumerationResults ServiceEndpoint="https://cameras.blob.core.windows.net/" ContainerName="cams">'
        f"<Blobs>{''.join(entries)}</Blobs>{end}</EnumerationResults>"
    )


def refusal(status: int, code: str, detail: str = "") -> web.Response:
    document = (
        f'\ufeff<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>m</Message>'
        f"<AuthenticationErrorDetail>{detail} Server used following string to sign: '{SECRETS[1]}'."
        "</AuthenticationErrorDetail></Error>"
    )
    return web.Response(status=status, text=document, headers={"x-ms-error-code": code})


async def listed(store: Store, **arguments: Any) -> list[ListingPage]:
    return [page async for page in store.list_pages(**arguments)]


async def keys_of(store: Store, **arguments: Any) -> list[str]:
    return [key for page in await listed(store, **arguments) for key in page.keys]


# Listings that must not be believed


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (page(entry("d/a"))[:-30], "no whole XML"),
        ("", "no whole XML"),
        ("<html><body>Portal</body></html>", "Check that the endpoint"),
        (page(entry("d/a"), marker=None), "whether more objects follow"),
        ("<EnumerationResults><NextMarker /></EnumerationResults>", "whether more objects follow"),
        (page(entry("d/a", size="many")), "valid size"),
        (page(entry("d/a", size="")), "valid size"),
        (page(entry("d/a", modified="yesterday")), "valid time"),
        (page(entry("d/a", modified="Fri, 02 Foo 2026 03:04:05 GMT")), "valid time"),
        (page(entry("d/a", modified="")), "valid time"),
        (page(entry("d/a"), entry("elsewhere")), "outside the prefix"),
        (page(entry("d/a"), "<Blob><Name>d/b</Name></Blob>"), "valid size"),
    ],
)
async def test_a_page_that_is_wrong_proves_nothing(server: ScriptedAzure, store: Store, answer: str, sentence: str):
    server.script = [answer]
    with pytest.raises(Unavailable, match=sentence):
        await listed(store)


@pytest.mark.parametrize("markers", [["x"], ["x", "y"], ["a", "b", "x", "y", "z"]])
async def test_a_listing_that_goes_in_a_circle_ends(server: ScriptedAzure, store: Store, markers: list[str]):
    server.script = [page(entry(f"d/{marker}"), marker=marker) for marker in markers * 200]
    with pytest.raises(Unavailable, match="repeats a continuation token"):
        await listed(store)
    assert len(server.requests) < 20


async def test_pages_that_are_empty_for_ever_end(server: ScriptedAzure, store: Store):
    server.script = [page(marker=str(number)) for number in range(500)]
    with pytest.raises(Unavailable, match="sends none"):
        await listed(store)


async def test_some_empty_pages_in_the_midst_are_normal(server: ScriptedAzure, store: Store):
    server.script = [page(marker=str(number)) for number in range(20)]
    server.script += [page(entry("d/a"), marker="x"), page(marker="y"), page()]
    assert await keys_of(store) == ["a"]


async def test_what_was_listed_before_a_refusal_is_given_and_then_the_refusal(server: ScriptedAzure, store: Store):
    server.script = [
        page(entry("d/a"), marker="1"),
        page(entry("d/b"), marker="2"),
        refusal(403, "AuthorizationPermissionMismatch"),
    ]
    pages = store.list_pages()
    assert (await anext(pages)).keys == ["a"]
    assert (await anext(pages)).keys == ["b"]
    with pytest.raises(StoreDenied, match=r"list container \"cams\" .*AuthorizationPermissionMismatch on ListBlobs"):
        await anext(pages)


# Listings that are odd, but right


@pytest.mark.parametrize(
    ("name", "printable", "reason"),
    [
        ('<Name Encoded="true">d/%FF</Name>', "d/\\xff", "The name is not UTF-8."),
        ('<Name Encoded="true">d/%00</Name>', "d/\0", "The name contains a NUL character."),
        ("d/" + "ü" * 512, "d/" + "ü" * 512, "The name is longer than 1,024 bytes."),
        ("", "", "The name is empty."),
    ],
)
async def test_a_name_that_cannot_be_indexed_is_told_apart(
    server: ScriptedAzure, store: Store, name: str, printable: str, reason: str
):
    server.script = [page(entry("d/a"), entry(name, size="5"), entry("d/b %2B", size="7", etag="0x8F"))]
    (only,) = await listed(store)
    assert (only.keys, only.sizes, only.etags) == (["a", "b %2B"], [1, 7], ["0x8D", "0x8F"])
    assert only.unindexable == [(printable, reason)]


async def test_a_name_is_decoded_only_where_it_says_that_it_is_encoded(server: ScriptedAzure, store: Store):
    encoded = '<Name Encoded="true">d/%EF%BF%BE%20%2B+</Name>'
    server.script = [page(entry("d/%EF%BF%BE+"), entry(encoded), entry('<Name Encoded="false">d/%20</Name>'))]
    assert await keys_of(store) == ["%EF%BF%BE+", "\ufffe ++", "%20"]


async def test_a_page_has_the_facts_of_its_objects(server: ScriptedAzure, store: Store):
    blobs = [
        entry("d/a", size="7", etag="0x8DCAFE", modified="Sun, 29 Feb 2032 23:59:58 GMT"),
        entry("d/b", etag='"quoted"', more="<BlobType>AppendBlob</BlobType>"),
        entry("d/c", etag=""),
    ]
    server.script = [page(*blobs)]
    (only,) = await listed(store)
    assert (only.keys, only.sizes, only.etags) == (["a", "b", "c"], [7, 1, 1], ["0x8DCAFE", "quoted", ""])
    assert only.modified == ["2032-02-29T23:59:58Z", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"]


async def test_metadata_may_be_named_like_anything(server: ScriptedAzure, store: Store):
    names = "<Name>n</Name><Etag>e</Etag><Blob>b</Blob><Properties>p</Properties><NextMarker>m</NextMarker>"
    without_etag = entry("d/a", metadata="<Etag>e</Etag>").replace("<Etag>0x8D</Etag>", "")
    server.script = [page(without_etag, entry("d/b"), marker="m"), page(entry("d/c", metadata=names), entry("d/d"))]
    first, second = await listed(store)
    assert (first.keys, first.etags, first.is_last) == (["a", "b"], ["", "0x8D"], False)
    assert (second.keys, second.etags, second.is_last) == (["c", "d"], ["0x8D", "0x8D"], True)


@pytest.mark.parametrize(
    "folder",
    [
        entry("d/f", size="0", more="<ResourceType>directory</ResourceType>"),
        entry("d/f", size="0", metadata="<hdi_isfolder>true</hdi_isfolder>"),
        entry("d/f", size="0", metadata="<x>1</x><Hdi_IsFolder>True</Hdi_IsFolder>"),
    ],
)
async def test_places_of_folders_are_left_out(server: ScriptedAzure, store: Store, folder: str):
    file = entry("d/f/a", more="<ResourceType>file</ResourceType>", metadata="<hdi_isfolder>false</hdi_isfolder>")
    server.script = [page(folder, file, entry("d/z")), page(folder)]
    assert await keys_of(store) == ["f/a", "z"]
    assert await keys_of(store) == []


async def test_many_pages_of_folders_alone_are_no_endless_listing(server: ScriptedAzure, store: Store):
    folder = entry("d/f", size="0", more="<ResourceType>directory</ResourceType>")
    server.script = [page(folder, marker=str(number)) for number in range(150)] + [page(entry("d/a"))]
    assert await keys_of(store) == ["a"]


async def test_markers_go_back_as_they_came(server: ScriptedAzure, store: Store):
    markers = ["2!92!MDAwMDE2IWltZy8w/MQ--+=", "d/&amp;x%2B &lt;", "d/ü\N{GRINNING FACE}"]
    server.script = [page(entry(f"d/{number}"), marker=marker) for number, marker in enumerate(markers)] + [page()]
    await listed(store)
    assert server.queries("marker") == [None, "2!92!MDAwMDE2IWltZy8w/MQ--+=", "d/&x%2B <", "d/ü\N{GRINNING FACE}"]


async def test_a_listing_starts_from_a_name_and_leaves_it_out(server: ScriptedAzure, store: Store):
    server.script = [page(entry("d/b"), entry("d/c"), marker="m"), page(entry("d/b-after-c-in-its-order"))]
    assert await keys_of(store, start_after="b") == ["c", "b-after-c-in-its-order"]
    assert server.queries("startFrom") == ["d/b", None]
    assert server.queries("marker") == [None, "m"]


async def test_a_listing_asks_for_what_it_needs_and_no_more(server: ScriptedAzure, store: Store):
    server.script = [page()]
    await listed(store, prefix="x")
    assert dict(server.requests[0].query) == {
        "restype": "container",
        "comp": "list",
        "include": "metadata",  # and with it neither snapshots nor versions nor deleted blobs
        "maxresults": "5000",
        "prefix": "d/x",
    }


async def test_the_next_page_is_asked_for_while_one_is_used(server: ScriptedAzure, store: Store):
    asked = asyncio.Event()

    async def second(_request: web.Request) -> web.StreamResponse:
        asked.set()
        return web.Response(text=page())

    server.script = [page(entry("d/a"), marker="1"), second]
    async with aclosing(store.list_pages()) as pages:
        await anext(pages)
        await asyncio.wait_for(asked.wait(), 5)


# Failures that pass


@pytest.mark.parametrize(
    "failure",
    [
        refusal(503, "ServerBusy"),
        refusal(500, "OperationTimedOut"),
        refusal(500, "InternalError"),
        web.Response(status=502, text="<html>bad gateway</html>"),
        web.Response(status=429, text="slower"),
        broken_off,
    ],
    ids=["busy", "timeout", "internal", "502", "429", "reset"],
)
async def test_a_passing_failure_is_not_seen(server: ScriptedAzure, store: Store, failure: Any):
    server.script = [page(entry("d/a"), marker="1"), failure, failure, page(entry("d/b"))]
    assert await keys_of(store) == ["a", "b"]
    assert server.queries("marker") == [None, "1", "1", "1"]


async def test_a_lasting_failure_ends_after_a_few_tries(server: ScriptedAzure, store: Store):
    server.script = [refusal(503, "ServerBusy")]
    with pytest.raises(Unavailable, match="503 ServerBusy on ListBlobs") as raised:
        await listed(store)
    assert len(server.requests) == 5
    assert (raised.value.operation, raised.value.code) == ("ListBlobs", "ServerBusy")


async def test_an_account_that_is_not_there_is_named(server: ScriptedAzure):
    store = server.store(endpoint="http://127.0.0.1:1")
    with pytest.raises(Unavailable, match=r'did not answer for container "cams" of storage account "cameras" at http'):
        await store.head("a")
    await store.close()


async def test_a_request_has_a_deadline(server: ScriptedAzure, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending, "_REQUEST_DEADLINE_S", 0.1)

    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    server.script = [never, page(entry("d/a"))]
    assert await keys_of(store) == ["a"]


# Credentials


@pytest.mark.parametrize(
    "answer",
    [
        refusal(401, "InvalidAuthenticationInfo", "Lifetime validation failed. The token is expired."),
        refusal(403, "AuthenticationFailed", "The MAC signature found in the HTTP request is not the same."),
        web.Response(status=401),
    ],
    ids=["token", "key", "bare"],
)
async def test_credentials_are_taken_anew_once_in_the_midst_of_a_listing(
    server: ScriptedAzure, store: Store, answer: web.Response
):
    server.script = [page(entry("d/a"), marker="1"), answer, page(entry("d/b"))]
    assert await keys_of(store) == ["a", "b"]
    assert server.refreshes == [False, False, True]


async def test_credentials_that_stay_refused_are_asked_for_twice_at_most(server: ScriptedAzure, store: Store):
    server.script = [refusal(403, "AuthenticationFailed")]
    with pytest.raises(StoreDenied, match="does not accept the credentials"):
        await listed(store)
    assert server.refreshes == [False, True]


WRONG_KEY = "The MAC signature found in the HTTP request 'x' is not the same as any computed signature."
NOT_IN_TIME = "Signature not valid in the specified time frame: Start [..] - Expiry [..] - Current [..]"


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (refusal(404, "ContainerNotFound"), StoreMissing, 'no container "cams" of storage account "cameras"'),
        (web.Response(status=404, text="404 page not found"), StoreMissing, 'no container "cams"'),
        (refusal(403, "AuthenticationFailed", "Request date header too old: 'x'"), FailedDependency, "clock"),
        (refusal(403, "AuthenticationFailed", NOT_IN_TIME), StoreDenied, "SAS .* has expired"),
        (refusal(403, "AuthenticationFailed", "Signature did not match."), StoreDenied, "made for another container"),
        (
            refusal(403, "AuthenticationFailed", "The MAC signature found in the HTTP request"),
            StoreDenied,
            "Access keys",
        ),
        (refusal(403, "AuthenticationFailed"), StoreDenied, "account and secret belong together"),
        (refusal(401, "InvalidAuthenticationInfo", "Lifetime validation failed."), StoreDenied, "token .* has expired"),
        (refusal(403, "AuthorizationPermissionMismatch"), StoreDenied, r"Storage Blob Data Reader .* list \(l\)\."),
        (refusal(403, "InsufficientAccountPermissions"), StoreDenied, r"Storage Blob Data Reader .* list \(l\)\."),
        (refusal(403, "AuthorizationFailure"), StoreDenied, "network rules"),
        (refusal(403, "AuthorizationSourceIPMismatch"), StoreDenied, "network rules"),
        (refusal(403, "AuthorizationResourceTypeMismatch"), StoreDenied, "resource types container and object"),
        (refusal(403, "KeyBasedAuthenticationNotPermitted"), StoreDenied, "does not allow account keys"),
        (refusal(403, "AccountIsDisabled"), StoreDenied, "disabled"),
        (refusal(400, "AccountRequiresHttps"), BadRequest, "wants https"),
        (refusal(400, "InvalidHeaderValue"), FailedDependency, "version of the API"),
        (web.Response(status=307, headers={"Location": "/elsewhere"}), BadRequest, "Check the endpoint"),
        (refusal(400, "Odd"), FailedDependency, "400 Odd on ListBlobs"),
        (refusal(418, "Odd"), FailedDependency, "418 Odd on ListBlobs"),
    ],
)
async def test_a_refusal_says_what_to_do(
    server: ScriptedAzure, store: Store, answer: web.Response, kind: type[HeadwaterError], sentence: str
):
    server.script = [answer]
    with pytest.raises(kind, match=sentence) as raised:
        await store.check_listing()
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (refusal(404, "BlobNotFound"), StoreMissing, 'No object "d/a" in container "cams"'),
        (web.Response(status=404, headers={"x-ms-error-code": "ContainerNotFound"}), StoreMissing, "no container"),
        (refusal(409, "BlobArchived"), FailedDependency, "archive tier"),
        (refusal(416, "InvalidRange"), RangeNotSatisfiable, "holds no byte"),
    ],
)
async def test_a_refusal_to_read_says_what_to_do(
    server: ScriptedAzure, store: Store, answer: web.Response, kind: type[HeadwaterError], sentence: str
):
    server.script = [answer]
    with pytest.raises(kind, match=sentence) as raised:
        async with store.get("a", start=1) as reader:
            await reader.read()
    assert type(raised.value) is kind


@pytest.mark.parametrize("code", ["BlobImmutableDueToPolicy", "LeaseIdMissing", "SnapshotsPresent"])
async def test_what_is_protected_is_not_deleted(server: ScriptedAzure, store: Store, code: str):
    server.script = [refusal(412 if code == "LeaseIdMissing" else 409, code)]
    with pytest.raises(FailedDependency, match="protected by a lease, a snapshot or an immutability policy"):
        await store.delete("a")
    assert "x-ms-delete-snapshots" not in server.requests[0].headers


async def test_a_container_that_is_missing_is_no_deleted_object(server: ScriptedAzure, store: Store):
    server.script = [refusal(404, "ContainerNotFound"), refusal(404, "BlobNotFound")]
    with pytest.raises(StoreMissing, match="no container"):
        await store.delete("a")
    await store.delete("a")


@pytest.mark.parametrize("credentials", [KEY, SAS, TOKEN], ids=["key", "SAS", "token"])
async def test_no_secret_is_in_an_error_or_a_log(
    server: ScriptedAzure, store: Store, caplog: pytest.LogCaptureFixture, credentials: AzureCredentials
):
    caplog.set_level(logging.DEBUG)
    server.credentials_given = credentials
    errors: list[str] = []
    for answer in (refusal(403, "AuthenticationFailed"), refusal(503, "ServerBusy"), broken_off, "<html>"):
        server.script = [answer]
        for call in (store.check_listing(), store.put("a", b"1", content_type="text/plain"), store.head("a")):
            try:
                await call
            except HeadwaterError as error:
                errors += [str(error), repr(error.__cause__)]
    assert len(errors) > 10
    url = await store.sign_get("a", expires_s=60)
    assert (url is not None) == (credentials is KEY)
    signature = "" if url is None else re.findall("sig=([^&]*)", url)[0]
    hidden = [secret for secret in (*SECRETS, signature) if secret]
    assert not [text for text in [*errors, caplog.text, repr(credentials)] for secret in hidden if secret in text]


async def test_each_credential_goes_where_it_belongs(server: ScriptedAzure, store: Store):
    server.script = [page()]
    for server.credentials_given in (KEY, SAS, TOKEN):
        await store.check_listing()
    by_key, by_sas, by_token = server.requests
    assert by_key.headers["Authorization"].startswith("SharedKey cameras:")
    assert "Authorization" not in by_sas.headers
    assert by_sas.rel_url.raw_query_string.endswith(f"&{SAS.token}")
    assert by_token.headers["Authorization"] == f"Bearer {SECRETS[2]}"
    assert {request.headers["x-ms-version"] for request in server.requests} == {"2026-02-06"}


async def test_a_sas_asks_for_no_key_to_sign_with(server: ScriptedAzure, store: Store):
    server.credentials_given = SAS
    assert await store.sign_get("a", expires_s=60) is None
    assert server.requests == []


# Reading


def object_answer(body: bytes, *, etag: str = '"0x1"', cut_to: int | None = None) -> Handler:
    """Honours x-ms-range and If-Match; with `cut_to` the connection breaks after so many bytes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("If-Match", etag) != etag:
            return web.Response(status=412, headers={"x-ms-error-code": "ConditionNotMet"})
        asked = request.headers.get("x-ms-range")
        start = int((asked or "bytes=0-").removeprefix("bytes=").split("-")[0])
        rest = body[start:]
        headers = {"ETag": etag, "Content-Length": str(len(rest))}
        if asked:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        response = web.StreamResponse(status=206 if asked else 200, headers=headers)
        await response.prepare(request)
        await response.write(rest[:cut_to])
        if cut_to is not None:
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


async def test_a_broken_download_goes_on_where_it_broke(server: ScriptedAzure, store: Store):
    body = bytes(range(256)) * 40
    server.script = [object_answer(body, cut_to=1000), object_answer(body, cut_to=77), object_answer(body)]
    async with store.get("a") as reader:
        assert await reader.read() == body
    asked = [request.headers.get("x-ms-range") for request in server.requests]
    assert asked == [None, "bytes=1000-", "bytes=1077-"]
    assert [request.headers.get("If-Match") for request in server.requests] == [None, '"0x1"', '"0x1"']


async def test_an_object_that_changed_during_a_broken_download_is_not_mixed(server: ScriptedAzure, store: Store):
    server.script = [object_answer(b"x" * 5000, cut_to=1000), object_answer(b"y" * 5000, etag='"0x2"')]
    with pytest.raises(Unavailable, match="changed while it was read"):
        async with store.get("a") as reader:
            await reader.read()


async def test_a_download_that_always_breaks_ends(server: ScriptedAzure, store: Store):
    server.script = [object_answer(b"x" * 5000, cut_to=10)]
    with pytest.raises(Unavailable, match="broke while"):
        async with store.get("a") as reader:
            await reader.read()


# Writing

WRITTEN = web.Response(status=201, headers={"ETag": '"0xDONE"', "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"})


async def upload_two_blocks(store: Store) -> Any:
    async with await store.begin_upload("a", content_type="image/jpeg") as upload:
        await upload.write(bytes(SMALLEST_BLOCK_BYTES + 5))
        await upload.seal()
        return await upload.finish()


def blocks_sent(server: ScriptedAzure) -> list[str]:
    return [block for block in server.queries("blockid") if block is not None]


async def test_an_upload_sends_blocks_and_then_their_list(server: ScriptedAzure, store: Store):
    server.script = [WRITTEN]
    info = await upload_two_blocks(store)
    assert (info.etag, info.size_bytes, info.content_type) == ("0xDONE", SMALLEST_BLOCK_BYTES + 5, "image/jpeg")
    blocks = blocks_sent(server)
    assert len({len(block) for block in blocks}) == 1
    assert [len(body) for body in server.bodies[:2]] == [SMALLEST_BLOCK_BYTES, 5]
    assert re.findall("<Latest>([^<]+)</Latest>", server.bodies[2].decode()) == blocks
    assert server.requests[2].headers["x-ms-blob-content-type"] == "image/jpeg"


async def test_a_block_list_whose_answer_was_lost_is_sent_again_just_so(server: ScriptedAzure, store: Store):
    server.script = [WRITTEN, WRITTEN, broken_off, refusal(500, "OperationTimedOut"), WRITTEN]
    await upload_two_blocks(store)
    assert len(server.bodies) == 5
    assert server.bodies[2] == server.bodies[3] == server.bodies[4]


async def test_a_block_list_that_fails_late_leaves_what_was_there(server: ScriptedAzure, store: Store):
    server.script = [WRITTEN, WRITTEN, refusal(500, "InternalError")]
    with pytest.raises(Unavailable, match="InternalError on PutBlockList"):
        await upload_two_blocks(store)
    assert {request.method for request in server.requests} == {"PUT"}  # above all no DELETE


async def test_blocks_that_are_gone_ask_to_upload_again(server: ScriptedAzure, store: Store):
    server.script = [WRITTEN, WRITTEN, refusal(400, "InvalidBlockList")]
    with pytest.raises(Unavailable, match="Upload it again"):
        await upload_two_blocks(store)


async def test_blocks_of_another_program_in_the_way_are_named(server: ScriptedAzure, store: Store):
    server.script = [refusal(400, "InvalidBlobOrBlock")]
    with pytest.raises(FailedDependency, match='unfinished upload of "d/a"'):
        await upload_two_blocks(store)


async def test_an_append_blob_is_not_overwritten(server: ScriptedAzure, store: Store):
    server.script = [refusal(409, "InvalidBlobType")]
    with pytest.raises(FailedDependency, match="append or page blob"):
        await store.put("a", b"1", content_type="text/plain")


def test_the_ids_of_all_blocks_have_one_length():
    ids = [block_id(new_name(), number) for number in range(50_000)] + [block_id(new_name(), 1, "ffff")]
    assert {len(one) for one in ids} == {32}
    assert len(set(ids)) == len(ids)


def test_blocks_grow_so_that_the_largest_object_fits_into_50_000():
    sizes = [block_bytes(number) for number in range(50_000)]
    assert sum(sizes) >= 5 * 1024**4
    assert max(sizes) <= 4000 * 1024**2
    total = 0
    for size in sizes:
        assert size <= max(SMALLEST_BLOCK_BYTES, total / 3500)
        total += size


@pytest.mark.parametrize(
    ("storage_class", "tier"), [(None, None), ("", None), ("standard", None), ("COOL", "Cool"), ("cold", "Cold")]
)
async def test_the_storage_class_goes_with_every_object(server: ScriptedAzure, storage_class: str, tier: str | None):
    store = server.store(storage_class=storage_class)
    server.script = [WRITTEN]
    await store.put("a", b"1", content_type="image/png")
    await upload_two_blocks(store)
    await store.close()
    put, _, _, listed = server.requests
    assert [request.headers.get("x-ms-access-tier") for request in (put, listed)] == [tier, tier]


@pytest.mark.parametrize("storage_class", ["archive", "STANDARD_IA", "Premium"])
async def test_a_class_that_cannot_be_read_from_is_refused(server: ScriptedAzure, storage_class: str):
    with pytest.raises(BadRequest, match="Use hot, cool or cold"):
        server.store(storage_class=storage_class)


@pytest.mark.parametrize("key", ["a.", "a./b", "..", "a/../b", "a/."])
async def test_a_name_that_azure_might_change_is_not_written(server: ScriptedAzure, store: Store, key: str):
    for write in (
        store.put(key, b"1", content_type="text/plain"),
        store.begin_upload(key, content_type="text/plain"),
    ):
        with pytest.raises(BadRequest, match="dot"):
            await write
    assert server.requests == []


async def test_a_backslash_is_never_sent(server: ScriptedAzure, store: Store):
    for call in (store.put("a\\b", b"1", content_type="text/plain"), store.head("a\\b"), store.delete("a\\b")):
        with pytest.raises(BadRequest, match="backslash"):
            await call
    assert server.requests == []


# On Azurite


async def test_folders_of_hadoop_are_left_out_on_azurite(place_on):
    store = (await place_on("azurite")).store()
    headers = {"x-ms-blob-type": "BlockBlob", "x-ms-meta-hdi_isfolder": "true"}
    await store._sender.send(Request("PutBlob", "PUT", "folder", headers=headers))
    await store.put("folder/a", b"1", content_type="text/plain")
    assert await keys_of(store) == ["folder/a"]


async def test_snapshots_are_not_listed_and_not_deleted(place_on):
    store = (await place_on("azurite")).store()
    await store.put("a", b"1", content_type="text/plain")
    await store._sender.send(Request("SnapshotBlob", "PUT", "a", {"comp": "snapshot"}))
    assert await keys_of(store) == ["a"]
    with pytest.raises(FailedDependency, match="snapshot"):
        await store.delete("a")


async def test_two_uploads_to_one_name_never_mix(place_on):
    store = (await place_on("azurite")).store()
    first = await store.begin_upload("a", content_type="text/plain")
    second = await store.begin_upload("a", content_type="text/plain")
    for _ in range(2):
        await first.write(b"1" * (SMALLEST_BLOCK_BYTES + 1))
        await second.write(b"2" * (SMALLEST_BLOCK_BYTES + 1))
    await first.finish()
    with pytest.raises(Unavailable, match="another upload to the same name"):
        await second.finish()
    async with store.get("a") as reader:
        assert await reader.read() == b"1" * (2 * SMALLEST_BLOCK_BYTES + 2)


async def test_blocks_that_were_left_do_not_hinder_the_next_upload(place_on):
    store = (await place_on("azurite")).store()
    await store.put("a", b"before", content_type="text/plain")
    left = await store.begin_upload("a", content_type="text/plain")
    await left.write(bytes(SMALLEST_BLOCK_BYTES + 1))
    await left.abort()
    async with store.get("a") as reader:
        assert await reader.read() == b"before"
    async with await store.begin_upload("a", content_type="text/plain") as upload:
        await upload.write(b"3" * (SMALLEST_BLOCK_BYTES + 1))
        await upload.finish()
    assert (await store.head("a")).size_bytes == SMALLEST_BLOCK_BYTES + 1


async def test_an_access_tier_is_kept_by_azurite(place_on):
    store = (await place_on("azurite")).store(storage_class="cool")
    await store.put("a", b"1", content_type="text/plain")
    answer = await store._sender.send(Request("GetBlobProperties", "HEAD", "a"))
    assert answer.headers["x-ms-access-tier"] == "Cool"
