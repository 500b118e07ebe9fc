"""Rows of a CSV import, from their cells: which column is which, and what a row asks for.

Columns come in any order and any case, with spaces, hyphens or underscores. What cannot be is `Refused`, with the
column and a reason; nothing here asks anybody.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

import orjson

from headwater.errors import BadRequest
from headwater.mime_types import UNKNOWN, guess_extension, guess_mime_type
from headwater.wire.items import merged, metadata_patch

Action = Literal["link", "upload"]
# By how people write them, without case, spaces, hyphens and underscores.
_COLUMNS = {
    name.lower().replace("_", ""): name
    for name in ("ID", "URL", "image_bytes", "name", "action", "mimetype", "item_metadata", "item_description")
}
_NAME_NOISE = re.compile(r"[\s_\-\ufeff\u200b\x00\"']+")
_EDGES = " \t\r\n\ufeff\u200b\u00a0"
_UNDECODABLE = re.compile("[\ud800-\udfff]")
_UNSPEAKABLE = re.compile("[\ud800-\udfff\0]")
_MIME_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_KINDS = {"image": "image/jpeg", "image/jpg": "image/jpeg", "video": "video/mp4", "audio": "audio/mpeg"}
_DEFAULT_TYPE = "image/jpeg"
_DATA_URL = re.compile(r"data:([a-z0-9!#$&^_.+/-]*)(?:;[a-z0-9=_-]+)*;base64,", re.IGNORECASE)
_OF_PYTHON = re.compile(r"b(['\"])([A-Za-z0-9+/=_-]*)\1")  # how pandas writes bytes
_ABSENT = frozenset(["nan", "NaN", "None", "NA", "<NA>", "NULL", "null"])  # as pandas, R and databases write nothing
_CELL_OF_EXCEL = 32_767  # characters; Excel and LibreOffice cut off what is longer
_SPACE = re.compile(r"\s+")
_WEB = ("http://", "https://")
_SHOWN = 100  # characters of a cell in a sentence
_FEW = 10
_PLAIN_CHARS = 10_000


class Refused(Exception):
    """A row that cannot be imported: which column is to blame ('' for the row as such), and why."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(reason)
        self.column = column
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Columns:
    """Which cell is what."""

    places: dict[str, int]
    width: int
    separator: str
    unknown: list[str] = field(default_factory=list[str])  # a few of them
    unknown_count: int = 0

    def warning(self) -> str | None:
        if not self.unknown:
            return None
        shown = ", ".join(map(repr, self.unknown))
        more = f" and {self.unknown_count - len(self.unknown):,} more" if self.unknown_count > len(self.unknown) else ""
        return f"Columns that mean nothing to an import were left out: {shown}{more}."


@dataclass(frozen=True, slots=True)
class Row:
    """What one row asks for."""

    name: str  # with an extension; may lie in folders
    action: Action
    url: str  # '' when the bytes are in the row
    body: str  # base64, '' when they are not
    mime_type: str
    metadata: dict[str, Any] | None
    system_metadata: dict[str, Any] | None
    description: str | None

    def decoded(self) -> bytes:
        """The bytes of `body`. Raises Refused."""
        return _decoded(self.body)


def count_known(header: Sequence[str]) -> int:
    return sum(_column(cell) is not None for cell in header)


def read_header(header: Sequence[str], separator: str) -> Columns:
    """Raises BadRequest for a first row that does not name the columns."""
    places: dict[str, int] = {}
    unknown: list[str] = []
    for place, cell in enumerate(header):
        name = _column(cell)
        if name is None:
            if cell.strip(_EDGES):
                unknown.append(cell.strip(_EDGES))
        elif name in places:
            raise BadRequest(f"The first row names the column {name} twice: at {places[name] + 1} and {place + 1}.")
        else:
            places[name] = place
    if "URL" not in places and "image_bytes" not in places:
        shown = ", ".join(repr(cell[:_SHOWN]) for cell in header[:_FEW])
        raise BadRequest(
            "The first row has to name the columns, and one of them has to be URL or image_bytes; the others are ID, "
            f"name, action, mimetype, item_metadata and item_description. It says: {shown}"
        )
    shown_unknown = [_UNSPEAKABLE.sub("\ufffd", name[:_SHOWN]) for name in unknown[:_FEW]]
    return Columns(places, len(header), separator, shown_unknown, len(unknown))


