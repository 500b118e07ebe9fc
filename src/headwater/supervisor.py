"""`headwater serve`: the database, one API process and one worker process, kept running together.

A child that dies is started again; a child that keeps dying ends the whole. The children end with this process, even
when it is killed.
"""

import ctypes
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import uvicorn
import uvloop
from rich.console import Console

from headwater.app import create_app
from headwater.installation import Installation, open_installation
from headwater.settings import Settings
from headwater.worker import run_worker

_STOP_WITHIN_S = 8.0
_CALM_S = 20.0  # a child that lived this long is not failing at its start
_MOST_QUICK_DEATHS = 5
_LOOK_EVERY_S = 0.2
_PR_SET_PDEATHSIG = 1

_spawn = multiprocessing.get_context("spawn")


def serve(settings: Settings, *, when_ready: Callable[[str], None] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code."""
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    url = settings.public_url or f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104 - compared
    with open_installation(settings) as installation:
        server_file = settings.data_dir / "server.json"
        family = _Family(
            [
                _Child("api", _run_api, (settings, installation.database_url, listener)),
                _Child("worker", _run_worker, (settings, installation.database_url)),
            ]
        )
        try:
            server_file.write_text(json.dumps({"url": url, "pid": os.getpid()}))
            _say_where(settings, installation, url)
            return family.run(lambda: when_ready and when_ready(url))
        finally:
            family.stop()
            server_file.unlink(missing_ok=True)
            listener.close()


def _listen(settings: Settings) -> socket.socket:
    """Bound once, here: a restarted API process takes the same port. Raises SystemExit with a sentence."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        sys.exit(f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}. Choose another one with --port.")
    listener.listen(1024)
    listener.set_inheritable(True)
    return listener


def _say_where(settings: Settings, installation: Installation, url: str) -> None:
    console = Console(stderr=True, highlight=False)
    console.print(f"Headwater listens on [bold]{url}[/] (API {url}/api/v1/docs)", soft_wrap=True)
    if installation.password_file is not None:
        console.print(
            f"The owner is {settings.admin_email}; the password is in {installation.password_file}", soft_wrap=True
        )


@dataclass(slots=True)
class _Child:
    name: str
    run: Callable[..., None]
    arguments: tuple[object, ...]
    process: multiprocessing.process.BaseProcess | None = None
    started_at: float = 0.0
    quick_deaths: int = 0

    def start(self) -> None:
        self.process = _spawn.Process(target=self.run, args=(os.getpid(), *self.arguments), name=self.name)
        self.process.start()
        self.started_at = time.monotonic()

    def is_alive(self) -> bool:
        return self.process is not None and self.process.is_alive()


@dataclass(slots=True)
class _Family:
    children: list[_Child]
    _told_to_stop: bool = field(default=False, init=False)

    def run(self, when_started: Callable[[], object]) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_soon)
        for child in self.children:
            child.start()
        when_started()
        while not self._told_to_stop:
            for child in self.children:
                if not child.is_alive() and not self._restart(child):
                    return 1
            time.sleep(_LOOK_EVERY_S)
        return 0

    def _stop_soon(self, *_: object) -> None:
        self._told_to_stop = True

    def _restart(self, child: _Child) -> bool:
        """False for a child that dies again and again."""
        is_quick = time.monotonic() - child.started_at < _CALM_S
        child.quick_deaths = child.quick_deaths + 1 if is_quick else 1
        code = child.process.exitcode if child.process else None
        if child.quick_deaths > _MOST_QUICK_DEATHS:
            sys.stderr.write(f"The {child.name} process ends again and again (exit code {code}). Giving up.\n")
            return False
        if not self._told_to_stop:
            sys.stderr.write(f"The {child.name} process ended (exit code {code}); starting it again.\n")
            child.start()
        return True

    def stop(self) -> None:
        """Ask politely, then kill."""
        alive = [child.process for child in self.children if child.process is not None and child.is_alive()]
        for process in alive:
            process.terminate()
        deadline = time.monotonic() + _STOP_WITHIN_S
        for process in alive:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _die_with(parent_pid: int) -> None:
    """On Linux the kernel ends us with our parent; elsewhere a killed parent's children go on until stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            sys.exit(1)


def _run_api(parent_pid: int, settings: Settings, database_url: str, listener: socket.socket) -> None:
    _die_with(parent_pid)
    config = uvicorn.Config(
        create_app(settings, database_url),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _run_worker(parent_pid: int, settings: Settings, database_url: str) -> None:
    _die_with(parent_pid)
    uvloop.run(run_worker(settings, database_url))

