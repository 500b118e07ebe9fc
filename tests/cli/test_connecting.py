"""connect, sync, ls and status, as people type them."""

import json
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from headwater.cli.sources import endpoint_of, parse_source
from tests.cli.conftest import Connected, Run
from tests.conftest import RunningServer

DATASET_KEYS = {
    "id",
    "name",
    "project_id",
    "driver_id",
    "items",
    "size_bytes",
    "preprocessed",
    "waiting",
    "failed",
    "missing",
    "is_syncing",
    "synced_at",
    "created_at",
}
ITEM_KEYS = {
    "id",
    "path",
    "size_bytes",
    "mime_type",
    "width_px",
    "height_px",
    "state",
    "has_thumbnail",
    "is_missing",
    "created_at",
}


@pytest.fixture
def name() -> str:
    """A name of the test's own, for a project or a dataset."""
    return f"n{uuid.uuid4().hex[:10]}"


def test_connecting_a_folder_makes_everything_and_syncs(pics: Connected):
    assert pics.answer.returncode == 0, pics.answer.stderr
    assert "Synced pics: 3 objects listed, 3 new." in pics.answer.stdout
    assert "Made dataset shared/pics" in pics.answer.stderr


def test_connecting_twice_adds_nothing(run: Run, pics: Connected):
    again = run("connect", f"file://{pics.folder}", "--dataset", "pics", "--project", "shared")
    assert again.returncode == 0, again.stderr
    assert "3 unchanged" in again.stdout
    assert f"Dataset shared/pics on {pics.folder} exists already" in again.stderr
    assert "Made" not in again.stderr


def test_another_dataset_on_the_same_folder_uses_the_same_driver(run: Run, folder: Path, name: str):
    one = json.loads(run("connect", str(folder), "-d", name, "-p", f"{name}-a", "--detach", "--json").stdout)
    again = run("connect", str(folder), "-d", "two", "-p", f"{name}-a", "--no-follow", "--json")
    two = json.loads(again.stdout)
    assert one["driver_id"] == two["driver_id"]
    assert one["dataset_id"] != two["dataset_id"]
    assert "exists already" in again.stderr
    other = run("connect", str(folder), "-d", name, "-p", f"{name}-b", "--detach")
    assert "headwater abort" in other.stdout
    refused = run("sync", name)
    assert refused.returncode == 1, "a name that two datasets have must be told apart"
    assert f"{name}-a/{name}" in refused.stderr


def test_a_dataset_name_that_is_taken_by_other_storage_is_not_reused(run: Run, pics: Connected):
    other = run("connect", str(pics.folder / "deep"), "-d", "pics", "-p", "shared")
    assert other.returncode == 1
    assert f"on other storage ({pics.folder})" in other.stderr


def test_allowing_deletion_later_is_refused_not_ignored(run: Run, pics: Connected):
    later = run("connect", str(pics.folder), "-d", "pics", "-p", "shared", "--allow-delete")
    assert later.returncode == 1
    assert "headwater driver update" in later.stderr


def test_a_driver_is_listed_changed_and_deleted(run: Run, folder: Path, name: str):
    run("connect", str(folder), "-d", name, "-p", name)
    changed = run("driver", "update", str(folder), "-p", name, "--allow-delete", "--name", f"kept {name}")
    assert changed.returncode == 0, changed.stderr
    (driver,) = json.loads(run("driver", "list", "-p", name, "--json").stdout)
    assert (driver["name"], driver["allowExternalDelete"]) == (f"kept {name}", True)
    assert f"kept {name}" in run("driver", "list", "-p", name).stdout
    assert run("connect", str(folder), "-d", name, "-p", name, "--allow-delete").returncode == 0
    used = run("driver", "delete", f"kept {name}")
    assert used.returncode == 1
    assert "used by a dataset" in used.stderr


def test_a_driver_change_without_a_change_is_refused(run: Run):
    refused = run("driver", "update", "any")
    assert refused.returncode == 1
    assert "Nothing to change" in refused.stderr


def test_connecting_a_bucket_takes_keys_from_the_environment_and_only_its_folder(
    run: Run, bucket: str, s3_environment: dict[str, str], name: str
):
    done = run("connect", f"s3://{bucket}/img_7", "-d", "texts", "-p", name, **s3_environment)
    assert done.returncode == 0, done.stderr
    assert "3 objects listed, 3 new" in done.stdout
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    again = run("connect", f"s3://{bucket}/img_7/", "-d", "texts", "-p", name, **s3_environment)
    assert "3 unchanged" in again.stdout, again.stderr


def test_connecting_with_an_integration_that_knows_its_endpoint_can_be_repeated(
    run: Run, bucket: str, s3_environment: dict[str, str], name: str
):
    keys = [("key", "AWS_ACCESS_KEY_ID"), ("secret", "AWS_SECRET_ACCESS_KEY")]
    given = [word for option, variable in keys for word in ("--option", f"{option}=env:{variable}")]
    endpoint = f"endpoint={s3_environment['AWS_ENDPOINT_URL']}"
    made = run("integration", "create", name, "--type", "s3", *given, "--metadata", endpoint, **s3_environment)
    assert made.returncode == 0, made.stderr
    for found in ("3 new", "3 unchanged"):
        done = run("connect", f"s3://{bucket}/img_7", "-d", "texts", "-p", name, "--integration", name)
        assert found in done.stdout, done.stderr
    assert len(json.loads(run("driver", "list", "-p", name, "--json").stdout)) == 1
    listed = json.loads(run("integration", "list", "--org", "Headwater", "--json").stdout)
    assert name in [integration["name"] for integration in listed]
    elsewhere = run("integration", "list", "--org", "Nowhere")
    assert "no organisation 'Nowhere'" in elsewhere.stderr


