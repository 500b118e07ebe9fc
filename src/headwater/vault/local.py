"""Secrets sealed in PostgreSQL: AES-256-GCM, a key of its own for each secret, itself sealed by the master key.

Layout of a sealed secret: version (1 byte) · nonce (12) · sealed data key (32 + 16) · nonce (12) · sealed text.
The secret's owner (for example `integration:7`) is authenticated with it, so that a sealed value moved to another row
does not open.
"""

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from headwater.errors import HeadwaterError

_VERSION = b"\x01"
_NONCE_BYTES = 12
_KEY_BYTES = 32
_TAG_BYTES = 16


class VaultError(HeadwaterError):
    """The master key does not open what is stored."""


@dataclass(frozen=True, slots=True)
class LocalVault:
    master_key: bytes

    def __repr__(self) -> str:
        return "LocalVault(…)"

    @classmethod
    def from_text(cls, key: str) -> "LocalVault":
        """`key` is 32 bytes in base64, the usual or the URL-safe alphabet. Raises VaultError."""
        try:
            master_key = base64.b64decode(key.replace("-", "+").replace("_", "/") + "==")
        except (binascii.Error, ValueError):
            master_key = b""
        if len(master_key) != _KEY_BYTES:
            raise VaultError("The master key must be 32 bytes in base64. Make one with: openssl rand -base64 32")
        return cls(master_key)

    def seal(self, values: Mapping[str, str], *, owner: str) -> bytes:
        data_key = AESGCM.generate_key(bit_length=_KEY_BYTES * 8)
        key_nonce, text_nonce = os.urandom(_NONCE_BYTES), os.urandom(_NONCE_BYTES)
        sealed_key = AESGCM(self.master_key).encrypt(key_nonce, data_key, owner.encode())
        sealed_text = AESGCM(data_key).encrypt(text_nonce, json.dumps(dict(values)).encode(), owner.encode())
        return _VERSION + key_nonce + sealed_key + text_nonce + sealed_text

    def open(self, sealed: bytes, *, owner: str) -> dict[str, str]:
        """Raises VaultError."""
        key_at = 1 + _NONCE_BYTES
        nonce_at = key_at + _KEY_BYTES + _TAG_BYTES
        text_at = nonce_at + _NONCE_BYTES
        try:
            data_key = AESGCM(self.master_key).decrypt(sealed[1:key_at], sealed[key_at:nonce_at], owner.encode())
            text = AESGCM(data_key).decrypt(sealed[nonce_at:text_at], sealed[text_at:], owner.encode())
        except (InvalidTag, ValueError):
            raise VaultError(
                "The master key does not open this secret. Start with the key it was sealed with "
                "(HEADWATER_MASTER_KEY, or the file master-key in the data directory)."
            ) from None
        return json.loads(text)
