"""Deleting many items, and what was deleted, as our own clients send and read it."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.selections import Summary
from headwater.catalog.tombstones import Counts, Tombstone
from headwater.errors import BadRequest, NotFound
from headwater.ids import from_wire
from headwater.wire import times

_MOST_NAMED = 100_000  # ids or paths of one request


class DeletionBody(BaseModel):
    """What to delete: items that meet all that is given, which has to be something."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    filter: dict[str, Any] | None = Field(
        default=None, description="As in POST /datasets/{id}/query; {} is everything."
    )
    ids: Annotated[list[str], Field(max_length=_MOST_NAMED)] | None = None
    paths: Annotated[list[str], Field(max_length=_MOST_NAMED)] | None = Field(
        default=None, description="Exact paths; no character stands for others."
    )
    folder: str | None = Field(default=None, description="With everything below it.")
    missing: bool = Field(default=False, description="Only items whose object is missing from the bucket.")
    dry_run: bool = Field(default=False, alias="dryRun", description="Tell what would be deleted, and delete nothing.")
    confirm: bool | Annotated[int, Field(ge=0)] = Field(
        default=False, description="Yes, if it is so many items by now, or fewer; true: however much that is."
    )
    retry: bool = Field(
        default=False, description="Try again to delete the objects that the store refused to delete, and nothing else."
    )


def wanted(body: DeletionBody, ids_of_paths: Mapping[str, int]) -> dict[str, Any]:
    """What a job keeps of it. Raises BadRequest when nothing says what to delete."""
    if body.filter is None and body.ids is None and body.paths is None and body.folder is None and not body.missing:
        raise BadRequest(
            'Say what to delete: filter, ids, paths, folder or missing. To delete every item: {"filter": {}}.'
        )
    chosen = None if body.ids is None else {_id(text) for text in body.ids} - {None}
    if body.paths is not None:
        at = set(ids_of_paths.values())
        chosen = at if chosen is None else chosen & at
    kept: dict[str, Any] = {"filter": body.filter, "missing": body.missing}
    if chosen is not None:
        kept["ids"] = sorted(number for number in chosen if number is not None)
    if body.folder is not None:
        kept["folder"] = folder(body.folder)
    is_named = body.ids is not None or body.paths is not None or body.filter is not None
    kept["shown"] = not is_named and not str(kept.get("folder", "")).startswith("/.")
    return kept


def _id(text: str) -> int | None:
    try:
        return from_wire(text, "item")
    except NotFound:
        return None


def paths(given: Sequence[str]) -> list[str]:
    """With the slash in front that every item's path has."""
    return ["/" + path.removeprefix("/") for path in given]


def folder(given: str) -> str:
    """`/a/b`, and `/` for everything. Raises BadRequest for nothing, which is a slip and not the wish to do all."""
    if not given:
        raise BadRequest("folder: it is empty. For a folder send /2019, for the whole dataset /")
    return "/" + given.strip("/")


def is_confirmed(body: DeletionBody, number: int) -> bool:
    return body.confirm is True or (body.confirm is not False and number <= body.confirm)


class PreviewJson(TypedDict):
    dryRun: bool
    items: int
    sizeBytes: int
    examples: list[str]
    objects: str
    needsConfirmation: bool


def preview(summary: Summary, objects: str, *, needs_confirmation: bool) -> PreviewJson:
    return PreviewJson(
        dryRun=True,
        items=summary.items,
        sizeBytes=summary.size_bytes,
        examples=list(summary.examples),
        objects=f"Their objects {objects}.",
        needsConfirmation=needs_confirmation,
    )


class RetriedJson(TypedDict):
    retried: int


class DeletedJson(TypedDict):
    path: str
    deletedAt: str
    state: str
    refusedAt: str | None
    error: str | None


class DeletedPageJson(TypedDict):
    items: list[DeletedJson]
    counts: dict[str, int]
    hasNextPage: bool


def deleted_page(found: Sequence[Tombstone], counts: Counts, *, has_next: bool) -> DeletedPageJson:
    return DeletedPageJson(
        items=[_deleted(one) for one in found],
        counts={"staying": counts.staying, "waiting": counts.waiting, "refused": counts.refused},
        hasNextPage=has_next,
    )


def _deleted(one: Tombstone) -> DeletedJson:
    return DeletedJson(
        path=one.path,
        deletedAt=times.to_wire(one.deleted_at),
        state="refused" if one.refused_at else "waiting" if one.object_asked_at else "staying",
        refusedAt=None if one.refused_at is None else times.to_wire(one.refused_at),
        error=one.object_delete_error,
    )


class RestoreBody(BaseModel):
    """Without paths and folder: everything that was deleted here and whose object is still there."""

    model_config = ConfigDict(extra="forbid")

    paths: Annotated[list[str], Field(max_length=_MOST_NAMED)] | None = None
    folder: str | None = None
