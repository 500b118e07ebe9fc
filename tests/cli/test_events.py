"""`headwater events setup` and `headwater events queue`, on a driver of SeaweedFS."""

import json
import time

import httpx
import pytest

from headwater.storage.event_setup.writing import function_source
from tests import servers
from tests.buckets import new_bucket
from tests.queues import new_sqs, s3_event


@pytest.fixture(scope="module")
def driver(run, bucket, s3_environment) -> str:
    connected = run("connect", f"s3://{bucket}/told", "--dataset", "told", "--project", "events", **s3_environment)
    assert connected.returncode == 0, connected.stderr
    (found,) = json.loads(run("driver", "list", "--project", "events", "--json").stdout)
    return found["name"]


def test_what_to_make_is_printed_and_the_rest_is_said_beside_it(run, driver, bucket):
    answer = run("events", "setup", driver, "--via", "seaweedfs")
    assert answer.returncode == 0, answer.stderr
    assert f'path_prefixes = ["/buckets/{bucket}/told/"]' in answer.stdout
    assert "Other ways: --via minio --format commands" in answer.stderr
    told = json.loads(run("events", "setup", driver, "--via", "minio", "--json").stdout)
    assert "notify_webhook:headwater" in told["text"]
    assert run("events", "setup", "told", "--via", "seaweedfs").stdout == answer.stdout  # the dataset does as well
    assert told["ways"] == {"minio": ["commands"], "ceph": ["commands"], "seaweedfs": ["commands"]}


def test_a_queue_is_named_shown_and_forgotten(run, driver):
    none = run("events", "queue", driver)
    assert "No queue is read for driver" in none.stdout
    url = "https://sqs.eu-west-1.amazonaws.com/123456789012/told-events"
    named = run("events", "queue", driver, url)
    assert named.returncode == 0, named.stderr
    assert f"{driver}: {url} (no worker reads it" in named.stdout
    assert "read never; last message never; 0 in all" in named.stdout
    assert f"  queue         {url} (no worker reads it" in run("events", "status", driver).stdout
    assert json.loads(run("events", "status", driver, "--json").stdout)["queue"]["queue"] == url
    off = json.loads(run("events", "queue", driver, "--off", "--json").stdout)
    assert (off["queue"], off["state"], off["active"], off["type"]) == (url, "off", False, "sqs")
    assert json.loads(run("events", "queue", driver, "--on", "--json").stdout)["active"] is True
    assert "No queue is read" in run("events", "queue", driver, "--remove").stdout


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["setup", "--via", "queue"], "cannot come by way of queue. Choose one of: minio, ceph, seaweedfs."),
    (["setup", "--via", "minio", "--format", "terraform"], "There is no terraform for minio here."),
    (["queue", "just-a-name"], "come through a queue of SQS: give its url"),
    (["queue", "--off"], "has no queue yet. Name it"),
    (["queue", "--off", "--remove"], "Give one of --on, --off and --remove"),
])  # fmt: skip
def test_what_is_wrong_is_told_in_a_sentence(run, driver, arguments, complaint):
    answer = run("events", arguments[0], driver, *arguments[1:])
    assert (answer.returncode, answer.stdout) == (1, "")
    assert complaint in answer.stderr


def test_an_object_is_seen_at_once_through_a_queue_or_a_small_function(run, server, token_of, monkeypatch):
    with servers.moto() as moto:
        bucket, queue = new_bucket(moto), new_sqs(moto)
        told = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
        bucket.client.put_bucket_notification_configuration(
            Bucket=bucket.name, NotificationConfiguration={"QueueConfigurations": [told]}
        )
        environment = {
            "AWS_ACCESS_KEY_ID": moto.admin.access_key_id,
            "AWS_SECRET_ACCESS_KEY": moto.admin.secret_access_key,
            "AWS_ENDPOINT_URL": moto.endpoint,
            "AWS_REGION": servers.REGION,
        }
        connected = run("connect", f"s3://{bucket.name}", "--dataset", "seen", "--project", "queued", **environment)
        assert connected.returncode == 0, connected.stderr
        (driver,) = json.loads(run("driver", "list", "--project", "queued", "--json").stdout)
        assert run("events", "queue", driver["name"], queue.url).returncode == 0
        switched = httpx.patch(
            f"{server.url}/api/v1/drivers/{driver['id']}/events",
            json={"on": True},
            headers={"authorization": f"Bearer {token_of()}"},
            trust_env=False,
        )
        assert switched.status_code == 200, switched.text
        bucket.put("new/ä b.txt", b"abc")
        deadline = time.monotonic() + 120
        while '"/new/ä b.txt"' not in run("ls", "queued/seen/new", "--json").stdout:
            assert time.monotonic() < deadline
        shown = json.loads(run("events", "queue", driver["name"], "--json").stdout)
        assert shown["state"] == "reading"
        assert shown["messages"] >= 1  # the driver's check wrote an object, too
        assert queue.left() == 0
        assert "by default" in run("schedule", "queued/seen").stdout
        assert run("events", "queue", driver["name"], "--remove").returncode == 0
        bucket.put("new/by function.txt", b"abc")
        monkeypatch.setenv("HEADWATER_HOOK", switched.json()["hook"])
        function = {}
        exec(function_source("aws_lambda"), function)
        told = json.loads(s3_event(bucket.name, "new/by+function.txt"))
        assert function["handler"](told, None) == {"statusCode": 200}
        deadline = time.monotonic() + 120
        while '"/new/by function.txt"' not in run("ls", "queued/seen/new", "--json").stdout:
            assert time.monotonic() < deadline
