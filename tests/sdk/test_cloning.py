"""Clones, merges, moves and folders as scripts make them."""


def test_datasets_and_items_are_cloned_and_merged(run_sdk):
    found = run_sdk(
        """
        project = dl.projects.create("cloning")
        first, second = (project.datasets.create(name) for name in ("first of clones", "second of clones"))
        for dataset in (first, second):
            for path in ("/a.txt", "/b/c.txt"):
                with open("file.txt", "w") as file:
                    file.write(f"{dataset.name} {path}")
                directory, _, name = path.rpartition("/")
                dataset.items.upload(
                    local_path="file.txt", remote_path=directory or "/", remote_name=name,
                    item_metadata={"user": {"of": dataset.name}})
        clone = first.clone(clone_name="clone of first")
        part = first.clone(
            clone_name="part of first", filters=dl.Filters(field="dir", values="/b"), with_metadata=False)
        into = second.clone(dst_dataset_id=part.id, target_directory="/x")
        merged = project.datasets.merge(
            merge_name="merged", dataset_ids=[first.id, second.id], project_ids=project.id)
        whole = project.datasets.get(dataset_name="merged")
        item = first.items.get(filepath="/a.txt")
        single = item.clone(dst_dataset_id=second.id, remote_filepath="/one/more.txt", metadata={"user": {"n": 1}})
        answer(
            clone=filenames(clone.items.list()),
            bytes=clone.items.get(filepath="/b/c.txt").download(save_locally=False).read().decode(),
            metadata=clone.items.get(filepath="/a.txt").metadata["user"],
            part=filenames(part.items.list()),
            bare=part.items.get(filepath="/b/c.txt").metadata["user"],
            into=into.id == part.id, merged=merged, whole=filenames(whole.items.list()),
            single=[single.filename, single.dataset.id == second.id, single.metadata["user"]],
            refused=error_of(first.clone, clone_name="clone of first"),
            again=item.clone(dst_dataset_id=second.id, remote_filepath="/one/more.txt").id == single.id,
        )
        """
    )
    assert found["clone"] == ["/a.txt", "/b/c.txt"]
    assert found["bytes"] == "first of clones /b/c.txt"
    assert found["metadata"] == {"of": "first of clones"}
    assert found["part"] == ["/b/c.txt", "/x/a.txt", "/x/b/c.txt"]
    assert (found["bare"], found["into"], found["merged"], found["again"]) == ({}, True, True, True)
    assert found["whole"] == ["/a (2).txt", "/a.txt", "/b/c (2).txt", "/b/c.txt"]
    assert found["single"] == ["/one/more.txt", True, {"of": "first of clones", "n": 1}]
    assert "already" in found["refused"][1]


def test_a_bucket_is_cloned_without_a_byte_and_never_synced(run_sdk, bucket):
    for key in ("a/1.txt", "2.txt"):
        bucket.put(key, key.encode())
    found = run_sdk(
        """
        project = dl.projects.create("cloning a bucket")
        dataset = synced(project.datasets.create(
            "original", driver=s3_driver(project, "cloned", allow_external_delete=True)))
        clone = dataset.clone(clone_name="copy", target_directory="/x")
        dataset.items.delete(filename="/2.txt")
        answer(
            names=filenames(clone.items.list()),
            bytes=clone.items.get(filepath="/x/2.txt").download(save_locally=False).read().decode(),
            sync=error_of(clone.sync), move=error_of(clone.items.get(filepath="/x/2.txt").move, "/y.txt"),
            syncing=clone.is_syncing if hasattr(clone, "is_syncing") else False,
        )
        """,
        **bucket.access,
    )
    assert found["names"] == ["/x/2.txt", "/x/a/1.txt"]
    assert found["bytes"] == "2.txt"
    assert "is a clone of other datasets" in found["sync"][1]
    assert "linked to external storage" in found["move"][1]
    assert not found["syncing"]
    assert bucket.keys() == {"a/1.txt", "2.txt"}


def test_items_are_moved_and_folders_made(run_sdk):
    found = run_sdk(
        """
        project = dl.projects.create("moving items")
        dataset = project.datasets.create("moving")
        for path in ("/a/1.txt", "/a/2.txt", "/b/3.txt"):
            with open("file.txt", "w") as file:
                file.write(path)
            directory, _, name = path.rpartition("/")
            dataset.items.upload(local_path="file.txt", remote_path=directory, remote_name=name)
        item = dataset.items.get(filepath="/b/3.txt")
        renamed = item.move("/b/three.txt")
        into = dataset.items.get(filepath="/b/three.txt").move("/a")
        made = dataset.items.make_dir(directory="/made/here")
        again = dataset.items.make_dir(directory="/made/here")
        moved = dataset.items.move_items(
            destination="/target", filters=dl.Filters(field="filename", values="/a/*.txt"))
        names = filenames(dataset.items.list())
        tree = sorted(dataset.directory_tree.dir_names)
        folder = dataset.items.get(filepath="/target", is_dir=True)
        folder.filename = "/elsewhere/target"
        folder.update(system_metadata=True)
        answer(
            renamed=renamed.filename, into=into.filename, same=into.id == item.id, made=[made.filename, made.type],
            again=again.id == made.id, moved=moved, names=names, tree=tree, last=filenames(dataset.items.list()),
            clash=error_of(dataset.items.get(filepath="/elsewhere/target/1.txt").move, "/elsewhere/target/2.txt"),
            bytes=dataset.items.get(filepath="/elsewhere/target/three.txt").download(save_locally=False).read().decode(),
        )
        """
    )
    assert (found["renamed"], found["into"], found["same"]) == ("/b/three.txt", "/a/three.txt", True)
    assert (found["made"], found["again"], found["moved"]) == (["/made/here", "dir"], True, True)
    assert found["names"] == ["/target/1.txt", "/target/2.txt", "/target/three.txt"]
    assert found["tree"] == ["/", "/made", "/made/here", "/target"]
    assert found["last"] == [f"/elsewhere{name}" for name in found["names"]]
    assert "another item at /elsewhere/target/2.txt" in found["clash"][1]
    assert found["bytes"] == "/b/3.txt"
