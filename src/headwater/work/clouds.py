"""Opens buckets of every cloud: which adapter, which credentials."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from headwater.catalog.drivers import Driver
from headwater.errors import BadRequest
from headwater.settings import Settings
from headwater.storage.opening import open_s3
from headwater.storage.s3.credentials import AssumedRole, RoleChain
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.sending import ATTEMPTS, CredentialsProvider
from headwater.storage.stores import Store
from headwater.work.credentials import Secrets

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a store is asked again; a person who waits for a check wants to know sooner than a sync."""

    attempts: int = ATTEMPTS
    backoff_s: float = 0.25


class Clouds:
    def __init__(
        self,
        secrets: Secrets,
        settings: Settings,
        connector: aiohttp.BaseConnector,
        session: aiohttp.ClientSession,
    ) -> None:
        self._secrets = secrets
        self._settings = settings
        self._connector = connector
        self._session = session  # for tokens; a store has a session of its own

    async def open(self, driver: Driver, patience: Patience) -> Store:
        """Call it inside the event loop. Raises BadRequest, VaultError."""
        return open_s3(
            bucket=driver.root,
            prefix=driver.prefix,
            region=driver.region or DEFAULT_REGION,
            endpoint=driver.endpoint,
            credentials=self._s3_credentials(driver),
            storage_class=driver.storage_class,
            connector=self._connector,
            backoff_s=patience.backoff_s,
            attempts=patience.attempts,
        )

    def _s3_credentials(self, driver: Driver) -> CredentialsProvider[S3Credentials]:
        def make(secret: Mapping[str, str]) -> CredentialsProvider[S3Credentials]:
            if driver.integration_kind == "s3":
                return _always(S3Credentials(secret["key"], secret["secret"], secret.get("sessionToken")))
            return AssumedRole(
                self._session,
                self._own_aws_identity() if driver.integration_kind == "aws-cross" else _key_of(secret),
                _roles_of(driver, secret),
                region=driver.region or DEFAULT_REGION,
                endpoint=driver.integration_metadata.get("stsEndpoint"),
            )

        return self._secrets.follow(driver.integration_id, make)

    def _own_aws_identity(self) -> S3Credentials:
        return own_aws_identity(self._settings)


def own_aws_identity(settings: Settings) -> S3Credentials:
    """The key that this server assumes other accounts' roles with. Raises BadRequest when it has none."""
    if settings.aws_access_key_id is None or settings.aws_secret_access_key is None:
        raise BadRequest(
            "This server has no identity at AWS that could assume your role. Its operator gives it one: "
            "HEADWATER_AWS_ACCESS_KEY_ID and HEADWATER_AWS_SECRET_ACCESS_KEY."
        )
    return S3Credentials(settings.aws_access_key_id, settings.aws_secret_access_key.get_secret_value())


def _always(credentials: S3Credentials) -> CredentialsProvider[S3Credentials]:
    async def given(_anew: bool) -> S3Credentials:
        return credentials

    return given


def _key_of(secret: Mapping[str, str]) -> S3Credentials:
    return S3Credentials(secret["key"], secret["secret"])


def _roles_of(driver: Driver, secret: Mapping[str, str]) -> RoleChain:
    given = secret.get("roleArns") or secret.get("roleArn") or ""
    arns = role_arns(given)
    if not arns:
        raise BadRequest(
            f"The integration of driver {driver.name!r} names no role yet. Give it one: update it with its roleArn."
        )
    return RoleChain(arns, driver.integration_metadata.get("externalId") or secret.get("externalId"))


def role_arns(text: str) -> list[str]:
    """One ARN, several with commas between them, or a JSON list; each role is assumed by the one before."""
    try:
        told = json.loads(text)
    except ValueError:
        told = text.split(",")
    return [str(arn).strip() for arn in (told if isinstance(told, list) else [told]) if str(arn).strip()]
