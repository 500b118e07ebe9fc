"""Exports as the SDK asks for them, in its three ways, and as everybody else does."""

import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from headwater.catalog.annotations import Annotation
from headwater.catalog.datasets import Dataset
from headwater.catalog.features import VECTOR_FIELDS, FeatureVector
from headwater.catalog.fields import ANNOTATION_FIELDS
from headwater.catalog.items import Item
from headwater.catalog.query import Tree, compile_filter
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.wire import annotations as wire_annotations
from headwater.wire import items as wire_items
from headwater.wire.query import confined, parse_annotations_query, parse_filter, parse_items_query

Format = Literal["json", "ndjson", "zip", "parquet", "croissant"]
Kind = Literal["string", "double", "int64", "bool"]
_KINDS = ("string", "double", "int64", "bool")
_COLUMN = re.compile(r"metadata\.(user|system)(\.[^.]+){1,10}")
_MOST_COLUMNS = 200
_LONGEST_COLUMN = 500
_SHOWN = [{"hidden": False}, {"type": "file"}]  # what the SDK's filters ask for if nothing else is said


class AnnotationsOptions(BaseModel):
    model_config = ConfigDict(extra="ignore")

    include: bool = True
    filter: bool = Field(default=True, description="False: annotationsQuery leaves out no annotation.")


class ExportBody(BaseModel):
    """What the SDK sends has `exportType` or `exportVersion`; `format` is for everybody else."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    format: Format | None = Field(default=None, description="json, ndjson, zip, parquet; croissant comes with parquet.")
    filter: dict[str, Any] | None = Field(
        default=None, description="Conditions of the SDK's filters; hidden items are left out unless it speaks of them."
    )
    columns: dict[str, Kind | None] | list[str] = Field(
        default_factory=list,
        description="parquet: paths such as metadata.user.camera, as columns of their own; perhaps with their types.",
    )
    export_type: Literal["json", "zip"] | None = Field(default=None, alias="exportType")
    export_version: Literal["V1", "V2"] = Field(default="V1", alias="exportVersion", description="How ZIPs name files.")
    items_query: dict[str, Any] | None = Field(default=None, alias="itemsQuery")
    annotations_query: dict[str, Any] | None = Field(default=None, alias="annotationsQuery")
    annotations: AnnotationsOptions | bool = Field(default_factory=AnnotationsOptions)
    include_vectors: bool = Field(default=False, alias="includeItemVectors")
    vectors_query: dict[str, Any] | None = Field(
        default=None, alias="itemsVectorQuery", description="Its filter says which vectors go along."
    )


class Filters(BaseModel):
    model_config = ConfigDict(extra="ignore")

    items_query: dict[str, Any] | None = Field(default=None, alias="itemsQuery")


class ExportV3Body(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    mode: Literal["full", "diff"] = "full"
    format: Literal["ndjson"] = "ndjson"
    force: bool = Field(default=False, description="Every export is made anew, so this changes nothing.")
    partition_count: int | None = Field(default=None, alias="partitionCount", ge=1, le=1_000)
    from_version: int | None = Field(default=None, alias="fromVersion", ge=0)
    filters: Filters = Field(default_factory=Filters)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is kept of a request, as JSON beside its command."""

    format: str  # json, ndjson, zip, parquet
    base: str  # of the URLs in it
    query: dict[str, Any]
    annotations_query: dict[str, Any] | None = None
    has_annotations: bool = True
    has_vectors: bool = False
    vectors_filter: Any = None  # which of them
    names: str = "V2"  # of files in a ZIP
    columns: dict[str, str | None] = field(default_factory=dict[str, str | None])
    is_versioned: bool = False
    is_diff: bool = False
    from_version: int | None = None
    partitions: int | None = None
    reader_id: int | None = None
    # What its job finds out.
    horizon: int | None = None  # of the version that it makes
    cluster: int | None = None
    from_horizon: int | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        return cls(**kept)

    @property
    def tree(self) -> Tree:
        return items_tree(self.query)

    @property
    def vectors_tree(self) -> Tree:
        return parse_filter(self.vectors_filter)

    @property
    def annotations_tree(self) -> Tree | None:
        return None if self.annotations_query is None else annotations_tree(self.annotations_query)


def read_export(body: ExportBody, base: str, reader_id: int) -> Asked:
    """Raises BadRequest."""
    options = body.annotations
    if isinstance(options, bool):
        options = AnnotationsOptions(include=options)
    query = _query(body)
    items_tree(query)
    if body.annotations_query is not None:
        compile_filter(annotations_tree(body.annotations_query), dataset_id=0, fields=ANNOTATION_FIELDS)
    if body.format in ("parquet", "croissant") and body.annotations_query:
        raise BadRequest("annotationsQuery: annotations.parquet has all annotations of the items; leave it out.")
    if body.columns and body.format not in ("parquet", "croissant"):
        raise BadRequest('columns: only Parquet has columns. Ask for {"format": "parquet"}, or leave them out.')
    vectors_filter = (body.vectors_query or {}).get("filter")
    compile_filter(parse_filter(vectors_filter), dataset_id=0, fields=VECTOR_FIELDS)
    chosen = {"croissant": "parquet"}.get(body.format or "", body.format) or body.export_type or "zip"
    return Asked(
        format=chosen,
        base=base,
        query=query,
        annotations_query=body.annotations_query if options.filter else None,
        has_annotations=options.include,
        has_vectors=body.include_vectors,
        vectors_filter=vectors_filter,
        names=body.export_version if body.format is None else "V2",
        columns=_columns(body.columns),
        reader_id=reader_id,
    )


