"""A message as nodes (sections 2.4.5 and 2.4.6): its properties, and below them recipients and attachments.

Knows which properties a PST wants beside those of the item, and the sizes that it computes itself. Knows no folder: the
row that stands for a message in its folder is made from what `write_message` returns.

**The one hard idea** is the sizes. A message states how many bytes all its nodes hold, an attachment how many all its
values, an embedded message its own again where it is referred to; Outlook's repair tool adds them up. So all is written
from the inside out, and each layer gives its size to the next.
"""

import struct
from typing import Final

from mailkeep.export import mapi
from mailkeep.export.pst.ltp import (
    ROW_ID,
    ROW_VERSION,
    Encoded,
    Node,
    encode,
    stored_size,
    text,
    write_properties,
    write_table,
)
from mailkeep.export.pst.named import Names
from mailkeep.export.pst.ndb import ATTACHMENT, Database
from mailkeep.export.pst.tables import ATTACHMENTS, RECIPIENTS

ATTACHMENTS_NODE: Final = 0x671
RECIPIENTS_NODE: Final = 0x692
# A list of a folder shows them and a cell of a table has 3,580 bytes; the recipients themselves are all kept.
_DISPLAY_UNITS: Final = 1789
_DISPLAYED: Final = (mapi.DISPLAY_TO, mapi.DISPLAY_CC, mapi.DISPLAY_BCC)
_SHORT: Final = (
    mapi.MESSAGE_CLASS,
    mapi.REPRESENTING_NAME,
    mapi.SENDER_NAME,
    mapi.CONVERSATION_TOPIC,
    mapi.NORMALIZED_SUBJECT,
)
# Columns of a folder's list where a text may be there and be empty; elsewhere an empty one is not there.
EMPTY_ALLOWED: Final = frozenset((mapi.SUBJECT, mapi.REPRESENTING_NAME, mapi.CONVERSATION_TOPIC))
# What Outlook's repair tool asks of every message.
_REQUIRED: Final[dict[int, mapi.Value]] = {
    mapi.MESSAGE_CLASS: "IPM.Note",
    mapi.MESSAGE_FLAGS: mapi.FLAG_READ,
    mapi.MESSAGE_STATUS: 0,
    mapi.SUBJECT: "",
}
_NO_TIME: Final = mapi.filetime(0)


def write_message(database: Database, names: Names, item: mapi.Item) -> tuple[Node, dict[int, Encoded]]:
    """Write all of a message; returns its node and its properties as they were stored, MESSAGE_SIZE among them.

    Messages that are embedded are written the same way; how deep they go, whoever made the item has bounded.
    """
    subnodes: list[tuple[int, int, int]] = []
    recipients = write_table(database, RECIPIENTS, _recipients(item))
    subnodes.append((RECIPIENTS_NODE, recipients.data, recipients.subnodes))
    below = recipients.size
    rows: list[dict[int, Encoded]] = []
    for number, attached in enumerate(item.attachments):
        nid = database.subnode_nid(ATTACHMENT)
        node, row = _attachment(database, names, attached, number=number)
        row |= {ROW_ID: nid, ROW_VERSION: number + 1}
        rows.append(row)
        subnodes.append((nid, node.data, node.subnodes))
        below += node.size
    if rows:
        table = write_table(database, ATTACHMENTS, rows)
        subnodes.append((ATTACHMENTS_NODE, table.data, table.subnodes))
        below += table.size
    values = _properties(names, item, has_attachments=bool(rows))
    node = write_properties(database, values, subnodes=subnodes, below=below, size_tag=mapi.MESSAGE_SIZE)
    return node, values


