"""Signing in with OpenID Connect, at a certified provider that runs beside the tests."""

import html
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import jwt
import pytest
from joserfc.jwk import KeySet, RSAKey

from headwater.app import create_app
from headwater.errors import Unauthorized
from tests import servers
from tests.api.test_login_pages import CALLBACK, SITE, form_of, page, shown
from tests.conftest import OWNER

RETURN = f"{SITE}/login/openid/callback"


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.openid_provider(tmp_path_factory.mktemp("openid"), RETURN) as url:
        yield url


class Passing(httpx.AsyncBaseTransport):
    """Our own site over ASGI, the rest over the network."""

    def __init__(self, app: Any) -> None:
        self._ours = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self._others = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        ours = request.url.host == urlsplit(SITE).hostname
        return await (self._ours if ours else self._others).handle_async_request(request)

    async def aclose(self) -> None:
        await self._others.aclose()


@dataclass(frozen=True, slots=True)
class Site:
    app: Any
    stack: AsyncExitStack

    async def browser(self) -> httpx.AsyncClient:
        """With cookies of its own; it follows no redirect by itself."""
        return await self.stack.enter_async_context(httpx.AsyncClient(transport=Passing(self.app), base_url=SITE))

    async def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        async with self.app.state.server.place.pool.connection() as conn:
            cursor = await conn.execute(statement, list(parameters))
            return await cursor.fetchall() if cursor.description else []

    async def add(self, name: str) -> None:
        await self.execute("INSERT INTO account (email) VALUES (%s)", f"{name}@headwater.test")


Open = Callable[..., Any]


@pytest.fixture
async def open_site(settings_for: Any, issuer: str, database_url: str) -> AsyncIterator[Open]:
    """Opens the site with settings of the test's own."""
    async with AsyncExitStack() as stack:

        async def opened(**given: object) -> Site:
            settings = settings_for(
                **{
                    "public_url": SITE,
                    "oidc_issuer": issuer,
                    "oidc_client_id": "headwater",
                    "oidc_client_secret": "secret-of-headwater",
                    "oidc_name": "Example & Co",
                }
                | given
            )
            app = create_app(settings, database_url)
            await stack.enter_async_context(app.router.lifespan_context(app))
            return Site(app, stack)

        yield opened


@pytest.fixture
async def site(open_site: Open) -> Site:
    return await open_site()


async def begin(browser: httpx.AsyncClient) -> str:
    """The button is pressed. Returns where the browser is led."""
    opened = await browser.get(page())
    button = re.findall(r'<form method="post" action="([^"]*)"', opened.text)[1]
    leaving = await browser.post(opened.url.join(html.unescape(button)), headers={"origin": SITE})
    shown(leaving, 200)
    led = re.search(r'http-equiv="refresh" content="0; url=([^"]*)"', leaving.text)
    assert led is not None
    assert f'href="{led[1]}"' in leaving.text
    return html.unescape(led[1])


async def at_provider(browser: httpx.AsyncClient, url: str, name: str, *, consents: bool = True) -> str:
    """Logs in at the provider and consents. Returns where it sends the browser back to, which is not asked yet."""
    answer = await browser.get(url)
    while True:
        if answer.is_redirect:
            url = str(answer.url.join(answer.headers["location"]))
            if url.startswith(RETURN):
                return url
            answer = await browser.get(url)
            continue
        assert answer.status_code == 200, answer.text
        action = html.unescape(re.search(r'action="([^"]*)" method="post"', answer.text)[1])
        prompt = re.search(r'name="prompt" value="(\w+)"', answer.text)[1]
        if prompt == "consent" and not consents:
            answer = await browser.get(html.unescape(re.search(r'href="([^"]*/abort)"', answer.text)[1]))
        else:
            answer = await browser.post(action, data={"prompt": prompt, "login": name, "password": "any"})


def kept_by(browser: httpx.AsyncClient) -> str | None:
    """The cookie of a sign-in under way."""
    return browser.cookies.get("headwater_sign_in")


async def sign_in(site: Site, name: str) -> httpx.Response:
    browser = await site.browser()
    return await browser.get(await at_provider(browser, await begin(browser), name))


def email_of(answer: httpx.Response) -> str:
    """Whom the tokens of the redirect to the program are for."""
    assert answer.status_code == 303, answer.text
    where, _, query = answer.headers["location"].partition("?")
    assert where == CALLBACK
    tokens = parse_qs(query)
    assert tokens.keys() >= {"id_token", "access_token", "refresh_token"}
    return jwt.decode(tokens["id_token"][0], options={"verify_signature": False})["email"]


