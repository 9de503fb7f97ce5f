"""New messages as bytes: fields folded and encoded, parts put together (RFC 5322, 2045 to 2047, 2231, 2387).

It takes clean values (text, addresses, bytes with a media type) and gives what the strictest reader accepts: lines of
78 characters where that is possible and of 998 always, ASCII in every header, parts that survive a 7-bit way. It knows
nothing of stored mail, which is never composed anew.

**The one hard idea** is that the same values always give the same bytes: what is imported twice must be recognised. So
a boundary is not random but the hash of what it parts. Nothing that contains its own hash can be made, and no base64 or
quoted-printable text can contain "=_"; what is written as it is gets looked through all the same.

A field's value is text (any of Unicode, encoded where it must be), or bytes that are a finished value already, as
`address_list` gives them. Control characters in text become spaces: no value can end its field.
"""

import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

LINE: Final = 78
LINE_MAX: Final = 998
_WORD_MAX: Final = 75  # of an encoded word (RFC 2047 section 2)
DEPTH_MAX: Final = 100

Field = tuple[str, str | bytes]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part with content. Text is given as `str` (it becomes ASCII or UTF-8) or as bytes in a charset of `parameters`.

    `disposition`: "inline", "attachment" or none. `content_id` without its angle brackets.
    """

    media_type: str
    data: str | bytes
    name: str = ""
    disposition: str = ""
    content_id: str = ""
    location: str = ""
    parameters: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Multi:
    """Parts in one: multipart/`subtype`."""

    subtype: str
    parts: "tuple[Part, ...]"
    parameters: tuple[tuple[str, str], ...] = ()


Part = Leaf | Multi


def message(fields: Iterable[Field], body: Part) -> bytes:
    """A whole message: the fields, MIME-Version, the body. The fields must hold none of MIME's own."""
    head = b"".join(field(name, value) for name, value in fields)
    written = _part(body, 0)
    end = b"\r\n" if isinstance(body, Leaf) and written.base64 else b""
    return b"".join([head, b"MIME-Version: 1.0\r\n", *written.chunks, end])


def mixed(body: Part, attachments: Sequence[Part]) -> Part:
    """The body with attachments, or the body alone when there are none."""
    return Multi("mixed", (body, *attachments)) if attachments else body


# --- fields ----------------------------------------------------------------------------------------------------------

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# Where a line may be folded: at one space between two others that are none.
_FOLDABLE: Final = re.compile(r"(?<=[^ ]) (?=[^ ])")


def field(name: str, value: str | bytes) -> bytes:
    """One field with its line ends."""
    if isinstance(value, str):
        value = unstructured(value, len(name) + 2)
    return name.encode("ascii") + b": " + value + b"\r\n"


def clean(text: str) -> str:
    """One line of text that can be written: no control characters, no halves of surrogate pairs."""
    if text.isascii() and text.isprintable():
        return text
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text))


def unstructured(text: str, column: int = 0) -> bytes:
    """The text as the value of a field like Subject, `column` characters into its first line (RFC 5322 section 2.2.1).

    White space around it is lost, all other text is not.
    """
    text = clean(text).strip(" ")
    if text.isascii() and "=?" not in text:
        folded = _folded(text, column)
        if folded is not None:
            return folded
    return _fold(_encoded(text, column), column)


def _folded(text: str, column: int) -> bytes | None:
    """ASCII text folded at its spaces; None when a line would be too long for any reader."""
    if column + len(text) <= LINE:
        return text.encode("ascii")
    words = _FOLDABLE.split(text)
    if max(map(len, words)) > LINE_MAX - column:
        return None
    return _fold(words, column)


def _fold(words: Sequence[str], column: int) -> bytes:
    """The words with one space between them, on as many lines as it takes."""
    lines: list[str] = []
    line: list[str] = []
    for word in words:
        if line and column + 1 + len(word) > LINE:
            lines.append(" ".join(line))
            line, column = [], 1
        column += len(word) + bool(line)
        line.append(word)
    lines.append(" ".join(line))
    return "\r\n ".join(lines).encode("ascii")


def _encoded(text: str, column: int) -> list[str]:
    """Words and encoded words that together are the text: from the first word that needs it to the last is encoded."""
    words = text.split(" ")
    needy = [n for n, word in enumerate(words) if _needs_encoding(word)]
    first, last = (needy[0], needy[-1] + 1) if needy else (0, len(words))
    # Empty words are spaces beside spaces, which would not survive next to an encoded word.
    while first > 0 and not words[first - 1]:
        first -= 1
    while last < len(words) and not words[last]:
        last += 1
    before, after = " ".join(words[:first]), " ".join(words[last:])
    made = encoded_words(" ".join(words[first:last]), 0 if before else column)
    return [*(_FOLDABLE.split(before) if before else []), *made, *(_FOLDABLE.split(after) if after else [])]


