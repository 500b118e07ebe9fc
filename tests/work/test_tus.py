"""Resumable uploads into every kind of store, and what is left of them when all goes wrong."""

import random
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from headwater.catalog import accounts, datasets, quotas, uploads
from headwater.catalog.links import Link
from headwater.errors import BadRequest, NotFound, Unavailable
from headwater.storage.stores import SMALLEST_PART_BYTES
from headwater.wire.links import link_body
from headwater.work import purging, tus, verify
from headwater.work.tus import Arriving, Asked, Gone, Interrupted, Receptions
from headwater.work.upload import Announced, planned
from tests import servers
from tests.work.test_planned_uploads import azure_dataset, gcs_dataset, limit, plan
from tests.work.test_verify import differences


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.AzureServer]:
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.GcsServer]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(params=["local", "seaweedfs", "azurite", "gcs"])
async def bucket(request: pytest.FixtureRequest, world):
    """A dataset on a bucket or folder, and its store."""
    if request.param == "local":
        dataset, _ = await world.local_dataset()
        return dataset, None
    if request.param == "seaweedfs":
        return await world.s3_dataset(request.getfixturevalue("weed"))
    make: Callable = {"azurite": azure_dataset, "gcs": gcs_dataset}[request.param]
    return await make(world, request.getfixturevalue(request.param))


@pytest.fixture
def receptions(world) -> Receptions:
    return Receptions(world.place, expires_in_s=3600)


def asked(size_bytes: int, path: str = "/a/large.bin", **given) -> Asked:
    return Asked(Announced(path, **({"mode": "skip"} | given)), size_bytes, told="", crc32=None)


def arriving(offset: int, *chunks: bytes, breaks: bool = False) -> Arriving:
    async def come() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
        if breaks:
            raise Interrupted("The connection broke off.")

    return Arriving(offset, come())


async def content_of(world, dataset, key: str) -> bytes:
    async with world.place.places.of_dataset(dataset.id) as store, store.get(key) as reader:
        return await reader.read()


async def unfinished(world, dataset) -> list:
    async with world.place.places.of_dataset(dataset.id) as store:
        return [one async for one in store.list_unfinished()]


async def test_a_file_that_breaks_off_again_and_again_arrives_whole(world, bucket, receptions: Receptions):
    dataset, _ = bucket
    body = random.randbytes(2 * SMALLEST_PART_BYTES + 12_345)
    upload = await receptions.create(dataset, world.owner, asked(len(body)))
    while not upload.is_complete:
        end = min(len(body), upload.offset_bytes + random.randrange(1, 5 * 1024**2))
        pieces = [body[at : at + 100_000] for at in range(upload.offset_bytes, end, 100_000)]
        pieces[-1] = pieces[-1][: end - upload.offset_bytes - 100_000 * (len(pieces) - 1)]
        try:
            coming = arriving(upload.offset_bytes, *pieces, breaks=end < len(body))
            upload = await receptions.receive(dataset, world.owner, upload.id, coming)
        except Interrupted:
            upload = await receptions.look(dataset, world.owner, upload.id)
        assert upload.offset_bytes == end
    assert upload.outcome == "created"
    assert await content_of(world, dataset, "a/large.bin") == body
    assert await unfinished(world, dataset) == []


async def test_an_empty_file_arrives(world, bucket, receptions: Receptions):
    dataset, _ = bucket
    upload = await receptions.create(dataset, world.owner, asked(0, "/empty"))
    assert upload.outcome == "created"
    assert await content_of(world, dataset, "empty") == b""
    assert await unfinished(world, dataset) == []


async def test_what_is_kept_by_mode_skip_leaves_no_parts(world, bucket, receptions: Receptions):
    dataset, _ = bucket
    for content, outcome in ((b"old", "created"), (b"new", "skip")):
        upload = await receptions.create(dataset, world.owner, asked(3))
        upload = await receptions.receive(dataset, world.owner, upload.id, arriving(0, content))
        assert upload.outcome == outcome
    assert await content_of(world, dataset, "a/large.bin") == b"old"
    assert await unfinished(world, dataset) == []


