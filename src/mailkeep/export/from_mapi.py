"""Items of Outlook as mail: the message that a PST, OST or MSG file keeps in properties, composed anew.

Knows what the properties mean ([MS-OXCMAIL] says which field and part each becomes) and nothing of the files. What the
item is besides mail, a contact or an appointment, `outlook_items` reads.

**The one hard idea** is what to believe. Outlook keeps the header of received mail as one text, beside properties that
were made of it; the text is the original, so its fields are taken as they are, but for those about the form of a body
that is no longer there. What it lacks (Bcc), and all of it for mail that was never sent through the Internet, is made
of properties. Of the bodies the one that the sender wrote is taken, and the one that Outlook made of it only where
there is nothing that tells them apart.

The same item always gives the same bytes, whatever else was read before it, for that is how an import knows it again.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from mailkeep.export import mapi
from mailkeep.export.bodies import Bodies, bodies_of
from mailkeep.export.imcea import encapsulated
from mailkeep.export.item import keyword
from mailkeep.export.mapi import Attached, Item, bytes_of, number_of, text_of, time_of
from mailkeep.export.outlook_items import Extra, extra_of
from mailkeep.export.to_mapi import MACHINE_KEYWORDS
from mailkeep.mail import compose
from mailkeep.mail.address import parse_addresses
from mailkeep.mail.compose import Leaf, Multi, Part
from mailkeep.mail.dates import plausible
from mailkeep.mail.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from mailkeep.mail.header import decode_words, iter_lines

DEPTH_MAX: Final = 20  # messages in messages
RECIPIENTS_MAX: Final = 20_000
ATTACHMENTS_MAX: Final = 5_000


@dataclass(frozen=True, slots=True)
class Composed:
    """A message made of an item: its bytes, and what the store keeps beside them. `problems`: what is not as it was."""

    data: bytes
    flags: frozenset[str]
    internaldate: int | None
    problems: tuple[str, ...] = ()


def message_of(item: Item) -> Composed:
    """The item as mail. Never raises, whatever the item holds."""
    work = _Work()
    data = work.message(item, 0)
    return Composed(data, flags_of(item), _when(item), tuple(dict.fromkeys(work.problems)))


# --- flags and dates -------------------------------------------------------------------------------------------------


def categories_of(item: Item) -> list[str]:
    """The item's categories, in their order, each once."""
    value = item.named.get(mapi.CATEGORIES)
    texts = value if isinstance(value, list) else []
    return list(dict.fromkeys(mapi.clean(text).strip() for text in texts[:500] if isinstance(text, str)))


_DELETE_MARKED: Final = 8  # of MESSAGE_STATUS: to be deleted, as an IMAP client has it
_VERBS: Final = {
    mapi.VERB_REPLY: ANSWERED,
    mapi.VERB_REPLY_ALL: ANSWERED,
    mapi.VERB_FORWARD: "$Forwarded",
}
_ICONS: Final = {mapi.ICON_REPLIED: ANSWERED, mapi.ICON_FORWARDED: "$Forwarded"}


def flags_of(item: Item) -> frozenset[str]:
    """Flags of IMAP: read, draft, flagged, answered, and a keyword for each category."""
    properties = item.properties
    bits = number_of(properties, mapi.MESSAGE_FLAGS)
    flags = {SEEN} if bits & mapi.FLAG_READ else set()
    if bits & mapi.FLAG_UNSENT and is_mail(item):
        flags.add(DRAFT)
    if number_of(properties, mapi.FLAG_STATUS) == mapi.FLAGGED:
        flags.add(FLAGGED)
    if number_of(properties, mapi.MESSAGE_STATUS) & _DELETE_MARKED:
        flags.add(DELETED)
    for table, tag in ((_VERBS, mapi.LAST_VERB_EXECUTED), (_ICONS, mapi.ICON_INDEX)):
        flag = table.get(number_of(properties, tag))
        if flag is not None:
            flags.add(flag)
    machine = item.named.get(MACHINE_KEYWORDS)
    names = [*categories_of(item), *(machine.split()[:500] if isinstance(machine, str) else ())]
    flags.update(made for made in map(keyword, names) if made is not None)
    return frozenset(flags)


