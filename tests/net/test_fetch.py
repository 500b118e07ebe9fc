"""What fetching does with servers that mean well, and with those that do not."""

import asyncio
import gzip
import os
import ssl
from contextlib import AsyncExitStack

import aiohttp
import pytest

from headwater.errors import BadRequest
from headwater.net import addresses
from headwater.net.addresses import AddressRefused, Guard, is_own, read_inner_host
from headwater.net.fetch import Fetcher, FetchFailed
from headwater.net.urls import read_url
from tests.net.origin import Origin, ScriptedDns, Watch, own_addresses, send

BODY = bytes(range(256)) * 40
OK = b"HTTP/1.1 200 OK\r\n"


async def fetched(fetcher: Fetcher, url: str, **given) -> bytes:
    async with fetcher.open(url, **{"within_s": 20} | given) as answer:
        return await answer.read()


async def refusal(fetcher: Fetcher, url: str, **given) -> FetchFailed:
    with pytest.raises(FetchFailed) as caught:
        await fetched(fetcher, url, **given)
    text = str(caught.value)
    assert text.endswith((".", "HOST:PORT")), text
    assert "secret" not in text
    assert "token=" not in text
    return caught.value


async def test_a_name_of_the_outside_is_fetched_and_told_about(fetcher: Fetcher, origin: Origin, dns: ScriptedDns):
    url = origin.serve("/a b/ö.jpg", BODY, "Image/JPEG; charset=binary").replace(" ", "%20").replace("ö", "%C3%B6")
    origin.answers["/a%20b/%C3%B6.jpg"] = origin.answers["/a b/ö.jpg"]
    async with fetcher.open(origin.url("/a b/ö.jpg?token=a+b%2F&c=%7E#part")) as answer:
        assert await answer.read() == BODY
    assert (answer.size_bytes, answer.mime_type, answer.start, answer.end) == (len(BODY), "image/jpeg", 0, len(BODY))
    assert origin.requests[-1].target == "/a%20b/%C3%B6.jpg?token=a+b%2F&c=%7E"
    assert await fetched(fetcher, url) == BODY
    assert dns.asked == ["images.example.com"] * len(dns.asked)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (0, 1), (0, 10), (5, 700), (700, None), (-1, None), (-300, None), (0, 10**9), (9, 10**9)],
)
async def test_ranges_are_passed_on_and_cut_where_they_are_ignored(
    fetcher: Fetcher, origin: Origin, start: int, end: int | None, ranges: bool
):
    url = origin.serve("/file", BODY, ranges=ranges)
    async with fetcher.open(url, start=start, end=end) as answer:
        assert await answer.read() == BODY[start:end]
    first = len(BODY) + start if start < 0 else start
    assert (answer.start, answer.end, answer.size_bytes) == (first, min(end or len(BODY), len(BODY)), len(BODY))
    assert answer.is_range == (ranges and (start, end) != (0, None))


@pytest.mark.parametrize("ranges", [True, False])
async def test_a_range_without_a_byte_is_a_bad_request(fetcher: Fetcher, origin: Origin, ranges: bool):
    with pytest.raises(BadRequest, match="no byte"):
        await fetched(fetcher, origin.serve("/file", BODY, ranges=ranges), start=len(BODY))


