"""Pub/Sub's pushes of what Google Cloud Storage says. Keys are as they are.

https://cloud.google.com/storage/docs/pubsub-notifications
https://cloud.google.com/pubsub/docs/push#receive_push
"""

import base64
import json
from typing import Any

from headwater.catalog.sync.hints import Action
from headwater.storage.gcs.requests import etag_of
from headwater.wire.bucket_events.parsed import Parsed, hint, mapping, needed, text

_ACTIONS: dict[str, Action] = {
    "OBJECT_FINALIZE": "written",
    "OBJECT_DELETE": "removed",
    "OBJECT_ARCHIVE": "removed",  # where old generations are kept: the live one is none any more
}


def is_push(document: dict[str, Any]) -> bool:
    return "eventType" in mapping(mapping(document.get("message")).get("attributes"))


def push(document: dict[str, Any]) -> Parsed:
    """Raises Unreadable."""
    message = mapping(document["message"])
    attributes = mapping(message["attributes"])
    action = _ACTIONS.get(text(attributes["eventType"]))
    if action is None:
        return Parsed(ignored=1, is_pubsub=True)
    resource = _resource(message.get("data"))
    found = hint(
        needed(attributes.get("objectId")),
        action,
        bucket=text(attributes.get("bucketId")) or None,
        etag=etag_of({name: text(resource.get(name)) for name in ("md5Hash", "generation")}),
        size=resource.get("size"),
        sequencer=_generation(attributes.get("objectGeneration")),
        happened=attributes.get("eventTime") or message.get("publishTime"),
    )
    return Parsed(hints=[found], is_pubsub=True)


def _resource(data: object) -> dict[str, Any]:
    """The object's own description, which a notification may leave out; then empty."""
    try:
        return mapping(json.loads(base64.b64decode(text(data), validate=True)))
    except (ValueError, RecursionError):
        return {}


def _generation(value: object) -> str | None:
    """A whole number, as a sequencer is written."""
    told = text(value)
    return f"{int(told):x}" if told.isascii() and told.isdecimal() and len(told) < 20 else None
