"""What a reader sees in a message: who wrote to whom, when, the body as text and HTML, and the attachments.

Knows which parts are the body and which are attached (RFC 2046, 2183, 2387, 1847), and what to call those. Draws
nothing and makes nothing safe: HTML and names are as the sender gave them.

The hard idea is the body of a message that has several: a mixed one may be text, picture, text, where each text is an
alternative of two forms (as Apple Mail writes it), and a mailing list adds a footer in plain text to an HTML body. So
every part of the tree gives a list of passages, each with its plain and its HTML form as far as they exist. At the end
all plain forms are one text, and if one passage has HTML all are one HTML, pictures between them in their places.
Messages inside are attachments: whoever shows them reads them as letters again.
"""

import binascii
import html as markup
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote

from mailkeep.mail.address import GROUP_END, Address, parse_addresses
from mailkeep.mail.body_text import decode_body, decode_html, unflow
from mailkeep.mail.dates import read_date
from mailkeep.mail.header import HEADER_MAX, decode_words, iter_fields
from mailkeep.mail.mime import FIELD_SEPARATOR, Part, scan
from mailkeep.mail.structure import REFERENCES_MAX, decode_transfer, part_charset
from mailkeep.mail.text import attachment_name, html_text

TEXT_MAX: Final = 8 << 20  # bytes of all bodies, decoded, that are shown
CORRESPONDENTS_MAX: Final = 10_000  # of one field
NAME_MAX: Final = 1000  # characters of an attachment's name


class Correspondent(NamedTuple):
    """Somebody in an address field, decoded. `address` is "" where there is none (a group without members)."""

    name: str
    address: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A part that is not the body. `name` is decoded but NOT safe as a file name; `number` counts from 1."""

    number: int
    name: str
    media_type: str  # lower case
    content_id: str | None  # without <>
    location: str | None
    inline: bool  # the HTML body refers to it, or it is an image that says so
    message: bool  # message/rfc822 or message/global: letter_of(letter.content(it)) reads it
    part: Part
    referred: bool = False  # the HTML body refers to it


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as its reader sees it. Made by `letter_of`."""

    data: bytes
    root: Part
    subject: str
    date: datetime | None  # of Date, with its own offset
    from_: tuple[Correspondent, ...]
    sender: tuple[Correspondent, ...]
    reply_to: tuple[Correspondent, ...]
    to: tuple[Correspondent, ...]
    cc: tuple[Correspondent, ...]
    bcc: tuple[Correspondent, ...]
    message_id: str | None  # with <>
    in_reply_to: str | None
    references: tuple[str, ...]
    text: str | None  # lines end with LF
    html: str | None  # NOT safe: see safe_html
    attachments: tuple[Attachment, ...]
    problems: tuple[str, ...]
    charset: str | None = None  # as the first body part is labelled
    places: dict[str, Attachment] = field(default_factory=dict, compare=False, repr=False)  # for `find`

    def header(self, name: str) -> str | None:
        """The decoded value of the first field of this name."""
        wanted = name.lower().encode()
        for found, value in iter_fields(self.data[: min(self.root.body, HEADER_MAX)]):
            if found.lower() == wanted:
                return one_line(decode_words(value))
        return None

    def headers(self) -> list[tuple[str, str]]:
        """All fields in order: name, decoded value."""
        block = self.data[: min(self.root.body, HEADER_MAX)]
        return [(name.decode("latin-1"), one_line(decode_words(value))) for name, value in iter_fields(block)]

    def content(self, attachment: Attachment) -> bytes:
        """The bytes of an attachment, transfer encoding undone as far as it can be."""
        part = attachment.part
        return transfer_decoded(self.data[part.body : part.end], part.encoding)

    def find(self, url: str) -> Attachment | None:
        """The attachment that a reference of the HTML body means: "cid:…" (RFC 2392) or its Content-Location."""
        return self.places.get(_place(url))


