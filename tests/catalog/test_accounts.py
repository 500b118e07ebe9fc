"""Accounts: passwords, and what a stranger can learn about who has an account."""

import time

import pytest

from headwater.catalog import accounts
from headwater.errors import BadRequest, Conflict, NotFound, Unauthorized

PASSWORD = "pass word 🦊"


@pytest.fixture
async def account(conn):
    return await accounts.create_account(conn, email=" Ann@Example.com ", password=PASSWORD)


async def test_a_password_is_kept_as_argon2id_and_opens_its_account(conn, account):
    found = await accounts.password_hash_of(conn, "ann@example.com")
    assert found[1].startswith("$argon2id$")
    assert PASSWORD not in found[1]
    assert accounts.check_password(found, PASSWORD).account == account
    for wrong in ("", PASSWORD + " ", PASSWORD.upper(), "x" * 2000):
        with pytest.raises(Unauthorized):
            accounts.check_password(found, wrong)


async def test_two_accounts_with_one_password_have_different_hashes(conn, account):
    await accounts.create_account(conn, email="bob@example.com", password=PASSWORD)
    hashes = {(await accounts.password_hash_of(conn, name))[1] for name in ("ann@example.com", "bob@example.com")}
    assert len(hashes) == 2


async def test_an_unknown_account_is_refused_in_the_same_words_and_as_slowly(conn, account):
    found = await accounts.password_hash_of(conn, "ann@example.com")
    assert await accounts.password_hash_of(conn, "nobody@example.com") is None
    words, times = set(), {}
    for name, asked in (("known", found), ("unknown", None)):
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            with pytest.raises(Unauthorized) as told:
                accounts.check_password(asked, "wrong password")
            taken.append(time.perf_counter() - began)
            words.add(str(told.value))
        times[name] = min(taken)
    assert len(words) == 1
    assert 0.2 < times["unknown"] / times["known"] < 5


@pytest.mark.parametrize("email", ["ann@example.com", "ANN@example.com", " Ann@Example.com"])
async def test_an_address_has_one_account_in_whatever_case(conn, account, email):
    """There were two, and which one could log in was chance."""
    with pytest.raises(Conflict):
        await accounts.create_account(conn, email=email, password=PASSWORD)
    assert await accounts.find_account(conn, email) == account


@pytest.mark.parametrize(("email", "password"), [
    ("ann", PASSWORD), ("a b@c", PASSWORD), ("", PASSWORD), ("ok@x", "short"), ("ok@x", "x" * 1025),
])  # fmt: skip
async def test_what_cannot_be_an_account(conn, email, password):
    with pytest.raises(BadRequest) as told:
        await accounts.create_account(conn, email=email, password=password)
    assert password not in str(told.value)


async def test_an_account_without_a_password_cannot_log_in_with_one(conn, account):
    await conn.execute("UPDATE account SET password_hash = NULL WHERE id = %s", [account.id])
    assert await accounts.password_hash_of(conn, "ann@example.com") is None
    assert await accounts.get_account(conn, account.id) == account
    with pytest.raises(NotFound):
        await accounts.get_account(conn, 2**60)
