"""What a scripted server does with a selected mailbox: SELECT, FETCH, STORE, SEARCH, COPY, MOVE, EXPUNGE, and labels.

The hard idea is deletion under labels: EXPUNGE takes a label away and the mail stays in All Mail; what goes to Trash or
Spam loses all its labels; and only what is expunged there is gone.
"""

import asyncio
import re
from collections.abc import Iterable

from mailkeep.errors import ProtocolError
from mailkeep.mail.mailbox_name import decode_utf7
from mailkeep.mail.numset import NumSet, encode
from mailkeep.testing.folders import find, taken_flags
from mailkeep.testing.found import matches
from mailkeep.testing.line import Closed
from mailkeep.testing.mailboxes import Mailbox, Message
from mailkeep.testing.peer import Peer, View
from mailkeep.testing.reply import OK, Refused, Reply
from mailkeep.testing.shown import HangUp, Missing, Short, fetched
from mailkeep.wire import imap_command as commands
from mailkeep.wire import imap_response as say
from mailkeep.wire.imap_command import FetchBody

_SYSTEM = ("\\Answered", "\\Flagged", "\\Draft", "\\Deleted", "\\Seen")
_GM_ITEM = re.compile(rb"X-GM-(?:MSGID|THRID|LABELS)(?![A-Za-z-])", re.IGNORECASE)
_GM_STORE = re.compile(rb"(UID +)?STORE +([0-9:*,]+) +([+-]?)X-GM-LABELS(?:\.SILENT)? +\(?([^)]*)\)?", re.IGNORECASE)
_LABEL = re.compile(rb'"((?:[^"\\]|\\.)*)"|([^\s"]+)')


# --- SELECT ---


async def select(peer: Peer, command: commands.Select) -> Reply:
    """SELECT and EXAMINE, with CONDSTORE and QRESYNC."""
    peer.view = None
    faults = peer.faults
    box = find(peer, command.mailbox)
    condstore = peer.has("CONDSTORE")
    if (command.condstore and not condstore) or (command.qresync and "QRESYNC" not in peer.enabled):
        raise Refused("BAD", "Unknown SELECT parameter")
    if command.condstore:
        peer.enabled.add("CONDSTORE")
    box.selects += 1
    if faults.uidvalidity_lasts is not None and box.selects > faults.uidvalidity_lasts:
        box.selects = 1
        box.renumber()
    shown = box.visible(faults.folder_cap)
    peer.view = View(box, command.read_only, [m.uid for m in shown], {m.uid: m.modseq for m in shown})
    peer.saved = ()
    keywords = sorted({flag for message in shown for flag in message.flags} - set(_SYSTEM))
    stays = [*_SYSTEM, *keywords, *(["\\*"] if faults.keywords else [])]
    lines = [say.flags((*_SYSTEM, *keywords)), say.permanentflags([] if command.read_only else stays)]
    lines += [line + b"\r\n" for line in faults.junk_lines]
    lines += [say.exists(len(shown)), say.recent(0)]
    unseen = next((seq for seq, message in enumerate(shown, 1) if "\\Seen" not in message.flags), None)
    if unseen is not None:
        lines.append(say.untagged("OK", "First unseen", code=b"UNSEEN %d" % unseen))
    lines.append(say.untagged("OK", "UIDs valid", code=b"UIDVALIDITY %d" % box.uidvalidity))
    lines.append(say.untagged("OK", "Predicted next UID", code=b"UIDNEXT %d" % box.uidnext))
    if condstore:
        lines.append(say.untagged("OK", "Highest", code=b"HIGHESTMODSEQ %d" % box.modseq))
    if command.qresync is not None and command.qresync.uidvalidity == box.uidvalidity:
        lines += _resync(peer, box, command.qresync)
    await peer.write(b"".join(lines))
    verb, code = ("EXAMINE", "READ-ONLY") if command.read_only else ("SELECT", "READ-WRITE")
    return OK(f"{verb} completed", code)


def _resync(peer: Peer, box: Mailbox, since: commands.QResync) -> list[bytes]:
    known = since.known_uids
    gone = [u for u, modseq in box.gone.items() if modseq > since.modseq and (known is None or u in known)]
    lines = [say.vanished(sorted(gone), earlier=True)]
    for seq, uid in enumerate(peer.selected.uids, 1):
        message = box.messages[uid]
        if message.modseq > since.modseq and (known is None or uid in known):
            lines.append(say.fetch_line(seq, peer.flag_parts(message)))
    return lines


async def check(peer: Peer, command: commands.Check) -> Reply:
    peer.selected  # noqa: B018  # raises when there is none
    return OK("CHECK completed")


async def close(peer: Peer, command: commands.Close) -> Reply:
    view = peer.selected
    peer.view = None
    if not view.read_only:
        remove(peer, view.box, [uid for uid in view.uids if _deleted(view.box, uid)])
    return OK("CLOSE completed")


async def unselect(peer: Peer, command: commands.Unselect) -> Reply:
    peer.selected  # noqa: B018  # raises when there is none
    peer.view = None
    return OK("UNSELECT completed")


