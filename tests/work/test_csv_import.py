"""CSV imports from end to end: what becomes of every row, and that nothing is done twice or half."""

import asyncio
import base64
import csv
import io
import json
import multiprocessing
import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog import commands, csv_imports, datasets, organizations, quotas
from headwater.errors import BadRequest, Conflict, NotFound, Unavailable
from headwater.net.addresses import read_inner_host
from headwater.net.fetch import Fetcher
from headwater.work import csv_import, deletion, verify
from headwater.work.csv_import import reading
from headwater.workplace import load_vault, open_workplace
from tests.work import csv_child
from tests.work.csv_corpus import CASES, Case, U, table
from tests.work.csv_files import finish, imported, items_of, request, result, take_jobs
from tests.work.quotas import give_to, make_organization
from tests.work.scripted import Crash, Fault, FaultyCursor, ScriptedStore
from tests.work.world import World

ROWS = 23


@pytest.fixture
def small_pieces(monkeypatch):
    """Three rows a transaction, and blocks with seams everywhere."""
    monkeypatch.setattr("headwater.work.csv_import.importing._PIECE_ROWS", 3)
    monkeypatch.setattr("headwater.work.csv_import.importing._LINK_ROWS", 3)
    monkeypatch.setattr("headwater.work.csv_import.reading._BLOCK_BYTES", 64)
    monkeypatch.setattr("headwater.storage.local.store._CHUNK_BYTES", 50)


def many(count: int = ROWS, action: str = "link") -> bytes:
    """Every fifth row is refused; every seventh has line ends in a cell."""
    rows = [
        f"{number},{'ftp://x' if number % 5 == 0 else U + str(number) + '.jpg'},{action},"
        + ('"two\nlines"' if number % 7 == 0 else "one")
        for number in range(count)
    ]
    return table(*rows, header="ID,URL,action,item_description")


def outcomes_of_many(count: int = ROWS, created: str = "created") -> list[tuple[int, str, str]]:
    return [(n + 2, "refused" if n % 5 == 0 else created, "URL" if n % 5 == 0 else "") for n in range(count)]


