"""Chunks: the values of one path in one segment as arrays, and as the bytes that are kept of them.

encoding   for                                                answers
codes      any JSON values, at most MOST_VALUES different     everything, by a table with one entry a value
numbers    JSON values that are nearly all numbers            eq, in, gt …, exists, order
texts      JSON values that are nearly all short texts        the same, and patterns
integers   columns: counts, ids, times in µs since 1970       the same
hashes     JSON values of which most are different            eq, in, exists
paths      where items are                                    patterns, comparisons, order

A row whose value is UNKNOWN has one that the chunk does not tell (too long, a number that no float is, a value inside
of a list of objects): ask the row. Everything else a chunk says is exact. Bytes are compressed by LZ4, and what a
version of this file writes, all later ones read.
"""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Encoding = Literal["codes", "numbers", "texts", "integers", "hashes", "paths"]

SEGMENT_BITS = 16
SEGMENT_ITEMS = 1 << SEGMENT_BITS  # at most

ABSENT, UNKNOWN = 0, 1  # among codes and hashes
FIRST_CODE = 2
MOST_VALUES = 60_000  # of one path in codes

LONGEST_TEXT = 200  # characters of one in texts
BLOCK_TEXTS = 1_024  # of texts that are kept, and can be read, by themselves

Offsets = NDArray[np.uint16]  # `id & 65535` of each row of a segment, rising


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """ABSENT, UNKNOWN, or the `code` of a row of column_value (FIRST_CODE and more)."""

    codes: NDArray[Any]  # uint8 or uint16

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Numbers:
    """JSON numbers that a float64 says exactly, and what else there is, by its row."""

    values: NDArray[np.float64]  # NaN where `valid` is not
    valid: NDArray[np.bool_]
    exceptions: Mapping[int, Any]  # row → JSON value; neither `valid` nor absent
    unknown: NDArray[np.uint16]  # rows; neither valid nor absent

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.valid.nbytes + 100 * len(self.exceptions)


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """Row n is `base + deltas[n]`. Where all are valid, `valid` is None."""

    base: int
    deltas: NDArray[Any]  # uint8, uint16, uint32 or uint64; 0 where not valid
    valid: NDArray[np.bool_] | None

    @property
    def nbytes(self) -> int:
        return self.deltas.nbytes + (0 if self.valid is None else self.valid.nbytes)

    def int64(self) -> NDArray[np.int64]:
        """`base` where not valid."""
        return self.deltas.astype(np.int64) + np.int64(self.base)


@dataclass(frozen=True, slots=True, eq=False)
class Hashes:
    """ABSENT, UNKNOWN, or `hash_value` of a scalar."""

    hashes: NDArray[np.uint64]

    @property
    def nbytes(self) -> int:
        return self.hashes.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Paths:
    """`order`: rows in the order of their paths' bytes, which is PostgreSQL's "C"."""

    texts: pa.StringArray
    order: NDArray[np.uint16]

    @property
    def nbytes(self) -> int:
        return self.texts.nbytes + self.order.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class TextBlock:
    """BLOCK_TEXTS texts one after the other (the last block may have fewer), in the order of their bytes."""

    ends: NDArray[np.int32]  # where in `letters` each begins, and the last one ends
    letters: memoryview

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, place: int) -> bytes:
        if place >= len(self):
            raise IndexError(place)
        return bytes(self.letters[self.ends[place] : self.ends[place + 1]])


@dataclass(frozen=True, slots=True, eq=False)
class Texts:
    """JSON texts in the order of their bytes, and what else there is, by its row. Other rows are absent."""

    rows: int
    texts: pa.StringArray
    order: NDArray[np.uint16]  # the row of each
    exceptions: Mapping[int, Any]  # row → JSON value
    unknown: NDArray[np.uint16]  # rows
    spans: NDArray[np.int64]  # where in the encoded bytes each block begins, and the last one ends; empty before

    @property
    def nbytes(self) -> int:
        return self.texts.nbytes + self.order.nbytes + self.spans.nbytes + 200 * len(self.exceptions)

    def block(self, number: int) -> TextBlock:
        _, ends, letters = self.texts.buffers()
        first = number * BLOCK_TEXTS
        return TextBlock(
            np.frombuffer(ends, np.int32)[first : min(first + BLOCK_TEXTS, len(self.texts)) + 1], memoryview(letters)
        )


Chunk = Codes | Numbers | Texts | Integers | Hashes | Paths


