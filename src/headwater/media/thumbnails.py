"""Thumbnails: how large, in which colours and in which format."""

from typing import Any

import pyvips

from headwater.media.records import Thumbnail

THUMBNAIL_PX = 256  # of the longer side at most
QUALITY = 80
KEEP_NOTHING = 0  # of EXIF, profiles and the like
PICTURE_FORMATS = ("uchar", "ushort")
MEASURED_COLOURS = ("b-w", "grey16", "srgb", "rgb", "rgb16", "multiband")  # whose numbers have no range of their own


def shrink(image: pyvips.Image) -> pyvips.Image:
    """At most 256 px, upright, in 8-bit sRGB or grey. `image` may be sequential: it is read once.

    A picture keeps its colours; measurements are spread from black to white.
    """
    if has_extra_bands(image):
        image = image.extract_band(0, n=3)
    if is_measurement(image):
        return _spread(image)
    return image.thumbnail_image(THUMBNAIL_PX, height=THUMBNAIL_PX, size="down", **colour_options(image))


def has_extra_bands(image: pyvips.Image) -> bool:
    """More than a screen shows, as satellites have; CMYK and its transparency are five."""
    return image.bands > 4 and image.interpretation != "cmyk"


def is_measurement(image: pyvips.Image) -> bool:
    """Depth, heat or X-ray, say: numbers whose range is not that of a screen."""
    if image.format in PICTURE_FORMATS:
        return image.format == "ushort" and image.bands == 1
    return image.interpretation in MEASURED_COLOURS


def colour_options(image: pyvips.Image) -> dict[str, Any]:
    """What libvips needs for a thumbnail in sRGB; nothing where there is no profile, for it costs time."""
    return {"output_profile": "srgb"} if "icc-profile-data" in image.get_fields() else {}


def _spread(image: pyvips.Image) -> pyvips.Image:
    scale = min(1.0, THUMBNAIL_PX / max(image.width, image.height))
    known = image.relational(image, "equal").ifthenelse(image, 0)  # NaN, "no data", differs from itself
    small = known.resize(scale).autorot().copy_memory()
    found = small.stats()
    lowest, highest = found.getpoint(0, 0)[0], found.getpoint(1, 0)[0]
    spread = ((small - lowest) * (255 / ((highest - lowest) or 1))).cast("uchar")
    if spread.bands < 3:
        return spread.extract_band(0).copy(interpretation="b-w")
    return spread.extract_band(0, n=3).copy(interpretation="srgb")


def encode(image: pyvips.Image) -> Thumbnail:
    """JPEG, which every client shows, or WebP where there is transparency to keep."""
    if image.hasalpha():
        content, mime_type = image.webpsave_buffer(Q=QUALITY, keep=KEEP_NOTHING), "image/webp"
    else:
        content, mime_type = image.jpegsave_buffer(Q=QUALITY, keep=KEEP_NOTHING, optimize_coding=True), "image/jpeg"
    return Thumbnail(content, mime_type, image.width, image.height)
