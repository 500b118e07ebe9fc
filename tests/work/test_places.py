"""Stores of datasets: with secrets as they are now, and where derived files go that a bucket must not have."""

import asyncio

import pytest
from aiohttp import web

from headwater.catalog import items, organizations
from headwater.errors import BadRequest
from headwater.work import credentials, deletion, secrets
from headwater.work.preprocess import thumbnail_key
from tests import samples
from tests.servers import Keys
from tests.storage.scripted import Scripted
from tests.work.world import World

FIRST, SECOND = Keys("first-id", "first-secret"), Keys("second-id", "second-secret")


class Guarded(Scripted):
    """A bucket of three pages of two keys each, for the one access key id that counts at the moment."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = FIRST.access_key_id
        self.refused = 0
        self.before_page: dict[str, object] = {}
        self.script = [self.page]

    async def page(self, request: web.Request) -> web.Response:
        token = request.query.get("continuation-token", "0")
        if action := self.before_page.pop(token, None):
            await action()
        if f"Credential={self.counts}/" not in request.headers["Authorization"]:
            self.refused += 1
            return web.Response(status=403, text="<Error><Code>InvalidAccessKeyId</Code></Error>")
        number = int(token)
        entries = "".join(
            f"<Contents><Key>key-{number}-{inner}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>&quot;e&quot;</ETag><Size>1</Size></Contents>"
            for inner in range(2)
        )
        more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{number + 1}</NextContinuationToken>"
        end = more if number < 2 else "<IsTruncated>false</IsTruncated>"
        text = f"<ListBucketResult><EncodingType>url</EncodingType>{end}{entries}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")


async def change_keys(world: World, dataset, keys: Keys) -> None:
    """As PATCH does it."""
    [(integration_id, organization_id)] = await rows(
        world,
        """
        SELECT integration.id, integration.organization_id
        FROM dataset
        JOIN driver ON driver.id = dataset.driver_id
        JOIN integration ON integration.id = driver.integration_id
        WHERE dataset.id = %s
        """,
        dataset.id,
    )
    await secrets.change_integration(
        world.place,
        world.place.places._settings,
        world.owner,
        organization_id,
        integration_id,
        name=None,
        kind=None,
        options={"key": keys.access_key_id, "secret": keys.secret_access_key},
        metadata=None,
    )


async def rows(world: World, statement: str, *parameters: object) -> list:
    async with world.connection() as conn:
        cursor = await conn.execute(statement, list(parameters))
        return await cursor.fetchall() if cursor.description else []


async def guarded_dataset(world: World, bucket: Guarded):
    return await world.dataset(kind="s3", root="cams", endpoint=bucket.url, keys=FIRST)


async def test_keys_replaced_in_the_middle_of_a_listing_are_taken_over(world: World) -> None:
    async with Guarded.running() as bucket:
        dataset = await guarded_dataset(world, bucket)

        async def replaced() -> None:
            bucket.counts = SECOND.access_key_id
            await change_keys(world, dataset, SECOND)

        bucket.before_page["1"] = replaced
        command, _ = await world.sync(dataset)
        assert (command.status, command.error) == ("success", None)
        assert set(await world.index(dataset)) == {f"/key-{page}-{inner}" for page in range(3) for inner in range(2)}
        assert bucket.refused >= 1


async def test_keys_replaced_between_two_requests_are_noticed_without_a_refusal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_LOOK_AGAIN_AFTER_S", 0)
    async with Guarded.running() as bucket:
        dataset = await guarded_dataset(world, bucket)
        async with world.place.places.of_dataset(dataset.id) as store:
            await store.check_listing()
            bucket.counts = SECOND.access_key_id
            await change_keys(world, dataset, SECOND)
            await store.check_listing()
        assert bucket.refused == 0


async def test_keys_that_are_wrong_and_unchanged_end_the_sync_with_a_sentence(world: World) -> None:
    async with Guarded.running() as bucket:
        dataset = await guarded_dataset(world, bucket)
        bucket.counts = "none"
        command, _ = await world.sync(dataset)
        assert command.status == "failed"
        assert "no such access key id" in (command.error or "")
        bucket.counts = SECOND.access_key_id
        await change_keys(world, dataset, SECOND)
        command, _ = await world.sync(dataset)
        assert command.status == "success", command.error


async def test_a_secret_is_read_though_every_connection_of_the_pool_is_taken(world: World) -> None:
    """An upload asks its store while its own transaction is open; many at once must not wait for each other."""
    async with Guarded.running() as bucket:
        dataset = await guarded_dataset(world, bucket)
        async with world.place.places.of_dataset(dataset.id) as store:
            taken = [await world.place.pool.getconn() for _ in range(world.place.pool.max_size)]
            try:
                async with asyncio.timeout(20):
                    await store.check_listing()
            finally:
                for conn in taken:
                    await world.place.pool.putconn(conn)


async def only_reads(world: World, dataset) -> None:
    await rows(
        world, "UPDATE driver SET read_only = true, allow_delete = false WHERE id = %s RETURNING id", dataset.driver_id
    )


async def test_nothing_is_written_to_a_bucket_that_is_only_read(world: World) -> None:
    dataset, root = await world.local_dataset(allow_delete=False)
    (root / "deep").mkdir()
    (root / "deep" / "photo.jpg").write_bytes(samples.jpeg())
    await only_reads(world, dataset)

    def there() -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*")}

    before = there()
    await world.sync(dataset)
    await world.preprocess(dataset)
    item = await world.item(dataset, "/deep/photo.jpg")
    assert item.etl_state == items.ETL_DONE
    assert item.thumbnail_type is not None
    key = thumbnail_key(item.id, item.thumbnail_type)
    async with world.place.places.of_derived(dataset.id) as store, store.get(key) as reader:
        assert (await reader.read())[:3] == b"\xff\xd8\xff"
    with pytest.raises(BadRequest, match="only reads"):
        await world.upload(dataset, "/new.txt", b"new")
    await world.delete(dataset, "/deep/photo.jpg")
    await world.run_jobs(dataset)
    assert there() == before
    own = world.place.places._settings.data_dir / "storage" / f"{dataset.id:024x}"
    assert list(own.rglob("*.jpg")) == []


async def test_thumbnails_we_keep_for_a_bucket_go_with_its_dataset(world: World) -> None:
    dataset, root = await world.local_dataset(allow_delete=False)
    (root / "photo.jpg").write_bytes(samples.jpeg())
    await only_reads(world, dataset)
    await world.sync(dataset)
    await world.preprocess(dataset)
    own = world.place.places._settings.data_dir / "storage" / f"{dataset.id:024x}"
    assert len(list(own.rglob("*.jpg"))) == 1
    await rows(world, "UPDATE dataset SET deleted_at = now() WHERE id = %s RETURNING id", dataset.id)
    await deletion.purge_dataset(world.place, dataset.id)
    assert list(own.rglob("*.jpg")) == []
    assert (root / "photo.jpg").exists()


async def test_a_delete_that_the_organisation_forbids_meanwhile_leaves_the_object(world: World) -> None:
    dataset, root = await world.local_dataset(allow_delete=True)
    (root / "kept.txt").write_bytes(b"kept")
    await world.sync(dataset)
    await world.delete(dataset, "/kept.txt")
    async with world.connection() as conn:
        organization = (await organizations.list_organizations(conn, world.owner))[0]
        await organizations.forbid_external_delete(conn, world.owner, organization, True)
    try:
        assert await world.run_jobs(dataset) == 1
        assert (root / "kept.txt").exists()
    finally:
        async with world.connection() as conn:
            await organizations.forbid_external_delete(conn, world.owner, organization, False)


async def test_a_storage_class_goes_with_every_object_written(world: World) -> None:
    async with Scripted.running() as bucket:
        bucket.script = [web.Response(headers={"ETag": '"e"'})]
        dataset = await world.dataset(kind="s3", root="cams", endpoint=bucket.url, keys=FIRST)
        await rows(
            world, "UPDATE driver SET storage_class = 'STANDARD_IA' WHERE id = %s RETURNING id", dataset.driver_id
        )
        async with world.place.places.of_dataset(dataset.id) as store:
            await store.put("a", b"a", content_type="text/plain")
        assert bucket.requests[-1].headers["x-amz-storage-class"] == "STANDARD_IA"
