"""Property contexts and tables (sections 2.3.3 and 2.3.4): values in a heap, rows of cells with a heap for the rest.

Knows property types and how each is stored; knows no particular property. Values come encoded (`encode`): an int for
what stands in four bytes or less, bytes for all else, so that a table's cell and the property that it repeats are one
object and equal by construction.

**The one hard idea** is that a table streams like its heap: rows go into blocks of their own, 64 or so to a block, the
strings of their cells into the heap, the index of rows grows beside. So a row's strings may come from anywhere, once.
"""

import struct
from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from mailkeep.export import mapi
from mailkeep.export.pst.heap import ITEM_MAX, PROPERTIES, TABLE, Heap, Tree, tree_header
from mailkeep.export.pst.ndb import BLOCK_MAX, Database

Encoded = int | bytes
PROPERTIES_MAX: Final = 800  # of one object: their index fits into the first block of the heap
_PER_LEAF: Final = ITEM_MAX // 8
_INTEGERS: Final = (mapi.INTEGER16, mapi.INTEGER32, mapi.ERROR_CODE, mapi.BOOLEAN, mapi.FLOATING32)
_LONGS: Final = {mapi.INTEGER64, mapi.CURRENCY, mapi.TIME, mapi.FLOATING64, mapi.FLOATING_TIME}

ROW_ID: Final = 0x67F20003
ROW_VERSION: Final = 0x67F30003
_CELL: Final = struct.Struct("<HHI")


class Node(NamedTuple):
    """What was written for a node: roots of its data and its subnodes, and the bytes of data in both."""

    data: int
    subnodes: int
    size: int


# --- values ----------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    return mapi.clean(value).encode("utf-16-le")


def _offsets(values: list[bytes]) -> bytes:
    """Several values of variable length (section 2.3.3.4.2)."""
    at = 4 + 4 * len(values)
    offsets = []
    for value in values:
        offsets.append(at)
        at += len(value)
    return struct.pack(f"<I{len(values)}I", len(values), *offsets) + b"".join(values)


_ENCODERS: Final[dict[int, Callable[[Any], Encoded]]] = {
    mapi.INTEGER16: lambda value: value & 0xFFFF,
    mapi.INTEGER32: lambda value: value & 0xFFFFFFFF,
    mapi.ERROR_CODE: lambda value: value & 0xFFFFFFFF,
    mapi.BOOLEAN: int,
    mapi.FLOATING32: lambda value: int.from_bytes(struct.pack("<f", value), "little"),
    mapi.FLOATING64: struct.Struct("<d").pack,
    mapi.FLOATING_TIME: struct.Struct("<d").pack,
    mapi.CURRENCY: struct.Struct("<q").pack,
    mapi.INTEGER64: struct.Struct("<q").pack,
    mapi.TIME: struct.Struct("<Q").pack,
    mapi.STRING: text,
    mapi.STRING8: lambda value: value if isinstance(value, bytes) else value.encode("cp1252", "replace"),
    mapi.BINARY: bytes,
    mapi.GUID: lambda value: value.bytes_le,
    mapi.MULTIPLE | mapi.STRING: lambda values: _offsets([text(value) for value in values]),
    mapi.MULTIPLE | mapi.BINARY: _offsets,
    mapi.MULTIPLE | mapi.INTEGER16: lambda values: struct.pack(f"<{len(values)}h", *values),
    mapi.MULTIPLE | mapi.INTEGER32: lambda values: struct.pack(f"<{len(values)}i", *values),
    mapi.MULTIPLE | mapi.INTEGER64: lambda values: struct.pack(f"<{len(values)}q", *values),
    mapi.MULTIPLE | mapi.TIME: lambda values: struct.pack(f"<{len(values)}Q", *values),
    mapi.MULTIPLE | mapi.FLOATING64: lambda values: struct.pack(f"<{len(values)}d", *values),
    mapi.MULTIPLE | mapi.GUID: lambda values: b"".join(value.bytes_le for value in values),
}


