"""Which messages an export takes: chosen once, kept in a file, and the same however often the export is taken up.

Knows the account and the filters, nothing of formats. The file has eight bytes a message, so a million of them are no
memory. A record is a folder's number and a UID; UID 0 says that there is such a folder, and nothing in it.
"""

import struct
from array import array
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from mailkeep.export.files import Growing, writing
from mailkeep.export.writer import Folder
from mailkeep.mail.query import Query
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.mailboxes import GONE_ROOT, HIDDEN, Mailbox

RECORD: Final = struct.Struct("<II")
STEP: Final = 5000  # rows read at once
PIECE: Final = 8192  # records read at once
YEARS_OPEN_MAX: Final = 64  # more years than that in one account are somebody's joke: their files open and close


class Source(msgspec.Struct, frozen=True):
    """A mailbox that is exported."""

    mailbox: int
    name: str
    path: tuple[str, ...]
    special_use: tuple[str, ...]
    uidvalidity: int
    uidnext: int

    @property
    def folder(self) -> Folder:
        uses = frozenset(self.special_use)
        return Folder(self.name, self.path, uses, uidvalidity=self.uidvalidity, uidnext=self.uidnext)


class Section(msgspec.Struct, frozen=True):
    """A stretch of the list that becomes one output. `stop`: the number of the record after its last."""

    label: str  # the year; "" for all in one, or in as many as the size demands
    stop: int


class Listed(msgspec.Struct, frozen=True):
    """What was chosen."""

    sources: list[Source]
    sections: list[Section]
    messages: int
    bytes: int


class Cancelled(Exception):
    """The user wants to stop; there is no list."""


def year_of(internaldate: int) -> str:
    """The year of a date in Unix seconds, UTC."""
    try:
        return f"{datetime.fromtimestamp(internaldate, UTC).year:04}"
    except (ValueError, OverflowError, OSError):
        return "0000"


def choose(account: Account, selection: Selection) -> list[Mailbox]:
    """The mailboxes that the selection takes, INBOX first, and the hidden ones with what vanished at its source."""
    boxes = account.mailboxes(hidden=True)
    uses = {box.name: box.special_use for box in boxes}
    refused = Selection(not_folders=selection.not_folders)
    taken = []
    for box in boxes:
        if not box.hidden:
            if selection.takes_mailbox(box.name, box.special_use):
                taken.append(box)
            continue
        seen_as = box.name.removeprefix(GONE_ROOT + "/")
        if box.messages and refused.takes_mailbox(box.name) and selection.takes_mailbox(seen_as, uses.get(seen_as, ())):
            taken.append(box)
    return taken


def make_list(
    account: Account,
    selection: Selection,
    path: Path,
    *,
    into: tuple[str, ...] = (),
    by_year: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Listed:
    """Write the list to `path`. Raises Cancelled, CannotWrite, UsageError, StoreError."""
    boxes, tree = choose(account, selection), selection.query_tree()
    sources = [_source(box, into) for box in boxes]
    spools = _Spools(path, by_year)
    try:
        found = _fill(spools, _Choice(account, boxes, tree, stopped))
        return Listed(sources, spools.join(), *found)
    finally:
        spools.close()


def _source(box: Mailbox, into: tuple[str, ...]) -> Source:
    uses = tuple(use for use in box.special_use if use != HIDDEN)
    return Source(box.id, box.name, (*into, *box.name.split("/")), uses, box.uidvalidity, box.uidnext)


class _Choice(msgspec.Struct):
    account: Account
    boxes: list[Mailbox]
    tree: Query | None
    stopped: Callable[[], bool]

    def uids(self, box: Mailbox) -> "array[int]":
        if self.tree is None:
            return self.account.snapshot(box.id).uids
        found = self.account.search(box.id, self.tree, cancelled=self.stopped)
        if self.stopped():  # then it is not all of them
            raise Cancelled
        return found


def _fill(spools: "_Spools", choice: _Choice) -> tuple[int, int]:
    messages = size = 0
    for number, box in enumerate(choice.boxes):
        uids = choice.uids(box)
        messages += len(uids)
        if not uids and choice.tree is None:
            spools.empty(number)
        for start in range(0, len(uids), STEP):
            if choice.stopped():
                raise Cancelled
            some = uids[start : start + STEP]
            rows = choice.account.fetch(box.id, some, ("uid", "size", "internaldate"))
            size += sum(row[1] for row in rows)
            spools.add(number, some, {uid: date for uid, _, date in rows})
    return messages, size


class _Spools:
    """The list while it is written: one file, or one for each year, which are joined at the end."""

    def __init__(self, path: Path, by_year: bool) -> None:
        self._path = path
        self._by_year = by_year
        self._open: dict[str, Growing] = {}
        self._sizes: dict[str, int] = {}
        self._empty: list[int] = []

    def add(self, number: int, uids: "array[int]", dates: dict[int, int]) -> None:
        """Messages of a folder; what has no date any more is gone, and its records say so later."""
        if not self._by_year:
            self._file("").write(b"".join([RECORD.pack(number, uid) for uid in uids]))
            return
        for uid in uids:
            self._file(year_of(dates.get(uid, 0))).write(RECORD.pack(number, uid))

    def empty(self, number: int) -> None:
        """A folder without messages: in its place among the others or, by year, in the first year."""
        if self._by_year:
            self._empty.append(number)
        else:
            self._file("").write(RECORD.pack(number, 0))

    def _file(self, label: str) -> Growing:
        file = self._open.get(label)
        if file is None:
            if len(self._open) >= YEARS_OPEN_MAX:
                self.close()
            path = self._path.with_name(f"{self._path.name}.{label}") if label else self._path
            file = self._open[label] = Growing(path, self._sizes.get(label, 0))
        return file

    def join(self) -> list[Section]:
        """The finished, durable list, and what of it is which year."""
        if not self._by_year:
            whole = self._file("")
            whole.sync()
            return [Section("", whole.size // RECORD.size)]
        self.close()
        sections = []
        whole = Growing(self._path)
        try:
            for number in self._empty:
                whole.write(RECORD.pack(number, 0))
            for label in sorted(self._sizes):
                spool = self._path.with_name(f"{self._path.name}.{label}")
                with writing(spool):
                    with spool.open("rb") as file:
                        while chunk := file.read(1 << 20):
                            whole.write(chunk)
                    spool.unlink()
                sections.append(Section(label, whole.size // RECORD.size))
            whole.sync()
        finally:
            whole.close()
        if not sections:  # there are folders, but no message
            sections = [Section("0000", whole.size // RECORD.size)]
        return sections

    def close(self) -> None:
        for label, file in self._open.items():
            file.flush()
            self._sizes[label] = file.size
            file.close()
        self._open.clear()


def read_list(path: Path, start: int, stop: int) -> Iterator[list[tuple[int, int]]]:
    """Records `start` to `stop`, some thousands at a time: (folder number, UID)."""
    with path.open("rb") as file:
        file.seek(start * RECORD.size)
        while start < stop:
            chunk = file.read(min(PIECE, stop - start) * RECORD.size)
            if not chunk:
                return
            start += len(chunk) // RECORD.size
            yield list(RECORD.iter_unpack(chunk))
