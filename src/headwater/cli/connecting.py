"""`headwater connect`: an integration, a driver and a dataset for a source, each only where it is missing."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import ensure_project, list_datasets
from headwater.cli.output import note, print_json
from headwater.cli.sources import Access, Bucket, Folder, Given, Source, access_of, endpoint_of, parse_source
from headwater.cli.syncing import followed, report_end
from headwater.errors import Conflict, Forbidden, HeadwaterError, NotFound

_DEFAULT_PROJECT = "Default"
_MOST_NAMES = 100


@dataclass(frozen=True, slots=True)
class Wanted:
    """The storage to connect, and how."""

    source: Source
    access: Access | None = None  # None for folders; without options where an integration is there already
    integration: str | None = None  # name of one that is there already
    allow_delete: bool | None = None
    read_only: bool = False
    storage_class: str | None = None


@dataclass(frozen=True, slots=True)
class Connected:
    project: dict[str, Any]
    driver: dict[str, Any]
    dataset: dict[str, Any]


def connect_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="s3://, gs:// or az://ACCOUNT/ and BUCKET/FOLDER; or the path of a folder."
        ),
    ],
    dataset: Annotated[str, typer.Option("--dataset", "-d", metavar="NAME", help="The dataset's name.")],
    project: Annotated[
        str, typer.Option("--project", "-p", metavar="NAME", help="The project's name; made if there is none.")
    ] = _DEFAULT_PROJECT,
    key: options.Key = None,
    secret: options.Secret = None,
    session_token: options.SessionToken = None,
    key_file: options.KeyFile = None,
    endpoint: options.Endpoint = None,
    region: options.Region = None,
    integration: Annotated[
        str | None, typer.Option("--integration", metavar="NAME", help="Use the keys of an integration that is there.")
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Write nothing to the bucket; thumbnails are kept by Headwater.")
    ] = False,
    storage_class: Annotated[
        str | None, typer.Option("--storage-class", help="Of the objects written, as the cloud names it.")
    ] = None,
    allow_delete: Annotated[
        bool | None,
        typer.Option(
            "--allow-delete/--no-allow-delete",
            help="Whether deleting an item deletes its object in the bucket.  [default: no-allow-delete]",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show the sync until it has ended.")] = True,
    detach: Annotated[bool, typer.Option("--detach", help="The same as --no-follow.")] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Connect a bucket or a folder: integration, storage driver and dataset in one go; then sync.

    Run it again and nothing is added twice: it says what exists and syncs.

    Example: headwater connect s3://photos/2024 --dataset photos --region eu-central-1

    Example: headwater connect gs://photos/2024 --dataset photos --key-file key.json

    Example: headwater connect az://account/photos/2024 --dataset photos
    """
    parsed = parse_source(source)
    given = Given(key, secret, session_token, key_file, endpoint, region)
    access = None
    if isinstance(parsed, Bucket):
        access = Access({}, endpoint_of(parsed, endpoint), region) if integration else access_of(parsed, given)
    wanted = Wanted(parsed, access, integration, allow_delete, read_only, storage_class)
    with connect(data_dir) as client:
        made = connect_source(client, wanted, dataset, project)
        command = client.post(f"/datasets/{made.dataset['id']}/sync")
        if follow and not detach:
            command = followed(client, made.dataset, command)
        if as_json:
            print_json(
                {
                    "project_id": made.project["id"],
                    "driver_id": made.driver["id"],
                    "dataset_id": made.dataset["id"],
                    "command_id": command["id"],
                    "status": command["status"],
                    "warning": command["warning"],
                    "error": command["error"],
                    "sync": command["spec"].get("sync"),
                }
            )
        report_end(made.dataset, command, is_quiet=as_json)


def connect_source(client: Client, wanted: Wanted, dataset_name: str, project_name: str) -> Connected:
    """Everything there, made where it is missing; says what it made. Safe to repeat. Raises HeadwaterError."""
    project = ensure_project(client, project_name)
    existing = list_datasets(client, project["id"], dataset_name)
    if existing:
        driver = _driver_of(client, existing[0])
        if driver is None or not _is_at(driver, wanted):
            raise Conflict(
                f"Project {project['name']} has a dataset {dataset_name} on other storage "
                f"({'its own' if driver is None else _place_of(driver)}). Choose another name with --dataset."
            )
        _check_same(driver, wanted)
        note(
            f"Dataset {project['name']}/{dataset_name} on {wanted.source} exists already, with the keys it was made "
            "with."
        )
        return Connected(project, driver, existing[0])
    driver = _ensure_driver(client, project, wanted)
    body = {"name": dataset_name, "projects": [project["id"]], "driver": driver["id"], "sync": False}
    dataset = client.post("/datasets", body)
    note(f"Made dataset {project['name']}/{dataset_name}.")
    return Connected(project, driver, dataset)


def _driver_of(client: Client, dataset: dict[str, Any]) -> dict[str, Any] | None:
    return None if dataset["driver"] is None else client.get(f"/drivers/{dataset['driver']}")


