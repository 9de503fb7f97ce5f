"""A strict reader of a PST's middle (section 2.3 of [MS-PST]): heaps, trees, properties, tables. For `check`."""

import itertools
import struct
from typing import Any, NamedTuple

from tests.export.pst.nodes import BLOCK_MAX, Node, Nodes

ITEM_MAX = 3580
TABLE, PROPERTIES = 0x7C, 0xBC
_LEVELS = (3584, 2560, 2048, 1792, 1536, 1280, 1024, 768, 512, 256, 128, 64, 32, 16, 8)
INLINE = {0x0002: 2, 0x0003: 4, 0x0004: 4, 0x000A: 4, 0x000B: 1}
LONG = {0x0005, 0x0006, 0x0007, 0x0014, 0x0040}


class Object(NamedTuple):
    """A PtypObject: where it is, and how large it says to be."""

    nid: int
    size: int


class Heap:
    """The items of a node's heap, and what is below the node. `size` counts the bytes of data of it all."""

    def __init__(self, file: Nodes, node: Node, client: int, what: str) -> None:
        self.file, self.what = file, what
        self.blocks = file.data(node.data)
        self.subnodes = file.subnodes(node.subnodes)
        self.size = sum(map(len, self.blocks))
        self.used: set[int] = set()
        self._items: list[list[bytes]] = []
        self.root = 0
        if not self.blocks:
            file.error(f"{what}: an empty heap")
            return
        levels: list[int] = []
        for number, block in enumerate(self.blocks):
            header = self._header(number, block, client, levels)
            self._items.append(self._map(number, block, header))
        for number, block in enumerate(self.blocks):
            free = BLOCK_MAX - len(block)
            level = next((level for level, least in enumerate(_LEVELS) if free >= least), 15)
            file.expect(levels[number] == level, f"{what}: block {number} has fill level {level}, not {levels[number]}")
        file.expect(not any(levels[len(self.blocks) :]), f"{what}: fill levels of no blocks")

    def _header(self, number: int, block: bytes, client: int, levels: list[int]) -> int:
        """Check it; returns its length, and appends the fill levels that it has."""
        if number == 0:
            _, mark, kind, self.root, filled = struct.unpack_from("<HBBI4s", block.ljust(12, b"\0"))
            self.file.expect((mark, kind) == (0xEC, client), f"{self.what}: header of the heap ({kind:#x})")
            levels += [level for byte in filled for level in (byte & 15, byte >> 4)]
            return 12
        if number >= 8 and (number - 8) % 128 == 0:
            levels += [level for byte in block[2:66] for level in (byte & 15, byte >> 4)]
            return 66
        return 2

    def _map(self, number: int, block: bytes, header: int) -> list[bytes]:
        (at,) = struct.unpack_from("<H", block)
        if at % 2 or at + 4 > len(block):
            self.file.error(f"{self.what}: block {number} has no map")
            return []
        count, freed = struct.unpack_from("<HH", block, at)
        end = at + 4 + 2 * (count + 1)
        if end > len(block) or count > 2047 or freed:
            self.file.error(f"{self.what}: block {number}: map")
            return []
        last = number == len(self.blocks) - 1
        self.file.expect(not any(block[end:]) and (not last or end == len(block)), f"{self.what}: block {number}: end")
        offsets = struct.unpack_from(f"<{count + 1}H", block, at + 4)
        good = offsets[0] == header and list(offsets) == sorted(offsets) and at - 2 < offsets[-1] <= at
        self.file.expect(good, f"{self.what}: block {number}: offsets")
        items = [block[start:end] for start, end in itertools.pairwise(offsets)]
        self.file.expect(all(0 < len(item) <= ITEM_MAX for item in items), f"{self.what}: block {number}: item sizes")
        return items

    def item(self, hid: int) -> bytes:
        """An item, which belongs to one place only."""
        block, number = hid >> 16, (hid >> 5 & 0x7FF) - 1
        if hid & 31 or block >= len(self._items) or not 0 <= number < len(self._items[block]):
            self.file.error(f"{self.what}: no item {hid:#x}")
            return b""
        self.file.expect(hid not in self.used, f"{self.what}: item {hid:#x} is used twice")
        self.used.add(hid)
        return self._items[block][number]

    def value(self, hnid: int) -> bytes:
        """Bytes in the heap, or in a subnode."""
        if not hnid:
            return b""
        if hnid & 31 == 0:
            return self.item(hnid)
        self.file.expect(hnid & 31 == 0x1F, f"{self.what}: value {hnid:#x} is of a kind that is none")
        node = self.subnodes.pop(hnid, None)
        if node is None:
            self.file.error(f"{self.what}: no subnode {hnid:#x}")
            return b""
        value = b"".join(self.file.data(node.data))
        self.file.expect(node.subnodes == 0, f"{self.what}: subnode {hnid:#x} has subnodes")
        self.size += len(value)
        return value

    def tree(self, hid: int, key: int, width: int) -> list[tuple[bytes, bytes]]:
        """The records of a B-tree."""
        header = self.item(hid)
        if len(header) != 8 or header[:3] != bytes((0xB5, key, width)):
            self.file.error(f"{self.what}: header of tree {hid:#x}")
            return []
        level, root = struct.unpack_from("<BI", header, 3)
        records = self._records(root, level, key, width) if root else []
        order = [record[0][::-1] if key < 16 else record[0] for record in records]
        self.file.expect(order == sorted(set(order)), f"{self.what}: tree {hid:#x} is not in order")
        return records

    def _records(self, hid: int, level: int, key: int, width: int) -> list[tuple[bytes, bytes]]:
        item = self.item(hid)
        step = key + (4 if level else width)
        if len(item) % step or not item or level > 5:
            self.file.error(f"{self.what}: item {hid:#x} of a tree")
            return []
        found = [(item[at : at + key], item[at + key : at + step]) for at in range(0, len(item), step)]
        if not level:
            return found
        below: list[tuple[bytes, bytes]] = []
        for first, child in found:
            part = self._records(int.from_bytes(child, "little"), level - 1, key, width)
            self.file.expect(part[:1] != [] and part[0][0] == first, f"{self.what}: key in item {hid:#x}")
            below += part
        return below

    def finish(self) -> None:
        """Nothing is left over."""
        count = sum(map(len, self._items))
        self.file.expect(len(self.used) == count, f"{self.what}: {count - len(self.used)} items of nobody")
        self.file.expect(not self.subnodes, f"{self.what}: subnodes of nobody: {[hex(nid) for nid in self.subnodes]}")


