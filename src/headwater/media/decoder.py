"""The child process behind `limits`: takes paths on stdin, answers on stdout, and ends when stdin does.

Started as `python -m headwater.media.decoder ORDERS`, ORDERS being the JSON of `Orders`.
"""

import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from headwater.media.answers import pack
from headwater.media.records import Prepared, Problem

READY = b"\n"  # sent once, when the first path may come
LARGEST_WRITE_BYTES = 64 * 1024  # to files, that is to stderr: a decoder has nothing else to write
PATIENCE = 1.5  # times the time limit, after which a decoder ends itself, should its parent not have


@dataclass(frozen=True, slots=True)
class Orders:
    decode: str  # "module:function", called as function(path, read_gps=…, max_pixels=…)
    timeout_s: float
    memory_bytes: int
    read_gps: bool
    max_pixels: int


def run() -> None:
    orders = Orders(**json.loads(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    _close_inherited_files()
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    paths: SimpleQueue[Path] = SimpleQueue()
    decode = _find_function(orders.decode)
    _limit_resources(orders.memory_bytes)
    Thread(target=_follow_parent, args=(paths,), daemon=True).start()
    _write_all(answers, READY)
    while True:
        _write_all(answers, pack(_decode(decode, paths.get(), orders)))


def _close_inherited_files() -> None:
    """Not every event loop (uvloop) closes what our parent's parent left open for us."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.closerange(3, most)


def _find_function(import_path: str) -> Callable[..., Prepared]:
    module, _, name = import_path.partition(":")
    return getattr(importlib.import_module(module), name)


def _limit_resources(memory_bytes: int) -> None:
    """Linux holds RLIMIT_DATA (private memory, from 4.7 on); macOS accepts RLIMIT_AS and does not hold it."""
    memory = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    _lower_limit(resource.RLIMIT_CORE, 0)
    _lower_limit(resource.RLIMIT_FSIZE, LARGEST_WRITE_BYTES)
    _lower_limit(memory, memory_bytes)


def _lower_limit(which: int, limit: int) -> None:
    _, hard = resource.getrlimit(which)
    resource.setrlimit(which, (limit, hard) if hard == resource.RLIM_INFINITY else (min(limit, hard), hard))


def _follow_parent(paths: SimpleQueue[Path]) -> None:
    """Runs beside the decoding, so that a parent that died, however, takes us along at once."""
    for line in sys.stdin.buffer:
        paths.put(Path(json.loads(line)))
    os._exit(0)


def _decode(decode: Callable[..., Prepared], path: Path, orders: Orders) -> Prepared:
    signal.setitimer(signal.ITIMER_REAL, orders.timeout_s * PATIENCE)
    try:
        return decode(path, read_gps=orders.read_gps, max_pixels=orders.max_pixels)
    except MemoryError:
        return Prepared(problem=Problem("out-of-memory", "Decoding needs more memory than allowed."))
    except Exception as error:  # noqa: BLE001 - a file must never end the process that others wait for
        return Prepared(problem=Problem("decoder-crashed", f"The decoder failed with {type(error).__name__}."))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


if __name__ == "__main__":
    run()
