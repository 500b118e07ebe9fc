"""Changes of many items' metadata, as the SDK and our own clients ask for them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool
from typing_extensions import TypedDict

from headwater.catalog.names import checked_name
from headwater.catalog.selections import Summary
from headwater.errors import BadRequest
from headwater.wire.deletions import folder
from headwater.wire.items import metadata_patch
from headwater.wire.query import whole_filter


class BulkUpdateBody(BaseModel):
    """`{"query": {"filter": …}, "updateQuery": {"update": {"metadata": {"user": {…}}}}}`."""

    model_config = ConfigDict(extra="ignore")

    query: dict[str, Any] = Field(
        description="Which items, as in POST /datasets/{id}/query; its filter has to be there."
    )
    update_query: dict[str, Any] = Field(
        alias="updateQuery",
        description='{"update": {"metadata": {"user": {…}}}}; for system, with "systemSpace": true.',
    )
    folder: str | None = Field(default=None, description="Only items in it and below it.")
    paths: Annotated[list[str], Field(max_length=100_000)] | None = Field(
        default=None, description="Only items at these paths; no character stands for others."
    )
    dry_run: bool = Field(default=False, alias="dryRun", description="Tell how many it would be, and change nothing.")


class SplitBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    items_query: dict[str, Any] = Field(alias="itemsQuery")
    shares: Annotated[dict[str, Annotated[int, Field(ge=0, le=100)]], Field(min_length=1, max_length=20)] = Field(
        alias="MLSplitList", description="Per cent by the name of the subset; 100 in all."
    )


class ChangeJson(TypedDict):
    """What a job keeps of a change: patches of both kinds, or shares by the name of the subset."""

    user: dict[str, Any]
    system: dict[str, Any]
    shares: dict[str, int] | None


def change(update: object, *, system_space: bool) -> ChangeJson:
    """From `{"metadata": {"user": {…}, "system": {…}}}`. Raises BadRequest, also where nothing would change.

    What the SDK sends for `metadata.system` counts only with `system_space`.
    """
    if not isinstance(update, Mapping) or set(update) != {"metadata"}:
        raise BadRequest('update: items are changed by {"metadata": {"user": {…}}}; nothing else of many can be set.')
    given = update["metadata"]
    patch = metadata_patch(given)
    if unknown := set(given) - {"user", "system"}:
        raise BadRequest(f"update: metadata has the parts user and system, not {min(unknown)[:40]!r}.")
    system = patch.system if system_space else {}
    if not patch.user and not system:
        raise BadRequest(
            'update: it changes nothing. Name keys of metadata.user; keys of metadata.system need "systemSpace": true, '
            "and what Headwater finds out itself is not to be set."
        )
    return ChangeJson(user=patch.user or {}, system=system, shares=None)


def bulk_change(body: BulkUpdateBody) -> ChangeJson:
    """Raises BadRequest."""
    try:
        system_space = _Flags.model_validate(body.update_query).systemSpace
    except ValueError:
        raise BadRequest("updateQuery.systemSpace: true or false.") from None
    return change(body.update_query.get("update"), system_space=system_space)


class _Flags(BaseModel):
    model_config = ConfigDict(extra="ignore")

    systemSpace: StrictBool = False  # noqa: N815 - as the SDK says it


def split_change(body: SplitBody) -> ChangeJson:
    """Raises BadRequest."""
    if sum(body.shares.values()) != 100:
        raise BadRequest(
            f"MLSplitList: the shares are {sum(body.shares.values())} per cent together; they have to be 100."
        )
    shares = {checked_name(name, "subset"): share for name, share in body.shares.items()}
    if dotted := next((name for name in shares if "." in name), None):
        raise BadRequest(
            f"MLSplitList: {dotted!r} has a dot, so no filter would find it: metadata.system.tags.{dotted}."
        )
    if len(shares) < len(body.shares):
        raise BadRequest("MLSplitList: two subsets have the same name.")
    return ChangeJson(user={}, system={}, shares=shares)


def wanted(query: Mapping[str, Any], in_folder: str | None = None) -> dict[str, Any]:
    """What a job keeps of a selection. Raises BadRequest without a filter, which would take the whole dataset."""
    if not isinstance(query.get("filter"), Mapping):
        raise BadRequest('query.filter is missing. To change every item, say so: {"filter": {}}.')
    kept: dict[str, Any] = {"filter": whole_filter(query)}
    return kept if in_folder is None else kept | {"folder": folder(in_folder)}


class PreviewJson(TypedDict):
    dryRun: bool
    items: int
    examples: list[str]


def preview(summary: Summary) -> PreviewJson:
    return PreviewJson(dryRun=True, items=summary.items, examples=list(summary.examples))
