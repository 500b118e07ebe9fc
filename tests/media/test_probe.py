"""What a file is, by its bytes."""

import gzip
import io
import json
import struct
import wave
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.media.probe import sniff_mime_type
from tests import samples


def wav() -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as sound:
        sound.setparams((1, 2, 8000, 10, "NONE", ""))
        sound.writeframes(bytes(20))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "x")
    return buffer.getvalue()


def ebml(document_type: bytes) -> bytes:
    return bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f3810842 82".replace(" ", "")) + b"\x84" + document_type


def dng() -> bytes:
    entry = struct.pack("<HHI4B", 0xC612, 1, 4, 1, 4, 0, 0)
    return b"II*\x00\x08\x00\x00\x00" + struct.pack("<H", 1) + entry + bytes(4)


FILES = {
    "image/jpeg": samples.jpeg(),
    "image/png": samples.encode(samples.picture(), "PNG"),
    "image/gif": samples.animated_gif(),
    "image/webp": samples.encode(samples.picture(), "WEBP"),
    "image/avif": samples.encode(samples.picture(), "AVIF"),
    "image/heic": b"\x00\x00\x00\x24ftypheic\x00\x00\x00\x00mif1heic" + bytes(40),
    "image/tiff": samples.encode(samples.picture(), "TIFF"),
    "image/x-adobe-dng": dng(),
    "image/x-canon-cr2": b"II*\x00\x10\x00\x00\x00CR\x02\x00" + bytes(40),
    "image/bmp": samples.encode(samples.picture(), "BMP"),
    "image/vnd.microsoft.icon": samples.encode(samples.picture(), "ICO"),
    "image/jp2": samples.encode(samples.picture(), "JPEG2000"),
    "image/x-portable-anymap": samples.encode(samples.picture(), "PPM"),
    "image/qoi": samples.encode(samples.picture(), "QOI"),
    "image/svg+xml": b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- drawn -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "application/pdf": samples.encode(samples.picture(), "PDF"),
    "video/mp4": b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41" + bytes(40),
    "video/quicktime": b"\x00\x00\x00\x14ftypqt  \x00\x00\x02\x00qt  " + bytes(40),
    "video/webm": ebml(b"webm"),
    "video/x-matroska": ebml(b"matroska"),
    "video/x-msvideo": b"RIFF\x24\x10\x00\x00AVI LIST" + bytes(40),
    "audio/mpeg": b"ID3\x03\x00\x00\x00\x00\x00\x21" + bytes(40),
    "audio/wav": wav(),
    "audio/flac": b"fLaC\x00\x00\x00\x22" + bytes(40),
    "audio/ogg": b"OggS\x00\x02" + bytes(20) + b"\x01\x1e\x01vorbis" + bytes(40),
    "video/ogg": b"OggS\x00\x02" + bytes(20) + b"\x01\x2a\x80theora" + bytes(40),
    "application/zip": zipped(),
    "application/gzip": gzip.compress(b"hello"),
    "application/dicom": bytes(128) + b"DICM\x02\x00",
    "application/x-nifti": struct.pack("<i", 348) + bytes(340) + b"n+1\x00" + bytes(10),
    "application/vnd.apache.parquet": b"PAR1\x15\x04" + bytes(40),
    "application/x-npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'}",
    "application/json": b'{"a": [1, 2]}',
    "text/plain": "Grüße\n".encode(),
    "application/octet-stream": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("mime_type", FILES)
@pytest.mark.parametrize("name", ["", "no extension", "wrong.jpg", "wrong.mp4"])
def test_the_bytes_say_what_a_file_is_whatever_its_name(mime_type, name):
    assert sniff_mime_type(FILES[mime_type], name) == mime_type


@pytest.mark.parametrize(
    ("head", "name", "mime_type"),
    [
        (b"a,b\n1,2\n", "rows.csv", "text/csv"),
        (b"a,b\n1,2\n", "ROWS.CSV", "text/csv"),
        (b"a: 1\n", "conf.yaml", "application/yaml"),
        (b'{"a": 1}\n{"a": 2}\n', "rows.jsonl", "application/jsonl"),
        (b"just words", "photo.jpg", "text/plain"),
        (b"just words", "drawing.svg", "text/plain"),
        ("Grüße aus Köln".encode("latin-1"), "note", "text/plain"),
        ("Grüße".encode("utf-16"), "note.txt", "text/plain"),
        (b"a" + "é".encode() * 2048, "cut in a letter.txt", "text/plain"),
        (b"[1, 2", "", "application/json"),
        (b"[section]\nkey=1", "setup.ini", "text/plain"),
        (b"<!DOCTYPE html><p>", "page", "text/html"),
        (b"<p>one</p>", "part.html", "text/html"),
        (b"\xff\xfb\x90\x64" + bytes(413), "no ID3.bin", "audio/mpeg"),
        (b"\x00\x01\x02\x03", "scan.dcm", "application/dicom"),
        (b"BM and then prose", "notes.txt", "text/plain"),
        (b"P1 is a letter and a number", "notes.txt", "text/plain"),
        (b"", "photo.jpg", "application/octet-stream"),
        (b"", "rows.csv", "text/csv"),
    ],
)
def test_the_name_decides_only_what_the_bytes_leave_open(head, name, mime_type):
    assert sniff_mime_type(head, name) == mime_type


@given(st.binary(max_size=600), st.text(max_size=20))
def test_any_bytes_and_any_name_have_a_type(head, name):
    assert "/" in sniff_mime_type(head, name)


@given(st.sampled_from(sorted(FILES)), st.integers(0, 400))
def test_a_head_cut_anywhere_has_a_type(mime_type, length):
    assert "/" in sniff_mime_type(FILES[mime_type][:length], "x")


@settings(max_examples=30)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_json_with_a_container_outside_is_json(value):
    assert sniff_mime_type(json.dumps([value]).encode(), "") == "application/json"
