"""Resumable uploads, by the letters of the tus protocol."""

import asyncio
import base64
import hashlib
import itertools
import json
import random
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.requests import ClientDisconnect

from headwater.storage.stores import LARGEST_OBJECT_BYTES, SMALLEST_PART_BYTES
from headwater.work import tus
from tests.api.world import NOBODY, World, unique

VERSION = {"Tus-Resumable": "1.0.0"}
BODY_TYPE = {"Content-Type": "application/offset+octet-stream"}


def told(**pairs: str) -> str:
    return ",".join(f"{key} {base64.b64encode(text.encode()).decode()}" for key, text in pairs.items())


async def create(client: httpx.AsyncClient, dataset: str, size_bytes: int, **pairs: str) -> httpx.Response:
    headers = VERSION | {"Upload-Length": str(size_bytes), "Upload-Metadata": told(**({"path": "/a.bin"} | pairs))}
    return await client.post(f"/datasets/{dataset}/tus", headers=headers)


async def begun(client: httpx.AsyncClient, dataset: str, size_bytes: int, **pairs: str) -> str:
    answer = await create(client, dataset, size_bytes, **pairs)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


async def patch(client: httpx.AsyncClient, url: str, offset: int, body, **headers: str) -> httpx.Response:
    given = VERSION | BODY_TYPE | {"Upload-Offset": str(offset)} | headers
    return await client.patch(url, headers=given, content=body)


async def offset_of(client: httpx.AsyncClient, url: str) -> int:
    answer = await client.head(url, headers=VERSION)
    assert answer.status_code == 200, answer.text
    return int(answer.headers["Upload-Offset"])


async def content_of(client: httpx.AsyncClient, item_id: str) -> bytes:
    return (await client.get(f"/items/{item_id}/stream")).content


def stored(world: World, dataset_id: str) -> list[Path]:
    """Every file in our own storage of a dataset."""
    root = world.app.state.server.settings.data_dir / "storage" / dataset_id
    return [path for path in root.rglob("*") if path.is_file()]


async def breaking_off(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    raise ClientDisconnect


@pytest.fixture
async def dataset(world: World) -> str:
    return await world.new_dataset()


async def test_the_server_tells_what_it_can(world: World, dataset: str) -> None:
    answer = await world.callers["no token"].options(f"/datasets/{dataset}/tus")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert set(answer.headers["Tus-Extension"].split(",")) >= {"creation", "checksum", "termination", "expiration"}
    assert answer.headers["Tus-Max-Size"] == str(LARGEST_OBJECT_BYTES)
    assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256,md5,crc32"


async def test_a_file_in_three_pieces_becomes_an_item_with_the_last(world: World, dataset: str) -> None:
    metadata = json.dumps({"user": {"n": 1}})
    answer = await create(world.owner, dataset, 10, path="/f/ü.bin", metadata=metadata, description="two words")
    assert answer.status_code == 201
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert "Upload-Expires" in answer.headers
    url = answer.headers["Location"]
    for offset, body in ((0, b"012"), (3, b"3456")):
        answer = await patch(world.owner, url, offset, body)
        assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(offset + len(body)))
        assert "X-Item-Id" not in answer.headers
    listed = await world.owner.post(f"/datasets/{dataset}/query", json={"resource": "items"})
    assert listed.json()["items"] == []
    answer = await patch(world.owner, url, 7, b"789")
    assert (answer.status_code, answer.content, answer.headers["Upload-Offset"]) == (204, b"", "10")
    assert answer.headers["x-item-op"] == "created"
    item = (await world.owner.get(f"/items/{answer.headers['X-Item-Id']}")).json()
    assert (item["filename"], item["description"]) == ("/f/ü.bin", "two words")
    assert (item["metadata"]["user"], item["metadata"]["system"]["size"]) == ({"n": 1}, 10)
    assert await content_of(world.owner, item["id"]) == b"0123456789"


