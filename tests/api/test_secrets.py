"""A secret given once is never seen again: not in an answer, an error, a log line, a job or a table.

Every door gets a canary. What is searched is the start of all of them, which JSON, HTML and URLs leave as it is, in
clear, in base64 (wherever it begins) and in hexadecimal digits; and every token that an answer gave away on purpose.
"""

import base64
import html
import itertools
import json
import logging
import traceback
from collections.abc import Iterator
from typing import Any, get_args
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from headwater.catalog import drivers, integrations
from headwater.catalog.integration_kinds import KINDS
from headwater.settings import Settings
from headwater.work import secrets, sync
from headwater.workplace import load_vault
from tests import servers
from tests.api.test_roles import ELSEWHERE, ROUTES, declared, parameters_of, url_of
from tests.api.world import BASE, World, message, unique
from tests.opened import open_secret

MARK = "CANARY7f3a"
_numbers = itertools.count(1)
# Where a token is given away on purpose, once: such answers are read for the tokens in them.
GIVES_TOKENS = {("POST", "/api/v1/apiKeys"), ("POST", "/api/v1/projects/{project_id}/bots"), ("POST", "/token")}
# Fields that hold secrets, of any route: what people send to the wrong one, or in the wrong shape.
FIELDS = ("password", "oldPassword", "newPassword", "secret", "refresh_token", "token", "code", "client_secret")


def canary() -> str:
    """With characters that every encoding changes."""
    return f"{MARK}-{next(_numbers)}/9+b==\"key\\é'"


def forms(text: str) -> list[str]:
    """The middle of each base64 is the same whatever stands around it."""
    blocks = [base64.b64encode(b"x" * lead + text.encode()).decode()[4:-4] for lead in range(3)]
    return [text, text.encode().hex(), *blocks, *(block.replace("+", "-").replace("/", "_") for block in blocks)]


class Search:
    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.tokens: set[str] = set()

    def add(self, where: str, text: str) -> None:
        self.texts.append((where, text))

    def found(self) -> list[tuple[str, str]]:
        """Where, and a little of what stands before it."""
        wanted = {form.lower() for word in (MARK, *self.tokens) for form in forms(word)}
        return [
            (where, text[max(0, text.lower().index(form) - 200) :][:300])
            for where, text in self.texts
            for form in wanted
            if form in text.lower()
        ]


class _Lines(logging.Handler):
    """Every line as a file would have it, with tracebacks."""

    def __init__(self, search: Search) -> None:
        super().__init__(logging.DEBUG)
        self._search = search
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s %(args)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if not (record.name == "httpx" and "headwater.test" in record.getMessage()):  # these tests' own client
            self._search.add(f"log of {record.name}", self.format(record) + str(vars(record)))


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    """Hears every logger, whatever its level."""
    made = Search()
    handler = _Lines(made)
    root = logging.getLogger()
    known = [root, *(logging.getLogger(name) for name in list(root.manager.loggerDict))]
    before = [(logger, logger.level, logger.disabled) for logger in known]
    for logger in known:
        logger.setLevel(logging.DEBUG)
        logger.disabled = False
        if logger is root or not logger.propagate:
            logger.addHandler(handler)
    yield made
    for logger, level, disabled in before:
        logger.setLevel(level)
        logger.disabled = disabled
        logger.removeHandler(handler)


