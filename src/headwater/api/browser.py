"""Signing in with a browser, for a program on the same computer: what the SDK's `dl.login()` opens.

The program waits on a port of its own. After the sign-in the browser is sent there with the tokens.
"""

import re
from typing import Annotated
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from headwater.api import pages
from headwater.api.caller import Base, Server, ServerDep, needs
from headwater.api.login import attempt_of, tokens_for
from headwater.api.pages import Markup
from headwater.catalog.accounts import Account
from headwater.errors import BadRequest, Forbidden, NotFound, TooManyRequests, Unauthorized
from headwater.work.openid import OpenIdProvider
from headwater.work.sign_in import account_of_person

router = APIRouter(route_class=pages.PageRoute, tags=["log-in"])

_COOKIE = "headwater_sign_in"
_FLOW_LIFE_S = 600
# Nothing but a port of this computer: no other host, no user, no query, whatever a browser would make of it.
_LOOPBACK = re.compile(r"http://(localhost|127\.0\.0\.1|\[::1\]):([0-9]{1,5})(/[A-Za-z0-9._~/-]*)?", re.ASCII)


def _callback(callback: Annotated[str | None, Query()] = None) -> str:
    """Raises BadRequest."""
    right = "A program on this computer opens this page as /login?callback=http://localhost:PORT; dl.login() does so."
    if not callback:
        raise BadRequest(f"Nothing waits for this sign-in. {right}")
    match = _LOOPBACK.fullmatch(callback)
    if match is None or not 0 < int(match[2]) < 2**16:
        raise BadRequest(f"Tokens go to a port of your own computer only, and this callback is none. {right}")
    return callback


def _sent_by_our_page(request: Request, base: Base) -> None:
    """Raises Forbidden for a form that another site sent. Browsers say truly where a form comes from."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        ours = site in ("same-origin", "none")
    else:
        ours = origin is None or urlsplit(origin).netloc in (request.headers.get("host"), urlsplit(base).netloc)
    if not ours:
        raise Forbidden("Another site sent this form. Start again from the program that wants to sign in.")


Callback = Annotated[str, Depends(_callback)]
OwnForm = Depends(_sent_by_our_page)


@router.get("/login", response_class=HTMLResponse, openapi_extra=needs("anybody"))
async def show_login(callback: Callback, server: ServerDep) -> Response:
    """The log-in page, for `dl.login()`: afterwards the browser goes to the callback, a port of the user's computer,
    with `id_token`, `access_token` and `refresh_token`.
    """
    return _login_page(server, callback)


def _login_page(
    server: Server, callback: str, *, email: str = "", problem: str = "", status: int = 200, again_s: int | None = None
) -> Response:
    query = f"callback={quote(callback, safe='')}"
    waiting = urlsplit(callback)
    provider = Markup()
    if server.openid is not None:
        provider = pages.fill("provider", action=f"login/openid?{query}", name=server.openid.name)
    body = pages.fill(
        "login",
        action=f"?{query}",
        email=email,
        problem=pages.fill("problem", message=problem) if problem else Markup(),
        provider=provider,
        waiting=waiting.netloc,
    )
    # CSP has no way to name an IPv6 address.
    onward = "http:" if waiting.hostname == "::1" else f"http://{waiting.netloc}"
    headers = None if again_s is None else {"Retry-After": str(again_s)}
    return pages.respond("Sign in", body, status=status, forms_lead_to=f"'self' {onward}", headers=headers)


@router.post("/login", dependencies=[OwnForm], include_in_schema=False)
async def log_in(callback: Callback, request: Request, server: ServerDep) -> Response:
    email, password = await _credentials(request)
    if not email or not password:
        problem = "Give your e-mail address and your password."
        return _login_page(server, callback, email=email, problem=problem, status=400)
    try:
        account = await server.passwords.account_of(attempt_of(request, email), password)
    except (Unauthorized, TooManyRequests) as error:
        return _login_page(
            server, callback, email=email, problem=str(error), status=error.status, again_s=error.retry_after_s
        )
    return _hand_over(server, account, callback)


async def _credentials(request: Request) -> tuple[str, str]:
    """E-mail address and password of the form, '' for what is not there. Raises BadRequest."""
    try:
        form = parse_qs((await request.body()).decode(), max_num_fields=20)
    except ValueError:
        raise BadRequest("This is not the form of the log-in page.") from None
    return form.get("email", [""])[0], form.get("password", [""])[0]


def _hand_over(server: Server, account: Account, callback: str) -> RedirectResponse:
    """To the program that waits, which reads the tokens from the query."""
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(f"{callback}?{urlencode(tokens_for(server, account))}", 303, headers)


def _openid(server: ServerDep) -> OpenIdProvider:
    """Raises NotFound."""
    if server.openid is None:
        raise NotFound("This server has no OpenID provider. Its operator sets HEADWATER_OIDC_ISSUER.")
    return server.openid


def _redirect_uri(base: Base) -> str:
    return f"{base.removesuffix('/api/v1')}/login/openid/callback"


Provider = Annotated[OpenIdProvider, Depends(_openid)]
RedirectUri = Annotated[str, Depends(_redirect_uri)]


@router.post("/login/openid", dependencies=[OwnForm], include_in_schema=False)
async def start_openid(
    callback: Callback, server: ServerDep, provider: Provider, redirect_uri: RedirectUri
) -> Response:
    """A page that leads to the provider. A redirect would not do: form-action holds for all that follow, and
    providers send people on to hosts that nobody here knows.
    """
    url, flow = await provider.start(redirect_uri)
    body = pages.fill("leaving", url=url, name=provider.name)
    response = pages.respond(f"On to {provider.name}", body, forms_lead_to="'none'")
    response.set_cookie(
        _COOKIE,
        server.signer.sign_note("openid", flow | {"callback": callback}, life_s=_FLOW_LIFE_S),
        max_age=_FLOW_LIFE_S,
        path=urlsplit(redirect_uri).path,
        secure=redirect_uri.startswith("https:"),
        httponly=True,
        samesite="lax",  # the provider's redirect brings it along, a form of another site does not
    )
    return response


@router.get("/login/openid/callback", include_in_schema=False)
async def finish_openid(request: Request, server: ServerDep, provider: Provider, redirect_uri: RedirectUri) -> Response:
    flow = server.signer.read_note("openid", request.cookies.get(_COOKIE, ""))
    if flow is None:
        raise BadRequest(
            "This browser began no sign-in, or more than ten minutes ago. Start again from the program that wants to "
            "sign in."
        )
    callback = flow.pop("callback")
    person = await provider.finish(redirect_uri, flow, dict(request.query_params))
    account = await account_of_person(server.place.pool, server.settings, person)
    response = _hand_over(server, account, callback)
    response.delete_cookie(_COOKIE, path=urlsplit(redirect_uri).path)
    return response
