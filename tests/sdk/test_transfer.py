"""The real SDK sends and fetches many files: folders, lists, patterns, buffers; broken off and gone on with."""

import hashlib
import random


def test_files_are_sent_in_every_way_the_sdk_has(run_sdk):
    found = run_sdk(
        """
        import io, os
        dataset = dl.projects.create("sent").datasets.create("sent")
        for number in range(110):
            os.makedirs(f"tree/{number:03}/in", exist_ok=True)
            open(f"tree/{number:03}/in/file.txt", "w").write(str(number))
        open("tree/top.txt", "w").write("top")
        dataset.items.upload("tree")
        dataset.items.upload("tree/*", remote_path="/inside")
        dataset.items.upload(["tree/top.txt", "tree/000/in/file.txt"], remote_path="/list")
        buffer = io.BytesIO(b"from memory")
        one = dataset.items.upload(buffer, remote_path="/buffers", remote_name="memory.bin",
            item_metadata={"user": {"camera": 3}}, item_description="said of it")
        again = dataset.items.get(item_id=one.id)
        told = [again.metadata["user"], again.description, again.metadata["system"]["size"]]
        dataset.items.upload(io.BytesIO(b"other"), remote_path="/buffers", remote_name="memory.bin")
        kept = again.download(save_locally=False).read().decode()
        dataset.items.upload(io.BytesIO(b"replaced"), remote_path="/buffers", remote_name="memory.bin", overwrite=True)
        replaced = dataset.items.get(item_id=one.id)
        text = replaced.download(save_locally=False).read().decode()
        answer(told=told, kept=kept, replaced=[replaced.id == one.id, text], files=filenames(dataset.items.list()))
        """
    )
    tree = [f"{number:03}/in/file.txt" for number in range(110)] + ["top.txt"]
    wanted = [f"/tree/{name}" for name in tree] + [f"/inside/{name}" for name in tree]
    wanted += ["/list/top.txt", "/list/file.txt", "/buffers/memory.bin"]
    assert found["files"] == sorted(wanted)
    assert found["told"] == [{"camera": 3}, "said of it", len("from memory")]
    assert found["kept"] == "from memory"
    assert found["replaced"] == [True, "replaced"]


def test_a_dataset_is_fetched_with_its_folders_also_after_an_interruption(run_sdk, bucket, tmp_path):
    """110 folders, and a file whose connection breaks: the SDK asks for the rest of it."""
    big = random.Random(9).randbytes(6_000_000)
    bucket.put("big.bin", big)
    for number in range(110):
        bucket.put(f"{number:03}/in/{number}.txt", str(number).encode())
    found = run_sdk(
        """
        import requests
        project = dl.projects.create("fetched")
        dataset = synced(project.datasets.create("fetched", driver=s3_driver(project, "fetched")))
        asked, broken = [], {"big"}
        send = requests.Session.send
        def breaks_off(session, request, **options):
            response = send(session, request, **options)
            if request.url.endswith("/stream") and request.headers.get("Range", "bytes=0-") != "bytes=0-":
                asked.append(request.headers["Range"])
            if broken and int(response.headers.get("Content-Length") or 0) > 5_000_000:
                broken.clear()
                whole = response.iter_content
                def some(chunk_size=1, decode_unicode=False):
                    for number, chunk in enumerate(whole(chunk_size, decode_unicode)):
                        if number == 3:
                            response.close()
                            return
                        yield chunk
                response.iter_content = some
            return response
        requests.Session.send = breaks_off
        list(dataset.items.download(local_path="fetched"))
        answer(asked=asked)
        """,
        **bucket.access,
    )
    root = tmp_path / "fetched"
    files = {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    files = {name.removeprefix("items/"): content for name, content in files.items()}
    assert {name: len(content) for name, content in files.items() if name != "big.bin"} == {
        f"{number:03}/in/{number}.txt": len(str(number)) for number in range(110)
    }
    assert hashlib.sha256(files["big.bin"]).digest() == hashlib.sha256(big).digest()
    assert len(found["asked"]) == 1
