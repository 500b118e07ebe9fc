"""Metadata as scripts set it: on one item, on all that a filter finds, and subsets for training."""

from typing import Any


def test_metadata_is_changed_by_item_and_by_filter(run_sdk: Any) -> None:
    found = run_sdk(
        """
        import io
        dataset = dl.projects.create("metadata").datasets.create("metadata")
        for number in range(6):
            dataset.items.upload(
                local_path=io.BytesIO(b"text"), remote_name=f"{number}.txt", remote_path="/a" if number % 2 else "/b",
                item_metadata={"user": {"number": number, "kept": {"x": 1}}})
        item = dataset.items.get(filepath="/a/1.txt")
        item.metadata["user"]["camera"] = {"id": 3, "lenses": [1, 2]}
        del item.metadata["user"]["number"]
        item.update()
        one = dataset.items.get(filepath="/a/1.txt").metadata["user"]
        in_a = dl.Filters(field="dir", values="/a")
        answered = dataset.items.update(filters=in_a, update_values={"kept": {"y": 2}, "by": "filter"})
        plain = {item.filename: item.metadata["user"] for item in dataset.items.list().all()}
        dataset.items.update(filters=in_a, system_update_values={"tags": {"night": True}}, system_metadata=True)
        tagged = filenames(dataset.items.list(filters=dl.Filters(field="metadata.system.tags.night", values=True)))
        typed = error_of(dataset.items.update, filters=in_a, system_metadata=True,
                         system_update_values={"size": 1, "mimetype": "x/y"})
        large = error_of(dataset.items.update, filters=in_a, update_values={"a": "x" * 1_000_001})
        item = dataset.items.get(filepath="/b/0.txt")
        item.metadata["user"]["large"] = "x" * 1_000_001
        too_large = error_of(item.update)
        dataset.split_ml_subsets(percentages={"train": 50, "validation": 50, "test": 0})
        subsets = sorted(str(item.metadata["system"].get("tags")) for item in dataset.items.list().all())
        dl.datasets.bulk_update_ml_subset(dataset_id=dataset.id, items_query=dl.Filters(), subset="test")
        all_test = [sorted(key for key in item.metadata["system"]["tags"] if key != "night")
                    for item in dataset.items.list().all()]
        answer(one=one, plain=plain, tagged=tagged, typed=typed, large=large, too_large=too_large, subsets=subsets,
               all_test=all_test, status=answered["status"], size=dataset.items.get(filepath="/a/1.txt").size)
        """
    )
    assert found["one"] == {"camera": {"id": 3, "lenses": [1, 2]}, "kept": {"x": 1}}
    assert found["status"] == "success"
    assert found["plain"]["/a/1.txt"] == found["one"] | {"kept": {"x": 1, "y": 2}, "by": "filter"}
    assert found["plain"]["/b/0.txt"] == {"number": 0, "kept": {"x": 1}}
    assert found["tagged"] == ["/a/1.txt", "/a/3.txt", "/a/5.txt"]
    assert found["typed"][0] == "BadRequest"
    assert found["size"] == 4
    for large in (found["large"], found["too_large"]):
        assert large[0] == "BadRequest"
        assert "metadata.user is 1,0" in large[1]
    assert sum("'train': True" in tags for tags in found["subsets"]) == 3, found["subsets"]
    assert sum("'validation': True" in tags for tags in found["subsets"]) == 3
    assert found["all_test"] == [["test"]] * 6
