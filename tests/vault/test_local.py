"""Sealed secrets: opened by their key and their owner, and by nothing else; and keys that change below them."""

import base64
import os
import stat

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headwater.vault.keys import GivenKeys, KeyFile, key_id, parse_key
from headwater.vault.local import LocalVault, VaultError, sealed_under

SECRET = {"key": "AKIA-not-in-clear", "secret": "wJalr/ö🦊"}
OWNER = "integration:7"
HEAD = 1 + 8  # version and key id


def text_of(key: bytes) -> str:
    return base64.b64encode(key).decode()


def vault_of(*keys: bytes) -> LocalVault:
    return LocalVault(GivenKeys(*map(text_of, keys)))


@pytest.fixture
def key() -> bytes:
    return os.urandom(32)


@pytest.fixture
def vault(key) -> LocalVault:
    return vault_of(key)


def sealed_by_version_1(key: bytes, text: bytes = b'{"key": "old"}') -> bytes:
    """As Headwater 0.1 wrote it."""
    data_key = os.urandom(32)
    nonces = os.urandom(12), os.urandom(12)
    sealed_key = AESGCM(key).encrypt(nonces[0], data_key, OWNER.encode())
    return b"\x01" + nonces[0] + sealed_key + nonces[1] + AESGCM(data_key).encrypt(nonces[1], text, OWNER.encode())


def test_what_is_sealed_opens(vault):
    for values in (SECRET, {}, {"": ""}, {"long": "x" * 100_000}):
        assert vault.unseal(vault.seal(values, owner=OWNER), owner=OWNER) == values


def test_what_the_first_version_sealed_opens(key):
    assert vault_of(key).unseal(sealed_by_version_1(key), owner=OWNER) == {"key": "old"}
    assert vault_of(os.urandom(32), key).unseal(sealed_by_version_1(key), owner=OWNER) == {"key": "old"}
    with pytest.raises(VaultError):
        vault_of(os.urandom(32)).unseal(sealed_by_version_1(key), owner=OWNER)


def test_a_wrong_key_does_not_open(vault):
    sealed = vault.seal(SECRET, owner=OWNER)
    with pytest.raises(VaultError, match="master key") as told:
        vault_of(os.urandom(32)).unseal(sealed, owner=OWNER)
    assert SECRET["secret"] not in str(told.value)
    assert told.value.status == 503


@pytest.mark.parametrize("owner", ["integration:8", "integration:70", "integration:", ""])
def test_a_secret_moved_to_another_owner_does_not_open(vault, owner):
    sealed = vault.seal(SECRET, owner=OWNER)
    with pytest.raises(VaultError):
        vault.unseal(sealed, owner=owner)
    with pytest.raises(VaultError):
        vault.rewrap(sealed, owner=owner)


def test_no_byte_can_be_changed_or_cut_off(key, vault):
    for sealed in (vault.seal(SECRET, owner=OWNER), sealed_by_version_1(key)):
        for position in range(len(sealed)):
            changed = bytearray(sealed)
            changed[position] ^= 1
            with pytest.raises(VaultError):
                vault.unseal(bytes(changed), owner=OWNER)
            with pytest.raises(VaultError):
                vault.unseal(sealed[:position], owner=OWNER)


def test_parts_of_two_secrets_do_not_make_a_third(vault):
    """The data key of one with the text of the other."""
    first, second = (vault.seal(SECRET | {"n": n}, owner=OWNER) for n in "12")
    text_at = HEAD + 12 + 48
    with pytest.raises(VaultError):
        vault.unseal(first[:text_at] + second[text_at:], owner=OWNER)


def test_nothing_is_in_clear_and_nothing_repeats(vault):
    first, second = (vault.seal(SECRET, owner=OWNER) for _ in range(2))
    for text in (*SECRET, *SECRET.values()):
        assert text.encode() not in first
    assert first[HEAD : HEAD + 12] != second[HEAD : HEAD + 12]  # the nonces
    assert first[HEAD + 60 : HEAD + 72] != second[HEAD + 60 : HEAD + 72]


def test_a_sealed_secret_names_its_key_and_says_nothing_of_it(key, vault):
    sealed = vault.seal(SECRET, owner=OWNER)
    assert sealed_under(sealed) == key_id(key).hex() == vault.current_key_id()
    assert key_id(key) not in key
    assert key_id(key) != key_id(os.urandom(32))
    assert sealed_under(sealed_by_version_1(key)) == ""


