"""Who calls, and the connection of the call: one request is one transaction, committed before the answer is sent."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import Depends, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from psycopg import AsyncConnection

from headwater import ids
from headwater.catalog import accounts, api_keys
from headwater.catalog.accounts import Account
from headwater.catalog.columns.cache import Columns
from headwater.catalog.rights import RULES, AnyRight
from headwater.catalog.slow_queries import QueryCounts
from headwater.errors import Unauthorized
from headwater.settings import Settings
from headwater.tokens import Bearer, Signer
from headwater.vault.both import Vaults
from headwater.work.openid import OpenIdProvider
from headwater.work.sign_in import Passwords
from headwater.work.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Server:
    """What the routes work with; put together in app.py."""

    settings: Settings
    signer: Signer
    vault: Vaults
    place: Workplace
    passwords: Passwords
    openid: OpenIdProvider | None
    columns: Columns
    queries: QueryCounts = field(default_factory=QueryCounts)


# Dependencies are `async`, though most wait for nothing: others are called in a thread each.


async def _server(request: Request) -> Server:
    return request.app.state.server


ServerDep = Annotated[Server, Depends(_server)]


async def _connection(server: ServerDep) -> AsyncIterator[AsyncConnection[Any]]:
    async with server.place.pool.connection() as conn:
        yield conn


async def _base(request: Request, server: ServerDep) -> str:
    """The URL that clients reach the API under, without a slash at its end."""
    public_url = server.settings.public_url
    root = public_url.rstrip("/") if public_url else str(request.base_url).rstrip("/")
    return f"{root}/api/v1"


async def _origin(base: Annotated[str, Depends(_base)]) -> str:
    """Where our pages come from, as browsers name it."""
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}"


_bearer = HTTPBearer(auto_error=False, description="A token of this server: headwater token, or POST /token.")


async def _bearer_of(
    server: ServerDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Bearer:
    if credentials is None:
        raise Unauthorized("This needs a token: send the header authorization: Bearer TOKEN.")
    return server.signer.read(credentials.credentials)


BearerDep = Annotated[Bearer, Depends(_bearer_of)]


async def account_of(server: Server, bearer: Bearer) -> Account:
    """Whom a token speaks for, if it still counts. Raises Unauthorized.

    Takes a connection of its own, so that a streamed answer does not hold one.
    """
    async with server.place.pool.connection() as conn:
        if bearer.key_id is not None:
            return await api_keys.get_holder(conn, bearer.account_id, bearer.key_id)
        return await accounts.get_bearer(conn, bearer.account_id, issued_at=bearer.issued_at)


async def _caller(server: ServerDep, bearer: BearerDep) -> Account:
    return await account_of(server, bearer)


Caller = Annotated[Account, Depends(_caller)]
# Scope "function": the transaction ends before the answer is sent, so that an answer never tells of what did not last.
Connection = Annotated[AsyncConnection[Any], Depends(_connection, scope="function")]
Base = Annotated[str, Depends(_base)]
Origin = Annotated[str, Depends(_origin)]


def needs(right: AnyRight | Literal["anybody", "account"]) -> dict[str, str]:
    """What a route declares: `@router.get("", openapi_extra=needs("sync"))`.

    "account" is whoever has a token, "anybody" needs none. The walk of tests/api/test_roles.py and the page
    docs/reference/permissions.md are made from it; the function of the route has to ask for the right itself.
    """
    return {"x-right": right, "x-scope": right if right in ("anybody", "account") else RULES[right].scope}


def wire_id(noun: str) -> Any:
    """A path parameter's dependency: turns 24 hex digits into a number. Raises NotFound."""

    async def parse(text: Annotated[str, Path(alias=f"{noun}_id", description="24 hexadecimal digits.")]) -> int:
        return ids.from_wire(text, noun)

    return Depends(parse)


OrganizationId = Annotated[int, wire_id("organization")]
ProjectId = Annotated[int, wire_id("project")]
InvitationId = Annotated[int, wire_id("invitation")]
KeyId = Annotated[int, wire_id("key")]
IntegrationId = Annotated[int, wire_id("integration")]
DriverId = Annotated[int, wire_id("driver")]
DatasetId = Annotated[int, wire_id("dataset")]
ItemId = Annotated[int, wire_id("item")]
AnnotationId = Annotated[int, wire_id("annotation")]
RecipeId = Annotated[int, wire_id("recipe")]
OntologyId = Annotated[int, wire_id("ontology")]
CommandId = Annotated[int, wire_id("command")]
