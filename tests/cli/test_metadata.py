"""`headwater metadata`, sidecars and what brings deleted items back, as people use them."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def shelf(run: Run, folder: Path) -> tuple[str, Path]:
    """A dataset of its own on a folder with three files, read to the end."""
    name = f"noted-{folder.parent.name}"
    assert run("connect", str(folder), "--dataset", name, "--project", "notes").returncode == 0
    until_read(run, f"notes/{name}")
    return f"notes/{name}", folder


def until_read(run: Run, place: str) -> None:
    while json.loads(run("status", place, "--json").stdout)["datasets"][0]["waiting"]:
        pass


def shown(run: Run, place: str, path: str) -> dict:
    told = run("metadata", "show", place, path)
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)


def test_metadata_is_set_shown_and_removed(run: Run, shelf: tuple[str, Path], tmp_path: Path) -> None:
    place, _ = shelf
    tried = run("metadata", "set", place, "--folder", "/deep", "--set", "camera=3", "--dry-run")
    assert "To be changed: 1 item." in tried.stdout
    assert "/deep/two.jpg" in tried.stdout
    assert shown(run, place, "/deep/two.jpg") == {}
    done = run(
        "metadata",
        "set",
        place,
        "--folder",
        "/deep",
        "--set",
        "camera=3",
        "--set",
        "weather.rain=true",
        "--set",
        "at=roof",
    )
    assert done.stdout.startswith("Changed 1 item of ")
    assert shown(run, place, "deep/two.jpg") == {"camera": 3, "weather": {"rain": True}, "at": "roof"}
    patch = tmp_path / "patch.json"
    patch.write_text('{"weather": {"rain": null, "wind": 4}}')
    told = run("metadata", "set", place, "--filter", "{}", "--file", str(patch), "--unset", "at", "--json")
    assert json.loads(told.stdout)["changed"] == json.loads(told.stdout)["items"] == 3
    assert shown(run, place, "/deep/two.jpg") == {"camera": 3, "weather": {"wind": 4}}
    assert shown(run, place, "/one.png") == {"weather": {"wind": 4}}
    again = run("metadata", "set", place, "/one.png", "--set", "weather.wind=4")
    assert again.stdout.startswith("Changed 0 items of ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "a=1"], "Say which items"),
        (["/one.png", "--folder", "/deep", "--set", "a=1"], "Say which items"),
        (["/one.png"], "Say what to change"),
        (["/one.png", "--set", "camera"], "KEY=VALUE"),
        (["/one.png", "--set", "a=1", "--set", "a.b=1"], "a value of its own"),
        (["--filter", "[1]", "--set", "a=1"], "has to be an object"),
        (["--filter", "{", "--set", "a=1"], "is no JSON"),
    ],
)
def test_what_cannot_be_meant_is_asked_about(
    run: Run, shelf: tuple[str, Path], arguments: list[str], told: str
) -> None:
    ended = run("metadata", "set", shelf[0], *arguments)
    assert ended.returncode == 1
    assert told in ended.stderr


def test_sidecars_are_switched_on_and_a_sync_brings_deleted_items_back(run: Run, shelf: tuple[str, Path]) -> None:
    place, folder = shelf
    assert "give their items metadata" in run("sync-rules", place, "--sidecars").stdout
    (folder / "one.png.json").write_text('{"camera": 7}')
    assert run("sync", place).returncode == 0
    until_read(run, place)
    assert shown(run, place, "/one.png") == {"camera": 7}
    assert "one.png.json" not in run("ls", place).stdout
    told = json.loads(run("metadata", "show", place, "/one.png.json", "--system").stdout)
    assert told["system"]["etl"] == {"state": "done", "sidecarOf": "/one.png"}
    deleted = run("delete", place, "--folder", "/deep")
    assert "--undo --folder /deep" in deleted.stderr
    assert "1 deleted here" in run("sync", place).stdout
    assert "1 new" in run("sync", place, "--restore-deleted", "--folder", "/deep").stdout
    assert run("sync", place, "--folder", "/deep").returncode == 1
