"""Uploads of any size to S3: one PUT for small objects, parts for large ones."""

from collections.abc import Awaitable, Callable

from headwater.errors import BadRequest, StoreMissing
from headwater.storage.multipart import Multipart
from headwater.storage.parts import InFlight, PartBuffer, Room
from headwater.storage.stores import MOST_PARTS, SMALLEST_PART_BYTES, ObjectInfo, Part, Upload, lost_parts

_PARTS_OF_ONE_SIZE = 1_000
_IN_FLIGHT_BYTES = 2 * SMALLEST_PART_BYTES  # while the next part is filled: some 40 MB for a large file


def part_bytes(part: int) -> int:
    """Size of the part with that number, counted from 0.

    It doubles every 1,000 parts: 10,000 parts hold 7.8 TiB, yet a part is 8 MiB or a 500th of the whole.
    """
    return SMALLEST_PART_BYTES << (part // _PARTS_OF_ONE_SIZE)


class S3Upload(Upload):
    def __init__(
        self,
        multipart: Multipart,
        put: Callable[..., Awaitable[ObjectInfo]],
        key: str,
        content_type: str,
        room: Room,
    ) -> None:
        self._multipart = multipart
        self._put = put
        self._key = key
        self._content_type = content_type
        self._buffer = PartBuffer(part_bytes)
        self._upload_id: str | None = None
        self._parts: dict[int, Part] = {}
        self._begun_parts = 0
        self._in_flight = InFlight(_IN_FLIGHT_BYTES, room)
        self._is_over = False

    async def begin(self) -> str:
        """In parts, however small it will be."""
        if self._upload_id is None:
            self._upload_id = await self._multipart.begin(self._key, self._content_type)
        return self._upload_id

    async def write(self, chunk: bytes) -> None:
        for part in self._buffer.cut(chunk):
            await self._send_part(part)

    async def seal(self) -> None:
        if self._upload_id is not None and (rest := self._buffer.take_rest()):
            await self._send_part(rest)
        await self._in_flight.land()

    async def finish(self) -> ObjectInfo:
        if self._upload_id is None:
            info = await self._put(self._key, self._buffer.rest, content_type=self._content_type)
        else:
            await self.seal()
            info = await self._complete(self._upload_id)
        self._is_over = True
        return info

    async def abort(self) -> None:
        self._buffer.drop()
        await self._in_flight.drop()
        if self._upload_id is not None and not self._is_over:
            await self._multipart.abort(self._key, self._upload_id)
        self._is_over = True

    async def _send_part(self, body: bytes) -> None:
        upload_id = await self.begin()
        self._begun_parts += 1
        if self._begun_parts > MOST_PARTS:
            raise BadRequest(f'"{self._key}" is too large for S3: it has more than {MOST_PARTS:,} parts.')
        await self._in_flight.add(len(body), self._put_part(upload_id, self._begun_parts, body))

    async def _put_part(self, upload_id: str, number: int, body: bytes) -> None:
        self._parts[number] = await self._multipart.put(self._key, upload_id, number, body)

    async def _complete(self, upload_id: str) -> ObjectInfo:
        try:
            etag = await self._multipart.complete(
                self._key, upload_id, [self._parts[number] for number in sorted(self._parts)], {}
            )
        except StoreMissing as error:
            raise lost_parts(self._key) from error
        return ObjectInfo(self._key, self._buffer.size_bytes, etag, None, self._content_type)
