"""Items: list and find them, their bytes, upload, change and delete."""

import hashlib
import random

ODD_NAMES = ("plain.txt", "two words.txt", "100%.txt", "a+b.txt", "%41.txt", "🌊 wave.txt", "é.txt", "semi;colon&.txt")


def test_items_are_listed_in_pages_found_by_filters_and_shown_as_a_tree(run_sdk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("listed")
    names = [
        f"{where}{number:02}.{kind}"
        for where in ("", "a/", "a/b/", "c d/")
        for number in range(8)
        for kind in ("jpg", "txt")
    ]
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    found = run_sdk(
        """
        project = dl.projects.create("listed")
        dataset = synced(project.datasets.create("listed", driver=folder_driver(project, "listed", folder)))

        def listed(page_size=1000, **conditions):
            filters = dl.Filters()
            filters.page_size = page_size
            for field, values in conditions.items():
                filters.add(field=field, values=values)
            return filenames(dataset.items.list(filters=filters))

        def exactly(filename):
            filters = dl.Filters()
            filters.recursive = False
            filters.add(field="filename", values=filename)
            return filenames(dataset.items.list(filters=filters))

        def by_offset():
            filters = dl.Filters()
            filters.page_size = 10
            filters.sort_by(field="filename", value=dl.FiltersOrderByDirection.DESCENDING)
            return [item.filename for item in dataset.items.list(filters=filters).all()]

        dirs = dl.Filters(use_defaults=False)
        dirs.add(field="type", values="dir")
        pages = dataset.items.list()
        by_path = dataset.items.get(filepath="/a/b/03.txt")
        by_id = [dataset.items.get(item_id=by_path.id), dl.items.get(item_id=by_path.id)]
        assert [item.filename for item in by_id] == ["/a/b/03.txt"] * 2

        def shape(node):
            return {child["value"]["filename"]: shape(child) for child in node["children"]}

        answer(
            count=pages.items_count, all=filenames(pages), paged=listed(page_size=7), by_offset=by_offset(),
            dir=listed(dir="/a"), below=listed(filename="/a/*"), recursive=listed(filename="/a/**"),
            bare=listed(filename="/a"), exact=exactly("/a/b/03.txt"), kind=listed(filename="*.jpg"),
            both=listed(dir="/c d", filename="*.txt"), dirs=filenames(dataset.items.list(filters=dirs)),
            missing=error_of(dataset.items.get, filepath="/none.txt"),
            tree=shape(dataset.directory_tree.tree),
        )
        """,
        folder=str(folder),
    )
    everything = sorted(f"/{name}" for name in names)
    assert found["count"] == len(names)
    assert found["all"] == found["paged"] == everything
    assert found["by_offset"] == everything[::-1]
    assert found["dir"] == [name for name in everything if name.startswith("/a/") and name.count("/") == 2]
    below = [name for name in everything if name.startswith("/a/")]
    assert found["recursive"] == found["bare"] == found["below"] == below
    assert found["exact"] == ["/a/b/03.txt"]
    assert found["kind"] == [name for name in everything if name.endswith(".jpg")]
    assert found["both"] == [name for name in everything if name.startswith("/c d/") and name.endswith(".txt")]
    assert found["dirs"] == ["/a", "/a/b", "/c d"]
    assert found["missing"][0] == "NotFound"
    assert found["tree"] == {"/a": {"/a/b": {}}, "/c d": {}}


def test_downloads_bring_the_right_bytes_and_resume_where_they_broke_off(run_sdk, bucket, tmp_path_factory):
    """The big file comes from a folder: its bytes pass through the API, which must honour Range."""
    folder = tmp_path_factory.mktemp("big")
    big = random.Random(3).randbytes(9_000_000)
    (folder / "big.bin").write_bytes(big)
    for name in ODD_NAMES:
        bucket.put(f"odd/{name}", name.encode())
    bucket.put("big.bin", big)
    found = run_sdk(
        """
        import hashlib, requests
        project = dl.projects.create("downloaded")
        cloud = synced(project.datasets.create("cloud", driver=s3_driver(project, "cloud")))
        local = synced(project.datasets.create("local", driver=folder_driver(project, "local", folder)))
        texts = {item.filename: item.download(save_locally=False).read().decode()
            for item in cloud.items.list().all() if item.dir == "/odd"}

        asked, broken = [], set()
        send = requests.Session.send
        def breaks_off(session, request, **options):
            response = send(session, request, **options)
            if request.url.endswith("/stream"):
                asked.append(request.headers.get("Range"))
            if response.status_code < 300 and "big.bin" in broken:
                broken.discard("big.bin")
                whole = response.iter_content
                def some(chunk_size=1, decode_unicode=False):
                    for number, chunk in enumerate(whole(chunk_size, decode_unicode)):
                        if number == 3:
                            response.close()
                            return
                        yield chunk
                response.iter_content = some
            return response
        sums = []
        requests.Session.send = breaks_off
        for dataset in (local, cloud):
            item = dataset.items.get(filepath="/big.bin")
            broken.add("big.bin")
            path = item.download(local_path=f"./{dataset.name}.bin")
            sums.append(hashlib.sha256(open(path, "rb").read()).hexdigest())
            assert not broken
        answer(texts=texts, sums=sums, asked=asked)
        """,
        folder=str(folder),
        **bucket.access,
    )
    assert found["texts"] == {f"/odd/{name}": name for name in ODD_NAMES}
    assert found["sums"] == [hashlib.sha256(big).hexdigest()] * 2
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in found["asked"] if asked]
    first, second, third, fourth = starts  # two requests a file: what came before the break is kept
    assert (first, third) == (0, 0)
    assert 0 < second < len(big)
    assert 0 < fourth < len(big)


