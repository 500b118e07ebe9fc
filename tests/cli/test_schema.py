"""`headwater schema` and `headwater facets`, as people use them."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run


@pytest.fixture
def noted(run: Run, tmp_path: Path) -> str:
    """Three files with metadata, in our own storage."""
    name = f"schema-{tmp_path.name}"
    for folder, file in [("a", "one.txt"), ("a", "two.txt"), ("b", "three.txt")]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).write_text("text")
    assert run("dataset", "create", name, "--project", "schemas").returncode == 0
    sent = run("upload", str(tmp_path / "a"), str(tmp_path / "b"), "--dataset", f"schemas/{name}")
    assert sent.returncode == 0, sent.stderr
    place = f"schemas/{name}"
    assert run("metadata", "set", place, "--folder", "/a", "--set", "camera=[b]front").returncode == 0
    return place


def test_a_schema_is_a_table_and_json(run: Run, noted: str) -> None:
    told = run("schema", noted)
    assert told.returncode == 0, told.stderr
    assert "3 items, all of them read." in told.stdout
    line = next(line for line in told.stdout.splitlines() if "metadata.user.camera" in line)
    assert "66.7 %" in line
    assert "[b]front" in line
    found = json.loads(run("schema", noted, "--json").stdout)
    assert [found["items"], found["sampled_items"], found["is_complete"]] == [3, 3, True]
    camera = next(path for path in found["paths"] if path["path"] == "metadata.user.camera")
    assert camera["types"] == {"string": 2}
    off = run("schema", noted, "--unsearchable", "metadata.user.camera")
    assert "metadata.user.camera (not searched)" in " ".join(off.stdout.split())
    refused = run("facets", noted, "metadata.user.camera")
    assert refused.returncode == 1
    assert "--searchable metadata.user.camera" in " ".join(refused.stderr.split())
    assert "(not searched)" not in run("schema", noted, "--searchable", "metadata.user.camera").stdout


def test_facets_are_counted(run: Run, noted: str) -> None:
    told = run("facets", noted, "metadata.system.mimetype", "dir")
    assert told.returncode == 0, told.stderr
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert {"text/plain 3", "/a 2", "/b 1", "Counted 3 items."} <= set(lines)
    chosen = ("--filter", '{"dir": "/a"}', "--json")
    found = json.loads(run("facets", noted, "metadata.user.camera", "label", *chosen).stdout)
    assert found == {
        "items": 2,
        "facets": [
            {"field": "metadata.user.camera", "values": [{"value": "[b]front", "items": 2}], "more": 0},
            {"field": "label", "values": [], "more": 0},
        ],
    }
    assert run("facets", noted, "dir", "--filter", "{").returncode == 1
