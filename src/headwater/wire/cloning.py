"""Clones of datasets and items as the SDK asks for them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from headwater.catalog.datasets import Dataset
from headwater.errors import BadRequest
from headwater.ids import from_wire
from headwater.wire.query import confined, parse_items_query, whole_filter


class Params(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    with_annotations: bool = Field(default=True, alias="withItemsAnnotations")
    with_metadata: bool = Field(default=True, alias="withMetadata")
    with_task_status: bool = Field(
        default=False,
        alias="withTaskAnnotationsStatus",
        description="The status of items in tasks, which is part of their metadata.",
    )


class DatasetParams(Params):
    target_directory: str | None = Field(
        default=None, alias="targetDirectory", description="A folder of the target, in front of every path."
    )
    target_dataset_id: str | None = Field(
        default=None, alias="targetDatasetId", description="Without it, a new dataset is made in the same project."
    )


class CloneBody(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: str | None = Field(default=None, description="Of the new dataset.")
    filter: dict[str, Any] = Field(
        default_factory=dict, description="As the body of POST /datasets/{id}/query; {} is everything that is shown."
    )
    folder: str | None = Field(default=None, description="Only what is in this folder and below it.")
    params: DatasetParams = Field(default_factory=DatasetParams, alias="cloneDatasetParams")
    dry_run: bool = Field(default=False, alias="dryRun", description="Tell what would be cloned, and clone nothing.")


class MergeBody(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    name: str = Field(description="Of the new dataset.")
    datasets: list[str] = Field(alias="datasetsIds", min_length=1, max_length=1_000)
    projects: list[str] | str = Field(
        default_factory=list, alias="projectIds", description="The first one gets the new dataset."
    )
    params: Params = Field(default_factory=Params, alias="mergeDatasetParams")
    dry_run: bool = Field(default=False, alias="dryRun", description="Tell what would be cloned, and clone nothing.")


class ItemCloneBody(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    target_dataset_id: str | None = Field(
        default=None, alias="targetDatasetId", description="Without it, the item's own dataset."
    )
    path: str | None = Field(
        default=None, alias="remoteFileName", description="Without it, the item's own; a folder ends with a slash."
    )
    metadata: dict[str, Any] = Field(default_factory=dict, description="What to add to the metadata of the clone.")
    params: Params = Field(default_factory=Params, alias="cloneDatasetParams")
    allow_many: bool = Field(
        default=False,
        alias="allowMany",
        description="Where there is an item already, the clone gets a number behind its name.",
    )


def wanted(body: CloneBody, source: Dataset) -> dict[str, Any]:
    """What a job keeps of it. Raises BadRequest."""
    is_query = not {"filter", "resource", "page", "pageSize", "sort", "join", "context"}.isdisjoint(body.filter)
    query = confined(body.filter if is_query else {"filter": body.filter}, source)
    asked = parse_items_query(query)
    if asked.delete or asked.update is not None:
        raise BadRequest("filter: it asks for a change of the items that it chooses. Leave out update and delete.")
    kept: dict[str, Any] = {"filter": whole_filter(query)}
    if body.folder is not None:
        kept["folder"] = "/" + body.folder.strip("/")
    return kept


def ids(given: list[str] | str, noun: str) -> list[int]:
    """Each once, in the order in which they came first; scripts give one as it is. Raises NotFound."""
    return list(dict.fromkeys(from_wire(text, noun) for text in ([given] if isinstance(given, str) else given)))
