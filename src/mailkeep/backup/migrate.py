"""From one server to another: pulled into the source's archive account and pushed from it, both at once.

Knows pull and push and nothing of what they do. A folder is pushed as soon as its pull is complete, while the next ones
are still coming, so a migration takes hardly longer than the slower of the two. What is on its way lies in the archive,
which makes every step resumable, and a backup besides; `mailkeep user remove` takes it away when it is not wanted.

The hard idea is the end: only when the pull is done is everything compared once more, so that the ledger speaks of one
moment. What the source no longer has is not pushed.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from mailkeep.backup.books import read_cursor
from mailkeep.backup.context import Context
from mailkeep.backup.imap_remote import ImapConnection, RemoteMailbox, open_imap
from mailkeep.backup.ledger import RemoteReport
from mailkeep.backup.login import secret_of
from mailkeep.backup.names import Ours, Placed, local_names, lost_flags, special_uses, target_names, target_of
from mailkeep.backup.pace import Pace, limits_of
from mailkeep.backup.pull import pull
from mailkeep.backup.push import Push, append_max, guarded
from mailkeep.backup.push_books import Source
from mailkeep.backup.push_ledger import TOO_LARGE, FolderPush, PushReport
from mailkeep.backup.quirks import quirks_for
from mailkeep.backup.settings import Remote
from mailkeep.errors import LoginError, ProtocolError, RemoteError, Unreachable, UsageError
from mailkeep.jobs.progress import Progress
from mailkeep.mail.numset import NumSet
from mailkeep.mail.selection import Selection
from mailkeep.store.account import Account

LOOK_S: Final = 0.5  # between two looks at which folders have come


@dataclass(slots=True)
class Migration:
    """Both halves of one migration."""

    pulled: RemoteReport
    pushed: PushReport

    @property
    def equal(self) -> bool:
        return self.pulled.equal and self.pushed.equal

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        return {"equal": self.equal, "pull": self.pulled.facts(), "push": self.pushed.facts()}


def still_there(selection: Selection) -> Selection:
    """Without what the source no longer has."""
    return replace(selection, flags=(*selection.flags, "!gone"))


@dataclass(slots=True)
class _Rounds:
    """Pushes of what has come, while the pull goes on."""

    source: Remote
    account: Account
    push: Push
    pulling: "asyncio.Task[RemoteReport]"
    begun: dict[int, bytes | None]  # cursors of the source's folders as they were at first
    done: set[int] = field(default_factory=set)  # our mailboxes that were pushed

    async def run(self) -> None:
        push = self.push
        while not self.pulling.done():
            ready = await asyncio.to_thread(self._ready)
            if ready:
                push.only = partial(_is_one_of, ready)
                await push.round()
                self.done |= ready
            await asyncio.wait((self.pulling,), timeout=LOOK_S)
        push.only = self._belongs
        await push.round()

    def _ready(self) -> set[int]:
        """Our mailboxes whose folder was pulled to its end in this run."""
        ready: set[int] = set()
        for box in self.account.remote_boxes(self.source.id):
            fresh = box.cursor != self.begun.get(box.id)
            if box.mailbox and fresh and read_cursor(box.cursor).complete and box.mailbox not in self.done:
                ready.add(box.mailbox)
        return ready

    def _belongs(self, source: Source) -> bool:
        """The account may hold other mail as well; what comes from the source is moved, and what it had empty."""
        boxes = [box for box in self.account.remote_boxes(self.source.id) if box.mailbox == source.mailbox.id]
        return any(read_cursor(box.cursor).removed is None for box in boxes)


def _is_one_of(mailboxes: set[int], source: Source) -> bool:
    return source.mailbox.id in mailboxes


async def migrate(context: Context, source: Remote, target: Remote, *, pushing: Progress | None = None) -> Migration:
    """Bring all that `context.selection` takes of the source to the target. `pushing` is told of the second half.

    Never raises for what the servers do. Raises UsageError for a target that takes no mail, StoreError of a bad store.
    """
    check(source, target)
    account = context.store.account(source.account)
    selection = still_there(context.selection or Selection())
    # Told to stop, the pull ends by itself; where it goes to is the archive's own matter.
    pull_context = Context(context.store, context.selection, progress=context.progress, stop=context.stop)
    push_context = Context(
        context.store, selection, context.into, progress=pushing or Progress(), stop=context.stop, now=context.now
    )
    report = PushReport(account.info.name, target.name, target.settings.host, filters=selection.describe())
    work = Push(push_context, account, target, report, selection=selection)
    begun = {box.id: box.cursor for box in account.remote_boxes(source.id)}
    pulling = asyncio.create_task(pull(pull_context, source))
    rounds = _Rounds(source, account, work, pulling, begun)
    work.rounds = rounds.run
    try:
        await guarded(work, work.run)
    finally:
        if not pulling.done() and (report.error or report.stopped):
            context.stop.set()  # there is nowhere to go with what would come
        pulled = await pulling
    return Migration(pulled, report)


def check(source: Remote, target: Remote) -> None:
    """Raises UsageError where the one cannot go to the other."""
    if source.id == target.id:
        raise UsageError("source and target are the same remote; name two")
    if target.settings.protocol != "imap":
        raise UsageError(f"{target.name} is reached by POP3, which takes no mail; add it again with --imap HOST:PORT")


# ---- the plan


async def plan_migration(context: Context, source: Remote, target: Remote | None) -> PushReport:
    """What a migration would do, asked of both servers; nothing is written anywhere. `target` None: into Mailkeep.

    Never raises for what the servers do: the report says it.
    """
    selection = context.selection or Selection()
    host = target.settings.host if target is not None else "this store"
    report = PushReport(source.name, target.name if target else "", host, True, selection.describe())
    begun = time.monotonic()
    try:
        await _plan(context, source, target, report)
    except (LoginError, RemoteError, Unreachable, ProtocolError) as error:
        report.error, report.failure = error.text, error
    report.seconds = time.monotonic() - begun
    return report


async def _open(context: Context, remote: Remote) -> ImapConnection:
    return await open_imap(remote.settings, lambda: secret_of(context.store, remote), quirks_for(remote.settings))


async def _plan(context: Context, source: Remote, target: Remote | None, report: PushReport) -> None:
    selection = context.selection or Selection()
    here = await _open(context, source)
    try:
        listed = [box for box in await here.list_mailboxes(status=True) if box.selectable]
        uses = special_uses(listed, here.prefix)
        names = local_names(listed, prefix=here.prefix)
        placed: Mapping[str, Placed] = {}
        custom = True
        if target is not None:
            there = await _open(context, target)
            report.append_max = append_max(there)
            custom = there.quirks.custom_keywords
            theirs = await there.list_mailboxes()
            rules = target_of(there.quirks, separator=there.separator or "/", prefix=there.prefix)
            ours = [Ours(names[box.name], (uses[box.name],) if box.name in uses else ()) for box in listed]
            placed = target_names(ours, theirs, rules, into=context.into)
            await there.logout()
        for box in listed:
            name = names[box.name]
            if not selection.takes_mailbox(name, [uses[box.name]] if box.name in uses else []):
                report.left_out.append(name)
                continue
            place = placed.get(name) or Placed(name, name, exists=False)
            folder = FolderPush(str(box.name), place.name, place.exists, place.note)
            report.folders.append(folder)
            await _count(here, box, folder, selection, limit=report.append_max, custom=custom)
    finally:
        await here.logout()
    # The slower half decides: both run at once.
    paces = [Pace(limits_of(here.quirks, source.settings))]
    if target is not None:
        paces.append(Pace(limits_of(quirks_for(target.settings), target.settings, direction="imap_up")))
    size, count = report.total("copied_bytes"), report.total("copied")
    report.estimate_s = max(pace.finish_s(time.time(), size, count) for pace in paces)


async def _count(
    connection: ImapConnection,
    box: RemoteMailbox,
    folder: FolderPush,
    selection: Selection,
    *,
    limit: int | None,
    custom: bool,
) -> None:
    selected = await connection.select(box.name)
    if not selected.exists:
        return
    allowed = frozenset(("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"))
    async for part in connection.facts(NumSet.of(await connection.uids())):
        for each in part:
            if selection.takes_facts(each.flags, each.internaldate, each.size) is False:
                continue
            size = each.size or 0
            folder.chosen += 1
            folder.chosen_bytes += size
            if limit is not None and size > limit:
                folder.book(each.uid, TOO_LARGE, f"{size:,} bytes, it takes {limit:,}")
                continue
            folder.copied += 1
            folder.copied_bytes += size
            if not custom:
                folder.lost.update(lost_flags(each.flags - {"\\Recent"}, allowed))
