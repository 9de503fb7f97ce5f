"""A strict checker of PSTs: what [MS-PST] demands, and what Outlook's repair tool looks at as far as it is known.

    python -m tests.export.pst.check FILE       prints what is wrong; exit code 1 when something is

It reads all of a file: every page, block, heap, property and row, each of which must be used, once, and agree with all
others that say the same. It knows no writer. What it holds in memory grows with the number of messages.
"""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.export.pst.nodes import Node, Nodes, TooManyErrors
from tests.export.pst.values import INLINE, PROPERTIES, TABLE, Heap, Object, properties, table

FOLDER, SEARCH_FOLDER, MESSAGE, ATTACHMENT = 2, 3, 4, 5
ROOT, TOP, SEARCH_ROOT, DELETED, SPAM = 0x122, 0x8022, 0x8042, 0x8062, 0x2223
TEMPLATES = {0x60D: 13, 0x60E: 28, 0x60F: 15, 0x610: 19, 0x62B: 4, 0x64C: 5, 0x671: 6, 0x692: 14, 0x6B6: 5}
TEMPLATES |= {0x6D7: 9, 0x6F8: 4, 0x2230: 19}
EMPTY = (0x1E1, 0x261, 0xE41, 0xEC1, 0xF21, 0x2226)
STORE_NEEDS = (0x0FF90102, 0x3001001F, 0x35E00102, 0x35E30102, 0x35E70102, 0x35DF0003, 0x67FF0003, 0x6633000B)
MESSAGE_NEEDS = (0x001A001F, 0x0E070003, 0x0E080003, 0x0E170003, 0x30070040, 0x30080040, 0x300B0102, 0x0037001F)
EMPTY_CELLS = (0x0037001F, 0x0042001F, 0x0070001F)
ROW_ONLY = (0x67F20003, 0x67F30003, 0x0E300102, 0x0E330014, 0x0E340102, 0x30130102)


