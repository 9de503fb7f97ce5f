"""How many messages are in a finished PST, by reading it again: as much of a reader as that needs.

Knows the layers of the format and nothing of the writer. A message counts when three things agree: its node is in the
node B-tree and names a folder, its first block is where the block B-tree says and whole, and the table of that folder
has a row for it (rows are counted, not compared). So a count that is right means that Outlook's list has as many.

It walks the trees page by page, so it needs no more memory for a million messages than for one; a library that keeps
an object for each would need gigabytes.
"""

import os
import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mailkeep.errors import CannotWrite
from mailkeep.export.files import writing
from mailkeep.export.pst.crypt import DECODE, crc

_PAGE: Final = 512
_FOLDER, _MESSAGE, _CONTENTS = 0x02, 0x04, 0x0E
_BLOCK_MAX: Final = 8176
_LEVELS_MAX: Final = 8
_FANOUT: Final = 1021  # ids in an XBLOCK
_PAGES_KEPT: Final = 256


class Damaged(Exception):
    """Something is not what the format says."""


def count(place: Path) -> int:
    """The messages in all folders. Raises CannotWrite when the file cannot be read, or is no whole PST."""
    with writing(place), place.open("rb", buffering=0) as file:
        try:
            return _Reader(file.fileno()).count()
        except (Damaged, struct.error) as error:
            raise CannotWrite(f"{place} is damaged: {error}") from error


class _Reader:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        header = self._read(0, 564)
        if header[:4] != b"!BDN" or crc(header[8:524]) != int.from_bytes(header[524:528], "little"):
            raise Damaged("it has no header")
        self._pages: dict[int, tuple[int, list[int], list[bytes]]] = {}
        (self._nodes,) = struct.unpack_from("<Q", header, 224)
        (self._blocks,) = struct.unpack_from("<Q", header, 240)

    def _read(self, at: int, size: int) -> bytes:
        data = os.pread(self._descriptor, size, at)
        if len(data) != size:
            raise Damaged(f"it ends before {at + size:#x}")
        return data

    def count(self) -> int:
        nodes: Counter[int] = Counter()
        rows: dict[int, int] = {}
        for nid, data, subnodes, parent in self._leaves(self._nodes):
            if nid & 0x1F == _MESSAGE:
                self._block(data)
                nodes[parent] += 1
            elif nid & 0x1F == _CONTENTS and data:
                rows[nid - _CONTENTS + _FOLDER] = self._rows(data, subnodes)
        return sum(min(nodes[folder], rows[folder]) for folder in rows)

    # --- B-trees -----------------------------------------------------------------------------------------------------

    def _page(self, at: int) -> tuple[int, list[int], list[bytes]]:
        """The level of a page, its keys and its entries. The latest are kept: what is looked up lies close together."""
        known = self._pages.get(at)
        if known is not None:
            return known
        page = self._read(at, _PAGE)
        if crc(page[:496]) != int.from_bytes(page[500:504], "little"):
            raise Damaged(f"the page at {at:#x}")
        count_, _, width, level = page[488:492]
        entries = [page[start : start + width] for start in range(0, count_ * width, width)]
        if len(self._pages) >= _PAGES_KEPT:
            self._pages.clear()
        found = self._pages[at] = level, [int.from_bytes(entry[:8], "little") for entry in entries], entries
        return found

    def _leaves(self, root: int) -> Iterator[tuple[int, int, int, int]]:
        """All nodes: id, data, subnodes, parent."""
        waiting = [root]
        while waiting:
            level, _, entries = self._page(waiting.pop())
            if level:
                waiting += [int.from_bytes(entry[16:24], "little") for entry in reversed(entries)]
            else:
                for entry in entries:
                    yield struct.unpack("<QQQI", entry[:28])

    def _block(self, bid: int) -> bytes:
        """The bytes of a block, as they are stored."""
        at = self._blocks
        for _ in range(_LEVELS_MAX):
            level, keys, entries = self._page(at)
            number = bisect_right(keys, bid) - 1
            if number < 0:
                break
            if not level:
                key, place, size, _ = struct.unpack("<QQHH", entries[number][:20])
                if key != bid:
                    break
                block = self._read(place, size + 79 & ~63)
                stored, _, checksum, own = struct.unpack("<HHIQ", block[-16:])
                if (stored, own) != (size, bid) or crc(block[:size]) != checksum:
                    raise Damaged(f"the block {bid:#x}")
                return block[:size]
            at = int.from_bytes(entries[number][16:24], "little")
        raise Damaged(f"the block {bid:#x} is missing")

    # --- rows of a table ---------------------------------------------------------------------------------------------

    def _rows(self, data: int, subnodes: int) -> int:
        """The rows that the table of a node holds."""
        first = self._heap_block(data, 0)
        info = _item(first, int.from_bytes(first[4:8], "little"))
        width, _, where = struct.unpack_from("<HII", info, 8)
        if not where:
            return 0
        if not where & 0x1F:
            return len(_item(self._heap_block(data, where >> 16), where)) // int(width)
        per_block = _BLOCK_MAX // int(width)
        size = self._size(self._subnode(subnodes, where))
        return size // _BLOCK_MAX * per_block + size % _BLOCK_MAX // int(width)

    def _heap_block(self, bid: int, index: int) -> bytes:
        """A block of a data tree, decoded."""
        while bid & 2:
            block = self._block(bid)
            step = _FANOUT if block[1] == 2 else 1
            (bid,) = struct.unpack_from("<Q", block, 8 + 8 * (index // step))
            index %= step
        return self._block(bid).translate(DECODE)

    def _subnode(self, root: int, nid: int) -> int:
        """The data of a subnode."""
        block = self._block(root)
        level, entries = block[1], int.from_bytes(block[2:4], "little")
        width = 16 if level else 24
        found = 0
        for at in range(8, 8 + entries * width, width):
            key, child = struct.unpack_from("<QQ", block, at)
            if key == nid or (level and key < nid):
                found = child
        if not found:
            raise Damaged(f"the subnode {nid:#x} is missing")
        return self._subnode(found, nid) if level else found

    def _size(self, bid: int) -> int:
        """The bytes of a data tree."""
        block = self._block(bid)
        return int.from_bytes(block[4:8], "little") if bid & 2 else len(block)


def _item(heap: bytes, hid: int) -> bytes:
    """An item of a block of a heap."""
    at = int.from_bytes(heap[:2], "little") + 4 + 2 * ((hid >> 5 & 0x7FF) - 1)
    start, end = struct.unpack_from("<HH", heap, at)
    return heap[start:end]
