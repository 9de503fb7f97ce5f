"""The node database (section 2.2): blocks of at most 8 KiB, trees of them, and where they lie in the file.

Knows offsets, ids and the list of blocks; knows no heap and no property. The B-trees, the maps of free space and the
header are made at the end, by `pages`, of what is spooled here.

**The one hard idea** is that the file only grows. Space is handed out upwards, around the map pages that stand at fixed
places at the beginning of each section of 248 KiB, so the list of blocks is in the order of ids and of offsets at once,
the free space is what was skipped before a section's end, and a run that was killed goes on by cutting the file to the
length of the last checkpoint. A block's place never says where it is in a tree: the first block of a heap may well be
written last.
"""

import os
import struct
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from mailkeep.errors import CannotWrite
from mailkeep.export.files import Growing, writing
from mailkeep.export.pst.crypt import ENCODE, crc, signature
from mailkeep.export.pst.spool import Spool

BLOCK_MAX: Final = 8176  # data of a block: 8192 without the trailer
PAGE: Final = 512
FIRST_SECTION: Final = 0x4400
SECTION: Final = 0x3E000  # what one AMap page covers: 496 * 8 slots of 64 bytes
TREE_FANOUT: Final = 1021  # ids in an XBLOCK

_TRAILER: Final = struct.Struct("<HHIQ")
_BLOCK_ENTRY: Final = struct.Struct("<QQHHI")  # BBTENTRY, as it will stand in its page
_NODE_ENTRY: Final = struct.Struct("<QQQII")  # NBTENTRY
_FREE: Final = struct.Struct("<QQ")
_SUBNODE: Final = struct.Struct("<QQQ")
_ZEROS: Final = bytes(8192)
_HEADER: Final = 564
_INTERNAL: Final = 2
_REFERENCES: Final = 2  # the list itself, and the one place that uses the block: we never share one

# Types of nodes (section 2.2.2.1)
FOLDER, SEARCH_FOLDER, MESSAGE, ATTACHMENT = 0x02, 0x03, 0x04, 0x05
HIERARCHY, CONTENTS, ASSOCIATED, VALUE = 0x0D, 0x0E, 0x0F, 0x1F
_INDEX_MAX: Final = (1 << 27) - 1


def nid_of(kind: int, index: int) -> int:
    return index << 5 | kind


def map_pages(section: int) -> int:
    """How many map pages stand at the beginning of a section: AMap, PMap, FMap or FPMap (never both)."""
    return 1 + (section % 8 == 0) + (fmap_stands(section) or fpmap_stands(section))


def fmap_stands(section: int) -> bool:
    return section >= 128 and (section - 128) % 496 == 0


def fpmap_stands(section: int) -> bool:
    return section >= 8192 and (section - 8192) % 31744 == 0


