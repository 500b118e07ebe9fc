"""Log-in: tokens for those who can say who they are."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from headwater.api.caller import Caller, Server, ServerDep, needs
from headwater.catalog import accounts
from headwater.catalog.accounts import Account
from headwater.catalog.logins import Attempt
from headwater.errors import BadRequest
from headwater.tokens import REFRESH_LIFE_S

gate = APIRouter(tags=["log-in"])
router = APIRouter(tags=["log-in"])


class LoginBody(BaseModel):
    type: str = "user_credentials"
    username: str | None = None
    password: str | None = Field(default=None, repr=False)
    refresh_token: str | None = Field(default=None, repr=False)


@gate.post("/token", openapi_extra=needs("anybody"))
async def log_in(body: LoginBody, request: Request, server: ServerDep) -> dict[str, str]:
    """What the SDK's `login_m2m` asks: a token for an e-mail address and a password, or for a refresh token.

    A refresh token is not prolonged by its use: after 30 days somebody logs in again.
    429 with `Retry-After` after too many failures. The SDK does not wait for it: it asks for tokens outside of its
    retries, and tells its user at once.
    """
    if body.type == "refresh_token":
        account = await _refreshing(server, body.refresh_token or "")
        return _tokens(server, account, body.refresh_token or "")
    if body.type == "user_credentials" and body.username and body.password:
        return tokens_for(server, await server.passwords.account_of(attempt_of(request, body.username), body.password))
    raise BadRequest("Log in with type user_credentials, username and password, or with a refresh_token.")


async def _refreshing(server: Server, token: str) -> Account:
    """Raises Unauthorized."""
    bearer = server.signer.read(token, use="refresh")
    async with server.place.pool.connection() as conn:
        return await accounts.get_bearer(conn, bearer.account_id, issued_at=bearer.issued_at)


def attempt_of(request: Request, email: str) -> Attempt:
    """From the address that the connection, or a proxy that the operator trusts, comes from."""
    return Attempt(email=email, address="" if request.client is None else request.client.host)


def tokens_for(server: Server, account: Account) -> dict[str, str]:
    refresh = server.signer.sign(account_id=account.id, email=account.email, use="refresh", life_s=REFRESH_LIFE_S)
    return _tokens(server, account, refresh)


def _tokens(server: Server, account: Account, refresh: str) -> dict[str, str]:
    token = server.signer.sign(account_id=account.id, email=account.email)
    return {"id_token": token, "access_token": token, "refresh_token": refresh, "token_type": "Bearer"}


class PasswordBody(BaseModel):
    old_password: str = Field(repr=False, alias="oldPassword")
    new_password: str = Field(repr=False, alias="newPassword")


@router.patch("/users/me/password", openapi_extra=needs("account"))
async def change_password(body: PasswordBody, request: Request, caller: Caller, server: ServerDep) -> dict[str, str]:
    """A new password for the caller, who says the old one. Every token made by an earlier log-in is worth nothing
    afterwards, API keys aside; the answer is tokens to go on with.
    """
    account = await server.passwords.change(attempt_of(request, caller.email), body.old_password, body.new_password)
    return tokens_for(server, account)
