"""Signing in: by password, with limits, and as whom an OpenID provider says. No connection is held while hashing."""

import asyncio
import os
from dataclasses import dataclass, field

from headwater.catalog import accounts, identities, logins, passwords
from headwater.catalog.accounts import Account
from headwater.catalog.logins import Attempt
from headwater.db.pool import Pool
from headwater.errors import Forbidden, Unauthorized
from headwater.settings import Settings


def _a_few() -> asyncio.Semaphore:
    """A hash takes 64 MiB and a processor, and guesses that are checked at once are not limited by one another."""
    return asyncio.Semaphore(os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Passwords:
    pool: Pool
    _checks: asyncio.Semaphore = field(default_factory=_a_few)

    async def account_of(self, attempt: Attempt, password: str) -> Account:
        """Raises Unauthorized, in the same words for an unknown account and a wrong password, or TooManyRequests."""
        async with self._checks:
            async with self.pool.connection() as conn:
                await logins.require_may_try(conn, attempt)
                found = await accounts.password_hash_of(conn, attempt.email)
            try:
                checked = await asyncio.to_thread(accounts.check_password, found, password)
            except Unauthorized:
                async with self.pool.connection() as conn:
                    await logins.charge(conn, attempt)
                raise
            async with self.pool.connection() as conn:
                await logins.forgive(conn, attempt)
                await accounts.renew_hash(conn, checked)
        return checked.account

    async def change(self, attempt: Attempt, old: str, new: str) -> Account:
        """Raises Forbidden for a wrong old password, BadRequest for a new one that cannot be, TooManyRequests."""
        try:
            account = await self.account_of(attempt, old)
        except Unauthorized:
            raise Forbidden("The old password is wrong, or this account signs in without one.") from None
        password_hash = await asyncio.to_thread(accounts.hash_password, new)
        async with self.pool.connection() as conn:
            await passwords.replace(conn, account, account, password_hash)
        return account


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as an OpenID provider knows them."""

    issuer: str
    subject: str
    email: str  # verified by the provider


async def account_of_person(pool: Pool, settings: Settings, person: Person) -> Account:
    """The first time the e-mail address says whose account it is, from then on the subject.

    Raises Forbidden, BadRequest for what is no address.
    """
    accounts.checked_email(person.email)
    domains = {domain.lower().removeprefix("@") for domain in settings.oidc_email_domains}
    if domains and person.email.rpartition("@")[2].lower() not in domains:
        raise Forbidden(f"{person.email} may not sign in here: its domain is not among those that the operator allows.")
    async with pool.connection() as conn:
        account = await identities.find_account(conn, person.issuer, person.subject)
        if account is not None:
            return account
        account = await accounts.find_account(conn, person.email)
        if account is not None and account.kind == "bot":
            raise Forbidden(f"{person.email} is a bot, which has keys instead.")
        if account is None:
            if not settings.oidc_create_accounts:
                raise Forbidden(f"There is no account {person.email}. Ask an owner of your organisation to add it.")
            account = await identities.create_member(conn, person.email)
        await identities.link(conn, account, person.issuer, person.subject)
        return account
