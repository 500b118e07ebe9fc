"""Members of organisations and projects: who may change them, who stays, and what nobody learns."""

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from headwater.catalog import organizations
from tests.api.world import World, message, new_account, unique


class Place:
    """An organisation of its own, with somebody in every role."""

    def __init__(self, world: World, organization_id: str, callers: dict[str, httpx.AsyncClient]) -> None:
        self.world = world
        self.id = organization_id
        self.url = f"/orgs/{organization_id}"
        self.callers = callers
        self.emails: dict[str, str] = {}

    @property
    def owner(self) -> httpx.AsyncClient:
        return self.callers["owner"]

    async def roles(self) -> dict[str, str]:
        return {member["email"]: member["role"] for member in (await self.owner.get(f"{self.url}/members")).json()}

    async def change(self, who: str, email: str, role: str) -> httpx.Response:
        return await self.callers[who].patch(f"{self.url}/members", json={"email": email, "role": role})

    async def remove(self, who: str, email: str) -> httpx.Response:
        return await self.callers[who].delete(f"{self.url}/members/{email}")

    async def add(self, who: str, *emails: str, role: str = "member") -> httpx.Response:
        return await self.callers[who].post(f"{self.url}/members", json={"emails": emails, "role": role})

    async def actions(self) -> list[tuple[str, str, str]]:
        """Of the audit log, the oldest first."""
        told = (await self.owner.get(f"{self.url}/audit")).json()
        return [(entry["actor"], entry["action"], entry["target"]) for entry in reversed(told)]


async def somebody(
    world: World, organization_id: str | None = None, role: str = "member"
) -> tuple[str, httpx.AsyncClient]:
    async with world.pool.connection() as conn:
        account = await new_account(conn, f"{unique(role)}@place.test")
        if organization_id is not None:
            await organizations.add_member(conn, int(organization_id, 16), account, role)
    return account.email, await world.new_client(account)


@pytest.fixture
async def new_place(world: World) -> Callable[[], Awaitable[Place]]:
    async def make() -> Place:
        owner, client = await somebody(world)
        made = await world.owner.post("/orgs", json={"name": unique("place"), "owner": owner})
        assert made.status_code == 200, made.text
        place = Place(world, made.json()["id"], {"owner": client, "operator": world.owner})
        place.emails["owner"] = owner
        for role in ("admin", "member", "worker"):
            place.emails[role], place.callers[role] = await somebody(world, place.id, role)
        return place

    return make


@pytest.fixture
async def place(new_place: Callable[[], Awaitable[Place]]) -> Place:
    return await new_place()


async def test_members_are_changed_and_removed_and_the_log_tells(place: Place) -> None:
    worker = place.emails["worker"]
    changed = await place.change("admin", worker, "member")
    assert (changed.json()["email"], changed.json()["role"]) == (worker, "member")
    assert (await place.roles())[worker] == "member"
    assert (await place.remove("admin", worker.upper())).status_code == 200
    assert worker not in await place.roles()
    message(await place.callers["worker"].get(place.url), 404)
    assert (await place.actions())[1:] == [
        (place.emails["admin"], "member.changed", worker),
        (place.emails["admin"], "member.removed", worker),
    ]


async def test_only_owners_make_and_unmake_owners(place: Place) -> None:
    for email, role in ((place.emails["member"], "owner"), (place.emails["owner"], "member")):
        assert "owners" in message(await place.change("admin", email, role), 403)
    message(await place.remove("admin", place.emails["owner"]), 403)
    message(await place.add("admin", "new@place.test", role="owner"), 403)
    assert (await place.change("owner", place.emails["member"], "owner")).status_code == 200
    assert (await place.change("operator", place.emails["member"], "admin")).status_code == 200


async def test_the_last_owner_stays(place: Place) -> None:
    for answer in (
        await place.change("owner", place.emails["owner"], "admin"),
        await place.remove("owner", place.emails["owner"]),
        await place.remove("operator", place.emails["owner"]),
    ):
        assert "needs an owner" in message(answer, 409)
    assert (await place.roles())[place.emails["owner"]] == "owner"


