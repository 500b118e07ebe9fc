"""The ledger: every change of every row of a dataset, written down by the database itself, and what must hold of it.

No prediction of ours can be as exact as this: whatever order things happened in, each row that was added was told as
Created once, each that got another content as Updated once, and none went missing while its object was there.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from tests.work.world import World, events_of, recount

_TRIGGERS = """
CREATE TABLE ledger (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    dataset_id bigint NOT NULL,
    was jsonb,
    became jsonb,
    is_upload boolean NOT NULL -- over what was there
);
CREATE INDEX ledger_dataset ON ledger (dataset_id, seq);
CREATE TABLE ledger_progress (dataset_id bigint NOT NULL, was jsonb NOT NULL, became jsonb NOT NULL);

CREATE FUNCTION note_item() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger (dataset_id, was, became, is_upload)
    VALUES (
        coalesce(NEW.dataset_id, OLD.dataset_id), to_jsonb(OLD), to_jsonb(NEW),
        TG_OP = 'UPDATE' AND position('DO UPDATE' IN current_query()) > 0
    );
    RETURN NULL;
END $$;
CREATE TRIGGER note_item AFTER INSERT OR UPDATE OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION note_item();

CREATE FUNCTION note_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.progress_percent < OLD.progress_percent
        OR (NEW.spec #>> '{sync,listed}')::bigint < (OLD.spec #>> '{sync,listed}')::bigint
    THEN
        INSERT INTO ledger_progress VALUES (NEW.dataset_id, to_jsonb(OLD), to_jsonb(NEW));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER note_progress AFTER UPDATE ON command FOR EACH ROW EXECUTE FUNCTION note_progress();
"""


async def install(conn: AsyncConnection[Any]) -> None:
    await conn.execute(_TRIGGERS)


@dataclass
class Ledger:
    """One dataset's, read step by step."""

    world: World
    dataset_id: int
    was_absent: Callable[[str, datetime, datetime], bool]  # an object, at some moment between two
    asked_away: set[str] = field(default_factory=set)  # paths whose rows somebody asked to remove
    born: dict[int, str] = field(default_factory=dict)
    refilled: Counter[int] = field(default_factory=Counter)  # with another content, or uploaded again
    _seq: int = 0

    async def check(self, since: datetime) -> None:
        """Everything that was written since the last time; `since` is when the step began that wrote it."""
        async with self.world.connection() as conn:
            await recount(conn, self.dataset_id)
            await self._read(conn, since)
            told = await events_of(conn, self.dataset_id)
            cursor = await conn.execute(
                "SELECT was, became FROM ledger_progress WHERE dataset_id = %s", [self.dataset_id]
            )
            assert await cursor.fetchall() == [], "progress went back"
        assert {item_id: times for (action, item_id), times in told.items() if action == "Created"} == dict.fromkeys(
            self.born, 1
        ), "not every item was told as created, once"
        updated = Counter({item_id: times for (action, item_id), times in told.items() if action == "Updated"})
        assert updated == self.refilled, "not every new content was told once"

    async def _read(self, conn: AsyncConnection[Any], since: datetime) -> None:
        cursor = await conn.execute(
            "SELECT seq, at, was, became, is_upload FROM ledger WHERE dataset_id = %s AND seq > %s ORDER BY seq",
            [self.dataset_id, self._seq],
        )
        for seq, at, was, became, is_upload in await cursor.fetchall():
            self._seq = seq
            if was is None:
                self.born[became["id"]] = became["path"]
            elif became is None:
                assert was["path"] in self.asked_away, f"nobody asked to remove {was['path']!r}"
            else:
                self._changed(at, was, became, since, is_upload=is_upload)

    def _changed(
        self, at: datetime, was: dict[str, Any], became: dict[str, Any], since: datetime, *, is_upload: bool
    ) -> None:
        path = became["path"]
        if is_upload or any(was[name] != became[name] for name in ("etag", "size_bytes")):
            self.refilled[became["id"]] += 1
        if was["missing_since"] is None and became["missing_since"] is not None:
            assert self.was_absent(path[1:], since, at), f"{path!r} went missing and was there all the time"
