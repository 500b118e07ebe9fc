"""Metrics: what an operator's monitoring watches, from counters and short tables alone: no cost grows with items."""

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

_MOST_COUNTED = 100_000  # waiting jobs and hints; more are as many


@dataclass(frozen=True, slots=True)
class DatasetFigures:
    id: int
    name: str
    project: str
    items: int
    missing_items: int
    failed_items: int
    waiting_items: int  # for preprocessing
    size_bytes: int
    last_sync_age_s: float | None  # since it was made, where none was good; None: in no bucket
    last_sync_failed: bool
    is_syncing: bool
    objects_per_s: float


@dataclass(frozen=True, slots=True)
class QueueFigures:
    name: str
    waiting: int  # that could run now
    oldest_age_s: float


async def dataset_figures(conn: AsyncConnection[Any]) -> list[DatasetFigures]:
    cursor = conn.cursor(row_factory=class_row(DatasetFigures))
    await cursor.execute(
        """
        SELECT dataset.id, dataset.name, project.name AS project, counter.items, counter.missing_items,
            counter.failed_items, counter.bytes AS size_bytes,
            greatest(0, counter.items - counter.prepared_items - counter.failed_items) AS waiting_items,
            CASE WHEN dataset.driver_id IS NOT NULL THEN
                extract(epoch FROM now() - coalesce(counter.synced_at, dataset.created_at))::float8
            END AS last_sync_age_s,
            coalesce(last.status NOT IN ('success', 'aborted', 'canceled'), false) AS last_sync_failed,
            scan.id IS NOT NULL AS is_syncing, coalesce(scan.objects_per_s, 0)::float8 AS objects_per_s
        FROM dataset
        JOIN project ON project.id = dataset.project_id
        JOIN dataset_counter AS counter ON counter.dataset_id = dataset.id
        LEFT JOIN scan ON scan.dataset_id = dataset.id AND scan.state = 'running'
        LEFT JOIN LATERAL (
            SELECT command.status
            FROM command
            JOIN scan AS ended ON ended.command_id = command.id AND ended.state <> 'running'
            WHERE command.dataset_id = dataset.id
            ORDER BY command.id DESC
            LIMIT 1
        ) AS last ON true
        WHERE dataset.deleted_at IS NULL AND project.deleted_at IS NULL
            AND (NOT dataset.is_system OR counter.items > 0)
        ORDER BY dataset.id
        """
    )
    return await cursor.fetchall()


async def queue_figures(conn: AsyncConnection[Any]) -> list[QueueFigures]:
    """Of the queues in which something waits. Jobs that are to run later do not."""
    cursor = conn.cursor(row_factory=class_row(QueueFigures))
    await cursor.execute(
        """
        SELECT waiting.queue_name AS name, waiting.number AS waiting,
            greatest(0, extract(epoch FROM now() - coalesce(job.scheduled_at, deferred.at, now())))::float8
                AS oldest_age_s
        FROM (
            SELECT queue_name, count(*) AS number, min(id) AS oldest_id
            FROM (
                SELECT queue_name, id
                FROM procrastinate_jobs
                WHERE status = 'todo' AND (scheduled_at IS NULL OR scheduled_at <= now())
                LIMIT %s
            ) AS sample
            GROUP BY queue_name
        ) AS waiting
        JOIN procrastinate_jobs AS job ON job.id = waiting.oldest_id
        LEFT JOIN LATERAL (
            SELECT min(event.at) AS at FROM procrastinate_events AS event WHERE event.job_id = waiting.oldest_id
        ) AS deferred ON true
        ORDER BY waiting.queue_name
        """,
        [_MOST_COUNTED],
    )
    return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class OtherFigures:
    stalled_commands: int
    waiting_hints: int  # of bucket events
    oldest_hint_age_s: float
    waiting_deliveries: int  # of webhooks


async def other_figures(conn: AsyncConnection[Any]) -> OtherFigures:
    cursor = conn.cursor(row_factory=class_row(OtherFigures))
    await cursor.execute(
        """
        SELECT
            (
                SELECT count(*) FROM command
                WHERE status IN ('created', 'in-progress') AND spec ? 'stalledSince'
            ) AS stalled_commands,
            hints.number AS waiting_hints,
            coalesce(extract(epoch FROM now() - hints.oldest_at), 0)::float8 AS oldest_hint_age_s,
            (
                SELECT count(*)
                FROM (SELECT FROM webhook_delivery WHERE status = 'waiting' LIMIT %(most)s) AS deliveries
            ) AS waiting_deliveries
        FROM (
            SELECT count(*) AS number, min(received_at) AS oldest_at
            FROM (SELECT received_at FROM hint LIMIT %(most)s) AS sample
        ) AS hints
        """,
        {"most": _MOST_COUNTED},
    )
    found = await cursor.fetchone()
    assert found is not None
    return found
