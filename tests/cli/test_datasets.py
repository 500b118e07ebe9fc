"""Datasets are made, renamed and deleted from the command line."""

import json

from tests.cli.conftest import Connected, Run


def test_a_dataset_of_its_own_storage_is_made_filled_renamed_and_deleted(run: Run, tmp_path):
    made = run("dataset", "create", "made-by-hand", "--project", "By hand", "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["driver_id"] is None
    (tmp_path / "a.txt").write_text("hello")
    assert run("upload", str(tmp_path / "a.txt"), "--dataset", "By hand/made-by-hand").returncode == 0
    assert run("dataset", "rename", "made-by-hand", "renamed-by-hand").returncode == 0
    kept = run("dataset", "delete", "renamed-by-hand")
    assert kept.returncode == 1
    assert "1 item and all its files" in kept.stderr
    assert "--yes" in kept.stderr
    assert run("ls", "By hand/renamed-by-hand").returncode == 0
    assert run("dataset", "delete", "renamed-by-hand", "--yes").returncode == 0
    assert run("ls", "By hand/renamed-by-hand").returncode == 1


def test_a_dataset_on_a_driver_is_synced_at_once(run: Run, pics: Connected):
    driver = json.loads(run("driver", "list", "--project", pics.project, "--json").stdout)[0]
    made = run("dataset", "create", "second-view", "--project", pics.project, "--driver", driver["name"], "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["driver_id"] == driver["id"]
    assert json.loads(run("status", "second-view", "--json").stdout)["datasets"][0]["last_sync"] is not None
    assert run("dataset", "delete", "second-view", "--yes").returncode == 0


def test_a_name_that_is_taken_is_told(run: Run):
    assert run("dataset", "create", "taken-name").returncode == 0
    again = run("dataset", "create", "taken-name")
    assert again.returncode == 1
    assert "taken-name" in again.stderr
