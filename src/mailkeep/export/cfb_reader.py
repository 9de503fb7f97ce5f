"""Reads compound files ([MS-CFB]), damaged and hostile ones too: the directory at once, streams when they are wanted.

Knows what `cfb` writes, and what others do: both sizes of sectors, tables anywhere, trees that are no longer balanced,
a last sector that is not whole. Knows nothing of what is stored. The library for these files, olefile, takes time with
the square of the number of streams and of allocation tables, and as long as a header likes to say; so it stays with
the tests, as a stranger.

**The one hard idea** is that nothing the file says is taken as a measure. Chains are walked for no more sectors than
there are, entries are visited once, and all that is read has a budget, since a thousand streams may claim one another's
sectors. The time is linear in the size of the file; what cannot be read is Bad.
"""

import mmap
import struct
import sys
from array import array
from collections.abc import Iterable, Iterator
from typing import Final

from mailkeep.export.cfb import MINI_MAX, MINI_SECTOR, SIGNATURE

Buffer = bytes | mmap.mmap

READ_MAX_FACTOR: Final = 4  # bytes read at most, as a multiple of the file's size

_STORAGE, _STREAM, _ROOT = 1, 2, 5
_NONE: Final = 0xFFFFFFFF
_END: Final = 0xFFFFFFFE
_HEADER: Final = struct.Struct("<HHHH6xIIIIIIIII")  # from the version on; see section 2.2
_IN_HEADER: Final = 109
_ENTRY: Final = struct.Struct("<64sHBxIII36xIQ")  # section 2.6.1


class Bad(ValueError):
    """This cannot be read; the text says why."""


class Damaged(Bad):
    """One stream cannot be read; others may."""


class Entry:
    """A storage or a stream. `children`, by name in lower case and in the order of these, is None for a stream."""

    __slots__ = ("children", "name", "size", "start")

    def __init__(self, name: str, children: "dict[str, Entry] | None", start: int, size: int) -> None:
        self.name = name
        self.children = children
        self.start = start
        self.size = size

    def stream(self, name: str) -> "Entry | None":
        """The stream of this name (in lower case) in a storage."""
        found = None if self.children is None else self.children.get(name)
        return None if found is None or found.children is not None else found

    def storage(self, name: str) -> "Entry | None":
        found = None if self.children is None else self.children.get(name)
        return None if found is None or found.children is None else found


class Compound:
    """A compound file in memory or mapped. Raises Bad at once when its directory cannot be read."""

    def __init__(self, data: Buffer) -> None:
        if len(data) < 512 or data[: len(SIGNATURE)] != SIGNATURE:
            raise Bad("not a compound file")
        (
            _, order, shift, _, _, fat_count, directory, _, _, mini_first, mini_count, difat, difat_count,
        ) = _HEADER.unpack(data[26:76])  # fmt: skip
        if order != 0xFFFE or shift not in (9, 12):
            raise Bad("a compound file of an unknown kind")
        self._data = data
        self._sector = 1 << shift
        self._count = -(-len(data) // self._sector) - 1  # sectors behind the header
        self._budget = READ_MAX_FACTOR * len(data) + (1 << 20)
        self._fat = self._read_fat(fat_count, difat, difat_count)
        self._mini_fat = _numbers(self._table(mini_first, mini_count))
        self.root = self._read_directory(self._table(directory, self._count))
        self._mini = self._read_mini()

    def read(self, entry: Entry) -> bytes:
        """The bytes of a stream, as many as its size says. Raises Damaged when they are not there, Bad when all streams
        together are more than a file of this size can hold."""
        if entry.size >= MINI_MAX:
            return self._big(entry.start, entry.size)
        return self._collect(self._mini, _runs(self._mini_fat, entry.start, entry.size, MINI_SECTOR), entry.size)

    def _read_mini(self) -> bytes:
        """The stream that holds the small ones; without it, the big ones are left."""
        try:
            return self._big(self.root.start, self.root.size) if self.root.size else b""
        except Damaged:
            return b""

    def _big(self, start: int, size: int) -> bytes:
        if size > len(self._data):
            raise Damaged("a stream is larger than the file")
        sector = self._sector
        runs = _runs(self._fat, start, size, sector)
        return self._collect(self._data, ((at + sector, end + sector) for at, end in runs), size)

    def _collect(self, data: Buffer, runs: Iterable[tuple[int, int]], size: int) -> bytes:
        self._budget -= size
        if self._budget < 0:
            raise Bad("its streams say that they are larger than the file")
        pieces = [data[at:end] for at, end in runs]
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if len(whole) < size:
            raise Damaged("the file is cut off")
        return whole[:size]

    def _at(self, number: int) -> bytes:
        return self._data[(number + 1) * self._sector : (number + 2) * self._sector]

    def _read_fat(self, count: int, at: int, difat_count: int) -> "array[int]":
        listed = list(struct.unpack_from(f"<{_IN_HEADER}I", self._data, 76))
        for _ in range(min(difat_count, self._count)):
            if at >= self._count:
                break
            *numbers, at = _numbers(self._at(at))
            listed += numbers
        tables = [self._at(number) for number in listed[: min(count, self._count)] if number < self._count]
        return _numbers(b"".join(tables))

    def _table(self, at: int, count: int) -> bytes:
        """A chain that ends where it ends, of at most so many sectors."""
        found: list[bytes] = []
        for _ in range(min(count, self._count)):
            if at >= min(self._count, len(self._fat)):
                break
            found.append(self._at(at))
            at = self._fat[at]
        return b"".join(found)

    def _read_directory(self, raw: bytes) -> Entry:
        count = len(raw) // 128
        if count == 0:
            raise Bad("it has no directory")
        wide = self._sector > 512  # in version 3 the upper half of a size may be anything (section 2.6.1)
        seen = bytearray(count)
        root: dict[str, Entry] = {}
        waiting: list[tuple[int, dict[str, Entry]]] = [(0, root)]
        storages: list[Entry] = []
        while waiting:
            number, siblings = waiting.pop()
            if number >= count or seen[number]:
                continue
            seen[number] = 1
            name, length, kind, left, right, child, start, size = _ENTRY.unpack_from(raw, number * 128)
            text = name[: max(0, min(length - 2, 62)) & ~1].decode("utf-16-le", "replace")
            entry = Entry(text, None if kind == _STREAM else {}, start, size if wide else size & 0xFFFFFFFF)
            if number:
                waiting += ((left, siblings), (right, siblings))
            if kind in (_STORAGE, _STREAM, _ROOT):
                siblings.setdefault(text.lower(), entry)
            if entry.children is not None:
                storages.append(entry)
                waiting.append((child, entry.children))
        for storage in storages:
            storage.children = dict(sorted((storage.children or {}).items()))
        return storages[0] if storages else Entry("", {}, _END, 0)


def _runs(table: "array[int]", at: int, size: int, sector: int) -> Iterator[tuple[int, int]]:
    """From where to where the sectors of a stream lie; neighbours are taken together."""
    left = -(-size // sector)
    while left > 0:
        first = at
        while left > 0:
            if at >= len(table):
                raise Damaged("a stream is cut off")
            left -= 1
            last, at = at, table[at]
            if at != last + 1:
                break
        yield first * sector, (last + 1) * sector


def _numbers(raw: bytes) -> "array[int]":
    found = array("I", raw[: len(raw) & ~3])
    if sys.byteorder == "big":
        found.byteswap()
    return found
