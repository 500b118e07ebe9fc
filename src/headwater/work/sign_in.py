"""Signing in by password: the limits, the check, a new password. No connection is held while a hash is made."""

import asyncio
import os
from dataclasses import dataclass, field

from headwater.catalog import accounts, audit, logins, organizations
from headwater.catalog.accounts import Account
from headwater.catalog.logins import Attempt
from headwater.db.pool import Pool
from headwater.errors import Forbidden, Unauthorized


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
            await accounts.set_password_hash(conn, account, password_hash)
            for organization in await organizations.list_organizations(conn, account):
                await audit.record(
                    conn, account, "account.password_changed", account.email, organization_id=organization.id
                )
        return account
