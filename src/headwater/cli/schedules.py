"""`headwater schedule`: when a dataset is synced by itself."""

from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset
from headwater.cli.output import age, print_json, say, warn
from headwater.errors import BadRequest


def schedule_command(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset: its name, PROJECT/NAME or its id.")],
    cron: Annotated[
        str | None,
        typer.Argument(metavar='["CRON"]', help="Minute, hour, day of the month, month, day of the week."),
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", metavar="NAME", help="Whose clock: Europe/Berlin. UTC by default.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Keep the schedule, but start nothing.")] = False,
    on: Annotated[bool, typer.Option("--on", help="Switch a schedule on again.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Forget the schedule.")] = False,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show when a dataset is synced by itself, or set it: 0 3 * * * is every day at 03:00.

    Example: headwater schedule photos "0 3 * * *" --timezone Europe/Berlin
    """
    if off + on + remove > 1 or (remove and (cron or timezone)):
        raise BadRequest("Give one of --on, --off and --remove; --remove takes no times.")
    with connect(data_dir) as client:
        found = get_dataset(client, dataset)
        path = f"/datasets/{found['id']}/schedule"
        if remove:
            told = client.delete(path)
        elif cron or timezone or off or on:
            told = _set(client, path, found, cron=cron, timezone=timezone, off=off)
        else:
            told = client.get(path)
    if as_json:
        print_json(_json(told))
    else:
        _show(found["name"], told)


def _set(
    client: Client, path: str, dataset: dict[str, Any], *, cron: str | None, timezone: str | None, off: bool
) -> dict[str, Any]:
    """What is not given stays as it is. Raises BadRequest."""
    known = client.get(path)
    if cron is None and known["cron"] is None:
        raise BadRequest(
            f"{dataset['name']} has no schedule yet. Say when: headwater schedule {dataset['name']!r} '0 3 * * *'"
        )
    body = {
        "cron": cron or known["cron"],
        "timezone": timezone or known["timezone"] or "UTC",
        "active": not off,
    }
    return client.put(path, body)


def _json(told: dict[str, Any]) -> dict[str, Any]:
    last = told["lastRun"]
    return {
        "dataset_id": told["datasetId"],
        "cron": told["cron"],
        "timezone": told["timezone"],
        "active": told["active"],
        "is_default": told["isDefault"],
        "next_runs": told["nextRuns"],
        "last_run": last
        and {
            "at": last["at"],
            "outcome": last["outcome"],
            "message": last["message"],
            "command_id": last["commandId"],
            "status": last["status"],
        },
        "failures": told["failures"],
    }


def _show(name: str, told: dict[str, Any]) -> None:
    if told["cron"] is None:
        say(f"{name} has no schedule. Set one: headwater schedule {name!r} '0 3 * * *' --timezone Europe/Berlin")
        return
    kind = " (by default, because it follows its bucket's events)" if told["isDefault"] else ""
    say(f"{name}: {told['cron']} {told['timezone']}{kind}{'' if told['active'] else ', switched off'}")
    place = ZoneInfo(told["timezone"])
    for run in told["nextRuns"]:
        say(f"  next  {datetime.fromisoformat(run).astimezone(place):%a %Y-%m-%d %H:%M %Z}")
    last = told["lastRun"]
    if last:
        said = ": ".join(part for part in (last["status"] or last["outcome"], last["message"]) if part)
        say(f"  last  {age(last['at'])}: {said}")
    if told["failures"]:
        warn(f"The last scheduled syncs failed, {told['failures']} in a row. Look: headwater status {name!r}")
