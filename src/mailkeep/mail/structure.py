"""What IMAP says of a message's structure, as finished wire bytes, and where its sections lie.

`render` runs once, at delivery; FETCH then joins stored bytes. Knows ENVELOPE, BODY and BODYSTRUCTURE (RFC 9051
section 7.5.2), section numbers (section 6.4.5.1) and the packed table behind `find_section`, whose format is private
to this file. The hard idea is to answer what Dovecot answers for broken mail too (docs/structure-differences.md has
the rest), but in 7 bits only: raw 8-bit header text becomes encoded words, since clients without UTF8=ACCEPT break on
anything else.
"""

import binascii
import html
import re
import struct
from datetime import date
from functools import lru_cache

from msgspec import Struct

from mailkeep.mail.address import ADDRESSES_MAX, Address, parse_addresses
from mailkeep.mail.header import Buffer, decode_base64, decode_charset, decode_words
from mailkeep.mail.mime import FIELD_SEPARATOR, ContentType, Params, Part, scan


class Rendered(Struct, frozen=True, array_like=True, gc=False):
    """All that the store keeps of a message besides its bytes."""

    size: int
    header_size: int
    envelope: bytes
    envelope_utf8: bytes | None
    body: bytes
    bodystructure: bytes
    sections: bytes
    sent_day: int | None
    preview: str
    subject: str
    message_id: str | None
    thread_refs: tuple[str, ...]


class Span(Struct, frozen=True):
    """Bytes of a section, and the transfer encoding they are in (lower case), for BINARY."""

    start: int
    length: int
    encoding: str


# ---- strings

# quoted = DQUOTE *QUOTED-CHAR DQUOTE ; any 7-bit character but NUL, CR, LF; quote and backslash are escaped.
_PLAIN = bytes(set(range(1, 128)) - set(b'\r\n"\\'))
_NOT_QUOTABLE = re.compile(rb"[\x00\r\n\x80-\xff]")
_ESCAPED = re.compile(rb'["\\]')
_LINE_BREAK = re.compile(rb"[\r\n]+(?=([ \t]?))")
_UNEVEN_SPACE = re.compile(rb"[\t\r\n]|  |\A | \Z")
_SPACE = re.compile(rb"[ \t\r\n]+")
QUOTED_MAX = 1000  # longer strings go as literals: clients have limits on lines


def string(value: bytes) -> bytes:
    """An IMAP string: quoted when it may be, else a literal."""
    if not value.translate(None, _PLAIN) and len(value) <= QUOTED_MAX:
        return b'"%b"' % value
    if _NOT_QUOTABLE.search(value) or len(value) > QUOTED_MAX:
        return b"{%d}\r\n%b" % (len(value), value)
    return b'"%b"' % _ESCAPED.sub(rb"\\\g<0>", value)


def _one_line(value: bytes) -> bytes:
    """The value without its line breaks."""
    if b"\n" not in value and b"\r" not in value:
        return value
    return _LINE_BREAK.sub(lambda match: b"" if match[1] or match.end() == len(value) else b" ", value)


def _tidy(value: bytes) -> bytes:
    """The value for people: one line, single spaces."""
    return _SPACE.sub(b" ", value).strip(b" ") if _UNEVEN_SPACE.search(value) else value


_SPACES = re.compile(rb"([ \t\r\n]+)")
_CHUNK = 45  # bytes of text in one encoded word: 75 characters at most (RFC 2047 section 2)


def seven_bit(value: bytes) -> bytes:
    """UTF-8 text with its 8-bit words as encoded words; the space between two of them goes into the words."""
    if value.isascii():
        return value
    out: list[bytes] = []
    run: list[bytes] = []  # 8-bit words and the space between and after them
    for piece in _SPACES.split(value):
        if not piece.isascii() or (run and piece.isspace()):
            run.append(piece)
            continue
        if run:
            out += _flush(run)
            run = []
        out.append(piece)
    if run:
        out += _flush(run)
    return b"".join(out)


def _flush(run: list[bytes]) -> tuple[bytes, bytes]:
    space = run.pop() if run[-1].isspace() else b""
    return _encoded_words(b"".join(run)), space


