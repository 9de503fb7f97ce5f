"""Writes a PST as the exporter asks for it: folder by folder, with checkpoints from which a later process goes on.

Knows the order of things: what is written at once (messages), what waits in spools beside the file (rows, nodes,
blocks), and what is made of it at the end. The layers below know how.

**The one hard idea** is that a checkpoint is a set of lengths. Every file here only grows, so the state is how long
each was, and a few counters; to take it up again is to cut each to its length. What is made at the end is made anew.
"""

import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mailkeep.errors import CannotWrite
from mailkeep.export.pst import pages
from mailkeep.export.pst.folders import Folders, Identity
from mailkeep.export.pst.messages import write_message
from mailkeep.export.pst.named import Names
from mailkeep.export.pst.ndb import Database, node_entry
from mailkeep.export.pst.spool import Spool
from mailkeep.export.pst.store import write_store
from mailkeep.export.to_mapi import item_of
from mailkeep.export.writer import Folder, Message, Options, Written
from mailkeep.mail.letter import letter_of

_SPOOLS: Final = ("rows", "folders", "held", "names")
# What the map of ids has room for; 50 GB of the smallest mail are fewer.
MESSAGES_MAX: Final = 20_000_000


class PstWriter:
    """A PST in the making, as `export.writer.Writer` has it."""

    def __init__(self, place: Path, options: Options, state: bytes | None) -> None:
        known = json.loads(state) if state else {}
        lengths = known.get("spools", {})
        self._options = options
        self._database = Database(place, known.get("database", {}))
        self._spools = {name: Spool(place.with_name(f"{place.name}.{name}"), lengths.get(name, 0)) for name in _SPOOLS}
        # Two stores of one identity cannot be open in Outlook at once, so it is never that of an account or a title.
        key = bytes.fromhex(known["key"]) if known else uuid.uuid4().bytes_le
        self._identity = Identity(key, known.get("version", 0))
        self._names = Names(self._spools["names"])
        self._folders = Folders(
            self._spools["folders"],
            self._spools["held"],
            self._spools["rows"],
            special_use={folder.path: folder.special_use for folder in options.folders},
        )

    @property
    def size(self) -> int:
        """With what the end will add: about as much as waits for it."""
        return self._database.end + self._database.waiting + self._spools["rows"].size

    def folder(self, folder: Folder) -> None:
        self._folders.enter(folder.path, folder.special_use)

    def write(self, messages: Sequence[Message]) -> list[Written]:
        return [self._write(message) for message in messages]

    def _write(self, message: Message) -> Written:
        if self._database.nodes.size >= 32 * MESSAGES_MAX:
            raise CannotWrite(f"a PST holds {MESSAGES_MAX} messages at most: use --split")
        item = item_of(message, letter_of(message.data))
        node, values = write_message(self._database, self._names, item)
        nid = self._database.message_nid()
        folder = self._folders.current
        self._database.nodes.add(node_entry(nid, node.data, node.subnodes, parent=folder.nid))
        self._folders.add(self._identity, nid, values)
        return Written(f"{folder.path}/{nid:x}")

    def checkpoint(self) -> bytes:
        self._folders.settle()
        for spool in self._spools.values():
            spool.sync()
        state = {
            "key": self._identity.key.hex(),
            "version": self._identity.version,
            "database": self._database.state(),
            "spools": {name: spool.size for name, spool in self._spools.items()},
        }
        return json.dumps(state).encode()

    def finish(self) -> None:
        """Makes the file whole. The spools stay: a run that is killed before its end is noted needs them again."""
        nodes = self._folders.write(self._database, self._identity)
        nodes += write_store(
            self._database,
            self._identity,
            folders=self._folders,
            names=self._names,
            title=self._options.title,
        )
        pages.close(self._database, nodes, folder_index=self._folders.highest_index, unique=self._identity.version + 1)
        self.abandon()

    def abandon(self) -> None:
        self._database.close()
        for spool in self._spools.values():
            spool.close()


def make(place: Path, options: Options, state: bytes | None) -> PstWriter:
    """A writer of the PST `place`; its spools lie beside. Raises CannotWrite."""
    return PstWriter(place, options, state)
