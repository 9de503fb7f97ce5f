"""Mail to MAPI: what of a message goes into which property, for PST and MSG alike.

Knows mail as a reader sees it (`Letter`) and the properties that Outlook shows or sorts by; writes no file. What an
Item says of itself as stored (sizes, row numbers, record keys) is the file writer's to add.

**The one hard idea**: the header block is kept whole beside the properties made from it, so nothing of it is lost where
MAPI has no place (several authors, groups, Received lines); and bodies and attachments are kept decoded, as Outlook
has them. Nothing is made up: a message without plain text gets none derived from its HTML, so that it comes back as it
was. Two things are left out on purpose: the wish for a read receipt, since Outlook would send one on opening an old
mail, and \\Deleted, since an archive has no such state.

Text is never longer than Outlook takes, and never has halves of surrogate pairs or NUL; the same message gives the same
Item, always.
"""

import binascii
import hashlib
import re
from base64 import b64decode
from typing import Final, NamedTuple

from mailkeep.export import imcea, mapi
from mailkeep.export.imcea import decapsulated
from mailkeep.export.mapi import Attached, Item, Value
from mailkeep.export.writer import Message
from mailkeep.mail.dates import header_date
from mailkeep.mail.header import decode_words, guess_text, iter_fields, select_fields
from mailkeep.mail.letter import Attachment, Correspondent, Letter, letter_of
from mailkeep.mail.text import attachment_name

EMBEDDED_MAX: Final = 20  # messages in each other; what is deeper is attached as a file
RECIPIENTS_MAX: Final = 10_000
HEADERS_MAX: Final = 1 << 20  # characters
REFERENCES_MAX: Final = 32_000  # characters
DISPLAY_MAX: Final = 32_000  # characters of the names in one line
INDEX_MAX: Final = 22 + 5 * 200  # bytes of a conversation index

# Keywords that programs set for themselves: they are kept, but are no categories that a person gave.
_MACHINE_KEYWORDS: Final = frozenset(
    ("junk", "nonjunk", "notjunk", "forwarded", "redirected", "mdnsent", "receipthandled", "submitted", "submitpending")
)
MACHINE_KEYWORDS: Final = mapi.Named(mapi.PS_INTERNET_HEADERS, "x-keywords", mapi.STRING)
FLAG_REQUEST: Final = mapi.Named(mapi.PSETID_COMMON, 0x8530, mapi.STRING)


def item_of(message: Message, letter: Letter) -> Item:
    """The message as a MAPI item. Never raises."""
    seed = f"{message.folder.name}\0{message.uid}\0{message.internaldate}\0{letter.message_id}"
    item = _item(letter, arrived=message.internaldate, seed=seed, depth=0)
    _put_flags(item, message.flags)
    return item


# Headers that no field of a letter has, but a property does.
_MORE_HEADERS: Final = frozenset(
    (b"thread-topic", b"thread-index", b"importance", b"x-priority", b"priority", b"sensitivity")
)


def _more_headers(letter: Letter) -> dict[str, str]:
    """These of the message, by lower-case name, in one pass; the first of each counts."""
    block = select_fields(letter.data[: min(letter.root.body, HEADERS_MAX)], _MORE_HEADERS)
    found: dict[str, str] = {}
    for name, value in iter_fields(block):
        found.setdefault(name.decode("ascii", "replace").lower(), _line(decode_words(value)))
    return found


def _item(letter: Letter, *, arrived: int, seed: str, depth: int) -> Item:
    item = Item()
    put = item.properties
    sent = arrived if letter.date is None else letter.date.timestamp()
    put[mapi.MESSAGE_CLASS] = "IPM.Note"
    put[mapi.SEARCH_KEY] = hashlib.md5(seed.encode("utf-8", "replace"), usedforsecurity=False).digest()
    put[mapi.CLIENT_SUBMIT_TIME] = mapi.filetime(sent)
    put[mapi.DELIVERY_TIME] = put[mapi.CREATION_TIME] = put[mapi.LAST_MODIFICATION_TIME] = mapi.filetime(arrived)
    more = _more_headers(letter)
    _put_subject(put, letter, more, sent=mapi.filetime(sent))
    _put_people(item, letter)
    _put_wishes(put, more)
    _put_bodies(put, letter)
    put[mapi.TRANSPORT_MESSAGE_HEADERS] = _headers(letter)
    item.attachments = _attachments(letter, arrived=arrived, seed=seed, depth=depth)
    _set_smime_class(item, letter)
    put[mapi.HAS_ATTACHMENTS] = bool(item.attachments)
    put[mapi.MESSAGE_FLAGS] = mapi.FLAG_READ | (mapi.FLAG_HAS_ATTACHMENTS if item.attachments else 0)
    return item


