"""What Azure Blob Storage refuses, and what a person can do about it: the one place that words its answers.

Source: "Status and error codes" and "Blob Storage error codes" of the REST API. The code is in the header
x-ms-error-code, also of answers without a body; the text behind it is read for its kind alone, because it repeats
what was signed.
"""

import re
from enum import Enum

from multidict import CIMultiDictProxy

from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    RangeNotSatisfiable,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage.azure.requests import Container, absolute_key
from headwater.storage.requests import Refused, Request
from headwater.storage.stores import changed

_PERMISSIONS = {  # what is done, the role and the letters of a SAS that allow it
    "ListBlobs": ("list", "Storage Blob Data Reader", "list (l)"),
    "GetBlobProperties": ("read from", "Storage Blob Data Reader", "read (r)"),
    "GetBlob": ("read from", "Storage Blob Data Reader", "read (r)"),
    "PutBlob": ("write to", "Storage Blob Data Contributor", "create and write (cw)"),
    "PutBlock": ("write to", "Storage Blob Data Contributor", "create and write (cw)"),
    "GetBlockList": ("read from", "Storage Blob Data Reader", "read (r)"),
    "PutBlockList": ("write to", "Storage Blob Data Contributor", "create and write (cw)"),
    "DeleteBlob": ("delete from", "Storage Blob Data Contributor", "delete (d)"),
}
_CODE = re.compile(rb"<Code>(\w{1,100})</Code>")
_PERMISSION_CODES = frozenset({"AuthorizationPermissionMismatch", "UnauthorizedBlobOverwrite"})
_WRONG_SAS_CODES = frozenset({"AuthorizationServiceMismatch", "AuthorizationResourceTypeMismatch"})
_NETWORK_CODES = frozenset({"AuthorizationFailure", "AuthorizationSourceIPMismatch"})
_HTTPS_CODES = frozenset({"AccountRequiresHttps", "AuthorizationProtocolMismatch"})
_ARCHIVE_CODES = frozenset({"BlobArchived", "BlobBeingRehydrated"})
_CONFLICTING_BLOCK_CODES = frozenset({"InvalidBlobOrBlock", "InvalidBlockId"})
_PROTECTION_CODES = frozenset(
    {"BlobImmutableDueToPolicy", "LeaseIdMissing", "LeaseIdMismatchWithBlobOperation", "SnapshotsPresent"}
)


class Cause(Enum):
    """Why credentials were not accepted, as far as the answer tells."""

    CLOCK = b"Request date header too old"
    NOT_IN_ITS_TIME = b"not valid in the specified time frame"
    TOKEN_EXPIRED = b"Lifetime validation failed"
    WRONG_KEY = b"MAC signature found in the HTTP request"
    WRONG_SAS = b"Signature did not match"


class AzureRefused(Refused):
    def __init__(self, status: int, code: str, cause: Cause | None) -> None:
        # A key or SAS may have been changed in the vault, and a token may have ended: both are cured by fresh ones.
        super().__init__(status, code, may_be_expired=status == 401 or code == "AuthenticationFailed")
        self.cause = cause


def read_refusal(status: int, headers: CIMultiDictProxy[str], body: bytes) -> AzureRefused:
    found = _CODE.search(body)
    code = headers.get("x-ms-error-code") or (found[1].decode() if found else "")
    cause = next((cause for cause in Cause if cause.value in body), None)
    return AzureRefused(status, code if code.isalnum() else "", cause)


