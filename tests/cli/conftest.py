"""Runs the real command line against the session's server, as its operator or with a token."""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import httpx
import pytest
from PIL import Image

from tests import servers
from tests.conftest import RunningServer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def run(server: RunningServer) -> Run:
    """`run("ls", "--json", NAME="value")`: the server's operator, found by --data-dir, unless `alone` is given."""

    def headwater(*arguments: str, alone: bool = False, text: str = "", **environment: str):
        given = [] if alone else ["--data-dir", str(server.data_dir)]
        unset = {name for name in server.environment if name.startswith(("HEADWATER_", "AWS_"))}
        kept = {name: value for name, value in server.environment.items() if name not in unset}
        return subprocess.run(
            [server.headwater, *arguments, *given],
            env=kept | {"COLUMNS": "200"} | environment,
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return headwater


@pytest.fixture(scope="session")
def token_of(server: RunningServer) -> Callable[..., str]:
    """Logs in, which is quicker than printing a token."""

    def log_in(email: str = server.email, password: str = server.password) -> str:
        body = {"username": email, "password": password}
        return httpx.post(f"{server.url}/token", json=body, trust_env=False).json()["id_token"]

    return log_in


def write_pictures(folder: Path) -> Path:
    """Two pictures, one of them deeper, and a file that is no picture though it says so."""
    (folder / "deep").mkdir(parents=True)
    Image.new("RGB", (64, 48), "teal").save(folder / "one.png")
    Image.new("RGB", (64, 48), "navy").save(folder / "deep" / "two.jpg")
    (folder / "empty.jpg").touch()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


@dataclass(frozen=True, slots=True)
class Connected:
    folder: Path
    project: str
    answer: subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def pics(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Connected:
    """Dataset shared/pics on a folder with three files, connected and read once for all tests."""
    folder = write_pictures(tmp_path_factory.mktemp("shared") / "pictures")
    answer = run("connect", str(folder), "--dataset", "pics", "--project", "shared")
    while json.loads(run("status", "shared/pics", "--json").stdout)["datasets"][0]["waiting"]:
        pass
    return Connected(folder, "shared", answer)


@pytest.fixture(scope="session")
def bucket(weed: servers.S3Server) -> Iterator[str]:
    """A bucket with five objects in two folders whose names begin alike."""
    keys = {"aws_access_key_id": weed.admin.access_key_id, "aws_secret_access_key": weed.admin.secret_access_key}
    client = boto3.client("s3", endpoint_url=weed.endpoint, region_name=servers.REGION, **keys)
    client.create_bucket(Bucket="cli-bucket")
    for key in ("img_7/a.txt", "img_7/b.txt", "img_7/c.txt", "img_70/d.txt", "img_70/e.txt"):
        client.put_object(Bucket="cli-bucket", Key=key, Body=b"some text\n")
    yield "cli-bucket"
    client.close()


@pytest.fixture(scope="session")
def s3_environment(weed: servers.S3Server) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": weed.admin.access_key_id,
        "AWS_SECRET_ACCESS_KEY": weed.admin.secret_access_key,
        "AWS_ENDPOINT_URL": weed.endpoint,
        "AWS_REGION": servers.REGION,
    }
