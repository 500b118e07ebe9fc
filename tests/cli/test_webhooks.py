"""`headwater webhooks` against the real server and worker: from adding one to its delivery, and its end."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

import pytest
from standardwebhooks.webhooks import Webhook


class Receiver:
    def __init__(self) -> None:
        self.received: Queue = Queue()
        self.status = 200

    def take(self) -> tuple[dict[str, str], bytes]:
        return self.received.get(timeout=60)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(kept.status)
            self.send_header("content-length", "0")
            self.end_headers()
            kept.received.put((dict(self.headers), body))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        kept.url = f"http://127.0.0.1:{http.server_port}/in"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield kept
        http.shutdown()
        thread.join()


def test_a_webhook_hears_of_a_sync_and_can_be_tried_followed_rotated_and_removed(run, folder, receiver):
    project = "webhooks"
    (folder / "a.txt").write_text("text")
    assert run("connect", str(folder), "--dataset", "hooked", "--project", project).returncode == 0
    made = json.loads(run("webhooks", "add", project, "ops", receiver.url, "--json").stdout)
    secret = made["secret"]

    tried = run("webhooks", "test", project, "ops")
    assert "Delivered in" in tried.stdout, tried.stderr
    headers, body = receiver.take()
    assert Webhook(secret).verify(body, headers)["type"] == "webhook.test"

    assert run("sync", f"{project}/hooked").returncode == 0
    told = []
    for _ in range(2):
        headers, body = receiver.take()
        told.append(Webhook(secret).verify(body, headers))
    assert {one["type"] for one in told} == {"command.started", "command.succeeded"}
    assert {one["data"]["datasetName"] for one in told} == {"hooked"}

    shown = json.loads(run("webhooks", "deliveries", project, "ops", "--json").stdout)
    assert {one["kind"] for one in shown} == {"webhook.test", "command.started", "command.succeeded"}
    again = next(one["id"] for one in shown if one["kind"] == "command.succeeded")
    assert run("webhooks", "deliveries", project, "ops", "--redeliver", again).returncode == 0
    headers, body = receiver.take()
    assert Webhook(secret).verify(body, headers)["type"] == "command.succeeded"

    new = json.loads(run("webhooks", "rotate", project, "ops", "--json").stdout)["secret"]
    run("webhooks", "test", project, "ops")
    headers, body = receiver.take()
    assert Webhook(secret).verify(body, headers) == Webhook(new).verify(body, headers)

    receiver.status = 418
    refused = run("webhooks", "test", project, "ops")
    assert (refused.returncode, "answered 418" in refused.stderr) == (1, True)

    assert run("webhooks", "update", project, "ops", "--off").stdout.strip() == "ops is off."
    assert "off: switched off" in run("webhooks", "list", project).stdout
    assert secret not in run("webhooks", "list", project, "--json").stdout
    assert run("webhooks", "remove", project, "ops").returncode == 0
    assert "No webhook." in run("webhooks", "list", project).stdout


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["list", "nobody's"], "There is no project"),
    (["test", "webhooks", "nobody's"], "There is no webhook"),
    (["add", "webhooks", "x", "ftp://a.test"], "does not begin with https://"),
    (["add", "webhooks", "x", "https://a.test", "--kind", "loud"], "command.failed"),
])  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(run, arguments, complaint):
    run("project", "create", "webhooks")
    answer = run("webhooks", *arguments)
    assert answer.returncode == 1
    assert complaint in answer.stderr
