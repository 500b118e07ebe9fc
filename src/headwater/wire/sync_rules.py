"""The rules of a dataset's sync as they are sent and read."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.sync.rules import BRAKE_ITEMS, BRAKE_SHARE, SyncRules

_Globs = Annotated[list[str], Field(max_length=100)]


class RulesBody(BaseModel):
    """What is not named stays as it is; null is the default again."""

    model_config = ConfigDict(extra="forbid")

    include: _Globs | None = Field(
        default=None, description='Only objects that one of these fits: ["*.jpg", "raw/**"]. Empty: every object.'
    )
    exclude: _Globs | None = Field(default=None, description="No object that one of these fits; they win.")
    ghosts: Literal["flag", "trash"] | None = Field(
        default=None, description="What becomes of items whose object has gone: a flag, or the trash."
    )
    follow_moves: bool | None = Field(
        default=None, alias="followMoves", description="An object that moved in the bucket stays the same item."
    )
    sidecars: bool | None = Field(
        default=None, description="name.ext.json is no item to show: it holds the user metadata of name.ext."
    )
    brake_items: int | None = Field(default=None, alias="brakeItems", ge=0, le=10**12)
    brake_share: float | None = Field(default=None, alias="brakeShare", ge=0, le=1)


def patched(rules: SyncRules, body: RulesBody) -> SyncRules:
    given: dict[str, Any] = {}
    default = SyncRules()
    for name in body.model_fields_set:
        value = getattr(body, name)
        given[name] = getattr(default, name) if value is None else tuple(value) if isinstance(value, list) else value
    return replace(rules, **given)


class RulesJson(TypedDict):
    include: list[str]
    exclude: list[str]
    ghosts: str
    followMoves: bool
    sidecars: bool
    brakeItems: int
    brakeShare: float


def rules(found: SyncRules) -> RulesJson:
    return RulesJson(
        include=list(found.include),
        exclude=list(found.exclude),
        ghosts=found.ghosts,
        followMoves=found.follow_moves,
        sidecars=found.sidecars,
        brakeItems=BRAKE_ITEMS if found.brake_items is None else found.brake_items,
        brakeShare=BRAKE_SHARE if found.brake_share is None else found.brake_share,
    )


class PreviewJson(TypedDict):
    looked: int
    kept: int
    isAll: bool
    keptExamples: list[str]
    leftOutExamples: list[str]
