"""The model of a MAPI message, which PST and MSG files share, and the values that both directions must agree on.

Knows property tags and their types, the item with its recipients and attachments, and the small formats inside single
values: times, subjects, entry ids, conversation indexes. It knows no file format and no mail. Reading and writing use
the same tables.

**The one hard idea** is that a value has no type of its own here: the tag has it. A tag is `id << 16 | type`, and a
value is what Python has for that type:

    int    Integer16, Integer32, Integer64, Currency (in 1/10,000), ErrorCode, Time (ticks of 100 ns since 1601, UTC)
    float  Floating32, Floating64, FloatingTime (days since 1899-12-30)
    bool   Boolean                  str    String (never with a half of a surrogate pair, never with NUL)
    bytes  Binary                   UUID   Guid
    list   of these, for the multi-valued types

8-bit strings (String8) are for readers only to know: they decode them, and give the tag of the Unicode property. The
HTML body is Binary always. A named property has its name in place of the id; the id is the file's affair.

Sources: [MS-OXPROPS] (tags and names), [MS-OXCDATA] (types 2.11.1, entry ids 2.2.5), [MS-OXOMSG], [MS-OXCMSG].
"""

import codecs
import hashlib
import re
import struct
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

# --- types ([MS-OXCDATA] section 2.11.1) -----------------------------------------------------------------------------

INTEGER16: Final = 0x0002
INTEGER32: Final = 0x0003
FLOATING32: Final = 0x0004
FLOATING64: Final = 0x0005
CURRENCY: Final = 0x0006
FLOATING_TIME: Final = 0x0007
ERROR_CODE: Final = 0x000A
BOOLEAN: Final = 0x000B
OBJECT: Final = 0x000D
INTEGER64: Final = 0x0014
STRING8: Final = 0x001E
STRING: Final = 0x001F
TIME: Final = 0x0040
GUID: Final = 0x0048
BINARY: Final = 0x0102
MULTIPLE: Final = 0x1000  # added to the type of one

Value = int | float | bool | str | bytes | UUID | list[int] | list[float] | list[str] | list[bytes] | list[UUID]


class Named(NamedTuple):
    """The name of a named property: its set, its number or name in the set, and the type of its values."""

    guid: UUID
    name: int | str
    type: int


@dataclass(slots=True)
class Attached:
    """An attachment: its properties but the data, and either the data or the item that is embedded."""

    properties: dict[int, Value] = field(default_factory=dict)
    data: bytes | None = None
    item: "Item | None" = None


@dataclass(slots=True)
class Item:
    """A message, or another thing of Outlook's (contact, appointment …): MESSAGE_CLASS says what.

    `properties` have tags as keys. Recipients have properties only; theirs and those of an attachment are few, and
    named ones of them are not kept. `problems` says what a reader could not read, for the eyes of the user.
    """

    properties: dict[int, Value] = field(default_factory=dict)
    named: dict[Named, Value] = field(default_factory=dict)
    recipients: list[dict[int, Value]] = field(default_factory=list)
    attachments: list[Attached] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def tag(number: int, kind: int) -> int:
    return number << 16 | kind


# --- properties of a message -----------------------------------------------------------------------------------------

