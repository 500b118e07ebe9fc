"""Resumable uploads: what comes of each request goes to the dataset's store as parts, and lasts.

The offset that clients are told is what is durable: whole parts in the store, and the rest in the database, where any
process finds it after any crash. One request at a time goes on with an upload. A newer one takes over from an older
one, whose connection may be dead without anybody having noticed, once what has arrived of it is kept.
"""

import asyncio
import logging
import secrets
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Protocol
from uuid import uuid4

from headwater.catalog import items, quotas, uploads
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item
from headwater.catalog.links import Link
from headwater.catalog.uploads import NewUpload, Progress, ResumableUpload
from headwater.errors import BadRequest, Conflict, HeadwaterError, NotFound, StoreChanged, StoreMissing
from headwater.mime_types import guess_mime_type
from headwater.storage.stores import Part, PartsLost, PartState, Store, part_limits
from headwater.wire.links import DEFAULT_MIME_TYPE
from headwater.work.links import read_new_link
from headwater.work.upload import Announced, Landed, checked_path, land
from headwater.work.upload.kinds import may_be_link
from headwater.work.upload.looking import find_strangers
from headwater.work.upload.paths import check_writable
from headwater.work.workplace import Workplace

CLEAN_TASK = "drop_expired_uploads"
CLEAN_AT = "17 * * * *"  # cron, in UTC
_AHEAD_BYTES = 4 * 1024**2  # read while a part is on its way to the store
_ALL_AHEAD_BYTES = 256 * 1024**2  # of all uploads together
_PATIENCE_S = 15.0  # for who holds an upload; longer than a lease
_LOOK_EVERY_S = 1.0  # whether somebody in another process waits for what we hold
_ASK_EVERY_S = 0.1
_SILENCE_S = 0.1  # after which nothing more is to be expected of an older request
_LONGEST_FAREWELL_S = 1.0
_CLEANED_AT_ONCE = 100
_log = logging.getLogger(__name__)


class Interrupted(HeadwaterError):
    """The connection is gone; nobody hears it."""

    status = 400


class Busy(HeadwaterError):
    status = 423


class Gone(HeadwaterError):
    status = 410


class TooLarge(HeadwaterError):
    status = 413


class Damaged(HeadwaterError):
    status = 460


@dataclass(frozen=True, slots=True)
class Asked:
    """A file that is to come."""

    announced: Announced
    size_bytes: int
    told: str  # the header that said it
    crc32: int | None  # of the whole file, to be compared


