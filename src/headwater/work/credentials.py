"""Credentials for stores, made from the secrets of integrations, and made again when these are changed."""

import asyncio
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Generic, TypeVar

import psycopg
from psycopg_pool import PoolTimeout

from headwater.catalog import integrations
from headwater.db.pool import Pool
from headwater.storage.sending import CredentialsProvider
from headwater.vault.both import Vaults

C = TypeVar("C")
_LOOK_AGAIN_AFTER_S = 5.0  # so long a changed secret may stay unnoticed


class Secrets:
    """Reads the secrets of integrations as they are now.

    On connections of its own: a store is also asked while a transaction is open, whose connections must not wait for
    each other.
    """

    def __init__(self, pool: Pool, vault: Vaults) -> None:
        self._pool = pool
        self._vault = vault

    async def read(self, integration_id: int) -> dict[str, str]:
        """Raises NotFound, VaultError, Unavailable."""
        async with self._pool.connection() as conn:
            kept = await integrations.kept_secret(conn, integration_id)
        return {} if kept is None else await self._vault.open(kept)

    async def changed_at(self, integration_id: int) -> datetime | None:
        async with self._pool.connection() as conn:
            return await integrations.changed_at(conn, integration_id)

    def follow(
        self, integration_id: int, make: Callable[[Mapping[str, str]], CredentialsProvider[C]]
    ) -> CredentialsProvider[C]:
        """A provider that lasts: `make` turns a secret into one, and is asked again when the secret has changed."""
        return _Followed(self, integration_id, make)


class _Followed(Generic[C]):
    def __init__(
        self, secrets: Secrets, integration_id: int, make: Callable[[Mapping[str, str]], CredentialsProvider[C]]
    ) -> None:
        self._secrets = secrets
        self._integration_id = integration_id
        self._make = make
        self._made: CredentialsProvider[C] | None = None
        self._changed_at: datetime | None = None
        self._looked_s = -_LOOK_AGAIN_AFTER_S
        self._turn = asyncio.Lock()

    async def __call__(self, anew: bool) -> C:
        return await (await self._current(anew))(anew)

    async def _current(self, anew: bool) -> CredentialsProvider[C]:
        if self._made is not None and not anew and time.monotonic() - self._looked_s < _LOOK_AGAIN_AFTER_S:
            return self._made
        async with self._turn:
            try:
                await self._look()
            except (psycopg.OperationalError, PoolTimeout):
                if self._made is None:
                    raise
            assert self._made is not None
            return self._made

    async def _look(self) -> None:
        changed_at = await self._secrets.changed_at(self._integration_id)
        if self._made is None or changed_at != self._changed_at:
            self._made = self._make(await self._secrets.read(self._integration_id))
            self._changed_at = changed_at
        self._looked_s = time.monotonic()