class Database:
    """A PST that grows. `counters` are of an earlier `state()`, or empty for a new file.

    Raises CannotWrite, and UsageError when files are shorter than they were.

    Ids are given from here too, so that the highest of each kind are known for the header.
    """

    def __init__(self, place: Path, counters: dict[str, int]) -> None:
        self.place = place
        at = counters.get("end", FIRST_SECTION + PAGE * map_pages(0))
        if counters:
            # A run that was killed after its end has left a header, which would call the file whole.
            self.patch([(0, bytes(_HEADER))])
        self._file = Growing(place, at if counters else 0)
        if not counters:
            self._file.write(bytes(at))
        self.end = at
        self._bid = counters.get("bid", 4)
        self.blocks = Spool(self._beside("blocks"), counters.get("blocks", 0))
        self.nodes = Spool(self._beside("nodes"), counters.get("nodes", 0))
        self.free = Spool(self._beside("free"), counters.get("free", 0))
        self.highest = {MESSAGE: counters.get("message", 0x10000), ATTACHMENT: 0, VALUE: 0}
        self.highest[ATTACHMENT] = self.highest[VALUE] = counters.get("subnode", 0x400)
        section = (at - FIRST_SECTION) // SECTION
        # A file that ended exactly with a section has not begun the next.
        self._section = section - (at > FIRST_SECTION and (at - FIRST_SECTION) % SECTION == 0)
        self._section_end = FIRST_SECTION + (self._section + 1) * SECTION

    def _beside(self, name: str) -> Path:
        return self.place.with_name(f"{self.place.name}.{name}")

    @property
    def next_bid(self) -> int:
        return self._bid

    @property
    def waiting(self) -> int:
        """Bytes that wait to become B-trees."""
        return self.blocks.size + self.nodes.size

    def state(self) -> dict[str, int]:
        """What a later `Database` goes on from. Everything before is durable then."""
        self._file.sync()
        for spool in (self.blocks, self.nodes, self.free):
            spool.sync()
        return {
            "end": self.end,
            "bid": self._bid,
            "blocks": self.blocks.size,
            "nodes": self.nodes.size,
            "free": self.free.size,
            "message": self.highest[MESSAGE],
            "subnode": self.highest[VALUE],
        }

    # --- ids ---------------------------------------------------------------------------------------------------------

    def message_nid(self) -> int:
        self.highest[MESSAGE] = index = self._next(self.highest[MESSAGE])
        return index << 5 | MESSAGE

    def subnode_nid(self, kind: int = VALUE) -> int:
        """Of an attachment or a value: unique in the whole file, as the header keeps only the highest of a kind."""
        index = self._next(self.highest[VALUE])
        self.highest[ATTACHMENT] = self.highest[VALUE] = index
        return index << 5 | kind

    def _next(self, index: int) -> int:
        if index >= _INDEX_MAX:
            raise CannotWrite("a PST cannot hold more messages or attachments than this: use --split")
        return index + 1

    # --- space -------------------------------------------------------------------------------------------------------

    def allot(self, size: int, align: int) -> int:
        """The offset of the next `size` bytes; the file is filled up to there, and the caller writes them now."""
        gap = -self.end % align
        if self.end + gap + size > self._section_end:
            at = self._next_section()
        else:
            at = self.end + gap
            if gap:
                self.free.add(_FREE.pack(self.end, gap))
                self._file.write(_ZEROS[:gap])
        self.end = at + size
        return at

    def _next_section(self) -> int:
        """Leave the rest of this section free, and the first pages of the next for its maps."""
        rest = self._section_end - self.end
        if rest:
            self.free.add(_FREE.pack(self.end, rest))
        self._section += 1
        maps = PAGE * map_pages(self._section)
        self._file.write(_ZEROS[:rest] + _ZEROS[:maps])
        at = self._section_end + maps
        self._section_end += SECTION
        return at

    def fill_section(self) -> int:
        """Leave the rest of the last section free, and have all in the file; returns its size."""
        rest = self._section_end - self.end
        if rest:
            self.free.add(_FREE.pack(self.end, rest))
        self._file.write(bytes(rest))
        self.end = self._section_end
        self._file.flush()
        return self.end

    def append(self, data: bytes) -> None:
        """Write what was allotted."""
        self._file.write(data)

    def patch(self, pages: Iterable[tuple[int, bytes]]) -> None:
        """Write map pages or the header to their fixed places, and make durable all that is in the file."""
        with writing(self.place), self.place.open("r+b", buffering=0) as file:
            for at, data in pages:
                os.pwrite(file.fileno(), data, at)
            os.fsync(file.fileno())

    def close(self) -> None:
        """Let go of the files. What was not synced may be lost; the last checkpoint does not need it."""
        for file in (self._file, self.blocks, self.nodes, self.free):
            file.close()

    # --- blocks ------------------------------------------------------------------------------------------------------

    def block(self, data: bytes) -> int:
        """Write a data block of 1 to 8,176 bytes; returns its id."""
        return self._put(data.translate(ENCODE), 0)

    def _put(self, stored: bytes, internal: int) -> int:
        size = len(stored)
        assert 0 < size <= BLOCK_MAX
        total = size + 79 & ~63
        at = self.end
        # `allot`, but for the call: this is the line that everything waits for. Blocks keep the end at 64 bytes.
        if at + total > self._section_end:
            at = self._next_section()
        self.end = at + total
        bid = self._bid | internal
        self._bid += 4
        padding = _ZEROS[: total - 16 - size]
        self._file.write(stored + padding + _TRAILER.pack(size, signature(at, bid), crc(stored), bid))
        self.blocks.add(_BLOCK_ENTRY.pack(bid, at, size, _REFERENCES, 0))
        return bid

    def value(self, data: bytes) -> int:
        """Write bytes of any length as a data tree; returns the id of its root, 0 for none."""
        size = len(data)
        if size <= BLOCK_MAX:
            return self.block(data) if data else 0
        bids = array("Q", (self.block(data[at : at + BLOCK_MAX]) for at in range(0, size, BLOCK_MAX)))
        return self.tree(bids, size)

    def tree(self, bids: "Sequence[int] | array[int]", size: int) -> int:
        """The root over data blocks that are written already, all but the last full (section 2.2.2.8.3.2)."""
        if len(bids) <= 1:
            return bids[0] if bids else 0
        if len(bids) <= TREE_FANOUT:
            return self._tree_block(1, bids, size)
        full = TREE_FANOUT * BLOCK_MAX
        parts = range(0, len(bids), TREE_FANOUT)
        xblocks = [self._tree_block(1, bids[at : at + TREE_FANOUT], min(full, size - at * BLOCK_MAX)) for at in parts]
        assert len(xblocks) <= TREE_FANOUT and size < 1 << 32
        return self._tree_block(2, xblocks, size)

    def _tree_block(self, level: int, bids: "Sequence[int] | array[int]", size: int) -> int:
        return self._put(struct.pack(f"<BBHI{len(bids)}Q", 1, level, len(bids), size, *bids), _INTERNAL)

    def subnodes(self, entries: list[tuple[int, int, int]]) -> int:
        """The tree of a node's subnodes (nid, data, subnodes of its own); returns its root, 0 for none."""
        if not entries:
            return 0
        entries.sort()
        leaves: list[tuple[int, int]] = []
        for at in range(0, len(entries), 340):
            part = entries[at : at + 340]
            head = struct.pack("<BBHI", 2, 0, len(part), 0)
            leaves.append((part[0][0], self._put(head + b"".join([_SUBNODE.pack(*one) for one in part]), _INTERNAL)))
        if len(leaves) == 1:
            return leaves[0][1]
        assert len(leaves) <= 510, "as many as one SIBLOCK names; mail has 10,000 parts at most"
        head = struct.pack("<BBHI", 2, 1, len(leaves), 0)
        return self._put(head + b"".join([struct.pack("<QQ", *leaf) for leaf in leaves]), _INTERNAL)


def node_entry(nid: int, data: int, subnodes: int, *, parent: int = 0) -> bytes:
    """An entry of the node B-tree, as it will stand in its page."""
    return _NODE_ENTRY.pack(nid, data, subnodes, parent, 0)
