"""The rules of a merge, one sentence each."""

import itertools

import pytest
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from headwater.catalog import commands, datasets, events, folders, items, preparing, removals
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Written
from headwater.catalog.preparing import PreparedItem
from headwater.catalog.sync import arrivals, candidates, listings, scans, shards, stages, verdicts
from headwater.catalog.sync.listed import Listed
from headwater.catalog.sync.listings import Merged
from headwater.catalog.sync.rules import SyncRules
from headwater.catalog.sync.scans import Scan
from tests.work.world import events_of, ghosts, index, make_dataset, make_project, present, recount, rows_written

MODIFIED = "2024-05-01T10:00:00+00:00"
ODD = [
    "/a//b",
    "//lead",
    "///",
    "/trail/",
    "/%",
    "/+ &",
    "/🦊/ö",
    "/a\x1fb",
    "/\x1f",
    "/A",
    "/a",
    "/a/",
    "/a/b",
    "/..",
    "/NULL",
]


@pytest.fixture
async def dataset(conn: AsyncConnection) -> Dataset:
    return await make_dataset(conn)


async def begin(conn: AsyncConnection, dataset: Dataset, *, confirm: bool = False) -> Scan:
    command_id = await commands.start_command(
        conn, project_id=dataset.project_id, dataset_id=dataset.id, kind="SyncDataset", spec={}, creator_id=None
    )
    scan_id = await scans.start_scan(conn, dataset_id=dataset.id, command_id=command_id, confirm_missing=confirm)
    scan = await scans.load_scan(conn, scan_id)
    assert scan is not None
    return scan


def listing(objects: dict[str, tuple[str, int]], after: str | None = None, through: str | None = None) -> Listed:
    paths = sorted(objects)
    return Listed(
        paths=paths,
        sizes=[objects[path][1] for path in paths],
        etags=[objects[path][0] for path in paths],
        modified=[MODIFIED] * len(paths),
        after=after,
        through=through,
    )


async def merge(conn: AsyncConnection, scan: Scan, listed: Listed) -> Merged:
    return await listings.merge_listing(conn, scan, 0, listed, is_last=listed.through is None)


async def sync(
    conn: AsyncConnection, dataset: Dataset, objects: dict[str, tuple[str, int]], **given
) -> verdicts.Verdict:
    """One whole scan with one batch."""
    scan = await begin(conn, dataset, **given)
    await merge(conn, scan, listing(objects))
    return await finish(conn, scan)


async def finish(conn: AsyncConnection, scan: Scan) -> verdicts.Verdict:
    now = await scans.load_scan(conn, scan.id)
    assert now is not None
    verdict = await verdicts.judge_missing(conn, now, SyncRules())
    await scans.end_scan(conn, now, "held" if verdict.held else "done", marked=verdict.marked)
    await recount(conn, scan.dataset_id)
    return verdict


async def prepare(conn: AsyncConnection, dataset: Dataset, path: str, state: int = items.ETL_DONE) -> items.Item:
    """As if its thumbnail and facts had been made."""
    item = await items.find_item_at(conn, dataset.id, path)
    assert item is not None
    facts = PreparedItem(
        item_id=item.id, etag=item.etag, etl_state=state, etl={"state": "x"}, mime_type="image/png",
        width_px=4, height_px=3, channels=3, exif={"Make": "Acme"}, thumbnail_type="image/jpeg",
    )  # fmt: skip
    assert await preparing.save_prepared(conn, dataset.id, [facts]) == 1
    return item


async def test_a_new_object_becomes_an_item_and_a_created_event(conn, dataset):
    scan = await begin(conn, dataset)
    merged = await merge(conn, scan, listing({"/x/a.jpg": ("1", 10), "/b": ("2", 20)}))
    assert merged == Merged(created=2)
    item = await items.find_item_at(conn, dataset.id, "/x/a.jpg")
    assert (item.etag, item.size_bytes, item.mime_type, item.etl_state) == ("1", 10, "image/jpeg", 0)
    assert item.modified_at.isoformat() == MODIFIED
    told = await events_of(conn, dataset.id)
    assert set(told.values()) == {1}
    assert {action for action, _ in told} == {"Created"}
    assert len(told) == 2
    assert (await scans.load_scan(conn, scan.id)).created == 2
    await recount(conn, dataset.id)


