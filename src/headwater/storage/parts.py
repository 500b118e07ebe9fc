"""Cuts what is written into parts, as uploads of large objects want them."""

from collections.abc import Callable, Iterator


class PartBuffer:
    """Holds at most a part and a chunk. `part_bytes` gives the size of the part with that number, counted from 0."""

    def __init__(self, part_bytes: Callable[[int], int]) -> None:
        self._part_bytes = part_bytes
        self._held = bytearray()
        self._parts = 0
        self.size_bytes = 0  # of all that was written

    def cut(self, chunk: bytes) -> Iterator[bytes]:
        """The parts that are full now. Something is always held back, so an object of one part's size is no part."""
        self.size_bytes += len(chunk)
        self._held += chunk
        while len(self._held) > (size := self._part_bytes(self._parts)):
            with memoryview(self._held) as view:
                part = bytes(view[:size])
            del self._held[:size]
            self._parts += 1
            yield part

    def take_rest(self) -> bytes:
        rest = bytes(self._held)
        self._held.clear()
        return rest

    @property
    def rest(self) -> bytes:
        return bytes(self._held)

    def drop(self) -> None:
        self._held.clear()
