"""Reads one image: its facts and its thumbnail, or what is wrong with it. Runs inside a decoder process."""

from functools import cache
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from headwater.media import pillow_reader, vips_reader
from headwater.media.faults import DecodeError, diagnose
from headwater.media.probe import HEAD_BYTES, sniff_mime_type
from headwater.media.records import Prepared, Problem

MAX_PIXELS = 1_000_000_000

RAW = "Raw camera files are not developed here; store a JPEG beside them."
WHY_UNSUPPORTED = {
    "image/svg+xml": "SVG is not drawn here: it is a program, not pixels, and may refer to other files.",
    "image/x-adobe-dng": RAW,
    "image/x-canon-cr2": RAW,
    "image/x-canon-cr3": RAW,
}


def read_image(path: Path, *, read_gps: bool = False, max_pixels: int = MAX_PIXELS) -> Prepared:
    """Facts and thumbnail of the image at `path`; what is wrong with it is a Problem. Raises OSError."""
    _set_up_libraries()
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        if not head:
            return Prepared(problem=Problem("empty", "The file has no bytes."))
        mime_type = sniff_mime_type(head, path.name)
        if mime_type in vips_reader.MIME_TYPES:
            return _read(vips_reader, file, mime_type, read_gps=read_gps, max_pixels=max_pixels)
        if mime_type in pillow_reader.FORMATS:
            return _read(pillow_reader, file, mime_type, read_gps=read_gps, max_pixels=max_pixels)
        message = WHY_UNSUPPORTED.get(mime_type, f"Files of type {mime_type} are not read as images.")
        return Prepared(problem=Problem("unsupported", message))


@cache
def _set_up_libraries() -> None:
    vips_reader.set_up()
    pillow_reader.set_up()


def _read(reader: ModuleType, file: BinaryIO, mime_type: str, *, read_gps: bool, max_pixels: int) -> Prepared:
    """What is known before a fault is kept: the size comes from the header."""
    try:
        facts = reader.read_facts(file, mime_type, read_gps=read_gps)
    except (DecodeError, MemoryError) as error:
        return Prepared(problem=diagnose(error, file, mime_type))
    pixels = facts.width_px * facts.height_px
    if pixels > max_pixels:
        message = f"{facts.width_px} x {facts.height_px} pixels are more than the {max_pixels} allowed."
        return Prepared(facts, problem=Problem("too-large", message))
    try:
        return Prepared(facts, reader.make_thumbnail(file, mime_type))
    except (DecodeError, MemoryError) as error:
        return Prepared(facts, problem=diagnose(error, file, mime_type))
