"""Container registries: what their checks found, their repositories and tags. The SDK asks for none of these."""

from typing_extensions import TypedDict

from headwater.registries.checks import Check
from headwater.registries.client import Names


class CheckJson(TypedDict):
    name: str
    ok: bool
    message: str | None
    call: str | None
    code: str | None


class ValidationJson(TypedDict):
    host: str | None
    checks: list[CheckJson]
    message: str | None


class RepositoriesJson(TypedDict):
    host: str
    repositories: list[str]
    isComplete: bool


class TagsJson(TypedDict):
    host: str
    repository: str
    tags: list[str]
    isComplete: bool


def validation(checks: list[Check], *, host: str | None = None, message: str | None = None) -> ValidationJson:
    return ValidationJson(
        host=host,
        checks=[
            CheckJson(name=check.name, ok=check.ok, message=check.message, call=check.call, code=check.code)
            for check in checks
        ],
        message=message,
    )


def repositories(host: str, found: Names) -> RepositoriesJson:
    return RepositoriesJson(host=host, repositories=found.names, isComplete=found.is_complete)


def tags(host: str, repository: str, found: Names) -> TagsJson:
    return TagsJson(host=host, repository=repository, tags=found.names, isComplete=found.is_complete)
