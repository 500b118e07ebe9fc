"""What tests of work share: datasets on any store, syncs, jobs, and the truth that counters are held to."""

import asyncio
import base64
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import commands, datasets, drivers, folders, integrations, items, organizations, projects
from headwater.catalog.accounts import Account
from headwater.catalog.commands import Command
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item
from headwater.catalog.sync import scans
from headwater.catalog.sync.scans import Scan
from headwater.storage.opening import open_s3
from headwater.storage.requests import Request
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.stores import Store
from headwater.vault.keys import GivenKeys
from headwater.vault.local import LocalVault
from headwater.work import deletion, preprocess, sync, upload
from headwater.work.workplace import Workplace
from tests import servers

VAULT = LocalVault(GivenKeys(base64.b64encode(bytes(32)).decode()))


async def make_project(conn: AsyncConnection[Any]) -> tuple[Account, int]:
    owner = await organizations.get_owner(conn)
    return owner, (await projects.create_project(conn, owner, f"project {secrets.token_hex(6)}")).id


async def make_dataset(
    conn: AsyncConnection[Any],
    *,
    kind: str = "hostPath",
    root: str = "/nowhere",
    prefix: str = "",
    endpoint: str | None = None,
    keys: servers.Keys | None = None,
    allow_delete: bool = True,
    vault: LocalVault = VAULT,
) -> Dataset:
    """A dataset with a driver, in a project of its own."""
    owner, project_id = await make_project(conn)
    organization_id = (await organizations.list_organizations(conn, owner))[0].id
    integration = await integrations.create_integration(
        conn,
        vault,
        owner,
        organization_id,
        name=secrets.token_hex(6),
        kind=kind,
        options={"key": keys.access_key_id, "secret": keys.secret_access_key} if keys else {},
        metadata={},
    )
    driver = await drivers.create_driver(
        conn,
        owner,
        project_id,
        drivers.NewDriver(
            name="driver",
            kind="s3" if kind == "s3" else "storage",
            integration_id=integration.id,
            root=root,
            prefix=prefix,
            region=None,
            storage_class=None,
            endpoint=endpoint,
            allow_delete=allow_delete,
        ),
    )
    return await datasets.create_dataset(conn, owner, project_id=project_id, driver_id=driver.id, name="dataset")


