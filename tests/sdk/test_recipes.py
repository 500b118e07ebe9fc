"""Recipes, ontologies, labels and attributes as scripts use them."""

from typing import Any


def test_every_dataset_has_labels_that_scripts_add_change_and_delete(run_sdk: Any) -> None:
    found = run_sdk(
        """
        project = dl.projects.create("labels")
        dataset = project.datasets.create("labels")
        first = [label.tag for label in dataset.labels]
        dataset.add_label("person", color=(34, 6, 231), attributes=["big", "small"])
        dataset.add_labels(["car", "bus"])
        dataset.add_label("fish", children=[{"label_name": "shark", "color": (4, 5, 6),
                                             "children": [{"label_name": "white"}]}])
        dataset.add_label("bird.owl", display_label="Owl")
        dataset.add_labels([dl.Label(tag="tree", color="#0a0b0c", children=[dl.Label(tag="oak")])])
        ontology = dl.datasets.get(dataset_id=dataset.id).ontologies.list()[0]
        added = {name: label.color for name, label in ontology.labels_flat_dict.items()}
        display = ontology.labels_flat_dict["bird.owl"].display_label
        attributes = ontology.labels_flat_dict["person"].attributes
        dataset.update_label("person", color=(1, 2, 3), display_label="A person")
        unknown = error_of(dataset.update_label, "nobody", color=(1, 2, 3))
        dataset.update_label("somebody", color=(7, 8, 9), upsert=True)
        dataset.update_labels([dl.Label(tag="fish.shark", color="#ffffff")])
        dataset.delete_labels(["car", "bird.owl"])
        after = dl.datasets.get(dataset_id=dataset.id)
        flat = {name: label.color for name, label in after.labels_flat_dict.items()}
        answer(first=first, added=added, display=display, attributes=attributes, unknown=unknown, flat=flat,
               map=after.instance_map, recipes=len(after.metadata["system"]["recipes"]),
               title=after.recipes.list()[0].title)
        """
    )
    assert found["first"] == []
    names = {"person", "car", "bus", "fish", "fish.shark", "fish.shark.white", "bird", "bird.owl", "tree", "tree.oak"}
    assert found["added"].keys() == names
    assert found["added"]["person"] == "#2206e7"
    assert found["added"]["fish.shark"] == "#040506"
    assert all(len(color) == 7 and color[0] == "#" for color in found["added"].values())
    assert found["display"] == "Owl"
    assert found["attributes"] == ["big", "small"]
    assert "nobody" in found["unknown"][1]
    assert found["flat"].keys() == names - {"car", "bird.owl"} | {"somebody"}
    assert found["flat"]["person"] == "#010203"
    assert found["flat"]["fish.shark"] == "#ffffff"
    assert found["map"] == {name: number for number, name in enumerate(sorted(found["flat"]), 1)}
    assert found["recipes"] == 1
    assert found["title"] == "labels Default Recipe"


def test_datasets_are_made_with_labels_attributes_ontologies_and_recipes(run_sdk: Any) -> None:
    found = run_sdk(
        """
        project = dl.projects.create("made with recipes")
        labels = [dl.Label(tag="cat", color=(1, 2, 3), children=[dl.Label(tag="kitten", color="#000001")])]
        with_labels = project.datasets.create("with labels", labels=labels, attributes=["old", "young"])
        recipe = with_labels.recipes.list()[0]
        with_recipe = project.datasets.create("with recipe", recipe_id=recipe.id)
        with_ontology = project.datasets.create("with ontology", ontology_ids=recipe.ontology_ids)
        again = dl.datasets.get(dataset_id=with_labels.id)
        other = project.datasets.create("other")
        before = other.metadata["system"]["recipes"]
        other.switch_recipe(recipe=recipe)
        strangers = dl.projects.create("strangers").datasets.create("strangers")
        foreign = error_of(strangers.switch_recipe, recipe_id=recipe.id)
        answer(recipe=recipe.id, flat=list(again.labels_flat_dict), attributes=again.ontologies.list()[0].attributes,
               shared=dl.datasets.get(dataset_id=with_recipe.id).metadata["system"]["recipes"],
               labels=[label.tag for label in dl.datasets.get(dataset_id=with_recipe.id).labels],
               ontologies=dl.datasets.get(dataset_id=with_ontology.id).ontology_ids, mine=recipe.ontology_ids,
               own=dl.datasets.get(dataset_id=with_ontology.id).metadata["system"]["recipes"],
               switched=[before, dl.datasets.get(dataset_id=other.id).metadata["system"]["recipes"]],
               foreign=foreign)
        """
    )
    assert found["flat"] == ["cat", "cat.kitten"]
    assert found["attributes"] == ["old", "young"]
    assert found["shared"] == [found["recipe"]]
    assert found["labels"] == ["cat"]
    assert found["ontologies"] == found["mine"]
    assert found["own"] != [found["recipe"]]
    assert found["switched"][0] != found["switched"][1] == [found["recipe"]]
    assert found["foreign"][0] == "BadRequest"
    assert "other projects" in found["foreign"][1]


