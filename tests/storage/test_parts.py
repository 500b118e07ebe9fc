"""Parts: cut exactly, and sent side by side within their limit."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.storage.parts import InFlight, PartBuffer, Room


@given(st.lists(st.integers(0, 70_000), max_size=12), st.lists(st.integers(1, 50_000), min_size=1, max_size=3))
def test_parts_are_what_was_written_in_the_sizes_asked_for(chunks: list[int], sizes: list[int]):
    def size_of(part: int) -> int:
        return sizes[min(part, len(sizes) - 1)]

    whole = b"".join(bytes([number % 251]) * size for number, size in enumerate(chunks))
    buffer, start, parts = PartBuffer(size_of), 0, []
    for size in chunks:
        parts += list(buffer.cut(whole[start : start + size]))
        start += size
    rest = buffer.rest
    assert b"".join(parts) + rest == whole
    assert [len(part) for part in parts] == [size_of(number) for number in range(len(parts))]
    assert len(rest) <= size_of(len(parts))
    assert bool(rest) == bool(whole)
    assert (buffer.size_bytes, buffer.take_rest(), buffer.rest) == (len(whole), rest, b"")


async def test_requests_wait_for_room_and_large_ones_go_alone():
    in_flight, under_way, most = InFlight(20, Room(100)), set[int](), 0
    going = asyncio.Event()

    async def send(number: int, size: int) -> None:
        nonlocal most
        under_way.add(size * 1000 + number)
        most = max(most, sum(one // 1000 for one in under_way))
        await going.wait()
        under_way.discard(size * 1000 + number)

    await in_flight.add(10, send(1, 10))
    await in_flight.add(10, send(2, 10))
    third = asyncio.create_task(in_flight.add(10, send(3, 10)))
    await asyncio.sleep(0)
    assert (third.done(), len(under_way)) == (False, 2)
    going.set()
    await third
    await in_flight.add(50, send(4, 50))  # waits for its end
    assert under_way == set()
    await in_flight.land()
    assert most == 50


async def test_all_share_a_room_and_each_may_always_send_one():
    room, going, begun = Room(10), asyncio.Event(), []
    first, second = InFlight(30, room), InFlight(30, room)

    async def send(name: str) -> None:
        begun.append(name)
        await going.wait()

    for name in ("a", "b"):
        await first.add(10, send(name))
    await second.add(10, send("c"))
    waiting = asyncio.create_task(second.add(10, send("d")))
    await asyncio.sleep(0)
    assert begun == ["a", "b", "c"]
    await first.drop()  # gives back what it took
    going.set()
    await waiting
    await second.land()
    assert (begun, room.take(10), room.take(1)) == (["a", "b", "c", "d"], True, False)


async def test_what_fails_is_told_at_the_next_step_and_the_others_end_when_dropped():
    in_flight, cancelled = InFlight(100, Room(100)), asyncio.Event()

    async def fail() -> None:
        raise OSError("lost")

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    await in_flight.add(60, hang())
    await in_flight.add(40, fail())
    with pytest.raises(OSError, match="lost"):
        await in_flight.add(10, hang())
    await in_flight.drop()
    assert cancelled.is_set()
    await in_flight.land()
