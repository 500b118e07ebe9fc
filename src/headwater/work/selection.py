"""Selection: which objects of a bucket are items, by the globs of a dataset's rules.

A glob is read as one line of a `.gitignore`: without a slash it is a name at any depth, with one it starts at the
driver's folder; `*` and `?` stay inside a name, `**` stands for any folders; what names a folder means all that is in
it. Case counts, and a leading dot is a letter like any other.

Whatever the globs are, a path is read a bounded number of times for each: behind every `*` and `**` the first fit is
the best one, so none is ever given up for a later one (atomic groups). Several libraries translate such globs, none of
them so: see docs/decisions/0015-ghosts-and-globs.md.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from headwater.catalog.sync.rules import SyncRules
from headwater.errors import BadRequest

MOST_GLOBS = 100  # in a list
LONGEST_GLOB = 400  # characters

_NAME_ENDS = r"(?=/|\Z)"
_ANY_FOLDERS = "(?:/[^/]*+)*?"

# A bracket: `]` and `!` or `^` right behind the `[` are letters or a "not"; a backslash takes the next letter as it is.
_BRACKET = re.compile(r"\[(?P<no>[!^]?)(?P<body>(?:\]|\\.|[^\]\\])(?:\\.|[^\]\\])*)\]", re.DOTALL)
_MEMBER = re.compile(r"\\?(?P<first>.)(?:-\\?(?P<last>(?<=\\)\]|[^\]]))?", re.DOTALL)


_Fits = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Selection:
    keeps_all: bool  # no glob at all
    _included: _Fits | None
    _excluded: _Fits | None

    @classmethod
    def of(cls, rules: SyncRules) -> Self:
        """Raises BadRequest, which names the glob that cannot be read."""
        return cls(
            keeps_all=not (rules.include or rules.exclude),
            _included=_fits_any("include", rules.include),
            _excluded=_fits_any("exclude", rules.exclude),
        )

    def keeps(self, path: str) -> bool:
        """Whether the object of this item's path ('/' + its key below the driver's folder) is an item."""
        return (self._included is None or self._included(path) is not None) and (
            self._excluded is None or self._excluded(path) is None
        )


def _fits_any(option: str, globs: Sequence[str]) -> _Fits | None:
    """Something but None for the paths that one of the globs fits; None when there is no glob."""
    if len(globs) > MOST_GLOBS:
        raise BadRequest(f"`{option}` has {len(globs)} globs; {MOST_GLOBS} are the most.")
    anywhere: list[str] = []  # names, looked for behind each slash
    anchored: list[str] = []
    for glob in dict.fromkeys(globs):
        names = _names(glob)
        if len(names) == 2 and names[0] == "**" and names[1] != "**":
            anywhere.append(_name_expression(glob, names[1], "/" if glob[-1] == "/" else _NAME_ENDS))
        else:
            anchored.append(_path_expression(glob, names))
    name = re.compile("/(?:" + "|".join(anywhere) + ")", re.DOTALL).search if anywhere else None
    path = re.compile("|".join(anchored), re.DOTALL).match if anchored else None
    if name is None or path is None:
        return name or path
    return lambda text: name(text) or path(text)


def _names(glob: str) -> list[str]:
    """The names of a path that a glob fits from the root on. Raises BadRequest."""
    if not glob.strip("/"):
        raise _unreadable(glob, "it names nothing; leave it out")
    if len(glob) > LONGEST_GLOB:
        raise _unreadable(glob[:40] + "…", f"it is longer than {LONGEST_GLOB} characters")
    if glob[0] == "!":
        raise _unreadable(glob, r"a glob is not negated; put it into the other list (or write \! for a name with a !)")
    if "\0" in glob:
        raise _unreadable(glob, "no key holds a NUL")
    names = glob.removesuffix("/").split("/")
    if len(names) == 1:
        return ["**", *names]
    return names if names[0] else names[1:]


def _path_expression(glob: str, names: list[str]) -> str:
    """Names that follow each other stand or fall together; behind each `**` their first place is as good as any."""
    runs = [""]
    for name in names:
        if name == "**":
            runs.append("")
        else:
            runs[-1] += "/" + _name_expression(glob, name, _NAME_ENDS)
    first, *others = runs
    inside = "/" if names[-1] == "**" or glob[-1] == "/" else ""
    if names[-1] == "**" and glob[-1] == "/":
        inside = "/[^/]*+/"  # `a/**/` names the folders below a, hence what is in them
    return first + "".join(f"(?>{_ANY_FOLDERS}{run})" for run in others if run) + inside


def _name_expression(glob: str, name: str, ending: str) -> str:
    """One name of a path; each `*` but the last takes the fewest letters, for good."""
    first, *others = _pieces(glob, name)
    if not others:
        return first + ending
    *inner, last = others
    if not first and not inner and last and ending == _NAME_ENDS:
        return f"[^/]*+(?<={last})"  # `*.jpg`, the most frequent: look at the end of the name alone
    return first + "".join(f"(?>[^/]*?{piece})" for piece in inner) + ("[^/]*?" + last if last else "[^/]*+") + ending


def _pieces(glob: str, name: str) -> list[str]:
    """What stands before, between and behind the `*` of a name."""
    pieces = [""]
    at = 0
    while at < len(name):
        letter = name[at]
        if letter == "*":
            if name[at - 1 : at] != "*" or pieces[-1]:
                pieces.append("")
        elif letter == "?":
            pieces[-1] += "[^/]"
        elif letter == "[":
            bracket = _BRACKET.match(name, at)
            if bracket is None:
                raise _unreadable(glob, r"a [ has no ] in the same name (write \[ for the letter)")
            pieces[-1] += _bracket_expression(glob, bracket)
            at = bracket.end() - 1
        else:
            if letter == "\\":
                at += 1
                if at == len(name):
                    raise _unreadable(glob, r"nothing follows its last \ (write \\ for the letter)")
            pieces[-1] += re.escape(name[at])
        at += 1
    return pieces


def _bracket_expression(glob: str, bracket: re.Match[str]) -> str:
    if "[:" in bracket["body"]:
        raise _unreadable(glob, "classes such as [:alpha:] are not known; write a range such as [a-z]")
    members = ""
    for member in _MEMBER.finditer(bracket["body"]):
        first, last = member["first"], member["last"]
        if last is not None and last < first:
            raise _unreadable(glob, f"its range {first}-{last} is upside down")
        members += re.escape(first) + ("" if last is None else "-" + re.escape(last))
        if last is None and member[0].endswith("-") and len(member[0]) > 1:
            members += r"\-"
    return f"(?!/)[{'^' if bracket['no'] else ''}{members}]"


def _unreadable(glob: str, why: str) -> BadRequest:
    return BadRequest(f"The glob {glob!r} cannot be used: {why}.")
