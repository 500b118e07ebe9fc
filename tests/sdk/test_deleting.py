"""Deleting items, folders and what a filter finds, as scripts do it."""

import time

import pytest

from tests.sdk.test_clouds import azure, gcs, s3  # noqa: F401 - buckets of three clouds


def test_items_are_deleted_by_filter_with_their_objects_where_the_driver_allows_it(run_sdk, bucket):
    for key in ("a/1.txt", "a/2.txt", "a/deep/3.txt", "b/4.txt", "5.txt"):
        bucket.put(key, key.encode())
    found = run_sdk(
        """
        project = dl.projects.create("deleting")
        dataset = synced(project.datasets.create(
            "deleting", driver=s3_driver(project, "deleting", allow_external_delete=True)))
        kept = synced(project.datasets.create(
            "kept", driver=s3_driver(project, "keeping", allow_external_delete=False)))
        before = filenames(dataset.items.list())
        deleted = dataset.items.delete(filters=dl.Filters(field="dir", values="/a"))
        after = filenames(dataset.items.list())
        nothing = dataset.items.delete(filters=dl.Filters(field="filename", values="/none.txt"))
        kept.items.delete(filters=dl.Filters(field="filename", values="/b/**"))
        names = filenames(kept.items.list())
        kept.items.delete(filename="/5.txt")
        answer(before=before, deleted=deleted, after=after, nothing=nothing, names=names,
               last=filenames(kept.items.list()), count=dl.datasets.get(dataset_id=dataset.id).items_count)
        """,
        **bucket.access,
    )
    assert found["before"] == ["/5.txt", "/a/1.txt", "/a/2.txt", "/a/deep/3.txt", "/b/4.txt"]
    assert (found["deleted"], found["nothing"]) == (True, True)
    assert found["after"] == ["/5.txt", "/a/deep/3.txt", "/b/4.txt"]
    assert found["count"] == 3
    assert found["names"] == ["/5.txt", "/a/1.txt", "/a/2.txt", "/a/deep/3.txt"]
    assert found["last"] == ["/a/1.txt", "/a/2.txt", "/a/deep/3.txt"]
    deadline = time.monotonic() + 60
    while {"a/1.txt", "a/2.txt"} & bucket.keys():  # a job deletes them
        assert time.monotonic() < deadline
    assert bucket.keys() == {"5.txt", "a/deep/3.txt", "b/4.txt"}


@pytest.mark.parametrize("allows", [True, False])
@pytest.mark.parametrize("cloud", ["s3", "gcs", "azure"])
def test_a_folder_an_item_and_a_filter_on_each_cloud(run_sdk, request, cloud, allows):
    there = request.getfixturevalue(cloud)
    root = f"deleting-{allows}"
    keys = ["a/1.txt", "a/deep/2.txt", "a/deep/er/3.txt", "ab/4.txt", "b/5.txt", "b/6.txt", "7.txt"]
    for key in keys:
        there.put(f"{root}/{key}", key.encode())
    found = run_sdk(
        """
        project = dl.projects.create(f"deleting on {kind} {allows}")
        integration = project.integrations.create(
            integrations_type=getattr(dl.IntegrationType, kind), name=f"deleting keys of {kind} {allows}",
            options=options, metadata={"endpoint": endpoint})
        driver = project.drivers.create(
            name=f"deleting on {kind} {allows}", driver_type=getattr(dl.ExternalStorage, kind),
            integration_id=integration.id, integration_type=None, bucket_name=bucket, path=root,
            allow_external_delete=allows)
        dataset = synced(project.datasets.create(f"deleting on {kind} {allows}", driver=driver))

        def left():
            return filenames(dataset.items.list())

        folder = dataset.items.get(filepath="/a", is_dir=True)
        by_folder = [dataset.items.delete(item_id=folder.id), left()]
        gone = error_of(dataset.items.get, filepath="/a", is_dir=True)
        by_item = [dataset.items.get(filepath="/ab/4.txt").delete(), left()]
        by_name = [dataset.items.delete(filename="/7.txt"), left()]
        by_filter = [dataset.items.delete(filters=dl.Filters(field="dir", values="/b")), left()]
        dataset.sync()
        after = filenames(synced(dataset).items.list())
        answer(by_folder=by_folder, gone=gone, by_item=by_item, by_name=by_name, by_filter=by_filter, after=after,
               id=dataset.id)
        """,
        **there.told,
        root=root,
        allows=allows,
    )
    assert found["by_folder"] == [True, ["/7.txt", "/ab/4.txt", "/b/5.txt", "/b/6.txt"]]
    assert found["gone"][0] == "NotFound"
    assert found["by_item"] == [True, ["/7.txt", "/b/5.txt", "/b/6.txt"]]
    assert found["by_name"] == [True, ["/b/5.txt", "/b/6.txt"]]
    assert found["by_filter"] == [True, []]
    assert found["after"] == [], "what was deleted here does not come back by itself"
    if not allows:
        for key in keys:
            assert there.get(f"{root}/{key}") == key.encode()
        again = run_sdk(
            """
            dataset = dl.datasets.get(dataset_id=id)
            success, response = dl.client_api.gen_request(
                req_type="post", path=f"/datasets/{id}/sync", json_req={"restoreDeleted": True, "folder": "/a/deep"})
            some = filenames(synced(dataset).items.list())
            success, response = dl.client_api.gen_request(
                req_type="post", path=f"/datasets/{id}/sync", json_req={"restoreDeleted": True})
            answer(some=some, all=filenames(synced(dataset).items.list()))
            """,
            id=found["id"],
        )
        assert again["some"] == ["/a/deep/2.txt", "/a/deep/er/3.txt"]
        assert again["all"] == sorted(f"/{key}" for key in keys)
