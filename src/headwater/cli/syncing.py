"""`headwater sync` and `headwater abort`."""

import sys
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.following import ENDED, NEEDS_CONFIRMATION, follow_sync, needs_confirmation, sync_facts
from headwater.cli.output import fail, note, print_json, say, warn

_INTERRUPTED = 130


def sync_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    confirm_missing: Annotated[
        bool, typer.Option("--confirm-missing", help="Yes, everything that is missing is really gone: mark it.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on where the last sync was stopped. With --confirm-missing it begins again.",
        ),
    ] = False,
    restore_deleted: Annotated[
        bool, typer.Option("--restore-deleted", help="Bring back what was deleted here and is still in the bucket.")
    ] = False,
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="FOLDER", help="With --restore-deleted: only what was in it.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start the sync and do not wait for its end.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Abort the dataset's running sync instead.")] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Bring a dataset in step with its bucket. Exit code 3: much is missing, and you are asked to confirm it.

    Ctrl-C stops showing, not syncing.

    Example: headwater sync photos
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        if abort:
            _abort_syncs(client, found)
            return
        asked = {"confirmMissing": confirm_missing, "resume": resume, "restoreDeleted": restore_deleted}
        asked |= {} if folder is None else {"folder": folder}
        command = client.post(f"/datasets/{found['id']}/sync", asked)
        if not detach:
            command = followed(client, found, command)
    if as_json:
        print_json(command_json(command))
    report_end(found, command, is_quiet=as_json)


def followed(client: Client, dataset: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """The command at its end. Ctrl-C ends the command line, not the sync."""
    try:
        return follow_sync(client, dataset, command)
    except KeyboardInterrupt:
        note(f"The sync goes on. Abort it: headwater abort {command['id']}")
        sys.exit(_INTERRUPTED)


def command_json(command: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": command["id"],
        "type": command["type"],
        "status": command["status"],
        "progress_percent": command["progress"],
        "dataset_id": command["spec"].get("datasetId"),
        "sync": command["spec"].get("sync"),
        "stalled_since": command["spec"].get("stalledSince"),
        "warning": command["warning"],
        "error": command["error"],
        "created_at": command["createdAt"],
        "updated_at": command["updatedAt"],
    }


def report_end(dataset: dict[str, Any], command: dict[str, Any], *, is_quiet: bool = False) -> None:
    """Say how the sync ended, and end with the exit code that tells it."""
    if command["status"] not in ENDED:
        if not is_quiet:
            say(f"Syncing {dataset['name']}. Look: headwater status. Abort: headwater abort {command['id']}")
        return
    if command["status"] != "success":
        fail(f"The sync of {dataset['name']} ended as {command['status']}. {command['error'] or ''}".strip())
    if not is_quiet:
        say(f"Synced {dataset['name']}: {sync_facts(command)}.")
    if command["warning"]:
        warn(command["warning"])
    if needs_confirmation(command):
        sys.exit(NEEDS_CONFIRMATION)


def abort_command(
    command: Annotated[
        str, typer.Argument(metavar="COMMAND", help="The id of a running command; headwater status lists them.")
    ],
    data_dir: options.ServerDataDir = None,
) -> None:
    """Abort a running command. What it has committed stays.

    Example: headwater abort 00000000000000000000002a
    """
    with connect(data_dir) as client:
        _abort(client, command)


def _abort_syncs(client: Client, dataset: dict[str, Any]) -> None:
    running = [
        command["id"]
        for command in client.get("/commands")
        if command["status"] not in ENDED and command["spec"].get("datasetId") == dataset["id"]
    ]
    for command_id in running:
        _abort(client, command_id)
    if not running:
        say(f"No sync of {dataset['name']} is running.")


def _abort(client: Client, command_id: str) -> None:
    answer = client.post(f"/commands/{command_id}/abort")
    if answer["status"] in ENDED:
        say(f"Command {command_id} has ended already ({answer['status']}).")
    else:
        say(f"Aborting command {command_id}; what it has committed stays.")
