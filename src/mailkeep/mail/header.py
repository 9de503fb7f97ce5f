"""Header blocks as bytes: where they end, their fields, a choice of them, and the text of encoded words.

Knows RFC 5322 section 2.2 (fields and folding) and RFC 2047 (encoded words). Knows nothing of what a field means. The
block is never changed: fields are slices of it. Real mail has bare LF, lines without a colon, raw 8-bit text and NULs:
nothing here raises, and nothing takes more than linear time (a megabyte of encoded words is an attack that works
elsewhere).
"""

import binascii
import codecs
import mmap
import re
from collections.abc import Iterator
from functools import lru_cache

import cchardet

Buffer = bytes | mmap.mmap | memoryview

# A header over this is not looked into any further; the bytes stay.
HEADER_MAX = 10 << 20

_BLANK_LINE = re.compile(rb"\n\r?\n")

# One field: its name, then from the colon to the end of the last folded line, without the last LF. A line without a
# colon is a field too, with an empty rest, so that its continuation lines do not become fields.
FIELD = re.compile(rb"([^:\n]*)(:?[^\n]*(?:\n[ \t][^\n]*)*)\n?")


def header_end(data: Buffer, start: int = 0, end: int | None = None) -> int:
    """Offset just past the blank line that ends the header block at `start`; `end` when there is none."""
    stop = len(data) if end is None else end
    head = bytes(data[start : min(start + 2, stop)])
    if head[:1] == b"\n":
        return start + 1
    if head == b"\r\n":
        return start + 2
    match = _BLANK_LINE.search(data, start, stop)
    return stop if match is None else match.end()


def iter_lines(header: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Each unfolded line of a header block as (name or whole text, rest from its colon on, all as written).

    The rest is empty when there is no colon. Stops at the blank line.
    """
    for match in FIELD.finditer(header):
        name, rest = match.groups()
        if name in (b"", b"\r") and not rest:
            return
        yield name, rest, match[0]


def iter_fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each field as (name as written, value as written with its folds but without the last line ending).

    Stops at the blank line. Lines without a colon are skipped.
    """
    for name, rest, _ in iter_lines(header):
        if rest.startswith(b":"):
            yield name.rstrip(b" \t"), rest[1:].removesuffix(b"\r")


_CHOICE_MAX = 100  # names in a pattern; making one of thousands takes 0.1 s


@lru_cache(maxsize=256)
def _field_pattern(names: frozenset[bytes]) -> re.Pattern[bytes]:
    # The LF of the line before is in the match, so that the search leaps from LF to LF.
    choice = b"|".join(re.escape(name) for name in sorted(names))
    return re.compile(rb"\n((?i:" + choice + rb")[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*)")


def select_fields(header: bytes, names: frozenset[bytes], *, exclude: bool = False) -> bytes:
    """The raw lines of the fields with these lower-case names (or all but these), and a final CRLF.

    What HEADER.FIELDS and HEADER.FIELDS.NOT answer (RFC 9051 section 6.4.5.1).
    """
    if not header.endswith(b"\n"):
        header += b"\r\n"
    if exclude or len(names) > _CHOICE_MAX:
        return b"".join(_fields(header, names, wanted=not exclude)) + b"\r\n"
    chosen = _field_pattern(names).findall(b"\n" + header) if names else ()
    return b"\n".join(chosen) + b"\n\r\n" if chosen else b"\r\n"


def _fields(header: bytes, names: frozenset[bytes], *, wanted: bool) -> Iterator[bytes]:
    for name, rest, written in iter_lines(header):
        if (rest.startswith(b":") and name.rstrip(b" \t").lower() in names) is wanted:
            yield written


_FOLD = re.compile(rb"\r?\n(?=[ \t])")
_FOLDED_AT_TAB = re.compile(rb"\r?\n\t")


def unfold(value: bytes) -> bytes:
    """The value on one line: line breaks go, the white space after them stays (RFC 5322 section 2.2.3)."""
    if b"\n" not in value and b"\r" not in value:
        return value
    return _FOLD.sub(b"", value).replace(b"\r\n", b" ").replace(b"\n", b" ").replace(b"\r", b" ")


# encoded-word = "=?" charset ["*" language] "?" encoding "?" encoded-text "?=" (RFC 2047 section 2, RFC 2231 section 5)
# Neither part may hold "?", which keeps the search linear. Real mail has spaces inside encoded-text.
_WORD = re.compile(rb"=\?([^?\s]{1,80})\?([bBqQ])\?([^?]*)\?=")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))

# Codecs of Python that are no charsets, or that take more than linear time.
_NOT_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})
# Charsets that senders name when they mean the superset.
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "utf-8", "shift_jis": "cp932",
              "euc_kr": "cp949", "big5": "cp950", "iso8859-9": "cp1254"}  # fmt: skip


