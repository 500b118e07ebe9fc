"""What Google Cloud Storage refuses, and what a person can do about it: the one place that words its answers.

Source: https://cloud.google.com/storage/docs/json_api/v1/status-codes
"""

import re
from typing import Any, cast

import orjson

from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    RangeNotSatisfiable,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage.gcs.requests import DELETE, GET, INSERT, LIST, GcsBucket
from headwater.storage.requests import Refused, Request
from headwater.storage.stores import changed

NO_SUCH_BUCKET = "noSuchBucket"  # ours: Google says notFound of buckets and of objects
_BUSY_REASONS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "backendError", "internalError"})
_BILLING_REASONS = frozenset({"accountDisabled", "billingNotEnabled", "projectAccountClosed", "UREQ_PROJECT_BILLING"})
_PAYER_REASONS = frozenset({"userProjectMissing", "userProjectAccessDenied", "userProjectInvalid"})
_KEEPING_REASONS = frozenset({"retentionPolicyNotMet", "objectUnderActiveHold"})
_SCOPE_REASONS = frozenset({"insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT"})
_NEEDS = {
    LIST: ("storage.objects.list", "roles/storage.objectViewer", "list"),
    GET: ("storage.objects.get", "roles/storage.objectViewer", "read from"),
    INSERT: ("storage.objects.create", "roles/storage.objectUser", "write to"),
    DELETE: ("storage.objects.delete", "roles/storage.objectUser", "delete from"),
    "CreateMultipartUpload": ("storage.multipartUploads.create", "roles/storage.objectUser", "write to"),
    "UploadPart": ("storage.multipartUploads.create", "roles/storage.objectUser", "write to"),
    "CompleteMultipartUpload": ("storage.multipartUploads.create", "roles/storage.objectUser", "write to"),
    "AbortMultipartUpload": ("storage.multipartUploads.abort", "roles/storage.objectUser", "abort uploads to"),
    "ListParts": ("storage.multipartUploads.listParts", "roles/storage.objectUser", "list parts of uploads to"),
    "ListMultipartUploads": ("storage.multipartUploads.list", "roles/storage.objectUser", "list uploads to"),
}
_PERMISSION = re.compile(r"does not have (storage\.[a-zA-Z]+\.[a-zA-Z]+) access")
_XML_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_REASON = re.compile(r"[A-Za-z_]{1,64}")


class GcsRefused(Refused):
    permission: str | None = None  # that was missing, if the answer says so


def read_refusal(status: int, body: bytes) -> GcsRefused:
    """Answers to requests for bytes may be plain text; then there is no reason to be read. The XML API has its own."""
    error = _error_of(body)
    message = str(error.get("message", "")) or body.decode(errors="replace")
    reason = _reason_of(error)
    if not error and (code := _XML_CODE.search(message)):
        reason = code[1]
    if (status == 404 and "specified bucket does not exist" in message) or reason == "NoSuchBucket":
        reason = NO_SUCH_BUCKET
    refused = GcsRefused(status, reason, is_transient=reason in _BUSY_REASONS, may_be_expired=status == 401)
    permission = _PERMISSION.search(message)
    refused.permission = permission[1] if permission else None
    return refused


def _error_of(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    error = cast("dict[str, Any]", document).get("error") if isinstance(document, dict) else None
    return cast("dict[str, Any]", error) if isinstance(error, dict) else {}


def _reason_of(error: dict[str, Any]) -> str:
    errors = error.get("errors")
    first = cast("list[Any]", errors)[0] if isinstance(errors, list) and errors else None
    reason = cast("dict[str, Any]", first).get("reason") if isinstance(first, dict) else error.get("status")
    return reason if isinstance(reason, str) and _REASON.fullmatch(reason) else ""


def explain(bucket: GcsBucket, request: Request, refused: Refused) -> HeadwaterError:  # noqa: PLR0911 - one a kind
    said = f"({refused} on {request.operation})"
    named = f'bucket "{bucket.name}"'
    key = bucket.prefix + (request.key or "")
    is_of_bucket = request.key is None or request.operation in (INSERT, "CreateMultipartUpload")
    match refused:
        case Refused(status=404 | 410 | 499) if "upload_id" in request.query:
            kind = StoreMissing if request.method == "DELETE" else Unavailable
            return kind(f'The upload of "{key}" to {named} has ended, or was cancelled {said}. Upload it again.')
        case Refused(status=404, code=code) if is_of_bucket or code == NO_SUCH_BUCKET:
            return StoreMissing(f"There is no {named} at {place_of(bucket)} {said}. Check its name.")
        case Refused(status=404):
            return StoreMissing(f'No object "{key}" in {named} {said}.')
        case Refused(status=416):
            return RangeNotSatisfiable(f'The range asked for holds no byte of "{key}" in {named} {said}.')
        case Refused(status=412) if request.operation in (DELETE, "CompleteMultipartUpload"):
            return changed(key)
        case Refused(status=412 | 304):
            return Unavailable(f'"{key}" in {named} changed while it was read {said}. Read it again.')
        case Refused(status=400 | 403, code=code) if code in _PAYER_REASONS:
            return StoreDenied(
                f"The {named} makes those who ask pay (requester pays), which is not supported {said}. "
                "Turn requester pays off for this bucket."
            )
        case Refused(is_transient=True):
            return Unavailable(f"The store of {named} is busy or failing {said}. Try again later.")
        case Refused(status=401):
            return StoreDenied(f"The store does not accept the credentials for {named} {said}. Renew them.")
        case Refused(status=403):
            return StoreDenied(_denial(bucket, request.operation, refused, said))
        case Refused(status=301 | 302 | 307 | 308):
            return BadRequest(f"{place_of(bucket)} sends requests for {named} elsewhere {said}. Check the endpoint.")
        case _:
            return FailedDependency(f"The store refused a request for {named} {said}.")


def place_of(bucket: GcsBucket) -> str:
    return bucket.endpoint or "Google Cloud Storage"


def _denial(bucket: GcsBucket, operation: str, refused: Refused, said: str) -> str:
    named = f'bucket "{bucket.name}"'
    if refused.code in _BILLING_REASONS:
        return f"The project of {named} has no active billing account {said}. Enable billing for it."
    if refused.code in _KEEPING_REASONS:
        return f"A retention policy or a hold keeps objects in {named} from being replaced or deleted {said}."
    if refused.code in _SCOPE_REASONS:
        return f"The access token for {named} was not made for Cloud Storage {said}. Give it the scope cloud-platform."
    if refused.code == "accessNotConfigured":
        return f"The Cloud Storage API is not enabled in the project of the service account {said}. Enable it."
    if refused.code == "vpcServiceControls":
        return f"A VPC service perimeter keeps this server from {named} {said}. Add an access level for it."
    permission, role, doing = _NEEDS[operation]
    told = getattr(refused, "permission", None)
    if isinstance(told, str):
        permission = told
    return (
        f"The credentials may not {doing} {named} {said}. "
        f"Allow {permission}, for instance by the role {role} on the bucket."
    )