# --- subject and conversation ----------------------------------------------------------------------------------------


def _put_subject(put: dict[int, Value], letter: Letter, more: dict[str, str], *, sent: int) -> None:
    subject = mapi.cut(_line(letter.subject))
    prefix, normalized = mapi.split_subject(subject)
    put[mapi.SUBJECT] = subject
    put[mapi.SUBJECT_PREFIX] = prefix
    put[mapi.NORMALIZED_SUBJECT] = normalized
    put[mapi.CONVERSATION_TOPIC] = topic = mapi.cut(more.get("thread-topic", normalized))
    index = _thread_index(more.get("thread-index"))
    put[mapi.CONVERSATION_INDEX] = index or mapi.conversation_index(sent, mapi.conversation_id(topic))
    if letter.message_id:
        put[mapi.INTERNET_MESSAGE_ID] = _line(letter.message_id)[:REFERENCES_MAX]
    if letter.in_reply_to:
        put[mapi.IN_REPLY_TO_ID] = _line(letter.in_reply_to)[:REFERENCES_MAX]
    if letter.references:
        put[mapi.INTERNET_REFERENCES] = _joined_end(letter.references)


def _thread_index(value: str | None) -> bytes | None:
    """The conversation index that Outlook wrote into the mail ([MS-OXOMSG] section 2.2.1.3), if it is one."""
    if value is None or len(value) > 2 * INDEX_MAX:
        return None
    try:
        index = b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return index if index[:1] == b"\x01" and len(index) >= 22 and (len(index) - 22) % 5 == 0 else None


def _joined_end(references: tuple[str, ...]) -> str:
    """The latest references that fit."""
    kept: list[str] = []
    size = 0
    for reference in reversed(references):
        size += len(reference) + 1
        if size > REFERENCES_MAX:
            break
        kept.append(_line(reference))
    return " ".join(reversed(kept))


_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f]+")


def _line(text: str) -> str:
    """Text for one line: a subject or a name with line ends or tabs in it shows as boxes, or breaks readers."""
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text)
    return mapi.clean(text).strip()


# --- people ----------------------------------------------------------------------------------------------------------


def _put_people(item: Item, letter: Letter) -> None:
    put = item.properties
    author = letter.from_[0] if letter.from_ else None
    sender = letter.sender[0] if letter.sender else author
    if author is not None:
        _put_person(put, author, _REPRESENTING)
    if sender is not None:
        _put_person(put, sender, _SENDER)
    answers = [who for who in letter.reply_to[:100] if who.address]
    if answers:
        known = [_person(who) for who in answers]
        put[mapi.REPLY_RECIPIENT_NAMES] = "; ".join(one.name for one in known)[:DISPLAY_MAX]
        put[mapi.REPLY_RECIPIENT_ENTRIES] = mapi.entry_list([one.entry for one in known])
    for people, kind, display in (
        (letter.to, mapi.RECIPIENT_TO, mapi.DISPLAY_TO),
        (letter.cc, mapi.RECIPIENT_CC, mapi.DISPLAY_CC),
        (letter.bcc, mapi.RECIPIENT_BCC, mapi.DISPLAY_BCC),
    ):
        names: list[str] = []
        size = 0
        for who in people[: max(0, RECIPIENTS_MAX - len(item.recipients))]:
            person = _person(who)
            if person.address:
                item.recipients.append(_recipient(person, kind))
            size += len(person.name) + 2
            if person.name and size <= DISPLAY_MAX:
                names.append(person.name)
        if names:
            put[display] = "; ".join(names)