def is_mail(item: Item) -> bool:
    """Whether it is a message, and not a contact, an appointment or the like."""
    message_class = text_of(item.properties, mapi.MESSAGE_CLASS).upper()
    return not message_class or message_class.startswith(("IPM.NOTE", "IPM.SCHEDULE", "REPORT", "IPM.POST"))


def _when(item: Item) -> int | None:
    """When it came: its delivery, else its sending, else when it was made."""
    for tag in (mapi.DELIVERY_TIME, mapi.CLIENT_SUBMIT_TIME, mapi.CREATION_TIME, mapi.LAST_MODIFICATION_TIME):
        seconds = plausible(time_of(item.properties, tag))
        if seconds is not None:
            return seconds
    return None


# --- people ----------------------------------------------------------------------------------------------------------

Person = tuple[str, str]


_ADDRESS: Final = re.compile(r"[^\s@<>()\[\]\\,;:\"]{1,64}@[A-Za-z0-9.-]{1,255}")


def _person(name: str, smtp: str, kind: str, address: str, *, entry: bytes) -> Person:
    """Name and address of somebody, by what there is: an address of the Internet, else one that stands for another."""
    name = name.strip()
    if not smtp and ("@" in address and not address.startswith("/")) and kind.upper() in ("", "SMTP", "EX"):
        smtp = address
    if not smtp and (found := mapi.read_one_off(entry)) is not None:
        name = name or found[0]
        kind, address = found[1] or kind, found[2] or address
        smtp = address if kind.upper() == "SMTP" else ""
    if not smtp and _ADDRESS.fullmatch(name.strip("'")):
        smtp = name.strip("'")
    if not smtp and address:
        smtp = encapsulated(kind or "EX", address) if kind.upper() != "SMTP" else address
    smtp = smtp.strip().strip("<>")
    if name[:1] == name[-1:] == "'" and len(name) > 2:  # as Outlook shows who has no name
        name = name[1:-1]
    return ("" if name.lower() == smtp.lower() else name), smtp


def _sender(item: Item) -> tuple[Person | None, Person | None]:
    """Whom it is from and, where it is another, who sent it."""
    properties = item.properties
    people: list[Person | None] = []
    for name, smtp, kind, address, entry in (
        (
            mapi.REPRESENTING_NAME,
            mapi.REPRESENTING_SMTP_ADDRESS,
            mapi.REPRESENTING_ADDRESS_TYPE,
            mapi.REPRESENTING_ADDRESS,
            mapi.REPRESENTING_ENTRY_ID,
        ),
        (
            mapi.SENDER_NAME,
            mapi.SENDER_SMTP_ADDRESS,
            mapi.SENDER_ADDRESS_TYPE,
            mapi.SENDER_ADDRESS,
            mapi.SENDER_ENTRY_ID,
        ),
    ):
        person = _person(
            text_of(properties, name),
            text_of(properties, smtp),
            text_of(properties, kind),
            text_of(properties, address),
            entry=bytes_of(properties, entry),
        )
        people.append(person if any(person) else None)
    author, sender = people
    if author is None:
        return sender, None
    same = sender is None or sender == author or (sender[1] or sender[0]).lower() == (author[1] or author[0]).lower()
    return author, None if same else sender


def recipients_of(item: Item) -> dict[int, list[Person]]:
    """People by RECIPIENT_TO, _CC and _BCC; by the texts that show them when there are no rows."""
    found: dict[int, list[Person]] = {}
    for row in item.recipients[:RECIPIENTS_MAX]:
        kind = number_of(row, mapi.RECIPIENT_TYPE) & 0xF
        person = _person(
            text_of(row, mapi.DISPLAY_NAME) or text_of(row, mapi.RECIPIENT_DISPLAY_NAME),
            text_of(row, mapi.SMTP_ADDRESS),
            text_of(row, mapi.ADDRESS_TYPE),
            text_of(row, mapi.EMAIL_ADDRESS),
            entry=bytes_of(row, mapi.ENTRY_ID) or bytes_of(row, mapi.RECIPIENT_ENTRY_ID),
        )
        if any(person):
            found.setdefault(kind, []).append(person)
    for kind, tag in (
        (mapi.RECIPIENT_TO, mapi.DISPLAY_TO),
        (mapi.RECIPIENT_CC, mapi.DISPLAY_CC),
        (mapi.RECIPIENT_BCC, mapi.DISPLAY_BCC),
    ):
        if not item.recipients and (shown := text_of(item.properties, tag)):
            names = [name.strip() for name in shown.split(";")[:RECIPIENTS_MAX] if name.strip()]
            found[kind] = [_person(name, "", "", "", entry=b"") for name in names]
    return found