IMPORTANCE: Final = 0x00170003  # 0 low, 1 normal, 2 high
MESSAGE_CLASS: Final = 0x001A001F
PRIORITY: Final = 0x00260003  # -1 non-urgent, 0 normal, 1 urgent
READ_RECEIPT_REQUESTED: Final = 0x0029000B
SENSITIVITY: Final = 0x00360003  # 0 none, 1 personal, 2 private, 3 confidential
SUBJECT: Final = 0x0037001F
CLIENT_SUBMIT_TIME: Final = 0x00390040
SUBJECT_PREFIX: Final = 0x003D001F
CONVERSATION_TOPIC: Final = 0x0070001F
CONVERSATION_INDEX: Final = 0x00710102
TRANSPORT_MESSAGE_HEADERS: Final = 0x007D001F
REPORT_TEXT: Final = 0x1001001F
BODY: Final = 0x1000001F
RTF_COMPRESSED: Final = 0x10090102
HTML: Final = 0x10130102
NATIVE_BODY: Final = 0x10160003  # 0 undefined, 1 plain text, 2 RTF, 3 HTML, 4 clear-signed
INTERNET_MESSAGE_ID: Final = 0x1035001F
INTERNET_REFERENCES: Final = 0x1039001F
IN_REPLY_TO_ID: Final = 0x1042001F
ICON_INDEX: Final = 0x10800003
LAST_VERB_EXECUTED: Final = 0x10810003
FLAG_STATUS: Final = 0x10900003  # 1 completed, 2 flagged
FOLLOWUP_ICON: Final = 0x10950003  # 6 red
INTERNET_CODEPAGE: Final = 0x3FDE0003
MESSAGE_LOCALE: Final = 0x3FF10003
MESSAGE_CODEPAGE: Final = 0x3FFD0003  # of the String8 properties
CREATION_TIME: Final = 0x30070040
LAST_MODIFICATION_TIME: Final = 0x30080040
STORE_SUPPORT_MASK: Final = 0x340D0003
DELIVERY_TIME: Final = 0x0E060040  # when it came
MESSAGE_FLAGS: Final = 0x0E070003
MESSAGE_SIZE: Final = 0x0E080003
MESSAGE_STATUS: Final = 0x0E170003
HAS_ATTACHMENTS: Final = 0x0E1B000B
NORMALIZED_SUBJECT: Final = 0x0E1D001F
DISPLAY_BCC: Final = 0x0E02001F
DISPLAY_CC: Final = 0x0E03001F
DISPLAY_TO: Final = 0x0E04001F
SEARCH_KEY: Final = 0x300B0102
REPLY_RECIPIENT_ENTRIES: Final = 0x004F0102
REPLY_RECIPIENT_NAMES: Final = 0x0050001F

# The sender is who sent it (Sender), represented is whom it is from (From); the same person as a rule.
SENDER_NAME: Final = 0x0C1A001F
SENDER_ADDRESS_TYPE: Final = 0x0C1E001F
SENDER_ADDRESS: Final = 0x0C1F001F
SENDER_ENTRY_ID: Final = 0x0C190102
SENDER_SEARCH_KEY: Final = 0x0C1D0102
SENDER_SMTP_ADDRESS: Final = 0x5D01001F
REPRESENTING_NAME: Final = 0x0042001F
REPRESENTING_ADDRESS_TYPE: Final = 0x0064001F
REPRESENTING_ADDRESS: Final = 0x0065001F
REPRESENTING_ENTRY_ID: Final = 0x00410102
REPRESENTING_SEARCH_KEY: Final = 0x003B0102
REPRESENTING_SMTP_ADDRESS: Final = 0x5D02001F

# --- of a recipient, and of whatever has a name and an address -------------------------------------------------------

RECIPIENT_TYPE: Final = 0x0C150003
RECIPIENT_TO, RECIPIENT_CC, RECIPIENT_BCC = 1, 2, 3
ENTRY_ID: Final = 0x0FFF0102
RECORD_KEY: Final = 0x0FF90102
OBJECT_TYPE: Final = 0x0FFE0003
OBJECT_ATTACHMENT, OBJECT_MAIL_USER, OBJECT_MESSAGE = 7, 6, 5
DISPLAY_NAME: Final = 0x3001001F
ADDRESS_TYPE: Final = 0x3002001F
EMAIL_ADDRESS: Final = 0x3003001F
DISPLAY_TYPE: Final = 0x39000003
SMTP_ADDRESS: Final = 0x39FE001F
ADDRESS_BOOK_NAME: Final = 0x39FF001F
SEND_RICH_INFO: Final = 0x3A40000B
RECIPIENT_DISPLAY_NAME: Final = 0x5FF6001F
RECIPIENT_ENTRY_ID: Final = 0x5FF70102
RECIPIENT_FLAGS: Final = 0x5FFD0003
ROW_ID: Final = 0x30000003

# --- of an attachment ------------------------------------------------------------------------------------------------

