"""`headwater user`: the people of an organisation, in their roles."""

import sys
from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_organization, get_project
from headwater.cli.output import add_row, console, print_json, say, table
from headwater.errors import BadRequest, NotFound

user_app = typer.Typer(
    name="user", help="Add, change and list people.", no_args_is_help=True, rich_markup_mode="markdown"
)


class Role(StrEnum):
    WORKER = "worker"
    MEMBER = "member"
    ADMIN = "admin"
    OWNER = "owner"


class ProjectRole(StrEnum):
    OWNER = "owner"
    DEVELOPER = "developer"
    ANNOTATION_MANAGER = "annotationManager"
    ANNOTATOR = "annotator"


Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The e-mail address, which is the login.")]


@user_app.command("add")
def add_command(
    email: Email,
    password: Annotated[
        str | None, typer.Option("--password", help="8 characters or more; asked for, or read from the input, without.")
    ] = None,
    role: Annotated[
        Role | None,
        typer.Option(
            "--role", help="In the organisation.  [default: member; worker for annotators]", show_default=False
        ),
    ] = None,
    project: Annotated[str | None, typer.Option("--project", help="Add the account to this project.")] = None,
    project_role: Annotated[
        ProjectRole, typer.Option("--project-role", help="In the project.")
    ] = ProjectRole.DEVELOPER,
    organization: options.Organization = None,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Make an account in the organisation, and add it to a project. An account that is there is only added.

    Example: headwater user add ana@example.org --project Default --project-role annotator
    """
    with connect(data_dir) as client:
        chosen = None if project is None else get_project(client, project)
        place = get_organization(client, organization)
        annotates = chosen is not None and project_role in (ProjectRole.ANNOTATOR, ProjectRole.ANNOTATION_MANAGER)
        given = (role or (Role.WORKER if annotates else Role.MEMBER)).value
        url = f"/orgs/{place['id']}"
        if _is_there(client, place, email, given):
            say(f"{email} has an account and belongs to {place['name']}.")
        else:
            client.post(f"{url}/accounts", {"email": email, "password": password or ask_password(), "role": given})
            say(f"Added {email} as {given}.")
        if chosen is not None:
            path = f"/projects/{chosen['id']}/members/{quote(email, safe='')}"
            client.post(path, {"role": project_role.value})
            say(f"{email} is {project_role.value} in project {chosen['name']}.")


def _is_there(client: Client, organization: dict[str, Any], email: str, role: str) -> bool:
    """A member already, or an account that was made one now, which only the operator may do unasked."""
    url = f"/orgs/{organization['id']}/members"
    if email.lower() in {member["email"].lower() for member in client.get(url)}:
        return True
    if "operator" not in organization["roles"]:
        return False
    try:
        client.post(url, {"emails": [email], "role": role})
    except NotFound:
        return False
    return True


def ask_password() -> str:
    """Raises BadRequest when there is nobody to ask."""
    if sys.stdin.isatty():
        return typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise BadRequest("The account needs a password. Give --password, or write it to the command's input.")
    return password


@user_app.command("invite")
def invite_command(
    email: Email,
    role: Annotated[Role, typer.Option("--role", help="In the organisation.")] = Role.MEMBER,
    organization: options.Organization = None,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Ask somebody to join. Who shares an organisation with you joins at once; others accept first.

    Example: headwater user invite ana@example.org --org Labelling --role worker
    """
    with connect(data_dir) as client:
        place = get_organization(client, organization)
        members = client.post(f"/orgs/{place['id']}/members", {"emails": [email], "role": role.value})
    if email.lower() in {member["email"].lower() for member in members}:
        say(f"{email} is {role.value} in {place['name']}.")
    else:
        say(f"Invited {email} to {place['name']}. Whoever has that account accepts with: headwater invitation ls")


@user_app.command("role")
def role_command(
    email: Email,
    role: Annotated[Role, typer.Argument(help="The new one in the organisation.")],
    organization: options.Organization = None,
    data_dir: options.ServerDataDir = None,
) -> None:
    """Give a member another role in the organisation.

    Example: headwater user role ana@example.org admin
    """
    with connect(data_dir) as client:
        place = get_organization(client, organization)
        client.patch(f"/orgs/{place['id']}/members", {"email": email, "role": role.value})
    say(f"{email} is {role.value} in {place['name']}.")


@user_app.command("remove")
def remove_command(
    email: Email, organization: options.Organization = None, data_dir: options.ServerDataDir = None
) -> None:
    """Put a member out of the organisation and all its projects. What they made stays.

    Example: headwater user remove ana@example.org
    """
    with connect(data_dir) as client:
        place = get_organization(client, organization)
        client.delete(f"/orgs/{place['id']}/members/{quote(email, safe='')}")
    say(f"{email} is no longer in {place['name']}.")


@user_app.command("ls")
def ls_command(
    organization: options.Organization = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """List the people of the organisation.

    Example: headwater user ls
    """
    with connect(data_dir) as client:
        place = get_organization(client, organization)
        found = [
            {"email": member["email"], "role": member["role"], "created_at": member["createdAt"]}
            for member in client.get(f"/orgs/{place['id']}/members")
        ]
    if as_json:
        print_json(found)
        return
    shown = table("E-mail", "Role", "Since")
    for member in found:
        add_row(shown, member["email"], member["role"], (member["created_at"] or "")[:10])
    console.print(shown)
