"""Answers as JSON text."""

import json
from datetime import UTC, datetime

from headwater.wire import times
from headwater.wire.answers import as_json


def test_bytes_are_put_in_as_the_json_that_they_are() -> None:
    assert as_json({"a": [b'{"n": 1.50}', "ä"], "b": None}) == '{"a":[{"n": 1.50},"ä"],"b":null}'.encode()


def test_numbers_of_any_size_are_answered_exactly() -> None:
    large = 10**40 + 1
    assert json.loads(as_json({"a": large, "b": b"[%d]" % large, "c": "ä"})) == {"a": large, "b": [large], "c": "ä"}


def test_times_have_three_digits_behind_the_second_and_are_never_rounded_up() -> None:
    assert times.to_wire(datetime(2024, 3, 1, 23, 59, 59, 999_999, UTC)) == "2024-03-01T23:59:59.999Z"
    assert times.to_wire(datetime(987, 3, 1, tzinfo=UTC)) == "0987-03-01T00:00:00.000Z"
