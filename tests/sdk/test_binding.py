"""Handlers of bucket events as people have them in their clouds: they import or delete one item through the SDK.

The handlers stand in for those that the documentation of the SDK has for AWS, Google and Azure: the same
calls with the same shapes of arguments, events as the clouds send them. Nothing in them knows Headwater.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.buckets import Bucket

_BEFORE = """
import os, urllib.parse
project = dl.projects.create(f"binding {name}")
driver = s3_driver(project, f"binding {name}", path=folder, allow_external_delete=allows)
dataset_id = project.datasets.create(f"binding {name}", driver=driver).id
synced(dl.datasets.get(dataset_id=dataset_id))

def names():
    return filenames(dl.datasets.get(dataset_id=dataset_id).items.list())
"""

# One function for all events of a bucket. The path it uploads to is the whole name, not its folder.
_AWS = """
def lambda_handler(event, context):
    assert dl.login_m2m(email=email, password=password)
    dataset = dl.datasets.get(dataset_id=dataset_id)
    driver_path = dl.drivers.get(driver_id=dataset.driver).path
    driver_path = None if driver_path == "/" else driver_path
    for record in event["Records"]:
        key = urllib.parse.unquote_plus(record["s3"]["object"]["key"], encoding="utf-8")
        if driver_path is not None and driver_path not in key:
            return
        remote_path = key.replace(driver_path, "") if driver_path else key
        if "ObjectRemoved" in record["eventName"]:
            dataset.items.delete(filters=dl.Filters(field="filename", values="/" + remote_path))
        elif "ObjectCreated" in record["eventName"]:
            dataset.items.upload(local_path="external://" + key, remote_path=remote_path)

def happened(key, created):
    name = "ObjectCreated:Put" if created else "ObjectRemoved:Delete"
    quoted = urllib.parse.quote_plus(key, safe="/")
    s3 = {"bucket": {"name": bucket}, "object": {"key": quoted}}
    lambda_handler({"Records": [{"eventSource": "aws:s3", "eventName": name, "s3": s3}]}, None)
"""

# Two functions, one for each kind; the dataset is not fetched, and the path may be left out.
_GOOGLE = """
def paths(file):
    assert dl.login_m2m(email=email, password=password)
    dataset = dl.datasets.get(dataset_id=dataset_id, fetch=False)
    driver_path = dl.drivers.get(driver_id=dl.datasets.get(dataset_id=dataset_id).driver).path
    driver_path = None if driver_path == "/" else driver_path
    return dataset, driver_path

def create_gcs(event, context):
    dataset, driver_path = paths(event)
    remote_path = event["name"].replace(driver_path, "") if driver_path else None
    dataset.items.upload(local_path="external://" + event["name"], remote_path=remote_path)

def delete_gcs(event, context):
    dataset, driver_path = paths(event)
    dataset.items.delete(filename=event["name"].replace(driver_path, "") if driver_path else event["name"])

def happened(key, created):
    (create_gcs if created else delete_gcs)({"bucket": bucket, "name": key, "contentType": "image/jpeg"}, None)
"""

# The key is cut out of the object's URL, and so begins with a slash.
_AZURE = """
def main(event_type, url):
    assert dl.login_m2m(email=email, password=password)
    dataset = dl.datasets.get(dataset_id=dataset_id)
    driver_path = dl.drivers.get(driver_id=dataset.driver).path
    key = url.split(bucket)[1]
    driver_path = None if driver_path == "/" else driver_path
    remote_path = key.replace(driver_path, "") if driver_path else key
    if "BlobCreated" in event_type:
        dataset.items.upload(local_path="external:/" + key, remote_path=os.path.dirname(remote_path))
    else:
        dataset.items.delete(filename=remote_path)

def happened(key, created):
    kind = "Microsoft.Storage.BlobCreated" if created else "Microsoft.Storage.BlobDeleted"
    main(kind, f"https://account.blob.core.windows.net/{bucket}/{key}")
