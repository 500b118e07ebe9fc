"""A server with its processes, and the few calls that fill it."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from tests.buckets import Bucket
from tests.conftest import RunningServer

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, within_s: float = 60) -> T:
    """The first true value of the condition."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {within_s:g} s until {what}"
        time.sleep(0.02)
    return value


def living(processes: set[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        try:
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())}")
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for_end(processes: set[psutil.Process], within_s: float = 3) -> None:
    """Python's own helper of child processes ends a moment after its parent."""
    deadline = time.monotonic() + within_s
    while left := living(processes):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.02)


def processes_of(data_dir: Path) -> set[psutil.Process]:
    """Those that name the directory: the supervisor and the embedded PostgreSQL, with their descendants."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if str(data_dir) in " ".join(process.cmdline()):
                found |= {process, *process.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    return found


@dataclass
class Watched:
    running: RunningServer
    client: httpx.Client

    def log_in(self, password: str | None = None, email: str | None = None) -> "Watched":
        body = {"username": email or self.running.email, "password": password or self.running.password}
        answer = self.client.post("/token?default", json=body)
        answer.raise_for_status()
        self.client.headers["authorization"] = f"Bearer {answer.json()['id_token']}"
        return self

    def call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.client.request(method, f"/api/v1{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def child(self, name: str) -> psutil.Process:
        """The API process listens; the worker is the other one."""
        port = int(self.running.url.rpartition(":")[2])
        for process in psutil.Process(self.running.process.pid).children():
            if "spawn_main" in " ".join(process.cmdline()):
                ports = [seen.laddr.port for seen in process.net_connections("tcp") if seen.status == "LISTEN"]
                if (port in ports) == (name == "api"):
                    return process
        raise AssertionError(f"no {name} process")

    def s3_dataset(self, bucket: Bucket) -> str:
        access = bucket.access
        integration = {"type": "s3", "options": {"key": access["key"], "secret": access["secret"]}}
        driver = {"type": "s3", "payload": {"bucketName": bucket.name, "endpoint": access["endpoint"]}}
        return self._dataset(integration, driver)

    def folder_dataset(self, folder: Path) -> str:
        integration = {"type": "hostPath", "options": {}, "metadata": {"path": str(folder)}}
        return self._dataset(integration, {"type": "storage", "payload": {}})

    def _dataset(self, integration: dict[str, Any], driver: dict[str, Any]) -> str:
        """Its id. The initial sync starts by itself."""
        name = secrets.token_hex(6)
        project = self.call("POST", "/projects", {"name": name})
        made = self.call("POST", f"/orgs/{project['org']['id']}/integrations", {"name": name} | integration)
        scope = {"system": {"projectId": project["id"]}}
        body = {"name": name, "integrationId": made["id"], "metadata": scope} | driver
        driver_id = self.call("POST", "/drivers", body)["id"]
        return self.call("POST", "/datasets", {"name": name, "projects": [project["id"]], "driver": driver_id})["id"]

    def dataset(self, dataset_id: str) -> dict[str, Any]:
        return self.call("GET", f"/datasets/{dataset_id}")

    def wait_for_sync(self, dataset_id: str, within_s: float = 90) -> None:
        until(lambda: not self.dataset(dataset_id)["isSyncing"], "the sync ends", within_s)

    def wait_for_thumbnails(self, dataset_id: str, within_s: float = 120) -> None:
        self.wait_for_sync(dataset_id, within_s)
        until(lambda: self.dataset(dataset_id)["counts"]["waiting"] == 0, "everything is preprocessed", within_s)

    def items(self, dataset_id: str) -> list[dict[str, Any]]:
        query = {"filter": {}, "page": 0, "pageSize": 1000, "resource": "items"}
        return self.call("POST", f"/datasets/{dataset_id}/query", query)["items"]
