"""Annotations over HTTP: what goes in and comes out, what is refused and why, and what is counted."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.world import NOBODY, World, message, unique

_A, _B = {"x": 1.5, "y": 2, "z": 0}, {"x": 30, "y": 40.25, "z": 0}
_PNG = "data:image/png;base64,iVBORw0KGgo="
_V = {"x": 1, "y": 2.5, "z": -3}
_CORNERS = ("front_tl", "front_tr", "front_br", "front_bl", "back_tl", "back_tr", "back_br", "back_bl")

# One of each, as the SDK sends it.
GOOD: list[tuple[str, Any]] = [
    ("box", [_A, _B]),
    ("box", [_A, _B, 45.5]),
    ("box", [_A, _B, _A, _B]),
    ("cube", dict.fromkeys(_CORNERS, _A) | {"angle": 12}),
    ("cube_3d", {"position": _V, "scale": _V, "rotation": _V}),
    ("class", None),
    ("class", []),
    ("comparison", {"item1": 0.3}),
    ("ellipse", {"angle": 0.0, "center": _A, "rx": 3.5, "ry": 4}),
    ("note", {"box": [_A, _B], "note": {"messages": [{"body": "look", "time": 1}], "status": "issue"}}),
    ("point", {"x": 1, "y": 2}),
    ("segment", [[{"x": 1, "y": 2}, {"x": 3, "y": 2}, {"x": 3, "y": 4}]]),
    ("segment", [[{"x": 1, "y": 2, "kept": [1]}], [_A, _B]]),
    ("polyline", [[{"x": 1, "y": 2}, {"x": 3, "y": 2}]]),
    ("pose", {"templateId": "63e", "instanceId": None}),
    ("binary", _PNG),
    ("subtitle", {"text": "hello"}),
    ("text_mark", {"type": "block", "label": "x", "start": 3, "end": 8}),
    ("gis", {"geo_type": "polygon", "wgs84_geo_coordinates": [[[8.5, 47.4], [8.6, 47.4], [8.6, 47.5]]]}),
    ("ref_semantic_3d", {"ref": "63e", "refType": "id"}),
    ("polyline_3d", [_V, _V]),
    ("polyline_3d", [[_V, _V]]),
    ("text", "free"),
    ("ref_image", {"ref": "63e", "refType": "id", "mimetype": "image/png"}),
    ("item_description", {"text": "a street"}),
]

BAD: list[tuple[dict[str, Any], str]] = [
    ({"coordinates": [{"x": "1", "y": 2}, _B]}, "coordinates[0].x: must be a number"),
    ({"coordinates": [_A, {"x": 1}]}, "coordinates[1].y: must be a number"),
    ({"coordinates": [_A, {"x": 1, "y": True}]}, "coordinates[1].y: must be a number"),
    ({"coordinates": [_A, {"x": 1, "y": 2, "z": "0"}]}, "coordinates[1].z: must be a number"),
    ({"coordinates": [_A]}, "coordinates: must be two corners"),
    ({"coordinates": [_A, _B, 1, 2]}, "coordinates: must be two corners"),
    ({"coordinates": {"x": 1}}, "coordinates: must be a list"),
    ({"coordinates": None}, "coordinates: must be a list"),
    ({"type": "segment", "coordinates": [_A, _B]}, "coordinates[0]: must be a list"),
    ({"type": "segment", "coordinates": [[]]}, "coordinates[0]: must have at least one point"),
    ({"type": "segment", "coordinates": []}, "coordinates: must have at least one list"),
    ({"type": "segment", "coordinates": [[_A] * 100_001]}, "more than 100,000 points"),
    ({"type": "point", "coordinates": [1, 2]}, 'coordinates: must be a point such as {"x": 1.5, "y": 2}'),
    ({"type": "ellipse", "coordinates": {"center": _A, "rx": 1}}, "coordinates.ry: must be a number"),
    ({"type": "ellipse", "coordinates": {"rx": 1}}, "coordinates.center: must be a point"),
    ({"type": "cube", "coordinates": {"front_tl": _A}}, "coordinates.front_tr: must be a point"),
    ({"type": "cube_3d", "coordinates": {"position": {"x": 1, "y": 2}}}, "coordinates.position.z: must be a number"),
    ({"type": "binary", "coordinates": "data:image/jpeg;base64,x"}, "coordinates: must be a PNG picture"),
    ({"type": "subtitle", "coordinates": {"text": 3}}, "coordinates.text: must be a text"),
    ({"type": "text", "coordinates": 3}, "coordinates: must be a text"),
    ({"type": "pose", "coordinates": {"templateId": 3}}, "coordinates.templateId: must be a text"),
    ({"type": "gis", "coordinates": {"geo_type": "ball"}}, "coordinates.geo_type: must be one of box"),
    ({"type": "gis", "coordinates": {"geo_type": "box", "wgs84_geo_coordinates": [["a"]]}}, "[0][0]: must be a number"),
    ({"type": "note", "coordinates": {"box": [_A]}}, "coordinates.box: must be two corners"),
    ({"type": "note", "coordinates": {"box": [_A, _B], "note": {"messages": [3]}}}, "note.messages[0]: must be an"),
    ({"type": "class", "coordinates": [_A]}, "coordinates: must be left out"),
    ({"type": "ref_image", "coordinates": "x"}, "coordinates: must be an object"),
    ({"type": "comparison", "coordinates": None}, "coordinates: must be given"),
    ({"type": "circle"}, "type: 'circle' is no type of annotations. Types: box, cube"),
    ({"type": None}, "type: must be a text"),
    ({"type": ["box"]}, "type: must be a text"),
    ({"label": None}, "label: must be a text"),
    ({"label": 3}, "label: must be a text"),
    ({"label": "x" * 1_001}, "label: is 1,001 characters long"),
    ({"source": 3}, "source: must be a text"),
    ({"hash": {}}, "hash: must be a text"),
    ({"description": []}, "description: must be a text"),
    ({"attributes": "red"}, "attributes: must be an object, a list or null"),
    ({"metadata": [1]}, "metadata: must be an object"),
    ({"metadata": {"system": 3}}, "metadata.system: must be an object"),
    ({"metadata": {"system": {"snapshots_": {}}}}, "metadata.system.snapshots_: must be a list"),
    ({"metadata": {"system": {"snapshots_": [3]}}}, "metadata.system.snapshots_[0]: must be an object"),
    ({"metadata": {"system": {"snapshots_": [{"frame": "3"}]}}}, "snapshots_[0].frame: must be a number"),
    ({"metadata": {"system": {"snapshots_": [{"data": [_A]}]}}}, "snapshots_[0].data: must be two corners"),
    ({"metadata": {"user": {"a": "nul \0"}}}, "holds a NUL character"),
    ({"label": "\0"}, "holds a NUL character"),
    ({"attributes": {"\0": 1}}, "holds a NUL character"),
    ({"metadata": {"user": {"a": "x" * 16_000_001}}}, "bytes of JSON; 16,000,000 are the most"),
]


def box(**given: Any) -> dict[str, Any]:
    return {"type": "box", "label": "car", "coordinates": [_A, _B]} | given


async def new_item(world: World, dataset_id: str | None = None) -> str:
    return (await world.upload(dataset_id or world.dataset_id, f"/{unique('annotated')}.txt", b"x"))["id"]


async def annotate(world: World, item_id: str, body: Any) -> Any:
    answer = await world.owner.post(f"/items/{item_id}/annotations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def counts(world: World, item_id: str) -> tuple[bool, int]:
    item = (await world.owner.get(f"/items/{item_id}")).json()
    return item["annotated"], item["annotationsCount"]


async def dataset_counts(world: World, dataset_id: str) -> tuple[int, int]:
    dataset = (await world.owner.get(f"/datasets/{dataset_id}")).json()
    return dataset["annotated"], dataset["annotationsCount"]


async def test_annotations_of_every_type_come_out_as_they_went_in(world: World) -> None:
    item_id = await new_item(world)
    sent = [
        {
            "id": None, "url": None, "creator": None, "createdAt": None, "type": kind, "label": f"étiquette {number}",
            "coordinates": coordinates, "attributes": [["a"], {"1": "b"}, None][number % 3], "hash": "5f1",
            "source": "sdk",
            "metadata": {"system": {"automated": True, "attributes": {"9": 0.1}}, "user": {"n": number}},
        }
        for number, (kind, coordinates) in enumerate(GOOD)
    ]  # fmt: skip
    made = await annotate(world, item_id, sent)
    page = (await world.owner.get(f"/items/{item_id}/annotations")).json()
    assert page["items"] == made
    assert (page["totalItemsCount"], page["totalPagesCount"], page["hasNextPage"]) == (len(GOOD), 1, False)
    assert [one["id"] for one in made] == sorted(one["id"] for one in made)
    for before, after in zip(sent, made, strict=True):
        for key in ("type", "label", "attributes", "hash", "source", "metadata"):
            assert after[key] == before[key]
        assert after["coordinates"] == ([] if before["coordinates"] is None else before["coordinates"])
        assert (await world.owner.get(f"/annotations/{after['id']}")).json() == after
    assert set(made[0]) == {
        "id", "url", "datasetId", "itemId", "item", "dataset", "type", "label", "coordinates", "attributes", "metadata",
        "hash", "source", "creator", "createdAt", "updatedBy", "updatedAt",
    }  # fmt: skip
    assert made[0]["itemId"] == item_id
    assert made[0]["creator"] == made[0]["updatedBy"] == world.people["organisation owner"].email
    assert await counts(world, item_id) == (True, len(GOOD))


async def test_one_annotation_is_answered_by_one(world: World) -> None:
    item_id = await new_item(world)
    made = await annotate(world, item_id, box(description="a car", labelSuggestions=["van"], metadata={"user": True}))
    assert made["description"] == "a car"
    assert made["labelSuggestions"] == ["van"]
    assert made["metadata"] == {"system": {}, "user": True}
    assert (await world.owner.get(f"/annotations/{made['id']}")).json() == made
    assert await annotate(world, item_id, []) == []
    assert await counts(world, item_id) == (True, 1)


async def test_what_only_the_server_says_is_ignored_and_parents_are_found(world: World) -> None:
    item_id = await new_item(world)
    old = {
        "id": "6110d21ecdfa5cda0f3cee70", "creator": "or@elsewhere.test", "createdAt": "2021-08-09T06:58:38.375Z",
        "updatedBy": "or@elsewhere.test", "itemId": NOBODY, "datasetId": NOBODY, "url": "https://elsewhere.test",
    }  # fmt: skip
    child = {"metadata": {"system": {"parentId": old["id"]}}}
    orphan = {"metadata": {"system": {"parentId": NOBODY}}}
    made = await annotate(world, item_id, [box(**old), box(**child), box(**orphan)])
    assert made[0]["id"] != old["id"]
    assert made[0]["itemId"] == item_id
    assert made[0]["datasetId"] == world.dataset_id
    assert made[0]["creator"] == world.people["organisation owner"].email
    assert not made[0]["createdAt"].startswith("2021")
    assert [one["metadata"]["system"].get("parentId") for one in made] == [None, made[0]["id"], NOBODY]


@pytest.mark.parametrize(("wrong", "told"), BAD, ids=range(len(BAD)))
async def test_what_has_no_shape_is_refused_with_its_place_and_all_the_rest_with_it(
    world: World, wrong: dict[str, Any], told: str
) -> None:
    before = await counts(world, world.item_id)
    body = [box(), box(), box(**wrong)]
    answer = await world.owner.post(f"/items/{world.item_id}/annotations", json=body)
    assert told in message(answer, 400)
    assert message(answer, 400).startswith("[2]")
    alone = message(await world.owner.post(f"/items/{world.item_id}/annotations", json=box(**wrong)), 400)
    assert told in alone
    assert not alone.startswith("[")
    assert await counts(world, world.item_id) == before


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'[{"type": "box", "label": "x", "coordinates": [{"x": NaN, "y": 1}]}]', "not JSON"),
        (b'[{"type": "box", "label": "x", "coordinates": [{"x": 1e999, "y": 1}]}]', "not JSON"),
        (b'[{"type": "class", "label": "\\ud800"}]', "not JSON"),
        (b"[" * 10_000 + b"]" * 10_000, "not JSON"),
        (b'[{"type": "class", "label": "x", "metadata": {"user": %s}}]' % (b"[" * 300 + b"]" * 300), "nested"),
        (b'[{"type": "gis", "label": "x", "coordinates": {"geo_type": "box", "wgs84_geo_coordinates": %s}}]'
         % (b"[" * 900 + b"]" * 900), "nested"),
        (b"[" + b'{"type": "class", "label": "x"},' * 1_000 + b'{"type": "class", "label": "x"}]', "1,001 annotations"),
        (b"[3]", "[0]: must be an object"),
        (b"3", "The annotation: must be an object"),
        (b'"' + b"x" * 34_000_000 + b'"', "longer than"),
    ],
    ids=range(12),
)  # fmt: skip
async def test_hostile_bodies_are_told_what_is_wrong(world: World, body: bytes, told: str) -> None:
    headers = {"content-type": "application/json"}
    answer = await world.owner.post(f"/items/{world.item_id}/annotations", content=body, headers=headers)
    assert told in message(answer, 400)
    made = await annotate(world, await new_item(world), box())
    patch = b'{"metadata": {"user": ' + body + b"}}"
    answer = await world.owner.put(f"/annotations/{made['id']}", content=patch, headers=headers)
    assert answer.status_code in (200, 400), answer.text


async def test_a_literal_backslash_is_no_nul(world: World) -> None:
    made = await annotate(world, await new_item(world), box(metadata={"user": {"path": "C:\\u0000"}}))
    assert made["metadata"]["user"] == {"path": "C:\\u0000"}


async def put(world: World, annotation_id: str, patch: Any, *, system: bool = False) -> Any:
    answer = await world.owner.put(f"/annotations/{annotation_id}", json=patch, params={"system": system})
    assert answer.status_code == 200, answer.text
    assert answer.json() == (await world.owner.get(f"/annotations/{annotation_id}")).json()
    return answer.json()


async def test_a_difference_is_put_over_an_annotation(world: World) -> None:
    item_id = await new_item(world)
    given = box(
        attributes={"1": "a", "2": "b"},
        source="sdk",
        description="first",
        labelSuggestions=["van"],
        metadata={"user": {"a": {"b": 1, "c": 2}}, "system": {"status": "issue", "snapshots_": [], "frame": 0}},
    )
    made = await annotate(world, item_id, given)
    changed = await put(
        world,
        made["id"],
        {
            "id": NOBODY, "itemId": NOBODY, "creator": None, "createdAt": None, "label": "bus",
            "coordinates": [_B, _A], "attributes": {"1": "c", "2": None}, "description": None, "labelSuggestions": None,
            "metadata": {"user": {"a": {"b": None, "d": 3}}, "system": {"status": None, "frame": 9}},
        },
    )  # fmt: skip
    assert changed["label"] == "bus"
    assert changed["coordinates"] == [_B, _A]
    assert changed["attributes"] == {"1": "c"}
    assert "description" not in changed
    assert "labelSuggestions" not in changed
    assert changed["metadata"]["user"] == {"a": {"c": 2, "d": 3}}
    assert changed["metadata"]["system"] == made["metadata"]["system"]  # not without ?system=true
    assert (changed["id"], changed["itemId"], changed["createdAt"]) == (made["id"], item_id, made["createdAt"])
    snapshots = [{"frame": 3, "fixed": True, "label": "bus", "type": "box", "data": [_A, _B]}]
    changed = await put(
        world, made["id"], {"metadata": {"system": {"status": None, "snapshots_": snapshots}}}, system=True
    )
    assert changed["metadata"]["system"] == {"snapshots_": snapshots, "frame": 0}
    changed = await put(world, made["id"], {"metadata": {"user": True}, "attributes": None})
    assert changed["metadata"]["user"] is True
    assert changed["attributes"] is None
    changed = await put(world, made["id"], {"coordinates": [_A]})  # what the SDK makes of two corners that are equal
    assert changed["coordinates"] == [_A, _A]
    changed = await put(world, made["id"], {"type": "point", "coordinates": {"x": 1, "y": 2}})
    changed = await put(world, made["id"], {"coordinates": {"x": 7}})
    assert changed["coordinates"] == {"x": 7, "y": 2}
    changed = await put(world, made["id"], {"type": "class", "coordinates": None})
    assert changed["coordinates"] == []
    assert (await put(world, made["id"], {"coordinates": None}))["coordinates"] == []


async def test_a_difference_that_spoils_an_annotation_is_refused(world: World) -> None:
    made = await annotate(world, await new_item(world), box(metadata={"user": {"a": 1}}))
    for patch, told in [
        ({"label": None}, "label: must be a text"),
        ({"coordinates": None}, "coordinates: must be a list"),
        ({"coordinates": [_A, {"x": 1}]}, "coordinates[1].y: must be a number"),
        ({"type": "segment"}, "coordinates[0]: must be a list"),
        ({"type": "ball"}, "is no type"),
        ({"metadata": 3}, "metadata: must be an object"),
        ({"metadata": {"system": 3}}, "metadata.system: must be an object"),
        ({"metadata": {"user": {"a": "\0"}}}, "NUL"),
        ([], "must be an object"),
    ]:
        answer = await world.owner.put(f"/annotations/{made['id']}", json=patch, params={"system": True})
        assert told in message(answer, 400)
    assert (await world.owner.get(f"/annotations/{made['id']}")).json() == made


async def test_what_changes_nothing_is_not_written(world: World) -> None:
    made = await annotate(world, await new_item(world), box())
    assert await put(world, made["id"], {"label": "car", "updatedAt": None}) == made


async def test_counts_follow_what_is_added_and_deleted(world: World) -> None:
    dataset_id = await world.new_dataset()
    first, second = await new_item(world, dataset_id), await new_item(world, dataset_id)
    made = await annotate(world, first, [box(), box(), box()])
    await annotate(world, second, box())
    assert await dataset_counts(world, dataset_id) == (2, 4)
    for number, one in enumerate(made, 1):
        answer = await world.owner.request("DELETE", f"/annotations/{one['id']}", json={"username": "me@example.org"})
        assert answer.json() == {"success": True}
        assert await counts(world, first) == (number < 3, 3 - number)
        message(await world.owner.get(f"/annotations/{one['id']}"), 404)
        message(await world.owner.delete(f"/annotations/{one['id']}"), 404)
    assert await dataset_counts(world, dataset_id) == (1, 1)
    assert (await world.owner.delete(f"/items/{second}")).status_code == 200
    assert await dataset_counts(world, dataset_id) == (0, 0)
    assert await world.execute("SELECT FROM annotation WHERE dataset_id = %s", int(dataset_id, 16)) == []


async def test_counts_are_right_whoever_annotates_at_once(world: World) -> None:
    dataset_id = await world.new_dataset()
    item_ids = [await new_item(world, dataset_id) for _ in range(3)]
    made = [await annotate(world, item_id, [box()] * 8) for item_id in item_ids]

    async def work(number: int) -> httpx.Response:
        item = number % 3
        if number % 2:
            return await world.owner.delete(f"/annotations/{made[item][number // 6]['id']}")
        return await world.owner.post(f"/items/{item_ids[item]}/annotations", json=[box()] * (number % 5))

    answers = await asyncio.gather(*(work(number) for number in range(48)))
    assert {answer.status_code for answer in answers} == {200}
    rows = await world.execute(
        """
        SELECT item.id, annotations_count, (SELECT count(*) FROM annotation WHERE item_id = item.id)
        FROM item
        WHERE dataset_id = %s
        """,
        int(dataset_id, 16),
    )
    assert len(rows) == 3
    assert all(counted == there for _, counted, there in rows), rows
    assert await dataset_counts(world, dataset_id) == (3, sum(there for _, _, there in rows))


async def test_an_item_that_goes_while_it_is_annotated_leaves_no_annotation(world: World) -> None:
    dataset_id = await world.new_dataset()
    item_ids = [await new_item(world, dataset_id) for _ in range(10)]
    answers = await asyncio.gather(
        *(world.owner.post(f"/items/{item_id}/annotations", json=[box()] * 3) for item_id in item_ids),
        *(world.owner.delete(f"/items/{item_id}") for item_id in item_ids),
    )
    assert {answer.status_code for answer in answers} <= {200, 404}
    assert await dataset_counts(world, dataset_id) == (0, 0)
    assert await world.execute("SELECT FROM annotation WHERE dataset_id = %s", int(dataset_id, 16)) == []


async def test_a_read_only_dataset_takes_no_annotation(world: World) -> None:
    dataset_id = await world.new_dataset()
    item_id = await new_item(world, dataset_id)
    made = await annotate(world, item_id, box())
    await world.execute("UPDATE dataset SET readonly = true WHERE id = %s", int(dataset_id, 16))
    for answer in (
        await world.owner.post(f"/items/{item_id}/annotations", json=box()),
        await world.owner.put(f"/annotations/{made['id']}", json={"label": "x"}),
        await world.owner.delete(f"/annotations/{made['id']}"),
    ):
        assert "is read-only" in message(answer, 400)
    assert (await world.owner.get(f"/annotations/{made['id']}")).json() == made


async def test_pages_of_an_item(world: World) -> None:
    item_id = await new_item(world)
    made = await annotate(world, item_id, [box(label=str(number)) for number in range(5)])
    pages = [
        (await world.owner.get(f"/items/{item_id}/annotations", params={"page": page, "pageSize": 2})).json()
        for page in range(4)
    ]
    assert [one for page in pages for one in page["items"]] == made
    assert [page["hasNextPage"] for page in pages] == [True, True, False, False]
    assert {page["totalItemsCount"] for page in pages} == {5}
    empty = (await world.owner.get(f"/items/{item_id}/annotations", params={"pageSize": 0})).json()
    assert (empty["items"], empty["totalItemsCount"], empty["hasNextPage"]) == ([], 5, False)


async def test_deleting_is_written_down(world: World) -> None:
    label = unique("label")
    made = await annotate(world, await new_item(world), box(label=label))
    await world.owner.delete(f"/annotations/{made['id']}")
    rows = await world.execute("SELECT action, details FROM audit WHERE target = %s", label)
    assert [(action, details["id"]) for action, details in rows] == [("annotation.deleted", made["id"])]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("NaN", "holds NaN or an infinite number"),
        ("[1e999]", "holds NaN or an infinite number"),
        ('{"b": -Infinity}', "holds NaN or an infinite number"),
        ("9" * 100, "more than 64 bits"),
        ('"\\ud800"', "half a surrogate pair"),
        ('{"\\u0000": 1}', "a NUL character"),
    ],
)
async def test_a_change_of_many_that_cannot_be_stored_is_refused_with_the_reason(
    world: World, value: str, told: str
) -> None:
    for part in ("user", "system"):
        body = (
            f'{{"resource": "annotations", "filter": {{}}, "systemSpace": true, '
            f'"update": {{"metadata": {{"{part}": {{"a": {value}}}}}}}}}'
        )
        answer = await world.owner.post(
            f"/datasets/{world.dataset_id}/query", content=body, headers={"content-type": "application/json"}
        )
        assert told in message(answer, 400)
