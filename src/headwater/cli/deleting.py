"""`headwater delete`: many items at once, what was refused, and bringing back what was deleted."""

import shlex
import sys
from typing import Annotated, Any

import orjson
import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.following import ENDED, follow
from headwater.cli.output import add_row, age, console, counted, fail, note, print_json, say, size, table, warn
from headwater.cli.syncing import followed as follow_sync
from headwater.cli.syncing import report_end
from headwater.errors import BadRequest

_INTERRUPTED = 130


def delete_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATH]...", help="Exact paths of items.")] = None,
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="FOLDER", help="Everything in this folder and below it.")
    ] = None,
    conditions: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="The SDK's filter; '{}' is every item.")
    ] = None,
    missing: Annotated[bool, typer.Option("--missing", help="Only items that are missing from the bucket.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be deleted, and delete nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however much it is.")] = False,
    refused: Annotated[
        bool, typer.Option("--refused", help="List objects that the store refused to delete, and why.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Try to delete the refused objects again.")] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Bring back what was deleted here and is still in the bucket.")
    ] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete items of a dataset. Their objects leave the bucket only where its driver allows it.

    It says what it is about to do and asks before much is deleted. --undo brings items back, without their metadata.

    Example: headwater delete photos --folder /2019 --dry-run
    """
    asked: dict[str, Any] = {"missing": missing}
    asked |= {"paths": paths} if paths else {}
    asked |= {"folder": folder} if folder is not None else {}
    asked |= {"filter": _parsed(conditions)} if conditions is not None else {}
    _refuse_contradictions(asked, refused=refused, retry=retry, undo=undo, dry_run=dry_run)
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        if refused:
            _list_refused(client, found, as_json=as_json)
        elif retry:
            _retry(client, found, as_json=as_json)
        elif undo:
            _undo(client, found, {key: asked[key] for key in ("paths", "folder") if key in asked}, as_json=as_json)
        else:
            _delete(client, found, asked, dry_run=dry_run, yes=yes, as_json=as_json)


def _refuse_contradictions(asked: dict[str, Any], *, refused: bool, retry: bool, undo: bool, dry_run: bool) -> None:
    """What would be left out of account might be what was meant. Raises BadRequest."""
    modes = [name for name, is_set in (("--refused", refused), ("--retry", retry), ("--undo", undo)) if is_set]
    if not modes:
        return
    if len(modes) > 1:
        raise BadRequest(f"Give one of {' and '.join(modes)}.")
    taken = ("paths", "folder") if undo else ()
    left_out = [name for name in ("paths", "folder", "filter", "missing") if asked.get(name, False) is not False]
    left_out = [name for name in left_out if name not in taken]
    if left_out or dry_run:
        words = {"paths": "paths", "folder": "--folder", "filter": "--filter", "missing": "--missing"}
        named = ", ".join([words[name] for name in left_out] + ["--dry-run"] * dry_run)
        takes = "It takes paths and --folder." if undo else "It is for the whole dataset."
        raise BadRequest(f"{modes[0]} does not go with {named}. {takes}")


def _parsed(conditions: str) -> dict[str, Any]:
    """Raises BadRequest."""
    try:
        parsed = orjson.loads(conditions)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f'--filter is no JSON ({error}). For example: --filter \'{{"name": "*.tmp"}}\'') from None
    if not isinstance(parsed, dict):
        raise BadRequest('--filter has to be an object. For example: --filter \'{"name": "*.tmp"}\'')
    return parsed


def _delete(
    client: Client, dataset: dict[str, Any], asked: dict[str, Any], *, dry_run: bool, yes: bool, as_json: bool
) -> None:
    url = f"/datasets/{dataset['id']}/delete-items"
    preview = client.post(url, asked | {"dryRun": True})
    if dry_run or not preview["items"]:
        if as_json:
            print_json(_preview_json(preview))
        else:
            _show(preview)
        return
    if not yes and preview["needsConfirmation"]:
        _ask(dataset, preview)
    confirmed = yes or (preview["needsConfirmation"] and preview["items"])
    command = client.post(url, asked | {"confirm": confirmed})
    command = _followed(client, dataset, command)
    if as_json:
        print_json(_command_json(command))
    if command["status"] not in ("success", *_RUNNING):
        fail(command["error"] or f"The deletion ended as {command['status']}.")
    if not as_json:
        say(f"Deleted {_facts(command)} of {dataset['name']}. {preview['objects']}")
        if command["warning"]:
            warn(command["warning"])
        if " stay in " in preview["objects"]:
            where = f" --folder {shlex.quote(asked['folder'])}" if "folder" in asked else ""
            note(f"To bring back what was deleted here: headwater delete {shlex.quote(dataset['name'])} --undo{where}")


_RUNNING = ("created", "in-progress")


def _ask(dataset: dict[str, Any], preview: dict[str, Any]) -> None:
    """On a terminal; a script has to say --yes."""
    _show(preview)
    if not sys.stdin.isatty():
        fail(f"This is much to delete at once: {counted(preview['items'], 'item')}. Confirm it: add --yes")
    if not typer.confirm(f"Delete {counted(preview['items'], 'item')} of {dataset['name']}?", default=False):
        fail("Nothing was deleted.")


def _show(preview: dict[str, Any]) -> None:
    if not preview["items"]:
        say("Nothing matches. Nothing is deleted.")
        return
    say(f"To be deleted: {counted(preview['items'], 'item')}, {size(preview['sizeBytes'])}. {preview['objects']}")
    for path in preview["examples"]:
        say(f"  {path}")
    if preview["items"] > len(preview["examples"]):
        say(f"  … and {preview['items'] - len(preview['examples']):,} more")


def _preview_json(preview: dict[str, Any]) -> dict[str, Any]:
    return {
        "items": preview["items"],
        "size_bytes": preview["sizeBytes"],
        "examples": preview["examples"],
        "objects": preview["objects"],
        "needs_confirmation": preview["needsConfirmation"],
    }


def _command_json(command: dict[str, Any]) -> dict[str, Any]:
    told = command["spec"]["deletion"]
    return {
        "id": command["id"],
        "status": command["status"],
        "items": told["items"],
        "deleted": told["deleted"],
        "size_bytes": told["bytes"],
        "error": command["error"],
    }


def _facts(command: dict[str, Any]) -> str:
    told = command["spec"]["deletion"]
    return f"{counted(told['deleted'], 'item')}, {size(told['bytes'])}"


def _followed(client: Client, dataset: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Ctrl-C ends the command line, not the deletion."""
    try:
        return follow(client, dataset, command, f"Deleting from {dataset['name']}", _facts)
    except KeyboardInterrupt:
        note(f"The deletion goes on. Abort it: headwater abort {command['id']}")
        sys.exit(_INTERRUPTED)


