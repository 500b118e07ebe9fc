"""Exports hold every item once, whatever dies or changes meanwhile, and leave nothing behind."""

import asyncio
import io
import json
import zipfile

import pyarrow.parquet as pq
import pytest
from psycopg.types.json import Jsonb

from headwater.catalog import annotations, commands, datasets, exports, finding, items
from headwater.errors import Unavailable
from headwater.wire import annotations as wire_annotations
from headwater.wire.exports import ExportBody, ExportV3Body, read_export, read_export_v3
from headwater.work import deletion, exporting
from headwater.work.exporting import documents, parquet
from tests.work.world import World

BASE = "http://headwater.test/api/v1"


async def request(world: World, dataset, **body) -> int:
    """A command whose job nobody runs."""
    async with world.connection() as conn:
        if "mode" in body:
            asked = read_export_v3(ExportV3Body(**body), BASE, world.owner.id)
        else:
            asked = read_export(ExportBody(**body), BASE, world.owner.id)
        total = await finding.count_found(conn, dataset.id, asked.tree, None)
        export = await exporting.request_export(conn, world.owner, dataset, asked, total=total)
        await conn.execute(
            "DELETE FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s",
            [exporting.TASK, str(export.command_id)],
        )
    return export.command_id


async def command_of(world: World, command_id: int):
    async with world.connection() as conn:
        return await commands.load_command(conn, command_id)


async def export(world: World, dataset, **body):
    command_id = await request(world, dataset, **body)
    await exporting.run_export(world.place, command_id)
    command = await command_of(world, command_id)
    assert command.status == "success", command.error
    return command


async def read(world: World, item_id: str) -> bytes:
    async with world.connection() as conn:
        item = await items.get_item(conn, int(item_id, 16))
    assert item.hidden
    async with world.place.places.of_item(item) as store, store.get(item.key) as reader:
        return await reader.read()


async def output(world: World, command) -> bytes:
    return await read(world, command.spec["outputItemId"])


async def lines(world: World, command) -> list[dict]:
    """What the files of an export say, in their order."""
    found = []
    for file in command.spec["files"]:
        body = await read(world, file["id"])
        assert len(body) == file["size"]
        found += [json.loads(line) for line in body.splitlines()]
    return found


async def annotate(world: World, dataset, path: str, *labels: str) -> None:
    item = await world.item(dataset, path)
    given = [{"type": "class", "label": label, "metadata": {"system": {}}} for label in labels]
    async with world.connection() as conn:
        contents = [one.content for one in wire_annotations.posted(given)]
        await annotations.add_annotations(conn, dataset.id, item.id, contents, creator=world.owner)


async def binaries(world: World, dataset):
    async with world.connection() as conn:
        return await datasets.get_binaries(conn, dataset.project_id)


async def objects(world: World, dataset) -> list[str]:
    """Everything in the storage of Binaries."""
    folder = world.place.places._settings.data_dir / "storage" / f"{(await binaries(world, dataset)).id:024x}"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(documents, "_PIECE_ITEMS", 3)
    monkeypatch.setattr(documents, "_FILE_RECORDS", 4)
    monkeypatch.setattr(documents, "PAGE_ITEMS", 2)
    monkeypatch.setattr(parquet, "FILE_ROWS", 4)
    monkeypatch.setattr(parquet, "_GROUP_ROWS", 2)


@pytest.fixture
async def photos(world):
    dataset, _ = await world.own_dataset()
    for n in range(8):
        await world.upload(dataset, f"/{n % 3}/{n}.txt", b"x" * n, user_metadata={"n": n, "text": 'a "b"\n,é'})
    await annotate(world, dataset, "/1/4.txt", "cat", "dog")
    return dataset


PATHS = [f"/{n % 3}/{n}.txt" for n in range(8)]


async def test_a_json_export_is_an_array_of_items_with_their_annotations(world, small, photos):
    command = await export(world, photos, exportType="json")
    found = json.loads(await output(world, command))
    assert [one["filename"] for one in found] == PATHS
    assert [one["metadata"]["user"]["n"] for one in found] == list(range(8))
    assert [[said["label"] for said in one["annotations"]] for one in found] == [
        ["cat", "dog"] if n == 4 else [] for n in range(8)
    ]
    assert (command.kind, command.progress_percent) == ("ExportDatasetAsJson", 100)
    assert command.spec["export"]["items"] == 8
    assert command.spec["export"]["annotations"] == 2
    assert len(await objects(world, photos)) == 1


