"""`headwater export`: a dataset's index as files of this machine, or as items that others download."""

import hashlib
import re
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.cloning import parsed
from headwater.cli.finding import get_dataset
from headwater.cli.following import ENDED, follow
from headwater.cli.output import add_row, console, counted, fail, note, print_json, say, size, table, warn
from headwater.cli.transferring import link_of, run_async, shown
from headwater.errors import BadRequest, FailedDependency, NotFound
from headwater.transfer.progress import Progress
from headwater.transfer.receiving import Receiving, Wanted

_INTERRUPTED = 130
_STATE = ".headwater-export.json"  # in the folder, as long as it is not complete
_OURS = re.compile(r"(items|annotations|deleted)-\d{5,}\.(parquet|ndjson)|export\.(json|zip)|croissant\.json")
_READ_BYTES = 1024 * 1024


class Format(StrEnum):
    PARQUET = "parquet"
    JSON = "json"
    NDJSON = "ndjson"
    ZIP = "zip"
    CROISSANT = "croissant"


def export_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FOLDER", help="Fetch the files into this folder; made if absent.")
    ] = None,
    form: Annotated[
        Format, typer.Option("--format", help="croissant is parquet: its description comes with it.")
    ] = Format.PARQUET,
    conditions: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="Only items that the SDK's filter finds.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="PATH", help="A path such as metadata.user.camera as a column of its own."),
    ] = None,
    annotations: Annotated[
        bool, typer.Option("--annotations/--no-annotations", help="Whether annotations come with their items.")
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files of an earlier export in the folder.")
    ] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Write what the index knows of a dataset to files: items with their metadata, and annotations. No object's bytes.

    DuckDB, pandas and Spark read the Parquet files; docs/reference/parquet.md describes the columns. Without --to the
    files stay on the server, for as many days as it keeps them. Run it again to go on after Ctrl-C or an outage.

    A column may say its type: --column metadata.user.score:double (string, double, int64, bool); found out otherwise.

    Example: headwater export photos --to ./photos-index --column metadata.user.camera
    """
    body: dict[str, Any] = {"format": form.value, "annotations": annotations}
    if conditions is not None:
        body["filter"] = parsed(conditions)
    if columns:
        body["columns"] = _columns(columns)
    if to is not None and to.exists() and not to.is_dir():
        raise BadRequest(f"{to} is a file. Give a folder.")
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        command = _unfinished(client, to, found, body)
        if command is None:
            _check_room(to, may_overwrite=overwrite)
            command = client.post(f"/datasets/{found['id']}/export", body)
            _keep_state(to, found, body, command)
        command = _followed(client, found, command)
        files = command["spec"].get("files", [])
        if to is not None and command["status"] == "success":
            _remove_others(to, files)
            run_async(_fetch(client, found, files, to))
    _tell(command, files, found, to, as_json=as_json)


def _columns(given: Iterable[str]) -> dict[str, str | None]:
    """Raises BadRequest for a type that there is none of; the server judges the paths."""
    kinds = ("string", "double", "int64", "bool")
    named: dict[str, str | None] = {}
    for text in given:
        name, colon, kind = text.rpartition(":")
        if colon and kind not in kinds:
            raise BadRequest(f"--column {text}: {kind!r} is no type. Types: {', '.join(kinds)}.")
        named[name if colon else text] = kind if colon else None
    return named


# What is under way in a folder.


def _unfinished(
    client: Client, to: Path | None, dataset: dict[str, Any], body: dict[str, Any]
) -> dict[str, Any] | None:
    """The command of the same export, which was interrupted and can be gone on with."""
    if to is None:
        return None
    try:
        kept = orjson.loads((to / _STATE).read_bytes())
        if (kept["dataset"], kept["body"]) != (dataset["id"], body):
            return None
        command = client.get(f"/commands/{kept['command']}")
        if command["status"] == "success":
            client.get(f"/items/{command['spec']['outputItemId']}")
    except (OSError, ValueError, KeyError, TypeError, NotFound):
        return None
    return command if command["status"] in ("created", "in-progress", "success") else None


def _keep_state(to: Path | None, dataset: dict[str, Any], body: dict[str, Any], command: dict[str, Any]) -> None:
    if to is not None:
        kept = {"dataset": dataset["id"], "body": body, "command": command["id"]}
        (to / _STATE).write_bytes(orjson.dumps(kept))


def _check_room(to: Path | None, *, may_overwrite: bool) -> None:
    """The folder, made if absent, has no earlier export, or one to be replaced. Raises BadRequest."""
    if to is None:
        return
    to.mkdir(parents=True, exist_ok=True)
    others = _exported(to)
    if others and not may_overwrite and not (to / _STATE).exists():
        raise BadRequest(f"{others[0]} is of an earlier export. Give another folder, or replace it: --overwrite")


def _remove_others(to: Path, files: list[dict[str, Any]]) -> None:
    """Whoever reads items-*.parquet must not read those of an earlier export, which stay until there is a new one."""
    names = {file["filename"] for file in files}
    for path in _exported(to):
        if path.name not in names:
            path.unlink()


def _exported(to: Path) -> list[Path]:
    return sorted(path for path in to.iterdir() if _OURS.fullmatch(path.name))


def _followed(client: Client, dataset: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Ctrl-C ends the command line, not the export."""
    if command["status"] in ENDED:
        return command
    try:
        return follow(client, dataset, command, f"Exporting {dataset['name']}", _facts)
    except KeyboardInterrupt:
        note(f"The export goes on. Abort it: headwater abort {command['id']}")
        sys.exit(_INTERRUPTED)


