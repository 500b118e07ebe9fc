"""The kinds of integrations, by the names of the SDK: which secret options each takes, and what it is for."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from headwater.errors import BadRequest
from headwater.registries.options import check_options

_NAME = re.compile(r"[A-Za-z_]{1,24}")
_LARGEST_OPTION = 64 * 1024  # characters; a service account's key is about 2,400


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    about: str
    needed: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    # Made empty first; the trust that its metadata describes is set up in the cloud, then these are given.
    needed_later: frozenset[str] = frozenset()

    @property
    def options(self) -> frozenset[str]:
        return self.needed | self.optional | self.needed_later


def _kind(name: str, about: str, *needed: str, optional: str = "", later: str = "") -> Kind:
    return Kind(name, about, frozenset(needed), frozenset(optional.split()), frozenset(later.split()))


_AZURE = "an Azure storage account: key is its name, secret its key or a SAS; with clientId and tenantId, the secret"
KINDS = {
    kind.name: kind
    for kind in [
        _kind("s3", "an access key of AWS or of any store that speaks S3", "key", "secret", optional="sessionToken"),
        _kind("aws-sts", "an access key that assumes roles", "key", "secret", "roleArns", optional="externalId"),
        _kind("aws-cross", "a role in your AWS account that this server may assume", later="roleArn"),
        _kind("gcs", "a Google service account: its JSON key as content", "content", optional="key secret"),
        _kind(
            "gcp-workload-identity-federation",
            "a Google workload identity: its JSON configuration as content",
            "content",
            optional="secret clientId",
        ),
        _kind("gcp-cross", "a Google service account that this server may act as", later="email resourceName"),
        _kind("azureblob", _AZURE, "key", "secret", optional="clientId tenantId"),
        _kind("azureDatalakeGen2", _AZURE, "key", "secret", optional="clientId tenantId"),
        _kind("key_value", "one secret value for services", "key", "value"),
        _kind("private-registry", "a container registry's user and password", "name", "spec"),
        _kind("hostPath", "a folder of this machine that its operator allowed"),
        _kind("nfs", "a mounted network folder that the operator of this server allowed"),
    ]
}
STRUCTURED_OPTIONS = frozenset({"spec", "roleArns"})  # kept as JSON; every other option is one text


def kind_of(name: str) -> Kind:
    """Raises BadRequest."""
    if name not in KINDS:
        raise BadRequest(f"There is no integration of type {name[:60]!r}. Types: {', '.join(KINDS)}.")
    return KINDS[name]


def checked_options(kind: Kind, options: Mapping[str, Any], *, is_new: bool) -> dict[str, str]:
    """The secret values of one integration, as texts. Raises BadRequest, never with a value in its words."""
    given = {name: value for name, value in options.items() if value not in (None, "", {}, [])}
    needed = kind.needed if is_new else kind.needed | kind.needed_later
    if not (needed <= given.keys() <= kind.options):
        raise BadRequest(
            f"An integration of type {kind.name} ({kind.about}) takes the options {sorted(kind.options)} "
            f"({sorted(needed)} are needed), not {_told(given)}."
        )
    checked = {name: _checked_option(kind, name, value) for name, value in given.items()}
    if kind.name == "private-registry":
        check_options(checked)
    return checked


def _told(names: Iterable[str]) -> list[str]:
    """Names that may be a slip of the pen; what looks like a value in the place of a name is not repeated."""
    return sorted({name if _NAME.fullmatch(name) else "(something that is no name)" for name in names})


def _checked_option(kind: Kind, name: str, value: Any) -> str:
    if name in STRUCTURED_OPTIONS and not isinstance(value, str):
        try:
            value = json.dumps(value)
        except (TypeError, ValueError, RecursionError):
            value = None
    is_text = isinstance(value, str) and len(value) <= _LARGEST_OPTION
    # A JSON document has line breaks; an access key that has one was copied wrongly.
    if not is_text or not (name == "content" or value.isprintable()):
        raise BadRequest(f"The option {name} of an integration of type {kind.name} is a text on one line.")
    return value
