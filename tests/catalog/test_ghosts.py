"""Ghosts by policy, in and out of the trash, and moves that are followed; counters are held to the rows after each."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from headwater.catalog import datasets, finding, folders, items, removals
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Written
from headwater.catalog.sync import ghosts, listings, scans, verdicts
from headwater.catalog.sync.ghosts import Choice
from headwater.catalog.sync.rules import SyncRules
from headwater.wire.query import parse_items_query
from tests import servers
from tests.catalog import test_scans
from tests.catalog.test_scans import begin, listing
from tests.work.world import events_of, index, make_dataset, make_project, recount

FLAG = SyncRules()
TRASH = SyncRules(ghosts="trash")
FOLLOW = SyncRules(follow_moves=True)


@pytest.fixture
async def dataset(conn: AsyncConnection) -> Dataset:
    return await make_dataset(conn, kind="s3", root="bucket", keys=servers.Keys("key", "secret"))


async def sync(
    conn: AsyncConnection,
    dataset: Dataset,
    objects: dict[str, tuple[str, int]],
    rules: SyncRules = FLAG,
    **given,
) -> verdicts.Verdict:
    scan = await begin(conn, dataset, **given)
    await listings.merge_listing(conn, scan, 0, listing(objects), is_last=True)
    now = await scans.load_scan(conn, scan.id)
    assert now is not None
    verdict = await verdicts.judge_missing(conn, now, rules)
    await scans.end_scan(conn, now, "held" if verdict.held else "done", marked=verdict.marked)
    await recount(conn, dataset.id)
    return verdict


async def at(conn: AsyncConnection, dataset: Dataset, path: str) -> items.Item:
    item = await items.find_item_at(conn, dataset.id, path)
    assert item is not None
    return item


async def shown(conn: AsyncConnection, dataset: Dataset) -> list[str]:
    """What the SDK's default query finds, which the counters have to agree with."""
    asked = parse_items_query({"filter": {"$and": [{"hidden": False}, {"type": "file"}]}})
    found = await finding.find_page(conn, dataset.id, asked.files, asked.dirs, asked.page)
    assert (await datasets.load_dataset(conn, dataset.id)).shown_items == len(found.rows)
    return sorted(row.path for row in found.rows)


async def prepare(conn: AsyncConnection, dataset: Dataset, path: str) -> items.Item:
    """As if it had been read."""
    await test_scans.prepare(conn, dataset, path)
    return await at(conn, dataset, path)


A = {"/a": ("1", 1), "/f/b": ("2", 2), "/f/c": ("3", 3)}


async def test_a_flagged_ghost_is_shown_and_one_in_the_trash_is_not(conn, dataset):
    await sync(conn, dataset, A)
    await sync(conn, dataset, {"/a": A["/a"], "/f/c": A["/f/c"]})
    assert await shown(conn, dataset) == ["/a", "/f/b", "/f/c"]
    verdict = await sync(conn, dataset, {"/a": A["/a"]}, TRASH)
    assert verdict.marked == 1
    assert await shown(conn, dataset) == ["/a", "/f/b"]  # the policy counts for new ghosts
    assert (await at(conn, dataset, "/f/c")).trashed_at is not None
    assert [ghost.path for ghost in await ghosts.list_ghosts(conn, dataset.id, Choice(), limit=9)] == ["/f/b", "/f/c"]
    assert await ghosts.count_ghosts(conn, dataset.id, Choice(where="trash")) == 1


async def test_what_lies_in_the_trash_returns_as_it_was(conn, dataset):
    await sync(conn, dataset, A)
    before = await prepare(conn, dataset, "/f/b")
    await sync(conn, dataset, {"/a": A["/a"]}, TRASH)
    await sync(conn, dataset, A, TRASH)
    now = await at(conn, dataset, "/f/b")
    assert (now.missing_since, now.trashed_at) == (None, None)
    assert (now.id, now.thumbnail_type, now.etl_state) == (before.id, before.thumbnail_type, before.etl_state)
    assert await shown(conn, dataset) == sorted(A)


async def test_what_lies_in_the_trash_returns_with_new_bytes_or_by_an_upload(conn, dataset):
    await sync(conn, dataset, A)
    await prepare(conn, dataset, "/f/b")
    ids = {path: (await at(conn, dataset, path)).id for path in A}
    await sync(conn, dataset, {"/a": A["/a"]}, TRASH)
    await sync(conn, dataset, {"/a": A["/a"], "/f/b": ("new", 20)}, TRASH)
    owner, _ = await make_project(conn)
    written = Written("/f/c", None, 30, "newer", None, None)
    await items.put_item(conn, dataset.id, written, creator_id=owner.id)
    await recount(conn, dataset.id)
    assert {path: (await at(conn, dataset, path)).id for path in A} == ids
    assert await shown(conn, dataset) == sorted(A)
    assert await ghosts.count_ghosts(conn, dataset.id, Choice()) == 0


