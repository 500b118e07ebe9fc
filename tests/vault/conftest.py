"""One OpenBao for all tests of this folder that leave it as it is, and what those need in it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater.vault.openbao import Login
from tests import servers

GUIDE = Path(__file__).parents[2] / "docs/guide/vault.md"


def policy() -> str:
    """The one that the guide tells people to set."""
    return re.findall(r"```hcl\n(.*?)```", GUIDE.read_text(), re.DOTALL)[0]


def prepare(server: servers.VaultServer) -> None:
    """As the guide says."""
    client = server.client()
    client.sys.create_or_update_policy("headwater", policy())
    client.auth.approle.create_or_update_approle("headwater", token_policies=["headwater"], token_ttl="1h")


def token_of(server: servers.VaultServer, **given: object) -> str:
    made = server.client().auth.token.create(**({"policies": ["headwater"], "ttl": "1h"} | given))
    return made["auth"]["client_token"]


def role_of(server: servers.VaultServer, **given: object) -> Login:
    approle = server.client().auth.approle
    if given:
        approle.create_or_update_approle("headwater", **({"token_policies": ["headwater"]} | given))
    role_id = approle.read_role_id("headwater")["data"]["role_id"]
    return Login(role_id=role_id, secret_id=approle.generate_secret_id("headwater")["data"]["secret_id"])


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.VaultServer]:
    with servers.openbao(tmp_path_factory.mktemp("openbao")) as server:
        prepare(server)
        yield server


@pytest.fixture
def own_bao(tmp_path: Path) -> Iterator[servers.VaultServer]:
    """One to break, or to count in."""
    with servers.openbao(tmp_path / "openbao") as server:
        prepare(server)
        yield server
