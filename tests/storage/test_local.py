"""What is peculiar to a folder as a store."""

# Files of this machine are the subject here:
# ruff: noqa: ASYNC240, PTH115, PTH208

import asyncio
import errno
import os
import threading
import time
from pathlib import Path

import pytest

from headwater.errors import BadRequest, HeadwaterError, StoreDenied, StoreMissing, Unavailable
from headwater.storage.local import listing as local_listing
from headwater.storage.opening import open_local
from headwater.storage.stores import ListingPage, Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def store(root: Path) -> Store:
    return open_local(root=root, page_keys=2)


async def pages_of(store: Store, **arguments) -> list[ListingPage]:
    return [page async for page in store.list_pages(**arguments)]


async def keys_of(store: Store, **arguments) -> list[str]:
    return [key for page in await pages_of(store, **arguments) for key in page.keys]


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


async def every_call_raises(store: Store, key: str, kind: type[HeadwaterError]) -> None:
    async def read() -> None:
        async with store.get(key):
            pass

    async def upload() -> None:
        async with await store.begin_upload(key, content_type="text/plain") as upload:
            await upload.finish()

    for call in (store.head(key), read(), store.put(key, b"x", content_type="text/plain"), upload()):
        with pytest.raises(kind):
            await call


@pytest.mark.parametrize(
    "key",
    ["../outside/secret", "a/../../outside/secret", "/etc/passwd", "..", ".", "./a", "a//b", "a/", "", "a\0b"],
    ids=ascii,
)
async def test_a_key_that_is_no_path_below_the_root_is_refused(store: Store, root: Path, key: str):
    (root / "a").mkdir()
    await every_call_raises(store, key, BadRequest)
    with pytest.raises(BadRequest):
        await store.delete(key)
    assert contents(root.parent / "outside") == {"secret": b"secret"}


@pytest.mark.parametrize("prefix", ["..", "../outside", "a/..", "/outside", "link", "link/deeper"])
async def test_a_prefix_that_leads_out_of_the_root_is_refused(root: Path, prefix: str):
    (root / "link").symlink_to(root.parent / "outside")
    store = open_local(root=root, prefix=prefix)
    for call in (store.check_listing(), pages_of(store), store.head("secret")):
        with pytest.raises((BadRequest, StoreMissing)):
            await call


async def test_symbolic_links_lead_nowhere(store: Store, root: Path):
    (root / "folder").symlink_to(root.parent / "outside")
    (root / "file").symlink_to(root.parent / "outside" / "secret")
    await every_call_raises(store, "folder/secret", StoreMissing)
    await every_call_raises(store, "file", (StoreMissing, BadRequest))
    await store.delete("folder/secret")
    await store.delete("file")
    assert contents(root.parent / "outside") == {"secret": b"secret"}
    assert (root / "file").is_symlink()


async def test_the_root_itself_may_be_a_symbolic_link(root: Path):
    (root / "a").write_bytes(b"1")
    (root.parent / "link").symlink_to(root)
    assert await keys_of(open_local(root=root.parent / "link")) == ["a"]


async def test_what_cannot_be_indexed_is_counted_and_special_files_are_not(store: Store, root: Path):
    (root / "link").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    Path(os.fsdecode(os.fsencode(root) + b"/bad\xff")).write_bytes(b"")
    deep = root / ("x" * 250) / ("y" * 250) / ("z" * 250) / ("w" * 250)
    deep.mkdir(parents=True)
    (deep / ("v" * 250)).write_bytes(b"")
    (root / "good").write_bytes(b"")
    pages = await pages_of(store)
    assert [key for page in pages for key in page.keys] == ["good"]
    reasons = {name[:4]: reason for page in pages for name, reason in page.unindexable}
    assert reasons == {
        "link": "It is a symbolic link; these are not followed.",
        "bad\\": "The name is not UTF-8.",
        "xxxx": "The name is longer than 1,024 bytes.",
    }
    with pytest.raises(StoreMissing):
        await store.head("pipe")


async def test_a_missing_root_is_no_empty_listing(root: Path):
    for store in (open_local(root=root / "absent"), open_local(root=root, prefix="absent")):
        for call in (pages_of(store), store.check_listing(), store.head("a"), store.delete("a")):
            with pytest.raises(StoreMissing, match="absent"):
                await call
        with pytest.raises(StoreMissing, match="absent"):
            await store.put("a", b"1", content_type="text/plain")
    assert list(root.iterdir()) == []


