"""Unsearchable paths: metadata that somebody took out of searching. No filter looks there, no column covers it."""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog.columns import tables
from headwater.catalog.fields import DEEPEST, check_text
from headwater.catalog.query import And, Condition, ElementMatch, HasAnnotation, Not, OfItem, Or, Tree
from headwater.errors import BadRequest, NotFound

MOST_PATHS = 100
_LONGEST_PATH = 1_000
_ROOTS = ("metadata.user.", "metadata.system.")


def is_below(path: str, above: Iterable[str]) -> bool:
    """Whether it is one of these paths, or lies in what one of them leads to."""
    return any(path == one or path.startswith(one + ".") for one in above)


def require_searchable(unsearchable: Sequence[str], tree: Tree | None, sort: Iterable[str] = ()) -> None:
    """Raises BadRequest for a filter or an order that looks at such a path."""
    if not unsearchable:
        return
    for path in (*_fields(tree), *sort):
        if is_below(path, unsearchable):
            raise BadRequest(
                f"{path} was taken out of searching in this dataset. To search it again: headwater schema DATASET "
                f"--searchable {path}, or dataset.schema.unsearchable_paths.remove([{path!r}])."
            )


def require_searchable_items(unsearchable: Sequence[str], tree: Tree) -> None:
    """The same for a tree over fields of annotations, of what it asks of their items. Raises BadRequest."""
    for part in _of_items(tree):
        require_searchable(unsearchable, part)


def _fields(tree: Tree | None) -> Iterable[str]:
    """What it asks of items, in full."""
    match tree:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _fields(part)
        case Not(part):
            yield from _fields(part)
        case Condition():
            yield tree.field
        case ElementMatch():
            yield tree.field
            for inner in _fields(tree.part):
                yield f"{tree.field}.{inner}"
        case HasAnnotation() | OfItem() | None:
            pass


def _of_items(tree: Tree) -> Iterable[Tree]:
    match tree:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _of_items(part)
        case Not(part):
            yield from _of_items(part)
        case OfItem(part):
            yield part
        case Condition() | ElementMatch() | HasAnnotation():
            pass


async def require_searchable_in(conn: AsyncConnection[Any], dataset_id: int, tree: Tree | None) -> None:
    """Raises BadRequest."""
    cursor = await conn.execute("SELECT unsearchable_paths FROM dataset WHERE id = %s", [dataset_id])
    row = await cursor.fetchone()
    require_searchable([] if row is None else row[0], tree)


async def change_unsearchable(
    conn: AsyncConnection[Any], dataset_id: int, *, add: Sequence[str] = (), remove: Sequence[str] = ()
) -> list[str]:
    """Returns all there are then. Raises BadRequest, NotFound for one to remove that is none."""
    for path in add:
        _check_path(path)
    cursor = await conn.execute("SELECT unsearchable_paths FROM dataset WHERE id = %s FOR NO KEY UPDATE", [dataset_id])
    row = await cursor.fetchone()
    before: list[str] = [] if row is None else row[0]
    for path in remove:
        if path not in before:
            told = ", ".join(before) or "none"
            raise NotFound(f"{path[:200]} is no unsearchable path of this dataset. These are: {told}.")
    after = sorted((set(before) | set(add)) - set(remove))
    if len(after) > MOST_PATHS:
        raise BadRequest(f"A dataset has at most {MOST_PATHS} unsearchable paths. One stands for all that is below it.")
    await conn.execute("UPDATE dataset SET unsearchable_paths = %s WHERE id = %s", [after, dataset_id])
    if add:
        await _drop_columns(conn, dataset_id, after)
    return after


def _check_path(path: str) -> None:
    """Raises BadRequest."""
    check_text(path)
    if len(path) > _LONGEST_PATH or path.count(".") > DEEPEST:
        raise BadRequest(f"The path {path[:80]!r}… has more than {_LONGEST_PATH:,} characters or {DEEPEST} levels.")
    if not path.startswith(_ROOTS) or not all(path.split(".")):
        raise BadRequest(
            f"{path!r} is no path of metadata. Paths begin with metadata.user. or metadata.system., such as "
            "metadata.user.embedding."
        )


async def _drop_columns(conn: AsyncConnection[Any], dataset_id: int, unsearchable: Sequence[str]) -> None:
    """A build that is under way ends first; the next ones leave these paths out."""
    await conn.execute("SELECT FROM column_index WHERE dataset_id = %s FOR UPDATE", [dataset_id])
    doomed = [
        covered.number
        for covered in await tables.load_paths(conn, dataset_id)
        if covered.path not in tables.COLUMNS and is_below(covered.path, unsearchable)
    ]
    if doomed:
        await conn.execute("DELETE FROM column_path WHERE dataset_id = %s AND number = ANY(%s)", [dataset_id, doomed])
        await tables.delete_chunks(conn, dataset_id, doomed)