async def test_a_finished_upload_is_told_until_it_expires(world: World, dataset: str) -> None:
    url = await begun(world.owner, dataset, 3)
    item_id = (await patch(world.owner, url, 0, b"abc")).headers["X-Item-Id"]
    answer = await world.owner.head(url, headers=VERSION)
    assert (answer.status_code, answer.headers["Upload-Offset"], answer.headers["Upload-Length"]) == (200, "3", "3")
    assert (answer.headers["X-Item-Id"], answer.headers["Cache-Control"]) == (item_id, "no-store")
    assert answer.headers["Upload-Metadata"] == told(path="/a.bin")
    again = await patch(world.owner, url, 3, b"")
    assert (again.status_code, again.headers["X-Item-Id"]) == (204, item_id)


async def test_who_accepts_json_gets_the_item(world: World, dataset: str) -> None:
    url = await begun(world.owner, dataset, 3)
    answer = await patch(world.owner, url, 0, b"abc", Accept="application/json")
    assert (answer.status_code, answer.json()["id"]) == (200, answer.headers["X-Item-Id"])


async def test_an_empty_file_is_finished_when_it_is_announced(world: World, dataset: str) -> None:
    answer = await create(world.owner, dataset, 0)
    assert answer.status_code == 201
    assert await content_of(world.owner, answer.headers["X-Item-Id"]) == b""
    assert await offset_of(world.owner, answer.headers["Location"]) == 0


async def test_the_first_bytes_may_come_with_the_announcement(world: World, dataset: str) -> None:
    headers = VERSION | BODY_TYPE | {"Upload-Length": "5", "Upload-Metadata": told(path="/x/y.bin")}
    answer = await world.owner.post(f"/datasets/{dataset}/tus", headers=headers, content=b"123")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "3")
    last = await patch(world.owner, answer.headers["Location"], 3, b"45")
    assert await content_of(world.owner, last.headers["X-Item-Id"]) == b"12345"


@pytest.mark.parametrize("parts", [1, 2])
async def test_files_longer_than_a_part_arrive_whole(world: World, dataset: str, parts: int) -> None:
    for extra in (-1, 0, 1):
        body = random.randbytes(parts * SMALLEST_PART_BYTES + extra)
        url = await begun(world.owner, dataset, len(body), mode="overwrite")
        cuts = sorted({0, len(body), *(random.randrange(len(body)) for _ in range(4))})
        for start, end in itertools.pairwise(cuts):
            answer = await patch(world.owner, url, start, body[start:end])
            assert answer.headers["Upload-Offset"] == str(end)
        assert await content_of(world.owner, answer.headers["X-Item-Id"]) == body
    assert [path for path in stored(world, dataset) if "/.dataloop/tmp/" in str(path)] == []


