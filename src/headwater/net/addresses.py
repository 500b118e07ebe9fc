"""Tells inner addresses from outer ones, and connects to outer ones only.

People name endpoints and URLs; none may make this server speak to its own network. Checked is the address that
is being connected, so a name that resolves differently the next time (DNS rebinding) gains nothing.
"""

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from headwater.errors import BadRequest
from headwater.net.urls import Address, HttpUrl, is_host_name, literal_address

_CONNECTIONS = 64
_WAY_OUT = "If that is intended, the operator of this server sets HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true."
_GLOBAL_IPV6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_DOCUMENTATION_IPV6 = IPv6Network("3fff::/20")
_AZURE_HOST = IPv4Address("168.63.129.16")  # answers every Azure machine, from a public range
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
    address = literal_address(host)
    if address is None and not is_host_name(host):
        raise BadRequest(f"The endpoint's host is not a valid name. {right}")
    if address is not None and not allow_private and is_private(address):
        raise AddressRefused(f'The endpoint "{host}" is an inner address. {_WAY_OUT}')
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + (f":{port}" if port is not None else "")


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


@dataclass(frozen=True, slots=True)
class InnerHost:
    """A name, or a network, on every port or on one."""

    name: str | None
    network: IPv4Network | IPv6Network | None
    port: int | None

    def covers(self, address: Address, port: int) -> bool:
        is_in = self.network is not None and address.version == self.network.version and address in self.network
        return is_in and self.port in (None, port)

    def is_named(self, host: str, port: int) -> bool:
        return self.name == host.rstrip(".") and self.port in (None, port)


_INNER_HOST = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?|([0-9a-f:.]+(?:/[0-9]{1,3})?)", re.IGNORECASE)


def read_inner_host(text: str) -> InnerHost:
    """`images.corp`, `10.1.2.0/24`, `127.0.0.1:9000`, `[fd00::5]:443`. Raises BadRequest."""
    match = _INNER_HOST.fullmatch(text.strip())
    host = ((match[1] or match[2] or match[4]) if match else "").lower().rstrip(".")
    port = int(match[3]) if match and match[3] else None
    if port is None or 0 < port < 65_536:
        try:
            return InnerHost(None, ip_network(host), port)
        except ValueError:
            if is_host_name(host):
                return InnerHost(host, None, port)
    raise BadRequest(f"{text!r} is none of HOST, HOST:PORT, ADDRESS, NETWORK/BITS, such as images.corp or 10.1.2.0/24.")


class Guard:
    """Lets connections go to the public internet, to the inner hosts that are named, and nowhere else.

    Nor to this machine itself by its public address, where services may listen that are meant for it alone.
    """

    def __init__(self, inner_hosts: Sequence[InnerHost], *, way_out: str) -> None:
        self._inner_hosts = tuple(inner_hosts)
        self._way_out = way_out
        self._named: set[tuple[Address, int]] = set()  # what names resolved to that are allowed whatever they lead to

    def check(self, url: HttpUrl) -> None:
        """Raises AddressRefused for what is inner by its notation; a name's addresses are checked when it connects."""
        address = url.address
        if address is not None:
            self._check_address(url.host, address, url.port)
        elif _is_local_name(url.host) and not self._is_named(url.host, url.port):
            raise self._refused(url.host)

    def open_connector(self, resolver: AbstractResolver | None = None) -> aiohttp.TCPConnector:
        """To be closed. Call it inside the running event loop.

        As many at once as are asked for: a host that keeps many waiting would otherwise look like the death of others.
        """
        guarded = _GuardedResolver(self, resolver or aiohttp.DefaultResolver())
        return aiohttp.TCPConnector(limit=0, resolver=guarded, socket_factory=self._socket)

    def check_resolved(self, host: str, port: int, found: Sequence[Address]) -> None:
        """Raises AddressRefused when any address is one that we do not go to."""
        if self._is_named(host, port):
            self._named |= {(address, port) for address in found}
            return
        for address in found:
            self._check_address(host, address, port)

    def _socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        """Sees every connection, whatever led to it."""
        family, kind, protocol, _, destination = info
        address, port = ip_address(str(destination[0])), int(destination[1])
        if (address, port) not in self._named:
            self._check_address(str(address), address, port)
        return socket.socket(family=family, type=kind, proto=protocol)

    def _check_address(self, host: str, address: Address, port: int) -> None:
        if any(inner.covers(address, port) for inner in self._inner_hosts):
            return
        if is_private(address) or is_own(address):
            raise self._refused(host)

    def _is_named(self, host: str, port: int) -> bool:
        return any(inner.is_named(host, port) for inner in self._inner_hosts)

    def _refused(self, host: str) -> AddressRefused:
        return AddressRefused(f'"{host}" leads to an inner address. {self._way_out}')


class _GuardedResolver(AbstractResolver):
    def __init__(self, guard: Guard, resolver: AbstractResolver) -> None:
        self._guard = guard
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        self._guard.check_resolved(host, port, [ip_address(result["host"]) for result in found])
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _is_local_name(host: str) -> bool:
    """RFC 6761: names that mean this machine or this network, wherever they are looked up."""
    return f".{host.rstrip('.')}".endswith((".localhost", ".local", ".internal", ".home.arpa"))


def is_own(address: Address) -> bool:
    """Whether it is an address of this machine: the one from which it would be spoken to. Nothing is sent."""
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
            return ip_address(probe.getsockname()[0]) == address
        except OSError:  # there is no way there at all
            return False
