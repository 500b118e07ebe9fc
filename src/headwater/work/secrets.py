"""Integrations and their secrets: made, changed and deleted so that vault and database never lose each other.

The vault is asked while no connection is held. A secret for an outside vault is written down before it goes there, in
a transaction that also holds the job to clean up after us; one that is no longer referred to is destroyed by a job.
"""

import hmac
import json
from collections.abc import Mapping
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import integrations, organizations, secrets, webhooks
from headwater.catalog.accounts import Account
from headwater.catalog.integrations import Integration, NewIntegration
from headwater.catalog.secrets import Reserved
from headwater.db.pool import Pool
from headwater.errors import Conflict
from headwater.net.addresses import check_endpoint
from headwater.settings import Settings
from headwater.vault.both import Vaults
from headwater.vault.local import LocalVault
from headwater.vault.vaults import Kept, Place
from headwater.work import trust
from headwater.work.places import checked_folder, folder_of
from headwater.work.workplace import Workplace

DROP_UNUSED_TASK = "drop_unused_secret"
DESTROY_TASK = "destroy_secret"
_CLEAN_UP_AFTER_S = 3600  # no request lives as long
_DESTROY_AFTER_S = 60  # who has just read where a secret is may still open it


async def create_integration(
    place: Workplace,
    settings: Settings,
    caller: Account,
    organization_id: int,
    *,
    name: str,
    kind: str,
    options: Mapping[str, Any],
    metadata: Mapping[str, Any],
) -> Integration:
    """The same one again is the one that is there. Raises NotFound, Forbidden, BadRequest, Conflict, Unavailable."""
    pool, vault = place.pool, place.vault
    async with pool.connection() as conn:
        await _allowed(conn, caller, organization_id)
        new = integrations.check_new(name=name, kind=kind, options=options, metadata=metadata)
        _check_place(settings, new.kind, new.metadata)
        place.places.clouds.check_secret(new.kind, new.secret)
        known = await integrations.find_by_name(conn, organization_id, new.name)
        integration_id = await integrations.new_id(conn)
        reserved = await reserve(conn, vault) if new.secret and known is None else Reserved()
    if known is not None:
        return await _the_same(pool, vault, known, new)
    trusted = await trust.introduce(place.places.clouds, new.kind)
    if new.secret:
        region = new.metadata.get("region")
        trusted = await trust.prove(place.places.clouds, new.kind, trusted, region, new.secret)
    kept = await _keep(vault, reserved, new.secret, integration_id)
    try:
        async with pool.connection() as conn:
            await _allowed(conn, caller, organization_id)
            secret_id = None if kept is None else await secrets.insert(conn, vault.local, reserved, kept)
            return await integrations.insert_integration(
                conn, caller, organization_id, integration_id, new, secret_id, trusted
            )
    except Conflict:  # another request was quicker: the same one, perhaps
        async with pool.connection() as conn:
            known = await integrations.find_by_name(conn, organization_id, new.name)
        if known is None:
            raise
        return await _the_same(pool, vault, known, new)


async def _allowed(conn: AsyncConnection[Any], caller: Account, organization_id: int) -> None:
    """Raises NotFound, Forbidden."""
    await organizations.get_organization(conn, caller, organization_id, "manage_integrations")


def _check_place(settings: Settings, kind: str, metadata: dict[str, Any]) -> None:
    """Where the integration leads is somewhere this server may go. Raises BadRequest."""
    if kind in ("hostPath", "nfs"):
        checked_folder(settings, folder_of(settings, kind, metadata))
    for name in ("endpoint", "stsEndpoint", "authority"):
        if metadata.get(name):
            check_endpoint(metadata[name], allow_private=settings.allow_private_endpoints)


async def reserve(conn: AsyncConnection[Any], vault: Vaults) -> Reserved:
    reserved = await secrets.reserve(conn, vault)
    if reserved.secret_id is not None:
        await queue.defer(conn, DROP_UNUSED_TASK, after_s=_CLEAN_UP_AFTER_S, secret_id=reserved.secret_id)
    return reserved


async def _keep(
    vault: Vaults, reserved: Reserved, secret: Mapping[str, str] | None, integration_id: int
) -> Kept | None:
    if not secret:
        return None
    return await vault.keep(secret, owner=integrations.owner_of(integration_id), place=reserved.place)


async def _the_same(pool: Pool, vault: Vaults, known: Integration, new: NewIntegration) -> Integration:
    """The one that is there, if a repeated request asks for it. Raises Conflict, VaultError."""
    conflict = integrations.differing(known, new)
    if conflict is not None:
        raise conflict
    if new.secret and not _is_equal(await _opened(pool, vault, known.id), new.secret):
        raise integrations.taken(new.name)
    return known


async def _opened(pool: Pool, vault: Vaults, integration_id: int) -> dict[str, str]:
    async with pool.connection() as conn:
        kept = await integrations.kept_secret(conn, integration_id)
    return {} if kept is None else await vault.open(kept)


