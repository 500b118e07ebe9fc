"""`headwater download` as people use it."""

import json
import os
import random
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.buckets import Bucket, new_bucket
from tests.cli.conftest import Run
from tests.cli.gates import Gate, gate
from tests.conftest import RunningServer
from tests.servers import S3Server

BIG = random.Random(5).randbytes(30_000_000)


def files_of(folder: Path) -> dict[str, bytes]:
    """By path; our own hidden folder left out."""
    found = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    return {path: file.read_bytes() for path, file in found.items() if not path.startswith(".dataloop")}


def fill(folder: Path, names: dict[str, bytes]) -> Path:
    for name, content in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def shelf(run: Run, tmp_path: Path) -> Callable[[dict[str, bytes]], tuple[str, Path]]:
    """Makes a dataset on a folder with these files; tells its place and the folder."""

    def make(names: dict[str, bytes]) -> tuple[str, Path]:
        folder = fill(tmp_path / "source", names)
        done = run("connect", str(folder), "--dataset", f"down-{tmp_path.name}", "--project", "downloads")
        assert done.returncode == 0, done.stderr
        return f"downloads/down-{tmp_path.name}", folder

    return make


@pytest.fixture
def shelf_in_bucket(run: Run, weed: S3Server, s3_environment: dict[str, str]) -> Callable[..., tuple[str, Bucket]]:
    def make(names: dict[str, bytes]) -> tuple[str, Bucket]:
        bucket = new_bucket(weed)
        for name, content in names.items():
            bucket.put(name, content)
        at = ("--dataset", bucket.name, "--project", "downloads")
        done = run("connect", f"s3://{bucket.name}", *at, **s3_environment)
        assert done.returncode == 0, done.stderr
        return f"downloads/{bucket.name}", bucket

    return make


FILES = {
    "a.txt": b"a",
    "deep/er/b c.txt": b"bb",
    "deep/é🌊.txt": b"ccc",
    "empty.bin": b"",
    "deep/100%+.txt": b"d" * 4000,
}


@pytest.mark.parametrize("kind", ["folder", "bucket"])
def test_a_dataset_comes_with_its_folders_and_what_is_there_is_not_fetched_again(
    run: Run, shelf, shelf_in_bucket, kind: str, tmp_path: Path
):
    place, _ = (shelf if kind == "folder" else shelf_in_bucket)(FILES)
    here = tmp_path / "here"
    planned = run("download", place, "--to", str(here), "--dry-run")
    assert (planned.returncode, here.exists()) == (0, False)
    assert "5 files" in planned.stdout
    told = run("download", place, "--to", str(here))
    assert (told.returncode, told.stderr) == (0, "")
    assert "5 downloaded" in told.stdout
    assert files_of(here) == FILES
    (here / "a.txt").unlink()
    again = json.loads(run("download", place, "--to", str(here), "--json").stdout)
    assert (again["downloaded"], again["skipped"], again["failed"]) == (1, 4, 0)
    (here / "a.txt").write_bytes(b"my own")
    kept = run("download", place, "--to", str(here))
    assert kept.returncode == 1
    assert "is there with 6 bytes instead of 1. Replace it: --overwrite" in kept.stderr
    assert (here / "a.txt").read_bytes() == b"my own"
    assert run("download", place, "--to", str(here), "--overwrite").returncode == 0
    assert files_of(here) == FILES


def test_some_are_chosen_by_folder_and_by_filter(run: Run, shelf, tmp_path: Path):
    place, _ = shelf({"a/x.txt": b"1", "a/*/y.txt": b"2", "a/*/z.bin": b"3", "ab/x.txt": b"4", "a0.txt": b"5"})
    here = tmp_path / "here"
    assert run("download", place, "--to", str(here), "--folder", "a/*/").returncode == 0
    assert sorted(files_of(here)) == ["a/*/y.txt", "a/*/z.bin"]
    assert run("download", place, "--to", str(here), "--folder", "/a", "--filter", '{"name": "x.*"}').returncode == 0
    assert sorted(files_of(here)) == ["a/*/y.txt", "a/*/z.bin", "a/x.txt"]
    wrong = run("download", place, "--to", str(here), "--filter", "[]")
    assert wrong.returncode == 1
    assert "--filter has to be an object" in wrong.stderr


def test_nothing_is_written_outside_and_what_cannot_be_a_file_is_told(
    run: Run, shelf_in_bucket, weed: S3Server, tmp_path: Path
):
    """Keys of a bucket are whatever somebody wrote."""
    place, bucket = shelf_in_bucket({"good.txt": b"good", "linked/in.txt": b"in", "out/side.txt": b"secret"})
    here, outside = tmp_path / "here", tmp_path / "outside"
    (here / "real").mkdir(parents=True)
    outside.mkdir()
    (here / "out").symlink_to(outside)
    (here / "linked").symlink_to(here / "real")
    told = run("download", place, "--to", str(here))
    assert told.returncode == 1
    assert "is a link that leads out" in told.stderr
    assert "1 failed" in told.stdout
    assert list(outside.iterdir()) == []
    assert (here / "real/in.txt").read_bytes() == b"in"
    assert (here / "good.txt").read_bytes() == b"good"
    assert bucket.get("out/side.txt") == b"secret"


