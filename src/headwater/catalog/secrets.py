"""Secrets: rows that hold sealed text, or say where an outside vault keeps it. What is in them only the vault opens.

A secret for an outside vault has its row before it is written there, and loses its row before it is destroyed there:
so nothing is ever in the vault that no row and no job knows of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation

from headwater.errors import Conflict, Unavailable
from headwater.vault.local import LocalVault, sealed_under
from headwater.vault.vaults import Kept, Place, Vault, VaultError

_BATCH = 200
_TOOK_TOO_LONG = "The vault took so long that its answer came too late. Nothing was changed; try again."


@dataclass(frozen=True, slots=True)
class Reserved:
    """A secret on its way: its row, where it goes to an outside vault."""

    place: Place | None = None
    secret_id: int | None = None


async def reserve(conn: AsyncConnection[Any], vault: Vault) -> Reserved:
    """To be committed before the vault is asked to keep a secret."""
    place = vault.new_place()
    if place is None:
        return Reserved()
    cursor = await conn.execute(
        "INSERT INTO secret (mount, path) VALUES (%s, %s) RETURNING id", [place.mount, place.path]
    )
    return Reserved(place, (await _row(cursor))[0])


async def insert(conn: AsyncConnection[Any], vault: LocalVault, reserved: Reserved, kept: Kept) -> int:
    """The id of a secret that the vault keeps, ready to be referred to. Raises Unavailable, VaultError."""
    if kept.sealed is None:
        cursor = await conn.execute("SELECT id FROM secret WHERE id = %s FOR KEY SHARE", [reserved.secret_id])
        if await cursor.fetchone() is None:
            raise Unavailable(_TOOK_TOO_LONG)
        assert reserved.secret_id is not None
        return reserved.secret_id
    cursor = await conn.execute("INSERT INTO secret (sealed) VALUES (%s) RETURNING id", [kept.sealed])
    secret_id = (await _row(cursor))[0]
    # A rotation locks the table before it lets a key go, so from here to the commit none goes.
    if not vault.has_key(sealed_under(kept.sealed)):
        raise Unavailable("The master key was rotated in this moment. Nothing was changed; try again.")
    return secret_id


async def get_kept(conn: AsyncConnection[Any], secret_id: int, owner: str) -> Kept:
    """Raises VaultError."""
    kept = await find_kept(conn, secret_id, owner)
    if kept is None:
        raise VaultError("The secret is no longer there. Give the integration its options anew, then try again.")
    return kept


async def find_kept(conn: AsyncConnection[Any], secret_id: int, owner: str) -> Kept | None:
    cursor = await conn.execute("SELECT sealed, mount, path FROM secret WHERE id = %s", [secret_id])
    row = await cursor.fetchone()
    return None if row is None else _kept(owner, *row)


def _kept(owner: str, sealed: bytes | None, mount: str | None, path: str | None) -> Kept:
    place = None if mount is None or path is None else Place(mount, path)
    return Kept(owner, sealed=None if sealed is None else bytes(sealed), place=place)


async def delete(conn: AsyncConnection[Any], secret_id: int) -> Place | None:
    """Returns where it has to be destroyed, too, once this has committed. Nothing if it went before."""
    cursor = await conn.execute("DELETE FROM secret WHERE id = %s RETURNING mount, path", [secret_id])
    row = await cursor.fetchone()
    return None if row is None or row[1] is None else Place(*row)


async def delete_unused(conn: AsyncConnection[Any], secret_id: int) -> Place | None:
    """As `delete`, unless an integration or a webhook refers to it."""
    try:
        async with conn.transaction():
            return await delete(conn, secret_id)
    except ForeignKeyViolation:
        return None


@dataclass(frozen=True, slots=True)
class Stock:
    """How many secrets are where."""

    sealed_under: Mapping[str, int]  # by the id of the master key; '' where an early version does not say it
    outside: int
    unused: int  # on their way into an outside vault, or left there by something that broke off


async def take_stock(conn: AsyncConnection[Any]) -> Stock:
    cursor = await conn.execute(
        """
        SELECT substring(sealed FROM 1 FOR 64), path IS NOT NULL,
            EXISTS (SELECT FROM secret_owner WHERE secret_owner.secret_id = secret.id)
        FROM secret
        """
    )
    under: dict[str, int] = {}
    outside = unused = 0
    async for head, is_outside, is_used in cursor:
        outside += is_outside and is_used
        unused += not is_used
        if head is not None:
            name = sealed_under(bytes(head))
            under[name] = under.get(name, 0) + 1
    return Stock(under, outside, unused)


async def rewrap_some(conn: AsyncConnection[Any], vault: LocalVault, *, after_id: int) -> tuple[int | None, int]:
    """Seal the next batch under the current master key. Returns the last id of it, or None at the end, and how many.

    Raises VaultError for a secret that no known key opens.
    """
    current = vault.current_key_id()
    cursor = await conn.execute(
        """
        SELECT secret.id, secret.sealed, secret_owner.owner
        FROM secret
        JOIN secret_owner ON secret_owner.secret_id = secret.id
        WHERE secret.id > %s AND secret.sealed IS NOT NULL
        ORDER BY secret.id
        LIMIT %s
        FOR UPDATE OF secret
        """,
        [after_id, _BATCH],
    )
    rows = await cursor.fetchall()
    stale = [(secret_id, bytes(sealed), owner) for secret_id, sealed, owner in rows if sealed_under(sealed) != current]
    await conn.execute(
        """
        UPDATE secret
        SET sealed = given.sealed
        FROM unnest(%s::bigint[], %s::bytea[]) AS given (id, sealed)
        WHERE secret.id = given.id
        """,
        [[row[0] for row in stale], [vault.rewrap(sealed, owner=owner) for _, sealed, owner in stale]],
    )
    return (rows[-1][0] if rows else None), len(stale)


async def guard_rotation(conn: AsyncConnection[Any]) -> None:
    """Until the end of the transaction there is no other rotation. Raises Conflict."""
    cursor = await conn.execute("SELECT pg_try_advisory_xact_lock(hashtext('headwater vault rotation'))")
    if not (await _row(cursor))[0]:
        raise Conflict("Another rotation of the master key is running. Wait until it has ended.")


async def list_to_move(conn: AsyncConnection[Any], *, to_outside: bool) -> list[tuple[str, int]]:
    """Owner and secret of each that is not there yet."""
    cursor = await conn.execute(
        """
        SELECT secret_owner.owner, secret.id
        FROM secret
        JOIN secret_owner ON secret_owner.secret_id = secret.id
        WHERE (secret.path IS NULL) = %s
        ORDER BY secret.id
        """,
        [to_outside],
    )
    return await cursor.fetchall()


async def lock(conn: AsyncConnection[Any]) -> None:
    """Until the end of the transaction nobody adds or changes a secret; those who did before have committed."""
    await conn.execute("LOCK TABLE secret IN SHARE ROW EXCLUSIVE MODE")


async def _row(cursor: Any) -> tuple[Any, ...]:
    row = await cursor.fetchone()
    assert row is not None
    return row
