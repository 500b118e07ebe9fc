"""A bucket as obstore sees it: to fill it, and as the floor of what a store's client can do."""

import asyncio
import time
from collections.abc import Iterable
from importlib.util import find_spec

import aiohttp
import obstore
from obstore.store import S3Store

from headwater.storage.requests import Request
from headwater.storage.s3.requests import Bucket, S3Credentials, signed
from tests.servers import REGION, S3Server

_PUTS_AT_ONCE = 64


def open_store(server: S3Server, bucket: str, prefix: str | None = None) -> S3Store:
    return S3Store(
        bucket,
        prefix=prefix,
        endpoint=server.endpoint,
        region=REGION,
        access_key_id=server.admin.access_key_id,
        secret_access_key=server.admin.secret_access_key,
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )


async def make_bucket(server: S3Server, name: str) -> None:
    keys = S3Credentials(server.admin.access_key_id, server.admin.secret_access_key)
    url, headers = signed(Bucket(name, "", REGION, server.endpoint), Request("CreateBucket", "PUT"), keys)
    async with aiohttp.ClientSession() as session, session.put(url, headers=headers) as response:
        response.raise_for_status()


async def fill(store: S3Store, objects: Iterable[tuple[str, bytes]]) -> None:
    waiting = iter(objects)

    async def put() -> None:
        for key, content in waiting:
            await obstore.put_async(store, key, content, use_multipart=False)

    await asyncio.gather(*(put() for _ in range(_PUTS_AT_ONCE)))


def listing_variants() -> list[tuple[int, bool]]:
    """(chunk size, as Arrow): what obstore offers, of which the fastest is the floor."""
    as_arrow = [False, True] if find_spec("arro3") else [False]
    return [(chunk, arrow) for chunk in (1_000, 5_000, 20_000) for arrow in as_arrow]


def time_listing(store: S3Store, variant: tuple[int, bool], *, expected: int) -> float:
    """Seconds to list the whole bucket, to the end."""
    chunk_size, is_arrow = variant
    began = time.perf_counter()
    found = 0
    for batch in obstore.list(store, chunk_size=chunk_size, return_arrow=is_arrow):
        found += batch.num_rows if is_arrow else len(batch)
    took_s = time.perf_counter() - began
    assert found == expected, found
    return took_s
