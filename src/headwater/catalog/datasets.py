"""Datasets: a bucket's folder (or our own storage) as an index of items."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog import rights
from headwater.catalog.accounts import Account
from headwater.catalog.projects import checked_name
from headwater.errors import BadRequest, Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Dataset:
    id: int
    project_id: int
    driver_id: int | None
    name: str
    metadata: dict[str, Any]
    sync_rules: dict[str, Any]  # see catalog/sync/rules.py
    readonly: bool
    origin: dict[str, Any] | None  # what it was cloned or merged of: kind, datasets; such a dataset is never synced
    creator: str
    created_at: datetime
    updated_at: datetime
    updated_by: str | None
    items: int
    hidden_items: int
    missing_items: int
    trashed_items: int  # of the missing ones
    bytes: int
    prepared_items: int
    failed_items: int
    annotations: int
    annotated_items: int  # with at least one
    synced_at: datetime | None
    is_syncing: bool
    recipe_ids: list[int]  # the first one's labels are the dataset's: catalog/recipes.py
    unsearchable_paths: list[str]  # of metadata, that no filter looks into: catalog/searchable.py
    is_system: bool  # Binaries, which every project has: in no list, and goes with the project
    role: rights.Role  # of the account that asked, in the project

    @property
    def shown_items(self) -> int:
        """What a default query finds: neither our own files nor the trash."""
        return self.items - self.hidden_items - self.trashed_items


_COLUMNS = """
SELECT
    dataset.id, dataset.project_id, dataset.driver_id, dataset.name, dataset.metadata, dataset.sync_rules,
    dataset.readonly, dataset.origin, creator.email AS creator, dataset.created_at, dataset.updated_at,
    updater.email AS updated_by,
    counter.items, counter.hidden_items, counter.missing_items, counter.trashed_items, counter.bytes,
    counter.prepared_items, counter.failed_items, counter.annotations, counter.annotated_items, counter.synced_at,
    EXISTS (SELECT FROM scan WHERE scan.dataset_id = dataset.id AND scan.state = 'running') AS is_syncing,
    dataset.recipe_ids, dataset.unsearchable_paths, dataset.is_system,
"""

_JOINS = """
FROM dataset
JOIN dataset_counter AS counter ON counter.dataset_id = dataset.id
JOIN project ON project.id = dataset.project_id
JOIN account AS creator ON creator.id = dataset.creator_id
LEFT JOIN account AS updater ON updater.id = dataset.updated_by_id
"""

_SELECT = (
    _COLUMNS
    + "CASE WHEN member.role IN ('owner', 'admin') THEN 'owner' ELSE project_member.role END AS role"
    + _JOINS
    + """
LEFT JOIN member
    ON member.organization_id = project.organization_id AND member.account_id = %(account_id)s
LEFT JOIN project_member
    ON project_member.project_id = project.id AND project_member.account_id = %(account_id)s
WHERE dataset.deleted_at IS NULL AND project.deleted_at IS NULL
    AND (member.role IN ('owner', 'admin') OR project_member.role IS NOT NULL)
"""
)


async def create_dataset(
    conn: AsyncConnection[Any], caller: Account, *, project_id: int, driver_id: int | None, name: str
) -> Dataset:
    """Raises Conflict, BadRequest."""
    name = checked_name(name, "dataset")
    try:
        async with conn.transaction():
            cursor = await conn.execute(
                """
                INSERT INTO dataset (project_id, driver_id, name, creator_id)
                VALUES (%s, %s, %s, %s)
                RETURNING id
                """,
                [project_id, driver_id, name, caller.id],
            )
    except UniqueViolation:
        raise Conflict(f"There is a dataset named {name!r} in this project already.") from None
    row = await cursor.fetchone()
    assert row is not None
    await conn.execute("INSERT INTO dataset_counter (dataset_id) VALUES (%s)", [row[0]])
    return await get_dataset(conn, caller, row[0])


async def get_dataset(
    conn: AsyncConnection[Any], caller: Account, dataset_id: int, right: rights.Right = "read"
) -> Dataset:
    """Raises NotFound, or Forbidden for one that the caller may see but not use so."""
    cursor = conn.cursor(row_factory=class_row(Dataset))
    await cursor.execute(
        _SELECT + "AND dataset.id = %(dataset_id)s", {"account_id": caller.id, "dataset_id": dataset_id}
    )
    dataset = await cursor.fetchone()
    if dataset is None:
        raise NotFound(f"No dataset with id {dataset_id:024x}.")
    rights.require(dataset.role, right)
    return dataset


async def load_dataset(conn: AsyncConnection[Any], dataset_id: int) -> Dataset:
    """For our own work, which acts for nobody and may do everything. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Dataset))
    await cursor.execute(
        _COLUMNS + "'owner' AS role" + _JOINS + "WHERE dataset.id = %s AND dataset.deleted_at IS NULL", [dataset_id]
    )
    dataset = await cursor.fetchone()
    if dataset is None:
        raise NotFound(f"No dataset with id {dataset_id:024x}.")
    return dataset


