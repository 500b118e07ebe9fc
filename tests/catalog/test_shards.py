"""Shards, one rule at a time: claims, cuts, seams."""

import pytest
from psycopg import AsyncConnection

from headwater.catalog import commands
from headwater.catalog.sync import listings, scans, shards
from headwater.catalog.sync.listed import Listed
from headwater.catalog.sync.scans import Scan
from headwater.catalog.sync.shards import Superseded
from tests.work.world import make_dataset

MODIFIED = "2024-05-01T10:00:00+00:00"


async def begin(conn: AsyncConnection, *bounds: str) -> Scan:
    dataset = await make_dataset(conn)
    command_id = await commands.start_command(
        conn, project_id=dataset.project_id, dataset_id=dataset.id, kind="SyncDataset", spec={}, creator_id=None
    )
    scan_id = await scans.start_scan(
        conn, dataset_id=dataset.id, command_id=command_id, confirm_missing=False, bounds=bounds
    )
    return await scans.load_scan(conn, scan_id)


def listed(*keys: str, after: str | None = None) -> Listed:
    return Listed(
        paths=["/" + key for key in keys],
        sizes=[1] * len(keys),
        etags=["e"] * len(keys),
        modified=[MODIFIED] * len(keys),
        after=after,
        through="/" + keys[-1],
        key_pages=[list(keys)],
    )


async def ranges(conn: AsyncConnection, scan: Scan) -> list[tuple[str | None, str | None, bool]]:
    cursor = await conn.execute(
        "SELECT after_path, until_path, done FROM scan_shard WHERE scan_id = %s ORDER BY after_path NULLS FIRST",
        [scan.id],
    )
    return await cursor.fetchall()


async def test_a_shard_is_claimed_by_one_lane_and_again_by_the_same(conn):
    scan = await begin(conn, "/m")
    first = await shards.claim_shard(conn, scan.id, lane=0)
    second = await shards.claim_shard(conn, scan.id, lane=1)
    assert (first.until_path, second.after_path) == ("/m", "/m")
    assert await shards.claim_shard(conn, scan.id, lane=2) is None
    again = await shards.claim_shard(conn, scan.id, lane=0)
    assert (again.number, again.claim) == (first.number, first.claim + 1)
    with pytest.raises(Superseded):
        await shards.hold_shard(conn, scan.id, first)
    assert await shards.hold_shard(conn, scan.id, again) == again


async def test_only_what_is_left_of_a_shard_is_cut(conn):
    scan = await begin(conn)
    shard = await shards.claim_shard(conn, scan.id, lane=0)
    await listings.merge_listing(conn, scan, shard.number, listed("a", "k"), is_last=False)
    assert await shards.split_shard(conn, scan.id, shard.number, ["/c", "/k"]) == 0
    assert await shards.split_shard(conn, scan.id, shard.number, ["/t", "/c", "/m"]) == 2
    assert await ranges(conn, scan) == [(None, "/m", False), ("/m", "/t", False), ("/t", None, False)]
    assert await shards.split_shard(conn, scan.id, shard.number, ["/m", "/z"]) == 0
    await listings.merge_listing(conn, scan, shard.number, listed("l", after="/k"), is_last=True)
    assert await shards.split_shard(conn, scan.id, shard.number, ["/lz"]) == 0


async def test_a_scan_that_has_ended_is_neither_cut_nor_claimed_nor_counted(conn):
    scan = await begin(conn)
    shard = await shards.claim_shard(conn, scan.id, lane=0)
    await scans.end_scan(conn, scan, "stopped")
    assert await shards.split_shard(conn, scan.id, shard.number, ["/m"]) == 0
    assert await shards.claim_shard(conn, scan.id, lane=1) is None
    with pytest.raises(Superseded):
        await shards.hold_shard(conn, scan.id, shard)
    with pytest.raises(Superseded):
        await listings.merge_listing(conn, scan, shard.number, listed("a"), is_last=True)


def test_a_batch_is_cut_at_the_end_of_its_shard_and_tells_what_lies_behind():
    batch = listed("a", "c", "e", "g")
    batch.key_pages = [["a", "c", "d/"], ["e", "g"]]  # a folder marker is listed, too
    cut = batch.until("/c")
    assert (cut.paths, cut.through, cut.beyond, cut.first_seen) == (["/a", "/c"], "/c", "/d/", "/a")
    assert (batch.until("/f").paths, batch.until("/f").beyond) == (["/a", "/c", "/e"], "/g")
    assert (batch.until("/z").paths, batch.until("/z").beyond) == (batch.paths, None)
    assert (batch.until("/A").paths, batch.until("/A").beyond) == ([], "/a")


