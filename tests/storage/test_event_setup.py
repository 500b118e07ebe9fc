"""What `headwater events setup` prints: it runs or parses, its rights are the least, no name says more than itself."""

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import hcl2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.errors import BadRequest
from headwater.storage.event_setup import setup, writing
from headwater.storage.event_setup.setup import Format, Source, Via
from tests import servers
from tests.buckets import new_bucket
from tests.queues import aws

HOOK = "https://headwater.example/api/v1/hooks/secret-of-the-hook"
NASTY = """it's "a" $(touch pwned) `touch pwned` ${x} %{y} ä\\ #/"""
ROOT = Path(__file__).resolve().parents[2]


def source(cloud: setup.Cloud = "aws", **given: Any) -> Source:
    fields = {
        "driver_id": 42,
        "driver": "cams",
        "bucket": "cams",
        "prefix": "raw/",
        "region": servers.REGION,
        "hook": HOOK,
        "audience": "https://headwater.example",
        "endpoint": "https://s3.example" if cloud == "s3" else None,
        "account": "cameras" if cloud == "azure" else "",
    }
    return Source(cloud, **(fields | given))


def every_way() -> list[tuple[setup.Cloud, Via, Format]]:
    return [
        (cloud, via, format_)
        for cloud in ("aws", "s3", "gcs", "azure")
        for via, formats in setup.ways(cloud).items()
        for format_ in formats
    ]


# The AWS CLI's part is played by tests/aws_cli.py, the cloud's by moto.


def run_script(script: str, folder: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    program = folder / "aws"
    program.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(ROOT / "tests/aws_cli.py"))} "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return subprocess.run(
        ["/bin/sh", "-c", script],
        env={"PATH": f"{folder}:{os.environ['PATH']}", "AWS_ENDPOINT_URL": endpoint, "HOME": str(folder)},
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=120,
        check=False,
    )


def test_the_commands_for_a_queue_make_one_that_only_this_bucket_fills(moto: servers.S3Server, tmp_path: Path) -> None:
    bucket = new_bucket(moto)
    asked = source(bucket=bucket.name, driver="my 'cams'")
    done = run_script(setup.text(asked, "queue"), tmp_path, moto.endpoint)
    assert done.returncode == 0, done.stderr
    url = re.search(r"headwater events queue 'my '\"'\"'cams'\"'\"'' (http\S+)", done.stdout)[1]
    sqs = aws(moto, "sqs")
    told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    (statement,) = json.loads(told["Policy"])["Statement"]
    assert statement == {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": told["QueueArn"],
        "Condition": {
            "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{bucket.name}"},
            "StringEquals": {"aws:SourceAccount": "123456789012"},
        },
    }
    dead = json.loads(told["RedrivePolicy"])
    assert dead["maxReceiveCount"] in (5, "5")
    assert dead["deadLetterTargetArn"].endswith(f":{asked.name}-dead")
    iam = aws(moto, "iam")
    arn = re.search(r"--policy-arn (\S+)", done.stdout)[1]
    policy = iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"]
    assert policy["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"],
            "Resource": told["QueueArn"],
        }
    ]
    bucket.put("raw/in.txt", b"abc")
    bucket.put("other/out.txt", b"abc")
    received = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    keys = [record["s3"]["object"]["key"] for one in received for record in json.loads(one["Body"]).get("Records", [])]
    assert keys == ["raw%2Fin.txt"]
    again = run_script(setup.text(asked, "queue"), tmp_path, moto.endpoint)
    assert again.returncode == 1
    assert "has notifications already" in again.stderr