@lru_cache(maxsize=512)
def codec_name(charset: str) -> str | None:
    """The Python codec that reads this charset, or None when there is none."""
    name = charset.strip().strip("\"'").lower()
    if name.endswith(("-i", "-e")) and name.startswith("iso-8859-"):
        name = name[:-2]  # RFC 1556: the direction of Hebrew and Arabic text
    try:
        known = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError, UnicodeError, TypeError):
        return None
    if known.name in _NOT_CHARSETS:
        return None
    return _SUPERSETS.get(known.name, known.name)


_GUESSED = 4096  # bytes that the detector is shown
_FEW = 6  # bytes beyond ASCII, from which it says anything
_ASCII = bytes(range(128))


def guess_text(raw: bytes) -> str:
    """Text of unlabelled bytes: UTF-8 when it is, else what the detector says, else Windows-1252.

    A few accents tell the detector nothing: `ü.pdf` is damaged UTF-8 to it, and `äöü` Chinese.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if len(raw) <= _GUESSED and len(raw.translate(None, _ASCII)) < _FEW:
        return raw.decode("cp1252", "replace")
    try:
        found = cchardet.detect(raw[:_GUESSED]).get("encoding")
    except Exception:
        found = None
    codec = codec_name(found) if found else None
    return raw.decode(codec or "cp1252", "replace")


# ESC ( B/J: ASCII, JIS Roman; ESC ( I: kana of one byte; ESC $ @/B: two bytes a character (RFC 1468, ECMA-35)
_SHIFT = re.compile(rb"\x1b(\([BIJ]|\$[@B])")


def _windows_jis(raw: bytes) -> str:
    """ISO-2022-JP as Windows writes it (code page 50221): with ①, ㈱, 髙, and kana of half width.

    The same characters have a place in code page 932, which is the same table folded otherwise.
    """
    pieces = _SHIFT.split(raw)
    out = [pieces[0].decode("ascii", "replace")]
    for shift, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        if shift == b"(I":
            kana = bytes([byte | 0x80 if 0x21 <= byte <= 0x5F else byte for byte in piece])
            out.append(kana.decode("cp932", "replace"))
        elif shift.startswith(b"$"):
            out.append(_JIS_PAIR.sub(_folded_pair, piece).decode("cp932", "replace"))
        else:
            out.append(piece.decode("ascii", "replace"))
    return "".join(out)


_JIS_PAIR = re.compile(rb"[\x21-\x7e]{2}")


def _folded_pair(match: re.Match[bytes]) -> bytes:
    row, cell = match[0]
    lead = ((row - 0x21) >> 1) + 0x81
    trail = cell + (0x1F + (cell >= 0x60) if row & 1 else 0x7E)
    return bytes((lead + 0x40 if lead > 0x9F else lead, trail))


def decode_charset(raw: bytes, charset: str | None) -> str:
    """Text of bytes in a declared charset. An unknown or absent one is guessed; bad bytes become U+FFFD."""
    codec = codec_name(charset) if charset else None
    if codec is None:
        return guess_text(raw)
    try:
        text = raw.decode(codec)
    except (UnicodeDecodeError, ValueError):
        if codec == "utf-8":
            return guess_text(raw)
        text = _windows_jis(raw) if codec.startswith("iso2022_jp") else raw.decode(codec, "replace")
    # UTF-7 is the one charset that can spell half of a surrogate pair, which is no character and cannot be stored.
    return _HALF_PAIR.sub("\ufffd", text) if codec == "utf-7" else text


def decode_base64(data: bytes) -> bytes:
    """Base64 as real mail has it: foreign characters skipped, padding optional, a broken end cut off. Never raises."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        clean = data.translate(None, _NOT_BASE64)
        clean = clean[: len(clean) - 1] if len(clean) % 4 == 1 else clean
        return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))


def _decode_word(encoding: bytes, text: bytes) -> bytes:
    return decode_base64(text) if encoding in b"bB" else binascii.a2b_qp(text, header=True)


def decode_words(value: bytes) -> str:
    """The text of a header value: unfolded, encoded words decoded (RFC 2047), raw 8-bit guessed. Never raises.

    Adjacent words of one charset are joined before they are decoded, since senders cut inside characters. A line folded
    at a tab reads as if folded at the space that the tab stands for.
    """
    line = unfold(_FOLDED_AT_TAB.sub(b" ", value)).strip(b" \t")
    if b"=?" not in line:
        return line.decode("ascii") if line.isascii() else guess_text(line)
    text: list[str] = []
    pending: list[bytes] = []
    pending_charset = ""
    last = 0
    for match in _WORD.finditer(line):
        between = line[last : match.start()]
        charset = match[1].split(b"*", 1)[0].decode("ascii", "replace")
        adjacent = bool(pending) and not between.strip(b" \t")
        if pending and not (adjacent and charset == pending_charset):
            text.append(decode_charset(b"".join(pending), pending_charset))
            pending = []
        if not adjacent and between:
            text.append(guess_text(between))
        pending.append(_decode_word(match[2], match[3]))
        pending_charset = charset
        last = match.end()
    if pending:
        text.append(decode_charset(b"".join(pending), pending_charset))
    if last < len(line):
        text.append(guess_text(line[last:]))
    return "".join(text)
