"""`headwater sync-rules` and `headwater ghosts`, on a dataset whose files come and go."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ghosts")
    for name in ("a.jpg", "b.jpg", "raw/c.jpg", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def dataset(run, root: Path) -> str:
    answer = run("connect", str(root), "--dataset", "haunted", "--project", "ghosts")
    assert answer.returncode == 0, answer.stderr
    return "ghosts/haunted"


def rules(run, dataset: str) -> dict:
    return json.loads(run("sync-rules", dataset, "--json").stdout)


def listed(run, dataset: str, *arguments: str) -> list[str]:
    found = json.loads(run("ghosts", "list", dataset, "--json", *arguments).stdout)
    return [ghost["path"] for ghost in found["ghosts"]]


def test_rules_are_shown_set_and_cleared(run, dataset):
    shown = run("sync-rules", dataset)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "every object" in shown.stdout
    assert "100 items or 10% of all" in shown.stdout
    answer = run("sync-rules", dataset, "--include", "*.jpg", "--include", "*.txt", "--exclude", "x/", "--follow-moves",
                 "--brake-share", "0.5")  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "They count from the next sync on: headwater sync ghosts/haunted" in answer.stderr
    assert rules(run, dataset) == {
        "include": ["*.jpg", "*.txt"],
        "exclude": ["x/"],
        "ghosts": "flag",
        "follow_moves": True,
        "sidecars": False,
        "brake_items": 100,
        "brake_share": 0.5,
    }
    run("sync-rules", dataset, "--clear-globs", "--exclude", "y", "--no-follow-moves")
    found = rules(run, dataset)
    assert (found["include"], found["exclude"], found["follow_moves"], found["brake_share"]) == ([], ["y"], False, 0.5)
    run("sync-rules", dataset, "--clear-globs")
    assert rules(run, dataset)["exclude"] == []


def test_a_preview_changes_nothing(run, dataset):
    answer = run("sync-rules", dataset, "--include", "*.jpg", "--exclude", "raw/", "--preview")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "Would match 2 of all 4 objects. Nothing was changed." in answer.stdout
    assert "  /raw/c.jpg" in answer.stdout
    found = json.loads(run("sync-rules", dataset, "--include", "*.jpg", "--preview", "--json").stdout)
    assert (found["looked"], found["kept"], found["left_out_examples"]) == (4, 3, ["/notes.txt"])
    assert rules(run, dataset)["include"] == []


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--exclude", "[a"], "The glob '[a' cannot be used"),
    (["--brake-share", "7"], "brakeShare"),
    (["--ghosts", "keep"], "Invalid value"),
    (["--preview", "--follow-moves"], "--preview tries globs"),
])  # fmt: skip
def test_what_is_wrong_with_rules_is_told_in_a_sentence(run, dataset, arguments, complaint):
    answer = run("sync-rules", dataset, *arguments)
    assert answer.returncode != 0
    assert complaint in answer.stderr


def test_the_life_of_a_ghost(run, dataset, root):
    run("sync-rules", dataset, "--ghosts", "trash", "--exclude", "raw/")
    (root / "a.jpg").unlink()
    assert run("sync", dataset).returncode == 0
    assert listed(run, dataset) == ["/a.jpg", "/raw/c.jpg"]
    shown = run("ghosts", "list", dataset)
    assert "/a.jpg" in shown.stdout
    assert "haunted: 0 ghosts with a flag, 2 in the trash." in shown.stdout
    assert json.loads(run("ls", dataset, "--json").stdout)["total_items"] == 2
    dry = run("ghosts", "restore", dataset, "/raw/", "--dry-run")
    assert "Would be done with 1 ghost of haunted" in dry.stdout
    assert listed(run, dataset, "--trash") == ["/a.jpg", "/raw/c.jpg"]
    assert "Restored: 1 ghost of haunted." in run("ghosts", "restore", dataset, "/raw/").stdout
    assert listed(run, dataset, "--trash") == ["/a.jpg"]
    assert "Put into the trash: 1 ghost" in run("ghosts", "trash", dataset, "--all").stdout
    assert listed(run, dataset, "/raw/", "--trash") == ["/raw/c.jpg"]
    assert listed(run, dataset, "--since", "2100-01-01") == []
    refused = run("ghosts", "forget", dataset, "/a.jpg")
    assert refused.returncode == 1
    assert "This forgets 1 ghost of haunted for good. Confirm it: add --yes" in refused.stderr
    assert listed(run, dataset) == ["/a.jpg", "/raw/c.jpg"]
    told = json.loads(run("ghosts", "forget", dataset, "/a.jpg", "--yes", "--json").stdout)
    assert told == {"items": 1, "examples": ["/a.jpg"], "dry_run": False, "command_id": None}
    assert "Forgotten: 1 ghost of haunted." in run("ghosts", "forget", dataset, "--trash", "--yes").stdout
    assert "There are no such ghosts." in run("ghosts", "forget", dataset, "--all", "--yes").stdout
    assert (root / "raw/c.jpg").exists()


@pytest.mark.parametrize("action", ["restore", "trash", "forget"])
@pytest.mark.parametrize("arguments", [[], ["/a", "--all"]])
def test_which_ghosts_has_to_be_said(run, dataset, action, arguments):
    answer = run("ghosts", action, dataset, *arguments)
    assert answer.returncode == 1
    assert "Say which ghosts: paths (a folder ends with /), or --all." in answer.stderr


def test_a_limit_tells_that_there_are_more(run, dataset, root):
    run("sync-rules", dataset, "--ghosts", "flag", "--clear-globs")
    for n in range(3):
        (root / f"{n}.tmp").touch()
    run("sync", dataset)
    for n in range(3):
        (root / f"{n}.tmp").unlink()
    run("sync", dataset)
    assert listed(run, dataset, "--limit", "2") == ["/0.tmp", "/1.tmp"]
    assert "There are more. Show more of them: --limit 20" in run("ghosts", "list", dataset, "--limit", "2").stderr
