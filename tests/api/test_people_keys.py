"""API keys and bots: whose they are, what they open, and that a revoked one opens nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest

from headwater.catalog import organizations
from tests.api.test_news import Listening, announce, listening
from tests.api.world import World, message, new_account, unique

OWNER = "owner@headwater.test"
DEVELOPER = "developer@project.test"


async def made(client: httpx.AsyncClient, email: str, **given: Any) -> dict[str, Any]:
    answer = await client.post("/apiKeys", json={"userId": email} | given)
    assert answer.status_code == 200, answer.text
    return answer.json()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def ask(world: World, key: str, path: str = "/users/me") -> httpx.Response:
    return await world.callers["no token"].get(path, headers=bearer(key))


async def test_a_key_is_a_token_that_the_sdk_can_read_and_lives_for_a_year(world: World) -> None:
    key = await made(world.owner, OWNER, description="nightly")
    claims = jwt.decode(key["jwt"], options={"verify_signature": False})
    assert claims["email"] == OWNER
    left = datetime.fromtimestamp(claims["exp"], UTC) - datetime.now(UTC)
    assert timedelta(days=364) < left <= timedelta(days=365)
    assert (await ask(world, key["jwt"])).json()["email"] == OWNER
    assert key["name"] == "nightly"
    shown = next(found for found in (await world.owner.get("/apiKeys")).json() if found["id"] == key["id"])
    assert "jwt" not in shown
    assert shown["lastUsedAt"] is not None
    assert shown["expiresAt"].startswith(f"{datetime.fromtimestamp(claims['exp'], UTC):%Y-%m-%dT%H:%M:%S}")


@pytest.mark.parametrize(("given", "days"), [({"days": 1}, 1), ({"days": 36_500}, 36_500), ({}, 365)])
async def test_how_long_a_key_lives(world: World, given: dict[str, Any], days: int) -> None:
    claims = jwt.decode((await made(world.owner, OWNER, **given))["jwt"], options={"verify_signature": False})
    assert round((claims["exp"] - claims["iat"]) / 86_400) == days
    at = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    claims = jwt.decode(
        (await made(world.owner, OWNER, expiresAt=at.isoformat()))["jwt"], options={"verify_signature": False}
    )
    assert claims["exp"] == int(at.timestamp())


@pytest.mark.parametrize(
    "given",
    [
        {"days": 0},
        {"days": 40_000},
        {"days": "x"},
        {"expiresAt": "2020-01-01T00:00:00Z"},
        {"expiresAt": "9999-01-01T00:00:00Z"},
        {"expiresAt": "2100-01-01T00:00:00"},
        {"expiresAt": "tomorrow"},
        {"expiresAt": "2100-01-01T00:00:00Z", "days": 3},
        {"name": "a\nb"},
        {"name": "x" * 300},
    ],
)
async def test_keys_that_cannot_be(world: World, given: dict[str, Any]) -> None:
    message(await world.owner.post("/apiKeys", json={"userId": OWNER} | given), 400)


async def test_a_revoked_key_opens_nothing_at_once(world: World) -> None:
    key, other = await made(world.owner, OWNER), await made(world.owner, OWNER)
    assert (await world.owner.delete(f"/apiKeys/{key['id']}")).status_code == 200
    assert "revoked" in message(await ask(world, key["jwt"]), 401)
    assert (await ask(world, other["jwt"])).status_code == 200
    message(await world.owner.delete(f"/apiKeys/{key['id']}"), 404)


async def test_a_key_that_expired_opens_nothing(world: World) -> None:
    """By its row as well as by its own word."""
    key = await made(world.owner, OWNER, days=1)
    await world.execute("UPDATE api_key SET expires_at = now() WHERE id = %s", int(key["id"], 16))
    message(await ask(world, key["jwt"]), 401)
    signer = world.app.state.server.signer
    owner = world.people["organisation owner"]
    old = signer.sign_key(account_id=owner.id, email=owner.email, key_id=int(key["id"], 16), expires_at=1_000_000_000)
    assert "expired" in message(await ask(world, old), 401)


async def test_a_key_speaks_for_its_own_account_only(world: World) -> None:
    """Even one that we signed: the row says whose it is."""
    key = await made(world.callers["developer"], DEVELOPER)
    owner = world.people["organisation owner"]
    signer = world.app.state.server.signer
    mixed = signer.sign_key(account_id=owner.id, email=owner.email, key_id=int(key["id"], 16), expires_at=4_000_000_000)
    message(await ask(world, mixed), 401)


async def test_the_use_of_a_key_is_written_down_once_in_a_few_minutes(world: World) -> None:
    key = await made(world.owner, OWNER)
    number = int(key["id"], 16)
    await ask(world, key["jwt"])
    await world.execute("UPDATE api_key SET last_used_at = now() - interval '1 minute' WHERE id = %s", number)
    first = await world.execute("SELECT last_used_at FROM api_key WHERE id = %s", number)
    await ask(world, key["jwt"])
    assert await world.execute("SELECT last_used_at FROM api_key WHERE id = %s", number) == first
    await world.execute("UPDATE api_key SET last_used_at = now() - interval '6 minutes' WHERE id = %s", number)
    await ask(world, key["jwt"])
    (at,) = await world.execute("SELECT now() - last_used_at < interval '5 minutes' FROM api_key WHERE id = %s", number)
    assert at == (True,)


async def test_a_key_makes_no_keys_and_no_bot_with_one(world: World) -> None:
    key = await made(world.owner, OWNER)
    client = world.callers["no token"]
    body = {"userId": OWNER}
    assert "API key" in message(await client.post("/apiKeys", json=body, headers=bearer(key["jwt"])), 403)
    url = f"/projects/{world.project_id}/bots"
    name = unique("bot")
    told = await client.post(url, json={"name": name, "returnCredentials": True}, headers=bearer(key["jwt"]))
    message(told, 403)
    assert name not in {bot["firstName"] for bot in (await world.owner.get(url)).json()}
    assert (await client.post(url, json={"name": name}, headers=bearer(key["jwt"]))).status_code == 200


async def test_keys_are_made_for_oneself_and_for_bots_of_ones_projects(world: World) -> None:
    url = f"/projects/{world.project_id}/bots"
    bot = (await world.callers["developer"].post(url, json={"name": unique("bot")})).json()["email"]
    key = await made(world.callers["developer"], bot)
    assert (await ask(world, key["jwt"])).json()["type"] == "bot"
    body = {"userId": bot}
    assert "developer" in message(await world.callers["annotator"].post("/apiKeys", json=body), 403)
    others = [bot, OWNER, "nobody@nowhere.test"]
    told = {
        message(await world.callers["outsider"].post("/apiKeys", json={"userId": email}), 404).replace(email, "")
        for email in others
    }
    assert len(told) == 1
    told = {message(await world.callers["outsider"].get(f"/apiKeys?userId={email}"), 404).replace(email, "")
            for email in others}  # fmt: skip
    assert len(told) == 1
    assert [found["id"] for found in (await world.owner.get(f"/apiKeys?userId={bot}")).json()] == [key["id"]]
    renamed = await world.owner.patch(f"/apiKeys/{key['id']}", json={"name": "new name"})
    assert renamed.json()["name"] == "new name"
    message(await world.callers["annotator"].delete(f"/apiKeys/{key['id']}"), 403)
    message(await world.callers["outsider"].delete(f"/apiKeys/{key['id']}"), 404)
    assert (await world.owner.delete(f"/apiKeys/{key['id']}")).status_code == 200


async def test_a_bot_is_a_developer_without_a_password_until_it_is_deleted(world: World) -> None:
    project = await world.new_project()
    url = f"/projects/{project}/bots"
    name = unique("Night Bot")
    bot = (await world.owner.post(url, json={"name": name, "returnCredentials": True})).json()
    assert (bot["type"], bot["role"], bot["firstName"], bot["id"]) == ("bot", "engineer", name, bot["email"])
    again = (await world.owner.post(url, json={"name": name})).json()
    assert again["email"] == bot["email"]
    assert "password" not in again
    assert [found["id"] for found in (await world.owner.get(url)).json()] == [bot["id"]]

    headers = bearer(bot["password"])
    client = world.callers["no token"]
    made_by_it = await client.post("/datasets", json={"name": "d", "projects": [project]}, headers=headers)
    assert made_by_it.json()["creator"] == bot["email"]
    shown = (await client.get(f"/projects/{project}", headers=headers)).json()
    assert {one["email"]: one["type"] for one in shown["contributors"]}[bot["email"]] == "bot"
    message(await client.post("/projects", data={"name": unique("p")}, headers=headers), 403)
    message(await client.patch(f"/projects/{project}", json={"name": "n"}, headers=headers), 403)
    people = (await world.owner.get(f"/orgs/{world.organization_id}/members")).json()
    assert bot["email"] not in {member["email"] for member in people}
    for password in (bot["password"], "a good password"):
        body = {"username": bot["email"], "password": password, "type": "user_credentials"}
        message(await client.post("http://headwater.test/token?default", json=body), 401)

    assert (await world.owner.delete(f"{url}/{bot['id']}")).status_code == 200
    message(await ask(world, bot["password"]), 401)
    message(await world.owner.get(f"{url}/{bot['id']}"), 404)
    dataset = (await world.owner.get(f"/datasets/{made_by_it.json()['id']}")).json()
    assert dataset["creator"] == bot["email"]
    fresh = (await world.owner.post(url, json={"name": name})).json()
    assert fresh["email"] != bot["email"]


async def test_a_bot_goes_with_its_project(world: World) -> None:
    project = await world.new_project()
    bot = (await world.owner.post(f"/projects/{project}/bots", json={"name": "b", "returnCredentials": True})).json()
    assert (await ask(world, bot["password"])).status_code == 200
    assert (await world.owner.delete(f"/projects/{project}")).status_code == 200
    message(await ask(world, bot["password"]), 401)


async def test_a_bot_is_not_put_out_or_promoted_as_if_it_were_a_member(world: World) -> None:
    url = f"/projects/{world.project_id}/bots"
    bot = (await world.owner.post(url, json={"name": unique("bot")})).json()["email"]
    members = f"/orgs/{world.organization_id}/members"
    message(await world.owner.patch(members, json={"email": bot, "role": "owner"}), 404)
    message(await world.owner.delete(f"{members}/{bot}"), 404)


async def test_a_bot_never_has_more_rights_than_who_may_make_its_keys(world: World) -> None:
    """The developers of its project would have them, too."""
    bot = await world.callers["developer"].post(f"/projects/{world.project_id}/bots", json={"name": unique("bot")})
    email = bot.json()["email"]
    other = await world.new_project()
    for project, role in ((world.project_id, "owner"), (other, "annotator"), (other, "developer")):
        for ask_for in (world.owner.post, world.owner.patch):
            told = message(await ask_for(f"/projects/{project}/members/{email}", json={"role": role}), 403)
            assert "Make a bot in this project" in told
    for role in ("annotator", "developer"):
        answer = await world.owner.patch(f"/projects/{world.project_id}/members/{email}", json={"role": role})
        assert answer.status_code == 200


async def test_owners_hear_of_keys_of_bots_that_somebody_who_was_put_out_has_made(world: World) -> None:
    async with world.pool.connection() as conn:
        account = await new_account(conn, f"{unique('leaver')}@project.test")
        await organizations.add_member(conn, int(world.organization_id, 16), account, "member")
    client = await world.new_client(account)

    async def told() -> list[str]:
        found = (await world.owner.get("/notifications")).json()
        return [notice["message"] for notice in found if account.email in notice["title"]]

    projects = [await world.new_project(), await world.new_project()]
    for project in projects:
        await world.owner.post(f"/projects/{project}/members/{account.email}", json={"role": "developer"})
        bot = (await client.post(f"/projects/{project}/bots", json={"name": project})).json()["email"]
        key = await made(client, bot)
        revoked = await made(client, bot)
        assert (await world.owner.delete(f"/apiKeys/{revoked['id']}")).status_code == 200
        await made(world.owner, bot)
    await made(client, account.email)

    await world.owner.delete(f"/projects/{projects[0]}/members/{account.email}")
    (first,) = await told()
    assert projects[0] in first
    assert "(1)" in first
    assert projects[1] not in first
    assert (await world.owner.delete(f"/apiKeys/{key['id']}")).status_code == 200
    await world.owner.delete(f"/orgs/{world.organization_id}/members/{account.email}")
    second = (await told())[0]
    assert projects[0] in second
    assert projects[1] not in second


async def test_nothing_is_told_of_somebody_without_keys_of_bots(world: World) -> None:
    project = await world.new_project()
    url = f"/projects/{project}/members/stranger@project.test"
    await world.owner.post(url, json={"role": "developer"})
    assert (await world.owner.delete(url)).status_code == 200
    titles = [notice["title"] for notice in (await world.owner.get("/notifications")).json()]
    assert not any("stranger@project.test" in title for title in titles)


async def ended(stream: Listening) -> None:
    """Reads the stream to its end; the limit of the test is the limit."""
    while True:
        sent = await stream._sent.get()
        if sent["type"] == "http.response.body" and not sent.get("more_body"):
            return


async def test_the_stream_of_a_revoked_key_ends(world: World) -> None:
    key = await made(world.callers["developer"], DEVELOPER)
    world.callers["key"] = httpx.AsyncClient(headers=bearer(key["jwt"]))
    async with listening(world, "key") as stream, listening(world, "developer") as other:
        await announce(world, world.dataset_id)
        assert (await stream.event())[1]["id"] == world.dataset_id
        await world.callers["developer"].delete(f"/apiKeys/{key['id']}")
        await ended(stream)
        await other.event()
        await announce(world, world.dataset_id)
        assert (await other.event())[1]["id"] == world.dataset_id  # a good token listens on
    await world.callers.pop("key").aclose()


async def test_the_stream_of_a_token_that_expires_ends(world: World) -> None:
    account = world.people["developer"]
    token = world.app.state.server.signer.sign(account_id=account.id, email=account.email, life_s=2)
    world.callers["soon"] = httpx.AsyncClient(headers=bearer(token))
    async with listening(world, "soon") as stream:
        await ended(stream)
    await world.callers.pop("soon").aclose()


async def test_the_stream_of_a_dataset_ends_when_it_goes_out_of_sight(world: World) -> None:
    project = await world.new_project()
    dataset = await world.new_dataset(projects=[project])
    mine = f"/projects/{project}/members/{DEVELOPER}"
    await world.owner.post(mine, json={"role": "annotator"})
    async with listening(world, "developer", dataset) as stream:
        await world.owner.delete(mine)
        await ended(stream)


async def test_keys_and_bots_are_in_the_log(world: World) -> None:
    key = await made(world.callers["developer"], DEVELOPER, name=unique("key"))
    await world.callers["developer"].delete(f"/apiKeys/{key['id']}")
    bot = (await world.owner.post(f"/projects/{world.project_id}/bots", json={"name": unique("bot")})).json()
    await world.owner.delete(f"/projects/{world.project_id}/bots/{bot['id']}")
    log = (await world.owner.get(f"/orgs/{world.organization_id}/audit")).json()
    assert [(entry["actor"], entry["action"], entry["target"]) for entry in reversed(log[:4])] == [
        (DEVELOPER, "key.created", key["name"]),
        (DEVELOPER, "key.revoked", key["name"]),
        (OWNER, "bot.created", bot["email"]),
        (OWNER, "bot.deleted", bot["email"]),
    ]
    assert key["jwt"] not in str(log)