# --- FETCH ---


def take_gm_items(line: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A FETCH without its X-GM- items, UID in their place; and the items."""
    if not re.match(rb"(?i)\S+ +(UID +)?FETCH ", line) or b"X-GM-" not in line.upper():
        return line, ()
    items: list[str] = []

    def note(match: re.Match[bytes]) -> bytes:
        items.append(match[0].decode().upper())
        return b"UID"

    # What stands in brackets are names of header fields.
    pieces = re.split(rb"(\[[^\]]*\])", line)
    return b"".join(p if p[:1] == b"[" else _GM_ITEM.sub(note, p) for p in pieces), tuple(items)


async def fetch(peer: Peer, command: commands.Fetch) -> Reply:
    """FETCH and UID FETCH. Bodies may end the command, or the session, in many ways."""
    view, faults = peer.selected, peer.faults
    items = command.items
    if ("MODSEQ" in items or command.changed_since is not None) and not peer.has("CONDSTORE"):
        raise Refused("BAD", "Unknown FETCH item")
    if "MODSEQ" in items or command.changed_since is not None:
        peer.enabled.add("CONDSTORE")
        items = tuple(dict.fromkeys((*items, "MODSEQ")))
    chosen = peer.messages(command.messages, uid=command.uid)
    if command.changed_since is not None:
        since = command.changed_since
        if command.vanished:
            wanted = command.messages.resolve(view.box.uidnext) if isinstance(command.messages, NumSet) else None
            gone = [u for u, at in view.box.gone.items() if at > since and (wanted is None or u in wanted)]
            await peer.write(say.vanished(sorted(gone), earlier=True))
        chosen = [(seq, message) for seq, message in chosen if message.modseq > since]
    bodies = [item for item in items if isinstance(item, FetchBody)]
    marks = any(not item.peek or faults.peek_sets_seen for item in bodies) and not view.read_only
    for number, (seq, message) in enumerate(chosen):
        if marks and "\\Seen" not in message.flags:
            view.box.set_flags(message.uid, message.flags | {"\\Seen"})
        try:
            line = fetched(peer, seq, message, items=items)
        except Missing:
            continue
        except HangUp as end:
            if end.bye:
                await peer.bye("Internal error")
            await peer.line.flush()
            raise Closed from None
        if isinstance(line, Short):
            await peer.write(line.data)
            await peer.line.flush()
            raise Closed
        await peer.write(line)
        if faults.flags_unsolicited and bodies:
            await peer.write(say.fetch_line(seq, [b"FLAGS " + say.flags_list(sorted(message.flags))]))
        if number % 100 == 99:
            await asyncio.sleep(0)  # other sessions live too
    return OK("FETCH completed")


# --- SEARCH ---


async def search(peer: Peer, command: commands.Search) -> Reply:
    """SEARCH and UID SEARCH, in the old form and as ESEARCH."""
    view, faults = peer.selected, peer.faults
    if command.returns is not None and not peer.has("ESEARCH"):
        raise Refused("BAD", "Unknown SEARCH argument")
    there = view.box.messages
    found = [
        (seq, uid)
        for seq, uid in enumerate(view.uids, 1)
        if uid in there and matches(peer, command.program, seq=seq, message=there[uid])
    ]
    if faults.search_drops is not None:
        found = [pair for at, pair in enumerate(found, 1) if at % faults.search_drops]
    numbers = [uid if command.uid else seq for seq, uid in found]
    returns = command.returns
    if returns is None:
        await peer.write(say.search_line(numbers))
        return OK("SEARCH completed")
    if "SAVE" in returns:
        peer.saved = tuple(uid for _, uid in found)
    tag = re.match(rb"\S+", peer.server.log[-1])
    if returns != {"SAVE"}:
        await peer.write(
            say.esearch(
                tag[0] if tag else None,
                uid=command.uid,
                smallest=numbers[0] if "MIN" in returns and numbers else None,
                largest=numbers[-1] if "MAX" in returns and numbers else None,
                found=encode(numbers) if "ALL" in returns else None,
                count=len(numbers) if "COUNT" in returns else None,
            )
        )
    return OK("SEARCH completed")


# --- changes ---


def _writable(peer: Peer) -> View:
    view = peer.selected
    if view.read_only:
        raise Refused("NO", "Mailbox is read-only", "READ-ONLY")
    return view


async def store(peer: Peer, command: commands.Store) -> Reply:
    view = _writable(peer)
    box = view.box
    if command.unchanged_since is not None and not peer.has("CONDSTORE"):
        raise Refused("BAD", "Unknown STORE modifier")
    if command.unchanged_since is not None:
        peer.enabled.add("CONDSTORE")
    flags = taken_flags(peer, command.flags, box)
    failed: list[int] = []
    for seq, message in peer.messages(command.messages, uid=command.uid):
        if command.unchanged_since is not None and message.modseq > command.unchanged_since:
            failed.append(message.uid if command.uid else seq)
            continue
        old = set(message.flags)
        new = {"=": flags, "+": old | flags, "-": old - flags}[command.mode]
        if new != old:
            box.set_flags(message.uid, new)
        view.told[message.uid] = message.modseq
        if not command.silent or "CONDSTORE" in peer.enabled:
            parts = peer.flag_parts(message)
            if command.uid and not parts[0].startswith(b"UID"):
                parts.insert(0, b"UID %d" % message.uid)
            await peer.write(say.fetch_line(seq, parts))
    return OK("STORE completed", say.modified(failed) if failed else None)


async def store_labels(peer: Peer, rest: bytes) -> Reply | None:
    """`STORE n +X-GM-LABELS (…)`; None when it is another command."""
    match = _GM_STORE.fullmatch(rest)
    if match is None:
        return None
    box = _writable(peer).box
    names = [_label_name(quoted, atom) for quoted, atom in _LABEL.findall(match[4])]
    known = {other.label or name: other for name, other in peer.account.mailboxes.items()}
    for _, message in peer.messages(NumSet.parse(match[2]), uid=bool(match[1])):
        now = {other.label or other.name for other in message.mail.places if other is not box} - {None}
        wanted = {b"": set(names), b"+": now | set(names), b"-": now - set(names)}[match[3]]
        for name in wanted - now:
            (known.get(name) or peer.create_label(name)).place(message.mail)
        for name in now - wanted:
            target = known.get(name)
            if target is not None and target is not peer.account.all_mail and target in message.mail.places:
                target.remove(message.mail.places[target])
    return OK("Success")


def _label_name(quoted: bytes, atom: bytes) -> str:
    raw = re.sub(rb"\\(.)", rb"\1", quoted) if quoted else atom
    try:
        return decode_utf7(raw)
    except ProtocolError:
        raise Refused("BAD", "Bad label") from None


def _deleted(box: Mailbox, uid: int) -> bool:
    message = box.messages.get(uid)
    return message is not None and "\\Deleted" in message.flags


async def expunge(peer: Peer, command: commands.Expunge) -> Reply:
    view = _writable(peer)
    if command.uids is not None and not peer.has("UIDPLUS"):
        raise Refused("BAD", "Unknown command")
    uids = [uid for uid in view.uids if _deleted(view.box, uid)]
    if command.uids is not None:
        chosen = {message.uid for _, message in peer.messages(command.uids, uid=True)}
        uids = [uid for uid in uids if uid in chosen]
    remove(peer, view.box, uids)
    await peer.news()
    return OK("EXPUNGE completed")


def remove(peer: Peer, box: Mailbox, uids: Iterable[int]) -> None:
    """Expunge; with labels as Gmail does it."""
    account = peer.account
    for uid in list(uids):
        mail = box.messages[uid].mail
        if account.all_mail is None:
            box.remove(uid)
        elif box in account.apart:
            for other, place in list(mail.places.items()):
                other.remove(place)
        elif box is account.all_mail:
            _place(account.apart[0], mail_of=box.messages[uid])
        else:
            box.remove(uid)
            mail.flags.discard("\\Deleted")


def _place(target: Mailbox, *, mail_of: Message) -> Message:
    """Copy or label."""
    account, mail = target.account, mail_of.mail
    if account.all_mail is None:
        return target.add(mail.data, flags=mail.flags, date=mail.date, ill=mail.ill)
    if target in account.apart:
        for other, uid in list(mail.places.items()):
            if other is not target:
                other.remove(uid)
        mail.flags.discard("\\Deleted")
    return target.place(mail)


async def copy(peer: Peer, command: commands.Copy) -> Reply:
    box = peer.selected.box
    target = find(peer, command.mailbox, code="TRYCREATE")
    pairs = [
        (message.uid, _place(target, mail_of=message).uid)
        for _, message in peer.messages(command.messages, uid=command.uid)
    ]
    if target is box:
        await peer.news()
    return OK("COPY completed", _copyuid(peer, target, pairs))


def _copyuid(peer: Peer, target: Mailbox, pairs: list[tuple[int, int]]) -> bytes | None:
    return say.copyuid(target.uidvalidity, pairs) if pairs and peer.has("UIDPLUS") else None


async def move(peer: Peer, command: commands.Move) -> Reply:
    """MOVE (RFC 6851): COPYUID comes untagged, before the EXPUNGEs."""
    view = _writable(peer)
    target = find(peer, command.mailbox, code="TRYCREATE")
    chosen = peer.messages(command.messages, uid=command.uid)
    pairs = [(message.uid, _place(target, mail_of=message).uid) for _, message in chosen]
    code = _copyuid(peer, target, pairs)
    if code is not None:
        await peer.write(say.untagged("OK", "Moved", code=code))
    if target is not view.box:
        for _, message in chosen:
            if view.box.messages.get(message.uid) is message and view.box is not peer.account.all_mail:
                view.box.remove(message.uid)
    await peer.news()
    return OK("MOVE completed")