class Checker:
    """A run over one file; `errors` and `counts` are what it found."""

    def __init__(self, path: Path) -> None:
        self.file = Nodes(path)
        self.errors = self.file.errors
        self.versions: set[int] = set()
        self.item_ids: dict[bytes, int] = {}
        self.visited: set[int] = set()
        self.counts: dict[str, int] = {}  # messages by path of their folder
        self.names = range(0)
        self.key = b""
        self._folder_names: dict[int, str] = {}
        self._store_properties: dict[int, Any] = {}

    def run(self) -> None:
        try:
            self.file.read()
            self._all_nodes()
            self.file.check_references()
            self.file.check_maps()
        except TooManyErrors:
            pass
        except (struct.error, IndexError, ValueError, RecursionError) as error:
            self.errors.append(f"no sense in it: {error}")

    def node(self, nid: int) -> Node:
        self.visited.add(nid)
        node = self.file.nodes.get(nid)
        if node is None:
            self.file.error(f"node {nid:#x} is missing")
            return Node(0, 0, 0)
        return node

    def properties_of(self, nid: int) -> dict[int, Any]:
        heap = Heap(self.file, self.node(nid), PROPERTIES, f"node {nid:#x}")
        found = properties(heap)
        heap.finish()
        return found

    def table_of(self, nid: int) -> tuple[dict[int, dict[int, Any]], frozenset[int]]:
        self.file.expect(self.node(nid).parent == 0, f"table {nid:#x} has a parent")
        heap = Heap(self.file, self.node(nid), TABLE, f"table {nid:#x}")
        found = table(heap)
        heap.finish()
        return found

    def _all_nodes(self) -> None:
        for nid in EMPTY:
            self.file.expect(self.node(nid) == Node(0, 0, 0), f"node {nid:#x} is not empty")
        for nid, columns in TEMPLATES.items():
            rows, tags = self.table_of(nid)
            self.file.expect(len(tags) == columns, f"table {nid:#x}: {len(tags)} columns")
            self.file.expect(len(rows) == (nid == 0x62B), f"table {nid:#x}: {len(rows)} rows")
        self.file.expect(self.file.data(self.node(0x201).data) == [b"\x23\x22\0\0"], "node 0x201")
        self.file.expect(self.properties_of(SPAM + 4) == {0x660B0003: 0}, "node 0x2227")
        self._names()
        self._store()
        self._folder(ROOT, (), {})
        self._id_map()
        unvisited = set(self.file.nodes) - self.visited
        self.file.expect(not unvisited, f"nodes of nobody: {sorted(map(hex, unvisited))[:20]}")
        self.file.expect(max(self.versions, default=0) < self.file.unique, "header: unique")

    def _store(self) -> None:
        store = self._store_properties = self.properties_of(0x21)
        for tag in STORE_NEEDS:
            self.file.expect(tag in store, f"store: {tag:08x} is missing")
        self.key = store.get(0x0FF90102, b"")
        self.file.expect(len(self.key) == 16, "store: record key")
        for tag, value in store.items():
            if 0x35E0 <= tag >> 16 <= 0x35E7:
                nid = int.from_bytes(value[20:], "little")
                good = value[:20] == bytes(4) + self.key and nid in self.file.nodes and nid & 31 == FOLDER
                self.file.expect(good, f"store: entry id {tag:08x}")

    def names_of_roles(self) -> dict[str, str]:
        """The names of folders that have a role in Outlook."""
        roles = {"inbox": 0x35E10102, "sent": 0x35E40102, "wastebasket": 0x35E30102}
        found = {role: self._store_properties.get(tag, b"")[20:] for role, tag in roles.items()}
        return {role: self._folder_names[int.from_bytes(nid, "little")] for role, nid in found.items() if nid}

    def _names(self) -> None:
        found = self.properties_of(0x61)
        entries, texts = found.get(0x00030102, b""), found.get(0x00040102, b"")
        self.file.expect(found.get(0x00010003) == 251, "names: buckets")
        self.file.expect(bool(found.get(0x00020102)) and bool(texts), "names: an empty stream")
        records: list[bytes] = []
        for tag, value in found.items():
            if tag >> 16 >= 0x1000:
                parts = [value[at : at + 8] for at in range(0, len(value), 8)]
                records += parts
                for part in parts:
                    first, kind = int.from_bytes(part[:4], "little"), int.from_bytes(part[4:6], "little")
                    self.file.expect((first ^ kind) % 251 == (tag >> 16) - 0x1000, f"names: bucket {tag:08x}")
        self.file.expect(len(records) * 8 == len(entries), "names: buckets and entries differ")
        ends = {part[4:] for part in records}
        self.file.expect(ends == {entries[at + 4 : at + 8] for at in range(0, len(entries), 8)}, "names: entries")
        self.names = range(0x8000, 0x8000 + len(entries) // 8)

    # --- folders -----------------------------------------------------------------------------------------------------

    def _folder(self, nid: int, path: tuple[str, ...], row: dict[int, Any]) -> None:
        if nid in self.visited:
            self.file.error(f"folder {nid:#x} is in two places")
            return
        own = self.properties_of(nid)
        what = f"folder {nid:#x}"
        for tag in (0x3001001F, 0x36020003, 0x36030003, 0x360A000B):
            self.file.expect(tag in own, f"{what}: {tag:08x} is missing")
        if row:
            same = {tag: value for tag, value in row.items() if tag not in ROW_ONLY}
            self.file.expect(same == own, f"{what}: its row differs")
        if nid & 31 == SEARCH_FOLDER:
            return
        children, _ = self.table_of(nid & ~31 | 0x0D)
        messages, columns = self.table_of(nid & ~31 | 0x0E)
        hidden, _ = self.table_of(nid & ~31 | 0x0F)
        self.file.expect(own.get(0x360A000B) == bool(children), f"{what}: whether it has subfolders")
        self.file.expect(own.get(0x36020003) == len(messages), f"{what}: number of messages")
        unread = sum(not cells.get(0x0E070003, 0) & 1 for cells in messages.values())
        self.file.expect(own.get(0x36030003) == unread, f"{what}: number of unread messages")
        self.file.expect(not hidden, f"{what}: hidden messages")
        if nid == ROOT:
            self.file.expect({SPAM, TOP, SEARCH_ROOT} <= set(children), "the root's folders")
        self.counts["/".join(path)] = len(messages)
        for child, cells in children.items():
            name = cells.get(0x3001001F, b"").decode("utf-16-le", "replace")
            self._row_ids(cells, child, f"row of {child:#x}", ids=nid != ROOT)
            self.file.expect(self.node(child).parent == nid, f"folder {child:#x}: parent")
            self.visited.discard(child)
            self._folder_names[child] = name
            self._folder(child, (*path, name), cells)
        for message, cells in messages.items():
            self._message_of(message, nid, cells, columns)

    def _row_ids(self, cells: dict[int, Any], nid: int, what: str, *, ids: bool) -> None:
        version = cells.get(0x67F30003, 0)
        self.file.expect(version and version not in self.versions, f"{what}: version {version}")
        self.versions.add(version)
        if not ids:
            self.file.expect(0x0E300102 not in cells, f"{what}: an id")
            return
        own = cells.get(0x0E300102, b"")
        self.file.expect(len(own) == 16 and own not in self.item_ids, f"{what}: id")
        self.item_ids[own] = nid
        self.file.expect(any(cells.get(0x0E330014, b"")), f"{what}: change number")
        replica = b"\1\0\0\0" + self.key + b"\1\0\0\0"
        self.file.expect(cells.get(0x0E340102) == replica, f"{what}: replica")

    def _id_map(self) -> None:
        heap = Heap(self.file, self.node(0xC01), 0x9C, "map of ids")
        records = heap.tree(int.from_bytes(heap.item(heap.root), "little"), 16, 4)
        heap.finish()
        found = {key: int.from_bytes(value, "little") for key, value in records}
        self.file.expect(found == self.item_ids, "map of ids: not those of the rows")

    # --- messages ----------------------------------------------------------------------------------------------------

    def _message_of(self, nid: int, folder: int, row: dict[int, Any], columns: frozenset[int]) -> None:
        node = self.node(nid)
        what = f"message {nid:#x}"
        self.file.expect(nid & 31 == MESSAGE and node.parent == folder, f"{what}: parent")
        own, _ = self._message(node, what)
        self._row_ids(row, nid, what, ids=True)
        for tag in columns.difference(ROW_ONLY):
            value = own.get(tag)
            if value == b"" and tag not in EMPTY_CELLS:
                value = None
            self.file.expect(row.get(tag) == value, f"{what}: its row has another {tag:08x}")
        index, conversation = own.get(0x00710102, b""), row.get(0x30130102, b"")
        self.file.expect(len(conversation) == 16 and index[6:22] in (b"", conversation), f"{what}: conversation")

    def _message(self, node: Node, what: str) -> tuple[dict[int, Any], int]:
        """The properties of a message, embedded or not, and its size."""
        heap = Heap(self.file, node, PROPERTIES, what)
        own = properties(heap)
        size = 0
        for tag in MESSAGE_NEEDS:
            self.file.expect(tag in own, f"{what}: {tag:08x} is missing")
        self.file.expect(
            all(tag >> 16 < 0x8000 or tag >> 16 in self.names for tag in own), f"{what}: a name is missing"
        )
        self._subject(own, what)
        recipients = heap.subnodes.pop(0x692, None)
        if recipients is None:
            self.file.error(f"{what}: no table of recipients")
        else:
            size += self._recipients(recipients, what)
        rows: dict[int, dict[int, Any]] = {}
        if 0x671 in heap.subnodes:
            below = Heap(self.file, heap.subnodes.pop(0x671), TABLE, f"{what}: attachments")
            rows, _ = table(below)
            below.finish()
            size += below.size
        attached = {nid: one for nid, one in heap.subnodes.items() if nid & 31 == ATTACHMENT}
        self.file.expect(set(attached) == set(rows), f"{what}: attachments and their rows")
        for nid, one in attached.items():
            del heap.subnodes[nid]
            size += self._attachment(one, rows.get(nid, {}), f"{what}: attachment {nid:#x}")
        flagged = bool(own.get(0x0E070003, 0) & 0x10)
        self.file.expect(flagged == bool(rows), f"{what}: whether it has attachments")
        heap.finish()
        size += heap.size
        self.file.expect(own.get(0x0E080003) == size, f"{what}: size {own.get(0x0E080003)}, {size} found")
        return own, size

    def _subject(self, own: dict[int, Any], what: str) -> None:
        subject = own.get(0x0037001F, b"").decode("utf-16-le", "replace")
        good = len(subject) >= 2 and subject[0] == "\x01" and 1 <= ord(subject[1]) <= len(subject) - 1
        self.file.expect(good and len(subject) <= 257, f"{what}: subject")

    def _recipients(self, node: Node, what: str) -> int:
        heap = Heap(self.file, node, TABLE, f"{what}: recipients")
        rows, columns = table(heap)
        heap.finish()
        self.file.expect(list(rows) == list(range(1, len(rows) + 1)), f"{what}: numbers of recipients")
        for cells in rows.values():
            self.file.expect(cells.get(0x0C150003) in (1, 2, 3), f"{what}: kind of recipient")
            self.file.expect({0x3001001F, 0x0FFE0003} <= set(cells) <= columns, f"{what}: recipient")
        return heap.size

    def _attachment(self, node: Node, row: dict[int, Any], what: str) -> int:
        heap = Heap(self.file, node, PROPERTIES, what)
        own = properties(heap)
        size = inside = 0
        for tag, value in row.items():
            self.file.expect(tag in ROW_ONLY or own.get(tag) == value, f"{what}: its row has another {tag:08x}")
        embedded = own.get(0x3701000D)
        if own.get(0x37050003) == 5:
            if not isinstance(embedded, Object) or embedded.nid not in heap.subnodes:
                self.file.error(f"{what}: no embedded message")
            else:
                _, inside = self._message(heap.subnodes.pop(embedded.nid), f"{what}: embedded")
                self.file.expect(embedded.size == inside, f"{what}: size of the embedded message")
        else:
            self.file.expect(own.get(0x37050003) == 1 and 0x37010102 in own, f"{what}: no data")
        stated = inside + sum(_stored(tag, value) for tag, value in own.items())
        self.file.expect(own.get(0x0E200003) == stated, f"{what}: size {own.get(0x0E200003)}, {stated} found")
        heap.finish()
        size += heap.size + inside
        return size


def _stored(tag: int, value: Any) -> int:
    return 8 if isinstance(value, Object) else len(value) if isinstance(value, bytes) else INLINE[tag & 0xFFFF]


def check(path: Path) -> Checker:
    """What is wrong with a PST is in `errors`."""
    checker = Checker(path)
    checker.run()
    return checker


def main(paths: list[str]) -> Iterator[str]:
    for path in paths:
        checker = check(Path(path))
        yield from (f"{path}: {error}" for error in checker.errors)
        print(path, sum(checker.counts.values()), "messages in", len(checker.counts), "folders")


if __name__ == "__main__":
    found = list(main(sys.argv[1:]))
    print("\n".join(found))
    sys.exit(bool(found))
