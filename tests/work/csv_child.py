"""A process that imports a CSV file a few rows at a time, for tests to kill."""

import asyncio
from typing import Any

from headwater.settings import Settings
from headwater.work.csv_import import import_rows, importing, reading
from headwater.workplace import open_workplace


def run(settings: dict[str, Any], database_url: str, command_id: int) -> None:
    importing._PIECE_ROWS = importing._LINK_ROWS = 7
    reading._BLOCK_BYTES = 300

    async def work() -> None:
        async with open_workplace(Settings(**settings), database_url, name="child", max_connections=4) as place:
            await import_rows(place, command_id)

    asyncio.run(work())
