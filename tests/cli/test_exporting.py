"""`headwater export` as people use it."""

import json
from pathlib import Path

import duckdb
import pytest

from tests.cli.conftest import Run


@pytest.fixture
def dataset(run: Run, tmp_path: Path) -> str:
    """On a folder with three files; its place."""
    source = tmp_path / "source"
    for name in ("a.txt", "in/b.txt", "in/c.txt"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    done = run("connect", str(source), "--dataset", f"exported-{tmp_path.name}", "--project", "exports")
    assert done.returncode == 0, done.stderr
    place = f"exports/exported-{tmp_path.name}"
    done = run("metadata", "set", place, "--set", "camera=3", "--filter", '{"dir": "/in"}', "--yes")
    assert done.returncode == 0, done.stderr
    return place


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_index_comes_as_parquet_that_duckdb_reads(run, dataset, tmp_path):
    folder = tmp_path / "out"
    done = run("export", dataset, "--to", str(folder), "--column", "metadata.user.camera")
    assert done.returncode == 0, done.stderr
    assert "Exported 3 items" in done.stdout
    assert names_in(folder) == ["annotations-00000.parquet", "croissant.json", "items-00000.parquet"]
    with duckdb.connect() as asked:
        found = asked.execute(
            f"""SELECT path, "metadata.user.camera" FROM '{folder}/items-*.parquet' ORDER BY path"""
        ).fetchall()
    assert found == [("/a.txt", None), ("/in/b.txt", 3), ("/in/c.txt", 3)]


@pytest.mark.parametrize(
    ("form", "names"), [("json", ["export.json"]), ("ndjson", ["items-00000.ndjson"]), ("zip", ["export.zip"])]
)
def test_other_formats_and_a_filter(run, dataset, tmp_path, form, names):
    folder = tmp_path / "out"
    given = ("--to", str(folder), "--format", form, "--filter", '{"dir": "/in"}', "--no-annotations", "--json")
    done = run("export", dataset, *given)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], told["items"], [file["name"] for file in told["files"]]) == ("success", 2, names)
    assert names_in(folder) == names


def test_without_a_folder_the_files_stay_on_the_server(run, dataset):
    done = run("export", dataset, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["folder"] is None
    assert all(file["id"] for file in told["files"])


def test_an_interrupted_export_goes_on(run, dataset, tmp_path):
    """What has come is not fetched again, and the same export is gone on with."""
    folder = tmp_path / "out"
    first = json.loads(run("export", dataset, "--to", str(folder), "--json").stdout)
    (folder / "items-00000.parquet").write_bytes(b"half")
    body = {"format": "parquet", "annotations": True}
    state = {"dataset": first["dataset_id"], "body": body, "command": first["id"]}
    (folder / ".headwater-export.json").write_text(json.dumps(state))
    again = json.loads(run("export", dataset, "--to", str(folder), "--json").stdout)
    assert again["id"] == first["id"]
    assert names_in(folder) == ["annotations-00000.parquet", "croissant.json", "items-00000.parquet"]
    assert (folder / "items-00000.parquet").stat().st_size == first["files"][0]["size_bytes"]


def test_an_earlier_export_is_replaced_only_when_asked(run, dataset, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "items-00007.parquet").write_bytes(b"old")
    mine = ["export.py", "items-of-mine.csv", "mine.txt"]
    for name in mine:
        (folder / name).write_bytes(b"mine")
    done = run("export", dataset, "--to", str(folder))
    assert done.returncode == 1
    assert "earlier export" in done.stderr
    refused = run("export", dataset, "--to", str(folder), "--overwrite", "--filter", '{"nothing": 1}')
    assert refused.returncode == 1
    assert names_in(folder) == sorted([*mine, "items-00007.parquet"])
    assert run("export", dataset, "--to", str(folder), "--overwrite").returncode == 0
    ours = ["annotations-00000.parquet", "croissant.json", "items-00000.parquet"]
    assert names_in(folder) == sorted([*mine, *ours])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--filter", "{"), "no JSON"),
        (("--filter", '{"nothing": 1}'), "nothing"),
        (("--column", "name"), "metadata.user."),
        (("--column", "metadata.user.a:blob"), "no type"),
        (("--format", "json", "--column", "metadata.user.a"), "Parquet"),
    ],
)
def test_what_cannot_be_is_said(run, dataset, given, said):
    done = run("export", dataset, *given)
    assert done.returncode == 1
    assert said in done.stderr
