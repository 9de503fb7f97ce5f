"""FETCH as other servers answer it, to `Fetched` (RFC 9051 section 7.5.2, RFC 7162, RFC 8474, Gmail's X-GM-EXT-1).

Reads in place, from one octet of the reader's buffer to another, so that a body is copied once. The values that every
sync asks for are read by one regex that says which it found; all others, and those that look odd, by name and a reader
of nested lists. What no grammar allows is tolerated value by value: a size that is no number is None, and the rest of
the answer holds. The table of such quirks is in imap_answer_parse.
"""

import re
from datetime import date
from functools import lru_cache

from mailkeep.errors import ProtocolError
from mailkeep.mail.ids import UID_MAX
from mailkeep.mail.mailbox_name import decode_utf7
from mailkeep.wire.imap_answer import STREAMED, Fetched, Section
from mailkeep.wire.imap_syntax import MONTHS, NUMBER_MAX, REMEMBERED_MAX

DEPTH_MAX = 200  # of nested lists; BODYSTRUCTURE of the deepest message has half of it
# Stands in for a literal that has been streamed. NUL cannot be in an answer outside of a literal.
STREAMED_TOKEN = b"\0STREAMED"

# A whole answer with flags only, the most frequent one by far: its groups are seq, uid, flags, uid, modseq.
FLAGS_LINE = re.compile(
    rb"\* ([0-9]{1,10}) FETCH \((?:UID ([0-9]{1,10}) )?FLAGS \(([^()\r\n]*)\)(?: UID ([0-9]{1,10}))?"
    rb"(?: MODSEQ \(([0-9]{1,18})\))?\)\r\n"
)
# A whole message as it was asked for, up to its octets: seq, uid, flags, date, size, modseq, label, octets.
BODY_HEAD = re.compile(
    rb"\* ([0-9]{1,10}) FETCH \(UID ([0-9]{1,10}) FLAGS \(([^()\r\n]*)\) INTERNALDATE \"([^\"\r\n]*)\""
    rb" RFC822\.SIZE ([0-9]{1,18})(?: MODSEQ \(([0-9]{1,18})\))? (BODY\[\]|RFC822) \{([0-9]{1,10})\}\r\n"
)
FETCH_HEAD = re.compile(rb"\* +([0-9]{1,10}) +(UID)?FETCH +\(", re.IGNORECASE)
# The items of every sync, as nearly all servers write them.
_SIMPLE = re.compile(
    rb" ?(?:UID ([0-9]{1,10})(?=[ )])|FLAGS \(([^()]*)\)|RFC822\.SIZE ([0-9]{1,18})(?=[ )])|INTERNALDATE \"([^\"]*)\""
    rb"|MODSEQ \(([0-9]{1,18})\)|(BODY\[[A-Z0-9.]*\]|RFC822) ~?\{([0-9]{1,18})\}\r?\n)"
)
# msg-att name, with its section and origin octet: BODY[HEADER.FIELDS ("To")]<0>
_NAME = re.compile(
    rb" *([A-Za-z][A-Za-z0-9.\-]*)"
    rb"(?:\[([^\]\"]{0,1000}+(?:\"[^\"]{0,100}+\"[^\]\"]{0,100}+){0,100}+)\])? *(?:<([0-9]{1,18})(?:\.[0-9]+)?>)? *"
)
# One token of any value: ( | ) | quoted | literal | number | atom. Bounded, and so is the section above: a line may be
# full of beginnings that have no end, and each would look for it up to the end of the line.
_TOKEN = re.compile(
    rb" *(?:(\()|(\))|\"([^\"\\]*+(?:\\.[^\"\\]*+){0,600}+)\"|~?\{([0-9]{1,18})\+?\}\r?\n"
    rb"|([0-9]{1,18})(?=[ )]|\Z)|([^ ()]+))",
    re.DOTALL,
)
# Only these two are ever escaped. A backslash before anything else is meant: a separator that was not escaped.
_ESCAPED = re.compile(rb"\\([\"\\])")
_DIGITS = re.compile(rb"[0-9]{1,20}")  # number64, and Gmail's unsigned ones
# date-time = date-day-fixed "-" date-month "-" date-year SP time SP zone; also as RFC 5322 writes it, also without zone
_DATE_TIME = re.compile(
    rb" *(?:[A-Za-z]{3}, *)?([0-9]{1,2})[- ]([A-Za-z]{3})[a-z]*[- ]([0-9]{4}) +([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?"
    rb"(?: *([+-])([0-9]{2}):?([0-9]{2}))?"
)
_MONTH = {name.lower().encode("ascii"): index for index, name in enumerate(MONTHS, 1)}
_EPOCH = date(1970, 1, 1).toordinal()
# Of the years 1 to 9999, whatever the zone: what others can show as a date.
_FIRST = (date(1, 1, 3).toordinal() - _EPOCH) * 86400
_LAST = (date(9999, 12, 29).toordinal() - _EPOCH) * 86400
_SYSTEM = {
    name.lower(): name for name in ("\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft", "\\Recent")
}  # fmt: skip

