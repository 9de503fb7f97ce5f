"""Asking the server again: is everything that it has here, by UID, size, date and flags? Changes nothing.

A pull believes its own rows; this believes neither them nor any cursor. Every folder is listed whole, and each UID is
looked up among our messages by its origin. What is here in bytes is proven by the store's own `verify`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailkeep.backup.books import GONE, clean_flags, text_of
from mailkeep.backup.context import Context
from mailkeep.backup.imap_remote import Facts, ImapConnection, RemoteMailbox
from mailkeep.backup.ledger import REASONS, REMOVED_HERE, FolderLedger, RemoteReport
from mailkeep.backup.pull import Run, make_run, not_listed, pool_of, survey, until_stopped
from mailkeep.backup.pull_folder import in_thread
from mailkeep.backup.settings import Remote
from mailkeep.errors import ConfigError, LoginError, ProtocolError, RemoteError, StoreError, Unreachable
from mailkeep.mail.numset import NumSet
from mailkeep.store.remotes import RemoteBox, State, origin_of

UNKNOWN: Final = "not pulled yet"
OTHER_SIZE: Final = "of another size here"


async def prove(context: Context, remote: Remote) -> RemoteReport:
    """Compare. The report's `error` says why it could not."""
    if remote.settings.protocol == "pop3":
        from mailkeep.backup import pop3_proof

        return await pop3_proof.prove(context, remote)
    account = context.store.account(remote.account)
    report = RemoteReport(remote.name, account.info.name, remote.settings.host, context.now())
    begun = time.monotonic()
    try:
        async with pool_of(context, remote) as pool:
            run = make_run(context, remote, account=account, report=report, pool=pool)
            await until_stopped(context, _all(run))
    except (LoginError, RemoteError, Unreachable, ProtocolError, StoreError, ConfigError) as error:
        report.error, report.failure = error.text, error
    if context.stop.is_set():
        report.stopped = "stopped"
    for folder in report.folders:
        folder.close()
    report.seconds = time.monotonic() - begun
    return report


async def _all(run: Run) -> None:
    async with run.pool.connection() as connection:
        _, pulled = survey(run, connection, await connection.list_mailboxes(status=True))
        pulled = [*pulled, *await not_listed(run, connection)]
        run.context.progress.items_total = sum((each.status or {}).get("MESSAGES", 0) for each in pulled)
        for folder in pulled:
            ledger = run.report.folder(folder.name)
            try:
                await _folder(run, connection, folder)
            except RemoteError as error:
                ledger.error = error.text
                ledger.server = ledger.server or (folder.status or {}).get("MESSAGES", 0)


@dataclass(slots=True)
class _Folder:
    """One folder under comparison."""

    run: Run
    ledger: FolderLedger
    uidvalidity: int
    sizes: bool  # what the server says of sizes is true
    not_kept: dict[int, tuple[State, str | None]]


async def _folder(run: Run, connection: ImapConnection, folder: RemoteMailbox) -> None:
    ledger = run.report.folder(folder.name)
    selected = await connection.select(folder.name)
    uids = await connection.uids()
    ledger.server = max(selected.exists, len(uids))
    ledger.way = "compared"
    box = run.tree.boxes.get(folder.name)
    ours: dict[int, str] = {each.id: each.name for each in run.account.mailboxes()}
    ledger.mailbox = ours.get(box.mailbox or 0) if box is not None else None
    if box is not None and box.uidvalidity != selected.uidvalidity:
        ledger.notes.append("the server has numbered it anew; pull it, then compare again")
    not_kept = await in_thread(_not_kept, run, box, selected.uidvalidity)
    one = _Folder(run, ledger, selected.uidvalidity, connection.quirks.trust_size, not_kept)
    async for part in connection.facts(NumSet.of(uids)):
        await in_thread(_compare, one, part)
        run.context.progress.report(items=len(part), what=folder.name)


def _not_kept(run: Run, box: RemoteBox | None, uidvalidity: int) -> dict[int, tuple[State, str | None]]:
    if box is None or box.uidvalidity != uidvalidity:
        return {}
    return {uid: (state, detail) for uid, state, detail in run.account.remote_missing(box.id)}


def _compare(one: _Folder, part: Sequence[Facts]) -> None:
    """One slice of the server's messages against ours."""
    run, ledger = one.run, one.ledger
    origins = {origin_of(run.remote.id, ledger.name, one.uidvalidity, each.uid): each for each in part}
    places = run.account.find_origins(list(origins))
    by_mailbox: dict[int, dict[int, Facts]] = {}
    for origin, facts in origins.items():
        place = places.get(origin)
        if place is None:
            state, detail = one.not_kept.get(facts.uid, (State.KEPT, None))
            ledger.book(facts.uid, REASONS.get(state, UNKNOWN), text_of(detail))
        elif not place.live:
            ledger.book(facts.uid, REMOVED_HERE)
        else:
            by_mailbox.setdefault(place.mailbox, {})[place.uid] = facts
    for mailbox, wanted in by_mailbox.items():
        rows = run.account.fetch(mailbox, sorted(wanted), ("uid", "size", "internaldate", "flags"))
        for uid, size, internaldate, flags in rows:
            facts = wanted[uid]
            if one.sizes and facts.size is not None and facts.size != size:
                ledger.book(facts.uid, OTHER_SIZE, f"{size:,} bytes here, {facts.size:,} there")
                continue
            ledger.kept += 1
            if facts.internaldate is not None and facts.internaldate != internaldate:
                ledger.dates += 1
            if clean_flags(facts.flags) != run.account.flagset(flags).flags - {GONE}:
                ledger.flags += 1
