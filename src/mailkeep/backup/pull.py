"""A run over one IMAP remote: all its folders into its archive account, and the ledger of what came of it.

Knows connections and the order of things; one folder is `pull_folder`'s, Gmail's labels are `gmail`'s, POP3 is
`pop3_pull`'s. Nothing stops a run but what would stop every folder: a refused log-in, a server that stays away, a full
disk. What goes wrong with one folder is booked there, and the run goes on.

The hard idea is doing nothing, fast: one LIST with STATUS tells which folders did not change, and only the others are
opened, on as many connections as the server bears.
"""

import asyncio
import hashlib
import time
from array import array
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mailkeep import log
from mailkeep.backup import folders, gmail, moves, names
from mailkeep.backup.books import Books, Policy, read_cursor
from mailkeep.backup.context import Context
from mailkeep.backup.imap_bodies import RunPaused
from mailkeep.backup.imap_remote import ImapConnection, Pool, RemoteMailbox, open_imap
from mailkeep.backup.ledger import FolderLedger, RemoteReport
from mailkeep.backup.login import secret_of
from mailkeep.backup.pace import WAIT_MAX_S, Pace, Patience, limits_of
from mailkeep.backup.plan import Abilities, Difference, Folder, Renamed, Said, Way, choose, find_renamed, is_mass
from mailkeep.backup.pull_folder import FolderPull, Wanted, abilities, in_thread
from mailkeep.backup.quirks import quirks_for
from mailkeep.backup.recognise import sample
from mailkeep.backup.settings import Password, Remote, Token
from mailkeep.backup.states import save_report
from mailkeep.errors import (
    BadCredentials,
    ConfigError,
    LoginError,
    MailkeepError,
    OverQuota,
    ProtocolError,
    RemoteBusy,
    RemoteError,
    StoreError,
    Unreachable,
    Untrusted,
)
from mailkeep.mail.numset import NumSet
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account
from mailkeep.store.locks import locked
from mailkeep.store.remotes import RemoteBox
from mailkeep.store.renderer import Renderer

_log = log.get("backup")

LOOKS_MAX: Final = 3  # at the list of folders
WAIT_FIRST_S: Final = 1.0  # doubled each time
BINS: Final = ("\\Trash", "\\Junk")
MANY: Final = 500  # messages that make a child process worth its start


@dataclass(slots=True)
class Run:
    """One run. Made by `pull`."""

    context: Context
    remote: Remote
    account: Account
    policy: Policy
    selection: Selection
    report: RemoteReport
    pool: Pool
    tree: folders.Tree = field(default_factory=lambda: folders.Tree({}, {}, {}))
    fatal: MailkeepError | None = None
    uses: dict[str, str] = field(default_factory=dict)
    renderer: Renderer = field(default_factory=Renderer)
    mailboxes: dict[int, str] = field(default_factory=dict)  # ours, by id
    modseqs: dict[int, int] = field(default_factory=dict)  # … and the HIGHESTMODSEQ of each
    labels: list[RemoteMailbox] = field(default_factory=list)  # Gmail: folders that are labels
    labelled: bool = False  # Gmail, in whatever way it is pulled: mail has labels there, and does not move
    books: list[Books] = field(default_factory=list)  # of all folders that were looked at


async def pull(context: Context, remote: Remote) -> RemoteReport:
    """Bring what is new. Never raises for what the server does: the report says it. Raises StoreError of a bad store.

    Cancelled or told to stop it commits what is there and reports as far as it came.
    """
    if remote.settings.protocol == "pop3":
        from mailkeep.backup import pop3_pull

        report = await pop3_pull.pull(context, remote)
        save_report(context.store, remote, report)
        return report
    account = context.store.account(remote.account)
    report = RemoteReport(remote.name, account.info.name, remote.settings.host, context.now())
    begun = time.monotonic()
    busy = f"another run of {remote.name} is under way; wait for its end"
    try:
        with locked(account.path / f"remote-{remote.id}.lock", alone=True, busy=busy):
            await _run(context, remote, account, report)
    except (LoginError, RemoteError, Unreachable, ProtocolError, StoreError, ConfigError) as error:
        report.error, report.failure = error.text, error
    if context.stop.is_set() and report.stopped is None:
        report.stopped = "stopped; give the same command again to go on where it was"
    for folder in report.folders:
        folder.close()
    report.seconds = time.monotonic() - begun
    save_report(context.store, remote, report)
    return report


