"""Storage drivers: one folder of one bucket, reached with one integration, as one project sees it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.rows import class_row

from headwater.catalog.accounts import Account
from headwater.catalog.projects import checked_name
from headwater.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class NewDriver:
    name: str
    kind: str  # as the SDK names it: s3, storage
    integration_id: int
    root: str  # the bucket's name, or the folder's absolute path
    prefix: str  # '' or 'a/b/'
    region: str | None
    storage_class: str | None
    endpoint: str | None
    allow_delete: bool


@dataclass(frozen=True, slots=True)
class Driver:
    id: int
    project_id: int
    integration_id: int
    integration_kind: str
    name: str
    kind: str
    root: str
    prefix: str
    region: str | None
    storage_class: str | None
    endpoint: str | None
    allow_delete: bool
    creator: str
    created_at: datetime


_SELECT = """
SELECT
    driver.id, driver.project_id, driver.integration_id, integration.kind AS integration_kind, driver.name,
    driver.kind, driver.root, driver.prefix, driver.region, driver.storage_class, driver.endpoint,
    driver.allow_delete, account.email AS creator, driver.created_at
FROM driver
JOIN integration ON integration.id = driver.integration_id
JOIN account ON account.id = driver.creator_id
"""


def folder_prefix(path: str | None) -> str:
    """A driver's folder as a key prefix: '' or 'a/b/'. `img_7` must not take `img_70`, so it ends with a slash.

    Only slashes at the ends are changed: keys are exact.
    """
    stripped = (path or "").strip("/")
    return f"{stripped}/" if stripped else ""


async def create_driver(conn: AsyncConnection[Any], caller: Account, project_id: int, new: NewDriver) -> Driver:
    """Raises Conflict, BadRequest."""
    try:
        async with conn.transaction():
            cursor = await conn.execute(
                """
                INSERT INTO driver (
                    project_id, integration_id, name, kind, root, prefix, region, storage_class, endpoint,
                    allow_delete, creator_id
                )
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
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
                    caller.id,
                ],
            )
    except UniqueViolation:
        raise Conflict(f"There is a driver named {new.name!r} in this project already.") from None
    row = await cursor.fetchone()
    assert row is not None
    return await get_driver(conn, row[0])


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
