"""Sealed secrets: opened by their key and their owner, and by nothing else."""

import base64
import os

import pytest

from headwater.vault.local import LocalVault, VaultError

SECRET = {"key": "AKIA-not-in-clear", "secret": "wJalr/ö🦊"}


@pytest.fixture
def vault() -> LocalVault:
    return LocalVault(os.urandom(32))


def test_what_is_sealed_opens(vault):
    for values in (SECRET, {}, {"": ""}, {"long": "x" * 100_000}):
        assert vault.open(vault.seal(values, owner="integration:7"), owner="integration:7") == values


def test_a_wrong_key_does_not_open(vault):
    sealed = vault.seal(SECRET, owner="integration:7")
    with pytest.raises(VaultError, match="master key") as told:
        LocalVault(os.urandom(32)).open(sealed, owner="integration:7")
    assert SECRET["secret"] not in str(told.value)


@pytest.mark.parametrize("owner", ["integration:8", "integration:70", "integration:", ""])
def test_a_secret_moved_to_another_owner_does_not_open(vault, owner):
    sealed = vault.seal(SECRET, owner="integration:7")
    with pytest.raises(VaultError):
        vault.open(sealed, owner=owner)


def test_no_byte_can_be_changed_or_cut_off(vault):
    sealed = vault.seal(SECRET, owner="integration:7")
    for position in range(1, len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(VaultError):
            vault.open(bytes(changed), owner="integration:7")
        with pytest.raises(VaultError):
            vault.open(sealed[:position], owner="integration:7")


def test_parts_of_two_secrets_do_not_make_a_third(vault):
    """The data key of one with the text of the other."""
    first, second = (vault.seal(SECRET | {"n": n}, owner="integration:7") for n in "12")
    text_at = 1 + 12 + 48
    with pytest.raises(VaultError):
        vault.open(first[:text_at] + second[text_at:], owner="integration:7")


def test_nothing_is_in_clear_and_nothing_repeats(vault):
    first, second = (vault.seal(SECRET, owner="integration:7") for _ in range(2))
    for text in (*SECRET, *SECRET.values()):
        assert text.encode() not in first
    assert first[1:13] != second[1:13]  # the nonces
    assert first[61:73] != second[61:73]


def test_the_master_key_is_32_bytes_in_either_alphabet():
    key = bytes(range(224, 256))
    for encoded in (base64.b64encode(key), base64.urlsafe_b64encode(key), base64.b64encode(key).rstrip(b"=")):
        assert LocalVault.from_text(encoded.decode()) == LocalVault(key)
    for bad in ("", "abc", base64.b64encode(key[:31]).decode(), base64.b64encode(key * 2).decode(), "é" * 44):
        with pytest.raises(VaultError, match="openssl rand"):
            LocalVault.from_text(bad)


def test_the_master_key_is_not_printed():
    vault = LocalVault(b"k" * 32)
    assert "kkk" not in f"{vault!r} {vault}"
