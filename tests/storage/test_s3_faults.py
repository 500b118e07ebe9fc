"""What S3 may do wrong, played by a small server, and what becomes of it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage import sending
from headwater.storage.opening import open_s3
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.s3.uploads import SMALLEST_PART_BYTES, part_bytes
from headwater.storage.stores import ListingPage, Store
from tests.servers import Keys, S3Server
from tests.storage.conftest import s3_place
from tests.storage.scripted import Handler, Scripted, broken_off

SECRETS = ("very-secret-key", "very-secret-token", "Signature=")


class ScriptedS3(Scripted):
    def __init__(self) -> None:
        super().__init__()
        self.refreshes: list[bool] = []

    async def credentials(self, refresh: bool) -> S3Credentials:
        self.refreshes.append(refresh)
        return S3Credentials("key-id", SECRETS[0], SECRETS[1], datetime.now(UTC) + timedelta(hours=1))


@pytest.fixture
async def server() -> AsyncIterator[ScriptedS3]:
    async with ScriptedS3.running() as scripted:
        yield scripted


@pytest.fixture
async def store(server: ScriptedS3) -> AsyncIterator[Store]:
    store = open_s3(
        bucket="cams",
        prefix="d",
        region="us-east-1",
        endpoint=server.url,
        credentials=server.credentials,
        backoff_s=0.001,
    )
    yield store
    await store.close()


def entry(key: str, *, size: str = "1", etag: str = "&quot;e&quot;", modified: str = "2026-01-02T03:04:05.000Z") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>{modified}</LastModified>"
        f"<ETag>{etag}</ETag><Size>{size}</Size></Contents>"
    )


def page(
    *entries: str,
    token: str | None = None,
    truncated: str | None = None,
    encoding: str = "url",
    space: str = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"',
) -> str:
    parts = [f"<IsTruncated>{truncated or ('true' if token else 'false')}</IsTruncated>"]
    if token is not None:
        parts.append(f"<NextContinuationToken>{token}</NextContinuationToken>")
    if encoding:
        parts.append(f"<EncodingType>{encoding}</EncodingType>")
    return f"<ListBucketResult{space}>{''.join([*parts, *entries])}</ListBucketResult>"


def refusal(status: int, code: str, *, region: str | None = None, header: bool = False) -> web.Response:
    document = f"<Error><Code>{code}</Code><Message>m</Message>"
    document += f"<Region>{region}</Region>" if region and not header else ""
    headers = {"x-amz-bucket-region": region} if region and header else {}
    return web.Response(status=status, text=document + "</Error>", headers=headers)


async def listed(store: Store, **arguments: Any) -> list[ListingPage]:
    return [page async for page in store.list_pages(**arguments)]


async def keys_of(store: Store) -> list[str]:
    return [key for page in await listed(store) for key in page.keys]


# Listings that must not be believed


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (page(entry("d/a"))[:-30], "no whole XML"),
        ("", "no whole XML"),
        ("<html><body>Console</body></html>", "Check that the endpoint"),
        (page(entry("d/a"), truncated="true"), "not how to ask"),
        (page(entry("d/a"), truncated="perhaps"), "whether more objects follow"),
        (page(entry("d/a", size="many")), "valid size"),
        (page(entry("d/a", size="")), "valid size"),
        (page(entry("d/a", modified="yesterday")), "valid time"),
        (page(entry("d/a", modified="")), "valid time"),
        (page(entry("d/a"), entry("elsewhere")), "outside the prefix"),
        (page(entry("d/a"), "<Contents><Key>d/b</Key></Contents>"), "valid size"),
        (page(entry("d/a"), token="a\ufffdb"), "damaged"),
    ],
)
async def test_a_page_that_is_wrong_proves_nothing(server: ScriptedS3, store: Store, answer: str, sentence: str):
    server.script = [answer]
    with pytest.raises(Unavailable, match=sentence):
        await listed(store)


@pytest.mark.parametrize("tokens", [["x"], ["x", "y"], ["a", "b", "x", "y", "z"]])
async def test_a_listing_that_goes_in_a_circle_ends(server: ScriptedS3, store: Store, tokens: list[str]):
    server.script = [page(entry(f"d/{token}"), token=token) for token in tokens * 200]
    with pytest.raises(Unavailable, match="repeats a continuation token"):
        await listed(store)
    assert len(server.requests) < 20


async def test_pages_that_are_empty_for_ever_end(server: ScriptedS3, store: Store):
    server.script = [page(token=str(number)) for number in range(500)]
    with pytest.raises(Unavailable, match="sends none"):
        await listed(store)


async def test_some_empty_pages_in_the_midst_are_normal(server: ScriptedS3, store: Store):
    server.script = [page(token=str(number)) for number in range(20)]
    server.script += [page(entry("d/a"), token="x"), page(token="y"), page()]
    assert await keys_of(store) == ["a"]


async def test_what_was_listed_before_a_refusal_is_given_and_then_the_refusal(server: ScriptedS3, store: Store):
    server.script = [page(entry("d/a"), token="1"), page(entry("d/b"), token="2"), refusal(403, "AccessDenied")]
    pages = store.list_pages()
    assert (await anext(pages)).keys == ["a"]
    assert (await anext(pages)).keys == ["b"]
    with pytest.raises(StoreDenied, match=r"list bucket \"cams\" .*403 AccessDenied on ListObjectsV2"):
        await anext(pages)


# Listings that are odd, but right


@pytest.mark.parametrize(
    ("key", "printable", "reason"),
    [
        ("d/%FF", "d/\\xff", "The name is not UTF-8."),
        ("d/%00", "d/\0", "The name contains a NUL character."),
        ("d/" + "x" * 1023, "d/" + "x" * 1023, "The name is longer than 1,024 bytes."),
        ("", "", "The name is empty."),
    ],
)
async def test_a_name_that_cannot_be_indexed_is_told_apart(
    server: ScriptedS3, store: Store, key: str, printable: str, reason: str
):
    server.script = [page(entry("d/a"), entry(key, size="5"), entry("d/b+%2B", size="7", etag="&quot;f&quot;"))]
    (only,) = await listed(store)
    assert (only.keys, only.sizes, only.etags) == (["a", "b +"], [1, 7], ["e", "f"])
    assert only.unindexable == [(printable, reason)]


async def test_a_key_of_1024_bytes_is_fine(server: ScriptedS3, store: Store):
    server.script = [page(entry("d/" + "%C3%BC" * 511))]
    assert await keys_of(store) == ["ü" * 511]


async def test_a_page_without_encoding_is_taken_as_it_is(server: ScriptedS3, store: Store):
    server.script = [page(entry("d/a+b%20c&amp;d"), encoding="")]
    assert await keys_of(store) == ["a+b%20c&d"]


@pytest.mark.parametrize("space", ["", ' xmlns="http://obs.example.com/doc/2015-06-30/"'])
async def test_any_namespace_is_understood(server: ScriptedS3, store: Store, space: str):
    server.script = [page(entry("d/a", etag=""), token="1", space=space), page(entry("d/b"), space=space)]
    first, second = await listed(store)
    assert (first.keys, first.etags, second.keys, second.etags) == (["a"], [""], ["b"], ["e"])


async def test_tokens_go_back_as_they_came(server: ScriptedS3, store: Store):
    tokens = ["a+b/c==", "d/&amp;x%2B", "d/y\ufffdz"]
    server.script = [
        page(entry("d/1"), token=tokens[0]),
        page(entry("d/2"), token=tokens[1]),
        page(entry("d/y%01z"), token=tokens[2]),
        page(),
    ]
    await listed(store)
    assert server.queries("continuation-token") == [None, "a+b/c==", "d/&x%2B", "d/y\x01z"]


async def test_the_next_page_is_asked_for_while_one_is_used(server: ScriptedS3, store: Store):
    asked = asyncio.Event()

    async def second(_request: web.Request) -> web.StreamResponse:
        asked.set()
        return web.Response(text=page())

    server.script = [page(entry("d/a"), token="1"), second]
    async with aclosing(store.list_pages()) as pages:
        await anext(pages)
        await asyncio.wait_for(asked.wait(), 5)


async def test_a_listing_left_early_leaves_no_request_behind(server: ScriptedS3, store: Store):
    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    server.script = [page(entry("d/a"), token="1"), never]
    before = asyncio.all_tasks()
    async with aclosing(store.list_pages()) as pages:
        await anext(pages)
    ours = [task for task in asyncio.all_tasks() - before if "_fetch_page" in str(task.get_coro())]
    assert ours == []


# Failures that pass


@pytest.mark.parametrize(
    "failure",
    [
        web.Response(status=503, text="busy"),
        refusal(500, "InternalError"),
        web.Response(status=502, text="<html>bad gateway</html>"),
        refusal(429, "TooManyRequests"),
        refusal(400, "RequestTimeout"),
        broken_off,
    ],
    ids=["503", "500", "502", "429", "timeout", "reset"],
)
async def test_a_passing_failure_is_not_seen(server: ScriptedS3, store: Store, failure: Any):
    server.script = [page(entry("d/a"), token="1"), failure, failure, page(entry("d/b"))]
    assert await keys_of(store) == ["a", "b"]
    assert server.queries("continuation-token") == [None, "1", "1", "1"]


async def test_a_lasting_failure_ends_after_a_few_tries(server: ScriptedS3, store: Store):
    server.script = [refusal(503, "SlowDown")]
    with pytest.raises(Unavailable, match="503 SlowDown on ListObjectsV2"):
        await listed(store)
    assert len(server.requests) == 5


async def test_a_server_that_is_away_is_unavailable(server: ScriptedS3):
    store = open_s3(
        bucket="cams",
        region="us-east-1",
        endpoint="http://127.0.0.1:1",
        credentials=server.credentials,
        backoff_s=0.001,
    )
    with pytest.raises(Unavailable, match=r"did not answer for .*cams.* at http://127.0.0.1:1 .*check the endpoint"):
        await store.head("a")
    await store.close()


async def test_a_request_has_a_deadline(server: ScriptedS3, store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending, "_REQUEST_DEADLINE_S", 0.1)

    async def never(_request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    server.script = [never, page(entry("d/a"))]
    assert await keys_of(store) == ["a"]


# Credentials


async def test_expired_credentials_are_taken_anew_in_the_midst_of_a_listing(server: ScriptedS3, store: Store):
    server.script = [page(entry("d/a"), token="1"), refusal(400, "ExpiredToken"), page(entry("d/b"))]
    assert await keys_of(store) == ["a", "b"]
    assert server.refreshes == [False, False, True]


async def test_expired_credentials_are_taken_anew_for_an_answer_without_body(server: ScriptedS3, store: Store):
    server.script = [web.Response(status=400), web.Response(text="1234567")]
    assert (await store.head("a")).size_bytes == 7
    assert server.refreshes == [False, True]


async def test_credentials_that_stay_expired_are_refused(server: ScriptedS3, store: Store):
    server.script = [refusal(400, "ExpiredToken")]
    with pytest.raises(StoreDenied, match="Renew them"):
        await listed(store)
    assert server.refreshes == [False, True]


def error_page(text: str, status: int = 400) -> web.Response:
    return web.Response(status=status, text=text)


def denial(text: str) -> web.Response:
    return web.Response(status=403, text=f"<Error><Code>AccessDenied</Code><Message>{text}</Message></Error>")


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (refusal(301, "PermanentRedirect", region="eu-west-1", header=True), BadRequest, 'region "eu-west-1", not'),
        (refusal(400, "AuthorizationHeaderMalformed", region="eu-west-1"), BadRequest, 'region "eu-west-1", not'),
        (web.Response(status=307, headers={"Location": "/elsewhere"}), BadRequest, "Check region and endpoint"),
        (refusal(404, "NoSuchBucket"), StoreMissing, 'no bucket "cams"'),
        (web.Response(status=404, text="404 page not found"), StoreMissing, 'no bucket "cams"'),
        (refusal(403, "SignatureDoesNotMatch"), StoreDenied, "The secret is not the one of that access key id"),
        (refusal(403, "InvalidAccessKeyId"), StoreDenied, "no such access key id"),
        (refusal(403, "InvalidToken"), StoreDenied, "of another key"),
        (refusal(400, "ExpiredToken"), StoreDenied, "session token has expired"),
        (error_page("<!DOCTYPE html><html>Console</html>"), BadRequest, "answers with a web page"),
        (error_page("\n<html>nginx</html>", status=404), BadRequest, "answers with a web page"),
        (error_page("Client sent an HTTP request to an HTTPS server."), BadRequest, "endpoint with https://"),
        (error_page("<html>The plain HTTP request was sent to HTTPS port"), BadRequest, "endpoint with https://"),
        (denial("Bucket is a Requester Pays bucket"), FailedDependency, "requester pays"),
        (denial("User: u is not authorized to perform: kms:Decrypt"), FailedDependency, "kms:GenerateDataKey"),
        (refusal(403, "RequestTimeTooSkewed"), FailedDependency, "clock"),
        (refusal(403, "AccessDenied"), StoreDenied, r"Allow s3:ListBucket on arn:aws:s3:::cams\."),
        (refusal(400, "Odd"), FailedDependency, "400 Odd on ListObjectsV2"),
        (refusal(400, "x" * 65), FailedDependency, r"\(400 on ListObjectsV2\)"),
        (refusal(400, "Odd", region="hush of yours"), FailedDependency, "400 Odd on ListObjectsV2"),
    ],
)
async def test_a_refusal_says_what_to_do(
    server: ScriptedS3, store: Store, answer: web.Response, kind: type[HeadwaterError], sentence: str
):
    server.script = [answer]
    with pytest.raises(kind, match=sentence) as raised:
        await store.check_listing()
    assert type(raised.value) is kind


async def test_no_secret_is_in_an_error_or_a_log(server: ScriptedS3, store: Store, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    errors: list[str] = []
    for answer in (refusal(403, "AccessDenied"), refusal(503, "SlowDown"), broken_off, "<html>"):
        server.script = [answer]
        for call in (store.check_listing(), store.put("a", b"1", content_type="text/plain"), store.head("a")):
            try:
                await call
            except HeadwaterError as error:
                errors += [str(error), repr(error.__cause__)]
    url = str(await store.sign_get("a", expires_s=60))
    assert "X-Amz-Signature=" in url
    assert len(errors) > 10
    assert not [text for text in [*errors, caplog.text] for secret in SECRETS if secret in text]
    assert not [text for text in [repr(await server.credentials(False))] if "secret" in text.replace("secret_", "")]


# Reading


def object_answer(body: bytes, *, etag: str = '"v1"', cut_to: int | None = None) -> Handler:
    """Honours Range and If-Match; with `cut_to` the connection breaks after so many bytes."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("If-Match", etag) != etag:
            return web.Response(status=412, text="<Error><Code>PreconditionFailed</Code></Error>")
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        rest = body[start:]
        headers = {"ETag": etag, "Content-Length": str(len(rest))}
        if "Range" in request.headers:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        response = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
        await response.prepare(request)
        await response.write(rest[:cut_to])
        if cut_to is not None:
            assert request.transport is not None
            request.transport.close()
        return response

    return answer


