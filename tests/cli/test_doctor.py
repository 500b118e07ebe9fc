"""headwater doctor: what it prints, how it ends, and what connect prints of the same."""

import json
import uuid

import pytest

from tests import servers
from tests.cli.conftest import Connected, Run


@pytest.fixture
def name() -> str:
    return f"n{uuid.uuid4().hex[:10]}"


def test_a_healthy_driver_is_told_as_one(run: Run, pics: Connected):
    told = run("doctor", str(pics.folder), "--project", pics.project)
    assert told.returncode == 0, told.stderr
    assert "✓" in told.stdout
    assert "✗" not in told.stdout
    assert f"Driver {pics.folder} works." in told.stdout
    report = json.loads(run("doctor", str(pics.folder), "-p", pics.project, "--json").stdout)
    assert report["ok"]
    driver_id = json.loads(run("ls", pics.project, "--json").stdout)[0]["driver_id"]
    assert json.loads(run("doctor", driver_id, "--json").stdout)["checks"][0]["name"] == "list"


def test_a_driver_that_is_not_there_is_told(run: Run, pics: Connected):
    told = run("doctor", "none", "--project", pics.project)
    assert told.returncode == 1
    assert "There is no storage driver 'none'" in told.stderr
    assert run("doctor", "none", "--project", "no-such-project").returncode == 1


def test_a_driver_that_lost_its_bucket_fails(run: Run, s3_environment, weed: servers.S3Server, name: str):
    import boto3

    keys = {"aws_access_key_id": weed.admin.access_key_id, "aws_secret_access_key": weed.admin.secret_access_key}
    client = boto3.client("s3", endpoint_url=weed.endpoint, region_name=servers.REGION, **keys)
    client.create_bucket(Bucket=name)
    made = run("connect", f"s3://{name}", "-d", name, "-p", name, "--detach", **s3_environment)
    assert made.returncode == 0, made.stderr
    for entry in client.list_objects_v2(Bucket=name).get("Contents", []):
        client.delete_object(Bucket=name, Key=entry["Key"])
    client.delete_bucket(Bucket=name)
    client.close()
    told = run("doctor", f"s3://{name}", "--project", name)
    assert told.returncode == 1
    assert "✗" in told.stdout
    assert "NoSuchBucket" in told.stdout


def test_connecting_with_a_key_that_only_reads_prints_what_to_add(
    run: Run, s3_environment, weed: servers.S3Server, bucket: str, name: str
):
    reader = {
        "AWS_ACCESS_KEY_ID": weed.reader.access_key_id,
        "AWS_SECRET_ACCESS_KEY": weed.reader.secret_access_key,
    }
    told = run("connect", f"s3://{bucket}/img_7", "-d", name, "-p", name, **s3_environment | reader)
    assert told.returncode == 1
    assert "may not write" in told.stderr
    policy = told.stderr[told.stderr.index('{"Version"') : told.stderr.rindex("}") + 1]
    assert json.loads(policy)["Statement"] == [
        {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": f"arn:aws:s3:::{bucket}/img_7/*"}
    ]
