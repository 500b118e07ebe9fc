"""How the command line speaks: tables for people, JSON for scripts, errors as one sentence."""

import sys
from typing import Any, NoReturn

import orjson
from rich.console import Console

console = Console()
complaints = Console(stderr=True)


def fail(sentence: str, code: int = 1) -> NoReturn:
    """Say what is wrong on the error channel and end."""
    complaints.print(f"[bold red]Error:[/] {sentence}", soft_wrap=True, highlight=False, markup=True)
    sys.exit(code)


def print_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")
