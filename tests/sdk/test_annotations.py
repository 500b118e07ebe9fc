"""Annotations as scripts make, read, change and delete them, and files of them as a labelling tool exports them."""

import json
import os
import random
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests import clips, samples

# What every script of these starts with: an item, and what annotations are but for what the server says of them.
_BEFORE = """
SERVER = ["id", "_id", "url", "creator", "createdAt", "updatedAt", "updatedBy", "itemId", "item", "datasetId",
          "dataset"]

def bare(annotation):
    told = annotation if isinstance(annotation, dict) else annotation._platform_dict
    return {key: value for key, value in told.items() if key not in SERVER}

def in_order(annotations):
    # The SDK sorts them by their labels.
    return sorted(annotations, key=lambda annotation: annotation.id)

def counted(item):
    item = dl.items.get(item_id=item.id)
    dataset = dl.datasets.get(dataset_id=item.dataset_id)
    return [item.annotated, item.annotations_count, dataset.annotated, dataset.annotations_count]
"""


@pytest.fixture
def photo(tmp_path: Path) -> str:
    (tmp_path / "photo.jpg").write_bytes(samples.jpeg())
    return str(tmp_path / "photo.jpg")


def test_annotations_of_every_type_are_built_uploaded_and_read(run_sdk: Any, photo: str) -> None:
    found = run_sdk(
        _BEFORE
        + dedent("""
        import numpy as np
        dataset = dl.projects.create("annotations").datasets.create("every type")
        item = dataset.items.upload(local_path=photo)
        until(lambda: dataset.items.get(item_id=item.id).width, "the size of the photo")
        item = dataset.items.get(item_id=item.id)
        mask = np.zeros((item.height, item.width)); mask[2:9, 3:7] = 1
        definitions = [
            dl.Box(top=10, left=20.5, bottom=100, right=200, label="box", attributes={"1": "red"}, description="told"),
            dl.Box(top=10, left=20, bottom=100, right=200, label="turned", angle=30),
            dl.Classification(label="class", attributes={"2": ["a", "b"]}),
            dl.Cube(label="cube", angle=0, front_tl=[1, 2], front_tr=[3, 2], front_br=[3, 4], front_bl=[1, 4],
                    back_tl=[2, 3], back_tr=[4, 3], back_br=[4, 5], back_bl=[2, 5]),
            dl.Cube3d(label="cube 3d", position=[1, 2, 3], scale=[4, 5, 6], rotation=[0, 0.5, 1]),
            dl.Ellipse(x=30, y=40, rx=5, ry=6, angle=7, label="ellipse"),
            dl.Note(left=1, top=2, right=3, bottom=4, label="note", messages=["look here"]),
            dl.Point(x=3, y=4, label="point"),
            dl.Polygon(geo=[[1, 2], [3, 4], [5, 1.5]], label="polygon"),
            dl.Polyline(geo=[[1, 2], [3, 4], [1, 2]], label="polyline"),
            dl.Pose(label="pose", template_id="65a0000000000000000000aa"),
            dl.Segmentation(geo=mask, label="mask"),
            dl.Subtitle(text="hello", label="subtitle"),
            dl.Text(text_type="block", start=3, end=9, label="text mark"),
            dl.FreeText(text="free", label="free text"),
            dl.RefImage(ref="65a0000000000000000000aa", ref_type=dl.RefType.ID if hasattr(dl, "RefType") else "id",
                        mimetype="image/png", label="ref image"),
            dl.Gis(annotation_type=dl.GisType.POLYGON, geo=[[[8.5, 47.4], [8.6, 47.4], [8.6, 47.5]]], label="gis"),
            dl.Description(text="a street"),
            dl.entities.Comparison(coordinates=[{"key": "k", "value": 1}], label="comparison"),
        ]
        builder = item.annotations.builder()
        for number, definition in enumerate(definitions):
            builder.add(annotation_definition=definition, object_id=number + 1, metadata={"user": {"n": number}})
        sent = [annotation.to_json() for annotation in builder]
        uploaded = in_order(item.annotations.upload(builder))
        everything = dl.Filters(resource=dl.FiltersResource.ANNOTATION, use_defaults=False)
        listed = in_order(item.annotations.list(filters=everything))
        again = [dl.Annotation.from_json(dict(one._platform_dict), item=item).to_json() for one in listed]
        answer(
            types=[one.type for one in uploaded], listed=[one.id for one in listed] == [one.id for one in uploaded],
            defaults=sorted(set(one.type for one in listed) - set(one.type for one in item.annotations.list())),
            sent=[bare(one) for one in sent], again=[bare(one) for one in again],
            got=bare(item.annotations.get(annotation_id=uploaded[0].id)), first=bare(uploaded[0]),
            described=listed[0].description, attributes=[listed[0].attributes, listed[2].attributes],
            mask=int(listed[11].geo.sum()), counted=counted(item), creators=sorted({one.creator for one in listed}),
            email=dl.info()["user_email"], shown=str(listed[0].annotation_definition.geo),
        )
        """),
        photo=photo,
    )
    assert found["types"] == [
        "box", "box", "class", "cube", "cube_3d", "ellipse", "note", "point", "segment", "polyline", "pose", "binary",
        "subtitle", "text_mark", "text", "ref_image", "gis", "item_description", "comparison",
    ]  # fmt: skip
    assert found["listed"]
    assert found["defaults"] == ["item_description", "note"]  # which the SDK's own filter leaves out
    assert len(found["sent"]) == len(found["again"])
    for sent, again in zip(found["sent"], found["again"], strict=True):
        assert {key: value for key, value in again.items() if value is not None} == {
            key: value for key, value in sent.items() if value is not None
        }
    assert found["got"] == found["first"]
    assert found["described"] == "told"
    assert found["attributes"] == [{"1": "red"}, {"2": ["a", "b"]}]
    assert found["mask"] == 7 * 4 * 1
    assert found["counted"] == [True, 19, 1, 19]
    assert found["creators"] == [found["email"]]


