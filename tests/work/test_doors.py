"""Every attack at every door of ours that takes a URL: links, rows of CSV files, webhooks, endpoints, registries."""

from dataclasses import replace
from datetime import UTC, datetime

import aiohttp
import pytest

from headwater.catalog import webhooks
from headwater.catalog.links import Link
from headwater.errors import BadRequest, HeadwaterError
from headwater.net.addresses import check_endpoint, open_connector, read_inner_host
from headwater.net.fetch import Fetcher
from headwater.registries.opening import open_registry
from headwater.storage.opening import open_s3
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.stores import ObjectInfo
from headwater.wire.links import link_body
from headwater.work import links, upload
from headwater.work import webhooks as work_webhooks
from headwater.work.links import DeadLink
from tests.net.attacks import Attack, all_attacks
from tests.net.origin import Origin, ScriptedDns, Watch, serving
from tests.registries.conftest import options
from tests.work.world import World

ATTACKS = all_attacks()


@pytest.fixture
async def origin():
    async with serving() as running:
        yield running


@pytest.fixture
async def watch():
    async with Watch().listening() as watching:
        yield watching


def filled(text: str, origin: Origin, watch: Watch) -> str:
    return text.replace("{port}", str(watch.port)).replace("{origin}", str(origin.port))


class Stage:
    """All attacks at once: each has names and paths of its own, so that none changes what another meets."""

    def __init__(self, origin: Origin, watch: Watch) -> None:
        self.names: dict[str, list[list[str]]] = {"images.example.com": [["127.0.0.1"]]}
        self.urls: list[tuple[Attack, str]] = []
        for number, attack in enumerate(ATTACKS):
            url, hops = self._own(attack.url, number), [self._own(hop, number) for hop in attack.redirects]
            for name, answers in attack.dns.items():
                self.names[self._own(name, number)] = [*answers]
            at = filled(url, origin, watch)
            self.urls.append((attack, at))
            for location in (filled(hop, origin, watch) for hop in hops):
                origin.redirect("/" + at.split("/", 3)[3] if at.count("/") >= 3 else "/", location)
                at = location

    @staticmethod
    def _own(text: str, number: int) -> str:
        for name in ("cdn.example.org", "rebind.example.org", "in.example.org"):
            text = text.replace(name, f"n{number}.{name}")
        return text.replace("{origin}/", f"{{origin}}/n{number}/")


def silent(origin: Origin, watch: Watch) -> None:
    assert watch.heard == []
    assert watch.strangers(origin.port) == []


async def test_links_are_refused_or_dead_wherever_they_come_from(world: World, origin: Origin, watch: Watch):
    """As uploads, as rows of CSV files, as files that a sync finds; when they are prepared, and when they are read."""
    stage = Stage(origin, watch)
    origin.serve("/good.jpg", b"good")
    dns = ScriptedDns(stage.names)
    fetcher = Fetcher(inner_hosts=[read_inner_host(f"127.0.0.1:{origin.port}")], resolver=dns)
    linked = replace(world, place=replace(world.place, fetcher=fetcher))
    dataset, _ = await linked.own_dataset()
    try:
        refused = 0
        async with linked.connection() as conn:
            for _, url in stage.urls:
                try:
                    await links.check_new(conn, fetcher, linked.owner, Link("url", url))  # uploads
                    fetcher.check_url(url)  # rows
                except BadRequest:
                    refused += 1
        assert dns.asked == []
        assert refused > 250
        rows = []
        for number, url in enumerate([*(url for _, url in stage.urls), origin.url("/good.jpg")]):
            link = Link("url", url.replace("\0", ""))  # which jsonb does not hold, nor a link file
            info = ObjectInfo("", len(link_body(link)), f"{number}", datetime.now(UTC), None)
            rows.append(upload.Landed(f"/{number:04}.json", "skip", None, info, link=link.to_json()))
        made = await upload.commit_written(linked.place, dataset, linked.owner, rows)
        await linked.preprocess(dataset)
        silent(origin, watch)
        good = made.pop().item
        async with links.open_link(linked.place, linked.owner, good) as opened:
            assert [chunk async for chunk in opened] == [b"good"]
        wrong = []
        stage = Stage(origin, watch)  # those names answer as at first again
        dns.names = stage.names
        for (attack, _), done in zip(stage.urls, made, strict=True):
            item = await linked.item(dataset, done.item.path)
            if item.link["state"] != "dead" or item.link["reason"] != "refused":
                wrong.append((attack.name, item.link))
            with pytest.raises(DeadLink) as caught:
                async with links.open_link(linked.place, linked.owner, item) as opened:
                    wrong.append((attack.name, [chunk async for chunk in opened]))
            assert "secret" not in str(caught.value)
        assert wrong == []
        silent(origin, watch)
        await linked.index(dataset)
    finally:
        await fetcher.close()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, origin: Origin, watch: Watch) -> list[tuple[Attack, str]]:
    """The attacks, where whoever resolves a name in the usual way is answered by their script."""
    stage = Stage(origin, watch)
    for module in (aiohttp, aiohttp.connector):
        monkeypatch.setattr(module, "DefaultResolver", lambda **_: ScriptedDns(stage.names))
    return stage.urls


async def test_webhooks(scripted: list[tuple[Attack, str]], origin: Origin, watch: Watch):
    """What holds for a URL is sent: what it leads to is seen when it is connected. No redirect is followed."""
    origin.serve("/hook", b"fine", ranges=False)
    async with aiohttp.ClientSession(connector=open_connector(allow_private=False)) as session:
        for attack, url in scripted:
            try:
                webhooks.check_url(url, allow_private=False)
            except BadRequest:
                continue
            status, error = await work_webhooks.post(session, url, b"{}", {})
            assert status is None, attack.name
            assert error is not None
            assert "secret" not in error
    silent(origin, watch)
    assert watch.connects == []
    async with aiohttp.ClientSession(connector=open_connector(allow_private=True)) as session:
        assert await work_webhooks.post(session, origin.url("/hook"), b"{}", {}) == (200, None)


async def test_endpoints_of_stores(scripted: list[tuple[Attack, str]], origin: Origin, watch: Watch):
    async def key(_anew: bool) -> S3Credentials:
        return S3Credentials("id", "secret")

    reached = 0
    for _, url in scripted:
        try:
            endpoint = check_endpoint(url, allow_private=False)
        except BadRequest:
            continue
        reached += 1
        store = open_s3(
            bucket="bucket", region="us-east-1", endpoint=endpoint, credentials=key,
            connector=open_connector(allow_private=False),
            attempts=1,
        )  # fmt: skip
        with pytest.raises(HeadwaterError):
            await store.head("key")
        await store.close()
    assert reached > 20
    assert watch.heard == watch.connects == []


async def test_registries(scripted: list[tuple[Attack, str]], origin: Origin, watch: Watch):
    reached = 0
    for _, url in scripted:
        host = url.partition("://")[2].partition("/")[0] or url
        try:
            async with open_registry(options(host, "ana", "password"), {}, allow_private=False) as registry:
                reached += 1
                await registry.log_in()
        except HeadwaterError:
            pass
    assert reached > 20
    assert watch.heard == watch.connects == []
