"""What tests of quotas share: organisations of their own with a limit, and the truth about them."""

import secrets
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import quotas
from headwater.catalog.datasets import Dataset


async def make_organization(conn: AsyncConnection[Any], limit: int | None) -> int:
    cursor = await conn.execute(
        "INSERT INTO organization (name, data_point_limit) VALUES (%s, %s) RETURNING id",
        [f"org {secrets.token_hex(6)}", limit],
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def give_to(conn: AsyncConnection[Any], organization_id: int, dataset: Dataset) -> None:
    """Its project belongs to the organisation from now on."""
    await conn.execute("UPDATE project SET organization_id = %s WHERE id = %s", [organization_id, dataset.project_id])


@dataclass(frozen=True, slots=True)
class Standing:
    limit: int | None
    rows: int  # of items in datasets that are not deleted
    held: int


async def standing(conn: AsyncConnection[Any], organization_id: int) -> Standing:
    """At one moment, counted anew in the rows themselves, which the quota's own numbers have to agree with."""
    cursor = await conn.execute(
        """
        SELECT
            data_point_limit,
            (
                SELECT count(*)
                FROM item
                JOIN dataset ON dataset.id = item.dataset_id AND dataset.deleted_at IS NULL
                JOIN project ON project.id = dataset.project_id AND project.deleted_at IS NULL
                WHERE project.organization_id = organization.id
            ),
            (SELECT count(*) FROM quota_hold WHERE organization_id = organization.id)
        FROM organization
        WHERE id = %s
        """,
        [organization_id],
    )
    row = await cursor.fetchone()
    assert row is not None
    return Standing(*row)


async def checked_standing(conn: AsyncConnection[Any], organization_id: int) -> Standing:
    """While nobody writes: the numbers that people are told, and that writers are held to, are those of the rows."""
    truth = await standing(conn, organization_id)
    told = await quotas.load_quota(conn, organization_id)
    assert (told.limit, told.used, told.held) == (truth.limit, truth.rows, truth.held if truth.limit is not None else 0)
    room = await quotas._load_room(conn, organization_id)
    assert (None if room is None else Standing(room.limit, room.used, room.held)) in (truth, None)
    assert (room is None) == (truth.limit is None)
    return truth