ATTACH_SIZE: Final = 0x0E200003
ATTACH_NUMBER: Final = 0x0E210003
ATTACH_DATA: Final = 0x37010102
ATTACH_OBJECT: Final = 0x3701000D
ATTACH_EXTENSION: Final = 0x3703001F
ATTACH_NAME: Final = 0x3704001F  # 8.3
ATTACH_METHOD: Final = 0x37050003
BY_VALUE, EMBEDDED_MESSAGE, OLE = 1, 5, 6
ATTACH_LONG_NAME: Final = 0x3707001F
RENDERING_POSITION: Final = 0x370B0003  # -1: not in the text
ATTACH_MIME_TYPE: Final = 0x370E001F
ATTACH_CONTENT_ID: Final = 0x3712001F
ATTACH_LOCATION: Final = 0x3713001F
ATTACH_FLAGS: Final = 0x37140003  # 4: the HTML shows it
ATTACH_FLAG_SHOWN: Final = 4
ATTACHMENT_HIDDEN: Final = 0x7FFE000B

# --- bits and numbers ------------------------------------------------------------------------------------------------

# MESSAGE_FLAGS ([MS-OXCMSG] section 2.2.1.6)
FLAG_READ, FLAG_UNMODIFIED, FLAG_SUBMITTED, FLAG_UNSENT, FLAG_HAS_ATTACHMENTS, FLAG_FROM_ME = 1, 2, 4, 8, 0x10, 0x20
# ICON_INDEX, LAST_VERB_EXECUTED ([MS-OXOMSG] sections 2.2.1.10 and 2.2.2.5)
ICON_READ, ICON_UNREAD, ICON_UNSENT, ICON_REPLIED, ICON_FORWARDED = 0x100, 0x101, 0x103, 0x105, 0x106
VERB_REPLY, VERB_REPLY_ALL, VERB_FORWARD = 102, 103, 104
FLAGGED, FLAG_COMPLETE, ICON_RED = 2, 1, 6
NATIVE_TEXT, NATIVE_RTF, NATIVE_HTML = 1, 2, 3
CODEPAGE_UTF8: Final = 65001
STORE_UNICODE: Final = 0x00040E79  # Unicode, and that all may be written, which Outlook says of every file

# --- named properties ------------------------------------------------------------------------------------------------


def _set(number: int) -> UUID:
    return UUID(f"{number:08x}-0000-0000-c000-000000000046")


PS_MAPI: Final = _set(0x00020328)
PS_PUBLIC_STRINGS: Final = _set(0x00020329)
PS_INTERNET_HEADERS: Final = _set(0x00020386)
PSETID_APPOINTMENT: Final = _set(0x00062002)
PSETID_TASK: Final = _set(0x00062003)
PSETID_ADDRESS: Final = _set(0x00062004)
PSETID_COMMON: Final = _set(0x00062008)
PSETID_MEETING: Final = UUID("6ed8da90-450b-101b-98da-00aa003f1305")

CATEGORIES: Final = Named(PS_PUBLIC_STRINGS, "Keywords", MULTIPLE | STRING)
CONTENT_TYPE_HEADER: Final = Named(PS_INTERNET_HEADERS, "Content-Type", STRING)

# --- times -----------------------------------------------------------------------------------------------------------

_EPOCH: Final = 116_444_736_000_000_000  # 1970 in ticks
_TICKS: Final = 10_000_000  # in a second
_NO_DATE: Final = 0x0CB34557A3DD4000  # 4501-01-01, what Outlook puts for "none"
# What Python and most programs can show: from 1601 (and never 0, which is "none") to the end of 9999.
_EARLIEST_S: Final = -11_644_473_599
_LATEST_S: Final = 253_402_300_799


def filetime(seconds: float) -> int:
    """Ticks of a Unix time in seconds; what lies outside 1601 to 9999 is moved to the nearer end."""
    return _EPOCH + int(max(_EARLIEST_S, min(_LATEST_S, seconds)) * _TICKS)


def unix_time(ticks: int) -> int | None:
    """The Unix time of a FILETIME in whole seconds; None for those that mean "none" or cannot be a date."""
    seconds = (ticks - _EPOCH) // _TICKS
    return seconds if ticks > 0 and seconds <= _LATEST_S and ticks != _NO_DATE else None


# --- texts -----------------------------------------------------------------------------------------------------------

NAME_MAX: Final = 255  # UTF-16 units of a subject, a name or an address, as Outlook has it

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """Text that every reader takes: without NUL (an end to most), and without halves of surrogate pairs."""
    if "\0" in text:
        text = text.replace("\0", "")
    if text.isascii():
        return text
    return _SURROGATE.sub("\ufffd", text)


