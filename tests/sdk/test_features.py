"""Feature sets, vectors and searches by similarity, as scripts use them."""

from typing import Any


def test_vectors_of_items(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import io
        project = dl.projects.create("features")
        dataset = project.datasets.create("features")
        items = [dataset.items.upload(local_path=io.BytesIO(b"text"), remote_name=f"{x}{y}.txt", remote_path=f"/{x}")
                 for x in range(4) for y in range(4)]
        feature_set = project.feature_sets.create(
            name="places", size=2, set_type="embeddings", entity_type=dl.FeatureEntityType.ITEM)
        twice = error_of(project.feature_sets.create, name="places", size=2, set_type="x", entity_type="item")
        one = feature_set.features.create(value=[0, 0.5], entity=items[0])
        many = feature_set.features.create(
            value=[[int(item.name[0]), int(item.name[1])] for item in items], entity=items)
        again = project.feature_sets.get(feature_set_name="places")
        by_id = project.feature_sets.get(feature_set_id=feature_set.id)
        none = error_of(project.feature_sets.get, feature_set_name="nothing")
        listed = [entity.name for entity in project.feature_sets.list().all()]
        of_dataset = [entity.name for entity in dataset.feature_sets.list().all()]
        of_item = [(feature.entity_id == items[5].id, feature.value) for feature in items[5].features.list().all()]
        of_set = [feature.value for feature in again.features.list().all()]
        filters = dl.Filters(resource=dl.FiltersResource.FEATURE, page_size=3)
        filters.add(field="datasetId", values=dataset.id)
        paged = [feature.id for feature in project.features.list(filters=filters).all()]
        fetched = project.features.get(feature_id=many[3].id).value

        def nearest(euclid, conditions=(), k=3):
            custom_filter = {
                "filter": {"$and": [{"hidden": False}, {"type": "file"}, *conditions]}, "page": 0, "pageSize": k,
                "resource": "items",
                "join": {"on": {"resource": "feature_vectors", "local": "entityId", "forigen": "id"},
                         "filter": {"value": {"$euclid": euclid}, "featureSetId": feature_set.id}}}
            pages = dataset.items.list(filters=dl.Filters(
                custom_filter=custom_filter, resource=dl.FiltersResource.ITEM))
            return [pages.items_count, [item.name for item in pages.items]]

        ascending = {"eu_dist": "ascending"}
        near = nearest({"input": [1.1, 2.2], "$euclidSort": ascending})
        inside = nearest({"input": [1.1, 2.2], "$euclidSort": ascending}, [{"dir": "/3"}])
        within = nearest({"input": [0, 0], "$euclidFilter": {"$lte": 1}, "$euclidSort": ascending}, k=10)
        near_one = nearest({"input": many[-1].id, "$euclidSort": ascending})
        again.name = "other places"
        renamed = again.update().name
        wrong = error_of(feature_set.features.create, value=[1, 2, 3], entity=items[0])
        many[0].delete()
        left = again.features.list().items_count
        items[1].delete()
        left_then = again.features.list().items_count
        again.delete()
        gone = error_of(project.feature_sets.get, feature_set_id=feature_set.id)
        answer(twice=twice, one=one.value, kept=one.id == many[0].id, many=len(many), by_id=by_id.size, none=none,
               listed=listed, of_dataset=of_dataset, of_item=of_item, of_set=of_set, near=near, inside=inside,
               paged=[len(paged), len(set(paged))], fetched=fetched, within=within, near_one=near_one, renamed=renamed,
               wrong=wrong, left=[left, left_then], gone=gone, type=[again.set_type, again.entity_type])
        """
    )
    assert "already" in found["twice"][1]
    assert (found["one"], found["kept"], found["many"], found["by_id"]) == ([0, 0.5], True, 16, 2)
    assert found["none"][0] == "NotFound"
    assert found["listed"] == ["places"] == found["of_dataset"]
    assert found["of_item"] == [[True, [1, 1]]]
    assert found["of_set"] == [[x, y] for x in range(4) for y in range(4)]
    assert found["paged"] == [16, 16]
    assert found["fetched"] == [0, 3]
    assert found["near"] == [16, ["12.txt", "13.txt", "22.txt"]]
    assert found["inside"] == [4, ["32.txt", "33.txt", "31.txt"]]
    assert found["within"] == [3, ["00.txt", "01.txt", "10.txt"]]
    assert found["near_one"][1][0] == "33.txt"
    assert found["renamed"] == "other places"
    assert "3 numbers" in found["wrong"][1]
    assert found["left"] == [15, 14]
    assert found["gone"][0] == "NotFound"
    assert found["type"] == ["embeddings", "item"]


def test_vectors_go_along_in_exports_and_large_sets_have_an_index(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import io
        project = dl.projects.create("exported features")
        dataset = project.datasets.create("exported features")
        items = [dataset.items.upload(local_path=io.BytesIO(b"text"), remote_name=f"{x}.txt") for x in range(3)]
        sets = [project.feature_sets.create(name=f"set {n}", size=2, set_type="x", entity_type="item") for n in (1, 2)]
        sets[0].features.create(value=[[n, 0.5] for n in range(3)], entity=items)
        sets[1].features.create(value=[9, 9], entity=items[1])

        def exported(**options):
            path = dataset.export(local_path=".", **options)
            with open(path) as file:
                return {entry["filename"]: entry.get("itemVectors") for entry in json.load(file)}

        plain, all_of_them = exported(), exported(include_feature_vectors=True)
        of_one = exported(include_feature_vectors=True, feature_vector_filters=dl.Filters(
            resource=dl.FiltersResource.FEATURE, field="featureSetId", values=sets[1].id))
        answered = dl.client_api.gen_request(
            req_type="post", path=f"/features/sets/{sets[0].id}/index", json_req={"metric": "cosine"})[1].json()
        command = dl.Command.from_json(answered, dl.client_api).wait()
        near = dl.client_api.gen_request(
            req_type="post", path=f"/datasets/{dataset.id}/items/similar",
            json_req={"featureSetId": sets[0].id, "vector": [1, 0], "metric": "cosine", "limit": 2})[1].json()
        answer(plain=plain, all=all_of_them, of_one=of_one, ids=[one.id for one in sets], dataset=dataset.id,
               status=command.status, near=[one["item"]["name"] for one in near["items"]])
        """
    )
    first, second = found["ids"]

    def entry(set_id: str, *value: float) -> dict[str, Any]:
        return {"datasetId": found["dataset"], "featureSetId": set_id, "value": list(value)}

    assert found["plain"] == dict.fromkeys(["/0.txt", "/1.txt", "/2.txt"])
    assert found["all"]["/0.txt"] == [entry(first, 0, 0.5)]
    assert found["all"]["/1.txt"] == [entry(first, 1, 0.5), entry(second, 9, 9)]
    assert found["of_one"] == {"/0.txt": [], "/1.txt": [entry(second, 9, 9)], "/2.txt": []}
    assert found["status"] == "success"
    assert found["near"] == ["2.txt", "1.txt"]
