"""Commands that start a server, or need none: serve, worker, token, openapi, version.

The server's parts take seconds to import, so each command imports what it starts.
"""

import asyncio
from typing import Annotated

import typer

from headwater import __version__
from headwater.cli import options
from headwater.cli.options import settings_with
from headwater.cli.output import print_json, say
from headwater.settings import Settings


def serve_command(
    data_dir: options.DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.  [default: 8080]")] = None,
) -> None:
    """Run Headwater on this machine: database, API and a worker, until SIGTERM or Ctrl-C.

    Example: headwater serve --data-dir ~/headwater --port 8080
    """
    from headwater.supervisor import serve  # noqa: PLC0415

    raise typer.Exit(serve(settings_with(data_dir, host=host, port=port)))


def worker_command(data_dir: options.DataDir = None) -> None:
    """Run one more worker against an external database (HEADWATER_DATABASE_URL).

    Example: HEADWATER_DATABASE_URL=postgresql://… headwater worker
    """
    from headwater.installation import open_installation  # noqa: PLC0415
    from headwater.worker import run_worker  # noqa: PLC0415

    settings = settings_with(data_dir)
    with open_installation(settings) as installation:
        asyncio.run(run_worker(settings, installation.database_url))


def token_command(
    data_dir: options.DataDir = None,
    email: Annotated[str | None, typer.Option(help="Whose token; the owner's by default.")] = None,
) -> None:
    """Print a bearer token, which the SDK takes as well (dl.login_token).

    Example: headwater token --data-dir ~/headwater --email ana@example.org
    """
    from headwater.installation import token_for  # noqa: PLC0415

    print(token_for(settings_with(data_dir), email))  # noqa: T201 - for scripts: nothing but the token


def openapi_command() -> None:
    """Print the OpenAPI document of the HTTP API.

    Example: headwater openapi > openapi.json
    """
    from headwater.app import create_app  # noqa: PLC0415

    print_json(create_app(Settings(), "").openapi())


def version_command() -> None:
    """Print the version.

    Example: headwater version
    """
    say(__version__)
