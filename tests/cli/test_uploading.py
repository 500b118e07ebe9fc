"""`headwater upload` as people use it: into own storage and into a bucket, interrupted, and with what goes wrong."""

import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.buckets import Bucket, new_bucket
from tests.cli.conftest import Run
from tests.cli.gates import gate
from tests.cli.test_downloading import files_of, fill, start
from tests.conftest import RunningServer, start_server, stop_server
from tests.servers import S3Server

BIG = random.Random(7).randbytes(60_000_000)
SIGNED = "X-Amz-Signature="  # in an address: sent by a client and not by the server


@pytest.fixture
def state(tmp_path: Path) -> dict[str, str]:
    """Where the journal is."""
    return {"XDG_STATE_HOME": str(tmp_path / "state")}


@pytest.fixture
def bucket(weed: S3Server) -> Bucket:
    return new_bucket(weed)


@pytest.fixture
def upload(run: Run, state: dict[str, str]) -> Callable[..., dict[str, Any]]:
    """Uploads and returns the summary with its exit code and complaints."""

    def upload(*arguments: str) -> dict[str, Any]:
        done = run("upload", *arguments, "--json", **state)
        assert done.stdout, done.stderr
        return json.loads(done.stdout) | {"code": done.returncode, "said": done.stderr}

    return upload


def own_dataset(server: RunningServer, token: str, name: str) -> str:
    """A dataset in our own storage."""
    import httpx

    with httpx.Client(base_url=f"{server.url}/api/v1", trust_env=False) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        project = client.post("/projects", json={"name": name}).json()
        made = client.post("/datasets", json={"name": name, "projects": [project["id"]]})
        return made.raise_for_status().json()["id"]


def bucket_dataset(run: Run, bucket: Bucket, environment: dict[str, str]) -> str:
    done = run("connect", f"s3://{bucket.name}", "--dataset", bucket.name, "--project", "uploads", **environment)
    assert done.returncode == 0, done.stderr
    return f"uploads/{bucket.name}"


@pytest.fixture(params=["own", "bucket"])
def dataset(request, run: Run, server: RunningServer, token_of, bucket: Bucket, s3_environment) -> str:
    if request.param == "own":
        return own_dataset(server, token_of(), f"up-{bucket.name}")
    return bucket_dataset(run, bucket, s3_environment)


def counts(told: dict[str, Any]) -> dict[str, int]:
    names = ("created", "replaced", "skipped", "done_before", "failed")
    return {name: told[name] for name in names if told[name]}


def random_tree(seed: int) -> dict[str, bytes]:
    chance = random.Random(seed)
    letters = "aZ0 .-_+%&#?=;,()[]{}'\"!~$@^`é字🌊*|<>:"
    tree: dict[str, bytes] = {}
    for _ in range(120):
        names = [
            "".join(chance.choices(letters, k=chance.randint(1, 12))).strip(". ") or "x"
            for _ in range(chance.choice([1, 1, 2, 3, 6]))
        ]
        path = "/".join(names)
        if not any(path.startswith(f"{other}/") or other.startswith(f"{path}/") for other in tree):
            tree[path] = chance.randbytes(chance.choice([0, 1, 100, 5_000, 100_000]))
    tree["big.bin"] = BIG[: 5 * 1024**2 + 3]
    return tree


def test_a_tree_that_is_uploaded_and_downloaded_is_the_same(run: Run, upload, dataset: str, tmp_path: Path):
    tree = random_tree(11)
    here = fill(tmp_path / "tree", tree)
    assert counts(upload(f"{here}/", "--dataset", dataset)) == {"created": len(tree)}
    assert run("download", dataset, "--to", str(tmp_path / "back")).returncode == 0
    assert files_of(tmp_path / "back") == tree
    assert counts(upload(f"{here}/", "--dataset", dataset)) == {"skipped": len(tree)}


