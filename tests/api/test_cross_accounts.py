"""Integrations that trust this server's own identity: made empty, told their role, used to read a bucket."""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import aiohttp
import boto3
import httpx
import pytest
from aiohttp import web
from botocore.config import Config

from headwater.app import create_app
from headwater.settings import Settings
from headwater.work import sync
from tests import google, servers
from tests.api.world import BASE, World, message, unique
from tests.buckets import Bucket, new_bucket
from tests.conftest import OWNER, PASSWORD

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"
OTHER_ROLE = f"arn:aws:iam::{ACCOUNT}:role/nobody"
CARELESS_ROLE = f"arn:aws:iam::{ACCOUNT}:role/careless"
THEIR_EMAIL = "cameras@their-project.iam.gserviceaccount.com"
OTHER_EMAIL = "nobody@their-project.iam.gserviceaccount.com"


@dataclass
class Amazon:
    """moto, which minds who may do what from `enforce` on."""

    server: servers.S3Server
    bucket: Bucket
    keys: servers.Keys  # of a user who may assume ROLE and nothing else

    def enforce(self, is_on: bool) -> None:
        content = b"0" if is_on else b"inf"
        url = f"{self.server.endpoint}/moto-api/reset-auth"
        httpx.post(url, content=content, headers={"content-type": "text/plain"}, trust_env=False).raise_for_status()


def allow(action: str | list[str], resource: str | list[str]) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource}]}
    )


def trust(user: str) -> str:
    principal = {"AWS": f"arn:aws:iam::{ACCOUNT}:user/{user}"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.fixture(scope="module")
def amazon() -> Iterator[Amazon]:
    with servers.moto() as server:
        iam = boto3.client(
            "iam",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="s",
            config=Config(proxies={}),
        )
        bucket = new_bucket(server)
        bucket.put("photos/a.txt", b"their bytes")
        iam.create_user(UserName="headwater")
        may_assume = allow(["sts:AssumeRole", "sts:GetCallerIdentity"], "*")
        iam.put_user_policy(UserName="headwater", PolicyName="ours", PolicyDocument=may_assume)
        for role, trusted in (("reader", "headwater"), ("careless", "headwater"), ("nobody", "somebody-else")):
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust(trusted))
        everything = [f"arn:aws:s3:::{bucket.name}", f"arn:aws:s3:::{bucket.name}/*"]
        iam.put_role_policy(RoleName="reader", PolicyName="ours", PolicyDocument=allow("s3:*", everything))
        made = iam.create_access_key(UserName="headwater")["AccessKey"]
        built = Amazon(server, bucket, servers.Keys(made["AccessKeyId"], made["SecretAccessKey"]))
        built.enforce(True)
        yield built
        built.enforce(False)
        iam.close()


@pytest.fixture
async def sts(amazon: Amazon) -> AsyncIterator[str]:
    """Moto's STS, whose roles know no conditions, behind one: the role of the reader asks for an external id."""

    async def passed_on(request: web.Request) -> web.Response:
        body = await request.read()
        form = parse_qs(body.decode())
        if form.get("RoleArn") == [ROLE] and "ExternalId" not in form:
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>")
        headers = {name: text for name, text in request.headers.items() if name != "Transfer-Encoding"}
        url = amazon.server.endpoint + "/"
        async with aiohttp.ClientSession() as session, session.post(url, headers=headers, data=body) as answer:
            return web.Response(status=answer.status, body=await answer.read())

    app = web.Application()
    app.router.add_post("/", passed_on)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@dataclass
class Google:
    tokens: google.GoogleTokens
    server: servers.GcsServer
    bucket: str


@pytest.fixture(scope="module")
def goo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Google]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server, google.google_tokens() as tokens:
        name = f"cams-{secrets.token_hex(6)}"
        server.make_bucket(name)
        url = f"{server.endpoint}/upload/storage/v1/b/{name}/o"
        query = {"uploadType": "media", "name": "photos/a.txt"}
        httpx.post(url, params=query, content=b"their bytes", trust_env=False).raise_for_status()
        yield Google(tokens, server, name)


