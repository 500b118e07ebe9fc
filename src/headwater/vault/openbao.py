"""Secrets kept in OpenBao or HashiCorp Vault: one entry of a KV version 2 engine for each, under a random name.

The client library is synchronous, so it runs in threads. A token is renewed before it ends; one that was refused is
replaced by logging in anew where an AppRole is set.
"""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import urlsplit

import hvac
import requests
from hvac import exceptions

from headwater.vault.vaults import Kept, Place, VaultError

_TIMEOUT_S = 10
_RENEW_AT = 2 / 3  # of a token's life
_LOOK_AGAIN_S = 30.0
_NAME_BYTES = 16
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Login:
    """A token, or the two halves of an AppRole."""

    token: str | None = field(default=None, repr=False)
    role_id: str | None = field(default=None, repr=False)
    secret_id: str | None = field(default=None, repr=False)

    @property
    def is_role(self) -> bool:
        return self.role_id is not None


class OpenBao:
    name = "openbao"

    def __init__(
        self,
        url: str,
        login: Login,
        *,
        mount: str = "secret",
        prefix: str = "headwater",
        namespace: str | None = None,
        ca_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connects when it is first used. Raises VaultError for settings that cannot be right."""
        self.address = _checked_url(url)
        self._login = _checked_login(login)
        self._mount = _checked_path("HEADWATER_VAULT_MOUNT", mount)
        self._prefix = _checked_path("HEADWATER_VAULT_PREFIX", prefix)
        self._clock = clock
        self._turn = Lock()
        self._renew_at_s = -math.inf  # at once: until then nothing is known of the token
        session = requests.Session()
        session.trust_env = False  # neither proxies nor .netrc: what counts are our settings
        session.verify = True if ca_file is None else str(ca_file)
        # An empty token, because the library looks for one in the environment where none is given.
        self._client = hvac.Client(
            url=self.address, token=login.token or "", session=session, timeout=_TIMEOUT_S, namespace=namespace
        )

    def __repr__(self) -> str:
        return f"OpenBao({self.address})"

    def new_place(self) -> Place:
        return Place(self._mount, f"{self._prefix}/{secrets.token_hex(_NAME_BYTES)}")

    async def keep(self, values: Mapping[str, str], *, owner: str, place: Place | None = None) -> Kept:
        place = place or self.new_place()
        entry = {"owner": owner, "options": dict(values)}
        answer = await self._ask(
            place, lambda kv: kv.create_or_update_secret(place.path, entry, cas=0, mount_point=place.mount)
        )
        if not isinstance(answer, dict) or "version" not in answer.get("data", {}):
            raise self._error(f"{place.mount}/ is not a KV engine of version 2. Enable one there")
        return Kept(owner, place=place)

    async def open(self, kept: Kept) -> dict[str, str]:
        place = kept.place
        assert place is not None
        answer = await self._ask(
            place,
            lambda kv: kv.read_secret_version(place.path, mount_point=place.mount, raise_on_deleted_version=True),
        )
        try:
            entry = answer["data"]["data"]
            owner, options = entry["owner"], entry["options"]
        except (KeyError, TypeError):
            raise self._error("it holds something that Headwater did not put there. Give the options anew") from None
        if owner != kept.owner or not isinstance(options, dict):
            raise self._error("this secret belongs to something else. Give the integration its options anew")
        return options

    async def destroy(self, place: Place) -> None:
        """Also when there is nothing any more."""
        await self._ask(place, lambda kv: kv.delete_metadata_and_all_versions(place.path, mount_point=place.mount))

    async def check(self) -> None:
        """Whether it answers and lets us in. Raises VaultError."""
        await asyncio.to_thread(self._check)

    async def stay_logged_in(self) -> None:
        """Until cancelled: a token that nobody uses is renewed, too."""
        while True:
            try:
                await asyncio.to_thread(self._log_in_when_due)
                wait_s = self._renew_at_s - self._clock()
            except VaultError as error:
                _log.warning("%s", error)
                wait_s = 0.0
            await asyncio.sleep(min(max(wait_s, _LOOK_AGAIN_S), 86_400))

    async def close(self) -> None:
        self._client.adapter.close()

    # What follows runs in threads.

    async def _ask(self, place: Place, call: Callable[[Any], T]) -> T:
        return await asyncio.to_thread(self._answer_of, place, call)

    def _answer_of(self, place: Place, call: Callable[[Any], T]) -> T:
        self._log_in_when_due()
        used = self._client.token
        with self._translated(place):
            try:
                return call(self._client.secrets.kv.v2)
            except exceptions.Forbidden:
                self._replace(used)
                return call(self._client.secrets.kv.v2)

    def _replace(self, refused: str) -> None:
        """After a refusal: another token, if this one is no longer good. Raises Forbidden, VaultError."""
        with self._turn:
            if self._client.token != refused:  # another thread was quicker
                return
            try:
                self._client.auth.token.lookup_self()
            except exceptions.Forbidden:
                self._log_in()
            # A good token that may not do this is told so by the second try.

    def _check(self) -> None:
        self._log_in_when_due()
        used = self._client.token
        with self._translated(None):
            self._replace(used)

    def _log_in_when_due(self) -> None:
        with self._turn:
            if self._clock() >= self._renew_at_s:
                with self._translated(None):
                    self._renew_or_log_in()

    def _renew_or_log_in(self) -> None:
        """Renewing needs no second use of a secret id, which may be good for a few only."""
        if not self._client.token:
            self._log_in()
            return
        try:
            known = self._client.auth.token.lookup_self()["data"]
            lease_s = known["ttl"]  # whole seconds: 0 in the last one
            if known["expire_time"] is None:
                lease_s = math.inf
            elif known["renewable"]:
                renewed = self._client.auth.token.renew_self(increment=f"{known['creation_ttl']}s")
                lease_s = renewed["auth"]["lease_duration"]
        except exceptions.Forbidden:
            self._log_in()
            return
        if self._login.is_role and lease_s < known["creation_ttl"] / 2:  # its longest life is near
            self._log_in()
        else:
            self._lives_for(lease_s)

    def _log_in(self) -> None:
        """Raises VaultError where there is nothing to log in with, or where it is refused."""
        if not self._login.is_role:
            raise self._error("it refuses HEADWATER_VAULT_TOKEN, which is wrong or has ended. Set a good one")
        try:
            auth = self._client.auth.approle.login(self._login.role_id, self._login.secret_id or "")["auth"]
        except (exceptions.InvalidRequest, exceptions.Unauthorized, exceptions.Forbidden, exceptions.InvalidPath):
            raise self._error(
                "it refuses the AppRole. Check HEADWATER_VAULT_ROLE_ID and HEADWATER_VAULT_SECRET_ID, and that the "
                "auth method approle is enabled"
            ) from None
        self._client.token = auth["client_token"]
        self._lives_for(auth["lease_duration"] or math.inf)

    def _lives_for(self, lease_s: float) -> None:
        self._renew_at_s = self._clock() + lease_s * _RENEW_AT

    @contextmanager
    def _translated(self, place: Place | None) -> Generator[None]:
        """The library's errors in our words; theirs may repeat what was sent."""
        try:
            yield
        except exceptions.VaultDown as error:
            if any("sealed" in told for told in error.errors or []):
                raise self._error("it is sealed. Unseal it") from None
            raise self._error("it is down") from None
        except exceptions.Forbidden:
            where = "" if place is None else f" {place.mount}/data/{self._prefix}/* and {place.mount}/metadata/…"
            raise self._error(
                f"its policy does not allow{where or ' this'}. docs/guide/vault.md has a policy"
            ) from None
        except exceptions.InvalidPath as error:
            if place is not None and any("no handler" in told for told in error.errors or []):
                raise self._error(f"no KV engine is mounted at {place.mount}/. Enable one of version 2") from None
            raise self._error("this secret is no longer there. Give the integration its options anew") from None
        except exceptions.VaultError as error:
            raise self._error(f"it did not do what was asked ({type(error).__name__})") from None
        except requests.exceptions.SSLError:
            raise self._error(
                "its certificate is not trusted. Set HEADWATER_VAULT_CA_FILE to the authority it was issued by"
            ) from None
        except (requests.exceptions.RequestException, OSError, ValueError, KeyError, TypeError):
            raise self._error("it does not answer as a vault") from None

    def _error(self, told: str) -> VaultError:
        return VaultError(f"The vault at {self.address} cannot be used: {told}, then try again.")


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password or parts.query:
        raise VaultError("HEADWATER_VAULT_URL is like https://vault.example.org:8200, without a user or password.")
    return url.rstrip("/")


def _checked_login(login: Login) -> Login:
    if (login.token is None) == (login.role_id is None) or (login.secret_id is not None and login.role_id is None):
        raise VaultError(
            "HEADWATER_VAULT_URL needs either HEADWATER_VAULT_TOKEN, or HEADWATER_VAULT_ROLE_ID with "
            "HEADWATER_VAULT_SECRET_ID."
        )
    return login


def _checked_path(setting: str, text: str) -> str:
    path = text.strip("/")
    if not path or any(not part or part in (".", "..") or not part.isprintable() for part in path.split("/")):
        raise VaultError(f"{setting} is a path like team/headwater.")
    return path
