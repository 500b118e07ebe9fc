"""Integrations as the SDK sends and reads them."""

from typing import Any

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from headwater.catalog.integration_kinds import kind_of
from headwater.catalog.integrations import Integration
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.wire import times
from headwater.wire.items import check_depth


class NewIntegrationBody(BaseModel):
    name: str
    type: str = Field(description="s3 (an access key and its secret) or hostPath (a folder of this machine).")
    options: dict[str, Any] | None = Field(
        default=None, description="The secret values, for example key and secret. They are never given back."
    )
    metadata: dict[str, Any] | None = None


class CredentialsBody(BaseModel):
    options: dict[str, Any] | None = Field(
        default=None, description="All secret values anew: those that are not given are gone."
    )
    type: str | None = Field(default=None, description="As it is: the type of an integration never changes.")


class IntegrationChangeBody(BaseModel):
    integration_id: str = Field(alias="integrationId")
    name: str | None = None
    credentials: CredentialsBody | None = None
    metadata: dict[str, Any] | None = Field(default=None, description="Replaces what was there whole.")


def check_integration_metadata(metadata: dict[str, Any]) -> None:
    """What drivers take from it are texts. Raises BadRequest."""
    check_depth(metadata)
    for key in ("path", "endpoint", "region", "stsEndpoint", "authority", "server"):
        value = metadata.get(key)
        if value is not None and not (isinstance(value, str) and value.isprintable()):
            raise BadRequest(f"metadata.{key} is a text without control characters.")


class UsableIntegrationJson(TypedDict):
    id: str
    name: str
    type: str


class IntegrationJson(TypedDict):
    id: str
    name: str
    type: str
    org: str
    creator: str
    createdAt: str
    updatedAt: str
    url: str
    metadata: list[dict[str, Any]] | dict[str, Any]


def usable_integration(found: Integration) -> UsableIntegrationJson:
    return UsableIntegrationJson(id=to_wire(found.id), name=found.name, type=found.kind)


def integration(found: Integration, base: str) -> IntegrationJson:
    organization_id = to_wire(found.organization_id)
    return IntegrationJson(
        id=to_wire(found.id),
        name=found.name,
        type=found.kind,
        org=organization_id,
        creator=found.creator,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
        url=f"{base}/orgs/{organization_id}/integrations/{to_wire(found.id)}",
        metadata=_facts(found) if found.trust or not found.metadata else found.metadata,
    )


def _facts(found: Integration) -> list[dict[str, Any]]:
    """What the SDK shows of an integration that has no metadata of its own, as names and values."""
    if found.trust is not None:
        return [{"name": name, "value": value} for name, value in (found.metadata | found.trust).items()]
    is_whole = found.has_secret or not kind_of(found.kind).needed_later
    return [{"name": "status", "value": "created" if is_whole else "waiting for its options"}]
