"""Two machines share a sync; one is cut off from the network in the middle, and nobody is told."""

import asyncio
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from aiohttp import web
from psycopg import AsyncConnection

from headwater.catalog import organizations
from headwater.installation import open_installation
from headwater.settings import Settings
from headwater.work import sync
from headwater.workplace import load_vault
from tests.conftest import command
from tests.servers import Keys
from tests.serving.namespaces import NETWORK, SERVERS, Machine, machines
from tests.serving.postgresql import external_postgresql
from tests.work.world import make_dataset, wait_for

OBJECTS = 60_000
PAGE_KEYS = 1_000
SHARED_AFTER_PAGES = 21  # a range of that length is shared with whoever has nothing to do
END_WITHIN_S = 90

# Events go as they are dispatched; these stay.
_KEEP_EVENTS = """
CREATE TABLE kept_event AS SELECT * FROM event;
CREATE FUNCTION keep_event() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO kept_event SELECT NEW.*; RETURN NULL; END';
CREATE TRIGGER keep_event AFTER INSERT ON event FOR EACH ROW EXECUTE FUNCTION keep_event();
UPDATE trigger SET active = false;
"""


class SlowBucket:
    """Lists made-up objects, page by page, as fast as the test lets each machine go."""

    def __init__(self) -> None:
        self.pages: Counter[str] = Counter()  # by the address that asked
        self.is_open = asyncio.Event()
        self.endpoint = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/{bucket}", self.list_objects)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, SERVERS, 0).start()
        self.endpoint = f"http://{SERVERS}:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()

    async def list_objects(self, request: web.Request) -> web.Response:
        assert request.remote is not None
        most = min(PAGE_KEYS, int(request.query.get("max-keys", PAGE_KEYS)))
        if most == PAGE_KEYS:  # and not a look for where to cut
            self.pages[request.remote] += 1
            if self.pages[request.remote] > SHARED_AFTER_PAGES:
                await self.is_open.wait()
        start = request.query.get("continuation-token") or request.query.get("start-after", "")
        first = next((number for number in _numbers_near(start) if key_of(number) > start), OBJECTS)
        return web.Response(text=_page(range(first, min(OBJECTS, first + most))), content_type="application/xml")


def key_of(number: int) -> str:
    return f"{number:06}.dat"


def _numbers_near(start: str) -> range:
    """Those whose keys are not all smaller: keys are numbers, and so is what we are asked for, more or less."""
    low, high = 0, OBJECTS
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if key_of(middle) <= start else (low, middle)
    return range(low, OBJECTS)


def _page(numbers: range) -> str:
    entries = "".join(
        f"<Contents><Key>{key_of(n)}</Key><Size>{n}</Size><ETag>&quot;{n:032x}&quot;</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for n in numbers
    )
    is_last = numbers.stop == OBJECTS
    token = "" if is_last else f"<NextContinuationToken>{escape(key_of(numbers.stop - 1))}</NextContinuationToken>"
    return (
        f"<ListBucketResult><KeyCount>{len(numbers)}</KeyCount>{entries}"
        f"<IsTruncated>{str(not is_last).lower()}</IsTruncated>{token}</ListBucketResult>"
    )


