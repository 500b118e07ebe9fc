"""What a vault is: keeps secrets, opens them, destroys them. `local.py` and `openbao.py` are the two there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from headwater.errors import Unavailable


class VaultError(Unavailable):
    """A secret cannot be kept or opened now. The sentence is for the operator and holds nothing of the secret."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an outside vault has a secret."""

    mount: str
    path: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What the database holds of a secret: itself, sealed, or its place in an outside vault."""

    owner: str  # for example `integration:7`: whose secret it is, and nobody else's
    sealed: bytes | None = None
    place: Place | None = None

    def __repr__(self) -> str:
        return f"Kept({self.owner})"


class Vault(Protocol):
    """Everything raises VaultError. `keep` and `open` may wait for a server: hold no connection meanwhile."""

    @property
    def name(self) -> str: ...

    def new_place(self) -> Place | None:
        """Where the next secret goes; None for a vault whose secrets are sealed into the row itself."""
        ...

    async def keep(self, values: Mapping[str, str], *, owner: str, place: Place | None) -> Kept: ...

    async def open(self, kept: Kept) -> dict[str, str]: ...

    async def destroy(self, place: Place) -> None:
        """Every version of it. Safe to repeat."""
        ...
