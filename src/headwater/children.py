"""What the processes of `headwater serve` run. Imports are in the functions: a cold start is mostly imports."""

import ctypes
import gc
import os
import signal
import socket
import sys

from headwater.settings import Settings

_PR_SET_PDEATHSIG = 1


def run_api(parent_pid: int, settings: Settings, database_url: str, listener: socket.socket) -> None:
    """The HTTP API on a socket that is bound already, until SIGTERM."""
    _die_with(parent_pid)
    import uvicorn  # noqa: PLC0415

    from headwater.app import create_app  # noqa: PLC0415

    app = create_app(settings, database_url)
    # What was made up to here stays to the end; looking through it took 0.1 s each time, during which all waited.
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
        server_header=False,
        forwarded_allow_ips=list(settings.trusted_proxies),
    )
    uvicorn.Server(config).run(sockets=[listener])


def run_worker(parent_pid: int, settings: Settings, database_url: str) -> None:
    """A worker, until SIGTERM."""
    _die_with(parent_pid)
    import uvloop  # noqa: PLC0415

    from headwater import worker  # noqa: PLC0415

    uvloop.run(worker.run_worker(settings, database_url))


def _die_with(parent_pid: int) -> None:
    """On Linux the kernel ends us with our parent; elsewhere a killed parent's children go on until stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent_pid:
            sys.exit(1)
