"""Pages of items: each says of an item what the item says of itself."""

import json
from typing import Any

import pytest

from tests.api.world import World

HARD: list[dict[str, Any]] = [
    {"large": 10**30 + 1, "small": 1e-9, "exact": 0.1, "whole": 1.0, "negative": -(2**63)},
    {"text": 'quotes " and \\ and \u2028 and 😀 and </script>', "": {"": [[], {}, None, True]}},
    {"%s": "%(n)s", "{}": "{0}", "null": None, "list": [None, [None]]},
    {},
]


@pytest.mark.parametrize("system", [{}, {"number": 10**30 + 1, "fps": 25, "tags": {"train": True}}])
async def test_a_page_tells_the_same_as_its_items(world: World, system: dict[str, Any]) -> None:
    dataset_id = await world.new_dataset()
    for number, user in enumerate(HARD):
        item = await world.upload(dataset_id, f"/a/{number} ä.txt", b"text", metadata=json.dumps({"user": user}))
        given = {"metadata": {"system": system}, "description": "ä"}
        answer = await world.owner.patch(f"/items/{item['id']}?system=true", json=given)
        assert answer.status_code == 200, answer.text
    await world.upload(dataset_id, "/bare.txt", b"text")
    answer = await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"type": "file"}})
    assert answer.headers["content-type"] == "application/json"
    page = answer.json()
    assert (page["totalItemsCount"], page["totalPagesCount"], page["hasNextPage"]) == (5, 1, False)
    for shown in page["items"]:
        single = (await world.owner.get(f"/items/{shown['id']}")).json()
        assert shown == single
        assert list(shown) == list(single)
    users = [item["metadata"]["user"] for item in page["items"]]
    assert users == [*[{key: value for key, value in user.items() if value is not None} for user in HARD], {}]
