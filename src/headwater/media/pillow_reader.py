"""Reads through Pillow the formats that libvips lacks, or reads differently from Pillow."""

from typing import BinaryIO

import pyvips
from PIL import Image, ImageOps

from headwater.media.exif import collect_exif
from headwater.media.faults import DecodeError
from headwater.media.records import ImageFacts, Thumbnail
from headwater.media.thumbnails import THUMBNAIL_PX, encode, shrink

# Named one by one: Pillow knows formats that start other programs.
# AVIF is here because libvips tells its size after turning it, Pillow before; GIF because libvips believes the
# first frame rather than the declared size.
FORMATS = {
    "image/avif": "AVIF",
    "image/bmp": "BMP",
    "image/gif": "GIF",
    "image/jp2": "JPEG2000",
    "image/qoi": "QOI",
    "image/vnd.adobe.photoshop": "PSD",
    "image/vnd.microsoft.icon": "ICO",
    "image/x-portable-anymap": "PPM",
}
EXPANDED_MODES = {
    "1": "L",
    "P": "RGB",
    "PA": "RGBA",
    "I": "I;16",
    "La": "LA",
    "RGBa": "RGBA",
    "YCbCr": "RGB",
    "LAB": "RGB",
}
SPARE = 2.0  # by how much more than the thumbnail the first, fast reduction leaves


def set_up() -> None:
    """Once in a process: Pillow's own limit yields to ours, which is checked between header and pixels."""
    Image.MAX_IMAGE_PIXELS = None
    Image.init()


def read_facts(file: BinaryIO, mime_type: str, *, read_gps: bool) -> ImageFacts:
    """From the header only. Raises DecodeError, MemoryError."""
    try:
        with _open(file, mime_type) as image:
            channels = len(Image.new(_expanded_mode(image), (1, 1)).getbands())
            exif = collect_exif(image.getexif(), read_gps=read_gps)
            return ImageFacts(mime_type, image.width, image.height, channels, exif)
    except MemoryError:
        raise
    except Exception as error:
        raise _translate(error) from error


def make_thumbnail(file: BinaryIO, mime_type: str) -> Thumbnail:
    """Raises DecodeError, MemoryError."""
    try:
        with _open(file, mime_type) as image:
            return encode(shrink(_to_vips(_decode_small(image), image.info.get("icc_profile"))))
    except MemoryError:
        raise
    except Exception as error:
        raise _translate(error) from error


def _open(file: BinaryIO, mime_type: str) -> Image.Image:
    file.seek(0)
    return Image.open(file, formats=[FORMATS[mime_type]])


def _expanded_mode(image: Image.Image) -> str:
    if "transparency" in image.info:
        return "RGBA"
    return EXPANDED_MODES.get(image.mode, image.mode)


def _decode_small(image: Image.Image) -> Image.Image:
    """Upright; 8 bits a channel are reduced already, more bits are left to libvips."""
    mode = _expanded_mode(image)
    expanded = image if mode == image.mode else image.convert(mode)
    if not mode.startswith("I"):
        expanded.thumbnail((THUMBNAIL_PX * SPARE, THUMBNAIL_PX * SPARE), reducing_gap=SPARE)
    return ImageOps.exif_transpose(expanded)


def _to_vips(image: Image.Image, profile: bytes | None) -> pyvips.Image:
    bands = len(image.getbands())
    number = "ushort" if image.mode.startswith("I") else "uchar"
    raw = pyvips.Image.new_from_memory(image.tobytes(), image.width, image.height, bands, number)
    colours = raw.copy(interpretation={"CMYK": "cmyk", "RGB": "srgb", "RGBA": "srgb"}.get(image.mode, "b-w"))
    if profile:
        colours = colours.copy()
        colours.set_type(pyvips.GValue.blob_type, "icc-profile-data", profile)  # pyright: ignore[reportArgumentType] - the stub forgets bytes
    return colours


def _translate(error: Exception) -> DecodeError:
    return DecodeError(f"{type(error).__name__}: {error}")
