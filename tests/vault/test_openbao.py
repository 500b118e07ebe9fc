"""Secrets in a real OpenBao: with tokens and AppRoles, and through everything that may happen to it."""

import asyncio
import datetime as dt
import ipaddress
import logging
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from headwater.vault.openbao import Login, OpenBao
from headwater.vault.vaults import Kept, Place, VaultError
from tests import servers
from tests.vault.conftest import prepare, role_of, token_of

SECRET = {"key": "AKIA-visible-nowhere", "secret": "wJalr/ö🦊"}
OWNER = "integration:7"


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def with_token(server: servers.VaultServer, token: str | None = None, **given) -> OpenBao:
    return OpenBao(server.url, Login(token=token or token_of(server)), **given)


async def kept_by(vault: OpenBao) -> Kept:
    return await vault.keep(SECRET, owner=OWNER)


async def refusal(awaitable, says: str) -> str:
    with pytest.raises(VaultError, match=says) as told:
        await awaitable
    for text in (*SECRET.values(), "s."):
        assert text not in str(told.value).replace("docs", "")
    assert told.value.status == 503
    assert told.value.__cause__ is None
    return str(told.value)


@pytest.mark.parametrize("way", ["token", "approle"])
async def test_a_secret_is_kept_opened_and_destroyed_with_the_policy_of_the_guide(bao, way):
    vault = with_token(bao) if way == "token" else OpenBao(bao.url, role_of(bao))
    kept = await kept_by(vault)
    assert kept.sealed is None
    assert kept.place.mount == "secret"
    assert kept.place.path.startswith("headwater/")
    assert await vault.open(kept) == SECRET
    await vault.destroy(kept.place)
    await vault.destroy(kept.place)
    await refusal(vault.open(kept), "no longer there")
    listed = bao.client().secrets.kv.v2
    with pytest.raises(Exception, match="None"):
        listed.read_secret_metadata(kept.place.path, mount_point="secret")
    await vault.close()


async def test_the_policy_allows_nothing_else(bao):
    vault = with_token(bao, prefix="others")
    await refusal(kept_by(vault), "policy does not allow")
    await refusal(with_token(bao).open(Kept(OWNER, place=Place("secret", "others/x"))), "policy does not allow")


async def test_each_secret_has_a_place_of_its_own_and_none_is_written_twice(bao):
    vault = with_token(bao)
    first, second = await kept_by(vault), await kept_by(vault)
    assert first.place != second.place
    await refusal(vault.keep(SECRET, owner=OWNER, place=first.place), "policy|did not do")
    assert await vault.open(first) == SECRET


async def test_a_secret_does_not_open_for_another(bao):
    vault = with_token(bao)
    kept = await kept_by(vault)
    await refusal(vault.open(Kept("integration:8", place=kept.place)), "belongs to something else")
    bao.client().secrets.kv.v2.create_or_update_secret(kept.place.path, {"a": "b"}, mount_point="secret")
    await refusal(vault.open(kept), "did not put there")


async def test_mount_and_prefix_are_settings_and_an_old_place_is_still_found(bao):
    bao.client().sys.enable_secrets_engine("kv", "team/kv", options={"version": "2"})
    try:
        old = await kept_by(with_token(bao))
        vault = OpenBao(bao.url, Login(token=bao.root_token), mount="/team/kv/", prefix="a/b")
        kept = await kept_by(vault)
        assert (kept.place.mount, kept.place.path.rpartition("/")[0]) == ("team/kv", "a/b")
        assert await vault.open(kept) == await vault.open(old) == SECRET
    finally:
        bao.client().sys.disable_secrets_engine("team/kv")
    await refusal(vault.open(kept), "no KV engine is mounted at team/kv/")
    await refusal(kept_by(vault), "no KV engine is mounted at team/kv/")


async def test_an_engine_of_version_1_is_named_as_such(bao):
    bao.client().sys.enable_secrets_engine("kv", "old", options={"version": "1"})
    vault = OpenBao(bao.url, Login(token=bao.root_token), mount="old")
    await refusal(kept_by(vault), "not a KV engine of version 2")