class _Person(NamedTuple):
    """Somebody as MAPI knows people. `kind` is SMTP, or another (EX, FAX …) for who came from an Exchange server."""

    name: str
    address: str
    kind: str = "SMTP"

    @property
    def entry(self) -> bytes:
        if self.kind == "EX":
            return mapi.address_book_entry(self.address)
        return mapi.one_off(self.name, self.address, self.kind)


def _person(who: Correspondent) -> _Person:
    address = mapi.cut(_line(who.address))
    name = mapi.cut(_line(who.name)) or address
    other = decapsulated(who.address) if who.address.endswith(imcea.DOMAIN) else None
    if other is None:
        return _Person(name, address)
    return _Person(name, mapi.cut(_line(other[1])), other[0])


# name, address type, address, entry id, search key, SMTP address
_SENDER: Final = (
    mapi.SENDER_NAME,
    mapi.SENDER_ADDRESS_TYPE,
    mapi.SENDER_ADDRESS,
    mapi.SENDER_ENTRY_ID,
    mapi.SENDER_SEARCH_KEY,
    mapi.SENDER_SMTP_ADDRESS,
)
_REPRESENTING: Final = (
    mapi.REPRESENTING_NAME,
    mapi.REPRESENTING_ADDRESS_TYPE,
    mapi.REPRESENTING_ADDRESS,
    mapi.REPRESENTING_ENTRY_ID,
    mapi.REPRESENTING_SEARCH_KEY,
    mapi.REPRESENTING_SMTP_ADDRESS,
)


def _put_person(put: dict[int, Value], who: Correspondent, tags: tuple[int, ...]) -> None:
    person = _person(who)
    if not person.name:
        return
    put[tags[0]] = person.name
    if person.address:
        values = person.kind, person.address, person.entry, mapi.search_key(person.address, person.kind)
        put.update(zip(tags[1:5], values, strict=True))
        if person.kind == "SMTP":
            put[tags[5]] = person.address


def _recipient(person: _Person, kind: int) -> dict[int, Value]:
    made: dict[int, Value] = {
        mapi.RECIPIENT_TYPE: kind,
        mapi.OBJECT_TYPE: mapi.OBJECT_MAIL_USER,
        mapi.ENTRY_ID: person.entry,
        mapi.DISPLAY_NAME: person.name,
        mapi.ADDRESS_TYPE: person.kind,
        mapi.EMAIL_ADDRESS: person.address,
        mapi.SEARCH_KEY: mapi.search_key(person.address, person.kind),
        mapi.DISPLAY_TYPE: 0,
        mapi.ADDRESS_BOOK_NAME: person.name,
        mapi.SEND_RICH_INFO: False,
    }
    if person.kind == "SMTP":
        made[mapi.SMTP_ADDRESS] = person.address
    return made


# --- importance, flags -----------------------------------------------------------------------------------------------

_IMPORTANCE: Final = {"low": 0, "normal": 1, "high": 2, "non-urgent": 0, "urgent": 2}
_SENSITIVITY: Final = {"personal": 1, "private": 2, "company-confidential": 3}


def _put_wishes(put: dict[int, Value], more: dict[str, str]) -> None:
    """Importance of Importance, X-Priority ("1 (Highest)") or Priority; sensitivity (RFC 2156, RFC 4021)."""
    importance = 1
    if (value := more.get("importance")) is not None:
        importance = _IMPORTANCE.get(value.lower(), 1)
    elif (value := more.get("x-priority")) is not None:
        importance = {"1": 2, "2": 2, "4": 0, "5": 0}.get(value[:1], 1)
    elif (value := more.get("priority")) is not None:
        importance = _IMPORTANCE.get(value.lower(), 1)
    put[mapi.IMPORTANCE] = importance
    put[mapi.PRIORITY] = importance - 1
    put[mapi.SENSITIVITY] = _SENSITIVITY.get(more.get("sensitivity", "").lower(), 0)


