"""search.db: which emails hold which three characters, and their normalised texts, compressed.

Knows email ids and texts; knows nothing of mailboxes, queries or where bytes come from. Everything here can be thrown
away at any time: it is never synced, and a file that does not hold together is deleted and made again.

The hard idea is to answer needles of any length from trigrams. A needle of three characters or more is the AND of its
trigrams: candidates, to be verified (three characters exactly: an answer). A shorter one is a *prefix* of trigrams, a
range of the index's terms; so that a text's last characters begin trigrams too, each text ends in two PADs. Two
characters are a whole word in Chinese or Japanese: scanning for those would make search useless there.

The index holds all emails up to a *watermark* in the order of their ids. Ids only rise, so "is it indexed?" is one
comparison, and what lies above the watermark is for the caller to scan. The digest of the watermark's email is kept:
when mail.db was replaced by another (a repair, an older copy), that email is not there, and the index starts anew.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import apsw
import msgspec
import zstandard

from mailkeep import log

FORMAT: Final = 1
PAD: Final = "\x01"  # ends each text twice
_STRANGE: Final = "\ufffd"  # stands for characters that FTS5 cannot tell apart
TRIGRAMS_MAX: Final = 48  # of a long needle: more would only cost, the text is verified anyway
KEPT_MAX: Final = 4 << 20  # characters; a longer text is read again from the message when it must be verified

Where = Literal["head", "body"]

_log = log.get("search")

_SCRIPT = """
CREATE TABLE meta (id INTEGER PRIMARY KEY CHECK (id = 1), format INTEGER, boot TEXT, watermark INTEGER, digest BLOB);
CREATE VIRTUAL TABLE head USING fts5(t, content='', contentless_delete=1, detail=none,
                                     tokenize='trigram case_sensitive 1');
CREATE VIRTUAL TABLE body USING fts5(t, content='', contentless_delete=1, detail=none,
                                     tokenize='trigram case_sensitive 1');