class Site:
    """A server that has an identity at both clouds."""

    def __init__(self, app: Any, client: httpx.AsyncClient) -> None:
        self.app = app
        self.client = client
        self.organization_id = ""
        self.project_id = ""

    @property
    def integrations(self) -> str:
        return f"/orgs/{self.organization_id}/integrations"

    async def create(self, kind: str, **given: Any) -> httpx.Response:
        body = {"name": unique(kind), "type": kind, "options": {}} | given
        return await self.client.post(self.integrations, json=body)

    async def update(self, integration: dict[str, Any], **options: str) -> httpx.Response:
        """As `integration.update(new_options=…)` of the SDK sends it."""
        body = {"integrationId": integration["id"], "credentials": {"options": options, "type": integration["type"]}}
        return await self.client.patch(self.integrations, params={"reloadServices": "true"}, json=body)

    async def facts(self, integration: dict[str, Any]) -> dict[str, str]:
        told = (await self.client.get(f"{self.integrations}/{integration['id']}")).json()["metadata"]
        return {fact["name"]: fact["value"] for fact in told}

    async def driver(
        self, integration: dict[str, Any], kind: str, payload: dict[str, Any], **given: Any
    ) -> httpx.Response:
        body = {
            "name": unique("driver"),
            "type": kind,
            "integrationId": integration["id"],
            "integrationType": integration["type"],
            "metadata": {"system": {"projectId": self.project_id}},
            "payload": {"storageClass": "", "region": "us-east-1", "path": "photos"} | payload,
            "allowExternalDelete": False,
        } | given
        return await self.client.post("/drivers", json=body)

    async def listed(self, driver: dict[str, Any]) -> dict[str, bytes]:
        """What a dataset on the driver holds after a sync."""
        body = {"name": unique("dataset"), "projects": [self.project_id], "driver": driver["id"]}
        dataset = (await self.client.post("/datasets", json=body)).json()
        place = self.app.state.server.place
        async with place.pool.connection() as conn:
            cursor = await conn.execute("SELECT id FROM scan WHERE dataset_id = %s", [int(dataset["id"], 16)])
            for (scan_id,) in await cursor.fetchall():
                await sync.run_scan(place, scan_id)
        page = (await self.client.post(f"/datasets/{dataset['id']}/query", json={"filter": {}})).json()
        return {
            item["filename"]: (await self.client.get(f"/items/{item['id']}/stream?redirect=false")).content
            for item in page["items"]
            if item["type"] == "file"
        }


@pytest.fixture
async def site(
    new_database: Callable[[], str],
    settings_for: Callable[..., Settings],
    amazon: Amazon,
    sts: str,
    goo: Google,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Site]:
    key_file = tmp_path_factory.mktemp("google") / "key.json"
    key_file.write_text(google.key_file(token_uri=goo.tokens.token_uri))
    settings = settings_for(
        public_url="http://headwater.test",
        redirect_downloads=False,
        aws_access_key_id=amazon.keys.access_key_id,
        aws_secret_access_key=amazon.keys.secret_access_key,
        aws_sts_endpoint=sts,
        google_credentials=key_file,
        google_iam_endpoint=goo.tokens.url,
    )
    app = create_app(settings, new_database())
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=BASE))
        told = await client.post("http://headwater.test/token", json={"username": OWNER, "password": PASSWORD})
        client.headers["authorization"] = f"Bearer {told.json()['id_token']}"
        built = Site(app, client)
        project = (await client.post("/projects", data={"name": "cross"})).json()
        built.project_id, built.organization_id = project["id"], project["org"]["id"]
        yield built


