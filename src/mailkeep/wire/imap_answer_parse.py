"""One whole answer of an IMAP server, literals in place, to its class in imap_answer (RFC 9051 section 7).

Lenient where servers need it, and bounded everywhere. What is tolerated, and whom it is for:

| quirk                                                    | met at                       | read as                  |
|----------------------------------------------------------|------------------------------|--------------------------|
| no text after OK, NO, BAD or a code                      | Exchange, Domino, Courier    | empty text               |
| `+` without space or text                                | Exchange, Yahoo              | Continue(b"")            |
| several spaces, spaces at the end, lower case, bare LF   | Yahoo, Domino, hMailServer   | as if it were not so     |
| `]` missing behind a code; `]` inside PERMANENTFLAGS     | old Courier, user's keywords | the rest; the whole list |
| NIL, `""`, a literal or no quotes for a separator        | Exchange, UW, Domino         | None, or the separator   |
| `"\\"` not escaped, as separator and inside names        | Domino, Exchange             | a backslash              |
| a name with spaces and no quotes; quotes inside quotes   | Domino, Yahoo                | up to the end of the line |
| a name that is no canonical modified UTF-7, or is 8-bit  | Courier, Domino, Yahoo       | RawName, shown at best   |
| STATUS with items of no number, of NIL, with none at all | Exchange, Gmail              | text; left out           |
| SEARCH with a space at the end, with numbers over 32 bit | many; iCloud                 | those that can be UIDs   |
| FLAGS with quotes, NIL, brackets, 8-bit keywords         | Gmail, Courier, Exchange     | names as written         |
| NIL or `""` for a body                                   | iCloud, Exchange             | None, or no octets       |
| a negative size, a date that is none, MODSEQ without ()  | Exchange, Domino, Zimbra     | None; the number         |
| BODY.PEEK[] in an answer, other case and quotes in it    | Domino, UW                   | the label without PEEK   |
| no closing parenthesis                                   | Domino                       | the answer ends there    |
| `{n}` at the end of a text or of a code                  | any, in words for people     | words, no literal        |

What remains unreadable is a ProtocolError, of which imap_client makes an Unknown.
"""

import binascii
import re
from array import array
from typing import Literal

from mailkeep.errors import ProtocolError
from mailkeep.mail.mailbox_name import decode_utf7
from mailkeep.mail.numset import NumSet
from mailkeep.wire.imap_answer import (
    Answer,
    Capability,
    Code,
    Continue,
    Enabled,
    Exists,
    Expunged,
    Flags,
    Found,
    Id,
    Listed,
    MailboxStatus,
    Namespace,
    NamespaceEntry,
    Quota,
    QuotaRoot,
    Recent,
    Status,
    StatusKind,
    Unknown,
    Vanished,
)
from mailkeep.wire.imap_answer_fetch import FETCH_HEAD, flag_names, parse_fetch, read_value, unescape
from mailkeep.wire.imap_command import RawName

NAME_LINE_MAX = 8192  # octets of LIST and STATUS: lenient reading looks at these more than once
UNKNOWN_MAX = 1000  # octets kept of an answer that nobody can read
PAIRS_MAX = 1_000_000  # of COPYUID; our own copies are of some thousands
RANGES_MAX = 4_000_000  # of one set in an answer: VANISHED of a mailbox of millions

