"""Buckets that list as S3, Google and Azure do, out of a dict, on a real HTTP server; a test bends their answers.

A token is the key it goes on after, in hex; what follows a dot in it is left alone.
"""

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote
from xml.sax.saxutils import escape

from aiohttp import web

from tests.storage.scripted import Scripted


@dataclass(frozen=True, slots=True)
class Page:
    keys: list[str]
    folders: list[str] = field(default_factory=list)  # common prefixes, when a delimiter was given
    token: str | None = None  # None: it is the last


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a page."""

    number: int  # from 1, repetitions included
    start: str | None  # where the listing begins
    token: str | None
    prefix: str
    delimiter: str
    most: int
    request: web.Request

    @property
    def after(self) -> str:
        """The last key of the page before; '' at the start."""
        return "" if self.token is None else key_of(self.token)


Bend = Callable[["Played", Asked, Page], Awaitable[Page | web.StreamResponse]]


def token_after(key: str, tail: str = "") -> str:
    return f"x{key.encode().hex()}{tail}"


def key_of(token: str) -> str:
    return bytes.fromhex(token[1:].partition(".")[0]).decode()


class Played(Scripted, ABC):
    """A bucket called `cams`. `bend` sees each page that would be right, and says what is sent instead."""

    name = ""
    refusals: dict[str, tuple[int, str]] = {}  # noqa: RUF012 - a constant of each cloud

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, bytes] = {}
        self.page_keys = 20
        self.order: Callable[[str], Any] = str.encode
        self.bend: Bend | None = None
        self.is_unlisted: Callable[[str], bool] = lambda _key: False  # though it is there
        self.listings = 0
        self.bent = 0  # answers that were not the right page
        self.over = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await request.read()
        key = self.object_of(request)
        if key is not None:
            return self.show(key)
        self.listings += 1
        asked = self.read(request, self.listings)
        page = self.right_page(asked)
        if self.bend is None:
            return self.render(page)
        self.bent += 1
        given = await self.bend(self, asked, page)
        self.bent -= given is page
        return self.render(given) if isinstance(given, Page) else given

    def right_page(self, asked: Asked) -> Page:
        keys = [key for key in self.objects if key.startswith(asked.prefix) and not self.is_unlisted(key)]
        keys = sorted((key for key in keys if self.is_further(key, asked)), key=self.order)
        taken: list[str] = []
        folders: list[str] = []
        limit = min(asked.most, self.page_keys)
        for key in keys:
            below = key[len(asked.prefix) :]
            folder = asked.prefix + below.partition(asked.delimiter)[0] + asked.delimiter if asked.delimiter else ""
            is_folded = bool(asked.delimiter) and asked.delimiter in below
            if is_folded and folders and folders[-1] == folder:
                last = key
                continue
            if len(taken) + len(folders) == limit:
                return Page(taken, folders, token_after(last))
            if is_folded:
                folders.append(folder)
            else:
                taken.append(key)
            last = key
        return Page(taken, folders)

    def is_further(self, key: str, asked: Asked) -> bool:
        if asked.token is not None:
            return self.order(key) > self.order(asked.after)
        return asked.start is None or self.order(key) > self.order(asked.start)

    @abstractmethod
    def refuse(self, kind: str) -> web.Response: ...

    @abstractmethod
    def object_of(self, request: web.Request) -> str | None:
        """The key that a request is about; None for a listing."""

    @abstractmethod
    def read(self, request: web.Request, number: int) -> Asked: ...

    @abstractmethod
    def render(self, page: Page) -> web.Response: ...

    def show(self, key: str) -> web.Response:
        if key not in self.objects:
            return self.refuse("no object")
        body = self.objects[key]
        headers = {"ETag": f'"{etag_of(body)}"', "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"}
        return web.Response(body=body, headers=headers)


def etag_of(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


class PlayedS3(Played):
    name = "s3"
    refusals = {  # noqa: RUF012
        "denied": (403, "AccessDenied"),
        "no bucket": (404, "NoSuchBucket"),
        "no object": (404, "NoSuchKey"),
        "expired": (400, "ExpiredToken"),
        "skewed": (403, "RequestTimeTooSkewed"),
        "busy": (503, "SlowDown"),
        "failing": (500, "InternalError"),
    }

    def object_of(self, request: web.Request) -> str | None:
        return unquote(request.rel_url.raw_path.partition("/cams")[2].removeprefix("/")) or None

    def read(self, request: web.Request, number: int) -> Asked:
        query = request.query
        return Asked(
            number,
            query.get("start-after"),
            query.get("continuation-token"),
            query.get("prefix", ""),
            query.get("delimiter", ""),
            int(query.get("max-keys", "1000")),
            request,
        )

    def render(self, page: Page) -> web.Response:
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            f"<ETag>&quot;{etag_of(body)}&quot;</ETag><Size>{len(body)}</Size></Contents>"
            for key in page.keys
            for body in [self.objects.get(key, b"")]
        )
        entries += "".join(
            f"<CommonPrefixes><Prefix>{quote(folder)}</Prefix></CommonPrefixes>" for folder in page.folders
        )
        token = "" if page.token is None else f"<NextContinuationToken>{page.token}</NextContinuationToken>"
        more = "false" if page.token is None else "true"
        return web.Response(
            text=f"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>"
            f"{token}{entries}</ListBucketResult>",
            content_type="application/xml",
        )

    def refuse(self, kind: str) -> web.Response:
        status, code = self.refusals[kind]
        return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>m</Message></Error>")


class PlayedGcs(Played):
    name = "gcs"
    refusals = {  # noqa: RUF012
        "denied": (403, "forbidden"),
        "no bucket": (404, "notFound"),
        "no object": (404, "notFound"),
        "expired": (401, "authError"),
        "busy": (429, "rateLimitExceeded"),
        "failing": (503, "backendError"),
    }

    def object_of(self, request: web.Request) -> str | None:
        return unquote(request.rel_url.raw_path.partition("/o/")[2]) or None

    def read(self, request: web.Request, number: int) -> Asked:
        query = request.query
        return Asked(
            number,
            query.get("startOffset"),
            query.get("pageToken"),
            query.get("prefix", ""),
            query.get("delimiter", ""),
            int(query.get("maxResults", "1000")),
            request,
        )

    def is_further(self, key: str, asked: Asked) -> bool:
        """Google begins with the name itself."""
        return super().is_further(key, asked) or (asked.token is None and key == asked.start)

    def resource(self, key: str) -> dict[str, str]:
        body = self.objects.get(key, b"")
        return {"name": key, "size": str(len(body)), "generation": "1", "md5Hash": "", "timeCreated": MODIFIED} | (
            {"md5Hash": etag_of(body)} if body else {}
        )

    def render(self, page: Page) -> web.Response:
        document: dict[str, Any] = {"kind": "storage#objects"}
        if page.keys:
            document["items"] = [self.resource(key) for key in page.keys]
        if page.folders:
            document["prefixes"] = page.folders
        if page.token is not None:
            document["nextPageToken"] = page.token
        return web.json_response(document)

    def refuse(self, kind: str) -> web.Response:
        status, reason = self.refusals[kind]
        message = "The specified bucket does not exist." if kind == "no bucket" else "m"
        error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
        return web.json_response({"error": error}, status=status)

    def show(self, key: str) -> web.Response:
        return web.json_response(self.resource(key)) if key in self.objects else self.refuse("no object")


class PlayedAzure(Played):
    name = "azure"
    refusals = {  # noqa: RUF012
        "denied": (403, "AuthorizationPermissionMismatch"),
        "no bucket": (404, "ContainerNotFound"),
        "no object": (404, "BlobNotFound"),
        "expired": (403, "AuthenticationFailed"),
        "skewed": (403, "AuthenticationFailed"),
        "busy": (503, "ServerBusy"),
        "failing": (500, "InternalError"),
    }
    details = {"expired": "Signature not valid in the specified time frame", "skewed": "Request date header too old"}  # noqa: RUF012

    def object_of(self, request: web.Request) -> str | None:
        return unquote(request.rel_url.raw_path.partition("/cams")[2].removeprefix("/")) or None

    def read(self, request: web.Request, number: int) -> Asked:
        query = request.query
        return Asked(
            number,
            query.get("startFrom"),
            query.get("marker"),
            query.get("prefix", ""),
            query.get("delimiter", ""),
            int(query.get("maxresults", "5000")),
            request,
        )

    def is_further(self, key: str, asked: Asked) -> bool:
        """Azure begins with the name itself."""
        return super().is_further(key, asked) or (asked.token is None and key == asked.start)

    def render(self, page: Page) -> web.Response:
        entries = "".join(
            f"<Blob><Name>{escape(key)}</Name><Properties><Last-Modified>Fri, 02 Jan 2026 03:04:05 GMT</Last-Modified>"
            f"<Etag>0x{etag_of(body)}</Etag><Content-Length>{len(body)}</Content-Length></Properties></Blob>"
            for key in page.keys
            for body in [self.objects.get(key, b"")]
        )
        entries += "".join(f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>" for folder in page.folders)
        return web.Response(
            text=f"<EnumerationResults><Blobs>{entries}</Blobs><NextMarker>{page.token or ''}</NextMarker>"
            "</EnumerationResults>",
            content_type="application/xml",
        )

    def refuse(self, kind: str) -> web.Response:
        status, code = self.refusals[kind]
        text = f"<Error><Code>{code}</Code><Message>{self.details.get(kind, 'm')}</Message></Error>"
        return web.Response(status=status, text=text, headers={"x-ms-error-code": code})


MODIFIED = "2026-01-02T03:04:05.000Z"
CLOUDS: dict[str, type[Played]] = {cloud.name: cloud for cloud in (PlayedS3, PlayedGcs, PlayedAzure)}
