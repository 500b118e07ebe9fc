"""Azure Blob Storage as a dialect of the sender."""

import logging

from multidict import CIMultiDictProxy

from headwater.errors import HeadwaterError
from headwater.storage.azure.refusals import described, explain, read_refusal
from headwater.storage.azure.requests import Container
from headwater.storage.azure.signing import AzureCredentials, signed
from headwater.storage.requests import Refused, Request
from headwater.storage.sending import Dialect


class AzureDialect(Dialect[AzureCredentials]):
    def __init__(self, container: Container) -> None:
        self.container = container
        # Below this the library may log what it signs.
        logging.getLogger("azure.storage").setLevel(logging.INFO)

    def sign(self, request: Request, credentials: AzureCredentials) -> tuple[str, dict[str, str]]:
        return signed(self.container, request, credentials)

    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused:
        return read_refusal(status, headers, body)

    def late_refusal(self, body: bytes) -> Refused | None:  # noqa: ARG002 - Azure decides before it answers
        return None

    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        return explain(self.container, request, refused)

    def describe(self) -> str:
        return described(self.container)
