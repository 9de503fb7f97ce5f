"""The end of a PST: the two B-trees, the maps of free space, the header (sections 2.2.2.5 to 2.2.2.7).

Knows the list of blocks and of nodes, which are spooled in order, and what was left free. It reads each list once and
keeps one unfinished page for each level of a tree, so its memory does not grow with the file.
"""

import heapq
import itertools
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from mailkeep.export.pst.crypt import crc, signature
from mailkeep.export.pst.ndb import (
    ASSOCIATED,
    ATTACHMENT,
    CONTENTS,
    FIRST_SECTION,
    FOLDER,
    HIERARCHY,
    MESSAGE,
    PAGE,
    SEARCH_FOLDER,
    SECTION,
    VALUE,
    Database,
    fmap_stands,
    fpmap_stands,
)

_BODY: Final = 496
_BBT, _NBT, _FMAP, _PMAP, _AMAP, _FPMAP, _DLIST = 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86
_DLIST_AT: Final = 0x4200
_NODE_WIDTH, _BLOCK_WIDTH, _BRANCH_WIDTH = 32, 24, 24
_NODES, _BLOCKS, _BRANCHES = 15, 20, 20  # in a page
_BRANCH: Final = struct.Struct("<QQQ")
_SLOTS: Final = _BODY * 8
_SLOT: Final = 64
_HEADER: Final = 564