def _encoded_words(raw: bytes) -> bytes:
    words: list[bytes] = []
    start = 0
    while start < len(raw):
        stop = min(start + _CHUNK, len(raw))
        while stop < len(raw) and stop > start + 1 and raw[stop] & 0xC0 == 0x80:
            stop -= 1  # never cut inside a character
        words.append(b"=?utf-8?B?" + binascii.b2a_base64(raw[start:stop], newline=False) + b"?=")
        start = stop
    return b" ".join(words)


def _nstring(value: bytes | None) -> bytes:
    return b"NIL" if value is None else string(seven_bit(_one_line(value)))


# ---- ENVELOPE


def _host_7bit(host: bytes) -> bytes:
    """A host with 8-bit characters as IDNA, or as encoded words when it is no host name."""
    if host.isascii():
        return host
    if len(host) <= 255:
        try:
            return host.decode().encode("idna")
        except UnicodeError:
            pass
    return seven_bit(host)


def _address(address: Address, utf8: bool) -> bytes:
    name, mailbox, host = address.name, address.mailbox, address.host
    if name is not None:
        name = _tidy(name)
    if not utf8:
        name = name and seven_bit(name)
        mailbox = mailbox and seven_bit(mailbox)
        host = host and _host_7bit(host)
    route = address.route
    return b"(%b %b %b %b)" % (
        b"NIL" if name is None else string(name),
        b"NIL" if route is None else string(route if utf8 else seven_bit(route)),
        b"NIL" if mailbox is None else string(mailbox),
        b"NIL" if host is None else string(host),
    )


_known_address = lru_cache(maxsize=4096)(_address)


def _addresses(value: bytes, utf8: bool) -> bytes:
    found: list[Address] = []
    for field in value.split(FIELD_SEPARATOR):
        if len(found) >= ADDRESSES_MAX:
            break
        found += parse_addresses(field)
    write = _known_address if len(value) <= 100 * len(found) else _address
    return b"(%b)" % b"".join([write(address, utf8) for address in found]) if found else b"NIL"


_known_addresses = lru_cache(maxsize=1024)(_addresses)


def _address_list(value: bytes | None, utf8: bool) -> bytes:
    if value is None:
        return b"NIL"
    return _known_addresses(value, utf8) if len(value) <= 500 else _addresses(value, utf8)


def write_envelope(fields: dict[bytes, bytes], *, utf8: bool = False) -> bytes:
    """The envelope structure of a message with these fields (RFC 9051 section 7.5.2)."""
    if not fields:
        return b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"

    def text(value: bytes | None) -> bytes:
        if value is None:
            return b"NIL"
        line = _one_line(value)
        return string(line if utf8 else seven_bit(line))

    get = fields.get
    subject = get(b"subject")
    if subject is not None:
        subject = _tidy(subject)
        subject = string(subject if utf8 else seven_bit(subject))
    sender = _address_list(get(b"from"), utf8)
    others = [_address_list(get(name), utf8) for name in (b"sender", b"reply-to")]
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        text(get(b"date")),
        b"NIL" if subject is None else subject,
        sender,
        *[sender if other == b"NIL" else other for other in others],
        _address_list(get(b"to"), utf8),
        _address_list(get(b"cc"), utf8),
        _address_list(get(b"bcc"), utf8),
        text(get(b"in-reply-to")),
        text(get(b"message-id")),
    )


# ---- BODY and BODYSTRUCTURE


def _params(params: Params) -> bytes:
    if not params:
        return b"NIL"
    return b"(%b)" % b" ".join([string(seven_bit(text)) for pair in params for text in pair])


def _type_and_params(content: ContentType | None, is_message: bool) -> bytes:
    if content is None:
        return b'"message" "rfc822" NIL' if is_message else b'"text" "plain" ("charset" "us-ascii")'
    if is_message:
        return b'"message" "rfc822" ' + _params(content.params)
    params = content.params
    if content.type.lower() == b"text" and not any(name.lower() == b"charset" for name, _ in params):
        params = (*params, (b"charset", b"us-ascii"))
    return b"%b %b %b" % (string(seven_bit(content.type)), string(seven_bit(content.subtype)), _params(params))