Value = bytes | int | None | tuple["Value", ...]


def unescape(value: bytes) -> bytes:
    """The octets of a quoted string."""
    return _ESCAPED.sub(rb"\1", value) if b"\\" in value else value


def flag_names(text: bytes) -> frozenset[str]:
    """The flags between parentheses; system flags as RFC 9051 spells them."""
    return _remembered_flags(text) if len(text) <= REMEMBERED_MAX else _flag_names(text)


def _flag_names(text: bytes) -> frozenset[str]:
    names = (name.strip('"') for name in text.decode("utf-8", "replace").split())
    return frozenset(_SYSTEM.get(name.lower(), name) if name[:1] == "\\" else name for name in names if name)


_remembered_flags = lru_cache(maxsize=4096)(_flag_names)


def unix_time(text: bytes) -> int | None:
    """Seconds since 1970, UTC; None for what is no point in time."""
    match = _DATE_TIME.match(text)
    if match is None:
        return None
    day, month, year, hour, minute, second, sign, zone_hour, zone_minute = match.groups()
    days = _days(day, month, year)
    seconds = int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    if days is None or seconds > 86400 or int(minute) > 59:
        return None
    zone = (int(zone_hour) * 60 + int(zone_minute)) * 60 if sign else 0
    found = days * 86400 + seconds - (zone if sign == b"+" else -zone)
    return found if _FIRST <= found <= _LAST else None


@lru_cache(maxsize=4096)
def _days(day: bytes, month: bytes, year: bytes) -> int | None:
    try:
        return date(int(year), _MONTH[month.lower()], int(day)).toordinal() - _EPOCH
    except (KeyError, ValueError):
        return None


def decode_label(raw: bytes) -> str:
    """A Gmail label: modified UTF-7, or what it looks like."""
    try:
        return decode_utf7(raw)
    except ProtocolError:
        return raw.decode("utf-8", "backslashreplace")


def read_value(data: bytes, pos: int, end: int, *, numbers: bool = True) -> tuple[Value | Section, int]:
    """Any value: octets, NIL as None, a number, a nested tuple; and where it ends. Without `numbers` these are octets.

    Nothing at all (a parenthesis closes at once) is None too. Raises ProtocolError.
    """
    lists: list[list[Value]] = []
    while True:
        match = _TOKEN.match(data, pos, end)
        if match is None:
            raise ProtocolError("Value ends too early")
        kind = match.lastindex
        pos = match.end()
        value: Value
        if kind == 1:
            if len(lists) >= DEPTH_MAX:
                raise ProtocolError("Nested too deeply")
            lists.append([])
            continue
        if kind == 2:
            if not lists:
                return None, match.start()
            value = tuple(lists.pop())
        elif kind == 3:
            value = unescape(match[3])
        elif kind == 4:
            start, pos = pos, pos + int(match[4])
            if pos > end:
                raise ProtocolError("Literal not complete")
            value = data[start:pos]
        elif kind == 5:
            value = int(match[5]) if numbers else match[5]
        else:
            value = match[6]
            if value == STREAMED_TOKEN and not lists:
                return STREAMED, pos
            if value.upper() == b"NIL":
                value = None
        if not lists:
            return value, pos
        lists[-1].append(value)


def parse_fetch(data: bytes, pos: int, end: int) -> Fetched:
    """The answer in data[pos:end], whole, without its line end. Raises ProtocolError."""
    head = FETCH_HEAD.match(data, pos, end)
    if head is None:
        raise ProtocolError("Expected FETCH")
    return _Items(head).read(data, head.end(), end)


def parse_body(head: re.Match[bytes], data: bytes, start: int, stop: int) -> Fetched:
    """The answer whose beginning is `head`, a match of BODY_HEAD, and whose octets are data[start:stop]."""
    seq, uid, flags, date, size, modseq, label, _ = head.groups()
    return Fetched(
        int(seq),
        _uid(int(uid)),
        flag_names(flags),
        None if modseq is None else int(modseq),
        unix_time(date),
        int(size),
        {label: data[start:stop]},
    )


def fetch_head(text: bytes) -> tuple[bytes, Fetched] | None:
    """For an answer up to a literal's announcement: the label of that literal and what was said before it.

    None when it is no section of a FETCH.
    """
    head = FETCH_HEAD.match(text)
    if head is None:
        return None
    items = _Items(head)
    try:
        fetched = items.read(text, head.end(), len(text))
    except ProtocolError:
        return None
    return (items.announced, fetched) if items.announced is not None else None


