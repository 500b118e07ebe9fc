"""The permission X-ray on real stores: what it finds, what it leaves, and what it costs."""

import asyncio
import json
import secrets
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import boto3
import pytest
from aiohttp import web
from botocore.config import Config
from yarl import URL

from headwater.catalog import drivers, organizations
from headwater.catalog.drivers import Driver
from headwater.catalog.reports import Report
from headwater.errors import BadRequest, FailedDependency, HeadwaterError, StoreDenied, StoreMissing, Unavailable
from headwater.storage import policies
from headwater.wire import checks as wire
from headwater.work import checks
from headwater.work.checks import TEST_KEY, Limits
from tests import servers
from tests.buckets import Bucket, new_bucket
from tests.servers import Keys, S3Server
from tests.storage.scripted import Scripted
from tests.work.world import World, present

ORIGIN = "http://headwater.test"
MOST_CALLS = 12
PATIENT = Limits.within(30)


@pytest.fixture
def bucket(weed: S3Server) -> Bucket:
    return new_bucket(weed)


async def driver_on(world: World, bucket: Bucket, *, keys: Keys | None = None, **given: Any) -> Driver:
    return await driver_at(world, bucket.server.endpoint, bucket.name, keys or bucket.server.admin, **given)


async def driver_at(
    world: World,
    endpoint: str,
    bucket: str = "cams",
    keys: Keys = Keys("key-id", "secret"),  # noqa: B008
    *,
    read_only: bool = False,
    allow_delete: bool = False,
    prefix: str = "",
) -> Driver:
    dataset = await world.dataset(
        kind="s3", root=bucket, endpoint=endpoint, keys=keys, allow_delete=allow_delete, prefix=prefix
    )
    async with world.connection() as conn:
        return replace(await drivers.get_driver(conn, dataset.driver_id), read_only=read_only)


async def checked(world: World, driver: Driver, **given: Any) -> Report:
    report = await checks.check(world.place, driver, origin=ORIGIN, **{"limits": PATIENT} | given)
    assert report.calls <= MOST_CALLS
    json.dumps(wire.report(report))  # as it is kept
    return report


def verdicts(report: Report) -> dict[str, bool | None]:
    return {check.name: check.ok for check in report.checks}


def all_keys(bucket: Bucket) -> set[str]:
    pages = bucket.client.get_paginator("list_objects_v2").paginate(Bucket=bucket.name)
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


# What is found on SeaweedFS


async def test_all_that_will_be_done_is_tried_and_the_bucket_is_as_before(world: World, bucket: Bucket):
    bucket.put("a.txt", b"a")
    report = await checked(world, await driver_on(world, bucket, allow_delete=True))
    assert report.ok
    told = verdicts(report)
    assert told.pop("cors") in (True, False)
    assert set(told.values()) == {True}, told
    assert {check.name: check.call for check in report.checks if check.name in ("list", "get", "put", "delete")} == {
        "list": "ListObjectsV2",
        "get": "GetObject",
        "put": "PutObject",
        "delete": "DeleteObject",
    }
    assert all_keys(bucket) == {"a.txt"}
    assert "Uploads" not in bucket.client.list_multipart_uploads(Bucket=bucket.name)


async def test_without_the_right_to_delete_one_object_stays_the_same_each_time(world: World, bucket: Bucket):
    driver = await driver_on(world, bucket, prefix="inner/")
    for _ in range(2):
        report = await checked(world, driver)
        assert report.ok
        assert report.check("delete").ok is None
        assert all_keys(bucket) == {f"inner/{TEST_KEY}"}


async def test_the_test_object_is_no_item(world: World, bucket: Bucket):
    bucket.put("a.txt", b"a")
    dataset = await world.dataset(
        kind="s3", root=bucket.name, endpoint=bucket.server.endpoint, keys=bucket.server.admin, allow_delete=False
    )
    async with world.connection() as conn:
        driver = await drivers.get_driver(conn, dataset.driver_id)
    await checked(world, driver)
    assert TEST_KEY in all_keys(bucket)
    await world.sync(dataset)
    assert present(await world.index(dataset)) == {"/a.txt"}


