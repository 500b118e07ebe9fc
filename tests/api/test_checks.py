"""The permission X-ray over HTTP: made anew, kept with the driver, tried before anything is made."""

import json

from tests.api.world import World, message, unique

PLACE_OF_TEST_OBJECT = ".dataloop/permission-test"


async def test_a_report_is_made_anew_and_kept_with_the_driver(world: World) -> None:
    driver_id = await world.new_driver(world.integration_id)
    made = (await world.owner.get(f"/drivers/{driver_id}")).json()
    assert made["report"]["ok"] is True
    report = (await world.owner.post(f"/drivers/{driver_id}/validate")).json()
    assert [check["name"] for check in report["checks"]] == [
        "list",
        "get",
        "put",
        "delete",
        "multipart",
        "signed_url",
        "cors",
        "clock",
        "region",
    ]
    assert [check["name"] for check in report["checks"] if check["mandatory"]] == ["list", "get", "put"]
    assert {"ok", "checks", "policy", "checkedAt", "tookMs", "calls"} == report.keys()
    kept = (await world.owner.get(f"/drivers/{driver_id}")).json()
    assert kept["report"] == report
    assert kept["checkedAt"] > made["checkedAt"]


async def test_a_dry_run_makes_nothing(world: World) -> None:
    body = world.driver_body(world.integration_id)
    before = await world.execute("SELECT count(*) FROM driver")
    (world.folder / PLACE_OF_TEST_OBJECT).unlink(missing_ok=True)
    assert (await world.owner.post("/drivers/validate", json=body)).json()["ok"] is True
    assert not (world.folder / PLACE_OF_TEST_OBJECT).exists()
    assert await world.execute("SELECT count(*) FROM driver") == before
    body["payload"] = {"directory": "/not-there"}
    report = (await world.owner.post("/drivers/validate", json=body)).json()
    assert report["ok"] is False
    assert report["checks"][0]["message"].startswith("There is no ")
    taken = world.driver_body(world.integration_id, name=unique("taken"))
    assert (await world.owner.post("/drivers", json=taken)).status_code == 200
    assert (await world.owner.post("/drivers/validate", json=taken)).json()["ok"] is True, "the same is no conflict"
    message(await world.owner.post("/drivers/validate", json=taken | {"readOnly": True}), 409)


async def test_a_folder_that_is_a_file_makes_no_driver(world: World) -> None:
    (world.folder / "single.txt").write_bytes(b"text")
    body = world.driver_body(world.integration_id, payload={"directory": "/single.txt"})
    assert "is a single file" in message(await world.owner.post("/drivers", json=body), 400)
    assert await world.execute("SELECT id FROM driver WHERE name = %s", body["name"]) == []
    (world.folder / "single.txt").unlink()


async def test_a_driver_that_reads_leaves_the_folder_alone(world: World) -> None:
    (world.folder / PLACE_OF_TEST_OBJECT).unlink(missing_ok=True)
    body = world.driver_body(world.integration_id, readOnly=True)
    made = (await world.owner.post("/drivers", json=body)).json()
    assert made["readOnly"] is True
    assert made["report"]["ok"] is True
    assert not (world.folder / PLACE_OF_TEST_OBJECT).exists()


async def test_delete_that_is_refused_is_told_with_the_driver(world: World) -> None:
    driver_id = (
        await world.owner.post("/drivers", json=world.driver_body(world.integration_id, allowExternalDelete=True))
    ).json()["id"]
    check = {"name": "delete", "ok": False, "message": "The credentials may not delete."}
    await world.execute(
        "UPDATE driver SET report = jsonb_build_object('checks', jsonb_build_array(%s::jsonb)) WHERE id = %s",
        json.dumps(check),
        int(driver_id, 16),
    )
    told = (await world.owner.get(f"/drivers/{driver_id}")).json()["warning"]
    assert told == "Items are deleted without their objects. The credentials may not delete."