async def _run(context: Context, remote: Remote, account: Account, report: RemoteReport) -> None:
    async with pool_of(context, remote) as pool:
        run = make_run(context, remote, account=account, report=report, pool=pool)
        try:
            await until_stopped(context, _work(run))
        finally:
            run.renderer.close()
    if run.fatal is not None:
        raise run.fatal


def make_run(context: Context, remote: Remote, *, account: Account, report: RemoteReport, pool: Pool) -> Run:
    """With what the remote's settings say where the context says nothing."""
    settings = remote.settings
    selection = context.selection if context.selection is not None else settings.selection or Selection()
    policy = Policy(
        remote.id,
        context.now(),
        mirror=settings.gone == "mirror",
        allow_mass=context.allow_mass,
        hide=account.info.gone == "hide",
        retry=context.retry,
        filters=_fingerprint(selection, context.size_max or settings.size_max),
    )
    return Run(context, remote, account, policy, selection, report, pool)


async def until_stopped(context: Context, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, or, once the context says stop, as much of it as is to be brought to its end."""
    working = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(context.stop.wait())
    try:
        await asyncio.wait((working, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        if not working.done():
            working.cancel()  # each folder commits what it has
        await asyncio.wait((working,))
    if not working.cancelled():
        working.result()


@asynccontextmanager
async def pool_of(context: Context, remote: Remote) -> AsyncIterator[Pool]:
    """Connections to a remote, with what was learnt of its host before; what is learnt now is kept."""
    settings, rows = remote.settings, context.store.remotes
    quirks = quirks_for(settings)
    pace = Pace(limits_of(quirks, settings), rows.host_state(settings.host))

    async def secret() -> Password | Token:
        return await secret_of(context.store, remote)

    first = True  # it asks at once which mailboxes there are

    async def open_one() -> ImapConnection:
        nonlocal first
        lists, first = first, False
        return await open_imap(settings, secret, quirks, pace=pace, clock=context.clock, lists=lists)

    try:
        async with Pool(open_one, pace) as pool:
            yield pool
    finally:
        rows.save_host_state(settings.host, pace.dump())


def _fingerprint(selection: Selection, size_max: int | None) -> str:
    text = f"{selection.describe()}\0{size_max}"
    return "" if selection.takes_all and size_max is None else hashlib.sha256(text.encode()).hexdigest()[:16]


async def _work(run: Run) -> None:
    wanted, can = await _look(run)
    due: asyncio.Queue[FolderPull] = asyncio.Queue()
    for folder in wanted:
        one = _folder_pull(run, folder)
        kept = one.books.kept_before()
        if choose(Said.of_status(folder.status), kept, can) is Way.SKIP and folder.name not in run.tree.retired:
            one.books.ledger.way = Way.SKIP.value
            await in_thread(one.books.count_skipped, run.modseqs.get(one.books.mailbox))
        else:
            due.put_nowait(one)
    async with asyncio.TaskGroup() as group:
        for _ in range(min(due.qsize(), run.pool.size)):
            group.create_task(_lane(run, due))
    if not run.labelled and (run.fatal is None or not isinstance(run.fatal, StoreError)):
        # A mirror believes whatever goes from a bin: what is moved there remains for `undelete` where it was.
        met = [books for books in run.books if not (run.policy.mirror and books.bin)]
        await in_thread(moves.follow, run.account, met)


async def _look(run: Run) -> tuple[list[RemoteMailbox], Abilities]:
    """LIST and what follows of it. A server that is not itself yet is asked again, on another connection."""
    wait_s = WAIT_FIRST_S
    for attempt in range(1, LOOKS_MAX + 1):
        try:
            async with run.pool.connection() as connection:
                try:
                    listed = await connection.list_mailboxes(status=True)
                    return await _folders(run, connection, listed), abilities(connection)
                except (RemoteError, ProtocolError):
                    connection.abort()
                    raise
        except (RemoteError, Unreachable, ProtocolError) as error:
            hint = error.retry_after_s if isinstance(error, RemoteBusy) else None
            wait_s = max(wait_s * 2, hint or 0)
            if attempt == LOOKS_MAX or wait_s > WAIT_MAX_S or isinstance(error, RunPaused | Untrusted):
                raise
            _log.info("asked again", remote=run.remote.name, error=error.text)
        await run.context.clock.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def survey(
    run: Run, connection: ImapConnection, listed: Sequence[RemoteMailbox]
) -> tuple[list[RemoteMailbox], list[RemoteMailbox]]:
    """(the folders that are meant, those of them to pull: not what only shows a label). Changes nothing."""
    into = run.context.into or run.remote.settings.into
    by_name = {each.name: each for each in listed if each.selectable}
    ours = names.local_names(listed, prefix=connection.prefix, into=into)
    plain = names.local_names(listed, prefix=connection.prefix)
    run.uses = uses = names.special_uses(listed, connection.prefix)
    run.tree = folders.Tree(by_name, ours, uses if into is None else {})
    run.tree.load(run.account, run.remote.id)
    skipped = {name.casefold() for name in connection.quirks.skip_folders}
    meant = []
    for folder in folders.in_order(list(by_name.values()), uses):
        name, use = plain[folder.name], uses.get(folder.name)
        if name.casefold() in skipped or not run.selection.takes_mailbox(name, [use] if use else []):
            run.report.left_out.append(name)
        else:
            meant.append(folder)
    if not gmail.has_labels(connection.capabilities, {each.name: uses.get(each.name, "") for each in meant}):
        return meant, meant
    pulled, run.labels = gmail.split(meant, uses)
    return meant, pulled


async def _folders(run: Run, connection: ImapConnection, listed: Sequence[RemoteMailbox]) -> list[RemoteMailbox]:
    """Place the folders that are meant; see to those that were renamed or are gone."""
    meant, pulled = survey(run, connection, listed)
    tree, by_name = run.tree, run.tree.listed
    run.labelled = gmail.EXTENSION in connection.capabilities
    await _follow_renames(run, connection)
    _guard_mirror(run)
    hidden = await not_listed(run, connection)
    meant, pulled = [*meant, *hidden], [*pulled, *hidden]
    for box in run.tree.missing():
        if box.name in run.report.removed:
            await in_thread(_mark_removed, run, box)
    refused = await in_thread(folders.place, run.account, tree, run.policy, meant)
    for name, reason in refused.items():
        ledger = run.report.folder(name)
        ledger.error = f"there can be no mailbox for it here: {reason}"
        ledger.server = (by_name[name].status or {}).get("MESSAGES", 0)
    run.labels = [folder for folder in run.labels if folder.name not in refused]
    ours = run.account.mailboxes()
    run.mailboxes = {box.id: box.name for box in ours}
    run.modseqs = {box.id: box.highestmodseq for box in ours}
    return [folder for folder in pulled if folder.name not in refused]


def _folder_pull(run: Run, folder: RemoteMailbox) -> FolderPull:
    box = run.tree.boxes[folder.name]
    ledger = run.report.folder(folder.name)
    ledger.mailbox = run.mailboxes.get(box.mailbox or 0)
    ledger.server = (folder.status or {}).get("MESSAGES", 0)
    books = Books(run.account, run.policy, folder.name, box, ledger, cursor=read_cursor(box.cursor))
    books.past = run.tree.past.get(folder.name, [])
    books.bin = run.uses.get(folder.name) in BINS
    if run.labels and run.uses.get(folder.name) == "\\All" and box.mailbox is not None:
        books.labels = _labels(run, box.mailbox)
    run.books.append(books)
    books.cursor.identity = str((folder.status or {}).get("MAILBOXID") or "") or books.cursor.identity
    progress = run.context.progress

    def done(size: int, items: int, name: str) -> None:
        progress.report(done=size, items=items, what=name)

    def expect(items: int) -> None:
        progress.items_total += items
        if progress.items_total - progress.items >= MANY:
            run.renderer.start()
        progress.report()

    wanted = Wanted(
        run.selection,
        quirks_for(run.remote.settings),
        run.context.size_max or run.remote.settings.size_max,
        run.context.store.stage,
        run.renderer,
        done,
        expect,
    )
    return FolderPull(folder, books, wanted)


def _labels(run: Run, home: int) -> gmail.Labels:
    boxes = {folder.name: run.tree.boxes[folder.name] for folder in run.labels}
    targets = {name: int(box.mailbox) for name, box in boxes.items() if box.mailbox is not None}
    careful = any(box.uidvalidity for box in boxes.values())
    return gmail.Labels(run.account, home, targets, run.uses, careful=careful)


# ---- one folder after the other, on each connection


async def _lane(run: Run, due: "asyncio.Queue[FolderPull]") -> None:
    while run.fatal is None and not due.empty():
        one = due.get_nowait()
        try:
            await _persist(run, one)
        except OverQuota:
            run.fatal = OverQuota("the quota of the account is used up; raise it with `mailkeep user quota`")
        except (StoreError, LoginError) as error:
            run.fatal = error
        except RunPaused as error:
            # It is the host that asks for patience, not this folder: no other one would fare better.
            run.fatal = error
            if error.retry_after_s is not None:
                run.report.resume_at = run.context.now() + int(error.retry_after_s)
        except (RemoteError, Unreachable, ProtocolError) as error:
            one.books.ledger.error = error.text
            _log.info("folder not finished", remote=run.remote.name, folder=one.folder.name, error=error.text)
        except Exception as error:  # our own fault: the other folders are not to suffer for it
            one.books.ledger.error = f"a fault in Mailkeep: {type(error).__name__}: {error}"[:300]
            _log.exception("folder failed", error, remote=run.remote.name, folder=one.folder.name)
        finally:
            if one.books.ledger.error is not None or run.fatal is not None:
                await in_thread(_settle, one.books)


def _settle(books: Books) -> None:
    """After a folder that did not come to its end: what is on its books is what the ledger says."""
    books.load()
    books.count()
    books.unfinished()


async def _persist(run: Run, one: FolderPull) -> None:
    """One folder, again and again while that makes sense."""
    patience = Patience(WAIT_FIRST_S, one.progress)
    while True:
        try:
            async with run.pool.connection() as connection:
                one.wanted.quirks = connection.quirks
                await one.run(connection, _put_aside(run, one.folder.name))
            return
        except RunPaused:
            raise
        except (RemoteBusy, Unreachable, ProtocolError) as error:
            wait_s = patience.after(error, one.progress)
            one.books.ledger.notes.append(f"tried again after {wait_s:.0f} s: {error.text}")
        except asyncio.CancelledError:
            await in_thread(_settle, one.books)
            raise
        await run.context.clock.sleep(wait_s)


def _put_aside(run: Run, name: str) -> list[RemoteBox]:
    """What waits to be recognised; read anew, since an attempt before may have put more aside, or cleared it."""
    run.tree.load(run.account, run.remote.id)
    return run.tree.retired.get(name, [])


# ---- folders that were renamed or deleted on the server


async def _follow_renames(run: Run, connection: ImapConnection) -> None:
    tree = run.tree
    changed = [box for name, box in tree.boxes.items() if name in tree.listed and _is_another(box, tree.listed[name])]
    parents_first = sorted((*tree.missing(), *changed), key=lambda box: box.name)
    gone = [_folder_of_box(box) for box in parents_first if read_cursor(box.cursor).removed is None]
    if not gone:
        return
    fresh = []
    for folder in tree.fresh():
        said = folder.status or {}
        identity = said.get("MAILBOXID")
        fresh.append(
            Folder(folder.name, said.get("UIDVALIDITY", 0), said.get("UIDNEXT", 0), str(identity) if identity else None)
        )
    for renamed in find_renamed(gone, fresh):
        if renamed.sure or await _is_same(run, connection, renamed):
            done = await in_thread(folders.follow_rename, run.account, tree, run.policy, renamed)
            notes = run.report.folder(renamed.new).notes
            notes.append(f"was {renamed.old} on the server before")
            if not done:
                notes.append("its mailbox here keeps its name")


def _is_another(box: RemoteBox, folder: RemoteMailbox) -> bool:
    """Whether it only has the name of the one that we know: that one may be found under another."""
    said, known = folder.status or {}, read_cursor(box.cursor).identity
    identity = str(said.get("MAILBOXID") or "") or known
    return identity != known or said.get("UIDVALIDITY", box.uidvalidity) != box.uidvalidity != 0


def _folder_of_box(box: RemoteBox) -> Folder:
    return Folder(box.name, box.uidvalidity, box.uidnext, read_cursor(box.cursor).identity)


async def _is_same(run: Run, connection: ImapConnection, renamed: Renamed) -> bool:
    """Whether messages of the same UIDs are the same by date and size, some looked at."""
    from mailkeep.store.remotes import origin_of

    box = run.tree.boxes[renamed.old]
    rows = await in_thread(run.account.remote_uids, box.id)
    live = array(
        "I", [uid for uid, state, gone in zip(rows.uids, rows.states, rows.gone, strict=True) if not (state or gone)]
    )
    looked_at = sample(live)
    # A run that was killed while it followed this very rename has left some under the new name.
    named = (box.name, renamed.new)
    by_uid = {origin_of(run.remote.id, name, box.uidvalidity, uid): uid for uid in looked_at for name in named}
    ours: dict[int, tuple[int, int]] = {}
    for origin, place in run.account.find_origins(list(by_uid)).items():
        for _, internaldate, size in run.account.fetch(place.mailbox, [place.uid], ("uid", "internaldate", "size")):
            ours[by_uid[origin]] = (internaldate, size)
    if not ours:
        return False
    met = 0
    try:
        await connection.select(renamed.new)
        async for part in connection.facts(NumSet.of(ours)):
            for facts in part:
                if facts.internaldate != ours[facts.uid][0]:
                    return False
                if connection.quirks.trust_size and facts.size != ours[facts.uid][1]:
                    return False
                met += 1
    except RemoteError:
        return False
    return met * 2 > len(ours)


def _guard_mirror(run: Run) -> None:
    """A server that shows most of an account no more, folder for folder, is not believed by a mirror in this run."""
    if not run.policy.mirror or run.policy.allow_mass:
        return
    before = after = 0
    for name, box in run.tree.boxes.items():
        if run.uses.get(name) in BINS:
            continue
        count = read_cursor(box.cursor).messages
        folder = run.tree.listed.get(name)
        status = (folder.status or {}) if folder is not None else {"MESSAGES": 0}
        before += count
        after += min(status.get("MESSAGES", count), count)
    if is_mass(before - after, before):
        run.policy = replace(run.policy, mirror=False)
        run.report.notes.append(
            f"{before - after:,} of {before:,} messages vanished there at once; here they are only marked. "
            "If that is meant, pull with --allow-mass-delete"
        )


async def not_listed(run: Run, connection: ImapConnection) -> list[RemoteMailbox]:
    """Folders that we know and that are not listed. One that cannot be opened either is gone: the report says so.

    Returns those that can be opened nevertheless: they are looked at like the others. A list without INBOX is no full
    one: nothing is concluded from it but that this run is not equal.
    """
    whole = any(name.upper() == "INBOX" for name in run.tree.listed)
    if not whole and not run.tree.boxes:
        run.report.error = "the server lists no INBOX"
    hidden = []
    for box in run.tree.missing():
        cursor = read_cursor(box.cursor)
        if not whole:
            if cursor.removed is None:
                _miss(run, box, "the server did not list it this time")
            continue
        if cursor.removed is None:
            try:
                await connection.select(box.name)
            except RemoteBusy as error:
                _miss(run, box, error.text)
                continue
            except RemoteError:
                pass
            else:
                if _is_meant(run, box):
                    hidden.append(_unlisted(run, box, bool(cursor.subscribed)))
                continue
        run.report.removed.append(box.name)
    return hidden


def _is_meant(run: Run, box: RemoteBox) -> bool:
    """Whether the filters take a folder that is not listed, as far as its name tells."""
    return run.selection.takes_mailbox(box.name, [])


def _unlisted(run: Run, box: RemoteBox, subscribed: bool) -> RemoteMailbox:
    ours = next((each.name for each in run.account.mailboxes() if each.id == box.mailbox), box.name)
    run.tree.names.setdefault(box.name, ours)
    return RemoteMailbox(box.name, box.name.encode("utf-8", "replace"), None, frozenset(), None, subscribed, True)


def _miss(run: Run, box: RemoteBox, reason: str) -> None:
    """A folder of which nothing could be said in this run: what it had is what is missing."""
    if _is_meant(run, box):
        ledger = run.report.folder(box.name)
        cursor = read_cursor(box.cursor)
        ledger.error, ledger.server, ledger.kept = reason, cursor.messages, cursor.kept


def _mark_removed(run: Run, box: RemoteBox) -> None:
    news = folders.note_removed(run.account, run.tree, run.policy, box)
    sweep = run.policy.mirror and run.policy.allow_mass
    if not news and not sweep:
        return
    ledger = FolderLedger(box.name)  # not one of the report: the server has nothing there that could be missing
    books = Books(run.account, run.policy, box.name, run.tree.boxes[box.name], ledger, cursor=read_cursor(box.cursor))
    books.past = run.tree.past.get(box.name, [])
    run.books.append(books)
    books.load()
    if sweep:
        books.remove_gone()
    books.apply(Difference(array("I"), books.live_uids(), array("I")))
    run.report.notes.extend(f"{box.name}: {note}" for note in ledger.notes)
    if run.policy.mirror:
        folders.drop_empty(run.account, box)


# ---- staying


async def follow(context: Context, remote: Remote, *, poll_s: float = 300.0) -> AsyncIterator[RemoteReport]:
    """`pull`, and again when the server tells of news, or every `poll_s`, until told to stop. Yields each report.

    Ends too when a log-in is refused: trying that again is how accounts get locked.
    """
    wait_s = WAIT_FIRST_S
    while not context.stop.is_set():
        report = await pull(context, remote)
        yield report
        if context.stop.is_set() or isinstance(report.failure, BadCredentials):
            return
        if report.error is not None:
            await _pause(context, wait_s)
            wait_s = min(wait_s * 2, WAIT_MAX_S)
            continue
        wait_s = WAIT_FIRST_S
        refused = await _wait_for_news(context, remote, poll_s)
        if refused is not None:
            report = RemoteReport(remote.name, report.account, remote.settings.host, context.now())
            report.error, report.failure = refused.text, refused
            save_report(context.store, remote, report)
            yield report
            return


async def _pause(context: Context, seconds: float) -> None:
    try:
        await asyncio.wait_for(context.stop.wait(), seconds)
    except TimeoutError:
        return


async def _wait_for_news(context: Context, remote: Remote, poll_s: float) -> BadCredentials | None:
    """Until there is a reason to pull. Returns the error when the log-in is refused."""
    if remote.settings.protocol == "pop3":
        await _pause(context, poll_s)
        return None
    watching = asyncio.ensure_future(_watch(context, remote, poll_s))
    stop = asyncio.ensure_future(context.stop.wait())
    try:
        await asyncio.wait((watching, stop), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (watching, stop):
            task.cancel()
        ends = await asyncio.gather(watching, stop, return_exceptions=True)
    return next((end for end in ends if isinstance(end, BadCredentials)), None)


async def _watch(context: Context, remote: Remote, poll_s: float) -> None:
    """Return when there is news in INBOX, or the time is over. Raises BadCredentials."""
    try:
        async with pool_of(context, remote) as pool, pool.connection() as connection:
            await connection.select("INBOX")
            await connection.notify()
            await connection.idle(poll_s)
    except BadCredentials:
        raise
    except (RemoteError, Unreachable, ProtocolError, LoginError):
        await _pause(context, poll_s)
