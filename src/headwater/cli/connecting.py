"""`headwater connect`: an integration, a driver and a dataset for a source, each only where it is missing."""

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import list_datasets, list_projects
from headwater.cli.output import note, print_json
from headwater.cli.sources import Bucket, Folder, S3Access, Source, parse_source, s3_access
from headwater.cli.syncing import followed, report_end
from headwater.errors import Conflict, Forbidden, HeadwaterError

_DEFAULT_PROJECT = "Default"
_MOST_NAMES = 100


@dataclass(frozen=True, slots=True)
class Connected:
    project: dict[str, Any]
    driver: dict[str, Any]
    dataset: dict[str, Any]


def connect_command(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="s3://BUCKET/FOLDER, file:///FOLDER or the path of a folder.")
    ],
    dataset: Annotated[str, typer.Option("--dataset", "-d", metavar="NAME", help="The dataset's name.")],
    project: Annotated[
        str, typer.Option("--project", "-p", metavar="NAME", help="The project's name; made if there is none.")
    ] = _DEFAULT_PROJECT,
    key: options.Key = None,
    secret: options.Secret = None,
    session_token: options.SessionToken = None,
    endpoint: options.Endpoint = None,
    region: options.Region = None,
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
    """
    wanted = parse_source(source)
    access = s3_access(key, secret, session_token, endpoint, region) if isinstance(wanted, Bucket) else None
    with connect(data_dir) as client:
        made = connect_source(client, wanted, access, dataset, project, allow_delete=allow_delete)
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


def connect_source(
    client: Client,
    source: Source,
    access: S3Access | None,
    dataset_name: str,
    project_name: str,
    *,
    allow_delete: bool | None,
) -> Connected:
    """Everything there, made where it is missing; says what it made. Safe to repeat. Raises HeadwaterError."""
    project = _ensure_project(client, project_name)
    existing = list_datasets(client, project["id"], dataset_name)
    if existing:
        driver = _driver_of(client, existing[0])
        if driver is None or not _is_at(driver, source, access):
            raise Conflict(
                f"Project {project['name']} has a dataset {dataset_name} on other storage "
                f"({'its own' if driver is None else _place_of(driver)}). Choose another name with --dataset."
            )
        _check_deletion(driver, allow_delete)
        note(f"Dataset {project['name']}/{dataset_name} on {source} exists already, with the keys it was made with.")
        return Connected(project, driver, existing[0])
    driver = _ensure_driver(client, project, source, access, allow_delete)
    body = {"name": dataset_name, "projects": [project["id"]], "driver": driver["id"], "sync": False}
    dataset = client.post("/datasets", body)
    note(f"Made dataset {project['name']}/{dataset_name}.")
    return Connected(project, driver, dataset)


def _ensure_project(client: Client, name: str) -> dict[str, Any]:
    found = [project for project in list_projects(client) if project["name"] == name]
    if found:
        return found[0]
    try:
        made = client.post("/projects", form={"name": name})
    except Conflict:
        raise Conflict(
            f"There is a project {name} that you are not a member of. Ask its owner, or choose another with --project."
        ) from None
    note(f"Made project {name}.")
    return made


def _driver_of(client: Client, dataset: dict[str, Any]) -> dict[str, Any] | None:
    return None if dataset["driver"] is None else client.get(f"/drivers/{dataset['driver']}")


def _is_at(driver: dict[str, Any], source: Source, access: S3Access | None) -> bool:
    """Whether the driver's storage is this source."""
    if isinstance(source, Folder):
        return driver["mountPath"] == str(source.path) and not driver["path"]
    endpoint = access.endpoint if access is not None else None
    return (driver["bucketName"], driver["path"], driver["endpoint"] or None) == (source.name, source.folder, endpoint)


def _place_of(driver: dict[str, Any]) -> str:
    return driver["mountPath"] or f"s3://{driver['bucketName']}/{driver['path']}".rstrip("/")


def _check_deletion(driver: dict[str, Any], allow_delete: bool | None) -> None:
    """Raises Conflict: what may be deleted is not changed in passing."""
    if allow_delete is not None and allow_delete != driver["allowExternalDelete"]:
        kept = "--allow-delete" if driver["allowExternalDelete"] else "--no-allow-delete"
        raise Conflict(
            f"The storage driver {driver['name']} was made with {kept}, which cannot be changed. Leave the option "
            "out, or connect under another project."
        )


def _ensure_driver(
    client: Client, project: dict[str, Any], source: Source, access: S3Access | None, allow_delete: bool | None
) -> dict[str, Any]:
    drivers = client.get("/drivers", projectId=project["id"])
    for driver in drivers:
        if _is_at(driver, source, access):
            _check_deletion(driver, allow_delete)
            note(f"Storage driver {driver['name']} exists already; it is used as it is, with the keys it has.")
            return driver
    integration = _make_integration(client, project["org"]["id"], source, access)
    taken = {driver["name"] for driver in drivers}
    body: dict[str, Any] = {
        "name": _free_name(str(source), taken),
        "type": "s3" if isinstance(source, Bucket) else "storage",
        "integrationId": integration["id"],
        "integrationType": integration["type"],
        "allowExternalDelete": bool(allow_delete),
        "metadata": {"system": {"projectId": project["id"]}},
        "payload": _payload(source, access),
    }
    try:
        driver = client.post("/drivers", body)
    except HeadwaterError:
        client.delete(f"/orgs/{project['org']['id']}/integrations/{integration['id']}")
        raise
    note(f"Made integration {integration['name']} and storage driver {driver['name']}.")
    note("Thumbnails go into the hidden folder .dataloop/ there; nothing else there is changed.")
    return driver


def _payload(source: Source, access: S3Access | None) -> dict[str, Any]:
    if isinstance(source, Folder) or access is None:
        return {"directory": ""}
    return {
        "bucketName": source.name,
        "path": source.folder,
        "region": access.region,
        "endpoint": access.endpoint,
    }


def _make_integration(client: Client, organization_id: str, source: Source, access: S3Access | None) -> dict[str, Any]:
    """Raises Forbidden, for members who are no admins."""
    try:
        found = client.get(f"/orgs/{organization_id}/integrations")
    except Forbidden:
        raise Forbidden(
            "Only owners and admins of the organisation may connect new storage. Ask one of them."
        ) from None
    body: dict[str, Any] = {"name": _free_name(str(source), {integration["name"] for integration in found})}
    if isinstance(source, Folder) or access is None:
        body |= {"type": "hostPath", "options": {}, "metadata": {"path": str(source)}}
    else:
        secret = {"key": access.key, "secret": access.secret}
        if access.session_token:
            secret["sessionToken"] = access.session_token
        body |= {"type": "s3", "options": secret, "metadata": {"endpoint": access.endpoint, "region": access.region}}
    return client.post(f"/orgs/{organization_id}/integrations", body)


def _free_name(name: str, taken: set[str]) -> str:
    name = name[-240:]  # the end of a long path tells more
    candidates = (name if number == 1 else f"{name} ({number})" for number in range(1, _MOST_NAMES))
    return next((candidate for candidate in candidates if candidate not in taken), name)
