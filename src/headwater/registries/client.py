"""The OCI Distribution API: log-in, repositories, tags.

A registry answers 401 with what it wants: the password itself (Basic), or a token (Bearer) that the service it names
gives for the password. The password goes to the registry's own host or to the service known for it, nowhere else.
"""

import re
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import urljoin, urlsplit

from headwater.errors import BadRequest, FailedDependency, HeadwaterError, NotFound, Unavailable
from headwater.registries.challenges import is_trusted, read_challenges, token_url
from headwater.registries.options import DOCKER_HUB, Registry
from headwater.registries.transport import Answer, Transport

PAGE_NAMES = 1000
MOST_NAMES = 10_000
_MOST_PAGES = 100
_API_HOSTS = {DOCKER_HUB: "registry-1.docker.io"}
_LOGIN_HOSTS = {DOCKER_HUB: "auth.docker.io", "registry.gitlab.com": "gitlab.com"}
_REPOSITORY = re.compile(r"(?=.{1,255}\Z)[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_SENDABLE = re.compile(r"[\x21-\x7e]{1,4096}")
_RENEW = "Check them; if they were right before, they may have expired: renew them."


@dataclass(frozen=True, slots=True)
class Names:
    names: list[str]
    is_complete: bool  # False where there are more than were asked for


class ContainerRegistry(Protocol):
    @property
    def host(self) -> str:
        """As images name it."""
        ...

    @property
    def lists_repositories(self) -> bool: ...

    async def log_in(self) -> bool:
        """False where the registry asks nobody to log in. Raises HeadwaterError."""
        ...

    async def list_repositories(self, *, most: int = MOST_NAMES) -> Names: ...

    async def list_tags(self, repository: str) -> Names: ...


def checked_repository(name: str) -> str:
    """Raises BadRequest."""
    if not _REPOSITORY.fullmatch(name):
        raise BadRequest("That is not the name of a repository: small letters, digits, . _ - and /, like team/app.")
    return name


def api_host(host: str) -> str:
    """Where the API of a registry answers that images name so."""
    return _API_HOSTS.get(host, host)


class OciRegistry:
    def __init__(
        self,
        transport: Transport,
        registry: Registry,
        endpoint: str,
        *,
        login_host: str | None = None,
        page_names: int = PAGE_NAMES,
    ) -> None:
        """`endpoint` is `http(s)://host[:port]`; `login_host` is one more that the password may go to."""
        self._transport = transport
        self._registry = registry
        self._endpoint = endpoint
        self._login_host = login_host or _LOGIN_HOSTS.get(registry.host)
        self._page_names = page_names
        self._authorization: str | None = None

    @property
    def host(self) -> str:
        return self._registry.host

    @property
    def lists_repositories(self) -> bool:
        return self.host != DOCKER_HUB

    async def log_in(self) -> bool:
        answer = await self._get("/v2/", refused=self._login_refused())
        if answer.status != 200 or (self._authorization is None and not _is_registry(answer)):
            raise self._explained(answer, "/v2/")
        return self._authorization is not None

    async def list_repositories(self, *, most: int = MOST_NAMES) -> Names:
        if not self.lists_repositories:
            raise BadRequest("Docker Hub lists no repositories to registry clients. Name the repository itself.")
        refused = FailedDependency(
            f"This user may not list the repositories of {self.host}. Images can still be pulled by their names."
        )
        missing = FailedDependency(f"{self.host} does not list its repositories. Name the repository itself.")
        return await self._list(
            "/v2/_catalog", "repositories", _REPOSITORY, most=most, refused=refused, missing=missing
        )

    async def list_tags(self, repository: str) -> Names:
        name = checked_repository(repository)
        if self.host == DOCKER_HUB and "/" not in name:
            name = f"library/{name}"
        refused = FailedDependency(
            f'This user may not read the repository "{name}" of {self.host}, or it is not there. Give the user the '
            "right to pull it."
        )
        missing = NotFound(f'There is no repository "{name}" in {self.host}.')
        return await self._list(
            f"/v2/{name}/tags/list", "tags", _TAG, most=MOST_NAMES, refused=refused, missing=missing
        )

    async def _list(
        self,
        path: str,
        key: str,
        pattern: re.Pattern[str],
        *,
        most: int,
        refused: HeadwaterError,
        missing: HeadwaterError,
    ) -> Names:
        """As many pages as hold `most` names; a list that goes in circles ends incomplete."""
        found: dict[str, None] = {}
        asked: set[str] = set()
        following: str | None = f"{path}?n={self._page_names}"
        while following is not None:
            if following in asked or len(asked) >= _MOST_PAGES or len(found) >= most:
                return Names(list(found)[:most], is_complete=False)
            asked.add(following)
            answer = await self._get(following, refused=refused)
            if answer.status == 404:
                raise _told(missing, path, answer)
            names = _names(answer, key, pattern)
            if names is None:
                raise self._explained(answer, path)
            found |= dict.fromkeys(names)
            following = _next_page(answer, following)
        return Names(list(found)[:most], is_complete=len(found) <= most)

    async def _get(self, target: str, *, refused: HeadwaterError) -> Answer:
        """With what was accepted before; a 401 is answered once. Raises `refused` when this user may not."""
        path = target.partition("?")[0]
        answer = await self._send(target)
        if answer.status == 401:
            self._authorization = await self._authorize(answer, path, refused)
            answer = await self._send(target)
        if answer.status == 401:
            raise _told(self._unauthorized(answer, refused), path, answer)
        if answer.status == 403:
            raise _told(refused, path, answer)
        if 300 <= answer.status < 400 or answer.status == 429 or answer.status >= 500:
            raise self._explained(answer, path)
        return answer

    async def _send(self, target: str) -> Answer:
        headers = {} if self._authorization is None else {"Authorization": self._authorization}
        return await self._transport.send(self._endpoint + target, headers=headers)

    async def _authorize(self, answer: Answer, path: str, refused: HeadwaterError) -> str:
        challenges = read_challenges(answer.headers.getall("WWW-Authenticate", []))
        if "bearer" in challenges:
            return "Bearer " + await self._fetch_token(challenges["bearer"], refused)
        if "basic" in challenges:
            return self._basic
        raise self._explained(answer, path)

    @property
    def _basic(self) -> str:
        pair = f"{self._registry.username}:{self._registry.password}"
        return "Basic " + b64encode(pair.encode()).decode()

    async def _fetch_token(self, challenge: dict[str, str], refused: HeadwaterError) -> str:
        url = token_url(challenge)
        if not is_trusted(url, endpoint=self._endpoint, login_host=self._login_host):
            raise FailedDependency(
                f"{self.host} sends log-ins to another host, or over plain http. The password was not sent there. If "
                'that host is right, name it in the integration\'s metadata: {"loginHost": HOST}.'
            )
        answer = await self._transport.send(url, headers={"Authorization": self._basic})
        if answer.status in (400, 401, 403):
            is_about_scope = answer.status != 401 and "scope" in challenge
            raise _told(refused if is_about_scope else self._login_refused(), "token", answer)
        given = answer.json()
        token = (given.get("token") or given.get("access_token")) if isinstance(given, dict) else None
        if answer.status != 200 or not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise self._explained(answer, "token")
        return token

    def _unauthorized(self, answer: Answer, refused: HeadwaterError) -> HeadwaterError:
        """What a second 401 means: Basic with a wrong password, a token that is not accepted, or one for less."""
        challenges = read_challenges(answer.headers.getall("WWW-Authenticate", []))
        if (self._authorization or "").startswith("Basic "):
            return self._login_refused()
        if challenges.get("bearer", {}).get("error") == "invalid_token":
            return FailedDependency(
                f"{self.host} does not accept the token that its own log-in gave: it has expired already, or is signed "
                "by somebody else. Ask those who run the registry; their clocks may differ."
            )
        return refused

    def _login_refused(self) -> HeadwaterError:
        return FailedDependency(f"The registry {self.host} does not accept the user name or password. {_RENEW}")

    def _explained(self, answer: Answer, path: str) -> HeadwaterError:
        """An answer that is not a registry's."""
        said = f"(HTTP {answer.status} on GET {path})"
        if 300 <= answer.status < 400:
            error: HeadwaterError = FailedDependency(
                f"{self.host} redirects to somewhere else {said}, which is not followed with a password. Give the "
                "registry's own host."
            )
        elif answer.status == 429 or answer.status >= 500:
            error = Unavailable(f"The registry {self.host} is busy or down {said}. Try again later.")
        else:
            error = FailedDependency(
                f"{self.host} does not answer as a container registry {said}. Check the registry's host."
            )
        return _told(error, path, answer)


def _told(error: HeadwaterError, path: str, answer: Answer) -> HeadwaterError:
    error.operation, error.code = f"GET {path}", str(answer.status)
    return error


def _is_registry(answer: Answer) -> bool:
    version = answer.headers.get("Docker-Distribution-API-Version", "")
    return version.startswith("registry/2") or answer.json() == {}


def _names(answer: Answer, key: str, pattern: re.Pattern[str]) -> list[str] | None:
    """None where the answer is no such list."""
    given = answer.json()
    if answer.status != 200 or not isinstance(given, dict) or key not in given:
        return None
    names = cast("Any", given[key]) or []  # null for a repository whose tags were all deleted
    if not isinstance(names, list):
        return None
    checked = [name for name in names if isinstance(name, str) and pattern.fullmatch(name)]
    return checked if len(checked) == len(names) else None


def _next_page(answer: Answer, current: str) -> str | None:
    """The path and query of the link to the next page; always asked of the same registry, whatever host it names."""
    for link in answer.headers.getall("Link", []):
        if found := re.match(r'\s*<([^>]*)>\s*;\s*rel="?next"?', link):
            path, query = _parts(current, found[1])
            return f"{path}?{query}" if path.startswith("/v2/") else current  # the same again ends a list, incomplete
    return None


def _parts(current: str, link: str) -> tuple[str, str]:
    """Path and query that a link leads to; empty for what is no link."""
    try:
        parts = urlsplit(urljoin(f"https://registry{current}", link))
    except ValueError:
        return "", ""
    return (parts.path, parts.query) if _SENDABLE.fullmatch(parts.path + parts.query) else ("", "")
