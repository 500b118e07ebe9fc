"""Metadata of many items: patched or split in pieces that may die anywhere, be repeated and be aborted."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog import bulk_metadata as catalog
from headwater.catalog import commands, selections
from headwater.catalog.commands import Command
from headwater.catalog.datasets import Dataset
from headwater.wire.bulk_metadata import ChangeJson
from headwater.wire.items import merged
from headwater.work import bulk_metadata
from headwater.work.bulk_metadata import dealt
from tests.work.world import World


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_metadata, "_PIECE_ITEMS", 7)


async def filled(world: World, number: int = 30) -> tuple[Dataset, Path]:
    dataset, root = await world.local_dataset()
    for n in range(number):
        file = root / ("even" if n % 2 == 0 else "odd") / f"{n:02}.txt"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"text")
    await world.sync(dataset)
    return dataset, root


def patch(user: dict[str, Any] | None = None, system: dict[str, Any] | None = None) -> ChangeJson:
    return ChangeJson(user=user or {}, system=system or {}, shares=None)


async def requested(world: World, dataset: Dataset, wanted: dict[str, Any], change: ChangeJson) -> dict[str, Any]:
    """The arguments of the job."""
    async with world.connection() as conn:
        summary = await selections.summarize(conn, dataset.id, bulk_metadata.selection_of(wanted), examples=0)
        command_id = await bulk_metadata.request_change(
            conn, dataset, wanted, change, summary, caller_id=world.owner.id
        )
    return bulk_metadata.job_arguments(command_id, wanted, change, summary, world.owner.id)


async def ended(world: World, arguments: dict[str, Any]) -> Command:
    async with world.connection() as conn:
        return await commands.load_command(conn, arguments["command_id"])


async def metadata(world: World, dataset: Dataset) -> dict[str, tuple[Any, Any]]:
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT path, user_metadata, system_metadata FROM item WHERE dataset_id = %s", [dataset.id]
        )
        return {path: (user, system) for path, user, system in await cursor.fetchall()}


@pytest.mark.usefixtures("small_pieces")
async def test_all_that_is_selected_is_patched_and_nothing_else(world: World) -> None:
    dataset, _ = await filled(world)
    arguments = await requested(
        world, dataset, {"filter": {}, "folder": "/even"}, patch({"a": {"b": 1}}, {"tags": {"x": 1}})
    )
    await bulk_metadata.change_items(world.place, **arguments)
    command = await ended(world, arguments)
    assert (command.status, command.progress_percent) == ("success", 100)
    assert command.spec["update"] == {"items": 15, "done": 15, "changed": 15, "tooLarge": 0}
    found = await metadata(world, dataset)
    for path, (user, system) in found.items():
        if path.startswith("/even/"):
            assert user == {"a": {"b": 1}}
            assert system == {"tags": {"x": 1}}
        else:
            assert user is None
    assert not any(action == "Updated" for action, _ in await world.events(dataset)), "new bytes there are none"


@pytest.mark.parametrize(
    "change",
    [
        {"flat": 2, "gone": None, "deep": {"kept": None, "new": {"a": None, "b": [None]}}},
        {"gone": None, "never": None},
        {"deep": "flat", "flat": {"deep": 1}},
        {f"key{n}": {"n": n} if n % 3 else None for n in range(300)} | {"gone": None, "flat": 3},
    ],
)
async def test_a_patch_means_what_it_means_for_one_item(world: World, change: dict[str, Any]) -> None:
    before = {"flat": 1, "gone": 1, "deep": {"kept": 1, "other": 2}, "left": [1], "key3": 3, "key4": {"m": 1}}
    dataset, _ = await filled(world, 3)
    wanted = {"filter": {}}
    await bulk_metadata.change_items(world.place, **await requested(world, dataset, wanted, patch(before)))
    await bulk_metadata.change_items(world.place, **await requested(world, dataset, wanted, patch(change)))
    assert [user for user, _ in (await metadata(world, dataset)).values()] == [merged(before, change)] * 3


async def test_what_is_so_already_is_not_written_and_no_edit(world: World) -> None:
    dataset, _ = await filled(world, 3)
    for change, edited in ((patch(system={"tags": {"x": 1}}), False), (patch({"a": 1}), True)):
        arguments = await requested(world, dataset, {"filter": {}}, change)
        await bulk_metadata.change_items(world.place, **arguments)
        item = await world.item(dataset, "/even/00.txt")
        assert item is not None
        assert (item.metadata_edited_at is not None) is edited
    before = await world.rows_written(dataset)
    arguments = await requested(world, dataset, {"filter": {}}, patch({"a": 1, "b": None}))
    await bulk_metadata.change_items(world.place, **arguments)
    assert (await ended(world, arguments)).spec["update"]["changed"] == 0
    assert await world.rows_written(dataset) == before


@pytest.mark.usefixtures("small_pieces")
async def test_a_split_holds_all_items_of_its_piece_before_it_changes_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or two splits, which deal the same items otherwise, would wait for each other."""
    dataset, _ = await filled(world, 7)
    change = ChangeJson(user={}, system={}, shares={"train": 50, "test": 50})
    arguments = await requested(world, dataset, {"filter": {}}, change)
    patched, free = catalog.patch_items, list[int]()

    async def looking(*given: Any, **named: Any) -> Any:
        async with world.connection() as other:
            found = await other.execute(
                "SELECT id FROM item WHERE dataset_id = %s AND path LIKE '%%.txt' FOR UPDATE SKIP LOCKED", [dataset.id]
            )
            free.extend(item_id for (item_id,) in await found.fetchall())
        return await patched(*given, **named)

    monkeypatch.setattr(catalog, "patch_items", looking)
    await bulk_metadata.change_items(world.place, **arguments)
    assert ((await ended(world, arguments)).status, free) == ("success", [])


