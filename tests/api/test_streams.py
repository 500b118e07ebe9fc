"""The bytes of items: whole, in ranges, by redirect, and what keeps them from running in our name."""

import asyncio
from typing import Any

import aiohttp
import botocore.session
import httpx
import pytest

from headwater.storage.opening import open_s3
from headwater.storage.s3.requests import S3Credentials
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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("page.html", b"<script>alert(1)</script>"),
        ("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
        ("page.xhtml", b"<html xmlns='http://www.w3.org/1999/xhtml'><script>1</script></html>"),
        ("nothing", b"<html><script>alert(1)</script>"),
    ],
)
async def test_a_file_never_runs_as_a_page_of_ours(world: World, name: str, content: bytes) -> None:
    item = await world.upload(world.dataset_id, f"/{unique('active')}/{name}", content)
    for byte_range in (None, "bytes=0-"):
        answer = await stream(world, item, byte_range)
        assert answer.content == content
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = [directive.strip() for directive in answer.headers["content-security-policy"].split(";")]
        assert "sandbox" in policy
        assert "default-src 'none'" in policy
    if name == "nothing":
        assert answer.headers["content-type"] == "application/octet-stream"


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
