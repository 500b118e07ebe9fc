"""Many objects deleted by one request to S3; no network here.

Source: DeleteObjects of the Amazon S3 API reference: at most 1,000 keys, Content-MD5, and an answer that names, with
Quiet, only what was not deleted.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from xml.sax.saxutils import escape

from lxml import etree

from headwater.errors import HeadwaterError, Unavailable
from headwater.storage.requests import Request
from headwater.storage.s3.refusals import S3Refused, explain, read_refusal
from headwater.storage.s3.requests import Bucket
from headwater.storage.stores import Doomed

OPERATION = "DeleteObjects"
MOST_KEYS = 1_000
_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_STATUSES = {"AccessDenied": 403, "PreconditionFailed": 412, "NoSuchKey": 404, "InternalError": 500, "SlowDown": 503}


def can_be_named(key: str) -> bool:
    """Whether the key can stand in the XML of a request, and comes out of it as it went in."""
    return not _NOT_IN_XML.search(key) and "\r" not in key and bool(key)


def deletion_request(bucket: Bucket, doomed: Sequence[Doomed], *, with_etags: bool) -> Request:
    """`with_etags`: the store compares them itself."""
    objects = "".join(_object(bucket, one, with_etags=with_etags) for one in doomed)
    body = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>{objects}</Delete>'.encode()
    digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    headers = {"Content-MD5": digest, "Content-Type": "application/xml"}
    return Request(OPERATION, "POST", None, {"delete": ""}, headers, body)


def _object(bucket: Bucket, one: Doomed, *, with_etags: bool) -> str:
    etag = f"<ETag>{escape(one.etag)}</ETag>" if with_etags and one.etag else ""
    return f"<Object><Key>{escape(bucket.prefix + one.key)}</Key>{etag}</Object>"


def read_failures(bucket: Bucket, body: bytes) -> dict[str, HeadwaterError]:
    """What stood in the way, by key. Raises Unavailable for an answer that is none."""
    try:
        root = etree.fromstring(body, etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError:
        raise Unavailable("The store's answer to the deletion of several objects was cut off. Try again.") from None
    if etree.QName(root).localname != "DeleteResult":
        raise Unavailable("The store's answer to the deletion of several objects is none. Try again.")
    failures: dict[str, HeadwaterError] = {}
    for error in root.iterfind("{*}Error"):
        key = (error.findtext("{*}Key") or "").removeprefix(bucket.prefix)
        refused = _refused(error.findtext("{*}Code") or "", error.findtext("{*}Message") or "")
        if refused.status != 404:  # gone already, which is what was wanted
            failures[key] = explain(bucket, Request(OPERATION, "POST", key), refused)
    return failures


def _refused(code: str, message: str) -> S3Refused:
    """As if the object had been deleted alone."""
    document = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    return read_refusal(_STATUSES.get(code, 400), document.encode(), None)