async def get_binaries(conn: AsyncConnection[Any], project_id: int) -> Dataset:
    """The project's own dataset for what is no data: saved filters, exports, artifacts. For our own work.

    Raises NotFound for a project that is no more.
    """
    cursor = conn.cursor(row_factory=class_row(Dataset))
    await cursor.execute(
        _COLUMNS
        + "'owner' AS role"
        + _JOINS
        + "WHERE dataset.project_id = %s AND dataset.is_system AND dataset.deleted_at IS NULL",
        [project_id],
    )
    dataset = await cursor.fetchone()
    if dataset is None:
        raise NotFound(f"No project with id {project_id:024x}.")
    return dataset


async def get_syncable(conn: AsyncConnection[Any], caller: Account, dataset_id: int) -> Dataset:
    """Raises NotFound, Forbidden, BadRequest for a dataset in our own storage."""
    dataset = await get_dataset(conn, caller, dataset_id, "sync")
    if dataset.driver_id is None:
        raise BadRequest(f"Dataset {dataset.name!r} is in Headwater's own storage: there is no bucket to sync with.")
    if dataset.origin is not None:
        raise BadRequest(
            f"Dataset {dataset.name!r} is a {dataset.origin['kind']} of other datasets: it has the items that these "
            "had then, wherever they lie in the bucket, so there is no folder to sync it with. Sync the datasets it "
            "was made of, and clone again."
        )
    return dataset


async def find_datasets(
    conn: AsyncConnection[Any],
    caller: Account,
    *,
    project_ids: Sequence[int] | None,
    name: str | None,
    offset: int,
    limit: int,
    with_system: bool = False,
) -> tuple[list[Dataset], int]:
    """One page in the order of ids, and how many there are in all; the project's own Binaries only if asked for."""
    conditions = "AND (%(project_ids)s::bigint[] IS NULL OR dataset.project_id = ANY(%(project_ids)s)) "
    conditions += "AND (%(name)s::text IS NULL OR dataset.name = %(name)s) "
    conditions += "AND (NOT dataset.is_system OR %(with_system)s) "
    parameters: dict[str, Any] = {
        "account_id": caller.id,
        "project_ids": None if project_ids is None else list(project_ids),
        "name": name,
        "with_system": with_system,
        "offset": offset,
        "limit": limit,
    }
    cursor = conn.cursor(row_factory=class_row(Dataset))
    await cursor.execute(_SELECT + conditions + "ORDER BY dataset.id OFFSET %(offset)s LIMIT %(limit)s", parameters)
    found = await cursor.fetchall()
    total = await conn.execute("SELECT count(*) FROM (" + _SELECT + conditions + ") AS found", parameters)
    row = await total.fetchone()
    assert row is not None
    return found, row[0]


async def update_dataset(
    conn: AsyncConnection[Any],
    caller: Account,
    dataset: Dataset,
    *,
    name: str | None = None,
    metadata: dict[str, Any] | None = None,
    readonly: bool | None = None,
) -> None:
    """Raises Conflict, BadRequest."""
    if dataset.is_system and (name not in (None, dataset.name) or readonly):
        raise BadRequest(
            f"{dataset.name!r} is where the project keeps saved filters, exports and artifacts: it keeps its name and "
            "can be written to."
        )
    try:
        async with conn.transaction():
            await conn.execute(
                """
                UPDATE dataset
                SET name = coalesce(%s, name), metadata = coalesce(%s, metadata), readonly = coalesce(%s, readonly),
                    updated_at = now(), updated_by_id = %s
                WHERE id = %s
                """,
                [
                    None if name is None else checked_name(name, "dataset"),
                    None if metadata is None else Jsonb(metadata),
                    readonly,
                    caller.id,
                    dataset.id,
                ],
            )
    except UniqueViolation:
        raise Conflict(f"There is a dataset named {name!r} in this project already.") from None


