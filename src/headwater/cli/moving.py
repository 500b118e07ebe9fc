"""`headwater move` and `headwater mkdir`: items and folders of Headwater's own storage."""

import sys
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.cloning import parsed
from headwater.cli.finding import get_dataset
from headwater.cli.following import ENDED, follow
from headwater.cli.output import counted, fail, note, print_json, say
from headwater.errors import BadRequest, Conflict, NotFound

_INTERRUPTED = 130
_Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")]


def move_command(
    dataset: _Dataset,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="[FROM]... TO", help="Items or folders, and where to; folders may end with a slash."),
    ],
    conditions: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="The SDK's filter, instead of FROM.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what would be moved, and move nothing.")] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Move or rename items and folders; only in Headwater's own storage, where no byte is touched.

    As with mv: what is moved to a folder that is there comes into it. Nothing is overwritten: what clashes stays where
    it is, and the exit code is 1.

    Example: headwater move photos /2024/raw /archive/2024
    """
    *sources, to = paths
    if bool(sources) == (conditions is not None):
        raise BadRequest("Say what to move: FROM and TO, or --filter and TO.")
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        moves = _moves(client, found, sources, to) if conditions is None else [_filtered(conditions, to)]
        if dry_run:
            _show_preview([_preview(client, found, move) for move in moves], as_json=as_json)
            return
        ended = [_moved(client, found, move) for move in moves]
    told = {key: sum(one[key] for one in ended) for key in ("items", "moved", "conflicts")}
    if as_json:
        print_json(told)
    if told["conflicts"]:
        why = next(one["why"] for one in ended if one["conflicts"])
        fail(f"{told['moved']:,} of {told['items']:,} items were moved. {why}")
    if not as_json:
        say(f"Moved {counted(told['moved'], 'item')}. No byte was copied.")


def _filtered(conditions: str, to: str) -> dict[str, Any]:
    return {"filter": parsed(conditions), "to": to}


def _moves(client: Client, dataset: dict[str, Any], sources: list[str], to: str) -> list[dict[str, Any]]:
    """What to ask for. Raises BadRequest, NotFound."""
    target = "/" + to.strip("/")
    is_folder = to.endswith("/") or len(sources) > 1 or _find(client, dataset, target, "dir") is not None
    moves: list[dict[str, Any]] = []
    for source in sources:
        path = "/" + source.strip("/")
        item = None if source.endswith("/") else _find(client, dataset, path, "file")
        name = path.rpartition("/")[2]
        if item is not None and is_folder:
            moves.append({"ids": [item["id"]], "to": target})
        elif item is not None:
            moves.append({"item": item["id"], "to": target})
        elif _find(client, dataset, path, "dir") is not None:
            moves.append({"folder": path, "to": f"{target.rstrip('/')}/{name}" if is_folder else target})
        else:
            raise NotFound(f"There is no item and no folder {path} in dataset {dataset['name']}.")
    return moves


def _find(client: Client, dataset: dict[str, Any], path: str, kind: str) -> dict[str, Any] | None:
    """Exactly this path: a `*` in it is one. Raises BadRequest."""
    query = {"filter": {"$and": [{"filename": {"$in": [path]}}, {"type": kind}]}}
    found = client.post(f"/datasets/{dataset['id']}/query", query)["items"]
    return next((one for one in found if one["filename"] == path), None)


def _preview(client: Client, dataset: dict[str, Any], move: dict[str, Any]) -> dict[str, Any]:
    if "item" not in move:
        return client.post(f"/datasets/{dataset['id']}/move-items", move | {"dryRun": True})
    return {"items": 1, "conflicts": int(_find(client, dataset, move["to"], "file") is not None)}


def _moved(client: Client, dataset: dict[str, Any], move: dict[str, Any]) -> dict[str, Any]:
    """items, moved, conflicts, and why some were not. Ctrl-C ends the command line, not the move."""
    if "item" in move:
        try:
            client.patch(f"/items/{move['item']}", {"filename": move["to"]})
        except Conflict as error:
            return {"items": 1, "moved": 0, "conflicts": 1, "why": str(error)}
        return {"items": 1, "moved": 1, "conflicts": 0, "why": None}
    command = client.post(f"/datasets/{dataset['id']}/move-items", move)
    if command["status"] not in ENDED:
        try:
            command = follow(client, dataset, command, f"Moving in {dataset['name']}", _facts)
        except KeyboardInterrupt:
            note(f"The move goes on. Abort it: headwater abort {command['id']}")
            sys.exit(_INTERRUPTED)
    if command["status"] != "success":
        fail(command["error"] or f"The move ended as {command['status']}.")
    return command["spec"]["move"] | {"why": command["warning"]}


def _facts(command: dict[str, Any]) -> str:
    return f"{counted(command['spec']['move']['moved'], 'item')} moved"


def _show_preview(previews: list[dict[str, Any]], *, as_json: bool) -> None:
    told = {key: sum(one[key] for one in previews) for key in ("items", "conflicts")}
    if as_json:
        print_json(told)
        return
    say(f"To be moved: {counted(told['items'] - told['conflicts'], 'item')}.")
    if told["conflicts"]:
        say(f"{told['conflicts']:,} would stay where they are, because there are others at their new paths.")


def mkdir_command(
    dataset: _Dataset,
    folders: Annotated[list[str], typer.Argument(metavar="FOLDER...", help="Folders, such as /2024/raw.")],
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Make folders in a dataset. One that is there already stays as it is.

    Folders come with the items in them by themselves; this is for those that are to be shown while they are empty.

    Example: headwater mkdir photos /2024/raw
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        url = f"/datasets/{found['id']}/items"
        made = [client.post(url, form={"type": "dir", "path": folder}) for folder in folders]
    if as_json:
        print_json([{"id": one["id"], "path": one["filename"]} for one in made])
        return
    for one in made:
        say(f"{one['filename']} is in {found['name']}.")
