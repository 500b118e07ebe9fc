"""Integrations: an organisation's credentials for one outside service. The secret itself lives in the vault."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog import audit, secrets
from headwater.catalog.accounts import Account
from headwater.catalog.integration_kinds import checked_options, kind_of
from headwater.catalog.projects import checked_name
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.vault.local import LocalVault
from headwater.vault.vaults import Kept, Place

_MOST_METADATA = 16 * 1024  # characters as JSON
_SHORTEST_SECRET = 8  # characters; of shorter values nobody can say that they are one
# Options that are shown elsewhere, too: a name of an account, a user, a role.
_OPEN_OPTIONS = frozenset({"key", "name", "clientId", "tenantId", "roleArn", "roleArns", "email", "resourceName"})
_SECRET_WORDS = re.compile(
    r"secret|password|passphrase|token|credential|privatekey|accesskey|apikey|accountkey|sas(url|key)?$"
)


@dataclass(frozen=True, slots=True)
class Integration:
    id: int
    organization_id: int
    name: str
    kind: str
    metadata: dict[str, Any]
    trust: dict[str, Any] | None  # of kinds whose account trusts this server: whom, and whether it was seen to
    has_secret: bool
    creator: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewIntegration:
    """Checked; its secret is still in clear."""

    name: str
    kind: str
    metadata: dict[str, Any]
    secret: dict[str, str]

    def __repr__(self) -> str:
        return f"NewIntegration({self.name!r}, {self.kind!r})"


@dataclass(frozen=True, slots=True)
class Change:
    """Checked; None leaves things as they are. Metadata and secret are replaced whole."""

    name: str | None = None
    metadata: dict[str, Any] | None = None
    secret: dict[str, str] | None = None

    def __repr__(self) -> str:
        return f"Change({self.words()})"

    def words(self) -> list[str]:
        return [word for word, value in self._values() if value is not None]

    def _values(self) -> list[tuple[str, object]]:
        return [("name", self.name), ("metadata", self.metadata), ("options", self.secret)]


def owner_of(integration_id: int) -> str:
    """As the vault knows it."""
    return f"integration:{integration_id}"


def check_new(*, name: str, kind: str, options: Mapping[str, Any], metadata: Mapping[str, Any]) -> NewIntegration:
    """Raises BadRequest."""
    secret = checked_options(kind_of(kind), options, is_new=True)
    return NewIntegration(checked_name(name, "integration"), kind, checked_metadata(metadata, secret), secret)


def check_change(
    found: Integration,
    *,
    name: str | None,
    kind: str | None,
    options: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> Change:
    """Only what differs from what is there; a secret always counts as different. Raises BadRequest."""
    if kind not in (None, found.kind):
        raise BadRequest(
            f"Integration {found.name!r} is of type {found.kind}, which never changes. Create another one."
        )
    new_name = None if name is None else checked_name(name, "integration")
    secret = None if options is None else checked_options(kind_of(found.kind), options, is_new=False)
    new_metadata = None if metadata is None else checked_metadata(metadata, secret or {})
    return Change(
        name=None if new_name == found.name else new_name,
        metadata=None if new_metadata == found.metadata else new_metadata,
        secret=secret or None,
    )


def checked_metadata(metadata: Mapping[str, Any], secret: Mapping[str, str]) -> dict[str, Any]:
    """Metadata is shown, so no secret may be in it. Raises BadRequest, never with a value in its words."""
    checked = dict(metadata)
    if len(json.dumps(checked)) > _MOST_METADATA:
        raise BadRequest(f"The metadata of an integration is longer than {_MOST_METADATA} characters.")
    hidden = {value for name, value in secret.items() if name not in _OPEN_OPTIONS and len(value) >= _SHORTEST_SECRET}
    for name, value in _leaves(checked):
        plain = re.sub(r"[^a-z]", "", name.lower())
        text = value if isinstance(value, str) else ""
        if _SECRET_WORDS.search(plain) or any(one in text for one in hidden) or _has_password(text):
            raise BadRequest(
                "The metadata of an integration is shown to people, and something in it looks like a secret (a key, a "
                "password, or a URL with one). Give secrets as options."
            )
    return checked


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that holds no others, under the name closest to it. Its depth was checked on the way in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, name)
    else:
        yield name, value


def _has_password(text: str) -> bool:
    """A URL like https://user:password@host."""
    if "://" not in text:
        return False
    try:
        return urlsplit(text).password is not None
    except ValueError:
        return True  # nothing that anybody could use