async def test_who_is_known_here_by_a_verified_address_signs_in(site: Site) -> None:
    assert email_of(await sign_in(site, "owner")) == OWNER
    await site.add("thin-ann")  # whose address is not in the ID token
    assert email_of(await sign_in(site, "thin-ann")) == "thin-ann@headwater.test"


async def test_the_request_is_one_with_pkce_state_and_nonce_that_only_this_browser_knows(site: Site) -> None:
    browser = await site.browser()
    asked = {name: values[0] for name, values in parse_qs(urlsplit(await begin(browser)).query).items()}
    assert asked["response_type"] == "code"
    assert asked["redirect_uri"] == RETURN
    assert asked["scope"] == "openid email profile"
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["state"]) >= 32
    assert len(asked["nonce"]) >= 32
    [cookie] = browser.cookies.jar
    assert cookie.has_nonstandard_attr("HttpOnly")
    assert cookie.get_nonstandard_attr("SameSite") == "lax"
    assert cookie.path == "/login/openid/callback"
    assert 0 < cookie.expires - time.time() <= 600
    assert "secret-of-headwater" not in str(cookie.value)
    other = parse_qs(urlsplit(await begin(await site.browser())).query)
    assert all(other[name][0] != asked[name] for name in ("state", "nonce", "code_challenge"))


async def test_the_cookie_is_sent_over_https_alone_where_there_is_https(open_site: Open) -> None:
    site = await open_site(public_url="https://headwater.test")
    browser = await site.browser()
    answer = await browser.post(f"/login/openid?callback={quote(CALLBACK, safe='')}")
    assert "secure" in answer.headers["set-cookie"].lower().split("; ")


async def test_after_the_first_time_the_subject_counts_and_not_the_address(site: Site) -> None:
    await site.add("ann")
    assert email_of(await sign_in(site, "ann")) == "ann@headwater.test"
    await site.execute("UPDATE account SET email = 'ann@new.test' WHERE email = 'ann@headwater.test'")
    await site.add("ann")  # somebody else, who got the address
    assert email_of(await sign_in(site, "ann")) == "ann@new.test"
    await site.execute("DELETE FROM account WHERE email = 'ann@new.test'")
    assert email_of(await sign_in(site, "ann")) == "ann@headwater.test"


async def test_an_address_that_nobody_verified_signs_nobody_in(site: Site) -> None:
    await site.add("unverified-ann")
    assert "verified" in shown(await sign_in(site, "unverified-ann"), 403)
    assert await site.execute("SELECT FROM account_identity") == []


async def test_who_has_no_account_is_told_so_and_gets_none(site: Site) -> None:
    assert "no account newcomer@headwater.test" in shown(await sign_in(site, "newcomer"), 403)
    assert await site.execute("SELECT count(*) FROM account") == [(1,)]


async def test_an_operator_may_let_newcomers_in_as_members(open_site: Open) -> None:
    site = await open_site(oidc_create_accounts=True)
    for _ in range(2):
        assert email_of(await sign_in(site, "newcomer")) == "newcomer@headwater.test"
    found = await site.execute(
        "SELECT email, role, password_hash FROM account JOIN member ON account_id = account.id ORDER BY account.id"
    )
    assert found[1:] == [("newcomer@headwater.test", "worker", None)]
    assert await site.execute("SELECT action, target FROM audit") == [("member.added", "newcomer@headwater.test")]
    assert "verified" in shown(await sign_in(site, "unverified-bob"), 403)


async def test_an_operator_may_name_the_domains(open_site: Open) -> None:
    site = await open_site(oidc_create_accounts=True, oidc_email_domains="example.org, headwater.test")
    assert email_of(await sign_in(site, "newcomer")) == "newcomer@headwater.test"
    narrow = await open_site(oidc_create_accounts=True, oidc_email_domains="example.org,water.test")
    assert "domain" in shown(await sign_in(narrow, "newcomer"), 403)
    assert "domain" in shown(await sign_in(narrow, "owner"), 403)


async def test_who_does_not_consent_is_not_signed_in(site: Site) -> None:
    browser = await site.browser()
    back = await at_provider(browser, await begin(browser), "owner", consents=False)
    assert "Example & Co did not sign you in (access_denied)" in shown(await browser.get(back), 403)


async def test_a_code_counts_once(site: Site) -> None:
    browser = await site.browser()
    back = await at_provider(browser, await begin(browser), "owner")
    cookie = kept_by(browser)
    assert email_of(await browser.get(back)) == OWNER
    assert kept_by(browser) is None
    shown(await browser.get(back), 400)  # the browser has forgotten it
    again = await site.browser()
    again.cookies.set("headwater_sign_in", cookie)
    assert "counts once" in shown(await again.get(back), 401)


