"""The map of named properties (section 2.4.7): which id below 0x10000 stands for which name in this file.

Knows names and ids; knows no values. An id is given when its name is first seen and is for good, so each name is
spooled at once. The number of names is limited: they take memory, and a message may bring any.
"""

import json
import struct
from typing import Final
from uuid import UUID

from mailkeep.export import mapi
from mailkeep.export.pst.crypt import crc
from mailkeep.export.pst.ltp import Encoded, Node, write_properties
from mailkeep.export.pst.ndb import Database
from mailkeep.export.pst.spool import Spool

NAMES_MAX: Final = 4096
_FIRST: Final = 0x8000
_BUCKETS: Final = 251
_KNOWN_SETS: Final = {mapi.PS_MAPI: 1, mapi.PS_PUBLIC_STRINGS: 2}
# At least one name, one number and one set of its own: some readers take an empty stream for a map that is missing.
_SEEDS: Final = (
    mapi.CATEGORIES,
    mapi.Named(mapi.PSETID_COMMON, 0x8503, mapi.BOOLEAN),  # whether there is a reminder
    mapi.CONTENT_TYPE_HEADER,
)


class Names:
    """The names of a file; `spool` holds those of earlier, and gets what comes."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._ids: dict[tuple[UUID, int | str], int] = {}
        for record in spool.framed(0, spool.size):
            group, name = json.loads(record)
            self._ids[UUID(group), name] = _FIRST + len(self._ids)
        for named in _SEEDS:
            self.tag(named)

    def tag(self, named: mapi.Named) -> int | None:
        """The tag of a named property in this file; None when there are too many names."""
        key = (named.guid, named.name)
        number = self._ids.get(key)
        if number is None:
            if len(self._ids) >= NAMES_MAX:
                return None
            number = self._ids[key] = _FIRST + len(self._ids)
            self._spool.add_framed(json.dumps([str(named.guid), named.name]).encode())
        return number << 16 | named.type

    def write(self, database: Database) -> Node:
        """Write the map: three streams of all sets, names and entries, and the entries again in buckets."""
        sets: dict[UUID, int] = {}
        entries, texts = [], bytearray()
        buckets: dict[int, list[bytes]] = {}
        for position, (group, name) in enumerate(self._ids):
            index = _KNOWN_SETS.get(group) or sets.setdefault(group, 3 + len(sets))
            if isinstance(name, int):
                first = hashed = name
            else:
                raw = name.encode("utf-16-le", "replace")
                first, hashed = len(texts), crc(raw)
                texts += struct.pack("<I", len(raw)) + raw + bytes(-len(raw) % 4)
            kind = index << 1 | isinstance(name, str)
            entries.append(struct.pack("<IHH", first, kind, position))
            buckets.setdefault((hashed ^ kind) % _BUCKETS, []).append(struct.pack("<IHH", hashed, kind, position))
        values: dict[int, Encoded] = {
            0x00010003: _BUCKETS,
            0x00020102: b"".join(group.bytes_le for group in sets),
            0x00030102: b"".join(entries),
            0x00040102: bytes(texts),
        }
        values |= {0x1000 + bucket << 16 | mapi.BINARY: b"".join(found) for bucket, found in buckets.items()}
        return write_properties(database, values)
