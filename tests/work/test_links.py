"""Linked items from the link file to the bytes at its end: who may read them, what is learnt, and when it is dead."""

import asyncio
import hashlib
import json
import secrets
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from headwater.catalog import accounts, items
from headwater.catalog.links import Link
from headwater.errors import BadRequest, FailedDependency, NotFound, Unavailable
from headwater.net import fetch
from headwater.net.addresses import read_inner_host
from headwater.net.fetch import Fetcher
from headwater.storage.stores import ObjectInfo
from headwater.wire import items as wire_items
from headwater.wire.links import LARGEST_LINK_BYTES, link_body, parse_link
from headwater.work import links, preprocess, upload
from headwater.work.links import DeadLink
from headwater.work.upload import Announced, upload_file
from tests import clips, samples
from tests.net.origin import Origin, ScriptedDns, serving
from tests.work.test_verify import differences
from tests.work.world import World

PICTURE = samples.jpeg()


@pytest.fixture
async def origin():
    async with serving() as running:
        yield running


@pytest.fixture
async def linked(world: World, origin: Origin):
    """The world, where links may reach the origin."""
    dns = ScriptedDns(
        {f"{name}.example.com": [["127.0.0.1"]] for name in ("images", "others")} | {"gone.example.com": [[]]}
    )
    fetcher = Fetcher(inner_hosts=[read_inner_host(f"127.0.0.1:{origin.port}")], resolver=dns)
    yield replace(world, place=replace(world.place, fetcher=fetcher))
    await fetcher.close()


def file_of(kind: str, ref: str, mime_type: str | None = None) -> bytes:
    return link_body(Link(kind, ref, mime_type))


async def chunks(body: bytes):
    yield body


async def put(linked: World, dataset, path: str, body: bytes, *, caller=None, mode="overwrite"):
    """As the SDK uploads it; the answer's item."""
    done = await upload_file(linked.place, dataset, caller or linked.owner, Announced(path, mode), chunks(body))
    return done.item


async def put_link(linked: World, dataset, ref: str, *, kind="url", path="/picture.jpg_link.json", **given):
    return await put(linked, dataset, path, file_of(kind, ref, **given))


async def streamed(linked: World, dataset, path: str, start: int = 0, end: int | None = None, *, reader=None) -> bytes:
    item = await linked.item(dataset, path)
    async with links.open_link(linked.place, reader or linked.owner, item, start, end) as opened:
        return b"".join([chunk async for chunk in opened])


async def system(linked: World, dataset, path: str = "/picture.jpg_link.json") -> dict:
    async with linked.connection() as conn:
        found = await items.find_item(conn, (await linked.item(dataset, path)).id)
    return wire_items.system_metadata(found)


async def stranger(linked: World) -> accounts.Account:
    """Somebody who may read nothing."""
    async with linked.connection() as conn:
        return await accounts.create_account(conn, email=f"{secrets.token_hex(6)}@headwater.test", password=None)


async def thumbnail_of(linked: World, item) -> bytes:
    key = preprocess.thumbnail_key(item.id, "image/jpeg")
    async with linked.place.places.of_thumbnail(item) as store, store.get(key) as reader:
        return await reader.read()


# Files


@pytest.mark.parametrize("link", [Link("url", 'https://a.b/c?"é\\'), Link("id", f"{7:024x}", "image/png", f"{9:024x}")])
def test_the_canonical_file_is_read_back(link: Link):
    assert parse_link(link_body(link)) == link
    assert link_body(link) == json.dumps(json.loads(link_body(link)), ensure_ascii=False).encode()
    assert Link.of(link.to_json()) == link


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"type": "link"}',
        b'{"shebang": "dataloop", "metadata": {"dltype": "prompt"}, "prompts": {}}',
        b'{"shebang": "dataloop"',
        b"dataloop" + bytes(LARGEST_LINK_BYTES),
        b'{"shebang": "dataloop", "a": ' + b"[" * 30_000,
        b'\xff{"shebang": "dataloop"}',
    ],
)
def test_other_json_is_no_link(body: bytes):
    assert parse_link(body) is None


