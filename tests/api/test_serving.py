"""Who may have the bytes of items: asked together for speed, and never remembered."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from headwater.api.caller import account_of
from headwater.api.items import get_item
from headwater.catalog.serving import Asked, Kept
from headwater.errors import HeadwaterError
from headwater.tokens import Bearer, KnownBearers, Signer
from headwater.work.preprocess import thumbnail_key
from headwater.work.serving import Lookups
from tests.api.world import NOBODY, World, message, new_account, unique

OWNER = "owner@headwater.test"
KINDS = ["stream", "thumbnail"]


async def with_bytes(world: World, dataset_id: str | None = None) -> str:
    """An item of our own storage with a thumbnail."""
    item = await world.upload(dataset_id or world.dataset_id, f"/{unique('served')}.jpg", b"0123456789")
    number = int(item["id"], 16)
    await world.execute("UPDATE item SET thumbnail_type = 'image/jpeg' WHERE id = %s", number)
    async with world.app.state.server.place.places.of_dataset(int(dataset_id or world.dataset_id, 16)) as store:
        await store.put(thumbnail_key(number, "image/jpeg"), b"0123456789", content_type="image/jpeg")
    return item["id"]


async def member(world: World) -> tuple[str, httpx.AsyncClient]:
    """Somebody new, who may read the project."""
    email = f"{unique('reader')}@project.test"
    async with world.pool.connection() as conn:
        account = await new_account(conn, email)
        await conn.execute(
            "INSERT INTO member (organization_id, account_id, role) VALUES (%s, %s, 'worker')",
            [int(world.organization_id, 16), account.id],
        )
        await conn.execute(
            "INSERT INTO project_member (project_id, account_id, role) VALUES (%s, %s, 'annotator')",
            [int(world.project_id, 16), account.id],
        )
    return email, await world.new_client(account)


async def statuses(client: httpx.AsyncClient, item_id: str) -> list[int]:
    return [(await client.get(f"/items/{item_id}/{kind}")).status_code for kind in KINDS]


async def refusals(client: httpx.AsyncClient, item_id: str, status: int) -> None:
    """Both are refused in the same words."""
    told = [message(await client.get(f"/items/{item_id}/{kind}"), status) for kind in KINDS]
    assert told[0] == told[1]


# What is taken away is gone at once.


async def test_a_revoked_key_is_refused_at_once(world: World) -> None:
    item_id = await with_bytes(world)
    key = (await world.owner.post("/apiKeys", json={"userId": OWNER})).json()
    reader = await world.new_client(None, key["jwt"])
    assert await statuses(reader, item_id) == [200, 200]
    used = await world.execute("SELECT last_used_at FROM api_key WHERE id = %s", int(key["id"], 16))
    assert used[0][0] is not None
    assert (await world.owner.delete(f"/apiKeys/{key['id']}")).status_code == 200
    await refusals(reader, item_id, 401)


async def test_no_request_that_comes_after_the_revocation_is_served(world: World) -> None:
    """Readers ask all the time, so that there are always questions on their way."""
    item_id = await with_bytes(world)
    key = (await world.owner.post("/apiKeys", json={"userId": OWNER})).json()
    reader = await world.new_client(None, key["jwt"])
    seen: list[tuple[bool, int]] = []
    is_revoked = False

    async def read() -> None:
        for _ in range(40):
            asked_after = is_revoked
            seen.append((asked_after, (await reader.get(f"/items/{item_id}/thumbnail")).status_code))

    readers = [asyncio.create_task(read()) for _ in range(20)]
    while len(seen) < 200:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert (await world.owner.delete(f"/apiKeys/{key['id']}")).status_code == 200
    is_revoked = True
    await asyncio.gather(*readers)
    assert (False, 200) in seen
    assert {status for after, status in seen if after} == {401}


async def test_a_removed_member_and_a_removed_account_are_refused_at_once(world: World) -> None:
    item_id = await with_bytes(world)
    email, reader = await member(world)
    assert await statuses(reader, item_id) == [200, 200]
    assert (await world.owner.delete(f"/projects/{world.project_id}/members/{email}")).status_code == 200
    await refusals(reader, item_id, 404)
    await world.execute("UPDATE account SET deleted_at = now() WHERE email = %s", email)
    await refusals(reader, item_id, 401)


async def test_a_token_of_before_the_new_password_is_refused_at_once(world: World) -> None:
    item_id = await with_bytes(world)
    email, reader = await member(world)
    assert await statuses(reader, item_id) == [200, 200]
    await world.execute("UPDATE account SET tokens_valid_after = now() WHERE email = %s", email)
    await refusals(reader, item_id, 401)


async def test_a_deleted_item_and_a_deleted_dataset_are_gone_at_once(world: World) -> None:
    dataset_id = await world.new_dataset()
    first, second = await with_bytes(world, dataset_id), await with_bytes(world, dataset_id)
    assert await statuses(world.owner, first) == [200, 200]
    assert (await world.owner.delete(f"/items/{first}")).status_code == 200
    await refusals(world.owner, first, 404)
    assert await statuses(world.owner, second) == [200, 200]
    deleted = await world.owner.delete(f"/datasets/{dataset_id}")
    assert deleted.status_code == 200, deleted.text
    await refusals(world.owner, second, 404)


async def test_a_clone_is_served_to_who_may_read_it_alone_and_outlives_its_original(world: World) -> None:
    hidden = await world.new_dataset(projects=[await world.new_project()])
    item_id = await with_bytes(world, hidden)
    shown = await world.new_dataset()
    into = {"cloneDatasetParams": {"targetDatasetId": shown}}
    made = await world.owner.post(f"/datasets/{hidden}/clone", json=into)
    assert made.json().get("status") == "success", made.text
    found = await world.owner.post(f"/datasets/{shown}/query", json={"filter": {"type": "file"}})
    [clone] = found.json()["items"]
    _, reader = await member(world)

    async def served() -> list[tuple[int, bytes]]:
        answers = [await reader.get(f"/items/{clone['id']}/{kind}") for kind in KINDS]
        return [(answer.status_code, answer.content) for answer in answers]

    whole = [(200, b"0123456789")] * 2
    assert await served() == whole
    await refusals(reader, item_id, 404)
    assert (await world.owner.delete(f"/items/{item_id}")).status_code == 200
    assert await served() == whole
    assert (await world.owner.delete(f"/datasets/{hidden}")).status_code == 200
    assert await served() == whole
    assert (await world.owner.delete(f"/items/{clone['id']}")).status_code == 200
    await refusals(reader, clone["id"], 404)


@pytest.mark.parametrize("item_id", ["no-id", "0" * 23, NOBODY, "f" * 24, "A" * 24])
async def test_what_is_no_item_is_told_so_and_needs_a_token_like_all_else(world: World, item_id: str) -> None:
    await refusals(world.owner, item_id, 404)
    await refusals(world.callers["no token"], item_id, 401)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer a b", "bearer garbage"])
async def test_what_is_no_token_is_refused(world: World, header: str) -> None:
    item_id = await with_bytes(world)
    answer = await world.callers["no token"].get(f"/items/{item_id}/stream", headers={"authorization": header})
    assert "Log in" in message(answer, 401) or "token" in message(answer, 401)


# Many together are answered as each alone.


async def answer_alone(world: World, asked: Asked) -> tuple[str, str]:
    """By the functions that other routes ask with."""
    bearer = Bearer(asked.account_id, asked.issued_at, 2e9, asked.key_id)
    try:
        account = await account_of(world.app.state.server, bearer)
        async with world.pool.connection() as conn:
            item = await get_item(conn, account, asked.item_id)
    except HeadwaterError as error:
        return type(error).__name__, str(error)
    return "found", item.path


async def answers_together(lookups: Lookups, questions: Sequence[Asked]) -> list[tuple[str, str]]:
    found = await asyncio.gather(*[lookups.find(asked) for asked in questions], return_exceptions=True)
    return [
        ("found", one.path) if isinstance(one, Kept) else (type(one).__name__, str(one))
        for one in found
        if isinstance(one, Kept | HeadwaterError)
    ]


async def questions_of(world: World) -> list[Asked]:
    """Of everybody about everything: by log-in, by a key, by what was called in, for items of several places."""
    elsewhere = await world.new_dataset()
    gone = await world.new_dataset()
    items = [await with_bytes(world), await with_bytes(world, elsewhere), await with_bytes(world, gone), NOBODY]
    folder = await world.owner.post(f"/datasets/{elsewhere}/items", data={"type": "dir", "path": f"/{unique('dir')}"})
    items.append(folder.json()["id"])
    await world.owner.delete(f"/datasets/{gone}")
    keys = [(await world.owner.post("/apiKeys", json={"userId": OWNER})).json()["id"] for _ in range(2)]
    await world.owner.delete(f"/apiKeys/{keys[1]}")
    owner = world.people["organisation owner"].id
    called_in, _ = await member(world)
    await world.execute("UPDATE account SET tokens_valid_after = now() WHERE email = %s", called_in)
    late = (await world.execute("SELECT id FROM account WHERE email = %s", called_in))[0][0]
    bearers = [(account.id, None) for account in world.people.values()]
    bearers += [(owner, int(key, 16)) for key in keys] + [(world.people["annotator"].id, int(keys[0], 16))]
    bearers += [(late, None), (2**62, None), (owner, 2**62)]
    return [Asked(int(item, 16), account, key, 1.7e9) for item in items for account, key in bearers]


async def test_many_questions_have_the_answers_of_each_alone(world: World) -> None:
    questions = await questions_of(world)
    alone = [await answer_alone(world, asked) for asked in questions]
    assert {kind for kind, _ in alone} == {"found", "NotFound", "Unauthorized"}
    lookups = Lookups(world.pool)
    order = list(range(len(questions)))
    for seed in range(3):
        random.Random(seed).shuffle(order)
        together = await answers_together(lookups, [questions[place] for place in order])
        assert together == [alone[place] for place in order]


class Counted(Lookups):
    """How many questions each statement had."""

    def __init__(self, pool: Any) -> None:
        super().__init__(pool)
        self.sizes: list[int] = []

    async def _ask(self, asked: Sequence[Asked]) -> list[Kept | Exception]:
        self.sizes.append(len(asked))
        return await super()._ask(asked)


async def test_those_that_come_together_share_a_statement_and_none_has_too_many(world: World) -> None:
    lookups = Counted(world.pool)
    owner = world.people["organisation owner"].id
    asked = Asked(int(await with_bytes(world), 16), owner, None, 2e9)
    await asyncio.gather(*[lookups.find(asked) for _ in range(50)])
    assert lookups.sizes == [50]
    await asyncio.gather(*[lookups.find(asked) for _ in range(350)])
    assert sum(lookups.sizes[1:]) == 350
    assert max(lookups.sizes) == 100


async def test_who_goes_away_takes_no_answer_from_the_others(world: World) -> None:
    lookups = Lookups(world.pool)
    asked = Asked(int(await with_bytes(world), 16), world.people["organisation owner"].id, None, 2e9)
    asking = [asyncio.create_task(lookups.find(asked)) for _ in range(10)]
    await asyncio.sleep(0)
    for task in asking[::2]:
        task.cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(answer, Kept) for answer in answers] == [False, True] * 5


async def test_a_database_that_fails_is_told_to_each_and_asked_again_by_the_next(world: World) -> None:
    lookups = Lookups(world.pool)
    asked = Asked(int(await with_bytes(world), 16), world.people["organisation owner"].id, None, 2e9)
    odd = Asked(2**64, 1, None, 0)  # no number that it knows
    answers = await asyncio.gather(lookups.find(odd), lookups.find(asked), return_exceptions=True)
    assert all(isinstance(answer, Exception) for answer in answers)
    assert isinstance(await lookups.find(asked), Kept)


# Tokens that were read before.


def test_a_token_is_read_once_and_ends_when_it_says() -> None:
    signer = Signer("k" * 40)
    known = KnownBearers(signer, most=2)
    token = signer.sign(account_id=7, email="a@b.test")
    first = known.read(token)
    assert known.read(token) is first
    ended = signer.sign(account_id=7, email="a@b.test", life_s=-1)
    known._known[ended] = replace(first, expires_at=time.time() - 1)  # as if it had been read in time
    with pytest.raises(HeadwaterError):
        known.read(ended)


def test_only_so_many_tokens_are_known_and_none_that_was_refused() -> None:
    signer = Signer("k" * 40)
    known = KnownBearers(signer, most=2)
    tokens = [signer.sign(account_id=number, email="a@b.test") for number in range(4)]
    first = [known.read(token) for token in tokens]
    assert known.read(tokens[3]) is first[3]
    assert known.read(tokens[0]) is not first[0]
    for _ in range(2):
        with pytest.raises(HeadwaterError):
            known.read("garbage")
        with pytest.raises(HeadwaterError):
            known.read(signer.sign(account_id=1, email="a@b.test", use="refresh"))
    assert len(known._known) == 2