async def test_nothing_chosen_is_an_empty_array_and_an_empty_archive(world, small, photos):
    nothing = {"filter": {"filename": "/none.txt"}}
    assert json.loads(await output(world, await export(world, photos, exportType="json", itemsQuery=nothing))) == []
    body = await output(world, await export(world, photos, exportVersion="V1", itemsQuery=nothing))
    assert zipfile.ZipFile(io.BytesIO(body)).namelist() == []


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"exportVersion": "V1"}, [path[1:-4] + ".json" for path in PATHS]),
        ({"exportVersion": "V2"}, [path[1:] + ".json" for path in PATHS]),
        ({"format": "zip"}, [path[1:] + ".json" for path in PATHS]),
    ],
)
async def test_an_archive_has_a_file_for_each_item(world, small, photos, asked, names):
    archive = zipfile.ZipFile(io.BytesIO(await output(world, await export(world, photos, **asked))))
    assert archive.testzip() is None
    assert archive.namelist() == names
    told = json.loads(archive.read(names[4]))
    assert told["_id"] == told["id"]
    assert told["itemMetadata"]["user"] == {"n": 4, "text": 'a "b"\n,é'}
    assert [one["label"] for one in told["annotations"]] == ["cat", "dog"]


STRANGE = [
    "/a/../../b.txt",
    "//etc/passwd",
    "/a/./b",
    "/..\\..\\c.txt",
    "/C:\\d.txt",
    "/" + "é" * 150,
    "/f/" + "x" * 300,
]


async def test_names_in_an_archive_lead_nowhere_else(world, photos, tmp_path):
    async with world.connection() as conn:  # as a sync may find them in a bucket
        for old, new in zip(PATHS, STRANGE, strict=False):
            await conn.execute("UPDATE item SET path = %s WHERE dataset_id = %s AND path = %s", [new, photos.id, old])
    archive = zipfile.ZipFile(io.BytesIO(await output(world, await export(world, photos, exportVersion="V2"))))
    names = archive.namelist()
    assert len(set(names)) == 8
    assert names[-1] == PATHS[-1][1:] + ".json"
    for name in names:
        parts = name.replace("\\", "/").split("/")
        assert not {"", ".", ".."} & set(parts)
        assert ":" not in name
    folder = tmp_path / "out"
    archive.extractall(folder)
    found = [json.loads(file.read_bytes())["filename"] for file in folder.rglob("*") if file.is_file()]
    assert sorted(found) == sorted([*STRANGE, PATHS[-1]])


async def test_items_that_differ_in_the_extension_alone_are_all_there(world, small, photos):
    """The first one has the name that V1 gives it, of those that are chosen."""
    for path in ("/x.jpg", "/x.png", "/x", "/x.a.jpg", "/x.d/y.jpg", "/y/x.jpg"):
        await world.upload(photos, path, b"x")
    items = {path: await world.item(photos, path) for path in ("/x.png", "/x")}
    chosen = {"filter": {"$or": [{"filename": "/x*"}, {"filename": "/y/*"}]}}
    command = await export(world, photos, exportVersion="V1", itemsQuery=chosen)
    archive = zipfile.ZipFile(io.BytesIO(await output(world, command)))
    second, third = (f"{path[1:]}.{item.id:024x}.json" for path, item in items.items())
    assert archive.namelist() == ["x.json", second, third, "x.a.json", "x.d/y.json", "y/x.json"]
    command = await export(world, photos, exportVersion="V1", itemsQuery={"filter": {"filename": "/x.png"}})
    assert zipfile.ZipFile(io.BytesIO(await output(world, command))).namelist() == ["x.json"]


