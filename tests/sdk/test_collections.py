"""Collections and subsets for training, as scripts use them."""

from typing import Any


def test_collections_of_a_dataset(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import io
        dataset = dl.projects.create("collections").datasets.create("collections")
        for number in range(5):
            dataset.items.upload(local_path=io.BytesIO(b"text"), remote_name=f"{number}.txt",
                                 remote_path="/a" if number % 2 else "/b")
        made = dataset.collections.create(name="best")
        twice = error_of(dataset.collections.create, name="best")
        renamed = dataset.collections.update(collection_name="best", new_name="very best/of & all")
        item = dataset.items.get(filepath="/a/1.txt")
        assigned = item.assign_collection(collections=["very best/of & all", "made along"])
        of_item = sorted(one["name"] for one in dataset.items.get(filepath="/a/1.txt").list_collections())
        dataset.collections.assign(collections=["made along"], filters=dl.Filters(field="dir", values="/b"))
        missing = filenames(dataset.collections.list_missing_collections())
        unassigned = [dl.items.get(item_id=one).filename for one in dataset.collections.list_unassigned_items()]
        clone = dataset.collections.clone(collection_name="made along")
        cloned = filenames(dataset.items.list(
            filters=dl.Filters(field=f"metadata.system.collections.{clone.key}", values=True)))
        item.unassign_collection(collections=["made along"])
        after = [one["name"] for one in dataset.items.get(filepath="/a/1.txt").list_collections()]
        dataset.collections.delete(collection_name="very best/of & all")
        names = [one["name"] for one in dataset.collections.list_all_collections()]
        all_of_it = dataset.collections.assign(collections=["everything"])
        nothing = dataset.collections.list_unassigned_items()
        for number in range(7):
            dataset.collections.create(name=f"more {number}")
        eleventh = error_of(dataset.collections.create, name="eleventh")
        eleventh_by_assigning = error_of(dataset.collections.assign, collections=["eleventh"])
        copy = dataset.clone(clone_name="collections copied")
        answer(key=made.key, twice=twice, renamed=renamed.name, of_item=of_item, missing=missing, unassigned=unassigned,
               clone=clone.name, cloned=cloned, after=after, names=names, nothing=nothing, eleventh=eleventh,
               eleventh_by_assigning=eleventh_by_assigning,
               copied=[len(copy.collections.list_all_collections()), copy.collections.list_unassigned_items()])
        """
    )
    assert found["key"] == "c0"
    assert "already exists" in found["twice"][1]
    assert found["renamed"] == "very best/of & all"
    assert found["of_item"] == ["made along", "very best/of & all"]
    assert found["missing"] == ["/a/3.txt"] == found["unassigned"]
    assert found["clone"] == "made along-clone-1"
    assert found["cloned"] == ["/a/1.txt", "/b/0.txt", "/b/2.txt", "/b/4.txt"]
    assert sorted(found["after"]) == ["made along-clone-1", "very best/of & all"]
    assert found["names"] == ["made along", "made along-clone-1"]
    assert found["nothing"] == []
    assert "(10)" in found["eleventh"][1]
    assert "at most 10" in found["eleventh_by_assigning"][1]
    assert found["copied"] == [10, []]


def test_subsets_for_training(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import io
        dataset = dl.projects.create("subsets").datasets.create("subsets")
        for number in range(20):
            dataset.items.upload(local_path=io.BytesIO(b"text"), remote_name=f"{number:02}.txt",
                                 remote_path="/a" if number < 10 else "/b")

        def subsets():
            items = list(dataset.items.list().all())
            tags = [item.metadata["system"].get("tags") or {} for item in items]
            assert all(len([name for name, value in one.items() if value]) <= 1 for one in tags)
            return [sum(item.get_current_subset() == name for item in items)
                    for name in ("train", "validation", "test", None)]

        in_a = dl.Filters(field="dir", values="/a")
        dataset.split_ml_subsets(items_query=in_a, percentages={"train": 60, "validation": 20, "test": 20})
        split_a = subsets()
        missing = len(dataset.get_items_missing_ml_subset())
        dataset.split_ml_subsets(percentages={"train": 80, "validation": 10, "test": 10})
        split_all = subsets()
        one = dl.Filters(field="filename", values="/a/00.txt")
        dataset.assign_subset_to_items(subset="test", items_query=one)
        assigned = dataset.items.get(filepath="/a/00.txt").get_current_subset()
        dataset.remove_subset_from_items(items_query=one)
        removed = [dl.items.get(item_id=id).filename for id in dataset.get_items_missing_ml_subset()]
        item = dataset.items.get(filepath="/a/00.txt")
        item.assign_subset("validation")
        by_item = dataset.items.get(filepath="/a/00.txt").get_current_subset()
        dataset.items.get(filepath="/a/00.txt").remove_subset()
        gone = dataset.items.get(filepath="/a/00.txt").get_current_subset()
        wrong = error_of(dataset.split_ml_subsets, percentages={"train": 80, "validation": 10, "test": 11})
        command = dl.client_api.gen_request(req_type="post", path=f"/datasets/{dataset.id}/split", json_req={
            "itemsQuery": dl.Filters().prepare(), "MLSplitList": {"train": 80, "validation": 10, "test": 11}})[1]
        answer(split_a=split_a, missing=missing, split_all=split_all, assigned=assigned, removed=removed,
               by_item=by_item, gone=gone, wrong=wrong, refused=[command.status_code, command.json()["message"]])
        """
    )
    assert found["split_a"] == [6, 2, 2, 10]
    assert found["missing"] == 10
    assert found["split_all"] == [16, 2, 2, 0]
    assert found["assigned"] == "test"
    assert found["removed"] == ["/a/00.txt"]
    assert found["by_item"] == "validation"
    assert found["gone"] is None
    assert "add up to 100" in found["wrong"][1]
    assert found["refused"][0] == 400
    assert "101 per cent" in found["refused"][1]
