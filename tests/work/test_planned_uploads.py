"""Uploads that clients send to the bucket themselves: planned, sent by signed requests, committed."""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import aiohttp
import pytest
from google.auth.crypt.rsa import RSASigner
from yarl import URL

from headwater.catalog import planned_uploads, quotas
from headwater.errors import BadRequest, NotFound, Unavailable
from headwater.storage.azure.signing import AccountKey
from headwater.storage.gcs.requests import GcsCredentials, UrlSigner
from headwater.storage.gcs.store import GcsStore
from headwater.storage.opening import open_azure, open_gcs
from headwater.storage.requests import Request
from headwater.storage.stores import SignedRequest
from headwater.work.upload import committing, planned
from headwater.work.upload.committing import Given, is_other_etag
from headwater.work.upload.planned import Wanted
from tests import google, servers
from tests.work.test_verify import differences


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.AzureServer]:
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.GcsServer]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


async def azure_dataset(world, server: servers.AzureServer):
    async def provide(_anew: bool) -> AccountKey:
        return AccountKey(server.key)

    container = f"cams-{secrets.token_hex(6)}"
    store = open_azure(
        account=server.account, container=container, endpoint=server.endpoint, credentials=provide, backoff_s=0.001
    )
    await store._sender.send(Request("CreateContainer", "PUT", query={"restype": "container"}))
    return await world.dataset(store), store


async def gcs_dataset(world, server: servers.GcsServer):
    signer = UrlSigner(google.EMAIL, RSASigner(google.private_key()))

    async def provide(_anew: bool) -> GcsCredentials:
        return GcsCredentials("a-token", signer)

    bucket = f"cams-{secrets.token_hex(6)}"
    server.make_bucket(bucket)
    store = open_gcs(bucket=bucket, endpoint=server.endpoint, credentials=provide, backoff_s=0.001)
    return await world.dataset(store), store


@pytest.fixture(params=["seaweedfs", "azurite", "gcs"])
async def bucket(request: pytest.FixtureRequest, world):
    """A dataset on a bucket, and its store."""
    if request.param == "seaweedfs":
        return await world.s3_dataset(request.getfixturevalue("weed"))
    make: Callable = {"azurite": azure_dataset, "gcs": gcs_dataset}[request.param]
    return await make(world, request.getfixturevalue(request.param))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def plan(world, dataset, *files: tuple[str, int], mode: str = "skip", direct: bool = True):
    wanted = [Wanted(path, size_bytes) for path, size_bytes in files]
    answers, _ = await planned.plan_uploads(world.place, dataset, world.owner, mode, wanted, direct=direct)
    return answers


async def commit(world, dataset, *given: Given):
    return await committing.commit_uploads(world.place, dataset, world.owner, given)


async def send(http: aiohttp.ClientSession, request: SignedRequest, body: bytes) -> tuple[int, str]:
    url, headers = URL(request.url, encoded=True), dict(request.headers)
    async with http.request(request.method, url, headers=headers, data=io.BytesIO(body)) as answer:
        return answer.status, answer.headers.get("ETag", "")


async def upload(world, http, dataset, path: str, body: bytes, **plan_options):
    (answer,) = await plan(world, dataset, (path, len(body)), **plan_options)
    assert answer.action == "put"
    status, etag = await send(http, answer.request, body)
    (done,) = await commit(world, dataset, Given(answer.upload_id, etag=etag or None))
    return status, done


async def read(store, key: str) -> bytes:
    async with store.get(key) as reader:
        return await reader.read()


async def test_files_are_planned_sent_and_committed(world, http, bucket):
    dataset, store = bucket
    bodies = {f"/a b/{n}é.jpg": b"x" * n for n in range(60)}
    answers = await plan(world, dataset, *((path, len(body)) for path, body in bodies.items()))
    assert {answer.action for answer in answers} == {"put"}
    sent = await asyncio.gather(*(send(http, answer.request, bodies[answer.path]) for answer in answers))
    assert {status for status, _ in sent} <= {200, 201}
    given = [
        Given(answer.upload_id, etag=etag or None, user_metadata={"n": n}, description="d")
        for n, (answer, (_, etag)) in enumerate(zip(answers, sent, strict=True))
    ]
    done = await commit(world, dataset, *given)
    assert [(one.path, one.outcome, one.error) for one in done] == [(path, "created", None) for path in bodies]
    item = await world.item(dataset, "/a b/7é.jpg")
    assert (item.size_bytes, item.user_metadata, item.description) == (7, {"n": 7}, "d")
    assert (item.creator, item.etag) == (world.owner.email, (await store.head("a b/7é.jpg")).etag)
    assert [one.outcome for one in await commit(world, dataset, *given)] == ["created"] * 60  # repeated
    assert {answer.action for answer in await plan(world, dataset, ("/a b/7é.jpg", 7))} == {"skip"}
    _, scan = await world.sync(dataset)
    assert (scan.created, scan.changed, scan.gone) == (0, 0, 0)
    await world.index(dataset)


