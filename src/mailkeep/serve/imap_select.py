"""SELECT, EXAMINE, CLOSE, UNSELECT, and the quick resynchronisation of RFC 7162 (QRESYNC).

EXISTS is the number of UIDs that the view holds, never a counter that might disagree with them.

The hard idea is what to call vanished. The store remembers removals for as long as its tombstones last. Asked about an
older time it does not know which messages there were, so every UID that the client claims to know, and that is not
there, is reported (RFC 7162 section 3.2.6).
"""

import contextlib
from collections.abc import Coroutine, Generator, Iterable
from typing import Any

from mailkeep.errors import ProtocolError, StoreBusy, StoreFull, StoreReadOnly
from mailkeep.mail.numset import NumSet
from mailkeep.serve.imap_list import mailbox_objectid
from mailkeep.serve.imap_peer import Peer, Result
from mailkeep.serve.imap_reply import Reply, ok
from mailkeep.serve.imap_view import Span, View
from mailkeep.store import Mailbox, MailboxIndex
from mailkeep.wire import imap_response
from mailkeep.wire.imap_command import Check, Close, QResync, Select, Unselect

_CLOSED = b"* OK [CLOSED] Previous mailbox closed\r\n"
_SLICE = 10_000  # modseqs compared in one go


def select(peer: Peer, command: Select) -> Result:
    """Open a mailbox. Whatever comes of it, the one that was open is closed (RFC 9051 section 6.3.2)."""
    if command.qresync is not None and not peer.enabled.qresync:
        raise ProtocolError("QRESYNC is not enabled")
    if peer.view is not None:
        peer.unselect()
        peer.write(_CLOSED)
    if command.condstore or command.qresync is not None:
        peer.enabled.condstore = True
    mailbox = peer.mailbox(command.mailbox)
    recent = (mailbox.recent_from, mailbox.uidnext)
    claims = recent[0] < recent[1] and not _read_only(peer, command) and not peer.enabled.rev2
    if peer.account.loaded(mailbox.id) and not claims:
        return _open(peer, command, mailbox, index=peer.account.index(mailbox.id), recent=recent)
    return _prepare_and_open(peer, command, mailbox, claims=claims)


def _read_only(peer: Peer, command: Select) -> bool:
    return command.read_only or peer.account.info.read_only


async def _prepare_and_open(peer: Peer, command: Select, mailbox: Mailbox, *, claims: bool) -> Reply:
    """Load the index in a thread. Messages are \\Recent for the first session that hears of them: a write, if any.

    A disk that is full or read-only must not keep anybody from reading: then they stay \\Recent for the next one too.
    """
    offload, account = peer.services.offload, peer.account
    recent = (mailbox.recent_from, mailbox.uidnext)
    if claims:
        with contextlib.suppress(StoreFull, StoreReadOnly, StoreBusy):
            recent = await offload.write(
                account, lambda transaction: transaction.claim_recent(mailbox.id), durable=False
            )
    index = await offload.index(account, mailbox.id)
    reply: Reply = await peer.stream(_open(peer, command, mailbox, index=index, recent=recent))
    return reply


def _open(
    peer: Peer, command: Select, mailbox: Mailbox, *, index: MailboxIndex, recent: tuple[int, int]
) -> Generator[bytes, None, Reply]:
    account = peer.account
    read_only = _read_only(peer, command)
    view = View(index, account.flagset, peer.enabled, read_only=read_only)
    if recent[0] < recent[1] and not peer.enabled.rev2:
        view.recent.append(recent)
    peer.select(view)
    yield _greeting(peer, view, mailbox)
    qresync = command.qresync
    if qresync is not None and qresync.uidvalidity == index.uidvalidity:
        yield from _resynchronise(peer, view, qresync)
    done = b"EXAMINE completed" if command.read_only else b"SELECT completed"
    return ok(done, b"READ-ONLY" if read_only else b"READ-WRITE")


def _greeting(peer: Peer, view: View, mailbox: Mailbox) -> bytes:
    index, rev2 = view.index, peer.enabled.rev2
    told = [view.tell_keywords(peer.account.keywords()), b"* %d EXISTS\r\n" % view.count]
    if not rev2:
        told.append(b"* %d RECENT\r\n" % view.recent_count())
        if mailbox.unseen and (unseen := _first_unseen(peer, view)):
            told.append(b"* OK [UNSEEN %d] First unseen\r\n" % unseen)
    told.append(b"* OK [UIDVALIDITY %d] UIDs valid\r\n" % index.uidvalidity)
    told.append(b"* OK [UIDNEXT %d] Predicted next UID\r\n" % index.uidnext)
    told.append(b"* OK [HIGHESTMODSEQ %d] Highest\r\n" % max(index.highestmodseq, 1))
    told.append(b"* OK [MAILBOXID (%b)] Ok\r\n" % mailbox_objectid(mailbox.id).encode("ascii"))
    if rev2:
        told.append(imap_response.list_line(mailbox.special_use, mailbox.name, utf8=True))
    return b"".join(told)


