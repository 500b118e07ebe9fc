"""SeaweedFS's filer tells of its own entries; buckets are folders of it. As 4.48 sends them.

Keys are as they are. There is nothing that would order two events of one key.
"""

import base64
from typing import Any

from headwater.catalog.sync.hints import Hint
from headwater.wire.bucket_events.parsed import Parsed, Unreadable, hint, mapping, needed, text

_BUCKETS = "/buckets/"  # unless its filer.toml says otherwise
_UPLOADS = ".uploads/"  # parts of objects to come
_ETAG = "Seaweed-X-Amz-ETag"


def is_event(document: dict[str, Any]) -> bool:
    return "event_type" in document and isinstance(document.get("message"), dict)


def event(document: dict[str, Any]) -> Parsed:
    """One hint for an entry, two for one that was moved. Raises Unreadable."""
    path, message = needed(document.get("key")), document["message"]
    old, new = mapping(message.get("old_entry")), mapping(message.get("new_entry"))
    if not old and not new:
        raise Unreadable
    new_path = f"{text(message.get('new_parent_path'))}/{text(new.get('name'))}" if new else None
    is_move = bool(old and new_path and new_path != path)
    if (new or old).get("is_directory"):
        return Parsed(needs_scan=True) if is_move else Parsed(ignored=1)
    found: list[Hint | None] = []
    if new_path:
        found.append(_hint_of(new_path, new))
    if not new or is_move:
        found.append(_hint_of(path, None))
    hints = [each for each in found if each is not None]
    return Parsed(hints=hints, ignored=len(found) - len(hints))


def _hint_of(path: str, entry: dict[str, Any] | None) -> Hint | None:
    """None for what is no object of a bucket."""
    bucket, slash, key = path.removeprefix(_BUCKETS).partition("/")
    if not path.startswith(_BUCKETS) or not slash or not bucket or not key or key.startswith(_UPLOADS):
        return None
    if entry is None:
        return hint(key, "removed", bucket=bucket)
    attributes = mapping(entry.get("attributes"))
    return hint(
        key,
        "written",
        bucket=bucket,
        etag=_etag(entry),
        size=attributes.get("file_size", 0),  # it leaves zeros out
        happened=attributes.get("mtime"),
    )


def _etag(entry: dict[str, Any]) -> str | None:
    try:
        return base64.b64decode(text(mapping(entry.get("extended")).get(_ETAG)), validate=True).decode() or None
    except ValueError:  # no base64, or no text
        return None