def test_a_file_where_a_folder_must_be_is_told_and_the_rest_comes(run: Run, shelf, tmp_path: Path):
    place, _ = shelf({"x/y.txt": b"y", "z.txt": b"z"})
    here = fill(tmp_path / "here", {"x": b"a file"})
    (here / "z.txt").mkdir()
    told = run("download", place, "--to", str(here), "--json")
    assert told.returncode == 1
    reasons = {failure["path"]: failure["reason"] for failure in json.loads(told.stdout)["failures"]}
    assert "is a file, where a folder has to be" in reasons["/x/y.txt"]
    assert "is a folder, where a file has to be" in reasons["/z.txt"]
    assert (here / "x").read_bytes() == b"a file"


def test_missing_items_are_told_and_are_no_failure(run: Run, shelf, tmp_path: Path):
    place, folder = shelf({"a.txt": b"a", "gone.txt": b"gone"})
    (folder / "gone.txt").unlink()
    assert run("sync", place, "--confirm-missing").returncode == 0
    told = run("download", place, "--to", str(tmp_path / "here"))
    assert told.returncode == 0
    assert "/gone.txt: Its object is missing from the bucket" in told.stderr
    assert "1 downloaded, 1 missing from the bucket" in told.stdout
    assert files_of(tmp_path / "here") == {"a.txt": b"a"}


def start(server: RunningServer, token: str, through: Gate, *arguments: str, **environment: str) -> subprocess.Popen:
    """The command line in the background, through a gate."""
    own = {"HEADWATER_URL": through.url, "HEADWATER_TOKEN": token, "COLUMNS": "200"} | environment
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADWATER_")}
    return subprocess.Popen(
        [server.headwater, *arguments], env=kept | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_keeps_what_has_come_and_the_next_run_goes_on_there(
    run: Run, server: RunningServer, token_of, shelf, tmp_path: Path
):
    place, folder = shelf({"big.bin": BIG, "a.txt": b"a"})
    here = tmp_path / "here"
    with gate(server.url, down_bytes=12_000_000) as slow:
        arguments = ("download", place, "--to", str(here))
        first = start(server, token_of(), slow, *arguments)
        slow.wait_until_halted()
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
        assert first.returncode == 130
        assert "goes on where it stopped" in said
        assert not (here / "big.bin").exists()
        slow.cut()
        slow.open()
        second = start(server, token_of(), slow, *arguments)
        told, said = second.communicate(timeout=60)
        assert second.returncode == 0, said
        starts = [asked for _, path, asked in slow.asked if path.endswith("/stream") and asked]
    assert files_of(here) == {"big.bin": BIG, "a.txt": b"a"}
    begun_at = int(starts[-1].removeprefix("bytes=").rstrip("-"))
    assert begun_at > 1_000_000  # the rest of what passed was in buffers of sockets, which are large
    assert "1 downloaded" in told

    # Begun anew when it is another file by now.
    (here / "big.bin").unlink()
    with gate(server.url, down_bytes=12_000_000) as slow:
        first = start(server, token_of(), slow, *arguments)
        slow.wait_until_halted()
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=60)
    (folder / "big.bin").write_bytes(BIG[::-1])
    assert run("sync", place).returncode == 0
    assert run(*arguments).returncode == 0
    assert files_of(here) == {"big.bin": BIG[::-1], "a.txt": b"a"}


def test_two_downloads_at_once_never_write_the_same_file(
    run: Run, server: RunningServer, token_of, shelf, tmp_path: Path
):
    place, _ = shelf({"big.bin": BIG})
    here = tmp_path / "here"
    arguments = ("download", place, "--to", str(here))
    with gate(server.url, down_bytes=12_000_000) as slow:
        first = start(server, token_of(), slow, *arguments)
        slow.wait_until_halted()
        second = run(*arguments)
        assert second.returncode == 1
        assert "Another download fetches it just now" in second.stderr
        assert not (here / "big.bin").exists()
        slow.open()
        _, said = first.communicate(timeout=60)
        assert first.returncode == 0, said
    assert files_of(here) == {"big.bin": BIG}


def test_what_cannot_be_gone_on_with_is_not_left_behind(server: RunningServer, token_of, shelf, tmp_path: Path):
    place, _ = shelf({"small.bin": BIG[:5_000_000]})
    here = tmp_path / "here"
    with gate(server.url, down_bytes=2_000_000) as slow:
        running = start(server, token_of(), slow, "download", place, "--to", str(here))
        slow.wait_until_halted()
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    assert list(here.iterdir()) == []


def test_a_connection_that_is_cut_costs_little(server: RunningServer, token_of, shelf, tmp_path: Path):
    place, _ = shelf({"big.bin": BIG})
    here = tmp_path / "here"
    with gate(server.url, down_bytes=9_000_000) as slow:
        running = start(server, token_of(), slow, "download", place, "--to", str(here))
        slow.wait_until_halted()
        slow.cut()
        slow.open(down_bytes=9_000_000)
        slow.wait_until_halted()
        slow.cut()
        slow.open()
        _, said = running.communicate(timeout=60)
        assert running.returncode == 0, said
        assert slow.passed["down"] < len(BIG) + 2_000_000
    assert files_of(here) == {"big.bin": BIG}
