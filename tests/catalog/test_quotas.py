"""The rules of quotas, one sentence each: what counts, who is let in, and what a full organisation still takes."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from headwater.catalog import datasets, items, projects, quotas, removals
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Written
from headwater.catalog.sync import scans
from headwater.errors import QuotaExceeded
from tests.catalog.test_scans import begin, finish, listing, merge, sync
from tests.work.quotas import Standing, checked_standing, give_to, make_organization
from tests.work.world import ghosts, index, make_dataset, make_project, present


@pytest.fixture
async def organization(conn: AsyncConnection) -> int:
    return await make_organization(conn, 5)


@pytest.fixture
async def dataset(conn: AsyncConnection, organization: int) -> Dataset:
    made = await make_dataset(conn)
    await give_to(conn, organization, made)
    return made


async def put(conn: AsyncConnection, dataset: Dataset, path: str) -> None:
    """An upload's row, by an owner of another organisation: who adds does not matter."""
    owner, _ = await make_project(conn)
    await items.put_item(conn, dataset.id, Written(path, None, 3, "1", None, None), creator_id=owner.id)


async def fill(conn: AsyncConnection, dataset: Dataset, number: int) -> dict[str, tuple[str, int]]:
    bucket = {f"/f/{n}": ("1", 10) for n in range(number)}
    await sync(conn, dataset, bucket)
    return bucket


async def test_an_organisation_has_no_limit_by_default(conn):
    dataset = await make_dataset(conn)
    assert await quotas.lock_room(conn, dataset.id) is None
    assert await quotas.hold_place(conn, dataset.id) is None
    await quotas.use_place(conn, dataset.id, None)
    quota = await quotas.load_quota(conn, 1)
    assert (quota.limit, quota.left, quota.held) == (None, None, 0)


async def test_every_row_counts_hidden_ones_and_ghosts_as_well_until_its_dataset_is_deleted(
    conn, organization, dataset
):
    other = await make_dataset(conn)
    await give_to(conn, organization, other)
    await sync(conn, dataset, {"/a": ("1", 1), "/b": ("1", 1)})
    await sync(conn, dataset, {"/a": ("1", 1)})
    assert ghosts(await index(conn, dataset.id)) == {"/b"}
    await put(conn, other, "/.dataloop/hidden")
    await fill(conn, await make_dataset(conn), 3)  # of another organisation
    assert await checked_standing(conn, organization) == Standing(5, rows=3, held=0)
    quota = await quotas.load_quota(conn, organization)
    assert [(one.used, [use.used for use in one.datasets]) for one in quota.projects] == [(2, [2]), (1, [1])]
    assert (await quotas.load_use(conn, other.project_id)).used == 1
    room = await quotas.lock_room(conn, dataset.id)
    assert (room.limit, room.used, room.held, room.left) == (5, 3, 0, 2)
    await datasets.delete_dataset(conn, dataset)
    assert await checked_standing(conn, organization) == Standing(5, rows=1, held=0)
    owner, _ = await make_project(conn)
    await give_to(conn, 1, other)
    await projects.delete_project(conn, await projects.get_project(conn, owner, other.project_id))
    await give_to(conn, organization, other)
    assert await checked_standing(conn, organization) == Standing(5, rows=0, held=0)


async def test_a_project_without_a_dataset_uses_nothing(conn, organization):
    _, project_id = await make_project(conn)
    use = await quotas.load_use(conn, project_id)
    assert (use.used, use.datasets) == (0, [])


