"""`headwater vault`: where the secrets are, on the server's own machine."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from headwater.cli import options
from headwater.cli.options import settings_with
from headwater.cli.output import add_row, console, counted, note, print_json, say, table, warn
from headwater.errors import BadRequest, HeadwaterError
from headwater.settings import Settings

if TYPE_CHECKING:  # the server's parts take seconds to import
    from headwater.db.pool import Pool
    from headwater.vault.both import Vaults

vault_app = typer.Typer(
    name="vault",
    help="Where secrets are kept, and under which key (on the server's machine).",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
T = TypeVar("T")


class Target(StrEnum):
    OPENBAO = "openbao"
    LOCAL = "local"


def _run(settings: Settings, work: "Callable[[Pool, Vaults], Awaitable[T]]") -> T:
    """On this installation's database, with its vaults."""
    from headwater.db.pool import make_pool  # noqa: PLC0415
    from headwater.installation import open_installation  # noqa: PLC0415
    from headwater.workplace import load_vault  # noqa: PLC0415

    vault = load_vault(settings)

    async def run(url: str) -> T:
        async with make_pool(url, max_size=4, name="headwater-vault") as pool:
            try:
                return await work(pool, vault)
            finally:
                await vault.close()

    with open_installation(settings) as installation:
        return asyncio.run(run(installation.database_url))


@vault_app.command("status")
def status_command(data_dir: options.DataDir = None, as_json: options.AsJson = False) -> None:
    """Say which vault is used, how many secrets are where, and whether it answers.

    Example: headwater vault status
    """
    told = _run(settings_with(data_dir), _status)
    if as_json:
        print_json(told)
        return
    say(f"New secrets go to: {told['vault']}" + (f" at {told['address']}" if told["address"] else ""))
    shown = table("Kept", "Key", "Secrets", numbers=("Secrets",))
    for key, count in told["sealed_under"].items():
        state = "current" if key == told["current_key"] else "old" if key else "not told: an early version sealed it"
        add_row(shown, "in the database", f"{key} ({state})" if key else state, count)
    if told["outside"]:
        add_row(shown, "in the outside vault", "", told["outside"])
    console.print(shown)
    if told["unused"]:
        note(f"{counted(told['unused'], 'entry')} of requests that broke off; a worker removes them within the hour.")
    if told["error"]:
        warn(told["error"])
    elif told["is_rotating"]:
        note("Older keys are still there. Seal everything under the current one: headwater vault rotate")


async def _status(pool: "Pool", vault: "Vaults") -> dict[str, Any]:
    from headwater.catalog import secrets  # noqa: PLC0415

    async with pool.connection() as conn:
        stock = await secrets.take_stock(conn)
    error = None
    if vault.outside is not None:
        try:
            await vault.outside.check()
        except HeadwaterError as problem:
            error = str(problem)
    return {
        "vault": vault.name,
        "address": vault.outside.address if vault.outside else None,
        "current_key": vault.local.current_key_id(),
        "is_rotating": len(vault.local.keys.read()) > 1,
        "sealed_under": dict(stock.sealed_under),
        "outside": stock.outside,
        "unused": stock.unused,
        "error": error,
    }


@vault_app.command("rotate")
def rotate_command(data_dir: options.DataDir = None) -> None:
    """Make a new master key and seal every secret under it; servers go on running.

    Safe to interrupt and to run again. With HEADWATER_MASTER_KEY set, that is the new key, and
    HEADWATER_MASTER_KEY_OLD the one before.

    Example: headwater vault rotate
    """
    from headwater.work import secrets  # noqa: PLC0415

    settings = settings_with(data_dir)
    count = _run(settings, lambda pool, vault: secrets.rotate(pool, vault.local))
    say(f"Sealed {counted(count, 'secret')} anew. No other key is needed for any of them now.")
    if settings.master_key is None:
        say(f"Back up {settings.data_dir / 'master-key'} now: a back-up of it from before opens nothing any more.")
    else:
        say(
            "When every server runs with the new HEADWATER_MASTER_KEY and `headwater vault status` shows no old key, "
            "take HEADWATER_MASTER_KEY_OLD away."
        )


@vault_app.command("move")
def move_command(
    to: Annotated[Target, typer.Option("--to", help="The vault of HEADWATER_VAULT_URL, or our own database.")] = (
        Target.OPENBAO
    ),
    data_dir: options.DataDir = None,
) -> None:
    """Bring every secret to OpenBao or HashiCorp Vault, or home again; servers go on running.

    Safe to interrupt and to run again. Workers destroy what was left behind within minutes.

    Example: headwater vault move --to openbao
    """
    from headwater.work import secrets  # noqa: PLC0415

    settings = settings_with(data_dir)
    if to is Target.OPENBAO and settings.vault_url is None:
        raise BadRequest("Say where the vault is: set HEADWATER_VAULT_URL, and its token or AppRole.")
    count = _run(settings, lambda pool, vault: secrets.move(pool, vault, to_outside=to is Target.OPENBAO))
    say(f"Moved {counted(count, 'secret')} to {to.value}.")
    if to is Target.LOCAL and settings.vault_url is not None:
        note("New secrets still go to the outside vault until the servers are started without HEADWATER_VAULT_URL.")
