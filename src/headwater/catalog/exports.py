"""Exports: how far one is, its files, what it reads page by page, and what has changed since a version.

A version is a horizon: transactions below it had ended when its export began to read, so that export has all they
wrote. What is written by any other transaction, however early it began, counts as changed since: nothing is lost
that commits late, and something may come twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composable, Composed, Literal
from psycopg.types.json import Jsonb

from headwater.catalog import query
from headwater.catalog.fields import ANNOTATION_FIELDS
from headwater.catalog.items import SELECT_ITEM, Item, with_targets

PAGE_ITEMS = 1_000
DELETIONS_NOTED = 0  # the version that marks it
_YOUNG = timedelta(minutes=5)  # who ended it may be cleaning up just now


@dataclass(frozen=True, slots=True)
class Export:
    command_id: int
    dataset_id: int
    binaries_id: int
    asked: dict[str, Any]
    total: int
    last_id: int
    phase: int
    after_id: int
    after_sub_id: int
    items: int
    annotations: int
    removed: int


@dataclass(frozen=True, slots=True)
class Progress:
    """What one more file, or piece, adds; and the cursor after it."""

    phase: int
    after_id: int
    after_sub_id: int = 0
    items: int = 0
    annotations: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class ExportFile:
    name: str
    key: str
    item_id: int | None
    records: int
    size_bytes: int
    directory_bytes: int
    md5: str
    sha256: str


_COLUMNS = """
    export.command_id, export.dataset_id, export.binaries_id, export.asked, export.total, export.last_id, export.phase,
    export.after_id, export.after_sub_id, export.items, export.annotations, export.removed