async def test_a_large_file_goes_in_parts(world, http, bucket, monkeypatch):
    monkeypatch.setattr(planned, "LARGEST_PUT_BYTES", 1024)
    dataset, store = bucket
    body = secrets.token_bytes(8 * 1024**2 + 5)
    (answer,) = await plan(world, dataset, ("/large.bin", len(body)))
    assert (answer.action, answer.part_bytes) == ("parts", 8 * 1024**2)
    with pytest.raises(BadRequest, match="has 2 parts"):
        await planned.sign_parts(world.place, dataset, world.owner, answer.upload_id, [1, 3])
    parts = await planned.sign_parts(world.place, dataset, world.owner, answer.upload_id, [2, 1])
    etags = {}
    for part in parts:
        start = (part.number - 1) * answer.part_bytes
        status, etag = await send(http, part.request, body[start : start + part.size_bytes])
        assert status in (200, 201)
        etags[part.number] = etag
        if len(etags) == 1:
            (early,) = await commit(world, dataset, Given(answer.upload_id, parts=list(etags.items())))
            assert (early.outcome, "bytes" in str(early.error)) == ("failed", True)
    given = Given(answer.upload_id, parts=list(etags.items()))
    for _ in range(2):
        (done,) = await commit(world, dataset, given)
        assert (done.outcome, done.size_bytes, done.error) == ("created", len(body), None)
    assert await read(store, "large.bin") == body
    with pytest.raises(NotFound):
        await planned.sign_parts(world.place, dataset, world.owner, answer.upload_id, [1])


async def test_what_came_meanwhile_is_not_replaced_without_being_asked(world, http, bucket):
    dataset, store = bucket
    (late,) = await plan(world, dataset, ("/a.txt", 4))
    await world.upload(dataset, "/a.txt", b"first")
    before = await world.item(dataset, "/a.txt")
    status, _ = await send(http, late.request, b"late")
    (done,) = await commit(world, dataset, Given(late.upload_id))
    if isinstance(store, GcsStore):  # fake-gcs-server knows no condition: what happened is told
        assert done.outcome == "overwrite"
        assert (await world.item(dataset, "/a.txt")).etag == (await store.head("a.txt")).etag
        return
    assert (status in (403, 409, 412), done.outcome, done.item_id) == (True, "skip", before.id)
    assert await read(store, "a.txt") == b"first"


async def backdate_store(world, dataset) -> None:
    """What lies in the bucket by now is older than any plan."""
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE planned_upload SET planned_at = planned_at + interval '1 h' WHERE dataset_id = %s", [dataset.id]
        )


async def test_an_object_without_an_item_that_was_there_before_becomes_it(world, http, bucket, monkeypatch):
    """It stays as it is, whatever its size; nobody is told that theirs was written."""
    monkeypatch.setattr(planned, "LARGEST_PUT_BYTES", 5)
    dataset, store = bucket
    for key in ("same", "other", "large"):
        await store.put(key, b"old", content_type="text/plain")
    answers = await plan(world, dataset, ("/same", 3), ("/other", 4), ("/large", 9))
    assert [answer.action for answer in answers] == ["put", "put", "parts"]
    (part,) = await planned.sign_parts(world.place, dataset, world.owner, answers[2].upload_id, [1])
    await send(http, part.request, b"new large")
    await backdate_store(world, dataset)
    given = [Given(answer.upload_id, user_metadata={"told": 1}) for answer in answers]
    for _ in range(2):
        done = await commit(world, dataset, *given)
        assert [(one.outcome, one.error) for one in done] == [("skip", None)] * 3
    assert [await read(store, key) for key in ("same", "other", "large")] == [b"old"] * 3
    found = [await world.item(dataset, path) for path in ("/same", "/other", "/large")]
    assert [(item.size_bytes, item.user_metadata) for item in found] == [(3, {"told": 1}), (3, None), (3, None)]
    assert [one async for one in store.list_unfinished()] == []
    await world.index(dataset)


