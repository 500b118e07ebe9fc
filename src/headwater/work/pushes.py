"""Pushes of Google Pub/Sub prove who sends them: each shows a token that Google signed for its receiver.

https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions
"""

import asyncio
import json
import time
from collections.abc import Collection

import aiohttp
from google.auth import exceptions, jwt

from headwater.errors import Unauthorized, Unavailable

_CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"
_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_KEEP_S = 3600.0
_ASK_AGAIN_S = 60.0  # at the earliest, for a key that is not known
_TIMEOUT_S = 10.0


class PushTokens:
    """Keeps Google's public keys, and asks for them again when one is new."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str | None) -> None:
        self._session = session
        self._url = _CERTS_URL if endpoint is None else endpoint
        self._certs: dict[str, str] = {}
        self._asked_at = float("-inf")
        self._asking = asyncio.Lock()

    async def check(self, token: str | None, *, audiences: Collection[str], account: str | None) -> None:
        """Raises Unauthorized unless Google signed it, for us, and for this account if one is given; or Unavailable."""
        if not token:
            raise Unauthorized(
                "A push of Pub/Sub shows a token of Google's. Give the subscription --push-auth-service-account."
            )
        try:
            claims = jwt.decode(token, certs=await self._certs_for(token), audience=list(audiences))
        except (ValueError, exceptions.GoogleAuthError):
            raise Unauthorized(
                "The push's token is not one that Google signed for this server, or it has expired. The subscription's "
                f"--push-auth-token-audience is one of: {', '.join(sorted(audiences))}."
            ) from None
        if claims.get("iss") not in _ISSUERS:
            raise Unauthorized("The push's token was not issued by Google.")
        if claims.get("email_verified") is not True or not claims.get("email"):
            raise Unauthorized("The push's token does not say which account it is of.")
        if account is not None and claims["email"] != account:
            raise Unauthorized(
                f"The push's token is of another account than {account}. Which one counts: headwater events on DRIVER "
                "--push-account EMAIL"
            )

    async def _certs_for(self, token: str) -> dict[str, str]:
        """Google's keys, with the one that signed this if there is such a one. Raises ValueError, Unavailable."""
        key_id = jwt.decode_header(token).get("kid")
        async with self._asking:
            age_s = time.monotonic() - self._asked_at
            if age_s > _KEEP_S or (key_id not in self._certs and age_s > _ASK_AGAIN_S):
                self._certs = await self._ask()
                self._asked_at = time.monotonic()
        return self._certs

    async def _ask(self) -> dict[str, str]:
        try:
            async with self._session.get(
                self._url, timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S), allow_redirects=False
            ) as answer:
                answer.raise_for_status()
                certs = json.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, ValueError):
            raise Unavailable("Google's public keys cannot be read just now. Push again.") from None
        if not isinstance(certs, dict):
            raise Unavailable("Google's public keys are not what they were. Push again.")
        return {str(name): str(cert) for name, cert in certs.items()}