async def test_a_broken_download_goes_on_where_it_broke(server: ScriptedS3, store: Store):
    body = bytes(range(256)) * 40
    server.script = [
        object_answer(body, cut_to=1000),
        object_answer(body, cut_to=77),
        object_answer(body),
    ]
    async with store.get("a") as reader:
        assert await reader.read() == body
    assert [request.headers.get("Range") for request in server.requests] == [None, "bytes=1000-", "bytes=1077-"]
    assert server.requests[1].headers["If-Match"] == '"v1"'


async def test_an_object_that_changed_during_a_broken_download_is_not_mixed(server: ScriptedS3, store: Store):
    server.script = [object_answer(b"x" * 5000, cut_to=1000), object_answer(b"y" * 5000, etag='"v2"')]
    with pytest.raises(Unavailable, match="changed while it was read"):
        async with store.get("a") as reader:
            await reader.read()


async def test_a_download_that_always_breaks_ends(server: ScriptedS3, store: Store):
    server.script = [object_answer(b"x" * 5000, cut_to=10)]
    with pytest.raises(Unavailable, match="broke while"):
        async with store.get("a") as reader:
            await reader.read()


async def test_compressed_objects_come_as_they_are_stored(server: ScriptedS3, store: Store):
    server.script = [web.Response(body=b"\x1f\x8b not really", headers={"Content-Encoding": "gzip"})]
    async with store.get("a") as reader:
        assert await reader.read() == b"\x1f\x8b not really"


