"""The bytes of items: whole, in ranges, by redirect, and what keeps them from running in our name."""

import asyncio
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import botocore.session
import httpx
import pytest
import uvicorn

from headwater.storage.opening import open_s3
from headwater.storage.s3.requests import S3Credentials
from headwater.work.preprocess import thumbnail_key
from tests import servers
from tests.api.world import World, message, unique, upload

CONTENT = b"0123456789"


@pytest.fixture
async def item(world: World) -> dict[str, Any]:
    return await world.upload(world.dataset_id, f"/{unique('stream')}.txt", CONTENT)


async def stream(world: World, item: dict[str, Any], byte_range: str | None = None) -> httpx.Response:
    headers = {} if byte_range is None else {"range": byte_range}
    return await world.owner.get(f"/items/{item['id']}/stream", headers=headers)


async def test_the_whole_file(world: World, item: dict[str, Any]) -> None:
    answer = await stream(world, item)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert (answer.headers["content-length"], answer.headers["accept-ranges"]) == ("10", "bytes")
    assert "content-range" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "content", "told"),
    [
        ("bytes=0-", CONTENT, "bytes 0-9/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=2-5", b"2345", "bytes 2-5/10"),
        ("bytes=9-9", b"9", "bytes 9-9/10"),
        ("bytes=8-400", b"89", "bytes 8-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-400", CONTENT, "bytes 0-9/10"),
        (" bytes=1-1 ", b"1", "bytes 1-1/10"),
    ],
)
async def test_a_range_of_it(world: World, item: dict[str, Any], asked: str, content: bytes, told: str) -> None:
    answer = await stream(world, item, asked)
    assert (answer.status_code, answer.content) == (206, content)
    assert answer.headers["content-range"] == told
    assert answer.headers["content-length"] == str(len(content))


@pytest.mark.parametrize("asked", ["bytes=5-3", "bytes=-", "bytes=a-b", "bytes", "bytes=" + "9" * 5000 + "-"])
async def test_what_is_no_range_is_refused(world: World, item: dict[str, Any], asked: str) -> None:
    message(await stream(world, item, asked), 400)


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=11-20", "bytes=-0", "bytes=" + "9" * 18 + "-"])
async def test_a_range_behind_the_end_is_told_where_the_end_is(world: World, item: dict[str, Any], asked: str) -> None:
    answer = await stream(world, item, asked)
    message(answer, 416)
    assert answer.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize("asked", ["bytes=0-1,3-4", "bytes=0-1, -2", "items=0-1", ""])
async def test_the_whole_answers_ranges_that_are_not_served(world: World, item: dict[str, Any], asked: str) -> None:
    answer = await stream(world, item, asked)
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert "content-range" not in answer.headers


async def test_an_empty_item_has_an_empty_stream(world: World) -> None:
    item = await world.upload(world.dataset_id, f"/{unique('empty')}.txt", b"")
    for asked in (None, "bytes=0-", "bytes=-5"):
        answer = await stream(world, item, asked)
        assert (answer.status_code, answer.content) == (200, b"")
    assert (await stream(world, item, "bytes=1-")).headers["content-range"] == "bytes */0"


async def test_a_missing_object_is_told_in_words(world: World, item: dict[str, Any]) -> None:
    root = world.app.state.server.settings.data_dir / "storage" / world.dataset_id
    for path in root.rglob("*"):
        if path.is_file() and path.read_bytes() == CONTENT:
            path.unlink()
    message(await stream(world, item), 424)


async def test_a_ghost_has_no_bytes(world: World, item: dict[str, Any]) -> None:
    await world.execute("UPDATE item SET missing_since = '2026-01-02 03:04:05Z' WHERE id = %s", int(item["id"], 16))
    told = message(await stream(world, item), 409)
    assert "2026-01-02 03:04" in told
    assert item["filename"] in told
    shown = (await world.owner.get(f"/items/{item['id']}")).json()["metadata"]["system"]
    assert (shown["missing"], shown["missingSince"]) == (True, "2026-01-02T03:04:05.000Z")


async def test_no_thumbnail_is_told_in_words(world: World, item: dict[str, Any]) -> None:
    assert "thumbnail" in message(await world.owner.get(f"/items/{item['id']}/thumbnail"), 404)
    await world.execute("UPDATE item SET thumbnail_type = 'image/webp' WHERE id = %s", int(item["id"], 16))
    assert "thumbnail" in message(await world.owner.get(f"/items/{item['id']}/thumbnail"), 404)


# What browsers and galleries ask for.