async def test_a_role_of_another_account_is_trusted_step_by_step(site: Site, amazon: Amazon) -> None:
    body = {"name": unique("cross")}
    integration = (await site.create("aws-cross", **body)).json()
    introduced = await site.facts(integration)
    assert introduced["status"] == "created"
    assert introduced["userArn"] == f"arn:aws:iam::{ACCOUNT}:user/headwater"
    assert len(introduced["externalId"]) == 32
    payload = {"bucketName": amazon.bucket.name, "endpoint": amazon.server.endpoint}
    assert "names no role yet" in message(await site.driver(integration, "s3", payload), 400)
    answer = await site.update(integration, roleArn=ROLE)
    assert answer.status_code == 200, answer.text
    assert await site.facts(integration) == introduced | {"status": "trust-established"}
    assert (await site.create("aws-cross", **body)).json()["id"] == integration["id"]  # the script run again
    driver = await site.driver(integration, "s3", payload)
    assert driver.status_code == 200, driver.text
    assert await site.listed(driver.json()) == {"/a.txt": b"their bytes"}


async def test_a_role_that_does_not_trust_us_changes_nothing(site: Site, amazon: Amazon) -> None:
    integration = (await site.create("aws-cross")).json()
    before = await site.facts(integration)
    assert "trust policy" in message(await site.update(integration, roleArn=OTHER_ROLE), 424)
    for wrong in ("arn:aws:s3:::bucket", "[" * 50_000):
        assert "arn:aws:iam::ACCOUNT" in message(await site.update(integration, roleArn=wrong), 400)
    assert await site.facts(integration) == before
    payload = {"bucketName": amazon.bucket.name, "endpoint": amazon.server.endpoint}
    assert "names no role yet" in message(await site.driver(integration, "s3", payload), 400)
    name = unique("cross")
    assert "trust policy" in message(await site.create("aws-cross", name=name, options={"roleArn": OTHER_ROLE}), 424)
    assert name not in (await site.client.get(site.integrations)).text


async def test_a_role_that_anybody_here_could_name_is_refused(site: Site) -> None:
    integration = (await site.create("aws-cross")).json()
    before = await site.facts(integration)
    told = message(await site.update(integration, roleArn=CARELESS_ROLE), 400)
    assert f'"sts:ExternalId": "{before["externalId"]}"' in told
    assert await site.facts(integration) == before


async def test_a_key_of_theirs_assumes_a_role(site: Site, amazon: Amazon) -> None:
    options = {"key": amazon.keys.access_key_id, "secret": amazon.keys.secret_access_key, "roleArns": ROLE}
    metadata = {"stsEndpoint": amazon.server.endpoint}
    integration = (await site.create("aws-sts", options=options, metadata=metadata)).json()
    payload = {"bucketName": amazon.bucket.name, "endpoint": amazon.server.endpoint}
    driver = await site.driver(integration, "s3", payload)
    assert driver.status_code == 200, driver.text
    assert await site.listed(driver.json()) == {"/a.txt": b"their bytes"}
    refused = options | {"roleArns": [OTHER_ROLE]}
    other = (await site.create("aws-sts", options=refused, metadata=metadata)).json()
    assert "trust policy" in message(await site.driver(other, "s3", payload), 424)


async def test_the_region_of_an_integration_leads_nowhere_else(site: Site, amazon: Amazon) -> None:
    integration = (await site.create("aws-cross", metadata={"region": "us-east-1@elsewhere.test/"})).json()
    assert "not the name of a region" in message(await site.update(integration, roleArn=ROLE), 400)


async def test_a_service_account_of_another_project_is_acted_as(site: Site, goo: Google) -> None:
    body = {"name": unique("cross")}
    integration = (await site.create("gcp-cross", **body)).json()
    introduced = await site.facts(integration)
    assert introduced == {"status": "created", "userArn": google.EMAIL}
    payload = {"bucket": goo.bucket, "endpoint": goo.server.endpoint}
    assert "names no service account yet" in message(await site.driver(integration, "gcs", payload), 400)
    token = (200, {"access_token": "ours", "expires_in": 3600})
    goo.tokens.script = [token, (403, {"error": {"status": "PERMISSION_DENIED", "message": "spoken secret"}})]
    told = message(await site.update(integration, email=OTHER_EMAIL, resourceName="theirs"), 424)
    assert "spoken secret" not in told
    assert await site.facts(integration) == introduced
    answer = await site.update(integration, email=THEIR_EMAIL, resourceName="theirs")
    assert answer.status_code == 200, answer.text
    assert goo.tokens.asked[-1].path == f"/v1/projects/-/serviceAccounts/{THEIR_EMAIL}:generateAccessToken"
    assert await site.facts(integration) == introduced | {"status": "trust-established", "email": THEIR_EMAIL}
    assert (await site.create("gcp-cross", **body)).json()["id"] == integration["id"]
    driver = await site.driver(integration, "gcs", payload)
    assert driver.status_code == 200, driver.text
    assert await site.listed(driver.json()) == {"/a.txt": b"their bytes"}