def _is_equal(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """In the same time, wherever they differ."""
    texts = [json.dumps(values, sort_keys=True).encode() for values in (one, other)]
    return hmac.compare_digest(*texts)


async def change_integration(
    place: Workplace,
    settings: Settings,
    caller: Account,
    organization_id: int,
    integration_id: int,
    *,
    name: str | None,
    kind: str | None,
    options: Mapping[str, Any] | None,
    metadata: Mapping[str, Any] | None,
) -> Integration:
    """What is None stays; options and metadata are replaced whole. The kind only has to be right, where it is given.

    Raises NotFound, Forbidden, BadRequest, Conflict, Unavailable.
    """
    vault = place.vault
    async with place.pool.connection() as conn:
        await _allowed(conn, caller, organization_id)
        found = await integrations.get_integration(conn, organization_id, integration_id)
        change = integrations.check_change(found, name=name, kind=kind, options=options, metadata=metadata)
        if not change.words():
            return found
        if change.metadata is not None:
            _check_place(settings, found.kind, change.metadata)
        if change.secret:
            place.places.clouds.check_secret(found.kind, change.secret)
        reserved = await reserve(conn, vault) if change.secret else Reserved()
    trusted = None
    if change.secret:
        region = found.metadata.get("region")
        trusted = await trust.prove(place.places.clouds, found.kind, found.trust, region, change.secret)
    kept = await _keep(vault, reserved, change.secret, integration_id)
    async with place.pool.connection() as conn:
        await _allowed(conn, caller, organization_id)
        secret_id = None if kept is None else await secrets.insert(conn, vault.local, reserved, kept)
        replaced = await integrations.change_integration(conn, caller, found, change, secret_id, trusted)
        await destroy_later(conn, replaced, after_s=_DESTROY_AFTER_S)
        return await integrations.get_integration(conn, organization_id, integration_id)


async def delete_integration(conn: AsyncConnection[Any], caller: Account, found: Integration) -> None:
    """Raises Conflict while a driver uses it."""
    await destroy_later(conn, await integrations.delete_integration(conn, caller, found))


async def destroy_later(conn: AsyncConnection[Any], gone: Place | None, *, after_s: int = 0) -> None:
    if gone is not None:
        await queue.defer(conn, DESTROY_TASK, after_s=after_s, mount=gone.mount, path=gone.path)


async def drop_unused(place: Workplace, secret_id: int) -> None:
    """What a request that broke off has left. Safe to repeat."""
    async with place.pool.connection() as conn:
        await destroy_later(conn, await secrets.delete_unused(conn, secret_id))


async def destroy(place: Workplace, *, mount: str, path: str) -> None:
    """Every version in the outside vault; its row is gone already. Safe to repeat. Raises VaultError."""
    await place.vault.destroy(Place(mount, path))


async def move(pool: Pool, vault: Vaults, *, to_outside: bool) -> int:
    """Bring every secret to the outside vault, or home from it. Returns how many moved.

    One after the other, each whole or not at all: safe to interrupt, to repeat, and beside running servers. One that is
    changed meanwhile goes where the server that changes it puts it. Raises VaultError.
    """
    target = vault if to_outside else Vaults(vault.local)
    moved = 0
    async with pool.connection() as conn:
        found = await secrets.list_to_move(conn, to_outside=to_outside)
    for owner, secret_id in found:
        async with pool.connection() as conn:
            kept = await secrets.find_kept(conn, secret_id, owner)
        if kept is None:
            continue
        values = await vault.open(kept)
        async with pool.connection() as conn:
            reserved = await reserve(conn, target)
        kept = await target.keep(values, owner=owner, place=reserved.place)
        async with pool.connection() as conn:
            new_secret_id = await secrets.insert(conn, vault.local, reserved, kept)
            is_there = await _replace(conn, owner, secret_id, new_secret_id)
            left = await secrets.delete(conn, secret_id if is_there else new_secret_id)
            await destroy_later(conn, left, after_s=_DESTROY_AFTER_S)
            moved += is_there
    return moved


async def _replace(conn: AsyncConnection[Any], owner: str, before_id: int, secret_id: int) -> bool:
    """Returns whether the owner still had the one before."""
    noun, _, number = owner.partition(":")
    if noun == "webhook":
        return await webhooks.replace_secret(conn, int(number), before_id, secret_id)
    return await integrations.replace_secret(conn, int(number), before_id, secret_id)


async def rotate(pool: Pool, vault: LocalVault) -> int:
    """Seal every secret under a new master key, or under the current one where it was given from outside.

    Returns how many were under another. In batches; safe to interrupt, to repeat, and beside running servers, who read
    the key file when they meet a key that they do not know. Raises Conflict beside another rotation, VaultError.
    """
    async with pool.connection() as guard:
        await secrets.guard_rotation(guard)
        vault.keys.begin_rotation()
        sealed_anew = await _rewrap_all(pool, vault)
        while left := await _let_old_keys_go(pool, vault):
            sealed_anew += left
    return sealed_anew


async def _rewrap_all(pool: Pool, vault: LocalVault) -> int:
    count, last_id = 0, 0
    while last_id is not None:
        async with pool.connection() as conn:
            last_id, rewrapped = await secrets.rewrap_some(conn, vault, after_id=last_id)
            count += rewrapped
    return count


async def _let_old_keys_go(pool: Pool, vault: LocalVault) -> int:
    """With the table locked, so that nothing sealed by them is on its way. Returns how many still needed them."""
    async with pool.connection() as conn:
        await secrets.lock(conn)
        count, last_id = 0, 0
        while last_id is not None:
            last_id, rewrapped = await secrets.rewrap_some(conn, vault, after_id=last_id)
            count += rewrapped
        if not count:
            vault.keys.end_rotation()
    return count
