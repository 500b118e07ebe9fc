"""Makers of image files, ordinary and odd, as bytes."""

import io
import random
import struct
import zlib
from functools import cache

import pyvips
from PIL import Image

RGB_PX = (320, 200)


def picture(mode: str = "RGB", size_px: tuple[int, int] = RGB_PX) -> Image.Image:
    """Red grows to the right, green downwards; the upper left is dark."""
    across = Image.linear_gradient("L").rotate(90).resize(size_px)
    down = Image.linear_gradient("L").resize(size_px)
    return Image.merge("RGB", (across, down, Image.new("L", size_px, 40))).convert(mode)


def grainy(size_px: tuple[int, int] = RGB_PX) -> Image.Image:
    """Noise, so that half of the file is half of the picture."""
    noise = random.Random(1).randbytes(3 * size_px[0] * size_px[1])
    return Image.frombytes("RGB", size_px, noise)


def encode(image: Image.Image, format_name: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def jpeg(size_px: tuple[int, int] = RGB_PX, **options) -> bytes:
    return encode(picture(size_px=size_px), "JPEG", **options)


def oriented_jpeg(orientation: int, size_px: tuple[int, int] = RGB_PX) -> bytes:
    """As a camera held that way stores it: `picture()` is what a viewer must see."""
    transposes = Image.Transpose
    laid_down = {
        2: transposes.FLIP_LEFT_RIGHT,
        3: transposes.ROTATE_180,
        4: transposes.FLIP_TOP_BOTTOM,
        5: transposes.TRANSPOSE,
        6: transposes.ROTATE_90,
        7: transposes.TRANSVERSE,
        8: transposes.ROTATE_270,
    }
    image = picture(size_px=size_px)
    if orientation in laid_down:
        image = image.transpose(laid_down[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, "JPEG", quality=95, exif=exif)


def jpeg_with_gain_map(size_px: tuple[int, int] = (1600, 1000)) -> bytes:
    """As phones write HDR: a second picture behind the first says how bright it may get."""
    ramp = pyvips.Image.xyz(*size_px) / list(size_px)
    return ramp.bandjoin(ramp[0]).copy(interpretation="scrgb").uhdrsave_buffer()


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width_px: int, height_px: int, bits: int, colour: int, rows: bytes, *, interlaced: int = 0) -> bytes:
    """`rows`: with the filter byte before each. `colour`: 0 grey, 2 RGB, 3 palette, 4 grey + alpha, 6 RGBA."""
    header = struct.pack(">IIBBBBB", width_px, height_px, bits, colour, 0, 0, interlaced)
    parts = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_bomb(width_px: int = 60_000, height_px: int = 60_000) -> bytes:
    """Declares far more pixels than it brings."""
    return png(width_px, height_px, 8, 2, b"\x00" * 1000)


def interlaced_png(width_px: int, height_px: int) -> bytes:
    """Must be held in memory whole. Brings a few of the rows it declares."""
    return png(width_px, height_px, 8, 2, b"\x00" * 1000, interlaced=1)


def sixteen_bit_rgb_png() -> bytes:
    """64 x 48, red grows to the right over all 16 bits."""
    row = b"\x00" + b"".join(struct.pack(">HHH", x * 1040, 0, 0) for x in range(64))
    return png(64, 48, 16, 2, row * 48)


def gif_bomb() -> bytes:
    """A screen of 65535 x 65535 pixels with one pixel drawn."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"


def tiff_with_broken_directory() -> bytes:
    """The directory claims 65,535 entries; what follows is noise."""
    return b"II*\x00\x08\x00\x00\x00\xff\xff" + random.Random(2).randbytes(400)


def jpeg_header_and_garbage() -> bytes:
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00" + random.Random(3).randbytes(4000)


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def heic(width_px: int = 4032, height_px: int = 3024) -> bytes:
    """As a phone writes it (ISO 23008-12), but hardly any picture: an HEVC coded item and its declared size."""
    coded = b"\x00\x00\x00\x02\x26\x01"
    codec = b"\x01\x01" + bytes(10) + b"\x5d\xf0\x00\xfc\xfd\xf8\xf8\x00\x00\x0f\x00"
    ftyp = _box(b"ftyp", b"heic\x00\x00\x00\x00mif1heic")

    def meta(coded_at: int) -> bytes:
        return _box(
            b"meta",
            bytes(4),
            _box(b"hdlr", bytes(8), b"pict", bytes(13)),
            _box(b"pitm", bytes(4), b"\x00\x01"),
            _box(b"iloc", bytes(4), b"\x44\x00", struct.pack(">HHHHII", 1, 1, 0, 1, coded_at, len(coded))),
            _box(b"iinf", bytes(4), b"\x00\x01", _box(b"infe", b"\x02\x00\x00\x00\x00\x01\x00\x00hvc1\x00")),
            _box(
                b"iprp",
                _box(b"ipco", _box(b"hvcC", codec), _box(b"ispe", bytes(4), struct.pack(">II", width_px, height_px))),
                _box(b"ipma", bytes(4), struct.pack(">IHBBB", 1, 1, 2, 0x81, 0x02)),
            ),
        )

    return ftyp + meta(len(ftyp) + len(meta(0)) + 8) + _box(b"mdat", coded)


def animated_gif() -> bytes:
    """Red first, then blue."""
    frames = [Image.new("RGB", RGB_PX, colour) for colour in ("red", "blue")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:])


def exif_block(*entries: tuple[int, int, int, bytes], photo: tuple[tuple[int, int, int, bytes], ...] = ()) -> bytes:
    """Big-endian EXIF from raw entries (tag, TIFF type, count, value), the photo directory behind the first."""
    start = 8
    main = list(entries)
    if photo:
        main.append((0x8769, 4, 1, b"\x00\x00\x00\x00"))
    main_bytes = 2 + 12 * len(main) + 4 + sum(len(value) for *_, value in main if len(value) > 4)
    if photo:
        main[-1] = (0x8769, 4, 1, struct.pack(">I", start + main_bytes))
    block = b"MM\x00*" + struct.pack(">I", start) + _directory(main, start)
    return b"Exif\x00\x00" + block + (_directory(list(photo), start + main_bytes) if photo else b"")


def _directory(entries: list[tuple[int, int, int, bytes]], offset: int) -> bytes:
    values_at = offset + 2 + 12 * len(entries) + 4
    head, values = struct.pack(">H", len(entries)), b""
    for tag, kind, count, value in entries:
        head += struct.pack(">HHI", tag, kind, count)
        if len(value) > 4:
            head += struct.pack(">I", values_at + len(values))
            values += value
        else:
            head += value.ljust(4, b"\x00")
    return head + b"\x00" * 4 + values


def jpeg_with_exif(block: bytes) -> bytes:
    return jpeg(exif=block)


def jpeg_with_hostile_exif() -> bytes:
    """NULs, bad UTF-8, control characters, a zero denominator, an impossible orientation, a long text, a MakerNote."""
    return jpeg_with_exif(
        exif_block(
            (0x010F, 2, 12, b"Ac\x00me\xff\xfe\xed\xa0\x80x\x00"),
            (0x0110, 2, 10, "Cam\aéra\x1b".encode() + b"\x00"),
            (0x0112, 3, 1, b"\x00\x63"),
            (0x0131, 2, 20_001, b"s" * 20_000 + b"\x00"),
            (0x011A, 5, 1, struct.pack(">II", 300, 0)),
            photo=(
                (0x829A, 5, 1, struct.pack(">II", 1, 0)),
                (0x829D, 5, 1, struct.pack(">II", 28, 10)),
                (0x9003, 2, 20, b"2024:02:30 25:61:00\x00"),
                (0x927C, 7, 64, b"\x00\xff" * 32),
                (0x9286, 7, 16, b"ASCII\x00\x00\x00comment\x00"),
            ),
        )
    )


@cache
def valid_images() -> dict[str, bytes]:
    """One of every format that is read."""
    rgb, small = picture(), picture(size_px=(64, 48))
    return {
        "jpeg": jpeg(),
        "progressive.jpeg": jpeg(progressive=True),
        "png": encode(rgb, "PNG"),
        "webp": encode(small, "WEBP"),
        "gif": encode(rgb, "GIF"),
        "tiff": encode(rgb, "TIFF", compression="tiff_adobe_deflate"),
        "avif": encode(small, "AVIF"),
        "bmp": encode(small, "BMP"),
        "ico": encode(small, "ICO"),
        "jp2": encode(small, "JPEG2000"),
        "ppm": encode(small, "PPM"),
        "qoi": encode(small, "QOI"),
    }
