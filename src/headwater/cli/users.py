"""`headwater user`: the accounts of the organisation."""

import sys
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import list_projects
from headwater.cli.output import add_row, console, print_json, say, table
from headwater.errors import BadRequest, NotFound

user_app = typer.Typer(name="user", help="Add and list accounts.", no_args_is_help=True, rich_markup_mode="markdown")


class Role(StrEnum):
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"


class ProjectRole(StrEnum):
    OWNER = "owner"
    DEVELOPER = "developer"
    ANNOTATION_MANAGER = "annotationManager"
    ANNOTATOR = "annotator"


@user_app.command("add")
def add_command(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The e-mail address, which is the login.")],
    password: Annotated[
        str | None, typer.Option("--password", help="8 characters or more; asked for, or read from the input, without.")
    ] = None,
    role: Annotated[Role, typer.Option("--role", help="In the organisation.")] = Role.MEMBER,
    project: Annotated[str | None, typer.Option("--project", help="Add the account to this project.")] = None,
    project_role: Annotated[
        ProjectRole, typer.Option("--project-role", help="In the project.")
    ] = ProjectRole.DEVELOPER,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Add an account to the organisation, and to a project.

    Example: headwater user add ana@example.org --project Default --project-role annotator
    """
    with connect(data_dir) as client:
        chosen = None if project is None else _get_project(client, project)
        body = {"email": email, "password": password or ask_password(), "role": role.value}
        client.post(f"/orgs/{_organization(client)['id']}/accounts", body)
        say(f"Added {email} as {role.value}.")
        if chosen is not None:
            path = f"/projects/{chosen['id']}/members/{quote(email, safe='')}"
            client.post(path, {"role": project_role.value})
            say(f"{email} is {project_role.value} in project {chosen['name']}.")


def ask_password() -> str:
    """Raises BadRequest when there is nobody to ask."""
    if sys.stdin.isatty():
        return typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise BadRequest("The account needs a password. Give --password, or write it to the command's input.")
    return password


def _organization(client: Client) -> dict[str, Any]:
    found = client.get("/orgs")
    if not found:
        raise NotFound("You belong to no organisation.")
    return found[0]


def _get_project(client: Client, name: str) -> dict[str, Any]:
    for project in list_projects(client):
        if name in (project["name"], project["id"]):
            return project
    raise NotFound(f"There is no project {name!r} that you may see. List them: headwater ls")


@user_app.command("ls")
def ls_command(data_dir: options.ServerDataDir = None, as_json: options.AsJson = False) -> None:
    """List the accounts of the organisation.

    Example: headwater user ls
    """
    with connect(data_dir) as client:
        found = [
            {"email": member["email"], "role": member["role"], "created_at": member["createdAt"]}
            for member in client.get(f"/orgs/{_organization(client)['id']}/members")
        ]
    if as_json:
        print_json(found)
        return
    shown = table("E-mail", "Role", "Since")
    for member in found:
        add_row(shown, member["email"], member["role"], (member["created_at"] or "")[:10])
    console.print(shown)
