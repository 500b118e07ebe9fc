"""What is said of an export's files: the manifest that the SDK reads, and Croissant for everybody else."""

from datetime import UTC, datetime
from typing import Any

from headwater.catalog import datasets
from headwater.catalog.exports import ExportFile
from headwater.ids import to_wire
from headwater.wire import times
from headwater.work.exporting import croissant
from headwater.work.exporting.documents import dumped
from headwater.work.exporting.parquet import annotation_schema, item_schema
from headwater.work.exporting.run import Run


async def last_files(run: Run, files: list[ExportFile]) -> list[tuple[str, bytes]]:
    """(name, bytes) of what comes beside the data. Raises NotFound for a dataset that was deleted meanwhile."""
    if run.asked.format != "parquet":
        return []
    async with run.place.pool.connection() as conn:
        dataset = await datasets.load_dataset(conn, run.export.dataset_id)
    described = croissant.describe(
        name=dataset.name,
        dataset_id=to_wire(dataset.id),
        made_at=datetime.now(UTC),
        files=[file for file in files if file.name.endswith(".parquet")],
        tables={"items": item_schema(run.asked.columns), "annotations": annotation_schema()},
    )
    return [("croissant.json", dumped(described))]


def manifest_of(run: Run, files: list[ExportFile], version: int | None) -> tuple[str, bytes, dict[str, Any]]:
    """Its name, its bytes, and what the command says of it."""
    export, asked = run.export, run.asked
    mode = "diff" if asked.is_diff else "full"
    told = [file_told(asked.base, file) for file in files]
    data = [file for file in files if file.records or file.name.endswith((".parquet", ".ndjson"))]
    total_bytes = sum(file.size_bytes for file in data)
    manifest: dict[str, Any] = {
        "manifestVersion": 1,
        "exportId": to_wire(export.command_id),
        "datasetId": to_wire(export.dataset_id),
        "exportedAt": times.to_wire(datetime.now(UTC)),
        "format": asked.format,
        "mode": mode,
        "fromVersion": asked.from_version if asked.is_diff else None,
        "toVersion": version,
        "partitioning": {
            "partitionCount": len(data),
            "partitions": [
                {"index": number, "filename": file.name, "recordCount": file.records, "size": file.size_bytes}
                for number, file in enumerate(data)
            ],
        },
        "files": told,
        "statistics": {
            "totalRecords": export.items + export.removed,
            "totalBytes": total_bytes,
            "fileCount": len(files),
            "items": export.items,
            "annotations": export.annotations,
            "removed": export.removed,
        },
    }
    spec: dict[str, Any] = {"files": told}
    if asked.is_versioned:
        spec["exportResult"] = {
            "manifestUrl": None,  # known once it is written
            "totalRecords": export.items + export.removed,
            "fromVersion": manifest["fromVersion"],
            "toVersion": version,
            "mode": mode,
        }
    return "manifest.json", dumped(manifest), spec


def file_told(base: str, file: ExportFile) -> dict[str, Any]:
    item_id = to_wire(file.item_id or 0)
    return {
        "filename": file.name,
        "id": item_id,
        "path": f"{base}/items/{item_id}/stream",
        "size": file.size_bytes,
        "checksum": file.md5,
        "sha256": file.sha256,
        "format": file.name.rpartition(".")[2],
        "compression": None,
        "records": file.records,
    }
