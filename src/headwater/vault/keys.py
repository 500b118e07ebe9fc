"""Master keys: 32 bytes in base64, from the environment or from a file of one key a line.

The first key seals; those below it only open, until a rotation has sealed everything anew.
"""

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence
from pathlib import Path

from headwater.keyfiles import read_or_make, write_private
from headwater.vault.vaults import VaultError

KEY_BYTES = 32
KEY_ID_BYTES = 8


def key_id(key: bytes) -> bytes:
    """A fingerprint: tells keys apart and nothing else about them."""
    return hmac.digest(key, b"headwater master key", hashlib.sha256)[:KEY_ID_BYTES]


def parse_key(text: str) -> bytes:
    """In the usual alphabet of base64 or the URL-safe one. Raises VaultError."""
    try:
        key = base64.b64decode(text.strip().replace("-", "+").replace("_", "/") + "==")
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise VaultError("The master key must be 32 bytes in base64. Make one with: openssl rand -base64 32")
    return key


class GivenKeys:
    """From the settings: as they were when this process started."""

    def __init__(self, first: str, *older: str) -> None:
        self._keys = [parse_key(text) for text in (first, *older)]

    def read(self) -> Sequence[bytes]:
        return self._keys

    def begin_rotation(self) -> None:
        """Who gave the keys has put the new one first."""

    def end_rotation(self) -> None:
        """Who gave the keys takes the old one away."""


class KeyFile:
    """Read again and again, so that running servers follow a rotation."""

    def __init__(self, path: Path, *older: str) -> None:
        self.path = path
        self._older = [parse_key(text) for text in older]

    def read(self) -> list[bytes]:
        """Made with one key if it is not there. Raises VaultError."""
        keys = [parse_key(line) for line in read_or_make(self.path).splitlines() if line.strip()]
        if not keys:
            raise VaultError(f"{self.path} holds no key. Put its back-up there, or the secrets it sealed are lost.")
        return keys + self._older

    def begin_rotation(self) -> None:
        """A new key on top, unless one is there from a rotation that was interrupted."""
        keys = self.read()
        if len(keys) == 1 + len(self._older):
            self._write([os.urandom(KEY_BYTES), *keys])

    def end_rotation(self) -> None:
        """The first key alone."""
        self._write(self.read()[:1])

    def _write(self, keys: Sequence[bytes]) -> None:
        write_private(self.path, "".join(base64.urlsafe_b64encode(key).decode() + "\n" for key in keys))


Keys = GivenKeys | KeyFile
