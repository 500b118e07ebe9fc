"""A new password for an account."""

from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import accounts, audit
from headwater.catalog.accounts import Account


async def replace(conn: AsyncConnection[Any], actor: Account, account: Account, password_hash: str) -> None:
    """Ends the tokens of before; the owners of every organisation of the account can read who did it."""
    await accounts.set_password_hash(conn, account, password_hash)
    cursor = await conn.execute("SELECT organization_id FROM member WHERE account_id = %s", [account.id])
    for (organization_id,) in await cursor.fetchall():
        await audit.record(conn, actor, "account.password_changed", account.email, organization_id=organization_id)
