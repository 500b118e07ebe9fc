"""What Google Cloud Storage may do wrong, played by a small server, and what becomes of it."""

import asyncio
import base64
import email.policy
import hashlib
import json
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from google.auth.crypt.rsa import RSASigner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage import sending
from headwater.storage.gcs.documents import check_service_account
from headwater.storage.gcs.requests import GcsBucket, GcsCredentials, UrlSigner
from headwater.storage.gcs.signing import signed_url
from headwater.storage.gcs.uploads import CHUNK_BYTES
from headwater.storage.opening import open_gcs
from headwater.storage.stores import ListingPage, Store
from tests.google import EMAIL, key_file, private_key
from tests.storage.scripted import Handler, Scripted, broken_off

SECRETS = ("very-secret-token", "very-secret-session")


class Google(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.refreshes: list[bool] = []

    async def credentials(self, refresh: bool) -> GcsCredentials:
        self.refreshes.append(refresh)
        return GcsCredentials(f"{SECRETS[0]}-{sum(self.refreshes)}", UrlSigner(EMAIL, RSASigner(private_key())))


@pytest.fixture
async def server() -> AsyncIterator[Google]:
    async with Google.running() as google:
        yield google


@pytest.fixture
async def store(server: Google) -> AsyncIterator[Store]:
    store = open_gcs(bucket="cams", prefix="d", endpoint=server.url, credentials=server.credentials, backoff_s=0.001)
    yield store
    await store.close()


def md5_of(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body).digest()).decode()


def item(name: str, /, **changes: Any) -> dict[str, Any]:
    facts = {"size": "1", "md5Hash": "bWQ1", "generation": "7", "timeCreated": "2026-01-02T03:04:05.678Z"}
    return {key: value for key, value in ({"name": name} | facts | changes).items() if value is not None}


def page(*items: Any, token: Any = None, **changes: Any) -> str:
    document = {"kind": "storage#objects"} | ({} if token is None else {"nextPageToken": token})
    return json.dumps(document | ({"items": items} if items else {}) | changes)


def refusal(status: int, reason: str, message: str = "m") -> web.Response:
    errors = [{"domain": "global", "reason": reason, "message": message}]
    return web.json_response({"error": {"code": status, "message": message, "errors": errors}}, status=status)


async def listed(store: Store, **arguments: Any) -> list[ListingPage]:
    return [page async for page in store.list_pages(**arguments)]


async def keys_of(store: Store, **arguments: Any) -> list[str]:
    return [key for page in await listed(store, **arguments) for key in page.keys]


# Listings that must not be believed


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (page(item("d/a"))[:-3], "no whole page"),
        ("", "no whole page"),
        ("{}", "no whole page"),
        ("[]", "no whole page"),
        ("null", "no whole page"),
        ('{"kind": "storage#buckets"}', "no whole page"),
        ("<html><body>Console</body></html>", "check that the endpoint"),
        (page(items={"name": "d/a"}), "no whole page"),
        (page(item("d/a"), token=5), "not how to ask"),
        (page(item("d/a"), token=""), "not how to ask"),
        (page(item("d/a", size="many")), "valid size"),
        (page(item("d/a", size="")), "valid size"),
        (page(item("d/a", size=None)), "without a name, size or time"),
        (page(item("d/a", timeCreated="yesterday")), "valid time"),
        (page(item("d/a", timeCreated="")), "valid time"),
        (page(item("d/a", timeCreated=None)), "without a name, size or time"),
        (page(item("d/a", name=None)), "without a name, size or time"),
        (page(item("d/a", name=5)), "without a name, size or time"),
        (page("d/a"), "without a name, size or time"),
        (page(item("d/a"), item("elsewhere")), "outside the prefix"),
        ('{"kind": "storage#objects", "items": [{"name": "d/\\ud800"}]}', "no whole page"),
    ],
)
async def test_a_page_that_is_wrong_proves_nothing(server: Google, store: Store, answer: str, sentence: str):
    server.script = [answer]
    with pytest.raises(Unavailable, match=sentence):
        await listed(store)


