"""Turns of hosts: few at once, and none of a silent one."""

import asyncio

import pytest

from headwater.errors import Unavailable
from headwater.net import turns
from headwater.net.turns import LetAlone, Turns


async def fetch(turns: Turns, host: str, running: list[str], go: asyncio.Event) -> None:
    async with turns.turn(host):
        running.append(host)
        await go.wait()


async def test_a_host_has_few_turns_at_once_and_leaves_the_others_to_others():
    shared, running, go = Turns(at_once=5, at_once_of_a_host=2), [], asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for host in ["slow"] * 50 + ["a", "b", "c", "d"]:
            group.create_task(fetch(shared, host, running, go))
        for _ in range(20):  # all have begun, and wait
            await asyncio.sleep(0)
        assert running == ["slow", "slow", "a", "b", "c"]
        go.set()
    assert running.count("slow") == 50
    assert shared._hosts == {}


async def test_who_waits_long_for_a_slow_host_comes_again_later():
    shared, running, go = Turns(at_once=5, at_once_of_a_host=1, patience_s=0.01), [], asyncio.Event()
    slow = asyncio.create_task(fetch(shared, "slow", running, go))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="slow"):
        await fetch(shared, "slow", running, go)
    go.set()
    await slow
    await fetch(shared, "slow", running, go)
    assert running == ["slow", "slow"]
    assert shared._hosts == {}


async def test_a_host_that_is_silent_three_times_is_let_alone_for_a_minute(monkeypatch: pytest.MonkeyPatch):
    now_s = 1000.0
    monkeypatch.setattr(turns, "monotonic", lambda: now_s)
    shared = Turns(at_once=5, at_once_of_a_host=2)

    async def is_let_alone(host: str) -> bool:
        try:
            async with shared.turn(host):
                return False
        except LetAlone:
            return True

    for times in range(4):
        assert await is_let_alone("a") == (times >= 3)
        shared.note_silence("a")
    assert not await is_let_alone("b")
    now_s += 61
    assert [await is_let_alone("a") for _ in range(3)] == [False, True, True]  # one tries it for all
    shared.note_silence("a")
    assert await is_let_alone("a")
    now_s += 61
    shared.note_answer("a")
    shared.note_silence("a")
    assert not await is_let_alone("a")
    assert shared._hosts == {}


async def test_as_many_hosts_as_there_are_cost_bounded_memory():
    shared = Turns(at_once=5, at_once_of_a_host=2)
    for number in range(20_000):
        shared.note_silence(f"{number}.example.com")
    assert len(shared._silent) == 10_000
