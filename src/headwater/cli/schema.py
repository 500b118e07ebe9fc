"""`headwater schema` and `headwater facets`: what metadata a dataset has, and how many items have which value."""

from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.cloning import parsed
from headwater.cli.finding import get_dataset
from headwater.cli.output import add_row, console, counted, note, print_json, say, table

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Its name, PROJECT/NAME or its id.")]
_MOST_EXAMPLES = 3


def schema_command(
    dataset: Dataset,
    unsearchable: Annotated[
        list[str] | None,
        typer.Option(
            "--unsearchable", metavar="PATH", help="Take this path, and all below it, out of searching. Repeatable."
        ),
    ] = None,
    searchable: Annotated[
        list[str] | None,
        typer.Option("--searchable", metavar="PATH", help="Search what was taken out before. Repeatable."),
    ] = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show which metadata the items of a dataset have: paths, types, how often, examples.

    Of a large dataset some thousand items are read, spread over all of it.

    Example: headwater schema Trucks/photos
    """
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        if unsearchable or searchable:
            change = {"add": unsearchable or [], "remove": searchable or []}
            client.post(f"/datasets/{found['id']}/schema/items", {"unsearchablePaths": change})
        told = client.get(f"/datasets/{found['id']}/schema")
    if as_json:
        print_json(_as_json(told))
        return
    _show(found["name"], told)


def _as_json(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "items": told["itemsCount"],
        "sampled_items": told["sample"]["items"],
        "is_complete": told["sample"]["isComplete"],
        "has_more_paths": told["hasMorePaths"],
        "unsearchable_paths": told["unsearchablePaths"],
        "paths": [
            {
                "path": path["path"],
                "items": path["items"],
                "share": path["share"],
                "is_exact": path["isExact"],
                "types": path["types"],
                "element_types": path.get("elementTypes", {}),
                "distinct_values": path["distinctValues"],
                "examples": path["examples"],
                "minimum": path.get("minimum"),
                "maximum": path.get("maximum"),
                "is_searchable": path["isSearchable"],
                "is_indexed": path["isIndexed"],
            }
            for path in told["paths"]
        ],
    }


def _show(name: str, told: dict[str, Any]) -> None:
    items, sampled = told["itemsCount"], told["sample"]["items"]
    if not told["paths"]:
        say(f"{name} has no items yet, so nothing is known of their metadata.")
        return
    say(
        f"{name}: {counted(items, 'item')}, "
        + ("all of them read." if told["sample"]["isComplete"] else f"{sampled:,} of them read as a sample.")
    )
    shown = table("Path", "Items", "Types", "Values", "Examples", numbers=("Items", "Values"))
    for path in told["paths"]:
        add_row(
            shown,
            path["path"] + ("" if path["isSearchable"] else " (not searched)"),
            f"{100 * path['share']:.1f} %" if path["share"] < 1 else "all",
            ", ".join([*path["types"], *(f"of {kind}" for kind in path.get("elementTypes", {}))]),
            f"{path['distinctValues']:,}",
            ", ".join(_example(one["value"]) for one in path["examples"][:_MOST_EXAMPLES]),
        )
    console.print(shown)
    if told["hasMorePaths"]:
        note(f"There are more paths than the {len(told['paths']):,} shown here.")


def _example(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def facets_command(
    dataset: Dataset,
    fields: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD...",
            help="Such as metadata.user.camera, metadata.system.mimetype, creator, label, or dir for the folders.",
        ),
    ],
    conditions: Annotated[
        str | None, typer.Option("--filter", metavar="JSON", help="The SDK's filter: only items that it finds.")
    ] = None,
    folder: Annotated[str, typer.Option("--folder", metavar="PATH", help="For dir: the folders in this one.")] = "/",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many values of each field.")] = 20,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Count how many items have which value of a field, the most frequent values first.

    Example: headwater facets Trucks/photos metadata.system.mimetype metadata.user.camera
    """
    asked = [{"field": field, "folder": folder} if field == "dir" else field for field in fields]
    body: dict[str, Any] = {"fields": asked, "limit": limit}
    if conditions is not None:
        body["filter"] = parsed(conditions)
    with connect(data_dir) as client:
        told = client.post(f"/datasets/{get_dataset(client, dataset)['id']}/facets", body)
    if as_json:
        print_json({"items": told["itemsCount"], "facets": told["facets"]})
        return
    for facet in told["facets"]:
        shown = table(facet["field"], "Items", numbers=("Items",))
        for one in facet["values"]:
            add_row(shown, _example(one["value"]), f"{one['items']:,}")
        if facet["more"]:
            add_row(shown, f"{facet['more']:,} more", "")
        console.print(shown)
    say(f"Counted {counted(told['itemsCount'], 'item')}.")
