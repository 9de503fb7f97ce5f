"""The tree of folders: which mailbox becomes which folder, what each holds, and the tables that say so (section 2.4.4).

Knows names, places and the rows of messages; knows nothing of what a message is. A folder is four nodes with one index:
its properties, and tables of its subfolders, its messages and its hidden messages.

**The one hard idea** is that a folder's table can only be written when all its messages are known, and a folder may
come back at any time (after a kill it always does). So the rows of all folders go into one spool in the order of
writing, and a folder remembers which stretches of it are its own. In memory there is a folder's name and its
stretches, nothing for a message.

A table has room for one to two and a half million messages. What comes after goes to a folder beside it, "Name (2)".
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from mailkeep.export import mapi
from mailkeep.export.pst.heap import BLOCKS_MAX
from mailkeep.export.pst.ltp import ROW_ID, ROW_VERSION, Encoded, Table, text, write_properties, write_table
from mailkeep.export.pst.messages import EMPTY_ALLOWED
from mailkeep.export.pst.ndb import ASSOCIATED, CONTENTS, FOLDER, HIERARCHY, Database, nid_of, node_entry
from mailkeep.export.pst.spool import Spool
from mailkeep.export.pst.tables import ASSOCIATED as ASSOCIATED_COLUMNS
from mailkeep.export.pst.tables import CONTENTS as CONTENTS_COLUMNS
from mailkeep.export.pst.tables import HIERARCHY as HIERARCHY_COLUMNS

# Indexes of the folders that every store has.
ROOT, TOP, SEARCH_ROOT, DELETED, COMMON_VIEWS = 0x09, 0x401, 0x402, 0x403, 0x404
_FIRST_INDEX: Final = 0x405
_INBOX: Final = "Inbox"
FULL_BLOCKS: Final = BLOCKS_MAX - 500
# Of a row in the index: 8, and as much again, since a leaf of it may leave the end of a block empty.
_INDEX_BYTES: Final = 18
_BLOCK_ROOM: Final = 8000  # bytes of a block for strings, at the least
# Folder, from where to where; messages, unread, blocks and filled of the folder after it
_STRETCH: Final = struct.Struct("<IQQIIII")
_CELL: Final = struct.Struct("<HI")  # of variable length, in the spool: where in the row, how long

SEARCH_FOLDER_NID: Final = 0x2223
CONTAINER_CLASS: Final = 0x3613001F
MESSAGE_COUNT: Final = 0x36020003
UNREAD_COUNT: Final = 0x36030003
HAS_SUBFOLDERS: Final = 0x360A000B
ITEM_ID: Final = 0x0E300102
CHANGE_NUMBER: Final = 0x0E330014
REPLICA: Final = 0x0E340102
CONVERSATION_ID: Final = 0x30130102
SEARCH_FOLDER_PROPERTIES: Final[dict[int, Encoded]] = {
    mapi.DISPLAY_NAME: text("SPAM Search Folder 2"),
    MESSAGE_COUNT: 0,
    UNREAD_COUNT: 0,
    HAS_SUBFOLDERS: 0,
}


@dataclass(slots=True)
class Folder:
    """A folder. `blocks` and `filled` reckon how full the heap of its table will be."""

    index: int
    parent: int
    name: str
    path: str  # of names, from the top
    messages: int = 0
    unread: int = 0
    blocks: int = 0
    filled: int = 0
    stretches: list[tuple[int, int]] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)  # names of the folders in it, as Outlook compares them

    @property
    def nid(self) -> int:
        return nid_of(FOLDER, self.index)

    def extend(self, start: int, end: int) -> None:
        """A stretch more; one that goes on where the last ended is one with it, or each checkpoint would leave one."""
        if self.stretches and self.stretches[-1][1] == start:
            start, _ = self.stretches.pop()
        self.stretches.append((start, end))


class Identity:
    """What makes this store another than all others: ids of its own, and counters that never give a number twice."""

    def __init__(self, key: bytes, version: int) -> None:
        self.key = key  # 16 bytes
        self.version = version
        self.replica = b"\1\0\0\0" + key + b"\1\0\0\0"

    def entry_id(self, nid: int) -> bytes:
        """Section 2.4.3.2."""
        return bytes(4) + self.key + nid.to_bytes(4, "little")

    def item_id(self, nid: int) -> bytes:
        """16 bytes for an item. In the order of node ids, so that the map of them needs no sorting."""
        return nid.to_bytes(4, "big") + self.key[4:]

    def version_of(self, nid: int) -> dict[int, Encoded]:
        """The cells that every row has."""
        self.version += 1
        return {ROW_ID: nid, ROW_VERSION: self.version}

    def stamp(self, nid: int) -> dict[int, Encoded]:
        """The cells by which a row of a folder's tables is told from all others; a new version each time."""
        return self.version_of(nid) | {
            ITEM_ID: self.item_id(nid),
            CHANGE_NUMBER: self.version.to_bytes(8, "little"),
            REPLICA: self.replica,
        }