@pytest.mark.parametrize("login", [
    Login(token="s.wrong"),
    Login(role_id="wrong", secret_id="wrong"),
])  # fmt: skip
async def test_a_wrong_login_is_named_as_such(bao, login):
    name = "HEADWATER_VAULT_ROLE_ID" if login.is_role else "HEADWATER_VAULT_TOKEN"
    vault = OpenBao(bao.url, login)
    told = await refusal(kept_by(vault), name)
    assert "wrong-or" not in told
    await refusal(vault.check(), name)


async def test_a_revoked_token_ends_a_role_not(bao):
    vault, other = OpenBao(bao.url, role_of(bao)), with_token(bao)
    kept = await kept_by(vault)
    assert await other.open(kept) == SECRET
    for one in (vault, other):
        bao.client().auth.token.revoke(one._client.token)
    assert await vault.open(kept) == SECRET
    await refusal(other.open(kept), "HEADWATER_VAULT_TOKEN, which is wrong or has ended")


async def test_many_at_once_log_in_once(bao):
    vault = OpenBao(bao.url, role_of(bao, token_ttl="1h", secret_id_num_uses=2))
    kept = await kept_by(vault)
    bao.client().auth.token.revoke(vault._client.token)
    assert await asyncio.gather(*(vault.open(kept) for _ in range(20))) == [SECRET] * 20


async def test_a_token_is_renewed_before_it_ends_and_not_with_every_call(bao):
    clock = Clock()
    token = token_of(bao, ttl="30m", explicit_max_ttl="0")
    vault = with_token(bao, token, clock=clock)
    kept = await kept_by(vault)

    def renewed_at() -> int | None:
        return bao.client(token).auth.token.lookup_self()["data"].get("last_renewal_time")

    first = renewed_at()
    clock.now_s += 60
    await vault.open(kept)
    bao.client().auth.token.renew(token, increment="10s")  # what the vault does must not be a matter of ours
    assert bao.client(token).auth.token.lookup_self()["data"]["ttl"] <= 10
    await vault.open(kept)
    assert bao.client(token).auth.token.lookup_self()["data"]["ttl"] <= 10
    clock.now_s += 20 * 60
    await vault.open(kept)
    assert bao.client(token).auth.token.lookup_self()["data"]["ttl"] > 10 * 60
    assert renewed_at() >= first


async def test_a_role_whose_token_nears_its_longest_life_logs_in_anew(bao):
    clock = Clock()
    vault = OpenBao(bao.url, role_of(bao, token_ttl="40s", token_max_ttl="60s"), clock=clock)
    kept = await kept_by(vault)
    first = vault._client.token
    bao.client().auth.token.renew(first, increment="1s")
    # Renewed for what is left of its life, which the role has set to less than half of what the token began with.
    bao.client().auth.approle.create_or_update_approle("headwater", token_max_ttl="10s", token_ttl="5s")
    clock.now_s += 3600
    assert await vault.open(kept) == SECRET
    assert vault._client.token != first
    longer = {"token_policies": ["headwater"], "token_ttl": "1h", "token_max_ttl": "2h"}
    bao.client().auth.approle.create_or_update_approle("headwater", **longer)


async def test_a_token_in_its_last_second_is_not_taken_for_one_without_an_end(bao):
    clock = Clock()
    token = token_of(bao, ttl="1h")
    vault = with_token(bao, token, clock=clock)
    bao.client().auth.token.renew(token, increment="1s")
    kept = await kept_by(vault)  # the lease that it looks up is rounded down to 0
    assert vault._renew_at_s < clock.now_s + 3600
    assert bao.client(token).auth.token.lookup_self()["data"]["ttl"] > 60
    root = with_token(bao, bao.root_token, clock=clock)
    assert await root.open(kept) == SECRET
    assert root._renew_at_s == float("inf")


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - of another server
        await asyncio.sleep(0.01)