async def test_what_came_before_a_break_is_kept(world: World, dataset: str) -> None:
    body = random.randbytes(SMALLEST_PART_BYTES + 1000)
    url = await begun(world.owner, dataset, len(body))
    assert (await patch(world.owner, url, 0, breaking_off(body[:500], body[500:1234]))).status_code == 400
    assert await offset_of(world.owner, url) == 1234
    broken = breaking_off(body[1234 : SMALLEST_PART_BYTES + 7])
    assert (await patch(world.owner, url, 1234, broken)).status_code == 400
    assert await offset_of(world.owner, url) == SMALLEST_PART_BYTES + 7
    last = await patch(world.owner, url, SMALLEST_PART_BYTES + 7, body[SMALLEST_PART_BYTES + 7 :])
    assert await content_of(world.owner, last.headers["X-Item-Id"]) == body


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"Upload-Offset": "1"}, 409, "at byte 0, not 1"),
        ({"Upload-Offset": "-1"}, 400, "Upload-Offset"),
        ({"Upload-Offset": "x"}, 400, "Upload-Offset"),
        ({"Upload-Offset": "²"}, 400, "Upload-Offset"),
        ({"Upload-Offset": None}, 400, "Upload-Offset is missing"),
        ({"Tus-Resumable": "0.2.2"}, 412, "tus 1.0.0"),
        ({"Tus-Resumable": None}, 412, "tus 1.0.0"),
        ({"Content-Type": "application/octet-stream"}, 415, "application/offset"),
        ({"Content-Type": None}, 415, "application/offset"),
        ({"Upload-Checksum": "sha7 aaaa"}, 400, "sha7"),
        ({"Upload-Checksum": "sha1 aaaa"}, 400, "not its digest"),
        ({"Upload-Checksum": "sha1"}, 400, "not its digest"),
    ],
)
async def test_a_wrong_header_changes_nothing(
    world: World, dataset: str, change: dict[str, str | None], status: int, words: str
) -> None:
    url = await begun(world.owner, dataset, 5)
    headers = {
        name: text.encode()
        for name, text in (VERSION | BODY_TYPE | {"Upload-Offset": "0"} | change).items()
        if text is not None
    }
    answer = await world.owner.patch(url, headers=headers, content=b"12345")
    assert (answer.status_code, words in answer.json()["message"]) == (status, True), answer.text
    assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert ("Tus-Version" in answer.headers) is (status == 412)
    assert await offset_of(world.owner, url) == 0


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({}, 400, "Upload-Length is missing"),
        ({"Upload-Length": "-1"}, 400, "Upload-Length"),
        ({"Upload-Length": "1e3"}, 400, "Upload-Length"),
        ({"Upload-Length": "9" * 40}, 400, "Upload-Length"),
        ({"Upload-Length": str(LARGEST_OBJECT_BYTES + 1)}, 413, "at most"),
        ({"Upload-Length": "1", "Upload-Metadata": ""}, 400, "names no file"),
        ({"Upload-Length": "1", "Upload-Metadata": "path a!"}, 400, "not base64"),
        ({"Upload-Length": "1", "Upload-Metadata": "path /w=="}, 400, "not base64 of UTF-8"),
        ({"Upload-Length": "1", "Upload-Metadata": told(path="/a/../b")}, 400, "cannot be an item's path"),
        ({"Upload-Length": "1", "Upload-Metadata": told(path="/a\0b")}, 400, "cannot be an item's path"),
        ({"Upload-Length": "1", "Upload-Metadata": told(path="/" + "x" * 1025)}, 400, "1025 bytes long"),
        ({"Upload-Length": "1", "Upload-Metadata": told(path="/.dataloop/thumbnails/1.webp")}, 400, "its own files"),
        ({"Upload-Length": "1", "Upload-Metadata": told(path="/a", mode="replace")}, 400, "skip or overwrite"),
        ({"Upload-Length": "1", "Upload-Metadata": told(path="/a", metadata="[]")}, 400, "JSON object"),
        ({"Upload-Length": "1", "Upload-Metadata": told(path="/a", metadata="{")}, 400, "not JSON"),
        ({"Upload-Length": "1", "Upload-Metadata": told(path="/a", crc32="xyz")}, 400, "8 hexadecimal"),
        ({"Upload-Length": "1", "Tus-Resumable": "2.0.0"}, 412, "tus 1.0.0"),
    ],
)
async def test_a_wrong_announcement_leaves_nothing(
    world: World, dataset: str, headers: dict[str, str], status: int, words: str
) -> None:
    given = VERSION | {"Upload-Metadata": told(path="/a.bin")} | headers
    answer = await world.owner.post(f"/datasets/{dataset}/tus", headers=given)
    assert (answer.status_code, words in answer.json()["message"]) == (status, True), answer.text
    assert await world.execute("SELECT id FROM tus_upload WHERE dataset_id = %s", int(dataset, 16)) == []


