"""Deleting objects as durable jobs: what is asked for goes, what is refused is told, what came later stays."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog import commands, datasets, drivers, projects, selections, tombstones
from headwater.errors import BadRequest, StoreDenied, Unavailable
from headwater.work import deletion
from tests.work.scripted import Crash, Fault, FaultyCursor, ScriptedStore
from tests.work.world import World


class Guarded(ScriptedStore):
    """Says no to the deletion of some keys."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.locked: set[str] = set()
        self.is_away = False

    async def delete(self, key: str) -> None:
        if self.is_away:
            raise Unavailable("The store does not answer. Try again later.")
        if key in self.locked:
            raise StoreDenied(f"A retention policy keeps {key!r}.")
        await super().delete(key)


async def counts(world: World, dataset) -> tuple[int, int, int]:
    async with world.connection() as conn:
        found = await tombstones.count_tombstones(conn, dataset.id)
    return found.staying, found.waiting, found.refused


async def notices_of(world: World, dataset) -> list[str]:
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT message FROM notice WHERE dataset_id = %s AND title = 'Objects could not be deleted' ORDER BY id",
            [dataset.id],
        )
        return [message for (message,) in await cursor.fetchall()]


async def delete_selected(world: World, dataset, wanted: dict, *, runs: int = 1):
    """As the route does it, and then the job."""
    async with world.connection() as conn:
        selection = deletion.selection_of(wanted)
        summary = await selections.summarize(conn, dataset.id, selection, examples=3)
        command_id = await deletion.request_deletion(conn, dataset, wanted, summary, caller_id=world.owner.id)
    await asyncio.gather(
        *(
            deletion.delete_items(world.place, command_id=command_id, wanted=wanted, last_id=summary.last_id)
            for _ in range(runs)
        )
    )
    async with world.connection() as conn:
        return await commands.load_command(conn, command_id)


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(deletion, "_PIECE_ITEMS", 3)
    monkeypatch.setattr(deletion, "_LOCKED_PATHS", 2)