def _put_flags(item: Item, flags: frozenset[str]) -> None:
    """What the account knows of the message. A message both answered and forwarded has the icon of the one and the
    verb of the other, since Outlook keeps only the last of them."""
    put = item.properties
    bits = mapi.FLAG_HAS_ATTACHMENTS if item.attachments else 0
    if "\\Seen" in flags:
        bits |= mapi.FLAG_READ
    if "\\Draft" in flags:
        bits |= mapi.FLAG_UNSENT
    put[mapi.MESSAGE_FLAGS] = bits
    if "\\Flagged" in flags:
        put[mapi.FLAG_STATUS] = mapi.FLAGGED
        put[mapi.FOLLOWUP_ICON] = mapi.ICON_RED
        item.named[FLAG_REQUEST] = "Follow up"
    answered = "\\Answered" in flags
    categories: list[str] = []
    machine: list[str] = []
    forwarded = False
    for flag in sorted(flags):
        lower = flag.lower()
        if lower == "$forwarded":
            forwarded = True
        elif lower.lstrip("$") in _MACHINE_KEYWORDS:
            machine.append(flag)
        elif not flag.startswith("\\"):
            categories.append(flag)
    if answered or forwarded:
        put[mapi.ICON_INDEX] = mapi.ICON_REPLIED if answered else mapi.ICON_FORWARDED
        put[mapi.LAST_VERB_EXECUTED] = mapi.VERB_FORWARD if forwarded else mapi.VERB_REPLY
    if categories:
        item.named[mapi.CATEGORIES] = categories
    if machine:
        item.named[MACHINE_KEYWORDS] = " ".join(machine)


# --- headers and bodies ----------------------------------------------------------------------------------------------


def _headers(letter: Letter) -> str:
    """The header block as it came; raw 8-bit text in it is decoded. What is too long ends with a whole line."""
    raw = letter.data[: min(letter.root.body, 4 * HEADERS_MAX)]
    text = mapi.clean(raw.decode("ascii") if raw.isascii() else guess_text(raw))
    if len(text) > HEADERS_MAX:
        text = text[: text.rfind("\n", 0, HEADERS_MAX) + 1]
    return text


_BARE_LF: Final = re.compile(r"(?<!\r)\n|\r(?!\n)")
# <meta charset=x> and <meta http-equiv=content-type content="text/html; charset=x">
_META_CHARSET: Final = re.compile(r"(<meta\b[^<>]{0,300}?\bcharset\s{0,9}=\s{0,9}[\"']?)([\w.:-]{1,60})", re.IGNORECASE)
_META_WITHIN: Final = 16384  # characters of a page in which browsers and we look for it


def _put_bodies(put: dict[int, Value], letter: Letter) -> None:
    if letter.text is not None:
        text = letter.text
        put[mapi.BODY] = mapi.clean(_BARE_LF.sub("\r\n", text) if "\r" in text else text.replace("\n", "\r\n"))
        put[mapi.NATIVE_BODY] = mapi.NATIVE_TEXT
    if letter.html is not None:
        put[mapi.HTML] = _utf8_page(letter.html)
        put[mapi.NATIVE_BODY] = mapi.NATIVE_HTML
    put[mapi.INTERNET_CODEPAGE] = mapi.CODEPAGE_UTF8


def _utf8_page(html: str) -> bytes:
    """The page in UTF-8, which it must then say of itself too: some readers go by its meta element alone."""
    head, rest = html[:_META_WITHIN], html[_META_WITHIN:]
    return mapi.clean(_META_CHARSET.sub(r"\1utf-8", head) + rest).encode("utf-8")


# --- attachments -----------------------------------------------------------------------------------------------------


def _attachments(letter: Letter, *, arrived: int, seed: str, depth: int) -> list[Attached]:
    made: list[Attached] = []
    for attachment in letter.attachments:
        data = letter.content(attachment)
        one = _embedded(letter, attachment, data, seed=seed, arrived=arrived, depth=depth)
        if one is None:
            one = Attached(_file(attachment), data=data)
        put = one.properties
        put[mapi.RENDERING_POSITION] = -1
        if attachment.content_id:
            put[mapi.ATTACH_CONTENT_ID] = mapi.cut(_line(attachment.content_id), 998)
        if attachment.location:
            put[mapi.ATTACH_LOCATION] = mapi.cut(_line(attachment.location), 2000)
        if attachment.referred:
            # Only what the page shows is hidden: a picture that it does not refer to would be lost to sight.
            put[mapi.ATTACH_FLAGS] = mapi.ATTACH_FLAG_SHOWN
            put[mapi.ATTACHMENT_HIDDEN] = True
        made.append(one)
    return made


