"""`headwater delete` and `headwater verify` as people use them."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def shelf(run: Run, folder: Path) -> tuple[str, Path]:
    """A dataset of its own on a folder with three files, read to the end."""
    name = f"shelf-{folder.parent.name}"
    assert run("connect", str(folder), "--dataset", name, "--project", "shelves").returncode == 0
    while json.loads(run("status", f"shelves/{name}", "--json").stdout)["datasets"][0]["waiting"]:
        pass
    return f"shelves/{name}", folder


def paths(run: Run, place: str) -> list[str]:
    return sorted(item["path"] for item in json.loads(run("ls", place, "--json").stdout)["items"])


def test_items_are_deleted_listed_and_brought_back(run: Run, shelf):
    place, folder = shelf
    told = run("delete", place, "--folder", "/deep", "--dry-run")
    assert "To be deleted: 1 item" in told.stdout
    assert f"Their objects stay in {folder}." in told.stdout
    assert "/deep/two.jpg" in told.stdout
    assert paths(run, f"{place}/deep") == ["/deep/two.jpg"]
    deleted = run("delete", place, "/deep/two.jpg", "one.png", "--json")
    assert (deleted.returncode, json.loads(deleted.stdout)["deleted"]) == (0, 2)
    assert paths(run, place) == ["/empty.jpg"]
    assert (folder / "deep/two.jpg").exists()
    assert "No object" in run("delete", place, "--refused").stdout
    undone = run("delete", place, "--undo", "--folder", "/deep")
    assert "2 new" not in undone.stdout
    assert "1 new" in undone.stdout
    assert "metadata is lost" in undone.stderr
    assert paths(run, f"{place}/deep") == ["/deep/two.jpg"]
    assert "Nothing matches" in run("delete", place, "/never").stdout


def test_much_at_once_is_asked_for(run: Run, tmp_path: Path):
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(101):
        (folder / f"{n}.txt").write_text(str(n))
    assert run("connect", str(folder), "--dataset", "many", "--project", "shelves").returncode == 0
    asked = run("delete", "shelves/many", "--filter", "{}")
    assert asked.returncode == 1
    assert "Confirm it: add --yes" in asked.stderr
    assert len(paths(run, "shelves/many")) == 101
    assert run("delete", "shelves/many", "--filter", "{}", "--yes").returncode == 0
    assert paths(run, "shelves/many") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--filter", "{"], "--filter is no JSON"),
        (["--filter", "[]"], "--filter has to be an object"),
        ([], "Say what to delete"),
        (["--retry"], "does not allow objects to be deleted"),
        (["--undo", "--retry"], "Give one of --retry and --undo"),
        (["--undo", "--filter", "{}"], "--undo does not go with --filter"),
        (["--undo", "--dry-run"], "--undo does not go with --dry-run"),
        (["--retry", "/one.png"], "--retry does not go with paths"),
        (["--folder", ""], "folder: it is empty"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_a_sentence(run: Run, shelf, arguments, said):
    place, _ = shelf
    told = run("delete", place, *arguments)
    assert (told.returncode, told.stdout) == (1, "")
    assert said in told.stderr


def test_a_dataset_is_verified_and_repaired(run: Run, shelf):
    place, folder = shelf
    clean = run("verify", place)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert "3 objects compared, no difference" in clean.stdout
    shutil.copy(folder / "one.png", folder / "three.png")
    (folder / "empty.jpg").unlink()
    for thumbnail in (folder / ".dataloop/thumbnails").iterdir():
        thumbnail.unlink()
    found = run("verify", place, "--json")
    told = json.loads(found.stdout)
    assert (found.returncode, told["clean"]) == (1, False)
    assert told["examples"]["notIndexed"] == ["/three.png"]
    assert told["examples"]["missingObjects"] == ["/empty.jpg"]
    assert told["counts"]["missingThumbnails"] == 2
    repaired = run("verify", place, "--repair")
    assert repaired.returncode == 1
    assert "Items without their thumbnail" in repaired.stdout
    while json.loads(run("status", place, "--json").stdout)["datasets"][0]["waiting"]:
        pass
    left = json.loads(run("verify", place, "--json").stdout)
    assert {name for name, number in left["counts"].items() if number} == {"missingObjects"}
    assert "/three.png" in paths(run, place)
    folder.rename(folder.parent / "away")
    away = run("verify", place)
    assert away.returncode == 1
    assert "It could not be verified" in away.stderr
