"""The tokens of IMAP: atoms, strings, numbers, dates, names (RFC 9051 section 9).

A `Cursor` walks over one finished command. Each method reads one token and moves on, or raises ProtocolError; every
token is one regex, so time is linear in the command. Lenient on purpose: several spaces where the grammar has one,
spaces at the end, 8-bit octets in strings, a backslash before any character of a quoted string (Outlook), lower case.
"""

import re
from datetime import date

from mailkeep.errors import ProtocolError
from mailkeep.mail.mailbox_name import decode_utf7
from mailkeep.mail.numset import NumSet
from mailkeep.wire.imap_command import SAVED, MessageSet

NUMBER_MAX = (1 << 63) - 1  # number64, mod-sequence-value
REMEMBERED_MAX = 1024  # octets: what is longer is not kept in a cache of parsed pieces
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTH = {name.lower(): index for index, name in enumerate(MONTHS, 1)}

SPACE = re.compile(rb" +")
_SPACES = re.compile(rb" *")
# ATOM-CHAR = any CHAR but "(" ")" "{" SP CTL "%" "*" DQUOTE "\" "]"
ATOM = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\\]]+")
# ASTRING-CHAR = ATOM-CHAR / "]"; and 8-bit octets, from clients that send UTF-8 names unquoted
_ASTRING = re.compile(rb"(?!~\{)[^\x00-\x20\x7f(){%*\"\\]+")
# list-char = ATOM-CHAR / "%" / "*" / "]"
_PATTERN = re.compile(rb"[^\x00-\x20\x7f(){\"\\]+")
# quoted = DQUOTE *QUOTED-CHAR DQUOTE
_QUOTED = re.compile(rb"\"([^\"\\\r\n\x00]*(?:\\[^\r\n\x00][^\"\\\r\n\x00]*)*)\"")
_ESCAPE = re.compile(rb"\\(.)", re.DOTALL)
# literal = "{" number64 ["+"] "}" CRLF *CHAR8; literal8 = "~{" … The framer has checked its size.
_LITERAL = re.compile(rb"(~?)\{([0-9]{1,18})\+?\}\r\n")
_NUMBER = re.compile(rb"[0-9]{1,19}(?![0-9])")
_SET = re.compile(rb"[0-9:*,]+|\$")
# flag = "\" atom / atom
_FLAG = re.compile(rb"\\?[^\x00-\x20\x7f-\xff(){%*\"\\\]]+")
# date = date-text / DQUOTE date-text DQUOTE ; date-text = 1*2DIGIT "-" 3ALPHA "-" 4DIGIT
_DATE = re.compile(rb"(\"?)([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})\1")
# date-time = DQUOTE date-day-fixed "-" date-month "-" date-year SP time SP zone DQUOTE
_DATE_TIME = re.compile(
    rb"\" ?([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4}) +([0-9]{2}):([0-9]{2}):([0-9]{2}) +([+-])([0-9]{2})([0-9]{2})\""
)
_EPOCH = date(1970, 1, 1).toordinal()


