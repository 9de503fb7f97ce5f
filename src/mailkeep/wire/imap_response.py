"""What a server says, as finished bytes (RFC 9051 section 7).

Pure formatters; each returns a whole line with its end, or one token where its name says so (`quoted`, `astring`,
`date_time` …). Strict: what leaves here is valid for the oldest client, unless `utf8` says that this one enabled UTF-8.
FETCH lines are joined elsewhere from stored bytes; `fetch_line` is for the few that are not.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import lru_cache

from mailkeep.mail.mailbox_name import encode_utf7
from mailkeep.mail.numset import NumSet, encode

NIL = b"NIL"
SEPARATOR = b'"/"'

_MONTHS = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_EPOCH = date(1970, 1, 1).toordinal()
# astring that needs no quotes; NIL would read as none, and a tag-like "+" or "INBOX" is fine
_ATOM = re.compile(rb"[^\x00-\x20\x7f-\xff(){%*\"\\]+")
# what cannot stand in a quoted string at all
_LITERAL_ONLY = re.compile(rb"[\x00\r\n\x80-\xff]")
_LITERAL_ONLY_UTF8 = re.compile(rb"[\x00\r\n]")
_TO_ESCAPE = re.compile(rb"[\"\\]")
_TEXT_UNSAFE = re.compile(r"[\x00-\x1f\x7f]+")
_QUOTED_MAX = 4096  # longer ones are cheaper for both sides as a literal

Text = bytes | str


def _octets(value: Text) -> bytes:
    return value.encode("utf-8") if isinstance(value, str) else value


# --- tokens ---


def literal(value: bytes) -> bytes:
    """literal, or literal8 when the octets hold a NUL (RFC 9051 section 4.3)."""
    return b"%b{%d}\r\n%b" % (b"~" if b"\0" in value else b"", len(value), value)


def quoted(value: Text, utf8: bool = False) -> bytes:
    """string: quoted where the octets allow it, else a literal. `utf8` lets 8-bit octets into the quotes."""
    value = _octets(value)
    unsafe = _LITERAL_ONLY_UTF8 if utf8 else _LITERAL_ONLY
    if len(value) > _QUOTED_MAX or unsafe.search(value) or (utf8 and not _is_utf8(value)):
        return literal(value)
    if b'"' in value or b"\\" in value:
        value = _TO_ESCAPE.sub(rb"\\\g<0>", value)
    return b'"%b"' % value


def _is_utf8(value: bytes) -> bool:
    if value.isascii():
        return True
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def astring(value: Text, utf8: bool = False) -> bytes:
    """astring: an atom where that is safe, else a string."""
    value = _octets(value)
    if _ATOM.fullmatch(value) and len(value) <= 255 and value.upper() != NIL:
        return value
    return quoted(value, utf8)


def nstring(value: Text | None, utf8: bool = False) -> bytes:
    """nstring: a string, or NIL for None."""
    return NIL if value is None else quoted(value, utf8)


def mailbox(name: str, utf8: bool = False) -> bytes:
    """A mailbox name: UTF-8 for a client that enabled it, else modified UTF-7."""
    return astring(name.encode("utf-8"), utf8=True) if utf8 else astring(encode_utf7(name))


def flags_list(flags: Iterable[str]) -> bytes:
    """flag-list with its parentheses."""
    return b"(%b)" % " ".join(flags).encode("ascii")


@lru_cache(maxsize=4096)
def _day(days: int) -> bytes:
    day = date.fromordinal(min(max(days + _EPOCH, 1), date.max.toordinal()))
    return b"%02d-%b-%04d" % (day.day, _MONTHS[day.month - 1], day.year)


def date_time(seconds: int) -> bytes:
    """INTERNALDATE's form of seconds since 1970, in UTC: `"20-Jan-2026 10:00:00 +0000"`."""
    days, rest = divmod(seconds, 86400)
    return b'"%b %02d:%02d:%02d +0000"' % (_day(days), rest // 3600, rest // 60 % 60, rest % 60)


# --- status responses ---


def resp_text(text: str, code: Text | None = None) -> bytes:
    """resp-text = ["[" resp-text-code "]" SP] text; never empty, one line, ASCII."""
    clean = _TEXT_UNSAFE.sub(" ", text).encode("ascii", "replace").strip() or b"-"
    if code is not None:
        return b"[%b] %b" % (_octets(code), clean)
    return clean.lstrip(b"[") or b"-"  # a bracket at the start would read as a code


def tagged(tag: bytes, status: str, text: str, *, code: Text | None = None) -> bytes:
    """`tag OK [CODE] text`; status is OK, NO or BAD."""
    return b"%b %b %b\r\n" % (tag, status.encode("ascii"), resp_text(text, code))


def untagged(status: str, text: str, *, code: Text | None = None) -> bytes:
    """`* OK [CODE] text`; status is OK, NO, BAD, PREAUTH or BYE."""
    return tagged(b"*", status, text, code=code)


def continuation(data: bytes = b"") -> bytes:
    """`+ data`: base64 already, or a text."""
    return b"+ %b\r\n" % data


def appenduid(uidvalidity: int, uids: Iterable[int]) -> bytes:
    """The code APPENDUID (RFC 4315)."""
    return b"APPENDUID %d %b" % (uidvalidity, encode(uids))


def copyuid(uidvalidity: int, pairs: Sequence[tuple[int, int]]) -> bytes:
    """The code COPYUID: (source UID, target UID) each; the order of both sets says which became which."""
    sources, targets = encode(source for source, _ in pairs), encode(target for _, target in pairs)
    return b"COPYUID %d %b %b" % (uidvalidity, sources, targets)


def modified(numbers: Iterable[int]) -> bytes:
    """The code MODIFIED: what UNCHANGEDSINCE kept from being stored (RFC 7162 section 3.1.3)."""
    return b"MODIFIED " + encode(numbers)


def capability_code(names: Iterable[str]) -> bytes:
    """CAPABILITY as a response code."""
    return b"CAPABILITY " + " ".join(names).encode("ascii")


# --- mailbox data ---


def capability(names: Iterable[str]) -> bytes:
    return b"* %b\r\n" % capability_code(names)


def enabled(names: Iterable[str]) -> bytes:
    return b"* %b\r\n" % " ".join(("ENABLED", *names)).encode("ascii")


def id_line(fields: Mapping[str, str | None] | None) -> bytes:
    """`* ID (…)` (RFC 2971); None is NIL."""
    if not fields:
        return b"* ID NIL\r\n"
    pairs = b" ".join(quoted(name) + b" " + nstring(value) for name, value in fields.items())
    return b"* ID (%b)\r\n" % pairs


def namespace(personal: str = "") -> bytes:
    """One personal namespace, none of others (RFC 2342)."""
    return b"* NAMESPACE ((%b %b)) NIL NIL\r\n" % (quoted(encode_utf7(personal)), SEPARATOR)


def exists(count: int) -> bytes:
    return b"* %d EXISTS\r\n" % count


def recent(count: int) -> bytes:
    return b"* %d RECENT\r\n" % count


def expunge(seq: int) -> bytes:
    return b"* %d EXPUNGE\r\n" % seq


def vanished(uids: Iterable[int] | NumSet, *, earlier: bool = False) -> bytes:
    """`* VANISHED [(EARLIER)] uids` (RFC 7162 section 3.2.10); nothing at all for no UIDs."""
    known = bytes(uids) if isinstance(uids, NumSet) else encode(uids)
    if not known:
        return b""
    return b"* VANISHED %b%b\r\n" % (b"(EARLIER) " if earlier else b"", known)


def flags(names: Iterable[str]) -> bytes:
    return b"* FLAGS %b\r\n" % flags_list(names)


def permanentflags(names: Iterable[str]) -> bytes:
    """`* OK [PERMANENTFLAGS (…)]`; `\\*` among the names says that new keywords may be made."""
    return untagged("OK", "Flags that stay", code=b"PERMANENTFLAGS " + flags_list(names))


def list_line(
    attributes: Iterable[str],
    name: str,
    *,
    kind: str = "LIST",
    utf8: bool = False,
    separator: bytes = SEPARATOR,
    childinfo: Sequence[str] = (),
    oldname: str | None = None,
) -> bytes:
    """`* LIST (attributes) "/" name`, with the extended data CHILDINFO and OLDNAME (RFC 5258, RFC 9051)."""
    extended = []
    if childinfo:
        extended.append(b'"CHILDINFO" (%b)' % b" ".join(quoted(option) for option in childinfo))
    if oldname is not None:
        extended.append(b'"OLDNAME" (%b)' % mailbox(oldname, utf8))
    tail = b" (%b)" % b" ".join(extended) if extended else b""
    head = (kind.encode("ascii"), " ".join(attributes).encode("ascii"), separator)
    return b"* %b (%b) %b %b%b\r\n" % (*head, mailbox(name, utf8), tail)


def list_root(kind: str = "LIST") -> bytes:
    """The answer to `LIST "" ""`: the separator and the root (RFC 9051 section 6.3.9)."""
    return b'* %b (\\Noselect) %b ""\r\n' % (kind.encode("ascii"), SEPARATOR)


def status_line(name: str, items: Mapping[str, int | str], *, utf8: bool = False) -> bytes:
    """`* STATUS name (MESSAGES 1 …)`, items in the order given; text is a finished value, as `(id)` of MAILBOXID."""
    values = " ".join(f"{item} {value}" for item, value in items.items())
    return b"* STATUS %b (%b)\r\n" % (mailbox(name, utf8), values.encode("ascii"))


def search_line(numbers: Sequence[int], *, modseq: int | None = None) -> bytes:
    """The old `* SEARCH 1 2 3 [(MODSEQ n)]`."""
    found = (" " + " ".join(map(str, numbers))).encode("ascii") if numbers else b""
    # RFC 7162 section 3.1.5: no MODSEQ when nothing was found
    return b"* SEARCH%b%b\r\n" % (found, b" (MODSEQ %d)" % modseq if modseq is not None and numbers else b"")


def esearch(
    tag: bytes | None,
    *,
    uid: bool,
    smallest: int | None = None,
    largest: int | None = None,
    found: bytes | None = None,
    count: int | None = None,
    modseq: int | None = None,
) -> bytes:
    """`* ESEARCH (TAG "x") UID MIN … MAX … ALL … COUNT … MODSEQ …` (RFC 4731). `found` is a set, as `encode` makes it.

    What is None is left out: MIN, MAX and ALL must be when nothing was found.
    """
    parts = [b"* ESEARCH"]
    if tag is not None:
        parts.append(b"(TAG %b)" % quoted(tag))
    if uid:
        parts.append(b"UID")
    for name, value in ((b"MIN", smallest), (b"MAX", largest)):
        if value is not None:
            parts.append(b"%b %d" % (name, value))
    if found:
        parts.append(b"ALL " + found)
    for name, value in ((b"COUNT", count), (b"MODSEQ", modseq)):
        if value is not None:
            parts.append(b"%b %d" % (name, value))
    return b" ".join(parts) + b"\r\n"


# --- message data ---


def fetch_line(seq: int, parts: Iterable[bytes]) -> bytes:
    """`* seq FETCH (…)` of finished `NAME value` parts."""
    return b"* %d FETCH (%b)\r\n" % (seq, b" ".join(parts))