# response-tagged = tag SP resp-cond-state ; tag = 1*<any ASTRING-CHAR except "+">
_TAGGED = re.compile(rb"([^\x00-\x20\x7f-\xff(){%*\"\\+]{1,100}) +(OK|NO|BAD)(?: +|\Z)", re.IGNORECASE)
_UNTAGGED = re.compile(rb"\* *(OK|NO|BAD|BYE|PREAUTH)(?: +|\Z)", re.IGNORECASE)
# What ends in words for people, in which `{5}` is no literal.
TEXTUAL = re.compile(rb"[^*]|\* *(?:OK|NO|BAD|BYE|PREAUTH|CAPABILITY)(?![A-Z])", re.IGNORECASE)
# resp-text-code = atom [SP 1*<any TEXT-CHAR except "]">]
_CODE = re.compile(
    rb"\[([A-Za-z0-9.\-_]+)(?: +(\([^)]*+\)|[^\]\"(]*+(?:\"(?:[^\"\\]|\\.)*+\"[^\]\"]*+)*+(?=[\] ])|[^\]]*+))?"
    rb" *(?:\] *|\Z)",
    re.DOTALL,
)
_NUMBERED = re.compile(rb"\* +([0-9]{1,10}) +(EXISTS|RECENT|EXPUNGE) *\Z", re.IGNORECASE)
_NAMED = re.compile(rb"\* +([A-Za-z][A-Za-z0-9\-]*)(?: +|\Z)")
_NUMBER = re.compile(rb"[0-9]{1,19}")
_NUMBERS = re.compile(rb"[0-9 ]*")
_SEARCH = re.compile(rb"([0-9 ]*)(?:\(MODSEQ +([0-9]{1,19})\))? *\Z", re.IGNORECASE)
_ATTRIBUTES = re.compile(rb"(?:\(([^()]*)\)|NIL) *", re.IGNORECASE)
# DQUOTE QUOTED-CHAR DQUOTE / nil; and as those write it that know neither
_SEPARATOR = re.compile(
    rb"(?:\"\\?(.)\"|(\"\")|(NIL)(?= )|\{1\}\r?\n(.)|([^ \"]))(?: +|(?=\")|\Z)", re.DOTALL | re.IGNORECASE
)
_QUOTED = re.compile(rb"\"([^\"\\]*+(?:\\.[^\"\\]*+){0,600}+)\"", re.DOTALL)  # bounded as in imap_answer_fetch
_LITERAL = re.compile(rb"~?\{([0-9]{1,18})\+?\}\r?\n")
# mbox-list-extended = "(" [mbox-list-extended-item *(SP …)] ")", each a name and a value
_EXTENDED = re.compile(rb" +\((?=\"?[A-Za-z\-]+\"? +\().*\)\)? *\Z", re.DOTALL)
_STATUS_LIST = re.compile(rb" *\(((?:[^()]++|\([^()]*+\))*+)\)? *\Z")
_STATUS_ITEM = re.compile(rb" *([A-Za-z][A-Za-z0-9.\-]*) +(?:\(([^()]*)\)|\"([^\"]*)\"|([^ ()]+))")
_BASE64_RUN = re.compile(rb"&([A-Za-z0-9+,/]*)-")


def parse_answer(text: bytes, utf8: bool = False) -> Answer:
    """The answer in `text`, without its line end. `utf8`: names are UTF-8. Raises ProtocolError."""
    if text.startswith(b"* "):
        if FETCH_HEAD.match(text):
            return parse_fetch(text, 0, len(text))
        return _untagged(text, utf8)
    if text.startswith(b"+"):
        return Continue(text[2:] if text.startswith(b"+ ") else text[1:])
    match = _TAGGED.match(text)
    if match is None:
        if _UNTAGGED.match(text):  # "*OK"
            return _untagged(text, utf8)
        raise ProtocolError("This is no answer")
    return _status(match[1], match[2], text[match.end() :])


def _status(tag: bytes | None, kind: bytes, text: bytes) -> Status:
    code = None
    match = _CODE.match(text)
    if match is not None:
        code = _code(match[1].decode("ascii").upper(), match[2])
        text = text[match.end() :]
    word: StatusKind = kind.decode("ascii").upper()  # type: ignore[assignment]  # the regex knows these words only
    return Status(tag, word, code, text.decode("utf-8", "replace").strip())


def _code(name: str, argument: bytes | None) -> Code:
    text = None if argument is None else argument.decode("utf-8", "replace").strip() or None
    if argument is None or text is None:
        return Code(name, frozenset() if name in ("CAPABILITY", "PERMANENTFLAGS") else None)
    argument = argument.strip()
    if name in ("UIDVALIDITY", "UIDNEXT", "HIGHESTMODSEQ", "UNSEEN"):
        return Code(name, int(argument) if _NUMBER.fullmatch(argument) else text)
    if name == "CAPABILITY":
        return Code(name, _upper_words(argument))
    if name == "PERMANENTFLAGS":
        return Code(name, flag_names(argument.strip(b"()")))
    try:
        if name == "MODIFIED":
            return Code(name, _set(argument))
        if name in ("APPENDUID", "COPYUID"):
            validity, *sets = argument.split()
            if not _NUMBER.fullmatch(validity) or len(sets) != (1 if name == "APPENDUID" else 2):
                return Code(name, text)
            if name == "APPENDUID":
                return Code(name, (int(validity), _set(sets[0])))
            return Code(name, (int(validity), _expand(sets[0]), _expand(sets[1])))
    except ProtocolError:
        return Code(name, text)
    return Code(name, text)