def explain(container: Container, request: Request, refused: Refused) -> HeadwaterError:  # noqa: PLR0911, PLR0912 - one a kind
    said = f"({refused} on {request.operation})"
    named = described(container)
    key = absolute_key(container, request.key)
    match refused:
        case Refused(code="ContainerNotFound" | "ContainerBeingDeleted"):
            return StoreMissing(f"There is no {named} {said}. Check its name.")
        case Refused(status=404) if request.key is None:
            return StoreMissing(f"There is no {named} {said}. Check its name.")
        case Refused(status=404):
            return StoreMissing(f'No object "{key}" in {named} {said}.')
        case Refused(status=416):
            return RangeNotSatisfiable(f'The range asked for holds no byte of "{key}" in {named} {said}.')
        case Refused(code=code) if code in _ARCHIVE_CODES:
            return FailedDependency(
                f'"{key}" in {named} is in the archive tier and cannot be read {said}. Move it to hot or cool first.'
            )
        case Refused(code=code) if code in _PROTECTION_CODES:
            return FailedDependency(
                f'"{key}" in {named} is protected by a lease, a snapshot or an immutability policy {said}. '
                "Remove that in Azure first."
            )
        case Refused(code="ConditionNotMet" | "BlobAlreadyExists") if request.operation in (
            "DeleteBlob",
            "PutBlockList",
        ):
            return changed(key)
        case Refused(code="ConditionNotMet" | "TargetConditionNotMet"):
            return Unavailable(f'"{key}" in {named} changed while it was read {said}. Read it again.')
        case Refused(code="InvalidBlockList"):
            return Unavailable(
                f'The store no longer has all blocks of "{key}" in {named} {said}: another upload to the same name '
                "ended meanwhile, or a week passed. Upload it again."
            )
        case Refused(code=code) if code in _CONFLICTING_BLOCK_CODES:
            return FailedDependency(
                f'Another program has left an unfinished upload of "{key}" in {named} {said}. Azure forgets it '
                "within a week; until then use another name."
            )
        case Refused(code="InvalidBlobType"):
            return FailedDependency(
                f'"{key}" in {named} is an append or page blob, which cannot be overwritten {said}. Delete it first.'
            )
        case Refused(code="InvalidHeaderValue") if "x-ms-access-tier" not in request.headers:
            return FailedDependency(
                f"The service of {named} does not know the version of the API that Headwater speaks {said}. "
                "Use a newer release of it."
            )
        case Refused(status=301 | 302 | 307 | 308):
            return BadRequest(f"Requests for {named} are sent elsewhere {said}. Check the endpoint.")
        case Refused(is_transient=True):
            return Unavailable(f"The store of {named} is busy or failing {said}. Try again later.")
        case Refused(status=400 | 401 | 403 | 409):
            return _denial(container, request, refused, said)
        case _:
            return FailedDependency(f"The store refused a request for {named} {said}.")


def described(container: Container) -> str:
    return f'container "{container.name}" of storage account "{container.account}" at {container.account_url}'


def _denial(container: Container, request: Request, refused: Refused, said: str) -> HeadwaterError:  # noqa: PLR0911 - one a kind
    named = described(container)
    match refused:
        case AzureRefused(cause=Cause.CLOCK):
            return FailedDependency(f"The store's clock and ours differ too much {said}. Set this machine's.")
        case AzureRefused(cause=Cause.NOT_IN_ITS_TIME):
            return StoreDenied(f"The SAS for {named} has expired, or does not hold yet {said}. Make a new one.")
        case Refused(code=code) if code in _HTTPS_CODES:
            return BadRequest(f"The store wants https for {named} {said}. Give its endpoint with https://.")
        case Refused(code=code) if code in _NETWORK_CODES:
            return StoreDenied(
                f"The network rules of the account, or the allowed addresses of the SAS, keep this server from {named} "
                f"{said}. Let its address in under Networking. At an emulator this may mean a wrong key, or "
                "a SAS of another container."
            )
        case Refused(code="KeyBasedAuthenticationNotPermitted"):
            return StoreDenied(
                f"The account of {named} does not allow account keys {said}. Use a service principal, or allow "
                "storage account key access."
            )
        case Refused(code="AccountIsDisabled"):
            return StoreDenied(f"The account of {named} is disabled {said}. Enable it in Azure.")
        case Refused(code=code) if code in _WRONG_SAS_CODES:
            return StoreDenied(
                f"The SAS for {named} was made for something else {said}. Make one for the service Blob and for the "
                "resource types container and object."
            )
        case Refused(code=code) if code in _PERMISSION_CODES:
            return StoreDenied(_missing_permission(container, request.operation, said))
        case Refused(status=401) | Refused(code="AuthenticationFailed" | "InvalidAuthenticationInfo"):
            return StoreDenied(_wrong_credentials(container, refused, said))
        case Refused(status=403):
            return StoreDenied(_missing_permission(container, request.operation, said))
        case _:
            return FailedDependency(f"The store refused a request for {named} {said}.")


def _wrong_credentials(container: Container, refused: Refused, said: str) -> str:
    named = described(container)
    match refused:
        case AzureRefused(cause=Cause.WRONG_KEY):
            return f"The key is not the one of the account of {named} {said}. Copy it again from Access keys."
        case AzureRefused(cause=Cause.WRONG_SAS):
            return (
                f"The SAS for {named} was made for another container, is altered, or its key was changed {said}. "
                "Make one for this container."
            )
        case AzureRefused(cause=Cause.TOKEN_EXPIRED):
            return f"The token for {named} has expired {said}. Check the clock of this machine."
        case _:
            return (
                f"The store does not accept the credentials for {named} {said}. Check that account and secret belong "
                "together, and renew the secret."
            )


def _missing_permission(container: Container, operation: str, said: str) -> str:
    doing, role, letters = _PERMISSIONS.get(operation, ("use", "Storage Blob Data Contributor", "racwdl"))
    return (
        f"The credentials may not {doing} {described(container)} {said}. Give the service principal the role {role} "
        f"on the container, or use a SAS with the permission {letters}."
    )
