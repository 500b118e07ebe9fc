"""Where files of items go: never outside, and never two into one."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import BadRequest
from headwater.transfer.places import Places

parts = st.sampled_from(["..", ".", "", "a", "b ", "\\", "..\\..\\x", "C:", "con", "é", "x" * 256, "n\0l"]) | st.text(
    max_size=5
)


@settings(deadline=None)
@given(path=st.lists(parts, max_size=6).map("/".join), is_windows=st.booleans())
def test_whatever_a_path_says_its_place_is_inside(tmp_path_factory, path: str, is_windows: bool):
    root = tmp_path_factory.getbasetemp()
    try:
        place = Places(root, is_windows=is_windows, ignores_case=False).place(path)
    except (BadRequest, UnicodeEncodeError):
        return
    assert place.is_relative_to(root.resolve())
    assert ".." not in place.parts
    assert place != root.resolve()
    if is_windows:
        assert not set('\\:*?"<>|') & set(str(place.relative_to(root.resolve())))


@pytest.mark.parametrize("path", ["/../x", "/a/../../x", "//etc/passwd", "/a//b", "/./x", "/a/", "/", "/" + "x" * 256])
def test_paths_that_cannot_be_files_are_refused(tmp_path: Path, path: str):
    with pytest.raises(BadRequest, match="it cannot be a file here"):
        Places(tmp_path).place(path)


@pytest.mark.parametrize("name", ["a\\b", "..\\x", "C:x", "con", "NUL.txt", "lpt1", "dot.", "space ", "q?"])
def test_windows_refuses_more_names(tmp_path: Path, name: str):
    assert Places(tmp_path, is_windows=False).place(f"/{name}").name == name
    with pytest.raises(BadRequest, match="which Windows does not allow"):
        Places(tmp_path, is_windows=True).place(f"/{name}")


def test_where_case_is_not_told_two_names_are_not_one_file(tmp_path: Path):
    places = Places(tmp_path, ignores_case=True)
    places.place("/a/B.jpg")
    places.place("/a/B.jpg")
    with pytest.raises(BadRequest, match=r"the same file as /a/B\.jpg"):
        places.place("/A/b.jpg")
    places.place("/é")
    with pytest.raises(BadRequest, match="the same file as /é"):
        places.place("/e\u0301")
    told = Places(tmp_path, ignores_case=False)
    assert told.place("/a/B.jpg") != told.place("/A/b.jpg")


def test_links_that_lead_out_are_not_followed(tmp_path: Path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    (root / "out").symlink_to(outside)
    (root / "in").symlink_to(root / "real")
    assert Places(root).place("/in/x").parent == root / "in"
    with pytest.raises(BadRequest, match="leads out"):
        Places(root).place("/out/deeper/x")
