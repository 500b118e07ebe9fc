"""S3 as a dialect of the sender."""

import logging

from multidict import CIMultiDictProxy

from headwater.errors import HeadwaterError
from headwater.storage.requests import Refused, Request
from headwater.storage.s3.refusals import explain, place_of, read_refusal
from headwater.storage.s3.requests import Bucket, S3Credentials, signed
from headwater.storage.sending import Dialect


class S3Dialect(Dialect[S3Credentials]):
    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        # At level DEBUG botocore logs what it signs, session tokens included.
        logging.getLogger("botocore.auth").setLevel(logging.INFO)

    def sign(self, request: Request, credentials: S3Credentials) -> tuple[str, dict[str, str]]:
        return signed(self.bucket, request, credentials)

    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused:
        return read_refusal(status, body, headers.get("x-amz-bucket-region"))

    def late_refusal(self, body: bytes) -> Refused | None:
        """S3 may begin with 200 and find out later that it cannot complete a multipart upload.

        The errors in an answer to DeleteObjects are of single objects.
        """
        start = body[:300]
        return read_refusal(200, body, None) if b"<Error>" in start and b"<DeleteResult" not in start else None

    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        return explain(self.bucket, request, refused)

    def describe(self) -> str:
        return f'bucket "{self.bucket.name}" at {place_of(self.bucket)}'
