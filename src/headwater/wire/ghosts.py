"""Ghosts as they are asked for and shown."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.sync.ghosts import TRASH_DAYS, Ghost
from headwater.errors import BadRequest
from headwater.ids import from_wire, to_wire
from headwater.wire import times
from headwater.wire.commands import CommandJson

_MOST_CHOSEN = 1_000


class GhostsBody(BaseModel):
    """Which ghosts: by path, by id, or all."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    paths: list[str] | None = Field(
        default=None, max_length=_MOST_CHOSEN, description="Paths of items; one that ends with / is all below it."
    )
    ids: list[str] | None = Field(default=None, max_length=_MOST_CHOSEN)
    all: bool = False
    since: datetime | None = Field(default=None, description="Only those that are missing since then or later.")
    dry_run: bool = Field(default=False, alias="dryRun", description="Only tell how many there are.")


class ForgetBody(GhostsBody):
    trash: bool = Field(default=False, description="Only what lies in the trash.")
    confirm: int | None = Field(default=None, description="How many are to be forgotten, where that is asked for.")


def wanted(body: GhostsBody) -> dict[str, Any]:
    """What a job keeps of it. Raises BadRequest."""
    if body.all == (body.paths is not None or body.ids is not None):
        raise BadRequest('Say which ghosts: {"paths": ["/a.jpg", "/folder/"]}, {"ids": […]} or {"all": true}.')
    found: dict[str, Any] = {"trash": isinstance(body, ForgetBody) and body.trash}
    if body.paths is not None:
        if "" in body.paths:
            raise BadRequest("paths: one of them is empty. To choose all ghosts: all")
        found["paths"] = [path if path.startswith("/") else "/" + path for path in body.paths]
    if body.ids is not None:
        found["ids"] = [from_wire(text, "item") for text in body.ids]
    if body.since is not None:
        found["since"] = times.aware(body.since).isoformat()
    return found


class GhostJson(TypedDict):
    id: str
    filename: str
    size: int
    missingSince: str
    trashedAt: str | None
    forgottenAt: str | None  # when it will be; None: it stays


class GhostPageJson(TypedDict):
    ghosts: list[GhostJson]
    next: str | None  # the page behind this one: `after`
    flagged: int  # in the dataset
    trashed: int


class SettledJson(TypedDict):
    items: int
    examples: list[str]
    command: CommandJson | None  # that does it, where there are many


def ghost(found: Ghost) -> GhostJson:
    return GhostJson(
        id=to_wire(found.id),
        filename=found.path,
        size=found.size_bytes,
        missingSince=times.to_wire(found.missing_since),
        trashedAt=None if found.trashed_at is None else times.to_wire(found.trashed_at),
        forgottenAt=None if found.trashed_at is None else times.to_wire(found.trashed_at + timedelta(days=TRASH_DAYS)),
    )


def page(found: Sequence[Ghost], *, has_next: bool, flagged: int, trashed: int) -> GhostPageJson:
    return GhostPageJson(
        ghosts=[ghost(one) for one in found],
        next=found[-1].path if has_next else None,
        flagged=flagged,
        trashed=trashed,
    )