# --- the header ------------------------------------------------------------------------------------------------------

# About the form of the body that came; what is composed has its own.
_OF_THE_FORM: Final = frozenset(
    ("content-type", "content-transfer-encoding", "mime-version", "content-disposition", "content-id", "lines")
) | {"content-description", "content-location", "content-base", "content-md5", "content-length"}
# A text without any of these is no header, whatever it is.
_TELLING: Final = frozenset(("received", "from", "to", "subject", "date", "message-id"))
_FIELD_NAME: Final = re.compile(rb"[!-9;-~]{1,200}")
_OF_ADDRESSES: Final = frozenset(
    ("from", "sender", "reply-to", "to", "cc", "bcc", "resent-from", "resent-to", "resent-cc", "resent-sender")
) | {"errors-to", "disposition-notification-to", "return-receipt-to"}
_HEADER_MAX: Final = 4 << 20

Field = tuple[str, str | bytes]


def _written_fields(item: Item) -> tuple[list[Field], str]:
    """The fields of the header as it was sent, and its Content-Type in lower case. No fields when it is no header."""
    text = text_of(item.properties, mapi.TRANSPORT_MESSAGE_HEADERS)[:_HEADER_MAX]
    raw = re.sub(r"\r\n?|\n", "\r\n", text.lstrip("\r\n\ufeff")).encode("utf-8")
    fields: list[Field] = []
    names: set[str] = set()
    content_type = ""
    for name, rest, _ in iter_lines(raw):
        stripped = name.rstrip(b" \t")
        if not rest.startswith(b":") or not _FIELD_NAME.fullmatch(stripped):
            continue
        label = stripped.decode("ascii")
        lower = label.lower()
        if lower == "content-type":
            content_type = content_type or decode_words(rest[1:]).lower()
        if lower in _OF_THE_FORM:
            continue
        names.add(lower)
        fields.append((label, _value(lower, rest[1:].removesuffix(b"\r"))))
    return (fields, content_type) if names & _TELLING else ([], "")


def _value(lower: str, value: bytes) -> bytes:
    """A field's value as it may be written: as it is, if it is ASCII in lines that are not too long."""
    value = value.removeprefix(b" ")
    lines = value.split(b"\r\n")
    if value.isascii() and max(map(len, lines)) < compose.LINE_MAX - len(lower) and not _BAD.search(value):
        return b"\r\n".join(line for n, line in enumerate(lines) if n == 0 or line.strip())
    if lower in _OF_ADDRESSES:
        return compose.address_list(_people(value), len(lower) + 2)
    return compose.unstructured(decode_words(value), len(lower) + 2)


_BAD: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")


def _people(value: bytes) -> Iterator[Person]:
    for address in parse_addresses(value):
        if address.mailbox is not None and address.host is not None:
            local = decode_words(address.mailbox)
            host = decode_words(address.host)
            name = decode_words(address.name) if address.name else ""
            yield name, f"{local}@{host}" if host != "MISSING_DOMAIN" else local


_IMPORTANCE: Final = {0: ("low", "5"), 2: ("high", "1")}
_SENSITIVITY: Final = {1: "Personal", 2: "Private", 3: "Company-Confidential"}  # RFC 4021
_ORDINARY: Final = ("IPM.NOTE", "")
_RATED: Final = frozenset(("importance", "x-priority", "priority"))


