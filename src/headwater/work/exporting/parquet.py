"""The index as Parquet: PostgreSQL writes rows as CSV, Arrow reads them as columns and writes row groups.

Nothing of a table is in memory but two row groups: one that is read while the other is written.
"""

import asyncio
import io
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from headwater.catalog import datasets, drivers, exports
from headwater.catalog.drivers import Driver
from headwater.catalog.exports import (
    ANNOTATION_COLUMNS,
    CSV_DELIMITER,
    CSV_QUOTE,
    ITEM_COLUMNS,
    Copied,
    Export,
    ExtraColumn,
    Progress,
)
from headwater.wire.exports import Asked
from headwater.work.exporting.run import Run, Sink, Written
from headwater.work.workplace import Workplace

FILE_ROWS = 1_048_576
_GROUP_ROWS = 65_536
_GROUP_BYTES = 64 * 1024 * 1024  # of CSV; rows may have a megabyte of metadata
pc: Any = pyarrow.compute  # it makes its functions when it is loaded
_TIME = pa.timestamp("us", tz="UTC")
Cursor = tuple[int, int]  # an item; of annotations, and an annotation of it
_STATES = ("waiting", "done", "failed")
_UNIQUE = frozenset(
    [
        "id",
        "path",
        "name",
        "size_bytes",
        "created_at",
        "updated_at",
        "modified_at",
        "etag",
        "key",
        "storage_url",
        "user_metadata",
        "system_metadata",
        "coordinates",
    ]
)
_TYPES: Mapping[str, pa.DataType] = {
    "string": pa.string(),
    "double": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
}


