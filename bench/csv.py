"""A CSV file of 100,000 links into our own storage, from the first byte of the file to the end of its command.

The floor is a bare script: Python's reader of CSV files and a COPY of the same rows, 1,000 a commit, into a table with
the same indexes: without checks, folders, quotas, events, verdicts and a way to go on after a crash. The import's
process is this one, so its memory is watched here.
"""

import csv
import io
import json
import time
from collections.abc import AsyncIterator, Iterator

import psutil
import psycopg
import uvloop

from bench.ground import Ground, installed, say, temporary_folder
from bench.report import Figure
from headwater.catalog import commands, datasets, organizations, projects
from headwater.work import csv_import
from headwater.work.csv_import import NewImport
from headwater.work.workplace import Workplace
from headwater.workplace import open_workplace

ROWS = 100_000
_ROUNDS = 3
_LEAST_RATE = 10_000  # rows a second
_MOST_GROWTH_MIB = 64
_COMMIT_ROWS = 1_000  # as work/csv_import has it
_CHUNK_BYTES = 64 * 1024


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, installed(folder) as ground:
        yield from uvloop.run(_measure(ground))


async def _measure(ground: Ground) -> list[Figure]:
    body = _file()
    process = psutil.Process()
    took_s: list[float] = []
    floor_s = [_time_floor(ground, body)]
    async with open_workplace(ground.settings, ground.database_url, name="bench", max_connections=4) as place:
        await _import(place, body[: body.index(b"\n", len(body) // 10) + 1], 0)  # warms up
        before = process.memory_info().rss
        for round_ in range(1, _ROUNDS + 1):
            took_s.append(await _import(place, body, round_))
            floor_s.append(_time_floor(ground, body))
            say(f"csv: {ROWS:,} rows took {took_s[-1]:.1f} s; the bare script {floor_s[-1]:.1f} s")
        growth_mib = (process.memory_info().rss - before) / 2**20
    rates = [ROWS / one for one in took_s]
    pairs = [(first + second) / 2 / one for one, first, second in zip(took_s, floor_s, floor_s[1:], strict=False)]
    return [
        Figure(
            "csv.links",
            value=max(rates),
            floor=ROWS / min(floor_s),
            unit="rows/s",
            target=0.2,
            must_hold=max(rates) >= _LEAST_RATE,
            details={"took_s": took_s, "floor_s": floor_s, "least_rate": _LEAST_RATE},
            pairs=pairs,
        ),
        Figure("csv.memory", growth_mib, _MOST_GROWTH_MIB, "MiB", 1, is_limit=True),
    ]


def _file() -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["ID", "URL", "item_metadata"])
    for number in range(ROWS):
        writer.writerow(
            [number, f"https://images.example.com/photos/{number:08}.jpg", json.dumps({"shelf": number % 7})]
        )
    return text.getvalue().encode()


async def _import(place: Workplace, body: bytes, round_: int) -> float:
    async with place.pool.connection() as conn:
        owner = await organizations.get_owner(conn)
        project = await projects.create_project(conn, owner, f"csv {round_}")
        dataset = await datasets.create_dataset(conn, owner, project_id=project.id, driver_id=None, name="links")
    new = NewImport("photos.csv", "", None, None, is_dry_run=False, most_bytes=2**40)

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), _CHUNK_BYTES):
            yield body[start : start + _CHUNK_BYTES]

    began = time.perf_counter()
    command_id, _ = await csv_import.request_import(place, dataset, owner, new, chunks())
    await csv_import.import_rows(place, command_id)
    took_s = time.perf_counter() - began
    async with place.pool.connection() as conn:
        told = (await commands.load_command(conn, command_id)).spec["import"]
    assert told["refused"] == 0, told
    assert told["created"] == told["rows"] == ROWS or not round_, told
    return took_s


def _time_floor(ground: Ground, body: bytes) -> float:
    """Seconds of the bare script."""
    columns = "dataset_id, id, folder_id, size_bytes, path, etag, mime_type, link, user_metadata, system_metadata"
    began = time.perf_counter()
    with psycopg.connect(ground.database_url) as conn:
        conn.execute("CREATE TABLE floor (LIKE item INCLUDING ALL)")
        rows = csv.reader(io.StringIO(body.decode(), newline=""))
        next(rows)
        lines: list[str] = []
        for number, (name, url, metadata) in enumerate(rows):
            link = json.dumps({"kind": "url", "ref": url, "mime_type": "image/jpeg", "dataset_id": None})
            source = json.dumps({"csv": {"file": "0123456789abcdef", "row": number + 2}})
            lines.append(
                f"1\t{number}\t1\t190\t/photos/{name}.jpg\t{number:032x}\timage/jpeg\t{link}\t{metadata}\t{source}\n"
            )
            if len(lines) == _COMMIT_ROWS:
                _copy(conn, columns, lines)
                lines = []
        _copy(conn, columns, lines)
        took_s = time.perf_counter() - began
        conn.execute("DROP TABLE floor")
    return took_s


def _copy(conn: psycopg.Connection, columns: str, lines: list[str]) -> None:
    with conn.cursor().copy(f"COPY floor ({columns}) FROM STDIN") as copy:  # pyright: ignore[reportArgumentType]
        copy.write("".join(lines))
    conn.commit()
