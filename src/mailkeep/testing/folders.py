"""What a scripted server does with names: LIST, STATUS, CREATE and the like, and APPEND; with its limits on them.

Names are text with the server's own separator. The patterns of `mail.mailbox_name` know "/" only, so for matching the
separator and "/" change places.
"""

import hashlib
import re
from collections.abc import Iterable

from mailkeep.errors import ProtocolError
from mailkeep.mail.flags import SYSTEM_FLAGS, canonical
from mailkeep.mail.mailbox_name import compile_pattern, encode_utf7
from mailkeep.testing.mailboxes import Mailbox
from mailkeep.testing.peer import Peer
from mailkeep.testing.reply import OK, Refused, Reply
from mailkeep.wire import imap_command as commands
from mailkeep.wire import imap_response as say

_STOOD_FOR = "\ue000"  # where a name has "/" and the server another separator


def find(peer: Peer, name: str, *, code: str | None = None) -> Mailbox:
    """A mailbox that can be selected. Raises Refused."""
    box = peer.account.mailboxes.get("INBOX" if name.upper() == "INBOX" else name)
    if box is None or not box.selectable:
        raise Refused("NO", f"Unknown Mailbox: {name} (Failure)", code or "NONEXISTENT")
    return box


# --- LIST ---


def _swapped(name: str, separator: str) -> str:
    return name if separator == "/" else name.replace("/", _STOOD_FOR).replace(separator, "/")


async def list_names(peer: Peer, command: commands.List) -> Reply:
    """LIST, LSUB and XLIST."""
    faults = peer.faults
    if command.extended and not (peer.has("LIST-EXTENDED") or peer.has("SPECIAL-USE")):
        raise Refused("BAD", "Invalid LIST arguments")
    if command.status and not peer.has("LIST-STATUS"):
        raise Refused("BAD", "Unknown return option")
    if command.patterns == ("",) and not command.reference:
        root = (command.kind.encode(), say.quoted(faults.separator))
        await peer.write(b'* %b (\\Noselect) %b ""\r\n' % root)
        return OK("LIST completed")
    separator = faults.separator
    tests = [
        compile_pattern(_swapped(command.reference, separator), _swapped(pattern, separator))
        for pattern in command.patterns
    ]
    subscribed_only = command.kind == "LSUB" or "SUBSCRIBED" in command.select
    names = set(peer.account.subscribed) if subscribed_only else set(peer.account.mailboxes)
    for name in sorted(names, key=lambda name: (name != "INBOX", name)):
        box = peer.account.mailboxes.get(name)
        if not any(test(_swapped(name, separator)) for test in tests):
            continue
        if "SPECIAL-USE" in command.select and (box is None or box.special_use is None):
            continue
        await peer.write(_line(peer, command, name=name, box=box))
        if command.status and box is not None and box.selectable:
            await peer.write(_status_line(peer, box, command.status))
    return OK(f"{command.kind} completed")


def _line(peer: Peer, command: commands.List, *, name: str, box: Mailbox | None) -> bytes:
    faults, separator = peer.faults, peer.faults.separator
    attributes = [] if box is not None else ["\\NonExistent"]
    if box is not None and not box.selectable:
        attributes.append("\\Noselect")
    if peer.has("CHILDREN") or "CHILDREN" in command.returns:
        children = any(other.startswith(name + separator) for other in peer.account.mailboxes)
        attributes.append("\\HasChildren" if children else "\\HasNoChildren")
    if faults.either_mail_or_folders and box is not None and box.selectable:
        attributes.append("\\NoInferiors")
    shows_use = peer.has("SPECIAL-USE") and (faults.special_use_in_list or "SPECIAL-USE" in command.returns)
    if box is not None and box.special_use and (shows_use or peer.xlist) and command.kind != "LSUB":
        attributes.append(box.special_use)
    if command.extended and ("SUBSCRIBED" in command.returns or "SUBSCRIBED" in command.select):
        attributes += ["\\Subscribed"] if name in peer.account.subscribed else []
    kind = "XLIST" if peer.xlist else command.kind
    raw = name.encode() if peer.utf8 else encode_utf7(name)
    if faults.unquoted_names or faults.literal_names:
        shown = raw if faults.unquoted_names else b"{%d}\r\n%b" % (len(raw), raw)
        head = (kind.encode(), " ".join(attributes).encode(), say.quoted(separator))
        return b"* %b (%b) %b %b\r\n" % (*head, shown)
    line = say.list_line(attributes, name, kind=kind, utf8=peer.utf8, separator=say.quoted(separator))
    return line.replace(b") ", b")  ", 1) if faults.extra_spaces else line


