"""From files to mailboxes: reads items, stages them, appends them in batches, never one twice.

**Never twice.** An append carries an origin: the hash of the content, the mailbox (by UIDVALIDITY, so that one that was
deleted and made again counts as another) and a number that tells equal messages of one mailbox apart in the order of
the files. The store takes an origin once. So the same import can be killed anywhere and run again, and importing a
newer copy of an archive adds what is new. Rendering is the dear part: it is done only for what the store does not have.

**All or nothing, a batch at a time.** A batch is one transaction: 200 messages or 32 MiB. What a batch may hold bounds
the memory, whatever the size of the files.
"""

import hashlib
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mailkeep.errors import LimitReached, MailboxMissing, MessageMissing, NotAllowed, OverQuota, ProtocolError
from mailkeep.export import tree
from mailkeep.export.item import Bad, Item, Skipped
from mailkeep.jobs.job import Job
from mailkeep.jobs.progress import Progress, Summary
from mailkeep.mail.ids import MailboxId
from mailkeep.mail.mailbox_name import check_name
from mailkeep.store.account import Account
from mailkeep.store.staging import Staged, Staging
from mailkeep.store.store import Store
from mailkeep.store.transaction import Transaction

BATCH_MESSAGES: Final = 200
BATCH_BYTES: Final = 32 << 20
SPECIAL_USE: Final = {
    "Sent": "\\Sent",
    "Drafts": "\\Drafts",
    "Junk": "\\Junk",
    "Trash": "\\Trash",
    "Archive": "\\Archive",
}


@dataclass(frozen=True, slots=True)
class Survey:
    """A look at the sources before the work: how much there is, and a hash of names, sizes and times."""

    files: int
    bytes: int
    fingerprint: str


@dataclass(slots=True)
class _Waiting:
    """An item whose bytes are read and which is not appended yet."""

    item: Item
    staging: Staging
    digest: bytes
    names: tuple[str, ...]


