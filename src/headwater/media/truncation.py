"""Tells a file that ends early from a broken one by its own structure, once a decoder gave up on it."""

import os
import struct
from typing import BinaryIO

LARGEST_SCAN_BYTES = 64 * 1024**2  # of compressed data searched for an end marker


def ends_early(file: BinaryIO, mime_type: str) -> bool:
    """Whether the file is shorter than it says itself; False for formats not known here. Never raises."""
    look = {
        "image/jpeg": _jpeg_ends_early,
        "image/png": _png_ends_early,
        "image/webp": _webp_ends_early,
        "image/tiff": _tiff_ends_early,
        "image/avif": _boxes_end_early,
        "image/heic": _boxes_end_early,
        "image/heif": _boxes_end_early,
        "image/jp2": _boxes_end_early,
    }.get(mime_type)
    try:
        return look is not None and look(file, os.fstat(file.fileno()).st_size)
    except struct.error:  # the bytes ended within a number
        return True
    except OSError:
        return False


def _read(file: BinaryIO, layout: str, offset: int) -> tuple[int, ...]:
    file.seek(offset)
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _jpeg_ends_early(file: BinaryIO, size_bytes: int) -> bool:
    """Segments up to the first scan, then an end marker after it; EXIF's own thumbnail has one before."""
    offset = 2
    while True:
        mark, kind, length = _read(file, ">BBH", offset)
        if mark != 0xFF:
            return False
        offset += 2 + length
        if offset >= size_bytes:
            return True
        if kind == 0xDA:
            break
    file.seek(max(offset, size_bytes - LARGEST_SCAN_BYTES))
    return b"\xff\xd9" not in file.read(LARGEST_SCAN_BYTES)


def _png_ends_early(file: BinaryIO, size_bytes: int) -> bool:
    offset, kind = 8, 0
    while kind != 0x49454E44:  # IEND
        length, kind = _read(file, ">II", offset)
        offset += 12 + length
        if offset > size_bytes:
            return True
    return False


def _webp_ends_early(file: BinaryIO, size_bytes: int) -> bool:
    return _read(file, "<I", 4)[0] + 8 > size_bytes


def _boxes_end_early(file: BinaryIO, size_bytes: int) -> bool:
    """ISO 14496-12 boxes, one after the other; size 0 is "up to the end", 1 is "64 bits follow"."""
    offset = 0
    while offset < size_bytes:
        length, _ = _read(file, ">II", offset)
        if length == 1:
            (length,) = _read(file, ">Q", offset + 8)
        if length < 8:
            return False
        offset += length
    return offset > size_bytes


# TIFF 6.0: the tags with where the pixels are and how many bytes, by strips or by tiles.
TIFF_OFFSETS = (273, 324)
TIFF_COUNTS = (279, 325)
TIFF_TYPES = {3: "H", 4: "I"}
LARGEST_ARRAY = 1_000_000


def _tiff_ends_early(file: BinaryIO, size_bytes: int) -> bool:
    """Whether the first directory, or pixels it points to, lie beyond the end. Not for BigTIFF."""
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    magic, start = _read(file, order + "HI", 2)
    if magic != 42:
        return False
    (count,) = _read(file, order + "H", start)
    arrays = {}
    for number in range(count):
        entry = start + 2 + number * 12
        (tag,) = _read(file, order + "H", entry)
        if tag in TIFF_OFFSETS + TIFF_COUNTS:
            arrays[tag in TIFF_OFFSETS] = _read_tiff_array(file, order, entry)
    ends = (offset + length for offset, length in zip(arrays.get(True, ()), arrays.get(False, ()), strict=False))
    return max(ends, default=0) > size_bytes


def _read_tiff_array(file: BinaryIO, order: str, entry: int) -> tuple[int, ...]:
    kind, count = _read(file, order + "HI", entry + 2)
    if kind not in TIFF_TYPES or count > LARGEST_ARRAY:
        return ()
    layout = f"{order}{count}{TIFF_TYPES[kind]}"
    if struct.calcsize(layout) <= 4:
        return _read(file, layout, entry + 8)
    return _read(file, layout, _read(file, order + "I", entry + 8)[0])
