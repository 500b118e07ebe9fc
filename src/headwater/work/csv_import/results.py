"""The verdict on each row, as a CSV file that grows piece by piece in the dataset's own storage."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

from headwater.catalog.csv_imports import CsvImport
from headwater.ids import to_wire
from headwater.work.places import Places

Outcome = Literal["created", "skipped", "refused"]
HEADER = ("row", "name", "outcome", "column", "reason", "item_id")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets run


@dataclass(frozen=True, slots=True)
class Verdict:
    row: int  # as a spreadsheet numbers it; the header is row 1
    name: str
    outcome: Outcome
    column: str = ""
    reason: str = ""
    item_id: int | None = None


def source_key(found: CsvImport) -> str:
    return f"{found.key}.csv"


def piece_key(found: CsvImport, piece: int) -> str:
    return f"{found.key}/{piece:08d}.csv"


def written(verdicts: Sequence[Verdict]) -> bytes:
    """As lines of the file."""
    text = io.StringIO()
    csv.writer(text).writerows(
        (
            one.row,
            _harmless(one.name),
            one.outcome,
            _harmless(one.column),
            _harmless(one.reason),
            "" if one.item_id is None else to_wire(one.item_id),
        )
        for one in verdicts
    )
    return text.getvalue().encode("utf-8", "replace")


def _harmless(text: str) -> str:
    """With a quote in front of what a spreadsheet would take for a formula, as OWASP advises."""
    return f"'{text}" if text.startswith(_FORMULA) else text


async def open_results(places: Places, found: CsvImport) -> AsyncIterator[bytes]:
    """The file as far as it is settled."""
    yield (",".join(HEADER) + "\r\n").encode()
    async with places.of_own(found.dataset_id) as store:
        for piece in range(found.pieces):
            async with store.get(piece_key(found, piece)) as reader:
                async for chunk in reader:
                    yield chunk
