"""Write docs/compatibility.md: which routes of the installed SDK are answered, refused on purpose, or open.

Runs in the environment that holds the SDK. Our own routes come from the OpenAPI document that
`.venv/bin/headwater openapi` prints, what is refused from compatibility.toml beside this file. `--check`
writes nothing and ends with 1 when the page is not what would be written.
"""

import argparse
import difflib
import fnmatch
import importlib.metadata
import importlib.util
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdk_routes import API_PREFIX, METHODS, Call, find_calls

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "compatibility.md"
DECISIONS = ROOT / "tools" / "compatibility.toml"
OPENAPI_COMMAND = (".venv/bin/headwater", "openapi")
SDK = "dtlpy"

Route = tuple[str, str]  # path with {} for a variable segment, method; in the order of the page


@dataclass(frozen=True)
class Refusal:
    pattern: str  # "METHOD path", * for any text
    why: str


@dataclass(frozen=True)
class Unresolved:
    site: str
    expression: str
    routes: tuple[Route, ...]
    why: str


@dataclass(frozen=True)
class Decisions:
    refusals: tuple[Refusal, ...]
    unresolved: tuple[Unresolved, ...]


@dataclass(frozen=True)
class Row:
    route: Route
    sites: tuple[str, ...]
    state: str  # answered, refused or open
    why: str  # of a refusal


class WrongError(Exception):
    """The page cannot be written; the text says what to do about it."""


def main() -> None:
    arguments = _parser().parse_args()
    try:
        page = build_page(arguments.openapi, arguments.decisions)
        if arguments.check:
            _check(arguments.page, page)
        else:
            arguments.page.write_text(page, encoding="utf-8")
    except WrongError as error:
        sys.exit(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    parser.add_argument("--openapi", type=Path, help="read our routes from this file, not from the command")
    parser.add_argument("--decisions", type=Path, default=DECISIONS, help="the table of refusals")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write or to check")
    return parser


def _check(path: Path, page: str) -> None:
    written = path.read_text(encoding="utf-8") if path.exists() else ""
    if written == page:
        return
    lines = difflib.unified_diff(written.splitlines(), page.splitlines(), "written", "wanted", lineterm="", n=0)
    first = "\n".join(itertools.islice(lines, 20))
    raise WrongError(f"{path} is stale. Write it anew with `make reference`.\n{first}")


def build_page(openapi: Path | None, decisions_path: Path) -> str:
    calls = find_calls(_sdk_sources())
    decisions = _read_decisions(decisions_path)
    _match_unresolved(calls, decisions)
    rows = _rows(_sdk_routes(calls, decisions), our_routes(_openapi(openapi)), decisions.refusals)
    return render(importlib.metadata.version(SDK), rows, calls, decisions.unresolved)


def _sdk_sources() -> dict[str, str]:
    """The SDK's modules, found without running them: path in the package -> text."""
    spec = importlib.util.find_spec(SDK)
    if spec is None or spec.origin is None:
        raise WrongError(f"{sys.executable} has no {SDK}. Run .venv-sdk/bin/python tools/compatibility.py.")
    root = Path(spec.origin).parent
    return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in sorted(root.rglob("*.py"))}


def _read_decisions(path: Path) -> Decisions:
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return Decisions(
        tuple(Refusal(pattern, entry["why"]) for entry in table["refused"] for pattern in entry["routes"]),
        tuple(
            Unresolved(entry["site"], entry["path"], tuple(map(_route, entry["routes"])), entry["why"])
            for entry in table["unresolved"]
        ),
    )


def _route(text: str) -> Route:
    method, path = text.split(" ")
    return path, method


def _is_unresolved(call: Call) -> bool:
    return call.path is None or call.method not in METHODS


def _match_unresolved(calls: Sequence[Call], decisions: Decisions) -> None:
    """Raises WrongError when the table does not say what each unresolved request is, or says more."""
    explained = {(entry.site, entry.expression) for entry in decisions.unresolved}
    unresolved = [call for call in calls if _is_unresolved(call)]
    unexplained = [
        f"  {call.file}:{call.line}: {call.method} path={call.expression} in {call.site}"
        for call in unresolved
        if (call.site, call.expression) not in explained
    ]
    if unexplained:
        listed = "\n".join(unexplained)
        raise WrongError(
            f"The path of these requests of the SDK cannot be read from its sources:\n{listed}\n"
            "Say in [[unresolved]] of tools/compatibility.toml which routes they reach."
        )
    for site, expression in sorted(explained - {(call.site, call.expression) for call in unresolved}):
        raise WrongError(
            f"tools/compatibility.toml explains path={expression} in {site}, "
            "but the SDK has no such unresolved request. Take the entry away."
        )


def _sdk_routes(calls: Sequence[Call], decisions: Decisions) -> dict[Route, set[str]]:
    """Route -> who calls it, with what the table says about unresolved requests."""
    found: dict[Route, set[str]] = {}
    for call in calls:
        if call.path is not None and not _is_unresolved(call):
            found.setdefault((call.path, call.method), set()).add(call.site)
    for entry in decisions.unresolved:
        for route in entry.routes:
            found.setdefault(route, set()).add(entry.site)
    return found