def encode(values: Mapping[int, mapi.Value]) -> dict[int, Encoded]:
    """Values as they are stored, by tag; those of types that a PST has no place for are left out."""
    encoders = _ENCODERS
    return {tag: encoders[tag & 0xFFFF](value) for tag, value in values.items() if tag & 0xFFFF in encoders}


def stored_size(tag: int, value: Encoded) -> int:
    """The bytes of a value, as Outlook counts them for the size of an attachment."""
    if isinstance(value, bytes):
        return len(value)
    kind = tag & 0xFFFF
    return 1 if kind == mapi.BOOLEAN else 2 if kind == mapi.INTEGER16 else 4


# --- property context ------------------------------------------------------------------------------------------------


def write_properties(
    database: Database,
    values: dict[int, Encoded],
    *,
    subnodes: list[tuple[int, int, int]] | None = None,
    below: int = 0,
    size_tag: int = 0,
) -> Node:
    """Write a property context, with the subnodes that are there already, of `below` bytes.

    `size_tag`, if not 0, becomes the size of it all, in `values` too. At most 800 properties are kept.
    """
    heap = Heap(database, PROPERTIES)
    if size_tag:
        values[size_tag] = 0
    tags = sorted(values)[:PROPERTIES_MAX]
    subnodes = [] if subnodes is None else subnodes
    root = heap.add(bytes(8))
    parts = [tags[at : at + _PER_LEAF] for at in range(0, len(tags), _PER_LEAF)]
    leaves = [heap.add(bytes(8 * len(part))) for part in parts]
    top = leaves[0] if len(leaves) == 1 else heap.add(bytes(6 * len(leaves))) if leaves else 0
    cells: dict[int, bytes] = {}
    for tag in tags:
        value = values[tag]
        if isinstance(value, bytes):
            if not value:
                value = 0
            elif len(value) <= ITEM_MAX:
                value = heap.add(value)
            else:
                nid = database.subnode_nid()
                subnodes.append((nid, database.value(value), 0))
                below += len(value)
                value = nid
        cells[tag] = _CELL.pack(tag >> 16, tag & 0xFFFF, value)
    size = heap.size + below
    if size_tag:
        values[size_tag] = min(size, 0x7FFFFFFF)
        cells[size_tag] = _CELL.pack(size_tag >> 16, size_tag & 0xFFFF, min(size, 0x7FFFFFFF))
    for leaf, part in zip(leaves, parts, strict=True):
        heap.replace(leaf, b"".join([cells[tag] for tag in part]))
    if len(leaves) > 1:
        index = [struct.pack("<HI", part[0] >> 16, leaf) for leaf, part in zip(leaves, parts, strict=True)]
        heap.replace(top, b"".join(index))
    heap.replace(root, tree_header(2, 6, int(len(leaves) > 1), top))
    data, _ = heap.finish(root)
    return Node(data, database.subnodes(subnodes), size)


# --- table context ---------------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    tag: int
    offset: int  # in the row
    width: int
    byte: int  # of the bit that says the cell is there
    mask: int
    variable: bool