async def test_what_identifies_us_is_not_sent(
    fetcher: Fetcher, origin: Origin, monkeypatch: pytest.MonkeyPatch, watch: Watch
):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{watch.port}")
    origin.say("/cookie", OK + b"Set-Cookie: a=b; Path=/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    origin.redirect("/moved", "/cookie")
    for path in ("/cookie", "/moved", "/cookie"):
        assert await fetched(fetcher, origin.url(path)) == b""
    assert {name for request in origin.requests for name in request.headers} == {
        "host", "user-agent", "accept", "accept-encoding"
    }  # fmt: skip
    assert origin.requests[0].headers["accept-encoding"] == "identity"
    assert watch.heard == []


async def test_redirects_are_followed_five_times(fetcher: Fetcher, origin: Origin):
    origin.serve("/5", BODY)
    for hop, status in enumerate((301, 302, 303, 307, 308)):
        origin.redirect(
            f"/{hop}", f"{hop + 1}" if hop % 2 else f"http://images.example.com:{origin.port}/{hop + 1}", status
        )
    origin.redirect("/more", "/0")
    assert await fetched(fetcher, origin.url("/0"), start=3, end=9) == BODY[3:9]
    assert (await refusal(fetcher, origin.url("/more"))).reason == "refused"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("404 Not Found", "not-found"),
        ("410 Gone", "not-found"),
        ("401 Unauthorized", "denied"),
        ("403 Forbidden", "denied"),
        ("418 I'm a teapot", "denied"),
        ("429 Too Many Requests", "unavailable"),
        ("500 Oh", "unavailable"),
        ("503 Service Unavailable", "unavailable"),
        ("204 No Content", "broken"),
        ("302 Found", "broken"),  # without saying where
        ("304 Not Modified", "broken"),
    ],
)
async def test_refusals_tell_nothing_of_the_answer(fetcher: Fetcher, origin: Origin, status: str, reason: str):
    async def answer(request, writer):
        await send(writer, status, b"" if status[0] != "4" else b"secret inner answer", "X-Secret: secret\r\n")

    origin.answers["/file"] = answer
    assert (await refusal(fetcher, origin.url("/file?token=1"))).reason == reason


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (OK + b"Content-Length: 100\r\n\r\nshort", "broken"),
        (OK + b"Content-Length: -5\r\n\r\nsecret", "broken"),
        (OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nsecret", "broken"),
        (OK + b"Content-Length: secret\r\n\r\nsecret", "broken"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nsecret", "broken"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", "broken"),
        (OK + b"X: " + b"secret" * 20_000 + b"\r\n\r\n", "broken"),
        (OK + b"".join(b"X%d: secret\r\n" % n for n in range(50_000)) + b"\r\n", "broken"),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(10**6)), "broken"),
        (b"HTTP/1.1 206 Partial Content\r\n\r\nsecret", "broken"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\n12345", "broken"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-0/10\r\n\r\n12345", "broken"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/100\r\nContent-Length: 5\r\n\r\n12345", "broken"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/%d\r\n\r\n%b" % (10**17, bytes(100)), "broken"),
        (b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/%d\r\n\r\n%b" % (10**30, bytes(100)), "broken"),
        (OK + b"Content-Length: %d\r\n\r\n%b" % (10**19, bytes(100)), "broken"),
        (OK + b"Content-Length: %d\r\n\r\n%b" % (10**40, bytes(100)), "broken"),
        (b"SSH-2.0-OpenSSH_9.6 secret\r\n", "broken"),
        (b"220 secret ESMTP\r\n", "broken"),
        (b"-ERR secret\r\n", "broken"),
        (b"", "broken"),
        (os.urandom(3000), "broken"),
    ],
)
async def test_what_is_no_honest_http_is_broken(fetcher: Fetcher, origin: Origin, answer: bytes, reason: str):
    assert (await refusal(fetcher, origin.say("/file", answer), start=0, end=100)).reason == reason


