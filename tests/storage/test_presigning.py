"""URLs signed for S3: as botocore signs them, and never for longer than the credentials last."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import botocore.auth
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from headwater.storage.requests import Request, is_shortened
from headwater.storage.s3.presigning import signed_url
from headwater.storage.s3.requests import Bucket, S3Credentials, url_of

NOW = datetime(2026, 11, 23, 2, 3, 4, tzinfo=UTC)
KEY = S3Credentials("key-id", "the-secret")
BUCKET = Bucket("cams", "in/", "eu-west-1", None)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
BUCKETS = [
    BUCKET,
    Bucket("cams.with.dots", "", "cn-north-1", None),
    Bucket("cams", "", "us-east-1", "http://127.0.0.1:9000"),
    Bucket("cams", "", "us-east-1", "https://minio.example:443/"),
    Bucket("cams", "", "us-east-1", "http://minio.example:80"),
]


def botocores(bucket: Bucket, request: Request, credentials: S3Credentials, *, expires_s: int) -> str:
    unsigned = AWSRequest(request.method, url_of(bucket, request), headers=dict(request.headers))
    unsigned.params = dict(request.query)
    given = Credentials(credentials.access_key_id, credentials.secret_access_key, credentials.session_token)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: NOW.replace(tzinfo=None))
        S3SigV4QueryAuth(given, "s3", bucket.region, expires=expires_s).add_auth(unsigned)
    return str(unsigned.url)


def told(url: str) -> tuple[str, list[tuple[str, str]]]:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}", sorted(parse_qsl(parts.query, keep_blank_values=True))


@given(
    bucket=st.sampled_from(BUCKETS),
    key=TEXT.filter(lambda key: not is_shortened(key)),
    disposition=st.none() | TEXT,
    token=st.none() | TEXT.filter(str.isascii),
    method=st.sampled_from(["GET", "PUT"]),
    headers=st.sampled_from([{}, {"Content-Type": "image/jpeg", "Content-Length": "5", "If-None-Match": "*"}]),
    expires_s=st.integers(1, 7 * 24 * 3600),
)
def test_they_are_those_of_botocore(
    bucket: Bucket,
    key: str,
    disposition: str | None,
    token: str | None,
    method: str,
    headers: dict[str, str],
    expires_s: int,
) -> None:
    query = {} if disposition is None else {"response-content-disposition": disposition}
    request = Request("GetObject", method, key, query, headers)
    lasting = S3Credentials("key/id", "the+secret", token, NOW + timedelta(days=8))
    ours = signed_url(bucket, request, lasting, expires_s=expires_s, now=NOW)
    assert told(str(ours)) == told(botocores(bucket, request, lasting, expires_s=expires_s))


@pytest.mark.parametrize(
    ("left", "asked_s", "lasts_s"),
    [
        (timedelta(hours=1), 900, 900),
        (timedelta(seconds=300.9), 900, 300),
        (timedelta(seconds=1.5), 900, 1),
        (timedelta(seconds=0.9), 900, None),
        (timedelta(0), 900, None),
        (timedelta(seconds=-5), 900, None),
        (timedelta(days=30), 30 * 24 * 3600, 7 * 24 * 3600),
    ],
)
def test_a_url_ends_no_later_than_the_credentials_it_is_signed_with(
    left: timedelta, asked_s: int, lasts_s: int | None
) -> None:
    lent = S3Credentials("id", "secret", "token", NOW + left)
    url = signed_url(BUCKET, Request("GetObject", "GET", "a"), lent, expires_s=asked_s, now=NOW)
    assert (None if url is None else int(dict(told(url)[1])["X-Amz-Expires"])) == lasts_s


def test_a_session_token_whose_end_nobody_told_signs_nothing() -> None:
    given = S3Credentials("id", "secret", "token")
    assert signed_url(BUCKET, Request("GetObject", "GET", "a"), given, expires_s=60, now=NOW) is None


@pytest.mark.parametrize("key", ["up/../down", "..", "./here", "up/.", "up/.."])
def test_a_key_that_clients_would_shorten_is_not_signed(key: str) -> None:
    assert signed_url(BUCKET, Request("GetObject", "GET", key), KEY, expires_s=60, now=NOW) is None
    assert (
        signed_url(BUCKET, Request("GetObject", "GET", key.replace(".", "_.._")), KEY, expires_s=60, now=NOW)
        is not None
    )


def test_a_key_without_an_end_signs_for_a_week_at_most() -> None:
    url = str(signed_url(BUCKET, Request("GetObject", "GET", "a"), KEY, expires_s=10**9, now=NOW))
    assert dict(told(url)[1])["X-Amz-Expires"] == str(7 * 24 * 3600)
