"""The demo account's mail: some three hundred messages of every shape that a mail client should be tried with.

Made from a seed, so that every run makes the same bytes, and the importer, which takes no message twice, adds nothing
the second time. Bytes are put together here by hand rather than by the standard library's generator: a sample must be
exactly what this file says, on every version of Python.
"""

import base64
import binascii
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from mailkeep.export import demo_text as words
from mailkeep.export.item import Item
from mailkeep.mail.flags import ANSWERED, DRAFT, FLAGGED, SEEN

SEED: Final = 20260115
NEWEST: Final = 1_768_471_200  # 15 January 2026 10:00 UTC: the day of the newest message
DAY: Final = 86400
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Person = tuple[str, str]
Flags = frozenset[str]
NO_FLAGS: Final[Flags] = frozenset()


# --- the bytes of a message ------------------------------------------------------------------------------------------


def encoded(text: str) -> str:
    """Header text: as it is when ASCII, else RFC 2047 base64 words of at most 75 characters."""
    if text.isascii():
        return text
    lines, piece = [], ""
    for char in text:
        if len((piece + char).encode()) > 42:
            lines.append(piece)
            piece = ""
        piece += char
    lines.append(piece)
    return "\r\n ".join(f"=?utf-8?B?{base64.b64encode(line.encode()).decode()}?=" for line in lines)


def person(who: Person) -> str:
    return f"{encoded(who[0])} <{who[1]}>"


def date(when: int, zone: int = 60) -> str:
    moment = datetime.fromtimestamp(when + zone * 60, UTC)
    sign = "-" if zone < 0 else "+"
    return (
        f"{DAYS[moment.weekday()]}, {moment.day} {MONTHS[moment.month - 1]} {moment.year} "
        f"{moment:%H:%M:%S} {sign}{abs(zone) // 60:02d}{abs(zone) % 60:02d}"
    )


def part(kind: str, data: bytes, *, name: str | None = None, extra: Sequence[str] = ()) -> bytes:
    """A base64 leaf with its own header."""
    head = [f"Content-Type: {kind}", "Content-Transfer-Encoding: base64", *extra]
    if name is not None:
        shown = f'filename="{name}"' if name.isascii() else "filename*=utf-8''" + _percent(name)
        head.append(f"Content-Disposition: attachment;\r\n {shown}")
    body = base64.encodebytes(data).replace(b"\n", b"\r\n")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def text(content: str, kind: str = "plain", *, extra: Sequence[str] = ()) -> bytes:
    """A text leaf: 7bit when it can be, quoted-printable when most of it is ASCII, else base64."""
    content = content.replace("\n", "\r\n") + ("" if content.endswith("\n") else "\r\n")
    raw = content.encode()
    head = [f"Content-Type: text/{kind}; charset=utf-8", *extra]
    if content.isascii() and max(map(len, content.split("\r\n"))) < 200:
        return "\r\n".join([*head, "Content-Transfer-Encoding: 7bit"]).encode() + b"\r\n\r\n" + raw
    if sum(byte > 127 for byte in raw) * 3 > len(raw):
        return part(f"text/{kind}; charset=utf-8", raw, extra=extra)
    quoted = binascii.b2a_qp(raw.replace(b"\r\n", b"\n"), istext=True).replace(b"\n", b"\r\n")
    return "\r\n".join([*head, "Content-Transfer-Encoding: quoted-printable"]).encode() + b"\r\n\r\n" + quoted


def multipart(kind: str, parts: Sequence[bytes], *, extra: str = "") -> bytes:
    mark = f"=_{zlib.crc32(b''.join(parts)):08x}_{len(parts)}"
    inner = b"".join(b"--" + mark.encode() + b"\r\n" + one.rstrip(b"\r\n") + b"\r\n" for one in parts)
    return (
        f'Content-Type: multipart/{kind};\r\n boundary="{mark}"{extra}\r\n\r\n'.encode()
        + inner
        + f"--{mark}--\r\n".encode()
    )


def _percent(name: str) -> str:
    return quote(name, safe="")  # RFC 8187, which RFC 2231 parameters share


