"""What every job has at hand: database, vault, stores, decoders. Put together by app.py and worker.py."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from headwater.db.pool import Pool
from headwater.media.limits import DecodePool
from headwater.net.fetch import Fetcher
from headwater.net.turns import Turns
from headwater.vault.both import Vaults
from headwater.work.places import Places


@dataclass(frozen=True, slots=True)
class Workplace:
    pool: Pool
    places: Places
    vault: Vaults
    decoders: DecodePool
    fetcher: Fetcher  # the one way to what people's URLs lead to
    spool_dir: Path  # objects on their way to a decoder
    slots: asyncio.Semaphore  # objects read at once: enough to keep the decoders busy
    public_url: str | None  # how clients reach this server, where the operator said it
    link_turns: Turns  # of hosts of linked URLs
    link_fetch: bool  # whether linked URLs are read at all
    link_most_bytes: int  # of a linked image
    allow_private: bool  # whether people may name inner addresses
    export_days: int  # how long files of exports are kept