"""


async def add(
    conn: AsyncConnection[Any],
    command_id: int,
    *,
    dataset_id: int,
    binaries_id: int,
    asked: dict[str, Any],
    total: int,
    last_id: int,
) -> None:
    """Beside its command, which is there already."""
    await conn.execute(
        """
        INSERT INTO export (command_id, dataset_id, binaries_id, asked, total, last_id)
        VALUES (%s, %s, %s, %s, %s, %s)
        """,
        [command_id, dataset_id, binaries_id, Jsonb(asked), total, last_id],
    )


async def find(conn: AsyncConnection[Any], command_id: int) -> Export | None:
    cursor = conn.cursor(row_factory=class_row(Export))
    await cursor.execute("SELECT " + _COLUMNS + " FROM export WHERE command_id = %s", [command_id])
    return await cursor.fetchone()


async def add_asked(conn: AsyncConnection[Any], command_id: int, more: dict[str, Any]) -> None:
    """What only its job finds out, and has to know when it is repeated."""
    await conn.execute("UPDATE export SET asked = asked || %s WHERE command_id = %s", [Jsonb(more), command_id])


async def set_last(conn: AsyncConnection[Any], command_id: int, last_id: int) -> None:
    """Up to which item it reads, when that is known only to its job."""
    await conn.execute("UPDATE export SET last_id = %s WHERE command_id = %s", [last_id, command_id])


async def move_on(conn: AsyncConnection[Any], before: Export, progress: Progress) -> bool:
    """Move the cursor, under the lock of the command. False when another worker was quicker."""
    cursor = await conn.execute(
        """
        UPDATE export
        SET phase = %(phase)s, after_id = %(after_id)s, after_sub_id = %(after_sub_id)s,
            items = items + %(items)s, annotations = annotations + %(annotations)s, removed = removed + %(removed)s
        WHERE command_id = %(command_id)s
            AND (phase, after_id, after_sub_id) = (%(was_phase)s, %(was_after_id)s, %(was_after_sub_id)s)
        """,
        {
            "phase": progress.phase,
            "after_id": progress.after_id,
            "after_sub_id": progress.after_sub_id,
            "items": progress.items,
            "annotations": progress.annotations,
            "removed": progress.removed,
            "command_id": before.command_id,
            "was_phase": before.phase,
            "was_after_id": before.after_id,
            "was_after_sub_id": before.after_sub_id,
        },
    )
    return bool(cursor.rowcount)


async def add_file(conn: AsyncConnection[Any], command_id: int, file: ExportFile) -> None:
    """Behind those that there are, under the lock of the command."""
    await conn.execute(
        """
        INSERT INTO export_file (
            command_id, number, name, key, item_id, records, size_bytes, directory_bytes, md5, sha256
        )
        SELECT %(command_id)s, coalesce(max(number) + 1, 0), %(name)s, %(key)s, %(item_id)s, %(records)s,
            %(size_bytes)s, %(directory_bytes)s, %(md5)s, %(sha256)s
        FROM export_file
        WHERE command_id = %(command_id)s
        """,
        {
            "command_id": command_id,
            "name": file.name,
            "key": file.key,
            "item_id": file.item_id,
            "records": file.records,
            "size_bytes": file.size_bytes,
            "directory_bytes": file.directory_bytes,
            "md5": file.md5,
            "sha256": file.sha256,
        },
    )


async def list_files(conn: AsyncConnection[Any], command_id: int) -> list[ExportFile]:
    cursor = conn.cursor(row_factory=class_row(ExportFile))
    await cursor.execute(
        """
        SELECT name, key, item_id, records, size_bytes, directory_bytes, md5, sha256
        FROM export_file
        WHERE command_id = %s
        ORDER BY number
        """,
        [command_id],
    )
    return await cursor.fetchall()


# What is dropped.


async def find_left(conn: AsyncConnection[Any], *, after: timedelta) -> list[Export]:
    """What is to be dropped; at most 100: those that ended well so long ago, and those that ended otherwise."""
    cursor = conn.cursor(row_factory=class_row(Export))
    await cursor.execute(
        "SELECT "
        + _COLUMNS
        + """
        FROM export
        JOIN command ON command.id = export.command_id
        WHERE export.dropped_at IS NULL AND command.status NOT IN ('created', 'in-progress')
            AND command.updated_at < now() - CASE WHEN command.status = 'success' THEN %s ELSE %s END
        ORDER BY export.command_id
        LIMIT 100
        """,
        [after, _YOUNG],
    )
    return await cursor.fetchall()


async def find_with_pieces(conn: AsyncConnection[Any]) -> list[Export]:
    """Those that ended well and whose pieces are there although the whole is; at most 100."""
    cursor = conn.cursor(row_factory=class_row(Export))
    await cursor.execute(
        "SELECT "
        + _COLUMNS
        + """
        FROM export
        JOIN command ON command.id = export.command_id
        WHERE export.dropped_at IS NULL AND command.status = 'success' AND command.updated_at < now() - %s
            AND EXISTS (
                SELECT FROM export_file WHERE export_file.command_id = export.command_id AND export_file.name = ''
            )
        ORDER BY export.command_id
        LIMIT 100
        """,
        [_YOUNG],
    )
    return await cursor.fetchall()


async def forget_pieces(conn: AsyncConnection[Any], command_id: int) -> None:
    await conn.execute("DELETE FROM export_file WHERE command_id = %s AND name = ''", [command_id])


async def find_kept(conn: AsyncConnection[Any], dataset_id: int) -> list[Export]:
    """Of one dataset, whose files are still kept."""
    cursor = conn.cursor(row_factory=class_row(Export))
    await cursor.execute(
        "SELECT " + _COLUMNS + " FROM export WHERE dataset_id = %s AND dropped_at IS NULL ORDER BY command_id",
        [dataset_id],
    )
    return await cursor.fetchall()


async def note_dropped(conn: AsyncConnection[Any], command_id: int) -> None:
    await conn.execute("UPDATE export SET dropped_at = now() WHERE command_id = %s", [command_id])


# What is read.


async def read_one_moment(conn: AsyncConnection[Any]) -> None:
    """What is asked in this transaction is answered as of its first statement. Call it first."""
    await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")


_BOUNDS = " AND item.id > %(after_id)s AND item.id <= %(last_id)s"


async def next_items(
    conn: AsyncConnection[Any],
    dataset_id: int,
    tree: query.Tree,
    *,
    after_id: int,
    last_id: int,
    limit: int,
    reader_id: int | None,
) -> list[Item]:
    """The next ones in the order of ids."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(
        SQL(SELECT_ITEM) + SQL("WHERE ") + where + SQL(_BOUNDS) + SQL(" ORDER BY item.id LIMIT %(limit)s"),
        parameters | {"after_id": after_id, "last_id": last_id, "limit": limit},
        prepare=False,
    )
    return await with_targets(conn, await cursor.fetchall(), reader_id)