@pytest.mark.parametrize("tokens", [["x"], ["x", "y"], ["a", "b", "x", "y", "z"]])
async def test_a_listing_that_goes_in_a_circle_ends(server: Google, store: Store, tokens: list[str]):
    server.script = [page(item(f"d/{token}"), token=token) for token in tokens * 200]
    with pytest.raises(Unavailable, match="repeats a continuation token"):
        await listed(store)
    assert len(server.requests) < 20


async def test_pages_that_are_empty_for_ever_end(server: Google, store: Store):
    server.script = [page(token=str(number)) for number in range(500)]
    with pytest.raises(Unavailable, match="sends none"):
        await listed(store)


async def test_some_empty_pages_in_the_midst_are_normal(server: Google, store: Store):
    server.script = [page(token=str(number)) for number in range(20)]
    server.script += [page(item("d/a"), token="x"), page(token="y"), page()]
    assert await keys_of(store) == ["a"]


async def test_what_was_listed_before_a_refusal_is_given_and_then_the_refusal(server: Google, store: Store):
    server.script = [page(item("d/a"), token="1"), page(item("d/b"), token="2"), refusal(403, "forbidden")]
    pages = store.list_pages()
    assert (await anext(pages)).keys == ["a"]
    assert (await anext(pages)).keys == ["b"]
    with pytest.raises(StoreDenied, match=r"list bucket \"cams\" .*403 forbidden on objects.list"):
        await anext(pages)


# Listings that are odd, but right


async def test_a_page_has_what_an_index_needs(server: Google, store: Store):
    composed = item("d/b", size="9007199254740993", md5Hash=None)
    server.script = [page(item("d/a"), composed)]
    (only,) = await listed(store)
    assert (only.keys, only.sizes, only.etags) == (["a", "b"], [1, 9007199254740993], ["bWQ1", "7"])
    assert only.modified == ["2026-01-02T03:04:05.678Z"] * 2
    (request,) = server.requests
    assert request.path == "/storage/v1/b/cams/o"
    assert request.query["fields"] == "kind,nextPageToken,items(name,size,md5Hash,generation,timeCreated)"
    assert (request.query["prefix"], request.query["maxResults"]) == ("d/", "1000")


async def test_more_than_a_page_of_google_is_listed_whole(server: Google, store: Store):
    """Google gives 1,000 keys a page, however many are asked for."""
    names = [f"d/{number:05}" for number in range(2_345)]

    async def answer(request: web.Request) -> web.StreamResponse:
        start = int(request.query.get("pageToken", "0"))
        end = start + min(int(request.query["maxResults"]), 1000)
        token = str(end) if end < len(names) else None
        return web.Response(text=page(*map(item, names[start:end]), token=token))

    server.script = [answer]
    assert await keys_of(store) == [name.removeprefix("d/") for name in names]
    assert server.queries("pageToken") == [None, "1000", "2000"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("d/a\0b", "The name contains a NUL character."),
        ("d/" + "ü" * 512, "The name is longer than 1,024 bytes."),
        ("", "The name is empty."),
    ],
)
async def test_a_name_that_cannot_be_indexed_is_told_apart(server: Google, store: Store, name: str, reason: str):
    server.script = [page(item("d/a"), item(name, size="5"), item("d/b +", size="7", md5Hash="f"))]
    (only,) = await listed(store)
    assert (only.keys, only.sizes, only.etags) == (["a", "b +"], [1, 7], ["bWQ1", "f"])
    assert only.unindexable == [(name, reason)]


async def test_a_key_of_1024_bytes_is_fine(server: Google, store: Store):
    server.script = [page(item("d/" + "ü" * 511))]
    assert await keys_of(store) == ["ü" * 511]


async def test_a_listing_starts_after_a_key_though_google_starts_with_it(server: Google, store: Store):
    server.script = [page(item("d/a"), item("d/b"), token="1"), page(item("d/c"))]
    assert await keys_of(store, start_after="a") == ["b", "c"]
    assert server.queries("startOffset") == ["d/a", "d/a"]
    server.script = [page(item("d/b"))]
    assert await keys_of(store, start_after="a") == ["b"]


