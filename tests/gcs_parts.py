"""Google's XML multipart uploads in front of fake-gcs-server, which has none; all else is passed on to it.

Written after https://cloud.google.com/storage/docs/multipart-uploads and the pages of its five requests: parts need not
come in order, one that comes again replaces the first, the last may be short, nothing is seen before the end, and then
the upload is unknown.
"""

import asyncio
import base64
import hashlib
import io
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import aiohttp
from aiohttp import web
from yarl import URL

SMALLEST_PART_BYTES = 5 * 1024**2
_SPACE = "{http://s3.amazonaws.com/doc/2006-03-01/}"
_HOP_HEADERS = {"host", "transfer-encoding", "connection", "content-length"}


@dataclass
class Begun:
    bucket: str
    key: str
    content_type: str
    storage_class: str | None
    parts: dict[int, tuple[str, bytes]] = field(default_factory=dict)


class Front:
    def __init__(self, behind: str) -> None:
        self.behind = behind
        self.uploads: dict[str, Begun] = {}
        self._session: aiohttp.ClientSession | None = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:  # noqa: PLR0911 - one a request
        if request.path.startswith(("/storage/", "/upload/", "/download/", "/b/", "/_internal")):
            return await self.pass_on(request)
        query = request.query
        if "uploads" in query:
            return self.begin(request) if request.method == "POST" else self.list_uploads(request)
        if "uploadId" not in query:
            return await self.pass_on(request)
        begun = self.uploads.get(query["uploadId"])
        if begun is None or (begun.bucket, begun.key) != place_of(request):
            return refused(404, "NoSuchUpload")
        match request.method:
            case "PUT":
                return self.put(begun, request, await request.read())
            case "GET":
                return list_parts(begun, query)
            case "DELETE":
                del self.uploads[query["uploadId"]]
                return web.Response(status=204)
            case _:
                return await self.complete(begun, query["uploadId"], request)

    def begin(self, request: web.BaseRequest) -> web.Response:
        bucket, key = place_of(request)
        upload_id = secrets.token_hex(8)
        content_type = request.headers.get("Content-Type", "application/octet-stream")
        self.uploads[upload_id] = Begun(bucket, key, content_type, request.headers.get("x-goog-storage-class"))
        return xml(f"<InitiateMultipartUploadResult><UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>")

    def list_uploads(self, request: web.BaseRequest) -> web.Response:
        bucket, _ = place_of(request)
        prefix = request.query.get("prefix", "")
        entries = "".join(
            f"<Upload><Key>{quote(begun.key)}</Key><UploadId>{upload_id}</UploadId>"
            "<Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload>"
            for upload_id, begun in self.uploads.items()
            if begun.bucket == bucket and begun.key.startswith(prefix)
        )
        head = "<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        return xml(f"<ListMultipartUploadsResult>{head}{entries}</ListMultipartUploadsResult>")

    def put(self, begun: Begun, request: web.BaseRequest, body: bytes) -> web.Response:
        if "X-Goog-Signature" not in request.query:  # whoever signs need not tell
            md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
            if request.headers.get("Content-MD5") != md5:
                return refused(400, "BadDigest")
        span = request.headers.get("x-goog-content-length-range")
        if span is not None and not int(span.split(",")[0]) <= len(body) <= int(span.split(",")[1]):
            return refused(400, "EntityTooLarge")
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        begun.parts[int(request.query["partNumber"])] = etag, body
        return web.Response(headers={"ETag": etag})

    async def complete(self, begun: Begun, upload_id: str, request: web.BaseRequest) -> web.Response:
        document = ET.fromstring(await request.read())
        named = [
            (int(part.findtext(f"{_SPACE}PartNumber") or 0), part.findtext(f"{_SPACE}ETag"))
            for part in document.iter(f"{_SPACE}Part")
        ]
        if any(begun.parts.get(number, ("", b""))[0] != etag for number, etag in named):
            return refused(400, "InvalidPart")
        bodies = [begun.parts[number][1] for number, _ in named]
        if any(len(body) < SMALLEST_PART_BYTES for body in bodies[:-1]):
            return refused(400, "EntityTooSmall")
        query = {"uploadType": "multipart"}
        if request.headers.get("x-goog-if-generation-match") == "0":
            query["ifGenerationMatch"] = "0"
        resource = {"name": begun.key, "contentType": begun.content_type}
        form = aiohttp.MultipartWriter("related")
        form.append_json(resource)
        form.append(io.BytesIO(b"".join(bodies)), {"Content-Type": begun.content_type})
        url = URL(f"{self.behind}/upload/storage/v1/b/{begun.bucket}/o").with_query(query)
        async with self.session.post(url, data=form) as answer:
            if answer.status != 200:
                return refused(answer.status, "PreconditionFailed" if answer.status == 412 else "InternalError")
            generation = (await answer.json()).get("generation", "")
        del self.uploads[upload_id]
        etag = f"<ETag>&quot;{secrets.token_hex(16)}-{len(bodies)}&quot;</ETag>"
        return xml(
            f"<CompleteMultipartUploadResult>{etag}</CompleteMultipartUploadResult>", {"x-goog-generation": generation}
        )

    @property
    def session(self) -> aiohttp.ClientSession:
        self._session = self._session or aiohttp.ClientSession(auto_decompress=False)
        return self._session

    async def pass_on(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name: text for name, text in request.headers.items() if name.lower() not in _HOP_HEADERS - {"host"}}
        url = URL(self.behind + request.raw_path, encoded=True)
        body = io.BytesIO(await request.read()) if request.body_exists else None
        async with self.session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False, skip_auto_headers=["Content-Type"]
        ) as answer:
            given = {name: text for name, text in answer.headers.items() if name.lower() not in _HOP_HEADERS}
            text = await answer.read()
            return web.Response(status=answer.status, body=text, headers=given)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def any_size(*given) -> web.BaseRequest:
    return web.BaseRequest(*given, asyncio.get_running_loop(), client_max_size=1024**3)