def test_annotations_are_updated_and_deleted(run_sdk: Any, photo: str) -> None:
    found = run_sdk(
        _BEFORE
        + dedent("""
        dataset = dl.projects.create("annotation updates").datasets.create("updates")
        item = dataset.items.upload(local_path=photo)
        builder = item.annotations.builder()
        for number in range(250):
            builder.add(dl.Box(top=number, left=1, bottom=number + 5, right=9, label=f"label {number % 3}"))
        item.annotations.upload(builder)
        first = item.annotations.list()[0]
        at = [first.created_at, first.updated_at]
        first.label = "renamed"
        first.annotation_definition.left = 3.5
        first.metadata["user"] = {"checked": True, "by": {"a": 1}}
        first.attributes = {"1": "red", "2": [1, 2]}
        first = first.update(system_metadata=True)
        changed = item.annotations.get(annotation_id=first.id)
        renamed = [changed.label, changed.left, dict(changed.metadata["user"]), dict(changed.attributes),
                   changed.description]
        changed.attributes.pop("1")
        changed.metadata["user"]["by"] = None
        changed.description = "told"
        changed = changed.update(True)
        popped = [dict(changed.attributes), dict(changed.metadata["user"]), changed.description]
        changed.metadata["system"]["secret"] = 1
        plain = changed.update().metadata["system"].get("secret")
        changed = item.annotations.get(annotation_id=first.id)
        changed.metadata["user"] = True
        truth = changed.update().metadata["user"]
        statuses = []
        for status in (dl.AnnotationStatus.ISSUE, dl.AnnotationStatus.APPROVED, dl.AnnotationStatus.CLEAR):
            changed = changed.update_status(status)
            statuses.append([changed.status, "status" in changed.metadata["system"]])
        child = item.annotations.list()[1]
        child.parent_id = first.id
        child.update(system_metadata=True)
        parent = item.annotations.get(annotation_id=child.id).parent_id == first.id
        same = changed.updated_at == changed.update().updated_at
        pages = dataset.annotations.list(page_size=100)
        total = [pages.items_count, pages.total_pages_count, len(list(pages.all()))]
        by_label = dl.Filters(resource=dl.FiltersResource.ANNOTATION, field="label", values="label 1")
        labelled = dataset.annotations.list(filters=by_label).items_count
        joined = dl.Filters(); joined.add_join(field="label", values="renamed")
        before = counted(item)
        some = [one.id for one in item.annotations.list()[:3]]
        deleted = [child.delete(), item.annotations.delete(annotation_id=some), counted(item)]
        item.annotations.delete(filters=by_label)
        deleted.append(counted(item))
        item.annotations.delete("all")
        deleted.append(counted(item))
        annotated = dataset.items.list(filters=dl.Filters(field="annotated", values=True)).items_count
        answer(renamed=renamed, popped=popped, plain=plain, truth=truth, statuses=statuses, parent=parent, same=same,
               total=total, labelled=labelled, before=before, deleted=deleted, annotated=annotated, moved=at[1] <
               changed.updated_at, created=at[0] == changed.created_at,
               gone=error_of(item.annotations.get, annotation_id=first.id))
        """),
        photo=photo,
    )
    assert found["renamed"] == ["renamed", 3.5, {"checked": True, "by": {"a": 1}}, {"1": "red", "2": [1, 2]}, None]
    assert found["popped"] == [{"2": [1, 2]}, {"checked": True}, "told"]
    assert found["plain"] is None
    assert found["truth"] is True
    assert found["statuses"] == [["issue", True], ["approved", True], [None, False]]
    assert found["parent"]
    assert found["same"]
    assert found["moved"]
    assert found["created"]
    assert found["total"] == [250, 3, 250]
    assert found["labelled"] in (82, 83)  # batches go side by side, so any may be the first
    assert found["before"] == [True, 250, 1, 250]
    assert found["deleted"][:2] == [True, True]
    assert found["deleted"][2] == [True, 247, 1, 247]
    assert found["deleted"][3][1] in (163, 164, 165)
    assert found["deleted"][4] == [False, 0, 0, 0]
    assert found["annotated"] == 0
    assert found["gone"][0] == "NotFound"