def test_the_master_key_is_32_bytes_in_either_alphabet():
    key = bytes(range(224, 256))
    for encoded in (base64.b64encode(key), base64.urlsafe_b64encode(key), base64.b64encode(key).rstrip(b"=")):
        assert parse_key(encoded.decode()) == key
    for bad in ("", "abc", base64.b64encode(key[:31]).decode(), base64.b64encode(key * 2).decode(), "é" * 44):
        with pytest.raises(VaultError, match="openssl rand"):
            parse_key(bad)


def test_the_master_key_is_not_printed():
    vault = vault_of(b"k" * 32)
    assert "kkk" not in f"{vault!r} {vault} {vault.keys!r}"


def test_sealing_anew_changes_the_key_and_leaves_the_text(key):
    new = os.urandom(32)
    for sealed in (vault_of(key).seal(SECRET, owner=OWNER), sealed_by_version_1(key)):
        again = vault_of(new, key).rewrap(sealed, owner=OWNER)
        assert sealed_under(again) == key_id(new).hex()
        assert vault_of(new).unseal(again, owner=OWNER) == vault_of(key).unseal(sealed, owner=OWNER)
        assert again[-30:] == sealed[-30:]
        with pytest.raises(VaultError):
            vault_of(key).unseal(again, owner=OWNER)


class TestKeyFile:
    """A server that runs while its operator rotates."""

    def test_it_is_made_once_and_only_its_owner_reads_it(self, tmp_path):
        path = tmp_path / "data" / "master-key"
        first = KeyFile(path).read()
        assert KeyFile(path).read() == first
        KeyFile(path).begin_rotation()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [left.name for left in path.parent.iterdir()] == ["master-key"]

    def test_a_running_server_seals_under_the_new_key_at_once_and_opens_both(self, tmp_path):
        operators = KeyFile(tmp_path / "master-key")
        server = LocalVault(KeyFile(tmp_path / "master-key"))
        old = server.seal(SECRET, owner=OWNER)
        operators.begin_rotation()
        new = server.seal(SECRET, owner=OWNER)
        assert sealed_under(new) != sealed_under(old)
        assert server.unseal(old, owner=OWNER) == server.unseal(new, owner=OWNER) == SECRET

    def test_a_running_server_opens_what_another_process_sealed_anew(self, tmp_path):
        server = LocalVault(KeyFile(tmp_path / "master-key"))
        sealed = server.seal(SECRET, owner=OWNER)
        operators = LocalVault(KeyFile(tmp_path / "master-key"))
        operators.keys.begin_rotation()
        again = operators.rewrap(sealed, owner=OWNER)
        operators.keys.end_rotation()
        assert server.unseal(again, owner=OWNER) == SECRET
        with pytest.raises(VaultError):
            LocalVault(KeyFile(tmp_path / "master-key")).unseal(sealed, owner=OWNER)

    def test_an_interrupted_rotation_goes_on_with_its_key(self, tmp_path):
        file = KeyFile(tmp_path / "master-key")
        old = file.read()
        file.begin_rotation()
        begun = file.read()
        file.begin_rotation()
        assert file.read() == begun == [begun[0], *old]
        file.end_rotation()
        assert file.read() == begun[:1]

    def test_a_key_given_besides_only_opens(self, tmp_path, key):
        """HEADWATER_MASTER_KEY_OLD with the file: from a key of the environment to one of a file."""
        file = KeyFile(tmp_path / "master-key", text_of(key))
        vault = LocalVault(file)
        assert vault.unseal(vault_of(key).seal(SECRET, owner=OWNER), owner=OWNER) == SECRET
        assert sealed_under(vault.seal(SECRET, owner=OWNER)) == key_id(file.read()[0]).hex() != key_id(key).hex()
        file.begin_rotation()
        file.end_rotation()
        assert key not in KeyFile(file.path).read()

    def test_an_empty_file_is_not_filled_with_another_key(self, tmp_path):
        path = tmp_path / "master-key"
        path.write_text("\n")
        with pytest.raises(VaultError, match="back-up"):
            KeyFile(path).read()
