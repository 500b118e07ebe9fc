"""`headwater import-csv`: an item for each row of a CSV file, and a verdict on each row."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.following import Line, follow, progress_line
from headwater.cli.output import add_row, console, counted, fail, note, print_json, say, size, table, warn
from headwater.errors import BadRequest

_CHUNK_BYTES = 256 * 1024
_INTERRUPTED = 130
_WORDS = {"created": "Created", "skipped": "There already", "refused": "Refused"}


def import_csv_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A CSV file whose first row names the columns.")],
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")
    ],
    folder: Annotated[
        str,
        typer.Option("--folder", metavar="FOLDER", help="Where the items go; without it, a folder named like FILE."),
    ] = "",
    encoding: Annotated[
        str, typer.Option("--encoding", metavar="NAME", help="utf-8, cp949, …; found out when it is not said.")
    ] = "",
    separator: Annotated[
        str, typer.Option("--separator", metavar="CHARACTER", help="One of , ; | and tab; found out as well.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would become of each row.")] = False,
    results: Annotated[
        Path | None, typer.Option("--results", metavar="OUT.csv", help="Write the verdict on every row there.")
    ] = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Make an item of each row of a CSV file: a link to its URL, or an upload. Exit code 1: some rows were refused.

    Columns, in any order: ID, URL, image_bytes (base64), name, action (link or upload), mimetype, item_metadata (JSON)
    and item_description. The same file again adds nothing twice, and goes on where an import stopped.

    Example: headwater import-csv photos.csv --dataset photos
    """
    if not file.is_file():
        raise BadRequest(f"There is no file {file}.")
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        asked = {"name": file.name, "folder": folder, "encoding": encoding, "separator": separator}
        command = _sent(client, found, file, asked | {"dryRun": "true" if dry_run else "false"})
        command = _followed(client, found, command, file)
        told = command["spec"]["import"]
        if results is not None:
            _save(client, found, command, results)
    if as_json:
        print_json(_json(command, told))
    else:
        _show(command, told, file, results)
    if command["status"] != "success":
        fail(command["error"] or f"The import ended as {command['status']}.")
    if told["refused"]:
        sys.exit(1)


def _sent(client: Client, dataset: dict[str, Any], file: Path, asked: dict[str, str]) -> dict[str, Any]:
    given = {name: value for name, value in asked.items() if value}
    with progress_line(f"Sending {file.name}") as line:
        path = f"/datasets/{dataset['id']}/imports/csv"
        return client.send(path, _read(file, line), content_type="text/csv", **given)


def _read(file: Path, line: Line) -> Iterator[bytes]:
    total, sent = max(1, file.stat().st_size), 0
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK_BYTES):
            yield chunk
            sent += len(chunk)
            line.show(100 * sent / total, f"{size(sent)} of {size(total)}")


def _followed(client: Client, dataset: dict[str, Any], command: dict[str, Any], file: Path) -> dict[str, Any]:
    """Ctrl-C ends the command line, not the import."""
    try:
        return follow(client, dataset, command, f"Importing {file.name}", _facts)
    except KeyboardInterrupt:
        note(f"The import goes on. Abort it: headwater abort {command['id']}")
        sys.exit(_INTERRUPTED)


def _facts(command: dict[str, Any]) -> str:
    told = command["spec"].get("import") or {}
    words = [counted(told.get("rows", 0), "row")]
    words += [f"{told[name]:,} {name}" for name in _WORDS if told.get(name)]
    return ", ".join(words)


def _save(client: Client, dataset: dict[str, Any], command: dict[str, Any], results: Path) -> None:
    path = f"/datasets/{dataset['id']}/imports/{command['id']}/results"
    with client.chunks(path) as chunks, results.open("wb") as written:
        for chunk in chunks:
            written.write(chunk)


def _json(command: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": command["id"],
        "status": command["status"],
        "warning": command["warning"],
        "error": command["error"],
        "examples": [],
        **told,
    }


def _show(command: dict[str, Any], told: dict[str, Any], file: Path, results: Path | None) -> None:
    say(f"{file.name}, read as {told['encoding']}, to {told['folder']}")
    shown = table("Rows", "Number", numbers=("Number",))
    for name, words in _WORDS.items():
        if told["dryRun"] and name == "created":
            words = "Would be created"  # noqa: PLW2901 - said otherwise
        add_row(shown, words, f"{told[name]:,}")
    console.print(shown)
    examples = told.get("examples", [])
    if examples:
        refused = table("Row", "Name", "Column", "Why it was refused", numbers=("Row",))
        for one in examples:
            add_row(refused, one["row"], one["name"], one["column"], one["reason"])
        console.print(refused)
    if told["refused"] > len(examples):
        say(f"… and {told['refused'] - len(examples):,} more were refused.")
    if results is not None:
        say(f"The verdict on every row: {results}")
    elif told["refused"]:
        say("The verdict on every row: send the file again with --results OUT.csv, which adds nothing twice.")
    if command["warning"] and not told["refused"]:
        warn(command["warning"])
