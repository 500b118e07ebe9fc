"""Log-in: who gets a token, and what a token is good for."""

import jwt
import pytest

from headwater.errors import BadRequest
from headwater.work.sign_in import Person, account_of_person
from tests.api.world import World, message, new_account, unique
from tests.conftest import OWNER, PASSWORD

URL = "http://headwater.test/token?default"


async def test_a_password_gives_tokens_that_the_sdk_can_read(world: World) -> None:
    nobody = world.callers["no token"]
    told = (await nobody.post(URL, json={"username": OWNER, "password": PASSWORD, "type": "user_credentials"})).json()
    claims = jwt.decode(told["id_token"], options={"verify_signature": False})
    assert claims["email"] == OWNER
    assert claims["exp"] > claims["iat"]
    me = await nobody.get("/users/me", headers={"authorization": f"Bearer {told['id_token']}"})
    assert me.json()["email"] == OWNER
    refreshed = await nobody.post(URL, json={"type": "refresh_token", "refresh_token": told["refresh_token"]})
    assert refreshed.json()["id_token"]
    assert refreshed.json()["refresh_token"] == told["refresh_token"]  # else a stolen one would last for ever
    message(await nobody.post(URL, json={"type": "refresh_token", "refresh_token": told["id_token"]}), 401)


async def test_an_unknown_account_and_a_wrong_password_sound_the_same(world: World) -> None:
    nobody = world.callers["no token"]
    tries = [(OWNER, "wrong password"), ("who@headwater.test", "wrong password"), (OWNER, PASSWORD + "\0x")]
    told = {
        message(await nobody.post(URL, json={"username": name, "password": password}), 401) for name, password in tries
    }
    assert len(told) == 1


async def test_the_case_of_an_address_does_not_count(world: World) -> None:
    answer = await world.callers["no token"].post(URL, json={"username": f" {OWNER.upper()} ", "password": PASSWORD})
    assert jwt.decode(answer.json()["id_token"], options={"verify_signature": False})["email"] == OWNER


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"username": OWNER},
        {"password": PASSWORD},
        {"username": "", "password": PASSWORD},
        {"username": OWNER, "password": ""},
        {"username": OWNER, "password": PASSWORD, "type": "magic"},
        {"username": OWNER, "password": [PASSWORD]},
        {"username": "a\0b", "password": PASSWORD},
    ],
)
async def test_an_incomplete_log_in_is_refused_without_repeating_the_password(world: World, body: dict) -> None:
    assert PASSWORD not in message(await world.callers["no token"].post(URL, json=body), 400)


async def test_tokens_of_an_account_that_is_no_more_are_worth_nothing(world: World) -> None:
    async with world.pool.connection() as conn:
        account = await new_account(conn, f"{unique('gone')}@headwater.test")
    client = await world.new_client(account)
    assert (await client.get("/users/me")).status_code == 200
    signer = world.app.state.server.signer
    refresh = signer.sign(account_id=account.id, email=account.email, use="refresh")
    await world.execute("DELETE FROM account WHERE id = %s", account.id)
    message(await client.get("/users/me"), 401)
    message(await client.post(URL, json={"type": "refresh_token", "refresh_token": refresh}), 401)


def forged(world: World) -> list[str]:
    signer = world.app.state.server.signer
    some = world.people["organisation owner"]
    good = jwt.decode(signer.sign(account_id=some.id, email=some.email), options={"verify_signature": False})
    return [
        jwt.encode(good, "x" * 43, algorithm="HS256"),
        jwt.encode(good, None, algorithm="none"),
        jwt.encode({key: value for key, value in good.items() if key != "exp"}, signer.key, algorithm="HS256"),
        jwt.encode({key: value for key, value in good.items() if key != "use"}, signer.key, algorithm="HS256"),
        jwt.encode(good | {"sub": "not a number"}, signer.key, algorithm="HS256"),
        jwt.encode(good | {"sub": str(2**70)}, signer.key, algorithm="HS256"),
        "",
        "a.b.c",
        "\xff",
    ]


async def test_tokens_that_we_did_not_sign_are_refused(world: World) -> None:
    nobody = world.callers["no token"]
    for token in forged(world):
        headers = {"authorization": f"Bearer {token}".encode("latin-1")}
        assert token not in message(await nobody.get("/users/me", headers=headers), 401) or not token
    good = world.owner.headers["authorization"].removeprefix("Bearer ")
    for header in (good, f"Basic {good}", f"Token {good}", "Bearer"):
        message(await nobody.get("/users/me", headers={"authorization": header}), 401)
    assert (await nobody.get(f"/users/me?token={good}")).status_code == 401
    assert (await nobody.get("/users/me", headers={"authorization": f"bearer {good}"})).status_code == 200


async def test_an_address_that_only_looks_like_one_is_not_it(world: World) -> None:
    """U+212A is k where case does not count, and a provider may call such an address verified."""
    async with world.pool.connection() as conn:
        account = await new_account(conn, f"kim-{unique('kin')}@example.test")
    settings = world.app.state.server.settings
    for letter, sign in (("k", "\u212a"), ("i", "\u0130")):
        person = Person("https://issuer.test", unique("subject"), account.email.replace(letter, sign, 1))
        with pytest.raises(BadRequest):
            await account_of_person(world.pool, settings, person)
    person = Person("https://issuer.test", unique("subject"), account.email.upper())
    assert (await account_of_person(world.pool, settings, person)).id == account.id
