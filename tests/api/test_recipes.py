"""Recipes, ontologies, labels and attributes over HTTP: who may, what is refused, and nothing lost side by side."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from headwater.catalog import ontologies, projects
from tests.api.world import NOBODY, World, message, unique


def made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()


async def new_ontology(world: World, *tags: str, project_ids: list[str] | None = None) -> str:
    body = {"roots": [{"value": {"tag": tag}} for tag in tags], "projectIds": project_ids or [world.project_id]}
    return made(await world.owner.post("/ontologies", json=body))["id"]


async def new_recipe(world: World, *ontology_ids: str, project_ids: list[str] | None = None) -> str:
    body = {"title": unique("recipe"), "projectIds": project_ids or [world.project_id], "ontologyIds": ontology_ids}
    return made(await world.owner.post("/recipes", json=body))["id"]


async def labels_of(world: World, ontology_id: str) -> list[str]:
    """Full names."""

    def names(roots: list[dict[str, Any]], above: str) -> list[str]:
        return [
            name
            for root in roots
            for tag in [above + root["value"]["tag"]]
            for name in [tag, *names(root["children"], f"{tag}.")]
        ]

    return names(made(await world.owner.get(f"/ontologies/{ontology_id}"))["roots"], "")


async def test_lists_are_pages(world: World) -> None:
    ids = [await new_recipe(world) for _ in range(3)]
    url = f"/recipes?projects={world.project_id}&ids={','.join(ids)}&&pageOffset=%d&pageSize=2"
    first, second = [made(await world.owner.get(url % page)) for page in (0, 1)]
    assert [recipe["id"] for recipe in first["items"] + second["items"]] == ids
    assert [page["totalItemsCount"] for page in (first, second)] == [3, 3]
    assert [page["hasNextPage"] for page in (first, second)] == [True, False]
    assert made(await world.owner.get(f"/recipes?ids={ids[0]}&pageSize=0"))["totalItemsCount"] == 1
    for wrong in ("pageSize=x", "pageOffset=-1", "creator=me"):
        for noun in ("recipes", "ontologies"):
            message(await world.owner.get(f"/{noun}?{wrong}"), 400)
    message(await world.owner.get("/recipes?projects=x"), 404)


# Labels.


async def change(world: World, ontology_id: str, *nodes: Any, upsert: bool = True) -> httpx.Response:
    body = {"labelsNode": nodes, "upsert": upsert}
    return await world.owner.patch(f"/ontologies/{ontology_id}/labels", json=body)


async def test_labels_are_named_with_their_parents(world: World) -> None:
    ontology_id = await new_ontology(world, "fish", "v1.5")
    made(await change(world, ontology_id, {"tag": "fish.shark.white"}, {"tag": "v1.5.small"}, {"tag": "a.b"}))
    assert await labels_of(world, ontology_id) == [
        "fish", "fish.shark", "fish.shark.white", "v1.5", "v1.5.small", "a", "a.b"
    ]  # fmt: skip
    told = made(await change(world, ontology_id, {"tag": "fish", "color": "#010203", "children": [{"tag": "tuna"}]}))
    fish = told["roots"][0]
    assert fish["value"]["color"] == "#010203"
    assert [child["value"]["tag"] for child in fish["children"]] == ["shark", "tuna"]
    assert "to add it" in message(await change(world, ontology_id, {"tag": "cow"}, upsert=False), 404).lower()
    body = {"labelsNode": [{"tag": "cow"}, {"tag": "fish"}]}
    message(await world.owner.patch(f"/ontologies/{ontology_id}/addLabels", json=body), 409)
    assert "cow" not in await labels_of(world, ontology_id)
    made(await world.owner.patch(f"/ontologies/{ontology_id}/addLabels", json={"labelsNode": [{"tag": "cow"}]}))
    assert "cow" in await labels_of(world, ontology_id)


async def test_what_is_not_said_of_a_label_stays(world: World) -> None:
    ontology_id = await new_ontology(world)
    image = {"displayImage": {"itemId": "1"}}
    full = {
        "tag": "cat",
        "color": "#0a0b0c",
        "displayLabel": "Cat",
        "attributes": ["big"],
        "displayData": image,
        "x": 1,
    }
    made(await change(world, ontology_id, full))
    for node in ({"tag": "cat"}, {"tag": "cat", "displayData": {}, "color": None}):
        (root,) = made(await change(world, ontology_id, node))["roots"]
        assert root == {"value": full, "children": []}
    (root,) = made(await change(world, ontology_id, {"tag": "cat", "displayData": {"displayImage": None}}))["roots"]
    assert root["value"] == full | {"displayData": {}}


async def test_a_label_without_a_color_gets_the_same_everywhere(world: World) -> None:
    colors = set()
    for _ in range(2):
        ontology_id = await new_ontology(world, "cat", "dog")
        roots = made(await world.owner.get(f"/ontologies/{ontology_id}"))["roots"]
        colors.add(tuple(root["value"]["color"] for root in roots))
    assert len(colors) == 1
    assert len(set(*colors)) == 2


async def test_labels_added_side_by_side_are_all_there(world: World) -> None:
    ontology_id = await new_ontology(world)
    names = {f"label {number}" for number in range(20)}
    answers = await asyncio.gather(*(change(world, ontology_id, {"tag": name}) for name in sorted(names)))
    assert {answer.status_code for answer in answers} == {200}
    assert set(await labels_of(world, ontology_id)) == names


def root(tag: Any, *children: Any, **value: Any) -> dict[str, Any]:
    return {"value": {"tag": tag} | value, "children": list(children)}


def nested(levels: int) -> dict[str, Any]:
    made = root("x")
    for _ in range(levels - 1):
        made = root("x", made)
    return made


WRONG_ROOTS: list[tuple[Any, str]] = [
    ([root("a"), root("a")], "twice"),
    ([root("a", root("b"), root("b"))], "'a.b' is there twice"),
    ([root("a", root("b")), root("a.b")], "'a.b' is there twice"),
    ([root("")], "tag"),
    ([root("  ")], "tag"),
    ([root(None)], "tag"),
    ([root(5)], "tag"),
    ([root("x" * 1_001)], "1000 characters"),
    ([root("x" * 600, root("y" * 600))], "longer than 1000"),
    ([root("a\0")], "NUL"),
    ([root("a", color="red")], "#rrggbb"),
    ([root("a", color="#12345")], "#rrggbb"),
    ([root("a", color=[1, 2, 300])], "#rrggbb"),
    ([root("a", color=5)], "#rrggbb"),
    ([root("a", displayLabel=5)], "displayLabel"),
    ([root("a", displayData=[])], "displayData"),
    ([root("a", attributes={})], "attributes"),
    ([root("a") | {"children": {}}], "children"),
    (["a"], "looks like"),
    ([{"value": "a"}], "looks like"),
    ([nested(41)], "levels deep"),
    ([nested(60)], "levels deep"),
    ([root("a", displayData={"\0": 1})], "NUL"),
]


@pytest.mark.parametrize(("roots", "told"), WRONG_ROOTS)
async def test_labels_that_cannot_be_are_refused_and_nothing_changes(world: World, roots: Any, told: str) -> None:
    ontology_id = await new_ontology(world, "kept")
    body = {"roots": roots, "projectIds": [world.project_id]}
    assert told in message(await world.owner.post("/ontologies", json=body), 400)
    assert told in message(await world.owner.put(f"/ontologies/{ontology_id}", json={"roots": roots}), 400)
    assert await labels_of(world, ontology_id) == ["kept"]


async def test_hostile_bodies_end_in_a_sentence(world: World) -> None:
    ontology_id = await new_ontology(world, "kept")
    deep = '{"labelsNode": [' + '{"tag": "a", "children": [' * 5_000 + "]}" * 5_000 + "]}"
    wide = json.dumps({"labelsNode": [{"tag": f"{n}"} for n in range(50_001)], "upsert": True})
    large = json.dumps({"labelsNode": [{"tag": "a", "x": "y" * 8_000_001}], "upsert": True})
    surrogate = '{"labelsNode": [{"tag": "\\ud800"}], "upsert": true}'
    number = '{"labelsNode": [{"tag": "a", "x": ' + "9" * 1_000 + '}], "upsert": true}'
    for body in (deep, wide, large, surrogate, '{"labelsNode": [{"tag": "a", "x": NaN}], "upsert": true}'):
        answer = await world.owner.patch(
            f"/ontologies/{ontology_id}/labels", content=body, headers={"content-type": "application/json"}
        )
        message(answer, 400)
    answer = await world.owner.patch(
        f"/ontologies/{ontology_id}/labels", content=number, headers={"content-type": "application/json"}
    )
    assert answer.status_code in (200, 400)
    assert (await world.owner.get(f"/ontologies/{ontology_id}")).status_code == 200


async def test_an_ontology_grows_no_larger_than_can_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ontology_id = await new_ontology(world, "kept")
    monkeypatch.setattr(ontologies, "LARGEST_BYTES", 20_000)
    made(await change(world, ontology_id, {"tag": "first", "note": "x" * 15_000}))
    answer = await change(world, ontology_id, {"tag": "second", "note": "x" * 15_000})
    assert "20,000 are the most" in message(answer, 400)
    message(await attribute(world, ontology_id, key="1", title="t", type="freeText", note="x" * 15_000), 400)
    assert await labels_of(world, ontology_id) == ["kept", "first"]
    large = {"title": "large", "projectIds": [world.project_id], "roots": [root("a", note="x" * 20_000)]}
    message(await world.owner.post("/ontologies", json=large), 400)


async def test_a_description_of_a_recipe_has_an_end(world: World) -> None:
    recipe_id, body = await new_recipe(world), {"description": "x" * 100_001}
    message(await world.owner.patch(f"/recipes/{recipe_id}", json=body), 400)
    message(await world.owner.post("/recipes", json=body | {"projectIds": [world.project_id]}), 400)


async def test_five_thousand_labels_go(world: World) -> None:
    body = {"roots": [root(f"l{n}") for n in range(5_000)], "projectIds": [world.project_id]}
    ontology_id = made(await world.owner.post("/ontologies", json=body))["id"]
    made(await change(world, ontology_id, {"tag": "one more"}))
    assert len(await labels_of(world, ontology_id)) == 5_001


# Attributes.


async def attribute(world: World, ontology_id: str, upsert: bool = True, **given: Any) -> httpx.Response:
    body = {"items": [{"key": "1", "title": "One", "type": "boolean", "scope": ["*"]} | given], "upsert": upsert}
    return await world.owner.patch(f"/ontologies/{ontology_id}/attributes", json=body)


WRONG_ATTRIBUTES: list[tuple[dict[str, Any], str]] = [
    ({"key": ""}, "key"),
    ({"key": None}, "key"),
    ({"key": 5}, "key"),
    ({"title": "x" * 1_001}, "title"),
    ({"type": "colour"}, "no type 'colour'"),
    ({"type": None}, "no type"),
    ({"scope": []}, "scope"),
    ({"scope": "*"}, "scope"),
    ({"scope": [5]}, "texts"),
    ({"optional": "yes"}, "optional"),
    ({"multi": 1}, "multi"),
    ({"values": ["a"]}, "only the type options"),
    ({"range": {"min": 0, "max": 1, "step": 1}}, "only the type range"),
    ({"type": "options"}, "needs values"),
    ({"type": "options", "values": []}, "needs values"),
    ({"type": "options", "values": ["a", "a"]}, "twice"),
    ({"type": "options", "values": [1]}, "texts"),
    ({"type": "options", "values": ["\0"]}, "NUL"),
    ({"type": "options", "values": [str(n) for n in range(10_001)]}, "10,000"),
    ({"type": "range"}, "needs a range"),
    ({"type": "range", "range": {"min": 0, "max": 1}}, "looks like"),
    ({"type": "range", "range": {"min": "0", "max": 1, "step": 1}}, "looks like"),
    ({"type": "range", "range": {"min": True, "max": 1, "step": 1}}, "looks like"),
    ({"type": "range", "range": {"min": 1, "max": 1, "step": 1}}, "min is less than max"),
    ({"type": "range", "range": {"min": 0, "max": 1, "step": 0}}, "step more than 0"),
    ({"type": "range", "range": {"min": 0, "max": 1, "step": 2}}, "at most their difference"),
    ({"type": "range", "range": {"min": 0, "max": 10**400, "step": 1}}, "2^53"),
    ({"type": "range", "range": {"min": 0, "max": 1e300, "step": 1}}, "2^53"),
]


@pytest.mark.parametrize(("given", "told"), WRONG_ATTRIBUTES)
async def test_attributes_that_cannot_be_are_refused(world: World, given: dict[str, Any], told: str) -> None:
    ontology_id = await new_ontology(world)
    assert told in message(await attribute(world, ontology_id, **given), 400)
    assert made(await world.owner.get(f"/ontologies/{ontology_id}"))["metadata"]["attributes"] == []


async def test_an_attribute_keeps_what_is_not_said_anew(world: World) -> None:
    ontology_id = await new_ontology(world)
    made(await attribute(world, ontology_id, type="options", values=["a", "b"], multi=True, optional=False, x=1))
    made(await attribute(world, ontology_id, type="options", title="Eins"))
    (one,) = made(await attribute(world, ontology_id, key="1", type="options"))["metadata"]["attributes"]
    assert one == {
        "key": "1", "title": "One", "type": "options", "scope": ["*"], "values": ["a", "b"], "multi": True,
        "optional": False, "x": 1, "scriptData": {"title": "One", "optional": False},
    }  # fmt: skip
    (one,) = made(await attribute(world, ontology_id, type="boolean"))["metadata"]["attributes"]
    assert "values" not in one
    message(await attribute(world, ontology_id, upsert=False), 409)


async def test_a_whole_ontology_that_was_read_before_leaves_attributes_alone(world: World) -> None:
    ontology_id = await new_ontology(world, "cat")
    url = f"/ontologies/{ontology_id}"
    before = made(await world.owner.get(url))
    made(await attribute(world, ontology_id))
    told = made(await world.owner.put(url, json=before | {"title": "renamed", "roots": []}))
    assert [told["title"], told["roots"]] == ["renamed", []]
    assert [one["key"] for one in told["metadata"]["attributes"]] == ["1"]
    told["metadata"]["system"]["mine"] = 1
    kept = made(await world.owner.put(url, json=told))
    assert "mine" not in kept["metadata"]["system"]
    kept = made(await world.owner.put(f"{url}?system=true", json=told))
    assert kept["metadata"]["system"] == {"mine": 1, "projectIds": [world.project_id]}
    kept = made(await world.owner.put(f"{url}?system=true", json=before))
    assert kept["metadata"]["attributes"] == []


# Projects.


async def test_members_of_one_project_see_no_other(world: World) -> None:
    """Of what belongs to two, a member of one sees it, but not the other, and changes nothing."""
    other = await world.new_project()
    ontology_id = await new_ontology(world, "cat", project_ids=[world.project_id, other])
    recipe_id = await new_recipe(world, ontology_id, project_ids=[other, world.project_id])
    theirs = await new_recipe(world, project_ids=[other])
    developer = world.callers["developer"]
    for url in (f"/recipes/{recipe_id}", f"/ontologies/{ontology_id}"):
        assert made(await developer.get(url))["projectIds"] == [world.project_id]
        assert "no member of" in message(await developer.delete(url), 403)
        assert (await world.owner.get(url)).status_code == 200
    message(await developer.patch(f"/recipes/{recipe_id}", json={"title": "x"}), 403)
    message(await developer.patch(f"/ontologies/{ontology_id}/labels", json={"labelsNode": [{"tag": "x"}]}), 403)
    listed = made(await developer.get(f"/recipes?ids={recipe_id},{theirs}"))
    assert [(one["id"], one["projectIds"]) for one in listed["items"]] == [(recipe_id, [world.project_id])]
    assert made(await developer.get(f"/recipes?projects={other}"))["items"] == []
    assert made(await developer.get(f"/ontologies?projects={other}"))["totalItemsCount"] == 0
    clone = made(await developer.post(f"/recipes/{recipe_id}/clone", json={"shallow": False}))
    assert clone["projectIds"] == [world.project_id]
    assert clone["ontologyIds"] != [ontology_id]
    message(await developer.post("/recipes", json={"projectIds": [other]}), 404)
    mine = await new_ontology(world, "mine")
    hidden = await new_ontology(world, "hidden", project_ids=[other])
    body = {"projectIds": [world.project_id]}
    message(await developer.post("/recipes", json=body | {"ontologyIds": [hidden]}), 404)
    body = {"projectIds": [world.project_id, other], "ontologyIds": [mine]}
    assert "does not belong to the project" in message(await world.owner.post("/recipes", json=body), 400)
    dataset = f"/datasets/{world.dataset_id}?system=true"
    message(await developer.patch(dataset, json={"metadata": {"system": {"recipes": [theirs]}}}), 404)
    told = message(await world.owner.patch(dataset, json={"metadata": {"system": {"recipes": [theirs]}}}), 400)
    assert "other projects" in told


async def test_projects_are_added_and_left_as_long_as_nothing_needs_them(world: World) -> None:
    other = await world.new_project()
    ontology_id = await new_ontology(world, "cat")
    recipe_id = await new_recipe(world, ontology_id)
    both = [world.project_id, other]
    recipe, ontology = f"/recipes/{recipe_id}", f"/ontologies/{ontology_id}?system=true"
    message(await world.owner.patch(recipe, json={"projectIds": both}), 400)
    made(await world.owner.put(ontology, json={"metadata": {"system": {"projectIds": both}}}))
    assert made(await world.owner.patch(recipe, json={"projectIds": both}))["projectIds"] == both
    body = {"name": unique("far"), "projects": [other], "createDefaultRecipe": False}
    far = made(await world.owner.post("/datasets", json=body))
    assert far["metadata"]["system"]["recipes"] == []
    url = f"/datasets/{far['id']}?system=true"
    made(await world.owner.patch(url, json={"metadata": {"system": {"recipes": [recipe_id]}}}))
    assert "'far" in message(await world.owner.patch(recipe, json={"projectIds": [world.project_id]}), 409)
    leave = {"metadata": {"system": {"projectIds": [world.project_id]}}}
    message(await world.owner.put(ontology, json=leave), 409)
    made(await world.owner.patch(url, json={"metadata": {"system": {"recipes": []}}}))
    made(await world.owner.patch(recipe, json={"projectIds": [world.project_id]}))
    made(await world.owner.put(ontology, json=leave))
    for wrong in ([], [NOBODY], ["x"], "x", [5]):
        assert (await world.owner.patch(recipe, json={"projectIds": wrong})).status_code in (400, 404)


async def test_what_a_project_has_goes_with_it_unless_others_have_it_too(world: World) -> None:
    doomed = await world.new_project()
    alone = await new_ontology(world, project_ids=[doomed])
    shared = await new_ontology(world, project_ids=[doomed, world.project_id])
    recipe_id = await new_recipe(world, alone, project_ids=[doomed])
    assert (await world.owner.delete(f"/projects/{doomed}")).status_code == 200
    for url in (f"/ontologies/{alone}", f"/recipes/{recipe_id}"):
        message(await world.owner.get(url), 404)
    number = int(doomed, 16)
    await world.execute("DELETE FROM dataset WHERE project_id = %s", number)
    async with world.pool.connection() as conn:
        await projects.forget_project(conn, number)
    left = await world.execute("SELECT id FROM ontology WHERE project_ids @> ARRAY[%s]::bigint[]", number)
    assert [f"{found:024x}" for (found,) in left] == [shared]
    assert await world.execute("SELECT FROM recipe WHERE project_ids @> ARRAY[%s]::bigint[]", number) == []
    assert made(await change(world, shared, {"tag": "still"}))["projectIds"] == [world.project_id]


async def test_deletes_of_what_is_in_use_are_refused_and_recorded_when_forced(world: World) -> None:
    dataset_id = await world.new_dataset()
    recipe_id = made(await world.owner.get(f"/datasets/{dataset_id}"))["metadata"]["system"]["recipes"][0]
    ontology_id = made(await world.owner.get(f"/recipes/{recipe_id}"))["ontologyIds"][0]
    assert "in use by 1 dataset" in message(await world.owner.delete(f"/recipes/{recipe_id}"), 409)
    assert "in use by 1 recipe" in message(await world.owner.delete(f"/ontologies/{ontology_id}"), 409)
    made(await world.owner.delete(f"/ontologies/{ontology_id}?force=true"))
    assert made(await world.owner.get(f"/recipes/{recipe_id}"))["ontologyIds"] == []
    made(await world.owner.delete(f"/recipes/{recipe_id}?force=true"))
    assert made(await world.owner.get(f"/datasets/{dataset_id}"))["metadata"]["system"]["recipes"] == []
    log = made(await world.owner.get(f"/orgs/{world.organization_id}/audit"))
    lines = {(line["action"], line["details"]["id"]) for line in log if "id" in line["details"]}
    assert {("recipe.deleted", recipe_id), ("ontology.deleted", ontology_id)} <= lines


async def test_a_deletion_is_told_to_each_project_with_its_own_datasets_alone(world: World) -> None:
    other = await world.new_project()
    both = [world.project_id, other]
    ontology_id = await new_ontology(world, "cat", project_ids=both)
    recipe_id = await new_recipe(world, ontology_id, project_ids=both)
    names: dict[str, str] = {}
    for project_id in both:
        dataset_id = await world.new_dataset(projects=[project_id])
        names[project_id] = made(await world.owner.get(f"/datasets/{dataset_id}"))["name"]
        body = {"metadata": {"system": {"recipes": [recipe_id]}}}
        made(await world.owner.patch(f"/datasets/{dataset_id}?system=true", json=body))
    made(await world.owner.delete(f"/recipes/{recipe_id}?force=true"))
    made(await world.owner.delete(f"/ontologies/{ontology_id}"))
    for action, target_id, datasets in (("recipe", recipe_id, names), ("ontology", ontology_id, {})):
        lines = await world.execute(
            "SELECT project_id, details -> 'datasets' FROM audit WHERE action = %s AND details ->> 'id' = %s",
            f"{action}.deleted",
            target_id,
        )
        told = {f"{project_id:024x}": listed for project_id, listed in lines}
        assert told == {one: [datasets[one]] if datasets else None for one in both}


async def test_a_recipe_switched_to_while_it_is_deleted_is_never_named_by_a_dataset(world: World) -> None:
    for _ in range(10):
        recipe_id, dataset_id = await new_recipe(world), await world.new_dataset()
        body = {"metadata": {"system": {"recipes": [recipe_id]}}}
        switched, deleted = await asyncio.gather(
            world.owner.patch(f"/datasets/{dataset_id}?system=true", json=body),
            world.owner.delete(f"/recipes/{recipe_id}"),
        )
        named = made(await world.owner.get(f"/datasets/{dataset_id}"))["metadata"]["system"]["recipes"]
        assert (switched.status_code, deleted.status_code) in [(200, 409), (404, 200)]
        assert (recipe_id in named) == (switched.status_code == 200)


async def test_the_recipe_of_a_dataset_is_not_changed_without_system(world: World) -> None:
    dataset_id, recipe_id = await world.new_dataset(), await new_recipe(world)
    url = f"/datasets/{dataset_id}"
    before = made(await world.owner.get(url))
    told = made(await world.owner.patch(url, json={"metadata": {"system": {"recipes": [recipe_id]}}}))
    assert told["metadata"] == before["metadata"]
    for wrong in ("x", [5], {}, [recipe_id] * 2 + [NOBODY]):
        answer = await world.owner.patch(f"{url}?system=true", json={"metadata": {"system": {"recipes": wrong}}})
        assert answer.status_code in (400, 404)
    many = [await new_recipe(world) for _ in range(11)]
    message(await world.owner.patch(f"{url}?system=true", json={"metadata": {"system": {"recipes": many}}}), 400)
    told = made(await world.owner.patch(f"{url}?system=true", json={"metadata": {"system": {"kept": 1}}}))
    assert told["metadata"]["system"] == {"kept": 1, "recipes": before["metadata"]["system"]["recipes"]}
