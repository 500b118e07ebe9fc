"""Limits of log-ins by password, kept in the database so that every API process holds them.

Each failure costs seconds, which a key pays off as time goes by. A key that owes too much is refused. There are three
keys: the account from one address, the address, and the account from anywhere. The last one is for guesses that come
from many addresses; it never refuses an address that the account has signed in from, so no stranger can lock a user
out. A log-in that succeeds costs nothing.
"""

import hashlib
import math
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv6Network, ip_address
from typing import Any

from psycopg import AsyncConnection

from headwater.errors import TooManyRequests

_PLACE_LIFE = timedelta(days=90)
_REMOVED_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class _Limit:
    cost_s: float  # of one failure
    most_owed_s: float


_ACCOUNT_FROM_ADDRESS = _Limit(cost_s=30, most_owed_s=300)  # 10 at once, then one in 30 s
_ADDRESS = _Limit(cost_s=3, most_owed_s=300)  # 100 at once: an office, or many machines, behind one address
_ACCOUNT = _Limit(cost_s=12, most_owed_s=3600)  # 300 at once


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who tries to log in from where. The account need not exist."""

    email: str
    address: str

    def limits(self) -> dict[bytes, _Limit]:
        return {
            self.place: _ACCOUNT_FROM_ADDRESS,
            _key("address", _network(self.address)): _ADDRESS,
            self.account: _ACCOUNT,
        }

    @property
    def place(self) -> bytes:
        return _key("place", _folded(self.email), _network(self.address))

    @property
    def account(self) -> bytes:
        return _key("account", _folded(self.email))


def _folded(email: str) -> str:
    return email.strip().lower()


def _key(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _network(address: str) -> str:
    """Of IPv6 the /64, which one machine has to itself; what is no IP address is itself."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if found.version == 4:
        return str(found)
    return str(found.ipv4_mapped or IPv6Network((found, 64), strict=False))


async def require_may_try(conn: AsyncConnection[Any], attempt: Attempt) -> None:
    """Raises TooManyRequests."""
    limits = attempt.limits()
    cursor = await conn.execute(
        """
        SELECT key, extract(epoch FROM paid_at - now())::float
        FROM login_debt
        WHERE key = ANY(%(keys)s)
            AND (key <> %(account)s OR NOT EXISTS (SELECT FROM login_place WHERE key = %(place)s))
        """,
        {"keys": list(limits), "account": attempt.account, "place": attempt.place},
    )
    waits_s = [
        owed_s + limits[bytes(key)].cost_s - limits[bytes(key)].most_owed_s for key, owed_s in await cursor.fetchall()
    ]
    wait_s = math.ceil(max(waits_s, default=0))
    if wait_s > 0:
        raise TooManyRequests(f"Too many failed log-ins. Try again in {wait_s} seconds.", retry_after_s=wait_s)


async def charge(conn: AsyncConnection[Any], attempt: Attempt) -> None:
    """Call it for a log-in that failed."""
    limits = attempt.limits()
    await conn.execute(
        """
        INSERT INTO login_debt AS debt (key, paid_at)
        SELECT key, now() + cost
        FROM unnest(%s::bytea[], %s::interval[]) AS charged (key, cost)
        ORDER BY key -- failures side by side lock in one order
        ON CONFLICT (key) DO UPDATE SET paid_at = greatest(debt.paid_at, now()) + (EXCLUDED.paid_at - now())
        """,
        [list(limits), [timedelta(seconds=limit.cost_s) for limit in limits.values()]],
    )
    await conn.execute(
        """
        DELETE FROM login_debt
        WHERE key IN (
            SELECT key FROM login_debt WHERE paid_at < now() ORDER BY paid_at LIMIT %s FOR UPDATE SKIP LOCKED
        )
        """,
        [_REMOVED_AT_ONCE],
    )


async def forgive(conn: AsyncConnection[Any], attempt: Attempt) -> None:
    """Call it for a log-in that succeeded. The address goes on owing: its next guess may be at another account."""
    await conn.execute("DELETE FROM login_debt WHERE key = %s", [attempt.place])
    await conn.execute(
        """
        INSERT INTO login_place (key, seen_at) VALUES (%s, now())
        ON CONFLICT (key) DO UPDATE SET seen_at = now() WHERE login_place.seen_at < now() - interval '1 day'
        """,
        [attempt.place],
    )
    await conn.execute(
        """
        DELETE FROM login_place
        WHERE key IN (SELECT key FROM login_place WHERE seen_at < now() - %s LIMIT %s FOR UPDATE SKIP LOCKED)
        """,
        [_PLACE_LIFE, _REMOVED_AT_ONCE],
    )