_SELECT = """
SELECT
    integration.id, integration.organization_id, integration.name, integration.kind, integration.metadata,
    integration.trust, integration.secret_id IS NOT NULL AS has_secret, account.email AS creator,
    integration.created_at, integration.updated_at
FROM integration
JOIN account ON account.id = integration.creator_id
WHERE integration.organization_id = %(organization_id)s
"""


async def new_id(conn: AsyncConnection[Any]) -> int:
    """Of an integration that is about to be: its secret is bound to it before it has a row."""
    cursor = await conn.execute("SELECT nextval(pg_get_serial_sequence('integration', 'id'))")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def insert_integration(
    conn: AsyncConnection[Any],
    caller: Account,
    organization_id: int,
    integration_id: int,
    new: NewIntegration,
    secret_id: int | None,
    trust: Mapping[str, Any] | None = None,
) -> Integration:
    """Raises Conflict."""
    await _claim(conn, organization_id, trust)
    try:
        async with conn.transaction():
            await conn.execute(
                """
                INSERT INTO integration (id, organization_id, name, kind, metadata, trust, secret_id, creator_id)
                OVERRIDING SYSTEM VALUE
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
                """,
                [
                    integration_id,
                    organization_id,
                    new.name,
                    new.kind,
                    Jsonb(new.metadata),
                    None if trust is None else Jsonb(dict(trust)),
                    secret_id,
                    caller.id,
                ],
            )
    except UniqueViolation:
        raise taken(new.name) from None
    await audit.record(
        conn,
        caller,
        "integration.created",
        new.name,
        organization_id=organization_id,
        kind=new.kind,
        options=sorted(new.secret),
    )
    return await get_integration(conn, organization_id, integration_id)


def taken(name: str) -> Conflict:
    return Conflict(f"There is another integration named {name!r} already. Choose another name, or change that one.")


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
    """All in the caller's transaction, which only the local vault allows. Raises Conflict, BadRequest."""
    new = check_new(name=name, kind=kind, options=options, metadata=metadata)
    integration_id = await new_id(conn)
    secret_id = None
    if new.secret:
        kept = await vault.keep(new.secret, owner=owner_of(integration_id))
        secret_id = await secrets.insert(conn, vault, secrets.Reserved(), kept)
    return await insert_integration(conn, caller, organization_id, integration_id, new, secret_id)


async def change_integration(
    conn: AsyncConnection[Any],
    caller: Account,
    found: Integration,
    change: Change,
    secret_id: int | None,
    trust: Mapping[str, Any] | None = None,
) -> Place | None:
    """Returns where the secret before this one has to be destroyed. Raises Conflict, NotFound.

    `updated_at` only ever grows, so that who reads the secret sees every change of it.
    """
    cursor = await conn.execute("SELECT name, secret_id FROM integration WHERE id = %s FOR UPDATE", [found.id])
    before = await cursor.fetchone()
    if before is None:
        raise _missing(found.id)
    await _claim(conn, found.organization_id, trust)
    try:
        async with conn.transaction():
            await conn.execute(
                """
                UPDATE integration
                SET name = coalesce(%(name)s, name),
                    metadata = coalesce(%(metadata)s, metadata),
                    secret_id = coalesce(%(secret_id)s, secret_id),
                    trust = coalesce(%(trust)s, trust),
                    updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
                WHERE id = %(id)s
                """,
                {
                    "id": found.id,
                    "name": change.name,
                    "metadata": None if change.metadata is None else Jsonb(change.metadata),
                    "secret_id": secret_id,
                    "trust": None if trust is None else Jsonb(dict(trust)),
                },
            )
    except UniqueViolation:
        raise taken(change.name or found.name) from None
    await audit.record(
        conn,
        caller,
        "integration.changed",
        change.name or found.name,
        organization_id=found.organization_id,
        changed=change.words(),
        **({"name_before": before[0]} if change.name else {}),
    )
    return await secrets.delete(conn, before[1]) if secret_id is not None and before[1] is not None else None