def _openapi(path: Path | None) -> dict[str, Any]:
    if path is not None:
        return json.loads(path.read_text(encoding="utf-8"))
    command = " ".join(OPENAPI_COMMAND)
    try:
        run = subprocess.run(
            [ROOT / OPENAPI_COMMAND[0], *OPENAPI_COMMAND[1:]], cwd=ROOT, capture_output=True, check=True
        )
        return json.loads(run.stdout)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise WrongError(f"`{command}` failed with {error.returncode}: {said}") from error
    except OSError as error:
        raise WrongError(f"`{command}` cannot be started: {error}. Run `make setup`.") from error
    except ValueError as error:
        raise WrongError(f"`{command}` printed no JSON: {error}") from error


def our_routes(document: Mapping[str, Any]) -> set[Route]:
    """The routes of an OpenAPI document; a parameter with a closed list of values stands for each of them."""
    found: set[Route] = set()
    for path, operations in document["paths"].items():
        for method in operations.keys() & {name.lower() for name in METHODS}:
            parameters = [*operations.get("parameters", []), *operations[method].get("parameters", [])]
            choices = {
                parameter["name"]: list(_choices(document, parameter.get("schema", {})))
                for parameter in parameters
                if parameter.get("in") == "path"
            }
            found.update((one, method.upper()) for one in _spelled_out(path, choices))
    return found


def _choices(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        for name in schema["$ref"].removeprefix("#/").split("/"):
            schema = document = document[name]
    yield from schema.get("enum", [])
    if "const" in schema:
        yield schema["const"]


def _spelled_out(path: str, choices: Mapping[str, Sequence[str]]) -> Iterator[str]:
    segments = [
        (choices.get(segment[1:-1]) or ["{}"])
        if re.fullmatch(r"\{\w+\}", segment)
        else ["{}" if "{" in segment else segment]
        for segment in path.split("/")
    ]
    return map("/".join, itertools.product(*segments))


def _rows(sdk: Mapping[Route, set[str]], ours: set[Route], refusals: Sequence[Refusal]) -> list[Row]:
    """Raises WrongError for a refusal that fits nothing, or that is answered."""
    rows: list[Row] = []
    unused = {refusal.pattern for refusal in refusals}
    for route in sorted(sdk):
        path, method = route
        fitting = [refusal for refusal in refusals if fnmatch.fnmatchcase(f"{method} {path}", refusal.pattern)]
        unused -= {refusal.pattern for refusal in fitting}
        if fitting and route in ours:
            raise WrongError(
                f"{method} {path} is answered, but tools/compatibility.toml refuses it: {fitting[0].pattern}"
            )
        if len(fitting) > 1:
            both = " and ".join(refusal.pattern for refusal in fitting)
            raise WrongError(f"{method} {path} is refused twice in tools/compatibility.toml: {both}")
        state = "answered" if route in ours else "refused" if fitting else "open"
        rows.append(Row(route, tuple(sorted(sdk[route])), state, fitting[0].why if fitting else ""))
    for pattern in sorted(unused):
        raise WrongError(f"tools/compatibility.toml refuses {pattern}, but the SDK has no such route.")
    return rows


def render(version: str, rows: Sequence[Row], calls: Sequence[Call], unresolved: Sequence[Unresolved]) -> str:
    parts = [_introduction(version, rows)]
    for noun, group in itertools.groupby(sorted(rows, key=lambda row: (_noun(row), row.route)), key=_noun):
        parts.append(_noun_table(noun, list(group)))
    parts.append(_unresolved_table(calls, unresolved))
    return "\n".join(parts)


def _introduction(version: str, rows: Sequence[Row]) -> str:
    count = {state: sum(row.state == state for row in rows) for state in ("answered", "refused", "open")}
    return f"""\
<!-- Written by `make reference`. Change tools/compatibility.toml or the server, not this page. -->

# Compatibility

Every route that the SDK `{SDK}` {version} can call, read from its sources, and what Headwater does with it.
`{{}}` stands for a variable part; queries are left out.

| state | routes | meaning |
| --- | ---: | --- |
| answered | {count["answered"]} | works |
| refused | {count["refused"]} | left out on purpose, for the reason given |
| open | {count["open"]} | in scope and not built yet |
| **all** | **{len(rows)}** | |
"""


def _noun(row: Row) -> str:
    path, _ = row.route
    if not path.startswith(f"{API_PREFIX}/"):
        return "Signing in"
    return path.removeprefix(f"{API_PREFIX}/").partition("/")[0]


def _noun_table(noun: str, rows: Sequence[Row]) -> str:
    lines = [f"## {noun}", "", "| method | path | called by | state |", "| --- | --- | --- | --- |"]
    for row in rows:
        path, method = row.route
        sites = ", ".join(f"`{site}`" for site in row.sites)
        state = f"refused: {row.why}" if row.state == "refused" else row.state
        lines.append(f"| {method} | `{path}` | {sites} | {state} |")
    return "\n".join([*lines, ""])


def _unresolved_table(calls: Sequence[Call], unresolved: Sequence[Unresolved]) -> str:
    lines = [
        "## Requests without a fixed path",
        "",
        "Only a run can tell where these go; what they reach was found by reading.",
        "",
        "| method | called by | path in the source | reaches | what it is |",
        "| --- | --- | --- | --- | --- |",
    ]
    for entry in sorted(unresolved, key=lambda entry: (entry.site, entry.expression)):
        methods = {
            "any" if call.method == "?" else call.method
            for call in calls
            if _is_unresolved(call) and (call.site, call.expression) == (entry.site, entry.expression)
        }
        reaches = ", ".join(f"`{method} {path}`" for path, method in entry.routes) or "no route of its own"
        cells = (", ".join(sorted(methods)), f"`{entry.site}`", f"`{entry.expression}`", reaches, entry.why)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
