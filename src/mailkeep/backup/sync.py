"""One account here and one there kept the same, both ways: the order of things.

Knows that folders come first (`sync_folders`), then what is new on either side, then what follows of it, and deletions
last. What is to be done is said by `merge`, how it is done there by `sync_server`, how it is written down here by
`sync_books`.

The hard idea: nothing is remembered but what both sides agreed on. Work that was done here without a connection, by
whatever client (RFC 4549), is no journal that is replayed: it is the difference between what lies here and what was
agreed on. So a run goes in rounds, each of which looks at both sides anew, and ends with one that finds nothing left to
do. That last look is also the proof that both are the same; and a run that was cut is simply a run.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mailkeep import log
from mailkeep.backup.context import Context
from mailkeep.backup.imap_remote import Appended, Body, ImapConnection, Pool
from mailkeep.backup.merge import Gone, Key, Place, Plan, Survey, Upload, is_mass, merge, survey
from mailkeep.backup.pace import WAIT_MAX_S, Patience
from mailkeep.backup.pull import pool_of
from mailkeep.backup.pull_folder import items_of, theirs_of
from mailkeep.backup.recognise import Ours, Shelf, identity_of
from mailkeep.backup.settings import Remote, load_remotes
from mailkeep.backup.states import save_sync
from mailkeep.backup.sync_books import Arrival, Folder, Match, SyncBooks
from mailkeep.backup.sync_folders import Tree
from mailkeep.backup.sync_ledger import SyncReport
from mailkeep.backup.sync_server import Flagging, append, expunge, is_untouched, look, move
from mailkeep.errors import (
    BadCredentials,
    ConfigError,
    LoginError,
    MessageMissing,
    ProtocolError,
    RemoteBusy,
    RemoteError,
    StoreCorrupt,
    StoreError,
    Unreachable,
    UsageError,
)
from mailkeep.mail.numset import NumSet
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.locks import locked
from mailkeep.store.staging import Staged, Staging
from mailkeep.wire import imap_command as command

_log = log.get("backup")

ROUNDS_MAX: Final = 12  # a side that changes faster than that is met again in the next run
WAIT_FIRST_S: Final = 1.0  # doubled each time
BATCH_MESSAGES: Final = 100
BATCH_BYTES: Final = 8 << 20
LOOK_HERE_S: Final = 1.0  # between two glances at our own counters, while following
LOOK_THERE_S: Final = 300.0  # where the server tells nothing
FLAG_TRIES: Final = 2  # in one run, of a flag that the server takes and does not keep
_OFTEN_EMPTIED: Final = frozenset(("\\Trash", "\\Junk"))
STOPPED: Final = "stopped; give the same command again to go on where it was"


class _Stopped(Exception):
    """Ctrl-C: what is done is written down."""


@dataclass(slots=True)
class Run:
    """One run. What it tried without success is not tried again in it."""

    context: Context
    remote: Remote
    account: Account
    books: SyncBooks
    report: SyncReport
    selection: Selection
    planned: bool
    allow_mass: bool
    refused: dict[Place, tuple[str, str]] = field(default_factory=dict)  # uploads: reason, the server's words
    failed: dict[Key, str] = field(default_factory=dict)  # downloads
    sent: set[Place] = field(default_factory=set)  # uploads whose place there was not told
    copied: set[Key] = field(default_factory=set)
    flagged: dict[Key, int] = field(default_factory=dict)
    done: int = 0  # changes of either side

    def check(self) -> None:
        """Between two steps."""
        if self.context.stop.is_set():
            raise _Stopped


async def sync(context: Context, remote: Remote, *, plan: bool = False, allow_mass: bool = False) -> SyncReport:
    """Make both sides the same. Never raises for what the server does: the report says it.

    Raises UsageError where this account or remote cannot be synchronised, StoreError of a bad store.
    """
    account = context.store.account(remote.account)
    check_possible(context, remote, account)
    report = SyncReport(remote.name, account.info.name, remote.settings.host, context.now(), planned=plan)
    selection = context.selection or remote.settings.selection or Selection()
    books = SyncBooks(account, remote.id)
    run = Run(context, remote, account, books, report, selection, plan, allow_mass)
    begun = time.monotonic()
    busy = f"another run of {remote.name} is under way; wait for its end"
    try:
        with locked(account.path / f"remote-{remote.id}.lock", alone=True, busy=busy):
            async with pool_of(context, remote) as pool:
                await _persist(run, pool)
    except (LoginError, RemoteError, Unreachable, ProtocolError, StoreError, ConfigError) as error:
        report.error, report.failure = error.text, error
    except _Stopped:
        report.stopped = STOPPED
    report.seconds = time.monotonic() - begun
    if not plan:
        save_sync(context.store, remote, report)
    return report


def check_possible(context: Context, remote: Remote, account: Account) -> None:
    """Raises UsageError that says what to do."""
    if remote.settings.protocol == "pop3":
        raise UsageError(f"{remote.name} is read by POP3, which has no two ways: use `mailkeep pull {remote.name}`")
    if account.info.read_only:
        raise UsageError(
            f"clients may only read {account.info.name}, so there is nothing to bring back to the server: "
            f"`mailkeep user access {account.info.name} full` opens it"
        )
    if not (context.selection or remote.settings.selection or Selection()).takes_all_messages:
        raise UsageError("a two-way run takes whole folders: leave out all filters but --folder and --not-folder")
    ours = {box.mailbox for box in account.remote_boxes(remote.id) if "\0" not in box.name}
    into = context.into or remote.settings.into
    names = {box.id: box.name for box in account.mailboxes()}
    for other in load_remotes(context.store):
        if other.id == remote.id or other.account != remote.account or other.settings.protocol == "pop3":
            continue
        for box in account.remote_boxes(other.id):
            name = names.get(box.mailbox) if box.mailbox is not None else None
            if name is not None and (box.mailbox in ours or not into or name.startswith(f"{into}/")):
                raise UsageError(
                    f"{name} holds mail of {other.name} as well, and each would take the other's for its own: "
                    "give each remote an account of its own, or a tree with --into"
                )


async def _persist(run: Run, pool: Pool) -> None:
    """Rounds until one finds nothing to do, over connections that may be cut."""
    patience, rounds = Patience(WAIT_FIRST_S, run.done), 0
    while rounds < ROUNDS_MAX:
        run.check()
        try:
            async with pool.connection() as connection:
                done = run.done
                await Round(run, connection).work()
                rounds += 1
                if run.done == done or run.planned:
                    run.report.finished = not run.planned
                    return
        except (RemoteBusy, Unreachable, ProtocolError) as error:
            wait_s = patience.after(error, run.done)
            _log.info("trying again", remote=run.remote.name, seconds=wait_s, error=error.text)
            if patience.attempts > 1 or wait_s > WAIT_FIRST_S:
                await _pause(run.context, wait_s)
    run.report.note("both sides change while they are compared: run it again")


async def _pause(context: Context, seconds: float) -> None:
    """So long, by the run's own clock, or until it is told to stop."""
    await _first_of(context.clock.sleep(seconds), context.stop.wait())