def test_annotations_of_a_video_have_their_frames(run_sdk: Any, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(clips.clip())
    found = run_sdk(
        _BEFORE
        + dedent("""
        import io
        dataset = dl.projects.create("annotation videos").datasets.create("videos")
        item = dataset.items.upload(local_path=clip)
        item.metadata["fps"] = 25
        item.fps = 25
        builder = item.annotations.builder()
        for frame in range(0, 10):
            builder.add(dl.Box(top=frame, left=1, bottom=frame + 9, right=20, label="moving"),
                        frame_num=frame, object_id=1, fixed=frame % 3 == 0)
        builder.add(dl.Subtitle(text="hello", label="said"), start_time=0.4, end_time=1.2, object_id=2)
        sent = [annotation.to_json() for annotation in builder]
        uploaded = item.annotations.upload(builder)
        system = uploaded[0]._platform_dict["metadata"]["system"]
        annotation = item.annotations.get(annotation_id=uploaded[0].id)
        annotation.add_frame(dl.Box(top=50, left=1, bottom=60, right=20, label="moving"), frame_num=30)
        annotation.update(True)
        longer = item.annotations.get(annotation_id=uploaded[0].id)._platform_dict["metadata"]["system"]
        answer(system=system, sent=sent[0]["metadata"]["system"], longer=longer, number=len(uploaded))
        """),
        clip=str(tmp_path / "clip.mp4"),
    )
    assert found["number"] == 2
    assert found["system"] == found["sent"]
    assert len(found["system"]["snapshots_"]) > 2
    assert found["longer"]["endFrame"] == 30
    assert found["longer"]["snapshots_"][-1]["frame"] == 30
    assert found["longer"]["snapshots_"][-1]["data"][0]["y"] == 50


def exported(name: str, kind: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """A file as the platform's export of an item has been for years."""
    item_id = f"{random.Random(name).getrandbits(96):024x}"
    common = {
        "url": "https://gate.example.org/api/v1/annotations/0", "creator": "ana@example.org",
        "createdAt": "2021-08-09T06:58:38.375Z", "updatedBy": "ana@example.org",
        "updatedAt": "2021-08-09T06:58:38.375Z", "itemId": item_id, "item": f"https://gate.example.org/items/{item_id}",
        "dataset": "https://gate.example.org/datasets/1", "datasetId": "6110d173f2428d3b2ae2dafc",
    }  # fmt: skip
    system = {"originalname": name, "size": 10, "encoding": "7bit", "mimetype": kind, "refs": [], "isBinary": True}
    return {
        "_id": item_id,
        "filename": f"/train/{name}",
        "annotations": [{"id": f"{number:024x}"} | common | one for number, one in enumerate(annotations, 7)],
        "itemMetadata": {"system": system},
        "metadata": {"system": system, "user": {"from": "file"}},
    }


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """items/ and annotations/, of shapes that such files have; or those of a folder that HEADWATER_EXPORTED names."""
    if given := os.environ.get("HEADWATER_EXPORTED"):
        return Path(given)
    numbers = random.Random(3)
    (tmp_path / "items").mkdir()
    (tmp_path / "annotations").mkdir()

    def one(kind: str, coordinates: Any, **more: Any) -> dict[str, Any]:
        facts = {"type": kind, "label": numbers.choice(["apple", "pear"]), "coordinates": coordinates}
        return facts | {"attributes": [], "metadata": {"system": {"automated": True}}, "hash": "b11e7cc37"} | more

    def point() -> dict[str, float]:
        return {"x": numbers.uniform(0, 250), "y": float(numbers.randrange(250)), "z": 0}

    for number in range(12):
        system = {"automated": False, "objectId": f"{number}", "attributes": {"1": "x"}, "status": "approved"}
        given = [
            one("box", [point(), point()]),
            one("segment", [[point() for _ in range(5)]], attributes=None),
            one("class", [], attributes={"a": True}),
            one("point", point(), metadata={"system": system, "user": {"note": "é", "deep": {"a": [1, None]}}}),
            one("polyline", [[{"x": 1, "y": 2.25}, {"x": 3, "y": 4}]], source="ui", description="a line"),
        ]
        name = f"fruit_{number}.jpg"
        (tmp_path / "items" / name).write_bytes(samples.jpeg())
        told = exported(name, "image/jpeg", given[: number % 6])
        (tmp_path / "annotations" / f"fruit_{number}.json").write_text(json.dumps(told))
    return tmp_path


def test_exported_files_go_in_and_come_out_equal(run_sdk: Any, corpus: Path) -> None:
    """Set HEADWATER_EXPORTED to a folder with items/ and annotations/ to try it on others."""
    found = run_sdk(
        _BEFORE
        + dedent("""
        import os
        dataset = dl.projects.create("exported annotations").datasets.create("exported")
        dataset.items.upload(local_path=os.path.join(corpus, "items", "*"),
                             local_annotations_path=os.path.join(corpus, "annotations"),
                             item_metadata=dl.ExportMetadata.FROM_JSON if from_json else None)
        wrong, number, users = [], 0, []
        for item in dataset.items.list().all():
            path = os.path.join(corpus, "annotations", os.path.splitext(item.filename)[0][1:] + ".json")
            if not os.path.exists(path):
                continue
            expected = json.load(open(path))["annotations"]
            everything = dl.Filters(resource=dl.FiltersResource.ANNOTATION, use_defaults=False)
            listed = in_order(item.annotations.list(filters=everything))
            number += len(expected)
            users.append(item.metadata["user"])
            if [bare(one) for one in listed] != [{"source": None, "metadata": {}, **bare(one)} | {"metadata": {
                    "user": {}, **one["metadata"]}} for one in expected]:
                wrong.append([item.filename, [bare(one) for one in listed][:2], [bare(one) for one in expected][:2]])
        dataset = dl.datasets.get(dataset_id=dataset.id)
        answer(wrong=wrong[:3], number=number, counted=[dataset.annotated, dataset.annotations_count], users=users,
               items=dataset.items_count)
        """),
        corpus=str(corpus),
        from_json="HEADWATER_EXPORTED" not in os.environ,
    )
    assert found["wrong"] == []
    assert found["counted"][1] == found["number"] > 20
    if "HEADWATER_EXPORTED" not in os.environ:
        assert found["users"] == [{"from": "file"}] * 12


def test_tables_of_files_bring_annotations_and_overwriting_keeps_them(run_sdk: Any, corpus: Path) -> None:
    found = run_sdk(
        _BEFORE
        + dedent("""
        import os, pandas
        dataset = dl.projects.create("annotation tables").datasets.create("tables")
        rows = [{"local_path": os.path.join(corpus, "items", name),
                 "local_annotations_path": os.path.join(corpus, "annotations", name.replace(".jpg", ".json")),
                 "remote_path": "/table"} for name in sorted(os.listdir(os.path.join(corpus, "items")))]
        dataset.items.upload(local_path=pandas.DataFrame(rows))
        total = dl.datasets.get(dataset_id=dataset.id).annotations_count
        one = dict(filepath="/table/fruit_5.jpg")
        item = dataset.items.get(**one)
        kept = [annotation.id for annotation in item.annotations.list()]
        dataset.items.upload(local_path=rows[0]["local_path"], remote_path="/table", remote_name="fruit_5.jpg",
                             overwrite=True)
        after = dataset.items.get(**one)
        skipped = dataset.items.upload(
            local_path=rows[0]["local_path"], remote_path="/table", remote_name="fruit_5.jpg",
            local_annotations_path=os.path.join(corpus, "annotations", "fruit_5.json"))
        same = [annotation.id for annotation in after.annotations.list()]
        folder = os.path.join(corpus, "again", "table")
        os.makedirs(folder)
        json.dump(json.load(open(os.path.join(corpus, "annotations", "fruit_5.json"))),
                  open(os.path.join(folder, "fruit_5.json"), "w"))
        dataset.upload_annotations(local_path=os.path.join(corpus, "again"), clean=True)
        until(lambda: (found := dataset.items.get(**one).annotations.list()) and found[0].id not in kept, "new ones")
        cleaned = dataset.items.get(**one)
        answer(total=total, kept=kept, same=same, item=after.id == item.id, count=after.annotations_count,
               cleaned=cleaned.annotations_count, files=sum(len(json.load(open(row["local_annotations_path"]))
               ["annotations"]) for row in rows))
        """),
        corpus=str(corpus),
    )
    assert found["total"] == found["files"]
    assert found["item"]
    assert found["same"] == found["kept"]
    assert found["count"] == len(found["kept"]) == found["cleaned"] == 5


def test_clones_bring_annotations_along(run_sdk: Any, photo: str) -> None:
    found = run_sdk(
        _BEFORE
        + dedent("""
        project = dl.projects.create("annotation clones")
        dataset = project.datasets.create("source of annotations")
        item = dataset.items.upload(local_path=photo)
        builder = item.annotations.builder()
        for label in ("a", "b"):
            builder.add(dl.Box(top=1, left=1, bottom=2, right=9, label=label))
        first = item.annotations.upload(builder)[0]
        first.update_status(dl.AnnotationStatus.APPROVED)
        clone = dataset.clone(clone_name="with annotations", with_items_annotations=True, with_metadata=True,
                              with_task_annotations_status=True)
        bare_clone = dataset.clone(clone_name="without annotations", with_items_annotations=False)
        single = item.clone(dst_dataset_id=bare_clone.id, remote_filepath="/single.jpg", with_annotations=True)
        def told(item):
            return [[one.label, one.status] for one in item.annotations.list()]
        answer(clone=told(clone.items.get(filepath=item.filename)), single=told(single),
               bare=told(bare_clone.items.get(filepath=item.filename)),
               counts=[clone.annotations_count, dl.datasets.get(dataset_id=bare_clone.id).annotations_count])
        """),
        photo=photo,
    )
    assert found["clone"] == [["a", "approved"], ["b", None]]
    assert [label for label, _ in found["single"]] == ["a", "b"]
    assert found["bare"] == []
    assert found["counts"] == [2, 2]
