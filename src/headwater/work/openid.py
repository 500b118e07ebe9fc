"""Signing in with OpenID Connect: what the provider of this installation says about who somebody is.

Authorization code flow with PKCE, state and nonce (OpenID Connect Core 1.0, RFC 7636, RFC 9700). The operator names
the issuer, so inner addresses are fine.
"""

import hmac
import logging
import secrets
import time
import warnings
from dataclasses import dataclass
from typing import Any, cast

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from headwater.errors import BadRequest, FailedDependency, Forbidden, HeadwaterError, Unauthorized, Unavailable
from headwater.settings import Settings
from headwater.work.sign_in import Person

with warnings.catch_warnings():  # it asks for httpx's successor, with which it works the same
    warnings.simplefilter("ignore")
    from authlib.integrations.httpx_client import AsyncOAuth2Client

_log = logging.getLogger(__name__)

_FRESH_S = 3600  # how long what the provider says about itself is believed
_TIMEOUT_S = 10
_LEEWAY_S = 120  # between our clock and the provider's
# Of ID tokens: signatures that only the provider can make. One by our own client secret is not among them.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
_AGAIN = "Start again from the program that wants to sign in."


@dataclass(slots=True)
class _Known:
    """What the provider says about itself, and its keys."""

    metadata: dict[str, Any]
    keys: KeySet
    read_at: float


