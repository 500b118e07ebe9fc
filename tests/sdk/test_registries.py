"""Container registries: options as the SDK builds them, asked by the API."""

from collections.abc import Iterator

import httpx
import pytest

from tests import servers
from tests.registries.images import push
from tests.servers import REGION, RegistryServer


@pytest.fixture
def registry(tmp_path) -> Iterator[RegistryServer]:
    with servers.docker_registry(tmp_path / "registry") as server:
        push(server, "team/app", ["v1", "v2"])
        yield server


def test_a_registry_made_with_the_sdk_is_validated_for_good_and_wrong_passwords(run_sdk, server, registry):
    found = run_sdk(
        """
        project = dl.projects.create("registries")

        def create(name, options, **given):
            return project.integrations.create(
                integrations_type=dl.IntegrationType.PRIVATE_REGISTRY, name=name, options=options, **given)

        build = project.integrations
        made = {
            "good": create("good", build.generate_azure_container_registry_options(pusher, pass_word, location=host)),
            "wrong": create("wrong", build.generate_docker_hub_options(pusher, "canary-password")),
            "google": create("google", build.generate_gar_options(service_account, "europe", email="a@b.c")),
            "amazon": create(
                "amazon", build.generate_ecr_options("any", "canary-secret", account="123456789012", region=region),
                metadata={"endpoint": aws}),
        }
        wrong = build.generate_azure_container_registry_options(pusher, "canary-password", location=host)
        made["mistyped"] = create("mistyped", wrong)
        error = error_of(create, "malformed", {"name": "n", "spec": {"password": "canary-password"}})
        told = json.dumps([entry for entry in build.list()]) + json.dumps(made["good"].to_json(), default=str)
        answer(
            organization=project.org["id"], made={name: one.id for name, one in made.items()}, error=error, told=told,
            token=dl.token(), types=[one.type for one in made.values()],
        )
        """,
        pusher=registry.username,
        pass_word=registry.password,
        host=f"http://{registry.host}",
        service_account='{"type": "service_account",\n "private_key": "canary-key"}',
        region=REGION,
        aws="https://ecr.invalid",
    )
    assert set(found["types"]) == {"private-registry"}
    assert (found["error"][0], "canary" in found["error"][1]) == ("BadRequest", False)
    assert "canary" not in found["told"]
    assert registry.password not in found["told"]

    headers = {"authorization": f"Bearer {found['token']}"}
    base = f"{server.url}/api/v1/orgs/{found['organization']}/integrations"
    with httpx.Client(headers=headers, trust_env=False) as client:
        good = client.post(f"{base}/{found['made']['good']}/validate").json()
        assert [(check["name"], check["ok"]) for check in good["checks"]] == [("login", True), ("catalog", True)]
        tags = client.get(f"{base}/{found['made']['good']}/repositories/team/app/tags").json()
        assert sorted(tags["tags"]) == ["v1", "v2"]
        mistyped = client.post(f"{base}/{found['made']['mistyped']}/validate")
        (login,) = mistyped.json()["checks"]
        assert not login["ok"]
        assert f"The registry {registry.host} does not accept the user name or password." in login["message"]
        assert "canary" not in mistyped.text
        amazon = client.post(f"{base}/{found['made']['amazon']}/validate").json()
        assert amazon["host"] == f"123456789012.dkr.ecr.{REGION}.amazonaws.com"
        assert "ecr.invalid" in amazon["checks"][0]["message"]
