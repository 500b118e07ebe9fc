"""`headwater demo --once`, as `make demo` runs it."""

import socket
from pathlib import Path

import pytest

from headwater.cli.demo import demo_settings
from headwater.cli.sources import Access, Bucket, endpoint_of, parse_source
from tests.cli.conftest import Run


@pytest.fixture(scope="module")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "data"


def test_the_demo_shows_the_samples_and_ends(run: Run, demo_dir: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("demo", "--once", "--data-dir", str(demo_dir), alone=True, HEADWATER_PORT=str(port))
    assert done.returncode == 0, done.stderr
    assert f"Port {port} is taken" in done.stderr
    assert "image/jpeg" in done.stdout
    assert "thumbnails made" in done.stdout
    assert "/odd/empty.jpg" in done.stdout
    assert "The file is empty." in done.stdout
    assert ".dataloop" in done.stdout
    password = (demo_dir / "admin-password").read_text().strip()
    assert f'dl.login_m2m(email="admin@headwater.local", password="{password}")' in done.stdout
    assert list((demo_dir / "sample-files/.dataloop/thumbnails").glob("*.webp"))
    assert not (demo_dir / "server.json").exists()


def test_the_demo_can_be_repeated_with_a_bucket_even_one_without_objects(
    run: Run, demo_dir: Path, bucket: str, s3_environment: dict[str, str]
):
    source = f"s3://{bucket}/nothing"
    done = run("demo", source, "--once", "--port", "0", "--data-dir", str(demo_dir), alone=True, **s3_environment)
    assert done.returncode == 0, done.stderr
    assert "The bucket has no object" in done.stderr
    assert "all items" in done.stdout
    assert s3_environment["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr


def test_the_demo_empties_only_its_own_directory(run: Run, tmp_path: Path):
    (tmp_path / "storage").mkdir()
    refused = run("demo", "--once", "--fresh", "--data-dir", str(tmp_path), alone=True)
    assert refused.returncode == 1
    assert (tmp_path / "storage").exists()


def test_the_demo_refuses_a_folder_that_is_not_there(run: Run, tmp_path: Path):
    refused = run("demo", str(tmp_path / "nix"), "--once", "--data-dir", str(tmp_path / "data"), alone=True)
    assert refused.returncode == 1
    assert "There is no folder" in refused.stderr


@pytest.mark.parametrize(
    ("source", "endpoint", "allows"),
    [
        ("az://account/photos", None, False),
        ("az://account/photos", "http://127.0.0.1:10000", True),
        ("gs://photos", None, False),
        ("s3://photos", "http://127.0.0.1:9000", True),
    ],
)
def test_the_demo_allows_inner_addresses_only_for_an_endpoint_that_was_given(
    tmp_path: Path, source: str, endpoint: str | None, allows: bool
):
    parsed = parse_source(source)
    assert isinstance(parsed, Bucket)
    access = Access({}, endpoint_of(parsed, endpoint), None)
    assert demo_settings(tmp_path, parsed, access, 0).allow_private_endpoints is allows