def _set(text: bytes) -> NumSet:
    numbers = NumSet.parse(text.strip(), ranges_max=RANGES_MAX)
    if numbers.star_ranges:
        raise ProtocolError("* is not allowed here")
    return numbers


def _expand(text: bytes) -> tuple[int, ...]:
    """The numbers of a set in the order that it names them."""
    numbers: list[int] = []
    for item in text.split(b","):
        low, colon, high = item.partition(b":")
        if not _NUMBER.fullmatch(low) or (colon and not _NUMBER.fullmatch(high)):
            raise ProtocolError("Bad sequence set")
        first, last = int(low), int(high or low)
        if len(numbers) + abs(last - first) >= PAIRS_MAX:
            raise ProtocolError("Too many numbers in set")
        # RFC 4315 section 3: 12:10 is 10,11,12
        numbers += range(min(first, last), max(first, last) + 1)
    return tuple(numbers)


def _upper_words(text: bytes) -> frozenset[str]:
    return frozenset(text.decode("ascii", "replace").upper().split())


# --- untagged ---


def _untagged(text: bytes, utf8: bool) -> Answer:
    match = _NUMBERED.match(text)
    if match is not None:
        number, word = int(match[1]), match[2].upper()
        return Exists(number) if word == b"EXISTS" else Recent(number) if word == b"RECENT" else Expunged(number)
    match = _UNTAGGED.match(text)
    if match is not None:
        return _status(None, match[1], text[match.end() :])
    match = _NAMED.match(text)
    if match is None:
        return Unknown(text[:UNKNOWN_MAX])
    word, rest = match[1].upper(), text[match.end() :]
    if len(rest) > NAME_LINE_MAX and word in (b"LIST", b"LSUB", b"XLIST", b"STATUS"):
        raise ProtocolError("Mailbox name too long")
    if word in (b"LIST", b"LSUB", b"XLIST"):
        return _listed(word, rest, utf8)
    if word == b"STATUS":
        return _mailbox_status(rest, utf8)
    if word == b"SEARCH":
        return _search(rest)
    if word == b"ESEARCH":
        return _esearch(rest)
    if word == b"VANISHED":
        earlier = rest[:9].upper() == b"(EARLIER)"
        return Vanished(_set(rest[9:] if earlier else rest), earlier)
    if word == b"FLAGS":
        return Flags(flag_names(rest.strip(b"() ") if rest.strip().upper() != b"NIL" else b""))
    if word == b"CAPABILITY":
        return Capability(_upper_words(rest))
    if word == b"ENABLED":
        return Enabled(_upper_words(rest))
    if word == b"ID":
        return _id(rest)
    if word == b"NAMESPACE":
        return _namespace(rest, utf8)
    if word == b"QUOTA":
        return _quota(rest)
    if word == b"QUOTAROOT":
        return _quota_root(rest, utf8)
    return Unknown(text[:UNKNOWN_MAX])


def decode_name(raw: bytes, utf8: bool = False) -> str:
    """A mailbox name as text; a RawName where encoding it again would not give these octets."""
    if len(raw) == 5 and raw.upper() == b"INBOX":
        return "INBOX"
    if raw.isascii() and b"&" not in raw and raw.isalnum():
        return raw.decode("ascii")
    try:
        if not utf8:
            return decode_utf7(raw)
        return raw.decode("utf-8")
    except (UnicodeDecodeError, ProtocolError):
        return RawName.of(_best_text(raw), raw)


def _best_text(raw: bytes) -> str:
    """What a name that breaks the rules most likely says: sloppy modified UTF-7, UTF-8, or its octets."""
    if raw.isascii():
        loose = _BASE64_RUN.sub(_loose_run, raw)
        if loose != raw:
            try:
                return loose.decode("utf-8")
            except UnicodeDecodeError:
                pass
    return raw.decode("utf-8", "backslashreplace")


