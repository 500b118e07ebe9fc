"""Whoever puts each export of changes over what they have, has what there is, whatever happened in between."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog import annotations
from headwater.errors import BadRequest
from headwater.work import bulk_metadata
from tests.work import test_bulk_metadata as metadata
from tests.work.test_cloning import clone
from tests.work.test_exporting import annotate, diff, full, lines, small
from tests.work.test_moving import move, rename
from tests.work.world import World

__all__ = ["small"]

_PATHS = [f"{folder}/{name}.txt" for folder in ("", "/a", "/a/b") for name in ("x", "y")]
_STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["upload", "delete", "annotate", "relabel", "unannotate", "metadata", "move", "rename", "trash", "clone"]
        ),
        st.sampled_from(_PATHS),
        st.sampled_from(["/", "/a", "/c"]),
        st.booleans(),  # export the changes after it
    ),
    min_size=4,
    max_size=14,
)
_QUERIES = st.sampled_from([None, {"itemsQuery": {"filter": {"metadata.user.n": {"$gt": 3}}}}])


async def change(world: World, dataset, number: int, step: str, path: str, folder: str) -> None:  # noqa: PLR0912 - one branch for each kind of change
    item = await world.item(dataset, path)
    if step == "upload":
        await world.upload(dataset, path, f"{number}".encode(), user_metadata={"n": number})
    elif step == "metadata":
        wanted = {"filter": {"dir": folder}}
        arguments = await metadata.requested(world, dataset, wanted, metadata.patch({"n": number}))
        await bulk_metadata.change_items(world.place, **arguments)
    elif step == "move":
        try:
            await move(world, dataset, folder, filter={"filename": path})
        except BadRequest:
            return
    elif item is None:
        return
    elif step == "clone":
        await clone(world, dataset, into=dataset, folder=f"/clone {number}")
    elif step == "delete":
        await world.delete(dataset, path)
    elif step == "annotate":
        await annotate(world, dataset, path, f"label {number}")
    elif step == "rename":
        await rename(world, dataset, path, f"/renamed {number}.txt")
    elif step == "trash":  # and back, every second time
        async with world.connection() as conn:
            await conn.execute(
                "UPDATE item SET trashed_at = CASE WHEN trashed_at IS NULL THEN now() END WHERE id = %s", [item.id]
            )
    else:
        async with world.connection() as conn:
            found = (await annotations.of_items(conn, dataset.id, [item.id])).get(item.id, [])
            ids = [one.id for one in found[:1]]
            if step == "unannotate":
                await annotations.delete_annotations(conn, dataset.id, ids)
            else:
                await annotations.patch_annotations(
                    conn, dataset.id, ids, label=f"other {number}", user={}, system={}, updated_by_id=None
                )


def put_over(kept: dict[str, dict], changes: list[dict]) -> None:
    for told in changes:
        if told.get("deleted"):
            kept.pop(told["id"], None)
        else:
            kept[told["id"]] = told


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS, query=_QUERIES)
async def test_changes_put_over_each_other_are_the_index(world, small, steps, query):
    dataset, _ = await world.own_dataset()
    for path in _PATHS[:3]:
        await world.upload(dataset, path, b"first", user_metadata={"n": 5})
    more = {} if query is None else {"filters": query}
    command = await full(world, dataset, **more)
    kept = {told["id"]: told for told in await lines(world, command)}
    for number, (step, path, folder, is_exported) in enumerate(steps):
        await change(world, dataset, number, step, path, folder)
        if is_exported or number == len(steps) - 1:
            command = await diff(world, dataset, command.spec["exportResult"]["toVersion"], **more)
            put_over(kept, await lines(world, command))
            now = await lines(world, await full(world, dataset, **more))
            assert kept == {told["id"]: told for told in now}
