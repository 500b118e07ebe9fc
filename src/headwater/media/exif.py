"""EXIF as plain values that JSON and PostgreSQL's jsonb take: no NUL, no surrogate, no NaN, no blob."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from PIL import ExifTags, Image

from headwater.media.records import ExifValue

LONGEST_TEXT = 500  # characters
LARGEST_INTEGER = 2**53  # what every JSON reader keeps exact

Reader = Callable[[Any], ExifValue | None]


def read_exif(block: bytes, *, read_gps: bool) -> dict[str, ExifValue]:
    """What the EXIF block of a JPEG, PNG, WebP or HEIF tells, by EXIF's own tag names. Never raises."""
    exif = Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            exif.load(block)
        except Exception:  # noqa: BLE001 - Pillow raises whatever its parser stumbles on
            return {}
        return collect_exif(exif, read_gps=read_gps)


def collect_exif(exif: Image.Exif, *, read_gps: bool) -> dict[str, ExifValue]:
    """As `read_exif`, from what Pillow has parsed. `GPSLatitude` and `GPSLongitude` are signed degrees,
    `GPSAltitude` is metres above the sea.
    """
    found = _read_tags(exif, IMAGE_TAGS) | _read_tags(_directory(exif, ExifTags.IFD.Exif), PHOTO_TAGS)
    if read_gps:
        found |= _read_position(_directory(exif, ExifTags.IFD.GPSInfo))
    return found


def _directory(exif: Image.Exif, which: ExifTags.IFD) -> Mapping[int, Any]:
    try:
        return exif.get_ifd(which)
    except Exception:  # noqa: BLE001 - as above
        return {}


def _read_tags(directory: Mapping[int, Any], readers: dict[int, Reader]) -> dict[str, ExifValue]:
    found: dict[str, ExifValue] = {}
    for tag, read in readers.items():
        try:
            value = read(directory[tag])
        except (KeyError, ValueError, TypeError, ArithmeticError, IndexError):
            continue
        if value is not None:
            found[ExifTags.TAGS[tag]] = value
    return found


def clean_text(value: object) -> str | None:
    """Text up to its first NUL, as UTF-8 where it is that, else as Latin-1; None when nothing is left."""
    if isinstance(value, tuple):
        return None
    raw = value if isinstance(value, bytes) else str(value).encode("latin-1", "replace")
    raw = raw.partition(b"\x00")[0]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return "".join(char for char in text if char.isprintable() or char in "\n\t").strip()[:LONGEST_TEXT] or None


def _integer(value: Any) -> int | None:
    number = int(_first(value))
    return number if abs(number) <= LARGEST_INTEGER else None


def _decimal(value: Any) -> float | None:
    """A rational to six significant digits; None when its denominator is zero."""
    number = float(_first(value))
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _orientation(value: Any) -> int | None:
    number = int(_first(value))
    return number if 1 <= number <= 8 else None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) else value


# Names are found in ExifTags.TAGS. No MakerNote, no UserComment, no serial numbers.
IMAGE_TAGS: dict[int, Reader] = {
    ExifTags.Base.Orientation: _orientation,
    ExifTags.Base.Make: clean_text,
    ExifTags.Base.Model: clean_text,
    ExifTags.Base.Software: clean_text,
    ExifTags.Base.DateTime: clean_text,
    ExifTags.Base.ImageDescription: clean_text,
    ExifTags.Base.Artist: clean_text,
    ExifTags.Base.Copyright: clean_text,
    ExifTags.Base.XResolution: _decimal,
    ExifTags.Base.YResolution: _decimal,
    ExifTags.Base.ResolutionUnit: _integer,
}
PHOTO_TAGS: dict[int, Reader] = {
    ExifTags.Base.DateTimeOriginal: clean_text,
    ExifTags.Base.OffsetTimeOriginal: clean_text,
    ExifTags.Base.SubsecTimeOriginal: clean_text,
    ExifTags.Base.DateTimeDigitized: clean_text,
    ExifTags.Base.OffsetTime: clean_text,
    ExifTags.Base.LensMake: clean_text,
    ExifTags.Base.LensModel: clean_text,
    ExifTags.Base.ExposureTime: _decimal,
    ExifTags.Base.FNumber: _decimal,
    ExifTags.Base.ISOSpeedRatings: _integer,
    ExifTags.Base.FocalLength: _decimal,
    ExifTags.Base.FocalLengthIn35mmFilm: _integer,
    ExifTags.Base.ExposureBiasValue: _decimal,
    ExifTags.Base.ExposureProgram: _integer,
    ExifTags.Base.MeteringMode: _integer,
    ExifTags.Base.Flash: _integer,
    ExifTags.Base.WhiteBalance: _integer,
    ExifTags.Base.ColorSpace: _integer,
}


def _read_position(gps: Mapping[int, Any]) -> dict[str, ExifValue]:
    try:
        latitude = _degrees(gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef], 90)
        longitude = _degrees(gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef], 180)
    except (KeyError, ValueError, TypeError, ArithmeticError):
        return {}
    position: dict[str, ExifValue] = {"GPSLatitude": latitude, "GPSLongitude": longitude}
    altitude_m = _altitude_m(gps)
    if altitude_m is not None:
        position["GPSAltitude"] = altitude_m
    return position


def _degrees(value: Any, reference: object, largest: float) -> float:
    """Degrees, minutes and seconds as signed degrees, to a centimetre. Raises ValueError beyond `largest`."""
    degrees, minutes, seconds = (float(part) for part in value)
    number = degrees + minutes / 60 + seconds / 3600
    if not 0 <= number <= largest:  # NaN, from a zero denominator, is not in range either
        raise ValueError(number)
    return round(-number if clean_text(reference) in ("S", "W") else number, 7)


def _altitude_m(gps: Mapping[int, Any]) -> float | None:
    try:
        above = _decimal(gps[ExifTags.GPS.GPSAltitude])
    except (KeyError, ValueError, TypeError, ArithmeticError):
        return None
    below_the_sea = gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01", "\x01")
    return -above if above is not None and below_the_sea else above
