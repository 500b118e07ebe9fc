"""Tables of figures, in Markdown, from the lines that `python -m bench` printed: on standard input, or in files.

    .venv/bin/python -m bench query peers | .venv/bin/python -m bench.table --into docs/reference/performance.md

`--into` puts them between the two marks of a page; otherwise they are printed. Of two of one name the last counts.
"""

import argparse
import fileinput
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

_BEGIN, _END = "<!-- figures: written by bench.table -->\n", "<!-- end of figures -->\n"
_PEER = "peers."


def run() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.table", description="Figures as tables in Markdown.")
    parser.add_argument("--into", type=Path, help="a page with the two marks")
    parser.add_argument("files", nargs="*", help="what python -m bench printed; standard input by default")
    asked = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    with fileinput.input(asked.files) as lines:
        for line in lines:
            if line.startswith('{"name"'):
                figure = json.loads(line)
                figures[figure["name"]] = figure
    tables = "\n".join(_tables(figures))
    if asked.into is None:
        print(tables)
        return
    page = asked.into.read_text()
    before, _, rest = page.partition(_BEGIN)
    _, mark, after = rest.partition(_END)
    assert mark, f"{asked.into} has not the marks {_BEGIN.strip()} and {_END.strip()}"
    asked.into.write_text(f"{before}{_BEGIN}\n{tables}\n{_END}{after}")


def _tables(figures: dict[str, dict[str, Any]]) -> list[str]:
    memory_gib = psutil.virtual_memory().total / 2**30
    lines = [
        f"Measured on {datetime.now(UTC):%Y-%m-%d}, on {os.cpu_count()} cores and {memory_gib:.0f} GiB of memory.",
        "",
        "| figure | measured | beside it | ratio | asked for | met |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, figure in figures.items():
        if not name.startswith(_PEER):
            lines.append(
                f"| `{name}` | {_number(figure['value'])} {figure['unit']} | {_number(figure['floor'])} |"
                f" {_number(figure['ratio'])} | {figure['target']} | {'yes' if figure['passed'] else 'no'} |"
            )
    if peers := {name: figure for name, figure in figures.items() if name.startswith(_PEER)}:
        lines += [
            "",
            "| database | filters: median, 95th | leading star: median, 95th | 1 % in the order of paths: median |",
            "| --- | ---: | ---: | ---: |",
        ]
        lines += [_peer(name.removeprefix(_PEER), figure["details"]) for name, figure in peers.items()]
    return lines


def _peer(name: str, details: dict[str, Any]) -> str:
    cells = [
        " / ".join(_number(details[kind][cut]) for cut in cuts) + " ms"
        for kind, cuts in (("filters", ("p50_ms", "p95_ms")), ("star", ("p50_ms", "p95_ms")), ("trap", ("p50_ms",)))
    ]
    return f"| {name.replace('_', ', ')} | {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    run()