async def test_a_batch_that_has_no_room_is_merged_up_to_its_first_new_object_without(conn, organization, dataset):
    await sync(conn, dataset, {"/b": ("1", 1), "/aa gone": ("1", 1), "/z": ("1", 1), "/zz gone": ("1", 1)})
    scan = await begin(conn, dataset)
    bucket = {"/a": ("2", 2), "/b": ("other", 5), "/y": ("2", 2), "/z": ("other", 5)}
    merged = await merge(conn, scan, listing(bucket))
    assert str(merged.refused).startswith("This needs 1 more data point; 0 of 5 of organisation 'org ")
    assert "headwater quota set 'org " in str(merged.refused)
    assert (merged.created, merged.changed, merged.gone) == (1, 1, 1)
    found = await index(conn, dataset.id)
    assert {path: etag for path, (etag, *_) in found.items()} == {
        "/a": "2", "/b": "other", "/aa gone": "1", "/z": "1", "/zz gone": "1",
    }  # fmt: skip
    cursor = await conn.execute("SELECT cursor_path, done FROM scan_shard WHERE scan_id = %s", [scan.id])
    assert await cursor.fetchone() == ("/b", False)
    assert await checked_standing(conn, organization) == Standing(5, rows=5, held=0)


async def test_a_batch_whose_very_first_object_has_no_room_proves_nothing(conn, organization, dataset):
    """An empty range must not be taken for the whole bucket."""
    await fill(conn, dataset, 5)
    scan = await begin(conn, dataset)
    merged = await merge(conn, scan, listing({"/a": ("1", 1), "/b": ("1", 1)}))
    assert str(merged.refused).startswith("This needs 2 more data points; 0 of 5 of organisation")
    assert (merged.created, merged.gone) == (0, 0)
    cursor = await conn.execute("SELECT cursor_path, done FROM scan_shard WHERE scan_id = %s", [scan.id])
    assert await cursor.fetchone() == (None, False)
    assert len(present(await index(conn, dataset.id))) == 5


async def test_a_batch_that_others_follow_needs_at_least_what_it_holds(conn, organization, dataset):
    scan = await begin(conn, dataset)
    merged = await merge(conn, scan, listing({f"/{n:03}": ("1", 1) for n in range(30)}, through="/029"))
    assert str(merged.refused).startswith("This needs at least 25 more data points; 0 of 5 of organisation")


async def test_a_full_organisation_takes_what_is_not_new(conn, organization, dataset):
    bucket = await fill(conn, dataset, 5)
    await quotas.set_limit(conn, organization, 3)
    await sync(conn, dataset, {path: bucket[path] for path in sorted(bucket)[1:]})
    assert ghosts(await index(conn, dataset.id)) == {"/f/0"}
    changed = bucket | {"/f/1": ("other", 7)}
    scan = await begin(conn, dataset)
    merged = await merge(conn, scan, listing(changed))
    assert (merged.refused, merged.changed, merged.returned) == (None, 1, 1)
    await finish(conn, scan)
    await put(conn, dataset, "/f/2")  # an overwrite
    assert await checked_standing(conn, organization) == Standing(3, rows=5, held=0)


async def test_what_was_deleted_here_needs_no_room_to_stay_deleted(conn, organization, dataset):
    bucket = await fill(conn, dataset, 5)
    item = await items.find_item_at(conn, dataset.id, "/f/0")
    await removals.delete_item(conn, item)
    await quotas.set_limit(conn, organization, 4)
    scan = await begin(conn, dataset)
    merged = await merge(conn, scan, listing(bucket))
    assert (merged.refused, merged.kept_deleted) == (None, 1)


async def test_a_place_is_taken_until_it_is_used_or_given_back(conn, organization, dataset):
    await fill(conn, dataset, 3)
    first, second = [await quotas.hold_place(conn, dataset.id) for _ in range(2)]
    assert await checked_standing(conn, organization) == Standing(5, rows=3, held=2)
    with pytest.raises(QuotaExceeded, match=r"This needs 1 more data point; 0 of 5 of"):
        await quotas.hold_place(conn, dataset.id)
    with pytest.raises(QuotaExceeded):
        await quotas.use_place(conn, dataset.id, None)
    await quotas.use_place(conn, dataset.id, first)
    await put(conn, dataset, "/new")
    assert await checked_standing(conn, organization) == Standing(5, rows=4, held=1)
    assert await quotas.release_place(conn, second)
    assert not await quotas.release_place(conn, second)
    await quotas.use_place(conn, dataset.id, second)  # gone, but there is room
    assert await checked_standing(conn, organization) == Standing(5, rows=4, held=0)