def test_attributes_are_added_changed_and_deleted(run_sdk: Any) -> None:
    found = run_sdk(
        """
        dataset = dl.projects.create("attributes").datasets.create("attributes")
        dataset.update_attributes(key="1", title="Weather", attribute_type=dl.AttributesTypes.CHECKBOX,
                                  values=["sun", "rain"], scope=["car"])
        dataset.update_attributes(key="2", title="Light", attribute_type=dl.AttributesTypes.RADIO_BUTTON,
                                  values=["day", "night"], optional=False)
        dataset.update_attributes(key="3", title="Speed", attribute_type=dl.AttributesTypes.SLIDER,
                                  attribute_range=dl.AttributesRange(0, 10, 0.5))
        dataset.update_attributes(key="4", title="Broken", attribute_type=dl.AttributesTypes.YES_NO)
        dataset.update_attributes(key="5", title="Notes", attribute_type=dl.AttributesTypes.FREE_TEXT)
        def asked():
            ontology = dl.datasets.get(dataset_id=dataset.id).ontologies.list()[0]
            return {one["key"]: one for one in ontology.attributes}
        first = asked()
        dataset.update_attributes(key="1", title="Wetter", attribute_type=dl.AttributesTypes.CHECKBOX, values=["snow"])
        none = error_of(dataset.update_attributes, key="6", title="None", attribute_type=dl.AttributesTypes.CHECKBOX)
        turned = error_of(dataset.update_attributes, key="3", title="Speed", attribute_type=dl.AttributesTypes.SLIDER,
                          attribute_range=dl.AttributesRange(10, 0, 1))
        kind = error_of(dataset.update_attributes, key="7", title="Kind", attribute_type="colour")
        ontology = dl.datasets.get(dataset_id=dataset.id).ontologies.list()[0]
        ontology.delete_attributes(keys=["4", "5"])
        unknown = error_of(ontology.delete_attributes, keys=["1", "no such key"])
        dataset.add_label("car")
        dataset.delete_labels("car")
        last = asked()

        copy = dl.datasets.get(dataset_id=dataset.id).project.datasets.create("copied attributes")
        source = dl.datasets.get(dataset_id=dataset.id)
        source.add_label("van.small", color=(1, 2, 3))
        source = dl.datasets.get(dataset_id=dataset.id).ontologies.list()[0]
        copy.ontologies.list()[0].copy_from(source.to_json())
        target = dl.datasets.get(dataset_id=copy.id).ontologies.list()[0]
        answer(first=first, last=last, none=none, turned=turned, kind=kind, unknown=unknown,
               copied=[one["key"] for one in target.attributes], labels=list(target.labels_flat_dict))
        """
    )
    first = found["first"]
    assert {key: (one["title"], one["type"]) for key, one in first.items()} == {
        "1": ("Weather", "options"),
        "2": ("Light", "options"),
        "3": ("Speed", "range"),
        "4": ("Broken", "boolean"),
        "5": ("Notes", "freeText"),
    }
    assert [first["1"]["multi"], first["1"]["scope"], first["1"]["values"]] == [True, ["car"], ["sun", "rain"]]
    assert [first["2"]["multi"], first["2"]["scope"], first["2"]["optional"]] == [False, ["*"], False]
    assert first["3"]["range"] == {"min": 0, "max": 10, "step": 0.5}
    assert [found["last"]["1"]["title"], found["last"]["1"]["values"]] == ["Wetter", ["snow"]]
    assert list(found["last"]) == ["1", "2", "3"]
    assert found["none"][0] == found["turned"][0] == found["kind"][0] == "BadRequest"
    assert "needs values" in found["none"][1]
    assert "min is less than max" in found["turned"][1]
    assert "no type 'colour'" in found["kind"][1]
    assert "no such key" in found["unknown"][1]
    assert found["copied"] == ["1", "2", "3"]
    assert found["labels"] == ["van", "van.small"]


