"""A worker process for tests to kill: soon taken for dead, and it stops at gates until a file is there."""

import asyncio
import time
from itertools import count
from pathlib import Path
from typing import Any

from headwater import queue, worker
from headwater.media.limits import DecodePool
from headwater.settings import Settings
from headwater.storage.local import store as local
from headwater.storage.opening import open_local
from headwater.work import places, preprocess, sync

PAGE_KEYS = 5
PAGES_BEFORE_THE_GATE = 5
DECODED_BEFORE_THE_GATE = 17


def run(settings: dict[str, Any], database_url: str, gates: Path) -> None:
    queue.HEARTBEAT_S, queue.DEAD_AFTER_S, worker._LOOK_FOR_DEAD_S = 0.2, 1.5, 0.3
    sync.batches.BATCH_KEYS = PAGE_KEYS
    preprocess._COMMIT_EVERY = 5
    places.open_local = lambda **given: open_local(page_keys=PAGE_KEYS, **given)
    _gate_pages(gates / "pages")
    _gate_decoding(gates / "decoding")
    asyncio.run(worker.run_worker(Settings(**settings), database_url))


def _gate_pages(gate: Path) -> None:
    pages, take_page = count(), local.take_page

    def gated(*arguments: Any) -> Any:
        while next(pages) >= PAGES_BEFORE_THE_GATE and not gate.exists():
            time.sleep(0.01)
        return take_page(*arguments)

    local.take_page = gated


def _gate_decoding(gate: Path) -> None:
    files, prepare = count(), DecodePool.prepare

    async def gated(self: DecodePool, path: Path) -> Any:
        if next(files) >= DECODED_BEFORE_THE_GATE:
            while not gate.exists():  # noqa: ASYNC110, ASYNC240 - another process opens it
                await asyncio.sleep(0.01)
        return await prepare(self, path)

    DecodePool.prepare = gated
