"""What every store promises of objects that are written in parts."""

import asyncio
import io
import random
import secrets
from pathlib import Path

import aiohttp
import pytest
from yarl import URL

from headwater.errors import BadRequest, HeadwaterError, StoreChanged, StoreMissing, Unavailable
from headwater.storage.opening import open_local
from headwater.storage.stores import LARGEST_OBJECT_BYTES, MOST_PARTS, Part, Store, part_limits
from tests.storage.conftest import Place
from tests.storage.deviations import keys_for
from tests.storage.test_stores import bytes_of, keys_of

PART_BYTES = 5 * 1024**2  # the smallest that S3 takes


async def begin(store: Store, key: str = "a/b.bin") -> dict:
    return await store.begin_parts(key, content_type="application/octet-stream", part_bytes=PART_BYTES)


async def finish(store: Store, key: str, state: dict, parts: list[Part], **arguments):
    return await store.finish_parts(key, state, parts, content_type="application/octet-stream", **arguments)


def pieces_of(body: bytes) -> list[bytes]:
    return [body[at : at + PART_BYTES] for at in range(0, len(body), PART_BYTES)]


async def test_parts_that_come_in_any_order_and_again_make_the_object(store: Store):
    body = random.randbytes(3 * PART_BYTES + 17)
    state = await begin(store)
    pieces = list(enumerate(pieces_of(body), start=1))
    first = await store.put_part("a/b.bin", state, 2, random.randbytes(PART_BYTES))
    parts = {2: first}
    for number, piece in random.sample(pieces, len(pieces)):
        parts[number] = await store.put_part("a/b.bin", state, number, piece)
        assert await keys_of(store) == []
        with pytest.raises(StoreMissing):
            await store.head("a/b.bin")
    info = await finish(store, "a/b.bin", state, list(parts.values()))
    found = await store.head("a/b.bin")
    assert (info.size_bytes, info.etag) == (len(body), found.etag)
    assert await bytes_of(store, "a/b.bin") == body
    assert await keys_of(store) == ["a/b.bin"]


async def test_another_process_goes_on_with_what_one_began(place: Place):
    body = random.randbytes(2 * PART_BYTES)
    one, other = place.store(), place.store()
    state = await begin(one)
    parts = [await one.put_part("a/b.bin", state, 1, body[:PART_BYTES])]
    parts.append(await other.put_part("a/b.bin", state, 2, body[PART_BYTES:]))
    await finish(other, "a/b.bin", state, parts)
    assert await bytes_of(one, "a/b.bin") == body


async def test_finishing_twice_is_harmless(store: Store):
    state = await begin(store)
    parts = [await store.put_part("a/b.bin", state, 1, b"12345")]
    await finish(store, "a/b.bin", state, parts)
    again = await finish(store, "a/b.bin", state, parts)
    found = await store.head("a/b.bin")
    assert (again.size_bytes, again.etag) == (5, found.etag)
    await store.abort_parts("a/b.bin", state)
    assert await bytes_of(store, "a/b.bin") == b"12345"


async def test_an_abort_leaves_nothing_and_may_be_repeated(store: Store):
    state = await begin(store)
    await store.put_part("a/b.bin", state, 1, random.randbytes(PART_BYTES))
    await store.abort_parts("a/b.bin", state)
    await store.abort_parts("a/b.bin", state)
    assert await keys_of(store) == []
    assert [one async for one in store.list_unfinished()] == []


@pytest.mark.parametrize("place", ["local", "seaweedfs", "gcs"], indirect=True)  # moto answers 500
async def test_what_was_aborted_is_told_as_gone(place: Place):
    store = place.store()
    state = await begin(store)
    part = await store.put_part("a/b.bin", state, 1, b"12345")
    await store.abort_parts("a/b.bin", state)
    with pytest.raises(StoreMissing):
        await store.put_part("a/b.bin", state, 1, b"12345")
    with pytest.raises(StoreMissing):
        await store.list_parts("a/b.bin", state)
    with pytest.raises(Unavailable, match="Upload it again"):
        await finish(store, "a/b.bin", state, [part])


async def test_an_object_of_no_bytes_has_one_empty_part_or_none(store: Store):
    for count in (0, 1):
        state = await begin(store)
        parts = [await store.put_part("a/b.bin", state, number, b"") for number in range(1, count + 1)]
        info = await finish(store, "a/b.bin", state, parts)
        assert info.size_bytes == 0
        assert await bytes_of(store, "a/b.bin") == b""
        assert [one async for one in store.list_unfinished()] == []
        await store.delete("a/b.bin")