def test_an_empty_object_is_downloaded_as_an_empty_file(run_sdk, bucket):
    bucket.put("empty.txt", b"")
    found = run_sdk(
        """
        project = dl.projects.create("empty")
        dataset = synced(project.datasets.create("empty", driver=s3_driver(project, "empty")))
        answer(text=dataset.items.get(filepath="/empty.txt").download(save_locally=False).read().decode())
        """,
        **bucket.access,
    )
    assert found["text"] == ""


def test_uploads_reach_the_bucket_and_a_second_one_never_loses_an_item(run_sdk, bucket):
    found = run_sdk(
        """
        import os
        project = dl.projects.create("uploaded")
        dataset = synced(project.datasets.create("uploaded", driver=s3_driver(project, "uploaded")))
        os.makedirs("tray/in ner/🌊")
        for name in names:
            open(f"tray/{name}", "w").write(name)
            open(f"tray/in ner/🌊/{name}", "w").write(name)
        dataset.items.upload("tray")
        dataset.items.upload("tray/*", remote_path="/flat out")
        one = dataset.items.upload("tray/plain.txt", remote_path="/one", remote_name="named.txt",
            item_metadata={"user": {"camera": 3}})

        first = dataset.items.get(filepath="/one/named.txt")
        assert first.id == one.id and first.metadata["user"] == {"camera": 3}
        open("longer.txt", "w").write("longer than before")
        again = dataset.items.upload("longer.txt", remote_path="/one", remote_name="named.txt")
        skipped = dataset.items.get(filepath="/one/named.txt")
        kept = [again.id, skipped.id, skipped.download(save_locally=False).read().decode(), skipped.metadata["user"]]
        dataset.items.upload("longer.txt", remote_path="/one", remote_name="named.txt", overwrite=True)
        replaced = dataset.items.get(filepath="/one/named.txt")
        dataset.items.upload("longer.txt", remote_path="/dropped")
        answer(
            id=first.id, kept=kept, replaced=[replaced.id, replaced.download(save_locally=False).read().decode()],
            size=replaced.metadata["system"]["size"], files=filenames(dataset.items.list()),
        )
        """,
        names=ODD_NAMES,
        **bucket.access,
    )
    tray = {name: name for name in ODD_NAMES} | {f"in ner/🌊/{name}": name for name in ODD_NAMES}
    wanted = {f"{where}/{name}": text for where in ("tray", "flat out") for name, text in tray.items()}
    wanted |= {"one/named.txt": "longer than before", "dropped/longer.txt": "longer than before"}
    assert found["files"] == sorted(f"/{key}" for key in wanted)
    assert {key: bucket.get(key).decode() for key in sorted(bucket.keys())} == wanted
    assert found["kept"] == [found["id"], found["id"], "plain.txt", {"camera": 3}]
    assert found["replaced"] == [found["id"], "longer than before"]
    assert found["size"] == len("longer than before")


def test_metadata_is_set_nested_and_removed_and_own_storage_keeps_bytes(run_sdk):
    found = run_sdk(
        """
        dataset = dl.projects.create("annotated").datasets.create("own")
        open("a b.txt", "w").write("kept")
        item = dataset.items.upload("a b.txt", remote_path="/x")
        item.metadata["user"] = {"camera": {"number": 3, "lens": "wide"}, "tags": ["day", "rain"], "gone": 1}
        item.update()
        seen = [dataset.items.get(item_id=item.id).metadata["user"]]
        item = dataset.items.get(item_id=item.id)
        item.metadata["user"]["camera"]["number"] = 4
        item.metadata["user"]["tags"] = ["night"]
        del item.metadata["user"]["gone"]
        del item.metadata["user"]["camera"]["lens"]
        item.update()
        seen.append(dataset.items.get(item_id=item.id).metadata["user"])
        text = dataset.items.get(filepath="/x/a b.txt").download(save_locally=False).read().decode()
        item.delete()
        gone = error_of(dl.items.get, item_id=item.id)
        answer(seen=seen, text=text, left=filenames(dataset.items.list()), error=gone)
        """
    )
    assert found["seen"] == [
        {"camera": {"number": 3, "lens": "wide"}, "tags": ["day", "rain"], "gone": 1},
        {"camera": {"number": 4}, "tags": ["night"]},
    ]
    assert found["text"] == "kept"
    assert found["left"] == []
    assert found["error"][0] == "NotFound"