async def test_the_trash_is_neither_present_nor_gone_again(conn, dataset):
    await sync(conn, dataset, A)
    await sync(conn, dataset, {"/a": A["/a"]}, TRASH)
    assert (await begin(conn, dataset)).present == 1


async def test_deleting_what_lies_in_the_trash_is_counted(conn, dataset):
    await sync(conn, dataset, A)
    await sync(conn, dataset, {"/a": A["/a"]}, TRASH)
    await removals.delete_item(conn, await at(conn, dataset, "/f/b"))
    await recount(conn, dataset.id)
    assert await shown(conn, dataset) == ["/a"]


async def test_ghosts_are_moved_between_flag_and_trash(conn, dataset):
    await sync(conn, dataset, A)
    await sync(conn, dataset, {"/a": A["/a"]})
    found = await ghosts.list_ghosts(conn, dataset.id, Choice(), limit=9)
    assert await ghosts.set_trashed(conn, dataset.id, found, trashed=True) == 2
    assert await ghosts.set_trashed(conn, dataset.id, found, trashed=True) == 0
    await recount(conn, dataset.id)
    assert await shown(conn, dataset) == ["/a"]
    assert await ghosts.set_trashed(conn, dataset.id, found[:1], trashed=False) == 1
    await recount(conn, dataset.id)
    assert await shown(conn, dataset) == ["/a", "/f/b"]


async def test_what_is_forgotten_is_new_when_its_object_is_back_and_what_is_no_ghost_stays(conn, dataset):
    await sync(conn, dataset, A)
    await prepare(conn, dataset, "/f/b")
    await sync(conn, dataset, {"/a": A["/a"]}, TRASH)
    before = await at(conn, dataset, "/f/b")
    found = await ghosts.list_ghosts(conn, dataset.id, Choice(), limit=9)
    await sync(conn, dataset, {"/a": A["/a"], "/f/c": A["/f/c"]})  # one comes back meanwhile
    gone = await ghosts.forget(conn, dataset.id, found)
    assert [(one.path, one.thumbnail_type) for one in gone] == [("/f/b", before.thumbnail_type)]
    await recount(conn, dataset.id)
    assert sorted(await index(conn, dataset.id)) == ["/a", "/f/c"]
    await sync(conn, dataset, A)
    assert (await at(conn, dataset, "/f/b")).id > before.id


async def test_a_ghost_that_was_restored_meanwhile_is_not_forgotten_with_the_trash(conn, dataset):
    await sync(conn, dataset, A)
    await sync(conn, dataset, {"/a": A["/a"]}, TRASH)
    found = await ghosts.list_ghosts(conn, dataset.id, Choice(where="trash"), limit=9)
    await ghosts.set_trashed(conn, dataset.id, found[:1], trashed=False)
    assert [one.path for one in await ghosts.forget(conn, dataset.id, found)] == ["/f/c"]


async def test_a_flagged_ghost_that_is_back_is_not_forgotten(conn, dataset):
    await sync(conn, dataset, A)
    await sync(conn, dataset, {"/a": A["/a"]})
    found = await ghosts.list_ghosts(conn, dataset.id, Choice(), limit=9)
    await sync(conn, dataset, A)
    assert await ghosts.forget(conn, dataset.id, found) == []
    assert sorted(await index(conn, dataset.id)) == sorted(A)


async def test_only_what_lay_in_the_trash_for_long_is_expired(conn, dataset):
    await sync(conn, dataset, A)
    await sync(conn, dataset, {"/a": A["/a"]}, TRASH)
    assert dataset.id in await ghosts.datasets_with_trash(conn)
    assert await ghosts.list_expired(conn, dataset.id, limit=9) == []
    await conn.execute(
        "UPDATE item SET trashed_at = now() - interval '30 days 1 minute' WHERE dataset_id = %s AND path = '/f/b'",
        [dataset.id],
    )
    assert [ghost.path for ghost in await ghosts.list_expired(conn, dataset.id, limit=9)] == ["/f/b"]


