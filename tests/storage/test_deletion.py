"""Deleting what was meant and nothing else, one object or many: what every store promises, and what S3 may answer."""

import pytest

from headwater.errors import StoreChanged, StoreDenied, Unavailable
from headwater.storage.s3.deletion import can_be_named, deletion_request, read_failures
from headwater.storage.s3.requests import Bucket
from headwater.storage.stores import Doomed
from tests.storage.conftest import Place
from tests.storage.deviations import keys_for
from tests.storage.test_stores import keys_of

BUCKET = Bucket(name="cams", prefix="p/", region="us-east-1", endpoint=None)


async def test_only_the_object_that_was_meant_is_deleted(place: Place):
    store = place.store()
    meant = await store.put("a", b"what was seen", content_type="text/plain")
    await store.put("a", b"what came later, longer", content_type="text/plain")
    with pytest.raises(StoreChanged, match='"a" is not the object that was meant'):
        await store.delete_same("a", meant.etag)
    assert await keys_of(store) == ["a"]
    await store.delete_same("a", (await store.head("a")).etag)
    assert await keys_of(store) == []
    await store.delete_same("a", meant.etag)  # an absent object is fine
    await store.delete_same("never/there", meant.etag)


async def test_many_are_deleted_at_once_and_those_that_were_replaced_are_named(place: Place):
    store = place.store()
    keys = [key for key in keys_for(place.kind) if len(key.encode()) < 900]
    doomed = [Doomed(key, (await store.put(key, b"1", content_type="text/plain")).etag) for key in keys]
    await store.put("replaced", b"1", content_type="text/plain")
    await store.put("kept", b"1", content_type="text/plain")
    doomed += [Doomed("replaced", "another-etag"), Doomed("absent", None), Doomed("absent too", "1")]
    failures = await store.delete_many(doomed)
    assert {key: type(error) for key, error in failures.items()} == {"replaced": StoreChanged}
    assert sorted(await keys_of(store)) == ["kept", "replaced"]
    assert await store.delete_many(doomed[:-3]) == {}  # again
    assert await store.delete_many([]) == {}
    assert await store.delete_many([Doomed("replaced")]) == {}
    assert await keys_of(store) == ["kept"]


def test_a_request_names_keys_and_etags_as_xml():
    request = deletion_request(BUCKET, [Doomed("a&b<c>", '1"2'), Doomed("d")], with_etags=True)
    assert b'<Object><Key>p/a&amp;b&lt;c&gt;</Key><ETag>1"2</ETag></Object>' in request.body
    assert b"<Object><Key>p/d</Key></Object>" in request.body
    assert request.headers["Content-MD5"]
    assert b"ETag" not in deletion_request(BUCKET, [Doomed("a", "1")], with_etags=False).body
    assert [can_be_named(key) for key in ("a b", "a\x01", "a\rb", "", "é🦊")] == [True, False, False, False, True]


def test_errors_of_single_objects_are_read():
    errors = "".join(
        f"<Error><Key>p/{key}</Key><Code>{code}</Code><Message>m</Message></Error>"
        for key, code in [
            ("denied &amp; locked", "AccessDenied"),
            ("other", "PreconditionFailed"),
            ("busy", "SlowDown"),
            ("failing", "InternalError"),
            ("gone", "NoSuchKey"),
        ]
    )
    failures = read_failures(BUCKET, f'<DeleteResult xmlns="urn:x">{errors}</DeleteResult>'.encode())
    assert {key: type(error) for key, error in failures.items()} == {
        "denied & locked": StoreDenied,
        "other": StoreChanged,
        "busy": Unavailable,
        "failing": Unavailable,
    }
    assert "Allow s3:DeleteObject on arn:aws:s3:::cams/p/*" in str(failures["denied & locked"])
    assert read_failures(BUCKET, b"<DeleteResult/>") == {}


@pytest.mark.parametrize("body", [b"", b"<DeleteResult><Err", b"<html/>", b"{}"])
def test_an_answer_that_is_none_proves_nothing(body: bytes):
    with pytest.raises(Unavailable, match="Try again"):
        read_failures(BUCKET, body)