def read_export_v3(body: ExportV3Body, base: str, reader_id: int) -> Asked:
    """Raises BadRequest."""
    if body.mode == "diff" and body.from_version is None:
        raise BadRequest("fromVersion is missing: the toVersion of an earlier export, since which to look for changes.")
    query = {"filter": {"$and": _SHOWN}} if body.filters.items_query is None else body.filters.items_query
    items_tree(query)
    return Asked(
        format="ndjson",
        base=base,
        query=query,
        is_versioned=True,
        is_diff=body.mode == "diff",
        from_version=body.from_version if body.mode == "diff" else None,
        partitions=body.partition_count,
        reader_id=reader_id,
    )


def confined_to(asked: Asked, dataset: Dataset) -> Asked:
    """With the context of its queries kept to. Raises BadRequest."""
    of_annotations = None if asked.annotations_query is None else confined(asked.annotations_query, dataset)
    return replace(asked, query=confined(asked.query, dataset), annotations_query=of_annotations)


def _query(body: ExportBody) -> dict[str, Any]:
    if body.items_query is not None and body.filter is not None:
        raise BadRequest("filter, itemsQuery: two ways to say the same. Give one of them.")
    if body.items_query is not None:
        return body.items_query if "filter" in body.items_query else {**body.items_query, "filter": {"$and": _SHOWN}}
    shown = [] if body.filter and _mentions(body.filter, "hidden") else _SHOWN[:1]
    return {"filter": {"$and": [*shown, *_SHOWN[1:], *([body.filter] if body.filter else [])]}}


def _mentions(conditions: Any, name: str) -> bool:
    level = [conditions]
    while level:
        if any(isinstance(part, dict) and name in part for part in level):
            return True
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in (part.values() if isinstance(part, dict) else part)
        ]
    return False


def items_tree(query: dict[str, Any]) -> Tree:
    """Raises BadRequest."""
    asked = parse_items_query(_without_page(query))
    if asked.delete or asked.update is not None:
        raise BadRequest("itemsQuery: it asks for a change of the items that it chooses. Leave out update and delete.")
    return asked.only_files("itemsQuery: it chooses folders, and only files are exported.")


def annotations_tree(query: dict[str, Any]) -> Tree:
    """Raises BadRequest."""
    asked = parse_annotations_query({**_without_page(query), "resource": query.get("resource") or "annotations"})
    if asked.delete or asked.update is not None:
        raise BadRequest("annotationsQuery: it asks for a change of annotations. Leave out update and delete.")
    return asked.tree


def _without_page(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if name not in ("page", "pageSize")}


def _columns(given: dict[str, Any] | list[str]) -> dict[str, str | None]:
    """Raises BadRequest."""
    if len(given) > _MOST_COLUMNS:
        raise BadRequest(f"columns: {len(given):,} are too many; {_MOST_COLUMNS} are the most.")
    named = given if isinstance(given, dict) else dict.fromkeys(given)
    for name in named:
        if not _COLUMN.fullmatch(name) or len(name) > _LONGEST_COLUMN or "\0" in name or not _is_text(name):
            raise BadRequest(
                f"columns: {name[:100]!r} is no path of metadata. Paths begin with metadata.user. or metadata.system., "
                "such as metadata.user.camera"
            )
    return named


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def entry(item: Item, found: list[Annotation], base: str, vectors: list[FeatureVector] | None = None) -> dict[str, Any]:
    """An item with its annotations, as the JSON array and the lines have it."""
    told: dict[str, Any] = {**wire_items.item(item, base)}
    told["annotations"] = [wire_annotations.annotation(one, base) for one in found]
    if vectors is not None:
        told["itemVectors"] = [
            {"datasetId": told["datasetId"], "featureSetId": to_wire(one.feature_set_id), "value": one.value}
            for one in vectors
        ]
    return told


def zip_entry(told: dict[str, Any]) -> dict[str, Any]:
    """The same as a file in a ZIP, where older clients look for other names."""
    return {"_id": told["id"], **told, "itemMetadata": told["metadata"]}


def removed(item_id: int, path: str) -> dict[str, Any]:
    """In an export of changes: an item that is no more, or that the filter does not choose any more."""
    return {"id": to_wire(item_id), "filename": path, "deleted": True}
