"""A bucket of any size that only exists as its listing: ListObjectsV2 whose pages are made up as they are asked for.

Object n of the bucket has always the same key, size and etag; each folder has 1,000 of them. Any number of clients may
list at once, from any key, real or not. The server is a process of its own.
"""

import asyncio
import multiprocessing
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import uvloop
from aiohttp import web

from tests.servers import Keys, S3Server

FOLDER_OBJECTS = 1_000
_MOST_KEYS = 1_000  # of a page, as S3 has it
_ENTRY = (
    "<Contents><Key>part-@@@@@@/image-{place:03}.jpg</Key><LastModified>2026-03-14T15:09:26.535Z</LastModified>"
    "<ETag>&quot;{place:026x}@@@@@@&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
_FOLDER = b"@@@@@@"  # its number goes here
_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>{encoding}"
    "<IsTruncated>{truncated}</IsTruncated>{token}"
)


@contextmanager
def listing_server(objects: int) -> Generator[S3Server]:
    """Answers until the end of the block; no signature is checked."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=_serve, args=(theirs, objects), daemon=True)
    child.start()
    theirs.close()  # so that a child that dies is noticed
    try:
        keys = Keys("listing-id", "listing-secret")
        yield S3Server(f"http://127.0.0.1:{ours.recv()}", keys, keys)
    finally:
        child.kill()
        child.join()


def key_of(number: int) -> str:
    """The key of an object; they grow with their numbers."""
    folder, place = divmod(number, FOLDER_OBJECTS)
    return f"part-{folder:06}/image-{place:03}.jpg"


def changed_etag() -> str:
    """Of every object, as a HEAD tells it: the listing is of before."""
    return "f" * 32


def _numbers(objects: int, *, prefix: str, start_after: str) -> range:
    """Of the objects below a prefix whose keys are greater than another, which need not exist."""
    all_objects = range(objects)
    first = bisect_left(all_objects, prefix, key=key_of)
    end = bisect_right(all_objects, prefix, key=lambda number: key_of(number)[: len(prefix)])
    return range(max(first, bisect_right(all_objects, start_after, key=key_of)), end)


def _page_maker() -> Callable[[int, int], bytes]:
    """Entries of a page are parts of one folder's template, so a page costs a few copies."""
    entries = [_ENTRY.format(place=place, size=100_000 + place).encode() for place in range(FOLDER_OBJECTS)]
    folder = b"".join(entries)

    def contents(first: int, end: int) -> bytes:
        made = []
        while first < end:
            number, place = divmod(first, FOLDER_OBJECTS)
            until = min(FOLDER_OBJECTS, place + end - first)
            template = folder if until - place == FOLDER_OBJECTS else b"".join(entries[place:until])
            made.append(template.replace(_FOLDER, b"%06d" % number))
            first += until - place
        return b"".join(made)

    return contents


def _serve(port: Connection, objects: int) -> None:
    contents = _page_maker()

    async def list_objects(request: web.Request) -> web.Response:
        query = request.query
        if query.get("list-type") != "2" or query.get("delimiter"):
            raise web.HTTPNotImplemented
        prefix, token = query.get("prefix", ""), query.get("continuation-token")
        found = _numbers(objects, prefix=prefix, start_after="" if token else query.get("start-after", ""))
        if token:
            found = range(int(token), found.stop)
        most = min(_MOST_KEYS, int(query.get("max-keys", _MOST_KEYS)))
        page = found[:most]
        is_truncated = len(page) < len(found)
        head = _HEAD.format(
            bucket=request.match_info["bucket"],
            prefix=prefix,
            count=len(page),
            most=most,
            encoding="<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else "",
            truncated="true" if is_truncated else "false",
            token=f"<NextContinuationToken>{page.stop}</NextContinuationToken>" if is_truncated else "",
        )
        body = head.encode() + contents(page.start, page.stop) + b"</ListBucketResult>"
        return web.Response(body=body, content_type="application/xml")

    async def head_object(_: web.Request) -> web.Response:
        headers = {"ETag": f'"{changed_etag()}"', "Last-Modified": "Sat, 14 Mar 2026 16:00:00 GMT"}
        return web.Response(body=b"x", headers=headers)

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{bucket}", list_objects)
        app.router.add_head("/{bucket}/{key:.+}", head_object)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    uvloop.run(run())
