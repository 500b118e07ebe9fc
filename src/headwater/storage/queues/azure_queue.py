"""Azure Queue Storage.

Source: "Get Messages" and "Delete Message" of the Queue Storage REST API, and its "Error codes". Event Grid writes its
events in base64; other senders may write plain JSON.
"""

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import aiohttp
from lxml import etree
from multidict import CIMultiDictProxy
from typing_extensions import override

from headwater.errors import BadRequest, FailedDependency, HeadwaterError, StoreDenied, StoreMissing, Unavailable
from headwater.storage.azure.refusals import read_refusal
from headwater.storage.azure.requests import check_account
from headwater.storage.azure.signing import AzureCredentials, signed_at
from headwater.storage.queues.queues import Message, Queue
from headwater.storage.requests import Refused, Request
from headwater.storage.sending import ATTEMPTS, CredentialsProvider, Dialect, Sender

_MOST_AT_ONCE = 32
_HIDDEN_S = 60  # from those who read beside us, until we have deleted it
_LOOK_EVERY_S = 2.0  # it has no long polling
_NAME = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(?:-[a-z0-9]+)*")
_GONE_CODES = frozenset({"MessageNotFound", "PopReceiptMismatch"})  # deleted, or another has it meanwhile


@dataclass(frozen=True, slots=True)
class AzureQueueAddress:
    account: str
    name: str
    endpoint: str | None  # None: Azure itself

    def __post_init__(self) -> None:
        """Raises BadRequest; these names stand in hosts and paths."""
        check_account(self.account)
        check_name(self.name)

    @property
    def url(self) -> str:
        if self.endpoint is None:
            return f"https://{self.account}.queue.core.windows.net/{self.name}"
        endpoint = self.endpoint.rstrip("/")
        if not (urlsplit(endpoint).hostname or "").startswith(f"{self.account}."):
            return f"{endpoint}/{self.account}/{self.name}"
        return f"{endpoint}/{self.name}"


def check_name(name: str) -> None:
    """Raises BadRequest."""
    if not _NAME.fullmatch(name):
        raise BadRequest(
            f"{name[:80]!r} is not the name of a queue: these have 3 to 63 lower-case letters, digits and single "
            "hyphens."
        )


class AzureQueue(Queue):
    def __init__(
        self,
        address: AzureQueueAddress,
        credentials: CredentialsProvider[AzureCredentials],
        session: aiohttp.ClientSession,
        *,
        backoff_s: float = 0.25,
        attempts: int = ATTEMPTS,
    ) -> None:
        super().__init__(session)
        dialect = _QueueDialect(address)
        self._sender = Sender(dialect, credentials, session, backoff_s=backoff_s, attempts=attempts)

    @override
    async def receive(self, *, wait_s: int) -> list[Message]:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        query = {"numofmessages": str(_MOST_AT_ONCE), "visibilitytimeout": str(_HIDDEN_S)}
        while True:
            answer = await self._sender.send(Request("GetMessages", "GET", "messages", query))
            found = _parse(answer.body)
            left_s = until_s - loop.time()
            if found or left_s <= 0:
                return found
            await asyncio.sleep(min(_LOOK_EVERY_S, left_s))

    @override
    async def delete(self, messages: Sequence[Message]) -> None:
        await asyncio.gather(*(self._delete(message) for message in messages))

    async def _delete(self, message: Message) -> None:
        key = f"messages/{quote(message.id, safe='')}"
        try:
            await self._sender.send(Request("DeleteMessage", "DELETE", key, {"popreceipt": message.receipt}))
        except HeadwaterError as error:
            if error.code not in _GONE_CODES:
                raise


def _parse(body: bytes) -> list[Message]:
    """Raises Unavailable for what is no answer of a queue."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError:
        root = None
    if root is None or root.tag != "QueueMessagesList":
        raise Unavailable("The service does not answer as a queue does. Check the queue's endpoint.")
    return [
        Message(
            id=one.findtext("MessageId", ""),
            receipt=one.findtext("PopReceipt", ""),
            body=decoded(one.findtext("MessageText", "")),
            receives=int(one.findtext("DequeueCount", "1")),
        )
        for one in root.findall("QueueMessage")
    ]


def decoded(text: str) -> bytes:
    """What was sent, in base64 or as it is."""
    if text.lstrip()[:1] not in ("{", "["):
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError):
            pass
    return text.encode(errors="surrogatepass")


class _QueueDialect(Dialect[AzureCredentials]):
    def __init__(self, address: AzureQueueAddress) -> None:
        self._address = address

    @override
    def sign(self, request: Request, credentials: AzureCredentials) -> tuple[str, dict[str, str]]:
        query = "&".join(f"{name}={quote(text, safe='')}" for name, text in request.query.items())
        return signed_at(f"{self._address.url}/{request.key}?{query}", self._address.account, request, credentials)

    @override
    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused:
        return read_refusal(status, headers, body)

    @override
    def late_refusal(self, body: bytes) -> Refused | None:
        return None

    @override
    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        said = f"({refused} on {request.operation})"
        named = self.describe()
        if refused.code in _GONE_CODES:
            return StoreMissing(f"The message is no longer in {named} {said}.")
        if refused.is_transient:
            return Unavailable(f"The service of {named} is busy or failing {said}. Try again later.")
        if refused.status == 404:
            return StoreMissing(f"There is no {named} {said}. Check its name.")
        if refused.status in (401, 403):
            return StoreDenied(
                f"The credentials of the driver's integration may not read {named} {said}. Give the service principal "
                "the role Storage Queue Data Message Processor; a SAS has to be one of the account, for the services "
                "Blob and Queue, with process (p)."
            )
        return FailedDependency(f"A request for {named} was refused {said}.")

    @override
    def describe(self) -> str:
        return f'queue "{self._address.name}" of storage account "{self._address.account}"'
