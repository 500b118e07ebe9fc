"""Links: items whose bytes lie elsewhere, at a URL or in another item."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

Kind = Literal["url", "id"]


@dataclass(frozen=True, slots=True)
class Link:
    """What somebody asked for. The row of the item keeps it, with what was found at its end beside it."""

    kind: Kind
    ref: str  # a URL, or the wire id of an item
    mime_type: str | None = None  # as said; what its bytes say is the item's own
    dataset_id: str | None = None  # the wire id of the dataset of a linked item, as said

    def to_json(self) -> dict[str, Any]:
        """For the column `item.link`."""
        return asdict(self)

    @classmethod
    def of(cls, row: dict[str, Any]) -> Self:
        """From the column `item.link`."""
        return cls(row["kind"], row["ref"], row.get("mime_type"), row.get("dataset_id"))