def test_the_commands_for_a_webhook_make_a_topic_that_only_this_bucket_publishes_to(
    moto: servers.S3Server, tmp_path: Path
) -> None:
    bucket = new_bucket(moto)
    asked = source(bucket=bucket.name)
    done = run_script(setup.text(asked, "webhook"), tmp_path, moto.endpoint)
    assert done.returncode == 0, done.stderr
    sns = aws(moto, "sns")
    (topic,) = [one["TopicArn"] for one in sns.list_topics()["Topics"] if one["TopicArn"].endswith(asked.name)]
    (subscription,) = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("https", HOOK)
    (statement,) = json.loads(sns.get_topic_attributes(TopicArn=topic)["Attributes"]["Policy"])["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("sns:Publish", topic)
    assert statement["Condition"]["ArnEquals"] == {"aws:SourceArn": f"arn:aws:s3:::{bucket.name}"}
    told = bucket.client.get_bucket_notification_configuration(Bucket=bucket.name)["TopicConfigurations"][0]
    assert told["TopicArn"] == topic
    assert told["Filter"]["Key"]["FilterRules"][0]["Value"] == "raw/"


def test_the_commands_for_eventbridge_make_a_rule_that_may_send_to_the_hook_alone(
    moto: servers.S3Server, tmp_path: Path
) -> None:
    bucket = new_bucket(moto)
    asked = source(bucket=bucket.name)
    done = run_script(setup.text(asked, "eventbridge"), tmp_path, moto.endpoint)
    assert done.returncode == 0, done.stderr
    events, iam = aws(moto, "events"), aws(moto, "iam")
    rule = events.describe_rule(Name=asked.name)
    assert json.loads(rule["EventPattern"]) == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created", "Object Deleted"],
        "detail": {"bucket": {"name": [bucket.name]}, "object": {"key": [{"prefix": "raw/"}]}},
    }
    (target,) = events.list_targets_by_rule(Rule=asked.name)["Targets"]
    destination = events.describe_api_destination(Name=asked.name)
    assert destination["InvocationEndpoint"] == HOOK
    assert target["Arn"] == destination["ApiDestinationArn"]
    role = iam.get_role(RoleName=asked.name)["Role"]
    assert target["RoleArn"] == role["Arn"]
    (trusted,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert trusted["Condition"] == {"ArnEquals": {"aws:SourceArn": rule["Arn"]}}
    (allowed,) = iam.get_role_policy(RoleName=asked.name, PolicyName="send")["PolicyDocument"]["Statement"]
    assert (allowed["Action"], allowed["Resource"]) == ("events:InvokeApiDestination", target["Arn"])


def test_the_commands_for_ceph_are_those_of_its_own_topics(moto: servers.S3Server, tmp_path: Path) -> None:
    bucket = new_bucket(moto)
    asked = source("s3", bucket=bucket.name, endpoint=moto.endpoint)
    done = run_script(setup.text(asked, "ceph"), tmp_path, moto.endpoint)
    assert done.returncode == 0, done.stderr
    told = bucket.client.get_bucket_notification_configuration(Bucket=bucket.name)["TopicConfigurations"][0]
    assert told["TopicArn"].endswith(asked.name)


# What cannot be run here is read by a parser of its language.


@pytest.mark.parametrize(("cloud", "via", "format_"), every_way())
@pytest.mark.parametrize("prefix", ["", "raw/", NASTY])
def test_every_text_is_of_its_language_and_names_cannot_break_out(
    cloud: setup.Cloud, via: Via, format_: Format, prefix: str, tmp_path: Path
) -> None:
    asked = source(cloud, prefix=prefix, driver=NASTY)
    text = setup.text(asked, via, format_)
    if format_ == "function":
        compile(text, "function.py", "exec")
        assert "noqa" not in text
        assert set(re.findall(r"(?m)^(?:import|from) (\w+)", text)) <= sys.stdlib_module_names
    elif format_ == "terraform":
        assert_terraform(text)
    elif via == "seaweedfs":
        told = tomllib.loads(text)["notification"]["webhook"]
        assert (told["endpoint"], told["path_prefixes"]) == (HOOK, [f"/buckets/cams/{prefix}"])
    else:
        told = words_of(text, tmp_path)
        assert not (tmp_path / "pwned").exists()
        if prefix and cloud != "aws":  # where it is encoded
            inside = prefix if via != "ceph" else json.dumps(prefix, ensure_ascii=False)
            assert any(inside in word for words in told for word in words)
    assert ("secret-of-the-hook" in text) == (via != "queue" and format_ != "function")


def assert_terraform(text: str) -> None:
    document = hcl2.loads(text)
    assert {"terraform", "provider", "resource"} <= document.keys()
    used = set(re.findall(r"\b((?:data\.)?[a-z]+_[a-z_0-9]+\.[a-z_]+)\.", text))
    made = {f"{kind}.{name}" for kind, name in re.findall(r'(?m)^resource "(\w+)" "(\w+)"', text)}
    known = {f"data.{kind}.{name}" for kind, name in re.findall(r'(?m)^data "(\w+)" "(\w+)"', text)}
    assert {name for name in used if name.startswith(("aws_", "google_", "azurerm_", "data."))} <= made | known


def words_of(script: str, folder: Path) -> list[list[str]]:
    """What each program of a script is given, by programs that only write it down."""
    folder.mkdir(exist_ok=True)
    log = folder / "log"
    for name in ("aws", "az", "gcloud", "mc"):
        program = folder / name
        program.write_text(
            f"#!{sys.executable}\nimport json, sys\n"
            f"open({str(log)!r}, 'a').write(json.dumps(sys.argv) + '\\n')\n"
            "print('' if 'get-bucket-notification-configuration' in sys.argv else 'told')\n"
        )
        program.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-eu", "-c", script],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = re.search(r"headwater events \w+ (.*)", done.stdout)[1]
    assert shlex.split(told)[0] == NASTY  # what is printed to be pasted names the driver
    return [json.loads(line)[1:] for line in log.read_text().splitlines()]


def test_what_google_is_asked_for(tmp_path: Path) -> None:
    asked = source("gcs", prefix=NASTY, driver=NASTY)
    told = words_of(setup.text(asked, "webhook"), tmp_path)
    binding, notification, push = told[3], told[4], told[6]
    assert binding[-2:] == ["--member=serviceAccount:told", "--role=roles/pubsub.publisher"]
    assert f"--object-prefix={NASTY}" in notification
    assert "--skip-topic-setup" in notification
    assert f"--push-endpoint={HOOK}" in push
    assert f"--push-auth-service-account={asked.name}@told.iam.gserviceaccount.com" in push
    assert "--push-auth-token-audience=https://headwater.example" in push
    assert not any("roles/" in word and "publisher" not in word for words in told for word in words)


@pytest.mark.parametrize(("via", "endpoint"), [
    ("webhook", HOOK),
    ("queue", "told/queueServices/default/queues/headwater-2a-"),
])  # fmt: skip
def test_what_azure_is_asked_for(via: Via, endpoint: str, tmp_path: Path) -> None:
    asked = source("azure", driver=NASTY, has_folders=True)
    told = words_of(setup.text(asked, via), tmp_path)
    made = told[-1]
    assert made[:3] == ["eventgrid", "event-subscription", "create"]
    assert made[made.index("--endpoint") + 1].startswith(endpoint)
    assert made[made.index("--subject-begins-with") + 1] == "/blobServices/default/containers/cams/blobs/raw/"
    assert "Microsoft.Storage.DirectoryRenamed" in made
    assert "Microsoft.Storage.DirectoryRenamed" not in setup.text(source("azure"), via)


def test_a_server_that_speaks_s3_is_offered_every_way(tmp_path: Path) -> None:
    text = setup.text(source("s3"))
    for part in ("notify_webhook:headwater", "push-endpoint", "[notification.webhook]"):
        assert part in text


def test_drivers_on_one_minio_have_a_webhook_each() -> None:
    """Setting the second one up must not send the first one's events there."""
    targets = {
        re.search(r"notify_webhook:(\S+)", setup.text(replace(source("s3"), driver_id=number), "minio"))[1]
        for number in (1, 2)
    }
    assert len(targets) == 2
    assert all(re.fullmatch("[a-z0-9]+", target) for target in targets)


@pytest.mark.parametrize(("cloud", "via", "format_", "complaint"), [
    ("gcs", "queue", "commands", "Choose one of: webhook."),
    ("aws", "minio", "commands", "Choose one of: queue, webhook, eventbridge."),
    ("s3", "minio", "terraform", "There is no terraform for minio here. Choose one of: commands."),
    ("s3", "webhook", "terraform", "There is no terraform for minio here."),
    ("aws", "queue", "function", "Choose one of: commands, terraform."),
])  # fmt: skip
def test_what_is_not_offered_is_told_with_what_is(
    cloud: setup.Cloud, via: Via, format_: Format, complaint: str
) -> None:
    with pytest.raises(BadRequest) as raised:
        setup.text(source(cloud), via, format_)
    assert complaint in str(raised.value)


def test_eventbridge_needs_an_address_with_https() -> None:
    with pytest.raises(BadRequest, match="https:// addresses only"):
        setup.text(source(hook="http://10.0.0.1/hook"), "eventbridge")


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\ue000\ue001\x00")))
def test_any_text_stays_what_it_is_in_every_language(name: str) -> None:
    assert shlex.split(writing.shell_json({"a": name, "b": "x"})) == [
        json.dumps({"a": name, "b": "x"}, ensure_ascii=False, separators=(",", ":"))
    ]
    assert shlex.split(shlex.split(writing.shown(name))[0]) == [name]
    told = json.loads(writing.hcl(name).replace("$${", "${").replace("%%{", "%{"))
    assert told == name or "$${" in name or "%%{" in name
    assert tomllib.loads("a = " + writing._QUOTES["toml"](name)) == {"a": name}


def test_nothing_in_a_name_is_evaluated_by_terraform() -> None:
    assert writing.hcl('a${b}%{c}"\n') == r'"a$${b}%%{c}\"\n"'
    document = hcl2.loads(setup.text(source("gcs", prefix="${file}/"), "webhook", "terraform"))
    assert "$${file}/" in str(document)


def test_names_of_what_is_made_are_the_same_each_time_and_others_for_another_server() -> None:
    names = {source().name, source(prefix="other/").name}
    assert len(names) == 1
    assert source(hook="https://another.example/hook").name not in names
    for driver_id in (1, 2**40, 2**62):
        assert re.fullmatch(r"[a-z][a-z0-9-]{5,29}", source(driver_id=driver_id).name)
