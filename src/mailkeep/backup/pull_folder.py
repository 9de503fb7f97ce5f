"""One folder from a server into its mailbox here: look what changed, follow flags and losses, fetch what is new.

Knows one connection and one folder's `Books`. It may be cut anywhere and called again with the same `FolderPull`: what
was committed is on the books. That one message never stops a folder is seen to by `imap_bodies`, which gives each UID
an answer; what it could not get is booked here.

The hard idea is the order: losses and flags first, which cost little and are on the books at once, then what is new,
which the `conveyor` writes while more is on its way. The cursor comes last.
"""

import asyncio
import contextlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final, TypeVar

from mailkeep.backup import gmail
from mailkeep.backup.books import Books, Row, clean_flags
from mailkeep.backup.conveyor import Conveyor, labels_of
from mailkeep.backup.imap_remote import Facts, ImapConnection, RemoteMailbox, Selected
from mailkeep.backup.plan import (
    Abilities,
    Difference,
    Said,
    Way,
    beyond_cap,
    cap_of,
    choose,
    compare,
    counts_agree,
    newest_first,
    turn,
)
from mailkeep.backup.quirks import Quirks
from mailkeep.backup.recognise import Theirs, identity_of
from mailkeep.mail.flags import Flags
from mailkeep.mail.numset import NumSet
from mailkeep.mail.selection import Need, Selection
from mailkeep.store.remotes import RemoteBox, State
from mailkeep.store.renderer import Renderer
from mailkeep.store.staging import Staging

SIZE_MAX: Final = 2 << 30  # of one message, where no other limit is set

T = TypeVar("T")


@dataclass(slots=True)
class Wanted:
    """What all folders of a run share."""

    selection: Selection
    quirks: Quirks
    size_max: int | None
    stage: Callable[[], Staging]
    renderer: Renderer
    report: Callable[[int, int, str], None]  # bytes, messages, folder: done
    expect: Callable[[int], None]  # so many messages more are to be fetched