async def _first_of(*works: Awaitable[object]) -> None:
    """Until one of them is done; the others are given up."""
    waiting = [asyncio.ensure_future(each) for each in works]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


class Round:
    """One look at both sides, and what follows from it."""

    def __init__(self, run: Run, connection: ImapConnection) -> None:
        self.run = run
        self.books = run.books
        self.connection = connection
        self.folders: dict[int, Folder] = {}
        self.settled = 0  # messages of folders where nothing changed
        self.blind = False  # a folder could not be looked at: what seems deleted may have moved there

    async def work(self) -> None:
        """All of it. Raises RemoteBusy, Unreachable, ProtocolError, StoreError, LoginError."""
        run = self.run
        tree = Tree(
            self.books,
            self.connection,
            run.report,
            run.selection,
            run.context.into or run.remote.settings.into,
            dry=run.planned,
        )
        aligned = await tree.align()
        run.done += tree.done
        for folder in aligned:
            run.check()
            if _is_quiet(folder):
                folder.ledger.settled = True
                self.settled += folder.cursor.messages
            else:
                await self._look(folder)
        if not run.planned:
            await self._subscriptions()
        elsewhere = await self._load()
        found = survey(folder.pair for folder in self.folders.values())
        fresh = self._promising(found)
        if run.planned:
            self._count_plan(fresh, merge((each.pair for each in self.folders.values()), elsewhere=elsewhere))
            return
        if fresh:
            await self._arrivals(found, fresh)
            elsewhere = await self._load()
        plan = merge((each.pair for each in self.folders.values()), elsewhere=elsewhere)
        self._guard(plan)
        left = plan.pairs() | set(fresh)
        await self._carry_out(plan)
        await self._settle(left)

    # ---- looking

    async def _look(self, folder: Folder) -> None:
        try:
            if folder.there is None:
                await asyncio.to_thread(self.books.load_base, folder)
            else:
                await look(self.connection, self.books, folder)
        except (RemoteBusy, Unreachable):
            raise
        except RemoteError as error:
            folder.ledger.error = error.text
            self.blind = True
        else:
            self.folders[folder.id] = folder

    async def _load(self) -> frozenset[Key]:
        """Our side of all folders. Theirs is as it was looked at."""

        def load() -> frozenset[Key]:
            folders = list(self.folders.values())
            for folder in folders:
                self.books.load_base(folder)
            return self.books.load_ours(folders, self.books.boxes())

        return await asyncio.to_thread(load)

    def _promising(self, found: Survey) -> dict[int, list[int]]:
        """Newcomers that are worth a try; the others are booked."""
        fresh: dict[int, list[int]] = {}
        for pair, uids in found.newcomers.items():
            folder = self.folders[pair]
            for uid in uids:
                if uid in folder.hopeless or (pair, uid) in self.run.failed:
                    folder.ledger.book(uid, "failed", self.run.failed.get((pair, uid)))
                else:
                    fresh.setdefault(pair, []).append(uid)
        return fresh

    # ---- what is new there

    async def _arrivals(self, found: Survey, fresh: dict[int, list[int]]) -> None:
        """Tell newcomers by content where that can be, else bring them."""
        folders = list(self.folders.values())
        self.books.remember(folders)
        arrivals = await asyncio.to_thread(Arrivals.of, self, found, fresh)
        for pair in fresh:
            if self.folders[pair].here is None:
                name = self.folders[pair].cursor.agreed or self.folders[pair].name
                await asyncio.to_thread(self.books.revive, self.folders[pair], name)
        for everywhere in (False, True):  # who is at home first, then who was moved
            for pair, uids in fresh.items():
                fresh[pair] = await arrivals.by_facts(self.folders[pair], uids, everywhere=everywhere)
        progress = self.run.context.progress
        progress.items_total += sum(map(len, fresh.values()))
        for pair, uids in fresh.items():
            if uids:
                await arrivals.by_bytes(self.folders[pair], uids)

    # ---- against accidents

    def _guard(self, plan: Plan) -> None:
        """Take out of the plan what looks like a fault."""
        if self.blind:
            plan.expunges_here.clear()
            plan.expunges_there.clear()
        if self.run.allow_mass:
            return
        parts: list[tuple[dict[int, Any], str]]
        parts = [(plan.expunges_here, "the server"), (plan.expunges_there, "this side")]
        for part, where in parts:
            self._guard_all(part, where)
            for pair in [pair for pair, each in part.items() if is_mass(len(each), len(self.folders[pair].pair.base))]:
                folder = self.folders[pair]
                if _is_often_emptied(folder):
                    continue
                count = len(part.pop(pair))
                folder.ledger.error = (
                    f"{count:,} of {len(folder.pair.base):,} messages are gone from {where} at once; nothing was "
                    "removed. If that is meant, run it with --allow-mass-delete"
                )

    def _guard_all(self, part: dict[int, Any], where: str) -> None:
        """Most of an account at once, a little of each folder: of these not even one is believed."""
        asked = {pair: each for pair, each in part.items() if not _is_often_emptied(self.folders[pair])}
        count = sum(map(len, asked.values()))
        before = self.settled + sum(len(each.pair.base) for each in self.folders.values())
        if not is_mass(count, before):
            return
        for pair, each in asked.items():
            del part[pair]
            self.folders[pair].ledger.error = (
                f"{count:,} of {before:,} messages of all folders are gone from {where} at once, {len(each):,} of them "
                "here; nothing was removed. If that is meant, run it with --allow-mass-delete"
            )

    # ---- carrying out

    async def _carry_out(self, plan: Plan) -> None:
        for pair, uids in plan.fetches.items():
            await asyncio.to_thread(self.books.forget, self.folders[pair], uids)  # newcomers in the next round
            self.run.done += len(uids)
        for pair, uploads in plan.uploads.items():
            await self._upload(self.folders[pair], uploads)
        for (source, target), moves in plan.moves_there.items():
            await self._move_there(self.folders[source], self.folders[target], moves)
        for pair, changes in plan.flags.items():
            await self._flag(self.folders[pair], plan, changes=len(changes))
        for pair, gone in plan.expunges_here.items():
            await self._expunge_here(plan, self.folders[pair], gone)
        for pair, uids in plan.expunges_there.items():
            await self._expunge_there(plan, self.folders[pair], uids)
        for pair, uids in plan.forgets.items():
            await asyncio.to_thread(self.books.forget, self.folders[pair], uids)
            self.run.done += len(uids)
        for folder in self.folders.values():
            if folder.here is None or folder.there is None:
                await self._half(plan, folder)

    async def _upload(self, folder: Folder, uploads: Sequence[Upload]) -> None:
        if folder.there is None:
            return  # see `_half`
        run = self.run
        due = []
        for each in uploads:
            if each.place in run.refused:
                reason, detail = run.refused[each.place]
                folder.ledger.book(each.place[1], reason, detail)
            elif each.place in run.sent:
                folder.ledger.book(each.place[1], "taken by the server, but not found there")
            else:
                due.append(each)
        run.context.progress.items_total += len(due)
        for start in range(0, len(due), BATCH_MESSAGES):
            run.check()
            await self._upload_some(folder, due[start : start + BATCH_MESSAGES])

    async def _upload_some(self, folder: Folder, uploads: Sequence[Upload]) -> None:
        """Pipelined, and what was taken is written down whatever becomes of the others."""
        assert folder.here is not None
        run, mailbox = self.run, folder.here.id
        by_uid = {each.place[1]: each for each in uploads}
        columns = ("uid", "email", "flags", "internaldate", "size")
        rows = await asyncio.to_thread(run.account.fetch, mailbox, sorted(by_uid), columns)
        flying: list[tuple[Upload, int, asyncio.Future[Appended]]] = []
        done: list[tuple[Place, int, Key | None]] = []
        trouble: Exception | None = None
        for uid, email, flags, date, size in rows:
            try:
                data = await asyncio.to_thread(run.account.read, email)
            except (MessageMissing, StoreCorrupt) as error:
                run.refused[by_uid[uid].place] = ("cannot be read here", error.text)
                continue
            shared = folder.shared(run.account.flagset(flags).flags)
            future = await append(self.connection, folder, data, flags=shared, internaldate=date)
            flying.append((by_uid[uid], size, future))
        for upload, size, future in flying:
            try:
                put = await future
            except (RemoteBusy, Unreachable, ProtocolError) as error:
                trouble = trouble or error
            except RemoteError as error:
                run.refused[upload.place] = ("refused by the server", error.text)
                folder.ledger.book(upload.place[1], "refused by the server", error.text)
            else:
                run.done += 1
                folder.ledger.counts["uploaded"] += 1
                run.context.progress.report(done=size, items=1, what=folder.name)
                if put.uid is not None and put.uidvalidity == folder.box.uidvalidity:
                    done.append((upload.place, put.uid, upload.link))
                else:
                    run.sent.add(upload.place)  # the next round knows it by its content
        if done:
            await asyncio.to_thread(self.books.uploaded, folder, done)
        if trouble is not None:
            raise trouble

    async def _move_there(self, source: Folder, target: Folder, moves: Sequence[tuple[int, Place]]) -> None:
        if target.there is None:
            return  # its folder is made in the next round
        run = self.run
        due = {uid: place for uid, place in moves if (source.id, uid) not in run.copied}
        for uid in due.keys() & {uid for uid, _ in moves}:
            run.copied.add((source.id, uid))
        run.check()
        if not due:
            return
        try:
            placed, left = await move(self.connection, source, target, list(due))
        except (RemoteBusy, Unreachable):
            raise
        except RemoteError as error:
            target.ledger.error = f"the server does not move messages here: {error.text}"
            return
        done = [(uid, placed[uid], place) for uid, place in due.items() if uid in placed]
        if done:
            await asyncio.to_thread(lambda: self.books.moved_there(source, target, done, left=left))
        target.ledger.counts["moved_there"] += len(due)
        run.done += len(due)

    async def _flag(self, folder: Folder, plan: Plan, *, changes: int) -> None:
        run = self.run
        run.check()
        due = []
        for change in plan.flags[folder.id]:
            if change.add_there or change.remove_there:
                tries = run.flagged[change.key] = run.flagged.get(change.key, 0) + 1
                if tries > FLAG_TRIES:
                    names = ", ".join(sorted(change.add_there | change.remove_there))
                    run.report.note(f"{folder.name}: the server does not keep {names}")
                    changes -= 1
                    continue
            due.append(change)
        there = [change for change in due if change.add_there or change.remove_there]
        flagging = Flagging(self.connection, self.books, folder)
        if there:
            await flagging.run(there)
            folder.ledger.counts["flags_there"] += len(there)
        # Who was changed meanwhile, or was not answered for, is looked at again in the next round.
        sure = [
            change
            for change in due
            if change not in there or (change.key[1] in flagging.actual and change.key[1] not in flagging.modified)
        ]
        if sure:
            await asyncio.to_thread(self.books.set_flags, folder, sure, flagging.actual)
        folder.ledger.counts["flags_here"] += sum(bool(each.add_here or each.remove_here) for each in sure)
        run.done += changes

    async def _expunge_here(self, plan: Plan, folder: Folder, gone: Sequence[Gone]) -> None:
        if folder.there is None and not plan.uploads.get(folder.id):
            return  # the mailbox goes as a whole: see `_half`
        removed = await asyncio.to_thread(self.books.expunge_here, folder, gone)
        folder.ledger.counts["removed_here"] += removed
        self.run.done += len(gone)

    async def _expunge_there(self, plan: Plan, folder: Folder, uids: Sequence[int]) -> None:
        if folder.here is None and self._may_delete_there(plan, folder):
            return  # the folder goes as a whole: see `_half`
        self.run.check()
        try:
            removed, marked = await expunge(self.connection, folder, uids)
        except (RemoteBusy, Unreachable):
            raise
        except RemoteError as error:
            folder.ledger.error = error.text
            return
        if removed:
            await asyncio.to_thread(self.books.forget, folder, removed)
        if marked:
            self.run.report.note(
                f"{folder.name}: {len(marked):,} removed messages are only marked as deleted on the server, which can "
                "expunge nothing by itself while others are marked too"
            )
        folder.ledger.counts["removed_there"] += len(removed)
        self.run.done += len(uids) - len(marked)

    # ---- folders that one side has no more

    def _may_delete_there(self, plan: Plan, folder: Folder) -> bool:
        """Our mailbox was deleted, and nothing happened to its folder since."""
        pair = folder.pair
        return (
            folder.there is not None
            and not self.blind
            and folder.ledger.error is None
            and not plan.fetches.get(folder.id)
            and not any(source == folder.id for source, _ in plan.moves_there)
            and set(plan.expunges_there.get(folder.id, ())) == pair.theirs.keys()
        )

    async def _half(self, plan: Plan, folder: Folder) -> None:
        report = self.run.report
        if folder.ledger.error is not None or self.blind:
            return
        if folder.there is None:
            assert folder.here is not None
            if plan.uploads.get(folder.id):
                await asyncio.to_thread(self.books.drop_pair, folder.box)  # its folder is made in the next round
                self.run.done += 1
            elif len(plan.expunges_here.get(folder.id, ())) == len(folder.pair.ours):
                if await asyncio.to_thread(self.books.delete_here, folder):
                    report.actions.append(f"{folder.here.name} removed here, as on the server")
                    folder.ledger.counts["removed_here"] += len(folder.pair.ours)
                    folder.ledger.settled = True
                    self.run.done += 1
                else:
                    await asyncio.to_thread(self.books.drop_pair, folder.box)
                    self.run.done += 1
            return
        if self._may_delete_there(plan, folder):
            await self._delete_there(folder)

    async def _delete_there(self, folder: Folder) -> None:
        if not await is_untouched(self.connection, folder, len(folder.pair.theirs)):
            self.run.done += 1  # look again
            return
        await self.connection.unselect()
        reply = await self.connection.start(command.Delete(folder.name))
        self.run.done += 1
        if reply.ok or reply.code == "NONEXISTENT":
            await self.connection.start(command.Unsubscribe(folder.name))
            self.run.report.actions.append(f"{folder.name} removed on the server")
            folder.ledger.counts["removed_there"] += len(folder.pair.theirs)
            folder.ledger.settled = True
            await asyncio.to_thread(self.books.drop_pair, folder.box)
            return
        self.run.report.note(f"{folder.name} stays: the server does not remove it: {reply.status.text[:200]}")
        await asyncio.to_thread(self.books.revive, folder, folder.cursor.agreed or folder.name)

    # ---- subscriptions, and the end of a round

    async def _subscriptions(self) -> None:
        """Merged as flags are."""
        for folder in self.folders.values():
            here, there = folder.here, folder.there
            if here is None or there is None or there.status is None:
                continue
            base, ours, theirs = folder.cursor.subscribed, here.subscribed, there.subscribed
            wanted = ours if ours == theirs else (ours or theirs) if base is None else not base
            folder.cursor.subscribed = wanted
            if theirs != wanted:
                ask = command.Subscribe(folder.name) if wanted else command.Unsubscribe(folder.name)
                await self.connection.start(ask)
            if ours != wanted:
                await asyncio.to_thread(self._subscribe, here.name, wanted)

    def _subscribe(self, name: str, wanted: bool) -> None:
        with self.run.account.transaction() as transaction:
            transaction.subscribe(name, wanted)

    async def _settle(self, left: Iterable[int]) -> None:
        """Who had nothing left to do is known to be the same."""
        unsettled = set(left)
        for folder in self.folders.values():
            whole = folder.here is not None and folder.there is not None
            if whole and folder.id not in unsettled and not (folder.ledger.error or folder.ledger.missing):
                await asyncio.to_thread(self.books.settle, folder)
                folder.ledger.settled = True

    def _count_plan(self, fresh: dict[int, list[int]], plan: Plan) -> None:
        counts = {pair: folder.ledger.counts for pair, folder in self.folders.items()}
        for pair, uids in fresh.items():
            counts[pair]["fetched"] += len(uids)
        for pair, uids in plan.fetches.items():
            counts[pair]["fetched"] += len(uids)
        for pair, uploads in plan.uploads.items():
            counts[pair]["uploaded"] += len(uploads)
        for (_, target), moves in plan.moves_there.items():
            counts[target]["moved_there"] += len(moves)
        for pair, changes in plan.flags.items():
            counts[pair]["flags_here"] += sum(bool(each.add_here or each.remove_here) for each in changes)
            counts[pair]["flags_there"] += sum(bool(each.add_there or each.remove_there) for each in changes)
        for pair, gone in plan.expunges_here.items():
            counts[pair]["removed_here"] += len(gone)
        for pair, uids in plan.expunges_there.items():
            counts[pair]["removed_there"] += len(uids)