CREATE TABLE kept (email INTEGER PRIMARY KEY, texts BLOB NOT NULL);
"""


class Texts(msgspec.Struct, frozen=True, array_like=True):
    """What one email is searched by. `fields`: lower-case name and decoded value of each header field."""

    headers: str  # normalised
    body: str  # normalised
    fields: list[tuple[str, str]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Texts)


@dataclass(frozen=True, slots=True)
class Entry:
    """One email to index; `texts` is None when its bytes cannot be read (it then holds no text)."""

    email: int
    sha256: bytes
    texts: Texts | None


def pack_texts(texts: Texts) -> bytes | None:
    """None when they are not to be kept: too long, or with halves of surrogate pairs (UTF-7 can hold such)."""
    if len(texts.headers) + len(texts.body) > KEPT_MAX:
        return None
    try:
        return zstandard.ZstdCompressor(level=3).compress(_encoder.encode(texts))
    except UnicodeEncodeError:
        return None


def unpack_texts(packed: bytes) -> Texts:
    """Raises Unreadable."""
    try:
        return _decoder.decode(zstandard.ZstdDecompressor().decompress(packed))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise Unreadable from error


# --- the file


@contextmanager
def attached(connection: apsw.Connection, directory: Path) -> Iterator[bool]:
    """search.db as schema `search` on a connection to mail.db. Yields False when there is no usable index.

    A shared lock keeps others from throwing the file away meanwhile: SQLite must never see a database unlinked
    under a neighbour that still writes to it.
    """
    with _locked(directory, fcntl.LOCK_SH) as held:
        if not held or not (directory / "search.db").exists() or (directory / "search.bad").exists():
            yield False
            return
        try:
            connection.execute("ATTACH ? AS search", (str(directory / "search.db"),))
            for where in ("head", "body"):
                connection.execute(
                    f"CREATE VIRTUAL TABLE temp.{where}_terms USING fts5vocab('search', '{where}', 'instance')"
                )
            usable = connection.execute("SELECT format FROM search.meta").get == FORMAT
        except apsw.Error:
            usable = False
        try:
            yield usable
        finally:
            # The connection is closed after the search; only a search that goes on without the index needs this.
            for statement in ("DROP TABLE temp.head_terms", "DROP TABLE temp.body_terms", "DETACH search"):
                with suppress(apsw.Error):
                    connection.execute(statement)


def discard(directory: Path) -> bool:
    """Throw the index away. False: somebody is using it now, so it stays."""
    with _locked(directory, fcntl.LOCK_EX) as held:
        if held:
            for name in ("search.db", "search.db-wal", "search.db-shm", "search.db-journal", "search.bad"):
                (directory / name).unlink(missing_ok=True)
        return held


class Unreadable(Exception):
    """Kept texts do not decode: the file is damaged."""


def distrust(directory: Path) -> None:
    """Mark the index as damaged or foreign: it is thrown away when next nobody uses it."""
    with suppress(OSError):
        (directory / "search.bad").touch()


class IndexWriter:
    """search.db open for adding; several processes may: the file's write lock orders them, the watermark tells who
    came late."""

    def __init__(self, db: apsw.Connection, directory: Path) -> None:
        self._db = db
        self._directory = directory

    def watermark(self) -> tuple[int, bytes]:
        """The last email indexed and its digest; (0, b"") when there is none."""
        row = self._db.execute("SELECT watermark, digest FROM meta").fetchone()
        return (row[0], row[1]) if row else (0, b"")

    def add(self, entries: Sequence[Entry], *, after: int) -> bool:
        """Index emails in order of id, the next after watermark `after`. False: nothing was added, since another
        process has been here or is at it now, or since the disk is full or the file damaged."""
        rows = [(entry, entry.texts, pack_texts(entry.texts)) for entry in entries if entry.texts is not None]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            with self._db_transaction():
                if self.watermark()[0] != after:
                    return False
                for entry, texts, packed in rows:
                    self._db.execute("INSERT INTO head(rowid, t) VALUES (?, ?)", (entry.email, _padded(texts.headers)))
                    self._db.execute("INSERT INTO body(rowid, t) VALUES (?, ?)", (entry.email, _padded(texts.body)))
                    if packed is not None:
                        self._db.execute("INSERT INTO kept VALUES (?, ?)", (entry.email, packed))
                self._db.execute("UPDATE meta SET watermark = ?, digest = ?", (entries[-1].email, entries[-1].sha256))
        except (apsw.BusyError, apsw.FullError, apsw.IOError):
            return False
        except apsw.Error as error:
            _log.warning("search index damaged", account=self._directory.name, error=str(error))
            distrust(self._directory)
            return False
        return True

    def remove(self, emails: Sequence[int], last: tuple[int, bytes]) -> None:
        """Forget emails whose rows were collected. `last`: the greatest email id at or below the watermark that is
        left, and its digest. When this is not done (killed, busy), the index is made anew: slow, never wrong."""
        self._db.execute("BEGIN IMMEDIATE")
        with self._db_transaction():
            for table, column in (("head", "rowid"), ("body", "rowid"), ("kept", "email")):
                self._db.executemany(f"DELETE FROM {table} WHERE {column} = ?", ((email,) for email in emails))
            self._db.execute("UPDATE meta SET watermark = ?, digest = ?", last)

    @contextmanager
    def _db_transaction(self) -> Iterator[None]:
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if not self._db.get_autocommit():
                self._db.execute("ROLLBACK")


@contextmanager
def writing(directory: Path) -> Iterator[IndexWriter | None]:
    """The index of an account's directory, made when missing, made anew when damaged. None: not to be had now."""
    with _locked(directory, fcntl.LOCK_SH) as held:
        db = _open(directory) if held else None
        if db is not None:
            try:
                yield IndexWriter(db, directory)
            finally:
                db.close()
            return
    if held and discard(directory):
        _log.warning("search index made anew", directory=directory.name)
        with _locked(directory, fcntl.LOCK_SH) as held:
            db = _open(directory) if held else None
            if db is not None:
                try:
                    yield IndexWriter(db, directory)
                finally:
                    db.close()
                return
    yield None


