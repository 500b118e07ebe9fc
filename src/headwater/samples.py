"""A small folder of varied real files to try Headwater on: photos with EXIF, odd names, some broken."""

import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import ExifTags, Image, ImageChops, ImageDraw, ImageFilter, ImageFont
from PIL.TiffImagePlugin import IFDRational

LANDSCAPE_PX = (960, 640)
SKY_STEPS = 64  # rows of the gradient before it is stretched
HORIZON = 0.5  # of the height


class Scene(NamedTuple):
    """Colours from the top down: sky above, sky at the horizon, sun, then the hills from far to near."""

    sky: str
    glow: str
    sun: str
    hills: tuple[str, ...]


DAWN = Scene("#2b3a67", "#f7b267", "#fff3d6", ("#8d6a9f", "#5c4b7d", "#37325b", "#1c1b3a"))
NOON = Scene("#3f8efc", "#cfe8ff", "#ffffff", ("#9fc5a8", "#6aa57a", "#3d7d53", "#1f5137"))
DUSK = Scene("#1b1036", "#ff6f59", "#ffd166", ("#7a3b69", "#563063", "#38234d", "#190f2b"))
SNOW = Scene("#6fa3c8", "#f2f6fa", "#fffbe8", ("#d9e4ee", "#b4c7d9", "#86a0ba", "#4b6580"))
DESERT = Scene("#4aa0c9", "#ffe3b3", "#fffdf0", ("#e8b06d", "#d48c4a", "#b56a32", "#7d431f"))
FOREST = Scene("#a8c6c0", "#eef3e2", "#fffff4", ("#7fa08c", "#55806b", "#315c49", "#15352a"))

