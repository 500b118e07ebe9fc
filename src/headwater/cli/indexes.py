"""`headwater index`: what filters find quickly in a dataset."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.finding import get_dataset
from headwater.cli.output import add_row, console, print_json, say, size, table, warn

index_app = typer.Typer(name="index", help="What filters find quickly in a dataset.", no_args_is_help=True)

_Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")]
_Path = Annotated[str, typer.Argument(metavar="PATH", help="As filters name it: metadata.user.camera")]


@index_app.command("list")
def list_command(dataset: _Dataset, data_dir: options.ServerDataDir = None, as_json: options.AsJson = False) -> None:
    """Tell which paths are indexed, how, how large that is, how far it is built, and what would help slow queries.

    Example: headwater index list photos
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        indexes = client.get(f"/datasets/{found['id']}/indexes")
    if as_json:
        print_json(_json(indexes))
        return
    if indexes["paths"]:
        shown = table("Path", "Kept as", "Values", "Items", "Size", "Asked for", numbers=("Values", "Items", "Size"))
        for path in indexes["paths"]:
            values = "" if path["distinctValues"] is None else f"{path['distinctValues']:,}"
            is_built = path["segments"] >= indexes["builtSegments"]
            items = f"{path['itemsCount']:,}" if is_built else "being built"
            pinned = "yes" if path["pinned"] else ""
            add_row(shown, path["path"], path["encoding"], values, items, size(path["sizeBytes"]), pinned)
        console.print(shown)
    _say_state(found["name"], indexes)
    for one in indexes["suggestions"]:
        queries = "1 slow query" if one["queries"] == 1 else f"{one['queries']:,} slow queries"
        say(f"{queries} asked for {one['path']!r}, which is not indexed. {one['command']}".rstrip())


def _say_state(name: str, indexes: dict[str, Any]) -> None:
    if indexes["error"]:
        warn(indexes["error"])
    match indexes["state"]:
        case "none":
            say(f"{name}: no index. Datasets get one when they are large; or ask for a path: headwater index add")
        case "waiting":
            say(f"{name}: the index begins as soon as what runs in the database now has ended.")
        case _:
            say(
                f"{name}: {indexes['builtSegments']:,} of {indexes['segments']:,} parts are built, "
                f"{size(indexes['sizeBytes'])}; {indexes['waitingItems']:,} items wait to be built."
            )


@index_app.command("add")
def add_command(dataset: _Dataset, path: _Path, data_dir: options.ServerDataDir = None) -> None:
    """Index a path of metadata. The most frequent ones are indexed without being asked for.

    Example: headwater index add photos metadata.user.camera
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        client.post(f"/datasets/{found['id']}/indexes", {"path": path})
    say(f"{path} is being indexed in {found['name']}. See how far it is: headwater index list {found['name']}")


@index_app.command("remove")
def remove_command(dataset: _Dataset, path: _Path, data_dir: options.ServerDataDir = None) -> None:
    """Do not index a path any more, nor again by itself.

    Example: headwater index remove photos metadata.user.note
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        client.delete(f"/datasets/{found['id']}/indexes?path={quote(path, safe='')}")
    say(f"{path} is not indexed in {found['name']} any more. Filters on it still answer, only more slowly.")


@index_app.command("rebuild")
def rebuild_command(
    dataset: _Dataset,
    path: Annotated[str | None, typer.Argument(metavar="[PATH]", help="Only this one; without it, all.")] = None,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Build the index of a path, or all of it, anew. Filters answer as ever meanwhile.

    Example: headwater index rebuild photos
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        client.post(f"/datasets/{found['id']}/indexes/rebuild", {"path": path})
    say(f"{path or 'Everything'} is being indexed anew in {found['name']}.")


def _json(indexes: dict[str, Any]) -> dict[str, Any]:
    return {
        "dataset_id": indexes["datasetId"],
        "state": indexes["state"],
        "segments": indexes["segments"],
        "built_segments": indexes["builtSegments"],
        "waiting_items": indexes["waitingItems"],
        "size_bytes": indexes["sizeBytes"],
        "built_at": indexes["builtAt"],
        "error": indexes["error"],
        "paths": [
            {
                "path": path["path"],
                "encoding": path["encoding"],
                "pinned": path["pinned"],
                "distinct_values": path["distinctValues"],
                "items": path["itemsCount"],
                "size_bytes": path["sizeBytes"],
                "segments": path["segments"],
            }
            for path in indexes["paths"]
        ],
        "suggestions": indexes["suggestions"],
    }