async def thumbnail(world: World, content: bytes) -> str:
    """Of a new item of our own storage; its id."""
    made = await world.upload(world.dataset_id, f"/{unique('shown')}.jpg", b"not asked for")
    await world.execute("UPDATE item SET thumbnail_type = 'image/jpeg' WHERE id = %s", int(made["id"], 16))
    await put_thumbnail(world, made["id"], content)
    return made["id"]


async def put_thumbnail(world: World, item_id: str, content: bytes) -> None:
    async with world.app.state.server.place.places.of_dataset(int(world.dataset_id, 16)) as store:
        await store.put(thumbnail_key(int(item_id, 16), "image/jpeg"), content, content_type="image/jpeg")


async def test_a_thumbnail_is_sent_once_and_anew_when_it_changes(world: World) -> None:
    item_id = await thumbnail(world, b"first")
    url = f"/items/{item_id}/thumbnail"
    first = await world.owner.get(url)
    assert (first.status_code, first.content, first.headers["content-type"]) == (200, b"first", "image/jpeg")
    assert first.headers["cache-control"] == "private, no-cache"
    assert first.headers["vary"] == "Authorization"
    known = {"if-none-match": first.headers["etag"]}
    for header in (first.headers["etag"], f'"other", W/{first.headers["etag"]}', "*"):
        again = await world.owner.get(url, headers={"if-none-match": header})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
    message(await world.callers["stranger"].get(url, headers=known), 404)
    message(await world.callers["no token"].get(url, headers=known), 401)
    await put_thumbnail(world, item_id, b"second one")
    changed = await world.owner.get(url, headers=known)
    assert (changed.status_code, changed.content) == (200, b"second one")
    assert changed.headers["etag"] != first.headers["etag"]


async def test_a_range_is_given_only_of_the_bytes_that_the_caller_has_the_beginning_of(
    world: World, item: dict[str, Any]
) -> None:
    etag = (await stream(world, item)).headers["etag"]
    for if_range, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200), ("Mon, 23 Nov 2026 02:00:00 GMT", 200)):
        headers = {"range": "bytes=4-", "if-range": if_range}
        answer = await world.owner.get(f"/items/{item['id']}/stream", headers=headers)
        assert (answer.status_code, answer.content) == (status, CONTENT[4:] if status == 206 else CONTENT)
    assert (await world.owner.get(f"/items/{item['id']}/stream", headers={"if-none-match": etag})).status_code == 304


@pytest.mark.parametrize("kind", ["stream", "thumbnail"])
async def test_head_tells_what_get_would_without_the_bytes(world: World, kind: str) -> None:
    item_id = await thumbnail(world, b"0123456789")
    url = f"/items/{item_id}/{kind}"
    got, told = await world.owner.get(url), await world.owner.head(url)
    assert (told.status_code, told.content) == (200, b"")
    assert {name: told.headers[name] for name in got.headers} == dict(got.headers)
    assert (await world.owner.head(url, headers={"if-none-match": told.headers["etag"]})).status_code == 304
    for who, status in (("no token", 401), ("outsider", 404), ("stranger", 404), ("annotator", 200)):
        assert (await world.callers[who].head(url)).status_code == status
    refused = await world.owner.post(url)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("name", ["plain.jpg", 'a "b" c.jpg', "ü ö.jpg", "a;b=c.jpg", "line\r\nx: y.jpg", "😀.png"])
async def test_names_of_files_are_told_so_that_no_header_breaks(world: World, name: str) -> None:
    path = f"/{unique('names')}/{name}"
    item = await world.upload(world.dataset_id, f"/{unique('names')}/x.jpg", CONTENT)
    change = "UPDATE item SET path = %s, mime_type = 'image/png' WHERE id = %s"
    await world.execute(change, path, int(item["id"], 16))
    for query, kind in (("", "inline"), ("?download=true", "attachment"), ("?download=True", "attachment")):
        answer = await world.owner.get(f"/items/{item['id']}/stream{query}")
        assert (answer.status_code, answer.content) == (200, CONTENT)
        told = answer.headers["content-disposition"]
        assert re.fullmatch(rf"{kind}; filename=\"[A-Za-z0-9 ._-]+\"; filename\*=UTF-8''[A-Za-z0-9%._~-]+", told)
        assert unquote(told.rpartition("''")[2]) == name
        assert "x" not in answer.headers


# Users' files never run as pages of ours.

