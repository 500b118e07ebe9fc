"""Recipes as the SDK sends and reads them, and how it lists them and ontologies."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.fields import shown
from headwater.catalog.recipes import Recipe, RecipeChange
from headwater.errors import BadRequest
from headwater.ids import from_wire, to_wire
from headwater.wire import times
from headwater.wire.ontologies import check_document, wire_ids

_LONGEST_DESCRIPTION = 100_000

# What only clients read.
_SETTINGS = ("instructions", "examples", "customActions", "uiSettings")


class RecipeBody(BaseModel):
    """`POST /recipes`."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    title: str | None = None
    project_ids: list[str] = Field(alias="projectIds")
    ontology_ids: list[str] = Field(alias="ontologyIds", default_factory=list)
    description: str | None = Field(default=None, max_length=_LONGEST_DESCRIPTION)
    instructions: Any = None
    examples: list[Any] | None = None
    custom_actions: list[Any] | None = Field(alias="customActions", default=None)
    ui_settings: dict[str, Any] | None = Field(alias="uiSettings", default=None)
    metadata: dict[str, Any] | None = None


class RecipePatch(BaseModel):
    """The whole recipe, as the SDK sends it; what is not named here, or null, is left alone."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    title: str | None = None
    project_ids: list[str] | None = Field(alias="projectIds", default=None)
    ontology_ids: list[str] | None = Field(alias="ontologyIds", default=None)
    description: str | None = Field(default=None, max_length=_LONGEST_DESCRIPTION)
    instructions: Any = None
    examples: list[Any] | None = None
    custom_actions: list[Any] | None = Field(alias="customActions", default=None)
    ui_settings: dict[str, Any] | None = Field(alias="uiSettings", default=None)
    metadata: dict[str, Any] | None = Field(default=None, description="`system` counts with ?system=true only.")


class RecipeCloneBody(BaseModel):
    shallow: bool = Field(default=False, description="Share the ontologies instead of cloning them, too.")


class RecipeJson(TypedDict):
    id: str
    title: str
    projectIds: list[str]
    ontologyIds: list[str]
    description: str | None
    instructions: Any
    examples: list[Any]
    customActions: list[Any]
    uiSettings: dict[str, Any]
    metadata: dict[str, Any]
    url: str
    creator: str
    createdAt: str
    updatedAt: str
    updatedBy: str


def recipe(found: Recipe, base: str) -> RecipeJson:
    settings = found.settings
    return RecipeJson(
        id=to_wire(found.id),
        title=found.title,
        projectIds=[to_wire(one) for one in found.project_ids],
        ontologyIds=[to_wire(one) for one in found.ontology_ids],
        description=found.description,
        instructions=settings.get("instructions"),
        examples=settings.get("examples", []),
        customActions=settings.get("customActions", []),
        uiSettings=settings.get("uiSettings", {}),
        metadata={"system": {}} | found.metadata,
        url=f"{base}/recipes/{to_wire(found.id)}",
        creator=found.creator,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
        updatedBy=found.updated_by,
    )


def settings_of(body: RecipeBody | RecipePatch) -> dict[str, Any]:
    """What only clients read, as far as it is said. Raises BadRequest."""
    given = body.model_dump(by_alias=True, include={"instructions", "examples", "custom_actions", "ui_settings"})
    said = {key: given[key] for key in _SETTINGS if given[key] is not None}
    check_document(said, "The recipe")
    return said


def checked_metadata(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Raises BadRequest."""
    given = metadata or {}
    check_document(given, "metadata")
    if not isinstance(given.get("system"), dict | None):
        raise BadRequest("metadata.system is a JSON object.")
    return given


def change(body: RecipePatch, before: Recipe, *, system: bool) -> RecipeChange:
    """`metadata` replaces what was there, `metadata.system` with `system` only. Raises BadRequest, NotFound."""
    metadata = None
    if body.metadata is not None:
        metadata = checked_metadata(body.metadata)
        if not system:
            metadata = metadata | {"system": before.metadata.get("system", {})}
    return RecipeChange(
        title=body.title,
        description=body.description,
        settings=settings_of(body),
        metadata=metadata,
        project_ids=None if body.project_ids is None else wire_ids(body.project_ids, "project"),
        ontology_ids=None if body.ontology_ids is None else wire_ids(body.ontology_ids, "ontology"),
    )


# Lists: the SDK puts the conditions of its filters into the query string.


@dataclass(frozen=True, slots=True)
class ListQuery:
    project_ids: list[int] | None
    ids: list[int] | None
    ontology_ids: list[int] | None
    title: str | None
    page: int
    page_size: int


_KNOWN = ("projects", "ids", "ontologies", "title", "pageOffset", "pageSize")


def parse_list(given: Mapping[str, str], known: Sequence[str] = _KNOWN) -> ListQuery:
    """`pageOffset` counts pages. Raises BadRequest."""
    for name in given:
        if name not in known:
            raise BadRequest(f"The list knows nothing of {shown(name)}. It knows: {', '.join(known)}.")
    return ListQuery(
        project_ids=_ids(given, "projects", "project"),
        ids=_ids(given, "ids", "thing"),
        ontology_ids=_ids(given, "ontologies", "ontology"),
        title=given.get("title"),
        page=_number(given, "pageOffset", default=0, most=10**9),
        page_size=_number(given, "pageSize", default=1000, most=1000),
    )


def _ids(given: Mapping[str, str], name: str, noun: str) -> list[int] | None:
    text = given.get(name)
    return None if text is None else [from_wire(one, noun) for one in text.split(",") if one]


def _number(given: Mapping[str, str], name: str, *, default: int, most: int) -> int:
    text = given.get(name, str(default))
    if re.fullmatch(r"[0-9]{1,12}", text) is None:
        raise BadRequest(f"{name} is a number from 0, not {shown(text)}.")
    return min(int(text), most)


def page(found: list[Any], *, total: int, asked: ListQuery) -> dict[str, Any]:
    size = asked.page_size
    return {
        "totalItemsCount": total,
        "items": found,
        "totalPagesCount": -(-total // size) if size else 0,
        "hasNextPage": size > 0 and asked.page * size + len(found) < total,
    }
