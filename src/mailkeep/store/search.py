"""Search: which messages of a mailbox match a query tree, exactly as a scan of all of them would say.

Knows rows, the index (search_index.py) and the plan (search_plan.py); the meaning of a query for one message is
`mail.query.matches`, and nothing here may ever answer otherwise than it would. An index that lags, is damaged or is
gone makes a search slower, never different.

A search runs in a thread with connections of its own. Rows are taken in batches, each in a read transaction of its
own, and one message's text is held at a time: a mailbox of a million messages needs no more memory than a small one,
and a long search does not keep SQLite's log from being trimmed.
"""

from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw

from mailkeep import log
from mailkeep.errors import MessageMissing, StoreCorrupt, StoreError
from mailkeep.mail.header import HEADER_MAX, decode_words, header_end, iter_fields
from mailkeep.mail.ids import MailboxId
from mailkeep.mail.query import Body, Header, Query, Text, matches
from mailkeep.mail.text import Searchable, normalise, searchable
from mailkeep.store import search_index
from mailkeep.store.blobs import RAW, PackReader, Place, decode
from mailkeep.store.failure import translated
from mailkeep.store.locks import using
from mailkeep.store.schema import UID_BITS, UID_MASK, connect, select, select_value
from mailkeep.store.search_index import Entry, Texts, Where
from mailkeep.store.search_plan import EVERY, HAS_ATTACHMENT, UNKNOWN, Bounds, Plan, TextKey, compile_query, text_keys

Cancelled = Callable[[], bool]

FEW: Final = 200  # so many texts are read sooner than the index is asked
CATCH_UP: Final = 1000  # emails that a search indexes before it begins; what lies beyond is scanned
_BATCH = 256  # rows taken at once
_INDEX_BATCH = 128  # emails, and …
_INDEX_BATCH_CHARS = 4 << 20  # … characters that one commit of the index takes
_INDEXED_KEYS_MAX = 64  # text keys that are looked up; a query with more verifies the others by reading
_CANCEL_STEPS = 100_000  # SQLite's virtual machine steps between two looks at `cancelled`

_log = log.get("search")


def search(directory: Path, mailbox_id: MailboxId, query: Query, *, cancelled: Cancelled | None = None) -> "array[int]":
    """UIDs of the mailbox's live messages that match, rising. `directory` is the account's.

    Call it in a thread: it reads messages. When `cancelled` says so it returns early with what it found.
    """
    found: array[int] = array("I")
    with _opened(directory) as (db, packs):
        run = _Run(db, packs, directory, mailbox_id, query)
        if cancelled is not None:
            db.set_progress_handler(cancelled, _CANCEL_STEPS)
        with suppress(apsw.InterruptError), translated():
            run.into(found, cancelled or _never)
    return found


def _never() -> bool:
    return False


@contextmanager
def _opened(directory: Path) -> Iterator[tuple[apsw.Connection, PackReader]]:
    with (
        using(directory),
        closing(connect(directory / "mail.db", "mail")) as db,
        closing(PackReader(directory / "packs")) as packs,
    ):
        yield db, packs


