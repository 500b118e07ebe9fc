"""Reads the records of a CSV file from its bytes as they come, a block at a time: memory follows the longest row.

Rows are counted as spreadsheets do: the first line is row 1, blank lines count, and a cell that holds line ends is
part of its row. What cannot be read is a record with a reason, and the next line begins anew: a quote that is never
closed costs its own line and no more. Bytes that are nothing in the file's encoding become lone surrogates.
"""

import codecs
import csv
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from headwater.errors import BadRequest
from headwater.work.csv_import.encodings import UTF_16, bom_bytes

LONGEST_ROW = 128 * 1024 * 1024  # in characters: an image of some 90 MB as base64
_BLOCK_BYTES = 1024 * 1024
_LONG_LINE = 1024 * 1024  # in characters
_MOST_REREAD = 8 * LONGEST_ROW  # characters that are read again because quotes do not fit
SEPARATORS = (",", ";", "\t", "|")
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")  # with its end, and what is behind the last
_SEP_LINE = re.compile(r"sep=([,;|\t])?\r?\n?")
_UNCLOSED = "A quote is opened in this row and never closed. Write a quote inside a quoted cell twice, or close it."
_CUT_OFF = "\udc00"  # stands for half a character at the end of a file


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is written."""

    encoding: str
    separator: str = ","
    skips_spaces: bool = False  # behind separators


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the file where a row begins, so that reading may begin there, too."""

    byte: int
    row: int  # the number of that row


@dataclass(frozen=True, slots=True)
class Record:
    row: int
    cells: list[str]
    point: Point  # a place at or before it
    reason: str | None = None  # why it cannot be read


