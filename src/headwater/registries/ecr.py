"""Amazon ECR: log-in, repositories and tags by its own API, signed with the access key.

The key itself is sent nowhere. https://docs.aws.amazon.com/AmazonECR/latest/APIReference/
"""

import re
from base64 import b64decode
from collections.abc import Callable, Iterable
from typing import Any, cast

import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from headwater.errors import FailedDependency, HeadwaterError, NotFound, Unavailable
from headwater.registries.client import MOST_NAMES, PAGE_NAMES, Names, checked_repository
from headwater.registries.options import EcrRegistry
from headwater.registries.transport import Answer, Transport

_API = "AmazonEC2ContainerRegistry_V20150921"
_MOST_PAGES = 100
_KEY_CODES = frozenset(
    {
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "IncompleteSignature",
        "MissingAuthenticationTokenException",
        "ExpiredToken",
        "ExpiredTokenException",
    }
)


class EcrClient:
    lists_repositories = True

    def __init__(self, transport: Transport, registry: EcrRegistry, endpoint: str | None = None) -> None:
        """`endpoint` is that of the ECR API, where it is not the region's own."""
        self._transport = transport
        self._registry = registry
        self._url = (endpoint or f"https://api.ecr.{registry.region}.{registry.domain}") + "/"

    @property
    def host(self) -> str:
        return self._registry.host

    async def log_in(self) -> bool:
        given = await self._call("GetAuthorizationToken", {})
        try:
            token = b64decode(given["authorizationData"][0]["authorizationToken"], validate=True)
        except (KeyError, IndexError, TypeError, ValueError):
            token = b""
        if not token.startswith(b"AWS:"):
            raise self._not_ecr("GetAuthorizationToken", 200)
        return True

    async def list_repositories(self, *, most: int = MOST_NAMES) -> Names:
        def read(page: dict[str, Any]) -> Iterable[Any]:
            return (entry["repositoryName"] for entry in page["repositories"])

        return await self._list("DescribeRepositories", {}, read, most)

    async def list_tags(self, repository: str) -> Names:
        def read(page: dict[str, Any]) -> Iterable[Any]:
            return (entry["imageTag"] for entry in page["imageIds"] if "imageTag" in entry)

        asked = {"repositoryName": checked_repository(repository), "filter": {"tagStatus": "TAGGED"}}
        return await self._list("ListImages", asked, read, MOST_NAMES)

    async def _list(
        self, operation: str, asked: dict[str, Any], read: Callable[[dict[str, Any]], Iterable[Any]], most: int
    ) -> Names:
        request = {"registryId": self._registry.account, "maxResults": PAGE_NAMES} | asked
        found: dict[str, None] = {}
        for _ in range(_MOST_PAGES):
            page = await self._call(operation, request)
            try:
                names = list(read(page))
            except (KeyError, TypeError):
                raise self._not_ecr(operation, 200) from None
            if not all(isinstance(name, str) for name in names):
                raise self._not_ecr(operation, 200)
            found |= dict.fromkeys(names)
            request["nextToken"] = page.get("nextToken")
            if len(found) >= most or not request["nextToken"]:
                break
        is_complete = len(found) <= most and not request["nextToken"]
        return Names(list(found)[:most], is_complete)

    async def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        body = orjson.dumps(request)
        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": f"{_API}.{operation}"}
        unsigned = AWSRequest("POST", self._url, headers=headers, data=body)
        credentials = Credentials(self._registry.access_key_id, self._registry.secret_access_key)
        SigV4Auth(credentials, "ecr", self._registry.region).add_auth(unsigned)
        answer = await self._transport.send(self._url, method="POST", headers=dict(unsigned.headers.items()), body=body)
        given = answer.json()
        if answer.status == 200 and isinstance(given, dict):
            return cast("dict[str, Any]", given)
        raise self._explained(operation, answer, request)

    def _explained(self, operation: str, answer: Answer, request: dict[str, Any]) -> HeadwaterError:
        code = _error_code(answer)
        said = f"({code or f'HTTP {answer.status}'} on {operation})"
        if answer.status == 429 or answer.status >= 500 or code == "ThrottlingException":
            error: HeadwaterError = Unavailable(f"Amazon ECR is busy or down {said}. Try again later.")
        elif code in _KEY_CODES:
            error = FailedDependency(
                f"The registry {self.host} does not accept the access key id or its secret {said}. Check them; if they "
                "were right before, the key may have been turned off: make a new one."
            )
        elif code.startswith("AccessDenied"):
            error = FailedDependency(
                f"The access key may not ask {self.host} for this {said}. Allow ecr:{operation} in the IAM policy of "
                "its user."
            )
        elif code == "RepositoryNotFoundException":
            error = NotFound(f'There is no repository "{request.get("repositoryName", "")}" in {self.host}.')
        else:
            return self._not_ecr(operation, answer.status, code)
        error.operation, error.code = operation, code or str(answer.status)
        return error

    def _not_ecr(self, operation: str, status: int, code: str = "") -> HeadwaterError:
        error = FailedDependency(
            f"What answers for {self.host} is not Amazon ECR, or does not know this request "
            f"({code or f'HTTP {status}'} on {operation}). Check account, region and endpoint."
        )
        error.operation, error.code = operation, code or str(status)
        return error


def _error_code(answer: Answer) -> str:
    """AWS writes JSON; what checks keys in front of it may write XML."""
    given = answer.json()
    if isinstance(given, dict):
        found = re.fullmatch(r"(?:.*#)?([A-Za-z]{1,80})", str(given.get("__type")))
    else:
        found = re.search("<Code>([A-Za-z]{1,80})</Code>", answer.body.decode(errors="replace"))
    return found[1] if found else ""
