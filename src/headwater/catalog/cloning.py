"""Cloning: items of one dataset become items of another that name the same objects, without a byte copied.

A path that is taken in the target: by the same object, then there is nothing to clone; by another one, then the clone
gets a number behind its name, `a (2).jpg`, so that no item is lost and nothing is overwritten. The first to come keeps
the name.

Annotations are copied in the statement that adds their item, and so are the same that its count tells of.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed
from psycopg.types.json import Jsonb

from headwater.catalog import events, quotas, sharing
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.folders import ensure_folders, folder_of
from headwater.catalog.items import Item
from headwater.catalog.searchable import require_searchable_in
from headwater.catalog.selections import Selection
from headwater.errors import Conflict, NotFound

LONGEST_PATH_BYTES = 1_025  # as of an upload, the slash in front included
_MOST_NUMBERS = 10_000  # behind names
# What is of people and their tasks in `system_metadata`; what the bytes say goes along in any case.
_OF_PEOPLE = ["tags", "modalities"]
_OF_TASKS = ["refs", "annotationStatus"]
_MOST_ANNOTATIONS = 200_000  # of one piece, unless its first item has more


@dataclass(frozen=True, slots=True)
class Wish:
    """What becomes of each item, whichever dataset it comes from."""

    target_id: int
    driver_id: int | None  # of both datasets
    folder: str  # in front of each path: '' or '/a/b'
    with_metadata: bool
    with_task_status: bool
    creator_id: int | None
    with_annotations: bool = False
    is_merge: bool = False  # what is there already gets the annotations of its other originals, too
    with_collections: bool = False  # the target has the same ones, in the same slots


@dataclass(slots=True)
class Cloned:
    """What a piece came to."""

    last_id: int  # where the next one begins
    looked_at: int
    cloned: int = 0
    size_bytes: int = 0
    there_already: int = 0
    renamed: int = 0
    too_long: int = 0
    annotations: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    items: int
    size_bytes: int
    last_id: int
    there_already: int
    renamed: int


def _where(source_id: int, selection: Selection) -> tuple[Composed, dict[str, object]]:
    """What of a dataset can be cloned: neither our own files, nor the trash, nor ghosts."""
    where, parameters = selection.where(source_id)
    return where + SQL(" AND NOT item.hidden AND item.missing_since IS NULL"), parameters


def _same(is_own: bool) -> LiteralString:
    """Whether the rows `taken` and `item` name the same object."""
    if not is_own:
        return "coalesce(taken.object_key, substr(taken.path, 2)) = coalesce(item.object_key, substr(item.path, 2))"
    return """(
        coalesce(taken.origin_dataset_id, taken.dataset_id) = coalesce(item.origin_dataset_id, item.dataset_id)
            AND taken.object_key = item.object_key
        OR taken.object_key IS NULL AND item.object_key IS NULL AND taken.link = item.link
    )"""


async def preview(conn: AsyncConnection[Any], source_id: int, selection: Selection, wish: Wish) -> Preview:
    """What cloning these would come to now, where nothing else is cloned at the same time. Reads all of them.

    Raises BadRequest.
    """
    await require_searchable_in(conn, source_id, selection.tree)
    where, parameters = _where(source_id, selection)
    cursor = conn.cursor(row_factory=class_row(Preview))
    await cursor.execute(
        SQL(
            """
            SELECT count(*) AS items, coalesce(sum(item.size_bytes), 0)::bigint AS size_bytes,
                coalesce(max(item.id), 0) AS last_id,
                count(*) FILTER (WHERE taken.id IS NOT NULL AND ("""
        )
        + SQL(_same(wish.driver_id is None))
        + SQL(""")) AS there_already,
                count(*) FILTER (WHERE taken.id IS NOT NULL AND NOT coalesce(""")
        + SQL(_same(wish.driver_id is None))
        + SQL(""", false)) AS renamed
            FROM item
            LEFT JOIN item AS taken
                ON taken.dataset_id = %(clone_target)s AND taken.path = %(clone_folder)s || item.path
            WHERE """)
        + where,
        parameters | {"clone_target": wish.target_id, "clone_folder": wish.folder},
        prepare=False,
    )
    found = await cursor.fetchone()
    assert found is not None
    return found


async def count_missing(conn: AsyncConnection[Any], source_id: int, selection: Selection) -> int:
    """Ghosts among what is selected: they are not cloned."""
    where, parameters = selection.where(source_id)
    cursor = await conn.execute(
        SQL("SELECT count(*) FROM item WHERE item.missing_since IS NOT NULL AND NOT item.hidden AND ") + where,
        parameters,
        prepare=False,
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def clone_piece(
    conn: AsyncConnection[Any],
    source_id: int,
    selection: Selection,
    wish: Wish,
    *,
    after_id: int,
    last_id: int,
    limit: int,
) -> Cloned | None:
    """The next ones in the order of ids, in the caller's transaction; None at the end. Raises QuotaExceeded.

    Counters and events are part of it. Safe to repeat: what is there already is told so.
    """
    where, parameters = _where(source_id, selection)
    bounds = {
        "clone_after": after_id,
        "clone_last": last_id,
        "clone_limit": limit,
        "clone_most": _MOST_ANNOTATIONS if wish.with_annotations else None,
    }
    cursor = await conn.execute(
        SQL(
            """
            SELECT max(id), count(*), array_agg(DISTINCT folder_id), array_agg(DISTINCT origin_id),
                bool_or(annotations_count > 0)
            FROM (
                SELECT *, sum(annotations_count) OVER (ORDER BY id) - annotations_count AS annotations_before
                FROM (
                    SELECT item.id, item.folder_id, coalesce(item.origin_dataset_id, item.dataset_id) AS origin_id,
                        item.annotations_count
                    FROM item
                    WHERE item.id > %(clone_after)s AND item.id <= %(clone_last)s AND """
        )
        + where
        + SQL(
            """
                    ORDER BY item.id LIMIT %(clone_limit)s
                ) AS piece
            ) AS summed
            WHERE annotations_before < %(clone_most)s OR %(clone_most)s IS NULL
            """
        ),
        parameters | bounds,
        prepare=False,
    )
    row = await cursor.fetchone()
    assert row is not None
    through_id, number, folder_ids, origin_ids, is_annotated = row
    if not number:
        return None
    wish = replace(wish, with_annotations=wish.with_annotations and is_annotated)
    piece = Cloned(last_id=through_id, looked_at=number)
    origin_ids = [*{*origin_ids, source_id}]  # what is uploaded meanwhile lies in the source's own storage
    await sharing.lock_to_add(conn, [sharing.Where(wish.driver_id, origin_id) for origin_id in origin_ids])
    await _check_there(conn, source_id)
    room = await quotas.lock_room(conn, wish.target_id)
    where += SQL(" AND item.id > %(clone_after)s AND item.id <= %(clone_through)s")
    where += SQL(" AND coalesce(item.origin_dataset_id, item.dataset_id) = ANY(%(clone_origins)s)")
    parameters |= {"clone_after": after_id, "clone_through": through_id, "clone_origins": origin_ids}
    folders = await _target_folders(conn, source_id, wish, folder_ids)
    change = CounterChange()
    there = await _there_already(conn, wish, (where, parameters)) if wish.with_annotations and wish.is_merge else {}
    await _insert_at_their_paths(conn, source_id, wish, (where, parameters), folders, piece, change)
    if piece.cloned < number:
        await _settle_rest(conn, source_id, wish, (where, parameters), piece, change)
    if there:
        await _annotate(conn, source_id, wish, there, piece, change)
    if room is not None and piece.cloned:
        await quotas.take_room(conn, room, piece.cloned)
    await count(conn, wish.target_id, change)
    return piece


async def clone_one(conn: AsyncConnection[Any], item: Item, wish: Wish, path: str, *, may_be_another: bool) -> int:
    """The id of a clone of this item at this path; of the one that is there already, unless there may be another.

    A clone that comes second gets a number behind its name. Raises Conflict when the path is taken by something else,
    NotFound when the item is gone, QuotaExceeded.
    """
    change, piece = CounterChange(), Cloned(last_id=item.id, looked_at=1)
    places = {item.dataset_id, item.origin_dataset_id or item.dataset_id}
    await sharing.lock_to_add(conn, [sharing.Where(wish.driver_id, origin_id) for origin_id in places])
    await _check_there(conn, item.dataset_id)
    room = await quotas.lock_room(conn, wish.target_id)
    at, number = path, 1
    await _insert_at(conn, item.dataset_id, wish, [(item.id, at)], piece, change)
    while may_be_another and not piece.cloned and number < _MOST_NUMBERS:
        number += 1
        at = numbered(path, number)
        await _insert_at(conn, item.dataset_id, wish, [(item.id, at)], piece, change)
    if room is not None and piece.cloned:
        await quotas.take_room(conn, room, piece.cloned)
    await count(conn, wish.target_id, change)
    return await _id_of_clone(conn, item, wish, at)


async def _id_of_clone(conn: AsyncConnection[Any], item: Item, wish: Wish, path: str) -> int:
    statement: LiteralString = (
        "SELECT taken.id, coalesce("
        + _same(wish.driver_id is None)
        + ", false) FROM item JOIN item AS taken ON taken.dataset_id = %s AND taken.path = %s"
        + " WHERE item.dataset_id = %s AND item.id = %s"
    )
    cursor = await conn.execute(statement, [wish.target_id, path, item.dataset_id, item.id])
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"No item with id {item.id:024x}.")
    taken_id, is_same = row
    if not is_same:
        raise Conflict(
            f"There is another item at {path} already. Clone it to another path (remoteFileName), or allow many clones "
            "(allowMany): then it gets a number behind its name."
        )
    return taken_id


async def _target_folders(
    conn: AsyncConnection[Any], source_id: int, wish: Wish, folder_ids: Sequence[int]
) -> dict[int, int]:
    """Ids of folders of the source -> ids of the folders of the target in which clones of their items lie."""
    cursor = await conn.execute(
        "SELECT id, path FROM folder WHERE dataset_id = %s AND id = ANY(%s)", [source_id, list(folder_ids)]
    )
    paths = {folder_id: _below(wish.folder, path) for folder_id, path in await cursor.fetchall()}
    made = await ensure_folders(conn, wish.target_id, paths.values())
    return {folder_id: made[path] for folder_id, path in paths.items()}


def _below(front: str, folder: str) -> str:
    """The folder of `front` + path for the items whose paths lie in `folder`."""
    inner = folder if folder.strip("/") else folder[:-1]  # folders of slashes alone have one more
    return folder_of(f"{front}{inner}/name")


# Columns of a clone and where they come from; `object_key` differs with the kind of storage.
_COPIED: LiteralString = """
    item.size_bytes, item.modified_at, %(clone_creator)s, %(clone_creator)s, item.width_px, item.height_px,
    item.etl_state, item.etag, item.thumbnail_type, item.mime_type, item.link,
    CASE WHEN %(clone_metadata)s THEN item.description END,
    CASE WHEN %(clone_metadata)s THEN item.user_metadata END,
    CASE WHEN %(clone_metadata)s THEN item.metadata_edited_at END,
    item.system_metadata - %(clone_left_out)s::text[],
    coalesce(item.origin_dataset_id, item.dataset_id),
    CASE WHEN item.thumbnail_type IS NOT NULL THEN coalesce(item.thumbnail_id, item.id) END,
    CASE WHEN %(clone_annotations)s THEN item.annotations_count ELSE 0 END