async def recount(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """The counters of a dataset and its items are what rows say; every item lies in the folder that its path names."""
    cursor = await conn.execute(
        """
        SELECT count(*), count(*) FILTER (WHERE hidden), count(*) FILTER (WHERE missing_since IS NOT NULL),
            coalesce(sum(size_bytes), 0)::bigint, count(*) FILTER (WHERE etl_state = 1),
            count(*) FILTER (WHERE etl_state = 2), count(*) FILTER (WHERE trashed_at IS NOT NULL),
            (SELECT count(*) FROM annotation WHERE annotation.dataset_id = %(id)s),
            count(*) FILTER (WHERE annotations_count > 0)
        FROM item
        WHERE dataset_id = %(id)s
        """,
        {"id": dataset_id},
    )
    truth = await cursor.fetchone()
    cursor = await conn.execute(
        """
        SELECT items, hidden_items, missing_items, bytes, prepared_items, failed_items,
            trashed_items, annotations, annotated_items
        FROM dataset_counter
        WHERE dataset_id = %s
        """,
        [dataset_id],
    )
    assert await cursor.fetchone() == truth
    cursor = await conn.execute(
        """
        SELECT item.path, folder.path
        FROM item
        LEFT JOIN folder ON folder.dataset_id = item.dataset_id AND folder.id = item.folder_id
        WHERE item.dataset_id = %s
        """,
        [dataset_id],
    )
    wrong = [(path, folder) for path, folder in await cursor.fetchall() if folder != folders.folder_of(path)]
    assert wrong == []
    cursor = await conn.execute(
        """
        SELECT coalesce(item_id, item.id), number, annotations_count
        FROM (SELECT item_id, count(*) AS number FROM annotation WHERE dataset_id = %(id)s GROUP BY item_id) AS there
        FULL JOIN (SELECT id, annotations_count FROM item WHERE dataset_id = %(id)s) AS item ON item.id = item_id
        WHERE coalesce(number, 0) IS DISTINCT FROM annotations_count
        """,
        {"id": dataset_id},
    )
    assert await cursor.fetchall() == []


async def rows_written(conn: AsyncConnection[Any], dataset_id: int) -> dict[str, set[tuple[Any, ...]]]:
    """Where each row of a dataset lies: equal before and after means that none was written."""
    found: dict[str, set[tuple[Any, ...]]] = {}
    for table in ("item", "folder", "event", "tombstone", "dataset_counter"):
        kept = "" if table != "dataset_counter" else ", synced_at"
        columns = "ctid::text, xmin::text" if not kept else "items::text, bytes::text"
        cursor = await conn.execute(f"SELECT {columns} FROM {table} WHERE dataset_id = %s", [dataset_id])
        found[table] = set(await cursor.fetchall())
    return found


async def index(conn: AsyncConnection[Any], dataset_id: int) -> dict[str, tuple[str, int, bool]]:
    """Path -> (etag, size, is missing)"""
    cursor = await conn.execute(
        "SELECT path, etag, size_bytes, missing_since IS NOT NULL FROM item WHERE dataset_id = %s", [dataset_id]
    )
    return {path: (etag, size, missing) for path, etag, size, missing in await cursor.fetchall()}


async def events_of(conn: AsyncConnection[Any], dataset_id: int) -> Counter[tuple[str, int]]:
    """How often each (action, item id) was told."""
    cursor = await conn.execute("SELECT action, item_ids FROM event WHERE dataset_id = %s ORDER BY id", [dataset_id])
    return Counter((action, item_id) for action, item_ids in await cursor.fetchall() for item_id in item_ids)


@dataclass
class World:
    """A database with what jobs work with; every test makes datasets of its own in it."""

    place: Workplace
    owner: Account
    folders: Path  # where local datasets live
    vault: LocalVault

    def connection(self) -> Any:
        return self.place.pool.connection()

    async def dataset(self, store: Store | None = None, **given: Any) -> Dataset:
        """On a driver; its store is `store` if given."""
        async with self.connection() as conn:
            made = await make_dataset(conn, vault=self.vault, **given)
        if store is not None:
            await self.substitute(made, store)
        return made

    async def substitute(self, dataset: Dataset, store: Store) -> None:
        """The store is the dataset's bucket from now on."""
        async with self.connection() as conn:
            driver = await drivers.get_driver(conn, dataset.driver_id)
        self.place.places._open[f"driver:{driver.id}:{driver.changed_at.isoformat()}"] = store

    async def local_dataset(self, **given: Any) -> tuple[Dataset, Path]:
        root = self.folders / secrets.token_hex(6)
        root.mkdir()
        return await self.dataset(root=str(root), **given), root

    async def s3_dataset(self, server: servers.S3Server, *, keys: servers.Keys | None = None, **given: Any) -> Any:
        """On a new bucket of a real server; credentials go through the vault. With a store of the bucket's admin."""
        bucket = f"cams-{secrets.token_hex(6)}"

        async def admin(_anew: bool) -> S3Credentials:
            return S3Credentials(server.admin.access_key_id, server.admin.secret_access_key)

        store = open_s3(bucket=bucket, region=servers.REGION, endpoint=server.endpoint, credentials=admin, page_keys=7)
        await store._sender.send(Request("CreateBucket", "PUT"))
        made = await self.dataset(kind="s3", root=bucket, endpoint=server.endpoint, keys=keys or server.admin, **given)
        self.place.places._open[f"to close:{bucket}"] = store
        return made, store

    async def own_dataset(self) -> tuple[Dataset, Path]:
        """In our own storage, and the folder of that."""
        async with self.connection() as conn:
            owner, project_id = await make_project(conn)
            made = await datasets.create_dataset(conn, owner, project_id=project_id, driver_id=None, name="own")
        return made, self.place.places._settings.data_dir / "storage" / f"{made.id:024x}"

    async def request(self, dataset: Dataset, *, confirm: bool = False) -> tuple[int, int]:
        """A sync asked for and not begun: the ids of its command and its scan."""
        async with self.connection() as conn:
            command_id = await sync.request_sync(conn, dataset, caller_id=self.owner.id, confirm_missing=confirm)
            scan = await scans.last_scan(conn, dataset.id)
            await conn.execute(
                "DELETE FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'scan_id' = %s",
                [sync.TASK, str(scan.id)],
            )
        return command_id, scan.id

    async def sync(self, dataset: Dataset, *, confirm: bool = False) -> tuple[Command, Scan]:
        """To its end."""
        _, scan_id = await self.request(dataset, confirm=confirm)
        await sync.run_scan(self.place, scan_id)
        return await self.ended(dataset)

    async def ended(self, dataset: Dataset) -> tuple[Command, Scan]:
        async with self.connection() as conn:
            scan = await scans.last_scan(conn, dataset.id)
            return await commands.load_command(conn, scan.command_id), scan

    async def index(self, dataset: Dataset) -> dict[str, tuple[str, int, bool]]:
        async with self.connection() as conn:
            await recount(conn, dataset.id)
            return await index(conn, dataset.id)

    async def events(self, dataset: Dataset) -> Counter[tuple[str, int]]:
        async with self.connection() as conn:
            return await events_of(conn, dataset.id)

    async def item(self, dataset: Dataset, path: str) -> Item | None:
        async with self.connection() as conn:
            return await items.find_item_at(conn, dataset.id, path)

    async def rows_written(self, dataset: Dataset) -> dict[str, set[tuple[Any, ...]]]:
        async with self.connection() as conn:
            return await rows_written(conn, dataset.id)

    async def upload(
        self, dataset: Dataset, path: str, body: bytes, *, mode: upload.Mode = "overwrite", **given: Any
    ) -> upload.Uploaded:
        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(body), 1000):
                yield body[start : start + 1000]
                await asyncio.sleep(0)

        announced = upload.Announced(path=upload.checked_path(path), mode=mode, **given)
        return await upload.upload_file(self.place, dataset, self.owner, announced, chunks())

    async def delete(self, dataset: Dataset, path: str) -> None:
        """As the route does it; what is left for a job is left."""
        async with self.connection() as conn:
            item = await items.find_item_at(conn, dataset.id, path)
            assert item is not None
            await deletion.delete_item(conn, item)

    async def run_jobs(self, dataset: Dataset) -> int:
        """The deletions that wait for a worker, in their order."""
        async with self.connection() as conn:
            cursor = await conn.execute(
                """
                DELETE FROM procrastinate_jobs
                WHERE task_name = ANY(%s) AND args ->> 'dataset_id' = %s
                RETURNING id, task_name, args
                """,
                [[deletion.DELETE_OBJECT_TASK, deletion.DELETE_OBJECTS_TASK], str(dataset.id)],
            )
            waiting = sorted(await cursor.fetchall(), key=lambda job: job[0])
        for _, task, arguments in waiting:
            given = json.loads(arguments) if isinstance(arguments, str) else arguments
            run = deletion.delete_object if task == deletion.DELETE_OBJECT_TASK else deletion.delete_objects
            await run(self.place, **given)
        return len(waiting)

    async def preprocess(self, dataset: Dataset, paths: Iterable[str] | None = None) -> None:
        async with self.connection() as conn:
            cursor = await conn.execute("SELECT id, path FROM item WHERE dataset_id = %s", [dataset.id])
            ids = [item_id for item_id, path in await cursor.fetchall() if paths is None or path in paths]
        await preprocess.preprocess_items(self.place, dataset.id, ids)
        await preprocess.preprocess_links(self.place, dataset.id, ids)

    def on(self, pool: Any) -> "World":
        """The same world through other connections."""
        return replace(self, place=replace(self.place, pool=pool))


def present(found: dict[str, tuple[str, int, bool]]) -> set[str]:
    return {path for path, (_, _, missing) in found.items() if not missing}


def ghosts(found: dict[str, tuple[str, int, bool]]) -> set[str]:
    return {path for path, (_, _, missing) in found.items() if missing}


async def wait_for(condition, within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - the database has no events of ours
            await asyncio.sleep(0.01)


async def somebody_waits_for(world: "World", conn: AsyncConnection) -> None:
    """Returns when another connection waits for what this one holds."""

    async def is_waited_for() -> bool:
        async with world.connection() as other:
            cursor = await other.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))",
                [conn.info.backend_pid],
            )
            return (await cursor.fetchone())[0] == 1

    await wait_for(is_waited_for)
