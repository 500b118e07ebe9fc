"""Facts and thumbnails of single images, in this process."""

import io
import json
import math
import random
import struct

import pytest
import pyvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from headwater.media.image import read_image
from tests import samples


@pytest.fixture
def read(tmp_path):
    """Reads bytes as a file."""

    def read_bytes(content, **options):
        path = tmp_path / "spooled"
        path.write_bytes(content)
        return read_image(path, **options)

    return read_bytes


def shown(prepared):
    """The thumbnail as a picture."""
    assert prepared.problem is None
    with Image.open(io.BytesIO(prepared.thumbnail.content)) as image:
        image.load()
    assert image.size == (prepared.thumbnail.width_px, prepared.thumbnail.height_px)
    assert image.get_format_mimetype() == prepared.thumbnail.mime_type
    return image


def is_near(pixel, expected, tolerance=14):
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))


# Facts


@pytest.mark.parametrize("name", samples.valid_images())
def test_every_format_tells_the_size_that_pillow_tells_and_gets_a_thumbnail(read, name):
    content = samples.valid_images()[name]
    prepared = read(content)
    with Image.open(io.BytesIO(content)) as image:
        assert (prepared.facts.width_px, prepared.facts.height_px) == image.size
    assert prepared.facts.channels == 3
    small = shown(prepared).convert("RGB")
    assert small.width * prepared.facts.height_px == pytest.approx(small.height * prepared.facts.width_px, rel=0.02)
    assert is_near(small.getpixel((small.width - 2, 1)), (253, 3, 40), 40)
    assert is_near(small.getpixel((1, small.height - 2)), (3, 253, 40), 40)


@pytest.mark.parametrize(
    ("mode", "format_name", "channels"),
    [
        ("L", "JPEG", 1),
        ("RGB", "JPEG", 3),
        ("CMYK", "JPEG", 4),
        ("1", "PNG", 1),
        ("L", "PNG", 1),
        ("LA", "PNG", 2),
        ("P", "PNG", 3),
        ("RGBA", "PNG", 4),
        ("I;16", "PNG", 1),
        ("F", "TIFF", 1),
        ("CMYK", "TIFF", 4),
        ("1", "TIFF", 1),
        ("1", "BMP", 1),
        ("P", "BMP", 3),
        ("LA", "JPEG2000", 2),
    ],
)
def test_channels_are_the_bands_of_the_decoded_file(read, mode, format_name, channels):
    source = samples.picture("L").convert("I").point(lambda grey: grey * 257) if mode == "I;16" else samples.picture()
    prepared = read(samples.encode(source.convert(mode), format_name))
    assert prepared.facts.channels == channels
    assert shown(prepared).size == (256, 160)


@pytest.mark.parametrize("format_name", ["PNG", "GIF"])
def test_a_palette_with_a_transparent_colour_has_four_channels(read, format_name):
    prepared = read(samples.encode(samples.picture("P"), format_name, transparency=0))
    assert prepared.facts.channels == 4
    assert shown(prepared).mode == "RGBA"


