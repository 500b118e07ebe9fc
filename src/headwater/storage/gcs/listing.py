"""Reads one page of objects.list into columns, fast and byte-exact; no network here."""

import re
from typing import Any, cast

import orjson

from headwater.errors import Unavailable
from headwater.storage.columns import NOTHING_CONCLUDED, are_plain, checked_times, numbers, without_prefix
from headwater.storage.gcs.requests import etag_of
from headwater.storage.progress import ParsedPage
from headwater.storage.stores import ListingPage, unindexable_reason

# `updated` changes with the metadata, `timeCreated` with the content only.
FIELDS = "kind,nextPageToken,items(name,size,md5Hash,generation,timeCreated)"
# A quotation mark inside an object's name is written \", so no name can look like this.
_TOKEN = re.compile(rb'"nextPageToken"\s*:\s*"([^"\\]+)"')


def find_token(body: bytes) -> str | None:
    """The next page's token, read without parsing the page, so that the next request can leave at once."""
    found = _TOKEN.search(body)
    return found[1].decode(errors="replace") if found else None


def parse_page(body: bytes, prefix: str, after: str | None) -> ParsedPage:
    """Keys come without `prefix`; the object named `after` is left out, because Google lists from it on.

    Raises Unavailable for anything that is not a whole, well-formed page.
    """
    document = _parse(body)
    items = cast("list[dict[str, str]]", document.get("items", []))
    token = document.get("nextPageToken")
    try:
        last_key = items[-1]["name"] if items else None
        if after is not None and items and items[0]["name"] == after:
            items = items[1:]
        page = _page(items, prefix, is_last=token is None)
    except (KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"The store listed an object without a name, size or time. {NOTHING_CONCLUDED}") from error
    return ParsedPage(page, token, last_key)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        document: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = {}  # the error would hold the whole page
    is_listing = isinstance(document, dict) and document.get("kind") == "storage#objects"
    if not is_listing or not isinstance(document.get("items", []), list):
        raise Unavailable(
            "The store answered a listing with something that is no whole page of objects. "
            f"{NOTHING_CONCLUDED} If this stays so, check that the endpoint speaks Google Cloud Storage's JSON API."
        )
    if not isinstance(token := document.get("nextPageToken"), str | None) or token == "":
        raise Unavailable("The store says that more objects follow, but not how to ask for them.")
    return cast("dict[str, Any]", document)


def _page(items: list[dict[str, str]], prefix: str, *, is_last: bool) -> ListingPage:
    unindexable: list[tuple[str, str]] = []
    if not are_plain([item["name"] for item in items]):
        reasons = [unindexable_reason(item["name"].encode()) for item in items]
        unindexable = [(item["name"], reason) for item, reason in zip(items, reasons, strict=True) if reason]
        items = [item for item, reason in zip(items, reasons, strict=True) if not reason]
    return ListingPage(
        keys=without_prefix([item["name"] for item in items], prefix),
        sizes=numbers([item["size"] for item in items]),
        etags=[etag_of(item) for item in items],
        modified=checked_times([item["timeCreated"] for item in items]),
        unindexable=unindexable,
        is_last=is_last,
    )
