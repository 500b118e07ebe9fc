"""Preprocessing: reads each new object once, writes its thumbnail to the hidden folder of its bucket, and its facts
to its row. A bad file ends with a typed reason on its item, never with a stuck job.

What links lead to is looked at by jobs of a queue of their own: who is slow elsewhere holds up nobody's files.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, items, links, preparing
from headwater.catalog.items import HIDDEN_FOLDER, Item
from headwater.catalog.links import Recognised
from headwater.catalog.preparing import PreparedItem
from headwater.catalog.sidecars import are_on as has_sidecars
from headwater.errors import BadRequest, FailedDependency, StoreDenied, StoreMissing, Unavailable
from headwater.ids import to_wire
from headwater.media.probe import sniff_mime_type
from headwater.media.records import Prepared, Thumbnail, VideoFacts
from headwater.mime_types import guess_mime_type
from headwater.storage.stores import ObjectReader, Store
from headwater.work import linked, sidecars
from headwater.work.spooling import read_head, spooled
from headwater.work.workplace import Workplace

TASK = "preprocess_items"
LINKS_TASK = "preprocess_links"
LINKS_QUEUE = "links"
_HEAD_BYTES = 64 * 1024  # enough to tell what a file is
_COMMIT_EVERY = 25  # items; what a crash may repeat


_EXTENSIONS = {"image/jpeg": "jpg", "image/webp": "webp"}


def thumbnail_key(item_id: int, thumbnail_type: str) -> str:
    """Where the thumbnail of that mime type lies, below the prefix of the dataset's driver."""
    return f"{HIDDEN_FOLDER[1:]}/thumbnails/{to_wire(item_id)}.{_EXTENSIONS[thumbnail_type]}"


def thumbnail_number(key: str) -> int:
    """Whose thumbnail lies there: the opposite of `thumbnail_key`."""
    return int(key.rpartition("/")[2].partition(".")[0], 16)


@dataclass(frozen=True, slots=True)
class Stores:
    objects: Store
    derived: Store  # the same one, unless nothing may be written to the bucket


async def preprocess_items(place: Workplace, dataset_id: int, item_ids: Sequence[int]) -> None:
    """Safe to repeat: what is done is left alone. Raises Unavailable when some must be tried again.

    A defect of ours, too, is raised only when the other items are saved.
    """
    async with place.pool.connection() as conn:
        found = await items.load_items(conn, dataset_id, item_ids)
        takes_sidecars = await has_sidecars(conn, dataset_id)
    plain = [item for item in found if not (takes_sidecars and sidecars.is_ours(item))]
    waiting = [item for item in plain if _is_waiting(item)]
    linked_ids = [item.id for item in waiting if item.link is not None]
    if linked_ids:
        async with place.pool.connection() as conn:
            await _defer_links(conn, dataset_id, linked_ids)
    failure = await _prepare_all(place, dataset_id, [item for item in waiting if item.link is None])
    if takes_sidecars:
        failure = await sidecars.settle(place, dataset_id, found) or failure
    if failure:
        raise failure


async def preprocess_links(place: Workplace, dataset_id: int, item_ids: Sequence[int]) -> None:
    """As `preprocess_items`, of those that are known to be links."""
    async with place.pool.connection() as conn:
        found = await items.load_items(conn, dataset_id, item_ids)
    failure = await _prepare_all(place, dataset_id, [item for item in found if item.link and _is_waiting(item)])
    if failure:
        raise failure


def _is_waiting(item: Item) -> bool:
    return item.etl_state == items.ETL_WAITING and not item.hidden


async def _defer_links(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int]) -> None:
    """Once, also when the job that found them is repeated."""
    lock = f"links:{dataset_id}:{min(item_ids)}:{max(item_ids)}:{len(item_ids)}"
    await queue.defer(
        conn, LINKS_TASK, queue=LINKS_QUEUE, queueing_lock=lock, dataset_id=dataset_id, item_ids=list(item_ids)
    )


async def _prepare_all(place: Workplace, dataset_id: int, waiting: Sequence[Item]) -> Exception | None:
    """What came of them is saved; the answer is why some must be tried again."""
    failure: Exception | None = None
    places = place.places
    for together in _by_origin(waiting):
        async with places.of_item(together[0]) as store, places.of_thumbnail(together[0]) as derived:
            async for bundle, failed in _in_bundles(place, Stores(store, derived), together):
                failure = failed or failure
                prepared = [one for one in bundle if isinstance(one, PreparedItem)]
                recognised = [one for one in bundle if isinstance(one, Recognised)]
                async with place.pool.connection() as conn:
                    await preparing.save_prepared(conn, dataset_id, prepared)
                    await commands.announce_dataset(conn, dataset_id)
                    if recognised:
                        await links.recognise(conn, dataset_id, recognised)
                        await _defer_links(conn, dataset_id, sorted(one.item_id for one in recognised))
    return failure


def _by_origin(waiting: Sequence[Item]) -> list[list[Item]]:
    """Items whose objects lie together: clones lie where those do that they were cloned from."""
    found: dict[int | None, list[Item]] = {}
    for item in waiting:
        found.setdefault(item.origin_dataset_id, []).append(item)
    return list(found.values())


