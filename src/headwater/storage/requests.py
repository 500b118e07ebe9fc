"""Requests to object stores before they are signed, and the answers that refuse them: the same for every cloud."""

from collections.abc import Mapping
from dataclasses import dataclass, field

_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Request:
    operation: str  # as the cloud's documentation names it
    method: str
    key: str | None = None  # relative to the prefix; None asks the bucket itself
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Refused(Exception):
    """One answer of a store that is not what was asked for; a HeadwaterError once nothing more can be tried."""

    def __init__(
        self,
        status: int,
        code: str,
        *,
        region: str | None = None,
        is_transient: bool = False,
        may_be_expired: bool = False,
    ) -> None:
        super().__init__(f"{status} {code}".strip())
        self.status = status
        self.code = code
        self.region = region  # where the bucket really is, if the answer says so
        self.is_transient = is_transient or status in _TRANSIENT_STATUSES
        self.may_be_expired = may_be_expired
