"""Uploads as they come over the wire: in pieces, in the wrong order, broken off, too long."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.world import BOUNDARY, World, file_form, form, message, part, send, unique, upload


async def pieces(body: bytes, size_bytes: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size_bytes):
        yield body[start : start + size_bytes]


def stored(world: World, dataset_id: str) -> list[Path]:
    """Every file in our own storage of a dataset."""
    root = world.app.state.server.settings.data_dir / "storage" / dataset_id
    return [path for path in root.rglob("*") if path.is_file()]


async def paths_of(world: World, dataset_id: str) -> list[str]:
    rows = await world.execute("SELECT path FROM item WHERE dataset_id = %s ORDER BY path", int(dataset_id, 16))
    return [path for (path,) in rows]


@pytest.fixture
async def dataset(world: World) -> str:
    return await world.new_dataset()


@pytest.mark.parametrize("size_bytes", [1, 2, 3, 7, 64, 10_000])
async def test_a_file_arrives_whole_however_its_request_is_cut(world: World, dataset: str, size_bytes: int) -> None:
    content = f"\r\n--{BOUNDARY[:-1]}\r\n-{BOUNDARY}\r\n\0\xff--".encode("latin-1")
    body = file_form("/a b/ü.bin", content, metadata='{"user": {"n": 1}}', description="two words")
    answer = await send(world.owner, dataset, pieces(body, size_bytes))
    assert answer.request.headers.get("content-length") is None
    assert answer.headers["x-item-op"] == "created"
    item = answer.json()
    assert (item["filename"], item["metadata"]["system"]["size"]) == ("/a b/ü.bin", len(content))
    assert (item["metadata"]["user"], item["description"]) == ({"n": 1}, "two words")
    assert (await world.owner.get(f"/items/{item['id']}/stream")).content == content


async def test_the_header_tells_what_became_of_the_item(world: World, dataset: str) -> None:
    first = await upload(world.owner, dataset, "/a.txt", b"one")
    kept = await upload(world.owner, dataset, "/a.txt", b"longer one", mode="skip")
    replaced = await upload(world.owner, dataset, "/a.txt", b"two!", mode="overwrite")
    assert [answer.headers["x-item-op"] for answer in (first, kept, replaced)] == ["created", "skip", "overwrite"]
    assert len({answer.json()["id"] for answer in (first, kept, replaced)}) == 1
    # The SDK deletes the item when the answer's size is not what it sent: a kept one is told its own.
    assert kept.json()["metadata"]["system"]["size"] == len(b"longer one")
    now = (await world.owner.get(f"/items/{first.json()['id']}")).json()
    assert now["metadata"]["system"]["size"] == len(b"two!")
    assert len(stored(world, dataset)) <= 2  # the replaced object goes in a job


async def test_a_kept_item_keeps_its_size_and_bytes(world: World, dataset: str) -> None:
    first = (await upload(world.owner, dataset, "/a.txt", b"one")).json()
    await upload(world.owner, dataset, "/a.txt", b"longer one")
    assert (await world.owner.get(f"/items/{first['id']}")).json()["metadata"]["system"]["size"] == 3
    assert (await world.owner.get(f"/items/{first['id']}/stream")).content == b"one"


async def test_system_metadata_of_an_upload_is_kept_but_for_what_only_we_know(world: World, dataset: str) -> None:
    system = {"tags": {"train": True, "test": None}, "size": 5, "width": 7, "mimetype": "a/b", "etag": "x", "etl": {}}
    metadata = {"user": {"a": {"b": None, "c": [1, None]}}, "system": system, "fps": 25}
    item = (await upload(world.owner, dataset, "/m.txt", b"abc", metadata=json.dumps(metadata))).json()
    got = item["metadata"]
    assert got["user"] == {"a": {"c": [1, None]}}
    assert got["system"]["tags"] == {"train": True}
    assert (got["system"]["size"], got["system"]["mimetype"]) == (3, "text/plain")
    assert "width" not in got["system"]
    assert got["system"]["etag"] != "x"
    assert got["system"]["etl"] == {"state": "waiting"}


def deep(levels: int) -> str:
    return '{"user":' * levels + "1" + "}" * levels


BAD_METADATA = ["{", "[]", "5", '"x"', '{"user": 5}', '{"user": []}', '{"system": "x"}', deep(150), deep(100_000),
                '{"user": {"a": "\\u0000"}}', '{"user": {"a": NaN}}', '{"user": {"a": "\\ud800"}}']  # fmt: skip


@pytest.mark.parametrize("metadata", BAD_METADATA, ids=lambda text: text[:24])
async def test_metadata_that_cannot_be_kept_is_refused_and_nothing_stays(
    world: World, dataset: str, metadata: str
) -> None:
    message(await upload(world.owner, dataset, "/a.txt", b"abc", metadata=metadata), 400)
    assert await paths_of(world, dataset) == []
    assert stored(world, dataset) == []


BAD_PATHS = ["", "/", "/a/", "/a//b", "/a/../b", "/./a", "..", "/a\0b", "/a\nb", "/a\x7fb", "/\x1b[2J",
             "/" + "x" * 1025, "/" + "é" * 513, "/.dataloop/thumbnails/1.webp"]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda text: repr(text)[:24])
async def test_a_path_that_no_store_could_hold_is_refused_and_nothing_stays(
    world: World, dataset: str, path: str
) -> None:
    message(await upload(world.owner, dataset, path, b"abc"), 400)
    assert await paths_of(world, dataset) == []
    assert stored(world, dataset) == []


@pytest.mark.parametrize(
    "body",
    [
        form(part("file", b"abc", file_name="n")),
        form(part("file", b"abc", file_name="n"), part("path", b"/a.txt")),
        form(part("path", b"/a.txt")),
        form(),
        b"",
        b"nothing of the kind",
        form(part("path", b"/\xff\xfe"), part("file", b"abc", file_name="n")),
        form(part("path", b"/a.txt"), part("description", b"\xff"), part("file", b"abc", file_name="n")),
        form(part("path", b"/a.txt"), part("description", b"x" * (8 * 1024 * 1024 + 1)), part("file", b"abc")),
        form(*[part(f"field{n}", b"x") for n in range(100)], part("path", b"/a.txt"), part("file", b"abc")),
        file_form("/a.txt", b"abc")[:-10],
        file_form("/a.txt", b"abc" * 1000)[:1000],
        file_form("/a.txt", b"abc", description="a\0b"),
    ],
    ids=["no path", "path after file", "no file", "no part", "empty", "no form", "path not text", "text not text",
         "huge field", "many fields", "no end", "half a file", "NUL"],
)  # fmt: skip
async def test_a_form_that_is_not_one_is_refused_and_nothing_stays(world: World, dataset: str, body: bytes) -> None:
    message(await send(world.owner, dataset, body), 400)
    assert await paths_of(world, dataset) == []
    assert stored(world, dataset) == []


@pytest.mark.parametrize(
    "content_type",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=x",
     "text/plain", 'multipart/form-data; boundary="ü"', f"multipart/form-data; boundary={'x' * 5000}"],
)  # fmt: skip
async def test_another_content_type_is_refused(world: World, dataset: str, content_type: str) -> None:
    headers = {"content-type": content_type.encode()} if content_type else {}
    answer = await world.owner.post(f"/datasets/{dataset}/items", content=file_form("/a", b"x"), headers=headers)
    message(answer, 400)


async def test_a_caller_who_hangs_up_leaves_nothing(
    world: World, dataset: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = file_form("/a.txt", b"x" * 100_000)
    token = world.owner.headers["authorization"].encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": f"/api/v1/datasets/{dataset}/items", "raw_path": b"", "query_string": b"", "root_path": "",
        "headers": [(b"authorization", token), (b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode())],
        "client": ("127.0.0.1", 1), "server": ("headwater.test", 80),
    }  # fmt: skip
    told = [{"type": "http.request", "body": body[:50_000], "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return told.pop(0) if told else await asyncio.Event().wait()

    async def answer(event: dict[str, Any]) -> None:
        sent.append(event)

    await world.app(scope, receive, answer)
    assert await paths_of(world, dataset) == []
    assert stored(world, dataset) == []
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_an_empty_file_is_a_file(world: World, dataset: str) -> None:
    item = (await upload(world.owner, dataset, "/empty", b"")).json()
    assert item["metadata"]["system"]["size"] == 0
    assert (await world.owner.get(f"/items/{item['id']}/stream")).content == b""
    ranged = await world.owner.get(f"/items/{item['id']}/stream", headers={"range": "bytes=0-"})
    assert (ranged.status_code, ranged.content, ranged.headers.get("content-range")) == (200, b"", None)


async def test_a_long_file_is_never_kept_in_memory(world: World, dataset: str) -> None:
    chunk = b"x" * 100_000
    head, tail = file_form("/long.bin", b"|").split(b"|")

    async def body() -> AsyncIterator[bytes]:
        yield head
        for _ in range(200):
            yield chunk
        yield tail

    tracemalloc.start()
    try:
        item = (await send(world.owner, dataset, body())).json()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert item["metadata"]["system"]["size"] == 20_000_000
    assert peak_bytes < 5_000_000
    assert [path.stat().st_size for path in stored(world, dataset)] == [20_000_000]


async def test_the_same_path_from_five_callers_at_once_is_one_item(world: World, dataset: str) -> None:
    answers = await asyncio.gather(
        *[upload(world.owner, dataset, "/x/y/z.txt", bytes([n]) * 10, mode="overwrite") for n in range(5)]
    )
    assert sorted(answer.headers["x-item-op"] for answer in answers) == ["created", *["overwrite"] * 4]
    item = (await world.owner.get(f"/items/{answers[0].json()['id']}")).json()
    assert item["metadata"]["system"]["size"] == 10
    assert await paths_of(world, dataset) == ["/x/y/z.txt"]


async def make_folder(client: httpx.AsyncClient, dataset: str, path: str) -> httpx.Response:
    return await client.post(f"/datasets/{dataset}/items", data={"type": "dir", "path": path})


async def test_making_a_folder_twice_is_making_it_once(world: World, dataset: str) -> None:
    made = [(await make_folder(world.owner, dataset, path)).json() for path in ("/a/b", "/a/b/", "a/b", "/a")]
    assert [folder["filename"] for folder in made] == ["/a/b", "/a/b", "/a/b", "/a"]
    assert len({folder["id"] for folder in made[:3]}) == 1
    assert (made[0]["type"], made[0]["dir"], made[0]["name"]) == ("dir", "/a", "b")


async def test_a_read_only_dataset_takes_no_change_of_its_items(world: World, dataset: str) -> None:
    item = (await upload(world.owner, dataset, "/a.txt", b"abc")).json()
    await world.owner.patch(f"/datasets/{dataset}", json={"readonly": True})
    for answer in (
        await upload(world.owner, dataset, "/b.txt", b"abc"),
        await make_folder(world.owner, dataset, "/c"),
        await world.owner.patch(f"/items/{item['id']}", json={"metadata": {"user": {"a": 1}}}),
        await world.owner.delete(f"/items/{item['id']}"),
    ):
        assert "read-only" in message(answer, 400)
    assert await paths_of(world, dataset) == ["/a.txt"]


async def test_a_body_that_is_no_upload_has_an_end(world: World) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'{"username": "'
        for _ in range(64):
            yield b"x" * 1_000_000
        raise AssertionError("all of it was read")

    json_type = {"content-type": "application/json"}
    answer = await world.callers["no token"].post("http://headwater.test/token", content=endless(), headers=json_type)
    assert "longer than" in message(answer, 400)
    multipart = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    assert (await world.owner.post("/projects", content=endless(), headers=multipart)).status_code == 400


async def test_an_upload_to_a_bucket_with_the_name_of_a_folder_is_refused(world: World) -> None:
    name = unique("both")
    await upload(world.owner, world.bucket_dataset_id, f"/{name}/file.txt", b"x")
    message(await upload(world.owner, world.bucket_dataset_id, f"/{name}", b"x"), 400)
