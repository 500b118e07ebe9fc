"""Integrations: an organisation's credentials for one outside service. The secret itself lives in the vault."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog.accounts import Account
from headwater.catalog.integration_kinds import checked_options, kind_of
from headwater.catalog.projects import checked_name
from headwater.errors import Conflict, NotFound
from headwater.vault.local import LocalVault


@dataclass(frozen=True, slots=True)
class Integration:
    id: int
    organization_id: int
    name: str
    kind: str
    metadata: dict[str, Any]
    creator: str
    created_at: datetime
    updated_at: datetime


_SELECT = """
SELECT
    integration.id, integration.organization_id, integration.name, integration.kind, integration.metadata,
    account.email AS creator, integration.created_at, integration.updated_at
FROM integration
JOIN account ON account.id = integration.creator_id
WHERE integration.organization_id = %(organization_id)s
"""


async def create_integration(
    conn: AsyncConnection[Any],
    vault: LocalVault,
    caller: Account,
    organization_id: int,
    *,
    name: str,
    kind: str,
    options: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> Integration:
    """Raises Conflict, BadRequest."""
    name = checked_name(name, "integration")
    secret = checked_options(kind_of(kind), options, is_new=True)
    try:
        async with conn.transaction():
            cursor = await conn.execute(
                """
                INSERT INTO integration (organization_id, name, kind, metadata, creator_id)
                VALUES (%s, %s, %s, %s, %s)
                RETURNING id
                """,
                [organization_id, name, kind, Jsonb(dict(metadata)), caller.id],
            )
    except UniqueViolation:
        raise Conflict(f"There is an integration named {name!r} already.") from None
    row = await cursor.fetchone()
    assert row is not None
    if secret:
        await _store_secret(conn, vault, row[0], secret)
    return await get_integration(conn, organization_id, row[0])


async def _store_secret(
    conn: AsyncConnection[Any], vault: LocalVault, integration_id: int, secret: Mapping[str, str]
) -> None:
    sealed = vault.seal(secret, owner=f"integration:{integration_id}")
    await conn.execute(
        """
        WITH stored AS (INSERT INTO secret (sealed) VALUES (%(sealed)s) RETURNING id)
        UPDATE integration
        SET secret_id = stored.id, updated_at = now()
        FROM stored
        WHERE integration.id = %(id)s
        """,
        {"sealed": sealed, "id": integration_id},
    )


async def open_secret(conn: AsyncConnection[Any], vault: LocalVault, integration_id: int) -> dict[str, str]:
    """The secret values, for the store adapters alone; empty where the kind has none. Raises NotFound, VaultError."""
    cursor = await conn.execute(
        """
        SELECT secret.sealed
        FROM integration
        LEFT JOIN secret ON secret.id = integration.secret_id
        WHERE integration.id = %s
        """,
        [integration_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("The integration of this driver is no longer there.")
    return {} if row[0] is None else vault.open(row[0], owner=f"integration:{integration_id}")


async def changed_at(conn: AsyncConnection[Any], integration_id: int) -> datetime | None:
    """When the integration, its secret included, last changed; None for one that is no longer there."""
    cursor = await conn.execute("SELECT updated_at FROM integration WHERE id = %s", [integration_id])
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def list_integrations(conn: AsyncConnection[Any], organization_id: int) -> list[Integration]:
    cursor = conn.cursor(row_factory=class_row(Integration))
    await cursor.execute(_SELECT + "ORDER BY integration.id", {"organization_id": organization_id})
    return await cursor.fetchall()


async def get_integration(conn: AsyncConnection[Any], organization_id: int, integration_id: int) -> Integration:
    """Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Integration))
    await cursor.execute(
        _SELECT + "AND integration.id = %(id)s", {"organization_id": organization_id, "id": integration_id}
    )
    integration = await cursor.fetchone()
    if integration is None:
        raise NotFound(f"No integration with id {integration_id:024x} in this organisation.")
    return integration


async def delete_integration(conn: AsyncConnection[Any], integration: Integration) -> None:
    """Raises Conflict while a driver uses it."""
    try:
        async with conn.transaction():
            await conn.execute(
                """
                WITH gone AS (DELETE FROM integration WHERE id = %s RETURNING secret_id)
                DELETE FROM secret USING gone WHERE secret.id = gone.secret_id
                """,
                [integration.id],
            )
    except ForeignKeyViolation:
        raise Conflict(
            f"Integration {integration.name!r} is used by a storage driver. Delete its drivers first."
        ) from None
