"""Servers that are no registries, or mean harm."""

import asyncio
import gzip
import itertools
import socket

import orjson
import pytest
from aiohttp import web

from headwater.errors import FailedDependency, HeadwaterError, Unavailable
from headwater.registries.checks import check_registry
from headwater.registries.opening import open_registry
from headwater.registries.transport import LARGEST_ANSWER_BYTES
from tests.registries.conftest import options

PASSWORD = "canary-registry-password"
ECHO = "canary-of-the-answer"


async def login_message(host: str, *, within_s: float = 10, **metadata: object) -> str:
    given = options(f"http://{host}", "ana", PASSWORD)
    async with open_registry(given, metadata, allow_private=True, within_s=within_s) as registry:
        (login,) = await check_registry(registry)
    assert not login.ok
    assert PASSWORD not in repr(login)
    assert ECHO not in repr(login)
    return login.message


async def failure(host: str, call: str, *arguments: str) -> HeadwaterError:
    async with open_registry(options(f"http://{host}", "ana", PASSWORD), {}, allow_private=True) as registry:
        with pytest.raises(HeadwaterError) as raised:
            await getattr(registry, call)(*arguments)
    assert ECHO not in str(raised.value)
    return raised.value


def challenge(realm: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'}


async def test_a_realm_elsewhere_never_sees_the_password(listen):
    seen: list[str | None] = []

    async def thief(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"token": "t"})

    elsewhere = await listen(thief, "127.0.0.2")

    async def registry(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") == "Bearer t":
            return web.json_response({"repositories": []})
        return web.Response(status=401, headers=challenge(f"http://{elsewhere}/token"))

    host = await listen(registry)
    assert "The password was not sent there" in await login_message(host)
    assert seen == []
    given = options(f"http://{host}", "ana", PASSWORD)
    for known in ("127.0.0.2", elsewhere):
        async with open_registry(given, {"loginHost": known}, allow_private=True) as client:
            assert [check.ok for check in await check_registry(client)] == [True, True]
    assert len(seen) == 2


async def test_a_redirect_is_never_followed(listen):
    asked = itertools.count()

    async def circle(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"/{ECHO}/{next(asked)}"})

    assert "redirects to somewhere else (HTTP 307 on GET /v2/)" in await login_message(await listen(circle))
    assert next(asked) == 1


async def test_an_answer_without_end_is_not_read_to_its_end(listen):
    sent = itertools.count()

    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            next(sent)
            await response.write(b" " * 65536)

    assert "answers with more than a registry does" in await login_message(await listen(flood))
    assert next(sent) * 65536 < 16 * LARGEST_ANSWER_BYTES


async def test_what_was_packed_stays_packed(listen):
    async def bomb(request: web.Request) -> web.Response:
        packed = gzip.compress(b'{"repositories": []}')
        return web.Response(body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})

    error = await failure(await listen(bomb), "list_repositories")
    assert "does not answer as a container registry" in str(error)


@pytest.mark.parametrize(
    ("status", "headers", "words"),
    [
        (200, {}, "does not answer as a container registry"),
        (404, {}, "does not answer as a container registry (HTTP 404 on GET /v2/)"),
        (401, {}, "does not answer as a container registry"),
        (401, {"WWW-Authenticate": "Negotiate"}, "does not answer as a container registry"),
        (401, {"WWW-Authenticate": "Basic realm=x"}, "does not accept the user name or password"),
        (401, challenge(""), "sends log-ins to another host"),
        (401, challenge("file:///etc/passwd"), "sends log-ins to another host"),
        (401, challenge("http://[::"), "sends log-ins to another host"),
        (403, {}, "does not accept the user name or password"),
        (429, {}, "is busy or down"),
        (500, {}, "is busy or down"),
    ],
)
async def test_what_is_no_registry_is_told_and_never_quoted(listen, status: int, headers: dict[str, str], words: str):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text=f"<html>{ECHO}</html>", reason=ECHO)

    assert words in await login_message(await listen(answer))


@pytest.mark.parametrize("given", [[], {}, {"token": 7}, {"token": f"{ECHO}\r\nHost: evil"}, {"token": "x" * 70_000}])
async def test_what_is_no_token_is_never_sent_on(listen, given: object):
    async def answer(request: web.Request) -> web.Response:
        assert not request.headers.get("Authorization", "").startswith("Bearer")
        if request.path == "/token":
            return web.json_response(given)
        return web.Response(status=401, headers=challenge(f"http://{request.host}/token"))

    assert "does not answer as a container registry (HTTP 200 on GET token)" in await login_message(
        await listen(answer)
    )


async def test_a_wrong_password_is_tried_once(listen):
    tried: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        tried.append(request.headers.get("Authorization"))
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    await login_message(await listen(answer))
    assert [bool(sent) for sent in tried] == [False, True]  # accounts are locked after a few


async def test_a_token_that_expires_between_pages_is_renewed(listen):
    given = itertools.count()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.json_response({"access_token": f"t{next(given)}"})
        page = int(request.query.get("page", 0))
        if request.headers.get("Authorization") != f"Bearer t{page}":
            return web.Response(status=401, headers=challenge(f"http://{request.host}/token"))
        link = {"Link": f'<{request.path}?page={page + 1}>; rel="next"'} if page < 3 else {}
        return web.json_response({"tags": [f"tag{page}"]}, headers=link)

    host = await listen(answer)
    async with open_registry(options(f"http://{host}", "ana", PASSWORD), {}, allow_private=True) as registry:
        found = await registry.list_tags("app")
    assert (found.names, found.is_complete) == (["tag0", "tag1", "tag2", "tag3"], True)


