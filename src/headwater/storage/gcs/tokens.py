"""Token endpoints as a dialect of the sender, and what their refusals mean."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from multidict import CIMultiDictProxy

from headwater.errors import FailedDependency, HeadwaterError, StoreDenied, Unavailable
from headwater.storage.requests import Refused, Request
from headwater.storage.sending import Dialect

_CODE = re.compile(r"[A-Za-z_]{1,64}")
_CAUSES = {
    re.compile(r"account not found|account.{0,20}(deleted|disabled)", re.IGNORECASE): "account-gone",
    re.compile(r"invalid jwt signature|invalid signature|no key found", re.IGNORECASE): "wrong-key",
    re.compile(r"reasonable timeframe|short-lived token|iat and exp", re.IGNORECASE): "clock",
    re.compile(r"has not been used in project|is disabled|SERVICE_DISABLED", re.IGNORECASE): "api-disabled",
}


@dataclass(frozen=True, slots=True)
class TokenRequest:
    whose: str  # for a sentence
    url: str = field(repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    json: Mapping[str, Any] | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class TokenRefused(Refused):
    cause: str | None = None  # as far as the answer tells it


class TokenDialect(Dialect[None]):
    def __init__(self, request: TokenRequest) -> None:
        self._request = request

    def sign(self, request: Request, credentials: None) -> tuple[str, dict[str, str]]:
        del request, credentials
        headers = {"Accept": "application/json", **self._request.headers}
        if self._request.form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        elif self._request.json is not None:
            headers["Content-Type"] = "application/json"
        return self._request.url, headers

    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused:
        del headers
        code, description = _said(body)
        refused = TokenRefused(status, code)
        refused.cause = next((cause for words, cause in _CAUSES.items() if words.search(description)), None)
        return refused

    def late_refusal(self, body: bytes) -> Refused | None:
        del body
        return None

    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        del request
        return explain(self._request.whose, refused)

    def describe(self) -> str:
        return f"the token endpoint of {self._request.whose}"


def explain(whose: str, refused: Refused) -> HeadwaterError:  # noqa: PLR0911 - one a kind
    said = f"({refused} for {whose})"
    match getattr(refused, "cause", None):
        case "clock":
            return FailedDependency(f"Google's clock and ours differ too much {said}. Set this machine's.")
        case "wrong-key":
            return StoreDenied(
                f"Google does not know the service account's key {said}. Make a new key, and give it here."
            )
        case "account-gone":
            return StoreDenied(
                f"The service account was deleted or disabled {said}. Restore it, or give another one's key."
            )
        case "api-disabled":
            return StoreDenied(
                f"A Google API is not enabled in the project {said}. "
                "Enable the IAM Service Account Credentials API and the Security Token Service API."
            )
        case _ if refused.is_transient:
            return Unavailable(f"The token endpoint is busy or failing {said}. Try again later.")
        case _ if refused.status in (301, 302, 303, 307, 308):
            return StoreDenied(f"The token endpoint sends us elsewhere {said}. Give the address it really has.")
        case _ if whose == "impersonation" and refused.status in (403, 404):
            return StoreDenied(
                f"The service account may not be acted as, or does not exist {said}. "
                "Allow roles/iam.serviceAccountTokenCreator on it to the one who asks."
            )
        case _ if whose == "the identity provider":
            return StoreDenied(
                f"The identity provider gives no token {said}. Check clientId, secret and credential_source.url."
            )
        case _ if whose == "the workload identity":
            return StoreDenied(
                f"Google does not accept the other identity provider's token {said}. Check the audience, the "
                "provider's issuer and allowed audiences, and its attribute condition."
            )
        case _:
            return StoreDenied(f"Google gives no access token {said}. Check the credentials.")


def _said(body: bytes) -> tuple[str, str]:
    """The code, and the description, which is only searched: it may repeat what was sent."""
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    error = cast("dict[str, Any]", document).get("error") if isinstance(document, dict) else None
    if isinstance(error, dict):
        details = cast("dict[str, Any]", error)
        code, description = details.get("status"), f"{details.get('message')} {details.get('details')}"
    else:
        code, description = error, str(cast("dict[str, Any]", document).get("error_description")) if error else ""
    return (code if isinstance(code, str) and _CODE.fullmatch(code) else ""), description