def test_new_files_are_added_and_others_replaced_only_when_asked(
    run: Run, upload, dataset: str, tmp_path: Path, state: dict[str, str]
):
    here = fill(tmp_path / "pics", {"a.txt": b"first", "deep/b.txt": b"b", "big.bin": BIG[:40_000_000]})
    planned = run("upload", str(here), "--dataset", dataset, "--dry-run", **state)
    assert "To be sent to" in planned.stdout
    assert "3 files" in planned.stdout
    told = run("upload", str(here), "--dataset", dataset, "--to", "x", **state)
    assert (told.returncode, told.stderr) == (0, "")
    assert "3 created" in told.stdout
    fill(here, {"a.txt": b"second!", "c.txt": b"c"})
    assert counts(upload(str(here), "--dataset", dataset, "--to", "/x/")) == {"created": 1, "skipped": 3}
    back = tmp_path / "back"
    assert run("download", dataset, "--to", str(back)).returncode == 0
    assert (back / "x/pics/a.txt").read_bytes() == b"first"
    assert counts(upload(str(here), "--dataset", dataset, "--to", "/x", "--overwrite")) == {"replaced": 4}
    assert counts(upload(str(here), "--dataset", dataset, "--to", "/x", "--overwrite")) == {"replaced": 4}
    assert run("download", dataset, "--to", str(back), "--overwrite").returncode == 0
    assert files_of(back) == {f"x/pics/{name}": content for name, content in files_of(here).items()}
    assert list((tmp_path / "state/headwater/uploads").iterdir()) == []


def metadata_of(run: Run, server: RunningServer, token: str, dataset: str) -> dict[str, Any]:
    import httpx

    headers = {"Authorization": f"Bearer {token}"}
    items = json.loads(run("ls", dataset, "--json").stdout)["items"]
    return {
        item["path"]: httpx.get(f"{server.url}/api/v1/items/{item['id']}", headers=headers, trust_env=False).json()[
            "metadata"
        ]["user"]
        for item in items
    }


def test_metadata_comes_from_a_file_and_from_files_beside(
    run: Run, server: RunningServer, token_of, upload, bucket: Bucket, s3_environment, tmp_path: Path
):
    dataset = bucket_dataset(run, bucket, s3_environment)
    here = fill(tmp_path / "pics", {"a.txt": b"a", "a.txt.json": b'{"lens": "wide", "camera": 4}', "b.txt": b"b"})
    fill(here, {"bad.txt": b"", "bad.txt.json": b"[1]"})
    (tmp_path / "all.json").write_text('{"camera": 3, "tags": ["x"]}')
    told = upload(f"{here}/", "--dataset", dataset, "--metadata", str(tmp_path / "all.json"), "--sidecars")
    assert (told["code"], counts(told)) == (1, {"created": 2, "failed": 1})
    assert "holds no JSON object" in told["failures"][0]["reason"]
    assert metadata_of(run, server, token_of(), dataset) == {
        "/a.txt": {"camera": 4, "tags": ["x"], "lens": "wide"},
        "/b.txt": {"camera": 3, "tags": ["x"]},
    }


