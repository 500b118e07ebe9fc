"""Commands that start a server, or need none: serve, api, worker, token, sdk, openapi."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from headwater import __version__
from headwater.app import create_app
from headwater.cli.output import console, print_json
from headwater.cli.server_file import read_server_file
from headwater.installation import open_installation, token_for
from headwater.settings import Settings
from headwater.supervisor import serve
from headwater.worker import run_worker

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Where Headwater keeps its own data.", envvar="HEADWATER_DATA_DIR"),
]


def settings_with(data_dir: Path | None, **given: Any) -> Settings:
    """The environment's settings, with what was given on the command line over them."""
    return Settings(**{name: value for name, value in {"data_dir": data_dir, **given}.items() if value is not None})


def add_commands(app: typer.Typer) -> None:
    app.command("serve")(serve_command)
    app.command("worker")(worker_command)
    app.command("token")(token_command)
    app.command("sdk")(sdk_command)
    app.command("openapi")(openapi_command)
    app.command("version")(version_command)


def serve_command(
    data_dir: DataDir = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.  [default: 8080]")] = None,
) -> None:
    """Run Headwater on this machine: database, API and a worker, until SIGTERM or Ctrl-C.

    Example: headwater serve --data-dir ~/headwater --port 8080
    """
    raise typer.Exit(serve(settings_with(data_dir, host=host, port=port)))


def worker_command(data_dir: DataDir = None) -> None:
    """Run one more worker against an external database (HEADWATER_DATABASE_URL).

    Example: HEADWATER_DATABASE_URL=postgresql://… headwater worker
    """
    settings = settings_with(data_dir)
    with open_installation(settings) as installation:
        asyncio.run(run_worker(settings, installation.database_url))


def token_command(
    data_dir: DataDir = None,
    email: Annotated[str | None, typer.Option(help="Whose token; the owner's by default.")] = None,
) -> None:
    """Print a bearer token, which the SDK takes as well (dl.login_token).

    Example: headwater token --data-dir ~/headwater --email ana@example.org
    """
    print(token_for(settings_with(data_dir), email))  # noqa: T201 - for scripts: nothing but the token


def sdk_command(data_dir: DataDir = None) -> None:
    """Print the Python lines that point the dtlpy SDK at this server."""
    settings = settings_with(data_dir)
    url = read_server_file(settings.data_dir) or f"http://{settings.host}:{settings.port}"
    print(sdk_snippet(url))  # noqa: T201 - to be pasted


def sdk_snippet(url: str, login: str | None = None) -> str:
    login = login or 'dl.login_m2m(email="…", password="…")  # or: dl.login_token("…")'
    return f"""\
import dtlpy as dl

dl.add_environment(environment="{url}/api/v1", alias="headwater", gate_url="{url}", url="{url}/", verify_ssl=False)
dl.setenv("headwater")
{login}"""


def openapi_command() -> None:
    """Print the OpenAPI document of the HTTP API."""
    print_json(create_app(Settings(), "").openapi())


def version_command() -> None:
    """Print the version."""
    console.print(__version__)
