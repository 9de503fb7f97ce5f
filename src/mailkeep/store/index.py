"""The messages of a mailbox in memory: UIDs, flags and modseqs, shared by all sessions of the process.

FLAGS, STORE's answers and flag searches are served from here and never touch SQL. An index is touched on the event
loop's thread only. It moves by effects, what one transaction did, in the order of commits; where this process missed
one (another process wrote), it catches up from SQL. `synced` says as of which account-wide modseq it is exact, so
neither an effect nor a catch-up is ever applied twice.

Appends extend the arrays in place and flag changes write into them; a removal replaces them, so a session that has
not told its client of an expunge yet may keep the old ones as its own snapshot, with its own count.
"""

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

BATCHES_MAX: Final = 256
STEP: Final = 500  # scattered flag changes that are written at once


@dataclass(frozen=True, slots=True)
class Batch:
    """What one change did to a mailbox. `by` is whoever asked for it, in this process; None: not known."""

    added: Sequence[int]
    changed: Sequence[int]
    removed: Sequence[int]
    by: object | None


@dataclass(frozen=True, slots=True)
class Effect:
    """What one call in a transaction did to one mailbox: for the indexes, once it has committed.

    The kinds (added, changed, removed) are never mixed in one effect.
    """

    mailbox: int
    modseq: int
    by: object | None
    uids: Sequence[int] = ()  # added, rising
    flags: Sequence[int] = ()
    modseqs: Sequence[int] = ()
    changed: Sequence[int] = ()  # rising
    changed_flags: Sequence[int] = ()
    removed: Sequence[int] = ()  # rising
    gone: bool = False  # the mailbox itself
    uidnext: int = 0  # raised to this


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of a mailbox, as read in one read transaction at the account-wide modseq `synced`."""

    synced: int
    uidvalidity: int
    uidnext: int
    highestmodseq: int
    uids: "array[int]"
    flags: "array[int]"
    modseqs: "array[int]"


@dataclass(frozen=True, slots=True)
class Catchup:
    """What happened to a mailbox between an index's `synced` and this one, whoever did it. None: it is gone."""

    synced: int
    uidnext: int
    highestmodseq: int
    added: list[tuple[int, int, int]]  # uid, flags, modseq
    changed: list[tuple[int, int, int]]
    removed: list[int]
    gone: bool