def _loose_run(match: re.Match[bytes]) -> bytes:
    """One shifted run as UTF-8, when it can be read at all: not canonical, but clear (Courier, Exchange)."""
    try:
        return decode_utf7(b"&" + match[1].replace(b"/", b",") + b"-").encode("utf-8")
    except ProtocolError:
        pass
    try:
        text = match[1].replace(b",", b"/")
        padded = text + b"=" * (-len(text) % 4)
        return binascii.a2b_base64(padded).decode("utf-16-be").encode("utf-8")
    except (binascii.Error, UnicodeError):
        return match[0]


def _name(text: bytes, followed: re.Pattern[bytes]) -> tuple[bytes, bytes]:
    """A name at the start of `text`, and what follows it, if `followed` matches that; leniently when it does not."""
    match = _LITERAL.match(text)
    if match is not None:
        stop = match.end() + int(match[1])
        return text[match.end() : stop], text[stop:]
    match = _QUOTED.match(text)
    if match is not None:
        tail = text[match.end() :]
        if not tail.strip() or followed.match(tail):
            return unescape(match[1]), tail
    # What does not end as it should is not looked for at every place where it could begin.
    may_be = followed is not _EXTENDED or text.rstrip(b" ").endswith(b")")
    tail_match = followed.search(text) if may_be else None
    raw, tail = (text[: tail_match.start()], tail_match[0]) if tail_match is not None else (text, b"")
    raw = raw.strip(b" ")
    if len(raw) >= 2 and raw[:1] == raw[-1:] == b'"':
        raw = unescape(raw[1:-1])
    return raw, tail


def _listed(word: bytes, rest: bytes, utf8: bool) -> Listed:
    """mailbox-list = "(" [flags] ")" SP (DQUOTE QUOTED-CHAR DQUOTE / nil) SP mailbox [SP mbox-list-extended]."""
    attributes = _ATTRIBUTES.match(rest)
    if attributes is None:
        raise ProtocolError("LIST without attributes")
    separator = _SEPARATOR.match(rest, attributes.end())
    if separator is None:
        raise ProtocolError("LIST without separator")
    octet = separator[1] or separator[4] or separator[5]
    raw, extended = _name(rest[separator.end() :], _EXTENDED)
    kind: Literal["LIST", "LSUB", "XLIST"] = word.decode("ascii")  # type: ignore[assignment]  # the caller knows
    names = frozenset((attributes[1] or b"").decode("utf-8", "replace").lower().split())
    oldname, childinfo = _extended(extended, utf8) if extended.strip() else (None, frozenset[str]())
    shown = octet.decode("latin-1") if octet else None
    return Listed(names, shown, decode_name(raw, utf8), raw, kind, oldname, childinfo)


def _extended(text: bytes, utf8: bool) -> tuple[str | None, frozenset[str]]:
    try:
        value, _ = read_value(text, 0, len(text), numbers=False)
    except ProtocolError:
        return None, frozenset()
    oldname, childinfo = None, frozenset[str]()
    pairs = value if isinstance(value, tuple) else ()
    for name, listed in zip(pairs[::2], pairs[1::2], strict=False):
        words = [word for word in listed if isinstance(word, bytes)] if isinstance(listed, tuple) else []
        if not isinstance(name, bytes) or not words:
            continue
        if name.upper() == b"CHILDINFO":
            childinfo = _upper_words(b" ".join(words))
        elif name.upper() == b"OLDNAME":
            oldname = decode_name(words[0], utf8)
    return oldname, childinfo


def _mailbox_status(rest: bytes, utf8: bool) -> MailboxStatus:
    """mailbox-data =/ "STATUS" SP mailbox SP "(" [status-att-list] ")" """
    raw, listed = _name(rest, _STATUS_LIST)
    match = _STATUS_LIST.match(listed)
    items: dict[str, int | str] = {}
    for name, inner, quoted, plain in _STATUS_ITEM.findall(match[1] if match is not None else b""):
        value = plain or inner or quoted
        if plain.upper() != b"NIL":
            number = _NUMBER.fullmatch(value)
            items[name.decode("ascii").upper()] = int(value) if number else value.decode("utf-8", "replace")
    return MailboxStatus(decode_name(raw, utf8), raw, items)


