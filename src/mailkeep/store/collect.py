"""Collect garbage: the only code that removes mail from the disk. Runs beside the server.

For each account, in this order, each step safe to be killed in:
1. Tombstones past retention are deleted; `state.trimmed` rises in the same transaction, so that changes() knows that
   it can no longer tell everything. With them goes what was seen of remotes that are no more; of others it stays, and
   keeps a message that was expunged here from being pulled again (remote_rows.py).
2. Email rows that no message row refers to are deleted (asked again inside the transaction: an append may just have
   taken one up), and forgotten by the search index.
3. Packs with much garbage, or cold and not yet compressed, are rewritten: live records and journals go to a new pack;
   it is synced; the rows are pointed at it; the last transaction lists the old pack as retired; it stays.
4. Packs retired for longer than the grace time are unlinked.

Killed before the rows are switched: the new pack is garbage, and its journals are copies that replay knows as such.
Killed among them: each row points at one of two good copies, and the old pack is looked at again. Killed after: it is
already listed. At no moment does a row point at bytes that are not synced, and no
pack is unlinked that a row, or a copy of mail.db younger than the grace time, points at.

Readers take no lock. One that has looked up a place and finds the pack gone looks the place up again. Writers hold an
flock on the pack they append to; only packs that nobody holds are rewritten, and they are held meanwhile.

Journals are carried over, since an op dropped here could leave its counterpart standing in another pack (blobs.py).
One kind of op may go: a change of flags that every message concerned has since changed again.
"""

import fcntl
import hashlib
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw
import msgspec
import zstandard

from mailkeep import log
from mailkeep.errors import StoreBusy, StoreCorrupt, StoreError, StoreFull, StoreReadOnly
from mailkeep.mail.numset import NumSet
from mailkeep.store import remote_rows, search_index
from mailkeep.store.account import AccountInfo
from mailkeep.store.accounts import REMOVED
from mailkeep.store.blobs import (
    BLOB,
    HEADER_SIZE,
    JOURNAL,
    PACK_HEAD_SIZE,
    RAW,
    ZSTD,
    Damage,
    Flagged,
    PackWriter,
    Place,
    Record,
    decode_journal,
    encode_journal,
    pack_numbers,
    pack_path,
    read_record,
    walk,
)
from mailkeep.store.check import account_path
from mailkeep.store.failure import translated
from mailkeep.store.locks import IN_COLLECTION, locked, using
from mailkeep.store.schema import HEADER_SET_BITS, UID_BITS, connect, select, select_value
from mailkeep.store.store import Store

Progress = Callable[[str, int, int], None]  # step, done, of how much
Cancelled = Callable[[], bool]

GARBAGE_MIN: Final = 0.25  # share of a pack that must be garbage before it is rewritten for that alone
COLD_S: Final = 30 * 86_400  # a pack not written for so long is compressed
_RAW_MIN: Final = 4096  # bytes; below, compressing is not worth a new pack
_SAVES_MIN: Final = 0.9  # a compressed record must be below this share of the raw one
_BATCH: Final = 2000  # rows a write transaction: a delivery waits no longer than for one of these
_LEVEL: Final = 6

_log = log.get("collect")


@dataclass(slots=True)
class CollectReport:
    """What was done, in all accounts. `bytes_freed` counts unlinked packs less what was written for them so far."""

    tombstones: int = 0
    emails: int = 0
    packs_rewritten: int = 0
    packs_removed: int = 0
    compressed: int = 0
    bytes_written: int = 0
    bytes_removed: int = 0
    accounts_removed: int = 0
    skipped: list[str] = field(default_factory=list)  # account or pack, and why


