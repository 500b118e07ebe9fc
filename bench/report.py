"""Figures: what a benchmark found out, as one line of JSON each."""

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    floor: float  # the same work done by the barest means, or the limit, in the same run
    unit: str
    target: float  # of the ratio
    is_limit: bool = False  # the ratio must not exceed the target, rather than reach it
    details: dict[str, Any] = field(default_factory=dict)
    must_hold: bool = True  # what else the figure asks for
    pairs: list[float] = field(default_factory=list)  # ratios of single measurements to the floor next to them

    @property
    def ratio(self) -> float:
        """Of neighbours where there are some: what else the machine does then weighs on both."""
        return median(self.pairs) if self.pairs else self.value / self.floor

    @property
    def passed(self) -> bool:
        is_met = self.ratio <= self.target if self.is_limit else self.ratio >= self.target
        return is_met and self.must_hold

    def line(self) -> str:
        facts = asdict(self)
        del facts["is_limit"], facts["must_hold"]
        facts |= {"ratio": self.ratio, "target": ("<= " if self.is_limit else ">= ") + f"{self.target:g}"}
        return json.dumps(_rounded({"name": self.name, "passed": self.passed} | facts))


def _rounded(found: Any) -> Any:
    """Four digits tell all that such a measurement knows."""
    if isinstance(found, dict):
        return {name: _rounded(inner) for name, inner in found.items()}
    if isinstance(found, list | tuple):
        return [_rounded(inner) for inner in found]
    if isinstance(found, float):
        return float(f"{found:.4g}") if abs(found) < 1_000 else round(found)
    return found