class Reader:
    """Takes the bytes from a `Point` on and gives back records, those up to the last line end that has come."""

    def __init__(self, layout: Layout, start: Point, *, longest_row: int = LONGEST_ROW) -> None:
        self._layout = layout
        self._point = start
        self._longest = longest_row
        self._held = bytearray()
        self._wanted_bytes = _BLOCK_BYTES
        self._reread = 0
        self._is_skipping = False  # the rest of a line that is too long
        self._unit = 2 if layout.encoding in UTF_16 else 1
        self._errors = "surrogatepass" if layout.encoding in UTF_16 else "surrogateescape"
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # of the whole process; rows have a limit of their own

    def feed(self, chunk: bytes) -> list[Record]:
        """Raises BadRequest for a file whose quotes make no sense throughout."""
        self._held += chunk
        return self._take(is_last=False) if len(self._held) >= self._wanted_bytes else []

    def end(self) -> list[Record]:
        return self._take(is_last=True)

    def _take(self, *, is_last: bool) -> list[Record]:
        if self._is_skipping and not self._skip_line(is_last=is_last):
            return []
        length = len(self._held) if is_last else _after_last_line(self._held, self._layout.encoding)
        if not length:
            return self._wait_for_more(len(self._held))
        with memoryview(self._held)[:length] as raw:  # a row may be long, and there are copies enough of it
            text = self._decoded(raw, is_last=is_last)
        del self._held[:length]
        records, rest = self._parsed(text, is_last=is_last)
        unused = rest.encode(self._layout.encoding, self._errors)
        self._held[:0] = unused
        used = length - len(unused)
        self._point = Point(self._point.byte + used, self._point.row + len(records))
        self._wanted_bytes = max(_BLOCK_BYTES, 2 * len(self._held))
        return records

    def _wait_for_more(self, held_bytes: int) -> list[Record]:
        if held_bytes <= self._longest * self._unit:
            self._wanted_bytes = max(_BLOCK_BYTES, 2 * held_bytes)
            return []
        found = Record(self._point.row, [], self._point, self._too_long())
        self._point = Point(self._point.byte + held_bytes, self._point.row + 1)
        self._held.clear()
        self._wanted_bytes = _BLOCK_BYTES
        self._is_skipping = True
        return [found]

    def _skip_line(self, *, is_last: bool) -> bool:
        """Whether its end has come."""
        raw = bytes(self._held)
        length = len(raw) if is_last else _after_first_line(raw, self._layout.encoding)
        self._is_skipping = not length and not is_last
        used = length or max(0, len(raw) - len(raw) % self._unit - 2 * self._unit)
        del self._held[:used]
        self._point = Point(self._point.byte + used, self._point.row)
        return not self._is_skipping

    def _too_long(self) -> str:
        return f"The row is longer than {self._longest:,} characters. Upload what it holds as a file instead."

    def _decoded(self, raw: memoryview, *, is_last: bool) -> str:
        if is_last and len(raw) % self._unit:
            return str(raw[:-1], self._layout.encoding, self._errors) + _CUT_OFF
        return str(raw, self._layout.encoding, self._errors)

    def _parsed(self, text: str, *, is_last: bool) -> tuple[list[Record], str]:
        """The records of these whole lines, and what is left of one that does not end with them."""
        lines = _LINE.findall(text)
        records: list[Record] = []
        first = 0
        while first < len(lines):
            if self._is_long_and_plain(lines[first]):
                records.append(Record(self._point.row + len(records), self._split(lines[first]), self._point))
                first += 1
                continue
            start = first
            reader = self._csv(lines, first)
            try:
                for cells in reader:
                    end = first + reader.line_num
                    if len(text) > self._longest and sum(map(len, lines[start:end])) > self._longest:
                        self._refuse(records, lines[start:end], self._too_long())
                        start += 1
                        break
                    records.append(Record(self._point.row + len(records), cells, self._point))
                    start = end
                    if end < len(lines) and self._is_long_and_plain(lines[end]):
                        break
            except csv.Error as error:
                is_open = "unexpected end" in str(error)
                if is_open and not is_last and sum(map(len, lines[start:])) <= self._longest:
                    return records, "".join(lines[start:])
                self._refuse(records, lines[start : first + reader.line_num], _quotes(error))
                start += 1
            first = start
        return records, ""

    def _is_long_and_plain(self, line: str) -> bool:
        """Python's reader would take eight times as much memory as the line."""
        return _LONG_LINE < len(line) <= self._longest and '"' not in line

    def _split(self, line: str) -> list[str]:
        cells = line.rstrip("\r\n").split(self._layout.separator)
        return [cell.lstrip(" ") for cell in cells] if self._layout.skips_spaces else cells

    def _csv(self, lines: list[str], first: int) -> Any:  # the type of csv.reader has no name of its own
        layout = self._layout
        rest = (lines[number] for number in range(first, len(lines)))
        return csv.reader(rest, delimiter=layout.separator, skipinitialspace=layout.skips_spaces, strict=True)

    def _refuse(self, records: list[Record], lines: list[str], reason: str) -> None:
        """A record with the cells of its first line as far as they can be told; the lines behind it are read again."""
        self._reread += sum(map(len, lines[1:]))
        if self._reread > _MOST_REREAD:
            raise BadRequest(
                f"The quotes of the file do not fit together: from row {self._point.row + len(records)} on, cells are "
                "opened and never closed. Write a quote inside a quoted cell twice."
            )
        cells = lines[0].rstrip("\r\n").split(self._layout.separator) if len(lines[0]) < _BLOCK_BYTES else []
        records.append(Record(self._point.row + len(records), cells, self._point, reason))


def _quotes(error: csv.Error) -> str:
    if "unexpected end" in str(error):
        return _UNCLOSED
    return (
        "Something follows the closing quote of a cell. Between the quote and the next separator or line end nothing "
        "may stand; a quote inside a quoted cell is written twice."
    )


