"""Following a sync and its preprocessing on the terminal, from the server's news about committed rows."""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from headwater.cli.client import Client
from headwater.cli.output import age, complaints, console, counted, note
from headwater.errors import HeadwaterError, Unavailable

ENDED = ("success", "failed", "canceled", "aborted", "timeout")
NEEDS_CONFIRMATION = 3  # exit code

_POLL_EVERY_S = 0.5
_SILENT_FOR_S = 40.0  # the server gives a sign of life every 15 seconds
_LOST_AFTER = 20  # failed tries in a row
_PLAIN_LINE_EVERY_S = 5.0
_STALLED_AFTER_S = 150.0  # longer than one file may take


@dataclass(frozen=True, slots=True)
class State:
    command: dict[str, Any]
    dataset: dict[str, Any]


def watch(client: Client, dataset_id: str, command_id: str) -> Generator[State]:
    """The state now, and again whenever it changes or some time passed; endless, to be closed.

    Raises HeadwaterError when the server stays away.
    """
    failures = 0
    while True:
        try:
            for state in _stream(client, dataset_id, command_id):
                failures = 0
                yield state
        except Unavailable:
            failures += 1
            if failures >= _LOST_AFTER:
                raise
        except HeadwaterError:  # a server or a proxy without streams
            yield _read(client, dataset_id, command_id)
        time.sleep(_POLL_EVERY_S)


def _read(client: Client, dataset_id: str, command_id: str) -> State:
    return State(client.get(f"/commands/{command_id}"), client.get(f"/datasets/{dataset_id}"))


def _stream(client: Client, dataset_id: str, command_id: str) -> Iterator[State]:
    with client.lines("/notifications/stream", silent_for_s=_SILENT_FOR_S, dataset=dataset_id) as lines:
        state = None
        kind = ""
        for line in lines:
            if line.startswith(":"):  # connected, or still here: nothing is missed from now on
                state = _read(client, dataset_id, command_id)
                yield state
            elif line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and state is not None:
                state = _after(state, kind, orjson.loads(line.removeprefix("data: ")))
                yield state


def _after(state: State, kind: str, data: dict[str, Any]) -> State:
    if kind == "command" and data["id"] == state.command["id"]:
        return State(data, state.dataset)
    if kind == "dataset" and data["id"] == state.dataset["id"]:
        return State(state.command, data)
    return state


class Line:
    """One line of progress: a bar on a terminal; elsewhere a line of text now and then, none for what is quick."""

    def __init__(self, title: str, bar: Progress | None) -> None:
        self._title = title
        self._bar = bar
        self._task = None if bar is None else bar.add_task(escape(title), total=100, facts="")
        self._told_at = time.monotonic()

    def show(self, percent: float, facts: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=percent, facts=escape(facts))
        elif time.monotonic() - self._told_at >= _PLAIN_LINE_EVERY_S:
            self._told_at = time.monotonic()
            note(f"{self._title}: {facts}")


@contextmanager
def progress_line(title: str) -> Generator[Line]:
    if not (complaints.is_terminal and console.is_terminal):
        yield Line(title, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[facts]}"))
    with Progress(*columns, console=complaints, transient=True) as bar:
        yield Line(title, bar)


def follow_sync(client: Client, dataset: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Show the sync until it has ended; returns its command."""
    return follow(client, dataset, command, f"Syncing {dataset['name']}", sync_facts)


def follow(
    client: Client,
    dataset: dict[str, Any],
    command: dict[str, Any],
    title: str,
    facts: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Show a command until it has ended; returns it."""
    with progress_line(title) as line, closing(watch(client, dataset["id"], command["id"])) as states:
        for state in states:
            command = state.command
            line.show(command["progress"], facts(command) + stall_words(command))
            if command["status"] in ENDED:
                break
    return command


def stall_words(command: dict[str, Any]) -> str:
    """What to say of one that hangs: nothing of the others."""
    since = command["spec"].get("stalledSince")
    if since is None:
        return ""
    trouble = command["spec"].get("trouble")
    return f"; no progress, the last was {age(since)}" + (f": {trouble}" if trouble else "")


def sync_facts(command: dict[str, Any]) -> str:
    found = command["spec"].get("sync") or {}
    if not found and command["spec"].get("gathered"):
        return f"{counted(command['spec']['gathered'], 'object')} gathered, because the store lists out of order"
    if not found:
        return "no object listed yet" if command["status"] not in ENDED else "no object listed"
    words = [f"{counted(found['listed'], 'object')} listed"]
    names = {
        "created": "new",
        "changed": "changed",
        "unchanged": "unchanged",
        "returned": "back again",
        "keptDeleted": "deleted here",
        "skipped": "skipped",
        "missing": "missing",
        "moved": "moved",
    }
    words += [f"{found[key]:,} {name}" for key, name in names.items() if found.get(key)]
    if found.get("objectsPerSecond") is not None:
        words.append(f"{found['objectsPerSecond']:,}/s")
    if found.get("secondsLeft") is not None:
        words.append(f"{duration(found['secondsLeft'])} left")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """As people say it, in the two largest units."""
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest_s} s" if minutes else f"{rest_s} s"


def needs_confirmation(command: dict[str, Any]) -> bool:
    """Whether the brake held: much is missing, and nothing was marked."""
    found = command["spec"].get("sync") or {}
    return command["status"] == "success" and bool(found.get("held")) and not found.get("incomplete")


def follow_preprocessing(client: Client, dataset: dict[str, Any], command: dict[str, Any]) -> dict[str, Any]:
    """Show the preprocessing until nothing waits, or nothing has moved for long; returns the dataset."""
    moved_at, before = time.monotonic(), -1
    with (
        progress_line(f"Reading {dataset['name']}") as line,
        closing(watch(client, dataset["id"], command["id"])) as states,
    ):
        for state in states:
            dataset = state.dataset
            counts = dataset["counts"]
            done = counts["preprocessed"] + counts["failed"]
            line.show(100 * done / (done + counts["waiting"]) if counts["waiting"] else 100, reading_facts(counts))
            if done != before:
                moved_at, before = time.monotonic(), done
            if not counts["waiting"] or time.monotonic() - moved_at > _STALLED_AFTER_S:
                break
    return dataset


def reading_facts(counts: dict[str, Any]) -> str:
    done = counts["preprocessed"] + counts["failed"]
    facts = f"{done:,} of {counted(done + counts['waiting'], 'file')} read"
    return facts + (f", {counts['failed']:,} unreadable" if counts["failed"] else "")
