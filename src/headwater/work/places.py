"""The store of a dataset: opened from its driver and the secret of its integration, or our own."""

import os
from collections import Counter, OrderedDict
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime
from pathlib import Path

import aiohttp

from headwater.catalog import datasets, drivers
from headwater.catalog.drivers import Driver
from headwater.catalog.items import Item
from headwater.catalog.serving import Kept
from headwater.db.pool import Pool
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.settings import Settings
from headwater.storage.opening import open_local, open_session
from headwater.storage.stores import Store
from headwater.work.clouds import Clouds, Patience
from headwater.work.credentials import Secrets

_MOST_OPEN = 256


class Places:
    """Keeps stores open between uses: a connection to a bucket costs more than most requests over it.

    Make it inside the event loop, with the connector that decides where connections may go.
    """

    def __init__(self, pool: Pool, secrets: Secrets, settings: Settings, connector: aiohttp.BaseConnector) -> None:
        self._pool = pool
        self._settings = settings
        self._session = open_session(connector)
        self.clouds = Clouds(secrets, settings, connector, self._session)
        self._open: OrderedDict[str, Store] = OrderedDict()
        self._users: Counter[str] = Counter()

    @property
    def session(self) -> aiohttp.ClientSession:
        """For requests without credentials; it connects where stores may be, and nowhere else."""
        return self._session

    @asynccontextmanager
    async def of_dataset(self, dataset_id: int) -> AsyncGenerator[Store]:
        """The store of a dataset: its driver's, or our own. Raises NotFound, BadRequest, VaultError."""
        driver = await self._driver_of(dataset_id)
        async with self._used(dataset_id, driver) as store:
            yield store

    @asynccontextmanager
    async def of_derived(self, dataset_id: int) -> AsyncGenerator[Store]:
        """Where a dataset's derived files lie: in its bucket, unless nothing may be written there; then with us."""
        driver = await self._driver_of(dataset_id)
        async with self._used(dataset_id, None if driver is not None and driver.read_only else driver) as store:
            yield store

    @asynccontextmanager
    async def of_item(self, item: Item) -> AsyncGenerator[Store]:
        """Where the object of an item lies, also when it is a clone. Raises NotFound, BadRequest, VaultError."""
        driver = await self._driver_of(item.dataset_id)
        async with self._used(item.origin_dataset_id or item.dataset_id, driver) as store:
            yield store

    @asynccontextmanager
    async def of_thumbnail(self, item: Item) -> AsyncGenerator[Store]:
        """Where the thumbnail of an item lies, also when it is a clone."""
        async with self.of_thumbnails(item.dataset_id, item.origin_dataset_id) as store:
            yield store

    def of_kept(self, kept: Kept) -> AbstractAsyncContextManager[Store]:
        """As `of_item`, without a look at the database while the store is open. Enter it at once."""
        return self._kept_in(kept, kept.driver_id)

    def of_kept_thumbnail(self, kept: Kept) -> AbstractAsyncContextManager[Store]:
        """As `of_thumbnail`, without a look at the database while the store is open. Enter it at once."""
        return self._kept_in(kept, kept.driver_id if kept.keeps_thumbnails else None)

    def _kept_in(self, kept: Kept, driver_id: int | None) -> AbstractAsyncContextManager[Store]:
        dataset_id = kept.origin_dataset_id or kept.dataset_id
        if driver_id is None or kept.driver_changed_at is None:
            name = _name_of_own(dataset_id)
        else:
            name = _name_of_driver(driver_id, kept.driver_changed_at)
        return self._using(name) if name in self._open else self._opened(dataset_id, driver_id)

    @asynccontextmanager
    async def _opened(self, dataset_id: int, driver_id: int | None) -> AsyncGenerator[Store]:
        driver = None
        if driver_id is not None:
            async with self._pool.connection() as conn:
                driver = await drivers.get_driver(conn, driver_id)
        async with self._used(dataset_id, driver) as store:
            yield store

    @asynccontextmanager
    async def of_own(self, dataset_id: int) -> AsyncGenerator[Store]:
        """Our own storage of a dataset, which may be no more while clones of its items are there."""
        async with self._used(dataset_id, None) as store:
            yield store

    @asynccontextmanager
    async def of_thumbnails(self, dataset_id: int, origin_id: int | None) -> AsyncGenerator[Store]:
        """Where the thumbnails lie of a dataset's items, or of those of them that were cloned from `origin_id`."""
        driver = await self._driver_of(dataset_id)
        driver = None if driver is not None and driver.read_only else driver
        async with self._used(origin_id or dataset_id, driver) as store:
            yield store

    async def _driver_of(self, dataset_id: int) -> Driver | None:
        async with self._pool.connection() as conn:
            driver_id = await datasets.driver_of(conn, dataset_id)
            return None if driver_id is None else await drivers.get_driver(conn, driver_id)

    @asynccontextmanager
    async def _used(self, dataset_id: int, driver: Driver | None) -> AsyncGenerator[Store]:
        # A driver that was changed is opened anew; who still uses the old store keeps it to the end.
        name = _name_of_own(dataset_id) if driver is None else _name_of_driver(driver.id, driver.changed_at)
        if name not in self._open:
            opened = self._open_own(dataset_id) if driver is None else await self.open(driver)
            if name in self._open:  # another was quicker
                await opened.close()
            else:
                self._open[name] = opened
        async with self._using(name) as store:
            yield store

    @asynccontextmanager
    async def _using(self, name: str) -> AsyncGenerator[Store]:
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
        return open_local(root=folder, is_near=True)

    async def open(self, driver: Driver, patience: Patience | None = None, beside: Store | None = None) -> Store:
        """A store for one use, to be closed by the caller; for `beside`, see `Clouds.open`.

        Raises BadRequest for a folder that is not allowed.
        """
        if driver.integration_kind in ("hostPath", "nfs"):
            return open_local(root=checked_folder(self._settings, driver.root, driver.prefix))
        return await self.clouds.open(driver, patience or Patience(), beside)

    async def close(self) -> None:
        for store in self._open.values():
            await store.close()
        self._open.clear()
        await self._session.close()


