"""Many items deleted by one request: what is asked for, what is asked back, and who is told."""

import secrets

import pytest

from headwater.api import deletions
from headwater.work import deletion
from tests.api.world import World, message

PATHS = ["/a.txt", "/b/c.txt", "/b/d*.txt", "/b/dx.txt", "/b0.txt"]


@pytest.fixture
async def dataset_id(world: World) -> str:
    made = await world.new_dataset()
    for path in PATHS:
        await world.upload(made, path, b"12345")
    return made


@pytest.fixture
def small_brake(monkeypatch):
    monkeypatch.setattr("headwater.catalog.sync.rules.BRAKE_ITEMS", 2)


async def paths_of(world: World, dataset_id: str) -> list[str]:
    answer = await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"type": "file"}})
    return sorted(item["filename"] for item in answer.json()["items"])


async def ask(world: World, dataset_id: str, status: int = 200, **body) -> dict:
    answer = await world.owner.post(f"/datasets/{dataset_id}/delete-items", json=body)
    if status != 200:
        return {"message": message(answer, status)}
    assert answer.status_code == 200, answer.text
    return answer.json()


async def run(world: World, command: dict) -> dict:
    """As the worker does."""
    rows = await world.execute(
        "DELETE FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s RETURNING args",
        deletion.DELETE_ITEMS_TASK,
        str(int(command["id"], 16)),
    )
    for (arguments,) in rows:
        await deletion.delete_items(world.app.state.server.place, **arguments)
    return (await world.owner.get(f"/commands/{command['id']}")).json()


async def test_a_dry_run_tells_and_deletes_nothing(world, dataset_id):
    told = await ask(world, dataset_id, folder="/b", dryRun=True)
    assert told == {
        "dryRun": True,
        "items": 3,
        "sizeBytes": 15,
        "examples": ["/b/c.txt", "/b/d*.txt", "/b/dx.txt"],
        "objects": "Their objects are deleted from Headwater's own storage.",
        "needsConfirmation": False,
    }
    assert await paths_of(world, dataset_id) == sorted(PATHS)


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({"folder": "/b/"}, ["/a.txt", "/b0.txt"]),
        ({"paths": ["/b/d*.txt", "a.txt", "/never"]}, ["/b/c.txt", "/b/dx.txt", "/b0.txt"]),
        ({"filter": {"filename": "/b/d*.txt"}}, ["/a.txt", "/b/c.txt", "/b0.txt"]),
        (
            {"filter": {}, "folder": "/b", "paths": ["/b/c.txt", "/a.txt"]},
            ["/a.txt", "/b/d*.txt", "/b/dx.txt", "/b0.txt"],
        ),
        ({"filter": {}}, []),
        ({"missing": True}, sorted(PATHS)),
        ({"ids": ["no id", f"{2**61:024x}"]}, sorted(PATHS)),
    ],
    ids=str,
)
async def test_what_is_named_goes_and_nothing_else(world, dataset_id, body, left):
    command = await ask(world, dataset_id, **body)
    assert command["type"] == "DeleteItems"
    ended = await run(world, command)
    assert (ended["status"], ended["error"]) == ("success", None)
    assert ended["spec"]["deletion"]["deleted"] == len(PATHS) - len(left)
    assert await paths_of(world, dataset_id) == left
    dataset = (await world.owner.get(f"/datasets/{dataset_id}")).json()
    assert dataset["itemsCount"] == len(left)


async def test_much_at_once_needs_a_confirmation(world, dataset_id, small_brake):
    told = (await ask(world, dataset_id, 409, filter={}))["message"]
    assert "delete 5 of 5 items" in told
    assert '"confirm": 5 (CLI: --yes)' in told
    await ask(world, dataset_id, 409, filter={}, confirm=4)  # an item came since four were shown
    assert await paths_of(world, dataset_id) == sorted(PATHS)
    assert (await ask(world, dataset_id, filter={}, dryRun=True))["needsConfirmation"] is True
    assert (await ask(world, dataset_id, paths=["/a.txt", "/b0.txt"]))["status"] == "created"
    await run(world, await ask(world, dataset_id, filter={}, confirm=5))
    assert await paths_of(world, dataset_id) == []


