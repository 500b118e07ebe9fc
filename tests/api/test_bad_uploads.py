"""What uploads do with what is no good: a clear 400, and nothing left behind. And what they take in numbers."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from headwater.wire.items import LARGEST_BYTES
from tests.api.world import BOUNDARY, World, file_form, form, message, part, send, upload

LINK = {
    "type": "link",
    "shebang": "dataloop",
    "metadata": {
        "dltype": "link",
        "linkInfo": {"type": "url", "ref": "https://a.test/b.jpg", "mimetype": "image/jpeg"},
    },
}


@pytest.fixture
async def dataset(world: World) -> str:
    return await world.new_dataset()


async def left(world: World, dataset: str) -> dict[str, Any]:
    """All that a refused upload might leave."""
    root: Path = world.app.state.server.settings.data_dir
    number = int(dataset, 16)
    counts = {}
    for table, where in {
        "item": "dataset_id = %s", "folder": "dataset_id = %s AND path <> '/'", "planned_upload": "dataset_id = %s",
        "event": "dataset_id = %s",
    }.items():  # fmt: skip
        ((counts[table],),) = await world.execute(f"SELECT count(*) FROM {table} WHERE {where}", number)
    ((counts["quota_hold"],),) = await world.execute("SELECT count(*) FROM quota_hold")
    stored = [path for path in (root / "storage" / dataset).rglob("*") if path.is_file()]
    return {name: count for name, count in counts.items() if count} | ({"files": stored} if stored else {})


async def batch(client: httpx.AsyncClient, dataset: str, body: bytes, mode: str = "skip") -> httpx.Response:
    headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    return await client.post(f"/datasets/{dataset}/uploads/batch?mode={mode}", content=body, headers=headers)


def batch_form(*files: tuple[str, bytes], **fields: str) -> bytes:
    parts = []
    for path, content in files:
        parts += [part("path", path.encode())]
        parts += [part(name, text.encode()) for name, text in fields.items()]
        parts += [part("file", content, file_name="x")]
    return form(*parts)


BAD_PATHS = ["", "/", "/a/", "/a//b", "/../a", "/a/../../b", "/./a", "/a\0b", "/a\nb", "/\x1b[2J", "/" + "x" * 1025,
             "/" + "é" * 513, "/.dataloop/thumbnails/x.webp", "/.dataloop/permission-test",
             "/a\\..\\b", "a\\b", "C:/x", "/c:", "/CON", "/a/aux.txt", "/lpt1/b"]  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda text: repr(text)[:24])
async def test_a_path_that_cannot_be_is_refused_at_every_door(world: World, dataset: str, path: str) -> None:
    message(await upload(world.owner, dataset, path, b"abc"), 400)
    (file,) = (await batch(world.owner, dataset, batch_form((path, b"abc")))).json()["files"]
    assert (file["outcome"], file["item"], len(file["error"].split()) > 4) == ("failed", None, True)
    body = {"files": [{"path": path, "size": 3}]}
    (planned,) = (await world.owner.post(f"/datasets/{dataset}/uploads/plan", json=body)).json()["files"]
    assert (planned["action"], len(planned["error"].split()) > 4) == ("refused", True)
    assert await left(world, dataset) == {}


@pytest.mark.parametrize("path", ["/ a", "/a ", "/a.", "/-rf", "/%2e%2e/a", "/console", "/a/c:/x", "/..a/b"])
async def test_a_path_that_is_odd_elsewhere_is_an_ordinary_name_here(world: World, dataset: str, path: str) -> None:
    item = (await upload(world.owner, dataset, path, b"abc")).json()
    assert item["filename"] == path
    assert (await world.owner.get(f"/items/{item['id']}/stream")).content == b"abc"
    in_bucket = (await upload(world.owner, world.bucket_dataset_id, path, b"abc")).json()
    assert (await world.owner.get(f"/items/{in_bucket['id']}/stream")).content == b"abc"


BAD_METADATA = ["{", "[]", "5", '"x"', "null", '{"user": 5}', '{"system": []}', '{"user": {"a": "\\u0000"}}',
                '{"user": {"a": NaN}}', json.dumps({"user": {"a": "x" * (LARGEST_BYTES + 1)}})]  # fmt: skip


@pytest.mark.parametrize("metadata", BAD_METADATA, ids=lambda text: text[:24])
async def test_metadata_that_is_no_good_is_refused_at_every_door(world: World, dataset: str, metadata: str) -> None:
    assert "metadata" in message(await upload(world.owner, dataset, "/a", b"abc", metadata=metadata), 400)
    body = batch_form(("/a", b"abc"), metadata=metadata)
    assert "metadata" in message(await batch(world.owner, dataset, body), 400)
    assert await left(world, dataset) == {}


BAD_BATCHES = {
    "empty": b"",
    "no form": b"nothing of the kind",
    "no file": form(part("path", b"/a")),
    "second has no file": form(part("path", b"/a"), part("file", b"1", file_name="x"), part("path", b"/b")),
    "no end": batch_form(("/a", b"abc"))[:-10],
    "half": batch_form(("/a", b"abc"), ("/b", b"x" * 5000))[:3000],
    "path not text": form(part("path", b"/\xff\xfe"), part("file", b"1", file_name="x")),
    "large file": batch_form(("/a", b"x" * (4 * 1024**2 + 1))),
    "many fields": form(*[part(f"field{n}", b"x") for n in range(5_000)]),
    "long fields": form(*[part(f"field{n}", b"x" * 1024**2) for n in range(9)], part("file", b"1", file_name="x")),
}


@pytest.mark.parametrize("body", BAD_BATCHES.values(), ids=list(BAD_BATCHES))
async def test_a_batch_that_is_none_is_refused_and_leaves_nothing(world: World, dataset: str, body: bytes) -> None:
    message(await batch(world.owner, dataset, body), 400)
    assert await left(world, dataset) == {}


async def test_a_path_that_is_there_twice_in_a_batch_is_one_item(world: World, dataset: str) -> None:
    body = batch_form(("/a.txt", b"first"), ("a.txt", b"second"), ("//a.txt", b"third"))
    told = (await batch(world.owner, dataset, body)).json()["files"]
    assert [(file["outcome"], file["size"]) for file in told] == [("created", 5), ("skip", 5), ("skip", 5)]
    assert len({file["item"] for file in told}) == 1


BAD_PLANS: list[dict[str, Any]] = [
    {}, {"files": []}, {"files": [{"path": "/a"}]}, {"files": [{"path": "/a", "size": -1}]},
    {"files": [{"path": "/a", "size": 2**63}]}, {"files": [{"path": "/a", "size": 1.5}]},
    {"files": [{"path": 7, "size": 1}]}, {"files": [{"path": "/a", "size": 1}], "mode": "replace"},
    {"files": [{"path": "/a", "size": 1}] * 1001}, {"files": {"path": "/a"}},
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_PLANS, ids=lambda body: json.dumps(body)[:40])
async def test_a_plan_that_is_none_is_refused(world: World, dataset: str, body: dict[str, Any]) -> None:
    message(await world.owner.post(f"/datasets/{dataset}/uploads/plan", json=body), 400)
    assert await left(world, dataset) == {}


BAD_COMMITS: list[dict[str, Any]] = [
    {}, {"files": []}, {"files": [{"upload": "x"}]}, {"files": [{"upload": "f" * 24}]}, {"files": [{}]},
    {"files": [{"upload": f"{1:024x}", "metadata": []}]}, {"files": [{"upload": f"{1:024x}", "metadata": {"user": 1}}]},
    {"files": [{"upload": f"{1:024x}", "parts": [{"number": 0, "etag": "x"}]}]},
    {"files": [{"upload": f"{1:024x}", "parts": 5}]}, {"files": [{"upload": f"{1:024x}"}] * 2},
]  # fmt: skip


@pytest.mark.parametrize("body", BAD_COMMITS, ids=lambda body: json.dumps(body)[:60])
async def test_a_commit_that_is_none_is_refused(world: World, dataset: str, body: dict[str, Any]) -> None:
    message(await world.owner.post(f"/datasets/{dataset}/uploads/commit", json=body), 400)
    assert await left(world, dataset) == {}


async def test_a_commit_of_what_was_never_planned_is_told_so(world: World, dataset: str) -> None:
    body = {"files": [{"upload": f"{2**50:024x}"}]}
    (told,) = (await world.owner.post(f"/datasets/{dataset}/uploads/commit", json=body)).json()["files"]
    assert (told["outcome"], "not known" in told["error"]) == ("failed", True)


async def test_a_batch_makes_items_of_many_files(world: World, dataset: str) -> None:
    await upload(world.owner, dataset, "/d/3", b"there before")
    files = [(f"/d/{n}", bytes([n]) * n) for n in range(20)] + [("/d/1", b"twice"), ("/../x", b"")]
    told = (await batch(world.owner, dataset, batch_form(*files, metadata='{"user": {"a": 1}}'))).json()["files"]
    assert [file["path"] for file in told] == [path for path, _ in files]
    assert [file["outcome"] for file in told] == ["created"] * 3 + ["skip"] + ["created"] * 16 + ["skip", "failed"]
    again = (await batch(world.owner, dataset, batch_form(*files[:20]), "overwrite")).json()["files"]
    assert {file["outcome"] for file in again} == {"overwrite"}
    assert [file["item"] for file in again] == [file["item"] for file in told[:20]]
    item = (await world.owner.get(f"/items/{told[7]['item']}")).json()
    assert (item["metadata"]["user"], item["metadata"]["system"]["size"]) == ({"a": 1}, 7)
    assert (await world.owner.get(f"/items/{item['id']}/stream")).content == b"\7" * 7


async def test_a_link_in_a_batch_is_a_link_and_a_broken_one_is_refused_alone(world: World, dataset: str) -> None:
    broken = LINK | {"metadata": {"dltype": "link", "linkInfo": {"type": "url"}}}
    files = [("/a.json", json.dumps(LINK).encode()), ("/b.json", json.dumps(broken).encode()), ("/c.json", b"{}")]
    told = (await batch(world.owner, dataset, batch_form(*files))).json()["files"]
    assert [file["outcome"] for file in told] == ["created", "failed", "created"]
    item = (await world.owner.get(f"/items/{told[0]['item']}")).json()
    assert item["metadata"]["system"]["shebang"]["linkInfo"]["ref"] == "https://a.test/b.jpg"
    assert item["metadata"]["system"]["mimetype"] == "image/jpeg"


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
KINDS = [
    ("/misnamed.txt", PNG, "image/png"),
    ("/clip.mp4", b"\0\0\0\x18ftypisom" + b"\0" * 40, "video/mp4"),
    ("/sound", b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav"),
    ("/text.txt", "grüße".encode(), "text/plain"),
    ("/doc", b"%PDF-1.7\n", "application/pdf"),
    ("/data.json", b'{"a": 1}', "application/json"),
    ("/cloud.pcd", b"# .PCD v0.7\n", "application/x-pcd"),
    ("/cloud", b"VERSION .7\nFIELDS x y z\nSIZE 4 4 4\n", "application/x-pcd"),
    ("/cloud.las", b"LASF\0\0\0\0", "application/vnd.las"),
    ("/mesh.ply", b"ply\nformat ascii 1.0\n", "application/x-ply"),
    ("/unknown.xyz9", bytes(range(256)), "application/octet-stream"),
    ("/empty.jpg", b"", "image/jpeg"),
]


@pytest.mark.parametrize(("path", "content", "mime_type"), KINDS, ids=[path for path, _, _ in KINDS])
async def test_the_kind_of_a_file_is_known_at_once(
    world: World, dataset: str, path: str, content: bytes, mime_type: str
) -> None:
    for item in (
        (await upload(world.owner, dataset, path, content)).json(),
        (await world.owner.get(f"/items/{await _in_batch(world, content, path)}")).json(),
    ):
        system = item["metadata"]["system"]
        assert (system["mimetype"], system["size"], system["encoding"]) == (mime_type, len(content), "7bit")
        assert system["originalname"] == path[1:]


async def _in_batch(world: World, content: bytes, path: str) -> str:
    dataset = await world.new_dataset()
    (told,) = (await batch(world.owner, dataset, batch_form((path, content)))).json()["files"]
    return told["item"]


async def test_two_hundred_uploads_at_once_get_through_though_there_are_few_connections(world: World) -> None:
    dataset = await world.new_dataset()

    async def slow(path: str) -> AsyncIterator[bytes]:
        """All of them have begun before any ends: none may keep a connection meanwhile."""
        body = file_form(path, b"x" * 1000)
        yield body[:-20]
        begun.append(path)
        if len(begun) == 200:
            all_begun.set()
        await all_begun.wait()
        yield body[-20:]

    begun: list[str] = []
    all_begun = asyncio.Event()
    paths = [f"/{n % 7}/{n % 150}" for n in range(200)]
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(send(world.owner, dataset, slow(path)) for path in paths))
    assert {answer.status_code for answer in answers} == {200}
    items = {answer.json()["filename"]: answer.json()["id"] for answer in answers}
    assert len(items) == len(set(paths))
    assert len({answer.json()["id"] for answer in answers}) == len(set(paths))
    await left(world, dataset)
