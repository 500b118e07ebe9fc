"""Uploads of any size to S3: one PUT for small objects, parts for large ones."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from xml.sax.saxutils import escape, unescape

from headwater.errors import BadRequest, StoreMissing, Unavailable
from headwater.storage.parts import PartBuffer
from headwater.storage.requests import Request
from headwater.storage.s3.refusals import element_text
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.sending import Sender
from headwater.storage.stores import ObjectInfo, Upload

SMALLEST_PART_BYTES = 8 * 1024**2
_MOST_PARTS = 10_000  # of one object
_PARTS_OF_ONE_SIZE = 1_000


def part_bytes(part: int) -> int:
    """Size of the part with that number, counted from 0.

    It doubles every 1,000 parts: 10,000 parts hold 7.8 TiB, yet a part is 8 MiB or a 500th of the whole.
    """
    return SMALLEST_PART_BYTES << (part // _PARTS_OF_ONE_SIZE)


class S3Upload(Upload):
    def __init__(
        self,
        sender: Sender[S3Credentials],
        put: Callable[..., Awaitable[ObjectInfo]],
        key: str,
        content_type: str,
        headers: Mapping[str, str],
    ) -> None:
        self._sender = sender
        self._put = put
        self._key = key
        self._content_type = content_type
        self._headers = headers
        self._parts = PartBuffer(part_bytes)
        self._upload_id: str | None = None
        self._etags: list[str] = []
        self._is_over = False

    async def begin(self) -> None:
        """In parts, however small it will be."""
        self._upload_id = await self._create()

    async def write(self, chunk: bytes) -> None:
        for part in self._parts.cut(chunk):
            await self._send_part(part)

    async def seal(self) -> None:
        if self._upload_id is not None and (rest := self._parts.take_rest()):
            await self._send_part(rest)

    async def finish(self) -> ObjectInfo:
        if self._upload_id is None:
            info = await self._put(self._key, self._parts.rest, content_type=self._content_type)
        else:
            await self.seal()
            info = await self._complete(self._upload_id)
        self._is_over = True
        return info

    async def abort(self) -> None:
        self._parts.drop()
        if self._upload_id is not None and not self._is_over:
            request = Request("AbortMultipartUpload", "DELETE", self._key, {"uploadId": self._upload_id})
            with suppress(StoreMissing):
                await self._sender.send(request)
        self._is_over = True

    async def _send_part(self, body: bytes) -> None:
        if self._upload_id is None:
            self._upload_id = await self._create()
        if len(self._etags) >= _MOST_PARTS:
            raise BadRequest(f'"{self._key}" is too large for S3: it has more than {_MOST_PARTS:,} parts.')
        query = {"partNumber": str(len(self._etags) + 1), "uploadId": self._upload_id}
        answer = await self._sender.send(Request("UploadPart", "PUT", self._key, query, body=body))
        self._etags.append(answer.headers.get("ETag", ""))

    async def _create(self) -> str:
        request = Request("CreateMultipartUpload", "POST", self._key, {"uploads": ""}, self._headers)
        upload_id = element_text((await self._sender.send(request)).body.decode(), "UploadId")
        if upload_id is None:
            raise Unavailable(f'The store began the upload of "{self._key}" without giving it an id.')
        return upload_id

    async def _complete(self, upload_id: str) -> ObjectInfo:
        request = Request(
            "CompleteMultipartUpload",
            "POST",
            self._key,
            {"uploadId": upload_id},
            body=_parts_document(self._etags),
        )
        try:
            answer = await self._sender.send(request)
        except StoreMissing as error:
            raise Unavailable(
                f'The store no longer knows the upload of "{self._key}": it was aborted, expired, or '
                "finished without its answer reaching us. Upload it again."
            ) from error
        etag = unescape(element_text(answer.body.decode(), "ETag") or "", {"&quot;": '"', "&#34;": '"'})
        return ObjectInfo(self._key, self._parts.size_bytes, etag.strip('"'), None, self._content_type)


def _parts_document(etags: list[str]) -> bytes:
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag></Part>"
        for number, etag in enumerate(etags, start=1)
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<CompleteMultipartUpload xmlns="{space}">{parts}</CompleteMultipartUpload>'.encode()
