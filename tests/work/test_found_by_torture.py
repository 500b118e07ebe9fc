"""What random histories found, each as the shortest that shows it. See docs/reference/torture.md."""

from psycopg.types.json import Jsonb

from tests.work.scripted import ScriptedStore
from tests.work.world import ghosts, present


async def test_an_object_that_became_a_folder_marker_is_gone(world):
    store = ScriptedStore({"a/": b"1", "b": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.objects["a/"] = b""
    await world.sync(dataset)
    assert ghosts(await world.index(dataset)) == {"/a/"}


async def test_what_new_globs_leave_out_is_gone_though_its_object_is_there(world):
    store = ScriptedStore({"a.jpg": b"1", "b.txt": b"1"})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE dataset SET sync_rules = %s WHERE id = %s", [Jsonb({"exclude": ["*.txt"]}), dataset.id]
        )
    await world.sync(dataset)
    found = await world.index(dataset)
    assert (present(found), ghosts(found)) == ({"/a.jpg"}, {"/b.txt"})