async def test_an_answer_is_taken_from_the_browser_that_asked_alone(site: Site) -> None:
    """Else whoever starts a sign-in could have somebody else's program finish it as them."""
    thief, victim = await site.browser(), await site.browser()
    back = await at_provider(thief, await begin(thief), "owner")
    assert "began no sign-in" in shown(await victim.get(back), 400)
    await begin(victim)
    assert "another sign-in" in shown(await victim.get(back), 400)
    assert email_of(await thief.get(back)) == OWNER


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"state": "x"}, 400),
        ({"state": None}, 400),
        ({"state": "é"}, 400),
        ({"code": "x"}, 401),
        ({"code": None}, 400),
        ({"code": ""}, 400),
        ({"iss": "http://evil.test"}, 400),
        ({"error": "access_denied"}, 403),
        ({"error": "<script>alert(1)</script>"}, 403),
        ({"error": "call 555-1234 to get your account back"}, 403),
    ],
)
async def test_a_changed_answer_signs_nobody_in(site: Site, changed: dict[str, str | None], status: int) -> None:
    browser = await site.browser()
    back = httpx.URL(await at_provider(browser, await begin(browser), "owner"))
    parameters = dict(back.params) | changed
    answer = await browser.get(RETURN, params={name: value for name, value in parameters.items() if value is not None})
    told = shown(answer, status)
    assert "script" not in told
    assert "555" not in told