async def test_names_that_look_like_a_token_are_no_token(server: Google, store: Store):
    name = 'd/"nextPageToken": "x"'
    server.script = [page(item(name))]
    assert await keys_of(store) == [name.removeprefix("d/")]
    assert len(server.requests) == 1


async def test_tokens_go_back_as_they_came(server: Google, store: Store):
    tokens = ["a+b/c==", "&x%2B", 'y"\\z', "ü"]
    server.script = [*(page(item(f"d/{number}"), token=token) for number, token in enumerate(tokens)), page()]
    await listed(store)
    assert server.queries("pageToken") == [None, *tokens]


async def test_the_next_page_is_asked_for_while_one_is_used(server: Google, store: Store):
    asked = asyncio.Event()

    async def second(_request: web.Request) -> web.StreamResponse:
        asked.set()
        return web.Response(text=page())

    server.script = [page(item("d/a"), token="1"), second]
    async with aclosing(store.list_pages()) as pages:
        await anext(pages)
        await asyncio.wait_for(asked.wait(), 5)


async def test_a_listing_left_early_leaves_no_request_behind(server: Google, store: Store):
    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    server.script = [page(item("d/a"), token="1"), never]
    before = asyncio.all_tasks()
    async with aclosing(store.list_pages()) as pages:
        await anext(pages)
    ours = [task for task in asyncio.all_tasks() - before if "fetch" in str(task.get_coro())]
    assert ours == []


# Failures that pass


@pytest.mark.parametrize(
    "failure",
    [
        web.Response(status=503, text="busy"),
        refusal(500, "backendError"),
        refusal(429, "rateLimitExceeded"),
        refusal(403, "userRateLimitExceeded"),
        refusal(408, "uploadBrokenConnection"),
        web.Response(status=502, text="<html>bad gateway</html>"),
        broken_off,
    ],
    ids=["503", "500", "429", "403", "408", "502", "reset"],
)
async def test_a_passing_failure_is_not_seen(server: Google, store: Store, failure: Any):
    server.script = [page(item("d/a"), token="1"), failure, failure, page(item("d/b"))]
    assert await keys_of(store) == ["a", "b"]
    assert server.queries("pageToken") == [None, "1", "1", "1"]


async def test_a_lasting_failure_ends_after_a_few_tries(server: Google, store: Store):
    server.script = [refusal(429, "rateLimitExceeded")]
    with pytest.raises(Unavailable, match=r"429 rateLimitExceeded on objects.list"):
        await listed(store)
    assert len(server.requests) == 5


async def test_a_server_that_is_away_is_unavailable(server: Google):
    store = open_gcs(bucket="cams", endpoint="http://127.0.0.1:1", credentials=server.credentials, backoff_s=0.001)
    with pytest.raises(Unavailable, match=r"did not answer for .*cams.* at http://127.0.0.1:1 .*check the endpoint"):
        await store.head("a")
    await store.close()


async def test_a_request_has_a_deadline(server: Google, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending, "_REQUEST_DEADLINE_S", 0.1)

    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    server.script = [never, page(item("d/a"))]
    assert await keys_of(store) == ["a"]


# Credentials and refusals


async def test_an_expired_token_is_taken_anew_in_the_midst_of_a_listing(server: Google, store: Store):
    server.script = [page(item("d/a"), token="1"), refusal(401, "authError"), page(item("d/b"))]
    assert await keys_of(store) == ["a", "b"]
    assert server.refreshes == [False, False, True]
    tokens = [request.headers["Authorization"] for request in server.requests]
    assert tokens == [f"Bearer very-secret-token-{number}" for number in (0, 0, 1)]


async def test_a_token_that_stays_refused_is_refused(server: Google, store: Store):
    server.script = [refusal(401, "authError")]
    with pytest.raises(StoreDenied, match=r"does not accept the credentials .*401 authError.*Renew them"):
        await listed(store)
    assert server.refreshes == [False, True]


