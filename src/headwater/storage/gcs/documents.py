"""The documents that people paste to let Google Cloud Storage be used: read, checked, and never repeated."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

import orjson
from google.auth.crypt.base import Signer
from google.auth.crypt.rsa import RSASigner

from headwater.errors import BadRequest

_GOOGLE_URL = re.compile(r"https://(?:accounts\.google\.com|(?:[a-z0-9-]+\.)+googleapis\.com)(?:/[!-\[\]-~]*)?")
_ANY_URL = re.compile(r"https?://[!-\[\]-~]+")
_EMAIL = re.compile(r"[^\s/@:]{1,200}@[A-Za-z0-9.-]{1,200}")
_PASTE_IT_WHOLE = "Paste the whole JSON file that Google gave you."


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    email: str
    token_uri: str
    signer: Signer = field(repr=False)


@dataclass(frozen=True, slots=True)
class Federation:
    """A workload identity: a token of another identity provider is exchanged for one of Google's."""

    audience: str
    subject_token_type: str
    token_url: str
    impersonation_url: str | None
    source_url: str = field(repr=False)
    source_headers: Mapping[str, str] = field(repr=False)
    source_field: str | None  # of the JSON document that holds the token; None: the answer is the token


def check_service_account(content: str, *, allow_private: bool = False) -> ServiceAccount:
    """Reads the JSON key of a service account. Raises BadRequest, never with a word of it."""
    document = _document(content)
    if document.get("type") != "service_account":
        raise BadRequest(
            "The content is not the key of a service account: its type is not service_account. "
            "In the Google Cloud console, make one under IAM, Service accounts, Keys, Add key, JSON."
        )
    email = _text(document, "client_email")
    if not is_email(email):
        raise BadRequest(f"The service account's client_email is not an address. {_PASTE_IT_WHOLE}")
    # A key that went through a shell or an environment file often has its line breaks as two characters.
    signer = _signer(_text(document, "private_key").replace("\\n", "\n"), document.get("private_key_id"))
    if signer is None:
        raise BadRequest(f"The service account's private_key is not a whole RSA key in PEM format. {_PASTE_IT_WHOLE}")
    token_uri = _google_url(document, "token_uri", allow_private=allow_private)
    return ServiceAccount(email, token_uri, signer)


def check_federation(content: str, *, allow_private: bool = False) -> Federation:
    """Reads the JSON configuration of a workload identity. Raises BadRequest, never with a word of it."""
    document = _document(content)
    if document.get("type") != "external_account":
        raise BadRequest(
            "The content is not the configuration of a workload identity: its type is not external_account. "
            "Make it with `gcloud iam workload-identity-pools create-cred-config`."
        )
    source = document.get("credential_source")
    source = cast("dict[str, Any]", source) if isinstance(source, dict) else {}
    if {"executable", "file", "certificate", "environment_id"} & source.keys() or "url" not in source:
        raise BadRequest(
            "Of a workload identity only a credential_source with a url is supported: files, programs and "
            "metadata of this server's own machine are not read for you."
        )
    shape = source.get("format")
    shape = cast("dict[str, Any]", shape) if isinstance(shape, dict) else {}
    headers = source.get("headers") or {}
    is_impersonating = "service_account_impersonation_url" in document
    return Federation(
        audience=_text(document, "audience"),
        subject_token_type=_text(document, "subject_token_type"),
        token_url=_google_url(document, "token_url", allow_private=allow_private),
        impersonation_url=(
            _google_url(document, "service_account_impersonation_url", allow_private=allow_private)
            if is_impersonating
            else None
        ),
        source_url=_source_url(source, allow_private=allow_private),
        source_headers=_checked_headers(headers),
        source_field=_text(shape, "subject_token_field_name") if shape.get("type") == "json" else None,
    )


def is_email(text: str) -> bool:
    return _EMAIL.fullmatch(text) is not None


def json_of(answer: bytes) -> dict[str, Any]:
    try:
        document: Any = orjson.loads(answer)
    except orjson.JSONDecodeError:
        document = {}
    return cast("dict[str, Any]", document) if isinstance(document, dict) else {}


def _document(content: str) -> dict[str, Any]:
    document = json_of(content.encode(errors="replace"))
    if not document:
        raise BadRequest(f"The content is not a JSON document. {_PASTE_IT_WHOLE}")
    return document


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadRequest(f"The content has no {name}. {_PASTE_IT_WHOLE}")
    return value


def _signer(pem: str, key_id: object) -> Signer | None:
    try:
        signer = RSASigner.from_string(pem, key_id if isinstance(key_id, str) else None)
        signer.sign(b"")  # a key of another kind is found out only now
        return signer  # noqa: TRY300 - an else would say no more
    except Exception:  # noqa: BLE001 - what a PEM parser raises is wide, and may hold the key
        return None


def _google_url(document: Mapping[str, Any], name: str, *, allow_private: bool) -> str:
    """An address of Google's; where the operator allows private endpoints, any, so that emulators can be used."""
    url = _text(document, name)
    if not (_GOOGLE_URL.fullmatch(url) or (allow_private and _is_url(url))):
        raise BadRequest(
            f"The content's {name} is not an https address of Google (accounts.google.com or googleapis.com). "
            "If that is intended, the operator of this server sets HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true."
        )
    return url


def _source_url(source: Mapping[str, Any], *, allow_private: bool) -> str:
    url = _text(source, "url")
    if not _is_url(url) or not (allow_private or url.startswith("https://")):
        raise BadRequest("The credential_source's url is not an https address. Give it as https://host/path.")
    return url


def _is_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(_ANY_URL.fullmatch(url) and parts.hostname and "@" not in parts.netloc and parts.port != 0)
    except ValueError:
        return False


def _checked_headers(headers: object) -> dict[str, str]:
    if isinstance(headers, dict):
        given = cast("dict[Any, Any]", headers)
        if all(
            isinstance(text, str) and text.isprintable() and text.isascii() for pair in given.items() for text in pair
        ):
            return cast("dict[str, str]", given)
    raise BadRequest("The credential_source's headers are not names with texts on one line.")
