"""A strict reader of a PST's lower half (sections 2.2 of [MS-PST]): header, pages, blocks, maps. For `check`.

Shares nothing with the writer but the table of the cipher, which other people's readers prove. Each thing that is wrong
is noted and reading goes on, as far as there is sense in it.
"""

import mmap
import struct
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from mailkeep.export.pst.crypt import DECODE

FIRST, SECTION = 0x4400, 0x3E000
BBT, NBT, FMAP, PMAP, AMAP, FPMAP, DLIST = range(0x80, 0x87)
BLOCK_MAX = 8176
ERRORS_MAX = 200


class Node(NamedTuple):
    data: int
    subnodes: int
    parent: int


def crc(data: bytes) -> int:
    return zlib.crc32(data, 0xFFFFFFFF) ^ 0xFFFFFFFF


def signature(offset: int, bid: int) -> int:
    mixed = (offset ^ bid) & 0xFFFFFFFF
    return (mixed >> 16) ^ (mixed & 0xFFFF)


class TooManyErrors(Exception):
    """Reading on would tell nothing more."""


class Nodes:
    """The nodes of the file at `path`; `errors` is what was wrong."""

    def __init__(self, path: Path) -> None:
        self.errors: list[str] = []
        with path.open("rb") as file:
            self.file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.size = len(self.file)
        self.nodes: dict[int, Node] = {}
        self.blocks: dict[int, tuple[int, int, int]] = {}
        self.references: Counter[int] = Counter()
        self.taken = bytearray(self.size // 64 + 1)  # a byte for each slot of 64
        self._bids: set[int] = set()
        self.highest: Counter[int] = Counter()  # index, by kind of node id

    def error(self, text: str) -> None:
        self.errors.append(text)
        if len(self.errors) >= ERRORS_MAX:
            raise TooManyErrors

    def expect(self, good: bool, text: str) -> None:
        if not good:
            self.error(text)

    def take(self, at: int, size: int, what: str) -> None:
        """Note that these bytes belong to something."""
        if at % 64 or at < FIRST or at + size > self.size:
            self.error(f"{what} at {at:#x}: not a place for it")
            return
        first, last = at // 64, (at + size + 63) // 64
        self.expect(not any(self.taken[first:last]), f"{what} at {at:#x} overlaps something")
        self.taken[first:last] = b"\1" * (last - first)

    # --- header and maps -------------------------------------------------------------------------------------------

    def read(self) -> None:
        header = self.file[:564]
        self.expect(header[:4] == b"!BDN" and header[8:10] == b"SM", "header: magic")
        self.expect(struct.unpack_from("<I", header, 4)[0] == crc(header[8:479]), "header: partial checksum")
        self.expect(struct.unpack_from("<I", header, 524)[0] == crc(header[8:524]), "header: full checksum")
        self.expect(struct.unpack_from("<HH", header, 10) == (23, 19), "header: version")
        self.expect(header[14:16] == b"\1\1" and header[512:514] == b"\x80\x01", "header: constants")
        self.expect(header[248] == 2, "header: the maps do not hold")
        eof, amap_last, self.free, pmap_free = struct.unpack_from("<QQQQ", header, 184)
        self.expect(eof == self.size, f"header: size {eof}, but the file has {self.size}")
        self.expect((self.size - FIRST) % SECTION == 0 and self.size > FIRST, "the file is not whole sections")
        self.expect(amap_last == self.size - SECTION, "header: last AMap")
        self.expect(pmap_free == 0, "header: free pages")
        self.next_page, self.unique = struct.unpack_from("<QI", header, 32)
        self.marks = struct.unpack_from("<32I", header, 44)
        (self.next_block,) = struct.unpack_from("<Q", header, 516)
        self.expect(not any(self.file[564:0x4200]), "bytes after the header")
        for section in range((self.size - FIRST) // SECTION):
            self._maps(section)
        self._page(0x4200, DLIST)
        self._tree(*struct.unpack_from("<QQ", header, 216), NBT)
        self._tree(*struct.unpack_from("<QQ", header, 232), BBT)
        self.expect(max(self._bids, default=0) < self.next_page, "header: next page id")
        self.expect(max(self.blocks, default=0) < self.next_block, "header: next block id")

    def _map_kinds(self, section: int) -> list[int]:
        kinds = [AMAP]
        kinds += [PMAP] if section % 8 == 0 else []
        kinds += [FMAP] if section >= 128 and (section - 128) % 496 == 0 else []
        kinds += [FPMAP] if section >= 8192 and (section - 8192) % 31744 == 0 else []
        return kinds

    def _maps(self, section: int) -> None:
        at = FIRST + section * SECTION
        for number, kind in enumerate(self._map_kinds(section)):
            body = self._page(at + 512 * number, kind)
            if kind in (PMAP, FPMAP):
                self.expect(body == b"\xff" * 496, f"map at {at:#x}: not full")

    def _page(self, at: int, kind: int) -> bytes:
        """The body of a page whose trailer is right."""
        page = self.file[at : at + 512]
        if len(page) < 512:
            self.error(f"page at {at:#x}: beyond the end")
            return bytes(496)
        first, second, signed, checksum, bid = struct.unpack_from("<BBHIQ", page, 496)
        self.expect(first == second == kind, f"page at {at:#x}: kind {first:#x}, {kind:#x} expected")
        self.expect(checksum == crc(page[:496]), f"page at {at:#x}: checksum")
        if kind in (AMAP, PMAP, FMAP, FPMAP):
            self.expect(signed == 0 and bid == at, f"map at {at:#x}: id")
        else:
            self.expect(signed == signature(at, bid), f"page at {at:#x}: signature")
            self.expect(bid not in self._bids, f"page at {at:#x}: its id is another's")
            self._bids.add(bid)
        if at >= FIRST:
            self.take(at, 512, "page")
        return page[:496]

    def check_maps(self) -> None:
        """What is taken is what the maps say; call it when all was visited."""
        free = 0
        fmap = b""
        for section in range((self.size - FIRST) // SECTION):
            at = FIRST + section * SECTION
            taken = self.taken[at // 64 : (at + SECTION) // 64]
            said = bin(int.from_bytes(b"\1" + self.file[at : at + 496], "big"))[3:].encode().translate(_BITS)
            if said != taken:
                wrong = next(i for i, pair in enumerate(zip(said, taken, strict=True)) if pair[0] != pair[1])
                self.error(f"AMap at {at:#x}: slot {wrong} is {'taken' if taken[wrong] else 'free'}")
            free += 64 * taken.count(0)
            longest = min(255, max(len(run) for run in bytes(taken).split(b"\1")))
            kinds = self._map_kinds(section)
            if FMAP in kinds:
                start = at + 512 * kinds.index(FMAP)
                fmap = self.file[start : start + 496]
            here = self.file[256 + section] if section < 128 else fmap[(section - 128) % 496]
            self.expect(here == longest, f"FMap: section {section} has {longest} free slots, not {here}")
        self.expect(free == self.free, f"header: {self.free} bytes free, {free} in the maps")

    # --- the two B-trees ---------------------------------------------------------------------------------------------

    def _tree(self, bid: int, at: int, kind: int) -> None:
        keys = self._branch(at, kind, None, bid)
        self.expect(keys == sorted(set(keys)), f"tree {kind:#x}: keys are not in order")

    def _branch(self, at: int, kind: int, level: int | None, bid: int) -> list[int]:
        """Take in all entries below a page; returns their keys."""
        body = self._page(at, kind)
        count, most, width, depth, padding = struct.unpack_from("<BBBBI", body, 488)
        self.expect(struct.unpack_from("<Q", self.file[at + 504 : at + 512])[0] == bid, f"page at {at:#x}: id")
        self.expect(level is None or depth == level, f"page at {at:#x}: level {depth}")
        right = 24 if depth or kind == BBT else 32
        if (width, most, padding) != (right, 488 // right, 0) or count > most or depth > 8:
            self.error(f"page at {at:#x}: widths")
            return []
        self.expect(not any(body[count * width : 488]), f"page at {at:#x}: rubbish behind its entries")
        keys: list[int] = []
        for number in range(count):
            entry = body[number * width : (number + 1) * width]
            if depth:
                key, child, place = struct.unpack("<QQQ", entry)
                below = self._branch(place, kind, depth - 1, child)
                self.expect(below[:1] == [key], f"page at {at:#x}: key {key:#x} is not the first of its child")
                keys += below
            elif kind == BBT:
                bid, place, size, references, zero = struct.unpack("<QQHHI", entry)
                self.expect(zero == 0 and bid & 1 == 0, f"block {bid:#x}: entry")
                self.blocks[bid] = (place, size, references)
                keys.append(bid)
            else:
                nid, data, subnodes, parent, zero = struct.unpack("<QQQII", entry)
                self.expect(zero == 0 and nid < 1 << 32, f"node {nid:#x}: entry")
                self.nodes[nid] = Node(data, subnodes, parent)
                self._note_nid(nid)
                keys.append(nid)
        return keys

    def _note_nid(self, nid: int) -> None:
        kind, index = nid & 31, nid >> 5
        if index >= 0x400:
            self.highest[kind] = max(self.highest[kind], index)

    # --- blocks ------------------------------------------------------------------------------------------------------

    def block(self, bid: int) -> bytes:
        """The decoded bytes of a block, counted as one reference."""
        self.references[bid] += 1
        if bid not in self.blocks:
            self.error(f"block {bid:#x} is not there")
            return b""
        at, size, _ = self.blocks[bid]
        total = (size + 16 + 63) // 64 * 64
        if self.references[bid] == 1:
            self.take(at, total, f"block {bid:#x}")
        raw = self.file[at : at + total]
        if len(raw) < total or not 0 < size <= BLOCK_MAX:
            self.error(f"block {bid:#x}: size")
            return b""
        stated, signed, checksum, own = struct.unpack_from("<HHIQ", raw, total - 16)
        self.expect((stated, own) == (size, bid), f"block {bid:#x}: trailer")
        self.expect(signed == signature(at, bid), f"block {bid:#x}: signature")
        self.expect(checksum == crc(raw[:size]), f"block {bid:#x}: checksum")
        self.expect(not any(raw[size : total - 16]), f"block {bid:#x}: padding")
        return raw[:size] if bid & 2 else raw[:size].translate(DECODE)

    def data(self, bid: int) -> list[bytes]:
        """The data blocks of a tree."""
        if not bid:
            return []
        block = self.block(bid)
        if not bid & 2:
            return [block]
        kind, level, count, size = struct.unpack_from("<BBHI", block)
        if kind != 1 or level not in (1, 2) or len(block) != 8 + 8 * count or not level <= count <= 1021:
            self.error(f"block {bid:#x}: not the root of a data tree")
            return []
        children = struct.unpack_from(f"<{count}Q", block, 8)
        found: list[bytes] = []
        for child in children:
            self.expect(bool(child & 2) == (level == 2), f"block {bid:#x}: child {child:#x} of another level")
            found += self.data(child)
        self.expect(sum(map(len, found)) == size, f"block {bid:#x}: total size")
        if level == 2:
            self.expect(len(found) > 1021 * (count - 1), f"block {bid:#x}: a child before the last is not full")
        self.expect(all(len(one) == BLOCK_MAX for one in found[:-1]), f"block {bid:#x}: a middle block is not full")
        return found

    def subnodes(self, bid: int) -> dict[int, Node]:
        """The nodes below a node."""
        if not bid:
            return {}
        block = self.block(bid)
        kind, level, count, zero = struct.unpack_from("<BBHI", block.ljust(8, b"\0"))
        if kind != 2 or zero or level > 1 or len(block) != 8 + count * (16 if level else 24) or not count:
            self.error(f"block {bid:#x}: not a tree of subnodes")
            return {}
        found: dict[int, Node] = {}
        for number in range(count):
            if level:
                key, child = struct.unpack_from("<QQ", block, 8 + 16 * number)
                below = self.subnodes(child)
                self.expect(next(iter(below), None) == key, f"block {bid:#x}: key of its child {child:#x}")
                found |= below
            else:
                nid, data, subnodes = struct.unpack_from("<QQQ", block, 8 + 24 * number)
                found[nid] = Node(data, subnodes, 0)
                self._note_nid(nid)
        self.expect(list(found) == sorted(found), f"block {bid:#x}: subnodes are not in order")
        return found

    def check_references(self) -> None:
        """Each block is used, and as often as it says; the header knows the highest ids."""
        for bid, (_, _, said) in self.blocks.items():
            self.expect(said == self.references[bid] + 1, f"block {bid:#x}: {said} references")
            self.expect(self.references[bid] > 0, f"block {bid:#x}: nobody's")
        for kind, index in self.highest.items():
            self.expect(self.marks[kind] >= index, f"header: kind {kind:#x} goes to {index:#x}")


_BITS = bytes.maketrans(b"01", b"\0\1")