@dataclass(slots=True)
class Checksum:
    """Of the bytes of one request."""

    name: str
    wanted: bytes
    hash: "Hash"

    def check(self) -> None:
        """Raises Damaged."""
        if self.hash.digest() != self.wanted:
            raise Damaged(
                f"The bytes do not have the {self.name} of Upload-Checksum: they were damaged on their way. None of "
                "them was taken. Send them again."
            )


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, body: bytes | memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32:
    """As hashlib's."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, body: bytes | memoryview, /) -> None:
        self._value = zlib.crc32(body, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


@dataclass(slots=True)
class Arriving:
    """The bytes of one request."""

    offset_bytes: int
    chunks: AsyncIterator[bytes]  # raises Interrupted when the connection is gone
    length: int | None = None  # as far as the client told it
    checksum: Checksum | None = None


@dataclass(slots=True)
class _Hold:
    number: int
    news: asyncio.Event = field(default_factory=asyncio.Event)  # bytes, or somebody who waits
    wanted_at_s: float | None = None  # since when somebody waits
    is_lost: bool = False

    def want(self) -> None:
        self.wanted_at_s = self.wanted_at_s or monotonic()
        self.news.set()

    def lose(self) -> None:
        self.is_lost = True
        self.want()


class Receptions:
    """The resumable uploads that this process is receiving. Make it inside the event loop."""

    def __init__(self, place: Workplace, *, expires_in_s: int) -> None:
        self._place = place
        self._expires_in_s = expires_in_s
        self._holds: dict[int, _Hold] = {}  # by upload
        self._watching: asyncio.Task[None] | None = None

    async def create(self, dataset: Dataset, caller: Account, asked: Asked) -> ResumableUpload:
        """Raises BadRequest, QuotaExceeded. An empty file is finished at once."""
        place, announced = self._place, asked.announced
        path = checked_path(announced.path)
        (await check_writable(place, dataset)).check(path)
        limits = part_limits(asked.size_bytes)
        async with place.pool.connection() as conn:
            is_new = await items.find_item_at(conn, dataset.id, path) is None
            hold_id = await quotas.hold_place(conn, dataset.id, for_s=self._expires_in_s) if is_new else None
            new = NewUpload(
                dataset_id=dataset.id,
                account_id=caller.id,
                path=path,
                mode=announced.mode,
                size_bytes=asked.size_bytes,
                told=asked.told,
                object_key=path[1:] if dataset.driver_id is not None else f"objects/{uuid4().hex}",
                part_bytes=limits.part_bytes,
                wanted_crc32=asked.crc32,
                description=announced.description,
                user_metadata=announced.user_metadata,
                system_metadata=announced.system_metadata,
                hold_id=hold_id,
            )
            upload = await uploads.add_upload(conn, new, expires_in_s=self._expires_in_s)
        return await self.look(dataset, caller, upload.id) if upload.is_complete else upload

    async def look(self, dataset: Dataset, caller: Account, upload_id: int) -> ResumableUpload:
        """How far it is, once what arrives by other requests is kept. Raises NotFound, Gone, Busy.

        When all bytes are here and no item was made of them yet, because the store or we were down, it is made now.
        """
        upload = await self._get(dataset, caller, upload_id)
        if upload.ended_at is not None:
            return upload
        async with self._held(upload_id) as hold:
            upload = await self._get(dataset, caller, upload_id)
            if upload.ended_at is not None or not upload.is_complete:
                return upload
            return await self._go_on(upload, hold, dataset, caller, Arriving(upload.offset_bytes, _nothing()))

    async def receive(self, dataset: Dataset, caller: Account, upload_id: int, arriving: Arriving) -> ResumableUpload:
        """Take the bytes, and make the item once all are here.

        Raises NotFound, Gone, Busy, Conflict for another offset, TooLarge, Damaged, Interrupted.
        """
        await self._get(dataset, caller, upload_id)
        async with self._held(upload_id) as hold:
            upload = await self._get(dataset, caller, upload_id)
            _check_fits(upload, arriving)
            if upload.ended_at is not None:
                return upload
            return await self._go_on(upload, hold, dataset, caller, arriving)

    async def _go_on(
        self, upload: ResumableUpload, hold: _Hold, dataset: Dataset, caller: Account, arriving: Arriving
    ) -> ResumableUpload:
        async with self._place.places.of_dataset(dataset.id) as store:
            ahead = _Ahead(arriving.chunks, hold, lambda: _ALL_AHEAD_BYTES // max(1, len(self._holds)))
            await _Writer(self._place, store, upload, hold, caller, arriving, ahead).run()
            upload = await self._get(dataset, caller, upload.id)
            if upload.is_complete:
                await _finish(self._place, store, upload, hold, dataset, caller)
        return await self._get(dataset, caller, upload.id)

    async def drop(self, dataset: Dataset, caller: Account, upload_id: int) -> None:
        """Nothing is left of it; an item that was made stays. Raises NotFound, Gone, Busy."""
        await self._get(dataset, caller, upload_id)
        async with self._held(upload_id):
            upload = await self._get(dataset, caller, upload_id)
            async with self._place.pool.connection() as conn:
                await uploads.set_failed(conn, upload_id, "It was terminated.")
            await _clean(self._place, upload)
            async with self._place.pool.connection() as conn:
                await uploads.delete_upload(conn, upload_id)

    async def find_item(self, upload: ResumableUpload) -> Item | None:
        """That it became, unless it was deleted since."""
        if upload.item_id is None:
            return None
        with suppress(NotFound):
            async with self._place.pool.connection() as conn:
                return await items.get_item(conn, upload.item_id)
        return None

    async def _get(self, dataset: Dataset, caller: Account, upload_id: int) -> ResumableUpload:
        """Raises NotFound also for those of others, and Gone."""
        async with self._place.pool.connection() as conn:
            upload = await uploads.find_upload(conn, upload_id)
        if upload is None or upload.dataset_id != dataset.id or upload.account_id != caller.id:
            raise NotFound("There is no such upload: it was terminated, or is another account's. Begin a new one.")
        if upload.failure is not None or upload.is_expired:
            raise Gone(f"This upload has ended. {upload.failure or 'It has expired.'} Begin a new one.")
        return upload

    @asynccontextmanager
    async def _held(self, upload_id: int) -> AsyncGenerator[_Hold]:
        """Alone with the upload, in all processes. Raises Busy."""
        hold = _Hold(secrets.randbits(62))
        await self._claim(upload_id, hold)
        self._holds[upload_id] = hold
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        try:
            yield hold
        finally:
            if self._holds.get(upload_id) is hold:
                del self._holds[upload_id]
            await asyncio.shield(self._release(upload_id, hold))

    async def _claim(self, upload_id: int, hold: _Hold) -> None:
        give_up_at_s = monotonic() + _PATIENCE_S
        while True:
            async with self._place.pool.connection() as conn:
                if await uploads.claim(conn, upload_id, hold.number):
                    return
            if here := self._holds.get(upload_id):
                here.want()
            if monotonic() > give_up_at_s:
                raise Busy("Another request is at work on this upload and does not come to an end. Try again.")
            await asyncio.sleep(_ASK_EVERY_S)

    async def _release(self, upload_id: int, hold: _Hold) -> None:
        async with self._place.pool.connection() as conn:
            await uploads.release(conn, upload_id, hold.number)

    async def _watch(self) -> None:
        """Keep the leases, and hear who waits, as long as there are some."""
        while self._holds:
            await asyncio.sleep(_LOOK_EVERY_S)
            with suppress(Exception):  # the database is away: the leases end, and then others decide
                await self._look_once()
        self._watching = None

    async def _look_once(self) -> None:
        holds = list(self._holds.values())
        async with self._place.pool.connection() as conn:
            held = await uploads.renew(conn, [hold.number for hold in holds])
        for hold in holds:
            if hold.number not in held:
                hold.lose()
            elif held[hold.number]:
                hold.want()


def _check_fits(upload: ResumableUpload, arriving: Arriving) -> None:
    """Raises Conflict, TooLarge."""
    if arriving.offset_bytes != upload.offset_bytes:
        raise Conflict(
            f"This upload is at byte {upload.offset_bytes}, not {arriving.offset_bytes}. Ask with HEAD where to go on."
        )
    if arriving.length is not None and upload.offset_bytes + arriving.length > upload.size_bytes:
        raise _too_large(upload)


def _too_large(upload: ResumableUpload) -> TooLarge:
    return TooLarge(f"The upload was announced with {upload.size_bytes} bytes, and more come. Announce its size right.")


class _Ahead:
    """Reads a request ahead, so that nothing that arrived is lost with its connection while we are busy."""

    def __init__(self, chunks: AsyncIterator[bytes], hold: _Hold, share_bytes: Callable[[], int]) -> None:
        """`share_bytes` tells how much may be held where many uploads are received."""
        self._chunks = chunks
        self._hold = hold
        self._share_bytes = share_bytes
        self._read: deque[bytes] = deque()
        self._read_bytes = 0
        self._has_room = asyncio.Event()
        self._is_over = False
        self._failure: Exception | None = None

    async def fill(self) -> None:
        try:
            async for chunk in self._chunks:
                self._read.append(chunk)
                self._read_bytes += len(chunk)
                self._hold.news.set()
                while self._read_bytes > min(_AHEAD_BYTES, self._share_bytes()):
                    self._has_room.clear()
                    await self._has_room.wait()
        except Exception as error:  # noqa: BLE001 - raised where the bytes are taken
            self._failure = error
        finally:
            self._is_over = True
            self._hold.news.set()

    async def take(self) -> bytes | None:
        """The next bytes; None at the end. Raises what stopped them, and Busy for who waits for the upload."""
        while not self._read:
            if self._failure is not None:
                raise self._failure
            if self._is_over:
                return None
            self._hold.news.clear()
            try:
                async with asyncio.timeout(None if self._hold.wanted_at_s is None else _SILENCE_S):
                    await self._hold.news.wait()
            except TimeoutError:
                raise _taken_over() from None
        self._check_farewell()
        chunk = self._read.popleft()
        self._read_bytes -= len(chunk)
        self._has_room.set()
        return chunk

    def _check_farewell(self) -> None:
        since_s = self._hold.wanted_at_s
        if self._hold.is_lost or (since_s is not None and monotonic() - since_s > _LONGEST_FAREWELL_S):
            raise _taken_over()


def _taken_over() -> Busy:
    return Busy("A newer request goes on with this upload. Ask with HEAD where it is.")


class _Writer:
    """Makes parts and a tail of what arrives."""

    def __init__(
        self,
        place: Workplace,
        store: Store,
        upload: ResumableUpload,
        hold: _Hold,
        caller: Account,
        arriving: Arriving,
        ahead: _Ahead,
    ) -> None:
        self._place = place
        self._caller = caller
        self._store = store
        self._upload = upload
        self._hold = hold
        self._arriving = arriving
        self._ahead = ahead
        self._state = upload.part_state
        self._tail = bytearray()  # what comes after the parts
        self._kept_bytes = 0  # of it in the database
        self._offset_bytes = upload.offset_bytes
        self._crc32 = upload.crc32
        self._unsaved: list[Part] = []  # until the checksum is known to be right
        self._is_refused = False  # and has failed; nothing of it is kept

    async def run(self) -> None:
        async with self._place.pool.connection() as conn:
            self._tail += await uploads.load_tail(conn, self._upload.id)
        self._kept_bytes = len(self._tail)
        reading = asyncio.create_task(self._ahead.fill())
        try:
            while (chunk := await self._ahead.take()) is not None:
                await self._take(chunk)
            if self._arriving.checksum is not None:
                self._arriving.checksum.check()
                self._arriving.checksum = None  # so what follows is kept
            await self._end()
        except BaseException:
            if self._arriving.checksum is None and not self._is_refused:
                await asyncio.shield(self._keep())
            raise
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _take(self, chunk: bytes) -> None:
        if self._offset_bytes + len(chunk) > self._upload.size_bytes:
            raise _too_large(self._upload)
        view = memoryview(chunk)
        while view:
            if len(self._tail) == self._upload.part_bytes:
                await self._put_part()
            piece = view[: self._upload.part_bytes - len(self._tail)]
            self._tail += piece
            self._offset_bytes += len(piece)
            self._crc32 = zlib.crc32(piece, self._crc32)
            if self._arriving.checksum is not None:
                self._arriving.checksum.hash.update(piece)
            view = view[len(piece) :]
        if len(self._tail) == self._upload.part_bytes and self._offset_bytes < self._upload.size_bytes:
            await self._put_part()

    async def _put_part(self) -> None:
        """The tail as the next part."""
        state = await self._begun()
        number = max(1, -(-self._offset_bytes // self._upload.part_bytes))
        body = bytes(self._tail)
        self._tail = bytearray()  # one copy of it is enough
        try:
            part = await self._store.put_part(self._upload.object_key, state, number, body)
        except BaseException as error:
            self._tail = bytearray(body)
            if isinstance(error, StoreMissing):
                await self._check_lost(error)
            raise
        self._kept_bytes = 0
        self._unsaved.append(part)
        if self._arriving.checksum is None:
            await self._keep()

    async def _check_lost(self, missing: StoreMissing) -> None:
        """Raises Gone when the store forgot the parts, and not only has no such bucket."""
        try:
            await self._store.check_listing()
        except StoreMissing:
            return
        failure = "Its store no longer has what was sent: somebody aborted it there, or it expired there."
        async with self._place.pool.connection() as conn:
            await uploads.set_failed(conn, self._upload.id, failure)
        raise Gone(f"This upload has ended. {failure} Begin a new one.") from missing

    async def _begun(self) -> PartState:
        if self._state is None:
            upload = self._upload
            content_type = guess_mime_type(upload.path)
            state = await self._store.begin_parts(
                upload.object_key, content_type=content_type, part_bytes=upload.part_bytes
            )
            async with self._place.pool.connection() as conn:
                is_ours = await uploads.keep_hold(conn, upload.id, self._hold.number)
                if is_ours:
                    await uploads.set_part_state(conn, upload.id, state)
            if not is_ours:
                await self._store.abort_parts(upload.object_key, state)
                raise _taken_over()
            self._state = state
        return self._state

    async def _end(self) -> None:
        """All of the request is here; of the file, perhaps."""
        if self._offset_bytes < self._upload.size_bytes:
            await self._keep()
            return
        link = await self._read_link()
        if self._tail or self._state is None:
            await self._put_part()
        await self._keep(link)

    async def _read_link(self) -> dict[str, Any] | None:
        """What the file leads to, if it is a link. One that cannot be ends the upload: raises BadRequest, NotFound."""
        upload = self._upload
        if not may_be_link(upload.path, upload.size_bytes):
            return None
        try:
            link = await read_new_link(self._place, self._caller, upload.path, bytes(self._tail))
        except (BadRequest, NotFound) as error:
            self._is_refused = True
            await _fail(self._place, upload, str(error))
            raise
        return None if link is None else link.to_json()

    async def _keep(self, link: dict[str, Any] | None = None) -> None:
        """Make durable what has come."""
        tail_bytes = len(self._tail)
        if not self._unsaved and tail_bytes == self._kept_bytes and link is None:
            return
        progress = Progress(
            offset_bytes=self._offset_bytes,
            crc32=self._crc32,
            parts=self._unsaved,
            tail_start_bytes=self._offset_bytes - tail_bytes,
            new_tail=bytes(self._tail[self._kept_bytes :]),
            link=link,
        )
        async with self._place.pool.connection() as conn:
            if not await uploads.keep_hold(conn, self._upload.id, self._hold.number):
                raise _taken_over()
            await uploads.save_progress(conn, self._upload.id, progress)
        self._unsaved, self._kept_bytes = [], tail_bytes


async def _nothing() -> AsyncIterator[bytes]:
    for none in list[bytes]():
        yield none


async def _finish(
    place: Workplace, store: Store, upload: ResumableUpload, hold: _Hold, dataset: Dataset, caller: Account
) -> None:
    """Make the object visible and commit its row, under the path's lock. May be repeated."""
    if upload.wanted_crc32 is not None and upload.wanted_crc32 != upload.crc32:
        await _fail(place, upload, "The file does not have the CRC that was announced: it was damaged on its way.")
        raise Damaged("The file does not have the crc32 that was announced. Nothing of it was kept. Upload it again.")
    try:
        outcome = await _commit(place, store, upload, hold, dataset, caller)
    except PartsLost as error:
        await _fail(place, upload, str(error))
        raise Gone(str(error)) from error
    if outcome == "skip":
        await _try_to_clean(place, upload)