def place_of(request: web.BaseRequest) -> tuple[str, str]:
    bucket, _, key = request.raw_path.partition("?")[0].removeprefix("/").partition("/")
    return unquote(bucket), unquote(key)


def list_parts(begun: Begun, query) -> web.Response:
    after = int(query.get("part-number-marker", "0"))
    later = sorted(number for number in begun.parts if number > after)
    page = later[:2]  # Google gives 1,000; so few show that pages are asked for
    entries = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(begun.parts[number][0])}</ETag>"
        f"<Size>{len(begun.parts[number][1])}</Size></Part>"
        for number in page
    )
    more = "true" if len(later) > len(page) else "false"
    return xml(f"<ListPartsResult><IsTruncated>{more}</IsTruncated>{entries}</ListPartsResult>")


def xml(text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        text=f"<?xml version='1.0' encoding='UTF-8'?>{text}", content_type="application/xml", headers=headers
    )


def refused(status: int, code: str) -> web.Response:
    return web.Response(status=status, text=f"<Error><Code>{code}</Code><Message>m</Message></Error>")


@contextmanager
def running(behind: str, port: int) -> Iterator[Front]:
    """In a thread of its own, at 127.0.0.1:`port`."""
    front = Front(behind)
    loop = asyncio.new_event_loop()
    stopped = loop.create_future()
    is_up = threading.Event()

    async def serve() -> None:
        # No router: it knows no name of an object with a line break.
        runner = web.ServerRunner(web.Server(front.answer, request_factory=any_size, access_log=None))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        is_up.set()
        await stopped
        await front.close()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    assert is_up.wait(10)
    try:
        yield front
    finally:
        loop.call_soon_threadsafe(stopped.set_result, None)
        thread.join()
        loop.close()
