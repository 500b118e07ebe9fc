"""Amazon SQS, and what speaks its protocol.

Source: the Amazon SQS API reference (version 2012-11-05) in its JSON protocol, and "Common errors" of it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from multidict import CIMultiDictProxy
from typing_extensions import override

from headwater.errors import BadRequest, FailedDependency, HeadwaterError, StoreDenied, StoreMissing, Unavailable
from headwater.storage.queues.queues import Message, Queue
from headwater.storage.requests import Refused, Request
from headwater.storage.s3.requests import S3Credentials, check_region
from headwater.storage.sending import ATTEMPTS, CredentialsProvider, Dialect, Sender

_MOST_AT_ONCE = 10
_PATH = re.compile(r"/([0-9]{1,20})/([A-Za-z0-9_-]{1,80}(?:\.fifo)?)")
_HOST = re.compile(r"sqs\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_TRANSIENT_CODES = frozenset(
    {"RequestThrottled", "ThrottlingException", "Throttling", "OverLimit", "InternalFailure", "ServiceUnavailable"}
)
_WRONG_KEY_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
    }
)
_MISSING_CODES = frozenset({"QueueDoesNotExist", "NonExistentQueue", "InvalidAddress"})
_DENIED_CODES = frozenset({"AccessDenied", "AccessDeniedException", "KmsAccessDenied"})


@dataclass(frozen=True, slots=True)
class SqsAddress:
    url: str
    endpoint: str  # scheme and host
    region: str
    account: str
    name: str

    @classmethod
    def parse(cls, url: str, default_region: str) -> "SqsAddress":
        """`default_region`: of hosts that do not name theirs. Raises BadRequest."""
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit("")
        path = _PATH.fullmatch(parts.path)
        if parts.scheme not in ("https", "http") or not parts.hostname or not path or parts.query or parts.fragment:
            raise BadRequest(
                "A queue is named by its URL, as the cloud shows it: https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"
            )
        if "@" in parts.netloc:
            raise BadRequest("The URL of a queue contains no user name; the driver's integration opens it.")
        if path[2].endswith(".fifo"):
            raise BadRequest("Buckets send events to standard queues only, not to one whose name ends with .fifo.")
        host = _HOST.fullmatch(parts.hostname)
        region = check_region(host[1] if host else default_region)
        return cls(url, f"{parts.scheme}://{parts.netloc}", region, path[1], path[2])

    @property
    def arn(self) -> str:
        partition = "aws-cn" if self.region.startswith("cn-") else "aws"
        partition = "aws-us-gov" if self.region.startswith("us-gov-") else partition
        return f"arn:{partition}:sqs:{self.region}:{self.account}:{self.name}"


class SqsQueue(Queue):
    def __init__(
        self,
        address: SqsAddress,
        credentials: CredentialsProvider[S3Credentials],
        session: aiohttp.ClientSession,
        *,
        backoff_s: float = 0.25,
        attempts: int = ATTEMPTS,
    ) -> None:
        super().__init__(session)
        self._address = address
        self._sender = Sender(_SqsDialect(address), credentials, session, backoff_s=backoff_s, attempts=attempts)

    @override
    async def receive(self, *, wait_s: int) -> list[Message]:
        told = await self._ask(
            "ReceiveMessage",
            MaxNumberOfMessages=_MOST_AT_ONCE,
            WaitTimeSeconds=wait_s,
            AttributeNames=["ApproximateReceiveCount"],
        )
        return [_message(one) for one in told.get("Messages") or []]

    @override
    async def delete(self, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), _MOST_AT_ONCE):
            batch = messages[start : start + _MOST_AT_ONCE]
            entries = [{"Id": str(i), "ReceiptHandle": message.receipt} for i, message in enumerate(batch)]
            # Those that failed alone come again and are deleted then.
            await self._ask("DeleteMessageBatch", Entries=entries)

    async def _ask(self, action: str, **given: Any) -> dict[str, Any]:
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"}
        body = orjson.dumps({"QueueUrl": self._address.url, **given})
        answer = await self._sender.send(Request(action, "POST", headers=headers, body=body))
        try:
            told = orjson.loads(answer.body or b"{}")
        except orjson.JSONDecodeError:
            told = None
        if not isinstance(told, dict):
            raise Unavailable(f"{self._address.endpoint} does not answer as a queue does. Check the queue's URL.")
        return told


def _message(told: dict[str, Any]) -> Message:
    count = str((told.get("Attributes") or {}).get("ApproximateReceiveCount", "1"))
    return Message(
        id=str(told.get("MessageId", "")),
        receipt=str(told.get("ReceiptHandle", "")),
        body=str(told.get("Body", "")).encode(errors="surrogatepass"),
        receives=int(count) if count.isdigit() else 1,
    )


class _SqsDialect(Dialect[S3Credentials]):
    def __init__(self, address: SqsAddress) -> None:
        self._address = address

    @override
    def sign(self, request: Request, credentials: S3Credentials) -> tuple[str, dict[str, str]]:
        url = f"{self._address.endpoint}/"
        unsigned = AWSRequest(request.method, url, headers=dict(request.headers), data=request.body)
        given = Credentials(credentials.access_key_id, credentials.secret_access_key, credentials.session_token)
        SigV4Auth(given, "sqs", self._address.region).add_auth(unsigned)
        return url, dict(unsigned.headers.items())

    @override
    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused:
        code = _code(headers, body)
        return Refused(status, code, is_transient=code in _TRANSIENT_CODES, may_be_expired=code in _WRONG_KEY_CODES)

    @override
    def late_refusal(self, body: bytes) -> Refused | None:
        return None

    @override
    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        said = f"({refused} on {request.operation})"
        named = self.describe()
        if refused.is_transient:
            return Unavailable(f"The service of {named} is busy or failing {said}. Try again later.")
        if refused.code in _MISSING_CODES or refused.status == 404:
            return StoreMissing(f"There is no {named} {said}. Check its URL.")
        if refused.code in _WRONG_KEY_CODES:
            return StoreDenied(
                f"The credentials of the driver's integration are not accepted for {named} {said}. Renew them."
            )
        if refused.code in _DENIED_CODES or refused.status in (401, 403):
            return StoreDenied(
                f"The credentials may not read {named} {said}. Allow sqs:ReceiveMessage, sqs:DeleteMessage and "
                f"sqs:GetQueueAttributes on {self._address.arn}, and kms:Decrypt if the queue is encrypted with a key "
                "of your own."
            )
        return FailedDependency(f"A request for {named} was refused {said}.")

    @override
    def describe(self) -> str:
        return f'queue "{self._address.name}" at {self._address.endpoint}'


def _code(headers: CIMultiDictProxy[str], body: bytes) -> str:
    """As `com.amazonaws.sqs#QueueDoesNotExist` in the JSON; older services name it in a header."""
    try:
        told = orjson.loads(body)
        code = str(told.get("__type", "")) if isinstance(told, dict) else ""
    except orjson.JSONDecodeError:
        code = ""
    code = code.rpartition("#")[2] or headers.get("x-amzn-errortype", "").partition(":")[0]
    return code or headers.get("x-amzn-query-error", "").partition(";")[0].rpartition(".")[2]