async def test_two_owners_who_demote_each_other_at_once_leave_one(new_place: Callable[[], Awaitable[Place]]) -> None:
    for _ in range(5):
        place = await new_place()
        second, place.callers["second"] = await somebody(place.world, place.id, "owner")
        first = place.emails["owner"]
        answers = await asyncio.gather(place.remove("owner", second), place.remove("second", first))
        owners = await place.world.execute(
            "SELECT count(*) FROM member WHERE organization_id = %s AND role = 'owner'", int(place.id, 16)
        )
        assert owners == [(1,)]
        # The one who came second is either no member any more, or told that one has to stay.
        assert {answer.status_code for answer in answers} <= {200, 404, 409}


async def test_two_owners_of_a_project_who_demote_each_other_at_once_leave_one(world: World) -> None:
    for _ in range(5):
        project = await world.new_project(world.callers["owner"])
        url = f"/projects/{project}/members"
        assert (
            await world.callers["owner"].post(f"{url}/developer@project.test", json={"role": "owner"})
        ).status_code == 200
        answers = await asyncio.gather(
            world.callers["owner"].patch(f"{url}/developer@project.test", json={"role": "annotator"}),
            world.callers["developer"].patch(f"{url}/owner@project.test", json={"role": "annotator"}),
        )
        owners = await world.execute(
            "SELECT count(*) FROM project_member WHERE project_id = %s AND role = 'owner'", int(project, 16)
        )
        assert owners == [(1,)]
        assert 200 in {answer.status_code for answer in answers}


async def test_everybody_may_leave_and_is_then_in_no_project_either(place: Place) -> None:
    project = (await place.callers["owner"].post("/projects", data={"name": "p"})).json()["id"]
    for role in ("worker", "member", "admin"):
        email, client = place.emails[role], place.callers[role]
        await place.owner.post(f"/projects/{project}/members/{email}", json={"role": "annotator"})
        assert (await client.get(f"/projects/{project}")).status_code == 200
        assert (await place.remove(role, email)).status_code == 200
        message(await client.get(f"/projects/{project}"), 404)
    assert list(await place.roles()) == [place.emails["owner"]]
    shown = (await place.owner.get(f"/projects/{project}")).json()["contributors"]
    assert [contributor["email"] for contributor in shown] == [place.emails["owner"]]
    member = place.emails["member"]
    message(await place.owner.post(f"/projects/{project}/members/{member}", json={"role": "annotator"}), 404)


async def test_a_member_may_leave_a_project_but_not_put_another_out(world: World) -> None:
    project = await world.new_project(world.callers["owner"])
    url = f"/projects/{project}/members"
    for who in ("developer", "annotator"):
        await world.callers["owner"].post(f"{url}/{who}@project.test", json={"role": "annotator"})
    message(await world.callers["annotator"].delete(f"{url}/developer@project.test"), 403)
    assert (await world.callers["annotator"].delete(f"{url}/annotator@project.test")).status_code == 200
    message(await world.callers["annotator"].get(f"/projects/{project}"), 404)


async def test_people_who_share_an_organisation_are_added_at_once(world: World, place: Place) -> None:
    """And again, which changes nothing; a retried request is no error."""
    second = await world.owner.post("/orgs", json={"name": unique("place"), "owner": place.emails["owner"]})
    url = f"/orgs/{second.json()['id']}/members"
    for _ in range(2):
        answer = await place.owner.post(url, json={"emails": [place.emails["member"]], "role": "worker"})
        assert {member["email"]: member["role"] for member in answer.json()} == {
            place.emails["owner"]: "owner",
            place.emails["member"]: "worker",
        }
    again = await place.owner.post(url, json={"emails": [place.emails["member"]], "role": "admin"})
    assert "already" in message(again, 409)


async def test_whether_a_stranger_has_an_account_is_not_told(world: World, place: Place) -> None:
    """Not by adding, changing, removing, or making an account; nor by how often it is tried."""
    known, client = await somebody(world)
    answers: dict[str, list[tuple[int, str]]] = {}
    for email in (known, f"{unique('nobody')}@place.test"):
        requests = [
            await place.add("owner", email),
            await place.add("owner", email),
            await place.change("owner", email, "admin"),
            await place.remove("owner", email),
            await place.owner.post(f"{place.url}/accounts", json={"email": email, "password": "a good password"}),
            await place.owner.get(f"{place.url}/invitations"),
        ]
        told = [(answer.status_code, answer.text.replace(email, "…")) for answer in requests[:-1]]
        mine = [invitation for invitation in requests[-1].json() if invitation["email"] == email]
        told.append((len(mine), str([mine[0] | {"id": "", "createdAt": "", "email": ""}])))
        answers[email] = told
    first, second = answers.values()
    assert first == second
    assert [status for status, _ in first] == [200, 200, 404, 404, 403, 1]
    assert known not in await place.roles()

    waiting = (await client.get("/invitations")).json()
    assert [(invitation["org"]["id"], invitation["role"]) for invitation in waiting] == [(place.id, "member")]
    message(await place.callers["worker"].post(f"/invitations/{waiting[0]['id']}/accept"), 404)
    message(await client.get(place.url), 404)
    assert (await client.post(f"/invitations/{waiting[0]['id']}/accept")).status_code == 200
    assert (await place.roles())[known] == "member"
    assert (await client.get("/invitations")).json() == []
    assert (known, "member.added", known) in await place.actions()


