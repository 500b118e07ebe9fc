"""Turns what a decoder complains about into the problem we tell."""

import re
from typing import BinaryIO

from headwater.media.records import Problem
from headwater.media.truncation import ends_early

LONGEST_DETAIL = 200  # characters
NOISE = re.compile(r"^/dev/fd/.*: bad seek to \d+$", re.MULTILINE)  # libheif feels for the end of a file
NO_MEMORY = re.compile("memory(?!.*security limit)")  # libheif calls a size beyond its own limits so, too
ENDED = re.compile("truncated|not enough image data")
UNSUPPORTED = re.compile(
    "unsupported (?!marker)|not supported|not been built in"
)  # a marker that libjpeg does not know is noise


class DecodeError(Exception):
    """A decoder gave up on a file; the text is the decoder's own."""


def diagnose(error: DecodeError | MemoryError, file: BinaryIO, mime_type: str) -> Problem:
    detail = re.sub(r"\s+", " ", NOISE.sub("", str(error))).strip()[:LONGEST_DETAIL]
    complaint = detail.lower()
    if isinstance(error, MemoryError) or NO_MEMORY.search(complaint):
        return Problem("out-of-memory", f"Decoding needs more memory than allowed ({detail or mime_type}).")
    if ends_early(file, mime_type) or ENDED.search(complaint):
        return Problem("truncated", f"The file ends early ({detail}).")
    if UNSUPPORTED.search(complaint):
        return Problem("unsupported", f"This kind of {mime_type} is not read here ({detail}).")
    return Problem("corrupt", f"The bytes contradict the format {mime_type} ({detail}).")
