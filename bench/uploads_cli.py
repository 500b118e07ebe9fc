"""Figures of `headwater upload`: many files straight to a bucket, against obstore's puts with the same parallelism.

Ours is the whole way, from looking for the first file to the commit of the last item, measured inside the process after
its imports and its first answer of the server; the time from start to end of the process is told as well. Both sides
read their files from the same folder. No worker runs: preprocessing takes no share. The SDK's rate has
no target.
"""

import asyncio
import json
import os
import random
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
from obstore.store import S3Store

from bench.bucket import make_bucket, open_store
from bench.ground import Ground, installed, make_dataset, say, temporary_folder
from bench.processes import answering, child, listening, owner_token
from bench.report import Figure
from headwater import children
from headwater.ids import to_wire
from tests.servers import S3Server, seaweedfs

PARALLEL = 16
_FILES = 1_000
_ROUNDS = 3
_SMALL_BYTES, _LARGE_BYTES = 100_000, 1_000_000
_LEAST_FILES_PER_S = 300
_SDK_FILES = 100
_BUCKET = "bench-uploads"
_SDK_PYTHON = Path(__file__).resolve().parents[1] / ".venv-sdk/bin/python"
_SDK_SCRIPT = """
import json, sys, time
import dtlpy as dl
told = json.loads(sys.stdin.read())
dl.verbose.disable_progress_bar = True
dl.add_environment(environment=told["url"] + "/api/v1", alias="bench", gate_url=told["url"], url=told["url"] + "/",
    verify_ssl=False)
dl.setenv("bench")
dl.client_api.token = told["token"]
dataset = dl.datasets.get(dataset_id=told["dataset"])
began = time.perf_counter()
dataset.items.upload(told["folder"], remote_path="/sdk")
print(json.dumps(time.perf_counter() - began))
"""


def measure() -> Iterator[Figure]:
    with (
        temporary_folder() as folder,
        seaweedfs(folder / "weed") as weed,
        installed(folder) as ground,
        listening() as (listener, port),
        child(children.run_api, os.getpid(), ground.settings, ground.database_url, listener),
    ):
        reach = asyncio.run(_prepare(ground, weed, port))
        yield from _measure(folder, weed, reach)


@dataclass(frozen=True, slots=True)
class _Reach:
    """How clients reach the dataset."""

    url: str
    token: str
    dataset_id: str


async def _prepare(ground: Ground, weed: S3Server, port: int) -> _Reach:
    await make_bucket(weed, _BUCKET)
    dataset = await make_dataset(ground, weed, _BUCKET)
    await answering(port)
    return _Reach(f"http://127.0.0.1:{port}", await owner_token(ground), to_wire(dataset.id))


def _measure(folder: Path, weed: S3Server, reach: _Reach) -> Iterator[Figure]:
    given = {"HEADWATER_URL": reach.url, "HEADWATER_TOKEN": reach.token, "XDG_STATE_HOME": str(folder / "state")}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")} | given

    def upload(*arguments: str) -> dict[str, Any]:
        command = [str(Path(sysconfig.get_path("scripts"), "headwater")), "upload", *arguments, "--json"]
        dataset = ("--dataset", reach.dataset_id)
        done = subprocess.run([*command, *dataset], env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    store = open_store(weed, _BUCKET)
    for name, size_bytes, target, least in (
        ("uploads_cli.small", _SMALL_BYTES, 0.7, _LEAST_FILES_PER_S),
        ("uploads_cli.large", _LARGE_BYTES, 0.9, 0),
    ):
        files = _write(folder / name, size_bytes)
        floors = [_time_floor(store, files, f"{name}-warm")]
        ours: list[dict[str, float]] = []
        for number in range(_ROUNDS):
            ours.append(_time_ours(upload, folder / name, f"/{name}-{number}"))
            floors.append(_time_floor(store, files, f"{name}-floor-{number}"))
            say(f"{name}: {_FILES / ours[-1]['inside_s']:,.0f} files/s, floor {_FILES / floors[-1]:,.0f} files/s")
        pairs = [(floors[n] + floors[n + 1]) / 2 / one["inside_s"] for n, one in enumerate(ours)]
        best = _FILES / min(one["inside_s"] for one in ours)
        details: dict[str, Any] = {"ours": ours, "floors_s": floors, "parallel": PARALLEL, "file_bytes": size_bytes}
        if size_bytes == _SMALL_BYTES:
            details["sdk_files_per_s"] = _time_sdk(folder, reach, files)
        yield Figure(
            name,
            value=best,
            floor=_FILES / min(floors),
            unit="files/s",
            target=target,
            details=details,
            must_hold=best >= least,
            pairs=pairs,
        )


def _write(folder: Path, size_bytes: int) -> list[Path]:
    folder.mkdir()
    chance = random.Random(size_bytes)
    files = [folder / f"{number:05}.bin" for number in range(_FILES)]
    for file in files:
        file.write_bytes(chance.randbytes(size_bytes))
    return files


def _time_floor(store: S3Store, files: Sequence[Path], prefix: str) -> float:
    async def put_all() -> float:
        waiting = iter(files)

        async def put() -> None:
            for file in waiting:
                await obstore.put_async(store, f"{prefix}/{file.name}", file.read_bytes(), use_multipart=False)

        began = time.perf_counter()
        await asyncio.gather(*(put() for _ in range(PARALLEL)))
        return time.perf_counter() - began

    return asyncio.run(put_all())


def _time_ours(upload: Callable[..., dict[str, Any]], folder: Path, to: str) -> dict[str, float]:
    began = time.perf_counter()
    told = upload(f"{folder}/", "--to", to, "--parallel", str(PARALLEL))
    whole_s = time.perf_counter() - began
    assert told["created"] == _FILES, told
    return {"inside_s": told["elapsed_s"], "process_s": whole_s}


def _time_sdk(folder: Path, reach: _Reach, files: Sequence[Path]) -> float:
    """Files a second of the real SDK, which sends each in a request of its own, five at once."""
    some = folder / "sdk"
    some.mkdir()
    for file in files[:_SDK_FILES]:
        os.link(file, some / file.name)
    told = {"url": reach.url, "token": reach.token, "dataset": reach.dataset_id, "folder": f"{some}/*"}
    ended = subprocess.run(
        [_SDK_PYTHON, "-c", _SDK_SCRIPT],
        input=json.dumps(told),
        env=os.environ | {"DATALOOP_PATH": str(folder / "sdk-state")},
        capture_output=True,
        text=True,
        check=True,
    )
    return _SDK_FILES / float(json.loads(ended.stdout.splitlines()[-1]))
