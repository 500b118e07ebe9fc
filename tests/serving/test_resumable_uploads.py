"""Resumable uploads by a client that others wrote, to servers that are killed and started again."""

import http.client
import io
import random
import threading
from urllib.parse import urlsplit

import httpx
import pytest
from tusclient.client import TusClient

from tests.conftest import stop_server
from tests.serving.watching import Watched, until

SIZE_BYTES = 20 * 1024**2 + 321
VERSION = {"Tus-Resumable": "1.0.0"}


@pytest.fixture(scope="module")
def content() -> bytes:
    return random.randbytes(SIZE_BYTES)


def own_dataset(server: Watched) -> str:
    project = server.call("POST", "/projects", {"name": "uploads"})
    return server.call("POST", "/datasets", {"name": "uploads", "projects": [project["id"]]})["id"]


def client_of(server: Watched, dataset_id: str) -> TusClient:
    token = server.client.headers["authorization"]
    return TusClient(f"{server.running.url}/api/v1/datasets/{dataset_id}/tus", headers={"authorization": token})


def head(server: Watched, url: str) -> httpx.Response | None:
    try:
        answer = server.client.head(urlsplit(url).path, headers=VERSION)
    except httpx.HTTPError:
        return None
    return answer if answer.is_success else None


def uploaded(server: Watched, url: str) -> bytes:
    answer = head(server, url)
    assert answer is not None
    return server.client.get(f"/api/v1/items/{answer.headers['X-Item-Id']}/stream", follow_redirects=True).content


def test_the_usual_client_uploads_in_pieces_with_checksums(start, content: bytes):
    server = start().log_in()
    dataset_id = own_dataset(server)
    uploader = client_of(server, dataset_id).uploader(
        file_stream=io.BytesIO(content), chunk_size=3 * 1024**2, metadata={"path": "/a/large.bin"}, upload_checksum=True
    )
    uploader.upload(stop_at=9 * 1024**2)
    again = client_of(server.log_in(), dataset_id).uploader(
        file_stream=io.BytesIO(content), chunk_size=7 * 1024**2, url=uploader.url
    )
    assert again.offset == 9 * 1024**2
    again.upload()
    assert uploaded(server, again.url) == content


def test_an_upload_survives_a_server_that_stops_and_starts_again(start, content: bytes):
    server = start().log_in()
    dataset_id = own_dataset(server)
    uploader = client_of(server, dataset_id).uploader(
        file_stream=io.BytesIO(content), chunk_size=5 * 1024**2 + 1, metadata={"filename": "large.bin"}
    )
    uploader.upload(stop_at=10 * 1024**2)
    reached = uploader.offset
    assert stop_server(server.running) == 0
    server = start(server.running.data_dir).log_in()
    path = urlsplit(uploader.url).path
    again = client_of(server, dataset_id).uploader(file_stream=io.BytesIO(content), url=f"{server.running.url}{path}")
    assert again.offset == reached
    again.upload()
    assert uploaded(server, path) == content


def test_an_upload_survives_an_api_that_is_killed_in_the_middle(start, content: bytes):
    server = start().log_in()
    dataset_id = own_dataset(server)
    uploader = client_of(server, dataset_id).uploader(
        file_stream=io.BytesIO(content), metadata={"filename": "large.bin"}
    )
    url = uploader.create_url()
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc)
    connection.putrequest("PATCH", place.path)
    given = VERSION | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    for name, text in (given | {"Content-Length": str(SIZE_BYTES)}).items():
        connection.putheader(name, text)
    connection.putheader("authorization", server.client.headers["authorization"])
    connection.endheaders()
    connection.send(content[: 17 * 1024**2])
    folder = server.running.data_dir / "storage" / dataset_id / ".dataloop/tmp/parts"
    until(lambda: sum(part.stat().st_size for part in folder.glob("*")) >= 16 * 1024**2, "two parts lie there")
    api = server.child("api")
    api.kill()  # -9
    until(lambda: not api.is_running(), "the API is gone")
    connection.close()
    answer = until(lambda: head(server, url), "another API answers")
    assert int(answer.headers["Upload-Offset"]) >= 8 * 1024**2
    again = client_of(server, dataset_id).uploader(file_stream=io.BytesIO(content), url=url)
    again.upload()
    assert uploaded(server, url) == content


def test_a_client_that_hangs_does_not_hold_up_the_next(start, content: bytes):
    """Its connection lives, as one does whose other end lost its network."""
    server = start().log_in()
    dataset_id = own_dataset(server)
    url = (
        client_of(server, dataset_id)
        .uploader(file_stream=io.BytesIO(content), metadata={"filename": "large.bin"})
        .create_url()
    )
    place = urlsplit(url)
    hanging = http.client.HTTPConnection(place.netloc)
    hanging.putrequest("PATCH", place.path)
    given = VERSION | {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
    for name, text in (given | {"Content-Length": str(SIZE_BYTES)}).items():
        hanging.putheader(name, text)
    hanging.putheader("authorization", server.client.headers["authorization"])
    hanging.endheaders()
    sent = 9 * 1024**2
    sending = threading.Thread(target=hanging.send, args=[content[:sent]])
    sending.start()
    sending.join()
    answer = until(lambda: head(server, url), "the upload is free")
    assert int(answer.headers["Upload-Offset"]) == sent
    again = client_of(server, dataset_id).uploader(file_stream=io.BytesIO(content), url=url)
    again.upload()
    assert uploaded(server, url) == content
    hanging.close()
