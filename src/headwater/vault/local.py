"""Secrets sealed for our own database: AES-256-GCM, a key of its own for each secret, itself sealed by the master key.

Layout of a sealed secret: version (1 byte) · id of the master key (8) · nonce (12) · sealed data key (32 + 16) ·
nonce (12) · sealed text. Version 1, which is still read, has no key id. The secret's owner (for example
`integration:7`) is authenticated with both parts, so that a sealed value moved to another row does not open. Sealing
under another master key touches the data key alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headwater.vault.keys import KEY_BYTES, KEY_ID_BYTES, Keys, key_id
from headwater.vault.vaults import Kept, Place, VaultError

__all__ = ["LocalVault", "VaultError", "sealed_under"]

_NONCE_BYTES = 12
_TAG_BYTES = 16
_SEALED_KEY_BYTES = _NONCE_BYTES + KEY_BYTES + _TAG_BYTES


@dataclass(frozen=True, slots=True)
class _Parts:
    key_id: bytes  # empty in version 1
    sealed_key: bytes  # nonce first, as in the text
    sealed_text: bytes


def _parts(sealed: bytes) -> _Parts:
    """Raises VaultError."""
    key_at = {1: 1, 2: 1 + KEY_ID_BYTES}.get(sealed[0] if sealed else 0)
    if key_at is None:
        raise VaultError("This secret was sealed by a newer Headwater, or its bytes were damaged.")
    text_at = key_at + _SEALED_KEY_BYTES
    return _Parts(sealed[1:key_at], sealed[key_at:text_at], sealed[text_at:])


def sealed_under(sealed: bytes) -> str:
    """The id of the master key, in hexadecimal digits; empty where version 1 does not say it."""
    return _parts(sealed).key_id.hex()


def _seal(key: bytes, text: bytes, owner: str) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, owner.encode())


def _unseal(key: bytes, sealed: bytes, owner: str) -> bytes:
    """Raises InvalidTag, ValueError."""
    return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode())


class LocalVault:
    name = "local"

    def __init__(self, keys: Keys) -> None:
        """Raises VaultError for keys that are none."""
        self.keys = keys
        self._known = {key_id(key): key for key in keys.read()}

    def __repr__(self) -> str:
        return "LocalVault(…)"

    def current_key_id(self) -> str:
        return key_id(self.keys.read()[0]).hex()

    def has_key(self, hex_id: str) -> bool:
        """Whether that key is still one of ours, as of now."""
        return any(key_id(key).hex() == hex_id for key in self.keys.read())

    def seal(self, values: Mapping[str, str], *, owner: str) -> bytes:
        data_key = AESGCM.generate_key(bit_length=KEY_BYTES * 8)
        sealed_text = _seal(data_key, json.dumps(dict(values)).encode(), owner)
        return self._wrapped(data_key, owner) + sealed_text

    def unseal(self, sealed: bytes, *, owner: str) -> dict[str, str]:
        """Raises VaultError."""
        parts = _parts(sealed)
        try:
            return json.loads(_unseal(self._data_key(parts, owner), parts.sealed_text, owner))
        except (InvalidTag, ValueError):
            raise _unopened() from None

    def rewrap(self, sealed: bytes, *, owner: str) -> bytes:
        """The same secret under the current key. Raises VaultError."""
        parts = _parts(sealed)
        return self._wrapped(self._data_key(parts, owner), owner) + parts.sealed_text

    def _wrapped(self, data_key: bytes, owner: str) -> bytes:
        """The head of a sealed secret; keys are read anew, so that nothing is sealed under a key that is to go."""
        master_key = self.keys.read()[0]
        return b"\x02" + key_id(master_key) + _seal(master_key, data_key, owner)

    def _data_key(self, parts: _Parts, owner: str) -> bytes:
        """Raises VaultError."""
        if parts.key_id not in self._known:  # version 1, or sealed after a rotation that this process has not seen
            self._known |= {key_id(key): key for key in self.keys.read()}
        for known_id, key in list(self._known.items()):
            if parts.key_id not in (known_id, b""):
                continue
            try:
                return _unseal(key, parts.sealed_key, owner)
            except (InvalidTag, ValueError):
                continue
        raise _unopened()

    def new_place(self) -> None:
        return None

    async def keep(self, values: Mapping[str, str], *, owner: str, place: Place | None = None) -> Kept:
        assert place is None
        return Kept(owner, sealed=self.seal(values, owner=owner))

    async def open(self, kept: Kept) -> dict[str, str]:
        assert kept.sealed is not None
        return self.unseal(kept.sealed, owner=kept.owner)

    async def destroy(self, place: Place) -> None:
        raise AssertionError(f"what is sealed goes with its row, not from {place}")


def _unopened() -> VaultError:
    return VaultError(
        "The master key does not open this secret. Start with the key it was sealed with "
        "(HEADWATER_MASTER_KEY, or the file master-key in the data directory)."
    )
