"""Storage drivers: one folder of one bucket, reached with one integration, as one project sees it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog.accounts import Account
from headwater.catalog.projects import checked_name
from headwater.errors import BadRequest, Conflict, NotFound


@dataclass(frozen=True, slots=True)
class NewDriver:
    name: str
    kind: str  # as the SDK names it: s3, gcs, azureblob, azureDatalakeGen2, storage
    integration_id: int
    root: str  # the bucket's or container's name, or the folder's absolute path
    prefix: str  # '' or 'a/b/'
    region: str | None
    storage_class: str | None
    endpoint: str | None
    allow_delete: bool
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Driver:
    id: int
    project_id: int
    integration_id: int
    integration_kind: str
    integration_metadata: dict[str, Any]
    integration_trust: dict[str, Any] | None
    name: str
    kind: str
    root: str
    prefix: str
    region: str | None
    storage_class: str | None
    endpoint: str | None
    allow_delete: bool  # and the organisation does not forbid it
    asks_delete: bool  # as the driver itself says
    read_only: bool
    report: dict[str, Any] | None
    checked_at: datetime | None
    creator: str
    created_at: datetime
    changed_at: datetime  # it, or its integration


_SELECT = """
SELECT
    driver.id, driver.project_id, driver.integration_id, integration.kind AS integration_kind,
    integration.metadata AS integration_metadata, integration.trust AS integration_trust,
    driver.name, driver.kind, driver.root, driver.prefix, driver.region, driver.storage_class, driver.endpoint,
    driver.allow_delete AND NOT organization.forbid_external_delete AS allow_delete,
    driver.allow_delete AS asks_delete, driver.read_only, driver.report, driver.checked_at,
    account.email AS creator, driver.created_at, greatest(driver.updated_at, integration.updated_at) AS changed_at
FROM driver
JOIN integration ON integration.id = driver.integration_id
JOIN organization ON organization.id = integration.organization_id
JOIN account ON account.id = driver.creator_id
"""


def sends_its_credentials(kind: str) -> bool:
    """Whether requests carry what opens the bucket (a token, a SAS); those to S3 are signed, with nothing to steal."""
    return kind in ("gcs", "azureblob", "azureDatalakeGen2")


def folder_prefix(path: str | None) -> str:
    """A driver's folder as a key prefix: '' or 'a/b/'. `img_7` must not take `img_70`, so it ends with a slash.

    Only slashes at the ends are changed: keys are exact.
    """
    stripped = (path or "").strip("/")
    return f"{stripped}/" if stripped else ""


async def create_driver(conn: AsyncConnection[Any], caller: Account, project_id: int, new: NewDriver) -> Driver:
    """Raises Conflict, BadRequest."""
    cursor = await conn.execute(
        """
        INSERT INTO driver (
            project_id, integration_id, name, kind, root, prefix, region, storage_class, endpoint, allow_delete,
            read_only, creator_id
        )
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT ON CONSTRAINT driver_name_unique DO NOTHING
        RETURNING id
        """,
        [
            project_id,
            new.integration_id,
            checked_name(new.name, "driver"),
            new.kind,
            new.root,
            new.prefix,
            new.region,
            new.storage_class,
            new.endpoint,
            new.allow_delete,
            new.read_only,
            caller.id,
        ],
    )
    row = await cursor.fetchone()
    if row is None:
        raise Conflict(
            f"There is a driver named {new.name!r} in this project already, and it is not the same. "
            "Choose another name, or delete that driver first."
        )
    return await get_driver(conn, row[0])


async def find_same(conn: AsyncConnection[Any], project_id: int, new: NewDriver) -> Driver | None:
    """The driver that a repeated request made the first time: all is as asked for, its name too."""
    cursor = conn.cursor(row_factory=class_row(Driver))
    await cursor.execute(
        _SELECT
        + """
        WHERE driver.project_id = %(project_id)s AND driver.name = %(name)s AND driver.kind = %(kind)s
            AND driver.integration_id = %(integration_id)s AND driver.root = %(root)s AND driver.prefix = %(prefix)s
            AND driver.region IS NOT DISTINCT FROM %(region)s
            AND driver.storage_class IS NOT DISTINCT FROM %(storage_class)s
            AND driver.endpoint IS NOT DISTINCT FROM %(endpoint)s
            AND driver.allow_delete = %(allow_delete)s AND driver.read_only = %(read_only)s
        """,
        asdict(new) | {"project_id": project_id, "name": new.name.strip()},
    )
    return await cursor.fetchone()


@dataclass(frozen=True, slots=True)
class DriverChange:
    """What may change while datasets use the driver; None leaves it. Where it points never changes."""

    name: str | None = None
    allow_delete: bool | None = None
    storage_class: str | None = None  # '' for the bucket's standard


async def update_driver(conn: AsyncConnection[Any], driver: Driver, change: DriverChange) -> Driver:
    """Raises Conflict, BadRequest."""
    if change.allow_delete and driver.read_only:
        raise BadRequest(f"Driver {driver.name!r} only reads; it cannot be allowed to delete.")
    try:
        async with conn.transaction():
            await conn.execute(
                """
                UPDATE driver
                SET name = coalesce(%(name)s, name), allow_delete = coalesce(%(allow_delete)s, allow_delete),
                    storage_class = nullif(coalesce(%(storage_class)s, storage_class), ''), updated_at = now()
                WHERE id = %(id)s
                """,
                {
                    "id": driver.id,
                    "name": None if change.name is None else checked_name(change.name, "driver"),
                    "allow_delete": change.allow_delete,
                    "storage_class": change.storage_class,
                },
            )
    except UniqueViolation:
        raise Conflict(f"There is a driver named {change.name!r} in this project already.") from None
    return await get_driver(conn, driver.id)


async def keep_report(conn: AsyncConnection[Any], driver_id: int, report: Mapping[str, Any]) -> None:
    """What a check of the driver found, with the time."""
    await conn.execute(
        "UPDATE driver SET report = %s, checked_at = now() WHERE id = %s", [Jsonb(dict(report)), driver_id]
    )


async def get_driver(conn: AsyncConnection[Any], driver_id: int) -> Driver:
    """Whether the caller may see it is a question to its project. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Driver))
    await cursor.execute(_SELECT + "WHERE driver.id = %s", [driver_id])
    driver = await cursor.fetchone()
    if driver is None:
        raise NotFound(f"No storage driver with id {driver_id:024x}.")
    return driver


async def list_drivers(conn: AsyncConnection[Any], project_id: int) -> list[Driver]:
    cursor = conn.cursor(row_factory=class_row(Driver))
    await cursor.execute(_SELECT + "WHERE driver.project_id = %s ORDER BY driver.id", [project_id])
    return await cursor.fetchall()


async def delete_driver(conn: AsyncConnection[Any], driver: Driver) -> None:
    """The bucket is not touched. Raises Conflict while a dataset uses it."""
    try:
        async with conn.transaction():
            await conn.execute("DELETE FROM driver WHERE id = %s", [driver.id])
    except ForeignKeyViolation:
        raise Conflict(f"Driver {driver.name!r} is used by a dataset. Delete its datasets first.") from None