@dataclass(slots=True)
class Importer:
    """One run. `into` is the mailbox that the sources' top goes to; folders go below it when the user named it."""

    store: Store
    account: Account
    into: str | None = None
    size_max: int = 64 << 20
    progress: Progress = field(default_factory=Progress)
    summary: Summary = field(default_factory=Summary)
    _seen: dict[bytes, int] = field(default_factory=dict)
    _targets: dict[str, tuple[MailboxId, int]] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _specials: dict[str, str] = field(default_factory=dict)

    def files(self, paths: Sequence[Path]) -> Summary:
        """Import all below `paths`, as a job that a later run of the same command takes up again."""
        survey = survey_paths(paths)
        self.progress.total = survey.bytes
        about = "\0".join([*(str(path.absolute()) for path in paths), self.into or ""])
        key = hashlib.sha256(about.encode("utf-8", "surrogateescape")).digest()
        job = Job.start(self.store, "import", self.account.info.id, key=key, fingerprint=survey.fingerprint)
        self.summary.resumed_at = job.resumed
        skipped = Skipped(self.summary.skipped)
        walk = tree.Walk(skipped, self.size_max, self.store.root / "tmp")
        try:
            for _ in self.items(found for path in paths for found in tree.read(path, walk)):
                job.advance(self.progress.items)
        except BaseException:  # Ctrl-C above all; what is committed stays, and the row says how far it came
            job.stop(self.progress.items)
            raise
        if self.summary.stopped is None:
            self._make_empty(walk.empty)
            job.finish(self.progress.items, {"summary": {**self.summary.facts(), "faults": [], "notes": []}})
        else:
            job.stop(self.progress.items)
        return self.summary

    def items(self, found: Iterable[Item | Bad]) -> Iterator[None]:
        """Append items as they come; yields after each committed batch."""
        batch: list[_Waiting] = []
        size = 0
        try:
            for item in found:
                self.summary.found += 1
                if isinstance(item, Bad):
                    self.summary.fault(item.source, item.reason)
                    self.progress.report(done=item.size, items=1, what=item.source)
                    continue
                waiting = self._stage(item)
                if waiting is None:
                    continue
                batch.append(waiting)
                size += waiting.staging.size
                if len(batch) >= BATCH_MESSAGES or size >= BATCH_BYTES:
                    self._append(batch)
                    batch, size = [], 0
                    yield
                    if self.summary.stopped is not None:
                        return
            self._append(batch)
            batch = []
            yield
        finally:
            for waiting in batch:
                waiting.staging.discard()

    def _stage(self, item: Item) -> _Waiting | None:
        """Read an item's bytes. None when it is bad."""
        try:
            names = tuple(dict.fromkeys(self._name(name) for name in item.mailboxes))
        except (NotAllowed, ProtocolError) as error:
            self.summary.fault(item.source, f"{error.text} ({', '.join(item.mailboxes)[:200]})")
            self.progress.report(done=item.size, items=1)
            return None
        staging = self.store.stage()
        digest = hashlib.sha256()
        try:
            for chunk in item.chunks:
                digest.update(chunk)
                staging.write(chunk)
        except BaseException:
            staging.discard()
            raise
        return _Waiting(item, staging, digest.digest(), names)

    def _name(self, name: str) -> str:
        """The mailbox for a place that a reader named. Raises NotAllowed."""
        made = self._names.get(name)
        if made is None:
            made = self._names[name] = self._make_name(name)
        return made

    def _make_name(self, name: str) -> str:
        levels = [level.strip() for level in name.split("/") if level.strip()]
        if self.into is not None:
            # Below a mailbox of the user's choice, INBOX is a name like any other.
            return check_name("/".join([self.into, *("Inbox" if level == "INBOX" else level for level in levels)]))
        if not levels:
            return "INBOX"
        if len(levels) == 1 and levels[0] in SPECIAL_USE:
            return self._special(SPECIAL_USE[levels[0]], levels[0])
        return check_name("/".join(levels))

    def _special(self, use: str, name: str) -> str:
        """The user's own mailbox for what Gmail calls Sent, Drafts …, whatever its name."""
        if use not in self._specials:
            found = [box.name for box in self.account.mailboxes() if use in box.special_use]
            self._specials[use] = found[0] if found else name
        return self._specials[use]

    def _append(self, batch: list[_Waiting]) -> None:
        """Commit a batch."""
        if not batch:
            return
        self._make_mailboxes({name for waiting in batch for name in waiting.names})
        places = [
            (waiting, [(name, self._origin(waiting.digest, name)) for name in waiting.names]) for waiting in batch
        ]
        known = self.account.known_origins([origin for _, targets in places for _, origin in targets])
        staged: dict[int, Staged] = {}
        try:
            for waiting, targets in places:
                if all(origin in known for _, origin in targets):
                    waiting.staging.discard()
                else:
                    staged[id(waiting)] = waiting.staging.finish()
            with self.account.transaction() as transaction:
                for waiting, targets in places:
                    for name, origin in targets:
                        if origin in known:
                            self.summary.already += 1
                            self.summary.count(name).already += 1
                        elif self.summary.stopped is None:
                            self._place(transaction, waiting.item, staged[id(waiting)], (name, origin))
        finally:
            for ready in staged.values():
                ready.close()
        for waiting in batch:
            if waiting.item.note is not None:
                self.summary.note(waiting.item.source, waiting.item.note)
            self.progress.report(done=waiting.item.size, items=1, what=waiting.item.source)

    def _place(self, transaction: Transaction, item: Item, staged: Staged, to: tuple[str, bytes]) -> None:
        name, origin = to
        try:
            appended = transaction.append(
                self._targets[name][0], staged, flags=item.flags, internaldate=item.internaldate, origin=origin
            )
        except OverQuota as error:
            self.summary.fault(item.source, error.text)
            self.summary.stopped = "the quota of the account is used up; raise it with `mailkeep user quota`"
            return
        except (LimitReached, NotAllowed, MessageMissing) as error:
            self.summary.fault(item.source, error.text)
            return
        count = self.summary.count(name)
        if appended.fresh:
            self.summary.added += 1
            self.summary.bytes += staged.size
            count.added += 1
        else:
            self.summary.already += 1
            count.already += 1

    def _make_mailboxes(self, names: set[str]) -> None:
        for name in sorted(names - self._targets.keys()):
            try:
                mailbox = self.account.mailbox(name)
            except MailboxMissing:
                with self.account.transaction() as transaction:
                    mailbox = transaction.create_mailbox(name, subscribe=True)
            self._targets[name] = (mailbox.id, mailbox.uidvalidity)

    def _make_empty(self, places: Iterable[tuple[str, ...]]) -> None:
        """Make the mailboxes in which there was nothing."""
        for place in places:
            # A name that no mailbox can have is no loss here.
            with suppress(NotAllowed, ProtocolError, LimitReached):
                self._make_mailboxes({self._name(tree.mailbox_of(place))})

    def _origin(self, digest: bytes, name: str) -> bytes:
        place = self._targets[name][1].to_bytes(4, "big")
        key = digest[:12] + place
        number = self._seen.get(key, 0)
        self._seen[key] = number + 1
        return b"import" + hashlib.sha256(digest + place + number.to_bytes(4, "big")).digest()[:18]


def survey_paths(paths: Sequence[Path]) -> Survey:
    """Names, sizes and times of everything below; nothing is read but the directories of zips."""
    files = total = 0
    fingerprint = hashlib.sha256()
    for path in paths:
        for file in _walk(path):
            try:
                info = file.stat()
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode):
                files += 1
                total += _unpacked(file) if file.suffix.lower() == ".zip" else info.st_size
                line = f"{file}\0{info.st_size}\0{info.st_mtime_ns}\n"
                fingerprint.update(line.encode("utf-8", "surrogateescape"))
    return Survey(files, total, fingerprint.hexdigest())


def _walk(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)


def _unpacked(path: Path) -> int:
    try:
        with closing(zipfile.ZipFile(path)) as archive:
            return sum(info.file_size for info in archive.infolist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return 0
