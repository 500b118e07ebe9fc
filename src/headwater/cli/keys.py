"""`headwater key` and `headwater bot`: tokens for scripts, and the accounts of programs."""

from typing import Annotated, Any
from urllib.parse import quote

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_project
from headwater.cli.output import add_row, age, console, note, print_json, say, table
from headwater.errors import NotFound

key_app = typer.Typer(name="key", help="API keys.", no_args_is_help=True, rich_markup_mode="markdown")
bot_app = typer.Typer(name="bot", help="Accounts of programs.", no_args_is_help=True, rich_markup_mode="markdown")

ForBot = Annotated[
    str | None, typer.Option("--bot", metavar="EMAIL", help="A bot of your projects; without it, yourself.")
]
Project = Annotated[str, typer.Option("--project", metavar="NAME", help="The bot's project.")]


@key_app.command("create")
def create_key_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.")],
    bot: ForBot = None,
    days: Annotated[int, typer.Option("--days", min=1, max=36_500, help="How long it lives.")] = 365,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Make an API key and print it. It is shown only now.

    Example: headwater key create "nightly import" --days 90
    """
    with connect(data_dir) as client:
        holder = bot or client.get("/users/me")["email"]
        made = client.post("/apiKeys", {"userId": holder, "name": name, "days": days})
    note(f"A key of {holder}, good until {made['expiresAt'][:10]}. Revoke it: headwater key revoke {made['id']}")
    say(made["jwt"])


@key_app.command("ls")
def ls_key_command(bot: ForBot = None, data_dir: options.ServerDataDir = None, as_json: options.AsJson = False) -> None:
    """List your API keys, or those of a bot.

    Example: headwater key ls
    """
    with connect(data_dir) as client:
        params = {} if bot is None else {"userId": bot}
        found = [
            {
                "id": key["id"],
                "name": key["name"],
                "email": key["userId"],
                "created_at": key["createdAt"],
                "expires_at": key["expiresAt"],
                "last_used_at": key["lastUsedAt"],
            }
            for key in client.get("/apiKeys", **params)
        ]
    if as_json:
        print_json(found)
        return
    shown = table("Id", "Name", "Until", "Used")
    for key in found:
        add_row(shown, key["id"], key["name"], key["expires_at"][:10], age(key["last_used_at"]))
    console.print(shown)


@key_app.command("revoke")
def revoke_key_command(
    key: Annotated[str, typer.Argument(metavar="ID", help="As `headwater key ls` tells it.")],
    data_dir: options.ServerDataDir = None,
) -> None:
    """End an API key now.

    Example: headwater key revoke 00000000000000000000000a
    """
    with connect(data_dir) as client:
        client.delete(f"/apiKeys/{key}")
    say("Revoked.")


@bot_app.command("create")
def create_bot_command(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    project: Project,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Create a bot, which is a developer of its project, and print its first API key. It is shown only now.

    Example: headwater bot create importer --project Default
    """
    with connect(data_dir) as client:
        chosen = get_project(client, project)
        made = client.post(f"/projects/{chosen['id']}/bots", {"name": name, "returnCredentials": True})
    note(f"{made['email']} is a developer of {chosen['name']}. Its key is good for a year:")
    say(made["password"])


@bot_app.command("ls")
def ls_bot_command(project: Project, data_dir: options.ServerDataDir = None, as_json: options.AsJson = False) -> None:
    """List the bots of a project.

    Example: headwater bot ls --project Default
    """
    with connect(data_dir) as client:
        found = [
            {"email": bot["email"], "name": bot["firstName"], "created_at": bot["createdAt"]}
            for bot in _bots(client, get_project(client, project))
        ]
    if as_json:
        print_json(found)
        return
    shown = table("Bot", "E-mail", "Since")
    for bot in found:
        add_row(shown, bot["name"], bot["email"], bot["created_at"][:10])
    console.print(shown)


@bot_app.command("delete")
def delete_bot_command(
    bot: Annotated[str, typer.Argument(metavar="BOT", help="Its name or e-mail address.")],
    project: Project,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Delete a bot and its keys. What it made stays.

    Example: headwater bot delete importer --project Default
    """
    with connect(data_dir) as client:
        chosen = get_project(client, project)
        for found in _bots(client, chosen):
            if bot in (found["email"], found["firstName"]):
                client.delete(f"/projects/{chosen['id']}/bots/{quote(found['email'], safe='')}")
                say(f"Deleted {found['email']}.")
                return
    raise NotFound(f"There is no bot {bot!r} in {chosen['name']}. List them: headwater bot ls --project NAME")


def _bots(client: Client, project: dict[str, Any]) -> list[dict[str, Any]]:
    return client.get(f"/projects/{project['id']}/bots")
