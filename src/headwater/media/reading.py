"""Reads one file of any kind: by its bytes it is an image or a video. Runs inside a decoder process."""

from pathlib import Path

from headwater.media.image import read_image
from headwater.media.probe import HEAD_BYTES, sniff_mime_type
from headwater.media.records import Prepared
from headwater.media.video import read_video
from headwater.media.video_parts import READERS


def read_file(path: Path, *, read_gps: bool, max_pixels: int) -> Prepared:
    """What is wrong with the file is a Problem. Raises OSError."""
    with path.open("rb") as file:
        mime_type = sniff_mime_type(file.read(HEAD_BYTES), path.name)
    if mime_type in READERS:
        return read_video(path, mime_type)
    return read_image(path, read_gps=read_gps, max_pixels=max_pixels)
