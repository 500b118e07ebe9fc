"""`headwater user password`: a new password for somebody who has lost theirs, by the operator."""

from typing import Annotated

import typer

from headwater.cli import options
from headwater.cli.options import settings_with
from headwater.cli.output import say
from headwater.cli.users import ask_password


def password_command(
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The e-mail address of the account.")],
    data_dir: options.DataDir = None,
) -> None:
    """Set an account's password. Asks for it, or reads it from the input; needs no old one, but the data directory.

    Example: headwater user password ana@example.org --data-dir ~/headwater
    """
    from headwater.installation import set_password  # noqa: PLC0415

    set_password(settings_with(data_dir), email, ask_password())
    say(f"{email} has a new password. Whoever was logged in with the old one logs in again; API keys stay good.")
