"""No outage removes anything: every entry of the catalogue, through the real adapters, vault and database."""

import asyncio
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from headwater.catalog import datasets, drivers
from headwater.catalog.commands import Command
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync import scans, shards
from headwater.catalog.sync.scans import Scan
from headwater.storage import sending
from headwater.work import sync
from headwater.work.clouds import Patience
from tests import google
from tests.storage.played import CLOUDS, Played, PlayedS3
from tests.work.outages import OUTAGES, PREFIX, Outage
from tests.work.test_cloud_checks import driver_on
from tests.work.world import World, ghosts, present

pytestmark = pytest.mark.usefixtures("small_batches", "hurried")

KEYS = [
    *(f"a/{number:03}" for number in range(25)),
    *(f"b/{number:03}" for number in range(110)),
    *(f"c/{number:03}" for number in range(25)),
    *("A.jpg", "a-b/x", "a b/x", "B/0", "\u00e9.jpg", "z%2F+&"),
]
OUTSIDE = ("in-2/x", "out/x", "zz")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for in earnest takes a moment here."""
    monkeypatch.setattr("headwater.work.places.Patience", lambda: Patience(backoff_s=0.001))
    monkeypatch.setattr(sending, "_REQUEST_DEADLINE_S", 0.4)


@pytest.fixture(scope="module")
def tokens() -> Iterator[google.GoogleTokens]:
    with google.google_tokens() as running:
        yield running


OPTIONS = {
    "s3": ("s3", {"key": "key-id", "secret": "very-secret"}),
    "azure": ("azureblob", {"key": "acct", "secret": "MDEyMzQ1Njc4OWFiY2RlZg=="}),
}


async def dataset_on(world: World, cloud: Played, tokens: google.GoogleTokens, *, prefix: str = PREFIX) -> Dataset:
    """Opened as the product does it: driver, vault, adapter."""
    kind, options = OPTIONS.get(cloud.name, ("gcs", {"content": google.key_file(token_uri=tokens.token_uri)}))
    driver = await driver_on(world, kind, options, "cams", cloud.url, prefix=prefix, allow_delete=True)
    return await dataset_of(world, driver)


async def dataset_of(world: World, driver: drivers.Driver) -> Dataset:
    async with world.connection() as conn:
        return await datasets.create_dataset(
            conn, world.owner, project_id=driver.project_id, driver_id=driver.id, name="dataset"
        )


async def run(world: World, dataset: Dataset, *, lanes: int = 1) -> tuple[Command, Scan]:
    """A sync to its end, though the store may be down: no other try is left."""
    _, scan_id = await world.request(dataset)

    async def work(lane: int) -> None:
        while await is_running(world, scan_id):
            await sync.run_scan(world.place, scan_id, lane, is_last_try=True)

    await asyncio.gather(*(work(lane) for lane in range(lanes)))
    return await world.ended(dataset)


async def is_running(world: World, scan_id: int) -> bool:
    async with world.connection() as conn:
        scan = await scans.load_scan(conn, scan_id)
    return scan is not None and scan.state == "running"


def paths_of(cloud: Played) -> set[str]:
    return {"/" + key.removeprefix(PREFIX) for key in cloud.objects if key.startswith(PREFIX)}


async def ids_of(world: World, dataset: Dataset) -> dict[str, int]:
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT path, id FROM item WHERE dataset_id = %s", [dataset.id])
        return dict(await cursor.fetchall())


async def tombstones(world: World, dataset: Dataset) -> int:
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT count(*) FROM tombstone WHERE dataset_id = %s", [dataset.id])
        return (await cursor.fetchone())[0]


CASES = [pytest.param(cloud, outage, id=f"{cloud}-{outage.name}") for outage in OUTAGES for cloud in outage.clouds]


def test_the_catalogue_names_each_outage_once_and_says_how_it_ends():
    assert len({outage.name for outage in OUTAGES}) == len(OUTAGES) >= 50
    for outage in OUTAGES:
        assert outage.sentence.endswith(".")
        assert bool(outage.words) == (outage.ends != "well")
        assert outage.bend or outage.change


@pytest.mark.parametrize(("name", "outage"), CASES)
async def test_an_outage_removes_nothing(world: World, tokens: google.GoogleTokens, name: str, outage: Outage):
    async with CLOUDS[name].running() as cloud:
        cloud.objects = {PREFIX + key: key.encode() for key in KEYS} | dict.fromkeys(OUTSIDE, b"x")
        dataset = await dataset_on(world, cloud, tokens)
        await run(world, dataset)
        before = await ids_of(world, dataset)
        assert set(before) == paths_of(cloud)

        cloud.objects |= {PREFIX + "a/changed": b"1", PREFIX + "c/024": b"changed", PREFIX + "zzz": b"new"}
        await strike(world, cloud, dataset, outage)
        assert ghosts(await world.index(dataset)) == set()
        assert before.items() <= (await ids_of(world, dataset)).items()
        assert await tombstones(world, dataset) == 0
        assert {request.method for request in cloud.requests} <= {"GET", "HEAD"}

        del cloud.objects[PREFIX + "b/007"]
        gone = set(await ids_of(world, dataset)) - paths_of(cloud)  # with what another bucket showed meanwhile
        command, scan = await run(world, dataset)
        assert (command.status, command.warning, scan.state, scan.marked) == ("success", None, "done", len(gone))
        await is_as_the_bucket(world, dataset, cloud, gone=gone)
        assert before.items() <= (await ids_of(world, dataset)).items()


@contextmanager
def struck(cloud: Played, outage: Outage) -> Generator[None]:
    """The outage lasts as long as the block, and happens."""
    objects, order = dict(cloud.objects), cloud.order
    if outage.change is not None:
        outage.change(cloud)
    if outage.bend is not None:
        cloud.bend, cloud.listings, cloud.bent = outage.bend(), 0, 0
    yield
    assert outage.bend is None or cloud.bent, "The outage did not happen."
    cloud.objects, cloud.order, cloud.bend, cloud.is_unlisted = objects, order, None, lambda _key: False


async def strike(world: World, cloud: Played, dataset: Dataset, outage: Outage) -> None:
    """One sync under the outage, which ends as the catalogue says."""
    with struck(cloud, outage):
        command, scan = await run(world, dataset)
    told = (command.status, scan.state)
    assert (
        told
        == {
            "failed": ("failed", "stopped"),
            "held": ("success", "held"),
            "warned": ("success", "done"),
            "well": ("success", "done"),
        }[outage.ends]
    ), command.error or command.warning
    sentence = command.error if outage.ends == "failed" else command.warning
    assert re.search(outage.words, sentence or ""), sentence
    assert bool(sentence) == (outage.ends != "well")
    if outage.ends in {"warned", "well"}:
        await is_as_the_bucket(world, dataset, cloud, gone=set())


@pytest.mark.parametrize("outage", [outage for outage in OUTAGES if "s3" in outage.clouds], ids=lambda one: one.name)
async def test_an_outage_removes_nothing_from_what_several_lanes_list(
    world: World, tokens: google.GoogleTokens, monkeypatch: pytest.MonkeyPatch, outage: Outage
):
    async def bounds(*_: object) -> list[str]:
        return ["/a/010", "/b/030", "/b/08", "/c/005"]

    monkeypatch.setattr(shards, "last_bounds", bounds)
    async with PlayedS3.running() as cloud:
        cloud.objects = {PREFIX + key: key.encode() for key in KEYS} | dict.fromkeys(OUTSIDE, b"x")
        dataset = await dataset_on(world, cloud, tokens)
        await run(world, dataset, lanes=3)
        before = await ids_of(world, dataset)
        assert set(before) == paths_of(cloud)
        cloud.objects |= {PREFIX + "a/changed": b"1", PREFIX + "c/024": b"changed"}
        with struck(cloud, outage):
            command, _ = await run(world, dataset, lanes=3)
        assert command.status in ("success", "failed")
        assert ghosts(await world.index(dataset)) == set()
        assert before.items() <= (await ids_of(world, dataset)).items()
        assert await tombstones(world, dataset) == 0

        del cloud.objects[PREFIX + "b/007"]
        gone = set(await ids_of(world, dataset)) - paths_of(cloud)
        _, scan = await run(world, dataset, lanes=3)
        assert (scan.state, scan.marked) == ("done", len(gone))
        await is_as_the_bucket(world, dataset, cloud, gone=gone)
        assert {request.method for request in cloud.requests} <= {"GET", "HEAD"}


async def is_as_the_bucket(world: World, dataset: Dataset, cloud: Played, *, gone: set[str]) -> None:
    found: dict[str, Any] = await world.index(dataset)
    assert ghosts(found) == gone
    assert present(found) == paths_of(cloud)
    sizes = {"/" + key.removeprefix(PREFIX): len(body) for key, body in cloud.objects.items()}
    assert {path: size for path, (_, size, missing) in found.items() if not missing} == {
        path: sizes[path] for path in present(found)
    }
