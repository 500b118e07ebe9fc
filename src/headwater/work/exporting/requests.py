"""Asking for exports, and the words in which their commands tell of them."""

from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, datasets, exports
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.exports import Export
from headwater.ids import to_wire
from headwater.wire.exports import Asked

TASK = "export_items"
QUEUE = "exports"
# As the SDK knows them: of the first it shows the progress.
KINDS = {
    "json": "ExportDatasetAsJson",
    "zip": "ExportDatasetAsZip",
    "ndjson": "ExportDataset",
    "parquet": "ExportDataset",
}
AT_ONCE = 2_000  # items: so many are exported before the answer, because the SDK waits two seconds for what is not
_FALLBACK_AFTER_S = 20  # its job, if who answers died


async def request_export(
    conn: AsyncConnection[Any], caller: Account, dataset: Dataset, asked: Asked, *, total: int
) -> Export:
    """Start a command; its job commits with it. What is small is exported by whoever asked: `run_export`.

    `total` is how many items are chosen; for progress and partitions, so an upper bound does. Raises BadRequest.
    """
    binaries = await datasets.get_binaries(conn, dataset.project_id)
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=KINDS[asked.format],
        spec={"datasetId": to_wire(dataset.id), "export": _told(asked, total, 0, 0, 0)},
        creator_id=caller.id,
    )
    await exports.add(
        conn,
        command_id,
        dataset_id=dataset.id,
        binaries_id=binaries.id,
        asked=asked.to_json(),
        total=total,
        last_id=await exports.last_item(conn, dataset.id),
    )
    await queue.defer(
        conn,
        TASK,
        queue=QUEUE,
        lock=f"export:{command_id}",
        after_s=_FALLBACK_AFTER_S if is_small(total) else 0,
        command_id=command_id,
    )
    found = await exports.find(conn, command_id)
    assert found is not None
    return found


def is_small(total: int) -> bool:
    return total <= AT_ONCE


def told(export: Export) -> dict[str, Any]:
    """On the wire as the command's `spec.export`."""
    asked = Asked.of(export.asked)
    return _told(asked, export.total, export.items, export.annotations, export.removed)


def _told(asked: Asked, total: int, items: int, annotations: int, removed: int) -> dict[str, Any]:
    return {
        "format": asked.format,
        "items": total,
        "done": items,
        "annotations": annotations,
        "removed": removed,
    }