@pytest.mark.parametrize("prefix", ["", "drivers/ü +%"])
async def test_parts_make_objects_of_any_key(place: Place, prefix: str):
    room_bytes = 1024 - len(f"{prefix}/".encode() if prefix else b"")
    store = await place.empty_store(prefix) if prefix else place.store()
    for key in [key for key in keys_for(place.kind) if len(key.encode()) <= room_bytes]:
        state = await begin(store, key)
        part = await store.put_part(key, state, 1, key.encode())
        info = await finish(store, key, state, [part])
        assert (info.key, await bytes_of(store, key)) == (key, key.encode())
        await store.delete(key)


async def test_an_object_is_replaced_unless_it_has_to_be_new(store: Store):
    await store.put("a/b.bin", b"old", content_type="text/plain")
    state = await begin(store)
    parts = [await store.put_part("a/b.bin", state, 1, b"new one")]
    with pytest.raises(StoreChanged):
        await finish(store, "a/b.bin", state, parts, only_if_new=True)
    assert await bytes_of(store, "a/b.bin") == b"old"
    await finish(store, "a/b.bin", state, parts)
    assert await bytes_of(store, "a/b.bin") == b"new one"
    state = await begin(store, "new.bin")
    parts = [await store.put_part("new.bin", state, 1, b"1")]
    assert (await finish(store, "new.bin", state, parts, only_if_new=True)).size_bytes == 1


@pytest.mark.parametrize("body", [b"12345", b""])
async def test_finishing_a_new_object_again_finds_it_to_be_ours(store: Store, body: bytes):
    """The answer was lost: what succeeded is no failure, and what another wrote since is not taken for ours."""
    state = await begin(store)
    parts = [await store.put_part("a/b.bin", state, 1, body)]
    for _ in range(2):
        assert (await finish(store, "a/b.bin", state, parts, only_if_new=True)).size_bytes == len(body)
    assert await bytes_of(store, "a/b.bin") == body
    await store.put("a/b.bin", b"another's", content_type="text/plain")
    with pytest.raises(HeadwaterError):
        await finish(store, "a/b.bin", state, parts, only_if_new=True)
    assert await bytes_of(store, "a/b.bin") == b"another's"


async def test_a_crash_between_the_two_names_of_a_new_file_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    store = open_local(root=tmp_path)
    state = await begin(store)
    parts = [await store.put_part("a/b.bin", state, 1, b"12345")]
    with monkeypatch.context() as patched:

        def dies(*_given, **_named):
            raise OSError("killed")

        patched.setattr("os.unlink", dies)
        with pytest.raises(HeadwaterError):
            await finish(store, "a/b.bin", state, parts, only_if_new=True)
    assert (await finish(store, "a/b.bin", state, parts, only_if_new=True)).size_bytes == 5
    assert [one async for one in store.list_unfinished()] == []
    assert await bytes_of(store, "a/b.bin") == b"12345"


async def test_numbers_that_leave_a_hole_make_no_object(store: Store):
    state = await begin(store)
    part = await store.put_part("a/b.bin", state, 2, b"12345")
    with pytest.raises(BadRequest, match="missing"):
        await finish(store, "a/b.bin", state, [part])
    with pytest.raises(BadRequest, match="two with one number"):
        await finish(store, "a/b.bin", state, [part, part])


@pytest.mark.parametrize("place", ["seaweedfs", "moto", "azurite", "gcs"], indirect=True)
@pytest.mark.parametrize("key", ["a/b.bin", "ü/a b+%é.bin"])
async def test_signed_parts_need_no_credentials_and_the_store_tells_of_them(place: Place, key: str):
    store = place.store()
    body = random.randbytes(2 * PART_BYTES + 9)
    state = await begin(store, key)
    pieces = pieces_of(body)
    etags: dict[int, str | None] = {}
    async with aiohttp.ClientSession(skip_auto_headers=["Content-Type"]) as session:
        for number, piece in random.sample(list(enumerate(pieces, start=1)), len(pieces)):
            for content in (bytes(len(piece)), piece):  # the first attempt is replaced
                request = await store.sign_part(key, state, number, size_bytes=len(piece), expires_s=60)
                assert request is not None
                assert request.url not in repr(request)
                async with session.request(
                    request.method, URL(request.url, encoded=True), headers=request.headers, data=io.BytesIO(content)
                ) as answer:
                    assert answer.status in (200, 201), await answer.text()
                    etags[number] = answer.headers.get("ETag")
    parts = await store.list_parts(key, state)
    if place.kind == "seaweedfs":  # it tells of both attempts; who sent them was answered their etags
        parts = [part for part in parts if part.etag == etags[part.number]]
    assert [(part.number, part.size_bytes) for part in parts] == [
        (number, len(piece)) for number, piece in enumerate(pieces, start=1)
    ]
    await finish(store, key, state, parts)
    assert await bytes_of(store, key) == body