class Layout:
    """The columns of a table. `text` lists them as `tag@offset#bit`, sorted by tag."""

    def __init__(self, text: str) -> None:
        columns = []
        ends = {8: 0, 2: 0, 1: 0}
        for word in text.split():
            tag, offset, bit = int(word[:8], 16), *map(int, word[9:].split("#"))
            kind = tag & 0xFFFF
            width = 8 if kind in _LONGS else 1 if kind == mapi.BOOLEAN else 2 if kind == mapi.INTEGER16 else 4
            columns.append((tag, offset, width, bit))
            group = 8 if width > 2 else width
            ends[group] = max(ends[group], offset + width)
        four = ends[8]
        two = max(four, ends[2])
        bits = max(two, ends[1])
        self.row_size = bits + (len(columns) + 7) // 8
        packed = [struct.pack("<IHBB", tag, offset, width, bit) for tag, offset, width, bit in columns]
        self._head = struct.pack("<BB4H", TABLE, len(columns), four, two, bits, self.row_size)
        self._columns = b"".join(packed)
        self.columns = tuple(
            _Column(
                tag,
                offset,
                width,
                bits + bit // 8,
                0x80 >> bit % 8,
                width == 4 and tag & 0xFFFF not in _INTEGERS,
            )
            for tag, offset, width, bit in columns
        )
        self.tags = frozenset(column.tag for column in self.columns)

    def info(self, index: int, rows: int) -> bytes:
        """TCINFO: where the index of rows and the rows are."""
        return self._head + struct.pack("<III", index, rows, 0) + self._columns

    def row(self, cells: Mapping[int, Encoded]) -> tuple[bytearray, list[tuple[int, bytes]]]:
        """A row with all but its cells of variable length; those by their offset. Cells of no column are ignored."""
        row = bytearray(self.row_size)
        variable = []
        for tag, offset, width, byte, mask, varies in self.columns:
            value = cells.get(tag)
            if value is None:
                continue
            row[byte] |= mask
            if isinstance(value, int):
                row[offset : offset + width] = value.to_bytes(width, "little")
            elif varies:
                if value:
                    variable.append((offset, value))
            else:
                row[offset : offset + width] = value
        return row, variable


class Table:
    """A table in the making: rows in the order of their ids, which grow."""

    def __init__(self, database: Database, layout: Layout) -> None:
        self._database = database
        self._layout = layout
        self._heap = Heap(database, TABLE)
        self._header = self._heap.add(bytes(8))
        self._info = self._heap.add(layout.info(0, 0))
        self._index = Tree(self._heap, 4, 4)
        self._count = 0
        self._rows: list[bytes] = []  # of the present block
        self._per_block = BLOCK_MAX // layout.row_size
        self._blocks = array("Q")
        self._subnodes: list[tuple[int, int, int]] = []
        self._below = 0

    def add(self, row: bytearray, variable: Iterable[tuple[int, bytes]]) -> None:
        """A row of `Layout.row`, whose first four bytes are its id."""
        for offset, value in variable:
            if len(value) <= ITEM_MAX:
                hnid = self._heap.add(value)
            else:
                hnid = self._database.subnode_nid()
                self._subnodes.append((hnid, self._database.value(value), 0))
                self._below += len(value)
            row[offset : offset + 4] = hnid.to_bytes(4, "little")
        self._index.add(bytes(row[:4]) + self._count.to_bytes(4, "little"))
        self._count += 1
        if len(self._rows) == self._per_block:
            self._store_rows()
        self._rows.append(bytes(row))

    def _store_rows(self) -> None:
        """Write a full block of rows, behind which more follow."""
        self._blocks.append(self._database.block(b"".join(self._rows).ljust(BLOCK_MAX, b"\0")))
        self._rows.clear()

    def finish(self) -> Node:
        rows = b"".join(self._rows)
        if not rows:
            where = 0
        elif not self._blocks and len(rows) <= ITEM_MAX:
            where = self._heap.add(rows)
        else:
            size = len(self._blocks) * BLOCK_MAX + len(rows)
            self._blocks.append(self._database.block(rows))
            where = self._database.subnode_nid()
            self._subnodes.append((where, self._database.tree(self._blocks, size), 0))
            self._below += size
        self._heap.replace(self._header, self._index.header())
        self._heap.replace(self._info, self._layout.info(self._header, where))
        data, size = self._heap.finish(self._info)
        return Node(data, self._database.subnodes(self._subnodes), size + self._below)


def write_table(database: Database, layout: Layout, rows: Iterable[Mapping[int, Encoded]] = ()) -> Node:
    """Write a table of few rows, each with its ROW_ID."""
    table = Table(database, layout)
    for row in rows:
        table.add(*layout.row(row))
    return table.finish()
