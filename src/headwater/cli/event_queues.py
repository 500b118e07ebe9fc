"""`headwater events queue`: the queue that a cloud puts a bucket's events into."""

from typing import Annotated, Any

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.drivers import Project, SourceName, find_source
from headwater.cli.output import age, print_json, say, warn
from headwater.errors import BadRequest


def queue_command(
    driver: SourceName,
    queue: Annotated[
        str | None, typer.Argument(metavar="[QUEUE]", help="URL of the queue of SQS, or name of the queue of Azure.")
    ] = None,
    project: Project = None,
    endpoint: Annotated[
        str | None,
        typer.Option("--endpoint", metavar="URL", help="Of Azure queues that are not at Azure itself; for admins."),
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Keep the queue, but do not read it.")] = False,
    on: Annotated[bool, typer.Option("--on", help="Read it again.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the queue; it stays as it is in the cloud.")] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show how reading the queue goes, or name the queue that a bucket's events come through.

    Example: headwater events queue photos https://sqs.eu-west-1.amazonaws.com/123456789012/photos-events
    """
    if off + on + remove > 1 or (remove and queue):
        raise BadRequest("Give one of --on, --off and --remove; --remove takes no queue.")
    with connect(data_dir) as client:
        found = find_source(client, driver, project)
        path = f"/drivers/{found['id']}/events/queue"
        if remove:
            told = client.delete(path)
        elif queue or off or on or endpoint:
            told = client.put(path, _body(client.get(path), found, queue, endpoint, active=not off))
        else:
            told = client.get(path)
    if as_json:
        print_json(queue_json(told))
    else:
        _show(found["name"], told)


def _body(
    known: dict[str, Any], driver: dict[str, Any], queue: str | None, endpoint: str | None, *, active: bool
) -> dict[str, Any]:
    """What is not given stays as it is. Raises BadRequest."""
    is_url = queue is not None and "://" in queue
    if queue is None and known["type"] is None:
        raise BadRequest(f"Driver {driver['name']!r} has no queue yet. Name it: its URL, or its name at Azure.")
    body = {
        "url": queue if is_url else known["url"] if queue is None else None,
        "name": (queue if not is_url else None) if queue is not None else known["name"],
        "endpoint": endpoint or (known["endpoint"] if not is_url else None),
        "active": active,
    }
    return {name: value for name, value in body.items() if value is not None}


def queue_json(told: dict[str, Any]) -> dict[str, Any]:
    return {
        "driver_id": told["driverId"],
        "type": told["type"],
        "queue": told["url"] or told["name"],
        "endpoint": told["endpoint"],
        "active": told["active"],
        "state": told["state"],
        "error": told["error"],
        "failures": told["failures"],
        "read_at": told["readAt"],
        "received_at": told["receivedAt"],
        "messages": told["messages"],
        "unreadable": told["unreadable"],
    }


_STATES = {
    "off": "switched off",
    "failing": "failing",
    "reading": "a worker reads it",
    "waiting": "no worker reads it: the driver's events are off, or no worker runs",
}


def _show(name: str, told: dict[str, Any]) -> None:
    if told["type"] is None:
        say(
            f"No queue is read for driver {name}. What to make in the cloud: "
            f"headwater events setup {name!r} --via queue"
        )
        return
    say(f"{name}: {queue_state(told)}")
    say(f"  read {age(told['readAt'])}; last message {age(told['receivedAt'])}; {told['messages']:,} in all")
    warn_of_queue(told)


def queue_state(told: dict[str, Any]) -> str:
    """Which queue, and whether it is read."""
    return f"{told['url'] or told['name']} ({_STATES[told['state']]})"


def warn_of_queue(told: dict[str, Any]) -> None:
    """What is wrong with it, if anything is."""
    if told["unreadable"]:
        warn(f"{told['unreadable']:,} of its messages were no events of a bucket.")
    if told["error"]:
        warn(told["error"])
