"""The few pages for people: HTML without scripts, from the templates beside this file, and errors as pages."""

import html
import json
import secrets
from collections.abc import Callable, Coroutine
from importlib import resources
from string import Template
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from fastapi.routing import APIRoute


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def fill(template: str, **values: str) -> Markup:
    """The template `NAME.html`; every value but Markup is escaped."""
    text = resources.files(__name__).joinpath(f"{template}.html").read_text()
    escaped = {name: value if isinstance(value, Markup) else html.escape(value) for name, value in values.items()}
    return Markup(Template(text).substitute(escaped))


def respond(
    title: str, body: Markup, *, status: int = 200, forms_lead_to: str = "'self'", headers: dict[str, str] | None = None
) -> HTMLResponse:
    """A whole page. `forms_lead_to`: where forms may be sent and then be redirected, as CSP's form-action has it."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; form-action {forms_lead_to}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return HTMLResponse(
        fill("page", title=title, body=body, nonce=nonce),
        status_code=status,
        headers={
            "Content-Security-Policy": policy,
            "Cache-Control": "no-store",
            "Referrer-Policy": "same-origin",  # with none at all, browsers hide the Origin of our own forms
            "X-Content-Type-Options": "nosniff",
        }
        | (headers or {}),
    )


class PageRoute(APIRoute):
    """Errors as pages with the status, the sentence and the headers that the API answers with."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_and_tell(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:  # noqa: BLE001 - the handler of all others logs what nobody expected
                handlers = request.app.exception_handlers
                answer = await next(handlers[kind] for kind in type(error).__mro__ if kind in handlers)(request, error)
                told = fill("failure", message=json.loads(answer.body)["message"])
                again = answer.headers.get("retry-after")
                return respond(
                    "This did not work",
                    told,
                    status=answer.status_code,
                    headers=None if again is None else {"Retry-After": again},
                )

        return handle_and_tell
