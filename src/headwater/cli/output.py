"""How the command line speaks: tables for people, JSON for scripts, errors as one sentence.

What was asked for goes to the standard output, progress and complaints to the error channel.
"""

import sys
from datetime import UTC, datetime
from typing import Any, NoReturn

import orjson
from rich import box, filesize
from rich.console import Console
from rich.markup import escape
from rich.table import Table

console = Console(highlight=False)
complaints = Console(stderr=True, highlight=False)

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def fail(sentence: str, code: int = 1) -> NoReturn:
    """Say what is wrong on the error channel and end."""
    complain(sentence)
    sys.exit(code)


def complain(sentence: str) -> None:
    complaints.print(f"[bold red]Error:[/] {escape(sentence)}", soft_wrap=True)


def warn(sentence: str) -> None:
    complaints.print(f"[bold yellow]Warning:[/] {escape(sentence)}", soft_wrap=True)


def note(sentence: str) -> None:
    """Progress and asides: on the error channel, so that the output stays what was asked for."""
    complaints.print(escape(sentence), soft_wrap=True)


def say(text: str = "") -> None:
    """Plain text, never wrapped."""
    console.print(escape(text), soft_wrap=True)


def print_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def table(*columns: str, numbers: tuple[str, ...] = (), title: str | None = None) -> Table:
    """`numbers` names the columns that are set to the right."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for name in columns:
        is_id = name == "Id"  # to be copied
        made.add_column(name, justify="right" if name in numbers else "left", overflow="fold", no_wrap=is_id)
    return made


def add_row(made: Table, *cells: object) -> None:
    """Values as they are: nothing in them is taken for markup."""
    made.add_row(*(escape(str(cell)) for cell in cells))


def size(size_bytes: int) -> str:
    return filesize.decimal(size_bytes)


def age(at: str | None) -> str:
    """How long ago a time of the server was, in words."""
    if at is None:
        return "never"
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()))
    for unit_s, unit in ((_DAY_S, "day"), (_HOUR_S, "hour"), (_MINUTE_S, "minute")):
        if seconds >= unit_s:
            return f"{counted(seconds // unit_s, unit)} ago"
    return f"{counted(seconds, 'second')} ago"


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
