"""What S3 refuses, and what a person can do about it: the one place that words S3's answers."""

import re
from enum import Enum

from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    RangeNotSatisfiable,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage.requests import Refused, Request
from headwater.storage.s3.requests import Bucket, absolute_key
from headwater.storage.stores import changed

_TRANSIENT_CODES = frozenset(
    {
        "SlowDown",
        "Throttling",
        "RequestLimitExceeded",
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
    }
)
_EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_WRONG_KEYS = {  # what is wrong with credentials, and what would be right
    **dict.fromkeys(_EXPIRED_CODES, "The session token has expired. Renew them."),
    "InvalidToken": "The session token is none, or of another key. Renew them, all three parts together.",
    "InvalidAccessKeyId": "There is no such access key id. Check the key; the store may have deleted it.",
    "SignatureDoesNotMatch": "The secret is not the one of that access key id. Copy it again, without spaces.",
    "InvalidAccessKeySecret": "The secret is not the one of that access key id. Copy it again, without spaces.",
}
_PERMISSIONS = {
    "ListObjectsV2": ("s3:ListBucket", "list"),
    "HeadObject": ("s3:GetObject", "read from"),
    "GetObject": ("s3:GetObject", "read from"),
    "PutObject": ("s3:PutObject", "write to"),
    "CreateMultipartUpload": ("s3:PutObject", "write to"),
    "UploadPart": ("s3:PutObject", "write to"),
    "CompleteMultipartUpload": ("s3:PutObject", "write to"),
    "AbortMultipartUpload": ("s3:AbortMultipartUpload", "abort uploads to"),
    "ListParts": ("s3:ListMultipartUploadParts", "list parts of uploads to"),
    "ListMultipartUploads": ("s3:ListBucketMultipartUploads", "list"),
    "DeleteObject": ("s3:DeleteObject", "delete from"),
    "DeleteObjects": ("s3:DeleteObject", "delete from"),
}


class Cause(Enum):
    """What an answer means beyond its status and code; its text is looked at for this alone."""

    WANTS_HTTPS = re.compile(r"HTTP request (was )?(sent )?to (an )?HTTPS (server|port)", re.IGNORECASE)
    REQUESTER_PAYS = re.compile(r"requester.?pays", re.IGNORECASE)
    ENCRYPTION_KEY = re.compile(r"\bkms:(GenerateDataKey|Decrypt)\b")
    WEB_PAGE = re.compile(r"\A\s*(<!doctype html|<html)", re.IGNORECASE)


class S3Refused(Refused):
    cause: Cause | None = None


def read_refusal(status: int, body: bytes, region: str | None) -> S3Refused:
    """`region` as a header gives it; otherwise the error document may."""
    text = body.decode(errors="replace")
    code = element_text(text, "Code") or ""
    code = code if code.isalnum() else ""
    refused = S3Refused(
        status,
        code,
        region=region or element_text(text, "Region"),
        is_transient=code in _TRANSIENT_CODES,
        # An answer to HEAD has no body, hence no code; AWS then says 400 for an expired token.
        # A key that is refused may have been replaced meanwhile, here and in the cloud.
        may_be_expired=code in _WRONG_KEYS or (status == 400 and not code),
    )
    refused.cause = next((cause for cause in Cause if cause.value.search(text)), None)
    return refused


def element_text(document: str, name: str, most: int = 1024) -> str | None:
    """The text of the first element with that name, if it has one of at most `most` characters."""
    found = re.search(f"<{name}>([^<]{{1,{most}}})</{name}>", document)
    return found[1] if found else None


def explain(bucket: Bucket, request: Request, refused: Refused) -> HeadwaterError:  # noqa: PLR0911, PLR0912 - one a kind
    said = f"({refused} on {request.operation})"
    named = f'bucket "{bucket.name}"'
    key = absolute_key(bucket, request)
    match refused:
        case S3Refused(cause=Cause.WANTS_HTTPS):
            return BadRequest(f"{place_of(bucket)} speaks https, not http {said}. Give the endpoint with https://.")
        case S3Refused(cause=Cause.WEB_PAGE, is_transient=False):
            return BadRequest(
                f"{place_of(bucket)} answers with a web page, not as storage does {said}. Give the address of the "
                "storage API as endpoint, not of a web console."
            )
        case Refused(code="NoSuchBucket"):
            return StoreMissing(f"There is no {named} at {place_of(bucket)} {said}. Check its name.")
        case Refused(status=404) if request.key is None:
            return StoreMissing(f"There is no {named} at {place_of(bucket)} {said}. Check its name.")
        case Refused(status=404):
            return StoreMissing(f'No object "{key}" in {named} {said}.')
        case Refused(status=416):
            return RangeNotSatisfiable(f'The range asked for holds no byte of "{key}" in {named} {said}.')
        case Refused(code="RequestTimeTooSkewed"):
            return FailedDependency(f"The store's clock and ours differ too much {said}. Set this machine's.")
        case Refused(region=str(region)) if region != bucket.region:
            return BadRequest(f'The {named} is in region "{region}", not "{bucket.region}" {said}. Set that region.')
        case Refused(code=code) if code in _WRONG_KEYS:
            return StoreDenied(f"The store does not accept the credentials for {named} {said}. {_WRONG_KEYS[code]}")
        case S3Refused(cause=Cause.REQUESTER_PAYS):
            return FailedDependency(
                f"Who reads {named} has to pay for it (requester pays), which Headwater does not do {said}. Let its "
                "owner pay, or copy the objects."
            )
        case S3Refused(cause=Cause.ENCRYPTION_KEY, status=403):
            return FailedDependency(
                f"The credentials may not use the key that {named} is encrypted with {said}. Allow "
                "kms:GenerateDataKey and kms:Decrypt on that key of AWS KMS."
            )
        case Refused(status=401 | 403):
            return StoreDenied(_denial(bucket, request.operation, said))
        case Refused(status=412) if request.operation in ("DeleteObject", "DeleteObjects", "CompleteMultipartUpload"):
            return changed(key)
        case Refused(status=412):
            return Unavailable(f'"{key}" in {named} changed while it was read {said}. Read it again.')
        case Refused(status=301 | 302 | 307 | 308):
            return BadRequest(
                f"{place_of(bucket)} sends requests for {named} elsewhere {said}. Check region and endpoint."
            )
        case Refused(is_transient=True):
            return Unavailable(f"The store of {named} is busy or failing {said}. Try again later.")
        case _:
            return FailedDependency(f"The store refused a request for {named} {said}.")


def place_of(bucket: Bucket) -> str:
    return bucket.endpoint or f"AWS, region {bucket.region}"


def _denial(bucket: Bucket, operation: str, said: str) -> str:
    permission, doing = _PERMISSIONS[operation]
    arn = f"arn:aws:s3:::{bucket.name}" + ("" if doing == "list" else f"/{bucket.prefix}*")
    return f'The credentials may not {doing} bucket "{bucket.name}" {said}. Allow {permission} on {arn}.'