async def test_an_object_without_an_item_is_replaced_only_where_that_is_asked_for(
    world, bucket, receptions: Receptions
):
    dataset, _ = bucket
    async with world.place.places.of_dataset(dataset.id) as store:
        await store.put("a/large.bin", b"of others", content_type="text/plain")
    upload = await receptions.create(dataset, world.owner, asked(4, user_metadata={"told": 1}))
    upload = await receptions.receive(dataset, world.owner, upload.id, arriving(0, b"ours"))
    item = await receptions.find_item(upload)
    assert (upload.outcome, item.size_bytes, item.user_metadata) == ("skip", 9, None)
    assert await content_of(world, dataset, "a/large.bin") == b"of others"
    assert await unfinished(world, dataset) == []
    upload = await receptions.create(dataset, world.owner, asked(4, mode="overwrite"))
    upload = await receptions.receive(dataset, world.owner, upload.id, arriving(0, b"ours"))
    assert (upload.outcome, await content_of(world, dataset, "a/large.bin")) == ("overwrite", b"ours")


async def test_an_expired_one_leaves_nothing(world, bucket):
    dataset, _ = bucket
    receptions = Receptions(world.place, expires_in_s=-1)
    async with world.place.pool.connection() as conn:
        await conn.execute("DELETE FROM tus_upload")
    upload = await receptions.create(dataset, world.owner, asked(2 * SMALLEST_PART_BYTES))
    with pytest.raises(Gone):
        await receptions.receive(dataset, world.owner, upload.id, arriving(0, b"1"))
    async with world.place.pool.connection() as conn:
        await conn.execute("UPDATE tus_upload SET expires_at = now() + interval '1 h' WHERE id = %s", [upload.id])
    coming = arriving(0, random.randbytes(SMALLEST_PART_BYTES + 5), breaks=True)
    with pytest.raises(Interrupted):
        await receptions.receive(dataset, world.owner, upload.id, coming)
    async with world.place.pool.connection() as conn:
        await conn.execute("UPDATE tus_upload SET expires_at = now() WHERE id = %s", [upload.id])
    await tus.drop_expired(world.place)
    assert await unfinished(world, dataset) == []
    async with world.place.pool.connection() as conn:
        left = await uploads.find_upload(conn, upload.id)
        assert left is not None
        assert (left.part_state, left.failure) == (None, "It has expired.")
        assert await uploads.load_tail(conn, upload.id) == b""


async def test_when_the_store_fails_at_the_end_the_next_look_finishes(
    world, bucket, receptions: Receptions, monkeypatch: pytest.MonkeyPatch
):
    """All bytes are here: nothing is sent again."""
    dataset, _ = bucket
    body = random.randbytes(SMALLEST_PART_BYTES + 5)
    upload = await receptions.create(dataset, world.owner, asked(len(body), user_metadata={"told": 1}))
    async with world.place.places.of_dataset(dataset.id) as store:
        finish_parts = type(store).finish_parts

        async def fails(*_given, **_named):
            raise Unavailable("The store is down.")

        monkeypatch.setattr(type(store), "finish_parts", fails)
        with pytest.raises(Unavailable):
            await receptions.receive(dataset, world.owner, upload.id, arriving(0, body))

        async def finishes_unheard(*given, **named):
            await finish_parts(*given, **named)
            raise Unavailable("The answer was lost.")

        monkeypatch.setattr(type(store), "finish_parts", finishes_unheard)
        with pytest.raises(Unavailable):
            await receptions.look(dataset, world.owner, upload.id)
        monkeypatch.setattr(type(store), "finish_parts", finish_parts)
    upload = await receptions.look(dataset, world.owner, upload.id)
    assert (upload.outcome, upload.offset_bytes) == ("created", len(body))
    assert (await receptions.find_item(upload)).user_metadata == {"told": 1}
    assert await content_of(world, dataset, "a/large.bin") == body


async def test_when_the_store_takes_no_part_what_came_is_kept(
    world, bucket, receptions: Receptions, monkeypatch: pytest.MonkeyPatch
):
    dataset, _ = bucket
    body = random.randbytes(2 * SMALLEST_PART_BYTES)
    upload = await receptions.create(dataset, world.owner, asked(len(body)))
    async with world.place.places.of_dataset(dataset.id) as store:

        async def fails(*_given, **_named):
            raise Unavailable("The store is down.")

        with monkeypatch.context() as patched:
            patched.setattr(type(store), "put_part", fails)
            with pytest.raises(Unavailable):
                await receptions.receive(dataset, world.owner, upload.id, arriving(0, body))
    upload = await receptions.look(dataset, world.owner, upload.id)
    assert upload.offset_bytes == SMALLEST_PART_BYTES
    rest = arriving(SMALLEST_PART_BYTES, body[SMALLEST_PART_BYTES:])
    assert (await receptions.receive(dataset, world.owner, upload.id, rest)).outcome == "created"
    assert await content_of(world, dataset, "a/large.bin") == body


