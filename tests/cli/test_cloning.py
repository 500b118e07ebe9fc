"""`headwater clone`, `merge`, `move` and `mkdir` as people use them."""

import json
import secrets
from collections.abc import Callable

import httpx
import pytest

from tests.cli.conftest import Run
from tests.conftest import RunningServer

FILES = ("/1.txt", "/2.txt", "/deep/3.txt")


@pytest.fixture
def own(server: RunningServer, token_of: Callable[..., str]) -> str:
    """A dataset of its own in Headwater's own storage, with three files."""
    name = f"own-{secrets.token_hex(4)}"
    headers = {"Authorization": f"Bearer {token_of()}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, trust_env=False) as client:
        project = client.post("/projects", data={"name": f"clones-{name}"}).json()
        dataset = client.post("/datasets", json={"name": name, "projects": [project["id"]]}).json()
        for path in FILES:
            files = {"path": (None, path), "file": (path, path.encode())}
            assert client.post(f"/datasets/{dataset['id']}/items", files=files).status_code == 200
    return f"{project['name']}/{name}"


def paths(run: Run, dataset: str) -> set[str]:
    """Of everything in it."""
    found = run("delete", dataset, "--filter", "{}", "--dry-run", "--json")
    assert found.returncode == 0, found.stderr
    return set(json.loads(found.stdout)["examples"])


def test_a_dataset_is_cloned_and_cloned_again(run: Run, own: str):
    project, _, name = own.partition("/")
    copy = f"copy-of-{name}"
    told = run("clone", own, copy, "--folder", "/deep", "--dry-run")
    assert "To be cloned: 1 item" in told.stdout
    done = run("clone", own, copy)
    assert (done.returncode, done.stdout) == (0, f"Cloned 3 items, 23 bytes into {copy}. No byte was copied.\n")
    assert paths(run, f"{project}/{copy}") == set(FILES)
    again = json.loads(run("clone", own, "--to-dataset", f"{project}/{copy}", "--json").stdout)
    assert (again["cloned"], again["there_already"], again["status"]) == (0, 3, "success")
    some = ("clone", own, "--to-dataset", f"{project}/{copy}", "--into", "/x", "--filter", '{"name": "3.txt"}')
    assert "Cloned 1 item" in run(*some).stdout
    assert "/x/deep/3.txt" in paths(run, f"{project}/{copy}")
    refused = run("clone", own, copy)
    assert refused.returncode == 1
    assert "already" in refused.stderr
    assert "Give a NAME" in run("clone", own).stderr
    assert "no JSON" in run("clone", own, "x", "--filter", "{").stderr


def test_datasets_are_merged(run: Run, own: str):
    project, _, name = own.partition("/")
    merged = f"merge-{name}"
    estimate = json.loads(run("merge", merged, own, own, "--dry-run", "--json").stdout)
    assert estimate["items"] == 3
    done = run("merge", merged, own)
    assert (done.returncode, done.stderr) == (0, "")
    assert paths(run, f"{project}/{merged}") == set(FILES)


def test_items_and_folders_are_moved_like_files(run: Run, own: str):
    assert run("move", own, "/1.txt", "/one.txt").stdout == "Moved 1 item. No byte was copied.\n"
    assert "To be moved: 1 item" in run("move", own, "/one.txt", "/deep/", "--dry-run").stdout
    assert run("move", own, "/one.txt", "2.txt", "deep").returncode == 0
    assert paths(run, own) == {"/deep/one.txt", "/deep/2.txt", "/deep/3.txt"}
    assert run("mkdir", own, "/shelf", "/a/b").stdout.splitlines()[0].startswith("/shelf is in ")
    assert run("move", own, "/deep", "/shelf").returncode == 0
    assert paths(run, own) == {"/shelf/deep/one.txt", "/shelf/deep/2.txt", "/shelf/deep/3.txt"}
    assert run("move", own, "/shelf/deep", "/flat").returncode == 0
    clash = run("move", own, "/flat/one.txt", "/flat/2.txt")
    assert clash.returncode == 1
    assert "another item at /flat/2.txt already" in clash.stderr
    moved = run("move", own, "--filter", '{"name": "*.txt"}', "/", "--json")
    assert json.loads(moved.stdout) == {"items": 3, "moved": 3, "conflicts": 0}
    assert paths(run, own) == {"/one.txt", "/2.txt", "/3.txt"}
    assert "no item and no folder /never" in run("move", own, "/never", "/x").stderr
    assert "into itself" in run("move", own, "/a", "/a/b").stderr
