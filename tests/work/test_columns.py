"""Column indexes begin, are built, follow what happens to items, and go with their dataset."""

import asyncio
from typing import Any

import pytest
from psycopg import AsyncConnection

from headwater.catalog.columns import covering, filling, tables, upkeep
from headwater.catalog.datasets import Dataset
from headwater.work import columns, purging
from tests.catalog.columns.exactness import check
from tests.work.world import World


async def filled(world: World, number: int = 30) -> Dataset:
    dataset, root = await world.local_dataset()
    for n in range(number):
        (root / f"{n:02}.txt").write_bytes(b"text" * n)
    await world.sync(dataset)
    await execute(
        world,
        """UPDATE item SET user_metadata = jsonb_build_object('n', id, 'even', id %% 2 = 0) WHERE dataset_id = %s""",
        dataset.id,
    )
    return dataset


async def execute(world: World, statement: Any, *parameters: Any) -> None:
    async with world.connection() as conn:
        await conn.execute(statement, parameters)


async def begun(world: World, dataset: Dataset) -> None:
    async with world.connection() as conn:
        assert await upkeep.begin(conn, dataset.id)


async def checked(world: World, dataset: Dataset) -> tables.IndexState | None:
    async with await AsyncConnection.connect(world.place.pool.conninfo, autocommit=True) as conn:
        await conn.execute("SET TIME ZONE 'UTC'")
        return await check(conn, dataset.id)


async def test_an_index_is_begun_built_and_follows_its_items(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    assert await checked(world, dataset) is None
    await columns.build_columns(world.place, dataset.id)
    state = await checked(world, dataset)
    assert state is not None
    assert not state.without("metadata.user.n")
    assert not state.without("filename")
    assert (len(state.touched_items), state.touched_segments) == (0, ())
    assert sum(segment.rows for segment in state.segments.values()) == 30
    await execute(world, "UPDATE item SET hidden = TRUE WHERE dataset_id = %s AND id %% 3 = 0", dataset.id)
    changed = await checked(world, dataset)
    assert changed is not None
    assert len(changed.touched_items) == 10
    await columns.build_columns(world.place, dataset.id)  # nothing is due yet
    assert len((await checked(world, dataset)).touched_items) == 10
    await columns.build_columns(world.place, dataset.id, at_once=True)
    assert len((await checked(world, dataset)).touched_items) == 0


async def test_a_dataset_that_has_outgrown_its_rows_gets_one_and_one_that_shrank_loses_it(world: World) -> None:
    dataset = await filled(world)
    await columns.look(world.place.pool, least_items=31)
    assert not await is_begun(world, dataset)
    await columns.look(world.place.pool, least_items=0)
    assert not await is_begun(world, dataset)
    await execute(world, "UPDATE scan SET state = 'running' WHERE dataset_id = %s", dataset.id)
    await columns.look(world.place.pool, least_items=30)
    assert not await is_begun(world, dataset)  # its sync has the machine to itself
    await execute(world, "UPDATE scan SET state = 'done' WHERE dataset_id = %s", dataset.id)
    await columns.look(world.place.pool, least_items=30)
    assert await is_begun(world, dataset)
    assert await jobs(world, dataset) == 1
    await columns.look(world.place.pool, least_items=30)
    assert await jobs(world, dataset) == 1
    await columns.look(world.place.pool, least_items=120)
    assert await is_begun(world, dataset)
    async with world.connection() as conn:
        await covering.pin_path(conn, dataset.id, "metadata.user.n")
    await columns.look(world.place.pool, least_items=124)
    assert await is_begun(world, dataset)  # somebody asked for it
    async with world.connection() as conn:
        await covering.exclude_path(conn, dataset.id, "metadata.user.n")
    await columns.look(world.place.pool, least_items=124)
    assert not await is_begun(world, dataset)


async def is_begun(world: World, dataset: Dataset) -> bool:
    async with world.connection() as conn:
        return await upkeep.is_begun(conn, dataset.id)


async def jobs(world: World, dataset: Dataset) -> int:
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE task_name = 'build_columns' AND args ->> 'dataset_id' = %s",
            [str(dataset.id)],
        )
        return (await cursor.fetchone() or (0,))[0]


async def test_it_is_not_used_before_those_have_ended_who_may_not_know_of_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_ASK_READY_TIMES", 3)
    monkeypatch.setattr(columns, "_ASK_READY_S", 0)
    dataset = await filled(world)
    async with await AsyncConnection.connect(world.place.pool.conninfo) as older:
        await older.execute("UPDATE item SET size_bytes = 1 WHERE dataset_id = %s", [dataset.id])
        await begun(world, dataset)
        await columns.build_columns(world.place, dataset.id)
        assert await checked(world, dataset) is None
        await older.commit()
    await columns.build_columns(world.place, dataset.id)
    assert await checked(world, dataset) is not None


async def test_nor_before_those_who_changed_items_while_it_was_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "_ASK_READY_TIMES", 3)
    monkeypatch.setattr(columns, "_ASK_READY_S", 0)
    dataset = await filled(world)
    async with await AsyncConnection.connect(world.place.pool.conninfo) as younger:
        async with world.connection() as conn:
            assert await upkeep.begin(conn, dataset.id)
            await younger.execute("UPDATE item SET size_bytes = 1 WHERE dataset_id = %s", [dataset.id])
        await columns.build_columns(world.place, dataset.id)
        assert await checked(world, dataset) is None
        await younger.commit()
    await columns.build_columns(world.place, dataset.id)
    assert await checked(world, dataset) is not None


