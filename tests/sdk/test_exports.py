"""Exports as scripts make them: as JSON in its variants, as archives, and what has changed."""

_DATASET = """
import glob, os, zipfile
from PIL import Image
project = dl.projects.create(name)
dataset = project.datasets.create(name)
for path in ("/a.png", "/b/c.png", "/b/d.png"):
    Image.new("RGB", (20, 10)).save("file.png")
    directory, _, file_name = path.rpartition("/")
    item = dataset.items.upload(local_path="file.png", remote_path=directory or "/", remote_name=file_name,
        item_metadata={"user": {"path": path}})
    if path != "/a.png":
        builder = item.annotations.builder()
        builder.add(annotation_definition=dl.Box(top=1, left=2, bottom=6, right=9, label="cat"))
        builder.add(annotation_definition=dl.Point(x=3, y=4, label="dog"))
        item.annotations.upload(builder)
until(lambda: dataset.items.list(filters=dl.Filters(field="metadata.system.width", values=20)).items_count == 3, "read")

def under(folder):
    return sorted(os.path.relpath(os.path.join(at, one), folder) for at, _, found in os.walk(folder) for one in found)
"""


def test_a_dataset_is_exported_in_every_way(run_sdk):
    found = run_sdk(
        _DATASET
        + """
def load(path):
    with open(path) as file:
        return json.load(file)

plain = load(dataset.export(local_path="plain", include_annotations=True))
bare = load(dataset.export(local_path="bare"))
some = load(dataset.export(local_path="some", include_annotations=True,
    filters=dl.Filters(field="dir", values="/b"),
    annotation_filters=dl.Filters(field="label", values="dog", resource=dl.FiltersResource.ANNOTATION)))
folders = dataset.export(local_path="folders", include_annotations=True, output_export_type=dl.OutputExportType.FOLDERS)
zipped = dataset.export(local_path="zipped", include_annotations=True, output_export_type=dl.OutputExportType.ZIP)
archive = dataset.export(local_path="archive", include_annotations=True, export_type=dl.ExportType.ZIP,
    output_export_type=dl.OutputExportType.FOLDERS)
answer(
    plain=[[one["filename"], [said["label"] for said in one["annotations"]], one["metadata"]["user"]] for one in plain],
    bare=[one["annotations"] for one in bare],
    some=[[one["filename"], [said["label"] for said in one["annotations"]]] for one in some],
    folders=under(folders), zipped=os.path.basename(zipped) == f"{dataset.id}.json.zip", archive=under("archive"),
    same=load("archive/b/c.json")["annotations"] == plain[1]["annotations"],
)
""",
        name="exported in every way",
    )
    paths = ["/a.png", "/b/c.png", "/b/d.png"]
    assert found["plain"] == [[path, ["cat", "dog"] if path != "/a.png" else [], {"path": path}] for path in paths]
    assert found["bare"] == [[], [], []]
    assert found["some"] == [[path, ["dog"]] for path in paths[1:]]
    assert found["folders"] == found["archive"] == ["a.json", "b/c.json", "b/d.json"]
    assert found["zipped"]
    assert found["same"]


def test_annotations_are_downloaded_with_and_without_their_items(run_sdk):
    found = run_sdk(
        _DATASET
        + """
dataset.download_annotations(local_path="said", annotation_options=dl.ViewAnnotationOptions.JSON)
dataset.items.download(local_path="all", annotation_options=dl.ViewAnnotationOptions.JSON)
dataset.items.download(local_path="v2", annotation_options=dl.ViewAnnotationOptions.JSON,
    export_version=dl.ExportVersion.V2)
with open("all/json/b/c.json") as file:
    told = json.load(file)
answer(said=under("said"), all=under("all"), v2=under("v2"), labels=[one["label"] for one in told["annotations"]],
    keys=sorted({"_id", "id", "filename", "annotations", "itemMetadata", "metadata"} - told.keys()))
""",
        name="annotations downloaded",
    )
    assert [path for path in found["said"] if path.startswith("json")] == [
        "json/a.json",
        "json/b/c.json",
        "json/b/d.json",
    ]
    assert {"items/a.png", "items/b/c.png", "json/b/c.json"} <= set(found["all"])
    assert {"json/b/c.png.json", "items/b/c.png"} <= set(found["v2"])
    assert (found["labels"], found["keys"]) == (["cat", "dog"], [])


def test_changes_are_exported_since_the_last_time(run_sdk):
    found = run_sdk(
        _DATASET
        + """
def export(mode, **more):
    manifest = dataset.export(
        local_path=f"v3 {mode}", export_version=dl.DatasetExportVersion.V3, export_mode=mode, **more)
    return manifest, sorted(
        [one["filename"], one.get("deleted", False)] for one in manifest.iter_records())

full, all_of_it = export(dl.ExportMode.FULL, partition_count=2)
dataset.items.upload(local_path="file.png", remote_path="/", remote_name="new.png")
dataset.items.delete(filename="/a.png")
dataset = dl.datasets.get(dataset_id=dataset.id)
diff, changed = export(dl.ExportMode.DIFF)
answer(all=all_of_it, versions=[full.to_version, diff.from_version, diff.to_version], changed=changed,
    partitions=full.partition_count, kept=dataset.metadata["export_v3"]["last_to_version"])
""",
        name="changes exported",
    )
    assert found["all"] == [["/a.png", False], ["/b/c.png", False], ["/b/d.png", False]]
    assert found["versions"] == [1, 1, 2]
    assert found["partitions"] == 2
    assert found["kept"] == 2
    changed = [one for one in found["changed"] if not one[0].startswith("/.dataloop")]
    assert changed == [["/a.png", True], ["/new.png", False]]
