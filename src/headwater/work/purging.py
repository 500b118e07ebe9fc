"""Purging: nothing of ours is left of a deleted dataset, neither rows and files nor what uploads had begun."""

from headwater.catalog import datasets, features
from headwater.catalog.columns import upkeep
from headwater.work import deletion, exporting, tus
from headwater.work.upload import planned
from headwater.work.workplace import Workplace


async def purge_dataset(place: Workplace, dataset_id: int) -> None:
    """A job: uploads that are under way end first, while their store is known. Safe to repeat."""
    async with place.pool.connection() as conn:
        if await datasets.find_deleted(conn, dataset_id) is None:
            return
        await upkeep.drop(conn, dataset_id)
    await tus.drop_all(place, dataset_id)
    await planned.forget_all(place, dataset_id)
    await exporting.drop_all(place, dataset_id)
    async with place.pool.connection() as conn:
        await features.forget_dataset_vectors(conn, dataset_id)
    await deletion.purge_dataset(place, dataset_id)
