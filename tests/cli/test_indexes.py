"""`headwater index`: what it says and what it does."""

import json

from tests.cli.conftest import Run


def test_a_path_is_added_listed_rebuilt_and_removed(run: Run) -> None:
    run("dataset", "create", "indexed by hand")
    assert "no index" in run("index", "list", "indexed by hand").stdout
    added = run("index", "add", "indexed by hand", "metadata.user.camera & lens")
    assert (added.returncode, "is being indexed" in added.stdout) == (0, True), added.stderr
    listed = json.loads(run("index", "list", "indexed by hand", "--json").stdout)
    assert [path["path"] for path in listed["paths"] if path["pinned"]] == ["metadata.user.camera & lens"]
    assert "metadata.user.camera & lens" in run("index", "list", "indexed by hand").stdout
    assert run("index", "rebuild", "indexed by hand").returncode == 0
    assert run("index", "rebuild", "indexed by hand", "filename").returncode == 0
    assert run("index", "remove", "indexed by hand", "metadata.user.camera & lens").returncode == 0
    again = run("index", "remove", "indexed by hand", "metadata.user.camera & lens")
    assert (again.returncode, "is not indexed" in again.stderr) == (1, True)


def test_a_field_that_there_is_not_is_told(run: Run) -> None:
    run("dataset", "create", "indexed in vain")
    refused = run("index", "add", "indexed in vain", "colour")
    assert (refused.returncode, "no field 'colour'" in refused.stderr) == (1, True)