@pytest.mark.parametrize("now", [("2", 10), ("1", 11)], ids=["etag", "size"])
@pytest.mark.parametrize("state", [items.ETL_DONE, items.ETL_FAILED])
async def test_a_changed_object_forgets_what_was_derived_and_keeps_what_people_wrote(conn, dataset, now, state):
    await sync(conn, dataset, {"/a": ("1", 10), "/b": ("1", 5)})
    item = await prepare(conn, dataset, "/a", state)
    await conn.execute(
        """
        UPDATE item
        SET user_metadata = '{"kept": 1}', system_metadata = system_metadata || '{"ours": 2}', description = 'fox'
        WHERE dataset_id = %s AND id = %s
        """,
        [dataset.id, item.id],
    )
    await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    scan = await begin(conn, dataset)
    assert await merge(conn, scan, listing({"/a": now, "/b": ("1", 5)})) == Merged(changed=1)
    item = await items.find_item_at(conn, dataset.id, "/a")
    assert (item.etag, item.size_bytes) == now
    assert (item.etl_state, item.thumbnail_type, item.width_px, item.height_px) == (0, None, None, None)
    assert item.mime_type == "application/octet-stream"
    assert (item.user_metadata, item.system_metadata, item.description) == ({"kept": 1}, {"ours": 2}, "fox")
    assert dict(await events_of(conn, dataset.id)) == {("Updated", item.id): 1}
    await recount(conn, dataset.id)


async def test_what_is_the_same_is_not_written(conn, dataset):
    bucket = {f"/f{n % 7}/{n}": (str(n), n) for n in range(300)}
    await sync(conn, dataset, bucket)
    before = await rows_written(conn, dataset.id)
    scan = await begin(conn, dataset)
    assert await merge(conn, scan, listing(bucket)) == Merged()
    assert await finish(conn, scan) == verdicts.Verdict(marked=0, held=0)
    assert await rows_written(conn, dataset.id) == before
    assert (await scans.load_scan(conn, scan.id)).unchanged == 300


async def test_a_ghost_that_is_back_is_as_it_was(conn, dataset):
    await sync(conn, dataset, {"/a": ("1", 10), "/b": ("1", 5)})
    item = await prepare(conn, dataset, "/a")
    assert await sync(conn, dataset, {"/b": ("1", 5)}) == verdicts.Verdict(marked=1, held=0)
    assert ghosts(await index(conn, dataset.id)) == {"/a"}
    await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    scan = await begin(conn, dataset)
    assert await merge(conn, scan, listing({"/a": ("1", 10), "/b": ("1", 5)})) == Merged(returned=1)
    back = await items.find_item_at(conn, dataset.id, "/a")
    assert (back.id, back.etl_state, back.thumbnail_type, back.missing_since) == (
        item.id,
        items.ETL_DONE,
        "image/jpeg",
        None,
    )
    assert await events_of(conn, dataset.id) == {}
    await recount(conn, dataset.id)


async def test_a_ghost_that_is_back_with_other_bytes_is_a_changed_item(conn, dataset):
    await sync(conn, dataset, {"/a": ("1", 10), "/b": ("1", 5)})
    await prepare(conn, dataset, "/a")
    await sync(conn, dataset, {"/b": ("1", 5)})
    scan = await begin(conn, dataset)
    assert await merge(conn, scan, listing({"/a": ("2", 10), "/b": ("1", 5)})) == Merged(changed=1)
    assert present(await index(conn, dataset.id)) == {"/a", "/b"}
    await recount(conn, dataset.id)


@pytest.mark.parametrize("others", [{}, {"/b": ("", 5)}], ids=["alone", "with others"])
async def test_a_ghost_of_a_store_without_etags_comes_back(conn, dataset, others):
    await sync(conn, dataset, {"/a": ("", 10)} | others)
    await sync(conn, dataset, others, confirm=True)
    assert ghosts(await index(conn, dataset.id)) == {"/a"}
    scan = await begin(conn, dataset)
    assert await merge(conn, scan, listing({"/a": ("", 10)} | others)) == Merged(returned=1)


async def test_an_etag_that_is_no_longer_told_is_a_change(conn, dataset):
    await sync(conn, dataset, {"/a": ("1", 10)})
    scan = await begin(conn, dataset)
    assert await merge(conn, scan, listing({"/a": ("", 10)})) == Merged(changed=1)


async def test_what_was_deleted_here_stays_deleted_while_its_object_is_there(conn, dataset):
    bucket = {"/a": ("1", 10), "/b": ("1", 5)}
    await sync(conn, dataset, bucket)
    await removals.delete_item(conn, await items.find_item_at(conn, dataset.id, "/a"))
    for etag in ("1", "2"):  # whatever is written to it
        scan = await begin(conn, dataset)
        assert await merge(conn, scan, listing(bucket | {"/a": (etag, 10)})) == Merged(kept_deleted=1)
        await finish(conn, scan)
        assert set(await index(conn, dataset.id)) == {"/b"}