def decode(encoding: Encoding, data: bytes, rows: int) -> Chunk:
    """What `encode` was given. Takes some 50 to 500 µs for a full segment, most of it outside of the GIL."""
    parts = _unpacked(data)
    match encoding:
        case "codes":
            return Codes(_narrow(parts[0], rows))
        case "numbers":
            valid = _bits(parts[1], rows)
            values = np.full(rows, np.nan)
            values[valid] = np.frombuffer(parts[0], np.float64)
            exceptions = {int(row): value for row, value in json.loads(parts[2])} if parts[2] else {}
            return Numbers(values, valid, exceptions, np.frombuffer(parts[3], np.uint16))
        case "texts":
            order, others, unknown, *blocks = parts
            exceptions = {int(row): value for row, value in json.loads(others)} if others else {}
            texts = _joined_blocks([_block(block) for block in blocks])
            spans = np.array([end for _, end in _spans(data)][2:], np.int64)
            return Texts(
                rows, texts, np.frombuffer(order, np.uint16), exceptions, np.frombuffer(unknown, np.uint16), spans
            )
        case "integers":
            (base,) = struct.unpack("<q", parts[0])
            return Integers(base, _narrow(parts[1], rows), _bits(parts[2], rows) if parts[2] else None)
        case "hashes":
            return Hashes(np.frombuffer(parts[0], np.uint64) if parts[0] else np.zeros(rows, np.uint64))
        case "paths":
            return Paths(_strings(parts[0], parts[1], rows), np.frombuffer(parts[2], np.uint16))


def decode_block(data: bytes) -> TextBlock:
    """Of the bytes of one of `Texts.spans`."""
    (block,) = _unpacked(data)
    return _block(block)


def _block(part: bytes) -> TextBlock:
    """How many texts, the length of each in bytes, and these bytes."""
    (texts,) = _COUNT.unpack_from(part)
    begin = _COUNT.size + 2 * texts
    lengths = np.frombuffer(part, np.uint16, texts, _COUNT.size)
    ends = np.zeros(texts + 1, np.int32)
    np.cumsum(lengths, out=ends[1:])
    return TextBlock(ends, memoryview(part)[begin:])


def _joined_blocks(blocks: Sequence[TextBlock]) -> pa.StringArray:
    sizes = np.cumsum([0, *(int(block.ends[-1]) for block in blocks)])
    ends = [block.ends[1:] + np.int32(begin) for block, begin in zip(blocks, sizes, strict=False)]
    letters = b"".join(block.letters for block in blocks)
    return _strings(np.concatenate([np.zeros(1, np.int32), *ends]).tobytes(), letters, sum(map(len, ends)))


def _blocks_of(texts: pa.StringArray) -> list[bytes]:
    ends, letters = _buffers(texts)
    places = np.frombuffer(ends, np.int32)
    blocks: list[bytes] = []
    for first in range(0, len(texts), BLOCK_TEXTS):
        here = places[first : first + BLOCK_TEXTS + 1]
        lengths = np.diff(here).astype(np.uint16)
        blocks.append(_COUNT.pack(len(lengths)) + lengths.tobytes() + letters[here[0] : here[-1]])
    return blocks


def absent(encoding: Encoding, rows: int) -> Chunk:
    """No row has a value."""
    nothing = np.zeros(rows, np.bool_)
    match encoding:
        case "codes":
            return Codes(np.zeros(rows, np.uint8))
        case "numbers":
            return Numbers(np.full(rows, np.nan), nothing, {}, np.zeros(0, np.uint16))
        case "texts":
            return texts_of([None] * rows, {}, [])
        case "hashes":
            return Hashes(np.zeros(rows, np.uint64))
        case "integers" | "paths":
            raise AssertionError(f"{encoding} is for columns, which every segment has")


def _strings(ends: bytes, letters: bytes, rows: int) -> pa.StringArray:
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(letters)]
    return cast("pa.StringArray", pa.Array.from_buffers(pa.string(), rows, buffers))


def encode(chunk: Chunk) -> bytes:
    match chunk:
        case Codes():
            return _packed([_narrowed(chunk.codes)])
        case Numbers():
            exceptions = _json(list(chunk.exceptions.items())) if chunk.exceptions else b""
            values = np.ascontiguousarray(chunk.values[chunk.valid])
            return _packed([values.tobytes(), _packed_bits(chunk.valid), exceptions, chunk.unknown.tobytes()])
        case Texts():
            exceptions = _json(list(chunk.exceptions.items())) if chunk.exceptions else b""
            return _packed([chunk.order.tobytes(), exceptions, chunk.unknown.tobytes(), *_blocks_of(chunk.texts)])
        case Integers():
            valid = b"" if chunk.valid is None else _packed_bits(chunk.valid)
            return _packed([struct.pack("<q", chunk.base), _narrowed(chunk.deltas), valid])
        case Hashes():
            return _packed([chunk.hashes.tobytes() if chunk.hashes.any() else b""])
        case Paths():
            return _packed([*_buffers(chunk.texts), chunk.order.tobytes()])


def _buffers(array: pa.StringArray) -> tuple[bytes, bytes]:
    """Ends of the texts, and their bytes one after the other."""
    texts = cast("pa.StringArray", pa.concat_arrays([array]))  # begins at 0
    _, offsets, letters = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[: len(texts) + 1] if offsets else np.zeros(1, np.int32)
    return ends.tobytes(), bytes(memoryview(letters)[: ends[-1]]) if letters else b""


def encode_offsets(offsets: Offsets) -> bytes:
    """A few bytes where there are no holes."""
    if len(offsets) and int(offsets[-1]) - int(offsets[0]) == len(offsets) - 1:
        return struct.pack("<H", int(offsets[0]))
    return _packed([np.diff(offsets, prepend=np.uint16(0)).astype(np.uint16).tobytes()])


