"""User delegation keys: what a service principal signs URLs with, lent by Azure for some hours.

Source: "Get User Delegation Key" and "Create a user delegation SAS" of the Blob Storage REST API.
"""

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta

from azure.storage.blob import UserDelegationKey

from headwater.errors import HeadwaterError, Unavailable
from headwater.storage.azure.signing import AzureCredentials
from headwater.storage.requests import Request
from headwater.storage.sending import Sender

_BEGINS = timedelta(minutes=-15)  # our clock may be ahead
_ENDS = timedelta(days=7, minutes=-15)  # seven days from now on are the most
_KEPT_S = 3600
_ASK_AGAIN_AFTER_S = 600  # when it was refused
_PARTS = ("SignedOid", "SignedTid", "SignedStart", "SignedExpiry", "SignedService", "SignedVersion", "Value")


class DelegationKeys:
    """Asks for a key when one is first needed, and again every hour, or when half its life is over."""

    def __init__(self, sender: Sender[AzureCredentials]) -> None:
        self._sender = sender
        self._key: UserDelegationKey | None = None
        self._ask_at_s = -1.0
        self._turn = asyncio.Lock()

    async def current(self) -> UserDelegationKey | None:
        """None when the principal may not sign: it lacks a role on the account that includes it."""
        async with self._turn:
            if time.monotonic() >= self._ask_at_s:
                await self._ask()
            return self._key

    async def _ask(self) -> None:
        try:
            self._key = await self._fetch()
            self._ask_at_s = time.monotonic() + min(_KEPT_S, _left_s(self._key) / 2)
        except HeadwaterError:
            self._key = None
            self._ask_at_s = time.monotonic() + _ASK_AGAIN_AFTER_S

    async def _fetch(self) -> UserDelegationKey:
        now = datetime.now(UTC)
        begin, end = (f"{now + part:%Y-%m-%dT%H:%M:%SZ}" for part in (_BEGINS, _ENDS))
        body = f"<KeyInfo><Start>{begin}</Start><Expiry>{end}</Expiry></KeyInfo>".encode()
        query = {"restype": "service", "comp": "userdelegationkey"}
        answer = await self._sender.send(Request("GetUserDelegationKey", "POST", query=query, body=body))
        found = {part: _element(answer.body.decode(errors="replace"), part) for part in _PARTS}
        key = UserDelegationKey()
        key.signed_oid, key.signed_tid = found["SignedOid"], found["SignedTid"]
        key.signed_start, key.signed_expiry = found["SignedStart"], found["SignedExpiry"]
        key.signed_service, key.signed_version = found["SignedService"], found["SignedVersion"]
        key.value = found["Value"]
        return key


def _left_s(key: UserDelegationKey) -> float:
    try:
        return (datetime.fromisoformat(str(key.signed_expiry)) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        raise Unavailable("The store lent a key for signing without its end.") from None


def _element(document: str, name: str) -> str:
    found = re.search(f"<{name}>([^<]{{1,1024}})</{name}>", document)
    if found is None:
        raise Unavailable(f"The store lent a key for signing without its {name}.")
    return found[1]
