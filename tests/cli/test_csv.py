"""`headwater import-csv`: the documented example as it is written, what is printed, and the exit codes."""

import csv
import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import Run
from tests.conftest import RunningServer

GUIDE = Path(__file__).resolve().parents[2] / "docs/guide/csv.md"
LINK = "https://images.example.com/a.jpg"


@pytest.fixture
def api(server: RunningServer, token_of: Callable[..., str]) -> httpx.Client:
    headers = {"authorization": f"Bearer {token_of()}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture
def new_dataset(api: httpx.Client, request: pytest.FixtureRequest) -> Callable[[str], dict]:
    def make(name: str) -> dict:
        project = api.post("/projects", data={"name": f"csv {name}"}).json()
        return api.post("/datasets", json={"name": name, "projects": [project["id"]]}).json()

    return make


def paths(api: httpx.Client, dataset: dict) -> list[str]:
    found = api.post(f"/datasets/{dataset['id']}/query", json={"filter": {"type": "file"}}).json()
    return sorted(item["filename"] for item in found["items"])


def test_the_example_of_the_guide_runs_as_it_is_written(
    server: RunningServer, run: Run, api: httpx.Client, new_dataset, tmp_path: Path
):
    page = GUIDE.read_text()
    table, verdicts = re.findall(r"```csv\n(.*?)```", page, re.DOTALL)
    (line,) = re.findall(r"(?m)^headwater import-csv .*$", page)
    (tmp_path / "photos.csv").write_text(table)
    dataset = new_dataset("photos")
    done = subprocess.run(
        [server.headwater, *line.split()[1:], "--data-dir", str(server.data_dir)],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "photos.csv, read as utf-8, to /photos" in done.stdout
    assert re.search(r"4 +old\.jpg +URL +\S", done.stdout)
    written = list(csv.DictReader(io.StringIO((tmp_path / "verdicts.csv").read_text())))
    documented = list(csv.DictReader(io.StringIO(verdicts)))
    shown = ("row", "name", "outcome", "column")
    assert [{name: one[name] for name in shown} for one in written] == [
        {name: one[name] for name in shown} for one in documented
    ]
    assert [bool(one["reason"]) for one in written] == [bool(one["reason"]) for one in documented]
    assert paths(api, dataset) == ["/photos/field.jpg", "/photos/lake.jpg"]
    item = api.get(f"/items/{written[0]['item_id']}").json()
    assert item["metadata"]["user"] == {"season": "summer", "camera": 3}
    assert item["description"] == "A lake in the woods"
    assert item["metadata"]["system"]["shebang"]["linkInfo"]["ref"] == "https://images.example.com/10/lake.jpg?w=800"


def test_counts_and_verdicts_are_printed_and_the_exit_code_tells(run: Run, api, new_dataset, tmp_path: Path):
    dataset = new_dataset("printed")
    file = tmp_path / "names.csv"
    file.write_text(f"ID;URL;colour\n1;{LINK};red\n2;;\n1;{LINK};\n", encoding="utf-16")
    place = "csv printed/printed"
    dry = run("import-csv", str(file), "--dataset", place, "--dry-run", "--json")
    told = json.loads(dry.stdout)
    assert (dry.returncode, told["status"], told["created"], told["refused"]) == (1, "success", 1, 2)
    assert (told["encoding"], told["separator"], told["dryRun"]) == ("utf-16-le", ";", True)
    assert paths(api, dataset) == []
    done = run("import-csv", str(file), "--dataset", dataset["id"], "--folder", "/in/here")
    assert done.returncode == 1
    assert re.search(r"Created +1", done.stdout)
    assert re.search(r"Refused +2", done.stdout)
    assert re.search(r"4 +1\.jpg +name +Row 2 has this name already\.", done.stdout)
    assert "--results OUT.csv" in done.stdout
    assert paths(api, dataset) == ["/in/here/1.jpg"]
    file.write_text(f"ID,URL\n1,{LINK}\n")
    good = run("import-csv", str(file), "--dataset", place)
    assert (good.returncode, good.stderr) == (0, "")
    again = run("import-csv", str(file), "--dataset", place, "--json")
    assert (again.returncode, json.loads(again.stdout)["skipped"]) == (0, 1)


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (None, [], "There is no file"),
        (b"", [], "The file is empty"),
        (b"PK\x03\x04" + bytes(100), [], "XLSX"),
        (b"1,2\n", [], "has to name the columns"),
        (b"URL\n", ["--encoding", "klingon"], "'klingon' is not read"),
        (b"URL\n", ["--separator", "::"], "is none of"),
    ],
    ids=str,
)
def test_what_is_no_csv_is_a_sentence(run: Run, new_dataset, api, tmp_path: Path, content, arguments, said):
    found = api.post("/datasets/query", json={"filter": {"$and": [{"name": "no csv"}]}}).json()["items"]
    dataset = found[0] if found else new_dataset("no csv")
    file = tmp_path / "x.csv"
    if content is not None:
        file.write_bytes(content)
    told = run("import-csv", str(file), "--dataset", dataset["id"], *arguments)
    assert (told.returncode, told.stdout) == (1, "")
    assert said in told.stderr