PICTURE = b"\x89PNG\r\n\x1a\n"
SCRIPT = b"document.title='run'"
# (name, type as stored, bytes, type as told, shown)
HOSTILE = [
    ("page.html", None, b"<script>alert(1)</script>", "application/octet-stream", False),
    ("drawing.svg", None, b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "application/octet-stream",
     False),
    ("page.xhtml", None, b"<html xmlns='http://www.w3.org/1999/xhtml'><script>1</script></html>",
     "application/octet-stream", False),
    ("styled.xml", None, b"<?xml-stylesheet type='text/xsl' href='x.xsl'?><a/>", "application/octet-stream", False),
    ("sheet.xsl", "text/xsl", b"<xsl:stylesheet/>", "application/octet-stream", False),
    ("archive.mhtml", "multipart/related; boundary=x", b"--x", "application/octet-stream", False),
    ("mail.eml", "message/rfc822", b"Content-Type: text/html", "application/octet-stream", False),
    ("code.js", None, SCRIPT, "application/octet-stream", False),
    ("code.mjs", "application/javascript; charset=utf-8", SCRIPT, "application/octet-stream", False),
    ("style.css", None, b"a{}", "application/octet-stream", False),
    ("movie.swf", "application/x-shockwave-flash", b"FWS", "application/octet-stream", False),
    ("paper.pdf", None, b"%PDF-1.7", "application/pdf", False),
    ("text.txt", "text/plain", b"<html><script>alert(1)</script>", "text/plain", False),
    ("nothing", None, b"<html><script>alert(1)</script>", "application/octet-stream", False),
    ("script.jpg", "image/jpeg", SCRIPT, "image/jpeg", True),
    ("polyglot.png", None, PICTURE + b"<script>alert(1)</script>", "image/png", True),
    ("polyglot.gif", "image/gif", b"GIF89a/*<svg/onload=alert(1)>*/=1;alert(1)", "image/gif", True),
    ("clip.mp4", "video/mp4", b"<html>", "video/mp4", True),
    ("told.jpg", "text/html", b"<script>alert(1)</script>", "application/octet-stream", False),
    ("told.png", "IMAGE/SVG+XML", b"<svg/>", "application/octet-stream", False),
    ("told.webp", "image/svg", b"<svg/>", "application/octet-stream", False),
    ("told.a", "image/jpeg; x=text/html", b"x", "image/jpeg", True),
    ("told.b", "image/jpeg, text/html", b"x", "application/octet-stream", False),
    ("told.c", "image/\r\nset-cookie: a=b", b"x", "application/octet-stream", False),
    ("told.d", "text / html", b"x", "application/octet-stream", False),
    ("told.e", "", b"x", "application/octet-stream", False),
    ("told.f", "image/ü", b"x", "application/octet-stream", False),
]  # fmt: skip


async def hostile(world: World, dataset_id: str, name: str, kind: str | None, content: bytes) -> str:
    item = await world.upload(dataset_id, f"/{unique('hostile')}/{name}", content)
    if kind is not None:
        await world.execute("UPDATE item SET mime_type = %s WHERE id = %s", kind, int(item["id"], 16))
    return item["id"]


@pytest.mark.parametrize(("name", "kind", "content", "told", "shown"), HOSTILE, ids=[one[0] for one in HOSTILE])
async def test_a_file_never_runs_as_a_page_of_ours(
    world: World, name: str, kind: str | None, content: bytes, told: str, shown: bool
) -> None:
    item_id = await hostile(world, world.dataset_id, name, kind, content)
    for headers in ({}, {"range": "bytes=0-"}):
        answer = await world.owner.get(f"/items/{item_id}/stream", headers=headers)
        assert answer.content == content
        assert answer.headers["content-type"] == told
        assert answer.headers["content-disposition"].startswith("inline;" if shown else "attachment;")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "set-cookie" not in answer.headers
        policy = [directive.strip() for directive in answer.headers["content-security-policy"].split(";")]
        assert policy == ["sandbox", "default-src 'none'"]


@pytest.mark.parametrize(("name", "kind", "content", "told", "shown"), HOSTILE, ids=[one[0] for one in HOSTILE])
async def test_nor_does_the_bucket_present_it_as_a_page(
    world: World, bucket_item: dict[str, Any], name: str, kind: str | None, content: bytes, told: str, shown: bool
) -> None:
    item_id = await hostile(world, bucket_item["datasetId"], name, kind, content)
    redirect = await world.owner.get(f"/items/{item_id}/stream")
    assert redirect.status_code == 302
    async with httpx.AsyncClient() as browser:
        answer = await browser.get(redirect.headers["location"])
        saved = await browser.get((await world.owner.get(f"/items/{item_id}/stream?download=true")).headers["location"])
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, content, told)
    for given, is_saved in ((answer, not shown), (saved, True)):
        disposition = given.headers.get("content-disposition", "")
        assert disposition.startswith("attachment;") == is_saved
        assert not is_saved or unquote(disposition.rpartition("''")[2]) == name


