"""What FETCH shows of one message of a scripted server, and what it shows of an ill one.

Knows items, sections and the faults of a message; not which messages are asked for. A body goes out as one piece, for a
scripted server has small mail; the marker values below stand for the ends that a body may come to.
"""

from dataclasses import dataclass
from typing import Final

from mailkeep.mail.header import select_fields
from mailkeep.mail.structure import decode_transfer, find_section
from mailkeep.testing.folders import looks_replaced
from mailkeep.testing.mailboxes import Mail, Message
from mailkeep.testing.peer import Peer
from mailkeep.testing.reply import Refused
from mailkeep.wire import imap_response as say
from mailkeep.wire.imap_command import FetchBody, FetchItem

_REPLACEMENT: Final = b"""\
From: "Microsoft Exchange Server" <exchange@example.com>\r
To: "Ann Other" <ann@example.org>\r
Subject: Retrieval using the IMAP4 protocol failed for the following message: %d\r
MIME-Version: 1.0\r
Content-Type: text/plain; charset="us-ascii"\r
\r
The server couldn't retrieve the following message:\r
\r
Subject: "unknown"\r
\r
The message hasn't been deleted. You might be able to view it using either Outlook or Outlook Web App. You can also \
contact the sender to find out what the message says.\r
"""


@dataclass(frozen=True, slots=True)
class Short:
    """A body that breaks off: everything up to here is sent, then the connection ends."""

    data: bytes


class Missing(Exception):
    """There is to be no answer for this message."""


class HangUp(Exception):
    """The connection is to end here; `bye`: with a word."""

    def __init__(self, bye: bool) -> None:
        super().__init__()
        self.bye = bye


def replacement(number: int) -> bytes:
    """The message that Exchange shows in place of one that it cannot convert."""
    return _REPLACEMENT % number


def category(item: FetchBody) -> str:
    """Which of `Ill.items` a section is."""
    section = item.section
    if item.kind == "RFC822":
        return "RFC822"
    if section.path:
        return "PART"
    if section.text.startswith("HEADER"):
        return "HEADER"
    return "TEXT" if section.text == "TEXT" else "BODY[]"


def struck(message: Message, items: tuple[FetchItem, ...]) -> str | None:
    """How a message is ill for these items; counts it."""
    ill = message.mail.ill
    if ill is None or not any(isinstance(item, FetchBody) and category(item) in ill.items for item in items):
        return None
    if ill.times is not None and message.mail.ill_count >= ill.times:
        return None
    message.mail.ill_count += 1
    return ill.kind