async def test_more_bytes_than_were_announced_are_refused(world: World, dataset: str) -> None:
    url = await begun(world.owner, dataset, 5)
    answer = await patch(world.owner, url, 0, b"123456")
    assert (answer.status_code, "announced with 5 bytes" in answer.json()["message"]) == (413, True)

    async def unannounced() -> AsyncIterator[bytes]:
        yield b"123"
        yield b"456"

    answer = await patch(world.owner, url, 0, unannounced())
    assert answer.status_code == 413
    assert await offset_of(world.owner, url) == 3


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"filename": "a.jpg"}, "/a.jpg"),
        ({"filename": "a.jpg", "folder": "/x/y/"}, "/x/y/a.jpg"),
        ({"filename": "a.jpg", "relativePath": "sub/a.jpg", "folder": "x"}, "/x/sub/a.jpg"),
        ({"filename": "a.jpg", "relativePath": "null"}, "/a.jpg"),
        ({"name": "a.jpg"}, "/a.jpg"),
        ({"path": "x/a.jpg", "filename": "other"}, "/x/a.jpg"),
    ],
)
async def test_browsers_name_files_in_their_own_way(
    world: World, dataset: str, metadata: dict[str, str], path: str
) -> None:
    headers = VERSION | {"Upload-Length": "0", "Upload-Metadata": told(**metadata)}
    answer = await world.owner.post(f"/datasets/{dataset}/tus", headers=headers)
    assert (await world.owner.get(f"/items/{answer.headers['X-Item-Id']}")).json()["filename"] == path


DIGESTS = {
    "sha1": lambda body: hashlib.sha1(body).digest(),
    "sha256": lambda body: hashlib.sha256(body).digest(),
    "md5": lambda body: hashlib.md5(body).digest(),
    "crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
}


@pytest.mark.parametrize("name", list(DIGESTS))
async def test_bytes_that_were_damaged_are_not_counted(world: World, dataset: str, name: str) -> None:
    body = random.randbytes(2 * SMALLEST_PART_BYTES + 5)
    url = await begun(world.owner, dataset, len(body))
    assert (await patch(world.owner, url, 0, body[:3])).status_code == 204
    checksum = f"{name} {base64.b64encode(DIGESTS[name](body[3:])).decode()}"
    damaged = bytearray(body[3:])
    damaged[SMALLEST_PART_BYTES + 1] ^= 1
    answer = await patch(world.owner, url, 3, bytes(damaged), **{"Upload-Checksum": checksum})
    assert (answer.status_code, "damaged" in answer.json()["message"]) == (460, True)
    assert await offset_of(world.owner, url) == 3
    answer = await patch(world.owner, url, 3, breaking_off(body[3:900]), **{"Upload-Checksum": checksum})
    assert answer.status_code == 400
    assert await offset_of(world.owner, url) == 3
    answer = await patch(world.owner, url, 3, body[3:], **{"Upload-Checksum": checksum})
    assert await content_of(world.owner, answer.headers["X-Item-Id"]) == body


async def test_a_whole_file_that_was_damaged_becomes_no_item(world: World, dataset: str) -> None:
    body = b"0123456789"
    crc32 = f"{zlib.crc32(body):08x}"
    url = await begun(world.owner, dataset, 10, crc32=crc32)
    await patch(world.owner, url, 0, body[:5])
    answer = await patch(world.owner, url, 5, b"56x89")
    assert (answer.status_code, "crc32" in answer.json()["message"]) == (460, True)
    assert (await world.owner.head(url, headers=VERSION)).status_code == 410
    assert stored(world, dataset) == []
    url = await begun(world.owner, dataset, 10, crc32=crc32)
    await patch(world.owner, url, 0, body[:5])
    assert (await patch(world.owner, url, 5, body[5:])).headers["x-item-op"] == "created"


async def test_modes_are_those_of_the_sdk(world: World, dataset: str) -> None:
    first = await patch(world.owner, await begun(world.owner, dataset, 3), 0, b"old")
    kept = await patch(world.owner, await begun(world.owner, dataset, 3), 0, b"new")
    assert (kept.headers["x-item-op"], kept.headers["X-Item-Id"]) == ("skip", first.headers["X-Item-Id"])
    assert await content_of(world.owner, first.headers["X-Item-Id"]) == b"old"
    url = await begun(world.owner, dataset, 3, mode="overwrite")
    replaced = await patch(world.owner, url, 0, b"new")
    assert (replaced.headers["x-item-op"], replaced.headers["X-Item-Id"]) == (
        "overwrite",
        first.headers["X-Item-Id"],
    )
    assert await content_of(world.owner, first.headers["X-Item-Id"]) == b"new"
    assert [path for path in stored(world, dataset) if "/.dataloop/tmp/" in str(path)] == []


