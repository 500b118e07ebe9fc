"""What S3 refuses, and what a person can do about it: the one place that words S3's answers."""

import re

from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage.requests import Refused, Request
from headwater.storage.s3.requests import Bucket, absolute_key

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
_KEY_CODES = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", *_EXPIRED_CODES})
_PERMISSIONS = {
    "ListObjectsV2": ("s3:ListBucket", "list"),
    "HeadObject": ("s3:GetObject", "read from"),
    "GetObject": ("s3:GetObject", "read from"),
    "PutObject": ("s3:PutObject", "write to"),
    "CreateMultipartUpload": ("s3:PutObject", "write to"),
    "UploadPart": ("s3:PutObject", "write to"),
    "CompleteMultipartUpload": ("s3:PutObject", "write to"),
    "AbortMultipartUpload": ("s3:AbortMultipartUpload", "abort uploads to"),
    "DeleteObject": ("s3:DeleteObject", "delete from"),
}


def read_refusal(status: int, body: bytes, region: str | None) -> Refused:
    """`region` as a header gives it; otherwise the error document may."""
    text = body.decode(errors="replace")
    code = element_text(text, "Code") or ""
    code = code if code.isalnum() else ""
    return Refused(
        status,
        code,
        region=region or element_text(text, "Region"),
        is_transient=code in _TRANSIENT_CODES,
        # An answer to HEAD has no body, hence no code; AWS then says 400 for an expired token.
        may_be_expired=code in _EXPIRED_CODES or (status == 400 and not code),
    )


def element_text(document: str, name: str, most: int = 1024) -> str | None:
    """The text of the first element with that name, if it has one of at most `most` characters."""
    found = re.search(f"<{name}>([^<]{{1,{most}}})</{name}>", document)
    return found[1] if found else None


def explain(bucket: Bucket, request: Request, refused: Refused) -> HeadwaterError:  # noqa: PLR0911 - one a kind
    said = f"({refused} on {request.operation})"
    named = f'bucket "{bucket.name}"'
    key = absolute_key(bucket, request)
    match refused:
        case Refused(code="NoSuchBucket"):
            return StoreMissing(f"There is no {named} at {place_of(bucket)} {said}. Check its name.")
        case Refused(status=404) if request.key is None:
            return StoreMissing(f"There is no {named} at {place_of(bucket)} {said}. Check its name.")
        case Refused(status=404):
            return StoreMissing(f'No object "{key}" in {named} {said}.')
        case Refused(status=416):
            return BadRequest(f'The range asked for holds no byte of "{key}" in {named} {said}.')
        case Refused(code="RequestTimeTooSkewed"):
            return FailedDependency(f"The store's clock and ours differ too much {said}. Set this machine's.")
        case Refused(region=str(region)) if region != bucket.region:
            return BadRequest(f'The {named} is in region "{region}", not "{bucket.region}" {said}. Set that region.')
        case Refused(code=code) if code in _KEY_CODES:
            return StoreDenied(f"The store does not accept the credentials for {named} {said}. Renew them.")
        case Refused(status=401 | 403):
            return StoreDenied(_denial(bucket, request.operation, said))
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
