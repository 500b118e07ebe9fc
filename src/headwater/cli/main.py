"""The command line. `headwater --help` tells; every listing has --json."""

import sys

import typer

from headwater.cli import serving
from headwater.cli.output import fail
from headwater.errors import HeadwaterError

app = typer.Typer(
    name="headwater",
    help="Keep datasets of images, video and other files in step with cloud buckets.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
serving.add_commands(app)


def run() -> None:
    """The entry point: an error that a person can act on is one sentence and exit code 1."""
    try:
        app()
    except HeadwaterError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