async def _in_bundles(
    place: Workplace, stores: Stores, waiting: Sequence[Item]
) -> AsyncIterator[tuple[list[PreparedItem | Recognised], Exception | None]]:
    """Results as they come, some at a time; what needs another try is left out, and why is told with each bundle."""
    tasks = [asyncio.create_task(_prepare(place, stores, item)) for item in waiting]
    bundle: list[PreparedItem | Recognised] = []
    failure: Exception | None = None
    try:
        for next_done in asyncio.as_completed(tasks):
            try:
                prepared = await next_done
            except Exception as error:  # noqa: BLE001 - raised by the caller, in the end
                failure = failure if isinstance(failure, Unavailable) else error
            else:
                bundle += [] if prepared is None else [prepared]
            if len(bundle) >= _COMMIT_EVERY:
                yield bundle, failure
                bundle = []
        yield bundle, failure
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _prepare(place: Workplace, stores: Stores, item: Item) -> PreparedItem | Recognised | None:
    """None for an object that is no longer what its row says: the next sync will tell."""
    if item.missing_since is not None:
        return _failed(item, "object-missing", "The bucket has no such object any more.")
    try:
        if item.link is not None:
            return await _read_link(place, stores, item)
        async with place.slots:
            return await _read(place, stores, item)
    except StoreMissing:
        return _failed(item, "object-missing", "The bucket has no such object any more.")
    except StoreDenied as error:
        return _failed(item, "denied", str(error))
    except (BadRequest, FailedDependency) as error:
        return _failed(item, "refused", str(error))


def _failed(item: Item, reason: str, message: str) -> PreparedItem:
    return PreparedItem(
        item_id=item.id,
        etag=item.etag,
        etl_state=items.ETL_FAILED,
        etl={"state": "failed", "reason": reason, "message": message},
        mime_type=item.mime_type or guess_mime_type(item.path),
    )


async def _read(place: Workplace, stores: Stores, item: Item) -> PreparedItem | Recognised | None:
    if item.size_bytes == 0:
        return _failed(item, "empty", "The file is empty.")
    async with stores.objects.get(item.key) as reader:
        if reader.info.etag and reader.info.etag != item.etag:
            return None
        head = await read_head(reader.chunks, _HEAD_BYTES)
        link = linked.link_in(item, head)
        if link is not None:
            return Recognised(item.id, item.etag, link)
        return await _read_object(place, stores, item, head, reader)


async def _read_object(place: Workplace, stores: Stores, item: Item, head: bytes, reader: ObjectReader) -> PreparedItem:
    mime_type = sniff_mime_type(head, item.path)
    prepared = Prepared()
    if mime_type.startswith("image/"):
        async with spooled(place.spool_dir, head, reader.chunks) as file:
            prepared = await place.decoders.prepare(file)
    return await _finish(stores.derived, item, mime_type, prepared)


async def _read_link(place: Workplace, stores: Stores, item: Item) -> PreparedItem:
    looked = await linked.look(place, item)
    prepared = looked.prepared
    if looked.target is not None:
        prepared = replace(prepared, thumbnail=await _thumbnail_of(place, looked.target))
    done = await _finish(stores.derived, item, looked.mime_type, prepared)
    return replace(done, video=done.video | looked.video, link=looked.found.over(item.link or {}))


async def _thumbnail_of(place: Workplace, item: Item) -> Thumbnail | None:
    if item.thumbnail_type is None:
        return None
    key = thumbnail_key(item.thumbnail_number, item.thumbnail_type)
    try:
        async with place.places.of_thumbnail(item) as store, store.get(key) as reader:
            content = await reader.read()
    except StoreMissing:
        return None
    return Thumbnail(content, item.thumbnail_type, item.width_px or 0, item.height_px or 0)


async def _finish(store: Store, item: Item, mime_type: str, prepared: Prepared) -> PreparedItem:
    etl: dict[str, Any] = {"state": "done"}
    thumbnail_type = None
    if prepared.thumbnail is not None:
        try:
            await _put_thumbnail(store, item, prepared.thumbnail)
            thumbnail_type = prepared.thumbnail.mime_type
        except StoreDenied as error:  # a bucket we may only read: the facts count all the same
            etl["thumbnail"] = {"reason": "denied", "message": str(error)}
    if prepared.problem is not None:
        etl = {"state": "failed", "reason": prepared.problem.reason, "message": prepared.problem.message}
    facts, video = prepared.facts, prepared.video
    sized = video if video is not None and video.width_px > 0 else facts
    return PreparedItem(
        item_id=item.id,
        etag=item.etag,
        etl_state=items.ETL_DONE if prepared.problem is None else items.ETL_FAILED,
        etl=etl,
        mime_type=mime_type if facts is None else facts.mime_type,
        width_px=sized.width_px if sized else None,
        height_px=sized.height_px if sized else None,
        channels=facts.channels if facts else None,
        exif=dict(facts.exif) if facts else None,
        thumbnail_type=thumbnail_type,
        video={} if video is None else _video_metadata(video),
    )


def _video_metadata(video: VideoFacts) -> dict[str, Any]:
    """As the SDK reads it, in the words of ffprobe; what is not known is left out."""
    ffmpeg = {
        "codec_name": video.codec,
        "width": video.width_px or None,
        "height": video.height_px or None,
        "avg_frame_rate": video.rate,
        "r_frame_rate": video.rate,
        "nb_frames": video.frames,
        "nb_read_frames": video.frames,
        "duration": video.duration_s,
    }
    found = {"ffmpeg": ffmpeg, "fps": video.fps, "duration": video.duration_s}
    found["ffmpeg"] = {key: value for key, value in ffmpeg.items() if value is not None}
    return {key: value for key, value in found.items() if value is not None}


async def _put_thumbnail(store: Store, item: Item, thumbnail: Thumbnail) -> None:
    key = thumbnail_key(item.thumbnail_number, thumbnail.mime_type)
    await store.put(key, thumbnail.content, content_type=thumbnail.mime_type)
