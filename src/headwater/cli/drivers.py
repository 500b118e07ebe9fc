"""`headwater driver`: the storage drivers of a project, what may change about them, and their end."""

from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import list_datasets, list_projects
from headwater.cli.output import add_row, console, note, print_json, table
from headwater.errors import BadRequest, NotFound

driver_app = typer.Typer(
    name="driver", help="Storage drivers: list, change, delete.", no_args_is_help=True, rich_markup_mode="markdown"
)

DriverName = Annotated[str, typer.Argument(metavar="DRIVER", help="Its name or id.")]
SourceName = Annotated[str, typer.Argument(metavar="DRIVER", help="Its name or id, or the name of a dataset of it.")]
Project = Annotated[str | None, typer.Option("--project", "-p", metavar="NAME", help="Only in this project.")]


def find_driver(client: Client, wanted: str, project: str | None) -> dict[str, Any]:
    """Raises NotFound, BadRequest when several have the name."""
    return _only(wanted, [driver for driver in _list(client, project) if wanted in (driver["name"], driver["id"])])


def find_source(client: Client, wanted: str, project: str | None) -> dict[str, Any]:
    """The driver of that name, or of a dataset of that name. Raises NotFound, BadRequest when there are several."""
    known = _list(client, project)
    found = [driver for driver in known if wanted in (driver["name"], driver["id"])]
    if not found:
        of_datasets = {dataset["driver"] for dataset in list_datasets(client, name=wanted)}
        found = [driver for driver in known if driver["id"] in of_datasets]
    return _only(wanted, found)


def _only(wanted: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    if not found:
        raise NotFound(f"There is no storage driver {wanted!r} that you may see. List them: headwater driver list")
    if len(found) > 1:
        raise BadRequest(f"Several drivers are meant by {wanted!r}. Say which one with --project, or give its id.")
    return found[0]


def _list(client: Client, project: str | None) -> list[dict[str, Any]]:
    found = [each for each in list_projects(client) if project in (None, each["name"])]
    if project is not None and not found:
        raise NotFound(f"There is no project {project!r} that you may see.")
    return [
        driver | {"project": each["name"]} for each in found for driver in client.get("/drivers", projectId=each["id"])
    ]


@driver_app.command("list")
def list_command(
    project: Project = None, data_dir: options.ServerDataDir = None, as_json: options.AsJson = False
) -> None:
    """Show every storage driver that you may see.

    Example: headwater driver list --project Default
    """
    with connect(data_dir) as client:
        found = _list(client, project)
    if as_json:
        print_json(found)
        return
    shown = table("name", "project", "type", "place", "deletes", "writes", "checked")
    for driver in found:
        bucket = driver["bucketName"] or driver["bucket"] or driver["containerName"] or driver["mountPath"]
        add_row(
            shown,
            driver["name"],
            driver["project"],
            driver["type"],
            f"{bucket}/{driver['path']}".rstrip("/"),
            "yes" if driver["allowExternalDelete"] else "no",
            "no" if driver["readOnly"] else "yes",
            (driver["checkedAt"] or "never")[:16].replace("T", " "),
        )
    console.print(shown)


@driver_app.command("update")
def update_command(
    driver: DriverName,
    project: Project = None,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    allow_delete: Annotated[
        bool | None,
        typer.Option("--allow-delete/--no-allow-delete", help="Whether deleting an item deletes its object."),
    ] = None,
    storage_class: Annotated[
        str | None, typer.Option("--storage-class", help="Of objects written from now on; standard for the usual one.")
    ] = None,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Change a driver. Where it points never changes.

    Example: headwater driver update photos --no-allow-delete
    """
    change = {"name": name, "allowExternalDelete": allow_delete, "storageClass": storage_class}
    change = {field: value for field, value in change.items() if value is not None}
    if not change:
        raise BadRequest("Nothing to change. Give --name, --allow-delete, --no-allow-delete or --storage-class.")
    with connect(data_dir) as client:
        changed = client.patch(f"/drivers/{find_driver(client, driver, project)['id']}", change)
    note(f"Changed storage driver {changed['name']}.")
    if changed["warning"]:
        note(changed["warning"])


@driver_app.command("delete")
def delete_command(driver: DriverName, project: Project = None, data_dir: options.ServerDataDir = None) -> None:
    """Forget a driver that no dataset uses. The bucket is not touched.

    Example: headwater driver delete photos
    """
    with connect(data_dir) as client:
        found = find_driver(client, driver, project)
        client.delete(f"/drivers/{found['id']}")
    note(f"Deleted storage driver {found['name']}. Its bucket is as it was.")
