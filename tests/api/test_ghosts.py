"""Rules of a dataset's sync and its ghosts, by the API."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from headwater.work import sync
from tests.api.world import NOBODY, World, message, upload

DEFAULTS = {
    "include": [],
    "exclude": [],
    "ghosts": "flag",
    "followMoves": False,
    "sidecars": False,
    "brakeItems": 100,
    "brakeShare": 0.1,
}


@pytest.fixture
def root(world: World, tmp_path: Path) -> Path:
    """A folder of its own, below those that a driver may read."""
    made = tmp_path / "bucket"
    made.mkdir()
    return made


async def new_dataset(world: World, root: Path) -> str:
    body = {"name": f"folder of {root}", "type": "hostPath", "metadata": {"path": str(root)}}
    made = await world.owner.post(f"/orgs/{world.organization_id}/integrations", json=body)
    return await world.new_dataset(driver=await world.new_driver(made.json()["id"]), sync=False)


async def run_sync(world: World, dataset_id: str, **body: Any) -> dict[str, Any]:
    command = (await world.owner.post(f"/datasets/{dataset_id}/sync", json=body)).json()
    found = await world.execute("SELECT id FROM scan WHERE command_id = %s", int(command["id"], 16))
    await sync.run_scan(world.app.state.server.place, found[0][0])
    return (await world.owner.get(f"/commands/{command['id']}")).json()


async def with_ghosts(world: World, root: Path, number: int, **rules: Any) -> str:
    (root / "gone").mkdir()
    (root / "stays.txt").write_text("x")
    for n in range(number):
        (root / f"gone/{n:02}.txt").write_text("x")
    dataset_id = await new_dataset(world, root)
    await run_sync(world, dataset_id)
    assert (await patch(world, dataset_id, **rules)).status_code == 200
    for path in (root / "gone").iterdir():
        path.unlink()
    await run_sync(world, dataset_id, confirmMissing=True)
    return dataset_id


async def patch(world: World, dataset_id: str, **body: Any) -> httpx.Response:
    return await world.owner.patch(f"/datasets/{dataset_id}/sync-rules", json=body)


async def settle(world: World, dataset_id: str, action: str, **body: Any) -> httpx.Response:
    return await world.owner.post(f"/datasets/{dataset_id}/ghosts/{action}", json=body)


async def paths(world: World, dataset_id: str, **query: Any) -> list[str]:
    answer = await world.owner.get(f"/datasets/{dataset_id}/ghosts", params=query)
    assert answer.status_code == 200, answer.text
    return [ghost["filename"] for ghost in answer.json()["ghosts"]]


async def test_rules_are_changed_one_by_one_and_null_is_the_default(world: World, root: Path) -> None:
    dataset_id = await new_dataset(world, root)
    url = f"/datasets/{dataset_id}/sync-rules"
    assert (await world.owner.get(url)).json() == DEFAULTS
    changed = DEFAULTS | {"include": ["*.jpg"], "brakeItems": 0, "ghosts": "trash", "followMoves": True}
    await patch(world, dataset_id, include=["*.jpg"], brakeItems=0)
    assert (await patch(world, dataset_id, ghosts="trash", followMoves=True)).json() == changed
    assert (await world.owner.get(url)).json() == changed
    dataset = (await world.owner.get(f"/datasets/{dataset_id}")).json()
    assert dataset["metadata"]["system"]["syncRules"] == changed
    assert (
        await patch(world, dataset_id, brakeItems=None, include=None, ghosts=None, followMoves=None)
    ).json() == DEFAULTS
    lines = await world.execute(
        "SELECT details -> 'rules' ->> 'ghosts' FROM audit WHERE action = 'dataset.sync-rules-changed' "
        "AND details ->> 'id' = %s ORDER BY id",
        dataset_id,
    )
    assert lines == [("flag",), ("trash",), ("flag",)]


async def test_rules_in_the_metadata_are_only_read(world: World, root: Path) -> None:
    dataset_id = await new_dataset(world, root)
    system = {"syncRules": {"ghosts": "trash"}, "mine": 1}
    answer = await world.owner.patch(
        f"/datasets/{dataset_id}", params={"system": True}, json={"metadata": {"system": system}}
    )
    shown = answer.json()["metadata"]["system"]
    assert {**shown, "recipes": []} == {"syncRules": DEFAULTS, "mine": 1, "recipes": []}
    stored = await world.execute("SELECT metadata FROM dataset WHERE id = %s", int(dataset_id, 16))
    assert stored == [({"system": {"mine": 1}},)]


@pytest.mark.parametrize(("body", "complaint"), [
    ({"includes": ["*"]}, "includes: Extra inputs"),
    ({"brakeShare": 1.5}, "brakeShare: "),
    ({"brakeShare": -0.1}, "brakeShare: "),
    ({"brakeItems": -1}, "brakeItems: "),
    ({"ghosts": "delete"}, "'flag' or 'trash'"),
    ({"exclude": ["ok", "[a"]}, "The glob '[a' cannot be used: a [ has no ]"),
    ({"include": ["!a"]}, "The glob '!a' cannot be used"),
    ({"include": ["a"] * 101}, "include: "),
    ({"include": "*.jpg"}, "include: "),
])  # fmt: skip
async def test_rules_that_cannot_be_are_refused_in_words(world: World, body: dict[str, Any], complaint: str) -> None:
    url = f"/datasets/{world.bucket_dataset_id}/sync-rules"
    assert complaint in message(await world.owner.patch(url, json=body), 400)
    assert complaint in message(await world.owner.post(f"{url}/preview", json=body), 400)
    assert (await world.owner.get(url)).json() == DEFAULTS


async def test_a_dataset_without_a_bucket_has_no_rules_to_set(world: World) -> None:
    assert "no bucket to sync with" in message(await patch(world, world.dataset_id, ghosts="trash"), 400)


async def test_a_preview_tells_what_would_be_kept_and_changes_nothing(world: World, root: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.txt"):
        (root / name).write_text("x")
    dataset_id = await new_dataset(world, root)
    url = f"/datasets/{dataset_id}/sync-rules"
    found = (await world.owner.post(f"{url}/preview", json={"include": ["*.jpg"]})).json()
    assert found == {
        "looked": 3,
        "kept": 2,
        "isAll": True,
        "keptExamples": ["/a.jpg", "/b.jpg"],
        "leftOutExamples": ["/c.txt"],
    }
    await patch(world, dataset_id, exclude=["a*"])
    found = (await world.owner.post(f"{url}/preview", json={"include": ["*.jpg"]})).json()
    assert found["keptExamples"] == ["/b.jpg"]  # over the rules there are
    assert (await world.owner.get(url)).json() == DEFAULTS | {"exclude": ["a*"]}
    assert await world.execute("SELECT FROM item WHERE dataset_id = %s", int(dataset_id, 16)) == []


async def test_an_upload_that_is_left_out_is_refused(world: World, root: Path) -> None:
    dataset_id = await new_dataset(world, root)
    await patch(world, dataset_id, exclude=["*.tmp"])
    answer = await upload(world.owner, dataset_id, "/x/a.tmp", b"x")
    assert "/x/a.tmp is left out by the sync rules" in message(answer, 400)
    assert not (root / "x").exists()


async def test_ghosts_are_listed_in_pages_by_prefix_and_by_time(world: World, root: Path) -> None:
    dataset_id = await with_ghosts(world, root, 5)
    url = f"/datasets/{dataset_id}/ghosts"
    all_paths = [f"/gone/{n:02}.txt" for n in range(5)]
    first = (await world.owner.get(url, params={"limit": 2})).json()
    assert ([ghost["filename"] for ghost in first["ghosts"]], first["next"]) == (all_paths[:2], all_paths[1])
    assert (first["flagged"], first["trashed"]) == (5, 0)
    assert await paths(world, dataset_id, limit=2, after=first["next"]) == all_paths[2:4]
    last = (await world.owner.get(url, params={"limit": 2, "after": all_paths[3]})).json()
    assert ([ghost["filename"] for ghost in last["ghosts"]], last["next"]) == (all_paths[4:], None)
    ghost = first["ghosts"][0]
    item = (await world.owner.get(f"/items/{ghost['id']}")).json()
    assert item["metadata"]["system"]["missingSince"] == ghost["missingSince"]
    assert (ghost["trashedAt"], ghost["forgottenAt"], ghost["size"]) == (None, None, 1)
    assert await paths(world, dataset_id, prefix="/gone/03") == ["/gone/03.txt"]
    assert await paths(world, dataset_id, since="2100-01-01") == []
    assert await paths(world, dataset_id, since=ghost["missingSince"].replace("T", " ")[:19]) == all_paths
    assert await paths(world, dataset_id, where="trash") == []


async def test_the_trash_is_hidden_restored_and_filled(world: World, root: Path) -> None:
    dataset_id = await with_ghosts(world, root, 3, ghosts="trash")
    dataset = (await world.owner.get(f"/datasets/{dataset_id}")).json()
    assert dataset["itemsCount"] == 1
    assert (dataset["counts"]["missing"], dataset["counts"]["trashed"]) == (0, 3)
    query = {"filter": {"$and": [{"hidden": False}, {"type": "file"}]}}
    found = (await world.owner.post(f"/datasets/{dataset_id}/query", json=query)).json()
    assert ([item["filename"] for item in found["items"]], found["totalItemsCount"]) == (["/stays.txt"], 1)
    tree = (await world.owner.get(f"/datasets/{dataset_id}/directoryTree")).json()
    assert tree["children"] == []
    dry = (await settle(world, dataset_id, "restore", paths=["/gone/"], dryRun=True)).json()
    assert (dry["items"], len(dry["examples"])) == (3, 3)
    assert len(await paths(world, dataset_id, where="trash")) == 3
    done = (await settle(world, dataset_id, "restore", paths=["/gone/01.txt"])).json()
    assert (done["items"], done["command"]) == (1, None)
    assert await paths(world, dataset_id, where="flagged") == ["/gone/01.txt"]
    found = (await world.owner.post(f"/datasets/{dataset_id}/query", json=query)).json()
    restored = found["items"][0]
    assert (restored["filename"], restored["hidden"]) == ("/gone/01.txt", False)
    ids = [restored["id"]]
    assert (await settle(world, dataset_id, "trash", ids=ids)).json()["items"] == 1
    assert (await settle(world, dataset_id, "restore", all=True)).json()["items"] == 3
    (root / "gone/01.txt").write_text("x")
    await run_sync(world, dataset_id)
    assert len(await paths(world, dataset_id)) == 2


async def test_forgetting_all_or_much_asks_for_the_number(world: World, root: Path) -> None:
    dataset_id = await with_ghosts(world, root, 3, brakeItems=1, brakeShare=0)
    for body in ({"all": True}, {"all": True, "confirm": 2}, {"paths": ["/gone/"]}):
        told = message(await settle(world, dataset_id, "forget", **body), 409)
        assert "forgets 3 items" in told
        assert '"confirm": 3' in told
    assert len(await paths(world, dataset_id)) == 3
    assert (await settle(world, dataset_id, "forget", all=True, dryRun=True)).json()["items"] == 3
    assert (await settle(world, dataset_id, "forget", paths=["/gone/00.txt"])).status_code == 200
    assert (await settle(world, dataset_id, "forget", trash=True, all=True, confirm=2)).json()["items"] == 0
    assert (await settle(world, dataset_id, "forget", all=True, confirm=2)).json()["items"] == 2
    assert await paths(world, dataset_id) == []
    lines = await world.execute(
        "SELECT details ->> 'items' FROM audit WHERE action = 'ghosts.forgotten' AND details ->> 'id' = %s ORDER BY id",
        dataset_id,
    )
    assert lines == [("1",), ("2",)]


async def test_only_ghosts_are_forgotten(world: World, root: Path) -> None:
    dataset_id = await with_ghosts(world, root, 1)
    answer = await settle(world, dataset_id, "forget", paths=["/stays.txt", "/nothing"])
    assert answer.json() == {"items": 0, "examples": [], "command": None}
    other = await world.new_dataset(driver=world.driver_id, sync=False)
    (ghost,) = (await world.owner.get(f"/datasets/{dataset_id}/ghosts")).json()["ghosts"]
    assert (await settle(world, other, "forget", ids=[ghost["id"]])).json()["items"] == 0
    assert len(await paths(world, dataset_id)) == 1


@pytest.mark.parametrize(("body", "complaint"), [
    ({}, "Say which ghosts"),
    ({"all": True, "paths": ["/a"]}, "Say which ghosts"),
    ({"ids": ["nothing"]}, "nothing"),
    ({"path": ["/a"]}, "path: Extra inputs"),
    ({"paths": ["/a\0"]}, "cannot be stored"),
])  # fmt: skip
@pytest.mark.parametrize("action", ["restore", "trash", "forget"])
async def test_what_names_no_ghosts_is_refused(world: World, action: str, body: dict[str, Any], complaint: str) -> None:
    answer = await settle(world, world.bucket_dataset_id, action, **body)
    assert complaint in message(answer, 404 if "ids" in body else 400)


async def test_a_read_only_dataset_keeps_its_ghosts(world: World, root: Path) -> None:
    dataset_id = await with_ghosts(world, root, 1)
    await world.owner.patch(f"/datasets/{dataset_id}", json={"readonly": True})
    for action in ("restore", "trash", "forget"):
        assert "read-only" in message(await settle(world, dataset_id, action, paths=["/gone/"]), 400)


async def test_ghosts_of_others_are_not_known(world: World) -> None:
    assert "No dataset" in message(await world.owner.get(f"/datasets/{NOBODY}/ghosts"), 404)
