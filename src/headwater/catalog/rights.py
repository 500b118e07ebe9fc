"""Rights: which role in a project may do what. One table, one question."""

from typing import Literal

from headwater.errors import BadRequest, Forbidden

Role = Literal["owner", "developer", "annotationManager", "annotator"]
Right = Literal["read", "annotate", "write_items", "sync", "manage_datasets", "manage_drivers", "manage_project"]

_RIGHTS: dict[Role, frozenset[Right]] = {
    "owner": frozenset(
        ["read", "annotate", "write_items", "sync", "manage_datasets", "manage_drivers", "manage_project"]
    ),
    "developer": frozenset(["read", "annotate", "write_items", "sync", "manage_datasets", "manage_drivers"]),
    "annotationManager": frozenset(["read", "annotate", "write_items"]),
    "annotator": frozenset(["read", "annotate"]),
}

_WORDS: dict[Right, str] = {
    "read": "read",
    "annotate": "annotate",
    "write_items": "add, change or delete items",
    "sync": "sync datasets",
    "manage_datasets": "create, change or delete datasets",
    "manage_drivers": "create or delete storage drivers",
    "manage_project": "change or delete the project",
}


def may(role: Role, right: Right) -> bool:
    return right in _RIGHTS[role]


def require(role: Role, right: Right) -> None:
    """Raises Forbidden."""
    if not may(role, right):
        allowed = ", ".join(name for name in _RIGHTS if may(name, right))
        raise Forbidden(f"Your role in this project ({role}) may not {_WORDS[right]}. Roles that may: {allowed}.")


def checked_role(name: str) -> Role:
    """Raises BadRequest."""
    for role in _RIGHTS:
        if role == name:
            return role
    raise BadRequest(f"There is no role {name[:40]!r}. Roles: {', '.join(_RIGHTS)}.")