def cut(text: str, units: int = NAME_MAX) -> str:
    """The text in at most so many UTF-16 units, no pair cut in two."""
    if len(text) * 2 <= units or (len(text) <= units and text.isascii()):
        return text
    raw = text.encode("utf-16-le", "replace")
    return text if len(raw) <= 2 * units else raw[: 2 * units].decode("utf-16-le", "ignore")


# prefix = 1*3(any character but digits, white space and the colon) ":" 1*space ([MS-OXCMSG] section 2.2.1.10)
_PREFIX: Final = re.compile(r"[^\d\s:]{1,3}: +")


def split_subject(subject: str) -> tuple[str, str]:
    """The prefix of a subject with its colon and space ("RE: ", or ""), and the rest, the normalized subject."""
    match = _PREFIX.match(subject)
    return ("", subject) if match is None else (match[0], subject[match.end() :])


# Codepages of Windows whose Python codec is not called "cp" and their number.
_CODECS: Final = {
    936: "gb18030", 1200: "utf-16-le", 1201: "utf-16-be", 10000: "mac-roman", 20127: "cp1252", 20866: "koi8-r",
    20932: "euc-jp", 20936: "gb18030", 21866: "koi8-u", 28591: "cp1252", 28599: "cp1254", 28603: "iso8859-13",
    28605: "iso8859-15", 38598: "iso8859-8", 50220: "iso2022_jp_2", 50221: "iso2022_jp_2", 50222: "iso2022_jp_2",
    50225: "iso2022_kr", 51932: "euc-jp", 51936: "gb18030", 51949: "cp949", 51950: "cp950", 52936: "hz",
    54936: "gb18030", 65000: "utf-7", 65001: "utf-8",
}  # fmt: skip


def codec_of(codepage: Value | None) -> str | None:
    """The Python codec of a Windows codepage, e.g. the value of INTERNET_CODEPAGE; None when it is not known."""
    if not isinstance(codepage, int):
        return None
    name = _CODECS.get(codepage) or (f"iso8859-{codepage - 28590}" if 28590 < codepage < 28600 else f"cp{codepage}")
    try:
        return codecs.lookup(name).name
    except LookupError:
        return None


# Codepages of Windows by the low ten bits of a locale, its language ([MS-LCID]); 1252 are all others.
_BY_LANGUAGE: Final = {
    0x01: 1256, 0x02: 1251, 0x05: 1250, 0x08: 1253, 0x0D: 1255, 0x0E: 1250, 0x11: 932, 0x12: 949, 0x15: 1250,
    0x18: 1250, 0x19: 1251, 0x1A: 1250, 0x1B: 1250, 0x1C: 1250, 0x1E: 874, 0x1F: 1254, 0x20: 1256, 0x22: 1251,
    0x23: 1251, 0x24: 1250, 0x25: 1257, 0x26: 1257, 0x27: 1257, 0x29: 1256, 0x2A: 1258, 0x2F: 1251,
}  # fmt: skip
_TRADITIONAL_CHINESE: Final = (0x0404, 0x0C04, 0x1404)


def string_codec(codepage: Value | None, locale: Value | None, internet: Value | None) -> str:
    """The codec of a message's 8-bit strings, by its MESSAGE_CODEPAGE, else by the language of who wrote it, else by
    INTERNET_CODEPAGE, which is that of the body on its way."""
    codec = codec_of(codepage) if codepage else None
    if codec is None and isinstance(locale, int) and locale:
        language = locale & 0x3FF
        if language == 0x04:
            codec = "cp950" if locale in _TRADITIONAL_CHINESE else "gb18030"
        elif language in _BY_LANGUAGE:
            codec = f"cp{_BY_LANGUAGE[language]}"
    if codec is None:
        codec = codec_of(internet) if internet else None
    return "cp1252" if codec is None or codec.startswith("utf-16") else codec


# --- addresses -------------------------------------------------------------------------------------------------------