"""
_INSERT: LiteralString = """
    INSERT INTO item (
        dataset_id, folder_id, path, object_key, size_bytes, modified_at, creator_id, updated_by_id, width_px,
        height_px, etl_state, etag, thumbnail_type, mime_type, link, description, user_metadata, metadata_edited_at,
        system_metadata, origin_dataset_id, thumbnail_id, annotations_count
    )
"""
_OWN_KEY: LiteralString = "item.object_key"  # none for links
_BUCKET_KEY: LiteralString = "coalesce(item.object_key, substr(item.path, 2))"
_RETURNED: LiteralString = """
    RETURNING id, path, size_bytes, etl_state, annotations_count
)
"""
_SUMMED: LiteralString = """
SELECT
    count(*), coalesce(sum(size_bytes), 0)::bigint, count(*) FILTER (WHERE etl_state = 1),
    count(*) FILTER (WHERE etl_state = 2), array_agg(id ORDER BY id) FILTER (WHERE etl_state = 0),
    coalesce(sum(annotations_count), 0)::bigint, count(*) FILTER (WHERE annotations_count > 0)
FROM added
"""
# Annotations of `pair` (original_id, target_id), in their order. One that has a parent on the same item has it here,
# too; people who made and changed them stay who they are.
_COPIED_ANNOTATIONS: LiteralString = """
, ordered AS MATERIALIZED (
    SELECT *, nextval('annotation_id_seq') AS new_id
    FROM (
        SELECT annotation.*, pair.target_id
        FROM pair
        JOIN annotation ON annotation.dataset_id = %(clone_source)s AND annotation.item_id = pair.original_id
        {unless}
        ORDER BY annotation.id
    ) AS copied
), copied AS (
    INSERT INTO annotation (
        dataset_id, id, item_id, created_at, updated_at, creator_id, updated_by_id, type, label, source, hash,
        description, coordinates, attributes, system_metadata, user_metadata, extra
    )
    SELECT
        %(clone_target)s, one.new_id, one.target_id, one.created_at, one.updated_at, one.creator_id,
        one.updated_by_id, one.type, one.label, one.source, one.hash, one.description, one.coordinates, one.attributes,
        (CASE WHEN parent.id IS NULL THEN one.system_metadata
            ELSE one.system_metadata || jsonb_build_object('parentId', lpad(to_hex(parent.new_id), 24, '0'))
        END) - %(clone_left_out_of_annotations)s::text[],
        one.user_metadata, one.extra
    FROM ordered AS one
    LEFT JOIN ordered AS parent
        ON parent.target_id = one.target_id
            AND lpad(to_hex(parent.id), 24, '0') = one.system_metadata ->> 'parentId'
    ORDER BY one.new_id
    RETURNING item_id
)
"""
_COPIED_WITH_ITEMS = _COPIED_ANNOTATIONS.replace("{unless}", "")
# Both may be clones of the same third item, and have its annotations already.
_COPIED_ONTO_ITEMS = _COPIED_ANNOTATIONS.replace(
    "{unless}",
    """
    WHERE NOT EXISTS (
        SELECT FROM annotation AS held
        WHERE held.dataset_id = %(clone_target)s AND held.item_id = pair.target_id
            AND held.type = annotation.type AND held.label = annotation.label
            AND held.coordinates IS NOT DISTINCT FROM annotation.coordinates
            AND held.attributes IS NOT DISTINCT FROM annotation.attributes
            AND held.user_metadata = annotation.user_metadata
            AND held.system_metadata - %(clone_of_annotations)s::text[]
                = annotation.system_metadata - %(clone_of_annotations)s::text[]
    )
    """,
)


def _wished(wish: Wish) -> dict[str, object]:
    left_out = [] if wish.with_metadata else _OF_PEOPLE
    left_out = left_out if wish.with_metadata and wish.with_task_status else left_out + _OF_TASKS
    left_out = left_out if wish.with_metadata and wish.with_collections else [*left_out, "collections"]
    return {
        "clone_target": wish.target_id,
        "clone_folder": wish.folder,
        "clone_creator": wish.creator_id,
        "clone_metadata": wish.with_metadata,
        "clone_left_out": left_out,
        "clone_longest": LONGEST_PATH_BYTES,
        "clone_annotations": wish.with_annotations,
        "clone_left_out_of_annotations": [] if wish.with_task_status else ["status"],
        "clone_of_annotations": ["status", "parentId"],
    }


async def _insert_at_their_paths(
    conn: AsyncConnection[Any],
    source_id: int,
    wish: Wish,
    chosen: tuple[Composed, dict[str, object]],
    folders: Mapping[int, int],
    piece: Cloned,
    change: CounterChange,
) -> None:
    """Those whose path is free. `ON CONFLICT` costs a third more for each row, so the first try does without."""
    where, parameters = chosen
    key = _OWN_KEY if wish.driver_id is None else _BUCKET_KEY
    head = (
        SQL("WITH added AS (")
        + SQL(_INSERT)
        + SQL("SELECT %(clone_target)s, folder.target_id, %(clone_folder)s || item.path, ")
        + SQL(key)
        + SQL(", ")
        + SQL(_COPIED)
        + SQL("""
            FROM item
            JOIN unnest(%(clone_from_folders)s::bigint[], %(clone_to_folders)s::bigint[]) AS folder (id, target_id)
                ON folder.id = item.folder_id
            WHERE octet_length(%(clone_folder)s || item.path) <= %(clone_longest)s AND """)
        + where
        + SQL(" ORDER BY item.path ")
    )
    tail = SQL(_RETURNED)
    if wish.with_annotations:
        tail += SQL(
            """
            , pair AS (
                SELECT original.id AS original_id, added.id AS target_id
                FROM added
                JOIN item AS original
                    ON original.dataset_id = %(clone_source)s
                        AND original.path = substr(added.path, length(%(clone_folder)s) + 1)
                WHERE added.annotations_count > 0
            )
            """
        ) + SQL(_COPIED_WITH_ITEMS)
    tail += SQL(_SUMMED)
    given = parameters | _wished(wish) | {"clone_source": source_id}
    given |= {"clone_from_folders": list(folders), "clone_to_folders": list(folders.values())}
    try:
        async with conn.transaction():
            cursor = await conn.execute(head + tail, given, prepare=False)
    except UniqueViolation:
        skip = SQL("ON CONFLICT (dataset_id, path) DO NOTHING")
        cursor = await conn.execute(head + skip + tail, given, prepare=False)
    await _add_up(conn, wish, await cursor.fetchone(), piece, change)


async def _add_up(
    conn: AsyncConnection[Any], wish: Wish, row: tuple[Any, ...] | None, piece: Cloned, change: CounterChange
) -> None:
    """What was not yet read of the originals is to be read of the clones, too."""
    assert row is not None
    cloned, size_bytes, prepared, failed, waiting, annotations, annotated_items = row
    piece.cloned += cloned
    piece.size_bytes += size_bytes
    change.items += cloned
    change.bytes += size_bytes
    change.prepared_items += prepared
    change.failed_items += failed
    piece.annotations += annotations
    change.annotations += annotations
    change.annotated_items += annotated_items
    await events.record_items(conn, wish.target_id, "Created", waiting or [])


async def _settle_rest(
    conn: AsyncConnection[Any],
    source_id: int,
    wish: Wish,
    chosen: tuple[Composed, dict[str, object]],
    piece: Cloned,
    change: CounterChange,
) -> None:
    """Those whose path was taken, or cannot be: find out why, and give a number to those that came second."""
    where, parameters = chosen
    same = _same(wish.driver_id is None)
    cursor = await conn.execute(
        SQL("SELECT item.id, item.path, octet_length(%(clone_folder)s || item.path) > %(clone_longest)s FROM item ")
        + SQL(
            "LEFT JOIN item AS taken ON taken.dataset_id = %(clone_target)s"
            " AND taken.path = %(clone_folder)s || item.path WHERE (taken.id IS NULL OR NOT coalesce("
        )
        + SQL(same)
        + SQL(", false)) AND ")
        + where
        + SQL(" ORDER BY item.id"),
        parameters | _wished(wish),
        prepare=False,
    )
    rows = await cursor.fetchall()
    left = [(item_id, wish.folder + path) for item_id, path, is_too_long in rows if not is_too_long]
    piece.too_long += len(rows) - len(left)
    for number in range(1, _MOST_NUMBERS):
        if not left:
            break
        # The first time at its own path: it may have come into the piece only now.
        wanted = [(item_id, numbered(path, number) if number > 1 else path) for item_id, path in left]
        fits = [len(path.encode()) <= LONGEST_PATH_BYTES for _, path in wanted]
        piece.too_long += fits.count(False)
        left = [one for one, does in zip(left, fits, strict=True) if does]
        wanted = [one for one, does in zip(wanted, fits, strict=True) if does]
        before = piece.cloned
        other = await _insert_at(conn, source_id, wish, wanted, piece, change)
        piece.renamed += piece.cloned - before if number > 1 else 0
        left = [one for one in left if one[0] in other]
    piece.there_already = piece.looked_at - piece.cloned - piece.too_long


def numbered(path: str, number: int) -> str:
    """`/a/b.jpg` -> `/a/b (2).jpg`; what begins with a dot has no extension."""
    folder, _, name = path.rpartition("/")
    stem, dot, extension = name.rpartition(".")
    if not stem:
        return f"{path} ({number})"
    return f"{folder}/{stem} ({number}){dot}{extension}"


_NAMED_PAIRS: LiteralString = """
, pair AS (
    SELECT wanted.id AS original_id, added.id AS target_id
    FROM added
    JOIN unnest(%(clone_ids)s::bigint[], %(clone_paths)s::text[]) AS wanted (id, path) ON wanted.path = added.path
    WHERE added.annotations_count > 0
)
"""


async def _insert_at(
    conn: AsyncConnection[Any],
    source_id: int,
    wish: Wish,
    wanted: Sequence[tuple[int, str]],
    piece: Cloned,
    change: CounterChange,
) -> set[int]:
    """Clones of (id, path) at these paths. Returns those for which there is another object already."""
    if not wanted:
        return set()
    folders = [folder_of(path) for _, path in wanted]
    folder_ids = await ensure_folders(conn, wish.target_id, folders)
    given = _wished(wish) | {
        "clone_source": source_id,
        "clone_ids": [item_id for item_id, _ in wanted],
        "clone_paths": [path for _, path in wanted],
        "clone_folders": [folder_ids[folder] for folder in folders],
    }
    key = _OWN_KEY if wish.driver_id is None else _BUCKET_KEY
    source: LiteralString = """
        FROM unnest(%(clone_ids)s::bigint[], %(clone_paths)s::text[], %(clone_folders)s::bigint[])
            AS wanted (id, path, folder_id)
        JOIN item ON item.dataset_id = %(clone_source)s AND item.id = wanted.id
    """
    statement: LiteralString = (
        "WITH added AS ("
        + _INSERT
        + "SELECT %(clone_target)s, wanted.folder_id, wanted.path, "
        + key
        + ", "
        + _COPIED
        + source
        + " ORDER BY wanted.path ON CONFLICT (dataset_id, path) DO NOTHING"
        + _RETURNED
        + (_NAMED_PAIRS + _COPIED_WITH_ITEMS if wish.with_annotations else "")
        + _SUMMED
    )
    cursor = await conn.execute(statement, given, prepare=False)
    await _add_up(conn, wish, await cursor.fetchone(), piece, change)
    statement = (
        "SELECT item.id "
        + source
        + " JOIN item AS taken ON taken.dataset_id = %(clone_target)s AND taken.path = wanted.path"
        + " WHERE NOT coalesce("
        + _same(wish.driver_id is None)
        + ", false)"
    )
    cursor = await conn.execute(statement, given, prepare=False)
    return {item_id for (item_id,) in await cursor.fetchall()}


async def _there_already(
    conn: AsyncConnection[Any], wish: Wish, chosen: tuple[Composed, dict[str, object]]
) -> dict[int, int]:
    """Of those that have annotations: id -> id of the item in the target that has the same object at the same path.

    These are locked, in the order of their ids.
    """
    where, parameters = chosen
    cursor = await conn.execute(
        SQL(
            "SELECT item.id, taken.id FROM item JOIN item AS taken ON taken.dataset_id = %(clone_target)s"
            " AND taken.path = %(clone_folder)s || item.path WHERE item.annotations_count > 0 AND coalesce("
        )
        + SQL(_same(wish.driver_id is None))
        + SQL(", false) AND ")
        + where
        + SQL(" ORDER BY taken.id FOR NO KEY UPDATE OF taken"),
        parameters | _wished(wish),
        prepare=False,
    )
    return dict(await cursor.fetchall())


async def _annotate(
    conn: AsyncConnection[Any],
    source_id: int,
    wish: Wish,
    pairs: Mapping[int, int],
    piece: Cloned,
    change: CounterChange,
) -> None:
    """Copy annotations onto items that are there already (original -> target), as far as they do not have them."""
    statement: LiteralString = (
        """
        WITH pair AS (
            SELECT *
            FROM unnest(%(clone_originals)s::bigint[], %(clone_targets)s::bigint[]) AS pair (original_id, target_id)
        )
        """
        + _COPIED_ONTO_ITEMS
        + """
        , per_item AS (
            SELECT item_id, count(*) AS number FROM copied GROUP BY item_id
        ), changed AS (
            UPDATE item
            SET annotations_count = annotations_count + number
            FROM per_item
            WHERE item.dataset_id = %(clone_target)s AND item.id = per_item.item_id
            RETURNING number, annotations_count = number AS is_first
        )
        SELECT coalesce(sum(number), 0)::bigint, count(*) FILTER (WHERE is_first) FROM changed
        """
    )
    given = _wished(wish) | {
        "clone_source": source_id,
        "clone_originals": list(pairs),
        "clone_targets": list(pairs.values()),
    }
    cursor = await conn.execute(statement, given, prepare=False)
    row = await cursor.fetchone()
    assert row is not None
    annotations, newly_annotated = row
    piece.annotations += annotations
    change.annotations += annotations
    change.annotated_items += newly_annotated


async def note_origin(conn: AsyncConnection[Any], dataset_id: int, kind: str, source_ids: Sequence[int]) -> None:
    """It is made of other datasets from now on."""
    await conn.execute(
        "UPDATE dataset SET origin = %s WHERE id = %s AND origin IS NULL",
        [Jsonb({"kind": kind, "datasets": list(source_ids)}), dataset_id],
    )


async def is_untouched(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Whether it has no item and never had a sync. Locks it: no sync begins before this transaction ends."""
    await conn.execute("SELECT FROM dataset WHERE id = %s FOR UPDATE", [dataset_id])
    cursor = await conn.execute(
        """
        SELECT NOT EXISTS (SELECT FROM item WHERE item.dataset_id = %(id)s)
            AND NOT EXISTS (SELECT FROM scan WHERE scan.dataset_id = %(id)s)
        """,
        {"id": dataset_id},
    )
    row = await cursor.fetchone()
    return row is not None and row[0]


async def _check_there(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Under the lock of its objects: who purges it waits, and sees the clones then. Raises NotFound."""
    cursor = await conn.execute("SELECT name FROM dataset WHERE id = %s AND deleted_at IS NULL", [dataset_id])
    if await cursor.fetchone() is None:
        raise NotFound(f"Dataset {dataset_id:024x} was deleted while it was cloned.")