def header_of(item: Item, extra: Extra | None, subject: str) -> tuple[list[Field], str]:
    """All fields of the message but MIME's, and the Content-Type that it was sent with ("" when nobody knows)."""
    fields, content_type = _written_fields(item)
    have = {name.lower() for name, _ in fields}
    if have & _RATED:  # each says the same in its own way
        have |= _RATED
    for name, value in _made_fields(item, subject, written=bool(fields)):
        if name.lower() not in have:
            fields.append((name, value))
    message_class = text_of(item.properties, mapi.MESSAGE_CLASS)
    if message_class.upper() not in _ORDINARY and "x-message-class" not in have:
        fields.append(("X-Message-Class", message_class))
    if extra is not None:
        fields += extra.fields
    return fields, content_type


def _made_fields(item: Item, subject: str, *, written: bool) -> Iterator[Field]:
    """Fields by properties, in the order of a header. `written`: there is one, and these are for what it lacks."""
    properties = item.properties
    author, sender = _sender(item)
    people = recipients_of(item)
    lists = [
        ("From", [author] if author else []),
        ("Sender", [sender] if sender else []),
        ("Reply-To", _reply_to(properties, author)),
        ("To", people.get(mapi.RECIPIENT_TO, [])),
        ("Cc", people.get(mapi.RECIPIENT_CC, [])),
        ("Bcc", people.get(mapi.RECIPIENT_BCC, [])),
    ]
    for name, persons in lists:
        if persons and (value := compose.address_list(persons, len(name) + 2)):
            yield name, value
    if subject:
        yield "Subject", subject
    if (seconds := _sent(item, written=written)) is not None:
        yield "Date", compose.date_time(seconds)
    for name, tag in (
        ("Message-ID", mapi.INTERNET_MESSAGE_ID),
        ("In-Reply-To", mapi.IN_REPLY_TO_ID),
        ("References", mapi.INTERNET_REFERENCES),
    ):
        if identifiers := _identifiers(text_of(properties, tag)):
            yield name, identifiers
    yield from _rated_fields(item, author)


def _sent(item: Item, *, written: bool) -> int | None:
    """The time for Date. Where a header came without one, the times beside it are only those of the arrival."""
    sent = time_of(item.properties, mapi.CLIENT_SUBMIT_TIME)
    if written:
        return None if sent == time_of(item.properties, mapi.DELIVERY_TIME) else sent
    return sent if sent is not None else _when(item)


def _rated_fields(item: Item, author: Person | None) -> Iterator[Field]:
    properties = item.properties
    importance = _IMPORTANCE.get(number_of(properties, mapi.IMPORTANCE)) if mapi.IMPORTANCE in properties else None
    if importance is not None:
        yield "Importance", importance[0]
        yield "X-Priority", importance[1]
    if sensitivity := _SENSITIVITY.get(number_of(properties, mapi.SENSITIVITY)):
        yield "Sensitivity", sensitivity
    if properties.get(mapi.READ_RECEIPT_REQUESTED) is True and author is not None and author[1]:
        yield "Disposition-Notification-To", compose.address_list([author], 29)
    categories = categories_of(item)
    if any(keyword(text) != text for text in categories):  # else the flags say it all
        yield "Keywords", ", ".join(text.replace(",", " ") for text in categories)


def _identifiers(text: str) -> str:
    """Message-IDs in one line, each as it is."""
    return " ".join(text.split())[:60_000]


def _reply_to(properties: dict[int, mapi.Value], author: Person | None) -> list[Person]:
    """Whom answers go to, when that is somebody else."""
    people: list[Person] = []
    for entry in mapi.read_entry_list(bytes_of(properties, mapi.REPLY_RECIPIENT_ENTRIES))[:100]:
        found = mapi.read_one_off(entry)
        if found is not None and found[2]:
            people.append(_person(found[0], "", found[1], found[2], entry=b""))
    return [] if author is not None and [address for _, address in people] == [author[1]] else people