@pytest.mark.parametrize(
    "info",
    [
        None,
        [],
        {},
        {"type": "url"},
        {"type": "file", "ref": "https://a"},
        {"type": "url", "ref": ""},
        {"type": "url", "ref": 3},
        {"type": "url", "ref": "https://a\n"},
        {"type": "id", "ref": "7"},
        {"type": "id", "ref": "f" * 24},
        {"type": "url", "ref": "https://a", "mimetype": 3},
        {"type": "url", "ref": "https://a", "mimetype": "a" * 300},
    ],
)
def test_a_broken_link_says_what_would_be_right(info):
    body = {"type": "link", "shebang": "dataloop", "metadata": {"dltype": "link", "linkInfo": info}}
    with pytest.raises(BadRequest, match="linkInfo"):
        parse_link(json.dumps(body).encode())


# URLs


async def test_an_uploaded_link_is_streamed_and_learns_what_it_leads_to(linked: World, origin: Origin):
    dataset, _ = await linked.own_dataset()
    url = origin.serve("/picture.jpg", PICTURE)
    item = await put_link(linked, dataset, url, mime_type="image")
    assert (item.mime_type, item.size_bytes) == ("image", len(file_of("url", url, "image")))
    told = await system(linked, dataset)
    assert told["shebang"] == {"dltype": "link", "linkInfo": {"type": "url", "ref": url, "mimetype": "image"}}
    assert told["link"] == {"state": "waiting"}
    assert await streamed(linked, dataset, item.path) == PICTURE
    assert await streamed(linked, dataset, item.path, 5, 50) == PICTURE[5:50]
    assert await streamed(linked, dataset, item.path, -7) == PICTURE[-7:]
    assert origin.requests[-2].headers["range"] == "bytes=5-49"
    assert (await system(linked, dataset))["size"] == len(PICTURE)
    await linked.preprocess(dataset)
    item = await linked.item(dataset, item.path)
    assert (item.width_px, item.height_px, item.mime_type, item.thumbnail_type) == (
        320,
        200,
        "image/jpeg",
        "image/jpeg",
    )
    told = await system(linked, dataset)
    assert (told["size"], told["mimetype"], told["link"]["state"]) == (len(PICTURE), "image/jpeg", "alive")
    assert set(told["link"]) == {"state", "checkedAt"}
    await linked.index(dataset)  # counters


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_large_image_is_read_whole_up_to_the_limit(linked: World, origin: Origin, ranges: bool):
    dataset, _ = await linked.own_dataset()
    large = samples.encode(samples.picture(), "PNG") + bytes(3 * 1024**2)
    url = origin.serve("/large.png", large, ranges=ranges)
    await put_link(linked, dataset, url)
    await linked.preprocess(dataset)
    assert (await linked.item(dataset, "/picture.jpg_link.json")).width_px == 320
    small = replace(linked, place=replace(linked.place, link_most_bytes=2 * 1024**2))
    await put_link(small, dataset, url + "?again")
    await small.preprocess(dataset)
    told = await system(small, dataset)
    assert (told["etl"]["reason"], told["size"], told["link"]["state"]) == ("too-large", len(large), "alive")


@pytest.mark.parametrize("container", ["mp4", "matroska"])
async def test_the_length_of_a_linked_video_is_told_by_a_few_of_its_bytes(
    linked: World, origin: Origin, container: str
):
    dataset, _ = await linked.own_dataset()
    film = clips.clip(container, frames=100, size=(320, 240), bit_rate=20_000_000)
    await put_link(linked, dataset, origin.serve("/film", film, "video/mp4"), mime_type="video")
    await linked.preprocess(dataset)
    told = await system(linked, dataset)
    assert told["etl"] == {"state": "done"}
    assert (told["width"], told["height"], told["fps"], told["ffmpeg"]["nb_frames"]) == (320, 240, 25.0, 100)
    assert told["duration"] == told["ffmpeg"]["duration"] == pytest.approx(4, abs=0.1)
    assert told["mimetype"].startswith("video/")
    assert origin.bytes_sent < len(film) / 3
    async with linked.connection() as conn:
        found = await items.find_item_at(conn, dataset.id, "/picture.jpg_link.json")
    assert wire_items.item(found, "http://a")["metadata"]["fps"] == 25.0


async def test_a_video_from_a_server_without_ranges_is_not_read_to_its_end(linked: World, origin: Origin):
    dataset, _ = await linked.own_dataset()
    film = clips.clip("mp4", frames=100, size=(320, 240), bit_rate=20_000_000, options={"movflags": "faststart"})
    film += clips.free_box(20 * 1024**2)
    await put_link(linked, dataset, origin.serve("/film", film, ranges=False))
    await linked.preprocess(dataset)
    assert (await system(linked, dataset))["ffmpeg"]["duration"] == pytest.approx(4)
    assert origin.bytes_sent == 0  # it never got rid of all


