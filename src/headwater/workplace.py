"""Puts together what routes and jobs work with: the database, the vault, the stores, the decoders."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from headwater.db.pool import make_pool
from headwater.keyfiles import read_or_make
from headwater.media.limits import DecodePool
from headwater.net.addresses import open_connector, read_inner_host
from headwater.net.fetch import Fetcher
from headwater.net.turns import Turns
from headwater.settings import Settings
from headwater.vault.both import Vaults
from headwater.vault.keys import GivenKeys, KeyFile
from headwater.vault.local import LocalVault
from headwater.vault.openbao import Login, OpenBao
from headwater.work.credentials import Secrets
from headwater.work.places import Places
from headwater.work.workplace import Workplace

_LINKS_AT_ONCE = 16
_LINKS_OF_A_HOST = 4
_READ_AHEAD = 4  # objects on their way while the decoders work


def load_vault(settings: Settings) -> Vaults:
    """Connects nowhere yet. Raises VaultError for a key that is none, and for settings that do not fit together."""
    older = [settings.master_key_old.get_secret_value()] if settings.master_key_old else []
    if settings.master_key is not None:
        keys = GivenKeys(settings.master_key.get_secret_value(), *older)
    else:
        keys = KeyFile(settings.data_dir / "master-key", *older)
    return Vaults(LocalVault(keys), None if settings.vault_url is None else _openbao(settings, settings.vault_url))


def _openbao(settings: Settings, url: str) -> OpenBao:
    token, secret_id = settings.vault_token, settings.vault_secret_id
    login = Login(
        token=token.get_secret_value() if token else None,
        role_id=settings.vault_role_id,
        secret_id=secret_id.get_secret_value() if secret_id else None,
    )
    return OpenBao(
        url,
        login,
        mount=settings.vault_mount,
        prefix=settings.vault_prefix,
        namespace=settings.vault_namespace,
        ca_file=settings.vault_ca_file,
    )


def load_signing_key(settings: Settings) -> str:
    given = settings.signing_key
    return given.get_secret_value() if given else read_or_make(settings.data_dir / "signing-key")


def _new_spool_dir(parent: Path) -> Path:
    """A folder named after this process; those of processes that are no more are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        if not _is_alive(left.name.partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


@asynccontextmanager
async def open_workplace(
    settings: Settings, database_url: str, *, name: str, max_connections: int
) -> AsyncGenerator[Workplace]:
    """Closed at the end, with the decoders and every store that was opened."""
    vault = load_vault(settings)
    spool_dir = _new_spool_dir(settings.data_dir / "spool")
    connector = open_connector(allow_private=settings.allow_private_endpoints)
    inner_hosts = [read_inner_host(text) for text in settings.link_inner_hosts]
    fetcher = Fetcher(inner_hosts=inner_hosts, own_url=settings.public_url)
    decoders = DecodePool(
        processes=settings.decoders,
        timeout_s=settings.decode_timeout_s,
        memory_bytes=settings.decode_memory_bytes,
        read_gps=settings.read_gps,
    )
    async with (
        make_pool(database_url, max_size=max_connections, name=name) as pool,
        make_pool(database_url, min_size=0, max_size=2, name=f"{name}-secrets") as secrets_pool,
    ):
        places = Places(pool, Secrets(secrets_pool, vault), settings, connector)
        logged_in = asyncio.create_task(vault.stay_logged_in())
        try:
            yield Workplace(
                pool=pool,
                places=places,
                vault=vault,
                decoders=decoders,
                fetcher=fetcher,
                spool_dir=spool_dir,
                slots=asyncio.Semaphore(settings.decoders + _READ_AHEAD),
                public_url=settings.public_url,
                link_turns=Turns(at_once=_LINKS_AT_ONCE, at_once_of_a_host=_LINKS_OF_A_HOST),
                link_fetch=settings.link_fetch,
                link_most_bytes=settings.link_most_bytes,
                allow_private=settings.allow_private_endpoints,
                export_days=settings.export_days,
            )
        finally:
            logged_in.cancel()
            await asyncio.gather(logged_in, return_exceptions=True)
            await places.close()
            await decoders.close()
            await connector.close()
            await fetcher.close()
            await vault.close()
            shutil.rmtree(spool_dir, ignore_errors=True)