@contextmanager
def worker(machine: Machine, data_dir: Path, database_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """`headwater worker`, as on any machine beside the first."""
    given = {
        "HEADWATER_DATABASE_URL": database_url,
        "HEADWATER_ALLOW_PRIVATE_ENDPOINTS": "true",
        "HEADWATER_DECODERS": "1",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    with Path(f"{data_dir}-{machine.namespace}.log").open("ab") as log:
        process = subprocess.Popen(
            machine.command(command(), "worker", "--data-dir", str(data_dir)),
            env=kept | given,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def waits_for_a_lock(conn: AsyncConnection[Any], machine: Machine) -> bool:
    cursor = await conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE client_addr = %s AND wait_event_type = 'Lock'", [machine.address]
    )
    return (await cursor.fetchone())[0] > 0


async def everything(conn: AsyncConnection[Any]) -> list[Any]:
    """The rows of a sync, with where each of them lies: the same before and after only if none was written."""
    found: list[Any] = []
    for table in ("item", "scan", "scan_shard", "command", "dataset_counter", "kept_event"):
        cursor = await conn.execute(f"SELECT ctid::text, xmin::text FROM {table} ORDER BY ctid")
        found.append(await cursor.fetchall())
    return found


@pytest.mark.timeout(240)
async def test_a_machine_that_is_cut_off_keeps_nobody_waiting_and_commits_nothing(tmp_path):
    with (
        machines(2) as (one, other),
        tempfile.TemporaryDirectory() as directory,  # pytest's own folders are closed to PostgreSQL's account
    ):
        os.chmod(directory, 0o755)  # noqa: PTH101 - ASYNC240 would have no path here
        with external_postgresql(Path(directory), address=SERVERS, network=NETWORK) as url:
            data_dir = tmp_path / "data"  # the same key of the vault on each machine
            settings = Settings(data_dir=data_dir, database_url=url)
            with open_installation_in_thread(settings):
                bucket = SlowBucket()
                async with bucket.running(), await AsyncConnection.connect(url, autocommit=True) as conn:
                    await share_and_cut(conn, bucket, settings, url, one, other)


async def share_and_cut(
    conn: AsyncConnection[Any], bucket: SlowBucket, settings: Settings, url: str, one: Machine, other: Machine
) -> None:
    await conn.execute(_KEEP_EVENTS)
    dataset = await make_dataset(
        conn,
        kind="s3",
        root="bucket",
        endpoint=bucket.endpoint,
        keys=Keys("id", "secret"),
        vault=load_vault(settings).local,
    )
    with (
        worker(one, settings.data_dir, url) as doomed_worker,
        worker(other, settings.data_dir, url) as other_worker,
        ExitStack() as started_again,
    ):
        owner = await organizations.get_owner(conn)
        async with conn.transaction():
            await sync.request_sync(conn, dataset, caller_id=owner.id)

        async def both_list() -> bool:
            assert doomed_worker.poll() is None
            assert other_worker.poll() is None
            return len(bucket.pages) == 2 and max(bucket.pages.values()) > SHARED_AFTER_PAGES

        await wait_for(both_list, 60)
        async with await AsyncConnection.connect(url) as held:
            # In the middle of a transaction: with locks that others want.
            await held.execute("LOCK TABLE item IN SHARE MODE")
            bucket.is_open.set()
            doomed = one

            async def both_write() -> bool:
                return await waits_for_a_lock(conn, one) and await waits_for_a_lock(conn, other)

            await wait_for(both_write, 30)
            doomed.pull_out()
        listed_before = bucket.pages[doomed.address]

        async def has_ended() -> bool:
            assert other_worker.poll() is None
            cursor = await conn.execute("SELECT status FROM command WHERE status IN ('success', 'failed', 'aborted')")
            return await cursor.fetchone() is not None

        await wait_for(has_ended, END_WITHIN_S)
        assert bucket.pages[doomed.address] <= listed_before + 1  # the request for one may have been under way
        await check(conn)
        before = await everything(conn)
        cursor = await conn.execute("SELECT clock_timestamp()")
        (back_at,) = await cursor.fetchone()
        doomed.plug_in()

        again: list[Any] = []

        async def is_back() -> bool:
            """It speaks to the database again, and no transaction is left that it had begun before."""
            if doomed_worker.poll() is not None and not again:  # it gave up, as whoever started it would notice
                again.append(started_again.enter_context(worker(one, settings.data_dir, url)))
            cursor = await conn.execute(
                """
                SELECT bool_or(backend_start > %(at)s), bool_or(backend_start <= %(at)s AND xact_start IS NOT NULL)
                FROM pg_stat_activity
                WHERE client_addr = %(address)s
                """,
                {"at": back_at, "address": doomed.address},
            )
            return await cursor.fetchone() == (True, False)

        await wait_for(is_back, 60)
        assert await everything(conn) == before


async def check(conn: AsyncConnection[Any]) -> None:
    """All of it is there, once."""
    cursor = await conn.execute("SELECT status, error, spec -> 'sync' ->> 'listed' FROM command")
    assert await cursor.fetchall() == [("success", None, str(OBJECTS))]
    cursor = await conn.execute("SELECT path, size_bytes FROM item ORDER BY path")
    assert await cursor.fetchall() == [(f"/{key_of(number)}", number) for number in range(OBJECTS)]
    cursor = await conn.execute("SELECT action, item_id FROM kept_event, unnest(item_ids) AS item_id")
    told = Counter(await cursor.fetchall())
    cursor = await conn.execute("SELECT id FROM item")
    assert told == Counter(("Created", item_id) for (item_id,) in await cursor.fetchall())
    cursor = await conn.execute("SELECT max(items), max(missing_items), max(bytes) FROM dataset_counter")
    assert await cursor.fetchone() == (OBJECTS, 0, sum(range(OBJECTS)))


@contextmanager
def open_installation_in_thread(settings: Settings) -> Iterator[None]:
    """Migrated, with an owner. It runs an event loop of its own, so not in ours."""
    from concurrent.futures import ThreadPoolExecutor

    def install() -> None:
        with open_installation(settings):
            pass

    with ThreadPoolExecutor(1) as thread:
        thread.submit(install).result()
    yield