def collect(
    store: Store,
    *,
    grace_s: float,
    retention_s: float,
    cold_s: float = COLD_S,
    accounts: Sequence[AccountInfo] | None = None,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> CollectReport:
    """Remove what retention no longer keeps, from the given accounts or all.

    An account in trouble is skipped and named in the report. Raises StoreFull, StoreReadOnly: what ails the disk ails
    all accounts.
    """
    report = CollectReport()
    for info in store.directory.list() if accounts is None else accounts:
        if cancelled is not None and cancelled():
            break
        work = _Collection(
            account_path(store, info),
            report,
            progress or _silent,
            cancelled or _never,
            lambda: {remote.id for remote in store.remotes.list()},
            grace_s,
            retention_s,
            cold_s,
        )
        try:
            work.run()
        except (StoreFull, StoreReadOnly):
            raise
        except StoreError as error:
            _log.warning("garbage not collected", account=info.name, error=error.text)
            report.skipped.append(f"{info.name}: {error.text}")
    if accounts is None:
        _delete_removed(store, report, before=time.time() - retention_s)
    return report


def _delete_removed(store: Store, report: CollectReport, *, before: float) -> None:
    """Delete the mail of accounts that were removed before that time (Unix seconds)."""
    for path in sorted((store.root / "accounts").glob(f"{REMOVED}*")):
        at = path.name.rpartition(".")[2]
        if not at.isdecimal() or int(at) > before:
            continue
        try:
            size = sum(entry.lstat().st_size for entry in path.rglob("*"))
            shutil.rmtree(path)
        except OSError as error:
            report.skipped.append(f"{path.name}: {error.strerror}")
        else:
            report.accounts_removed += 1
            report.bytes_removed += size


def _silent(step: str, done: int, total: int) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Moved:
    """An email's record, and where its copy is."""

    email: int
    old_offset: int
    pack: int
    offset: int
    length: int
    codec: int


@dataclass(slots=True)
class _Collection:
    directory: Path
    report: CollectReport
    progress: Progress
    cancelled: Cancelled
    remotes: Callable[[], set[int]]  # those there are
    grace_s: float
    retention_s: float
    cold_s: float

    @property
    def packs(self) -> Path:
        return self.directory / "packs"

    def run(self) -> None:
        with (
            using(self.directory),
            locked(self.directory / "gc.lock", alone=True, busy=IN_COLLECTION),
            closing(connect(self.directory / "mail.db", "mail")) as db,
            translated(),
        ):
            self._trim(db)
            self._drop_emails(db)
            self._rewrite_packs(db)
            self._unlink_retired(db)
            with suppress(apsw.BusyError):
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    # 1. tombstones

    def _trim(self, db: apsw.Connection) -> None:
        before = int(time.time() - self.retention_s)
        while not self.cancelled():
            with _transaction(db):
                rows = select(
                    db,
                    "SELECT key, removed FROM message INDEXED BY message_removed "
                    "WHERE removed IS NOT NULL AND removed_at <= ? LIMIT ?",
                    (before, _BATCH),
                )
                if rows:
                    db.executemany("DELETE FROM message WHERE key = ?", ((key,) for key, _ in rows))
                    db.executemany("DELETE FROM uidl WHERE key = ?", ((key,) for key, _ in rows))
                    db.execute("UPDATE state SET trimmed = max(trimmed, ?)", (max(removed for _, removed in rows),))
            self.report.tombstones += len(rows)
            self.progress("tombstones", self.report.tombstones, 0)
            if len(rows) < _BATCH:
                break
        with _transaction(db):
            db.execute(
                "DELETE FROM mailbox WHERE removed IS NOT NULL AND removed_at <= ? AND NOT EXISTS "
                "(SELECT 1 FROM message WHERE key BETWEEN mailbox.id << 32 AND (mailbox.id << 32) + 4294967295)",
                (before,),
            )
            remote_rows.detach(db)
        self._drop_remotes(db)

    def _drop_remotes(self, db: apsw.Connection) -> None:
        """What was seen of remotes that are no more."""
        # In this order: a remote that is added meanwhile is in the second, or not in the first.
        seen = {box.remote for box in remote_rows.all_boxes(db)}
        for remote in seen - self.remotes():
            for box in remote_rows.boxes(db, remote):
                done = False
                while not done and not self.cancelled():
                    with _transaction(db):
                        done = remote_rows.trim(db, box.id, _BATCH)

    # 2. emails

    def _drop_emails(self, db: apsw.Connection) -> None:
        orphans = (
            "SELECT id FROM email WHERE id > ? AND NOT EXISTS (SELECT 1 FROM message WHERE message.email = email.id) "
            "ORDER BY id LIMIT ?"
        )
        last = 0
        while not self.cancelled():
            with _transaction(db):
                emails = [email for (email,) in db.execute(orphans, (last, _BATCH))]
                db.executemany("DELETE FROM email WHERE id = ?", ((email,) for email in emails))
                for (header_set,) in select(db, "SELECT id FROM header_set"):
                    db.executemany(
                        "DELETE FROM header_cache WHERE key = ?",
                        ((header_set << HEADER_SET_BITS | email,) for email in emails),
                    )
            self.report.emails += len(emails)
            self.progress("emails", self.report.emails, 0)
            if emails:
                last = emails[-1]
                self._forget_texts(db, emails)
            if len(emails) < _BATCH:
                return

    def _forget_texts(self, db: apsw.Connection, emails: Sequence[int]) -> None:
        if not (self.directory / "search.db").exists():
            return
        with search_index.writing(self.directory) as writer:
            if writer is None:
                return
            watermark, _ = writer.watermark()
            row = db.execute("SELECT id, sha256 FROM email WHERE id <= ? ORDER BY id DESC LIMIT 1", (watermark,))
            with suppress(apsw.BusyError):  # then the index is made anew, later
                writer.remove(emails, next(iter(row), (0, b"")))

    # 3. packs

    def _rewrite_packs(self, db: apsw.Connection) -> None:
        retired = {pack for (pack,) in db.execute("SELECT pack FROM retired")}
        numbers = [number for number in pack_numbers(self.packs) if number not in retired]
        rewriter = _Rewriter(self, db)
        try:
            for done, number in enumerate(numbers):
                if self.cancelled():
                    break
                self.progress("packs", done, len(numbers))
                self._rewrite_pack(db, rewriter, number)
        finally:
            rewriter.close()

    def _rewrite_pack(self, db: apsw.Connection, rewriter: "_Rewriter", number: int) -> None:
        with _held(pack_path(self.packs, number)) as fd:
            if fd is None:
                return  # being written
            age_s = time.time() - os.fstat(fd).st_mtime
            if age_s < self.grace_s:
                return
            live = {
                offset: (email, HEADER_SIZE + length)
                for offset, email, length in db.execute(
                    "SELECT offset, id, length FROM email WHERE pack = ?", (number,)
                )
            }
            survey = _survey(fd)
            if survey is None:
                self.report.skipped.append(f"{self.directory.name}/packs/{number}.pack: damaged, left as it is")
                return
            garbage = survey.blob_bytes - sum(size for _, size in live.values())
            cold = age_s >= self.cold_s and survey.raw_bytes > max(_RAW_MIN, 0.5 * survey.blob_bytes)
            if garbage < GARBAGE_MIN * survey.size and not cold:
                return
            try:
                rewriter.rewrite(number, fd, {offset: email for offset, (email, _) in live.items()}, cold=cold)
            except StoreCorrupt as error:
                self.report.skipped.append(f"{self.directory.name}/packs/{number}.pack: {error.text}")

    # 4. retired packs

    def _unlink_retired(self, db: apsw.Connection) -> None:
        before = int(time.time() - self.grace_s)
        for (number,) in select(db, "SELECT pack FROM retired WHERE at <= ?", (before,)):
            path = pack_path(self.packs, number)
            # The highest number stays: a new pack must never get a number that a stale place could name.
            if number >= max(pack_numbers(self.packs), default=0):
                continue
            if db.execute("SELECT 1 FROM email WHERE pack = ? LIMIT 1", (number,)).get is not None:
                self.report.skipped.append(f"{self.directory.name}/packs/{number}.pack: retired, yet in use")
                continue
            self.progress("unlink", 0, 0)
            with suppress(FileNotFoundError):
                size = path.stat().st_size
                path.unlink()
                self.report.packs_removed += 1
                self.report.bytes_removed += size
            self.progress("unlinked", 0, 0)
            with _transaction(db):
                db.execute("DELETE FROM retired WHERE pack = ?", (number,))


@dataclass(frozen=True, slots=True)
class _Survey:
    size: int
    blob_bytes: int
    raw_bytes: int


def _survey(fd: int) -> _Survey | None:
    """What a pack holds, by its record headers; None when something in it is no record (but an unfinished tail)."""
    blob_bytes = raw_bytes = 0
    for found in walk(fd, verify=False):
        if isinstance(found, Damage):
            if not found.tail:
                return None
        elif found.kind == BLOB:
            blob_bytes += HEADER_SIZE + found.length
            raw_bytes += HEADER_SIZE + found.length if found.codec == RAW else 0
    return _Survey(os.fstat(fd).st_size, blob_bytes, raw_bytes)


_Compressor = zstandard.ZstdCompressor | None  # None: leave records as they are


class _Rewriter:
    """Copies packs into a new one, as many as fit."""

    def __init__(self, work: _Collection, db: apsw.Connection) -> None:
        self._work = work
        self._db = db
        self._writer: PackWriter | None = None
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._modseq = 0  # the account's, while a pack is rewritten
        self._journals: set[tuple[int, int]] = set()  # (txn, crc) of those copied in this run: no copies of copies

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def rewrite(self, number: int, fd: int, live: dict[int, int], *, cold: bool) -> None:
        """Copy what is worth keeping, sync it, switch the rows, list the old pack as retired.

        Raises StoreCorrupt when a live record is damaged: the pack then stays as it is, for `verify` to tell.
        """
        work = self._work
        if self._writer is None or self._writer.full:
            self.close()
            self._writer = PackWriter.create(work.packs)
        writer = self._writer
        self._modseq = select_value(self._db, "SELECT modseq FROM state")
        start = writer.end
        try:
            moved = list(self._copies(writer, fd, live, cold=cold))
            work.progress("copied", 0, 0)
            writer.flush(sync=True)
        except BaseException:
            self._abandon(start)
            raise
        work.progress("synced", 0, 0)
        try:
            self._switch(number, moved, writer)
        except BaseException:
            # The new pack stays: a commit that reports an error may yet be found in the log after a crash.
            self.close()
            raise
        work.progress("switched", 0, 0)
        work.report.packs_rewritten += 1
        work.report.bytes_written += writer.end - start

    def _switch(self, number: int, moved: list[_Moved], writer: PackWriter) -> None:
        """Point the rows at their copies. In parts, so that no delivery waits long: both places are good meanwhile."""
        db = self._db
        for start in range(0, len(moved), _BATCH):
            with _transaction(db):
                db.executemany(
                    "UPDATE email SET pack = ?, offset = ?, length = ?, codec = ? "
                    "WHERE id = ? AND pack = ? AND offset = ?",
                    (
                        (each.pack, each.offset, each.length, each.codec, each.email, number, each.old_offset)
                        for each in moved[start : start + _BATCH]
                    ),
                )
            self._work.progress("part", start, len(moved))
        with _transaction(db):
            if select(db, "SELECT 1 FROM email WHERE pack = ? LIMIT 1", (number,)):
                raise StoreCorrupt("a row points at a record that is not there")
            db.execute("INSERT OR REPLACE INTO retired VALUES (?, ?)", (number, int(time.time())))
            db.execute("DELETE FROM pack WHERE id = ?", (number,))
            db.execute("UPDATE state SET pack = 0, pack_end = 0 WHERE pack = ?", (number,))
            db.execute("INSERT OR REPLACE INTO pack(id, end) VALUES (?, ?)", (writer.number, writer.end))

    def _abandon(self, start: int) -> None:
        """Give up the pack that was being written. If no row points into it, it goes; else its end is garbage."""
        writer, self._writer = self._writer, None
        assert writer is not None
        if start == PACK_HEAD_SIZE:
            # Still locked, so no other process has put anything into it.
            pack_path(self._work.packs, writer.number).unlink(missing_ok=True)
        writer.close()

    def _copies(self, writer: PackWriter, fd: int, live: dict[int, int], *, cold: bool) -> Iterator[_Moved]:
        compressor = self._compressor if cold else None
        for record in walk(fd, verify=False):
            if isinstance(record, Damage):
                return  # an unfinished tail: the survey let nothing else through
            if record.kind == BLOB:
                email = live.get(record.offset)
                if email is not None:
                    yield self._copy_blob(writer, fd, record, email, compressor)
            else:
                self._copy_journal(writer, fd, record, compressor)
            if self._work.cancelled():
                raise StoreBusy("cancelled")

    def _copy_blob(self, writer: PackWriter, fd: int, record: Record, email: int, compressor: _Compressor) -> _Moved:
        data = read_record(fd, record)  # proves CRC and digest: damage is never copied as if it were whole
        if record.codec == RAW:
            codec, place = _add(writer, BLOB, data, digest=record.digest, compressor=compressor)
            self._work.report.compressed += codec == ZSTD
        else:
            codec, place = record.codec, _add_as_it_is(writer, fd, record)
        return _Moved(email, record.offset, place.pack, place.offset, place.length, codec)

    def _copy_journal(self, writer: PackWriter, fd: int, record: Record, compressor: _Compressor) -> None:
        data, digest = read_record(fd, record), record.digest
        if record.kind == JOURNAL:
            journal = decode_journal(data)
            if (journal.txn, record.crc) in self._journals:
                return
            self._journals.add((journal.txn, record.crc))
            if min((op.modseq for op in journal.ops), default=0) > self._modseq:
                # Killed between its sync and its commit, which cannot come any more: its pack is ours. Nor do its blobs
                # go along, and `repair` would miss them.
                return
            ops = [op for op in journal.ops if not (isinstance(op, Flagged) and self._superseded(op))]
            if not ops:
                return
            if len(ops) < len(journal.ops):
                data = encode_journal(msgspec.structs.replace(journal, ops=ops))
                digest = hashlib.sha256(data).digest()
        if record.codec == RAW or digest != record.digest:
            _add(writer, record.kind, data, digest=digest, compressor=compressor)
        else:
            _add_as_it_is(writer, fd, record)

    def _superseded(self, op: Flagged) -> bool:
        """Whether every message's flags are, by now, those of a later change."""
        base = op.mailbox << UID_BITS
        for low, high in NumSet.parse(op.uids).ranges:
            found = self._db.execute(
                "SELECT 1 FROM message WHERE key BETWEEN ? AND ? AND modseq <= ? LIMIT 1",
                (base | low, base | high, op.modseq),
            ).get
            if found is not None:
                return False
        return True


def _add(writer: PackWriter, kind: int, data: bytes, *, digest: bytes, compressor: _Compressor) -> tuple[int, Place]:
    """A record of this data, compressed when that is asked for and saves something: its codec and place."""
    stored = data if compressor is None else compressor.compress(data)
    if compressor is None or len(stored) > _SAVES_MIN * len(data):
        return RAW, writer.add(kind, data, digest)
    return ZSTD, writer.add_stored(kind, ZSTD, stored, size=len(data), digest=digest, crc=zlib.crc32(stored))


def _add_as_it_is(writer: PackWriter, fd: int, record: Record) -> Place:
    stored = os.pread(fd, record.length, record.offset + HEADER_SIZE)
    return writer.add_stored(record.kind, record.codec, stored, size=record.size, digest=record.digest, crc=record.crc)


@contextmanager
def _held(path: Path) -> Iterator[int | None]:
    """A pack open for reading, locked against writers; None when one has it, or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _transaction(db: apsw.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if not db.get_autocommit():
            db.execute("ROLLBACK")
