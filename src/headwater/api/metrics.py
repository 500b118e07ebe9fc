"""Metrics for Prometheus, for who has the operator's token."""

import hmac
from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from headwater.api.caller import ServerDep, needs
from headwater.catalog import metrics
from headwater.catalog.metrics import DatasetFigures, OtherFigures, QueueFigures
from headwater.catalog.slow_queries import QueryCounts
from headwater.errors import NotFound, Unauthorized
from headwater.ids import to_wire

router = APIRouter(tags=["server"])

_OF_DATASET = ["project", "dataset", "id"]


@router.get("/metrics", openapi_extra=needs("anybody"), response_class=Response)
async def read_metrics(request: Request, server: ServerDep) -> Response:
    """In the text format of Prometheus, for who shows HEADWATER_METRICS_TOKEN; without that setting it is off."""
    token = server.settings.metrics_token
    if token is None:
        raise NotFound("Metrics are off. The operator of this server sets HEADWATER_METRICS_TOKEN to have them.")
    given = request.headers.get("authorization", "").encode()
    if not hmac.compare_digest(given, b"Bearer " + token.get_secret_value().encode()):
        raise Unauthorized("Metrics need the header authorization: Bearer TOKEN, with HEADWATER_METRICS_TOKEN.")
    async with server.place.pool.connection() as conn:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(
            _Figures(
                await metrics.dataset_figures(conn),
                await metrics.queue_figures(conn),
                await metrics.other_figures(conn),
                server.place.pool.get_stats(),
                server.queries,
            )
        )
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)


class _Figures(Collector):
    def __init__(
        self,
        datasets: list[DatasetFigures],
        queues: list[QueueFigures],
        other: OtherFigures,
        pool: dict[str, int],
        queries: QueryCounts,
    ) -> None:
        self._datasets, self._queues, self._other, self._pool = datasets, queues, other, pool
        self._queries = queries

    def collect(self) -> Iterator[Metric]:
        yield from self._of_datasets()
        yield from self._of_queues()
        yield from self._of_queries()
        other = self._other
        for name, words, value in (
            ("commands_stalled", "Commands that make no progress.", other.stalled_commands),
            ("hints_waiting", "Events of buckets that nobody has looked at.", other.waiting_hints),
            ("hints_oldest_age_seconds", "Age of the oldest of them.", other.oldest_hint_age_s),
            ("webhook_deliveries_waiting", "Deliveries on their way, or to be tried again.", other.waiting_deliveries),
            ("database_connections", "Connections of this process.", self._pool.get("pool_size", 0)),
            ("database_connections_idle", "Those that nobody uses.", self._pool.get("pool_available", 0)),
            ("database_requests_waiting", "Requests that wait for one.", self._pool.get("requests_waiting", 0)),
        ):
            yield GaugeMetricFamily(f"headwater_{name}", words, value=value)

    def _of_datasets(self) -> Iterator[GaugeMetricFamily]:
        for name, words, value_of in (
            ("items", "Items, hidden and missing ones included.", lambda one: one.items),
            ("missing_items", "Items whose objects are gone from the bucket.", lambda one: one.missing_items),
            ("failed_items", "Items that could not be read.", lambda one: one.failed_items),
            ("waiting_items", "Items to be read yet.", lambda one: one.waiting_items),
            ("size_bytes", "Bytes of its objects.", lambda one: one.size_bytes),
            ("last_sync_age_seconds", "Since the end of the last good sync.", lambda one: one.last_sync_age_s),
            ("last_sync_failed", "1: the last sync that ended failed.", lambda one: one.last_sync_failed),
            ("sync_running", "1: a sync runs.", lambda one: one.is_syncing),
            ("sync_objects_per_second", "Rate of the sync that runs.", lambda one: one.objects_per_s),
        ):
            family = GaugeMetricFamily(f"headwater_dataset_{name}", words, labels=_OF_DATASET)
            for one in self._datasets:
                value: float | None = value_of(one)
                if value is not None:
                    family.add_metric([one.project, one.name, to_wire(one.id)], value)
            yield family

    def _of_queries(self) -> Iterator[CounterMetricFamily]:
        """Since this process started."""
        answered = CounterMetricFamily(
            "headwater_queries", "Queries of items, by how they were answered.", labels=["plan"]
        )
        for plan, number in sorted(self._queries.plans.items()):
            answered.add_metric([plan], number)
        yield answered
        for name, words, value in (
            ("refused", "Queries answered with 400, which the SDK takes for an empty list.", self._queries.refused),
            ("slow", "Queries that took longer than they should; the log has their shapes.", self._queries.slow),
            ("stopped", "Queries that were stopped at the time limit.", self._queries.stopped),
        ):
            yield CounterMetricFamily(f"headwater_queries_{name}", words, value=value)

    def _of_queues(self) -> Iterator[GaugeMetricFamily]:
        waiting = GaugeMetricFamily("headwater_jobs_waiting", "Jobs that could run now.", labels=["queue"])
        oldest = GaugeMetricFamily("headwater_jobs_oldest_age_seconds", "Age of the oldest.", labels=["queue"])
        for queue in self._queues:
            waiting.add_metric([queue.name], queue.waiting)
            oldest.add_metric([queue.name], queue.oldest_age_s)
        yield from (waiting, oldest)
