"""URLs that carry out one request for whoever has them: Signature Version 4 with query parameters.

botocore has it, too, and takes most of the time of a redirect for it; tests compare the two. Source:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

import hashlib
import hmac
from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import quote, urlsplit

from headwater.storage.requests import Request, is_shortened
from headwater.storage.s3.requests import Bucket, S3Credentials, absolute_key, url_of

_ALGORITHM = "AWS4-HMAC-SHA256"
_LONGEST_S = 7 * 24 * 3600
_USUAL_PORTS = {"http": 80, "https": 443}


def signed_url(
    bucket: Bucket, request: Request, credentials: S3Credentials, *, expires_s: int, now: datetime | None = None
) -> str | None:
    """For whoever sends the request's headers with it; for a week at most, and not longer than the credentials last.

    None with a session token whose end nobody told: the URL would end before it says so; and for a key that clients
    would shorten on the way.
    """
    now = datetime.now(UTC) if now is None else now
    life_s = _life_s(credentials, expires_s, now)
    if life_s is None or is_shortened(absolute_key(bucket, request)):
        return None
    url = url_of(bucket, request)
    host = _host_of(bucket.url)
    headers = {"host": host} | {name.lower(): text.strip() for name, text in request.headers.items()}
    names = sorted(headers)
    day, moment = f"{now:%Y%m%d}", f"{now:%Y%m%dT%H%M%SZ}"
    scope = f"{day}/{bucket.region}/s3/aws4_request"
    asked = [
        f"X-Amz-Algorithm={_ALGORITHM}",
        f"X-Amz-Credential={_quoted(f'{credentials.access_key_id}/{scope}')}",
        f"X-Amz-Date={moment}",
        f"X-Amz-Expires={life_s}",
        f"X-Amz-SignedHeaders={'%3B'.join(names)}",
        *(f"{name}={_quoted(text)}" for name, text in request.query.items()),
    ]
    if credentials.session_token is not None:
        asked.append(f"X-Amz-Security-Token={_quoted(credentials.session_token)}")
    query = "&".join(sorted(asked))
    canonical = "\n".join(
        [
            request.method,
            "/" + url.partition("://")[2].partition("/")[2],
            query,
            *(f"{name}:{headers[name]}" for name in names),
            "",
            ";".join(names),
            "UNSIGNED-PAYLOAD",
        ]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = _signing_key(credentials.secret_access_key, day, bucket.region)
    signature = hmac.digest(key, f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}".encode(), "sha256").hex()
    return f"{url}?{query}&X-Amz-Signature={signature}"


def _life_s(credentials: S3Credentials, expires_s: int, now: datetime) -> int | None:
    life_s = max(1, min(expires_s, _LONGEST_S))
    if credentials.session_token is None:
        return life_s
    if credentials.ends_at is None:
        return None
    left_s = int((credentials.ends_at - now).total_seconds())
    return min(life_s, left_s) if left_s > 0 else None


def _quoted(text: str) -> str:
    return quote(text, safe="")


@lru_cache(maxsize=1024)
def _host_of(url: str) -> str:
    """As clients send it: without the port that goes without saying."""
    parts = urlsplit(url)
    return parts.netloc if parts.port != _USUAL_PORTS.get(parts.scheme) else parts.netloc.rpartition(":")[0]


@lru_cache(maxsize=256)
def _signing_key(secret: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