async def test_a_store_that_is_down_keeps_nobody_else_from_being_cleaned(
    world, receptions: Receptions, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tus, "_CLEANED_AT_ONCE", 2)
    down, _ = await world.local_dataset()
    sound, _ = await world.own_dataset()
    asks = []
    for n, dataset in enumerate([down, down, down, sound, sound, sound]):
        upload = await receptions.create(dataset, world.owner, asked(2 * SMALLEST_PART_BYTES, f"/{n}"))
        coming = arriving(0, bytes(SMALLEST_PART_BYTES + 1), breaks=True)
        with pytest.raises(Interrupted):
            await receptions.receive(dataset, world.owner, upload.id, coming)
    async with world.connection() as conn:
        await conn.execute("UPDATE tus_upload SET expires_at = now() WHERE dataset_id = ANY(%s)", [[down.id, sound.id]])
    of_dataset = type(world.place.places).of_dataset

    def fails(places, dataset_id: int):
        if dataset_id == down.id:
            asks.append(dataset_id)
            raise Unavailable("The store is down.")
        return of_dataset(places, dataset_id)

    with monkeypatch.context() as patched:
        patched.setattr(type(world.place.places), "of_dataset", fails)
        await tus.drop_expired(world.place)
    assert (len(await unfinished(world, down)), len(await unfinished(world, sound)), len(asks)) == (3, 0, 1)
    await tus.drop_expired(world.place)
    assert await unfinished(world, down) == []


@pytest.mark.parametrize("bucket", ["local", "seaweedfs", "gcs"], indirect=True)
async def test_parts_that_somebody_aborted_end_the_upload(world, bucket, receptions: Receptions):
    dataset, _ = bucket
    body = random.randbytes(2 * SMALLEST_PART_BYTES)
    upload = await receptions.create(dataset, world.owner, asked(len(body)))
    coming = arriving(0, body[: SMALLEST_PART_BYTES + 1], breaks=True)
    with pytest.raises(Interrupted):
        await receptions.receive(dataset, world.owner, upload.id, coming)
    for one in await unfinished(world, dataset):
        async with world.place.places.of_dataset(dataset.id) as store:
            await store.abort_parts(one.key, one.state)
    rest = arriving(SMALLEST_PART_BYTES + 1, body[SMALLEST_PART_BYTES + 1 :])
    with pytest.raises(Gone, match="no longer has what was sent"):
        await receptions.receive(dataset, world.owner, upload.id, rest)
    with pytest.raises(Gone):
        await receptions.look(dataset, world.owner, upload.id)


async def test_verify_finds_what_was_abandoned_and_a_repair_removes_it(world, bucket, receptions: Receptions):
    dataset, _ = bucket
    living, expired = [
        await receptions.create(dataset, world.owner, asked(2 * SMALLEST_PART_BYTES, f"/{n}")) for n in "12"
    ]
    for upload in (living, expired):
        coming = arriving(0, random.randbytes(SMALLEST_PART_BYTES + 5), breaks=True)
        with pytest.raises(Interrupted):
            await receptions.receive(dataset, world.owner, upload.id, coming)
    async with world.place.pool.connection() as conn:
        await conn.execute("UPDATE tus_upload SET expires_at = now() WHERE id = %s", [expired.id])
    assert (await differences(world, dataset)).get("abandonedUploads") == ["/2"]
    assert (await differences(world, dataset, repair=True)).get("abandonedUploads") == ["/2"]
    assert (await differences(world, dataset)).get("abandonedUploads") is None
    coming = arriving(SMALLEST_PART_BYTES + 5, bytes(SMALLEST_PART_BYTES - 5))
    assert (await receptions.receive(dataset, world.owner, living.id, coming)).outcome == "created"


