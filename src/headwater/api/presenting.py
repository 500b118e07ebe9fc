"""How users' files are handed out: as what they say they are, and never so that they run as a page of ours.

A file may be a page, and a picture may be a script. So no browser guesses (nosniff), none gives a file our origin's
rights (sandbox), what is not plainly a picture, a sound or a film is saved and not shown, and what can hold a script is
not told as such. A bucket's answer to a signed URL can be given a type and a disposition, and those are the same.
"""

import re
from urllib.parse import quote

from headwater.mime_types import UNKNOWN

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Authorization",
}
_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_ACTIVE = re.compile(r"html|[/+]xml|xsl|svg|script|css|flash|\A(?:multipart|message)/")
_SHOWN = re.compile(r"(?:image|video|audio)/.*")
_ODD = re.compile(r"[^A-Za-z0-9 ._-]")


def safe_type(mime_type: str | None) -> str:
    """The type to tell: without parameters, and the unknown one for what may run."""
    kind = (mime_type or "").partition(";")[0].strip().lower()
    return UNKNOWN if not _TYPE.fullmatch(kind) or _ACTIVE.search(kind) else kind


def is_shown(safe: str) -> bool:
    """Whether a browser may show what has this safe type; it saves all else."""
    return _SHOWN.fullmatch(safe) is not None


def disposition(name: str, *, shown: bool) -> str:
    """Of RFC 6266; the name in its plain form for old clients, and exactly (RFC 8187)."""
    kind = "inline" if shown else "attachment"
    return f"{kind}; filename=\"{_ODD.sub('_', name)}\"; filename*=UTF-8''{quote(name, safe='')}"
