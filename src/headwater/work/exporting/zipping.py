"""ZIP archives in pieces: each piece is files one after the other, then their directory, to be joined at the end.

Nothing of an archive is in memory but a piece. An archive past 4 GiB or 65,535 files has the records of ZIP64.
Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
"""

import struct
import zlib
from collections.abc import Iterator

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_ZIP64_END = struct.Struct("<4sQHHIIQQQQ")
_ZIP64_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4sHHHHIIH")
_ZIP64_OFFSET = struct.Struct("<HHQ")
_VERSION, _VERSION_64 = 20, 45
_UTF8, _DEFLATED = 1 << 11, 8
_TIME, _DATE = 0, (1 << 5) | 1  # the first of January 1980: the same items give the same bytes
_LARGEST_32, _LARGEST_16 = 0xFFFFFFFF, 0xFFFF
LONGEST_NAME = 0xFFFF


class Piece:
    """Files of an archive, at offsets from the piece's start. It has to stay below 4 GiB."""

    def __init__(self) -> None:
        self.body = bytearray()  # may be taken and emptied
        self.directory = bytearray()
        self._offset = 0

    @property
    def size_bytes(self) -> int:
        return self._offset

    def add(self, name: str, content: bytes) -> None:
        """A name is UTF-8, with slashes between folders and none in front."""
        encoded = name.encode()
        packer = zlib.compressobj(6, zlib.DEFLATED, -15)
        packed = packer.compress(content) + packer.flush()
        facts = (_UTF8, _DEFLATED, _TIME, _DATE, zlib.crc32(content), len(packed), len(content), len(encoded))
        self.directory += _CENTRAL.pack(b"PK\1\2", _VERSION, _VERSION, *facts, 0, 0, 0, 0, 0, self._offset) + encoded
        local = _LOCAL.pack(b"PK\3\4", _VERSION, *facts, 0) + encoded
        self.body += local + packed
        self._offset += len(local) + len(packed)


def moved(directory: bytes, start: int) -> Iterator[bytes]:
    """The records of a piece's directory, as they are once the piece begins at `start` of the archive."""
    place = 0
    while place < len(directory):
        fields = list(_CENTRAL.unpack_from(directory, place))
        end = place + _CENTRAL.size + fields[10]
        name = directory[place + _CENTRAL.size : end]
        offset = fields[16] + start
        extra = b""
        if offset >= _LARGEST_32:
            extra = _ZIP64_OFFSET.pack(1, 8, offset)
            fields[1] = fields[2] = _VERSION_64
            offset = _LARGEST_32
        fields[11], fields[16] = len(extra), offset
        yield _CENTRAL.pack(*fields) + name + extra
        place = end


def ending(files: int, directory_start: int, directory_bytes: int) -> bytes:
    """What stands behind the directory of a whole archive."""
    is_large = files >= _LARGEST_16 or directory_start >= _LARGEST_32 or directory_bytes >= _LARGEST_32
    end = _END.pack(
        b"PK\5\6",
        0,
        0,
        min(files, _LARGEST_16),
        min(files, _LARGEST_16),
        min(directory_bytes, _LARGEST_32),
        min(directory_start, _LARGEST_32),
        0,
    )
    if not is_large:
        return end
    record = _ZIP64_END.pack(
        b"PK\6\6",
        _ZIP64_END.size - 12,
        _VERSION_64,
        _VERSION_64,
        0,
        0,
        files,
        files,
        directory_bytes,
        directory_start,
    )
    locator = _ZIP64_LOCATOR.pack(b"PK\6\7", 0, directory_start + directory_bytes, 1)
    return record + locator + end
