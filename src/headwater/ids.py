"""Ids: numbers inside, 24 lower-case hex digits on the wire; they sort in creation order, as the SDK's paging needs."""

import re

from headwater.errors import NotFound

_WIRE_ID = re.compile(r"[0-9a-f]{24}")
_LARGEST = 2**63 - 1


def to_wire(number: int) -> str:
    return f"{number:024x}"


def from_wire(text: str, noun: str = "thing") -> int:
    """Raises NotFound: what is not an id of ours names nothing."""
    if not _WIRE_ID.fullmatch(text) or (number := int(text, 16)) > _LARGEST:
        raise NotFound(f"No {noun} with id {text[:40]!r}. Ids are 24 lower-case hexadecimal digits.")
    return number