def _open(directory: Path) -> apsw.Connection | None:
    """The open file, or None when it is damaged or of another format."""
    path = directory / "search.db"
    if (directory / "search.bad").exists():
        return None
    try:
        db = apsw.Connection(str(path))
    except apsw.Error:
        return None
    try:
        db.set_busy_timeout(200)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        with db:
            if not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                db.execute(_SCRIPT)
                db.execute("INSERT INTO meta VALUES (1, ?, ?, 0, x'')", (FORMAT, _boot()))
        version, boot = next(iter(db.execute("SELECT format, boot FROM meta")))
        if version == FORMAT and (boot == _boot() or _survived(db)):
            return db
    except (apsw.Error, StopIteration):
        pass
    db.close()
    return None


def _survived(db: apsw.Connection) -> bool:
    """Whether the file holds together after the machine was started anew: nothing in it was ever synced."""
    if db.execute("PRAGMA quick_check(1)").get != "ok":
        return False
    for table in ("head", "body"):
        db.execute(f"INSERT INTO {table}({table}) VALUES ('integrity-check')")  # raises when damaged
    db.execute("UPDATE meta SET boot = ?", (_boot(),))
    return True


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return ""


@contextmanager
def _locked(directory: Path, mode: int) -> Iterator[bool]:
    try:
        descriptor = os.open(directory / "search.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


# --- needles


def _plain(text: str) -> str:
    """Characters that FTS5's trigrams would end at or merge, replaced: NUL, lone surrogates, U+FFFE and U+FFFF."""
    if text.isascii() and "\0" not in text:
        return text
    text = text.replace("\0", _STRANGE).replace("\ufffe", _STRANGE).replace("\uffff", _STRANGE)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join(_STRANGE if "\ud800" <= c <= "\udfff" else c for c in text)
    return text


def _padded(text: str) -> str:
    return _plain(text) + PAD + PAD


def decides(needle: str) -> bool:
    """Whether the index's answer for this normalised needle is the answer, not just candidates."""
    return 0 < len(needle) <= 3 and PAD not in needle and _STRANGE not in _plain(needle)


def collect_hits(connection: apsw.Connection, needle: str, *, where: Where, table: str) -> None:
    """Put the ids of emails that may hold a (non-empty, normalised) needle into temp.`table`(email)."""
    plain = _plain(needle)
    if len(plain) < 3:
        connection.execute(
            f"INSERT OR IGNORE INTO temp.{table} SELECT doc FROM temp.{where}_terms WHERE term >= ? AND term < ?",
            (plain, _after(plain)),
        )
        return
    trigrams = list(dict.fromkeys(plain[i : i + 3] for i in range(len(plain) - 2)))
    if len(trigrams) > TRIGRAMS_MAX:
        trigrams = [trigrams[i * len(trigrams) // TRIGRAMS_MAX] for i in range(TRIGRAMS_MAX)]
    match = " AND ".join('"' + trigram.replace('"', '""') + '"' for trigram in trigrams)
    connection.execute(
        f"INSERT OR IGNORE INTO temp.{table} SELECT rowid FROM search.{where} WHERE {where} MATCH ?", (match,)
    )


def _after(prefix: str) -> str:
    """The least text above all that begin with `prefix`. Terms compare by UTF-8 bytes, that is by code point."""
    last = ord(prefix[-1]) + 1
    if 0xD800 <= last <= 0xDFFF:
        last = 0xE000
    return prefix[:-1] + chr(last) if last <= 0x10FFFF else prefix + chr(0x10FFFF) * 3