async def test_the_object_of_an_item_that_was_deleted_does_not_come_back_by_a_plan(world, weed):
    dataset, store = await world.s3_dataset(weed, allow_delete=False)
    await world.upload(dataset, "/a", b"old")
    await world.delete(dataset, "/a")
    (answer,) = await plan(world, dataset, ("/a", 3))
    await backdate_store(world, dataset)
    (done,) = await commit(world, dataset, Given(answer.upload_id))
    assert (done.outcome, "overwrite" in str(done.error)) == ("failed", True)
    assert await read(store, "a") == b"old"


async def test_overwriting_replaces_object_and_row(world, http, bucket):
    dataset, store = bucket
    _, first = await upload(world, http, dataset, "/a.txt", b"first")
    status, second = await upload(world, http, dataset, "/a.txt", b"second", mode="overwrite")
    assert status in (200, 201)
    assert (second.outcome, second.item_id, second.size_bytes) == ("overwrite", first.item_id, 6)
    assert await read(store, "a.txt") == b"second"
    await world.index(dataset)


async def test_nothing_that_a_client_says_is_believed(world, http, bucket):
    dataset, store = bucket
    absent, short, foreign = await plan(
        world, dataset, ("/absent", 3), ("/short", 3), ("/foreign", 3), mode="overwrite"
    )
    await store.put("short", b"four", content_type="text/plain")
    await store.put("foreign", b"333", content_type="text/plain")
    other_etag = (await store.head("foreign")).etag
    other_etag = ("a" if other_etag[0] != "a" else "b") + other_etag[1:]
    done = await commit(
        world,
        dataset,
        Given(absent.upload_id),
        Given(short.upload_id),
        Given(foreign.upload_id, etag=other_etag),
        Given(2**60),
    )
    assert [one.outcome for one in done] == ["failed"] * 4
    reasons = ["never came", "of 4 bytes", "another object", "not known"]
    assert all(reason in str(one.error) for one, reason in zip(done, reasons, strict=True))
    assert await world.index(dataset) == {}
    assert (await read(store, "short"), await read(store, "foreign")) == (
        b"four",
        b"333",
    )  # nobody proved they are theirs


@pytest.mark.parametrize("allow_delete", [True, False])
async def test_a_lie_about_the_size_goes_only_where_objects_may_be_deleted(world, weed, allow_delete):
    dataset, store = await world.s3_dataset(weed, allow_delete=allow_delete)
    (answer,) = await plan(world, dataset, ("/a", 3))
    etag = (await store.put("a", b"four", content_type="text/plain")).etag
    (done,) = await commit(world, dataset, Given(answer.upload_id, etag=f'"{etag}"'))
    assert done.outcome == "failed"
    pages = [page async for page in store.list_pages()]
    assert [key for page in pages for key in page.keys] == ([] if allow_delete else ["a"])


async def test_paths_that_cannot_be_are_refused_one_by_one(world, weed):
    dataset, _ = await world.s3_dataset(weed)
    await world.upload(dataset, "/there", b"x")
    files = [("/../a", 1), ("/ok", 1), ("/ok", 2), ("/x" * 600, 1), ("/.dataloop/thumbnails/x", 1), ("/there", 9)]
    answers = await plan(world, dataset, *files)
    assert [answer.action for answer in answers] == ["refused", "put", "refused", "refused", "refused", "skip"]


async def test_our_own_storage_takes_small_files_in_batches_and_large_ones_by_tus(world, weed):
    dataset, _ = await world.own_dataset()
    answers = await plan(world, dataset, ("/small", 1), ("/large", planned.LARGEST_BATCH_FILE_BYTES + 1))
    assert [(answer.action, answer.upload_id) for answer in answers] == [("batch", None), ("tus", None)]
    dataset, _ = await world.s3_dataset(weed)
    (answer,) = await plan(world, dataset, ("/small", 1), direct=False)
    assert (answer.action, answer.request) == ("batch", None)


async def test_what_somebody_else_planned_is_not_known(world, weed):
    dataset, _ = await world.s3_dataset(weed)
    (answer,) = await plan(world, dataset, ("/a", 1))
    stranger = replace(world.owner, id=world.owner.id + 1_000)
    (done,) = await committing.commit_uploads(world.place, dataset, stranger, [Given(answer.upload_id)])
    assert "not known" in str(done.error)
    with pytest.raises(BadRequest, match="twice"):
        await commit(world, dataset, Given(answer.upload_id), Given(answer.upload_id))