async def test_an_invitation_can_be_declined_or_withdrawn(world: World, place: Place) -> None:
    for who in ("guest", "owner"):
        email, client = await somebody(world)
        await place.add("owner", email, role="admin")
        invitation = (await client.get("/invitations")).json()[0]["id"]
        gone = client.delete(f"/invitations/{invitation}")
        if who == "owner":
            gone.close()
            gone = place.owner.delete(f"{place.url}/invitations/{invitation}")
        assert (await gone).status_code == 200
        message(await client.post(f"/invitations/{invitation}/accept"), 404)
        assert (await place.owner.get(f"{place.url}/invitations")).json() == []
        assert email not in await place.roles()


async def test_who_was_put_out_does_not_come_back_by_an_old_invitation(world: World, place: Place) -> None:
    for is_added_first in (True, False):
        email, client = await somebody(world)
        await place.add("owner", email, role="admin")
        invitation = (await client.get("/invitations")).json()[0]["id"]
        if is_added_first:
            assert (await place.add("operator", email)).status_code == 200
            assert (await client.get("/invitations")).json() == []
        else:  # both at the same moment, or before there was this rule
            await world.execute(
                "INSERT INTO member (organization_id, account_id, role) SELECT %s, id, 'member' FROM account "
                "WHERE email = %s",
                int(place.id, 16),
                email,
            )
        assert (await place.remove("admin", email)).status_code == 200
        message(await client.post(f"/invitations/{invitation}/accept"), 404)
        assert email not in await place.roles()


async def test_nobody_but_the_operator_makes_an_account_whose_password_is_then_known(world: World) -> None:
    """Somebody's invitation to another organisation would be theirs to accept."""
    body = {"email": f"{unique('invited')}@elsewhere.test", "password": "12345678"}
    for who in ("admin", "stranger"):
        message(await world.callers[who].post(f"/orgs/{world.organization_id}/accounts", json=body), 403)
    assert "address" in message(
        await world.callers["admin"].post(f"/orgs/{world.organization_id}/accounts", json=body), 403
    )


async def test_the_operator_is_told_what_is_missing(world: World, place: Place) -> None:
    email = f"{unique('nobody')}@place.test"
    told = message(await place.add("operator", email), 404)
    assert f"headwater user add {email}" in told
    made = await world.owner.post(f"{place.url}/accounts", json={"email": email, "password": "a good password"})
    assert made.status_code == 200
    assert (await place.roles())[email] == "member"


async def test_a_name_of_an_organisation_is_taken_only_for_those_who_see_it(
    place: Place, new_place: Callable[[], Awaitable[Place]]
) -> None:
    other = await new_place()
    name = unique("name")
    assert (await place.owner.patch(place.url, json={"name": name})).json()["name"] == name
    assert (await other.owner.patch(other.url, json={"name": name})).json()["name"] == name
    message(await place.callers["admin"].patch(place.url, json={"name": unique("name")}), 403)
    taken = {"name": name, "owner": place.emails["owner"]}
    message(await place.world.owner.post("/orgs", json=taken), 409)
    message(await place.world.owner.post("/orgs", json=taken | {"owner": "nobody@place.test"}), 404)
    assert (place.emails["owner"], "organization.renamed", name) in await place.actions()


async def test_the_plan_is_always_premium(place: Place) -> None:
    for plan in ("freemium", "premium"):
        assert (await place.owner.patch(f"{place.url}/plan", json={"plan": plan})).json()["plan"] == "premium"
    message(await place.owner.patch(f"{place.url}/plan", json={"plan": "gold"}), 400)