async def namespace(peer: Peer, command: commands.Namespace) -> Reply:
    faults = peer.faults
    prefix, separator = say.quoted(encode_utf7(faults.prefix)), say.quoted(faults.separator)
    await peer.write(b"* NAMESPACE ((%b %b)) NIL NIL\r\n" % (prefix, separator))
    return OK("NAMESPACE completed")


async def status(peer: Peer, command: commands.Status) -> Reply:
    box = find(peer, command.mailbox)
    if "HIGHESTMODSEQ" in command.items and not peer.has("CONDSTORE"):
        raise Refused("BAD", "Unknown STATUS item")
    if "SIZE" in command.items and not peer.has("STATUS=SIZE"):
        raise Refused("BAD", "Unknown STATUS item")
    await peer.write(_status_line(peer, box, command.items))
    return OK("STATUS completed")


def _status_line(peer: Peer, box: Mailbox, items: Iterable[str]) -> bytes:
    shown = box.visible(peer.faults.folder_cap)
    unseen = sum("\\Seen" not in message.flags for message in shown)
    values: dict[str, int | str] = {
        "MESSAGES": len(shown),
        "RECENT": 0,
        "UIDNEXT": box.uidnext,
        "UIDVALIDITY": box.uidvalidity,
        "UNSEEN": unseen,
        "DELETED": sum("\\Deleted" in message.flags for message in shown),
        "SIZE": sum(len(message.data) for message in shown),
        "HIGHESTMODSEQ": box.modseq,
        "MAILBOXID": f"(F{id(box):x})",
        "APPENDLIMIT": peer.faults.append_max or 0,
    }
    return say.status_line(box.name, {item: values[item] for item in items}, utf8=peer.utf8)


# --- changes ---


def _check_name(peer: Peer, name: str) -> None:
    faults = peer.faults
    levels = name.split(faults.separator)
    raw = name.encode() if peer.utf8 else encode_utf7(name)
    if not all(levels):
        raise Refused("NO", "Empty level in mailbox name", "CANNOT")
    if faults.name_max is not None and len(raw) > faults.name_max:
        raise Refused("NO", "Mailbox name is too long", "LIMIT")
    if any(char in faults.name_forbidden for char in name):
        raise Refused("NO", "Mailbox name has a character that is not allowed", "CANNOT")
    if faults.name_seven_bit and not name.isascii():
        raise Refused("NO", "Mailbox name must be ASCII", "CANNOT")
    if faults.depth_max is not None and len(levels) > faults.depth_max:
        raise Refused("NO", "Mailbox hierarchy is too deep", "LIMIT")
    if faults.labels and levels[0].upper() in ("[GMAIL]", "[GOOGLE MAIL]"):
        raise Refused("NO", "Folder names under [Gmail]/ are reserved. (Failure)", "CANNOT")
    for depth in range(1, len(levels)):
        above = peer.account.mailboxes.get(faults.separator.join(levels[:depth]))
        if faults.either_mail_or_folders and above is not None and above.selectable:
            raise Refused("NO", "A mailbox with mail can have no mailboxes below it", "CANNOT")