class _Items:
    """One answer being read."""

    __slots__ = ("announced", "fetched", "sections", "values")

    def __init__(self, head: re.Match[bytes]) -> None:
        number = int(head[1])
        self.sections: dict[bytes, Section] = {}
        self.values: dict[str, object] = {}
        self.fetched = Fetched(0 if head[2] else number, sections=self.sections, values=self.values)
        if head[2]:  # UIDFETCH of RFC 9586
            self.fetched.uid = _uid(number)
        self.announced: bytes | None = None  # the section whose value is about to come

    def read(self, data: bytes, pos: int, end: int) -> Fetched:
        fetched = self.fetched
        simple = _SIMPLE.match
        while data[pos : pos + 1] != b")" and pos < end:
            match = simple(data, pos, end)
            if match is None:
                if (pos := self._odd(data, pos, end)) < 0:
                    break
                continue
            kind = match.lastindex
            pos = match.end()
            if kind == 1:
                fetched.uid = _uid(int(match[1]))
            elif kind == 2:
                fetched.flags = flag_names(match[2])
            elif kind == 3:
                fetched.size = int(match[3])
            elif kind == 4:
                fetched.internaldate = unix_time(match[4])
            elif kind == 5:
                fetched.modseq = int(match[5])
            else:
                start, pos = pos, pos + int(match[7])
                if pos > end:
                    raise ProtocolError("Literal not complete")
                self.sections[match[6]] = data[start:pos]
        return fetched

    def _odd(self, data: bytes, pos: int, end: int) -> int:
        """An item by its name. Where it ends; -1 when nothing is left."""
        match = _NAME.match(data, pos, end)
        if match is None:
            if data[pos:end].strip(b" )"):
                raise ProtocolError("Bad FETCH item")
            return -1
        name = match[1].decode("ascii").upper()
        pos = match.end()
        label = _label(match, name)
        if label is not None:
            if pos == end:
                self.announced = label
                return -1
            value, pos = read_value(data, pos, end, numbers=False)
            if not isinstance(value, tuple | int):  # a list is no section
                self.sections[label] = value
            return pos
        if name.startswith("BINARY.SIZE"):
            name += "[" + (match[2] or b"").decode("ascii", "replace") + "]"
        numbers = name not in ("FLAGS", "X-GM-LABELS", "EMAILID", "THREADID", "PREVIEW", "INTERNALDATE", "SAVEDATE")
        value, pos = read_value(data, pos, end, numbers=numbers)
        self._keep(name, value)
        return pos

    def _keep(self, name: str, value: object) -> None:
        fetched = self.fetched
        if name == "UID":
            fetched.uid = _uid(value) if isinstance(value, int) else None
        elif name == "FLAGS":
            words = value if isinstance(value, tuple) else (value,)
            fetched.flags = flag_names(b" ".join(word for word in words if isinstance(word, bytes)))
        elif name == "RFC822.SIZE":
            fetched.size = value if isinstance(value, int) else None
        elif name == "INTERNALDATE":
            fetched.internaldate = unix_time(value) if isinstance(value, bytes) else None
        elif name == "MODSEQ":
            number = value[0] if isinstance(value, tuple) and value else value
            if isinstance(number, bytes) and _DIGITS.fullmatch(number):
                number = int(number)
            fetched.modseq = number if isinstance(number, int) and number <= NUMBER_MAX else None
        elif name == "X-GM-LABELS":
            labels = value if isinstance(value, tuple) else (value,)
            self.values[name] = tuple(decode_label(raw) for raw in labels if isinstance(raw, bytes))
        elif name in ("X-GM-MSGID", "X-GM-THRID"):
            if isinstance(value, bytes) and _DIGITS.fullmatch(value):
                value = int(value)
            self.values[name] = value if isinstance(value, int) else None
        elif name in ("EMAILID", "THREADID", "PREVIEW"):
            text = value[0] if isinstance(value, tuple) and value else value
            self.values[name] = text.decode("utf-8", "replace") if isinstance(text, bytes) else None
        elif name == "SAVEDATE":
            self.values[name] = unix_time(value) if isinstance(value, bytes) else None
        else:
            self.values[name] = value


def _uid(number: int) -> int | None:
    return number if 0 < number <= UID_MAX else None


def _label(match: re.Match[bytes], name: str) -> bytes | None:
    """The label of a section; None for an item that is none."""
    _, section, origin = match.groups()
    name = name.removesuffix(".PEEK")  # some servers repeat the question as it was
    if section is None:
        if name not in ("RFC822", "RFC822.HEADER", "RFC822.TEXT"):
            return None
        return name.encode("ascii")
    if name not in ("BODY", "BINARY"):
        return None
    # BODY[HEADER.FIELDS ("Date"  From)]: quotes and spaces as each server likes
    words = b" ".join(section.upper().replace(b'"', b"").replace(b"(", b" (").replace(b")", b") ").split())
    words = words.replace(b"( ", b"(").replace(b" )", b")")
    return b"%b[%b]%b" % (name.encode("ascii"), words, b"" if origin is None else b"<%b>" % origin)
