"""Storage drivers as the SDK sends and reads them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.drivers import Driver, NewDriver, folder_prefix
from headwater.catalog.integrations import Integration
from headwater.errors import BadRequest
from headwater.ids import from_wire, to_wire
from headwater.wire import times


class _SystemMetadata(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    project_id: str = Field(alias="projectId")


class _DriverMetadata(BaseModel):
    system: _SystemMetadata


class DriverPayload(BaseModel):
    """The union of what the SDK sends for the types it knows."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    bucket_name: str | None = Field(default=None, alias="bucketName")
    directory: str | None = None
    path: str | None = None
    region: str | None = None
    storage_class: str | None = Field(default=None, alias="storageClass")
    endpoint: str | None = None


class NewDriverBody(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    name: str
    type: str = Field(description="s3, or storage (the kind of the integration decides).")
    integration_id: str = Field(alias="integrationId")
    allow_external_delete: bool = Field(
        default=False,
        alias="allowExternalDelete",
        description="Whether deleting an item deletes its object in the bucket.",
    )
    metadata: _DriverMetadata
    payload: DriverPayload

    @property
    def project_id(self) -> int:
        return from_wire(self.metadata.system.project_id, "project")


def new_driver(body: NewDriverBody, used: Integration) -> NewDriver:
    """Raises BadRequest when the body does not fit its integration."""
    given = body.payload
    common: dict[str, Any] = {
        "name": body.name,
        "kind": body.type,
        "integration_id": used.id,
        "allow_delete": body.allow_external_delete,
    }
    if body.type not in ("s3", "storage"):
        raise BadRequest(f"Storage drivers of type {body.type!r} are not supported yet. Supported: s3, storage.")
    if used.kind == "hostPath" and body.type == "storage":
        if any(part == ".." or "\0" in part for part in (given.directory or "").split("/")):
            raise BadRequest("The directory of a driver lies in the folder of its integration: a path without '..'.")
        return NewDriver(
            root=str(used.metadata.get("path") or ""),
            prefix=folder_prefix(given.directory),
            region=None,
            storage_class=None,
            endpoint=None,
            **common,
        )
    if used.kind != "s3":
        raise BadRequest(
            f"A driver of type {body.type} cannot use integration {used.name!r}, which is of type {used.kind}. "
            "An s3 driver needs an s3 integration; a folder needs type storage and a hostPath integration."
        )
    if not given.bucket_name:
        raise BadRequest("An s3 driver needs the name of its bucket (payload.bucketName).")
    return NewDriver(
        root=given.bucket_name,
        prefix=folder_prefix(given.path),
        region=given.region or used.metadata.get("region") or None,
        storage_class=given.storage_class or None,
        endpoint=given.endpoint or used.metadata.get("endpoint") or None,
        **common,
    )


class DriverJson(TypedDict):
    id: str
    name: str
    type: str
    creator: str
    createdAt: str
    integrationId: str
    integrationType: str
    allowExternalDelete: bool
    allowExternalModification: bool
    metadata: dict[str, Any]
    path: str
    bucketName: str | None
    directory: str | None
    mountPath: str | None
    region: str | None
    storageClass: str | None
    endpoint: str | None


def driver(found: Driver) -> DriverJson:
    is_folder = found.integration_kind == "hostPath"
    return DriverJson(
        id=to_wire(found.id),
        name=found.name,
        type=found.kind,
        creator=found.creator,
        createdAt=times.to_wire(found.created_at),
        integrationId=to_wire(found.integration_id),
        integrationType=found.integration_kind,
        allowExternalDelete=found.allow_delete,
        allowExternalModification=True,
        metadata={"system": {"projectId": to_wire(found.project_id)}},
        path=found.prefix.rstrip("/"),
        bucketName=None if is_folder else found.root,
        directory="/" + found.prefix.rstrip("/") if is_folder else None,
        mountPath=found.root if is_folder else None,
        region=found.region,
        storageClass=found.storage_class,
        endpoint=found.endpoint,
    )