async def test_lines_come_in_files_that_the_manifest_lists(world, small, photos):
    command = await export(world, photos, format="ndjson")
    manifest = json.loads(await output(world, command))
    assert [file["filename"] for file in manifest["files"]] == ["items-00000.ndjson", "items-00001.ndjson"]
    assert manifest["statistics"]["totalRecords"] == 8
    assert [one["filename"] for one in await lines(world, command)] == PATHS


async def tables(world: World, command, noun: str) -> list[dict]:
    """The rows of its Parquet files."""
    files = [file for file in command.spec["files"] if file["filename"].startswith(noun)]
    read_all = [pq.read_table(io.BytesIO(await read(world, file["id"]))) for file in files]
    return [row for table in read_all for row in table.to_pylist()]


async def test_any_text_is_the_same_in_parquet(world, small, photos):
    """Also what separates columns and rows on the way there, and nothing is not the empty text."""
    texts = ["", None, "\1", "\2", '\1\2"\n,\r\n\\', "\1\1", "\n", "\\."]
    async with world.connection() as conn:
        for path, text in zip(PATHS, texts, strict=True):
            await conn.execute(
                "UPDATE item SET description = %s, user_metadata = %s WHERE dataset_id = %s AND path = %s",
                [text, Jsonb({"text": text}), photos.id, path],
            )
    await annotate(world, photos, PATHS[0], *(text for text in texts if text))
    command = await export(world, photos, format="parquet", columns=["metadata.user.text"])
    rows = await tables(world, command, "items")
    assert [row["path"] for row in rows] == PATHS
    assert [row["description"] for row in rows] == texts
    assert [row["metadata.user.text"] for row in rows] == texts
    assert [json.loads(row["user_metadata"])["text"] for row in rows] == texts
    said = await tables(world, command, "annotations")
    assert [row["label"] for row in said] == [*(text for text in texts if text), "cat", "dog"]


class _Dies(Exception):
    pass


@pytest.mark.parametrize(
    "asked", [{"exportType": "json"}, {"exportVersion": "V2"}, {"format": "ndjson"}, {"format": "parquet"}]
)
async def test_a_worker_may_die_anywhere(world, small, photos, asked, monkeypatch):
    """After every number of steps; the next one goes on, and at the end nothing is left of the dead."""
    command_id = await request(world, photos, **asked)
    steps = 0

    def dying(function):
        async def step(*arguments, **named):
            nonlocal steps
            if steps <= 0:
                raise _Dies
            steps -= 1
            done = await function(*arguments, **named)
            if steps <= 0:
                raise _Dies
            return done

        return step

    monkeypatch.setattr(exports, "move_on", dying(exports.move_on))
    monkeypatch.setattr(exports, "next_items", dying(exports.next_items))
    monkeypatch.setattr(exports, "copy_items", dying(exports.copy_items))
    monkeypatch.setattr(commands, "end_command", dying(commands.end_command))
    deaths = 0
    for tries in range(2, 40):
        steps = tries
        try:
            await exporting.run_export(world.place, command_id)
            break
        except (_Dies, ExceptionGroup):
            deaths += 1
    assert deaths >= 2
    monkeypatch.undo()
    command = await command_of(world, command_id)
    assert command.status == "success"
    if asked == {"exportType": "json"}:
        assert [one["filename"] for one in json.loads(await output(world, command))] == PATHS
        assert len(await objects(world, photos)) == 1
    elif asked == {"format": "ndjson"}:
        assert [one["filename"] for one in await lines(world, command)] == PATHS
    elif asked == {"format": "parquet"}:
        assert [row["path"] for row in await tables(world, command, "items")] == PATHS
        assert [row["label"] for row in await tables(world, command, "annotations")] == ["cat", "dog"]
    else:
        archive = zipfile.ZipFile(io.BytesIO(await output(world, command)))
        assert archive.testzip() is None
        assert archive.namelist() == [path[1:] + ".json" for path in PATHS]


async def test_two_workers_at_once_make_one_export(world, small, photos):
    command_id = await request(world, photos, exportType="json")
    await asyncio.gather(*(exporting.run_export(world.place, command_id) for _ in range(3)))
    command = await command_of(world, command_id)
    assert [one["filename"] for one in json.loads(await output(world, command))] == PATHS
    assert len(await objects(world, photos)) == 1


