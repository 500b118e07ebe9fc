"""What every format works with: an export as it is, and where the bytes of one file go."""

import base64
import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

from headwater.catalog.exports import Export, Progress
from headwater.catalog.query import Tree
from headwater.storage.stores import Store, Upload
from headwater.wire.exports import Asked
from headwater.work.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Run:
    place: Workplace
    export: Export  # as it is after the last file
    asked: Asked
    tree: Tree  # which items
    annotations_tree: Tree | None  # which of their annotations; None: all of them
    store: Store  # of Binaries

    def at(self, export: Export) -> "Run":
        return replace(self, export=export)


@dataclass(slots=True)
class Sink:
    """One file on its way to the store."""

    upload: Upload
    size_bytes: int = 0
    _md5: Any = field(default_factory=lambda: hashlib.md5(usedforsecurity=False))
    _sha256: Any = field(default_factory=hashlib.sha256)

    async def write(self, chunk: bytes) -> None:
        self.size_bytes += len(chunk)
        self._md5.update(chunk)
        self._sha256.update(chunk)
        await self.upload.write(chunk)

    @property
    def md5(self) -> str:
        return base64.b64encode(self._md5.digest()).decode()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


@dataclass(frozen=True, slots=True)
class Written:
    """What one file has, and the cursor after it."""

    name: str  # '' for a piece
    records: int  # 0: no file at all
    progress: Progress
    directory_bytes: int = 0
