"""Who an account is at an OpenID provider: the pair of issuer and subject, which no change of address touches."""

from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import accounts, audit, organizations
from headwater.catalog.accounts import Account
from headwater.errors import NotFound


async def find_account(conn: AsyncConnection[Any], issuer: str, subject: str) -> Account | None:
    cursor = await conn.execute(
        "SELECT account_id FROM account_identity WHERE issuer = %s AND subject = %s", [issuer, subject]
    )
    row = await cursor.fetchone()
    try:
        return None if row is None else await accounts.get_account(conn, row[0])
    except NotFound:
        return None


async def link(conn: AsyncConnection[Any], account: Account, issuer: str, subject: str) -> None:
    await conn.execute(
        """
        INSERT INTO account_identity (issuer, subject, account_id) VALUES (%s, %s, %s)
        ON CONFLICT (issuer, subject) DO UPDATE SET account_id = EXCLUDED.account_id
        """,
        [issuer, subject, account.id],
    )


async def create_member(conn: AsyncConnection[Any], email: str) -> Account:
    """An account without a password, in the installation's first organisation: a worker, who sees nothing there yet.

    A member could make a project and read the organisation's buckets in it.
    """
    account = await accounts.create_account(conn, email=email, password=None)
    cursor = await conn.execute("SELECT min(id) FROM organization")
    row = await cursor.fetchone()
    assert row is not None
    await organizations.add_member(conn, row[0], account, "worker")
    await audit.record(conn, account, "member.added", email, organization_id=row[0], role="worker", by="OpenID Connect")
    return account