async def _commit(
    place: Workplace, store: Store, upload: ResumableUpload, hold: _Hold, dataset: Dataset, caller: Account
) -> str:
    async with place.pool.connection() as conn:
        parts = await uploads.load_parts(conn, upload.id)
        await items.lock_path(conn, dataset.id, upload.path)
        before = await items.find_item_at(conn, dataset.id, upload.path)
        if before is not None and upload.mode == "skip" and before.missing_since is None:
            item_id, outcome = before.id, "skip"
            if upload.hold_id is not None:
                await quotas.release_place(conn, upload.hold_id)
        else:
            item_id, outcome = await _land(conn, store, upload, dataset, caller, parts)
        if not await uploads.keep_hold(conn, upload.id, hold.number):
            raise _taken_over()
        await uploads.set_finished(conn, upload.id, item_id, outcome)
    return outcome


async def _land(
    conn: Any, store: Store, upload: ResumableUpload, dataset: Dataset, caller: Account, parts: list[Part]
) -> tuple[int, str]:
    state = upload.part_state
    assert state is not None
    content_type = guess_mime_type(upload.path)
    strangers = await find_strangers(conn, store, dataset, [upload.path] if upload.mode == "skip" else [])
    only_if_new = bool(strangers)  # for it may be ours, of a try whose answer was lost
    try:
        info = await store.finish_parts(
            upload.object_key, state, parts, content_type=content_type, only_if_new=only_if_new
        )
        stranger = None
    except StoreChanged:
        stranger = strangers[upload.path]
        info = replace(stranger, size_bytes=sum(part.size_bytes for part in parts))
    landed = Landed(
        path=upload.path,
        mode="overwrite",
        own_key=upload.object_key if dataset.driver_id is None else None,
        info=info,
        description=upload.description,
        user_metadata=upload.user_metadata,
        system_metadata=upload.system_metadata,
        mime_type=None if upload.link is None else Link.of(upload.link).mime_type or DEFAULT_MIME_TYPE,
        link=upload.link,
        hold_id=upload.hold_id,
    )
    (uploaded,) = await land(conn, dataset, caller, [landed if stranger is None else landed.in_place_of(stranger)])
    return uploaded.item.id, "skip" if stranger is not None else uploaded.outcome


