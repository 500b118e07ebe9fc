"""120 photos as cameras leave them: JPEG and PNG of many sizes, some lying on their side with EXIF to tell."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from tests import samples

COUNT = 120


@dataclass(frozen=True, slots=True)
class Photo:
    key: str
    content: bytes
    width_px: int  # as stored, before EXIF's orientation
    height_px: int
    upright_px: tuple[int, int]  # as a viewer shows it


def photos() -> Iterator[Photo]:
    for number in range(COUNT):
        size_px = (48 + 3 * number, 40 + 2 * (number % 37))
        folder = ("", "holiday/", "holiday/day two/", "café & co/")[number % 4]
        if number % 5 == 0:
            yield Photo(f"{folder}scan {number:03}.png", _scanned(size_px), *size_px, size_px)
        elif number % 5 == 1:
            orientation = 1 + number // 5 % 8
            stored_px = size_px if orientation <= 4 else size_px[::-1]
            content = samples.oriented_jpeg(orientation, size_px)
            yield Photo(f"{folder}IMG_{number:03}.JPG", content, *stored_px, size_px)
        else:
            yield Photo(f"{folder}img{number:03}.jpg", _from_camera(size_px), *size_px, size_px)


def _scanned(size_px: tuple[int, int]) -> bytes:
    return samples.encode(samples.picture(size_px=size_px), "PNG")


def _from_camera(size_px: tuple[int, int]) -> bytes:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Headwater", "Model 1"
    buffer = io.BytesIO()
    samples.picture(size_px=size_px).save(buffer, "JPEG", quality=80, exif=exif)
    return buffer.getvalue()