_known_type_and_params = lru_cache(maxsize=1024)(_type_and_params)


@lru_cache(maxsize=64)
def _known_encoding(encoding: str | None) -> bytes:
    return b'"7bit"' if encoding is None else string(seven_bit(encoding.encode()))


def _disposition(part: Part) -> bytes:
    found = part.disposition
    return b"NIL" if found is None else b"(%b %b)" % (string(seven_bit(found.kind)), _params(found.params))


def _extension(part: Part) -> bytes:
    """The fields that BODYSTRUCTURE has after those of BODY: disposition, language, location."""
    if part.disposition is None and not part.language and part.location is None:
        return b" NIL NIL NIL"
    language = b"(%b)" % b" ".join([string(seven_bit(tag)) for tag in part.language]) if part.language else b"NIL"
    return b" %b %b %b" % (_disposition(part), language, _nstring(part.location))


_NO_PARTS = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)'
_NO_PARTS_EXTENDED = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0 NIL NIL NIL NIL)'


def _write_part(part: Part, body: list[bytes], extended: list[bytes]) -> None:
    """Append the part's structure, in both forms."""
    if part.is_multipart:
        body.append(b"(")
        extended.append(b"(")
        for child in part.children:
            _write_part(child, body, extended)
        if not part.children:
            # The grammar wants at least one.
            body.append(_NO_PARTS)
            extended.append(_NO_PARTS_EXTENDED)
        subtype = string(seven_bit(part.written.subtype)) if part.written else b'"mixed"'
        body.append(b" %b)" % subtype)
        extended.append(b" %b %b%b)" % (subtype, _params(part.params), _extension(part)))
        return
    basic = b"(%b %b %b %b %d" % (
        _known_type_and_params(part.written, part.is_message),
        _nstring(part.id),
        _nstring(part.description),
        _known_encoding(part.encoding),
        part.end - part.body,
    )
    body.append(basic)
    extended.append(basic)
    if part.is_message:
        child = part.children[0]
        envelope = b" %b " % write_envelope(child.fields)
        lines = b" %d" % part.lines
        for out in (body, extended):
            out.append(envelope)
        _write_part(child, body, extended)
        for out in (body, extended):
            out.append(lines)
    elif part.type == "text":
        lines = b" %d" % part.lines
        body.append(lines)
        extended.append(lines)
    body.append(b")")
    extended.append(b" %b%b)" % (_nstring(part.md5), _extension(part)))


def _is_plain(part: Part) -> bool:
    """Whether the part says no more than what RFC 2045 section 5.2 takes as the default."""
    if part.type != "text" or part.subtype != "plain" or (part.encoding or "7bit").lower() != "7bit":
        return False
    if any((part.id, part.description, part.md5, part.disposition, part.language, part.location)):
        return False
    if not part.params:
        return True
    (name, value), *others = part.params
    return not others and name.lower() == b"charset" and value.lower() == b"us-ascii"


# ---- sections

# One record a part, in order of the tree: header offset, body offset, end, parts in its subtree (itself included),
# kind, transfer encoding.
_RECORD = struct.Struct("<IIIHBB")
_LEAF, _MULTIPART, _MESSAGE = 0, 1, 2
_ENCODINGS = ("7bit", "8bit", "binary", "base64", "quoted-printable", "unknown")
_ENCODING_NUMBERS = {name: number for number, name in enumerate(_ENCODINGS)}


def _pack_sections(part: Part, records: list[bytes]) -> None:
    place = len(records)
    records.append(b"")
    for child in part.children:
        _pack_sections(child, records)
    kind = _MESSAGE if part.is_message else _MULTIPART if part.is_multipart else _LEAF
    encoding = 0 if part.encoding is None else _ENCODING_NUMBERS.get(part.encoding.lower(), 5)
    records[place] = _RECORD.pack(part.start, part.body, part.end, len(records) - place, kind, encoding)


