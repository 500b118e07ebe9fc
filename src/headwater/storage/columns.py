"""Checks of what a store listed, column by column: fast, because listings are long; no network here."""

import re

from headwater.errors import Unavailable
from headwater.storage.stores import LARGEST_KEY_BYTES

NOTHING_CONCLUDED = "Nothing was concluded from it."
_TIMES = re.compile(r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)(?:\n|\Z))*")


def are_plain(keys: list[str]) -> bool:
    """Whether all can stand in the index; False when some of them may be unfit."""
    is_fit = "" not in keys and max(map(len, keys), default=0) <= LARGEST_KEY_BYTES // 4
    return is_fit and "\0" not in "".join(keys)


def without_prefix(keys: list[str], prefix: str) -> list[str]:
    if not prefix or not keys:
        return keys
    # The smallest and the largest of some texts begin with the prefix only if all of them do.
    if not (min(keys).startswith(prefix) and max(keys).startswith(prefix)):
        raise Unavailable(f"The store listed objects outside the prefix {prefix!r}. {NOTHING_CONCLUDED}")
    cut = len(prefix)
    return [key[cut:] for key in keys]


def numbers(texts: list[str]) -> list[int]:
    try:
        return list(map(int, texts))
    except ValueError as error:
        raise Unavailable(f"The store listed an object without a valid size. {NOTHING_CONCLUDED}") from error


def checked_times(texts: list[str]) -> list[str]:
    """ISO 8601 with a time zone, each."""
    if not _TIMES.fullmatch("\n".join(texts)) or "" in texts:
        raise Unavailable(f"The store listed an object without a valid time. {NOTHING_CONCLUDED}")
    return texts
