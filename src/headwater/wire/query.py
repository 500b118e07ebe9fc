"""The SDK's query language (DQL), as the body of POST /datasets/{id}/query has it, to our tree."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headwater.catalog.query import Page, Tree


@dataclass(frozen=True, slots=True)
class KeysetAfter:
    """The SDK pages through a list by adding `id > the last one seen` (or <) as its last condition."""

    item_id: int
    descending: bool


@dataclass(frozen=True, slots=True)
class ItemsQuery:
    files: Tree | None  # what to ask of items; None: the query wants no files
    dirs: Tree | None  # what to ask of folders; None, unless the query speaks of type "dir"
    page: Page
    is_default: bool  # exactly: hidden is false and type is file
    keyset_after: KeysetAfter | None  # the condition is in the trees as well
    is_default_without_keyset: bool  # the same, apart from the keyset condition
    update: Mapping[str, Any] | None
    delete: bool
    system_space: bool
    context: Mapping[str, Any]
    resource: str = "items"


def parse_items_query(body: object) -> ItemsQuery:
    """Raises BadRequest with the place in the body and what would be right."""
    raise NotImplementedError
