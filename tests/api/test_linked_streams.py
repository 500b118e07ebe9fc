"""Streams of linked items over HTTP: the bytes they lead to, presented like any others, with the reader's rights."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from headwater.catalog.links import Link
from headwater.net.addresses import read_inner_host
from headwater.net.fetch import Fetcher
from headwater.wire.links import link_body
from tests.api.world import World, message, unique
from tests.net.origin import Origin, ScriptedDns, serving

CONTENT = b"0123456789"
PAGE = b"<html><script>alert(1)</script></html>"


@pytest.fixture
async def origin(world: World) -> AsyncIterator[Origin]:
    """A server that links may reach, by its name alone."""
    server = world.app.state.server
    place = server.place
    async with serving() as running:
        dns = ScriptedDns({"images.example.com": [["127.0.0.1"]]})
        fetcher = Fetcher(inner_hosts=[read_inner_host(f"127.0.0.1:{running.port}")], resolver=dns)
        object.__setattr__(server, "place", replace(place, fetcher=fetcher))
        try:
            yield running
        finally:
            object.__setattr__(server, "place", place)
            await fetcher.close()


async def linked(world: World, kind: str, ref: str, dataset_id: str | None = None) -> str:
    """The id of a new link."""
    body = link_body(Link(kind, ref))
    return (await world.upload(dataset_id or world.dataset_id, f"/{unique('link')}.json", body))["id"]


async def test_a_link_to_a_url_gives_its_bytes_and_ranges(world: World, origin: Origin) -> None:
    url = f"/items/{await linked(world, 'url', origin.serve('/a.jpg', CONTENT))}/stream"
    whole = await world.owner.get(url)
    assert (whole.status_code, whole.content, whole.headers["content-length"]) == (200, CONTENT, "10")
    assert whole.headers["content-type"] == "image/jpeg"
    for asked, content, told in (
        ("bytes=4-", CONTENT[4:], "bytes 4-9/10"),
        ("bytes=2-5", CONTENT[2:6], "bytes 2-5/10"),
        ("bytes=-3", CONTENT[-3:], "bytes 7-9/10"),
    ):
        part = await world.owner.get(url, headers={"range": asked})
        assert (part.status_code, part.content, part.headers["content-range"]) == (206, content, told)
    asked = await world.owner.head(url)
    assert (asked.status_code, asked.content, asked.headers["content-length"]) == (200, b"", "10")
    message(await world.owner.get(url, headers={"range": "bytes=10-"}), 416)
    message(await world.callers["stranger"].get(url), 404)
    message(await world.callers["no token"].get(url), 401)


async def test_ranges_of_a_link_to_an_item_are_those_of_the_item(world: World) -> None:
    target = await world.upload(world.dataset_id, f"/{unique('target')}.bin", CONTENT)
    url = f"/items/{await linked(world, 'id', target['id'])}/stream"
    for asked, content in (("bytes=0-", CONTENT), ("bytes=9-99", b"9"), ("bytes=-99", CONTENT), ("bytes=2-2", b"2")):
        through = await world.owner.get(url, headers={"range": asked})
        direct = await world.owner.get(f"/items/{target['id']}/stream", headers={"range": asked})
        assert (through.status_code, through.content) == (direct.status_code, direct.content) == (206, content)
        assert through.headers["content-range"] == direct.headers["content-range"]
        head = await world.owner.head(url, headers={"range": asked})
        assert (head.status_code, head.headers["content-length"]) == (200, "10")
        assert "content-range" not in head.headers
    for asked in ("bytes=10-", "bytes=50-60", "bytes=-0"):
        message(await world.owner.get(url, headers={"range": asked}), 416)
    beyond = await world.owner.get(url, headers={"range": "bytes=10-"})
    assert beyond.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize("asked", [None, "bytes=0-", "bytes=0-99", "bytes=-5"])
async def test_a_link_to_an_empty_item_has_an_empty_stream(world: World, asked: str | None) -> None:
    target = await world.upload(world.dataset_id, f"/{unique('empty')}.bin", b"")
    url = f"/items/{await linked(world, 'id', target['id'])}/stream"
    for answer in (
        await world.owner.get(url, headers={} if asked is None else {"range": asked}),
        await world.owner.head(url),
    ):
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


async def test_a_page_at_a_url_is_no_page_of_ours(world: World, origin: Origin) -> None:
    item_id = await linked(world, "url", origin.serve("/page", PAGE, "text/html"))
    answer = await world.owner.get(f"/items/{item_id}/stream")
    assert (answer.content, answer.headers["content-type"]) == (PAGE, "application/octet-stream")
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


async def test_a_dead_link_is_told_in_a_sentence(world: World, origin: Origin) -> None:
    item_id = await linked(world, "url", origin.url("/gone.jpg"))
    assert "/gone.jpg" not in message(await world.owner.get(f"/items/{item_id}/stream"), 424)
    state = (await world.owner.get(f"/items/{item_id}")).json()["metadata"]["system"]["link"]
    assert state["state"] == "dead"


async def test_a_link_to_an_item_is_no_way_around_rights(world: World) -> None:
    hidden_project = await world.new_project()
    hidden = await world.new_dataset(projects=[hidden_project])
    target = await world.upload(hidden, "/secret.txt", CONTENT)
    url = f"/items/{await linked(world, 'id', target['id'])}/stream"
    assert (await world.owner.get(url, headers={"range": "bytes=4-"})).content == CONTENT[4:]
    assert (await world.callers["annotator"].get(f"/items/{target['id']}/stream")).status_code == 404
    told = message(await world.callers["annotator"].get(url), 424)
    assert "secret" not in told
