r"""Reads a URL that somebody gave in one way only: what is checked is, letter by letter, what is connected.

Browsers and libraries read odd URLs differently (`http://a\@b`, `http://0x7f.1`, full-width digits, tabs): here they
are refused, and the URL that is sent is written anew from its checked parts.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import quote, urljoin

from yarl import URL

from headwater.errors import BadRequest

LONGEST_URL = 8_000  # characters
_RIGHT = "Give it as https://host/path or http://host:port/path."
_URL = re.compile(r"(https?)://([^/?#]*)([/?][^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@%\\]+)(?::([0-9]{1,5})?)?")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*\.?")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNQUOTED = "!#$%&'()*+,/:;=?@[]~"  # what RFC 3986 lets stand in path and query, and escapes that are there
# Of other protocols, that a URL could be made to speak: https://fetch.spec.whatwg.org/#port-blocking
_OTHER_PORTS = """
    0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111 113 115 117 119 123 135
    137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540 548 554 556 563 587 601 636 989 990 993 995 1719
    1720 1723 2049 3659 4045 4190 5060 5061 6000 6566 6665 6666 6667 6668 6669 6679 6697 10080
"""
_BAD_PORTS = frozenset(int(port) for port in _OTHER_PORTS.split())

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class HttpUrl:
    scheme: str  # "http" or "https"
    host: str  # lower-case ASCII; an address in its ordinary notation, IPv6 without brackets
    port: int
    target: str  # path and query, percent-encoded

    @property
    def address(self) -> Address | None:
        """The host, when it is an address and no name."""
        return literal_address(self.host)

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.scheme == "https" else 80) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"

    def joined(self, location: str) -> "HttpUrl":
        """Where a redirect leads, which may be relative. Raises BadRequest."""
        if _CONTROL.search(location) or "\\" in location:
            raise BadRequest("It redirects to something that is no URL.")
        try:
            return read_url(urljoin(str(self), location))
        except ValueError:
            raise BadRequest("It redirects to something that is no URL.") from None


def read_url(text: str) -> HttpUrl:
    """Raises BadRequest that says what would be right. A fragment is dropped: it is never sent."""
    if len(text) > LONGEST_URL:
        raise BadRequest(f"The URL is longer than {LONGEST_URL:,} characters.")
    if _CONTROL.search(text) or text != text.strip():
        raise BadRequest(f"The URL has control characters, or spaces around it. {_RIGHT}")
    match = _URL.fullmatch(text)
    if match is None:
        raise BadRequest(f"The URL does not begin with https:// or http:// and a host. {_RIGHT}")
    scheme, authority, target = match[1].lower(), match[2], match[3] or "/"
    if "@" in authority:
        raise BadRequest(f"The URL contains a user name or password, or an @ before its path. {_RIGHT}")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise BadRequest(f"The URL's host is not a valid name or address. {_RIGHT}")
    port = int(parts[2]) if parts[2] else 443 if scheme == "https" else 80
    if port in _BAD_PORTS or port > 65_535:
        raise BadRequest(f"Port {port} is not one that HTTP is served on. {_RIGHT}")
    target = quote(target if target.startswith("/") else f"/{target}", safe=_UNQUOTED)
    return HttpUrl(scheme, _read_host(parts[1]), port, target)


def _read_host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]").lower()
    address = literal_address(host)
    if text.startswith("[") != isinstance(address, IPv6Address):
        raise BadRequest(f"The URL's host is not a valid address. {_RIGHT}")
    if address is not None:
        return str(address)
    if not host.isascii():
        host = _punycode(host)
    if not is_host_name(host):
        raise BadRequest(f"The URL's host is not a valid name or address. {_RIGHT}")
    return host


def _punycode(host: str) -> str:
    """Of a name with letters beyond ASCII; none for what only looks so, like full-width digits."""
    try:
        encoded = URL.build(scheme="http", host=host).raw_host or ""
    except ValueError:
        encoded = ""
    if "xn--" not in encoded:
        raise BadRequest(f"The URL's host has characters that no name has. {_RIGHT}")
    return encoded


def is_host_name(host: str) -> bool:
    """Whether it is a name in lower-case ASCII, and none that anybody reads as an address (0x7f.1, 2130706433)."""
    return bool(_HOST_NAME.fullmatch(host)) and not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])


@lru_cache(maxsize=1024)
def literal_address(host: str) -> Address | None:
    """Without a zone; None for a name, and for the notations of addresses that only some read."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id else address