class CommandRefused(ProtocolError):
    """Well understood, and refused: answered by NO with a response code, not by BAD."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Cursor:
    """A place in one command. `utf8`: the client enabled UTF-8, so names are UTF-8 and not modified UTF-7."""

    __slots__ = ("pos", "text", "utf8")

    def __init__(self, text: bytes, pos: int = 0, utf8: bool = False) -> None:
        self.text = text
        self.pos = pos
        self.utf8 = utf8

    # --- around tokens ---

    def take(self, regex: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        match = regex.match(self.text, self.pos)
        if match is None:
            raise ProtocolError(f"Expected {what}")
        self.pos = match.end()
        return match

    def try_take(self, regex: re.Pattern[bytes]) -> re.Match[bytes] | None:
        match = regex.match(self.text, self.pos)
        if match is not None:
            self.pos = match.end()
        return match

    def space(self) -> None:
        self.take(SPACE, "space")

    def skip_spaces(self) -> None:
        self.take(_SPACES, "")

    def peek(self) -> bytes:
        """The next octet; empty at the end."""
        return self.text[self.pos : self.pos + 1]

    def skip(self, octet: bytes) -> bool:
        """Step over `octet` if it is next."""
        if self.text.startswith(octet, self.pos):
            self.pos += len(octet)
            return True
        return False

    def expect(self, octet: bytes) -> None:
        if not self.skip(octet):
            raise ProtocolError(f"Expected {octet.decode('ascii')}")

    def at_end(self) -> bool:
        """Whether nothing but spaces is left."""
        self.skip_spaces()
        return self.pos == len(self.text)

    def end(self) -> None:
        if not self.at_end():
            raise ProtocolError("Unexpected text at the end of the command")

    def more_in_list(self) -> bool:
        """Inside parentheses: False after the closing one is read. Spaces between the items are optional."""
        self.skip_spaces()
        if self.skip(b")"):
            return False
        if self.pos == len(self.text):
            raise ProtocolError("Expected )")
        return True

    # --- tokens ---

    def atom(self) -> str:
        return self.take(ATOM, "atom")[0].decode("ascii")

    def word(self) -> str:
        """An atom in upper case: names of options, items, keys."""
        return self.take(ATOM, "word")[0].decode("ascii").upper()

    def number(self) -> int:
        value = int(self.take(_NUMBER, "number")[0])
        if value > NUMBER_MAX:
            raise ProtocolError("Number too large")
        return value

    def nz_number(self, largest: int = 0xFFFF_FFFF) -> int:
        value = self.number()
        if not 0 < value <= largest:
            raise ProtocolError("Number out of range")
        return value

    def string(self) -> bytes:
        """string = quoted / literal."""
        match = _QUOTED.match(self.text, self.pos)
        if match is not None:
            self.pos = match.end()
            value = match[1]
            return _ESCAPE.sub(rb"\1", value) if b"\\" in value else value
        match = self.take(_LITERAL, "string")
        start = self.pos
        self.pos = stop = start + int(match[2])
        if stop > len(self.text):
            raise ProtocolError("Literal not complete")
        value = self.text[start:stop]
        if not match[1] and b"\0" in value:
            raise ProtocolError("NUL in literal")
        return value

    def astring(self) -> bytes:
        match = _ASTRING.match(self.text, self.pos)
        if match is None:
            return self.string()
        self.pos = match.end()
        return match[0]

    def nstring(self) -> bytes | None:
        if self.text[self.pos : self.pos + 3].upper() == b"NIL":
            self.pos += 3
            return None
        return self.string()

    def mailbox(self) -> str:
        """A mailbox name as text. Raises CommandRefused for a name that is no modified UTF-7."""
        return decode_mailbox(self.astring(), self.utf8)

    def pattern(self) -> str:
        """list-mailbox = 1*list-char / string. What is no modified UTF-7 stands for itself: it matches nothing."""
        match = self.try_take(_PATTERN)
        raw = match[0] if match is not None else self.string()
        try:
            return decode_mailbox(raw, self.utf8)
        except ProtocolError:
            return raw.decode("utf-8", "replace")

    def set(self) -> MessageSet:
        """sequence-set = … / "$" (RFC 5182)."""
        text = self.take(_SET, "message set")[0]
        return SAVED if text == b"$" else NumSet.parse(text)

    def num_set(self) -> NumSet:
        """sequence-set without the saved result."""
        value = self.set()
        if not isinstance(value, NumSet):
            raise ProtocolError("$ is not allowed here")
        return value

    def flag(self) -> str:
        return self.take(_FLAG, "flag")[0].decode("ascii")

    def flag_list(self) -> tuple[str, ...]:
        """flag-list = "(" [flag *(SP flag)] ")"."""
        self.expect(b"(")
        flags = []
        while self.more_in_list():
            flags.append(self.flag())
        return tuple(flags)

    def words(self) -> tuple[str, ...]:
        """A list of words in parentheses, in upper case."""
        self.expect(b"(")
        words = []
        while self.more_in_list():
            words.append(self.word())
        return tuple(words)

    def date(self) -> int:
        """A day, as `date.toordinal` counts."""
        match = self.take(_DATE, "date")
        return _ordinal(match[2], match[3], match[4])

    def date_time(self) -> int:
        """Seconds since 1970, UTC."""
        match = self.take(_DATE_TIME, "date and time")
        hour, minute, second, zone_hour, zone_minute = (int(match[i]) for i in (4, 5, 6, 8, 9))
        if hour > 23 or minute > 59 or second > 60 or zone_minute > 59:
            raise ProtocolError("Bad time")
        days = _ordinal(match[1], match[2], match[3]) - _EPOCH
        zone = (zone_hour * 60 + zone_minute) * 60
        return days * 86400 + hour * 3600 + minute * 60 + second - (zone if match[7] == b"+" else -zone)


def _ordinal(day: bytes, month: bytes, year: bytes) -> int:
    try:
        return date(int(year), _MONTH[month.decode("ascii").lower()], int(day)).toordinal()
    except (KeyError, ValueError):
        raise ProtocolError("No such date") from None


def decode_mailbox(raw: bytes, utf8: bool) -> str:
    """A mailbox name from the wire as text; INBOX in any case becomes INBOX (RFC 9051 section 5.1)."""
    if len(raw) == 5 and raw.upper() == b"INBOX":
        return "INBOX"
    try:
        # Raw UTF-8 from a client that did not enable it is taken for what it is: 8-bit octets cannot be UTF-7.
        return raw.decode("utf-8") if utf8 or not raw.isascii() else decode_utf7(raw)
    except (UnicodeDecodeError, ProtocolError):
        kind = "UTF-8" if utf8 else "modified UTF-7"
        raise CommandRefused("CANNOT", f"Mailbox name is not valid {kind}") from None
