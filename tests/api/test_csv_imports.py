"""CSV imports over HTTP: raw bodies and forms, results while it runs, rights, and what is refused at once."""

import csv
import io

import pytest

from headwater.catalog import csv_imports
from headwater.work import csv_import
from tests.api.world import World, message

LINK = "https://images.example.com/"
BODY = f"ID,URL\n1,{LINK}a.jpg\n=2,{LINK}b.jpg\n3,ftp://x\n".encode()


@pytest.fixture
async def dataset_id(world: World) -> str:
    return await world.new_dataset()


async def send(world: World, dataset_id: str, body: bytes = BODY, **params: str):
    return await world.owner.post(
        f"/datasets/{dataset_id}/imports/csv", params={"name": "a.csv"} | params, content=body
    )


async def run(world: World, command_id: str) -> dict:
    await csv_import.import_rows(world.app.state.server.place, int(command_id, 16))
    return (await world.owner.get(f"/commands/{command_id}")).json()


async def verdicts(world: World, dataset_id: str, command_id: str) -> list[dict[str, str]]:
    answer = await world.owner.get(f"/datasets/{dataset_id}/imports/{command_id}/results")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="results-{command_id}.csv"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


async def test_a_body_becomes_a_command_with_verdicts(world, dataset_id):
    answer = await send(world, dataset_id)
    command = answer.json()
    assert (answer.status_code, answer.headers["x-import-op"]) == (200, "created")
    assert (command["type"], command["status"]) == ("ImportCsv", "created")
    assert await verdicts(world, dataset_id, command["id"]) == []
    ended = await run(world, command["id"])
    told = ended["spec"]["import"]
    assert (ended["status"], told["created"], told["skipped"], told["refused"]) == ("success", 2, 0, 1)
    assert told["examples"][0]["column"] == "URL"
    found = await verdicts(world, dataset_id, command["id"])
    assert [(one["row"], one["name"], one["outcome"]) for one in found] == [
        ("2", "1.jpg", "created"),
        ("3", "'=2.jpg", "created"),  # nothing that a spreadsheet runs
        ("4", "3", "refused"),
    ]
    item = (await world.owner.get(f"/items/{found[0]['item_id']}")).json()
    assert item["filename"] == "/a/1.jpg"
    (entry,) = await world.execute(
        "SELECT details FROM audit WHERE action = 'items.imported' AND details ->> 'id' = %s", dataset_id
    )
    assert entry[0]["file"] == "a.csv"


@pytest.mark.parametrize("before", ["", '--x\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'])
async def test_a_form_does_as_well(world, dataset_id, before):
    form = before.encode() + (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="in form.csv"\r\nContent-Type: text/csv\r\n\r\n'
        + BODY
        + b"\r\n--x--\r\n"
    )
    url, headers = f"/datasets/{dataset_id}/imports/csv", {"content-type": "multipart/form-data; boundary=x"}
    command = (await world.owner.post(url, content=form, headers=headers)).json()
    assert command["spec"]["import"]["folder"] == "/in form"
    assert (await run(world, command["id"]))["spec"]["import"]["created"] == 2
    for broken in (form[:-40], form.replace(b'"file"', b'"fail"')):
        assert message(await world.owner.post(url, content=broken, headers=headers), 400)


async def test_a_file_longer_than_other_bodies_is_streamed(world, dataset_id, monkeypatch):
    monkeypatch.setattr("headwater.api.bodies.MOST_BYTES", 1000)

    async def body():
        yield b"ID,URL,note\n"
        for number in range(100):
            yield f"{number},{LINK}{number}.jpg,{'x' * 100}\n".encode()

    answer = await world.owner.post(f"/datasets/{dataset_id}/imports/csv", params={"name": "long.csv"}, content=body())
    ended = await run(world, answer.json()["id"])
    assert ended["spec"]["import"]["created"] == 100
    assert "'note'" in ended["warning"]


async def test_the_same_file_again_is_the_same_import_until_it_has_ended(world, dataset_id):
    first = (await send(world, dataset_id)).json()
    second = await send(world, dataset_id)
    assert (second.json()["id"], second.headers["x-import-op"]) == (first["id"], "resumed")
    (jobs,) = await world.execute(
        "SELECT count(*) FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s",
        csv_import.TASK,
        str(int(first["id"], 16)),
    )
    assert jobs == (1,)
    await run(world, first["id"])
    assert (await send(world, dataset_id)).json()["id"] != first["id"]
    assert (await send(world, dataset_id, folder="/other")).json()["spec"]["import"]["folder"] == "/other"


async def test_an_aborted_import_is_resumed(world, dataset_id):
    command = (await send(world, dataset_id)).json()
    await world.owner.post(f"/commands/{command['id']}/abort")
    assert (await run(world, command["id"]))["status"] == "aborted"
    resume = f"/datasets/{dataset_id}/imports/{command['id']}/resume"
    answer = await world.owner.post(resume)
    assert (answer.json()["id"], answer.json()["status"]) == (command["id"], "created")
    assert (await run(world, command["id"]))["status"] == "success"
    assert "come to its end" in message(await world.owner.post(resume), 409)


async def test_what_is_not_of_the_dataset_is_not_found(world, dataset_id):
    command = (await send(world, dataset_id)).json()
    other = await world.new_dataset()
    for url in (f"/datasets/{other}/imports/{command['id']}", f"/datasets/{dataset_id}/imports/{world.command_id}"):
        assert "has no import" in message(await world.owner.get(f"{url}/results"), 404)
        assert message(await world.owner.post(f"{url}/resume"), 404)


@pytest.mark.parametrize(
    ("body", "params", "said"),
    [
        (b"", {}, "empty"),
        (BODY, {"name": ""}, "say what the file is called"),
        (BODY, {"name": "a\n.csv"}, "printable"),
        (BODY, {"encoding": "rot13"}, "is not read"),
        (BODY, {"separator": "x"}, "is none of"),
        (BODY, {"folder": "/a/../b"}, "cannot be an item's path"),
        (BODY, {"dryRun": "perhaps"}, "dryRun"),
        (b"%PDF-1.4", {}, "PDF"),
        (b"a,b\n1,2\n", {}, "It says: 'a', 'b'"),
    ],
    ids=str,
)
async def test_what_cannot_be_imported_is_refused_at_once(world, dataset_id, body, params, said):
    assert said in message(await send(world, dataset_id, body, **params), 400)
    assert await world.execute("SELECT FROM csv_import WHERE dataset_id = %s", int(dataset_id, 16)) == []


async def test_a_read_only_dataset_takes_none(world, dataset_id):
    await world.owner.patch(f"/datasets/{dataset_id}", json={"readonly": True})
    assert "read-only" in message(await send(world, dataset_id), 400)


async def test_results_that_are_kept_no_longer_are_gone(world, dataset_id):
    command = (await send(world, dataset_id)).json()
    await run(world, command["id"])
    async with world.pool.connection() as conn:
        await csv_imports.note_dropped(conn, int(command["id"], 16))
    answer = await world.owner.get(f"/datasets/{dataset_id}/imports/{command['id']}/results")
    assert "kept no longer" in message(answer, 404)
