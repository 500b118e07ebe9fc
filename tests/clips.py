"""Small videos, made when they are asked for."""

import random
import tempfile
from pathlib import Path

import av


def clip(
    container: str = "mp4",
    *,
    codec: str = "mpeg4",
    frames: int = 50,
    fps: int = 25,
    size: tuple[int, int] = (160, 120),
    options: dict[str, str] | None = None,
    bit_rate: int | None = None,
) -> bytes:
    """Noise, so that many frames are many bytes."""
    noise = random.Random(7)
    with tempfile.NamedTemporaryFile() as file:  # some formats are written twice
        with av.open(file.name, "w", format=container, options=options or {}) as output:
            stream = output.add_stream(codec, rate=fps)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            if bit_rate is not None:
                stream.bit_rate = bit_rate
            for _ in range(frames):
                picture = av.VideoFrame(*size, "yuv420p")
                for plane in picture.planes:
                    plane.update(noise.randbytes(plane.buffer_size))
                output.mux(stream.encode(picture))
            output.mux(stream.encode())
        return Path(file.name).read_bytes()


def free_box(size_bytes: int) -> bytes:
    """A box of an MP4 that means nothing, full of noise."""
    return size_bytes.to_bytes(4) + b"free" + random.Random(1).randbytes(size_bytes - 8)


def sparse(path: Path, body: bytes, parts: list[tuple[int, int]]) -> Path:
    """A file of that length that holds these parts only."""
    with path.open("wb") as file:
        file.truncate(len(body))
        for start, end in parts:
            file.seek(start)
            file.write(body[start:end])
    return path
