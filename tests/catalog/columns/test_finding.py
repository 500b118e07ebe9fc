"""Pages, counts and counts by value from columns are those of the rows, whatever was touched since they were built."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from headwater.catalog import finding
from headwater.catalog.columns import building, covering, encoding, fences, filling, ordering, reading, tables, upkeep
from headwater.catalog.columns.cache import Columns
from headwater.catalog.columns.conditions import frozen
from headwater.catalog.columns.touched import load_touched
from headwater.catalog.finding import Asking
from headwater.catalog.query import EVERYTHING, Page, Tree, compile_filter, compile_page
from headwater.errors import BadRequest
from headwater.wire.query import parse_filter
from tests.catalog.matching import Document, documents, examples, filters, insert, small_documents

SORTABLE = [
    "id",
    "filename",
    "name",
    "dir",
    "createdAt",
    "creator",
    "description",
    "hidden",
    "annotated",
    "metadata.system.size",
    "metadata.system.width",
    "metadata.system.mimetype",
    "metadata.system.missingSince",
    "metadata.user.k",
    "metadata.user.n",
    "metadata.user.k.k",
]
sorts = st.lists(st.tuples(st.sampled_from(SORTABLE), st.booleans()), max_size=3, unique_by=lambda key: key[0]).map(
    tuple
)
text_documents = st.fixed_dictionaries(
    {}, optional={"k": st.text(st.sampled_from("ab*é0"), max_size=4) | st.sampled_from(["a", "b", "ab"])}
)
plans: Counter[str] = Counter()


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> Iterator[str]:
    made = new_database()
    with psycopg.connect(made, autocommit=True) as conn:
        conn.execute("INSERT INTO account (email) VALUES ('ann@x.org'), ('bob@x.org')")
        conn.execute(
            "INSERT INTO project (organization_id, name, creator_id) SELECT organization.id, 'p', account.id"
            " FROM organization, account LIMIT 1"
        )
    yield made
    assert plans["columns"] >= plans["rows"] / 10


def _spread(conn: psycopg.Connection, dataset_id: int) -> None:
    """Over several segments, with holes."""
    for table, column in (("annotation", "item_id"), ("item", "id")):
        conn.execute(
            f"UPDATE {table} SET {column} = (({column} %% 3 * 2 + 1) << 16) + {column} * 7 WHERE dataset_id = %s",
            [dataset_id],
        )


async def _build(conn: AsyncConnection, dataset_id: int) -> None:
    async with conn.transaction():
        await upkeep.begin(conn, dataset_id)
    is_ready = False
    while not is_ready:
        async with conn.transaction():
            is_ready = await upkeep.make_ready(conn, dataset_id)
    async with conn.transaction():
        await covering.seek_paths_once(conn, dataset_id)
    for _ in range(2):
        async with conn.transaction():
            due = await upkeep.due_segments(conn, dataset_id, at_once=True)
        for segment in due:
            await _build_segment(conn, dataset_id, segment)


async def _build_segment(conn: AsyncConnection, dataset_id: int, segment: int) -> None:
    while True:
        try:
            async with conn.transaction():
                built = await building.build_segment(conn, dataset_id, segment, {})
            break
        except building.Outgrown as outgrown:
            for path, kind in outgrown.paths:
                async with conn.transaction():
                    await building.change_encoding(conn, dataset_id, path, kind)
    assert built is not None
    async with conn.transaction():
        await covering.cover_found(conn, dataset_id, built.found)


async def _touch(conn: AsyncConnection, dataset_id: int, touched: list[int], user: Document) -> None:
    async with conn.transaction():
        cursor = await conn.execute("SELECT id FROM item WHERE dataset_id = %s ORDER BY id", [dataset_id])
        ids = [item_id for (item_id,) in await cursor.fetchall()]
        chosen = [ids[n % len(ids)] for n in touched if ids]
        await conn.execute(
            "UPDATE item SET user_metadata = %s, size_bytes = size_bytes / 2, trashed_at = now(), creator_id = 1"
            " WHERE dataset_id = %s AND id = ANY(%s)",
            [json.dumps(user), dataset_id, chosen[::3]],
        )
        await conn.execute("DELETE FROM item WHERE dataset_id = %s AND id = ANY(%s)", [dataset_id, chosen[1::3]])
        for n, item_id in enumerate(chosen[2::3]):
            await conn.execute(
                """
                INSERT INTO item (dataset_id, id, folder_id, size_bytes, path, etag, user_metadata)
                SELECT dataset_id, id + 1 + (%s << 16), folder_id, size_bytes, path || 'new', '', user_metadata
                FROM item
                WHERE dataset_id = %s AND id = %s
                ON CONFLICT DO NOTHING
                """,
                [n % 2 * 9, dataset_id, item_id],
            )


async def _ids(conn: AsyncConnection, dataset_id: int, tree: Tree, page: Page) -> list[int]:
    where, parameters = compile_filter(tree, dataset_id=dataset_id)
    order, limits = compile_page(page)
    cursor = await conn.execute(
        b"SELECT item.id FROM item WHERE " + (where + order).as_bytes(conn).replace(b"ORDER BY", b" ORDER BY"),
        parameters | limits,
        prepare=False,
    )
    return [item_id for (item_id,) in await cursor.fetchall()]


async def _answers_are_those_of_rows(
    conn: AsyncConnection, dataset_id: int, asked: list[tuple[Document, tuple[Any, ...], int, int]], columns: Columns
) -> None:
    for condition, sort, size, number in asked:
        tree = parse_filter(condition)
        page = Page(sort, number, size)
        asking = Asking(columns)
        async with conn.transaction():
            await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            try:
                found = await finding.find_page(conn, dataset_id, tree, None, page, asking=asking)
            except BadRequest:
                with pytest.raises(BadRequest):
                    await _ids(conn, dataset_id, tree, page)
                continue
            total = await finding.count_found(conn, dataset_id, tree, None, asking=Asking(columns))
            expected = await _ids(conn, dataset_id, tree, Page(sort, 0, 1_000))
        plans[asking.plan] += 1
        told = (condition, sort, size, number, asking.plan)
        assert total == len(expected), told
        assert found.total in (None, total), told
        assert [row.id for row in found.rows] == expected[number * size : (number + 1) * size], told
        assert found.has_next == (len(expected) > (number + 1) * size and size > 0), told


async def _counts_are_those_of_rows(
    conn: AsyncConnection, dataset_id: int, tree: Tree, names: list[str], columns: Columns
) -> None:
    for name in names:
        async with conn.transaction():
            await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            by_columns, distinct = await finding.count_by(conn, dataset_id, tree, name, 1_000, asking=Asking(columns))
            by_rows, distinct_rows = await finding.count_by(conn, dataset_id, tree, name, 1_000)
        assert {(frozen(value), number) for value, number in by_columns} == {
            (frozen(value), number) for value, number in by_rows
        }, name
        assert distinct == distinct_rows == len(by_rows)
        for limit in (1, 3):
            async with conn.transaction():
                few, _ = await finding.count_by(conn, dataset_id, tree, name, limit, asking=Asking(columns))
            assert [number for _, number in few] == [number for _, number in by_rows[:limit]]
            assert few == by_columns[:limit]


@settings(examples(10), phases=[Phase.explicit, Phase.reuse, Phase.generate])  # each makes an index: no shrinking
@given(
    batches=st.lists(documents(), min_size=1, max_size=4),
    users=st.lists(small_documents, max_size=20) | st.lists(text_documents, min_size=15, max_size=24),
    touched=st.lists(st.integers(0, 50), max_size=6),
    user=small_documents,
    asked=st.lists(
        st.tuples(filters | st.just({}) | st.just({"hidden": False}), sorts, st.integers(0, 5), st.integers(0, 3)),
        min_size=8,
        max_size=12,
    ),
    limits=st.tuples(st.sampled_from([0, 5_000]), st.sampled_from([0, 2, 50_000]), st.sampled_from([0, 100_000])),
    most_values=st.sampled_from([3, 60_000]),
    cache_bytes=st.sampled_from([0, 2**24]),
    keeps_texts=st.booleans(),
)
def test_columns_answer_what_rows_answer(
    url: str, batches, users, touched, user, asked, limits, most_values, cache_bytes, keeps_texts
):
    items: dict[str, Document] = {}
    for batch in batches:
        for item in batch:
            items.setdefault(item["filename"], item)
    made = list(items.values())
    for n, item in enumerate(made, 1):
        item["id"] = f"{n:024x}"
        for m, annotation in enumerate(item["#annotations"]):
            annotation["id"] = f"{n * 100 + m:024x}"
            annotation["itemId"] = item["id"]
        if n <= len(users):
            item["metadata"]["user"] = users[n - 1]
    with psycopg.connect(url, autocommit=True) as conn, pytest.MonkeyPatch.context() as patch:
        (dataset_id,) = conn.execute(
            "INSERT INTO dataset (project_id, name, creator_id) SELECT id, gen_random_uuid(), creator_id FROM project"
            " ORDER BY id DESC LIMIT 1 RETURNING id"
        ).fetchone() or (0,)
        insert(conn, made, dataset_id)
        _spread(conn, dataset_id)
        patch.setattr(filling, "MOST_VALUES", most_values)
        patch.setattr(finding, "_FEW", limits[0])
        patch.setattr(finding, "_MOST_ASKED", limits[1])
        patch.setattr(ordering, "_FEW", limits[2])
        patch.setattr(reading, "_LOADED_AT_ONCE", 1)
        for module, name, rows in (
            (fences, "_BLOCK_ROWS", 2),
            (fences, "BLOCK_TEXTS", 4),
            (encoding, "BLOCK_TEXTS", 4),
        ):
            patch.setattr(module, name, rows)
        columns = Columns(most_bytes=cache_bytes)
        if not keeps_texts:
            columns.most_bytes = 0
        asyncio.run(_whole(url, dataset_id, touched, user, asked, columns))


async def _whole(
    url: str, dataset_id: int, touched: list[int], user: Document, asked: list[Any], columns: Columns
) -> None:
    async with await AsyncConnection.connect(url) as conn:
        await conn.execute("SET TIME ZONE 'UTC'")
        await conn.commit()
        await _build(conn, dataset_id)
        await _answers_are_those_of_rows(conn, dataset_id, asked[::2], columns)
        await _touch(conn, dataset_id, touched, user)
        await _answers_are_those_of_rows(conn, dataset_id, asked, columns)
        await _touch(conn, dataset_id, [*touched[1:], *touched[:1]], user | {"n": "again", "late": 1})
        await _answers_are_those_of_rows(conn, dataset_id, asked[::2] * 2, columns)
        names = ["dir", "creator", "hidden", "metadata.system.mimetype", "metadata.system.size", "metadata.user.k"]
        await _counts_are_those_of_rows(conn, dataset_id, EVERYTHING, [*names, "metadata.user.n", "label"], columns)
        await _counts_are_those_of_rows(conn, dataset_id, parse_filter(asked[0][0]), names, columns)


async def _new_dataset(conn: AsyncConnection, users: list[Document]) -> int:
    """An item in each segment for each document of user metadata."""
    cursor = await conn.execute(
        "INSERT INTO dataset (project_id, name, creator_id) SELECT id, gen_random_uuid(), creator_id FROM project"
        " ORDER BY id DESC LIMIT 1 RETURNING id"
    )
    (dataset_id,) = await cursor.fetchone() or (0,)
    for number, user in enumerate(users, 1):
        await conn.execute(
            "INSERT INTO item (dataset_id, id, folder_id, size_bytes, path, etag, user_metadata)"
            " VALUES (%s, %s, 0, 1, %s, '', %s)",
            [dataset_id, number << 16, f"/{number}", json.dumps(user)],
        )
    return dataset_id


async def test_what_few_items_have_or_none_is_told_by_columns(url: str) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        usual = {"n": 1, "o": {"x": 1}, "list": [{"deep": 1}]}
        dataset_id = await _new_dataset(conn, [usual, usual, usual | {"rare": "yes"}, usual])
        await _build(conn, dataset_id)
        await conn.execute(
            "UPDATE item SET user_metadata = %s WHERE dataset_id = %s AND path = '/2'",
            [json.dumps({"late": 5, "rare": "no"}), dataset_id],
        )
        for condition in (
            {"metadata.user.rare": {"$exists": True}},
            {"metadata.user.rare": "yes"},
            {"metadata.user.rare": {"$ne": "yes"}},
            {"metadata.user.late": {"$gt": 4}},
            {"metadata.user.never": {"$exists": False}},
            {"metadata.user.never": None},
            {"$or": [{"metadata.user.neverAtAll.x": 1}, {"metadata.user.rare": {"$in": ["no", "yes"]}}]},
        ):
            columns = Columns(most_bytes=2**24)
            for sort in ((("metadata.user.rare", True),), (("metadata.user.never", False), ("id", True))):
                asked = [({"$and": [condition]}, sort, 3, 0)] * 2
                before = plans["columns"]
                await _answers_are_those_of_rows(conn, dataset_id, asked, columns)
                assert plans["columns"] == before + 2, condition
        names = ["metadata.user.rare", "metadata.user.never", "metadata.user.late"]
        await _counts_are_those_of_rows(conn, dataset_id, EVERYTHING, names, Columns(most_bytes=2**24))
        # What leads through lists, or to objects, is there although no column has it.
        through = [({"metadata.user.list.deep": 1}, (), 3, 0), ({"metadata.user.o": {"$exists": True}}, (), 3, 0)]
        await _answers_are_those_of_rows(conn, dataset_id, through, Columns(most_bytes=2**24))


async def test_a_path_that_is_covered_later_is_built_where_it_is_and_nowhere_else(url: str) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        dataset_id = await _new_dataset(conn, [{"n": 1}] * 3)
        await _build(conn, dataset_id)
        await conn.execute(
            "UPDATE item SET user_metadata = %s WHERE dataset_id = %s AND path = '/2'",
            [json.dumps({"n": 1, "late": 5}), dataset_id],
        )
        async with conn.transaction():
            versions = {one.number: one.version for one in (await _state(conn, dataset_id)).segments.values()}
        for number_built in (1, 1, 0):  # it is found, then built; the others know that they do not have it
            async with conn.transaction():
                due = await upkeep.due_segments(conn, dataset_id, at_once=True)
            assert due == [2] * number_built
            for segment in due:
                await _build_segment(conn, dataset_id, segment)
        async with conn.transaction():
            state = await _state(conn, dataset_id)
        assert [number for number, one in state.segments.items() if one.version != versions[number]] == [2]
        assert [one.number for one in state.without("metadata.user.late")] == [1, 3]


async def test_what_was_touched_is_read_once_for_many_questions_and_again_when_it_changes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    async def reading_it(conn: AsyncConnection, state: tables.IndexState) -> Any:
        read.append(len(state.touched_items))
        return await load_touched(conn, state)

    monkeypatch.setattr(reading, "load_touched", reading_it)
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        dataset_id = await _new_dataset(conn, [{"n": number} for number in range(6)])
        await _build(conn, dataset_id)
        columns = Columns(most_bytes=2**24)
        sort = (("metadata.user.n", True),)
        asked = [
            ({"metadata.user.n": {"$gte": 3}}, sort, 2, 1),
            ({"metadata.user.n": "three"}, sort, 2, 0),
            ({"metadata.user.new": {"$exists": True}}, (), 2, 0),
            ({"metadata.user.n": {"$ne": 4}, "metadata.user.never": None}, sort, 3, 1),
        ]
        for times, user in enumerate([{"n": 9, "new": 1}, {"n": "three"}, {"n": 4}, {"new": [{"x": 1}]}], 1):
            await conn.execute(
                "UPDATE item SET user_metadata = %s WHERE dataset_id = %s AND path = ANY(%s)",
                [json.dumps(user), dataset_id, ["/3", "/4", f"/{times}"]],
            )
            await _answers_are_those_of_rows(conn, dataset_id, asked * 2, columns)
            assert len(read) == times
        await conn.execute("DELETE FROM item WHERE dataset_id = %s AND path IN ('/3', '/5')", [dataset_id])
        await _answers_are_those_of_rows(conn, dataset_id, asked * 2, columns)
        assert read == [3, 4, 4, 4, 5]


async def _state(conn: AsyncConnection, dataset_id: int) -> tables.IndexState:
    state = await tables.load_state(conn, dataset_id)
    assert state is not None
    return state


async def test_hashes_of_texts_become_texts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as conn:
        dataset_id = await _new_dataset(conn, [{"k": f"2025-0{number}"} for number in range(1, 6)] + [{"k": 5}, {}])
        await conn.execute(
            "INSERT INTO column_path (dataset_id, path, encoding) VALUES (%s, 'metadata.user.k', 'hashes')",
            [dataset_id],
        )
        await _build(conn, dataset_id)
        asked: list[tuple[Document, tuple[Any, ...], int, int]] = [
            ({"metadata.user.k": condition}, (("metadata.user.k", True),), 3, page)
            for condition in ("2025-0*", {"$gt": "2025-02"}, {"$lte": "2025-04"}, {"$ne": "2025-03"}, "*5", {"$gt": 4})
            for page in range(2)
        ]
        await _answers_are_those_of_rows(conn, dataset_id, asked, Columns(most_bytes=2**24))
        monkeypatch.setattr(filling, "_ENOUGH", 1)
        monkeypatch.setattr(finding, "_FEW", 0)
        await conn.execute("UPDATE item SET size_bytes = 2 WHERE dataset_id = %s AND path = '/2'", [dataset_id])
        for _ in range(2):
            async with conn.transaction():
                due = await upkeep.due_segments(conn, dataset_id, at_once=True)
            for segment in due:
                await _build_segment(conn, dataset_id, segment)
            await _answers_are_those_of_rows(conn, dataset_id, asked, Columns(most_bytes=2**24))
        async with conn.transaction():
            assert (await _state(conn, dataset_id)).paths["metadata.user.k"].encoding == "texts"
            assert await upkeep.due_segments(conn, dataset_id, at_once=True) == []
        before = plans["columns"]
        await _answers_are_those_of_rows(conn, dataset_id, asked, Columns(most_bytes=2**24))
        assert plans["columns"] == before + len(asked)