@pytest.mark.parametrize(
    ("choice", "paths"),
    [
        (Choice(folder="/f"), ["/f/b", "/f/c", "/fg"]),
        (Choice(folder="/f/"), ["/f/b", "/f/c"]),
        (Choice(paths=["/f/", "/x"]), ["/f/b", "/f/c"]),
        (Choice(paths=["/f/b", "/fg", "/a"]), ["/f/b", "/fg"]),
        (Choice(paths=[], ids=[]), []),
        (Choice(since=datetime(2100, 1, 1, tzinfo=UTC)), []),
        (Choice(since=datetime(2000, 1, 1, tzinfo=UTC)), ["/f/b", "/f/c", "/fg"]),
        (Choice(where="trash"), []),
        (Choice(where="flagged", folder="/f/c"), ["/f/c"]),
    ],
)
async def test_ghosts_are_chosen(conn, dataset, choice, paths):
    await sync(conn, dataset, A | {"/fg": ("4", 4)})
    await sync(conn, dataset, {"/a": A["/a"]})
    assert [ghost.path for ghost in await ghosts.list_ghosts(conn, dataset.id, choice, limit=9)] == paths
    assert await ghosts.count_ghosts(conn, dataset.id, choice) == len(paths)
    if paths:
        after = await ghosts.list_ghosts(conn, dataset.id, choice, after=paths[0], limit=1)
        assert [ghost.path for ghost in after] == paths[1:2]


async def test_folders_of_the_trash_alone_are_not_in_the_tree(conn, dataset):
    await sync(conn, dataset, {"/a/x": ("1", 1), "/b/c/d/y": ("2", 2), "/b/z": ("3", 3), "/e/f/w": ("4", 4)})
    await sync(conn, dataset, {"/a/x": ("1", 1), "/b/z": ("3", 3)}, TRASH)
    assert [folder.path for folder in await folders.list_folders(conn, dataset.id)] == ["/", "/a", "/b"]
    await ghosts.set_trashed(
        conn, dataset.id, await ghosts.list_ghosts(conn, dataset.id, Choice(folder="/b/"), limit=9), trashed=False
    )
    tree = [folder.path for folder in await folders.list_folders(conn, dataset.id)]
    assert tree == ["/", "/a", "/b", "/b/c", "/b/c/d"]


# Moves.


async def annotate(conn: AsyncConnection, item: items.Item, **metadata) -> None:
    await conn.execute("UPDATE item SET user_metadata = %s WHERE id = %s", [Jsonb(metadata), item.id])


async def test_an_object_that_moved_is_the_same_item(conn, dataset):
    await sync(conn, dataset, {"/a.jpg": ("e", 5), "/b": ("f", 6)})
    before = await prepare(conn, dataset, "/a.jpg")
    await annotate(conn, before, camera=3)
    await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    verdict = await sync(conn, dataset, {"/new/c.jpg": ("e", 5), "/b": ("f", 6)}, FOLLOW)
    assert (verdict.marked, verdict.moved, verdict.left_over) == (0, 1, [])
    now = await at(conn, dataset, "/new/c.jpg")
    kept = ("id", "created_at", "user_metadata", "thumbnail_type", "etl_state", "mime_type", "width_px", "etag")
    before = before._replace(user_metadata={"camera": 3})
    assert [getattr(now, name) for name in kept] == [getattr(before, name) for name in kept]
    assert now.missing_since is None
    assert sorted(await index(conn, dataset.id)) == ["/b", "/new/c.jpg"]
    assert ("Updated", now.id) in await events_of(conn, dataset.id)
    assert (await sync(conn, dataset, {"/new/c.jpg": ("e", 5), "/b": ("f", 6)}, FOLLOW)).marked == 0


async def test_moves_are_followed_only_where_the_rule_says_so(conn, dataset):
    await sync(conn, dataset, {"/a": ("e", 5)})
    assert (await sync(conn, dataset, {"/c": ("e", 5)})).moved == 0
    assert sorted(await index(conn, dataset.id)) == ["/a", "/c"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"/a": ("e", 5), "/b": ("e", 5)}, {"/c": ("e", 5)}),  # two went
        ({"/a": ("e", 5)}, {"/c": ("e", 5), "/d": ("e", 5)}),  # two came
        ({"/a": ("e", 5)}, {"/c": ("e", 6)}),
        ({"/a": ("e", 5)}, {"/c": ("f", 5)}),
        ({"/a": ("e", 0)}, {"/c": ("e", 0)}),
        ({"/a": ("", 5)}, {"/c": ("", 5)}),
        ({"/a": ('W/"e', 5)}, {"/c": ('W/"e', 5)}),
        ({"/a": ("e", 5)}, {"/a": ("e", 5), "/c": ("e", 5)}),  # a copy
    ],
)
async def test_what_is_not_certain_is_no_move(conn, dataset, before, after):
    await sync(conn, dataset, before)
    assert (await sync(conn, dataset, after, FOLLOW)).moved == 0
    assert sorted(await index(conn, dataset.id)) == sorted(before | after)


async def test_etags_of_folders_are_no_proof(conn):
    local = await make_dataset(conn)
    await sync(conn, local, {"/a": ("e", 5)})
    assert (await sync(conn, local, {"/c": ("e", 5)}, FOLLOW)).moved == 0