def _needs_encoding(word: str) -> bool:
    return not word.isascii() or "=?" in word or len(word) > LINE_MAX - LINE


_Q_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_Q: Final = tuple(
    "_" if byte == 0x20 else chr(byte) if byte in _Q_SAFE else f"={byte:02X}" for byte in range(256)
)  # fit for a phrase as well (RFC 2047 section 5, rule 3)


def encoded_words(text: str, column: int = 0) -> list[str]:
    """The text as encoded words of UTF-8, none longer than 75 characters, no character cut in two (RFC 2047).

    The first one leaves room for the `column` characters before it.
    """
    raw = text.encode("utf-8")
    quoted = sum(len(_Q[byte]) for byte in raw)
    base64 = quoted > len(raw) * 4 // 3 + 4
    whole = _WORD_MAX - len("=?utf-8?q??=")
    room = max(16, min(whole, LINE - column - len("=?utf-8?q??=")))
    words: list[str] = []
    taken: list[bytes] = []
    size = 0
    for character in text:
        piece = character.encode("utf-8")
        width = len(piece) if base64 else sum(len(_Q[byte]) for byte in piece)
        if size + width > (room // 4 * 3 if base64 else room):
            words.append(_word(b"".join(taken), base64))
            taken, size, room = [], 0, whole
        taken.append(piece)
        size += width
    words.append(_word(b"".join(taken), base64))
    return words


def _word(raw: bytes, base64: bool) -> str:
    if base64:
        return f"=?utf-8?b?{binascii.b2a_base64(raw, newline=False).decode('ascii')}?="
    return f"=?utf-8?q?{''.join(_Q[byte] for byte in raw)}?="


# --- addresses -------------------------------------------------------------------------------------------------------

_ATEXT: Final = r"A-Za-z0-9!#$%&'*+\-/=?^_`{|}~"
_ATOMS: Final = re.compile(rf"[{_ATEXT}]+(?: [{_ATEXT}]+)*")
_DOT_ATOM: Final = re.compile(rf"[{_ATEXT}\u0080-\U0010ffff]+(?:\.[{_ATEXT}\u0080-\U0010ffff]+)*")
_ADDRESS_MAX: Final = 900  # three times what an address may have (RFC 5321 section 4.5.3.1)
_DOMAIN: Final = re.compile(r"[^\s<>()\[\]\\,;:@\"]+|\[[^\s<>\[\]\\]+\]")


def address_list(people: Iterable[tuple[str, str]], column: int = 0) -> bytes:
    """Names and addresses as the value of a field like To (RFC 5322 section 3.4).

    Who has no address is written as a group without members, the one form that has a name only (RFC 6854).
    """
    # Each address is kept on a line of its own as far as it goes: that is where readers of old look for the comma.
    lines: list[list[str]] = []
    for name, address in people:
        words = _mailbox_words(clean(name).strip(" "), clean(address).strip(" "))
        if words:
            lines.append(words)
    out = ""
    at = column
    for number, words in enumerate(lines):
        end = "," if number + 1 < len(lines) else ""
        for place, word in enumerate(words):
            text = word + (end if place + 1 == len(words) else "")
            if not out:
                out, at = text, column + len(text)
            elif at + 1 + len(text) > LINE:
                out, at = f"{out}\r\n {text}", 1 + len(text)
            else:
                out, at = f"{out} {text}", at + 1 + len(text)
    # Beyond ASCII is left only in addresses that are so themselves (RFC 6532).
    return out.encode("utf-8")


def _mailbox_words(name: str, address: str) -> list[str]:
    if not address.isascii() and not _DOT_ATOM.fullmatch(address.rpartition("@")[0]):
        name, address = name or address, ""  # not one that RFC 6532 lets stand in a header
    if not address or len(address) > _ADDRESS_MAX:
        return [*_phrase(name)[:-1], f"{_phrase(name)[-1]}:;"] if name else []
    written = address_spec(address)
    if not name or name == address:
        return [written] if "@" in written else [f"<{written}>"]
    return [*_phrase(name), f"<{written}>"]


def _phrase(name: str) -> list[str]:
    """A display name: atoms, a quoted string, or encoded words."""
    if not name.isascii() or "=?" in name or len(name) > LINE_MAX - LINE:
        return encoded_words(name)
    if _ATOMS.fullmatch(name):
        return name.split(" ")
    return _FOLDABLE.split(_quoted(name))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def address_spec(address: str) -> str:
    """An address as the grammar has it. One that is none becomes a quoted local part, so that nothing else is read."""
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = address, ""
    elif not local or not _DOMAIN.fullmatch(domain):
        local, at, domain = address, "", ""
    if local.startswith('"') and local.endswith('"') and len(local) > 1:
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return (local if _DOT_ATOM.fullmatch(local) else _quoted(local)) + at + domain


# --- dates and identifiers -------------------------------------------------------------------------------------------

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def date_time(seconds: float, offset_minutes: int = 0) -> str:
    """A Unix time as RFC 5322 section 3.3 has it, in the zone so far east of Greenwich. Raises OverflowError."""
    zone = UTC if offset_minutes == 0 else timezone(timedelta(minutes=offset_minutes))
    when = datetime.fromtimestamp(0, zone) + timedelta(seconds=int(seconds))
    sign, minutes = ("-", -offset_minutes) if offset_minutes < 0 else ("+", offset_minutes)
    return (
        f"{_DAYS[when.weekday()]}, {when.day} {_MONTHS[when.month - 1]} {when.year:04} "
        f"{when.hour:02}:{when.minute:02}:{when.second:02} {sign}{minutes // 60:02}{minutes % 60:02}"
    )


# --- parts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Written:
    """A part with its fields, in pieces; `plain` are those pieces in which a boundary might occur."""

    chunks: list[bytes]
    plain: list[bytes]
    digest: bytes
    encoding: str  # what a multipart around it must say: 7bit, 8bit or binary
    base64: bool = False


def _part(part: Part, depth: int) -> _Written:
    return _leaf(part) if isinstance(part, Leaf) else _multi(part, depth)


def _multi(part: Multi, depth: int) -> _Written:
    if depth > DEPTH_MAX:
        raise ValueError("Parts are nested too deep")
    inside = [_part(child, depth + 1) for child in part.parts]
    plain = [piece for child in inside for piece in child.plain]
    seed = hashlib.blake2b(b"".join(child.digest for child in inside), digest_size=16)
    while True:
        boundary = b"=_" + seed.hexdigest().encode("ascii")
        if not any(boundary in piece for piece in plain):
            break
        seed.update(boundary)
    parameters = (*part.parameters, ("boundary", boundary.decode("ascii")))
    chunks = [_content_type(f"multipart/{part.subtype}", parameters), b"\r\n"]
    encoding = max((child.encoding for child in inside), default="7bit")  # RFC 2045 section 6.4: "7" < "8" < "b"
    if encoding != "7bit":
        chunks.insert(1, f"Content-Transfer-Encoding: {encoding}\r\n".encode("ascii"))
    for child in inside:
        chunks += [b"--", boundary, b"\r\n", *child.chunks, b"\r\n"]
    chunks += [b"--", boundary, b"--\r\n"]
    return _Written(chunks, plain, seed.digest(), encoding)


_IDENTITIES: Final = ("7bit", "8bit", "binary")


def _leaf(part: Leaf) -> _Written:
    parameters, data, encoding = _encoding(part)
    named = part.name and not part.disposition
    head = [_content_type(part.media_type, (*parameters, ("name", part.name)) if named else parameters)]
    if encoding != "7bit":
        head.append(f"Content-Transfer-Encoding: {encoding}\r\n".encode("ascii"))
    if part.disposition:
        value = _with_parameters(part.disposition, (("filename", part.name),) if part.name else (), 21)
        head.append(b"Content-Disposition: " + value + b"\r\n")
    if part.content_id:
        identifier = re.sub(r"[\s<>]", "", clean(part.content_id))
        head.append(field("Content-ID", f"<{identifier}>"))
    if part.location:
        head.append(field("Content-Location", part.location))
    plain = [data] if encoding in _IDENTITIES else []
    fields = b"".join(head)
    digest = hashlib.blake2b(fields, digest_size=16)
    digest.update(data)
    return _Written(
        [fields, b"\r\n", data], plain, digest.digest(), encoding if plain else "7bit", encoding == "base64"
    )


def _encoding(part: Leaf) -> tuple[tuple[tuple[str, str], ...], bytes, str]:
    """Parameters, encoded content, name of the encoding."""
    parameters = part.parameters
    if part.media_type.startswith("message/") and isinstance(part.data, bytes):
        return parameters, part.data, _identity(part.data)  # RFC 2046 section 5.2.1: never encoded
    if isinstance(part.data, str):
        text = _SURROGATE.sub("\ufffd", part.data)
        raw = re.sub(r"\r\n?|\n", "\r\n", text).encode("utf-8")
        parameters = (*parameters, ("charset", "us-ascii" if raw.isascii() else "utf-8"))
    else:
        raw = part.data
    if not part.media_type.startswith("text/"):
        return parameters, base64_lines(raw), "base64"
    if raw.isascii() and _is_seven_bit(raw):
        return parameters, raw, "7bit"
    quoted = quoted_printable(raw)
    if len(quoted) <= len(raw) * 3 // 2 + 64:  # above, base64 is shorter, and nobody reads the other either
        return parameters, quoted, "quoted-printable"
    return parameters, base64_lines(raw), "base64"


_UNSAFE: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f\x7f]")


