"""Whose word on a bucket it is that the index is brought in step with, and since when."""

from datetime import datetime
from typing import Protocol


class Seen(Protocol):
    """A scan, or somebody who looked at single objects."""

    @property
    def dataset_id(self) -> int: ...

    @property
    def started_at(self) -> datetime:
        """By the database's clock, before anything was looked at: rows that were written since know better."""
        ...
