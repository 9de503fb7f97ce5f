"""The index of an HTML export: rows, orders, conversations and words, as script files that `data/site.js` loads.

Knows what a page needs to list, sort, group and search a million messages that it has never seen; nothing of messages
themselves: it is told of each in a Row. A page from a disk may not read files, but may load scripts, so each piece of
data is a script that calls `mailkeep(name, data)`, small enough to be loaded when it is wanted.

The hard idea is to need no memory that grows: rows go to a log as they come, and all else is made of the log at the
end, sorted by SQLite and merged from runs. What is kept per message in memory then is two numbers of four bytes. Making
the index changes neither the log nor the pages, so it may be killed and done again.
"""

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import apsw
import msgspec

from mailkeep.errors import CannotWrite
from mailkeep.export.files import Files
from mailkeep.export.html_words import WordIndex
from mailkeep.mail.thread import Entry, conversations, flatten

CHUNK: Final = 128  # rows in a script
CHUNKS_IN_FOLDER: Final = 500
MESSAGES_MAX: Final = 1 << 24  # numbers of four digits to the base of 64
GROUP_MAX: Final = 20_000  # messages that are threaded together; what has more is cut
SEEN, FLAGGED, ANSWERED, DRAFT, FORWARDED = 1, 2, 4, 8, 16
ORDERS: Final = {
    "date": "date, id",
    "from": "sender, date, id",
    "subject": "subject, date, id",
    "size": "size, id",
}

_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_PAIRS: Final = tuple(a + b for a in _DIGITS for b in _DIGITS)
_DEPTH_MAX: Final = 31  # levels that are told apart


class Shown(msgspec.Struct, array_like=True, frozen=True):
    """What a list shows of a message. The order is known to `data/site.js`."""

    file: str  # below the folder's directory, without ".html"
    subject: str
    sender: str
    address: str
    to: str
    date: int  # seconds since 1970
    size: int  # bytes
    flags: int
    attachments: int
    preview: str


class Row(msgspec.Struct, array_like=True, frozen=True):
    """All that the index knows of a message."""

    folder: int
    shown: Shown
    by_sender: str  # what it is sorted by
    by_subject: str  # the base subject, folded
    reply: bool
    own: int | None  # its Message-ID and those that it refers to, hashed
    references: tuple[int, ...]
    words: str  # with spaces between


@contextmanager
def sorting() -> Iterator[None]:
    """Within it, what SQLite cannot do is a CannotWrite: its files are our own, so it is the disk."""
    try:
        yield
    except apsw.Error as error:
        raise CannotWrite(f"the index could not be sorted: {error}") from error


