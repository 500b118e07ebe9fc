"""How a decoder answers its parent: JSON and raw bytes, so that nothing it sends can run here."""

import json
import struct
from dataclasses import asdict
from typing import Any

from headwater.media.records import ImageFacts, Prepared, Problem, Thumbnail, VideoFacts

LENGTHS = struct.Struct(">II")  # of the JSON and of the thumbnail's bytes, which follow in this order
LONGEST_BYTES = 16 * 1024**2  # of either; an answer is some 20 kB


def pack(prepared: Prepared) -> bytes:
    thumbnail = prepared.thumbnail
    content = thumbnail.content if thumbnail else b""
    answer = {
        "facts": prepared.facts and asdict(prepared.facts),
        "video": prepared.video and asdict(prepared.video),
        "thumbnail": thumbnail and [thumbnail.mime_type, thumbnail.width_px, thumbnail.height_px],
        "problem": prepared.problem and asdict(prepared.problem),
    }
    text = json.dumps(answer, allow_nan=False).encode()
    return LENGTHS.pack(len(text), len(content)) + text + content


def unpack(text: bytes, content: bytes) -> Prepared:
    """Raises ValueError, KeyError or TypeError on anything that `pack` does not make."""
    answer: dict[str, Any] = json.loads(text)
    facts, video, thumbnail, problem = answer["facts"], answer["video"], answer["thumbnail"], answer["problem"]
    return Prepared(
        facts=ImageFacts(**facts) if facts else None,
        video=VideoFacts(**video) if video else None,
        thumbnail=Thumbnail(content, *thumbnail) if thumbnail else None,
        problem=Problem(**problem) if problem else None,
    )


def unpack_lengths(header: bytes) -> tuple[int, int]:
    """Raises ValueError when an answer claims to be longer than any is."""
    text_bytes, content_bytes = LENGTHS.unpack(header)
    if max(text_bytes, content_bytes) > LONGEST_BYTES:
        raise ValueError(f"an answer of {text_bytes} + {content_bytes} bytes")
    return text_bytes, content_bytes
