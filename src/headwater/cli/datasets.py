"""`headwater dataset`: make, rename and delete datasets. Those on a bucket are made by `headwater connect` as well."""

import sys
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.drivers import find_driver
from headwater.cli.finding import ensure_project, get_dataset
from headwater.cli.output import counted, fail, note, print_json, say

dataset_app = typer.Typer(
    name="dataset", help="Datasets: make, rename, delete.", no_args_is_help=True, rich_markup_mode="markdown"
)

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Its name, PROJECT/NAME or its id.")]


@dataset_app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Names are unique in a project.")],
    project: Annotated[
        str, typer.Option("--project", "-p", metavar="NAME", help="Made, if there is none of that name.")
    ] = "Default",
    driver: Annotated[
        str | None,
        typer.Option(
            "--driver",
            metavar="DRIVER",
            help="On this storage driver, and synced; without it in Headwater's own storage.",
        ),
    ] = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a dataset: in Headwater's own storage, for uploads and links, or on a storage driver.

    Example: headwater dataset create labels --project Trucks
    """
    with connect(data_dir) as client:
        place = ensure_project(client, project)
        body: dict[str, Any] = {"name": name, "projects": [place["id"]]}
        if driver is not None:
            body["driver"] = find_driver(client, driver, project)["id"]
        made = client.post("/datasets", body)
    if as_json:
        print_json({"id": made["id"], "name": made["name"], "project_id": place["id"], "driver_id": made["driver"]})
    elif driver is None:
        say(
            f"Made dataset {project}/{name} in Headwater's own storage. Fill it: headwater upload PATH --dataset {name}"
        )
    else:
        say(f"Made dataset {project}/{name}, which is being synced: headwater status {name}")


@dataset_app.command("rename")
def rename_command(
    dataset: Dataset,
    name: Annotated[str, typer.Argument(metavar="NEW_NAME")],
    data_dir: options.ServerDataDir = None,
) -> None:
    """Give a dataset another name.

    Example: headwater dataset rename Trucks/labels labels-2025
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        client.patch(f"/datasets/{found['id']}", {"name": name})
    say(f"{found['name']} is named {name} now.")


@dataset_app.command("delete")
def delete_command(
    dataset: Dataset,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Delete a dataset: its index, its metadata, and what was uploaded into Headwater's own storage.

    Objects in buckets stay where they are, and so do those that clones in other datasets use.

    Example: headwater dataset delete Trucks/labels
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        goes = "and all its files" if found["driver"] is None else "from the index; the objects in the bucket stay"
        note(f"{found['name']}: {counted(found['counts']['items'], 'item')} {goes}. This cannot be undone.")
        _confirm(found["name"], yes=yes)
        client.delete(f"/datasets/{found['id']}")
    say(f"Deleted dataset {found['name']}.")


def _confirm(name: str, *, yes: bool) -> None:
    """On a terminal, by writing the name; a script has to say --yes."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail("Confirm it: add --yes")
    if typer.prompt("Write its name to delete it", default="", show_default=False) != name:
        fail("Nothing was deleted.")
