"""Where to cut a range of keys: at keys the store itself names, found with a few small listings.

Stores are asked for the first key behind texts that were made up. Some skip things there, so what such an answer
leaves out proves nothing; the key that it names is there, and that is all a bound needs.
"""

from collections.abc import Awaitable, Callable

MOST_BOUNDS = 15

_LAST_CHARACTER = "\U0010ffff"

FirstKeyAfter = Callable[[str], Awaitable[str | None]]


async def find_bounds(
    first_key_after: FirstKeyAfter, low: str, high: str | None, *, most: int = MOST_BOUNDS
) -> list[str]:
    """Keys between `low` and `high` that cut this range where the stems of keys differ first, in order; may be none.

    Keys are taken for a tree of stems, so that folders, dates, hashes and counters in flat buckets are all cut at
    what tells them apart. It takes about 10 small listings to find the place, and one for each bound.
    """
    length, bound = await _shortest_telling_stem(first_key_after, low, high)
    bounds: list[str] = []
    while bound is not None:
        bounds.append(bound)
        if len(bounds) == most:
            break
        bound = await _first_beyond(first_key_after, bound[:length], high)
    return bounds


async def _shortest_telling_stem(first_key_after: FirstKeyAfter, low: str, high: str | None) -> tuple[int, str | None]:
    """How many characters of `low` tell it from a later key, and that key: the first that does not share them.

    Nothing lies beyond a stem when nothing lies beyond a longer one, so the length is found by halving.
    """
    found: str | None = None
    shortest, longest = 1, len(low) + 1  # no stem of less tells them apart; this one does, or none
    while shortest < longest:
        middle = (shortest + longest) // 2
        beyond = await _first_beyond(first_key_after, low[:middle], high)
        if beyond is None:
            shortest = middle + 1
        else:
            longest, found = middle, beyond
    return longest, found


async def _first_beyond(first_key_after: FirstKeyAfter, stem: str, high: str | None) -> str | None:
    """The first key behind all that begin with the stem."""
    behind = successor(stem)
    found = None if behind is None else await first_key_after(behind)
    # A store that begins elsewhere than it was told to may answer with anything.
    if found is None or found <= stem or found.startswith(stem) or (high is not None and found >= high):
        return None
    return found


def successor(stem: str) -> str | None:
    """A text behind everything that begins with the stem, with little between; None when there is none."""
    kept = stem.rstrip(_LAST_CHARACTER)
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)
