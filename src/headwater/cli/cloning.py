"""`headwater clone` and `headwater merge`: datasets made of others, without a byte copied."""

import sys
from typing import Annotated, Any

import orjson
import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.following import ENDED, follow
from headwater.cli.output import counted, fail, note, print_json, say, size, warn
from headwater.errors import BadRequest

_INTERRUPTED = 130
_Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")]
_NoMetadata = Annotated[bool, typer.Option("--no-metadata", help="Leave out user metadata, descriptions and tags.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would be cloned, and clone nothing.")]


def clone_command(
    dataset: _Dataset,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Of the new dataset.")] = None,
    conditions: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="The SDK's filter: only items that it finds.")
    ] = None,
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="FOLDER", help="Only what is in this folder and below it.")
    ] = None,
    into: Annotated[
        str | None, typer.Option("--into", metavar="FOLDER", help="A folder of the target, in front of every path.")
    ] = None,
    to_dataset: Annotated[
        str | None, typer.Option("--to-dataset", metavar="DATASET", help="Clone into this one instead of a new one.")
    ] = None,
    no_metadata: _NoMetadata = False,
    dry_run: _DryRun = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Clone a dataset, or some of its items. No byte is copied: a clone shares the objects of its originals.

    The same again adds nothing. An item whose path another one has gets a number: a (2).jpg.

    Example: headwater clone photos photos-2024 --folder /2024
    """
    if (name is None) == (to_dataset is None):
        raise BadRequest("Give a NAME for the new dataset, or another dataset with --to-dataset.")
    with connect(data_dir) as client:
        source = get_dataset(client, dataset)
        params: dict[str, Any] = {"withMetadata": not no_metadata, "targetDirectory": into}
        if to_dataset is not None:
            params["targetDatasetId"] = get_dataset(client, to_dataset)["id"]
        body: dict[str, Any] = {"name": name, "folder": folder, "cloneDatasetParams": params}
        if conditions is not None:
            body["filter"] = {"filter": parsed(conditions)}
        _run(client, f"/datasets/{source['id']}/clone", body, dry_run=dry_run, as_json=as_json)


def merge_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the new dataset.")],
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET...", help="What it is made of, in this order.")],
    no_metadata: _NoMetadata = False,
    dry_run: _DryRun = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Make one dataset of several. No byte is copied, and the others stay as they are.

    The same object at the same path comes once. Of different items with one path the first keeps it, the others get a
    number: a (2).jpg.

    Example: headwater merge all photos scans
    """
    with connect(data_dir) as client:
        found = [get_dataset(client, one) for one in datasets]
        body: dict[str, Any] = {
            "name": name,
            "datasetsIds": [one["id"] for one in found],
            "projectIds": [found[0]["projects"][0]],
            "mergeDatasetParams": {"withMetadata": not no_metadata},
        }
        _run(client, "/datasets/merge", body, dry_run=dry_run, as_json=as_json)


def parsed(conditions: str) -> dict[str, Any]:
    """Raises BadRequest."""
    try:
        found = orjson.loads(conditions)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f'--filter is no JSON ({error}). For example: --filter \'{{"name": "*.jpg"}}\'') from None
    if not isinstance(found, dict):
        raise BadRequest('--filter has to be an object. For example: --filter \'{"name": "*.jpg"}\'')
    return found


def _run(client: Client, url: str, body: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    if dry_run:
        _show_estimate(client.post(url, body | {"dryRun": True}), as_json=as_json)
        return
    command = client.post(url, body)
    target = client.get(f"/datasets/{command['spec']['datasetId']}")
    if command["status"] not in ENDED:
        try:
            command = follow(client, target, command, f"Cloning into {target['name']}", _facts)
        except KeyboardInterrupt:
            note(f"The clone goes on. Abort it: headwater abort {command['id']}")
            sys.exit(_INTERRUPTED)
    if as_json:
        print_json(_json(target, command))
    if command["status"] != "success":
        fail(command["error"] or f"The clone ended as {command['status']}.")
    if command["warning"]:
        warn(command["warning"])
    if not as_json:
        say(f"{_facts(command)} into {target['name']}. No byte was copied.")


def _facts(command: dict[str, Any]) -> str:
    told = command["spec"]["clone"]
    there = f", {told['thereAlready']:,} were there already" if told["thereAlready"] else ""
    return f"Cloned {counted(told['cloned'], 'item')}, {size(told['bytes'])}{there}"


def _show_estimate(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "items": told["items"],
                "size_bytes": told["sizeBytes"],
                "there_already": told["thereAlready"],
                "renamed": told["renamed"],
                "missing": told["missing"],
            }
        )
        return
    say(f"To be cloned: {counted(told['items'] - told['thereAlready'], 'item')} of {size(told['sizeBytes'])}.")
    if told["thereAlready"]:
        say(f"{told['thereAlready']:,} are there already and stay as they are.")
    if told["renamed"]:
        say(f"{told['renamed']:,} get a number behind their name, because another item has it.")
    if told["missing"]:
        say(f"{told['missing']:,} more are left out: their objects are missing from the bucket.")


def _json(target: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    told = command["spec"]["clone"]
    return {
        "id": command["id"],
        "status": command["status"],
        "dataset": {"id": target["id"], "name": target["name"]},
        "items": told["items"],
        "cloned": told["cloned"],
        "there_already": told["thereAlready"],
        "renamed": told["renamed"],
        "missing": told["missing"],
        "size_bytes": told["bytes"],
        "warning": command["warning"],
        "error": command["error"],
    }
