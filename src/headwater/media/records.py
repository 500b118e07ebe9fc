"""What media tells about a file: its facts, its thumbnail, or the problem that kept us from them."""

from dataclasses import dataclass
from typing import Literal

Reason = Literal[
    "truncated",  # the file ends early
    "corrupt",  # its bytes contradict its format
    "unsupported",  # not an image, or one we do not read
    "too-large",  # it declares more pixels than allowed
    "timeout",  # decoding took longer than allowed
    "out-of-memory",  # decoding needed more memory than allowed
    "decoder-crashed",  # the decoder died of this file
    "empty",  # no bytes at all
    "dead-link",  # what it leads to cannot be had
]

ExifValue = int | float | str  # finite numbers; text without NUL and surrogates: fit for PostgreSQL's jsonb


@dataclass(frozen=True, slots=True)
class ImageFacts:
    mime_type: str  # by the bytes
    width_px: int  # as stored, before EXIF orientation
    height_px: int
    channels: int  # bands once decoded: 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA or CMYK
    exif: dict[str, ExifValue]  # by EXIF's own names: Orientation, Make, ExposureTime, …


@dataclass(frozen=True, slots=True)
class VideoFacts:
    mime_type: str  # by the bytes
    width_px: int  # as coded, before rotation; 0 where the headers do not say it
    height_px: int
    duration_s: float | None  # None where the headers do not say it
    fps: float | None
    rate: str | None  # the same as a fraction, "30000/1001"
    frames: int | None  # as its index counts them, or else by duration and rate
    codec: str | None  # as FFmpeg calls it


@dataclass(frozen=True, slots=True)
class Thumbnail:
    content: bytes
    mime_type: str
    width_px: int  # upright: EXIF orientation is applied
    height_px: int


@dataclass(frozen=True, slots=True)
class Problem:
    reason: Reason
    message: str  # a sentence a person can act on


@dataclass(frozen=True, slots=True)
class Prepared:
    """Either a thumbnail or a problem; a problem may still come with facts (a truncated file has a size)."""

    facts: ImageFacts | None = None
    thumbnail: Thumbnail | None = None
    problem: Problem | None = None
    video: VideoFacts | None = None
