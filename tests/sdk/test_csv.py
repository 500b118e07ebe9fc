"""Tables from the SDK: it has no call for CSV files, uploads DataFrames file by file, and reads what an import made."""

import csv


def test_a_data_frame_is_uploaded_and_an_imported_csv_is_read(run_sdk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("frame")
    names = [f"{number}.txt" for number in range(5)]
    for name in names:
        (folder / name).write_text(name)
    with (folder / "frame.csv").open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["local_path", "remote_path", "item_description"])
        writer.writerows([str(folder / name), "/from a frame", f"file {name}"] for name in names)
    (folder / "links.csv").write_text(
        'ID,URL,item_metadata,item_description\none,https://images.example.com/a.png,"{""a"": 1}",said\ntwo,ftp://x,,\n'
    )
    found = run_sdk(
        """
        import pandas, requests

        project = dl.projects.create("tables")
        dataset = project.datasets.create("tables")
        frame = pandas.read_csv(folder + "/frame.csv")
        frame["item_metadata"] = [{"user": {"row": number}} for number in range(len(frame))]
        dataset.items.upload(local_path=frame)
        uploaded = dataset.items.get(filepath="/from a frame/3.txt")

        imports, headers = f"{url}/api/v1/datasets/{dataset.id}/imports", {"authorization": f"Bearer {dl.token()}"}
        with open(folder + "/links.csv", "rb") as opened:
            sent = requests.post(imports + "/csv", params={"name": "links.csv"}, data=opened, headers=headers)
        command = dl.commands.get(command_id=sent.json()["id"])
        command = command.wait(timeout=60)
        results = requests.get(f"{imports}/{command.id}/results", headers=headers).text
        link = dataset.items.get(filepath="/links/one.png")
        answer(
            names=filenames(dataset.items.list()), description=uploaded.description, user=uploaded.metadata["user"],
            status=command.status, told=command.spec["import"]["refused"], results=results.splitlines(),
            link=link.metadata["system"]["shebang"], mimetype=link.mimetype, noted=link.metadata["user"],
            said=link.description,
        )
        """,
        folder=str(folder),
    )
    assert found["names"] == sorted([f"/from a frame/{name}" for name in names] + ["/links/one.png"])
    assert (found["description"], found["user"]) == ("file 3.txt", {"row": 3})
    assert (found["status"], found["told"]) == ("success", 1)
    assert [line.split(",")[:4] for line in found["results"][1:]] == [
        ["2", "one.png", "created", ""],
        ["3", "two", "refused", "URL"],
    ]
    assert found["link"] == {
        "dltype": "link",
        "linkInfo": {"type": "url", "ref": "https://images.example.com/a.png", "mimetype": "image/png"},
    }
    assert (found["mimetype"], found["noted"], found["said"]) == ("image/png", {"a": 1}, "said")
