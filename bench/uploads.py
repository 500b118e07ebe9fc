"""One large file through our API into a bucket, as the SDK sends it, beside obstore's own multipart put of it.

The client is as cheap as it can be: a thread that sends the file, chunked, over one socket.
"""

import http.client
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import obstore
import psutil
import uvloop

from bench.bucket import make_bucket, open_store
from bench.ground import Ground, installed, make_dataset, say, temporary_folder
from bench.processes import answering, child, listening, owner_token
from bench.report import Figure
from headwater import children
from headwater.ids import to_wire
from tests.servers import S3Server, seaweedfs

SIZE_BYTES = int(os.environ.get("BENCH_UPLOAD_BYTES", str(2 * 1024**3)))
_ROUNDS = 3
_CHUNK_BYTES = 1024**2
_BUCKET = "bench"
_BOUNDARY = "a-boundary-of-the-bench"
_LOOK_EVERY_S = 0.02
_MOST_GROWTH_BYTES = 64 * 1024**2


def measure() -> Iterator[Figure]:
    with (
        temporary_folder() as folder,
        seaweedfs(folder / "seaweedfs") as server,
        installed(folder) as ground,
        listening() as (listener, port),
        child(children.run_api, os.getpid(), ground.settings, ground.database_url, listener) as api,
    ):
        file = folder / "large.bin"
        _write(file, SIZE_BYTES)
        dataset_id, token = uvloop.run(_prepare(ground, server, port))
        yield from _measure(server, port, api, dataset_id, token, file)


async def _prepare(ground: Ground, server: S3Server, port: int) -> tuple[str, str]:
    await make_bucket(server, _BUCKET)
    dataset = await make_dataset(ground, server, _BUCKET, "ours")
    await answering(port)
    return to_wire(dataset.id), await owner_token(ground)


def _write(file: Path, size_bytes: int) -> None:
    piece = secrets.token_bytes(64 * 1024**2)
    with file.open("wb") as written:
        for start in range(0, size_bytes, len(piece)):
            written.write(piece[: size_bytes - start])


def _measure(server: S3Server, port: int, api: int, dataset_id: str, token: str, file: Path) -> Iterator[Figure]:
    store = open_store(server, _BUCKET)
    small = file.with_name("small.bin")
    _write(small, 32 * 1024**2)
    _upload(port, dataset_id, token, small, "/warm.bin")
    rates: list[tuple[float, float]] = []
    growths: list[int] = []
    cpu_s: list[float] = []
    for number in range(_ROUNDS):
        floor_s = _timed(partial(obstore.put, store, "floor.bin", file))
        obstore.delete(store, "floor.bin")
        before_s = _cpu_s(api)
        with _growth(api) as growth:
            ours_s = _timed(partial(_upload, port, dataset_id, token, file, f"/large-{number}.bin"))
        assert obstore.head(store, f"ours/large-{number}.bin")["size"] == file.stat().st_size
        obstore.delete(store, f"ours/large-{number}.bin")
        rates.append((file.stat().st_size / ours_s / 1e6, file.stat().st_size / floor_s / 1e6))
        growths.append(growth[0])
        cpu_s.append(_cpu_s(api) - before_s)
        say(
            f"uploads: {rates[-1][0]:.0f} MB/s through us, {rates[-1][1]:.0f} direct, grown by {growth[0] / 1e6:.0f} MB"
        )
    ours = sorted(rate for rate, _ in rates)[_ROUNDS // 2]
    floor = sorted(rate for _, rate in rates)[_ROUNDS // 2]
    yield Figure(
        "upload.large",
        ours,
        floor,
        "MB/s",
        0.7,
        details={"file_bytes": file.stat().st_size, "grown_bytes": growths, "api_cpu_s": cpu_s},
        must_hold=max(growths) <= _MOST_GROWTH_BYTES,
        pairs=[ours / floor for ours, floor in rates],
    )


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


@contextmanager
def _growth(pid: int) -> Iterator[list[int]]:
    """How much larger the process became at most, in its first element once the block ends."""
    process, has_ended = psutil.Process(pid), threading.Event()
    before = process.memory_info().rss
    growth = [0]

    def look() -> None:
        while not has_ended.wait(_LOOK_EVERY_S):
            growth[0] = max(growth[0], process.memory_info().rss - before)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield growth
    finally:
        has_ended.set()
        looking.join()


def _upload(port: int, dataset_id: str, token: str, file: Path, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("POST", f"/api/v1/datasets/{dataset_id}/items?mode=overwrite")
    connection.putheader("Authorization", f"Bearer {token}")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    head = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
        for name, text in (("type", "file"), ("path", path))
    )
    head += f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    _send(connection, head.encode())
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            _send(connection, chunk)
    _send(connection, f"\r\n--{_BOUNDARY}--\r\n".encode())
    connection.send(b"0\r\n\r\n")
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    assert json.loads(body)["metadata"]["system"]["size"] == file.stat().st_size
    connection.close()


def _send(connection: http.client.HTTPConnection, chunk: bytes) -> None:
    connection.send(f"{len(chunk):x}\r\n".encode())
    connection.send(chunk)
    connection.send(b"\r\n")
