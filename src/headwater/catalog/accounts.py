"""Accounts: who can log in."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from headwater.errors import BadRequest, Conflict, NotFound, Unauthorized

Kind = Literal["user", "bot"]
_LONGEST_EMAIL = 254  # RFC 5321, 4.5.3.1.3, as erratum 1690 has it
_LOOK_LIKE_LETTERS = "\u212a\u0130"  # where case does not count, they are k and i: somebody else's address
_LONGEST_PASSWORD = 1024
_SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True)
class Account:
    id: int
    email: str
    kind: Kind = "user"
    name: str | None = None  # of a bot


COLUMNS: LiteralString = "account.id, account.email, account.kind, account.name"


def checked_email(email: str) -> str:
    """Raises BadRequest."""
    email = email.strip()
    is_odd = any(character.isspace() or character in _LOOK_LIKE_LETTERS for character in email)
    if "@" not in email or len(email) > _LONGEST_EMAIL or is_odd:
        raise BadRequest(f"{email[:80]!r} is not an e-mail address.")
    return email


async def create_account(conn: AsyncConnection[Any], *, email: str, password: str | None) -> Account:
    """Without a password it signs in some other way.

    Raises Conflict when the e-mail address has an account, BadRequest for what cannot be one.
    """
    email = checked_email(email)
    password_hash = None if password is None else await asyncio.to_thread(hash_password, password)
    cursor = conn.cursor(row_factory=class_row(Account))
    try:
        async with conn.transaction():
            await cursor.execute(
                "INSERT INTO account (email, password_hash) VALUES (%s, %s) RETURNING " + COLUMNS,
                [email, password_hash],
            )
    except UniqueViolation:
        raise Conflict(f"There is an account {email} already.") from None
    account = await cursor.fetchone()
    assert account is not None
    return account


async def find_account(conn: AsyncConnection[Any], email: str) -> Account | None:
    cursor = conn.cursor(row_factory=class_row(Account))
    await cursor.execute(
        "SELECT " + COLUMNS + " FROM account WHERE lower(email) = lower(%s) AND deleted_at IS NULL", [email.strip()]
    )
    return await cursor.fetchone()


async def get_account(conn: AsyncConnection[Any], account_id: int) -> Account:
    """Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Account))
    await cursor.execute("SELECT " + COLUMNS + " FROM account WHERE id = %s AND deleted_at IS NULL", [account_id])
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
        WHERE lower(email) = lower(%s) AND password_hash IS NOT NULL AND deleted_at IS NULL
        """,
        [email.strip()],
    )
    row = await cursor.fetchone()
    return None if row is None else (Account(id=row[0], email=row[1]), row[2])


@dataclass(frozen=True, slots=True)
class Checked:
    account: Account
    old_hash: str
    new_hash: str | None  # when the old one is of weaker parameters than today's: see `renew_hash`


def check_password(found: tuple[Account, str] | None, password: str) -> Checked:
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
    except (VerificationError, InvalidHashError):
        raise wrong from None
    is_weak = hasher.check_needs_rehash(password_hash)
    return Checked(account, password_hash, hasher.hash(password) if is_weak else None)


def hash_password(password: str) -> str:
    """Slow on purpose: call it in a thread. Raises BadRequest."""
    if not _SHORTEST_PASSWORD <= len(password) <= _LONGEST_PASSWORD:
        raise BadRequest(f"A password has {_SHORTEST_PASSWORD} to {_LONGEST_PASSWORD} characters.")
    return PasswordHasher().hash(password)


async def renew_hash(conn: AsyncConnection[Any], checked: Checked) -> None:
    """Keep the hash of today's parameters, unless the password was changed meanwhile."""
    if checked.new_hash is not None:
        await conn.execute(
            "UPDATE account SET password_hash = %s WHERE id = %s AND password_hash = %s",
            [checked.new_hash, checked.account.id, checked.old_hash],
        )


async def set_password_hash(conn: AsyncConnection[Any], account: Account, password_hash: str) -> None:
    """Tokens given out before, except API keys, are worth nothing from now on."""
    await conn.execute(
        "UPDATE account SET password_hash = %s, tokens_valid_after = to_timestamp(%s) WHERE id = %s",
        [password_hash, time.time(), account.id],
    )


async def get_bearer(conn: AsyncConnection[Any], account_id: int, *, issued_at: float) -> Account:
    """The account of a token made at that time, in seconds since 1970 of our own clock. Raises Unauthorized."""
    cursor = await conn.execute(
        "SELECT coalesce(tokens_valid_after > to_timestamp(%s), false), "
        + COLUMNS
        + " FROM account WHERE id = %s AND deleted_at IS NULL",
        [issued_at, account_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise no_longer_there()
    is_called_in, *account = row
    if is_called_in:
        raise called_in()
    return Account(*account)


def no_longer_there() -> Unauthorized:
    return Unauthorized("The account of this token is no longer there.")


def called_in() -> Unauthorized:
    return Unauthorized("The password was changed after this token was made. Log in again.")