def _column(cell: str) -> str | None:
    return _COLUMNS.get(_NAME_NOISE.sub("", cell).lower())


def shown_name(columns: Columns, cells: Sequence[str]) -> str:
    """What a verdict calls a row, however broken it is."""
    for column in ("name", "ID", "URL"):
        place = columns.places.get(column)
        if place is not None and place < len(cells) and (text := cells[place].strip(_EDGES)):
            return _UNSPEAKABLE.sub("\ufffd", text[:200])
    return ""


def is_blank(cells: Sequence[str]) -> bool:
    return not any(cell and cell.strip(_EDGES) for cell in cells)


def read_row(columns: Columns, cells: Sequence[str]) -> Row:
    """Raises Refused."""
    given = _fitted(columns, cells)
    url, body = _text(given, "URL"), _text(given, "image_bytes")
    asked = _text(given, "action").lower()
    if asked not in ("", "link", "upload"):
        raise Refused("action", f"{asked[:_SHOWN]!r} is neither link nor upload.")
    if not url and not body:
        raise Refused("URL", "There is neither a URL nor image_bytes.")
    if asked == "link" and not url:
        raise Refused("URL", "A link needs a URL. For the bytes of image_bytes leave action empty, or write upload.")
    is_link = bool(url) and asked != "upload"
    told_type = _mime_type(given)
    body_type = None if is_link else _data_type(body)
    name, mime_type = _name(given, url, told_type or body_type)
    user, system = _metadata(given)
    return Row(
        name=name,
        action="link" if is_link else "upload",
        url="" if body and not is_link else url,
        body="" if is_link else body,
        mime_type=mime_type,
        metadata=user,
        system_metadata=system,
        description=_text(given, "item_description", strip=False) or None,
    )


def _fitted(columns: Columns, cells: Sequence[str]) -> dict[str, str]:
    """By the names of columns; a row with cells that have no column is refused unless it is clear whose they are."""
    if len(cells) > columns.width and not is_blank(cells[columns.width :]):
        cells = _rejoined(columns, cells)
    return {
        name: cell
        for name, place in columns.places.items()
        if place < len(cells) and (len(cell := cells[place]) > 4 or cell not in _ABSENT or name == "ID")
    }


def _rejoined(columns: Columns, cells: Sequence[str]) -> Sequence[str]:
    """A URL with separators in it that nobody quoted: whole again where nothing else can have them."""
    at = columns.places.get("URL")
    surplus = len(cells) - columns.width
    behind = {name for name, place in columns.places.items() if at is not None and place > at}
    are_all_known = at is not None and len(behind) == columns.width - at - 1
    if at is not None and are_all_known and behind <= {"action", "mimetype"} and cells[at].startswith(_WEB):
        rest = list(cells[at + surplus + 1 :])
        if all(not cell.strip() or _is_of(name, cell) for name, cell in _named(columns, at + 1, rest)):
            return [*cells[:at], columns.separator.join(cells[at : at + surplus + 1]), *rest]
    raise Refused(
        "URL" if at is not None and at < len(cells) and cells[at].startswith(_WEB) else "",
        f"The row has {len(cells)} cells, the header {columns.width}. A cell with a {columns.separator!r} in it has to "
        'stand in quotes: "…".',
    )


def _named(columns: Columns, first: int, cells: Sequence[str]) -> list[tuple[str, str]]:
    names = {place: name for name, place in columns.places.items()}
    return [(names.get(first + number, ""), cell) for number, cell in enumerate(cells)]


def _is_of(name: str, cell: str) -> bool:
    text = cell.strip(_EDGES).lower()
    return text in ("link", "upload") if name == "action" else text in _KINDS or _MIME_TYPE.fullmatch(text) is not None


def _text(given: dict[str, str], column: str, *, strip: bool = True) -> str:
    """Raises Refused for what is no text."""
    text = given.get(column)
    if not text:
        return ""
    if text.isascii():
        if "\0" not in text:
            return text.strip(_EDGES) if strip else text
    elif (bad := _UNDECODABLE.search(text)) is not None:
        code = ord(bad[0])
        what = f"The byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else "Half a character"
        raise Refused(
            column,
            f"{what} is no text in the encoding of the file. Save it as UTF-8, or say which encoding it has.",
        )
    if "\0" in text:
        raise Refused(column, "There is a NUL character in it.")
    return text.strip(_EDGES) if strip else text


