"""Filters as the SDK's tutorials write them: each finds what its chapter says, of items and of annotations."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests import samples

# Six items in three folders, most of them with annotations.
_BEFORE = """
import datetime, io

project = dl.projects.create(project_name)
dataset = project.datasets.create("tutorials")

def upload(path, content=b"text", **metadata):
    folder, _, name = path.rpartition("/")
    file = io.BytesIO(content)
    file.name = name
    return dataset.items.upload(local_path=file, remote_path=folder or "/", remote_name=name, item_metadata=metadata)

def annotate(item, *definitions):
    builder = item.annotations.builder()
    for definition in definitions:
        builder.add(annotation_definition=definition)
    return item.annotations.upload(builder)

def box(label, **more):
    return dl.Box(left=1, top=2, right=3, bottom=4, label=label, **more)

def system(item, **metadata):
    item.metadata["system"].update(metadata)
    return item.update(system_metadata=True)

def told(filters):
    return sorted(item.filename for item in dataset.items.list(filters=filters).all())

def in_order(filters):
    pages = dataset.items.list(filters=filters)
    found = [item.filename for item in pages.all()]
    assert pages.items_count == len(found)
    return found

def labels(filters):
    return [annotation.label for annotation in dataset.annotations.list(filters=filters).all()]

with open(photo, "rb") as file:
    photo_bytes = file.read()
