"""A query whose time is over ends within one condition, or one pattern, of it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from headwater.catalog.columns.cache import Columns, Deadline
from headwater.catalog.columns.encoding import Codes, texts_of
from headwater.catalog.columns.evaluating import AnyOf, JsonTest, Values
from headwater.catalog.columns.fences import fenced
from headwater.catalog.columns.reading import Reader
from headwater.catalog.query import Condition
from headwater.errors import QueryTooSlow

PATTERNS = [f"*{number}*a" for number in range(50)]


class View:
    """A segment whose chunk is given so many times: then the time is over."""

    first_id, rows = 0, 1

    def __init__(self, chunk: Any, times: int) -> None:
        self._chunk, self.left = chunk, times

    def chunk(self, _: int) -> Any:
        if not self.left:
            raise QueryTooSlow("over")
        self.left -= 1
        return self._chunk

    def fenced(self, _: int) -> Any:
        return None if isinstance(self._chunk, Codes) else fenced(self._chunk)


@pytest.mark.parametrize("chunk", [Codes(np.array([2], np.uint8)), texts_of(["a"], {}, [])])
@pytest.mark.parametrize("is_one_list", [True, False])
def test_patterns_are_tried_while_there_is_time(chunk: Any, is_one_list: bool) -> None:
    def leaf(operator: Any, value: Any) -> JsonTest:
        return JsonTest(1, Condition("metadata.user.k", operator, value), hash_key=b"key", values=Values(["a"]))

    node = leaf("in", PATTERNS) if is_one_list else AnyOf(tuple(leaf("eq", pattern) for pattern in PATTERNS))
    view: Any = View(chunk, 1_000)
    assert not node.test(view).true.any()
    assert 1_000 - view.left >= len(PATTERNS)
    node = leaf("in", PATTERNS[::-1]) if is_one_list else node
    with pytest.raises(QueryTooSlow):
        node.test(View(chunk, len(PATTERNS) // 2))  # pyright: ignore[reportArgumentType]


def test_no_part_is_given_to_a_query_whose_time_is_over() -> None:
    deadline, segment = Deadline(60), SimpleNamespace(version=1, path_numbers=[], rows=1)
    state: Any = SimpleNamespace(paths={"metadata.user.k": SimpleNamespace(number=1, encoding="codes")})
    reader = Reader(None, state, Columns(most_bytes=0), deadline)  # pyright: ignore[reportArgumentType]
    assert isinstance(reader.part(segment, 1), Codes)  # pyright: ignore[reportArgumentType]
    deadline.stop()
    with pytest.raises(QueryTooSlow):
        reader.part(segment, 1)  # pyright: ignore[reportArgumentType]
