"""Decodes files in child processes with limits of time and memory, so that no file can harm us or its neighbours."""

from pathlib import Path
from types import TracebackType
from typing import Self

from headwater.media.records import Prepared

READ_IMAGE = "headwater.media.image:read_image"


class DecodePool:
    """Long-lived child processes, started as files arrive; each decodes one file at a time."""

    def __init__(
        self,
        *,
        processes: int,
        timeout_s: float,
        memory_bytes: int,
        read_gps: bool = False,
        max_pixels: int = 1_000_000_000,
        decode: str = READ_IMAGE,
    ) -> None:
        """Starts nothing yet. `decode` is `module:function`, looked up in the child."""
        raise NotImplementedError

    async def prepare(self, path: Path) -> Prepared:
        """Facts and thumbnail of the file at `path`; whatever is wrong with the file is a Problem, not an exception.

        Waits while all processes are busy; the time limit starts when a process takes the file.
        Raises Unavailable when no child process can be started, or after `close`.
        """
        raise NotImplementedError

    async def close(self) -> None:
        """Kill the child processes and wait for their end. May be repeated."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