async def done(conn: AsyncConnection, scan: Scan, lane: int, *keys: str) -> None:
    shard = await shards.claim_shard(conn, scan.id, lane)
    batch = listed(*keys, after=shard.after_path)
    if shard.until_path is not None:
        batch = batch.until(shard.until_path)
    await listings.merge_listing(conn, scan, shard.number, batch, is_last=True)


@pytest.mark.parametrize(
    ("third", "torn", "left"),
    [
        (["p", "q"], 0, [(None, "/f", True), ("/f", "/m", True), ("/m", None, True)]),
        (["q"], 1, [(None, "/f", True), ("/f", None, False)]),  # the store began behind what the second one saw last
        (["n", "p"], 1, [(None, "/f", True), ("/f", None, False)]),
    ],
)
async def test_shards_whose_seam_is_torn_are_joined_and_listed_anew(conn, third, torn, left):
    scan = await begin(conn, "/f", "/m")
    await done(conn, scan, 0, "a", "f", "g")
    await done(conn, scan, 1, "g", "m", "p")
    await done(conn, scan, 2, *third)
    assert await shards.are_all_done(conn, scan.id)
    assert await shards.join_torn_seams(conn, scan.id) == torn
    assert await ranges(conn, scan) == left
    now = await scans.load_scan(conn, scan.id)
    assert now.listed == (2 if torn else 6 if len(third) == 2 else 5)
    assert now.shown >= 5


async def test_seams_torn_in_a_row_make_one_shard(conn):
    scan = await begin(conn, "/f", "/m")
    await done(conn, scan, 0, "a", "f", "h")
    await done(conn, scan, 1, "g", "m", "p")
    await done(conn, scan, 2, "q")
    assert await shards.join_torn_seams(conn, scan.id) == 2
    assert await ranges(conn, scan) == [(None, None, False)]
    assert (await scans.load_scan(conn, scan.id)).listed == 0


async def test_short_ranges_of_the_last_scan_are_put_together(conn, monkeypatch):
    monkeypatch.setattr(shards, "LEAST_PIECE", 3)
    scan = await begin(conn, "/c", "/f", "/m")
    await done(conn, scan, 0, "a", "b", "c", "d")
    await done(conn, scan, 1, "d", "e", "g")
    await done(conn, scan, 2, "g", "h", "m", "p")
    await done(conn, scan, 3, "p")
    assert await shards.last_bounds(conn, scan.dataset_id) == []
    await scans.end_scan(conn, scan, "done")
    assert await shards.last_bounds(conn, scan.dataset_id) == ["/c", "/m"]


async def test_only_the_ranges_of_the_last_whole_scan_are_kept(conn):
    first = await begin(conn, "/c")
    await scans.end_scan(conn, first, "done")
    kept = []
    for state in ("stopped", "done", "stopped", "held"):
        scan_id = await scans.start_scan(
            conn, dataset_id=first.dataset_id, command_id=first.command_id, confirm_missing=False
        )
        cursor = await conn.execute("SELECT array_agg(scan_id ORDER BY scan_id) FROM scan_shard WHERE number = 0")
        kept.append([scan_id - found for found in (await cursor.fetchone())[0]])
        await scans.end_scan(conn, await scans.load_scan(conn, scan_id), state)
    assert kept == [[1, 0], [2, 0], [1, 0], [2, 0]]


async def test_a_claim_of_a_shard_that_was_joined_is_none_of_the_next_with_its_number(conn):
    scan = await begin(conn, "/m")
    await done(conn, scan, 0, "a", "m", "n")
    late = await shards.claim_shard(conn, scan.id, lane=1)
    await done(conn, scan, 1, "o")
    assert await shards.join_torn_seams(conn, scan.id) == 1
    joined = await shards.claim_shard(conn, scan.id, lane=0)
    assert await shards.split_shard(conn, scan.id, joined.number, ["/m"]) == 1
    again = await shards.claim_shard(conn, scan.id, lane=2)
    assert (again.number, again.after_path) == (late.number, "/m")
    with pytest.raises(Superseded):
        await shards.hold_shard(conn, scan.id, late)


def test_what_was_skipped_behind_the_end_of_a_range_is_counted_by_the_next():
    batch = listed("a", "c", "e", "g")
    batch.skipped, batch.skipped_examples = 2, [("b", "why"), ("f", "why")]
    for cut in (batch.until("/d"), batch.first_objects(2)):
        assert (cut.skipped, cut.skipped_examples) == (1, [("b", "why")])
    assert batch.until("/f").skipped == 2
