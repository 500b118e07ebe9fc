"""A secret given once is never seen again: not in an answer, an error, a log line or a table."""

import base64
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests import servers
from tests.api.test_roles import ROUTES, parameters_of, url_of
from tests.api.world import World, message, unique

CANARY = "CANARY-7f3a/9+b==key"
FORMS = [
    CANARY,
    quote(CANARY, safe=""),
    *[base64.b64encode(b"x" * lead + CANARY.encode()).decode()[4:-4] for lead in range(3)],
    CANARY.encode().hex(),
]


def seen_in(text: str) -> list[str]:
    return [form for form in FORMS if form.lower() in text.lower()]


async def dump(world: World) -> str:
    """Every table as text, with what is sealed as it is stored and as hexadecimal digits."""
    rows = await world.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    found: list[str] = []
    async with world.pool.connection() as conn:
        for schema, table in rows:
            async with conn.cursor().copy(f'COPY "{schema}"."{table}" TO STDOUT') as copy:
                found += [bytes(block).decode() async for block in copy]
    return "".join(found)


@pytest.fixture
def every_log_line(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def test_the_canary_would_be_seen() -> None:
    for encoded in (CANARY, base64.b64encode(f"key:{CANARY}!".encode()).decode(), quote(CANARY, safe="")):
        assert seen_in(f"… {encoded} …")


async def test_a_secret_is_never_seen_again(
    world: World, weed: servers.S3Server, every_log_line: pytest.LogCaptureFixture
) -> None:
    answers: list[str] = []
    organization = f"/orgs/{world.organization_id}/integrations"
    options = {"key": "access-key", "secret": CANARY, "sessionToken": CANARY}

    async def ask(method: str, path: str, **request: Any) -> Any:
        answer = await world.owner.request(method, path, **request)
        answers.append(answer.text + str(answer.headers))
        return answer

    body = {"name": unique("canary"), "type": "s3", "options": options, "metadata": {"endpoint": weed.endpoint}}
    made = (await ask("POST", organization, json=body)).json()
    # Errors of every kind that have the secret at hand.
    await ask("POST", organization, json=body)
    await ask("POST", organization, json=body | {"name": ""})
    await ask("POST", organization, json=body | {"type": "gcs"})
    await ask("POST", organization, json=body | {"options": options | {"other": CANARY}})
    await ask("POST", organization, json=body | {"options": CANARY})
    await ask("POST", organization, json=body | {"options": [CANARY]})
    await ask("POST", organization, json=body | {"options": {"key": "k", "secret": {"a": CANARY}}})
    await ask("POST", organization, json=body | {"name": unique("nul"), "options": options | {"secret": CANARY + "\0"}})
    await ask("POST", organization, content=f'{{"options": {{"secret": "{CANARY}"'.encode(),
              headers={"content-type": "application/json"})  # fmt: skip
    driver = world.driver_body(made["id"], type="s3", payload={"bucketName": "some-bucket", "region": "us-east-1"})
    refused = await ask("POST", "/drivers", json=driver)
    message(refused, 424)
    password = {"email": f"{unique('canary')}@headwater.test", "password": CANARY}
    await ask("POST", f"/orgs/{world.organization_id}/accounts", json=password)
    await ask("POST", f"/orgs/{world.organization_id}/accounts", json=password)
    await ask("POST", f"/orgs/{world.organization_id}/accounts", json=password | {"role": "king"})
    await ask("POST", "http://headwater.test/token", json={"username": "x@y", "password": CANARY})
    await ask("POST", "http://headwater.test/token", json={"type": "refresh_token", "refresh_token": CANARY})
    await ask("GET", "/users/me", headers={"authorization": f"Bearer {CANARY}"})
    await ask("GET", f"{organization}/{made['id']}")
    for method, path in ROUTES:
        if method == "GET":
            _, request = await ROUTES[method, path].prepared(world)
            await ask(method, url_of(path, parameters_of(world, (method, path))), **request)
    assert len(answers) > 40
    assert [seen_in(answer) for answer in answers if seen_in(answer)] == []
    logged = [record.getMessage() + str(record.exc_info or "") for record in every_log_line.records]
    assert any("/integrations" in line for line in logged)
    assert [line[:300] for line in logged if seen_in(line)] == []
    tables = await dump(world)
    assert made["name"] in tables
    assert seen_in(tables) == []


async def test_objects_that_hold_a_key_do_not_show_it(world: World) -> None:
    server = world.app.state.server
    shown = repr(server) + repr(server.signer) + repr(server.settings) + repr(server.vault)
    assert server.signer.key not in shown
    assert (server.settings.data_dir / "master-key").read_text().strip() not in shown
