"""Two organisations and somebody in every role, around the application over ASGI."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest

from headwater.catalog import accounts, organizations, projects
from headwater.catalog.accounts import Account
from tests.api.world import BASE, World, new_account
from tests.conftest import OWNER

# In the organisation; the others are members.
ROLES = {"admin": "admin", "annotationManager": "worker", "annotator": "worker"}


def _client(app: object, token: str | None) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return httpx.AsyncClient(transport=transport, base_url=BASE, headers=headers)


@pytest.fixture(scope="session")
async def world(api_app: object, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Built once; tests that change something make their own with the `new_…` functions."""
    server = api_app.state.server
    signer = server.signer
    async with AsyncExitStack() as stack:

        async def client(account: Account | None, token: str | None = None) -> httpx.AsyncClient:
            if account is not None:
                token = signer.sign(account_id=account.id, email=account.email)
            return await stack.enter_async_context(_client(api_app, token))

        people: dict[str, Account] = {}
        async with server.place.pool.connection() as conn:
            owner = await accounts.find_account(conn, OWNER)
            assert owner is not None
            people["organisation owner"] = owner
            organization = (await organizations.list_organizations(conn, owner))[0]
            for name in ("admin", "owner", "developer", "annotationManager", "annotator", "stranger"):
                people[name] = await new_account(conn, f"{name}@project.test")
                role = ROLES.get(name, "member")
                await organizations.add_member(conn, organization.id, people[name], role)
            project = await projects.create_project(conn, people["owner"], "everybody")
            for name in ("developer", "annotationManager", "annotator"):
                await projects.set_member(conn, project.id, people[name], name)
            annex = await conn.execute("INSERT INTO organization (name) VALUES ('Annex') RETURNING id")
            annex_id = (await annex.fetchone())[0]
            await conn.execute(
                "INSERT INTO member SELECT %s, account_id, role FROM member WHERE organization_id = %s",
                [annex_id, organization.id],
            )
            people["outsider"] = await new_account(conn, "outsider@elsewhere.test")
            elsewhere = await conn.execute("INSERT INTO organization (name) VALUES ('Elsewhere') RETURNING id")
            await organizations.add_member(conn, (await elsewhere.fetchone())[0], people["outsider"], "owner")
        callers = {name: await client(account) for name, account in people.items()}
        callers["no token"] = await client(None)
        callers["garbage token"] = await client(None, "garbage")
        some = people["organisation owner"]
        callers["expired token"] = await client(None, signer.sign(account_id=some.id, email=some.email, life_s=-1))
        callers["refresh token"] = await client(None, signer.sign(account_id=some.id, email=some.email, use="refresh"))
        folder = tmp_path_factory.mktemp("bucket")
        (folder / "a.txt").write_bytes(b"0123456789")
        built = World(
            app=api_app,
            pool=server.place.pool,
            people=people,
            callers=callers,
            organization_id=f"{organization.id:024x}",
            annex_id=f"{annex_id:024x}",
            project_id=f"{project.id:024x}",
            folder=folder,
            new_client=client,
        )
        await built.furnish()
        yield built


@pytest.fixture
def api(world: World) -> httpx.AsyncClient:
    """The owner of the organisation; unlike the client of the upper folder it costs no log-in."""
    return world.callers["organisation owner"]