def _array(text: bytes) -> "array[int]":
    try:
        return array("I", map(int, text.split()))
    except (OverflowError, ValueError):  # ValueError: more digits than Python reads
        return array("I", [int(word) for word in text.split() if len(word) <= 10 and int(word) < 1 << 32])


def _search(rest: bytes) -> Found:
    match = _SEARCH.match(rest)
    if match is None:
        raise ProtocolError("Bad SEARCH")
    return Found(_array(match[1]), int(match[2]) if match[2] else None)


def _esearch(rest: bytes) -> Found:
    """esearch-response = "ESEARCH" [search-correlator] [SP "UID"] *(SP search-return-data) (RFC 4731)."""
    tag, uid = None, False
    numbers: dict[bytes, int] = {}
    found = None
    value, pos = read_value(rest, 0, len(rest)) if rest.startswith(b"(") else (None, 0)
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], bytes | int):
        tag = value[1] if isinstance(value[1], bytes) else b"%d" % value[1]
    words = rest[pos:].split()
    if words and words[0].upper() == b"UID":
        uid = True
        del words[0]
    for name, word in zip(words[::2], words[1::2], strict=False):
        if name.upper() == b"ALL":
            found = _set(word)
        elif _NUMBER.fullmatch(word):
            numbers[name.upper()] = int(word)
    modseq, smallest, largest, count = (numbers.get(name) for name in (b"MODSEQ", b"MIN", b"MAX", b"COUNT"))
    return Found(found, modseq, smallest, largest, count, uid, tag, extended=True)


def _id(rest: bytes) -> Id:
    try:
        value, _ = read_value(rest, 0, len(rest), numbers=False)
        words = value if isinstance(value, tuple) else ()
    except ProtocolError:  # what can be made of it: a name is for people only
        words = tuple(_QUOTED.findall(rest))
    fields: dict[str, str | None] = {}
    for name, said in zip(words[::2], words[1::2], strict=False):
        if isinstance(name, bytes):
            text = said.decode("utf-8", "replace") if isinstance(said, bytes) else None
            fields[name.decode("utf-8", "replace").lower()] = text
    return Id(fields)


def _namespace(rest: bytes, utf8: bool) -> Namespace:
    """Namespace-Response = "*" SP "NAMESPACE" SP Namespace SP Namespace SP Namespace (RFC 2342)."""
    kinds: list[tuple[NamespaceEntry, ...]] = []
    pos = 0
    for _ in range(3):
        value, pos = read_value(rest, pos, len(rest), numbers=False) if rest[pos:].strip() else (None, pos)
        entries = []
        for entry in value if isinstance(value, tuple) else ():
            if isinstance(entry, tuple) and len(entry) >= 2 and isinstance(entry[0], bytes):
                mark = entry[1] if isinstance(entry[1], bytes) else b""
                entries.append(NamespaceEntry(decode_name(entry[0], utf8), mark.decode("latin-1")[:1] or None))
        kinds.append(tuple(entries))
    return Namespace(*kinds)


def _quota(rest: bytes) -> Quota:
    """quota-response = "QUOTA" SP quota-root-name SP quota-list (RFC 9208)."""
    root, pos = read_value(rest, 0, len(rest), numbers=False)
    listed, _ = read_value(rest, pos, len(rest))
    resources: dict[str, tuple[int, int]] = {}
    words = listed if isinstance(listed, tuple) else ()
    for name, used, limit in zip(words[::3], words[1::3], words[2::3], strict=False):
        if isinstance(name, bytes) and isinstance(used, int) and isinstance(limit, int):
            resources[name.decode("ascii", "replace").upper()] = (used, limit)
    return Quota(root.decode("utf-8", "replace") if isinstance(root, bytes) else "", resources)


def _quota_root(rest: bytes, utf8: bool) -> QuotaRoot:
    words: list[bytes] = []
    pos = 0
    while rest[pos:].strip() and len(words) <= 1000:
        value, after = read_value(rest, pos, len(rest), numbers=False)
        if after == pos:
            break
        pos = after
        words.append(value if isinstance(value, bytes) else b"")
    name, *roots = words or [b""]
    return QuotaRoot(decode_name(name, utf8), tuple(root.decode("utf-8", "replace") for root in roots))
