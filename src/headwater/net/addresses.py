"""Tells inner addresses from outer ones, and connects to outer ones only.

People name endpoints and URLs; none may make this server speak to its own network. Checked is the address that
is being connected, so a name that resolves differently the next time (DNS rebinding) gains nothing.
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from headwater.errors import BadRequest

Address = IPv4Address | IPv6Address

_CONNECTIONS = 64
_WAY_OUT = "If that is intended, the operator of this server sets HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true."
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_DOCUMENTATION_IPV6 = IPv6Network("3fff::/20")
_AZURE_HOST = IPv4Address("168.63.129.16")  # answers every Azure machine, from a public range
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*\.?")
_CONSOLES = (  # where people look at their buckets; those of servers of one's own answer with a web page
    "console.aws.amazon.com",
    "console.amazonaws.cn",
    "console.amazonaws-us-gov.com",
    "signin.aws.amazon.com",
    "console.cloud.google.com",
    "portal.azure.com",
    "portal.azure.cn",
    "portal.azure.us",
    "dash.cloudflare.com",
    "console.wasabisys.com",
    "secure.backblaze.com",
    "cloud.digitalocean.com",
)
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)\.?")


class AddressRefused(BadRequest, OSError):
    """Also an OSError, because only those pass through aiohttp as the cause of a failed connection."""


def is_private(address: Address) -> bool:
    """Whether it is anything but an ordinary address of the public internet, also when wrapped in IPv6."""
    if isinstance(address, IPv4Address):
        is_special = address.is_multicast or address.is_reserved or address == _AZURE_HOST
        return is_special or not address.is_global
    inner = _wrapped(address)
    if inner is not None:
        return is_private(inner)
    return address not in _GLOBAL_IPV6 or address in _DOCUMENTATION_IPV6 or not address.is_global


def _wrapped(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that a mapped, 6to4 or NAT64 address stands for."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def check_endpoint(url: str, *, allow_private: bool) -> str:
    """The endpoint as `http(s)://host[:port]`. Raises BadRequest that says what would be right.

    A host name is not resolved here: the connection checks what it resolves to.
    """
    right = "Give it as https://host or https://host:port, the address of the storage API, not of a web console."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadRequest(f"The endpoint is not a valid URL. {right}") from error
    host = (parts.hostname or "").lower()
    if f".{host}".endswith(tuple(f".{console}" for console in _CONSOLES)):
        raise BadRequest(f'"{host}" is a web console. {right} For the cloud\'s own storage leave it out.')
    if parts.scheme not in {"http", "https"} or not host:
        raise BadRequest(f"The endpoint does not begin with https:// or http:// and a host. {right}")
    if "@" in parts.netloc:
        raise BadRequest(f"The endpoint contains a user name or password; these belong in the integration. {right}")
    if parts.path not in {"", "/"} or "?" in url or "#" in url:
        raise BadRequest(f"The endpoint has something after its host. {right} The bucket is named apart.")
    address = _literal(host)
    if address is None and (not _HOST_NAME.fullmatch(host) or _NUMBER.fullmatch(host.split(".")[-1])):
        raise BadRequest(f"The endpoint's host is not a valid name. {right}")
    if address is not None and not allow_private and is_private(address):
        raise AddressRefused(f'The endpoint "{host}" is an inner address. {_WAY_OUT}')
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


def _literal(host: str) -> Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def open_connector(*, allow_private: bool) -> aiohttp.TCPConnector:
    """For sessions that follow what people named; to be closed. Call it inside the running event loop."""
    if allow_private:
        return aiohttp.TCPConnector(limit=_CONNECTIONS)
    return aiohttp.TCPConnector(limit=_CONNECTIONS, resolver=OuterResolver(), socket_factory=_outer_socket)


class OuterResolver(AbstractResolver):
    """Resolves as usual, but refuses a name that has an inner address among its addresses."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or aiohttp.DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        if any(is_private(ip_address(result["host"])) for result in found):
            raise AddressRefused(f'"{host}" leads to an inner address. {_WAY_OUT}')
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _outer_socket(info: aiohttp.AddrInfoType) -> socket.socket:
    """Sees every connection, also those to a host that is an address, about which no resolver is asked."""
    family, kind, protocol, _, address = info
    host = str(address[0])
    if is_private(ip_address(host)):
        raise AddressRefused(f'"{host}" is an inner address. {_WAY_OUT}')
    return socket.socket(family=family, type=kind, proto=protocol)