@dataclass(slots=True)
class FolderPull:
    """See the module. `progress` counts what was done, so that the caller sees whether a new attempt makes sense."""

    folder: RemoteMailbox
    books: Books
    wanted: Wanted
    progress: int = 0
    expected: bool = False

    async def run(self, connection: ImapConnection, retired: Sequence[RemoteBox]) -> None:
        """Everything. Raises RemoteError, Unreachable, StoreError; the books are right whenever it does."""
        books = self.books
        kept = books.kept_before()
        can = abilities(connection)
        way = choose(Said.of_status(self.folder.status), kept, can)
        since = (kept.uidvalidity, kept.modseq, None) if kept and way is Way.QRESYNC else None
        selected = await connection.select(self.folder.name, since=since, uids=way in (Way.FIRST, Way.RECOGNISE))
        said = Said(selected.uidvalidity, selected.uidnext or None, selected.exists, selected.highestmodseq)
        way = choose(said, kept, can)
        books.ledger.way = way.value
        books.ledger.server = selected.exists
        if way is Way.RECOGNISE:
            await in_thread(books.retire, selected.uidvalidity)
            retired = [*(box for box in retired if box.uidvalidity != selected.uidvalidity), *books.retired]
        elif way is Way.FIRST:
            await in_thread(books.begin, selected.uidvalidity)
        if retired:
            await in_thread(books.fill_shelf, retired)
        if not books.cursor.complete and books.labels is None and connection.has(gmail.EXTENSION):
            await in_thread(books.shelve_copies)
        await in_thread(books.load)
        if books.policy.mirror and books.policy.allow_mass:
            await in_thread(books.remove_gone)
        fresh, sweep = await self._look(connection, selected, way)
        due = await in_thread(books.due_again)
        await self._bring(connection, fresh, due)
        await in_thread(books.clear_shelf)
        await in_thread(
            lambda: books.finish(
                uidnext=selected.uidnext, modseq=selected.highestmodseq or 0, messages=selected.exists, sweep=sweep
            )
        )

    # ---- what changed

    async def _look(self, connection: ImapConnection, selected: Selected, way: Way) -> tuple["array[int]", int]:
        """Follow flags and losses; (UIDs that have no row, where the next turn of flags begins)."""
        books = self.books
        back = 0 < selected.uidnext < books.box.uidnext
        resynced = selected.vanished is not None and books.cursor.complete and books.labels is None and not back
        if resynced and selected.vanished is not None:
            found = self._resynchronised(selected, selected.vanished)
            if found is not None and not await self._set_apart(connection, found[0].returned, array("I")):
                difference, changes = found
                await self._follow(difference, changes)
                return difference.fresh, 0
        listed = await self._all_uids(connection, selected, way)
        difference = compare(listed, books.uids, books.gone)
        doubtful, late = (self._known(listed), difference.vanished) if back else (difference.returned, array("I"))
        if await self._set_apart(connection, doubtful, late):
            difference = compare(listed, books.uids, books.gone)
            if back:
                difference = Difference(difference.fresh, array("I"), difference.returned)
        cap = cap_of(selected.exists, self.wanted.quirks.folder_cap)
        hidden = beyond_cap(listed, difference.vanished, cap)
        self._note_cap(selected.exists, len(hidden), cap)
        if hidden or len(listed) < selected.exists:
            unsure = set(hidden) if hidden else set(difference.vanished)
            vanished = array("I", [uid for uid in difference.vanished if uid not in unsure])
            difference = Difference(difference.fresh, vanished, difference.returned)
        there = self._known(listed)
        sweep = 0
        if books.box.modseq and selected.highestmodseq and abilities(connection).condstore:
            changes = await self._changed(connection, NumSet(((1, 0xFFFF_FFFF),)), books.box.modseq)
        else:
            part, sweep = turn(there, books.cursor.sweep)
            changes = await self._changed(connection, NumSet.of(part), None)
        await self._follow(difference, changes)
        return difference.fresh, sweep

    async def _set_apart(self, connection: ImapConnection, doubtful: "array[int]", late: "array[int]") -> bool:
        """UIDs that a server should never have given to another message, and did: it counts from the highest there is.

        So where UIDNEXT went back, and where a UID that had vanished is there again, dates and sizes are compared with
        ours. True: some are others; what we have is kept apart then, and they are fetched. `late`: what vanished, and
        may be met among these.
        """
        books, others = self.books, array("I")
        if not doubtful:
            return False
        async for part in connection.facts(NumSet.of(doubtful)):
            trusted = self.wanted.quirks.trust_size
            said = [(each.uid, each.internaldate, each.size if trusted else None) for each in part]
            others.extend(await in_thread(books.others_than, said))
        if not others:
            return False
        books.ledger.notes.append(f"the server gave {len(others):,} UIDs a second time; what was there before is kept")
        await in_thread(books.set_apart, others, late)
        return True

    def _note_cap(self, exists: int, hidden: int, cap: int | None) -> None:
        """A provider that shows only so many: what it hides of what is here, and what it hides altogether."""
        self.books.hidden = hidden
        if cap is None or exists < cap or (self.wanted.quirks.folder_cap is None and not hidden):
            return
        self.books.ledger.notes.append(f"the server shows only {cap:,} messages of a folder")
        said = (self.folder.status or {}).get("MESSAGES") or 0
        self.books.capped = max(said - exists - hidden, 0)

    async def _all_uids(self, connection: ImapConnection, selected: Selected, way: Way) -> "array[int]":
        """All UIDs of the server, without asking where the numbers of SELECT say that they are those we have."""
        books = self.books
        kept = books.kept_before()
        live = books.live_uids()
        if (
            way is not Way.FIRST
            and kept is not None
            and kept.complete
            and selected.uidnext == kept.uidnext
            and counts_agree(selected.exists, len(live))
        ):
            return live
        if not selected.exists:
            return array("I")
        return await connection.uids()

    def _known(self, listed: "array[int]") -> "array[int]":
        """Those of the listed UIDs that have a row."""
        ours = self.books.uids
        if listed == ours:
            return ours
        return array("I", [uid for uid in listed if _index(ours, uid) >= 0])

    def _resynchronised(self, selected: Selected, gone: NumSet) -> tuple[Difference, list[tuple[int, Flags]]] | None:
        """What QRESYNC told. None: it does not come out at the number of messages that there are."""
        books = self.books
        live = books.live_uids()
        vanished = array("I", [live[index] for start, stop in gone.slices(live) for index in range(start, stop)])
        fresh, returned, changes = array("I"), array("I"), []
        for uid, names, _ in sorted(selected.changed):
            index = _index(books.uids, uid)
            if index < 0:
                fresh.append(uid)
                continue
            if books.gone[index]:
                returned.append(uid)
            flags = clean_flags(names)
            if flags != books.account.flagset(books.flags[index]).flags:
                changes.append((uid, flags))
        if not counts_agree(selected.exists, len(live) - len(vanished) + len(fresh) + len(returned)):
            return None
        return Difference(fresh, vanished, returned), changes

    async def _changed(self, connection: ImapConnection, uids: NumSet, since: int | None) -> list[tuple[int, Flags]]:
        """Known messages whose flags on the server are others than those on the books."""
        books, changes = self.books, []
        if not uids or not books.uids:
            return []
        if books.labels is not None:
            return await self._changed_labels(connection, uids, since)
        cleaned: dict[int, Flags] = {}
        same: dict[tuple[int, int], bool] = {}  # (the server's set, ours): a handful of pairs, whatever the mailbox
        async for part in connection.listing(uids, changed_since=since):
            for uid, number in zip(part.uids, part.flags, strict=True):
                index = _index(books.uids, uid)
                if index < 0:
                    continue
                pair = (number, books.flags[index])
                equal = same.get(pair)
                if equal is None:
                    flags = cleaned.setdefault(number, clean_flags(part.flagsets[number]))
                    equal = same[pair] = flags == books.account.flagset(pair[1]).flags
                if not equal:
                    changes.append((uid, cleaned.setdefault(number, clean_flags(part.flagsets[number]))))
        return changes

    async def _changed_labels(
        self, connection: ImapConnection, uids: NumSet, since: int | None
    ) -> list[tuple[int, Flags]]:
        """As `_changed`; labels are followed at once."""
        books, changes = self.books, []
        async for part in connection.facts(uids, changed_since=since, items=("X-GM-LABELS",)):
            labelled = []
            for facts in part:
                index = _index(books.uids, facts.uid)
                if index < 0:
                    continue
                flags = clean_flags(facts.flags)
                labelled.append((facts.uid, labels_of(facts.values), flags))
                if flags != books.account.flagset(books.flags[index]).flags:
                    changes.append((facts.uid, flags))
            await in_thread(books.follow_labels, labelled)
        return changes

    async def _follow(self, difference: Difference, changes: Sequence[tuple[int, Flags]]) -> None:
        books = self.books
        if difference.vanished or difference.returned:
            again = await in_thread(books.come_again, difference.returned)
            returned = array("I", [uid for uid in difference.returned if _index(again, uid) < 0])
            await in_thread(books.apply, Difference(difference.fresh, difference.vanished, returned))
            difference.fresh.extend(again)
        if changes:
            await in_thread(books.change_flags, changes)
            if self.wanted.selection.need() >= Need.FACTS:
                refiltered = [uid for uid, _ in changes if books.states[_index(books.uids, uid)] == State.FILTERED]
                difference.fresh.extend(refiltered)

    # ---- what is new

    async def _bring(self, connection: ImapConnection, fresh: "array[int]", due: "array[int]") -> None:
        """Fetch, unless it is here already by its origin or its content, or not wanted."""
        books = self.books
        if fresh:
            here = await in_thread(books.known_by_origin, fresh)
            if here:
                await self._book_known(connection, NumSet.of(here))
                met = set(here)
                fresh = array("I", [uid for uid in fresh if uid not in met])
        rising = all(one < other for one, other in pairwise(fresh))
        wanted = fresh if rising and not due else array("I", sorted({*fresh, *due}))
        if not wanted:
            return
        if len(books.shelf):
            wanted = await self._recognise(connection, wanted)
        if self.wanted.size_max is not None or self.wanted.selection.need() >= Need.FACTS:
            wanted = await self._select(connection, wanted)
        if not self.expected:
            self.expected = True
            self.wanted.expect(len(wanted))
        await self._fetch(connection, newest_first(wanted))

    async def _book_known(self, connection: ImapConnection, here: NumSet) -> None:
        books = self.books
        async for part in connection.facts(here, items=items_of(connection)):
            known = [(facts.uid, clean_flags(facts.flags), identity_of(facts.values)) for facts in part]
            if books.labels is not None:
                labelled = [(each.uid, labels_of(each.values), clean_flags(each.flags)) for each in part]
                await in_thread(books.follow_labels, labelled)
            await in_thread(books.book_known, known)

    async def _recognise(self, connection: ImapConnection, uids: "array[int]") -> "array[int]":
        """Take what is surely ours from the shelf; the UIDs that are left."""
        books, left = self.books, array("I")
        async for part in connection.facts(NumSet.of(uids), envelope=True, items=items_of(connection)):
            pairs, identities = [], {facts.uid: identity_of(facts.values) for facts in part}
            # None of so many is known: the server makes them anew, and they say nothing.
            told = books.shelf.knows_any(identities.values())
            for facts in sorted(part, key=lambda each: each.uid):
                theirs = theirs_of(facts, self.wanted.quirks)
                ours = books.shelf.take(theirs if told else replace(theirs, identity=None))
                if ours is None:
                    left.append(facts.uid)
                else:
                    pairs.append((ours, facts.uid, clean_flags(facts.flags)))
            await in_thread(books.adopt, pairs, identities)
            if books.labels is not None:
                met = {uid: flags for _, uid, flags in pairs}
                labelled = [(each.uid, labels_of(each.values), met[each.uid]) for each in part if each.uid in met]
                await in_thread(books.follow_labels, labelled)
        return array("I", sorted(left))

    async def _select(self, connection: ImapConnection, uids: "array[int]") -> "array[int]":
        """Book what the filters rule out by flags, date and size; the UIDs that are left."""
        wanted, left = self.wanted, array("I")
        trusted = wanted.quirks.trust_size
        async for part in connection.facts(NumSet.of(uids)):
            rows = []
            for facts in part:
                flags = clean_flags(facts.flags)
                size = facts.size if trusted else None
                if wanted.selection.takes_facts(flags, facts.internaldate, size) is False:
                    rows.append(Row(facts.uid, flags, state=State.FILTERED))
                elif wanted.size_max is not None and (facts.size or 0) > wanted.size_max:
                    rows.append(Row(facts.uid, flags, state=State.TOO_LARGE, detail=f"0 {facts.size} bytes"))
                else:
                    left.append(facts.uid)
            if rows:
                await in_thread(self.books.keep, rows)
        return array("I", sorted(left))

    async def _fetch(self, connection: ImapConnection, uids: "array[int]") -> None:
        wanted = self.wanted
        conveyor = Conveyor(self.books, wanted.selection, wanted.renderer, reported=self._committed)
        if wanted.quirks.fetch_sets_seen:
            # Read-only it should not, and what it says with the body is too late to know.
            async for part in connection.listing(NumSet.of(uids)):
                for uid, number in zip(part.uids, part.flags, strict=True):
                    conveyor.flags_before[uid] = part.flagsets[number]
        coming = connection.bodies(
            uids, staging=wanted.stage, items=items_of(connection), size_max=wanted.size_max or SIZE_MAX
        )
        try:
            async with contextlib.aclosing(coming) as bodies:
                async for body in bodies:
                    await conveyor.add(body)
        finally:
            # Also when the run is being stopped: what is here is committed.
            await conveyor.close()

    def _committed(self, size: int, count: int) -> None:
        self.progress += count
        self.wanted.report(size, count, self.folder.name)