async def test_a_scan_that_began_before_an_object_was_deleted_does_not_bring_it_back(conn, dataset):
    bucket = {"/a": ("1", 10), "/b": ("1", 5)}
    await sync(conn, dataset, bucket)
    scan = await begin(conn, dataset)
    await removals.delete_item(conn, await items.find_item_at(conn, dataset.id, "/a"))
    await removals.note_object_deleted(conn, dataset.id, "/a")
    assert await merge(conn, scan, listing(bucket)) == Merged(kept_deleted=1)  # its page was read before
    await finish(conn, scan)
    # A later scan may trust what it sees: this object is another one.
    scan = await begin(conn, dataset)
    assert await merge(conn, scan, listing(bucket)) == Merged(created=1)
    await finish(conn, scan)
    cursor = await conn.execute("SELECT path FROM tombstone WHERE dataset_id = %s", [dataset.id])
    assert await cursor.fetchall() == []


async def test_a_scan_that_was_stopped_keeps_the_tombstones(conn, dataset):
    await sync(conn, dataset, {"/a": ("1", 10)})
    await removals.delete_item(conn, await items.find_item_at(conn, dataset.id, "/a"))
    await removals.note_object_deleted(conn, dataset.id, "/a")
    await scans.end_scan(conn, await begin(conn, dataset), "stopped")
    cursor = await conn.execute("SELECT path FROM tombstone WHERE dataset_id = %s", [dataset.id])
    assert await cursor.fetchall() == [("/a",)]


async def test_only_the_range_of_a_batch_says_what_is_gone(conn, dataset):
    await sync(conn, dataset, dict.fromkeys(["/a", "/b", "/c", "/d", "/e", "/f"], ("1", 1)))
    scan = await begin(conn, dataset)
    merged = [
        await merge(conn, scan, listing({"/b": ("1", 1)}, after="/a", through="/c")),
        await merge(conn, scan, listing({}, after="/c", through="/d")),
        await merge(conn, scan, listing({"/e": ("1", 1)}, after="/d")),
    ]
    assert [batch.gone for batch in merged] == [1, 1, 1]  # c; d; f
    assert await finish(conn, scan) == verdicts.Verdict(marked=3, held=0)
    assert ghosts(await index(conn, dataset.id)) == {"/c", "/d", "/f"}


async def test_hidden_items_of_ours_are_never_gone(conn, dataset):
    owner, _ = await make_project(conn)
    for path in ("/.dataloop/notes.txt", "/.dataloop", "/.dataloopx/y", "/z"):
        await items.put_item(conn, dataset.id, Written(path, None, 3, "1", None, None), creator_id=owner.id)
    scan = await begin(conn, dataset, confirm=True)
    assert scan.present == 3
    assert (await merge(conn, scan, listing({"/z": ("1", 3)}))).gone == 2
    await finish(conn, scan)
    assert present(await index(conn, dataset.id)) == {"/.dataloop/notes.txt", "/z"}


async def test_rows_younger_than_the_scan_are_left_alone(conn, dataset):
    owner, _ = await make_project(conn)
    await sync(conn, dataset, {"/a": ("1", 10), "/b": ("1", 5)})
    scan = await begin(conn, dataset)
    for path in ("/a", "/new"):
        await items.put_item(conn, dataset.id, Written(path, None, 7, "mine", None, None), creator_id=owner.id)
    assert await merge(conn, scan, listing({"/a": ("1", 10), "/b": ("1", 5)})) == Merged()
    assert await finish(conn, scan) == verdicts.Verdict(marked=0, held=0)
    assert await index(conn, dataset.id) == {
        "/a": ("mine", 7, False), "/b": ("1", 5, False), "/new": ("mine", 7, False),
    }  # fmt: skip


async def test_a_candidate_written_before_the_verdict_is_no_ghost(conn, dataset):
    owner, _ = await make_project(conn)
    await sync(conn, dataset, {"/a": ("1", 10), "/b": ("1", 5)})
    scan = await begin(conn, dataset)
    assert (await merge(conn, scan, listing({"/b": ("1", 5)}))).gone == 1
    await items.put_item(conn, dataset.id, Written("/a", None, 7, "mine", None, None), creator_id=owner.id)
    assert await finish(conn, scan) == verdicts.Verdict(marked=0, held=0)


