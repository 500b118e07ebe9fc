"""Checks of a registry's credentials: the same calls that are used later, each with its verdict."""

from dataclasses import dataclass

from headwater.errors import HeadwaterError
from headwater.registries.client import ContainerRegistry


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    message: str | None = None
    call: str | None = None  # the one that failed
    code: str | None = None  # what was answered to it

    @classmethod
    def failed(cls, name: str, error: HeadwaterError) -> "Check":
        return cls(name, ok=False, message=str(error), call=error.operation, code=error.code)


async def check_registry(registry: ContainerRegistry) -> list[Check]:
    """`login` first; `catalog`, whether repositories are listed, where the registry can and the log-in is good."""
    login = await _check_login(registry)
    if not login.ok or not registry.lists_repositories:
        return [login]
    return [login, await _check_catalog(registry)]


async def _check_login(registry: ContainerRegistry) -> Check:
    try:
        if await registry.log_in():
            return Check("login", ok=True)
    except HeadwaterError as error:
        return Check.failed("login", error)
    unasked = f"{registry.host} asks nobody to log in, so the user name and password could not be checked."
    return Check("login", ok=True, message=unasked)


async def _check_catalog(registry: ContainerRegistry) -> Check:
    try:
        await registry.list_repositories(most=1)
    except HeadwaterError as error:
        return Check.failed("catalog", error)
    return Check("catalog", ok=True)
