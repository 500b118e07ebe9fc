"""`headwater ls`: projects, the datasets of one, the folders and items of one."""

from collections import Counter
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import list_datasets, list_projects, split_place
from headwater.cli.output import add_row, age, console, print_json, say, size, table

_PAGE = 1000


def ls_command(
    place: Annotated[str | None, typer.Argument(metavar="[PROJECT[/DATASET[/FOLDER]]]", help="What to list.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="The most items to list.")] = 1000,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List projects, the datasets of a project, or the folders and items of a dataset.

    Example: headwater ls Default/photos/2024
    """
    with connect(data_dir) as client:
        if place is None:
            _show_projects(client, as_json=as_json)
            return
        project, dataset, folder = split_place(client, place)
        if dataset is None:
            _show_datasets(client, project, as_json=as_json)
        else:
            _show_folder(client, dataset, folder, limit, as_json=as_json)


def _show_projects(client: Client, *, as_json: bool) -> None:
    datasets = Counter(dataset["projects"][0] for dataset in list_datasets(client))
    found = [
        {
            "id": project["id"],
            "name": project["name"],
            "role": project["role"],
            "datasets": datasets[project["id"]],
            "created_at": project["createdAt"],
        }
        for project in list_projects(client)
    ]
    if as_json:
        print_json(found)
        return
    if not found:
        say("No project yet. Connect a bucket or a folder: headwater connect SOURCE --dataset NAME")
        return
    shown = table("Project", "Datasets", "Your role", numbers=("Datasets",))
    for project in found:
        add_row(shown, project["name"], project["datasets"], project["role"])
    console.print(shown)


def dataset_json(dataset: dict[str, Any]) -> dict[str, Any]:
    counts = dataset["counts"]
    return {
        "id": dataset["id"],
        "name": dataset["name"],
        "project_id": dataset["projects"][0],
        "driver_id": dataset["driver"],
        "items": counts["items"],
        "size_bytes": counts["bytes"],
        "preprocessed": counts["preprocessed"],
        "waiting": counts["waiting"],
        "failed": counts["failed"],
        "missing": counts["missing"],
        "is_syncing": dataset["isSyncing"],
        "synced_at": counts["syncedAt"],
        "created_at": dataset["createdAt"],
    }


def _show_datasets(client: Client, project: dict[str, Any], *, as_json: bool) -> None:
    found = [dataset_json(dataset) for dataset in list_datasets(client, project["id"])]
    if as_json:
        print_json(found)
        return
    if not found:
        say(f"Project {project['name']} has no dataset yet. Add one: headwater connect SOURCE --dataset NAME")
        return
    numbers = ("Items", "Size", "Waiting", "Failed", "Missing")
    shown = table("Dataset", *numbers, "Synced", numbers=numbers)
    for dataset in found:
        add_row(
            shown,
            dataset["name"],
            f"{dataset['items']:,}",
            size(dataset["size_bytes"]),
            f"{dataset['waiting']:,}",
            f"{dataset['failed']:,}",
            f"{dataset['missing']:,}",
            "now" if dataset["is_syncing"] else age(dataset["synced_at"]),
        )
    console.print(shown)


def query_items(
    client: Client, dataset_id: str, conditions: list[dict[str, Any]], *, limit: int, sort: dict[str, str] | None = None
) -> tuple[list[dict[str, Any]], int]:
    """The first items that meet the conditions, and how many do."""
    query: dict[str, Any] = {"filter": {"$and": conditions}, "page": 0, "pageSize": min(_PAGE, limit)}
    if sort:
        query["sort"] = sort
    found: list[dict[str, Any]] = []
    while True:
        page = client.post(f"/datasets/{dataset_id}/query", query)
        found += page["items"]
        if not page["hasNextPage"] or len(found) >= limit:
            return found[:limit], page["totalItemsCount"]
        query["page"] += 1


def item_json(item: dict[str, Any]) -> dict[str, Any]:
    system = item["metadata"]["system"]
    return {
        "id": item["id"],
        "path": item["filename"],
        "size_bytes": system.get("size"),
        "mime_type": system.get("mimetype"),
        "width_px": system.get("width"),
        "height_px": system.get("height"),
        "state": (system.get("etl") or {}).get("state"),
        "has_thumbnail": "thumbnailId" in system,
        "is_missing": bool(system.get("missing")),
        "created_at": item["createdAt"],
    }


def _show_folder(client: Client, dataset: dict[str, Any], folder: str, limit: int, *, as_json: bool) -> None:
    by_name = {"filename": "ascending"}
    folders, _ = query_items(client, dataset["id"], [{"type": "dir"}, {"dir": folder}], limit=limit, sort=by_name)
    conditions = [{"hidden": False}, {"type": "file"}, {"dir": folder}]
    found, total = query_items(client, dataset["id"], conditions, limit=limit, sort=by_name)
    items = [item_json(item) for item in found]
    if as_json:
        print_json({"folders": [found["filename"] for found in folders], "items": items, "total_items": total})
        return
    if not folders and not items:
        say(f"Nothing in {folder} of {dataset['name']}.")
        return
    shown = table("Name", "Size", "Type", "Pixels", "State", numbers=("Size",))
    for inner in folders:
        add_row(shown, inner["name"] + "/", "", "", "", "")
    for item in items:
        pixels = f"{item['width_px']} x {item['height_px']}" if item["width_px"] else ""
        state = "missing" if item["is_missing"] else item["state"] or ""
        name = item["path"].rpartition("/")[2]
        add_row(shown, name, size(item["size_bytes"] or 0), item["mime_type"] or "", pixels, state)
    console.print(shown)
    if total > len(items):
        say(f"… and {total - len(items):,} more (--limit).")