def _is_at(driver: dict[str, Any], wanted: Wanted) -> bool:
    """Whether the driver's storage is this source."""
    source = wanted.source
    if isinstance(source, Folder):
        return driver["mountPath"] == str(source.path) and not driver["path"]
    if (driver["type"], _bucket_of(driver), driver["path"]) != (source.cloud, source.name, source.folder):
        return False
    endpoint = wanted.access.endpoint if wanted.access is not None else None
    if endpoint is None and wanted.integration is not None:
        return True  # the integration may know an endpoint
    return (driver["endpoint"] or None) == endpoint


def _bucket_of(driver: dict[str, Any]) -> str | None:
    return driver["bucketName"] or driver["bucket"] or driver["containerName"]


def _place_of(driver: dict[str, Any]) -> str:
    return driver["mountPath"] or f"{driver['type']} bucket {_bucket_of(driver)}/{driver['path']}".rstrip("/")


def _check_same(driver: dict[str, Any], wanted: Wanted) -> None:
    """Raises Conflict: what may be deleted is not changed in passing."""
    if wanted.allow_delete is not None and wanted.allow_delete != driver["allowExternalDelete"]:
        option = "--allow-delete" if wanted.allow_delete else "--no-allow-delete"
        raise Conflict(
            f"The storage driver {driver['name']} was made otherwise, and that is not changed in passing. "
            f"Change it: headwater driver update {driver['name']!r} {option}"
        )
    if wanted.read_only and not driver["readOnly"]:
        raise Conflict(
            f"The storage driver {driver['name']} writes to its bucket. For one that only reads, connect under another "
            "project."
        )


def _ensure_driver(client: Client, project: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    source = wanted.source
    drivers = client.get("/drivers", projectId=project["id"])
    for driver in drivers:
        if _is_at(driver, wanted):
            _check_same(driver, wanted)
            note(f"Storage driver {driver['name']} exists already; it is used as it is, with the keys it has.")
            return driver
    organization_id = project["org"]["id"]
    if wanted.integration is not None:
        integration = _find_integration(client, organization_id, wanted.integration)
    else:
        integration = _make_integration(client, organization_id, source, wanted.access)
    taken = {driver["name"] for driver in drivers}
    body: dict[str, Any] = {
        "name": _free_name(str(source), taken),
        "type": source.cloud if isinstance(source, Bucket) else "storage",
        "integrationId": integration["id"],
        "integrationType": integration["type"],
        "allowExternalDelete": bool(wanted.allow_delete),
        "readOnly": wanted.read_only,
        "metadata": {"system": {"projectId": project["id"]}},
        "payload": _payload(wanted),
    }
    try:
        driver = client.post("/drivers", body)
    except HeadwaterError:
        if wanted.integration is None:
            client.delete(f"/orgs/{organization_id}/integrations/{integration['id']}")
        raise
    note(f"Made storage driver {driver['name']} with integration {integration['name']}.")
    if not wanted.read_only:
        note("Thumbnails go into the hidden folder .dataloop/ there; nothing else there is changed.")
    return driver


def _payload(wanted: Wanted) -> dict[str, Any]:
    source, access = wanted.source, wanted.access
    if isinstance(source, Folder) or access is None:
        return {"directory": ""}
    field = {"s3": "bucketName", "gcs": "bucket", "azureblob": "containerName"}[source.cloud]
    return {
        field: source.name,
        "path": source.folder,
        "region": access.region,
        "endpoint": access.endpoint,
        "storageClass": wanted.storage_class,
    }


def _find_integration(client: Client, organization_id: str, name: str) -> dict[str, Any]:
    """Raises NotFound."""
    found = client.get(f"/orgs/{organization_id}/availableIntegrations")
    for integration in found:
        if integration["name"] == name:
            return integration
    raise NotFound(
        f"There is no integration {name!r} in this organisation. There are: "
        f"{', '.join(integration['name'] for integration in found) or 'none'}."
    )


def _make_integration(client: Client, organization_id: str, source: Source, access: Access | None) -> dict[str, Any]:
    """Raises Forbidden, for members who are no admins."""
    try:
        found = client.get(f"/orgs/{organization_id}/integrations")
    except Forbidden:
        raise Forbidden(
            "Only owners and admins of the organisation may bring new keys. Ask one of them, or use keys that are "
            "there: --integration NAME"
        ) from None
    body: dict[str, Any] = {"name": _free_name(str(source), {integration["name"] for integration in found})}
    if isinstance(source, Folder) or access is None:
        body |= {"type": "hostPath", "options": {}, "metadata": {"path": str(source)}}
    else:
        metadata = {"endpoint": access.endpoint, "region": access.region}
        body |= {"type": source.cloud, "options": access.options, "metadata": metadata}
    return client.post(f"/orgs/{organization_id}/integrations", body)


def _free_name(name: str, taken: set[str]) -> str:
    name = name[-240:]  # the end of a long path tells more
    candidates = (name if number == 1 else f"{name} ({number})" for number in range(1, _MOST_NAMES))
    return next((candidate for candidate in candidates if candidate not in taken), name)