def _after_last_line(raw: bytes | bytearray, encoding: str) -> int:
    """Behind the last line end that is whole for certain: an LF may follow a CR at the very end. 0: there is none."""
    if encoding not in UTF_16:
        return max(raw.rfind(b"\n"), raw.rfind(b"\r", 0, max(0, len(raw) - 1))) + 1
    order = "little" if encoding == "utf-16-le" else "big"
    even = len(raw) - len(raw) % 2
    return max(
        _aligned(raw, (10).to_bytes(2, order), even),
        _aligned(raw, (13).to_bytes(2, order), max(0, even - 2)),
    )


def _aligned(raw: bytes | bytearray, unit: bytes, end: int) -> int:
    at = raw.rfind(unit, 0, end)
    while at > 0 and at % 2:
        at = raw.rfind(unit, 0, at + 1)
    return at + 2 if at >= 0 and at % 2 == 0 else 0


def _after_first_line(raw: bytes, encoding: str) -> int:
    """0: none ends here."""
    held = len(raw) - len(raw) % 2 if encoding in UTF_16 else len(raw)
    text = codecs.decode(raw[:held], encoding, "surrogatepass" if encoding in UTF_16 else "surrogateescape")
    found = _LINE.match(text)
    line = found[0] if found is not None else ""
    if not line.endswith(("\r", "\n")) or (line == text and line.endswith("\r")):
        return 0
    return len(line.encode(encoding, "surrogatepass" if encoding in UTF_16 else "surrogateescape"))


@dataclass(frozen=True, slots=True)
class Outline:
    """How a file is written, what its header says, and where its rows begin."""

    layout: Layout
    header: list[str]
    header_row: int
    rows: Point


def read_outline(
    head: bytes, encoding: str, separator: str | None, count_known: Callable[[list[str]], int], *, is_whole: bool
) -> Outline | None:
    """From the beginning of a file; None when its header does not end in `head`, unless that is all there is.

    Without a separator it is the one that makes most of the header: most known columns, then most cells. A first line
    `sep=;`, as Excel writes it, says it, too. Raises BadRequest.
    """
    bom = bom_bytes(head, encoding)
    errors = "surrogatepass" if encoding in UTF_16 else "surrogateescape"
    length = len(head) if is_whole else _after_last_line(head, encoding)
    length -= (length - bom) % (2 if encoding in UTF_16 else 1)
    lines = _LINE.findall(head[bom:length].decode(encoding, errors))
    first = 0
    if lines and (told := _SEP_LINE.fullmatch(lines[0])) is not None:
        separator, first = told[1] or "\t", 1
    while first < len(lines) and not lines[first].strip("\r\n \t,;|\ufeff\0"):
        first += 1
    if first == len(lines):
        if is_whole:
            raise BadRequest("The file has no rows: it is empty." if not lines else "The file holds blank lines only.")
        return None
    found = [_header(lines, first, one) for one in ([separator] if separator else SEPARATORS)]
    whole = [one for one in found if one is not None]
    best = max(whole, key=lambda one: (count_known(one[1]), len(one[1])), default=None)
    if best is None or (len(whole) < len(found) and not count_known(best[1])):
        if is_whole:
            raise BadRequest(f"Row {first + 1}, which should name the columns, cannot be read: {_UNCLOSED}")
        return None
    layout, header, end = best
    used = len("".join(lines[:end]).encode(encoding, errors))
    return Outline(
        Layout(encoding, layout.separator, layout.skips_spaces), header, first + 1, Point(bom + used, first + 2)
    )


def _header(lines: list[str], first: int, separator: str) -> tuple[Layout, list[str], int] | None:
    """Its layout (but for the encoding), its cells, and the number of the line behind it. None: it does not end."""
    for skips_spaces in (False, True):
        reader = csv.reader(
            (lines[number] for number in range(first, len(lines))),
            delimiter=separator,
            skipinitialspace=skips_spaces,
            strict=True,
        )
        try:
            cells = next(reader)
        except csv.Error:
            continue
        if skips_spaces or len(cells) == 1 or not all(cell.startswith(" ") for cell in cells[1:]):
            return Layout("", separator, skips_spaces), cells, first + reader.line_num
    return None
