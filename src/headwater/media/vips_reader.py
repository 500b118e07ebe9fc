"""Reads images through libvips, which decodes only as much as a thumbnail needs."""

from typing import Any, BinaryIO

import pyvips
from PIL import Image

from headwater.media.exif import collect_exif, read_exif
from headwater.media.faults import DecodeError
from headwater.media.records import ExifValue, ImageFacts, Thumbnail
from headwater.media.thumbnails import THUMBNAIL_PX, colour_options, encode, has_extra_bands, is_measurement, shrink

MIME_TYPES = frozenset({"image/jpeg", "image/png", "image/webp", "image/tiff", "image/heic", "image/heif"})
# libjpeg can shrink to 1/8 while decoding; we keep half as much again as the thumbnail needs.
JPEG_SHRINKS = (8, 4, 2)
JPEG_SPARE = 1.5


def set_up() -> None:
    """Once in a process: no cache, for no two files are alike."""
    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)


def read_facts(file: BinaryIO, mime_type: str, *, read_gps: bool) -> ImageFacts:
    """From the header only. Raises DecodeError."""
    try:
        header = _open(file, mime_type)
        block = bytes(header.get("exif-data")) if "exif-data" in header.get_fields() else b""  # pyright: ignore[reportArgumentType] - a blob
    except pyvips.Error as error:
        raise _translate(error) from error
    exif = (
        _read_tiff_tags(file, read_gps=read_gps) if mime_type == "image/tiff" else read_exif(block, read_gps=read_gps)
    )
    return ImageFacts(mime_type, header.width, header.height, header.bands, exif)


def make_thumbnail(file: BinaryIO, mime_type: str) -> Thumbnail:
    """Raises DecodeError, also for a file that ends early or is damaged where the format can tell."""
    try:
        header = _open(file, mime_type)
        if mime_type == "image/jpeg":
            return encode(shrink(_open(file, mime_type, shrink=_choose_jpeg_shrink(header))))
        if is_measurement(header) or has_extra_bands(header):
            return encode(shrink(header))
        return encode(_shrink_on_load(file, header))
    except pyvips.Error as error:
        raise _translate(error) from error


def _open(file: BinaryIO, mime_type: str, **options: Any) -> pyvips.Image:
    """JPEG by its plain loader: the finder may take the one for gain maps (HDR), twice as slow."""
    if mime_type != "image/jpeg":
        return pyvips.Image.new_from_file(_path(file), access="sequential", fail_on="error", **options)
    return pyvips.Image.jpegload(_path(file), access="sequential", fail_on="error", **options)


def _path(file: BinaryIO) -> str:
    """The open file by a name without the characters that libvips reads as options."""
    return f"/dev/fd/{file.fileno()}"


def _choose_jpeg_shrink(header: pyvips.Image) -> int:
    """The largest that leaves enough of the longer side, and a pixel of the shorter."""
    shorter_px, longer_px = sorted((header.width, header.height))
    largest = min(shorter_px, longer_px / (THUMBNAIL_PX * JPEG_SPARE))
    return next((shrink for shrink in JPEG_SHRINKS if shrink <= largest), 1)


def _shrink_on_load(file: BinaryIO, header: pyvips.Image) -> pyvips.Image:
    """Uses what the format offers: smaller pages of a TIFF, WebP's scaling, the thumbnail in a HEIF.

    By path: from a source or a buffer libvips 8.18 forgets `fail_on`.
    """
    return pyvips.Image.thumbnail(
        _path(file), THUMBNAIL_PX, height=THUMBNAIL_PX, size="down", fail_on="error", **colour_options(header)
    )


def _read_tiff_tags(file: BinaryIO, *, read_gps: bool) -> dict[str, ExifValue]:
    file.seek(0)
    try:
        with Image.open(file, formats=["TIFF"]) as image:
            return collect_exif(image.getexif(), read_gps=read_gps)
    except Exception:  # noqa: BLE001 - Pillow raises whatever its parser stumbles on
        return {}


def _translate(error: pyvips.Error) -> DecodeError:
    return DecodeError(error.detail or error.message)
