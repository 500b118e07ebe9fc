"""What benchmarks stand on: a fresh installation with its embedded database, and datasets on a bucket."""

import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from psycopg import AsyncConnection

from headwater.catalog import commands, datasets, drivers, integrations, organizations, projects
from headwater.catalog.datasets import Dataset
from headwater.catalog.drivers import NewDriver
from headwater.installation import open_installation
from headwater.settings import Settings
from headwater.work import sync
from headwater.workplace import load_vault
from tests.servers import REGION, S3Server

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


async def request_scan(conn: AsyncConnection, dataset: Dataset) -> int:
    """As the API does it, job included. Returns the scan's id."""
    command_id = await sync.request_sync(conn, dataset, caller_id=None)
    cursor = await conn.execute("SELECT id FROM scan WHERE command_id = %s", [command_id])
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def check_scan(conn: AsyncConnection, scan_id: int, *, listed: int) -> None:
    """Raises AssertionError unless it ended well, with that many objects."""
    cursor = await conn.execute("SELECT state, listed, command_id FROM scan WHERE id = %s", [scan_id])
    row = await cursor.fetchone()
    assert row is not None
    command = await commands.load_command(conn, row[2])
    assert row[:2] == ("done", listed), f"{row} {command.error} {command.warning}"
    assert command.status == "success", command.error
