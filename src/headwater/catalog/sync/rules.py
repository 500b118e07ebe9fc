"""Rules of a dataset's sync, as its users set them: which objects are items, what becomes of those that go."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from headwater.errors import NotFound

# The brake: more missing items than this are not marked before somebody confirms it.
BRAKE_ITEMS = 100
BRAKE_SHARE = 0.10


@dataclass(frozen=True, slots=True)
class SyncRules:
    include: tuple[str, ...] = ()  # globs; empty: everything
    exclude: tuple[str, ...] = ()  # globs; they win over `include`
    ghosts: Literal["flag", "trash"] = "flag"
    follow_moves: bool = False
    sidecars: bool = False  # name.ext.json holds the metadata of name.ext, see catalog/sidecars.py
    brake_items: int | None = None  # None: the default above
    brake_share: float | None = None

    def brake_limit(self, present: int) -> int:
        """How many of so many items may go missing in one scan before somebody has to confirm it."""
        items = BRAKE_ITEMS if self.brake_items is None else self.brake_items
        share = BRAKE_SHARE if self.brake_share is None else self.brake_share
        return max(items, int(share * present))


async def load_rules(conn: AsyncConnection[Any], dataset_id: int) -> SyncRules:
    """Raises NotFound."""
    cursor = await conn.execute("SELECT sync_rules FROM dataset WHERE id = %s", [dataset_id])
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"No dataset with id {dataset_id:024x}.")
    return rules_of(row[0])


def rules_of(stored: dict[str, Any]) -> SyncRules:
    """As they are kept in `dataset.sync_rules`."""
    lists: dict[str, Any] = {name: tuple(stored.get(name, ())) for name in ("include", "exclude")}
    return SyncRules(**stored | lists)


async def save_rules(conn: AsyncConnection[Any], dataset_id: int, rules: SyncRules) -> None:
    """They count from the next scan on. Whether their globs can be read is the caller's to know."""
    default = SyncRules()
    stored = {name: value for name, value in asdict(rules).items() if value != getattr(default, name)}
    await conn.execute(
        "UPDATE dataset SET sync_rules = %s, updated_at = now() WHERE id = %s", [Jsonb(stored), dataset_id]
    )
