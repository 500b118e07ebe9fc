"""Finding projects and datasets by what people write: a name, PROJECT/NAME or an id."""

import re
import shlex
from collections.abc import Iterable
from typing import Any

from headwater.cli.client import Client
from headwater.cli.output import note
from headwater.errors import BadRequest, Conflict, NotFound

_ID = re.compile(r"[0-9a-f]{24}")
_PAGE = 1000


def list_projects(client: Client) -> list[dict[str, Any]]:
    return client.get("/projects")


def get_organization(client: Client, wanted: str | None) -> dict[str, Any]:
    """By name or id; without, the first one. Raises NotFound, BadRequest when several have the name."""
    found = [each for each in client.get("/orgs") if wanted in (None, each["name"], each["id"])]
    if not found:
        raise NotFound(
            "You belong to no organisation."
            if wanted is None
            else f"There is no organisation {wanted!r} that you may see."
        )
    if wanted is not None and len(found) > 1:
        raise BadRequest(
            f"Several organisations are named {wanted!r}. Give an id: {', '.join(one['id'] for one in found)}"
        )
    return found[0]


def get_project(client: Client, wanted: str) -> dict[str, Any]:
    """By name or id. Raises NotFound."""
    for project in list_projects(client):
        if wanted in (project["name"], project["id"]):
            return project
    raise NotFound(f"There is no project {wanted!r} that you may see. List them: headwater ls")


def ensure_project(client: Client, name: str) -> dict[str, Any]:
    """By name; made if there is none. Raises Conflict for one that the caller may not see."""
    found = [project for project in list_projects(client) if project["name"] == name]
    if found:
        return found[0]
    try:
        made = client.post("/projects", form={"name": name})
    except Conflict:
        raise Conflict(
            f"There is a project {name} that you are not a member of. Ask its owner, or choose another with --project."
        ) from None
    note(f"Made project {name}.")
    return made


def list_datasets(client: Client, project_id: str | None = None, name: str | None = None) -> list[dict[str, Any]]:
    """Those the caller may see."""
    query: dict[str, Any] = {"page": 0, "pageSize": _PAGE}
    if name is not None:
        query["filter"] = {"$and": [{"name": name}]}
    if project_id is not None:
        query["context"] = {"projects": [project_id]}
    found: list[dict[str, Any]] = []
    while True:
        page = client.post("/datasets/query", query)
        found += page["items"]
        if not page["hasNextPage"]:
            return found
        query["page"] += 1


def get_dataset(client: Client, wanted: str) -> dict[str, Any]:
    """By id, by PROJECT/NAME, or by a name that only one dataset has. Raises NotFound, BadRequest."""
    if _ID.fullmatch(wanted):
        return client.get(f"/datasets/{wanted}")
    found = list_datasets(client, name=wanted)
    projects = list_projects(client)
    if len(found) > 1:
        names = {project["id"]: project["name"] for project in projects}
        choices = ", ".join(f"{names.get(dataset['projects'][0], '?')}/{wanted}" for dataset in found)
        raise BadRequest(f"Several datasets are named {wanted}. Say which one: {choices}")
    if found:
        return found[0]
    for project, rest in _starts(projects, wanted):
        if rest and (inside := list_datasets(client, project["id"], rest)):
            return inside[0]
    raise NotFound(
        f"There is no dataset {wanted!r} that you may see. List them: headwater ls PROJECT; make one: "
        f"headwater dataset create {shlex.quote(wanted)}"
    )


def split_place(client: Client, place: str) -> tuple[dict[str, Any], dict[str, Any] | None, str]:
    """The project, the dataset and the folder of PROJECT[/DATASET[/FOLDER]]. Raises NotFound."""
    rest = ""
    for project, rest in _starts(list_projects(client), place):
        if not rest:
            return project, None, "/"
        for dataset, folder in _starts(list_datasets(client, project["id"]), rest):
            return project, dataset, "/" + folder.strip("/")
    if rest:
        raise NotFound(f"There is no dataset in {place!r} that you may see. List them: headwater ls PROJECT")
    raise NotFound(f"There is no project in {place!r} that you may see. List them: headwater ls")


def _starts(named: Iterable[dict[str, Any]], text: str) -> list[tuple[dict[str, Any], str]]:
    """Which of the named the text begins with, and what follows; names may hold slashes, so the longest comes first."""
    found: list[tuple[dict[str, Any], str]] = []
    for thing in sorted(named, key=lambda thing: -len(thing["name"])):
        start, slash, rest = text[: len(thing["name"])], text[len(thing["name"]) :][:1], text[len(thing["name"]) + 1 :]
        if start == thing["name"] and slash in ("", "/"):
            found.append((thing, rest))
    return found