def _facts(command: dict[str, Any]) -> str:
    told = command["spec"].get("export") or {}
    words = f"{told.get('done', 0):,} of {counted(told.get('items', 0), 'item')}"
    return words + (f", {counted(told['annotations'], 'annotation')}" if told.get("annotations") else "")


async def _fetch(client: Client, dataset: dict[str, Any], files: list[dict[str, Any]], to: Path) -> None:
    """Raises HeadwaterError for the first that could not be fetched whole."""
    left = [file for file in files if not _is_whole(to / file["filename"], file)]
    wanted = [Wanted(file["id"], f"/{file['filename']}", file["size"], None, is_missing=False) for file in left]
    progress = Progress(bytes=sum(file["size"] for file in left))
    progress.files, progress.is_counted = len(left), True
    async with link_of(client) as link:
        receiving = Receiving(link, dataset["id"], [], to, progress, is_overwriting=True, chosen=wanted)
        error = await shown(receiving, f"Fetching {dataset['name']}")
    if error is not None:
        raise error
    if receiving.was_stopped:
        note("Interrupted. Run the same command again to go on.")
        sys.exit(_INTERRUPTED)
    for file in left:
        if not _is_whole(to / file["filename"], file):
            raise FailedDependency(f"{file['filename']} did not come whole. Run the same command again.")
    (to / _STATE).unlink(missing_ok=True)


def _is_whole(path: Path, file: dict[str, Any]) -> bool:
    try:
        if path.stat().st_size != file["size"]:
            return False
        seen = hashlib.sha256()
        with path.open("rb") as opened:
            while chunk := opened.read(_READ_BYTES):
                seen.update(chunk)
    except FileNotFoundError:
        return False
    return seen.hexdigest() == file["sha256"]


def _tell(
    command: dict[str, Any], files: list[dict[str, Any]], dataset: dict[str, Any], to: Path | None, *, as_json: bool
) -> None:
    told = command["spec"].get("export") or {}
    if as_json:
        print_json(
            {
                "id": command["id"],
                "dataset_id": dataset["id"],
                "status": command["status"],
                "error": command["error"],
                "items": told.get("done", 0),
                "annotations": told.get("annotations", 0),
                "folder": None if to is None else str(to),
                "files": [
                    {"name": one["filename"], "id": one["id"], "size_bytes": one["size"], "sha256": one["sha256"]}
                    for one in files
                ],
            }
        )
    if command["status"] != "success":
        fail(command["error"] or f"The export ended as {command['status']}.")
    if command["warning"]:
        warn(command["warning"])
    if as_json:
        return
    listing = table("File", "Size", "Item", numbers=("Size",))
    for one in files:
        add_row(listing, one["filename"], size(one["size"]), one["id"])
    console.print(listing)
    where = "" if to is None else f" to {to}"
    said = [
        counted(told.get("done", 0), "item"),
        *([counted(told["annotations"], "annotation")] if told.get("annotations") else []),
    ]
    say(f"Exported {' and '.join(said)} of {dataset['name']}{where}.")
