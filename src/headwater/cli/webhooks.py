"""`headwater webhooks`: servers of your own that a project's notices are sent to."""

from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_project
from headwater.cli.notices import Level
from headwater.cli.output import add_row, age, console, fail, print_json, say, table
from headwater.errors import BadRequest, NotFound

webhook_app = typer.Typer(
    name="webhooks",
    help="Send a project's notices to servers of your own, signed (Standard Webhooks).",
    no_args_is_help=True,
)

Project = Annotated[str, typer.Argument(metavar="PROJECT", help="A project: its name or its id.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The webhook's name, or its id.")]
Levels = Annotated[list[Level] | None, typer.Option("--level", help="Only this level; may be repeated.")]
Kinds = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="KIND", help="Only this kind, for example command.failed; may be repeated."),
]


@webhook_app.command("list")
def list_command(project: Project, data_dir: options.ServerDataDir = None, as_json: options.AsJson = False) -> None:
    """Show the webhooks of a project, and whether they work.

    Example: headwater webhooks list birds
    """
    with connect(data_dir) as client:
        found = client.get(_path(client, project))
    if as_json:
        print_json(found)
        return
    if not found:
        say(f"No webhook. Add one: headwater webhooks add {project!r} NAME https://…")
        return
    shown = table("Name", "To", "What", "Delivered", "State")
    for webhook in found:
        what = ", ".join([*webhook["levels"], *webhook["kinds"]])
        state = "on" if webhook["active"] else f"off: {webhook['inactiveReason'] or 'switched off'}"
        add_row(shown, webhook["name"], webhook["url"], what, age(webhook["lastDeliveredAt"]), state)
    console.print(shown)


@webhook_app.command("add")
def add_command(
    project: Project,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name for it.")],
    url: Annotated[str, typer.Argument(metavar="URL", help="Where notices are posted to.")],
    level: Levels = None,
    kind: Kinds = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Send notices to a server of your own. The secret that they are signed with is shown this once.

    Example: headwater webhooks add birds ops https://ops.example.com/headwater --level warning --level error
    """
    body: dict[str, Any] = {"name": name, "url": url}
    if level:
        body["levels"] = [one.value for one in level]
    if kind:
        body["kinds"] = kind
    with connect(data_dir) as client:
        made = client.post(_path(client, project), body)
    if as_json:
        print_json(made)
    else:
        say(f"Notices go to {url}. Verify them with this secret, which is not shown again:")
        say(made["secret"])
        say(f"Try it: headwater webhooks test {project!r} {name!r}")


@webhook_app.command("update")
def update_command(
    project: Project,
    name: Name,
    url: Annotated[str | None, typer.Option("--url", metavar="URL", help="Where notices are posted to.")] = None,
    level: Levels = None,
    kind: Kinds = None,
    on: Annotated[bool | None, typer.Option("--on/--off", help="Switch it on or off.")] = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Change a webhook, or switch it on or off.

    Example: headwater webhooks update birds ops --on
    """
    given = {
        "url": url,
        "levels": None if level is None else [one.value for one in level],
        "kinds": kind or None,
        "active": on,
    }
    body = {key: value for key, value in given.items() if value is not None}
    if not body:
        raise BadRequest("Say what to change: --url, --level, --kind, --on or --off.")
    with connect(data_dir) as client:
        found = client.patch(_path_of(client, project, name), body)
    if as_json:
        print_json(found)
    else:
        say(f"{found['name']} is {'on' if found['active'] else 'off'}.")


@webhook_app.command("test")
def try_command(
    project: Project, name: Name, data_dir: options.ServerDataDir = None, as_json: options.AsJson = False
) -> None:
    """Send a test, and say what the receiver answered. Exit code 1 when it did not take it.

    Example: headwater webhooks test birds ops
    """
    with connect(data_dir) as client:
        told = client.post(_path_of(client, project, name) + "/test")
    if as_json:
        print_json(told)
    if told["status"] != "delivered":
        fail(f"The test did not arrive: {told['error']}")
    if not as_json:
        say(f"Delivered in {told['durationMs']} ms ({told['httpStatus']}).")


@webhook_app.command("deliveries")
def deliveries_command(
    project: Project,
    name: Name,
    redeliver: Annotated[
        str | None, typer.Option("--redeliver", metavar="ID", help="Deliver this one again, with the same id.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the latest first.")] = 20,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what was sent and how it went; what waits is tried again for three days.

    Example: headwater webhooks deliveries birds ops
    """
    with connect(data_dir) as client:
        path = _path_of(client, project, name) + "/deliveries"
        if redeliver is not None:
            found = [client.post(f"{path}/{redeliver}/redeliver")]
        else:
            found = client.get(path, limit=str(limit))
    if as_json:
        print_json(found)
        return
    shown = table("When", "Id", "What", "Status", "Attempts", "Last answer", numbers=("Attempts",))
    for one in found:
        last = one["error"] or (str(one["httpStatus"]) if one["httpStatus"] else "")
        when = one["createdAt"][:16].replace("T", " ")
        add_row(shown, when, one["id"], f"{one['kind']}: {one['title']}", one["status"], one["attempts"], last)
    console.print(shown)


@webhook_app.command("rotate")
def rotate_command(
    project: Project,
    name: Name,
    keep_old_hours: Annotated[
        int, typer.Option("--keep-old-hours", min=0, max=168, help="How long the old secret signs, too.")
    ] = 24,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Make a new secret, shown this once. For a day deliveries are signed with both.

    Example: headwater webhooks rotate birds ops
    """
    with connect(data_dir) as client:
        made = client.post(_path_of(client, project, name) + "/rotate", {"keepOldForHours": keep_old_hours})
    if as_json:
        print_json(made)
    else:
        say("The new secret, which is not shown again:")
        say(made["secret"])


@webhook_app.command("remove")
def remove_command(project: Project, name: Name, data_dir: options.ServerDataDir = None) -> None:
    """Remove a webhook with the record of its deliveries.

    Example: headwater webhooks remove birds ops
    """
    with connect(data_dir) as client:
        client.delete(_path_of(client, project, name))
    say(f"{name} is removed.")


def _path(client: Client, project: str) -> str:
    return f"/projects/{get_project(client, project)['id']}/webhooks"


def _path_of(client: Client, project: str, name: str) -> str:
    """Raises NotFound."""
    path = _path(client, project)
    for webhook in client.get(path):
        if name in (webhook["name"], webhook["id"]):
            return f"{path}/{webhook['id']}"
    raise NotFound(f"There is no webhook {name!r} in {project}. List them: headwater webhooks list {project!r}")
