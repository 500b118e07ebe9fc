"""The jobs, by name: each unpacks its arguments and calls one function of this package."""

import asyncio
import logging
from typing import Any

from procrastinate import App, BaseRetryStrategy, JobContext, RetryDecision
from procrastinate.jobs import Job
from psycopg import OperationalError

from headwater.catalog import commands
from headwater.catalog.feature_sets import Metric
from headwater.catalog.notices import DELIVER_TASK
from headwater.errors import HeadwaterError, NotFound, Unavailable
from headwater.work import (
    annotations,
    bulk_metadata,
    cloning,
    columns,
    csv_import,
    deletion,
    exporting,
    feature_sets,
    ghosts,
    item_collections,
    moving,
    preprocess,
    purging,
    secrets,
    sidecars,
    sync,
    tus,
    verify,
    watching,
    webhooks,
)
from headwater.work.upload import planned
from headwater.work.workplace import Workplace

_SYNC_TRIES = 8
_VAULT_TRIES = 10_000  # a month: what is to be destroyed is not forgotten while the vault is away
_OTHER_TRIES = 100  # with five minutes between the last ones: a store that is down for hours loses us nothing
_log = logging.getLogger(__name__)


class _TryAgain(BaseRetryStrategy):
    """Again when a service was down, after 1, 2, 4 … s; at once when our worker was shut down in the middle."""

    def __init__(self, *, tries: int, longest_wait_s: int) -> None:
        self._tries = tries
        self._longest_wait_s = longest_wait_s

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, asyncio.CancelledError):
            return RetryDecision(retry_in={"seconds": 0})
        if isinstance(exception, Unavailable | OperationalError) and job.attempts < self._tries - 1:
            return RetryDecision(retry_in={"seconds": min(self._longest_wait_s, 2 ** min(job.attempts, 20))})
        return None


def register(app: App, place: Workplace) -> None:
    """Give `app` every job, with what it works on."""
    retry = _TryAgain(tries=_OTHER_TRIES, longest_wait_s=300)

    @app.task(name=sync.TASK, pass_context=True, retry=_TryAgain(tries=_SYNC_TRIES, longest_wait_s=60))
    async def run_scan(context: JobContext, scan_id: int, lane: int = 0, command_id: int | None = None) -> None:
        is_last_try = context.job.attempts >= _SYNC_TRIES - 1
        try:
            await sync.run_scan(place, scan_id, lane, command_id=command_id, is_last_try=is_last_try)
        except (Unavailable, OperationalError) as error:
            _log.warning("The sync of scan %s waits: %s", scan_id, error)
            await watching.note_trouble(place.pool, scan_id, error)
            if is_last_try:  # or the dataset would be syncing for ever
                await sync.give_up(place, scan_id)
            raise
        except Exception:
            _log.exception("The sync of scan %s failed", scan_id)
            await sync.give_up(place, scan_id)
            raise

    @app.task(name=sync.SETTLE_TASK, retry=retry)
    async def settle_items() -> None:
        await sync.settle_items(place)

    _register_preprocessing(app, place, retry)
    _register_metadata(app, place, retry)
    _register_features(app, place, retry)
    _register_deletions(app, place, retry)
    _register_clones(app, place, retry)
    _register_uploads(app, place, retry)
    _register_csv_imports(app, place, retry)
    _register_exports(app, place, retry)
    _register_columns(app, place, retry)

    @app.task(name=deletion.PURGE_TASK, retry=retry)
    async def purge_dataset(dataset_id: int) -> None:
        await purging.purge_dataset(place, dataset_id)

    @app.task(name=ghosts.TASK, retry=retry)
    async def settle_ghosts(command_id: int, wanted: dict[str, Any]) -> None:
        try:
            await ghosts.settle_ghosts(place, command_id=command_id, wanted=wanted)
        except OperationalError:
            raise
        except Exception:
            _log.exception("Command %s failed", command_id)
            await ghosts.give_up(place, command_id, "Headwater failed in this; its log says where.")
            raise

    @app.periodic(cron=ghosts.FORGET_EXPIRED_AT)
    @app.task(name=ghosts.FORGET_EXPIRED_TASK, retry=retry)
    async def forget_expired_ghosts(timestamp: int) -> None:
        _log.debug("The day's forgetting of %s", timestamp)
        await ghosts.forget_expired(place)

    @app.task(name=DELIVER_TASK, retry=retry)
    async def deliver_webhook(delivery_id: int, number: int) -> None:
        await webhooks.deliver(place, delivery_id, number)

    @app.task(name=secrets.DROP_UNUSED_TASK, retry=retry)
    async def drop_unused_secret(secret_id: int) -> None:
        await secrets.drop_unused(place, secret_id)

    @app.task(name=secrets.DESTROY_TASK, retry=_TryAgain(tries=_VAULT_TRIES, longest_wait_s=300))
    async def destroy_secret(mount: str, path: str) -> None:
        await secrets.destroy(place, mount=mount, path=path)


