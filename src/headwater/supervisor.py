"""`headwater serve`: the database, one API process and one worker process, kept running together.

A child that dies is started again; a child that keeps dying ends the whole. The children end with this process, even
when it is killed.
"""

import fcntl
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType

from rich.console import Console

from headwater import children
from headwater.installation import Installation, open_installation
from headwater.settings import Settings

_STOP_WITHIN_S = 8.0
_CALM_S = 20.0  # a child that lived this long is not failing at its start
_MOST_QUICK_DEATHS = 5
_LOOK_EVERY_S = 0.2

_spawn = multiprocessing.get_context("spawn")


def serve(settings: Settings, *, when_ready: Callable[[str], None] | None = None) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code. Raises SystemExit with a sentence where it cannot run."""
    family = _Family()
    family.listen_to_signals()
    with _alone_on(settings.data_dir), _listening(settings) as (listener, url):
        server_file = settings.data_dir / "server.json"
        with open_installation(settings) as installation:
            family.children += [
                _Child("api", children.run_api, (settings, installation.database_url, listener)),
                _Child("worker", children.run_worker, (settings, installation.database_url)),
            ]
            try:
                server_file.write_text(json.dumps({"url": url, "pid": os.getpid()}))
                _say_where(settings, installation, url)
                return family.run(lambda: when_ready and when_ready(url), installation.keep_running)
            finally:
                family.stop()
                server_file.unlink(missing_ok=True)


@contextmanager
def _alone_on(data_dir: Path) -> Generator[None]:
    """The kernel takes the lock from a server that was killed."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / "server.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"A Headwater server runs on {data_dir} already. Stop it, or give this one its own --data-dir.")
        yield


@contextmanager
def _listening(settings: Settings) -> Generator[tuple[socket.socket, str]]:
    """The socket and the URL that it is reached under."""
    with _listen(settings) as listener:
        host, port = listener.getsockname()[:2]
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
        yield listener, settings.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}"


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


@contextmanager
def _no_main_module() -> Generator[None]:
    """A spawned process imports its parent's main module first: the whole command line, which it does not need."""
    main = sys.modules.pop("__main__")
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass(slots=True)
class _Child:
    name: str
    run: Callable[..., None]
    arguments: tuple[object, ...]
    process: BaseProcess | None = None
    started_at: float = 0.0
    quick_deaths: int = 0

    def start(self) -> None:
        process = _spawn.Process(target=self.run, args=(os.getpid(), *self.arguments), name=self.name)
        with _no_main_module():
            process.start()
        self.process = process
        self.started_at = time.monotonic()

    def is_alive(self) -> bool:
        return self.process is not None and self.process.is_alive()


@dataclass(slots=True)
class _Family:
    children: list[_Child] = field(default_factory=list["_Child"])
    _told_to_stop: bool = field(default=False, init=False)

    def listen_to_signals(self) -> None:
        """From the first moment on: one that is told to stop while the database starts stops it again."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_soon)

    def run(self, when_started: Callable[[], object], keep_database: Callable[[], None]) -> int:
        if self._told_to_stop:
            return 0
        for child in self.children:
            child.start()
        when_started()
        while not self._told_to_stop:
            keep_database()
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