class MailboxIndex:
    """See the module. `uids`, `flags` (FlagSetIds) and `modseqs` are parallel, live messages only, by UID."""

    __slots__ = (
        "_batches",
        "_watchers",
        "deleted",
        "flags",
        "highestmodseq",
        "mailbox_id",
        "modseqs",
        "synced",
        "uidnext",
        "uids",
        "uidvalidity",
        "users",
        "version",
    )

    def __init__(self, mailbox_id: int, snapshot: Snapshot) -> None:
        self.mailbox_id = mailbox_id
        self.uidvalidity = snapshot.uidvalidity
        self.uidnext = snapshot.uidnext
        self.highestmodseq = snapshot.highestmodseq
        self.uids = snapshot.uids
        self.flags = snapshot.flags
        self.modseqs = snapshot.modseqs
        self.synced = snapshot.synced
        self.version = 0
        self.deleted = False
        self.users = 0  # Account.index minus Account.release
        self._batches: deque[Batch] = deque(maxlen=BATCHES_MAX)
        self._watchers: list[Callable[[], None]] = []

    def position(self, uid: int) -> int:
        """Where the UID stands; -1 if it is not here."""
        found = bisect_left(self.uids, uid)
        return found if found < len(self.uids) and self.uids[found] == uid else -1

    def since(self, version: int) -> list[Batch] | None:
        """The batches after that version, oldest first; None when they are no longer known."""
        count = self.version - version
        if count > len(self._batches):
            return None
        return [self._batches[index] for index in range(len(self._batches) - count, len(self._batches))]

    def watch(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call back, on the loop, after each batch (several that came together: once). Returns what ends it."""
        entry = _Watcher(callback)
        self._watchers.append(entry)

        def unwatch() -> None:
            if entry in self._watchers:
                self._watchers.remove(entry)

        return unwatch

    @property
    def watched(self) -> bool:
        return bool(self._watchers)

    def tell(self) -> None:
        for watcher in list(self._watchers):
            watcher()

    def applying(self, effects: Sequence[Effect], *, last: int) -> Iterator[None]:
        """Take in what one transaction did to this mailbox; it ended at modseq `last`.

        In steps, since flags of many scattered messages take a while: between two of them the loop may do other
        things. Should a catch-up come in between, it has brought the rest, and more.
        """
        for effect in merge_added([effect for effect in effects if effect.modseq > self.synced]):
            if effect.changed:
                yield from self._applying_flags(effect)
            if effect.modseq > self.synced:
                self._apply(effect)
        self.synced = max(self.synced, last)

    def apply(self, effects: Sequence[Effect], *, last: int) -> bool:
        """As `applying`, at once. True: something changed."""
        before = self.version
        for _ in self.applying(effects, last=last):
            pass
        return self.version != before

    def _applying_flags(self, effect: Effect) -> Iterator[None]:
        uids, flags = array("I", effect.changed), array("I", effect.changed_flags)
        low = bisect_left(self.uids, uids[0])
        if self.uids[low : low + len(uids)] == uids:  # neighbours: most of the time
            self.flags[low : low + len(uids)] = flags
            self.modseqs[low : low + len(uids)] = array("Q", [effect.modseq]) * len(uids)
            return
        for start in range(0, len(uids), STEP):
            if start:
                yield
            if effect.modseq > self.synced:
                _set_flags(self, uids[start : start + STEP], flags[start : start + STEP], effect.modseq)

    def _apply(self, effect: Effect) -> None:
        if effect.uids:
            self.uids.extend(effect.uids)
            self.flags.extend(effect.flags)
            self.modseqs.extend(effect.modseqs)
            self.uidnext = effect.uids[-1] + 1
        self.uidnext = max(self.uidnext, effect.uidnext)
        if effect.removed:
            self._remove(effect.removed)
        self.highestmodseq = max(self.highestmodseq, effect.modseq)
        self.deleted = self.deleted or effect.gone
        self._note(Batch(effect.uids, effect.changed, effect.removed, effect.by))

    def catch_up(self, news: Catchup) -> bool:
        """Take in what SQL says happened since `synced`. True: something changed."""
        self.synced = max(self.synced, news.synced)
        if not (news.added or news.changed or news.removed or news.gone):
            self.highestmodseq = max(self.highestmodseq, news.highestmodseq)
            self.uidnext = max(self.uidnext, news.uidnext)
            return False
        if news.added:
            self.uids.extend([row[0] for row in news.added])
            self.flags.extend([row[1] for row in news.added])
            self.modseqs.extend([row[2] for row in news.added])
        for uid, flags, modseq in news.changed:
            at = self.position(uid)
            if at >= 0:
                self.flags[at] = flags
                self.modseqs[at] = modseq
        if news.removed:
            self._remove(news.removed)
        self.highestmodseq = max(self.highestmodseq, news.highestmodseq)
        self.uidnext = max(self.uidnext, news.uidnext)
        self.deleted = self.deleted or news.gone
        self._note(Batch([row[0] for row in news.added], [row[0] for row in news.changed], news.removed, None))
        return True

    def _note(self, batch: Batch) -> None:
        self._batches.append(batch)
        self.version += 1

    def _remove(self, removed: Sequence[int]) -> None:
        self.uids, self.flags, self.modseqs = without(self.uids, removed, self.uids, self.flags, self.modseqs)


def merge_added(effects: list[Effect]) -> list[Effect]:
    """The same effects; arrivals in a row that one asked for as one. A burst of deliveries is one batch then."""
    if len(effects) < 2:
        return effects
    merged: list[Effect] = []
    run: list[Effect] = []
    for effect in effects:
        if run and not (effect.uids and run[-1].uids and effect.by is run[-1].by):
            merged.append(_join(run))
            run = []
        run.append(effect)
    merged.append(_join(run))
    return merged


def _join(run: list[Effect]) -> Effect:
    if len(run) == 1:
        return run[0]
    return Effect(
        run[-1].mailbox,
        run[-1].modseq,
        run[-1].by,
        uids=[uid for effect in run for uid in effect.uids],
        flags=[id for effect in run for id in effect.flags],
        modseqs=[modseq for effect in run for modseq in effect.modseqs],
    )


class _Watcher:
    """One watch: the same callback may be watching twice, and each ends on its own."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def __call__(self) -> None:
        self._callback()


def without(uids: "array[int]", removed: Sequence[int], *columns: "array[int]") -> list["array[int]"]:
    """New arrays: `columns` (parallel to `uids`) without the rows of `removed` (rising)."""
    kept: list[tuple[int, int]] = []  # [start, stop) of rows that stay
    start = at = 0
    for uid in removed:
        # Removals tend to be neighbours: look at the next place before searching for it.
        if not (at < len(uids) and uids[at] == uid):
            at = bisect_left(uids, uid, at)
            if at >= len(uids) or uids[at] != uid:
                continue
        if at > start:
            kept.append((start, at))
        start = at = at + 1
    if start < len(uids):
        kept.append((start, len(uids)))
    result = []
    for column in columns:
        fresh = array(column.typecode)
        for low, high in kept:
            fresh.extend(column[low:high])
        result.append(fresh)
    return result


def _set_flags(index: MailboxIndex, uids: "array[int]", flags: "array[int]", modseq: int) -> None:
    """Write flags of messages, of those that are here."""
    positions = list(map(partial(bisect_left, index.uids), uids))
    if positions[-1] >= len(index.uids) or list(map(index.uids.__getitem__, positions)) != uids.tolist():
        here = [number for number, uid in enumerate(uids) if index.position(uid) >= 0]
        positions = [positions[number] for number in here]
        flags = array("I", [flags[number] for number in here])
    for position, flagset in zip(positions, flags, strict=True):
        index.flags[position] = flagset
        index.modseqs[position] = modseq