def _register_columns(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    @app.task(name=columns.TASK, retry=retry)
    async def build_columns(dataset_id: int, at_once: bool) -> None:
        try:
            await columns.build_columns(place, dataset_id, at_once=at_once)
        except (Unavailable, OperationalError):
            raise
        except Exception:
            _log.exception("The columns of dataset %s could not be built", dataset_id)
            await columns.give_up(place, dataset_id, "Headwater failed in building them; its log says where.")
            raise


def _register_preprocessing(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    @app.task(name=preprocess.TASK, retry=retry)
    async def preprocess_items(dataset_id: int, item_ids: list[int]) -> None:
        await preprocess.preprocess_items(place, dataset_id, item_ids)

    @app.task(name=preprocess.LINKS_TASK, retry=retry)
    async def preprocess_links(dataset_id: int, item_ids: list[int]) -> None:
        await preprocess.preprocess_links(place, dataset_id, item_ids)


def _register_metadata(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    """What changes the metadata of many items."""

    @app.task(name=bulk_metadata.TASK, retry=retry)
    async def change_items(command_id: int, **arguments: Any) -> None:
        try:
            await bulk_metadata.change_items(place, command_id=command_id, **arguments)
        except OperationalError:
            raise
        except HeadwaterError as error:
            await bulk_metadata.give_up(place, command_id, str(error))
        except Exception:
            _log.exception("Change %s failed", command_id)
            await bulk_metadata.give_up(place, command_id, "Headwater failed in this change; its log says where.")
            raise

    @app.task(name=annotations.TASK, retry=retry)
    async def change_annotations(command_id: int, **arguments: Any) -> None:
        try:
            await annotations.change_annotations(place, command_id=command_id, **arguments)
        except OperationalError:
            raise
        except HeadwaterError as error:
            await annotations.give_up(place, command_id, str(error))
        except Exception:
            _log.exception("Change %s of annotations failed", command_id)
            await annotations.give_up(place, command_id, "Headwater failed in this change; its log says where.")
            raise

    @app.task(name=item_collections.TASK, retry=retry)
    async def mark_items(command_id: int, **arguments: Any) -> None:
        try:
            await item_collections.mark_items(place, command_id=command_id, **arguments)
        except OperationalError:
            raise
        except Exception:
            _log.exception("Command %s failed", command_id)
            error = "Headwater failed in this; its log says where."
            await item_collections.give_up(place, command_id, error, **arguments)
            raise

    @app.task(name=sidecars.MARK_TASK, retry=retry)
    async def mark_sidecars(dataset_id: int) -> None:
        await sidecars.mark_sidecars(place, dataset_id)


def _register_features(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    """What indexes and drops many vectors."""

    @app.task(name=feature_sets.INDEX_TASK, retry=retry)
    async def index_feature_set(command_id: int, set_id: int, metric: Metric) -> None:
        try:
            await feature_sets.index_set(place, command_id=command_id, set_id=set_id, metric=metric)
        except OperationalError:
            raise
        except Exception:
            _log.exception("Index of feature set %s failed", set_id)
            error = "Headwater failed in this index; its log says where."
            await feature_sets.give_up(place, command_id, set_id, error)
            raise

    @app.task(name=feature_sets.DROP_TASK, retry=retry)
    async def drop_feature_set(set_id: int) -> None:
        await feature_sets.drop_set(place, set_id)


def _register_uploads(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    """What clears up after uploads that nobody ended."""

    @app.periodic(cron=tus.CLEAN_AT)
    @app.task(name=tus.CLEAN_TASK, retry=retry)
    async def drop_expired_uploads(timestamp: int) -> None:
        _log.debug("The hour's cleaning of %s", timestamp)
        await tus.drop_expired(place)

    @app.periodic(cron=planned.FORGET_EXPIRED_AT)
    @app.task(name=planned.FORGET_EXPIRED_TASK, retry=retry)
    async def forget_expired_uploads(timestamp: int) -> None:
        _log.debug("The hour's forgetting of %s", timestamp)
        await planned.forget_expired(place)


def _register_clones(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    """What changes only what the index knows, and no byte."""

    @app.task(name=cloning.TASK, retry=retry)
    async def clone_items(command_id: int, **arguments: Any) -> None:
        try:
            await cloning.clone_items(place, command_id=command_id, **arguments)
        except OperationalError:
            raise
        except Exception:
            _log.exception("Clone %s failed", command_id)
            await cloning.give_up(place, command_id, "Headwater failed in this; its log says where.")
            raise

    @app.task(name=moving.TASK, retry=retry)
    async def move_items(command_id: int, **arguments: Any) -> None:
        try:
            await moving.move_items(place, command_id=command_id, **arguments)
        except OperationalError:
            raise
        except Exception:
            _log.exception("Move %s failed", command_id)
            await moving.give_up(place, command_id, "Headwater failed in this; its log says where.")
            raise


def _register_deletions(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    """What deletes many at once, and what looks whether all is right."""

    @app.task(name=deletion.DELETE_OBJECT_TASK, pass_context=True, retry=retry)
    async def delete_object(context: JobContext, **arguments: Any) -> None:
        is_last_try = context.job.attempts >= _OTHER_TRIES - 1
        await deletion.delete_object(place, **arguments, is_last_try=is_last_try)

    @app.task(name=deletion.DELETE_OBJECTS_TASK, pass_context=True, retry=retry)
    async def delete_objects(context: JobContext, **arguments: Any) -> None:
        is_last_try = context.job.attempts >= _OTHER_TRIES - 1
        await deletion.delete_objects(place, **arguments, is_last_try=is_last_try)

    @app.task(name=deletion.DELETE_ITEMS_TASK, retry=retry)
    async def delete_items(command_id: int, wanted: dict[str, Any], last_id: int) -> None:
        try:
            await deletion.delete_items(place, command_id=command_id, wanted=wanted, last_id=last_id)
        except OperationalError:
            raise
        except HeadwaterError as error:
            await deletion.give_up(place, command_id, str(error))
        except Exception:
            _log.exception("Deletion %s failed", command_id)
            await deletion.give_up(place, command_id, "Headwater failed in this deletion; its log says where.")
            raise

    @app.task(name=verify.TASK, pass_context=True, retry=_TryAgain(tries=_SYNC_TRIES, longest_wait_s=60))
    async def verify_dataset(context: JobContext, command_id: int) -> None:
        is_last_try = context.job.attempts >= _SYNC_TRIES - 1
        try:
            await verify.verify_dataset(place, command_id, is_last_try=is_last_try)
        except NotFound:
            return
        except (Unavailable, OperationalError):
            if is_last_try:
                await verify.give_up(place, command_id)
            raise
        except Exception:
            _log.exception("Verification %s failed", command_id)
            await verify.give_up(place, command_id)
            raise


def _register_csv_imports(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    @app.task(name=csv_import.TASK, pass_context=True, retry=_TryAgain(tries=_SYNC_TRIES, longest_wait_s=60))
    async def import_csv(context: JobContext, command_id: int) -> None:
        try:
            await csv_import.import_rows(place, command_id)
        except (Unavailable, OperationalError) as error:
            if context.job.attempts >= _SYNC_TRIES - 1:
                await csv_import.give_up(place, command_id, str(error))
            elif isinstance(error, Unavailable):
                async with place.pool.connection() as conn:
                    await commands.note_trouble(conn, command_id, str(error))
            raise
        except HeadwaterError as error:
            await csv_import.give_up(place, command_id, str(error))
        except Exception:
            _log.exception("Import %s failed", command_id)
            await csv_import.give_up(place, command_id, "Headwater failed in this import; its log says where.")
            raise

    @app.periodic(cron=csv_import.CLEAN_AT)
    @app.task(name=csv_import.CLEAN_TASK, retry=retry)
    async def drop_csv_imports(timestamp: int) -> None:
        _log.debug("The hour's cleaning of %s", timestamp)
        await csv_import.drop_expired(place)


def _register_exports(app: App, place: Workplace, retry: BaseRetryStrategy) -> None:
    @app.task(name=exporting.TASK, pass_context=True, retry=_TryAgain(tries=_SYNC_TRIES, longest_wait_s=60))
    async def export_items(context: JobContext, command_id: int) -> None:
        try:
            await exporting.run_export(place, command_id)
        except (Unavailable, OperationalError) as error:
            if context.job.attempts >= _SYNC_TRIES - 1:
                await exporting.give_up(place, command_id, str(error))
            elif isinstance(error, Unavailable):
                async with place.pool.connection() as conn:
                    await commands.note_trouble(conn, command_id, str(error))
            raise
        except HeadwaterError as error:
            await exporting.give_up(place, command_id, str(error))
        except Exception:
            _log.exception("Export %s failed", command_id)
            await exporting.give_up(place, command_id, "Headwater failed in this export; its log says where.")
            raise

    @app.periodic(cron=exporting.CLEAN_AT)
    @app.task(name=exporting.CLEAN_TASK, retry=retry)
    async def drop_exports(timestamp: int) -> None:
        _log.debug("The hour's cleaning of %s", timestamp)
        await exporting.drop_expired(place)
