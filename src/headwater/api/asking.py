"""Asks a dataset: in one snapshot, within the time there is, and what was slow is noted with what would help."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from headwater import ids
from headwater.api.caller import Server
from headwater.catalog import finding, slow_queries
from headwater.catalog.finding import Asking
from headwater.catalog.query import Page, Tree
from headwater.errors import QueryTooSlow

_PAGES_OF_A_SUM = 4  # so much longer than a page may it take


@asynccontextmanager
async def asking_of(
    server: Server, dataset_id: int, tree: Tree | None, page: Page | None = None
) -> AsyncGenerator[tuple[AsyncConnection[Any], Asking]]:
    """A connection, and how to ask. Raises QueryTooSlow with the index that is missing."""
    asking = Asking(server.columns, timeout_s=server.settings.query_timeout_s)
    try:
        async with server.place.pool.connection() as conn, finding.begin(conn, asking):
            yield conn, asking
    except QueryTooSlow as error:
        server.queries.stopped += 1
        uncovered = await _note(server, dataset_id, tree, page, asking, is_stopped=True)
        raise QueryTooSlow(f"{error} {slow_queries.advice(ids.to_wire(dataset_id), uncovered)}".strip()) from None
    server.queries.plans[asking.plan] += 1
    if asking.elapsed_s > server.settings.slow_query_s:
        await _note(server, dataset_id, tree, page, asking)


@asynccontextmanager
async def summing_up(server: Server, conn: AsyncConnection[Any]) -> AsyncGenerator[None]:
    """Looks at all that is to be changed or deleted, before its command begins, which may take as long as it takes.

    All items are read once, without columns, so it may take longer than a page. Raises QueryTooSlow.
    """
    try:
        async with finding.within(conn, _PAGES_OF_A_SUM * server.settings.query_timeout_s):
            yield
    except QueryTooSlow as error:
        server.queries.stopped += 1
        raise QueryTooSlow(f"{error} Nothing was changed. Choose fewer items at once, such as one folder.") from None


async def _note(
    server: Server, dataset_id: int, tree: Tree | None, page: Page | None, asking: Asking, *, is_stopped: bool = False
) -> list[str]:
    """The paths that an index would help."""
    server.queries.slow += 1
    names = asking.uncovered if asking.has_columns else slow_queries.paths_of(tree, page)
    uncovered = [name for name in names if slow_queries.can_be_indexed(name)]
    async with server.place.pool.connection() as conn:
        await slow_queries.record(
            conn,
            dataset_id,
            shape=slow_queries.shape_of(tree, page),
            plan=asking.plan,
            uncovered=uncovered,
            seconds=asking.elapsed_s,
            rows=None if is_stopped else asking.rows,
        )
    return uncovered
