"""The log-in page that the SDK opens in a browser: who gets tokens, and where these may go."""

import html
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import jwt
import pytest

from headwater.api import pages
from tests.api.world import World
from tests.conftest import OWNER, PASSWORD

SITE = "http://headwater.test"
CALLBACK = "http://localhost:3001"


@pytest.fixture
async def browser(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """Sends what browsers send with a page and its forms."""
    transport = httpx.ASGITransport(app=world.app, client=("192.0.2.50", 1))
    async with httpx.AsyncClient(transport=transport, base_url=SITE) as client:
        yield client


def page(callback: str = CALLBACK) -> str:
    return f"/login?callback={quote(callback, safe='')}"


def shown(answer: httpx.Response, status: int) -> str:
    """The words of a page, which is sent as pages should be."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script|<img|<link|\bon\w+=|@import|url\(", answer.text.split("</style>")[1], re.IGNORECASE)
    return html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", answer.text, flags=re.DOTALL))


def form_of(answer: httpx.Response) -> str:
    """Where the first form of the page goes."""
    found = re.search(r'<form method="post" action="([^"]*)"', answer.text)
    assert found is not None, answer.text
    return str(answer.url.join(html.unescape(found[1])))


async def test_a_password_sends_the_browser_to_the_program_with_tokens(browser: httpx.AsyncClient) -> None:
    for callback in (CALLBACK, "http://127.0.0.1:1/", "http://[::1]:65535/a/b-c_d.e~f"):
        opened = await browser.get(page(callback))
        assert urlsplit(callback).netloc in shown(opened, 200)
        form = {"email": OWNER, "password": PASSWORD}
        answer = await browser.post(form_of(opened), data=form, headers={"origin": SITE})
        assert answer.status_code == 303
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        where, _, query = answer.headers["location"].partition("?")
        assert where == callback
        tokens = {name: values[0] for name, values in parse_qs(query).items()}
        assert tokens.keys() >= {"id_token", "access_token", "refresh_token"}
        assert jwt.decode(tokens["id_token"], options={"verify_signature": False})["email"] == OWNER
        me = await browser.get("/api/v1/users/me", headers={"authorization": f"Bearer {tokens['id_token']}"})
        assert me.json()["email"] == OWNER


async def test_what_the_sdk_adds_for_a_domain_is_taken(browser: httpx.AsyncClient) -> None:
    shown(await browser.get(f"/login?callback={CALLBACK}&domain=example.org"), 200)


FOREIGN = [
    "https://localhost:3001",
    "http://localhost",
    "http://localhost:",
    "http://localhost:0",
    "http://localhost:65536",
    "http://localhost:3001.evil.test",
    "http://localhost.evil.test:3001",
    "http://localhost:3001@evil.test",
    "http://localhost:3001@evil.test:80/",
    "http://user@localhost:3001",
    "http://user:password@localhost:3001",
    "http://evil.test:80/localhost:3001",
    "http://evil.test#http://localhost:3001",
    "http://localhost:3001#@evil.test",
    "http://localhost:3001?x=1",
    "http://localhost:3001/?next=http://evil.test",
    "http://localhost:3001\\@evil.test",
    "http://localhost:3001/\\evil.test",
    "http:\\\\localhost:3001",
    "http:/\\localhost:3001",
    "http:///localhost:3001",
    "//localhost:3001",
    "localhost:3001",
    "http://LOCALHOST:3001",
    "http://127.0.0.1.evil.test:3001",
    "http://127.1:3001",
    "http://2130706433:3001",
    "http://[::1]evil.test:3001",
    "http://[::ffff:127.0.0.1]:3001",
    "http://0.0.0.0:3001",
    "http://localhost:3001\n.evil.test",
    "http://localhost:3001\r\nset-cookie: a=b",
    "http://localhost:3001\n",
    "\thttp://localhost:3001",
    "http://localhost\t:3001",
    "http://localhost:30\u0660\u0661",
    "http://localhost:3001/%0d%0a",
    "http://ⓛocalhost:3001",
    "javascript:alert(1)//http://localhost:3001",
    "",
]


@pytest.mark.parametrize("callback", FOREIGN)
async def test_tokens_go_to_no_other_host(browser: httpx.AsyncClient, callback: str) -> None:
    assert "http://localhost:PORT" in shown(await browser.get(page(callback)), 400)
    answer = await browser.post(page(callback), data={"email": OWNER, "password": PASSWORD})
    assert "http://localhost:PORT" in shown(answer, 400)
    assert "location" not in answer.headers


async def test_without_a_callback_a_sentence_names_the_right_address(browser: httpx.AsyncClient) -> None:
    assert "/login?callback=http://localhost:PORT" in shown(await browser.get("/login"), 400)


async def test_a_wrong_password_shows_the_form_again_and_sounds_as_an_unknown_account(
    browser: httpx.AsyncClient,
) -> None:
    told = set()
    for email in (OWNER, '"><script>@headwater.test'):
        answer = await browser.post(page(), data={"email": email, "password": "wrong <password>"})
        told.add(shown(answer, 401))
        assert html.escape(email) in answer.text
        assert "wrong <" not in html.unescape(answer.text)
        assert form_of(answer) == SITE + page()
    assert len(told) == 1
    assert "is wrong" in told.pop()


@pytest.mark.parametrize("body", [b"", b"email=a%40b", b"password=x", b"email=&password=", b"{}"])
async def test_a_form_without_all_of_it_is_shown_again(browser: httpx.AsyncClient, body: bytes) -> None:
    assert "Give your e-mail address" in shown(await browser.post(page(), content=body), 400)


@pytest.mark.parametrize("body", [b"\xff", b"a=&" * 30, b"email=a%00b&password=x"])
async def test_what_is_no_form_is_refused_on_a_page(browser: httpx.AsyncClient, body: bytes) -> None:
    shown(await browser.post(page(), content=body), 400)


async def test_guessing_is_limited_here_too(browser: httpx.AsyncClient) -> None:
    form = {"email": "guessed@headwater.test", "password": "wrong password"}
    for _ in range(10):
        shown(await browser.post(page(), data=form), 401)
    answer = await browser.post(page(), data=form)
    assert "Too many failed log-ins" in shown(answer, 429)
    assert int(answer.headers["retry-after"]) > 0
    answer = await browser.post("/token", json={"username": form["email"], "password": form["password"]})
    assert answer.status_code == 429


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.test"},
        {"origin": "http://headwater.test.evil.test"},
        {"origin": "null"},
        {"origin": "http://headwater.test:81"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": SITE},
    ],
)
async def test_a_form_that_another_site_sends_signs_nobody_in(browser: httpx.AsyncClient, headers: dict) -> None:
    """It would sign the program in as the sender, who then sees what is uploaded."""
    for path in (page(), page().replace("login?", "login/openid?")):
        answer = await browser.post(path, data={"email": OWNER, "password": PASSWORD}, headers=headers)
        assert "Another site" in shown(answer, 403)


@pytest.mark.parametrize("headers", [{}, {"origin": SITE}, {"sec-fetch-site": "same-origin", "origin": "null"}])
async def test_our_own_form_signs_in(browser: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await browser.post(page(), data={"email": OWNER, "password": PASSWORD}, headers=headers)
    assert answer.status_code == 303


async def test_a_form_may_lead_to_the_program_and_nowhere_else(browser: httpx.AsyncClient) -> None:
    policy = (await browser.get(page())).headers["content-security-policy"]
    assert f"form-action 'self' {CALLBACK};" in policy
    assert "form-action 'self' http:;" in (await browser.get(page("http://[::1]:1"))).headers["content-security-policy"]


async def test_without_a_provider_there_is_no_button_for_one(browser: httpx.AsyncClient) -> None:
    assert "Sign in with" not in (await browser.get(page())).text
    for answer in (
        await browser.post(page().replace("login?", "login/openid?")),
        await browser.get("/login/openid/callback?code=x&state=y"),
    ):
        assert "HEADWATER_OIDC_ISSUER" in shown(answer, 404)


def test_templates_escape_what_they_are_given() -> None:
    assert "&lt;b&gt;&quot;" in pages.fill("problem", message='<b>"')
    assert "<b>" in pages.fill("problem", message=pages.Markup("<b>"))


async def test_a_failure_that_nobody_expected_is_a_page_without_its_cause(
    browser: httpx.AsyncClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("headwater.api.browser._credentials", fails)
    told = shown(await browser.post(page(), data={"email": OWNER, "password": PASSWORD}), 500)
    assert "Its log tells why" in told
    assert "secret" not in told