black = upload("/dogs/black.jpg", photo_bytes, user={"is_automated": True})
both = upload("/dogs/both.txt", b"longer text")
cat = upload("/cats/cat.txt", user={"tags": ["a", "b"]})
upload("/cats/foo.bar.txt")
upload("/cats/foo.txt")
plain = upload("/plain.txt", b"")
annotate(black, box("dog", attributes={"color": "black"}), dl.Point(x=1, y=2, label="nose"))
annotate(both, box("cat"), box("dog"))
annotate(cat, dl.Classification(label="cat"), dl.Note(left=1, top=2, right=3, bottom=4, label="a note", messages=["?"]))
"""


def test_items_are_found_as_the_tutorials_say(run_sdk: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(samples.jpeg())
    found = run_sdk(
        _BEFORE
        + dedent("""
        until(lambda: dataset.items.get(item_id=black.id).width, "the size of the photo")
        width = dataset.items.get(item_id=black.id).width
        def task(task_id, **metadata):
            return {"type": "task", "id": task_id, **({"metadata": metadata} if metadata else {})}

        both = system(dataset.items.get(item_id=both.id), annotationStatus=["completed", "approved"],
                      refs=[task("t1", status="completed"), task("t2")])
        cat = system(dataset.items.get(item_id=cat.id), annotationStatus=["completed"],
                     refs=[task("t1"), task("t2", status="completed")])

        def of(*conditions, sort=None, joins=(), **options):
            filters = dl.Filters(**options)
            for condition in conditions:
                filters.add(**condition)
            for join in joins:
                filters.add_join(**join)
            if sort:
                filters.sort_by(**sort)
            return in_order(filters) if sort else told(filters)

        OR, IN, EQUAL = dl.FiltersMethod.OR, dl.FiltersOperations.IN, dl.FILTERS_OPERATIONS_EQUAL
        GREATER, LESS = dl.FILTERS_OPERATIONS_GREATER_THAN, dl.FILTERS_OPERATIONS_LESS_THAN
        MATCH, DESCENDING = dl.FiltersOperations.MATCH, dl.FILTERS_ORDERBY_DIRECTION_DESCENDING
        refs, statuses = "metadata.system.refs", "metadata.system.annotationStatus"
        answers = {
            "folder": of(dict(field="dir", values="/dogs", operator=EQUAL), sort=dict(field="filename")),
            "not only cat": of(joins=[dict(field="label", values="cat", operator=dl.FILTERS_OPERATIONS_NOT_EQUAL)]),
            "wider": of(dict(field="metadata.system.width", values=width - 1, operator=GREATER)),
            "narrower": of(dict(field="metadata.system.width", values=width, operator=LESS)),
            "dog or cat": of(joins=[dict(field="label", values=["dog", "cat"], operator=IN)]),
            "with user metadata": of(dict(field="metadata.user", values=True, operator=dl.FILTERS_OPERATIONS_EXISTS)),
            "annotated": of(dict(field="annotated", values=True), sort=dict(field="filename")),
            "annotated and": of(dict(field="annotated", values=True),
                                dict(field="metadata.user.is_automated", values=True), sort=dict(field="name")),
            "approved with boxes": of(dict(field=statuses, values="approved"),
                                      joins=[dict(field="type", values="box")]),
            "either folder": of(dict(field="dir", values="/dogs", method=OR),
                                dict(field="dir", values="/cats", method=OR), sort=dict(field="dir", value=DESCENDING)),
            "label": of(joins=[dict(field="label", values="cat")]),
            "label of an item": of(dict(field="label", values="cat")),
            "both statuses": of(dict(field=statuses, values=["completed", "approved"])),
            "completed": of(dict(field=statuses, values="completed")),
            "only completed": of(dict(field=statuses, values=["completed"])),
            "unassigned": of(dict(field=refs, values=[])),
            "of a task": of(dict(field="metadata.system.refs.id", values=["t1"], operator=IN),
                            dict(field=statuses, values=["completed", "approved"], operator=IN)),
            "status in a task": of(dict(field=refs, values={
                "id": {"$in": ["t1"]}, "metadata": {"status": {"$in": ["completed"]}}})),
            "remaining in a task": of(dict(field=refs, operator=MATCH, values={
                "id": {"$in": ["t1"]}, "metadata": {"status": {"$exists": False}}})),
            "with a status in a task": of(dict(field=refs, operator=MATCH, values={
                "id": {"$in": ["t1"]}, "metadata": {"status": {"$exists": True}}})),
            "named foo.bar": of(dict(field="name", values="foo.bar.*")),
            "by size": of(dict(field="metadata.system.size", values="0", operator="gt"),
                          dict(field="metadata.system.size", values="11", operator="lt"),
                          sort=dict(field="filename", value=dl.FILTERS_ORDERBY_DIRECTION_ASCENDING)),
            "hidden": of(dict(field="filename", values="*.jpg", operator=MATCH),
                         dict(field="dir", values="/dogs/", operator=EQUAL),
                         dict(field="hidden", values=False), use_defaults=False),
            "folders": of(dict(field="type", values="dir")),
            "one of a list": of(dict(field="metadata.user.tags", values="b")),
            "mime type": of(dict(field="metadata.system.mimetype", values="image*")),
        }
        now = datetime.datetime.utcnow()
        hour = datetime.timedelta(hours=1)
        filters = dl.Filters()
        filters.add(field="createdAt", values=(now - hour).isoformat(), operator=dl.FiltersOperations.GREATER_THAN)
        filters.add(field="createdAt", values=(now + hour).isoformat(), operator=dl.FiltersOperations.LESS_THAN)
        answers["within the hour"] = len(told(filters))
        filters = dl.Filters()
        filters.add(field="createdAt", values="2018-01-01T00:00:00+00:00", operator=dl.FiltersOperations.GREATER_THAN)
        filters.add(field="createdAt", values="2019-01-01T00:00:00+00:00", operator=dl.FiltersOperations.LESS_THAN)
        answers["of 2018"] = told(filters)
        filters = dl.Filters()
        filters.add(field="to-delete-field", values="value")
        filters.pop(field="to-delete-field")
        filters.add_join(field="to-delete-annotation-field", values="value")
        filters.pop_join(field="to-delete-annotation-field")
        answers["taken out again"] = len(told(filters))
        cats = dl.Filters()
        cats.add_join(field="label", values="cat")
        everything = {item.id for item in dataset.items.list().all()}
        answers["without cats"] = len(everything.difference(item.id for item in dataset.items.list(filters=cats).all()))
        pages = dataset.items.list(filters=dl.Filters(), page_size=2, page_offset=1)
        answers["second page"] = [pages.items_count, pages.total_pages_count, [item.filename for item in pages.items]]
        filters = dl.Filters()
        filters.sort_by(field="filename")  # by ids, this release of the SDK leaves out what it has seen
        answers["backwards"] = [len(page) for page in reversed(dataset.items.list(filters=filters, page_size=4))]
        answer(**{name.replace(" ", "_").replace(".", "_"): value for name, value in answers.items()})
        """),
        project_name="filters of items",
        photo=str(tmp_path / "photo.jpg"),
    )
    black, both = "/dogs/black.jpg", "/dogs/both.txt"
    cat, foo_bar, foo, plain = "/cats/cat.txt", "/cats/foo.bar.txt", "/cats/foo.txt", "/plain.txt"
    either = found.pop("either_folder")
    assert (sorted(either[:2]), sorted(either[2:])) == ([black, both], [cat, foo_bar, foo])
    assert found == {
        "folder": [black, both],
        "not_only_cat": [cat, black, both],  # the note of the cat is no cat
        "wider": [black],
        "narrower": [],
        "dog_or_cat": [cat, black, both],
        "with_user_metadata": [cat, black],
        "annotated": [cat, black, both],
        "annotated_and": [black],
        "approved_with_boxes": [both],
        "label": [cat, both],
        "label_of_an_item": [cat, both],
        "both_statuses": [both],
        "completed": [cat, both],
        "only_completed": [cat],
        "unassigned": [foo_bar, foo, black, plain],
        "of_a_task": [cat, both],
        "status_in_a_task": [both],
        "remaining_in_a_task": [cat],
        "with_a_status_in_a_task": [both],
        "named_foo_bar": [foo_bar],
        "by_size": [cat, foo_bar, foo],
        "hidden": [black],
        "folders": ["/cats", "/dogs"],
        "one_of_a_list": [cat],
        "mime_type": [black],
        "within_the_hour": 6,
        "of_2018": [],
        "taken_out_again": 6,
        "without_cats": 4,
        "second_page": [6, 3, [cat, foo_bar]],
        "backwards": [2, 4],
    }


def test_annotations_sets_and_saved_filters_work_as_the_tutorials_say(run_sdk: Any, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(samples.jpeg())
    found = run_sdk(
        _BEFORE
        + dedent("""
        ANNOTATION, ITEM = dl.FiltersResource.ANNOTATION, dl.FiltersResource.ITEM
        filters = dl.Filters(resource=ANNOTATION, field="type", values="note")
        notes = labels(filters)
        filters = dl.Filters(resource=ANNOTATION)
        everything = sorted(labels(filters))
        filters.add(field="type", values="box")
        filters.add_join(field="metadata.system.mimetype", values="image*")
        filters.sort_by(field="createdAt", value=dl.FILTERS_ORDERBY_DIRECTION_DESCENDING)
        boxes_of_images = labels(filters)
        filters = dl.Filters(resource=ANNOTATION)
        filters.add(field="type", values="box", method=dl.FiltersMethod.AND)
        filters.add(field="label", values="cat", method=dl.FiltersMethod.AND)
        box_and_cat = labels(filters)
        filters = dl.Filters(resource=ANNOTATION)
        filters.add(field="type", values="/box", method=dl.FiltersMethod.OR)
        filters.add(field="type", values="/point", method=dl.FiltersMethod.OR)
        box_or_point = sorted(labels(filters))
        filters = dl.Filters(resource=ANNOTATION)
        filters.sort_by(field="label", value=dl.FILTERS_ORDERBY_DIRECTION_ASCENDING)
        filters.sort_by(field="createdAt", value=dl.FILTERS_ORDERBY_DIRECTION_DESCENDING)
        in_two_orders = labels(filters)
        small = dl.Filters(resource=ANNOTATION)
        small.page_size = 2
        paged = sorted(annotation.label for annotation in dataset.annotations.list(filters=small).all())
        of_an_item = sorted(annotation.label for annotation in both.annotations.list())

        def custom(**query):
            return told(dl.Filters(custom_filter=query))

        shown = {"$and": [{"hidden": False}, {"type": "file"}]}
        on = {"resource": "annotations", "local": "itemId", "forigen": "id"}
        intersection = custom(filter=shown, join={"filter": {"label": "cat"}, "on": on},
                              intersect={"query": {"filter": shown, "join": {"filter": {"label": "dog"}, "on": on}}})
        difference = custom(filter=shown, **{"except": {"query": {"join": {"filter": {"label": "dog"}, "on": on}}}})
        bare = told(dl.Filters(custom_filter={"$and": [{"hidden": False}, {"type": "file"}, {"annotated": True}]}))
        without_on = custom(filter=shown, join={"filter": {"label": "cat"}})

        filters = dl.Filters()
        filters.add(field="dir", values="/dogs")
        filters.add_join(field="label", values="cat")
        filters.save(project=project, filter_name="only label cat")
        saved = dl.Filters.list(project=project)
        loaded = told(dl.Filters.load(project=project, filter_name="only label cat"))
        unknown = error_of(dl.Filters.load, project=project, filter_name="nothing")

        mine = told(dl.Filters(context={"projects": [project.id], "datasets": [dataset.id]}))
        elsewhere = told(dl.Filters(context={"datasets": ["0" * 23 + "1"]}))

        filters = dl.Filters()
        filters.add(field="dir", values="/dogs")
        filters.add_join(field="attributes", values="black")
        dataset.items.update(filters=filters, update_values={"BlackDogs": True})
        updated = told(dl.Filters(field="metadata.user.BlackDogs", values=True))

        filters = dl.Filters(resource=ANNOTATION, field="label", values="dog")
        filters.add_join(field="dir", values="/dogs")
        filters.add_join(field="name", values="both.txt")
        assert dataset.annotations.delete(filters=filters)
        dogs = labels(dl.Filters(resource=ANNOTATION, field="label", values="dog"))
        some = [annotation.id for annotation in black.annotations.list() if annotation.label == "nose"]
        assert dataset.annotations.delete(annotation_id=some)
        assert both.annotations.delete(annotation="all")
        counts = [dataset.items.get(item_id=item.id).annotations_count for item in (black, both, cat)]

        filters = dl.Filters()
        filters.add_join(field="label", values="cat")
        dataset.items.delete(filters=filters)
        filters = dl.Filters()
        filters.add(field="createdAt", values="2020-08-30T08:17:08.000Z")
        dataset.items.delete(filters=filters)
        left = told(dl.Filters())
        wrong = dl.Filters(custom_filter={"filter": {"name": {"$regex": "x"}}})
        swallowed = [dataset.items.list(filters=wrong).items_count, error_of(dataset.items.delete, filters=wrong)]
        answer(
            notes=notes, everything=everything, boxes_of_images=boxes_of_images, box_and_cat=box_and_cat,
            box_or_point=box_or_point, in_two_orders=in_two_orders, paged=paged, of_an_item=of_an_item,
            intersection=intersection, difference=difference, bare=bare, without_on=without_on, saved=saved,
            loaded=loaded, unknown=unknown[0], mine=len(mine), elsewhere=elsewhere, updated=updated, dogs=len(dogs),
            counts=counts, left=left, swallowed=swallowed[0],
        )
        """),
        project_name="filters of annotations",
        photo=str(tmp_path / "photo.jpg"),
    )
    black, both, cat = "/dogs/black.jpg", "/dogs/both.txt", "/cats/cat.txt"
    foo_bar, foo, plain = "/cats/foo.bar.txt", "/cats/foo.txt", "/plain.txt"
    assert found == {
        "notes": ["a note"],
        "everything": ["cat", "cat", "dog", "dog", "nose"],
        "boxes_of_images": ["dog"],
        "box_and_cat": ["cat"],
        "box_or_point": ["cat", "dog", "dog", "nose"],
        "in_two_orders": ["cat", "cat", "dog", "dog", "nose"],
        "paged": ["cat", "cat", "dog", "dog", "nose"],
        "of_an_item": ["cat", "dog"],
        "intersection": [both],
        "difference": [cat, foo_bar, foo, plain],
        "bare": [cat, black, both],
        "without_on": [cat, both],
        "saved": ["only label cat"],
        "loaded": [both],
        "unknown": "NotFound",
        "mine": 6,
        "elsewhere": [],
        "updated": [black],
        "dogs": 1,
        "counts": [1, 0, 2],
        "left": [foo_bar, foo, black, both, plain],
        "swallowed": 0,
    }


def test_the_examples_of_the_guide_run_as_they_are_written(run_sdk: Any, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/guide/filtering.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    script = "\n".join(blocks).replace('"Demo"', "project_name").replace('"photos"', '"tutorials"')
    (tmp_path / "photo.jpg").write_bytes(samples.jpeg())
    found = run_sdk(
        _BEFORE
        + dedent("""
        import builtins
        printed = []
        def print(value):
            printed.append(value)
        """)
        + script
        + dedent("""
        print = builtins.print
        boxes_left = dataset.annotations.list(filters=boxes).items_count
        answer(printed=printed, reviewed=found(mine), boxes=boxes_left)
        """),
        project_name="the guide to filters",
        photo=str(tmp_path / "photo.jpg"),
    )
    black, both, cat = "/dogs/black.jpg", "/dogs/both.txt", "/cats/cat.txt"
    cats = [cat, "/cats/foo.bar.txt", "/cats/foo.txt"]
    everything = [*cats, black, both, "/plain.txt"]
    assert found["printed"] == [
        [black],
        cats,
        [],
        [],
        everything,
        [*cats, black, both],
        [both],
        ["/cats/foo.bar.txt", "/cats/foo.txt", black, "/plain.txt"],
        [],
        [both],
        ["cats in boxes"],
        [both],
    ]
    assert (found["reviewed"], found["boxes"]) == ([both], 0)
