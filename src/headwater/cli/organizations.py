"""`headwater org`, `project`, `invitation` and `audit`: organisations, what they own, who joins, who did what."""

from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.finding import get_organization
from headwater.cli.output import add_row, console, print_json, say, table

org_app = typer.Typer(name="org", help="Organisations.", no_args_is_help=True, rich_markup_mode="markdown")
project_app = typer.Typer(name="project", help="Projects.", no_args_is_help=True, rich_markup_mode="markdown")
invitation_app = typer.Typer(
    name="invitation", help="Organisations that ask you to join.", no_args_is_help=True, rich_markup_mode="markdown"
)

_PAGE = 1000
Name = Annotated[str, typer.Argument(metavar="NAME")]
InvitationId = Annotated[str, typer.Argument(metavar="ID", help="As `headwater invitation ls` tells it.")]


@org_app.command("create")
def create_org_command(
    name: Name,
    owner: Annotated[str, typer.Option("--owner", metavar="EMAIL", help="The account that will own it.")],
    data_dir: options.ServerDataDir = None,
) -> None:
    """Create an organisation with an owner of its own. For the operator of the server.

    Example: headwater org create Labelling --owner ana@example.org
    """
    with connect(data_dir) as client:
        made = client.post("/orgs", {"name": name, "owner": owner})
    say(f"Created {made['name']}, which {owner} owns.")


@org_app.command("rename")
def rename_org_command(
    name: Name,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME")],
    data_dir: options.ServerDataDir = None,
) -> None:
    """Give an organisation another name.

    Example: headwater org rename Labelling Annotation
    """
    with connect(data_dir) as client:
        client.patch(f"/orgs/{get_organization(client, name)['id']}", {"name": new_name})
    say(f"{name} is {new_name} now.")


@org_app.command("update")
def update_org_command(
    name: Name,
    forbid_delete: Annotated[
        bool,
        typer.Option(
            "--forbid-delete/--allow-delete",
            help="Whether no object in a bucket is ever deleted, whatever its storage driver says.",
        ),
    ],
    data_dir: options.ServerDataDir = None,
) -> None:
    """Forbid that deleting items deletes objects in buckets, or leave it to the storage drivers.

    Example: headwater org update Labelling --forbid-delete
    """
    with connect(data_dir) as client:
        organization = get_organization(client, name)
        client.patch(f"/orgs/{organization['id']}", {"forbidExternalDelete": forbid_delete})
    if forbid_delete:
        say(f"No storage driver of {organization['name']} deletes objects, whatever it says itself.")
    else:
        say(f"Storage drivers of {organization['name']} delete objects where they are allowed to.")


@org_app.command("ls")
def ls_org_command(data_dir: options.ServerDataDir = None, as_json: options.AsJson = False) -> None:
    """List your organisations; the operator sees all.

    Example: headwater org ls
    """
    with connect(data_dir) as client:
        found: list[dict[str, Any]] = [
            {
                "id": organization["id"],
                "name": organization["name"],
                "roles": organization["roles"],
                "members": len(organization["members"]),
                "created_at": organization["createdAt"],
            }
            for organization in client.get("/orgs")
        ]
    if as_json:
        print_json(found)
        return
    shown = table("Organisation", "Your roles", "People", numbers=("People",))
    for one in found:
        add_row(shown, one["name"], ", ".join(one["roles"]), one["members"])
    console.print(shown)


@project_app.command("create")
def create_project_command(
    name: Name, organization: options.Organization = None, data_dir: options.ServerDataDir = None
) -> None:
    """Create a project, which you own.

    Example: headwater project create Trucks --org Labelling
    """
    with connect(data_dir) as client:
        body = {"name": name}
        if organization is not None:
            body["orgId"] = get_organization(client, organization)["id"]
        made = client.post("/projects", body)
    say(f"Created project {made['name']} in {made['org']['name']}.")


@invitation_app.command("ls")
def ls_invitation_command(data_dir: options.ServerDataDir = None, as_json: options.AsJson = False) -> None:
    """List the organisations that ask you to join.

    Example: headwater invitation ls
    """
    with connect(data_dir) as client:
        found = [
            {
                "id": one["id"],
                "organization": one["org"]["name"],
                "role": one["role"],
                "invited_by": one["creator"],
                "created_at": one["createdAt"],
            }
            for one in client.get("/invitations")
        ]
    if as_json:
        print_json(found)
        return
    if not found:
        say("Nobody asks you to join.")
        return
    shown = table("Id", "Organisation", "Role", "Invited by")
    for one in found:
        add_row(shown, one["id"], one["organization"], one["role"], one["invited_by"])
    console.print(shown)


@invitation_app.command("accept")
def accept_command(invitation: InvitationId, data_dir: options.ServerDataDir = None) -> None:
    """Join the organisation.

    Example: headwater invitation accept 00000000000000000000000a
    """
    with connect(data_dir) as client:
        accepted = client.post(f"/invitations/{invitation}/accept")
    say(f"You are {accepted['role']} in {accepted['org']['name']}.")


@invitation_app.command("decline")
def decline_command(invitation: InvitationId, data_dir: options.ServerDataDir = None) -> None:
    """Do not join.

    Example: headwater invitation decline 00000000000000000000000a
    """
    with connect(data_dir) as client:
        client.delete(f"/invitations/{invitation}")
    say("Declined.")


def audit_command(
    organization: options.Organization = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most entries to list.")] = 100,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show who changed members, keys, integrations and drivers, and who deleted what, the latest first.

    Example: headwater audit --org Headwater --limit 20
    """
    found: list[dict[str, Any]] = []
    with connect(data_dir) as client:
        url = f"/orgs/{get_organization(client, organization)['id']}/audit"
        before: dict[str, str] = {}
        while len(found) < limit:
            page = client.get(url, limit=str(min(_PAGE, limit - len(found))), **before)
            if not page:
                break
            found += page
            before = {"before": page[-1]["id"]}
    entries = [
        {
            "id": entry["id"],
            "created_at": entry["createdAt"],
            "actor": entry["actor"],
            "action": entry["action"],
            "target": entry["target"],
            "project_id": entry["projectId"],
            "details": entry["details"],
        }
        for entry in found
    ]
    if as_json:
        print_json(entries)
        return
    shown = table("When (UTC)", "Who", "What", "Which", "Details")
    for entry in entries:
        details = ", ".join(
            f"{name}: {value}" for name, value in entry["details"].items() if value not in (None, "", [])
        )
        at = entry["created_at"][:19].replace("T", " ")
        add_row(shown, at, entry["actor"], entry["action"], entry["target"], details)
    console.print(shown)
