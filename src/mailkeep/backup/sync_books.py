"""Our side of a two-way run: what lies here and what was agreed on, and every write. Synchronous: in threads.

Knows the store and no connection. The link between a message of ours and theirs is its origin; that both sides agreed
on it, and on which flags, is its row in `remote_message`. Whoever has an origin without a row is as good as new.

The hard idea is the order of the two halves. A change of ours and the base that follows from it are one transaction.
A change of theirs comes first and is written down after; killed in between, the next run finds the change made and the
base old, and comes to the same base by looking: flags agree already, a message that was put there is known again by
content, one that was removed there is gone on both sides.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from mailkeep.backup.books import STEP, Cursor, clean_flags, read_cursor, tried, tries_of
from mailkeep.backup.imap_remote import RemoteMailbox
from mailkeep.backup.ledger import RETRIES_MAX
from mailkeep.backup.merge import FlagChange, Gone, Held, Key, Pair, Place, advance
from mailkeep.backup.recognise import Ours, read_identity
from mailkeep.backup.sync_ledger import FolderSync
from mailkeep.errors import LimitReached, MailboxMissing
from mailkeep.mail.flags import DELETED, SYSTEM_FLAGS, Flags
from mailkeep.store.account import Account
from mailkeep.store.mailboxes import GONE, Mailbox
from mailkeep.store.remotes import RemoteBox, State, origin_of
from mailkeep.store.staging import Staged
from mailkeep.store.transaction import Transaction

NO_FLAGS: Final[Flags] = frozenset()


@dataclass(slots=True)
class Folder:
    """One pair in one round. `here` None: our mailbox was deleted; `there` None: their folder was."""

    box: RemoteBox
    here: Mailbox | None
    there: RemoteMailbox | None
    ledger: FolderSync
    pair: Pair
    cursor: Cursor
    known: dict[int, Flags] = field(default_factory=dict)  # what the server is known to have, as it last said
    hopeless: set[int] = field(default_factory=set)  # newcomers that were tried often enough
    permanent: Flags = NO_FLAGS
    custom: bool = True
    modseq: int = 0  # theirs, when it was looked at
    uidnext: int = 0
    looked_at: int = 0  # our modseq then: what changed later has a higher one

    @property
    def name(self) -> str:
        return self.box.name

    @property
    def id(self) -> int:
        return self.box.id

    def keeps(self, flag: str) -> bool:
        """Whether the server can keep a flag in this folder (PERMANENTFLAGS; said nothing: all)."""
        if not self.permanent:
            return self.custom or flag in SYSTEM_FLAGS
        lower = {each.lower() for each in self.permanent}
        return flag.lower() in lower or ("\\*" in lower and self.custom and flag not in SYSTEM_FLAGS)

    def shared(self, flags: Flags) -> Flags:
        """Those that both sides can have."""
        return frozenset(flag for flag in flags if flag != GONE and self.keeps(flag))


@dataclass(frozen=True, slots=True)
class Match:
    """A newcomer is one of ours. `old`: what it was there before. `stays`: we moved it, and it stays where it is."""

    uid: int
    place: Place
    old: Key | None
    stays: bool = False
    identity: str | None = None  # the server's own: see `recognise.identity_of`


@dataclass(frozen=True, slots=True)
class Arrival:
    """A newcomer with its bytes, or without, and why."""

    uid: int
    flags: Flags
    internaldate: int | None
    staged: Staged | None
    problem: str | None = None
    identity: str | None = None


class SyncBooks:
    """One per run; its methods are called one at a time."""

    def __init__(self, account: Account, remote: int) -> None:
        self.account = account
        self.remote = remote
        self._spelling: dict[str, str] = {}
        # What a match needs to know of other folders, for the time of a round: see `remember`.
        self._base: dict[Key, Flags] = {}
        self._flags_here: dict[Place, Flags] = {}
        self._vanished: set[Key] = set()

    def spelled(self, names: Iterable[str]) -> Flags:
        """A server's flags as ours: keywords are the same in any case, and so must be spelled alike to be compared."""
        found = set()
        for flag in clean_flags(names):
            found.add(flag if flag in SYSTEM_FLAGS else self._spelling.setdefault(flag.lower(), flag))
        return frozenset(found - {GONE})

    def boxes(self) -> list[RemoteBox]:
        """The pairs; what a pull keeps of an earlier UIDVALIDITY is not one."""
        for keyword in self.account.keywords():
            self._spelling.setdefault(keyword.lower(), keyword)
        return [box for box in self.account.remote_boxes(self.remote) if "\0" not in box.name]

    def origin(self, box: RemoteBox, uid: int) -> bytes:
        return origin_of(self.remote, box.name, box.uidvalidity, uid)

    # ---- looking

    def load_base(self, folder: Folder) -> None:
        """What was agreed on, and what the server is known to have."""
        rows = self.account.remote_uids(folder.id)
        pair = folder.pair
        pair.base, folder.known = {}, {}
        shared: dict[int, Flags] = {}  # by FlagSetId
        failed = False
        for uid, flags, state, gone in zip(rows.uids, rows.flags, rows.states, rows.gone, strict=True):
            if gone:
                continue
            names = shared.get(flags)
            if names is None:
                names = shared[flags] = folder.shared(self.account.flagset(flags).flags)
            folder.known[uid] = names
            if state == State.KEPT:
                pair.base[uid] = names
            else:
                failed = True
        folder.hopeless = set()
        if failed:
            for uid, state, detail in self.account.remote_missing(folder.id):
                if state == State.FAILED and tries_of(detail) >= RETRIES_MAX:
                    folder.hopeless.add(uid)

    def load_ours(self, folders: Sequence[Folder], boxes: Sequence[RemoteBox]) -> frozenset[Key]:
        """Fill in what lies here. Returns what we have of the base in mailboxes that are not looked at now."""
        prefixes = {self.origin(box, 0)[:12]: box.id for box in boxes}
        places = {prefix[:8]: box for prefix, box in prefixes.items()}
        looked_at = {folder.id: folder for folder in folders}
        mailboxes = {box.id: box for box in self.account.mailboxes()}
        held: set[Key] = set()
        for folder in folders:
            folder.pair.ours = {}
            if folder.here is None:
                continue
            # Before its messages: what comes in between makes the number here too low, and that only looks again.
            folder.here = mailboxes.get(folder.here.id, folder.here)
            for uid, flags_id, modseq, origin in self.account.links(folder.here.id):
                flags = self.account.flagset(flags_id).flags
                folder.looked_at = max(folder.looked_at, modseq)
                if GONE in flags:
                    continue  # kept here though the server has it no more: a pull's, not ours
                link = self._link(origin, prefixes, looked_at)
                was = places.get(origin[:8]) if link is None and origin is not None and len(origin) == 16 else None
                folder.pair.ours[uid] = Held(folder.shared(flags), link, was)
                if link is not None:
                    held.add(link)
        return self._elsewhere(folders, held)

    def _link(self, origin: bytes | None, prefixes: Mapping[bytes, int], looked_at: Mapping[int, Folder]) -> Key | None:
        if origin is None or len(origin) != 16:
            return None
        box = prefixes.get(origin[:12])
        if box is None:
            return None
        uid = int.from_bytes(origin[12:], "big")
        folder = looked_at.get(box)
        # Without a row it was never agreed on, or a repair has lost the row: as good as new.
        return (box, uid) if folder is None or uid in folder.pair.base else None

    def _elsewhere(self, folders: Sequence[Folder], held: set[Key]) -> frozenset[Key]:
        """Whoever seems deleted is asked for once more: he may have moved while we looked, or be out of our sight."""
        found: set[Key] = set()
        for folder in folders:
            missing = [uid for uid in folder.pair.base if (folder.id, uid) not in held]
            by_origin = {self.origin(folder.box, uid): uid for uid in missing}
            for origin, place in self.account.find_origins(list(by_origin)).items():
                if place.live:
                    found.add((folder.id, by_origin[origin]))
        return frozenset(found)

    def candidates(self, folder: Folder, uids: Iterable[int]) -> list[Ours]:
        """Our messages, with what they can be recognised by."""
        wanted = set(uids)
        if folder.here is None or not wanted:
            return []
        mailbox, identities = int(folder.here.id), self._identities(folder, wanted)
        return [
            Ours(
                (mailbox, each.uid),
                each.uid,
                each.internaldate,
                each.size,
                each.message_id,
                each.sha256,
                identities.get(each.uid),
            )
            for each in self.account.recognise(mailbox)
            if each.live and each.uid in wanted
        ]

    def _identities(self, folder: Folder, uids: set[int]) -> dict[int, str | None]:
        """By our UID, the server's own of what these were there."""
        ours = folder.pair.ours
        links = {link: uid for uid in uids if uid in ours and (link := ours[uid].link) is not None}
        return {
            links[box, uid]: read_identity(detail)
            for box in sorted({box for box, _ in links})
            for uid, _, _, detail in self.account.remote_rows(box)
            if detail is not None and (box, uid) in links
        }

    # ---- folders

    def put_pair(self, name: str, mailbox: Mailbox, uidvalidity: int, identity: str | None) -> RemoteBox:
        """A pair from now on, of which nothing is agreed on yet."""
        cursor = Cursor(identity=identity, agreed=mailbox.name)
        with self.account.transaction() as transaction:
            box = RemoteBox(0, self.remote, name, mailbox.id, uidvalidity, cursor=msgspec.json.encode(cursor))
            made = transaction.put_remote_box(box)
            transaction.drop_remote_messages(made.id)
            return made

    def begin(self, box: RemoteBox, uidvalidity: int) -> RemoteBox:
        """The server numbered anew: nothing that we know of it means anything now. Content will tell what is what."""
        with self.account.transaction() as transaction:
            transaction.drop_remote_messages(box.id)  # origins stay: they tell where a message was
            return transaction.put_remote_box(replace(box, uidvalidity=uidvalidity, uidnext=0, modseq=0))

    def drop_pair(self, box: RemoteBox) -> None:
        """Forget a pair; what is left of it here is as new."""
        with self.account.transaction() as transaction:
            self._unlink(transaction, box)
            transaction.drop_remote_box(box.id)

    def delete_here(self, folder: Folder) -> bool:
        """Our mailbox and the pair, unless something happened to it since we looked."""
        assert folder.here is not None
        with self.account.transaction() as transaction:
            with suppress(MailboxMissing):
                now = transaction.mailbox(folder.here.name)
                if now.id == folder.here.id:
                    if now.highestmodseq != folder.here.highestmodseq or now.messages != len(folder.pair.ours):
                        return False
                    transaction.delete_mailbox(now.name)
            transaction.drop_remote_box(folder.id)
        return True

    def _unlink(self, transaction: Transaction, box: RemoteBox) -> None:
        by_mailbox: dict[int, list[tuple[int, bytes | None]]] = {}
        for _, mailbox, uid in self._linked(box):
            by_mailbox.setdefault(mailbox, []).append((uid, None))
        for mailbox, rows in by_mailbox.items():
            for start in range(0, len(rows), STEP):
                transaction.set_origins(mailbox, rows[start : start + STEP])

    def _linked(self, box: RemoteBox) -> list[tuple[int, int, int]]:
        """(UID there, our mailbox, our UID) of all that have an origin in the folder, tombstones too."""
        uids = self.account.remote_uids(box.id).uids
        by_origin = {self.origin(box, uid): uid for uid in uids}
        found = self.account.find_origins(list(by_origin))
        return [(by_origin[origin], place.mailbox, place.uid) for origin, place in found.items()]

    def rename_pair(self, box: RemoteBox, name: str, *, agreed: str, here: tuple[str, str] | None = None) -> RemoteBox:
        """The folder is called otherwise there now, and so, with `here` (old, new), our mailbox. One transaction."""
        cursor = read_cursor(box.cursor)
        cursor.agreed, cursor.here = agreed, 0
        renamed = replace(box, name=name, cursor=msgspec.json.encode(cursor))
        linked = self._linked(box) if name != box.name else []
        with self.account.transaction() as transaction:
            by_mailbox: dict[int, list[tuple[int, bytes | None]]] = {}
            for uid, mailbox, ours in linked:
                by_mailbox.setdefault(mailbox, []).append((ours, self.origin(renamed, uid)))
            for mailbox, rows in by_mailbox.items():
                for start in range(0, len(rows), STEP):
                    transaction.set_origins(mailbox, rows[start : start + STEP])
            if here is not None:
                transaction.rename_mailbox(*here)
            return transaction.put_remote_box(renamed)

    def settle(self, folder: Folder) -> None:
        """Both sides are the same: what did not change since need not be looked at again."""
        assert folder.here is not None
        cursor = folder.cursor
        cursor.agreed, cursor.here = folder.here.name, folder.here.highestmodseq
        cursor.complete, cursor.messages = False, len(folder.pair.theirs)
        box = replace(folder.box, modseq=folder.modseq, uidnext=folder.uidnext, cursor=msgspec.json.encode(cursor))
        if box != folder.box:
            with self.account.transaction(durable=False) as transaction:
                folder.box = transaction.put_remote_box(box)

    def revive(self, folder: Folder, name: str) -> None:
        """Our mailbox was deleted, but something in its folder changed since: it is made again."""
        with self.account.transaction() as transaction:
            try:
                mailbox = transaction.mailbox(name)
            except MailboxMissing:
                mailbox = transaction.create_mailbox(name, subscribe=True)
            cursor = folder.cursor
            cursor.agreed = mailbox.name
            box = replace(folder.box, mailbox=mailbox.id, cursor=msgspec.json.encode(cursor))
            folder.box = transaction.put_remote_box(box)
        folder.here = mailbox
        folder.pair.mailbox = mailbox.id

    # ---- messages that came

    def take(self, folder: Folder, arrivals: Sequence[Arrival], matches: Sequence[Match]) -> int:
        """One transaction: new ones in, those that are ours linked or moved. Returns how many were added."""
        assert folder.here is not None
        mailbox = folder.here.id
        added = 0
        with self.account.transaction() as transaction:
            known = self.account.find_origins([self.origin(folder.box, each.uid) for each in arrivals])
            for at in known.values():
                # A tombstone of an earlier life, or one whose row was lost: the new copy takes the origin over.
                transaction.set_origins(at.mailbox, [(at.uid, None)])
            rows: list[tuple[int, Flags, State, str | None]] = []
            for each in arrivals:
                if each.staged is None:
                    tries = tries_of(self._detail(folder, each.uid)) + 1
                    rows.append((each.uid, NO_FLAGS, State.FAILED, tried(tries, each.problem)))
                    continue
                flags = self._append(transaction, folder, each)
                rows.append((each.uid, flags, State.KEPT, each.identity))
                added += 1
            for match in matches:
                base = self._match(transaction, folder, mailbox, match)
                if base is not None:
                    rows.append((match.uid, base, State.KEPT, match.identity))
            transaction.put_remote_messages(folder.id, rows)
        return added

    def _detail(self, folder: Folder, uid: int) -> str | None:
        return next((detail for number, _, detail in self.account.remote_missing(folder.id) if number == uid), None)

    def _append(self, transaction: Transaction, folder: Folder, each: Arrival) -> Flags:
        assert folder.here is not None and each.staged is not None
        flags = each.flags
        for attempt in (flags, flags & frozenset(SYSTEM_FLAGS)):
            try:
                transaction.append(
                    folder.here.id,
                    each.staged,
                    flags=attempt,
                    internaldate=each.internaldate,
                    origin=self.origin(folder.box, each.uid),
                )
                return folder.shared(attempt)
            except LimitReached:
                if attempt == flags & frozenset(SYSTEM_FLAGS):
                    raise
        raise AssertionError("one of the two returns or raises")

    def _match(self, transaction: Transaction, folder: Folder, mailbox: int, match: Match) -> Flags | None:
        """Link or move one of ours to what it is there now; the flags that are agreed on. None: it is gone."""
        home, uid = match.place
        if home != mailbox and not match.stays:
            moved = transaction.move(home, [uid], mailbox)
            if not moved:
                return None
            home, uid = mailbox, moved[0][1]
        transaction.set_origins(home, [(uid, self.origin(folder.box, match.uid))])
        base = self._base.get(match.old, None) if match.old is not None else None
        if match.old is not None and match.old in self._vanished:
            transaction.drop_remote_messages(match.old[0], [match.old[1]])
        theirs = folder.pair.theirs[match.uid]
        ours = self._flags_here.get(match.place, NO_FLAGS)
        return advance(NO_FLAGS, ours, theirs) if base is None else base

    def remember(self, folders: Sequence[Folder]) -> None:
        """Before `take`: what was agreed on of messages that may turn out to have moved."""
        self._base, self._flags_here, self._vanished = {}, {}, set()
        for folder in folders:
            pair = folder.pair
            for uid, held in pair.ours.items():
                self._flags_here[pair.mailbox, uid] = held.flags
            for uid, flags in pair.base.items():
                self._base[pair.id, uid] = flags
                if uid not in pair.theirs:
                    self._vanished.add((pair.id, uid))

    # ---- after a change there

    def uploaded(self, folder: Folder, done: Sequence[tuple[Place, int, Key | None]]) -> None:
        """(ours, UID there, what it was before) of messages that were put there. Their flags are agreed on next."""
        with self.account.transaction() as transaction:
            for (mailbox, uid), theirs, old in done:
                transaction.set_origins(mailbox, [(uid, self.origin(folder.box, theirs))])
                if old is not None:
                    transaction.drop_remote_messages(old[0], [old[1]])
            transaction.put_remote_messages(folder.id, [(uid, NO_FLAGS, State.KEPT, None) for _, uid, _ in done])

    def moved_there(
        self, source: Folder, target: Folder, done: Sequence[tuple[int, int, Place]], *, left: bool
    ) -> None:
        """(old UID, new UID, ours) of messages that were moved, or (`left`) copied and still lie there as well."""
        with self.account.transaction() as transaction:
            for _, uid, (mailbox, ours) in done:
                transaction.set_origins(mailbox, [(ours, self.origin(target.box, uid))])
            rows = [(uid, source.pair.base.get(old, NO_FLAGS), State.KEPT, None) for old, uid, _ in done]
            transaction.put_remote_messages(target.id, rows)
            if not left:
                transaction.drop_remote_messages(source.id, [old for old, _, _ in done])

    def forget(self, folder: Folder, uids: Sequence[int]) -> None:
        """Gone on both sides, or to be met as new."""
        with self.account.transaction() as transaction:
            transaction.drop_remote_messages(folder.id, list(uids))

    # ---- a change here

    def set_flags(self, folder: Folder, changes: Sequence[FlagChange], actual: Mapping[int, Flags]) -> int:
        """Our half of merged flags, and the new base. `actual`: what the server has now. Returns how many changed."""
        changed: set[int] = set()
        for start in range(0, len(changes), STEP):
            with self.account.transaction(durable=False) as transaction:
                rows = []
                for each in changes[start : start + STEP]:
                    mailbox, uid = each.place
                    if each.add_here:
                        changed.update(transaction.store_flags(mailbox, [uid], "+", each.add_here).changed)
                    if each.remove_here:
                        changed.update(transaction.store_flags(mailbox, [uid], "-", each.remove_here).changed)
                    theirs = actual.get(each.key[1], folder.pair.theirs[each.key[1]])
                    old = folder.pair.base.get(each.key[1], NO_FLAGS)
                    rows.append((each.key[1], advance(old, each.agreed, theirs), State.KEPT, None))
                transaction.put_remote_messages(folder.id, rows)
        return len(changed)

    def expunge_here(self, folder: Folder, gone: Sequence[Gone]) -> int:
        """Remove what the server has no more, but for what was changed since we looked. Returns how many."""
        assert folder.here is not None
        mailbox = folder.here.id
        by_uid = {each.place[1]: each.key[1] for each in gone}
        removed = 0
        uids = sorted(by_uid)
        for start in range(0, len(uids), STEP):
            part = uids[start : start + STEP]
            with self.account.transaction() as transaction:
                # Not to mark them, but to learn who was changed meanwhile: that one is judged again.
                mark = frozenset((DELETED,))
                done = transaction.store_flags(mailbox, part, "+", mark, unchanged_since=folder.looked_at)
                due = sorted(set(part) - set(done.modified))
                out = transaction.expunge(mailbox, due, only_deleted=False)
                transaction.drop_remote_messages(folder.id, [by_uid[uid] for uid in out])
                removed += len(out)
        return removed