def picture(colour: tuple[int, int, int], width: int = 240, height: int = 80) -> bytes:
    """A PNG: a sky that gets darker over a sea."""
    rows = b""
    for y in range(height):
        sea = y > height * 2 // 3
        shade = tuple(max(0, c - y) if not sea else c // 3 for c in colour)
        rows += b"\0" + bytes(shade) * width

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def document(title: str) -> bytes:
    """A PDF of one page that says its title."""
    stream = f"BT /F1 24 Tf 72 720 Td ({title}) Tj ET".encode("latin-1", "replace")
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R "
        b"/Resources << /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
    ]
    data, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return data + b"xref\n0 5\n0000000000 65535 f \n%strailer\n<< /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        table,
        len(data),
    )


# --- the account -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Correspondence:
    """The account being written: who owns it, the dice, and the messages so far."""

    owner: Person
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))
    items: list[tuple[int, Item]] = field(default_factory=list)

    def message(
        self,
        subject: str,
        body: bytes,
        *,
        sender: Person,
        to: Sequence[Person] | None = None,
        when: int,
        mailbox: str = "",
        flags: Flags = NO_FLAGS,
        replies_to: Sequence[str] = (),
        extra: Sequence[str] = (),
    ) -> str:
        """Put a message into a mailbox ("" is INBOX); its Message-ID."""
        number = len(self.items) + 1
        message_id = f"<{number:04d}.{self.dice.getrandbits(40):010x}@{sender[1].partition('@')[2]}>"
        received = [
            f"Received: from mail.{sender[1].partition('@')[2]} by mx.example.org with ESMTPS;\r\n\t{date(when + 4, 0)}"
        ]
        head = [
            *(received if sender != self.owner else []),
            f"From: {person(sender)}",
            "To: " + ",\r\n ".join(person(who) for who in (to or [self.owner])),
            f"Subject: {encoded(subject)}",
            f"Date: {date(when)}",
            f"Message-ID: {message_id}",
            *(
                [f"In-Reply-To: {replies_to[-1]}", "References: " + "\r\n ".join(replies_to[-20:])]
                if replies_to
                else []
            ),
            *extra,
            "MIME-Version: 1.0",
        ]
        data = "\r\n".join(head).encode() + b"\r\n" + body
        item = Item(f"demo#{number}", len(data), iter((data,)), (mailbox,), flags, when)
        self.items.append((when, item))
        return message_id

    def someone(self) -> Person:
        return self.dice.choice(words.PEOPLE)

    def prose(self, sender: Person, *, quoting: str = "") -> str:
        lines = [self.dice.choice(words.OPENINGS), "", *self.dice.sample(words.MIDDLES, self.dice.randint(1, 3))]
        quoted = "".join(f"\n> {line}" for line in quoting.splitlines()[:6])
        return "\n".join([*lines, "", self.dice.choice(words.CLOSINGS), sender[0]]) + ("\n" + quoted if quoting else "")

    def state(self, when: int) -> Flags:
        """Old mail is mostly read, new mail is mostly not."""
        age = (NEWEST - when) / DAY
        flags: set[str] = set()
        if self.dice.random() < min(0.97, 0.2 + age / 8):
            flags.add(SEEN)
            if self.dice.random() < 0.3:
                flags.add(ANSWERED)
        if self.dice.random() < 0.07:
            flags.add(FLAGGED)
        if self.dice.random() < 0.04:
            flags |= {"$Important"}
        return frozenset(flags)


def items(owner: Person = ("Demo", "demo@example.org")) -> Iterator[Item]:
    """All messages, oldest first, so that UIDs follow the dates."""
    post = Correspondence(owner)
    _conversations(post)
    _long_thread(post)
    _newsletters(post)
    _languages(post)
    _attachments(post)
    _calendar(post)
    _nested(post)
    _report(post)
    _junk_and_trash(post)
    _drafts(post)
    _welcome(post)
    yield from (item for _, item in sorted(post.items, key=lambda pair: pair[0]))