async def test_what_is_no_picture_and_no_video_is_linked_all_the_same(linked: World, origin: Origin):
    dataset, _ = await linked.own_dataset()
    for name, body in (("notes.txt", b"Just text."), ("empty", b""), ("broken.jpg", PICTURE[:2000])):
        await put_link(linked, dataset, origin.serve(f"/{name}", body), path=f"/{name}.json")
    await linked.preprocess(dataset)
    told = {name: await system(linked, dataset, f"/{name}.json") for name in ("notes.txt", "empty", "broken.jpg")}
    assert (told["notes.txt"]["mimetype"], told["notes.txt"]["size"]) == ("text/plain", 10)
    assert [one["etl"].get("reason") for one in told.values()] == [None, "empty", "truncated"]
    assert {one["link"]["state"] for one in told.values()} == {"alive"}


async def test_a_dead_link_says_so_and_comes_alive_again(linked: World, origin: Origin):
    dataset, _ = await linked.own_dataset()
    item = await put_link(linked, dataset, origin.url("/picture.jpg"))
    await linked.preprocess(dataset)
    told = await system(linked, dataset)
    assert (told["link"]["state"], told["link"]["reason"], told["etl"]["reason"]) == ("dead", "not-found", "dead-link")
    assert told["link"]["message"].endswith("there is no such file any more.")
    with pytest.raises(DeadLink, match=r"is dead: images\.example\.com") as caught:
        await streamed(linked, dataset, item.path)
    assert caught.value.status == 424
    origin.serve("/picture.jpg", PICTURE)
    assert await streamed(linked, dataset, item.path) == PICTURE
    told = await system(linked, dataset)
    assert (told["link"]["state"], told["etl"], told["size"]) == ("alive", {"state": "waiting"}, len(PICTURE))
    await linked.index(dataset)  # counters
    await linked.preprocess(dataset)
    assert (await system(linked, dataset))["width"] == 320
    await linked.index(dataset)


async def test_a_look_that_changes_nothing_writes_nothing(linked: World, origin: Origin):
    dataset, _ = await linked.own_dataset()
    alive = await put_link(linked, dataset, origin.serve("/picture.jpg", PICTURE))
    dead = await put_link(linked, dataset, "http://gone.example.com/", path="/dead.json")
    await linked.preprocess(dataset)
    before = await linked.rows_written(dataset)
    for _ in range(2):
        await streamed(linked, dataset, alive.path)
        with pytest.raises(DeadLink, match="no host"):
            await streamed(linked, dataset, dead.path)
    assert await linked.rows_written(dataset) == before


