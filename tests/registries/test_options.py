"""The shapes of options, and that no value of them reaches a sentence."""

import json
from base64 import b64encode
from typing import Any

import pytest

from headwater.errors import BadRequest
from headwater.registries.options import EcrRegistry, Registry, check_options, read_options
from tests.registries.conftest import options

CANARY = "canary-3f9c"
KEY = json.dumps({"type": "service_account", "private_key": "-----BEGIN\nline: two\n-----END"}, indent=2)


def coded(value: Any) -> str:
    return b64encode((value if isinstance(value, str) else json.dumps(value)).encode()).decode()


def auths(**credentials: Any) -> dict[str, Any]:
    return {"name": "n", "spec": {"password": coded({"auths": {"r.example.com": credentials}})}}


def ecr(**changed: Any) -> dict[str, Any]:
    spec = {"accessKeyId": "AKIA", "secretAccessKey": CANARY, "account": "123456789012", "region": "eu-central-1"}
    return {"name": "AWS", "spec": spec | changed}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (options("docker.io", "ana", "pä:ss"), Registry("docker.io", "ana", "pä:ss")),
        (options("https://index.docker.io/v1/", "ana", "p"), Registry("docker.io", "ana", "p")),
        (options("europe-docker.pkg.dev", "_json_key", KEY), Registry("europe-docker.pkg.dev", "_json_key", KEY)),
        (options("https://Mine.azurecr.io/", "ana", "p"), Registry("mine.azurecr.io", "ana", "p")),
        (options("http://r.lan:5000", "ana", "p"), Registry("r.lan:5000", "ana", "p", is_plain_http=True)),
        (auths(auth=coded("ana:p:q")), Registry("r.example.com", "ana", "p:q")),
        (auths(username="ana", password="p"), Registry("r.example.com", "ana", "p")),
        (ecr(), EcrRegistry("AKIA", CANARY, "123456789012", "eu-central-1")),
    ],
)
def test_the_shapes_of_every_registry_are_read_also_as_the_vault_keeps_them(given: dict[str, Any], read: object):
    assert read_options(given) == read
    assert read_options(given | {"spec": json.dumps(given["spec"])}) == read
    assert CANARY not in repr(read)


def test_the_host_of_ecr_is_the_one_of_its_account_and_region():
    assert read_options(ecr()).host == "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    assert read_options(ecr(region="cn-north-1")).host == "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "JSON object"),
        ({"name": "n", "spec": CANARY}, "not JSON"),
        ({"name": "n", "spec": [CANARY]}, "JSON object"),
        ({"name": "n", "spec": {"user": CANARY}}, "neither a password"),
        ({"name": "n", "spec": {"password": CANARY}}, "not base64"),
        ({"name": "n", "spec": {"password": 7}}, "not base64"),
        ({"name": "n", "spec": {"password": b64encode(b"\xff\xfe" + CANARY.encode()).decode()}}, "not base64"),
        ({"name": "n", "spec": {"password": "!" + coded({"auths": {"a.io": {}}})}}, "not base64"),
        ({"name": "n", "spec": {"password": coded(CANARY)}}, "not JSON"),
        ({"name": "n", "spec": {"password": coded("[" * 5000)}}, "not JSON"),
        ({"name": "n", "spec": {"password": coded([CANARY])}}, "JSON object"),
        ({"name": "n", "spec": {"password": coded({"auths": {}})}}, "0 hosts"),
        ({"name": "n", "spec": {"password": coded({"auths": {"a.io": {}, "b.io": {}}})}}, "2 hosts"),
        ({"name": "n", "spec": {"password": coded({"auths": {"a.io": CANARY}})}}, "JSON object"),
        (auths(username="ana"), "lacks the username or the password"),
        (auths(username="ana", password=[CANARY]), "lacks the username or the password"),
        (auths(username=f"{CANARY}:x", password="p"), "colon"),
        (auths(username="ana", password=CANARY, auth=coded("ana:other")), "something else"),
        (options(f"ana:{CANARY}@r.example.com", "ana", "p"), "HOST:PORT"),
        (options(f"r.example.com/{CANARY}", "ana", "p"), "HOST:PORT"),
        (options(f"ftp://{CANARY}", "ana", "p"), "HOST:PORT"),
        (options("r.example.com:port", "ana", CANARY), "HOST:PORT"),
        (options("", "ana", CANARY), "HOST:PORT"),
        (ecr(region=""), "lacks region"),
        (ecr(account=123456789012), "lacks account"),
        (ecr(account=CANARY), "12 digits"),
        (ecr(region=f"{CANARY}.evil.example"), "region that is not one"),
        (ecr(region="eu-central-1.evil.example/?"), "region that is not one"),
        (ecr(secretAccessKey=f"{CANARY}\nx"), "copied wrongly"),
    ],
)
def test_what_is_malformed_is_told_without_a_value(given: dict[str, Any], words: str):
    with pytest.raises(BadRequest, match=words) as raised:
        check_options(given)
    assert CANARY not in str(raised.value)
    assert '{"auths": {HOST:' in str(raised.value)
