"""Checks of drivers: what will be done with a bucket is tried on it once, through the same code, in constant time.

At most 12 requests and 3 seconds. The bucket is left as it was; where nothing may be deleted, one small object stays,
always the same one.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import monotonic
from typing import Literal

from headwater.catalog.drivers import Driver
from headwater.catalog.items import HIDDEN_FOLDER
from headwater.catalog.reports import Check, Report
from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage import policies, visits
from headwater.storage.azure.store import AzureStore
from headwater.storage.policies import Cloud, Place, Policy, Right
from headwater.storage.sending import observed
from headwater.storage.stores import ListingPage, Store
from headwater.work.clouds import DEFAULT_REGION, Patience
from headwater.work.workplace import Workplace

TEST_KEY = f"{HIDDEN_FOLDER[1:]}/permission-test"
_TEST_BODY = b"Headwater wrote this to find out what it may do here. It may be deleted at any time.\n"
_HIDDEN_KEYS = HIDDEN_FOLDER[1:] + "/"
_MOST_CALLS = 12
_LARGEST_SKEW_S = 5 * 60
_TOO_LATE = "Timeout"
_NAMES = ("list", "get", "put", "delete", "multipart", "signed_url", "cors", "clock", "region")
_RIGHTS: dict[str, Right] = {
    "list": "list",
    "get": "get",
    "put": "put",
    "delete": "delete",
    "multipart": "multipart",
    "signed_url": "sign",
}
# What clouds say when a right is missing, as opposed to wrong keys, network rules or unpaid bills. Folders say nothing.
_MISSING_RIGHT_CODES = frozenset(
    {None, "403", "AccessDenied", "forbidden", "AuthorizationPermissionMismatch", "UnauthorizedBlobOverwrite"}
)
_BUCKET_HOSTS = (  # where a bucket's name may stand in front of the host
    ".amazonaws.com",
    ".amazonaws.com.cn",
    ".storage.googleapis.com",
    ".digitaloceanspaces.com",
    ".wasabisys.com",
    ".backblazeb2.com",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one report, in seconds."""

    check_s: float
    all_checks_s: float
    removal_s: float  # of the test object, after them

    @staticmethod
    def within(total_s: float) -> "Limits":
        """A little is kept for opening and closing."""
        return Limits(check_s=0.75 * total_s, all_checks_s=0.85 * total_s, removal_s=0.1 * total_s)


_PROMISED = Limits.within(3)


async def check(place: Workplace, driver: Driver, *, origin: str | None, limits: Limits = _PROMISED) -> Report:
    """The report on a driver; whatever the store does becomes a verdict. `origin` is where our pages come from."""
    return (await _examine(place, driver, origin, limits, "made"))[0]


async def check_new(place: Workplace, driver: Driver, *, origin: str | None, limits: Limits = _PROMISED) -> Report:
    """The report on a driver that is to be made. Raises what stands in its way, with the policy that mends it."""
    report, examination = await _examine(place, driver, origin, limits, "to be made")
    if not report.ok:
        raise _refusal(report, examination)
    return report


async def try_new(place: Workplace, driver: Driver, *, origin: str | None, limits: Limits = _PROMISED) -> Report:
    """The same report for one that is not to be made yet; nothing is left in the bucket."""
    return (await _examine(place, driver, origin, limits, "thought of"))[0]


_Purpose = Literal["made", "to be made", "thought of"]  # what becomes of the driver


async def _examine(
    place: Workplace, driver: Driver, origin: str | None, limits: Limits, purpose: _Purpose
) -> "tuple[Report, _Examination]":
    started = monotonic()
    examination = _Examination(place, driver, origin, limits, purpose)
    await examination.run()
    needed = policies.all_rights(read_only=driver.read_only, allow_delete=driver.allow_delete)
    report = Report(
        checks=[examination.found[name] for name in _NAMES],
        policy=policies.smallest(examination.where, needed),
        checked_at=datetime.now(UTC),
        took_ms=_ms_since(started),
        calls=examination.calls,
    )
    return report, examination


class _Skipped(Exception):
    """Something was not tried; the text says why."""

    def __init__(self, reason: str, policy: Policy | None = None) -> None:
        super().__init__(reason)
        self.policy = policy


@dataclass(frozen=True, slots=True)
class _Sample:
    """An object to read."""

    key: str
    size_bytes: int
    body: bytes | None  # as it was written just now