async def second_of_stems(
    conn: AsyncConnection[Any], dataset_id: int, tree: query.Tree, stems: Mapping[int, str]
) -> set[int]:
    """Of these items, each with its path without the extension, those that an older chosen item has the same of."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    older = SQL("SELECT FROM item WHERE ") + where + SQL(" AND item.id < asked.id AND ")
    cursor = await conn.execute(
        SQL("SELECT asked.id FROM unnest(%(ids)s::bigint[], %(stems)s::text[]) AS asked (id, stem) WHERE EXISTS (")
        + older
        + SQL("item.path = asked.stem) OR EXISTS (")
        + older
        + SQL("""item.path > asked.stem || '.' AND item.path < asked.stem || '/'
            AND substr(item.path, length(asked.stem) + 2) !~ '[./]')"""),
        parameters | {"ids": list(stems), "stems": list(stems.values())},
        prepare=False,
    )
    return {item_id for (item_id,) in await cursor.fetchall()}


async def matching_annotations(
    conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int], tree: query.Tree
) -> set[int]:
    """Of the annotations of these items those that a filter chooses. Raises BadRequest."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id, fields=ANNOTATION_FIELDS)
    cursor = await conn.execute(
        SQL("SELECT annotation.id FROM annotation WHERE annotation.item_id = ANY(%(among)s) AND ") + where,
        parameters | {"among": list(item_ids)},
        prepare=False,
    )
    return {annotation_id for (annotation_id,) in await cursor.fetchall()}


# Versions.


async def cluster(conn: AsyncConnection[Any]) -> int:
    """Which PostgreSQL this is: one that was restored from a dump is another."""
    row = await (await conn.execute("SELECT system_identifier FROM pg_control_system()")).fetchone()
    assert row is not None
    return row[0]