async def _fail(place: Workplace, upload: ResumableUpload, failure: str) -> None:
    async with place.pool.connection() as conn:
        await uploads.set_failed(conn, upload.id, failure)
    await _try_to_clean(place, upload)


async def _try_to_clean(place: Workplace, upload: ResumableUpload) -> None:
    """What cannot be cleaned now, the hourly job cleans."""
    try:
        await _clean(place, upload)
    except HeadwaterError as error:
        _log.warning("Upload %s leaves parts in its store for now: %s", upload.id, error)


async def _clean(place: Workplace, upload: ResumableUpload) -> None:
    """Leave nothing of its parts, nor of its place in the quota, once it has ended."""
    async with place.pool.connection() as conn:
        ended = await uploads.find_upload(conn, upload.id)
    if ended is None or ended.outcome in ("created", "overwrite"):
        return
    if ended.part_state is not None:
        with suppress(NotFound):  # its dataset is gone, and its store with it
            async with place.places.of_dataset(ended.dataset_id) as store:
                await store.abort_parts(ended.object_key, ended.part_state)
                if ended.object_key != ended.path[1:]:  # of our own storage: finished, perhaps, but never an item
                    await store.delete(ended.object_key)
    async with place.pool.connection() as conn:
        if ended.hold_id is not None:
            await quotas.release_place(conn, ended.hold_id)
        await uploads.set_cleaned(conn, ended.id)


