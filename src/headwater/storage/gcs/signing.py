"""URLs that let anyone read or write one object for a while: the V4 signing process, by a service account's own key.

Source: https://cloud.google.com/storage/docs/authentication/signatures and …/canonical-requests
"""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, urlsplit

from headwater.storage.gcs.requests import GcsBucket, UrlSigner, absolute_key, quoted
from headwater.storage.requests import is_shortened

_ALGORITHM = "GOOG4-RSA-SHA256"
_LONGEST_S = 7 * 24 * 3600


def signed_url(
    bucket: GcsBucket,
    key: str,
    signer: UrlSigner,
    query: Mapping[str, str],
    *,
    expires_s: int,
    now: datetime,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> str | None:
    """For a week at most, and for a request with these headers.

    None for a key that clients would shorten on the way: those with `.` or `..` inside.
    """
    name = absolute_key(bucket, key)
    if is_shortened(name):
        return None
    path = f"/{quoted(bucket.name)}/{quote(name, safe='/')}"
    scope = f"{now:%Y%m%d}/auto/storage/goog4_request"
    signed = {name.lower(): text for name, text in (headers or {}).items()} | {"host": urlsplit(bucket.url).netloc}
    signed_names = ";".join(sorted(signed))
    asked = {
        "X-Goog-Algorithm": _ALGORITHM,
        "X-Goog-Credential": f"{signer.email}/{scope}",
        "X-Goog-Date": f"{now:%Y%m%dT%H%M%SZ}",
        "X-Goog-Expires": str(max(1, min(expires_s, _LONGEST_S))),
        "X-Goog-SignedHeaders": signed_names,
        **query,
    }
    canonical_query = "&".join(sorted(f"{quoted(field)}={quoted(text)}" for field, text in asked.items()))
    canonical_headers = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    canonical = f"{method}\n{path}\n{canonical_query}\n{canonical_headers}\n{signed_names}\nUNSIGNED-PAYLOAD"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    signature = signer.signer.sign(f"{_ALGORITHM}\n{now:%Y%m%dT%H%M%SZ}\n{scope}\n{digest}".encode())
    return f"{bucket.url}{path}?{canonical_query}&X-Goog-Signature={signature.hex()}"