async def test_a_cookie_that_is_not_ours_or_too_old_is_none(site: Site) -> None:
    browser = await site.browser()
    back = await at_provider(browser, await begin(browser), "owner")
    signer = site.app.state.server.signer
    flow = signer.read_note("openid", kept_by(browser))
    for bad in (
        "",
        "x.y.z",
        jwt.encode({"use": "openid", "content": flow, "exp": 2**33}, "x" * 43, algorithm="HS256"),
        signer.sign_note("openid", flow, life_s=-1),
        signer.sign_note("other", flow, life_s=60),
        signer.sign(account_id=1, email=OWNER),
    ):
        other = await site.browser()
        other.cookies.set("headwater_sign_in", bad)
        assert "began no sign-in" in shown(await other.get(back), 400)
    token = kept_by(browser)
    answer = await browser.get("/api/v1/users/me", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 401


@pytest.mark.parametrize("kept", ["nonce", "code_verifier"])
async def test_what_the_browser_keeps_must_be_what_the_provider_was_told(site: Site, kept: str) -> None:
    """A code that was stolen and is put into another sign-in meets another verifier and another nonce."""
    browser = await site.browser()
    back = await at_provider(browser, await begin(browser), "owner")
    signer = site.app.state.server.signer
    flow = signer.read_note("openid", kept_by(browser))
    browser.cookies.clear()
    browser.cookies.set("headwater_sign_in", signer.sign_note("openid", flow | {kept: "x" * 48}, life_s=60))
    shown(await browser.get(back), 401)


async def test_an_id_token_for_another_client_signs_nobody_in(open_site: Open, issuer: str) -> None:
    """The provider's token endpoint would not mix them up; whoever runs another client of it could."""
    site = await open_site(oidc_client_id="another", oidc_client_secret="secret-of-another")
    browser = await site.browser()
    url = await begin(browser)
    back = await at_provider(browser, url, "owner")
    provider = site.app.state.server.openid
    flow = site.app.state.server.signer.read_note("openid", kept_by(browser))
    known = await provider._know()
    async with provider._client(known, RETURN) as client:
        tokens = await provider._redeem(client, known, flow, parse_qs(urlsplit(back).query)["code"][0])
    assert (await provider._verify(known, flow, tokens))["sub"] == "owner"
    ours = (await open_site()).app.state.server.openid
    with pytest.raises(Unauthorized, match="not meant for this sign-in"):
        await ours._verify(known, flow, tokens)


async def test_nothing_secret_is_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    browser = await site.browser()
    with caplog.at_level(logging.DEBUG):
        back = await at_provider(browser, await begin(browser), "owner")
        flow = site.app.state.server.signer.read_note("openid", kept_by(browser))
        seen = len(caplog.records)  # what the browser of the test logs is its own affair
        transport = httpx.ASGITransport(app=site.app)
        request = browser.build_request("GET", back)
        answer = await transport.handle_async_request(request)
    logged = " ".join(record.getMessage() for record in caplog.records[seen:])
    assert "/token" in logged
    tokens = parse_qs(urlsplit(answer.headers["location"]).query)
    code = parse_qs(urlsplit(back).query)["code"][0]
    for secret in ("secret-of-headwater", code, *flow.values(), tokens["id_token"][0], tokens["refresh_token"][0]):
        assert secret not in logged


async def test_a_wrong_client_secret_is_the_operators_business(open_site: Open) -> None:
    site = await open_site(oidc_client_secret="wrong secret")
    told = shown(await sign_in(site, "owner"), 424)
    assert "(invalid_client)" in told
    assert "wrong secret" not in told


async def test_while_the_provider_is_down_the_password_still_works(open_site: Open, tmp_path: Path) -> None:
    (port,) = servers.free_ports(1)
    site = await open_site(oidc_issuer=f"http://127.0.0.1:{port}")
    browser = await site.browser()
    opened = await browser.get(page())
    assert form_of(opened) == SITE + page()
    answer = await browser.post(page().replace("login?", "login/openid?"))
    assert "Example & Co does not answer" in shown(answer, 503)
    assert answer.headers["retry-after"]


async def test_a_provider_that_goes_down_midway_is_told_and_one_that_is_back_is_used(
    open_site: Open, tmp_path: Path
) -> None:
    with servers.openid_provider(tmp_path / "a", RETURN) as issuer:
        site = await open_site(oidc_issuer=issuer)
        browser = await site.browser()
        back = await at_provider(browser, await begin(browser), "owner")
    assert "does not answer" in shown(await browser.get(back), 503)


@pytest.mark.parametrize("path", ["/nothing-here", "/jwks"])
async def test_an_issuer_that_is_no_provider_is_the_operators_business(open_site: Open, issuer: str, path: str) -> None:
    site = await open_site(oidc_issuer=issuer + path)
    browser = await site.browser()
    told = shown(await browser.post(page().replace("login?", "login/openid?")), 424)
    assert "HEADWATER_OIDC_ISSUER" in told


async def test_a_provider_under_another_name_is_refused(open_site: Open, issuer: str) -> None:
    """Discovery 1.0, 4.3: what it calls itself is what was asked for."""
    site = await open_site(oidc_issuer=issuer.replace("127.0.0.1", "localhost"))
    browser = await site.browser()
    told = shown(await browser.post(page().replace("login?", "login/openid?")), 424)
    assert issuer in told


async def test_keys_that_the_provider_changed_are_read_again(site: Site) -> None:
    await sign_in(site, "owner")
    provider = site.app.state.server.openid
    provider._known.keys = KeySet([RSAKey.generate_key(2048, {"kid": "an old one", "use": "sig"})])
    assert email_of(await sign_in(site, "owner")) == OWNER


GOOD = {"aud": "headwater", "sub": "owner", "nonce": "n", "email": OWNER, "email_verified": True}


async def test_an_id_token_counts_only_when_all_of_it_is_right(site: Site) -> None:
    """With the provider's keys replaced by one of the test, which can sign what the provider would not."""
    provider = site.app.state.server.openid
    known = await provider._know()
    key = RSAKey.generate_key(2048, {"kid": "k", "use": "sig", "alg": "RS256"})
    known.keys = KeySet([key])
    now = int(time.time())
    good = GOOD | {"iss": known.metadata["issuer"], "iat": now, "exp": now + 60}

    async def verified(claims: dict[str, Any], secret: Any = None, algorithm: str = "RS256") -> dict[str, Any]:
        signing = key.private_key if secret is None else secret
        token = jwt.encode(claims, signing, algorithm=algorithm, headers={"kid": "k"})
        return await provider._verify(known, {"nonce": "n"}, {"id_token": token, "access_token": "a"})

    for right in ({}, {"aud": ["headwater"]}, {"aud": ["headwater", "x"], "azp": "headwater"}):
        assert (await verified(good | right))["email"] == OWNER
    wrong: list[dict[str, Any]] = [
        {"aud": "another"},
        {"aud": "another", "azp": "headwater"},
        {"aud": ["headwater", "another"]},
        {"aud": ["headwater", "another"], "azp": "another"},
        {"aud": []},
        {"iss": "http://evil.test"},
        {"exp": now - 600},
        {"exp": "tomorrow"},
        {"iat": now + 600},
        {"nbf": now + 600},
        {"nonce": "other"},
        {"nonce": ["n"]},
        {"at_hash": "AAAA"},
    ]
    wrong += [{name: None} for name in ("aud", "iss", "exp", "iat", "nonce", "sub")]
    for changed in wrong:
        claims = {name: value for name, value in (good | changed).items() if value is not None}
        with pytest.raises(Unauthorized, match="not meant for this sign-in"):
            await verified(claims)
    for secret, algorithm in (("secret-of-headwater-secret-of-headwater", "HS256"), ("", "none")):
        with pytest.raises(Unauthorized):
            await verified(good, secret, algorithm)
    with pytest.raises(Unauthorized):
        await verified(good, RSAKey.generate_key(2048).private_key)
    for tokens in ({}, {"id_token": None}, {"id_token": "no token"}, {"id_token": 7}):
        with pytest.raises(Unauthorized):
            await provider._verify(known, {"nonce": "n"}, tokens)
