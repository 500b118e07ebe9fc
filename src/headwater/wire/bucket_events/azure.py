"""Azure Event Grid's events of blobs, in its own schema and in that of CloudEvents.

The subject names the blob as it is; `data.url` would name it as a URL does.
https://learn.microsoft.com/azure/event-grid/event-schema-blob-storage
"""

import re
from datetime import datetime
from typing import Any
from urllib.parse import unquote

from headwater.catalog.sync.hints import Action, Hint
from headwater.wire.bucket_events.parsed import Parsed, Unreadable, hint, mapping, needed, text

_SUBJECT = re.compile(r"/blobServices/default/containers/([^/]+)/blobs/(.+)", re.DOTALL)
_URL = re.compile(r"https?://[^/]+/([^/]+)/(.+)", re.DOTALL)
_STORAGE = "Microsoft.Storage."
_ACTIONS: dict[str, Action] = {"BlobCreated": "written", "BlobDeleted": "removed", "BlobRenamed": "unknown"}
_FOLDER_KINDS = ("DirectoryRenamed", "DirectoryDeleted")  # nothing is said of the blobs inside


def is_event(document: dict[str, Any]) -> bool:
    return _kind(document).startswith((_STORAGE, "Microsoft.EventGrid."))


def _kind(document: dict[str, Any]) -> str:
    return text(document.get("type" if "specversion" in document else "eventType"))


def event(document: dict[str, Any]) -> Parsed:
    """Raises Unreadable."""
    data = mapping(document.get("data"))
    if _kind(document) == "Microsoft.EventGrid.SubscriptionValidationEvent":
        return Parsed(answer={"validationResponse": needed(text(data.get("validationCode")))})
    kind = _kind(document).removeprefix(_STORAGE)
    if kind in _FOLDER_KINDS:
        return Parsed(needs_scan=True)
    if kind not in _ACTIONS:
        return Parsed(ignored=1)
    subject = _SUBJECT.fullmatch(needed(document.get("subject")))
    if subject is None:
        raise Unreadable
    found = hint(
        subject[2],
        _ACTIONS[kind],
        bucket=subject[1],
        etag=data.get("eTag"),
        size=data.get("contentLength"),
        sequencer=data.get("sequencer"),
        happened=document.get("eventTime") or document.get("time"),
    )
    return Parsed(hints=[found, *_old_names(data, found.happened_at)])


def _old_names(data: dict[str, Any], happened_at: datetime | None) -> list[Hint]:
    """Where a renamed blob was: read as a URL and as it is, because nobody says which it is."""
    source = _URL.fullmatch(text(data.get("sourceUrl")))
    if source is None:
        return []
    return [Hint(key, "unknown", None, happened_at, source[1]) for key in sorted({source[2], unquote(source[2])})]