async def search_tables(world: World, search: Search) -> None:
    """Every table as text: what is sealed stands there in hexadecimal digits."""
    rows = await world.execute(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    async with world.pool.connection() as conn:
        for schema, table in rows:
            async with conn.cursor().copy(f'COPY "{schema}"."{table}" TO STDOUT') as copy:
                text = b"".join([bytes(block) async for block in copy]).decode()
            # COPY doubles backslashes; the values within JSON are escaped as JSON has them.
            search.add(f"table {table}", text)


class Visitor:
    """Asks as an admin, who may do nearly everything, and hands every answer to the search."""

    def __init__(self, world: World, search: Search) -> None:
        self.world, self.search = world, search
        self.asked: set[tuple[str, str]] = set()

    async def ask(
        self, method: str, path: str, *, who: str = "admin", route: tuple[str, str] | None = None, **request: Any
    ) -> httpx.Response:
        answer = await self.world.callers[who].request(method, path, **request)
        if route is not None:
            self.asked.add(route)
        if route in GIVES_TOKENS and answer.is_success:
            self._read_tokens(answer.json())
        else:
            self.search.add(f"answer of {method} {path}", f"{answer.status_code} {answer.text} {answer.headers}")
        return answer

    def _read_tokens(self, answer: dict[str, Any]) -> None:
        for value in answer.values():
            if isinstance(value, str) and (value.count(".") == 2 and len(value) > 100):
                self.search.tokens.add(value.rpartition(".")[2])  # the signature: the rest names accounts

    async def ask_as_meant(self, route: tuple[str, str], who: str = "admin") -> None:
        own, request = await ROUTES[route].prepared(self.world)
        url = url_of(route[1], parameters_of(self.world, route) | own)
        await self.ask(route[0], url, who=who, route=route, **request)

    async def ask_with_canaries(self, route: tuple[str, str]) -> None:
        """Bodies of every wrong shape, and a wrong token; each on something made for it."""
        secret = canary()
        nested = {"options": {"secret": secret, secret: secret}, "type": "s3", "auth": [secret]}
        for request in (
            {"json": dict.fromkeys(FIELDS, secret) | {"credentials": nested, "options": nested["options"]}},
            {"json": {field: {"a": [secret]} for field in FIELDS}},
            {"json": secret},
            {"json": [secret]},
            {"content": f'{{"secret": "{secret}'.encode(), "headers": {"content-type": "application/json"}},
            {"data": dict.fromkeys(FIELDS, secret)},
            {"headers": {"authorization": f"Bearer {secret.encode('ascii', 'ignore').decode()}"}},
            {"headers": {"authorization": "Basic " + base64.b64encode(f"user:{secret}".encode()).decode()}},
        ):
            own, _ = await ROUTES[route].prepared(self.world)
            url = url_of(route[1], parameters_of(self.world, route) | own)
            await self.ask(route[0], url, who="admin", **request)


@pytest.fixture
def visitor(world: World, search: Search) -> Visitor:
    return Visitor(world, search)


async def verdict(visitor: Visitor) -> None:
    await search_tables(visitor.world, visitor.search)
    kinds = {where.partition(" ")[0] for where, _ in visitor.search.texts}
    assert kinds == {"answer", "log", "table"}
    assert visitor.search.found() == []


async def test_every_route_as_it_is_meant_and_with_canaries_in_every_place(visitor: Visitor) -> None:
    for client in visitor.world.callers.values():
        token = client.headers.get("authorization", "").removeprefix("Bearer ")
        if token.count(".") == 2:
            visitor.search.tokens.add(token.rpartition(".")[2])
    for route in ROUTES:
        await visitor.ask_as_meant(route, who="organisation owner")
        if route != ("POST", "/token"):  # guessing is limited; it has a test of its own
            await visitor.ask_with_canaries(route)
    assert visitor.asked == declared(visitor.world.app).keys() - ELSEWHERE
    assert len(visitor.search.tokens) > 5
    await verdict(visitor)


async def test_pages_and_other_routes_that_the_document_does_not_list(visitor: Visitor) -> None:
    told = {path for _, path in declared(visitor.world.app)}
    others = [
        (method, route.path)
        for route in visitor.world.app.routes
        for method in getattr(route, "methods", None) or ()
        if route.path not in told and "{" not in route.path
    ]
    secret = canary()
    for method, path in others:
        fields = dict.fromkeys((*FIELDS, "state", "error"), secret)
        url = f"http://headwater.test{path}"
        await visitor.ask(method, url, who="no token", **({} if method in ("GET", "HEAD") else {"data": fields}))
    await verdict(visitor)


def options_of(kind: str, names: frozenset[str]) -> dict[str, Any]:
    """As each is written, with canaries in them."""
    password, key = canary(), base64.b64encode((canary() + "x" * 64)[:64].encode()).decode()
    login = {"username": "_json_key", "password": password, "auth": _base64(f"_json_key:{password}")}
    documents = {
        "content": json.dumps({"type": "service_account", "client_email": "a@b.c", "private_key": canary()}),
        "spec": {"password": _base64(json.dumps({"auths": {"europe-docker.pkg.dev": login}}))},
        "roleArns": "arn:aws:iam::123456789012:role/birds",
    }
    if kind.startswith("azure"):
        documents |= {"key": "birds", "secret": key}
    if kind == "private-registry":
        documents |= {"name": "_json_key"}
    return {name: documents.get(name) or canary() for name in names}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_integration_made_changed_misused_and_deleted(visitor: Visitor, kind: str) -> None:
    world, known = visitor.world, KINDS[kind]
    url = f"/orgs/{world.organization_id}/integrations"
    metadata = {"path": str(world.folder)} if kind == "hostPath" else {}
    body = {"name": unique("bird"), "type": kind, "options": options_of(kind, known.needed), "metadata": metadata}
    made = await visitor.ask("POST", url, json=body)
    await visitor.ask("POST", url, json=body)
    await visitor.ask("POST", url, json=body | {"options": options_of(kind, known.needed)})
    for wrong in (
        options_of(kind, known.options) | {canary(): canary()},
        canary(),
        [canary()],
        {"key": {"a": canary()}},
        *({name: canary() + end for name in known.options} for end in ("\n", "\0", "x" * 100_000)),
    ):
        await visitor.ask("POST", url, json=body | {"name": unique("bird"), "options": wrong})
    for wrong in (
        {"secret": canary()},
        {"note": f"the password is {canary()}", "token": "x"},
        {"a": [{"password": canary()}]},
        {"endpoint": f"https://user:{quote(canary())}@host"},
    ):
        refused = await visitor.ask("POST", url, json=body | {"name": unique("bird"), "metadata": wrong})
        message(refused, 400)
    if made.is_success:
        change = {"integrationId": made.json()["id"]}
        for options in (options_of(kind, known.options), options_of(kind, known.needed), {canary(): canary()}):
            credentials = {"credentials": {"options": options, "type": kind}}
            await visitor.ask("PATCH", f"{url}?reloadServices=true", json=change | credentials)
        await visitor.ask("PATCH", url, json=change | {"credentials": {"options": {}, "type": canary()}})
        for route in ROUTES:
            if "{integration_id}" in route[1] and route[0] != "DELETE":
                path = url_of(route[1], parameters_of(world, route) | {"integration_id": made.json()["id"]})
                await visitor.ask(route[0], path)
        await visitor.ask("GET", url)
        await visitor.ask("DELETE", f"{url}/{made.json()['id']}")
    # The others want a real key or an identity of this server's own, and are refused: in words without a canary.
    if kind in ("s3", "aws-sts", "azureblob", "azureDatalakeGen2", "key_value", "private-registry", "hostPath"):
        assert made.is_success, made.text
    await verdict(visitor)


async def test_a_store_that_refuses_the_key_and_the_sync_that_fails_with_it(
    visitor: Visitor, weed: servers.S3Server
) -> None:
    world = visitor.world
    url = f"/orgs/{world.organization_id}/integrations"
    options = {"key": "AKIA-a-key", "secret": canary(), "sessionToken": canary()}
    body = {"name": unique("bird"), "type": "s3", "options": options, "metadata": {"endpoint": weed.endpoint}}
    made = (await visitor.ask("POST", url, json=body)).json()
    for payload in (
        {"bucketName": "some-bucket", "region": "us-east-1"},
        {"bucketName": "some-bucket", "endpoint": f"http://user:{quote(canary())}@127.0.0.1:1"},
        {"bucketName": "some-bucket", "secret": canary(), "credentials": {"a": canary()}},
    ):
        driver = world.driver_body(made["id"], type="s3", payload=payload)
        for path in ("/drivers", "/drivers/validate"):
            await visitor.ask("POST", path, json=driver)
    async with world.pool.connection() as conn:
        owner = world.people["organisation owner"]
        new = drivers.NewDriver(
            name=unique("driver"), kind="s3", integration_id=int(made["id"], 16), root="some-bucket", prefix="",
            region=None, storage_class=None, endpoint=weed.endpoint, allow_delete=False,
        )  # fmt: skip
        driver = await drivers.create_driver(conn, owner, int(world.project_id, 16), new)
    dataset = await world.new_dataset(driver=f"{driver.id:024x}", sync=False)
    command = (await visitor.ask("POST", f"/datasets/{dataset}/sync")).json()
    await visitor.ask("POST", f"/drivers/{driver.id:024x}/validate")
    scans = await world.execute("SELECT id FROM scan WHERE dataset_id = %s", int(dataset, 16))
    place = world.app.state.server.place
    await sync.run_scan(place, scans[0][0], is_last_try=True)
    told = await visitor.ask("GET", f"/commands/{command['id']}")
    assert told.json()["status"] == "failed"
    await verdict(visitor)


async def test_passwords_and_tokens_at_the_gate(visitor: Visitor) -> None:
    world = visitor.world
    account = {"email": f"{unique('bird')}@headwater.test", "password": canary()}
    url = f"/orgs/{world.organization_id}/accounts"
    for body in (account, account, account | {"role": "king"}, account | {"password": MARK[:3]}):
        await visitor.ask("POST", url, who="organisation owner", json=body)
    gate = "http://headwater.test/token"
    logged_in = await visitor.ask(
        "POST", gate, route=("POST", "/token"), json={"username": account["email"], "password": account["password"]}
    )
    assert logged_in.is_success
    await visitor.ask("POST", gate, json={"username": account["email"], "password": canary()})
    await visitor.ask("POST", gate, json={"type": "refresh_token", "refresh_token": canary()})
    bearer = {"authorization": f"Bearer {logged_in.json()['id_token']}"}
    change = {"oldPassword": account["password"], "newPassword": canary()}
    await visitor.ask("PATCH", "/users/me/password", who="no token", json=change, headers=bearer)
    key = await visitor.ask(
        "POST", "/apiKeys", route=("POST", "/api/v1/apiKeys"), json={"userId": world.people["admin"].email}
    )
    assert key.is_success
    await visitor.ask("GET", "/apiKeys")
    await visitor.ask("GET", "/users/me", headers={"authorization": f"Bearer {key.json()['jwt']}"})
    assert len(visitor.search.tokens) >= 2
    await verdict(visitor)


@pytest.mark.parametrize("step", ["insert_integration", "change_integration", "find_by_name"])
async def test_failures_of_ours_in_the_middle_are_told_in_the_log_without_it(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    world = visitor.world
    url = f"/orgs/{world.organization_id}/integrations"
    body = {"name": unique("bird"), "type": "s3", "options": {"key": canary(), "secret": canary()}}
    made = (await visitor.ask("POST", url, json=body)).json()

    async def fail(*given: Any, **named: Any) -> None:
        raise RuntimeError(f"on purpose, with {given!r} and {named!r}")

    monkeypatch.setattr(integrations, step, fail)
    change = {"integrationId": made["id"], "credentials": {"options": body["options"] | {"secret": canary()}}}
    answers = [
        await visitor.ask("POST", url, json=body | {"name": unique("bird")}),
        await visitor.ask("PATCH", url, json=change),
    ]
    monkeypatch.undo()
    assert 500 in [answer.status_code for answer in answers]
    assert any("on purpose" in text for where, text in visitor.search.texts if where.startswith("log"))
    await verdict(visitor)


async def test_jobs_of_the_vault_hold_no_value(visitor: Visitor) -> None:
    world = visitor.world
    made = await visitor.ask(
        "POST",
        f"/orgs/{world.organization_id}/integrations",
        json={"name": unique("bird"), "type": "key_value", "options": {"key": "K", "value": canary()}},
    )
    number = int(made.json()["id"], 16)
    rows = await world.execute("SELECT secret_id FROM integration WHERE id = %s", number)
    await secrets.drop_unused(world.app.state.server.place, rows[0][0])
    async with world.pool.connection() as conn:
        opened = await open_secret(conn, world.app.state.server.vault, number)
    assert MARK in opened["value"]  # it is there, and only the vault says so
    await verdict(visitor)


def secret_settings() -> list[str]:
    fields = Settings.model_fields.items()
    return [name for name, field in fields if SecretStr in (field.annotation, *get_args(field.annotation))]


def test_settings_and_what_is_made_of_them_show_no_secret(world: World, search: Search) -> None:
    assert len(secret_settings()) > 5
    settings = Settings(**dict.fromkeys(secret_settings(), canary()))
    search.add("settings", f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}")
    for wrong in ({"port": "x"}, {"decoders": -1}, {"vault_url": f"https://user:{canary()}@host"}):
        with pytest.raises(ValidationError) as told:
            Settings(**dict.fromkeys(secret_settings(), canary()) | wrong)
        search.add("error", "".join(traceback.format_exception(told.value)) + str(told.value) + repr(told.value))
    vault = load_vault(
        Settings(master_key=base64.b64encode(b"k" * 32).decode(), vault_url="http://127.0.0.1:1", vault_token=canary())
    )
    search.add("vault", f"{vault!r} {vault.outside!r} {vars(vault)!r} {vault.local!r}")
    server = world.app.state.server
    search.tokens |= {server.signer.key, (server.settings.data_dir / "master-key").read_text().strip()}
    search.add("server", f"{server!r} {server.signer!r} {server.settings!r} {server.vault!r} {server.place!r}")
    assert search.found() == []


ENCODINGS = {
    "clear": lambda text: text,
    "upper case": str.upper,
    "JSON": json.dumps,
    "URL": lambda text: quote(text, safe=""),
    "HTML": html.escape,
    "Python": lambda text: repr(text.encode()),
    "hexadecimal": lambda text: text.encode().hex().upper(),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 in a URL, one byte on": lambda text: base64.urlsafe_b64encode(b"?" + text.encode()).decode(),
    "base64, two bytes on": lambda text: base64.b64encode(b"k:" + text.encode() + b"...").decode(),
}


class TestItBites:
    """A leak that is planted is found, whatever it looks like and wherever it is."""

    @pytest.mark.parametrize("encoding", ENCODINGS)
    async def test_in_a_log_line_a_table_and_an_answer(self, visitor: Visitor, encoding: str) -> None:
        leak = ENCODINGS[encoding](canary())
        world = visitor.world
        await visitor.ask("GET", "/users/me")
        logging.getLogger("some.quiet.library").debug("sent %s", leak)
        assert [where for where, _ in visitor.search.found()] == ["log of some.quiet.library"]
        visitor.search.texts.clear()
        ids = await world.execute(
            "INSERT INTO audit (organization_id, actor, action, target, details)"
            " VALUES (%s, 'a', 'b.c', 'd', jsonb_build_object('e', %s::text)) RETURNING id",
            int(world.organization_id, 16),
            leak,
        )
        await search_tables(world, visitor.search)
        assert {where for where, _ in visitor.search.found()} == {"table audit"}
        await world.execute("DELETE FROM audit WHERE id = %s", ids[0][0])

    async def test_in_an_error_that_repeats_what_was_sent(
        self, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("headwater.api.failures._told", lambda problem: str(problem.get("input")))
        await visitor.ask_with_canaries(("POST", "/api/v1/orgs/{organization_id}/accounts"))
        assert any(where.startswith("answer") for where, _ in visitor.search.found())

    async def test_in_a_traceback(self, visitor: Visitor) -> None:
        try:
            raise ValueError(canary())  # noqa: TRY301
        except ValueError:
            logging.getLogger("headwater").exception("failed")
        assert visitor.search.found()

    async def test_a_secret_stored_in_clear(self, visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
        world = visitor.world
        vault = world.app.state.server.vault.local
        head = b"\2" + bytes.fromhex(vault.current_key_id())
        monkeypatch.setattr(type(vault), "seal", lambda self, values, *, owner: head + str(values).encode())
        url = f"/orgs/{world.organization_id}/integrations"
        body = {"name": unique("bird"), "type": "key_value", "options": {"key": "k", "value": canary()}}
        made = await visitor.ask("POST", url, json=body)
        monkeypatch.undo()
        await search_tables(world, visitor.search)
        assert {where for where, _ in visitor.search.found()} == {"table secret"}
        await visitor.ask("DELETE", f"{url}/{made.json()['id']}")


def test_the_walk_of_roles_knows_every_route(world: World) -> None:
    """What the search covers is what the document of the API lists, and nothing is left out in silence."""
    assert ROUTES.keys() | ELSEWHERE == declared(world.app).keys()
    assert BASE.endswith("/api/v1")
