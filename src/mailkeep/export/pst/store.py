"""The nodes that every PST has beside its folders: the store itself, templates, tables and queues (section 2.7).

Knows what Outlook expects to find in a store that it opens, some of which no document says. Knows no message.
"""

import heapq
from typing import Final

from mailkeep.export import mapi
from mailkeep.export.pst.folders import (
    COMMON_VIEWS,
    DELETED,
    ROOT,
    SEARCH_FOLDER_NID,
    SEARCH_FOLDER_PROPERTIES,
    SEARCH_ROOT,
    TOP,
    Folders,
    Identity,
)
from mailkeep.export.pst.heap import ID_MAP, Heap, Tree
from mailkeep.export.pst.ltp import ROW_ID, ROW_VERSION, Encoded, text, write_properties, write_table
from mailkeep.export.pst.named import Names
from mailkeep.export.pst.ndb import FOLDER, Database, nid_of, node_entry
from mailkeep.export.pst.tables import (
    ASSOCIATED,
    ATTACHMENTS,
    CONTENTS,
    HIERARCHY,
    OUTGOING_QUEUE,
    RECEIVE_FOLDERS,
    RECIPIENTS_TEMPLATE,
    SEARCH_CONTENTS,
    TEMPLATE_6B6,
    TEMPLATE_6D7,
    TEMPLATE_6F8,
)

STORE_NID: Final = 0x21
NAMES_NID: Final = 0x61
ID_MAP_NID: Final = 0xC01
_TEMPLATES: Final = {
    0x60D: HIERARCHY,
    0x60E: CONTENTS,
    0x60F: ASSOCIATED,
    0x610: SEARCH_CONTENTS,
    0x64C: OUTGOING_QUEUE,
    0x671: ATTACHMENTS,
    0x692: RECIPIENTS_TEMPLATE,
    0x6B6: TEMPLATE_6B6,
    0x6D7: TEMPLATE_6D7,
    0x6F8: TEMPLATE_6F8,
    0x2230: SEARCH_CONTENTS,  # of the search folder
}
# Queues without anything in them.
_EMPTY: Final = (0x1E1, 0x261, 0xE41, 0xEC1, 0xF21, 0x2226)
_ACTIVE_SEARCHES: Final = 0x201
_RECEIVE_FOLDERS: Final = 0x62B

_MESSAGE_CLASS: Final = 0x001A001F
_RECEIVES: Final = 0x66050003
_VALID_FOLDERS: Final = 0x35DF0003
_INBOX, _WASTEBASKET, _SENT = 0x35E10102, 0x35E30102, 0x35E40102
_SUBTREE, _COMMON_VIEWS, _FINDER = 0x35E00102, 0x35E60102, 0x35E70102
_ROLES: Final = {"inbox": (_INBOX, 2), "sent": (_SENT, 0x10)}


def write_store(database: Database, identity: Identity, *, folders: Folders, names: Names, title: str) -> list[bytes]:
    """Write all nodes but those of folders and messages; returns their entries."""
    nodes = [node_entry(nid, 0, 0) for nid in _EMPTY]
    for nid, layout in _TEMPLATES.items():
        table = write_table(database, layout)
        nodes.append(node_entry(nid, table.data, 0))
    nodes.append(node_entry(_ACTIVE_SEARCHES, database.block(SEARCH_FOLDER_NID.to_bytes(4, "little")), 0))
    search = write_properties(database, dict(SEARCH_FOLDER_PROPERTIES))
    nodes.append(node_entry(SEARCH_FOLDER_NID, search.data, 0, parent=nid_of(FOLDER, ROOT)))
    criteria = write_properties(database, {0x660B0003: 0})
    nodes.append(node_entry(SEARCH_FOLDER_NID + 4, criteria.data, 0))
    nodes.append(_receive_folders(database, identity, folders))
    nodes.append(_id_map(database, identity, folders))
    for nid, node in (
        (NAMES_NID, names.write(database)),
        (STORE_NID, write_properties(database, _properties(identity, folders, title))),
    ):
        nodes.append(node_entry(nid, node.data, node.subnodes))
    return nodes


def _properties(identity: Identity, folders: Folders, title: str) -> dict[int, Encoded]:
    def entry(index: int) -> bytes:
        return identity.entry_id(nid_of(FOLDER, index))

    valid = 0x1 | 0x8 | 0x40 | 0x80
    values: dict[int, Encoded] = {
        0x0E340102: identity.replica,
        0x0E380003: 0,
        mapi.RECORD_KEY: identity.key,
        mapi.DISPLAY_NAME: text(mapi.cut(title) or "Mail"),
        _SUBTREE: entry(TOP),
        _WASTEBASKET: entry(DELETED),
        _COMMON_VIEWS: entry(COMMON_VIEWS),
        _FINDER: entry(SEARCH_ROOT),
        0x6633000B: 1,
        0x66FA0003: 917521,
        0x66FC0003: 1618611,
        0x67FF0003: 0,  # checksum of the password: there is none
    }
    for role, (tag, bit) in _ROLES.items():
        index = folders.roles.get(role)
        if index is not None:
            values[tag] = entry(index)
            valid |= bit
    values[_VALID_FOLDERS] = valid
    return values


def _receive_folders(database: Database, identity: Identity, folders: Folders) -> bytes:
    """Where mail of each class goes that comes in: all of it to the inbox, or to the root as in a new store."""
    identity.version += 1
    row: dict[int, Encoded] = {
        ROW_ID: 1,
        ROW_VERSION: identity.version,
        _MESSAGE_CLASS: b"",
        _RECEIVES: nid_of(FOLDER, folders.roles.get("inbox", ROOT)),
    }
    table = write_table(database, RECEIVE_FOLDERS, [row])
    return node_entry(_RECEIVE_FOLDERS, table.data, table.subnodes)


def _id_map(database: Database, identity: Identity, folders: Folders) -> bytes:
    """From the ids of folders and messages, as rows have them, to their nodes."""
    heap = Heap(database, ID_MAP)
    root = heap.add(bytes(4))
    header = heap.add(bytes(8))
    heap.replace(root, header.to_bytes(4, "little"))
    tree = Tree(heap, 16, 4)
    messages = (int.from_bytes(node[:4], "little") for node in database.nodes.records(32))
    for nid in heapq.merge(folders.nids_with_ids(), messages):
        tree.add(identity.item_id(nid) + nid.to_bytes(4, "little"))
    heap.replace(header, tree.header())
    data, _ = heap.finish(root)
    return node_entry(ID_MAP_NID, data, 0)
