"""An account, or a part of it, brought to another IMAP server: the plan of it, or the work.

Knows the order of things: log in, list, map all folders at once (`names`), make and subscribe what is missing, and copy
one folder after the other (`push_folder`). Nothing is ever deleted or overwritten there. A second run copies nothing,
and a run that was killed goes on, since each begins by looking at what the server has.

The hard idea is restraint: what a server allows in a second, in a day and in one message is kept to, a refused log-in
is not tried again, and a server that asks for patience gets it, or the run ends and says when to go on.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from mailkeep import log
from mailkeep.backup.context import Context, until_stopped
from mailkeep.backup.imap_remote import ImapConnection, RemoteMailbox, open_imap
from mailkeep.backup.login import secret_of
from mailkeep.backup.names import Ours, Placed, other_names, target_names, target_of
from mailkeep.backup.pace import Pace, limits_of
from mailkeep.backup.push_books import PushBooks, Source, list_sources
from mailkeep.backup.push_folder import FolderCopy, Refused
from mailkeep.backup.push_ledger import FolderPush, PushReport
from mailkeep.backup.quirks import quirks_for
from mailkeep.backup.settings import Remote
from mailkeep.errors import (
    LoginError,
    ProtocolError,
    RemoteBusy,
    RemoteError,
    StoreBusy,
    Unreachable,
    UsageError,
)
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.locks import locked
from mailkeep.wire import imap_command as command

_log = log.get("backup")

ATTEMPTS_MAX: Final = 5  # of a folder without a message between them
WAIT_FIRST_S: Final = 1.0  # doubled each time
WAIT_MAX_S: Final = 300.0  # who must wait longer comes back later
_APPENDLIMIT = re.compile(r"APPENDLIMIT=(\d{1,18})")
STOPPED: Final = "stopped; give the same command again to go on where it was"


class _Later(Exception):
    """What is allowed for now is used up. `seconds` to wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(slots=True)
