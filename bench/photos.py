"""Photographs as cameras make them: 12 megapixels, 3 to 5 MB, EXIF. Textures are noise at all scales, as in nature."""

import io

import pyvips
from PIL import Image

WIDTH_PX, HEIGHT_PX = 4000, 3000
_QUALITY = 90
_SPARE_PX = 800  # by which the scene is larger than a photograph
_FINEST_GRAIN = 7.0  # standard deviation of single pixels; sets the size of the file
_GROWTH = 1.25  # by how much deviation grows from each scale to the next coarser one


def make_photos(count: int) -> list[bytes]:
    """Distinct ones: parts of one large scene, at other places and in other light."""
    scene = _scene()
    return [_shoot(scene, number) for number in range(count)]


def _scene() -> Image.Image:
    luma = _natural_noise(1, finest=0)
    bands = [luma * gain + _natural_noise(n, finest=3) * 0.3 + 120 for n, gain in enumerate((1.0, 0.95, 0.85), 2)]
    pixels = bands[0].bandjoin(bands[1:]).cast("uchar")
    return Image.frombytes("RGB", (pixels.width, pixels.height), pixels.write_to_memory())


def _natural_noise(seed: int, *, finest: int) -> pyvips.Image:
    """The coarser the stronger, as edges and shades in photographs: fine scales are added to magnified coarse ones."""
    width_px, height_px = WIDTH_PX + _SPARE_PX, HEIGHT_PX + _SPARE_PX
    image = pyvips.Image.black(1, 1)
    for octave in reversed(range(finest, 9)):
        width, height = -(-width_px >> octave) + 2, -(-height_px >> octave) + 2
        grain = pyvips.Image.gaussnoise(width, height, mean=0, sigma=_FINEST_GRAIN * _GROWTH**octave, seed=seed)
        image = (image.resize(2, kernel="linear").embed(0, 0, width, height, extend="mirror") + grain).copy_memory()
    return image.resize(2**finest, kernel="linear").crop(0, 0, width_px, height_px)


def _shoot(scene: Image.Image, number: int) -> bytes:
    left, top = (number * 97) % _SPARE_PX, (number * 61) % _SPARE_PX
    image = scene.crop((left, top, left + WIDTH_PX, top + HEIGHT_PX)).point(lambda level: level * (100 - number) // 100)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, subsampling="4:2:0", exif=_exif(number))
    return buffer.getvalue()


def _exif(seed: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "Example"
    exif[0x0110] = f"Camera {seed}"
    exif[0x0112] = 6 if seed % 4 == 0 else 1  # some held upright
    exif[0x0132] = "2026:03:14 15:09:26"
    details = exif.get_ifd(0x8769)
    details[0x829A] = 0.004  # exposure time, s
    details[0x829D] = 2.8  # aperture
    details[0x8827] = 200  # ISO
    details[0x9003] = "2026:03:14 15:09:26"
    details[0x920A] = 35.0  # focal length, mm
    return exif