async def test_a_terminated_upload_leaves_nothing(world: World, dataset: str) -> None:
    url = await begun(world.owner, dataset, SMALLEST_PART_BYTES + 10)
    await patch(world.owner, url, 0, random.randbytes(SMALLEST_PART_BYTES + 5))
    assert len(stored(world, dataset)) == 1
    answer = await world.owner.delete(url, headers=VERSION)
    assert answer.status_code == 204
    assert (await world.owner.head(url, headers=VERSION)).status_code == 404
    assert (await patch(world.owner, url, 0, b"1")).status_code == 404
    assert stored(world, dataset) == []


async def test_terminating_a_finished_upload_keeps_its_item(world: World, dataset: str) -> None:
    url = await begun(world.owner, dataset, 3)
    item_id = (await patch(world.owner, url, 0, b"abc")).headers["X-Item-Id"]
    assert (await world.owner.delete(url, headers=VERSION)).status_code == 204
    assert await content_of(world.owner, item_id) == b"abc"


async def test_uploads_of_others_and_unknown_ones_are_not_there(world: World, dataset: str) -> None:
    url = await begun(world.owner, dataset, 3)
    other_dataset = await world.new_dataset()
    for caller, path in (
        (world.callers["developer"], url),
        (world.owner, url.replace(dataset, other_dataset)),
        (world.owner, url[:-24] + NOBODY),
        (world.owner, url[:-24] + "x"),
    ):
        assert (await caller.head(path, headers=VERSION)).status_code == 404
        assert (await patch(caller, path, 0, b"abc")).status_code == 404
        assert (await caller.delete(path, headers=VERSION)).status_code == 404
    assert await offset_of(world.owner, url) == 0


async def test_another_session_of_the_same_account_goes_on(world: World, dataset: str) -> None:
    url = await begun(world.owner, dataset, 6)
    await patch(world.owner, url, 0, b"abc")
    other = await world.new_client(world.people["organisation owner"])
    assert await offset_of(other, url) == 3
    answer = await patch(other, url, 3, b"def")
    assert await content_of(other, answer.headers["X-Item-Id"]) == b"abcdef"


async def test_an_expired_upload_is_gone_and_its_parts_are_cleaned(world: World, dataset: str) -> None:
    url = await begun(world.owner, dataset, SMALLEST_PART_BYTES + 10)
    await patch(world.owner, url, 0, random.randbytes(SMALLEST_PART_BYTES + 5))
    upload_id = int(url[-24:], 16)
    await world.execute("UPDATE tus_upload SET expires_at = now() - interval '1 s' WHERE id = %s", upload_id)
    for _ in range(2):
        answer = await world.owner.head(url, headers=VERSION)
        assert answer.status_code == 410
        assert (await patch(world.owner, url, 0, b"1")).status_code == 410
        await tus.drop_expired(world.app.state.server.place)
    assert stored(world, dataset) == []
    assert await world.execute("SELECT 1 FROM tus_tail WHERE upload_id = %s", upload_id) == []
    await world.execute("UPDATE tus_upload SET expires_at = now() - interval '2 days' WHERE id = %s", upload_id)
    await tus.drop_expired(world.app.state.server.place)
    assert (await world.owner.head(url, headers=VERSION)).status_code == 404


async def test_a_newer_request_takes_over_from_one_that_hangs(world: World, dataset: str) -> None:
    """And what had arrived of the older one is kept."""
    url = await begun(world.owner, dataset, 10)
    has_sent, never = asyncio.Event(), asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield b"0123"
        has_sent.set()
        await never.wait()

    older = asyncio.create_task(patch(world.owner, url, 0, hanging()))
    await has_sent.wait()
    assert await offset_of(world.owner, url) == 4
    answer = await older
    assert (answer.status_code, "newer request" in answer.json()["message"]) == (423, True)
    last = await patch(world.owner, url, 4, b"456789")
    assert await content_of(world.owner, last.headers["X-Item-Id"]) == b"0123456789"