def hashed(text: str) -> int:
    """A number of 64 bits for an id or a subject."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big", signed=True)


class Index:
    """Makes the index of the rows of a log below `files`; `scratch` is an empty directory."""

    def __init__(self, log: Path, files: Files, scratch: Path) -> None:
        self._files = files
        self._scratch = scratch
        self._log = log.open("rb")
        self._db = apsw.Connection(str(scratch / "sort.db"))
        self._db.execute(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA temp_store=FILE;"
            "CREATE TABLE message(id INTEGER PRIMARY KEY, folder, date, size, sender, subject, at, thread);"
            "CREATE TABLE share(hash INTEGER, reply INTEGER, id INTEGER);"
            "CREATE TABLE grouped(root INTEGER, id INTEGER);"
        ).fetchall()  # a statement runs when the rows of those before were taken
        self._words = WordIndex(scratch)
        self.count = 0
        self.first_words: list[str] = []

    def close(self) -> None:
        self._log.close()
        self._db.close()

    def build(self) -> None:
        """Write all scripts but the list of folders."""
        self._db.execute("BEGIN")
        for number, batch in enumerate(_batched(read_log(self._log), CHUNK)):
            self._take(number, batch)
        self._db.execute("COMMIT")
        for number, (first, data) in enumerate(self._words.shards()):
            self.first_words.append(first)
            self._put(f"words/{number // CHUNKS_IN_FOLDER}/{number}", f"w{number}", data)
        for name, terms in ORDERS.items():
            ids = (row[0] for row in self._db.execute(f"SELECT id FROM message ORDER BY {terms}"))
            self._put_text(f"order-{name}", (_number(number) for number in ids))
        self._put_text("threads", self._threads())

    def newest_first(self) -> Iterator[tuple[int, Iterator[Shown]]]:
        """Each folder's number with its rows, by falling date."""
        found = self._db.execute("SELECT folder, at FROM message ORDER BY folder, date DESC, id DESC")
        for folder, rows in groupby(found, key=itemgetter(0)):
            yield folder, (self._at(at).shown for _, at in rows)

    def _at(self, at: int) -> Row:
        self._log.seek(at)
        return _decode(self._log.readline())

    def _take(self, number: int, batch: list[tuple[int, Row]]) -> None:
        base = self.count
        shown = [row.shown for _, row in batch]
        self._put(f"rows/{number // CHUNKS_IN_FOLDER}/{number}", f"r{number}", msgspec.json.encode(shown))
        self.count += len(batch)
        messages, shares = [], []
        for which, (at, row) in enumerate(batch, base):
            self._words.add(which, row.words.split())
            subject = hashed("s" + row.by_subject) if row.by_subject else 0
            thread = _thread_encode((row.own, row.references, subject, row.reply))
            part = row.shown
            messages.append((which, row.folder, part.date, part.size, row.by_sender, row.by_subject, at, thread))
            ids = {*row.references, row.own} - {None}
            shares += [(each, 1, which) for each in ids]
            if subject:
                shares.append((subject, int(row.reply), which))
        self._db.executemany("INSERT INTO message VALUES(?,?,?,?,?,?,?,?)", messages)
        self._db.executemany("INSERT INTO share VALUES(?,?,?)", shares)

    # ---- conversations

    def _threads(self) -> Iterator[str]:
        """Conversations of two and more: each message as its depth (32 added to a first one) and its number."""
        roots = self._groups()
        self._db.execute("BEGIN")
        members = ((root, number) for number, root in enumerate(roots))
        sizes = array("I", bytes(4 * len(roots)))
        for root in roots:
            sizes[root] += 1
        self._db.executemany("INSERT INTO grouped VALUES(?,?)", (pair for pair in members if sizes[pair[0]] > 1))
        self._db.execute("COMMIT")
        found = self._db.execute(
            "SELECT root, g.id, date, thread FROM grouped g JOIN message m ON m.id = g.id ORDER BY root, g.id"
        )
        for _, rows in groupby(found, key=itemgetter(0)):
            for group in _batched(rows, GROUP_MAX):
                yield from _conversations(group)

    def _groups(self) -> "array[int]":
        """For each message one of those that it shares ids or a subject with, the same for all of them."""
        parent = array("I", range(self.count))

        def root(number: int) -> int:
            while parent[number] != number:
                parent[number] = parent[parent[number]]
                number = parent[number]
            return number

        found = self._db.execute("SELECT hash, reply, id FROM share ORDER BY hash, reply DESC, id")
        for _, rows in groupby(found, key=itemgetter(0)):
            first: int | None = None
            for _, reply, number in rows:
                if first is None:
                    if not reply:
                        break  # one subject, but nobody answers
                    first = root(number)
                else:
                    other = root(number)
                    first, other = min(first, other), max(first, other)
                    parent[other] = first
        for number in range(self.count):
            parent[number] = root(number)
        return parent

    # ---- scripts

    def _put(self, relative: str, name: str, data: bytes) -> None:
        self._files.put(f"index/{relative}.js", script(name, data))

    def _put_text(self, name: str, pieces: Iterable[str]) -> None:
        """A script whose data is one long text of digits."""
        with self._files.open(f"index/{name}.js") as file:
            file.write(f'mailkeep("{name}","'.encode())
            for batch in _batched(pieces, 4096):
                file.write("".join(batch).encode())
            file.write(b'");\n')


def script(name: str, data: bytes) -> bytes:
    """The script that hands over JSON data. Nothing in it ends a script element or a line, wherever it may be put."""
    data = data.replace(b"<", b"\\u003c").replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return b'mailkeep("' + name.encode() + b'",' + data + b");\n"


T = TypeVar("T")

_decode = msgspec.json.Decoder(Row).decode
_Thread = tuple[int | None, tuple[int, ...], int, bool]
_thread_encode = msgspec.json.Encoder().encode
_thread_decode = msgspec.json.Decoder(_Thread).decode


def read_log(log: BinaryIO) -> Iterator[tuple[int, Row]]:
    """Each row with its place in the log."""
    log.seek(0)
    at = 0
    for line in log:
        yield at, _decode(line)
        at += len(line)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _number(number: int) -> str:
    return _PAIRS[number >> 12] + _PAIRS[number & 4095]


def _conversations(group: list[Any]) -> Iterator[str]:
    """The group's rows are (root, id, date, thread)."""
    entries = []
    for _, _, date, thread in group:
        own, references, subject, reply = _thread_decode(thread)
        entries.append(Entry(own, references, subject, reply, date))
    for root in conversations(entries, only_replies=True):
        members = list(flatten(root))
        if len(members) == 1:
            continue
        for place, (entry, depth) in enumerate(members):
            yield _DIGITS[min(depth, _DEPTH_MAX) + (0 if place else 32)] + _number(group[entry][1])
