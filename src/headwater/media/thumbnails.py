"""Thumbnails: how large, in which colours and in which format."""

import pyvips

from headwater.media.records import Thumbnail

THUMBNAIL_PX = 256  # of the longer side at most
QUALITY = 80


def shrink(image: pyvips.Image) -> pyvips.Image:
    """At most 256 px, upright, in 8-bit sRGB or grey. `image` may be sequential: it is read once, from the top.

    A picture keeps its colours; measurements (see `is_measurement`) are spread from black to white.
    """
    if is_measurement(image):
        return _spread(image)
    return image.thumbnail_image(THUMBNAIL_PX, height=THUMBNAIL_PX, size="down", **colour_options(image))


def colour_options(image: pyvips.Image) -> dict[str, str]:
    """What libvips' thumbnail functions need to come out in sRGB; only where there is a profile, for it costs time."""
    return {"output_profile": "srgb"} if "icc-profile-data" in image.get_fields() else {}


def is_measurement(image: pyvips.Image) -> bool:
    """One band of depth, heat or X-ray, say: numbers whose range is not that of a screen."""
    return image.format != "uchar" and image.bands == 1


def _spread(image: pyvips.Image) -> pyvips.Image:
    scale = min(1.0, THUMBNAIL_PX / max(image.width, image.height))
    known = (image == image).ifthenelse(image, 0)  # noqa: PLR0124 - NaN, "no data", differs from itself
    small = known.resize(scale).autorot().copy_memory()
    lowest, highest = small.min(), small.max()
    return ((small - lowest) * (255 / ((highest - lowest) or 1))).cast("uchar").copy(interpretation="b-w")


def encode(image: pyvips.Image) -> Thumbnail:
    """JPEG, which every client shows, or WebP where there is transparency to keep."""
    most_bands = 2 if image.interpretation == "b-w" else 4
    if image.bands > most_bands:
        image = image.extract_band(0, n=most_bands - 1)  # satellites have more bands than screens
    if image.hasalpha():
        return Thumbnail(image.webpsave_buffer(Q=QUALITY, keep="none"), "image/webp", image.width, image.height)
    content = image.jpegsave_buffer(Q=QUALITY, keep="none", optimize_coding=True)
    return Thumbnail(content, "image/jpeg", image.width, image.height)