@dataclass(slots=True)
class _Run:
    db: apsw.Connection
    packs: PackReader
    directory: Path
    mailbox_id: MailboxId
    query: Query

    def into(self, found: "array[int]", cancelled: Cancelled) -> None:
        keys = text_keys(self.query)
        plan = self._plan(lambda key: UNKNOWN)
        if not keys:
            self._exact(plan, found)
            return
        with ExitStack() as stack:
            indexed = False
            if not self._few(plan):
                with suppress(StoreError):  # the index is a help, never a condition
                    index_pending(self.directory, CATCH_UP, cancelled=cancelled)
                indexed = stack.enter_context(search_index.attached(self.db, self.directory))
                indexed = indexed and _in_step(self.db, self.directory, "search.meta")
            if indexed:
                plan = self._indexed_plan(keys)
            if plan.bounds.exact:
                self._exact(plan, found)
            else:
                self._verify(plan, _TextSource(self.db, self.packs, kept=indexed), found, cancelled)

    # planning

    def _plan(self, text_bounds: Callable[[TextKey], Bounds]) -> Plan:
        sets = list(self.db.execute("SELECT id, names FROM flagset"))

        def flagsets(flag: str) -> list[int]:
            folded = flag.lower()
            return [number for number, names in sets if folded in names.lower().split(" ")]

        plan = compile_query(self.query, flagsets, text_bounds)
        for name, uids in plan.sets.items():
            self.db.execute(f"CREATE TABLE IF NOT EXISTS temp.{name} (low INTEGER PRIMARY KEY, high INTEGER)")
            self.db.execute(f"DELETE FROM temp.{name}")
            self.db.executemany(f"INSERT INTO temp.{name} VALUES (?, ?)", uids.ranges)
        return plan

    def _indexed_plan(self, keys: tuple[TextKey, ...]) -> Plan:
        """The plan with what the index knows; without, when the index turns out to be damaged."""
        try:
            watermark = self.db.execute("SELECT watermark FROM search.meta").get
            bounds = {key: self._hits(key, f"hit{i}", watermark) for i, key in enumerate(keys[:_INDEXED_KEYS_MAX])}
        except apsw.InterruptError:
            raise
        except apsw.Error as error:
            _log.warning("search index damaged", account=self.directory.name, error=str(error))
            search_index.distrust(self.directory)
            return self._plan(lambda key: UNKNOWN)
        return self._plan(lambda key: bounds.get(key, UNKNOWN))

    def _hits(self, key: TextKey, table: str, watermark: object) -> Bounds:
        needle = normalise(key.text)
        if not needle and isinstance(key, Header):
            needle = normalise(key.name)  # where the field is there, its name is in the text
        if not needle:
            return EVERY
        if "\r" in needle:  # CRLF across the border of two fields becomes LF in the text that is indexed
            return UNKNOWN
        places: tuple[Where, ...]
        match key:
            case Header():
                places = ("head",)
            case Body():
                places = ("body",)
            case Text():
                places = ("head", "body")
        self.db.execute(f"CREATE TABLE temp.{table} (email INTEGER PRIMARY KEY)")
        for where in places:
            search_index.collect_hits(self.db, needle, where=where, table=table)
        hit = f"(m.email IN (SELECT email FROM temp.{table}))"
        decided = search_index.decides(needle) and not isinstance(key, Header)
        return Bounds(surely=hit if decided else "0", maybe=f"({hit} OR m.email > {watermark})")

    def _few(self, plan: Plan) -> bool:
        counted = self.db.execute(f"SELECT count(*) FROM (SELECT 1 {self._from(plan)} LIMIT {FEW + 1})").get
        assert isinstance(counted, int)
        return counted <= FEW

    def _from(self, plan: Plan, after: int = 0, *, email: bool = False) -> str:
        base = self.mailbox_id << UID_BITS
        first = max(base | plan.uid_first, after + 1)
        joined = "CROSS JOIN email e ON e.id = m.email" if email or "e." in plan.bounds.maybe else ""
        return (
            f"FROM message m {joined} WHERE m.key BETWEEN {first} AND {base | plan.uid_last} "
            f"AND m.removed IS NULL AND {plan.bounds.maybe}"
        )

    # running

    def _exact(self, plan: Plan, found: "array[int]") -> None:
        found.extend(key & UID_MASK for (key,) in self.db.execute(f"SELECT m.key {self._from(plan)} ORDER BY m.key"))

    def _verify(self, plan: Plan, texts: "_TextSource", found: "array[int]", cancelled: Cancelled) -> None:
        flagsets: dict[int, frozenset[str]] = {}
        after = 0
        attached = HAS_ATTACHMENT if HAS_ATTACHMENT in plan.bounds.surely + plan.bounds.maybe else "0"
        while not cancelled():
            rows = list(
                self.db.execute(
                    f"SELECT m.key, {plan.bounds.surely}, m.email, m.flags, m.modseq, m.internaldate, m.savedate, "
                    f"m.size, e.sent_day, e.thread, {attached} {self._from(plan, after, email=True)} "
                    f"ORDER BY m.key LIMIT {_BATCH}"
                )
            )
            for row in rows:
                if cancelled():
                    return
                key, surely, _, flags = row[:4]
                if not surely:
                    names = flagsets.get(flags) or self._flag_names(flagsets, flags)
                    if not matches(self.query, _Subject(row, names, texts)):
                        continue
                found.append(key & UID_MASK)
            if len(rows) < _BATCH:
                return
            after = rows[-1][0]

    def _flag_names(self, known: dict[int, frozenset[str]], number: int) -> frozenset[str]:
        names = self.db.execute("SELECT names FROM flagset WHERE id = ?", (number,)).get
        known[number] = frozenset(names.split()) if isinstance(names, str) else frozenset()
        return known[number]


# --- texts


class _Subject:
    """One message as `matches` sees it; its text is read only when a key asks for it."""

    __slots__ = (
        "_source",
        "_texts",
        "email",
        "flags",
        "has_attachment",
        "internaldate",
        "modseq",
        "savedate",
        "sent_day",
        "size",
        "thread",
        "uid",
    )

    def __init__(self, row: tuple[Any, ...], flags: frozenset[str], source: "_TextSource") -> None:
        self.email: int
        self.thread: int
        (key, _, self.email, _, self.modseq, self.internaldate, self.savedate, self.size) = row[:8]
        self.sent_day, self.thread, attached = row[8:]
        self.has_attachment = bool(attached)
        self.uid: int = key & UID_MASK
        self.flags = flags
        self._source = source
        self._texts: Texts | None = None

    def _text(self) -> Texts:
        if self._texts is None:
            self._texts = self._source.texts(self.email)
        return self._texts

    def header(self, name: str) -> list[str]:
        folded = name.lower()
        return [value for field, value in self._text().fields if field == folded]

    def searchable(self) -> Searchable:
        texts = self._text()
        return Searchable(headers=texts.headers, body=texts.body)


