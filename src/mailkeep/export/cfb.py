"""Writes compound files: a small file system inside one file, in which MSG keeps its properties ([MS-CFB]).

Knows storages (directories), streams (files) and sectors; knows nothing of what they hold. Reading is olefile's part.

**The one hard idea** is that all is laid out in one go, since everything is known before the first byte is written:
each stream is one run of neighbouring sectors, so the allocation table is a row of "the next one" with an end mark
after each run, and no space is ever free. What comes out is a list of pieces in the file's order, with the streams'
own bytes among them: a big attachment is never copied.

    header | big streams | mini stream (those under 4096 bytes, in units of 64) | mini FAT | directory | FAT | DIFAT

Directory entries of one storage are a red-black tree, ordered by length of the name, then by its upper-case letters
(section 2.6.4). A balanced tree whose deepest level, when it is not full, is red and all else black, is one.

The result has 512-byte sectors (version 3), which every reader knows; above 2 GB, where those end, 4096 (version 4).
The same content gives the same bytes.
"""

import struct
import sys
from array import array
from collections import deque
from functools import lru_cache
from typing import Final

SIGNATURE: Final = bytes.fromhex("d0cf11e0a1b11ae1")
MINI_MAX: Final = 4096  # bytes from which on a stream has sectors of its own
MINI_SECTOR: Final = 64
VERSION_3_MAX: Final = 0x7FFF_0000  # bytes of content; section 2.6.2 has 2 GB
NAME_MAX: Final = 31  # characters

_FREE: Final = 0xFFFFFFFF
_END: Final = 0xFFFFFFFE
_FAT: Final = 0xFFFFFFFD
_DIFAT: Final = 0xFFFFFFFC
_NONE: Final = 0xFFFFFFFF  # no entry of the directory

_STORAGE, _STREAM, _ROOT = 1, 2, 5
_RED, _BLACK = 0, 1

# The fixed part of the header (section 2.2), then 109 numbers of FAT sectors.
_HEADER: Final = struct.Struct("<8s16xHHHHH6xIIIIIIIIII")
_IN_HEADER: Final = 109
# An entry of the directory after its name (section 2.6.1): type, colour, left, right, child, class, state, two times,
# first sector, size.
_ENTRY: Final = struct.Struct("<BBIII16sIQQIQ")
_EMPTY_ENTRY: Final = bytes(68) + struct.pack("<III", _NONE, _NONE, _NONE) + bytes(48)


class Storage:
    """A directory: `children` by name. Names are ASCII, of at most 31 characters, without "/", "\\", ":" and "!"."""

    __slots__ = ("children", "class_id")

    def __init__(self, class_id: bytes = bytes(16)) -> None:
        self.children: dict[str, bytes | Storage] = {}
        self.class_id = class_id


def pieces(root: Storage, *, version: int | None = None) -> list[bytes]:
    """The compound file of these contents, in pieces to be written one after the other."""
    plan = _Plan()
    plan.add(root)
    if version is None:
        version = 3 if plan.big_size + plan.mini_count * MINI_SECTOR <= VERSION_3_MAX else 4
    return plan.pieces(512 if version == 3 else 4096)