def find_section(sections: bytes, path: tuple[int, ...], text: str) -> Span | None:
    """Where a section lies in the message, None when there is no such part (RFC 9051 section 6.4.5.1).

    `path` is the part number, `text` one of "", HEADER, TEXT, MIME. HEADER.FIELDS selects from HEADER's span. The
    offsets count from the message's first byte.
    """
    read = _RECORD.unpack_from
    start, body, end, _, kind, _ = read(sections, 0)
    if not path:
        if text == "HEADER":
            return Span(start, body - start, "7bit")
        if text == "TEXT":
            return Span(body, end - body, "7bit")
        return Span(start, end - start, "7bit") if text == "" else None
    at = 0  # the record that the numbers so far lead to
    inside = True  # whether that record is a message's root, whose own body is its part 1 if it is no multipart
    for number in path:
        if kind == _MESSAGE and not inside:
            at += _RECORD.size  # step into the message inside
            kind = read(sections, at)[4]
        elif kind != _MULTIPART and not inside:
            return None
        if kind == _MULTIPART:
            found = _child(sections, at, number)
            if found is None:
                return None
            at = found
            kind = read(sections, at)[4]
        elif number != 1:
            return None
        inside = False
    return _section_of(sections, at, text)


def _child(sections: bytes, at: int, number: int) -> int | None:
    """The record of a multipart's child."""
    count = _RECORD.unpack_from(sections, at)[3]
    stop = at + count * _RECORD.size
    child = at + _RECORD.size
    for _ in range(number - 1):
        if child >= stop:
            return None
        child += _RECORD.unpack_from(sections, child)[3] * _RECORD.size
    return child if number > 0 and child < stop else None


def _section_of(sections: bytes, at: int, text: str) -> Span | None:
    start, body, end, _, kind, encoding = _RECORD.unpack_from(sections, at)
    if text == "":
        return Span(body, end - body, _ENCODINGS[encoding] if kind == _LEAF else "7bit")
    if text == "MIME":
        return Span(start, body - start, "7bit")
    if kind != _MESSAGE:
        return None
    start, body, end, _, _, _ = _RECORD.unpack_from(sections, at + _RECORD.size)
    return Span(start, body - start, "7bit") if text == "HEADER" else Span(body, end - body, "7bit")


def decode_transfer(data: bytes, encoding: str) -> bytes | None:
    """Undo a Content-Transfer-Encoding (RFC 2045 section 6); None when it is not known. Broken input gives its best."""
    name = encoding.lower()
    if name in ("7bit", "8bit", "binary", ""):
        return data
    if name == "base64":
        return decode_base64(data)
    if name == "quoted-printable":
        return binascii.a2b_qp(data)
    return None


# ---- what the store indexes