ITEMS: Final = {"EMAILID": "OBJECTID", "X-GM-MSGID": "X-GM-EXT-1", "X-GM-LABELS": "X-GM-EXT-1"}


def items_of(connection: ImapConnection) -> tuple[str, ...]:
    """What a FETCH asks for beside what every server has."""
    return tuple(name for name, needs in ITEMS.items() if connection.has(needs))


async def in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """As `asyncio.to_thread`; who is cancelled waits for the end of the work, so that nothing goes on behind it."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        raise


def _index(uids: "array[int]", uid: int) -> int:
    """Where it stands among rising UIDs; -1: nowhere."""
    index = bisect_left(uids, uid)
    return index if index < len(uids) and uids[index] == uid else -1


def abilities(connection: ImapConnection) -> Abilities:
    """What the server says it can, as far as it is trusted."""
    return Abilities(connection.has("QRESYNC"), connection.has("CONDSTORE"))


def theirs_of(facts: Facts, quirks: Quirks) -> Theirs:
    """What a listed message can be recognised by."""
    envelope = facts.values.get("ENVELOPE")
    message_id = envelope[9] if isinstance(envelope, (tuple, list)) and len(envelope) > 9 else None
    if isinstance(message_id, bytes):
        message_id = message_id.decode("utf-8", "replace")
    size = facts.size if quirks.trust_size else None
    return Theirs(
        facts.uid,
        facts.internaldate,
        size,
        message_id if isinstance(message_id, str) else None,
        identity_of(facts.values),
    )