# --- the whole -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Work:
    """One message on its way, with those in it."""

    problems: list[str] = field(default_factory=list)

    def message(self, item: Item, depth: int) -> bytes:
        self.problems += item.problems
        extra = extra_of(item)
        subject = text_of(item.properties, mapi.SUBJECT) or (extra.subject if extra is not None else "")
        fields, content_type = header_of(item, extra, subject)
        if (signed := _signed(item)) is not None:
            return b"".join(compose.field(name, value) for name, value in fields) + b"MIME-Version: 1.0\r\n" + signed
        bodies = bodies_of(item, extra, content_type)
        self.problems += bodies.problems
        inline: list[Part] = []
        attached: list[Part] = [*bodies.attached]
        for number, attachment in enumerate(item.attachments):
            if number >= ATTACHMENTS_MAX:
                self.problems.append(f"{len(item.attachments) - number} attachments too many were left out")
                break
            part = self._attachment(attachment, number, depth)
            shown = bodies.html is not None and isinstance(part, Leaf) and _is_shown(part, attachment, bodies)
            (inline if shown else attached).append(part)
        return compose.message(fields, _body(bodies, tuple(inline), attached))

    def _attachment(self, attachment: Attached, number: int, depth: int) -> Part:
        properties = attachment.properties
        name = _name(properties)
        location = text_of(properties, mapi.ATTACH_LOCATION)
        identifier = text_of(properties, mapi.ATTACH_CONTENT_ID).strip().strip("<>")
        if attachment.item is not None:
            return self._embedded(attachment.item, name, identifier, depth=depth)
        method = number_of(properties, mapi.ATTACH_METHOD)
        if attachment.data is None:
            return self._absent(attachment, name or f"attachment {number + 1}")
        media_type = _media_type(text_of(properties, mapi.ATTACH_MIME_TYPE), name)
        if method == mapi.OLE:
            name = name if "." in name else f"{name or 'object'}.ole"
            media_type = "application/octet-stream" if media_type.startswith(("text/", "message/")) else media_type
        return Leaf(media_type, attachment.data, name, "attachment", identifier, location)

    def _embedded(self, item: Item, name: str, identifier: str, *, depth: int) -> Leaf:
        if depth >= DEPTH_MAX:
            self.problems.append(f"messages are nested more than {DEPTH_MAX} deep; the innermost were left out")
            return Leaf("text/plain", "A message was attached here, nested too deep to be read.\n", name, "attachment")
        data = self.message(item, depth + 1)
        if name == text_of(item.properties, mapi.SUBJECT):
            name = ""  # who reads it calls it by its subject
        return Leaf("message/rfc822", data, name, "attachment", identifier)

    def _absent(self, attachment: Attached, name: str) -> Leaf:
        """A text in place of an attachment whose content is not in the file."""
        properties = attachment.properties
        path = text_of(properties, _LONG_PATH) or text_of(properties, _PATH)
        if path:
            text = f'The attachment "{name}" is not in this file: it is a link to\n{path}\n'
        else:
            text = f'The attachment "{name}" could not be read from the file.\n'
            self.problems.append(f"the attachment {name[:80]} could not be read")
        return Leaf("text/plain", text, f"{name}.txt", "attachment")


_LONG_PATH: Final = 0x370D001F  # PidTagAttachLongPathname
_PATH: Final = 0x3708001F  # PidTagAttachPathname


def _name(properties: dict[int, mapi.Value]) -> str:
    for tag in (mapi.ATTACH_LONG_NAME, mapi.ATTACH_NAME, mapi.DISPLAY_NAME):
        if name := compose.clean(text_of(properties, tag)).strip():
            return name[:1000]
    return ""


