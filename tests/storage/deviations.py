"""Where the stores that the suite runs over differ from what a store promises. docs/reference/stores.md shows it."""

from dataclasses import dataclass

from tests.storage.corpora import Corpus

KINDS = {
    "local": "local folder",
    "seaweedfs": "SeaweedFS",
    "moto": "moto",
    "azurite": "Azurite",
    "gcs": "fake-gcs-server",
}

KEYS = [
    "plain",
    "a b",
    " lead and trail ",
    "a+b",
    "a%b",
    "a%2Bb",
    "a%252Bb",
    "a%00b",
    "é",
    "e\u0301",
    "\N{GRINNING FACE}",
    "漢字/仮名.jpg",
    "a&b",
    "a<b>",
    'a"b"',
    "a'b",
    "a#b?c=d",
    "a:b;c,d",
    "~-_.!*()",
    "a\x01b",
    "a\x7fb",
    "a\tb",
    "a\nb",
    "a\\b",
    "\ufffd",
    "\u2028",
    "...",
    "a/..b/.c",
    "a//b",
    "/lead",
    "trail/",
    "trail//",
    "a/../b",
    "./a",
    "..",
    ".",
    ".dataloopx/a",
    "a/.dataloop/b",
    ".dataloop.jpg",
    "x" * 200,
    "x" * 1000,
    "é" * 512,
    "/".join(["x" * 204] * 5),
]

_NO_FILE = "a path has no empty parts, no `.` and no `..`"
_LONG_PART = "a part of a path has 255 bytes at most"
_FILE_KEYS = ["a//b", "/lead", "trail/", "trail//", "a/../b", "./a", "..", "."]
_PATHS = dict.fromkeys(_FILE_KEYS, _NO_FILE) | {"x" * 1000: _LONG_PART, "é" * 512: _LONG_PART}
CANNOT_HOLD: dict[str, dict[str, str]] = {
    "local": _PATHS,
    "seaweedfs": _PATHS | {"a\\b": "it turns a backslash into a slash"},
    "moto": {"a\nb": "its XML does not escape a line break"},
    "azurite": {
        "a\x01b": "its listing does not escape control characters",
        **dict.fromkeys(["...", "a/../b", "./a", "..", "."], "Azure takes no part of a path that ends with a dot"),
        "a\\b": "Azure takes a backslash for a slash",
    },
    "gcs": {},
}

_MARKERS = ["only/", "f/", "f/b/", "a/", "a//", "a//b", "/a", "//", "nn/"]
_DOTS = ["d/./e", "d/../e", "./d", "../d", ".", "..", "d/.", "d/.."]
_NAMED_LIKE_FILES = ["drive/front/1", "car/door", "car/door/handle", "p/q/r", ".a/b", ".dataloop"]
_NAMED_LIKE_FILES += ["\U0001f600/a", "\uffee/a", "PHOTO/a.JPG", "Photo/a.jpg", "nn"]
_BACKSLASHES = ["b\\c", "b\\\\c", "b\\"]
# What of the keys in corpora.py cannot be held beside the others of its corpus, and why.
CANNOT_HOLD_OF_CORPORA: dict[str, dict[str, str]] = {
    "local": dict.fromkeys([*_MARKERS, *_DOTS], _NO_FILE)
    | dict.fromkeys(_NAMED_LIKE_FILES, "a path is that of a file or of a folder"),
    "seaweedfs": dict.fromkeys([*_MARKERS, *_DOTS], _NO_FILE)
    | dict.fromkeys(_BACKSLASHES, CANNOT_HOLD["seaweedfs"]["a\\b"]),
    "moto": dict.fromkeys(["l\nm", "l\r\nm"], CANNOT_HOLD["moto"]["a\nb"]),
    "azurite": dict.fromkeys(["c\x01d", "c\x08d", "c\x0bd", "c\x1fd"], CANNOT_HOLD["azurite"]["a\x01b"])
    | dict.fromkeys([*_DOTS, "nn."], CANNOT_HOLD["azurite"]["..."])
    | dict.fromkeys(_BACKSLASHES, CANNOT_HOLD["azurite"]["a\\b"]),
    "gcs": {},
}


@dataclass(frozen=True, slots=True)
class Deviation:
    kind: str
    does: str
    so: str