async def test_a_key_that_only_reads_lacks_put_and_the_policy_says_what_to_add(world: World, bucket: Bucket):
    bucket.put("a.txt", b"a")
    driver = await driver_on(world, bucket, keys=bucket.server.reader, prefix="")
    report = await checked(world, driver)
    assert {check.name for check in report.failures} == {"put"}
    put = report.check("put")
    assert (put.call, put.code) == ("PutObject", "AccessDenied")
    assert put.policy is not None
    assert put.policy.document["Statement"] == [
        {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": f"arn:aws:s3:::{bucket.name}/*"}
    ]
    assert report.check("get").ok is True, "it is tried on an object that was listed"
    with pytest.raises(StoreDenied) as refused:
        await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)
    told = str(refused.value)
    assert f'may not write to bucket "{bucket.name}" (403 AccessDenied on PutObject)' in told
    assert "the driver was not made" in told
    assert put.policy.text in told
    assert "readOnly" in told
    assert all_keys(bucket) == {"a.txt"}


async def test_a_driver_that_only_reads_writes_nothing(world: World, bucket: Bucket):
    driver = await driver_on(world, bucket, keys=bucket.server.reader, read_only=True)
    report = await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)
    assert report.ok
    assert {name: ok for name, ok in verdicts(report).items() if name in ("get", "put", "multipart", "delete")} == {
        "get": None,  # the bucket is empty
        "put": None,
        "multipart": None,
        "delete": None,
    }
    bucket.put("folder/", b"")
    bucket.put("folder/empty.txt", b"")
    assert (await checked(world, driver)).check("get").ok is True
    bucket.put("folder/full.txt", b"full")
    assert (await checked(world, driver)).check("get").ok is True
    assert all_keys(bucket) == {"folder/", "folder/empty.txt", "folder/full.txt"}


@pytest.mark.parametrize(
    ("keys", "name", "kind", "sentence"),
    [
        (Keys("admin-id", "wrong"), None, StoreDenied, "The secret is not the one of that access key id"),
        (Keys("nobody", "wrong"), None, StoreDenied, "no such access key id"),
        (None, "none-such", StoreMissing, 'no bucket "none-such"'),
    ],
)
async def test_wrong_keys_and_buckets_are_named_once_and_need_no_policy(
    world: World, bucket: Bucket, keys: Keys | None, name: str | None, kind: type[HeadwaterError], sentence: str
):
    driver = replace(await driver_on(world, bucket, keys=keys), root=name or bucket.name)
    report = await checked(world, driver)
    assert {name for name, ok in verdicts(report).items() if ok is not None} <= {"list", "clock"}
    assert report.check("list").policy is None
    with pytest.raises(kind, match=sentence) as refused:
        await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)
    assert "Statement" not in str(refused.value)
    assert all_keys(bucket) == set()


async def test_a_single_file_is_no_folder(world: World, bucket: Bucket):
    bucket.put("shots/one.jpg", b"jpeg")
    driver = await driver_on(world, bucket, prefix="shots/one.jpg/")
    with pytest.raises(BadRequest, match=r'"shots/one.jpg" in bucket .* is a single file'):
        await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)
    assert all_keys(bucket) == {"shots/one.jpg"}
    assert (await checked(world, replace(driver, prefix="shots/new/"))).ok, "an empty folder is fine"
    bucket.put("shots/one.jpg/inner", b"both")
    assert (await checked(world, driver)).ok


async def test_a_dry_run_leaves_nothing(world: World, bucket: Bucket):
    for allow_delete in (False, True):
        report = await checks.try_new(
            world.place, await driver_on(world, bucket, allow_delete=allow_delete), origin=ORIGIN, limits=PATIENT
        )
        assert report.ok
        assert all_keys(bucket) == set()


# How much is asked


@asynccontextmanager
async def proxy(server: S3Server) -> AsyncIterator[tuple[str, list[str]]]:
    """Passes everything on to the server and notes it."""
    seen: list[str] = []

    async def passed_on(request: web.Request) -> web.Response:
        seen.append(f"{request.method} {request.path_qs}")
        url = URL(server.endpoint + request.raw_path, encoded=True)
        body = await request.read()
        async with session.request(request.method, url, headers=request.headers, data=body) as answer:
            headers = {name: text for name, text in answer.headers.items() if name != "Transfer-Encoding"}
            return web.Response(status=answer.status, headers=headers, body=await answer.read())

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", passed_on)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
        await runner.cleanup()


@pytest.mark.parametrize("objects", [0, 200])
@pytest.mark.parametrize("allow_delete", [False, True])
async def test_a_report_costs_the_same_however_much_there_is(
    world: World, bucket: Bucket, objects: int, allow_delete: bool
):
    for number in range(objects):
        bucket.put(f"folder/{number}.txt", b"text")
    async with proxy(bucket.server) as (endpoint, seen):
        driver = await driver_at(
            world, endpoint, bucket.name, bucket.server.admin, allow_delete=allow_delete, prefix="folder/"
        )
        report = await checked(world, driver)
    assert report.ok
    assert report.calls == len(seen) <= MOST_CALLS, seen
    assert sum("list-type" in request for request in seen) == 1


async def test_what_is_only_advice_gives_way_to_the_limit_of_requests(
    world: World, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    driver = await driver_on(world, bucket, allow_delete=True, prefix="folder/")
    whole = await checked(world, driver)
    monkeypatch.setattr(checks, "_MOST_CALLS", whole.calls - 1)
    report = await checked(world, driver)
    assert (verdicts(whole)["cors"], verdicts(report)["cors"]) == (True, None)
    assert report.calls < whole.calls
    assert report.ok


async def test_a_vault_that_does_not_answer_makes_no_check_wait(
    world: World, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
):
    driver = await driver_on(world, bucket)

    async def never_opened(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(world.place.places, "open", never_opened)
    report = await checked(world, driver, limits=SHORT)
    assert not report.ok
    assert "could not be read in time" in (report.checks[0].message or "")


async def never(_request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


SHORT = Limits(check_s=0.2, all_checks_s=0.3, removal_s=0.05)


def test_the_limits_are_those_that_are_promised():
    limits = Limits.within(3)
    assert limits.check_s <= limits.all_checks_s
    assert limits.all_checks_s + limits.removal_s < 3


async def test_a_store_that_never_answers_is_given_up(world: World):
    async with Scripted.running() as server:
        server.script = [never]
        driver = await driver_at(world, server.url, allow_delete=True)
        report = await checked(world, driver, limits=SHORT)
        assert [(check.name, check.code) for check in report.checks if check.ok is False] == [("list", "Timeout")]
        with pytest.raises(Unavailable, match="did not answer in time"):
            await checks.check_new(world.place, driver, origin=ORIGIN, limits=SHORT)
        assert {request.method for request in server.requests} == {"GET", "DELETE"}, "nothing was written"


LISTED = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


async def test_a_test_object_whose_writing_took_too_long_is_removed_all_the_same(world: World):
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "PUT":
            await never(request)
        return web.Response(text=LISTED if request.method == "GET" else "", status=200)

    async with Scripted.running() as server:
        server.script = [answer]
        report = await checked(world, await driver_at(world, server.url, allow_delete=True), limits=SHORT)
        assert (report.check("put").code, report.check("get").ok) == ("Timeout", None)
        last = server.requests[-1]
        assert last.method == "DELETE"
        assert [last.path] == [request.path for request in server.requests if request.method == "PUT"]


# Mistakes that are recognised


def refusal(status: int, code: str, inside: str = "", **headers: str) -> web.Response:
    text = f"<Error><Code>{code}</Code><Message>very-private</Message>{inside}</Error>"
    return web.Response(
        status=status, text=text, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        (refusal(301, "PermanentRedirect", "<Region>eu-west-1</Region>"), BadRequest, 'in region "eu-west-1"'),
        (refusal(400, "ExpiredToken"), StoreDenied, "session token has expired"),
        (refusal(403, "RequestTimeTooSkewed", Date="Mon, 01 Jan 2024 00:00:00 GMT"), FailedDependency, "clock"),
        (web.Response(status=403, text="<html>very-private login</html>"), BadRequest, "web page"),
        (web.Response(text="<!doctype html><html>very-private console</html>"), HeadwaterError, "endpoint"),
        (web.Response(status=400, text="Client sent an HTTP request to an HTTPS server."), BadRequest, "https://"),
        (refusal(503, "SlowDown"), Unavailable, "busy or failing"),
    ],
)
async def test_mistakes_are_named_and_what_the_endpoint_says_is_not_repeated(
    world: World, answer: web.Response, kind: type[HeadwaterError], sentence: str
):
    async with Scripted.running() as server:
        server.script = [answer]
        driver = await driver_at(world, server.url)
        report = await checked(world, driver)
        told = json.dumps(wire.report(report))
        assert sentence.replace('"', '\\"') in told
        assert "very-private" not in told
        assert len(server.requests) == 1, "nothing but the listing was asked for"
        with pytest.raises(kind, match=sentence):
            await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)


async def test_the_region_is_named(world: World):
    async with Scripted.running() as server:
        server.script = [refusal(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>")]
        region = (await checked(world, await driver_at(world, server.url))).check("region")
        assert (region.ok, region.message) == (
            False,
            'The bucket is in region "eu-west-1", not "us-east-1". Set that region.',
        )


@pytest.mark.parametrize(
    ("date", "told"),
    [
        ("Mon, 01 Jan 2024 00:00:00 GMT", "ahead of"),
        ("Mon, 01 Jan 2091 00:00:00 GMT", "behind"),
        ("nonsense", None),
    ],
)
async def test_a_wrong_clock_is_told_and_stops_nothing(world: World, date: str, told: str | None):
    async with Scripted.running() as server:
        server.script = [web.Response(text=LISTED, headers={"Date": date})]
        driver = await driver_at(world, server.url, read_only=True)
        clock = (await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)).check("clock")
        assert clock.ok is (None if told is None else False)
        assert (told or "does not tell") in clock.message


async def test_https_for_http_is_named(world: World, bucket: Bucket):
    endpoint = bucket.server.endpoint.replace("http:", "https:")
    listed = (await checked(world, await driver_at(world, endpoint, bucket.name))).check("list")
    assert "give the endpoint with http://" in listed.message


async def test_a_bucket_in_the_host_is_named(world: World):
    driver = await driver_at(world, "https://my.photos.s3.eu-west-1.amazonaws.com", "my.photos")
    report = await checked(world, driver)
    assert report.calls == 0
    assert report.check("list").message.endswith("Give it without: https://s3.eu-west-1.amazonaws.com")


async def test_an_endpoint_that_leads_inside_is_refused(workplace: Any, database_url: str, weed: S3Server):
    async with workplace(database_url, allow_private_endpoints=False) as place:
        async with place.pool.connection() as conn:
            owner = await organizations.get_owner(conn)
        strict = World(place, owner, Path("/nowhere"), place.vault.local)
        driver = await driver_at(strict, weed.endpoint, keys=weed.admin)
        report = await checks.check(place, driver, origin=ORIGIN, limits=PATIENT)
        assert "HEADWATER_ALLOW_PRIVATE_ENDPOINTS" in report.check("list").message
        assert verdicts(report)["signed_url"] is None
        for visit in (
            checks.visits.fetch_signed(place.places.session, f"{weed.endpoint}/b/a?sig=very-private"),
            checks.visits.allows_origin(place.places.session, f"{weed.endpoint}/b/a?sig=very-private", ORIGIN),
        ):
            with pytest.raises(BadRequest, match="HEADWATER_ALLOW_PRIVATE_ENDPOINTS"):
                await visit


# Signed URLs and browsers


@pytest.mark.parametrize(
    ("headers", "ok"),
    [
        ({"Access-Control-Allow-Origin": ORIGIN, "Access-Control-Allow-Methods": "GET, PUT"}, True),
        ({"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": "*"}, True),
        ({"Access-Control-Allow-Origin": "https://other.test", "Access-Control-Allow-Methods": "GET"}, False),
        ({"Access-Control-Allow-Origin": ORIGIN, "Access-Control-Allow-Methods": "PUT"}, False),
        ({}, False),
    ],
)
async def test_what_browsers_may_do_is_told_with_the_rules_to_paste(world: World, headers: dict[str, str], ok: bool):
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            asked.append(request)
            return web.Response(headers=headers)
        if request.query.get("list-type"):
            entry = "<Key>a</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>e</ETag><Size>1</Size>"
            return web.Response(text=LISTED.replace("</List", f"<Contents>{entry}</Contents></List"))
        return web.Response(body=b"a")

    async with Scripted.running() as server:
        server.script = [answer]
        report = await checks.check_new(
            world.place, await driver_at(world, server.url, read_only=True), origin=ORIGIN, limits=PATIENT
        )
        unsigned = [request for request in server.requests if "X-Amz-Signature" in request.query_string]
    assert report.ok, "it is advice"
    assert {request.headers.get("Authorization") for request in unsigned} == {None}
    assert asked[0].headers["Origin"] == ORIGIN
    cors = report.check("cors")
    assert cors.ok is ok
    assert ok or cors.policy.document["CORSRules"][0]["AllowedOrigins"] == [ORIGIN]


# Our policies, held against moto's own enforcement


@dataclass
class Iam:
    server: S3Server
    bucket: Bucket
    client: Any

    def enforce(self, is_on: bool) -> None:
        content = b"0" if is_on else b"inf"  # requests that are let through before
        headers = {"Content-Type": "text/plain"}
        asked = urllib.request.Request(f"{self.server.endpoint}/moto-api/reset-auth", data=content, headers=headers)
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked).close()

    @contextmanager
    def user_with(self, document: Any) -> Iterator[Keys]:
        """Keys of a user who may what the policy says; permissions are enforced meanwhile."""
        name = f"user-{secrets.token_hex(4)}"
        self.client.create_user(UserName=name)
        self.client.put_user_policy(UserName=name, PolicyName="ours", PolicyDocument=json.dumps(document))
        made = self.client.create_access_key(UserName=name)["AccessKey"]
        self.enforce(True)
        try:
            yield Keys(made["AccessKeyId"], made["SecretAccessKey"])
        finally:
            self.enforce(False)


@pytest.fixture(scope="module")
def iam() -> Iterator[Iam]:
    with servers.moto() as server:
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "s"}
        client = boto3.client(
            "iam", endpoint_url=server.endpoint, region_name="us-east-1", config=Config(proxies={}), **keys
        )
        yield Iam(server, new_bucket(server), client)
        client.close()


# moto cannot check signed URLs and preflights while it enforces permissions
BEYOND_MOTO = {"signed_url", "cors"}


def whole_policy(iam: Iam, *, read_only: bool = False, allow_delete: bool = False) -> Any:
    where = policies.Place("aws", iam.bucket.name, "photos/", "us-east-1")
    return policies.smallest(where, policies.all_rights(read_only=read_only, allow_delete=allow_delete)).document


@pytest.mark.parametrize(
    "given", [{"allow_delete": True}, {"allow_delete": False}, {"read_only": True}], ids=["delete", "write", "read"]
)
async def test_the_smallest_policy_lets_all_pass(world: World, iam: Iam, given: dict[str, bool]):
    iam.bucket.put("photos/a.jpg", b"jpeg")
    with iam.user_with(whole_policy(iam, **given)) as keys:
        driver = await driver_on(world, iam.bucket, keys=keys, prefix="photos/", **given)
        report = await checked(world, driver)
    told = {name: ok for name, ok in verdicts(report).items() if name not in BEYOND_MOTO}
    assert False not in told.values(), told
    assert report.policy.document == whole_policy(iam, **given)


async def test_the_smallest_policy_deletes_what_is_ours_and_nothing_else(world: World, iam: Iam):
    with iam.user_with(whole_policy(iam)) as keys:
        store = await world.place.places.open(await driver_on(world, iam.bucket, keys=keys, prefix="photos/"))
        await store.delete(".dataloop/thumbnails/x.webp")
        with pytest.raises(StoreDenied):
            await store.delete("a.jpg")
        await store.close()


@pytest.mark.parametrize(
    ("action", "name"),
    [
        ("s3:ListBucket", "list"),
        ("s3:GetObject", "get"),
        ("s3:PutObject", "put"),
        ("s3:AbortMultipartUpload", "multipart"),
        ("s3:DeleteObject", "delete"),
    ],
)
async def test_each_action_that_is_taken_away_is_found_and_its_policy_mends_it(
    world: World, iam: Iam, action: str, name: str
):
    document = whole_policy(iam, allow_delete=True)
    for statement in document["Statement"]:
        statement["Action"] = [kept for kept in statement["Action"] if kept != action] or ["s3:None"]
    with iam.user_with(document) as keys:
        driver = await driver_on(world, iam.bucket, keys=keys, prefix="photos/", allow_delete=True)
        report = await checked(world, driver)
    told = {name: ok for name, ok in verdicts(report).items() if name not in BEYOND_MOTO}
    assert [name for name, ok in told.items() if ok is False] == [name], told
    found = report.check(name)
    assert found.code == "AccessDenied"
    (statement,) = found.policy.document["Statement"]
    assert action in statement["Action"]
    assert report.ok is (name not in ("list", "get", "put"))
    assert "Uploads" not in iam.bucket.client.list_multipart_uploads(Bucket=iam.bucket.name)
    document["Statement"] += found.policy.document["Statement"]
    with iam.user_with(document) as keys:
        driver = await driver_on(world, iam.bucket, keys=keys, prefix="photos/", allow_delete=True)
        told = verdicts(await checked(world, driver))
    assert False not in {ok for name, ok in told.items() if name not in BEYOND_MOTO}, told


async def test_delete_that_is_refused_leaves_one_object_however_often_it_is_tried(world: World, iam: Iam):
    iam.bucket.client.delete_object(Bucket=iam.bucket.name, Key=f"photos/{TEST_KEY}")
    before = all_keys(iam.bucket)
    document = whole_policy(iam)
    document["Statement"].pop()
    with iam.user_with(document) as keys:
        driver = await driver_on(world, iam.bucket, keys=keys, prefix="photos/", allow_delete=True)
        for _ in range(3):
            report = await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)
            assert report.check("delete").ok is False
    assert all_keys(iam.bucket) - before == {f"photos/{TEST_KEY}"}


# Folders


async def folder_driver(world: World, root: str, **given: Any) -> Driver:
    dataset = await world.dataset(root=root, allow_delete=given.pop("allow_delete", False))
    async with world.connection() as conn:
        return replace(await drivers.get_driver(conn, dataset.driver_id), **given)


async def test_a_folder_is_checked_in_the_same_way(world: World):
    root = world.folders / secrets.token_hex(4)
    root.mkdir()
    report = await checked(world, await folder_driver(world, str(root), allow_delete=True))
    assert verdicts(report) == {
        "list": True,
        "get": True,
        "put": True,
        "delete": True,
        "multipart": None,
        "signed_url": None,
        "cors": None,
        "clock": None,
        "region": None,
    }
    assert [path for path in root.rglob("*") if path.is_file()] == []
    report = await checked(world, await folder_driver(world, str(root)))
    assert report.ok
    assert [path for path in root.rglob("*") if path.is_file()] == [root / TEST_KEY]


async def test_a_folder_that_is_a_file_is_refused(world: World):
    file = world.folders / f"{secrets.token_hex(4)}.jpg"
    file.write_bytes(b"jpeg")
    with pytest.raises(BadRequest, match="is a single file"):
        await checks.check_new(world.place, await folder_driver(world, str(file)), origin=ORIGIN, limits=PATIENT)
    driver = await folder_driver(world, str(world.folders), prefix=f"{file.name}/")
    with pytest.raises(BadRequest, match="is a single file"):
        await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)


async def test_a_folder_that_may_not_be_written_lacks_put(workplace: Any, database_url: str):
    """A part of /sys: even root may make no file there."""
    async with workplace(database_url, local_roots=("/sys/kernel",)) as place:
        async with place.pool.connection() as conn:
            owner = await organizations.get_owner(conn)
        there = World(place, owner, Path("/nowhere"), place.vault.local)
        driver = await folder_driver(there, "/sys/kernel")
        report = await checks.check(place, driver, origin=ORIGIN, limits=PATIENT)
        assert {name: ok for name, ok in verdicts(report).items() if name in ("list", "put")} == {
            "list": True,
            "put": False,
        }
        assert "setfacl" in report.check("put").policy.text
        with pytest.raises(StoreDenied, match="readOnly"):
            await checks.check_new(place, driver, origin=ORIGIN, limits=PATIENT)


# Policies as such


@pytest.mark.parametrize("cloud", ["aws", "gcs", "azure", "folder"])
@pytest.mark.parametrize("right", ["list", "get", "put", "delete", "multipart", "sign", "derived"])
def test_every_policy_can_be_pasted(cloud: policies.Cloud, right: policies.Right):
    where = policies.Place(cloud, "bucket", "a b/", "eu-west-1")
    for policy in (policies.smallest(where, [right]), policies.cors(where, ORIGIN)):
        assert policy.hint
        assert policy.text
        if policy.command is None:
            assert json.loads(policy.text) == policy.document


def test_letters_that_mean_others_in_a_policy_mean_themselves():
    document = policies.smallest(policies.Place("aws", "b", "a*b?$/", "cn-north-1"), ["list", "get"]).document
    assert document["Statement"] == [
        {
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": "arn:aws-cn:s3:::b",
            "Condition": {"StringLike": {"s3:prefix": "a${*}b${?}${$}/*"}},
        },
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws-cn:s3:::b/a${*}b${?}${$}/*"},
    ]