async def create(peer: Peer, command: commands.Create) -> Reply:
    separator = peer.faults.separator
    folder_only = command.mailbox.endswith(separator)
    name = command.mailbox.removesuffix(separator)
    if command.special_use and not peer.has("CREATE-SPECIAL-USE"):
        raise Refused("BAD", "Unknown CREATE parameter")
    _check_name(peer, name)
    if name in peer.account.mailboxes or name.upper() == "INBOX":
        raise Refused("NO", "Duplicate folder name (Failure)", "ALREADYEXISTS")
    levels = name.split(separator)
    for depth in range(1, len(levels)):  # RFC 9051 section 6.3.4: superior names are made as well
        above = separator.join(levels[:depth])
        if above not in peer.account.mailboxes:
            peer.account.create(above, selectable=not peer.faults.either_mail_or_folders)
            peer.account.subscribed.discard(above)
    use = next(iter(command.special_use), None)
    selectable = not (folder_only and peer.faults.either_mail_or_folders)
    peer.account.create(name, special_use=use, selectable=selectable)
    peer.account.subscribed.discard(name)
    return OK("CREATE completed")


async def delete(peer: Peer, command: commands.Delete) -> Reply:
    name = command.mailbox
    box = peer.account.mailboxes.get(name)
    if box is None:
        raise Refused("NO", "No such mailbox", "NONEXISTENT")
    if name == "INBOX" or (peer.faults.labels and box.special_use):
        raise Refused("NO", "This mailbox cannot be deleted", "CANNOT")
    peer.account.delete(name)
    return OK("DELETE completed")


async def rename(peer: Peer, command: commands.Rename) -> Reply:
    if command.old not in peer.account.mailboxes:
        raise Refused("NO", "No such mailbox", "NONEXISTENT")
    if command.new in peer.account.mailboxes:
        raise Refused("NO", "Duplicate folder name (Failure)", "ALREADYEXISTS")
    _check_name(peer, command.new)
    peer.account.rename(command.old, command.new, peer.faults.separator)
    return OK("RENAME completed")


async def subscribe(peer: Peer, command: commands.Subscribe | commands.Unsubscribe) -> Reply:
    if isinstance(command, commands.Subscribe):
        peer.account.subscribed.add(command.mailbox)
    else:
        peer.account.subscribed.discard(command.mailbox)
    return OK("Completed")


# --- APPEND ---


def append_problem(peer: Peer, command: commands.Append) -> Refused | None:
    """Why an announced message is not wanted; None when it is."""
    try:
        find(peer, command.mailbox, code="TRYCREATE")
        taken_flags(peer, command.flags)
    except Refused as refused:
        return refused
    return None


def taken_flags(peer: Peer, flags: Iterable[str], box: Mailbox | None = None) -> set[str]:
    """The flags that this server keeps of those given. Raises Refused where it has a limit."""
    faults = peer.faults
    taken = set()
    for flag in flags:
        try:
            name = canonical(flag)
        except ProtocolError:
            continue
        if name not in SYSTEM_FLAGS:
            if not faults.keywords:
                continue  # dropped without a word, as Exchange does
            if faults.keyword_length_max is not None and len(name) > faults.keyword_length_max:
                raise Refused("NO", "Keyword is too long", "LIMIT")
        taken.add(name)
    if faults.keywords_max is not None and box is not None:
        known = {flag for message in box for flag in message.flags} - set(SYSTEM_FLAGS)
        if len(known | (taken - set(SYSTEM_FLAGS))) > faults.keywords_max:
            raise Refused("NO", "Too many keywords", "LIMIT")
    return taken


async def append(peer: Peer, command: commands.Append, data: bytes) -> Reply:
    """Put the message in."""
    faults = peer.faults
    box = find(peer, command.mailbox, code="TRYCREATE")
    flags = taken_flags(peer, command.flags, box) - faults.lost_flags_on_append
    date = None if faults.append_date_ignored else command.date
    known = peer.account.contents.get(hashlib.sha256(data).digest()) if faults.labels else None
    if known is not None:
        message = box.place(known)  # the same mail once more is one more label
    else:
        message = box.add(data, flags=flags, date=date)
        if faults.labels:
            peer.account.contents[hashlib.sha256(data).digest()] = message.mail
    await peer.news()
    code = say.appenduid(box.uidvalidity, [message.uid]) if peer.has("UIDPLUS") else None
    return OK("APPEND completed", code)


def looks_replaced(peer: Peer, data: bytes) -> bool:
    """Whether this server shows another message in place of this one."""
    return peer.faults.replaces is not None and re.search(peer.faults.replaces, data) is not None
