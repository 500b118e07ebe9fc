"""Imports of objects that lie in a dataset's bucket already, as the SDK's `external://` sends them."""

import re
from typing import Any
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.errors import HeadwaterError
from headwater.storage.stores import LARGEST_KEY_BYTES

MOST_IMPORTS = 1_000  # of one request
_SCHEMES = re.compile(r"(?:(?:external|s3|gs|gcs|azure|az|file)://)+")


class ImportBody(BaseModel):
    model_config = ConfigDict(extra="ignore")

    storageId: str = Field(  # noqa: N815 - as the SDK says it
        min_length=1,
        max_length=2 * LARGEST_KEY_BYTES,
        description="The object: BUCKET:KEY, BUCKET/KEY, or its key in the bucket, or below the driver's folder.",
    )
    filename: str | None = Field(default=None, description="Ignored: an item's path is its object's key.")


def keys(storage_id: str, *, bucket: str, prefix: str) -> list[str]:
    """The keys below the driver's prefix that a storage id may mean, the likeliest first.

    Clients say `bucket:key`, `bucket/key`, `bucket//key` or only a key; some take its first folder for a bucket and
    say `folder:rest`. Keys hold any character, colons and slashes at their ends as well. What names no object as it is
    is read as a URL last, because that is how some events of clouds write keys.
    """
    written = _written_so(storage_id, bucket, prefix)
    return list(dict.fromkeys([*written, *_written_so(unquote_plus(storage_id), bucket, prefix)]))


def _written_so(storage_id: str, bucket: str, prefix: str) -> list[str]:
    text = _SCHEMES.sub("", storage_id, count=1) if _SCHEMES.match(storage_id) else storage_id
    bucket = bucket.strip("/")
    starts = [f"{slash}{bucket}{sign}" for sign in ":/" for slash in ("", "/")]
    absolute = [text.removeprefix(start) for start in starts if text.startswith(start)]
    folder, colon, rest = text.partition(":")
    absolute += [f"{folder}/{rest}"] if colon else []
    absolute.append(text)
    absolute += [re.sub("/+", "/", key).lstrip("/") for key in absolute]
    below = [key[len(prefix) :] for key in absolute if prefix and key.startswith(prefix)]
    return [key for key in dict.fromkeys([*below, *absolute]) if key]


class FailedImportJson(TypedDict):
    storageId: str
    error: dict[str, Any]


def failed(storage_id: str, error: HeadwaterError) -> FailedImportJson:
    return FailedImportJson(storageId=storage_id, error={"status": error.status, "message": str(error)})
