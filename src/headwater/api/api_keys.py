"""API keys: tokens for scripts, as the SDK's `generate_api_key` asks for them, that can be listed and revoked."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from headwater.api.caller import BearerDep, Caller, Connection, KeyId, Server, ServerDep, needs
from headwater.catalog import api_keys
from headwater.catalog.accounts import Account
from headwater.catalog.api_keys import ApiKey
from headwater.errors import BadRequest, Forbidden
from headwater.tokens import Bearer
from headwater.wire import accounts as wire

router = APIRouter(prefix="/apiKeys", tags=["API keys"])

DEFAULT_LIFE = timedelta(days=365)
_LONGEST_LIFE = timedelta(days=36_500)


class NewKeyBody(BaseModel):
    user_id: str = Field(alias="userId", description="Your own e-mail address, or that of a bot of your projects.")
    description: str | None = Field(default=None, description="What the SDK calls the name.")
    name: str | None = None
    days: int | None = Field(default=None, ge=1, le=_LONGEST_LIFE.days, description="How long it lives.")
    expires_at: AwareDatetime | None = Field(
        default=None, alias="expiresAt", description="When it ends. Without this and `days`: in a year."
    )


@router.post("", openapi_extra=needs("account"))
async def create_key(
    body: NewKeyBody, caller: Caller, bearer: BearerDep, conn: Connection, server: ServerDep
) -> wire.ApiKeyJson:
    """A key for yourself, or for a bot of a project where you may manage bots. `jwt` is told now and never again."""
    check_may_make_keys(bearer)
    holder = await api_keys.find_holder(conn, caller, body.user_id)
    name = body.name or body.description or "API key"
    key, jwt = await make_key(conn, server, caller, holder, name=name, expires_at=_expiry(body))
    return wire.api_key(key, jwt=jwt)


def check_may_make_keys(bearer: Bearer) -> None:
    """A key makes no keys, so that one that was stolen ends when it is revoked. Raises Forbidden."""
    if bearer.key_id is not None:
        raise Forbidden("An API key cannot make keys. Log in with your password, or use a token of: headwater token.")


async def make_key(
    conn: Connection, server: Server, caller: Account, holder: Account, *, name: str, expires_at: datetime
) -> tuple[ApiKey, str]:
    """The key's row and the key itself. Raises BadRequest."""
    key = await api_keys.create_key(conn, caller, holder, name=name, expires_at=expires_at)
    jwt = server.signer.sign_key(
        account_id=holder.id, email=holder.email, key_id=key.id, expires_at=int(key.expires_at.timestamp())
    )
    return key, jwt


def _expiry(body: NewKeyBody) -> datetime:
    """In whole seconds, as a token says it. Raises BadRequest."""
    now = datetime.now(UTC).replace(microsecond=0)
    if body.expires_at is None:
        return now + (DEFAULT_LIFE if body.days is None else timedelta(days=body.days))
    if body.days is not None:
        raise BadRequest("Say either `days` or `expiresAt`, not both.")
    if not now < body.expires_at <= now + _LONGEST_LIFE:
        raise BadRequest(f"A key expires in the future, and within {_LONGEST_LIFE.days:,} days.")
    return body.expires_at.replace(microsecond=0)


@router.get("", openapi_extra=needs("account"))
async def list_keys(
    caller: Caller,
    conn: Connection,
    user_id: Annotated[str | None, Query(alias="userId", description="A bot of your projects.")] = None,
) -> list[wire.ApiKeyJson]:
    """Your own, or those of a bot; never the keys themselves."""
    holder = caller if user_id is None else await api_keys.find_holder(conn, caller, user_id)
    return [wire.api_key(key) for key in await api_keys.list_keys(conn, holder)]


class KeyPatch(BaseModel):
    name: str


@router.patch("/{key_id}", openapi_extra=needs("account"))
async def rename_key(key_id: KeyId, body: KeyPatch, caller: Caller, conn: Connection) -> wire.ApiKeyJson:
    key = await api_keys.get_key(conn, caller, key_id)
    return wire.api_key(await api_keys.rename_key(conn, key, body.name))


@router.delete("/{key_id}", openapi_extra=needs("account"))
async def revoke_key(key_id: KeyId, caller: Caller, conn: Connection) -> dict[str, bool]:
    """Requests with it are refused from now on, and its event streams end within seconds."""
    await api_keys.revoke_key(conn, caller, await api_keys.get_key(conn, caller, key_id))
    return {"success": True}
