"""What benchmarks stand on: a fresh installation with its embedded database, and datasets on a bucket."""

import asyncio
import re
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, datasets, drivers, integrations, organizations, projects
from headwater.catalog.datasets import Dataset
from headwater.catalog.drivers import NewDriver
from headwater.installation import open_installation
from headwater.settings import Settings
from headwater.work import sync, tasks
from headwater.work.workplace import Workplace
from headwater.workplace import load_vault
from tests.servers import REGION, S3Server

_SYNC_QUEUES = ["sync", "lanes", "default"]  # default: what follows a sync
_SYNC_JOBS_AT_ONCE = 4  # of one sync in one worker
_LOOK_EVERY_S = 0.02
# What a sync without a change must not write: all else is its own book-keeping, a few rows for each batch of objects.
_OF_ITEMS = re.compile("item.*|folder|tombstone|event|hint|scan_candidate|scan_stage")

_started_at = time.monotonic()
_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Ground:
    settings: Settings
    database_url: str


def say(text: str) -> None:
    print(f"[{time.monotonic() - _started_at:6.1f} s] {text}", file=sys.stderr, flush=True)


@contextmanager
def temporary_folder() -> Generator[Path]:
    with tempfile.TemporaryDirectory(prefix="headwater-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@contextmanager
def installed(folder: Path) -> Generator[Ground]:
    """In its default configuration; only the buckets are allowed to be on this machine."""
    settings = Settings(data_dir=folder / "headwater", database_url=None, allow_private_endpoints=True)
    with open_installation(settings) as installation:
        yield Ground(settings, installation.database_url)


async def make_dataset(ground: Ground, server: S3Server, bucket: str, prefix: str = "") -> Dataset:
    """A new one on the bucket's folder, with all it needs; not synced."""
    name = f"bench-{next(_numbers)}"
    async with await AsyncConnection.connect(ground.database_url) as conn:
        owner = await organizations.get_owner(conn)
        project = await projects.create_project(conn, owner, name)
        integration = await integrations.create_integration(
            conn,
            load_vault(ground.settings).local,
            owner,
            project.organization_id,
            name=name,
            kind="s3",
            options={"key": server.admin.access_key_id, "secret": server.admin.secret_access_key},
            metadata={},
        )
        new = NewDriver(
            name=name,
            kind="s3",
            integration_id=integration.id,
            root=bucket,
            prefix=prefix,
            region=REGION,
            storage_class=None,
            endpoint=server.endpoint,
            allow_delete=False,
        )
        driver = await drivers.create_driver(conn, owner, project.id, new)
        return await datasets.create_dataset(conn, owner, project_id=project.id, driver_id=driver.id, name=name)


@asynccontextmanager
async def sync_jobs(place: Workplace) -> AsyncGenerator[None]:
    """Jobs of syncs run until the end of the block as in a worker, and no others: preprocessing takes no share."""
    app = queue.worker_app(place.pool)
    tasks.register(app, place)
    async with app.open_async(place.pool):
        running = asyncio.create_task(
            app.run_worker_async(
                queues=_SYNC_QUEUES,
                concurrency=_SYNC_JOBS_AT_ONCE,
                install_signal_handlers=False,
                delete_jobs="successful",
            )
        )
        try:
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def sync_whole(place: Workplace, dataset: Dataset, *, expected: int) -> float:
    """Seconds from the request, made as the API does it, to the committed end. Raises AssertionError if it went wrong.

    Needs `sync_jobs`.
    """
    began = time.perf_counter()
    async with place.pool.connection() as conn:
        command_id = await sync.request_sync(conn, dataset, caller_id=None)
    async with place.pool.connection() as conn:
        await conn.set_autocommit(True)
        while not (command := await commands.load_command(conn, command_id)).has_ended:  # noqa: ASYNC110 - no event is told
            await asyncio.sleep(_LOOK_EVERY_S)
        took_s = time.perf_counter() - began
        await conn.set_autocommit(False)
        assert command.status == "success", command.error
        cursor = await conn.execute("SELECT state, listed FROM scan WHERE command_id = %s", [command_id])
        row = await cursor.fetchone()
    assert row == ("done", expected), f"{row} {command.warning}"
    return took_s


def items_and_books(written: dict[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    """Rows written by table: those of items, and those of the sync's own books."""
    of_items = {table: rows for table, rows in written.items() if _OF_ITEMS.fullmatch(table)}
    return of_items, {table: rows for table, rows in written.items() if table not in of_items}