def letter_of(data: bytes) -> Letter:
    """What a reader sees in these bytes. Linear time, never raises."""
    root = scan(data)
    fields = root.fields
    body = _Body(data)
    passages = body.read(root)
    text, html = body.join(passages)
    attachments = _with_references(body.attachments, html)
    date = fields.get(b"date")
    people = {name: _correspondents(fields.get(name)) for name in _PEOPLE}
    if any(len(found) >= CORRESPONDENTS_MAX for found in people.values()):
        body.problems.append(f"people cut at {CORRESPONDENTS_MAX:,} of a field")
    return Letter(
        data=data,
        root=root,
        subject=one_line(decode_words(fields.get(b"subject", b""))),
        date=None if date is None else read_date(date.decode("utf-8", "replace")),
        from_=people[b"from"],
        sender=people[b"sender"],
        reply_to=people[b"reply-to"],
        to=people[b"to"],
        cc=people[b"cc"],
        bcc=people[b"bcc"],
        message_id=next(iter(_ids(fields.get(b"message-id"))), None),
        in_reply_to=next(iter(_ids(fields.get(b"in-reply-to"))), None),
        references=tuple(_ids(fields.get(b"references"))[-REFERENCES_MAX:]),
        text=text,
        html=html,
        attachments=attachments,
        problems=tuple(dict.fromkeys(body.problems)),
        charset=body.charset,
        places=_places_of(attachments),
    )


# ---- header fields

_PEOPLE: Final = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
# Controls, line breaks and the separators of Unicode have no place in a line; other spaces are the sender's.
_NOT_IN_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_MESSAGE_ID = re.compile(rb"<[^<>\s]{1,998}>")


def one_line(text: str) -> str:
    """Text for one line: control characters and breaks are spaces."""
    return _NOT_IN_LINE.sub(" ", text).strip(" ")


def _ids(value: bytes | None) -> list[str]:
    return [] if value is None else [found.decode("utf-8", "replace") for found in _MESSAGE_ID.findall(value)]


# A word in Q encoding that holds what separates addresses: bad mailers leave it as it is (RFC 2047 section 5 forbids).
_Q_WORD = re.compile(rb"=\?[^?\s]{1,80}\?[Qq]\?[^?]{0,1000}\?=")
_SPECIALS = re.compile(rb'[,;:<>()@"\\\[\] \t]')


def _without_specials(value: bytes) -> bytes:
    def escaped(match: re.Match[bytes]) -> bytes:
        return _SPECIALS.sub(lambda special: b"=%02X" % special[0][0], match[0])

    return _Q_WORD.sub(escaped, value) if b"=?" in value else value


def _correspondents(value: bytes | None) -> tuple[Correspondent, ...]:
    if value is None:
        return ()
    if len(value) <= 500:
        return _known_correspondents(value)
    return tuple(_read_correspondents(value))


def _read_correspondents(value: bytes) -> list[Correspondent]:
    found: list[Correspondent] = []
    for one in value.split(FIELD_SEPARATOR):
        group: Correspondent | None = None
        for address in parse_addresses(_without_specials(one)):
            if len(found) >= CORRESPONDENTS_MAX:
                return found
            if address == GROUP_END:
                if group is not None:
                    found.append(group)  # a group without members is all there is to say
                group = None
            elif address.host is None and address.mailbox is not None:
                group = Correspondent(one_line(decode_words(address.mailbox)), "")
            else:
                group = None
                found.append(_correspondent(address))
    return [person for person in found if person.name or person.address]


@lru_cache(maxsize=2048)
def _known_correspondents(value: bytes) -> tuple[Correspondent, ...]:
    return tuple(_read_correspondents(value))


def _correspondent(address: Address) -> Correspondent:
    name = one_line(decode_words(address.name)) if address.name else ""
    local = b"" if address.mailbox in (None, b"MISSING_MAILBOX") else address.mailbox or b""
    host = b"" if address.host in (None, b"MISSING_DOMAIN", b"SYNTAX_ERROR") else address.host or b""
    text = one_line(decode_words(local) + (f"@{decode_words(host)}" if host else ""))
    if not name and not host and local:
        # One word that is no address: a name, for people.
        return Correspondent(text, "")
    return Correspondent(name, text)


# ---- transfer encodings

