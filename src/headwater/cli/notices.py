"""`headwater notices`: what happened to what is yours, and what happens now."""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.markup import escape

from headwater.cli import options
from headwater.cli.client import Client, connect
from headwater.cli.finding import get_dataset, get_project
from headwater.cli.output import add_row, console, print_json, say, table
from headwater.errors import BadRequest, Unavailable

_SILENT_FOR_S = 40.0  # the server gives a sign of life every 15 seconds
_LOST_AFTER = 20  # failed tries in a row
_TRY_AGAIN_S = 1.0
_COLORS = {"info": "default", "warning": "yellow", "error": "red"}


class Level(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def notices_command(
    project: Annotated[str | None, typer.Option("--project", metavar="NAME", help="Only of this project.")] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", metavar="NAME", help="Only of this dataset.")] = None,
    level: Annotated[list[Level] | None, typer.Option("--level", help="Only of this level; may be repeated.")] = None,
    unread: Annotated[bool, typer.Option("--unread", help="Only what you have not read.")] = False,
    mark_read: Annotated[
        bool, typer.Option("--mark-read", help="Mark what is shown, and all before it, read.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many, the latest first.")] = 20,
    data_dir: options.ServerDataDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what you are told: syncs and other work that began, ended, failed or hang, and what owners should know.

    Of work that has ended only the end is shown. * is what you have not read.

    Example: headwater notices --unread --mark-read
    """
    if follow and mark_read:
        raise BadRequest("Give one of --follow and --mark-read.")
    with connect(data_dir) as client:
        wanted = _Wanted(client, project, dataset, level or [])
        params = wanted.params | {"limit": str(limit)} | ({"unread": "true"} if unread else {})
        if follow:
            _follow(client, wanted, params, as_json=as_json)
            return
        found = client.get("/notifications", **params)
        if mark_read and found:
            client.post("/notifications/read", wanted.body | {"until": found[0]["id"]})
    if as_json:
        print_json(found)
    elif not found:
        say("There is nothing to tell.")
    else:
        _show(found)


class _Wanted:
    """What of all was asked for. Raises NotFound."""

    def __init__(self, client: Client, project: str | None, dataset: str | None, levels: Iterable[Level]) -> None:
        self.body: dict[str, str] = {}
        if project is not None:
            self.body["project"] = get_project(client, project)["id"]
        if dataset is not None:
            self.body["dataset"] = get_dataset(client, dataset)["id"]
        self._levels = [level.value for level in levels]

    @property
    def params(self) -> dict[str, Any]:
        return self.body | ({"level": self._levels} if self._levels else {})

    def has(self, notice: dict[str, Any]) -> bool:
        return (
            self.body.get("project") in (None, notice["projectId"])
            and self.body.get("dataset") in (None, notice["datasetId"])
            and (not self._levels or notice["level"] in self._levels)
        )


def _follow(client: Client, wanted: _Wanted, params: dict[str, Any], *, as_json: bool) -> None:
    shown: set[str] = set()
    show: Callable[[dict[str, Any]], None] = _print_line if as_json else _print
    with closing(_live(client)) as live:
        next(live)  # connected: what comes from now on is not missed
        for notice in reversed(client.get("/notifications", **params)):
            shown.add(notice["id"])
            show(notice)
        for notice in live:
            if notice is not None and notice["id"] not in shown and wanted.has(notice):
                shown.add(notice["id"])
                show(notice)


def _live(client: Client) -> Generator[dict[str, Any] | None]:
    """Each notice as it comes, also those of a time without a connection; None for each connection.

    Raises Unavailable when the server stays away.
    """
    last_id: str | None = None
    failures = 0
    while True:
        headers = {} if last_id is None else {"Last-Event-ID": last_id}
        try:
            with client.lines("/notifications/stream", silent_for_s=_SILENT_FOR_S, headers=headers) as lines:
                failures, kind, notice = 0, "", None
                yield None
                for line in lines:
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data" and kind == "notice":
                        notice = orjson.loads(value)
                    elif name == "id":
                        last_id = value
                    elif not line and notice is not None:
                        yield notice
                        notice = None
        except Unavailable:
            failures += 1
            if failures >= _LOST_AFTER:
                raise
        time.sleep(_TRY_AGAIN_S)


def _print_line(notice: dict[str, Any]) -> None:
    typer.echo(orjson.dumps(notice))


def _print(notice: dict[str, Any]) -> None:
    console.print(
        f"{_when(notice)}  [{_COLORS[notice['level']]}]{notice['level']}[/]  {escape(_words(notice))}", soft_wrap=True
    )


def _show(found: list[dict[str, Any]]) -> None:
    shown = table("When", "", "Project", "What")
    for notice in found:
        mark = "" if notice["read"] else " *"
        add_row(shown, _when(notice), notice["level"] + mark, notice["projectName"] or "", _words(notice))
    console.print(shown)


def _when(notice: dict[str, Any]) -> str:
    return notice["createdAt"][:16].replace("T", " ")


def _words(notice: dict[str, Any]) -> str:
    return f"{notice['title']}. {notice['message']}" if notice["message"] else f"{notice['title']}."
