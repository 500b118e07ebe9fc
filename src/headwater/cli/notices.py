"""`headwater notices`: what owners and admins were told."""

from typing import Annotated

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.output import add_row, console, print_json, say, table


def notices_command(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the latest first.")] = 20,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what owners and admins were told: drivers that may delete, and other things to know of.

    Example: headwater notices --limit 5
    """
    with connect(data_dir) as client:
        found = client.get("/notifications", limit=str(limit))
    if as_json:
        print_json(found)
    elif not found:
        say("There is nothing to tell.")
    else:
        shown = table("when", "", "what")
        for notice in found:
            when = notice["createdAt"][:16].replace("T", " ")
            add_row(shown, when, notice["level"], f"{notice['title']}. {notice['message']}")
        console.print(shown)