def decode_offsets(data: bytes, rows: int) -> Offsets:
    if len(data) == 2:
        (first,) = struct.unpack("<H", data)
        return np.arange(first, first + rows, dtype=np.uint32).astype(np.uint16)
    (steps,) = _unpacked(data)
    return np.cumsum(np.frombuffer(steps, np.uint16), dtype=np.uint16)


# From values to chunks.


def integers_of(values: NDArray[np.int64], valid: NDArray[np.bool_]) -> Integers:
    if not valid.any():
        return Integers(0, np.zeros(len(values), np.uint8), valid if len(valid) else None)
    present = values if valid.all() else values[valid]
    base, top = int(present.min()), int(present.max())
    deltas = np.zeros(len(values), _width(top - base))
    deltas[valid] = (present.view(np.uint64) - np.uint64(base & (2**64 - 1))).astype(deltas.dtype)
    return Integers(base, deltas, None if valid.all() else valid)


def paths_of(texts: Sequence[str]) -> Paths:
    array = cast("pa.StringArray", pa.array(texts, pa.string()))
    return Paths(array, _order_of(array))


def texts_of(values: Sequence[str | None], exceptions: Mapping[int, Any], unknown: Sequence[int]) -> Texts:
    """None where there is no text."""
    rows = np.array([row for row, value in enumerate(values) if value is not None], np.uint16)
    array = cast("pa.StringArray", pa.array([value for value in values if value is not None], pa.string()))
    order = _order_of(array)
    ordered = cast("pa.StringArray", array.take(pa.array(order)))
    return Texts(len(values), ordered, rows[order], exceptions, np.array(unknown, np.uint16), np.zeros(0, np.int64))


def _order_of(texts: pa.StringArray) -> NDArray[np.uint16]:
    return pc.call_function("sort_indices", [texts.cast(pa.binary())]).to_numpy().astype(np.uint16)


def canonical(value: Any) -> bytes:
    """The same bytes for what is equal in PostgreSQL's jsonb: 1 and 1.0 are, the order of keys is nothing."""
    return _json(_normal(value))


def hash_value(key: bytes, value: Any) -> int:
    """Of a scalar. Never ABSENT nor UNKNOWN. `key`: the index's `hash_key`."""
    return _hash_bytes(key, canonical(value))


def _hash_bytes(key: bytes, text: bytes) -> int:
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8, key=key).digest(), "little")
    return number if number >= FIRST_CODE else number + FIRST_CODE


def _normal(value: Any) -> Any:
    match value:
        case float():
            return int(value) if value.is_integer() else value
        case list():
            return [_normal(element) for element in value]
        case dict():
            return {key: _normal(element) for key, element in value.items()}
        case _:
            return value


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # an integer of more than 64 bits
        return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


# Bytes: parts one after the other, each with its length and, when that is less, compressed.

_LZ4 = pa.Codec("lz4_raw")
_PART = struct.Struct("<II")  # length, and the compressed one; 0: it is not compressed
_COUNT = struct.Struct("<H")


def _packed(parts: Sequence[bytes]) -> bytes:
    packed: list[bytes] = []
    for part in parts:
        small: bytes = _LZ4.compress(part, asbytes=True) if len(part) > 64 else part
        is_smaller = len(small) < len(part)
        packed += [_PART.pack(len(part), len(small) if is_smaller else 0), small if is_smaller else part]
    return b"".join(packed)


def _unpacked(data: bytes) -> list[bytes]:
    parts: list[bytes] = []
    for begin, end in _spans(data):
        length, packed = _PART.unpack_from(data, begin)
        kept = data[begin + _PART.size : end]
        parts.append(_LZ4.decompress(kept, decompressed_size=length, asbytes=True) if packed else kept)
    return parts


def _spans(data: bytes) -> list[tuple[int, int]]:
    """Where each part begins and ends."""
    spans: list[tuple[int, int]] = []
    at = 0
    while at < len(data):
        length, packed = _PART.unpack_from(data, at)
        spans.append((at, at + _PART.size + (packed or length)))
        at = spans[-1][1]
    return spans


def _width(top: int) -> Any:
    return np.uint8 if top < 2**8 else np.uint16 if top < 2**16 else np.uint32 if top < 2**32 else np.uint64


def _narrowed(numbers: NDArray[Any]) -> bytes:
    """In as few bytes as the largest of them takes; none where all are 0."""
    top = int(numbers.max()) if len(numbers) else 0
    if top == 0:
        return b""
    width = np.dtype(_width(top))
    return bytes([width.itemsize]) + numbers.astype(width).tobytes()


def _narrow(part: bytes, rows: int) -> NDArray[Any]:
    if not part:
        return np.zeros(rows, np.uint8)
    return np.frombuffer(part, np.dtype(f"<u{part[0]}"), offset=1)


def _packed_bits(mask: NDArray[np.bool_]) -> bytes:
    return b"" if not len(mask) else np.packbits(mask, bitorder="little").tobytes()


def _bits(part: bytes, rows: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(part, np.uint8), count=rows, bitorder="little").view(np.bool_)