def _column(name: str, kind: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


_ITEMS = (
    _column("id", pa.string(), "24 hexadecimal digits, in the order of creation.", nullable=False),
    _column("path", pa.string(), "Folder and name, with a slash in front.", nullable=False),
    _column("dir", pa.string(), "The folder.", nullable=False),
    _column("name", pa.string(), "The last part of the path.", nullable=False),
    _column("size_bytes", pa.int64(), "Size of the object.", nullable=False),
    _column("mime_type", pa.string(), "By its bytes once they are read, by its name until then."),
    _column("width_px", pa.int32(), "Of images and video."),
    _column("height_px", pa.int32(), "Of images and video."),
    _column("created_at", _TIME, "When the item came into the dataset.", nullable=False),
    _column("updated_at", _TIME, "When the item was last changed.", nullable=False),
    _column("modified_at", _TIME, "When the object was last written, as its store tells."),
    _column("creator", pa.string(), "Who brought it in; null: a sync."),
    _column("updated_by", pa.string(), "Who changed it last."),
    _column("etag", pa.string(), "Of the object, as its store tells.", nullable=False),
    _column("hidden", pa.bool_(), "Whether default queries leave it out.", nullable=False),
    _column("missing", pa.bool_(), "Whether its object is missing from the bucket.", nullable=False),
    _column("key", pa.string(), "Of the object, below the folder of the dataset's driver.", nullable=False),
    _column("storage_url", pa.string(), "Of the object, such as s3://bucket/key; null in Headwater's own storage."),
    _column("link_url", pa.string(), "Of a linked item: where its bytes are."),
    _column("annotated", pa.bool_(), "Whether it has annotations.", nullable=False),
    _column("annotations_count", pa.int32(), "How many.", nullable=False),
    _column("preprocessing", pa.string(), "waiting, done or failed.", nullable=False),
    _column("description", pa.string(), "Text that somebody gave it."),
    _column("user_metadata", pa.string(), "JSON."),
    _column("system_metadata", pa.string(), "JSON: EXIF, tags, collections and what else has no column."),
)
_ANNOTATIONS = (
    _column("id", pa.string(), "24 hexadecimal digits, in the order of creation.", nullable=False),
    _column("item_id", pa.string(), "The item that it is of.", nullable=False),
    _column("item_path", pa.string(), "The path of that item.", nullable=False),
    _column("type", pa.string(), "box, segment, class, …", nullable=False),
    _column("label", pa.string(), "What it says.", nullable=False),
    _column("created_at", _TIME, "When it was made.", nullable=False),
    _column("updated_at", _TIME, "When it was last changed.", nullable=False),
    _column("creator", pa.string(), "Who made it."),
    _column("updated_by", pa.string(), "Who changed it last."),
    _column("source", pa.string(), "The program that it came from."),
    _column("description", pa.string(), "Text that somebody gave it."),
    _column("attributes", pa.string(), "JSON."),
    _column("coordinates", pa.string(), "JSON; its shape depends on the type."),
    _column("user_metadata", pa.string(), "JSON."),
    _column("system_metadata", pa.string(), "JSON: status, frames, object ids, …"),
)
_READ_AS: Mapping[str, pa.DataType] = {
    "number": pa.int64(),
    "item_number": pa.int64(),
    "size_bytes": pa.int64(),
    "width_px": pa.int32(),
    "height_px": pa.int32(),
    "annotations_count": pa.int32(),
    "preprocessing": pa.int32(),
    "created_at": _TIME,
    "updated_at": _TIME,
    "modified_at": _TIME,
    "hidden": pa.bool_(),
    "missing": pa.bool_(),
}


def item_schema(columns: Mapping[str, str | None]) -> pa.Schema:
    extra = [
        _column(name, _TYPES[kind or "string"], f"The value at {name}; null where it is of another type.")
        for name, kind in columns.items()
    ]
    return pa.schema([*_ITEMS, *extra], metadata={"headwater": "items 1"})


def annotation_schema() -> pa.Schema:
    return pa.schema(_ANNOTATIONS, metadata={"headwater": "annotations 1"})


async def prepare(place: Workplace, export: Export) -> Export:
    """Find out the types of columns that nobody said, once for all files. Safe to repeat."""
    asked = Asked.of(export.asked)
    unknown = [ExtraColumn(name, "string") for name, kind in asked.columns.items() if kind is None]
    if not unknown:
        return export
    async with place.pool.connection() as conn:
        found = await exports.kinds_of(conn, export.dataset_id, asked.tree, unknown)
        kinds = {column.name: _kind_of(kinds) for column, kinds in zip(unknown, found, strict=True)}
        await exports.add_asked(conn, export.command_id, {"columns": {**asked.columns, **kinds}})
        after = await exports.find(conn, export.command_id)
        assert after is not None
        return after


def _kind_of(found: set[str]) -> str:
    if found == {"integer"}:
        return "int64"
    if found and found <= {"integer", "number"}:
        return "double"
    return "bool" if found == {"boolean"} else "string"


async def write(run: Run, sink: Sink) -> Written:
    """The next file: of items, or of annotations."""
    if run.export.phase == 0:
        columns = [ExtraColumn(name, kind or "string") for name, kind in run.asked.columns.items()]
        prefix = await _url_prefix(run)
        return await _write(run, sink, _Items(run, columns, prefix))
    if not run.asked.has_annotations:
        return Written("", 0, Progress(phase=2, after_id=0))
    return await _write(run, sink, _Annotations(run))


class _Items:
    """How the table of items is read."""

    noun = "items"

    def __init__(self, run: Run, columns: Sequence[ExtraColumn], url_prefix: str | None) -> None:
        self._run = run
        self._columns = columns
        self._url_prefix = url_prefix
        self.schema = item_schema({column.name: column.kind for column in columns})
        self.names = [*ITEM_COLUMNS, *(f"extra {place}" for place in range(len(columns)))]
        self.types = {**_READ_AS, **{f"extra {n}": _TYPES[one.kind] for n, one in enumerate(columns)}}

    async def copy(self, cursor: Cursor) -> Copied:
        async with self._run.place.pool.connection() as conn:
            return await exports.copy_items(
                conn,
                self._run.export.dataset_id,
                self._run.tree,
                self._columns,
                after_id=cursor[0],
                last_id=self._run.export.last_id,
                most_rows=_GROUP_ROWS,
                most_bytes=_GROUP_BYTES,
            )

    def shaped(self, read: pa.Table) -> pa.Table:
        path = read["path"]
        folder = pc.replace_substring_regex(path, r"/[^/]*\z", "")
        # As folders.folder_of: a folder of slashes alone has one more.
        is_root = pc.match_substring_regex(folder, r"\A/*\z")
        found = {name: read[name] for name in ITEM_COLUMNS}
        found |= {
            "dir": pc.if_else(is_root, pc.binary_join_element_wise(folder, "/", ""), folder),
            "name": pc.replace_substring_regex(path, r"(?s)\A.*/", ""),
            "storage_url": pa.nulls(len(read), pa.string())
            if self._url_prefix is None
            else pc.binary_join_element_wise(pa.scalar(self._url_prefix), read["key"], ""),
            "link_url": read["link"],
            "annotated": pc.greater(read["annotations_count"], 0),
            "preprocessing": pc.take(pa.array(_STATES), read["preprocessing"]),
        }
        found |= {column.name: read[f"extra {n}"] for n, column in enumerate(self._columns)}
        return _table(found, self.schema)


class _Annotations:
    """How the table of annotations is read."""

    noun = "annotations"
    names = ANNOTATION_COLUMNS
    types = _READ_AS

    def __init__(self, run: Run) -> None:
        self._run = run
        self.schema = annotation_schema()

    async def copy(self, cursor: Cursor) -> Copied:
        async with self._run.place.pool.connection() as conn:
            return await exports.copy_annotations(
                conn,
                self._run.export.dataset_id,
                self._run.tree,
                after_id=cursor[0],
                after_sub_id=cursor[1],
                last_id=self._run.export.last_id,
                most_rows=_GROUP_ROWS,
                most_bytes=_GROUP_BYTES,
            )

    def shaped(self, read: pa.Table) -> pa.Table:
        found = {name: read[name] for name in ANNOTATION_COLUMNS}
        return _table(found | {"item_path": read["path"]}, self.schema)


def _table(found: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    columns = [pc.cast(found[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


@dataclass(frozen=True, slots=True)
class _Group:
    rows: pa.Table
    cursor: Cursor  # behind them
    is_last: bool  # of the table


async def _write(run: Run, sink: Sink, source: _Items | _Annotations) -> Written:
    """Up to a million rows. While Arrow writes one group of them, PostgreSQL writes the next."""
    cursor = (run.export.after_id, run.export.after_sub_id)
    rows, is_last = 0, False
    arrived = _Arrived()
    with _writer(arrived, source.schema) as writer:
        async with aclosing(_groups(source, cursor)) as groups:
            async for group in groups:
                is_last, cursor = group.is_last, group.cursor
                if len(group.rows):
                    rows += len(group.rows)
                    await asyncio.to_thread(_write_group, writer, source, group.rows)
                    await sink.write(arrived.taken())
    await sink.write(arrived.taken())
    phase = run.export.phase
    progress = Progress(
        phase=phase + 1 if is_last else phase,
        after_id=0 if is_last else cursor[0],
        after_sub_id=0 if is_last else cursor[1],
        items=rows if phase == 0 else 0,
        annotations=rows if phase == 1 else 0,
    )
    return Written(source.noun, rows, progress)


def _writer(arrived: io.RawIOBase, schema: pa.Schema) -> pq.ParquetWriter:
    """What differs in each row gains nothing by a dictionary; nobody skips groups by the least text in them."""
    repeated = [field.name for field in schema if field.name not in _UNIQUE]
    measured = [field.name for field in schema if not pa.types.is_string(field.type) or field.name in ("id", "path")]
    return pq.ParquetWriter(
        arrived,
        schema,
        compression="zstd",
        compression_level=1,
        use_dictionary=repeated,  # pyright: ignore[reportArgumentType] a list is as good as a flag
        write_statistics=measured,  # pyright: ignore[reportArgumentType] a list is as good as a flag
    )


def _write_group(writer: pq.ParquetWriter, source: "_Items | _Annotations", read: pa.Table) -> None:
    writer.write_table(source.shaped(read), row_group_size=_GROUP_ROWS)


class _Arrived(io.RawIOBase):
    """Where Arrow writes: what has come is taken from it, and only counted from then on."""

    def __init__(self) -> None:
        super().__init__()
        self._chunks: list[bytes] = []
        self._size_bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, chunk: Any) -> int:
        self._chunks.append(bytes(chunk))
        self._size_bytes += len(self._chunks[-1])
        return len(self._chunks[-1])

    def tell(self) -> int:
        return self._size_bytes

    def taken(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        return b"".join(chunks)


async def _groups(source: "_Items | _Annotations", cursor: Cursor) -> AsyncGenerator[_Group]:
    """The groups of one file. While one is parsed and written, the next is read."""
    rows, has_more = 0, True
    task = asyncio.create_task(source.copy(cursor))
    try:
        while has_more:
            copied = await task
            rows += copied.rows
            is_last = copied.is_whole and copied.rows < _GROUP_ROWS
            has_more = not is_last and rows < FILE_ROWS
            cursor = copied.last or cursor
            if has_more:
                task = asyncio.create_task(source.copy(cursor))
            read = await asyncio.to_thread(_parsed, copied.csv, source)
            del copied
            yield _Group(read, cursor, is_last)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _parsed(csv: bytes, source: "_Items | _Annotations") -> pa.Table:
    names = list(source.names)
    types = {name: source.types.get(name, pa.string()) for name in names}
    if not csv:
        return pa.table({name: pa.array([], kind) for name, kind in types.items()})
    return pa_csv.read_csv(
        pa.BufferReader(csv),
        read_options=pa_csv.ReadOptions(column_names=names, block_size=len(csv)),
        parse_options=pa_csv.ParseOptions(delimiter=CSV_DELIMITER, quote_char=CSV_QUOTE, newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t", "true"],
            false_values=["f", "false"],
            check_utf8=False,
        ),
    )


async def _url_prefix(run: Run) -> str | None:
    """Of the URLs of objects; None in our own storage."""
    async with run.place.pool.connection() as conn:
        driver_id = await datasets.driver_of(conn, run.export.dataset_id)
        driver = None if driver_id is None else await drivers.get_driver(conn, driver_id)
    return None if driver is None else url_prefix_of(driver)


def url_prefix_of(driver: Driver) -> str:
    """As most tools write it: s3://bucket/folder/."""
    if driver.kind == "storage":
        return f"file://{driver.root.rstrip('/')}/{driver.prefix}"
    scheme = {"s3": "s3", "gcs": "gs"}.get(driver.kind, "az")
    return f"{scheme}://{driver.root}/{driver.prefix}"