async def test_an_account_that_trusts_this_server_serves_one_organisation(site: Site) -> None:
    """Google asks for no external id, and whoever knows the account's name could read its buckets by this server."""
    options = {"email": THEIR_EMAIL, "resourceName": "theirs"}
    assert (await site.create("gcp-cross", options=options)).status_code == 200
    again = (await site.create("gcp-cross")).json()
    assert (await site.update(again, **options)).status_code == 200
    async with site.app.state.server.place.pool.connection() as conn:
        cursor = await conn.execute("INSERT INTO organization (name) VALUES ('Elsewhere') RETURNING id")
        elsewhere = (await cursor.fetchone())[0]
        await conn.execute(
            """
            INSERT INTO member (organization_id, account_id, role)
            SELECT %s, id, 'owner' FROM account WHERE email = %s
            """,
            [elsewhere, OWNER],
        )
    site.organization_id = f"{elsewhere:024x}"
    mine = (await site.create("gcp-cross")).json()
    for email in (THEIR_EMAIL, THEIR_EMAIL.upper()):
        told = message(await site.update(mine, email=email, resourceName="theirs"), 409)
        assert "may not act as" in told
        message(await site.create("gcp-cross", options=options | {"email": email}), 409)
    assert (await site.facts(mine))["status"] == "created"
    assert (await site.update(mine, email=OTHER_EMAIL, resourceName="mine")).status_code == 200


async def test_a_workload_identity_reads_a_bucket(site: Site, goo: Google) -> None:
    content = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{goo.tokens.url}/v1/token",
        "credential_source": {"url": f"{goo.tokens.url}/subject"},
    }
    options = {"content": json.dumps(content), "secret": "a-client-secret", "clientId": "a-client"}
    integration = (await site.create("gcp-workload-identity-federation", options=options)).json()
    driver = await site.driver(integration, "gcs", {"bucket": goo.bucket, "endpoint": goo.server.endpoint})
    assert driver.status_code == 200, driver.text
    assert await site.listed(driver.json()) == {"/a.txt": b"their bytes"}


async def test_a_check_takes_its_tokens_once_also_in_an_empty_folder(site: Site, goo: Google) -> None:
    content = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{goo.tokens.url}/v1/token",
        "service_account_impersonation_url": f"{goo.tokens.url}/v1/x:generateAccessToken",
        "credential_source": {
            "url": f"{goo.tokens.url}/subject",
            "format": {"type": "json", "subject_token_field_name": "access_token"},
        },
    }
    options = {"content": json.dumps(content)}
    integration = (await site.create("gcp-workload-identity-federation", options=options)).json()
    before = goo.tokens.lent
    payload = {"bucket": goo.bucket, "endpoint": goo.server.endpoint, "path": "empty"}
    driver = (await site.driver(integration, "gcs", payload, allowExternalDelete=True)).json()
    assert goo.tokens.lent - before == 3
    assert driver["report"]["calls"] <= 12, driver["report"]


@pytest.mark.parametrize(("kind", "words"), [("aws-cross", "HEADWATER_AWS"), ("gcp-cross", "HEADWATER_GOOGLE")])
async def test_a_server_without_an_identity_says_so(world: World, kind: str, words: str) -> None:
    body = {"name": unique("cross"), "type": kind, "options": {}}
    assert words in message(await world.owner.post(f"/orgs/{world.organization_id}/integrations", json=body), 400)
