"""The small functions that are printed: run as their clouds run them, read by what reads the hook."""

import importlib.util
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.error import HTTPError

import pytest

from headwater.storage.event_setup.writing import function_source
from headwater.wire import bucket_events
from tests.queues import s3_event


class Hook(HTTPServer):
    """Writes down what it is sent, and answers with `status`."""

    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook"


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library calls it
        pass


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with Hook() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HEADWATER_HOOK", server.url)
        yield server
        server.shutdown()
        thread.join()


def loaded(name: str, folder: Path) -> ModuleType:
    """As it was printed."""
    file = folder / f"{name}.py"
    file.write_text(function_source(name))
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    return module


def said(hook: Hook) -> list[tuple[str | None, str, str]]:
    (body,) = hook.bodies
    return [(hint.bucket, hint.key, hint.action) for hint in bucket_events.parse(body).hints]


def test_the_lambda_sends_what_s3_says(hook: Hook, tmp_path: Path) -> None:
    event = json.loads(s3_event("cams", "raw/%C3%A4+b%2B.txt"))
    assert loaded("aws_lambda", tmp_path).handler(event, None) == {"statusCode": 200}
    assert said(hook) == [("cams", "raw/ä b+.txt", "written")]


@pytest.mark.parametrize(("kind", "action"), [("finalized", "written"), ("deleted", "removed")])
def test_the_google_function_sends_what_cloud_storage_says(hook: Hook, tmp_path: Path, kind: str, action: str) -> None:
    thing = {"bucket": "cams", "name": "raw/ä b+%.txt", "size": "3"}
    request = SimpleNamespace(headers={"ce-type": f"google.cloud.storage.object.v1.{kind}"}, get_json=lambda: thing)
    assert loaded("google_function", tmp_path).handler(request) == ("sent", 200)
    assert said(hook) == [("cams", "raw/ä b+%.txt", action)]


def test_the_google_function_leaves_other_events_alone(hook: Hook, tmp_path: Path) -> None:
    request = SimpleNamespace(headers={"ce-type": "google.cloud.storage.object.v1.metadataUpdated"})
    assert loaded("google_function", tmp_path).handler(request) == ("ignored", 200)
    assert hook.bodies == []


def test_the_azure_function_sends_what_event_grid_says(hook: Hook, tmp_path: Path) -> None:
    data = {"api": "PutBlob", "eTag": "0x8D", "contentLength": 3, "url": "https://cameras.blob.core.windows.net/cams/a"}
    event = SimpleNamespace(
        id="1",
        topic="/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/cameras",
        subject="/blobServices/default/containers/cams/blobs/raw/ä b.txt",
        event_type="Microsoft.Storage.BlobCreated",
        event_time=datetime(2026, 11, 22, tzinfo=UTC),
        data_version="",
        get_json=lambda: data,
    )
    loaded("azure_function", tmp_path).main(event)
    assert said(hook) == [("cams", "raw/ä b.txt", "written")]


def test_what_is_refused_fails_so_that_the_cloud_sends_it_again(hook: Hook, tmp_path: Path) -> None:
    hook.status = 503
    with pytest.raises(HTTPError) as raised:
        loaded("aws_lambda", tmp_path).handler({"Records": []}, None)
    raised.value.close()
