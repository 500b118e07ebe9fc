"""Bearer tokens: JWTs that the SDK accepts (it reads `email` and `exp`) and that we alone can sign."""

import hmac
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Any, Literal

import jwt

from headwater.errors import Unauthorized

Use = Literal["access", "refresh"]
ACCESS_LIFE_S = 24 * 3600
REFRESH_LIFE_S = 30 * 24 * 3600
_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class Bearer:
    account_id: int
    issued_at: float  # seconds since 1970
    expires_at: float
    key_id: int | None = None  # of an API key, which counts while its row is there: see catalog/api_keys.py


@dataclass(frozen=True, slots=True)
class Signer:
    key: str

    def __repr__(self) -> str:
        return "Signer(…)"

    def sign(self, *, account_id: int, email: str, use: Use = "access", life_s: int = ACCESS_LIFE_S) -> str:
        now = time.time()  # with its fraction: a token made right after a new password outlives it
        claims = {"sub": str(account_id), "email": email, "use": use, "iat": now, "exp": int(now) + life_s}
        return jwt.encode(claims, self.key, algorithm=_ALGORITHM)

    def sign_key(self, *, account_id: int, email: str, key_id: int, expires_at: int) -> str:
        """An API key: an access token that its row in the database ends as well."""
        claims = {"sub": str(account_id), "email": email, "use": "access", "key": str(key_id)}
        return jwt.encode(claims | {"iat": time.time(), "exp": expires_at}, self.key, algorithm=_ALGORITHM)

    def read(self, token: str, *, use: Use = "access") -> Bearer:
        """Raises Unauthorized."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token, self.key, algorithms=[_ALGORITHM], options={"require": ["exp", "sub", "email"]}
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("The token has expired. Log in again, or print a new one: headwater token.") from None
        except jwt.InvalidTokenError:
            raise Unauthorized("The token was not signed by this server. Log in again.") from None
        if claims.get("use") != use or not str(claims["sub"]).isdecimal():
            raise Unauthorized(f"This is not a token for {use}. Log in again.")
        return Bearer(
            account_id=int(claims["sub"]),
            issued_at=float(claims.get("iat", 0)),
            expires_at=float(claims["exp"]),
            key_id=int(claims["key"]) if "key" in claims else None,
        )

    def sign_note(self, purpose: str, content: dict[str, str], *, life_s: int) -> str:
        """Something a browser keeps for us and cannot change; it can read it."""
        claims = {"use": purpose, "content": content, "exp": int(time.time()) + life_s}
        return jwt.encode(claims, self.key, algorithm=_ALGORITHM)

    def read_note(self, purpose: str, note: str) -> dict[str, str] | None:
        """None for one that is not ours, of another purpose, or too old."""
        try:
            claims = jwt.decode(note, self.key, algorithms=[_ALGORITHM], options={"require": ["exp"]})
        except jwt.InvalidTokenError:
            return None
        return claims["content"] if claims.get("use") == purpose else None

    def hook_secret(self, driver_id: int, generation: int) -> str:
        """The last part of the address that a driver's events are sent to; another generation has another."""
        text = f"bucket events of driver {driver_id}, generation {generation}"
        return urlsafe_b64encode(hmac.digest(self.key.encode(), text.encode(), "sha256")).decode().rstrip("=")


class KnownBearers:
    """Reads the same tokens again and again: a signature is checked once while its token counts."""

    def __init__(self, signer: Signer, *, most: int = 4096) -> None:
        self._signer = signer
        self._most = most
        self._known: dict[str, Bearer] = {}

    def read(self, token: str) -> Bearer:
        """As `Signer.read`. Raises Unauthorized."""
        known = self._known.get(token)
        if known is not None and time.time() < known.expires_at:
            return known
        bearer = self._signer.read(token)
        while len(self._known) >= self._most:
            del self._known[next(iter(self._known))]
        self._known[token] = bearer
        return bearer