@dataclass(slots=True)
class Arrivals:
    """Newcomers of one round, and those of ours that they may be."""

    round: Round
    homeless: dict[int, Shelf]  # by pair
    orphans: Shelf
    strays: dict[int, Shelf]  # by the pair that they were of
    taken: set[Place] = field(default_factory=set)

    @classmethod
    def of(cls, this: Round, found: Survey, fresh: dict[int, list[int]]) -> "Arrivals":
        """Read what our candidates can be recognised by. In a thread."""
        homeless, orphans = {}, []
        lost: dict[int, set[int]] = {}
        for mailbox, uid in found.orphans:
            lost.setdefault(mailbox, set()).add(uid)
        stray = {place: pair for pair, places in found.strays.items() if pair in fresh for place in places}
        strays: dict[int, list[Ours]] = {}
        for pair, folder in this.folders.items():
            mailbox = folder.pair.mailbox
            wanted = set(found.homeless.get(pair, ())) if pair in fresh else set()
            moved = lost.get(mailbox, set())
            away = {place[1] for place in stray if place[0] == mailbox}
            ours = this.books.candidates(folder, wanted | moved | away)
            homeless[pair] = Shelf.of(each for each in ours if each.place[1] in wanted)
            orphans += [each for each in ours if each.place[1] in moved]
            for each in ours:
                if each.place in stray:
                    strays.setdefault(stray[each.place], []).append(each)
        return cls(this, homeless, Shelf.of(orphans), {pair: Shelf.of(each) for pair, each in strays.items()})

    def _shelves(self, folder: Folder) -> list[Shelf]:
        """Who a newcomer may be, the likeliest first."""
        shelves = [self.homeless[folder.id], self.strays.get(folder.id, Shelf()), self.orphans]
        return [shelf for shelf in shelves if len(shelf)]

    def _free(self, ours: Ours | None) -> bool:
        return ours is not None and ours.place not in self.taken

    async def by_facts(self, folder: Folder, uids: list[int], *, everywhere: bool) -> list[int]:
        """Link those that surely are ours; returns the others."""
        shelves = self._shelves(folder) if everywhere else [self.homeless[folder.id]]
        if not uids or not any(map(len, shelves)):
            return uids
        connection, books = self.round.connection, self.round.books
        await connection.select(folder.name, writable=True)
        matches: list[Match] = []
        async for part in connection.facts(NumSet.of(uids), envelope=True, items=_identities(connection)):
            identities = [identity_of(facts.values) for facts in part]
            # Where none is known they say nothing: the server may make them anew.
            told = any(shelf.knows_any(identities) for shelf in shelves)
            for facts, identity in zip(part, identities, strict=True):
                theirs = theirs_of(facts, connection.quirks)
                theirs = theirs if told else replace(theirs, identity=None)
                for shelf in shelves:
                    ours = shelf.take(theirs)
                    while ours is not None and not self._free(ours):
                        ours = shelf.take(theirs)
                    if ours is not None:
                        matches.append(self._match(folder, facts.uid, ours, identity))
                        break
        if matches:
            await asyncio.to_thread(books.take, folder, (), matches)
            self._count(folder, matches)
        known = {match.uid for match in matches}
        return [uid for uid in uids if uid not in known]

    def _match(self, folder: Folder, uid: int, ours: Ours, identity: str | None) -> Match:
        self.taken.add(ours.place)
        held = next(
            each.pair.ours[ours.place[1]]
            for each in self.round.folders.values()
            if each.pair.mailbox == ours.place[0] and ours.place[1] in each.pair.ours
        )
        stays = held.was == folder.id and ours.place[0] != folder.pair.mailbox
        return Match(uid, ours.place, held.link, stays, identity)

    def _count(self, folder: Folder, matches: Sequence[Match]) -> None:
        moved = sum(match.place[0] != folder.pair.mailbox and not match.stays for match in matches)
        folder.ledger.counts["moved_here"] += moved
        folder.ledger.counts["recognised"] += len(matches) - moved
        self.round.run.done += len(matches)

    async def by_bytes(self, folder: Folder, uids: list[int]) -> None:
        """Bring them; those whose bytes are ours are linked after all."""
        this = self.round
        await this.connection.select(folder.name, writable=True)
        bodies = this.connection.bodies(uids, staging=this.run.context.store.stage, items=_identities(this.connection))
        async with contextlib.aclosing(bodies):
            async for batch in _batches(bodies):
                arrivals, matches = await asyncio.to_thread(self._sort, folder, batch)
                try:
                    added = await asyncio.to_thread(this.books.take, folder, arrivals, matches)
                finally:
                    for each in arrivals:
                        if each.staged is not None:
                            each.staged.close()
                folder.ledger.counts["fetched"] += added
                this.run.done += added
                self._count(folder, matches)
                this.run.context.progress.report(items=len(batch), what=folder.name)
                this.run.check()

    def _sort(self, folder: Folder, batch: Sequence[Body]) -> tuple[list[Arrival], list[Match]]:
        """In a thread: hash and render. What vanished meanwhile is left out."""
        arrivals, matches = [], []
        for body in batch:
            if body.problem == "vanished":
                folder.pair.theirs.pop(body.uid, None)
                continue
            if body.data is None:
                problem = body.detail or body.problem or "no answer"
                self.round.run.failed[folder.id, body.uid] = problem
                folder.ledger.book(body.uid, "failed", problem)
                arrivals.append(Arrival(body.uid, frozenset(), None, None, problem))
                continue
            staged = body.data.finish() if isinstance(body.data, Staging) else Staged.of(body.data)
            ours = None
            for shelf in self._shelves(folder):
                ours = ours or shelf.take_content(staged.sha256)
                while ours is not None and not self._free(ours):
                    ours = shelf.take_content(staged.sha256)
            if ours is not None:
                matches.append(self._match(folder, body.uid, ours, identity_of(body.values)))
                staged.close()
                continue
            flags = folder.shared(self.round.books.spelled(body.flags))
            arrivals.append(Arrival(body.uid, flags, body.internaldate, staged, identity=identity_of(body.values)))
        return arrivals, matches


