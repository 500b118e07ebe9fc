"""S3's own events, which MinIO and Ceph send too, and EventBridge's.

S3 and MinIO write keys as in the query of a URL (`+` is a space); EventBridge and Ceph write them as they are.
https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
https://docs.ceph.com/en/latest/radosgw/notifications/
"""

from typing import Any
from urllib.parse import unquote_to_bytes

from headwater.catalog.sync.hints import Action
from headwater.wire.bucket_events.parsed import Parsed, Unreadable, hint, mapping, needed, text

# By the beginning of the event's name. What only changes tags, rights or the storage class changes no object.
_ACTIONS: dict[str, Action] = {
    "ObjectCreated:": "written",
    "ObjectRemoved:": "removed",
    "LifecycleExpiration:": "removed",
    "ObjectLifecycle:Expiration:": "removed",  # Ceph
    "ObjectSynced:": "unknown",  # Ceph: from another zone
    "ReducedRedundancyLostObject": "unknown",
}
_EVENTBRIDGE: dict[str, Action] = {"Object Created": "written", "Object Deleted": "removed"}


def record(event: dict[str, Any]) -> Parsed:
    """One of `Records`. Raises Unreadable."""
    name = needed(event.get("eventName")).removeprefix("s3:")
    kinds = [start for start in _ACTIONS if name.startswith(start)]
    if not kinds:
        return Parsed(ignored=1)
    s3 = mapping(event.get("s3"))
    found = mapping(s3.get("object"))
    written_key = needed(found.get("key"))
    is_ceph = text(event.get("eventSource")).startswith("ceph:")
    return Parsed(
        hints=[
            hint(
                written_key if is_ceph else _decoded(written_key),
                _ACTIONS[kinds[0]],
                bucket=text(mapping(s3.get("bucket")).get("name")) or None,
                etag=found.get("eTag") or found.get("etag"),
                size=found.get("size"),
                # Ceph's is a time as it lies in memory, which does not sort.
                sequencer=None if is_ceph else found.get("sequencer"),
                happened=event.get("eventTime"),
            )
        ]
    )


def _decoded(key: str) -> str:
    """Raises Unreadable for a key that is no UTF-8."""
    try:
        return unquote_to_bytes(key.replace("+", " ")).decode()
    except UnicodeError:
        raise Unreadable from None


def is_test(document: dict[str, Any]) -> bool:
    """What S3 sends when its events are set up."""
    return text(document.get("Event")) == "s3:TestEvent"


def test(_: dict[str, Any]) -> Parsed:
    return Parsed()


def is_eventbridge(document: dict[str, Any]) -> bool:
    return "detail-type" in document and isinstance(document.get("detail"), dict)


def eventbridge(document: dict[str, Any]) -> Parsed:
    """Raises Unreadable."""
    action = _EVENTBRIDGE.get(text(document["detail-type"]))
    if text(document.get("source")) != "aws.s3" or action is None:
        return Parsed(ignored=1)
    detail = mapping(document["detail"])
    found = mapping(detail.get("object"))
    return Parsed(
        hints=[
            hint(
                needed(found.get("key")),
                action,
                bucket=text(mapping(detail.get("bucket")).get("name")) or None,
                etag=found.get("etag"),
                size=found.get("size"),
                sequencer=found.get("sequencer"),
                happened=document.get("time"),
            )
        ]
    )
