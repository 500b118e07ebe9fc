"""`headwater events status|on|off|rotate`: whether a driver's events are followed, and how it goes."""

from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.drivers import Project, SourceName, find_source
from headwater.cli.event_queues import queue_json, queue_state, warn_of_queue
from headwater.cli.output import age, note, print_json, say, warn


def status_command(
    driver: SourceName,
    project: Project = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show whether a bucket's events come and are applied.

    Example: headwater events status photos
    """
    with connect(data_dir) as client:
        found = find_source(client, driver, project)
        told = client.get(f"/drivers/{found['id']}/events")
        queue = client.get(f"/drivers/{found['id']}/events/queue")
    if as_json:
        print_json(told | {"queue": queue_json(queue)})
        return
    _show(found["name"], told)
    if queue["type"] is not None:
        say(f"  queue         {queue_state(queue)}")
        warn_of_queue(queue)


def on_command(
    driver: SourceName,
    project: Project = None,
    push_account: Annotated[
        str | None,
        typer.Option(
            "--push-account",
            metavar="EMAIL",
            help="The Google account whose tokens pushes of Pub/Sub have to show; '' for any.",
        ),
    ] = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Take a bucket's events in: its datasets follow them. Prints the secret address to send them to.

    Example: headwater events on photos
    """
    body: dict[str, Any] = {"on": True}
    if push_account is not None:
        body["pushAccount"] = push_account
    _change(driver, project, body, data_dir, as_json=as_json)


def off_command(
    driver: SourceName,
    project: Project = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Take no events in any more, and forget those that wait. Syncs find what changes.

    Example: headwater events off photos
    """
    _change(driver, project, {"on": False}, data_dir, as_json=as_json)


def rotate_command(
    driver: SourceName,
    project: Project = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Give the hook another address. The one before is refused at once: change it in the cloud.

    Example: headwater events rotate photos
    """
    _change(driver, project, {"rotate": True}, data_dir, as_json=as_json)


def _change(
    driver: str, project: str | None, body: dict[str, Any], data_dir: options.DataDir, *, as_json: bool
) -> None:
    with connect(data_dir) as client:
        found = find_source(client, driver, project)
        told = client.patch(f"/drivers/{found['id']}/events", body)
    if as_json:
        print_json(told)
        return
    name = found["name"]
    if not told["on"]:
        note(f"Events of driver {name} are off.")
        return
    note(f"Events of driver {name} are on. What to make in the cloud: headwater events setup {name}")
    say(told["hook"])


def _show(name: str, told: dict[str, Any]) -> None:
    say(f"Events of driver {name} are {'on' if told['on'] else 'off'}.")
    if told["on"]:
        datasets = ", ".join(dataset["name"] for dataset in told["datasets"])
        say(f"  followed by   {datasets or 'no dataset'}")
    say(f"  last event    {age(told['lastEventAt']) if told['lastEventAt'] else 'never'}")
    say(f"  received      {told['received']:,}, besides {told['ignored']:,} of no concern")
    say(f"  applied       {told['applied']:,}, with {told['requests']:,} requests to the bucket")
    waiting = f", the oldest since {age(told['waitingSince'])}" if told["waiting"] else ""
    say(f"  waiting       {told['waiting']:,}{waiting}")
    if told["dropped"]:
        say(f"  given up      {told['dropped']:,}; a sync finds them")
    if told["error"]:
        warn(told["error"])
