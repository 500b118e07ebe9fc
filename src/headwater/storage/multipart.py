"""Multipart uploads as S3 has them, and Google's XML API after it: parts in any order, over any time.

Sources: "Uploading and copying objects using multipart upload" (Amazon S3), "XML API multipart uploads" (Google).
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from lxml import etree

from headwater.errors import StoreChanged, StoreMissing, Unavailable
from headwater.storage.requests import Request
from headwater.storage.sending import Sender
from headwater.storage.stores import ObjectInfo, Part, PartState, Store, Unfinished, changed, in_order, lost_parts

_NO_BUCKET = ("NoSuchBucket", "noSuchBucket")  # S3, and what we call it in Google
_Element = Any  # lxml's class of elements has no public name


class Multipart:
    """The requests, as any dialect signs them; keys are relative to the prefix."""

    def __init__(self, sender: Sender[Any], headers: Mapping[str, str], *, is_body_signed: bool = True) -> None:
        """`headers` go along when an object is begun. A body that is not signed needs a checksum of its own."""
        self._sender = sender
        self._headers = headers
        self._is_body_signed = is_body_signed

    async def begin(self, key: str, content_type: str) -> str:
        """The upload's id."""
        headers = {"Content-Type": content_type, **self._headers}
        request = Request("CreateMultipartUpload", "POST", key, {"uploads": ""}, headers)
        upload_id = _text(_parsed((await self._sender.send(request)).body), "UploadId")
        if not upload_id:
            raise Unavailable(f'The store began the upload of "{key}" without giving it an id.')
        return upload_id

    async def put(self, key: str, upload_id: str, number: int, body: bytes) -> Part:
        request = part_request(key, upload_id, number, body)
        if not self._is_body_signed:
            request = replace(request, headers={"Content-MD5": await asyncio.to_thread(_md5_of, body)})
        answer = await self._sender.send(request)
        return Part(number, len(body), answer.headers.get("ETag", ""))

    async def list_parts(self, key: str, upload_id: str) -> list[Part]:
        parts: list[Part] = []
        while True:
            query = {"uploadId": upload_id} | ({"part-number-marker": str(parts[-1].number)} if parts else {})
            page = _parsed((await self._sender.send(Request("ListParts", "GET", key, query))).body)
            found = [
                Part(int(_text(part, "PartNumber")), int(_text(part, "Size")), _text(part, "ETag"))
                for part in _all(page, "Part")
            ]
            parts += found
            if _text(page, "IsTruncated") != "true" or not found:
                return sorted(parts, key=lambda part: part.number)

    async def complete(self, key: str, upload_id: str, parts: Sequence[Part], headers: Mapping[str, str]) -> str:
        """The object's etag. Raises StoreMissing when the store does not know the upload, or not any more."""
        query = {"uploadId": upload_id}
        body = _document_of(parts)
        request = Request("CompleteMultipartUpload", "POST", key, query, headers, body)
        return _text(_parsed((await self._sender.send(request)).body), "ETag").strip('"')

    async def abort(self, key: str, upload_id: str) -> None:
        with suppress(StoreMissing):
            await self._sender.send(Request("AbortMultipartUpload", "DELETE", key, {"uploadId": upload_id}))

    async def list_unfinished(self, prefix: str) -> AsyncGenerator[Unfinished]:
        """Those below `prefix`; their keys come without it."""
        query = {"uploads": "", "encoding-type": "url"} | ({"prefix": prefix} if prefix else {})
        while True:
            page = _parsed((await self._sender.send(Request("ListMultipartUploads", "GET", query=query))).body)
            is_encoded = _text(page, "EncodingType") == "url"
            for upload in _all(page, "Upload"):
                key = _decoded(_text(upload, "Key"), is_encoded=is_encoded)
                if key.startswith(prefix):
                    began_at = datetime.fromisoformat(_text(upload, "Initiated"))
                    yield Unfinished(key.removeprefix(prefix), {"id": _text(upload, "UploadId")}, began_at)
            if _text(page, "IsTruncated") != "true":
                return
            query |= {
                "key-marker": _decoded(_text(page, "NextKeyMarker"), is_encoded=is_encoded),
                "upload-id-marker": _text(page, "NextUploadIdMarker"),
            }


