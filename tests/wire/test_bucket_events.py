"""What buckets send: each envelope as its sender makes it, keys byte by byte, and bodies that nobody should send."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.sync.hints import Hint
from headwater.errors import BadRequest
from headwater.wire.bucket_events import Parsed, parse

KEYS = [
    "plain.jpg",
    "a b/c d.jpg",
    "a+b.jpg",
    "100%.jpg",
    "a%20b.jpg",
    "a%2Bb+c d.jpg",
    "ö/🦊.jpg",
    "o\u0308.jpg",
    "what?.jpg",
    "a#b.jpg",
    "a&b=c.jpg",
    'quote".jpg',
    "back\\slash.jpg",
    "a//b.jpg",
    "/lead.jpg",
    "trail/",
    "line\nbreak",
    "blobs/containers/x",
    "..",
]


def s3_record(key: str, name: str = "ObjectCreated:Put", source: str = "aws:s3", **changed) -> dict:
    """As S3 sends one, with a key that is already as its sender writes it."""
    return {
        "eventVersion": "2.1",
        "eventSource": source,
        "awsRegion": "eu-central-1",
        "eventTime": "2026-03-02T10:11:12.345Z",
        "eventName": name,
        "userIdentity": {"principalId": "AWS:AIDAEXAMPLE"},
        "requestParameters": {"sourceIPAddress": "192.0.2.7"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "headwater",
            "bucket": {
                "name": "photos",
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": "arn:aws:s3:::photos",
            },
            "object": {"key": key, "size": 1024, "eTag": "d41d8cd9", "sequencer": "0055AED6DCD90281E5"} | changed,
        },
    }


def s3(key: str, **changed) -> dict:
    return {"Records": [s3_record(quote_plus(key, safe="/"), **changed)]}


def minio(key: str) -> dict:
    """MinIO writes a slash as %2F, and says the name a second time in front."""
    record = s3_record(quote_plus(key), "s3:ObjectCreated:Put", "minio:s3", contentType="image/jpeg", userMetadata={})
    record["source"] = {"host": "10.0.0.3", "port": "", "userAgent": "MinIO (linux; amd64) mc"}
    return {"EventName": "s3:ObjectCreated:Put", "Key": f"photos/{key}", "Records": [record]}


def ceph(key: str) -> dict:
    """Ceph writes keys as they are, the size as a text, and a sequencer that does not sort."""
    record = s3_record(key, "ObjectCreated:Put", "ceph:s3", size="1024", sequencer="F7E6D75DC742D108", metadata=[])
    return {"Records": [record | {"eventId": "1575221657.102001.80dad3aa", "opaqueData": "me@example.com"}]}


def eventbridge(key: str, kind: str = "Object Created") -> dict:
    return {
        "version": "0",
        "id": "17793124-05d4-b198-2fde-7ededc63b103",
        "detail-type": kind,
        "source": "aws.s3",
        "account": "111122223333",
        "time": "2026-03-02T10:11:12Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:s3:::photos"],
        "detail": {
            "version": "0",
            "bucket": {"name": "photos"},
            "object": {"key": key, "size": 1024, "etag": "d41d8cd9", "sequencer": "0055AED6DCD90281E5"},
            "request-id": "N4N7GDK58NMKJ12R",
            "requester": "123456789012",
            "reason": "PutObject",
        },
    }


def sns(message: dict, kind: str = "Notification") -> dict:
    return {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": "arn:aws:sns:eu-central-1:111122223333:photos",
        "Subject": "Amazon S3 Notification",
        "Message": json.dumps(message),
        "Timestamp": "2026-03-02T10:11:13.000Z",
        "SignatureVersion": "1",
        "Signature": "EXAMPLE",
        "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
    }


def event_grid(key: str, kind: str = "BlobCreated", **data) -> list[dict]:
    return [
        {
            "topic": "/subscriptions/0/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acct",
            "subject": f"/blobServices/default/containers/photos/blobs/{key}",
            "eventType": f"Microsoft.Storage.{kind}",
            "id": "831e1650-001e-001b-66ab-eeb76e069631",
            "data": {
                "api": "PutBlockList",
                "clientRequestId": "6d79dbfb-0e37-4fc4-981f-442c9ca65760",
                "requestId": "831e1650-001e-001b-66ab-eeb76e000000",
                "eTag": "d41d8cd9",
                "contentType": "image/jpeg",
                "contentLength": 1024,
                "blobType": "BlockBlob",
                "url": f"https://acct.blob.core.windows.net/photos/{quote(key)}",
                "sequencer": "00000000000004420000000000028963",
                "storageDiagnostics": {"batchId": "b68529f3-68cd-4744-baa4-3c0498ec19f0"},
            }
            | data,
            "dataVersion": "",
            "metadataVersion": "1",
            "eventTime": "2026-03-02T10:11:12.3456789Z",
        }
    ]


def cloud_event(key: str) -> dict:
    (event,) = event_grid(key)
    return {
        "specversion": "1.0",
        "source": event["topic"],
        "subject": event["subject"],
        "type": event["eventType"],
        "time": event["eventTime"],
        "id": event["id"],
        "data": event["data"],
    }


def pubsub(key: str, kind: str = "OBJECT_FINALIZE", data: object = None) -> dict:
    resource = data or {
        "kind": "storage#object",
        "name": key,
        "bucket": "photos",
        "generation": "1772446272345678",
        "size": "1024",
        "md5Hash": "d41d8cd9",
        "etag": "CNDq",
    }
    return {
        "message": {
            "attributes": {
                "bucketId": "photos",
                "eventTime": "2026-03-02T10:11:12.345678Z",
                "eventType": kind,
                "notificationConfig": "projects/_/buckets/photos/notificationConfigs/3",
                "objectGeneration": "1772446272345678",
                "objectId": key,
                "payloadFormat": "JSON_API_V1",
            },
            "data": base64.b64encode(json.dumps(resource).encode()).decode(),
            "messageId": "2070443601311540",
            "publishTime": "2026-03-02T10:11:12.5Z",
        },
        "subscription": "projects/p/subscriptions/headwater",
    }


def seaweedfs(key: str, kind: str = "create") -> dict:
    """As 4.48 sends it for a PUT by S3."""
    folder, _, name = f"/buckets/photos/{key}".rpartition("/")
    entry = {
        "name": name,
        "chunks": [{"size": 1024, "modified_ts_ns": 1772446272000000001, "e_tag": "XUFAKrxLKna5cZ2REBfFkg=="}],
        "attributes": {"file_size": 1024, "mtime": 1772446272, "file_mode": 432, "md5": "XUFAKrxLKna5cZ2REBfFkg=="},
        "extended": {"Seaweed-X-Amz-ETag": base64.b64encode(b"d41d8cd9").decode(), "Seaweed-X-Amz-Owner": "YWRtaW4="},
    }
    message = {"delete_chunks": True, "signatures": [-1627367497]}
    if kind != "create":
        message["old_entry"] = entry
    if kind != "delete":
        message |= {"new_entry": entry, "new_parent_path": folder}
    return {"event_type": kind, "key": f"/buckets/photos/{key}", "message": message}


ENVELOPES = {
    "S3": s3,
    "S3 by SNS": lambda key: sns(s3(key)),
    "S3 by SNS by SQS, twice in a message": lambda key: sns(sns(s3(key))),
    "EventBridge": eventbridge,
    "EventBridge by SNS": lambda key: sns(eventbridge(key)),
    "MinIO": minio,
    "Ceph": ceph,
    "Event Grid": event_grid,
    "Event Grid, one of a queue": lambda key: event_grid(key)[0],
    "Event Grid as CloudEvents": cloud_event,
    "Event Grid as a batch of CloudEvents": lambda key: [cloud_event(key)],
    "Pub/Sub": pubsub,
    "SeaweedFS": seaweedfs,
}


def read(document: object) -> Parsed:
    return parse(json.dumps(document).encode())


# SeaweedFS has no files that are named like folders.
NAMED = [(name, key) for name in ENVELOPES for key in KEYS if not (name == "SeaweedFS" and key.endswith("/"))]


@pytest.mark.parametrize(("name", "key"), NAMED)
def test_every_envelope_names_the_key_exactly(name: str, key: str):
    parsed = read(ENVELOPES[name](key))
    assert [(hint.key, hint.action, hint.bucket) for hint in parsed.hints] == [(key, "written", "photos")]
    assert (parsed.ignored, parsed.answer, parsed.confirm_url, parsed.needs_scan) == (0, None, None, False)


@pytest.mark.parametrize("name", ENVELOPES)
def test_what_they_say_of_the_object_is_kept(name: str):
    (hint,) = read(ENVELOPES[name]("k")).hints
    assert (hint.content, hint.etag, hint.size_bytes) == ("1024:d41d8cd9", "d41d8cd9", 1024)
    assert hint.happened_at is not None
    assert hint.happened_at.replace(microsecond=0) == datetime(2026, 3, 2, 10, 11, 12, tzinfo=UTC)
    assert (hint.sequencer is None) == (name in ("Ceph", "SeaweedFS"))


KINDS = {
    "S3 multipart": (s3("k", name="ObjectCreated:CompleteMultipartUpload"), "written"),
    "S3 copy": (s3("k", name="ObjectCreated:Copy"), "written"),
    "S3 delete": (s3("k", name="ObjectRemoved:Delete"), "removed"),
    "S3 delete marker": (s3("k", name="ObjectRemoved:DeleteMarkerCreated"), "removed"),
    "S3 expired": (s3("k", name="LifecycleExpiration:Delete"), "removed"),
    "S3 tags": (s3("k", name="ObjectTagging:Put"), None),
    "S3 restored": (s3("k", name="ObjectRestore:Completed"), None),
    "MinIO delete": (s3("k", name="s3:ObjectRemoved:Delete", source="minio:s3"), "removed"),
    "MinIO read": (s3("k", name="s3:ObjectAccessed:Get", source="minio:s3"), None),
    "Ceph expired": (s3("k", name="ObjectLifecycle:Expiration:Current", source="ceph:s3"), "removed"),
    "Ceph of another zone": (s3("k", name="ObjectSynced:Create", source="ceph:s3"), "unknown"),
    "EventBridge delete": (eventbridge("k", "Object Deleted"), "removed"),
    "EventBridge tags": (eventbridge("k", "Object Tags Added"), None),
    "EventBridge of others": (eventbridge("k") | {"source": "aws.ec2"}, None),
    "Event Grid delete": (event_grid("k", "BlobDeleted"), "removed"),
    "Event Grid tier": (event_grid("k", "BlobTierChanged"), None),
    "Event Grid folder": (event_grid("k", "DirectoryCreated"), None),
    "Pub/Sub delete": (pubsub("k", "OBJECT_DELETE"), "removed"),
    "Pub/Sub archive": (pubsub("k", "OBJECT_ARCHIVE"), "removed"),
    "Pub/Sub metadata": (pubsub("k", "OBJECT_METADATA_UPDATE"), None),
    "SeaweedFS update": (seaweedfs("k", "update"), "written"),
    "SeaweedFS delete": (seaweedfs("k", "delete"), "removed"),
    "SeaweedFS part of an upload": (seaweedfs(".uploads/9_f/0001.part"), None),
    "SeaweedFS outside of buckets": (seaweedfs("k", "delete") | {"key": "/etc/k"}, None),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_events_are_told_apart_and_others_are_ignored_and_counted(name: str):
    document, action = KINDS[name]
    parsed = read(document)
    hints = [hint for hint in parsed.hints if hint.key == "k"]
    assert [hint.action for hint in hints] == ([] if action is None else [action])
    assert (parsed.ignored > 0) == (action is None)


@pytest.mark.parametrize("kind", ["ObjectRemoved:Delete", "LifecycleExpiration:Delete"])
def test_a_removed_object_has_no_content(kind: str):
    (hint,) = read(s3("k", name=kind)).hints
    assert hint.content is None


def test_one_delivery_has_many_events_and_one_that_cannot_be_read_does_not_cost_the_others():
    records = [s3_record("a"), {"eventName": "ObjectCreated:Put"}, s3_record("b%FFc"), 7, s3_record("d", "Test:x")]
    parsed = read({"Records": [*records, s3_record("e")]})
    assert [hint.key for hint in parsed.hints] == ["a", "e"]
    assert (parsed.ignored, parsed.unreadable) == (4, 3)


def test_a_move_in_seaweedfs_names_both_keys():
    moved = seaweedfs("new name/k", "rename") | {"key": "/buckets/photos/old/k"}
    assert [(hint.key, hint.action) for hint in read(moved).hints] == [("new name/k", "written"), ("old/k", "removed")]


def test_a_rename_in_azure_names_both_keys_whether_its_url_is_encoded_or_not():
    renamed = event_grid(
        "new/k",
        "BlobRenamed",
        sourceUrl="https://acct.dfs.core.windows.net/photos/old/a%20b",
        destinationUrl="https://acct.dfs.core.windows.net/photos/new/k",
    )
    assert [(hint.key, hint.bucket) for hint in read(renamed).hints] == [
        ("new/k", "photos"),
        ("old/a b", "photos"),
        ("old/a%20b", "photos"),
    ]


def folder(document: dict) -> dict:
    for entry in ("old_entry", "new_entry"):
        if entry in document["message"]:
            document["message"][entry]["is_directory"] = True
    return document


@pytest.mark.parametrize(
    "document",
    [
        event_grid("folder", "DirectoryRenamed"),
        event_grid("folder", "DirectoryDeleted"),
        folder(seaweedfs("new", "rename") | {"key": "/buckets/photos/old"}),
    ],
    ids=["Azure renamed", "Azure deleted", "SeaweedFS renamed"],
)
def test_what_happens_to_a_whole_folder_needs_a_scan(document: object):
    parsed = read(document)
    assert (parsed.hints, parsed.needs_scan) == ([], True)


@pytest.mark.parametrize("kind", ["create", "update", "delete"])
def test_a_folder_of_seaweedfs_is_no_object(kind: str):
    assert read(folder(seaweedfs("folder", kind))) == Parsed(ignored=1)


def test_what_clouds_send_to_see_whether_somebody_is_there():
    assert parse(b"") == Parsed()
    assert read({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "photos"}) == Parsed()
    confirmation = sns({}, "SubscriptionConfirmation") | {"SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?x"}
    assert read(confirmation) == Parsed(confirm_url="https://sns.eu-central-1.amazonaws.com/?x")
    assert read(sns({}, "UnsubscribeConfirmation")) == Parsed(ignored=1)
    validation = [
        {
            "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
            "topic": "/subscriptions/0",
            "subject": "",
            "data": {"validationCode": "512d38b6-c7b8", "validationUrl": "https://rp-eu.eventgrid.azure.net/?id=5"},
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": "2026-03-02T10:11:12Z",
            "metadataVersion": "1",
            "dataVersion": "1",
        }
    ]
    assert read(validation) == Parsed(answer={"validationResponse": "512d38b6-c7b8"})


def test_a_push_of_pubsub_is_known_as_one_and_may_come_without_its_object():
    document = pubsub("k")
    document["message"]["data"] = "!"
    parsed = read(document)
    assert parsed.is_pubsub
    assert parsed.hints == [Hint("k", "written", "64c07ce72564e", parsed.hints[0].happened_at, "photos", None, None)]
    assert read(pubsub("k", "OBJECT_METADATA_UPDATE")).is_pubsub


FOREIGN = {
    "no JSON": b"<xml/>",
    "half of it": b'{"Records": [',
    "not UTF-8": b'"\xff\xfe"',
    "deep": b"[" * 200_000,
    "a number": b"7",
    "a list of numbers": b"[1, 2]",
    "an object of somebody else": b'{"hello": "world"}',
    "a record without an object": json.dumps({"Records": [{"eventName": "ObjectCreated:Put"}]}).encode(),
    "records that are none": json.dumps({"Records": [None, "x"]}).encode(),
    "an SNS message that is no JSON": json.dumps(sns({}) | {"Message": "hello"}).encode(),
    "SNS in SNS in SNS": json.dumps(sns(sns(sns(sns({}))))).encode(),
    "a blob without a name": json.dumps(
        [event_grid("k")[0] | {"subject": "/blobServices/default/containers/photos"}]
    ).encode(),
    "a push without an object": json.dumps({"message": {"attributes": {"eventType": "OBJECT_DELETE"}}}).encode(),
    "a handshake without its code": json.dumps(
        [{"eventType": "Microsoft.EventGrid.SubscriptionValidationEvent", "data": None}]
    ).encode(),
    "an entry of nothing": json.dumps({"event_type": "create", "key": "/buckets/b/k", "message": {}}).encode(),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_body_is_refused_with_a_sentence(name: str):
    with pytest.raises(BadRequest, match=r"^The body .+\."):
        parse(FOREIGN[name])


@pytest.mark.parametrize(
    ("changed", "content"),
    [
        ({"size": -1}, None),
        ({"size": 2**63}, None),
        ({"size": True}, None),
        ({"size": "12x"}, None),
        ({"size": None}, None),
        ({"size": 0}, "0:d41d8cd9"),
        ({"eTag": 5}, None),
        ({"eTag": ""}, None),
        ({"eTag": '"d41d8cd9"'}, "1024:d41d8cd9"),
        ({"sequencer": "not hexadecimal"}, "1024:d41d8cd9"),
    ],
)
def test_values_that_cannot_be_count_as_not_told(changed: dict, content: str | None):
    (hint,) = read(s3("k", **changed)).hints
    assert hint.content == content


@pytest.mark.parametrize("time", ["yesterday", "", None, 5, "9999-99-99", "2026-03-02T10:11:12.345"])
def test_a_time_that_is_none_costs_nothing(time: object):
    record = s3_record("k") | {"eventTime": time}
    (hint,) = read({"Records": [record]}).hints
    assert hint.happened_at is None or hint.happened_at.tzinfo is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(ENVELOPES)), st.data())
def test_no_body_makes_it_fail_otherwise(name: str, data: st.DataObject):
    """Any one value of a delivery, however deep, may be anything."""
    document = inner = json.loads(json.dumps(ENVELOPES[name]("k")))
    while True:
        key = data.draw(st.sampled_from(list(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[key], dict | list) or not inner[key] or data.draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = data.draw(json_values)
    try:
        parsed = read(document)
    except BadRequest:
        return
    assert all(isinstance(hint.key, str) and hint.key for hint in parsed.hints)


WRONG = [
    None,
    True,
    -1,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "a\0b",
    "\ud800",
    "\u00b2",
    "%ff",
    "https://[",
    [],
    {},
]


def _places(inner: object) -> Iterator[tuple[dict | list, str | int]]:
    for key in list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ():
        yield inner, key
        yield from _places(inner[key])


@pytest.mark.parametrize("name", ENVELOPES)
def test_whatever_stands_at_any_place_what_is_read_can_be_stored(name: str):
    """Or one event would cost its whole delivery, again and again."""
    document = json.loads(json.dumps(ENVELOPES[name]("k")))
    for inner, key in _places(document):
        right = inner[key]
        for wrong in WRONG:
            inner[key] = wrong
            try:
                hints = read(document).hints
            except BadRequest:
                continue
            for hint in hints:
                told = (hint.content or "") + (hint.sequencer or "")
                assert b"\0" not in told.encode()  # which fails for lone surrogates
                assert hint.happened_at is None or hint.happened_at.astimezone(UTC).year >= 1970
        inner[key] = right