@pytest.mark.parametrize("asked", [{"exportType": "json"}, {"format": "ndjson"}, {"format": "parquet"}])
@pytest.mark.parametrize("is_aborted", [True, False])
async def test_nothing_is_left_of_what_is_aborted_or_fails(world, small, photos, asked, is_aborted, monkeypatch):
    command_id = await request(world, photos, **asked)
    move_on, seen = exports.move_on, []

    async def once(conn, before, progress):
        if seen:
            raise Unavailable("It is away.")
        seen.append(before)
        return await move_on(conn, before, progress)

    monkeypatch.setattr(exports, "move_on", once)
    with pytest.raises(Unavailable):
        await exporting.run_export(world.place, command_id)
    if is_aborted:
        async with world.connection() as conn:
            await commands.request_abort(conn, command_id)
        await exporting.run_export(world.place, command_id)
    else:
        await exporting.give_up(world.place, command_id, "It is away.")
    assert (await command_of(world, command_id)).status == ("aborted" if is_aborted else "failed")
    await world.run_jobs(await binaries(world, photos))
    assert await objects(world, photos) == []


async def test_files_go_after_some_days_and_with_their_dataset(world, photos):
    first, second = await export(world, photos, exportType="json"), await export(world, photos, format="parquet")
    async with world.connection() as conn:
        await conn.execute("UPDATE command SET updated_at = now() - interval '6 days' WHERE id = %s", [first.id])
    await exporting.drop_expired(world.place)
    assert await output(world, first)
    async with world.connection() as conn:
        await conn.execute("UPDATE command SET updated_at = now() - interval '8 days' WHERE id = %s", [first.id])
    await exporting.drop_expired(world.place)
    async with world.connection() as conn:
        assert await items.find_item(conn, int(first.spec["outputItemId"], 16)) is None
        assert await items.find_item(conn, int(second.spec["outputItemId"], 16)) is not None
        await datasets.delete_dataset(conn, photos)
    await exporting.drop_all(world.place, photos.id)
    await deletion.purge_dataset(world.place, photos.id)
    await world.run_jobs(await binaries(world, photos))
    assert await objects(world, photos) == []


# Versions.


async def full(world: World, dataset, **more):
    return await export(world, dataset, mode="full", **more)


async def diff(world: World, dataset, since: int, **more):
    return await export(world, dataset, mode="diff", fromVersion=since, **more)


async def test_a_full_export_has_partitions_and_a_version(world, small, photos):
    command = await full(world, photos, partitionCount=3)
    result = command.spec["exportResult"]
    assert (result["mode"], result["totalRecords"], result["fromVersion"], result["toVersion"]) == ("full", 8, None, 1)
    assert result["manifestUrl"] == f"{BASE}/items/{command.spec['outputItemId']}/stream"
    manifest = json.loads(await output(world, command))
    assert manifest["partitioning"]["partitionCount"] == 3
    assert [one["filename"] for one in await lines(world, command)] == PATHS


async def test_a_diff_has_what_changed_and_what_is_gone(world, small, photos):
    since = (await full(world, photos)).spec["exportResult"]["toVersion"]
    none = await diff(world, photos, since)
    assert (none.spec["exportResult"]["totalRecords"], none.spec["exportResult"]["fromVersion"]) == (0, since)
    await world.upload(photos, "/new.txt", b"1")
    await world.upload(photos, "/0/3.txt", b"other")
    await annotate(world, photos, "/2/5.txt", "bird")
    await world.delete(photos, "/0/0.txt")
    command = await diff(world, photos, since)
    found = {one["filename"]: one.get("deleted", False) for one in await lines(world, command)}
    assert found == {"/0/3.txt": False, "/2/5.txt": False, "/new.txt": False, "/0/0.txt": True}
    assert [one["label"] for one in (await lines(world, command))[1]["annotations"]] == ["bird"]
    last = await diff(world, photos, command.spec["exportResult"]["toVersion"])
    assert last.spec["exportResult"]["totalRecords"] == 0