def properties(heap: Heap) -> dict[int, Any]:
    """All properties by tag: int for what is inline, Object, else bytes."""
    found: dict[int, Any] = {}
    for key, cell in heap.tree(heap.root, 2, 6):
        kind, value = struct.unpack("<HI", cell)
        tag = int.from_bytes(key, "little") << 16 | kind
        if kind in INLINE:
            heap.file.expect(value < 1 << 8 * INLINE[kind], f"{heap.what}: {tag:08x} is {value:#x}")
            found[tag] = value
        elif kind == 0x000D:
            found[tag] = Object(*struct.unpack("<II", heap.item(value).rjust(8, b"\0")))
        else:
            found[tag] = heap.value(value)
            check_value(heap, tag, found[tag])
    return found


def check_value(heap: Heap, tag: int, value: bytes) -> None:
    kind = tag & 0xFFFF
    if kind == 0x001F:
        try:
            text = value.decode("utf-16-le")
        except UnicodeDecodeError:
            heap.file.error(f"{heap.what}: {tag:08x} is no UTF-16")
        else:
            heap.file.expect("\0" not in text, f"{heap.what}: {tag:08x} has a NUL")
    elif kind in LONG:
        heap.file.expect(len(value) == 8, f"{heap.what}: {tag:08x} has {len(value)} bytes")
    elif kind in (0x101F, 0x1102):
        (count,) = struct.unpack_from("<I", value)
        offsets = [*struct.unpack_from(f"<{count}I", value, 4), len(value)]
        good = offsets[0] == 4 + 4 * count and offsets == sorted(offsets)
        heap.file.expect(good, f"{heap.what}: {tag:08x}: offsets")