class MultipartStore(Store):
    """What S3's and Google's stores have in common about parts."""

    _multipart: Multipart
    _only_if_new: Mapping[str, str]  # the header that refuses to replace an object

    async def begin_parts(self, key: str, *, content_type: str, part_bytes: int) -> PartState:
        del part_bytes
        return {"id": await self._multipart.begin(key, content_type)}

    async def put_part(self, key: str, state: PartState, number: int, body: bytes) -> Part:
        if not body:  # an empty object is put at the end
            return Part(number, 0, "")
        return await self._multipart.put(key, state["id"], number, body)

    async def list_parts(self, key: str, state: PartState) -> list[Part]:
        return await self._multipart.list_parts(key, state["id"])

    async def finish_parts(
        self, key: str, state: PartState, parts: Sequence[Part], *, content_type: str, only_if_new: bool = False
    ) -> ObjectInfo:
        ordered = in_order(key, parts)
        size_bytes = sum(part.size_bytes for part in ordered)
        if not size_bytes:
            await self.abort_parts(key, state)
            return await self._put_empty(key, content_type, only_if_new=only_if_new)
        if only_if_new:
            await self._check_new(key, state)
        try:
            etag = await self._multipart.complete(key, state["id"], ordered, self._only_if_new if only_if_new else {})
        except StoreMissing as missing:
            return await self._finished_before(key, ordered, missing)
        except StoreChanged:  # said of our own object, too, when an answer was lost
            try:
                await self.list_parts(key, state)
            except StoreMissing as missing:
                return await self._finished_before(key, ordered, missing)
            raise
        return await self._finished(ObjectInfo(key, size_bytes, etag, None, content_type))

    async def _put_empty(self, key: str, content_type: str, *, only_if_new: bool) -> ObjectInfo:
        """Raises StoreChanged; another empty object is as good as ours."""
        if only_if_new:
            with suppress(StoreMissing):
                if (there := await self.head(key)).size_bytes:
                    raise changed(key)
                return there
        return await self.put(key, b"", content_type=content_type)

    async def _check_new(self, key: str, state: PartState) -> None:
        """For servers that pay no heed to the condition. Raises StoreChanged."""
        with suppress(StoreMissing):
            await self.head(key)
            await self.list_parts(key, state)  # otherwise the object is the one that was begun
            raise changed(key)

    async def _finished_before(self, key: str, parts: Sequence[Part], missing: StoreMissing) -> ObjectInfo:
        """The object, if it is the one of these parts: the answer to an earlier request was lost."""
        if missing.code in _NO_BUCKET:
            raise missing
        try:
            info = await self.head(key)
        except StoreMissing:
            raise lost_parts(key) from missing
        if info.size_bytes != sum(part.size_bytes for part in parts) or not self._is_made_of(info, len(parts)):
            raise lost_parts(key) from missing
        return info

    def _is_made_of(self, info: ObjectInfo, parts: int) -> bool:
        """Whether an object looks like one of so many parts."""
        return info.etag.endswith(f"-{parts}")

    async def _finished(self, written: ObjectInfo) -> ObjectInfo:
        """What there is to be known of an object that was just finished."""
        return written

    async def abort_parts(self, key: str, state: PartState) -> None:
        await self._multipart.abort(key, state["id"])


def part_request(key: str, upload_id: str, number: int, body: bytes = b"") -> Request:
    return Request("UploadPart", "PUT", key, {"partNumber": str(number), "uploadId": upload_id}, body=body)


def _md5_of(body: bytes) -> str:
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _document_of(parts: Sequence[Part]) -> bytes:
    named = "".join(
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>{escape(part.etag)}</ETag></Part>" for part in parts
    )
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<CompleteMultipartUpload xmlns="{space}">{named}</CompleteMultipartUpload>'.encode()


def _parsed(body: bytes) -> _Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    root = etree.fromstring(body, parser) if body else None
    if root is None:
        raise Unavailable("The store's answer about an upload in parts is no XML document.")
    return root


def _all(element: _Element, name: str) -> list[_Element]:
    return [child for child in element if etree.QName(child).localname == name]


def _text(element: _Element, name: str) -> str:
    """Of the first child with that name, whatever its namespace; '' without one."""
    return next((child.text or "" for child in _all(element, name)), "")


def _decoded(text: str, *, is_encoded: bool) -> str:
    return unquote_plus(text, errors="surrogateescape") if is_encoded else text
