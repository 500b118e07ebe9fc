"""Which bytes a request asks for, and whether it has them already: RFC 9110, sections 13 and 14."""

import re

from headwater.errors import BadRequest, RangeNotSatisfiable

_BYTES = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))")
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def asked_range(header: str | None) -> tuple[int, int | None] | None:
    """(start, end) of `bytes=3-9`, the end not included; a negative start is so many bytes at the end. None: the whole.

    The whole is also the answer to several ranges at once, as S3 does it, and to units other than bytes. Raises
    BadRequest for what is no range.
    """
    asked = (header or "").strip()
    if not asked.lower().startswith("bytes") or "," in asked:
        return None
    match = _BYTES.fullmatch(asked)
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        raise BadRequest(f"The range {asked[:60]!r} is none of bytes=START-, bytes=START-END and bytes=-LENGTH.")
    if match[3]:
        return (-int(match[3]), None) if int(match[3]) else (0, 0)
    return int(match[1]), int(match[2]) + 1 if match[2] else None


def range_within(asked: tuple[int, int | None] | None, size_bytes: int) -> tuple[int, int] | None:
    """The range of an object of that size; None for the whole, and for an empty object, of which the SDK asks for the
    bytes from 0 on.

    Raises RangeNotSatisfiable for one behind the end.
    """
    if asked is None:
        return None
    start = max(0, size_bytes + asked[0]) if asked[0] < 0 else asked[0]
    end = size_bytes if asked[1] is None else min(asked[1], size_bytes)
    if start == size_bytes == 0:
        return None
    if start >= end:
        raise RangeNotSatisfiable(
            f"The item has {size_bytes:,} bytes, and none of them is in the range that was asked for.",
            size_bytes=size_bytes,
        )
    return start, end


def has_already(if_none_match: str | None, etag: str) -> bool:
    """Whether the caller has these bytes."""
    if if_none_match is None or not etag:
        return False
    return if_none_match.strip() == "*" or etag in _TAG.findall(if_none_match)


def still_holds(if_range: str | None, etag: str) -> bool:
    """Whether a range is wanted: what the caller has of it is of the same bytes. A date does not tell."""
    return if_range is None or (bool(etag) and if_range.strip() == f'"{etag}"')
