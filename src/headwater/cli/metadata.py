"""`headwater metadata`: what users noted on items, shown and changed, one item or very many."""

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.following import ENDED, follow
from headwater.cli.output import counted, fail, note, print_json, say, warn
from headwater.errors import BadRequest, NotFound

metadata_app = typer.Typer(name="metadata", help="What users noted on items: show and change it.", no_args_is_help=True)

_INTERRUPTED = 130
_PAGE = 1_000
_MUCH_ITEMS = 1_000  # more than that is not changed without a question


@metadata_app.command("show")
def show_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="The path of an item.")],
    system: Annotated[bool, typer.Option("--system", help="Also what Headwater knows of it.")] = False,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Print the metadata of one item as JSON.

    Example: headwater metadata show photos /2019/a.jpg
    """
    with connect(data_dir) as client:
        found = _item(client, get_dataset(client, dataset), path)
    print_json(found["metadata"] if system else found["metadata"]["user"])


@metadata_app.command("set")
def set_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    paths: Annotated[list[str] | None, typer.Argument(metavar="[PATH]...", help="Exact paths of items.")] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A value as JSON, or text; a.b=1 sets b in a."),
    ] = None,
    unset: Annotated[list[str] | None, typer.Option("--unset", metavar="KEY", help="Remove a key.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="A JSON object with what to set; null removes a key.")
    ] = None,
    folder: Annotated[
        str | None, typer.Option("--folder", metavar="FOLDER", help="All items in this folder and below it.")
    ] = None,
    conditions: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="The SDK's filter; '{}' is every item.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell how many it would be, and change nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however many they are.")] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Set user metadata on items: on some by their paths, on a folder, or on all that a filter finds.

    What is not named stays as it is.

    Example: headwater metadata set photos --folder /2019 --set camera=3 --set weather.rain=true
    """
    patch = _patch(values or [], unset or [], file)
    query = _query(paths, folder, conditions)
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        url = f"/datasets/{found['id']}/items/bulk-update-metadata"
        body = query | {"updateQuery": {"update": {"metadata": {"user": patch}}}}
        preview = client.post(url, body | {"dryRun": True})
        if dry_run or not preview["items"]:
            _show_preview(preview, as_json=as_json)
            return
        if preview["items"] > _MUCH_ITEMS and not yes:
            _ask(found, preview)
        command = _followed(client, found, client.post(url, body))
    if as_json:
        print_json(_command_json(command))
    if command["status"] in ENDED and command["status"] != "success":
        fail(command["error"] or f"The change ended as {command['status']}.")
    if not as_json:
        say(f"Changed {_facts(command)} of {found['name']}.")
    if command["warning"]:
        warn(command["warning"])


def _item(client: Client, dataset: dict[str, Any], path: str) -> dict[str, Any]:
    """Raises NotFound."""
    path = "/" + path.removeprefix("/")
    query = {"filter": {"$and": [{"filename": path}, {"type": "file"}]}, "page": 0, "pageSize": _PAGE}
    for found in client.post(f"/datasets/{dataset['id']}/query", query)["items"]:
        if found["filename"] == path:  # its stars stand for others
            return found
    raise NotFound(f"There is no item {path} in {dataset['name']}. List them: headwater ls")


def _query(paths: list[str] | None, folder: str | None, conditions: str | None) -> dict[str, Any]:
    """Raises BadRequest when nothing says which items, or two things do."""
    if sum(choice is not None for choice in (paths or None, folder, conditions)) != 1:
        raise BadRequest("Say which items: their paths, --folder or --filter. Every item: --filter '{}'")
    if paths:
        return {"query": {"filter": {}}, "paths": paths}
    if folder is not None:
        return {"query": {"filter": {}}, "folder": folder}
    return {"query": {"filter": _parsed(conditions or "", "--filter", '{"name": "*.jpg"}')}}


def _patch(values: list[str], unset: list[str], file: Path | None) -> dict[str, Any]:
    """Raises BadRequest."""
    patch: dict[str, Any] = {}
    if file is not None:
        patch = _parsed(file.read_bytes(), str(file), '{"camera": 3}')
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadRequest(f"--set {text}: write it as KEY=VALUE, for example --set camera=3")
        _put(patch, key, _value(value))
    for key in unset:
        _put(patch, key, None)
    if not patch:
        raise BadRequest("Say what to change: --set KEY=VALUE, --unset KEY or --file FILE.json")
    return patch


def _put(patch: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    for name in above:
        inner = patch.setdefault(name, {})
        if not isinstance(inner, dict):
            raise BadRequest(f"{key}: {name} is given a value of its own already.")
        patch = inner
    patch[last] = value


def _value(text: str) -> Any:
    """JSON where it is; otherwise the text itself."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _parsed(text: str | bytes, where: str, example: str) -> dict[str, Any]:
    """Raises BadRequest."""
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"{where} is no JSON ({error}). For example: {example}") from None
    if not isinstance(parsed, dict):
        raise BadRequest(f"{where} has to be an object. For example: {example}")
    return parsed


def _show_preview(preview: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({"items": preview["items"], "examples": preview["examples"]})
        return
    if not preview["items"]:
        say("Nothing matches. Nothing is changed.")
        return
    say(f"To be changed: {counted(preview['items'], 'item')}.")
    for path in preview["examples"]:
        say(f"  {path}")
    if preview["items"] > len(preview["examples"]):
        say(f"  … and {preview['items'] - len(preview['examples']):,} more")


def _ask(dataset: dict[str, Any], preview: dict[str, Any]) -> None:
    """On a terminal; a script has to say --yes."""
    _show_preview(preview, as_json=False)
    if not sys.stdin.isatty():
        fail(f"This is much to change at once: {counted(preview['items'], 'item')}. Confirm it: add --yes")
    if not typer.confirm(f"Change {counted(preview['items'], 'item')} of {dataset['name']}?", default=False):
        fail("Nothing was changed.")


def _facts(command: dict[str, Any]) -> str:
    return counted(command["spec"]["update"]["changed"], "item")


def _command_json(command: dict[str, Any]) -> dict[str, Any]:
    told = command["spec"]["update"]
    return {
        "id": command["id"],
        "status": command["status"],
        "items": told["items"],
        "changed": told["changed"],
        "too_large": told["tooLarge"],
        "warning": command["warning"],
        "error": command["error"],
    }


def _followed(client: Client, dataset: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Ctrl-C ends the command line, not the change."""
    try:
        return follow(client, dataset, command, f"Changing {dataset['name']}", _facts)
    except KeyboardInterrupt:
        note(f"The change goes on. Abort it: headwater abort {command['id']}")
        sys.exit(_INTERRUPTED)
