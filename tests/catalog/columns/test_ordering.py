"""Pages of an order, against a sort of everything."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.columns import ordering
from headwater.catalog.columns.ordering import part_of, ranked
from tests.catalog.matching import examples

SEGMENT_ROWS = 12


@pytest.mark.parametrize("few", [0, 3, 100_000])  # which way of finding ranks
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float64])
@examples(60)
@given(data=st.data())
def test_the_rows_at_ranks_are_those_of_a_full_sort(few, dtype, data):
    segments = data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True).map(sorted))
    keys = data.draw(st.integers(0, 3))
    largest = data.draw(st.sampled_from([1, 5, 1000]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    masks = {segment: random.random(SEGMENT_ROWS) < 0.7 for segment in segments}
    values = [
        {segment: random.integers(-largest, largest, SEGMENT_ROWS).astype(dtype) for segment in segments}
        for _ in range(keys)
    ]
    first = data.draw(st.integers(0, 40))
    last = first + data.draw(st.integers(0, 40))
    down = data.draw(st.booleans())
    rows = [(segment, place) for segment in segments for place in range(SEGMENT_ROWS) if masks[segment][place]]
    rows.sort(reverse=down)
    for key in reversed(values):
        rows.sort(key=lambda row: key[row[0]][row[1]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordering, "_FEW", few)
        parts = [part for segment in segments if (part := part_of(segment, masks[segment])).count]
        found = ranked(parts, [key.__getitem__ for key in values], first, last, descending_ids=down)
    assert [(segment, int(place)) for segment, places in found for place in places] == rows[first:last]