# Writing


def begun(*later: Any) -> list[Any]:
    part = web.Response(headers={"ETag": '"p"'})
    return ["<R><UploadId>u+1</UploadId></R>", part, part, *later]


async def upload_two_parts(store: Store) -> Any:
    async with await store.begin_upload("a", content_type="image/jpeg") as upload:
        await upload.write(bytes(SMALLEST_PART_BYTES + 5))
        await upload.seal()
        return await upload.finish()


DONE = "<CompleteMultipartUploadResult><ETag>&quot;whole-2&quot;</ETag></CompleteMultipartUploadResult>"
FAILED = '<?xml version="1.0"?>\n<Error><Code>InternalError</Code></Error>'


async def test_a_completion_that_fails_after_its_200_is_repeated(server: ScriptedS3, store: Store):
    server.script = begun(FAILED, DONE)
    info = await upload_two_parts(store)
    assert (info.etag, info.size_bytes) == ("whole-2", SMALLEST_PART_BYTES + 5)
    begun_with, *parts, completed, again = server.queries("partNumber")
    assert (begun_with, sorted(parts), completed, again) == (None, ["1", "2"], None, None)  # parts go side by side


async def test_a_completion_that_never_works_is_aborted(server: ScriptedS3, store: Store):
    server.script = begun(*[FAILED] * 5, web.Response(status=204))
    with pytest.raises(Unavailable, match="InternalError on CompleteMultipartUpload"):
        await upload_two_parts(store)
    last = server.requests[-1]
    assert (last.method, last.query["uploadId"]) == ("DELETE", "u+1")


