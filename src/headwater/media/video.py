"""Reads one video: its length, its size and its frame rate, from its headers. Runs inside a decoder process.

The file may be a sparse one that holds only what `video_parts` asked for. No frame is decoded, and a format that names
other files is not opened: FFmpeg is told which of its readers to use.
"""

from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from headwater.media.records import Prepared, Problem, VideoFacts
from headwater.media.video_parts import READERS

_OPTIONS = {"protocol_whitelist": "file", "probesize": "5000000", "analyzeduration": "5000000", "fps_probe_size": "8"}
_LONGEST_S = 10 * 365 * 24 * 3600  # nobody has filmed longer; a header that says so is damaged
_HIGHEST_FPS = 100_000
_INDEX_BYTES = 1024**2


def read_video(path: Path, mime_type: str) -> Prepared:
    """Facts of the video at `path`; what is wrong with it is a Problem."""
    try:
        with av.open(str(path), format=READERS[mime_type], options=_OPTIONS, metadata_errors="replace") as container:
            pictures = Disposition.attached_pic  # cover art looks like a stream of one frame
            streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
            if not streams:
                return Prepared(problem=Problem("unsupported", "The file has no video, only sound or a picture of it."))
            return Prepared(video=_facts(container, streams[0], path, mime_type))
    except av.error.FFmpegError as error:
        said = f"{error.strerror or type(error).__name__}"
        return Prepared(problem=Problem("corrupt", f"The headers of the video contradict {mime_type} ({said})."))


def _facts(container: InputContainer, stream: VideoStream, path: Path, mime_type: str) -> VideoFacts:
    rate = next((rate for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate), None)
    fps = float(rate) if rate is not None and 0 < rate <= _HIGHEST_FPS else None
    duration_s = _duration_s(container, stream, path)
    frames = stream.frames if stream.frames > 0 else None
    if duration_s is None:
        frames = None
    elif frames is None and fps is not None:
        frames = round(duration_s * fps)
    return VideoFacts(
        mime_type=mime_type,
        width_px=stream.width or 0,
        height_px=stream.height or 0,
        duration_s=duration_s,
        fps=fps,
        rate=str(rate) if rate is not None and fps is not None else None,
        frames=frames,
        codec=stream.codec_context.name,
    )


def _duration_s(container: InputContainer, stream: VideoStream, path: Path) -> float | None:
    """None where the headers do not say it and it could only be told from all of the file."""
    if _is_fragmented(path) and _has_holes(path):
        return None
    duration = None if container.duration is None else Fraction(container.duration, av.time_base)
    if duration is None and stream.duration is not None and stream.time_base is not None:
        duration = stream.duration * stream.time_base
    return float(duration) if duration is not None and 0 < duration <= _LONGEST_S else None


def _is_fragmented(path: Path) -> bool:
    """An MP4 whose index names no frames: each fragment brings its own, and the length of all is nowhere."""
    with path.open("rb") as file:
        head = file.read(_INDEX_BYTES)
    return b"mvex" in head and b"mehd" not in head and b"sidx" not in head


def _has_holes(path: Path) -> bool:
    about = path.stat()
    return about.st_blocks * 512 < about.st_size
