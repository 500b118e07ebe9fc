"""Requests to Azure Blob Storage: where each goes; nothing is signed or sent here.

What is signed must be sent letter by letter, so a URL is percent-encoded once, here, and never touched again.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from headwater.errors import BadRequest
from headwater.storage.requests import Request

SERVICE_VERSION = "2026-02-06"  # the first whose List Blobs can start in the middle

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*|\$root|\$web|\$logs")


@dataclass(frozen=True, slots=True)
class Container:
    account: str
    name: str
    prefix: str  # '' or ending with a slash
    endpoint: str | None  # None: Azure itself

    def __post_init__(self) -> None:
        """Raises BadRequest; these names stand in hosts and paths."""
        check_account(self.account)
        if not _CONTAINER.fullmatch(self.name):
            raise BadRequest(
                f'"{self.name}" is not the name of a container: these have 3 to 63 lower-case letters, digits and '
                "single hyphens. Name a folder inside it apart."
            )

    @property
    def account_url(self) -> str:
        """The account in the host, as Azure has it, or in the path, as emulators do; without a slash at its end."""
        if self.endpoint is None:
            return f"https://{self.account}.blob.core.windows.net"
        endpoint = self.endpoint.rstrip("/")
        if not (urlsplit(endpoint).hostname or "").startswith(f"{self.account}."):
            return f"{endpoint}/{self.account}"
        # People copy the endpoint of Data Lake's own API; the one for blobs is beside it, and holds the same.
        return endpoint.replace(f"//{self.account}.dfs.", f"//{self.account}.blob.", 1)

    @property
    def url(self) -> str:
        return f"{self.account_url}/{self.name}"


def check_account(name: str) -> None:
    """Raises BadRequest."""
    if not _ACCOUNT.fullmatch(name):
        raise BadRequest(
            "The name of a storage account has 3 to 24 lower-case letters and digits. Give the name alone as key, "
            "without its address."
        )


def absolute_key(container: Container, key: str | None) -> str:
    return container.prefix + (key or "")


def url_of(container: Container, request: Request) -> str:
    """Raises BadRequest for a key that Azure would take for another."""
    url = _resource_url(container, request)
    if request.query:
        url += "?" + "&".join(f"{name}={_quoted(text)}" for name, text in request.query.items())
    return url


def _resource_url(container: Container, request: Request) -> str:
    if request.query.get("restype") == "service":
        return f"{container.account_url}/"
    if request.key is None:
        return container.url
    return blob_url(container, request.key)


def blob_url(container: Container, key: str) -> str:
    name = absolute_key(container, key)
    if not name:
        raise BadRequest("The object's key is empty. Name an object.")
    if "\\" in name:
        raise BadRequest(f'Azure would take each backslash of "{name}" for a slash. Use another name.')
    try:
        return f"{container.url}/{quote(name, safe='/')}"
    except UnicodeEncodeError as error:
        raise BadRequest(f"The key {name!r} is not valid Unicode text.") from error


def check_new_name(container: Container, key: str) -> None:
    """Raises BadRequest for a name that Azure may keep under another one, and so over another object."""
    name = absolute_key(container, key)
    if any(part.endswith(".") for part in name.split("/")):
        raise BadRequest(f'Azure keeps no names like "{name}": no part of a path may end with a dot. Use another name.')


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")