DENIED = (
    "reader@p.iam.gserviceaccount.com does not have storage.objects.list access to the Google Cloud Storage bucket."
)


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (web.Response(status=307, headers={"Location": "/elsewhere"}), BadRequest, "Check the endpoint"),
        (refusal(404, "notFound", "The specified bucket does not exist."), StoreMissing, 'no bucket "cams"'),
        (web.Response(status=404, text="404 page not found"), StoreMissing, 'no bucket "cams"'),
        (
            refusal(403, "forbidden", DENIED),
            StoreDenied,
            r"Allow storage.objects.list, .* role roles/storage.objectViewer",
        ),
        (refusal(403, "accountDisabled"), StoreDenied, "Enable billing"),
        (refusal(400, "userProjectMissing"), StoreDenied, "requester pays"),
        (refusal(403, "insufficientPermissions"), StoreDenied, "scope cloud-platform"),
        (refusal(403, "accessNotConfigured"), StoreDenied, "API is not enabled"),
        (refusal(403, "vpcServiceControls"), StoreDenied, "VPC service perimeter"),
        (refusal(400, "invalid"), FailedDependency, "400 invalid on objects.list"),
        (refusal(400, "in valid<script>"), FailedDependency, r"\(400 on objects.list\)"),
    ],
)
async def test_a_refusal_says_what_to_do(
    server: Google, store: Store, answer: web.Response, kind: type[HeadwaterError], sentence: str
):
    server.script = [answer]
    with pytest.raises(kind, match=sentence) as raised:
        await store.check_listing()
    assert type(raised.value) is kind
    assert raised.value.operation == "objects.list"


async def test_each_call_names_the_permission_it_needs(server: Google, store: Store):
    server.script = [refusal(403, "forbidden")]
    with pytest.raises(StoreDenied, match=r"read from .*Allow storage.objects.get, .*roles/storage.objectViewer"):
        await store.head("a")
    with pytest.raises(StoreDenied, match=r"write to .*Allow storage.objects.create, .*roles/storage.objectUser"):
        await store.put("a", b"1", content_type="text/plain")
    with pytest.raises(StoreDenied, match=r"delete from .*Allow storage.objects.delete, .*roles/storage.objectUser"):
        await store.delete("a")
    server.script = [refusal(403, "forbidden", "x does not have storage.objects.delete access to the object.")]
    with pytest.raises(StoreDenied, match=r"write to .*Allow storage.objects.delete, .*roles/storage.objectUser"):
        await store.put("a", b"1", content_type="text/plain")
    server.script = [refusal(403, "retentionPolicyNotMet")]
    with pytest.raises(StoreDenied, match="retention policy"):
        await store.delete("a")


async def test_a_bucket_that_is_gone_is_not_an_object_that_is_gone(server: Google, store: Store):
    server.script = [refusal(404, "notFound", "The specified bucket does not exist.")]
    for call in (store.head("a"), store.delete("a"), store.put("a", b"", content_type="text/plain")):
        with pytest.raises(StoreMissing, match="There is no bucket"):
            await call
    server.script = [refusal(404, "notFound", "No such object: cams/d/a")]
    with pytest.raises(StoreMissing, match='No object "d/a"'):
        await store.head("a")
    await store.delete("a")


