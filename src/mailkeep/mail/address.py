"""Address lists (RFC 5322 section 3.4) as ENVELOPE shows them (RFC 9051 section 7.5.2).

A group is a start marker (mailbox = the group's name, host None), its members, and an end marker (all None). Nothing
raises: what cannot be read becomes an address that says so (MISSING_MAILBOX, MISSING_DOMAIN, SYNTAX_ERROR), in the
words that Dovecot uses, because clients have met those.
"""

import re
from typing import NamedTuple

from mailkeep.mail.tokens import ATEXT, BROKEN, END, MORE, Cursor


class Address(NamedTuple):
    """One address structure of ENVELOPE; bytes as in the header, comments and quotes undone."""

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


# A header field of a few megabytes must not become an envelope of fifty: what comes after these is left out.
ADDRESSES_MAX = 10_000
LIST_MAX = 1 << 20  # bytes of one field that are read

GROUP_END = Address(None, None, None, None)

# The shapes nearly all addresses have, read in one match; all else goes to the grammar below.
#   [ "quoted" / atoms ] <local@domain>   or   local@domain   up to a comma or the end
_A = rb"[" + ATEXT + rb"]+"
_DOTTED = _A + rb"(?:\." + _A + rb")*"
_WORDS = rb"[" + ATEXT + rb"][." + ATEXT + rb"]*"
_SIMPLE = re.compile(
    rb'[ \t\r\n]*(?:(?:"([^"\\\r\n]*)"|(' + _WORDS + rb"(?: " + _WORDS + rb")*))?[ \t\r\n]*"
    rb"<(" + _DOTTED + rb")@(" + _DOTTED + rb")>|(" + _DOTTED + rb")@(" + _DOTTED + rb"))"
    rb"[ \t\r\n]*(?:,[ \t\r\n]*(?=[^ \t\r\n])|\Z)"
)


def parse_addresses(value: bytes) -> tuple[Address, ...]:
    """All addresses of a header value. Linear time, never raises."""
    found: list[Address] = []
    value = value[:LIST_MAX]
    pos = read_simple(value, 0, found)
    if pos < len(value) and len(found) < ADDRESSES_MAX:
        cursor = Cursor(value)
        cursor.pos = pos
        if cursor.skip_space() == MORE:
            _Reader(cursor, found).address_list()
    return tuple(found)


def read_simple(value: bytes, pos: int, found: list[Address]) -> int:
    """Read the simple addresses from `pos` on. Returns where the first other one starts, or the end."""
    end = len(value)
    while pos < end and len(found) < ADDRESSES_MAX:
        match = _SIMPLE.match(value, pos)
        if match is None:
            break
        quoted, words, local, host, bare_local, bare_host = match.groups()
        if local is not None:
            found.append(Address((quoted or None) if quoted is not None else words, None, local, host))
        else:
            found.append(Address(None, None, bare_local, bare_host))
        pos = match.end()
    return pos