def _list_refused(client: Client, dataset: dict[str, Any], *, as_json: bool) -> None:
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = client.get(f"/datasets/{dataset['id']}/deleted", state="refused", after=after)
        found += page["items"]
        if not page["hasNextPage"]:
            break
        after = found[-1]["path"]
    if as_json:
        print_json([{"path": one["path"], "refused_at": one["refusedAt"], "error": one["error"]} for one in found])
        return
    if not found:
        say(f"No object of {dataset['name']} was refused to be deleted.")
        return
    shown = table("Path", "Refused", "Why")
    for one in found:
        add_row(shown, one["path"], age(one["refusedAt"]), one["error"])
    console.print(shown)
    say(f"Try again: headwater delete {dataset['name']} --retry")


def _retry(client: Client, dataset: dict[str, Any], *, as_json: bool) -> None:
    tried = client.post(f"/datasets/{dataset['id']}/delete-items", {"retry": True})["retried"]
    if as_json:
        print_json({"retried": tried})
    elif tried:
        say(f"Trying again: {counted(tried, 'object')}. What is left: headwater delete {dataset['name']} --refused")
    else:
        say(f"No object of {dataset['name']} was refused to be deleted.")


def _undo(client: Client, dataset: dict[str, Any], asked: dict[str, Any], *, as_json: bool) -> None:
    answer = client.post(f"/datasets/{dataset['id']}/restore-deleted", asked)
    restored, command = answer["restored"], answer["command"]
    if command is not None:
        if not as_json:
            note(f"{counted(restored, 'item')} may come back. Their metadata is lost.")
        command = follow_sync(client, dataset, command)
    if as_json:
        print_json({"restored": restored, "command_id": command and command["id"]})
    elif command is None:
        say(f"Nothing of {dataset['name']} was deleted here whose object is still there.")
        return
    if command is not None and command["status"] in ENDED:
        report_end(dataset, command, is_quiet=as_json)