_UUENCODED: Final = frozenset(("x-uuencode", "uuencode", "x-uue", "uue"))
_UU_BEGIN = re.compile(rb"(?:\A|\n)begin [0-7]{3,4} [^\n]*\n")
_WORDS = re.compile(rb"[A-Za-z] {1,3}[A-Za-z]+ {1,3}[A-Za-z]")  # base64 has no spaces inside lines
_NOT_IN_BASE64 = re.compile(rb"[^A-Za-z0-9+/=\s]")


def transfer_decoded(raw: bytes, encoding: str | None) -> bytes:
    """A body with its Content-Transfer-Encoding undone; an unknown one is left as it is. Never raises."""
    name = (encoding or "7bit").lower()
    if name in _UUENCODED:
        return _uudecode(raw)
    decoded = decode_transfer(raw, name)
    return raw if decoded is None else decoded


def _uudecode(raw: bytes) -> bytes:
    begin = _UU_BEGIN.search(raw)
    if begin is None:
        return raw
    out: list[bytes] = []
    for line in raw[begin.end() :].split(b"\n"):
        row = line.rstrip(b"\r")
        if row in (b"end", b"`", b""):
            break
        try:
            out.append(binascii.a2b_uu(row))
        except binascii.Error:
            # A line that is too long by what a mailer added: read what its length says.
            length = (row[0] - 32) & 63
            try:
                out.append(binascii.a2b_uu(row[: (length * 4 + 5) // 3 + 1]))
            except binascii.Error:
                continue
    return b"".join(out)


def _is_damaged(raw: bytes, encoding: str | None) -> bool:
    return (encoding or "").lower() == "base64" and _NOT_IN_BASE64.search(raw) is not None


# ---- the body and what is attached


@dataclass(slots=True)
class _Passage:
    """A stretch of the body in the forms that it has, or a picture between two of them."""

    text: str | None = None
    html: str | None = None
    picture: int | None = None  # an index in `attachments`


# Parts of an alternative that are another form of the body, for readers that run programs or wear it on the wrist.
_OTHER_FORMS: Final = frozenset(("text/x-amp-html", "text/watch-html"))
_PLAIN: Final = frozenset(("plain", "markdown", "x-markdown", "x-patch", "x-diff"))


@dataclass(slots=True)
class _Body:
    """One walk over the tree of parts."""

    data: bytes
    attachments: list[Attachment] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    charset: str | None = None
    room: int = TEXT_MAX
    has_text: bool = False  # whether a part was taken as the body yet

    def read(self, part: Part, within: str = "") -> list[_Passage]:
        """The passages of a part, in order; what is no body is noted as attached. `within`: the multipart's subtype."""
        if not part.is_multipart:
            return self.leaf(part, within)
        children: Sequence[Part] = part.children
        attached: Sequence[Part] = ()
        if not children:
            return self.broken(part)
        if part.subtype == "alternative":
            return self.alternative(children)
        if part.subtype == "related":
            return self.related(part, children)
        if part.subtype == "encrypted":
            children, attached = (), children
        elif part.subtype == "signed":
            children, attached = children[:1], children[1:]
        passages = [passage for child in children for passage in self.read(child, part.subtype)]
        for child in attached:
            self.attach(child)
        return passages

    def alternative(self, children: Sequence[Part]) -> list[_Passage]:
        """The richest form that can be shown, and the plain one (RFC 2046 section 5.1.4: the last is the richest)."""
        forms = [
            self.read(child, "alternative") for child in children if f"{child.type}/{child.subtype}" not in _OTHER_FORMS
        ]
        plain = next((form for form in forms if _has_text(form) and not _has_html(form)), None)
        rich = next((form for form in reversed(forms) if _has_html(form)), None)
        if rich is None:
            return plain or next((form for form in forms if form), [])
        if plain is None:
            return rich
        text = "\n".join(passage.text for passage in plain if passage.text is not None)
        if len(rich) == 1:
            return [_Passage(text, rich[0].html)]
        # Several passages with one plain form: it goes with the first, the others say nothing in plain text.
        first, *others = rich
        return [
            _Passage(text, first.html if first.html is not None else _as_html(first.text or ""), first.picture),
            *[replace(passage, text="") if passage.picture is None else passage for passage in others],
        ]

    def related(self, part: Part, children: Sequence[Part]) -> list[_Passage]:
        """The root, and what it refers to (RFC 2387 section 3.2)."""
        start = next((_text_of(value).strip("<> ") for name, value in part.params if name.lower() == b"start"), None)
        root = next((child for child in children if start and _content_id(child) == start), children[0])
        if not root.is_multipart and root.type != "text" and root is children[0]:
            # No text at its head: a sender that means mixed.
            return [passage for child in children for passage in self.read(child, "mixed")]
        passages = self.read(root, "related")
        for child in children:
            if child is not root:
                self.attach_all(child)
        return passages

    def broken(self, part: Part) -> list[_Passage]:
        """A multipart in which no part was found: its bytes are shown as they are."""
        if part.end - part.body == 0:
            return []
        self.problems.append("no parts found in a multipart")
        return [_Passage(text=self.plain(part))]

    def leaf(self, part: Part, within: str) -> list[_Passage]:
        if not self.is_body(part, within):
            picture = self.attach(part)
            return [_Passage(picture=picture)] if part.type == "image" and within != "alternative" else []
        self.has_text = True
        if part.subtype in _PLAIN:
            return [_Passage(text=self.plain(part))]
        return [_Passage(html=self.rich(part))]

    def is_body(self, part: Part, within: str) -> bool:
        kind = f"{part.type}/{part.subtype}"
        is_page = kind in ("text/html", "application/xhtml+xml")
        if not is_page and (part.type != "text" or part.subtype not in _PLAIN):
            return False
        if part.disposition is not None and part.disposition.kind.lower() == b"attachment":
            return False
        if within in ("", "alternative", "related") or not self.has_text:
            return kind in ("text/plain", "text/html") or not attachment_name(part)
        return not attachment_name(part)

    def attach_all(self, part: Part) -> None:
        """Attach the leaves of a part, none of which is body."""
        if not part.is_multipart:
            self.attach(part)
        for child in part.children if part.is_multipart else ():
            self.attach_all(child)

    def attach(self, part: Part) -> int:
        """Note a part as attached; its index."""
        kind = f"{part.type}/{part.subtype}"
        number = len(self.attachments) + 1
        shown = part.disposition is not None and part.disposition.kind.lower() == b"inline"
        message = kind in ("message/rfc822", "message/global")
        if _is_damaged(self.data[part.body : part.end], part.encoding):
            self.problems.append(f"base64 damaged in attachment {number}")
        location = None if part.location is None else re.sub(r"\s+", "", decode_words(part.location)) or None
        self.attachments.append(
            Attachment(
                number=number,
                name=_name(part, number),
                media_type=one_line(kind)[:200],
                content_id=_content_id(part),
                location=location,
                inline=shown and part.type == "image",
                message=message,
                part=part,
            )
        )
        return number - 1

    # -- decoding

    def raw(self, part: Part) -> bytes:
        """The decoded bytes of a body part, as far as there is room; cut at a line's end."""
        if self.room <= 0:
            if part.end > part.body:
                self.problems.append(f"text cut at {TEXT_MAX >> 20} MiB")
            return b""
        written = self.data[part.body : min(part.end, part.body + 4 * self.room)]
        encoding = part.encoding
        if (encoding or "").lower() == "base64" and _WORDS.search(written):
            self.problems.append("not base64, though it says so")
            encoding = None
        elif _is_damaged(written, encoding):
            self.problems.append("base64 damaged")
        if (part.encoding or "").lower() not in _UUENCODED and decode_transfer(b"", part.encoding or "7bit") is None:
            self.problems.append(f"transfer encoding unknown: {one_line(part.encoding or '')[:40]}")
        raw = transfer_decoded(written, encoding)
        if len(raw) > self.room or part.body + len(written) < part.end:
            cut = raw[: self.room]
            raw = cut[: cut.rfind(b"\n") + 1] or cut
            self.problems.append(f"text cut at {TEXT_MAX >> 20} MiB")
        self.room -= len(raw)
        return raw

    def note(self, part: Part, problem: str | None) -> None:
        if self.charset is None:
            self.charset = part_charset(part)
        if problem is not None:
            self.problems.append(one_line(problem))

    def plain(self, part: Part) -> str:
        text, problem = decode_body(self.raw(part), part_charset(part))
        self.note(part, problem)
        text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
        params = {name.lower(): value.strip().lower() for name, value in part.params}
        if params.get(b"format") == b"flowed":
            return unflow(text, delsp=params.get(b"delsp") == b"yes")
        return text

    def rich(self, part: Part) -> str:
        html, problem = decode_html(self.raw(part), part_charset(part))
        self.note(part, problem)
        return html.replace("\r\n", "\n").replace("\0", "")

    # -- the end

    def join(self, passages: list[_Passage]) -> tuple[str | None, str | None]:
        """All passages as one plain text and one HTML, as far as there are such."""
        written = [passage for passage in passages if passage.picture is None]
        if len(written) == 1 and (len(passages) == 1 or written[0].html is None):
            only = written[0]
            return (None if only.html and not (only.text or "").strip() else only.text), only.html
        text = None
        if _has_text(written):
            texts = [
                passage.text if passage.text is not None else html_text(passage.html or "").strip()
                for passage in written
            ]
            text = "\n".join(piece.removesuffix("\n") for piece in texts if piece)
        if not _has_html(written):
            return text, None
        pieces: list[str] = []
        for passage in passages:
            if passage.picture is not None:
                pieces.append(self.picture(passage.picture))
            elif passage.html is not None:
                pieces.append(passage.html)
            elif passage.text:
                pieces.append(_as_html(passage.text))
        return text, "\n".join(pieces)

    def picture(self, index: int) -> str:
        """A picture that stands between two texts, in its place. It gets an id to be known by if it has none."""
        attachment = self.attachments[index]
        if not attachment.inline and attachment.part.disposition is not None:
            return ""
        if attachment.content_id is None:
            made = f"part{attachment.number}@mailkeep.invalid"
            attachment = self.attachments[index] = replace(attachment, content_id=made)
        source = markup.escape(f"cid:{attachment.content_id}")
        return f'<div><img src="{source}" alt="{markup.escape(attachment.name)}"></div>'


def _has_text(passages: Sequence[_Passage]) -> bool:
    return any(passage.text is not None for passage in passages)


def _has_html(passages: Sequence[_Passage]) -> bool:
    return any(passage.html is not None for passage in passages)


def _as_html(text: str) -> str:
    return f'<div style="white-space: pre-wrap">{markup.escape(text, quote=False)}</div>'


def _text_of(value: bytes) -> str:
    return one_line(decode_words(value))


def _content_id(part: Part) -> str | None:
    if part.id is None:
        return None
    found = _text_of(part.id)
    inner = re.search(r"<([^<>]*)>", found)
    return (inner[1] if inner else found).strip()[:998] or None


# ---- references from the HTML to parts

# src="…", background='…', href=…, url(…): whatever may name a part
_REFERENCE = re.compile(
    r"""(?:src|background|href|data|poster)\s{0,9}=\s{0,9}(?:"([^"]{1,2000})|'([^']{1,2000})|([^\s"'>]{1,2000}))"""
    r"""|url\(\s{0,9}["']?([^"')]{1,2000})""",
    re.IGNORECASE,
)


def _place(url: str) -> str:
    """A reference in the form in which it is compared."""
    url = url.strip()
    if url[:4].lower() == "cid:":
        return f"cid:{unquote(url[4:]).strip('<>')}"
    return url


def _places_of(attachments: Sequence[Attachment]) -> dict[str, Attachment]:
    places: dict[str, Attachment] = {}
    for attachment in attachments:
        if attachment.content_id is not None:
            places.setdefault(f"cid:{unquote(attachment.content_id)}", attachment)
        if attachment.location is not None:
            places.setdefault(_place(attachment.location), attachment)
    # A page that was saved and sent refers to "a.gif" where the part is at "file:///C:/Temp/a.gif".
    for attachment in attachments:
        if attachment.location is not None and (name := re.split(r"[/\\]", attachment.location)[-1]):
            places.setdefault(name, attachment)
    return places


def _with_references(attachments: list[Attachment], html: str | None) -> tuple[Attachment, ...]:
    """The attachments, with those that the HTML refers to as inline."""
    if html is None or not (places := _places_of(attachments)):
        return tuple(attachments)
    used = {_place(markup.unescape("".join(groups))) for groups in _REFERENCE.findall(html)}
    meant = {places[url].number for url in used if url in places}
    return tuple(
        replace(found, inline=True, referred=True) if found.number in meant else found for found in attachments
    )


# ---- names

# For parts without a name; the common types of mail, since the system's table differs from machine to machine.
_SUFFIXES: Final = {
    "text/plain": ".txt", "text/html": ".html", "text/calendar": ".ics", "application/ics": ".ics",
    "text/vcard": ".vcf", "text/x-vcard": ".vcf", "text/directory": ".vcf", "text/csv": ".csv", "text/xml": ".xml",
    "text/rtf": ".rtf", "application/rtf": ".rtf", "text/css": ".css", "text/markdown": ".md", "text/x-patch": ".patch",
    "text/x-diff": ".diff", "text/rfc822-headers": ".txt", "text/enriched": ".txt", "text/richtext": ".txt",
    "message/rfc822": ".eml", "message/global": ".eml", "message/delivery-status": ".txt",
    "message/disposition-notification": ".txt", "message/feedback-report": ".txt", "message/external-body": ".txt",
    "image/png": ".png", "image/jpeg": ".jpg", "image/jpg": ".jpg", "image/pjpeg": ".jpg", "image/gif": ".gif",
    "image/webp": ".webp", "image/bmp": ".bmp", "image/tiff": ".tif", "image/svg+xml": ".svg", "image/heic": ".heic",
    "image/avif": ".avif", "image/x-icon": ".ico", "audio/mpeg": ".mp3", "audio/wav": ".wav", "audio/x-wav": ".wav",
    "audio/ogg": ".ogg", "audio/mp4": ".m4a", "audio/amr": ".amr", "video/mp4": ".mp4", "video/mpeg": ".mpg",
    "video/quicktime": ".mov", "application/pdf": ".pdf", "application/zip": ".zip", "application/gzip": ".gz",
    "application/x-gzip": ".gz", "application/x-tar": ".tar", "application/json": ".json", "application/xml": ".xml",
    "application/msword": ".doc", "application/vnd.ms-excel": ".xls", "application/vnd.ms-powerpoint": ".ppt",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ".xlsx",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": ".pptx",
    "application/vnd.oasis.opendocument.text": ".odt", "application/vnd.oasis.opendocument.spreadsheet": ".ods",
    "application/postscript": ".ps", "application/pgp-keys": ".asc",
}  # fmt: skip
# Types of which a message has one, so that its name need not be counted.
_NAMES: Final = {
    "text/calendar": "invite.ics", "application/ms-tnef": "winmail.dat", "application/vnd.ms-tnef": "winmail.dat",
    "application/pgp-signature": "signature.asc", "application/pgp-encrypted": "version.txt",
    "application/pkcs7-signature": "smime.p7s", "application/x-pkcs7-signature": "smime.p7s",
    "application/pkcs7-mime": "smime.p7m", "application/x-pkcs7-mime": "smime.p7m",
    "message/delivery-status": "delivery-status.txt", "message/disposition-notification": "receipt.txt",
    "text/rfc822-headers": "headers.txt",
}  # fmt: skip


def _name(part: Part, number: int) -> str:
    name = one_line(attachment_name(part) or "")[:NAME_MAX]
    if name:
        return name
    kind = f"{part.type}/{part.subtype}"
    if kind in ("message/rfc822", "message/global"):
        inner = part.children[0].fields.get(b"subject") if part.children else None
        subject = one_line(decode_words(inner))[:80].strip() if inner else ""
        return f"{subject or 'message'}.eml"
    if kind in _NAMES:
        return _NAMES[kind]
    default = ".txt" if part.type == "text" else ".bin"
    return f"part-{number}{_SUFFIXES.get(kind, default)}"
