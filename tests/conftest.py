"""Real servers, once a session: PostgreSQL, SeaweedFS, Headwater. Databases are clones of a migrated template."""

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from hypothesis import settings as hypothesis_settings
from psycopg import AsyncConnection, sql

from headwater.app import create_app
from headwater.catalog import organizations
from headwater.db.embedded import running_database
from headwater.db.migrate import migrate
from headwater.settings import Settings
from headwater.work.workplace import Workplace
from headwater.workplace import open_workplace
from tests import servers

hypothesis_settings.register_profile("untimed", deadline=None)  # no test depends on how busy the machine is
hypothesis_settings.load_profile("untimed")

OWNER = "owner@headwater.test"
PASSWORD = "correct horse battery"
_TEMPLATE = "headwater_test_template"


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server's own database; clones of the template live beside it."""
    with running_database(tmp_path_factory.mktemp("database")) as database:
        url = database.url
        _execute(url, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
        asyncio.run(_install(_of(url, _TEMPLATE)))
        yield url


async def _install(url: str) -> None:
    async with await AsyncConnection.connect(url) as conn:
        await migrate(conn)
        await organizations.install(conn, name="Test", email=OWNER, password=PASSWORD)


def _of(url: str, database: str) -> str:
    return url.replace("/headwater?", f"/{database}?")


def _execute(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(statement)


@pytest.fixture(scope="session")
def new_database(cluster: str) -> Callable[[], str]:
    """Makes migrated databases with an organisation and its owner; returns their URLs."""

    def make() -> str:
        name = f"test_{secrets.token_hex(6)}"
        clone = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(_TEMPLATE))
        _execute(cluster, clone)
        return _of(cluster, name)

    return make


@pytest.fixture
def database_url(cluster: str, new_database: Callable[[], str]) -> Iterator[str]:
    """A database of the test's own."""
    url = new_database()
    yield url
    name = url.partition("?")[0].rpartition("/")[2]
    _execute(cluster, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def shared_database_url(new_database: Callable[[], str]) -> str:
    """A database for tests that roll back or keep to rows of their own."""
    return new_database()


@pytest.fixture
async def conn(shared_database_url: str) -> AsyncIterator[AsyncConnection]:
    """A connection whose transaction is rolled back at the end."""
    async with await AsyncConnection.connect(shared_database_url) as connection:
        await connection.execute("SET TIME ZONE 'UTC'")
        yield connection
        await connection.rollback()


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    """SeaweedFS with an admin and a read-only account."""
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def settings_for(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """Settings with a data directory of their own; local drivers and inner endpoints are allowed."""
    base = tmp_path_factory.getbasetemp()

    def make(**given: object) -> Settings:
        data_dir = tmp_path_factory.mktemp("data")
        return Settings(
            **{
                "data_dir": data_dir,
                "local_roots": (base,),
                "allow_private_endpoints": True,
                "port": 0,
                "check_timeout_s": 30,
            }
            | given
        )

    return make


@pytest.fixture
def workplace(
    settings_for: Callable[..., Settings],
) -> Callable[[str], AbstractAsyncContextManager[Workplace]]:
    """Opens what jobs work with, on a database."""

    @asynccontextmanager
    async def opened(url: str, **given: object) -> AsyncIterator[Workplace]:
        async with open_workplace(settings_for(**given), url, name="test", max_connections=10) as place:
            yield place

    return opened


@pytest.fixture(scope="session")
async def api_app(new_database: Callable[[], str], settings_for: Callable[..., Settings]) -> AsyncIterator[object]:
    """The application over ASGI, on a database of its own; no worker runs."""
    app = create_app(settings_for(public_url="http://headwater.test"), new_database())
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def api(api_app: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `api_app` that is logged in as the owner."""
    transport = httpx.ASGITransport(app=api_app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://headwater.test/api/v1") as client:
        answer = await client.post(
            "http://headwater.test/token?default", json={"username": OWNER, "password": PASSWORD}
        )
        client.headers["authorization"] = f"Bearer {answer.json()['id_token']}"
        yield client


@dataclass(frozen=True, slots=True)
class RunningServer:
    url: str
    data_dir: Path
    email: str
    password: str
    process: subprocess.Popen[bytes]
    environment: dict[str, str]

    @property
    def headwater(self) -> str:
        """Path of the command line."""
        return command()


def command() -> str:
    return str(Path(sysconfig.get_path("scripts"), "headwater"))


def start_server(data_dir: Path, **environment: str) -> RunningServer:
    """`headwater serve` as users start it, on a free port; returns when it is ready."""
    given = {
        "HEADWATER_ADMIN_EMAIL": OWNER,
        "HEADWATER_ADMIN_PASSWORD": PASSWORD,
        "HEADWATER_ALLOW_PRIVATE_ENDPOINTS": "true",
        "HEADWATER_CHECK_TIMEOUT_S": "30",
    } | environment
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    with (data_dir.parent / f"{data_dir.name}.log").open("ab") as log:
        process = subprocess.Popen(
            [command(), "serve", "--data-dir", str(data_dir), "--port", "0"],
            env=kept | given,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    url = _wait_until_ready(data_dir, process)
    return RunningServer(url, data_dir, OWNER, given["HEADWATER_ADMIN_PASSWORD"], process, kept | given)


def _wait_until_ready(data_dir: Path, process: subprocess.Popen[bytes], within_s: float = 60) -> str:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            told = json.loads((data_dir / "server.json").read_text())
            if told["pid"] == process.pid and httpx.get(told["url"] + "/readyz", trust_env=False).is_success:
                return told["url"]
        except (OSError, ValueError, httpx.HTTPError):
            pass
        time.sleep(0.05)
    log = (data_dir.parent / f"{data_dir.name}.log").read_text()
    raise RuntimeError(f"headwater serve did not get ready:\n{log[-4000:]}")


def stop_server(server: RunningServer, within_s: float = 15) -> int:
    """SIGTERM, as an operator or a service manager stops it. Returns the exit code."""
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    return server.process.wait(within_s)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Headwater as users run it: supervisor, API and worker as processes, with local folders below pytest's own."""
    base = tmp_path_factory.getbasetemp()
    running = start_server(tmp_path_factory.mktemp("headwater"), HEADWATER_LOCAL_ROOTS=str(base))
    yield running
    assert stop_server(running) == 0
