"""What facets are asked for, and how they are answered."""

from typing import Any, NotRequired

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.datasets import Dataset
from headwater.catalog.facets import LARGEST_LIMIT, Facet
from headwater.catalog.query import Tree
from headwater.wire.query import confined, parse_items_query

_DEFAULT = {"$and": [{"hidden": False}, {"type": "file"}]}
_MOST_FIELDS = 20
_QUERY_KEYS = ("filter", "join", "intersect", "except", "context")


class FieldBody(BaseModel):
    """`dir` counts by the folders right in `folder`, each with all that is below it."""

    field: str
    folder: str = "/"


class FacetsBody(BaseModel):
    """A filter as queries have it, with join, intersect and except; without one, what a list shows."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    filter: dict[str, Any] | None = None
    join: dict[str, Any] | None = None
    intersect: Any = None
    without: Any = Field(alias="except", default=None)
    context: Any = None
    fields: list[str | FieldBody] = Field(
        min_length=1, max_length=_MOST_FIELDS, description="Fields of items, label, annotationType, annotationStatus."
    )
    limit: int = Field(default=20, ge=0, le=LARGEST_LIMIT, description="How many values of each field.")


class ValueJson(TypedDict):
    value: Any
    items: int
    annotations: NotRequired[int]


class FacetJson(TypedDict):
    field: str
    folder: NotRequired[str]
    values: list[ValueJson]
    more: int


class FacetsJson(TypedDict):
    itemsCount: int
    facets: list[FacetJson]


def tree_of(body: FacetsBody, dataset: Dataset) -> Tree:
    """What the filter asks of items. Raises BadRequest."""
    given = body.model_dump(by_alias=True)
    query = {key: given[key] for key in _QUERY_KEYS if given[key] is not None}
    asked = parse_items_query(confined({"filter": _DEFAULT} | query, dataset))
    return asked.only_files("filter: it chooses folders, and facets count files.")


def asked_fields(body: FacetsBody) -> list[tuple[str, str]]:
    """Each with the folder whose folders are counted, which counts for `dir` alone."""
    return [(one, "/") if isinstance(one, str) else (one.field, one.folder) for one in body.fields]


def facet(name: str, folder: str, found: Facet) -> FacetJson:
    told = FacetJson(
        field=name,
        values=[_value(one.value, one.items, one.annotations) for one in found.values],
        more=found.distinct - len(found.values),
    )
    if name == "dir":
        told["folder"] = folder
    return told


def _value(value: Any, items: int, annotations: int | None) -> ValueJson:
    told = ValueJson(value=value, items=items)
    if annotations is not None:
        told["annotations"] = annotations
    return told