def _embedded(
    letter: Letter, attachment: Attachment, data: bytes, *, seed: str, arrived: int, depth: int
) -> Attached | None:
    """An attached message as an item of its own; None when it is to be a file."""
    if not attachment.message or not data or depth + 1 >= EMBEDDED_MAX:
        return None
    inner = letter_of(data)
    when = header_date(data[: inner.root.body])
    item = _item(inner, arrived=arrived if when is None else when, seed=f"{seed}\0{attachment.number}", depth=depth + 1)
    name = _file_name(attachment_name(attachment.part) or "")
    put: dict[int, Value] = {
        mapi.ATTACH_METHOD: mapi.EMBEDDED_MESSAGE,
        mapi.DISPLAY_NAME: mapi.cut(_line(inner.subject)) or _file_name(attachment.name) or "message.eml",
        mapi.ATTACH_MIME_TYPE: "message/rfc822",
    }
    if name:
        put[mapi.ATTACH_LONG_NAME] = name
    return Attached(put, item=item)


def _file(attachment: Attachment) -> dict[int, Value]:
    name = _file_name(attachment.name) or f"part-{attachment.number}.bin"
    stem, dot, extension = name.rpartition(".")
    if not stem or not extension.isalnum() or len(extension) > _EXTENSION_MAX:
        stem, dot, extension = name, "", ""
    return {
        mapi.ATTACH_METHOD: mapi.BY_VALUE,
        mapi.DISPLAY_NAME: name,
        mapi.ATTACH_LONG_NAME: name,
        mapi.ATTACH_NAME: _short_name(stem, extension),
        mapi.ATTACH_EXTENSION: dot + extension,
        mapi.ATTACH_MIME_TYPE: mapi.cut(_line(attachment.media_type)) or "application/octet-stream",
    }


# Path separators, what Windows forbids, and marks that turn a name round (RTLO makes "exe.gpj" of "jpg.exe").
_NOT_IN_NAMES: Final = re.compile('[\x00-\x1f\x7f<>:"/\\\\|?*\u200e\u200f\u202a-\u202e\u2066-\u2069]')
_EXTENSION_MAX: Final = 20


def _file_name(name: str) -> str:
    """A name that can be saved anywhere, short enough, its extension kept; "" when nothing is left."""
    name = mapi.clean(_NOT_IN_NAMES.sub("_", name)).strip(" ")
    if len(name) > 100 and mapi.cut(name) != name:
        stem, dot, extension = name.rpartition(".")
        if not stem or len(extension) > _EXTENSION_MAX:
            return mapi.cut(name)
        name = mapi.cut(stem, mapi.NAME_MAX - 2 * _EXTENSION_MAX - 1) + dot + extension
    return "" if not name.strip("._ ") else name


_NOT_SHORT: Final = re.compile(r"[^A-Za-z0-9_-]")


def _short_name(stem: str, extension: str) -> str:
    """An 8.3 name for readers of DOS times, e.g. "ANNUAL~1.PDF"."""
    short, kept = _NOT_SHORT.sub("", stem[:64]), _NOT_SHORT.sub("", extension[:16])[:3]
    if short != stem or len(short) > 8:
        short = (short[:6] or "file") + "~1"
    return (f"{short}.{kept}" if kept else short).upper()


# --- S/MIME ----------------------------------------------------------------------------------------------------------

_OPAQUE: Final = ("application/pkcs7-mime", "application/x-pkcs7-mime")


def _set_smime_class(item: Item, letter: Letter) -> None:
    """Encrypted mail is the class that Outlook decrypts: its one attachment is the PKCS #7 data ([MS-OXOSMIME]
    section 2.1.3.2). Signed mail stays a plain note, its signature an attachment: in the class for it, all other
    attachments would be inside one that only Outlook opens."""
    root = letter.root
    if f"{root.type}/{root.subtype}" in _OPAQUE and len(item.attachments) == 1 and mapi.BODY not in item.properties:
        item.properties[mapi.MESSAGE_CLASS] = "IPM.Note.SMIME"
