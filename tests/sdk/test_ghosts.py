"""Ghosts, their trash and moves, as the SDK sees them."""

from tests.samples import jpeg

_PRELUDE = """
import os, urllib.request

def call(dataset, method, path, **body):
    request = urllib.request.Request(
        f"{url}/api/v1/datasets/{dataset.id}/{path}", json.dumps(body).encode(), method=method,
        headers={"authorization": "Bearer " + dl.token(), "content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.loads(reply.read())

def found_by(dataset, field, **condition):
    filters = dl.Filters(use_defaults=False)
    filters.add(field=field, **condition)
    return filenames(dataset.items.list(filters=filters))

def sync_now(dataset):
    dataset.sync()
    return synced(dataset)
"""


def test_a_ghost_is_seen_and_found_and_the_trash_is_hidden_until_it_is_restored(run_sdk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("haunted")
    (folder / "b").mkdir()
    for name in ("a.jpg", "b/c.jpg", "b/d.txt", "stays.txt"):
        (folder / name).write_text(name)
    found = run_sdk(
        _PRELUDE
        + """
project = dl.projects.create("haunted")
dataset = synced(project.datasets.create("haunted", driver=folder_driver(project, "haunted", folder)))
item = dataset.items.get(filepath="/a.jpg")
item.metadata["user"] = {"camera": 3}
item = item.update()

os.unlink(f"{folder}/a.jpg")
sync_now(dataset)
ghost = dataset.items.get(item_id=item.id)
flags = dl.Filters(field="metadata.system.missing", values=True)
flagged = [filenames(dataset.items.list(filters=flags)), ghost.metadata["system"]["missing"], ghost.metadata["user"],
           bool(ghost.metadata["system"]["missingSince"]), ghost.hidden, len(filenames(dataset.items.list()))]

call(dataset, "PATCH", "sync-rules", ghosts="trash")
rules = dl.datasets.get(dataset_id=dataset.id).metadata["system"]["syncRules"]["ghosts"]
os.unlink(f"{folder}/b/c.jpg")
os.unlink(f"{folder}/b/d.txt")
now = sync_now(dataset)
hidden = [filenames(dataset.items.list()), now.items_count, dataset.items.list().items_count,
          [child["value"]["filename"] for child in dataset.directory_tree.tree["children"]]]
in_trash = found_by(dataset, "metadata.system.trashedAt", values=True, operator=dl.FiltersOperations.EXISTS)

call(dataset, "POST", "ghosts/restore", paths=["/b/c.jpg"])
restored = filenames(dataset.items.list())
with open(f"{folder}/a.jpg", "w") as file:
    file.write("a.jpg")
sync_now(dataset)
back = dataset.items.get(filepath="/a.jpg")
call(dataset, "POST", "ghosts/forget", all=True, confirm=2)
answer(flagged=flagged, rules=rules, hidden=hidden, in_trash=in_trash, restored=restored, same=back.id == item.id,
       camera=back.metadata["user"], is_missing=back.metadata["system"].get("missing"),
       left=filenames(dataset.items.list()))
""",
        folder=str(folder),
    )
    assert found["flagged"] == [["/a.jpg"], True, {"camera": 3}, True, False, 4]
    assert found["rules"] == "trash"
    assert found["hidden"] == [["/a.jpg", "/stays.txt"], 2, 2, []]
    assert found["in_trash"] == ["/b/c.jpg", "/b/d.txt"]
    assert found["restored"] == ["/a.jpg", "/b/c.jpg", "/stays.txt"]
    assert (found["same"], found["camera"], found["is_missing"]) == (True, {"camera": 3}, None)
    assert found["left"] == ["/a.jpg", "/stays.txt"]


def test_an_object_that_moves_in_a_bucket_keeps_its_item(run_sdk, bucket):
    bucket.put("old/a.jpg", jpeg())
    bucket.put("b.txt", b"b")
    before = run_sdk(
        _PRELUDE
        + """
project = dl.projects.create("moving")
dataset = synced(project.datasets.create("moving", driver=s3_driver(project, "moving")))
call(dataset, "PATCH", "sync-rules", followMoves=True)
item = until(lambda: found if (found := dataset.items.get(filepath="/old/a.jpg")).width else None, "read")
item.metadata["user"] = {"camera": 3}
item.description = "a street"
item = item.update()
answer(id=item.id, created=item.created_at, width=item.width, dataset=dataset.id)
""",
        **bucket.access,
    )
    bucket.put("new/c.jpg", bucket.get("old/a.jpg"))
    bucket.delete("old/a.jpg")
    after = run_sdk(
        _PRELUDE
        + """
dataset = sync_now(dl.datasets.get(dataset_id=dataset))
item = dataset.items.get(item_id=id)
answer(id=item.id, created=item.created_at, width=item.width, dataset=dataset.id, path=item.filename, dir=item.dir,
       camera=item.metadata["user"], description=item.description, missing=item.metadata["system"].get("missing"),
       all=filenames(dataset.items.list()), thumbnail=bool(item.metadata["system"].get("thumbnailId")))
""",
        **before,
    )
    assert {name: after[name] for name in before} == before
    assert (after["path"], after["dir"], after["camera"], after["description"]) == (
        "/new/c.jpg", "/new", {"camera": 3}, "a street",
    )  # fmt: skip
    assert (after["missing"], after["thumbnail"]) == (None, True)
    assert after["all"] == ["/b.txt", "/new/c.jpg"]
