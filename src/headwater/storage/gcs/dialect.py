"""Google Cloud Storage as a dialect of the sender."""

from multidict import CIMultiDictProxy

from headwater.errors import HeadwaterError
from headwater.storage.gcs.refusals import explain, place_of, read_refusal
from headwater.storage.gcs.requests import GcsBucket, GcsCredentials, url_of
from headwater.storage.requests import Refused, Request
from headwater.storage.sending import Dialect


class GcsDialect(Dialect[GcsCredentials]):
    def __init__(self, bucket: GcsBucket) -> None:
        self.bucket = bucket

    def sign(self, request: Request, credentials: GcsCredentials) -> tuple[str, dict[str, str]]:
        headers = {"Authorization": f"Bearer {credentials.access_token}"}
        return url_of(self.bucket, request), headers | dict(request.headers)

    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused:
        del headers
        return read_refusal(status, body)

    def late_refusal(self, body: bytes) -> Refused | None:
        """Google answers once it knows."""
        del body
        return None

    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        return explain(self.bucket, request, refused)

    def describe(self) -> str:
        return f'bucket "{self.bucket.name}" at {place_of(self.bucket)}'
