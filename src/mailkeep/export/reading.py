"""Reads listed messages from the store, a batch at a time, for a writer.

Knows the account; decides how much lies in memory at once: a batch is at most 64 messages of one folder and 16 MiB,
more only for one big message. What cannot be read becomes a reason in the place of a message, and the rest goes on.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mailkeep.errors import MailkeepError
from mailkeep.export.listing import Source, read_list
from mailkeep.export.writer import Message
from mailkeep.store.account import Account

BATCH_MESSAGES: Final = 64
BATCH_BYTES: Final = 16 << 20
AHEAD: Final = 512  # rows read at once

_COLUMNS: Final = (
    "uid", "email", "size", "internaldate", "flags", "sha256", "pack", "offset", "length", "codec",
)  # fmt: skip
_GONE: Final = "the message is gone: it was expunged, and removed for good, after the export began"
_CHANGED: Final = "the stored bytes are not those that came in; run `mailkeep verify`"


@dataclass(frozen=True, slots=True)
class Read:
    """One record of the list. `message` is None when it could not be read; then `missing` says why."""

    position: int  # in the list, from 0
    uid: int
    message: Message | None = None
    sha256: bytes = b""
    missing: str = ""

    @property
    def size(self) -> int:
        return 0 if self.message is None else len(self.message.data)


@dataclass(frozen=True, slots=True)
class Batch:
    """Neighbours of the list, in one folder; none of them where the folder is empty. `stop`: the next position."""

    source: int  # number of the folder
    stop: int
    reads: tuple[Read, ...]


@dataclass(slots=True)
class Reader:
    """Reads an account's messages along a list."""

    account: Account
    sources: Sequence[Source]
    listing: Path

    def batches(self, start: int, stop: int, *, number: int) -> Iterator[Batch]:
        """The records from `start` to `stop`; `number` is that of the first message among them. Raises StoreError."""
        folders = [source.folder for source in self.sources]
        position = start
        for records in read_list(self.listing, start, stop):
            at = 0
            while at < len(records):
                source, uid = records[at]
                if uid == 0:
                    at, position = at + 1, position + 1
                    yield Batch(source, position, ())
                    continue
                end = at + 1
                while end < len(records) and end - at < AHEAD and records[end][0] == source and records[end][1]:
                    end += 1
                uids = [uid for _, uid in records[at:end]]
                for group in self._groups(source, uids):
                    reads = self._read(group, folders[source], position=position, number=number)
                    position += len(group)
                    number += len(group)
                    yield Batch(source, position, reads)
                at = end

    def _groups(self, source: int, uids: list[int]) -> Iterator[list[tuple[Any, ...]]]:
        """Rows for the UIDs, as many together as a batch may have; a row of the UID alone where there is none."""
        found = {row[0]: row for row in self.account.fetch(self.sources[source].mailbox, uids, _COLUMNS)}
        group: list[tuple[Any, ...]] = []
        size = 0
        for uid in uids:
            row = found.get(uid, (uid,))
            more = row[2] if len(row) > 1 else 0
            if group and (len(group) >= BATCH_MESSAGES or size + more > BATCH_BYTES):
                yield group
                group, size = [], 0
            group.append(row)
            size += more
        yield group

    def _read(self, rows: list[tuple[Any, ...]], folder: Any, *, position: int, number: int) -> tuple[Read, ...]:
        known = [row for row in rows if len(row) > 1]
        bodies = iter(self._bodies(known))
        reads = []
        for offset, row in enumerate(rows):
            if len(row) == 1:
                reads.append(Read(position + offset, row[0], missing=_GONE))
                continue
            uid, _, _, internaldate, flags, sha256, *_ = row
            data = next(bodies)
            if isinstance(data, MailkeepError):
                reads.append(Read(position + offset, uid, missing=data.text))
            elif hashlib.sha256(data).digest() != sha256:
                reads.append(Read(position + offset, uid, missing=_CHANGED))
            else:
                names = self.account.flagset(flags).flags
                message = Message(number + offset, folder, uid, names, internaldate, data)
                reads.append(Read(position + offset, uid, message, sha256))
        return tuple(reads)

    def _bodies(self, rows: list[tuple[Any, ...]]) -> Sequence[bytes | MailkeepError]:
        placed = self.account.read_placed([row[6:10] for row in rows]) if rows else []
        if placed is not None:
            return placed
        return self.account.read_many([(row[1], 0, None) for row in rows])
