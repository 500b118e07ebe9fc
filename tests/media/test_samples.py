"""The folder that a first try of Headwater is made on."""

import pytest

from headwater.media.image import read_image
from headwater.samples import write_samples


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    write_samples(folder)
    return folder


def test_the_samples_are_few_small_and_always_the_same(folder, tmp_path):
    again = write_samples(tmp_path)
    assert 20 <= len(again) <= 30
    assert sum(path.stat().st_size for path in again) < 3_000_000
    for path in again:
        assert path.read_bytes() == (folder / path.relative_to(tmp_path)).read_bytes()


def test_all_samples_are_read_but_those_meant_to_fail(folder):
    problems = {
        path.name: prepared.problem.reason
        for path in folder.rglob("*.*")
        if (prepared := read_image(path)).problem is not None
    }
    assert problems == {
        "cut-short.jpg": "truncated",
        "empty.jpg": "empty",
        "readme.txt": "unsupported",
        "places.json": "unsupported",
    }


def test_the_samples_show_exif_orientation_and_wrong_names(folder):
    turned = read_image(folder / "orientation" / "up-6.jpg")
    assert (turned.facts.width_px, turned.facts.height_px, turned.facts.exif) == (320, 480, {"Orientation": 6})
    assert read_image(folder / "odd" / "really-a-png.jpg").facts.mime_type == "image/png"
    summit = read_image(folder / "hills" / "summit with position.jpg", read_gps=True).facts.exif
    assert (summit["GPSLatitude"], summit["GPSAltitude"]) == (46.5584, 2061.0)
