"""A heap on a node (section 2.3.1) and the B-trees in it (section 2.3.2): small items with ids, in blocks of 8 KiB.

Knows items as bytes; knows no property and no table. A heap streams: a full block is written at once and only its id is
kept, so that the table of a folder with a million messages costs as much memory as that of an empty one.

**The one hard idea** is what may not be written yet. The first block holds the roots, which are known last, and it, and
each 128th after the eighth, hold the fill levels of the blocks behind them. These are kept back; a data tree does not
care in which order its blocks were written.
"""

import struct
from array import array
from typing import Final

from mailkeep.export.pst.ndb import BLOCK_MAX, Database

ITEM_MAX: Final = 3580  # bytes; more goes to a subnode
BLOCKS_MAX: Final = 1 << 16  # a heap id has 16 bits for the block
_ITEMS_MAX: Final = 2047
_SIGNATURE: Final = 0xEC
_MAP_BYTES: Final = 7  # of the map without its items: two counts, the first offset, and a byte to make it even

TABLE, PROPERTIES, TREE, ID_MAP = 0x7C, 0xBC, 0xB5, 0x9C  # clients

# A fill level by free bytes, from 3,584 on 0 … 15 below 8 (section 2.3.1.2).
_LEVELS: Final = (3584, 2560, 2048, 1792, 1536, 1280, 1024, 768, 512, 256, 128, 64, 32, 16, 8)


def _fill_level(length: int) -> int:
    free = BLOCK_MAX - length
    return next((level for level, least in enumerate(_LEVELS) if free >= least), 15)


def _has_levels(index: int) -> bool:
    """Whether this block tells the fill levels of the 128 from itself on."""
    return index >= 8 and (index - 8) % 128 == 0


class Heap:
    """A heap in the making. Items of the first block may be replaced until `finish`."""

    def __init__(self, database: Database, client: int) -> None:
        self._database = database
        self._client = client
        self._items: list[bytes] = []
        self._length = 12  # of header and items of the present block
        self._room = BLOCK_MAX - _MAP_BYTES - 12
        self._bids = array("Q")
        self._first: list[bytes] | None = None  # items of the first block, once there is a second
        self._levels: tuple[int, bytes] | None = None  # the latest block with fill levels, kept back

    def add(self, item: bytes) -> int:
        """Store an item of 1 to 3,580 bytes; returns its id."""
        cost = len(item) + 2
        if cost > self._room or len(self._items) == _ITEMS_MAX:
            self._next_block()
        self._items.append(item)
        self._room -= cost
        self._length += cost - 2
        return len(self._bids) << 16 | len(self._items) << 5

    def replace(self, hid: int, item: bytes) -> None:
        """Another content of the same length, for an item of the first block."""
        items = self._items if self._first is None else self._first
        number = (hid >> 5) - 1
        assert hid >> 16 == 0 and len(items[number]) == len(item)
        items[number] = item

    @property
    def size(self) -> int:
        """Bytes of data of the whole heap, as it is now."""
        return len(self._bids) * BLOCK_MAX + self._block_length()

    def _block_length(self) -> int:
        return self._length + self._length % 2 + 4 + 2 * (len(self._items) + 1)

    def _next_block(self) -> None:
        index = len(self._bids)
        assert index < BLOCKS_MAX - 1, "a heap is full: its owner has to divide it before"
        if index == 0:
            self._first = self._items
            self._bids.append(0)
        elif _has_levels(index):
            self._write_levels(128)
            self._levels = (index, self._block(66).ljust(BLOCK_MAX, b"\0"))
            self._bids.append(0)
        else:
            self._bids.append(self._database.block(self._block(2).ljust(BLOCK_MAX, b"\0")))
        self._items = []
        self._length = 66 if _has_levels(index + 1) else 2
        self._room = BLOCK_MAX - _MAP_BYTES - self._length

    def _block(self, header: int, items: list[bytes] | None = None) -> bytes:
        """Header (only where the map is, yet), items and map of a block."""
        items = self._items if items is None else items
        offsets = [header]
        at = header
        for item in items:
            at += len(item)
            offsets.append(at)
        padding = b"\0" * (at % 2)
        packed = struct.pack(f"<HH{len(offsets)}H", len(items), 0, *offsets)
        return struct.pack("<H", at + at % 2) + bytes(header - 2) + b"".join(items) + padding + packed

    def _write_levels(self, count: int, last: int = 15) -> None:
        """Write the block that was kept back: `count` blocks from it on, all full but maybe the last."""
        if self._levels is None:
            return
        index, block = self._levels
        self._bids[index] = self._database.block(block[:2] + _nibbles(count, last, width=64) + block[66:])
        self._levels = None

    def finish(self, root: int) -> tuple[int, int]:
        """Write what is left; returns the data tree's root and the bytes of data."""
        last = len(self._bids)
        length = self._block_length()
        size = last * BLOCK_MAX + length
        level = _fill_level(length)
        if last == 0:
            head = struct.pack("<BBI4s", _SIGNATURE, self._client, root, _nibbles(1, level, width=4))
            block = self._block(12)
            return self._database.block(block[:2] + head + block[12:]), size
        if _has_levels(last):
            self._write_levels(128)
            block = self._block(66)
            self._bids.append(self._database.block(block[:2] + _nibbles(1, level, width=64) + block[66:]))
        else:
            self._bids.append(self._database.block(self._block(2)))
            self._write_levels((last - 8) % 128 + 1, level)
        nibbles = _nibbles(min(8, last + 1), level if last < 8 else 15, width=4)
        head = struct.pack("<BBI4s", _SIGNATURE, self._client, root, nibbles)
        block = self._block(12, self._first).ljust(BLOCK_MAX, b"\0")
        self._bids[0] = self._database.block(block[:2] + head + block[12:])
        return self._database.tree(self._bids, size), size


def _nibbles(count: int, last: int, *, width: int) -> bytes:
    """Fill levels, low nibble first: all blocks are padded and so full, but the last."""
    levels = (1 << 4 * (count - 1)) - 1 | last << 4 * (count - 1)
    return levels.to_bytes(width, "little")


class Tree:
    """A B-tree that grows in a heap, from records (key and value packed) in the order of their keys."""

    def __init__(self, heap: Heap, key_size: int, value_size: int) -> None:
        self._heap = heap
        self._key_size = key_size
        self._width = key_size + value_size
        self._per_item = ITEM_MAX // self._width
        self._pending: list[bytes] = []
        self._items: list[bytes] = []  # of the level below: first key and id, 11 MB for a full heap

    def add(self, record: bytes) -> None:
        self._pending.append(record)
        if len(self._pending) == self._per_item:
            self._store()

    def _store(self) -> None:
        first = self._pending[0][: self._key_size]
        self._items.append(first + self._heap.add(b"".join(self._pending)).to_bytes(4, "little"))
        self._pending.clear()

    def header(self) -> bytes:
        """Store what is left; returns the header of the tree, whose root is 0 when there are no records."""
        if self._pending:
            self._store()
        level, levels = self._items, 0
        per_item = ITEM_MAX // (self._key_size + 4)
        while len(level) > 1:
            parts = [level[at : at + per_item] for at in range(0, len(level), per_item)]
            level = [p[0][: self._key_size] + self._heap.add(b"".join(p)).to_bytes(4, "little") for p in parts]
            levels += 1
        root = int.from_bytes(level[0][self._key_size :], "little") if level else 0
        return tree_header(self._key_size, self._width - self._key_size, levels, root)


def tree_header(key_size: int, value_size: int, levels: int, root: int) -> bytes:
    return struct.pack("<BBBBI", TREE, key_size, value_size, levels, root)
