"""From where a log-in comes: the connection says it, or a proxy that the operator trusts."""

from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from headwater.settings import Settings
from tests.conftest import RunningServer, start_server, stop_server


def fail(server: RunningServer, email: str, forwarded: list[str]) -> list[int]:
    """Statuses of log-ins that say to come from these addresses."""
    body = {"username": email, "password": "wrong password"}
    with httpx.Client(trust_env=False) as client:
        return [
            client.post(f"{server.url}/token", json=body, headers={"x-forwarded-for": address}).status_code
            for address in forwarded
        ]


def test_what_a_client_says_of_its_own_address_does_not_count(server: RunningServer) -> None:
    addresses = [f"198.51.100.{number}" for number in range(11)]
    assert fail(server, "forwarded@headwater.test", addresses) == [401] * 10 + [429]


def test_what_a_trusted_proxy_says_counts_and_what_it_was_told_does_not(tmp_path: Path) -> None:
    server = start_server(tmp_path / "headwater", HEADWATER_TRUSTED_PROXIES="127.0.0.0/8, ::1")
    try:
        one, other = "203.0.113.9, 198.51.100.1", "203.0.113.9, 198.51.100.2"  # the first was made up by the client
        assert fail(server, "a@headwater.test", [one] * 11 + [other]) == [401] * 10 + [429, 401]
    finally:
        assert stop_server(server) == 0


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"trusted_proxies": "proxy.example.org"}, "does not appear to be an IPv4 or IPv6 network"),
        ({"trusted_proxies": "10.0.0.1/8"}, "host bits set"),
        ({"trusted_proxies": "*"}, "does not appear to be"),
        ({"oidc_issuer": "https://login.example.org"}, "need one another"),
        ({"oidc_client_id": "headwater"}, "need one another"),
        ({"oidc_issuer": "login.example.org", "oidc_client_id": "headwater"}, "begins with https://"),
    ],
)
def test_settings_that_cannot_be_are_told(given: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(**given)  # pyright: ignore[reportArgumentType] as the environment gives them
    [problem] = refused.value.errors()
    assert told in problem["msg"]
    assert problem["loc"]
