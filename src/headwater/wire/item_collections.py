"""Collections as the SDK sends and reads them."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.item_collections import MOST, ItemCollection


class CollectionBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str


class MarkBody(BaseModel):
    """`{"query": {"filter": …}, "collections": ["best"]}`."""

    model_config = ConfigDict(extra="ignore")

    query: dict[str, Any] = Field(
        description="Which items, as in POST /datasets/{id}/query; its filter has to be there."
    )
    collections: Annotated[Sequence[str], Field(min_length=1, max_length=MOST)] = Field(description="Their names.")


class CollectionJson(TypedDict):
    name: str


def collections(found: Iterable[ItemCollection]) -> dict[str, CollectionJson]:
    """By the field that items in it have."""
    return {one.field: CollectionJson(name=one.name) for one in found}
