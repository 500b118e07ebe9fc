"""Places: where in a folder of this machine an item's file goes, and nowhere else.

Paths of items are written by whoever writes to a bucket: they are not to be trusted.
"""

import os
import re
import stat
import tempfile
import unicodedata
from pathlib import Path

from headwater.errors import BadRequest

_LONGEST_NAME_BYTES = 255  # of nearly all file systems
_NOT_ON_WINDOWS = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]$')
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


class Places:
    def __init__(self, root: Path, *, is_windows: bool = os.name == "nt", ignores_case: bool | None = None) -> None:
        self._root = root.resolve()
        self._is_windows = is_windows
        self._ignores_case = _ignores_case(self._root) if ignores_case is None else ignores_case
        self._folders: set[str] = set()  # that are real ones, inside
        self._taken: dict[str, str] = {}

    def place(self, path: str) -> Path:
        """Where the file of this path goes; its folder need not be there. Raises BadRequest, OSError."""
        names = path.removeprefix("/").split("/")
        for name in names:
            self._check_name(name)
        if self._ignores_case:
            self._check_case(path)
        folder = self._root
        for name in names[:-1]:
            folder = folder / name
            if str(folder) not in self._folders:
                self._check_folder(folder)
        return folder / names[-1]

    def _check_name(self, name: str) -> None:
        reason = None
        if name in ("", ".", ".."):
            reason = f"has a part {name!r}"
        elif "\0" in name:
            reason = "has a NUL character"
        elif len(name.encode()) > _LONGEST_NAME_BYTES:
            reason = f"has a part of more than {_LONGEST_NAME_BYTES} bytes"
        elif self._is_windows and (_NOT_ON_WINDOWS.search(name) or _DEVICES.fullmatch(name)):
            reason = f"has a part {name[:80]!r}, which Windows does not allow"
        if reason is not None:
            raise BadRequest(f"Its path {reason}: it cannot be a file here.")

    def _check_case(self, path: str) -> None:
        folded = unicodedata.normalize("NFC", path).casefold()
        other = self._taken.setdefault(folded, path)
        if other != path:
            raise BadRequest(
                f"Here it would be the same file as {other}: this folder does not tell the case of letters."
            )

    def _check_folder(self, folder: Path) -> None:
        """Links that lead outside could have been made by anybody, even by this download."""
        try:
            status = folder.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISLNK(status.st_mode) and not folder.resolve().is_relative_to(self._root):
            raise BadRequest(f"{folder} is a link that leads out of {self._root}. Nothing is written there.")
        if not folder.is_dir():
            raise BadRequest(f"{folder} is a file, where a folder has to be.")
        self._folders.add(str(folder))


def _ignores_case(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".headwater-") as probe:
        name = Path(probe.name)
        return name.with_name(name.name.upper()).exists()