def _mime_type(given: dict[str, str]) -> str | None:
    text = _text(given, "mimetype").lower()
    if not text:
        return None
    known = _KINDS.get(text, text)
    if _MIME_TYPE.fullmatch(known) is None:
        raise Refused("mimetype", f"{text[:_SHOWN]!r} is no MIME type such as image/png, nor video.")
    return known


def _data_type(body: str) -> str | None:
    found = _DATA_URL.match(body[:300])
    if found is None or _MIME_TYPE.fullmatch(found[1].lower()) is None:
        return None
    return _KINDS.get(found[1].lower(), found[1].lower())


def _name(given: dict[str, str], url: str, told_type: str | None) -> tuple[str, str]:
    """The name with an extension, and the MIME type: what is told, then what the name says, then what the URL does."""
    last = _last_part(url)
    name = _text(given, "name") or _text(given, "ID") or last
    if not name.strip("/"):
        raise Refused("name", "Neither name nor ID says what the item is called, and the URL has no name either.")
    from_name, from_url = guess_mime_type(name), guess_mime_type(last)
    known = [one for one in (told_type, from_name, from_url) if one is not None and one != UNKNOWN]
    mime_type = known[0] if known else _DEFAULT_TYPE
    if _has_extension(name):
        return name, mime_type
    extension = last.rpartition(".")[2] if from_url == mime_type else guess_extension(mime_type)
    return f"{name}.{extension}" if extension else name, mime_type


def _has_extension(name: str) -> bool:
    """`v1.2` has none: an extension is one that says a type, or a few letters."""
    front, dot, extension = name.rpartition("/")[2].rpartition(".")
    known = guess_mime_type(name) != UNKNOWN
    return bool(front and dot) and (known or (extension.isalnum() and not extension.isdigit() and len(extension) <= 5))


def _last_part(url: str) -> str:
    path = url.partition("?")[0].partition("#")[0].partition("://")[2].partition("/")[2]
    return unquote(path.rpartition("/")[2])


def _metadata(given: dict[str, str]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The user's and the system's. `{"user": {…}}` is what the SDK calls metadata; anything else is all the user's."""
    text = _text(given, "item_metadata")
    if not text:
        return None, None
    try:
        found = orjson.loads(text)
    except ValueError as error:
        raise Refused("item_metadata", f'It is not JSON such as {{"camera": 3}}: {str(error)[:_SHOWN]}.') from None
    if not isinstance(found, dict):
        raise Refused("item_metadata", 'It is no JSON object such as {"camera": 3}.')
    if _is_plain(text) and not found.keys() & {"user", "system"}:
        return found, None
    is_whole = found.keys() <= {"user", "system"} and all(isinstance(part, dict) for part in found.values())
    try:
        patch = metadata_patch(found if is_whole and found else {"user": found})
    except BadRequest as error:
        raise Refused("item_metadata", str(error)) from None
    return merged({}, patch.user or {}), merged({}, patch.system) or None


def _is_plain(text: str) -> bool:
    """Whether nothing in a short document could be too deep, too large, a null or a NUL: most need no closer look."""
    return (
        len(text) < _PLAIN_CHARS
        and text.count("{") + text.count("[") < _FEW
        and "null" not in text
        and "\\u" not in text
    )


def _decoded(body: str) -> bytes:
    if len(body) == _CELL_OF_EXCEL:
        raise Refused(
            "image_bytes",
            f"It ends after {_CELL_OF_EXCEL:,} characters, the most that a spreadsheet's cell holds: the rest of the "
            "image is lost. Take the file as it was before a spreadsheet saved it.",
        )
    text = body
    if (marked := _DATA_URL.match(text[:300])) is not None:
        text = text[marked.end() :]
    elif text.startswith(("b'", 'b"')) and (written := _OF_PYTHON.fullmatch(text)) is not None:
        text = written[2]
    text = _SPACE.sub("", text) if not text.isalnum() else text
    if "-" in text or "_" in text:
        text = text.replace("-", "+").replace("_", "/")
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("image_bytes", "It is not base64.") from None
    if not found:
        raise Refused("image_bytes", "It holds no bytes.")
    return found