async def note_deletions(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """From now on, once this has committed and whoever was at work then has ended: see `everybody_before`."""
    await conn.execute(
        """
        INSERT INTO dataset_version (dataset_id, number, horizon, cluster)
        VALUES (%s, %s, 0, 0)
        ON CONFLICT DO NOTHING
        """,
        [dataset_id, DELETIONS_NOTED],
    )


async def next_transaction(conn: AsyncConnection[Any]) -> int:
    """Every transaction that has an id now is below it."""
    row = await (await conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")).fetchone()
    assert row is not None
    return row[0]


async def horizon(conn: AsyncConnection[Any]) -> int:
    """Every transaction below it has ended, so whoever reads from now on sees what it wrote."""
    row = await (await conn.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")).fetchone()
    assert row is not None
    return row[0]


async def find_horizon(conn: AsyncConnection[Any], dataset_id: int, number: int, cluster_id: int) -> int | None:
    """Of a version; None for one that is not there, or that another PostgreSQL made."""
    cursor = await conn.execute(
        "SELECT horizon FROM dataset_version WHERE dataset_id = %s AND number = %s AND cluster = %s",
        [dataset_id, number, cluster_id],
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def newest_version(conn: AsyncConnection[Any], dataset_id: int) -> int:
    """0 when there is none."""
    cursor = await conn.execute(
        "SELECT coalesce(max(number), 0) FROM dataset_version WHERE dataset_id = %s", [dataset_id]
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def add_version(conn: AsyncConnection[Any], dataset_id: int, horizon_id: int, cluster_id: int) -> int:
    """Its number. Versions of one dataset are made one after the other."""
    await conn.execute(
        "SELECT FROM dataset_version WHERE dataset_id = %s AND number = %s FOR UPDATE", [dataset_id, DELETIONS_NOTED]
    )
    cursor = await conn.execute(
        """
        INSERT INTO dataset_version (dataset_id, number, horizon, cluster)
        SELECT %(dataset_id)s, max(number) + 1, %(horizon)s, %(cluster)s
        FROM dataset_version
        WHERE dataset_id = %(dataset_id)s
        RETURNING number
        """,
        {"dataset_id": dataset_id, "horizon": horizon_id, "cluster": cluster_id},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def forget_versions(conn: AsyncConnection[Any], *, after: timedelta) -> None:
    """Versions that old, but never a dataset's newest; and the deletions that all versions left have seen."""
    await conn.execute(
        """
        DELETE FROM dataset_version AS old
        WHERE number > %s AND made_at < now() - %s AND EXISTS (
            SELECT FROM dataset_version AS newer
            WHERE newer.dataset_id = old.dataset_id AND newer.number > old.number
        )
        """,
        [DELETIONS_NOTED, after],
    )
    await conn.execute(
        """
        DELETE FROM deleted_item
        USING (
            SELECT dataset_id, min(horizon) AS horizon
            FROM dataset_version
            WHERE number > %s
            GROUP BY dataset_id
        ) AS oldest
        WHERE deleted_item.dataset_id = oldest.dataset_id AND deleted_item.deleted_by < oldest.horizon
        """,
        [DELETIONS_NOTED],
    )


async def forget_all(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Nobody asks any more what has changed in it."""
    await conn.execute("DELETE FROM dataset_version WHERE dataset_id = %s", [dataset_id])
    await conn.execute("DELETE FROM deleted_item WHERE dataset_id = %s", [dataset_id])


@dataclass(frozen=True, slots=True)
class Changed:
    id: int
    path: str
    is_chosen: bool  # by the filter, as the item is now


_CHANGED = """
    item.id > %(after_id)s AND item.id <= %(last_id)s AND (
        written_by(item.xmin, now_at.next_id) >= %(horizon)s
        OR (
            item.annotations_count > 0 AND EXISTS (
                SELECT FROM annotation
                WHERE annotation.dataset_id = item.dataset_id AND annotation.item_id = item.id
                    AND written_by(annotation.xmin, now_at.next_id) >= %(horizon)s
            )
        )
    )
"""


async def next_changed(
    conn: AsyncConnection[Any],
    dataset_id: int,
    tree: query.Tree,
    *,
    horizon_id: int,
    after_id: int,
    last_id: int,
    limit: int,
) -> list[Changed]:
    """The next ones, in the order of ids, whose row or annotations were written since."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    cursor = conn.cursor(row_factory=class_row(Changed))
    await cursor.execute(
        SQL("SELECT item.id, item.path, (")
        + where
        + SQL(") IS TRUE AS is_chosen FROM item, ")
        + SQL("(SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next_id) AS now_at ")
        + SQL("WHERE item.dataset_id = %(dataset_id)s AND ")
        + SQL(_CHANGED)
        + SQL(" ORDER BY item.id LIMIT %(limit)s"),
        parameters | {"horizon": horizon_id, "after_id": after_id, "last_id": last_id, "limit": limit},
        prepare=False,
    )
    return await cursor.fetchall()


async def last_item(conn: AsyncConnection[Any], dataset_id: int) -> int:
    cursor = await conn.execute("SELECT coalesce(max(id), 0) FROM item WHERE dataset_id = %s", [dataset_id])
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def next_deleted(
    conn: AsyncConnection[Any], dataset_id: int, *, horizon_id: int, after_id: int, limit: int
) -> list[tuple[int, str]]:
    """(id, path) of the next ones, in the order of ids, that were deleted since."""
    cursor = await conn.execute(
        """
        SELECT item_id, path
        FROM deleted_item
        WHERE dataset_id = %s AND item_id > %s AND deleted_by >= %s
        ORDER BY item_id
        LIMIT %s
        """,
        [dataset_id, after_id, horizon_id, limit],
    )
    return await cursor.fetchall()


# Columns, for Parquet: rows as CSV, which PostgreSQL writes and Arrow reads faster than anybody makes objects of them.
# Its delimiter and its quote are characters that next to no text has: JSON is full of commas and quotes, and what is
# quoted twice takes time twice.

CSV_DELIMITER = "\x02"
CSV_QUOTE = "\x01"

ITEM_COLUMNS = (
    "number",
    "id",
    "path",
    "size_bytes",
    "mime_type",
    "width_px",
    "height_px",
    "created_at",
    "updated_at",
    "modified_at",
    "creator",
    "updated_by",
    "etag",
    "hidden",
    "missing",
    "key",
    "link",
    "annotations_count",
    "preprocessing",
    "description",
    "user_metadata",
    "system_metadata",
)
COPIED_ITEM_COLUMNS = """
    item.id, lpad(to_hex(item.id), 24, '0'), item.path, item.size_bytes, item.mime_type, item.width_px, item.height_px,
    item.created_at, item.updated_at, item.modified_at, creator.email, updater.email, item.etag,
    item.hidden OR item.trashed_at IS NOT NULL, item.missing_since IS NOT NULL,
    coalesce(item.object_key, substr(item.path, 2)), CASE item.link ->> 'kind' WHEN 'url' THEN item.link ->> 'ref' END,
    item.annotations_count, item.etl_state, item.description, item.user_metadata::text, item.system_metadata::text
"""
COPIED_ITEM_TABLES = """
    FROM item
    LEFT JOIN account AS creator ON creator.id = item.creator_id
    LEFT JOIN account AS updater ON updater.id = item.updated_by_id
    WHERE
"""

ANNOTATION_COLUMNS = (
    "item_number",
    "number",
    "id",
    "item_id",
    "path",
    "type",
    "label",
    "created_at",
    "updated_at",
    "creator",
    "updated_by",
    "source",
    "description",
    "attributes",
    "coordinates",
    "user_metadata",
    "system_metadata",
)
_ANNOTATION_COLUMNS = """
    item.id, annotation.id, lpad(to_hex(annotation.id), 24, '0'), lpad(to_hex(item.id), 24, '0'), item.path,
    annotation.type, annotation.label, annotation.created_at, annotation.updated_at, creator.email, updater.email,
    annotation.source, annotation.description, annotation.attributes::text, annotation.coordinates::text,
    annotation.user_metadata::text, annotation.system_metadata::text
"""
_ANNOTATION_TABLES = """
    FROM annotation
    JOIN item ON item.dataset_id = annotation.dataset_id AND item.id = annotation.item_id
    LEFT JOIN account AS creator ON creator.id = annotation.creator_id
    LEFT JOIN account AS updater ON updater.id = annotation.updated_by_id
    WHERE annotation.dataset_id = %(dataset_id)s AND annotation.item_id <= %(last_id)s
        AND (annotation.item_id, annotation.id) > (%(after_id)s, %(after_sub_id)s) AND
"""


@dataclass(frozen=True, slots=True)
class ExtraColumn:
    """A path of the metadata as a column of its own. What is not of its type is NULL there."""

    name: str  # as filters have it: metadata.user.camera
    kind: str  # string, double, int64, bool

    @property
    def document(self) -> Composable:
        return SQL("item.user_metadata" if self.name.split(".")[1] == "user" else "item.system_metadata")

    @property
    def keys(self) -> list[str]:
        return self.name.split(".")[2:]


def _read(column: ExtraColumn, parameter: str) -> Composed:
    """Its value as text that Arrow reads as its type."""
    value = SQL("{} #> {}::text[]").format(column.document, SQL("%({})s").format(SQL(parameter)))  # pyright: ignore[reportArgumentType] a name of ours
    text = SQL("({} #>> {}::text[])").format(column.document, SQL("%({})s").format(SQL(parameter)))  # pyright: ignore[reportArgumentType] a name of ours
    if column.kind == "string":
        return SQL("CASE WHEN jsonb_typeof({}) <> 'null' THEN {} END").format(value, text)
    if column.kind == "bool":
        return SQL("CASE WHEN jsonb_typeof({}) = 'boolean' THEN {} END").format(value, text)
    fits = _INTEGER if column.kind == "int64" else _DOUBLE
    return SQL("CASE WHEN jsonb_typeof({}) = 'number' THEN CASE WHEN {} THEN {} END END").format(
        value, fits.format(text), text
    )


_INTEGER = SQL("{0}::numeric = trunc({0}::numeric) AND abs({0}::numeric) < 9223372036854775807")
_DOUBLE = SQL("abs({}::numeric) < 1e308")


async def kinds_of(
    conn: AsyncConnection[Any], dataset_id: int, tree: query.Tree, columns: Sequence[ExtraColumn]
) -> list[set[str]]:
    """Which kinds of JSON values occur in each: integer, number, string, boolean, array, object. Reads all items."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    asked: list[Composable] = []
    for place, column in enumerate(columns):
        parameter = SQL("%({})s").format(SQL(f"column_{place}"))  # pyright: ignore[reportArgumentType] a name of ours
        value = SQL("{} #> {}::text[]").format(column.document, parameter)
        text = SQL("({} #>> {}::text[])").format(column.document, parameter)
        parameters[f"column_{place}"] = column.keys
        asked.append(
            SQL(
                "array_agg(DISTINCT CASE jsonb_typeof({0}) WHEN 'number' THEN CASE WHEN {1} THEN 'integer' ELSE "
            ).format(value, _INTEGER.format(text))
            + SQL("'number' END ELSE jsonb_typeof({}) END)").format(value)
        )
    statement = SQL("SELECT ") + SQL(", ").join(asked) + SQL(" FROM item WHERE ") + where
    row = await (await conn.execute(statement, parameters, prepare=False)).fetchone()
    return [{kind for kind in found or [] if kind not in (None, "null")} for found in row or []]


@dataclass(frozen=True, slots=True)
class Copied:
    """Some rows, one CSV record each."""

    csv: bytes
    rows: int
    last: tuple[int, int] | None  # the ids that its last record begins with: where to go on
    is_whole: bool  # and not cut because of its size


async def copy_items(
    conn: AsyncConnection[Any],
    dataset_id: int,
    tree: query.Tree,
    extra: Sequence[ExtraColumn],
    *,
    after_id: int,
    last_id: int,
    most_rows: int,
    most_bytes: int,
) -> Copied:
    """Rows of `ITEM_COLUMNS` and the extra ones, in the order of ids. The transaction is over after it."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    parameters |= {"after_id": after_id, "last_id": last_id, "limit": most_rows}
    columns: list[Composable] = [SQL(COPIED_ITEM_COLUMNS)]
    for place, column in enumerate(extra):
        parameters[f"column_{place}"] = column.keys
        columns.append(_read(column, f"column_{place}"))
    statement = SQL("SELECT ") + SQL(", ").join(columns) + SQL(COPIED_ITEM_TABLES) + where + SQL(_BOUNDS)
    return await _copied(
        conn, statement + SQL(" ORDER BY item.id LIMIT %(limit)s"), parameters, most_bytes, cursor_columns=1
    )


async def copy_annotations(
    conn: AsyncConnection[Any],
    dataset_id: int,
    tree: query.Tree,
    *,
    after_id: int,
    after_sub_id: int,
    last_id: int,
    most_rows: int,
    most_bytes: int,
) -> Copied:
    """Rows of `ANNOTATION_COLUMNS`, of the items that are chosen, in their order. The transaction is over after it."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    parameters |= {"after_id": after_id, "after_sub_id": after_sub_id, "last_id": last_id, "limit": most_rows}
    statement = SQL("SELECT ") + SQL(_ANNOTATION_COLUMNS) + SQL(_ANNOTATION_TABLES) + where
    order = SQL(" ORDER BY annotation.item_id, annotation.id LIMIT %(limit)s")
    return await _copied(conn, statement + order, parameters, most_bytes, cursor_columns=2)


async def _copied(
    conn: AsyncConnection[Any],
    statement: Composed,
    parameters: dict[str, object],
    most_bytes: int,
    *,
    cursor_columns: int,
) -> Copied:
    """PostgreSQL sends a record at a time, so it can be cut between any two."""
    records: list[bytes] = []
    size_bytes = 0
    options = SQL(") TO STDOUT (FORMAT csv, DELIMITER {}, QUOTE {})").format(Literal(CSV_DELIMITER), Literal(CSV_QUOTE))
    try:
        async with conn.cursor() as cursor, cursor.copy(SQL("COPY (") + statement + options, parameters) as copy:
            async for record in copy:
                records.append(bytes(record))
                size_bytes += len(record)
                if size_bytes >= most_bytes:
                    _stop()
    except _Enough:
        return Copied(b"".join(records), len(records), _cursor_of(records[-1], cursor_columns), is_whole=False)
    last = _cursor_of(records[-1], cursor_columns) if records else None
    return Copied(b"".join(records), len(records), last, is_whole=True)


def _cursor_of(record: bytes, columns: int) -> tuple[int, int]:
    numbers = record.split(CSV_DELIMITER.encode(), columns)[:columns]
    return int(numbers[0]), int(numbers[1]) if columns > 1 else 0


class _Enough(Exception):
    """By which a copy is cancelled."""


def _stop() -> NoReturn:
    raise _Enough
