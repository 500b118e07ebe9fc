"""Integrations as the SDK sends and reads them."""

from typing import Any

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

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


def check_integration_metadata(metadata: dict[str, Any]) -> None:
    """What drivers take from it are texts. Raises BadRequest."""
    check_depth(metadata)
    for key in ("path", "endpoint", "region"):
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
        metadata=found.metadata or [{"name": "status", "value": "created"}],
    )