async def test_of_many_requests_at_once_each_byte_counts_once(world: World, dataset: str) -> None:
    body = random.randbytes(50_000)
    url = await begun(world.owner, dataset, len(body))
    answers = await asyncio.gather(*(patch(world.owner, url, 0, body[:20_000]) for _ in range(8)))
    assert sorted({answer.status_code for answer in answers}) == [204, 409]
    assert [answer.status_code for answer in answers].count(204) == 1
    assert await offset_of(world.owner, url) == 20_000
    answers = await asyncio.gather(*(patch(world.owner, url, 20_000, body[20_000:]) for _ in range(4)))
    done = [answer for answer in answers if answer.status_code == 204]
    assert len(done) == 1
    assert await content_of(world.owner, done[0].headers["X-Item-Id"]) == body


async def test_a_lease_that_is_lost_changes_nothing(world: World, dataset: str) -> None:
    """A process that slept finds that another took over."""
    url = await begun(world.owner, dataset, 10)
    go_on = asyncio.Event()
    has_begun = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"01"
        has_begun.set()
        await go_on.wait()
        yield b"23"

    older = asyncio.create_task(patch(world.owner, url, 0, slow()))
    await has_begun.wait()
    upload_id = int(url[-24:], 16)
    await world.execute(
        "UPDATE tus_upload SET holder = 1, held_until = now() - interval '1 s' WHERE id = %s", upload_id
    )
    go_on.set()
    assert (await older).status_code == 423
    assert await offset_of(world.owner, url) == 0


async def test_a_link_file_becomes_a_link(world: World, dataset: str) -> None:
    info = {"type": "url", "ref": "https://example.com/a.jpg", "mimetype": "image/jpeg"}
    body = json.dumps(
        {"type": "link", "shebang": "dataloop", "metadata": {"dltype": "link", "linkInfo": info}}
    ).encode()
    url = await begun(world.owner, dataset, len(body), path="/a_link.json")
    await patch(world.owner, url, 0, body[:20])
    answer = await patch(world.owner, url, 20, body[20:])
    item = (await world.owner.get(f"/items/{answer.headers['X-Item-Id']}")).json()
    assert item["metadata"]["system"]["shebang"]["linkInfo"]["ref"] == "https://example.com/a.jpg"


async def test_a_read_only_dataset_and_rules_refuse_before_any_byte(world: World) -> None:
    readonly = await world.new_dataset()
    await world.owner.patch(f"/datasets/{readonly}", json={"readonly": True})
    answer = await create(world.owner, readonly, 3)
    assert (answer.status_code, "read-only" in answer.json()["message"]) == (400, True)


async def test_a_place_is_held_from_the_announcement_on(world: World) -> None:
    dataset = await world.new_dataset()
    organization = int(world.organization_id, 16)
    (used,) = (
        await world.execute(
            "SELECT coalesce(sum(items), 0) FROM dataset_counter JOIN dataset ON id = dataset_id "
            "JOIN project ON project.id = project_id WHERE organization_id = %s "
            "AND dataset.deleted_at IS NULL AND project.deleted_at IS NULL",
            organization,
        )
    )[0]
    holds = (await world.execute("SELECT count(*) FROM quota_hold WHERE organization_id = %s", organization))[0][0]
    await world.execute("UPDATE organization SET data_point_limit = %s WHERE id = %s", used + holds + 1, organization)
    try:
        url = await begun(world.owner, dataset, 3, path=f"/{unique('a')}")
        refused = await create(world.owner, dataset, 3, path=f"/{unique('a')}")
        assert (refused.status_code, "are left" in refused.json()["message"]) == (403, True)
        assert (await world.owner.delete(url, headers=VERSION)).status_code == 204
        url = await begun(world.owner, dataset, 3, path=f"/{unique('a')}")
        assert (await patch(world.owner, url, 0, b"abc")).status_code == 204
    finally:
        await world.execute("UPDATE organization SET data_point_limit = NULL WHERE id = %s", organization)