async def test_links_lead_to_the_registry_itself_whatever_host_they_name(listen):
    seen: list[str] = []

    async def thief(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({"tags": ["stolen"]})

    elsewhere = await listen(thief, "127.0.0.2")

    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/v2/app/tags/list"
        link = {} if "last" in request.query else {"Link": f"<http://{elsewhere}/v2/app/tags/list?last=a>; rel=next"}
        return web.json_response({"tags": ["b" if "last" in request.query else "a"]}, headers=link)

    host = await listen(answer)
    async with open_registry(options(f"http://{host}", "ana", PASSWORD), {}, allow_private=True) as registry:
        assert (await registry.list_tags("app")).names == ["a", "b"]
    assert seen == []


@pytest.mark.parametrize(
    "following", ["/v2/_catalog?last={}", "/v2/_catalog?last=same", "/admin?{}", "https://[", "/v2/_catalog?last=ü", ""]
)
async def test_a_list_without_end_is_left_incomplete(listen, following: str):
    asked = itertools.count()

    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/v2/_catalog"
        number = next(asked)
        link = {"Link": f'<{following.format(number)}>; rel="next"'}
        return web.json_response({"repositories": [f"r{number}"]}, headers=link)

    host = await listen(answer)
    async with open_registry(options(f"http://{host}", "ana", PASSWORD), {}, allow_private=True) as registry:
        found = await registry.list_repositories()
    assert not found.is_complete
    assert next(asked) <= 100


async def test_a_check_reads_one_page_of_the_catalog(listen):
    pages = itertools.count()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/v2/":
            return web.json_response({})
        link = {"Link": f'<{request.path}?last={next(pages)}>; rel="next"'}
        return web.json_response({"repositories": ["a", "b"]}, headers=link)

    host = await listen(answer)
    async with open_registry(options(f"http://{host}", "ana", PASSWORD), {}, allow_private=True) as registry:
        assert [check.ok for check in await check_registry(registry)] == [True, True]
    assert next(pages) == 1


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_a_token_service_says_no_in_several_ways(listen, status: int):
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            if "scope" not in request.query:
                return web.Response(status=status, text=ECHO)
            return web.Response(status=403 if status == 401 else status, text=ECHO)
        scope = "" if request.path == "/v2/" else ',scope="registry:catalog:*"'
        headers = {"WWW-Authenticate": f'Bearer realm="http://{request.host}/token"{scope}'}
        return web.Response(status=401, headers=headers)

    host = await listen(answer)
    assert "does not accept the user name or password" in await login_message(host)
    assert "may not list the repositories" in str(await failure(host, "list_repositories"))


async def test_more_names_than_anybody_reads_are_cut(listen):
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"tags": [f"t{number}" for number in range(10_001)]})

    host = await listen(answer)
    async with open_registry(options(f"http://{host}", "ana", PASSWORD), {}, allow_private=True) as registry:
        found = await registry.list_tags("app")
    assert (len(found.names), found.is_complete) == (10_000, False)


@pytest.mark.parametrize(
    "given", [b"[]", b"{}", b"", b"<html>", b'{"tags": "x"}', b'{"tags": [1]}', b'{"tags": ["a b"]}', b"[" * 100_000]
)
async def test_what_is_no_list_of_names_is_told(listen, given: bytes):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=given, content_type="application/json")

    error = await failure(await listen(answer), "list_tags", "app")
    assert isinstance(error, FailedDependency)
    assert "does not answer as a container registry (HTTP 200 on GET /v2/app/tags/list)" in str(error)


async def test_a_repository_without_tags_has_none(listen):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps({"name": "app", "tags": None}), content_type="application/json")

    host = await listen(answer)
    async with open_registry(options(f"http://{host}", "ana", PASSWORD), {}, allow_private=True) as registry:
        assert (await registry.list_tags("app")).names == []


async def test_a_registry_that_asks_nobody_to_log_in_says_so(listen):
    async def answer(request: web.Request) -> web.Response:
        assert "Authorization" not in request.headers
        return web.json_response({} if request.path == "/v2/" else {"repositories": []})

    host = await listen(answer)
    async with open_registry(options(f"http://{host}", "ana", PASSWORD), {}, allow_private=True) as registry:
        login, catalog = await check_registry(registry)
    assert login.ok
    assert catalog.ok
    assert "could not be checked" in login.message


async def test_a_registry_that_offers_no_catalog_is_no_failure_of_the_password(listen):
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({}, status=200 if request.path == "/v2/" else 404)

    error = await failure(await listen(answer), "list_repositories")
    assert "does not list its repositories" in str(error)


async def test_a_server_that_is_silent_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        assert f"{host} did not answer within 0.1 s" in await login_message(host, within_s=0.1)


async def test_a_port_where_nobody_listens_and_a_host_that_is_not_there_are_told():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
    assert f"{host} accepts no connection" in await login_message(host)
    assert "There is no host none.invalid" in await login_message("none.invalid")


async def test_what_does_not_speak_http_is_told(listen):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"

        async def mumble() -> None:
            loop = asyncio.get_running_loop()
            listener.setblocking(False)
            connection, _ = await loop.sock_accept(listener)
            with connection:
                await loop.sock_sendall(connection, f"220 {ECHO} SMTP\r\n".encode())

        mumbling = asyncio.create_task(mumble())
        message = await login_message(host)
        await mumbling
    assert "does not speak HTTP" in message


async def test_being_down_is_an_error_to_try_again_after(listen):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=503)

    error = await failure(await listen(answer), "list_tags", "app")
    assert isinstance(error, Unavailable)
    assert (error.operation, error.code) == ("GET /v2/app/tags/list", "503")