_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,80}/[a-z0-9!#$&^_.+-]{1,80}")
# By the ends of names, for files without a type. Not from the system's table: every machine must compose the same.
_BY_SUFFIX: Final = {
    "avi": "video/x-msvideo", "bmp": "image/bmp", "csv": "text/csv", "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document", "eml": "message/rfc822",
    "gif": "image/gif", "gz": "application/gzip", "heic": "image/heic", "htm": "text/html", "html": "text/html",
    "ics": "text/calendar", "jpeg": "image/jpeg", "jpg": "image/jpeg", "json": "application/json", "m4a": "audio/mp4",
    "mov": "video/quicktime", "mp3": "audio/mpeg", "mp4": "video/mp4", "msg": "application/vnd.ms-outlook",
    "odp": "application/vnd.oasis.opendocument.presentation", "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odt": "application/vnd.oasis.opendocument.text", "pdf": "application/pdf", "png": "image/png",
    "ppt": "application/vnd.ms-powerpoint",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation", "rtf": "application/rtf",
    "svg": "image/svg+xml", "tif": "image/tiff", "tiff": "image/tiff", "txt": "text/plain", "vcf": "text/vcard",
    "wav": "audio/x-wav", "webp": "image/webp", "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "xml": "application/xml",
    "zip": "application/zip",
}  # fmt: skip


_MESSAGES: Final = frozenset(
    f"message/{name}" for name in ("rfc822", "global", "delivery-status", "disposition-notification", "feedback-report")
)


def _media_type(said: str, name: str) -> str:
    """The type that is said, if it is one for a single part; else by the name's end."""
    media_type = said.partition(";")[0].strip().lower()
    if not _MEDIA_TYPE.fullmatch(media_type):
        media_type = _BY_SUFFIX.get(name.rpartition(".")[2].lower(), "application/octet-stream")
    composite = media_type.startswith(("multipart/", "message/"))
    return "application/octet-stream" if composite and media_type not in _MESSAGES else media_type


def _is_shown(part: Leaf, attachment: Attached, bodies: Bodies) -> bool:
    """Whether the HTML body shows this attachment in its place."""
    if part.media_type.startswith("message/"):
        return False
    if part.content_id and part.content_id.lower() in bodies.identifiers:
        return True
    if part.location and part.location.lower() in bodies.identifiers:
        return True
    flags = number_of(attachment.properties, mapi.ATTACH_FLAGS)
    return bool(part.content_id) and bool(flags & mapi.ATTACH_FLAG_SHOWN)


def _body(bodies: Bodies, inline: tuple[Part, ...], attached: list[Part]) -> Part:
    """The parts in the order and nesting that mail programs write: mixed(alternative(text, related(HTML, …)), …)."""
    html: Part | None = bodies.html
    if html is not None and inline:
        shown = tuple(_inline(part) for part in inline)
        html = Multi("related", (html, *shown), (("type", "text/html"),))
    forms: list[Part] = [part for part in (bodies.text, html, *bodies.more) if part is not None]
    if not forms:
        return Multi("mixed", tuple(attached)) if attached else Leaf("text/plain", "")
    body: Part = forms[0] if len(forms) == 1 else Multi("alternative", tuple(forms))
    return compose.mixed(body, attached)


def _inline(part: Part) -> Part:
    if isinstance(part, Multi):
        return part
    return Leaf(part.media_type, part.data, part.name, "inline", part.content_id, part.location, part.parameters)


# --- signed and encrypted --------------------------------------------------------------------------------------------

_ENTITY: Final = re.compile(rb"(?i)(?:content-[a-z-]+:[^\n]*\n(?:[ \t][^\n]*\n)*){1,20}\r?\n")


def _signed(item: Item) -> bytes | None:
    """The body of an S/MIME message as it was sent: Outlook keeps it as the only attachment ([MS-OXOSMIME] 2.1.3).

    Of a clear-signed one that is the whole multipart with its fields, whose signature holds for just these bytes; of an
    encrypted or opaque one it is the CMS object.
    """
    message_class = text_of(item.properties, mapi.MESSAGE_CLASS).upper()
    if not message_class.startswith("IPM.NOTE.SMIME") or len(item.attachments) != 1:
        return None
    attachment = item.attachments[0]
    data = attachment.data
    if data is None:
        return None
    said = text_of(attachment.properties, mapi.ATTACH_MIME_TYPE)
    if message_class.startswith("IPM.NOTE.SMIME.MULTIPARTSIGNED"):
        match = _ENTITY.match(data[:65536])
        return data if match is not None and b"multipart/signed" in match[0].lower() else None
    media_type = said.partition(";")[0].strip().lower()
    if media_type not in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
        media_type = "application/pkcs7-mime"
    kind = re.search(r"smime-type=\"?([a-z-]{1,40})", said, re.IGNORECASE)
    leaf = Leaf(
        media_type,
        data,
        _name(attachment.properties) or "smime.p7m",
        "attachment",
        parameters=(("smime-type", kind[1].lower()),) if kind else (),
    )
    return compose.message((), leaf).removeprefix(b"MIME-Version: 1.0\r\n")