def fetched(peer: Peer, seq: int, message: Message, *, items: tuple[FetchItem, ...]) -> bytes | Short:
    """The whole untagged line. Raises Missing, HangUp, Refused."""
    faults = peer.faults
    kind = struck(message, items)
    if kind == "missing":
        raise Missing
    if kind in ("hangup", "bye"):
        raise HangUp(kind == "bye")
    if kind in ("no", "bad"):
        text = "Some messages could not be FETCHed (Failure)" if kind == "no" else "Command Error. 12"
        raise Refused(kind.upper(), text)
    parts = [_gm_item(message, name) for name in peer.gm_items]
    for item in items:
        if isinstance(item, str):
            parts.append(_attribute(peer, message, item))
            continue
        shown = _body(peer, message, item, kind=kind)
        if kind == "short" and shown is not None:
            head = b"* %d FETCH (%b" % (seq, b" ".join((*parts, shown)))
            return Short(head[: len(head) - len(message.data) // 2 - 1])
        if shown is not None:
            parts.append(shown)
    line = say.fetch_line(seq, parts)
    return line.replace(b" FETCH (", b"  FETCH ( ", 1) if faults.extra_spaces else line


def _attribute(peer: Peer, message: Message, item: str) -> bytes:
    mail = message.mail
    match item:
        case "UID":
            return b"UID %d" % message.uid
        case "FLAGS":
            return b"FLAGS " + say.flags_list(sorted(mail.flags))
        case "INTERNALDATE":
            if peer.faults.bad_dates:
                return b'INTERNALDATE "%d"' % mail.date
            return b"INTERNALDATE " + say.date_time(mail.date)
        case "RFC822.SIZE":
            return b"RFC822.SIZE %d" % max(len(mail.data) + peer.faults.size_error, 0)
        case "MODSEQ":
            return b"MODSEQ (%d)" % message.modseq
        case "ENVELOPE":
            return b"ENVELOPE " + mail.rendered.envelope
        case "BODY":
            return b"BODY " + mail.rendered.body
        case "BODYSTRUCTURE":
            return b"BODYSTRUCTURE " + mail.rendered.bodystructure
        case "EMAILID":
            return b"EMAILID (%b)" % mail.email_id.encode()
    raise Refused("BAD", f"Unknown FETCH item {item}")


def _gm_item(message: Message, name: str) -> bytes:
    if name == "X-GM-LABELS":
        return b"X-GM-LABELS (%b)" % b" ".join(sorted(labels(message)))
    return b"%b %d" % (name.encode(), message.mail.id)


def labels(message: Message) -> list[bytes]:
    """The labels of a mail, as Gmail writes them: the mailbox that is looked at and All Mail are not among them."""
    mail = message.mail
    here = {box for box, uid in mail.places.items() if box.messages.get(uid) is message}
    names = [box.label or box.name for box in mail.places if box not in here and box is not box.account.all_mail]
    return [say.quoted(name) if name.startswith("\\") else say.mailbox(name) for name in names]


def whole(peer: Peer, message: Message, kind: str | None) -> bytes:
    """The bytes that stand for the message, were it asked for whole."""
    if kind == "replaced" or looks_replaced(peer, message.data):
        return replacement(message.uid)
    return message.data


def _body(peer: Peer, message: Message, item: FetchBody, *, kind: str | None) -> bytes | None:
    """`LABEL value`; None: it is left out."""
    faults, label = peer.faults, item.label
    hit = kind is not None and message.mail.ill is not None and category(item) in message.mail.ill.items
    if hit and kind == "nil":
        return label + b" NIL"
    if hit and kind == "empty":
        return label + b' ""'
    if item.kind == "RFC822" and faults.rfc822 != "whole":
        return {"empty": label + b' ""', "nil": label + b" NIL", "missing": None}[faults.rfc822]
    data = whole(peer, message, kind if hit else None)
    data = _section(message.mail if data is message.data else Mail(data, date=0), item)
    count(peer, len(data))
    return b"%b %d" % (label, len(data)) if item.kind == "BINARY.SIZE" else label + b" " + say.literal(data)


def count(peer: Peer, size: int) -> None:
    """Count message data against the cap of the day. Raises Refused, and the session ends."""
    server = peer.server
    cap = server.faults.bytes_cap
    if cap is not None and server.body_bytes + size > cap:
        server.body_bytes = max(server.body_bytes, cap)
        raise Refused("NO", "Account exceeded command or bandwidth limits.", "OVERQUOTA", ends=True)
    server.body_bytes += size


def _section(mail: Mail, item: FetchBody) -> bytes:
    section, data = item.section, mail.data
    if section.path or section.text:
        fields = section.text.startswith("HEADER.FIELDS")
        span = find_section(mail.rendered.sections, section.path, "HEADER" if fields else section.text)
        data = b"" if span is None else data[span.start : span.start + span.length]
        if fields:
            names = frozenset(name.lower() for name in section.fields)
            data = select_fields(data, names, exclude=section.text.endswith("NOT"))
        if item.kind.startswith("BINARY") and span is not None:
            data = decode_transfer(data, span.encoding) or b""
    if item.partial is not None:
        data = data[item.partial[0] : item.partial[0] + item.partial[1]]
    return data
