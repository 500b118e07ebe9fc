"""Storage drivers as the SDK sends and reads them."""

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.drivers import Driver, DriverChange, NewDriver, folder_prefix
from headwater.catalog.integrations import Integration
from headwater.errors import BadRequest
from headwater.ids import from_wire, to_wire
from headwater.storage.azure.store import access_tier
from headwater.storage.gcs.requests import checked_class
from headwater.storage.s3.requests import check_region
from headwater.storage.stores import LARGEST_KEY_BYTES
from headwater.wire import times


class _SystemMetadata(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    project_id: str = Field(alias="projectId")


class _DriverMetadata(BaseModel):
    system: _SystemMetadata


class DriverPayload(BaseModel):
    """The union of what the SDK sends for the types it knows."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    bucket_name: str | None = Field(default=None, alias="bucketName", description="Of s3 and storage drivers.")
    bucket: str | None = Field(default=None, description="Of gcs drivers.")
    container_name: str | None = Field(default=None, alias="containerName", description="Of Azure drivers.")
    directory: str | None = Field(default=None, description="Of storage drivers on a folder: a folder inside it.")
    path: str | None = Field(default=None, description="Folder inside the bucket; empty for all of it.")
    region: str | None = None
    storage_class: str | None = Field(
        default=None,
        alias="storageClass",
        description="Of every object written; empty for the bucket's standard.",
    )
    endpoint: str | None = Field(
        default=None, description="http(s)://host[:port] of a store that is not the cloud's own."
    )


class NewDriverBody(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    name: str
    type: str = Field(description="s3, gcs, azureblob, azureDatalakeGen2, or storage (a folder, or an s3 integration).")
    integration_id: str = Field(alias="integrationId")
    allow_external_delete: bool = Field(
        default=False,
        alias="allowExternalDelete",
        description="Whether deleting an item deletes its object in the bucket.",
    )
    read_only: bool = Field(
        default=False,
        alias="readOnly",
        description="Nothing is written to the bucket; thumbnails are kept in Headwater's own storage.",
    )
    metadata: _DriverMetadata
    payload: DriverPayload

    @property
    def project_id(self) -> int:
        return from_wire(self.metadata.system.project_id, "project")


class DriverPatch(BaseModel):
    """Where a driver points never changes; make another one for another place."""

    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    name: str | None = None
    allow_external_delete: bool | None = Field(default=None, alias="allowExternalDelete")
    storage_class: str | None = Field(default=None, alias="storageClass")

    def change(self, driver: Driver) -> DriverChange:
        """Raises BadRequest."""
        storage_class = None if self.storage_class is None else _storage_class(driver.kind, self.storage_class) or ""
        return DriverChange(name=self.name, allow_delete=self.allow_external_delete, storage_class=storage_class)


_FOLDERS = ("hostPath", "nfs")
_AZURE = ("azureblob", "azureDatalakeGen2")
# Type of the driver -> kinds of integrations it can use.
_USES: dict[str, tuple[str, ...]] = {
    "s3": ("s3", "aws-sts", "aws-cross"),
    "gcs": ("gcs", "gcp-cross", "gcp-workload-identity-federation"),
    "azureblob": _AZURE,
    "azureDatalakeGen2": _AZURE,
    "storage": (*_FOLDERS, "s3"),
}


def new_driver(body: NewDriverBody, used: Integration, folder: str | None) -> NewDriver:
    """`folder` is that of a folder integration. Raises BadRequest when the body does not fit its integration."""
    if body.type not in _USES:
        raise BadRequest(f"There are no storage drivers of type {body.type[:60]!r} here. Types: {', '.join(_USES)}.")
    if used.kind not in _USES[body.type]:
        raise BadRequest(
            f"A driver of type {body.type} cannot use integration {used.name!r}, which is of type {used.kind}. "
            f"It needs one of type {' or '.join(_USES[body.type])}."
        )
    if body.read_only and body.allow_external_delete and "allow_external_delete" in body.model_fields_set:
        raise BadRequest("A driver that only reads cannot be allowed to delete. Leave one of the two out.")
    given = body.payload
    root, inner = (folder, given.directory) if folder is not None else (_bucket_of(body), given.path)
    if folder is not None and any(part == ".." for part in (inner or "").split("/")):
        raise BadRequest("The directory of a driver lies in the folder of its integration: a path without '..'.")
    for name, text in (("path", inner), ("region", given.region), ("endpoint", given.endpoint)):
        if text is not None and (not text.isprintable() or len(text.encode()) > LARGEST_KEY_BYTES):
            raise BadRequest(f"The driver's {name} is a text without control characters, of at most 1,024 bytes.")
    region = given.region or used.metadata.get("region") or None
    if region is not None and used.kind in _USES["s3"]:
        check_region(region)
    return NewDriver(
        name=body.name.strip(),
        kind=body.type,
        integration_id=used.id,
        root=root,
        prefix=folder_prefix(inner),
        region=region,
        storage_class=_storage_class(body.type, given.storage_class),
        endpoint=None if folder is not None else given.endpoint or used.metadata.get("endpoint") or None,
        allow_delete=body.allow_external_delete and not body.read_only,
        read_only=body.read_only,
    )


def _bucket_of(body: NewDriverBody) -> str:
    """Raises BadRequest for what cannot be a bucket's name, with the likely mistake."""
    given = body.payload
    field = "bucket" if body.type == "gcs" else "containerName" if body.type in _AZURE else "bucketName"
    name = (given.bucket_name or given.bucket or given.container_name or "").strip()
    if not name:
        raise BadRequest(f"A driver of type {body.type} needs the name of its bucket (payload.{field}).")
    bare = re.sub(r"^[a-z0-9]+://", "", name).strip("/")
    bucket, slash, folder = bare.partition("/")
    if "://" in name or "/" in name:
        rest = f", and its folder goes into payload.path: {folder}" if slash and folder else ""
        raise BadRequest(f"{name[:200]!r} is not a bucket's name. Give its name alone: {bucket[:63]}{rest}.")
    if not re.fullmatch(r"[A-Za-z0-9$][A-Za-z0-9._-]{1,221}", name):  # Azure: $web; old S3 and GCS names are long
        raise BadRequest(f"{name[:200]!r} is not a bucket's name: letters, digits, '.', '_' and '-', at least two.")
    return name


# Objects of these classes have to be restored before they can be read again.
_UNREADABLE = {"GLACIER", "DEEP_ARCHIVE"}


def _storage_class(kind: str, given: str | None) -> str | None:
    """None for the bucket's standard. Raises BadRequest."""
    name = (given or "").strip()
    if name.upper() in ("", "STANDARD"):
        return None
    if not re.fullmatch(r"[A-Za-z_]{1,40}", name) or kind == "storage":
        raise BadRequest(f"{name[:40]!r} is not a storage class of a driver of type {kind}.")
    if name.upper() in _UNREADABLE or (kind in _AZURE and name.upper() == "ARCHIVE"):
        raise BadRequest(
            f"Objects of the class {name} cannot be read until they are restored, so nothing could be shown of them. "
            "Choose a class that can be read at once."
        )
    if kind in _AZURE:
        access_tier(name)
    elif kind == "gcs":
        checked_class(name)
    return name


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
    readOnly: bool
    metadata: dict[str, Any]
    path: str
    bucketName: str | None
    bucket: str | None
    containerName: str | None
    directory: str | None
    mountPath: str | None
    region: str | None
    storageClass: str | None
    endpoint: str | None
    warning: str | None
    checkedAt: str | None
    report: dict[str, Any] | None


def driver(found: Driver) -> DriverJson:
    is_folder = found.integration_kind in _FOLDERS
    is_azure = found.kind in _AZURE
    return DriverJson(
        id=to_wire(found.id),
        name=found.name,
        type=found.kind,
        creator=found.creator,
        createdAt=times.to_wire(found.created_at),
        integrationId=to_wire(found.integration_id),
        integrationType=found.integration_kind,
        allowExternalDelete=found.allow_delete,
        allowExternalModification=not found.read_only,
        readOnly=found.read_only,
        metadata={"system": {"projectId": to_wire(found.project_id)}},
        path=found.prefix.rstrip("/"),
        bucketName=None if is_folder or is_azure or found.kind == "gcs" else found.root,
        bucket=found.root if found.kind == "gcs" else None,
        containerName=found.root if is_azure else None,
        directory="/" + found.prefix.rstrip("/") if is_folder else None,
        mountPath=found.root if is_folder else None,
        region=found.region,
        storageClass=found.storage_class or "",
        endpoint=found.endpoint,
        warning=_warning(found),
        checkedAt=None if found.checked_at is None else times.to_wire(found.checked_at),
        report=found.report,
    )


def _warning(found: Driver) -> str | None:
    if found.asks_delete and not found.allow_delete:
        return "The organisation forbids deleting objects in buckets, so this driver deletes none."
    for check in (found.report or {}).get("checks", []):
        if found.allow_delete and check["name"] == "delete" and check["ok"] is False:
            return f"Items are deleted without their objects. {check['message']}"
    if found.allow_delete:
        return "Deleting an item deletes its object in the bucket, for good."
    return None
