"""Reads one page of S3's ListObjectsV2 into columns, fast and byte-exact; no network here."""

import re
from dataclasses import replace
from functools import cache
from typing import Any, cast
from urllib.parse import unquote_plus, unquote_to_bytes

from lxml import etree

from headwater.errors import Unavailable
from headwater.storage.columns import (
    NOTHING_CONCLUDED,
    are_plain,
    checked_times,
    numbers,
    without_prefix,
)
from headwater.storage.progress import ParsedPage
from headwater.storage.stores import ListingPage, unindexable_reason

Element = Any  # lxml's class of elements has no public name

_COLUMNS = ("Key", "Size", "ETag", "LastModified")
_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)</NextContinuationToken>")
_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPLACEMENT = "\ufffd"


def find_token(body: bytes) -> str | None:
    """The next page's token, read without parsing the page, so that the next request can leave at once.

    None when there is none and when only the parsed page can tell it.
    """
    found = _TOKEN.search(body)
    if found is None:
        return None
    token = found[1].decode(errors="replace")
    return None if "&" in token or _REPLACEMENT in token else token


def parse_page(body: bytes, prefix: str) -> ParsedPage:
    """Keys come without `prefix`. Raises Unavailable for anything that is not a whole, well-formed page."""
    root = _parse(body)
    space = etree.QName(root).namespace
    truncated = _text(root, space, "IsTruncated")
    if truncated not in {"true", "false"}:
        raise Unavailable(f"The store's listing does not say whether more objects follow. {NOTHING_CONCLUDED}")
    columns = _columns(root, space)
    is_encoded = _text(root, space, "EncodingType") == "url"
    last_key = _decoded(columns[0][-1], is_encoded=is_encoded) if columns[0] else None
    page = _page(columns, prefix, is_encoded=is_encoded, is_last=truncated == "false")
    token = None if page.is_last else _exact_token(_text(root, space, "NextContinuationToken"), last_key)
    return ParsedPage(page, token, last_key)


def unended(parsed: ParsedPage, most_keys: int) -> ParsedPage:
    """A full page is never the last.

    SeaweedFS 4.48 says so of one that ends with the last object of a folder, though a folder of that name follows.
    """
    page = parsed.page
    if not page.is_last or len(page.keys) + len(page.unindexable) < most_keys:
        return parsed
    return replace(parsed, page=replace(page, is_last=False), token=parsed.last_key)


def _parse(body: bytes) -> Element:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
    try:
        root = etree.fromstring(body, parser)
    except etree.XMLSyntaxError as error:
        raise Unavailable(
            "The store answered a listing with something that is no whole XML document. "
            "If this stays so, check that the endpoint is the address of an S3 API, not of a web page."
        ) from error
    name = etree.QName(root).localname
    if name != "ListBucketResult":
        raise Unavailable(
            f"The store answered a listing with <{name[:40]}> instead of <ListBucketResult>. "
            "Check that the endpoint is the address of an S3 API."
        )
    return root


@cache
def _path(space: str | None, steps: str) -> etree.XPath:
    """`steps` such as 'Contents/Key', all in one namespace or in none."""
    if space is None:
        return etree.XPath(f"/ListBucketResult/{steps}", smart_strings=False)
    inside = "/".join(f"x:{step}" for step in steps.split("/"))
    return etree.XPath(f"/x:ListBucketResult/{inside}", namespaces={"x": space}, smart_strings=False)


@cache
def _texts(space: str | None, column: str) -> etree.XPath:
    path = cast("Any", _path(space, f"Contents/{column}")).path
    return etree.XPath(f"{path}/text()", namespaces={"x": space} if space else None, smart_strings=False)


def _text(root: Element, space: str | None, name: str) -> str | None:
    return root.findtext(f"{{{space}}}{name}" if space else name)


def _columns(root: Element, space: str | None) -> list[list[str]]:
    """Keys, sizes, etags and times as their texts, all of one length."""
    columns = [cast("list[str]", _texts(space, column)(root)) for column in _COLUMNS]
    objects = cast("list[Element]", _path(space, "Contents")(root))
    if any(len(column) != len(objects) for column in columns):
        rows = [[_text(element, space, column) for column in _COLUMNS] for element in objects]
        return [[row[i] or "" for row in rows] for i in range(len(_COLUMNS))]
    return columns


def _page(columns: list[list[str]], prefix: str, *, is_encoded: bool, is_last: bool) -> ListingPage:
    keys, sizes, etags, modified = columns
    unindexable: list[tuple[str, str]] = []
    exact = _plain_keys(keys, is_encoded=is_encoded)
    if exact is None:
        kept, unindexable = _sift(keys, is_encoded=is_encoded)
        exact = [_decoded(keys[i], is_encoded=is_encoded) for i in kept]
        sizes, etags, modified = ([column[i] for i in kept] for column in (sizes, etags, modified))
    return ListingPage(
        keys=without_prefix(exact, prefix),
        sizes=numbers(sizes),
        etags=[etag.strip('"') for etag in etags],
        modified=checked_times(modified),
        unindexable=unindexable,
        is_last=is_last,
    )


def _plain_keys(keys: list[str], *, is_encoded: bool) -> list[str] | None:
    """The exact keys of a page; None when some of them may be unfit for the index."""
    try:
        exact = _decode_all(keys) if is_encoded else keys
    except UnicodeDecodeError:
        return None
    return exact if are_plain(exact) else None


def _decode_all(keys: list[str]) -> list[str]:
    joined = "".join(keys)
    if "%" not in joined and "+" not in joined:
        return keys
    return [unquote_plus(key, errors="strict") if "%" in key or "+" in key else key for key in keys]


def _decoded(key: str, *, is_encoded: bool) -> str:
    """Bytes that are not UTF-8 come as lone surrogates."""
    return unquote_plus(key, errors="surrogateescape") if is_encoded else key


def _sift(keys: list[str], *, is_encoded: bool) -> tuple[list[int], list[tuple[str, str]]]:
    """Positions of the keys that can be indexed, and the others with what is wrong with them."""
    kept: list[int] = []
    unindexable: list[tuple[str, str]] = []
    for i, key in enumerate(keys):
        name = unquote_to_bytes(key.replace("+", " ")) if is_encoded else key.encode()
        reason = unindexable_reason(name)
        if reason is None:
            kept.append(i)
        else:
            unindexable.append((name.decode(errors="backslashreplace"), reason))
    return kept, unindexable


def _exact_token(token: str | None, last_key: str | None) -> str | None:
    r"""Mend the token of a server that makes it of the last key, and cannot write control characters in XML.

    SeaweedFS 4.48 answers `a\ufffdb` after the key `a\x01b`, which would silently skip `a\x02b`.
    """
    if not token:
        raise Unavailable("The store says that more objects follow, but not how to ask for them.")
    if _REPLACEMENT not in token:
        return token
    if last_key is None or not token.startswith(_NOT_IN_XML.sub(_REPLACEMENT, last_key)):
        raise Unavailable("The store's continuation token is damaged, so the listing cannot go on.")
    return last_key + token[len(last_key) :]