async def test_what_nobody_commits_is_forgotten_with_its_parts_and_places(world, http, weed, monkeypatch):
    monkeypatch.setattr(planned, "LARGEST_PUT_BYTES", 1024)
    dataset, store = await world.s3_dataset(weed)
    organization_id, full = await limit(world, dataset, more=2)
    answers = await plan(world, dataset, ("/large", 9 * 1024**2), ("/small", 1), ("/too much", 1))
    assert [answer.action for answer in answers] == ["parts", "put", "refused"]
    assert "data point" in str(answers[2].error)
    (part,) = await planned.sign_parts(world.place, dataset, world.owner, answers[0].upload_id, [1])
    await send(http, part.request, b"x" * part.size_bytes)
    assert len([one async for one in store.list_unfinished()]) == 1
    await planned.forget_uploads(world.place, dataset, world.owner, [answers[1].upload_id])
    async with world.connection() as conn:
        assert (await quotas.load_quota(conn, organization_id)).held == full + 1
        await conn.execute("UPDATE planned_upload SET expires_at = now() WHERE dataset_id = %s", [dataset.id])
    await planned.forget_expired(world.place)
    assert [one async for one in store.list_unfinished()] == []
    async with world.connection() as conn:
        assert (await quotas.load_quota(conn, organization_id)).held == full
        cursor = await conn.execute("SELECT count(*) FROM planned_upload WHERE dataset_id = %s", [dataset.id])
        assert await cursor.fetchone() == (0,)
        await quotas.set_limit(conn, organization_id, None)


async def test_parts_that_a_store_does_not_let_go_are_found_and_tried_again(world, http, weed, monkeypatch):
    monkeypatch.setattr(planned, "LARGEST_PUT_BYTES", 1024)
    dataset, store = await world.s3_dataset(weed)
    answers = await plan(world, dataset, ("/1", 9 * 1024**2), ("/2", 9 * 1024**2), ("/small", 1))
    for answer in answers[:2]:
        await planned.sign_parts(world.place, dataset, world.owner, answer.upload_id, [1])
    await expire(world, dataset)
    await planned.sign_parts(world.place, dataset, world.owner, answers[1].upload_id, [1])  # goes on
    with monkeypatch.context() as patched:

        async def fails(*_given):
            raise Unavailable("The store is down.")

        patched.setattr(type(store), "abort_parts", fails)
        await planned.forget_expired(world.place)
    assert await paths_of(world, dataset) == {"/1", "/2"}
    assert (await differences(world, dataset))["abandonedUploads"] == ["/1"]
    assert (await differences(world, dataset, repair=True))["abandonedUploads"] == ["/1"]
    assert [one.key async for one in store.list_unfinished()] == ["2"]
    await expire(world, dataset)
    await planned.forget_expired(world.place)
    assert [one async for one in store.list_unfinished()] == []
    assert await paths_of(world, dataset) == set()


async def expire(world, dataset) -> None:
    async with world.connection() as conn:
        await conn.execute("UPDATE planned_upload SET expires_at = now() WHERE dataset_id = %s", [dataset.id])


async def paths_of(world, dataset) -> set[str]:
    async with world.connection() as conn:
        return {one.path for one in await planned_uploads.find_open(conn, dataset.id)}


async def limit(world, dataset, *, more: int) -> tuple[int, int]:
    """Leave so much room; the organisation's id and the places that others hold."""
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT organization_id FROM project WHERE id = %s", [dataset.project_id])
        organization_id = (await cursor.fetchone())[0]
        await quotas.set_limit(conn, organization_id, 2**40)
        now = await quotas.load_quota(conn, organization_id)
        await quotas.set_limit(conn, organization_id, now.used + now.held + more)
    return organization_id, now.held


@pytest.mark.parametrize(("told", "known", "is_other"), [
    ('"abc"', "abc", False),
    ('W/"abc"', "abc", False),
    ('"abd"', "abc", True),
    ("5d41402abc4b2a76b9719d911017c592", "XUFAKrxLKna5cZ2REBfFkg==", False),
    ("5d41402abc4b2a76b9719d911017c593", "XUFAKrxLKna5cZ2REBfFkg==", True),
    ("x" * 32, "XUFAKrxLKna5cZ2REBfFkg==", True),
    ('"CLbh-generation"', "1700000000", False),
])  # fmt: skip
def test_etags_are_compared_as_far_as_they_can_be(told: str, known: str, is_other: bool):
    assert is_other_etag(told, known) == is_other
