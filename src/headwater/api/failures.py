"""Every failure as `{"message": sentence}` with a status the SDK knows."""

import logging
import uuid
from typing import Any

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import TypedDict

from headwater.errors import HeadwaterError, RangeNotSatisfiable

_log = logging.getLogger(__name__)
_AGAIN_S = "2"


class Failure(TypedDict):
    message: str


# How the description of the API tells of failures, of every route.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Failure, "description": "What is wrong with the request, and what would be right."},
    "5XX": {"model": Failure, "description": "Headwater, its database or a bucket failed; 503: try again."},
}


def _answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    speakable = message.encode("utf-8", "backslashreplace").decode()  # it may quote a lone surrogate of the request
    return JSONResponse({"message": speakable}, status_code=status, headers=headers)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HeadwaterError)
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, RangeNotSatisfiable) and error.size_bytes is not None:
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    return _answer(error.status, str(error), headers)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    told = "; ".join(_told(problem) for problem in error.errors())
    return _answer(400, f"The request is not as it should be: {told}. /api/v1/docs describes it.")


def _told(problem: Any) -> str:
    """One problem of a request in words; never with the value, which may be a secret."""
    if problem["type"] == "json_invalid":
        return f"the body is not JSON (at character {problem['loc'][-1]})"
    where = ".".join(str(part) for part in problem["loc"] if part != "body") or "the body"
    return f"{where}: {problem['msg']}"


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    told = {404: "There is no route", 405: "There is no such method of the route"}.get(error.status_code)
    if told is None or error.detail not in ("Not Found", "Method Not Allowed"):
        message = str(error.detail)
    else:
        message = f"{told} {request.method} {request.url.path[:200]}. /api/v1/docs lists what there is."
    return _answer(error.status_code, message, dict(error.headers or {}))


async def _unstorable(_: Request, error: Exception) -> JSONResponse:
    """Values that PostgreSQL cannot hold: a NUL in a text, a number out of range."""
    _log.info("refused a value: %s", type(error).__name__)
    return _answer(
        400,
        "The request holds a value that cannot be stored: a NUL character or a number out of range.",
    )


async def _caller_away(*_: object) -> JSONResponse:
    """Nobody is there to read it."""
    return _answer(400, "The request broke off before its end. Send it again.")


async def _database_away(_: Request, error: Exception) -> JSONResponse:
    _log.warning("database: %s", type(error).__name__)
    return _answer(503, "The database does not answer. Try again in a moment.", {"Retry-After": _AGAIN_S})


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    number = uuid.uuid4().hex[:12]
    _log.error("failure %s in %s %s", number, request.method, _loggable(request.url.path), exc_info=error)
    return _answer(500, f"Headwater failed. Its log tells why under the number {number}.")


def _loggable(path: str) -> str:
    """The address of a hook is a secret."""
    front, hooks, rest = path.partition("/hooks/")
    return f"{front}{hooks}{rest.partition('/')[0]}/…" if hooks else path


def add_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HeadwaterError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(psycopg.DataError, _unstorable)
    app.add_exception_handler(UnicodeEncodeError, _unstorable)
    app.add_exception_handler(ClientDisconnect, _caller_away)
    app.add_exception_handler(psycopg.OperationalError, _database_away)
    app.add_exception_handler(PoolTimeout, _database_away)
    app.add_exception_handler(Exception, _unexpected)
