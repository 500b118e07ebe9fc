"""What the tests of the API stand on: people, a project with one of everything, and ways to make more."""

import itertools
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from headwater.catalog import commands
from headwater.catalog.accounts import Account
from headwater.db.pool import Pool

BASE = "http://headwater.test/api/v1"
NOBODY = f"{2**62:024x}"  # an id of ours that names nothing
_numbers = itertools.count(1)


def unique(noun: str) -> str:
    return f"{noun}-{next(_numbers)}"


@dataclass(slots=True)
class World:
    app: Any
    pool: Pool
    people: dict[str, Account]
    callers: dict[str, httpx.AsyncClient]
    organization_id: str
    annex_id: str  # a second organisation with the same people
    project_id: str
    folder: Path  # the bucket of the driver
    new_client: Callable[..., Awaitable[httpx.AsyncClient]]
    integration_id: str = ""
    driver_id: str = ""
    dataset_id: str = ""
    bucket_dataset_id: str = ""
    item_id: str = ""
    command_id: str = ""
    made: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> httpx.AsyncClient:
        return self.callers["organisation owner"]

    async def furnish(self) -> None:
        self.integration_id = await self.new_integration()
        self.driver_id = await self.new_driver(self.integration_id)
        self.dataset_id = await self.new_dataset()
        self.bucket_dataset_id = await self.new_dataset(driver=self.driver_id, sync=False)
        self.item_id = (await self.upload(self.dataset_id, "/first.txt", b"first"))["id"]
        self.command_id = await self.new_command()

    async def new_project(self, caller: httpx.AsyncClient | None = None) -> str:
        return _made(await (caller or self.owner).post("/projects", data={"name": unique("project")}))["id"]

    async def new_integration(self) -> str:
        body = {"name": unique("integration"), "type": "hostPath", "metadata": {"path": str(self.folder)}}
        return _made(await self.owner.post(f"/orgs/{self.organization_id}/integrations", json=body))["id"]

    def driver_body(self, integration_id: str, **given: Any) -> dict[str, Any]:
        return {
            "name": unique("driver"),
            "type": "storage",
            "integrationId": integration_id,
            "integrationType": "hostPath",
            "metadata": {"system": {"projectId": self.project_id}},
            "payload": {"directory": None},
        } | given

    async def new_driver(self, integration_id: str) -> str:
        return _made(await self.owner.post("/drivers", json=self.driver_body(integration_id)))["id"]

    async def new_bucket_driver(self, kind: str, integration_id: str | None = None, **columns: Any) -> str:
        """Of a bucket that nobody asks whether it is there; with an integration without a secret, unless given."""
        if integration_id is None:
            (row,) = await self.execute(
                """
                INSERT INTO integration (organization_id, name, kind, creator_id) VALUES (%s, %s, %s, %s) RETURNING id
                """,
                int(self.organization_id, 16),
                unique("keys"),
                kind,
                self.people["organisation owner"].id,
            )
            integration_id = f"{row[0]:024x}"
        given = {"name": unique("cams"), "root": "cams", "prefix": "", "region": None, "endpoint": None} | columns
        (row,) = await self.execute(
            """
            INSERT INTO driver
                (project_id, integration_id, kind, allow_delete, creator_id, name, root, prefix, region, endpoint)
            VALUES (%s, %s, %s, false, %s, %s, %s, %s, %s, %s)
            RETURNING id
            """,
            int(self.project_id, 16),
            int(integration_id, 16),
            kind,
            self.people["organisation owner"].id,
            *(given[name] for name in ("name", "root", "prefix", "region", "endpoint")),
        )
        return f"{row[0]:024x}"

    async def new_dataset(self, **given: Any) -> str:
        body = {"name": unique("dataset"), "projects": [self.project_id]} | given
        return _made(await self.owner.post("/datasets", json=body))["id"]

    async def new_command(self) -> str:
        async with self.pool.connection() as conn:
            number = await commands.start_command(
                conn,
                project_id=int(self.project_id, 16),
                dataset_id=int(self.dataset_id, 16),
                kind="SyncDataset",
                spec={"datasetId": self.dataset_id},
                creator_id=None,
            )
        return f"{number:024x}"

    async def upload(self, dataset_id: str, path: str, content: bytes, **fields: str) -> dict[str, Any]:
        return _made(await upload(self.owner, dataset_id, path, content, **fields))

    async def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as conn:
            cursor = await conn.execute(statement, list(parameters))
            return await cursor.fetchall() if cursor.description else []


async def new_account(conn: Any, email: str) -> Account:
    """Without a password, whose hash takes its time."""
    cursor = await conn.execute("INSERT INTO account (email) VALUES (%s) RETURNING id", [email])
    return Account(id=(await cursor.fetchone())[0], email=email)


def _made(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()


def message(answer: httpx.Response, status: int) -> str:
    """The sentence of an error with this status: its body is that and nothing else; to HEAD there is none."""
    assert answer.status_code == status, f"{answer.status_code}: {answer.text[:300]}"
    if answer.request.method == "HEAD":
        assert answer.content == b""
        return ""
    told = answer.json()
    assert list(told) == ["message"], told
    assert len(told["message"].split()) >= 4, told
    return told["message"]


BOUNDARY = "a-boundary-of-the-test"


def part(name: str, content: bytes, *, file_name: str | None = None) -> bytes:
    disposition = f'form-data; name="{name}"' + ("" if file_name is None else f'; filename="{file_name}"')
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def file_form(path: str, content: bytes, **fields: str) -> bytes:
    """As the SDK sends it: text fields first, the file last."""
    texts = [part(name, value.encode()) for name, value in ({"type": "file", "path": path} | fields).items()]
    return form(*texts, part("file", content, file_name="name"))


async def send(
    client: httpx.AsyncClient, dataset_id: str, body: bytes | AsyncIterable[bytes], *, mode: str | None = None
) -> httpx.Response:
    """A multipart request; an iterable goes out chunked, without Content-Length."""
    return await client.post(
        f"/datasets/{dataset_id}/items",
        params=None if mode is None else {"mode": mode},
        content=body,
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
    )


async def upload(
    client: httpx.AsyncClient, dataset_id: str, path: str, content: bytes, *, mode: str | None = None, **fields: str
) -> httpx.Response:
    return await send(client, dataset_id, file_form(path, content, **fields), mode=mode)