def test_recipes_and_ontologies_are_listed_cloned_and_deleted(run_sdk: Any) -> None:
    found = run_sdk(
        """
        project = dl.projects.create("recipes")
        dataset = project.datasets.create("recipes")
        dataset.add_label("cat")
        recipe = dataset.recipes.list()[0]
        made = project.recipes.create(recipe_name="second", labels=[dl.Label(tag="dog", color="#111111")])
        listed = [one.title for one in project.recipes.list().all()]
        of_ontology = [one.id for one in project.ontologies.get(made.ontology_ids[0]).recipe.project.recipes.list(
            filters=dl.Filters(resource="recipe", field="ontologies", values=made.ontology_ids[0])).all()]
        ontologies = len(project.ontologies.list())
        shallow, deep = recipe.clone(shallow=True), recipe.clone()
        deep_labels = list(deep.ontologies.list()[0].labels_flat_dict)
        deep.title, deep.description, deep.metadata["mine"] = "deep", "told", 1
        deep.update()
        deep.metadata["system"]["instructionDocument"] = {"itemId": "x"}
        deep.update(system_metadata=True)
        deep = dl.recipes.get(recipe_id=deep.id)
        used = error_of(recipe.delete)
        used_ontology = error_of(dl.ontologies.delete, recipe.ontology_ids[0])
        extra = made.ontologies.create(labels=[dl.Label(tag="fox", color="#222222")], title="foxes")
        with_extra = dl.recipes.get(recipe_id=made.id).ontology_ids
        foxes = dl.ontologies.get(ontology_id=extra.id)
        foxes.title = "all foxes"
        foxes.add_label("arctic", color=(1, 1, 1))
        foxes.update()
        foxes = dl.ontologies.get(ontology_id=extra.id)
        deleted = made.delete() and dl.ontologies.delete(made.ontology_ids[0])
        gone = error_of(dl.recipes.get, recipe_id=made.id)
        forced = recipe.delete(force=True)
        lone = error_of(lambda: dl.datasets.get(dataset_id=dataset.id).labels)
        new = dl.datasets.get(dataset_id=dataset.id).recipes.create(labels=[dl.Label(tag="new", color="#010101")])
        answer(listed=listed, of_ontology=of_ontology, made=made.id, ontologies=ontologies, deep_labels=deep_labels,
               shared=[shallow.ontology_ids == recipe.ontology_ids, deep.ontology_ids == recipe.ontology_ids],
               deep=[deep.title, deep.description, deep.metadata], used=used, used_ontology=used_ontology,
               with_extra=len(with_extra), foxes=[foxes.title, list(foxes.labels_flat_dict)], deleted=deleted,
               gone=gone, forced=forced, lone=lone,
               relabelled=list(dl.datasets.get(dataset_id=dataset.id).labels_flat_dict))
        """
    )
    assert found["listed"] == ["recipes Default Recipe", "second"]
    assert found["of_ontology"] == [found["made"]]
    assert found["ontologies"] == 2
    assert found["shared"] == [True, False]
    assert found["deep_labels"] == ["cat"]
    assert found["deep"] == ["deep", "told", {"mine": 1, "system": {"instructionDocument": {"itemId": "x"}}}]
    assert found["used"][0] == found["used_ontology"][0] == "Conflict"
    assert "in use by 1 dataset: 'recipes'" in found["used"][1]
    assert "in use by" in found["used_ontology"][1]
    assert found["with_extra"] == 2
    assert found["foxes"] == ["all foxes", ["fox", "arctic"]]
    assert found["deleted"] is True
    assert found["gone"][0] == "NotFound"
    assert found["forced"] is True
    assert "no recipe" in found["lone"][1]
    assert found["relabelled"] == ["new"]


