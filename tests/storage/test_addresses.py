"""Which addresses and endpoints a person may name."""

import socket
from ipaddress import ip_address

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver

from headwater.errors import BadRequest
from headwater.net.addresses import AddressRefused, OuterResolver, check_endpoint, is_private, open_connector
from headwater.storage.opening import open_s3
from headwater.storage.s3.requests import S3Credentials

INNER = [
    "127.0.0.1", "127.8.9.1", "10.1.1.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "192.0.0.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16",
    "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::7f00:1",
    "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:7f00:1::",
    "2002:a9fe:a9fe::1", "2001::1", "2001:db8::1", "3fff::1", "5f00::1",
]  # fmt: skip
OUTER = ["8.8.8.8", "52.216.0.1", "2001:4860:4860::8888", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::1"]


@pytest.mark.parametrize("address", INNER)
def test_an_inner_address_is_recognised(address: str):
    assert is_private(ip_address(address))


@pytest.mark.parametrize("address", OUTER)
def test_an_outer_address_is_let_through(address: str):
    assert not is_private(ip_address(address))


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("https://s3.example.com", "https://s3.example.com"),
        ("http://S3.Example.com:9000/", "http://s3.example.com:9000"),
        ("https://minio", "https://minio"),
        ("https://8.8.8.8:9000", "https://8.8.8.8:9000"),
        ("https://[2001:4860:4860::8888]:9000", "https://[2001:4860:4860::8888]:9000"),
    ],
)
def test_an_endpoint_is_a_scheme_a_host_and_perhaps_a_port(given: str, endpoint: str):
    assert check_endpoint(given, allow_private=False) == endpoint


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "begin with https"),
        ("s3.example.com", "begin with https"),
        ("file:///etc/passwd", "begin with https"),
        ("ftp://example.com", "begin with https"),
        ("https://", "begin with https"),
        ("https://user:pw@example.com", "user name or password"),
        ("https://example.com/bucket", "after its host"),
        ("https://s3.console.aws.amazon.com/s3/buckets/photos", "is a web console"),
        ("https://eu-west-1.console.aws.amazon.com", "is a web console"),
        ("https://console.cloud.google.com/storage/browser/photos", "is a web console"),
        ("https://portal.azure.com/#home", "is a web console"),
        ("https://example.com?x=1", "after its host"),
        ("https://example.com#x", "after its host"),
        ("https://s3.console.aws.amazon.com/s3/buckets/cams?region=eu-west-1", "not of a web console"),
        ("https://example.com:port", "not a valid URL"),
        ("https://example.com:99999", "not a valid URL"),
        ("https://exa mple.com", "not a valid name"),
        ("https://exam%70le.com", "not a valid name"),
        ("https://2130706433", "not a valid name"),
        ("https://0x7f.1", "not a valid name"),
        ("https://127.1", "not a valid name"),
        ("https://[::1", "not a valid URL"),
    ],
)
def test_anything_else_is_no_endpoint_and_the_answer_says_what_is(url: str, sentence: str):
    with pytest.raises(BadRequest, match=sentence) as raised:
        check_endpoint(url, allow_private=True)
    assert "pw" not in str(raised.value)
    assert "https://host:port" in str(raised.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]"])
def test_an_endpoint_on_an_inner_address_needs_the_operator(address: str):
    with pytest.raises(BadRequest, match="HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true"):
        check_endpoint(f"http://{address}:8333", allow_private=False)
    assert check_endpoint(f"http://{address}:8333", allow_private=True) == f"http://{address}:8333"


class Rebinding(AbstractResolver):
    """Says an outer address at first, and an inner one from then on."""

    def __init__(self) -> None:
        self.addresses = ["8.8.8.8"]

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET):
        address = self.addresses.pop() if self.addresses else "127.0.0.1"
        return [{"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


async def test_a_name_that_resolves_inside_the_second_time_is_refused():
    resolver = OuterResolver(Rebinding())
    assert (await resolver.resolve("rebind.example"))[0]["host"] == "8.8.8.8"
    with pytest.raises(AddressRefused, match=r'"rebind.example" leads to an inner address\. .*ALLOW_PRIVATE'):
        await resolver.resolve("rebind.example")
    await resolver.close()


async def refused_by_connector(url: str) -> str:
    async with aiohttp.ClientSession(connector=open_connector(allow_private=False)) as session:
        with pytest.raises(aiohttp.ClientConnectorError) as raised:
            await session.get(url)
    assert isinstance(raised.value.os_error, AddressRefused)
    return str(raised.value.os_error)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
async def test_no_connection_goes_inside(host: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert "inner address" in await refused_by_connector(f"http://{host}:{port}/")
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_a_redirect_goes_not_inside_either(monkeypatch: pytest.MonkeyPatch):
    """Each hop opens its own connection through the same check."""
    from aiohttp import web

    from headwater.net import addresses

    async def redirect(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("http://127.0.0.2:1/latest/meta-data")

    app = web.Application()
    app.router.add_get("/", redirect)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    real = addresses.is_private
    monkeypatch.setattr(addresses, "is_private", lambda a: str(a) != "127.0.0.1" and real(a))
    assert "127.0.0.2" in await refused_by_connector(f"http://127.0.0.1:{port}/")
    await runner.cleanup()


async def test_a_store_on_an_inner_endpoint_says_so_at_once():
    calls = []

    async def credentials(refresh: bool) -> S3Credentials:
        calls.append(refresh)
        return S3Credentials("id", "secret")

    connector = open_connector(allow_private=False)
    for host in ("127.0.0.1", "localhost"):
        store = open_s3(
            bucket="cams",
            region="us-east-1",
            endpoint=f"http://{host}:8333",
            credentials=credentials,
            connector=connector,
        )
        with pytest.raises(BadRequest, match="HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true"):
            await store.check_listing()
        await store.close()
    await connector.close()
    assert len(calls) == 2


async def test_the_operator_can_let_connections_inside():
    from aiohttp import web

    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(text="inside")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(connector=open_connector(allow_private=True)) as session:
        response = await session.get(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        assert await response.text() == "inside"
    await runner.cleanup()