async def test_a_changed_annotation_changes_its_item(world, photos):
    since = (await full(world, photos)).spec["exportResult"]["toVersion"]
    item = await world.item(photos, "/1/4.txt")
    async with world.connection() as conn:
        (found, *_) = (await annotations.of_items(conn, photos.id, [item.id]))[item.id]
        await annotations.patch_annotations(
            conn, photos.id, [found.id], label="bear", user={}, system={}, updated_by_id=None
        )
    (told,) = await lines(world, command := await diff(world, photos, since))
    assert [one["label"] for one in told["annotations"]] == ["bear", "dog"]
    async with world.connection() as conn:
        await annotations.delete_annotations(conn, photos.id, [found.id])
    (told,) = await lines(world, await diff(world, photos, command.spec["exportResult"]["toVersion"]))
    assert [one["label"] for one in told["annotations"]] == ["dog"]


async def test_what_commits_late_is_never_lost(world, photos):
    """A transaction that was under way when the version was made, in a savepoint, as most of ours are."""
    await full(world, photos)
    item = await world.item(photos, "/2/2.txt")
    gone = await world.item(photos, "/2/5.txt")
    async with world.connection() as conn:
        await conn.execute("SELECT pg_current_xact_id()")
        async with conn.transaction():
            await conn.execute("UPDATE item SET description = 'late' WHERE id = %s", [item.id])
            await conn.execute("DELETE FROM item WHERE id = %s", [gone.id])
        for _ in range(3):  # transactions of others, so that the next ids are past ours
            await world.upload(photos, "/other.txt", b"1")
        since = (await full(world, photos)).spec["exportResult"]["toVersion"]
    found = {one["filename"]: one for one in await lines(world, await diff(world, photos, since))}
    assert found["/2/2.txt"]["description"] == "late"
    assert found["/2/5.txt"]["deleted"]


async def test_the_first_version_waits_for_deletions_that_leave_no_note(world, photos):
    gone = await world.item(photos, "/2/5.txt")
    command_id = await request(world, photos, mode="full")
    async with world.connection() as conn:
        await conn.execute("DELETE FROM item WHERE id = %s", [gone.id])
        running = asyncio.create_task(exporting.run_export(world.place, command_id))
        done, _ = await asyncio.wait([running], timeout=0.5)
        assert not done
    await running
    command = await command_of(world, command_id)
    assert "/2/5.txt" not in [one["filename"] for one in await lines(world, command)]


async def test_an_item_that_leaves_the_filter_is_told_as_gone(world, photos):
    query = {"itemsQuery": {"filter": {"metadata.user.n": {"$lt": 4}}}}
    since = (await full(world, photos, filters=query)).spec["exportResult"]["toVersion"]
    item = await world.item(photos, "/1/1.txt")
    async with world.connection() as conn:
        await conn.execute("UPDATE item SET user_metadata = '{\"n\": 40}' WHERE id = %s", [item.id])
    (told,) = await lines(world, await diff(world, photos, since, filters=query))
    assert told == {"id": f"{item.id:024x}", "filename": "/1/1.txt", "deleted": True}


async def test_a_version_of_another_database_gives_all(world, photos):
    since = (await full(world, photos)).spec["exportResult"]["toVersion"]
    async with world.connection() as conn:
        await conn.execute("UPDATE dataset_version SET cluster = 1 WHERE dataset_id = %s", [photos.id])
    command = await diff(world, photos, since)
    assert command.spec["exportResult"]["mode"] == "full"
    assert [one["filename"] for one in await lines(world, command)] == PATHS


async def test_old_versions_are_forgotten_but_the_newest(world, photos):
    await full(world, photos)
    await world.delete(photos, "/0/0.txt")
    second = (await full(world, photos)).spec["exportResult"]["toVersion"]
    await world.delete(photos, "/1/1.txt")
    async with world.connection() as conn:
        await conn.execute("UPDATE dataset_version SET made_at = now() - interval '1 year'")
    await exporting.drop_expired(world.place)
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT number FROM dataset_version WHERE dataset_id = %s", [photos.id])
        assert sorted(await cursor.fetchall()) == [(0,), (second,)]
        cursor = await conn.execute("SELECT path FROM deleted_item WHERE dataset_id = %s", [photos.id])
        assert await cursor.fetchall() == [("/1/1.txt",)]