async def test_a_place_that_a_crash_left_is_given_to_who_needs_it(conn, organization, dataset):
    await fill(conn, dataset, 4)
    lost = await quotas.hold_place(conn, dataset.id)
    await conn.execute("UPDATE quota_hold SET expires_at = now() - interval '1 s' WHERE id = %s", [lost])
    taken = await quotas.hold_place(conn, dataset.id)
    assert taken is not None
    assert await checked_standing(conn, organization) == Standing(5, rows=4, held=1)
    with pytest.raises(QuotaExceeded):
        await quotas.use_place(conn, dataset.id, lost)


async def test_a_limit_is_set_and_lifted_and_deletes_nothing(conn, organization, dataset):
    await fill(conn, dataset, 4)
    assert await quotas.set_limit(conn, organization, 1) == 5
    quota = await quotas.load_quota(conn, organization)
    assert (quota.limit, quota.used, quota.left) == (1, 4, 0)
    with pytest.raises(QuotaExceeded, match="0 of 1 of"):
        await quotas.hold_place(conn, dataset.id)
    assert await quotas.set_limit(conn, organization, None) == 1
    assert await quotas.set_limit(conn, organization, 0) is None
    assert await quotas.set_limit(conn, organization, None) == 0
    await fill(conn, dataset, 9)
    assert await checked_standing(conn, organization) == Standing(None, rows=9, held=0)


@pytest.mark.parametrize(("taken", "limit", "percent"), [
    (0, 10, 0), (7, 10, 0), (8, 10, 80), (9, 10, 80), (94, 100, 80), (95, 100, 95), (99, 100, 95), (100, 100, 100),
    (150, 100, 100), (0, 0, 100), (1, 1, 100), (0, 1, 0), (10**18, None, 0), (4 * 10**17, 5 * 10**17, 80),
])  # fmt: skip
def test_thresholds(taken, limit, percent):
    assert quotas.reached_percent(taken, limit) == percent


names = st.sampled_from([f"/{name}" for name in ("a", "a/b", "ab", "b", "c", "d/e", "d/f", "é", "🦊", "z")])
contents = st.dictionaries(names, st.sampled_from([("1", 1), ("2", 2)]))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=contents, bucket=contents, room=st.integers(0, 6))
async def test_a_limited_batch_is_the_start_of_the_unlimited_one(conn, before, bucket, room):
    """However the two sides differ: as many new objects as there is room for, in the order of paths, and no other."""
    async with conn.transaction(force_rollback=True):
        organization = await make_organization(conn, None)
        dataset = await make_dataset(conn)
        await give_to(conn, organization, dataset)
        await sync(conn, dataset, before)
        await quotas.set_limit(conn, organization, len(before) + room)
        new = sorted(bucket.keys() - before.keys())
        scan = await begin(conn, dataset)
        merged = await merge(conn, scan, listing(bucket))
        found = {path: (etag, size) for path, (etag, size, _) in (await index(conn, dataset.id)).items()}
        edge = new[room] if len(new) > room else None
        assert (merged.refused is None) == (edge is None)
        assert (merged.created, found.keys() - before.keys()) == (len(new[:room]), set(new[:room]))
        for path in before:
            is_reached = path in bucket and (edge is None or path < edge)
            assert found[path] == (bucket[path] if is_reached else before[path])
        reached = [path for path in sorted(bucket) if edge is None or path < edge]
        proven = sorted(before) if edge is None else [path for path in before if reached and path <= reached[-1]]
        assert merged.gone == len([path for path in proven if path not in bucket])
        assert await checked_standing(conn, organization) == Standing(
            len(before) + room, rows=len(before) + min(room, len(new)), held=0
        )
        # The same command goes on, and ends complete.
        await scans.end_scan(conn, scan, "stopped")
        await quotas.set_limit(conn, organization, None)
        scan = await begin(conn, dataset)
        assert (await merge(conn, scan, listing(bucket))).refused is None
        assert (await index(conn, dataset.id)).keys() == before.keys() | bucket.keys()