def test_what_cannot_be_uploaded_is_told_and_the_rest_comes(run: Run, upload, dataset: str, tmp_path: Path):
    here = fill(tmp_path / "odd", {"good.txt": b"good", "new\nline.txt": b"n", ".dataloop/thumbnails/x.jpg": b"t"})
    (here / os.fsdecode(b"caf\xe9.jpg")).touch()
    (here / "dead").symlink_to("nowhere")
    (here / "loop").symlink_to(here)
    told = upload(f"{here}/", "--dataset", dataset)
    assert (told["code"], counts(told)) == (1, {"created": 1, "failed": 5})
    reasons = {failure["path"].rpartition("/")[2]: failure["reason"] for failure in told["failures"]}
    assert set(reasons) == {"caf\\xe9.jpg", "dead", "loop", "new\nline.txt", "x.jpg"}
    assert "without control characters" in reasons["new\nline.txt"].replace("and ", "")
    assert "1 files, 1 failed" not in told["said"]
    shown = run("upload", f"{here}/", "--dataset", dataset, XDG_STATE_HOME=str(tmp_path))
    assert "Error: " in shown.stderr
    assert "1 already there, 5 failed" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing-here"], "There is no file or folder nothing-here"),
        ([".", "--metadata", "nothing.json"], "nothing.json cannot be read"),
        (["a", "deep/a"], "would both become /a"),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_a_sentence(server: RunningServer, tmp_path: Path, arguments, said):
    import subprocess

    fill(tmp_path, {"a": b"", "deep/a": b""})
    told = subprocess.run(
        [server.headwater, "upload", *arguments, "--dataset", "x", "--data-dir", str(server.data_dir)],
        cwd=tmp_path,
        env=server.environment | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (told.returncode, told.stdout) == (1, "")
    assert said in told.stderr


def test_ctrl_c_keeps_the_parts_that_came_and_the_next_run_sends_the_others(
    run: Run, server: RunningServer, token_of, weed: S3Server, bucket: Bucket, s3_environment, tmp_path: Path, state
):
    """Straight to the bucket, by the gate that the driver takes for it."""
    here = fill(tmp_path / "pics", {"big.bin": BIG, "a.txt": b"a"})
    with gate(weed.endpoint, only=SIGNED) as slow:
        dataset = bucket_dataset(run, bucket, s3_environment | {"AWS_ENDPOINT_URL": slow.url})
        arguments = ("upload", str(here), "--dataset", dataset)
        with gate(server.url) as api:
            slow.open(up_bytes=40_000_000)
            first = start(server, token_of(), api, *arguments, **state)
            slow.wait_until_halted()
            first.send_signal(signal.SIGINT)
            _, said = first.communicate(timeout=60)
            assert first.returncode == 130, said
            assert "goes on where it stopped" in said
            passed = slow.passed["up"]
            slow.open()
            second = start(server, token_of(), api, *arguments, **state)
            told, said = second.communicate(timeout=60)
            assert second.returncode == 0, said
            assert "1 created, 1 already there" in told
        assert slow.passed["up"] - passed < len(BIG) - 8_000_000
    assert bucket.get("pics/big.bin") == BIG
    assert list((tmp_path / "state/headwater/uploads").iterdir()) == []


def test_a_large_file_through_the_server_goes_on_where_it_was_interrupted(
    server: RunningServer, token_of, bucket: Bucket, tmp_path: Path, state
):
    dataset = own_dataset(server, token_of(), f"tus-{bucket.name}")
    here = fill(tmp_path / "pics", {"big.bin": BIG})
    arguments = ("upload", str(here), "--dataset", dataset)
    with gate(server.url, up_bytes=30_000_000) as slow:
        first = start(server, token_of(), slow, *arguments, **state)
        slow.wait_until_halted()
        first.send_signal(signal.SIGINT)
        _, said = first.communicate(timeout=60)
        assert first.returncode == 130, said
        slow.cut()
        slow.open()
        passed = slow.passed["up"]
        second = start(server, token_of(), slow, *arguments, **state)
        told, said = second.communicate(timeout=60)
        assert second.returncode == 0, said
        assert "1 created" in told
        assert slow.passed["up"] - passed < len(BIG) - 15_000_000
        down = start(server, token_of(), slow, "download", dataset, "--to", str(tmp_path / "back"))
        assert down.communicate(timeout=60)[1] == ""
    assert files_of(tmp_path / "back") == {"pics/big.bin": BIG}


def test_a_file_that_changes_while_it_is_sent_becomes_no_item(
    run: Run, server: RunningServer, token_of, weed: S3Server, bucket: Bucket, s3_environment, tmp_path: Path, state
):
    here = fill(tmp_path / "pics", {"big.bin": BIG, "a.txt": b"a"})
    with gate(weed.endpoint, only=SIGNED) as slow, gate(server.url) as api:
        dataset = bucket_dataset(run, bucket, s3_environment | {"AWS_ENDPOINT_URL": slow.url})
        slow.open(up_bytes=20_000_000)
        running = start(server, token_of(), api, "upload", str(here), "--dataset", dataset, **state)
        slow.wait_until_halted()
        with (here / "big.bin").open("ab") as file:
            file.write(b"more")
        slow.open()
        told, said = running.communicate(timeout=60)
        assert running.returncode == 1
        assert "big.bin: It changed while it was read" in said
        assert "1 created, 1 failed" in told
        assert bucket.keys() == {"pics/a.txt"}


def test_a_server_that_is_killed_and_started_again_is_waited_for(
    weed: S3Server, bucket: Bucket, tmp_path: Path, s3_environment, state
):
    """Many small files through the server, and a large one."""
    tree = {f"{n % 7}/{n}.bin": BIG[n * 1000 : n * 1000 + 40_000] for n in range(300)} | {"big.bin": BIG[:20_000_000]}
    here = fill(tmp_path / "tree", tree)
    own = start_server(tmp_path / "own")
    with gate(own.url) as api:
        import httpx

        login = {"username": own.email, "password": own.password}
        token = httpx.post(f"{own.url}/token", json=login, trust_env=False).json()["id_token"]
        dataset = own_dataset(own, token, "killed")
        api.open(up_bytes=6_000_000)
        running = start(own, token, api, "upload", f"{here}/", "--dataset", dataset, **state)
        api.wait_until_halted()
        own.process.kill()
        own.process.wait()
        api.cut()
        again = start_server(tmp_path / "own")
        try:
            api.lead_to(again.url)
            api.open()
            told, said = running.communicate(timeout=90)
            assert running.returncode == 0, said
            assert "failed" not in told
            down = start(again, token, api, "download", dataset, "--to", str(tmp_path / "back"))
            _, said = down.communicate(timeout=60)
            assert down.returncode == 0, said
        finally:
            stop_server(again)
    assert files_of(tmp_path / "back") == tree


def test_names_that_are_no_text_are_told_in_json(upload, run: Run, server: RunningServer, token_of, tmp_path: Path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    fill(folder, {"a.jpg": b"a", "a.jpg.json": b"["})
    dataset = own_dataset(server, token_of(), f"names-{tmp_path.name}")
    told = upload(f"{folder}/", "--dataset", dataset, "--sidecars")
    assert "caf\\xe9/a.jpg.json is not JSON" in told["failures"][0]["reason"]
    rehearsed = run("upload", f"{folder}/a.jpg", "--dataset", dataset, "--dry-run", "--json")
    assert json.loads(rehearsed.stdout)["examples"][0]["file"].endswith("caf\\xe9/a.jpg")


def test_replacing_goes_on_where_it_was_interrupted(
    run: Run, server: RunningServer, token_of, weed: S3Server, bucket: Bucket, s3_environment, tmp_path: Path, state
):
    """A server cannot tell what was replaced already; the journal can."""
    here = fill(tmp_path / "pics", {f"{n}.bin": BIG[n : n + 50_000] for n in range(200)})
    with gate(weed.endpoint, only=SIGNED) as slow, gate(server.url) as api:
        dataset = bucket_dataset(run, bucket, s3_environment | {"AWS_ENDPOINT_URL": slow.url})
        assert run("upload", f"{here}/", "--dataset", dataset, **state).returncode == 0
        slow.open(up_bytes=6_000_000)
        arguments = ("upload", f"{here}/", "--dataset", dataset, "--overwrite", "--json")
        first = start(server, token_of(), api, *arguments, **state)
        slow.wait_until_halted()
        first.send_signal(signal.SIGINT)
        slow.open()  # a SeaweedFS that waits for the rest of a body keeps the server waiting
        told = json.loads(first.communicate(timeout=60)[0])
        assert first.returncode == 130
        assert told["interrupted"]
        assert 0 < told["replaced"] < 200
        second = start(server, token_of(), api, *arguments, **state)
        again = json.loads(second.communicate(timeout=60)[0])
        assert counts(again) == {"replaced": 200 - told["replaced"], "done_before": told["replaced"]}
        third = start(server, token_of(), api, *arguments, **state)
        assert counts(json.loads(third.communicate(timeout=60)[0])) == {"replaced": 200}
