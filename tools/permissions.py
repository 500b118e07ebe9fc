"""Writes docs/reference/permissions.md: which role may do what, and which right each route needs.

From the table of catalog/rights.py and from what the routes declare (`x-right` in the OpenAPI document), which
tests/api/test_roles.py holds them to. `--check` only says whether the page is up to date.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from headwater.app import create_app
from headwater.catalog import rights
from headwater.settings import Settings

PAGE = Path(__file__).resolve().parents[1] / "docs/reference/permissions.md"
_METHODS = ("get", "post", "put", "patch", "delete")
_ORGANIZATION_ROLES = ("owner", "admin", "member", "worker", "operator")
_PROJECT_ROLES = get_args(rights.Role)
_WHERE = {"organization": "organisation"}
_NEEDS = {"anybody": "nothing, not even a token", "account": "an account"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the page is up to date")
    page = render(create_app(Settings(), "").openapi())
    if not parser.parse_args().check:
        PAGE.write_text(page, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page:
        sys.exit("docs/reference/permissions.md is not up to date. Run `make reference`.")


def render(document: Mapping[str, Any]) -> str:
    return "\n".join([*_introduction(), *_roles(), *_routes(document)])


def _introduction() -> Iterator[str]:
    yield """\
<!-- Written by `make reference`. Change catalog/rights.py or the routes, not this page. -->

# Permissions

An account has a role in each organisation it belongs to, and one in each project it was added to.
[People](../guide/people.md) says what the roles are for.

- Owners and admins of an organisation count as owners of each of its projects.
- A right in an organisation that a column below gives to a project's role is held by whoever has that role in any
  project of the organisation.
- The operator is an owner of the installation's first organisation. In the other organisations the operator manages
  people and quotas, and sees neither projects nor integrations.
- What you may not know of is answered with 404, what you may not do with 403, a missing or worthless token with 401.
"""


def _roles() -> Iterator[str]:
    yield "## In a project"
    yield ""
    yield from _table(_PROJECT_ROLES, "project")
    yield "## In an organisation"
    yield ""
    yield from _table((*_ORGANIZATION_ROLES, *(f"project {role}" for role in _PROJECT_ROLES)), "organization", "server")


def _table(columns: tuple[str, ...], *scopes: rights.Scope) -> Iterator[str]:
    yield f"| right | to | {' | '.join(columns)} |"
    yield f"| --- | --- |{' :-: |' * len(columns)}"
    for right, rule in rights.RULES.items():
        if rule.scope in scopes:
            in_project = rule.in_project if scopes == ("project",) else [f"project {role}" for role in rule.in_project]
            held = {*in_project, *rule.in_organization}
            cells = " | ".join("yes" if column in held else "" for column in columns)
            yield f"| `{right}` | {rule.words} | {cells} |"
    yield ""


def _routes(document: Mapping[str, Any]) -> Iterator[str]:
    yield "## Routes"
    yield ""
    yield "| route | needs | where |"
    yield "| --- | --- | --- |"
    for path, operations in sorted(document["paths"].items()):
        for method in _METHODS:
            if method in operations:
                right, scope = operations[method]["x-right"], operations[method]["x-scope"]
                where = "" if right in _NEEDS else _WHERE.get(scope, scope)
                yield f"| `{method.upper()} {path}` | {_NEEDS.get(right, f'`{right}`')} | {where} |"
    yield """
A few routes say more than their right:

- Invitations are only ever your own, keys your own or of bots of projects where you hold `manage_bots`.
- Everybody may take themselves out of an organisation or a project.
- Only owners of an organisation make and unmake its owners.
- Who makes an account knows its password: only the operator does, in every organisation; the others invite.
"""


if __name__ == "__main__":
    main()
