"""A PostgreSQL of the system, as production brings one: over TCP, with a password, not under root."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import free_ports

_PASSWORD = "an external password"


def programs() -> Path:
    """The folder with initdb and pg_ctl. Where the package is missing, the test is reported as not run; CI fails."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    sentence = "not run: Debian's package postgresql (packages.txt) is not installed on this machine"
    if os.environ.get("CI"):
        pytest.fail(sentence)
    pytest.skip(sentence)


@contextmanager
def external_postgresql(directory: Path, *, address: str = "127.0.0.1", network: str | None = None) -> Iterator[str]:
    """The URL of an empty database. `directory` must be one that every account may enter.

    It listens on the address alone; who connects from elsewhere must be in the network.
    """
    bin_dir = programs()
    cluster, password_file = directory / "cluster", directory / "password"
    cluster.mkdir()
    password_file.write_text(_PASSWORD)
    account = _account_for(cluster, password_file)

    def run(program: str, *arguments: str) -> None:
        command = [bin_dir / program, "-D", cluster, *arguments]
        ended = subprocess.run(
            command, user=account, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=False
        )
        assert ended.returncode == 0, (directory / "log").read_text()[-3000:]

    (port,) = free_ports(1)
    with (directory / "log").open("ab") as log:
        run("initdb", "--username=headwater", f"--pwfile={password_file}", "--auth=scram-sha-256", "--no-sync")
        if network is not None:
            with (cluster / "pg_hba.conf").open("a") as rules:
                rules.write(f"\nhost all all {network} scram-sha-256\n")
        run(
            "pg_ctl",
            "-w",
            "start",
            "-o",
            f"-p {port} -c listen_addresses={address} -c unix_socket_directories='' -c fsync=off",
        )
        try:
            yield f"postgresql://headwater:{_PASSWORD.replace(' ', '%20')}@{address}:{port}/postgres"
        finally:
            run("pg_ctl", "-w", "stop", "-m", "immediate")


def _account_for(*paths: Path) -> str | None:
    """PostgreSQL refuses to run as root; Debian's package brings an account for it."""
    if os.geteuid() != 0:
        return None
    for path in paths:
        shutil.chown(path, "postgres", pwd.getpwnam("postgres").pw_gid)
    return "postgres"
