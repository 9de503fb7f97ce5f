"""What FETCH asks for: macros, attributes, sections, modifiers (RFC 9051 section 6.4.5, RFC 3516, RFC 7162).

Clients send the same few lists again and again, so a list is read once and remembered: bytes → items.
"""

import re
from functools import lru_cache

from mailkeep.errors import ProtocolError
from mailkeep.mail.ids import UID_MAX
from mailkeep.wire.imap_command import FetchBody, FetchItem, Section
from mailkeep.wire.imap_syntax import NUMBER_MAX, REMEMBERED_MAX, SPACE, CommandRefused, Cursor

Asked = tuple[tuple[FetchItem, ...], int | None, bool]  # items, CHANGEDSINCE, VANISHED

ITEMS_MAX = 1000  # in one list: clients that ask for each part by itself name some dozens
FIELD_LISTS_MAX = 32  # of HEADER.FIELDS among them
DEPTH_MAX = 100  # no message has more levels

_ATTRIBUTES = frozenset(
    [
        "FLAGS",
        "UID",
        "ENVELOPE",
        "INTERNALDATE",
        "RFC822.SIZE",
        "BODY",
        "BODYSTRUCTURE",
        "MODSEQ",
        "EMAILID",
        "THREADID",
        "SAVEDATE",
        "PREVIEW",
    ]
)
_FAST = ("FLAGS", "INTERNALDATE", "RFC822.SIZE")
_MACROS: dict[str, tuple[FetchItem, ...]] = {
    "FAST": _FAST,
    "ALL": (*_FAST, "ENVELOPE"),
    "FULL": (*_FAST, "ENVELOPE", "BODY"),
}
_RFC822: dict[str, FetchBody] = {
    "RFC822": FetchBody(Section(), peek=False, kind="RFC822", label=b"RFC822"),
    "RFC822.HEADER": FetchBody(Section((), "HEADER"), peek=True, kind="RFC822.HEADER", label=b"RFC822.HEADER"),
    "RFC822.TEXT": FetchBody(Section((), "TEXT"), peek=False, kind="RFC822.TEXT", label=b"RFC822.TEXT"),
}

_NAME = re.compile(rb"[A-Za-z0-9.]+")
# section-part = nz-number *("." nz-number) ; section-spec = section-msgtext / (section-part ["." section-text])
_SECTION = re.compile(
    rb"\[ *((?:[1-9][0-9]{0,9}(?:\.[1-9][0-9]{0,9})*)?)(?:(\.)?(HEADER\.FIELDS\.NOT|HEADER\.FIELDS|HEADER|TEXT|MIME))?",
    re.IGNORECASE,
)
# partial = "<" number64 "." nz-number64 ">"
_PARTIAL = re.compile(rb"<([0-9]{1,19})\.([0-9]{1,19})>")
_FIELD_ATOM = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\\]]+")


def parse_items(text: bytes, uid: bool) -> Asked:
    """Read all that follows the message set. Raises ProtocolError."""
    return _remembered(text, uid) if len(text) <= REMEMBERED_MAX else _parse(text, uid)


def _parse(text: bytes, uid: bool) -> Asked:
    cursor = Cursor(text)
    items: list[FetchItem] = ["UID"] if uid else []
    if cursor.skip(b"("):
        while cursor.more_in_list():
            items += _item(cursor)
        if len(items) == int(uid):
            raise ProtocolError("Nothing to fetch")
    else:
        items += _item(cursor)
    changed_since, vanished = None, False
    if cursor.try_take(SPACE) and cursor.peek() == b"(":
        changed_since, vanished = _modifiers(cursor, uid)
    cursor.end()
    field_lists = sum(not isinstance(item, str) and bool(item.section.fields) for item in items)
    if len(items) > ITEMS_MAX or field_lists > FIELD_LISTS_MAX:
        raise CommandRefused("LIMIT", "Too many fetch items")
    return tuple(dict.fromkeys(items)), changed_since, vanished


_remembered = lru_cache(maxsize=1024)(_parse)