# A one-off entry id ([MS-OXCDATA] section 2.2.5.1): flags, provider, version, then name, type and address.
_ONE_OFF: Final = bytes(4) + bytes.fromhex("812b1fa4bea310199d6e00dd010f5402") + b"\0\0"
_UNICODE_NO_RICH_INFO: Final = struct.pack("<H", 0x9001)  # Unicode, and never send TNEF
_UNICODE: Final = 0x8000


def one_off(name: str, address: str, kind: str = "SMTP") -> bytes:
    """The entry id of somebody who is in no address book."""
    return _ONE_OFF + _UNICODE_NO_RICH_INFO + f"{name}\0{kind}\0{address}\0".encode("utf-16-le", "replace")


def read_one_off(entry: bytes) -> tuple[str, str, str] | None:
    """Name, address type and address of a one-off entry id; None when it is another kind."""
    if len(entry) < 24 or entry[4:22] != _ONE_OFF[4:]:
        return None
    codec = "utf-16-le" if int.from_bytes(entry[22:24], "little") & _UNICODE else "cp1252"
    texts = entry[24 : 24 + 16384].decode(codec, "replace").split("\0")
    if len(texts) < 3:
        return None
    return clean(texts[0]), clean(texts[1]), clean(texts[2])


_ADDRESS_BOOK: Final = bytes(4) + bytes.fromhex("dca740c8c042101ab4b908002b2fe182") + struct.pack("<II", 1, 0)


def address_book_entry(name: str) -> bytes:
    """The entry id of a mail user of Exchange ([MS-OXCDATA] section 2.2.5.2), by the distinguished name."""
    return _ADDRESS_BOOK + name.encode("ascii", "replace") + b"\0"


def search_key(address: str, kind: str = "SMTP") -> bytes:
    """What equal addresses have in common ([MS-OXOABK] section 2.2.3.8)."""
    return f"{kind}:{address}".upper().encode("utf-8", "replace") + b"\0"


def entry_list(entries: list[bytes]) -> bytes:
    """Entry ids in one value ([MS-OXCDATA] section 2.3.3, FlatEntryList): count, size, then each padded to four."""
    packed = b"".join(struct.pack("<I", len(entry)) + entry + bytes(-len(entry) % 4) for entry in entries)
    return struct.pack("<II", len(entries), len(packed)) + packed


def read_entry_list(value: bytes) -> list[bytes]:
    """The entry ids of a FlatEntryList, as many as there are whole."""
    found: list[bytes] = []
    at = 8
    while at + 4 <= len(value):
        size = int.from_bytes(value[at : at + 4], "little")
        if size == 0 or at + 4 + size > len(value):
            break
        found.append(value[at + 4 : at + 4 + size])
        at += 4 + size + -size % 4
    return found


# --- values by type --------------------------------------------------------------------------------------------------
# A file may give a property any type: what is not of the expected one is not there.


def text_of(properties: dict[int, Value], number: int) -> str:
    """The text of a property by its tag, or ""."""
    value = properties.get(number)
    return clean(value) if isinstance(value, str) else ""


def number_of(properties: dict[int, Value], number: int) -> int:
    value = properties.get(number)
    return value if isinstance(value, int) else 0


def bytes_of(properties: dict[int, Value], number: int) -> bytes:
    value = properties.get(number)
    return value if isinstance(value, bytes) else b""


def time_of(properties: dict[int, Value], number: int) -> int | None:
    """A time as Unix seconds; None when there is none."""
    value = properties.get(number)
    return unix_time(value) if isinstance(value, int) and not isinstance(value, bool) else None


# --- conversations ---------------------------------------------------------------------------------------------------


def conversation_id(topic: str) -> bytes:
    """The 16 bytes that a conversation without an index of its own has: of its topic ([MS-PST] section 5.4)."""
    digest = hashlib.md5(topic.upper().encode("utf-16-le", "replace"), usedforsecurity=False)
    return digest.digest()


def conversation_index(ticks: int, identity: bytes) -> bytes:
    """The index of a conversation's first message ([MS-OXOMSG] section 2.2.1.3): 1, five bytes of time, 16 of id.

    The 1 stands where the highest byte of the time is, which is 1 from 1829 to 2057: what Outlook writes reads either
    way.
    """
    return b"\x01" + (ticks >> 16 & 0xFF_FFFF_FFFF).to_bytes(5, "big") + identity
