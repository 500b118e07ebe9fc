"""Sending: files go to where the server says, many at once; planning, sending and committing overlap.

    scan ──► plan (hundreds of files a request) ──► send (straight to the bucket, or in batches) ──► commit (hundreds)

Each stage waits for the next, so what is held does not grow with what is sent. A file that fails is told and passed
over; what all files would fail of ends the run, and everything that has been sent by then is committed.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import orjson

from headwater.errors import BadRequest, HeadwaterError, NotFound, Unauthorized, Unavailable
from headwater.transfer.batches import BatchFile, batch_body
from headwater.transfer.budget import Budget
from headwater.transfer.journal import Journal
from headwater.transfer.link import Answer, Link, Request, refused
from headwater.transfer.parts import PartsUpload, first_of
from headwater.transfer.progress import Progress
from headwater.transfer.reading import read_metadata, read_piece, why
from headwater.transfer.scanning import Found, Scan, Unusable
from headwater.transfer.tus import TusUpload

Mode = Literal["skip", "overwrite"]
PARALLEL = 16

_FIRST_PLANNED, _PLANNED = 64, 500  # files a request; the first ones soon
_PLANS_AT_ONCE = 2
_COMMITTED = 500
_COMMIT_AFTER_S = 0.5
_COMMITS_AT_ONCE = 2
_BATCH_FILES = 100
_BATCH_BYTES = 8 * 1024 * 1024
_MEMORY_BYTES = 256 * 1024 * 1024
_LARGE_BYTES = 8 * 1024 * 1024  # from here on a broken upload is worth to be gone on with
_TRIES = 3  # of one file, when a store refuses what was signed

_FATAL = (Unauthorized, Unavailable)  # true of all files


@dataclass(slots=True)
class Job:
    found: Found
    planned: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] | None = None  # of users
    counted_bytes: int = 0  # of its size, in the progress already
    tries: int = 0


@dataclass(frozen=True, slots=True)
class _Landed:
    job: Job
    commit: dict[str, Any]


@dataclass(slots=True)
class Sending:
    link: Link
    dataset_id: str
    scan: Scan
    journal: Journal
    progress: Progress
    mode: Mode = "skip"
    metadata: dict[str, Any] | None = None
    parallel: int = PARALLEL
    was_stopped: bool = False
    _stages: asyncio.Task[None] | None = None
    _found: asyncio.Queue[list[Found] | None] = field(default_factory=lambda: asyncio.Queue(_PLANS_AT_ONCE))
    _work: asyncio.Queue[Job | list[Job] | None] = field(default_factory=lambda: asyncio.Queue(_PLANNED))
    _landed: asyncio.Queue[_Landed | None] = field(default_factory=lambda: asyncio.Queue(2 * _COMMITTED))
    _budget: Budget = field(default_factory=lambda: Budget(_MEMORY_BYTES))

    async def run(self) -> None:
        """Raises what ended it for all files: Unavailable, Unauthorized, Forbidden, BadRequest, NotFound."""
        self._stages = asyncio.create_task(self._run_stages())
        committing = asyncio.create_task(self._commit_all())
        try:
            await asyncio.wait([self._stages, committing], return_when=asyncio.FIRST_COMPLETED)
            if committing.done():  # it failed
                self._stages.cancel()
            await asyncio.wait([self._stages])
            ending = asyncio.create_task(self._landed.put(None))  # waits while there is much to be committed
            await asyncio.wait([ending, committing], return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            await asyncio.wait([committing])
        except asyncio.CancelledError:
            self._stages.cancel()
            committing.cancel()
            raise
        for task in (self._stages, committing):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise first_of(error)

    def stop(self) -> None:
        """Take no more files; `run` returns once what has been sent is committed."""
        self.was_stopped = True
        if self._stages is not None:
            self._stages.cancel()

    async def _run_stages(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._find_all())
            planners = [group.create_task(self._plan_all()) for _ in range(_PLANS_AT_ONCE)]
            senders = [group.create_task(self._send_all()) for _ in range(self.parallel)]
            await asyncio.wait(planners)
            for _ in senders:
                await self._work.put(None)

    # Finding

    async def _find_all(self) -> None:
        async with aclosing(_in_threads(iter(self.scan))) as chunks:
            async for chunk in chunks:
                for one in chunk:
                    if isinstance(one, Unusable):
                        self.progress.fail(one.file, one.reason)
                files = [one for one in chunk if isinstance(one, Found)]
                if self.journal.is_replacing:
                    files = [found for found in files if not self._was_done(found)]
                if files:
                    await self._found.put(files)
        for _ in range(_PLANS_AT_ONCE):
            await self._found.put(None)

    def _was_done(self, found: Found) -> bool:
        was_done = self.journal.was_done(found)
        if was_done:
            self.progress.settle("done before", found.size_bytes)
        return was_done

    # Planning

    async def _plan_all(self) -> None:
        while (files := await self._found.get()) is not None:
            jobs = [job for job in [self._job(found) for found in files] if job is not None]
            fresh = [job for job in jobs if not await self._resumed(job)]
            for start in range(0, len(fresh), _PLANNED):
                await self._plan(fresh[start : start + _PLANNED])

    def _job(self, found: Found) -> Job | None:
        if found.sidecar is None:
            return Job(found, metadata=self.metadata)
        try:
            return Job(found, metadata=(self.metadata or {}) | read_metadata(found.sidecar))
        except BadRequest as error:
            self.progress.fail(found.path, str(error), found.size_bytes)
            return None

    async def _resumed(self, job: Job) -> bool:
        """What an earlier run has begun is not planned anew."""
        if job.found.size_bytes < _LARGE_BYTES:
            return False
        known = self.journal.entry(job.found).read()
        if known is None or known.get("action") not in ("parts", "tus"):
            return False
        job.planned = known
        await self._work.put(job)
        return True

    async def _plan(self, jobs: Sequence[Job]) -> None:
        answer = await self._ask("plan", {"mode": self.mode, "files": [_asked(job) for job in jobs]})
        for job, planned in zip(jobs, answer["files"], strict=True):
            job.planned = planned
        for batch in _batches([job for job in jobs if job.planned["action"] == "batch"]):
            await self._work.put(batch)
        for job in jobs:
            if job.planned["action"] in ("skip", "refused"):
                await self._send(job)
            elif job.planned["action"] != "batch":
                await self._work.put(job)

    async def _ask(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self.link.ask("POST", f"/datasets/{self.dataset_id}/uploads/{verb}", body)

    # Sending

    async def _send_all(self) -> None:
        while (work := await self._work.get()) is not None:
            if isinstance(work, list):
                await self._send_batch(work)
                continue
            try:
                await self._send(work)
            except _FATAL:
                raise
            except (OSError, HeadwaterError) as error:
                self._fail(work, why(error))

    async def _send(self, job: Job) -> None:
        match job.planned["action"]:
            case "skip":
                self._settle(job, "skip")
            case "refused":
                self._fail(job, job.planned["error"])
            case "put":
                await self._put(job)
            case "parts":
                await self._send_parts(job)
            case "batch":
                await self._send_batch([job])
            case "tus":
                await self._send_tus(job)
            case other:
                raise BadRequest(f"The server wants it sent by {other!r}, which this version does not know. Update it.")

    async def _put(self, job: Job) -> None:
        size_bytes = job.found.size_bytes
        async with self._budget.taken(size_bytes):
            body = await self._read(job.found)
            answer = await self.link.send(Request(**job.planned["request"]), body)
        if _is_written(answer):
            self.progress.passed_bytes += size_bytes
            commit = {"upload": job.planned["upload"], "etag": answer.headers.get("ETag")}
            await self._landed.put(_Landed(job, commit))
        else:  # what was signed may have expired while it waited
            await self._begin_again(job, refused(answer))

    async def _send_parts(self, job: Job) -> None:
        planned = job.planned
        parts = PartsUpload(
            self.link,
            self._ask,
            self._budget,
            job.found,
            planned["upload"],
            planned["partBytes"],
            self.journal.entry(job.found),
            lambda size_bytes, has_passed: self._count(job, size_bytes, has_passed=has_passed),
            {int(number): etag for number, etag in planned.get("parts", {}).items()},
        )
        try:
            sent = await parts.send()
        except NotFound as error:  # it was begun by an earlier run, too long ago
            await self._begin_again(job, error)
        else:
            await self._landed.put(_Landed(job, {"upload": planned["upload"], "parts": sent}))

    async def _send_tus(self, job: Job) -> None:
        upload = TusUpload(
            self.link,
            self.dataset_id,
            job.found,
            self.journal.entry(job.found),
            self.mode,
            job.metadata,
            lambda size_bytes, has_passed: self._count(job, size_bytes, has_passed=has_passed),
        )
        try:
            outcome = await upload.send(job.planned.get("url"))
        except NotFound as error:
            await self._begin_again(job, error)
        else:
            self._settle(job, outcome)

    async def _begin_again(self, job: Job, reason: HeadwaterError) -> None:
        self.journal.entry(job.found).drop()
        self._count(job, -job.counted_bytes, has_passed=False)
        job.tries += 1
        if job.tries >= _TRIES:
            raise reason
        planned = await self._ask("plan", {"mode": self.mode, "files": [_asked(job)]})
        job.planned = planned["files"][0]
        await self._send(job)

    async def _send_batch(self, batch: list[Job]) -> None:
        """Small files in one request, which makes items of them at once."""
        async with self._budget.taken(sum(job.found.size_bytes for job in batch)):
            read = [(job, content) for job in batch if (content := await self._read_or_fail(job)) is not None]
            if not read:
                return
            jobs = [job for job, _ in read]
            body, content_type = batch_body([BatchFile(job.found.path, job.metadata, content) for job, content in read])
            path = f"/datasets/{self.dataset_id}/uploads/batch?mode={self.mode}"
            try:
                answer = await self.link.call("POST", path, body, {"Content-Type": content_type}, len(body))
            except _FATAL:
                raise
            except HeadwaterError as error:
                for job in jobs:
                    self._fail(job, str(error))
                return
        self.progress.passed_bytes += len(body)
        self._settle_all(jobs, orjson.loads(answer.body)["files"])

    async def _read_or_fail(self, job: Job) -> bytes | None:
        try:
            return await self._read(job.found)
        except (OSError, HeadwaterError) as error:
            self._fail(job, why(error))
            return None

    async def _read(self, found: Found) -> bytes:
        return await asyncio.to_thread(read_piece, found, 0, found.size_bytes)

    # Committing

    async def _commit_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            slots = asyncio.Semaphore(_COMMITS_AT_ONCE)
            async for landed in self._landed_batches():
                await slots.acquire()
                group.create_task(self._commit(landed)).add_done_callback(lambda _: slots.release())

    async def _landed_batches(self) -> AsyncIterator[list[_Landed]]:
        batch: list[_Landed] = []
        until: float | None = None
        while True:
            try:
                left_s = None if until is None else max(0.0, until - time.monotonic())
                one = await asyncio.wait_for(self._landed.get(), left_s)
            except TimeoutError:
                yield batch
                batch, until = [], None
                continue
            if one is not None:
                batch.append(one)
                until = until or time.monotonic() + _COMMIT_AFTER_S
            if batch and (one is None or len(batch) >= _COMMITTED):
                yield batch
                batch, until = [], None
            if one is None:
                return

    async def _commit(self, landed: Sequence[_Landed]) -> None:
        files = [one.commit | _described(one.job) for one in landed]
        try:
            answer = await self._ask("commit", {"files": files})
        except _FATAL:
            raise
        except HeadwaterError as error:
            for one in landed:
                self._fail(one.job, str(error))
            return
        self._settle_all([one.job for one in landed], answer["files"])

    # Settling

    def _settle_all(self, jobs: Sequence[Job], results: Sequence[dict[str, Any]]) -> None:
        for job, result in zip(jobs, results, strict=True):
            if result["outcome"] == "failed":
                self._drop_entry(job)  # what was sent is of no use any more
                self._fail(job, result["error"] or "The server did not say why.")
            else:
                self._settle(job, result["outcome"])

    def _count(self, job: Job, size_bytes: int, *, has_passed: bool) -> None:
        job.counted_bytes += size_bytes
        self.progress.settled_bytes += size_bytes
        self.progress.passed_bytes += size_bytes * has_passed

    def _settle(self, job: Job, outcome: str) -> None:
        self.progress.settle(outcome, job.found.size_bytes - job.counted_bytes)
        self.journal.note_done(job.found)
        self._drop_entry(job)

    def _drop_entry(self, job: Job) -> None:
        if job.found.size_bytes >= _LARGE_BYTES:
            self.journal.entry(job.found).drop()

    def _fail(self, job: Job, reason: str) -> None:
        self.progress.fail(job.found.path, reason, job.found.size_bytes - job.counted_bytes)


async def _in_threads(found: Iterator[Found | Unusable]) -> AsyncGenerator[list[Found | Unusable]]:
    size = _FIRST_PLANNED
    while chunk := await asyncio.to_thread(lambda: list(islice(found, size))):  # noqa: B023 - awaited at once
        yield chunk
        size = _PLANNED


def _batches(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    batch: list[Job] = []
    size_bytes = 0
    for job in jobs:
        if batch and (len(batch) >= _BATCH_FILES or size_bytes + job.found.size_bytes > _BATCH_BYTES):
            yield batch
            batch, size_bytes = [], 0
        batch.append(job)
        size_bytes += job.found.size_bytes
    if batch:
        yield batch


def _asked(job: Job) -> dict[str, Any]:
    return {"path": job.found.path, "size": job.found.size_bytes}


def _described(job: Job) -> dict[str, Any]:
    return {} if job.metadata is None else {"metadata": {"user": job.metadata}}


def _is_written(answer: Answer) -> bool:
    """409 and 412: an object is there that nobody knew of; the commit says what becomes of it."""
    return answer.is_good or answer.status in (409, 412)
