"""Which bytes a request asks for, and whether it has them already: RFC 9110, sections 13 and 14."""

import re

from starlette.exceptions import HTTPException

from headwater.errors import BadRequest

_BYTES = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))")
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def parse_range(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """(start, end) of `bytes=3-9`, the end not included; None for the whole.

    The whole is also the answer to several ranges at once, as S3 does it, to units other than bytes, and to the range
    from 0 on of an empty object, which the SDK asks for. Raises BadRequest for what is no range, and 416 for one behind
    the end: players and curl know that status, and to the SDK every status from 400 on is an error.
    """
    if header is None or not header.strip().lower().startswith("bytes"):
        return None
    asked = header.strip()
    if "," in asked:
        return None
    match = _BYTES.fullmatch(asked)
    if match is None or (match[2] and int(match[2]) < int(match[1])):
        raise BadRequest(f"The range {asked[:60]!r} is none of bytes=START-, bytes=START-END and bytes=-LENGTH.")
    start, end = max(0, size_bytes - int(match[3] or 0)), size_bytes
    if match[1]:
        start, end = int(match[1]), min(end, int(match[2]) + 1) if match[2] else end
    if size_bytes == 0 and start == 0:
        return None
    if start >= end:
        raise HTTPException(
            416,
            f"The item has {size_bytes:,} bytes, and none of them is in the range {asked[:60]!r}.",
            headers={"Content-Range": f"bytes */{size_bytes}"},
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