class OpenIdProvider:
    """One OpenID provider. Unavailable while it does not answer, FailedDependency when it answers nonsense."""

    def __init__(self, settings: Settings) -> None:
        self.name = settings.oidc_name  # for people
        self._settings = settings
        self._known: _Known | None = None

    async def start(self, redirect_uri: str) -> tuple[str, dict[str, str]]:
        """Where to send the browser, and what has to be remembered until it is back, by that browser alone."""
        known = await self._know()
        flow = {name: secrets.token_urlsafe(36) for name in ("state", "nonce", "code_verifier")}
        async with self._client(known, redirect_uri) as client:
            url, _ = client.create_authorization_url(
                known.metadata["authorization_endpoint"],
                **flow,
            )
        return url, flow

    async def finish(self, redirect_uri: str, flow: dict[str, str], answer: dict[str, str]) -> Person:
        """Who came back with this answer (the query of the redirect).

        Raises BadRequest for an answer to another sign-in, Forbidden when the provider or its user said no,
        Unauthorized for a code or a token that is not good.
        """
        known = await self._know()
        if not hmac.compare_digest(answer.get("state", "").encode(), flow["state"].encode()):
            raise BadRequest(f"This is the answer to another sign-in than the one begun in this browser. {_AGAIN}")
        if answer.get("iss", known.metadata["issuer"]) != known.metadata["issuer"]:  # RFC 9207
            raise BadRequest(f"This is the answer of another provider than {self.name}. {_AGAIN}")
        if "error" in answer:
            raise Forbidden(f"{self.name} did not sign you in{_told(answer['error'])}. {_AGAIN}")
        if not answer.get("code"):
            raise BadRequest(f"The answer of {self.name} has no code in it. {_AGAIN}")
        async with self._client(known, redirect_uri) as client:
            tokens = await self._redeem(client, known, flow, answer["code"])
            claims = await self._verify(known, flow, tokens)
            if "email" not in claims and "userinfo_endpoint" in known.metadata:
                claims |= await self._user_info(client, known, claims["sub"])
        return self._person(known, claims)

    async def _redeem(self, client: Any, known: _Known, flow: dict[str, str], code: str) -> dict[str, Any]:
        try:
            return await client.fetch_token(
                known.metadata["token_endpoint"], code=code, code_verifier=flow["code_verifier"]
            )
        except OAuthError as error:
            _log.warning("the OpenID provider refused a code%s", _told(error.error))
            if error.error == "invalid_grant":
                raise Unauthorized(f"{self.name} no longer takes this code: it counts once. {_AGAIN}") from None
            raise FailedDependency(
                f"{self.name} refuses this server{_told(error.error)}. Its operator checks the settings of both."
            ) from None
        except (httpx.HTTPError, ValueError) as error:
            raise self._trouble(error) from None

    async def _verify(self, known: _Known, flow: dict[str, str], tokens: dict[str, Any]) -> dict[str, Any]:
        """The claims of the ID token, when everything about it is right."""
        try:
            try:
                token = _decode(tokens["id_token"], known)
            except InvalidKeyIdError:  # the provider has changed its keys
                self._known = None
                token = _decode(tokens["id_token"], await self._know())
            claims = CodeIDToken(
                token.claims,
                token.header,
                options={
                    "iss": {"essential": True, "value": known.metadata["issuer"]},
                    "aud": {"essential": True, "value": self._settings.oidc_client_id},
                },
                params={
                    "nonce": flow["nonce"],
                    "client_id": self._settings.oidc_client_id,
                    "access_token": tokens.get("access_token"),
                },
            )
            claims.validate(leeway=_LEEWAY_S)
        except (JoseError, KeyError, TypeError, ValueError) as error:
            _log.warning("an ID token was refused: %s", type(error).__name__)
            raise Unauthorized(
                f"What {self.name} says about you is not meant for this sign-in, or not signed as it should be. "
                f"{_AGAIN}"
            ) from None
        return dict(claims)

    async def _user_info(self, client: Any, known: _Known, subject: str) -> dict[str, Any]:
        """Claims that the ID token left out (OpenID Connect Core 1.0, 5.3.2: of the same subject only)."""
        try:
            response = await client.get(known.metadata["userinfo_endpoint"])
            response.raise_for_status()
            found = cast("dict[str, Any]", response.json())
        except (httpx.HTTPError, ValueError) as error:
            raise self._trouble(error) from None
        return found if found.get("sub") == subject else {}

    def _person(self, known: _Known, claims: dict[str, Any]) -> Person:
        """Raises Forbidden without a verified e-mail address."""
        email = claims.get("email")
        # Entra ID has a claim of its own: xms_edov, "the owner of the e-mail address's domain is verified".
        is_verified = any(claims.get(claim) in (True, 1, "true", "1") for claim in ("email_verified", "xms_edov"))
        if not isinstance(email, str) or not is_verified:
            raise Forbidden(f"{self.name} does not say that your e-mail address is verified. Verify it there.")
        return Person(issuer=known.metadata["issuer"], subject=str(claims["sub"]), email=email)

    async def _know(self) -> _Known:
        if self._known is None or time.monotonic() > self._known.read_at + _FRESH_S:
            self._known = await self._discover()
        return self._known

    async def _discover(self) -> _Known:
        issuer = (self._settings.oidc_issuer or "").rstrip("/")
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
                metadata = (await client.get(f"{issuer}/.well-known/openid-configuration")).raise_for_status().json()
                if metadata["issuer"].rstrip("/") != issuer:
                    raise FailedDependency(
                        f"{self.name} calls itself {metadata['issuer'][:200]!r}. That is what belongs in "
                        "HEADWATER_OIDC_ISSUER."
                    )
                keys = (await client.get(metadata["jwks_uri"])).raise_for_status().json()
            for endpoint in ("authorization_endpoint", "token_endpoint"):
                metadata[endpoint]
            return _Known(metadata, KeySet.import_key_set(keys), time.monotonic())
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError, JoseError) as error:
            raise self._trouble(error) from None

    def _trouble(self, error: Exception) -> HeadwaterError:
        _log.warning("the OpenID provider does not answer as it should: %s", type(error).__name__)
        is_down = isinstance(error, httpx.TransportError) or (
            isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= 500
        )
        if is_down:
            return Unavailable(f"{self.name} does not answer. Try again in a moment, or use your password.")
        return FailedDependency(
            f"{self.name} does not answer as an OpenID provider does. Its operator checks HEADWATER_OIDC_ISSUER."
        )

    def _client(self, known: _Known, redirect_uri: str) -> Any:
        supported = known.metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        method = "client_secret_basic" if "client_secret_basic" in supported else "client_secret_post"
        secret = self._settings.oidc_client_secret
        return AsyncOAuth2Client(
            client_id=self._settings.oidc_client_id,
            client_secret=None if secret is None else secret.get_secret_value(),
            token_endpoint_auth_method="none" if secret is None else method,  # a public client: PKCE protects it
            scope=self._settings.oidc_scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            timeout=_TIMEOUT_S,
            trust_env=False,
        )


def _decode(id_token: str, known: _Known) -> jwt.Token:
    return jwt.decode(id_token, known.keys, registry=JWSRegistry(algorithms=_ALGORITHMS, strict_check_header=False))


def _told(code: object) -> str:
    """An error code of OAuth in brackets; nothing else, because the browser can make it up."""
    is_code = isinstance(code, str) and code.isascii() and code.replace("_", "").isalpha() and len(code) <= 40
    return f" ({code})" if is_code else ""
