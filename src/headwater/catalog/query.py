"""Filters: trees of conditions on known fields, and the SQL they become. Values only ever travel as parameters.

A condition on what a row does not have is false, and its negation true: SQL's third value never shows.
"""

from dataclasses import dataclass
from typing import Any, Literal

from psycopg import sql

from headwater.catalog.fields import ITEM_FIELDS, FieldTable

Operator = Literal["eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists"]


@dataclass(frozen=True, slots=True)
class And:
    parts: "tuple[Tree, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    parts: "tuple[Tree, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    part: "Tree"


@dataclass(frozen=True, slots=True)
class Condition:
    field: str
    operator: Operator
    value: Any  # JSON; strings of eq, ne, in and nin may hold wildcards


@dataclass(frozen=True, slots=True)
class ElementMatch:
    """One element of the list at `field`, or the object there, fulfils `part`, whose fields start in it."""

    field: str
    part: "Tree"


Tree = And | Or | Not | Condition | ElementMatch

EVERYTHING = And(())
NOTHING = Or(())


@dataclass(frozen=True, slots=True)
class Page:
    sort: tuple[tuple[str, bool], ...]  # field, descending
    page: int  # from 0
    page_size: int  # 0: count only


Compiled = tuple[sql.Composed, dict[str, object]]


def compile_filter(tree: Tree, *, dataset_id: int, fields: FieldTable = ITEM_FIELDS) -> Compiled:
    """What stands behind WHERE in a query FROM item (or folder, with DIR_FIELDS), and its parameters.

    It restricts the rows to the dataset. Raises BadRequest.
    """
    raise NotImplementedError


def compile_page(page: Page, fields: FieldTable = ITEM_FIELDS, *, lookahead: int = 0) -> Compiled:
    """ORDER BY, LIMIT and OFFSET. `lookahead`: rows past the page, which tell whether more follow."""
    raise NotImplementedError
