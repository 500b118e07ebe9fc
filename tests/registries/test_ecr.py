"""Amazon ECR: the server of moto, which answers its API and checks keys and policies once it is told to."""

from collections.abc import Iterator
from typing import Any

import boto3
import httpx
import orjson
import pytest
from aiohttp import web

from headwater.errors import BadRequest, HeadwaterError, NotFound, Unavailable
from headwater.registries.checks import Check, check_registry
from headwater.registries.opening import open_registry
from tests import servers
from tests.servers import REGION, S3Server

ACCOUNT = "123456789012"
WRONG = "canary-wrong-secret"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MAY_LOG_IN = {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}
MAY_LIST = {"Effect": "Allow", "Action": ["ecr:DescribeRepositories", "ecr:ListImages"], "Resource": "*"}


@pytest.fixture(scope="module")
def amazon() -> Iterator[S3Server]:
    with servers.moto() as server:
        yield server


def boto(service: str, server: S3Server) -> Any:
    keys = {"aws_access_key_id": server.admin.access_key_id, "aws_secret_access_key": server.admin.secret_access_key}
    return boto3.client(service, endpoint_url=server.endpoint, region_name=REGION, **keys)


@pytest.fixture(scope="module")
def repositories(amazon: S3Server) -> list[str]:
    client = boto("ecr", amazon)
    names = ["ml/base", "ml/train"]
    for name in names:
        client.create_repository(repositoryName=name)
    for tag in ("v1", "v2", "latest"):
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"digest": f"sha256:{tag.encode().hex():0>64}"},
            "layers": [],
        }
        client.put_image(repositoryName="ml/train", imageManifest=orjson.dumps(manifest).decode(), imageTag=tag)
    client.close()
    return names


def options(key: str, secret: str) -> dict[str, Any]:
    """As the SDK builds them."""
    spec = {"accessKeyId": key, "secretAccessKey": secret, "account": ACCOUNT, "region": REGION}
    return {"name": "AWS", "spec": spec}


def opened(server: S3Server, key: str = "any-id", secret: str = "any-secret") -> Any:
    return open_registry(options(key, secret), {"endpoint": server.endpoint}, allow_private=True)


@pytest.fixture
def guarded(amazon: S3Server) -> Iterator[Any]:
    """Makes users with policies; keys and policies are checked meanwhile."""
    iam = boto("iam", amazon)

    def new_user(name: str, *statements: dict[str, Any]) -> tuple[str, str]:
        iam.create_user(UserName=name)
        policy = orjson.dumps({"Version": "2012-10-17", "Statement": list(statements)}).decode()
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=policy)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return made["AccessKeyId"], made["SecretAccessKey"]

    users = {"all": new_user("all", MAY_LOG_IN, MAY_LIST), "little": new_user("little", MAY_LOG_IN)}
    reset = f"{amazon.endpoint}/moto-api/reset-auth"
    httpx.post(reset, content=b"0", trust_env=False).raise_for_status()
    yield users
    httpx.post(reset, content=b"Infinity", trust_env=False).raise_for_status()
    for name, (key, _) in users.items():
        iam.delete_access_key(UserName=name, AccessKeyId=key)
        iam.delete_user_policy(UserName=name, PolicyName="p")
        iam.delete_user(UserName=name)
    iam.close()


async def test_repositories_and_tags_are_listed(amazon: S3Server, repositories: list[str]):
    async with opened(amazon) as registry:
        assert registry.host == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
        assert await check_registry(registry) == [Check("login", ok=True), Check("catalog", ok=True)]
        assert sorted((await registry.list_repositories()).names) == repositories
        assert sorted((await registry.list_tags("ml/train")).names) == ["latest", "v1", "v2"]
        assert (await registry.list_tags("ml/base")).names == []
        with pytest.raises(NotFound, match='no repository "ml/none"'):
            await registry.list_tags("ml/none")
        with pytest.raises(BadRequest, match="not the name of a repository"):
            await registry.list_tags("../x")


