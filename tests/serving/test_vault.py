"""Headwater with its secrets in OpenBao, as users run it: a bucket synced, keys changed, without a restart."""

import secrets as random
import time
from pathlib import Path
from typing import Any

import boto3
import httpx

from tests import servers
from tests.conftest import start_server, stop_server


def kept_paths(bao: servers.VaultServer) -> set[str]:
    kv = bao.client().secrets.kv.v2
    try:
        return set(kv.list_secrets("headwater", mount_point="secret")["data"]["keys"])
    except Exception:  # an empty folder is no folder
        return set()


def ended(client: httpx.Client, command: dict[str, Any]) -> dict[str, Any]:
    while command["status"] not in ("success", "failed"):
        time.sleep(0.1)
        command = client.get(f"/commands/{command['id']}").json()
    return command


def test_a_bucket_is_synced_with_keys_from_openbao_and_with_others_after_they_change(
    tmp_path: Path, weed: servers.S3Server
):
    bucket = f"birds-{random.token_hex(6)}"
    keys = {"aws_access_key_id": weed.admin.access_key_id, "aws_secret_access_key": weed.admin.secret_access_key}
    s3 = boto3.client("s3", endpoint_url=weed.endpoint, region_name=servers.REGION, **keys)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="a.txt", Body=b"a")
    with servers.openbao(tmp_path / "openbao") as bao:
        given = {"HEADWATER_VAULT_URL": bao.url, "HEADWATER_VAULT_TOKEN": bao.root_token}
        server = start_server(tmp_path / "headwater", **given)
        try:
            body = {"username": server.email, "password": server.password}
            token = httpx.post(f"{server.url}/token", json=body, trust_env=False).json()["id_token"]
            with httpx.Client(
                base_url=f"{server.url}/api/v1",
                headers={"authorization": f"Bearer {token}"},
                timeout=60,
                trust_env=False,
            ) as client:
                use(client, bao, weed, bucket, s3)
        finally:
            stop_server(server)
        log = (tmp_path / "headwater.log").read_text()
        assert bao.root_token not in log
        assert weed.admin.secret_access_key not in log


def use(client: httpx.Client, bao: servers.VaultServer, weed: servers.S3Server, bucket: str, s3: Any) -> None:
    organization = client.get("/orgs").json()[0]["id"]
    project = client.post("/projects", data={"name": "birds"}).json()["id"]
    url = f"/orgs/{organization}/integrations"
    options = {"key": weed.admin.access_key_id, "secret": weed.admin.secret_access_key}
    new = {"name": "keys", "type": "s3", "options": options, "metadata": {"endpoint": weed.endpoint}}
    integration = client.post(url, json=new).json()["id"]
    assert len(kept_paths(bao)) == 1
    driver = client.post("/drivers", json={
        "name": "driver", "type": "s3", "integrationId": integration, "allowExternalDelete": False,
        "metadata": {"system": {"projectId": project}},
        "payload": {"bucketName": bucket, "region": servers.REGION, "endpoint": weed.endpoint},
    })  # fmt: skip
    assert driver.is_success, driver.text
    dataset = client.post("/datasets", json={"name": "d", "projects": [project], "driver": driver.json()["id"]}).json()

    def synced() -> dict[str, Any]:
        return ended(client, client.post(f"/datasets/{dataset['id']}/sync").json())

    def change(**given: str) -> None:
        credentials = {"options": options | given, "type": "s3"}
        answer = client.patch(url, json={"integrationId": integration, "credentials": credentials})
        assert answer.is_success, answer.text

    def items() -> int:
        return client.post(f"/datasets/{dataset['id']}/query", json={}).json()["totalItemsCount"]

    assert synced()["status"] == "success"
    assert items() == 1
    change(secret="wrong-wrong-wrong")
    while (failed := synced())["status"] == "success":  # the old key may be used for a few seconds more
        pass
    assert "wrong-wrong-wrong" not in str(failed)
    s3.put_object(Bucket=bucket, Key="b.txt", Body=b"b")
    change()
    while synced()["status"] == "failed":
        pass
    assert items() == 2