_MONTHS = {name: number for number, name in enumerate(
    (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1)}  # fmt: skip
# date = day month year ; also asctime's "month day time year" and ISO 8601
_DATE = re.compile(rb"(?<!\d)(\d{1,2})[ \t\r\n-]+([A-Za-z]{3})[A-Za-z]*\.?,?[ \t\r\n-]+(\d{4}|\d{2,3}(?!\d))")
_ASCTIME = re.compile(
    rb"([A-Za-z]{3})[a-z]*[ \t]+(\d{1,2})(?:,|[ \t]+\d{1,2}:\d{2}(?::\d{2})?(?:[ \t]+[A-Z]{1,5})?)[ \t]+(\d{4})"
)
_ISO = re.compile(rb"(?<!\d)(\d{4})-(\d{2})-(\d{2})")


def parse_day(value: bytes) -> int | None:
    """The day of a Date header in its own zone, as an ordinal; None when there is none."""
    value = value[:200]
    if match := _DATE.search(value):
        day, month, year = match.groups()
    elif match := _ASCTIME.search(value):
        month, day, year = match.groups()
    elif match := _ISO.search(value):
        return _ordinal(int(match[1]), int(match[2]), int(match[3]))
    else:
        return None
    number = int(year)
    if len(year) == 2:
        number += 2000 if number < 50 else 1900  # RFC 5322 section 4.3
    elif len(year) == 3:
        number += 1900
    return _ordinal(number, _MONTHS.get(month.lower(), 0), int(day))


def _ordinal(year: int, month: int, day: int) -> int | None:
    try:
        return date(year, month, day).toordinal()
    except ValueError:
        return None


_MESSAGE_ID = re.compile(rb"<([^<>\s]{1,998})>")
REFERENCES_MAX = 1000


def _thread(fields: dict[bytes, bytes]) -> tuple[str | None, tuple[str, ...]]:
    """The message's id without its angles, and the ids of its thread, oldest first, its own last."""

    def ids(name: bytes) -> list[str]:
        value = fields.get(name)
        return [] if value is None else [text.decode("utf-8", "replace") for text in _MESSAGE_ID.findall(value)]

    own = ids(b"message-id")[:1]
    if not own and (value := fields.get(b"message-id", b"").strip()):
        own = [value[:998].decode("utf-8", "replace")]
    known = dict.fromkeys([*ids(b"references")[-REFERENCES_MAX:], *ids(b"in-reply-to")[:1], *own])
    return (own[0] if own else None), tuple(known)


PREVIEW_SIZE = 200  # characters
_PREVIEW_READ = 2048  # bytes of the part that are looked at
_TAGS = re.compile(
    r"<(?:style|script|head|title)\b.*?(?:</(?:style|script|head|title)>|\Z)|<!--.*?(?:-->|\Z)|<[^>]{0,2000}(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)


def _first_text(part: Part) -> Part | None:
    """The part to preview: the first plain text, else the first HTML."""
    html = None
    stack = [part]
    while stack:
        part = stack.pop()
        if part.type == "text" and (part.disposition is None or part.disposition.kind.lower() != b"attachment"):
            if part.subtype == "plain" and part.end > part.body:
                return part
            if html is None and part.subtype == "html":
                html = part
        stack += reversed(part.children)
    return html


def part_charset(part: Part) -> str | None:
    """The declared charset of a text part."""
    for name, value in part.params:
        if name.lower() == b"charset":
            return value.decode("ascii", "replace")
    return None


def _preview(data: Buffer, root: Part) -> str:
    part = _first_text(root)
    if part is None:
        return ""
    size = min(part.end - part.body, _PREVIEW_READ * (4 if part.subtype == "html" else 1))
    raw = decode_transfer(bytes(data[part.body : part.body + size]), part.encoding or "7bit")
    if raw is None:
        return ""
    text = decode_charset(raw, part_charset(part))
    if part.subtype == "html":
        text = html.unescape(_TAGS.sub(" ", text))
    words: list[str] = []
    size = 0
    for line in text.splitlines():
        # A reply's quotation says nothing about it.
        if not line or line[0] == ">" or line.endswith(" wrote:"):
            continue
        found = line.split()
        words += found
        size += len(line)
        if size > 2 * PREVIEW_SIZE:
            break
    return " ".join(words)[:PREVIEW_SIZE].rstrip("\ufffd")


def render(data: Buffer) -> Rendered:
    """All of a message that is stored in finished form. Linear time, never raises."""
    if isinstance(data, memoryview):
        data = bytes(data)
    root = scan(data)
    fields = root.fields
    envelope = write_envelope(fields)
    needs_utf8 = not all(value.isascii() for value in fields.values())
    envelope_utf8 = write_envelope(fields, utf8=True) if needs_utf8 else None
    body: list[bytes] = []
    extended: list[bytes] = []
    if _is_plain(root):
        # Whatever the spelling was: so do most messages share one answer.
        basic = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" %d %d' % (root.end - root.body, root.lines)
        body.append(basic + b")")
        extended.append(basic + b" NIL NIL NIL NIL)")
    else:
        _write_part(root, body, extended)
    records: list[bytes] = []
    _pack_sections(root, records)
    message_id, refs = _thread(fields)
    sent, subject = fields.get(b"date"), fields.get(b"subject")
    return Rendered(
        size=len(data),
        header_size=root.body,
        envelope=envelope,
        envelope_utf8=None if envelope_utf8 == envelope else envelope_utf8,
        body=b"".join(body),
        bodystructure=b"".join(extended),
        sections=b"".join(records),
        sent_day=None if sent is None else parse_day(sent),
        preview=_preview(data, root),
        subject="" if subject is None else decode_words(subject),
        message_id=message_id,
        thread_refs=refs,
    )
