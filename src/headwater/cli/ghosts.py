"""`headwater ghosts`: items whose object the bucket no longer has."""

import sys
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.following import ENDED, follow
from headwater.cli.output import add_row, age, console, counted, fail, note, print_json, say, size, table
from headwater.errors import BadRequest

_INTERRUPTED = 130
_PAGE = 1_000

ghosts_app = typer.Typer(name="ghosts", help="Items whose object has gone from the bucket.", no_args_is_help=True)

_Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")]
_Paths = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PATH]...", help="Paths of items; one that ends with / is all below that folder."),
]
_All = Annotated[bool, typer.Option("--all", help="All of them.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell which, and change nothing.")]


@ghosts_app.command("list")
def list_command(
    dataset: _Dataset,
    path: Annotated[str | None, typer.Argument(metavar="[PREFIX]", help="Only paths that begin so.")] = None,
    trash: Annotated[bool, typer.Option("--trash", help="Only what lies in the trash.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Only what is missing since then: 2026-01-31.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many at most.")] = 100,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List the items of a dataset whose object has gone, and which of them lie in the trash.

    Example: headwater ghosts list photos /2019/
    """
    wanted: dict[str, str | None] = {"prefix": path, "since": since, "where": "trash" if trash else None}
    asked: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        ghosts: list[dict[str, Any]] = []
        after: str | None = ""
        while True:
            page = client.get(
                f"/datasets/{found['id']}/ghosts",
                **asked,
                after=after or "",
                limit=str(min(_PAGE, limit - len(ghosts))),
            )
            ghosts += page["ghosts"]
            after = page["next"]
            if after is None or len(ghosts) >= limit:
                break
    if as_json:
        print_json(
            {
                "ghosts": [_json(ghost) for ghost in ghosts],
                "has_more": after is not None,
                "flagged": page["flagged"],
                "trashed": page["trashed"],
            }
        )
        return
    if ghosts:
        shown = table("Path", "Size", "Gone", "In the trash", numbers=("Size",))
        for ghost in ghosts:
            trashed = "no" if ghost["trashedAt"] is None else f"until {ghost['forgottenAt'][:10]}"
            add_row(shown, ghost["filename"], size(ghost["size"]), age(ghost["missingSince"]), trashed)
        console.print(shown)
    if after is not None:
        note(f"There are more. Show more of them: --limit {10 * limit}")
    say(f"{found['name']}: {counted(page['flagged'], 'ghost')} with a flag, {page['trashed']:,} in the trash.")


def _json(ghost: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": ghost["id"],
        "path": ghost["filename"],
        "size_bytes": ghost["size"],
        "missing_since": ghost["missingSince"],
        "trashed_at": ghost["trashedAt"],
        "forgotten_at": ghost["forgottenAt"],
    }


@ghosts_app.command("restore")
def restore_command(
    dataset: _Dataset,
    paths: _Paths = None,
    everything: _All = False,
    dry_run: _DryRun = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Take ghosts out of the trash: they are shown again, with their flag.

    Example: headwater ghosts restore photos /2019/
    """
    asked = _asked(paths, everything=everything, dry_run=dry_run)
    with connect(data_dir) as client:
        _settle(client, get_dataset(client, dataset), "restore", asked, as_json=as_json)


@ghosts_app.command("trash")
def trash_command(
    dataset: _Dataset,
    paths: _Paths = None,
    everything: _All = False,
    dry_run: _DryRun = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Put ghosts into the trash: hidden, to be restored for 30 days, and then forgotten.

    Example: headwater ghosts trash photos --all
    """
    asked = _asked(paths, everything=everything, dry_run=dry_run)
    with connect(data_dir) as client:
        _settle(client, get_dataset(client, dataset), "trash", asked, as_json=as_json)


@ghosts_app.command("forget")
def forget_command(
    dataset: _Dataset,
    paths: _Paths = None,
    everything: _All = False,
    trash: Annotated[bool, typer.Option("--trash", help="Only what lies in the trash.")] = False,
    dry_run: _DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however many they are.")] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Remove ghosts for good, with their metadata and annotations. No object of a bucket is touched.

    If such an object comes back, it is a new item.

    Example: headwater ghosts forget photos --all --trash
    """
    asked = _asked(paths, everything=everything or (trash and not paths), dry_run=dry_run) | {"trash": trash}
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        if not dry_run:
            asked |= {"confirm": _confirmed(client, found, asked, yes=yes)}
        _settle(client, found, "forget", asked, as_json=as_json)


def _asked(paths: list[str] | None, *, everything: bool, dry_run: bool) -> dict[str, Any]:
    """Raises BadRequest."""
    if bool(paths) == everything:
        raise BadRequest("Say which ghosts: paths (a folder ends with /), or --all.")
    return ({"all": True} if everything else {"paths": paths}) | {"dryRun": dry_run}


def _confirmed(client: Client, dataset: dict[str, Any], asked: dict[str, Any], *, yes: bool) -> int:
    """How many are to be forgotten, once somebody has said so."""
    found = client.post(f"/datasets/{dataset['id']}/ghosts/forget", asked | {"dryRun": True})
    if found["items"] and not yes:
        if not sys.stdin.isatty():
            fail(
                f"This forgets {counted(found['items'], 'ghost')} of {dataset['name']} for good. Confirm it: add --yes"
            )
        if not typer.confirm(
            f"Forget {counted(found['items'], 'ghost')} of {dataset['name']} for good?", default=False
        ):
            fail("Nothing was forgotten.")
    return found["items"]


_DONE = {"restore": "Restored", "trash": "Put into the trash", "forget": "Forgotten"}


def _settle(client: Client, dataset: dict[str, Any], action: str, asked: dict[str, Any], *, as_json: bool) -> None:
    found = client.post(f"/datasets/{dataset['id']}/ghosts/{action}", asked)
    number, command = found["items"], found["command"]
    if command is not None:
        command = _followed(client, dataset, command)
        number = command["spec"]["ghosts"]["done"]
    if as_json:
        told = {"items": number, "examples": found["examples"], "dry_run": asked["dryRun"]}
        print_json(told | {"command_id": command and command["id"]})
    if command is not None and command["status"] != "success" and command["status"] in ENDED:
        fail(command["error"] or f"It ended as {command['status']}.")
    if as_json:
        return
    if not found["items"]:
        say("There are no such ghosts.")
    elif asked["dryRun"]:
        say(f"Would be done with {counted(number, 'ghost')} of {dataset['name']}, for example:")
        for path in found["examples"]:
            say(f"  {path}")
    else:
        say(f"{_DONE[action]}: {counted(number, 'ghost')} of {dataset['name']}.")


def _followed(client: Client, dataset: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Ctrl-C ends the command line, not the work."""
    try:
        return follow(client, dataset, command, f"Ghosts of {dataset['name']}", _facts)
    except KeyboardInterrupt:
        note(f"It goes on. Abort it: headwater abort {command['id']}")
        sys.exit(_INTERRUPTED)


def _facts(command: dict[str, Any]) -> str:
    told = command["spec"]["ghosts"]
    return f"{told['done']:,} of {counted(told['items'], 'ghost')}"