async def test_more_than_was_announced_or_asked_for_is_not_read(fetcher: Fetcher, origin: Origin):
    origin.say("/long", OK + b"Content-Length: 5\r\nConnection: close\r\n\r\n12345secret")
    assert (await refusal(fetcher, origin.url("/long"))).reason == "broken"
    origin.say("/part", b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/9\r\nConnection: close\r\n\r\n12345secret")
    assert await fetched(fetcher, origin.url("/part"), end=5) == b"12345"
    assert await fetched(fetcher, origin.url("/part"), end=3) == b"123"


async def test_an_endless_body_ends(fetcher: Fetcher, origin: Origin):
    async def endless(request, writer):
        writer.write(OK + b"Content-Type: image/png\r\n\r\n")
        while True:
            writer.write(bytes(64 * 1024))
            await writer.drain()

    origin.answers["/endless"] = endless
    failed = await refusal(fetcher, origin.url("/endless"), most_bytes=10**6)
    assert (failed.reason, failed.is_passing) == ("too-large", False)
    failed = await refusal(fetcher, origin.serve("/large", BODY), most_bytes=100)
    assert failed.reason == "too-large"
    assert await fetched(fetcher, origin.url("/large"), end=100, most_bytes=100) == BODY[:100]


async def test_a_server_that_keeps_us_waiting_is_given_up(fetcher: Fetcher, origin: Origin):
    async def silent(request, writer):
        writer.write(OK + b"Content-Length: 100\r\n\r\n1" if "body" in request.target else b"HTTP/1.1")
        await writer.drain()
        await asyncio.Event().wait()

    origin.answers["/head"] = origin.answers["/body"] = silent
    for path in ("/head", "/body"):
        failed = await refusal(fetcher, origin.url(path), within_s=0.2)
        assert (failed.reason, failed.is_passing) == ("timeout", True)


async def test_a_host_that_keeps_many_waiting_keeps_no_other_from_answering(fetcher: Fetcher, origin: Origin):
    """Whoever waits for a connection to come free would take the next host for dead."""

    async def slow(request, writer):
        writer.write(OK + b"Content-Length: 100\r\n\r\n1")
        await writer.drain()
        await asyncio.Event().wait()

    origin.answers["/slow"] = slow
    async with AsyncExitStack() as stack:
        for _ in range(100):
            answer = await stack.enter_async_context(fetcher.open(origin.url("/slow"), within_s=60))
            assert await anext(answer.chunks) == b"1"
        assert await fetched(fetcher, origin.serve("/other", BODY), within_s=5) == BODY


async def test_nobody_there(fetcher: Fetcher, dns: ScriptedDns, origin: Origin):
    dns.names["gone.example.com"] = [[]]
    assert (await refusal(fetcher, "http://gone.example.com/?token=1")).reason == "no-host"
    closed = Fetcher(inner_hosts=[read_inner_host("127.0.0.1:9991")], resolver=dns)
    assert (await refusal(closed, "http://images.example.com:9991/?token=1")).reason == "no-connection"
    await closed.close()


async def test_a_certificate_has_to_be_valid_and_https_is_not_left(
    origin: Origin, dns: ScriptedDns, certificate: tuple[str, str]
):
    """The redirect from https to http is the one that would show a signed URL to the network."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = await asyncio.start_server(origin.take, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    inner = [read_inner_host("127.0.0.1")]
    plain = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    strict = Fetcher(inner_hosts=inner, resolver=dns)
    trusting = Fetcher(inner_hosts=inner, resolver=dns, tls=ssl.create_default_context(cafile=certificate[0]))
    url = f"https://images.example.com:{port}"
    origin.serve("/file", BODY)
    origin.redirect("/same", f"{url}/file")
    origin.redirect("/down", origin.url("/file"))
    assert await fetched(trusting, f"{url}/same") == BODY
    assert (await refusal(strict, f"{url}/file")).reason == "tls"
    assert (await refusal(trusting, f"{url}/down")).reason == "refused"
    not_tls = f"https://images.example.com:{plain.sockets[0].getsockname()[1]}/"
    assert (await refusal(trusting, not_tls)).reason in ("tls", "no-connection")
    plain.close()
    server.close()
    await strict.close()
    await trusting.close()


@pytest.mark.parametrize(
    ("named", "url", "is_reached"),
    [
        ("127.0.0.1", "http://127.0.0.1:{port}/file", True),
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}/file", True),
        ("127.0.0.1:1", "http://127.0.0.1:{port}/file", False),
        ("127.0.0.0/8", "http://127.0.0.1:{port}/file", True),
        ("127.0.0.0/8:{port}", "http://images.example.com:{port}/file", True),
        ("10.0.0.0/8", "http://127.0.0.1:{port}/file", False),
        ("images.example.com", "http://images.example.com:{port}/file", True),
        ("images.example.com:{port}", "http://images.example.com.:{port}/file", True),
        ("images.example.com", "http://127.0.0.1:{port}/file", False),
        ("images.example.com", "http://other.example.com:{port}/file", False),
        ("localhost", "http://localhost:{port}/file", True),
        ("Store.Internal", "http://store.internal:{port}/file", True),
        ("[::1]", "http://127.0.0.1:{port}/file", False),
    ],
)
async def test_the_operator_names_inner_hosts(origin: Origin, named: str, url: str, is_reached: bool):
    origin.serve("/file", BODY)
    dns = ScriptedDns({name: [["127.0.0.1"]] for name in ("images.example.com", "localhost", "store.internal")})
    fetcher = Fetcher(inner_hosts=[read_inner_host(named.replace("{port}", str(origin.port)))], resolver=dns)
    url = url.replace("{port}", str(origin.port))
    if is_reached:
        fetcher.check_url(url)
        assert await fetched(fetcher, url) == BODY
        if named.lower().startswith(("images", "local", "store")):  # its address is no way around for another name
            assert (await refusal(fetcher, f"http://127.0.0.1:{origin.port}/file")).reason == "refused"
            assert (await refusal(fetcher, f"http://cdn.example.org:{origin.port}/file")).reason == "refused"
    else:
        assert (await refusal(fetcher, url)).reason == "refused"
    await fetcher.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "10.0.0.0/33",
        "host:port",
        "host:0",
        "host:70000",
        "http://a",
        "a/8",
        "[::1",
        "::1]",
        "0x7f.1",
        "127.0.0.1:0",
        "127.0.0.1:",
    ],
)
def test_an_inner_host_that_is_none_is_refused(text: str):
    with pytest.raises(BadRequest, match="is none of"):
        read_inner_host(text)


async def test_this_machine_is_not_reached_by_its_own_address_nor_this_server_by_its_own_url(
    monkeypatch: pytest.MonkeyPatch,
):
    for address in own_addresses():
        assert is_own(read_url(f"http://[{address}]/" if ":" in address else f"http://{address}/").address)
        with monkeypatch.context() as patch:  # as if it were one of the internet
            patch.setattr(addresses, "is_private", lambda address: False)
            url = read_url(f"http://[{address}]/" if ":" in address else f"http://{address}/")
            with pytest.raises(AddressRefused):
                Guard([], way_out="").check(url)
    assert not is_own(read_url("http://198.41.0.4/").address)
    fetcher = Fetcher(own_url="https://data.example.com/")
    for url in ("https://data.example.com/api/v1/items/1/stream", "https://DATA.example.com:443"):
        with pytest.raises(BadRequest, match="by its id"):
            fetcher.check_url(url)
    fetcher.check_url("https://data.example.com:8443/")
    await fetcher.close()


async def test_whatever_led_to_it_the_address_that_is_connected_counts(
    fetcher: Fetcher, origin: Origin, watch: Watch, monkeypatch: pytest.MonkeyPatch
):
    """Nothing but the socket is left to notice."""
    monkeypatch.setattr(Guard, "check", lambda *_: None)
    monkeypatch.setattr(Guard, "check_resolved", lambda *_: None)
    for url in (
        f"http://127.0.0.1:{watch.port}/",
        f"http://[::1]:{watch.port}/",
        f"http://inner.example:{watch.port}/",
    ):
        assert (await refusal(fetcher, url)).reason in ("refused", "no-connection")
    assert watch.heard == watch.connects == []


def test_a_url_is_what_is_sent():
    """What aiohttp connects is what we have read: the same host, the same port, the same target."""
    for text in (
        "http://Example.COM",
        "https://a.b:8443/x?y#z",
        "http://[2606:4700::1111]:81/%41?%zz",
        "http://münchen.example/é",
    ):
        url = read_url(text)
        request = aiohttp.client_reqrep.URL(str(url), encoded=True)
        assert (request.raw_host, request.port, request.raw_path_qs) == (url.host, url.port, url.target)
        assert read_url(str(url)) == url
