"""Which bytes of a video tell what it is: its head, its tail, and the index of an MP4 wherever that lies.

The rest of the file is a hole for the decoder: no frame of it is looked at. Nothing is read here: who has the bytes
drives the generator, with a store, a URL or a file.
"""

import struct
from collections.abc import Generator

HEAD_BYTES = 1024**2
TAIL_BYTES = 1024**2
MOST_BYTES = 16 * 1024**2  # of one video; an index of two hours is some 5 MB
_MOST_BOXES = 64  # whose headers are read; those of a fragmented file follow one another by the thousand
_BOX = struct.Struct(">I4s")
_LARGE_BOX_BYTES = 16
_MOST_INDEX_BYTES = MOST_BYTES - HEAD_BYTES - TAIL_BYTES - _MOST_BOXES * _LARGE_BOX_BYTES
_ISO_TYPES = frozenset(["video/mp4", "video/quicktime", "video/3gpp", "audio/mp4"])

# FFmpeg's reader of each type. Playlists (HLS, DASH, concat) are none: they would have it open what they name.
READERS = {
    "video/3gpp": "mov",
    "video/mp2t": "mpegts",
    "video/mp4": "mov",
    "video/mpeg": "mpeg",
    "video/ogg": "ogg",
    "video/quicktime": "mov",
    "video/webm": "matroska",
    "video/x-flv": "flv",
    "video/x-matroska": "matroska",
    "video/x-ms-asf": "asf",
    "video/x-msvideo": "avi",
}

Part = tuple[int, int]  # first byte, and the one after the last


def parts(mime_type: str, size_bytes: int) -> Generator[Part, bytes]:
    """Asks for one part after the other; send it the bytes of each. At most `MOST_BYTES` in all."""
    head = yield 0, min(size_bytes, HEAD_BYTES)
    end = len(head)
    if size_bytes > end:
        yield max(end, size_bytes - TAIL_BYTES), size_bytes
    if mime_type in _ISO_TYPES:
        index = yield from _find_index(head, size_bytes)
        if index is not None:
            start = max(index[0], end)
            stop = min(index[1], size_bytes - TAIL_BYTES, start + _MOST_INDEX_BYTES)
            if start < stop:
                yield start, stop


def _find_index(head: bytes, size_bytes: int) -> Generator[Part, bytes, Part | None]:
    """Where the box `moov` lies (ISO 14496-12), by the headers of those before it."""
    offset = 0
    for _ in range(_MOST_BOXES):
        if offset + _LARGE_BOX_BYTES > size_bytes:
            return None
        header = head[offset : offset + _LARGE_BOX_BYTES]
        if len(header) < _LARGE_BOX_BYTES:
            header = yield offset, offset + _LARGE_BOX_BYTES
        if len(header) < _LARGE_BOX_BYTES:
            return None
        box_bytes, kind = _BOX.unpack_from(header)
        if box_bytes == 1:
            box_bytes = int.from_bytes(header[8:16])
        elif box_bytes == 0:  # to the end
            box_bytes = size_bytes - offset
        if box_bytes < _BOX.size:
            return None
        if kind == b"moov":
            return offset, offset + box_bytes
        offset += box_bytes
    return None