async def drop_expired(place: Workplace) -> None:
    """Clean up what nobody went on with in time, and what was given up while its store was down."""
    after_id = 0
    away: set[int] = set()  # datasets whose store is not asked again in this run
    while True:
        async with place.pool.connection() as conn:
            left = await uploads.find_left(conn, after_id=after_id, most=_CLEANED_AT_ONCE)
        if not left:
            break
        after_id = left[-1].id
        for upload in left:
            if upload.dataset_id not in away and not await drop_abandoned(place, upload):
                away.add(upload.dataset_id)
    async with place.pool.connection() as conn:
        await uploads.delete_forgotten(conn)


async def drop_all(place: Workplace, dataset_id: int) -> None:
    """Clean up after the uploads to a dataset that is deleted; what its store does not let go is logged."""
    async with place.pool.connection() as conn:
        await uploads.end_all(conn, dataset_id, "Its dataset was deleted.")
        ended = await uploads.find_ended(conn, dataset_id)
    for upload in ended:
        await _try_to_clean(place, upload)


async def drop_abandoned(place: Workplace, upload: ResumableUpload) -> bool:
    """Clean up after one that has ended or expired. False when it could not be done now."""
    number = secrets.randbits(62)
    async with place.pool.connection() as conn:
        if not await uploads.claim(conn, upload.id, number):
            return False
    try:
        await _try_to_clean(place, upload)
    finally:
        async with place.pool.connection() as conn:
            await uploads.release(conn, upload.id, number)
            now = await uploads.find_upload(conn, upload.id)
    return now is None or now.part_state is None