async def test_folders_sign_nothing(tmp_path):
    from headwater.storage.opening import open_local

    store = open_local(root=tmp_path)
    assert await store.sign_part("a", await begin(store), 1, size_bytes=1, expires_s=60) is None


@pytest.mark.parametrize("place", ["seaweedfs", "moto", "gcs"], indirect=True)
async def test_what_is_unfinished_is_listed_below_the_prefix(place: Place):
    prefix = secrets.token_hex(4)
    store, outside = await place.empty_store(prefix), place.store()
    state = await begin(store, "a/ü b.bin")
    await store.put_part("a/ü b.bin", state, 1, b"1")
    await begin(outside, "elsewhere.bin")
    (found,) = [one async for one in store.list_unfinished()]
    assert (found.key, found.state["id"]) == ("a/ü b.bin", state["id"])
    assert found.began_at.tzinfo is not None
    await store.abort_parts(found.key, found.state)
    assert [one async for one in store.list_unfinished()] == []


@pytest.mark.parametrize("place", ["local"], indirect=True)
async def test_a_folder_lists_the_files_of_parts_and_lets_go_of_them(place: Place):
    store = place.store()
    state = await begin(store)
    (found,) = [one async for one in store.list_unfinished()]
    assert found.state["id"] == state["id"]
    await store.abort_parts(found.key, found.state)
    assert [one async for one in store.list_unfinished()] == []


@pytest.mark.parametrize("place", ["moto", "gcs"], indirect=True)
async def test_an_overtaken_attempt_at_a_part_makes_no_object(place: Place):
    """A process that was thought dead puts its part after another took over: what it replaced was told."""
    store = place.store()
    state = await begin(store)
    told = await store.put_part("a/b.bin", state, 1, b"of the new")
    await store.put_part("a/b.bin", state, 1, b"of the old")
    with pytest.raises(HeadwaterError):
        await finish(store, "a/b.bin", state, [told])
    with pytest.raises(StoreMissing):
        await store.head("a/b.bin")


@pytest.mark.parametrize("place", ["azurite", "seaweedfs"], indirect=True)
async def test_a_late_attempt_at_a_part_lies_beside_the_one_that_counts(place: Place):
    store = place.store()
    state = await begin(store)
    told = await store.put_part("a/b.bin", state, 1, b"of the new")
    await store.put_part("a/b.bin", state, 1, b"of the old")
    await finish(store, "a/b.bin", state, [told])
    assert await bytes_of(store, "a/b.bin") == b"of the new"


async def test_two_objects_at_one_key_do_not_mix(place: Place):
    """Of two that are written at once the later one stays; Azure then lets go of the other's blocks."""
    store = place.store()
    states = [await begin(store), await begin(store)]
    parts = [
        [await store.put_part("a/b.bin", state, 1, name)] for state, name in zip(states, (b"11", b"22"), strict=True)
    ]
    await finish(store, "a/b.bin", states[0], parts[0])
    assert await bytes_of(store, "a/b.bin") == b"11"
    if place.kind == "azurite":
        with pytest.raises(Unavailable, match="Upload it again"):
            await finish(store, "a/b.bin", states[1], parts[1])
    else:
        await finish(store, "a/b.bin", states[1], parts[1])
        assert await bytes_of(store, "a/b.bin") == b"22"


def test_no_size_needs_more_parts_than_a_store_takes():
    for size_bytes in [0, 1, 8 * 1024**2, 10**9, 10_000 * 8 * 1024**2 + 1, 10**12, LARGEST_OBJECT_BYTES]:
        limits = part_limits(size_bytes)
        assert -(-size_bytes // limits.part_bytes) <= MOST_PARTS == limits.most_parts
        assert limits.part_bytes % (256 * 1024) == 0
        assert limits.part_bytes <= max(8 * 1024**2, size_bytes // 10_000 + 1024**2)
    with pytest.raises(BadRequest, match="larger than"):
        part_limits(LARGEST_OBJECT_BYTES + 1)


async def test_parts_are_put_side_by_side(store: Store):
    body = random.randbytes(4 * PART_BYTES)
    state = await begin(store)
    parts = await asyncio.gather(
        *(store.put_part("a/b.bin", state, number, piece) for number, piece in enumerate(pieces_of(body), start=1))
    )
    await finish(store, "a/b.bin", state, list(parts))
    assert await bytes_of(store, "a/b.bin") == body
