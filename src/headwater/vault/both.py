"""The vaults of this server: new secrets go to the outside one where it is set, and each is opened where it is."""

from collections.abc import Mapping

from headwater.vault.local import LocalVault
from headwater.vault.openbao import OpenBao
from headwater.vault.vaults import Kept, Place, Vault, VaultError


class Vaults:
    def __init__(self, local: LocalVault, outside: OpenBao | None = None) -> None:
        self.local = local
        self.outside = outside

    def __repr__(self) -> str:
        return f"Vaults({self.name})"

    @property
    def name(self) -> str:
        return self._default.name

    @property
    def _default(self) -> Vault:
        return self.outside or self.local

    def new_place(self) -> Place | None:
        return self._default.new_place()

    async def keep(self, values: Mapping[str, str], *, owner: str, place: Place | None) -> Kept:
        """Where `place` says, or sealed for the database."""
        vault = self.local if place is None else self._outside()
        return await vault.keep(values, owner=owner, place=place)

    async def open(self, kept: Kept) -> dict[str, str]:
        vault = self.local if kept.place is None else self._outside()
        return await vault.open(kept)

    async def destroy(self, place: Place) -> None:
        await self._outside().destroy(place)

    def _outside(self) -> OpenBao:
        if self.outside is None:
            raise VaultError(
                "This secret is kept in an outside vault, and this server knows none. Start it with "
                "HEADWATER_VAULT_URL and the vault's token or AppRole."
            )
        return self.outside

    async def stay_logged_in(self) -> None:
        """Until cancelled, where there is something to stay logged in to."""
        if self.outside is not None:
            await self.outside.stay_logged_in()

    async def close(self) -> None:
        if self.outside is not None:
            await self.outside.close()