class Push:
    """One push. `context.selection` and `context.into` as the caller gave them: a remote's own are about its pull."""

    context: Context
    account: Account
    remote: Remote
    report: PushReport
    planned: bool = False
    selection: Selection = field(default_factory=Selection)
    only: Callable[[Source], bool] | None = None  # of the chosen ones; for a migration on its way
    rounds: Callable[[], Coroutine[Any, Any, None]] | None = None  # what `run` does instead of one round
    _connection: ImapConnection | None = None
    _pace: Pace | None = None
    _listed: list[RemoteMailbox] = field(default_factory=list)

    # ---- the whole

    async def run(self) -> None:
        """All folders once. Raises what ends it."""
        settings = self.remote.settings
        quirks = quirks_for(settings)
        state = self.context.store.remotes.host_state(self._host_key)
        self._pace = Pace(limits_of(quirks, settings, direction="imap_up"), state)
        try:
            await (self.round if self.rounds is None else self.rounds)()
        finally:
            await self._hang_up()
            self.context.store.remotes.save_host_state(self._host_key, self._pace.dump())

    @property
    def _host_key(self) -> str:
        return f"{self.remote.settings.host} up"  # a day's allowance is another one in each direction

    @property
    def _paced(self) -> Pace:
        assert self._pace is not None, "run was called"
        return self._pace

    async def round(self) -> None:
        """All folders, as they are now."""
        connection, self._listed = await self._list()
        self.report.append_max = append_max(connection)
        sources, self.report.left_out = await asyncio.to_thread(list_sources, self.account, self.selection)
        placed = self._place(connection)
        listed = {box.name: box for box in self._listed}
        due = []
        for source in sources:
            if self.only is None or self.only(source):
                place = placed[source.name]
                copy = await self._prepare(source, place, listed.get(place.name))
                if copy is not None:
                    due.append((copy, source, place))
        for copy, source, place in due:
            await self._folder(copy, source, place, listed.get(place.name))
        if self.planned:
            left = self.report.total("copied_bytes")
            self.report.estimate_s = self._paced.finish_s(time.time(), left, self.report.total("copied"))

    async def _list(self) -> tuple[ImapConnection, list[RemoteMailbox]]:
        attempt = 0
        while True:
            try:
                connection = await self._connected()
                return connection, await connection.list_mailboxes(status=True)
            except (RemoteBusy, Unreachable) as error:
                attempt += 1
                await self._hang_up()  # some sessions are refused everything, and the next one nothing
                await self._after(error, attempt)

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.logout()

    async def _after(self, error: RemoteBusy | Unreachable, attempt: int) -> None:
        """Wait before another attempt, the longer the more there were. Raises the error when there were enough."""
        hint = error.retry_after_s if isinstance(error, RemoteBusy) else None
        asked = self._paced.troubled(time.time(), hint)
        if attempt >= ATTEMPTS_MAX:
            raise error
        seconds = asked if hint is not None else max(WAIT_FIRST_S * 2 ** (attempt - 1), asked)
        if seconds > WAIT_MAX_S:
            raise _Later(seconds)
        await self._pause(seconds)

    def _place(self, connection: ImapConnection) -> dict[str, Placed]:
        """Where each mailbox goes. All of ours take part, so that names do not depend on the filters."""
        boxes = self.account.mailboxes()
        by_id = {box.id: box.name for box in boxes}
        known: dict[str, str] = {}
        into = self.context.into
        if not into:
            for box in self.account.remote_boxes(self.remote.id):
                if box.mailbox in by_id and "\0" not in box.name:
                    known.setdefault(by_id[box.mailbox], box.name)
        target = target_of(connection.quirks, separator=self._separator(connection), prefix=connection.prefix)
        ours = [Ours(box.name, box.special_use) for box in boxes]
        return target_names(ours, self._listed, target, into=into, known=known)

    def _separator(self, connection: ImapConnection) -> str | None:
        if connection.separator is not None:
            return connection.separator
        return next((box.separator for box in self._listed if box.separator is not None), None)

    async def _connected(self) -> ImapConnection:
        if self._connection is None or not self._connection.alive:
            settings = self.remote.settings
            self._connection = await open_imap(
                settings, lambda: secret_of(self.context.store, self.remote), quirks_for(settings), pace=self._paced
            )
            self._paced.limits = limits_of(self._connection.quirks, settings, direction="imap_up")
        return self._connection

    # ---- one folder

    async def _prepare(self, source: Source, placed: Placed, listed: RemoteMailbox | None) -> FolderCopy | None:
        """Find what is chosen of it. None when nothing changed on either side since all of it was there."""
        ledger = self._ledger(source, placed)
        copy = FolderCopy(
            self._books(source, placed),
            ledger,
            self.context.store.root / "tmp",
            self.report.append_max,
            self._wait,
            self._sent,
            self.context.stop.is_set,
            custom=quirks_for(self.remote.settings).custom_keywords,
        )
        books = copy.books
        await asyncio.to_thread(books.recall)
        quiet = books.is_quiet(listed.status if listed is not None else None)
        if quiet is not None:
            ledger.chosen = ledger.there = quiet.chosen
            ledger.chosen_bytes, ledger.gone = quiet.size, quiet.gone
            return None
        await asyncio.to_thread(books.choose)
        ledger.chosen, ledger.chosen_bytes, ledger.gone = len(books.keys), books.size, books.gone
        return copy

    async def _folder(self, copy: FolderCopy, source: Source, placed: Placed, listed: RemoteMailbox | None) -> None:
        ledger = copy.ledger
        try:
            if self.planned:
                await self._plan(copy, exists=listed is not None and listed.selectable)
            else:
                await self._persist(copy, source, placed, listed)
        except (RemoteError, Unreachable, ProtocolError) as error:
            ledger.error = error.text
            _log.info("folder not finished", remote=self.remote.name, folder=ledger.name, error=error.text)
        finally:
            if not self.planned:
                copy.count()

    def _ledger(self, source: Source, placed: Placed) -> FolderPush:
        """A fresh one, in place of that of an earlier round, whose copies it goes on counting."""
        ledger = FolderPush(source.name, placed.name, placed.exists, placed.note)
        for index, before in enumerate(self.report.folders):
            if before.mailbox == source.name:
                ledger.copied, ledger.copied_bytes = before.copied, before.copied_bytes
                ledger.flags, ledger.changed, ledger.exists = before.flags, before.changed, before.exists
                ledger.lost = before.lost
                self.report.folders[index] = ledger
                return ledger
        self.report.folders.append(ledger)
        return ledger

    def _books(self, source: Source, placed: Placed) -> PushBooks:
        archive = self.remote.account == self.account.info.id
        below = bool(self.context.into)
        return PushBooks(
            self.account,
            self.remote.id,
            source,
            placed.name,
            own=archive and not below,
            foreign=not archive,
            selection=self.selection,
            dry=self.planned,
        )

    async def _plan(self, copy: FolderCopy, *, exists: bool) -> None:
        missing = list(copy.books.keys)
        if exists:
            missing = await copy.compare(await self._connected(), writable=False)
        await copy.plan(missing)

    async def _persist(self, copy: FolderCopy, source: Source, placed: Placed, listed: RemoteMailbox | None) -> None:
        """The folder, again and again while that makes sense."""
        attempt, before = 0, 0
        while True:
            try:
                connection = await self._connected()
                if listed is None or not listed.selectable:
                    await self._create(connection, copy, placed)
                if source.mailbox.subscribed and not (listed is not None and listed.subscribed):
                    await _tolerate(connection.run(command.Subscribe(copy.ledger.name)))
                await self._copy(connection, copy)
                return
            except (RemoteBusy, Unreachable) as error:
                attempt = 1 if copy.sent > before else attempt + 1
                before = copy.sent
                if attempt > 1:
                    await self._hang_up()
                await self._after(error, attempt)

    async def _create(self, connection: ImapConnection, copy: FolderCopy, placed: Placed) -> None:
        """Make the folder, under another name when this one is refused. Raises RemoteError."""
        ledger, books = copy.ledger, copy.books
        refused = await self._make(connection, ledger.name, placed.special_use)
        if refused is None:
            return
        used = [each.name for each in self.report.folders]
        target = target_of(connection.quirks, separator=self._separator(connection), prefix=connection.prefix)
        for name in other_names(ledger.name, target, used):
            if name in {box.name for box in self._listed} or await self._make(connection, name) is None:
                ledger.name = books.name = name
                ledger.note = "the server does not take this name"
                await asyncio.to_thread(books.recall)
                return
        raise RemoteError(f"the server does not make the folder {ledger.name}: {refused}")

    async def _make(self, connection: ImapConnection, name: str, use: str | None = None) -> str | None:
        """The server's words when there is no such folder afterwards."""
        uses = (use,) if use and "CREATE-SPECIAL-USE" in connection.capabilities else ()
        reply = await connection.start(command.Create(name, uses))
        if not reply.ok and uses:  # not a use that it gives away
            reply = await connection.start(command.Create(name))
        if reply.ok or reply.code == "ALREADYEXISTS":
            return None
        try:
            await connection.select(name)  # it may be there all the same, hidden from LIST
        except RemoteBusy:
            raise
        except RemoteError:
            return reply.status.text[:200]
        return None

    async def _copy(self, connection: ImapConnection, copy: FolderCopy) -> None:
        lacking: int | None = None
        while True:
            missing = await copy.compare(connection, writable=True)
            if lacking is None:
                self.context.progress.items_total += len(missing)
            await copy.complete_flags(connection)
            if not missing or self.context.stop.is_set():
                break
            if lacking is not None and len(missing) >= lacking:
                break  # it takes them and has no more of them: a server that keeps one of equal messages (Gmail)
            lacking = len(missing)
            before = copy.sent + len(copy.booked)
            await copy.send(connection, missing)
            if copy.sent + len(copy.booked) == before:
                break  # what is left has gone from here meanwhile
            self._paced.succeeded(len(missing))
        copy.count()
        if copy.ledger.equal:
            status = await _status(connection, copy.ledger.name) if copy.books.foreign else None
            await asyncio.to_thread(copy.books.settle, status)

    # ---- pace

    def _sent(self, size: int, name: str) -> None:
        self.context.progress.report(done=size, items=1, what=name)

    async def _wait(self, size: int) -> None:
        """Until a message of this size may go out. Raises _Later where that is too far off."""
        pace = self._paced
        while (seconds := pace.wait_s(time.time())) > 0:
            if seconds > WAIT_MAX_S:
                raise _Later(seconds)
            await self._pause(seconds)
        now = time.time()
        pace.asked(now, 1)
        pace.moved(now, size)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.context.stop.wait()