def _first_unseen(peer: Peer, view: View) -> int:
    """Sequence number of the first message without \\Seen; 0: none."""
    flagset = peer.account.flagset
    unseen = {number for number in set(view.flags) if not flagset(number).seen}
    return min((view.flags.index(number) for number in unseen), default=-1) + 1


def _resynchronise(peer: Peer, view: View, qresync: QResync) -> Generator[bytes, None, None]:
    """VANISHED (EARLIER), then FETCH for what changed since the client was last here."""
    known = qresync.known_uids
    if known is None:
        known = NumSet(((1, view.index.uidnext - 1),)) if view.index.uidnext > 1 else NumSet()
    below = 0
    if qresync.match_seqs is not None and qresync.match_uids is not None:
        below = _matched_below(view, qresync.match_seqs, qresync.match_uids)
    yield vanished_earlier(peer, known, qresync.modseq, above=below)
    for span in changed_spans(view, view.spans(known, uid=True), qresync.modseq):
        yield from view.rows_of([span], uid=True, modseq=True)


def _matched_below(view: View, seqs: NumSet, uids: NumSet) -> int:
    """The largest UID of which the client's number is still right: up to it nothing vanished (section 3.2.5.2)."""
    if len(seqs) != len(uids):
        raise ProtocolError("Sequence match data does not pair up")
    matched = 0
    for seq, uid in zip(seqs, uids, strict=True):
        if seq > view.count:
            break
        if view.uids[seq - 1] == uid:
            matched = uid
    return matched


def changed_spans(view: View, spans: Iterable[Span], since: int) -> Generator[Span, None, None]:
    """Those positions in the spans whose mod-sequence is above `since`, as spans of neighbours."""
    for first, stop in spans:
        for start in range(first, stop, _SLICE):
            modseqs = view.modseqs_at(start, min(start + _SLICE, stop))
            run = None
            for at, modseq in enumerate(modseqs, start):
                if modseq > since:
                    if run is None:
                        run = at
                elif run is not None:
                    yield run, at
                    run = None
            if run is not None:
                yield run, start + len(modseqs)


def vanished_earlier(peer: Peer, known: NumSet, since: int, *, above: int = 0) -> bytes:
    """Of the known UIDs, those above `above` that are gone since that mod-sequence."""
    view = peer.selected
    changes = peer.account.changes(view.index.mailbox_id, since)
    if changes.complete:
        # Not what is gone but untold: the view still shows that one, and VANISHED without EARLIER will tell it.
        gone = NumSet.of(uid for uid in changes.vanished if uid in known and view.position(uid) is None)
    else:
        gone = _without(known, view)
    if above:
        gone = NumSet(tuple((max(low, above + 1), high) for low, high in gone.ranges if high > above))
    return imap_response.vanished(gone, earlier=True)


def _without(known: NumSet, view: View) -> NumSet:
    """The known UIDs that the view does not hold, never expanded; none at or above UIDNEXT, which never were."""
    gaps: list[tuple[int, int]] = []
    last = view.index.uidnext - 1
    for first, end in known.ranges:
        low, high = first, min(end, last)
        for start, stop in NumSet(((low, high),)).slices(view.uids):
            for uid in view.uids[start : min(stop, view.count)]:
                if low < uid:
                    gaps.append((low, uid - 1))
                low = uid + 1
        if low <= high:
            gaps.append((low, high))
    return NumSet(tuple(gaps))


def check(peer: Peer, command: Check) -> Reply:
    """Everything acknowledged is on disk already."""
    return ok(b"CHECK completed")


def unselect(peer: Peer, command: Unselect) -> Reply:
    peer.unselect()
    return ok(b"UNSELECT completed")


def close(peer: Peer, command: Close) -> Reply | Coroutine[Any, Any, Reply]:
    """Expunge without telling (RFC 9051 section 6.4.1), unless the mailbox is read-only."""
    view, read_only = peer.selected, peer.read_only
    peer.unselect()
    if read_only or not has_deleted(peer, view.index):
        return ok(b"CLOSE completed")
    return _expunge_silently(peer, view.index.mailbox_id)


def has_deleted(peer: Peer, index: MailboxIndex) -> bool:
    """Whether any message carries \\Deleted, without asking SQL."""
    flagset = peer.account.flagset
    return any(flagset(number).deleted for number in set(index.flags))


async def _expunge_silently(peer: Peer, mailbox_id: int) -> Reply:
    await peer.services.offload.write(peer.account, lambda transaction: transaction.expunge(mailbox_id))
    return ok(b"CLOSE completed")
