"""Which envelope a delivery came in: told by its fields, never by who seems to have sent it.

| sender | body |
| --- | --- |
| Amazon S3, MinIO, Ceph | `{"Records": [{"s3": …}]}` |
| Amazon SNS | `{"Type": "Notification", "Message": "…"}`, with one of the others as its message |
| Amazon EventBridge | `{"source": "aws.s3", "detail": …}` |
| SeaweedFS | `{"event_type": …, "key": "/buckets/…", "message": …}` |
| Azure Event Grid | `[{"eventType": …, "subject": …}]`, or CloudEvents: `{"specversion": …, "type": …, "subject": …}` |
| Google Pub/Sub | `{"message": {"attributes": {"eventType": …}}}` |
"""

import json
from collections.abc import Callable
from typing import Any

from headwater.errors import BadRequest
from headwater.wire.bucket_events import aws, azure, google, seaweedfs
from headwater.wire.bucket_events.parsed import Parsed, Unreadable, mapping, text

_DEEPEST = 2  # a queue of Amazon's may hold what SNS sent, which holds what S3 said


def parse(body: bytes) -> Parsed:
    """Raises BadRequest for what no bucket sends. Events of unknown kinds are counted as ignored."""
    parsed = _parse(body, depth=0) if body.strip() else Parsed()
    if parsed.unreadable and not parsed.hints and parsed.unreadable == parsed.ignored:
        raise BadRequest(
            "The body looks like a bucket's events, but none of them names an object. Send the events as the bucket "
            "makes them, without an input transformer."
        )
    return parsed


def _parse(body: bytes | str, depth: int) -> Parsed:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON. Send a bucket's events as the cloud makes them.") from None
    if isinstance(document, list):
        parsed = Parsed()
        for event in document:
            parsed.add(_read(mapping(event), depth))
        return parsed
    return _read(mapping(document), depth)


def _read(document: dict[str, Any], depth: int) -> Parsed:
    """One object of the delivery, by the first envelope that knows it."""
    if text(document.get("Type")) and "TopicArn" in document:
        return _sns(document, depth)
    if isinstance(records := document.get("Records"), list):
        return _each(records, aws.record)
    for is_it, read in _ENVELOPES:
        if is_it(document):
            return _each([document], read)
    raise BadRequest(
        "The body is not the event of a bucket that Headwater knows: S3 (as such, by SNS or EventBridge), MinIO, Ceph, "
        "SeaweedFS, Azure Event Grid or Google Pub/Sub."
    )


def _sns(document: dict[str, Any], depth: int) -> Parsed:
    if document["Type"] == "SubscriptionConfirmation":
        return Parsed(confirm_url=text(document.get("SubscribeURL")) or None)
    if document["Type"] != "Notification":  # UnsubscribeConfirmation
        return Parsed(ignored=1)
    if depth == _DEEPEST:
        raise BadRequest("The body is a message of Amazon SNS in another, and again. Send them as they are.")
    return _parse(text(document.get("Message")), depth + 1)


def _each(events: list[Any], read: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    """One event that cannot be read does not cost the others."""
    parsed = Parsed()
    for event in events:
        try:
            parsed.add(read(mapping(event)))
        except Unreadable:
            parsed.add(Parsed(ignored=1, unreadable=1))
    return parsed


_ENVELOPES: list[tuple[Callable[[dict[str, Any]], bool], Callable[[dict[str, Any]], Parsed]]] = [
    (aws.is_test, aws.test),
    (aws.is_eventbridge, aws.eventbridge),
    (azure.is_event, azure.event),
    (google.is_push, google.push),
    (seaweedfs.is_event, seaweedfs.event),
]
