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

from headwater.errors import HeadwaterError

_log = logging.getLogger(__name__)
_AGAIN_S = "2"


def _answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"message": message}, status_code=status, headers=headers)


async def _ours(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HeadwaterError)
    return _answer(error.status, str(error), {"Retry-After": _AGAIN_S} if error.status == 503 else None)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _answer(400, "; ".join(_told(problem) for problem in error.errors()))


def _told(problem: Any) -> str:
    """One problem of a request in words; never with the value, which may be a secret."""
    where = ".".join(str(part) for part in problem["loc"] if part != "body") or "the body"
    return f"{where}: {problem['msg']}"


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _answer(error.status_code, str(error.detail), dict(error.headers or {}))


async def _unstorable(_: Request, error: Exception) -> JSONResponse:
    """Values that PostgreSQL cannot hold: a NUL in a text, a number out of range."""
    _log.info("refused a value: %s", type(error).__name__)
    return _answer(400, "The request holds a value that cannot be stored: a NUL character or a number out of range.")


async def _database_away(_: Request, error: Exception) -> JSONResponse:
    _log.warning("database: %s", type(error).__name__)
    return _answer(503, "The database does not answer. Try again in a moment.", {"Retry-After": _AGAIN_S})


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    number = uuid.uuid4().hex[:12]
    _log.error("failure %s in %s %s", number, request.method, request.url.path, exc_info=error)
    return _answer(500, f"Headwater failed. Its log tells why under the number {number}.")


def add_handlers(app: FastAPI) -> None:
    app.add_exception_handler(HeadwaterError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(psycopg.DataError, _unstorable)
    app.add_exception_handler(UnicodeEncodeError, _unstorable)
    app.add_exception_handler(psycopg.OperationalError, _database_away)
    app.add_exception_handler(PoolTimeout, _database_away)
    app.add_exception_handler(Exception, _unexpected)