def _name_of_own(dataset_id: int) -> str:
    return f"own:{dataset_id}"


def _name_of_driver(driver_id: int, changed_at: datetime) -> str:
    return f"driver:{driver_id}:{changed_at.isoformat()}"


def folder_of(settings: Settings, kind: str, metadata: dict[str, object]) -> str:
    """The folder of this machine that an integration of kind hostPath or nfs stands for. Raises BadRequest."""
    path = str(metadata.get("path") or "")
    if kind == "hostPath":
        return path
    share = f"{metadata.get('server') or ''}:/{path.strip('/')}"
    for mounted, folder in settings.nfs_mounts.items():
        if share == mounted or share.startswith(mounted.rstrip("/") + "/"):
            return str(folder) + share[len(mounted.rstrip("/")) :]
    raise BadRequest(
        f"The NFS share {share} is not mounted for this server. Its operator mounts it and says where: "
        f"HEADWATER_NFS_MOUNTS={share}=/mnt/FOLDER, with HEADWATER_LOCAL_ROOTS=/mnt/FOLDER"
    )


def checked_folder(settings: Settings, root: str, prefix: str = "") -> Path:
    """The folder of a local driver. Raises BadRequest unless the operator allowed it or a folder above it."""
    folder = Path(os.path.realpath(Path(root, prefix)))
    if not any(folder.is_relative_to(os.path.realpath(allowed)) for allowed in settings.local_roots):
        raise BadRequest(
            f"The folder {root} is not one that this server may use. Its operator can allow it: start Headwater with "
            f"HEADWATER_LOCAL_ROOTS={root}"
        )
    return folder
