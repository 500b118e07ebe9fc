"""Rows near the ranks of a page are those of the page, and it is known how many come before."""

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.columns import fences
from headwater.catalog.columns.encoding import Paths
from tests.catalog.matching import examples


@examples(80)
@given(seed=st.integers(0, 2**32), data=st.data(), block=st.sampled_from([1, 2, 5, 256]))
def test_a_page_is_among_what_is_near(seed, data, block):
    drawn = random.Random(seed)
    clustered = drawn.random() < 0.5
    different = data.draw(st.sampled_from([3, 10**4]))
    names = sorted(f"/{drawn.randrange(different):x}é" for _ in range(data.draw(st.integers(1, 120))))
    count = data.draw(st.integers(1, 6))
    homes = [n * count // len(names) if clustered else drawn.randrange(count) for n in range(len(names))]
    paths = {home: [name for name, at in zip(names, homes, strict=True) if at == home] for home in sorted(set(homes))}
    for texts in paths.values():
        drawn.shuffle(texts)
    masks = {home: np.array([drawn.random() < 0.6 for _ in texts]) for home, texts in paths.items()}
    wanted = sorted(
        text for home, texts in paths.items() for text, shown in zip(texts, masks[home], strict=True) if shown
    )
    first = data.draw(st.integers(0, len(wanted)))
    until = first + data.draw(st.integers(1, 20))
    down = data.draw(st.booleans())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fences, "_BLOCK_ROWS", block)
        parts = {
            home: fences.fenced(Paths(pa.array(texts), np.argsort(np.array(texts)).astype(np.uint16)))
            for home, texts in paths.items()
        }
        found = fences.near(fences.merged(parts), parts, masks, first, until, descending=down)
    near = sorted(paths[home][row] for home, rows in found.rows.items() for row in rows)
    if down:
        near.reverse()
        wanted.reverse()
    assert found.total == len(wanted)
    assert near[first - found.before : until - found.before] == wanted[first:until]
    if clustered and different > len(names):
        assert len(near) <= until - first + 4 * block
