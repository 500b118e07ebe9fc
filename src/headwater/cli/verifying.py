"""`headwater verify`: does the index say what the bucket has?"""

import sys
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.following import follow
from headwater.cli.output import add_row, console, counted, fail, note, print_json, say, table

_INTERRUPTED = 130
_SHOWN = 5  # examples of each kind, for people

_NOT_REPAIRED = ("missingObjects", "notListed", "refusedDeletions")
_WORDS = {
    "notIndexed": "Objects without an item",
    "missingObjects": "Items without their object",
    "changedObjects": "Items whose object is another",
    "returnedGhosts": "Items marked missing whose object is there",
    "notListed": "Objects that the listing left out",
    "orphanObjects": "Objects of our own storage without an item",
    "abandonedUploads": "Uploads that were begun and not ended in time",
    "missingThumbnails": "Items without their thumbnail",
    "orphanThumbnails": "Thumbnails without an item",
    "forgottenItems": "Items that wait to be read by nobody",
    "wrongCounters": "Wrong counters",
    "refusedDeletions": "Objects that the store did not let go",
}


def verify_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what can be put right without removing anything.")
    ] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare a dataset with its bucket, both ways. Exit code 0: all is right; 1: it is not, or cannot be told.

    --repair adds objects to the index, has thumbnails made again and cleans up Headwater's own files. It never
    removes an item, marks one missing, or touches an object of yours.

    Example: headwater verify photos
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        command = client.post(f"/datasets/{found['id']}/verify", {"repair": repair})
        command = _followed(client, found, command)
    if command["status"] != "success":
        fail(command["error"] or f"The verification ended as {command['status']}.")
    told = command["spec"]["verify"]
    if as_json:
        print_json(_json(command["id"], told))
    else:
        _show(found, told)
        if not told.get("objectsCompared", True):
            note("It is made of other datasets of a bucket: verify these to have its objects compared.")
    if not told["clean"]:
        sys.exit(1)


def _followed(client: Client, dataset: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Ctrl-C ends the command line, not the verification."""
    try:
        return follow(client, dataset, command, f"Verifying {dataset['name']}", _facts)
    except KeyboardInterrupt:
        note(f"The verification goes on. Abort it: headwater abort {command['id']}")
        sys.exit(_INTERRUPTED)


def _facts(command: dict[str, Any]) -> str:
    return f"{counted((command['spec'].get('verify') or {}).get('listed', 0), 'object')} compared"


def _json(command_id: str, told: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": command_id,
        "clean": told["clean"],
        "listed": told["listed"],
        "counts": told["counts"],
        "repaired": told["repaired"],
        "examples": told["examples"],
    }


def _show(dataset: dict[str, Any], told: dict[str, Any]) -> None:
    if told["clean"]:
        say(f"{dataset['name']} is as its bucket: {counted(told['listed'], 'object')} compared, no difference.")
        return
    shown = table("Difference", "Number", "Repaired", "For example", numbers=("Number", "Repaired"))
    for name, words in _WORDS.items():
        if number := told["counts"].get(name):
            examples = told["examples"].get(name, [])
            more = f"\n… and {number - _SHOWN:,} more" if number > _SHOWN else ""
            add_row(shown, words, f"{number:,}", told["repaired"].get(name, ""), "\n".join(examples[:_SHOWN]) + more)
    console.print(shown)
    counts = told["counts"]
    if counts.get("missingObjects"):
        say(f"A sync marks items without their object: headwater sync {dataset['name']}")
    if counts.get("refusedDeletions"):
        say(f"Why objects were not let go: headwater delete {dataset['name']} --refused")
    if not told["repair"] and any(number for name, number in counts.items() if name not in _NOT_REPAIRED):
        say(f"What can be put right without removing anything: headwater verify {dataset['name']} --repair")
