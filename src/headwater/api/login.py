"""Log-in: tokens for those who can say who they are."""

import asyncio

from fastapi import APIRouter
from pydantic import BaseModel

from headwater.api.caller import Connection, Server, ServerDep, needs
from headwater.catalog import accounts
from headwater.catalog.accounts import Account
from headwater.errors import BadRequest, NotFound, Unauthorized
from headwater.tokens import REFRESH_LIFE_S

gate = APIRouter(tags=["log-in"])


class LoginBody(BaseModel):
    type: str = "user_credentials"
    username: str | None = None
    password: str | None = None
    refresh_token: str | None = None


@gate.post("/token", openapi_extra=needs("anybody"))
async def log_in(body: LoginBody, conn: Connection, server: ServerDep) -> dict[str, str]:
    """What the SDK's `login_m2m` asks: a token for an e-mail address and a password, or for a refresh token."""
    if body.type == "refresh_token":
        account_id = server.signer.account_id_of(body.refresh_token or "", use="refresh")
        try:
            account = await accounts.get_account(conn, account_id)
        except NotFound as error:
            raise Unauthorized(str(error)) from None
    elif body.type == "user_credentials" and body.username and body.password:
        found = await accounts.password_hash_of(conn, body.username)
        account = await asyncio.to_thread(accounts.check_password, found, body.password)
    else:
        raise BadRequest("Log in with type user_credentials, username and password, or with a refresh_token.")
    return _tokens(server, account)


def _tokens(server: Server, account: Account) -> dict[str, str]:
    token = server.signer.sign(account_id=account.id, email=account.email)
    refresh = server.signer.sign(account_id=account.id, email=account.email, use="refresh", life_s=REFRESH_LIFE_S)
    return {"id_token": token, "access_token": token, "refresh_token": refresh, "token_type": "Bearer"}