async def test_two_workers_at_once_and_a_repeated_job_change_each_item_once(world: World) -> None:
    dataset, _ = await filled(world)
    arguments = await requested(world, dataset, {"filter": {}}, patch({"a": 1}))
    await asyncio.gather(*[bulk_metadata.change_items(world.place, **arguments) for _ in range(3)])
    assert (await ended(world, arguments)).spec["update"]["changed"] == 30


@pytest.mark.usefixtures("small_pieces")
async def test_a_job_that_dies_at_any_commit_goes_on_where_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, _ = await filled(world)
    change = ChangeJson(user={}, system={}, shares={"train": 80, "validation": 10, "test": 10})
    arguments = await requested(world, dataset, {"filter": {}}, change)
    for pieces in (1, 2, 0):
        left = pieces
        real = commands.note_progress

        async def dying(*given: Any, real: Any = real, **named: Any) -> bool:
            nonlocal left
            left -= 1
            if left < 0:
                raise ConnectionError
            return await real(*given, **named)

        with monkeypatch.context() as patched:
            patched.setattr(commands, "note_progress", dying)
            with pytest.raises(ConnectionError):
                await bulk_metadata.change_items(world.place, **arguments)
    await bulk_metadata.change_items(world.place, **arguments)
    command = await ended(world, arguments)
    assert command.spec["subsets"] == {"train": 24, "validation": 3, "test": 3}
    tags = [system["tags"] for _, system in (await metadata(world, dataset)).values()]
    assert Counter(tuple(each.items()) for each in tags) == {
        (("train", True),): 24,
        (("validation", True),): 3,
        (("test", True),): 3,
    }


async def test_an_abort_stops_it_and_says_how_far_it_came(world: World) -> None:
    dataset, _ = await filled(world, 3)
    arguments = await requested(world, dataset, {"filter": {}}, patch({"a": 1}))
    async with world.connection() as conn:
        await commands.request_abort(conn, arguments["command_id"])
    await bulk_metadata.change_items(world.place, **arguments)
    command = await ended(world, arguments)
    assert command.status == "aborted"
    assert command.error is not None
    assert "0 of 3" in command.error


async def test_metadata_that_would_become_too_large_is_left_and_told(world: World) -> None:
    dataset, _ = await filled(world, 2)
    for key in ("a", "b"):
        arguments = await requested(world, dataset, {"filter": {}}, patch({key: "x" * 600_000}))
        await bulk_metadata.change_items(world.place, **arguments)
    command = await ended(world, arguments)
    assert command.spec["update"] == {"items": 2, "done": 2, "changed": 0, "tooLarge": 2}
    assert command.warning is not None
    assert "2 items were left" in command.warning
    assert all(list(user) == ["a"] for user, _ in (await metadata(world, dataset)).values())


_SHARES = st.lists(st.integers(0, 100), min_size=1, max_size=5).map(
    lambda cuts: [b - a for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 100], strict=True)]
)


@given(_SHARES, st.lists(st.integers(0, 60), min_size=1, max_size=5), st.integers())
def test_whatever_the_pieces_are_subsets_have_their_shares(shares: list[int], pieces: list[int], seed: int) -> None:
    named = {f"s{n}": share for n, share in enumerate(shares)}
    counts: Counter[str] = Counter()
    start = 0
    for number in pieces:
        parts = dealt(range(start, start + number), named, counts, seed=seed)
        assert sorted(item for part in parts.values() for item in part) == list(range(start, start + number))
        counts.update({name: len(part) for name, part in parts.items()})
        start += number
    for name, share in named.items():
        assert abs(counts[name] - share * start / 100) < len(named)
        assert share or not counts[name]
