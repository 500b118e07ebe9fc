"""Reports on drivers, as they are answered and as they are kept with the driver."""

from typing import Any

from typing_extensions import TypedDict

from headwater.catalog.reports import Check, Report
from headwater.storage.policies import Policy
from headwater.wire import times


class PolicyJson(TypedDict):
    kind: str
    hint: str
    document: Any
    command: str | None
    text: str


class CheckJson(TypedDict):
    name: str
    ok: bool | None
    mandatory: bool
    message: str | None
    call: str | None
    code: str | None
    policy: PolicyJson | None
    tookMs: int


class ReportJson(TypedDict):
    ok: bool
    checks: list[CheckJson]
    policy: PolicyJson
    checkedAt: str
    tookMs: int
    calls: int


def report(found: Report) -> ReportJson:
    return ReportJson(
        ok=found.ok,
        checks=[_check(check) for check in found.checks],
        policy=_policy(found.policy),
        checkedAt=times.to_wire(found.checked_at),
        tookMs=found.took_ms,
        calls=found.calls,
    )


def _check(found: Check) -> CheckJson:
    return CheckJson(
        name=found.name,
        ok=found.ok,
        mandatory=found.is_mandatory,
        message=found.message,
        call=found.call,
        code=found.code,
        policy=None if found.policy is None else _policy(found.policy),
        tookMs=found.took_ms,
    )


def _policy(found: Policy) -> PolicyJson:
    return PolicyJson(kind=found.kind, hint=found.hint, document=found.document, command=found.command, text=found.text)
