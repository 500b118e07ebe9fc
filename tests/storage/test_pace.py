"""Throttling stores are asked more slowly, and quickly again when they are quiet. No test waits: time is played."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest
from aiohttp import web

from headwater.errors import Unavailable
from headwater.storage.azure.signing import AccountKey
from headwater.storage.gcs.requests import GcsCredentials
from headwater.storage.opening import open_azure, open_gcs, open_s3
from headwater.storage.pace import LONGEST_REST_S, Pace
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.stores import Store
from tests.storage.played import CLOUDS, Asked, Page, Played

GAP_S = 0.05
KEYS = [f"{number:04}" for number in range(200)]


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(GAP_S, clock=clock, sleep=clock.sleep)


async def test_a_store_that_is_quiet_is_asked_at_once(clock: Clock, pace: Pace):
    for _ in range(100):
        pace.go_on(await pace.turn())
    assert clock.slept == []


async def test_each_throttled_answer_doubles_the_gap_up_to_a_second(pace: Pace):
    gaps: list[float] = []
    for _ in range(8):
        pace.slow_down(await pace.turn())
        gaps.append(pace.gap_s)
    assert gaps == [GAP_S, 2 * GAP_S, 4 * GAP_S, 8 * GAP_S, 16 * GAP_S, 1, 1, 1]


async def test_requests_throttled_together_count_once(clock: Clock, pace: Pace):
    begun = [await pace.turn() for _ in range(8)]
    clock.now_s += 0.1
    for began_s in begun:
        pace.slow_down(began_s)
    assert pace.gap_s == GAP_S


async def test_who_waits_comes_one_after_the_other(clock: Clock, pace: Pace):
    pace.slow_down(await pace.turn())
    first = clock.now_s
    assert [round(await pace.turn() - first, 6) for _ in range(4)] == [0, 0.05, 0.1, 0.15]


async def test_who_rests_holds_nobody_else_up(clock: Clock, pace: Pace):
    resting = asyncio.Event()
    over = asyncio.Event()

    async def sleep(_seconds: float) -> None:
        resting.set()
        await over.wait()

    pace.slow_down(await pace.turn())
    pace._sleep = sleep
    task = asyncio.create_task(pace.turn(10))
    await resting.wait()
    assert await pace.turn() == clock.now_s
    over.set()
    await task


async def test_an_answer_to_what_was_asked_before_the_throttling_proves_nothing(clock: Clock, pace: Pace):
    early = await pace.turn()
    clock.now_s += 0.1
    pace.slow_down(early)
    pace.go_on(early)
    assert pace.gap_s == GAP_S


async def test_quiet_brings_the_speed_back(clock: Clock, pace: Pace):
    for _ in range(6):
        pace.slow_down(await pace.turn())
    began_s = clock.now_s
    answers = 0
    while pace.gap_s:
        pace.go_on(await pace.turn())
        answers += 1
    assert 20 < answers < 50
    assert clock.now_s - began_s < 12


def credentials(value: object) -> Callable:
    async def provide(_anew: bool) -> object:
        return value

    return provide


OPEN: dict[str, Callable[..., Store]] = {
    "s3": lambda url, **more: open_s3(
        bucket="cams", region="us-east-1", endpoint=url, credentials=credentials(S3Credentials("a", "b")), **more
    ),
    "gcs": lambda url, **more: open_gcs(
        bucket="cams", endpoint=url, credentials=credentials(GcsCredentials("t")), **more
    ),
    "azure": lambda url, **more: open_azure(
        account="acct", container="cams", endpoint=url, credentials=credentials(AccountKey("MDEyMzQ1Njc4OWFi")), **more
    ),
}


@pytest.fixture(params=list(CLOUDS))
async def cloud(request: pytest.FixtureRequest) -> AsyncIterator[Played]:
    async with CLOUDS[request.param].running() as played:
        played.objects = {key: key.encode() for key in KEYS}
        yield played


async def opened(cloud: Played, clock: Clock, **more: int) -> Store:
    store = OPEN[cloud.name](cloud.url, backoff_s=0.25, **more)
    store._sender.pace = Pace(GAP_S, clock=clock, sleep=clock.sleep)
    return store


def throttles(pages: range, clock: Clock, times: list[float], **headers: str):
    async def bend(cloud: Played, asked: Asked, page: Page) -> Page | web.StreamResponse:
        times.append(clock.now_s)
        if asked.number not in pages:
            return page
        refusal = cloud.refuse("busy")
        refusal.headers.update(headers)
        return refusal

    return bend


async def keys_of(store: Store) -> list[str]:
    return [key async for page in store.list_pages() for key in page.keys]


async def test_a_throttled_listing_backs_off_slows_down_goes_on_and_speeds_up(cloud: Played, clock: Clock):
    cloud.page_keys = 4
    times: list[float] = []
    cloud.bend = throttles(range(5, 8), clock, times)
    store = await opened(cloud, clock)
    assert await keys_of(store) == KEYS
    await store.close()
    gaps = [round(later - earlier, 6) for earlier, later in pairwise(times)]
    assert gaps[:4] == [0] * 4
    for number, gap in enumerate(gaps[4:7], start=1):  # with jitter: between a half and the whole
        assert 0.25 * 2**number / 2 <= gap <= 0.25 * 2**number
    assert gaps[7] > gaps[-1] == 0
    assert len(set(gaps[4:7])) == 3


@pytest.mark.parametrize(("asked_s", "waited_s"), [("7", 7), ("0", 0), ("86400", LONGEST_REST_S), ("1e9", 0), ("x", 0)])
async def test_a_store_that_says_when_to_come_back_is_heeded(
    cloud: Played, clock: Clock, asked_s: str, waited_s: float
):
    times: list[float] = []
    cloud.bend = throttles(range(3, 4), clock, times, **{"Retry-After": asked_s})
    store = await opened(cloud, clock)
    assert await keys_of(store) == KEYS
    await store.close()
    assert waited_s <= times[3] - times[2] <= max(waited_s, 0.5) + 0.001


async def test_a_moment_to_come_back_is_read_by_the_stores_own_clock(cloud: Played, clock: Clock):
    times: list[float] = []
    dates = {"Date": "Fri, 02 Jan 1970 03:04:05 GMT", "Retry-After": "Fri, 02 Jan 1970 03:04:16 GMT"}
    cloud.bend = throttles(range(3, 4), clock, times, **dates)
    store = await opened(cloud, clock)
    assert await keys_of(store) == KEYS
    await store.close()
    assert 11 <= times[3] - times[2] < 11.001


async def test_a_store_that_throttles_for_ever_is_busy(cloud: Played, clock: Clock):
    cloud.bend = throttles(range(3, 1000), clock, [])
    store = await opened(cloud, clock)
    with pytest.raises(Unavailable, match="busy"):
        await keys_of(store)
    await store.close()


async def test_who_tries_once_does_not_wait(cloud: Played, clock: Clock):
    """A check of a connection: somebody sits before it."""
    cloud.bend = throttles(range(1, 2), clock, [], **{"Retry-After": "20"})
    store = await opened(cloud, clock, attempts=1)
    with pytest.raises(Unavailable):
        await store.check_listing()
    await store.check_listing()
    await store.close()
    assert clock.slept == []