def check(verdicts: list[dict[str, str]], expected: dict[int, str]) -> None:
    assert [int(one["row"]) for one in verdicts] == list(expected)
    for found, wanted in zip(verdicts, expected.values(), strict=True):
        outcome, *rest = wanted.split(":", 2)
        assert found["outcome"] == outcome, found
        if outcome == "created":
            assert found["name"] == rest[0]
            assert found["item_id"]
        elif rest:
            assert found["column"] == rest[0], found
            assert rest[1] in found["reason"]
            assert found["reason"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_files_as_they_come(world, case: Case):
    dataset, folder = await world.own_dataset()
    if case.refused is not None:
        with pytest.raises(BadRequest) as told:
            await request(world, dataset, case.body, **case.options)
        assert case.refused in str(told.value)
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        return
    done = await imported(world, dataset, case.body, **case.options)
    check(done.verdicts, case.verdicts)
    assert (case.warning or "") in (done.command.warning or "")
    assert {name: done.told[name] for name in case.told} == case.told
    created = {f"/photos/{one['name'].removeprefix(chr(39))}" for one in done.verdicts if one["outcome"] == "created"}
    assert (await items_of(world, dataset)).keys() == created
    again = await imported(world, dataset, case.body, **case.options)
    expected = {row: "skipped" if said.startswith("created") else said for row, said in case.verdicts.items()}
    check(again.verdicts, expected)


# Stopped anywhere, it goes on and adds nothing twice.


@pytest.mark.parametrize("kind", ["statement", "commit lost", "commit unheard"])
async def test_it_goes_on_after_a_crash_anywhere(faulty, kind, small_pieces):
    dataset, _ = await faulty.own_dataset()
    nth, crashes = 1, 0
    command_id, _ = await request(faulty, dataset, many())
    while True:
        FaultyCursor.fault = Fault(kind, nth)
        try:
            await csv_import.import_rows(faulty.place, command_id)
        except Crash:
            crashes += 1
        else:
            break
        finally:
            FaultyCursor.fault = None
        nth = nth % 40 + 1 if kind == "statement" else nth % 6 + 1
        assert crashes < 300
    assert crashes > 3
    done = await result(faulty, command_id)
    assert done.command.status == "success"
    assert done.outcomes == outcomes_of_many()
    assert len(await items_of(faulty, dataset)) == sum(one[1] == "created" for one in outcomes_of_many())


async def test_two_workers_at_once_do_the_work_of_one(world, small_pieces):
    dataset, _ = await world.own_dataset()
    command_id, _ = await request(world, dataset, many(60))
    await asyncio.gather(*(csv_import.import_rows(world.place, command_id) for _ in range(3)))
    while not (done := await result(world, command_id)).command.has_ended:
        await csv_import.import_rows(world.place, command_id)
    assert done.outcomes == outcomes_of_many(60)
    await items_of(world, dataset)


async def test_an_aborted_import_is_resumed_in_the_middle(world, small_pieces, monkeypatch):
    dataset, _ = await world.own_dataset()
    command_id, _ = await request(world, dataset, many())
    from headwater.work.csv_import import importing

    settle, pieces = importing._settle, []

    async def settled(run, *arguments):
        if len(pieces) == 3:
            async with world.connection() as conn:
                await commands.request_abort(conn, command_id)
            await asyncio.Event().wait()
        pieces.append(None)
        await settle(run, *arguments)

    monkeypatch.setattr(importing, "_settle", settled)
    aborted = await finish(world, command_id)
    assert aborted.command.status == "aborted"
    assert "9 rows have their verdict" in aborted.command.error
    assert aborted.outcomes == outcomes_of_many()[:9]
    monkeypatch.setattr(importing, "_settle", settle)
    async with world.connection() as conn:
        mine = await datasets.get_dataset(conn, world.owner, dataset.id)
        await csv_import.resume_import(conn, mine, command_id)
    assert await take_jobs(world, command_id) == 1
    done = await finish(world, command_id)
    assert done.command.status == "success"
    assert done.outcomes == outcomes_of_many()
    async with world.connection() as conn:
        with pytest.raises(Conflict, match="come to its end"):
            await csv_import.resume_import(conn, mine, command_id)
        other = (await world.own_dataset())[0]
        with pytest.raises(NotFound):
            await csv_import.resume_import(conn, other, command_id)


async def test_the_same_file_again_goes_on_with_one_that_failed(world, small_pieces):
    dataset, folder = await world.own_dataset()
    command_id, is_new = await request(world, dataset, many())
    await csv_import.give_up(world.place, command_id, "The moon was full.")
    again, is_new = await request(world, dataset, many())
    assert (again, is_new) == (command_id, False)
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 1  # the file is kept once
    done = await finish(world, command_id)
    assert (done.command.status, done.command.error) == ("success", None)
    other, is_new = await request(world, dataset, many())
    assert is_new
    once_more = await finish(world, other)
    assert once_more.outcomes == outcomes_of_many(created="skipped")
    assert once_more.told["created"] == 0


# Uploads, and other stores.


@contextmanager
def web(answers: dict[str, tuple[int, bytes]]):
    """A site with these pages; gives its port, and the paths that were asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, body = answers.get(self.path, (404, b"no"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
async def outward(world):
    """The world with a fetcher that may reach this machine."""
    fetcher = Fetcher(inner_hosts=[read_inner_host("127.0.0.1")])
    yield replace(world, place=replace(world.place, fetcher=fetcher))
    await fetcher.close()


@pytest.fixture(params=["own storage", "folder", "seaweedfs"])
async def dataset(request: pytest.FixtureRequest, world):
    if request.param == "own storage":
        return (await world.own_dataset())[0]
    if request.param == "folder":
        return (await world.local_dataset())[0]
    return (await world.s3_dataset(request.getfixturevalue("weed")))[0]


async def bytes_of(world, dataset, path: str) -> bytes:
    item = await world.item(dataset, path)
    async with world.place.places.of_item(item) as store, store.get(item.key) as reader:
        return await reader.read()


async def test_bytes_of_cells_and_of_urls_are_uploaded(outward, dataset, monkeypatch):
    monkeypatch.setattr("headwater.work.csv_import.importing._TRIED_AGAIN_AFTER_S", 0)
    with web({"/a.jpg": (200, b"picture"), "/busy": (503, b"later")}) as (port, asked):
        site = f"http://127.0.0.1:{port}"
        cell = base64.b64encode(b"cell").decode()
        body = table(
            f"1,{site}/a.jpg,upload,",
            f"2,{site}/none.jpg,upload,",
            f"3,{site}/busy,upload,",
            f"4,,upload,{cell}",
            f"4,{site}/a.jpg,upload,",
            "5,https://nowhere.invalid/x.jpg,upload,",
            f"2,,upload,{cell}",  # the first of its name could not be had
            f"6,{site}/a.jpg,link,",
            header="ID,URL,action,image_bytes",
        )
        done = await imported(outward, dataset, body)
        assert asked.count("/busy") == 2
        requests = len(asked)
        assert done.outcomes == [
            (2, "created", ""),
            (3, "refused", "URL"),
            (4, "refused", "URL"),
            (5, "created", ""),
            (6, "refused", "name"),
            (7, "refused", "URL"),
            (8, "created", ""),
            (9, "created", ""),
        ]
        assert "Row 5 has this name" in done.reasons[6]
        assert await bytes_of(outward, dataset, "/photos/1.jpg") == b"picture"
        assert await bytes_of(outward, dataset, "/photos/4.jpg") == b"cell"
        assert await bytes_of(outward, dataset, "/photos/2.jpg") == b"cell"
        again = await imported(outward, dataset, body)
        assert [one[1] for one in again.outcomes] == [
            "skipped", "refused", "refused", "skipped", "refused", "refused", "skipped", "skipped"
        ]  # fmt: skip
        assert len(asked) == requests + 2  # what is there is not fetched again


async def test_links_in_a_bucket_are_files_that_say_so(world, dataset):
    done = await imported(world, dataset, table(f"1,{U}a.jpg,one", f"2,{U}b.png,two.png"))
    assert [one[1] for one in done.outcomes] == ["created", "created"]
    found = await items_of(world, dataset)
    if dataset.driver_id is None:
        assert {path: one["object_key"] for path, one in found.items()} == {
            "/photos/one.jpg": None,
            "/photos/two.png": None,
        }
        return
    assert found.keys() == {"/photos/one.jpg_link.json", "/photos/two.png_link.json"}
    body = json.loads(await bytes_of(world, dataset, "/photos/two.png_link.json"))
    assert body["metadata"]["linkInfo"] == {"type": "url", "ref": f"{U}b.png", "mimetype": "image/png"}
    before = await world.rows_written(dataset)
    await world.sync(dataset)
    assert (await world.rows_written(dataset))["item"] == before["item"]


async def test_objects_of_a_bucket_that_have_no_items_stay_as_they_are(outward):
    with web({"/a.jpg": (200, b"picture")}) as (port, _):
        bucket = ScriptedStore({f"photos/{name}": b"of others" for name in ("1.jpg", "2.jpg", "3.jpg_link.json")})
        dataset = await outward.dataset(bucket)
        cell = base64.b64encode(b"cell").decode()
        done = await imported(
            outward,
            dataset,
            table(
                f"1,,upload,{cell}",
                f"2,http://127.0.0.1:{port}/a.jpg,upload,",
                f"3,{U}3.jpg,link,",
                f"4,,upload,{cell}",
                header="ID,URL,action,image_bytes",
            ),
        )
    assert [one[1] for one in done.outcomes] == ["skipped", "skipped", "skipped", "created"]
    assert "stays as it is" in done.reasons[2]
    assert set(bucket.objects.values()) == {b"of others", b"cell"}
    assert (await items_of(outward, dataset)).keys() == {"/photos/4.jpg"}


async def test_objects_that_an_import_wrote_before_it_died_are_its_own(outward, monkeypatch):
    with web({"/a.jpg": (200, b"picture")}) as (port, _):
        bucket = ScriptedStore()
        dataset = await outward.dataset(bucket)
        cell = base64.b64encode(b"cell").decode()
        body = table(
            f"1,,upload,{cell},one",
            f"2,http://127.0.0.1:{port}/a.jpg,upload,,two",
            f"3,{U}3.jpg,link,,three",
            header="ID,URL,action,image_bytes,item_description",
        )
        command_id, _ = await request(outward, dataset, body)

        async def failing(*_, **__):
            raise Unavailable("It is away.")

        with monkeypatch.context() as patch:
            patch.setattr("headwater.catalog.items.put_rows", failing)
            with pytest.raises(Unavailable):
                await csv_import.import_rows(outward.place, command_id)
        assert len(bucket.objects) == 3
        done = await finish(outward, command_id)
    assert [one[1] for one in done.outcomes] == ["created"] * 3
    assert [one["description"] for _, one in sorted((await items_of(outward, dataset)).items())] == [
        "one", "two", "three"
    ]  # fmt: skip


async def test_of_two_imports_at_once_each_item_is_what_lies_in_the_bucket(world, weed):
    dataset, store = await world.s3_dataset(weed)
    bodies = [
        table(*(f"{n},{base64.b64encode(f'{one} {n}'.encode()).decode()}" for n in range(60)), header="ID,image_bytes")
        for one in "ab"
    ]
    ids = [(await request(world, dataset, body))[0] for body in bodies]
    done = await asyncio.gather(*(finish(world, command_id) for command_id in ids))
    told = [one[1] for imported in done for one in imported.outcomes]
    assert (told.count("created"), told.count("skipped")) == (60, 60)
    for path, item in (await items_of(world, dataset)).items():
        assert (await store.head(path[1:])).etag == item["etag"]


async def test_a_bucket_that_is_away_stops_the_import_and_no_row(world, monkeypatch):
    bucket = ScriptedStore()
    dataset = await world.dataset(bucket)
    command_id, _ = await request(world, dataset, many())
    bucket.fault = Fault("store", 4, Unavailable("The bucket is away."))
    with pytest.raises(Unavailable):
        await csv_import.import_rows(world.place, command_id)
    assert (await result(world, command_id)).verdicts == []
    done = await finish(world, command_id)
    assert done.outcomes == outcomes_of_many()
    assert len(await items_of(world, dataset)) == len(bucket.objects)


async def test_nothing_is_left_of_uploads_that_were_stopped(world, monkeypatch):
    dataset, folder = await world.own_dataset()
    body = table("1," + base64.b64encode(b"x").decode(), header="ID,image_bytes")
    command_id, _ = await request(world, dataset, body)

    async def failing(*_, **__):
        raise Unavailable("It is away.")

    monkeypatch.setattr("headwater.catalog.items.put_rows", failing)
    with pytest.raises(Unavailable):
        await csv_import.import_rows(world.place, command_id)
    assert list((folder / "objects").iterdir()) == []
    monkeypatch.undo()
    assert (await finish(world, command_id)).outcomes == [(2, "created", "")]


# Rules.


async def test_rows_without_room_are_refused_and_known(world, small_pieces):
    dataset, _ = await world.own_dataset()
    async with world.connection() as conn:
        await give_to(conn, organization_id := await make_organization(conn, 5), dataset)
    done = await imported(world, dataset, many())
    created = [row for row, outcome, _ in done.outcomes if outcome == "created"]
    assert created == [3, 4, 5, 6, 8]
    assert len(done.outcomes) == ROWS
    assert all("data point" in done.reasons[row] for row in range(9, ROWS + 2) if (row - 2) % 5)
    async with world.connection() as conn:
        await quotas.set_limit(conn, organization_id, 100)
    again = await imported(world, dataset, many())
    assert [one[1] for one in again.outcomes][:7] == ["refused", *["skipped"] * 4, "refused", "skipped"]
    assert again.told["created"] == sum(one[1] == "created" for one in outcomes_of_many()) - 5


async def test_a_dry_run_tells_the_same_and_adds_nothing(world, small_pieces):
    dataset, _ = await world.own_dataset()
    body = many() + many()[len(b"ID,URL,action,item_description\n") :]
    told = await imported(world, dataset, body, is_dry_run=True)
    assert await items_of(world, dataset) == {}
    done = await imported(world, dataset, body)
    assert told.outcomes == done.outcomes
    assert done.told["refused"] > ROWS


async def test_doubles_are_refused_wherever_they_sit(world, small_pieces):
    rows = [f"{number},{U}{number}.jpg" for number in range(12)]
    for place in (1, 2, 5, 12):
        dataset, _ = await world.own_dataset()
        given = [*rows[:place], f"0,{U}other.jpg", *rows[place:]]
        for name in ("created", "skipped"):
            done = await imported(world, dataset, table(*given, header="ID,URL"))
            assert done.reasons[place + 2] == "Row 2 has this name already."
            assert {outcome for row, outcome, _ in done.outcomes if row != place + 2} == {name}


async def test_an_item_of_another_origin_is_left_alone(world):
    dataset, _ = await world.own_dataset()
    await world.upload(dataset, "/photos/one.jpg", b"mine")
    done = await imported(world, dataset, table(f"1,{U}a.jpg,one", f"2,{U}b.jpg,one"))
    assert [one[1] for one in done.outcomes] == ["skipped", "skipped"]
    assert await bytes_of(world, dataset, "/photos/one.jpg") == b"mine"


@pytest.mark.parametrize(
    ("name", "folder", "path"),
    [
        ("a.b.csv", "", "/a.b/1.jpg"),
        ("x", "", "/x/1.jpg"),
        ("p.csv", "/in/there/", "/in/there/1.jpg"),
        ("p.csv", "/", "/1.jpg"),
    ],
)
async def test_the_folder(world, name, folder, path):
    dataset, _ = await world.own_dataset()
    await imported(world, dataset, table(f"1,{U}a.jpg", header="ID,URL"), name=name, folder=folder)
    assert (await items_of(world, dataset)).keys() == {path}


async def test_what_may_not_be_imported_leaves_nothing(world):
    dataset, folder = await world.own_dataset()
    for options, said in (
        ({"most_bytes": 10}, "longer than 10 bytes"),
        ({"folder": "a/../b"}, "cannot be an item's path"),
        ({"folder": ".dataloop/thumbnails"}, "keeps its own files"),
        ({"encoding": "utf-8", "separator": "|"}, "has to name the columns"),
    ):
        with pytest.raises(BadRequest, match=said):
            await request(world, dataset, many(), **options)
    async with world.connection() as conn:
        mine = await datasets.get_dataset(conn, world.owner, dataset.id)
        await datasets.update_dataset(conn, world.owner, mine, readonly=True)
        mine = await datasets.get_dataset(conn, world.owner, dataset.id)
    with pytest.raises(BadRequest, match="read-only"):
        await request(world, mine, many())
    assert [path for path in folder.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("name", ["utf-7", "idna", "unicode_escape", "rot13", "nonsense", "", "base64"])
def test_encodings_that_are_not_read(name):
    with pytest.raises(BadRequest, match="is not read"):
        csv_import.check_encoding(name)


# What is kept, and how it goes.


async def test_files_and_verdicts_go_some_days_after_the_end(world, small_pieces):
    dataset, folder = await world.own_dataset()
    done = await imported(world, dataset, many())

    def kept() -> int:
        return len([path for path in (folder / "imports").rglob("*") if path.is_file()])

    assert kept() > 2
    await csv_import.drop_expired(world.place)
    assert kept() > 2
    async with world.connection() as conn:
        await conn.execute("UPDATE command SET updated_at = now() - interval '8 days' WHERE id = %s", [done.command.id])
    await csv_import.drop_expired(world.place)
    assert kept() == 0
    async with world.connection() as conn:
        assert (await csv_imports.get(conn, done.command.id)).is_dropped
    assert len(await items_of(world, dataset)) == done.told["created"]


async def test_one_that_may_be_resumed_is_kept_longer(world):
    dataset, folder = await world.own_dataset()
    command_id, _ = await request(world, dataset, many())
    await csv_import.give_up(world.place, command_id, "It failed.")
    async with world.connection() as conn:
        await conn.execute("UPDATE command SET updated_at = now() - interval '80 days' WHERE id = %s", [command_id])
    await csv_import.drop_expired(world.place)
    assert len(list((folder / "imports").iterdir())) == 1
    async with world.connection() as conn:
        await conn.execute("UPDATE command SET updated_at = now() - interval '91 days' WHERE id = %s", [command_id])
    await csv_import.drop_expired(world.place)
    assert list((folder / "imports").iterdir()) == []
    async with world.connection() as conn:
        mine = await datasets.get_dataset(conn, world.owner, dataset.id)
        with pytest.raises(Conflict, match="kept no longer"):
            await csv_import.resume_import(conn, mine, command_id)


async def test_links_without_an_object_are_verified_deleted_and_purged(world):
    dataset, folder = await world.own_dataset()
    await imported(world, dataset, many())
    await world.upload(dataset, "/imports/x.csv", b"an ordinary item")
    async with world.connection() as conn:
        mine = await datasets.get_dataset(conn, world.owner, dataset.id)
        checking = await verify.request_verify(conn, mine, caller_id=world.owner.id, repair=False)
    await verify.verify_dataset(world.place, checking)
    async with world.connection() as conn:
        told = (await commands.load_command(conn, checking)).spec["verify"]
    differences = {name: count for name, count in told["counts"].items() if count and name != "forgottenItems"}
    assert differences == {}
    before = {path for path in folder.rglob("*") if path.is_file()}
    await world.delete(dataset, "/photos/1.jpg")
    await world.run_jobs(dataset)
    assert {path for path in folder.rglob("*") if path.is_file()} == before
    assert await world.item(dataset, "/photos/1.jpg") is None
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT path FROM tombstone WHERE dataset_id = %s", [dataset.id])
        assert await cursor.fetchall() == []
    again = await imported(world, dataset, many())
    assert again.told["created"] == 1
    async with world.connection() as conn:
        await datasets.delete_dataset(conn, dataset)
    await deletion.purge_dataset(world.place, dataset.id)
    assert [path for path in folder.rglob("*") if path.is_file()] == []


# Any table, however it is written.

TEXTS = st.text(st.characters(codec="utf-16", exclude_characters="\0\ufeff\u200b"), max_size=12)
ROWS_OF_TABLES = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS_OF_TABLES,
    separator=st.sampled_from([",", ";", "\t", "|"]),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    piece=st.integers(1, 40),
    block=st.integers(1, 60),
)
def test_any_table_is_read_as_it_was_written(rows, separator, end, quoting, encoding, piece, block):
    if any(end in cell for row in rows for cell in row for end in "\r\n"):
        quoting = csv.QUOTE_ALL  # Python's writer leaves a lone CR without quotes
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerow(["URL", "item_description"])
    writer.writerows(rows)
    raw = text.getvalue().encode(encoding)
    told = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le"}.get(encoding, encoding)
    outline = reading.read_outline(raw, told, separator, len, is_whole=True)
    before, reading._BLOCK_BYTES = reading._BLOCK_BYTES, block
    try:
        reader = reading.Reader(outline.layout, outline.rows)
        records = []
        for start in range(outline.rows.byte, len(raw), piece):
            records += reader.feed(raw[start : start + piece])
        records += reader.end()
        assert [record.reason for record in records] == [None] * len(records)
        assert [tuple(record.cells) for record in records] == list(rows)
        for record in records:  # from the place that is kept with any of them the rest is the same
            later = reading.Reader(outline.layout, record.point)
            rest = later.feed(raw[record.point.byte :]) + later.end()
            assert [one.cells for one in rest if one.row >= record.row] == [
                one.cells for one in records if one.row >= record.row
            ]
    finally:
        reading._BLOCK_BYTES = before


def test_a_row_that_never_ends_costs_itself_alone():
    body = b"1,ok\n2," + b"x" * 5000 + b"\n3,ok\n" + b'4,"' + b"y\n" * 3000 + b'5,"ok"\n'
    for piece in (1, 7, 64, 10_000):
        reader = reading.Reader(reading.Layout("utf-8"), reading.Point(0, 2), longest_row=1000)
        records = []
        for start in range(0, len(body), piece):
            records += reader.feed(body[start : start + piece])
        records += reader.end()
        assert [record.row for record in records] == list(range(2, 2 + len(records)))
        told = [(record.cells[:2], bool(record.reason)) for record in records if record.cells != ["y"]]
        assert [cells for cells, is_refused in told if not is_refused] == [["1", "ok"], ["3", "ok"], ["5", "ok"]]
        assert sum(is_refused for _, is_refused in told) == 2


def test_long_lines_are_read_like_others(monkeypatch):
    """Without Python's csv where it would take too much memory."""
    lines = [
        "1,x",
        "22,  " + "y" * 60,
        "3, z",
        '4,"' + "q" * 60 + '"',
        "5," + "w" * 60,
        ' 6,"a',
        "7," + "v" * 60 + ' b"',
        "",
    ]
    body = "\r\n".join(lines).encode()
    for skips_spaces in (False, True):
        layout = reading.Layout("utf-8", skips_spaces=skips_spaces)
        told = []
        for length in (10**6, 50):
            monkeypatch.setattr("headwater.work.csv_import.reading._LONG_LINE", length)
            reader = reading.Reader(layout, reading.Point(0, 1))
            told.append([(one.row, one.cells, one.reason) for one in reader.feed(body) + reader.end()])
        assert told[0] == told[1]
        assert len(told[0]) == 6


# Killed for real.


@pytest.mark.timeout(180)
async def test_killed_again_and_again_it_goes_on(new_database, settings_for, tmp_path):
    given = settings_for(decoders=1)
    url = new_database()
    async with open_workplace(given, url, name="csv", max_connections=4) as place:
        async with place.pool.connection() as conn:
            owner = await organizations.get_owner(conn)
        world = World(place, owner, tmp_path, load_vault(given).local)
        dataset, _ = await world.own_dataset()
        body = many(600).replace(b"5.jpg,link", b"5.jpg,")
        cell = base64.b64encode(b"bytes").decode()
        body += f'600,,upload,one\n601,data:image/png;base64,"{cell}\n'.encode()
        command_id, _ = await request(world, dataset, body)
        arguments = (
            {"data_dir": str(given.data_dir), "local_roots": given.local_roots, "decoders": 1},
            url,
            command_id,
        )

        async def settled() -> int:
            async with world.connection() as conn:
                return (await csv_imports.get(conn, command_id)).settled_row

        kills = 0
        for target in (30, 150, 151, 320):
            process = multiprocessing.get_context("spawn").Process(target=csv_child.run, args=arguments, daemon=True)
            process.start()
            async with asyncio.timeout(60):
                while await settled() < target and process.is_alive():  # noqa: ASYNC110 - another process does it
                    await asyncio.sleep(0.001)
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
        assert kills >= 3
        done = await finish(world, command_id)
        assert done.command.status == "success"
        assert [one[:2] for one in done.outcomes] == [
            *((row, outcome) for row, outcome, _ in outcomes_of_many(600)),
            (602, "refused"),
            (603, "refused"),
        ]
        assert len(await items_of(world, dataset)) == done.told["created"]


def test_memory_stays_flat_however_long_the_file():
    """What a reader holds is a block and its records, whatever came before."""
    reader = reading.Reader(reading.Layout("utf-8"), reading.Point(0, 2))
    line = f"1,{U}a.jpg,{'x' * 200}\n".encode() * 300
    rows = 0
    for _ in range(300):
        rows += len(reader.feed(line))
        assert len(reader._held) <= 2 * reading._BLOCK_BYTES
    rows += len(reader.end())
    assert rows == 300 * 300


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "cp949"])
def test_a_seam_between_any_two_bytes_changes_nothing(encoding, monkeypatch):
    monkeypatch.setattr(reading, "_BLOCK_BYTES", 1)
    body = '가,b\r\n"c\r\nd",나\r\n\r\ne,f\rg,h\n'.encode(encoding)
    for piece in range(1, len(body) + 1):
        reader = reading.Reader(reading.Layout(encoding), reading.Point(0, 2))
        records = []
        for start in range(0, len(body), piece):
            records += reader.feed(body[start : start + piece])
        records += reader.end()
        assert [(record.row, record.cells) for record in records] == [
            (2, ["가", "b"]),
            (3, ["c\r\nd", "나"]),
            (4, []),
            (5, ["e", "f"]),
            (6, ["g", "h"]),
        ]