def _item(cursor: Cursor) -> tuple[FetchItem, ...]:
    name = cursor.take(_NAME, "fetch item")[0].decode("ascii").upper()
    if cursor.peek() == b"[":
        return (_body(name, cursor),)
    if name in _ATTRIBUTES:
        if name == "PREVIEW":
            _lazy(cursor)
        return (name,)
    if name in _RFC822:
        return (_RFC822[name],)
    if name in _MACROS:  # some clients put a macro into parentheses
        return _MACROS[name]
    raise ProtocolError("Unknown fetch item")


def _lazy(cursor: Cursor) -> None:
    """PREVIEW (LAZY) of RFC 8970: ours is always at hand, so it is the same."""
    start = cursor.pos
    if cursor.try_take(SPACE) and cursor.peek() == b"(":
        if cursor.words() != ("LAZY",):
            raise ProtocolError("Unknown preview modifier")
        return
    cursor.pos = start


def _modifiers(cursor: Cursor, uid: bool) -> tuple[int | None, bool]:
    """fetch-modifiers of RFC 7162 section 3.1.4.1 and 3.2.6."""
    changed_since, vanished = None, False
    cursor.expect(b"(")
    while cursor.more_in_list():
        word = cursor.word()
        if word == "CHANGEDSINCE":
            cursor.space()
            changed_since = cursor.number()
        elif word == "VANISHED":
            vanished = True
        else:
            raise ProtocolError("Unknown fetch modifier")
    if vanished and (changed_since is None or not uid):
        raise ProtocolError("VANISHED needs UID FETCH and CHANGEDSINCE")
    return changed_since, vanished


def _body(name: str, cursor: Cursor) -> FetchBody:
    """BODY[…], BODY.PEEK[…], BINARY[…], BINARY.PEEK[…], BINARY.SIZE[…], each with an optional <partial>."""
    kind = name.removesuffix(".PEEK")
    peek = kind != name or kind == "BINARY.SIZE"
    if kind not in ("BODY", "BINARY", "BINARY.SIZE") or name == "BINARY.SIZE.PEEK":
        raise ProtocolError("Unknown fetch item")
    section = _section(cursor)
    if kind != "BODY" and section.text:
        raise ProtocolError("BINARY takes part numbers only")
    partial = None
    match = cursor.try_take(_PARTIAL)
    if match is not None:
        if kind == "BINARY.SIZE":
            raise ProtocolError("BINARY.SIZE has no partial")
        partial = (int(match[1]), int(match[2]))
        if max(partial) > NUMBER_MAX:
            raise ProtocolError("Number too large")
    return FetchBody(section, peek, partial, kind, label(kind, section, partial))  # type: ignore[arg-type]  # as above


def _section(cursor: Cursor) -> Section:
    match = cursor.take(_SECTION, "section")
    path = tuple(map(int, match[1].split(b"."))) if match[1] else ()
    text = (match[3] or b"").decode("ascii").upper()
    if bool(path and text) != bool(match[2]) or (text == "MIME" and not path):
        raise ProtocolError("Bad section")
    if len(path) > DEPTH_MAX or max(path, default=0) > UID_MAX:
        raise ProtocolError("Section too deep")
    fields: list[bytes] = []
    if text.startswith("HEADER.FIELDS"):
        cursor.space()
        cursor.expect(b"(")
        while cursor.more_in_list():
            fields.append(cursor.astring())
        if not fields:
            raise ProtocolError("No header fields named")
    cursor.skip_spaces()
    cursor.expect(b"]")
    return Section(path, text, tuple(fields))  # type: ignore[arg-type]  # the regex knows these words only


def label(kind: str, section: Section, partial: tuple[int, int] | None) -> bytes:
    """How the answer names a section: no PEEK, and of a partial the first octet only (RFC 9051 section 7.5.2)."""
    words = [b"%d" % number for number in section.path]
    if section.text:
        words.append(section.text.encode("ascii"))
    spec = b".".join(words)
    if section.fields:
        spec += b" (" + b" ".join(map(_field, section.fields)) + b")"
    origin = b"" if partial is None else b"<%d>" % partial[0]
    return kind.encode("ascii") + b"[" + spec + b"]" + origin


def _field(name: bytes) -> bytes:
    """A header field name as the answer repeats it: as written where that is an atom, else quoted."""
    if _FIELD_ATOM.fullmatch(name):
        return name
    if not name.isascii() or b"\r" in name or b"\n" in name or b"\0" in name:
        raise ProtocolError("Bad header field name")
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
