"""Lanes: the jobs of a scan, by number. Which of them are there, and which have gone before their work was done.

A run of a scan is what one command did of it: one that was stopped and goes on has jobs of their own.
"""

from typing import Any, LiteralString

from psycopg import AsyncConnection


def job_name(command_id: int, lane: int) -> str:
    """The lock of a lane's job, and its queueing lock."""
    return f"sync:{command_id}:{lane}"


_LANES: LiteralString = """
SELECT
    scan.id AS scan_id, scan.command_id, lane.number,
    EXISTS (
        SELECT FROM scan_shard
        WHERE scan_shard.scan_id = scan.id AND scan_shard.lane = lane.number AND NOT scan_shard.done
    ) AS has_shard,
    EXISTS (
        SELECT FROM procrastinate_jobs
        WHERE status = 'doing' AND lock = format('sync:%%s:%%s', scan.command_id, lane.number)
    ) OR EXISTS (
        SELECT FROM procrastinate_jobs
        WHERE status = 'todo' AND queueing_lock = format('sync:%%s:%%s', scan.command_id, lane.number)
    ) AS has_job
FROM scan, generate_series(0, %(lanes)s - 1) AS lane (number)
WHERE scan.state = 'running'
"""


async def idle_lanes(conn: AsyncConnection[Any], scan_id: int, lanes: int) -> list[int]:
    """Which of the first `lanes` have neither a shard nor a job. Call it with the scan locked."""
    cursor = await conn.execute(
        "SELECT number FROM ("
        + _LANES
        + "AND scan.id = %(scan_id)s) AS lane WHERE NOT has_shard AND NOT has_job ORDER BY number",
        {"scan_id": scan_id, "lanes": lanes},
    )
    return [number for (number,) in await cursor.fetchall()]


async def find_lost(conn: AsyncConnection[Any], lanes: int) -> list[tuple[int, int, int]]:
    """(scan, its command, lane) of lanes that hold a shard and have no job, and the first of scans without any job."""
    cursor = await conn.execute(
        """
        SELECT scan_id, command_id, number
        FROM (
            SELECT *, bool_or(has_job) OVER (PARTITION BY scan_id) AS is_worked_on
            FROM ("""
        + _LANES
        + """) AS lane
        ) AS lane
        WHERE NOT has_job AND (has_shard OR (number = 0 AND NOT is_worked_on))
        ORDER BY scan_id, number
        """,
        {"lanes": lanes},
    )
    return await cursor.fetchall()