def test_containers_of_two_accounts_are_told_apart_by_their_endpoint():
    one, two = (parse_source(f"az://{account}/photos/2024") for account in ("one", "two"))
    assert endpoint_of(one, None) == "https://one.blob.core.windows.net"
    assert endpoint_of(two, None) == "https://two.blob.core.windows.net"
    assert endpoint_of(two, "http://127.0.0.1:10000/") == "http://127.0.0.1:10000"
    assert endpoint_of(parse_source("s3://photos"), None) is None


def test_a_bucket_that_refuses_the_keys_leaves_nothing_behind(
    run: Run, bucket: str, s3_environment: dict[str, str], server: RunningServer, token_of: Callable[..., str]
):
    wrong = s3_environment | {"AWS_SECRET_ACCESS_KEY": "not-the-secret"}
    refused = run("connect", f"s3://{bucket}/img_70", "-d", "texts", "-p", "shared", **wrong)
    assert refused.returncode == 1
    assert bucket in refused.stderr
    assert "not-the-secret" not in refused.stderr + refused.stdout
    headers = {"Authorization": f"Bearer {token_of()}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, trust_env=False) as client:
        organization = client.get("/orgs").json()[0]["id"]
        names = {integration["name"] for integration in client.get(f"/orgs/{organization}/integrations").json()}
    assert f"s3://{bucket}/img_70" not in names


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("s3://somewhere/x", "AWS_ACCESS_KEY_ID"),
        ("gs://somewhere/x", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az://account/somewhere/x", "AZURE_STORAGE_KEY"),
        ("az://account", "names no bucket"),
        ("ftp://somewhere/x", "no sources of the kind ftp://"),
        ("s3://", "names no bucket"),
        ("/etc", "HEADWATER_LOCAL_ROOTS=/etc"),
    ],
)
def test_a_source_that_cannot_be_connected_is_told_with_what_to_do(run: Run, source: str, words: str):
    refused = run("connect", source, "--dataset", "d", "--project", "shared")
    assert refused.returncode == 1
    assert words in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_emptied_folder_asks_for_confirmation_with_exit_code_3(run: Run, folder: Path, name: str):
    run("connect", str(folder), "-d", name, "-p", name)
    for path in (folder / "one.png", folder / "deep" / "two.jpg", folder / "empty.jpg"):
        path.unlink()
    held = run("sync", name)
    assert held.returncode == 3
    assert "--confirm-missing" in held.stderr
    confirmed = run("sync", f"{name}/{name}", "--confirm-missing", "--json")
    assert confirmed.returncode == 0, confirmed.stderr
    assert json.loads(confirmed.stdout)["sync"]["marked"] == 3


def test_projects_and_datasets_are_listed_with_stable_keys(run: Run, pics: Connected):
    projects = json.loads(run("ls", "--json").stdout)
    assert {"id", "name", "role", "datasets", "created_at"} == set(projects[0])
    shared = next(project for project in projects if project["name"] == "shared")
    assert shared["datasets"] == 1
    (dataset,) = json.loads(run("ls", "shared", "--json").stdout)
    assert set(dataset) == DATASET_KEYS
    assert (dataset["name"], dataset["items"], dataset["missing"]) == ("pics", 3, 0)


def test_folders_and_items_are_listed_with_stable_keys(run: Run, pics: Connected):
    root = json.loads(run("ls", "shared/pics", "--json").stdout)
    assert root["folders"] == ["/deep"]
    assert [item["path"] for item in root["items"]] == ["/empty.jpg", "/one.png"]
    deep = json.loads(run("ls", "shared/pics/deep/", "--json").stdout)
    assert [item["path"] for item in deep["items"]] == ["/deep/two.jpg"]
    assert set(deep["items"][0]) == ITEM_KEYS
    assert "and 1 more" in run("ls", "shared/pics", "--limit", "1").stdout


def test_status_tells_the_reasons_of_failures(run: Run, pics: Connected):
    status = json.loads(run("status", "shared/pics", "--json").stdout)
    assert set(status) == {"url", "datasets", "running"}
    (dataset,) = status["datasets"]
    assert set(dataset) == DATASET_KEYS | {"project", "failures", "last_sync"}
    (failure,) = dataset["failures"]
    assert failure == {"reason": "empty", "count": 1, "path": "/empty.jpg", "message": "The file is empty."}
    assert dataset["last_sync"]["status"] == "success"
    shown = run("status", dataset["id"]).stdout
    assert "shared/pics" in shown
    assert "/empty.jpg: The file is empty." in shown


def test_aborting_when_nothing_runs_says_so(run: Run, pics: Connected):
    assert "No sync of pics is running" in run("sync", "shared/pics", "--abort").stdout
    synced = json.loads(run("sync", "shared/pics", "--json").stdout)
    assert "has ended already (success)" in run("abort", synced["id"]).stdout
