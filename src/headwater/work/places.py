"""Places: opens the store a dataset's objects are in, with credentials from the vault and only where it may connect."""

import os
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from psycopg import AsyncConnection

from headwater.catalog import datasets, drivers, integrations
from headwater.catalog.drivers import Driver
from headwater.db.pool import Pool
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.settings import Settings
from headwater.storage.opening import open_local, open_s3
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.stores import Store
from headwater.vault.local import LocalVault

_DEFAULT_REGION = "us-east-1"
_MOST_OPEN = 256


class Places:
    """Keeps stores open between uses: a connection to a bucket costs more than most requests over it.

    Make it inside the event loop, with the connector that decides where connections may go.
    """

    def __init__(self, pool: Pool, vault: LocalVault, settings: Settings, connector: aiohttp.BaseConnector) -> None:
        self._pool = pool
        self._vault = vault
        self._settings = settings
        self._connector = connector
        self._open: OrderedDict[str, Store] = OrderedDict()
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def of_dataset(self, dataset_id: int) -> AsyncGenerator[Store]:
        """The store of a dataset: its driver's, or our own. Raises NotFound, BadRequest, VaultError."""
        async with self._pool.connection() as conn:
            driver_id = await datasets.driver_of(conn, dataset_id)
            driver = None if driver_id is None else await drivers.get_driver(conn, driver_id)
        name = f"own:{dataset_id}" if driver is None else f"driver:{driver.id}"
        if name not in self._open:
            self._open[name] = self._open_own(dataset_id) if driver is None else self.open(driver)
        self._open.move_to_end(name)
        self._users[name] += 1
        try:
            yield self._open[name]
        finally:
            self._users[name] -= 1
            await self._close_oldest_idle()

    async def _close_oldest_idle(self) -> None:
        too_many = len(self._open) - _MOST_OPEN
        if too_many <= 0:
            return
        for name in [name for name in self._open if not self._users[name]][:too_many]:
            del self._users[name]
            await self._open.pop(name).close()

    def _open_own(self, dataset_id: int) -> Store:
        folder = self._settings.data_dir / "storage" / to_wire(dataset_id)
        folder.mkdir(parents=True, exist_ok=True)
        return open_local(root=folder)

    def open(self, driver: Driver) -> Store:
        """A store for one use, to be closed by the caller. Raises BadRequest for a folder that is not allowed."""
        if driver.integration_kind == "hostPath":
            return open_local(root=checked_folder(self._settings, driver.root, driver.prefix))
        return open_s3(
            bucket=driver.root,
            prefix=driver.prefix,
            region=driver.region or _DEFAULT_REGION,
            endpoint=driver.endpoint,
            credentials=self._credentials_of(driver),
            connector=self._connector,
        )

    def _credentials_of(self, driver: Driver) -> Any:
        known: S3Credentials | None = None

        async def credentials(anew: bool) -> S3Credentials:
            nonlocal known
            if known is None or anew:
                async with self._pool.connection() as conn:
                    known = await self._read_credentials(conn, driver.integration_id)
            return known

        return credentials

    async def _read_credentials(self, conn: AsyncConnection[Any], integration_id: int) -> S3Credentials:
        secret = await integrations.open_secret(conn, self._vault, integration_id)
        return S3Credentials(secret["key"], secret["secret"], secret.get("sessionToken"))

    async def close(self) -> None:
        for store in self._open.values():
            await store.close()
        self._open.clear()


def checked_folder(settings: Settings, root: str, prefix: str = "") -> Path:
    """The folder of a local driver. Raises BadRequest unless the operator allowed it or a folder above it."""
    folder = Path(os.path.realpath(Path(root, prefix)))
    if not any(folder.is_relative_to(os.path.realpath(allowed)) for allowed in settings.local_roots):
        raise BadRequest(
            f"The folder {root} is not one that this server may use. Its operator can allow it: start Headwater with "
            f"HEADWATER_LOCAL_ROOTS={root}"
        )
    return folder
