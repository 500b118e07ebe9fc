"""Says what a file is from its first bytes; its name only decides what the bytes leave open."""

import struct
from typing import NamedTuple

HEAD_BYTES = 4096  # `sniff_mime_type` looks no further
UNKNOWN = "application/octet-stream"


class Signature(NamedTuple):
    offset: int
    magic: bytes
    mime_type: str


# The first that fits wins. Numbers from each format's specification.
SIGNATURES = (
    Signature(0, b"\xff\xd8\xff", "image/jpeg"),
    Signature(0, b"\x89PNG\r\n\x1a\n", "image/png"),
    Signature(0, b"GIF87a", "image/gif"),
    Signature(0, b"GIF89a", "image/gif"),
    Signature(8, b"CR\x02\x00", "image/x-canon-cr2"),  # a TIFF too, hence before it
    Signature(0, b"II*\x00", "image/tiff"),
    Signature(0, b"MM\x00*", "image/tiff"),
    Signature(0, b"II+\x00", "image/tiff"),  # BigTIFF
    Signature(0, b"MM\x00+", "image/tiff"),
    Signature(0, b"8BPS\x00\x01", "image/vnd.adobe.photoshop"),
    Signature(0, b"\x00\x00\x00\x0cjP  \r\n\x87\n", "image/jp2"),
    Signature(0, b"\xffO\xffQ", "image/jp2"),  # the bare codestream
    Signature(0, b"\x00\x00\x00\x0cJXL \r\n\x87\n", "image/jxl"),
    Signature(0, b"qoif", "image/qoi"),
    Signature(0, b"v/1\x01", "image/x-exr"),
    Signature(0, b"%PDF-", "application/pdf"),
    Signature(0, b"OggS", "audio/ogg"),
    Signature(0, b"fLaC", "audio/flac"),
    Signature(0, b"ID3", "audio/mpeg"),
    Signature(0, b"FLV\x01", "video/x-flv"),
    Signature(0, b"\x00\x00\x01\xba", "video/mpeg"),
    Signature(0, b"\x00\x00\x01\xb3", "video/mpeg"),
    Signature(0, b"0&\xb2u\x8ef\xcf\x11", "video/x-ms-asf"),
    Signature(0, b"PK\x03\x04", "application/zip"),
    Signature(0, b"PK\x05\x06", "application/zip"),  # an empty one
    Signature(0, b"\x1f\x8b\x08", "application/gzip"),
    Signature(0, b"BZh", "application/x-bzip2"),
    Signature(0, b"\xfd7zXZ\x00", "application/x-xz"),
    Signature(0, b"(\xb5/\xfd", "application/zstd"),
    Signature(0, b"7z\xbc\xaf'\x1c", "application/x-7z-compressed"),
    Signature(257, b"ustar", "application/x-tar"),
    Signature(0, b"PAR1", "application/vnd.apache.parquet"),
    Signature(0, b"\x93NUMPY", "application/x-npy"),
    Signature(0, b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
    Signature(0, b"SQLite format 3\x00", "application/vnd.sqlite3"),
    Signature(128, b"DICM", "application/dicom"),
    Signature(344, b"n+1\x00", "application/x-nifti"),
    Signature(344, b"ni1\x00", "application/x-nifti"),
    Signature(0, b"LASF", "application/vnd.las"),
    Signature(0, b"# .PCD", "application/x-pcd"),
    Signature(0, b"VERSION .7\n", "application/x-pcd"),  # its first line is a comment, and may be absent
    Signature(0, b"VERSION 0.7\n", "application/x-pcd"),
    Signature(0, b"ply\n", "application/x-ply"),
    Signature(0, b"ply\r\n", "application/x-ply"),
)

RIFF_FORMS = {b"WEBP": "image/webp", b"AVI ": "video/x-msvideo", b"WAVE": "audio/wav"}

# ISO 14496-12 `ftyp` brands; what is not listed is an MP4.
FTYP_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"crx ": "image/x-canon-cr3",
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"3gp4": "video/3gpp",
    b"3gp5": "video/3gpp",
}
QUICKTIME_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # first in files older than `ftyp`

# What text may be by its name: the bytes cannot tell these apart from plain text.
TEXT_EXTENSIONS = {
    "csv": "text/csv",
    "css": "text/css",
    "geojson": "application/geo+json",
    "htm": "text/html",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "jsonl": "application/jsonl",
    "md": "text/markdown",
    "ndjson": "application/jsonl",
    "obj": "model/obj",
    "py": "text/x-python",
    "srt": "application/x-subrip",
    "svg": "image/svg+xml",
    "tsv": "text/tab-separated-values",
    "vtt": "text/vtt",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
}

# What unrecognised bytes may be by their name: formats without a signature of their own.
BINARY_EXTENSIONS = {
    "bin": UNKNOWN,
    "dcm": "application/dicom",
    "mp3": "audio/mpeg",
    "mts": "video/mp2t",
    "pt": UNKNOWN,
    "tga": "image/x-tga",
    "ts": "video/mp2t",
}

MARKUP = ((b"<svg", "image/svg+xml"), (b"<!doctype html", "text/html"), (b"<html", "text/html"))
DNG_VERSION_TAG = 0xC612
MPEG_AUDIO_BITRATES = range(1, 15)