async def test_an_object_that_was_replaced_since_is_kept_and_comes_back(world):
    store = ScriptedStore({"a": b"seen", "b": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    await world.delete(dataset, "/a")
    store.objects["a"] = b"what came later"
    await world.run_jobs(dataset)
    assert store.objects["a"] == b"what came later"
    assert await counts(world, dataset) == (0, 0, 0)
    _, scan = await world.sync(dataset)
    assert (scan.created, scan.kept_deleted) == (1, 0)
    assert (await world.index(dataset))["/a"][0] == store.etag_of("a")


async def test_the_object_of_a_row_that_was_never_told_of_a_change_is_kept(world):
    """The user deleted what they saw, which was not what the bucket had."""
    store = ScriptedStore({"a": b"seen", "b": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.objects["a"] = b"changed before the deletion"
    await world.delete(dataset, "/a")
    await world.run_jobs(dataset)
    assert "a" in store.objects


async def test_what_is_refused_is_kept_with_its_reason_told_once_and_tried_again(world, small_pieces):
    store = Guarded({f"{n}": b"1" for n in range(10)})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.locked = {str(n) for n in range(2, 9)}
    command = await delete_selected(world, dataset, {"filter": {}})
    assert (command.status, command.spec["deletion"]["deleted"]) == ("success", 10)
    assert await counts(world, dataset) == (0, 10, 0)
    await world.run_jobs(dataset)
    assert set(store.objects) == store.locked
    assert await counts(world, dataset) == (0, 0, 7)
    (told,) = await notices_of(world, dataset)
    assert "A retention policy keeps" in told
    assert "headwater delete dataset --retry" in told
    async with world.connection() as conn:
        refused = await tombstones.list_tombstones(conn, dataset.id, state="refused")
    assert [one.path for one in refused] == [f"/{n}" for n in range(2, 9)]
    assert refused[0].object_delete_error == "A retention policy keeps '2'."
    for _ in range(2):  # no sync brings back what was deleted here
        _, scan = await world.sync(dataset)
        assert (scan.created, scan.kept_deleted) == (0, 7)
    store.locked = {"2"}
    async with world.connection() as conn:
        assert await deletion.retry_refused(conn, dataset) == 7
    await world.run_jobs(dataset)
    assert set(store.objects) == {"2"}
    assert await counts(world, dataset) == (0, 0, 1)
    assert len(await notices_of(world, dataset)) == 1


async def test_a_store_that_is_away_is_waited_for_and_in_the_end_written_down(world):
    store = Guarded({"a": b"1", "b": b"2", "c": b"3"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.is_away = True
    doomed = []
    for path in ("/a", "/b"):
        await world.delete(dataset, path)
        doomed.append({"path": path, "object_key": None, "thumbnail": None})
    given = {"dataset_id": dataset.id, "doomed": doomed, "delete_object": True}
    with pytest.raises(Unavailable):
        await deletion.delete_objects(world.place, **given)
    assert await counts(world, dataset) == (0, 2, 0)
    await deletion.delete_objects(world.place, **given, is_last_try=True)
    assert await counts(world, dataset) == (0, 0, 2)
    store.is_away = False
    async with world.connection() as conn:
        await deletion.retry_refused(conn, dataset)
    await world.run_jobs(dataset)
    assert set(store.objects) == {"c"}
    assert await counts(world, dataset) == (0, 0, 0)


async def test_one_object_that_is_away_does_not_hold_up_the_others(world, small_pieces):
    store = ScriptedStore({f"{n}": b"1" for n in range(7)})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    for n in range(6):
        await world.delete(dataset, f"/{n}")
    doomed = [{"path": f"/{n}", "object_key": None, "thumbnail": None} for n in range(6)]
    store.fault = Fault("store", 3, Unavailable("Try again."))
    with pytest.raises(Unavailable):
        await deletion.delete_objects(world.place, dataset_id=dataset.id, doomed=doomed, delete_object=True)
    assert len(store.objects) == 2
    await world.run_jobs(dataset)
    assert set(store.objects) == {"6"}


async def test_what_is_no_longer_allowed_stays_in_the_bucket(world):
    store = ScriptedStore({"a": b"1", "b": b"2"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    await world.delete(dataset, "/a")
    async with world.connection() as conn:
        driver = await drivers.get_driver(conn, dataset.driver_id)
        await drivers.update_driver(conn, driver, drivers.DriverChange(allow_delete=False))
    await world.substitute(dataset, store)
    await world.run_jobs(dataset)
    assert set(store.objects) == {"a", "b"}
    assert await counts(world, dataset) == (1, 0, 0)
    async with world.connection() as conn:
        with pytest.raises(BadRequest, match="does not allow objects to be deleted"):
            await deletion.retry_refused(conn, dataset)


@pytest.mark.parametrize("runs", [1, 3], ids=["alone", "side by side"])
async def test_many_are_deleted_in_pieces_with_everything_that_one_deletion_does(world, small_pieces, runs):
    store = ScriptedStore({f"d/{n:02}": b"x" * n for n in range(10)} | {"d0": b"1", "e": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    await world.preprocess(dataset, ["/d/01", "/e"])
    command = await delete_selected(world, dataset, {"folder": "/d", "shown": True}, runs=runs)
    assert (command.status, command.error) == ("success", None)
    told = command.spec["deletion"]
    assert (told["items"], told["deleted"], told["bytes"]) == (10, 10, 45)
    assert set(await world.index(dataset)) == {"/d0", "/e"}  # and the counters are true
    assert await world.run_jobs(dataset) == 4
    assert set(store.objects) == {"d0", "e"} | {key for key in store.objects if key.startswith(".dataloop")}
    _, scan = await world.sync(dataset)
    assert (scan.created, scan.gone) == (0, 0)


async def test_an_item_that_comes_later_is_not_deleted_and_an_abort_stops_between_pieces(world, small_pieces):
    store = ScriptedStore({f"{n:02}": b"x" for n in range(10)})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    wanted = {"filter": {}}
    async with world.connection() as conn:
        summary = await selections.summarize(conn, dataset.id, deletion.selection_of(wanted), examples=3)
        command_id = await deletion.request_deletion(conn, dataset, wanted, summary, caller_id=world.owner.id)
    await world.upload(dataset, "/later", b"1")
    selection = deletion.selection_of(wanted)
    async with world.connection() as conn:
        assert not await deletion._delete_next(conn, command_id, selection, summary.last_id)
        await commands.request_abort(conn, command_id)
    await deletion.delete_items(world.place, command_id=command_id, wanted=wanted, last_id=summary.last_id)
    async with world.connection() as conn:
        command = await commands.load_command(conn, command_id)
    assert (command.status, command.spec["deletion"]["deleted"]) == ("aborted", 3)
    assert "3 of 10 items were deleted" in command.error
    assert len(await world.index(dataset)) == 8
    await delete_selected(world, dataset, {"filter": {"filename": "/0*"}})
    assert set(await world.index(dataset)) == {"/later"}


async def test_what_goes_missing_later_is_not_deleted_with_what_is_missing(world, small_pieces):
    store = ScriptedStore({f"{n}": b"x" for n in range(6)})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    outage = {key: store.objects.pop(key) for key in "345"}
    await world.sync(dataset)
    async with world.connection() as conn:
        summary = await selections.summarize(conn, dataset.id, deletion.selection_of({"missing": True}), examples=3)
        wanted = {"missing": True}
        command_id = await deletion.request_deletion(conn, dataset, wanted, summary, caller_id=world.owner.id)
        cursor = await conn.execute(
            "DELETE FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s RETURNING args",
            [deletion.DELETE_ITEMS_TASK, str(command_id)],
        )
        (arguments,) = await cursor.fetchone()
    outage |= {key: store.objects.pop(key) for key in "12"}
    await world.sync(dataset)
    await deletion.delete_items(world.place, **arguments)
    assert set(await world.index(dataset)) == {"/0", "/1", "/2"}
    store.objects |= outage
    await world.run_jobs(dataset)
    assert set(store.objects) == set("012345")
    await world.sync(dataset)
    assert set(await world.index(dataset)) == {f"/{n}" for n in range(6)}


async def test_the_object_of_a_ghost_that_was_deleted_stays_if_it_returns(world):
    store = ScriptedStore({"a": b"1", "b": b"2"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    away = store.objects.pop("a")
    await world.sync(dataset)
    await world.delete(dataset, "/a")
    store.objects["a"] = away
    await world.run_jobs(dataset)
    assert set(store.objects) == {"a", "b"}
    await world.sync(dataset)
    assert set(await world.index(dataset)) == {"/a", "/b"}


@pytest.mark.parametrize("kind", ["statement", "commit lost", "commit unheard"])
async def test_a_deletion_of_many_that_dies_at_any_call_is_finished_by_the_next(world, faulty, small_pieces, kind):
    for nth in range(1, 200):
        store = ScriptedStore({f"{n}": b"x" for n in range(8)})
        dataset = await world.dataset(store)
        await world.sync(dataset)
        wanted = {"filter": {"filename": {"$ne": "/7"}}}
        async with world.connection() as conn:
            summary = await selections.summarize(conn, dataset.id, deletion.selection_of(wanted), examples=3)
            command_id = await deletion.request_deletion(conn, dataset, wanted, summary, caller_id=world.owner.id)
        given = {"command_id": command_id, "wanted": wanted, "last_id": summary.last_id}
        FaultyCursor.fault = fault = Fault(kind, nth)
        try:
            await deletion.delete_items(faulty.place, **given)
        except Crash:
            pass
        finally:
            FaultyCursor.fault = None
        await deletion.delete_items(world.place, **given)
        async with world.connection() as conn:
            command = await commands.load_command(conn, command_id)
        assert (command.status, command.spec["deletion"]["deleted"]) == ("success", 7), nth
        assert await world.run_jobs(dataset) == 3
        assert set(store.objects) == {"7"}
        assert set(await world.index(dataset)) == {"/7"}
        if not fault.has_fired:
            break
    assert nth > 3


async def test_deletions_of_many_and_uploads_side_by_side_wait_for_nobody_for_ever(world, small_pieces):
    dataset, folder = await world.own_dataset()
    await asyncio.gather(*(world.upload(dataset, f"/{n}", b"1") for n in range(12)))
    async with asyncio.timeout(30):
        await asyncio.gather(
            *(delete_selected(world, dataset, {"filter": {}}) for _ in range(3)),
            *(world.upload(dataset, f"/{n}", b"22") for n in range(12)),
        )
    await world.run_jobs(dataset)
    left = await world.index(dataset)
    kept = [(await world.item(dataset, path)).object_key for path in left]
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == sorted(kept)
    assert await counts(world, dataset) == (0, 0, 0)


async def test_undo_brings_back_what_stayed_and_stops_what_waits(world):
    store = ScriptedStore({"a/1": b"1", "a/2": b"2", "a0": b"3", "b": b"4", "c": b"5"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    for path in ("/a/1", "/a/2", "/a0", "/b"):
        await world.delete(dataset, path)
    async with world.connection() as conn:
        assert await tombstones.restore(conn, dataset.id, folder="/a") == 2
        assert await tombstones.restore(conn, dataset.id, paths=["/b", "/never"]) == 1
    await world.run_jobs(dataset)
    assert set(store.objects) == {"a/1", "a/2", "b", "c"}
    await world.sync(dataset)
    assert set(await world.index(dataset)) == {"/a/1", "/a/2", "/b", "/c"}
    async with world.connection() as conn:
        assert await tombstones.restore(conn, dataset.id) == 0  # its object is gone


async def test_our_own_storage_keeps_no_tombstone_of_what_is_gone(world):
    dataset, folder = await world.own_dataset()
    for path in ("/a", "/b"):
        await world.upload(dataset, path, b"1")
    await delete_selected(world, dataset, {"filter": {"filename": "/a"}})
    assert await counts(world, dataset) == (0, 1, 0)
    await world.run_jobs(dataset)
    assert await counts(world, dataset) == (0, 0, 0)
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 1


async def test_deleting_from_a_real_bucket_takes_few_requests(world, weed):
    dataset, store = await world.s3_dataset(weed)
    keys = [f"d/{n}" for n in range(30)] + ["keep", "d/replaced"]
    for key in keys:
        await store.put(key, b"1", content_type="text/plain")
    await world.sync(dataset)
    await store.put("d/replaced", b"later", content_type="text/plain")
    command = await delete_selected(world, dataset, {"folder": "/d", "shown": True})
    assert command.spec["deletion"]["deleted"] == 31
    await world.run_jobs(dataset)
    left = {key async for page in store.list_pages() for key in page.keys}
    assert left == {"keep", "d/replaced"}
    assert await counts(world, dataset) == (0, 0, 0)
    await world.sync(dataset)
    assert set(await world.index(dataset)) == {"/keep", "/d/replaced"}


async def test_a_reader_s_key_is_refused_by_a_real_bucket_and_said_so(world, weed):
    dataset, store = await world.s3_dataset(weed, keys=weed.reader)
    for key in ("a", "b", "c"):
        await store.put(key, b"1", content_type="text/plain")
    await world.sync(dataset)
    await delete_selected(world, dataset, {"filter": {"filename": {"$in": ["/a", "/b"]}}})
    await world.run_jobs(dataset)
    assert await counts(world, dataset) == (0, 0, 2)
    (told,) = await notices_of(world, dataset)
    assert "Allow s3:DeleteObject" in told


PATHS = ["/a", "/a/b", "/a/b/c", "/a0", "/ab", "/.dataloop/x", "/é", "/%"]


@settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    folder=st.none() | st.sampled_from(["/", "/a", "/a/b", "/.dataloop", "/%"]),
    chosen=st.none() | st.sets(st.sampled_from(PATHS)),
    is_shown=st.booleans(),
)
async def test_a_selection_takes_what_it_says_and_nothing_else(world, folder, chosen, is_shown):
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT id FROM dataset WHERE name = 'selections'")
        row = await cursor.fetchone()
    if row is None:
        dataset = await world.dataset(ScriptedStore({}))
        async with world.connection() as conn:
            await datasets.update_dataset(conn, world.owner, dataset, name="selections")
        for path in PATHS:
            await world.upload(dataset, path, b"1")
        dataset_id = dataset.id
    else:
        dataset_id = row[0]
    async with world.connection() as conn:
        at = await selections.ids_at(conn, dataset_id, PATHS)
        wanted = {"filter": None, "folder": folder, "shown": is_shown}
        wanted["ids"] = None if chosen is None else [at[path] for path in chosen]
        selection = deletion.selection_of(wanted)
        found = await selections.next_selected(conn, dataset_id, selection, after_id=0, last_id=2**62, limit=100)
    below = "" if folder in (None, "/") else folder
    assert {path for _, path in found} == {
        path
        for path in PATHS
        if path.startswith(below + "/") and (chosen is None or path in chosen)
        if not (is_shown and path.startswith("/.dataloop/"))
    }


async def test_a_job_of_before_an_undo_deletes_nothing_that_is_to_stay_now(world):
    store = ScriptedStore({"a": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    await world.delete(dataset, "/a")  # its job waits, for the store is away
    async with world.connection() as conn:
        assert await tombstones.restore(conn, dataset.id) == 1
    await world.sync(dataset)
    await _allow_delete(world, dataset, is_allowed=False)
    await world.delete(dataset, "/a")  # of the index only
    await _allow_delete(world, dataset, is_allowed=True)
    await world.substitute(dataset, store)
    await world.run_jobs(dataset)
    assert set(store.objects) == {"a"}
    assert await counts(world, dataset) == (1, 0, 0)


async def _allow_delete(world: World, dataset, *, is_allowed: bool) -> None:
    async with world.connection() as conn:
        driver = await drivers.get_driver(conn, dataset.driver_id)
        await drivers.update_driver(conn, driver, drivers.DriverChange(allow_delete=is_allowed))


async def test_of_two_datasets_that_go_at_once_one_takes_the_project_along(world: World) -> None:
    async with world.connection() as conn:
        project = await projects.create_project(conn, world.owner, "going-at-once")
        first = await datasets.create_dataset(conn, world.owner, project_id=project.id, driver_id=None, name="first")
        second = await datasets.get_binaries(conn, project.id)
        await projects.delete_project(conn, project)

    async def forget(dataset_id: int) -> None:
        async with world.connection() as conn:
            await datasets.forget_dataset(conn, dataset_id)
            await projects.forget_project(conn, project.id)

    async with world.connection() as conn, world.connection() as looking:
        await datasets.forget_dataset(conn, first.id)
        await projects.forget_project(conn, project.id)
        other = asyncio.create_task(forget(second.id))
        waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while not other.done() and await (await looking.execute(waiting)).fetchone() is None:
            pass
        assert not other.done()  # it would not see that the first is gone
    await other
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT FROM project WHERE id = %s", [project.id])
        assert await cursor.fetchone() is None