async def test_keys_and_policies_are_checked_and_told_apart(amazon: S3Server, guarded: Any, repositories: list[str]):
    async with opened(amazon, *guarded["all"]) as registry:
        assert [check.ok for check in await check_registry(registry)] == [True, True]
    for key in ("AKIAUNKNOWN", guarded["all"][0]):
        async with opened(amazon, key, WRONG) as registry:
            (login,) = await check_registry(registry)
        assert (login.ok, login.call) == (False, "GetAuthorizationToken")
        assert "does not accept the access key id or its secret" in login.message
        assert WRONG not in login.message
    async with opened(amazon, *guarded["little"]) as registry:
        login, catalog = await check_registry(registry)
        assert (login.ok, catalog.ok, catalog.call) == (True, False, "DescribeRepositories")
        assert "Allow ecr:DescribeRepositories" in catalog.message


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, {}, "is not Amazon ECR"),
        (200, {"authorizationData": [{"authorizationToken": "bm90IEFXUw=="}]}, "is not Amazon ECR"),
        (200, [], "is not Amazon ECR"),
        (400, {"__type": "x#ExpiredTokenException"}, "does not accept the access key"),
        (400, {"__type": "ThrottlingException"}, "busy or down"),
        (400, {"__type": "<canary>"}, "is not Amazon ECR, or does not know this request (HTTP 400"),
        (302, {}, "is not Amazon ECR"),
        (503, {}, "busy or down"),
    ],
)
async def test_other_answers_are_told_and_never_quoted(listen, status: int, body: object, words: str):
    async def answer(request: web.Request) -> web.Response:
        assert WRONG not in str(request.headers) + await request.text()  # the secret signs, and is never sent
        return web.json_response(body, status=status, headers={"Location": "/"})

    endpoint = {"endpoint": f"http://{await listen(answer)}"}
    async with open_registry(options("id", WRONG), endpoint, allow_private=True) as registry:
        (login,) = await check_registry(registry)
    assert words in login.message
    assert "canary" not in login.message


async def test_pages_are_followed_and_one_without_end_is_left(listen):
    async def answer(request: web.Request) -> web.Response:
        asked = await request.json()
        assert asked["registryId"] == ACCOUNT
        page = int(asked.get("nextToken") or 0)
        following = {"nextToken": str(page + 1)} if page < 3 or "Images" in request.headers["X-Amz-Target"] else {}
        named = {"repositories": [{"repositoryName": f"r{page}"}], "imageIds": [{"imageTag": f"t{page}"}, {}]}
        return web.json_response(named | following)

    endpoint = {"endpoint": f"http://{await listen(answer)}"}
    async with open_registry(options("id", "secret"), endpoint, allow_private=True) as registry:
        found = await registry.list_repositories()
        assert (found.names, found.is_complete) == (["r0", "r1", "r2", "r3"], True)
        assert not (await registry.list_tags("app")).is_complete


@pytest.mark.parametrize("named", [[{"repositoryName": 7}], [{}], [7], 7])
async def test_what_is_no_list_is_told(listen, named: object):
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"repositories": named})

    endpoint = {"endpoint": f"http://{await listen(answer)}"}
    async with open_registry(options("id", "secret"), endpoint, allow_private=True) as registry:
        with pytest.raises(HeadwaterError, match="is not Amazon ECR") as raised:
            await registry.list_repositories()
    assert not isinstance(raised.value, Unavailable)


@pytest.mark.parametrize("endpoint", ["http://ecr.example.com", "https://127.0.0.1:5000"])
async def test_an_endpoint_of_the_api_is_an_outer_one_and_speaks_https_unless_the_operator_allows(endpoint: str):
    with pytest.raises(BadRequest):
        async with open_registry(options("id", "secret"), {"endpoint": endpoint}, allow_private=False):
            pass
