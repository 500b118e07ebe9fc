"""The table of known deviations is true, and the page shows it."""

from pathlib import Path

import pytest

from headwater.errors import HeadwaterError
from tests.storage.conftest import Place
from tests.storage.deviations import CANNOT_HOLD, DEVIATIONS, KEYS, KINDS, tables
from tests.storage.test_stores import check_roundtrip

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "stores.md"


def test_the_page_shows_the_table():
    shown = PAGE.read_text().partition("<!-- tests/storage/deviations.py -->\n")[2]
    assert shown == tables(), "Replace what follows the mark by what tests.storage.deviations.tables() gives."


def test_the_table_speaks_of_keys_and_stores_that_are_tested():
    assert CANNOT_HOLD.keys() == KINDS.keys()
    assert all(set(cannot) <= set(KEYS) for cannot in CANNOT_HOLD.values())
    assert all(deviation.kind in KINDS for deviation in DEVIATIONS)


async def test_a_key_that_a_store_cannot_hold_is_refused_or_lost(place: Place):
    """One that it can hold by now leaves the table."""
    for number, key in enumerate(CANNOT_HOLD[place.kind]):
        store = await place.empty_store(f"p{number}")
        with pytest.raises((HeadwaterError, AssertionError)):
            await check_roundtrip(store, key, b"body")
