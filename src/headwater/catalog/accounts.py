"""Accounts: who can log in."""

import asyncio
from dataclasses import dataclass
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from headwater.errors import BadRequest, Conflict, NotFound, Unauthorized

_LONGEST_PASSWORD = 1024
_SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True)
class Account:
    id: int
    email: str


async def create_account(conn: AsyncConnection[Any], *, email: str, password: str) -> Account:
    """Raises Conflict when the e-mail address has an account, BadRequest for what cannot be one."""
    email = email.strip()
    if "@" not in email or any(character.isspace() for character in email):
        raise BadRequest(f"{email!r} is not an e-mail address.")
    if not _SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise BadRequest(f"A password has {_SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters.")
    cursor = conn.cursor(row_factory=class_row(Account))
    try:
        async with conn.transaction():
            await cursor.execute(
                "INSERT INTO account (email, password_hash) VALUES (%s, %s) RETURNING id, email",
                [email, await asyncio.to_thread(PasswordHasher().hash, password)],
            )
    except UniqueViolation:
        raise Conflict(f"There is an account {email} already.") from None
    account = await cursor.fetchone()
    assert account is not None
    return account


async def find_account(conn: AsyncConnection[Any], email: str) -> Account | None:
    cursor = conn.cursor(row_factory=class_row(Account))
    await cursor.execute("SELECT id, email FROM account WHERE lower(email) = lower(%s)", [email.strip()])
    return await cursor.fetchone()


async def get_account(conn: AsyncConnection[Any], account_id: int) -> Account:
    """Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Account))
    await cursor.execute("SELECT id, email FROM account WHERE id = %s", [account_id])
    account = await cursor.fetchone()
    if account is None:
        raise NotFound("This account is no longer there.")
    return account


async def password_hash_of(conn: AsyncConnection[Any], email: str) -> tuple[Account, str] | None:
    """The account and its password's hash, for `check_password`."""
    cursor = await conn.execute(
        """
        SELECT id, email, password_hash
        FROM account
        WHERE lower(email) = lower(%s) AND password_hash IS NOT NULL
        """,
        [email.strip()],
    )
    row = await cursor.fetchone()
    return None if row is None else (Account(id=row[0], email=row[1]), row[2])


def check_password(found: tuple[Account, str] | None, password: str) -> Account:
    """Takes about as long for an unknown account as for a wrong password. Slow on purpose: call it in a thread.

    Raises Unauthorized, with the same words for both.
    """
    wrong = Unauthorized("The e-mail address or the password is wrong.")
    hasher = PasswordHasher()
    if found is None or len(password) > _LONGEST_PASSWORD:
        hasher.hash("the time a check takes")
        raise wrong
    account, password_hash = found
    try:
        hasher.verify(password_hash, password)
    except (VerifyMismatchError, InvalidHashError):
        raise wrong from None
    return account