class _Plan:
    """The directory, with the places of all streams counted in sectors of their kind."""

    __slots__ = ("big", "big_size", "entries", "mini", "mini_count", "mini_ends", "root")

    def __init__(self) -> None:
        self.entries: list[tuple[bytes, tuple[int, ...], bytes, int]] = []  # name, links, stream or class, first mini
        self.big: list[tuple[int, bytes]] = []  # entry, content
        self.big_size = 0
        self.mini: list[bytes] = []
        self.mini_ends: list[int] = []
        self.mini_count = 0
        self.root = Storage()

    def add(self, root: Storage) -> None:
        """Number all entries, level by level: the children of one storage are neighbours, in their order."""
        self.root = root
        free = 1
        waiting: deque[tuple[bytes, bytes | Storage, int, int, int, int]] = deque()
        waiting.append((_name("Root Entry"), root, _ROOT, _NONE, _NONE, _BLACK))
        entries = self.entries
        while waiting:
            name, node, kind, left, right, colour = waiting.popleft()
            if isinstance(node, bytes):
                entries.append((name, (kind, colour, left, right, _NONE), node, self._place(len(entries), node)))
                continue
            top, links = _tree(len(node.children))
            child = free + top if links else _NONE
            entries.append((name, (kind, colour, left, right, child), node.class_id, 0))
            for (text, inner), (lower, higher, shade) in zip(
                sorted(node.children.items(), key=_order), links, strict=True
            ):
                waiting.append(
                    (
                        _name(text),
                        inner,
                        _STREAM if isinstance(inner, bytes) else _STORAGE,
                        _NONE if lower < 0 else free + lower,
                        _NONE if higher < 0 else free + higher,
                        shade,
                    )
                )
            free += len(links)

    def _place(self, entry: int, data: bytes) -> int:
        """The first mini sector of a stream; those of big ones are not known before the size of a sector is."""
        size = len(data)
        if size >= MINI_MAX:
            self.big.append((entry, data))
            self.big_size += size
            return 0
        if size == 0:
            return _END
        first = self.mini_count
        self.mini_count += (size + MINI_SECTOR - 1) // MINI_SECTOR
        self.mini_ends.append(self.mini_count - 1)
        self.mini.append(data)
        if pad := -size % MINI_SECTOR:
            self.mini.append(bytes(pad))
        return first

    def pieces(self, sector: int) -> list[bytes]:
        file = _Sectors(sector)
        starts = {entry: file.add(data) for entry, data in self.big}
        mini = b"".join(self.mini)
        mini_first = file.add(mini)
        mini_table_first, mini_table_count = file.next, 0
        if self.mini_ends:
            mini_table = _table(_chain(self.mini_count, self.mini_ends), sector)
            mini_table_count = len(mini_table) // sector
            file.add(mini_table)
        directory = self._directory(starts, mini_first, len(mini), sector)
        directory_first = file.add(directory)
        fat_first, fat_count, difat_first, difat_count, listed = file.add_tables()
        header = _HEADER.pack(
            SIGNATURE, 0x3E, 3 if sector == 512 else 4, 0xFFFE, sector.bit_length() - 1, 6,
            0 if sector == 512 else len(directory) // sector, fat_count, directory_first, 0, MINI_MAX,
            mini_table_first if mini_table_count else _END, mini_table_count, difat_first, difat_count,
            fat_first if fat_count else _END,
        )  # fmt: skip
        header = header[:-4] + _table(listed, _IN_HEADER * 4)
        return [header.ljust(sector, b"\0"), *file.pieces]

    def _directory(self, starts: dict[int, int], mini_first: int, mini_size: int, sector: int) -> bytes:
        pack = _ENTRY.pack
        rows: list[bytes] = []
        nothing = bytes(16)
        for number, (name, links, content, first) in enumerate(self.entries):
            if links[0] == _STREAM:
                rows.append(name + pack(*links, nothing, 0, 0, 0, starts.get(number, first), len(content)))
            elif number:
                rows.append(name + pack(*links, content, 0, 0, 0, 0, 0))
            else:
                rows.append(name + pack(*links, content, 0, 0, 0, mini_first, mini_size))
        rows.extend([_EMPTY_ENTRY] * (-len(rows) % (sector // 128)))
        return b"".join(rows)


class _Sectors:
    """The file behind its header, filled run by run."""

    def __init__(self, sector: int) -> None:
        self.sector = sector
        self.next = 0  # number of the sector to come
        self.ends: list[int] = []
        self.pieces: list[bytes] = []

    def add(self, data: bytes) -> int:
        """Append a run; the number of its first sector, or the mark for an empty stream."""
        if not data:
            return _END
        first = self.next
        self.next += (len(data) + self.sector - 1) // self.sector
        self.ends.append(self.next - 1)
        self.pieces.append(data)
        if pad := -len(data) % self.sector:
            self.pieces.append(bytes(pad))
        return first

    def add_tables(self) -> "tuple[int, int, int, int, array[int]]":
        """Append FAT and DIFAT: the first and number of each, and the FAT sectors that the header lists."""
        each = self.sector // 4
        used = self.next
        fat = difat = 0
        while True:  # the tables have entries for themselves
            more = -(-(used + fat + difat) // each)
            if more == fat:
                break
            fat = more
            difat = -(-max(0, fat - _IN_HEADER) // (each - 1))
        table = _chain(used, self.ends)
        table.extend([_FAT] * fat + [_DIFAT] * difat)
        self.pieces.append(_table(table, self.sector))
        listed = range(used, used + fat)
        first_difat = used + fat
        for number in range(difat):
            at = _IN_HEADER + number * (each - 1)
            part = array("I", listed[at : at + each - 1])
            part.extend([_FREE] * (each - 1 - len(part)))
            part.append(first_difat + number + 1 if number + 1 < difat else _END)
            self.pieces.append(_table(part, self.sector))
        return used, fat, first_difat if difat else _END, difat, array("I", listed[:_IN_HEADER])


def _chain(count: int, ends: list[int]) -> "array[int]":
    """An allocation table in which each entry has the next after it, but the ends."""
    table = array("I", range(1, count + 1))
    for end in ends:
        table[end] = _END
    return table


def _table(numbers: "array[int]", unit: int) -> bytes:
    """The bytes of a table, filled up with "free" to a multiple of the unit (bytes)."""
    numbers = numbers + array("I", [_FREE]) * (-len(numbers) % (unit // 4))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


@lru_cache(maxsize=8192)
def _name(text: str) -> bytes:
    """A name as an entry has it: 64 bytes of UTF-16, then the number of bytes with the NUL at its end."""
    assert text.isascii() and 0 < len(text) <= NAME_MAX, text
    return struct.pack("<64sH", text.encode("utf-16-le"), 2 * len(text) + 2)


def _order(child: tuple[str, bytes | Storage]) -> tuple[int, str]:
    return len(child[0]), child[0].upper()


@lru_cache(maxsize=256)
def _tree(count: int) -> tuple[int, tuple[tuple[int, int, int], ...]]:
    """A red-black tree of so many entries in order: its top, and left, right and colour of each (-1: none)."""
    links = [(-1, -1, _BLACK)] * count
    deepest = count.bit_length() - 1
    red = deepest if count & (count + 1) else -1  # a full tree has no red level

    def top_of(low: int, high: int, depth: int) -> int:
        if low >= high:
            return -1
        top = (low + high) // 2
        links[top] = (top_of(low, top, depth + 1), top_of(top + 1, high, depth + 1), _RED if depth == red else _BLACK)
        return top

    return max(0, top_of(0, count, 0)), tuple(links)
