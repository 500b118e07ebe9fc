"""`headwater sync-rules`: which objects are items, what becomes of those that go, and when a sync asks first."""

import shlex
from enum import StrEnum
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.finding import get_dataset
from headwater.cli.output import counted, note, print_json, say
from headwater.errors import BadRequest


class _Policy(StrEnum):
    flag = "flag"
    trash = "trash"


def sync_rules_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    include: Annotated[
        list[str] | None, typer.Option("--include", metavar="GLOB", help="Only objects that one of these globs fits.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", metavar="GLOB", help="No object that one of these globs fits.")
    ] = None,
    clear_globs: Annotated[
        bool, typer.Option("--clear-globs", help="Forget the globs there are, before those that are given.")
    ] = False,
    ghosts: Annotated[
        _Policy | None,
        typer.Option("--ghosts", help="Items whose object has gone: shown with a flag, or put into the trash."),
    ] = None,
    follow_moves: Annotated[
        bool | None,
        typer.Option("--follow-moves/--no-follow-moves", help="An object that moved stays the same item."),
    ] = None,
    sidecars: Annotated[
        bool | None,
        typer.Option("--sidecars/--no-sidecars", help="name.ext.json is not shown: it holds the metadata of name.ext."),
    ] = None,
    brake_items: Annotated[
        int | None, typer.Option("--brake-items", metavar="N", help="So many may go in one sync without a question …")
    ] = None,
    brake_share: Annotated[
        float | None, typer.Option("--brake-share", metavar="SHARE", help="… and this share of all: 0.1 is a tenth.")
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Try the globs on the bucket's first 10,000 objects; change nothing.")
    ] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the rules of a dataset's sync, or change those that are given. They count from the next sync on.

    Globs are read as in .gitignore: `*.jpg` at any depth, `/raw/` from the driver's folder, `**` for any folders.
    The given --include replace those there were, and so do the given --exclude.

    Example: headwater sync-rules photos --include '*.jpg' --exclude raw/ --preview
    """
    options_given: dict[str, Any] = {
        "include": include or None,
        "exclude": exclude or None,
        "ghosts": ghosts and ghosts.value,
        "followMoves": follow_moves,
        "sidecars": sidecars,
        "brakeItems": brake_items,
        "brakeShare": brake_share,
    }
    given: dict[str, Any] = {"include": [], "exclude": []} if clear_globs else {}
    given |= {name: value for name, value in options_given.items() if value is not None}
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        url = f"/datasets/{found['id']}/sync-rules"
        if preview:
            if given.keys() - {"include", "exclude"}:
                raise BadRequest(
                    "--preview tries globs: --include, --exclude and --clear-globs. Give the others later."
                )
            told = client.post(f"{url}/preview", given)
        else:
            told = client.patch(url, given) if given else client.get(url)
    if as_json:
        print_json(_preview_json(told) if preview else _json(told))
    elif preview:
        _show_preview(told)
    else:
        _show(told)
        if given:
            note(f"They count from the next sync on: headwater sync {shlex.quote(dataset)}")


def _json(rules: dict[str, Any]) -> dict[str, Any]:
    return {
        "include": rules["include"],
        "exclude": rules["exclude"],
        "ghosts": rules["ghosts"],
        "follow_moves": rules["followMoves"],
        "sidecars": rules["sidecars"],
        "brake_items": rules["brakeItems"],
        "brake_share": rules["brakeShare"],
    }


def _show(rules: dict[str, Any]) -> None:
    say(f"Included:     {'  '.join(rules['include']) or 'every object'}")
    say(f"Excluded:     {'  '.join(rules['exclude']) or 'none'}")
    say(f"Ghosts:       {'put into the trash' if rules['ghosts'] == 'trash' else 'shown with a flag'}")
    say(f"Moves:        {'followed' if rules['followMoves'] else 'not followed'}")
    say(f"Sidecars:     {'give their items metadata' if rules['sidecars'] else 'items like others'}")
    say(f"Brake:        {rules['brakeItems']:,} items or {rules['brakeShare']:.0%} of all, whichever is more")


def _preview_json(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "looked": found["looked"],
        "kept": found["kept"],
        "is_all": found["isAll"],
        "kept_examples": found["keptExamples"],
        "left_out_examples": found["leftOutExamples"],
    }


def _show_preview(found: dict[str, Any]) -> None:
    looked = counted(found["looked"], "object")
    among = f"all {looked}" if found["isAll"] else f"the first {looked}"
    say(f"Would match {found['kept']:,} of {among}. Nothing was changed.")
    for title, examples in (("Kept", found["keptExamples"]), ("Left out", found["leftOutExamples"])):
        if examples:
            say(f"{title}, for example:")
        for path in examples:
            say(f"  {path}")