class _Examination:
    def __init__(self, place: Workplace, driver: Driver, origin: str | None, limits: Limits, purpose: _Purpose) -> None:
        self.found: dict[str, Check] = {}
        self.errors: dict[str, HeadwaterError] = {}
        self.where = _where(driver, None)
        self.calls = 0
        self._places = place.places
        self._driver = driver
        self._origin = origin
        self._limits = limits
        self._purpose = purpose
        self._ends_at_s = asyncio.get_running_loop().time() + limits.all_checks_s
        self._skews_s: list[float] = []
        self._page: ListingPage | None = None
        self._may_delete = False
        self._signed_url: str | None = None

    async def run(self) -> None:
        try:
            _refuse_bucket_in_host(self._driver)
            async with asyncio.timeout_at(self._ends_at_s):  # its secret may be in a vault that does not answer
                store = await self._places.open(self._driver, Patience(attempts=1))
        except TimeoutError:
            error = Unavailable("The secret of this driver's integration could not be read in time. Try again.")
            self._note(Check("list", ok=False, message=str(error), code=_TOO_LATE), error)
        except HeadwaterError as error:
            self._note(Check("list", ok=False, message=str(error)), error)
        else:
            self.where = _where(self._driver, store)
            try:
                await self._run_on(store)
            finally:
                await store.close()
        self._judge_clock()
        self._judge_region()
        for name in _NAMES:
            if name not in self.found:
                self._skip(name, "Not tried, because the bucket cannot be used at all: see list.")

    async def _run_on(self, store: Store) -> None:
        """Lists first; without an answer to that nothing is written. What does not build on each other runs at once."""
        own_key = f"{TEST_KEY}-{secrets.token_hex(8)}"
        _, self._may_delete = await asyncio.gather(
            self._try("list", lambda: self._list(store)), self._probe_deletion(store, own_key)
        )
        if self._is_out_of_reach():
            self.found.pop("delete", None)
            return
        # Only who may delete leaves a new name each time.
        test_key = own_key if self._may_delete else TEST_KEY
        await self._put(store, test_key)
        own = _Sample(test_key, len(_TEST_BODY), _TEST_BODY)
        sample = own if self.found["put"].ok else self._listed_sample()
        await asyncio.gather(
            self._try("get", lambda: self._get(store, sample)),
            self._multipart(store, test_key),
            self._try("signed_url", lambda: self._read_as_anybody(store, sample)),
        )
        await self._try("cors", self._ask_for_origin)
        if self._driver.read_only:
            self._skip("delete", "Not tried, because the driver only reads.")
        elif self.found["put"].ok is not None:
            await self._remove(store, test_key)

    # Each check

    async def _list(self, store: Store) -> None:
        self._page = await store.check_listing()
        if not self._page.keys and self._driver.prefix and self.where.cloud != "folder":
            await self._refuse_single_file(store)

    async def _refuse_single_file(self, store: Store) -> None:
        """An empty folder is fine; an object with just that name shows that a file was meant."""
        parent, slash, name = self._driver.prefix.rstrip("/").rpartition("/")
        above = await self._places.open(replace(self._driver, prefix=parent + slash), Patience(attempts=1), store)
        try:
            with suppress(StoreMissing, StoreDenied):
                await above.head(name)
                raise BadRequest(
                    f'"{self._driver.prefix.rstrip("/")}" in bucket "{self._driver.root}" is a single file. Give the '
                    "folder that it lies in, or leave the folder out for the whole bucket."
                )
        finally:
            await above.close()

    async def _probe_deletion(self, store: Store, key: str) -> bool:
        """Asked of a name that nothing has: whoever may not delete is told so for that, too."""
        if not self._driver.allow_delete:
            self._skip("delete", "Not tried, because the driver is not to delete.")
            return False
        await self._try("delete", lambda: store.delete(key))
        return self.found["delete"].ok is True

    async def _put(self, store: Store, key: str) -> None:
        if self._driver.read_only:
            self._skip("put", "Not tried, because the driver only reads.")
            return

        async def put() -> None:
            await store.put(key, _TEST_BODY, content_type="text/plain")

        await self._try("put", put)

    async def _get(self, store: Store, sample: _Sample | None) -> None:
        if sample is None:
            raise _Skipped(self._why_nothing_to_read())
        is_range = sample.body is None and sample.size_bytes > 0
        async with store.get(sample.key, end=1 if is_range else None) as reader:
            body = await reader.read()
        if sample.body not in (None, body):
            raise FailedDependency(
                "The store gave back other bytes than were written a moment before. Check what stands between it and "
                "this server, a cache for instance."
            )

    async def _multipart(self, store: Store, key: str) -> None:
        if self.where.cloud == "folder":
            self._skip("multipart", "Does not apply to folders.")
        elif not self.found["put"].ok:
            self._skip("multipart", self.found["put"].message if self._driver.read_only else "Not tried: see put.")
        else:
            await self._try("multipart", lambda: store.probe_multipart(key, _TEST_BODY))

    async def _read_as_anybody(self, store: Store, sample: _Sample | None) -> None:
        """By a signed URL, as browsers and other machines will."""
        if self.where.cloud == "folder":
            raise _Skipped("Does not apply to folders: bytes go through this server.")
        if sample is None:
            raise _Skipped(self._why_nothing_to_read())
        self._signed_url = await store.sign_get(sample.key, expires_s=60)
        if self._signed_url is None:
            raise _Skipped(
                "These credentials cannot sign URLs, so all bytes go through this server, which is slower.",
                policies.smallest(self.where, ["sign"]) if self.where.cloud == "azure" else None,
            )
        await visits.fetch_signed(self._places.session, self._signed_url)

    async def _ask_for_origin(self) -> None:
        """Advice only, so it gives way where tokens of several roles have used up the requests."""
        if self._signed_url is None:
            raise _Skipped("Not tried: see signed_url.")
        if self._origin is None:
            raise _Skipped("Not tried, because the address of this server's pages is not known.")
        if self.calls + 2 > _MOST_CALLS:  # this one, and the removal of the test object
            raise _Skipped(f"Not tried, because the check keeps to {_MOST_CALLS} requests.")
        if not await visits.allows_origin(self._places.session, self._signed_url, self._origin):
            raise FailedDependency(
                f"The bucket does not let pages of {self._origin} read from it (CORS). Viewing in a browser then "
                "goes through this server, which is slower."
            )

    async def _remove(self, store: Store, key: str) -> None:
        """What was written, or may have been, when the answer was late."""
        has_failed = any(check.is_mandatory and check.ok is False for check in self.found.values())
        is_unwanted = self._purpose == "thought of" or (self._purpose == "to be made" and has_failed)
        put = self.found["put"]
        if not (put.ok or put.code == _TOO_LATE) or not (self._may_delete or is_unwanted):
            return
        loop = asyncio.get_running_loop()
        self._ends_at_s = max(self._ends_at_s, loop.time()) + self._limits.removal_s
        if self._may_delete:
            await self._try("delete", lambda: store.delete(key))
        else:
            with suppress(HeadwaterError, TimeoutError), observed() as traffic:
                async with asyncio.timeout_at(self._ends_at_s):
                    await store.delete(key)
            self.calls += len(traffic.operations)

    def _judge_clock(self) -> None:
        if not self._skews_s:
            self._skip("clock", "The store does not tell the time.")
            return
        skew_s = max(self._skews_s, key=abs)
        if abs(skew_s) <= _LARGEST_SKEW_S:
            self._note(Check("clock", ok=True))
            return
        side = "behind" if skew_s > 0 else "ahead of"
        self._note(
            Check(
                "clock",
                ok=False,
                message=f"This machine's clock is {abs(skew_s) / 60:.0f} minutes {side} the store's. Stores refuse "
                "requests when it is 15: set it right, best by NTP.",
            )
        )

    def _judge_region(self) -> None:
        if self.where.cloud != "aws":
            self._skip("region", "Does not apply here.")
            return
        mine = self._driver.region or DEFAULT_REGION
        named = next((error.region for error in self.errors.values() if error.region), None)
        if named is not None and named != mine:
            message = f'The bucket is in region "{named}", not "{mine}". Set that region.'
            self._note(Check("region", ok=False, message=message))
        elif self.found["list"].ok:
            self._note(Check("region", ok=True))

    # How they are run

    async def _try(self, name: str, act: Callable[[], Awaitable[None]]) -> None:
        started = monotonic()
        verdict, error = Check(name, ok=True), None
        with observed() as traffic:
            try:
                until_s = min(asyncio.get_running_loop().time() + self._limits.check_s, self._ends_at_s)
                async with asyncio.timeout_at(until_s):
                    await act()
            except _Skipped as skipped:
                verdict = Check(name, ok=None, message=str(skipped), policy=skipped.policy)
            except TimeoutError:
                error = Unavailable(
                    f"The store did not answer in time ({self._limits.check_s:g} s for each check, "
                    f"{self._limits.all_checks_s:g} s for all). Check the endpoint and the network, or try again. For "
                    "a store that is always so slow the operator sets HEADWATER_CHECK_TIMEOUT_S."
                )
                error.code = _TOO_LATE
            except HeadwaterError as failure:
                error = failure
            except Exception as failure:  # noqa: BLE001 - anything may answer at an endpoint, in any form
                _log.info("check %s of driver %s: %s", name, self._driver.id, type(failure).__name__)
                error = FailedDependency("What answers there does not answer as storage does. Check the endpoint.")
                error.code = type(failure).__name__
        self.calls += len(traffic.operations)
        if traffic.clock_skew_s is not None:
            self._skews_s.append(traffic.clock_skew_s)
        if error is not None:
            verdict = Check(name, ok=False, message=str(error), code=error.code, policy=self._mending(name, error))
        call = error.operation if error is not None and error.operation else (traffic.operations or [None])[-1]
        self._note(replace(verdict, call=call, took_ms=_ms_since(started)), error)

    def _mending(self, name: str, error: HeadwaterError) -> Policy | None:
        if name == "cors":
            return policies.cors(self.where, self._origin) if self._origin and error.code is None else None
        is_right_missing = isinstance(error, StoreDenied) or name == "signed_url"
        if name not in _RIGHTS or not is_right_missing or error.code not in _MISSING_RIGHT_CODES:
            return None
        return policies.smallest(self.where, [_RIGHTS[name]])

    def _note(self, verdict: Check, error: HeadwaterError | None = None) -> None:
        self.found[verdict.name] = verdict
        if error is not None:
            self.errors[verdict.name] = error

    def _skip(self, name: str, reason: str | None) -> None:
        self._note(Check(name, ok=None, message=reason))

    def _is_out_of_reach(self) -> bool:
        """Listing failed, and not only for want of the right to list."""
        error = self.errors.get("list")
        return error is not None and not (isinstance(error, StoreDenied) and error.code in _MISSING_RIGHT_CODES)

    def _listed_sample(self) -> _Sample | None:
        """One that has bytes if there is one, and none of ours."""
        if self._page is None:
            return None
        found = [
            _Sample(key, size_bytes, None)
            for key, size_bytes in zip(self._page.keys, self._page.sizes, strict=True)
            if key and not key.endswith("/") and not key.startswith(_HIDDEN_KEYS)
        ]
        return max(found, key=lambda sample: sample.size_bytes > 0, default=None)

    def _why_nothing_to_read(self) -> str:
        if not self.found["list"].ok:
            return "Not tried: nothing could be written, and nothing listed."
        return "Not tried, because there is no object yet."


