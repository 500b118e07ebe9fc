"""`headwater quota`: how many data points an organisation may have, and who uses them."""

from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_organization
from headwater.cli.output import add_row, console, counted, print_json, say, table, warn
from headwater.errors import BadRequest, Forbidden

quota_app = typer.Typer(name="quota", invoke_without_command=True, rich_markup_mode="markdown")

_BAR_CELLS = 20


@quota_app.callback()
def quota_command(
    context: typer.Context,
    organization: Annotated[
        str | None, typer.Option("--org", metavar="NAME", help="Which organisation; without it, all of yours.")
    ] = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show how many data points are used, by project and dataset, and how many are left. Every item uses one.

    Example: headwater quota --org Headwater
    """
    if context.invoked_subcommand is not None:
        return
    with connect(data_dir) as client:
        chosen = client.get("/orgs") if organization is None else [get_organization(client, organization)]
        found = [known for one in chosen if (known := _load_quota(client, one)) is not None]
    if not found:
        raise Forbidden("Only owners and admins of an organisation may see its quota.")
    if as_json:
        print_json(found)
        return
    for one in found:
        _show(one)


def _load_quota(client: Client, organization: dict[str, Any]) -> dict[str, Any] | None:
    """None for an organisation whose quota one may not see."""
    try:
        quota = client.get(f"/orgs/{organization['id']}/quota")
    except Forbidden:
        return None
    return {
        "organization_id": organization["id"],
        "organization": organization["name"],
        "limit": quota["limit"],
        "used": quota["used"],
        "uploading": quota["uploading"],
        "left": quota["left"],
        "warning": quota["warning"],
        "projects": quota["projects"],
    }


def _show(quota: dict[str, Any]) -> None:
    limit = quota["limit"]
    if limit is None:
        say(f"{quota['organization']}: {counted(quota['used'], 'data point')} used, no limit.")
    else:
        uploading = f", {quota['uploading']:,} being uploaded" if quota["uploading"] else ""
        say(
            f"{quota['organization']}: {quota['used']:,} of {counted(limit, 'data point')} used{uploading}, "
            f"{quota['left']:,} left."
        )
    whole = limit or quota["used"]
    shown = table("Project", "Dataset", "Used", "%", "", numbers=("Used", "%"))
    for project in quota["projects"]:
        add_row(shown, project["name"], "", *_part(project["used"], whole))
        for dataset in sorted(project["datasets"], key=lambda dataset: -dataset["used"]):
            add_row(shown, "", dataset["name"], *_part(dataset["used"], whole))
    if quota["projects"]:
        console.print(shown)
    if quota["warning"]:
        warn(f"{quota['organization']}: {quota['warning']}")


def _part(used: int, whole: int) -> tuple[str, str, str]:
    """The number, its percentage of the whole, and a bar of it."""
    share = used / whole if whole else 0.0
    bar = "█" * min(_BAR_CELLS, round(share * _BAR_CELLS))
    return f"{used:,}", f"{100 * share:.1f}", bar


@quota_app.command("set")
def set_command(
    organization: Annotated[str, typer.Argument(metavar="ORG", help="Name or id of the organisation.")],
    limit: Annotated[str, typer.Argument(metavar="NUMBER|unlimited", help="The most data points it may have.")],
    data_dir: options.ServerDataDir = None,
) -> None:
    """Set how many data points an organisation may have; for the operator.

    A number below what is used deletes nothing: syncs and uploads add no item before there is room.

    Example: headwater quota set Headwater 100000
    """
    number = _parse(limit)
    with connect(data_dir) as client:
        found = get_organization(client, organization)
        quota = client.put(f"/orgs/{found['id']}/quota", {"limit": number})
    if number is None:
        say(f"{found['name']} may have any number of data points.")
        return
    say(f"{found['name']} may have {counted(number, 'data point')}: {quota['used']:,} used, {quota['left']:,} left.")


def _parse(limit: str) -> int | None:
    """None for unlimited. Raises BadRequest."""
    if limit == "unlimited":
        return None
    digits = limit.replace(",", "").replace("_", "")
    if not (digits.isascii() and digits.isdigit()):
        raise BadRequest(f"{limit!r} is no limit. Give a number, for example 100000, or the word unlimited.")
    return int(digits)