async def test_a_path_that_outgrows_its_codes_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "MOST_VALUES", 20)
    dataset = await filled(world)
    await execute(
        world,
        "UPDATE item SET user_metadata = user_metadata || jsonb_build_object('t', 't' || id) WHERE dataset_id = %s",
        dataset.id,
    )
    await begun(world, dataset)
    await columns.build_columns(world.place, dataset.id)
    state = await checked(world, dataset)
    assert state is not None
    assert state.paths["metadata.user.n"].encoding == "numbers"
    assert state.paths["metadata.user.t"].encoding == "texts"
    assert state.paths["metadata.user.even"].encoding == "codes"
    assert not state.without("metadata.user.t")


async def test_a_path_that_is_asked_for_is_built_everywhere(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    await columns.build_columns(world.place, dataset.id)
    async with world.connection() as conn:
        assert await covering.exclude_path(conn, dataset.id, "metadata.user.n")
    await columns.build_columns(world.place, dataset.id, at_once=True)
    assert "metadata.user.n" not in (await checked(world, dataset)).paths
    async with world.connection() as conn:
        await covering.pin_path(conn, dataset.id, "metadata.user.n")
    assert (await checked(world, dataset)).without("metadata.user.n")
    await columns.build_columns(world.place, dataset.id)
    assert not (await checked(world, dataset)).without("metadata.user.n")


async def test_what_no_item_has_needs_no_build(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    await columns.build_columns(world.place, dataset.id)
    async with world.connection() as conn:
        await covering.pin_path(conn, dataset.id, "metadata.user.never")
        assert not await upkeep.due_segments(conn, dataset.id, at_once=True)
        state = await tables.load_state(conn, dataset.id)
        assert set((await tables.load_absent(conn, dataset.id, state.segments, "metadata.user.never")).values()) == {
            True
        }
        assert set((await tables.load_absent(conn, dataset.id, state.segments, "metadata.user.n")).values()) == {False}


async def test_metadata_of_a_new_kind_is_covered_when_it_is_met(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    await columns.build_columns(world.place, dataset.id)
    await execute(world, """UPDATE item SET user_metadata = '{"new": {"a": 1}}' WHERE dataset_id = %s""", dataset.id)
    await columns.build_columns(world.place, dataset.id, at_once=True)
    assert not (await checked(world, dataset)).without("metadata.user.new.a")


async def test_a_segment_without_items_goes(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    await columns.build_columns(world.place, dataset.id)
    await execute(world, "DELETE FROM item WHERE dataset_id = %s", dataset.id)
    await columns.build_columns(world.place, dataset.id, at_once=True)
    state = await checked(world, dataset)
    assert state is not None
    assert state.segments == {}


async def test_two_jobs_at_once_build_what_one_would(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    await asyncio.gather(*(columns.build_columns(world.place, dataset.id, at_once=True) for _ in range(3)))
    state = await checked(world, dataset)
    assert state is not None
    assert state.touched_segments == ()


async def test_it_goes_with_its_dataset(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    await columns.build_columns(world.place, dataset.id)
    await execute(world, "UPDATE item SET hidden = TRUE WHERE dataset_id = %s", dataset.id)
    await execute(world, "UPDATE dataset SET deleted_at = now() WHERE id = %s", dataset.id)
    await purging.purge_dataset(world.place, dataset.id)
    async with world.connection() as conn:
        for table in ("index", "path", "value", "segment", "chunk", "touched"):
            cursor = await conn.execute(f"SELECT count(*) FROM column_{table} WHERE dataset_id = %s", [dataset.id])
            assert await cursor.fetchone() == (0,), table


async def test_notes_of_an_index_that_has_gone_are_cleaned_up(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    async with await AsyncConnection.connect(world.place.pool.conninfo) as late:
        await late.execute("UPDATE item SET size_bytes = 1 WHERE dataset_id = %s", [dataset.id])
        async with world.connection() as conn:
            await upkeep.drop(conn, dataset.id)
        await late.commit()
    await columns.look(world.place.pool, least_items=0)
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM column_touched WHERE dataset_id = %s", [dataset.id])
        assert await cursor.fetchone() == (0,)


async def test_a_large_change_is_not_slowed_by_building_what_it_has_left_behind(world: World) -> None:
    dataset = await filled(world)
    await begun(world, dataset)
    await columns.build_columns(world.place, dataset.id)
    behind, ahead, far = 1_000_000, 1_000_001, 1_000_002  # segments without items: their notes are all there is

    async def due_after(*notes: tuple[int, int, float]) -> list[int]:
        """What is built soon: notes are of a segment, so many items, so many seconds ago."""
        async with world.connection() as conn:
            await conn.execute("DELETE FROM column_touched WHERE dataset_id = %s", [dataset.id])
            for segment, items, ago_s in notes:
                await conn.execute(
                    """
                    INSERT INTO column_touched (dataset_id, segment, item_ids, touched_at)
                    VALUES (%s, %s, %s, clock_timestamp() - make_interval(secs => %s))
                    """,
                    [dataset.id, segment, [(segment << 16) + n for n in range(items)], ago_s],
                )
            return await upkeep.due_segments(conn, dataset.id, at_leisure=0)

    assert await due_after((behind, 3_000, 10)) == [behind]
    assert await due_after((behind, 3_000, 10), (ahead, 3_000, 0)) == []  # it goes on
    assert await due_after((behind, 3_000, 10), (ahead, 3_000, 5)) == [behind, ahead]  # it has ended
    assert await due_after((behind, 3_000, 10), (far, 3, 0)) == [behind]  # some items are nothing
    assert await due_after((behind, 3_000, 40), (ahead, 3_000, 0)) == [behind]  # it goes on and on