async def test_a_busy_server_is_asked_again_for_an_hour(linked: World, origin: Origin):
    dataset, _ = await linked.own_dataset()
    origin.say("/busy", b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    item = await put_link(linked, dataset, origin.url("/busy"))
    with pytest.raises(Unavailable):
        await linked.preprocess(dataset)
    async with linked.connection() as conn:
        await conn.execute("UPDATE item SET updated_at = now() - interval '61 minutes' WHERE id = %s", [item.id])
    await linked.preprocess(dataset)
    assert (await system(linked, dataset))["link"]["reason"] == "unavailable"


async def test_a_silent_host_holds_up_no_other(linked: World, origin: Origin, monkeypatch: pytest.MonkeyPatch):
    """It is let alone after some tries. What leads to it is looked at later, and is dead after an hour."""

    async def say_nothing(_request, _writer) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(fetch, "_HEADERS_S", 0.05)
    origin.answers["/silent"] = say_nothing
    dataset, _ = await linked.own_dataset()
    for number in range(20):
        await put_link(linked, dataset, origin.url(f"/silent?{number}"), path=f"/{number}.json")
    await put_link(linked, dataset, origin.serve("/good.jpg", PICTURE).replace("images", "others"), path="/good.json")
    with pytest.raises(Unavailable, match=r"in a minute|in time"):
        await linked.preprocess(dataset)
    assert 3 <= len([request for request in origin.requests if request.target.startswith("/silent")]) < 10
    assert (await linked.item(dataset, "/good.json")).width_px == 320
    async with linked.connection() as conn:
        await conn.execute(
            "UPDATE item SET updated_at = now() - interval '61 minutes' WHERE dataset_id = %s", [dataset.id]
        )
    asked = len(origin.requests)
    await linked.preprocess(dataset)
    assert len(origin.requests) == asked
    assert (await system(linked, dataset, "/7.json"))["link"]["reason"] == "timeout"


async def test_a_server_that_reads_no_links_says_so(linked: World, origin: Origin):
    closed = replace(linked, place=replace(linked.place, link_fetch=False))
    dataset, _ = await closed.own_dataset()
    item = await put_link(closed, dataset, origin.serve("/picture.jpg", PICTURE))
    await closed.preprocess(dataset)
    assert (await system(closed, dataset))["link"]["state"] == "unchecked"
    with pytest.raises(FailedDependency, match="HEADWATER_LINK_FETCH"):
        await streamed(closed, dataset, item.path)
    assert origin.requests == []


@pytest.mark.parametrize(
    "ref", ["http://127.0.0.1:1/", "http://169.254.169.254/", "ftp://a.b/", "file:///etc/passwd", "http://2130706433"]
)
async def test_an_inner_url_becomes_no_item(linked: World, ref: str):
    dataset, folder = await linked.own_dataset()
    with pytest.raises(BadRequest):
        await put_link(linked, dataset, ref)
    assert await linked.index(dataset) == {}
    assert [path for path in folder.rglob("*") if path.is_file()] == []


# Other items


async def test_a_link_to_an_item_is_its_bytes_its_size_and_its_picture(linked: World):
    dataset, _ = await linked.own_dataset()
    target = await put(linked, dataset, "/picture.jpg", PICTURE)
    await linked.preprocess(dataset)
    link = await put_link(linked, dataset, f"{target.id:024x}", kind="id", path="/link.json")
    assert link.mime_type == "image"
    assert (await system(linked, dataset, "/link.json"))["size"] == len(PICTURE)
    await linked.preprocess(dataset)
    told = await system(linked, dataset, "/link.json")
    assert (told["width"], told["height"], told["mimetype"], told["channels"]) == (320, 200, "image/jpeg", 3)
    assert await thumbnail_of(linked, link) == await thumbnail_of(linked, target)
    assert await streamed(linked, dataset, "/link.json", 10, 20) == PICTURE[10:20]
    await put(linked, dataset, "/picture.jpg", PICTURE + b"more")  # its size is the target's of this moment
    assert (await system(linked, dataset, "/link.json"))["size"] == len(PICTURE) + 4
    assert await streamed(linked, dataset, "/link.json", -4) == b"more"
    async with linked.connection() as conn:
        page = await items.load_items(conn, dataset.id, [link.id])
    assert wire_items.system_metadata(page[0])["size"] == len(PICTURE) + 4


async def test_a_link_waits_for_its_target_to_be_prepared(linked: World):
    dataset, _ = await linked.own_dataset()
    target = await put(linked, dataset, "/picture.jpg", PICTURE)
    await put_link(linked, dataset, f"{target.id:024x}", kind="id", path="/a.json")
    with pytest.raises(Unavailable):
        await linked.preprocess(dataset, ["/a.json"])
    await linked.preprocess(dataset, ["/picture.jpg"])
    await linked.preprocess(dataset, ["/a.json"])
    assert (await system(linked, dataset, "/a.json"))["width"] == 320


async def test_a_link_is_no_way_around_rights(linked: World):
    hidden, _ = await linked.own_dataset()
    target = await put(linked, hidden, "/picture.jpg", PICTURE)
    await linked.preprocess(hidden)
    ref = f"{target.id:024x}"
    other, _ = await linked.own_dataset()  # of another project
    reader = await stranger(linked)
    async with linked.connection() as conn:
        await conn.execute(
            "INSERT INTO project_member (project_id, account_id, role) VALUES (%s, %s, 'developer')",
            [other.project_id, reader.id],
        )
    with pytest.raises(NotFound, match=ref):  # in the words for one that is not there
        await put(linked, other, "/mine.json", file_of("id", ref), caller=reader)
    with pytest.raises(NotFound):
        await put(linked, other, "/mine.json", file_of("id", f"{2**40:024x}"), caller=reader)
    assert await linked.index(other) == {}
    link = await put(linked, other, "/theirs.json", file_of("id", ref))
    await linked.preprocess(other)
    told = await system(linked, other, "/theirs.json")
    assert (told["link"]["state"], told["etl"]) == ("alive", {"state": "done"})
    assert (await linked.item(other, "/theirs.json")).thumbnail_type is None
    assert "width" not in told
    sizes = {}
    for account in (None, reader, linked.owner):  # who may not read it sees nothing of it
        async with linked.connection() as conn:
            found = await items.find_item(conn, link.id, reader_id=account and account.id)
            page = await items.load_items(conn, other.id, [link.id], reader_id=account and account.id)
        assert wire_items.system_metadata(page[0]) == wire_items.system_metadata(found)
        sizes[account and account.id] = wire_items.system_metadata(found)["size"]
    assert sizes == {None: link.size_bytes, reader.id: link.size_bytes, linked.owner.id: len(PICTURE)}
    assert await streamed(linked, other, "/theirs.json") == PICTURE
    with pytest.raises(DeadLink, match="not yours to read"):
        await streamed(linked, other, "/theirs.json", reader=reader)
    assert (await system(linked, other, "/theirs.json"))["link"]["state"] == "alive"
    await put(linked, other, "/chain.json", file_of("id", f"{link.id:024x}"))
    await linked.preprocess(other)
    assert (await system(linked, other, "/chain.json"))["link"]["state"] == "alive"
    with pytest.raises(DeadLink, match="not yours to read"):
        await streamed(linked, other, "/chain.json", reader=reader)


async def test_chains_and_circles_end(linked: World):
    dataset, _ = await linked.own_dataset()
    target = await put(linked, dataset, "/0.jpg", PICTURE)
    for hop in range(1, 8):
        target = await put(linked, dataset, f"/{hop}.json", file_of("id", f"{target.id:024x}"))
    for hop in range(1, 6):
        assert await streamed(linked, dataset, f"/{hop}.json") == PICTURE
        assert (await system(linked, dataset, f"/{hop}.json"))["size"] == len(PICTURE)
    with pytest.raises(DeadLink, match="more than 5 times"):
        await streamed(linked, dataset, "/6.json")
    first = await linked.item(dataset, "/1.json")
    await put(linked, dataset, "/1.json", file_of("id", f"{first.id:024x}"))  # to itself
    with pytest.raises(DeadLink, match="more than 5 times"):
        await streamed(linked, dataset, "/1.json")
    assert (await system(linked, dataset, "/1.json"))["link"]["reason"] == "refused"
    await linked.preprocess(dataset, ["/1.json"])
    assert (await system(linked, dataset, "/1.json"))["etl"]["reason"] == "dead-link"


async def test_a_link_to_a_link_to_a_url_is_streamed(linked: World, origin: Origin):
    dataset, _ = await linked.own_dataset()
    url = await put_link(linked, dataset, origin.serve("/picture.jpg", PICTURE))
    await put(linked, dataset, "/second.json", file_of("id", f"{url.id:024x}"))
    assert await streamed(linked, dataset, "/second.json", 3, 9) == PICTURE[3:9]
    assert (await system(linked, dataset, "/second.json"))["size"] == len(PICTURE)


async def test_a_link_to_an_item_that_was_deleted_is_dead(linked: World):
    dataset, _ = await linked.own_dataset()
    target = await put(linked, dataset, "/picture.jpg", PICTURE)
    await linked.preprocess(dataset)
    await put(linked, dataset, "/link.json", file_of("id", f"{target.id:024x}"))
    await linked.delete(dataset, "/picture.jpg")
    with pytest.raises(DeadLink, match="no more"):
        await streamed(linked, dataset, "/link.json")
    assert (await system(linked, dataset, "/link.json"))["link"]["state"] == "dead"
    await linked.preprocess(dataset, ["/link.json"])
    assert (await system(linked, dataset, "/link.json"))["etl"]["reason"] == "dead-link"


# Rows and buckets


async def test_a_file_over_a_link_is_a_file_again(linked: World, origin: Origin):
    dataset, _ = await linked.own_dataset()
    await put_link(linked, dataset, origin.serve("/picture.jpg", PICTURE))
    await linked.preprocess(dataset)
    item = await put(linked, dataset, "/picture.jpg_link.json", b'{"a": 1}')
    told = await system(linked, dataset)
    assert (item.link, told["size"], told["mimetype"]) == (None, 8, "application/json")
    assert not {"shebang", "link", "width"} & set(told)


async def test_links_in_a_bucket_are_recognised_and_forgotten(linked: World, origin: Origin):
    dataset, folder = await linked.local_dataset()
    url = origin.serve("/picture.jpg", PICTURE)
    await put_link(linked, dataset, url, path="/up.json")
    assert (folder / "up.json").read_bytes() == file_of("url", url)  # downstream
    (folder / "found.json").write_bytes(file_of("url", url))
    (folder / "inner.json").write_bytes(file_of("url", "http://127.0.0.1:1/"))
    (folder / "broken.json").write_bytes(b'{"shebang": "dataloop", "type": "link"}')
    (folder / "plain.json").write_bytes(b'{"shebang": 1}')
    await linked.sync(dataset)
    await linked.preprocess(dataset)
    assert (await system(linked, dataset, "/up.json"))["width"] == 320
    told = await system(linked, dataset, "/found.json")
    assert (told["width"], told["size"], told["shebang"]["linkInfo"]["ref"]) == (320, len(PICTURE), url)
    assert (await system(linked, dataset, "/inner.json"))["link"]["reason"] == "refused"
    assert (await system(linked, dataset, "/broken.json"))["etl"]["reason"] == "refused"
    assert (await linked.item(dataset, "/plain.json")).link is None
    await linked.sync(dataset)
    assert (await linked.item(dataset, "/found.json")).link is not None
    (folder / "found.json").write_bytes(b'{"now": "a file of its own, and longer than before"}')
    await linked.sync(dataset)
    assert (await linked.item(dataset, "/found.json")).link is None
    await linked.index(dataset)


async def test_links_are_looked_at_by_jobs_of_their_own(linked: World, origin: Origin):
    """Whoever is slow elsewhere does not hold up the files of others."""
    dataset, folder = await linked.local_dataset()
    url = origin.serve("/picture.jpg", PICTURE)
    await put_link(linked, dataset, url, path="/up.json")
    (folder / "found.json").write_bytes(file_of("url", url))
    (folder / "photo.jpg").write_bytes(PICTURE)
    await linked.sync(dataset)
    ids = [(await linked.item(dataset, path)).id for path in ("/up.json", "/found.json", "/photo.jpg")]
    for _ in range(2):  # a job that is repeated
        await preprocess.preprocess_items(linked.place, dataset.id, ids)
        assert origin.requests == []
        assert (await linked.item(dataset, "/photo.jpg")).width_px == 320
        found = await linked.item(dataset, "/found.json")
        assert (Link.of(found.link).ref, found.etl_state) == (url, items.ETL_WAITING)
    async with linked.connection() as conn:
        cursor = await conn.execute(
            "SELECT queue_name, args FROM procrastinate_jobs WHERE task_name = %s", [preprocess.LINKS_TASK]
        )
        jobs = [
            (queue, args["item_ids"]) for queue, args in await cursor.fetchall() if args["dataset_id"] == dataset.id
        ]
    assert sorted(jobs) == sorted([("links", ids[:1]), ("links", ids[1:2]), ("links", sorted(ids[:2]))])
    await preprocess.preprocess_links(linked.place, dataset.id, ids)
    assert {(await linked.item(dataset, path)).width_px for path in ("/up.json", "/found.json")} == {320}
    await linked.index(dataset)


async def test_a_link_without_an_object_is_a_link_all_the_same(linked: World, origin: Origin):
    """As a CSV file makes it in our own storage."""
    dataset, folder = await linked.own_dataset()
    link = Link("url", origin.serve("/picture.jpg", PICTURE), "image/jpeg")
    body = link_body(link)
    info = ObjectInfo("", len(body), hashlib.sha256(body).hexdigest(), datetime.now(UTC), "application/json")
    landed = upload.Landed("/row.json", "skip", None, info, mime_type="image/jpeg", link=link.to_json())
    await upload.commit_written(linked.place, dataset, linked.owner, [landed])
    await linked.preprocess(dataset)
    assert (await system(linked, dataset, "/row.json"))["width"] == 320
    assert await streamed(linked, dataset, "/row.json") == PICTURE
    assert not (folder / "row.json").exists()
    assert await differences(linked, dataset) == {}
    await linked.delete(dataset, "/row.json")
    assert await linked.index(dataset) == {}


async def test_links_to_a_bucket_lie_in_it_as_files(linked: World, origin: Origin, weed):
    dataset, store = await linked.s3_dataset(weed)
    url = origin.serve("/picture.jpg", PICTURE)
    await put_link(linked, dataset, url, path="/deep/up.json")
    async with store.get("deep/up.json") as reader:
        assert parse_link(await reader.read()) == Link("url", url)
    await linked.preprocess(dataset)
    assert (await system(linked, dataset, "/deep/up.json"))["width"] == 320
    await linked.sync(dataset)
    assert await streamed(linked, dataset, "/deep/up.json") == PICTURE
    assert await differences(linked, dataset) == {}