# Over real connections.


class _Quiet(uvicorn.Server):
    """Leaves the signals to pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@pytest.fixture(scope="session")
async def served(world: World) -> AsyncIterator[str]:
    """The API's URL on a real server, as `headwater serve` runs it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(world.app, log_level="critical", access_log=False, lifespan="off", server_header=False)
        server = _Quiet(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1"
        server.should_exit = True
        await serving


LARGE_BYTES = 64 * 1024**2  # more than all buffers on the way hold


@asynccontextmanager
async def large_stream(world: World, served: str) -> AsyncIterator[tuple[httpx.Response, Path]]:
    """A stream that has begun and is not read on, and the file that it is of."""
    content = unique("large").encode()
    item = await world.upload(world.dataset_id, f"/{unique('large')}.bin", content)
    root = world.app.state.server.settings.data_dir / "storage" / world.dataset_id
    (file,) = [path for path in root.rglob("*") if path.is_file() and path.read_bytes() == content]
    os.truncate(file, LARGE_BYTES)
    await world.execute("UPDATE item SET size_bytes = %s WHERE id = %s", LARGE_BYTES, int(item["id"], 16))
    async with (
        httpx.AsyncClient(headers={"authorization": world.owner.headers["authorization"]}, timeout=20) as client,
        client.stream("GET", f"{served}/items/{item['id']}/stream") as answer,
    ):
        assert (answer.status_code, answer.headers["content-length"]) == (200, str(LARGE_BYTES))
        yield answer, file


async def test_a_slow_reader_holds_no_connection_to_the_database(world: World, served: str) -> None:
    async with large_stream(world, served), large_stream(world, served):
        await until(lambda: world.pool.get_stats()["pool_available"] == world.pool.get_stats()["pool_size"])


async def test_a_file_that_changes_meanwhile_ends_in_a_broken_connection(world: World, served: str) -> None:
    """Never in a body that looks whole."""
    async with large_stream(world, served) as (answer, file):
        os.utime(file, (1, 1))
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()


async def test_who_leaves_is_read_for_no_longer(world: World, served: str) -> None:
    async with large_stream(world, served) as (_, file):
        assert is_open(file)
    await until(lambda: not is_open(file))


def is_open(file: Path) -> bool:
    links = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            links.append(link.readlink())
    return file in links


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_head_and_errors_are_answered_without_a_body_over_the_wire(
    world: World, served: str, item: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(base_url=served) as client:
        client.headers["authorization"] = world.owner.headers["authorization"]
        for _ in range(2):  # over one connection, which a body would put out of step
            told = await client.head(f"/items/{item['id']}/stream")
            assert (told.status_code, told.headers["content-length"], told.content) == (200, "10", b"")
            assert (await client.head(f"/items/{item['id']}/thumbnail")).status_code == 404
            assert (await client.get(f"/items/{item['id']}/stream")).content == CONTENT


# From a real bucket.


@pytest.fixture(scope="session")
async def bucket(weed: servers.S3Server) -> str:
    """With `in/photo one.txt`."""
    name = "streams"
    credentials = S3Credentials(weed.admin.access_key_id, weed.admin.secret_access_key, None)
    await asyncio.to_thread(_make_bucket, weed, name)

    async def known(_: bool) -> S3Credentials:
        return credentials

    async with aiohttp.TCPConnector() as connector:
        store = open_s3(bucket=name, prefix="in/", region=servers.REGION, endpoint=weed.endpoint,
                        credentials=known, connector=connector)  # fmt: skip
        await store.put("photo one.txt", CONTENT, content_type="text/plain")
        await store.close()
    return name


def _make_bucket(weed: servers.S3Server, name: str) -> None:
    client = botocore.session.get_session().create_client(
        "s3", endpoint_url=weed.endpoint, region_name=servers.REGION,
        aws_access_key_id=weed.admin.access_key_id, aws_secret_access_key=weed.admin.secret_access_key,
    )  # fmt: skip
    client.create_bucket(Bucket=name)
    client.close()


async def s3_driver_body(world: World, weed: servers.S3Server, bucket: str, *, secret: str = "") -> dict[str, Any]:
    integration = {
        "name": unique("keys"), "type": "s3", "metadata": {"endpoint": weed.endpoint},
        "options": {"key": weed.admin.access_key_id, "secret": secret or weed.admin.secret_access_key},
    }  # fmt: skip
    made = await world.owner.post(f"/orgs/{world.organization_id}/integrations", json=integration)
    payload = {"bucketName": bucket, "storageClass": "", "region": servers.REGION, "path": "in"}
    return world.driver_body(made.json()["id"], type="s3", integrationType="s3", payload=payload)


@pytest.fixture(scope="session")
async def bucket_item(world: World, weed: servers.S3Server, bucket: str) -> dict[str, Any]:
    driver = await world.owner.post("/drivers", json=await s3_driver_body(world, weed, bucket))
    assert driver.status_code == 200, driver.text
    assert (driver.json()["bucketName"], driver.json()["path"]) == (bucket, "in")
    dataset_id = await world.new_dataset(driver=driver.json()["id"], sync=False)
    item = await upload(world.owner, dataset_id, "/photo one.txt", CONTENT, mode="overwrite")
    assert item.status_code == 200, item.text
    return item.json()


async def test_a_bucket_is_read_through_a_signed_url_that_carries_no_token(
    world: World, bucket_item: dict[str, Any], weed: servers.S3Server
) -> None:
    answer = await stream(world, bucket_item)
    assert answer.status_code == 302
    assert answer.headers["cache-control"] == "no-store"
    url = answer.headers["location"]
    assert url.startswith(weed.endpoint + "/")
    token = world.owner.headers["authorization"].removeprefix("Bearer ")
    assert token not in url
    assert weed.admin.secret_access_key not in url
    async with httpx.AsyncClient() as anybody:
        assert (await anybody.get(url)).content == CONTENT
        assert (await anybody.get(url, headers={"range": "bytes=4-"})).content == CONTENT[4:]
        unsigned = url.partition("?")[0]
        assert (await anybody.get(unsigned)).status_code == 403
    asked = await world.owner.head(f"/items/{bucket_item['id']}/stream")
    assert (asked.status_code, asked.headers["content-length"]) == (200, "10")


@pytest.mark.parametrize("key", ["in/up/../down.txt", "in/./here.txt", "in/up/.."])
async def test_a_key_that_clients_would_shorten_passes_through_us(
    world: World, weed: servers.S3Server, bucket_item: dict[str, Any], key: str
) -> None:
    """A browser asks for /down.txt when it is sent to /up/../down.txt, and the signature is of another path."""
    other = await upload(world.owner, bucket_item["datasetId"], f"/{unique('dots')}.txt", CONTENT, mode="overwrite")
    item_id = other.json()["id"]
    await world.execute("UPDATE item SET path = %s WHERE id = %s", key.removeprefix("in"), int(item_id, 16))
    answer = await world.owner.get(f"/items/{item_id}/stream")
    assert answer.status_code != 302
    assert "location" not in answer.headers


async def test_without_redirects_the_bytes_pass_through(world: World, bucket_item: dict[str, Any]) -> None:
    server = world.app.state.server
    proxying = server.settings.model_copy(update={"redirect_downloads": False})
    object.__setattr__(server, "settings", proxying)
    try:
        whole = await stream(world, bucket_item)
        part = await stream(world, bucket_item, "bytes=2-5")
        end = await stream(world, bucket_item, "bytes=-2")
        beyond = await stream(world, bucket_item, "bytes=10-")
    finally:
        object.__setattr__(server, "settings", proxying.model_copy(update={"redirect_downloads": True}))
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"2345", "bytes 2-5/10")
    assert (end.status_code, end.content) == (206, b"89")
    assert whole.headers["x-content-type-options"] == "nosniff"
    message(beyond, 416)


# Drivers of real buckets.


async def test_a_driver_that_does_not_work_leaves_no_row(world: World, weed: servers.S3Server, bucket: str) -> None:
    wrong_secret = await s3_driver_body(world, weed, bucket, secret="wrong-" + "x" * 20)
    no_bucket = await s3_driver_body(world, weed, "no-such-bucket")
    for body in (wrong_secret, no_bucket):
        told = message(await world.owner.post("/drivers", json=body), 424)
        assert body["payload"]["bucketName"] in told
        assert "wrong-xxx" not in told
        assert await world.execute("SELECT id FROM driver WHERE name = %s", body["name"]) == []


async def test_more_drivers_at_once_than_there_are_connections(
    world: World, weed: servers.S3Server, bucket: str
) -> None:
    """Each needs a connection for its credentials: one that waited for it with another in hand waited for ever."""
    bodies = [await s3_driver_body(world, weed, bucket) for _ in range(25)]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*[world.owner.post("/drivers", json=body) for body in bodies])
    assert {answer.status_code for answer in answers} == {200}