def _conversations(post: Correspondence) -> None:
    """Threads of one to seven: what others write goes to INBOX, Archive or a project, what the owner writes to Sent."""
    homes = ("", "", "", "Archive", "Projects/Harbour", "Projects/Garden", "Travel")
    for number in range(58):
        subject = words.SUBJECTS[number % len(words.SUBJECTS)]
        home = homes[number % len(homes)]
        other = post.someone()
        when = NEWEST - post.dice.randint(1, 400 if home else 60) * DAY - post.dice.randint(0, DAY // 2)
        references: list[str] = []
        said = ""
        for turn in range(post.dice.choice((1, 1, 2, 3, 4, 7))):
            mine = turn % 2 == 1
            sender, to = (post.owner, [other]) if mine else (other, [post.owner])
            said = post.prose(sender, quoting=said)
            when = min(NEWEST - 600 * (60 - number), when + post.dice.randint(1800, 2 * DAY))
            references.append(
                post.message(
                    subject if turn == 0 else f"Re: {subject}",
                    text(said),
                    sender=sender,
                    to=to,
                    when=when,
                    mailbox="Sent" if mine else home,
                    flags=frozenset({SEEN}) if mine else post.state(when),
                    replies_to=references,
                )
            )


def _long_thread(post: Correspondence) -> None:
    """A mailing list: forty messages in one thread, with all headers that such mail has."""
    address = ("Garden talk", "garden@lists.example.net")
    head = (
        "List-Id: Garden talk <garden.lists.example.net>",
        "List-Post: <mailto:garden@lists.example.net>",
        "List-Unsubscribe: <mailto:garden-leave@lists.example.net>",
        "Precedence: list",
        "Sender: garden-bounces@lists.example.net",
    )
    when = NEWEST - 30 * DAY
    ids: list[list[str]] = []
    for number in range(40):
        when += post.dice.randint(900, DAY)
        above = (ids[-1] if number % 4 else post.dice.choice(ids)) if ids else []
        said = words.LIST_TALK[number % len(words.LIST_TALK)]
        sender = post.someone()
        subject = f"[garden] {'Re: ' if number else ''}{words.LIST_SUBJECT}"
        body = text(f"{said}\n\n{sender[0]}\n\n-- \nGarden talk: https://lists.example.net/garden\n")
        flags = post.state(when)
        name = post.message(
            subject, body, sender=sender, to=[address], when=when, mailbox="Lists/Garden", flags=flags,
            replies_to=above, extra=head,
        )  # fmt: skip
        ids.append([*above, name])


def _newsletters(post: Correspondence) -> None:
    """HTML with pictures inside the message: alternative(text, related(html, png, png))."""
    for number in range(30):
        paper, title, lead = words.NEWS[number % len(words.NEWS)]
        when = NEWEST - number * 5 * DAY - 7200
        colour = (120 + number * 4 % 130, 170, 230 - number * 3 % 100)
        page = (
            f'<!DOCTYPE html><html><head><meta charset="utf-8"><style>h1 {{ color: #246 }}</style></head><body>'
            f'<img src="cid:head{number}@example.net" alt="{paper}" width="240" height="80"><h1>{title}</h1>'
            f"<p>{lead}</p><p>&ldquo;{post.dice.choice(words.MIDDLES)}&rdquo; &ndash; a reader</p>"
            f'<p><img src="cid:foot{number}@example.net" alt=""></p>'
            f'<p><a href="https://example.net/{number}">Read more</a></p></body></html>'
        )
        pictures = [
            part("image/png", picture(tint), extra=(f"Content-ID: <{place}{number}@example.net>",
                 f'Content-Disposition: inline; filename="{place}.png"'))
            for place, tint in (("head", colour), ("foot", colour[::-1]))
        ]  # fmt: skip
        related = multipart("related", [text(page, "html"), *pictures], extra=';\r\n type="text/html"')
        plain = text(f"{title}\n\n{lead}\n\nhttps://example.net/{number}")
        post.message(
            f"{paper}: {title}",
            multipart("alternative", [plain, related]),
            sender=(paper, f"news{number % 5}@example.net"),
            when=when,
            mailbox="Lists/News" if number % 3 else "",
            flags=post.state(when),
            extra=("List-Unsubscribe: <https://example.net/unsubscribe>", "Precedence: bulk"),
        )


def _languages(post: Correspondence) -> None:
    """Scripts from right to left, wide characters, characters of four bytes; in mailbox names too."""
    senders = {address: (name, address) for name, address in words.PEOPLE}
    written = (
        (words.ARABIC, senders["layla@example.net"], "عائلة"),
        (words.CHINESE, senders["lilei@example.com"], "旅行"),
        (words.JAPANESE, senders["hana@example.com"], ""),
        (words.EMOJI, senders["freya@example.net"], ""),
        (words.HEBREW, ("מקהלה", "choir@example.org"), ""),
    )
    for number, ((subject, said), sender, home) in enumerate(written * 3):
        when = NEWEST - (2 + number * 4) * DAY
        mailbox = home if number % 2 == 0 else ""
        title = subject if number < len(written) else f"Re: {subject}"
        post.message(title, text(said), sender=sender, when=when, mailbox=mailbox, flags=post.state(when))
    latin = "Grüße aus Zürich – schön hier!\n\nZoë"
    body = (
        b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + latin.replace("–", "-").replace("\n", "\r\n").encode("latin-1")
        + b"\r\n"
    )
    post.message("Grüße", body, sender=senders["zoe@example.org"], when=NEWEST - 9 * DAY, flags=frozenset({SEEN}))


def _attachments(post: Correspondence) -> None:
    """Documents, tables and pictures, one of them with a name that is not ASCII, one large."""
    table = "month,income,cost\r\n" + "".join(f"2025-{m:02d},{1000 + m * 37},{900 + m * 41}\r\n" for m in range(1, 13))
    cases = (
        (
            "Minutes and budget",
            [("application/pdf", document("Minutes"), "minutes.pdf"), ("text/csv", table.encode(), "budget.csv")],
        ),
        ("Photos from the pier", [("image/png", picture((230, 180, 90 + n), 640, 360), f"{n}.png") for n in range(3)]),
        ("Einladung zum Sommerfest", [("application/pdf", document("Sommerfest"), "Einladung für Gäste.pdf")]),
        ("الخريطة", [("image/png", picture((90, 160, 120), 320, 200), "خريطة.png")]),
        ("Data of the tide gauge", [("application/octet-stream", post.dice.randbytes(700_000), "tide.bin")]),
    )  # fmt: skip
    for number in range(20):
        subject, files = cases[number % len(cases)]
        sender = post.someone()
        when = NEWEST - (1 + number * 9) * DAY
        parts = [text(post.prose(sender)), *(part(kind, data, name=name) for kind, data, name in files)]
        mailbox = ("", "Projects/Harbour", "Archive")[number % 3]
        if number % len(cases) == 4 and number > 5:
            continue  # one large message is enough
        post.message(
            subject, multipart("mixed", parts), sender=sender, when=when, mailbox=mailbox, flags=post.state(when)
        )


def _calendar(post: Correspondence) -> None:
    """An invitation (iMIP, RFC 6047): the text, the request beside it, and the same as a file."""
    host = ("Ines", "ines@example.net")
    event = "\r\n".join(
        (
            "BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//Example//Demo//EN", "METHOD:REQUEST", "BEGIN:VEVENT",
            "UID:harbour-walk-1@example.net", "DTSTAMP:20260110T080000Z", "DTSTART:20260207T090000Z",
            "DTEND:20260207T110000Z", "SUMMARY:Walk round the harbour", "LOCATION:Pier 3",
            f"ORGANIZER;CN=Ines:mailto:{host[1]}",
            f"ATTENDEE;CN={post.owner[0]};PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:{post.owner[1]}",
            "END:VEVENT", "END:VCALENDAR", "",
        )
    )  # fmt: skip
    plain = text("You are invited: walk round the harbour, 7 February, 10:00, at pier 3.\n\nInes")
    request = text(event.replace("\r\n", "\n"), "calendar; method=REQUEST")
    body = multipart(
        "mixed",
        [multipart("alternative", [plain, request]), part("application/ics", event.encode(), name="invite.ics")],
    )
    when = NEWEST - 2 * DAY
    post.message("Invitation: Walk round the harbour", body, sender=host, when=when, flags=frozenset({FLAGGED}))


def _nested(post: Correspondence) -> None:
    """A message in a message in a message, and a digest."""
    inner = (
        f"From: {person(words.PEOPLE[3])}\r\nTo: anna@example.org\r\nSubject: The oldest\r\n"
        f"Date: {date(NEWEST - 20 * DAY)}\r\nMessage-ID: <oldest@example.net>\r\nMIME-Version: 1.0\r\n"
    ).encode() + text("This was the beginning of it all.")
    middle = (
        f"From: {person(words.PEOPLE[0])}\r\nTo: bela@example.org\r\nSubject: Fwd: The oldest\r\n"
        f"Date: {date(NEWEST - 19 * DAY)}\r\nMessage-ID: <middle@example.org>\r\nMIME-Version: 1.0\r\n"
    ).encode() + multipart("mixed", [text("See below."), b"Content-Type: message/rfc822\r\n\r\n" + inner])
    forwarded = b"Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n" + middle
    body = multipart("mixed", [text("Here is the whole story, as an attachment."), forwarded])
    flags = frozenset({SEEN, "$Forwarded"})
    post.message("Fwd: Fwd: The oldest", body, sender=words.PEOPLE[1], when=NEWEST - 18 * DAY, flags=flags)
    digest = multipart("digest", [b"\r\n" + inner, b"\r\n" + inner.replace(b"The oldest", b"The second")])
    post.message(
        "Garden talk, digest 12", digest, sender=("Garden talk", "garden@lists.example.net"), when=NEWEST - 12 * DAY,
        mailbox="Lists/Garden", flags=frozenset({SEEN}),
    )  # fmt: skip


def _report(post: Correspondence) -> None:
    """Mail that came back (RFC 3464)."""
    status = (
        b"Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example.org\r\n\r\n"
        b"Final-Recipient: rfc822; nobody@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n"
        b"Diagnostic-Code: smtp; 550 5.1.1 No such mailbox here\r\n"
    )
    head = b"Content-Type: text/rfc822-headers\r\n\r\nSubject: Hello?\r\nTo: nobody@example.com\r\n"
    body = multipart(
        "report",
        [text("Your message could not be delivered."), status, head],
        extra=";\r\n report-type=delivery-status",
    )
    sender = ("Mail Delivery System", "postmaster@example.org")
    post.message("Undelivered mail returned to sender", body, sender=sender, when=NEWEST - 5 * DAY)


def _junk_and_trash(post: Correspondence) -> None:
    for number in range(15):
        subject, said = words.JUNK[number % len(words.JUNK)]
        when = NEWEST - number * 2 * DAY - 3 * 3600
        sender = ("Prize Office", f"prize{number}@example.com")
        page = text(f"<html><body><p><b>{said}</b></p></body></html>", "html")
        flags = frozenset({"$Junk"}) | (frozenset({SEEN}) if number > 8 else NO_FLAGS)
        post.message(subject, page, sender=sender, when=when, mailbox="Junk", flags=flags)
    for number in range(8):
        sender = post.someone()
        when = NEWEST - (3 + number * 3) * DAY
        subject = words.SUBJECTS[-1 - number]
        post.message(
            subject, text(post.prose(sender)), sender=sender, when=when, mailbox="Trash", flags=frozenset({SEEN})
        )


def _drafts(post: Correspondence) -> None:
    for number, (subject, said) in enumerate(
        (
            ("Re: Boat for the weekend", "I would love to, but"),
            ("", "Shopping: bread, tea, rope"),
            ("Sommerfest 🎈", "Liebe Gäste,\n\n"),
        )
    ):
        flags = frozenset({SEEN, DRAFT})
        when = NEWEST - number * DAY - 1800
        post.message(
            subject, text(said), sender=post.owner, to=[post.someone()], when=when, mailbox="Drafts", flags=flags
        )


def _welcome(post: Correspondence) -> None:
    said = (
        "Welcome!\n\nThis account is made of invented mail, for trying out a mail client: threads, pictures inside of\n"
        "messages, attachments, many scripts, an invitation, messages in messages. Do with it what you like.\n\n"
        "Your own mail comes in with\n\n"
        "    mailkeep user add you@example.org\n    mailkeep import ~/Mail --user you@example.org\n\n"
        "Mailkeep\n"
    )
    post.message("Welcome to Mailkeep", text(said), sender=("Mailkeep", "mailkeep@example.org"), when=NEWEST)