def _identities(connection: ImapConnection) -> tuple[str, ...]:
    """What to ask for beside the rest: a message's own identity, where the server has one."""
    return tuple(name for name in items_of(connection) if name != "X-GM-LABELS")


async def _batches(bodies: AsyncIterator[Body]) -> AsyncIterator[list[Body]]:
    batch: list[Body] = []
    size = 0
    async for body in bodies:
        batch.append(body)
        size += body.size or 0
        if len(batch) >= BATCH_MESSAGES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _is_often_emptied(folder: Folder) -> bool:
    """A bin that both sides have: nobody is asked before it is emptied."""
    uses = set(folder.here.special_use if folder.here else ())
    return bool(uses & _OFTEN_EMPTIED) and folder.there is not None and folder.here is not None


def _is_quiet(folder: Folder) -> bool:
    """Both sides are as they were when they were last found the same, as far as STATUS and our counters tell."""
    here, there, box, cursor = folder.here, folder.there, folder.box, folder.cursor
    if here is None or there is None or there.status is None or not box.modseq:
        return False
    said = there.status
    return (
        said.get("UIDVALIDITY") == box.uidvalidity
        and said.get("HIGHESTMODSEQ") == box.modseq
        and said.get("UIDNEXT") == box.uidnext
        and said.get("MESSAGES") == cursor.messages
        and here.highestmodseq == cursor.here
        and here.name == cursor.agreed
        and here.subscribed == there.subscribed == cursor.subscribed
    )


