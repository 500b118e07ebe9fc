"""Rows for objects that lie in the store: many in one transaction are what they are one by one."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog import items, quotas
from headwater.catalog.items import Written
from headwater.errors import QuotaExceeded
from headwater.storage.stores import ObjectInfo
from headwater.work.upload import Landed, Mode, commit_written
from tests.work.scripted import ScriptedStore

AT = datetime(2026, 1, 2, tzinfo=UTC)
PATHS = ["/a", "/b/c", "/b/d/e", "/.dataloop/x"]

documents = st.none() | st.dictionaries(st.sampled_from(["k", "etl", "exif", "tags"]), st.integers(0, 3), max_size=2)
written = st.builds(
    Written,
    path=st.sampled_from(PATHS),
    object_key=st.none() | st.sampled_from(["objects/1", "objects/2"]),
    size_bytes=st.integers(0, 2**40),
    etag=st.sampled_from(["e", "f", "'{,\"}"]),
    modified_at=st.none() | st.just(AT),
    mime_type=st.none() | st.just("x/y"),
    description=st.none() | st.sampled_from(["", "d,{\"'"]),
    user_metadata=documents,
    system_metadata=documents,
    link=st.none() | st.just({"kind": "url", "ref": "https://a"}),
)
rounds = st.lists(st.lists(written, max_size=4, unique_by=lambda one: one.path), min_size=1, max_size=3)


async def told(conn, dataset_id: int) -> dict[str, object]:
    """All that a dataset says, without ids and times of its own."""
    shown = "path, object_key, size_bytes, etag, modified_at, mime_type, hidden, description, user_metadata"
    found: dict[str, object] = {}
    for name, statement in {
        "rows": f"SELECT {shown}, system_metadata, link, etl_state, creator_id FROM item WHERE dataset_id = %s",
        "folders": "SELECT path FROM folder WHERE dataset_id = %s",
        "counts": "SELECT items, hidden_items, missing_items, bytes, prepared_items FROM dataset_counter "
        "WHERE dataset_id = %s",
        "tombstones": "SELECT path FROM tombstone WHERE dataset_id = %s",
        "events": "SELECT action, item.path FROM event, unnest(event.item_ids) AS item_id "
        "JOIN item ON item.id = item_id WHERE event.dataset_id = %s",
    }.items():
        found[name] = sorted(map(str, await (await conn.execute(statement, [dataset_id])).fetchall()))
    return found


@given(rounds)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_many_at_once_are_what_they_are_one_by_one(world, puts):
    (together, _), (apart, _) = await world.own_dataset(), await world.own_dataset()
    async with world.connection() as conn:
        for dataset in (together, apart):
            await conn.execute(
                "INSERT INTO tombstone (dataset_id, path) VALUES (%s, '/a'), (%s, '/z')", [dataset.id] * 2
            )
    for batch in puts:
        async with world.connection() as conn:
            many = await items.put_items(conn, together.id, batch, creator_id=world.owner.id)
            each = [await items.put_item(conn, apart.id, one, creator_id=world.owner.id) for one in batch]
            assert [(item.path, is_new) for item, is_new in many] == [(one.path, new) for one, new in each]
            assert await told(conn, together.id) == await told(conn, apart.id)
    await world.index(together)  # counts


def landed(path: str, key: str | None, *, mode: Mode = "skip", etag: str = "e", size_bytes: int = 3) -> Landed:
    return Landed(path, mode, key, ObjectInfo(key or path[1:], size_bytes, etag, None, None))


async def test_what_is_kept_what_is_new_and_what_is_replaced_in_one_transaction(world):
    dataset, folder = await world.own_dataset()
    for path in ("/kept", "/replaced"):
        await world.upload(dataset, path, b"old")
    files = [
        landed("/new/a", "objects/1"),
        landed("/kept", "objects/2"),
        landed("/replaced", "objects/3", mode="overwrite"),
    ]
    async with world.place.places.of_dataset(dataset.id) as store:
        for file in files:
            await store.put(str(file.own_key), b"new", content_type="text/plain")
    done = await commit_written(world.place, dataset, world.owner, files)
    assert [(one.item.path, one.outcome) for one in done] == [
        ("/new/a", "created"), ("/kept", "skip"), ("/replaced", "overwrite")
    ]  # fmt: skip
    await world.run_jobs(dataset)
    now = {item.key for item in [await world.item(dataset, file.path) for file in files]}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == now
    assert len(now) == 3
    await world.index(dataset)


async def test_in_a_bucket_the_object_that_lies_there_is_told_also_when_it_should_not_have_been_replaced(world):
    dataset = await world.dataset(ScriptedStore({"a": b"1", "b": b"2"}))
    await world.sync(dataset)
    before = [await world.item(dataset, path) for path in ("/a", "/b")]
    files = [landed("/a", None, etag=before[0].etag), landed("/b", None, etag="another")]
    done = await commit_written(world.place, dataset, world.owner, files)
    assert [one.outcome for one in done] == ["skip", "overwrite"]
    assert [one.item.etag for one in done] == [before[0].etag, "another"]
    assert [one.item.id for one in done] == [item.id for item in before]


async def test_the_same_paths_committed_by_five_at_once_are_one_item_each(world):
    dataset, _ = await world.own_dataset()
    paths = [f"/f{n % 3}/{n}" for n in range(40)]

    async def commit(caller: int) -> list[str]:
        order = paths if caller % 2 else paths[::-1]
        files = [landed(path, f"objects/{caller}{path}", mode="overwrite") for path in order]
        return [one.outcome for one in await commit_written(world.place, dataset, world.owner, files)]

    outcomes = await asyncio.gather(*map(commit, range(5)))
    assert sorted(outcome for one in outcomes for outcome in one) == ["created"] * 40 + ["overwrite"] * 160
    assert len(await world.index(dataset)) == 40


async def test_where_there_is_no_room_for_all_there_is_none_for_any(world):
    dataset, _ = await world.own_dataset()
    async with world.connection() as conn:
        organization_id = await organization_of(conn, dataset.id)
        full = await quotas.load_quota(conn, organization_id)
        await quotas.set_limit(conn, organization_id, full.used + full.held + 2)
    async with world.connection() as conn:
        held = await quotas.hold_places(conn, dataset.id, 3)
    assert (len(held.ids), "needs 3 more" in str(held.refused)) == (2, True)
    files = [landed(f"/{n}", f"objects/{n}") for n in range(3)]
    files = [replace(file, hold_id=hold) for file, hold in zip(files, [*held.ids, None], strict=True)]
    with pytest.raises(QuotaExceeded, match="needs 1 more"):
        await commit_written(world.place, dataset, world.owner, files)
    assert len(await world.index(dataset)) == 0
    await commit_written(world.place, dataset, world.owner, files[:2])
    assert len(await world.index(dataset)) == 2
    async with world.connection() as conn:
        assert (await quotas.load_quota(conn, organization_id)).held == full.held
        await quotas.set_limit(conn, organization_id, None)


async def organization_of(conn, dataset_id: int) -> int:
    cursor = await conn.execute(
        "SELECT organization_id FROM project JOIN dataset ON project.id = project_id WHERE dataset.id = %s",
        [dataset_id],
    )
    return (await cursor.fetchone())[0]
