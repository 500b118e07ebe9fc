"""A bucket of any size that only exists as its listing: ListObjectsV2 whose pages are made up as they are asked for.

Object n of the bucket has always the same key, size and etag. The server is a process of its own.
"""

import asyncio
import multiprocessing
from collections.abc import Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from aiohttp import web

from tests.servers import Keys, S3Server

_FOLDER_OBJECTS = 1_000
_KEY = "part-{folder:06}/image-{place:03}.jpg"
_ENTRY = (
    "<Contents><Key>part-@@@@@@/image-{place:03}.jpg</Key><LastModified>2026-03-14T15:09:26.535Z</LastModified>"
    "<ETag>&quot;{place:026x}@@@@@@&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
_PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>{bucket}</Name><Prefix></Prefix><KeyCount>{count}</KeyCount><MaxKeys>{most}</MaxKeys>{encoding}"
    "<IsTruncated>{truncated}</IsTruncated>{token}{contents}</ListBucketResult>"
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


def _serve(port: Connection, objects: int) -> None:
    entries = [_ENTRY.format(place=place, size=100_000 + place) for place in range(_FOLDER_OBJECTS)]
    folder = "".join(entries)

    def contents(first: int, end: int) -> str:
        """Whole folders are made of one template."""
        made = []
        while first < end:
            number, place = divmod(first, _FOLDER_OBJECTS)
            until = min(_FOLDER_OBJECTS, place + end - first)
            template = folder if until - place == _FOLDER_OBJECTS else "".join(entries[place:until])
            made.append(template.replace("@@@@@@", f"{number:06}"))
            first += until - place
        return "".join(made)

    async def list_objects(request: web.Request) -> web.Response:
        query = request.query
        if query.get("list-type") != "2" or query.get("prefix") or query.get("delimiter"):
            raise web.HTTPNotImplemented
        most = min(1_000, int(query.get("max-keys", "1000")))
        token = query.get("continuation-token")
        first = _count_until(query.get("start-after", ""), objects) if token is None else int(token)
        end = min(objects, first + most)
        is_truncated = end < objects
        page = _PAGE.format(
            bucket=request.match_info["bucket"],
            count=end - first,
            most=most,
            encoding="<EncodingType>url</EncodingType>" if query.get("encoding-type") == "url" else "",
            truncated="true" if is_truncated else "false",
            token=f"<NextContinuationToken>{end}</NextContinuationToken>" if is_truncated else "",
            contents=contents(first, end),
        )
        return web.Response(body=page.encode(), content_type="application/xml")

    async def tell_port(app: web.Application) -> None:
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port.send(runner.addresses[0][1])

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{bucket}", list_objects)
        await tell_port(app)
        await asyncio.Event().wait()

    asyncio.run(run())


def _count_until(key: str, objects: int) -> int:
    """How many objects have keys up to this one, which need not exist."""
    low, high = 0, objects
    while low < high:
        middle = (low + high) // 2
        folder, place = divmod(middle, _FOLDER_OBJECTS)
        if _KEY.format(folder=folder, place=place) <= key:
            low = middle + 1
        else:
            high = middle
    return low
