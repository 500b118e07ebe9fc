"""The floor of preprocessing: a bare script that reads each object, makes its thumbnail and puts that back.

No database, no limits, no metadata, no retries. As many processes and threads as are fastest on this machine, and the
image library that is. All live as long as the block, warm.
"""

import io
import multiprocessing
import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import obstore
import pyvips
from PIL import Image, ImageOps

from bench.bucket import open_store
from headwater.media.thumbnails import KEEP_NOTHING, QUALITY, THUMBNAIL_PX
from tests.servers import S3Server


def by_vips(content: bytes) -> bytes:
    image = pyvips.Image.thumbnail_buffer(content, THUMBNAIL_PX, height=THUMBNAIL_PX, size="down")
    return image.jpegsave_buffer(Q=QUALITY, keep=KEEP_NOTHING, optimize_coding=True)


def by_vips_shrink(content: bytes) -> bytes:
    image = pyvips.Image.jpegload_buffer(content, access="sequential", shrink=8)
    image = image.thumbnail_image(THUMBNAIL_PX, height=THUMBNAIL_PX, size="down")
    return image.jpegsave_buffer(Q=QUALITY, keep=KEEP_NOTHING, optimize_coding=True)


def by_pillow(content: bytes) -> bytes:
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (THUMBNAIL_PX, THUMBNAIL_PX))
        image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        buffer = io.BytesIO()
        ImageOps.exif_transpose(image).save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return buffer.getvalue()


LIBRARIES: dict[str, Callable[[bytes], bytes]] = {
    "pyvips.thumbnail": by_vips,
    "pyvips.jpegload": by_vips_shrink,
    "Pillow": by_pillow,
}


def fastest_library(photos: Sequence[bytes]) -> tuple[str, dict[str, float]]:
    """Its name, and milliseconds a photograph of each."""
    took_ms = {}
    for _ in range(2):  # the first round warms up
        for name, thumbnail in LIBRARIES.items():
            began = time.perf_counter()
            for photo in photos:
                thumbnail(photo)
            took_ms[name] = (time.perf_counter() - began) * 1000 / len(photos)
    return min(took_ms, key=lambda name: took_ms[name]), took_ms


@contextmanager
def bare_script(
    server: S3Server, bucket: str, *, library: str, processes: int, threads: int
) -> Generator[Callable[[Sequence[str]], float]]:
    """Yields what runs it over some keys and returns the seconds it took."""
    spawn = multiprocessing.get_context("spawn")
    ends, children = [], []
    os.environ["VIPS_CONCURRENCY"] = "1"  # of each process; as many processes as cores do better than threads
    for _ in range(processes):
        ours, theirs = spawn.Pipe()
        child = spawn.Process(target=_work, args=(theirs, server, bucket, library, threads), daemon=True)
        child.start()
        theirs.close()  # so that a child that dies is noticed
        ends.append(ours)
        children.append(child)

    def run(keys: Sequence[str]) -> float:
        began = time.perf_counter()
        for number, end in enumerate(ends):
            end.send(keys[number::processes])
        for end in ends:
            end.recv()
        return time.perf_counter() - began

    try:
        for end in ends:
            end.recv()  # it is ready
        yield run
    finally:
        for end, child in zip(ends, children, strict=True):
            end.close()
            child.join()


def _work(end: Connection, server: S3Server, bucket: str, library: str, threads: int) -> None:
    pyvips.cache_set_max(0)
    store = open_store(server, bucket)
    thumbnail = LIBRARIES[library]

    def prepare(key: str) -> None:
        content = obstore.get(store, key).bytes().to_bytes()
        small = thumbnail(content)
        obstore.put(store, f"bare/{key}", small, use_multipart=False)

    with ThreadPoolExecutor(threads) as pool:
        end.send(None)
        with suppress(EOFError):
            while True:
                list(pool.map(prepare, end.recv()))
                end.send(None)
