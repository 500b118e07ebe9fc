"""What is left of exports goes: pieces at the end, everything after a failure, files after some days."""

from datetime import timedelta

from headwater.catalog import datasets, exports, items
from headwater.catalog.exports import Export
from headwater.errors import NotFound
from headwater.storage.stores import Doomed, Store
from headwater.work import deletion
from headwater.work.workplace import Workplace

CLEAN_TASK = "drop_exports"
CLEAN_AT = "23 * * * *"  # cron, in UTC
_PIECES = "exports/"
_VERSIONS_KEPT = timedelta(days=180)


def pieces_folder(command_id: int) -> str:
    """Of our own storage of Binaries, where pieces lie that become no items."""
    return f"{_PIECES}{command_id:016x}/"


def whole_folder(command_id: int) -> str:
    """Where files lie that become items."""
    return f"objects/exports/{command_id:016x}/"


async def clean(place: Workplace, store: Store, command_id: int) -> None:
    """Of one that has ended: its pieces, and files that no item came of. Safe to repeat."""
    async with place.pool.connection() as conn:
        kept = {file.key for file in await exports.list_files(conn, command_id) if file.item_id is not None}
    for folder in (pieces_folder(command_id), whole_folder(command_id)):
        async for page in store.list_pages(prefix=folder):
            await store.delete_many([Doomed(key) for key in page.keys if key not in kept])
    async with place.pool.connection() as conn:
        await exports.forget_pieces(conn, command_id)


async def drop(place: Workplace, export: Export) -> None:
    """Nothing is left of it but its command. Safe to repeat."""
    try:
        async with place.pool.connection() as conn:
            await datasets.load_dataset(conn, export.binaries_id)
    except NotFound:  # the project is deleted, and all of its files go with it
        async with place.pool.connection() as conn:
            await exports.note_dropped(conn, export.command_id)
        return
    async with place.pool.connection() as conn:
        files = await exports.list_files(conn, export.command_id)
    for file in files:
        if file.item_id is None:
            continue
        async with place.pool.connection() as conn:
            item = await items.find_item(conn, file.item_id)
            if item is not None and item.dataset_id == export.binaries_id:
                await deletion.delete_item(conn, item)
    async with place.places.of_own(export.binaries_id) as store:
        for folder in (pieces_folder(export.command_id), whole_folder(export.command_id)):
            async for page in store.list_pages(prefix=folder):
                await store.delete_many([Doomed(key) for key in page.keys])
    async with place.pool.connection() as conn:
        await exports.note_dropped(conn, export.command_id)


async def drop_expired(place: Workplace) -> None:
    """The hourly job."""
    kept_for = timedelta(days=place.export_days)
    while True:
        async with place.pool.connection() as conn:
            left = await exports.find_left(conn, after=kept_for)
        for export in left:
            await drop(place, export)
        if not left:
            break
    async with place.pool.connection() as conn:
        unclean = await exports.find_with_pieces(conn)
    for export in unclean:
        async with place.places.of_own(export.binaries_id) as store:
            await clean(place, store, export.command_id)
    async with place.pool.connection() as conn:
        await exports.forget_versions(conn, after=_VERSIONS_KEPT)


async def drop_all(place: Workplace, dataset_id: int) -> None:
    """Exports of a deleted dataset, and what lies in it if it is Binaries. Safe to repeat."""
    async with place.pool.connection() as conn:
        await exports.forget_all(conn, dataset_id)
        kept = await exports.find_kept(conn, dataset_id)
    for export in kept:
        await drop(place, export)
    async with place.places.of_own(dataset_id) as store:
        async for page in store.list_pages(prefix=_PIECES):
            await store.delete_many([Doomed(key) for key in page.keys])