# ---- staying


async def follow(context: Context, remote: Remote, *, allow_mass: bool = False) -> AsyncIterator[SyncReport]:
    """`sync`, and again whenever either side tells of news, until told to stop. Yields each report.

    Ends too when a log-in is refused: trying that again is how accounts get locked.
    """
    wait_s = WAIT_FIRST_S
    account = context.store.account(remote.account)
    while not context.stop.is_set():
        before = await asyncio.to_thread(_moment_of, account)
        report = await sync(context, remote, allow_mass=allow_mass)
        yield report
        if isinstance(report.failure, BadCredentials):
            return
        if report.error is not None:
            await _pause(context, wait_s)
            wait_s = min(wait_s * 2, WAIT_MAX_S)
            continue
        wait_s = WAIT_FIRST_S
        # What the run itself changed here is looked at once more, which is cheap; so nothing done meanwhile is missed.
        if await asyncio.to_thread(_moment_of, account) == before:
            sure = report.equal and "INBOX" not in report.left_out
            await _wait_for_news(context, remote, account, before if sure else None)


def _moment_of(account: Account) -> list[tuple[int, str, int, bool]]:
    """As our mailboxes are now; another value when anything has changed here."""
    return [(int(box.id), box.name, box.highestmodseq, box.subscribed) for box in account.mailboxes()]


async def _wait_for_news(
    context: Context, remote: Remote, account: Account, equal: list[tuple[int, str, int, bool]] | None
) -> None:
    """Until one of both sides moved, or it is time to look. `equal`: our side as it was when both were the same."""
    before = equal if equal is not None else await asyncio.to_thread(_moment_of, account)

    async def here() -> None:
        while await asyncio.to_thread(_moment_of, account) == before:
            await context.clock.sleep(LOOK_HERE_S)

    async def there() -> None:
        try:
            async with pool_of(context, remote) as pool, pool.connection() as connection:
                selected = await connection.select("INBOX")
                # What came before we listen is not told.
                known = [box for box in account.remote_boxes(remote.id) if box.name.upper() == "INBOX"]
                now = (selected.uidnext, selected.highestmodseq or 0)
                if equal is not None and any((box.uidnext, box.modseq) != now for box in known):
                    return
                await connection.notify()
                await connection.idle(LOOK_THERE_S)
        except (RemoteError, Unreachable, ProtocolError, LoginError):
            await context.clock.sleep(LOOK_THERE_S)

    await _first_of(here(), there(), context.stop.wait())