class _Pages:
    """Hands out ids of pages and puts pages where the file ends."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.next_bid = 4

    def bid(self) -> int:
        self.next_bid += 1
        return self.next_bid - 1

    def put(self, body: bytes, kind: int) -> tuple[int, int]:
        """Write a page; returns its id and offset."""
        at = self.database.allot(PAGE, PAGE)
        bid = self.bid()
        self.database.append(_page(body, kind, at=at, bid=bid))
        return bid, at


def _page(body: bytes, kind: int, *, at: int, bid: int) -> bytes:
    signed = 0 if kind in (_AMAP, _PMAP, _FMAP, _FPMAP) else signature(at, bid)
    return body + struct.pack("<BBHIQ", kind, kind, signed, crc(body), bid)


def _tree(pages: _Pages, leaves: Iterable[bytes], kind: int, width: int) -> tuple[int, int]:
    """Write a B-tree over leaves (each the entries of one page, in order); returns id and offset of its root.

    `rows[n]` are the entries of the page of level n+1 that is being filled. A page is written when one entry more comes
    than it holds, so that at the end a level of one entry is the last: that entry is the root.
    """
    rows: list[list[bytes]] = [[]]

    def write(entries: bytes, level: int, entry_width: int) -> None:
        body = entries.ljust(488, b"\0") + struct.pack(
            "<BBBBI", len(entries) // entry_width, 488 // entry_width, entry_width, level, 0
        )
        bid, at = pages.put(body, kind)
        if len(rows) == level:
            rows.append([])
        row = rows[level]
        if len(row) == _BRANCHES:
            rows[level] = []
            write(b"".join(row), level + 1, _BRANCH_WIDTH)
        rows[level].append(entries[:8] + struct.pack("<QQ", bid, at))

    empty = True
    for leaf in leaves:
        write(leaf, 0, width)
        empty = False
    if empty:
        write(b"", 0, width)
    level = 0
    while level < len(rows) - 1 or len(rows[level]) > 1:
        row, rows[level] = rows[level], []
        write(b"".join(row), level + 1, _BRANCH_WIDTH)
        level += 1
    _, bid, at = _BRANCH.unpack(rows[level][0].rjust(24, b"\0"))
    return bid, at


def _node_leaves(database: Database, others: list[bytes]) -> Iterator[bytes]:
    """The nodes of messages, spooled in the order of their ids, with all others, a page at a time."""
    nodes = heapq.merge(sorted(others, key=_key), database.nodes.records(_NODE_WIDTH), key=_key)
    while leaf := b"".join(itertools.islice(nodes, _NODES)):
        yield leaf


def _key(node: bytes) -> int:
    return int.from_bytes(node[:8], "little")


def close(database: Database, nodes: list[bytes], *, folder_index: int, unique: int) -> None:
    """Make the file whole and durable. `nodes`: entries of all nodes but the spooled ones of messages, in any order;
    `folder_index`: the highest given to a folder; `unique`: above every row version.
    """
    pages = _Pages(database)
    nbt = _tree(pages, _node_leaves(database, nodes), _NBT, _NODE_WIDTH)
    # The entries of blocks lie in the spool as they stand in a page.
    bbt = _tree(pages, database.blocks.records(_BLOCKS * _BLOCK_WIDTH), _BBT, _BLOCK_WIDTH)
    bid = pages.bid()
    size = database.fill_section()
    summary = _Summary()
    database.patch(_maps(database, size, summary))
    database.patch([(_DLIST_AT, _page(bytes(_BODY), _DLIST, at=_DLIST_AT, bid=bid))])
    header = _header(database, size=size, summary=summary, unique=unique, folder_index=folder_index)
    struct.pack_into("<Q", header, 32, pages.next_bid)
    struct.pack_into("<QQQQ", header, 216, *nbt, *bbt)
    struct.pack_into("<I", header, 524, crc(bytes(header[8:524])))
    struct.pack_into("<I", header, 4, crc(bytes(header[8:479])))
    # The header comes last, and after all else is on the disk: a file that has one is whole.
    database.patch([(0, bytes(header))])


class _Summary:
    """What the header says of the maps: bytes that are free, and the longest runs of the first 128 sections."""

    def __init__(self) -> None:
        self.free = 0
        self.first = bytearray(b"\xff" * 128)


def _maps(database: Database, size: int, summary: _Summary) -> Iterator[tuple[int, bytes]]:
    """The map pages of all sections, with their offsets; `summary` is filled on the way.

    A section has a byte in the header or in an FMap: the longest run of free slots in it, 255 at most, and 255 as well
    for a section that is not there.
    """

    def page(at: int, kind: int, body: bytes) -> tuple[int, bytes]:
        return at, _page(body, kind, at=at, bid=at)

    covered, fmap_at = bytearray(), 0
    gaps = _gaps(database)
    gap = next(gaps, None)
    for section in range((size - FIRST_SECTION) // SECTION):
        at = FIRST_SECTION + section * SECTION
        bits, longest = (1 << _SLOTS) - 1, 0
        while gap is not None and gap[0] < at + SECTION:
            start, slots = (gap[0] - at) // _SLOT, gap[1] // _SLOT
            bits ^= (1 << slots) - 1 << _SLOTS - start - slots
            longest = max(longest, slots)
            summary.free += slots * _SLOT
            gap = next(gaps, None)
        yield page(at, _AMAP, bits.to_bytes(_BODY, "big"))
        if section % 8 == 0:
            yield page(at + PAGE, _PMAP, b"\xff" * _BODY)
        if fpmap_stands(section):
            yield page(at + 2 * PAGE, _FPMAP, b"\xff" * _BODY)
        if fmap_stands(section):
            if fmap_at:
                yield page(fmap_at, _FMAP, bytes(covered))
            fmap_at, covered = at + 2 * PAGE, bytearray(b"\xff" * _BODY)
        if section < 128:
            summary.first[section] = min(255, longest)
        else:
            covered[(section - 128) % _BODY] = min(255, longest)
    if fmap_at:
        yield page(fmap_at, _FMAP, bytes(covered))


def _gaps(database: Database) -> Iterator[tuple[int, int]]:
    """What was left free: offset and length in order, adjoining ones as one."""
    start = length = 0
    for record in database.free.records(16):
        at, more = struct.unpack("<QQ", record)
        if at == start + length and (at - FIRST_SECTION) % SECTION:
            length += more
            continue
        if length:
            yield start, length
        start, length = at, more
    if length:
        yield start, length


def _header(database: Database, *, size: int, summary: _Summary, unique: int, folder_index: int) -> bytearray:
    """Section 2.2.2.6, without the references to the trees and the checksums."""
    highest = dict.fromkeys(range(32), 1024) | {SEARCH_FOLDER: 0x4000, 0x08: 0x8000}
    highest |= dict.fromkeys((FOLDER, HIERARCHY, CONTENTS, ASSOCIATED), folder_index)
    highest |= {kind: database.highest[kind] for kind in (MESSAGE, ATTACHMENT, VALUE)}
    header = bytearray(_HEADER)
    struct.pack_into("<4sI2sHHBB", header, 0, b"!BDN", 0, b"SM", 23, 19, 1, 1)
    struct.pack_into("<I32I", header, 40, unique, *(highest[kind] for kind in range(32)))
    struct.pack_into("<QQQQ", header, 184, size, size - SECTION, summary.free, 0)
    header[248] = 2  # the AMaps hold
    header[256:384] = summary.first
    header[384:512] = b"\xff" * 128
    header[512:514] = b"\x80\x01"  # sentinel; the cipher: permute
    struct.pack_into("<Q", header, 516, database.next_bid)
    return header