def _is_seven_bit(raw: bytes) -> bool:
    """Whether ASCII text comes through as it is: no long line, no odd line end, no control character."""
    return not (_has_odd_line_end(raw) or _has_long_line(raw) or _UNSAFE.search(raw))


def _has_odd_line_end(raw: bytes) -> bool:
    """Whether there is a CR or LF without the other."""
    return not raw.count(b"\r\n") == raw.count(b"\r") == raw.count(b"\n")


def _has_long_line(raw: bytes) -> bool:
    """Whether a line has more than 996 bytes, its CR among them. In linear time, however lines lie."""
    at = 0
    while at + LINE_MAX - 1 <= len(raw):
        end = raw.rfind(b"\n", at, at + LINE_MAX - 1)
        if end < 0:
            return True
        at = end + 1
    return False


def _identity(raw: bytes) -> str:
    if b"\0" in raw or _has_odd_line_end(raw) or _has_long_line(raw):
        return "binary"
    return "7bit" if raw.isascii() else "8bit"


def base64_lines(raw: bytes) -> bytes:
    """Base64 in lines of 76, each with its line end but the last."""
    text = binascii.b2a_base64(raw, newline=False)
    return b"\r\n".join(text[at : at + 76] for at in range(0, len(text), 76))


def quoted_printable(raw: bytes) -> bytes:
    """Text with CRLF line ends as quoted-printable, exact to the byte: a lone CR or LF is encoded (RFC 2045, 6.7)."""
    if _has_odd_line_end(raw):
        lines = raw.split(b"\r\n")
        return b"\r\n".join(binascii.b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n") for line in lines)
    coded = binascii.b2a_qp(raw, istext=True)
    # It takes its line ends from the text, if that has any.
    return coded if b"\r\n" in raw else coded.replace(b"=\n", b"=\r\n")


# --- parameters ------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$&+\-^_`{|}~.]+")
_ATTRIBUTE_CHAR: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-^_`{|}~.")
_PERCENT: Final = tuple(chr(byte) if byte in _ATTRIBUTE_CHAR else f"%{byte:02X}" for byte in range(256))


def _content_type(media_type: str, parameters: Sequence[tuple[str, str]]) -> bytes:
    return b"Content-Type: " + _with_parameters(media_type, parameters, 14) + b"\r\n"


def _with_parameters(value: str, parameters: Sequence[tuple[str, str]], column: int) -> bytes:
    out, at = value, column + len(value)
    for name, text in parameters:
        for piece in _parameter(name, clean(text)):
            if at + 2 + len(piece) > LINE:
                out, at = f"{out};\r\n {piece}", 1 + len(piece)
            else:
                out, at = f"{out}; {piece}", at + 2 + len(piece)
    return out.encode("ascii")


def _parameter(name: str, text: str) -> list[str]:
    """A parameter in one piece, or in several by RFC 2231 when it is long or not ASCII."""
    if text.isascii() and len(name) + len(text) + 3 < LINE:
        # An encoded word in quotes is none, but it is read as one.
        if _TOKEN.fullmatch(text):
            return [f"{name}={text}"]
        if "=?" not in text:
            return [f"{name}={_quoted(text)}"]
    coded = ["".join(_PERCENT[byte] for byte in character.encode("utf-8")) for character in text]
    start = "utf-8''"
    if len(name) + 2 + len(start) + sum(map(len, coded)) < LINE:
        return [f"{name}*={start}{''.join(coded)}"]
    pieces: list[str] = []
    line = start
    for character in coded:
        if len(name) + 8 + len(line) + len(character) > LINE - 2:
            pieces.append(line)
            line = ""
        line += character
    pieces.append(line)
    return [f"{name}*{number}*={piece}" for number, piece in enumerate(pieces)]