async def test_an_idle_token_is_renewed_in_the_background(bao, monkeypatch):
    monkeypatch.setattr("headwater.vault.openbao._LOOK_AGAIN_S", 0.01)
    clock = Clock()
    token = token_of(bao, ttl="1h")

    def left_s() -> int:
        return bao.client(token).auth.token.lookup_self()["data"]["ttl"]

    vault = with_token(bao, token, clock=clock)
    first = asyncio.create_task(vault.stay_logged_in())
    await until(lambda: vault._renew_at_s > clock.now_s)
    bao.client().auth.token.renew(token, increment="20s")
    assert left_s() <= 20
    clock.now_s += 3600
    again = asyncio.create_task(vault.stay_logged_in())  # the first one sleeps by the clock of the machine
    await until(lambda: left_s() > 20)
    for task in (first, again):
        task.cancel()
    await asyncio.gather(first, again, return_exceptions=True)


async def test_sealed_unsealed_restarted_and_gone(tmp_path):
    (port,) = servers.free_ports(1)
    with servers.openbao(tmp_path / "openbao", lasting_port=port) as server:
        prepare(server)
        vault = OpenBao(server.url, role_of(server))
        kept = await kept_by(vault)
        server.seal()
        await refusal(vault.open(kept), "it is sealed. Unseal it")
        await refusal(OpenBao(server.url, role_of_nobody()).check(), "it is sealed. Unseal it")
        server.unseal()
        assert await vault.open(kept) == SECRET
    await refusal(vault.open(kept), "does not answer")
    with servers.openbao(tmp_path / "openbao", lasting_port=port):
        assert await vault.open(kept) == SECRET


def role_of_nobody() -> Login:
    return Login(role_id="a", secret_id="b")


async def test_a_server_that_is_no_vault_is_named_as_such(weed, bao):
    vault = OpenBao(weed.endpoint, Login(token="s.token"))
    await refusal(kept_by(vault), "cannot be used")
    await refusal(OpenBao("http://127.0.0.1:1", Login(token="s.token")).check(), "does not answer")


async def test_a_certificate_is_checked_against_the_authority_of_the_setting(tmp_path):
    pem = tmp_path / "vault.pem"
    pem.write_bytes(self_signed())
    with servers.openbao(tmp_path / "openbao", certificate=pem) as server:
        prepare(server)
        vault = with_token(server, ca_file=pem)
        assert await vault.open(await kept_by(vault)) == SECRET
        await refusal(kept_by(with_token(server)), "HEADWATER_VAULT_CA_FILE")


def self_signed() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(alternative, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + private


@pytest.mark.parametrize(("url", "login", "given", "says"), [
    ("vault.example.org", Login(token="t"), {}, "HEADWATER_VAULT_URL"),
    ("http://user:pw@host", Login(token="t"), {}, "HEADWATER_VAULT_URL"),
    ("ftp://host", Login(token="t"), {}, "HEADWATER_VAULT_URL"),
    ("http://host", Login(), {}, "HEADWATER_VAULT_TOKEN"),
    ("http://host", Login(token="t", role_id="r"), {}, "HEADWATER_VAULT_TOKEN"),
    ("http://host", Login(token="t", secret_id="r"), {}, "HEADWATER_VAULT_TOKEN"),
    ("http://host", Login(token="t"), {"mount": "/"}, "HEADWATER_VAULT_MOUNT"),
    ("http://host", Login(token="t"), {"prefix": "a/../b"}, "HEADWATER_VAULT_PREFIX"),
])  # fmt: skip
def test_settings_that_cannot_be_right_are_told_at_the_start(url, login, given, says):
    with pytest.raises(VaultError, match=says) as told:
        OpenBao(url, login, **given)
    assert "pw" not in str(told.value)


async def test_nothing_is_taken_from_the_environment_or_printed(bao, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("VAULT_TOKEN", bao.root_token)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("VAULT_ADDR", bao.url)
    with caplog.at_level(logging.DEBUG):
        await refusal(OpenBao(bao.url, role_of_nobody()).check(), "HEADWATER_VAULT_ROLE_ID")
        vault = OpenBao(bao.url, role_of(bao))
        kept = await kept_by(vault)
        await vault.open(kept)
    shown = repr(vault) + repr(vault._login) + repr(kept) + caplog.text
    assert "/v1/secret/data/headwater/" in shown
    for secret in (vault._login.secret_id, vault._client.token, *SECRET.values()):
        assert secret not in shown