def test_clones_share_recipes_and_merges_have_the_labels_of_all(run_sdk: Any) -> None:
    found = run_sdk(
        """
        project = dl.projects.create("cloned recipes")
        first, second = (project.datasets.create(name) for name in ("first", "second"))
        first.add_labels(["cat", "fish.shark"])
        second.add_label("fish.tuna", color=(9, 9, 9))
        second.update_attributes(key="1", title="Big", attribute_type=dl.AttributesTypes.YES_NO)
        clone = first.clone("clone")
        project.datasets.merge("same", dataset_ids=[first.id, clone.id], project_ids=[project.id])
        project.datasets.merge("both", dataset_ids=[first.id, second.id], project_ids=[project.id])
        same, both = (project.datasets.get(dataset_name=name) for name in ("same", "both"))
        answer(recipe=first.metadata["system"]["recipes"], clone=clone.metadata["system"]["recipes"],
               same=same.metadata["system"]["recipes"], both=sorted(both.labels_flat_dict),
               attributes=[one["key"] for one in both.ontologies.list()[0].attributes],
               left=sorted(dl.datasets.get(dataset_id=first.id).labels_flat_dict))
        """
    )
    assert found["clone"] == found["same"] == found["recipe"]
    assert found["both"] == ["cat", "fish", "fish.shark", "fish.tuna"]
    assert found["attributes"] == ["1"]
    assert found["left"] == ["cat", "fish", "fish.shark"]


def test_a_schema_is_read_and_paths_are_left_out_of_searching(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import io
        dataset = dl.projects.create("sdk schema").datasets.create("sdk schema")
        for number in range(3):
            dataset.items.upload(local_path=io.BytesIO(b"text"), remote_name=f"{number}.txt",
                                 item_metadata={"user": {"camera": number, "embedding": [0.5] * 3}})
        paths = {path["path"]: path for path in dataset.schema.get()["paths"]}
        added = dataset.schema.unsearchable_paths.add(paths=["metadata.user.embedding"])
        after = {path["path"]: path["isSearchable"] for path in dataset.schema.get()["paths"]}
        by_camera = dl.Filters(field="metadata.user.camera", values=2)
        by_embedding = dl.Filters(field="metadata.user.embedding", values=0.5)
        seen = [dataset.items.list(filters=one).items_count for one in (by_camera, by_embedding)]
        removed = dataset.schema.unsearchable_paths.remove(paths=["metadata.user.embedding"])
        again = dataset.items.list(filters=by_embedding).items_count
        wrong = error_of(dataset.schema.unsearchable_paths.add, paths=["name"])
        answer(camera=paths["metadata.user.camera"], added=added, after=after, seen=seen, removed=removed,
               again=again, wrong=wrong)
        """
    )
    assert found["camera"]["types"] == {"integer": 3}
    assert found["camera"]["items"] == 3
    assert found["added"] is found["removed"] is True
    assert found["after"]["metadata.user.embedding"] is False
    assert found["after"]["metadata.user.camera"] is True
    assert found["seen"] == [1, 0]
    assert found["again"] == 3
    assert found["wrong"][0] == "BadRequest"


def test_descriptions_are_set_searched_and_taken_away(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import io
        dataset = dl.projects.create("descriptions").datasets.create("descriptions")
        first, second = [
            dataset.items.upload(local_path=io.BytesIO(b"text"), remote_name=f"{number}.txt", **more)
            for number, more in enumerate([{}, {"item_description": "A second frost, 霜"}])]
        uploaded = [first.description, second.description]
        first.set_description("The first frost of the year")
        get = lambda item: dl.items.get(item_id=item.id)
        described = get(first).description
        def named(value):
            return filenames(dataset.items.list(filters=dl.Filters(field="description", values=value)))
        both, one, exact = named("*frost*"), named("*霜*"), named("The first frost of the year")
        some = filenames(dataset.items.list(filters=dl.Filters(field="description", values=True, operator="exists")))
        get(second).set_description(None)
        second = get(second)
        first = get(first)
        first.description = "Set as an attribute"
        left = filenames(dataset.items.list(filters=dl.Filters(field="description", values=True, operator="exists")))
        long = error_of(first.set_description, "x" * 100_001)
        copy = first.clone(dst_dataset_id=dataset.id, remote_filepath="/copy.txt")
        answer(uploaded=uploaded, described=described, both=both, one=one, exact=exact, some=some,
               gone=[second.description, second.to_json().get("description")], left=left,
               attribute=get(first).description, long=long, copy=copy.description)
        """
    )
    assert found["uploaded"] == [None, "A second frost, 霜"]
    assert found["described"] == "The first frost of the year"
    assert found["both"] == found["some"] == ["/0.txt", "/1.txt"]
    assert found["one"] == ["/1.txt"]
    assert found["exact"] == ["/0.txt"]
    assert found["gone"] == [None, None]
    assert found["left"] == ["/0.txt"]
    assert found["attribute"] == found["copy"] == "Set as an attribute"
    assert found["long"][0] == "BadRequest"


