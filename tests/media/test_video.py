"""Facts of videos from the few bytes that tell them; the frames stay where they are."""

import os
from pathlib import Path

import pytest

from headwater.media.limits import DecodePool
from headwater.media.probe import sniff_mime_type
from headwater.media.records import VideoFacts
from headwater.media.video import read_video
from headwater.media.video_parts import HEAD_BYTES, MOST_BYTES, READERS, TAIL_BYTES, Part, parts
from tests import clips

LONG = {"frames": 100, "size": (320, 240), "bit_rate": 20_000_000}  # some 10 MB for 4 s
KINDS = {
    "mp4": {},
    "mov": {},
    "matroska": {},
    "webm": {"codec": "libvpx"},
    "avi": {},
    "mpegts": {"codec": "mpeg2video"},
    "mpeg": {"codec": "mpeg2video"},
    "flv": {"codec": "flv"},
    "asf": {"codec": "wmv2"},
}


def asked(mime_type: str, body: bytes, size_bytes: int | None = None) -> list[Part]:
    """What `parts` wants of a file."""
    wanted = parts(mime_type, len(body) if size_bytes is None else size_bytes)
    found: list[Part] = []
    part = next(wanted)
    while True:
        found.append(part)
        try:
            part = wanted.send(body[part[0] : part[1]])
        except StopIteration:
            return found


def read_parts(tmp_path: Path, body: bytes) -> tuple[VideoFacts | None, list[Part]]:
    mime_type = sniff_mime_type(body, "clip")
    found = asked(mime_type, body)
    path = clips.sparse(tmp_path / "clip", body, found)
    assert path.stat().st_blocks * 512 < len(body) // 2, "the file system keeps no holes"
    return read_video(path, mime_type).video, found


@pytest.mark.parametrize("container", KINDS)
def test_head_and_tail_tell_length_size_and_rate(container: str, tmp_path: Path):
    body = clips.clip(container, **LONG, **KINDS[container])
    facts, found = read_parts(tmp_path, body)
    assert facts is not None
    assert (facts.width_px, facts.height_px, facts.fps, facts.rate) == (320, 240, 25.0, "25")
    assert facts.duration_s == pytest.approx(4, abs=0.1)
    assert facts.frames == pytest.approx(100, abs=2)
    assert sum(end - start for start, end in found) < len(body) / 3


def test_the_index_of_an_mp4_is_found_wherever_it_lies(tmp_path: Path):
    in_front = clips.clip("mp4", options={"movflags": "faststart"}, **LONG)
    far_behind = clips.clip("mp4", **LONG)
    padding = clips.free_box(2 * TAIL_BYTES)
    in_the_middle = far_behind + padding  # neither in the head nor in the tail
    for body in (in_front, far_behind, in_the_middle):
        facts, _ = read_parts(tmp_path, body)
        assert facts is not None
        assert (facts.frames, facts.duration_s) == (100, 4.0)


def test_a_fragmented_mp4_tells_its_length_only_where_it_has_an_index(tmp_path: Path):
    fragmented = clips.clip("mp4", options={"movflags": "frag_keyframe+empty_moov"}, **LONG)
    facts, _ = read_parts(tmp_path, fragmented)
    assert facts is not None
    assert (facts.width_px, facts.duration_s, facts.frames) == (320, None, None)
    whole = tmp_path / "whole.mp4"
    whole.write_bytes(fragmented)
    assert read_video(whole, "video/mp4").video.duration_s == pytest.approx(4, abs=0.1)
    facts, _ = read_parts(
        tmp_path, clips.clip("mp4", options={"movflags": "frag_keyframe+empty_moov+global_sidx"}, **LONG)
    )
    assert facts is not None
    assert facts.duration_s == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(
    "body",
    [
        b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\0moov",  # to the end
        b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\1moov" + b"\xff" * 8,  # beyond any end
        b"\0\0\0\x18ftypisom" + bytes(12) + b"\0\0\0\3free",  # shorter than its own header
        b"\0\0\0\x08free" * 400_000,
        b"\0\0\0\1free" + bytes(7) + b"\1" + bytes(20),  # of one byte
        b"\0\0\0\x18ftyp",
        b"",
    ],
)
def test_whatever_the_boxes_say_no_more_is_asked_for_than_allowed(body: bytes):
    for size_bytes in (len(body), 10 * HEAD_BYTES, 2**40, 2**63 - 1):
        found = asked("video/mp4", body, size_bytes)
        assert all(0 <= start <= end <= size_bytes for start, end in found)
        assert sum(end - start for start, end in found) <= MOST_BYTES
        assert len(found) < 100


def test_what_is_no_video_is_a_problem(tmp_path: Path):
    body = clips.clip("mp4")
    garbage = tmp_path / "garbage.mp4"
    garbage.write_bytes(body[:32] + os.urandom(5000))
    assert read_video(garbage, "video/mp4").problem.reason == "corrupt"
    for mime_type in READERS:
        garbage.write_bytes(os.urandom(9000))
        assert read_video(garbage, mime_type).problem is not None


@pytest.mark.parametrize("mime_type", sorted(READERS))
def test_no_format_opens_what_a_file_names(mime_type: str, tmp_path: Path):
    """FFmpeg's playlists are read by whoever lets FFmpeg guess."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clips.clip("mp4"))
    for text in (f"#EXTM3U\n#EXTINF:1,\n{secret}\n", f"ffconcat version 1.0\nfile {secret}\n"):
        playlist = tmp_path / "playlist"
        playlist.write_text(text)
        assert read_video(playlist, mime_type).video is None


async def test_videos_are_read_in_the_decoder_beside_images(tmp_path: Path):
    path = tmp_path / "clip.webm"
    path.write_bytes(clips.clip("webm", codec="libvpx"))
    async with DecodePool(processes=1, timeout_s=60, memory_bytes=2 * 1024**3) as decoders:
        prepared = await decoders.prepare(path)
    assert prepared.problem is None
    assert prepared.video == VideoFacts("video/webm", 160, 120, pytest.approx(2, abs=0.05), 25.0, "25", 50, "vp8")