async def test_no_secret_is_in_an_error_or_a_log(server: Google, store: Store, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    errors: list[str] = []
    session = begun()[0]
    for answers in (
        [refusal(403, "forbidden", f"{SECRETS[0]} is wrong")],
        [refusal(503, SECRETS[1])],
        [broken_off],
        [f"<html>{SECRETS[1]}"],
        [session, refusal(403, "forbidden", SECRETS[1])],
        [session, broken_off],
    ):
        for call in (
            store.check_listing,
            lambda: store.put("a", b"1", content_type="text/plain"),
            lambda: store.head("a"),
            lambda: upload(store, b"x" * (CHUNK_BYTES + 5)),
        ):
            server.script = list(answers)
            try:
                await call()
            except HeadwaterError as error:
                errors += [str(error), repr(error.__cause__)]
    errors.append(repr(await server.credentials(False)))
    assert len(errors) > 30
    assert not [text for text in [*errors, caplog.text] for secret in SECRETS if secret in text]


@pytest.mark.parametrize("name", ["standard", "NEARLINE"])
async def test_objects_are_written_with_the_storage_class_asked_for(server: Google, name: str):
    store = open_gcs(bucket="cams", endpoint=server.url, credentials=server.credentials, storage_class=name)
    server.script = [written(b"1")]
    await store.put("a", b"1", content_type="text/plain")
    server.script = begun(go_on(CHUNK_BYTES), written(b"x" * (CHUNK_BYTES + 5)))
    await upload(store, b"x" * (CHUNK_BYTES + 5))
    await store.close()
    assert f'"storageClass":"{name.upper()}"'.encode() in server.bodies[0]
    assert json.loads(server.bodies[1])["storageClass"] == name.upper()


def test_a_storage_class_that_cannot_be_is_refused(server: Google):
    with pytest.raises(BadRequest, match=r"no storage class 'GLACIER'. It has STANDARD, NEARLINE"):
        open_gcs(bucket="cams", credentials=server.credentials, storage_class="GLACIER")


# Reading


def media(body: bytes, *, generation: str = "7", cut_to: int | None = None) -> Handler:
    """Honours Range and ifGenerationMatch; with `cut_to` the connection breaks after so many bytes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.query.get("ifGenerationMatch", generation) != generation:
            return refusal(412, "conditionNotMet")
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        rest = body[start:]
        headers = {"X-Goog-Generation": generation, "Content-Length": str(len(rest)), "ETag": "CAE="}
        if "Range" in request.headers:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
        response.headers.add("X-Goog-Hash", "crc32c=AAAAAA==")
        response.headers.add("X-Goog-Hash", f"md5={md5_of(body)}")
        await response.prepare(request)
        await response.write(rest[:cut_to])
        if cut_to is not None:
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


async def test_a_broken_download_goes_on_where_it_broke(server: Google, store: Store):
    body = bytes(range(256)) * 40
    server.script = [media(body, cut_to=1000), media(body, cut_to=77), media(body)]
    async with store.get("a") as reader:
        assert await reader.read() == body
        assert (reader.info.etag, reader.info.size_bytes) == (md5_of(body), len(body))
    assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=1000-", "bytes=1077-"]
    assert server.queries("ifGenerationMatch") == [None, "7", "7"]


async def test_an_object_that_changed_during_a_broken_download_is_not_mixed(server: Google, store: Store):
    server.script = [media(b"x" * 5000, cut_to=1000), media(b"y" * 5000, generation="8")]
    with pytest.raises(Unavailable, match="changed while it was read"):
        async with store.get("a") as reader:
            await reader.read()


async def test_a_download_that_always_breaks_ends(server: Google, store: Store):
    server.script = [media(b"x" * 5000, cut_to=10)]
    with pytest.raises(Unavailable, match="broke while"):
        async with store.get("a") as reader:
            await reader.read()


async def test_compressed_objects_come_as_they_are_stored(server: Google, store: Store):
    """Google unpacks them for those who do not accept them packed."""

    async def answer(request: web.Request) -> web.StreamResponse:
        is_packed = "gzip" in request.headers["Accept-Encoding"]
        return web.Response(body=b"\x1f\x8b packed" if is_packed else b"unpacked", headers={"Content-Encoding": "gzip"})

    server.script = [answer]
    async with store.get("a") as reader:
        assert await reader.read() == b"\x1f\x8b packed"


@pytest.mark.parametrize("answer", ["", "{}", "[]", '{"size": "x", "timeCreated": "2026-01-02T03:04:05Z"}', "<html>"])
async def test_an_answer_that_describes_no_object_is_none(server: Google, store: Store, answer: str):
    server.script = [answer]
    with pytest.raises(Unavailable, match="does not describe an object"):
        await store.head("a")


# Writing


def written(body: bytes, **changes: Any) -> web.Response:
    return web.json_response(item("d/a", size=str(len(body)), md5Hash=md5_of(body), **changes))


def go_on(arrived_bytes: int) -> web.Response:
    headers = {"X-Http-Status-Code-Override": "308"}
    return web.Response(headers=headers | ({"Range": f"bytes=0-{arrived_bytes - 1}"} if arrived_bytes else {}))


def begun(*later: Any) -> list[Any]:
    location = f"https://elsewhere.example.com/x?uploadType=resumable&name=d%2Fa&upload_id={SECRETS[1]}%2B%2F1"
    return [web.Response(headers={"Location": location}), *later]


async def upload(store: Store, body: bytes) -> Any:
    async with await store.begin_upload("a", content_type="image/jpeg") as upload:
        await upload.write(body)
        await upload.seal()
        return await upload.finish()


def ranges(server: Google) -> list[str | None]:
    return [request.headers.get("Content-Range") for request in server.requests]


async def test_a_small_object_goes_in_one_request_with_its_hash(server: Google, store: Store):
    body = b"\r\n--\x00\xff"
    server.script = [written(body)]
    info = await store.put("ü\N{GRINNING FACE}//..", body, content_type="image/jpeg")
    assert (info.etag, info.size_bytes) == (md5_of(body), len(body))
    (request,) = server.requests
    assert (request.method, request.path) == ("POST", "/upload/storage/v1/b/cams/o")
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    message = BytesParser(policy=email.policy.HTTP).parsebytes(head + server.bodies[0])
    resource, content = message.iter_parts()
    assert json.loads(resource.get_payload(decode=True)) == {
        "name": "d/ü\N{GRINNING FACE}//..",
        "contentType": "image/jpeg",
        "md5Hash": md5_of(body),
    }
    assert content.get_content_type() == "image/jpeg"
    assert body in server.bodies[0]


@pytest.mark.parametrize("content_type", ["a/b\r\nX: y", "ü/x", "a\0b"])
async def test_a_content_type_that_is_no_header_is_not_sent(server: Google, store: Store, content_type: str):
    server.script = [written(b"1")]
    await store.put("a", b"1", content_type=content_type)
    assert server.bodies[0].count(b"application/octet-stream") == 2
    assert b"X: y" not in server.bodies[0]


BODY = bytes(range(256)) * (CHUNK_BYTES // 256) + b"the end"
STEP = 256 * 1024


async def test_a_large_object_goes_chunk_by_chunk(server: Google, store: Store):
    body = BODY + b"x" * STEP
    server.script = begun(go_on(CHUNK_BYTES), go_on(CHUNK_BYTES + STEP), written(body))
    assert (await upload(store, body)).etag == md5_of(body)
    first, last = CHUNK_BYTES - 1, len(body) - 1
    assert ranges(server) == [
        None,
        f"bytes 0-{first}/*",
        f"bytes {first + 1}-{first + STEP}/*",
        f"bytes {first + STEP + 1}-{last}/{last + 1}",
    ]
    assert b"".join(server.bodies[1:]) == body
    assert {request.path for request in server.requests} == {"/upload/storage/v1/b/cams/o"}
    assert server.queries("upload_id") == [None, *[f"{SECRETS[1]}+/1"] * 3]


async def test_what_is_sealed_still_lacks_its_last_piece(server: Google, store: Store):
    """Because the last byte makes the object visible."""
    body = BODY[:CHUNK_BYTES] + b"x" * (2 * STEP)
    server.script = begun(go_on(CHUNK_BYTES), go_on(CHUNK_BYTES + STEP), written(body))
    await upload(store, body)
    first, last = CHUNK_BYTES, len(body) - 1
    assert ranges(server)[2:] == [
        f"bytes {first}-{first + STEP - 1}/*",
        f"bytes {first + STEP}-{last}/{last + 1}",
    ]


async def test_a_chunk_whose_answer_was_lost_is_not_sent_twice(server: Google, store: Store):
    server.script = begun(broken_off, go_on(CHUNK_BYTES), written(BODY))
    await upload(store, BODY)
    assert ranges(server)[1:3] == [f"bytes 0-{CHUNK_BYTES - 1}/*", "bytes */*"]
    assert b"".join(server.bodies[1:]) == BODY


async def test_a_chunk_that_arrived_in_part_is_sent_from_there(server: Google, store: Store):
    server.script = begun(refusal(503, "backendError"), go_on(STEP), go_on(2 * STEP), go_on(CHUNK_BYTES), written(BODY))
    await upload(store, BODY)
    assert ranges(server)[1:] == [
        f"bytes 0-{CHUNK_BYTES - 1}/*",
        "bytes */*",
        f"bytes {STEP}-{CHUNK_BYTES - 1}/*",
        f"bytes {2 * STEP}-{CHUNK_BYTES - 1}/*",
        f"bytes {CHUNK_BYTES}-{len(BODY) - 1}/{len(BODY)}",
    ]
    assert server.bodies[4] == BODY[2 * STEP : CHUNK_BYTES]


async def test_a_chunk_of_which_nothing_arrived_is_sent_again(server: Google, store: Store):
    server.script = begun(broken_off, go_on(0), go_on(CHUNK_BYTES), written(BODY))
    await upload(store, BODY)
    assert server.bodies[1] == server.bodies[3] == BODY[:CHUNK_BYTES]


async def test_the_last_chunk_whose_answer_was_lost_is_found_finished(server: Google, store: Store):
    server.script = begun(go_on(CHUNK_BYTES), broken_off, written(BODY))
    assert (await upload(store, BODY)).size_bytes == len(BODY)
    assert ranges(server)[-1] == f"bytes */{len(BODY)}"


async def test_a_token_that_expires_during_an_upload_is_taken_anew(server: Google, store: Store):
    expired = refusal(401, "authError")
    server.script = begun(expired, expired, go_on(0), go_on(CHUNK_BYTES), written(BODY))
    await upload(store, BODY)
    assert server.refreshes.count(True) == 1


async def test_an_upload_that_never_gets_on_ends_and_is_cancelled(server: Google, store: Store):
    for answers in ([go_on(0)] * 40, [refusal(503, "backendError"), go_on(0)] * 40, [refusal(403, "forbidden")] * 40):
        server.requests.clear()
        server.script = begun(*answers)
        with pytest.raises((Unavailable, StoreDenied)):
            await upload(store, BODY)
        assert len(server.requests) < 20
        assert (server.requests[-1].method, server.requests[-1].query["upload_id"]) == ("DELETE", f"{SECRETS[1]}+/1")


@pytest.mark.parametrize("arrived_bytes", [CHUNK_BYTES + STEP, 12 * CHUNK_BYTES])
async def test_a_store_that_claims_more_than_was_sent_is_not_believed(server: Google, store: Store, arrived_bytes: int):
    server.script = begun(go_on(arrived_bytes), web.Response(status=499))
    with pytest.raises(Unavailable, match="lost bytes"):
        await upload(store, BODY)


async def test_a_store_that_forgets_bytes_is_not_believed(server: Google, store: Store):
    server.script = begun(go_on(CHUNK_BYTES), broken_off, go_on(STEP), web.Response(status=499))
    with pytest.raises(Unavailable, match="lost bytes"):
        await upload(store, BODY)


@pytest.mark.parametrize("kept", [BODY[:-1], BODY[:-1] + b"X"])
async def test_an_object_that_is_not_what_was_sent_is_told(server: Google, store: Store, kept: bytes):
    server.script = begun(go_on(CHUNK_BYTES), written(kept), web.Response(status=499))
    with pytest.raises(Unavailable, match=r"other bytes .* than were sent"):
        await upload(store, BODY)


@pytest.mark.parametrize("status", [404, 410])
async def test_a_session_that_was_forgotten_asks_to_upload_again(server: Google, store: Store, status: int):
    server.script = begun(refusal(status, "notFound"))
    with pytest.raises(Unavailable, match="Upload it again"):
        await upload(store, BODY)


async def test_a_session_without_an_id_is_none(server: Google, store: Store):
    server.script = [web.Response(headers={"Location": "https://storage.googleapis.com/"})]
    with pytest.raises(Unavailable, match="without giving it an id"):
        await upload(store, BODY)


async def test_an_abandoned_upload_is_cancelled(server: Google, store: Store):
    server.script = begun(go_on(CHUNK_BYTES), web.Response(status=499))
    pending = await store.begin_upload("a", content_type="image/jpeg")
    await pending.write(BODY)
    await pending.abort()
    await pending.abort()
    assert [request.method for request in server.requests] == ["POST", "PUT", "DELETE"]
    assert server.requests[2].query["upload_id"] == f"{SECRETS[1]}+/1"


# Signed URLs, verified with the public key


def check_signature(url: str) -> dict[str, str]:
    """The query without its signature. Builds what was signed anew, from the documentation alone."""
    parts = urlsplit(url)
    unsigned, _, signature = parts.query.partition("&X-Goog-Signature=")
    query = {name: values[0] for name, values in parse_qs(unsigned, strict_parsing=True).items()}
    canonical_query = "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))
    canonical = f"GET\n{parts.path}\n{canonical_query}\nhost:{parts.netloc}\n\nhost\nUNSIGNED-PAYLOAD"
    scope = query["X-Goog-Credential"].split("/", 1)[1]
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signed = "\n".join([query["X-Goog-Algorithm"], query["X-Goog-Date"], scope, digest])
    private_key().public_key().verify(bytes.fromhex(signature), signed.encode(), PKCS1v15(), SHA256())
    return query


async def test_a_signed_url_is_signed_by_the_account_for_all_that_it_says(store: Store):
    url = str(await store.sign_get("a b/ü+%2B&.jpg", expires_s=60, file_name='ü "x".jpg', content_type="image/png"))
    query = check_signature(url)
    assert urlsplit(url).path == "/cams/d/a%20b/%C3%BC%2B%252B%26.jpg"
    assert query["response-content-type"] == "image/png"
    assert query["response-content-disposition"] == "attachment; filename*=UTF-8''%C3%BC%20%22x%22.jpg"
    assert (query["X-Goog-Expires"], query["X-Goog-SignedHeaders"]) == ("60", "host")
    with pytest.raises(InvalidSignature):
        check_signature(url.replace("X-Goog-Expires=60", "X-Goog-Expires=6000"))
    with pytest.raises(InvalidSignature):
        check_signature(url.replace("/cams/d/", "/cams/e/"))


keys = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(key=keys, file_name=keys, expires_s=st.integers(-5, 10**7))
def test_any_key_is_signed_as_it_is_sent(key: str, file_name: str, expires_s: int):
    account = check_service_account(key_file())
    now = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    url = signed_url(
        GcsBucket("cams", ""),
        key,
        UrlSigner(account.email, account.signer),
        {"response-content-type": "image/png", "response-content-disposition": file_name},
        expires_s=expires_s,
        now=now,
    )
    if not {".", ".."}.isdisjoint(key.split("/")):
        assert url is None
        return
    query = check_signature(str(url))
    assert str(url).startswith("https://storage.googleapis.com/cams/")
    assert query["response-content-disposition"] == file_name
    assert query["X-Goog-Credential"] == f"{EMAIL}/20260203/auto/storage/goog4_request"
    assert query["X-Goog-Date"] == "20260203T040506Z"
    assert 1 <= int(query["X-Goog-Expires"]) <= 604_800


@pytest.mark.parametrize("key", ["a/../b", "./a", "..", "a/."])
async def test_a_url_that_clients_would_shorten_is_not_made(server: Google, key: str):
    store = open_gcs(bucket="cams", endpoint=server.url, credentials=server.credentials)
    assert await store.sign_get(key, expires_s=60) is None
    await store.close()


async def test_credentials_without_a_key_sign_nothing(server: Google):
    async def provide(_refresh: bool) -> GcsCredentials:
        return GcsCredentials("t")

    store = open_gcs(bucket="cams", endpoint=server.url, credentials=provide)
    assert await store.sign_get("a", expires_s=60) is None
    await store.close()


# Keys


@pytest.mark.parametrize(
    ("key", "sent"),
    [
        ("a b", "a%20b"),
        ("/lead//x/", "%2Flead%2F%2Fx%2F"),
        ("a/../b", "a%2F..%2Fb"),
        ("a+b%2Bc", "a%2Bb%252Bc"),
        ("~-_.!*()'?#", "~-_.%21%2A%28%29%27%3F%23"),
        ("\N{GRINNING FACE}", "%F0%9F%98%80"),
        ("e\u0301", "e%CC%81"),
        ("ü" * 511, "%C3%BC" * 511),
    ],
)
async def test_a_key_is_one_segment_encoded_once(server: Google, store: Store, key: str, sent: str):
    server.script = [written(b"")]
    await store.head(key)
    assert server.requests[0].raw_path.partition("?")[0] == f"/storage/v1/b/cams/o/d%2F{sent}"