_NO_TEXTS = Texts("", "", [])


class _TextSource:
    """Texts by email: as the index kept them, else from the message's bytes."""

    def __init__(self, db: apsw.Connection, packs: PackReader, *, kept: bool) -> None:
        self._db = db
        self._packs = packs
        self._kept = kept

    def texts(self, email: int) -> Texts:
        if self._kept:
            # A damaged page or frame only means reading the message itself.
            with suppress(apsw.CorruptError, ValueError, search_index.Unreadable):
                packed = self._db.execute("SELECT texts FROM search.kept WHERE email = ?", (email,)).get
                if isinstance(packed, bytes):
                    return search_index.unpack_texts(packed)
        return read_texts(self._db, self._packs, email) or _NO_TEXTS


def texts_of(data: bytes) -> Texts:
    """What a message is searched by."""
    text = searchable(data)
    fields = [
        (name.decode("latin-1").lower(), decode_words(value))
        for name, value in iter_fields(data[: min(header_end(data), HEADER_MAX)])
    ]
    return Texts(text.headers, text.body, fields)


def read_texts(db: apsw.Connection, packs: PackReader, email: int) -> Texts | None:
    """Texts read from the message; None when its bytes are damaged or gone: such a message holds no text."""
    for last in (False, True):
        row = db.execute("SELECT pack, offset, length, codec, size FROM email WHERE id = ?", (email,)).fetchone()
        if row is None:
            return None
        pack, offset, length, codec, size = row
        try:
            stored = packs.read(Place(pack, offset, length), 0, length)
            return texts_of(stored if codec == RAW else decode(codec, stored, size))
        except MessageMissing:
            if last:  # not just moved to another pack meanwhile
                _log.error("message's pack is missing", email=email, pack=pack)
        except StoreCorrupt as error:
            _log.error("message cannot be searched", email=email, pack=pack, error=error.text)
            return None
    return None


# --- keeping the index up


_DIGEST: Final = "SELECT sha256 FROM email WHERE id = ?"


def _in_step(db: apsw.Connection, directory: Path, meta: str) -> bool:
    """Whether the index speaks of this mail.db's emails; if not it is thrown away."""
    watermark, digest = next(iter(db.execute(f"SELECT watermark, digest FROM {meta}")), (0, b""))
    if not watermark or select_value(db, _DIGEST, (watermark,)) == digest:
        return True
    search_index.distrust(directory)
    return False


def index_pending(directory: Path, limit: int, *, cancelled: Cancelled | None = None) -> int:
    """Index up to `limit` emails that the index lacks; returns how many are left that could be indexed now.

    Call it in a thread, when mail has come in or when idle. Several processes may: one works, the others return 0,
    as it does when the index cannot be written (the disk is full): there is nothing to do before something changes.
    """
    with _opened(directory) as (db, packs), translated():
        with search_index.writing(directory) as writer:
            if writer is None:
                return 0
            watermark, digest = writer.watermark()
            foreign = watermark > 0 and select_value(db, _DIGEST, (watermark,)) != digest
            if not foreign:
                for entries in _pending(db, packs, watermark, limit):
                    if (cancelled is not None and cancelled()) or not writer.add(entries, after=watermark):
                        return 0
                    watermark = entries[-1].email
                return int(select_value(db, "SELECT count(*) FROM email WHERE id > ?", (watermark,)))
        search_index.distrust(directory)
        if not search_index.discard(directory):
            return 0  # in use: whoever comes next does it
    return index_pending(directory, limit, cancelled=cancelled)


def _pending(db: apsw.Connection, packs: PackReader, watermark: int, limit: int) -> Iterator[list[Entry]]:
    """Emails above the watermark, in order, in batches bounded in number and text."""
    rows = select(db, "SELECT id, sha256 FROM email WHERE id > ? ORDER BY id LIMIT ?", (watermark, limit))
    batch: list[Entry] = []
    chars = 0
    for email, sha256 in rows:
        entry = Entry(email, sha256, read_texts(db, packs, email))
        batch.append(entry)
        chars += len(entry.texts.headers) + len(entry.texts.body) if entry.texts else 0
        if len(batch) >= _INDEX_BATCH or chars >= _INDEX_BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch
