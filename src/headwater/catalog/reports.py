"""What a check of a driver found: one verdict for each thing that will be done with its bucket."""

from dataclasses import dataclass
from datetime import datetime

from headwater.storage.policies import Policy

MANDATORY = ("list", "get", "put")


@dataclass(frozen=True, slots=True)
class Check:
    name: str  # list, get, put, delete, multipart, signed_url, cors, clock, region
    ok: bool | None  # None: not tried, and `message` says why
    message: str | None = None
    call: str | None = None  # the last one made, as the cloud's documentation names it
    code: str | None = None  # what the cloud said
    policy: Policy | None = None  # that would mend it
    took_ms: int = 0

    @property
    def is_mandatory(self) -> bool:
        return self.name in MANDATORY


@dataclass(frozen=True, slots=True)
class Report:
    checks: list[Check]
    policy: Policy  # of everything that the driver needs, and no more
    checked_at: datetime
    took_ms: int
    calls: int  # requests that were sent

    @property
    def ok(self) -> bool:
        """Nothing that is mandatory failed. What a driver only reads cannot be put, and counts as well."""
        return not self.failures

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.is_mandatory and check.ok is False]

    def check(self, name: str) -> Check:
        return next(check for check in self.checks if check.name == name)
