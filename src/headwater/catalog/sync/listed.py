"""Listed: some consecutive objects of a bucket as its listing has them, and how they travel to PostgreSQL."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString, Self

# Texts travel as one parameter, joined: psycopg turns lists into arrays element by element, which costs as much as
# the whole merge of an unchanged batch. Keys hold any character but NUL, so a batch with this one goes the slow way.
SEPARATOR = "\x1f"


@dataclass(slots=True)
class Listed:
    """Some consecutive objects of a listing as parallel lists, and the range of paths they prove.

    `after` is not in the range; `through` is its last path, None for the end of the shard's bucket.
    """

    paths: list[str]
    sizes: list[int]
    etags: list[str]
    modified: list[str]
    after: str | None
    through: str | None
    skipped: int = 0
    skipped_examples: Sequence[tuple[str, str]] = ()
    key_pages: Sequence[Sequence[str]] = ()  # all keys the store listed, items or not; none of the pages is empty
    beyond: str | None = None  # what it listed first behind the shard's end

    @property
    def first_seen(self) -> str | None:
        """The path that the store listed first, item or not."""
        return "/" + self.key_pages[0][0] if self.key_pages else None

    def first_behind(self, path: str) -> str | None:
        """The first path behind this one that the store listed, item or not; the batch must be ordered."""
        for keys in self.key_pages:
            if keys[-1] > path[1:]:
                return "/" + keys[bisect_right(keys, path[1:])]
        return None

    def until(self, path: str) -> Self:
        """What lies in a range that ends with this path."""
        return replace(self._through(path, bisect_right(self.paths, path)), beyond=self.first_behind(path))

    def first_objects(self, number: int) -> Self:
        """The first objects, at least one, and the range they prove."""
        return self._through(self.paths[number - 1], number)

    def _through(self, path: str, number: int) -> Self:
        """Only what lies in the range that ends with this path: so many objects, and what was skipped in it."""
        skipped = [(name, why) for name, why in self.skipped_examples if "/" + name <= path]
        return replace(
            self,
            paths=self.paths[:number],
            sizes=self.sizes[:number],
            etags=self.etags[:number],
            modified=self.modified[:number],
            through=path,
            skipped=len(skipped),
            skipped_examples=skipped,
        )


def column(name: str, texts: Sequence[str]) -> tuple[LiteralString, dict[str, Any]]:
    """SQL of a text[] parameter called `paths`, `etags`, `modified` or `mime_types`, and its value."""
    joined = SEPARATOR.join(texts)
    if joined and joined.count(SEPARATOR) == len(texts) - 1:  # PostgreSQL splits '' into nothing, not into ['']
        return _JOINED[name], {name: joined}
    return _LISTED[name], {name: list(texts)}


_JOINED: dict[str, LiteralString] = {
    "paths": "string_to_array(%(paths)s, %(separator)s)",
    "etags": "string_to_array(%(etags)s, %(separator)s)",
    "modified": "string_to_array(%(modified)s, %(separator)s)",
    "mime_types": "string_to_array(%(mime_types)s, %(separator)s)",
}
_LISTED: dict[str, LiteralString] = {
    "paths": "%(paths)s::text[]",
    "etags": "%(etags)s::text[]",
    "modified": "%(modified)s::text[]",
    "mime_types": "%(mime_types)s::text[]",
}


def array(numbers: Any) -> str:
    """Numbers as the text of a PostgreSQL array."""
    return "{" + ",".join(map(str, numbers)) + "}"