async def test_keys_are_exact_however_odd(conn, dataset):
    bucket = {path: (str(number), number) for number, path in enumerate(ODD)}
    await sync(conn, dataset, bucket)
    assert await index(conn, dataset.id) == {path: (*facts, False) for path, facts in bucket.items()}
    before = await rows_written(conn, dataset.id)
    await sync(conn, dataset, bucket)
    assert await rows_written(conn, dataset.id) == before
    # Each of them is missed alone, and comes back.
    for path in ODD:
        await sync(conn, dataset, {key: facts for key, facts in bucket.items() if key != path})
        assert ghosts(await index(conn, dataset.id)) == {path}
    await sync(conn, dataset, bucket)
    assert ghosts(await index(conn, dataset.id)) == set()


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_odd_keys_in_every_cut_into_batches(conn, dataset, size):
    bucket = {path: (str(number), number) for number, path in enumerate(ODD)}
    await sync(conn, dataset, bucket)
    kept = dict(itertools.islice(sorted(bucket.items()), 0, None, 2))
    scan, after = await begin(conn, dataset), None
    paths = sorted(kept)
    for start in range(0, len(paths), size):
        part = paths[start : start + size]
        is_last = start + size >= len(paths)
        await merge(conn, scan, listing({path: kept[path] for path in part}, after, None if is_last else part[-1]))
        after = part[-1]
    await finish(conn, scan)
    assert present(await index(conn, dataset.id)) == set(kept)
    assert ghosts(await index(conn, dataset.id)) == bucket.keys() - kept.keys()


async def test_events_hold_at_most_a_thousand_ids_and_each_once(conn, dataset):
    bucket = {f"/{number:04}": ("1", 1) for number in range(2_001)}
    await sync(conn, dataset, bucket)
    cursor = await conn.execute(
        "SELECT cardinality(item_ids) FROM event WHERE dataset_id = %s ORDER BY id", [dataset.id]
    )
    assert sorted(size for (size,) in await cursor.fetchall()) == [1, 1_000, 1_000]
    assert set((await events_of(conn, dataset.id)).values()) == {1}
    await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    await sync(conn, dataset, dict.fromkeys(bucket, ("2", 2)))
    cursor = await conn.execute("SELECT cardinality(item_ids) FROM event WHERE dataset_id = %s", [dataset.id])
    assert sorted(size for (size,) in await cursor.fetchall()) == [1, 1_000, 1_000]
    assert set((await events_of(conn, dataset.id)).values()) == {1}
    assert len(await events_of(conn, dataset.id)) == 2_001


async def test_an_upload_that_was_quicker_keeps_its_row(conn, dataset):
    """The merge saw no row; when it inserts, there is one."""
    owner, _ = await make_project(conn)
    scan = await begin(conn, dataset)
    listed = listing({"/a": ("1", 10), "/b": ("1", 5)})
    difference = await listings._differences(conn, scan, listed)
    await items.put_item(conn, dataset.id, Written("/a", None, 7, "mine", None, None), creator_id=owner.id)
    change = datasets.CounterChange()
    await arrivals.add_items(conn, scan, listed, difference.new, change)
    assert change == datasets.CounterChange(items=1, bytes=5)
    assert (await items.find_item_at(conn, dataset.id, "/a")).etag == "mine"


async def test_an_upload_between_the_comparison_and_the_change_wins(conn, dataset):
    owner, _ = await make_project(conn)
    await sync(conn, dataset, {"/a": ("1", 10), "/b": ("1", 5)})
    await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    scan = await begin(conn, dataset)
    listed = listing({"/a": ("2", 11), "/b": ("2", 6)})
    difference = await listings._differences(conn, scan, listed)
    mine, _ = await items.put_item(conn, dataset.id, Written("/a", None, 7, "mine", None, None), creator_id=owner.id)
    change = datasets.CounterChange()
    await arrivals.refresh_items(conn, scan, listed, difference.changed, change)
    assert (await items.find_item_at(conn, dataset.id, "/a")).etag == "mine"
    assert change.bytes == 1
    assert (await events_of(conn, dataset.id))["Updated", mine.id] == 1  # the upload's own


async def test_one_scan_at_a_time(conn, dataset):
    scan = await begin(conn, dataset)
    assert await scans.running_command(conn, dataset.id) == scan.command_id
    with pytest.raises(UniqueViolation, match="scan_one_at_a_time"):
        async with conn.transaction():
            await begin(conn, dataset)
    await scans.end_scan(conn, scan, "stopped")
    assert await scans.running_command(conn, dataset.id) is None
    await begin(conn, dataset)


