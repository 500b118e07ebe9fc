"""What `headwater upload` and `headwater download` share: running a transfer, showing it, and how it ended."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Protocol

from headwater.cli.client import Client
from headwater.cli.following import Line, duration, progress_line
from headwater.cli.output import complain, counted, note, print_json, say, size, warn
from headwater.errors import HeadwaterError
from headwater.transfer.link import Link
from headwater.transfer.progress import Failure, Progress

INTERRUPTED = 130

_SHOWN_EVERY_S = 0.2
_SHOWN_FAILURES = 20


class Transfer(Protocol):
    link: Link
    progress: Progress
    was_stopped: bool

    async def run(self) -> None: ...

    def stop(self) -> None: ...


def link_of(client: Client) -> Link:
    return Link(client.url, client.token, renew=client.renew)


def run_async(work: Coroutine[Any, Any, None]) -> None:
    if sys.platform == "win32":
        asyncio.run(work)
    else:
        import uvloop  # noqa: PLC0415 - not on Windows

        uvloop.run(work)


async def shown(transfer: Transfer, title: str) -> HeadwaterError | None:
    """Run it to its end, or until Ctrl-C; the second one does not wait for what is being committed.

    Returns what ended it early for all files.
    """
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(transfer.run())

    def interrupt() -> None:
        if transfer.was_stopped:
            running.cancel()
        transfer.stop()

    with suppress(NotImplementedError):  # on Windows: then Ctrl-C ends all at once
        loop.add_signal_handler(signal.SIGINT, interrupt)
    with progress_line(title) as line:
        while not running.done():
            await asyncio.wait([running], timeout=_SHOWN_EVERY_S)
            _show(line, transfer)
    if not running.cancelled() and (error := running.exception()) is not None:
        if isinstance(error, HeadwaterError):
            return error
        raise error
    return None


def _show(line: Line, transfer: Transfer) -> None:
    progress = transfer.progress
    bytes_per_s, files_per_s = progress.rates()
    more = "" if progress.is_counted else "+"
    words = [f"{progress.settled_files:,} of {progress.files:,}{more} files"]
    if progress.bytes:
        words.append(f"{size(progress.settled_bytes)} of {size(progress.bytes)}{more}")
    words.append(f"{size(round(bytes_per_s))}/s, {files_per_s:,.0f} files/s")
    left_s = progress.seconds_left()
    if left_s is not None:
        words.append(f"{duration(left_s)} left")
    if progress.failed:
        words.append(f"{progress.failed:,} failed")
    if transfer.link.trouble is not None:
        words.append(transfer.link.trouble)
    line.show(progress.percent, ", ".join(words))


def report(
    transfer: Transfer, error: HeadwaterError | None, sentence: str, *, as_json: bool, more: dict[str, Any]
) -> None:
    """The summary, and the exit code: 0 all there, 1 some failed or an error, 130 interrupted."""
    progress = transfer.progress
    if as_json:
        print_json(more | _as_json(progress, error, was_interrupted=transfer.was_stopped))
    else:
        _tell(progress.missing, warn, "missing")
        _tell(progress.failures, complain, "failed")
        say(sentence)
    if error is not None:
        complain(str(error))
    if transfer.was_stopped:
        note("Interrupted. The same command goes on where it stopped.")
        sys.exit(INTERRUPTED)
    if error is not None or progress.failed:
        sys.exit(1)


def _tell(failures: list[Failure], speak: Any, outcome: str) -> None:
    for failure in failures[:_SHOWN_FAILURES]:
        speak(f"{failure.path}: {failure.reason}")
    if len(failures) > _SHOWN_FAILURES:
        note(f"… and {len(failures) - _SHOWN_FAILURES:,} more {outcome}; --json lists them.")


def _as_json(progress: Progress, error: HeadwaterError | None, *, was_interrupted: bool) -> dict[str, Any]:
    def listed(failures: list[Failure]) -> list[dict[str, str]]:
        return [{"path": failure.path, "reason": failure.reason} for failure in failures]

    return {
        "files": progress.settled_files,
        "skipped": progress.outcomes["skip"],
        "failed": progress.failed,
        "missing": progress.outcomes["missing"],
        "transferred_bytes": progress.passed_bytes,
        "elapsed_s": round(progress.elapsed_s, 3),
        "interrupted": was_interrupted,
        "error": None if error is None else str(error),
        "failures": listed(progress.failures),
        "missing_items": listed(progress.missing),
    }


def facts(progress: Progress, names: dict[str, str]) -> str:
    """`3 created, 1 already there, 2 failed; 4.1 MB in 2 s.`"""
    words = [f"{progress.outcomes[outcome]:,} {name}" for outcome, name in names.items() if progress.outcomes[outcome]]
    passed = f"{size(progress.passed_bytes)} in {duration(progress.elapsed_s)}"
    return f"{', '.join(words) or counted(0, 'file')}; {passed}"
