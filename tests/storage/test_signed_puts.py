"""Signed requests that write one object: only that one, as `put` would, and never in another's place unless asked."""

from dataclasses import replace

import aiohttp
import pytest
from yarl import URL

from headwater.storage.stores import SignedRequest, Store
from tests.storage.conftest import Place

KEYS = ["plain", "a b/ü+%2B&.jpg", "a'b#c?d"]


async def sent(request: SignedRequest | None, body: bytes, **headers: str) -> int:
    assert request is not None
    async with (
        aiohttp.ClientSession() as session,
        session.request(
            request.method, URL(request.url, encoded=True), headers=dict(request.headers) | headers, data=body
        ) as response,
    ):
        return response.status


async def signed(store: Store, key: str, size_bytes: int, *, only_if_new: bool = True) -> SignedRequest | None:
    return await store.sign_put(
        key, size_bytes=size_bytes, content_type="image/jpeg", expires_s=60, only_if_new=only_if_new
    )


@pytest.mark.parametrize("key", KEYS)
async def test_whoever_has_it_writes_exactly_the_object(place: Place, key: str):
    store = place.store(prefix="d") if place.kind != "local" else place.store()
    request = await signed(store, key, 5)
    if place.kind == "local":
        assert request is None
        return
    assert await sent(request, b"bytes") in (200, 201)
    info = await store.head(key)
    assert (info.size_bytes, info.content_type) == (5, "image/jpeg")
    await store.put("other", b"bytes", content_type="image/jpeg")
    if place.kind != "azurite":
        assert info.etag == (await store.head("other")).etag


@pytest.mark.parametrize("kind", ["seaweedfs", "moto", "azurite"])
async def test_what_is_there_already_stays_unless_it_is_to_go(place_on, kind: str):
    store = (await place_on(kind)).store()
    await store.put("a", b"first", content_type="image/jpeg")
    assert await sent(await signed(store, "a", 5), b"other") in (403, 409, 412)
    async with store.get("a") as reader:
        assert await reader.read() == b"first"
    assert await sent(await signed(store, "a", 5, only_if_new=False), b"other") in (200, 201)
    async with store.get("a") as reader:
        assert await reader.read() == b"other"


async def test_the_signature_holds_for_one_key_only(place_on):
    store = (await place_on("seaweedfs")).store()
    request = await signed(store, "a", 1)
    assert request is not None
    assert await sent(replace(request, url=request.url.replace("/a?", "/b?")), b"x") == 403


async def test_neither_its_repr_nor_its_text_tell_the_signature(place_on):
    request = await signed((await place_on("seaweedfs")).store(), "a", 1)
    assert "Signature" not in f"{request!r}{request}"