def test_the_type_is_the_one_of_the_bytes(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(samples.encode(samples.picture(), "PNG"))
    assert read_image(path).facts.mime_type == "image/png"


@pytest.mark.parametrize("name", ["a[b].jpg", "a[page=2]", "100%.png", "q?x=1#y.jpg", "žluťoučký 🐴.jpg"])
def test_any_file_name_can_be_read(tmp_path, name):
    path = tmp_path / name
    for content in (samples.jpeg(), samples.encode(samples.picture(), "PNG")):
        path.write_bytes(content)
        assert read_image(path).problem is None


# Thumbnails


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size_px", [(320, 200), (1600, 1000)], ids=["decoded whole", "shrunk on load"])
def test_the_size_is_as_stored_and_the_thumbnail_is_upright(read, orientation, size_px):
    content = samples.oriented_jpeg(orientation, size_px)
    prepared = read(content)
    stored_px = size_px if orientation <= 4 else size_px[::-1]
    assert (prepared.facts.width_px, prepared.facts.height_px) == stored_px
    assert prepared.facts.exif["Orientation"] == orientation
    small = shown(prepared)
    assert small.size == (256, 160)
    assert is_near(small.getpixel((3, 3)), (3, 3, 40))
    assert is_near(small.getpixel((252, 3)), (252, 3, 40))
    assert is_near(small.getpixel((3, 156)), (3, 252, 40))
    assert small.getexif() == {}


@pytest.mark.parametrize(("format_name", "mode"), [("AVIF", "RGB"), ("WEBP", "RGB"), ("TIFF", "RGB"), ("TIFF", "F")])
def test_other_formats_stand_upright_too(read, format_name, mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    prepared = read(samples.encode(samples.picture(mode).transpose(Image.Transpose.ROTATE_90), format_name, exif=exif))
    assert (prepared.facts.width_px, prepared.facts.height_px) == samples.RGB_PX[::-1]
    assert prepared.facts.exif["Orientation"] == 6
    small = shown(prepared).convert("L")
    assert small.size == (256, 160)
    assert small.getpixel((3, 3)) < 40
    assert small.getpixel((252, 156)) > 180


@pytest.mark.parametrize("size_px", [(1, 1), (255, 3), (256, 256), (3, 200)])
def test_a_small_image_is_not_enlarged(read, size_px):
    assert shown(read(samples.jpeg(size_px))).size == size_px


@pytest.mark.parametrize("size_px", [(5000, 1), (1, 5000), (3001, 2000)])
def test_the_longer_side_is_256_pixels(read, size_px):
    assert max(shown(read(samples.jpeg(size_px))).size) == 256


def test_transparency_is_kept_and_does_not_darken_the_edge(read):
    image = Image.new("RGBA", (800, 800), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 413, 800))
    prepared = read(samples.encode(image, "PNG"))
    small = shown(prepared)
    assert prepared.thumbnail.mime_type == "image/webp"
    assert small.getpixel((20, 100))[3] == 255
    assert small.getpixel((250, 100))[3] == 0
    edge = [small.getpixel((x, 100)) for x in range(120, 140)]
    assert all(red > 200 for red, _, _, alpha in edge if alpha > 100)


def test_an_opaque_picture_makes_a_small_jpeg(read):
    prepared = read(samples.encode(samples.grainy((3000, 2000)), "JPEG", quality=90))
    assert prepared.thumbnail.mime_type == "image/jpeg"
    assert len(prepared.thumbnail.content) < 25_000


def test_cmyk_is_shown_in_screen_colours(read):
    content = samples.encode(Image.new("CMYK", (300, 300), (0, 255, 255, 0)), "JPEG")
    assert is_near(shown(read(content)).getpixel((9, 9)), (237, 28, 36), 40)


def test_a_wide_colour_profile_is_converted(read):
    """The same numbers mean a stronger red in Display P3 than on an ordinary screen."""
    image = pyvips.Image.black(300, 300).new_from_image([200, 100, 100])
    wide = image.cast("uchar").copy(interpretation="srgb").icc_transform("p3", input_profile="srgb")
    content = wide.pngsave_buffer()
    stored = Image.open(io.BytesIO(content))
    assert not is_near(stored.getpixel((9, 9)), (200, 100, 100), 8)
    assert is_near(shown(read(content)).getpixel((9, 9)), (200, 100, 100), 3)


def test_sixteen_bits_are_brought_to_eight(read):
    prepared = read(samples.sixteen_bit_rgb_png())
    small = shown(prepared)
    assert is_near(small.getpixel((0, 20)), (0, 0, 0))
    assert is_near(small.getpixel((63, 20)), (255, 0, 0))


@pytest.mark.parametrize("highest", [1.0, 4095.0, 1e9])
def test_measurements_are_spread_from_black_to_white(read, highest):
    ramp = pyvips.Image.identity().cast("float") * (highest / 255)
    content = ramp.resize(1, vscale=200).cast("float").copy(interpretation="b-w").tiffsave_buffer()
    small = shown(read(content))
    assert small.getpixel((2, 100)) < 20
    assert small.getpixel((253, 100)) > 235


def test_measurements_with_gaps_are_shown(read):
    content = samples.encode(Image.new("F", (300, 300), 3.0), "TIFF").replace(
        struct.pack("<f", 3.0), struct.pack("<f", math.nan), 5000
    )
    assert shown(read(content)).getextrema() == (0, 255)


def test_more_bands_than_a_screen_has_are_left_out(read):
    bands = pyvips.Image.black(300, 200).new_from_image([200, 100, 50, 1, 2, 3])
    prepared = read(bands.cast("uchar").tiffsave_buffer())
    assert prepared.facts.channels == 6
    assert is_near(shown(prepared).getpixel((9, 9)), (200, 100, 50))


def test_of_an_animation_the_first_frame_counts(read):
    prepared = read(samples.animated_gif())
    assert (prepared.facts.width_px, prepared.facts.height_px) == samples.RGB_PX
    assert is_near(shown(prepared).convert("RGB").getpixel((9, 9)), (255, 0, 0))


def test_a_jpeg_with_a_gain_map_reads_as_a_plain_one(read):
    prepared = read(samples.jpeg_with_gain_map())
    assert (prepared.facts.width_px, prepared.facts.height_px, prepared.facts.channels) == (1600, 1000, 3)
    assert shown(prepared).size == (256, 160)


# Problems


TRUNCATED_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "BMP", "JPEG2000", "QOI")


