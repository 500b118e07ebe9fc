"""Clients of servers that tests start themselves; every server that a test leaves behind is stopped."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import RunningServer, start_server, stop_server
from tests.serving.watching import Watched, processes_of


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Watched]]:
    """Starts `headwater serve` on a data directory, a new one unless given."""
    clients: list[httpx.Client] = []
    servers: list[RunningServer] = []

    def started(data_dir: Path | None = None, **environment: str) -> Watched:
        running = start_server(data_dir or tmp_path_factory.mktemp("data"), **environment)
        servers.append(running)
        client = httpx.Client(base_url=running.url, trust_env=False, timeout=30)
        clients.append(client)
        return Watched(running, client)

    yield started
    for client in clients:
        client.close()
    for running in servers:
        stop_server(running)
        for left in processes_of(running.data_dir):  # of a server that a failed test had killed
            with suppress(psutil.NoSuchProcess):
                left.kill()