async def test_a_listing_that_fails_midway_raises(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b", "c", "d/e", "f"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    scandir = os.scandir

    def failing(folder):
        if os.readlink(f"/proc/self/fd/{folder}").endswith("/d"):
            raise OSError(errno.EIO, "Input/output error")
        return scandir(folder)

    monkeypatch.setattr(local_listing.os, "scandir", failing)
    pages = store.list_pages()
    assert (await anext(pages)).keys == ["a", "b"]
    with pytest.raises(Unavailable, match="Input/output error"):
        await anext(pages)


async def test_a_root_that_is_exchanged_during_a_listing_proves_nothing(store: Store, root: Path):
    for name in ("a", "b", "c"):
        (root / name).write_bytes(b"")
    pages = store.list_pages()
    await anext(pages)
    root.rename(root.parent / "old")
    root.mkdir()
    with pytest.raises(Unavailable, match="replaced or unmounted"):
        await anext(pages)


async def test_what_vanishes_during_a_listing_is_left_out(store: Store, root: Path):
    for name in ("a", "b", "c", "d/e", "f"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"")
    pages = store.list_pages()
    await anext(pages)
    (root / "c").unlink()
    (root / "d" / "e").unlink()
    (root / "d").rmdir()
    assert [key async for page in pages for key in page.keys] == ["f"]


async def test_resuming_does_not_read_what_came_before(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a/1", "b/c/2", "b/d/3", "e/4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    read: list[str] = []
    scandir = os.scandir

    def noting(folder):
        read.append(os.readlink(f"/proc/self/fd/{folder}").removeprefix(str(root)))
        return scandir(folder)

    monkeypatch.setattr(local_listing.os, "scandir", noting)
    assert await keys_of(store, start_after="b/c/2") == ["b/d/3", "e/4"]
    assert read == ["", "/b", "/b/c", "/b/d", "/e"]
    read.clear()
    assert await keys_of(store, prefix="b/d") == ["b/d/3"]
    assert read == ["", "/b", "/b/d"]


async def test_a_listing_left_early_closes_its_folders(store: Store, root: Path):
    for number in range(9):
        (root / f"{number}").write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    pages = store.list_pages()
    await anext(pages)
    await pages.aclose()
    del pages
    async with asyncio.timeout(10):  # the thread that read the page lets go of it a moment after it is given
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 - a thread has no events of ours
            await asyncio.sleep(0)


async def test_a_full_disk_leaves_nothing(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch):
    (root / "a").write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Unavailable, match="No space is left"):
        await store.put("a", b"new", content_type="text/plain")
    assert contents(root) == {"a": b"old"}


async def test_a_file_is_on_the_disk_before_it_is_seen(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(file):
        order.append("fsync " + Path(os.readlink(f"/proc/self/fd/{file}")).parent.name)
        fsync(file)

    def noting_replace(*arguments, **keywords):
        order.append("replace")
        replace(*arguments, **keywords)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    await store.put("d/a", b"new", content_type="text/plain")
    assert "fsync tmp" in order[: order.index("replace")]
    assert order[order.index("replace") + 1 :] == ["fsync root"]  # of the folder d


async def test_a_file_and_a_folder_do_not_replace_each_other(store: Store, root: Path):
    await store.put("file", b"1", content_type="text/plain")
    await store.put("folder/file", b"2", content_type="text/plain")
    with pytest.raises((BadRequest, StoreMissing)):
        await store.put("file/below", b"3", content_type="text/plain")
    with pytest.raises(BadRequest):
        await store.put("folder", b"4", content_type="text/plain")
    await store.delete("folder")
    assert contents(root) == {"file": b"1", "folder/file": b"2"}


async def test_an_abort_waits_for_a_write_that_still_runs(store: Store, root: Path, monkeypatch: pytest.MonkeyPatch):
    upload = await store.begin_upload("a", content_type="text/plain")
    writing, go_on, written = threading.Event(), threading.Event(), []
    write = os.write

    def slow(file, chunk):
        writing.set()
        go_on.wait(5)
        written.append(write(file, chunk))
        return written[-1]

    monkeypatch.setattr(os, "write", slow)
    import asyncio

    task = asyncio.create_task(upload.write(b"12345"))
    await asyncio.to_thread(writing.wait, 5)
    task.cancel()
    abort = asyncio.create_task(upload.abort())
    await asyncio.sleep(0.01)
    assert not abort.done()
    go_on.set()
    await abort
    assert written == [5]
    assert contents(root) == {}


async def test_a_file_that_changes_while_it_is_read_is_not_mixed(store: Store, root: Path):
    (root / "a").write_bytes(bytes(3 * 1024**2))
    async with store.get("a") as reader:
        await anext(reader.chunks)
        with (root / "a").open("r+b") as file:
            file.truncate(10)
        with pytest.raises(Unavailable, match="changed while it was read"):
            await reader.read()


async def test_a_folder_without_permission_is_denied(store: Store, root: Path):
    was = os.geteuid()
    root.chmod(0)
    if was == 0:
        os.seteuid(65534)  # nothing is forbidden to root, so be nobody for a moment
    try:
        with pytest.raises(StoreDenied):
            await pages_of(store)
    finally:
        os.seteuid(was)
        root.chmod(0o700)


async def test_odd_times_can_be_indexed(store: Store, root: Path):
    (root / "a").write_bytes(b"")
    os.utime(root / "a", ns=(0, -(10**18)))
    (only,) = await pages_of(store)
    assert only.modified == ["1970-01-01T00:00:00+00:00"]


async def test_what_a_killed_upload_left_is_removed_after_a_day(store: Store, root: Path):
    unfinished = root / ".dataloop" / "tmp"
    unfinished.mkdir(parents=True)
    for name, age_s in {"old": 2 * 86_400, "young": 3600}.items():
        (unfinished / name).write_bytes(b"part of an object")
        at = time.time() - age_s
        os.utime(unfinished / name, (at, at))
    await store.put("a", b"x", content_type="text/plain")
    assert {path.name for path in unfinished.iterdir()} == {"young"}