class _Reader:
    """Reads one address list by the grammar. The fields of the address being read are kept between its methods."""

    __slots__ = ("cursor", "found", "host", "mailbox", "name", "route")

    def __init__(self, cursor: Cursor, found: list[Address]) -> None:
        self.cursor = cursor
        self.found = found
        self.clear()

    def clear(self) -> None:
        self.name: bytes | None = None
        self.route: bytes | None = None
        self.mailbox: bytes | None = None
        self.host: bytes | None = None

    def add(self) -> None:
        """Keep the address; what is missing is filled in, so that clients see where the header is broken."""
        mailbox = b"MISSING_MAILBOX" if self.mailbox is None else self.mailbox
        self.found.append(Address(self.name, self.route, mailbox, self.host or b"MISSING_DOMAIN"))
        self.clear()

    def address_list(self) -> None:
        """address-list = (address *("," address)) / obs-addr-list"""
        cursor = self.cursor
        while True:
            if self.address() == END or not cursor.at(b","):
                return
            cursor.pos += 1
            state = cursor.skip_space()
            if state != MORE:
                if state == BROKEN:
                    self.add()
                return
            cursor.pos = read_simple(cursor.data, cursor.pos, self.found)
            if not cursor.more or len(self.found) >= ADDRESSES_MAX:
                return

    def address(self) -> int:
        """address = mailbox / group"""
        start = self.cursor.pos
        state = self.group()
        if state == BROKEN:
            self.cursor.pos = start
            state = self.one_mailbox()
        return state

    def group(self) -> int:
        """group = display-name ":" [mailbox-list / CFWS] ";" [CFWS]"""
        cursor = self.cursor
        name: list[bytes] = []
        if cursor.phrase(name) != MORE or not cursor.at(b":"):
            return BROKEN
        cursor.pos += 1
        state = cursor.skip_space()
        self.found.append(Address(None, None, b"".join(name), None))
        if state == MORE and not cursor.at(b";"):
            while True:
                self.one_mailbox()
                if not cursor.at(b","):
                    break
                cursor.pos += 1
                if cursor.skip_space() != MORE or len(self.found) >= ADDRESSES_MAX:
                    state = BROKEN
                    break
        if state != BROKEN:
            if cursor.at(b";"):
                cursor.pos += 1
                state = cursor.skip_space()
            else:
                state = BROKEN
        self.clear()
        self.found.append(GROUP_END)
        return END if state == END else MORE

    def one_mailbox(self) -> int:
        """mailbox = name-addr / addr-spec"""
        start = self.cursor.pos
        state = self.name_addr()
        if state == BROKEN:
            self.cursor.pos = start
            self.clear()
            state = self.addr_spec()
        self.add()
        return state

    def name_addr(self) -> int:
        """name-addr = [display-name] angle-addr"""
        cursor = self.cursor
        name: list[bytes] = []
        if cursor.phrase(name) != MORE or not cursor.at(b"<"):
            return BROKEN
        self.name = b"".join(name) or None
        if self.angle_addr() == BROKEN:
            self.host = b"SYNTAX_ERROR"
        return MORE if cursor.more else END

    def angle_addr(self) -> int:
        """angle-addr = "<" [ obs-route ] addr-spec ">" """
        cursor = self.cursor
        cursor.pos += 1
        if cursor.skip_space() != MORE:
            return BROKEN
        if cursor.at(b"@"):
            if self.source_route() and cursor.at(b":"):
                cursor.pos += 1
            else:
                self.route = b"INVALID_ROUTE"
                if not cursor.more:
                    return BROKEN
            if cursor.skip_space() != MORE:
                return BROKEN
        if not cursor.at(b">"):
            if self.local_part() != MORE:
                return BROKEN
            if cursor.at(b"@") and self.domain() != MORE:
                return BROKEN
        if not cursor.at(b">"):
            return BROKEN
        cursor.pos += 1
        return cursor.skip_space()

    def source_route(self) -> bool:
        """obs-domain-list = "@" domain *(*(CFWS / ",") [CFWS] "@" domain)"""
        cursor = self.cursor
        route: list[bytes] = []
        while cursor.at(b"@"):
            route.append(b",@" if route else b"@")
            if cursor.domain(route) != MORE:
                return False
            while cursor.skip_space() == MORE and cursor.at(b","):
                cursor.pos += 1
        if not cursor.more:
            return False
        self.route = b"".join(route)
        return True

    def local_part(self) -> int:
        """local-part = dot-atom / quoted-string / obs-local-part"""
        cursor = self.cursor
        text: list[bytes] = []
        state = cursor.quoted_string(text) if cursor.at(b'"') else cursor.dot_atom(text)
        if state != BROKEN:
            self.mailbox = b"".join(text)
        return state

    def domain(self) -> int:
        text: list[bytes] = []
        state = self.cursor.domain(text)
        if state != BROKEN:
            self.host = b"".join(text)
        return state

    def addr_spec(self) -> int:
        """addr-spec = local-part "@" domain ; a comment after it is taken as the name, as in RFC 822's days."""
        cursor = self.cursor
        cursor.comment = b""
        quoted = cursor.at(b'"')
        valid = True
        has_domain = False
        state = self.local_part()
        if state != MORE:
            valid = False
        if state != END and cursor.at(b"@"):
            has_domain = True
            ended = self.domain()
            if ended != MORE:
                state = ended
        if cursor.comment:
            self.name = cursor.comment
        elif not has_domain:
            # A lone word is a mailbox; several words are a name without an address.
            valid = False
            state = self.words_after(quoted)
        if not valid and self.name is None and self.mailbox is not None and self.host is None:
            self.name, self.mailbox = self.mailbox, None
        return state

    def words_after(self, quoted: bool) -> int:
        words: list[bytes] = []
        self.cursor.phrase(words)
        more = b"".join(words)
        if more:
            self.name = (self.mailbox or b"") + b" " + more
            self.mailbox = None
        elif not quoted:
            self.host = b""
        return BROKEN
