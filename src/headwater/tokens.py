"""Bearer tokens: JWTs that the SDK accepts (it reads `email` and `exp`) and that we alone can sign."""

import time
from dataclasses import dataclass
from typing import Any, Literal

import jwt

from headwater.errors import Unauthorized

Use = Literal["access", "refresh"]
ACCESS_LIFE_S = 24 * 3600
REFRESH_LIFE_S = 30 * 24 * 3600
_ALGORITHM = "HS256"


@dataclass(frozen=True, slots=True)
class Signer:
    key: str

    def __repr__(self) -> str:
        return "Signer(…)"

    def sign(self, *, account_id: int, email: str, use: Use = "access", life_s: int = ACCESS_LIFE_S) -> str:
        now = int(time.time())
        claims = {"sub": str(account_id), "email": email, "use": use, "iat": now, "exp": now + life_s}
        return jwt.encode(claims, self.key, algorithm=_ALGORITHM)

    def account_id_of(self, token: str, *, use: Use = "access") -> int:
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
        return int(claims["sub"])