def _properties(names: Names, item: mapi.Item, *, has_attachments: bool) -> dict[int, Encoded]:
    raw = _REQUIRED | item.properties
    for tag in _DISPLAYED:
        if tag in raw:
            raw[tag] = mapi.cut(str(raw[tag]), _DISPLAY_UNITS)
            if not raw[tag]:
                del raw[tag]  # as Outlook's repair tool does
    for tag in _SHORT:
        if tag in raw:
            raw[tag] = mapi.cut(str(raw[tag]))
    raw[mapi.SUBJECT] = _subject(str(raw[mapi.SUBJECT]), raw.get(mapi.SUBJECT_PREFIX))
    flags = mapi.number_of(raw, mapi.MESSAGE_FLAGS) & ~mapi.FLAG_HAS_ATTACHMENTS
    raw[mapi.MESSAGE_FLAGS] = flags | (mapi.FLAG_HAS_ATTACHMENTS if has_attachments else 0)
    created = raw.get(mapi.DELIVERY_TIME) or raw.get(mapi.CLIENT_SUBMIT_TIME) or _NO_TIME
    raw.setdefault(mapi.CREATION_TIME, created)
    raw.setdefault(mapi.LAST_MODIFICATION_TIME, created)
    raw.setdefault(mapi.SEARCH_KEY, mapi.conversation_id(f"{created!r} {raw[mapi.SUBJECT]!r}"))
    values = encode(raw)
    for named, value in item.named.items():
        tag_ = names.tag(named)
        if tag_ is not None:
            values |= encode({tag_: value})
    return values


def _subject(subject: str, prefix: object) -> str:
    """Section 2.5.3: the length of the prefix goes before the subject, in two characters."""
    subject = mapi.cut(mapi.clean(subject))
    if not isinstance(prefix, str) or not subject.startswith(prefix):
        prefix = mapi.split_subject(subject)[0]
    return f"\x01{chr(len(prefix) + 1)}{subject}"


def _recipients(item: mapi.Item) -> list[dict[int, Encoded]]:
    rows = []
    for number, recipient in enumerate(item.recipients, 1):
        row = encode(recipient)
        for tag in (mapi.DISPLAY_NAME, mapi.ADDRESS_BOOK_NAME, mapi.EMAIL_ADDRESS, mapi.SMTP_ADDRESS):
            value = row.get(tag)
            if isinstance(value, bytes) and len(value) > 2 * mapi.NAME_MAX:
                row[tag] = text(mapi.cut(str(recipient[tag])))
        # Outlook asks for both: a key of the row, and what kind of thing the row is.
        row.setdefault(mapi.RECORD_KEY, row.get(mapi.ENTRY_ID, b""))
        row.setdefault(mapi.OBJECT_TYPE, mapi.OBJECT_MAIL_USER)
        row |= {ROW_ID: number, ROW_VERSION: number}
        rows.append(row)
    return rows


def _attachment(
    database: Database, names: Names, attached: mapi.Attached, *, number: int
) -> tuple[Node, dict[int, Encoded]]:
    """Write an attachment; returns its node and the cells of its row."""
    values = encode(attached.properties)
    values.setdefault(mapi.RENDERING_POSITION, 0xFFFFFFFF)
    values |= {mapi.ATTACH_NUMBER: number, mapi.ATTACH_SIZE: 0}
    subnodes: list[tuple[int, int, int]] = []
    below = inside = 0
    if attached.item is None:
        values.setdefault(mapi.ATTACH_METHOD, mapi.BY_VALUE)
        values[mapi.ATTACH_DATA] = attached.data or b""
    else:
        node, _ = write_message(database, names, attached.item)
        nid = database.message_nid()
        subnodes.append((nid, node.data, node.subnodes))
        below = inside = node.size
        values[mapi.ATTACH_METHOD] = mapi.EMBEDDED_MESSAGE
        values[mapi.ATTACH_OBJECT] = struct.pack("<II", nid, min(node.size, 0x7FFFFFFF))
    size = inside + sum([stored_size(tag, value) for tag, value in values.items()])
    values[mapi.ATTACH_SIZE] = min(size, 0x7FFFFFFF)
    node = write_properties(database, values, subnodes=subnodes, below=below)
    return node, {tag: value for tag, value in values.items() if tag in ATTACHMENTS.tags}
