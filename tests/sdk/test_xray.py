"""What the SDK's users see of the permission X-ray."""

import json

import httpx


def test_a_key_that_only_reads_makes_no_driver_and_the_error_prints_the_policy(run_sdk, bucket):
    bucket.put("a.txt", b"a")
    reader = bucket.server.reader
    found = run_sdk(
        """
        project = dl.projects.create("x-ray of a reader")
        integration = project.integrations.create(
            integrations_type=dl.IntegrationType.S3, name="x-ray reader", options={"key": key, "secret": secret})
        error = error_of(
            project.drivers.create, name="reader", driver_type=dl.ExternalStorage.S3, integration_id=integration.id,
            integration_type=dl.IntegrationType.S3, bucket_name=bucket, endpoint=endpoint,
            allow_external_delete=False)
        names = [driver.name for driver in project.drivers.list()]
        project.delete(sure=True, really=True)
        answer(error=error, names=names)
        """,
        **bucket.access | {"key": reader.access_key_id, "secret": reader.secret_access_key},
    )
    kind, told = found["error"]
    assert kind == "FailedDependency"
    assert f'may not write to bucket \\"{bucket.name}\\"' in told or f'may not write to bucket "{bucket.name}"' in told
    assert "s3:PutObject" in told
    assert f"arn:aws:s3:::{bucket.name}/*" in told
    assert "readOnly" in told
    assert found["names"] == []
    assert bucket.keys() == {"a.txt"}


def test_the_report_is_kept_with_a_driver_and_made_anew_on_demand(run_sdk, server, bucket):
    bucket.put("a.txt", b"a")
    found = run_sdk(
        """
        project = dl.projects.create("x-ray of a driver")
        driver = s3_driver(project, "checked", allow_external_delete=False)
        answer(driver=driver.id, token=dl.token())
        """,
        **bucket.access,
    )
    client = httpx.Client(headers={"authorization": f"Bearer {found['token']}"}, trust_env=False)
    url = f"{server.url}/api/v1/drivers/{found['driver']}"
    with client:
        made = client.get(url).json()
        assert made["report"]["ok"] is True
        assert made["checkedAt"] >= made["createdAt"]
        report = client.post(f"{url}/validate").json()
        assert {"name": "put", "ok": True, "call": "PutObject"}.items() <= report["checks"][2].items()
        assert client.get(url).json()["report"] == report
        assert client.get(url).json()["checkedAt"] > made["checkedAt"]
    assert bucket.server.admin.secret_access_key not in json.dumps(report)