def test_modalities_are_kept_listed_and_deleted(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import io
        dataset = dl.projects.create("modalities").datasets.create("modalities")
        item, other = [dataset.items.upload(local_path=io.BytesIO(b"text"), remote_name=name)
                       for name in ("item.txt", "other.txt")]
        item.modalities.create(name="thermal", ref=other.id, modality_type=dl.ModalityTypeEnum.OVERLAY,
                               timestamp="2024-01-01T00:00:00.000Z", mimetype="text/plain")
        item.modalities.create(name="web", ref="https://example.com/x.png", ref_type=dl.ModalityRefTypeEnum.URL,
                               modality_type=dl.ModalityTypeEnum.REPLACE)
        item.update(system_metadata=True)
        item = dl.items.get(item_id=item.id)
        listed = [modality.to_json() for modality in item.modalities.list()]
        by_ref = filenames(dataset.items.list(
            filters=dl.Filters(field="metadata.system.modalities.ref", values=other.id)))
        item.modalities.delete("thermal")
        item.update(system_metadata=True)
        answer(listed=listed, other=other.id, by_ref=by_ref,
               left=[modality.name for modality in dl.items.get(item_id=item.id).modalities.list()],
               none=dl.items.get(item_id=other.id).modalities.list())
        """
    )
    assert found["listed"] == [
        {
            "type": "overlay",
            "ref": found["other"],
            "refType": "id",
            "name": "thermal",
            "timestamp": "2024-01-01T00:00:00.000Z",
            "mimetype": "text/plain",
        },
        {"type": "replace", "ref": "https://example.com/x.png", "refType": "url", "name": "web"},
    ]
    assert found["by_ref"] == ["/item.txt"]
    assert found["left"] == ["web"]
    assert found["none"] == []


def test_instructions_and_icons_are_kept_in_the_binaries_of_the_project(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import pathlib
        pathlib.Path("how.pdf").write_bytes(b"%PDF-1.4 how")
        pathlib.Path("cat.png").write_bytes(b"no picture, but a file")
        project = dl.projects.create("instructed")
        dataset = project.datasets.create("instructed")
        recipe = dataset.recipes.list()[0]
        recipe.add_instruction("how.pdf")
        document = dl.recipes.get(recipe_id=recipe.id).metadata["system"]["instructionDocument"]
        dataset.add_label("cat", icon_path="cat.png")
        dataset.update_label("cat", color=(1, 2, 3))
        label = dl.datasets.get(dataset_id=dataset.id).labels[0]
        image = label.display_data["displayImage"]
        items = [dl.items.get(item_id=one["itemId"]) for one in (document, image)]
        answer(contents=[item.download(save_locally=False).read().decode() for item in items],
               datasets=[item.dataset.name for item in items], color=label.color,
               left=[root.tag for root in dl.datasets.get(dataset_id=dataset.id).labels])
        """
    )
    assert found["contents"] == ["%PDF-1.4 how", "no picture, but a file"]
    assert found["datasets"] == ["Binaries", "Binaries"]
    assert found["color"] == "#010203"
    assert found["left"] == ["cat"]