async def test_the_sdks_scripts_run_unchanged(world, dataset_id, small_brake):
    """No confirmation, and the items are gone when the answer comes."""
    body = {"filter": {"$and": [{"hidden": False}, {"type": "file"}, {"dir": "/b"}]}, "delete": True}
    answer = await world.owner.post(f"/datasets/{dataset_id}/query", json=body)
    assert answer.status_code == 200
    assert (answer.json()["type"], answer.json()["status"]) == ("DeleteItems", "success")
    assert await paths_of(world, dataset_id) == ["/a.txt", "/b0.txt"]
    (entry,) = await world.execute(
        "SELECT actor, details FROM audit WHERE action = 'items.deleted' AND details ->> 'id' = %s", dataset_id
    )
    assert entry[0] == "owner@headwater.test"
    assert entry[1]["items"] == 3


async def test_a_long_deletion_goes_on_after_the_answer(world, dataset_id, monkeypatch):
    monkeypatch.setattr(deletions, "_WAIT_FOR_ANSWER_S", 0)
    answer = await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {}, "delete": True})
    assert answer.status_code == 200
    ended = await run(world, answer.json())
    assert ended["status"] == "success"
    assert await paths_of(world, dataset_id) == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "Say what to delete"),
        ({"dryRun": True}, "Say what to delete"),
        ({"filter": {"nonsense": 1}}, "There is no field 'nonsense'"),
        ({"filter": {"type": "dir"}}, "only files can be deleted"),
        ({"folder": ""}, "folder: it is empty"),
        ({"flter": {}}, "flter"),
    ],
    ids=str,
)
async def test_what_makes_no_sense_is_refused(world, dataset_id, body, said):
    assert said in (await ask(world, dataset_id, 400, **body))["message"]
    assert await paths_of(world, dataset_id) == sorted(PATHS)


async def test_who_may_not_write_deletes_nothing(world, dataset_id):
    for url, body in (
        (f"/datasets/{dataset_id}/query", {"filter": {}, "delete": True}),
        (f"/datasets/{dataset_id}/delete-items", {"filter": {}, "confirm": True}),
    ):
        assert (await world.callers["annotator"].post(url, json=body)).status_code in (403, 404)
        assert (await world.callers["outsider"].post(url, json=body)).status_code == 404
    await world.owner.patch(f"/datasets/{dataset_id}", json={"readonly": True})
    assert "read-only" in (await ask(world, dataset_id, 400, filter={}, confirm=True))["message"]
    assert await paths_of(world, dataset_id) == sorted(PATHS)


async def test_what_was_deleted_is_listed_and_comes_back(world):
    made = await world.new_dataset(driver=world.driver_id, sync=False)
    number = int(made, 16)
    for path in ("/a", "/b/c"):
        await world.execute("INSERT INTO tombstone (dataset_id, path) VALUES (%s, %s)", number, path)
    await world.execute(
        """
        UPDATE tombstone
        SET object_asked_at = now(), refused_at = now(), object_delete_error = 'It is locked.'
        WHERE dataset_id = %s AND path = '/a'
        """,
        number,
    )
    listed = (await world.owner.get(f"/datasets/{made}/deleted")).json()
    assert [(one["path"], one["state"], one["error"]) for one in listed["items"]] == [
        ("/a", "refused", "It is locked."),
        ("/b/c", "staying", None),
    ]
    assert listed["counts"] == {"staying": 1, "waiting": 0, "refused": 1}
    refused = (await world.owner.get(f"/datasets/{made}/deleted", params={"state": "refused"})).json()
    assert [one["path"] for one in refused["items"]] == ["/a"]
    assert (await world.owner.get(f"/datasets/{made}/deleted", params={"after": "/a"})).json()["items"][0][
        "path"
    ] == "/b/c"
    answer = (await world.owner.post(f"/datasets/{made}/restore-deleted", json={"folder": "/b"})).json()
    assert (answer["restored"], answer["command"]["type"]) == (1, "SyncDataset")
    again = await world.owner.post(f"/datasets/{made}/restore-deleted")
    assert "is running" in message(again, 409)
    own = await world.owner.post(f"/datasets/{world.dataset_id}/restore-deleted")
    assert "no bucket" in message(own, 400)


async def test_refused_objects_are_tried_again(world, dataset_id):
    assert await ask(world, dataset_id, retry=True) == {"retried": 0}
    number = int(dataset_id, 16)
    key = f"objects/{secrets.token_hex(4)}"
    await world.execute(
        "INSERT INTO tombstone (dataset_id, path, object_key, refused_at) VALUES (%s, '/gone', %s, now())", number, key
    )
    assert await ask(world, dataset_id, retry=True) == {"retried": 1}
    (job,) = await world.execute(
        "SELECT args -> 'doomed' FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'dataset_id' = %s",
        deletion.DELETE_OBJECTS_TASK,
        str(number),
    )
    assert job[0] == [{"path": "/gone", "object_key": key, "thumbnail": None}]
