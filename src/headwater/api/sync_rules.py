"""The rules of a dataset's sync: which objects are items, what becomes of those that go, and when it asks first."""

from typing import Any

from fastapi import APIRouter
from psycopg import AsyncConnection

from headwater import ids
from headwater.api.caller import Caller, Connection, DatasetId, ServerDep, needs
from headwater.catalog import datasets, projects
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync.rules import SyncRules, load_rules, rules_of, save_rules
from headwater.errors import BadRequest
from headwater.wire import sync_rules as wire
from headwater.work import sidecars
from headwater.work.previews import preview
from headwater.work.selection import Selection

router = APIRouter(prefix="/datasets", tags=["sync rules"])


@router.get("/{dataset_id}/sync-rules", openapi_extra=needs("read"))
async def read_sync_rules(dataset_id: DatasetId, caller: Caller, conn: Connection) -> wire.RulesJson:
    """The defaults where nothing else was set."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    return wire.rules(await load_rules(conn, dataset.id))


@router.patch("/{dataset_id}/sync-rules", openapi_extra=needs("manage_datasets"))
async def change_sync_rules(
    dataset_id: DatasetId, body: wire.RulesBody, caller: Caller, conn: Connection
) -> wire.RulesJson:
    """They count from the next sync on. Items that the globs leave out then become ghosts, as if they had gone.

    Sidecars are hidden and read, or shown again, at once, by a job.
    """
    dataset, rules = await _patched(conn, caller, dataset_id, body)
    Selection.of(rules)  # or a sync would stumble over a glob that nobody can read
    await save_rules(conn, dataset.id, rules)
    if rules.sidecars != rules_of(dataset.sync_rules).sidecars:
        await sidecars.request_marking(conn, dataset.id)
    shown = wire.rules(rules)
    await projects.record(
        conn,
        caller,
        dataset.project_id,
        "dataset.sync-rules-changed",
        dataset.name,
        id=ids.to_wire(dataset.id),
        rules=shown,
    )
    return shown


@router.post("/{dataset_id}/sync-rules/preview", openapi_extra=needs("manage_datasets"))
async def preview_sync_rules(
    dataset_id: DatasetId, body: wire.RulesBody, caller: Caller, server: ServerDep
) -> wire.PreviewJson:
    """How many of the bucket's first 10,000 objects the rules would keep, were they changed so. Nothing is changed."""
    async with server.place.pool.connection() as conn:
        dataset, rules = await _patched(conn, caller, dataset_id, body)
    found = await preview(server.place, dataset.id, rules)
    return wire.PreviewJson(
        looked=found.looked,
        kept=found.kept,
        isAll=found.is_all,
        keptExamples=found.kept_examples,
        leftOutExamples=found.left_out_examples,
    )


async def _patched(
    conn: AsyncConnection[Any], caller: Account, dataset_id: int, body: wire.RulesBody
) -> tuple[Dataset, SyncRules]:
    """Raises NotFound, Forbidden, BadRequest."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    if dataset.driver_id is None:
        raise BadRequest(f"Dataset {dataset.name!r} is in Headwater's own storage: there is no bucket to sync with.")
    rules = wire.patched(await load_rules(conn, dataset.id), body)
    if rules.sidecars and dataset.origin is not None:
        raise BadRequest(
            f"sidecars: dataset {dataset.name!r} is a {dataset.origin['kind']} of other datasets, and its items have "
            "their metadata from these. Switch them on there, and clone again."
        )
    return dataset, rules