"""


@pytest.mark.parametrize("folder", [None, "in/cams"])
@pytest.mark.parametrize("handler", ["AWS", "GOOGLE", "AZURE"])
def test_a_handler_imports_and_deletes_as_the_bucket_does(
    run_sdk: Callable[..., Any], bucket: Bucket, handler: str, folder: str | None
) -> None:
    def signed(operation: str, key: str) -> str:
        return bucket.client.generate_presigned_url(operation, Params={"Bucket": bucket.name, "Key": key})

    below = f"{folder}/" if folder else ""
    keys = [f"{below}a/b c+ä.jpg", f"{below}a/second.jpg", f"{below}deep/er/third.bin"]
    script = {"AWS": _AWS, "GOOGLE": _GOOGLE, "AZURE": _AZURE}[handler]
    found = run_sdk(
        _BEFORE
        + script
        + """
import requests
web = requests.Session()
web.trust_env = False
for one in keys:
    web.put(puts[one], data=b"first").raise_for_status()
    happened(one, True)
imported = names()
happened(keys[0], True)
web.put(puts[keys[0]], data=b"second, and longer").raise_for_status()
happened(keys[0], True)
dataset = dl.datasets.get(dataset_id=dataset_id)
changed = dataset.items.get(filepath=imported[0]).metadata["system"]["size"]
web.delete(deletes[keys[1]]).raise_for_status()
happened(keys[1], False)
deleted = names()
dataset.sync()
after = filenames(synced(dataset).items.list())
web.put(puts[keys[1]], data=b"third").raise_for_status()
happened(keys[1], True)
answer(imported=imported, changed=changed, deleted=deleted, after=after, again=names(),
       missing=error_of(dataset.items.delete, filename="/none.jpg"),
       nothing=dataset.items.delete(filters=dl.Filters(field="filename", values="/none.jpg")))
""",
        **bucket.access,
        name=f"{handler} {folder}",
        folder=folder,
        allows=False,
        keys=keys,
        puts={key: signed("put_object", key) for key in keys},
        deletes={key: signed("delete_object", key) for key in keys},
    )
    paths = ["/a/b c+ä.jpg", "/a/second.jpg", "/deep/er/third.bin"]
    assert found["imported"] == paths, "a path is the key below the driver's folder, whatever is asked for"
    assert found["changed"] == len(b"second, and longer")
    assert found["deleted"] == found["after"] == [paths[0], paths[2]]
    assert found["again"] == paths
    assert found["missing"][0] == "NotFound"
    assert found["nothing"] is True


def test_external_paths_in_every_form_the_sdk_takes(run_sdk: Callable[..., Any], bucket: Bucket) -> None:
    for key in ("in/a/1.jpg", "in/a/2.jpg", "in/a/3.jpg", "in/a/4.jpg", "in/a:b/5.jpg", "elsewhere/6.jpg"):
        bucket.put(key, key.encode())
    found = run_sdk(
        """
        project = dl.projects.create("external forms")
        driver = s3_driver(project, "external forms", path="in", allow_external_delete=False)
        dataset = project.datasets.create("external forms", driver=driver)
        synced(dataset)
        dataset.items.delete(filters=dl.Filters(field="filename", values="/**"))
        added = []
        for path, remote in [
            (f"external://{bucket}/in/a/1.jpg", None), (f"external://s3://{bucket}/in/a/2.jpg", "/"),
            ("external://in/a/3.jpg", "/other/folder"), ("external://a/4.jpg", None), ("external://in/a:b/5.jpg", None),
        ]:
            named = {} if remote is None else {"remote_path": remote}
            added.append(dataset.items.upload(local_path=path, **named).filename)
        own = project.datasets.create("external forms without a driver")
        refused = [
            error_of(where.items._client_api.gen_request, "post", f"/datasets/{where.id}/imports",
                     json_req=[{"filename": "/x.jpg", "storageId": storage_id}])
            or where.items._client_api.last_response.status_code
            for where, storage_id in [(dataset, "other-bucket:in/a/1.jpg"), (dataset, f"{bucket}:elsewhere/6.jpg"),
                                      (own, f"{bucket}:in/a/1.jpg")]]
        data = dataset.items.get(filepath="/a/3.jpg").download(save_locally=False).getvalue().decode()
        dataset.sync()
        answer(added=added, refused=refused, data=data, after=filenames(synced(dataset).items.list()))
        """,
        **bucket.access,
    )
    assert found["added"] == ["/a/1.jpg", "/a/2.jpg", "/a/3.jpg", "/a/4.jpg", "/a:b/5.jpg"]
    assert found["refused"] == [404, 404, 400]
    assert found["data"] == "in/a/3.jpg"
    assert found["after"] == found["added"]
