"""Answers as JSON text. Documents that nobody needs to read on their way out may stay the text that they are."""

import json

import orjson


def as_json(answer: object) -> bytes:
    """Bytes in the answer are JSON already and are put in as they are."""
    try:
        return orjson.dumps(answer, default=orjson.Fragment)
    except TypeError:  # a number of more than 64 bits
        return json.dumps(answer, default=json.loads, ensure_ascii=False, separators=(",", ":")).encode()
