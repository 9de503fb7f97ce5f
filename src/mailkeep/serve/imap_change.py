"""STORE, EXPUNGE, COPY, MOVE: what changes messages.

Each is one transaction, and its answer is told from the index after the commit. The command's own changes are told
here and never again as news: the view passes over batches that were made `by` itself, except for removals.

A message that another session removed is no error (RFC 2180 section 4): it is passed over, and the reply is OK.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from mailkeep.errors import MailboxMissing
from mailkeep.mail.flags import canonical
from mailkeep.mail.numset import NumSet
from mailkeep.serve.imap_peer import Peer, Result, Steps
from mailkeep.serve.imap_reply import Reply, no, ok
from mailkeep.serve.imap_select import has_deleted
from mailkeep.serve.imap_view import Span, View
from mailkeep.store import Mailbox, StoreResult, Transaction
from mailkeep.wire import imap_response
from mailkeep.wire.imap_command import Copy, Expunge, Move, Store

NOW_MAX = 16  # messages of which flags change on the spot: a thread would cost more
_STORED = ok(b"STORE completed")
_READ_ONLY = no(b"Mailbox is read-only", b"READ-ONLY")
Work = Coroutine[Any, Any, Reply]


def store(peer: Peer, command: Store) -> Result:
    """STORE and UID STORE (RFC 9051 section 6.4.6, RFC 7162 section 3.1.3)."""
    view = peer.selected
    if view.read_only:
        return _READ_ONLY
    flags = frozenset(map(canonical, command.flags))
    if command.unchanged_since is not None:
        peer.enabled.condstore = True
    spans = peer.spans(command.messages, uid=command.uid)
    if not spans or (not flags and command.mode != "="):
        return _STORED
    uids = view.uids_in(spans)
    work = partial(
        Transaction.store_flags,
        mailbox_id=view.index.mailbox_id,
        uids=uids,
        mode=command.mode,
        flags=flags,
        unchanged_since=command.unchanged_since,
    )
    if len(uids) <= NOW_MAX:
        result = peer.services.offload.write_now(peer.account, work, by=view)
        if result is not None:
            return _told(peer, view, command, spans=spans, result=result)
    return _store(peer, view, command, spans=spans, work=work)


async def _store(
    peer: Peer, view: View, command: Store, *, spans: list[Span], work: Callable[[Transaction], StoreResult]
) -> Reply:
    result = await peer.services.offload.write(peer.account, work, durable=False, by=view)
    reply: Reply = await peer.stream(_told(peer, view, command, spans=spans, result=result))
    return reply


def _told(peer: Peer, view: View, command: Store, *, spans: list[Span], result: StoreResult) -> Steps:
    """FETCH with the flags, of all that the command named; when .SILENT, mod-sequences only, for CONDSTORE clients."""
    condstore = peer.enabled.condstore
    uid = command.uid or peer.enabled.uid_always
    if not command.silent:
        if result.modified:
            failed = NumSet.of(result.modified)
            spans = view.spans_of(uid for uid in view.uids_in(spans) if uid not in failed)
        yield view.learn({number for start, stop in spans for number in view.flag_sets(start, stop)})
        yield from view.rows_of(spans, uid=uid, modseq=condstore)
    elif condstore:
        yield from view.rows_of(view.spans_of(result.changed), uid=uid, flags=False, modseq=True)
    if result.modified:
        numbers = peer.numbers(list(result.modified), uid=command.uid)
        return ok(b"Conditional STORE failed", imap_response.modified(numbers))
    return _STORED


def expunge(peer: Peer, command: Expunge) -> Reply | Work:
    """EXPUNGE, and UID EXPUNGE of RFC 4315. What went is told as news before the tagged line."""
    view = peer.selected
    if view.read_only:
        return _READ_ONLY
    uids = None
    if command.uids is not None:
        uids = view.uids_in(peer.spans(command.uids, uid=True))
        if not uids:
            return ok(b"EXPUNGE completed")
    if not has_deleted(peer, view.index):
        return ok(b"EXPUNGE completed")
    return _expunge(peer, view, uids)


async def _expunge(peer: Peer, view: View, uids: Any) -> Reply:
    gone = await peer.services.offload.write(
        peer.account, lambda transaction: transaction.expunge(view.index.mailbox_id, uids), by=view
    )
    return ok(b"EXPUNGE completed", _highestmodseq(peer, view) if gone else b"")


def _highestmodseq(peer: Peer, view: View) -> bytes:
    """RFC 7162 section 3.2.7: after a removal a QRESYNC client is told where it stands."""
    return b"HIGHESTMODSEQ %d" % view.index.highestmodseq if peer.enabled.qresync else b""


def copy(peer: Peer, command: Copy) -> Reply | Work:
    """COPY and UID COPY, all or nothing (RFC 9051 section 6.4.7)."""
    return _copy_or_move(peer, command, Transaction.copy)


def move(peer: Peer, command: Move) -> Reply | Work:
    """MOVE and UID MOVE (RFC 6851): COPYUID comes untagged and before the EXPUNGEs."""
    if peer.selected.read_only:
        return _READ_ONLY
    return _copy_or_move(peer, command, Transaction.move)


def _copy_or_move(peer: Peer, command: Copy | Move, work: Any) -> Reply | Work:
    verb = b"MOVE" if isinstance(command, Move) else b"COPY"
    try:
        target = peer.mailbox(command.mailbox)
    except MailboxMissing:
        return no(b"No such mailbox", b"TRYCREATE")
    view = peer.selected
    uids = view.uids_in(peer.spans(command.messages, uid=command.uid))
    if not uids:  # UIDs that are gone are no error
        return ok(verb + b" completed")
    return _transfer(peer, view, verb, target=target, uids=uids, work=work)


async def _transfer(peer: Peer, view: View, verb: bytes, *, target: Mailbox, uids: Any, work: Any) -> Reply:
    pairs = await peer.services.offload.write(
        peer.account,
        lambda transaction: work(transaction, view.index.mailbox_id, uids, target.id),
        by=view,
    )
    done = verb + b" completed"
    if not pairs:
        return ok(done)
    code = imap_response.copyuid(target.uidvalidity, pairs)
    if verb == b"COPY":
        return ok(done, code)
    peer.write(b"* OK [%b] Moved UIDs\r\n" % code)
    return ok(done, _highestmodseq(peer, view))
