"""The slow-query log: which shapes of filters take long, and which paths an index would help. It knows no values."""

import logging
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog.fields import ITEM_FIELDS
from headwater.catalog.query import And, Condition, ElementMatch, HasAnnotation, Not, OfItem, Or, Page, Tree
from headwater.errors import BadRequest

_log = logging.getLogger(__name__)
_MOST_SHAPES = 200  # of one dataset
_LONGEST_SHAPE = 1_000  # characters
_LONGEST_COMMAND = 200


@dataclass(slots=True)
class QueryCounts:
    """What this process has answered since it started."""

    plans: Counter[str] = field(default_factory=Counter[str])  # how queries were answered
    slow: int = 0
    refused: int = 0  # answered with 400, which the SDK takes for an empty list
    stopped: int = 0  # at the time limit


@dataclass(frozen=True, slots=True)
class SlowQuery:
    shape: str
    plan: str
    uncovered: list[str]
    times: int
    longest_s: float
    rows: int | None
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Suggestion:
    path: str  # an index on it would help
    times: int  # slow queries that named it
    longest_s: float
    last_at: datetime


def shape_of(tree: Tree | None, page: Page | None = None) -> str:
    """Fields and operators, never values: `and(hidden eq, metadata.user.score gte) by id`."""
    shape = "" if tree is None else _shape(tree)
    if page is not None and page.sort:
        shape += " by " + ", ".join(name + (" descending" if down else "") for name, down in page.sort)
    shape = "".join(character if character.isprintable() else "?" for character in shape)
    return shape if len(shape) <= _LONGEST_SHAPE else shape[: _LONGEST_SHAPE - 1] + "…"


def _shape(tree: Tree) -> str:
    match tree:
        case Condition():
            return f"{tree.field} {tree.operator}"
        case ElementMatch():
            return f"{tree.field} match({_shape(tree.part)})"
        case And(parts) | Or(parts):
            # A filter is as often written in one order as in the other.
            inner = sorted({_shape(part) for part in parts[:100]})
            return f"{'and' if isinstance(tree, And) else 'or'}({', '.join(inner)})"
        case Not(part):
            return f"not({_shape(part)})"
        case HasAnnotation(part):
            return f"annotation({_shape(part)})"
        case OfItem(part):
            return f"item({_shape(part)})"


def paths_of(tree: Tree | None, page: Page | None = None) -> list[str]:
    """The fields that a query names, each once."""
    names = [] if tree is None else list(_fields(tree))
    return list(dict.fromkeys([*names, *(name for name, _ in (page.sort if page else ()))]))


def _fields(tree: Tree) -> Iterator[str]:
    match tree:
        case Condition() | ElementMatch():
            yield tree.field
        case And(parts) | Or(parts):
            for part in parts:
                yield from _fields(part)
        case Not(part):
            yield from _fields(part)
        case HasAnnotation() | OfItem():  # their fields are of other rows
            pass


def can_be_indexed(path: str) -> bool:
    """Whether `headwater index add` takes it: a path in the metadata."""
    try:
        return ITEM_FIELDS.find(path).kind == "json"
    except BadRequest:
        return False


def advice(dataset_name: str, uncovered: Sequence[str]) -> str:
    """What would make the query quick; nothing where we know nothing."""
    if not uncovered:
        return ""
    return f"There is no index on {uncovered[0][:200]!r}: {index_command(dataset_name, uncovered[0])}".rstrip(": ")


def index_command(dataset_name: str, path: str) -> str:
    """To be pasted into a shell, whoever named the path; nothing for one that is no line of text."""
    is_safe = path.isprintable() and len(path) <= _LONGEST_COMMAND
    return f"headwater index add {dataset_name} {shlex.quote(path)}" if is_safe else ""


async def record(
    conn: AsyncConnection[Any],
    dataset_id: int,
    *,
    shape: str,
    plan: str,
    uncovered: Sequence[str],
    seconds: float,
    rows: int | None,
) -> None:
    """A line in the log, and the shape's row. Without effect for a dataset that is gone."""
    told = f"slow query on dataset {dataset_id:024x}: {seconds:.2f} s, {plan}, {shape}, rows {rows}"
    command = index_command(f"{dataset_id:024x}", uncovered[0]) if uncovered else ""
    _log.warning("%s; %s" if command else "%s%s", told, command)
    await conn.execute(
        """
        WITH place AS (
            DELETE FROM slow_query
            WHERE dataset_id = %(dataset_id)s AND shape IN (
                SELECT shape FROM slow_query
                WHERE dataset_id = %(dataset_id)s AND shape <> %(shape)s
                ORDER BY last_at DESC
                OFFSET %(most)s
            )
        )
        INSERT INTO slow_query (dataset_id, shape, plan, uncovered, longest_s, total_s, rows)
        SELECT id, %(shape)s, %(plan)s, %(uncovered)s::text[], %(seconds)s, %(seconds)s, %(rows)s
        FROM dataset
        WHERE id = %(dataset_id)s
        ON CONFLICT (dataset_id, shape) DO UPDATE
        SET plan = excluded.plan, uncovered = excluded.uncovered, times = slow_query.times + 1,
            longest_s = greatest(slow_query.longest_s, excluded.longest_s),
            total_s = slow_query.total_s + excluded.total_s, rows = excluded.rows, last_at = now()
        """,
        {
            "dataset_id": dataset_id,
            "shape": shape,
            "plan": plan,
            "uncovered": list(uncovered),
            "seconds": seconds,
            "rows": rows,
            "most": _MOST_SHAPES - 1,
        },
    )


async def slow_queries(conn: AsyncConnection[Any], dataset_id: int) -> list[SlowQuery]:
    """The shapes that took most time in all first."""
    cursor = conn.cursor(row_factory=class_row(SlowQuery))
    await cursor.execute(
        """
        SELECT shape, plan, uncovered, times, longest_s, rows, last_at
        FROM slow_query
        WHERE dataset_id = %s
        ORDER BY total_s DESC, shape
        """,
        [dataset_id],
    )
    return await cursor.fetchall()


async def suggestions(conn: AsyncConnection[Any], dataset_id: int, *, indexed: Sequence[str] = ()) -> list[Suggestion]:
    """Paths that slow queries named and no index covered, those that cost most first.

    `indexed`: paths that have an index by now.
    """
    cursor = conn.cursor(row_factory=class_row(Suggestion))
    await cursor.execute(
        """
        SELECT path, sum(times)::bigint AS times, max(longest_s)::float8 AS longest_s, max(last_at) AS last_at
        FROM slow_query, unnest(uncovered) AS path
        WHERE dataset_id = %s AND path <> ALL (%s::text[])
        GROUP BY path
        ORDER BY sum(total_s) DESC, path
        LIMIT 20
        """,
        [dataset_id, list(indexed)],
    )
    return await cursor.fetchall()
