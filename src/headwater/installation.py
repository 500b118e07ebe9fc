"""The installation: its database, up to date and with an owner, and tokens for its accounts."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import AsyncConnection

from headwater.catalog import accounts, organizations, passwords
from headwater.catalog.accounts import Account
from headwater.db.embedded import running_database
from headwater.db.migrate import migrate
from headwater.errors import NotFound
from headwater.keyfiles import read_or_make
from headwater.settings import Settings
from headwater.tokens import Signer


@dataclass(frozen=True, slots=True)
class Installation:
    database_url: str
    password_file: Path | None  # of the owner, when this start made the password
    keep_running: Callable[[], None] = lambda: None  # starts a database of ours again that died


@contextmanager
def open_installation(settings: Settings) -> Generator[Installation]:
    """The database is running and migrated, and has its first organisation, until the end of the block."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        yield Installation(url, asyncio.run(_bring_up_to_date(settings, url)))
        return
    with running_database(settings.data_dir) as database:
        password_file = asyncio.run(_bring_up_to_date(settings, database.url))
        yield Installation(database.url, password_file, database.keep_running)


async def _bring_up_to_date(settings: Settings, url: str) -> Path | None:
    """Returns the file of the owner's password, if one was made."""
    async with await AsyncConnection.connect(url) as conn:
        await migrate(conn)
        if await organizations.is_installed(conn):
            return None
        password_file = None
        if settings.admin_password is not None:
            password = settings.admin_password.get_secret_value()
        else:
            password_file = settings.data_dir / "admin-password"
            password = read_or_make(password_file)
        await organizations.install(
            conn,
            name=settings.organization,
            email=settings.admin_email,
            password=password,
            data_point_limit=settings.data_points,
        )
        return password_file


def token_for(settings: Settings, email: str | None) -> str:
    """A token of the account, or of the owner. Raises NotFound."""
    from headwater.workplace import load_signing_key  # noqa: PLC0415 - brings the stores, which a start need not wait for

    with open_installation(settings) as installation:
        account = asyncio.run(_account(installation.database_url, email))
    return Signer(load_signing_key(settings)).sign(account_id=account.id, email=account.email)


async def _account(url: str, email: str | None) -> Account:
    async with await AsyncConnection.connect(url) as conn:
        if email is None:
            return await organizations.get_owner(conn)
        account = await accounts.find_account(conn, email)
        if account is None:
            raise NotFound(f"There is no account {email}. Add it: headwater user add {email}")
        return account


def set_password(settings: Settings, email: str, password: str) -> None:
    """Raises NotFound, or BadRequest for a password that cannot be one."""
    password_hash = accounts.hash_password(password)
    with open_installation(settings) as installation:
        asyncio.run(_set_password(installation.database_url, email, password_hash))


async def _set_password(url: str, email: str, password_hash: str) -> None:
    account = await _account(url, email)
    async with await AsyncConnection.connect(url) as conn:
        await passwords.replace(conn, await organizations.get_owner(conn), account, password_hash)
