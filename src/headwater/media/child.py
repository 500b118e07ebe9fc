"""One decoder process seen from its parent: start it, ask it about a file, end it."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Self

from headwater.errors import Unavailable
from headwater.media.answers import LENGTHS, unpack, unpack_lengths
from headwater.media.decoder import READY, Orders
from headwater.media.records import Prepared, Problem

START_TIMEOUT_S = 60
LAST_WORDS_BYTES = 4096

# What allocators write before they abort: GLib, C++, Rust, glibc.
NO_MEMORY = (
    b"failed to allocate",
    b"bad_alloc",
    b"memory allocation of",
    b"out of memory",
    b"cannot allocate memory",
)


@dataclass(eq=False, slots=True)
class Child:
    process: Process
    stderr: IO[bytes]
    files: int = 0  # taken so far
    is_spent: bool = False  # dead, stuck or short of memory: only `end` is of use
    is_killed: bool = False

    @classmethod
    async def start(cls, orders: Orders) -> Self:
        """Raises Unavailable, with the child's last words, when it does not come up."""
        with tempfile.TemporaryFile() as stderr:
            try:
                process = await asyncio.create_subprocess_exec(
                    *_command(orders), stdin=PIPE, stdout=PIPE, stderr=stderr, env=_environment()
                )
            except OSError as error:
                raise Unavailable(f"No decoder process can be started: {error}.") from error
            child = cls(process, os.fdopen(os.dup(stderr.fileno()), "rb", buffering=0))
        try:
            await child._expect_ready()
        except BaseException:
            await child.end()
            raise
        return child

    async def _expect_ready(self) -> None:
        assert self.process.stdout
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                ready = await self.process.stdout.read(1)
        except TimeoutError:
            ready = b""
        if ready != READY:
            last_line = self._last_words().strip().rpartition(b"\n")[2].decode(errors="replace")
            raise Unavailable(f"A decoder process did not start: {last_line or 'no answer'}.")

    async def ask(self, path: Path, timeout_s: float) -> Prepared:
        """The answer, or the problem in its stead; look at `is_spent` before asking again."""
        self.files += 1
        self.is_spent = True  # unless an answer comes, and even if our caller gives up
        try:
            async with asyncio.timeout(timeout_s):
                prepared = await self._exchange(path)
        except TimeoutError:
            return Prepared(problem=Problem("timeout", f"Decoding took longer than {timeout_s:g} s."))
        except (EOFError, ConnectionError):
            return Prepared(problem=await self._cause_of_death())
        except (ValueError, KeyError, TypeError):
            return Prepared(problem=Problem("decoder-crashed", "The decoder's answer makes no sense."))
        self.is_spent = is_out_of_memory(prepared)
        return prepared

    async def _exchange(self, path: Path) -> Prepared:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(str(path)).encode() + b"\n")
        text_bytes, content_bytes = unpack_lengths(await self.process.stdout.readexactly(LENGTHS.size))
        text = await self.process.stdout.readexactly(text_bytes)
        return unpack(text, await self.process.stdout.readexactly(content_bytes))

    async def _cause_of_death(self) -> Problem:
        code = await self.process.wait()
        words = self._last_words().lower()
        if code == -signal.SIGKILL or any(phrase in words for phrase in NO_MEMORY):
            return Problem("out-of-memory", "Decoding needs more memory than allowed.")
        if code == -signal.SIGALRM:
            return Problem("timeout", "Decoding took longer than allowed.")
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        return Problem("decoder-crashed", f"The decoder died of this file ({how}).")

    def _last_words(self) -> bytes:
        size = os.fstat(self.stderr.fileno()).st_size
        return os.pread(self.stderr.fileno(), LAST_WORDS_BYTES, max(0, size - LAST_WORDS_BYTES))

    def kill(self) -> None:
        """Once only: a second signal, at a process just dead, makes asyncio lose its return code and say so."""
        if self.process.returncode is None and not self.is_killed:
            self.is_killed = True
            with suppress(ProcessLookupError):
                self.process.kill()

    async def end(self) -> None:
        """Kill the process, if it still lives, and wait until it is gone. Nothing else may be asked of it then."""
        self.kill()
        await self.process.wait()
        self.stderr.close()


def is_out_of_memory(prepared: Prepared) -> bool:
    return prepared.problem is not None and prepared.problem.reason == "out-of-memory"


def _command(orders: Orders) -> list[str]:
    # -B: under the limit of file sizes a module's compiled file would be cut short, and every later import fail on it.
    return [sys.executable, "-B", "-P", "-m", "headwater.media.decoder", json.dumps(asdict(orders))]


def _environment() -> dict[str, str]:
    """All that a decoder may know: no secret of ours is within reach of a file that takes it over."""
    return {
        "PYTHONPATH": os.pathsep.join(str(Path(path).absolute()) for path in sys.path),
        "VIPS_BLOCK_UNTRUSTED": "1",  # loaders that libvips does not fuzz
        "VIPS_CONCURRENCY": "1",  # as many processes as cores do better than threads
        "VIPS_DISC_THRESHOLD": "1000g",  # no spill files: the memory limit decides; libvips reads `1t` as one byte
        "MALLOC_ARENA_MAX": "1",
    }
