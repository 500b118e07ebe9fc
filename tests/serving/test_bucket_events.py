"""SeaweedFS tells Headwater what happens in a bucket, and the index follows it without a sync."""

import http.server
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

import httpx
import pytest

from tests import servers
from tests.buckets import Bucket, new_bucket
from tests.conftest import RunningServer


class Mail:
    """Passes on what SeaweedFS sends: its address has to be known before the bucket is there, the hook's only after."""

    def __init__(self) -> None:
        mail = self
        self.hook = ""
        self.answers: list[tuple[int, str]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, text = 200, ""
                if mail.hook:
                    answer = httpx.post(mail.hook, content=body, trust_env=False)
                    status, text = answer.status_code, answer.text
                    mail.answers.append((status, text))
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(scope="module")
def mail() -> Iterator[Mail]:
    made = Mail()
    yield made
    made.close()


@pytest.fixture(scope="module")
def telling_weed(tmp_path_factory: pytest.TempPathFactory, mail: Mail) -> Iterator[servers.S3Server]:
    """SeaweedFS with its notifications as docs/guide/bucket-events.md has them."""
    folder = tmp_path_factory.mktemp("telling")
    (folder / "notification.toml").write_text(
        f'[notification.webhook]\nenabled = true\nendpoint = "{mail.url}"\npath_prefixes = ["/buckets/"]\n'
    )
    with servers.seaweedfs(folder) as server:
        yield server


def headwater(server: RunningServer, *arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [server.headwater, *arguments, "--data-dir", str(server.data_dir)],
        env=server.environment | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Api:
    """As the server's operator."""

    def __init__(self, server: RunningServer) -> None:
        token = headwater(server, "token").strip()
        headers = {"authorization": f"Bearer {token}"}
        self.client = httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, trust_env=False, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def dataset(self) -> dict[str, Any]:
        return next(
            one for one in self.client.post("/datasets/query", json={}).json()["items"] if one["name"] == "weed-told"
        )

    def items(self) -> set[str]:
        body = {"filter": {}, "resource": "items", "page": 0, "pageSize": 100}
        found = self.client.post(f"/datasets/{self.dataset()['id']}/query", json=body).json()["items"]
        return {item["filename"] for item in found if item["type"] == "file"}


def wait_for(condition, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_what_others_do_in_a_bucket_of_seaweedfs_is_seen_without_a_sync(
    server: RunningServer, telling_weed: servers.S3Server, mail: Mail
):
    bucket: Bucket = new_bucket(telling_weed)
    bucket.put("cams/first.txt", b"1")
    bucket.put("cams/going.txt", b"2")
    keys = {
        "AWS_ACCESS_KEY_ID": telling_weed.admin.access_key_id,
        "AWS_SECRET_ACCESS_KEY": telling_weed.admin.secret_access_key,
        "AWS_ENDPOINT_URL": telling_weed.endpoint,
    }
    headwater(server, "connect", f"s3://{bucket.name}/cams", "--dataset", "weed-told", "--project", "weed-told", **keys)
    with Api(server) as api:
        wait_for(lambda: not api.dataset()["isSyncing"] and api.items() >= {"/first.txt", "/going.txt"})
        (driver,) = json.loads(headwater(server, "driver", "list", "--project", "weed-told", "--json"))
        mail.hook = headwater(server, "events", "on", driver["name"], "--project", "weed-told").strip()
        bucket.put("cams/new +%20ö.txt", b"3")
        bucket.put("cams/first.txt", b"changed")
        bucket.put("elsewhere/x.txt", b"4")
        bucket.delete("cams/going.txt")
        wait_for(lambda: "/new +%20ö.txt" in api.items() and api.dataset()["counts"]["missing"] == 1)
        wait_for(lambda: api.dataset()["counts"]["bytes"] == len(b"changed") + 2)
        assert "/x.txt" not in api.items()
        assert {status for status, _ in mail.answers} == {200}
        status = headwater(server, "events", "status", driver["name"], "--project", "weed-told")
        assert "followed by   weed-told" in status
        of_dataset = [one for one in api.client.get("/commands").json() if one["type"] == "SyncDataset"]
        mine = [one for one in of_dataset if one["spec"].get("datasetId") == api.dataset()["id"]]
        assert len(mine) == 1  # that of `connect`