def append_max(connection: ImapConnection) -> int | None:
    """The largest message that the server takes, in bytes, as far as it says (RFC 7889) or is known for."""
    limits = [connection.quirks.append_max] if connection.quirks.append_max is not None else []
    limits += [int(match[1]) for each in connection.capabilities if (match := _APPENDLIMIT.fullmatch(each))]
    return min((limit for limit in limits if limit), default=None)


async def _tolerate(work: Awaitable[object]) -> None:
    """For what is welcome and not needed: some servers know no subscriptions."""
    with contextlib.suppress(RemoteError):
        await work


async def _status(connection: ImapConnection, name: str) -> dict[str, int] | None:
    from mailkeep.wire.imap_answer import MailboxStatus

    reply = await connection.start(command.Status(name, ("MESSAGES", "UIDNEXT", "UIDVALIDITY")))
    for each in reply.answers:
        if isinstance(each, MailboxStatus):
            return {key: value for key, value in each.items.items() if isinstance(value, int)}
    return None


async def push(context: Context, account: Account, remote: Remote, *, plan: bool = False) -> PushReport:
    """Bring what `context.selection` takes of the account to the remote; with `plan`, only say what that would be.

    Never raises for what the server does: the report says it. Raises UsageError for a remote that takes no mail and
    for filters that take no folder, and StoreError of a bad store.
    """
    selection = context.selection or Selection()
    report = PushReport(
        account.info.name, remote.name, remote.settings.host, plan, selection.describe(), seconds=time.monotonic()
    )
    sources, others = await asyncio.to_thread(list_sources, account, selection)
    if not sources:
        some = ", ".join(others[:8]) + (" …" if len(others) > 8 else "")
        raise UsageError(f"the filters take no folder of {account.info.name}; there are {some}")
    work = Push(context, account, remote, report, plan, selection)
    await guarded(work, work.run)
    return report


async def guarded(work: Push, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run it so that whatever ends it is in the report, and Ctrl-C ends it soon."""
    context, remote, report = work.context, work.remote, work.report
    if remote.settings.protocol != "imap":
        raise UsageError(f"{remote.name} is reached by POP3, which takes no mail; add it again with --imap HOST:PORT")
    own = remote.account == work.account.info.id
    lock = work.account.path / f"{'remote' if own else 'push'}-{remote.id}.lock"
    begun = time.monotonic()
    try:
        with locked(lock, alone=True, busy=f"another run of {remote.name} is under way; wait for its end"):
            await until_stopped(context, run)
    except Refused as error:
        report.stopped = f"the server has no more room: {error.text}"
    except _Later as error:
        report.resume_at = int(time.time() + error.seconds)
        report.stopped = "the server bears no more for now; give the same command again later"
    except (LoginError, RemoteError, Unreachable, ProtocolError, StoreBusy) as error:
        report.error, report.failure = error.text, error
    if context.stop.is_set() and report.stopped is None:
        report.stopped = STOPPED
    if not report.planned:
        for folder in report.folders:
            folder.close()
    report.seconds = time.monotonic() - begun
