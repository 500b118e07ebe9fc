"""The inbox of hints: what joins, what is left out, who may settle what."""

from datetime import UTC, datetime

import pytest
from psycopg import AsyncConnection

from headwater.catalog.sync import hints
from headwater.catalog.sync.hints import Hint, TakenIn, take_in
from tests.work.world import make_dataset


@pytest.fixture
async def driver_id(conn: AsyncConnection) -> int:
    return (await make_dataset(conn, root="photos", prefix="cams/")).driver_id or 0


async def kept(conn: AsyncConnection, driver_id: int) -> dict[str, str | None]:
    """What the inbox knows of each key's object."""
    cursor = await conn.execute("SELECT key, content FROM hint WHERE driver_id = %s", [driver_id])
    return dict(await cursor.fetchall())


def written(key: str, etag: str | None = "e1", sequencer: str | None = None, **rest) -> Hint:
    return Hint(key, "written", sequencer, etag=etag, size_bytes=7, **rest)


def removed(key: str, sequencer: str | None = None) -> Hint:
    return Hint(key, "removed", sequencer)


async def test_hints_of_one_key_are_one_row(conn, driver_id):
    await take_in(conn, driver_id, [written("cams/a"), written("cams/b")])
    await take_in(conn, driver_id, [written("cams/a"), written("cams/a")])
    assert await kept(conn, driver_id) == {"cams/a": "7:e1", "cams/b": "7:e1"}


# Of two hints of one key: what the inbox then knows of the object. None: only the bucket can tell.
PAIRS = {
    "the later one is newer": (written("cams/k", "e1", "0A"), written("cams/k", "e2", "0B"), "7:e2"),
    "the later one is older": (written("cams/k", "e2", "0B"), written("cams/k", "e1", "0A"), "7:e2"),
    "as numbers, not as texts": (written("cams/k", "e1", "F"), written("cams/k", "e2", "10"), "7:e2"),
    "whatever the case": (written("cams/k", "e1", "0a"), written("cams/k", "e2", "0B"), "7:e2"),
    "the same again": (written("cams/k", "e1", "0A"), written("cams/k", "e1", "0A"), "7:e1"),
    "the same again, without order": (written("cams/k"), written("cams/k"), "7:e1"),
    "two contents without order": (written("cams/k", "e1"), written("cams/k", "e2"), None),
    "one with an order, one without": (written("cams/k", "e1", "0A"), written("cams/k", "e2"), None),
    "one order, two contents": (written("cams/k", "e1", "0A"), written("cams/k", "e2", "0A"), None),
    "written, then removed": (written("cams/k", "e1", "0A"), removed("cams/k", "0B"), None),
    "removed, then written": (removed("cams/k", "0A"), written("cams/k", "e1", "0B"), "7:e1"),
    "removed and written, told late": (written("cams/k", "e1", "0B"), removed("cams/k", "0A"), "7:e1"),
}


@pytest.mark.parametrize("pair", PAIRS, ids=list(PAIRS))
async def test_the_newest_hint_wins_where_the_bucket_numbers_them(conn, driver_id, pair):
    first, second, content = PAIRS[pair]
    await take_in(conn, driver_id, [first])
    await take_in(conn, driver_id, [second])
    assert await kept(conn, driver_id) == {"cams/k": content}


@pytest.mark.parametrize("pair", PAIRS, ids=list(PAIRS))
async def test_one_delivery_with_both_says_the_same(conn, driver_id, pair):
    first, second, content = PAIRS[pair]
    await take_in(conn, driver_id, [first, second])
    assert await kept(conn, driver_id) == {"cams/k": content}


async def test_once_the_order_is_lost_no_later_hint_brings_it_back(conn, driver_id):
    for hint in (written("cams/k", "e1", "0A"), written("cams/k", "e2"), written("cams/k", "e3", "0C")):
        await take_in(conn, driver_id, [hint])
    assert await kept(conn, driver_id) == {"cams/k": None}


async def test_what_is_of_another_folder_or_bucket_or_our_own_is_ignored_and_counted(conn, driver_id):
    taken = await take_in(
        conn,
        driver_id,
        [
            written("cams/a", bucket="photos"),
            written("cams/b", bucket="other"),
            written("camserver/a"),
            written("cams/"),
            written("cams/.dataloop/thumbnails/1.jpg"),
            written("cams/.dataloop2"),
            written("cams/nul\0"),
            written("cams/" + "ö" * 510),
            written("cams/lone\ud800"),
        ],
        ignored=2,
    )
    assert set(await kept(conn, driver_id)) == {"cams/a", "cams/.dataloop2"}
    assert taken == TakenIn(kept=2, ignored=9)
    cursor = await conn.execute("SELECT received, ignored FROM driver_events WHERE driver_id = %s", [driver_id])
    assert await cursor.fetchone() == (2, 9)


async def test_keys_are_kept_byte_by_byte(conn, driver_id):
    keys = [
        "cams/a//b",
        "cams/%2F",
        "cams/+ &",
        "cams/🦊/ö",
        "cams/o\u0308",
        "cams/..",
        "cams/a\x1fb",
        "cams/A",
        "cams/a",
    ]
    await take_in(conn, driver_id, [written(key) for key in keys])
    assert set(await kept(conn, driver_id)) == set(keys)


async def test_an_access_point_is_not_named_as_its_bucket(conn):
    driver_id = (await make_dataset(conn, root="photos-ab12-s3alias")).driver_id or 0
    await take_in(conn, driver_id, [written("a", bucket="photos")])
    assert set(await kept(conn, driver_id)) == {"a"}


async def test_the_time_of_the_newest_event_is_kept(conn, driver_id):
    times = [datetime(2026, 3, day, tzinfo=UTC) for day in (2, 3, 1)]
    for time in times:
        await take_in(conn, driver_id, [written("cams/a", happened_at=time)])
    cursor = await conn.execute("SELECT last_happened_at FROM driver_events WHERE driver_id = %s", [driver_id])
    assert await cursor.fetchone() == (times[1],)


async def test_a_driver_that_is_gone_takes_nothing(conn):
    assert await hints.take_in(conn, 2**40, [written("a")]) == TakenIn(kept=0, ignored=1)
