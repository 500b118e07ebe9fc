"""What kind of file an upload is, by its first bytes."""

from dataclasses import dataclass
from typing import Any

from headwater.catalog.accounts import Account
from headwater.media.probe import sniff_mime_type
from headwater.mime_types import guess_mime_type
from headwater.wire.links import DEFAULT_MIME_TYPE, LARGEST_LINK_BYTES
from headwater.work.links import read_new_link
from headwater.work.workplace import Workplace

KIND_BYTES = LARGEST_LINK_BYTES + 1  # a file that fills them is no link


@dataclass(frozen=True, slots=True)
class Kind:
    mime_type: str
    link: dict[str, Any] | None = None


def may_be_link(path: str, size_bytes: int) -> bool:
    return size_bytes <= LARGEST_LINK_BYTES and path.lower().endswith(".json")


async def read_kind(place: Workplace, caller: Account, path: str, start: bytes) -> Kind:
    """From the first `KIND_BYTES` of a file. Raises BadRequest, NotFound for a link that cannot be."""
    link = await read_new_link(place, caller, path, start) if may_be_link(path, len(start)) else None
    if link is None:
        return Kind(sniff_mime_type(start, path) if start else guess_mime_type(path))
    return Kind(link.mime_type or DEFAULT_MIME_TYPE, link.to_json())
