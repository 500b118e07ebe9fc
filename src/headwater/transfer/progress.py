"""Progress: how far a transfer is, and what became of its files. One thread writes it, another may show it."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field

_KEPT_FAILURES = 1_000  # to be told; all are counted
_RATE_OVER_S = 10.0


@dataclass(frozen=True, slots=True)
class Failure:
    path: str  # printable
    reason: str


@dataclass(slots=True)
class Progress:
    files: int = 0  # known by now
    bytes: int = 0
    is_counted: bool = False  # `files` and `bytes` are all there are
    settled_files: int = 0
    settled_bytes: int = 0  # of settled files, and what has passed of those under way
    passed_bytes: int = 0  # over the wire
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    missing: list[Failure] = field(default_factory=list)
    _began_at: float = field(default_factory=time.monotonic)
    _marks: deque[tuple[float, int, int]] = field(default_factory=deque)

    def settle(self, outcome: str, size_bytes: int) -> None:
        """One file has come to its end; `size_bytes` is what was not counted as passed before."""
        self.outcomes[outcome] += 1
        self.settled_files += 1
        self.settled_bytes += size_bytes

    def fail(self, path: str, reason: str, size_bytes: int = 0) -> None:
        self.settle("failed", size_bytes)
        if len(self.failures) < _KEPT_FAILURES:
            self.failures.append(Failure(path, reason))

    def miss(self, path: str, reason: str) -> None:
        """Told, and no failure: there is nothing to be had."""
        self.settle("missing", 0)
        if len(self.missing) < _KEPT_FAILURES:
            self.missing.append(Failure(path, reason))

    @property
    def failed(self) -> int:
        return self.outcomes["failed"]

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_at

    @property
    def percent(self) -> float:
        """By bytes where they are known and by files as well: many small files cost more than their bytes."""
        parts = [(self.settled_files, self.files), (self.settled_bytes, self.bytes)]
        shares = [min(1.0, done / total) for done, total in parts if total]
        return 100 * sum(shares) / len(shares) if shares else 0.0

    def rates(self) -> tuple[float, float]:
        """Bytes over the wire and files settled, each a second, over the last seconds."""
        now = time.monotonic()
        self._marks.append((now, self.passed_bytes, self.settled_files))
        while len(self._marks) > 2 and now - self._marks[0][0] > _RATE_OVER_S:
            self._marks.popleft()
        then, passed_bytes, files = self._marks[0]
        passed_s = max(now - then, 1e-9)
        return (self.passed_bytes - passed_bytes) / passed_s, (self.settled_files - files) / passed_s

    def seconds_left(self) -> float | None:
        """None while it cannot be told."""
        share = self.percent / 100
        if not self.is_counted or share <= 0 or self.elapsed_s < 2:
            return None
        return self.elapsed_s * (1 - share) / share
