"""Which files of this machine are sent, and as what."""

import os
import socket
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.errors import BadRequest
from headwater.transfer.scanning import Found, Scan, Unusable


def paths(scan: Scan) -> list[str]:
    return sorted(one.path for one in scan if isinstance(one, Found))


def reasons(scan: Scan) -> dict[str, str]:
    return {Path(one.file).name: one.reason for one in scan if isinstance(one, Unusable)}


@pytest.fixture
def pics(tmp_path: Path) -> Path:
    for name in ("a.jpg", "deep/er/b.jpg", "deep/.hidden", ".DS_Store", "deep/x.tmp"):
        (tmp_path / "pics" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pics" / name).write_text(name)
    return tmp_path / "pics"


def test_a_folder_brings_its_name_along_and_with_a_slash_only_what_is_in_it(pics: Path, monkeypatch):
    inside = [".DS_Store", "a.jpg", "deep/.hidden", "deep/er/b.jpg", "deep/x.tmp"]
    assert paths(Scan([str(pics)])) == [f"/pics/{name}" for name in inside]
    assert paths(Scan([f"{pics}/"], "to")) == [f"/to/{name}" for name in inside]
    assert paths(Scan([str(pics)], "/to/there/")) == [f"/to/there/pics/{name}" for name in inside]
    monkeypatch.chdir(pics)
    assert paths(Scan(["."])) == [f"/{name}" for name in inside]
    assert paths(Scan(["a.jpg", "deep"], "/x")) == ["/x/a.jpg", "/x/deep/.hidden", "/x/deep/er/b.jpg", "/x/deep/x.tmp"]


def test_what_is_excluded_is_left_out_with_all_below(pics: Path):
    assert paths(Scan([str(pics)], exclude=[".*", "*.tmp"])) == ["/pics/a.jpg", "/pics/deep/er/b.jpg"]
    assert paths(Scan([str(pics)], exclude=["er", ".*"])) == ["/pics/a.jpg", "/pics/deep/x.tmp"]
    assert paths(Scan([str(pics)], exclude=["deep/*.tmp", "/deep/er"])) == [
        "/pics/.DS_Store",
        "/pics/a.jpg",
        "/pics/deep/.hidden",
    ]
    named = [str(pics / "a.jpg"), str(pics / ".DS_Store"), str(pics / "deep")]
    assert paths(Scan(named, exclude=[".*", "deep"])) == ["/a.jpg"]


def test_links_are_followed_but_not_in_circles(pics: Path):
    (pics / "deep/up").symlink_to(pics)
    (pics / "file").symlink_to(pics / "a.jpg")
    (pics / "twice").symlink_to(pics / "deep/er")
    (pics / "dead").symlink_to("nowhere")
    found = paths(Scan([str(pics)]))
    assert {"/pics/file", "/pics/twice/b.jpg", "/pics/deep/er/b.jpg"} <= set(found)
    assert not [path for path in found if "/up/" in path]
    assert reasons(Scan([str(pics)])) == {
        "up": "It is a link to a folder that it lies in.",
        "dead": "No such file or directory.",
    }


def test_what_cannot_be_sent_is_told(pics: Path):
    os.mkfifo(pics / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(pics / "socket"))
    (pics / os.fsdecode(b"caf\xe9.jpg")).touch()
    assert reasons(Scan([str(pics)])) == {
        "pipe": "It is no file: a socket, a pipe or a device.",
        "socket": "It is no file: a socket, a pipe or a device.",
        "caf\\xe9.jpg": "Its name is not UTF-8. Rename it.",
    }


def test_sidecars_belong_to_their_files(pics: Path):
    (pics / "a.jpg.json").write_text("{}")
    (pics / "alone.json").write_text("{}")
    found = {one.path: one.sidecar for one in Scan([str(pics)], with_sidecars=True) if isinstance(one, Found)}
    assert found["/pics/a.jpg"] == str(pics / "a.jpg.json")
    assert "/pics/a.jpg.json" not in found
    assert found["/pics/alone.json"] is None
    assert "/pics/a.jpg.json" in paths(Scan([str(pics)]))
    named = [str(pics / name) for name in ("a.jpg", "a.jpg.json", "alone.json")]
    found = {one.path: one.sidecar for one in Scan(named, with_sidecars=True) if isinstance(one, Found)}
    assert found == {"/a.jpg": str(pics / "a.jpg.json"), "/alone.json": None}


def test_what_is_named_like_a_sidecar_but_is_none_is_sent(pics: Path):
    (pics / "deep.json").write_text("{}")  # beside a folder
    (pics / "a.jpg.json").mkdir()
    (pics / "a.jpg.json/inside.txt").touch()
    found = {one.path: one.sidecar for one in Scan([str(pics)], with_sidecars=True) if isinstance(one, Found)}
    assert {"/pics/deep.json", "/pics/a.jpg.json/inside.txt"} <= set(found)
    assert set(found.values()) == {None}


def test_two_that_would_become_one_are_refused_and_so_is_what_is_not_there(pics: Path):
    (pics / "deep/a.jpg").touch()
    with pytest.raises(BadRequest, match=r"would both become /to/a\.jpg"):
        Scan([str(pics / "a.jpg"), str(pics / "deep/a.jpg")], "to").check()
    with pytest.raises(BadRequest, match=r"no file or folder .*nothing"):
        Scan([str(pics / "nothing")]).check()
    Scan([f"{pics}/", f"{pics}/deep/"]).check()


def test_folders_deeper_than_python_can_recurse(tmp_path: Path):
    deep = tmp_path
    for _ in range(1100):
        deep = deep / "d"
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1100):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    deep.joinpath("found.txt").touch()
    found = paths(Scan([f"{tmp_path}/"]))
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)  # which pytest's own cleaning cannot
    assert found == ["/" + "d/" * 1100 + "found.txt"]


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)


@settings(deadline=None, max_examples=50)
@given(tree=st.dictionaries(st.lists(names, min_size=1, max_size=3).map("/".join), st.binary(max_size=20), max_size=8))
def test_every_file_is_found_once(tmp_path_factory, tree: dict[str, bytes]):
    root = tmp_path_factory.mktemp("tree")
    written: dict[str, int] = {}
    for name, content in tree.items():
        try:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        except OSError:
            continue
        written[f"/{name}"] = len(content)
    found = [one for one in Scan([f"{root}/"]) if isinstance(one, Found)]
    assert {one.path: one.size_bytes for one in found} == written
    assert len(found) == len(written)
