"""Previews: what the globs of a dataset would choose among the first objects of its bucket. Nothing is kept of it."""

from contextlib import aclosing
from dataclasses import dataclass, field

from headwater.catalog.sync.rules import SyncRules
from headwater.work.selection import Selection
from headwater.work.sync.batches import KeyRange, batches
from headwater.work.workplace import Workplace

LOOKED_AT = 10_000  # objects
_EXAMPLES = 10


@dataclass(slots=True)
class Preview:
    looked: int = 0
    kept: int = 0
    is_all: bool = True  # there are no more objects
    kept_examples: list[str] = field(default_factory=list[str])
    left_out_examples: list[str] = field(default_factory=list[str])

    def look_at(self, path: str, *, is_kept: bool) -> None:
        self.looked += 1
        self.kept += is_kept
        examples = self.kept_examples if is_kept else self.left_out_examples
        if len(examples) < _EXAMPLES:
            examples.append(path)


async def preview(place: Workplace, dataset_id: int, rules: SyncRules) -> Preview:
    """Raises BadRequest for a glob that cannot be read, and whatever the store says."""
    selection = Selection.of(rules)
    found = Preview()
    async with place.places.of_dataset(dataset_id) as store:
        everything = batches(store, KeyRange(None, None), Selection.of(SyncRules()), must_be_ordered=False)
        async with aclosing(everything) as listing:
            async for listed in listing:
                for path in listed.paths:
                    if found.looked == LOOKED_AT:
                        found.is_all = False
                        return found
                    found.look_at(path, is_kept=selection.keeps(path))
    return found