@pytest.mark.parametrize("format_name", TRUNCATED_FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.99])
def test_a_file_that_ends_early_is_truncated(read, format_name, kept):
    content = samples.encode(samples.grainy(), format_name)
    problem = read(content[: int(len(content) * kept)]).problem
    assert problem.reason == "truncated"


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP"])
def test_a_truncated_file_keeps_its_facts_and_gets_no_thumbnail(read, format_name):
    content = samples.encode(samples.grainy(), format_name)
    prepared = read(content[: len(content) // 2])
    assert (prepared.facts.width_px, prepared.facts.height_px) == samples.RGB_PX
    assert prepared.thumbnail is None


def test_a_length_beyond_all_memory_is_told(read):
    """A JPEG 2000 whose header says that it is an exabyte long."""
    whole = samples.encode(samples.picture(), "JPEG2000")
    at = whole.index(b"jp2h") - 4
    endless = whole[:at] + b"\x00\x00\x00\x01jp2h\x10" + bytes(7) + whole[at + 8 :]
    assert read(endless).problem.reason == "out-of-memory"


def test_a_jpeg_is_truncated_although_its_exif_holds_a_whole_one(read):
    exif = samples.exif_block((0x010F, 2, 4, b"Acm\x00")) + samples.jpeg((16, 16))
    content = samples.encode(samples.grainy(), "JPEG", exif=exif)
    assert read(content[: len(content) // 2]).problem.reason == "truncated"


def test_bytes_behind_the_end_do_no_harm(read):
    assert read(samples.jpeg() + b"trailing" * 100).problem is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"plain words", "unsupported"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>', "unsupported"),
        (samples.heic(), "unsupported"),
        (samples.png_bomb(), "too-large"),
        (samples.gif_bomb(), "too-large"),
        (samples.tiff_with_broken_directory(), "truncated"),
        (samples.jpeg_header_and_garbage(), "corrupt"),
        (samples.png(100, 100, 8, 2, b"\x09" * 30_100), "corrupt"),
        (samples.png(100, 100, 8, 2, b"\x00" * 1000), "corrupt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_file_is_told(read, content, reason):
    prepared = read(content)
    assert prepared.problem.reason == reason
    assert prepared.problem.message.endswith(".")
    assert prepared.thumbnail is None


def test_a_phone_s_heic_tells_its_size_though_its_codec_is_missing(read):
    prepared = read(samples.heic(4032, 3024))
    assert (prepared.facts.width_px, prepared.facts.height_px) == (4032, 3024)
    assert "HEVC" in prepared.problem.message


def test_a_heic_beyond_all_limits_is_not_called_a_lack_of_memory(read):
    problem = read(samples.heic(700_000_000, 3)).problem
    assert problem.reason == "corrupt"
    assert "/dev/fd" not in problem.message


def test_the_declared_size_is_checked_before_the_pixels(read):
    prepared = read(samples.jpeg(), max_pixels=320 * 200 - 1)
    assert prepared.problem.reason == "too-large"
    assert prepared.facts.width_px == 320
    assert "320 x 200" in prepared.problem.message
    assert read(samples.jpeg(), max_pixels=320 * 200).problem is None


# EXIF


def test_exif_is_told_by_its_own_names(read):
    block = samples.exif_block(
        (0x010F, 2, 5, b"Acme\x00"),
        (0x0112, 3, 1, b"\x00\x06"),
        (0x011A, 5, 1, struct.pack(">II", 300, 1)),
        photo=(
            (0x829A, 5, 1, struct.pack(">II", 1, 8000)),
            (0x829D, 5, 1, struct.pack(">II", 28, 10)),
            (0x8827, 3, 1, struct.pack(">H", 400)),
            (0x9003, 2, 20, b"2024:06:01 12:30:00\x00"),
            (0x9011, 2, 7, b"+02:00\x00"),
            (0x9204, 10, 1, struct.pack(">ii", -1, 3)),
            (0xA434, 2, 9, b"35mm F/2\x00"),
        ),
    )
    assert read(samples.jpeg_with_exif(block)).facts.exif == {
        "Make": "Acme",
        "Orientation": 6,
        "XResolution": 300.0,
        "ExposureTime": 0.000125,
        "FNumber": 2.8,
        "ISOSpeedRatings": 400,
        "DateTimeOriginal": "2024:06:01 12:30:00",
        "OffsetTimeOriginal": "+02:00",
        "ExposureBiasValue": -0.333333,
        "LensModel": "35mm F/2",
    }


def test_hostile_exif_is_cleaned(read):
    assert read(samples.jpeg_with_hostile_exif()).facts.exif == {
        "Make": "Ac",
        "Model": "Caméra",
        "Software": "s" * 500,
        "FNumber": 2.8,
        "DateTimeOriginal": "2024:02:30 25:61:00",
    }


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "AVIF"])
def test_other_formats_tell_their_exif_too(read, format_name):
    exif = Image.Exif()
    exif[0x010F] = "Acme"
    exif.get_ifd(0x8769)[0x9003] = "2024:06:01 12:30:00"
    found = read(samples.encode(samples.picture(), format_name, exif=exif)).facts.exif
    assert found["Make"] == "Acme"
    assert found["DateTimeOriginal"] == "2024:06:01 12:30:00"


def test_a_tiff_tells_its_tags(read):
    exif = Image.Exif()
    exif[0x010F] = "Acme"
    assert read(samples.encode(samples.picture(), "TIFF", exif=exif)).facts.exif == {"Make": "Acme"}


def jpeg_with_position(latitude_seconds=30.24, reference="S"):
    exif = Image.Exif()
    exif.get_ifd(0x8825).update(
        {
            1: reference,
            2: (46.0, 33.0, latitude_seconds),
            3: "W",
            4: (7.0, 53.0, 24.0),
            5: b"\x01",
            6: 12.5,
        }
    )
    return samples.jpeg(exif=exif)


def test_a_position_is_read_only_when_asked_for(read):
    assert read(jpeg_with_position()).facts.exif == {}
    assert read(jpeg_with_position(), read_gps=True).facts.exif == {
        "GPSLatitude": -46.5584,
        "GPSLongitude": -7.89,
        "GPSAltitude": -12.5,
    }


@pytest.mark.parametrize("position", [(1e6, "S")], ids=["beyond the pole"])
def test_an_impossible_position_is_left_out(read, position):
    assert read(jpeg_with_position(*position), read_gps=True).facts.exif == {}


# Whatever the bytes


def assert_fits_jsonb(prepared):
    """What PostgreSQL's jsonb refuses: NaN, infinities, NUL and lone surrogates."""
    if prepared.facts is None:
        return
    text = json.dumps(prepared.facts.exif, allow_nan=False)
    assert "\\u0000" not in text
    json.dumps(prepared.facts.exif, ensure_ascii=False).encode("utf-8")
    assert all(isinstance(value, int | float | str) for value in prepared.facts.exif.values())


IMAGES = samples.valid_images() | {
    "exif": samples.jpeg_with_hostile_exif(),
    "gps": jpeg_with_position(),
    "gif.animated": samples.animated_gif(),
    "heic": samples.heic(),
    "tiff.strips": samples.encode(samples.picture(size_px=(40, 30)), "TIFF"),
}
QUICKLY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICKLY
@given(st.sampled_from(sorted(IMAGES)), st.floats(0, 1))
def test_a_file_cut_anywhere_gives_an_answer(read, name, kept):
    assert_fits_jsonb(read(IMAGES[name][: int(len(IMAGES[name]) * kept)], read_gps=True, max_pixels=10**6))


@QUICKLY
@given(st.sampled_from(sorted(IMAGES)), st.randoms(use_true_random=False), st.integers(1, 30))
def test_a_file_with_bytes_changed_anywhere_gives_an_answer(read, name, chance: random.Random, changes):
    content = bytearray(IMAGES[name])
    reach = chance.choice((64, 400, len(content)))
    for _ in range(changes):
        content[chance.randrange(min(reach, len(content)))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
    assert_fits_jsonb(read(bytes(content), read_gps=True, max_pixels=10**6))


@QUICKLY
@given(st.sampled_from([content[:32] for content in IMAGES.values()]), st.binary(max_size=500))
def test_any_bytes_behind_a_good_start_give_an_answer(read, start, rest):
    assert_fits_jsonb(read(start + rest, read_gps=True, max_pixels=10**6))


@QUICKLY
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0x010F, 0x0112, 0x011A, 0x829A, 0x8769, 0x8825, 0x8827, 0x9003]),
            st.integers(0, 13),
            st.integers(0, 40),
            st.binary(max_size=40),
        ),
        max_size=8,
    )
)
def test_any_exif_entries_give_values_that_fit(read, entries):
    assert_fits_jsonb(read(samples.jpeg_with_exif(samples.exif_block(*entries)), read_gps=True))