async def test_a_completion_of_a_forgotten_upload_asks_to_upload_again(server: ScriptedS3, store: Store):
    server.script = begun(refusal(404, "NoSuchUpload"))
    with pytest.raises(Unavailable, match="Upload it again"):
        await upload_two_parts(store)


def test_parts_grow_so_that_the_largest_object_fits_into_10_000():
    sizes = [part_bytes(number) for number in range(10_000)]
    assert sum(sizes) >= 5 * 1024**4
    assert max(sizes) <= 5 * 1024**3
    total = 0
    for size in sizes:
        assert size <= max(SMALLEST_PART_BYTES, total / 500)
        total += size


# The same on a real server


@pytest.mark.parametrize(
    ("keys", "bucket", "kind", "sentence"),
    [
        (Keys("admin-id", "wrong"), "cams", StoreDenied, "does not accept the credentials"),
        (Keys("nobody", "wrong"), "cams", StoreDenied, "does not accept the credentials"),
        (None, "absent", StoreMissing, 'no bucket "absent"'),
    ],
)
async def test_seaweedfs_refuses(
    seaweedfs: S3Server, keys: Keys | None, bucket: str, kind: type[HeadwaterError], sentence: str
):
    server = S3Server(seaweedfs.endpoint, keys or seaweedfs.admin, seaweedfs.reader)
    store = s3_place("seaweedfs", server, bucket).store()
    for call in (store.check_listing(), listed(store)):
        with pytest.raises(kind, match=sentence):
            await call
    await store.close()