def sniff_mime_type(head: bytes, name: str) -> str:
    """The mime type by the bytes; by the extension only where the bytes leave it open. Never raises."""
    head = head[:HEAD_BYTES]
    extension = name.rpartition(".")[2].lower()
    found = _by_signature(head) or _by_container(head) or _by_structure(head)
    if found:
        return _refine(found, head)
    if not head:
        return TEXT_EXTENSIONS.get(extension, BINARY_EXTENSIONS.get(extension, UNKNOWN))
    if _is_text(head):
        return _text_type(head, extension)
    return BINARY_EXTENSIONS.get(extension, UNKNOWN)


def _by_signature(head: bytes) -> str | None:
    for offset, magic, mime_type in SIGNATURES:
        if head.startswith(magic, offset):
            return mime_type
    return None


def _by_container(head: bytes) -> str | None:
    """Formats that share a wrapper: RIFF, ISO media and Matroska."""
    if head[:4] == b"RIFF":
        return RIFF_FORMS.get(head[8:12])
    if head[4:8] == b"ftyp":
        return FTYP_BRANDS.get(head[8:12], "video/mp4")
    if head[4:8] in QUICKTIME_ATOMS:
        return "video/quicktime"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    return None


def _by_structure(head: bytes) -> str | None:
    """Formats whose magic is too short to believe without a second look."""
    if (
        head[:2] == b"BM"
        and len(head) >= 18
        and struct.unpack_from("<I", head, 14)[0] in (12, 40, 52, 56, 64, 108, 124)
    ):
        return "image/bmp"
    if head[:4] == b"\x00\x00\x01\x00" and len(head) >= 22 and 0 < head[4] < 64 and head[5] == 0:
        return "image/vnd.microsoft.icon"
    if head[:1] == b"P" and head[1:2] in b"123456" and head[2:3].isspace() and _starts_with_number(head[3:]):
        return "image/x-portable-anymap"
    if _is_mpeg_audio(head):
        return "audio/mpeg"
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return "video/mp2t"
    return None


def _starts_with_number(head: bytes) -> bool:
    rest = head.lstrip()
    return rest[:1].isdigit() or rest[:1] == b"#"


def _is_mpeg_audio(head: bytes) -> bool:
    """A frame header of MPEG audio (ISO 11172-3), layer III or II: layer I would take in UTF-16's mark."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer in (1, 2) and bitrate in MPEG_AUDIO_BITRATES and rate != 3


def _refine(mime_type: str, head: bytes) -> str:
    """The narrower type that more bytes tell."""
    if mime_type == "image/tiff" and DNG_VERSION_TAG in _tiff_tags(head):
        return "image/x-adobe-dng"
    if mime_type == "image/heif" and b"avif" in head[8:64]:
        return "image/avif"
    if mime_type == "image/heif" and b"heic" in head[8:64]:
        return "image/heic"
    if mime_type == "audio/ogg" and b"theora" in head[:128]:
        return "video/ogg"
    return mime_type


def _tiff_tags(head: bytes) -> set[int]:
    """The tags of the first directory, as far as it lies within `head`."""
    order = "<" if head[:1] == b"I" else ">"
    if len(head) < 8 or head[2:4] not in (b"*\x00", b"\x00*"):
        return set()
    (start,) = struct.unpack_from(order + "I", head, 4)
    if start + 2 > len(head):
        return set()
    (count,) = struct.unpack_from(order + "H", head, start)
    ends = range(start + 14, min(start + 2 + count * 12, len(head)) + 1, 12)
    return {struct.unpack_from(order + "H", head, end - 12)[0] for end in ends}


def _is_text(head: bytes) -> bool:
    """UTF-16 with its mark, UTF-8, or a one-byte encoding: no control characters that text never has."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    if set(head) & CONTROLS:
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut_at_the_end = error.reason == "unexpected end of data"
        return cut_at_the_end or _is_mostly_ascii(head)
    return True


CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\v\f\r\x1b") | {0x7F}


def _is_mostly_ascii(head: bytes) -> bool:
    """Prose in Latin-1 and its kin is; compressed data is not."""
    return sum(byte < 0x80 for byte in head) > 0.7 * len(head)


def _text_type(head: bytes, extension: str) -> str:
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"<":
        return _markup_type(start, extension)
    by_name = TEXT_EXTENSIONS.get(extension)
    if by_name and by_name != "image/svg+xml":
        return by_name
    return "application/json" if _is_json(start) else "text/plain"


def _markup_type(start: bytes, extension: str) -> str:
    lowered = start.lower()
    for tag, mime_type in MARKUP:
        if tag in lowered:
            return mime_type
    if lowered.startswith(b"<?xml"):
        return "application/xml"
    return TEXT_EXTENSIONS.get(extension, "text/plain")


def _is_json(start: bytes) -> bool:
    """Looks like an object or an array: `{` then a name or `}`, `[` then any value or `]`."""
    inside = start[1:].lstrip()[:1]
    if start[:1] == b"{":
        return inside in (b'"', b"}")
    return start[:1] == b"[" and inside != b"" and inside in b'"{[]-0123456789tfn'
