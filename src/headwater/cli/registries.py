"""`headwater registry`: are the credentials of a container registry good, which repositories and tags are there."""

from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.output import add_row, console, print_json, say, table, warn
from headwater.errors import BadRequest, Forbidden, NotFound

registry_app = typer.Typer(
    name="registry",
    help="Check container registries; list their repositories and tags.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

_Integration = Annotated[
    str, typer.Argument(metavar="INTEGRATION", help="Name or id of an integration of type private-registry.")
]


@registry_app.command("check")
def check_command(
    integration: _Integration, data_dir: options.ServerDataDir = None, as_json: options.AsJson = False
) -> None:
    """Log in to a registry and ask for its repositories. Exit code 1 when something is refused.

    Example: headwater registry check team-images
    """
    with connect(data_dir) as client:
        found = client.post(f"{_path(client, integration)}/validate")
    if as_json:
        print_json(found)
    elif found["message"]:
        say(found["message"])
    else:
        _show(found)
    if not all(check["ok"] for check in found["checks"]):
        raise typer.Exit(1)


def _show(found: dict[str, Any]) -> None:
    shown = table("Check", "Result", "", title=found["host"])
    for check in found["checks"]:
        add_row(shown, check["name"], "good" if check["ok"] else "failed", check["message"] or "")
    console.print(shown)


@registry_app.command("repositories")
def repositories_command(
    integration: _Integration, data_dir: options.ServerDataDir = None, as_json: options.AsJson = False
) -> None:
    """List the repositories of a registry, one a line.

    Example: headwater registry repositories team-images
    """
    with connect(data_dir) as client:
        found = client.get(f"{_path(client, integration)}/repositories")
    _list(found, found["repositories"], as_json=as_json)


@registry_app.command("tags")
def tags_command(
    integration: _Integration,
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="Without the registry's host: team/app.")],
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List the tags of a repository, one a line.

    Example: headwater registry tags team-images vision/train
    """
    with connect(data_dir) as client:
        found = client.get(f"{_path(client, integration)}/repositories/{_checked(repository)}/tags")
    _list(found, found["tags"], as_json=as_json)


def _list(found: dict[str, Any], names: list[str], *, as_json: bool) -> None:
    if as_json:
        print_json(names)
    else:
        for name in names:
            say(name)
    if not found["isComplete"]:
        warn(f"{found['host']} has more; these are the first {len(names):,}.")


def _checked(repository: str) -> str:
    """What would end up as another path is no name. Raises BadRequest."""
    parts = repository.split("/")
    if not all(parts) or {".", ".."} & set(parts) or set(repository) & set("?#%"):
        raise BadRequest(f"{repository!r} is not the name of a repository, which is like team/app.")
    return repository


def _path(client: Client, wanted: str) -> str:
    """Of an integration in an organisation that one manages, by name or id. Raises NotFound, BadRequest, Forbidden."""
    found: list[str] = []
    managed = 0
    for organization in client.get("/orgs"):
        path = f"/orgs/{organization['id']}/integrations"
        try:
            integrations = client.get(path)
        except Forbidden:
            continue
        managed += 1
        found += [f"{path}/{one['id']}" for one in integrations if wanted in (one["id"], one["name"])]
    if not managed:
        raise Forbidden("Only owners and admins of an organisation may see its integrations.")
    if not found:
        raise NotFound(f"There is no integration {wanted!r} that you may see.")
    if len(found) > 1:
        ids = ", ".join(path.rpartition("/")[2] for path in found)
        raise BadRequest(f"Several integrations are named {wanted!r}. Say which one by its id: {ids}")
    return found[0]
