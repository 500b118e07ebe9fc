"""The three clouds through the SDK: integration, driver, dataset, and an item that downloads byte by byte the same."""

import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from azure.storage.blob import ContainerClient

from tests import google, servers

CONTENT = os.urandom(200_000)
KEYS = {"a b/ä %+.bin": CONTENT, "deep/er/empty.txt": b"", "plain.txt": b"plain"}


@dataclass(frozen=True)
class Cloud:
    """What a script is told of one cloud, and the bucket as a client that is not ours sees it."""

    told: dict[str, Any]
    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes]


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server, google.google_tokens() as tokens:
        name = f"cams-{secrets.token_hex(6)}"
        server.make_bucket(name)
        client = httpx.Client(base_url=server.endpoint, trust_env=False)

        def put(key: str, content: bytes) -> None:
            query = {"uploadType": "media", "name": key}
            client.post(f"/upload/storage/v1/b/{name}/o", params=query, content=content).raise_for_status()

        def get(key: str) -> bytes:
            path = "/".join(["/storage/v1/b", name, "o", key.replace("%", "%25").replace("/", "%2F")])
            return client.get(path, params={"alt": "media"}).raise_for_status().content

        options = {"key": "", "secret": "", "content": google.key_file(token_uri=tokens.token_uri)}
        with client:
            yield Cloud(
                {
                    "kind": "GCS",
                    "options": options,
                    "endpoint": server.endpoint,
                    "bucket": name,
                    "made_field": "bucket",
                },
                put,
                get,
            )


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as server:
        name = f"cams-{secrets.token_hex(6)}"
        client = ContainerClient(f"{server.endpoint}/{server.account}", name, credential=server.key)
        client.create_container()
        yield Cloud(
            {
                "kind": "AZUREBLOB",
                "options": {"key": server.account, "secret": server.key, "clientId": None, "tenantId": None},
                "endpoint": server.endpoint,
                "bucket": name,
                "made_field": "containerName",
            },
            lambda key, content: client.upload_blob(key, content, overwrite=True) and None,
            lambda key: client.download_blob(key).readall(),
        )
        client.close()


@pytest.fixture(scope="module")
def s3(weed: servers.S3Server) -> Cloud:
    from tests.buckets import new_bucket

    bucket = new_bucket(weed)
    options = {"key": weed.admin.access_key_id, "secret": weed.admin.secret_access_key}
    told = {"kind": "S3", "options": options, "endpoint": weed.endpoint, "bucket": bucket.name}
    return Cloud(told | {"made_field": "bucketName"}, bucket.put, bucket.get)


@pytest.mark.parametrize("cloud", ["s3", "gcs", "azure"])
def test_a_dataset_on_each_cloud_is_synced_read_and_written(
    run_sdk: Callable[..., Any], request: pytest.FixtureRequest, cloud: str
) -> None:
    there: Cloud = request.getfixturevalue(cloud)
    for key, content in KEYS.items():
        there.put(f"folder/{key}", content)
    there.put("folder_70/not-ours.txt", b"beside the folder")
    found = run_sdk(
        """
        import hashlib, os
        project = dl.projects.create(f"on {kind}")
        integration = project.integrations.create(
            integrations_type=getattr(dl.IntegrationType, kind), name=f"keys of {kind}", options=options,
            metadata={"endpoint": endpoint})
        driver = project.drivers.create(
            name=f"bucket of {kind}", driver_type=getattr(dl.ExternalStorage, kind), integration_id=integration.id,
            integration_type=None, bucket_name=bucket, path="folder", allow_external_delete=False)
        again = project.drivers.get(driver_id=driver.id)
        dataset = synced(project.datasets.create(f"dataset on {kind}", driver=driver))
        names = filenames(dataset.items.list())
        sums = {}
        for item in dataset.items.list().all():
            data = item.download(save_locally=False)
            sums[item.filename] = hashlib.sha256(data.getvalue()).hexdigest()
        with open("new one.bin", "wb") as file:
            file.write(bytes(range(256)) * 100)
        uploaded = dataset.items.upload(local_path="new one.bin", remote_path="/added")
        uploaded.delete()
        dataset.sync()
        after = filenames(synced(dataset).items.list())
        answer(names=names, sums=sums, after=after, uploaded=uploaded.filename, path=again.path,
            place=again.to_json().get(made_field) or again.bucket_name, deletes=again.allow_external_delete)
        """,
        **there.told,
    )
    import hashlib

    assert found["names"] == sorted(f"/{key}" for key in KEYS)
    assert found["sums"] == {f"/{key}": hashlib.sha256(content).hexdigest() for key, content in KEYS.items()}
    assert found["uploaded"] == "/added/new one.bin"
    assert there.get("folder/added/new one.bin") == bytes(range(256)) * 100, "deleting is not allowed: the object stays"
    assert found["after"] == found["names"], "and is not indexed again"
    assert (found["path"], found["place"], found["deletes"]) == ("folder", there.told["bucket"], False)


@pytest.mark.parametrize(
    ("cloud", "spoilt"),
    [("azure", {"secret": "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50IGF0IGFsbA=="}), ("s3", {"secret": "not-the-secret"})],
)
def test_wrong_keys_make_no_driver_and_are_not_repeated(
    run_sdk: Callable[..., Any], request: pytest.FixtureRequest, cloud: str, spoilt: dict[str, str]
) -> None:
    there: Cloud = request.getfixturevalue(cloud)
    found = run_sdk(
        """
        project = dl.projects.create(f"wrong keys of {kind}")
        integration = project.integrations.create(
            integrations_type=getattr(dl.IntegrationType, kind), name=f"wrong keys of {kind}", options=options,
            metadata={"endpoint": endpoint})
        error = error_of(project.drivers.create,
            name="wrong", driver_type=getattr(dl.ExternalStorage, kind), integration_id=integration.id,
            integration_type=None, bucket_name=bucket, path="folder", allow_external_delete=False)
        answer(error=error, drivers=[driver.name for driver in project.drivers.list()])
        """,
        **there.told | {"options": there.told["options"] | spoilt},
    )
    kind, message = found["error"]
    assert (kind, found["drivers"]) == ("FailedDependency", [])
    assert spoilt["secret"] not in message
