"""`headwater doctor`: tries on a bucket what its driver does with it, and prints what to change."""

from typing import Any

import typer

from headwater.cli import options
from headwater.cli.client import connect
from headwater.cli.drivers import DriverName, Project, find_driver
from headwater.cli.output import add_row, console, print_json, say, table

_SIGNS = {True: "✓", False: "✗", None: "–"}


def doctor_command(
    driver: DriverName,
    project: Project = None,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Try on a bucket all that its storage driver does with it: ✓ it may, ✗ it may not, – not tried.

    For what is missing it prints the smallest policy that allows it, ready to paste. The exit code is 1 when listing,
    reading or writing fails. Nothing but a small test object under .dataloop/ is written.

    Example: headwater doctor photos --project Default
    """
    with connect(data_dir) as client:
        found = find_driver(client, driver, project)
        report = client.post(f"/drivers/{found['id']}/validate")
    if as_json:
        print_json(report)
    else:
        _show(found, report)
    if not report["ok"]:
        raise typer.Exit(1)


def _show(driver: dict[str, Any], report: dict[str, Any]) -> None:
    shown = table("", "Check", "Call", "What was found")
    for check in report["checks"]:
        name = check["name"].replace("_", " ")
        add_row(shown, _SIGNS[check["ok"]], name, _call(check), check["message"] or "")
    console.print(shown)
    _show_policies(report)
    verdict = "works" if report["ok"] else "lacks what every driver needs"
    say(f"Driver {driver['name']} {verdict}. {report['calls']} requests in {report['tookMs'] / 1000:.1f} s.")


def _call(check: dict[str, Any]) -> str:
    return " ".join(part for part in (check["call"], check["code"]) if part)


def _show_policies(report: dict[str, Any]) -> None:
    """Each one once: several checks may need the same."""
    policies: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for check in report["checks"]:
        if check["policy"] is not None:
            policies.setdefault(check["policy"]["text"], ([], check["policy"]))[0].append(check["name"])
    for names, policy in policies.values():
        say(f"To allow {', '.join(name.replace('_', ' ') for name in names)}. {policy['hint']}")
        say()
        if policy["command"]:
            say(policy["command"])
        else:
            print_json(policy["document"])
        say()
