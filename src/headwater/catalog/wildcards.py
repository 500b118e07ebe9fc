"""Wildcards in texts and in paths: read into parts, which become LIKE or a regular expression."""

import re
from typing import Any

from headwater.catalog.fields import shown
from headwater.errors import BadRequest

_MOST_WILDCARDS = 20  # in one text
_LONGEST_PATTERN = 4_000

ANY, SEGMENT, FOLDERS, BELOW = object(), object(), object(), object()
_REGEX = {ANY: ".*", SEGMENT: "[^/]*", FOLDERS: "(?:.*/)?", BELOW: "(?:/.*)?"}
Parts = list[str | object]  # of a pattern: literal texts, and the marks above


def is_pattern(value: Any) -> bool:
    return isinstance(value, str) and "*" in value


def _split_pattern(text: str) -> list[str]:
    """Literal, stars, literal, stars, …, literal."""
    pieces = re.split(r"(\*+)", text)
    if len(pieces) // 2 > _MOST_WILDCARDS or len(text) > _LONGEST_PATTERN:
        raise BadRequest(
            f"The pattern {shown(text)} is too long: at most {_MOST_WILDCARDS} wildcards"
            f" and {_LONGEST_PATTERN:,} characters go."
        )
    return pieces


def as_like(parts: Parts) -> str:
    return "".join(re.sub(r"([\\%_])", r"\\\1", part) if isinstance(part, str) else "%" for part in parts)


def as_regex(parts: Parts) -> str:
    escaped = (
        re.sub(r"([][\\^$.|?*+(){}])", r"\\\1", part) if isinstance(part, str) else _REGEX[part] for part in parts
    )
    return f"^{''.join(escaped)}$"


def text_parts(text: str) -> Parts:
    return [ANY if piece.startswith("*") else piece for piece in _split_pattern(text) if piece]


def path_parts(text: str, *, folder_itself: bool) -> Parts:
    """`*` stays between two slashes, but for one that begins or ends the text; `**` crosses them.

    `/**/` also stands for `/`, and a `/**` at the end for nothing; for folders `/*` at the end does, too.
    """
    pieces = _split_pattern(text)
    parts: Parts = []
    for at in range(1, len(pieces), 2):
        before, stars, after = pieces[at - 1 : at + 2]
        first, last = at == 1 and not before, at == len(pieces) - 2 and not after
        many = len(stars) > 1
        if last and before.endswith("/") and (many or folder_itself):
            parts += [before[:-1], BELOW]
        elif many and before.endswith("/") and after.startswith("/"):
            parts += [before, FOLDERS]
            pieces[at + 1] = after[1:]
        else:
            parts += [before, ANY if many or first or last else SEGMENT]
    return [part for part in [*parts, pieces[-1]] if part != ""]


def after_all_with(prefix: str) -> str | None:
    """The first text, in byte order, after every text that starts with `prefix`; None if there is none."""
    for end in range(len(prefix) - 1, -1, -1):
        point = ord(prefix[end]) + 1
        if point == 0xD800:  # no text holds surrogates
            point = 0xE000
        if point <= 0x10FFFF:
            return prefix[:end] + chr(point)
    return None
