"""`headwater integration`: credentials for outside services. Secrets are typed, piped or read from files."""

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_organization
from headwater.cli.output import add_row, console, note, print_json, say, table
from headwater.errors import BadRequest, NotFound

integration_app = typer.Typer(
    name="integration",
    help="Add, change and list credentials for outside services.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

OptionValues = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        "-o",
        metavar="NAME=VALUE",
        help="A secret option, again for each. The value `-` is asked for, or read from the input (a line each), "
        "`@FILE` is read from a file and `env:NAME` from a variable. What stands here itself others on this machine "
        "can see.",
    ),
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", "-m", metavar="NAME=VALUE", help="What is no secret, for example endpoint=URL."),
]
Wanted = Annotated[str, typer.Argument(metavar="INTEGRATION", help="Its name or id.")]


@integration_app.command("create")
def create_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that the organisation does not use yet.")],
    kind: Annotated[str, typer.Option("--type", "-t", help="s3, gcs, azureblob, private-registry, key_value, …")],
    option: OptionValues = None,
    metadata: Metadata = None,
    organization: options.Organization = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Add an integration. The same one again changes nothing.

    Example: headwater integration create photos --type s3 --option key=AKIAEXAMPLE --option secret=-

    Example: headwater integration create lake --type gcs --option content=@service-account.json
    """
    body = {"name": name, "type": kind, "options": _read(option or []), "metadata": _pairs(metadata or [])}
    with connect(data_dir) as client:
        made = client.post(f"{_path(client, organization)}/integrations", body)
    _show(made, f"Integration {made['name']} has the id {made['id']}.", as_json=as_json)


@integration_app.command("update")
def update_command(
    integration: Wanted,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="Its new name.")] = None,
    option: OptionValues = None,
    metadata: Metadata = None,
    organization: options.Organization = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Change an integration; running syncs take a new secret within seconds.

    Options replace all options that were there, and metadata all metadata.

    Example: headwater integration update photos --option key=AKIAEXAMPLE --option secret=@new-secret.txt
    """
    if name is None and not option and metadata is None:
        raise BadRequest("Say what to change: --name, --option or --metadata.")
    with connect(data_dir) as client:
        path = _path(client, organization)
        found = _get(client, path, integration)
        body: dict[str, Any] = {"integrationId": found["id"]}
        if name is not None:
            body["name"] = name
        if option:
            body["credentials"] = {"options": _read(option), "type": found["type"]}
        if metadata is not None:
            body["metadata"] = _pairs(metadata)
        changed = client.patch(f"{path}/integrations", body)
    _show(changed, f"Changed {changed['name']}.", as_json=as_json)


@integration_app.command("list")
def list_command(
    organization: options.Organization = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List the integrations of the organisation; their secrets are never shown.

    Example: headwater integration list
    """
    with connect(data_dir) as client:
        found = client.get(f"{_path(client, organization)}/integrations")
    if as_json:
        print_json(found)
        return
    shown = table("Name", "Type", "Id", "Changed")
    for one in found:
        add_row(shown, one["name"], one["type"], one["id"], one["updatedAt"][:16].replace("T", " "))
    console.print(shown)


@integration_app.command("delete")
def delete_command(
    integration: Wanted, organization: options.Organization = None, data_dir: options.ServerDataDir = None
) -> None:
    """Delete an integration that no storage driver uses, and its secret.

    Example: headwater integration delete photos
    """
    with connect(data_dir) as client:
        path = _path(client, organization)
        found = _get(client, path, integration)
        client.delete(f"{path}/integrations/{found['id']}")
    say(f"Deleted {found['name']}.")


def _path(client: Client, organization: str | None) -> str:
    return f"/orgs/{get_organization(client, organization)['id']}"


def _get(client: Client, path: str, wanted: str) -> dict[str, Any]:
    for found in client.get(f"{path}/integrations"):
        if wanted in (found["name"], found["id"]):
            return found
    raise NotFound(f"There is no integration {wanted!r}. List them: headwater integration list")


def _pairs(texts: list[str]) -> dict[str, str]:
    """Raises BadRequest, without the value: somebody may have put a secret there."""
    pairs = [text.partition("=") for text in texts]
    if not all(name and equals for name, equals, _ in pairs):
        raise BadRequest("Write options and metadata as NAME=VALUE.")
    return {name: value for name, _, value in pairs}


def _read(texts: list[str]) -> dict[str, Any]:
    given = {name: _read_value(name, value) for name, value in _pairs(texts).items()}
    return {name: _parsed(name, value) for name, value in given.items()}


def _read_value(name: str, value: str) -> str:
    """Raises BadRequest, OSError."""
    if value == "-":
        return getpass.getpass(f"{name}: ") if sys.stdin.isatty() else _line(name)
    if value.startswith("@"):
        return Path(value[1:]).expanduser().read_text(encoding="utf-8").strip()
    if value.startswith("env:"):
        if value[4:] not in os.environ:
            raise BadRequest(f"The option {name} is to come from the variable {value[4:]}, which is not set.")
        return os.environ[value[4:]]
    return value


def _line(name: str) -> str:
    line = sys.stdin.readline().rstrip("\r\n")
    if not line:
        raise BadRequest(f"The option {name} is to come from the input, which has no line left for it.")
    return line


def _parsed(name: str, value: str) -> Any:
    """Two options are JSON."""
    if name not in ("spec", "roleArns"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _show(made: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(made)
    else:
        say(sentence)
        for fact in made["metadata"] if isinstance(made["metadata"], list) else []:
            note(f"{fact['name']}: {fact['value']}")