async def test_a_project_goes_where_it_is_told(world: World, place: Place) -> None:
    email, _ = place.emails["member"], place.callers["member"]
    second = (await world.owner.post("/orgs", json={"name": unique("second"), "owner": email})).json()
    client = place.callers["member"]
    for given, expected in (
        ({}, place.id),
        ({"org": second["name"]}, second["id"]),
        ({"org": second["id"]}, second["id"]),
        ({"orgId": second["id"]}, second["id"]),
    ):
        name = unique("project")
        for made in (
            await client.post("/projects", data={"name": name} | given),
            await client.post("/projects", json={"name": f"{name} too"} | given),
        ):
            assert made.json()["org"]["id"] == expected
    message(await client.post("/projects", data={"name": "p", "orgId": world.organization_id}), 404)
    message(await client.post("/projects", data={"name": "p", "orgId": "Elsewhere"}), 404)
    told = message(await place.callers["worker"].post("/projects", data={"name": "p"}), 403)
    assert "owner or admin" in told
    told = message(await world.owner.post("/projects", data={"name": "p", "orgId": place.id}), 403)
    assert "operator" in told


async def test_the_operator_sees_no_project_of_an_organisation_that_is_not_its_own(world: World, place: Place) -> None:
    project = (await place.owner.post("/projects", data={"name": unique("private")})).json()["id"]
    message(await world.owner.get(f"/projects/{project}"), 404)
    message(await world.owner.get(f"{place.url}/integrations"), 403)
    assert (await world.owner.get(f"{place.url}/projects")).json() == []


async def test_the_audit_log_comes_in_pages_and_to_owners_alone(world: World, place: Place) -> None:
    for number in range(5):
        await place.owner.patch(place.url, json={"name": f"{unique('name')} {number}"})
    whole = (await place.owner.get(f"{place.url}/audit")).json()
    paged, before = [], {}
    while page := (await place.owner.get(f"{place.url}/audit", params={"limit": 2} | before)).json():
        assert len(page) <= 2
        paged += page
        before = {"before": page[-1]["id"]}
    assert paged == whole
    assert [entry["action"] for entry in whole] == ["organization.renamed"] * 5 + ["organization.created"]
    message(await place.callers["admin"].get(f"{place.url}/audit"), 403)
    message(await world.callers["outsider"].get(f"{place.url}/audit"), 404)
    for bad in ({"limit": 0}, {"limit": 1001}, {"limit": "x"}):
        message(await place.owner.get(f"{place.url}/audit", params=bad), 400)


async def test_developers_find_integrations_by_name_without_their_metadata(world: World) -> None:
    url = f"/orgs/{world.organization_id}/availableIntegrations"
    shown = (await world.callers["developer"].get(url)).json()
    assert world.integration_id in {integration["id"] for integration in shown}
    assert {frozenset(integration) for integration in shown} == {frozenset(("id", "name", "type"))}
    message(await world.callers["developer"].get(f"/orgs/{world.organization_id}/integrations"), 403)


async def test_what_is_deleted_is_in_the_log(world: World, place: Place) -> None:
    project = (await place.owner.post("/projects", data={"name": "p"})).json()["id"]
    made = await place.owner.post("/datasets", json={"name": "d", "projects": [project]})
    dataset = made.json()["id"]
    item = await place.owner.post(f"/datasets/{dataset}/items", data={"type": "dir", "path": "/folder"})
    assert item.status_code == 200
    await place.owner.delete(f"/datasets/{dataset}")
    await place.owner.patch(f"/projects/{project}", json={"name": "q"})
    await place.owner.delete(f"/projects/{project}")
    told = [(action, target) for _, action, target in await place.actions()]
    assert told[1] == ("project.created", "p")
    assert told[-3:] == [("dataset.deleted", "d"), ("project.renamed", "q"), ("project.deleted", "q")]


async def test_an_item_that_two_delete_at_once_is_in_the_log_once(place: Place) -> None:
    world = place.world
    path = f"/{unique('twice')}.txt"
    item_id = (await world.upload(world.dataset_id, path, b"x"))["id"]
    await asyncio.gather(*(world.owner.delete(f"/items/{item_id}") for _ in range(6)))
    [(lines,)] = await world.execute("SELECT count(*) FROM audit WHERE action = 'item.deleted' AND target = %s", path)
    assert lines == 1
