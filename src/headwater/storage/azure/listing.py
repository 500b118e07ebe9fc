"""Reads one page of Azure's List Blobs into columns, fast and byte-exact; no network here."""

import re
from functools import cache
from typing import Any, cast
from urllib.parse import unquote

from lxml import etree

from headwater.errors import Unavailable
from headwater.storage.columns import NOTHING_CONCLUDED, are_plain, numbers, without_prefix
from headwater.storage.progress import ParsedPage
from headwater.storage.stores import ListingPage, unindexable_reason

Element = Any  # lxml's class of elements has no public name

_COLUMNS = ("Name", "Properties/Content-Length", "Properties/Etag", "Properties/Last-Modified")
_MARKER = re.compile(rb"<NextMarker>([^<&]+)</NextMarker>")
_MAY_BE_FOLDER = re.compile(rb"<ResourceType>directory<|<hdi_isfolder>", re.IGNORECASE)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH_NUMBERS = {name: f"{number:02}" for number, name in enumerate(_MONTHS, start=1)}
_TIME = re.compile(rf"[A-Z][a-z]{{2}}, (\d\d) ({'|'.join(_MONTHS)}) (\d{{4}}) (\d\d:\d\d:\d\d) GMT")


def find_marker(body: bytes) -> str | None:
    """The next page's marker, read without parsing the page, so that the next request can leave at once.

    None when there is none and when only the parsed page can tell it.
    """
    found = _MARKER.search(body)
    return None if found is None else found[1].decode(errors="replace")


def parse_page(body: bytes, prefix: str) -> ParsedPage:
    """Keys come without `prefix`. Raises Unavailable for anything that is not a whole, well-formed page.

    The places of folders in Data Lake Gen2, and those that Hadoop leaves elsewhere, are no objects and left out.
    """
    root = _parse(body)
    marker = root.find("NextMarker")
    if marker is None or root.find("Blobs") is None:
        raise Unavailable(f"The store's listing does not say whether more objects follow. {NOTHING_CONCLUDED}")
    has_encoded = b'Encoded="' in body
    columns = _columns(root, has_encoded=has_encoded)
    last_key = columns[0][-1] if columns[0] else None
    if _MAY_BE_FOLDER.search(body):
        columns = _kept(columns, _objects(root))
    is_plain = not has_encoded and are_plain(columns[0])
    page = _page(columns, prefix, is_plain=is_plain, is_last=not marker.text)
    return ParsedPage(page, marker.text or None, last_key)


def _parse(body: bytes) -> Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise Unavailable(
            "The store answered a listing with something that is no whole XML document. "
            "If this stays so, check that the endpoint is the address of a Blob Storage API, not of a web page."
        ) from error
    if root.tag != "EnumerationResults":
        raise Unavailable(
            f"The store answered a listing with <{str(root.tag)[:40]}> instead of <EnumerationResults>. "
            "Check that the endpoint is the address of a Blob Storage API."
        )
    return root


@cache
def _path(steps: str) -> etree.XPath:
    return etree.XPath(f"/EnumerationResults/Blobs/Blob{steps}", smart_strings=False)


def _columns(root: Element, *, has_encoded: bool) -> list[list[str]]:
    """Names, sizes, etags and times as their texts, all of one length."""
    blobs = cast("list[Element]", _path("")(root))
    columns = [cast("list[str]", _path(f"/{column}/text()")(root)) for column in _COLUMNS]
    if has_encoded or any(len(column) != len(blobs) for column in columns):
        rows = [[_name(blob), *(blob.findtext(column) or "" for column in _COLUMNS[1:])] for blob in blobs]
        return [[row[i] for row in rows] for i in range(len(_COLUMNS))]
    return columns


def _name(blob: Element) -> str:
    """A name with letters that XML does not have comes percent-encoded; bytes that are not UTF-8 as lone surrogates."""
    element = blob.find("Name")
    text = "" if element is None else element.text or ""
    return unquote(text, errors="surrogateescape") if element is not None and element.get("Encoded") == "true" else text


def _objects(root: Element) -> list[int]:
    """Positions of all but folders."""
    return [i for i, blob in enumerate(cast("list[Element]", _path("")(root))) if not _is_folder(blob)]


def _is_folder(blob: Element) -> bool:
    if blob.findtext("Properties/ResourceType") == "directory":
        return True
    facts = cast("list[Element]", blob.findall("Metadata/*"))
    return any(str(fact.tag).lower() == "hdi_isfolder" and (fact.text or "").lower() == "true" for fact in facts)


def _kept(columns: list[list[str]], kept: list[int]) -> list[list[str]]:
    return [[column[i] for i in kept] for column in columns]


def _page(columns: list[list[str]], prefix: str, *, is_plain: bool, is_last: bool) -> ListingPage:
    unindexable: list[tuple[str, str]] = []
    if not is_plain:
        kept, unindexable = _sift(columns[0])
        columns = _kept(columns, kept)
    names, sizes, etags, modified = columns
    return ListingPage(
        keys=without_prefix(names, prefix),
        sizes=numbers(sizes),
        etags=[etag.strip('"') for etag in etags],
        modified=[_iso_time(text) for text in modified],
        unindexable=unindexable,
        is_last=is_last,
    )


def _sift(names: list[str]) -> tuple[list[int], list[tuple[str, str]]]:
    """Positions of the names that can be indexed, and the others with what is wrong with them."""
    kept: list[int] = []
    unindexable: list[tuple[str, str]] = []
    for i, text in enumerate(names):
        name = text.encode(errors="surrogateescape")
        reason = unindexable_reason(name)
        if reason is None:
            kept.append(i)
        else:
            unindexable.append((name.decode(errors="backslashreplace"), reason))
    return kept, unindexable


def _iso_time(text: str) -> str:
    found = _TIME.fullmatch(text)
    if found is None:
        raise Unavailable(f"The store listed an object without a valid time. {NOTHING_CONCLUDED}")
    day, month, year, time = found.groups()
    return f"{year}-{_MONTH_NUMBERS[month]}-{day}T{time}Z"
