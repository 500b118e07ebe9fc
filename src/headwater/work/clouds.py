"""Opens buckets of every cloud: which adapter, which credentials."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from headwater.catalog.drivers import Driver
from headwater.catalog.sync.event_queues import EventQueue
from headwater.errors import BadRequest
from headwater.net.addresses import check_endpoint, open_connector
from headwater.settings import Settings
from headwater.storage.azure import credentials as azure
from headwater.storage.azure.signing import AzureCredentials
from headwater.storage.azure.store import AzureStore
from headwater.storage.gcs import credentials as gcs
from headwater.storage.gcs.documents import ServiceAccount, check_federation, check_service_account
from headwater.storage.gcs.requests import GcsCredentials
from headwater.storage.gcs.store import GcsStore
from headwater.storage.opening import open_azure, open_gcs, open_s3, open_session
from headwater.storage.queues.azure_queue import AzureQueue, AzureQueueAddress
from headwater.storage.queues.queues import Queue
from headwater.storage.queues.sqs import SqsAddress, SqsQueue
from headwater.storage.s3.credentials import AssumedRole, RoleChain, caller_arn
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.s3.store import S3Store
from headwater.storage.sending import ATTEMPTS, CredentialsProvider
from headwater.storage.stores import Store
from headwater.work.credentials import Secrets

DEFAULT_REGION = "us-east-1"
_ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}")
C = TypeVar("C")


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

    async def open(self, driver: Driver, patience: Patience, beside: Store | None = None) -> Store:
        """Call it inside the event loop; `beside` is a store of the same integration, whose tokens serve here, too.

        Raises BadRequest, VaultError.
        """
        secrets, integration_id = self._secrets, driver.integration_id
        common: dict[str, Any] = {
            "prefix": driver.prefix,
            "endpoint": driver.endpoint,
            "storage_class": driver.storage_class,
            "connector": self._connector,
            "backoff_s": patience.backoff_s,
            "attempts": patience.attempts,
        }
        match driver.kind:
            case "gcs":
                google = beside.credentials if isinstance(beside, GcsStore) else None
                google = google or secrets.follow(integration_id, lambda secret: self._gcs(driver, secret))
                return open_gcs(bucket=driver.root, credentials=google, **common)
            case "azureblob" | "azureDatalakeGen2":
                account = (await secrets.read(integration_id))["key"]
                microsoft = beside.credentials if isinstance(beside, AzureStore) else None
                microsoft = microsoft or secrets.follow(integration_id, lambda secret: self._azure(driver, secret))
                return open_azure(account=account, container=driver.root, credentials=microsoft, **common)
            case _:
                amazon = beside.credentials if isinstance(beside, S3Store) else None
                amazon = amazon or secrets.follow(integration_id, lambda secret: self._s3(driver, secret))
                region = driver.region or DEFAULT_REGION
                return open_s3(bucket=driver.root, region=region, credentials=amazon, **common)

    def new_connector(self) -> aiohttp.BaseConnector:
        """For connections that wait long: they would keep those of stores waiting. To be closed by the caller."""
        return open_connector(allow_private=self._settings.allow_private_endpoints)

    async def open_queue(self, driver: Driver, queue: EventQueue, connector: aiohttp.BaseConnector) -> Queue:
        """With the driver's own credentials. Raises BadRequest, VaultError."""
        session, integration_id = open_session(connector), driver.integration_id
        try:
            if queue.kind == "azure":
                account = await self.account_of(driver)
                microsoft = self._secrets.follow(integration_id, lambda secret: self._azure(driver, secret))
                return AzureQueue(AzureQueueAddress(account, queue.name or "", queue.endpoint), microsoft, session)
            amazon = self._secrets.follow(integration_id, lambda secret: self._s3(driver, secret))
            return SqsQueue(SqsAddress.parse(queue.url or "", driver.region or DEFAULT_REGION), amazon, session)
        except BaseException:
            await session.close()
            raise

    async def account_of(self, driver: Driver) -> str:
        """The storage account of an Azure driver; its integration alone knows it. Raises VaultError, Unavailable."""
        return (await self._secrets.read(driver.integration_id))["key"]

    def check_secret(self, kind: str, secret: Mapping[str, str]) -> None:
        """What can be told of a secret without asking anybody. Raises BadRequest, never with a value in its words."""
        allow_private = self._settings.allow_private_endpoints
        if kind in ("azureblob", "azureDatalakeGen2"):
            azure.check_options(secret)
        elif kind == "gcs":
            check_service_account(secret["content"], allow_private=allow_private)
        elif kind == "gcp-workload-identity-federation":
            check_federation(secret["content"], allow_private=allow_private)
            if bool(secret.get("clientId")) != bool(secret.get("secret")):
                raise BadRequest("clientId and secret of a workload identity go together. Give both, or neither.")
        elif kind == "aws-sts" or (kind == "aws-cross" and secret):
            _roles_of(secret, None)

    async def own_name(self, kind: str) -> str:
        """Who this server is at that cloud. Raises BadRequest where the operator gave it no identity."""
        if kind == "gcp-cross":
            return self._own_google_account().email
        return await caller_arn(
            self._session, self._own_aws_key(), region=DEFAULT_REGION, endpoint=self._settings.aws_sts_endpoint
        )

    async def become(
        self, kind: str, secret: Mapping[str, str], *, external_id: str | None, region: str | None
    ) -> None:
        """Try once to be lent credentials. Raises StoreDenied, Unavailable."""
        if kind == "gcp-cross":
            await self._impersonated(secret)(True)
        else:
            await self._assumed(self._own_aws_key(), secret, external_id, region, None)(True)

    def _s3(self, driver: Driver, secret: Mapping[str, str]) -> CredentialsProvider[S3Credentials]:
        if driver.integration_kind == "s3":
            return _always(S3Credentials(secret["key"], secret["secret"], secret.get("sessionToken")))
        if driver.integration_kind == "aws-cross":
            external_id = (driver.integration_trust or {}).get("externalId")
            return self._assumed(self._own_aws_key(), secret, external_id, driver.region, None)
        key = S3Credentials(secret["key"], secret["secret"])
        endpoint = driver.integration_metadata.get("stsEndpoint")
        return self._assumed(key, secret, secret.get("externalId"), driver.region, endpoint)

    def _assumed(
        self,
        base: S3Credentials,
        secret: Mapping[str, str],
        external_id: str | None,
        region: str | None,
        endpoint: str | None,
    ) -> CredentialsProvider[S3Credentials]:
        if endpoint is not None:
            check_endpoint(endpoint, allow_private=self._settings.allow_private_endpoints)
        return AssumedRole(
            self._session,
            base,
            _roles_of(secret, external_id),
            region=region or DEFAULT_REGION,
            endpoint=endpoint or self._settings.aws_sts_endpoint,
        )

    def _own_aws_key(self) -> S3Credentials:
        settings = self._settings
        if settings.aws_access_key_id is None or settings.aws_secret_access_key is None:
            raise BadRequest(
                "This server has no identity at AWS that your role could trust. Its operator gives it one: "
                "HEADWATER_AWS_ACCESS_KEY_ID and HEADWATER_AWS_SECRET_ACCESS_KEY."
            )
        return S3Credentials(settings.aws_access_key_id, settings.aws_secret_access_key.get_secret_value())

    def _gcs(self, driver: Driver, secret: Mapping[str, str]) -> CredentialsProvider[GcsCredentials]:
        allow_private = self._settings.allow_private_endpoints
        if driver.integration_kind == "gcs":
            account = check_service_account(secret["content"], allow_private=allow_private)
            return gcs.service_account(account, self._session)
        if driver.integration_kind == "gcp-cross":
            return self._impersonated(secret)
        federation = check_federation(secret["content"], allow_private=allow_private)
        client_id, client_secret = secret.get("clientId"), secret.get("secret")
        client = gcs.Client(client_id, client_secret) if client_id and client_secret else None
        return gcs.workload_identity(federation, self._session, client=client)

    def _impersonated(self, secret: Mapping[str, str]) -> CredentialsProvider[GcsCredentials]:
        if not secret.get("email"):
            raise BadRequest("This integration names no service account yet. Give it one: update it with its email.")
        own = gcs.own_identity(self._own_google_key(), self._session, allow_private=True)
        iam_url = self._settings.google_iam_endpoint or gcs.IAM_URL
        return gcs.impersonated(secret["email"], own, self._session, iam_url=iam_url)

    def _own_google_account(self) -> ServiceAccount:
        return check_service_account(self._own_google_key(), allow_private=True)

    def _own_google_key(self) -> str:
        file = self._settings.google_credentials
        if file is None:
            raise BadRequest(
                "This server has no identity at Google Cloud that could act as your service account. Its operator "
                "gives it one: HEADWATER_GOOGLE_CREDENTIALS, the file of a service account's JSON key."
            )
        try:
            return file.read_text()
        except (OSError, UnicodeDecodeError):
            raise BadRequest(
                "The operator's HEADWATER_GOOGLE_CREDENTIALS names a file that this server cannot read."
            ) from None

    def _azure(self, driver: Driver, secret: Mapping[str, str]) -> CredentialsProvider[AzureCredentials]:
        authority = driver.integration_metadata.get("authority")
        if authority is None:
            return azure.provider_of(secret, self._session)
        if not self._settings.allow_private_endpoints:
            raise BadRequest(
                "metadata.authority of an integration is for tests: the operator of this server would have to set "
                "HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true."
            )
        return azure.provider_of(secret, self._session, authority=authority)


def _always(credentials: C) -> CredentialsProvider[C]:
    async def given(_anew: bool) -> C:
        return credentials

    return given


def _roles_of(secret: Mapping[str, str], external_id: str | None) -> RoleChain:
    arns = role_arns(secret.get("roleArns") or secret.get("roleArn") or "")
    if not arns:
        raise BadRequest("This integration names no role yet. Give it one: update it with its roleArn.")
    for arn in arns:
        if not _ROLE_ARN.fullmatch(arn):
            raise BadRequest(
                "A role is named by its ARN: arn:aws:iam::ACCOUNT:role/NAME. Several go with commas between them; "
                "each is assumed by the one before."
            )
    return RoleChain(arns, external_id)


def role_arns(text: str) -> list[str]:
    """One ARN, several with commas between them, or a JSON list."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = text.split(",")
    return [str(arn).strip() for arn in (told if isinstance(told, list) else [told]) if str(arn).strip()]