class Folders:
    """The folders of a store. The spools hold what was before: `made` the folders, `held` their stretches of `rows`."""

    def __init__(
        self, made: Spool, held: Spool, rows: Spool, *, special_use: Mapping[tuple[str, ...], frozenset[str]]
    ) -> None:
        self._made, self._held, self._rows = made, held, rows
        self._special_use = special_use
        self._by_path: dict[tuple[str, ...], int] = {(): TOP}
        self.folders = {
            ROOT: Folder(ROOT, ROOT, "", ""),
            TOP: Folder(TOP, ROOT, "Top of Outlook data file", ""),
            SEARCH_ROOT: Folder(SEARCH_ROOT, ROOT, "Search Root", ""),
            DELETED: Folder(DELETED, TOP, "", ""),
            COMMON_VIEWS: Folder(COMMON_VIEWS, ROOT, "IPM_COMMON_VIEWS", ""),
        }
        self.roles: dict[str, int] = {}
        self._current: Folder | None = None
        self._start = rows.size  # of the present stretch
        self.highest_index = _FIRST_INDEX - 1
        for record in made.framed(0, made.size):
            index, parent, name, path, role = json.loads(record)
            self._put(index, parent, name, tuple(path), role)
        for record in held.records(_STRETCH.size):
            index, start, end, *numbers = _STRETCH.unpack(record)
            folder = self.folders[index]
            folder.extend(start, end)
            folder.messages, folder.unread, folder.blocks, folder.filled = numbers

    # --- the tree ----------------------------------------------------------------------------------------------------

    def enter(self, path: tuple[str, ...], special_use: frozenset[str]) -> None:
        """What follows goes to this folder, which is made if need be, with all above it."""
        self.settle()
        for depth in range(1, len(path) + 1):
            if path[:depth] not in self._by_path:
                self._make(path[:depth], special_use if depth == len(path) else frozenset())
        self._current = self.folders[self._by_path[path]]

    def _make(self, path: tuple[str, ...], special_use: frozenset[str]) -> None:
        parent = self.folders[self._by_path[path[:-1]]]
        name, role, index = _shown(path), "", self.highest_index + 1
        top = len(path) == 1
        special_use |= self._special_use.get(path, frozenset())
        if name == _INBOX and top:
            role = "inbox"
        elif "\\Sent" in special_use:
            role = "sent"
        elif top and ("\\Trash" in special_use or name.casefold() == "deleted items"):
            # Outlook's own Deleted Items, under the name that the user knows.
            role = "deleted"
            index = index if role in self.roles else DELETED
        self._record(index, parent, _free_name(name, parent.taken), path, "" if role in self.roles else role)

    def _record(self, index: int, parent: Folder, name: str, path: tuple[str, ...], role: str) -> None:
        self._made.add_framed(json.dumps([index, parent.index, name, path, role]).encode())
        self._put(index, parent.index, name, path, role)

    def _put(self, index: int, parent: int, name: str, path: tuple[str, ...], role: str) -> None:
        above = self.folders[parent]
        self.folders[index] = Folder(index, parent, name, f"{above.path}/{name}".lstrip("/"))
        self.highest_index = max(self.highest_index, index)
        above.taken.add(name.casefold())
        self._by_path[path] = index
        if role:
            self.roles[role] = index

    # --- what is in a folder -----------------------------------------------------------------------------------------

    @property
    def current(self) -> Folder:
        """Where the next message goes."""
        assert self._current is not None, "a message without a folder"
        return self._current

    def add(self, identity: Identity, nid: int, values: Mapping[int, Encoded]) -> None:
        """A message of the present folder, with its properties as they were stored."""
        cells = {
            tag: value
            for tag, value in values.items()
            if tag in CONTENTS_COLUMNS.tags and (value != b"" or tag in EMPTY_ALLOWED)
        }
        index = values.get(mapi.CONVERSATION_INDEX)
        if isinstance(index, bytes) and len(index) >= 22:
            cells[CONVERSATION_ID] = index[6:22]
        else:
            topic = values.get(mapi.CONVERSATION_TOPIC)
            cells[CONVERSATION_ID] = mapi.conversation_id(topic.decode("utf-16-le") if isinstance(topic, bytes) else "")
        row, variable = CONTENTS_COLUMNS.row(cells | identity.stamp(nid))
        parts = [bytes(row)]
        for offset, value in variable:
            parts += [_CELL.pack(offset, len(value)), value]
        record = b"".join(parts)
        folder = self.current
        folder.messages += 1
        folder.unread += not int(values[mapi.MESSAGE_FLAGS]) & mapi.FLAG_READ
        self._rows.add_framed(record)
        _reckon(folder, _INDEX_BYTES + sum([len(value) + 2 for _, value in variable]))
        if folder.blocks >= FULL_BLOCKS:
            self._overflow()

    def _overflow(self) -> None:
        """Go on in a new folder beside the full one, under the same path."""
        full = self.current
        self.settle()
        (path,) = [path for path, index in self._by_path.items() if index == full.index]
        parent = self.folders[full.parent]
        self._record(self.highest_index + 1, parent, _free_name(_shown(path), parent.taken), path, "")
        self._current = self.folders[self._by_path[path]]

    def settle(self) -> None:
        """Note the present folder's stretch of rows, so that the spools say all."""
        start, self._start = self._start, self._rows.size
        folder = self._current
        if folder is not None and self._start > start:
            folder.extend(start, self._start)
            numbers = folder.messages, folder.unread, folder.blocks, folder.filled
            self._held.add(_STRETCH.pack(folder.index, start, self._start, *numbers))

    # --- the end -----------------------------------------------------------------------------------------------------

    def write(self, database: Database, identity: Identity) -> list[bytes]:
        """Write all folders; returns their nodes."""
        self.settle()
        deleted = self.folders[DELETED]
        if not deleted.name:
            deleted.name = _free_name("Deleted Items", self.folders[TOP].taken)
        for folder in self.folders.values():
            if folder.index != ROOT:
                self.folders[folder.parent].children.append(folder.index)
        nodes = []
        for folder in sorted(self.folders.values(), key=lambda folder: folder.index):
            nodes += self._write_folder(database, identity, folder)
        return nodes

    def nids_with_ids(self) -> list[int]:
        """Folders whose rows have ids, in their order."""
        return sorted(folder.nid for folder in self.folders.values() if folder.parent != ROOT)

    def _write_folder(self, database: Database, identity: Identity, folder: Folder) -> list[bytes]:
        node = write_properties(database, self._properties(folder))
        nodes = [node_entry(folder.nid, node.data, node.subnodes, parent=self.folders[folder.parent].nid)]
        rows: list[dict[int, Encoded]] = []
        for index in sorted(folder.children):
            child = self.folders[index]
            # The root's own table has rows without ids.
            stamp = identity.version_of(child.nid) if folder.index == ROOT else identity.stamp(child.nid)
            rows.append(self._properties(child) | stamp)
        if folder.index == ROOT:
            rows.insert(0, SEARCH_FOLDER_PROPERTIES | identity.version_of(SEARCH_FOLDER_NID))
        contents = Table(database, CONTENTS_COLUMNS)
        for row, variable in self._messages(folder):
            contents.add(row, variable)
        for kind, table in (
            (HIERARCHY, write_table(database, HIERARCHY_COLUMNS, rows)),
            (CONTENTS, contents.finish()),
            (ASSOCIATED, write_table(database, ASSOCIATED_COLUMNS)),
        ):
            nodes.append(node_entry(nid_of(kind, folder.index), table.data, table.subnodes))
        return nodes

    def _messages(self, folder: Folder) -> Iterator[tuple[bytearray, list[tuple[int, bytes]]]]:
        width = CONTENTS_COLUMNS.row_size
        for start, end in folder.stretches:
            for record in self._rows.framed(start, end):
                variable = []
                at = width
                while at < len(record):
                    offset, size = _CELL.unpack_from(record, at)
                    at += _CELL.size
                    variable.append((offset, record[at : at + size]))
                    at += size
                yield bytearray(record[:width]), variable

    def _properties(self, folder: Folder) -> dict[int, Encoded]:
        values: dict[int, Encoded] = {
            mapi.DISPLAY_NAME: text(folder.name),
            MESSAGE_COUNT: folder.messages,
            UNREAD_COUNT: folder.unread,
            HAS_SUBFOLDERS: int(bool(folder.children)),
        }
        if folder.index >= _FIRST_INDEX or folder.index == DELETED:
            values[CONTAINER_CLASS] = text("IPF.Note")
        return values


def _reckon(folder: Folder, size: int) -> None:
    """Count a row's strings as if they were not divided between blocks, which they are when that saves room."""
    if folder.filled + size > _BLOCK_ROOM:
        folder.blocks += 1 + size // (_BLOCK_ROOM // 2)
        folder.filled = 0
    folder.filled += min(size, _BLOCK_ROOM)


def _shown(path: tuple[str, ...]) -> str:
    """What a folder is called: as it is, but for INBOX, which is a word of a protocol."""
    return _INBOX if len(path) == 1 and path[0].upper() == "INBOX" else path[-1]


# What no name may have: controls, and what would turn the text of others around.
_UNNAMEABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def _free_name(name: str, taken: set[str]) -> str:
    """A name that Outlook tells from those that are taken: it takes upper and lower case as equal."""
    name = mapi.cut(_UNNAMEABLE.sub("", mapi.clean(name)).strip() or "(no name)", mapi.NAME_MAX - 10)
    free, number = name, 1
    while free.casefold() in taken:
        number += 1
        free = f"{name} ({number})"
    return free