async def test_parts_in_our_own_storage_that_nobody_knows_are_found_and_removed(
    world, receptions: Receptions, monkeypatch: pytest.MonkeyPatch
):
    dataset, folder = await world.own_dataset()
    upload = await receptions.create(dataset, world.owner, asked(2 * SMALLEST_PART_BYTES))
    coming = arriving(0, random.randbytes(SMALLEST_PART_BYTES + 5), breaks=True)
    with pytest.raises(Interrupted):
        await receptions.receive(dataset, world.owner, upload.id, coming)
    async with world.place.places.of_dataset(dataset.id) as store:
        await store.begin_parts("objects/x", content_type="", part_bytes=1)
    assert (await differences(world, dataset, repair=True)) == {}
    monkeypatch.setattr(verify, "_YOUNG_OBJECT", -verify._YOUNG_OBJECT)
    assert len((await differences(world, dataset, repair=True))["abandonedUploads"]) == 1
    assert len(list((folder / ".dataloop/tmp/parts").iterdir())) == 1
    coming = arriving(SMALLEST_PART_BYTES + 5, bytes(SMALLEST_PART_BYTES - 5))
    assert (await receptions.receive(dataset, world.owner, upload.id, coming)).outcome == "created"


async def test_a_link_is_checked_as_by_every_other_door(world, receptions: Receptions):
    """What it may not lead to ends the upload, and nothing is left of it."""
    dataset, folder = await world.own_dataset()
    hidden, _ = await world.own_dataset()  # of another project
    target = (await world.upload(hidden, "/secret.txt", b"secret")).item
    async with world.connection() as conn:
        stranger = await accounts.create_account(conn, email="tus-stranger@headwater.test", password=None)
        await conn.execute(
            "INSERT INTO project_member (project_id, account_id, role) VALUES (%s, %s, 'developer')",
            [dataset.project_id, stranger.id],
        )
    inner, theirs = Link("url", "http://169.254.169.254/meta"), Link("id", f"{target.id:024x}")
    for link, refusal in ((inner, BadRequest), (theirs, NotFound)):
        body = link_body(link)
        upload = await receptions.create(dataset, stranger, asked(len(body), "/bad.json"))
        with pytest.raises(refusal):
            await receptions.receive(dataset, stranger, upload.id, arriving(0, body[:9], body[9:]))
        with pytest.raises(Gone):
            await receptions.look(dataset, stranger, upload.id)
        async with world.connection() as conn:
            assert await uploads.load_tail(conn, upload.id) == b""
            assert (await uploads.find_upload(conn, upload.id)).hold_id is None
    assert await world.index(dataset) == {}
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    for link, mime_type in ((Link("url", "https://a.test/b.png", "image/png"), "image/png"), (theirs, "image")):
        body = link_body(link)
        upload = await receptions.create(dataset, world.owner, asked(len(body), f"/{link.kind}.json"))
        upload = await receptions.receive(dataset, world.owner, upload.id, arriving(0, body))
        item = await receptions.find_item(upload)
        assert (Link.of(item.link), item.mime_type) == (link, mime_type)


async def test_a_purge_takes_what_was_begun_with_its_places(world, bucket, receptions: Receptions, monkeypatch):
    """Parts of both kinds of uploads, and what they held in the quota; another dataset's stay."""
    monkeypatch.setattr(planned, "LARGEST_PUT_BYTES", 1024)
    dataset, store = bucket
    organization_id, held_before = await limit(world, dataset, more=9)
    upload = await receptions.create(dataset, world.owner, asked(2 * SMALLEST_PART_BYTES))
    coming = arriving(0, random.randbytes(SMALLEST_PART_BYTES + 5), breaks=True)
    with pytest.raises(Interrupted):
        await receptions.receive(dataset, world.owner, upload.id, coming)
    (answer,) = await plan(world, dataset, ("/planned", 9 * 1024**2))
    if answer.action == "parts":
        await planned.sign_parts(world.place, dataset, world.owner, answer.upload_id, [1])
    await purging.purge_dataset(world.place, dataset.id)  # it is not deleted
    assert (await receptions.look(dataset, world.owner, upload.id)).offset_bytes == SMALLEST_PART_BYTES + 5
    async with world.place.places.of_dataset(dataset.id) as opened:
        kept = opened if store is None else store
        async with world.connection() as conn:
            await datasets.delete_dataset(conn, dataset)
        await purging.purge_dataset(world.place, dataset.id)
        assert [one async for one in kept.list_unfinished()] == []
    async with world.connection() as conn:
        assert await uploads.find_upload(conn, upload.id) is None
        assert (await quotas.load_quota(conn, organization_id)).held == held_before
        await quotas.set_limit(conn, organization_id, None)