@pytest.mark.parametrize(("total", "gone", "held"), [
    (3, 2, 0), (3, 3, 3), (150, 100, 0), (150, 101, 101), (1_500, 150, 0), (1_500, 151, 151),
])  # fmt: skip
async def test_the_brake(conn, dataset, total, gone, held):
    bucket = {f"/{number:04}": ("1", 1) for number in range(total)}
    await sync(conn, dataset, bucket)
    left = dict(itertools.islice(bucket.items(), gone, None))
    verdict = await sync(conn, dataset, left)
    assert verdict == verdicts.Verdict(marked=0 if held else gone, held=held)
    assert len(ghosts(await index(conn, dataset.id))) == verdict.marked
    if held:
        assert await sync(conn, dataset, left, confirm=True) == verdicts.Verdict(marked=gone, held=0)
        assert len(ghosts(await index(conn, dataset.id))) == gone


async def test_no_more_candidates_are_kept_than_the_brake_lets_go(conn, dataset):
    await sync(conn, dataset, {f"/{number:04}": ("1", 1) for number in range(150)})
    scan = await begin(conn, dataset)
    await merge(conn, scan, listing({}, through="/0080"))
    await merge(conn, scan, listing({}, after="/0080"))
    cursor = await conn.execute("SELECT count(*) FROM scan_candidate WHERE scan_id = %s", [scan.id])
    assert await cursor.fetchone() == (100,)
    assert (await scans.load_scan(conn, scan.id)).gone == 150


async def test_beginning_anew_staged_forgets_what_seemed_gone(conn, dataset):
    await sync(conn, dataset, {"/a": ("1", 1), "/b": ("1", 1), "/c": ("1", 1)})
    await removals.delete_item(conn, await items.find_item_at(conn, dataset.id, "/c"))
    scan = await begin(conn, dataset)
    await merge(conn, scan, listing({"/c": ("1", 1)}, through="/c"))
    await shards.stage_scan(conn, scan.id, await shards.claim_shard(conn, scan.id, lane=0))
    now = await scans.load_scan(conn, scan.id)
    assert (now.listed, now.gone, now.skipped, now.kept_deleted) == (0, 0, 0, 0)
    await stages.stage(conn, scan, listing({"/b": ("1", 1)}))
    await stages.stage(conn, scan, listing({"/a": ("1", 1), "/b": ("1", 1)}))  # the same key twice
    read = await stages.read_stage(conn, scan, after=None, limit=2)
    assert (read.paths, read.through) == (["/a", "/b"], "/b")
    await merge(conn, scan, read)
    assert await merge(conn, scan, await stages.read_stage(conn, scan, after="/b", limit=2)) == Merged()
    assert await finish(conn, scan) == verdicts.Verdict(marked=0, held=0)


@pytest.mark.parametrize(("path", "lineage"), [
    ("/a", ["/"]),
    ("/a/b", ["/a", "/"]),
    ("/a//b", ["/a/", "/a", "/"]),
    ("//b", ["//", "/"]),
    ("///b", ["///", "//", "/"]),
    ("//a/b", ["//a", "//", "/"]),
    ("/trail/", ["/trail", "/"]),
    ("/", ["/"]),
])  # fmt: skip
def test_the_folders_of_a_path(path, lineage):
    found, current = [], folders.folder_of(path)
    while current is not None:
        found.append(current)
        current = folders.parent_of(current)
    assert found == lineage


async def test_events_are_taken_once_and_come_back_after_a_rollback(conn, dataset):
    await events.record_items(conn, dataset.id, "Created", list(range(1, 2_502)))
    async with conn.transaction(force_rollback=True):
        taken = await events.take_events(conn, limit=1_000)
        assert await events.take_events(conn, limit=1_000) == []
    mine = [event for event in taken if event.dataset_id == dataset.id]
    assert [len(event.item_ids) for event in mine] == [1_000, 1_000, 501]
    assert [item_id for event in mine for item_id in event.item_ids] == list(range(1, 2_502))
    assert await events.take_events(conn, limit=1_000) == taken


async def test_what_was_written_since_a_scan_began_is_not_asked_for(conn, dataset):
    """It is there, and would say that the listing left it out, which has the whole bucket listed again."""
    await sync(conn, dataset, {"/a": ("1", 1), "/b": ("1", 1), "/c": ("1", 1)})
    scan = await begin(conn, dataset)
    await merge(conn, scan, listing({"/a": ("1", 1)}))
    assert set((await candidates.sample_candidates(conn, scan, limit=9)).values()) == {"/b", "/c"}
    await conn.execute(
        "UPDATE item SET changed_at = clock_timestamp() WHERE dataset_id = %s AND path = '/b'", [dataset.id]
    )
    assert set((await candidates.sample_candidates(conn, scan, limit=9)).values()) == {"/c"}