async def delete_dataset(conn: AsyncConnection[Any], dataset: Dataset) -> None:
    """Out of sight at once; its rows go in a job. Objects in the bucket are not touched. Raises BadRequest."""
    if dataset.is_system:
        raise BadRequest(
            f"{dataset.name!r} is where the project keeps saved filters, exports and artifacts: it goes with the "
            "project. Delete the items in it instead."
        )
    await conn.execute("UPDATE dataset SET deleted_at = now() WHERE id = %s", [dataset.id])


# What is counted of the rows of a dataset. Each change of items adds its own difference, in its own transaction.
@dataclass(slots=True)
class CounterChange:
    items: int = 0
    hidden_items: int = 0
    missing_items: int = 0
    trashed_items: int = 0
    bytes: int = 0
    prepared_items: int = 0
    failed_items: int = 0
    annotations: int = 0
    annotated_items: int = 0


async def count(conn: AsyncConnection[Any], dataset_id: int, change: CounterChange) -> None:
    """Call it last in a transaction: it locks the dataset's counters until the commit."""
    if change == CounterChange():
        return
    await conn.execute(
        """
        UPDATE dataset_counter
        SET items = items + %s, hidden_items = hidden_items + %s, missing_items = missing_items + %s,
            trashed_items = trashed_items + %s, bytes = bytes + %s, prepared_items = prepared_items + %s,
            failed_items = failed_items + %s, annotations = annotations + %s, annotated_items = annotated_items + %s
        WHERE dataset_id = %s
        """,
        [
            change.items,
            change.hidden_items,
            change.missing_items,
            change.trashed_items,
            change.bytes,
            change.prepared_items,
            change.failed_items,
            change.annotations,
            change.annotated_items,
            dataset_id,
        ],
    )


async def note_synced(conn: AsyncConnection[Any], dataset_id: int) -> None:
    await conn.execute("UPDATE dataset_counter SET synced_at = now() WHERE dataset_id = %s", [dataset_id])


async def driver_of(conn: AsyncConnection[Any], dataset_id: int) -> int | None:
    """The id of the dataset's driver; None for our own storage. Raises NotFound for one that is no more."""
    cursor = await conn.execute("SELECT driver_id FROM dataset WHERE id = %s", [dataset_id])
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"No dataset with id {dataset_id:024x}.")
    return row[0]


async def is_made_of_others(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Whether it is a clone or a merge, and never synced."""
    cursor = await conn.execute("SELECT origin IS NOT NULL FROM dataset WHERE id = %s", [dataset_id])
    row = await cursor.fetchone()
    return row is not None and row[0]


async def place_of(conn: AsyncConnection[Any], dataset_id: int) -> tuple[int, str]:
    """The id of its project and its name. Raises NotFound."""
    cursor = await conn.execute("SELECT project_id, name FROM dataset WHERE id = %s", [dataset_id])
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"No dataset with id {dataset_id:024x}.")
    return row[0], row[1]


@dataclass(frozen=True, slots=True)
class DeletedDataset:
    project_id: int
    driver_id: int | None


async def find_deleted(conn: AsyncConnection[Any], dataset_id: int) -> DeletedDataset | None:
    """A dataset that was deleted and whose rows are still to go."""
    cursor = conn.cursor(row_factory=class_row(DeletedDataset))
    await cursor.execute(
        "SELECT project_id, driver_id FROM dataset WHERE id = %s AND deleted_at IS NOT NULL", [dataset_id]
    )
    return await cursor.fetchone()


async def forget_dataset(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Remove the last rows of a deleted dataset. Safe to repeat.

    Its scans go with it, once the batch that one may be committing is in. Rows go in the order in which a scan locks
    them, so that neither waits for the other for ever.
    """
    await conn.execute(
        "DELETE FROM scan_shard USING scan WHERE scan.dataset_id = %s AND scan_shard.scan_id = scan.id", [dataset_id]
    )
    await conn.execute("DELETE FROM scan WHERE dataset_id = %s", [dataset_id])
    await conn.execute("DELETE FROM dataset_counter WHERE dataset_id = %s", [dataset_id])
    await conn.execute("DELETE FROM command WHERE dataset_id = %s", [dataset_id])
    await conn.execute("DELETE FROM dataset WHERE id = %s AND deleted_at IS NOT NULL", [dataset_id])
    await conn.execute("DELETE FROM tombstone WHERE dataset_id = %s", [dataset_id])
    await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset_id])