DEVIATIONS = [
    Deviation("local", "Signs no URLs.", "`sign_get` gives None; Headwater passes the bytes through."),
    Deviation("local", "Its etag is made of size and time of change.", "A file that is touched counts as changed."),
    Deviation(
        "seaweedfs",
        "Lists `a-b` after `a/b`, folder by folder, not in byte order.",
        "A sync notices an order that is not its own, stages the listing and sorts it.",
    ),
    Deviation(
        "seaweedfs",
        "After `b/c` it skips what is inside the folder `b/c/`, even if that is the object `b/c` at the end of its own "
        "page; and a full page that ends so may claim to be the last.",
        "It is known by its header `Server`, asked to go on after `b/c/`, and a full page of it is never the last.",
    ),
    Deviation(
        "seaweedfs",
        "The right Write includes delete.",
        "No test takes a key of SeaweedFS for one that may write but not delete.",
    ),
    Deviation(
        "seaweedfs",
        "Keeps every attempt at a part, and tells of all.",
        "The etag that the sender was answered says which counts.",
    ),
    Deviation("moto", "Answers 500 to a part of an upload that was aborted.", "The others are asked what they say."),
    Deviation("moto", "Checks no keys and no rights, unless told to.", "Refusals are tested on SeaweedFS."),
    Deviation(
        "azurite", "Lists in the order of UTF-16; Data Lake Gen2 folder by folder.", "As SeaweedFS: staged and sorted."
    ),
    Deviation(
        "azurite", "Calls a wrong key AuthorizationFailure.", "`test_azure_faults.py` plays Azure's own answers."
    ),
    Deviation(
        "azurite", "Takes a token of any signer.", "Its end, issuer and audience are checked; Entra ID is played."
    ),
    Deviation(
        "gcs",
        "Checks no tokens and no signatures.",
        "`test_gcs_faults.py` plays the refusals and verifies signatures with the public key.",
    ),
    Deviation(
        "gcs",
        "Forgets the storage class and the headers of a signed URL's answer.",
        "`test_gcs_faults.py` sees that they are asked for and signed.",
    ),
    Deviation(
        "gcs",
        "Asked how much of an upload arrived, it finishes the upload; a deleted session lives on.",
        "Lost answers and cancelled uploads are played in `test_gcs_faults.py`.",
    ),
    Deviation(
        "gcs",
        "Has no XML multipart uploads.",
        "`tests/gcs_parts.py` plays them in front of it, after Google's documentation.",
    ),
    Deviation(
        "gcs",
        "Ignores `ifGenerationMatch` when bytes are read.",
        "Objects that change while they are read are played in `test_gcs_faults.py`.",
    ),
]


def keys_for(kind: str) -> list[str]:
    return [key for key in KEYS if key not in CANNOT_HOLD[kind]]


def held_of(kind: str, corpus: Corpus) -> list[str]:
    return [key for key in corpus.keys if key not in CANNOT_HOLD_OF_CORPORA[kind]]


def tables() -> str:
    """Both tables as Markdown."""
    head = f"| key | {' | '.join(KINDS.values())} |\n| --- |{' --- |' * len(KINDS)}\n"
    rows = [
        f"| {_shown(key)} | {' | '.join('no' if key in CANNOT_HOLD[kind] else '' for kind in KINDS)} |"
        for key in KEYS
        if any(key in cannot for cannot in CANNOT_HOLD.values())
    ]
    reasons = [
        f"- {KINDS[kind]}: {'; '.join(dict.fromkeys([*cannot.values(), *CANNOT_HOLD_OF_CORPORA[kind].values()]))}."
        for kind, cannot in CANNOT_HOLD.items()
        if cannot
    ]
    other = [f"| {KINDS[deviation.kind]} | {deviation.does} | {deviation.so} |" for deviation in DEVIATIONS]
    return (
        f"{head}{chr(10).join(rows)}\n\n{chr(10).join(reasons)}\n\n"
        f"| where | what deviates | what we do about it |\n| --- | --- | --- |\n{chr(10).join(other)}\n"
    )


def _shown(key: str) -> str:
    if len(key) > 100:
        return f"{len(key.encode()):,} bytes in one part"
    return f"`{key.encode('unicode_escape').decode() if not key.isprintable() else key}`"
