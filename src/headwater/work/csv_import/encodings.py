"""Which encoding a CSV file has: told by its first bytes, by whether all of it is UTF-8, or guessed from a sample."""

import codecs
import hashlib
import re

from charset_normalizer import from_bytes

from headwater.errors import BadRequest

UTF_16 = ("utf-16-le", "utf-16-be")
_BOMS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
# In which ASCII is ASCII and no byte of another character is a line's end, so that lines may be cut as bytes. The first
# of those that fit a sample equally well is taken.
_GUESSED = ("cp949", "cp1252", "cp932", "gb18030", "big5", "cp1251", "cp1250")
_READ = frozenset(
    [*_GUESSED, "ascii", "euc_kr", "johab", "shift_jis", "euc_jp", "gbk", "gb2312", "big5hkscs", "koi8-r", "koi8-u"]
    + [f"cp{number}" for number in (437, 850, 852, 866, 874, *range(1253, 1259))]
    + ["iso8859-1", *(f"iso8859-{number}" for number in range(2, 17) if number != 12)]
    + ["mac-roman", "tis-620", "utf-8", *UTF_16]
)
_FORMATS = {
    b"PK\x03\x04": "a ZIP archive, as Excel's XLSX files are",
    b"PK\x05\x06": "a ZIP archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (XLS)",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "compressed by gzip",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"SQLite format 3": "an SQLite database",
}
_HEAD_BYTES = 4096
_SAMPLE_BYTES = 64 * 1024
_AROUND = re.compile(rb"[^\x00-\x1f,;|\"]*[\x80-\xff][^\x00-\x1f,;|\"]*")  # cells that are not all ASCII
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_BEFORE_BYTES = 200
_ESCAPED = re.compile("[\udc80-\udcff]")
_OTHER_LETTERS = re.compile("[^\x00-\x7f\udc80-\udcff]")


def check_encoding(name: str) -> str:
    """As Python names it. Raises BadRequest for one that is not read."""
    wanted = name.strip().lower().replace("_", "-")
    if wanted in ("utf-16", "utf16"):
        return "utf-16-le"  # without a mark of its own; one that has it needs no option
    try:
        found = codecs.lookup(wanted).name
    except (LookupError, ValueError):
        found = ""
    found = {"utf-8-sig": "utf-8"}.get(found, found)
    if found not in _READ:
        raise BadRequest(f"encoding: {name[:50]!r} is not read. Read are utf-8, utf-16, cp1252, cp949, shift_jis, …")
    return found


class Census:
    """Looks at every byte of a file as it comes: its size, its SHA-256, and whether it can be read."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._hash = hashlib.sha256()
        self._head = bytearray()
        self._sample = bytearray()
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._bad = 0
        self._good = 0  # letters of chunks that have bad bytes

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def feed(self, chunk: bytes) -> None:
        """Raises BadRequest as soon as it is clear that this is no CSV."""
        is_known = len(self._head) >= _HEAD_BYTES
        self.size_bytes += len(chunk)
        self._hash.update(chunk)
        if not is_known:
            self._head += chunk[: _HEAD_BYTES - len(self._head)]
            _check_format(bytes(self._head))
        if chunk.isascii() and not self._utf8.getstate()[0]:
            return
        if len(self._sample) < _SAMPLE_BYTES:
            first = _NOT_ASCII.search(chunk)
            start = max(0, first.start() - _BEFORE_BYTES) if first is not None and not self._sample else 0
            self._sample += chunk[start : start + _SAMPLE_BYTES]
        self._count(chunk, is_last=False)

    def _count(self, chunk: bytes, *, is_last: bool) -> None:
        held = self._utf8.getstate()[0]
        try:
            self._utf8.decode(chunk, final=is_last)
        except UnicodeDecodeError:
            text = (held + chunk).decode("utf-8", "surrogateescape")
            self._bad += len(_ESCAPED.findall(text))
            self._good += len(_OTHER_LETTERS.findall(text))
            self._utf8.reset()

    def encoding(self) -> str:
        """Of the whole file. Raises BadRequest for one that is not read."""
        head = bytes(self._head)
        marked = next((name for bom, name in _BOMS.items() if head.startswith(bom)), None)
        if marked == "utf-32":
            raise BadRequest("The file is UTF-32, which is not read. Save it as UTF-8.")
        if marked is not None:
            return marked
        if (without_mark := _utf_16_by_zeros(head)) is not None:
            return without_mark
        self._count(b"", is_last=True)
        # A few bytes that were damaged do not make a file of UTF-8 something else: their rows are refused.
        if self._bad <= self._good or not self._bad:
            return "utf-8"
        return _guess(bytes(self._sample[:_SAMPLE_BYTES]))


def bom_bytes(head: bytes, encoding: str) -> int:
    """How long the mark at the beginning of a file is."""
    return max((len(bom) for bom, name in _BOMS.items() if name == encoding and head.startswith(bom)), default=0)


def _check_format(head: bytes) -> None:
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            raise BadRequest(f"The file is no CSV: it is {name}. Save the table as CSV (UTF-8) and send that.")


def _utf_16_by_zeros(head: bytes) -> str | None:
    """Text with ASCII in it has a zero beside most of its letters."""
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = max(1, len(head) // 2)
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.4 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _guess(sample: bytes) -> str:
    cells = b"\n".join(_AROUND.findall(sample))
    matches = from_bytes(cells, cp_isolation=list(_GUESSED), threshold=0.5)
    fits = {name: match.chaos for match in matches for name in match.could_be_from_charset}
    if not fits:
        return "cp1252"
    best = min(fits.values())
    return next(name for name in (*_GUESSED, *fits) if name in fits and fits[name] <= best)