STORED = {  # EXIF orientation -> how the upright picture is laid down in the file
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def write_samples(folder: Path) -> list[Path]:
    """Write the files below `folder`, over those of the same names; returns their paths.

    The same Pillow writes the same bytes every time.
    """
    written: list[Path] = []
    for name, make in SAMPLES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
        written.append(path)
    return written


def paint(scene: Scene, seed: int, size_px: tuple[int, int] = LANDSCAPE_PX) -> Image.Image:
    """Hills under a low sun, RGB."""
    chance = random.Random(seed)  # noqa: S311 - scenery
    picture = _paint_sky(scene, size_px)
    _paint_sun(picture, scene, chance)
    for depth, colour in enumerate(scene.hills):
        top = HORIZON + 0.12 * depth
        _paint_hill(picture, colour, top, chance)
    return picture


def _paint_sky(scene: Scene, size_px: tuple[int, int]) -> Image.Image:
    column = Image.linear_gradient("L").resize((1, SKY_STEPS))
    top, bottom = Image.new("RGB", column.size, scene.sky), Image.new("RGB", column.size, scene.glow)
    return Image.composite(bottom, top, column).resize(size_px, Image.Resampling.BICUBIC)


def _paint_sun(picture: Image.Image, scene: Scene, chance: random.Random) -> None:
    width, height = picture.size
    across, up, radius = chance.uniform(0.2, 0.8) * width, chance.uniform(0.2, 0.4) * height, height / 14
    light = Image.new("L", picture.size, 0)
    ImageDraw.Draw(light).ellipse((across - radius, up - radius, across + radius, up + radius), fill=255)
    halo = light.resize((width // 8, height // 8)).filter(ImageFilter.GaussianBlur(radius / 5)).resize(picture.size)
    picture.paste(scene.sun, mask=ImageChops.lighter(light, halo))


def _paint_hill(picture: Image.Image, colour: str, top: float, chance: random.Random) -> None:
    width, height = picture.size
    waves = [(chance.uniform(1, 9), chance.uniform(0, math.tau), chance.uniform(0.01, 0.05)) for _ in range(4)]
    ridge = [
        (x, height * (top + sum(size * math.sin(turns * x / width + start) for turns, start, size in waves)))
        for x in range(0, width + 8, 8)
    ]
    ImageDraw.Draw(picture).polygon([(0, height), *ridge, (width, height)], fill=colour)


def _label(picture: Image.Image, text: str) -> Image.Image:
    """An arrow that points up and a word under it, so that the right way up shows."""
    width, height = picture.size
    draw = ImageDraw.Draw(picture)
    middle, size = width / 2, height / 6
    head = [(middle, size * 0.6), (middle - size, size * 2), (middle + size, size * 2)]
    draw.polygon(head, fill="white")
    draw.rectangle((middle - size * 0.4, size * 2, middle + size * 0.4, size * 3.2), fill="white")
    font = ImageFont.load_default(size * 1.2)
    draw.text((middle, size * 4.4), text, fill="white", font=font, anchor="mm", stroke_width=3, stroke_fill="black")
    return picture


def _encode(picture: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_name, **options)
    return buffer.getvalue()


def _photo(
    scene: Scene, seed: int, hour: int, *, camera: tuple[str, str] = ("Acme", "Meadow 5"), gps: bool = False
) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = camera
    exif[ExifTags.Base.Software] = "Headwater samples"
    exif[ExifTags.Base.Orientation] = 1
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {
            ExifTags.Base.DateTimeOriginal: f"2024:06:{seed + 1:02} {hour:02}:30:00",
            ExifTags.Base.OffsetTimeOriginal: "+02:00",
            ExifTags.Base.ExposureTime: IFDRational(1, 125 * (seed + 1)),
            ExifTags.Base.FNumber: IFDRational(28 + 4 * seed, 10),
            ExifTags.Base.ISOSpeedRatings: 100 * (seed + 1),
            ExifTags.Base.FocalLength: IFDRational(35),
            ExifTags.Base.LensModel: "Meadow 35mm F2.8",
        }
    )
    if gps:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(
            {
                ExifTags.GPS.GPSLatitudeRef: "N",
                ExifTags.GPS.GPSLatitude: (IFDRational(46), IFDRational(33), IFDRational(3024, 100)),
                ExifTags.GPS.GPSLongitudeRef: "E",
                ExifTags.GPS.GPSLongitude: (IFDRational(7), IFDRational(53), IFDRational(2400, 100)),
                ExifTags.GPS.GPSAltitudeRef: b"\x00",
                ExifTags.GPS.GPSAltitude: IFDRational(2061),
            }
        )
    return _encode(paint(scene, seed), "JPEG", quality=88, exif=exif)


def _turned(orientation: int) -> bytes:
    upright = _label(paint((DAWN, NOON, DUSK, SNOW)[orientation % 4], 20, (480, 320)), f"up {orientation}")
    stored = upright.transpose(STORED[orientation]) if orientation in STORED else upright
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return _encode(stored, "JPEG", quality=88, exif=exif)


def _leaf() -> Image.Image:
    """A leaf on nothing: transparent around it and soft at the edge, RGBA. Two discs overlap in its shape."""
    size_px = (640, 640)
    lower, upper = Image.new("L", size_px), Image.new("L", size_px)
    ImageDraw.Draw(lower).ellipse((40, 40, 940, 940), fill=255)
    ImageDraw.Draw(upper).ellipse((-300, -300, 600, 600), fill=255)
    leaf = paint(FOREST, 31, size_px)
    ImageDraw.Draw(leaf).line((80, 80, 560, 560), fill="#dfeccf", width=8)
    leaf.putalpha(
        ImageChops.darker(lower, upper).filter(ImageFilter.GaussianBlur(4)).transpose(Image.Transpose.ROTATE_90)
    )
    return leaf


def _sunset_frames() -> bytes:
    frames = [paint(scene, 40, (320, 214)) for scene in (NOON, DESERT, DUSK)]
    return _encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=700, loop=0)


def _notes() -> bytes:
    return json.dumps({"place": "Männlichen", "labels": ["hill", "sun", "sky"], "photos": 24}, indent=2).encode()


SAMPLES: dict[str, Callable[[], bytes]] = {
    "hills/dawn.jpg": lambda: _photo(DAWN, 0, 5),
    "hills/noon.jpg": lambda: _photo(NOON, 1, 12),
    "hills/summit with position.jpg": lambda: _photo(SNOW, 2, 11, gps=True),
    "hills/autumn/dusk 50%.jpg": lambda: _photo(DUSK, 3, 21, camera=("Acme", "Meadow 5 Mark II")),
    "hills/autumn/forest+mist.jpg": lambda: _photo(FOREST, 4, 8, camera=("Acme", "Meadow 5 Mark II")),
    "hills/désert d'été.jpg": lambda: _photo(DESERT, 5, 15),
    "hills/sunrise 🌄.jpg": lambda: _photo(DAWN, 6, 6),
    **{f"orientation/up-{number}.jpg": lambda number=number: _turned(number) for number in range(1, 9)},
    "formats/leaf.png": lambda: _encode(_leaf(), "PNG"),
    "formats/poster.png": lambda: _encode(paint(DUSK, 7).quantize(32), "PNG", optimize=True),
    "formats/valley.webp": lambda: _encode(paint(FOREST, 8), "WEBP", quality=85),
    "formats/ridge.tiff": lambda: _encode(paint(SNOW, 9, (480, 320)), "TIFF", compression="tiff_adobe_deflate"),
    "formats/day.gif": _sunset_frames,
    "formats/grey.bmp": lambda: _encode(paint(NOON, 10, (480, 320)).convert("L"), "BMP"),
    "odd/really-a-png.jpg": lambda: _encode(paint(DESERT, 11, (480, 320)), "PNG"),
    "odd/cut-short.jpg": lambda: _photo(NOON, 1, 122)[:12_000],
    "odd/empty.jpg": lambda: b"",
    "notes/readme.txt": lambda: b"Pictures drawn by Headwater, free to use.\n",
    "notes/places.json": _notes,
}