def table(heap: Heap) -> tuple[dict[int, dict[int, Any]], frozenset[int]]:
    """Rows by id, each a dict by tag like `properties`; and the tags of the columns."""
    file, what = heap.file, heap.what
    info = heap.item(heap.root)
    if len(info) < 22 or info[0] != TABLE or len(info) != 22 + 8 * info[1]:
        file.error(f"{what}: columns")
        return {}, frozenset()
    count, four, two, one, width, index, where, zero = struct.unpack_from("<B4HIII", info, 1)
    columns = [struct.unpack_from("<IHBB", info, 22 + 8 * number) for number in range(count)]
    _check_columns(heap, columns, (four, two, one, width, zero))
    numbers = {key: int.from_bytes(row, "little") for key, row in heap.tree(index, 4, 4)}
    file.expect(sorted(numbers.values()) == list(range(len(numbers))), f"{what}: numbers of rows")
    raw = _raw_rows(heap, where, width)
    file.expect(len(raw) == len(numbers), f"{what}: {len(raw)} rows, {len(numbers)} in the index")
    rows: dict[int, dict[int, Any]] = {}
    for number, row in enumerate(raw):
        file.expect(numbers.get(row[:4]) == number, f"{what}: row {number} is not in the index")
        cells: dict[int, Any] = {}
        for tag, offset, size, bit in columns:
            if not row[one + bit // 8] & 0x80 >> bit % 8:
                file.expect(not any(row[offset : offset + size]), f"{what}: {tag:08x} is not there, and is not zero")
                continue
            cell = row[offset : offset + size]
            kind = tag & 0xFFFF
            if kind in INLINE:
                cells[tag] = int.from_bytes(cell, "little")
            elif kind in LONG:
                cells[tag] = cell
            else:
                cells[tag] = heap.value(int.from_bytes(cell, "little"))
                check_value(heap, tag, cells[tag])
        rows[int.from_bytes(row[:4], "little")] = cells
    return rows, frozenset(column[0] for column in columns)


def _raw_rows(heap: Heap, where: int, width: int) -> list[bytes]:
    if not where:
        return []
    if where & 31 == 0:
        blocks = [heap.item(where)]
    else:
        node = heap.subnodes.pop(where, Node(0, 0, 0))
        blocks = heap.file.data(node.data)
        heap.size += sum(map(len, blocks))
    rows: list[bytes] = []
    per_block = BLOCK_MAX // width
    for number, block in enumerate(blocks):
        size = len(block) if number == len(blocks) - 1 else per_block * width
        heap.file.expect(size % width == 0 and not any(block[size:]), f"{heap.what}: block {number} of rows")
        rows += [block[at : at + width] for at in range(0, size, width)]
    return rows


def _check_columns(heap: Heap, columns: list[Any], ends: tuple[int, ...]) -> None:
    four, two, one, width, zero = ends
    tags = [column[0] for column in columns]
    heap.file.expect(tags == sorted(set(tags)) and zero == 0, f"{heap.what}: columns are not in order")
    heap.file.expect(width == one + (len(columns) + 7) // 8, f"{heap.what}: width {width}")
    heap.file.expect(sorted(column[3] for column in columns) == list(range(len(columns))), f"{heap.what}: bits")
    places = {tag: (offset, bit) for tag, offset, _, bit in columns}
    fixed = (places.get(0x67F20003), places.get(0x67F30003))
    heap.file.expect(fixed == ((0, 0), (4, 1)), f"{heap.what}: columns of the row's id and version")
    at = 0
    for tag, offset, size, _ in sorted(columns, key=lambda column: column[1]):
        kind = tag & 0xFFFF
        right = 8 if kind in LONG else {0x000B: 1, 0x0002: 2}.get(kind, 4)
        end = {1: one, 2: two}.get(size, four)
        good = (offset, size) == (at, right) and offset + size <= end
        heap.file.expect(good, f"{heap.what}: place of column {tag:08x}")
        at = offset + size
    heap.file.expect(at == one, f"{heap.what}: end of the columns")