async def _claim(conn: AsyncConnection[Any], organization_id: int, trust: Mapping[str, Any] | None) -> None:
    """An account that trusts this server does so for one organisation: the first that named it. Raises Conflict."""
    email = (trust or {}).get("email")
    if email is None:
        return
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('trust:' || %s, 0))", [email])
    cursor = await conn.execute(
        "SELECT FROM integration WHERE organization_id <> %s AND trust->>'email' = %s LIMIT 1", [organization_id, email]
    )
    if await cursor.fetchone() is not None:
        raise Conflict(
            f"This organisation may not act as {email}. Make a service account for it alone, or ask the operator of "
            "this server."
        )


async def replace_secret(conn: AsyncConnection[Any], integration_id: int, before_id: int, secret_id: int) -> bool:
    """The same secret from another place. Returns whether the integration still had the one before."""
    cursor = await conn.execute(
        "UPDATE integration SET secret_id = %s WHERE id = %s AND secret_id = %s", [secret_id, integration_id, before_id]
    )
    return cursor.rowcount == 1


async def kept_secret(conn: AsyncConnection[Any], integration_id: int) -> Kept | None:
    """What the vault opens, without a connection; None where there is no secret. Raises NotFound, VaultError."""
    cursor = await conn.execute("SELECT secret_id FROM integration WHERE id = %s", [integration_id])
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("The integration of this driver is no longer there.")
    return None if row[0] is None else await secrets.get_kept(conn, row[0], owner_of(integration_id))


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
        raise _missing(integration_id)
    return integration


def _missing(integration_id: int) -> NotFound:
    return NotFound(f"No integration with id {integration_id:024x} in this organisation.")


async def find_by_name(conn: AsyncConnection[Any], organization_id: int, name: str) -> Integration | None:
    cursor = conn.cursor(row_factory=class_row(Integration))
    await cursor.execute(
        _SELECT + "AND integration.name = %(name)s", {"organization_id": organization_id, "name": name}
    )
    return await cursor.fetchone()


def differing(found: Integration, new: NewIntegration) -> Conflict | None:
    """Whether `new` is another one of the same name, its secret aside."""
    # What is made empty and told more later is the same when a script makes it empty again.
    is_told_later = bool(kind_of(found.kind).needed_later) and not new.secret
    has_same = is_told_later or found.has_secret == bool(new.secret)
    is_same = found.kind == new.kind and found.metadata == new.metadata and has_same
    return None if is_same else taken(new.name)


async def delete_integration(conn: AsyncConnection[Any], caller: Account, found: Integration) -> Place | None:
    """Returns where its secret has to be destroyed. Raises Conflict while a driver uses it."""
    try:
        async with conn.transaction():
            cursor = await conn.execute("DELETE FROM integration WHERE id = %s RETURNING secret_id", [found.id])
            row = await cursor.fetchone()
    except ForeignKeyViolation:
        raise Conflict(f"Integration {found.name!r} is used by a storage driver. Delete its drivers first.") from None
    if row is None:
        raise _missing(found.id)
    await audit.record(
        conn, caller, "integration.deleted", found.name, organization_id=found.organization_id, kind=found.kind
    )
    return None if row[0] is None else await secrets.delete(conn, row[0])