async def test_a_new_item_that_somebody_has_described_stays(conn, dataset):
    await sync(conn, dataset, {"/a": ("e", 5), "/b": ("f", 5)})
    scan = await begin(conn, dataset)
    await listings.merge_listing(conn, scan, 0, listing({"/c": ("e", 5), "/d": ("f", 5)}), is_last=True)
    await annotate(conn, await at(conn, dataset, "/c"), mine=True)
    await conn.execute("UPDATE item SET description = 'mine' WHERE dataset_id = %s AND path = '/d'", [dataset.id])
    now = await scans.load_scan(conn, scan.id)
    verdict = await verdicts.judge_missing(conn, now, FOLLOW)
    assert (verdict.moved, verdict.marked) == (0, 2)


async def test_what_was_uploaded_is_an_item_of_its_own(conn, dataset):
    await sync(conn, dataset, {"/a": ("e", 5)})
    scan = await begin(conn, dataset)
    owner, _ = await make_project(conn)
    await items.put_item(conn, dataset.id, Written("/c", None, 5, "e", None, None), creator_id=owner.id)
    await listings.merge_listing(conn, scan, 0, listing({"/c": ("e", 5), "/d": ("f", 5)}), is_last=True)
    now = await scans.load_scan(conn, scan.id)
    assert now.created == 1
    verdict = await verdicts.judge_missing(conn, now, FOLLOW)
    assert (verdict.moved, verdict.marked) == (0, 1)


async def test_older_ghosts_and_the_brake_follow_nothing(conn, dataset):
    await sync(conn, dataset, {"/a": ("e", 5)})
    await sync(conn, dataset, {"/x": ("x", 5)})
    assert (await sync(conn, dataset, {"/x": ("x", 5), "/c": ("e", 5)}, FOLLOW)).moved == 0
    held = await sync(conn, dataset, {"/y": ("x", 5)}, replace(FOLLOW, brake_items=0, brake_share=0.0))
    assert (held.moved, held.held) == (0, 2)


@pytest.mark.parametrize("ended", ["held", "stopped"])
async def test_a_move_is_followed_though_its_new_item_came_with_a_scan_that_gave_no_verdict(conn, dataset, ended):
    await sync(conn, dataset, {"/old/a": ("e", 5), "/old/b": ("f", 5), "/stays": ("g", 5)})
    before = await at(conn, dataset, "/old/a")
    moved = {"/new/a": ("e", 5), "/new/b": ("f", 5), "/short/lived": ("h", 5), "/stays": ("g", 5)}
    careful = replace(FOLLOW, brake_items=0, brake_share=0.0)
    if ended == "held":
        for _ in range(2):
            assert (await sync(conn, dataset, moved, careful)).held == 2
    else:
        scan = await begin(conn, dataset)
        await listings.merge_listing(conn, scan, 0, listing(moved, through="/stays"), is_last=False)
        await scans.end_scan(conn, scan, "stopped")
    del moved["/new/b"], moved["/short/lived"]  # new and gone at once: neither of them moved
    verdict = await sync(conn, dataset, moved, careful, confirm=True)
    assert (verdict.moved, verdict.marked, verdict.held) == (1, 3, 0)
    assert (await at(conn, dataset, "/new/a")).id == before.id
    found = {path: is_missing for path, (_, _, is_missing) in (await index(conn, dataset.id)).items()}
    assert found == {"/new/a": False, "/old/b": True, "/new/b": True, "/short/lived": True, "/stays": False}


async def test_a_new_item_that_was_read_leaves_its_thumbnail_to_be_removed(conn, dataset):
    await sync(conn, dataset, {"/a": ("e", 5)})
    scan = await begin(conn, dataset)
    await listings.merge_listing(conn, scan, 0, listing({"/c": ("e", 5)}), is_last=True)
    new = await prepare(conn, dataset, "/c")
    verdict = await verdicts.judge_missing(conn, await scans.load_scan(conn, scan.id), FOLLOW)
    assert [(gone.id, gone.thumbnail_type) for gone in verdict.left_over] == [(new.id, new.thumbnail_type)]
    await recount(conn, dataset.id)


async def test_many_moves_are_followed_in_pieces(conn, dataset, monkeypatch):
    monkeypatch.setattr("headwater.catalog.sync.moves._PIECE_ITEMS", 7)
    before = {f"/old/{n}": (f"e{n}", 5) for n in range(40)}
    await sync(conn, dataset, before)
    ids = {etag: (await at(conn, dataset, path)).id for path, (etag, _) in before.items()}
    moved = {f"/new/{n}": (f"e{n}", 5) for n in range(38)}
    verdict = await sync(conn, dataset, moved, FOLLOW)
    assert (verdict.moved, verdict.marked) == (38, 2)
    assert {etag: (await at(conn, dataset, path)).id for path, (etag, _) in moved.items()} == dict(
        list(ids.items())[:38]
    )
