"""Guessing passwords is slow, from one address or many, and locks nobody out; a new password ends old tokens."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import argon2
import httpx
import pytest

from headwater.app import create_app
from headwater.catalog import accounts, logins
from headwater.catalog.logins import Attempt
from headwater.errors import Unauthorized
from headwater.tokens import Signer
from tests.conftest import OWNER, PASSWORD

TOKEN = "http://headwater.test/token?default"
HOME, OFFICE = "192.0.2.1", "192.0.2.2"

New = Callable[..., Awaitable[httpx.AsyncClient]]


@asynccontextmanager
async def serving(settings: Any, url: str) -> AsyncIterator[Callable[[str], httpx.AsyncClient]]:
    """An API process: a function that makes clients at an address."""
    app = create_app(settings, url)
    async with app.router.lifespan_context(app), AsyncExitStack() as stack:
        made: list[httpx.AsyncClient] = []

        def at(address: str) -> httpx.AsyncClient:
            transport = httpx.ASGITransport(app=app, client=(address, 4000))
            client = httpx.AsyncClient(transport=transport, base_url="http://headwater.test/api/v1")
            made.append(client)
            stack.push_async_callback(client.aclose)
            return client

        at.app = app  # pyright: ignore[reportFunctionMemberAccess]
        yield at


@pytest.fixture
async def at(settings_for: Any, database_url: str) -> AsyncIterator[Callable[[str], httpx.AsyncClient]]:
    async with serving(settings_for(), database_url) as clients:
        yield clients


async def log_in(client: httpx.AsyncClient, password: str = PASSWORD, email: str = OWNER) -> httpx.Response:
    return await client.post(TOKEN, json={"username": email, "password": password})


async def fail(client: httpx.AsyncClient, times: int, email: str = OWNER) -> list[int]:
    return [(await log_in(client, "wrong password", email)).status_code for _ in range(times)]


async def owe(at: Any, address: str, email: str, failures: int) -> None:
    """As after so many failures, without the time that checking them takes."""
    async with at.app.state.server.place.pool.connection() as conn:
        for _ in range(failures):
            await logins.charge(conn, Attempt(email=email, address=address))


async def execute(at: Any, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    async with at.app.state.server.place.pool.connection() as conn:
        cursor = await conn.execute(statement, list(parameters))
        return await cursor.fetchall() if cursor.description else []


async def pass_time(at: Any, seconds: int) -> None:
    """As the database sees it."""
    await execute(at, "UPDATE login_debt SET paid_at = paid_at - make_interval(secs => %s)", seconds)


async def test_after_ten_failures_an_account_is_closed_to_that_address_alone(at) -> None:
    thief, user = at(HOME), at(OFFICE)
    assert await fail(thief, 10) == [401] * 10
    refused = await log_in(thief)  # even the right password
    assert refused.status_code == 429
    wait_s = int(refused.headers["retry-after"])
    assert 0 < wait_s <= 30
    assert f"{wait_s} seconds" in refused.json()["message"]
    assert (await log_in(user)).status_code == 200
    assert (await log_in(thief, email="other@headwater.test")).status_code == 401  # another account is not closed

    await pass_time(at, wait_s)
    assert await fail(thief, 1) == [401]
    assert (await log_in(thief)).status_code == 429


async def test_only_failures_count_and_a_success_pays_them(at) -> None:
    user = at(HOME)
    for _ in range(3):
        assert await fail(user, 5) == [401] * 5
        assert (await log_in(user)).status_code == 200
    assert [(await log_in(user)).status_code for _ in range(12)] == [200] * 12


async def test_what_the_limit_says_of_an_account_that_is_not_there_is_the_same(at) -> None:
    told = []
    for email, address in ((OWNER, HOME), ("nobody@headwater.test", OFFICE)):
        client = at(address)
        assert await fail(client, 10, email) == [401] * 10
        told.append((await log_in(client, "wrong", email)).json()["message"])
    assert len({"".join(filter(str.isalpha, words)) for words in told}) == 1


async def test_the_case_and_spaces_of_an_address_give_no_more_guesses(at) -> None:
    client = at(HOME)
    emails = (OWNER, OWNER.upper(), f"  {OWNER.title()} ")
    statuses = [(await fail(client, 1, email))[0] for email in emails for _ in range(4)]
    assert statuses == [401] * 10 + [429] * 2


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8:1:2::7"])
async def test_an_address_that_tries_many_accounts_is_refused(at, address: str) -> None:
    client = at(address)
    for number in range(9):
        await owe(at, address, f"{number}@headwater.test", 11)
    assert await fail(client, 1, "somebody@headwater.test") == [401]
    assert (await log_in(client)).status_code == 429
    assert (await log_in(at(OFFICE))).status_code == 200


async def test_addresses_of_one_ipv6_network_count_as_one(at) -> None:
    statuses = [(await fail(at(f"2001:db8:1:2::{number:x}"), 1))[0] for number in range(12)]
    assert statuses == [401] * 10 + [429] * 2
    assert await fail(at("2001:db8:1:3::1"), 1) == [401]
    assert await fail(at("::ffff:192.0.2.1"), 1) == [401]


async def test_guesses_from_many_addresses_are_refused_but_the_user_is_not(at) -> None:
    user = at(HOME)
    assert (await log_in(user)).status_code == 200
    for number in range(30):
        await owe(at, f"198.51.100.{number}", OWNER, 10)
    assert await fail(at("203.0.113.1"), 1) == [429]
    assert (await log_in(at("203.0.113.2"))).status_code == 429
    assert (await log_in(user)).status_code == 200  # an address the account has signed in from
    assert (await log_in(at("203.0.113.1"), email="other@headwater.test")).status_code == 401


async def test_guesses_at_once_are_not_many_more(at) -> None:
    client = at(HOME)
    answers = await asyncio.gather(*(log_in(client, f"guess {number}") for number in range(40)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {401, 429}
    checked_at_once = at.app.state.server.passwords._checks._value
    assert 10 <= statuses.count(401) < 10 + checked_at_once


async def test_many_machines_behind_one_address_log_in_at_once(at) -> None:
    client = at(HOME)
    answers = await asyncio.gather(*(log_in(client) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}


async def test_every_api_process_holds_the_limit(settings_for, database_url, at) -> None:
    assert await fail(at(HOME), 10) == [401] * 10
    async with serving(settings_for(), database_url) as other:
        assert (await log_in(other(HOME))).status_code == 429


async def test_what_is_paid_is_removed_and_nobody_can_read_who_tried(at) -> None:
    await fail(at(HOME), 3, "secret-typed-into-the-wrong-field")
    await fail(at(OFFICE), 3)
    await log_in(at(OFFICE))
    kept = str(await execute(at, "SELECT * FROM login_debt")) + str(await execute(at, "SELECT * FROM login_place"))
    assert "secret" not in kept
    assert OWNER not in kept
    await pass_time(at, 3600)
    await fail(at("192.0.2.99"), 1)
    assert await execute(at, "SELECT count(*) FROM login_debt") == [(3,)]
    await execute(at, "UPDATE login_place SET seen_at = seen_at - interval '91 days'")
    await log_in(at(HOME))
    assert await execute(at, "SELECT count(*) FROM login_place") == [(1,)]


async def test_a_hash_of_weaker_parameters_is_made_anew_at_log_in(at) -> None:
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await execute(at, "UPDATE account SET password_hash = %s", weak)
    assert await fail(at(HOME), 1) == [401]
    assert await execute(at, "SELECT password_hash FROM account") == [(weak,)]
    assert (await log_in(at(HOME))).status_code == 200
    [(renewed,)] = await execute(at, "SELECT password_hash FROM account")
    assert renewed != weak
    assert not argon2.PasswordHasher().check_needs_rehash(renewed)
    assert (await log_in(at(HOME))).status_code == 200
    assert await execute(at, "SELECT password_hash FROM account") == [(renewed,)]


async def test_a_password_changed_meanwhile_is_not_changed_back(at) -> None:
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    await execute(at, "UPDATE account SET password_hash = %s", weak)
    async with at.app.state.server.place.pool.connection() as conn:
        found = await accounts.password_hash_of(conn, OWNER)
        checked = accounts.check_password(found, PASSWORD)
        await accounts.set_password_hash(conn, checked.account, accounts.hash_password("another password"))
        await accounts.renew_hash(conn, checked)
    assert (await log_in(at(HOME), "another password")).status_code == 200


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_new_password_ends_every_token_of_before_and_is_in_the_audit_log(at) -> None:
    client = at(HOME)
    here, elsewhere = (await log_in(client)).json(), (await log_in(at(OFFICE))).json()
    body = {"oldPassword": PASSWORD, "newPassword": "a new password"}
    changed = await client.patch("/users/me/password", json=body, headers=bearer(here["id_token"]))
    assert changed.status_code == 200
    for old in (here, elsewhere):
        answer = await client.post(TOKEN, json={"type": "refresh_token", "refresh_token": old["refresh_token"]})
        assert answer.status_code == 401
        assert "password was changed" in answer.json()["message"]
        assert (await client.get("/users/me", headers=bearer(old["id_token"]))).status_code == 401
    new = changed.json()
    refreshed = await client.post(TOKEN, json={"type": "refresh_token", "refresh_token": new["refresh_token"]})
    for token in (new["id_token"], refreshed.json()["id_token"]):
        assert (await client.get("/users/me", headers=bearer(token))).status_code == 200
    assert (await log_in(client)).status_code == 401
    assert (await log_in(client, "a new password")).status_code == 200
    assert await execute(at, "SELECT actor, action, target FROM audit") == [(OWNER, "account.password_changed", OWNER)]


async def test_a_password_is_changed_only_by_who_knows_it_and_only_to_one_that_can_be(at) -> None:
    client = at(HOME)
    headers = bearer((await log_in(client)).json()["id_token"])

    async def change(old: str, new: str) -> httpx.Response:
        body = {"oldPassword": old, "newPassword": new}
        return await client.patch("/users/me/password", json=body, headers=headers)

    assert (await change(PASSWORD, "short")).status_code == 400
    assert (await change(PASSWORD, "x" * 1025)).status_code == 400
    assert "old password" in (await change("wrong password", "a new password")).json()["message"]
    assert [(await change("wrong password", "a new password")).status_code for _ in range(10)] == [403] * 9 + [429]
    assert (await client.get("/users/me", headers=headers)).status_code == 200
    assert (await log_in(at(OFFICE))).status_code == 200


async def test_tokens_made_in_one_second_with_a_new_password_are_told_apart(at) -> None:
    """Times in whole seconds would let one of them through, or refuse the other."""
    async with at.app.state.server.place.pool.connection() as conn:
        account = await accounts.find_account(conn, OWNER)
        assert account is not None
        signer: Signer = at.app.state.server.signer
        before = signer.read(signer.sign(account_id=account.id, email=OWNER))
        await accounts.set_password_hash(conn, account, "-")
        after = signer.read(signer.sign(account_id=account.id, email=OWNER))
        assert await accounts.get_bearer(conn, account.id, issued_at=after.issued_at) == account
        with pytest.raises(Unauthorized):
            await accounts.get_bearer(conn, account.id, issued_at=before.issued_at)