def _where(driver: Driver, store: Store | None) -> Place:
    clouds: dict[str, Cloud] = {"gcs": "gcs", "azureblob": "azure", "azureDatalakeGen2": "azure"}
    is_folder = driver.integration_kind in ("hostPath", "nfs")
    return Place(
        cloud="folder" if is_folder else clouds.get(driver.kind, "aws"),
        bucket=driver.root,
        prefix=driver.prefix,
        region=driver.region or DEFAULT_REGION,
        account=store.container.account if isinstance(store, AzureStore) else "STORAGE-ACCOUNT",
    )


def _refuse_bucket_in_host(driver: Driver) -> None:
    """Raises BadRequest for an endpoint that was copied from the URL of a bucket."""
    scheme, _, host = (driver.endpoint or "").partition("://")
    if host.startswith(f"{driver.root}.") and host.partition(":")[0].endswith(_BUCKET_HOSTS):
        rest = host.removeprefix(f"{driver.root}.")
        raise BadRequest(f"The endpoint has the bucket's name in its host. Give it without: {scheme}://{rest}")


_KINDS = (BadRequest, StoreDenied, StoreMissing, FailedDependency, Unavailable)


def _refusal(report: Report, examination: _Examination) -> HeadwaterError:
    """One sentence after another: what is missing, that nothing was made, and what to paste."""
    failures = report.failures
    told = " ".join(dict.fromkeys(check.message or check.name for check in failures))
    told += " So the driver was not made."
    missing: list[Right] = [_RIGHTS[check.name] for check in failures if check.policy is not None]
    if missing:
        told += f" This would allow it: {policies.smallest(examination.where, missing).text}"
        if missing == ["put"]:
            told += " Or make it read-only (readOnly, --read-only): then nothing is written to the bucket."
    cause = examination.errors[failures[0].name]
    refusal = next((kind for kind in _KINDS if isinstance(cause, kind)), FailedDependency)(told)
    refusal.operation, refusal.code = cause.operation, cause.code
    return refusal


def _ms_since(started: float) -> int:
    return round((monotonic() - started) * 1000)
