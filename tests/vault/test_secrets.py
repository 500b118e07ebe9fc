"""Integrations and their secrets in database and vault together: through races, crashes, rotations and moves."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from headwater.catalog import integrations, organizations, webhooks
from headwater.catalog import secrets as rows
from headwater.errors import Conflict, Unavailable
from headwater.settings import Settings
from headwater.vault.both import Vaults
from headwater.vault.keys import GivenKeys, KeyFile
from headwater.vault.local import LocalVault, VaultError
from headwater.vault.vaults import Place
from headwater.wire.webhooks import NewWebhookBody
from headwater.work import secrets
from headwater.work import webhooks as work_webhooks
from headwater.work.workplace import Workplace
from headwater.workplace import load_vault, open_workplace
from tests import servers
from tests.opened import open_secret
from tests.vault.conftest import role_of, token_of
from tests.vault.test_local import text_of
from tests.work.world import make_project

OPTIONS = {"key": "AKIA-visible-nowhere", "secret": "hush-hush-hush"}


class Home:
    """A workplace and the organisation whose integrations these are."""

    def __init__(self, place: Workplace, settings: Settings, owner: Any, organization_id: int) -> None:
        self.place, self.settings, self.owner, self.organization_id = place, settings, owner, organization_id

    async def create(self, name: str, **given: Any) -> integrations.Integration:
        wanted = {"kind": "s3", "options": OPTIONS, "metadata": {}} | given
        return await secrets.create_integration(
            self.place, self.settings, self.owner, self.organization_id, name=name, **wanted
        )

    async def change(self, made: integrations.Integration, **given: Any) -> integrations.Integration:
        wanted = dict.fromkeys(("name", "kind", "options", "metadata")) | given
        return await secrets.change_integration(
            self.place, self.settings, self.owner, self.organization_id, made.id, **wanted
        )

    async def delete(self, made: integrations.Integration) -> None:
        async with self.place.pool.connection() as conn:
            await secrets.delete_integration(conn, self.owner, made)

    async def opened(self, made: integrations.Integration, vault: Any = None) -> dict[str, str]:
        async with self.place.pool.connection() as conn:
            return await open_secret(conn, vault or self.place.vault, made.id)

    async def rows(self, statement: str, *given: Any) -> list[tuple[Any, ...]]:
        async with self.place.pool.connection() as conn:
            return await (await conn.execute(statement, given)).fetchall()

    async def places(self) -> set[Place]:
        return {Place(*row) for row in await self.rows("SELECT mount, path FROM secret WHERE path IS NOT NULL")}

    async def run_jobs(self) -> int:
        """All that wait, those for later too, each twice."""
        count = 0
        while jobs := await self.rows(
            "DELETE FROM procrastinate_jobs WHERE task_name IN (%s, %s) RETURNING task_name, args",
            secrets.DROP_UNUSED_TASK, secrets.DESTROY_TASK,
        ):  # fmt: skip
            for task, arguments in jobs:
                count += 1
                for _ in range(2):
                    if task == secrets.DESTROY_TASK:
                        await secrets.destroy(self.place, **arguments)
                    else:
                        await secrets.drop_unused(self.place, **arguments)
        return count


@pytest.fixture
async def homes(
    new_database: Callable[[], str], settings_for: Callable[..., Settings]
) -> AsyncIterator[Callable[..., Any]]:
    """Opens workplaces: on a database of the test's own unless it names another's."""
    async with AsyncExitStack() as stack:

        async def home(url: str | None = None, *, connections: int = 5, **given: Any) -> Home:
            settings = settings_for(decoders=1, **given)
            opened = open_workplace(settings, url or new_database(), name="vault", max_connections=connections)
            place = await stack.enter_async_context(opened)
            async with place.pool.connection() as conn:
                owner = await organizations.get_owner(conn)
                organization = (await organizations.list_organizations(conn, owner))[0]
            return Home(place, settings, owner, organization.id)

        yield home


def in_vault(server: servers.VaultServer) -> dict[str, Any]:
    return {"vault_url": server.url, "vault_token": token_of(server)}


def entries(server: servers.VaultServer) -> set[Place]:
    """What OpenBao has in the folder of Headwater."""
    kv = server.client().secrets.kv.v2
    try:
        found = kv.list_secrets("headwater", mount_point="secret")["data"]["keys"]
    except Exception:  # an empty folder is no folder
        return set()
    return {Place("secret", f"headwater/{name}") for name in found}


class TestTwice:
    """A request that is repeated after a 502, and one that only looks like it."""

    @pytest.mark.parametrize("outside", [False, True])
    async def test_the_same_is_the_one_that_is_there_and_another_is_a_conflict(self, homes, bao, outside):
        home = await homes(**in_vault(bao) if outside else {})
        made = await home.create("keys", metadata={"region": "r"})
        assert await home.create("keys ", metadata={"region": "r"}) == made
        for other in (
            {"options": OPTIONS | {"secret": "another-one"}},
            {"options": OPTIONS | {"sessionToken": "t"}},
            {"kind": "key_value", "options": {"key": "k", "value": "v"}},
            {"metadata": {}},
        ):
            with pytest.raises(Conflict, match="another integration named 'keys'") as told:
                await home.create("keys", **({"metadata": {"region": "r"}} | other))
            assert "another-one" not in str(told.value)
        assert len(await home.rows("SELECT FROM audit WHERE action = 'integration.created'")) == 1

    @pytest.mark.parametrize("outside", [False, True])
    async def test_many_at_once_make_one_and_leave_nothing(self, homes, own_bao, outside):
        home = await homes(**in_vault(own_bao) if outside else {})
        made = await asyncio.gather(*(home.create("keys") for _ in range(8)))
        assert len({one.id for one in made}) == 1
        assert await home.opened(made[0]) == OPTIONS
        await home.run_jobs()
        assert await home.rows("SELECT count(*) FROM secret") == [(1,)]
        assert entries(own_bao) == await home.places()
        assert len(entries(own_bao)) == outside


class TestOutside:
    async def test_the_database_holds_only_where_it_is(self, homes, bao):
        home = await homes(**in_vault(bao))
        made = await home.create("keys")
        assert await home.opened(made) == OPTIONS
        dump = str(await home.rows("SELECT secret::text FROM secret"))
        assert "headwater/" in dump
        assert await home.rows("SELECT sealed FROM secret") == [(None,)]
        for value in OPTIONS.values():
            assert value not in dump

    async def test_a_deleted_or_replaced_secret_is_destroyed_and_the_new_one_stays(self, homes, own_bao):
        home = await homes(**in_vault(own_bao))
        made, other = await home.create("keys"), await home.create("other")
        (first,) = [place for place in entries(own_bao) if place in await home.places()][:1]
        changed = await home.change(made, options=OPTIONS | {"secret": "a-new-secret"})
        assert changed.updated_at > made.updated_at
        await home.run_jobs()
        assert entries(own_bao) == await home.places()
        assert len(entries(own_bao)) == 2
        assert (await home.opened(made))["secret"] == "a-new-secret"
        await home.delete(made)
        await home.run_jobs()
        assert entries(own_bao) == await home.places()
        assert await home.opened(other) == OPTIONS
        assert first.mount == "secret"

    @pytest.mark.parametrize("step", ["insert_integration", "change_integration"])
    async def test_what_a_crash_after_the_vault_leaves_is_found_and_removed(self, homes, own_bao, monkeypatch, step):
        home = await homes(**in_vault(own_bao))
        made = await home.create("keys")
        before = entries(own_bao)

        async def crash(*_: Any) -> None:
            raise RuntimeError("power cut")

        with monkeypatch.context() as patched:
            patched.setattr(integrations, step, crash)
            with pytest.raises(RuntimeError):
                await (home.create("more") if step.startswith("insert") else home.change(made, options=OPTIONS))
        assert len(entries(own_bao)) == 2
        await home.run_jobs()
        assert entries(own_bao) == before == await home.places()
        assert await home.opened(made) == OPTIONS

    async def test_a_crash_before_the_vault_leaves_a_row_that_goes(self, homes, own_bao):
        home = await homes(**in_vault(own_bao))
        own_bao.seal()
        with pytest.raises(VaultError, match="sealed") as told:
            await home.create("keys")
        assert told.value.status == 503
        assert await home.rows("SELECT count(*) FROM integration") == [(0,)]
        own_bao.unseal()
        await home.run_jobs()
        assert await home.rows("SELECT count(*) FROM secret") == [(0,)]
        assert await home.opened(await home.create("keys")) == OPTIONS

    async def test_a_vault_that_answers_after_the_clean_up_changes_nothing(self, homes, own_bao, monkeypatch):
        home = await homes(**in_vault(own_bao))
        outside = home.place.vault.outside
        keep = outside.keep

        async def slowly(*values: Any, **given: Any) -> Any:
            kept = await keep(*values, **given)
            await home.run_jobs()
            return kept

        monkeypatch.setattr(outside, "keep", slowly)
        with pytest.raises(Unavailable, match="too late"):
            await home.create("keys")
        assert await home.rows("SELECT count(*) FROM integration") == [(0,)]
        await home.run_jobs()
        assert entries(own_bao) == set()

    async def test_no_connection_is_held_while_the_vault_is_waited_for(self, homes, bao, monkeypatch):
        home = await homes(connections=1, **in_vault(bao))
        outside = home.place.vault.outside
        waits = 0

        def free(call: Callable[..., Any]) -> Callable[..., Any]:
            async def checked(*values: Any, **given: Any) -> Any:
                nonlocal waits
                async with home.place.pool.connection(timeout=1):
                    waits += 1
                return await call(*values, **given)

            return checked

        for name in ("keep", "open", "destroy"):
            monkeypatch.setattr(outside, name, free(getattr(outside, name)))
        made = await home.create("keys")
        await home.create("keys")
        await home.change(made, options=OPTIONS | {"secret": "a-new-secret"})
        assert await home.run_jobs()
        assert await secrets.move(home.place.pool, home.place.vault, to_outside=False) == 1
        assert waits >= 5

    async def test_the_settings_of_an_approle_reach_the_vault(self, homes, bao):
        login = role_of(bao)
        given = {"vault_url": bao.url + "/", "vault_role_id": login.role_id, "vault_secret_id": login.secret_id}
        home = await homes(vault_prefix="headwater/one", **given)
        made = await home.create("keys")
        assert await home.opened(made) == OPTIONS
        assert [place.path.rpartition("/")[0] for place in await home.places()] == ["headwater/one"]
        assert login.secret_id not in repr(home.settings) + repr(home.place)

    async def test_a_server_without_the_settings_says_which_are_missing(self, homes, bao, new_database):
        url = new_database()
        made = await (await homes(url, **in_vault(bao))).create("keys")
        with pytest.raises(VaultError, match="HEADWATER_VAULT_URL"):
            await (await homes(url)).opened(made)


class TestMove:
    async def test_there_and_back_beside_a_server_that_changes_and_deletes(self, homes, own_bao):
        home = await homes(**in_vault(own_bao))
        at_home = Vaults(home.place.vault.local)
        made = [await home.create(f"keys {number}", options=OPTIONS | {"key": str(number)}) for number in range(4)]
        await secrets.move(home.place.pool, home.place.vault, to_outside=False)
        await home.run_jobs()
        assert entries(own_bao) == set()
        for number, one in enumerate(made):
            assert (await home.opened(one, at_home))["key"] == str(number)
        await home.change(made[0], options=OPTIONS)  # goes to the vault where new ones go
        await home.delete(made[1])
        assert await secrets.move(home.place.pool, home.place.vault, to_outside=True) == 2
        assert await secrets.move(home.place.pool, home.place.vault, to_outside=True) == 0
        await home.run_jobs()
        assert entries(own_bao) == await home.places()
        assert [(await home.opened(one))["key"] for one in made if one is not made[1]] == [OPTIONS["key"], "2", "3"]

    async def test_the_secrets_of_webhooks_move_and_are_destroyed_with_them(self, homes, own_bao):
        home = await homes(**in_vault(own_bao))
        pool, vault = home.place.pool, home.place.vault
        async with pool.connection() as conn:
            owner, project_id = await make_project(conn)
        body = NewWebhookBody(name="hook", url="https://hooks.test/in")
        hook, secret = await work_webhooks.create_webhook(home.place, owner, project_id, body)

        async def kept() -> Any:
            async with pool.connection() as conn:
                return await webhooks.kept_secret(conn, await webhooks.get_webhook(conn, project_id, hook.id))

        for to_outside in (False, True):
            assert await secrets.move(pool, vault, to_outside=to_outside) == 1
            await home.run_jobs()
            assert (len(entries(own_bao)) == 1) == to_outside
            assert await vault.open(await kept()) == {"secret": secret}
        async with pool.connection() as conn:
            await work_webhooks.delete_webhooks(conn, project_id)
        await home.run_jobs()
        assert entries(own_bao) == set()
        assert await home.rows("SELECT count(*) FROM secret") == [(0,)]

    async def test_one_that_is_changed_in_the_middle_of_its_move_keeps_the_change(self, homes, own_bao, monkeypatch):
        home = await homes(**in_vault(own_bao))
        made = await home.create("keys")
        opened = home.place.vault.outside.open

        async def open_late(kept: Any) -> dict[str, str]:
            values = await opened(kept)
            monkeypatch.undo()
            await home.change(made, options=OPTIONS | {"secret": "a-new-secret"})
            return values

        monkeypatch.setattr(home.place.vault.outside, "open", open_late)
        assert await secrets.move(home.place.pool, home.place.vault, to_outside=False) == 0
        assert (await home.opened(made))["secret"] == "a-new-secret"
        await home.run_jobs()
        assert entries(own_bao) == await home.places()
        assert await home.rows("SELECT count(*) FROM secret") == [(1,)]


class TestRotation:
    async def test_beside_a_server_that_makes_and_changes_integrations(self, homes, new_database, monkeypatch):
        monkeypatch.setattr(rows, "_BATCH", 3)
        home = await homes(new_database())
        made = [await home.create(f"keys {number}") for number in range(8)]
        operators = load_vault(home.settings)  # another process

        async def busy() -> None:
            for number in range(6):
                made.append(await home.create(f"more {number}"))
                await home.change(made[number], options=OPTIONS | {"key": "changed"})

        old = operators.local.current_key_id()
        count, _ = await asyncio.gather(secrets.rotate(home.place.pool, operators.local), busy())
        assert count >= 8
        assert len(KeyFile(home.settings.data_dir / "master-key").read()) == 1
        async with home.place.pool.connection() as conn:
            stock = await rows.take_stock(conn)
        assert list(stock.sealed_under) == [operators.local.current_key_id()] != [old]
        fresh = load_vault(home.settings)
        for one in made:
            assert await home.opened(one, fresh) == await home.opened(one)

    async def test_interrupted_and_repeated(self, homes, monkeypatch):
        monkeypatch.setattr(rows, "_BATCH", 2)
        home = await homes()
        made = [await home.create(f"keys {number}") for number in range(7)]
        local = load_vault(home.settings).local
        rewrap, calls = local.rewrap, 0

        def dying(*values: Any, **given: Any) -> bytes:
            nonlocal calls
            calls += 1
            if calls == 4:
                raise KeyboardInterrupt
            return rewrap(*values, **given)

        monkeypatch.setattr(local, "rewrap", dying)
        with pytest.raises(KeyboardInterrupt):
            await secrets.rotate(home.place.pool, local)
        keys = KeyFile(home.settings.data_dir / "master-key").read()
        assert len(keys) == 2
        for one in made:
            assert await home.opened(one, load_vault(home.settings)) == await home.opened(one) == OPTIONS
        assert await secrets.rotate(home.place.pool, load_vault(home.settings).local) == 5
        assert KeyFile(home.settings.data_dir / "master-key").read() == keys[:1]
        for one in made:
            assert await home.opened(one, load_vault(home.settings)) == OPTIONS

    async def test_a_secret_that_is_about_to_commit_is_waited_for(self, homes):
        home = await homes()
        async with home.place.pool.connection() as conn:
            made = await integrations.create_integration(
                conn, home.place.vault.local, home.owner, home.organization_id,
                name="late", kind="s3", options=OPTIONS, metadata={},
            )  # fmt: skip
            rotation = asyncio.create_task(secrets.rotate(home.place.pool, load_vault(home.settings).local))
            while not await home.rows("SELECT FROM pg_locks WHERE relation = 'secret'::regclass AND NOT granted"):
                assert not rotation.done()
        assert await rotation == 1
        assert await home.opened(made, load_vault(home.settings)) == OPTIONS

    async def test_a_secret_whose_key_went_in_this_moment_is_not_stored(self, homes):
        home = await homes()
        kept = await home.place.vault.keep(OPTIONS, owner="integration:1", place=None)
        await secrets.rotate(home.place.pool, load_vault(home.settings).local)
        with pytest.raises(Unavailable, match="rotated in this moment"):
            async with home.place.pool.connection() as conn:
                await rows.insert(conn, home.place.vault.local, rows.Reserved(), kept)
        assert await home.rows("SELECT count(*) FROM secret") == [(0,)]

    async def test_two_at_once_are_one(self, homes):
        home = await homes()
        async with home.place.pool.connection() as conn:
            await rows.guard_rotation(conn)
            with pytest.raises(Conflict, match="Another rotation"):
                await secrets.rotate(home.place.pool, load_vault(home.settings).local)
        assert len(KeyFile(home.settings.data_dir / "master-key").read()) == 1

    async def test_keys_of_the_environment(self, homes, new_database):
        url, old, new = new_database(), text_of(b"o" * 32), text_of(b"n" * 32)
        made = await (await homes(url, master_key=old)).create("keys")
        home = await homes(url, master_key=new, master_key_old=old)
        assert await home.opened(made) == OPTIONS
        assert await secrets.rotate(home.place.pool, home.place.vault.local) == 1
        assert await secrets.rotate(home.place.pool, home.place.vault.local) == 0
        assert await home.opened(made, LocalVault(GivenKeys(new))) == OPTIONS

    async def test_a_key_that_opens_none_of_them_leaves_all_keys_where_they_are(self, homes, new_database):
        url = new_database()
        made = await (await homes(url, master_key=text_of(b"o" * 32))).create("keys")
        home = await homes(url)
        with pytest.raises(VaultError, match="does not open"):
            await secrets.rotate(home.place.pool, home.place.vault.local)
        assert len(KeyFile(home.settings.data_dir / "master-key").read()) == 2
        assert await home.opened(made, LocalVault(GivenKeys(text_of(b"o" * 32)))) == OPTIONS


async def test_jobs_hold_no_secret(homes, bao):
    home = await homes(**in_vault(bao))
    made = await home.create("keys")
    await home.change(made, options=OPTIONS)
    jobs = json.dumps(await home.rows("SELECT task_name, args FROM procrastinate_jobs"))
    assert secrets.DESTROY_TASK in jobs
    for value in OPTIONS.values():
        assert value not in jobs
