"""Whatever happens side by side, columns and notes together say what the rows say, in every snapshot."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.errors import AdminShutdown, OperationalError, SerializationFailure, UniqueViolation

from headwater.catalog.columns import building, covering, filling, upkeep
from headwater.catalog.columns.building import Dictionaries, Outgrown
from tests.catalog.columns.exactness import check

SEGMENTS, PLACES = 3, 40
LARGE_FROM = 1_024
LARGE = 8_500  # more than the triggers note one by one
# Nobody in this process waits for a row: each item is changed by one transaction at a time, large ranges as a whole.
_LOCKED = "pg_try_advisory_xact_lock(CASE WHEN id & 65535 < 1024 THEN id ELSE -(id >> 10) END)"


class World:
    """Several connections with transactions of their own, over the items of one dataset."""

    def __init__(
        self, conns: list[AsyncConnection], checker: AsyncConnection, admin: AsyncConnection, seed: int
    ) -> None:
        self.random = random.Random(seed)
        self.conns = conns
        self.checker = checker
        self.admin = admin
        self.dataset_id = self.random.randrange(10**9, 2 * 10**9)
        self.first_segment = self.random.randrange(10**6, 10**8)
        self.dictionaries: Dictionaries = {}

    # What others do.

    async def change(self, conn: AsyncConnection) -> None:
        kind = self.random.choice(["insert", "insert", "update", "update", "update", "delete", "upsert", "large"])
        match kind:
            case "insert" | "upsert":
                ids = {self.new_id() for _ in range(self.random.randrange(1, 6))}
                await self.put(conn, ids)
            case "large" if self.random.random() < 0.3:
                first = ((self.first_segment + self.random.randrange(SEGMENTS)) << 16) + LARGE_FROM
                await self.put(conn, range(first, first + LARGE))
            case "update" | "large":
                await conn.execute(
                    """
                    UPDATE item SET user_metadata = %s, size_bytes = size_bytes + 1, updated_at = clock_timestamp()
                    WHERE dataset_id = %s AND id = ANY(%s)
                    """,
                    [json.dumps(self.document()), self.dataset_id, await self.free_ids(conn)],
                )
            case _:
                await conn.execute(
                    "DELETE FROM item WHERE dataset_id = %s AND id = ANY(%s)",
                    [self.dataset_id, await self.free_ids(conn)],
                )

    async def put(self, conn: AsyncConnection, ids: Any) -> None:
        """Rows that others have locked, or are about to insert, are left out."""
        cursor = await conn.execute(f"SELECT id FROM unnest(%s::bigint[]) AS given (id) WHERE {_LOCKED}", [list(ids)])
        held = [item_id for (item_id,) in await cursor.fetchall()]
        documents = [json.dumps(self.document()) for _ in range(7)]
        await conn.execute(
            """
            INSERT INTO item (dataset_id, id, folder_id, size_bytes, path, etag, user_metadata, system_metadata)
            SELECT %(dataset_id)s, id, id %% 3, id %% 100, '/' || id, '',
                (%(documents)s::text[])[id %% 7 + 1]::jsonb, %(system)s
            FROM unnest(%(ids)s::bigint[]) AS given (id)
            ON CONFLICT (dataset_id, path) DO UPDATE
            SET user_metadata = excluded.user_metadata, missing_since = now(), width_px = 5
            """,
            {
                "dataset_id": self.dataset_id,
                "documents": documents,
                "system": json.dumps({"etl": {"state": "done"}, "exif": {"Make": "x"}}),
                "ids": held,
            },
        )

    async def free_ids(self, conn: AsyncConnection) -> list[int]:
        cursor = await conn.execute(
            f"SELECT id FROM item WHERE dataset_id = %s AND id %% %s = 0 AND {_LOCKED}",
            [self.dataset_id, self.random.choice([1, 3, 17])],
        )
        return [item_id for (item_id,) in await cursor.fetchall()]

    def new_id(self) -> int:
        return ((self.first_segment + self.random.randrange(SEGMENTS)) << 16) + self.random.randrange(PLACES)

    def document(self) -> Any:
        choice = self.random.choice
        return {
            "few": choice(["a", "b", True, 1, None]),
            "many": self.random.randrange(10**6),
            "texts": choice(["x", "y", 7]) if self.random.random() < 0.1 else f"t{self.random.randrange(10**6)}",
            "hard": choice([0.1, 1e30, "w" * 2_000, 12345678901234567890, 0.1 + 0.2, [1, "a"], {"b": 1}]),
            "deep": choice([{"b": 1}, [{"b": 2}], {"b": {"c": 3}}, 4, {}]),
            f"new{self.random.randrange(4)}": 1,
        }

    # What we do.

    async def build(self, conn: AsyncConnection, *, at_once: bool = True) -> None:
        async with conn.transaction():
            due = await upkeep.due_segments(conn, self.dataset_id, at_once=at_once)
        for segment in self.random.sample(due, self.random.randrange(len(due) + 1)):
            await self.build_segment(conn, segment)

    async def build_segment(self, conn: AsyncConnection, segment: int) -> None:
        try:
            async with conn.transaction():
                built = await building.build_segment(conn, self.dataset_id, segment, self.dictionaries)
        except Outgrown as outgrown:
            for path, kind in outgrown.paths:
                with suppress(SerializationFailure):
                    async with conn.transaction():
                        await building.change_encoding(conn, self.dataset_id, path, kind)
            self.dictionaries.clear()
        except (SerializationFailure, UniqueViolation):
            self.dictionaries.clear()
        else:
            if built is not None:
                async with conn.transaction():
                    await covering.cover_found(conn, self.dataset_id, built.found)

    async def manage(self, conn: AsyncConnection) -> None:
        async with conn.transaction():
            match self.random.choice(["begin", "ready", "ready", "seek", "pin", "exclude", "forget", "all", "drop"]):
                case "begin":
                    await upkeep.begin(conn, self.dataset_id)
                case "ready":
                    await upkeep.make_ready(conn, self.dataset_id)
                case "seek":
                    await covering.seek_paths_once(conn, self.dataset_id)
                case "pin":
                    await covering.pin_path(conn, self.dataset_id, "metadata.user.new1")
                case "exclude":
                    await covering.exclude_path(conn, self.dataset_id, "metadata.user.few")
                case "forget":
                    await covering.forget_path(conn, self.dataset_id, "metadata.user.many")
                case "all":
                    await upkeep.touch_all(conn, self.dataset_id)
                case _:
                    if self.random.random() < 0.2:
                        await upkeep.drop(conn, self.dataset_id)
        self.dictionaries.clear()

    async def step(self) -> None:
        """Of somebody: within a transaction that stays open, or at its end."""
        conn = self.random.choice(self.conns)
        match self.random.choice(["change", "change", "change", "commit", "roll back"]):
            case "commit":
                await conn.commit()
            case "roll back":
                await conn.rollback()
            case _:
                await self.change(conn)


@pytest.fixture
async def connect(shared_database_url: str) -> AsyncIterator[Callable[..., Awaitable[AsyncConnection]]]:
    made: list[AsyncConnection] = []

    async def connected(*, autocommit: bool = False) -> AsyncConnection:
        conn = await AsyncConnection.connect(shared_database_url, autocommit=autocommit)
        await conn.execute("SET TIME ZONE 'UTC'")
        if not autocommit:
            await conn.commit()
        made.append(conn)
        return conn

    yield connected
    for conn in made:
        await conn.close()


@pytest.mark.parametrize("seed", range(12))
async def test_columns_and_notes_say_what_the_rows_say(
    connect: Callable[..., Awaitable[AsyncConnection]], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(filling, "MOST_VALUES", 25)
    monkeypatch.setattr(building, "_PIECE_ROWS", 1_000)
    conns = [await connect() for _ in range(4)]
    checker, admin, builder = await connect(), await connect(autocommit=True), await connect()
    world = World(conns, checker, admin, seed)
    read_piece = building.read_piece

    async def read_slowly(conn: AsyncConnection, *given: Any) -> Any:
        for _ in range(world.random.randrange(3)):
            await world.step()
        return await read_piece(conn, *given)

    monkeypatch.setattr(building, "read_piece", read_slowly)
    async with builder.transaction():
        await upkeep.begin(builder, world.dataset_id)
    for _ in range(70):
        match world.random.choice(["step"] * 8 + ["build"] * 4 + ["manage"] * 2 + ["killed"]):
            case "step":
                await world.step()
            case "build":
                await world.build(builder)
            case "manage":
                await world.manage(builder)
            case _:
                builder = await _killed_in_the_middle(world, builder, connect)
        await check(world.checker, world.dataset_id)
    for conn in conns:
        await conn.commit()
    await check(checker, world.dataset_id)


async def _killed_in_the_middle(
    world: World, builder: AsyncConnection, connect: Callable[..., Awaitable[AsyncConnection]]
) -> AsyncConnection:
    """Its connection ends at some statement of a build."""
    pid = builder.info.backend_pid
    building_it = asyncio.create_task(world.build(builder))
    for _ in range(world.random.randrange(30)):
        await asyncio.sleep(0)
    await world.admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with suppress(OperationalError, AdminShutdown):
        await building_it
    world.dictionaries.clear()
    return await connect()
