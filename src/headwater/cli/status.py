"""`headwater status`: the server, its datasets, what failed and why, and what runs."""

from collections import Counter
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset, list_datasets, list_projects
from headwater.cli.following import ENDED, sync_facts
from headwater.cli.listing import dataset_json, query_items
from headwater.cli.output import add_row, age, console, counted, print_json, say, size, table, warn
from headwater.cli.syncing import command_json

_MOST_FAILURES = 1000  # of one dataset, looked at for their reasons


def status_command(
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="Only this dataset: its name, PROJECT/NAME or its id.")
    ] = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show whether the server works, how old each dataset's last sync is, what failed and why, and what runs.

    Example: headwater status photos
    """
    with connect(data_dir) as client:
        found = [get_dataset(client, dataset)] if dataset else list_datasets(client)
        commands = [command_json(command) for command in client.get("/commands")]
        projects = {project["id"]: project["name"] for project in list_projects(client)}
        datasets = [_dataset_status(client, one, projects, commands) for one in found]
        ids = {one["id"] for one in datasets}
        running = [
            command
            for command in commands
            if command["status"] not in ENDED and (dataset is None or command["dataset_id"] in ids)
        ]
        if as_json:
            print_json({"url": client.url, "datasets": datasets, "running": running})
        else:
            _show(client.url, datasets, running)


def _dataset_status(
    client: Client, dataset: dict[str, Any], projects: dict[str, str], commands: list[dict[str, Any]]
) -> dict[str, Any]:
    """The last sync is known only when it is among the newest commands."""
    syncs = [one for one in commands if one["dataset_id"] == dataset["id"] and one["status"] in ENDED]
    return dataset_json(dataset) | {
        "project": projects.get(dataset["projects"][0]),
        "failures": failures_by_reason(client, dataset) if dataset["counts"]["failed"] else [],
        "last_sync": syncs[0] if syncs else None,
    }


def failed_items(client: Client, dataset_id: str, limit: int) -> list[dict[str, Any]]:
    conditions: list[dict[str, Any]] = [{"hidden": False}, {"type": "file"}, {"metadata.system.etl.state": "failed"}]
    return query_items(client, dataset_id, conditions, limit=limit)[0]


def failures_by_reason(client: Client, dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """The most frequent first; each with one item as its example."""
    numbers: Counter[str] = Counter()
    examples: dict[str, dict[str, Any]] = {}
    for item in failed_items(client, dataset["id"], _MOST_FAILURES):
        etl = item["metadata"]["system"]["etl"]
        reason = etl.get("reason") or "unknown"
        numbers[reason] += 1
        examples.setdefault(reason, {"path": item["filename"], "message": etl.get("message")})
    return [{"reason": reason, "count": number} | examples[reason] for reason, number in numbers.most_common()]


def _show(url: str, datasets: list[dict[str, Any]], running: list[dict[str, Any]]) -> None:
    say(f"Headwater answers at {url}.")
    if not datasets:
        say("No dataset yet. Connect a bucket or a folder: headwater connect SOURCE --dataset NAME")
        return
    numbers = ("Items", "Size", "Waiting", "Failed", "Missing")
    shown = table("Dataset", *numbers, "Last sync", numbers=numbers)
    for one in datasets:
        add_row(
            shown,
            f"{one['project']}/{one['name']}",
            f"{one['items']:,}",
            size(one["size_bytes"]),
            f"{one['waiting']:,}",
            f"{one['failed']:,}",
            f"{one['missing']:,}",
            "running" if one["is_syncing"] else age(one["synced_at"]),
        )
    console.print(shown)
    _show_failures(datasets)
    for one in datasets:
        _show_last_sync(one)
    for command in running:
        facts = f"{command['progress_percent']:.0f} %, {sync_facts({'spec': command, 'status': command['status']})}"
        say(f"Running: {command['type']} {command['id']}: {facts}. Abort: headwater abort {command['id']}")
        if command["stalled_since"]:
            warn(f"Command {command['id']} makes no progress; the last was {age(command['stalled_since'])}.")


def _show_failures(datasets: list[dict[str, Any]]) -> None:
    if not any(one["failures"] for one in datasets):
        return
    shown = table("Could not be read", "Files", "Reason", "For example", numbers=("Files",))
    for one in datasets:
        for failure in one["failures"]:
            example = f"{failure['path']}: {failure['message']}"
            add_row(shown, one["name"], f"{failure['count']:,}", failure["reason"], example)
        looked_at = sum(failure["count"] for failure in one["failures"])
        if one["failed"] > looked_at:
            add_row(shown, one["name"], f"{one['failed'] - looked_at:,}", "not looked at", "")
    console.print(shown)


def _show_last_sync(one: dict[str, Any]) -> None:
    last = one["last_sync"]
    if last is None:
        return
    trouble = last["error"] or last["warning"]
    if trouble:
        warn(f"{one['name']}, last sync ({last['status']}, {age(last['updated_at'])}): {trouble}")
    if one["waiting"]:
        say(f"{one['name']}: {counted(one['waiting'], 'file')} to be read yet.")
