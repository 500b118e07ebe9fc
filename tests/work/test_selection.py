"""Globs mean what git means by one line of a .gitignore, whatever they are, and no glob makes a path expensive."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog.sync.rules import SyncRules
from headwater.errors import BadRequest
from headwater.work.selection import LONGEST_GLOB, MOST_GLOBS, Selection


def _fits(glob: str, path: str) -> bool:
    return not Selection.of(SyncRules(exclude=(glob,))).keeps(path)


@pytest.mark.parametrize(
    ("glob", "path", "fits"),
    [
        ("*.jpg", "/a.jpg", True),
        ("*.jpg", "/deep/er/a.jpg", True),
        ("*.jpg", "/a.JPG", False),
        ("*.jpg", "/a.jpg2", False),
        ("*.jpg", "/.jpg", True),
        ("a*ab", "/ab", False),
        ("a*ab", "/aab", True),
        ("*", "/a", True),
        ("raw", "/x/raw/a.jpg", True),
        ("raw", "/x/raw", True),
        ("raw", "/x/rawer/a", False),
        ("raw/", "/x/raw/a.jpg", True),
        ("raw/", "/x/raw", False),
        ("raw/*.jpg", "/raw/a.jpg", True),
        ("raw/*.jpg", "/x/raw/a.jpg", False),
        ("/raw", "/raw/a", True),
        ("/raw", "/x/raw", False),
        ("raw/*", "/raw/deep/a", True),
        ("a/*/b", "/a/x/y/b", False),
        ("a/**/b", "/a/b", True),
        ("a/**/b", "/a/x/y/b", True),
        ("a/**/b", "/x/a/b", False),
        ("**/b", "/x/y/b", True),
        ("a/**", "/a/x", True),
        ("a/**", "/a", False),
        ("**", "/anything", True),
        ("**/", "/x/y", True),
        ("**/", "/x", False),
        ("a/**/", "/a/x", False),
        ("a/**/", "/a/x/y", True),
        ("?.txt", "/ä.txt", True),
        ("?.txt", "/.txt", False),
        ("[a-c]*", "/b1", True),
        ("[!a-c]*", "/b1", False),
        ("[^a-c]*", "/d", True),
        ("[]]x", "/]x", True),
        ("[a-]x", "/-x", True),
        (r"[\]a]x", "/]x", True),
        ("[!a]b", "/x/b", False),  # no bracket fits a slash
        ("/[!a]b", "//b", False),
        (r"\*", "/*", True),
        (r"\*", "/a", False),
        ("#a", "/#a", True),
        (" a ", "/ a ", True),
        ("a\nb", "/a\nb", True),
        ("a//b", "/a//b", True),
        ("a/*/b", "/a//b", True),
        ("(a|b)+", "/(a|b)+", True),
        (".dot*", "/x/.dotted", True),
    ],
)
def test_a_glob_fits(glob: str, path: str, fits: bool) -> None:
    assert _fits(glob, path) is fits


def test_exclude_wins_over_include_and_no_include_is_everything() -> None:
    rules = SyncRules(include=("*.jpg", "/keep/*.png"), exclude=("tmp/", "b*"))
    paths = ["/a.jpg", "/keep/a.png", "/x/keep/a.png", "/tmp/a.jpg", "/b.jpg", "/a.txt"]
    assert list(filter(Selection.of(rules).keeps, paths)) == ["/a.jpg", "/keep/a.png"]
    assert Selection.of(SyncRules()).keeps_all
    assert Selection.of(SyncRules()).keeps("/anything")
    assert not Selection.of(SyncRules(exclude=("x",))).keeps_all


@pytest.mark.parametrize(
    ("glob", "why"),
    [
        ("", "names nothing"),
        ("//", "names nothing"),
        ("!a", "not negated"),
        ("[ab", "has no ]"),
        ("a[b/c]d", "has no ]"),
        ("[]", "has no ]"),
        ("a\\", "nothing follows"),
        ("[z-a]", "upside down"),
        ("[[:alpha:]]", "not known"),
        ("a\0", "NUL"),
        ("a" * (LONGEST_GLOB + 1), "longer than"),
    ],
)
def test_a_glob_that_cannot_be_read_is_named(glob: str, why: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(why)) as refused:
        Selection.of(SyncRules(include=("fine", glob)))
    assert repr(glob[:30])[:-1] in str(refused.value)


def test_there_may_be_so_many_globs() -> None:
    Selection.of(SyncRules(exclude=("a",) * MOST_GLOBS))
    with pytest.raises(BadRequest, match=f"{MOST_GLOBS} are the most"):
        Selection.of(SyncRules(exclude=("a",) * (MOST_GLOBS + 1)))


# A reference that is slow and plain: every glob against every way to cut the path.


def _name_fits(glob: str, name: str) -> bool:
    if not glob:
        return not name
    if glob[0] == "*":
        return any(_name_fits(glob[1:], name[at:]) for at in range(len(name) + 1))
    if not name:
        return False
    if glob[0] == "\\":
        return glob[1] == name[0] and _name_fits(glob[2:], name[1:])
    if glob[0] == "[":
        end = glob.index("]", 2)
        members = glob[1:end].lstrip("!")
        return (name[0] in members) is (glob[1] != "!") and _name_fits(glob[end + 1 :], name[1:])
    return glob[0] in ("?", name[0]) and _name_fits(glob[1:], name[1:])


def _names_fit(globs: list[str], names: list[str]) -> bool:
    """Whether the globs fit a beginning of the names: what names a folder means all that is in it."""
    if not globs:
        return True
    if globs == ["**"]:
        return bool(names)
    if globs[0] == "**":
        return any(_names_fit(globs[1:], names[at:]) for at in range(len(names) + 1))
    return bool(names) and _name_fits(globs[0], names[0]) and _names_fit(globs[1:], names[1:])


def _reference(glob: str, path: str) -> bool:
    globs, names = glob.removesuffix("/").split("/"), path[1:].split("/")
    if len(globs) == 1:
        globs.insert(0, "**")
    elif not globs[0]:
        del globs[0]
    inside = ["*", "**"] if globs[-1] == "**" else ["**"]
    return _names_fit(globs + inside * glob.endswith("/"), names)


_GLOB_NAMES = st.one_of(
    st.just("**"),
    st.lists(st.sampled_from(["a", "b", ".", "*", "?", "[ab]", "[!a]", "\\*"]), min_size=1, max_size=6).map("".join),
)
_GLOBS = st.builds(
    lambda start, names, end: start + "/".join(names) + end,
    st.sampled_from(["", "/"]),
    st.lists(_GLOB_NAMES, min_size=1, max_size=5),
    st.sampled_from(["", "/"]),
)
_NAMES = st.text("ab.*", min_size=1, max_size=6)
_PATHS = st.lists(_NAMES, min_size=1, max_size=6).map(lambda names: "/" + "/".join(names))


@given(st.lists(_GLOBS, min_size=1, max_size=3), st.lists(_PATHS, min_size=1, max_size=10))
def test_globs_fit_as_in_the_reference(globs: list[str], paths: list[str]) -> None:
    selection = Selection.of(SyncRules(exclude=tuple(globs)))
    for path in paths:
        assert selection.keeps(path) is not any(_reference(glob, path) for glob in globs), (globs, path)


def test_globs_fit_as_git_takes_them(tmp_path: Path) -> None:
    """Each glob alone in the exclude file of an empty repository, asked about the same paths."""
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    names = ["a", "ab", "b.jpg", ".a"]
    paths = [
        *names,
        *(f"{x}/{y}" for x in names for y in names),
        *(f"{x}/{y}/{z}" for x in names for y in names for z in names),
    ]
    globs = ["a", "*.jpg", "a/", "/a", "a/b*", "*/a", "**/a/*", "a/**", "a/**/b.jpg", ".*", "a?", "[!a]*", "a*/", "?"]
    globs += ["/*", "/*/", "**/.a/", "a/*/b*", "*b*g", "**/ab/**/a", "a**b", "[.a]*"]
    globs += ["**/", "/**/", "a/**/", "*/**/"]
    for glob in globs:
        (tmp_path / ".git/info/exclude").write_text(glob + "\n")
        asked = subprocess.run(
            ["git", "check-ignore", "--no-index", "--stdin"],
            cwd=tmp_path, input="\n".join(paths), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert asked.returncode in (0, 1), asked.stderr
        assert {path for path in paths if _fits(glob, "/" + path)} == set(asked.stdout.splitlines()), glob


# Each would take a backtracking matcher longer than the universe; a process of its own, because such a match cannot be
# interrupted.
_EVIL = """
from headwater.catalog.sync.rules import SyncRules
from headwater.work.selection import Selection
globs = ["*a" * 60 + "b", "/" + "*a" * 60 + "b", "**/a*/" * 40 + "b", "/" + "**/*a*a*a/" * 30 + "b",
         "/" + "?*" * 80 + "b", "**/[!b]*a*" * 30, "/*" * 150 + "b"]
for glob in globs:
    selection = Selection.of(SyncRules(exclude=(glob,)))
    for path in ("/" + "a" * 1000, "/a" * 500, "/" + "a" * 500 + "/" + "a" * 499, "/aaaa" * 200):
        selection.keeps(path)
"""


def test_no_glob_makes_a_path_expensive() -> None:
    subprocess.run([sys.executable, "-c", _EVIL], check=True, timeout=60)
