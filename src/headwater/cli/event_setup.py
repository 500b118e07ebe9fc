"""`headwater events setup`: what to make in a cloud account."""

import sys
from typing import Annotated

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.drivers import Project, SourceName, find_source
from headwater.cli.output import note, print_json, warn


def setup_command(
    driver: SourceName,
    project: Project = None,
    via: Annotated[
        str | None,
        typer.Option(
            "--via",
            metavar="WAY",
            help="webhook (S3 by SNS, Google Cloud Storage, Azure), queue (S3, Azure), eventbridge (S3); minio, ceph "
            "or seaweedfs. The usual one by default.",
        ),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="KIND", help="commands, terraform, or function: source of a small one.")
    ] = "commands",
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Print what to make in the cloud account so that a bucket tells what happens in it, with the least rights.

    Read it, then run it. It names the hook's address, which is a secret.

    Example: headwater events setup photos --via queue > setup.sh
    """
    with connect(data_dir) as client:
        found = find_source(client, driver, project)
        asked = {"format": format_} | ({"via": via} if via else {})
        told = client.get(f"/drivers/{found['id']}/events/setup", **asked)
    if as_json:
        print_json(
            {"driver_id": told["driverId"], **{name: told[name] for name in ("format", "text", "ways", "warning")}}
        )
        return
    sys.stdout.write(told["text"])
    if told["warning"]:
        warn(told["warning"])
    others = [f"--via {way} --format {kind}" for way, kinds in told["ways"].items() for kind in kinds]
    note(f"Other ways: {', '.join(others)}")
