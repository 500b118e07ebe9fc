"""Requests to object stores before they are signed, and the answers that refuse them: the same for every cloud."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# These are shown to people, and anything may answer at an endpoint: what looks like no code or region is not repeated.
_CODE = re.compile(r"[A-Za-z0-9_.]{1,64}")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
_THROTTLING_STATUSES = frozenset({429, 503})
_THROTTLING_CODES = frozenset(  # of all clouds
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TooManyRequests",
        "ServerBusy",
        "rateLimitExceeded",
        "userRateLimitExceeded",
    }
)


_DOTS = frozenset({".", ".."})


def is_shortened(name: str) -> bool:
    """Whether clients would ask for another path than this: they take the segments `.` and `..` away."""
    return not _DOTS.isdisjoint(name.split("/"))


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
        code = code if _CODE.fullmatch(code) else ""
        super().__init__(f"{status} {code}".strip())
        self.status = status
        self.code = code
        # Where the bucket really is, if the answer says so.
        self.region = region if _REGION.fullmatch(region or "") else None
        self.is_transient = is_transient or status in _TRANSIENT_STATUSES
        self.may_be_expired = may_be_expired
        self.is_throttled = status in _THROTTLING_STATUSES or code in _THROTTLING_CODES
        self.retry_after_s: float | None = None  # as the store asks
