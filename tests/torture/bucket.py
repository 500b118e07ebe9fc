"""A bucket that remembers when each of its objects was there, and which of them Headwater deleted."""

from datetime import UTC, datetime
from typing import Any

from headwater.catalog.sync.hints import Action, Hint
from headwater.storage.stores import ListingPage
from tests.work.faults import LaneStore


class _Remembering(dict[str, bytes]):
    """Notes for each key since when it has been there, or away."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: dict[str, list[tuple[datetime, bool]]] = {}
        self.told: list[Hint] = []
        self.changes = 0

    def __setitem__(self, key: str, content: bytes) -> None:
        super().__setitem__(key, content)
        self._tell(key, "written", LaneStore.etag_of_content(content), len(content))
        self._note(key, is_there=bool(content) or key[-1] != "/")  # an empty one would be a folder marker

    def pop(self, key: str, *default: Any) -> Any:
        found = super().pop(key, *default)
        self._tell(key, "removed")
        self._note(key, is_there=False)
        return found

    def _tell(self, key: str, action: Action, etag: str | None = None, size_bytes: int | None = None) -> None:
        self.changes += 1
        self.told.append(Hint(key, action, f"{self.changes:016x}", datetime.now(UTC), None, etag, size_bytes))

    def _note(self, key: str, *, is_there: bool) -> None:
        self.turns.setdefault(key, []).append((datetime.now(UTC), is_there))


class Bucket(LaneStore):
    def __init__(self, *, page_keys: int) -> None:
        super().__init__(page_keys=page_keys)
        self.objects = _Remembering()

    @property
    def told(self) -> list[Hint]:
        """Events of what happened since they were cleared last."""
        return self.objects.told

    async def check_listing(self) -> ListingPage:
        self._called("check")
        return self._page(self.order(self.objects)[:20], is_last=True)

    def was_absent(self, key: str, since: datetime, until: datetime) -> bool:
        """At some moment between the two."""
        was_there = False
        for at, is_there in self.objects.turns.get(key, []):
            if at > until:
                break
            if at > since and not was_there:
                return True
            was_there = is_there
        return not was_there
