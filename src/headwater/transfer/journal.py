"""The journal: what is under way, so that a second run goes on where the first one ended, however it ended.

One small file for each large upload that has begun, gone when it is done. Where everything is to be replaced, a list of
what this has been done for: a server cannot tell that. It holds no secret; what is a month old is swept out.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from headwater.transfer.scanning import Found

_KEPT_S = 30 * 24 * 3600
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of one upload."""

    file: Path

    def read(self) -> dict[str, Any] | None:
        try:
            known = orjson.loads(self.file.read_bytes())
        except (OSError, ValueError):
            return None
        return known if isinstance(known, dict) else None

    def write(self, known: Mapping[str, Any]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        written = self.file.with_suffix(f".{os.getpid()}.new")  # the same may be sent by two at once
        written.write_bytes(orjson.dumps(known))
        written.replace(self.file)

    def drop(self) -> None:
        self.file.unlink(missing_ok=True)


@dataclass(slots=True)
class Journal:
    folder: Path
    goal: str  # server, dataset, mode and metadata
    is_replacing: bool
    _done: set[bytes] = field(default_factory=set)
    _log: BinaryIO | None = None

    def open(self) -> None:
        self._sweep()
        if not self.is_replacing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        known = self._log_file.read_bytes() if self._log_file.exists() else b""
        whole = len(known) // _DIGEST_BYTES * _DIGEST_BYTES  # a line may have been cut short
        self._done = {known[at : at + _DIGEST_BYTES] for at in range(0, whole, _DIGEST_BYTES)}
        self._log = self._log_file.open("ab")
        self._log.truncate(whole)

    def close(self, *, is_complete: bool) -> None:
        if self._log is not None:
            self._log.close()
            if is_complete:
                self._log_file.unlink(missing_ok=True)

    def entry(self, found: Found) -> Entry:
        return Entry(self.folder / f"{self._digest(found).hex()}.json")

    def was_done(self, found: Found) -> bool:
        return bool(self._done) and self._digest(found) in self._done

    def note_done(self, found: Found) -> None:
        if self._log is not None:
            self._log.write(self._digest(found))
            self._log.flush()

    @property
    def _log_file(self) -> Path:
        return self.folder / f"{_digest(self.goal).hex()}.done"

    def _digest(self, found: Found) -> bytes:
        here = Path(found.file).absolute()
        return _digest(f"{self.goal}\0{here}\0{found.path}\0{found.size_bytes}\0{found.mtime_ns}")

    def _sweep(self) -> None:
        if self.folder.is_dir():
            for file in self.folder.iterdir():
                _unless_gone(lambda file=file: _drop_old(file))


def _drop_old(file: Path) -> None:
    if time.time() - file.stat().st_mtime > _KEPT_S:
        file.unlink()


def _unless_gone(act: Callable[[], None]) -> None:
    """Another run may be sweeping as well."""
    try:
        act()
    except FileNotFoundError:
        return


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:_DIGEST_BYTES]
