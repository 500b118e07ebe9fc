"""`headwater registry` against a real registry."""

import json
from collections.abc import Iterator

import httpx
import pytest

from tests import servers
from tests.cli.conftest import Run
from tests.conftest import RunningServer
from tests.registries.conftest import options
from tests.registries.images import push


@pytest.fixture(scope="module")
def integrations(server: RunningServer, token_of, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Three: cli-images with the right password, cli-wrong with a wrong one, cli-value that is no registry."""
    with servers.docker_registry(tmp_path_factory.mktemp("registry")) as registry:
        push(registry, "team/app", ["v1", "v2"])
        headers = {"authorization": f"Bearer {token_of()}"}
        with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, trust_env=False) as client:
            url = f"/orgs/{client.get('/orgs').json()[0]['id']}/integrations"
            for name, password in (("cli-images", registry.password), ("cli-wrong", "wrong")):
                given = options(f"http://{registry.host}", registry.username, password)
                body = {"name": name, "type": "private-registry", "options": given}
                client.post(url, json=body).raise_for_status()
            body = {"name": "cli-value", "type": "key_value", "options": {"key": "k", "value": "v"}}
            client.post(url, json=body).raise_for_status()
        yield registry.host


def test_a_registry_is_checked_and_listed(run: Run, integrations: str):
    checked = run("registry", "check", "cli-images")
    assert checked.returncode == 0, checked.stderr
    assert integrations in checked.stdout
    assert checked.stdout.count("good") == 2
    found = json.loads(run("registry", "check", "cli-images", "--json").stdout)
    assert [check["name"] for check in found["checks"]] == ["login", "catalog"]
    assert run("registry", "repositories", "cli-images").stdout.split() == ["team/app"]
    assert sorted(run("registry", "tags", "cli-images", "team/app").stdout.split()) == ["v1", "v2"]
    assert sorted(json.loads(run("registry", "tags", "cli-images", "team/app", "--json").stdout)) == ["v1", "v2"]


def test_what_fails_is_told_and_ends_with_1(run: Run, integrations: str):
    checked = run("registry", "check", "cli-wrong")
    assert checked.returncode == 1
    assert "does not accept the user name or password" in checked.stdout
    checked = run("registry", "check", "cli-wrong", "--json")
    assert checked.returncode == 1
    assert not json.loads(checked.stdout)["checks"][0]["ok"]
    for arguments, words in {
        ("repositories", "cli-wrong"): "does not accept the user name or password",
        ("repositories", "cli-value"): "of type key_value",
        ("repositories", "nix"): "no integration 'nix'",
        ("tags", "cli-images", "team/none"): "no repository",
        ("tags", "cli-images", "../../x"): "not the name of a repository",
    }.items():
        refused = run("registry", *arguments)
        assert refused.returncode == 1
        assert words in refused.stderr
    told = run("registry", "check", "cli-value")
    assert (told.returncode, "nothing to check" in told.stdout) == (0, True)
