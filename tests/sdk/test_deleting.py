"""Deleting by filter, as scripts do it."""

import time


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
